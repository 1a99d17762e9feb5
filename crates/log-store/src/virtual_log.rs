//! The log of a table as `deltalake` sees it: files that are made of the catalog's rows when they are
//! asked for.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::lenient;
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_engine::canonical::{Canonical, without_empty_values};
use deltalakedb_catalog_engine::catalog::{Catalog, ChangeTarget, CommitBatch, TableChange};
use deltalakedb_catalog_engine::conflict::{ConflictKind, Reads};
use deltalakedb_catalog_engine::fence;
use deltalakedb_catalog_engine::retry::Retry;
use deltalakedb_mirror::checkpoint::{CheckpointTarget, checkpoint_name, encode_one_file};
use deltalakedb_mirror::log::listing::LogName;
use futures::TryStreamExt;
use moka::sync::Cache;

use crate::context::Context;
use crate::removes::Removes;
use crate::staging::{Created, Staging};
use crate::{runtime, statistics};

/// Commits after a virtual checkpoint before there is a newer one: reading a commit is cheap, making a
/// checkpoint of a large table is not.
const COMMITS_AFTER: i64 = 100;
/// Commit bodies read at a time.
const BODY_PAGE: usize = 256;
/// Bytes of checkpoints and commits that are kept, all tables together.
const CACHE_BYTES: u64 = 256 << 20;

/// A file of the log.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Name in the log folder.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) modified: DateTime<Utc>,
}

/// A file with its bytes.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) bytes: Bytes,
    pub(crate) modified: DateTime<Utc>,
    /// Actions in a checkpoint.
    actions: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Commit,
    Checkpoint,
}

/// What never changes: a commit's bytes, and the checkpoint of a version.
static CACHE: LazyLock<Cache<(TableId, Version, Kind), File>> = LazyLock::new(|| {
    let weight = |_: &(TableId, Version, Kind), file: &File| {
        u32::try_from(file.bytes.len() + 128).unwrap_or(u32::MAX)
    };
    Cache::builder().max_capacity(CACHE_BYTES).weigher(weight).build()
});

/// Version of the newest checkpoint of a table that was made, and still is at hand.
static NEWEST: LazyLock<Cache<TableId, Version>> = LazyLock::new(|| Cache::new(100_000));

/// A table's log.
#[derive(Debug, Clone)]
pub(crate) struct VirtualLog {
    context: Arc<Context>,
}

impl VirtualLog {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        VirtualLog { context }
    }

    /// The table and its catalog; none if there is no such table.
    async fn table(&self) -> Result<Option<Table>> {
        let Some(id) = self.context.table_id().await? else { return Ok(None) };
        let base = self.context.staging().and_then(|staging| staging.base.clone());
        Ok(Some(Table { catalog: self.context.catalog().await?.on_primary(), id, base }))
    }

    /// Refuses to delete data files of a table that is frozen now.
    ///
    /// # Errors
    /// `TableFrozen`; those of the database.
    pub(crate) async fn refuse_frozen(&self) -> Result<()> {
        let Some(table) = self.table().await? else { return Ok(()) };
        runtime::run(
            async move { table.catalog.refuse_frozen_table(&TableRef::Id(table.id)).await },
        )
        .await
    }

    /// Commits that the transaction has not committed yet, as files of the log.
    fn staged(&self) -> Vec<(Version, File)> {
        let commits = self.context.staging().map(Staging::commits).unwrap_or_default();
        let file = |bytes, modified| File { bytes, modified, actions: 0 };
        commits.into_iter().map(|(version, bytes, at)| (version, file(bytes, at))).collect()
    }

    /// Latest version; none if there is no such table.
    pub(crate) async fn head(&self) -> Result<Option<Version>> {
        if let Some((version, _)) = self.staged().last() {
            return Ok(Some(*version));
        }
        let Some(table) = self.table().await? else { return Ok(None) };
        runtime::run(async move { Ok(Some(table.head().await?.version)) }).await
    }

    /// Files whose names are greater than `after`, ascending. From a version on there are all commits,
    /// and the newest checkpoint.
    pub(crate) async fn list(&self, after: Option<&str>) -> Result<Vec<Entry>> {
        let mut entries = match self.table().await? {
            None => Vec::new(),
            Some(table) => {
                let after = after.map(str::to_owned);
                runtime::run(async move { table.list(after.as_deref()).await }).await?
            }
        };
        let staged = self.staged();
        if !staged.is_empty() {
            let staged = staged.iter().map(|(version, file)| entry(commit_name(*version), file));
            entries.extend(staged.filter(|e| after.is_none_or(|after| e.name.as_str() > after)));
            entries.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(entries)
    }

    /// A file; none if there is none.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<File>> {
        if let Some(bytes) = self.context.staging().and_then(|staging| staging.checkpoint(name)) {
            return Ok(Some(File { bytes, modified: Utc::now(), actions: 0 }));
        }
        let name = LogName::parse(name);
        if let LogName::Commit(version) = &name
            && let Some((_, file)) = self.staged().into_iter().find(|(v, _)| v == version)
        {
            return Ok(Some(file));
        }
        let Some(table) = self.table().await? else { return Ok(None) };
        runtime::run(async move { table.get(&name).await }).await
    }

    /// Creates a file. What is not a commit is taken and dropped.
    ///
    /// # Errors
    /// Those of the commit; `Unsupported` for names that are no part of a log.
    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        // Writers put an empty string into a partition of its own, which is null to some readers.
        let log_name = LogName::parse(name);
        let changed = match (str::from_utf8(&bytes), &log_name) {
            (Ok(text), LogName::Commit(_)) => without_empty_values(text)?,
            _ => None,
        };
        let bytes = changed.map_or(bytes, Bytes::from);
        let version = match log_name {
            LogName::Commit(version) => version,
            LogName::Checkpoint(version) => {
                if let Some(staging) =
                    self.context.staging().filter(|staging| version >= staging.first())
                {
                    staging.keep_checkpoint(name, bytes);
                }
                return Ok(Created::Done);
            }
            LogName::CheckpointPart { .. }
            | LogName::UuidCheckpoint { .. }
            | LogName::Sidecar(_)
            | LogName::Checksum(_)
            | LogName::LastCheckpoint => return Ok(Created::Done),
            LogName::Compacted | LogName::Other => {
                return Err(CatalogError::Unsupported(format!(
                    "'{name}' is no file of a Delta log that is kept in a catalog"
                )));
            }
        };
        let bytes = self.with_true_statistics(bytes).await?;
        let bytes = self.with_paths_of_table(bytes).await?;
        if let Some(staging) = self.context.staging() {
            return staging.create(version, bytes);
        }
        let catalog = self.context.catalog().await?;
        let origin = format!("version {version} of table '{}'", self.context.address.table);
        let target = match self.context.table_id().await? {
            Some(id) => ChangeTarget::Next { table: TableRef::Id(id), version },
            None if version == Version::ZERO => self.context.creation()?,
            None => {
                return Err(CatalogError::TableNotFound(self.context.address.table.to_string()));
            }
        };
        let ndjson = bytes.to_vec();
        let change =
            TableChange { target, ndjson, origin, reads: Reads::default(), operation: None };
        let batch = CommitBatch { token: None, tables: vec![change] };
        match runtime::run(async move { catalog.commit(batch).await }).await {
            Ok(_) => Ok(Created::Done),
            Err(CatalogError::TableExists { .. }) if version == Version::ZERO => {
                Ok(Created::Exists)
            }
            Err(CatalogError::Conflict(conflict))
                if conflict.kind == ConflictKind::VersionTaken =>
            {
                Ok(Created::Exists)
            }
            Err(error) => Err(error),
        }
    }

    /// A commit whose removes name files as the table does. `deltalake` encodes paths in its own way, and the
    /// identity of a file is the text of its path.
    async fn with_paths_of_table(&self, bytes: Bytes) -> Result<Bytes> {
        let Some(mut removes) = Removes::in_commit(&bytes) else { return Ok(bytes) };
        for (_, file) in self.staged() {
            removes.look_at_commit(&file.bytes);
        }
        if let Some(table) = self.table().await? {
            removes = runtime::run(async move {
                let head = table.head().await?.version;
                let mut files = table.catalog.files(table.id, head);
                while let Some(file) = files.try_next().await? {
                    removes.look_at(&file.add.path);
                }
                Ok(removes)
            })
            .await?;
        }
        Ok(removes.rewritten(&bytes).map_or(bytes, Bytes::from))
    }

    /// A commit with statistics that hold, whatever they were computed with.
    async fn with_true_statistics(&self, bytes: Bytes) -> Result<Bytes> {
        if !statistics::may_be_wrong(&bytes) {
            return Ok(bytes);
        }
        let staged = self.staged();
        let set_here = statistics::metadata_in(&bytes).or_else(|| {
            staged.iter().rev().find_map(|(_, file)| statistics::metadata_in(&file.bytes))
        });
        let metadata = match set_here {
            Some(metadata) => metadata,
            None => match self.table().await? {
                Some(table) => {
                    runtime::run(async move { Ok(table.head().await?.metadata.clone()) }).await?
                }
                None => return Ok(bytes),
            },
        };
        Ok(match statistics::made_true(&bytes, &metadata) {
            Cow::Owned(changed) => changed.into(),
            Cow::Borrowed(_) => bytes,
        })
    }
}

/// A table in its catalog. Its methods are called on the catalog's runtime.
struct Table {
    catalog: Catalog,
    id: TableId,
    /// In a transaction: the table as it is seen there.
    base: Option<Snapshot>,
}

impl Table {
    async fn snapshot(&self, at: At) -> Result<Snapshot> {
        self.catalog.snapshot(&TableRef::Id(self.id), at).await
    }

    /// The latest version there is, or that the transaction sees.
    async fn head(&self) -> Result<Snapshot> {
        match &self.base {
            Some(base) => Ok(base.clone()),
            None => self.snapshot(At::Head).await,
        }
    }

    async fn list(&self, after: Option<&str>) -> Result<Vec<Entry>> {
        let head = self.head().await?;
        let base = head.table.base_version;
        // Commits below the base are history: they have no state to go on.
        let from = after.map_or(Version::ZERO, first_version);
        let mut entries = Vec::new();
        let checkpoint = self.newest_checkpoint(&head).await?;
        if from <= base && base > Version::ZERO && checkpoint != Some(base) {
            let file = self.checkpoint(base).await?;
            entries.push(entry(checkpoint_name(base), &file));
        }
        if let Some(version) = checkpoint.filter(|version| *version >= from) {
            let file = self.checkpoint(version).await?;
            entries.push(entry(checkpoint_name(version), &file));
        }
        let mut next = from;
        while next <= head.version {
            let files = self.commits(next, head.version).await?;
            let Some((last, _)) = files.last() else { break };
            next = last.next();
            entries.extend(files.iter().map(|(v, file)| entry(commit_name(*v), file)));
        }
        if let Some(version) = checkpoint {
            let file = self.hint(version).await?;
            entries.push(entry("_last_checkpoint".to_owned(), &file));
        }
        entries.retain(|entry| after.is_none_or(|after| entry.name.as_str() > after));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    async fn get(&self, name: &LogName) -> Result<Option<File>> {
        match name {
            LogName::Commit(version) | LogName::Checkpoint(version)
                if self.base.as_ref().is_some_and(|base| *version > base.version) =>
            {
                Ok(None)
            }
            LogName::Commit(version) => {
                if let Some(file) = CACHE.get(&(self.id, *version, Kind::Commit)) {
                    return Ok(Some(file));
                }
                let files = self.commits(*version, *version).await?;
                Ok(files.into_iter().next().map(|(_, file)| file))
            }
            LogName::Checkpoint(version) => match self.checkpoint(*version).await {
                Ok(file) => Ok(Some(file)),
                Err(CatalogError::VersionNotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            },
            LogName::LastCheckpoint => {
                let head = self.head().await?;
                match self.newest_checkpoint(&head).await? {
                    Some(version) => self.hint(version).await.map(Some),
                    None => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    /// Commits of these versions, a page of them, as a writer through the catalog sees them.
    async fn commits(&self, from: Version, to: Version) -> Result<Vec<(Version, File)>> {
        let backend = self.catalog.backend();
        let bodies = Retry::of(&self.catalog)
            .repeat(|| backend.read_bodies(self.id, from, to, BODY_PAGE))
            .await?;
        let mut files = Vec::with_capacity(bodies.len());
        // Of the version that is looked at, as long as no commit changes the metadata.
        let mut canonical: Option<Canonical> = None;
        for (record, body) in bodies {
            let stored = body.published()?;
            // Who reads the virtual log gets lines that others wrote in another form in the protocol's.
            let stored = if body.first_line.is_some() {
                stored
            } else {
                let origin = format!("version {} as imported", record.version);
                match lenient::normal_lines(&origin, &stored)? {
                    Cow::Borrowed(_) => stored,
                    Cow::Owned(normal) => Bytes::from(normal),
                }
            };
            let bytes = if record.changes_metadata || record.changes_protocol {
                match fence::writer_lines(&stored)? {
                    Cow::Borrowed(_) => stored,
                    Cow::Owned(seen) => Bytes::from(seen),
                }
            } else {
                stored
            };
            if record.changes_metadata {
                canonical = None;
            }
            // What is published keeps the values of its writer; these readers need the ones that all know.
            let bytes = match str::from_utf8(&bytes) {
                Ok(text) if names_files(text) => {
                    if canonical.is_none() {
                        canonical = Some(self.canonical(record.version).await?);
                    }
                    let seen = canonical.as_ref().map(|canonical| canonical.commit(text));
                    seen.transpose()?.flatten().map_or(bytes, Bytes::from)
                }
                _ => bytes,
            };
            let file = File { bytes, modified: time(record.timestamp), actions: 0 };
            CACHE.insert((self.id, record.version, Kind::Commit), file.clone());
            files.push((record.version, file));
        }
        Ok(files)
    }

    /// How the files of a version are seen. Below the base commits are history, and no column is known.
    async fn canonical(&self, version: Version) -> Result<Canonical> {
        match self.snapshot(At::Version(version)).await {
            Ok(snapshot) => Ok(Canonical::of(&snapshot.metadata)),
            Err(CatalogError::VersionNotFound { .. }) => Ok(Canonical::default()),
            Err(error) => Err(error),
        }
    }

    /// Version of the checkpoint that readers of the head begin with; none where a few commits from
    /// version 0 on are all there is.
    async fn newest_checkpoint(&self, head: &Snapshot) -> Result<Option<Version>> {
        let base = head.table.base_version;
        if let Some(version) = NEWEST.get(&self.id)
            && (base..=head.version).contains(&version)
            && head.version.get() - version.get() < COMMITS_AFTER
        {
            return Ok(Some(version));
        }
        if base == Version::ZERO && head.version.get() < COMMITS_AFTER {
            return Ok(None);
        }
        self.checkpoint(head.version).await?;
        // A transaction may see an older one.
        if NEWEST.get(&self.id).is_none_or(|newest| newest < head.version) {
            NEWEST.insert(self.id, head.version);
        }
        Ok(Some(head.version))
    }

    async fn checkpoint(&self, version: Version) -> Result<File> {
        if let Some(file) = CACHE.get(&(self.id, version, Kind::Checkpoint)) {
            return Ok(file);
        }
        self.make_checkpoint(self.snapshot(At::Version(version)).await?).await
    }

    async fn make_checkpoint(&self, mut snapshot: Snapshot) -> Result<File> {
        let (version, modified) = (snapshot.version, time(snapshot.timestamp));
        (snapshot.protocol, snapshot.metadata) =
            fence::writer_view(&snapshot.protocol, &snapshot.metadata);
        let mut kept = Kept(Bytes::new());
        let backend = self.catalog.backend().as_ref();
        let encoded = encode_one_file(backend, &snapshot, &mut kept).await?;
        let file = File { bytes: kept.0, modified, actions: encoded.actions };
        CACHE.insert((self.id, version, Kind::Checkpoint), file.clone());
        Ok(file)
    }

    /// `_last_checkpoint` for a checkpoint.
    async fn hint(&self, version: Version) -> Result<File> {
        let file = self.checkpoint(version).await?;
        let hint = serde_json::json!({
            "version": version.get(), "size": file.actions, "sizeInBytes": file.bytes.len()
        });
        Ok(File { bytes: hint.to_string().into(), ..file })
    }
}

/// Keeps the one file of a checkpoint.
struct Kept(Bytes);

#[async_trait]
impl CheckpointTarget for Kept {
    async fn file(&mut self, _: &str, bytes: Bytes) -> Result<u64> {
        self.0 = bytes;
        Ok(u64::try_from(self.0.len()).unwrap_or(u64::MAX))
    }
}

/// Name of a commit's file.
pub(crate) fn commit_name(version: Version) -> String {
    format!("{}.json", version.padded())
}

/// Whether a commit has actions of files.
fn names_files(ndjson: &str) -> bool {
    ndjson.contains("\"path\"")
}

fn entry(name: String, file: &File) -> Entry {
    let size = u64::try_from(file.bytes.len()).unwrap_or(u64::MAX);
    Entry { name, size, modified: file.modified }
}

/// The version at which names greater than this one begin, or an earlier one.
fn first_version(after: &str) -> Version {
    /// Digits of a version in a name.
    const DIGITS: usize = 20;
    let digits: String = after.chars().take(DIGITS).take_while(char::is_ascii_digit).collect();
    let number = format!("{digits:0<DIGITS$}").parse().unwrap_or(i64::MAX);
    Version::new(number).unwrap_or(Version::ZERO)
}

fn time(at: TimestampMs) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.0).unwrap_or(DateTime::UNIX_EPOCH)
}
