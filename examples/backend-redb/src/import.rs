//! The part that takes over the log of a table, which is hidden until it is whole.

use deltalakedb_catalog_core::support::{self, NewVersion, StoredTable, prelude::*};
use redb::ReadableTable;
use serde::de::IgnoredAny;

use crate::RedbBackend;
use crate::commit::token_key;
use crate::store::{Key, Rows, Space, WriteRows};
use crate::tables::name_key;

type Times = (Option<TimestampMs>, Option<TimestampMs>);

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    /// Timestamps of the stored versions next below and next above.
    fn neighbours(&self, id: TableId, version: Version) -> Result<Times> {
        let commits = Key::of(Space::Commit, id);
        let this = commits.clone().version(version);
        let below = self.history(&commits, &this)?.next_back().transpose()?;
        let above = self.history(&this.after(), &commits.end())?.next().transpose()?;
        Ok((below.map(|line| line.timestamp), above.map(|line| line.timestamp)))
    }
}

impl WriteRows<'_> {
    fn put_base(&mut self, table: &mut StoredTable, chunk: &BaseChunk) -> Result<()> {
        let (id, base) = (table.record.id, table.record.base_version);
        for add in &chunk.files {
            let (active, position) = (self.active(id, &add.key())?, table.next_base_file()?);
            for row in table.add_file(active, base, position, add)? {
                self.put_file(id, &row)?;
            }
        }
        for remove in &chunk.tombstones {
            let position = table.next_base_tombstone()?;
            self.put_file(id, &table.remove_file(None, base, position, remove)?.0)?;
        }
        Ok(())
    }

    fn put_commits(&mut self, table: &mut StoredTable, commits: &[ImportedCommit]) -> Result<()> {
        let id = table.record.id;
        support::check_import_commits(table.import_position()?, commits, |version| {
            self.neighbours(id, version)
        })?;
        for commit in commits {
            if table.import_position()?.is_applied(commit.version) {
                self.write_version(table, &NewVersion::from(commit))?;
            } else {
                let stored = self.commit(id, commit.version)?;
                let line = table.history_line(&NewVersion::from(commit), stored.as_ref());
                self.put_commit(&line, Some(&commit.body))?;
            }
        }
        Ok(())
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
        let new = table.clone();
        let begin = move |rows: &mut WriteRows<'_>| {
            if let Some(found) = rows.live(&new.name)? {
                return found.resumed(&new, base, base_from_json);
            }
            if rows.table(new.id)?.is_some() {
                return Err(support::id_exists(&new));
            }
            let table = StoredTable::importing(new, base, base_from_json, now)?;
            rows.put_table(&table)?;
            table.progress()
        };
        Ok(self.write(begin).await?)
    }

    async fn import_step(&self, id: TableId, step: ImportStep) -> WriteResult<ImportProgress> {
        let step = support::step_in_memory(step).await?;
        let store = move |rows: &mut WriteRows<'_>| {
            let mut table = rows.in_state(id, TableState::Importing)?;
            match step {
                ImportStep::Base { skip_files, skip_tombstones, chunk, tail } => {
                    let skip = (skip_files, skip_tombstones);
                    support::check_base_chunk(&table.progress()?, skip)?;
                    rows.put_base(&mut table, &chunk)?;
                    if let Some(tail) = tail {
                        let base = table.record.base_version;
                        let (below, above) = rows.neighbours(id, base)?;
                        let time = tail.timestamp;
                        support::check_between(&table.record, base, time, below, above)?;
                        let (index, line) = table.finish_base(tail, rows.commit(id, base)?);
                        rows.put_state(id, base, &index)?;
                        rows.put_commit(&line, None)?;
                    }
                }
                ImportStep::Commits(commits) => rows.put_commits(&mut table, &commits)?,
            }
            rows.put_table(&table)?;
            table.progress()
        };
        Ok(self.write(store).await?)
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        let act = act.clone();
        let finish = move |rows: &mut WriteRows<'_>| {
            let table = rows.in_state(table_id, TableState::Importing)?;
            let protocol = rows.all::<IgnoredAny>(&Key::of(Space::Protocol, table_id))?.next();
            let metadata = rows.all::<IgnoredAny>(&Key::of(Space::Metadata, table_id))?.next();
            let is_whole = protocol.is_some() && metadata.is_some();
            let versions = rows.versions(table_id, end.published.unwrap_or_default())?;
            let finished = rows.change(table, |table, outbox| {
                table.finish_import(outbox, end, is_whole, versions, act.at)?;
                Ok(table.record.clone())
            })?;
            rows.keep(act.imported(&finished))?;
            Ok(finished)
        };
        Ok(self.write(finish).await?)
    }

    async fn import_abort(&self, table_id: TableId, act: &Act) -> WriteResult<()> {
        let act = act.clone();
        let abort = move |rows: &mut WriteRows<'_>| {
            let table = rows.in_state(table_id, TableState::Importing)?;
            rows.keep(act.on(audit_action::IMPORT_ABORT, &table.record))?;
            let commits = Key::of(Space::Commit, table_id);
            let lines = rows.history(&commits, &commits.end())?.collect::<Result<Vec<_>>>()?;
            for line in lines {
                if let (Some(token), Some(position)) = (&line.token, line.batch_position) {
                    rows.delete_all(&token_key(token).number(position.into()).id(table_id))?;
                }
            }
            rows.delete_all(&name_key(&table.record.name).id(table_id))?;
            for of_table in Key::of_table(table_id) {
                rows.delete_all(&of_table)?;
            }
            Ok(())
        };
        Ok(self.write(abort).await?)
    }
}
