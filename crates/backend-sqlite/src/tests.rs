//! Tests of what only this backend has. The contract itself is tested by the conformance suite.

mod audit;
mod files;
mod gaps;
mod groups;
mod old;
mod plans;
mod processes;
mod readers;
mod refusals;
mod registry;
mod support;
mod unavailable;
mod upgrade;
