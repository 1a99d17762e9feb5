//! Between rows and the model. What does not parse is `Corrupt`, with table and version.

use std::fmt::{self, Display};

use bytes::Bytes;
use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_core::commit::{CommitBody, Packed, commit_info_object};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState, TableRecord,
    TableState,
};
use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::Serialize;
use serde::de::DeserializeOwned;

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
        "{p}tables t JOIN {p}mirror m ON m.table_key = t.table_key"
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
        "version, state, attempts, last_error, retry_at_ms, digest, enqueued_at_ms, published_at_ms"
    };
}
pub(crate) use {commit_columns, file_columns, mirror_columns, table_columns, table_source};

/// A table as one transaction knows it: the key of its rows, and its id for messages.
///
/// It is found anew in each transaction and never kept: a file may be restored under a program that
/// has it open, and then the key is another table's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) key: i64,
    pub(crate) id: TableId,
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
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
pub(crate) struct Reader<'r, 's> {
    row: &'r Row<'s>,
    table: &'r dyn Display,
    version: Option<i64>,
}

impl<'r, 's> Reader<'r, 's> {
    pub(crate) fn new(row: &'r Row<'s>, table: &'r dyn Display, version: Option<i64>) -> Self {
        Reader { row, table, version }
    }

    /// A column of this type.
    pub(crate) fn get<T: FromSql>(&self, column: usize) -> DbResult<T> {
        self.row.get(column).map_err(|error| self.corrupt(&self.name(column), error))
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
        let text = self.row.get_ref(column)?.as_str();
        let text = text.map_err(|e| self.corrupt(&self.name(column), e))?;
        serde_json::from_str(text).map_err(|e| self.corrupt(&self.name(column), e))
    }

    /// A JSON column or null.
    pub(crate) fn json_opt<T: DeserializeOwned>(&self, column: usize) -> DbResult<Option<T>> {
        let text = self.row.get_ref(column)?.as_str_or_null();
        let text = text.map_err(|e| self.corrupt(&self.name(column), e))?;
        text.map(serde_json::from_str).transpose().map_err(|e| self.corrupt(&self.name(column), e))
    }

    fn name(&self, column: usize) -> String {
        self.row.as_ref().column_name(column).unwrap_or("column").to_owned()
    }

    pub(crate) fn corrupt(&self, what: &str, error: impl Display) -> DbError {
        corrupt(self.table, self.version, what, error)
    }
}

/// A table from `table_columns!`.
pub(crate) fn table_record(row: &Row<'_>) -> DbResult<TableRecord> {
    let id: String = row.get(0)?;
    let r = Reader::new(row, &id, None);
    let (namespace, name): (String, String) = (r.get(1)?, r.get(2)?);
    let (state, mode): (String, String) = (r.get(5)?, r.get(12)?);
    Ok(TableRecord {
        id: id.parse().map_err(|e| r.corrupt("id", e))?,
        name: TableName::new(namespace, name).map_err(|e| r.corrupt("name", e))?,
        location: r.get(3)?,
        storage_options: r.json(4)?,
        state: TableState::parse(&state).map_err(|e| r.corrupt("state", e))?,
        created_at: TimestampMs(r.get(6)?),
        dropped_at: r.get::<Option<i64>>(7)?.map(TimestampMs),
        head: r.version_opt(8)?,
        head_timestamp: r.get::<Option<i64>>(9)?.map(TimestampMs),
        base_version: r.version(10)?,
        barrier_version: r.version(11)?,
        mirror: MirrorMode::parse(&mode).map_err(|e| r.corrupt("mode", e))?,
        published_version: r.version_opt(13)?,
    })
}

/// A file from `file_columns!`.
pub(crate) fn file_record(row: &Row<'_>, table: Table) -> DbResult<FileRecord> {
    let r = Reader::new(row, &table, row.get(0).ok());
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
pub(crate) fn commit_record(row: &Row<'_>, table: Table) -> DbResult<CommitRecord> {
    let r = Reader::new(row, &table, row.get(0).ok());
    let token: Option<String> = r.get(2)?;
    let mut commit_info: Option<String> = r.get(3)?;
    if commit_info.is_none() {
        let first_line = row.get_ref(13)?.as_str_or_null();
        let first_line = first_line.map_err(|e| r.corrupt("first_line", e))?;
        commit_info = first_line.and_then(commit_info_object).map(str::to_owned);
    }
    Ok(CommitRecord {
        table_id: table.id,
        version: r.version(0)?,
        timestamp: TimestampMs(r.get(1)?),
        token: token.map(CommitToken::new).transpose().map_err(|e| r.corrupt("token", e))?,
        batch_position: r.get(15)?,
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
pub(crate) fn commit_body(row: &Row<'_>, table: Table, zstd: Vec<u8>) -> DbResult<CommitBody> {
    let r = Reader::new(row, &table, row.get(0).ok());
    Ok(CommitBody {
        first_line: r.get(13)?,
        rest: Packed { zstd: Bytes::from(zstd), raw_len: r.count(14)? },
    })
}

/// A row of the outbox from `mirror_columns!`.
pub(crate) fn mirror_row(row: &Row<'_>, table: TableId) -> DbResult<MirrorRow> {
    let r = Reader::new(row, &table, row.get(0).ok());
    let state: String = r.get(1)?;
    Ok(MirrorRow {
        table_id: table,
        version: r.version(0)?,
        state: MirrorState::parse(&state).map_err(|e| r.corrupt("state", e))?,
        attempts: r.get(2)?,
        last_error: r.get(3)?,
        retry_at: r.get::<Option<i64>>(4)?.map(TimestampMs),
        digest: r.get(5)?,
        enqueued_at: TimestampMs(r.get(6)?),
        published_at: r.get::<Option<i64>>(7)?.map(TimestampMs),
    })
}
