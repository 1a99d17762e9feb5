//! Our tables: their definition, their versions, and whose they are.
//!
//! The tables and columns are those of the other databases. What differs is physical:
//!
//! * Ids are `BINARY(16)`, which sort like the text of a UUID.
//! * Long text is found by a digest of 128 bits: keys have at most 3,072 bytes, and collations take
//!   `'a '` for `'a'`. Names are short and have no space at their ends, so their `utf8mb4_bin` is
//!   exact, and its order is that of the code points.
//! * DDL commits by itself. `{p}schema` is created first and marks the tables as ours; its row, the
//!   version, is written last. So a migration that was killed is known as one, and goes on.

mod layout;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::support::{
    AUDIT, AUDIT_COLUMNS, RECORD_COLUMNS, REGISTRY, TABLES, check_schema_version, schema_too_new,
};
use sqlx::Row;

use crate::errors::{DbError, DbResult};
use crate::session::{Call, Session, first};

/// The version of our tables that this program reads and writes.
pub(crate) const SCHEMA_VERSION: u32 = 5;

/// The version in which rows name their table by an integer.
const KEYED_VERSION: u32 = 3;

/// All of our tables besides `{p}schema`, without prefix.
pub(crate) fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.into_iter().chain([AUDIT, REGISTRY])
}

/// What every table ends with, whatever the database's defaults are.
const TABLE_OPTIONS: &str =
    " ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// `{p}schema`, in every version.
const SCHEMA_TABLE: &str = "CREATE TABLE IF NOT EXISTS {p}schema (
    version BIGINT NOT NULL PRIMARY KEY,
    applied_at_ms BIGINT NOT NULL,
    program VARCHAR(255) NOT NULL)";
/// Its columns.
const SCHEMA_COLUMNS: [&str; 3] = ["version", "applied_at_ms", "program"];

/// Tables under our names, with their columns. `GROUP_CONCAT` of all of them may be cut, so only
/// `{p}schema` has its columns told.
const NAMES: &str = "SELECT t.table_name AS n, (
        SELECT GROUP_CONCAT(c.column_name ORDER BY c.ordinal_position SEPARATOR ',')
        FROM information_schema.columns c
        WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name
          AND c.table_name = ?) AS columns_of
    FROM information_schema.tables t
    WHERE t.table_schema = DATABASE() AND t.table_name IN (";

/// What stands under our names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A migration of ours that did not come to its end.
    Begun,
    /// An upgrade that has shut everyone out: it is at its end, or was interrupted. With the version that it
    /// is about.
    Fenced(u32),
    /// Our tables.
    Version(u32),
}

impl Found {
    /// Version of our tables; 0 = they cannot be used yet.
    pub(crate) fn version(self) -> u32 {
        match self {
            Found::Nothing | Found::Begun => 0,
            Found::Fenced(version) | Found::Version(version) => version,
        }
    }
}

/// What time it is at the server, whatever the session's time zone.
pub(crate) async fn clock(call: &mut Call) -> DbResult<Option<TimestampMs>> {
    let sql = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000";
    let row = call.row(sql, &[]).await?;
    Ok(row.map(|row| row.try_get::<i64, _>(0)).transpose()?.map(TimestampMs))
}

/// Looks for our tables.
///
/// # Errors
/// `Schema` if another program's tables stand under our names.
pub(crate) async fn inspect(call: &mut Call) -> DbResult<Found> {
    let session = call.session.clone();
    let prefix = &session.options.table_prefix;
    let schema_table = format!("{prefix}schema");
    let wanted: Vec<String> = tables().map(|table| format!("{prefix}{table}")).collect();
    let mut sql = session.sql(NAMES, &[(&schema_table).into()]);
    let fenced = format!("{prefix}{}", upgrade::FENCED);
    let names = wanted.iter().chain([&schema_table, &fenced]);
    sql.push_str(&crate::session::literals::list(names.map(Into::into)));
    sql.push(')');
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    for row in call.run(sql).await?.iter().flat_map(|set| &set.rows) {
        found.push((row.try_get(0)?, row.try_get(1)?));
    }
    let at = &session.at;
    let ours = found.iter().find(|(name, _)| name.eq_ignore_ascii_case(&schema_table));
    let Some((_, columns)) = ours else {
        return match found.first() {
            None => Ok(Found::Nothing),
            Some((name, _)) => Err(schema_error(format!(
                "database '{at}' has a table '{name}' but no '{schema_table}': it is not ours. \
                 Choose another table_prefix than '{prefix}', or another database"
            ))),
        };
    };
    let columns = columns.as_deref().unwrap_or_default();
    if columns != SCHEMA_COLUMNS.join(",") {
        return Err(schema_error(format!(
            "database '{at}' has a table '{schema_table}' with the columns {columns}, which is not \
             ours. Choose another table_prefix than '{prefix}', or another database"
        )));
    }
    let sets = call.query("SELECT MAX(version) FROM {p}schema", &[]).await?;
    let version: Option<i64> = match first(&sets) {
        Some(row) => row.try_get(0)?,
        None => None,
    };
    let is_fenced = found.iter().any(|(name, _)| name.eq_ignore_ascii_case(&fenced));
    Ok(match version.and_then(|version| u32::try_from(version).ok()) {
        Some(version) if is_fenced => Found::Fenced(version),
        Some(version) => Found::Version(version),
        None => Found::Begun,
    })
}

/// Begins a call that needs our tables.
pub(crate) async fn begin(session: &Arc<Session>, doing: &'static str) -> Result<Call> {
    if !session.schema_is_right.load(Ordering::Acquire) {
        check(session, doing).await?;
    }
    session.unchecked(doing).await
}

async fn check(session: &Arc<Session>, doing: &'static str) -> Result<()> {
    let mut call = session.unchecked(doing).await?;
    let found = inspect(&mut call).await;
    let found = call.end(found).await?;
    let prefix = &session.options.table_prefix;
    let nothing = format!("there is no table {prefix}schema with a version");
    usable(found, &session.at)?;
    check_schema_version(found.version(), SCHEMA_VERSION, &session.at, &nothing)?;
    session.schema_is_right.store(true, Ordering::Release);
    Ok(())
}

/// Fails where an upgrade has the tables.
pub(crate) fn usable(found: Found, at: &str) -> Result<()> {
    match found {
        Found::Fenced(_) => Err(CatalogError::Schema(format!(
            "an upgrade of the catalog in database '{at}' to version {SCHEMA_VERSION} is at its end, or was \
             interrupted: run `dl init` to finish it"
        ))),
        _ => Ok(()),
    }
}

/// The error of a call: one for want of a table or column says why it is wanting, if the schema tells.
pub(crate) async fn explained(session: &Arc<Session>, error: CatalogError) -> CatalogError {
    if !matches!(error, CatalogError::Schema(_)) || session.schema_is_right.load(Ordering::Acquire)
    {
        return error;
    }
    check(session, "looking at the schema again").await.err().unwrap_or(error)
}

fn schema_error(message: String) -> DbError {
    DbError::Catalog(CatalogError::Schema(message))
}

/// How often what is there is looked at anew, because another process changed it.
const MOST_ROUNDS: u32 = 100;

/// Creates or upgrades our tables. Each step commits by itself and may be done again, by this
/// process or another at the same time; the last one, the version's row, says that all were done.
pub(crate) async fn migrate(call: &mut Call, now: TimestampMs) -> DbResult<()> {
    for _ in 0..MOST_ROUNDS {
        match migrate_from_here(call, now).await {
            Ok(true) => return Ok(()),
            Ok(false) | Err(DbError::Again) => {}
            Err(error) if upgrade::is_overtaken(&error) => {
                tracing::debug!(database = call.session.at, ?error, "another process migrates too");
            }
            Err(error) => return Err(error),
        }
        call.roll_back().await;
    }
    Err(DbError::Again)
}

/// Goes on from what is there; whether that was to the end.
async fn migrate_from_here(call: &mut Call, now: TimestampMs) -> DbResult<bool> {
    let found = inspect(call).await?;
    if found.version() > SCHEMA_VERSION {
        return Err(schema_too_new(found.version(), SCHEMA_VERSION, &call.session.at).into());
    }
    match found {
        // An older program has begun to make its tables.
        Found::Begun if !upgrade::is_new(call).await? && upgrade::is_begun(call).await? => {
            make(call, &layout::VERSION_1, 1, now).await?;
            make(call, &layout::VERSION_2, 2, now).await?;
        }
        Found::Nothing | Found::Begun => {
            create(call, SCHEMA_TABLE).await?;
            for (name, columns) in layout::VERSION_3 {
                create(call, &format!("CREATE TABLE IF NOT EXISTS {{p}}{name} {columns}")).await?;
            }
            if !upgrade::is_new(call).await? {
                return Ok(false);
            }
            for added in &ADDED {
                add(call, added).await?;
            }
            record_in(call, "schema", SCHEMA_VERSION, now).await?;
            return Ok(true);
        }
        Found::Version(1) => make(call, &layout::VERSION_2, 2, now).await?,
        Found::Fenced(version) | Found::Version(version) if version >= KEYED_VERSION => {
            upgrade::clean_up(call).await?;
            let missing = || ADDED.iter().filter(|added| version < added.version);
            for added in missing() {
                refuse_taken(call, added).await?;
            }
            for added in missing() {
                add(call, added).await?;
                record_in(call, "schema", added.version, now).await?;
            }
            return Ok(true);
        }
        Found::Fenced(_) | Found::Version(_) => {
            call.take_time();
            upgrade::run(call, now).await?;
        }
    }
    Ok(false)
}

/// A table that a version added.
struct Added {
    version: u32,
    name: &'static str,
    /// What stands behind its name where it is made.
    text: &'static str,
    /// Its columns, in their order.
    columns: &'static str,
    /// A row that it has from the beginning on.
    first: Option<&'static str>,
}

/// Tables that versions added, in their order. Each is made by itself, before its version is written: whoever goes on
/// after a kill, or is slower than another process, finds it there.
const ADDED: [Added; 2] = [
    Added {
        version: 4,
        name: AUDIT,
        text: layout::AUDIT_TABLE,
        columns: AUDIT_COLUMNS,
        first: None,
    },
    Added {
        version: 5,
        name: REGISTRY,
        text: layout::REGISTRY_TABLE,
        columns: RECORD_COLUMNS,
        first: Some(layout::REVISION),
    },
];

/// Fails if there is a table of that name which is not ours.
///
/// # Errors
/// `Schema`.
async fn refuse_taken(call: &mut Call, added: &Added) -> DbResult<()> {
    let name = format!("{}{}", call.session.options.table_prefix, added.name);
    let columns =
        "SELECT GROUP_CONCAT(column_name ORDER BY ordinal_position SEPARATOR ', ') AS columns_of
        FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?";
    let columns: Option<String> = match call.row(columns, &[(&name).into()]).await? {
        Some(row) => row.try_get(0)?,
        None => None,
    };
    if columns.is_none_or(|columns| columns == added.columns) {
        return Ok(());
    }
    Err(schema_error(format!(
        "database '{}' has a table '{name}', which is not ours, and the upgrade to version {} needs its name: rename \
         it, then run `dl init` again. Nothing was changed",
        call.session.at, added.version
    )))
}

/// Makes a table that a version added, unless it is there.
///
/// # Errors
/// `Schema` if there is one of that name, which is not ours.
async fn add(call: &mut Call, added: &Added) -> DbResult<()> {
    create(call, &format!("CREATE TABLE IF NOT EXISTS {{p}}{} {}", added.name, added.text)).await?;
    refuse_taken(call, added).await?;
    let Some(first) = added.first else { return Ok(()) };
    match call.execute(first, &[]).await {
        // Another process was as fast, or this one was before.
        Err(error) if error.is_duplicate() => Ok(()),
        other => other.map(|_| ()),
    }
}

/// The tables of an old version.
async fn make(call: &mut Call, texts: &[&str], version: u32, now: TimestampMs) -> DbResult<()> {
    create(call, SCHEMA_TABLE).await?;
    for text in texts {
        create(call, text).await?;
    }
    record_in(call, "schema", version, now).await
}

/// Writes that a version is there.
async fn record_in(call: &mut Call, table: &str, version: u32, now: TimestampMs) -> DbResult<()> {
    let program = concat!("deltalakedb ", env!("CARGO_PKG_VERSION"));
    let text =
        format!("INSERT INTO {{p}}{table} (version, applied_at_ms, program) VALUES (?, ?, ?)");
    let values = [i64::from(version).into(), now.0.into(), program.into()];
    let recorded = call.execute(&text, &values).await;
    match recorded {
        // Another process was as fast.
        Err(error) if error.is_duplicate() => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn create(call: &mut Call, text: &str) -> DbResult<()> {
    let sql = format!("{}{TABLE_OPTIONS}", call.session.sql(text, &[]));
    match call.run(sql).await {
        // ER_TABLE_EXISTS_ERROR: two of them at once, where IF NOT EXISTS does not cover it.
        Err(error) if error.number() == Some(1050) => Ok(()),
        other => other.map(|_| ()),
    }
}
