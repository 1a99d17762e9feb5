//! Catalogs as earlier versions of this program made them.

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::rows::text::fill;
use crate::schema::layout::{LAYOUT, VERSION_2};

/// The tables of version 1.
pub(crate) const VERSION_1: &str = "
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

fn columns(conn: &Connection, table: &str) -> Vec<String> {
    conn.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")
        .unwrap()
        .query_map([table], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// Turns a catalog into one of version 2 with the same rows.
pub(crate) fn to_version_2(conn: &Connection, prefix: &str) {
    let run = |sql: &str| conn.execute_batch(sql).unwrap();
    run("BEGIN IMMEDIATE");
    run(&format!("DROP TABLE IF EXISTS {prefix}audit; DROP TABLE IF EXISTS {prefix}registry"));
    for table in &LAYOUT {
        for (index, _) in table.indexes {
            run(&format!("DROP INDEX {prefix}{index}"));
        }
        run(&format!("ALTER TABLE {prefix}{0} RENAME TO {prefix}{0}_new", table.name));
    }
    run(&fill(VERSION_1, prefix));
    run(&fill(VERSION_2, prefix));
    for table in LAYOUT.iter().rev() {
        let name = format!("{prefix}{}", table.name);
        let columns = columns(conn, &name).join(", ");
        let from = if columns.contains("table_id") {
            format!(
                "(SELECT t.id AS table_id, o.* FROM {name}_new o
                  JOIN {prefix}tables_new t ON t.table_key = o.table_key)"
            )
        } else {
            format!("{name}_new")
        };
        run(&format!(
            "INSERT INTO {name} ({columns}) SELECT {columns} FROM {from}; DROP TABLE {name}_new"
        ));
    }
    run(&format!(
        "DELETE FROM {prefix}schema;
         INSERT INTO {prefix}schema VALUES (1, 1, 'old'), (2, 2, 'old');
         COMMIT"
    ));
}

/// Turns a catalog into one of version 4 with the same rows: all but the registry.
pub(crate) fn to_version_4(conn: &Connection, prefix: &str) {
    let sql = "DROP TABLE {p}registry; DELETE FROM {p}schema WHERE version > 4;
        INSERT OR IGNORE INTO {p}schema VALUES (4, 4, 'old')";
    conn.execute_batch(&fill(sql, prefix)).unwrap();
}

/// Turns a catalog into one of version 3 with the same rows: all but the audit and the registry.
pub(crate) fn to_version_3(conn: &Connection, prefix: &str) {
    let sql =
        "DROP TABLE {p}audit; DROP TABLE {p}registry; DELETE FROM {p}schema WHERE version > 3;
        INSERT OR IGNORE INTO {p}schema VALUES (3, 3, 'old')";
    conn.execute_batch(&fill(sql, prefix)).unwrap();
}

/// Turns a catalog of version 2 into one of version 1. Version 2 has more tables, and no other columns.
pub(crate) fn to_version_1(conn: &Connection, prefix: &str) {
    conn.execute_batch(&fill(
        "DROP TABLE {p}skip_index; DROP TABLE {p}skip_segments; DROP TABLE {p}skip_pages;
         DELETE FROM {p}schema WHERE version > 1",
        prefix,
    ))
    .unwrap();
}

/// All rows of a catalog, in whatever version, with the ids of their tables.
pub(crate) fn dump(conn: &Connection, prefix: &str) -> Vec<(&'static str, Vec<Vec<Value>>)> {
    LAYOUT.iter().map(|table| (table.name, rows(conn, prefix, table.name))).collect()
}

fn rows(conn: &Connection, prefix: &str, table: &str) -> Vec<Vec<Value>> {
    let name = format!("{prefix}{table}");
    let columns = columns(conn, &name);
    let rest: Vec<&str> = columns
        .iter()
        .filter(|column| *column != "table_id" && *column != "table_key")
        .map(String::as_str)
        .collect();
    let is_keyed = table != "tables" && columns.iter().any(|column| column == "table_key");
    let (id, join) = if is_keyed {
        ("t.id, ", format!("JOIN {prefix}tables t ON t.table_key = o.table_key"))
    } else if columns.iter().any(|column| column == "table_id") {
        ("o.table_id, ", String::new())
    } else {
        ("", String::new())
    };
    let values: Vec<String> = rest.iter().map(|column| format!("o.{column}")).collect();
    let mut statement =
        conn.prepare(&format!("SELECT {id}{} FROM {name} o {join}", values.join(", "))).unwrap();
    let width = statement.column_count();
    let mut rows: Vec<Vec<Value>> = statement
        .query_map([], |row| (0..width).map(|n| row.get(n)).collect())
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    rows.sort_by_cached_key(|row| format!("{row:?}"));
    rows
}
