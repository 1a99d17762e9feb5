//! From rows to the model: how PostgreSQL's columns are read. What the columns mean is the same for all
//! databases.

use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::ids::TableId;
use deltalakedb_catalog_core::model::{CommitRecord, FileRecord, MirrorRow, TableRecord};
use deltalakedb_catalog_core::support::{self, RowFormat};
pub(crate) use deltalakedb_catalog_core::support::{TABLE_COLUMNS, attempts};
pub(crate) use deltalakedb_sqlx_shared::{
    commit_columns, file_columns, table_columns, table_source,
};
use serde::Serialize;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef,
};
use sqlx::{Column, Decode, Encode, Postgres, Row, Type};
use uuid::Uuid;

use crate::errors::DbResult;

/// The key of the table whose id is the first parameter. Keys are looked up in each statement and never kept:
/// of another catalog under the same name the key is another table's. A table that does not exist has none.
macro_rules! key {
    () => {
        "(SELECT table_key FROM {p}tables WHERE id = $1)"
    };
}
pub(crate) use key;

/// Columns of `mirror_row`, but for the table's id, which stands before them.
macro_rules! mirror_columns {
    () => {
        "s.version, s.state, s.attempts, s.last_error, s.retry_at_ms, s.digest, s.enqueued_at_ms, \
         s.published_at_ms"
    };
}
pub(crate) use mirror_columns;

/// A `uuid`. The driver's own support for them is a feature that brings a second SQLite into the
/// workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) Uuid);

/// `uuid` and `uuid[]` in `pg_type`; these numbers never change.
const UUID: PgTypeInfo = PgTypeInfo::with_oid(Oid(2950));
const UUID_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(2951));

impl Type<Postgres> for Id {
    fn type_info() -> PgTypeInfo {
        UUID
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        ty.oid() == Some(Oid(2950))
    }
}

impl PgHasArrayType for Id {
    fn array_type_info() -> PgTypeInfo {
        UUID_ARRAY
    }
}

impl Encode<'_, Postgres> for Id {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Id {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Id(match value.format() {
            PgValueFormat::Binary => Uuid::from_slice(value.as_bytes()?)?,
            PgValueFormat::Text => Uuid::parse_str(value.as_str()?)?,
        }))
    }
}

impl From<TableId> for Id {
    fn from(id: TableId) -> Self {
        Id(id.0)
    }
}

/// How PostgreSQL's columns are read.
#[derive(Debug)]
pub(crate) struct PgFormat;

/// Reads the columns of a row.
pub(crate) type Reader<'r> = support::Reader<'r, PgFormat>;

impl RowFormat for PgFormat {
    type Row = PgRow;
    type Error = sqlx::Error;

    fn name(row: &PgRow, column: usize) -> Option<&str> {
        row.columns().get(column).map(Column::name)
    }

    fn int(row: &PgRow, column: usize) -> sqlx::Result<Option<i64>> {
        row.try_get(column)
    }

    fn flag(row: &PgRow, column: usize) -> sqlx::Result<Option<bool>> {
        row.try_get(column)
    }

    fn text(row: &PgRow, column: usize) -> sqlx::Result<Option<&str>> {
        row.try_get(column)
    }

    fn bytes(row: &PgRow, column: usize) -> sqlx::Result<Option<&[u8]>> {
        row.try_get(column)
    }

    fn table_id(row: &PgRow, column: usize) -> sqlx::Result<Option<TableId>> {
        Ok(row.try_get::<Option<Id>, _>(column)?.map(|id| TableId(id.0)))
    }
}

/// The error of stored data.
pub(crate) fn corrupt(
    table: impl std::fmt::Display,
    version: Option<i64>,
    what: &str,
    error: impl std::fmt::Display,
) -> crate::errors::DbError {
    support::corrupt(table, version, what, error).into()
}

/// The JSON of a value.
pub(crate) fn to_json<T: Serialize>(value: &T) -> DbResult<String> {
    Ok(support::to_json(value)?)
}

/// A table from `table_columns!`.
pub(crate) fn table_record(row: &PgRow) -> DbResult<TableRecord> {
    Ok(support::table_record::<PgFormat>(row)?)
}

/// A file from `file_columns!`.
pub(crate) fn file_record(row: &PgRow, table: &str) -> DbResult<FileRecord> {
    Ok(support::file_record::<PgFormat>(row, table)?)
}

/// A line of history from `commit_columns!`.
pub(crate) fn commit_record(row: &PgRow, id: TableId, table: &str) -> DbResult<CommitRecord> {
    Ok(support::commit_record::<PgFormat>(row, id, table)?)
}

/// The bytes of a commit from `commit_columns!` and its chunks.
pub(crate) fn commit_body(row: &PgRow, table: &str, zstd: Vec<u8>) -> DbResult<CommitBody> {
    Ok(support::commit_body::<PgFormat>(row, table, zstd)?)
}

/// A row of the outbox from `mirror_columns!`.
pub(crate) fn mirror_row(row: &PgRow) -> DbResult<MirrorRow> {
    Ok(support::mirror_row::<PgFormat>(row)?)
}
