//! The versions of our tables, and whose database this is. What they are is in `layout`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::support::{AUDIT, REGISTRY};
use futures::future::BoxFuture;
use sqlx::Row;

use crate::added;
use crate::audit;
use crate::ddl::{KEYED_VERSION, SCHEMA_VERSION, filled, for_speed, record};
use crate::errors::{DbError, DbResult};
use crate::layout::{
    CHILDREN, Names, SCHEMA_COLUMNS, SCHEMA_TABLE, SEED_STATISTICS, TABLES_AND_BATCHES,
};
use crate::options::PostgresOptions;
use crate::registry;
use crate::session::{Args, Call, Mode, Session, statements};
use crate::upgrade::{self, Next};

/// All of our tables, without prefix.
pub(crate) const TABLES: [&str; 17] = [
    "schema",
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
    AUDIT,
    REGISTRY,
];

// Statements about the server and the schema itself.
statements! {
    SERVER: "SELECT current_setting('server_version_num')::int4,
            current_setting('server_version')",
    /// The same, and the version of our tables, where there are tables of this name.
    SERVER_AND_KNOWN: "SELECT current_setting('server_version_num')::int4,
            current_setting('server_version'), max(version)::int8, max(applied_at_ms)::int8,
            max(program)::text
        FROM {p}schema",
    /// Tables under our names: in the schema that is asked for, else those that a name
    /// without schema finds. Everyone may read the system catalogs.
    NAMES: "SELECT c.relname::text, n.nspname::text, ARRAY(
            SELECT a.attname::text FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY a.attnum)
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname::text = ANY ($2::text[])
          AND CASE WHEN $1::text IS NULL THEN pg_catalog.pg_table_is_visible(c.oid)
            ELSE n.nspname::text = $1::text END
        ORDER BY c.relname::text",
    SCHEMA_EXISTS: "SELECT EXISTS (
        SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname::text = $1::text)",
    VERSION: "SELECT max(version) FROM {p}schema",
    /// The same of a table that has our columns.
    KNOWN: "SELECT max(version)::int8, max(applied_at_ms)::int8, max(program)::text
        FROM {p}schema",
    /// The server's clock, now and not when the transaction began, milliseconds.
    CLOCK: "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::int8",
    /// Makes the second of two migrations wait. Nothing rests on it: the tables' names and the
    /// primary key of `{p}schema` let one of them through.
    LOCK: "SELECT 1 FROM (SELECT pg_advisory_xact_lock(
        7812738666512280684::bigint # hashtext($1::text)::bigint)) AS locked",
}

/// The oldest server that works, as `server_version_num`.
const OLDEST_SERVER: i32 = 110_000;

/// Refuses servers that are too old.
pub(crate) async fn check_server(session: &Arc<Session>) -> Result<()> {
    let mut call = session.begin("connecting", Mode::ReadOne).await?;
    let result = async {
        // Mostly our tables are there: one statement reads both versions. In a transaction, as poolers need
        // them, nothing could follow the failure of that statement.
        let both = if session.options.statement_cache > 0 {
            call.fetch_one(SERVER_AND_KNOWN, Args::new()).await.ok()
        } else {
            None
        };
        let row = match both {
            Some(row) => {
                let version = row.try_get::<Option<i64>, _>(2)?;
                saw(session, version.and_then(|v| u32::try_from(v).ok()).unwrap_or(0));
                row
            }
            None => call.fetch_one(SERVER, Args::new()).await?,
        };
        let (number, text): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
        if number < OLDEST_SERVER {
            return Err(DbError::Catalog(CatalogError::Unsupported(format!(
                "database '{}' is PostgreSQL {text}, {} or newer is needed: upgrade the server",
                session.at,
                OLDEST_SERVER / 10_000
            ))));
        }
        Ok(text)
    }
    .await;
    let text = call.end(result).await?;
    session.server_version.get_or_init(|| text);
    Ok(())
}

/// Begins a call that needs our tables.
pub(crate) async fn begin(session: &Arc<Session>, doing: &'static str, mode: Mode) -> Result<Call> {
    if !is_right(session) {
        let found = look(session, doing).await?;
        require(found, &session.options)?;
    }
    let mut call = session.begin(doing, mode).await?;
    call.needs_schema = true;
    Ok(call)
}

/// After a statement that did not find a table or a column: fails if our tables have another version by now.
pub(crate) fn look_again(
    session: Arc<Session>,
    doing: &'static str,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        session.schema_is_right.store(false, Ordering::Release);
        let found = look(&session, doing).await?;
        require(found, &session.options)
    })
}

/// Whether our tables were seen to have the version that this program works with.
fn is_right(session: &Session) -> bool {
    session.schema_is_right.load(Ordering::Acquire)
}

/// Remembers that our tables have the version that this program works with, if they do.
fn saw(session: &Session, version: u32) {
    if version == SCHEMA_VERSION {
        session.schema_is_right.store(true, Ordering::Release);
    }
}

/// Looks up the version of our tables, in a call of its own; 0 = none.
async fn look(session: &Arc<Session>, doing: &'static str) -> Result<u32> {
    let mut call = session.begin(doing, Mode::ReadOne).await?;
    let found = version(&mut call).await;
    let found = call.end(found).await?;
    saw(session, found);
    Ok(found)
}

/// The version of our tables, 0 = none. The server is not asked once they were seen to be right.
pub(crate) async fn current(session: &Arc<Session>) -> Result<u32> {
    if is_right(session) {
        return Ok(SCHEMA_VERSION);
    }
    look(session, "reading the schema version").await
}

/// The version of our tables, 0 = none, for a call that reads only.
///
/// The table that has the version is read first. Where it answers, the system catalogs, which a new connection
/// has not read yet, are not needed.
///
/// # Errors
/// Those of [`inspect`].
async fn version(call: &mut Call) -> DbResult<u32> {
    // In a transaction, as poolers need them, nothing could follow the first statement's failure.
    if call.session.options.statement_cache > 0
        && let Ok(Some(row)) = call.fetch_optional(KNOWN, Args::new()).await
        && let Ok(Some(version)) = row.try_get::<Option<i64>, _>(0)
        && let Ok(version) = u32::try_from(version)
    {
        return Ok(version);
    }
    inspect(call).await
}

/// What time it is at the server.
pub(crate) async fn clock(call: &mut Call) -> DbResult<TimestampMs> {
    Ok(TimestampMs(call.fetch_one(CLOCK, Args::new()).await?.try_get(0)?))
}

/// Looks for our tables: their version, 0 = none.
///
/// # Errors
/// `Schema` if another program's tables stand under our names.
async fn inspect(call: &mut Call) -> DbResult<u32> {
    let session = call.session.clone();
    let options = &session.options;
    let prefix = &options.table_prefix;
    let wanted: Vec<String> = TABLES.iter().map(|table| format!("{prefix}{table}")).collect();
    let args = Args::new().bind(options.schema.as_deref()).bind(&wanted);
    let mut found: Vec<(String, String, Vec<String>)> = Vec::new();
    for row in call.fetch(NAMES, args).await? {
        found.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    }
    let at = &session.at;
    let schema_table = format!("{prefix}schema");
    let Some((_, place, columns)) = found.iter().find(|(name, ..)| *name == schema_table) else {
        return match found.first() {
            None => Ok(0),
            Some((name, place, _)) => Err(schema_error(format!(
                "database '{at}' has a table '{place}.{name}' but no '{schema_table}': it is not \
                 ours. Choose another table_prefix than '{prefix}', or another schema"
            ))),
        };
    };
    if columns != &SCHEMA_COLUMNS {
        return Err(schema_error(format!(
            "database '{at}' has a table '{place}.{schema_table}' with the columns {}, which is \
             not ours. Choose another table_prefix than '{prefix}', or another schema",
            columns.join(", ")
        )));
    }
    let row = call.fetch_one(VERSION, Args::new()).await?;
    let version: Option<i64> = row.try_get(0)?;
    version.and_then(|version| u32::try_from(version).ok()).ok_or_else(|| {
        schema_error(format!(
            "the table '{place}.{schema_table}' in database '{at}' is empty, so the version of \
             the catalog is not known: restore it from a backup"
        ))
    })
}

/// Fails unless this is the version that this program works with.
fn require(version: u32, options: &PostgresOptions) -> Result<()> {
    let (at, prefix) = (options.place(), options.qualified_prefix());
    match version {
        SCHEMA_VERSION => Ok(()),
        0 => Err(CatalogError::Schema(format!(
            "database '{at}' holds no catalog yet (there is no table {prefix}schema): run `dl \
             init` first"
        ))),
        newer if newer > SCHEMA_VERSION => Err(too_new(newer, &at)),
        older => Err(CatalogError::Schema(format!(
            "the catalog in database '{at}' has schema version {older}, this program works with \
             {SCHEMA_VERSION}: make a backup and run `dl init`, which upgrades it"
        ))),
    }
}

fn too_new(version: u32, at: &str) -> CatalogError {
    CatalogError::Schema(format!(
        "the catalog in database '{at}' has schema version {version}, this program knows versions \
         up to {SCHEMA_VERSION}: use a newer version of this program. Nothing was changed"
    ))
}

fn schema_error(message: String) -> DbError {
    DbError::Catalog(CatalogError::Schema(message))
}

/// Creates our tables inside of the caller's transaction, or takes one step of an upgrade: DDL is transactional, so
/// there is no step half way.
pub(crate) async fn migrate(call: &mut Call, now: TimestampMs) -> DbResult<Next> {
    let session = call.session.clone();
    let options = &session.options;
    let place = options.qualified_prefix();
    call.simple("SAVEPOINT dl_lock".to_owned()).await?;
    match call.fetch(LOCK, Args::new().bind(place.as_str())).await {
        Ok(_) => {}
        // feature_not_supported, undefined_function: engines that only speak the protocol.
        Err(error) if matches!(error.code(), Some("0A000" | "42883")) => {
            call.simple("ROLLBACK TO SAVEPOINT dl_lock".to_owned()).await?;
        }
        // lock_not_available, query_canceled.
        Err(error) if matches!(error.code(), Some("55P03" | "57014")) => {
            let what = format!(
                "another process upgrades the tables of database '{}': run `dl init` again, which waits for it",
                session.at
            );
            return Err(CatalogError::busy(what, WriteState::NotApplied).into());
        }
        Err(error) => return Err(error),
    }
    let found = inspect(call).await?;
    if found > SCHEMA_VERSION {
        return Err(too_new(found, &session.at).into());
    }
    if found == SCHEMA_VERSION {
        return Ok(Next::Done);
    }
    if found != 0 {
        if found < KEYED_VERSION {
            match upgrade::step(call, found, now).await? {
                Next::Done => {}
                next => return Ok(next),
            }
        }
        for table in [&audit::ADDED, &registry::ADDED] {
            if found < table.version {
                added::add(call, table).await?;
                record(call, table.version, now).await?;
            }
        }
        return Ok(Next::Done);
    }
    match create(call, now).await {
        // Another process created them between our look and our CREATE, on a server where the
        // lock does nothing.
        Err(error) if error.is_duplicate_object() => {
            let at = session.at.clone();
            Err(DbError::Catalog(CatalogError::busy(
                format!("another process creates the tables of database '{at}'"),
                WriteState::NotApplied,
            )))
        }
        other => other.map(|()| Next::Done),
    }
}

/// Makes our tables.
async fn create(call: &mut Call, now: TimestampMs) -> DbResult<()> {
    let session = call.session.clone();
    let options = &session.options;
    if let Some(schema) = &options.schema {
        let row = call.fetch_one(SCHEMA_EXISTS, Args::new().bind(schema.as_str())).await?;
        // Even IF NOT EXISTS needs the right to create one.
        if !row.try_get::<bool, _>(0)? {
            call.simple(format!("CREATE SCHEMA \"{schema}\"")).await?;
        }
    }
    let place = options.qualified_prefix();
    let names = Names { place: &place, prefix: &options.table_prefix, suffix: "" };
    let children: String = CHILDREN.iter().map(|child| child.create_whole(names)).collect();
    call.simple(filled(options, &format!("{SCHEMA_TABLE}{TABLES_AND_BATCHES}{children}"))).await?;
    audit::create(call).await?;
    call.simple(filled(options, registry::ADDED.text)).await?;
    record(call, SCHEMA_VERSION, now).await?;
    for_speed(call, SEED_STATISTICS).await
}
