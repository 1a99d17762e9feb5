//! The maps, and the life cycle of tables.

use std::collections::{BTreeMap, BTreeSet};

use super::skip::SkipState;
use deltalakedb_catalog_core::support::{
    self, FileRow, NewVersion, Outbox, StoredTable, newest_batch, not_found, prelude::*,
};

/// The registry: records, and how often they were written.
#[derive(Debug, Clone, Default)]
pub(super) struct Registry {
    pub(super) revision: i64,
    pub(super) records: BTreeMap<RecordKey, Record>,
}

/// A catalog.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) tables: BTreeMap<TableId, Table>,
    /// What each token wrote, by the place in its batch.
    pub(super) tokens: BTreeMap<CommitToken, BTreeSet<(u32, TableId, Version)>>,
    pub(super) skip: BTreeMap<TableId, SkipState>,
    pub(super) audit: Vec<AuditRow>,
    pub(super) registry: Registry,
}

/// A table with all of its rows.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) stored: StoredTable,
    pub(super) commits: BTreeMap<Version, StoredCommit>,
    pub(super) files: BTreeMap<FileCursor, FileRow>,
    /// Files at the head.
    pub(super) active: BTreeMap<FileKey, FileCursor>,
    pub(super) metadata: BTreeMap<Version, Metadata>,
    pub(super) protocol: BTreeMap<Version, Protocol>,
    pub(super) txns: BTreeMap<(String, Version), Txn>,
    pub(super) domains: BTreeMap<(String, Version), DomainMetadata>,
    pub(super) outbox: Outbox,
}

/// A commit.
#[derive(Debug, Clone)]
pub(super) struct StoredCommit {
    pub(super) record: CommitRecord,
    pub(super) body: Option<CommitBody>,
}

impl State {
    /// What a token wrote.
    pub(super) fn replayed(&self, token: &CommitToken) -> Option<Vec<CommittedTable>> {
        let written = |(place, id, version): &(u32, TableId, Version)| {
            let commit = self.tables.get(id)?.commits.get(version)?;
            Some((i64::from(*place), CommittedTable::from(&commit.record)))
        };
        Some(newest_batch(self.tokens.get(token)?.iter().filter_map(written).collect()))
    }

    /// The live table of a name.
    pub(super) fn live(&self, name: &TableName) -> Option<&Table> {
        self.tables
            .values()
            .find(|t| t.record().state != TableState::Dropped && t.record().name == *name)
    }

    pub(super) fn get_table(&self, table: &TableRef) -> Option<TableRecord> {
        let found = match table {
            TableRef::Id(id) => self.tables.get(id),
            TableRef::Name(name) => self.live(name),
        };
        found.map(|t| t.record().clone())
    }

    /// A table whose rows can be read by its id: any.
    pub(super) fn readable(&self, id: TableId) -> Result<&Table> {
        self.tables.get(&id).ok_or_else(|| not_found(id))
    }

    /// A table in a state.
    pub(super) fn in_state(&mut self, id: TableId, state: TableState) -> Result<&mut Table> {
        let table = self.tables.get_mut(&id).filter(|t| t.record().state == state);
        table.ok_or_else(|| not_found(id))
    }

    pub(super) fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Page<TableRecord, (TableName, TableId)> {
        let state = filter.state.unwrap_or(TableState::Active);
        let ordered: BTreeMap<(TableName, TableId), &TableRecord> = self
            .tables
            .values()
            .map(Table::record)
            .filter(|t| t.state == state)
            .filter(|t| filter.namespace.as_deref().is_none_or(|n| t.name.namespace() == n))
            .map(|t| ((t.name.clone(), t.id), t))
            .collect();
        let rest = ordered.into_iter().filter(|(key, _)| after.is_none_or(|after| key > after));
        page(rest.map(|(_, t)| t.clone()), limit, |r| (r.name.clone(), r.id))
    }

    pub(super) fn drop_table(&mut self, id: TableId, act: &Act) -> Result<TableRecord> {
        act.by.check()?;
        let table = self.in_state(id, TableState::Active)?;
        table.stored.drop_at(act.at);
        let record = table.record().clone();
        self.keep(act.on(audit_action::TABLE_DROP, &record));
        Ok(record)
    }

    pub(super) fn undrop_table(
        &mut self,
        id: TableId,
        name: &TableName,
        act: &Act,
    ) -> Result<TableRecord> {
        act.by.check()?;
        let is_taken = self.live(name).is_some();
        let table = self.in_state(id, TableState::Dropped)?;
        if is_taken {
            return Err(CatalogError::TableExists(name.clone()));
        }
        let before = table.record().clone();
        table.stored.undrop(name.clone());
        let record = table.record().clone();
        self.keep(act.undropped(&before, &record));
        Ok(record)
    }
}

impl Table {
    pub(super) fn new(stored: StoredTable) -> Self {
        Table {
            stored,
            commits: BTreeMap::new(),
            files: BTreeMap::new(),
            active: BTreeMap::new(),
            metadata: BTreeMap::new(),
            protocol: BTreeMap::new(),
            txns: BTreeMap::new(),
            domains: BTreeMap::new(),
            outbox: Outbox::new(),
        }
    }

    pub(super) fn record(&self) -> &TableRecord {
        &self.stored.record
    }

    /// The row of a file that is in the table at the head.
    fn active(&self, key: &FileKey) -> Option<FileRow> {
        self.files.get(self.active.get(key)?).cloned()
    }

    pub(super) fn put_file(&mut self, row: FileRow) {
        if let Some(key) = row.key() {
            if row.is_active() {
                self.active.insert(key, row.cursor);
            } else if self.active.get(&key) == Some(&row.cursor) {
                self.active.remove(&key);
            }
        }
        self.files.insert(row.cursor, row);
    }

    pub(super) fn add_file(&mut self, version: Version, position: usize, add: &Add) -> Result<()> {
        let active = self.active(&add.key());
        for row in self.stored.add_file(active, version, position, add)? {
            self.put_file(row);
        }
        Ok(())
    }

    /// Removes a file; of an unknown one, only the tombstone is kept. The removed bytes as far as they are known.
    pub(super) fn remove_file(
        &mut self,
        version: Version,
        position: usize,
        remove: &Remove,
    ) -> Result<i64> {
        let active = self.active(&remove.key());
        let (row, bytes) = self.stored.remove_file(active, version, position, remove)?;
        self.put_file(row);
        Ok(bytes)
    }

    /// Writes all rows of the next version and moves the head to it.
    pub(super) fn apply(&mut self, commit: &NewVersion<'_>) -> Result<()> {
        let (version, index) = (commit.version, commit.index);
        let mut bytes_removed = 0;
        for (position, remove) in index.removes.iter().enumerate() {
            bytes_removed += i128::from(self.remove_file(version, position, remove)?);
        }
        for (position, add) in index.adds.iter().enumerate() {
            self.add_file(version, position, add)?;
        }
        self.put_state(version, index);
        let mut record = commit.line(self.record().id);
        self.stored.advance(&mut record, bytes_removed);
        self.commits.insert(version, StoredCommit { record, body: Some(commit.body.clone()) });
        Ok(())
    }

    /// Stores what a version sets of the table's state.
    pub(super) fn put_state(&mut self, version: Version, index: &CommitIndex) {
        self.metadata.extend(index.metadata.clone().map(|metadata| (version, metadata)));
        self.protocol.extend(index.protocol.clone().map(|protocol| (version, protocol)));
        let txns = index.txns.iter().map(|txn| ((txn.app_id.clone(), version), txn.clone()));
        self.txns.extend(txns);
        let domains = index.domain_metadata.iter();
        self.domains.extend(domains.map(|d| ((d.domain.clone(), version), d.clone())));
    }
}

/// Takes a page of an ordered iterator.
pub(super) fn page<T, C>(
    items: impl Iterator<Item = T>,
    limit: usize,
    cursor: impl Fn(&T) -> C,
) -> Page<T, C> {
    let fetched = items.take(limit.max(1).saturating_add(1)).collect();
    support::page(fetched, limit, cursor)
}
