//! Imports: a table that is filled from its log, hidden until it is whole.

use super::state::{State, StoredCommit, Table};
use deltalakedb_catalog_core::support::{
    NewVersion, StoredTable, check_base_chunk, check_between, check_import_commits, id_exists,
    prelude::*,
};

impl State {
    pub(super) fn import_begin(
        &mut self,
        new: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        if let Some(found) = self.live(&new.name) {
            return found.stored.resumed(new, base, base_from_json);
        }
        if self.tables.contains_key(&new.id) {
            return Err(id_exists(new));
        }
        let stored = StoredTable::importing(new.clone(), base, base_from_json, now)?;
        let progress = stored.progress();
        self.tables.insert(new.id, Table::new(stored));
        progress
    }

    pub(super) fn import_step(&mut self, id: TableId, step: ImportStep) -> Result<ImportProgress> {
        let table = self.in_state(id, TableState::Importing)?;
        match step {
            ImportStep::Base { skip_files, skip_tombstones, chunk, tail } => {
                check_base_chunk(&table.stored.progress()?, (skip_files, skip_tombstones))?;
                table.put_base(chunk, tail)?;
                table.stored.progress()
            }
            ImportStep::Commits(commits) => {
                table.put_commits(&commits)?;
                let progress = table.stored.progress();
                for commit in commits.iter() {
                    if let Some((token, position)) = commit.token.clone() {
                        let batch = self.tokens.entry(token).or_default();
                        batch.insert((position, id, commit.version));
                    }
                }
                progress
            }
        }
    }

    pub(super) fn import_finish(
        &mut self,
        id: TableId,
        end: ImportEnd,
        act: &Act,
    ) -> Result<TableRecord> {
        act.by.check()?;
        let table = self.in_state(id, TableState::Importing)?;
        let is_whole = !table.protocol.is_empty() && !table.metadata.is_empty();
        let versions = table.commits.keys().copied();
        table.stored.finish_import(&mut table.outbox, end, is_whole, versions, act.at)?;
        let record = table.record().clone();
        self.keep(act.imported(&record));
        Ok(record)
    }

    pub(super) fn import_abort(&mut self, id: TableId, act: &Act) -> Result<()> {
        act.by.check()?;
        let table = self.in_state(id, TableState::Importing)?;
        let entry = act.on(audit_action::IMPORT_ABORT, table.record());
        self.keep(entry);
        self.tables.remove(&id);
        for batch in self.tokens.values_mut() {
            batch.retain(|(_, table, _)| *table != id);
        }
        self.tokens.retain(|_, batch| !batch.is_empty());
        Ok(())
    }
}

impl Table {
    /// Timestamps of the stored versions next below and next above.
    fn neighbours(&self, version: Version) -> (Option<TimestampMs>, Option<TimestampMs>) {
        let below = self.commits.range(..version).next_back();
        let above = self.commits.range(version.next()..).next();
        (below.map(|(_, c)| c.record.timestamp), above.map(|(_, c)| c.record.timestamp))
    }

    fn put_base(&mut self, chunk: BaseChunk, tail: Option<BaseTail>) -> Result<()> {
        let base = self.record().base_version;
        if let Some(tail) = &tail {
            let (below, above) = self.neighbours(base);
            check_between(self.record(), base, tail.timestamp, below, above)?;
        }
        for add in &chunk.files {
            let position = self.stored.next_base_file()?;
            self.add_file(base, position, add)?;
        }
        for remove in &chunk.tombstones {
            let position = self.stored.next_base_tombstone()?;
            let (row, _) = self.stored.remove_file(None, base, position, remove)?;
            self.put_file(row);
        }
        if let Some(tail) = tail {
            let (stored, body) = self.commits.remove(&base).map(|c| (c.record, c.body)).unzip();
            let (index, record) = self.stored.finish_base(tail, stored);
            self.put_state(base, &index);
            self.commits.insert(base, StoredCommit { record, body: body.flatten() });
        }
        Ok(())
    }

    fn put_commits(&mut self, commits: &[ImportedCommit]) -> Result<()> {
        let position = self.stored.import_position()?;
        check_import_commits(position, commits, |version| {
            Ok::<_, CatalogError>(self.neighbours(version))
        })?;
        for commit in commits {
            if self.stored.import_position()?.is_applied(commit.version) {
                self.apply(&NewVersion::from(commit))?;
                continue;
            }
            let stored = self.commits.get(&commit.version).map(|stored| &stored.record);
            let record = self.stored.history_line(&NewVersion::from(commit), stored);
            let body = Some(commit.body.clone());
            self.commits.insert(commit.version, StoredCommit { record, body });
        }
        Ok(())
    }
}
