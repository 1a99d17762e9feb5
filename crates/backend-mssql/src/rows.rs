//! Between rows and the model. What does not parse is `Corrupt`, with table and version.

use std::borrow::Cow;
use std::fmt::Display;

use bytes::Bytes;
use deltalakedb_catalog_core::action::{Add, FileKey};
use deltalakedb_catalog_core::commit::{CommitBody, Packed, commit_info_object};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState, TableRecord,
    TableState,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tiberius::{ColumnData, Row};
use uuid::Uuid;

use crate::errors::{DbError, DbResult};

pub(crate) mod text;

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
        "version, timestamp_ms, token, commit_info, num_added, num_removed, bytes_added, \
         bytes_removed, changes_metadata, changes_protocol, total_files, total_bytes, has_body, \
         first_line, body_len, batch_position"
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

/// A 64-bit integer parameter.
pub(crate) fn big(value: i64) -> ColumnData<'static> {
    ColumnData::I64(Some(value))
}

/// A 64-bit integer parameter or null.
pub(crate) fn big_opt(value: Option<i64>) -> ColumnData<'static> {
    ColumnData::I64(value)
}

/// A truth value: 0 or 1, as a number.
pub(crate) fn flag(value: bool) -> ColumnData<'static> {
    big(i64::from(value))
}

/// A text parameter.
pub(crate) fn text(value: &str) -> ColumnData<'_> {
    ColumnData::String(Some(Cow::Borrowed(value)))
}

/// A text parameter that nobody else keeps.
pub(crate) fn owned(value: String) -> ColumnData<'static> {
    ColumnData::String(Some(Cow::Owned(value)))
}

/// A text parameter or null.
pub(crate) fn text_opt(value: Option<&str>) -> ColumnData<'_> {
    ColumnData::String(value.map(Cow::Borrowed))
}

/// A binary parameter.
pub(crate) fn bytes(value: &[u8]) -> ColumnData<'_> {
    ColumnData::Binary(Some(Cow::Borrowed(value)))
}

/// The key of a table.
pub(crate) fn id(table: TableId) -> ColumnData<'static> {
    key(*table.0.as_bytes())
}

/// A digest.
pub(crate) fn key(digest: [u8; 16]) -> ColumnData<'static> {
    ColumnData::Binary(Some(Cow::Owned(digest.to_vec())))
}

/// What a name is found by.
pub(crate) fn name_key(name: &TableName) -> ColumnData<'static> {
    key(FileKey::digest_of(name.namespace(), name.name()))
}

/// What an application, a domain or an owner is found by.
pub(crate) fn text_key(value: &str) -> ColumnData<'static> {
    key(FileKey::digest_of(value, ""))
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
pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| CatalogError::invalid(format!("cannot be written as JSON: {e}")))
}

/// Whether it is null, of whatever type: an expression's type is the server's choice.
fn is_null(value: &ColumnData<'_>) -> bool {
    match value {
        ColumnData::U8(value) => value.is_none(),
        ColumnData::I16(value) => value.is_none(),
        ColumnData::I32(value) => value.is_none(),
        ColumnData::I64(value) => value.is_none(),
        ColumnData::Bit(value) => value.is_none(),
        ColumnData::String(value) => value.is_none(),
        ColumnData::Binary(value) => value.is_none(),
        ColumnData::Numeric(value) => value.is_none(),
        _ => false,
    }
}

/// Values of a row of one version of one table. Integers are read whatever their width, as an
/// expression's type is the server's choice.
pub(crate) struct Reader<'r> {
    row: &'r Row,
    table: &'r str,
    version: Option<i64>,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(row: &'r Row, table: &'r str, version: Option<i64>) -> Self {
        Reader { row, table, version }
    }

    fn data(&self, column: usize) -> DbResult<&'r ColumnData<'static>> {
        self.row.get_column_data(column).map_err(|e| self.corrupt(column, e))
    }

    /// An integer or null.
    pub(crate) fn opt_i64(&self, column: usize) -> DbResult<Option<i64>> {
        match self.data(column)? {
            ColumnData::I64(value) => Ok(*value),
            ColumnData::I32(value) => Ok(value.map(i64::from)),
            ColumnData::I16(value) => Ok(value.map(i64::from)),
            ColumnData::U8(value) => Ok(value.map(i64::from)),
            ColumnData::Bit(value) => Ok(value.map(i64::from)),
            ColumnData::Numeric(Some(value)) if value.scale() == 0 => {
                i64::try_from(value.value()).map(Some).map_err(|e| self.corrupt(column, e))
            }
            other if is_null(other) => Ok(None),
            other => Err(self.corrupt(column, format!("{other:?} is not an integer"))),
        }
    }

    /// An integer.
    pub(crate) fn i64(&self, column: usize) -> DbResult<i64> {
        self.opt_i64(column)?.ok_or_else(|| self.corrupt(column, "it is null"))
    }

    /// A truth value.
    pub(crate) fn flag(&self, column: usize) -> DbResult<bool> {
        Ok(self.i64(column)? != 0)
    }

    /// Text or null.
    pub(crate) fn opt_str(&self, column: usize) -> DbResult<Option<&'r str>> {
        match self.data(column)? {
            ColumnData::String(value) => Ok(value.as_deref()),
            other if is_null(other) => Ok(None),
            _ => Err(self.corrupt(column, "it is not text")),
        }
    }

    /// Text or null, owned.
    pub(crate) fn opt_text(&self, column: usize) -> DbResult<Option<String>> {
        Ok(self.opt_str(column)?.map(str::to_owned))
    }

    /// Text.
    pub(crate) fn text(&self, column: usize) -> DbResult<String> {
        self.opt_text(column)?.ok_or_else(|| self.corrupt(column, "it is null"))
    }

    /// Bytes or null.
    pub(crate) fn opt_bytes(&self, column: usize) -> DbResult<Option<&'r [u8]>> {
        match self.data(column)? {
            ColumnData::Binary(value) => Ok(value.as_deref()),
            other if is_null(other) => Ok(None),
            _ => Err(self.corrupt(column, "it is not binary")),
        }
    }

    /// The key of a table.
    pub(crate) fn id(&self, column: usize) -> DbResult<TableId> {
        let bytes = self.opt_bytes(column)?.unwrap_or_default();
        Uuid::from_slice(bytes).map(TableId).map_err(|e| self.corrupt(column, e))
    }

    /// A token or null.
    pub(crate) fn opt_token(&self, column: usize) -> DbResult<Option<CommitToken>> {
        let Some(bytes) = self.opt_bytes(column)? else { return Ok(None) };
        let text = std::str::from_utf8(bytes).map_err(|e| self.corrupt(column, e))?;
        CommitToken::new(text).map(Some).map_err(|e| self.corrupt(column, e))
    }

    /// A version.
    pub(crate) fn version(&self, column: usize) -> DbResult<Version> {
        Version::new(self.i64(column)?).map_err(|e| self.corrupt(column, e))
    }

    /// A version or null.
    pub(crate) fn opt_version(&self, column: usize) -> DbResult<Option<Version>> {
        let version = self.opt_i64(column)?.map(Version::new);
        version.transpose().map_err(|e| self.corrupt(column, e))
    }

    /// A time.
    pub(crate) fn time(&self, column: usize) -> DbResult<TimestampMs> {
        self.i64(column).map(TimestampMs)
    }

    /// A time or null.
    pub(crate) fn opt_time(&self, column: usize) -> DbResult<Option<TimestampMs>> {
        Ok(self.opt_i64(column)?.map(TimestampMs))
    }

    /// A count or sum; below zero counts as zero (imported logs hold negative sizes).
    pub(crate) fn count(&self, column: usize) -> DbResult<u64> {
        Ok(u64::try_from(self.i64(column)?).unwrap_or(0))
    }

    /// A JSON column.
    pub(crate) fn json<T: DeserializeOwned>(&self, column: usize) -> DbResult<T> {
        self.json_opt(column)?.ok_or_else(|| self.corrupt(column, "it is null"))
    }

    /// A JSON column or null.
    pub(crate) fn json_opt<T: DeserializeOwned>(&self, column: usize) -> DbResult<Option<T>> {
        let text = self.opt_str(column)?;
        text.map(serde_json::from_str).transpose().map_err(|e| self.corrupt(column, e))
    }

    /// The error of a column.
    pub(crate) fn corrupt(&self, column: usize, error: impl Display) -> DbError {
        let name = self.row.columns().get(column).map_or("column", tiberius::Column::name);
        corrupt(self.table, self.version, name, error)
    }
}

/// A table from `table_columns!`.
pub(crate) fn table_record(row: &Row) -> DbResult<TableRecord> {
    let id = Reader::new(row, "(unknown)", None).id(0)?;
    let called = id.to_string();
    let r = Reader::new(row, &called, None);
    let (state, mode) = (r.text(5)?, r.text(12)?);
    Ok(TableRecord {
        id,
        name: TableName::new(r.text(1)?, r.text(2)?).map_err(|e| r.corrupt(2, e))?,
        location: r.text(3)?,
        storage_options: r.json(4)?,
        state: TableState::parse(&state).map_err(|e| r.corrupt(5, e))?,
        created_at: r.time(6)?,
        dropped_at: r.opt_time(7)?,
        head: r.opt_version(8)?,
        head_timestamp: r.opt_time(9)?,
        base_version: r.version(10)?,
        barrier_version: r.version(11)?,
        mirror: MirrorMode::parse(&mode).map_err(|e| r.corrupt(12, e))?,
        published_version: r.opt_version(13)?,
    })
}

/// A file from `file_columns!`.
pub(crate) fn file_record(row: &Row, table: &str) -> DbResult<FileRecord> {
    let version = Reader::new(row, table, None).i64(0)?;
    let r = Reader::new(row, table, Some(version));
    Ok(FileRecord {
        cursor: FileCursor { added_version: r.version(0)?, ordinal: r.i64(1)? },
        add: Add {
            path: r.text(2)?,
            partition_values: r.json_opt(6)?.unwrap_or_default(),
            size: r.i64(3)?,
            modification_time: r.i64(4)?,
            data_change: r.flag(5)?,
            stats: r.opt_text(7)?,
            tags: r.json_opt(8)?,
            deletion_vector: r.json_opt(9)?,
            base_row_id: r.opt_i64(10)?,
            default_row_commit_version: r.opt_i64(11)?,
            clustering_provider: r.opt_text(12)?,
        },
    })
}

/// A line of history from `commit_columns!`.
pub(crate) fn commit_record(row: &Row, id: TableId, table: &str) -> DbResult<CommitRecord> {
    let version = Reader::new(row, table, None).i64(0)?;
    let r = Reader::new(row, table, Some(version));
    let mut commit_info = r.opt_text(3)?;
    if commit_info.is_none() {
        commit_info = r.opt_str(13)?.and_then(commit_info_object).map(str::to_owned);
    }
    let position = r.opt_i64(15)?.map(u32::try_from).transpose();
    Ok(CommitRecord {
        table_id: id,
        version: r.version(0)?,
        timestamp: r.time(1)?,
        token: r.opt_token(2)?,
        batch_position: position.map_err(|e| r.corrupt(15, e))?,
        commit_info,
        num_added: r.count(4)?,
        num_removed: r.count(5)?,
        bytes_added: r.count(6)?,
        bytes_removed: r.count(7)?,
        changes_metadata: r.flag(8)?,
        changes_protocol: r.flag(9)?,
        total_files: r.count(10)?,
        total_bytes: r.count(11)?,
        has_body: r.flag(12)?,
    })
}

/// The bytes of a commit from `commit_columns!` and its chunks.
pub(crate) fn commit_body(row: &Row, table: &str, zstd: Vec<u8>) -> DbResult<CommitBody> {
    let r = Reader::new(row, table, None);
    Ok(CommitBody {
        first_line: r.opt_text(13)?,
        rest: Packed { zstd: Bytes::from(zstd), raw_len: r.count(14)? },
    })
}

/// A row of the outbox from `mirror_columns!`.
pub(crate) fn mirror_row(row: &Row) -> DbResult<MirrorRow> {
    let table_id = Reader::new(row, "(unknown)", None).id(0)?;
    let called = table_id.to_string();
    let r = Reader::new(row, &called, None);
    Ok(MirrorRow {
        table_id,
        version: r.version(1)?,
        state: MirrorState::parse(&r.text(2)?).map_err(|e| r.corrupt(2, e))?,
        attempts: u32::try_from(r.i64(3)?).map_err(|e| r.corrupt(3, e))?,
        last_error: r.opt_text(4)?,
        retry_at: r.opt_time(5)?,
        digest: r.opt_text(6)?,
        enqueued_at: r.time(7)?,
        published_at: r.opt_time(8)?,
    })
}
