//! Reads of one table.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{State, StoredCommit, Table, page};
use deltalakedb_catalog_core::action::{DomainMetadata, FileKey, Txn};
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, Page, Snapshot, TableState, TombstoneRecord,
};

/// Compressed bytes after which `read_bodies` ends a call.
const MAX_BODIES_BYTES: usize = 32 << 20;

/// The last value at or before a version.
fn in_force<T>(map: &BTreeMap<Version, T>, version: Version) -> Option<(Version, &T)> {
    map.range(..=version).next_back().map(|(v, t)| (*v, t))
}

impl State {
    pub(super) fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot> {
        let found = match table {
            TableRef::Id(id) => self.tables.get(id),
            TableRef::Name(name) => {
                self.live(name).filter(|t| t.record.state != TableState::Importing)
            }
        };
        found
            .ok_or_else(|| CatalogError::TableNotFound(table.to_string()))?
            .snapshot(&table.to_string(), at)
    }
}

impl Table {
    fn snapshot(&self, name: &str, at: At) -> Result<Snapshot> {
        let base = self.record.base_version;
        let head = self.record.head.ok_or_else(|| CatalogError::TableNotFound(name.to_owned()))?;
        let not_found = |asked: String| CatalogError::VersionNotFound {
            table: name.to_owned(),
            version: asked,
            earliest: base,
            latest: head,
        };
        let commit = match at {
            At::Head => self.commits.get(&head),
            At::Version(v) if v < base => None,
            At::Version(v) => self.commits.get(&v),
            At::Timestamp(t) => {
                self.commits.range(base..).map(|(_, c)| c).rfind(|c| c.record.timestamp <= t)
            }
        };
        let Some(StoredCommit { record: commit, .. }) = commit else {
            return Err(not_found(match at {
                At::Head => head.to_string(),
                At::Version(v) => v.to_string(),
                At::Timestamp(t) => format!("at {t} ms"),
            }));
        };
        let version = commit.version;
        let (Some((protocol_version, protocol)), Some((metadata_version, metadata))) =
            (in_force(&self.protocol, version), in_force(&self.metadata, version))
        else {
            return Err(CatalogError::corrupt(format!(
                "table '{name}' has no protocol or no metadata at version {version}"
            )));
        };
        Ok(Snapshot {
            table: self.record.clone(),
            version,
            timestamp: commit.timestamp,
            protocol: protocol.clone(),
            protocol_version,
            metadata: metadata.clone(),
            metadata_version,
            num_files: commit.total_files,
            size_bytes: commit.total_bytes,
        })
    }

    /// Rows with `added_version <= version < removed_version`.
    pub(super) fn files_at(&self, version: Version) -> impl Iterator<Item = FileRecord> {
        self.files
            .iter()
            .filter(move |(cursor, row)| {
                cursor.added_version <= version && row.removed_version.is_none_or(|r| version < r)
            })
            .map(|(cursor, row)| FileRecord { cursor: *cursor, add: row.add.clone() })
    }

    /// Whether no file, of any version, comes after this cursor.
    pub(super) fn ends_with(&self, cursor: FileCursor) -> bool {
        self.files.last_key_value().is_none_or(|(last, _)| *last <= cursor)
    }

    pub(super) fn list_files(
        &self,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Page<FileRecord, FileCursor> {
        let rest = self.files_at(version).filter(|f| after.is_none_or(|a| f.cursor > a));
        page(rest, limit, |f| f.cursor)
    }

    pub(super) fn list_tombstones(
        &self,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Page<TombstoneRecord, FileCursor> {
        let present: BTreeSet<FileKey> = self.files_at(version).map(|f| f.add.key()).collect();
        // A key's latest remove decides, also about its age: that is how a log is replayed.
        let mut latest: BTreeMap<FileKey, TombstoneRecord> = BTreeMap::new();
        for (cursor, tombstone) in &self.tombstones {
            let key = tombstone.remove.key();
            if tombstone.removed_version > version || present.contains(&key) {
                continue;
            }
            if latest.get(&key).is_some_and(|l| l.removed_version > tombstone.removed_version) {
                continue;
            }
            let record = TombstoneRecord {
                cursor: *cursor,
                removed_version: tombstone.removed_version,
                remove: tombstone.remove.clone(),
            };
            latest.insert(key, record);
        }
        let kept: BTreeMap<FileCursor, TombstoneRecord> = latest
            .into_values()
            .filter(|t| t.remove.deletion_timestamp.unwrap_or(0) > deleted_after.0)
            .filter(|t| after.is_none_or(|a| t.cursor > a))
            .map(|t| (t.cursor, t))
            .collect();
        page(kept.into_values(), limit, |t| t.cursor)
    }

    pub(super) fn app_transactions(&self, version: Version) -> Vec<Txn> {
        let mut latest = BTreeMap::new();
        for ((app_id, _), txn) in self.txns.iter().filter(|((_, v), _)| *v <= version) {
            latest.insert(app_id.clone(), txn.clone());
        }
        latest.into_values().collect()
    }

    pub(super) fn domain_metadata(&self, version: Version) -> Vec<DomainMetadata> {
        let mut latest = BTreeMap::new();
        for ((domain, _), value) in self.domains.iter().filter(|((_, v), _)| *v <= version) {
            latest.insert(domain.clone(), value.clone());
        }
        latest.into_values().filter(|d| !d.removed).collect()
    }

    pub(super) fn list_commits(
        &self,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Page<CommitRecord, Version> {
        let rest = self.commits.values().rev().map(|c| &c.record).filter(|c| {
            before.is_none_or(|b| c.version < b)
                && filter.from_version.is_none_or(|v| c.version >= v)
                && filter.to_version.is_none_or(|v| c.version <= v)
                && filter.from_time.is_none_or(|t| c.timestamp >= t)
                && filter.to_time.is_none_or(|t| c.timestamp < t)
        });
        page(rest.cloned(), limit, |c| c.version)
    }

    pub(super) fn read_bodies(
        &self,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Vec<(CommitRecord, CommitBody)> {
        let mut out: Vec<(CommitRecord, CommitBody)> = Vec::new();
        let mut bytes = 0;
        for commit in self.commits.values() {
            let version = commit.record.version;
            let Some(body) = commit.body.as_ref().filter(|_| from <= version && version <= to)
            else {
                continue;
            };
            bytes += body.rest.zstd.len();
            if out.len() >= limit.max(1) || (bytes > MAX_BODIES_BYTES && !out.is_empty()) {
                break;
            }
            out.push((commit.record.clone(), body.clone()));
        }
        out
    }
}
