//! From rows to the model: how MySQL's columns are read. What the columns mean is the same for all databases.

use deltalakedb_catalog_core::ids::TableId;
pub(crate) use deltalakedb_catalog_core::support::TABLE_COLUMNS;
use deltalakedb_catalog_core::support::{self, RowFormat};
pub(crate) use deltalakedb_sqlx_shared::{
    commit_columns, file_columns, mirror_columns, table_columns, table_source,
};
use sqlx::mysql::MySqlRow;
use sqlx::{Column, Row};
use uuid::Uuid;

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
