//! Connections: how they are made, kept, used once at a time, and thrown away.
//!
//! A connection that was left in the middle of anything (a dropped future, a timeout, a lost
//! server, an open transaction) never goes back to the pool: [`Lease`] takes it out and closes it,
//! and the server rolls back. Others are asked before they are used again, if they rested or the
//! server had reported an error on them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult,
    TimeoutType, Timeouts,
};
use deltalakedb_catalog_core::backend::{PoolStats, Waits};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use tiberius::error::Error;
use tiberius::{AuthMethod, Client, ColumnData, Config, EncryptionLevel, Query, Row};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::errors::{DbError, DbResult, Sent};
use crate::options::{Encrypt, MssqlOptions};
use crate::rows::Reader;
use crate::rows::text::Names;
use prelogin::Watched;
use stream::{Dial, Io};

pub(crate) mod batch;
mod prelogin;
pub(crate) mod server;
pub(crate) mod stream;

/// A driver's connection.
pub(crate) type Tds = Client<Compat<Box<dyn Io>>>;

/// A connection that rested for longer is asked whether it lives.
const TRUSTED: Duration = Duration::from_secs(1);
/// Resting connections are looked through this often at most.
const SHORTEST_SWEEP: Duration = Duration::from_millis(500);
/// Ends a transaction that should not be there. Error 3903 (there is none) cannot come of it.
const RECYCLE: &str = "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SELECT 1 AS alive";
const ROLLBACK: &str = "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION";
/// There is no transaction to roll back: the server did it already.
const NO_TRANSACTION: u32 = 3903;

/// A connection in the pool.
pub(crate) struct Conn {
    client: Tds,
    /// The server reported an error on it.
    dirty: bool,
    last_used: Instant,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("dirty", &self.dirty).finish_non_exhaustive()
    }
}

/// Makes connections and looks after them.
pub(crate) struct Connections {
    config: Config,
    host: String,
    port: u16,
    idle_timeout: Duration,
    max_lifetime: Duration,
    test_before_acquire: bool,
    /// The server has no TLS, and none is asked for: known from the first connection on.
    plain: AtomicBool,
    may_be_plain: bool,
    /// Whether the server's first packet is in the clear.
    watches: bool,
    dial: Arc<dyn Dial>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver's configuration holds the password.
        f.debug_struct("Connections")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Connections {
    pub(crate) fn new(options: &MssqlOptions, dial: Arc<dyn Dial>) -> Self {
        let mut config = Config::new();
        config.host(&options.host);
        config.port(options.port);
        config.database(&options.database);
        config.application_name(&options.application_name);
        let password = options.password.as_deref().unwrap_or("");
        config.authentication(AuthMethod::sql_server(&options.user, password));
        config.command_timeout(Some(options.statement_timeout));
        config.handshake_timeout(Some(options.pool.acquire_timeout));
        if let Some(instance) = &options.instance {
            config.instance_name(instance);
        }
        config.encryption(match options.tls.mode {
            Encrypt::Off => EncryptionLevel::Off,
            Encrypt::On => EncryptionLevel::Required,
            Encrypt::Strict => EncryptionLevel::Strict,
        });
        if options.tls.trust_server_certificate {
            config.trust_cert();
        } else if let Some(file) = &options.tls.ca_file {
            config.trust_cert_ca(file.display());
        }
        if let (Some(cert), Some(key)) = (&options.tls.cert_file, &options.tls.key_file) {
            config.client_certificate(cert, key);
        }
        Connections {
            config,
            host: options.host.clone(),
            port: options.port,
            idle_timeout: options.pool.idle_timeout,
            max_lifetime: options.pool.max_lifetime,
            test_before_acquire: options.pool.test_before_acquire,
            plain: AtomicBool::new(false),
            may_be_plain: options.tls.mode == Encrypt::Off,
            watches: options.tls.mode != Encrypt::Strict,
            dial,
        }
    }

    async fn connect(&self, mut config: Config, host: &str, port: u16) -> tiberius::Result<Tds> {
        if !self.plain.load(Ordering::Relaxed) {
            let mut stream = self.dial.dial(host, port).await?;
            if self.watches {
                stream = Box::new(Watched::new(stream));
            }
            let answer = Box::pin(Client::connect(config.clone(), stream.compat())).await;
            let refused = matches!(answer, Err(Error::Server(_) | Error::Routing { .. }));
            if answer.is_ok() || refused || !self.may_be_plain {
                return answer;
            }
        }
        // With "off" the driver encrypts the login, also where the server has no TLS at all.
        config.encryption(EncryptionLevel::NotSupported);
        let stream = self.dial.dial(host, port).await?;
        let client = Box::pin(Client::connect(config, stream.compat())).await?;
        self.plain.store(true, Ordering::Relaxed);
        Ok(client)
    }
}

impl Manager for Connections {
    type Type = Conn;
    type Error = Error;

    async fn create(&self) -> Result<Conn, Error> {
        // The driver's futures are large: each is kept on the heap, so that a call fits onto a
        // worker's stack without optimization too.
        let first = Box::pin(self.connect(self.config.clone(), &self.host, self.port));
        let client = match first.await {
            // Azure SQL sends clients inside of Azure on to the machine that holds the database.
            Err(Error::Routing { host, port }) => {
                let mut config = self.config.clone();
                config.host(&host);
                config.port(port);
                Box::pin(self.connect(config, &host, port)).await
            }
            other => other,
        }?;
        Ok(Conn { client, dirty: false, last_used: Instant::now() })
    }

    async fn recycle(&self, conn: &mut Conn, metrics: &Metrics) -> RecycleResult<Error> {
        let rested = conn.last_used.elapsed();
        if metrics.age() > self.max_lifetime || rested > self.idle_timeout {
            return Err(RecycleError::message("the connection is too old"));
        }
        if conn.dirty || (self.test_before_acquire && rested > TRUSTED) {
            conn.client.simple_query(RECYCLE).await?.into_results().await?;
            conn.dirty = false;
        }
        Ok(())
    }
}

/// What every connection of a backend has in common.
#[derive(Debug)]
struct Shared {
    names: Names,
    /// Whether the server takes bulk loads. A server that refused one is not asked again.
    takes_bulk: AtomicBool,
}

/// The connections of a backend.
#[derive(Debug)]
pub(crate) struct Session {
    pool: Pool<Connections>,
    shared: Arc<Shared>,
    place: String,
    waits: Waits,
    max_connections: usize,
    /// Waiting for a row lock ends before the statement's time does, so that it ends with an
    /// answer. Milliseconds.
    lock_timeout_ms: u128,
}

impl Session {
    pub(crate) fn new(options: &MssqlOptions, dial: Arc<dyn Dial>) -> Result<Session> {
        let timeout = Some(options.pool.acquire_timeout);
        let config = PoolConfig {
            max_size: options.pool.max_connections,
            timeouts: Timeouts { wait: timeout, create: timeout, recycle: timeout },
            // The one used last is the least likely to need a test; others age out.
            queue_mode: QueueMode::Lifo,
        };
        let pool = Pool::builder(Connections::new(options, dial))
            .config(config)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| CatalogError::invalid(format!("bad pool options: {e}")))?;
        sweep_in_background(&pool, options);
        let names = Names { schema: options.schema.clone(), prefix: options.table_prefix.clone() };
        Ok(Session {
            pool,
            shared: Arc::new(Shared { names, takes_bulk: AtomicBool::new(true) }),
            place: options.place(),
            waits: Waits::default(),
            max_connections: options.pool.max_connections,
            lock_timeout_ms: (options.statement_timeout / 2).as_millis().clamp(1, 3_600_000),
        })
    }

    /// `host:port/database`.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The names of our tables.
    pub(crate) fn names(&self) -> &Names {
        &self.shared.names
    }

    /// Whether new files may go by the bulk protocol.
    pub(crate) fn bulk_allowed(&self) -> bool {
        self.shared.takes_bulk.load(Ordering::Relaxed)
    }

    /// What every transaction begins with. READ COMMITTED, with row versions or without: each
    /// module says why that is enough. `XACT_ABORT`: an error leaves no transaction half done.
    pub(crate) fn settings(&self) -> String {
        format!(
            "SET NOCOUNT ON; SET XACT_ABORT ON; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SET LOCK_TIMEOUT {}; ",
            self.lock_timeout_ms
        )
    }

    /// A connection, for one call.
    pub(crate) async fn lease(&self) -> DbResult<Lease> {
        let status = self.pool.status();
        let begun = (status.available == 0 && status.size >= status.max_size).then(Instant::now);
        let conn = Box::pin(self.pool.get()).await;
        if let Some(begun) = begun {
            let time = begun.elapsed();
            self.waits.note(time);
            metrics::histogram!("dl_pool_wait_seconds").record(time);
        }
        let conn = conn.map_err(|error| self.no_connection(error))?;
        let shared = Arc::clone(&self.shared);
        Ok(Lease { shared, conn: Some(conn), in_flight: false, in_transaction: false })
    }

    /// The connections at this moment.
    pub(crate) fn pool_stats(&self) -> PoolStats {
        let status = self.pool.status();
        let idle = status.available.min(status.size);
        self.waits.stats(status.max_size, status.size - idle, idle)
    }

    /// Closes the connections that rest, and the others when they come back.
    pub(crate) fn close(&self) {
        // Their sockets close: the server ends the sessions.
        drop(self.pool.retain(|_, _| false).removed);
        self.pool.close();
    }

    fn no_connection(&self, error: PoolError<Error>) -> DbError {
        let place = &self.place;
        let message = match error {
            PoolError::Backend(error) => return DbError::Driver(error, Sent::No),
            PoolError::Closed => return CatalogError::closed(place).into(),
            PoolError::Timeout(TimeoutType::Wait) => format!(
                "SQL Server {place}: all {} connections of the pool were in use for the whole \
                 acquire_timeout: raise max_connections",
                self.max_connections
            ),
            PoolError::Timeout(_) => {
                format!("SQL Server {place} did not accept a connection within acquire_timeout")
            }
            other => format!("SQL Server {place}: no connection: {other}"),
        };
        CatalogError::busy(message, WriteState::NotApplied).into()
    }

    /// A connection with an open transaction, for several requests.
    pub(crate) async fn begin(&self) -> DbResult<Lease> {
        let mut lease = self.lease().await?;
        self.begin_on(&mut lease).await?;
        Ok(lease)
    }

    /// Opens a transaction. It begins in a batch of its own: in one that is sent as a procedure
    /// call, an unfinished transaction is error 266.
    pub(crate) async fn begin_on(&self, lease: &mut Lease) -> DbResult<()> {
        lease.in_transaction = true;
        let text = format!("{}BEGIN TRANSACTION; SELECT @@TRANCOUNT AS depth", self.settings());
        let sets = lease.batch(&text, Sent::Harmless).await?;
        let row = sets.iter().flatten().last();
        let depth = row.map(|row| Reader::new(row, "session", None).i64(0)).transpose()?;
        if depth == Some(1) {
            return Ok(());
        }
        // The connection is closed with the lease.
        lease.in_flight = true;
        Err(CatalogError::busy(
            format!("SQL Server {}: a transaction was open where none should be", self.place),
            WriteState::NotApplied,
        )
        .into())
    }
}

/// Closes connections that rest for too long, while there is a pool. A connection that is used is
/// checked when it is taken.
fn sweep_in_background(pool: &Pool<Connections>, options: &MssqlOptions) {
    let (idle, lifetime) = (options.pool.idle_timeout, options.pool.max_lifetime);
    let every = (idle.min(lifetime) / 2).max(SHORTEST_SWEEP);
    let (pool, keep) = (pool.weak(), options.pool.min_connections);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            let Some(pool) = pool.upgrade() else { return };
            let mut spare = pool.status().size.saturating_sub(keep);
            let swept = pool.retain(|conn, metrics| {
                let old =
                    metrics.age() > lifetime || (spare > 0 && conn.last_used.elapsed() > idle);
                spare = spare.saturating_sub(usize::from(old));
                !old
            });
            // Their sockets close: the server ends the sessions.
            drop(swept.removed);
        }
    });
}

/// One use of a connection.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    conn: Option<Object<Connections>>,
    in_flight: bool,
    in_transaction: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if (self.in_flight || self.in_transaction)
            && let Some(conn) = self.conn.take()
        {
            // Out of the pool, and closed: the server ends its transaction.
            drop(Object::take(conn));
        }
    }
}

/// Rows of each result set.
pub(crate) type Sets = Vec<Vec<Row>>;

impl Lease {
    /// The names of our tables.
    pub(crate) fn names(&self) -> Names {
        self.shared.names.clone()
    }

    /// Whether new files may go by the bulk protocol.
    pub(crate) fn bulk_allowed(&self) -> bool {
        self.shared.takes_bulk.load(Ordering::Relaxed)
    }

    /// No call of this backend tries a bulk load any more.
    pub(crate) fn give_bulk_up(&self) {
        self.shared.takes_bulk.store(false, Ordering::Relaxed);
    }

    fn client(&mut self) -> DbResult<&mut Conn> {
        let conn = self.conn.as_deref_mut();
        conn.ok_or_else(|| CatalogError::failed("no connection", WriteState::NotApplied).into())
    }

    fn ended<T>(&mut self, answer: tiberius::Result<T>, sent: Sent) -> DbResult<T> {
        let server_said_it = matches!(&answer, Err(Error::Server(_)));
        if answer.is_ok() || server_said_it {
            self.in_flight = false;
        }
        if let Ok(conn) = self.client() {
            conn.dirty |= server_said_it;
            conn.last_used = Instant::now();
        }
        answer.map_err(|error| DbError::Driver(error, sent))
    }

    /// Text without parameters, as one batch. The names of our tables are filled in.
    pub(crate) async fn batch(&mut self, text: &str, sent: Sent) -> DbResult<Sets> {
        self.in_flight = true;
        let text = self.shared.names.fill(text);
        let client = &mut self.client()?.client;
        let answer = Box::pin(async {
            let stream = client.simple_query(text).await?;
            stream.into_results().await
        });
        let answer = answer.await;
        self.ended(answer, sent)
    }

    /// Text with parameters (`sp_executesql`). The names of our tables are filled in.
    pub(crate) async fn query(
        &mut self,
        text: &str,
        parameters: Vec<ColumnData<'_>>,
        sent: Sent,
    ) -> DbResult<Sets> {
        self.in_flight = true;
        let nul = nul_in(&parameters);
        let text = self.shared.names.fill(text);
        let (text, parameters) = with_typed_nulls(text, parameters);
        let mut query = Query::new(text);
        for parameter in parameters {
            query.bind(parameter);
        }
        let client = &mut self.client()?.client;
        let answer = Box::pin(async {
            let stream = query.query(client).await?;
            stream.into_results().await
        });
        let answer = answer.await;
        let answer = self.ended(answer, sent);
        match (answer, nul) {
            (Err(error), Some(start)) if error.is_unknown() => Err(CatalogError::invalid(format!(
                "a text that begins with {start:?} contains a NUL character, which this \
                     server does not store: {}",
                error.into_catalog("", "").to_string().trim_start_matches([':', ' '])
            ))
            .into()),
            (answer, _) => answer,
        }
    }

    /// A statement inside of the transaction.
    pub(crate) async fn run(
        &mut self,
        text: &str,
        parameters: Vec<ColumnData<'_>>,
    ) -> DbResult<Sets> {
        self.query(text, parameters, Sent::Harmless).await
    }

    /// Rows by the bulk protocol, into a table that a text like `{p}files` names. Values are in the
    /// order of the columns.
    pub(crate) async fn bulk<'v>(
        &mut self,
        table: &str,
        columns: &[&str],
        rows: impl Iterator<Item = DbResult<Vec<ColumnData<'v>>>> + Send,
    ) -> DbResult<()> {
        self.in_flight = true;
        let table = self.shared.names.fill(table);
        let client = &mut self.client()?.client;
        let answer = Box::pin(async {
            let mut request = client.bulk_insert_columns(&table, columns).await?;
            for row in rows {
                let row = match row {
                    Ok(row) => row,
                    Err(error) => return Ok(Err(error)),
                };
                let mut values = tiberius::TokenRow::with_capacity(row.len());
                for value in row {
                    values.push(value);
                }
                request.send(values).await?;
            }
            request.finalize().await?;
            Ok(Ok(()))
        });
        match answer.await {
            // The request was not ended: the connection goes.
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => self.ended(Ok(()), Sent::Harmless),
            Err(error) => self.ended(Err(error), Sent::Harmless),
        }
    }

    /// Keeps the connection from being used again.
    pub(crate) fn discard(&mut self) {
        self.in_flight = true;
    }

    /// Ends the transaction: this request decides.
    pub(crate) async fn commit(&mut self) -> DbResult<()> {
        self.batch("COMMIT TRANSACTION", Sent::Deciding).await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Ends the transaction with nothing done. A failure does not matter: then the connection is
    /// closed, which ends it too.
    pub(crate) async fn rollback(&mut self) {
        match self.batch(ROLLBACK, Sent::Harmless).await {
            Ok(_) => self.in_transaction = false,
            Err(error) if error.number() == Some(NO_TRANSACTION) => self.in_transaction = false,
            Err(error) => tracing::debug!(?error, "rollback failed, the connection is closed"),
        }
    }

    /// Commits what succeeded, rolls back what failed, and hands the answer on.
    pub(crate) async fn end<T>(&mut self, answer: DbResult<T>) -> DbResult<T> {
        match answer {
            Ok(value) => {
                self.commit().await?;
                Ok(value)
            }
            Err(error) => {
                if !self.in_flight {
                    self.rollback().await;
                }
                Err(error)
            }
        }
    }
}

/// The beginning of the first text with a NUL character in it. SQL Server stores it; not everything
/// that speaks its protocol does.
fn nul_in(parameters: &[ColumnData<'_>]) -> Option<String> {
    parameters.iter().find_map(|value| match value {
        ColumnData::String(Some(text)) if text.contains('\0') => {
            Some(text.chars().take(40).collect())
        }
        _ => None,
    })
}

/// The driver sends a null text or binary value without a type, which not every server takes, and
/// which would be an integer to the rest. So these stand in the text, with their type; the
/// parameter stays, so that the others keep their numbers.
fn with_typed_nulls(
    text: String,
    mut parameters: Vec<ColumnData<'_>>,
) -> (String, Vec<ColumnData<'_>>) {
    let mut literals: Vec<Option<&str>> = Vec::with_capacity(parameters.len());
    for value in &mut parameters {
        let literal = match value {
            ColumnData::String(None) => Some("CAST(NULL AS NVARCHAR(MAX))"),
            ColumnData::Binary(None) => Some("CAST(NULL AS VARBINARY(MAX))"),
            _ => None,
        };
        if literal.is_some() {
            *value = ColumnData::I64(None);
        }
        literals.push(literal);
    }
    if literals.iter().all(Option::is_none) {
        return (text, parameters);
    }
    let mut written = String::with_capacity(text.len() + 256);
    let mut rest = text.as_str();
    while let Some(at) = rest.find("@P") {
        let (before, from) = rest.split_at(at);
        let digits = from.get(2..).unwrap_or_default();
        let end = 2 + digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let (name, after) = from.split_at(end);
        let number = name.get(2..).and_then(|number| number.parse::<usize>().ok());
        let literal = number.and_then(|n| *literals.get(n.checked_sub(1)?)?);
        written.push_str(before);
        written.push_str(literal.unwrap_or(name));
        rest = after;
    }
    written.push_str(rest);
    (written, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{big, bytes, text, text_opt};

    #[test]
    fn null_texts_and_binaries_have_a_type() {
        let values = vec![
            big(1),
            text_opt(None),
            ColumnData::I64(None),
            ColumnData::Binary(None),
            bytes(b"x"),
            text_opt(None),
        ];
        let sql = "SELECT @P1, @P2, @P3, @P4, @P5 WHERE @P6 = @P60 OR @P2 = @Previous";
        let (sql, values) = with_typed_nulls(sql.to_owned(), values);
        assert_eq!(
            sql,
            "SELECT @P1, CAST(NULL AS NVARCHAR(MAX)), @P3, CAST(NULL AS VARBINARY(MAX)), @P5 \
             WHERE CAST(NULL AS NVARCHAR(MAX)) = @P60 OR CAST(NULL AS NVARCHAR(MAX)) = @Previous"
        );
        assert_eq!(values.len(), 6);
        assert!(!values.iter().any(|v| matches!(v, ColumnData::String(None))));
        let (sql, _) = with_typed_nulls("SELECT @P1".to_owned(), vec![text("@P1")]);
        assert_eq!(sql, "SELECT @P1");
    }
}
