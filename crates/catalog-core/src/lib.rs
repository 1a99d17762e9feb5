//! The model of deltalakedb and the contract of its databases: what a backend is written against.
//!
//! Ids, Delta's actions and their reading, commits as bytes and as an index, errors, the contract
//! ([`backend`], [`sink`]) and what backends share ([`support`]). No SQL, no network, no clock and no random
//! source. What decides (planning, conflicts, retries) is in `deltalakedb-catalog-engine`.
#![forbid(unsafe_code)]

pub mod action;
pub mod audit;
pub mod backend;
pub mod commit;
pub mod conflict;
pub mod delegation;
pub mod diagnosis;
pub mod error;
pub mod fields;
pub mod frozen;
pub mod ids;
pub mod later;
pub mod lenient;
pub mod model;
mod nullable_map;
pub mod paths;
pub mod registry;
pub mod secrets;
pub mod sink;
pub mod support;
