//! Reads of one table: opening it, its files, its history.

use std::cmp::Ordering;

use deltalakedb_catalog_core::action::{DomainMetadata, Txn};
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, Page, Snapshot, TableState, TombstoneRecord,
};
use rusqlite::types::ToSql;
use rusqlite::{OptionalExtension, params};

use crate::errors::DbResult;
use crate::rows::{
    Reader, TABLE_COLUMNS, commit_body, commit_columns, commit_record, corrupt, fetch_limit,
    file_columns, file_record, table_columns, table_record, table_source,
};
use crate::session::Db;
use crate::statements::statements;
use crate::tables::{page, require_readable};

/// Compressed bytes after which `read_bodies` ends a call.
const BODIES_BYTES: usize = 32 << 20;
/// Up to so many candidate rows are sorted for each page; beyond, a page is read in the order of
/// the key, passing over rows that do not belong to it.
const SORTED_ROWS: i64 = 50_000;

/// A snapshot is one query: which table, and which version of it.
macro_rules! snapshot {
    ($version:literal, $table:literal) => {
        concat!(
            "SELECT ", table_columns!(), ", c.version, c.timestamp_ms, c.total_files,
                c.total_bytes, p.version, p.protocol, d.version, d.metadata
            FROM ", table_source!(), "
            LEFT JOIN {p}commits c ON c.table_id = t.id AND c.version = ", $version, "
            LEFT JOIN {p}protocols p ON p.table_id = t.id AND p.version = (
                SELECT max(version) FROM {p}protocols
                WHERE table_id = t.id AND version <= c.version)
            LEFT JOIN {p}metadata d ON d.table_id = t.id AND d.version = (
                SELECT max(version) FROM {p}metadata
                WHERE table_id = t.id AND version <= c.version)
            WHERE ", $table
        )
    };
}
macro_rules! at_time {
    () => {
        "(SELECT version FROM {p}commits
          WHERE table_id = t.id AND timestamp_ms <= ?3 ORDER BY timestamp_ms DESC LIMIT 1)"
    };
}
macro_rules! by_id {
    () => {
        "t.id = ?1 AND ?2 = ''"
    };
}

/// Rows with the same key as `f` that keep it from being a tombstone of version ?5: the file is in
/// the table, or there is a later tombstone.
macro_rules! not_superseded {
    () => {
        "NOT EXISTS (
            SELECT 1 FROM {p}files x INDEXED BY {p}files_by_key
            WHERE x.table_id = f.table_id AND x.file_key = f.file_key
              AND x.path = f.path AND x.dv_id = f.dv_id AND x.added_version <= ?5
              AND (x.removed_version > ?5
                OR (x.is_tombstone = 1
                  AND (x.removed_version, x.added_version, x.ordinal)
                    > (f.removed_version, f.added_version, f.ordinal))))"
    };
}

statements! {
    /// Statements that read a table's rows.
    ReadsSql {
        snapshot_head_by_id: concat!(snapshot!("t.head_version", "t.id = ?1")),
        snapshot_head_by_name: snapshot!("t.head_version",
            "t.namespace = ?1 AND t.name = ?2 AND t.drop_marker = ''"),
        snapshot_version_by_id: snapshot!("?2", "t.id = ?1"),
        snapshot_version_by_name: snapshot!("?3",
            "t.namespace = ?1 AND t.name = ?2 AND t.drop_marker = ''"),
        snapshot_time_by_id: snapshot!("(SELECT version FROM {p}commits
            WHERE table_id = t.id AND timestamp_ms <= ?2 ORDER BY timestamp_ms DESC LIMIT 1)",
            "t.id = ?1"),
        snapshot_time_by_name: snapshot!("(SELECT version FROM {p}commits
            WHERE table_id = t.id AND timestamp_ms <= ?3 ORDER BY timestamp_ms DESC LIMIT 1)",
            "t.namespace = ?1 AND t.name = ?2 AND t.drop_marker = ''"),
        /// State of a table and its head.
        head: "SELECT state, head_version FROM {p}tables WHERE id = ?1",
        /// Files that are still there, by cursor, up to a version.
        files_active: concat!("SELECT ", file_columns!(), "
            FROM {p}files INDEXED BY {p}files_by_state
            WHERE table_id = ?1 AND removed_version = 9223372036854775807
              AND (added_version, ordinal) > (?2, ?3) AND added_version <= ?5
            ORDER BY added_version, ordinal LIMIT ?4"),
        /// Number of files that went after a version, up to a limit.
        closed_since: "SELECT count(*) FROM (
            SELECT 1 FROM {p}files INDEXED BY {p}files_by_state
            WHERE table_id = ?1 AND removed_version > ?2
              AND removed_version < 9223372036854775807 LIMIT ?3)",
        /// Files that were there at a version and went after it: few of them.
        files_closed_few: concat!("SELECT ", file_columns!(), "
            FROM {p}files INDEXED BY {p}files_by_state
            WHERE table_id = ?1 AND removed_version > ?5
              AND removed_version < 9223372036854775807 AND added_version <= ?5
              AND (added_version, ordinal) > (?2, ?3)
            ORDER BY added_version, ordinal LIMIT ?4"),
        /// Files at a version where many went after it: both kinds in the order of the key.
        files_at_many: concat!("SELECT ", file_columns!(), " FROM {p}files
            WHERE table_id = ?1 AND (added_version, ordinal) > (?2, ?3) AND added_version <= ?5
              AND +removed_version > ?5
            ORDER BY added_version, ordinal LIMIT ?4"),
        /// Number of tombstones that are young enough, up to a limit.
        tombstone_candidates: "SELECT count(*) FROM (
            SELECT 1 FROM {p}files INDEXED BY {p}files_tombstones
            WHERE table_id = ?1 AND is_tombstone = 1 AND deletion_timestamp > ?2 LIMIT ?3)",
        tombstones_few: concat!("SELECT f.added_version, f.ordinal, f.removed_version,
                f.remove_action
            FROM {p}files f INDEXED BY {p}files_tombstones
            WHERE f.table_id = ?1 AND f.is_tombstone = 1 AND f.deletion_timestamp > ?6
              AND f.removed_version <= ?5 AND (f.added_version, f.ordinal) > (?2, ?3)
              AND ", not_superseded!(), "
            ORDER BY f.added_version, f.ordinal LIMIT ?4"),
        tombstones_many: concat!("SELECT f.added_version, f.ordinal, f.removed_version,
                f.remove_action
            FROM {p}files f
            WHERE f.table_id = ?1 AND (f.added_version, f.ordinal) > (?2, ?3)
              AND f.added_version <= ?5 AND +f.is_tombstone = 1 AND +f.deletion_timestamp > ?6
              AND +f.removed_version <= ?5 AND ", not_superseded!(), "
            ORDER BY f.added_version, f.ordinal LIMIT ?4"),
        /// One step of the recursion a distinct application, however many rows it has.
        app_transactions: "WITH RECURSIVE apps (app_id) AS (
                SELECT min(app_id) FROM {p}txns WHERE table_id = ?1
                UNION ALL
                SELECT (SELECT min(n.app_id) FROM {p}txns n
                    WHERE n.table_id = ?1 AND n.app_id > apps.app_id)
                FROM apps WHERE apps.app_id IS NOT NULL)
            SELECT x.app_id, x.app_version, x.last_updated, x.version
            FROM apps JOIN {p}txns x ON x.table_id = ?1 AND x.app_id = apps.app_id
              AND x.version = (SELECT max(y.version) FROM {p}txns y
                WHERE y.table_id = ?1 AND y.app_id = apps.app_id AND y.version <= ?2)
            ORDER BY x.app_id",
        domain_metadata: "WITH RECURSIVE domains (domain) AS (
                SELECT min(domain) FROM {p}domain_metadata WHERE table_id = ?1
                UNION ALL
                SELECT (SELECT min(n.domain) FROM {p}domain_metadata n
                    WHERE n.table_id = ?1 AND n.domain > domains.domain)
                FROM domains WHERE domains.domain IS NOT NULL)
            SELECT x.domain, x.configuration, x.version
            FROM domains JOIN {p}domain_metadata x ON x.table_id = ?1
              AND x.domain = domains.domain
              AND x.version = (SELECT max(y.version) FROM {p}domain_metadata y
                WHERE y.table_id = ?1 AND y.domain = domains.domain AND y.version <= ?2)
            WHERE x.removed = 0
            ORDER BY x.domain",
        first_since: "SELECT version FROM {p}commits
            WHERE table_id = ?1 AND timestamp_ms >= ?2 ORDER BY timestamp_ms LIMIT 1",
        last_before: "SELECT version FROM {p}commits
            WHERE table_id = ?1 AND timestamp_ms < ?2 ORDER BY timestamp_ms DESC LIMIT 1",
        commits: concat!("SELECT ", commit_columns!(), " FROM {p}commits
            WHERE table_id = ?1 AND version >= ?2 AND version <= ?3
            ORDER BY version DESC LIMIT ?4"),
        bodies: concat!("SELECT ", commit_columns!(), " FROM {p}commits
            WHERE table_id = ?1 AND version >= ?2 AND version <= ?3 AND has_body = 1
            ORDER BY version"),
        chunks: "SELECT body FROM {p}commit_chunks
            WHERE table_id = ?1 AND version = ?2 ORDER BY chunk_no",
    }
}

/// One query; see `snapshot!`. Timestamps grow with the version, so the latest one that is not
/// after a time is found in the index.
pub(crate) fn snapshot(db: Db<'_>, table: &TableRef, at: At) -> DbResult<Snapshot> {
    let sql = &db.sql().reads;
    let (by_id, by_name) = match at {
        At::Head => (&sql.snapshot_head_by_id, &sql.snapshot_head_by_name),
        At::Version(_) => (&sql.snapshot_version_by_id, &sql.snapshot_version_by_name),
        At::Timestamp(_) => (&sql.snapshot_time_by_id, &sql.snapshot_time_by_name),
    };
    let point = match at {
        At::Head => None,
        At::Version(version) => Some(version.get()),
        At::Timestamp(time) => Some(time.0),
    };
    let id_text;
    let (text, mut parameters): (&str, Vec<&dyn ToSql>) = match table {
        TableRef::Id(id) => {
            id_text = id.to_string();
            (by_id, vec![&id_text])
        }
        TableRef::Name(name) => {
            id_text = String::new();
            let _ = &id_text;
            (by_name, vec![])
        }
    };
    let _ = (text, &mut parameters, point);
    unimplemented!()
}
