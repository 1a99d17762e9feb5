//! Values that belong to the process that made them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::{FORKED, Failure, Result};

/// How often this process has ended its threads, for a fork.
static ENDS: AtomicU64 = AtomicU64::new(0);

/// What needs threads that run now is of no use from now on.
pub(crate) fn threads_end() {
    ENDS.fetch_add(1, Ordering::SeqCst);
}

/// A value with the process that it is of. In a forked child it is neither used nor dropped: it may have sockets,
/// threads and locks that the parent works with.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    process: u32,
    ends: u64,
    value: Option<T>,
}

impl<T> Kept<T> {
    pub(crate) fn new(value: T) -> Kept<T> {
        Kept { process: std::process::id(), ends: ENDS.load(Ordering::SeqCst), value: Some(value) }
    }

    /// Whether it is of this process.
    pub(crate) fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// The value, whatever became of its threads.
    pub(crate) fn here(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.is_here())
    }

    /// The value.
    pub(crate) fn get(&self) -> Result<&T> {
        match &self.value {
            Some(value) if self.is_here() && self.ends == ENDS.load(Ordering::SeqCst) => Ok(value),
            Some(_) if self.is_here() => Err(Failure::new(
                FORKED,
                "this process forked while this was open: open it again, or read the rows again",
            )),
            _ => Err(Failure::new(
                FORKED,
                "this was opened in the process that this one was forked from: open it again here",
            )),
        }
    }

    /// The value, to be dropped by the caller; none in another process.
    pub(crate) fn take(mut self) -> Option<T> {
        if self.is_here() { self.value.take() } else { None }
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if !self.is_here() {
            std::mem::forget(self.value.take());
        }
    }
}
