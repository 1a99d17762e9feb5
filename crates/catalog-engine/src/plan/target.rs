//! What a commit is planned for.

use deltalakedb_catalog_core::action::{Metadata, Protocol};
use deltalakedb_catalog_core::ids::{TimestampMs, Version};

/// The table that a commit is planned on.
#[derive(Debug, Clone, Copy)]
pub struct PlanBase<'a> {
    /// Protocol in force.
    pub protocol: &'a Protocol,
    /// Metadata in force.
    pub metadata: &'a Metadata,
    /// Version that the commit gets if nothing comes between.
    pub next_version: Version,
    /// Commit timestamp that it gets then.
    pub next_timestamp: TimestampMs,
    /// Whether the commit may take the fence away.
    pub lowers_fence: bool,
    /// Whether the commit freezes or unfreezes the table (see [`crate::freeze`]).
    pub switches_freeze: bool,
}

/// What a commit is planned for.
#[derive(Debug, Clone, Copy)]
pub enum PlanTarget<'a> {
    /// Version 0 of a new table.
    New {
        /// Whether foreign writers are kept out (see [`crate::fence`]).
        fence: bool,
    },
    /// The next version of a table.
    On(PlanBase<'a>),
}
