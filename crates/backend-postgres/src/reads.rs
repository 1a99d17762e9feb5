//! Reads of one table: opening it, its files, its history.
//!
//! Statements of one read need no common snapshot: what belongs to a version never changes once it
//! is committed, and where two statements are run the first only chooses the way of the second.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::action::{DomainMetadata, Txn};
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, Page, Snapshot, TableState, TombstoneRecord,
};
use deltalakedb_catalog_core::support::{BODIES_BYTES, fetch_limit, page};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::errors::DbResult;
use crate::rows::{
    Reader, TABLE_COLUMNS, commit_body, commit_columns, commit_record, corrupt, file_columns,
    file_record, key, table_columns, table_record, table_source,
};
use crate::session::{Args, Call, statements};
use crate::tables::{not_found, require_readable};

/// Up to so many candidate rows are sorted for each page; beyond, a page is read in the order of
/// the key, passing over rows that do not belong to it.
const SORTED_ROWS: i64 = 50_000;
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
            LEFT JOIN LATERAL (SELECT y.version, y.protocol FROM {p}protocols y
                WHERE y.table_key = t.table_key AND y.version <= c.version
                ORDER BY y.version DESC LIMIT 1) p ON true
            LEFT JOIN LATERAL (SELECT z.version, z.metadata FROM {p}metadata z
                WHERE z.table_key = t.table_key AND z.version <= c.version
                ORDER BY z.version DESC LIMIT 1) d ON true
            WHERE ",
            $table
        )
    };
}
/// Latest version whose timestamp is not after this parameter. Timestamps grow with the version.
macro_rules! at_time {
    ($time:literal) => {
        concat!(
            "(SELECT x.version FROM {p}commits x WHERE x.table_key = t.table_key AND x.timestamp_ms <= ",
            $time,
            " ORDER BY x.timestamp_ms DESC LIMIT 1)"
        )
    };
}
macro_rules! by_id {
    () => {
        "t.id = $1"
    };
}
macro_rules! by_name {
    () => {
        "t.namespace = $1 AND t.name = $2 AND t.drop_marker = ''"
    };
}

/// Tombstones by cursor. A row is left out if its file is in the table at the version, or there
/// is a later tombstone of it.
///
/// A scalar sub-select stays what it is, a look into the index for each row; of `NOT EXISTS` the
/// planner may make a join with all of the table's files.
macro_rules! tombstones {
    ($candidates:literal, $order:literal) => {
        concat!(
            "SELECT f.added_version, f.ordinal, f.removed_version, f.remove_action
            FROM {p}files f
            WHERE f.table_key = ",
            key!(),
            " AND ",
            $candidates,
            " AND f.removed_version <= $5 AND (f.added_version, f.ordinal) > ($2, $3)
              AND (
                SELECT 1 FROM {p}files x
                WHERE x.table_key = f.table_key AND x.file_key = f.file_key
                  AND x.removed_version = 9223372036854775807 AND x.path = f.path
                  AND x.dv_id = f.dv_id AND x.added_version <= $5
                LIMIT 1) IS NULL
              AND (
                SELECT 1 FROM {p}files x
                WHERE x.table_key = f.table_key AND x.file_key = f.file_key
                  AND x.removed_version < 9223372036854775807 AND x.path = f.path
                  AND x.dv_id = f.dv_id AND x.added_version <= $5
                  AND (x.removed_version > $5 OR (x.is_tombstone
                    AND (x.removed_version, x.added_version, x.ordinal)
                      > (f.removed_version, f.added_version, f.ordinal)))
                LIMIT 1) IS NULL
            ORDER BY ",
            $order,
            ", f.ordinal LIMIT $4"
        )
    };
}

// Statements that read a table's rows.
statements! {
    SNAPSHOT_HEAD_BY_ID: snapshot!("t.head_version", by_id!()),
    SNAPSHOT_HEAD_BY_NAME: snapshot!("t.head_version", by_name!()),
    SNAPSHOT_VERSION_BY_ID: snapshot!("$2::int8", by_id!()),
    SNAPSHOT_VERSION_BY_NAME: snapshot!("$3::int8", by_name!()),
    SNAPSHOT_TIME_BY_ID: snapshot!(at_time!("$2::int8"), by_id!()),
    SNAPSHOT_TIME_BY_NAME: snapshot!(at_time!("$3::int8"), by_name!()),
    /// Whether the table exists, and the number of files that went after a version, up to a
    /// limit.
    CLOSED_SINCE: concat!("SELECT EXISTS (SELECT 1 FROM {p}tables WHERE id = $1), (
        SELECT count(*) FROM (SELECT 1 FROM {p}files
            WHERE table_key = ", key!(), " AND removed_version > $2
              AND removed_version < 9223372036854775807 LIMIT $3) few)"),
    /// Where a page of files ends, if others follow: read from the index alone. Of a version that
    /// is not the latest one, two lists are merged: nothing.
    FILES_ACTIVE_END: concat!("SELECT added_version, ordinal FROM {p}files
        WHERE table_key = ", key!(), " AND removed_version = 9223372036854775807
          AND (added_version, ordinal) > ($2, $3) AND added_version <= $5
          AND (SELECT head_version FROM {p}tables WHERE id = $1) <= $5
        ORDER BY added_version, ordinal LIMIT 2 OFFSET $4"),
    /// Files that are still there, and those that were there at a version and went after it:
    /// few of them, which are sorted. `+ 0` keeps the planner, who does not know that they are few, from reading
    /// all files in the order of the key.
    FILES_FEW: concat!("SELECT * FROM (
            (SELECT ", file_columns!(), " FROM {p}files
            WHERE table_key = ", key!(), " AND removed_version = 9223372036854775807
              AND (added_version, ordinal) > ($2, $3) AND added_version <= $5
            ORDER BY added_version, ordinal LIMIT $4)
            UNION ALL
            (SELECT ", file_columns!(), " FROM {p}files
            WHERE table_key = ", key!(), " AND removed_version > $5
              AND removed_version < 9223372036854775807
              AND (added_version, ordinal) > ($2, $3) AND added_version <= $5
            ORDER BY added_version + 0, ordinal LIMIT $4)
        ) f ORDER BY added_version, ordinal LIMIT $4"),
    /// The same where many went after it: both kinds in the order of the key.
    FILES_MANY: concat!("SELECT ", file_columns!(), " FROM {p}files
        WHERE table_key = ", key!(), " AND (added_version, ordinal) > ($2, $3) AND added_version <= $5
          AND removed_version + 0 > $5
        ORDER BY added_version, ordinal LIMIT $4"),
    /// `OFFSET 0` keeps the planner from making a join of it: a key is a look into the index.
    FILES_AT: concat!("SELECT f.* FROM unnest($2::int8[], $3::int8[])
            WITH ORDINALITY AS k (key_version, key_ordinal, place)
        CROSS JOIN LATERAL (SELECT ", file_columns!(), " FROM {p}files
            WHERE table_key = ", key!(), " AND added_version = k.key_version
              AND ordinal = k.key_ordinal AND added_version <= $4 AND removed_version > $4
            OFFSET 0) f
        ORDER BY k.place"),
    /// Whether the table exists, and the number of tombstones that are young enough, up to a
    /// limit.
    TOMBSTONE_CANDIDATES: concat!("SELECT EXISTS (SELECT 1 FROM {p}tables WHERE id = $1), (
        SELECT count(*) FROM (SELECT 1 FROM {p}files
            WHERE table_key = ", key!(), " AND is_tombstone AND deletion_timestamp > $2 LIMIT $3) few)"),
    TOMBSTONES_FEW: tombstones!(
        "f.is_tombstone AND f.deletion_timestamp > $6", "f.added_version + 0"),
    TOMBSTONES_MANY: tombstones!(
        "(f.is_tombstone OR false) AND f.deletion_timestamp + 0 > $6", "f.added_version"),
    APP_TRANSACTIONS: concat!("SELECT DISTINCT ON (x.app_key) x.app_id, x.app_version, x.last_updated,
            x.version
        FROM {p}txns x WHERE x.table_key = ", key!(), " AND x.version <= $2
        ORDER BY x.app_key, x.version DESC"),
    DOMAIN_METADATA: concat!("SELECT DISTINCT ON (x.domain_key) x.domain, x.configuration, x.version,
            x.removed
        FROM {p}domain_metadata x WHERE x.table_key = ", key!(), " AND x.version <= $2
        ORDER BY x.domain_key, x.version DESC"),
    /// Times become versions, because both grow together: no row outside of the range is read.
    COMMITS: concat!("SELECT ", commit_columns!(), " FROM {p}commits c
        WHERE c.table_key = ", key!(), "
          AND c.version >= $2 AND c.version <= $3
          AND c.version >= (CASE WHEN $5::int8 IS NULL THEN 0 ELSE coalesce(
            (SELECT a.version FROM {p}commits a WHERE a.table_key = ", key!(), " AND a.timestamp_ms >= $5
                ORDER BY a.timestamp_ms LIMIT 1), 9223372036854775807) END)
          AND c.version <= (CASE WHEN $6::int8 IS NULL THEN 9223372036854775807 ELSE coalesce(
            (SELECT b.version FROM {p}commits b WHERE b.table_key = ", key!(), " AND b.timestamp_ms < $6
                ORDER BY b.timestamp_ms DESC LIMIT 1), -1) END)
        ORDER BY c.version DESC LIMIT $4"),
    /// With the length of what is stored, so that no more is fetched than is answered.
    BODIES: concat!("SELECT ", commit_columns!(), ", (
            SELECT coalesce(sum(octet_length(k.body)), 0)::int8 FROM {p}commit_chunks k
            WHERE k.table_key = c.table_key AND k.version = c.version)
        FROM {p}commits c
        WHERE c.table_key = ", key!(), " AND c.version >= $2 AND c.version <= $3 AND c.has_body
        ORDER BY c.version LIMIT $4"),
    CHUNKS: concat!("SELECT version, body FROM {p}commit_chunks
        WHERE table_key = ", key!(), " AND version >= $2 AND version <= $3 ORDER BY version, chunk_no"),
}

/// One query; see `snapshot!`.
pub(crate) async fn snapshot(call: &mut Call, table: &TableRef, at: At) -> DbResult<Snapshot> {
    let (by_id, by_name, point) = match at {
        At::Head => (SNAPSHOT_HEAD_BY_ID, SNAPSHOT_HEAD_BY_NAME, None),
        At::Version(version) => {
            (SNAPSHOT_VERSION_BY_ID, SNAPSHOT_VERSION_BY_NAME, Some(version.get()))
        }
        At::Timestamp(time) => (SNAPSHOT_TIME_BY_ID, SNAPSHOT_TIME_BY_NAME, Some(time.0)),
    };
    let (text, mut args) = match table {
        TableRef::Id(id) => (by_id, Args::of(*id)),
        TableRef::Name(name) => (by_name, Args::new().bind(name.namespace()).bind(name.name())),
    };
    if let Some(point) = point {
        args = args.bind(point);
    }
    let called = table.to_string();
    let not_found = || CatalogError::TableNotFound(called.clone());
    let row = call.fetch_optional(text, args).await?.ok_or_else(not_found)?;
    let record = table_record(&row)?;
    let hidden = record.state == TableState::Importing && matches!(table, TableRef::Name(_));
    let Some(head) = record.head.filter(|_| !hidden) else {
        return Err(not_found().into());
    };
    let r = Reader::new(&row, &called, None);
    let at_version = TABLE_COLUMNS;
    // History below the base has commits, but no state.
    let version = r.version_opt(at_version)?.filter(|v| *v >= record.base_version);
    let Some(version) = version else {
        return Err(CatalogError::VersionNotFound {
            version: match at {
                At::Head => head.to_string(),
                At::Version(v) => v.to_string(),
                At::Timestamp(t) => format!("at {t} ms"),
            },
            table: called,
            earliest: record.base_version,
            latest: head,
        }
        .into());
    };
    let r = Reader::new(&row, &called, Some(version.get()));
    let (Some(protocol_version), Some(metadata_version)) =
        (r.version_opt(at_version + 4)?, r.version_opt(at_version + 6)?)
    else {
        let what = "protocol or metadata";
        return Err(corrupt(&called, Some(version.get()), what, "there is none at this version"));
    };
    call.session.note_size(r.get(at_version + 2)?);
    Ok(Snapshot {
        table: record,
        version,
        timestamp: TimestampMs(r.get(at_version + 1)?),
        protocol: r.json(at_version + 5)?,
        protocol_version,
        metadata: r.json(at_version + 7)?,
        metadata_version,
        num_files: r.count(at_version + 2)?,
        size_bytes: r.count(at_version + 3)?,
    })
}

/// Where a page starts: before everything, or after a cursor.
fn start(after: Option<FileCursor>) -> (i64, i64) {
    after.map_or((-1, -1), |cursor| (cursor.added_version.get(), cursor.ordinal))
}

/// Whether a table has more candidates than are sorted.
async fn many(call: &mut Call, sql: &'static str, id: TableId, bound: i64) -> DbResult<bool> {
    let args = Args::of(id).bind(bound).bind(SORTED_ROWS + 1);
    let row = call.fetch_one(sql, args).await?;
    if !row.try_get::<bool, _>(0)? {
        return Err(not_found(id).into());
    }
    Ok(row.try_get::<i64, _>(1)? > SORTED_ROWS)
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
    let many = many(call, CLOSED_SINCE, id, version.get()).await?;
    let text = if many { FILES_MANY } else { FILES_FEW };
    let (added, ordinal) = start(after);
    let args = Args::of(id).bind(added).bind(ordinal).bind(fetch_limit(limit)).bind(version.get());
    let table = id.to_string();
    let rows = call.fetch(text, args).await?;
    let items = rows.iter().map(|row| file_record(row, &table)).collect::<DbResult<Vec<_>>>()?;
    Ok(page(items, limit, |file| file.cursor))
}

pub(crate) async fn files_end(
    call: &mut Call,
    id: TableId,
    version: Version,
    after: FileCursor,
    limit: usize,
) -> DbResult<Option<FileCursor>> {
    let (added, ordinal) = start(Some(after));
    let args =
        Args::of(id).bind(added).bind(ordinal).bind(fetch_limit(limit) - 2).bind(version.get());
    let rows = call.fetch(FILES_ACTIVE_END, args).await?;
    let [last, _] = rows.as_slice() else { return Ok(None) };
    let table = id.to_string();
    let r = Reader::new(last, &table, None);
    Ok(Some(FileCursor { added_version: r.version(0)?, ordinal: r.get(1)? }))
}

/// Single files by their key.
pub(crate) async fn files_at(
    call: &mut Call,
    id: TableId,
    version: Version,
    cursors: &[FileCursor],
) -> DbResult<Vec<FileRecord>> {
    let versions: Vec<i64> = cursors.iter().map(|cursor| cursor.added_version.get()).collect();
    let ordinals: Vec<i64> = cursors.iter().map(|cursor| cursor.ordinal).collect();
    let args = Args::of(id).bind(versions).bind(ordinals).bind(version.get());
    let table = id.to_string();
    call.fetch(FILES_AT, args).await?.iter().map(|row| file_record(row, &table)).collect()
}

pub(crate) async fn list_tombstones(
    call: &mut Call,
    id: TableId,
    version: Version,
    deleted_after: TimestampMs,
    after: Option<FileCursor>,
    limit: usize,
) -> DbResult<Page<TombstoneRecord, FileCursor>> {
    let many = many(call, TOMBSTONE_CANDIDATES, id, deleted_after.0).await?;
    let text = if many { TOMBSTONES_MANY } else { TOMBSTONES_FEW };
    let (added, ordinal) = start(after);
    let args = Args::of(id)
        .bind(added)
        .bind(ordinal)
        .bind(fetch_limit(limit))
        .bind(version.get())
        .bind(deleted_after.0);
    let table = id.to_string();
    let mut items = Vec::new();
    for row in &call.fetch(text, args).await? {
        let removed = Reader::new(row, &table, None).version(2)?;
        let r = Reader::new(row, &table, Some(removed.get()));
        items.push(TombstoneRecord {
            cursor: FileCursor { added_version: r.version(0)?, ordinal: r.get(1)? },
            removed_version: removed,
            remove: r.json(3)?,
        });
    }
    Ok(page(items, limit, |tombstone| tombstone.cursor))
}

/// The rows of a read of a table; without any, whether there is such a table is looked at too.
async fn rows_of(
    call: &mut Call,
    sql: &'static str,
    id: TableId,
    args: Args,
) -> DbResult<Vec<PgRow>> {
    let rows = call.fetch(sql, args).await?;
    if rows.is_empty() {
        require_readable(call, id).await?;
    }
    Ok(rows)
}

/// Sorted here: they are found by digest, and are few.
pub(crate) async fn app_transactions(
    call: &mut Call,
    id: TableId,
    version: Version,
) -> DbResult<Vec<Txn>> {
    let args = Args::of(id).bind(version.get());
    let table = id.to_string();
    let mut txns = Vec::new();
    for row in &rows_of(call, APP_TRANSACTIONS, id, args).await? {
        let r = Reader::new(row, &table, row.try_get(3).ok());
        txns.push(Txn { app_id: r.get(0)?, version: r.get(1)?, last_updated: r.get(2)? });
    }
    txns.sort_unstable_by(|a, b| a.app_id.cmp(&b.app_id));
    Ok(txns)
}

/// Sorted here: they are found by digest, and are few.
pub(crate) async fn domain_metadata(
    call: &mut Call,
    id: TableId,
    version: Version,
) -> DbResult<Vec<DomainMetadata>> {
    let args = Args::of(id).bind(version.get());
    let table = id.to_string();
    let mut domains = Vec::new();
    for row in &rows_of(call, DOMAIN_METADATA, id, args).await? {
        let r = Reader::new(row, &table, row.try_get(2).ok());
        if !r.get::<bool>(3)? {
            let (domain, configuration) = (r.get(0)?, r.get(1)?);
            domains.push(DomainMetadata { domain, configuration, removed: false });
        }
    }
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
    let from = filter.from_version.map_or(0, Version::get);
    let mut to = filter.to_version.map_or(i64::MAX, Version::get);
    if let Some(before) = before {
        to = to.min(before.get() - 1);
    }
    let args = Args::of(id)
        .bind(from)
        .bind(to)
        .bind(fetch_limit(limit))
        .bind(filter.from_time.map(|time| time.0))
        .bind(filter.to_time.map(|time| time.0));
    let table = id.to_string();
    let rows = rows_of(call, COMMITS, id, args).await?;
    let items =
        rows.iter().map(|row| commit_record(row, id, &table)).collect::<DbResult<Vec<_>>>()?;
    Ok(page(items, limit, |commit| commit.version))
}

pub(crate) async fn read_bodies(
    call: &mut Call,
    id: TableId,
    from: Version,
    to: Version,
    limit: usize,
) -> DbResult<Vec<(CommitRecord, CommitBody)>> {
    let limited = i64::try_from(limit.max(1)).unwrap_or(MAX_BODIES).min(MAX_BODIES);
    let args = Args::of(id).bind(from.get()).bind(to.get()).bind(limited);
    let rows = rows_of(call, BODIES, id, args).await?;
    let table = id.to_string();
    let mut taken: Vec<(CommitRecord, &PgRow)> = Vec::new();
    let mut bytes = 0_usize;
    for row in &rows {
        let length: i64 = row.try_get(16)?;
        bytes = bytes.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        if bytes > BODIES_BYTES && !taken.is_empty() {
            break;
        }
        taken.push((commit_record(row, id, &table)?, row));
    }
    let (Some((first, _)), Some((last, _))) = (taken.first(), taken.last()) else {
        return Ok(Vec::new());
    };
    // Commits are never changed: what this reads belongs to them.
    let args = Args::of(id).bind(first.version.get()).bind(last.version.get());
    let mut chunks: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
    for row in &call.fetch(CHUNKS, args).await? {
        chunks.entry(row.try_get(0)?).or_default().extend_from_slice(row.try_get(1)?);
    }
    taken
        .into_iter()
        .map(|(record, row)| {
            let zstd = chunks.remove(&record.version.get()).unwrap_or_default();
            Ok((record, commit_body(row, &table, zstd)?))
        })
        .collect()
}
