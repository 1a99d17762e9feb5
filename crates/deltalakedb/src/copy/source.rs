//! Reads a table of the source as an import wants it: history, base, commits.

use std::collections::{BTreeMap, HashMap, HashSet};

use deltalakedb_catalog_core::action::{Add, FileKey, Remove};
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{ImportProgress, ImportedCommit};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex, index_ndjson};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{BaseChunk, BaseTail, CommitRecord, TableRecord};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::retry::Retry;
use futures::TryStreamExt;
use tokio::sync::mpsc;

use super::Limits;

/// Commits read in one call.
const PAGE: usize = 500;

/// Older than every deletion: all tombstones are wanted.
pub(crate) const EVER: TimestampMs = TimestampMs(i64::MIN);

/// What goes to the target in one transaction.
#[derive(Debug)]
pub(crate) enum Step {
    /// Commits: history, or above the base.
    Commits(Vec<ImportedCommit>),
    /// A part of the base state, after so many files and tombstones.
    Base { files: u64, tombstones: u64, chunk: BaseChunk, tail: Option<Box<BaseTail>> },
}

/// A table that can be read as an import wants it.
pub(crate) trait Steps: Clone + Send + Sync + 'static {
    /// The version up to which it is read.
    fn head(&self) -> Version;

    /// Whether its state is replayed from version 0.
    fn is_replayed(&self) -> bool;

    /// Sends every step from where the target is up to the head. Ends early when nobody listens.
    fn send(
        self,
        at: ImportProgress,
        to: mpsc::Sender<Result<Step>>,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// A table of the source.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    catalog: Catalog,
    table: TableId,
    label: String,
    base: Version,
    head: Version,
    limits: Limits,
    /// Whether its state is replayed from version 0.
    pub(crate) from_json: bool,
}

impl Source {
    /// Finds out where the state of a table starts.
    ///
    /// # Errors
    /// `Corrupt` for a table without a head; those of the database.
    pub(crate) async fn open(
        catalog: &Catalog,
        record: &TableRecord,
        limits: Limits,
    ) -> Result<Source> {
        let mut source = Source { limits, ..Source::known(catalog, record, false)? };
        source.from_json = source.base == Version::ZERO && source.replays_version_0().await?;
        Ok(source)
    }

    /// A table of which it is known where its state starts.
    ///
    /// # Errors
    /// `Corrupt` for a table without a head.
    pub(crate) fn known(
        catalog: &Catalog,
        record: &TableRecord,
        from_json: bool,
    ) -> Result<Source> {
        let head = record.head.ok_or_else(|| {
            CatalogError::corrupt(format!("table '{}' of the source has no version", record.name))
        })?;
        Ok(Source {
            catalog: catalog.clone(),
            table: record.id,
            label: format!("table '{}' ({}) of the source", record.name, record.id),
            base: record.base_version,
            head,
            limits: Limits::default(),
            from_json,
        })
    }

    /// Whether version 0 is what its commit says: else it was imported from a checkpoint of
    /// version 0, which knows more, or contradicts the commit.
    async fn replays_version_0(&self) -> Result<bool> {
        let first = self.bodies(Version::ZERO, Version::ZERO, 1).await?;
        let Some((record, body)) = first.into_iter().next() else { return Ok(false) };
        if record.token.is_some() {
            // A commit of a catalog's own: there is no other way to version 0.
            return Ok(true);
        }
        let index = index_of(&self.label, &record, &body)?;
        let table = TableRef::Id(self.table);
        let snapshot = self.catalog.snapshot(&table, At::Version(Version::ZERO)).await?;
        let tail = self.tail().await?;
        let txns: BTreeMap<_, _> = index.txns.iter().map(|t| (&t.app_id, t)).collect();
        let domains: BTreeMap<_, _> =
            index.domain_metadata.iter().filter(|d| !d.removed).map(|d| (&d.domain, d)).collect();
        if index.protocol.as_ref() != Some(&snapshot.protocol)
            || index.metadata.as_ref() != Some(&snapshot.metadata)
            || !txns.into_values().eq(&tail.txns)
            || !domains.into_values().eq(&tail.domain_metadata)
        {
            return Ok(false);
        }
        // Of a file that is added twice, the last row counts.
        let rows: HashMap<FileKey, usize> =
            index.adds.iter().enumerate().map(|(i, add)| (add.key(), i)).collect();
        let mut buried: HashMap<FileKey, &Remove> =
            index.removes.iter().map(|remove| (remove.key(), remove)).collect();
        buried.retain(|key, _| !rows.contains_key(key));
        let mut expected: Vec<usize> = rows.into_values().collect();
        expected.sort_unstable();
        let mut expected = expected.into_iter();
        let mut files = self.catalog.files(self.table, Version::ZERO);
        while let Some(file) = files.try_next().await? {
            let row = expected.next();
            let same = row.is_some_and(|row| {
                i64::try_from(row) == Ok(file.cursor.ordinal)
                    && index.adds.get(row) == Some(&file.add)
            });
            if !same {
                return Ok(false);
            }
        }
        let mut tombstones = self.catalog.tombstones(self.table, Version::ZERO, EVER);
        while let Some(tombstone) = tombstones.try_next().await? {
            if buried.remove(&tombstone.remove.key()) != Some(&tombstone.remove) {
                return Ok(false);
            }
        }
        Ok(expected.next().is_none() && buried.is_empty())
    }

    /// Stored bytes of some versions.
    pub(crate) async fn bodies(
        &self,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Result<Vec<(CommitRecord, CommitBody)>> {
        let backend = self.catalog.backend();
        Retry::of(&self.catalog).repeat(|| backend.read_bodies(self.table, from, to, limit)).await
    }

    /// The small rest of the base.
    pub(crate) async fn tail(&self) -> Result<BaseTail> {
        let (table, base) = (TableRef::Id(self.table), self.base);
        let snapshot = self.catalog.snapshot(&table, At::Version(base)).await?;
        let (retry, backend) = (Retry::of(&self.catalog), self.catalog.backend());
        Ok(BaseTail {
            protocol: snapshot.protocol,
            metadata: snapshot.metadata,
            txns: retry.repeat(|| backend.app_transactions(self.table, base)).await?,
            domain_metadata: retry.repeat(|| backend.domain_metadata(self.table, base)).await?,
            timestamp: snapshot.timestamp,
        })
    }

    /// `Err(None)`: nobody listens.
    async fn steps(
        &self,
        at: &ImportProgress,
        to: &mpsc::Sender<Result<Step>>,
    ) -> Result<(), Option<CatalogError>> {
        let mut next = at.table.head.map_or(Version::ZERO, Version::next);
        if !self.from_json {
            let history = at.history_through.map_or(Version::ZERO, Version::next);
            self.commits(history, self.base, to).await?;
            if !at.base_done {
                self.base(at.base_files, at.base_tombstones, to).await?;
            }
            next = next.max(self.base.next());
        }
        let last = self.commits(next, self.head, to).await?;
        if next <= self.head && last != Some(self.head) {
            return Err(Some(self.no_bytes(last.map_or(next, Version::next))));
        }
        Ok(())
    }

    /// The error of a version whose bytes are missing.
    pub(crate) fn no_bytes(&self, version: Version) -> CatalogError {
        CatalogError::corrupt(format!(
            "{}: the bytes of version {version} are not stored",
            self.label
        ))
    }

    /// Sends the commits of some versions. Returns the last one.
    async fn commits(
        &self,
        from: Version,
        through: Version,
        to: &mpsc::Sender<Result<Step>>,
    ) -> Result<Option<Version>, Option<CatalogError>> {
        let mut next = from;
        let mut last = None;
        let mut batch: Vec<(CommitRecord, CommitBody)> = Vec::new();
        let mut bytes = 0_u64;
        while next <= through {
            let page = self.bodies(next, through, PAGE).await?;
            let Some((end, _)) = page.last() else { break };
            next = end.version.next();
            for (record, body) in page {
                // History below a base may lack versions, the state above it may not.
                let applied = self.from_json || record.version > self.base;
                let expected = last.map_or(from, Version::next);
                if applied && record.version != expected {
                    return Err(Some(self.no_bytes(expected)));
                }
                last = Some(record.version);
                let size = body.rest.raw_len;
                if batch.len() >= self.limits.commits.max(1)
                    || (!batch.is_empty() && bytes.saturating_add(size) > self.limits.bytes)
                {
                    self.parsed(std::mem::take(&mut batch), to).await?;
                    bytes = 0;
                }
                bytes = bytes.saturating_add(size);
                batch.push((record, body));
            }
        }
        if !batch.is_empty() {
            self.parsed(batch, to).await?;
        }
        Ok(last)
    }

    async fn parsed(
        &self,
        batch: Vec<(CommitRecord, CommitBody)>,
        to: &mpsc::Sender<Result<Step>>,
    ) -> Result<(), Option<CatalogError>> {
        let label = self.label.clone();
        let sets: Vec<(bool, bool)> = batch
            .iter()
            .map(|(record, _)| (record.changes_protocol, record.changes_metadata))
            .collect();
        // Parsing is work for the processor, not for the reactor.
        let mut commits = tokio::task::spawn_blocking(move || {
            let parse = |(record, body)| imported(&label, record, body);
            batch.into_iter().map(parse).collect::<Result<Vec<_>>>()
        })
        .await
        .map_err(|e| {
            CatalogError::failed(
                format!("reading {} broke off: {e}", self.label),
                WriteState::NotApplied,
            )
        })??;
        // The first commit of a log that others wrote may have got them from a later one.
        for (commit, (protocol, metadata)) in commits.iter_mut().zip(sets) {
            let index = &mut commit.index;
            if protocol && index.protocol.is_none() || metadata && index.metadata.is_none() {
                let (table, at) = (TableRef::Id(self.table), At::Version(commit.version));
                let snapshot = self.catalog.snapshot(&table, at).await?;
                if protocol {
                    index.protocol.get_or_insert(snapshot.protocol);
                }
                if metadata {
                    index.metadata.get_or_insert(snapshot.metadata);
                }
            }
        }
        to.send(Ok(Step::Commits(commits))).await.map_err(|_| None)
    }

    /// Sends the state at the base, without what is there already.
    async fn base(
        &self,
        skip_files: u64,
        skip_tombstones: u64,
        to: &mpsc::Sender<Result<Step>>,
    ) -> Result<(), Option<CatalogError>> {
        let mut sent = (skip_files, skip_tombstones);
        let mut chunk = BaseChunk::default();
        let most = self.limits.files.max(1);
        let mut bytes = 0_u64;
        let mut seen = 0_u64;
        let mut files = self.catalog.files(self.table, self.base);
        while let Some(file) = files.try_next().await? {
            seen += 1;
            if seen <= skip_files {
                continue;
            }
            bytes = bytes.saturating_add(text_of(&file.add));
            chunk.files.push(file.add);
            if chunk.files.len() >= most || bytes >= self.limits.bytes {
                send_base(&mut sent, std::mem::take(&mut chunk), None, to).await?;
                bytes = 0;
            }
        }
        seen = 0;
        let mut tombstones = self.catalog.tombstones(self.table, self.base, EVER);
        while let Some(tombstone) = tombstones.try_next().await? {
            seen += 1;
            if seen <= skip_tombstones {
                continue;
            }
            chunk.tombstones.push(tombstone.remove);
            if chunk.files.len() + chunk.tombstones.len() >= most {
                send_base(&mut sent, std::mem::take(&mut chunk), None, to).await?;
            }
        }
        let tail = self.tail().await?;
        send_base(&mut sent, chunk, Some(Box::new(tail)), to).await
    }
}

impl Steps for Source {
    fn head(&self) -> Version {
        self.head
    }

    fn is_replayed(&self) -> bool {
        self.from_json
    }

    async fn send(self, at: ImportProgress, to: mpsc::Sender<Result<Step>>) {
        if let Err(Some(error)) = self.steps(&at, &to).await {
            // Nobody listens any more: then nobody wants to know.
            let _ = to.send(Err(error)).await;
        }
    }
}

/// Sends a part of a base; `sent` counts what was sent before.
pub(crate) async fn send_base(
    sent: &mut (u64, u64),
    chunk: BaseChunk,
    tail: Option<Box<BaseTail>>,
    to: &mpsc::Sender<Result<Step>>,
) -> Result<(), Option<CatalogError>> {
    let (files, tombstones) = *sent;
    sent.0 += u64::try_from(chunk.files.len()).unwrap_or_default();
    sent.1 += u64::try_from(chunk.tombstones.len()).unwrap_or_default();
    to.send(Ok(Step::Base { files, tombstones, chunk, tail })).await.map_err(|_| None)
}

/// Bytes of a file's texts.
pub(crate) fn text_of(add: &Add) -> u64 {
    let len = add.path.len() + add.stats.as_ref().map_or(0, String::len);
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A stored commit as an import wants it.
pub(crate) fn imported(
    label: &str,
    record: CommitRecord,
    body: CommitBody,
) -> Result<ImportedCommit> {
    let index = index_of(label, &record, &body)?;
    Ok(ImportedCommit {
        version: record.version,
        timestamp: record.timestamp,
        body,
        index,
        later: None,
        token: record.token.zip(record.batch_position),
    })
}

/// The rows that a commit was stored as, from its bytes.
///
/// # Errors
/// `Corrupt` if they are not those of the record.
pub(crate) fn index_of(
    label: &str,
    record: &CommitRecord,
    body: &CommitBody,
) -> Result<CommitIndex> {
    let origin = format!("{label}, version {}", record.version);
    let bytes = body.published()?;
    let mut index = index_ndjson(&origin, &bytes)
        .map_err(|e| CatalogError::corrupt(format!("the stored bytes cannot be read: {e}")))?;
    // Of a file that another engine names twice in a commit, importers may keep the last one only.
    fit(&mut index.adds, record.num_added, Add::key);
    fit(&mut index.removes, record.num_removed, Remove::key);
    let (added, removed) = (index.adds.len(), index.removes.len());
    if u64::try_from(added) != Ok(record.num_added)
        || u64::try_from(removed) != Ok(record.num_removed)
    {
        return Err(CatalogError::corrupt(format!(
            "{origin}: the stored bytes add {added} files and remove {removed}, its row says {} \
             and {}",
            record.num_added, record.num_removed
        )));
    }
    index.commit_info.clone_from(&record.commit_info);
    Ok(index)
}

/// Keeps the last item of each key where `count` says that this was done before.
fn fit<T>(items: &mut Vec<T>, count: u64, key: impl Fn(&T) -> FileKey) {
    if u64::try_from(items.len()) == Ok(count) {
        return;
    }
    let mut seen = HashSet::with_capacity(items.len());
    let keep: Vec<bool> = items.iter().rev().map(|item| seen.insert(key(item))).collect();
    let mut keep = keep.into_iter().rev();
    items.retain(|_| keep.next().unwrap_or(true));
}
