//! The real binary, command by command, in folders of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests: clippy only knows the functions that are marked as such"
)]

mod bad_input;
mod catalogs;
mod commits;
mod copying;
mod databases;
mod diffing;
mod importing;
mod interruptions;
#[cfg(feature = "sql")]
mod literals;
mod mirroring;
mod ownership;
mod quickstart;
mod reading;
#[cfg(feature = "sql")]
mod rows;
mod transcript;
mod vacuuming;
mod world;
