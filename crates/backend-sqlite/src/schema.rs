//! Our tables: their definition, their versions, and whose file this is.
//!
//! The shape is portable: the other databases have the same tables and columns. What differs is
//! physical. `WITHOUT ROWID` (<https://sqlite.org/withoutrowid.html>) is used where rows are small
//! and read by their key; files and blobs keep a rowid, because rows that fill a good part of a
//! page make a clustered tree deep. Rows name their table by a key that SQLite stores in a byte or two;
//! `AUTOINCREMENT` (<https://sqlite.org/autoinc.html>) never gives a key twice. There is no `STRICT`, so that old command line tools can still
//! audit the file; reads check the types of what they find.

use std::path::Path;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::TimestampMs;
use rusqlite::{Connection, OptionalExtension, params};

use layout::{AUDIT, LAYOUT, Layout, REGISTRY, REVISION, STAYS, VERSION_2};

use crate::errors::{DbError, DbResult};
use crate::options::SqliteOptions;
use crate::rows::text::{fill, statements};

pub(crate) mod layout;
pub(crate) mod upgrade;

/// The version of our tables that this program reads and writes.
pub(crate) const SCHEMA_VERSION: u32 = 5;

/// "DLDB": marks a file as ours (<https://sqlite.org/pragma.html#pragma_application_id>).
pub(crate) const APPLICATION_ID: i32 = 0x444C_4442;

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
            let is = |table: &Layout| name.eq_ignore_ascii_case(&format!("{prefix}{}", table.name));
            LAYOUT.iter().chain([&AUDIT, &REGISTRY]).any(is)
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
    let record = |version: u32| -> DbResult<()> {
        let program = concat!("deltalakedb ", env!("CARGO_PKG_VERSION"));
        conn.execute(&fill(RECORD, prefix), params![version, now.0, program])?;
        Ok(())
    };
    if found.version == 0 {
        conn.execute_batch(&fill(CREATE, prefix))?;
        for table in &LAYOUT {
            conn.execute_batch(&fill(table.create, prefix))?;
            for (_, index) in table.indexes {
                conn.execute_batch(&fill(index, prefix))?;
            }
        }
    } else {
        if found.version < 2 {
            conn.execute_batch(&fill(VERSION_2, prefix))?;
            record(2)?;
        }
        if found.version < 3 {
            upgrade::to_version_3(conn, &options.path, prefix)?;
            record(3)?;
        }
        upgrade::refuse_taken(conn, &options.path, prefix, found.version)?;
    }
    if found.version < 4 {
        conn.execute_batch(&fill(AUDIT.create, prefix))?;
        for (_, index) in AUDIT.indexes {
            conn.execute_batch(&fill(index, prefix))?;
        }
        conn.execute_batch(&fill(STAYS, prefix))?;
        if found.version > 0 {
            record(4)?;
        }
    }
    conn.execute_batch(&fill(REGISTRY.create, prefix))?;
    conn.execute_batch(&fill(REVISION, prefix))?;
    record(SCHEMA_VERSION)?;
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
