//! Imports: a table that is filled from its log, hidden until it is whole.

use std::sync::Arc;

use super::state::{Import, State, StoredCommit, Table, count, not_found, ordinal};
use deltalakedb_catalog_core::backend::{
    CommittedTable, ImportEnd, ImportProgress, ImportedCommit,
};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, CommitRecord, FileCursor, MirrorMode, NewTable, TableRecord, TableState,
};
use deltalakedb_catalog_core::support::{
    ImportPosition, check_between, check_import_commits, check_published,
};

impl State {
    pub(super) fn import_begin(
        &mut self,
        new: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        if base_from_json && base != Version::ZERO {
            return Err(CatalogError::invalid(format!(
                "import of '{}': a log that is replayed from JSON starts at version 0, not {base}",
                new.name
            )));
        }
        if let Some(table) = self.live(&new.name) {
            return table
                .progress()
                .filter(|p| {
                    p.table.location == new.location
                        && p.table.base_version == base
                        && table.import.as_ref().is_some_and(|i| i.from_json == base_from_json)
                })
                .ok_or_else(|| CatalogError::TableExists(new.name.clone()));
        }
        if self.tables.contains_key(&new.id) {
            return Err(CatalogError::invalid(format!("table id {} exists already", new.id)));
        }
        let mut table = Table::new(new, TableState::Importing, now);
        table.record.base_version = base;
        table.record.barrier_version = base;
        table.import = Some(Import {
            from_json: base_from_json,
            base_done: base_from_json,
            ..Import::default()
        });
        let progress = table.progress().ok_or_else(|| not_found(new.id))?;
        self.tables.insert(new.id, table);
        Ok(progress)
    }

    /// A table in state `Importing`, with where it is.
    fn importing(&mut self, id: TableId) -> Result<(&mut Table, Import)> {
        let table = self.tables.get_mut(&id).ok_or_else(|| not_found(id))?;
        let import = table.import.clone().ok_or_else(|| not_found(id))?;
        Ok((table, import))
    }

    pub(super) fn import_base(
        &mut self,
        id: TableId,
        skip_files: u64,
        skip_tombstones: u64,
        chunk: BaseChunk,
        tail: Option<BaseTail>,
    ) -> Result<ImportProgress> {
        let (table, mut import) = self.importing(id)?;
        let name = table.record.name.clone();
        if import.base_done {
            return Err(CatalogError::invalid(format!("import of '{name}': its base is complete")));
        }
        if (skip_files, skip_tombstones) != (import.base_files, import.base_tombstones) {
            return Err(CatalogError::invalid(format!(
                "import of '{name}': this chunk continues after {skip_files} files and \
                 {skip_tombstones} tombstones, but {} and {} are stored: another import is at work",
                import.base_files, import.base_tombstones
            )));
        }
        let base = table.record.base_version;
        if let Some(tail) = &tail {
            table.check_timestamp(base, tail.timestamp)?;
        }

        for add in chunk.files {
            let position = usize::try_from(import.base_files).unwrap_or(usize::MAX);
            table.add_file(FileCursor { added_version: base, ordinal: ordinal(position) }, add);
            import.base_files += 1;
        }
        for remove in chunk.tombstones {
            let position = usize::try_from(import.base_tombstones).unwrap_or(usize::MAX);
            table.add_tombstone(base, position, remove);
            import.base_tombstones += 1;
        }
        if let Some(tail) = tail {
            table.finish_base(base, tail);
            import.base_done = true;
        }
        table.import = Some(import);
        table.progress().ok_or_else(|| not_found(id))
    }

    pub(super) fn import_commits(
        &mut self,
        id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> Result<ImportProgress> {
        let (table, mut import) = self.importing(id)?;
        table.check_import(&import, &commits)?;
        let mut known = Vec::new();
        for commit in commits.iter().cloned() {
            let ImportedCommit { version, timestamp, body, index, later: _, token } = commit;
            if let Some((token, position)) = token.clone() {
                known.push((token, position, CommittedTable { table_id: id, version, timestamp }));
            }
            if import.from_json || version > table.record.base_version {
                table.apply(version, timestamp, token, body, index);
                continue;
            }
            let mut record = table.history_record(version, timestamp, token, &body, &index);
            if let Some(base) = table.commits.get(&version) {
                // The base was stored from a checkpoint, without its JSON: this is it.
                record.timestamp = base.record.timestamp;
                record.total_files = base.record.total_files;
                record.total_bytes = base.record.total_bytes;
            }
            table.commits.insert(version, StoredCommit { record, body: Some(body) });
            import.history_through = Some(version);
        }
        table.import = Some(import);
        let progress = table.progress().ok_or_else(|| not_found(id))?;
        for (token, position, written) in known {
            self.tokens.entry(token).or_default().insert(position, written);
        }
        Ok(progress)
    }

    pub(super) fn import_finish(
        &mut self,
        id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        let (table, _) = self.importing(id)?;
        if table.record.head.is_none() || table.protocol.is_empty() || table.metadata.is_empty() {
            return Err(CatalogError::corrupt(format!(
                "import of '{}' has no version, protocol or metadata: the log it was read from \
                 is incomplete",
                table.record.name
            )));
        }
        check_published(&table.record, end.published)?;
        table.import = None;
        table.record.state =
            if end.dropped_at.is_some() { TableState::Dropped } else { TableState::Active };
        table.record.dropped_at = end.dropped_at;
        table.record.created_at = end.created_at.unwrap_or(table.record.created_at);
        table.record.published_version = end.published;
        if table.record.mirror != MirrorMode::Off {
            table.enqueue_missing(now);
        }
        Ok(table.record.clone())
    }

    pub(super) fn import_abort(&mut self, id: TableId) -> Result<()> {
        self.importing(id)?;
        self.tables.remove(&id);
        for batch in self.tokens.values_mut() {
            batch.retain(|_, written| written.table_id != id);
        }
        self.tokens.retain(|_, batch| !batch.is_empty());
        Ok(())
    }
}

impl Table {
    fn progress(&self) -> Option<ImportProgress> {
        self.import.as_ref().map(|import| ImportProgress {
            table: self.record.clone(),
            base_files: import.base_files,
            base_tombstones: import.base_tombstones,
            base_done: import.base_done,
            history_through: import.history_through,
        })
    }

    /// Timestamps of the stored versions next below and next above.
    fn neighbours(&self, version: Version) -> (Option<TimestampMs>, Option<TimestampMs>) {
        let below = self.commits.range(..version).next_back();
        let above = self.commits.range(version.next()..).next();
        (below.map(|(_, c)| c.record.timestamp), above.map(|(_, c)| c.record.timestamp))
    }

    fn check_timestamp(&self, version: Version, timestamp: TimestampMs) -> Result<()> {
        let (below, above) = self.neighbours(version);
        check_between(&self.record, version, timestamp, below, above)
    }

    fn check_import(&self, import: &Import, commits: &[ImportedCommit]) -> Result<()> {
        let position = ImportPosition {
            table: &self.record,
            from_json: import.from_json,
            base_done: import.base_done,
            history_through: import.history_through,
        };
        check_import_commits(position, commits, |version| Ok(self.neighbours(version)))
    }

    fn finish_base(&mut self, base: Version, tail: BaseTail) {
        self.protocol.insert(base, tail.protocol);
        self.metadata.insert(base, tail.metadata);
        for txn in tail.txns {
            self.txns.insert((txn.app_id.clone(), base), txn);
        }
        for domain in tail.domain_metadata {
            self.domains.insert((domain.domain.clone(), base), domain);
        }
        self.record.head = Some(base);
        self.record.head_timestamp = Some(tail.timestamp);
        let (total_files, total_bytes) = self.totals();
        let stored = self.commits.entry(base).or_insert_with(|| StoredCommit {
            record: CommitRecord {
                table_id: self.record.id,
                version: base,
                timestamp: tail.timestamp,
                token: None,
                batch_position: None,
                commit_info: None,
                num_added: count(0),
                num_removed: 0,
                bytes_added: 0,
                bytes_removed: 0,
                changes_metadata: false,
                changes_protocol: false,
                total_files,
                total_bytes,
                has_body: false,
            },
            body: None,
        });
        stored.record.timestamp = tail.timestamp;
        stored.record.total_files = total_files;
        stored.record.total_bytes = total_bytes;
    }
}
