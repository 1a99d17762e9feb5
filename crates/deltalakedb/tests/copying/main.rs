//! Copies of catalogs: everything that can be read is the same at the target, after a copy in one
//! go and after one that broke off anywhere.
#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests: clippy only knows the functions that are marked as such"
)]

mod backups;
mod history;
mod interruptions;
mod random;
mod refusals;
mod same;
mod world;
