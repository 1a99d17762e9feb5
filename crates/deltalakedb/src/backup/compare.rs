//! Compares a restored table with the backup.
//!
//! The state at a version is replayed from the backup alone, by the protocol's rules, and compared
//! with what the database answers. That takes some 60 bytes of memory for each file and tombstone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deltalakedb_catalog_core::action::{Add, DomainMetadata, Metadata, Protocol, Remove, Txn};
use deltalakedb_catalog_core::backend::{
    CatalogBackendExt, CommitFilter, CommittedTable, ImportedCommit,
};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, CommitToken, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{CommitRecord, TableRecord, TableState, TombstoneRecord};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::retry::Retry;
use futures::TryStreamExt;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::read::{Item, Stored};
use crate::copy::Validate;
use crate::copy::compare::{Bodies, commits, digest, records, sample};
use crate::copy::differences::Differences;
use crate::copy::source::EVER;

/// Commits that are parsed at a time.
const BATCH: usize = 256;
/// Bytes of commits that are parsed at a time.
const BATCH_BYTES: u64 = 16 << 20;

/// What a comparison gave.
pub(super) struct Compared {
    pub(super) versions: u64,
    pub(super) differences: Differences,
}

/// The state of a table, as digests.
#[derive(Default)]
struct State {
    files: HashMap<[u8; 16], u128>,
    tombstones: HashMap<[u8; 16], u128>,
    txns: BTreeMap<String, Txn>,
    domains: BTreeMap<String, DomainMetadata>,
    protocol: Option<(Protocol, Version)>,
    metadata: Option<(Metadata, Version)>,
    timestamp: TimestampMs,
    barrier: Version,
}

impl State {
    fn add(&mut self, add: &Add, version: Version) -> Result<()> {
        let key = add.key().digest();
        self.files.insert(key, digest_of(version, add)?);
        self.tombstones.remove(&key);
        Ok(())
    }

    fn bury(&mut self, remove: &Remove, removed_version: Version) -> Result<()> {
        let key = remove.key().digest();
        self.files.remove(&key);
        // As copies compare them: the position of one without a file is the database's own.
        let cursor = deltalakedb_catalog_core::model::FileCursor {
            added_version: Version::ZERO,
            ordinal: 0,
        };
        let tombstone = TombstoneRecord { cursor, removed_version, remove: remove.clone() };
        self.tombstones.insert(key, digest(&tombstone)?);
        Ok(())
    }

    fn apply(&mut self, commit: &ImportedCommit) -> Result<()> {
        let version = commit.version;
        let index = &commit.index;
        for remove in &index.removes {
            self.bury(remove, version)?;
        }
        for add in &index.adds {
            self.add(add, version)?;
        }
        for txn in &index.txns {
            self.txns.insert(txn.app_id.clone(), txn.clone());
        }
        for domain in &index.domain_metadata {
            if domain.removed {
                self.domains.remove(&domain.domain);
            } else {
                self.domains.insert(domain.domain.clone(), domain.clone());
            }
        }
        if let Some(protocol) = &index.protocol {
            self.protocol = Some((protocol.clone(), version));
            self.barrier = version;
        }
        if let Some(metadata) = &index.metadata {
            self.metadata = Some((metadata.clone(), version));
            self.barrier = version;
        }
        self.timestamp = commit.timestamp;
        Ok(())
    }
}

fn digest_of(version: Version, value: &impl Serialize) -> Result<u128> {
    let json = serde_json::to_vec(value)
        .map_err(|e| CatalogError::corrupt(format!("a file cannot be written as JSON: {e}")))?;
    let mut hasher = Sha256::new();
    hasher.update(version.get().to_be_bytes());
    hasher.update(&json);
    let full = hasher.finalize();
    let mut half = [0_u8; 16];
    half.copy_from_slice(&full[..16]);
    Ok(u128::from_be_bytes(half))
}

/// Compares a table of a database with the backup's.
pub(super) struct Comparer<'a> {
    pub(super) to: &'a Catalog,
    pub(super) validate: Validate,
}

impl Comparer<'_> {
    /// Compares.
    ///
    /// # Errors
    /// Those of database and store; `Corrupt`.
    pub(super) async fn table(
        &self,
        stored: &Stored,
        record: &TableRecord,
        copy: &TableRecord,
    ) -> Result<Compared> {
        let mut differences = Differences::default();
        let found = &mut differences;
        let mut expected = record.clone();
        let head = record.head.filter(|_| self.validate != Validate::None);
        let Some(head) =
            head.filter(|_| record.head == copy.head && record.base_version == copy.base_version)
        else {
            // They are not in the backup's row where it is restored to an earlier time.
            expected.head_timestamp = copy.head_timestamp;
            expected.barrier_version = copy.barrier_version;
            records(found, &expected, copy);
            return Ok(Compared { versions: 0, differences });
        };
        let id = record.id;
        let finished = copy.state != TableState::Importing;
        let sample = sample(record.base_version, head, self.validate);
        let mut theirs = Bodies::new(self.to, id, head);
        let mut state = State { barrier: record.base_version, ..State::default() };
        let mut walk = stored.walk(None);
        let mut batch = Vec::new();
        let mut bytes = 0_u64;
        loop {
            let item = walk.next().await?;
            let full = batch.len() >= BATCH || bytes >= BATCH_BYTES;
            if (full || !matches!(item, Some(Item::Commit(..)))) && !batch.is_empty() {
                let parsed = stored.parsed(std::mem::take(&mut batch), &walk).await?;
                bytes = 0;
                for commit in parsed {
                    if stored.is_history(commit.version) {
                        continue;
                    }
                    state.apply(&commit)?;
                    if sample.contains(&commit.version) {
                        self.state(found, id, commit.version, &state).await?;
                    }
                }
            }
            match item {
                None => break,
                Some(Item::Commit(record, text)) => {
                    theirs.fill().await?;
                    let Some((there, body)) = theirs.page.pop_front() else {
                        found.add(|| format!("version {} is not at the target", record.version));
                        return Ok(Compared { versions: 0, differences });
                    };
                    commits(found, &record, &there, finished);
                    let ours = text.clone().into_body()?;
                    if ours != body && ours.published()? != body.published()? {
                        let version = record.version;
                        found.add(|| format!("version {version}: the bytes are not the same"));
                    }
                    if let Some(token) = record.token.as_ref().filter(|_| {
                        self.validate == Validate::All || sample.contains(&record.version)
                    }) {
                        self.token(found, token, &record, finished).await?;
                    }
                    bytes = bytes.saturating_add(text.len());
                    batch.push((record, text));
                }
                Some(Item::BaseRecord(record)) => {
                    self.base_record(found, &record, finished).await?;
                }
                Some(Item::File(add)) => state.add(&add, record.base_version)?,
                Some(Item::Tombstone(remove)) => state.bury(&remove, record.base_version)?,
                Some(Item::BaseEnd(tail)) => {
                    let base = record.base_version;
                    state.protocol = Some((tail.protocol, base));
                    state.metadata = Some((tail.metadata, base));
                    state.txns =
                        tail.txns.into_iter().map(|txn| (txn.app_id.clone(), txn)).collect();
                    state.domains = tail
                        .domain_metadata
                        .into_iter()
                        .map(|domain| (domain.domain.clone(), domain))
                        .collect();
                    state.timestamp = tail.timestamp;
                    if sample.contains(&base) {
                        self.state(found, id, base, &state).await?;
                    }
                }
            }
        }
        theirs.fill().await?;
        if let Some((more, _)) = theirs.page.pop_front() {
            found.add(|| format!("version {} is at the target, not in the backup", more.version));
        }
        expected.head_timestamp = Some(state.timestamp);
        expected.barrier_version = state.barrier;
        records(found, &expected, copy);
        Ok(Compared { versions: count(&sample), differences })
    }

    /// Compares the history of a base without a text.
    async fn base_record(
        &self,
        found: &mut Differences,
        record: &CommitRecord,
        finished: bool,
    ) -> Result<()> {
        let at = Some(record.version);
        let filter = CommitFilter { from_version: at, to_version: at, ..CommitFilter::default() };
        match self.to.history(record.table_id, filter).try_next().await? {
            Some(there) => commits(found, record, &there, finished),
            None => found.add(|| format!("history: version {} is not there", record.version)),
        }
        Ok(())
    }

    async fn token(
        &self,
        found: &mut Differences,
        token: &CommitToken,
        record: &CommitRecord,
        finished: bool,
    ) -> Result<()> {
        let written = self.to.resolve(token).await?.unwrap_or_default();
        let is_there = written.iter().any(|written| {
            written.table_id == record.table_id
                && written.version == record.version
                && written.timestamp == record.timestamp
        });
        // It was used again after it was forgotten.
        let is_newer = |w: &CommittedTable| w.timestamp > record.timestamp;
        let is_other = !written.is_empty() && written.iter().all(is_newer);
        let is_forgotten = finished && written.is_empty();
        if !(is_there || is_other || is_forgotten) {
            found.add(|| format!("token {token}: version {} is not known by it", record.version));
        }
        Ok(())
    }

    /// Compares the whole state at a version.
    async fn state(
        &self,
        found: &mut Differences,
        id: TableId,
        at: Version,
        state: &State,
    ) -> Result<()> {
        let table = TableRef::Id(id);
        let about = |what: &str| format!("version {at}, {what}");
        let theirs = self.to.snapshot(&table, At::Version(at)).await?;
        found.check(&about("time"), &state.timestamp, &theirs.timestamp);
        let protocol = Some((theirs.protocol, theirs.protocol_version));
        found.check(&about("protocol"), &state.protocol, &protocol);
        let metadata = Some((theirs.metadata, theirs.metadata_version));
        found.check(&about("metadata"), &state.metadata, &metadata);
        let by_time = self.to.snapshot(&table, At::Timestamp(state.timestamp)).await?;
        found.check(&about("version by time"), &at, &by_time.version);

        let (mut seen, mut last) = (0_usize, None);
        let mut files = self.to.files(id, at);
        while let Some(file) = files.try_next().await? {
            let key = file.add.key();
            let ours = state.files.get(&key.digest());
            let same = ours == Some(&digest_of(file.cursor.added_version, &file.add)?);
            if !same || last >= Some(file.cursor) {
                found.add(|| format!("version {at}, files: not the same at {key}"));
                break;
            }
            last = Some(file.cursor);
            seen += 1;
        }
        found.check(&about("number of files"), &state.files.len(), &seen);
        let mut seen = 0_usize;
        let mut tombstones = self.to.tombstones(id, at, EVER);
        while let Some(tombstone) = tombstones.try_next().await? {
            let key = tombstone.remove.key();
            if state.tombstones.get(&key.digest()) != Some(&digest(&tombstone)?) {
                found.add(|| format!("version {at}, tombstones: not the same at {key}"));
                break;
            }
            seen += 1;
        }
        found.check(&about("number of tombstones"), &state.tombstones.len(), &seen);
        let (backend, retry) = (self.to.backend(), Retry::of(self.to));
        let theirs = retry.repeat(|| backend.app_transactions(id, at)).await?;
        let ours: Vec<Txn> = state.txns.values().cloned().collect();
        found.check(&about("application transactions"), &ours, &theirs);
        let theirs = retry.repeat(|| backend.domain_metadata(id, at)).await?;
        let ours: Vec<DomainMetadata> = state.domains.values().cloned().collect();
        found.check(&about("domain metadata"), &ours, &theirs);
        Ok(())
    }
}

fn count(versions: &BTreeSet<Version>) -> u64 {
    u64::try_from(versions.len()).unwrap_or(u64::MAX)
}
