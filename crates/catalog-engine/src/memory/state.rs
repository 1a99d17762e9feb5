//! The maps, and the life cycle of tables.

use std::collections::BTreeMap;

use super::skip::SkipState;
use deltalakedb_catalog_core::action::{
    Add, DomainMetadata, FileKey, Metadata, Protocol, Remove, Txn,
};
use deltalakedb_catalog_core::backend::{CommittedTable, TableFilter};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex, commit_info_object};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{
    CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, MirrorRow, NewTable, Page, TableRecord, TableState,
};

/// Ordinals from here on belong to tombstones that have no file row of their own: removes, in
/// imports, of files that nothing is known about. Files never get there.
const TOMBSTONE_ONLY: i64 = 1 << 62;

/// A catalog.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) tables: BTreeMap<TableId, Table>,
    /// What each token wrote, by the place in its batch.
    pub(super) tokens: BTreeMap<CommitToken, BTreeMap<u32, CommittedTable>>,
    pub(super) skip: BTreeMap<TableId, SkipState>,
}

/// A table with all of its rows.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) record: TableRecord,
    pub(super) commits: BTreeMap<Version, StoredCommit>,
    pub(super) files: BTreeMap<FileCursor, FileRow>,
    /// Files at the head.
    pub(super) active: BTreeMap<FileKey, FileCursor>,
    pub(super) tombstones: BTreeMap<FileCursor, Tombstone>,
    pub(super) metadata: BTreeMap<Version, Metadata>,
    pub(super) protocol: BTreeMap<Version, Protocol>,
    pub(super) txns: BTreeMap<(String, Version), Txn>,
    pub(super) domains: BTreeMap<(String, Version), DomainMetadata>,
    /// Bytes at the head; wide, so that sums of hostile sizes stay exact.
    pub(super) bytes: i128,
    pub(super) outbox: BTreeMap<Version, MirrorRow>,
    pub(super) lease: Option<Held>,
    /// Grows with each claim of a free or lapsed lease.
    pub(super) epoch: i64,
    /// While importing.
    pub(super) import: Option<Import>,
}

/// A commit.
#[derive(Debug, Clone)]
pub(super) struct StoredCommit {
    pub(super) record: CommitRecord,
    pub(super) body: Option<CommitBody>,
}

/// A file, from the version in its cursor to (excluding) `removed_version`.
#[derive(Debug, Clone)]
pub(super) struct FileRow {
    pub(super) add: Add,
    pub(super) removed_version: Option<Version>,
}

/// A remove.
#[derive(Debug, Clone)]
pub(super) struct Tombstone {
    pub(super) removed_version: Version,
    pub(super) remove: Remove,
}

/// Who may publish.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) owner: String,
    pub(super) until: TimestampMs,
}

/// Where an import is.
#[derive(Debug, Clone, Default)]
pub(super) struct Import {
    pub(super) from_json: bool,
    pub(super) base_done: bool,
    pub(super) base_files: u64,
    pub(super) base_tombstones: u64,
    pub(super) history_through: Option<Version>,
}

/// Lengths fit: a map with more than 2^64 entries does not exist.
pub(super) fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// The position of an action in its commit.
pub(super) fn ordinal(position: usize) -> i64 {
    i64::try_from(position).unwrap_or(TOMBSTONE_ONLY)
}

/// Byte sums are reported in what a signed 64-bit column holds.
fn reported(bytes: i128) -> u64 {
    u64::try_from(bytes.clamp(0, i128::from(i64::MAX))).unwrap_or(0)
}

pub(super) fn not_found(id: TableId) -> CatalogError {
    CatalogError::TableNotFound(id.to_string())
}

/// Takes a page of an ordered iterator: `limit` items, and the cursor of the last one if another
/// item follows.
pub(super) fn page<T, C>(
    items: impl Iterator<Item = T>,
    limit: usize,
    cursor: impl Fn(&T) -> C,
) -> Page<T, C> {
    let limit = limit.max(1);
    let mut items: Vec<T> = items.take(limit.saturating_add(1)).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(cursor) } else { None };
    Page { items, next }
}

impl State {
    /// What a token wrote.
    pub(super) fn replayed(&self, token: &CommitToken) -> Option<Vec<CommittedTable>> {
        self.tokens.get(token).map(|batch| batch.values().cloned().collect())
    }

    /// The live table of a name.
    pub(super) fn live(&self, name: &TableName) -> Option<&Table> {
        self.tables
            .values()
            .find(|t| t.record.state != TableState::Dropped && t.record.name == *name)
    }

    pub(super) fn get_table(&self, table: &TableRef) -> Option<TableRecord> {
        let found = match table {
            TableRef::Id(id) => self.tables.get(id),
            TableRef::Name(name) => self.live(name),
        };
        found.map(|t| t.record.clone())
    }

    /// A table whose rows can be read by its id: any.
    pub(super) fn readable(&self, id: TableId) -> Result<&Table> {
        self.tables.get(&id).ok_or_else(|| not_found(id))
    }

    /// A table that can be changed.
    pub(super) fn active(&mut self, id: TableId) -> Result<&mut Table> {
        self.tables
            .get_mut(&id)
            .filter(|t| t.record.state == TableState::Active)
            .ok_or_else(|| not_found(id))
    }

    pub(super) fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Page<TableRecord, (TableName, TableId)> {
        let state = filter.state.unwrap_or(TableState::Active);
        let ordered: BTreeMap<(TableName, TableId), &Table> = self
            .tables
            .values()
            .filter(|t| t.record.state == state)
            .filter(|t| filter.namespace.as_deref().is_none_or(|n| t.record.name.namespace() == n))
            .map(|t| ((t.record.name.clone(), t.record.id), t))
            .collect();
        let rest = ordered.into_iter().filter(|(key, _)| after.is_none_or(|after| key > after));
        page(rest.map(|(_, t)| t.record.clone()), limit, |r| (r.name.clone(), r.id))
    }

    pub(super) fn drop_table(&mut self, id: TableId, now: TimestampMs) -> Result<TableRecord> {
        let record = &mut self.active(id)?.record;
        record.state = TableState::Dropped;
        record.dropped_at = Some(now);
        Ok(record.clone())
    }

    pub(super) fn undrop_table(&mut self, id: TableId, name: &TableName) -> Result<TableRecord> {
        if self.tables.get(&id).is_none_or(|t| t.record.state != TableState::Dropped) {
            return Err(not_found(id));
        }
        if self.live(name).is_some() {
            return Err(CatalogError::TableExists(name.clone()));
        }
        let table = self.tables.get_mut(&id).ok_or_else(|| not_found(id))?;
        table.record.state = TableState::Active;
        table.record.dropped_at = None;
        table.record.name = name.clone();
        Ok(table.record.clone())
    }
}

impl Table {
    pub(super) fn new(new: &NewTable, state: TableState, now: TimestampMs) -> Self {
        Table {
            record: TableRecord {
                id: new.id,
                name: new.name.clone(),
                location: new.location.clone(),
                storage_options: new.storage_options.clone(),
                state,
                created_at: now,
                dropped_at: None,
                head: None,
                head_timestamp: None,
                base_version: Version::ZERO,
                barrier_version: Version::ZERO,
                mirror: new.mirror,
                published_version: None,
            },
            commits: BTreeMap::new(),
            files: BTreeMap::new(),
            active: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            metadata: BTreeMap::new(),
            protocol: BTreeMap::new(),
            txns: BTreeMap::new(),
            domains: BTreeMap::new(),
            bytes: 0,
            outbox: BTreeMap::new(),
            lease: None,
            epoch: 0,
            import: None,
        }
    }

    /// Adds a file; an active file of the same key ends here without a tombstone.
    pub(super) fn add_file(&mut self, cursor: FileCursor, add: Add) {
        self.bytes += i128::from(add.size);
        if let Some(old) = self.active.insert(add.key(), cursor) {
            self.end_row(old, cursor.added_version);
        }
        self.files.insert(cursor, FileRow { add, removed_version: None });
    }

    /// Removes a file and keeps its tombstone; of an unknown file, only the tombstone. Returns
    /// the removed bytes as far as they are known.
    pub(super) fn remove_file(
        &mut self,
        version: Version,
        position: usize,
        remove: Remove,
    ) -> i128 {
        let Some(cursor) = self.active.remove(&remove.key()) else {
            let bytes = i128::from(remove.size.unwrap_or(0));
            self.add_tombstone(version, position, remove);
            return bytes;
        };
        let bytes = self.end_row(cursor, version);
        self.tombstones.insert(cursor, Tombstone { removed_version: version, remove });
        bytes
    }

    /// A tombstone of a file that nothing else is known about.
    pub(super) fn add_tombstone(&mut self, version: Version, position: usize, remove: Remove) {
        let ordinal = TOMBSTONE_ONLY.saturating_add(ordinal(position));
        let cursor = FileCursor { added_version: version, ordinal };
        self.tombstones.insert(cursor, Tombstone { removed_version: version, remove });
    }

    fn end_row(&mut self, cursor: FileCursor, version: Version) -> i128 {
        let Some(row) = self.files.get_mut(&cursor) else { return 0 };
        row.removed_version = Some(version);
        let bytes = i128::from(row.add.size);
        self.bytes -= bytes;
        bytes
    }

    /// Writes all rows of the next version and moves the head to it.
    pub(super) fn apply(
        &mut self,
        version: Version,
        timestamp: TimestampMs,
        token: Option<(CommitToken, u32)>,
        body: CommitBody,
        index: CommitIndex,
    ) {
        let mut record = self.history_record(version, timestamp, token, &body, &index);
        let mut bytes_removed = 0;
        for (position, remove) in index.removes.into_iter().enumerate() {
            bytes_removed += self.remove_file(version, position, remove);
        }
        for (position, add) in index.adds.into_iter().enumerate() {
            let cursor = FileCursor { added_version: version, ordinal: ordinal(position) };
            self.add_file(cursor, add);
        }
        if index.metadata.is_some() || index.protocol.is_some() {
            self.record.barrier_version = version;
        }
        if let Some(metadata) = index.metadata {
            self.metadata.insert(version, metadata);
        }
        if let Some(protocol) = index.protocol {
            self.protocol.insert(version, protocol);
        }
        for txn in index.txns {
            self.txns.insert((txn.app_id.clone(), version), txn);
        }
        for domain in index.domain_metadata {
            self.domains.insert((domain.domain.clone(), version), domain);
        }
        record.bytes_removed = reported(bytes_removed);
        (record.total_files, record.total_bytes) = self.totals();
        self.record.head = Some(version);
        self.record.head_timestamp = Some(timestamp);
        self.commits.insert(version, StoredCommit { record, body: Some(body) });
    }

    /// Files and bytes at the head.
    pub(super) fn totals(&self) -> (u64, u64) {
        (count(self.active.len()), reported(self.bytes))
    }

    /// A line of history from what the commit itself says, without totals.
    pub(super) fn history_record(
        &self,
        version: Version,
        timestamp: TimestampMs,
        token: Option<(CommitToken, u32)>,
        body: &CommitBody,
        index: &CommitIndex,
    ) -> CommitRecord {
        // The first line has the commit timestamp filled in; the index was made before it was known.
        let commit_info = body
            .first_line
            .as_deref()
            .and_then(commit_info_object)
            .map(str::to_owned)
            .or_else(|| index.commit_info.clone());
        let (token, batch_position) = token.unzip();
        CommitRecord {
            table_id: self.record.id,
            version,
            timestamp,
            token,
            batch_position,
            commit_info,
            num_added: count(index.adds.len()),
            num_removed: count(index.removes.len()),
            bytes_added: reported(index.adds.iter().map(|a| i128::from(a.size)).sum()),
            bytes_removed: reported(
                index.removes.iter().map(|r| i128::from(r.size.unwrap_or(0))).sum(),
            ),
            changes_metadata: index.metadata.is_some(),
            changes_protocol: index.protocol.is_some(),
            total_files: 0,
            total_bytes: 0,
            has_body: true,
        }
    }
}
