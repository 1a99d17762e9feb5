//! Ends on the server what nobody waits for any more.
//!
//! A server that waits for a lock does not notice that its client has gone, and goes on holding the locks
//! that it has. `KILL` of another connection ends it: the statement, its transaction, and the
//! connection, which was given up here anyway. A login may always end its own connections
//! (<https://dev.mysql.com/doc/refman/8.0/en/kill.html>, <https://mariadb.com/kb/en/kill/>).
//!
//! Behind a balancer the other connection may meet another server, where the same number is somebody
//! else's. So what a connection is to the server is its number *and* the address that it comes from: only
//! where both are found is anything ended.

use std::sync::{Arc, Mutex, PoisonError};

use deltalakedb_sqlx_shared::Pool;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Connections that wait to be ended at a time; of more, those of calls that were given up first are left
/// to the server's own limits.
const MOST: usize = 10_000;

/// What a connection is to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    id: u64,
    /// Where it comes from, as the server sees it: host and port, or `localhost` for a socket.
    from: String,
}

impl Mark {
    /// Asks for that of this connection.
    pub(crate) const ASK: &'static str = "SELECT CAST(id AS UNSIGNED), CAST(host AS CHAR) \
         FROM information_schema.processlist WHERE id = CONNECTION_ID()";

    /// Reads the answer; none if it is of another kind.
    pub(crate) fn read(row: &MySqlRow) -> Option<Mark> {
        Some(Mark { id: row.try_get(0).ok()?, from: row.try_get(1).ok()? })
    }
}

/// Connections that are to be ended.
#[derive(Debug)]
pub(crate) struct Abandoned {
    pool: Pool<MySqlConnection, Option<Mark>>,
    /// For the log.
    at: String,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    marks: Vec<Mark>,
    /// Somebody ends them.
    at_work: bool,
}

impl Abandoned {
    pub(crate) fn new(pool: Pool<MySqlConnection, Option<Mark>>, at: String) -> Self {
        Abandoned { pool, at, waiting: Mutex::default() }
    }

    /// Ends a connection soon, in the background.
    pub(crate) fn end(self: &Arc<Self>, mark: Mark) {
        // Without a runtime the program is about to end.
        let Ok(runtime) = Handle::try_current() else { return };
        let begins = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.marks.len() < MOST {
                waiting.marks.push(mark);
            }
            !std::mem::replace(&mut waiting.at_work, true)
        };
        if begins {
            // Not under the lock: a runtime that is shut down drops the worker at once, and that takes it.
            runtime.spawn(Worker(Arc::clone(self)).run());
        }
    }

    fn next(&self) -> Vec<Mark> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = std::mem::take(&mut waiting.marks);
        waiting.at_work = !marks.is_empty();
        marks
    }

    /// Ends these, on a connection besides those of the pool: all of these may wait for what is to end.
    async fn end_all(&self, marks: &[Mark]) -> sqlx::Result<()> {
        let mut connection = self.pool.aside().await?;
        for mark in marks {
            let look = format!(
                "SELECT CAST(id AS UNSIGNED), CAST(host AS CHAR) \
                 FROM information_schema.processlist WHERE id = {}",
                mark.id
            );
            let found = connection.fetch_optional(sqlx::raw_sql(AssertSqlSafe(look))).await?;
            if found.as_ref().and_then(Mark::read).as_ref() != Some(mark) {
                // It ended by itself, or this is another server.
                continue;
            }
            let kill = sqlx::raw_sql(AssertSqlSafe(format!("KILL {}", mark.id)));
            match connection.execute(kill).await {
                Ok(_) => tracing::debug!(database = self.at, ?mark, "ended what was given up"),
                // It has just ended by itself.
                Err(sqlx::Error::Database(error)) => {
                    tracing::debug!(database = self.at, ?mark, %error, "it could not be ended");
                }
                Err(error) => return Err(error),
            }
        }
        connection.close().await
    }
}

/// Ends connections until none are left. Dropped with its runtime, it leaves the work to the next one.
struct Worker(Arc<Abandoned>);

impl Drop for Worker {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.at_work = false;
    }
}

impl Worker {
    async fn run(self) {
        let this = &self.0;
        loop {
            let marks = this.next();
            if marks.is_empty() {
                return;
            }
            let limit = this.pool.acquire_timeout();
            let ended = timeout(limit.saturating_mul(2), this.end_all(&marks)).await;
            let why = match ended {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the server does not answer".to_owned(),
            };
            tracing::warn!(
                database = this.at,
                connections = marks.len(),
                why,
                "what was given up may go on at the server, and hold its locks, for as long as \
                 innodb_lock_wait_timeout allows"
            );
        }
    }
}
