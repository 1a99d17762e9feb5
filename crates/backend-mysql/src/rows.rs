//! From rows to the model: how MySQL's columns are read. What the columns mean is the same for all databases.

use deltalakedb_catalog_core::ids::TableId;
pub(crate) use deltalakedb_catalog_core::support::TABLE_COLUMNS;
use deltalakedb_catalog_core::support::{self, RowFormat};
pub(crate) use deltalakedb_sqlx_shared::{
    commit_columns, file_columns, table_columns, table_source,
};
use sqlx::mysql::MySqlRow;
use sqlx::{Column, Row};
use uuid::Uuid;

use crate::session::literals::Value;

/// Columns of [`mirror_row`](support::mirror_row), of a table `t` and its rows `s` of the outbox.
macro_rules! mirror_columns {
    () => {
        "t.id, s.version, s.state, s.attempts, s.last_error, s.retry_at_ms, s.digest, \
         s.enqueued_at_ms, s.published_at_ms"
    };
}
pub(crate) use mirror_columns;

/// What the rows of a table go by, inside of one transaction. No key outlives it: a database may be restored
/// under a running program, and the key would be another table's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableKey {
    /// As this transaction has read it.
    Is(i64),
    /// That of the row of `{p}tables` which this transaction has inserted last.
    Inserted,
}

impl From<TableKey> for Value<'_> {
    fn from(key: TableKey) -> Self {
        match key {
            TableKey::Is(number) => Value::Int(number),
            TableKey::Inserted => Value::Inserted,
        }
    }
}

/// A table in a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) id: TableId,
    pub(crate) key: TableKey,
}

/// How MySQL's columns are read.
#[derive(Debug)]
pub(crate) struct MySqlFormat;

/// Reads the columns of a row.
pub(crate) type Reader<'r> = support::Reader<'r, MySqlFormat>;

impl RowFormat for MySqlFormat {
    type Row = MySqlRow;
    type Error = sqlx::Error;

    fn name(row: &MySqlRow, column: usize) -> Option<&str> {
        row.columns().get(column).map(Column::name)
    }

    fn int(row: &MySqlRow, column: usize) -> sqlx::Result<Option<i64>> {
        row.try_get(column)
    }

    fn flag(row: &MySqlRow, column: usize) -> sqlx::Result<Option<bool>> {
        row.try_get(column)
    }

    fn text(row: &MySqlRow, column: usize) -> sqlx::Result<Option<&str>> {
        row.try_get(column)
    }

    fn bytes(row: &MySqlRow, column: usize) -> sqlx::Result<Option<&[u8]>> {
        row.try_get(column)
    }

    fn table_id(row: &MySqlRow, column: usize) -> sqlx::Result<Option<TableId>> {
        let id: Option<&[u8]> = row.try_get(column)?;
        let id = id.map(Uuid::from_slice).transpose();
        Ok(id.map_err(|error| sqlx::Error::Decode(error.into()))?.map(TableId))
    }
}
