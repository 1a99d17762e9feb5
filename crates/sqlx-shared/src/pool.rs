//! A pool of connections for the backends that stand on `sqlx`.
//!
//! sqlx has a pool of its own. It asks each connection that comes back whether it is alive: a round
//! trip for every call, and the connection cannot be used meanwhile. A commit is a round trip here,
//! so that would double its cost. This pool asks only connections that have rested.
//!
//! A connection that was left in the middle of anything must not come back: [`Lease::discard`]
//! says so, and the server rolls back what was open when the connection closes.

use std::fmt;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{
    Manager, Metrics, Object, Pool as Objects, PoolConfig, PoolError, QueueMode, RecycleError,
    RecycleResult, Timeouts,
};
use deltalakedb_catalog_core::backend::{PoolStats, Waits};
use futures::future::BoxFuture;
use sqlx::{ConnectOptions, Connection, Error};
use tokio::time::timeout;

use crate::options::PoolOptions;

/// A connection that was used within this time is not asked before it is used again.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// First pause before a server that refuses connections is tried again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Resting connections are looked through this often at most.
const SHORTEST_SWEEP: Duration = Duration::from_millis(500);

struct Kept<C, N> {
    connection: C,
    last_used: Instant,
    note: Option<N>,
}

/// Asks a server whether it takes writes.
pub type TakesWrites<C> = for<'c> fn(&'c mut C) -> BoxFuture<'c, Result<bool, Error>>;

struct Connections<C: Connection, N> {
    /// The servers, of which one takes writes. There is at least one.
    servers: Vec<C::Options>,
    /// Asked of each connection, if it matters.
    takes_writes: Option<TakesWrites<C>>,
    /// The server that the last connection was made to.
    last: AtomicUsize,
    limits: PoolOptions,
    waits: Waits,
    notes: PhantomData<fn() -> N>,
}

impl<C: Connection + 'static, N: Send + 'static> Manager for Connections<C, N> {
    type Type = Kept<C, N>;
    type Error = Error;

    async fn create(&self) -> Result<Kept<C, N>, Error> {
        let connection = self.connect().await?;
        Ok(Kept { connection, last_used: Instant::now(), note: None })
    }

    async fn recycle(&self, kept: &mut Kept<C, N>, metrics: &Metrics) -> RecycleResult<Error> {
        let rested = kept.last_used.elapsed();
        if self.is_too_old(metrics) || self.rested_too_long(rested) {
            return Err(RecycleError::message("it is too old"));
        }
        if rested <= TRUSTED_FOR {
            return Ok(());
        }
        if let Some(takes_writes) = self.takes_writes {
            // It may have been the primary, and be a replica by now.
            if !takes_writes(&mut kept.connection).await? {
                return Err(RecycleError::message("its server takes no writes any more"));
            }
        } else if self.limits.test_before_acquire {
            kept.connection.ping().await?;
        }
        Ok(())
    }
}

impl<C: Connection, N> Connections<C, N> {
    /// A connection to the first server that takes writes, beginning with the one of last time.
    async fn connect(&self) -> Result<C, Error> {
        let count = self.servers.len();
        let first = self.last.load(Ordering::Relaxed);
        // A server that says nothing must leave time for the others.
        let share = self.limits.acquire_timeout / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let mut failed = None;
        for at in (0..count).map(|step| (first + step) % count) {
            let Some(server) = self.servers.get(at) else { continue };
            let attempt = async {
                let mut connection = server.connect().await?;
                let fits = match self.takes_writes {
                    Some(takes_writes) => takes_writes(&mut connection).await?,
                    None => true,
                };
                if fits {
                    return Ok(connection);
                }
                connection.close().await.ok();
                // As one that is not there: it may take writes soon.
                let why = "the server takes no writes: it is a replica, or read-only";
                Err(Error::Io(std::io::Error::new(ErrorKind::ConnectionRefused, why)))
            };
            let answer = if count > 1 {
                timeout(share, attempt).await.unwrap_or_else(|_| {
                    Err(Error::Io(std::io::Error::new(
                        ErrorKind::ConnectionAborted,
                        "the server does not answer",
                    )))
                })
            } else {
                attempt.await
            };
            match answer {
                Ok(connection) => {
                    if self.last.swap(at, Ordering::Relaxed) != at {
                        tracing::info!(server = at + 1, "connected to another server of the list");
                    }
                    return Ok(connection);
                }
                // What does not pass says more than what may.
                Err(error) => {
                    if failed.as_ref().is_none_or(|known| may_pass(known) && !may_pass(&error)) {
                        failed = Some(error);
                    }
                }
            }
        }
        Err(failed.unwrap_or(Error::PoolClosed))
    }

    fn is_too_old(&self, metrics: &Metrics) -> bool {
        let limit = self.limits.max_lifetime;
        !limit.is_zero() && metrics.age() > limit
    }

    fn rested_too_long(&self, rested: Duration) -> bool {
        let limit = self.limits.idle_timeout;
        !limit.is_zero() && rested > limit
    }
}

/// Connections to one database. Cheap to clone.
///
/// A note of type `N` may be kept with each connection, see [`Lease::note`].
pub struct Pool<C: Connection + 'static, N: Send + 'static = ()> {
    objects: Objects<Connections<C, N>>,
}

impl<C: Connection + 'static, N: Send + 'static> Clone for Pool<C, N> {
    fn clone(&self) -> Self {
        Pool { objects: self.objects.clone() }
    }
}

impl<C: Connection + 'static, N: Send + 'static> fmt::Debug for Pool<C, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The driver's options hold the password.
        f.debug_struct("Pool").field("limits", self.limits()).finish_non_exhaustive()
    }
}

impl<C: Connection + 'static, N: Send + 'static> Pool<C, N> {
    /// A pool without connections yet. Must be called in a tokio runtime, whose task closes
    /// connections that rest for too long.
    ///
    /// # Errors
    /// `Configuration` if no connection is allowed.
    pub fn new(options: C::Options, limits: PoolOptions) -> Result<Pool<C, N>, Error> {
        Pool::of_servers(vec![options], None, limits)
    }

    /// The same over several servers: connections are made to the first one that takes writes.
    ///
    /// # Errors
    /// `Configuration` if no connection is allowed, or there is no server.
    pub fn of_servers(
        servers: Vec<C::Options>,
        takes_writes: Option<TakesWrites<C>>,
        limits: PoolOptions,
    ) -> Result<Pool<C, N>, Error> {
        if servers.is_empty() {
            return Err(Error::Configuration("no server is named".into()));
        }
        if limits.max_connections == 0 {
            return Err(Error::Configuration("max_connections is at least 1".into()));
        }
        choose_cryptography();
        let config = PoolConfig {
            max_size: usize::try_from(limits.max_connections).unwrap_or(usize::MAX),
            timeouts: Timeouts::default(),
            // The one used last is the least likely to need asking; the others age.
            queue_mode: QueueMode::Lifo,
        };
        let last = AtomicUsize::new(0);
        let notes = PhantomData;
        let waits = Waits::default();
        let connections = Connections { servers, takes_writes, last, limits, waits, notes };
        let objects = Objects::builder(connections)
            .config(config)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Configuration(error.to_string().into()))?;
        let pool = Pool { objects };
        pool.sweep_in_background();
        Ok(pool)
    }

    fn limits(&self) -> &PoolOptions {
        &self.objects.manager().limits
    }

    /// A connection, for one call. A server that refuses connections, as one that starts, is tried
    /// again until `acquire_timeout` has passed.
    ///
    /// # Errors
    /// Those of connecting; `PoolTimedOut` if all connections were in use, or the server said
    /// nothing, for the whole time; `PoolClosed`.
    pub async fn acquire(&self) -> Result<Lease<C, N>, Error> {
        let begun = Instant::now();
        let deadline = begun + self.limits().acquire_timeout;
        let status = self.objects.status();
        let waits = status.available == 0 && status.size >= status.max_size;
        let mut pause = FIRST_PAUSE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match timeout(left, Box::pin(self.objects.get())).await {
                Ok(Ok(object)) => {
                    if waits {
                        self.note_wait(begun.elapsed());
                    }
                    return Ok(Lease { object: Some(object), discarded: false });
                }
                Ok(Err(PoolError::Backend(error))) => error,
                Ok(Err(PoolError::Closed)) => return Err(Error::PoolClosed),
                Ok(Err(_)) | Err(_) => {
                    if waits {
                        self.note_wait(begun.elapsed());
                    }
                    return Err(Error::PoolTimedOut);
                }
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if !may_pass(&error) || left <= pause {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A connection that is none of the pool's: for what must not wait until one of them is free, as when
    /// all of them wait for what it is to end. It is tried once, for `acquire_timeout` at most.
    ///
    /// # Errors
    /// Those of connecting; `PoolTimedOut` if the server said nothing.
    pub async fn aside(&self) -> Result<C, Error> {
        let connect = self.objects.manager().connect();
        timeout(self.limits().acquire_timeout, connect).await.map_err(|_| Error::PoolTimedOut)?
    }

    /// How long a call waits for a connection.
    #[must_use]
    pub fn acquire_timeout(&self) -> Duration {
        self.limits().acquire_timeout
    }

    /// Opens as many connections as are to be there at least.
    ///
    /// # Errors
    /// Those of [`Pool::acquire`].
    pub async fn fill(&self) -> Result<(), Error> {
        let mut leases = Vec::new();
        for _ in 0..self.limits().min_connections.min(self.limits().max_connections) {
            leases.push(self.acquire().await?);
        }
        Ok(())
    }

    /// Closes the connections that nobody uses, and the others when they come back. Calls that
    /// begin after it fail.
    pub async fn close(&self) {
        let resting = self.objects.retain(|_, _| false).removed;
        self.objects.close();
        for kept in resting {
            // The server sees the socket close in any case.
            kept.connection.close().await.ok();
        }
    }

    fn note_wait(&self, time: Duration) {
        self.objects.manager().waits.note(time);
        metrics::histogram!("dl_pool_wait_seconds").record(time);
    }

    /// The connections at this moment.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let status = self.objects.status();
        let idle = status.available.min(status.size);
        self.objects.manager().waits.stats(status.max_size, status.size - idle, idle)
    }

    /// Number of connections, in use or not.
    #[must_use]
    pub fn size(&self) -> usize {
        self.objects.status().size
    }

    fn sweep_in_background(&self) {
        let limits = [self.limits().idle_timeout, self.limits().max_lifetime];
        let Some(shortest) = limits.into_iter().filter(|limit| !limit.is_zero()).min() else {
            return;
        };
        let every = (shortest / 2).max(SHORTEST_SWEEP);
        let pool = self.objects.weak();
        let keep = usize::try_from(self.limits().min_connections).unwrap_or(usize::MAX);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(pool) = pool.upgrade() else { return };
                if pool.is_closed() {
                    return;
                }
                let mut spare = pool.status().size.saturating_sub(keep);
                let swept = pool.retain(|kept, metrics| {
                    let manager = pool.manager();
                    let old = manager.is_too_old(&metrics)
                        || (spare > 0 && manager.rested_too_long(kept.last_used.elapsed()));
                    spare = spare.saturating_sub(usize::from(old));
                    !old
                });
                drop(pool);
                for kept in swept.removed {
                    if let Err(error) = kept.connection.close().await {
                        tracing::debug!(%error, "a connection that rested did not close cleanly");
                    }
                }
            }
        });
    }
}

/// sqlx verifies certificates with what rustls has as the process's default. Where two providers are
/// compiled in, as another dependency may cause, there is none, and rustls panics.
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may be faster: any default will do.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    }
}

/// Whether the server may take connections soon: it starts, or has none left for the moment.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::UnexpectedEof
                | ErrorKind::BrokenPipe
        ),
        Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}

/// A connection in use. It goes back to the pool when dropped, unless [`Lease::discard`] was
/// called.
pub struct Lease<C: Connection + 'static, N: Send + 'static = ()> {
    object: Option<Object<Connections<C, N>>>,
    discarded: bool,
}

impl<C: Connection + 'static, N: Send + 'static> fmt::Debug for Lease<C, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("discarded", &self.discarded).finish_non_exhaustive()
    }
}

impl<C: Connection + 'static, N: Send + 'static> Lease<C, N> {
    /// The connection.
    ///
    /// # Errors
    /// `PoolClosed`, never while the lease lives.
    pub fn connection(&mut self) -> Result<&mut C, Error> {
        match self.object.as_deref_mut() {
            Some(kept) => Ok(&mut kept.connection),
            None => Err(Error::PoolClosed),
        }
    }

    /// What was noted of this connection, by whichever call used it; none of a new one.
    #[must_use]
    pub fn note(&self) -> Option<&N> {
        self.object.as_deref().and_then(|kept| kept.note.as_ref())
    }

    /// Keeps a note with the connection, for as long as there is one.
    pub fn set_note(&mut self, note: N) {
        if let Some(kept) = self.object.as_deref_mut() {
            kept.note = Some(note);
        }
    }

    /// Closes the connection, with what is open on it, instead of handing it back.
    pub fn discard(&mut self) {
        self.discarded = true;
    }
}

impl<C: Connection + 'static, N: Send + 'static> Drop for Lease<C, N> {
    fn drop(&mut self) {
        if let Some(mut object) = self.object.take() {
            if self.discarded {
                // Its socket closes: the server ends what was open.
                drop(Object::take(object));
            } else {
                object.last_used = Instant::now();
            }
        }
    }
}
