//! The part about tables: their rows, names and states.

use async_trait::async_trait;

use crate::audit::Act;
use crate::error::{ReadResult, WriteResult};
use crate::ids::{TableId, TableName, TableRef};
use crate::model::{Page, TableRecord, TableState};

/// Which tables to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableFilter {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only this state; none = active ones.
    pub state: Option<TableState>,
}

/// Finds, lists, drops and brings back tables.
#[async_trait]
pub trait TableBackend: Send + Sync {
    /// Told when this process has changed a table through another handle: the row that a view
    /// remembers is out of date.
    ///
    /// 1. A read after it, on this handle, sees the change, also where the view may lag.
    fn note_change(&self, table_id: TableId);

    /// The row of a table.
    ///
    /// 1. By name it is a live (active or importing) table, by id any; none if there is no such table.
    async fn get_table(&self, table: &TableRef) -> ReadResult<Option<TableRecord>>;

    /// Tables by (namespace, name, id), a page at a time.
    ///
    /// 1. `limit` is an upper bound; `next` is none exactly when nothing follows.
    /// 2. A namespace is matched exactly. By default the tables are the active ones.
    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> ReadResult<Page<TableRecord, (TableName, TableId)>>;

    /// Drops a table: `Active` to `Dropped`, its name becomes free, its rows stay.
    ///
    /// 1. A commit and a drop are serial: a commit after it is `Rejected(TableNotFound)`.
    /// 2. `TableNotFound` if it is not active.
    /// 3. A name can be used again and again; all of its dropped tables stay, and are read by id.
    /// 4. It and its row in the audit (`table.drop`) are one: a call that fails leaves none, and a call that is
    ///    repeated after a lost answer writes no second one.
    async fn drop_table(&self, table_id: TableId, act: &Act) -> WriteResult<TableRecord>;

    /// Brings a dropped table back, under its old or a new name.
    ///
    /// 1. `TableExists` if that name is taken; `TableNotFound` if it is not dropped.
    /// 2. The table has everything that it had, and takes commits.
    /// 3. It and its row in the audit (`table.undrop`, with the old name as `from` if it got another) are one.
    async fn undrop_table(
        &self,
        table_id: TableId,
        name: &TableName,
        act: &Act,
    ) -> WriteResult<TableRecord>;
}
