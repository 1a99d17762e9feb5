//! The state of an import, as values: how it begins, goes on and ends.

use serde::{Deserialize, Serialize};

use super::{
    ImportPosition, NewVersion, Outbox, StoredTable, check_import_start, check_published,
    check_whole, is_same_import, not_found,
};
use crate::backend::{ImportEnd, ImportProgress, ImportStep, in_memory};
use crate::commit::{CommitBody, CommitIndex, Packed};
use crate::error::{CatalogError, Result};
use crate::ids::{TimestampMs, Version};
use crate::model::{BaseTail, CommitRecord, MirrorMode, NewTable, TableState};

/// Where an import is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportState {
    /// Whether it is replayed from version 0.
    pub from_json: bool,
    /// Whether its base is complete.
    pub base_done: bool,
    /// Files of the base that are stored.
    pub base_files: u64,
    /// Tombstones of the base that are stored.
    pub base_tombstones: u64,
    /// Highest version of the history that is stored.
    pub history_through: Option<Version>,
}

/// The number of what is counted now.
fn next(count: &mut u64) -> usize {
    *count += 1;
    usize::try_from(*count - 1).unwrap_or(usize::MAX)
}

impl StoredTable {
    /// The table of an import that begins.
    ///
    /// # Errors
    /// Those of [`check_import_start`].
    pub fn importing(
        new: NewTable,
        base: Version,
        from_json: bool,
        now: TimestampMs,
    ) -> Result<StoredTable> {
        check_import_start(&new, base, from_json)?;
        let mut table = StoredTable::new(new, TableState::Importing, now);
        table.record.base_version = base;
        table.record.barrier_version = base;
        table.import =
            Some(ImportState { from_json, base_done: from_json, ..ImportState::default() });
        Ok(table)
    }

    /// Where an import goes on that finds this table under its name.
    ///
    /// # Errors
    /// Those of [`check_import_start`]. `TableExists` unless it is the same import.
    pub fn resumed(
        &self,
        new: &NewTable,
        base: Version,
        from_json: bool,
    ) -> Result<ImportProgress> {
        check_import_start(new, base, from_json)?;
        let same = is_same_import(&self.record, new, base)
            && self.import.as_ref().is_some_and(|import| import.from_json == from_json);
        if same { self.progress() } else { Err(CatalogError::TableExists(new.name.clone())) }
    }

    /// How far the import is.
    ///
    /// # Errors
    /// `TableNotFound` if the table is not importing.
    pub fn progress(&self) -> Result<ImportProgress> {
        let import = self.import.as_ref().ok_or_else(|| not_found(self.record.id))?;
        Ok(ImportProgress {
            table: self.record.clone(),
            base_files: import.base_files,
            base_tombstones: import.base_tombstones,
            base_done: import.base_done,
            history_through: import.history_through,
        })
    }

    /// Where the import is, for [`check_import_commits`](super::check_import_commits).
    ///
    /// # Errors
    /// `TableNotFound` if the table is not importing.
    pub fn import_position(&self) -> Result<ImportPosition<'_>> {
        let import = self.import.as_ref().ok_or_else(|| not_found(self.record.id))?;
        Ok(ImportPosition {
            table: &self.record,
            from_json: import.from_json,
            base_done: import.base_done,
            history_through: import.history_through,
        })
    }

    /// Counts a file of the base, which is stored now: its position among them.
    ///
    /// # Errors
    /// `TableNotFound` if the table is not importing.
    pub fn next_base_file(&mut self) -> Result<usize> {
        let id = self.record.id;
        let import = self.import.as_mut().ok_or_else(|| not_found(id))?;
        Ok(next(&mut import.base_files))
    }

    /// Counts a tombstone of the base, which is stored now: its position among them.
    ///
    /// # Errors
    /// `TableNotFound` if the table is not importing.
    pub fn next_base_tombstone(&mut self) -> Result<usize> {
        let id = self.record.id;
        let import = self.import.as_mut().ok_or_else(|| not_found(id))?;
        Ok(next(&mut import.base_tombstones))
    }

    /// Ends the base, whose files are counted: its rows of state, and its line of history. `stored` is the line
    /// that is there already, if the commit of the base was read before.
    #[must_use]
    pub fn finish_base(
        &mut self,
        tail: BaseTail,
        stored: Option<CommitRecord>,
    ) -> (CommitIndex, CommitRecord) {
        let (version, timestamp) = (self.record.base_version, tail.timestamp);
        self.record.head = Some(version);
        self.record.head_timestamp = Some(timestamp);
        if let Some(import) = &mut self.import {
            import.base_done = true;
        }
        // The base is known from a checkpoint: its commit may come later, or never.
        let mut line = stored.unwrap_or_else(|| {
            let rest = Packed { zstd: bytes::Bytes::new(), raw_len: 0 };
            let (body, index) = (&CommitBody { first_line: None, rest }, &CommitIndex::default());
            let line =
                NewVersion { version, timestamp, token: None, body, index }.line(self.record.id);
            CommitRecord { has_body: false, ..line }
        });
        line.timestamp = timestamp;
        self.put_totals(&mut line);
        let index = CommitIndex {
            protocol: Some(tail.protocol),
            metadata: Some(tail.metadata),
            txns: tail.txns,
            domain_metadata: tail.domain_metadata,
            ..CommitIndex::default()
        };
        (index, line)
    }

    /// The line of history of a commit at or below the base. `stored` is the line that is there already: that
    /// of the base, whose time and totals come from the checkpoint.
    #[must_use]
    pub fn history_line(
        &mut self,
        commit: &NewVersion<'_>,
        stored: Option<&CommitRecord>,
    ) -> CommitRecord {
        if let Some(import) = &mut self.import {
            import.history_through = Some(commit.version);
        }
        let mut line = commit.line(self.record.id);
        if let Some(base) = stored {
            line.timestamp = base.timestamp;
            line.total_files = base.total_files;
            line.total_bytes = base.total_bytes;
        }
        line
    }

    /// Ends the import, and enqueues those of `versions` that wait to be published, unless the mirror is `Off`: the
    /// caller gives all after `end.published`.
    ///
    /// # Errors
    /// Those of [`check_whole`] and [`check_published`], with nothing changed.
    pub fn finish_import(
        &mut self,
        outbox: &mut Outbox,
        end: ImportEnd,
        has_protocol_and_metadata: bool,
        versions: impl IntoIterator<Item = Version>,
        now: TimestampMs,
    ) -> Result<()> {
        check_whole(&self.record, has_protocol_and_metadata)?;
        check_published(&self.record, end.published)?;
        self.import = None;
        let record = &mut self.record;
        let dropped = end.dropped_at.is_some();
        record.state = if dropped { TableState::Dropped } else { TableState::Active };
        record.dropped_at = end.dropped_at;
        record.created_at = end.created_at.unwrap_or(record.created_at);
        record.published_version = end.published;
        if record.mirror != MirrorMode::Off {
            self.enqueue(outbox, versions, now);
        }
        Ok(())
    }
}

/// A step of an import with all adds in memory, for a backend that does not read them in pages.
///
/// # Errors
/// Those of [`in_memory`].
pub async fn step_in_memory(step: ImportStep) -> Result<ImportStep> {
    Ok(match step {
        ImportStep::Commits(commits) => ImportStep::Commits(in_memory(commits).await?),
        base @ ImportStep::Base { .. } => base,
    })
}
