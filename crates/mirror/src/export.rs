//! Writes a table's whole log from the catalog into an empty place: backup, migration, exit.
//!
//! The order keeps what is written readable at every moment. A table that starts at version 0 gets
//! its commits in order: a prefix of them is an older state of the table. A table whose state
//! starts at a later base (it was imported from a checkpoint) gets the checkpoint of its base
//! *first*: with it alone the log reads as that version. Commits below the base are history; a
//! reader passes over them, as it starts from the newest checkpoint. Then come the commits in
//! order, each with its version checksum, each checkpoint after its commit, and `_last_checkpoint` after the checkpoint it names.
//!
//! Nothing is ever overwritten. An export that died is continued by running it again: what is
//! there is compared with what belongs there, before anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, Version};
use deltalakedb_catalog_core::model::{CommitRecord, Snapshot};
use deltalakedb_catalog_core::sink::MirrorSink;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use futures::TryStreamExt;
use serde::Serialize;

use crate::checkpoint::{
    CheckpointInfo, CheckpointTarget, EncodedCheckpoint, encode_checkpoint, write_last_checkpoint,
};
use crate::checksum::{self, Checksums, checksum_name};
use crate::log::listing::LogName;
use crate::properties::checkpoint_interval;
use crate::put::{ForeignBytes, Put, commit_name, put};
use crate::sink::open_sink;
use crate::store::log_location;
use deltalakedb_catalog_engine::retry::Retry;

/// Commit bodies read at a time.
const BODY_PAGE: usize = 32;
/// Checkpoints are written newest first until so many files are in them: a long history of a large
/// table would otherwise become as many copies of its file list. Readers need none but the newest.
const CHECKPOINT_FILES: u64 = 5_000_000;
/// Names shown of a place that is not empty.
const SHOWN_NAMES: usize = 5;

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// Where the log is now, as URL.
    pub log_dir: String,
    /// First version whose commit is in it.
    pub first_version: Option<Version>,
    /// First version that can be read from it.
    pub base_version: Version,
    /// Last version in it.
    pub version: Version,
    /// Commits written now.
    pub commits: u64,
    /// Commits that an earlier export had written.
    pub commits_found: u64,
    /// Versions with a checkpoint, ascending.
    pub checkpoints: Vec<Version>,
}

/// A version of history, as far as an export looks at it.
struct Stored {
    has_body: bool,
    total_files: u64,
}

struct Export<'a> {
    catalog: &'a Catalog,
    retry: Retry,
    sink: &'a dyn MirrorSink,
    head: Snapshot,
    stored: BTreeMap<Version, Stored>,
    /// Versions that get a checkpoint.
    checkpoints: BTreeSet<Version>,
    /// Names that are there already, compared and found right.
    present: BTreeSet<String>,
    last_checkpoint: Option<CheckpointInfo>,
}

/// Publishes a table's whole log, as of its head now, to `<to>/_delta_log`.
///
/// All commits whose bytes are stored are written, history below the base too, with their commit
/// timestamps as file times where the storage can. Checkpoints are written at the base (if it is
/// not version 0) and at `delta.checkpointInterval`, newest first, up to a bound. Data files are
/// not copied: paths in the log stay relative to the table's root.
///
/// # Errors
/// `TableNotFound`; `InvalidInput` if the place holds anything that does not belong to this
/// export; `Corrupt` if the catalog lacks bytes; those of the store.
pub async fn publish_to(
    catalog: &Catalog,
    table: &TableRef,
    to: &str,
    options: &BTreeMap<String, String>,
    progress: &dyn Progress,
) -> Result<ExportReport> {
    // What is copied is the head there is, not the one that a replica has.
    let catalog = &catalog.clone().on_primary();
    let head = catalog.snapshot(table, At::Head).await?;
    let to = crate::store::normalize_location(to)?;
    let sink = open_sink(&to, options)?;
    let mut export = Export {
        catalog,
        retry: Retry::of(catalog),
        sink: sink.as_ref(),
        stored: BTreeMap::new(),
        checkpoints: BTreeSet::new(),
        present: BTreeSet::new(),
        last_checkpoint: None,
        head,
    };
    export.plan().await?;
    export.check_place().await?;
    let commits = export.stored.values().filter(|s| s.has_body).count();
    progress.begin("exporting", "commits", u64::try_from(commits).ok());
    let result = export.write(progress).await;
    progress.end();
    let (commits, commits_found) = result?;
    let Export { head, stored, checkpoints, .. } = export;
    Ok(ExportReport {
        table_id: head.table.id,
        name: head.table.name,
        log_dir: log_location(&to),
        first_version: stored.iter().find(|(_, s)| s.has_body).map(|(version, _)| *version),
        base_version: head.table.base_version,
        version: head.version,
        commits,
        commits_found,
        checkpoints: checkpoints.into_iter().collect(),
    })
}

impl Export<'_> {
    fn table_id(&self) -> TableId {
        self.head.table.id
    }

    fn base(&self) -> Version {
        self.head.table.base_version
    }

    async fn snapshot(&self, version: Version) -> Result<Snapshot> {
        self.catalog.snapshot(&TableRef::Id(self.table_id()), At::Version(version)).await
    }

    /// Which versions there are, and which of them get a checkpoint.
    async fn plan(&mut self) -> Result<()> {
        let filter = CommitFilter { to_version: Some(self.head.version), ..Default::default() };
        let mut history = self.catalog.history(self.table_id(), filter);
        // Versions at which the checkpoint interval may change.
        let mut changes = vec![self.base()];
        while let Some(commit) = history.try_next().await? {
            if commit.version > self.base() && commit.changes_metadata {
                changes.push(commit.version);
            }
            let stored = Stored { has_body: commit.has_body, total_files: commit.total_files };
            self.stored.insert(commit.version, stored);
        }
        let mut intervals = BTreeMap::new();
        for version in changes {
            let metadata = self.snapshot(version).await?.metadata;
            intervals.insert(version, checkpoint_interval(&metadata));
        }
        let mut files = 0_u64;
        for (version, stored) in self.stored.range(self.base().next()..).rev() {
            let interval = intervals.range(..=version).next_back().map_or(1, |(_, i)| *i);
            if version.get() % interval != 0 {
                continue;
            }
            files = files.saturating_add(stored.total_files);
            if files > CHECKPOINT_FILES && !self.checkpoints.is_empty() {
                break;
            }
            self.checkpoints.insert(*version);
        }
        if self.base() > Version::ZERO {
            self.checkpoints.insert(self.base());
        }
        Ok(())
    }

    /// Makes sure that the place is empty, or holds the beginning of this very export.
    async fn check_place(&mut self) -> Result<()> {
        let entries = self.sink.list(None).await?;
        let mut commits = BTreeSet::new();
        let (mut checkpoints, mut checksums) = (BTreeMap::new(), BTreeSet::new());
        let mut strange = Vec::new();
        for entry in entries {
            let readable = self.base()..=self.head.version;
            match LogName::parse(&entry.name) {
                LogName::Commit(version)
                    if self.stored.get(&version).is_some_and(|s| s.has_body) =>
                {
                    commits.insert(version);
                }
                LogName::Checkpoint(version)
                | LogName::UuidCheckpoint { version, .. }
                | LogName::Sidecar(Some(version))
                    if readable.contains(&version) =>
                {
                    checkpoints.entry(version).or_insert_with(BTreeSet::new).insert(entry.name);
                }
                LogName::Checksum(version) if readable.contains(&version) => {
                    checksums.insert(version);
                }
                LogName::LastCheckpoint => {}
                _ => strange.push(entry.name),
            }
        }
        if let Some(first) = strange.first() {
            return Err(self.not_empty(&format!(
                "it holds '{first}'{}",
                match strange.len() - 1 {
                    0 => String::new(),
                    more => {
                        let names: Vec<&str> =
                            strange.iter().skip(1).take(SHOWN_NAMES).map(String::as_str).collect();
                        format!(" and {more} more files ({}…)", names.join(", "))
                    }
                }
            )));
        }
        let mut walk = self.checksums();
        for version in commits.union(&checksums).copied() {
            let (record, bytes) = self.body(version).await?;
            if commits.contains(&version) {
                self.compare(&commit_name(version), &bytes).await?;
            }
            if checksums.contains(&version) {
                walk.advance(&record, &bytes).await?;
                if let Some(ours) = walk.checksum(&record) {
                    self.compare(&checksum_name(version), &checksum::encode(&ours)?).await?;
                }
            }
        }
        for (version, names) in checkpoints {
            let snapshot = self.snapshot(version).await?;
            let mut comparing = Comparing { sink: self.sink, names, different: None };
            encode_checkpoint(self.catalog.backend().as_ref(), &snapshot, &mut comparing).await?;
            // A name that was not compared is none of this checkpoint's.
            let Comparing { names, different, .. } = comparing;
            if let Some(name) = different.or_else(|| names.into_iter().next()) {
                return Err(self.not_empty(&format!("its '{name}' is not the one of this table")));
            }
        }
        Ok(())
    }

    async fn compare(&mut self, name: &str, ours: &[u8]) -> Result<()> {
        match self.sink.get(name).await? {
            Some(found) if ForeignBytes::compare(&found, ours).is_some() => {
                Err(self.not_empty(&format!("its '{name}' is not the one of this table")))
            }
            Some(_) => {
                self.present.insert(name.to_owned());
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn not_empty(&self, why: &str) -> CatalogError {
        CatalogError::invalid(format!(
            "cannot export table '{}' to '{}': {why}. Nothing was written. Export to an empty \
             place; only an export of this table that was broken off is continued",
            self.head.table.name,
            self.sink.describe()
        ))
    }

    fn interfered(&self, name: &str) -> CatalogError {
        CatalogError::invalid(format!(
            "the export of table '{}' to '{}' stopped: another program wrote '{name}' there \
             meanwhile. Nothing was overwritten",
            self.head.table.name,
            self.sink.describe()
        ))
    }

    fn checksums(&self) -> Checksums {
        let backend = Arc::clone(self.catalog.backend());
        Checksums::new(backend, self.retry.clone(), self.table_id())
    }

    async fn body(&self, version: Version) -> Result<(CommitRecord, Bytes)> {
        let backend = self.catalog.backend();
        let found =
            self.retry.repeat(|| backend.read_bodies(self.table_id(), version, version, 1)).await?;
        match found.into_iter().next() {
            Some((record, body)) => Ok((record, body.published()?)),
            None => Err(self.no_bytes(version)),
        }
    }

    fn no_bytes(&self, version: Version) -> CatalogError {
        CatalogError::corrupt(format!(
            "the catalog holds no bytes of version {version} of table '{}': its rows are damaged",
            self.head.table.name
        ))
    }

    /// Writes what is missing. Returns how many commits were written, and how many were there.
    async fn write(&mut self, progress: &dyn Progress) -> Result<(u64, u64)> {
        if let Some((missing, _)) =
            self.stored.range(self.base().next()..).find(|(_, s)| !s.has_body)
        {
            return Err(self.no_bytes(*missing));
        }
        if self.base() > Version::ZERO {
            self.checkpoint(self.base()).await?;
            self.point_to_last_checkpoint().await?;
        }
        let (mut written, mut found) = (0_u64, 0_u64);
        let backend = self.catalog.backend();
        let mut checksums = self.checksums();
        let mut next = self.stored.keys().next().copied();
        while let Some(from) = next {
            let bodies = self
                .retry
                .repeat(|| backend.read_bodies(self.table_id(), from, self.head.version, BODY_PAGE))
                .await?;
            next = bodies
                .last()
                .map(|(record, _)| record.version.next())
                .filter(|next| *next <= self.head.version);
            for (record, body) in bodies {
                let name = commit_name(record.version);
                let bytes = body.published()?;
                if self.present.contains(&name) {
                    found += 1;
                } else {
                    match put(self.sink, &name, &bytes).await? {
                        Put::Created => written += 1,
                        Put::Same => found += 1,
                        Put::Foreign(_) => return Err(self.interfered(&name)),
                    }
                }
                self.sink.set_modified(&name, record.timestamp).await?;
                if record.version >= self.base() {
                    checksums.advance(&record, &bytes).await?;
                    if let Some(ours) = checksums.checksum(&record) {
                        self.checksum(record.version, &checksum::encode(&ours)?).await?;
                    }
                }
                if record.version > self.base() && self.checkpoints.contains(&record.version) {
                    self.checkpoint(record.version).await?;
                }
                progress.advance(1);
            }
        }
        self.point_to_last_checkpoint().await?;
        Ok((written, found))
    }

    async fn checksum(&self, version: Version, bytes: &Bytes) -> Result<()> {
        let name = checksum_name(version);
        if self.present.contains(&name) {
            return Ok(());
        }
        match put(self.sink, &name, bytes).await? {
            Put::Created | Put::Same => Ok(()),
            Put::Foreign(_) => Err(self.interfered(&name)),
        }
    }

    async fn checkpoint(&mut self, version: Version) -> Result<()> {
        let snapshot = self.snapshot(version).await?;
        let mut putting = Putting { sink: self.sink, created: false, foreign: None };
        let backend = self.catalog.backend().as_ref();
        let encoded = encode_checkpoint(backend, &snapshot, &mut putting).await;
        if let Some(name) = putting.foreign {
            return Err(self.interfered(&name));
        }
        let EncodedCheckpoint { name, actions, add_files, size_bytes } = encoded?;
        let created = putting.created;
        self.last_checkpoint =
            Some(CheckpointInfo { version, name, actions, add_files, size_bytes, created });
        Ok(())
    }

    async fn point_to_last_checkpoint(&self) -> Result<()> {
        if let Some(info) = &self.last_checkpoint {
            write_last_checkpoint(self.sink, info).await?;
        }
        Ok(())
    }
}

fn size(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Compares the files of a checkpoint that are there with what they should be.
struct Comparing<'a> {
    sink: &'a dyn MirrorSink,
    /// Names that were not compared yet.
    names: BTreeSet<String>,
    different: Option<String>,
}

#[async_trait]
impl CheckpointTarget for Comparing<'_> {
    async fn file(&mut self, name: &str, bytes: Bytes) -> Result<u64> {
        if self.names.remove(name)
            && let Some(found) = self.sink.get(name).await?
            && found != bytes
        {
            self.different = Some(name.to_owned());
        }
        Ok(size(&bytes))
    }
}

/// Puts the files of a checkpoint; what another program wrote meanwhile ends it.
struct Putting<'a> {
    sink: &'a dyn MirrorSink,
    created: bool,
    foreign: Option<String>,
}

#[async_trait]
impl CheckpointTarget for Putting<'_> {
    async fn file(&mut self, name: &str, bytes: Bytes) -> Result<u64> {
        let found = put(self.sink, name, &bytes).await?;
        self.created = found == Put::Created;
        if matches!(found, Put::Foreign(_)) {
            self.foreign = Some(name.to_owned());
            return Err(CatalogError::invalid(format!("'{name}' is another program's")));
        }
        Ok(size(&bytes))
    }
}

#[cfg(test)]
#[path = "export/tests.rs"]
mod tests;
