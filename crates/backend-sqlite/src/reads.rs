//! Reads of one table: opening it, its files, its history.

use deltalakedb_catalog_core::action::{DomainMetadata, Txn};
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, Page, Snapshot, TableState, TombstoneRecord,
};
use deltalakedb_catalog_core::support::{BODIES_BYTES, fetch_limit, merge, page};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params, params_from_iter};

use crate::errors::DbResult;
use crate::rows::text::statements;
use crate::rows::{
    Reader, TABLE_COLUMNS, Table, commit_body, commit_columns, commit_record, corrupt,
    file_columns, file_record, table_columns, table_record, table_source,
};
use crate::session::Db;
use crate::tables::{not_found, require_readable};

/// Up to so many candidate rows are sorted for each page; beyond, a page is read in the order of
/// the key, passing over rows that do not belong to it.
const SORTED_ROWS: i64 = 50_000;

/// A snapshot is one query: which table, and which version of it.
macro_rules! snapshot {
    ($version:expr, $table:expr) => {
        concat!(
            "SELECT ",
            table_columns!(),
            ", c.version, c.timestamp_ms, c.total_files,
                c.total_bytes, p.version, p.protocol, d.version, d.metadata
            FROM ",
            table_source!(),
            "
            LEFT JOIN {p}commits c ON c.table_key = t.table_key AND c.version = ",
            $version,
            "
            LEFT JOIN {p}protocols p ON p.table_key = t.table_key AND p.version = (
                SELECT max(version) FROM {p}protocols
                WHERE table_key = t.table_key AND version <= c.version)
            LEFT JOIN {p}metadata d ON d.table_key = t.table_key AND d.version = (
                SELECT max(version) FROM {p}metadata
                WHERE table_key = t.table_key AND version <= c.version)
            WHERE ",
            $table
        )
    };
}
/// Latest version whose timestamp is not after this parameter. Timestamps grow with the version.
macro_rules! at_time {
    ($time:literal) => {
        concat!(
            "(SELECT version FROM {p}commits WHERE table_key = t.table_key AND timestamp_ms <= ",
            $time,
            " ORDER BY timestamp_ms DESC LIMIT 1)"
        )
    };
}
macro_rules! by_id {
    () => {
        "t.id = ?1"
    };
}
macro_rules! by_name {
    () => {
        "t.namespace = ?1 AND t.name = ?2 AND t.drop_marker = ''"
    };
}

/// Rows with the same key as `f` that keep it from being a tombstone of version ?5: the file is in
/// the table, or there is a later tombstone.
macro_rules! not_superseded {
    () => {
        "NOT EXISTS (
            SELECT 1 FROM {p}files x INDEXED BY {p}files_by_key
            WHERE x.table_key = f.table_key AND x.file_key = f.file_key
              AND x.path = f.path AND x.dv_id = f.dv_id AND x.added_version <= ?5
              AND (x.removed_version > ?5
                OR (x.is_tombstone = 1
                  AND (x.removed_version, x.added_version, x.ordinal)
                    > (f.removed_version, f.added_version, f.ordinal))))"
    };
}

statements! {
    SNAPSHOT_HEAD_BY_ID: snapshot!("t.head_version", by_id!()),
    SNAPSHOT_HEAD_BY_NAME: snapshot!("t.head_version", by_name!()),
    SNAPSHOT_VERSION_BY_ID: snapshot!("?2", by_id!()),
    SNAPSHOT_VERSION_BY_NAME: snapshot!("?3", by_name!()),
    SNAPSHOT_TIME_BY_ID: snapshot!(at_time!("?2"), by_id!()),
    SNAPSHOT_TIME_BY_NAME: snapshot!(at_time!("?3"), by_name!()),
    /// The head of a table that can be read.
    HEAD: "SELECT table_key, head_version FROM {p}tables WHERE id = ?1",
    /// Files that are still there, by cursor, up to a version.
    FILES_ACTIVE: concat!("SELECT ", file_columns!(), "
        FROM {p}files INDEXED BY {p}files_by_state
        WHERE table_key = ?1 AND removed_version = 9223372036854775807
          AND (added_version, ordinal) > (?2, ?3) AND added_version <= ?5
        ORDER BY added_version, ordinal LIMIT ?4"),
    /// Where a page of them ends, and whether others follow: read from the index alone.
    FILES_ACTIVE_END: "SELECT added_version, ordinal
        FROM {p}files INDEXED BY {p}files_by_state
        WHERE table_key = ?1 AND removed_version = 9223372036854775807
          AND (added_version, ordinal) > (?2, ?3) AND added_version <= ?5
        ORDER BY added_version, ordinal LIMIT 2 OFFSET ?4",
    /// Number of files that went after a version, up to a limit.
    CLOSED_SINCE: "SELECT count(*) FROM (
        SELECT 1 FROM {p}files INDEXED BY {p}files_by_state
        WHERE table_key = ?1 AND removed_version > ?2
          AND removed_version < 9223372036854775807 LIMIT ?3)",
    /// Files that were there at a version and went after it: few of them.
    FILES_CLOSED_FEW: concat!("SELECT ", file_columns!(), "
        FROM {p}files INDEXED BY {p}files_by_state
        WHERE table_key = ?1 AND removed_version > ?5
          AND removed_version < 9223372036854775807 AND added_version <= ?5
          AND (added_version, ordinal) > (?2, ?3)
        ORDER BY added_version, ordinal LIMIT ?4"),
    /// Files at a version where many went after it: both kinds in the order of the key.
    FILES_AT_MANY: concat!("SELECT ", file_columns!(), " FROM {p}files
        WHERE table_key = ?1 AND (added_version, ordinal) > (?2, ?3) AND added_version <= ?5
          AND +removed_version > ?5
        ORDER BY added_version, ordinal LIMIT ?4"),
    /// Number of tombstones that are young enough, up to a limit.
    TOMBSTONE_CANDIDATES: "SELECT count(*) FROM (
        SELECT 1 FROM {p}files INDEXED BY {p}files_tombstones
        WHERE table_key = ?1 AND is_tombstone = 1 AND deletion_timestamp > ?2 LIMIT ?3)",
    TOMBSTONES_FEW: concat!("SELECT f.added_version, f.ordinal, f.removed_version,
            f.remove_action
        FROM {p}files f INDEXED BY {p}files_tombstones
        WHERE f.table_key = ?1 AND f.is_tombstone = 1 AND f.deletion_timestamp > ?6
          AND f.removed_version <= ?5 AND (f.added_version, f.ordinal) > (?2, ?3)
          AND ", not_superseded!(), "
        ORDER BY f.added_version, f.ordinal LIMIT ?4"),
    TOMBSTONES_MANY: concat!("SELECT f.added_version, f.ordinal, f.removed_version,
            f.remove_action
        FROM {p}files f
        WHERE f.table_key = ?1 AND (f.added_version, f.ordinal) > (?2, ?3)
          AND f.added_version <= ?5 AND +f.is_tombstone = 1 AND +f.deletion_timestamp > ?6
          AND +f.removed_version <= ?5 AND ", not_superseded!(), "
        ORDER BY f.added_version, f.ordinal LIMIT ?4"),
    /// One step of the recursion a distinct application, however many rows it has.
    APP_TRANSACTIONS: "WITH RECURSIVE apps (app_id) AS (
            SELECT min(app_id) FROM {p}txns WHERE table_key = ?1
            UNION ALL
            SELECT (SELECT min(n.app_id) FROM {p}txns n
                WHERE n.table_key = ?1 AND n.app_id > apps.app_id)
            FROM apps WHERE apps.app_id IS NOT NULL)
        SELECT x.app_id, x.app_version, x.last_updated, x.version
        FROM apps JOIN {p}txns x ON x.table_key = ?1 AND x.app_id = apps.app_id
          AND x.version = (SELECT max(y.version) FROM {p}txns y
            WHERE y.table_key = ?1 AND y.app_id = apps.app_id AND y.version <= ?2)
        ORDER BY x.app_id",
    DOMAIN_METADATA: "WITH RECURSIVE domains (domain) AS (
            SELECT min(domain) FROM {p}domain_metadata WHERE table_key = ?1
            UNION ALL
            SELECT (SELECT min(n.domain) FROM {p}domain_metadata n
                WHERE n.table_key = ?1 AND n.domain > domains.domain)
            FROM domains WHERE domains.domain IS NOT NULL)
        SELECT x.domain, x.configuration, x.version
        FROM domains JOIN {p}domain_metadata x ON x.table_key = ?1
          AND x.domain = domains.domain
          AND x.version = (SELECT max(y.version) FROM {p}domain_metadata y
            WHERE y.table_key = ?1 AND y.domain = domains.domain AND y.version <= ?2)
        WHERE x.removed = 0
        ORDER BY x.domain",
    FIRST_SINCE: "SELECT version FROM {p}commits
        WHERE table_key = ?1 AND timestamp_ms >= ?2 ORDER BY timestamp_ms LIMIT 1",
    LAST_BEFORE: "SELECT version FROM {p}commits
        WHERE table_key = ?1 AND timestamp_ms < ?2 ORDER BY timestamp_ms DESC LIMIT 1",
    COMMITS: concat!("SELECT ", commit_columns!(), " FROM {p}commits
        WHERE table_key = ?1 AND version >= ?2 AND version <= ?3
        ORDER BY version DESC LIMIT ?4"),
    BODIES: concat!("SELECT ", commit_columns!(), " FROM {p}commits
        WHERE table_key = ?1 AND version >= ?2 AND version <= ?3 AND has_body = 1
        ORDER BY version"),
    CHUNKS: "SELECT body FROM {p}commit_chunks
        WHERE table_key = ?1 AND version = ?2 ORDER BY chunk_no",
}

/// One query; see `snapshot!`.
pub(crate) fn snapshot(db: Db<'_>, table: &TableRef, at: At) -> DbResult<Snapshot> {
    let (by_id, by_name, point) = match at {
        At::Head => (SNAPSHOT_HEAD_BY_ID, SNAPSHOT_HEAD_BY_NAME, None),
        At::Version(version) => {
            (SNAPSHOT_VERSION_BY_ID, SNAPSHOT_VERSION_BY_NAME, Some(version.get()))
        }
        At::Timestamp(time) => (SNAPSHOT_TIME_BY_ID, SNAPSHOT_TIME_BY_NAME, Some(time.0)),
    };
    let (text, mut parameters) = match table {
        TableRef::Id(id) => (by_id, vec![Value::Text(id.to_string())]),
        TableRef::Name(name) => {
            let part = |text: &str| Value::Text(text.to_owned());
            (by_name, vec![part(name.namespace()), part(name.name())])
        }
    };
    parameters.extend(point.map(Value::Integer));

    let called = table.to_string();
    let mut statement = db.prepare(text)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let not_found = || CatalogError::TableNotFound(called.clone());
    let row = rows.next()?.ok_or_else(not_found)?;
    let record = table_record(row)?;
    let hidden = record.state == TableState::Importing && matches!(table, TableRef::Name(_));
    let Some(head) = record.head.filter(|_| !hidden) else {
        return Err(not_found().into());
    };
    let r = Reader::new(row, &called, None);
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
    let r = Reader::new(row, &called, Some(version.get()));
    let (Some(protocol_version), Some(metadata_version)) =
        (r.version_opt(at_version + 4)?, r.version_opt(at_version + 6)?)
    else {
        let what = "protocol or metadata";
        return Err(corrupt(&called, Some(version.get()), what, "there is none at this version"));
    };
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

/// A table and its head; before all versions while an import has not begun to fill it.
fn head_of(db: Db<'_>, id: TableId) -> DbResult<(Table, i64)> {
    let mut statement = db.prepare(HEAD)?;
    let mut rows = statement.query([id.to_string()])?;
    let Some(row) = rows.next()? else { return Err(not_found(id).into()) };
    let r = Reader::new(row, &id, None);
    Ok((Table { key: r.get(0)?, id }, r.get::<Option<i64>>(1)?.unwrap_or(-1)))
}

/// Where a page starts: before everything, or after a cursor.
fn start(after: Option<FileCursor>) -> (i64, i64) {
    after.map_or((-1, -1), |cursor| (cursor.added_version.get(), cursor.ordinal))
}

/// Files at a version.
///
/// The cursor is a row's key, which never changes, so pages stay right while commits go on. At the
/// head the index on `removed_version` holds exactly the rows wanted, in order. For an older
/// version those that went since are merged in; that costs what went since, for each page, so
/// where that is much the table is read in the order of its key instead.
pub(crate) fn list_files(
    db: Db<'_>,
    id: TableId,
    version: Version,
    after: Option<FileCursor>,
    limit: usize,
) -> DbResult<Page<FileRecord, FileCursor>> {
    let (table, head) = head_of(db, id)?;
    let (added, ordinal) = start(after);
    let fetch = |text: &'static str| -> DbResult<Vec<FileRecord>> {
        let mut statement = db.prepare(text)?;
        let mut rows = statement.query(params![
            table.key,
            added,
            ordinal,
            fetch_limit(limit),
            version.get()
        ])?;
        let mut files = Vec::new();
        while let Some(row) = rows.next()? {
            files.push(file_record(row, table)?);
        }
        Ok(files)
    };
    let items = if version.get() >= head {
        fetch(FILES_ACTIVE)?
    } else {
        let closed: i64 = db
            .prepare(CLOSED_SINCE)?
            .query_row(params![table.key, version.get(), SORTED_ROWS + 1], |row| row.get(0))?;
        if closed > SORTED_ROWS {
            fetch(FILES_AT_MANY)?
        } else if closed == 0 {
            fetch(FILES_ACTIVE)?
        } else {
            merge(fetch(FILES_ACTIVE)?, fetch(FILES_CLOSED_FEW)?)
        }
    };
    Ok(page(items, limit, |file| file.cursor))
}

pub(crate) fn files_end(
    db: Db<'_>,
    id: TableId,
    version: Version,
    after: FileCursor,
    limit: usize,
) -> DbResult<Option<FileCursor>> {
    // Of a version that is not the latest one, two lists are merged.
    let (table, head) = head_of(db, id)?;
    if version.get() < head {
        return Ok(None);
    }
    let (added, ordinal) = start(Some(after));
    let before_last = fetch_limit(limit) - 2;
    let mut statement = db.prepare(FILES_ACTIVE_END)?;
    let mut rows =
        statement.query(params![table.key, added, ordinal, before_last, version.get()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let r = Reader::new(row, &table, row.get(0).ok());
    let last = FileCursor { added_version: r.version(0)?, ordinal: r.get(1)? };
    Ok(rows.next()?.is_some().then_some(last))
}

pub(crate) fn list_tombstones(
    db: Db<'_>,
    id: TableId,
    version: Version,
    deleted_after: TimestampMs,
    after: Option<FileCursor>,
    limit: usize,
) -> DbResult<Page<TombstoneRecord, FileCursor>> {
    let table = require_readable(db, id)?;
    let (added, ordinal) = start(after);
    let candidates: i64 = db
        .prepare(TOMBSTONE_CANDIDATES)?
        .query_row(params![table.key, deleted_after.0, SORTED_ROWS + 1], |row| row.get(0))?;
    let text = if candidates > SORTED_ROWS { TOMBSTONES_MANY } else { TOMBSTONES_FEW };
    let mut statement = db.prepare(text)?;
    let mut rows = statement.query(params![
        table.key,
        added,
        ordinal,
        fetch_limit(limit),
        version.get(),
        deleted_after.0
    ])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let r = Reader::new(row, &table, row.get(2).ok());
        items.push(TombstoneRecord {
            cursor: FileCursor { added_version: r.version(0)?, ordinal: r.get(1)? },
            removed_version: r.version(2)?,
            remove: r.json(3)?,
        });
    }
    Ok(page(items, limit, |tombstone| tombstone.cursor))
}

pub(crate) fn app_transactions(db: Db<'_>, id: TableId, version: Version) -> DbResult<Vec<Txn>> {
    let table = require_readable(db, id)?;
    let mut statement = db.prepare(APP_TRANSACTIONS)?;
    let mut rows = statement.query(params![table.key, version.get()])?;
    let mut txns = Vec::new();
    while let Some(row) = rows.next()? {
        let r = Reader::new(row, &table, row.get(3).ok());
        txns.push(Txn { app_id: r.get(0)?, version: r.get(1)?, last_updated: r.get(2)? });
    }
    Ok(txns)
}

pub(crate) fn domain_metadata(
    db: Db<'_>,
    id: TableId,
    version: Version,
) -> DbResult<Vec<DomainMetadata>> {
    let table = require_readable(db, id)?;
    let mut statement = db.prepare(DOMAIN_METADATA)?;
    let mut rows = statement.query(params![table.key, version.get()])?;
    let mut domains = Vec::new();
    while let Some(row) = rows.next()? {
        let r = Reader::new(row, &table, row.get(2).ok());
        domains.push(DomainMetadata {
            domain: r.get(0)?,
            configuration: r.get(1)?,
            removed: false,
        });
    }
    Ok(domains)
}

pub(crate) fn list_commits(
    db: Db<'_>,
    id: TableId,
    filter: &CommitFilter,
    before: Option<Version>,
    limit: usize,
) -> DbResult<Page<CommitRecord, Version>> {
    let table = require_readable(db, id)?;
    let nothing = Page { items: Vec::new(), next: None };
    let mut from = filter.from_version.map_or(0, Version::get);
    let mut to = filter.to_version.map_or(i64::MAX, Version::get);
    if let Some(before) = before {
        to = to.min(before.get() - 1);
    }
    // Times become versions, because both grow together: no row outside of the range is read.
    let find = |text: &'static str, time: TimestampMs| -> DbResult<Option<i64>> {
        let mut statement = db.prepare(text)?;
        Ok(statement.query_row(params![table.key, time.0], |row| row.get(0)).optional()?)
    };
    if let Some(time) = filter.from_time {
        match find(FIRST_SINCE, time)? {
            Some(first) => from = from.max(first),
            None => return Ok(nothing),
        }
    }
    if let Some(time) = filter.to_time {
        match find(LAST_BEFORE, time)? {
            Some(last) => to = to.min(last),
            None => return Ok(nothing),
        }
    }
    let mut statement = db.prepare(COMMITS)?;
    let mut rows = statement.query(params![table.key, from, to, fetch_limit(limit)])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(commit_record(row, table)?);
    }
    Ok(page(items, limit, |commit| commit.version))
}

pub(crate) fn read_bodies(
    db: Db<'_>,
    id: TableId,
    from: Version,
    to: Version,
    limit: usize,
) -> DbResult<Vec<(CommitRecord, CommitBody)>> {
    let table = require_readable(db, id)?;
    let mut statement = db.prepare(BODIES)?;
    let mut chunks = db.prepare(CHUNKS)?;
    let mut rows = statement.query(params![table.key, from.get(), to.get()])?;
    let mut out = Vec::new();
    let mut bytes = 0_usize;
    while out.len() < limit.max(1) {
        let Some(row) = rows.next()? else { break };
        let record = commit_record(row, table)?;
        let mut zstd = Vec::new();
        let mut parts = chunks.query(params![table.key, record.version.get()])?;
        while let Some(part) = parts.next()? {
            let part = part.get_ref(0)?.as_blob();
            zstd.extend_from_slice(
                part.map_err(|e| corrupt(table, Some(record.version.get()), "body", e))?,
            );
        }
        bytes = bytes.saturating_add(zstd.len());
        if bytes > BODIES_BYTES && !out.is_empty() {
            break;
        }
        let body = commit_body(row, table, zstd)?;
        out.push((record, body));
    }
    Ok(out)
}
