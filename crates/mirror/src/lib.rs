//! Publishes, imports, diffs and repairs `_delta_log/`.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod checksum;
pub mod diff;
pub mod export;
pub mod import;
pub mod kernel;
pub mod log;
pub mod ownership;
mod properties;
pub mod publish;
mod put;
pub mod sink;
pub mod store;
#[cfg(test)]
mod stores_tests;
#[cfg(test)]
mod testing;
