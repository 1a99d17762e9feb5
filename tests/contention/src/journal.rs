//! What a worker tells through its pipe, one JSON object a line: every attempt before it is sent,
//! every answer, and what it cost.

use std::collections::BTreeMap;
use std::io::Write;

use deltalakedb_catalog_core::backend::CommittedTable;
use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::TableId;
use deltalakedb_catalog_engine::conflict::ConflictKind;
use serde::{Deserialize, Serialize};

pub use crate::retries::Retries;

/// What a commit does to the files of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Paths that it adds, in order.
    pub adds: Vec<String>,
    /// Paths that it removes, in order.
    pub removes: Vec<String>,
}

/// A version that was answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Written {
    /// Table.
    pub table_id: TableId,
    /// Version.
    pub version: i64,
    /// Commit timestamp, milliseconds.
    pub timestamp: i64,
}

impl From<&CommittedTable> for Written {
    fn from(table: &CommittedTable) -> Self {
        Written {
            table_id: table.table_id,
            version: table.version.get(),
            timestamp: table.timestamp.0,
        }
    }
}

/// Why an attempt failed, as far as the tests tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// A logical conflict: the caller's turn.
    Conflict,
    /// The table is dropped.
    NoTable,
    /// A race that the core did not win within its bound.
    GaveUp,
    /// The database was not there or busy, and nothing was written.
    Unavailable,
    /// It is not known whether it was written.
    Unknown,
    /// Anything else: a defect.
    Other,
}

impl Failure {
    /// Sorts an error.
    pub fn of(error: &CatalogError) -> Failure {
        match error {
            _ if error.write_state() == WriteState::Unknown => Failure::Unknown,
            CatalogError::Conflict(conflict) => match conflict.kind {
                ConflictKind::TooManyAttempts { .. } => Failure::GaveUp,
                _ => Failure::Conflict,
            },
            CatalogError::TableNotFound(_) => Failure::NoTable,
            CatalogError::Unavailable { .. } => Failure::Unavailable,
            _ => Failure::Other,
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Connected; waits for the word to go.
    Ready,
    /// Is about to commit.
    Try {
        /// Token of the batch.
        token: String,
        /// What it does, by table.
        changes: BTreeMap<TableId, FileChange>,
    },
    /// The commit with this token was acknowledged.
    Committed {
        /// Token of the batch.
        token: String,
        /// Attempts of the core.
        attempts: u32,
        /// How long the call took, microseconds.
        us: u64,
        /// What was answered.
        tables: Vec<Written>,
    },
    /// The commit with this token ended in an error.
    Failed {
        /// Token of the batch.
        token: String,
        /// Which kind.
        failure: Failure,
        /// Its text.
        text: String,
    },
    /// A table was dropped (true) or brought back (false).
    Dropped(bool),
    /// A drop or undrop was refused or failed.
    NotDropped {
        /// Which kind.
        failure: Failure,
        /// Its text.
        text: String,
    },
    /// Everything was sent.
    Done {
        /// From the word to go until now, microseconds.
        us: u64,
        /// What the core absorbed.
        retries: Retries,
    },
}

/// Writes a line to the pipe.
///
/// # Errors
/// If nobody reads it.
pub fn say(line: &Line) -> anyhow::Result<()> {
    let text = serde_json::to_string(line)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}
