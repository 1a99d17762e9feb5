//! Heads that were read for an earlier commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use deltalakedb_catalog_core::ids::{TableId, TimestampMs};
use deltalakedb_catalog_core::model::Snapshot;

/// Heads on which appends were planned, by table.
///
/// An append that reads nothing may go on top of any head: what it is planned on only has to have the
/// protocol and metadata that are in force, and the database refuses it if these have changed since
/// ([`HeadRule::Append`](deltalakedb_catalog_core::backend::HeadRule::Append)). So the head that was read for an earlier one will do, and where tasks append
/// to one table all the time nobody has to read it. Only for tables that are named by their id: what a
/// name stands for must be looked up. Not for long: nothing tells this process that a table was given
/// another name, which its commits carry ([`crate::signature`]).
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<HashMap<TableId, (TimestampMs, Arc<Snapshot>)>>);

impl Heads {
    /// Tables that are remembered; beyond, all are forgotten.
    const MOST: usize = 256;

    /// How long they are remembered, milliseconds.
    const MOST_MS: i64 = 60_000;

    pub(super) fn get(&self, table: TableId, now: TimestampMs) -> Option<Arc<Snapshot>> {
        let heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, head) = heads.get(&table)?;
        let age_ms = now.0.saturating_sub(read.0);
        (0..Self::MOST_MS).contains(&age_ms).then(|| Arc::clone(head))
    }

    pub(super) fn keep(&self, head: &Snapshot, now: TimestampMs) {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.len() >= Self::MOST {
            heads.clear();
        }
        heads.insert(head.table.id, (now, Arc::new(head.clone())));
    }

    pub(super) fn forget(&self, table: TableId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&table);
    }
}
