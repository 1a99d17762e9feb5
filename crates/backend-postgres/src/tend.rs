//! What our tables like to have done now and then, beside autovacuum
//! (<https://www.postgresql.org/docs/current/routine-vacuuming.html>).

use std::time::Duration;

use deltalakedb_catalog_core::diagnosis::Tended;
use deltalakedb_catalog_core::error::Result;
use sqlx::Row;

use crate::errors::DbResult;
use crate::options::PostgresOptions;
use crate::schema::{self, TABLES};
use crate::session::{Args, Call, Mode, Session};

/// Prepared statements that a connection keeps, where statements are no transactions.
const STATEMENT_CACHE: usize = 10;
/// From this version on a vacuum can leave out what waits, and what locks readers of standbys out.
const WITH_OPTIONS: i32 = 120_000;

/// A table, as the server calls it.
struct Table {
    /// Quoted.
    name: String,
    owned: bool,
}

/// `VACUUM ANALYZE` of our tables, one by one, on a connection of its own; each for as long as `limit`. Nobody is
/// locked out: tables that others have locked are left out, and none is made smaller at its end (from
/// PostgreSQL 12 on). With `dry_run` nothing is done.
///
/// # Errors
/// Those of connecting; `Unavailable` if the server does not answer in time.
pub async fn tend(options: PostgresOptions, limit: Duration, dry_run: bool) -> Result<Tended> {
    let session = Session::connect(options.clone(), schema::look_again).await?;
    let mut call = session.begin("looking at the tables", Mode::ReadOne).await?;
    let result = look(&mut call).await;
    let found = call.end(result).await;
    session.close().await;
    let (version, tables) = found?;
    let mut tended = Tended::default();
    let foreign: Vec<&str> =
        tables.iter().filter(|table| !table.owned).map(|table| table.name.as_str()).collect();
    if !foreign.is_empty() {
        tended.left.push(format!(
            "this login does not own {}, so that it may not vacuum: autovacuum does",
            foreign.join(", ")
        ));
    }
    let how = if version >= WITH_OPTIONS {
        "VACUUM (ANALYZE, SKIP_LOCKED, TRUNCATE FALSE)"
    } else {
        "VACUUM ANALYZE"
    };
    let statements: Vec<String> =
        tables.iter().filter(|t| t.owned).map(|table| format!("{how} {}", table.name)).collect();
    if dry_run || statements.is_empty() {
        tended.done = statements;
        return Ok(tended);
    }
    // A vacuum is in no transaction, and takes longer than statements of commits may.
    let options = PostgresOptions {
        statement_timeout: limit,
        statement_cache: options.statement_cache.max(STATEMENT_CACHE),
        ..options
    };
    let session = Session::connect(options, schema::look_again).await?;
    let mut call = session.begin("vacuuming the tables", Mode::ReadOne).await?;
    let mut result = Ok(());
    for statement in statements {
        result = call.simple(statement.clone()).await;
        if result.is_err() {
            break;
        }
        tended.done.push(statement);
    }
    let ended = call.end(result).await;
    session.close().await;
    ended.map(|()| tended)
}

async fn look(call: &mut Call) -> DbResult<(i32, Vec<Table>)> {
    let prefix = call.session.options.table_prefix.clone();
    let schema = match &call.session.options.schema {
        // Both were checked to be plain words when the options were.
        Some(schema) => format!("n.nspname::text = '{}'", schema.replace('\'', "''")),
        None => "pg_catalog.pg_table_is_visible(c.oid)".to_owned(),
    };
    let names: Vec<String> = TABLES.iter().map(|table| format!("'{prefix}{table}'")).collect();
    let sql = format!(
        "SELECT pg_catalog.quote_ident(n.nspname::text) || '.' || pg_catalog.quote_ident(c.relname::text),
            pg_catalog.pg_has_role(c.relowner, 'USAGE'),
            pg_catalog.current_setting('server_version_num')::int4
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND {schema} AND c.relname::text IN ({})
        ORDER BY 1",
        names.join(", ")
    );
    let (mut version, mut tables) = (0, Vec::new());
    for row in call.fetch_text(sql, Args::new()).await? {
        version = row.try_get(2)?;
        tables.push(Table { name: row.try_get(0)?, owned: row.try_get(1)? });
    }
    Ok((version, tables))
}
