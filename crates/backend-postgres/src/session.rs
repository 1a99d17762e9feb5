//! Connections, transactions and time limits.
//!
//! No state is ever set for a session: a pooler may give each transaction another server
//! connection. What a transaction needs is set inside of it, in the round trip that begins it.
//!
//! # Time limits
//!
//! A call that ends by its deadline, or whose future is dropped, closes its connection. The server
//! does not look at a connection while it waits for a lock, so it must be told when to end:
//!
//! * A transaction of several statements sets `statement_timeout` where it begins. (The server stops
//!   that clock before it commits: a commit that waits for a standby is not cut short by it.)
//! * A statement by itself has nothing before it. So the connection starts with the limit
//!   ([`LimitSetBy::Connection`]), and from PostgreSQL 14 on with `client_connection_check_interval`, by
//!   which the server notices within a second that nobody waits for an answer any more.
//! * Poolers refuse start-up parameters that they do not know, or ignore them. There a commit
//!   limits its wait for locks by itself, in the statement ([`LimitSetBy::Statement`]).
//!
//! The client waits a little longer than the server works: an answer that the time is over says
//! that nothing was written.

mod args;
mod start;
pub(crate) mod texts;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_sqlx_shared::{Lease, Pool};
use futures::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Postgres};
use tokio::time::error::Elapsed;

use crate::errors::{DbError, DbResult};
use crate::options::PostgresOptions;

use start::{LimitSetBy, first_connection};
use texts::Texts;

pub(crate) use args::Args;
pub(crate) use texts::statements;

/// The client waits for the server's answer that the time is over, so much longer at most.
const GRACE: Duration = Duration::from_secs(1);
/// So long the client waits for a statement without a time limit.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// What a call is, to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reading statements, each by itself.
    ReadOne,
    /// One statement that writes, a transaction by itself.
    WriteOne,
    /// Several statements that write.
    Write,
}

/// Fails if our tables have another version by now: after a statement that did not find a table or a column.
pub(crate) type LookAgain = fn(Arc<Session>, &'static str) -> BoxFuture<'static, Result<()>>;

/// A pool of connections and what every call needs.
pub(crate) struct Session {
    pub(crate) pool: Pool<PgConnection>,
    limit_set_by: LimitSetBy,
    texts: Texts,
    pub(crate) options: PostgresOptions,
    /// For messages: `host:port/database`.
    pub(crate) at: String,
    /// As the server calls it, once it is known.
    pub(crate) server_version: OnceLock<String>,
    /// Our tables were seen to have the version that this program works with, see `schema`.
    pub(crate) schema_is_right: AtomicBool,
    look_again: LookAgain,
    /// Size class of the largest table that was seen, see [`Session::note_size`].
    size_class: AtomicU32,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Session {
    /// Makes the first connection.
    pub(crate) async fn connect(
        options: PostgresOptions,
        look_again: LookAgain,
    ) -> Result<Arc<Session>> {
        options.validate()?;
        let at = options.place();
        let (pool, limit_set_by) = first_connection(&options)
            .await
            .map_err(|e| e.into_catalog(&at, "connecting", WriteState::NotApplied))?;
        // In transactions it is set where they begin.
        let alone = limit_set_by == LimitSetBy::Statement && options.statement_cache > 0;
        let wait = alone.then_some(options.statement_timeout);
        Ok(Arc::new(Session {
            pool,
            limit_set_by,
            texts: Texts::new(options.qualified_prefix(), wait),
            at,
            options,
            server_version: OnceLock::new(),
            schema_is_right: AtomicBool::new(false),
            look_again,
            size_class: AtomicU32::new(0),
        }))
    }

    /// Makes the other connections that the pool keeps.
    pub(crate) async fn fill_pool(&self) -> Result<()> {
        let filled = self.pool.fill().await.map_err(DbError::Sqlx);
        filled.map_err(|e| e.into_catalog(&self.at, "connecting", WriteState::NotApplied))
    }

    /// Begins a call, whether our tables are there or not.
    pub(crate) async fn begin(self: &Arc<Self>, doing: &'static str, mode: Mode) -> Result<Call> {
        let connection = self.pool.acquire().await.map_err(|error| {
            DbError::Sqlx(error).into_catalog(&self.at, doing, WriteState::NotApplied)
        })?;
        let mut call = Call {
            session: self.clone(),
            connection,
            doing,
            mode,
            answered: true,
            open: false,
            in_doubt: false,
            needs_schema: false,
            has_time: false,
        };
        // Without prepared statements, parse and execution are two messages that a pooler may
        // hand to two servers, unless a transaction holds them together.
        let together = self.options.statement_cache == 0;
        if (together || mode == Mode::Write)
            && let Err(error) = call.open_transaction().await
        {
            return Err(call.fail(error));
        }
        Ok(call)
    }

    /// Tells how many rows there are of a table: files, or versions.
    ///
    /// The server keeps the plan of a prepared statement until the statistics of a table change. One
    /// that was made while there were some hundred rows reads all of them for each statement, and
    /// does so with 100,000 rows too, until autovacuum has been there: a minute, or hours inside of
    /// one transaction. So statements are prepared anew when a table has grown twofold.
    pub(crate) fn note_size(&self, rows: i64) {
        self.size_class.fetch_max(size_class(rows), Ordering::Relaxed);
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// 0 below 512 files, 1 below 2,048, and so on by fours.
fn size_class(files: i64) -> u32 {
    u64::try_from(files)
        .ok()
        .and_then(u64::checked_ilog2)
        .map_or(0, |log| log.saturating_sub(7) / 2)
}

/// One call on one connection.
///
/// Dropped before [`Call::end`], as when the caller's future is dropped, it closes the connection:
/// the server rolls back what was open, and no other call meets it half way.
pub(crate) struct Call {
    pub(crate) session: Arc<Session>,
    connection: Lease<PgConnection>,
    doing: &'static str,
    mode: Mode,
    /// No statement is on its way.
    answered: bool,
    /// A transaction is open.
    open: bool,
    /// A statement that commits was sent and did not fail for certain.
    in_doubt: bool,
    /// Our tables were right when it began.
    pub(crate) needs_schema: bool,
    /// No time limit of statements holds for what is left of the transaction.
    has_time: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.open || !self.answered {
            self.connection.discard();
        }
    }
}

impl Call {
    /// How long the client waits for an answer.
    fn patience(&self) -> Duration {
        if self.has_time {
            return A_DAY;
        }
        let limit = self.session.options.statement_timeout;
        let server_ends_it = self.open || self.session.limit_set_by == LimitSetBy::Connection;
        if server_ends_it { limit.saturating_add(limit.min(GRACE)) } else { limit }
    }

    async fn open_transaction(&mut self) -> DbResult<()> {
        let millis = self.session.options.statement_millis();
        let kind = match self.mode {
            Mode::ReadOne => "READ COMMITTED READ ONLY",
            Mode::WriteOne | Mode::Write => "READ COMMITTED READ WRITE",
        };
        self.open = true;
        self.simple(format!("BEGIN ISOLATION LEVEL {kind}; SET LOCAL statement_timeout = {millis}"))
            .await
    }

    /// Lifts the time limit of statements for the rest of the transaction. Waits for locks have it still.
    pub(crate) async fn take_time(&mut self) -> DbResult<()> {
        let millis = self.session.options.statement_millis();
        let sql = format!("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {millis}");
        self.simple(sql).await?;
        self.has_time = true;
        Ok(())
    }

    /// Takes the answer to what was sent, and what it says about the connection.
    fn take<T>(
        &mut self,
        limit: Duration,
        answer: std::result::Result<std::result::Result<T, sqlx::Error>, Elapsed>,
    ) -> DbResult<T> {
        let result = match answer {
            Err(_) => Err(DbError::Timeout(limit)),
            Ok(result) => result.map_err(DbError::Sqlx),
        };
        self.answered = result.as_ref().err().is_none_or(DbError::leaves_connection_usable);
        result
    }

    /// Text of ours without parameters, maybe several statements.
    pub(crate) async fn simple(&mut self, sql: String) -> DbResult<()> {
        let limit = self.patience();
        self.answered = false;
        let work = sqlx::Executor::execute(self.connection.connection()?, AssertSqlSafe(sql));
        let answer = tokio::time::timeout(limit, work).await;
        self.take(limit, answer).map(|_| ())
    }

    /// Runs a statement that is not kept, all rows.
    pub(crate) async fn fetch_text(&mut self, sql: String, args: Args) -> DbResult<Vec<PgRow>> {
        let query: Query<'static> =
            sqlx::query_with(AssertSqlSafe(sql), args.finish()?).persistent(false);
        let limit = self.patience();
        self.answered = false;
        let work = query.fetch_all(self.connection.connection()?);
        let answer = tokio::time::timeout(limit, work).await;
        self.take(limit, answer)
    }

    /// A statement with its parameters, as the driver takes it.
    fn query(&self, sql: &'static str, arguments: PgArguments) -> Query<'static> {
        let class = self.session.size_class.load(Ordering::Relaxed);
        sqlx::query_with(AssertSqlSafe(self.session.texts.filled(sql, class)), arguments)
            .persistent(self.session.options.statement_cache > 0)
    }

    /// Runs a statement, all rows.
    pub(crate) async fn fetch(&mut self, sql: &'static str, args: Args) -> DbResult<Vec<PgRow>> {
        let query = self.query(sql, args.finish()?);
        let limit = self.patience();
        let commits = self.mode == Mode::WriteOne && !self.open;
        self.answered = false;
        self.in_doubt |= commits;
        let work = query.fetch_all(self.connection.connection()?);
        let answer = tokio::time::timeout(limit, work).await;
        let result = self.take(limit, answer);
        if commits && result.as_ref().err().is_none_or(|error| !error.leaves_doubt()) {
            self.in_doubt = false;
        }
        result
    }

    pub(crate) async fn fetch_optional(
        &mut self,
        sql: &'static str,
        args: Args,
    ) -> DbResult<Option<PgRow>> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    pub(crate) async fn fetch_one(&mut self, sql: &'static str, args: Args) -> DbResult<PgRow> {
        match self.fetch_optional(sql, args).await? {
            Some(row) => Ok(row),
            None => Err(sqlx::Error::RowNotFound.into()),
        }
    }

    /// Runs a statement that writes; number of rows that it changed.
    pub(crate) async fn execute(&mut self, sql: &'static str, args: Args) -> DbResult<u64> {
        let query = self.query(sql, args.finish()?);
        let limit = self.patience();
        self.answered = false;
        let work = query.execute(self.connection.connection()?);
        let answer = tokio::time::timeout(limit, work).await;
        self.take(limit, answer).map(|done| done.rows_affected())
    }

    /// Ends the call: what succeeded is committed, what failed is rolled back.
    pub(crate) async fn end<T>(mut self, result: DbResult<T>) -> Result<T> {
        let value = match result {
            Ok(value) => value,
            Err(error) => {
                self.roll_back().await;
                let changed = self.needs_schema && error.misses_table_or_column();
                let (session, doing) = (self.session.clone(), self.doing);
                let error = self.fail(error);
                drop(self);
                if changed {
                    (session.look_again)(Arc::clone(&session), doing).await?;
                }
                return Err(error);
            }
        };
        if self.open {
            self.in_doubt = matches!(self.mode, Mode::Write | Mode::WriteOne);
            if let Err(error) = self.simple("COMMIT".to_owned()).await {
                self.in_doubt &= error.leaves_doubt();
                return Err(self.fail(error));
            }
            self.open = false;
        }
        Ok(value)
    }

    /// Ends the call with nothing written, and an answer all the same.
    pub(crate) async fn end_rolled_back<T>(mut self, result: DbResult<T>) -> Result<T> {
        self.roll_back().await;
        result.map_err(|error| self.fail(error))
    }

    /// Best effort: a connection that does not take it is closed, which rolls back too.
    async fn roll_back(&mut self) {
        if self.open && self.answered && self.simple("ROLLBACK".to_owned()).await.is_ok() {
            self.open = false;
        }
    }

    fn fail(&self, error: DbError) -> CatalogError {
        let write = if self.in_doubt { WriteState::Unknown } else { WriteState::NotApplied };
        error.into_catalog(&self.session.at, self.doing, write)
    }
}
