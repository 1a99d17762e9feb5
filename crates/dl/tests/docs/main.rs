//! What the documentation says is run, and what it links to is there.
//!
//! The pages are README.md, CONTRIBUTING.md, ARCHITECTURE.md, those of `dev/` and all of `docs/src/`. Each page has
//! an empty folder; its blocks run there one after the other, as its reader would run them.
//! `docs/src/contributing/this-book.md` says which words behind the three backticks mean what.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests: clippy only knows the functions that are marked as such"
)]

mod cargo;
mod links;
mod markdown;
mod needs;
mod output;
mod pages;
mod session;
