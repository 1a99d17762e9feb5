//! Compares a table of the target with the source's.

use std::collections::{BTreeSet, VecDeque};

use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{CommitFilter, CommittedTable};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, CommitToken, TableId, TableRef, Version};
use deltalakedb_catalog_core::model::{CommitRecord, TableRecord, TableState, TombstoneRecord};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::retry::Retry;
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use super::Validate;
use super::differences::{Differences, version};
use super::source::EVER;

/// Commits whose bytes are compared per call.
const BODIES: usize = 500;

/// What a comparison gave.
pub(super) struct Compared {
    /// Versions whose whole state was compared.
    pub(super) versions: u64,
    pub(super) differences: Differences,
}

/// Compares tables of two catalogs.
pub(super) struct Comparer<'a> {
    pub(super) from: &'a Catalog,
    pub(super) to: &'a Catalog,
    /// Tables that are copied: a batch may have written to others, which are left out.
    pub(super) copied: &'a BTreeSet<TableId>,
}

/// Compares two rows of a table; of one that is not finished, what is known of it so far.
pub(crate) fn records(found: &mut Differences, source: &TableRecord, copy: &TableRecord) {
    found.check("name", &source.name.to_string(), &copy.name.to_string());
    found.check("location", &source.location, &copy.location);
    // Values may be secrets, whatever they should be.
    if source.storage_options != copy.storage_options {
        found.add(|| "the storage options are not the same".to_owned());
    }
    found.check("first readable version", &source.base_version, &copy.base_version);
    heads(found, source, copy);
    if source.head == copy.head {
        found.check("time of the head", &source.head_timestamp, &copy.head_timestamp);
        let (ours, theirs) = (source.barrier_version, copy.barrier_version);
        found.check("last change of metadata or protocol", &ours, &theirs);
    }
    if copy.state != TableState::Importing {
        found.check("state", &source.state.as_str(), &copy.state.as_str());
        found.check("time of registration", &source.created_at, &copy.created_at);
        found.check("time of the drop", &source.dropped_at, &copy.dropped_at);
    }
}

fn heads(found: &mut Differences, source: &TableRecord, copy: &TableRecord) {
    let (ours, theirs) = (version(source.head), version(copy.head));
    if copy.head > source.head {
        found.add(|| {
            format!(
                "the target is in use: it is at version {theirs}, the source at {ours}. What was \
                 committed to the target is kept as it is"
            )
        });
    } else if copy.head < source.head {
        found.add(|| {
            format!(
                "the source was committed to after the table became {} at the target: it is at \
                 version {ours}, the target at {theirs}. To have those commits, copy into an empty \
                 target",
                copy.state.as_str()
            )
        });
    }
}

/// Compares how a table is published; the target's mirror may go on once it is active.
pub(crate) fn publishing(found: &mut Differences, source: &TableRecord, copy: &TableRecord) {
    found.check("mirror", &source.mirror, &copy.mirror);
    found.check("published version", &source.published_version, &copy.published_version);
}

impl Comparer<'_> {
    /// Compares a table.
    ///
    /// # Errors
    /// Those of the databases, and of bodies that do not unpack.
    pub(super) async fn table(
        &self,
        source: &TableRecord,
        copy: &TableRecord,
        validate: Validate,
    ) -> Result<Compared> {
        let mut differences = Differences::default();
        let found = &mut differences;
        records(found, source, copy);
        let (Some(head), false) = (source.head, validate == Validate::None) else {
            return Ok(Compared { versions: 0, differences });
        };
        if source.head != copy.head || source.base_version != copy.base_version {
            return Ok(Compared { versions: 0, differences });
        }
        let sample = sample(source.base_version, head, validate);
        let finished = copy.state != TableState::Importing;
        let tokens = self.history(found, source.id, head, validate, &sample, finished).await?;
        self.bodies(found, source.id, head).await?;
        for version in &sample {
            self.state(found, source.id, *version).await?;
        }
        for token in tokens {
            self.token(found, &token, finished).await?;
        }
        let versions = u64::try_from(sample.len()).unwrap_or(u64::MAX);
        Ok(Compared { versions, differences })
    }

    /// Compares history. Returns the tokens of the sample.
    async fn history(
        &self,
        found: &mut Differences,
        id: TableId,
        head: Version,
        validate: Validate,
        sample: &BTreeSet<Version>,
        finished: bool,
    ) -> Result<BTreeSet<CommitToken>> {
        let filter = CommitFilter { to_version: Some(head), ..CommitFilter::default() };
        let mut source = self.from.history(id, filter.clone());
        let mut target = self.to.history(id, filter);
        let mut tokens = BTreeSet::new();
        loop {
            let (ours, theirs) = tokio::try_join!(source.try_next(), target.try_next())?;
            match (ours, theirs) {
                (None, None) => return Ok(tokens),
                (Some(ours), Some(theirs)) if ours.version == theirs.version => {
                    commits(found, &ours, &theirs, finished);
                    let chosen = validate == Validate::All || sample.contains(&ours.version);
                    tokens.extend(ours.token.filter(|_| chosen));
                }
                (ours, theirs) => {
                    let (ours, theirs) = (ours.map(|c| c.version), theirs.map(|c| c.version));
                    found.add(|| {
                        format!(
                            "history: version {} at the source, {} at the target",
                            version(ours),
                            version(theirs)
                        )
                    });
                    return Ok(tokens);
                }
            }
        }
    }

    /// Compares the bytes that are or would be published.
    async fn bodies(&self, found: &mut Differences, id: TableId, head: Version) -> Result<()> {
        let mut source = Bodies::new(self.from, id, head);
        let mut target = Bodies::new(self.to, id, head);
        loop {
            tokio::try_join!(source.fill(), target.fill())?;
            let (ours, theirs) = match (source.page.pop_front(), target.page.pop_front()) {
                (None, None) => return Ok(()),
                (Some(ours), Some(theirs)) => (ours, theirs),
                (ours, theirs) => {
                    let (ours, theirs) = (ours.map(|b| b.0.version), theirs.map(|b| b.0.version));
                    found.add(|| {
                        format!(
                            "bytes: version {} at the source, {} at the target",
                            version(ours),
                            version(theirs)
                        )
                    });
                    return Ok(());
                }
            };
            if ours.0.version != theirs.0.version {
                let (ours, theirs) = (ours.0.version, theirs.0.version);
                found.add(|| {
                    format!("bytes of version {ours} at the source, of {theirs} at the target")
                });
                return Ok(());
            }
            // Another program may compress in another way.
            if ours.1 != theirs.1 && ours.1.published()? != theirs.1.published()? {
                found.add(|| format!("version {}: the bytes are not the same", ours.0.version));
            }
        }
    }

    /// Compares the whole state at a version.
    async fn state(&self, found: &mut Differences, id: TableId, at: Version) -> Result<()> {
        let table = TableRef::Id(id);
        let about = |what: &str| format!("version {at}, {what}");
        let (ours, theirs) = tokio::try_join!(
            self.from.snapshot(&table, At::Version(at)),
            self.to.snapshot(&table, At::Version(at))
        )?;
        found.check(&about("time"), &ours.timestamp, &theirs.timestamp);
        found.check(&about("protocol"), &ours.protocol, &theirs.protocol);
        let (since, since_there) = (ours.protocol_version, theirs.protocol_version);
        found.check(&about("version of the protocol"), &since, &since_there);
        found.check(&about("metadata"), &ours.metadata, &theirs.metadata);
        let (since, since_there) = (ours.metadata_version, theirs.metadata_version);
        found.check(&about("version of the metadata"), &since, &since_there);
        found.check(&about("number of files"), &ours.num_files, &theirs.num_files);
        found.check(&about("bytes"), &ours.size_bytes, &theirs.size_bytes);
        let by_time = self.to.snapshot(&table, At::Timestamp(ours.timestamp)).await?;
        found.check(&about("version by time"), &ours.version, &by_time.version);

        self.files(found, id, at).await?;
        let (ours, theirs) =
            tokio::try_join!(tombstones(self.from, id, at), tombstones(self.to, id, at))?;
        if ours != theirs {
            let (ours, theirs) = (ours.1, theirs.1);
            let what = about("tombstones");
            found.add(|| {
                format!("{what}: not the same ({ours} at the source, {theirs} at the target)")
            });
        }
        let (from, to) = (self.from.backend(), self.to.backend());
        let (retry, retry_there) = (Retry::of(self.from), Retry::of(self.to));
        let (ours, theirs) = tokio::try_join!(
            retry.repeat(|| from.app_transactions(id, at)),
            retry_there.repeat(|| to.app_transactions(id, at))
        )?;
        found.check(&about("application transactions"), &ours, &theirs);
        let (ours, theirs) = tokio::try_join!(
            retry.repeat(|| from.domain_metadata(id, at)),
            retry_there.repeat(|| to.domain_metadata(id, at))
        )?;
        found.check(&about("domain metadata"), &ours, &theirs);
        Ok(())
    }

    /// Compares the files at a version, which both sides list in the same order.
    async fn files(&self, found: &mut Differences, id: TableId, at: Version) -> Result<()> {
        let mut source = self.from.files(id, at);
        let mut target = self.to.files(id, at);
        loop {
            let (ours, theirs) = tokio::try_join!(source.try_next(), target.try_next())?;
            let (key, same) = match (&ours, &theirs) {
                (None, None) => return Ok(()),
                (Some(ours), Some(theirs)) => (
                    ours.add.key(),
                    ours.add == theirs.add
                        && ours.cursor.added_version == theirs.cursor.added_version,
                ),
                (Some(one), None) | (None, Some(one)) => (one.add.key(), false),
            };
            if !same {
                // What follows is shifted: one difference says enough.
                found.add(|| format!("version {at}, files: not the same from {key} on"));
                return Ok(());
            }
        }
    }

    async fn token(
        &self,
        found: &mut Differences,
        token: &CommitToken,
        finished: bool,
    ) -> Result<()> {
        let (ours, theirs) = tokio::try_join!(self.from.resolve(token), self.to.resolve(token))?;
        if ours.is_none() || (finished && theirs.is_none()) {
            return Ok(());
        }
        let ours: Option<Vec<CommittedTable>> = ours.map(|written| {
            written.into_iter().filter(|w| self.copied.contains(&w.table_id)).collect()
        });
        found.check(&format!("token {token}"), &ours, &theirs);
        Ok(())
    }
}

/// Compares two lines of history. A token that the source has forgotten for its age is none that differs, and so is
/// one that a finished table has.
pub(crate) fn commits(
    found: &mut Differences,
    ours: &CommitRecord,
    theirs: &CommitRecord,
    finished: bool,
) {
    if ours == theirs {
        return;
    }
    let forgotten = ours.token.is_none() || (finished && theirs.token.is_none());
    let about = |what: &str| format!("history, version {}, {what}", ours.version);
    found.check(&about("time"), &ours.timestamp, &theirs.timestamp);
    if !forgotten {
        found.check(&about("token"), &ours.token, &theirs.token);
        found.check(&about("place in its batch"), &ours.batch_position, &theirs.batch_position);
    }
    found.check(&about("commitInfo"), &ours.commit_info, &theirs.commit_info);
    found.check(&about("files added"), &ours.num_added, &theirs.num_added);
    found.check(&about("files removed"), &ours.num_removed, &theirs.num_removed);
    found.check(&about("bytes added"), &ours.bytes_added, &theirs.bytes_added);
    found.check(&about("bytes removed"), &ours.bytes_removed, &theirs.bytes_removed);
    found.check(&about("sets metadata"), &ours.changes_metadata, &theirs.changes_metadata);
    found.check(&about("sets the protocol"), &ours.changes_protocol, &theirs.changes_protocol);
    found.check(&about("files after it"), &ours.total_files, &theirs.total_files);
    found.check(&about("bytes after it"), &ours.total_bytes, &theirs.total_bytes);
    found.check(&about("has bytes"), &ours.has_body, &theirs.has_body);
}

/// Versions whose state is compared: evenly spread, first and last among them.
pub(crate) fn sample(base: Version, head: Version, validate: Validate) -> BTreeSet<Version> {
    let span = head.get().saturating_sub(base.get());
    let steps = match validate {
        Validate::None => return BTreeSet::new(),
        Validate::All => span,
        Validate::Sample(count) => i64::try_from(count).unwrap_or(i64::MAX).saturating_sub(1),
    };
    let steps = steps.clamp(1, span.max(1));
    (0..=steps)
        .filter_map(|step| {
            let offset = i128::from(span) * i128::from(step) / i128::from(steps);
            Version::new(base.get().saturating_add(i64::try_from(offset).ok()?)).ok()
        })
        .collect()
}

/// A digest of all tombstones at a version that does not depend on their order (databases may
/// number those without a file each in its own way), and their number.
async fn tombstones(catalog: &Catalog, id: TableId, at: Version) -> Result<(u128, u64)> {
    let mut list = catalog.tombstones(id, at, EVER);
    let (mut sum, mut count) = (0_u128, 0_u64);
    while let Some(tombstone) = list.try_next().await? {
        sum = sum.wrapping_add(digest(&tombstone)?);
        count += 1;
    }
    Ok((sum, count))
}

pub(crate) fn digest(tombstone: &TombstoneRecord) -> Result<u128> {
    let json = serde_json::to_vec(&tombstone.remove)
        .map_err(|e| CatalogError::corrupt(format!("a tombstone cannot be written: {e}")))?;
    let mut hasher = Sha256::new();
    hasher.update(tombstone.removed_version.get().to_be_bytes());
    hasher.update(&json);
    let full = hasher.finalize();
    let mut half = [0_u8; 16];
    half.copy_from_slice(&full[..16]);
    Ok(u128::from_be_bytes(half))
}

/// Stored bytes of a table, ascending.
pub(crate) struct Bodies<'a> {
    catalog: &'a Catalog,
    id: TableId,
    next: Version,
    head: Version,
    pub(crate) page: VecDeque<(CommitRecord, CommitBody)>,
}

impl<'a> Bodies<'a> {
    pub(crate) fn new(catalog: &'a Catalog, id: TableId, head: Version) -> Self {
        Bodies { catalog, id, next: Version::ZERO, head, page: VecDeque::new() }
    }

    /// Makes sure that the page has an item, unless there is none.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        if !self.page.is_empty() || self.next > self.head {
            return Ok(());
        }
        let (id, next, head) = (self.id, self.next, self.head);
        let backend = self.catalog.backend();
        let page =
            Retry::of(self.catalog).repeat(|| backend.read_bodies(id, next, head, BODIES)).await?;
        self.next = match page.last() {
            Some((last, _)) => last.version.next(),
            None => self.head.next(),
        };
        self.page.extend(page);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_first_and_last() {
        let v = |n| Version::new(n).unwrap();
        let some = |base, head, validate| -> Vec<i64> {
            sample(v(base), v(head), validate).into_iter().map(Version::get).collect()
        };
        assert_eq!(some(3, 11, Validate::Sample(5)), [3, 5, 7, 9, 11]);
        assert_eq!(some(0, 2, Validate::Sample(5)), [0, 1, 2]);
        assert_eq!(some(4, 4, Validate::Sample(5)), [4]);
        assert_eq!(some(0, 9, Validate::Sample(1)), [0, 9]);
        assert_eq!(some(7, 10, Validate::All), [7, 8, 9, 10]);
        assert!(some(7, 10, Validate::None).is_empty());
    }
}
