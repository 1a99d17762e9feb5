//! The engine of deltalakedb: what stands on the model and the contract of `deltalakedb-catalog-core`, and
//! holds for every database.
//!
//! The [`catalog`], planning and checking commits, conflict rules, the fence, schemas and predicates, the
//! skipping index, lists, retries, the memory backend and wrappers that inject faults. No SQL, no network, no
//! clock and no random source of its own: they are handed in.
#![forbid(unsafe_code)]

pub mod alter;
pub mod canonical;
pub mod catalog;
pub mod conflict;
pub mod env;
pub mod fault;
pub mod features;
pub mod fence;
pub mod freeze;
mod lists;
pub mod measure;
pub mod memory;
pub mod pages;
pub mod plan;
pub mod predicate;
pub mod retry;
pub mod schema;
pub mod signature;
pub mod skew;
pub mod skip;
pub mod spans;
