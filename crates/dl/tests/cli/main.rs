//! The real binary, command by command, in folders of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests: clippy only knows the functions that are marked as such"
)]

mod altering;
mod auditing;
mod backing;
mod bad_input;
mod catalogs;
mod checking;
mod claims;
mod commits;
mod configuring;
mod copying;
mod databases;
mod diffing;
mod doctor;
mod failover;
#[cfg(feature = "sql")]
mod fitting;
mod freezing;
mod importing;
mod interruptions;
#[cfg(feature = "sql")]
mod literals;
mod maintaining;
mod mirroring;
#[cfg(unix)]
mod moments;
mod operator;
mod ownership;
#[cfg(feature = "sql")]
mod partitions;
mod prometheus;
mod quickstart;
mod reading;
#[cfg(feature = "sql")]
mod rows;
#[cfg(all(unix, feature = "serve"))]
mod serving;
mod spellings;
mod traces;
mod transcript;
mod vacuuming;
mod watching;
mod world;
