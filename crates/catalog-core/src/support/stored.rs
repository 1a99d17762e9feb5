//! A table as a backend stores it, as values: what creates it, what a commit asks of its head and writes, how
//! its life goes on. For backends that compute this in Rust. Those that compute it in SQL say the same there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ImportState, Lease, TOMBSTONE_ONLY, as_ordinal};
use crate::action::{Add, FileKey, Remove};
use crate::backend::{CommitOutcome, CommittedTable, HeadRule, ImportedCommit, Rejection};
use crate::commit::{CommitBody, CommitIndex, commit_info_object};
use crate::error::{CatalogError, Result};
use crate::ids::{CommitToken, TableId, TableName, TimestampMs, Version};
use crate::model::{
    CommitRecord, FileCursor, FileRecord, NewTable, TableRecord, TableState, TombstoneRecord,
};

/// A table's record, and what only its backend needs to know of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredTable {
    /// What readers get.
    pub record: TableRecord,
    /// Files at the head.
    pub files: u64,
    /// Their sizes, bytes. Wide, so that sums of hostile sizes stay exact.
    pub bytes: i128,
    /// The right to publish it.
    pub lease: Lease,
    /// Where its import is, in state `Importing`.
    pub import: Option<ImportState>,
}

/// Sums of bytes are reported in what a signed 64-bit column holds.
fn reported(bytes: i128) -> u64 {
    u64::try_from(bytes.clamp(0, i128::from(i64::MAX))).unwrap_or(0)
}

/// The error of a table that does not exist, or not in the state that a call needs.
#[must_use]
pub fn not_found(id: TableId) -> CatalogError {
    CatalogError::TableNotFound(id.to_string())
}

impl StoredTable {
    /// A table without versions.
    #[must_use]
    pub fn new(new: NewTable, state: TableState, now: TimestampMs) -> StoredTable {
        let record = TableRecord {
            id: new.id,
            name: new.name,
            location: new.location,
            storage_options: new.storage_options,
            state,
            created_at: now,
            dropped_at: None,
            head: None,
            head_timestamp: None,
            base_version: Version::ZERO,
            barrier_version: Version::ZERO,
            mirror: new.mirror,
            published_version: None,
        };
        StoredTable { record, files: 0, bytes: 0, lease: Lease::default(), import: None }
    }

    /// Writes files and bytes at the head into a line of history.
    pub(super) fn put_totals(&self, line: &mut CommitRecord) {
        line.total_files = self.files;
        line.total_bytes = reported(self.bytes);
    }

    /// Moves the head to a version whose files are counted, and completes its line of history.
    /// `bytes_removed` is the size of the files that it removed.
    pub fn advance(&mut self, line: &mut CommitRecord, bytes_removed: i128) {
        if line.changes_metadata || line.changes_protocol {
            self.record.barrier_version = line.version;
        }
        self.record.head = Some(line.version);
        self.record.head_timestamp = Some(line.timestamp);
        line.bytes_removed = reported(bytes_removed);
        self.put_totals(line);
    }

    /// The version that a commit writes to this table, which exists.
    ///
    /// # Errors
    /// `TableNotFound` if the table is not active, `HeadMoved` if the rule does not hold.
    pub fn next_version(&self, rule: HeadRule) -> Result<Version, Refusal> {
        let head = self.record.head.filter(|_| self.record.state == TableState::Active);
        let head = head.ok_or(Rejection::TableNotFound(self.record.id))?;
        let holds = match rule {
            HeadRule::Exactly(version) => head == version,
            HeadRule::Append { since } => self.record.barrier_version <= since,
        };
        if holds { Ok(head.next()) } else { Err(Refusal::HeadMoved(head)) }
    }

    /// The rows that a file writes that is added: its own, and that of an active file with the same key, which
    /// ends without a tombstone. `position` is the add's place in its commit.
    ///
    /// # Errors
    /// Those of [`as_ordinal`].
    pub fn add_file(
        &mut self,
        active: Option<FileRow>,
        version: Version,
        position: usize,
        add: &Add,
    ) -> Result<Vec<FileRow>> {
        let cursor = FileCursor { added_version: version, ordinal: as_ordinal(position)? };
        let mut rows = Vec::with_capacity(1);
        if let Some(replaced) = active {
            self.discount_file(replaced.size());
            rows.push(FileRow { removed_version: Some(version), ..replaced });
        }
        self.files += 1;
        self.bytes += i128::from(add.size);
        let add = Some(add.clone());
        rows.push(FileRow { cursor, add, removed_version: None, remove: None });
        Ok(rows)
    }

    /// The row that a remove writes, which keeps the tombstone, and the bytes that it removes, as far as they are
    /// known. `active` is the file; without it, as in imports, the row is a tombstone alone.
    ///
    /// # Errors
    /// Those of [`as_ordinal`].
    pub fn remove_file(
        &mut self,
        active: Option<FileRow>,
        version: Version,
        position: usize,
        remove: &Remove,
    ) -> Result<(FileRow, i64)> {
        let (removed_version, tombstone) = (Some(version), Some(remove.clone()));
        if let Some(file) = active {
            let size = file.size();
            self.discount_file(size);
            return Ok((FileRow { removed_version, remove: tombstone, ..file }, size));
        }
        let ordinal = TOMBSTONE_ONLY.saturating_add(as_ordinal(position)?);
        let cursor = FileCursor { added_version: version, ordinal };
        let row = FileRow { cursor, add: None, removed_version, remove: tombstone };
        Ok((row, remove.size.unwrap_or(0)))
    }

    fn discount_file(&mut self, size: i64) {
        self.files = self.files.saturating_sub(1);
        self.bytes -= i128::from(size);
    }

    /// Drops the table, whose name becomes free.
    pub fn drop_at(&mut self, now: TimestampMs) {
        self.record.state = TableState::Dropped;
        self.record.dropped_at = Some(now);
    }

    /// Brings the table back under a name that is free.
    pub fn undrop(&mut self, name: TableName) {
        self.record.state = TableState::Active;
        self.record.dropped_at = None;
        self.record.name = name;
    }
}

/// A row of a file, from the version in its cursor to (excluding) the one that removed it, and of its tombstone.
/// A file that was replaced has no tombstone. In imports there are tombstones of files that nothing else is known
/// about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileRow {
    /// Position.
    pub cursor: FileCursor,
    /// The file.
    pub add: Option<Add>,
    /// Version that removed it; none = it is in the table.
    pub removed_version: Option<Version>,
    /// The tombstone.
    pub remove: Option<Remove>,
}

impl FileRow {
    fn size(&self) -> i64 {
        self.add.as_ref().map_or(0, |add| add.size)
    }

    /// What the file is compared by.
    #[must_use]
    pub fn key(&self) -> Option<FileKey> {
        self.add.as_ref().map(Add::key).or_else(|| self.remove.as_ref().map(Remove::key))
    }

    /// Whether the file is in the table at the head.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.add.is_some() && self.removed_version.is_none()
    }

    /// The file, if it is in the table at a version.
    #[must_use]
    pub fn file(&self, version: Version) -> Option<FileRecord> {
        let there = self.cursor.added_version <= version
            && self.removed_version.is_none_or(|removed| version < removed);
        let add = self.add.as_ref().filter(|_| there)?;
        Some(FileRecord { cursor: self.cursor, add: add.clone() })
    }

    /// The tombstone, if the file is removed at a version.
    #[must_use]
    pub fn tombstone(&self, version: Version) -> Option<TombstoneRecord> {
        let removed_version = self.removed_version.filter(|removed| *removed <= version)?;
        let remove = self.remove.clone()?;
        Some(TombstoneRecord { cursor: self.cursor, removed_version, remove })
    }
}

/// The tombstone that a checkpoint of a version carries of a file, from all rows of the file's key: its latest one,
/// if it is young enough, and the file is not there again.
#[must_use]
pub fn carried_tombstone<'r>(
    rows: impl IntoIterator<Item = &'r FileRow>,
    version: Version,
    deleted_after: TimestampMs,
) -> Option<TombstoneRecord> {
    let mut latest: Option<TombstoneRecord> = None;
    for row in rows {
        if row.file(version).is_some() {
            return None;
        }
        let place = |t: &TombstoneRecord| (t.removed_version, t.cursor);
        let found = row.tombstone(version);
        latest = latest.into_iter().chain(found).max_by_key(place);
    }
    // A key's latest remove decides, also about its age: that is how a log is replayed.
    latest.filter(|t| t.remove.deletion_timestamp.unwrap_or(0) > deleted_after.0)
}

/// Why a table's part of a batch is not written.
#[derive(Debug)]
pub enum Refusal {
    /// The head is another than the rule allows: the head now.
    HeadMoved(Version),
    /// It can never be written in this form.
    Rejected(Rejection),
    /// The backend failed.
    Failed(CatalogError),
}

impl From<Rejection> for Refusal {
    fn from(reason: Rejection) -> Self {
        Refusal::Rejected(reason)
    }
}

impl From<CatalogError> for Refusal {
    fn from(error: CatalogError) -> Self {
        Refusal::Failed(error)
    }
}

impl Refusal {
    /// The answer to a batch whose table at this index is refused.
    ///
    /// # Errors
    /// The backend's own.
    pub fn outcome(self, index: usize) -> Result<CommitOutcome> {
        match self {
            Refusal::HeadMoved(head) => Ok(CommitOutcome::HeadMoved { index, head }),
            Refusal::Rejected(reason) => Ok(CommitOutcome::Rejected { index, reason }),
            Refusal::Failed(error) => Err(error),
        }
    }
}

/// Checks that a commit may create a table.
///
/// # Errors
/// `IdTaken`, `NameTaken`.
pub fn check_create(new: &NewTable, id_taken: bool, name_taken: bool) -> Result<(), Rejection> {
    if id_taken {
        return Err(Rejection::IdTaken(new.id));
    }
    if name_taken {
        return Err(Rejection::NameTaken(new.name.clone()));
    }
    Ok(())
}

/// Checks that the files that a commit removes are in the table, each once.
///
/// # Errors
/// `FileNotActive`, and what `is_active` fails with.
pub fn check_removes(
    index: &CommitIndex,
    mut is_active: impl FnMut(&FileKey) -> Result<bool>,
) -> Result<(), Refusal> {
    let mut gone = BTreeSet::new();
    for remove in &index.removes {
        let key = remove.key();
        if !is_active(&key)? || gone.contains(&key) {
            return Err(Rejection::FileNotActive { path: key.path, dv_id: key.dv_id }.into());
        }
        gone.insert(key);
    }
    Ok(())
}

/// A version of a table, before its rows are written.
#[derive(Debug, Clone)]
pub struct NewVersion<'c> {
    /// Version.
    pub version: Version,
    /// Commit timestamp.
    pub timestamp: TimestampMs,
    /// Token of the batch, and the table's place in it.
    pub token: Option<(CommitToken, u32)>,
    /// Bytes.
    pub body: &'c CommitBody,
    /// Rows.
    pub index: &'c CommitIndex,
}

impl<'c> From<&'c ImportedCommit> for NewVersion<'c> {
    fn from(commit: &'c ImportedCommit) -> Self {
        NewVersion {
            version: commit.version,
            timestamp: commit.timestamp,
            token: commit.token.clone(),
            body: &commit.body,
            index: &commit.index,
        }
    }
}

impl NewVersion<'_> {
    /// The version's line of history from what the commit itself says, without totals.
    #[must_use]
    pub fn line(&self, table_id: TableId) -> CommitRecord {
        // The first line has the timestamp of the commit filled in; the index was made before it was known.
        let written = self.body.first_line.as_deref().and_then(commit_info_object);
        let (adds, removes) = (&self.index.adds, &self.index.removes);
        let removed = removes.iter().map(|remove| i128::from(remove.size.unwrap_or(0)));
        let (token, batch_position) = self.token.clone().unzip();
        CommitRecord {
            table_id,
            version: self.version,
            timestamp: self.timestamp,
            token,
            batch_position,
            commit_info: written.map(str::to_owned).or_else(|| self.index.commit_info.clone()),
            num_added: adds.len() as u64,
            num_removed: removes.len() as u64,
            bytes_added: reported(adds.iter().map(|add| i128::from(add.size)).sum()),
            bytes_removed: reported(removed.sum()),
            changes_metadata: self.index.metadata.is_some(),
            changes_protocol: self.index.protocol.is_some(),
            total_files: 0,
            total_bytes: 0,
            has_body: true,
        }
    }
}

impl From<&CommitRecord> for CommittedTable {
    fn from(line: &CommitRecord) -> Self {
        CommittedTable { table_id: line.table_id, version: line.version, timestamp: line.timestamp }
    }
}
