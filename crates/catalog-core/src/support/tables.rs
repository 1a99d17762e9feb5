//! Where a page of a list of tables starts.

use crate::backend::TableFilter;
use crate::ids::{TableId, TableName};
use crate::model::TableState;

/// The key after which a page of a list of tables starts.
///
/// Among dropped tables the marker is the id; among others it is empty and the name is unique. So
/// (namespace, name, marker) is the order of (namespace, name, id).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableListStart<'s> {
    /// Namespace.
    pub namespace: &'s str,
    /// Name.
    pub name: &'s str,
    /// `drop_marker`.
    pub marker: String,
}

/// Where the page after a table starts; none if the page is empty.
#[must_use]
pub fn table_list_start<'s>(
    filter: &'s TableFilter,
    after: Option<&'s (TableName, TableId)>,
) -> Option<TableListStart<'s>> {
    let marker = |id: &TableId| match filter.state {
        Some(TableState::Dropped) => id.to_string(),
        None | Some(TableState::Active | TableState::Importing) => String::new(),
    };
    let start = |namespace, name, marker| Some(TableListStart { namespace, name, marker });
    match (filter.namespace.as_deref(), after) {
        (None, None) => start("", "", String::new()),
        (None, Some((name, id))) => start(name.namespace(), name.name(), marker(id)),
        (Some(wanted), Some((name, id))) if name.namespace() == wanted => {
            start(wanted, name.name(), marker(id))
        }
        (Some(wanted), Some((name, _))) if name.namespace() > wanted => None,
        (Some(wanted), _) => start(wanted, "", String::new()),
    }
}
