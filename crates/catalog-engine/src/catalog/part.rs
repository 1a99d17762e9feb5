//! One table of a batch, from attempt to attempt.

use std::collections::BTreeSet;

use deltalakedb_catalog_core::backend::Rejection;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, Version};

use super::heads::Heads;
use super::{ChangeTarget, TableChange};
use crate::conflict::{Conflict, ConflictKind, Isolation};
use crate::plan::Plan;

/// One table of a batch on its way through the attempts.
pub(super) struct Part<'a> {
    pub(super) change: &'a TableChange,
    pub(super) label: String,
    /// Chosen once, so that attempts create the same table.
    pub(super) new_id: Option<TableId>,
    pub(super) table_id: Option<TableId>,
    pub(super) plan: Option<Plan>,
    pub(super) isolation: Isolation,
    pub(super) read_version: Option<Version>,
    /// Head up to which this commit is known not to conflict.
    pub(super) checked: Option<Version>,
    /// Why the commit has to wait: too much is not published yet.
    pub(super) pressure: Option<String>,
    /// Whether the plan stands on a head that was read for another commit.
    pub(super) on_remembered_head: bool,
    /// Whether such a plan failed before: then each head is read.
    pub(super) reads_heads: bool,
}

impl Part<'_> {
    /// Gives up a plan on a remembered head, and the head. False if the plan stands on a head that was read.
    pub(super) fn start_anew(&mut self, heads: &Heads) -> bool {
        if !self.on_remembered_head {
            return false;
        }
        if let Some(table) = self.table_id.take() {
            heads.forget(table);
        }
        self.plan = None;
        self.on_remembered_head = false;
        self.reads_heads = true;
        true
    }

    pub(super) fn conflict(
        &self,
        winning_version: Option<Version>,
        kind: ConflictKind,
    ) -> CatalogError {
        CatalogError::Conflict(Box::new(Conflict {
            table: self.label.clone(),
            read_version: self.read_version,
            winning_version,
            kind,
        }))
    }
}

/// Refuses a batch that names a table, or creates a name, twice.
///
/// # Errors
/// `InvalidInput` with the table.
pub(super) fn reject_duplicates(working: &[Part<'_>]) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut names = BTreeSet::new();
    for part in working {
        let fresh_name = match &part.change.target {
            ChangeTarget::Create { name, .. } => names.insert(name),
            ChangeTarget::Existing { .. }
            | ChangeTarget::Next { .. }
            | ChangeTarget::Fence { .. } => true,
        };
        if !fresh_name || part.table_id.is_some_and(|id| !seen.insert(id)) {
            return Err(CatalogError::invalid(format!(
                "table '{}' is in the batch twice: put its actions into one commit",
                part.label
            )));
        }
    }
    Ok(())
}

/// The error for a commit that the database rejected: in the words of its table.
pub(super) fn refused(part: Option<&Part<'_>>, reason: Rejection) -> CatalogError {
    let label = part.map_or("?", |p| p.label.as_str());
    match reason {
        // Who rebases by itself has read an older version, in which the file was.
        Rejection::FileNotActive { path, .. }
            if part.is_some_and(|p| matches!(p.change.target, ChangeTarget::Next { .. })) =>
        {
            let kind = ConflictKind::ConcurrentDeleteDelete { path };
            part.map_or_else(|| CatalogError::invalid(label), |p| p.conflict(None, kind))
        }
        Rejection::FileNotActive { path, dv_id } => CatalogError::invalid(format!(
            "{}: removes file '{path}'{}, which is not in table '{label}': a file is \
             removed by the path that it was added by, as it is written there. Nothing was written",
            part.map_or("commit", |p| p.change.origin.as_str()),
            if dv_id.is_empty() { String::new() } else { format!(" with deletion vector {dv_id}") },
        )),
        Rejection::NameTaken(name) => CatalogError::TableExists(name),
        Rejection::IdTaken(id) => {
            CatalogError::invalid(format!("table id {id} exists already: it must be random"))
        }
        Rejection::TableNotFound(_) => match part {
            Some(part) => part.conflict(None, ConflictKind::TableDropped),
            None => CatalogError::TableNotFound(label.to_owned()),
        },
    }
}
