//! The row of one table, with when it was asked for.

use std::sync::{Arc, Mutex, PoisonError};

use deltalakedb_catalog_core::model::TableRecord;
use tokio::time::Instant;

/// The row of an active table.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) record: Arc<TableRecord>,
    /// Moves on while the database gives the same row: most answers cost no new entry.
    pub(crate) asked: Arc<Mutex<Asked>>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Before the question was sent.
    pub(crate) at: Instant,
    /// How much of the staleness allowed it lasts, thousandths.
    pub(crate) lasts: u32,
}

impl Head {
    pub(crate) fn asked(&self) -> Asked {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
