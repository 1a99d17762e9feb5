//! Connections: how they are opened, which settings they have, and why that isolates.
//!
//! # Isolation
//!
//! Every write runs between `BEGIN IMMEDIATE` and `COMMIT`. `IMMEDIATE` takes the database's one
//! write lock before the first read (<https://sqlite.org/lang_transaction.html>), so no other
//! process can write between what a transaction read and what it writes: write transactions are
//! serial, and the compare-and-set on a table's head row can only fail on what was committed
//! before. A transaction that began as a reader and then wrote could fail with `BUSY_SNAPSHOT`;
//! none does. In WAL mode a reader sees the database as of its first read, whatever is committed
//! meanwhile, and a new read sees every commit that was acknowledged before
//! (<https://sqlite.org/isolation.html>): each read of several statements is one transaction.
//!
//! `synchronous=FULL` syncs the log in each COMMIT, so acknowledged is durable, also against loss
//! of power (`NORMAL` is not: <https://sqlite.org/pragma.html#pragma_synchronous>). A process that
//! is killed leaves frames without a commit mark, which the next opener ignores.
//!
//! Foreign keys are not declared: rows of a table are only ever deleted all at once.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use rusqlite::{CachedStatement, Connection, OpenFlags};

use crate::errors::{DbError, DbResult, classify, is_busy};
use crate::options::SqliteOptions;
use crate::rows::text::Texts;
use crate::schema::{self, SCHEMA_VERSION};

/// More than the number of different statements there are.
const STATEMENT_CACHE: usize = 160;
/// Page cache of the writer, KiB: the index pages of a large commit stay in memory.
const WRITER_CACHE_KIB: i64 = 64 * 1024;
/// Page cache of each reader, KiB.
const READER_CACHE_KIB: i64 = 16 * 1024;
/// The log shrinks to this after a large transaction, bytes.
const JOURNAL_SIZE_LIMIT_BYTES: i64 = 64 << 20;
/// How often a waiting connection looks whether the lock is free. SQLite's own handler backs off
/// to 100 ms, which starves a process beside one that commits without a pause.
const BUSY_POLL: Duration = Duration::from_millis(1);

thread_local! {
    static BUSY_TIMEOUT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static BUSY_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Called by SQLite while a lock is held elsewhere; `calls` counts from 0 for each wait.
fn on_busy(calls: i32) -> bool {
    let now = Instant::now();
    let since = BUSY_SINCE.get().filter(|_| calls > 0).unwrap_or(now);
    BUSY_SINCE.set(Some(since));
    if now.duration_since(since) >= BUSY_TIMEOUT.get() {
        return false;
    }
    thread::sleep(BUSY_POLL);
    true
}

/// Tells files apart that were at the same path one after the other.
type FileId = Option<(u64, u64)>;

#[cfg(unix)]
fn file_id(path: &Path) -> FileId {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Elsewhere a file that is open cannot be replaced.
#[cfg(not(unix))]
fn file_id(_: &Path) -> FileId {
    None
}

/// What all connections of one backend have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: SqliteOptions,
    /// Version of the schema when it was last looked at.
    schema_version: AtomicU32,
    /// Which file it was when it was opened.
    file: OnceLock<FileId>,
    /// Write transactions that reached COMMIT.
    pub(crate) transactions: AtomicU64,
    /// Jobs that were part of them.
    pub(crate) jobs: AtomicU64,
}

impl Shared {
    pub(crate) fn path(&self) -> &Path {
        &self.options.path
    }
}

/// A connection at work: what the verbs are written against.
#[derive(Clone, Copy)]
pub(crate) struct Db<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) shared: &'a Shared,
    texts: &'a Texts,
}

impl<'a> Db<'a> {
    /// A prepared statement from the connection's cache; `{p}` in the text is filled in.
    pub(crate) fn prepare(&self, sql: &'static str) -> DbResult<CachedStatement<'a>> {
        Ok(self.conn.prepare_cached(&self.texts.get(sql))?)
    }

    /// Runs a statement once, returns the number of changed rows.
    pub(crate) fn execute(
        &self,
        sql: &'static str,
        params: impl rusqlite::Params,
    ) -> DbResult<usize> {
        Ok(self.prepare(sql)?.execute(params)?)
    }
}

/// Where SQLite keeps what a transaction needs besides its pages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Temporary {
    /// Of ordinary writes: their savepoints never touch the disk.
    InMemory,
    /// Of writes that may be as large as the database.
    InFiles,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) conn: Connection,
    pub(crate) shared: Arc<Shared>,
    texts: Texts,
}

impl Session {
    fn new(conn: Connection, shared: &Arc<Shared>) -> Session {
        let texts = Texts::new(&shared.options.table_prefix);
        Session { conn, shared: Arc::clone(shared), texts }
    }

    /// Opens the connection that writes (in read-only mode: that stands in for it), after making
    /// sure that the file is ours or empty.
    pub(crate) fn open_first(options: SqliteOptions) -> Result<Session> {
        options.validate()?;
        // Only `stat`: opening the file would drop this process's POSIX locks on it when closed
        // (https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
        if (options.must_exist || options.read_only) && !options.path.exists() {
            return Err(CatalogError::Schema(format!(
                "there is no catalog at '{}': run `dl init` to create one, or check the path",
                options.path.display()
            )));
        }
        let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if options.read_only {
            flags |= OpenFlags::SQLITE_OPEN_READ_ONLY;
        } else {
            flags |= OpenFlags::SQLITE_OPEN_READ_WRITE;
            if !options.must_exist {
                flags |= OpenFlags::SQLITE_OPEN_CREATE;
            }
        }
        let shared = Arc::new(Shared {
            options,
            schema_version: AtomicU32::new(0),
            file: OnceLock::new(),
            transactions: AtomicU64::new(0),
            jobs: AtomicU64::new(0),
        });
        let opened = Session::prepare_first(&shared, flags);
        opened.map_err(|e| {
            e.into_catalog(shared.path(), "opening the catalog", WriteState::NotApplied)
        })
    }

    fn prepare_first(shared: &Arc<Shared>, flags: OpenFlags) -> DbResult<Session> {
        let options = &shared.options;
        let conn = Connection::open_with_flags(&options.path, flags)?;
        let session = Session::new(conn, shared);
        shared.file.get_or_init(|| file_id(&options.path));
        session.adopt_thread();
        session.conn.busy_handler(Some(on_busy))?;
        session.conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        // Before anything is changed in it: a file of another program stays as it is.
        let found = schema::inspect(&session.conn, &options.path, &options.table_prefix)?;
        shared.schema_version.store(found.version, Ordering::Release);
        if options.must_exist || options.read_only {
            session.require_schema(found.version)?;
        }
        if options.read_only {
            session.set("query_only", 1)?;
        } else {
            // SQLite opens a file that it may not write for reading, without an error.
            if session.conn.is_readonly(rusqlite::MAIN_DB)? {
                return Err(CatalogError::failed(
                    format!(
                        "database '{}' is read-only for this user: get write permission on the \
                         file and its folder, or open it read-only",
                        options.path.display()
                    ),
                    WriteState::NotApplied,
                )
                .into());
            }
            session.set_wal()?;
            session.set("synchronous", 2)?; // FULL
            session.set("fullfsync", 1)?; // macOS: fsync alone leaves data in the drive's cache
            session.set("checkpoint_fullfsync", 1)?;
            session.set("journal_size_limit", JOURNAL_SIZE_LIMIT_BYTES)?;
        }
        session.set("cache_size", -WRITER_CACHE_KIB)?;
        session.keep_temporary_data(Temporary::InMemory)?;
        session.set("trusted_schema", 0)?;
        Ok(session)
    }

    /// To be called outside of transactions.
    pub(crate) fn keep_temporary_data(&self, place: Temporary) -> DbResult<()> {
        match place {
            Temporary::InFiles => self.set("temp_store", 1),
            Temporary::InMemory => self.set("temp_store", 2),
        }
    }

    /// Opens one more connection, for reads only.
    pub(crate) fn open_reader(shared: &Arc<Shared>) -> Result<Session> {
        let open = || -> DbResult<Session> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let conn = Connection::open_with_flags(shared.path(), flags)?;
            if shared.file.get().is_some_and(|opened| *opened != file_id(shared.path())) {
                return Err(CatalogError::failed(
                    format!(
                        "'{}' is another file than the one that was opened: whoever replaces a \
                         catalog must end the programs that have it open first",
                        shared.path().display()
                    ),
                    WriteState::NotApplied,
                )
                .into());
            }
            let session = Session::new(conn, shared);
            session.adopt_thread();
            session.conn.busy_handler(Some(on_busy))?;
            session.conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
            session.set("query_only", 1)?;
            session.set("cache_size", -READER_CACHE_KIB)?;
            session.set("temp_store", 2)?;
            session.set("trusted_schema", 0)?;
            Ok(session)
        };
        open()
            .map_err(|e| e.into_catalog(shared.path(), "opening a reader", WriteState::NotApplied))
    }

    /// This connection, or another one in its place if a transaction is still open on it: that would
    /// show one state of the database for ever, and keep the log from ever being moved into it.
    pub(crate) fn for_the_next_read(self) -> Result<Session> {
        if self.conn.is_autocommit() {
            return Ok(self);
        }
        let shared = Arc::clone(&self.shared);
        drop(self);
        Session::open_reader(&shared)
    }

    /// To be called on the thread that uses the connection: SQLite calls the busy handler on it.
    pub(crate) fn adopt_thread(&self) {
        BUSY_TIMEOUT.set(Duration::from_millis(u64::from(self.shared.options.busy_timeout_ms)));
    }

    pub(crate) fn db(&self) -> Db<'_> {
        Db { conn: &self.conn, shared: &self.shared, texts: &self.texts }
    }

    /// Sets a numeric pragma, and reads it back: SQLite ignores pragmas that it does not know.
    fn set(&self, pragma: &str, value: i64) -> DbResult<()> {
        self.conn.pragma_update(None, pragma, value)?;
        let is: i64 = self.conn.pragma_query_value(None, pragma, |row| row.get(0))?;
        if is == value {
            Ok(())
        } else {
            Err(self.unsupported(&format!("PRAGMA {pragma} is {is}, not {value}")).into())
        }
    }

    fn unsupported(&self, what: &str) -> CatalogError {
        CatalogError::failed(
            format!(
                "database '{}' cannot be used safely ({what}): it must lie on a local file system \
                 that supports SQLite's WAL mode",
                self.shared.path().display()
            ),
            WriteState::NotApplied,
        )
    }

    /// Switches to WAL. SQLite does not call the busy handler for this one, so it is waited for
    /// here while another process is doing the same.
    fn set_wal(&self) -> DbResult<()> {
        let started = Instant::now();
        loop {
            let mode =
                self.conn.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
            let mode = match mode {
                Ok(mode) if mode == "wal" => return Ok(()),
                Ok(_) => self.conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
                    row.get::<_, String>(0)
                }),
                Err(error) => Err(error),
            };
            match mode {
                Ok(mode) if mode == "wal" => return Ok(()),
                Ok(mode) => {
                    return Err(self.unsupported(&format!("journal mode stays {mode}")).into());
                }
                Err(error) if is_busy(&error) && started.elapsed() < BUSY_TIMEOUT.get() => {
                    thread::sleep(BUSY_POLL);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn require_schema(&self, version: u32) -> Result<()> {
        schema::require(version, self.shared.path(), &self.shared.options.table_prefix)
    }

    /// Fails unless the tables are there in the version that this program knows.
    fn check_schema(&self) -> DbResult<()> {
        if self.shared.schema_version.load(Ordering::Acquire) == SCHEMA_VERSION {
            return Ok(());
        }
        self.look_at_schema()
    }

    fn look_at_schema(&self) -> DbResult<()> {
        let options = &self.shared.options;
        let found = schema::inspect(&self.conn, &options.path, &options.table_prefix)?;
        self.shared.schema_version.store(found.version, Ordering::Release);
        Ok(self.require_schema(found.version)?)
    }

    /// The version in the file now.
    pub(crate) fn schema_version(&self) -> DbResult<u32> {
        let options = &self.shared.options;
        Ok(schema::inspect(&self.conn, &options.path, &options.table_prefix)?.version)
    }

    /// Runs a read of several statements in one transaction: one state of the database.
    pub(crate) fn read<T>(
        &self,
        doing: &str,
        work: impl FnOnce(Db<'_>) -> DbResult<T>,
    ) -> Result<T> {
        let run = || -> DbResult<T> {
            self.check_schema()?;
            self.db().execute("BEGIN DEFERRED", [])?;
            let result = work(self.db());
            // Nothing was written: how it ends makes no difference. Where it does not end, the
            // connection is given up, see `for_the_next_read`.
            if let Err(error) = self.db().execute("ROLLBACK", []) {
                tracing::warn!(?error, path = %self.shared.path().display(), "ROLLBACK of a read");
            }
            result
        };
        self.explain(doing, run())
    }

    /// Runs a read of exactly one statement.
    pub(crate) fn read_one<T>(
        &self,
        doing: &str,
        work: impl FnOnce(Db<'_>) -> DbResult<T>,
    ) -> Result<T> {
        let run = || -> DbResult<T> {
            self.check_schema()?;
            work(self.db())
        };
        self.explain(doing, run())
    }

    /// Runs the body of a write job; the caller has begun the transaction. Whether the schema is
    /// still the one that this program knows is asked within it: another process may have
    /// upgraded it since.
    pub(crate) fn write<T>(
        &self,
        doing: &str,
        needs_schema: bool,
        work: impl FnOnce(Db<'_>) -> DbResult<T>,
    ) -> Result<T> {
        if !needs_schema {
            // Of an upgrade that fails, the version is no explanation.
            let failed = |error: DbError| {
                error.into_catalog(self.shared.path(), doing, WriteState::NotApplied)
            };
            return work(self.db()).map_err(failed);
        }
        let run = || -> DbResult<T> {
            self.check_schema()?;
            let version: u32 =
                self.db().prepare(schema::VERSION)?.query_row([], |row| row.get(0))?;
            if version != SCHEMA_VERSION {
                self.look_at_schema()?;
            }
            work(self.db())
        };
        self.explain(doing, run())
    }

    /// SQL that does not fit the tables means that the schema is another one than it was.
    fn explain<T>(&self, doing: &str, result: DbResult<T>) -> Result<T> {
        result.map_err(|error| {
            if error.is_sql_error()
                && let Err(DbError::Catalog(schema)) = self.look_at_schema()
            {
                return schema;
            }
            error.into_catalog(self.shared.path(), doing, WriteState::NotApplied)
        })
    }

    /// For errors around the statements of a transaction itself.
    pub(crate) fn classify(
        &self,
        error: &rusqlite::Error,
        doing: &str,
        write: WriteState,
    ) -> CatalogError {
        classify(error, self.shared.path(), doing, write)
    }
}
