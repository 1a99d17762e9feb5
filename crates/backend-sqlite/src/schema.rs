//! Our tables: their definition, their versions, and whose file this is.
//!
//! The shape is portable: the other databases have the same tables and columns. What differs is
//! physical. `WITHOUT ROWID` (<https://sqlite.org/withoutrowid.html>) is used where rows are small
//! and read by their key; files and blobs keep a rowid, because rows that fill a good part of a
//! page make a clustered tree deep. There is no `STRICT`, so that old command line tools can still
//! audit the file; reads check the types of what they find.

use std::path::Path;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::TimestampMs;
use rusqlite::{Connection, OptionalExtension, params};

use crate::errors::{DbError, DbResult};
use crate::options::SqliteOptions;
use crate::rows::text::{fill, statements};

/// The version of our tables that this program reads and writes.
pub(crate) const SCHEMA_VERSION: u32 = 2;

/// "DLDB": marks a file as ours (<https://sqlite.org/pragma.html#pragma_application_id>).
pub(crate) const APPLICATION_ID: i32 = 0x444C_4442;

/// Tables besides `{p}schema`, without prefix.
pub(crate) const TABLES: [&str; 14] = [
    "tables",
    "commits",
    "commit_chunks",
    "files",
    "protocols",
    "metadata",
    "txns",
    "domain_metadata",
    "batches",
    "mirror",
    "mirror_status",
    "skip_index",
    "skip_segments",
    "skip_pages",
];

/// Each version's steps from the one before it.
const MIGRATIONS: [(u32, &str); 2] = [(1, VERSION_1), (2, VERSION_2)];

/// 9223372036854775807 is `Version::NEVER`.
const VERSION_1: &str = "
CREATE TABLE {p}tables (
    id TEXT NOT NULL PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    -- '' while the name is taken, the id once dropped: so only live names are unique.
    drop_marker TEXT NOT NULL,
    location TEXT NOT NULL,
    storage_options TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'importing', 'dropped')),
    created_at_ms INTEGER NOT NULL,
    dropped_at_ms INTEGER,
    head_version INTEGER,
    head_timestamp_ms INTEGER,
    base_version INTEGER NOT NULL,
    barrier_version INTEGER NOT NULL,
    import_from_json INTEGER NOT NULL DEFAULT 0,
    import_base_done INTEGER NOT NULL DEFAULT 0,
    import_files INTEGER NOT NULL DEFAULT 0,
    import_tombstones INTEGER NOT NULL DEFAULT 0,
    import_live_files INTEGER NOT NULL DEFAULT 0,
    import_live_bytes INTEGER NOT NULL DEFAULT 0,
    import_history_through INTEGER,
    UNIQUE (namespace, name, drop_marker)
) WITHOUT ROWID;

CREATE TABLE {p}commits (
    table_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    timestamp_ms INTEGER NOT NULL,
    token TEXT,
    -- Position of the table in its batch.
    batch_position INTEGER,
    num_added INTEGER NOT NULL,
    num_removed INTEGER NOT NULL,
    bytes_added INTEGER NOT NULL,
    bytes_removed INTEGER NOT NULL,
    changes_metadata INTEGER NOT NULL,
    changes_protocol INTEGER NOT NULL,
    total_files INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,
    has_body INTEGER NOT NULL,
    -- Length of the body without its first line, before compression, bytes.
    body_len INTEGER NOT NULL,
    first_line TEXT,
    -- Only where it is not in first_line.
    commit_info TEXT,
    PRIMARY KEY (table_id, version)
) WITHOUT ROWID;
CREATE INDEX {p}commits_by_time ON {p}commits (table_id, timestamp_ms);
CREATE INDEX {p}commits_by_token ON {p}commits (token) WHERE token IS NOT NULL;

CREATE TABLE {p}commit_chunks (
    table_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    chunk_no INTEGER NOT NULL,
    -- At most 1 MiB of the zstd frame.
    body BLOB NOT NULL,
    PRIMARY KEY (table_id, version, chunk_no)
);

CREATE TABLE {p}files (
    table_id TEXT NOT NULL,
    added_version INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    -- The file is in the table at v if added_version <= v < removed_version.
    removed_version INTEGER NOT NULL,
    -- Whether a remove action ended it (or made the row: then removed_version = added_version).
    is_tombstone INTEGER NOT NULL,
    deletion_timestamp INTEGER,
    file_key BLOB NOT NULL,
    size INTEGER NOT NULL,
    modification_time INTEGER NOT NULL,
    data_change INTEGER NOT NULL,
    base_row_id INTEGER,
    default_row_commit_version INTEGER,
    path TEXT NOT NULL,
    dv_id TEXT NOT NULL,
    -- JSON objects; null for none or empty.
    partition_values TEXT,
    tags TEXT,
    deletion_vector TEXT,
    clustering_provider TEXT,
    stats TEXT,
    -- The remove action, JSON, of a tombstone.
    remove_action TEXT,
    PRIMARY KEY (table_id, added_version, ordinal)
);
CREATE INDEX {p}files_by_state ON {p}files (table_id, removed_version, added_version, ordinal);
CREATE INDEX {p}files_by_key ON {p}files (table_id, file_key, added_version);
CREATE INDEX {p}files_tombstones ON {p}files (table_id, deletion_timestamp) WHERE is_tombstone = 1;

CREATE TABLE {p}protocols (
    table_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    PRIMARY KEY (table_id, version)
) WITHOUT ROWID;

CREATE TABLE {p}metadata (
    table_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (table_id, version)
);

CREATE TABLE {p}txns (
    table_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    app_version INTEGER NOT NULL,
    last_updated INTEGER,
    PRIMARY KEY (table_id, app_id, version)
) WITHOUT ROWID;

CREATE TABLE {p}domain_metadata (
    table_id TEXT NOT NULL,
    domain TEXT NOT NULL,
    version INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    configuration TEXT NOT NULL,
    PRIMARY KEY (table_id, domain, version)
) WITHOUT ROWID;

CREATE TABLE {p}batches (
    token TEXT NOT NULL PRIMARY KEY,
    committed_at_ms INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE {p}mirror (
    table_id TEXT NOT NULL PRIMARY KEY,
    mode TEXT NOT NULL CHECK (mode IN ('active', 'diverged', 'off')),
    published_version INTEGER,
    lease_owner TEXT,
    lease_epoch INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    -- When the first unpublished version was enqueued; null if there is none. Claims look at these
    -- rows only, however many tables and published versions there are.
    pending_since_ms INTEGER
) WITHOUT ROWID;
CREATE INDEX {p}mirror_pending ON {p}mirror (pending_since_ms, table_id)
    WHERE pending_since_ms IS NOT NULL;

CREATE TABLE {p}mirror_status (
    table_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('PENDING', 'IN_FLIGHT', 'COMPLETE', 'FAILED')),
    attempts INTEGER NOT NULL,
    enqueued_at_ms INTEGER NOT NULL,
    retry_at_ms INTEGER,
    published_at_ms INTEGER,
    digest TEXT,
    last_error TEXT,
    PRIMARY KEY (table_id, version)
) WITHOUT ROWID;
CREATE INDEX {p}mirror_status_open ON {p}mirror_status (table_id, version)
    WHERE state <> 'COMPLETE';
";

/// The skipping index. It is derived: older catalogs have none until their tables are written to.
const VERSION_2: &str = "
CREATE TABLE {p}skip_index (
    table_id TEXT NOT NULL PRIMARY KEY,
    -- Grows with each change of the segments.
    generation INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE {p}skip_segments (
    table_id TEXT NOT NULL,
    -- The generation that wrote it.
    segment_id INTEGER NOT NULL,
    -- It covers the files (added_version, ordinal) after this one, null = from the first on, ...
    after_version INTEGER,
    after_ordinal INTEGER,
    -- ... up to and with this one, as they were in this version.
    through_version INTEGER NOT NULL,
    through_ordinal INTEGER NOT NULL,
    built_version INTEGER NOT NULL,
    num_files INTEGER NOT NULL,
    root BLOB NOT NULL,
    PRIMARY KEY (table_id, segment_id)
);

CREATE TABLE {p}skip_pages (
    table_id TEXT NOT NULL,
    segment_id INTEGER NOT NULL,
    page_no INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (table_id, segment_id, page_no)
);
";

/// The columns of `{p}schema`, in every version.
const SCHEMA_COLUMNS: [&str; 3] = ["version", "applied_at_ms", "program"];

statements! {
    CREATE: "CREATE TABLE {p}schema (
        version INTEGER NOT NULL PRIMARY KEY,
        applied_at_ms INTEGER NOT NULL,
        program TEXT NOT NULL)",
    VERSION: "SELECT max(version) FROM {p}schema",
    RECORD: "INSERT INTO {p}schema (version, applied_at_ms, program) VALUES (?1, ?2, ?3)",
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Version of our tables; 0 = none.
    pub(crate) version: u32,
    /// Whether the file has no tables of anyone.
    pub(crate) empty: bool,
}

/// Looks whose file this is.
///
/// # Errors
/// `Schema` if it belongs to another program, or another program's tables stand under our names.
pub(crate) fn inspect(conn: &Connection, path: &Path, prefix: &str) -> DbResult<Found> {
    let at = path.display();
    let application_id: i32 =
        conn.prepare_cached("PRAGMA application_id")?.query_row([], |row| row.get(0))?;
    let names: Vec<String> = conn
        .prepare_cached(
            "SELECT name FROM sqlite_master
             WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_'
             ORDER BY name",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let schema_table = format!("{prefix}schema");
    let has_schema = names.iter().any(|name| name.eq_ignore_ascii_case(&schema_table));

    let foreign_id = application_id != 0 && application_id != APPLICATION_ID;
    if foreign_id || (!has_schema && application_id == 0 && !names.is_empty()) {
        let mut whose: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
        if names.len() > whose.len() {
            whose.push("…");
        }
        let evidence = if whose.is_empty() {
            format!("its application id is {application_id}")
        } else {
            format!("it has the tables {}", whose.join(", "))
        };
        return Err(schema_error(format!(
            "'{at}' belongs to another program: {evidence}. A catalog needs a file of its own: \
             choose another path"
        )));
    }
    if !has_schema {
        let ours = |name: &&String| {
            TABLES.iter().any(|table| name.eq_ignore_ascii_case(&format!("{prefix}{table}")))
        };
        if let Some(name) = names.iter().find(ours) {
            return Err(schema_error(format!(
                "'{at}' has a table '{name}' but no '{schema_table}': it is not ours. Choose \
                 another table_prefix than '{prefix}', or another path"
            )));
        }
        return Ok(Found { version: 0, empty: names.is_empty() });
    }
    let columns: Vec<String> = conn
        .prepare_cached("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?
        .query_map([&schema_table], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if columns != SCHEMA_COLUMNS {
        return Err(schema_error(format!(
            "'{at}' has a table '{schema_table}' with the columns {}, which is not ours. Choose \
             another table_prefix than '{prefix}', or another path",
            columns.join(", ")
        )));
    }
    let version: Option<u32> = conn
        .prepare_cached(&format!("SELECT max(version) FROM {schema_table}"))?
        .query_row([], |row| row.get(0))
        .optional()?
        .flatten();
    match version {
        Some(version) => Ok(Found { version, empty: false }),
        None => Err(schema_error(format!(
            "the table '{schema_table}' in '{at}' is empty, so the version of the catalog is not \
             known: restore the file from a backup"
        ))),
    }
}

/// Fails unless this is the version that this program works with.
pub(crate) fn require(version: u32, path: &Path, prefix: &str) -> Result<()> {
    let at = path.display();
    match version {
        SCHEMA_VERSION => Ok(()),
        0 => Err(CatalogError::Schema(format!(
            "'{at}' holds no catalog yet (there is no table '{prefix}schema'): run `dl init` first"
        ))),
        newer if newer > SCHEMA_VERSION => Err(too_new(newer, path)),
        older => Err(CatalogError::Schema(format!(
            "the catalog in '{at}' has schema version {older}, this program works with \
             {SCHEMA_VERSION}: make a backup and run `dl init`, which upgrades it"
        ))),
    }
}

fn too_new(version: u32, path: &Path) -> CatalogError {
    CatalogError::Schema(format!(
        "the catalog in '{}' has schema version {version}, this program knows versions up to \
         {SCHEMA_VERSION}: use a newer version of this program. Nothing was changed",
        path.display()
    ))
}

fn schema_error(message: String) -> DbError {
    DbError::Catalog(CatalogError::Schema(message))
}

/// Creates or upgrades our tables inside of the caller's write transaction. True if it changed
/// anything.
///
/// The write lock is held from before the look to after the change, so of two processes the second
/// finds the work done. All steps are one transaction: there is no schema half way.
pub(crate) fn migrate(
    conn: &Connection,
    options: &SqliteOptions,
    now: TimestampMs,
) -> DbResult<bool> {
    let prefix = &options.table_prefix;
    let found = inspect(conn, &options.path, prefix)?;
    if found.version > SCHEMA_VERSION {
        return Err(too_new(found.version, &options.path).into());
    }
    if found.version == SCHEMA_VERSION {
        return Ok(false);
    }
    if found.empty {
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    if found.version == 0 {
        conn.execute_batch(&fill(CREATE, prefix))?;
    }
    for (version, steps) in MIGRATIONS.iter().filter(|(version, _)| *version > found.version) {
        conn.execute_batch(&fill(steps, prefix))?;
        conn.execute(
            &fill(RECORD, prefix),
            params![version, now.0, concat!("deltalakedb ", env!("CARGO_PKG_VERSION"))],
        )?;
    }
    let after = inspect(conn, &options.path, prefix)?;
    if after.version == SCHEMA_VERSION {
        Ok(true)
    } else {
        Err(CatalogError::failed(
            format!("upgrading '{}' ended at version {}", options.path.display(), after.version),
            WriteState::NotApplied,
        )
        .into())
    }
}
