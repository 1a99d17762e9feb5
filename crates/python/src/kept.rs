//! Values that belong to the process that made them.

use crate::failure::{FORKED, Failure, Result};

/// A value with the process that it is of. In a forked child it is neither used nor dropped: it may have sockets,
/// threads and locks that the parent works with.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    process: u32,
    value: Option<T>,
}

impl<T> Kept<T> {
    pub(crate) fn new(value: T) -> Kept<T> {
        Kept { process: std::process::id(), value: Some(value) }
    }

    /// Whether it is of this process.
    pub(crate) fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// The value.
    pub(crate) fn get(&self) -> Result<&T> {
        match &self.value {
            Some(value) if self.is_here() => Ok(value),
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
