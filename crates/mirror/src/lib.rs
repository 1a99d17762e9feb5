//! Publishes, imports, diffs and repairs `_delta_log/`.
#![forbid(unsafe_code)]

pub mod log;
pub mod sink;
pub mod store;
