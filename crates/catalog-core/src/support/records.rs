//! From rows to the model. Each database tells how a column is read ([`RowFormat`]); the order of the columns
//! and what they mean are the same in all: [`table_record`], [`file_record`], [`commit_record`],
//! [`commit_body`] and [`mirror_row`] say which columns they read. A column that cannot be read is `Corrupt`, with the table, the
//! version and the column's name.

use std::fmt::Display;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::action::{Add, DomainMetadata, Txn};
use crate::commit::{CommitBody, Packed, commit_info_object};
use crate::error::{CatalogError, Result};
use crate::ids::{At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version};
use crate::model::{
    CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState, SkipIndex,
    SkipSegment, Snapshot, TableRecord, TableState, TombstoneRecord,
};

/// Number of columns of [`table_record`]: the columns that follow them in a query start here.
pub const TABLE_COLUMNS: usize = 14;

/// How the columns of one database are read. `None` is null; an error says that the column holds another type.
#[expect(
    clippy::missing_errors_doc,
    reason = "the trait's documentation says it once for all methods"
)]
pub trait RowFormat {
    /// A row, as the driver gives it.
    type Row;
    /// Why a column cannot be read.
    type Error: Display;

    /// A column's name.
    fn name(row: &Self::Row, column: usize) -> Option<&str>;
    /// A 64-bit integer.
    fn int(row: &Self::Row, column: usize) -> Result<Option<i64>, Self::Error>;
    /// A truth value.
    fn flag(row: &Self::Row, column: usize) -> Result<Option<bool>, Self::Error>;
    /// A text.
    fn text(row: &Self::Row, column: usize) -> Result<Option<&str>, Self::Error>;
    /// Bytes.
    fn bytes(row: &Self::Row, column: usize) -> Result<Option<&[u8]>, Self::Error>;
    /// A table's id.
    fn table_id(row: &Self::Row, column: usize) -> Result<Option<TableId>, Self::Error>;
}

/// A type that columns hold: an integer, a truth value, text, bytes, or an `Option` of one of these.
pub trait ColumnValue<'r>: Sized {
    /// Reads a column; `None` if it is null and the type has no null.
    ///
    /// # Errors
    /// The column holds another type.
    fn read<F: RowFormat>(row: &'r F::Row, column: usize) -> Result<Option<Self>, F::Error>;
}

impl ColumnValue<'_> for i64 {
    fn read<F: RowFormat>(row: &F::Row, column: usize) -> Result<Option<Self>, F::Error> {
        F::int(row, column)
    }
}

impl ColumnValue<'_> for bool {
    fn read<F: RowFormat>(row: &F::Row, column: usize) -> Result<Option<Self>, F::Error> {
        F::flag(row, column)
    }
}

impl<'r> ColumnValue<'r> for &'r str {
    fn read<F: RowFormat>(row: &'r F::Row, column: usize) -> Result<Option<Self>, F::Error> {
        F::text(row, column)
    }
}

impl ColumnValue<'_> for String {
    fn read<F: RowFormat>(row: &F::Row, column: usize) -> Result<Option<Self>, F::Error> {
        Ok(F::text(row, column)?.map(str::to_owned))
    }
}

impl ColumnValue<'_> for Vec<u8> {
    fn read<F: RowFormat>(row: &F::Row, column: usize) -> Result<Option<Self>, F::Error> {
        Ok(F::bytes(row, column)?.map(<[u8]>::to_vec))
    }
}

impl<'r, T: ColumnValue<'r>> ColumnValue<'r> for Option<T> {
    fn read<F: RowFormat>(row: &'r F::Row, column: usize) -> Result<Option<Self>, F::Error> {
        T::read::<F>(row, column).map(Some)
    }
}

/// The error of stored data: "table X, version 3: bad …".
pub fn corrupt(
    table: impl Display,
    version: Option<i64>,
    what: &str,
    error: impl Display,
) -> CatalogError {
    let version = version.map(|v| format!(", version {v}")).unwrap_or_default();
    CatalogError::corrupt(format!(
        "stored data of table {table}{version} is damaged: bad {what}: {error}"
    ))
}

/// The JSON of a value of the model.
///
/// # Errors
/// `InvalidInput`, never for values of the model.
pub fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| CatalogError::invalid(format!("cannot be written as JSON: {e}")))
}

/// Reads the columns of a row of one version of one table. All methods fail with `Corrupt`.
#[derive(Debug)]
pub struct Reader<'r, F: RowFormat> {
    row: &'r F::Row,
    table: &'r str,
    version: Option<i64>,
}

#[expect(
    clippy::missing_errors_doc,
    reason = "the type's documentation says it once for all methods"
)]
impl<'r, F: RowFormat> Reader<'r, F> {
    /// For a row of this table, and version if it is known.
    pub fn new(row: &'r F::Row, table: &'r str, version: Option<i64>) -> Self {
        Reader { row, table, version }
    }

    /// For a row with its version in this column.
    fn with_version(row: &'r F::Row, table: &'r str, column: usize) -> Self {
        Reader::new(row, table, F::int(row, column).ok().flatten())
    }

    /// A column of this type.
    pub fn get<T: ColumnValue<'r>>(&self, column: usize) -> Result<T> {
        let value = T::read::<F>(self.row, column).map_err(|e| self.bad_column(column, e))?;
        value.ok_or_else(|| self.bad_column(column, "it is null"))
    }

    /// A version.
    pub fn version(&self, column: usize) -> Result<Version> {
        Version::new(self.get(column)?).map_err(|e| self.bad_column(column, e))
    }

    /// A version or null.
    pub fn version_opt(&self, column: usize) -> Result<Option<Version>> {
        let version: Option<i64> = self.get(column)?;
        version.map(Version::new).transpose().map_err(|e| self.bad_column(column, e))
    }

    /// A time.
    pub fn time(&self, column: usize) -> Result<TimestampMs> {
        self.get(column).map(TimestampMs)
    }

    /// A time or null.
    pub fn time_opt(&self, column: usize) -> Result<Option<TimestampMs>> {
        Ok(self.get::<Option<i64>>(column)?.map(TimestampMs))
    }

    /// A count or sum; below zero counts as zero (imported logs hold negative sizes).
    pub fn count(&self, column: usize) -> Result<u64> {
        Ok(u64::try_from(self.get::<i64>(column)?).unwrap_or(0))
    }

    /// A JSON column.
    pub fn json<T: DeserializeOwned>(&self, column: usize) -> Result<T> {
        serde_json::from_str(self.get(column)?).map_err(|e| self.bad_column(column, e))
    }

    /// A JSON column or null.
    pub fn json_opt<T: DeserializeOwned>(&self, column: usize) -> Result<Option<T>> {
        let text: Option<&str> = self.get(column)?;
        text.map(serde_json::from_str).transpose().map_err(|e| self.bad_column(column, e))
    }

    /// A file's cursor: its version in this column, its ordinal in the next.
    pub fn cursor(&self, column: usize) -> Result<FileCursor> {
        Ok(FileCursor { added_version: self.version(column)?, ordinal: self.get(column + 1)? })
    }

    /// The error of a column.
    pub fn bad_column(&self, column: usize, error: impl Display) -> CatalogError {
        self.corrupt(F::name(self.row, column).unwrap_or("column"), error)
    }

    /// The error of a value that is made of columns.
    pub fn corrupt(&self, what: &str, error: impl Display) -> CatalogError {
        corrupt(self.table, self.version, what, error)
    }
}

/// A table's id.
///
/// # Errors
/// `Corrupt`.
pub fn table_id<F: RowFormat>(row: &F::Row, column: usize) -> Result<TableId> {
    let id = F::table_id(row, column).map_err(|e| corrupt("?", None, "id", e))?;
    id.ok_or_else(|| corrupt("?", None, "id", "it is null"))
}

/// A table from `id, namespace, name, location, storage_options, state, created_at_ms, dropped_at_ms,
/// head_version, head_timestamp_ms, base_version, barrier_version, mode, published_version`.
///
/// # Errors
/// `Corrupt`.
pub fn table_record<F: RowFormat>(row: &F::Row) -> Result<TableRecord> {
    let id = table_id::<F>(row, 0)?;
    let called = id.to_string();
    let r = Reader::<F>::new(row, &called, None);
    Ok(TableRecord {
        id,
        name: TableName::new(r.get::<String>(1)?, r.get::<String>(2)?)
            .map_err(|e| r.corrupt("name", e))?,
        location: r.get(3)?,
        storage_options: r.json(4)?,
        state: TableState::parse(r.get(5)?).map_err(|e| r.corrupt("state", e))?,
        created_at: r.time(6)?,
        dropped_at: r.time_opt(7)?,
        head: r.version_opt(8)?,
        head_timestamp: r.time_opt(9)?,
        base_version: r.version(10)?,
        barrier_version: r.version(11)?,
        mirror: MirrorMode::parse(r.get(12)?).map_err(|e| r.corrupt("mode", e))?,
        published_version: r.version_opt(13)?,
    })
}

/// A snapshot from the columns of [`table_record`] and, of the commit, `version, timestamp_ms, total_files, total_bytes`;
/// then version and JSON of its protocol, and those of its metadata. All of these are null if there is
/// no such commit.
///
/// # Errors
/// `TableNotFound` without a row, `VersionNotFound`, `Corrupt`.
pub fn snapshot<F: RowFormat>(row: Option<&F::Row>, table: &TableRef, at: At) -> Result<Snapshot> {
    let called = table.to_string();
    let not_found = || CatalogError::TableNotFound(called.clone());
    let row = row.ok_or_else(not_found)?;
    let record = table_record::<F>(row)?;
    let hidden = record.state == TableState::Importing && matches!(table, TableRef::Name(_));
    let head = record.head.filter(|_| !hidden).ok_or_else(not_found)?;
    let first = TABLE_COLUMNS;
    // History below the base has commits, but no state.
    let version = Reader::<F>::new(row, &called, None).version_opt(first)?;
    let Some(version) = version.filter(|v| *v >= record.base_version) else {
        return Err(CatalogError::VersionNotFound {
            version: match at {
                At::Head => head.to_string(),
                At::Version(v) => v.to_string(),
                At::Timestamp(t) => format!("at {t} ms"),
            },
            table: called,
            earliest: record.base_version,
            latest: head,
        });
    };
    let r = Reader::<F>::new(row, &called, Some(version.get()));
    let (protocol_version, metadata_version) =
        (r.version_opt(first + 4)?, r.version_opt(first + 6)?);
    let none = || r.corrupt("protocol or metadata", "there is none at this version");
    Ok(Snapshot {
        table: record,
        version,
        timestamp: r.time(first + 1)?,
        protocol_version: protocol_version.ok_or_else(none)?,
        metadata_version: metadata_version.ok_or_else(none)?,
        protocol: r.json(first + 5)?,
        metadata: r.json(first + 7)?,
        num_files: r.count(first + 2)?,
        size_bytes: r.count(first + 3)?,
    })
}

/// A file from `added_version, ordinal, path, size, modification_time, data_change, partition_values, stats,
/// tags, deletion_vector, base_row_id, default_row_commit_version, clustering_provider`.
///
/// # Errors
/// `Corrupt`.
pub fn file_record<F: RowFormat>(row: &F::Row, table: &str) -> Result<FileRecord> {
    let r = Reader::<F>::with_version(row, table, 0);
    Ok(FileRecord {
        cursor: r.cursor(0)?,
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

/// A tombstone from `added_version, ordinal, removed_version, remove_action`.
///
/// # Errors
/// `Corrupt`.
pub fn tombstone_record<F: RowFormat>(row: &F::Row, table: &str) -> Result<TombstoneRecord> {
    let r = Reader::<F>::with_version(row, table, 2);
    Ok(TombstoneRecord { cursor: r.cursor(0)?, removed_version: r.version(2)?, remove: r.json(3)? })
}

/// An application's transaction from `app_id, app_version, last_updated, version`.
///
/// # Errors
/// `Corrupt`.
pub fn app_transaction<F: RowFormat>(row: &F::Row, table: &str) -> Result<Txn> {
    let r = Reader::<F>::with_version(row, table, 3);
    Ok(Txn { app_id: r.get(0)?, version: r.get(1)?, last_updated: r.get(2)? })
}

/// A domain that is not removed, from `domain, configuration, version`.
///
/// # Errors
/// `Corrupt`.
pub fn domain_metadata<F: RowFormat>(row: &F::Row, table: &str) -> Result<DomainMetadata> {
    let r = Reader::<F>::with_version(row, table, 2);
    Ok(DomainMetadata { domain: r.get(0)?, configuration: r.get(1)?, removed: false })
}

/// A line of history from `version, timestamp_ms, token, commit_info, num_added, num_removed, bytes_added,
/// bytes_removed, changes_metadata, changes_protocol, total_files, total_bytes, has_body, first_line, body_len,
/// batch_position`.
///
/// # Errors
/// `Corrupt`.
pub fn commit_record<F: RowFormat>(row: &F::Row, id: TableId, table: &str) -> Result<CommitRecord> {
    let r = Reader::<F>::with_version(row, table, 0);
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
        timestamp: r.time(1)?,
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

/// The bytes of a commit from the columns of [`commit_record`] and its chunks.
///
/// # Errors
/// `Corrupt`.
pub fn commit_body<F: RowFormat>(row: &F::Row, table: &str, zstd: Vec<u8>) -> Result<CommitBody> {
    let r = Reader::<F>::with_version(row, table, 0);
    Ok(CommitBody {
        first_line: r.get(13)?,
        rest: Packed { zstd: Bytes::from(zstd), raw_len: r.count(14)? },
    })
}

/// A row of the outbox from `table_id, version, state, attempts, last_error, retry_at_ms, digest,
/// enqueued_at_ms, published_at_ms`.
///
/// # Errors
/// `Corrupt`.
pub fn mirror_row<F: RowFormat>(row: &F::Row) -> Result<MirrorRow> {
    let id = table_id::<F>(row, 0)?;
    let called = id.to_string();
    let r = Reader::<F>::with_version(row, &called, 1);
    Ok(MirrorRow {
        table_id: id,
        version: r.version(1)?,
        state: MirrorState::parse(r.get(2)?).map_err(|e| r.corrupt("state", e))?,
        attempts: attempts(r.get(3)?),
        last_error: r.get(4)?,
        retry_at: r.time_opt(5)?,
        digest: r.get(6)?,
        enqueued_at: r.time(7)?,
        published_at: r.time_opt(8)?,
    })
}

/// A number of attempts; it stays at the largest.
#[must_use]
pub fn attempts(stored: i64) -> u32 {
    u32::try_from(stored.max(0)).unwrap_or(u32::MAX)
}

/// A skipping index from its rows in the order of the segments: `generation`, then of each segment
/// `segment_id, after_version, after_ordinal, through_version, through_ordinal, built_version, num_files,
/// root`, and the version that the index covers completely. Without segments, one row with nulls.
///
/// # Errors
/// `Corrupt`.
pub fn skip_index<'r, F>(
    rows: impl IntoIterator<Item = &'r F::Row>,
    table: &str,
) -> Result<SkipIndex>
where
    F: RowFormat,
    F::Row: 'r,
{
    let mut index = SkipIndex::default();
    for row in rows {
        let r = Reader::<F>::new(row, table, None);
        index.generation = r.get(0)?;
        let Some(segment) = r.get::<Option<i64>>(1)? else { continue };
        // The last row decides.
        index.complete_to = r.version_opt(9)?;
        let after = match r.version_opt(2)? {
            Some(_) => Some(r.cursor(2)?),
            None => None,
        };
        index.segments.push(SkipSegment {
            id: segment,
            after,
            through: r.cursor(4)?,
            version: r.version(6)?,
            files: r.get(7)?,
            root: r.get::<Vec<u8>>(8)?.into(),
        });
    }
    Ok(index)
}
