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
//!   ([`Told::AtStart`]), and from PostgreSQL 14 on with `client_connection_check_interval`, by
//!   which the server notices within a second that nobody waits for an answer any more.
//! * Poolers refuse start-up parameters that they do not know, or ignore them. There a commit
//!   limits its wait for locks by itself, in the statement ([`Told::InStatements`]).
//!
//! The client waits a little longer than the server works: an answer that the time is over says
//! that nothing was written.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_sqlx_shared::{Lease, Pool};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Encode, Postgres, Type};

use crate::commit::Contended;
use crate::errors::{DbError, DbResult};
use crate::groups::Groups;
use crate::options::{AtStart, PostgresOptions};
use crate::schema;
use crate::statements::Statements;

/// The oldest server that works, as `server_version_num`.
const OLDEST_SERVER: i32 = 110_000;

/// The client waits for the server's answer that the time is over, so much longer at most.
const GRACE: Duration = Duration::from_secs(1);

/// How the server knows how long a statement by itself may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Connections started with it.
    AtStart,
    /// Statements that wait for locks say how long they do.
    InStatements,
}

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

/// A pool of connections and what every call needs.
pub(crate) struct Session {
    pool: Pool<PgConnection>,
    told: Told,
    pub(crate) options: PostgresOptions,
    pub(crate) sql: Statements,
    /// For messages: `host:port/database`.
    pub(crate) at: String,
    pub(crate) server_version: OnceLock<String>,
    /// Whether our tables were seen to have the version that this program works with.
    schema_is_right: AtomicBool,
    /// Size class of the largest table that was seen, see [`Session::note_size`].
    size_class: AtomicU32,
    /// Commits of this process.
    commits: AtomicI64,
    /// Commits that wait for each other.
    pub(crate) groups: Groups,
    pub(crate) contended: Contended,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) async fn connect(options: PostgresOptions) -> Result<Arc<Session>> {
        options.validate()?;
        let at = options.place();
        let (pool, told) = first_connection(&options)
            .await
            .map_err(|e| e.into_catalog(&at, "connecting", WriteState::NotApplied))?;
        // In transactions it is set where they begin.
        let alone = told == Told::InStatements && options.statement_cache > 0;
        let wait = alone.then_some(options.statement_timeout);
        let session = Arc::new(Session {
            pool,
            told,
            sql: Statements::new(&options.qualified_prefix(), wait),
            at,
            groups: Groups::new(options.pool.max_connections),
            options,
            server_version: OnceLock::new(),
            schema_is_right: AtomicBool::new(false),
            size_class: AtomicU32::new(0),
            commits: AtomicI64::new(0),
            contended: Contended::default(),
        });
        session.check_server().await?;
        let filled = session.pool.fill().await.map_err(DbError::Sqlx);
        filled.map_err(|e| e.into_catalog(&session.at, "connecting", WriteState::NotApplied))?;
        Ok(session)
    }

    /// Refuses servers that are too old.
    async fn check_server(self: &Arc<Self>) -> Result<()> {
        let mut call = self.unchecked("connecting", Mode::ReadOne).await?;
        let result = async {
            // Mostly there are tables of ours: one question for both. In a transaction, as poolers
            // need them, nothing could follow its failure.
            let both = if self.options.statement_cache > 0 {
                call.fetch_one(&self.sql.schema.server_and_known, Args::new()).await.ok()
            } else {
                None
            };
            let row = match both {
                Some(row) => {
                    let version = sqlx::Row::try_get::<Option<i64>, _>(&row, 2)?;
                    self.saw_schema(version.and_then(|v| u32::try_from(v).ok()).unwrap_or(0));
                    row
                }
                None => call.fetch_one(&self.sql.schema.server, Args::new()).await?,
            };
            let (number, text): (i32, String) =
                (sqlx::Row::try_get(&row, 0)?, sqlx::Row::try_get(&row, 1)?);
            check_server_version(number, &text, &self.at)?;
            Ok(text)
        }
        .await;
        let text = call.end(result).await?;
        self.server_version.get_or_init(|| text);
        Ok(())
    }

    /// Begins a call that needs our tables.
    pub(crate) async fn begin(self: &Arc<Self>, doing: &'static str, mode: Mode) -> Result<Call> {
        if !self.schema_is_right() {
            let mut call = self.unchecked(doing, Mode::ReadOne).await?;
            let found = schema::version(&mut call).await;
            let found = call.end(found).await?;
            schema::require(found, &self.options)?;
            self.saw_schema(found);
        }
        self.unchecked(doing, mode).await
    }

    /// Whether our tables were seen to have the version that this program works with.
    pub(crate) fn schema_is_right(&self) -> bool {
        self.schema_is_right.load(Ordering::Acquire)
    }

    /// Remembers that our tables have the version that this program works with, if they do.
    pub(crate) fn saw_schema(&self, version: u32) {
        if version == schema::SCHEMA_VERSION {
            self.schema_is_right.store(true, Ordering::Release);
        }
    }

    /// Begins a call, whatever tables there are.
    pub(crate) async fn unchecked(
        self: &Arc<Self>,
        doing: &'static str,
        mode: Mode,
    ) -> Result<Call> {
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

    /// Tells of a commit, and which version it made: what all tables have in common grows too.
    pub(crate) fn note_commit(&self, version: i64) {
        let commits = self.commits.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.note_size(version.max(commits));
    }

    /// A statement's text, which differs from size class to size class.
    fn for_size(&self, sql: &Arc<str>) -> Arc<str> {
        match self.size_class.load(Ordering::Relaxed) {
            0 => sql.clone(),
            class => format!("{sql} -- size class {class}").into(),
        }
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// A pool whose first connection is there, and whether the server knows how long statements may take.
async fn first_connection(options: &PostgresOptions) -> DbResult<(Pool<PgConnection>, Told)> {
    // Without prepared statements each statement is in a transaction, which says it.
    let at_starts: &[AtStart] = if options.statement_cache > 0 {
        &[AtStart::LimitAndCheck, AtStart::Limit, AtStart::Nothing]
    } else {
        &[AtStart::Nothing]
    };
    let mut refused = None;
    for at_start in at_starts {
        let pool = Pool::new(options.to_driver(*at_start), options.pool.clone())?;
        let mut lease = match pool.acquire().await {
            Ok(lease) => lease,
            Err(error) if *at_start != AtStart::Nothing && refuses_parameters(&error) => {
                tracing::debug!(%error, ?at_start, "the server does not take these parameters");
                refused = Some(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if *at_start == AtStart::Nothing {
            drop(lease);
            return Ok((pool, Told::InStatements));
        }
        let told = match is_told(&mut lease, options).await {
            Ok(true) => Told::AtStart,
            Ok(false) => Told::InStatements,
            Err(error) => {
                lease.discard();
                return Err(error);
            }
        };
        drop(lease);
        return Ok((pool, told));
    }
    Err(refused.unwrap_or(sqlx::Error::PoolClosed).into())
}

/// Whether a connection really has the limit that it started with: a pooler may take a parameter, and not
/// pass it on.
async fn is_told(lease: &mut Lease<PgConnection>, options: &PostgresOptions) -> DbResult<bool> {
    let limit = options.pool.acquire_timeout;
    let show = sqlx::Executor::fetch_one(lease.connection()?, "SHOW statement_timeout");
    match tokio::time::timeout(limit, show).await {
        Err(_) => Err(DbError::Timeout(limit)),
        Ok(Ok(row)) => {
            let text: String = sqlx::Row::try_get(&row, 0)?;
            Ok(shown_millis(&text) == Some(options.statement_millis()))
        }
        // An engine that only speaks the protocol, and has taken the parameter.
        Ok(Err(sqlx::Error::Database(_))) => Ok(true),
        Ok(Err(error)) => Err(error.into()),
    }
}

/// A time as the server shows it: `1500ms`, `1min`, `0`.
fn shown_millis(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u128>().ok()?.checked_mul(factor)
}

/// Whether a connection may be had without parameters of ours: the server said no, and not because of
/// the login (class 28), the database (3D), or what it is short of or busy with (53, 57).
fn refuses_parameters(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    let code = error.code().unwrap_or_default();
    !["28", "3D", "53", "57"].iter().any(|class| code.starts_with(class))
}

/// 0 below 512 files, 1 below 2,048, and so on by fours.
fn size_class(files: i64) -> u32 {
    u64::try_from(files)
        .ok()
        .and_then(u64::checked_ilog2)
        .map_or(0, |log| log.saturating_sub(7) / 2)
}

/// Refuses servers that are too old.
pub(crate) fn check_server_version(number: i32, text: &str, at: &str) -> Result<()> {
    if number >= OLDEST_SERVER {
        return Ok(());
    }
    Err(CatalogError::Unsupported(format!(
        "database '{at}' is PostgreSQL {text}, {} or newer is needed: upgrade the server",
        OLDEST_SERVER / 10_000
    )))
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
        let limit = self.session.options.statement_timeout;
        let server_ends_it = self.open || self.session.told == Told::AtStart;
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

    /// Text of ours without parameters, maybe several statements.
    pub(crate) async fn simple(&mut self, sql: String) -> DbResult<()> {
        let limit = self.patience();
        self.answered = false;
        let work = sqlx::Executor::execute(self.connection.connection()?, AssertSqlSafe(sql));
        let result = tokio::time::timeout(limit, work).await;
        let result = match result {
            Err(_) => Err(DbError::Timeout(limit)),
            Ok(result) => result.map_err(DbError::Sqlx),
        };
        self.answered = result.as_ref().err().is_none_or(DbError::leaves_connection_usable);
        result.map(|_| ())
    }

    /// Runs a statement, all rows.
    pub(crate) async fn fetch(&mut self, sql: &Arc<str>, args: Args) -> DbResult<Vec<PgRow>> {
        let arguments = args.finish()?;
        let limit = self.patience();
        let commits = self.mode == Mode::WriteOne && !self.open;
        self.answered = false;
        self.in_doubt |= commits;
        let query = sqlx::query_with(AssertSqlSafe(self.session.for_size(sql)), arguments)
            .persistent(self.session.options.statement_cache > 0);
        let result =
            match tokio::time::timeout(limit, query.fetch_all(self.connection.connection()?)).await
            {
                Err(_) => Err(DbError::Timeout(limit)),
                Ok(result) => result.map_err(DbError::Sqlx),
            };
        self.answered = result.as_ref().err().is_none_or(DbError::leaves_connection_usable);
        if commits && result.as_ref().err().is_none_or(|error| !error.leaves_doubt()) {
            self.in_doubt = false;
        }
        result
    }

    pub(crate) async fn fetch_optional(
        &mut self,
        sql: &Arc<str>,
        args: Args,
    ) -> DbResult<Option<PgRow>> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    pub(crate) async fn fetch_one(&mut self, sql: &Arc<str>, args: Args) -> DbResult<PgRow> {
        match self.fetch_optional(sql, args).await? {
            Some(row) => Ok(row),
            None => Err(sqlx::Error::RowNotFound.into()),
        }
    }

    /// Runs a statement that writes; number of rows that it changed.
    pub(crate) async fn execute(&mut self, sql: &Arc<str>, args: Args) -> DbResult<u64> {
        let arguments = args.finish()?;
        let limit = self.patience();
        self.answered = false;
        let query = sqlx::query_with(AssertSqlSafe(self.session.for_size(sql)), arguments)
            .persistent(self.session.options.statement_cache > 0);
        let result =
            match tokio::time::timeout(limit, query.execute(self.connection.connection()?)).await {
                Err(_) => Err(DbError::Timeout(limit)),
                Ok(result) => result.map_err(DbError::Sqlx),
            };
        self.answered = result.as_ref().err().is_none_or(DbError::leaves_connection_usable);
        result.map(|done| done.rows_affected())
    }

    /// Ends the call: what succeeded is committed, what failed is rolled back.
    pub(crate) async fn end<T>(mut self, result: DbResult<T>) -> Result<T> {
        let value = match result {
            Ok(value) => value,
            Err(error) => {
                self.roll_back().await;
                return Err(self.fail(error));
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

/// Parameters of a statement.
pub(crate) struct Args {
    arguments: PgArguments,
    error: Option<DbError>,
}

impl Args {
    pub(crate) fn new() -> Self {
        Args { arguments: PgArguments::default(), error: None }
    }

    /// The next parameter. Text from users goes through [`Args::text`] and its like.
    pub(crate) fn bind<'q, T: Encode<'q, Postgres> + Type<Postgres>>(mut self, value: T) -> Self {
        if self.error.is_none()
            && let Err(error) = sqlx::Arguments::add(&mut self.arguments, value)
        {
            self.error = Some(DbError::Sqlx(sqlx::Error::Encode(error)));
        }
        self
    }

    /// Text; PostgreSQL cannot store NUL in it, so that is refused, by the name of the field.
    pub(crate) fn text(self, field: &'static str, value: &str) -> Self {
        self.refuse_nul(field, [Some(value)]).bind(value)
    }

    pub(crate) fn text_opt(self, field: &'static str, value: Option<&str>) -> Self {
        self.refuse_nul(field, [value]).bind(value)
    }

    pub(crate) fn texts(self, field: &'static str, values: &[&str]) -> Self {
        self.refuse_nul(field, values.iter().map(|value| Some(*value))).bind(values)
    }

    pub(crate) fn texts_opt(self, field: &'static str, values: &[Option<&str>]) -> Self {
        self.refuse_nul(field, values.iter().copied()).bind(values)
    }

    pub(crate) fn owned_texts(self, field: &'static str, values: &[String]) -> Self {
        self.refuse_nul(field, values.iter().map(|value| Some(value.as_str()))).bind(values)
    }

    fn refuse_nul<'v>(
        mut self,
        field: &'static str,
        values: impl IntoIterator<Item = Option<&'v str>>,
    ) -> Self {
        let mut values = values.into_iter().flatten();
        if self.error.is_none() && values.any(|value| value.as_bytes().contains(&0)) {
            self.error = Some(DbError::Catalog(CatalogError::invalid(format!(
                "{field} contains a NUL character, which PostgreSQL cannot store in text"
            ))));
        }
        self
    }

    fn finish(self) -> DbResult<PgArguments> {
        match self.error {
            None => Ok(self.arguments),
            Some(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_server_shows_them() {
        for (text, millis) in [
            ("0", Some(0)),
            ("60000", Some(60_000)),
            ("500ms", Some(500)),
            ("90s", Some(90_000)),
            ("1min", Some(60_000)),
            ("2h", Some(7_200_000)),
            ("1d", Some(86_400_000)),
            ("1 week", None),
            ("", None),
        ] {
            assert_eq!(shown_millis(text), millis, "{text}");
        }
    }
}
