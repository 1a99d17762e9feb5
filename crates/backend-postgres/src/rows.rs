//! Between rows and the model. What does not parse is `Corrupt`, with table and version.

use std::fmt::Display;

use bytes::Bytes;
use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_core::commit::{CommitBody, Packed, commit_info_object};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState, TableRecord,
    TableState,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef,
};
use sqlx::{Column, Decode, Encode, Postgres, Row, Type};
use uuid::Uuid;

use crate::errors::{DbError, DbResult};

/// Columns of [`table_record`], of `{p}tables t JOIN {p}mirror m`.
macro_rules! table_columns {
    () => {
        "t.id, t.namespace, t.name, t.location, t.storage_options, t.state, t.created_at_ms, \
         t.dropped_at_ms, t.head_version, t.head_timestamp_ms, t.base_version, \
         t.barrier_version, m.mode, m.published_version"
    };
}
/// Number of columns in `table_columns!`: what follows them in a query starts here.
pub(crate) const TABLE_COLUMNS: usize = 14;

/// Where [`table_record`]'s columns come from.
macro_rules! table_source {
    () => {
        "{p}tables t JOIN {p}mirror m ON m.table_id = t.id"
    };
}

/// Columns of [`file_record`].
macro_rules! file_columns {
    () => {
        "added_version, ordinal, path, size, modification_time, data_change, partition_values, \
         stats, tags, deletion_vector, base_row_id, default_row_commit_version, \
         clustering_provider"
    };
}

/// Columns of [`commit_record`] and [`commit_body`].
macro_rules! commit_columns {
    () => {
        "c.version, c.timestamp_ms, c.token, c.commit_info, c.num_added, c.num_removed, \
         c.bytes_added, c.bytes_removed, c.changes_metadata, c.changes_protocol, c.total_files, \
         c.total_bytes, c.has_body, c.first_line, c.body_len, c.batch_position"
    };
}

/// Columns of [`mirror_row`].
macro_rules! mirror_columns {
    () => {
        "table_id, version, state, attempts, last_error, retry_at_ms, digest, enqueued_at_ms, \
         published_at_ms"
    };
}
pub(crate) use {commit_columns, file_columns, mirror_columns, table_columns, table_source};

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

/// "table X, version 3: bad …".
pub(crate) fn corrupt(
    table: impl Display,
    version: Option<i64>,
    what: &str,
    error: impl Display,
) -> DbError {
    let version = version.map(|v| format!(", version {v}")).unwrap_or_default();
    DbError::Catalog(CatalogError::corrupt(format!(
        "stored data of table {table}{version} is damaged: bad {what}: {error}"
    )))
}

/// The JSON of a value. Ours always serialize; the error is for form's sake.
pub(crate) fn to_json<T: Serialize>(value: &T) -> DbResult<String> {
    serde_json::to_string(value).map_err(|e| {
        DbError::Catalog(CatalogError::invalid(format!("cannot be written as JSON: {e}")))
    })
}

/// A value from a row of one version of one table.
pub(crate) struct Reader<'r> {
    row: &'r PgRow,
    table: &'r str,
    version: Option<i64>,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(row: &'r PgRow, table: &'r str, version: Option<i64>) -> Self {
        Reader { row, table, version }
    }

    /// A column of this type.
    pub(crate) fn get<T: Decode<'r, Postgres> + Type<Postgres>>(
        &self,
        column: usize,
    ) -> DbResult<T> {
        self.row.try_get(column).map_err(|error| self.corrupt(&self.name(column), error))
    }

    /// A version.
    pub(crate) fn version(&self, column: usize) -> DbResult<Version> {
        Version::new(self.get(column)?).map_err(|e| self.corrupt(&self.name(column), e))
    }

    /// A version or null.
    pub(crate) fn version_opt(&self, column: usize) -> DbResult<Option<Version>> {
        self.get::<Option<i64>>(column)?
            .map(|v| Version::new(v).map_err(|e| self.corrupt(&self.name(column), e)))
            .transpose()
    }

    /// A count or sum; below zero counts as zero (imported logs hold negative sizes).
    pub(crate) fn count(&self, column: usize) -> DbResult<u64> {
        Ok(u64::try_from(self.get::<i64>(column)?).unwrap_or(0))
    }

    /// A JSON column.
    pub(crate) fn json<T: DeserializeOwned>(&self, column: usize) -> DbResult<T> {
        let text: &str = self.get(column)?;
        serde_json::from_str(text).map_err(|e| self.corrupt(&self.name(column), e))
    }

    /// A JSON column or null.
    pub(crate) fn json_opt<T: DeserializeOwned>(&self, column: usize) -> DbResult<Option<T>> {
        let text: Option<&str> = self.get(column)?;
        text.map(serde_json::from_str).transpose().map_err(|e| self.corrupt(&self.name(column), e))
    }

    fn name(&self, column: usize) -> String {
        self.row.columns().get(column).map_or("column", |c| c.name()).to_owned()
    }

    pub(crate) fn corrupt(&self, what: &str, error: impl Display) -> DbError {
        corrupt(self.table, self.version, what, error)
    }
}

/// A table from `table_columns!`.
pub(crate) fn table_record(row: &PgRow) -> DbResult<TableRecord> {
    let id = TableId(row.try_get::<Id, _>(0)?.0);
    let called = id.to_string();
    let r = Reader::new(row, &called, None);
    Ok(TableRecord {
        id,
        name: TableName::new(r.get::<String>(1)?, r.get::<String>(2)?)
            .map_err(|e| r.corrupt("name", e))?,
        location: r.get(3)?,
        storage_options: r.json(4)?,
        state: TableState::parse(r.get(5)?).map_err(|e| r.corrupt("state", e))?,
        created_at: TimestampMs(r.get(6)?),
        dropped_at: r.get::<Option<i64>>(7)?.map(TimestampMs),
        head: r.version_opt(8)?,
        head_timestamp: r.get::<Option<i64>>(9)?.map(TimestampMs),
        base_version: r.version(10)?,
        barrier_version: r.version(11)?,
        mirror: MirrorMode::parse(r.get(12)?).map_err(|e| r.corrupt("mode", e))?,
        published_version: r.version_opt(13)?,
    })
}

/// A file from `file_columns!`.
pub(crate) fn file_record(row: &PgRow, table: &str) -> DbResult<FileRecord> {
    let r = Reader::new(row, table, row.try_get(0).ok());
    Ok(FileRecord {
        cursor: FileCursor { added_version: r.version(0)?, ordinal: r.get(1)? },
        add: Add {
            path: r.get(2)?,
            partition_values: r.json_opt(6)?.unwrap_or_default(),
            size: r.get(3)?,
            modification_time: r.get(4)?,
            data_change: r.get(5)?,
            stats: r.get(7)?,
            tags: r.json_opt(8)?,
            deletion_vector: r.json_opt(9)?,
            base_row_id: r.get(10)?,
            default_row_commit_version: r.get(11)?,
            clustering_provider: r.get(12)?,
        },
    })
}

/// A line of history from `commit_columns!`.
pub(crate) fn commit_record(row: &PgRow, id: TableId, table: &str) -> DbResult<CommitRecord> {
    let r = Reader::new(row, table, row.try_get(0).ok());
    let token: Option<String> = r.get(2)?;
    let mut commit_info: Option<String> = r.get(3)?;
    if commit_info.is_none() {
        let first_line: Option<&str> = r.get(13)?;
        commit_info = first_line.and_then(commit_info_object).map(str::to_owned);
    }
    let position: Option<i64> = r.get(15)?;
    Ok(CommitRecord {
        table_id: id,
        version: r.version(0)?,
        timestamp: TimestampMs(r.get(1)?),
        token: token.map(CommitToken::new).transpose().map_err(|e| r.corrupt("token", e))?,
        batch_position: position
            .map(u32::try_from)
            .transpose()
            .map_err(|e| r.corrupt("batch_position", e))?,
        commit_info,
        num_added: r.count(4)?,
        num_removed: r.count(5)?,
        bytes_added: r.count(6)?,
        bytes_removed: r.count(7)?,
        changes_metadata: r.get(8)?,
        changes_protocol: r.get(9)?,
        total_files: r.count(10)?,
        total_bytes: r.count(11)?,
        has_body: r.get(12)?,
    })
}

/// The bytes of a commit from `commit_columns!` and its chunks.
pub(crate) fn commit_body(row: &PgRow, table: &str, zstd: Vec<u8>) -> DbResult<CommitBody> {
    let r = Reader::new(row, table, row.try_get(0).ok());
    Ok(CommitBody {
        first_line: r.get(13)?,
        rest: Packed { zstd: Bytes::from(zstd), raw_len: r.count(14)? },
    })
}

/// A row of the outbox from `mirror_columns!`.
pub(crate) fn mirror_row(row: &PgRow) -> DbResult<MirrorRow> {
    let id = TableId(row.try_get::<Id, _>(0)?.0);
    let called = id.to_string();
    let r = Reader::new(row, &called, row.try_get(1).ok());
    Ok(MirrorRow {
        table_id: id,
        version: r.version(1)?,
        state: MirrorState::parse(r.get(2)?).map_err(|e| r.corrupt("state", e))?,
        attempts: attempts(r.get(3)?),
        last_error: r.get(4)?,
        retry_at: r.get::<Option<i64>>(5)?.map(TimestampMs),
        digest: r.get(6)?,
        enqueued_at: TimestampMs(r.get(7)?),
        published_at: r.get::<Option<i64>>(8)?.map(TimestampMs),
    })
}

/// A number of attempts; it stays at the largest.
pub(crate) fn attempts(stored: i64) -> u32 {
    u32::try_from(stored.max(0)).unwrap_or(u32::MAX)
}
