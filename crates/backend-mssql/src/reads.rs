//! Reads of one table: opening it, its files, its history.
//!
//! Each is one request outside of a transaction, at READ COMMITTED with or without row versions.
//! That is enough, because what belongs to a version never changes once it is committed: the
//! version is decided first, and later commits only write rows that a predicate on that version
//! leaves out. The one row that is changed is a file's, when it is removed: see [`list_files`].

use deltalakedb_catalog_core::action::{DomainMetadata, Txn};
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, Page, Snapshot, TableState, TombstoneRecord,
};
use deltalakedb_catalog_core::support::{BODIES_BYTES, merge, page};
use tiberius::{ColumnData, Row};

use crate::errors::DbResult;
use crate::rows::text::statements;
use crate::rows::{
    Reader, TABLE_COLUMNS, big, big_opt, commit_body, commit_columns, commit_record, corrupt,
    file_columns, file_record, id as table_key, name_key, table_columns, table_record,
    table_source,
};
use crate::session::{Lease, Sets};
use crate::tables::{bounded, fetch, first, not_found};

/// Most commits in one call of `read_bodies`.
const MAX_BODIES: usize = 10_000;

/// A snapshot is one query: which table, and which version of it.
macro_rules! snapshot {
    ($commit:expr, $table:expr) => {
        concat!(
            "SELECT ",
            table_columns!(),
            ", c.version, c.timestamp_ms, c.total_files, c.total_bytes,
                p.version, p.protocol, d.version, d.metadata
            FROM ",
            table_source!(),
            " OUTER APPLY (SELECT TOP (1) x.version, x.timestamp_ms, x.total_files, x.total_bytes
                FROM {p}commits x WHERE x.table_id = t.id AND ",
            $commit,
            ") c
            OUTER APPLY (SELECT TOP (1) y.version, y.protocol FROM {p}protocols y
                WHERE y.table_id = t.id AND y.version <= c.version ORDER BY y.version DESC) p
            OUTER APPLY (SELECT TOP (1) z.version, z.metadata FROM {p}metadata z
                WHERE z.table_id = t.id AND z.version <= c.version ORDER BY z.version DESC) d
            WHERE ",
            $table
        )
    };
}
macro_rules! at_head {
    () => {
        "x.version = t.head_version"
    };
}
macro_rules! at_version {
    () => {
        "x.version = @P2"
    };
}
/// Latest version whose timestamp is not after this parameter. Timestamps grow with the version.
macro_rules! at_time {
    () => {
        "x.timestamp_ms <= @P2 ORDER BY x.timestamp_ms DESC"
    };
}
macro_rules! by_id {
    () => {
        "t.id = @P1"
    };
}
macro_rules! by_name {
    () => {
        "t.name_key = @P1 AND t.drop_marker = N''"
    };
}

statements! {
    SNAPSHOT_HEAD_BY_ID: snapshot!(at_head!(), by_id!()),
    SNAPSHOT_HEAD_BY_NAME: snapshot!(at_head!(), by_name!()),
    SNAPSHOT_VERSION_BY_ID: snapshot!(at_version!(), by_id!()),
    SNAPSHOT_VERSION_BY_NAME: snapshot!(at_version!(), by_name!()),
    SNAPSHOT_TIME_BY_ID: snapshot!(at_time!(), by_id!()),
    SNAPSHOT_TIME_BY_NAME: snapshot!(at_time!(), by_name!()),
    /// Files that are still there, by cursor, up to a version; then those that went since,
    /// where they are few. Where they are many, both kinds in the order of the key: else each
    /// page would sort all that went since.
    FILES: concat!("DECLARE @closed BIGINT;
        SELECT id FROM {p}tables WHERE id = @P1;
        SELECT @closed = COUNT(*) FROM (SELECT TOP (50001) f.ordinal FROM {p}files f
            WHERE f.table_id = @P1 AND f.removed_version > @P5
              AND f.removed_version < 9223372036854775807) few;
        IF @closed > 50000
            SELECT TOP (@P4) ", file_columns!(), " FROM {p}files
            WHERE table_id = @P1 AND added_version >= @P2 AND added_version <= @P5
              AND (added_version > @P2 OR ordinal > @P3) AND removed_version > @P5
            ORDER BY added_version, ordinal
        ELSE
        BEGIN
            SELECT TOP (@P4) ", file_columns!(), " FROM {p}files
            WHERE table_id = @P1 AND removed_version = 9223372036854775807
              AND added_version >= @P2 AND added_version <= @P5
              AND (added_version > @P2 OR ordinal > @P3)
            ORDER BY added_version, ordinal;
            SELECT TOP (@P4) ", file_columns!(), " FROM {p}files
            WHERE table_id = @P1 AND removed_version > @P5
              AND removed_version < 9223372036854775807
              AND added_version >= @P2 AND added_version <= @P5
              AND (added_version > @P2 OR ordinal > @P3)
            ORDER BY added_version, ordinal
        END"),
    /// A row is left out if the file is in the table at the version, or there is a later
    /// tombstone of it.
    TOMBSTONES: "SELECT id FROM {p}tables WHERE id = @P1;
        SELECT TOP (@P4) f.added_version, f.ordinal, f.removed_version, f.remove_action
        FROM {p}files f
        WHERE f.table_id = @P1 AND f.is_tombstone = 1 AND f.deletion_timestamp > @P6
          AND f.removed_version <= @P5 AND f.added_version >= @P2
          AND (f.added_version > @P2 OR f.ordinal > @P3)
          AND NOT EXISTS (SELECT 1 FROM {p}files x
            WHERE x.table_id = f.table_id AND x.file_key = f.file_key
              AND x.path = f.path AND x.dv_id = f.dv_id AND x.added_version <= @P5
              AND (x.removed_version > @P5 OR (x.is_tombstone = 1 AND (
                x.removed_version > f.removed_version
                OR (x.removed_version = f.removed_version
                    AND x.added_version > f.added_version)
                OR (x.removed_version = f.removed_version
                    AND x.added_version = f.added_version AND x.ordinal > f.ordinal)))))
        ORDER BY f.added_version, f.ordinal",
    APP_TRANSACTIONS: "SELECT id FROM {p}tables WHERE id = @P1;
        SELECT x.app_id, x.app_version, x.last_updated, x.version
        FROM {p}txns x JOIN (SELECT app_key, MAX(version) AS version FROM {p}txns
            WHERE table_id = @P1 AND version <= @P2 GROUP BY app_key) latest
          ON latest.app_key = x.app_key AND latest.version = x.version
        WHERE x.table_id = @P1",
    DOMAIN_METADATA: "SELECT id FROM {p}tables WHERE id = @P1;
        SELECT x.domain, x.configuration, x.version
        FROM {p}domain_metadata x JOIN (SELECT domain_key, MAX(version) AS version
            FROM {p}domain_metadata
            WHERE table_id = @P1 AND version <= @P2 GROUP BY domain_key) latest
          ON latest.domain_key = x.domain_key AND latest.version = x.version
        WHERE x.table_id = @P1 AND x.removed = 0",
    /// Times become versions, because both grow together: no row outside of the range is
    /// read.
    COMMITS: concat!("DECLARE @from BIGINT, @to BIGINT;
        SET @from = @P2;
        SET @to = @P3;
        SELECT id FROM {p}tables WHERE id = @P1;
        IF @P5 IS NOT NULL
        BEGIN
            SELECT @from = CASE WHEN MIN(version) IS NULL THEN 9223372036854775807
                WHEN MIN(version) > @from THEN MIN(version) ELSE @from END
            FROM {p}commits WHERE table_id = @P1 AND timestamp_ms >= @P5
        END;
        IF @P6 IS NOT NULL
        BEGIN
            SELECT @to = CASE WHEN MAX(version) IS NULL THEN -1
                WHEN MAX(version) < @to THEN MAX(version) ELSE @to END
            FROM {p}commits WHERE table_id = @P1 AND timestamp_ms < @P6
        END;
        SELECT TOP (@P4) ", commit_columns!(), " FROM {p}commits
        WHERE table_id = @P1 AND version >= @from AND version <= @to
        ORDER BY version DESC"),
    BODIES: concat!("SELECT id FROM {p}tables WHERE id = @P1;
        SELECT TOP (@P4) ", commit_columns!(), " FROM {p}commits
        WHERE table_id = @P1 AND version >= @P2 AND version <= @P3 AND has_body = 1
        ORDER BY version"),
    /// Lengths first, so that no more is fetched than is answered.
    LENGTHS: "SELECT version, SUM(CAST(DATALENGTH(body) AS BIGINT)) FROM {p}commit_chunks
        WHERE table_id = @P1 AND version >= @P2 AND version <= @P3
        GROUP BY version ORDER BY version",
    CHUNKS: "SELECT version, body FROM {p}commit_chunks
        WHERE table_id = @P1 AND version >= @P2 AND version <= @P3
        ORDER BY version, chunk_no",
}

/// One query; see `snapshot!`.
pub(crate) async fn snapshot(lease: &mut Lease, table: &TableRef, at: At) -> DbResult<Snapshot> {
    let (by_id, by_name, point) = match at {
        At::Head => (SNAPSHOT_HEAD_BY_ID, SNAPSHOT_HEAD_BY_NAME, None),
        At::Version(version) => {
            (SNAPSHOT_VERSION_BY_ID, SNAPSHOT_VERSION_BY_NAME, Some(version.get()))
        }
        At::Timestamp(time) => (SNAPSHOT_TIME_BY_ID, SNAPSHOT_TIME_BY_NAME, Some(time.0)),
    };
    let (statement, mut values) = match table {
        TableRef::Id(id) => (by_id, vec![table_key(*id)]),
        TableRef::Name(name) => (by_name, vec![name_key(name)]),
    };
    values.extend(point.map(big));
    let sets = lease.run(statement, values).await?;

    let called = table.to_string();
    let not_found = || CatalogError::TableNotFound(called.clone());
    let row = first(&sets).ok_or_else(not_found)?;
    let record = table_record(row)?;
    // A name is found by its digest, and importing tables are hidden from it.
    let hidden = match table {
        TableRef::Id(_) => false,
        TableRef::Name(name) => record.state == TableState::Importing || record.name != *name,
    };
    let Some(head) = record.head.filter(|_| !hidden) else {
        return Err(not_found().into());
    };
    let r = Reader::new(row, &called, None);
    let at_version = TABLE_COLUMNS;
    // History below the base has commits, but no state.
    let version = r.opt_version(at_version)?.filter(|v| *v >= record.base_version);
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
    let r = Reader::new(row, &called, Some(version.get()));
    let (Some(protocol_version), Some(metadata_version)) =
        (r.opt_version(at_version + 4)?, r.opt_version(at_version + 6)?)
    else {
        let what = "protocol or metadata";
        return Err(corrupt(&called, Some(version.get()), what, "there is none at this version"));
    };
    Ok(Snapshot {
        table: record,
        version,
        timestamp: r.time(at_version + 1)?,
        protocol: r.json(at_version + 5)?,
        protocol_version,
        metadata: r.json(at_version + 7)?,
        metadata_version,
        num_files: r.count(at_version + 2)?,
        size_bytes: r.count(at_version + 3)?,
    })
}

/// Where a page starts: before everything, or after a cursor.
fn start(after: Option<FileCursor>) -> [ColumnData<'static>; 2] {
    let (added, ordinal) = after.map_or((-1, -1), |c| (c.added_version.get(), c.ordinal));
    [big(added), big(ordinal)]
}

/// The result sets after the one that says whether the table exists.
fn of_table(sets: Sets, id: TableId) -> DbResult<std::vec::IntoIter<Vec<Row>>> {
    let mut sets = sets.into_iter();
    match sets.next() {
        Some(rows) if !rows.is_empty() => Ok(sets),
        _ => Err(not_found(id).into()),
    }
}

/// Files at a version.
///
/// The cursor is a row's key, which never changes, so pages stay right while commits go on. Rows
/// that are removed between the two statements go from the first set to the second, which is read
/// later: none is missed, and one that is in both is taken once.
pub(crate) async fn list_files(
    lease: &mut Lease,
    id: TableId,
    version: Version,
    after: Option<FileCursor>,
    limit: usize,
) -> DbResult<Page<FileRecord, FileCursor>> {
    let [added, ordinal] = start(after);
    let values = vec![table_key(id), added, ordinal, fetch(limit), big(version.get())];
    let sets = of_table(lease.run(FILES, values).await?, id)?;
    let table = id.to_string();
    let mut files: Vec<FileRecord> = Vec::new();
    for set in sets {
        let set = set.iter().map(|row| file_record(row, &table)).collect::<DbResult<_>>()?;
        files = merge(files, set);
    }
    files.dedup_by_key(|file| file.cursor);
    files.truncate(bounded(limit) + 1);
    Ok(page(files, bounded(limit), |file| file.cursor))
}

pub(crate) async fn list_tombstones(
    lease: &mut Lease,
    id: TableId,
    version: Version,
    deleted_after: TimestampMs,
    after: Option<FileCursor>,
    limit: usize,
) -> DbResult<Page<TombstoneRecord, FileCursor>> {
    let [added, ordinal] = start(after);
    let values =
        vec![table_key(id), added, ordinal, fetch(limit), big(version.get()), big(deleted_after.0)];
    let sets = of_table(lease.run(TOMBSTONES, values).await?, id)?;
    let table = id.to_string();
    let mut items = Vec::new();
    for row in sets.flatten() {
        let removed = Reader::new(&row, &table, None).version(2)?;
        let r = Reader::new(&row, &table, Some(removed.get()));
        items.push(TombstoneRecord {
            cursor: FileCursor { added_version: r.version(0)?, ordinal: r.i64(1)? },
            removed_version: removed,
            remove: r.json(3)?,
        });
    }
    Ok(page(items, bounded(limit), |tombstone| tombstone.cursor))
}

/// Sorted here: the server sorts text by a language's rules.
pub(crate) async fn app_transactions(
    lease: &mut Lease,
    id: TableId,
    version: Version,
) -> DbResult<Vec<Txn>> {
    let values = vec![table_key(id), big(version.get())];
    let sets = of_table(lease.run(APP_TRANSACTIONS, values).await?, id)?;
    let table = id.to_string();
    let mut txns = Vec::new();
    for row in sets.flatten() {
        let r = Reader::new(&row, &table, None);
        txns.push(Txn { app_id: r.text(0)?, version: r.i64(1)?, last_updated: r.opt_i64(2)? });
    }
    txns.sort_unstable_by(|a, b| a.app_id.cmp(&b.app_id));
    Ok(txns)
}

pub(crate) async fn domain_metadata(
    lease: &mut Lease,
    id: TableId,
    version: Version,
) -> DbResult<Vec<DomainMetadata>> {
    let values = vec![table_key(id), big(version.get())];
    let sets = of_table(lease.run(DOMAIN_METADATA, values).await?, id)?;
    let table = id.to_string();
    let mut domains = Vec::new();
    for row in sets.flatten() {
        let r = Reader::new(&row, &table, None);
        domains.push(DomainMetadata {
            domain: r.text(0)?,
            configuration: r.text(1)?,
            removed: false,
        });
    }
    domains.sort_unstable_by(|a, b| a.domain.cmp(&b.domain));
    Ok(domains)
}

pub(crate) async fn list_commits(
    lease: &mut Lease,
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
    let values = vec![
        table_key(id),
        big(from),
        big(to),
        fetch(limit),
        big_opt(filter.from_time.map(|time| time.0)),
        big_opt(filter.to_time.map(|time| time.0)),
    ];
    let sets = of_table(lease.run(COMMITS, values).await?, id)?;
    let table = id.to_string();
    let items =
        sets.flatten().map(|row| commit_record(&row, id, &table)).collect::<DbResult<Vec<_>>>()?;
    Ok(page(items, bounded(limit), |commit| commit.version))
}

pub(crate) async fn read_bodies(
    lease: &mut Lease,
    id: TableId,
    from: Version,
    to: Version,
    limit: usize,
) -> DbResult<Vec<(CommitRecord, CommitBody)>> {
    let table = id.to_string();
    let most = i64::try_from(limit.clamp(1, MAX_BODIES)).unwrap_or(1);
    let values = vec![table_key(id), big(from.get()), big(to.get()), big(most)];
    let sets = of_table(lease.run(BODIES, values).await?, id)?;
    let rows: Vec<Row> = sets.flatten().collect();
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        records.push(commit_record(row, id, &table)?);
    }
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return Ok(Vec::new());
    };
    let range = |first: i64, last: i64| vec![table_key(id), big(first), big(last)];
    let first = first.version.get();
    let lengths = lease.run(LENGTHS, range(first, last.version.get())).await?;
    let last = within(&lengths, &table, last.version.get())?;
    let chunks = lease.run(CHUNKS, range(first, last)).await?;
    let mut chunks = chunks.iter().flatten().peekable();
    let mut out = Vec::new();
    for (record, row) in records.into_iter().zip(&rows) {
        let version = record.version.get();
        if version > last {
            break;
        }
        let mut zstd = Vec::new();
        while let Some(chunk) = chunks.peek() {
            let r = Reader::new(chunk, &table, Some(version));
            let of = r.i64(0)?;
            if of > version {
                break;
            }
            if of == version {
                zstd.extend_from_slice(r.opt_bytes(1)?.unwrap_or_default());
            }
            chunks.next();
        }
        out.push((record, commit_body(row, &table, zstd)?));
    }
    Ok(out)
}

/// The last version up to which the bodies are about as many bytes as a call may answer; the first
/// one always is.
fn within(lengths: &Sets, table: &str, last: i64) -> DbResult<i64> {
    let mut sum = 0_usize;
    let mut previous = None;
    for row in lengths.iter().flatten() {
        let r = Reader::new(row, table, None);
        let version = r.i64(0)?;
        sum = sum.saturating_add(usize::try_from(r.i64(1)?).unwrap_or(usize::MAX));
        if sum > BODIES_BYTES
            && let Some(previous) = previous
        {
            return Ok(previous);
        }
        previous = Some(version);
    }
    Ok(last)
}
