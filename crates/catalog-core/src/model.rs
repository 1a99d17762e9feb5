//! What a catalog holds, as values.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::action::{Add, DomainMetadata, Metadata, Protocol, Remove, Txn};
use crate::error::{CatalogError, Result};
use crate::ids::{CommitToken, TableId, TableName, TimestampMs, Version};

/// Where a table is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableState {
    /// Readable and writable.
    Active,
    /// An import is filling it: its name is taken, it cannot be read or written yet.
    Importing,
    /// Dropped: its name is free again, its rows are kept for undrop.
    Dropped,
}

impl TableState {
    /// Text stored in databases.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TableState::Active => "active",
            TableState::Importing => "importing",
            TableState::Dropped => "dropped",
        }
    }

    /// Inverse of [`TableState::as_str`].
    ///
    /// # Errors
    /// `Corrupt` for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "active" => Ok(TableState::Active),
            "importing" => Ok(TableState::Importing),
            "dropped" => Ok(TableState::Dropped),
            other => Err(CatalogError::corrupt(format!("unknown table state '{other}'"))),
        }
    }
}

/// Whether and how a table is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorMode {
    /// Each commit is published.
    Active,
    /// A foreign commit stands in the log: publishing has stopped until someone decides.
    Diverged,
    /// Commits are recorded but not published (`--no-mirror`).
    Off,
}

impl MirrorMode {
    /// Text stored in databases.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            MirrorMode::Active => "active",
            MirrorMode::Diverged => "diverged",
            MirrorMode::Off => "off",
        }
    }

    /// Inverse of [`MirrorMode::as_str`].
    ///
    /// # Errors
    /// `Corrupt` for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "active" => Ok(MirrorMode::Active),
            "diverged" => Ok(MirrorMode::Diverged),
            "off" => Ok(MirrorMode::Off),
            other => Err(CatalogError::corrupt(format!("unknown mirror mode '{other}'"))),
        }
    }
}

/// A table to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTable {
    /// Chosen by the caller (random), so that a retry names the same table.
    pub id: TableId,
    /// Must be free.
    pub name: TableName,
    /// URL of the table root (the folder above `_delta_log/`), without a trailing slash.
    pub location: String,
    /// Options of the object store; secrets only by reference.
    pub storage_options: BTreeMap<String, String>,
    /// `Active` or `Off`.
    pub mirror: MirrorMode,
}

/// The row of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Catalog's id.
    pub id: TableId,
    /// Current name (of a dropped table: the name it had).
    pub name: TableName,
    /// URL of the table root.
    pub location: String,
    /// Options of the object store.
    pub storage_options: BTreeMap<String, String>,
    /// Life cycle.
    pub state: TableState,
    /// When it was registered.
    pub created_at: TimestampMs,
    /// When it was dropped.
    pub dropped_at: Option<TimestampMs>,
    /// Latest ratified version; none while an import has not begun to fill it.
    pub head: Option<Version>,
    /// Commit timestamp of the head.
    pub head_timestamp: Option<TimestampMs>,
    /// First version whose state is known: 0, or the checkpoint that an import started from.
    pub base_version: Version,
    /// Last version that changed metadata or protocol: a blind append whose base is older conflicts.
    pub barrier_version: Version,
    /// Publishing.
    pub mirror: MirrorMode,
    /// Last version known to be in `_delta_log/`; all before it are there too.
    pub published_version: Option<Version>,
}

/// A table at one version: everything that opening it needs, in one query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// The table's row, as of now.
    pub table: TableRecord,
    /// Version of this snapshot.
    pub version: Version,
    /// Its commit timestamp.
    pub timestamp: TimestampMs,
    /// Protocol in force.
    pub protocol: Protocol,
    /// Version that set it.
    pub protocol_version: Version,
    /// Metadata in force.
    pub metadata: Metadata,
    /// Version that set it.
    pub metadata_version: Version,
    /// Number of files.
    pub num_files: u64,
    /// Sum of their sizes, bytes.
    pub size_bytes: u64,
}

/// Position in a table's file list: files are listed by (`added_version`, `ordinal`), both immutable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileCursor {
    /// Version that added the file.
    pub added_version: Version,
    /// Position among the adds of that commit (or among the files of an import's base).
    pub ordinal: i64,
}

/// A file of a table, from `added_version` on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileRecord {
    /// Position.
    #[serde(flatten)]
    pub cursor: FileCursor,
    /// The action.
    pub add: Add,
}

/// A removed file that checkpoints must still carry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TombstoneRecord {
    /// Position of the file's row.
    #[serde(flatten)]
    pub cursor: FileCursor,
    /// Version that removed it.
    pub removed_version: Version,
    /// The action.
    pub remove: Remove,
}

/// A commit without its bytes: a line of history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Table.
    pub table_id: TableId,
    /// Version.
    pub version: Version,
    /// Commit timestamp: strictly growing from version to version.
    pub timestamp: TimestampMs,
    /// Token of the batch; none for imported commits.
    pub token: Option<CommitToken>,
    /// The table's place in the batch of that token.
    #[serde(skip)]
    pub batch_position: Option<u32>,
    /// The object inside `commitInfo`, as written (in-commit timestamp filled in).
    pub commit_info: Option<String>,
    /// Files added.
    pub num_added: u64,
    /// Files removed.
    pub num_removed: u64,
    /// Bytes added.
    pub bytes_added: u64,
    /// Bytes removed, as far as known.
    pub bytes_removed: u64,
    /// Whether it sets metadata.
    pub changes_metadata: bool,
    /// Whether it sets the protocol.
    pub changes_protocol: bool,
    /// Files in the table after it. 0 for commits below the base.
    pub total_files: u64,
    /// Bytes in the table after it. 0 for commits below the base.
    pub total_bytes: u64,
    /// Whether the commit's bytes are stored (the base of an import may lack its JSON).
    pub has_body: bool,
}

/// A page of a list, and where the next one starts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page<T, C> {
    /// Items, in order.
    pub items: Vec<T>,
    /// Pass as `after` for the next page; none at the end.
    pub next: Option<C>,
}

/// The skipping index of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkipIndex {
    /// Grows with each change of the segments; 0 = there never was one.
    pub generation: i64,
    /// In the order of what they cover.
    pub segments: Vec<SkipSegment>,
    /// No file that is in the table at this version, or was at an earlier one, comes after the last segment.
    /// None: there may be one.
    pub complete_to: Option<Version>,
}

/// A segment of a skipping index. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkipSegment {
    /// Unique in its table, for all time: the generation that it was written in.
    pub id: i64,
    /// It covers the files after this cursor; none = from the first one.
    pub after: Option<FileCursor>,
    /// Up to and with this one.
    pub through: FileCursor,
    /// The version whose files it holds.
    pub version: Version,
    /// Number of files in it.
    pub files: i64,
    /// What its pages hold.
    pub root: Bytes,
}

/// A segment to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSkipSegment {
    /// As in [`SkipSegment::after`].
    pub after: Option<FileCursor>,
    /// As in [`SkipSegment::through`].
    pub through: FileCursor,
    /// As in [`SkipSegment::version`].
    pub version: Version,
    /// As in [`SkipSegment::files`].
    pub files: i64,
    /// As in [`SkipSegment::root`].
    pub root: Bytes,
    /// Pages, numbered from 0.
    pub pages: Vec<Bytes>,
}

/// A page of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SkipPage {
    /// [`SkipSegment::id`].
    pub segment: i64,
    /// Its number.
    pub page: u32,
}

/// State of one version in the outbox (`dl_mirror_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MirrorState {
    /// Waits for a worker.
    Pending,
    /// A worker holds the table's lease and is at it.
    InFlight,
    /// In `_delta_log/`.
    Complete,
    /// The last attempt failed; it is retried at `retry_at` unless the table diverged.
    Failed,
}

impl MirrorState {
    /// Text stored in databases.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            MirrorState::Pending => "PENDING",
            MirrorState::InFlight => "IN_FLIGHT",
            MirrorState::Complete => "COMPLETE",
            MirrorState::Failed => "FAILED",
        }
    }

    /// Inverse of [`MirrorState::as_str`].
    ///
    /// # Errors
    /// `Corrupt` for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "PENDING" => Ok(MirrorState::Pending),
            "IN_FLIGHT" => Ok(MirrorState::InFlight),
            "COMPLETE" => Ok(MirrorState::Complete),
            "FAILED" => Ok(MirrorState::Failed),
            other => Err(CatalogError::corrupt(format!("unknown mirror state '{other}'"))),
        }
    }
}

/// One row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRow {
    /// Table.
    pub table_id: TableId,
    /// Version.
    pub version: Version,
    /// State.
    pub state: MirrorState,
    /// Attempts so far.
    pub attempts: u32,
    /// Text of the last failure.
    pub last_error: Option<String>,
    /// When it may be tried next.
    pub retry_at: Option<TimestampMs>,
    /// SHA-256 of the published bytes, hex, once complete.
    pub digest: Option<String>,
    /// When it was committed (enqueued).
    pub enqueued_at: TimestampMs,
    /// When it was published.
    pub published_at: Option<TimestampMs>,
}

/// The state of a table below which nothing is known: what an import read from a checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BaseChunk {
    /// Files, in the importer's order; `ordinal` continues over chunks.
    pub files: Vec<Add>,
    /// Tombstones.
    pub tombstones: Vec<Remove>,
}

/// The small rest of a base, written with its last chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseTail {
    /// Protocol at the base.
    pub protocol: Protocol,
    /// Metadata at the base.
    pub metadata: Metadata,
    /// Application transactions at the base.
    pub txns: Vec<Txn>,
    /// Domain metadata at the base (not removed).
    pub domain_metadata: Vec<DomainMetadata>,
    /// Commit timestamp of the base version.
    pub timestamp: TimestampMs,
}
