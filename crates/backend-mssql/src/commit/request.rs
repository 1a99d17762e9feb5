//! The tables of a request, and the order in which their rows are locked.

use deltalakedb_catalog_core::backend::{CommitRequest, CommitTarget, TableCommit};
use deltalakedb_catalog_core::ids::{TableId, TableName};

/// The id of the table that a part of a commit is for.
pub(crate) fn table_of(part: &TableCommit) -> TableId {
    match &part.target {
        CommitTarget::Create(new) => new.id,
        CommitTarget::Existing { table_id, .. } => *table_id,
    }
}

/// Positions in a request, in the order of the tables' ids.
pub(crate) fn lock_order(request: &CommitRequest) -> Vec<usize> {
    let mut order: Vec<usize> = (0..request.tables.len()).collect();
    order.sort_by_key(|index| request.tables.get(*index).map(table_of));
    order
}

/// The name of a table that a request creates, if an earlier table of the request takes it too.
pub(crate) fn takes_name_twice(request: &CommitRequest, index: usize) -> Option<&TableName> {
    let name = |part: &'_ TableCommit| match &part.target {
        CommitTarget::Create(new) => Some(new.name.clone()),
        CommitTarget::Existing { .. } => None,
    };
    let part = request.tables.get(index)?;
    let CommitTarget::Create(new) = &part.target else { return None };
    let earlier = request.tables.iter().take(index);
    earlier.filter_map(name).any(|other| other == new.name).then_some(&new.name)
}
