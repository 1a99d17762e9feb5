//! Publishes, imports, diffs and repairs `_delta_log/`.
#![forbid(unsafe_code)]

pub mod check;
pub mod checkpoint;
mod checksum;
pub mod cleanup;
pub mod diff;
pub mod export;
pub mod foreign;
pub mod import;
pub mod kernel;
pub mod log;
pub mod measure;
pub mod ownership;
mod properties;
pub mod publish;
mod put;
pub mod rebuild;
pub mod reconcile;
pub mod repair;
pub mod sink;
pub mod store;
#[cfg(test)]
mod stores_tests;
pub mod survey;
#[cfg(test)]
mod testing;
pub mod vacuum;
