//! What a restore did.

use deltalakedb_catalog_core::ids::{TableName, TimestampMs};
use serde::Serialize;

use super::set::SetId;
use crate::copy::TableCopy;

/// What is said of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Its name.
    pub name: TableName,
    /// Why.
    pub why: String,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// The set.
    pub set: SetId,
    /// Up to when commits are in it.
    pub up_to: TimestampMs,
    /// Whether every table is finished.
    pub finished: bool,
    /// Commits that this call stored.
    pub commits: u64,
    /// Tables, by name.
    pub tables: Vec<TableCopy>,
    /// Tables that were left out.
    pub left_out: Vec<Notice>,
    /// Tables that are not published until a person has decided.
    pub paused: Vec<Notice>,
    /// Tables that are not quite what they were.
    pub notes: Vec<Notice>,
}

impl RestoreReport {
    /// Whether no table differs from the backup.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.tables.iter().all(|table| table.num_differences == 0)
    }
}
