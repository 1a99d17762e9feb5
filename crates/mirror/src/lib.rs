//! Publishes, imports, diffs and repairs `_delta_log/`.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod kernel;
pub mod log;
mod properties;
pub mod sink;
pub mod store;
