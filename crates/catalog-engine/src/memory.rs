//! The contract of [`deltalakedb_catalog_core::backend`] in memory: the reference that the databases are compared with.
//!
//! One mutex over plain maps, so every call is atomic and serial by construction; a call validates
//! everything before it changes anything. Nothing survives the process. It is written to be read:
//! where a clause of the contract is in doubt, this code says what it means.

mod audit;
mod commit;
mod contract;
mod import;
mod outbox;
mod reads;
mod registry;
mod skip;
mod state;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;
use state::State;

/// Version of the layout of the maps: it is what this program writes by definition.
const SCHEMA_VERSION: u32 = 1;

/// A catalog that lives in this value. Share it in an `Arc`; several holders are several handles
/// on one database.
#[derive(Default)]
pub struct MemoryBackend {
    state: Mutex<State>,
    clock: Mutex<Option<TimestampMs>>,
    closed: AtomicBool,
}

impl MemoryBackend {
    /// An empty catalog. It needs no `migrate`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What time it is from now on where the database runs; none, as at first: it has no clock of its own.
    pub fn set_clock(&self, time: Option<TimestampMs>) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// Another catalog, with the same content and clock. Changes of one are not seen in the other.
    #[must_use]
    pub fn fork(&self) -> Self {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        MemoryBackend {
            state: Mutex::new(self.state().clone()),
            clock: Mutex::new(clock),
            closed: AtomicBool::new(false),
        }
    }

    /// The state, for a call; none is begun after `close`.
    fn open(&self) -> Result<MutexGuard<'_, State>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(CatalogError::closed("memory"));
        }
        Ok(self.state())
    }

    /// The state; a thread that panicked while it held the lock had changed nothing halfway, as
    /// calls validate first.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").finish_non_exhaustive()
    }
}
