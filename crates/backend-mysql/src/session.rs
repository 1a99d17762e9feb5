//! Connections, transactions and time limits.
//!
//! Nothing is set for a session and nothing is prepared: a pooler may give each transaction another
//! server connection. Isolation is set in the message that begins the transaction.
//!
//! So there is no limit of time that the server would know. It does not look at a connection while it
//! waits for a lock or works, either: a call that ends by its deadline, or is dropped, is ended there by
//! another connection ([`abandoned`]). What nobody can end any more, as that of a program that was killed,
//! ends with the server's own `innodb_lock_wait_timeout` (50 s).

mod abandoned;
pub(crate) mod literals;
pub(crate) mod writer;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_sqlx_shared::{Lease, Pool, TakesWrites};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Either, Row};

use crate::errors::{DbError, DbResult};
use crate::options::MySqlOptions;

use abandoned::{Abandoned, Mark};
use literals::{Value, fill};

/// Most bytes of one message, if the server would take more: what is held in memory twice.
const MOST_BYTES: usize = 8 << 20;
/// Longest that one statement of an upgrade may take: none is cut while it works.
const LONG: Duration = Duration::from_secs(7 * 24 * 3600);
/// Room in a packet besides the statements.
const PACKET_ROOM: usize = 4096;

/// Begins a transaction that writes.
///
/// READ COMMITTED: a statement sees what was committed before it began, so what is read after a
/// row lock was had is as new as the lock; and there are no gap locks, which make writers of
/// different tables wait for each other and run into deadlocks. No rule rests on what is read
/// without a lock: heads are locked and compared again by the UPDATE, and the primary keys of
/// `{p}commits` and `{p}batches` refuse a second writer of a version or a token.
const BEGIN_WRITE: &str =
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION READ WRITE; ";
/// Begins a transaction whose statements all see one state.
const BEGIN_READ: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
     START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY; ";
/// The bit of `wsrep_sync_wait` that makes reads wait for what other nodes have committed
/// (<https://mariadb.com/kb/en/galera-cluster-system-variables/#wsrep_sync_wait>).
const WAIT_BEFORE_READS: u32 = 1;
/// Statements in each of the two.
const BEGIN_STATEMENTS: usize = 2;

/// What one statement of a message answered.
#[derive(Debug, Default)]
pub(crate) struct Set {
    pub(crate) rows: Vec<MySqlRow>,
    /// Rows that it wrote; an UPDATE counts the rows that it found.
    pub(crate) affected: u64,
}

/// The first row of the first set.
pub(crate) fn first(sets: &[Set]) -> Option<&MySqlRow> {
    sets.first().and_then(|set| set.rows.first())
}

/// Product and version of a server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// As it calls itself: `10.11.14-MariaDB-0+deb12u2`, `8.0.40`.
    pub(crate) version: String,
    /// Its `max_allowed_packet`, bytes.
    max_packet: usize,
    /// Takes one statement a message.
    ///
    /// A Galera node may roll a transaction back between two statements of a message, when another
    /// node's write wins over it; it swallows that error and runs the rest of the message with no
    /// transaction at all. TiDB refuses messages of several statements by default
    /// (<https://docs.pingcap.com/tidb/stable/system-variables#tidb_multi_statement_mode-new-in-v4011>).
    one_by_one: bool,
}

/// A pool of connections and what every call needs.
pub(crate) struct Session {
    /// With each connection: what it is to the server, or none if that cannot be found out.
    pub(crate) pool: Pool<MySqlConnection, Option<Mark>>,
    abandoned: Arc<Abandoned>,
    pub(crate) options: MySqlOptions,
    /// For messages: `host:port/database`.
    pub(crate) at: String,
    pub(crate) server: OnceLock<Server>,
    /// Whether our tables were seen to have the version that this program works with.
    pub(crate) schema_is_right: AtomicBool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) async fn connect(options: MySqlOptions) -> Result<Arc<Session>> {
        options.validate()?;
        let servers: Vec<_> = options.each_server().iter().map(MySqlOptions::to_driver).collect();
        let ask = options.wants_writes().then_some(takes_writes as TakesWrites<MySqlConnection>);
        let pool = Pool::of_servers(servers, ask, options.pool.clone())
            .map_err(|error| CatalogError::invalid(format!("bad pool options: {error}")))?;
        let session = Arc::new(Session {
            abandoned: Arc::new(Abandoned::new(pool.clone(), options.place())),
            pool,
            at: options.place(),
            options,
            server: OnceLock::new(),
            schema_is_right: AtomicBool::new(false),
        });
        session.look_at_server().await?;
        let filled = session.pool.fill().await.map_err(DbError::Sqlx);
        filled.map_err(|e| e.into_catalog(&session.at, "connecting", WriteState::NotApplied))?;
        Ok(session)
    }

    async fn look_at_server(self: &Arc<Self>) -> Result<()> {
        let mut call = self.unchecked("connecting").await?;
        let result = async {
            let about = "SELECT VERSION(), @@max_allowed_packet, CAST(@@autocommit AS SIGNED)";
            let sets = call.run(about.to_owned()).await?;
            let Some(row) = first(&sets) else { return Err(sqlx::Error::RowNotFound.into()) };
            let (version, packet): (String, u64) = (row.try_get(0)?, row.try_get(1)?);
            check_server_version(&version, &self.at)?;
            if row.try_get::<i64, _>(2)? == 0 {
                return Err(DbError::Catalog(CatalogError::Unsupported(format!(
                    "database '{}' leaves a transaction open after each statement of this login: \
                     set autocommit = 1 on the server, or in its init_connect",
                    self.at
                ))));
            }
            let galera = self.look_for_galera(&mut call).await?;
            Ok(Server {
                one_by_one: galera || version.contains("TiDB"),
                version,
                max_packet: usize::try_from(packet).unwrap_or(usize::MAX),
            })
        }
        .await;
        let server = call.end(result).await?;
        self.server.get_or_init(|| server);
        Ok(())
    }

    /// Whether the server is a node of a Galera cluster; warns if it lets reads lag.
    async fn look_for_galera(&self, call: &mut Call) -> DbResult<bool> {
        let sets = call.run("SHOW VARIABLES LIKE 'wsrep\\_%'".to_owned()).await?;
        let (mut galera, mut sync_wait) = (false, 0_u32);
        for row in sets.iter().flat_map(|set| &set.rows) {
            let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            match name.as_str() {
                "wsrep_on" => galera = value.eq_ignore_ascii_case("ON"),
                "wsrep_sync_wait" => sync_wait = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        if galera && sync_wait & WAIT_BEFORE_READS == 0 {
            tracing::warn!(
                database = self.at,
                "this Galera node answers reads before it has what other nodes committed: set \
                 wsrep_sync_wait to 7 on each node"
            );
        }
        Ok(galera)
    }

    /// Most bytes that one message may have.
    pub(crate) fn message_bytes(&self) -> usize {
        let packet = self.server.get().map_or(1 << 20, |server| server.max_packet);
        packet.saturating_sub(PACKET_ROOM).min(MOST_BYTES)
    }

    /// Fills a text of ours, see [`fill`].
    pub(crate) fn sql(&self, text: &str, values: &[Value<'_>]) -> String {
        fill(text, &self.options.table_prefix, values)
    }

    /// Begins a call, whatever tables there are.
    pub(crate) async fn unchecked(self: &Arc<Self>, doing: &'static str) -> Result<Call> {
        let connection = self.pool.acquire().await.map_err(|error| {
            DbError::Sqlx(error).into_catalog(&self.at, doing, WriteState::NotApplied)
        })?;
        let mut call = Call {
            session: self.clone(),
            connection,
            doing,
            answered: true,
            on_its_way: false,
            open: false,
            in_doubt: false,
            limit: self.options.statement_timeout,
            changed: false,
        };
        if call.connection.note().is_none() {
            let mark = match call.run(Mark::ASK.to_owned()).await {
                Ok(sets) => first(&sets).and_then(Mark::read),
                Err(error) if error.leaves_connection_usable() => {
                    tracing::debug!(?error, "the server does not tell which connection this is");
                    None
                }
                Err(error) => return Err(call.fail(error)),
            };
            call.connection.set_note(mark);
        }
        Ok(call)
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Whether the server of a connection takes writes: it is no replica that was made read-only.
fn takes_writes(
    connection: &mut MySqlConnection,
) -> BoxFuture<'_, std::result::Result<bool, sqlx::Error>> {
    Box::pin(async move {
        let ask = "SELECT CAST(@@global.read_only AS SIGNED)";
        let row = sqlx::raw_sql(ask).fetch_one(connection).await?;
        Ok(row.try_get::<i64, _>(0)? == 0)
    })
}

/// Refuses servers that are too old. Engines that only speak the protocol say which MySQL they
/// follow.
pub(crate) fn check_server_version(text: &str, at: &str) -> Result<()> {
    let maria = text.to_ascii_lowercase().contains("mariadb");
    // MariaDB behind old protocols calls itself 5.5.5-10.11.
    let number = text.strip_prefix("5.5.5-").filter(|_| maria).unwrap_or(text);
    let mut parts =
        number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let found = (parts.next().flatten().unwrap_or(0), parts.next().flatten().unwrap_or(0));
    let (product, oldest) = if maria { ("MariaDB", (10, 6)) } else { ("MySQL", (8, 0)) };
    if found >= oldest {
        return Ok(());
    }
    Err(CatalogError::Unsupported(format!(
        "database '{at}' is {product} {text}, {product} {}.{} or newer is needed: upgrade the server",
        oldest.0, oldest.1
    )))
}

/// The statements of a message. No text of ours has a semicolon inside of a statement, and values are
/// hexadecimal.
fn statements(message: &str) -> impl Iterator<Item = &str> {
    message.split(';').map(str::trim).filter(|statement| !statement.is_empty())
}

/// Sends one message, and reads all of its answers.
async fn send(
    connection: &mut Lease<MySqlConnection, Option<Mark>>,
    message: String,
) -> sqlx::Result<Vec<Set>> {
    let mut stream = sqlx::raw_sql(AssertSqlSafe(message)).fetch_many(connection.connection()?);
    let mut sets = Vec::new();
    let mut rows = Vec::new();
    while let Some(item) = stream.try_next().await? {
        match item {
            Either::Left(done) => {
                sets.push(Set { rows: std::mem::take(&mut rows), affected: done.rows_affected() });
            }
            Either::Right(row) => rows.push(row),
        }
    }
    Ok(sets)
}

/// One call on one connection.
///
/// Dropped before [`Call::end`], as when the caller's future is dropped, it closes the connection:
/// the server rolls back what was open, and no other call meets it half way.
pub(crate) struct Call {
    pub(crate) session: Arc<Session>,
    connection: Lease<MySqlConnection, Option<Mark>>,
    doing: &'static str,
    /// No message is on its way, and the connection can be used further.
    answered: bool,
    /// The server may be at a message that nobody waits for any more.
    on_its_way: bool,
    /// A transaction is open.
    open: bool,
    /// COMMIT was sent and did not fail for certain.
    in_doubt: bool,
    /// How long a message may take.
    limit: Duration,
    /// The connection is not as others expect it.
    changed: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.open || !self.answered {
            if self.on_its_way
                && let Some(Some(mark)) = self.connection.note()
            {
                self.session.abandoned.end(mark.clone());
            }
            self.connection.discard();
        } else if self.changed {
            self.connection.discard();
        }
    }
}

impl Call {
    /// Sends statements in one message: one round trip (one for each, where the server does not
    /// take that, see [`Server`]). What each answered; it ends with the first that fails.
    pub(crate) async fn run(&mut self, sql: String) -> DbResult<Vec<Set>> {
        let limit = self.limit;
        let one_by_one = self.session.server.get().is_some_and(|server| server.one_by_one);
        self.answered = false;
        self.on_its_way = true;
        let work = async {
            if !one_by_one {
                return send(&mut self.connection, sql).await;
            }
            let mut sets = Vec::new();
            for statement in statements(&sql) {
                sets.append(&mut send(&mut self.connection, statement.to_owned()).await?);
            }
            Ok(sets)
        };
        let result = match tokio::time::timeout(limit, work).await {
            Err(_) => Err(DbError::Timeout(limit)),
            Ok(result) => {
                self.on_its_way = false;
                result.map_err(DbError::Sqlx)
            }
        };
        self.answered = result.as_ref().err().is_none_or(DbError::leaves_connection_usable);
        result
    }

    /// One statement of ours with its values.
    pub(crate) async fn query(&mut self, text: &str, values: &[Value<'_>]) -> DbResult<Vec<Set>> {
        let sql = self.session.sql(text, values);
        self.run(sql).await
    }

    /// The same, for its first row.
    pub(crate) async fn row(
        &mut self,
        text: &str,
        values: &[Value<'_>],
    ) -> DbResult<Option<MySqlRow>> {
        let sets = self.query(text, values).await?;
        Ok(sets.into_iter().next().and_then(|set| set.rows.into_iter().next()))
    }

    /// The same, for the number of rows that it wrote or found.
    pub(crate) async fn execute(&mut self, text: &str, values: &[Value<'_>]) -> DbResult<u64> {
        let sets = self.query(text, values).await?;
        Ok(sets.first().map_or(0, |set| set.affected))
    }

    /// Opens a transaction that writes, with its first statements.
    pub(crate) async fn open(&mut self, first: &str) -> DbResult<Vec<Set>> {
        self.open = true;
        let mut sets = self.run(format!("{BEGIN_WRITE}{first}")).await?;
        Ok(sets.split_off(BEGIN_STATEMENTS.min(sets.len())))
    }

    /// Statements that read one state, and nothing else: one round trip.
    pub(crate) async fn read(&mut self, statements: &str) -> DbResult<Vec<Set>> {
        self.open = true;
        let mut sets = self.run(format!("{BEGIN_READ}{statements}; COMMIT")).await?;
        self.open = false;
        sets.pop();
        Ok(sets.split_off(BEGIN_STATEMENTS.min(sets.len())))
    }

    /// Commits what is open; the call goes on.
    pub(crate) async fn commit(&mut self) -> DbResult<()> {
        self.run("COMMIT".to_owned()).await?;
        self.open = false;
        Ok(())
    }

    /// From now on a message may take as long as work on all rows of a catalog does. What it waits for has
    /// bounds of its own.
    pub(crate) fn take_time(&mut self) {
        self.limit = LONG;
    }

    /// Settings of the session were changed: no other call gets the connection.
    pub(crate) fn keep_to_itself(&mut self) {
        self.changed = true;
    }

    /// Ends the call: what succeeded is committed, what failed is rolled back.
    pub(crate) async fn end<T>(mut self, result: DbResult<T>) -> Result<T> {
        let value = match result {
            Ok(value) => value,
            Err(error) => {
                if error.is_of_schema() {
                    self.session.schema_is_right.store(false, Ordering::Release);
                }
                self.roll_back().await;
                return Err(self.fail(error));
            }
        };
        if self.open {
            self.in_doubt = true;
            if let Err(error) = self.run("COMMIT".to_owned()).await {
                self.in_doubt = error.leaves_doubt();
                return Err(self.fail(error));
            }
            self.open = false;
        }
        Ok(value)
    }

    /// Ends what is open with nothing written; the call goes on.
    ///
    /// Best effort: a connection that does not take it is closed, which rolls back too. After
    /// error 1205 only the statement was undone, so this is never left out.
    pub(crate) async fn roll_back(&mut self) {
        if self.open && self.answered && self.run("ROLLBACK".to_owned()).await.is_ok() {
            self.open = false;
        }
    }

    /// Whether it can be used after [`Call::roll_back`].
    pub(crate) fn is_usable(&self) -> bool {
        self.answered && !self.open
    }

    pub(crate) fn fail(&self, error: DbError) -> CatalogError {
        let write = if self.in_doubt { WriteState::Unknown } else { WriteState::NotApplied };
        error.into_catalog(&self.session.at, self.doing, write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_apart() {
        let sql = format!("{BEGIN_WRITE}SELECT X'3b'; UPDATE t SET a = 1; ");
        let apart: Vec<&str> = statements(&sql).collect();
        assert_eq!(apart.len(), BEGIN_STATEMENTS + 2, "{apart:?}");
        assert_eq!(apart.last().copied(), Some("UPDATE t SET a = 1"));
        for text in [BEGIN_WRITE, BEGIN_READ] {
            assert_eq!(statements(text).count(), BEGIN_STATEMENTS);
        }
    }

    #[test]
    fn old_servers_are_refused_with_what_is_needed() {
        for good in [
            "8.0.11",
            "8.0.40-0ubuntu0.24.04.1",
            "9.1.0",
            "8.0.11-TiDB-v8.5.0",
            "10.6.0-MariaDB",
            "10.11.14-MariaDB-0+deb12u2",
            "5.5.5-10.11.6-MariaDB",
            "11.4.2-MariaDB-log",
        ] {
            check_server_version(good, "h").unwrap();
        }
        for (bad, needed) in [
            ("5.7.44", "MySQL 8.0"),
            ("10.5.99-MariaDB", "MariaDB 10.6"),
            ("5.5.5-10.3.1-MariaDB", "MariaDB 10.6"),
            ("nonsense", "MySQL 8.0"),
        ] {
            let error = check_server_version(bad, "h").unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains(needed), "{error}");
        }
    }
}
