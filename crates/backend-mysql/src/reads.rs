//! Reads of one table: opening it, its files, its history.
//!
//! Each is one message: one statement, or several in a read-only transaction that see one state.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::action::{DomainMetadata, Txn};
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, Page, Snapshot, TombstoneRecord,
};
use deltalakedb_catalog_core::support::{
    self, SORTED_ROWS, bodies_in_one_call, commit_body, commit_range, commit_record, fetch_limit,
    file_record, files_start, merge, page,
};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::errors::DbResult;
use crate::rows::{MySqlFormat, commit_columns, file_columns, table_columns, table_source};
use crate::session::literals::Value;
use crate::session::{Call, Set, first};
use crate::tables::not_found;

/// Most commits in one call of `read_bodies`.
const MAX_BODIES: i64 = 10_000;

/// A snapshot is one query: which table, and which version of it.
macro_rules! snapshot {
    ($version:expr, $table:expr) => {
        concat!(
            "SELECT ",
            table_columns!(),
            ", c.version, c.timestamp_ms, c.total_files, c.total_bytes, p.version, p.protocol,
                d.version, d.metadata
            FROM ",
            table_source!(),
            "
            LEFT JOIN {p}commits c ON c.table_key = t.table_key AND c.version = ",
            $version,
            "
            LEFT JOIN {p}protocols p ON p.table_key = t.table_key AND p.version = (
                SELECT MAX(y.version) FROM {p}protocols y
                WHERE y.table_key = t.table_key AND y.version <= c.version)
            LEFT JOIN {p}metadata d ON d.table_key = t.table_key AND d.version = (
                SELECT MAX(z.version) FROM {p}metadata z
                WHERE z.table_key = t.table_key AND z.version <= c.version)
            WHERE ",
            $table
        )
    };
}
macro_rules! at_version {
    () => {
        "?"
    };
}
/// Latest version whose timestamp is not after this value. Timestamps grow with the version.
macro_rules! at_time {
    () => {
        "(SELECT x.version FROM {p}commits x
            WHERE x.table_key = t.table_key AND x.timestamp_ms <= ? ORDER BY x.timestamp_ms DESC LIMIT 1)"
    };
}
macro_rules! by_id {
    () => {
        "t.id = ?"
    };
}
macro_rules! by_name {
    () => {
        "t.namespace = ? AND t.name = ? AND t.drop_marker = ''"
    };
}

/// Snapshots: the point first, then the table.
pub(crate) const SNAPSHOT_HEAD_BY_ID: &str = snapshot!("t.head_version", by_id!());
pub(crate) const SNAPSHOT_HEAD_BY_NAME: &str = snapshot!("t.head_version", by_name!());
pub(crate) const SNAPSHOT_VERSION_BY_ID: &str = snapshot!(at_version!(), by_id!());
pub(crate) const SNAPSHOT_VERSION_BY_NAME: &str = snapshot!(at_version!(), by_name!());
pub(crate) const SNAPSHOT_TIME_BY_ID: &str = snapshot!(at_time!(), by_id!());
pub(crate) const SNAPSHOT_TIME_BY_NAME: &str = snapshot!(at_time!(), by_name!());

const EXISTS: &str = "SELECT id FROM {p}tables WHERE id = ?";
/// Values: table, added, added, ordinal, version, limit.
pub(crate) const FILES_ACTIVE: &str = concat!(
    "SELECT ",
    file_columns!(),
    " FROM {p}files FORCE INDEX (by_state)
    WHERE table_key = {key} AND removed_version = 9223372036854775807
      AND added_version >= ? AND (added_version > ? OR ordinal > ?) AND added_version <= ?
    ORDER BY added_version, ordinal LIMIT ?"
);
/// Number of files that went after a version, up to a limit.
const CLOSED_SINCE: &str = "SELECT COUNT(*) FROM (
    SELECT 1 FROM {p}files FORCE INDEX (by_state)
    WHERE table_key = {key} AND removed_version > ? AND removed_version < 9223372036854775807
    LIMIT ?) few";
/// Files that were there at a version and went after it: few of them. Values: table, version,
/// added, added, ordinal, version, limit.
const FILES_CLOSED_FEW: &str = concat!(
    "SELECT ",
    file_columns!(),
    " FROM {p}files FORCE INDEX (by_state)
    WHERE table_key = {key} AND removed_version > ? AND removed_version < 9223372036854775807
      AND added_version >= ? AND (added_version > ? OR ordinal > ?) AND added_version <= ?
    ORDER BY added_version, ordinal LIMIT ?"
);
/// Files at a version where many went after it: both kinds in the order of the key. Values: table,
/// added, added, ordinal, version, version, limit.
const FILES_AT_MANY: &str = concat!(
    "SELECT ",
    file_columns!(),
    " FROM {p}files FORCE INDEX (PRIMARY)
    WHERE table_key = {key} AND added_version >= ? AND (added_version > ? OR ordinal > ?)
      AND added_version <= ? AND removed_version > ?
    ORDER BY added_version, ordinal LIMIT ?"
);
/// Rows with the same key as `f` that keep it from being a tombstone of a version: the file is in
/// the table, or there is a later tombstone. Values: version three times.
macro_rules! not_superseded {
    () => {
        "NOT EXISTS (
            SELECT 1 FROM {p}files x FORCE INDEX (by_key)
            WHERE x.table_key = f.table_key AND x.file_key = f.file_key AND x.path = f.path
              AND x.dv_id = f.dv_id AND x.added_version <= ?
              AND (x.removed_version > ? OR (x.is_tombstone = 1 AND (
                x.removed_version > f.removed_version
                OR (x.removed_version = f.removed_version AND x.added_version > f.added_version)
                OR (x.removed_version = f.removed_version AND x.added_version = f.added_version
                    AND x.ordinal > f.ordinal)))))"
    };
}
/// Number of tombstones that are young enough, up to a limit.
const TOMBSTONE_CANDIDATES: &str = "SELECT COUNT(*) FROM (
    SELECT 1 FROM {p}files FORCE INDEX (tombstones)
    WHERE table_key = {key} AND is_tombstone = 1 AND deletion_timestamp > ? LIMIT ?) few";
macro_rules! tombstones {
    ($index:literal) => {
        concat!(
            "SELECT f.added_version, f.ordinal, f.removed_version, f.remove_action
            FROM {p}files f FORCE INDEX (",
            $index,
            ")
            WHERE f.table_key = {key} AND f.is_tombstone = 1 AND f.deletion_timestamp > ?
              AND f.removed_version <= ? AND f.added_version >= ?
              AND (f.added_version > ? OR f.ordinal > ?) AND ",
            not_superseded!(),
            " ORDER BY f.added_version, f.ordinal LIMIT ?"
        )
    };
}
const TOMBSTONES_FEW: &str = tombstones!("tombstones");
const TOMBSTONES_MANY: &str = tombstones!("PRIMARY");
const APP_TRANSACTIONS: &str = "SELECT x.app_id, x.app_version, x.last_updated, x.version
    FROM (SELECT app_key, MAX(version) AS version FROM {p}txns
        WHERE table_key = {key} AND version <= ? GROUP BY app_key) latest
    JOIN {p}txns x ON x.table_key = {key} AND x.app_key = latest.app_key
      AND x.version = latest.version";
const DOMAIN_METADATA: &str = "SELECT x.domain, x.configuration, x.version
    FROM (SELECT domain_key, MAX(version) AS version FROM {p}domain_metadata
        WHERE table_key = {key} AND version <= ? GROUP BY domain_key) latest
    JOIN {p}domain_metadata x ON x.table_key = {key} AND x.domain_key = latest.domain_key
      AND x.version = latest.version
    WHERE x.removed = 0";
/// Values: table, from, to; times and the limit follow.
const COMMITS: &str = concat!(
    "SELECT ",
    commit_columns!(),
    " FROM {p}commits c WHERE c.table_key = {key} AND c.version >= ? AND c.version <= ?"
);
/// Times become versions, because both grow together: no row outside of the range is read.
const SINCE: &str = " AND c.version >= COALESCE((SELECT a.version FROM {p}commits a
    WHERE a.table_key = {key} AND a.timestamp_ms >= ? ORDER BY a.timestamp_ms LIMIT 1),
    9223372036854775807)";
const BEFORE: &str = " AND c.version <= COALESCE((SELECT b.version FROM {p}commits b
    WHERE b.table_key = {key} AND b.timestamp_ms < ? ORDER BY b.timestamp_ms DESC LIMIT 1), -1)";
const BODIES: &str = concat!(
    "SELECT ",
    commit_columns!(),
    " FROM {p}commits c
    WHERE c.table_key = {key} AND c.version >= ? AND c.version <= ? AND c.has_body = 1
    ORDER BY c.version LIMIT ?"
);
/// Lengths first, so that no more is fetched than is answered.
const LENGTHS: &str =
    "SELECT version, CAST(SUM(OCTET_LENGTH(body)) AS SIGNED) FROM {p}commit_chunks
    WHERE table_key = {key} AND version >= ? AND version <= ? GROUP BY version ORDER BY version LIMIT ?";
const CHUNKS: &str = "SELECT version, body FROM {p}commit_chunks
    WHERE table_key = {key} AND version >= ? AND version <= ? ORDER BY version, chunk_no";

/// One query; see `snapshot!`.
pub(crate) async fn snapshot(call: &mut Call, table: &TableRef, at: At) -> DbResult<Snapshot> {
    let (by_id, by_name, point) = match at {
        At::Head => (SNAPSHOT_HEAD_BY_ID, SNAPSHOT_HEAD_BY_NAME, None),
        At::Version(version) => {
            (SNAPSHOT_VERSION_BY_ID, SNAPSHOT_VERSION_BY_NAME, Some(version.get()))
        }
        At::Timestamp(time) => (SNAPSHOT_TIME_BY_ID, SNAPSHOT_TIME_BY_NAME, Some(time.0)),
    };
    let mut values: Vec<Value<'_>> = point.into_iter().map(Value::Int).collect();
    let text = match table {
        TableRef::Id(id) => {
            values.push((*id).into());
            by_id
        }
        TableRef::Name(name) => {
            values.extend([Value::from(name.namespace()), name.name().into()]);
            by_name
        }
    };
    let row = call.row(text, &values).await?;
    Ok(support::snapshot::<MySqlFormat>(row.as_ref(), table, at)?)
}

/// The sets after the first, which says whether the table exists.
fn of_table(sets: &[Set], id: TableId) -> DbResult<impl Iterator<Item = &MySqlRow>> {
    if first(sets).is_none() {
        return Err(not_found(id).into());
    }
    Ok(sets[1..].iter().flat_map(|set| &set.rows))
}

/// A number that a statement answers alone.
fn number(sets: &[Set], position: usize) -> DbResult<i64> {
    match sets.get(position).and_then(|set| set.rows.first()) {
        Some(row) => Ok(row.try_get(0)?),
        None => Ok(0),
    }
}

/// Files at a version.
///
/// The cursor is a row's key, which never changes, so pages stay right while commits go on. At the
/// head the index on `removed_version` holds exactly the rows wanted, in order. For an older
/// version those that went since are merged in; that costs what went since, for each page, so
/// where that is much the table is read in the order of its key instead.
pub(crate) async fn list_files(
    call: &mut Call,
    id: TableId,
    version: Version,
    after: Option<FileCursor>,
    limit: usize,
) -> DbResult<Page<FileRecord, FileCursor>> {
    let session = call.session.clone();
    let table = id.to_string();
    let (added, ordinal) = files_start(after);
    let table_id = id;
    let (id, version, limited) = (id.into(), version.get().into(), fetch_limit(limit).into());
    let (added, ordinal) = (Value::Int(added), Value::Int(ordinal));
    let statements = [
        session.sql(EXISTS, &[id]),
        session.sql(CLOSED_SINCE, &[id, version, (SORTED_ROWS + 1).into()]),
        session.sql(FILES_ACTIVE, &[id, added, added, ordinal, version, limited]),
        session.sql(FILES_CLOSED_FEW, &[id, version, added, added, ordinal, version, limited]),
    ];
    let records = |set: Option<&Set>| -> Result<Vec<FileRecord>> {
        let rows = set.into_iter().flat_map(|set| &set.rows);
        rows.map(|row| file_record::<MySqlFormat>(row, &table)).collect()
    };
    // How much went since is asked first where that can be much.
    let sets = call.read(&statements[..2].join("; ")).await?;
    if first(&sets).is_none() {
        return Err(not_found(table_id).into());
    }
    let closed = number(&sets, 1)?;
    let items = if closed > SORTED_ROWS {
        let values = [id, added, added, ordinal, version, version, limited];
        let sets = call.query(FILES_AT_MANY, &values).await?;
        records(sets.first())?
    } else {
        // A row that is removed between the two messages is in the second set.
        let sets = call.read(&statements[2..].join("; ")).await?;
        merge(records(sets.first())?, records(sets.get(1))?)
    };
    Ok(page(items, limit, |file| file.cursor))
}

pub(crate) async fn list_tombstones(
    call: &mut Call,
    id: TableId,
    version: Version,
    deleted_after: TimestampMs,
    after: Option<FileCursor>,
    limit: usize,
) -> DbResult<Page<TombstoneRecord, FileCursor>> {
    let session = call.session.clone();
    let candidates = [
        session.sql(EXISTS, &[id.into()]),
        session.sql(
            TOMBSTONE_CANDIDATES,
            &[id.into(), deleted_after.0.into(), (SORTED_ROWS + 1).into()],
        ),
    ];
    let sets = call.read(&candidates.join("; ")).await?;
    if first(&sets).is_none() {
        return Err(not_found(id).into());
    }
    let text = if number(&sets, 1)? > SORTED_ROWS { TOMBSTONES_MANY } else { TOMBSTONES_FEW };
    let (added, ordinal) = files_start(after);
    let at = Value::Int(version.get());
    let values = [
        id.into(),
        deleted_after.0.into(),
        at,
        added.into(),
        added.into(),
        ordinal.into(),
        at,
        at,
        fetch_limit(limit).into(),
    ];
    let table = id.to_string();
    let sets = call.query(text, &values).await?;
    let rows = sets.iter().flat_map(|set| &set.rows);
    let items = rows
        .map(|row| support::tombstone_record::<MySqlFormat>(row, &table))
        .collect::<Result<Vec<_>>>()?;
    Ok(page(items, limit, |tombstone| tombstone.cursor))
}

/// Sorted here: they are found by digest, and are few.
pub(crate) async fn app_transactions(
    call: &mut Call,
    id: TableId,
    version: Version,
) -> DbResult<Vec<Txn>> {
    let session = call.session.clone();
    let values = [id.into(), version.get().into(), id.into()];
    let statements = [session.sql(EXISTS, &values[..1]), session.sql(APP_TRANSACTIONS, &values)];
    let sets = call.read(&statements.join("; ")).await?;
    let table = id.to_string();
    let mut txns = of_table(&sets, id)?
        .map(|row| support::app_transaction::<MySqlFormat>(row, &table))
        .collect::<Result<Vec<_>>>()?;
    txns.sort_unstable_by(|a, b| a.app_id.cmp(&b.app_id));
    Ok(txns)
}

/// Sorted here: they are found by digest, and are few.
pub(crate) async fn domain_metadata(
    call: &mut Call,
    id: TableId,
    version: Version,
) -> DbResult<Vec<DomainMetadata>> {
    let session = call.session.clone();
    let values = [id.into(), version.get().into(), id.into()];
    let statements = [session.sql(EXISTS, &values[..1]), session.sql(DOMAIN_METADATA, &values)];
    let sets = call.read(&statements.join("; ")).await?;
    let table = id.to_string();
    let mut domains = of_table(&sets, id)?
        .map(|row| support::domain_metadata::<MySqlFormat>(row, &table))
        .collect::<Result<Vec<_>>>()?;
    domains.sort_unstable_by(|a, b| a.domain.cmp(&b.domain));
    Ok(domains)
}

pub(crate) async fn list_commits(
    call: &mut Call,
    id: TableId,
    filter: &CommitFilter,
    before: Option<Version>,
    limit: usize,
) -> DbResult<Page<CommitRecord, Version>> {
    let (from, to) = commit_range(filter, before);
    let session = call.session.clone();
    let (key, limited) = (Value::from(id), Value::Int(fetch_limit(limit)));
    let mut statement = session.sql(COMMITS, &[key, from.into(), to.into()]);
    for (text, time) in [(SINCE, filter.from_time), (BEFORE, filter.to_time)] {
        if let Some(time) = time {
            statement.push_str(&session.sql(text, &[key, time.0.into()]));
        }
    }
    statement.push_str(&session.sql(" ORDER BY c.version DESC LIMIT ?", &[limited]));
    let statements = [session.sql(EXISTS, &[key]), statement];
    let sets = call.read(&statements.join("; ")).await?;
    let table = id.to_string();
    let items = of_table(&sets, id)?
        .map(|row| commit_record::<MySqlFormat>(row, id, &table))
        .collect::<Result<Vec<_>>>()?;
    Ok(page(items, limit, |commit| commit.version))
}

pub(crate) async fn read_bodies(
    call: &mut Call,
    id: TableId,
    from: Version,
    to: Version,
    limit: usize,
) -> DbResult<Vec<(CommitRecord, CommitBody)>> {
    let session = call.session.clone();
    let limited = i64::try_from(limit.max(1)).unwrap_or(MAX_BODIES).min(MAX_BODIES);
    let values = [id.into(), from.get().into(), to.get().into(), limited.into()];
    let statements = [
        session.sql(EXISTS, &values[..1]),
        session.sql(LENGTHS, &values),
        session.sql(BODIES, &values),
    ];
    let sets = call.read(&statements.join("; ")).await?;
    if first(&sets).is_none() {
        return Err(not_found(id).into());
    }
    let table = id.to_string();
    // Commits are never changed: what the next message reads belongs to these.
    let mut lengths = BTreeMap::new();
    for row in sets.get(1).into_iter().flat_map(|set| &set.rows) {
        let (version, length): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        lengths.insert(version, usize::try_from(length).unwrap_or(usize::MAX));
    }
    let rows: Vec<&MySqlRow> = sets.get(2).into_iter().flat_map(|set| &set.rows).collect();
    let mut row_lengths = Vec::with_capacity(rows.len());
    for row in &rows {
        let version: i64 = row.try_get(0)?;
        row_lengths.push(lengths.get(&version).copied().unwrap_or(0));
    }
    let answered = rows.into_iter().take(bodies_in_one_call(&row_lengths));
    let taken = answered
        .map(|row| Ok((commit_record::<MySqlFormat>(row, id, &table)?, row)))
        .collect::<Result<Vec<_>>>()?;
    let (Some((first_taken, _)), Some((last_taken, _))) = (taken.first(), taken.last()) else {
        return Ok(Vec::new());
    };
    let values = [id.into(), first_taken.version.get().into(), last_taken.version.get().into()];
    let mut chunks: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
    for row in call.query(CHUNKS, &values).await?.iter().flat_map(|set| &set.rows) {
        chunks.entry(row.try_get(0)?).or_default().extend_from_slice(row.try_get(1)?);
    }
    taken
        .into_iter()
        .map(|(record, row)| {
            let zstd = chunks.remove(&record.version.get()).unwrap_or_default();
            Ok((record, commit_body::<MySqlFormat>(row, &table, zstd)?))
        })
        .collect()
}
