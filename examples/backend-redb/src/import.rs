//! The part that takes over the log of a table, which is hidden until it is whole.

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::{
    ImportBackend, ImportEnd, ImportProgress, ImportStep, ImportedCommit, in_memory,
};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex, Packed};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteResult};
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, MirrorMode, NewTable, TableRecord, TableState,
};
use deltalakedb_catalog_core::support::{
    ImportPosition, check_between, check_import_commits, check_published,
};
use redb::ReadableTable;

use crate::RedbBackend;
use crate::commit::NewCommit;
use crate::rows::{CommitRow, Import, TableRow, reported};
use crate::store::{Entry, Key, Rows, Space, WriteRows};
use crate::tables::not_found;

type Times = (Option<TimestampMs>, Option<TimestampMs>);

fn progress(table: TableRow, import: &Import) -> ImportProgress {
    ImportProgress {
        table: table.record,
        base_files: import.base_files,
        base_tombstones: import.base_tombstones,
        base_done: import.base_done,
        history_through: import.history_through,
    }
}

fn position(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    fn importing(&self, id: TableId) -> Result<(TableRow, Import)> {
        let table = self.in_state(id, TableState::Importing)?;
        let import = table.import.clone().ok_or_else(|| not_found(id))?;
        Ok((table, import))
    }

    /// Timestamps of the stored versions next below and next above.
    fn neighbours(&self, id: TableId, version: Version) -> Result<Times> {
        let commits = Key::of(Space::Commit, id);
        let this = commits.clone().version(version);
        let below = self.scan(&commits, &this)?.next_back().transpose()?;
        let above = self.scan(&this.after(), &commits.clone().end())?.next().transpose()?;
        let time = |entry: Entry| entry.json().map(|CommitRow(record)| record.timestamp);
        Ok((below.map(time).transpose()?, above.map(time).transpose()?))
    }
}

impl WriteRows<'_> {
    fn import_begin(
        &mut self,
        new: NewTable,
        base: Version,
        from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        if from_json && base != Version::ZERO {
            return Err(CatalogError::invalid(format!(
                "import of '{}': a log that is replayed from JSON starts at version 0, not {base}",
                new.name
            )));
        }
        if let Some(table) = self.live(&new.name)? {
            let same = table.record.location == new.location && table.record.base_version == base;
            let import = table.import.clone().filter(|i| same && i.from_json == from_json);
            let import = import.ok_or(CatalogError::TableExists(new.name))?;
            return Ok(progress(table, &import));
        }
        if self.table(new.id)?.is_some() {
            return Err(CatalogError::invalid(format!("table id {} exists already", new.id)));
        }
        let mut table = TableRow::new(new, TableState::Importing, now);
        table.record.base_version = base;
        table.record.barrier_version = base;
        let import = Import { from_json, base_done: from_json, ..Import::default() };
        self.put_import(table, import)
    }

    fn put_import(&mut self, mut table: TableRow, import: Import) -> Result<ImportProgress> {
        table.import = Some(import.clone());
        self.put_table(&mut table)?;
        Ok(progress(table, &import))
    }

    fn import_base(
        &mut self,
        id: TableId,
        stored: (u64, u64),
        chunk: BaseChunk,
        tail: Option<BaseTail>,
    ) -> Result<ImportProgress> {
        let (mut table, mut import) = self.importing(id)?;
        let invalid = |what: &str| {
            CatalogError::invalid(format!("import of '{}': {what}", table.record.name))
        };
        if import.base_done {
            return Err(invalid("its base is complete"));
        }
        if stored != (import.base_files, import.base_tombstones) {
            return Err(invalid("another import is at work: other files of the base are stored"));
        }
        let base = table.record.base_version;
        for add in &chunk.files {
            self.add_file(&mut table, base, position(import.base_files), add)?;
            import.base_files += 1;
        }
        for remove in &chunk.tombstones {
            self.add_tombstone(id, base, position(import.base_tombstones), remove)?;
            import.base_tombstones += 1;
        }
        if let Some(tail) = tail {
            let (below, above) = self.neighbours(id, base)?;
            check_between(&table.record, base, tail.timestamp, below, above)?;
            self.finish_base(&mut table, tail)?;
            import.base_done = true;
        }
        self.put_import(table, import)
    }

    fn finish_base(&mut self, table: &mut TableRow, tail: BaseTail) -> Result<()> {
        let (id, base) = (table.record.id, table.record.base_version);
        let index = CommitIndex {
            protocol: Some(tail.protocol),
            metadata: Some(tail.metadata),
            txns: tail.txns,
            domain_metadata: tail.domain_metadata,
            ..CommitIndex::default()
        };
        self.put_state(id, base, &index)?;
        table.record.head = Some(base);
        table.record.head_timestamp = Some(tail.timestamp);
        let mut record = self.commit(id, base)?.unwrap_or_else(|| {
            // The base is known from a checkpoint: its commit may come later, or never.
            let rest = Packed { zstd: bytes::Bytes::new(), raw_len: 0 };
            let (body, index) = (CommitBody { first_line: None, rest }, CommitIndex::default());
            let timestamp = tail.timestamp;
            let (body, index) = (&body, &index);
            let mut record =
                NewCommit { version: base, timestamp, token: None, body, index }.record(id);
            record.has_body = false;
            record
        });
        record.timestamp = tail.timestamp;
        record.total_files = table.files;
        record.total_bytes = reported(table.bytes);
        self.put_commit(record, None)
    }

    fn import_commits(
        &mut self,
        id: TableId,
        commits: &[ImportedCommit],
    ) -> Result<ImportProgress> {
        let (mut table, mut import) = self.importing(id)?;
        let record = table.record.clone();
        let at = ImportPosition {
            table: &record,
            from_json: import.from_json,
            base_done: import.base_done,
            history_through: import.history_through,
        };
        check_import_commits(at, commits, |version| self.neighbours(id, version))?;
        for ImportedCommit { version, timestamp, body, index, token, .. } in commits {
            let (version, timestamp, token) = (*version, *timestamp, token.clone());
            let commit = NewCommit { version, timestamp, token, body, index };
            if at.is_applied(version) {
                let removed = self.remove_files(&mut table, version, index, true)?;
                self.write_commit(&mut table, &commit, removed.unwrap_or(0))?;
                continue;
            }
            let mut line = commit.record(id);
            if let Some(base) = self.commit(id, version)? {
                // The base was stored from a checkpoint, without its JSON: this is it.
                line.timestamp = base.timestamp;
                line.total_files = base.total_files;
                line.total_bytes = base.total_bytes;
            }
            self.put_commit(line, Some(body))?;
            import.history_through = Some(version);
        }
        self.put_import(table, import)
    }

    fn import_finish(
        &mut self,
        id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        let (mut table, _) = self.importing(id)?;
        let has =
            |space| self.all(Key::of(space, id)).map(|mut rows| matches!(rows.next(), Some(Ok(_))));
        if table.record.head.is_none() || !has(Space::Protocol)? || !has(Space::Metadata)? {
            return Err(CatalogError::corrupt(format!(
                "import of '{}' has no version, protocol or metadata: its log is incomplete",
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
            self.enqueue_missing(&table, now)?;
        }
        self.put_table(&mut table)?;
        Ok(table.record)
    }

    fn import_abort(&mut self, id: TableId) -> Result<()> {
        self.importing(id)?;
        let commits = self.all(Key::of(Space::Commit, id))?.map(|entry| entry?.json());
        for CommitRow(record) in commits.collect::<Result<Vec<_>>>()? {
            self.delete_token(&record)?;
        }
        for rows in Key::of_table(id) {
            self.delete_all(rows)?;
        }
        self.delete_table(id)
    }
}

#[async_trait]
impl ImportBackend for RedbBackend {
    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> WriteResult<ImportProgress> {
        let table = table.clone();
        Ok(self.write(move |rows| rows.import_begin(table, base, base_from_json, now)).await?)
    }

    async fn import_step(&self, id: TableId, step: ImportStep) -> WriteResult<ImportProgress> {
        Ok(match step {
            ImportStep::Base { skip_files, skip_tombstones, chunk, tail } => {
                let stored = (skip_files, skip_tombstones);
                self.write(move |rows| rows.import_base(id, stored, chunk, tail)).await?
            }
            ImportStep::Commits(commits) => {
                let commits = in_memory(commits).await?;
                self.write(move |rows| rows.import_commits(id, &commits)).await?
            }
        })
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> WriteResult<TableRecord> {
        Ok(self.write(move |rows| rows.import_finish(table_id, end, now)).await?)
    }

    async fn import_abort(&self, table_id: TableId) -> WriteResult<()> {
        Ok(self.write(move |rows| rows.import_abort(table_id)).await?)
    }
}
