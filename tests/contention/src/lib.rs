//! Writers of many processes against one catalog: nothing is lost, whatever happens to the server.
//!
//! [`run::run`] creates tables, starts worker processes (the `contention` program again) that
//! commit at the same time, may kill or pause the server in the middle, and then compares what the
//! workers were told with what the catalog holds ([`check::check`]). Workers tell through a pipe
//! what they are about to send and what was answered ([`journal`]).
#![forbid(unsafe_code)]

pub mod check;
pub mod claims;
pub mod database;
pub mod journal;
pub mod report;
pub mod run;
pub mod scenario;
pub mod worker;

mod crew;
mod replay;
mod retries;
mod rng;
mod system;
