//! What commits have found out about the server and its tables.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use deltalakedb_catalog_core::ids::TableId;

use crate::session::Session;

/// So many commits lock a contended table first. Then one commit looks whether it still waits for others.
const LOCKED_COMMITS: u32 = 64;
/// Most contended tables that are remembered.
const MOST_TABLES: usize = 10_000;

/// What commits have found out.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Tables at which commits of other processes were waited for lately, with how many commits still lock
    /// the table first.
    ///
    /// A statement that has waited for a row is evaluated anew for it, each part of it: that costs more
    /// than the wait, and the others wait for it in turn. With the row locked by a statement before, it is
    /// not; this takes three round trips more, none of which anybody else waits for but COMMIT.
    contended: Mutex<HashMap<TableId, u32>>,
    /// The function of `APPEND_FUNCTION` was not found.
    no_function: AtomicBool,
    /// Commits of this process.
    commits: AtomicI64,
}

impl Known {
    fn contended(&self) -> MutexGuard<'_, HashMap<TableId, u32>> {
        self.contended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit to this table has waited for another process.
    pub(super) fn note_contended(&self, table: TableId) {
        let mut tables = self.contended();
        if tables.len() >= MOST_TABLES {
            tables.clear();
        }
        tables.insert(table, LOCKED_COMMITS);
    }

    /// Whether the next commit to this table locks it first.
    pub(super) fn is_contended(&self, table: TableId) -> bool {
        self.contended().contains_key(&table)
    }

    /// Whether this commit to the table locks it first. It is one less then of those that do.
    pub(super) fn spend_contended(&self, table: TableId) -> bool {
        let mut tables = self.contended();
        let Some(left) = tables.get_mut(&table) else { return false };
        *left -= 1;
        if *left == 0 {
            tables.remove(&table);
        }
        true
    }

    pub(super) fn has_function(&self) -> bool {
        !self.no_function.load(Ordering::Relaxed)
    }

    pub(super) fn note_no_function(&self) {
        self.no_function.store(true, Ordering::Relaxed);
    }

    /// Tells the session how large its tables are: one with so many files has got this version, and the
    /// tables that all commits write to have got another row.
    pub(super) fn note_commit(&self, session: &Session, files: i64, version: i64) {
        let commits = self.commits.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        session.note_size(files.max(version).max(commits));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_contended_for_some_commits() {
        let (known, [table, other]) = (Known::default(), [1, 2].map(uuid::Uuid::from_u128));
        let (table, other) = (TableId(table), TableId(other));
        assert!(!known.spend_contended(table));
        known.note_contended(table);
        assert!(!known.spend_contended(other) && !known.is_contended(other));
        let times = (0..1_000).take_while(|_| known.spend_contended(table)).count();
        assert_eq!(times, LOCKED_COMMITS as usize);
        assert!(!known.spend_contended(table) && !known.is_contended(table));
    }
}
