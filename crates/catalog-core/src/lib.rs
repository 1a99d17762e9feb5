//! Model, commit planning, conflict rules and the backend contract of deltalakedb.
//!
//! No SQL, no network, no clock and no random source of its own: they are handed in.
#![forbid(unsafe_code)]

pub mod action;
pub mod backend;
pub mod canonical;
pub mod catalog;
pub mod commit;
pub mod conflict;
pub mod env;
pub mod error;
pub mod fault;
pub mod features;
pub mod fence;
mod fields;
pub mod ids;
pub mod later;
pub mod lenient;
mod lists;
pub mod memory;
pub mod model;
mod nullable_map;
mod pages;
pub mod paths;
pub mod plan;
pub mod predicate;
pub mod retry;
pub mod schema;
pub mod secrets;
pub mod signature;
pub mod sink;
pub mod skew;
pub mod skip;
pub mod support;
