//! Threads: one that writes, several that read, and how waiting writes share a transaction.
//!
//! SQLite's calls block, so they run on threads of their own and answer through channels. A call
//! whose future is dropped is still in its queue as a whole, and runs as a whole.
//!
//! # Group commit
//!
//! A COMMIT waits for the disk; nothing else in a small write does. So the writer takes what waits
//! in its queue into one `BEGIN IMMEDIATE … COMMIT`, each job in a savepoint of its own that is
//! rolled back alone, and answers all of them after the COMMIT. No answer leaves before it: a job
//! may have decided on rows that an earlier job of the group wrote.
//!
//! What creates or upgrades the schema has a transaction to itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use deltalakedb_catalog_core::backend::PoolStats;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::errors::{DbResult, after_failed_commit};
use crate::readers::{ReadJob, Readers, spawn};
use crate::session::{Db, Session, Shared, Temporary};

/// Writes, and reads, that wait in their queue before callers have to wait for a place in it.
pub(crate) const QUEUE: usize = 1024;
/// Most jobs in a transaction.
const GROUP_JOBS: usize = 256;
/// A group takes no further job after so many bytes.
const GROUP_BYTES: usize = 16 << 20;
/// A group takes no further job after so long: those that wait for its COMMIT are waiting.
const GROUP_TIME: Duration = Duration::from_millis(50);
/// After so long without a pause, the lock is left free for a moment, so that another process,
/// which can only poll for it, gets its turn.
const FAIR_AFTER: Duration = Duration::from_millis(50);
/// The moment. Against the poll interval of `session`, every other one is hit.
const FAIR_PAUSE: Duration = Duration::from_micros(600);

/// A write that waits for its turn.
trait WriteJob: Send {
    /// About how much it writes, bytes.
    fn weight_bytes(&self) -> usize;
    /// Whether it shares a transaction with no other job.
    fn is_alone(&self) -> bool;
    /// Does the work inside of the open transaction and keeps the result. True if something was
    /// written that is to stay.
    fn run(&mut self, session: &Session) -> bool;
    /// Whether the result is an error.
    fn has_failed(&self) -> bool;
    /// Sends the result, or this error in its place.
    fn answer(self: Box<Self>, instead: Option<CatalogError>);
}

/// What a call wants written.
pub(crate) struct Write<F> {
    /// Completes "while …".
    pub(crate) doing: &'static str,
    /// About how much it writes.
    pub(crate) weight_bytes: usize,
    /// False only for what creates or upgrades the schema.
    pub(crate) needs_schema: bool,
    /// The work.
    pub(crate) work: F,
}

struct Job<T, F> {
    write: Option<Write<F>>,
    weight_bytes: usize,
    is_alone: bool,
    keep: fn(&T) -> bool,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> WriteJob for Job<T, F>
where
    T: Send,
    F: FnOnce(Db<'_>) -> DbResult<T> + Send,
{
    fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    fn is_alone(&self) -> bool {
        self.is_alone
    }

    fn run(&mut self, session: &Session) -> bool {
        let Some(write) = self.write.take() else { return false };
        let result = session.write(write.doing, write.needs_schema, write.work);
        let keep = result.as_ref().is_ok_and(self.keep);
        self.result = Some(result);
        keep
    }

    fn has_failed(&self) -> bool {
        matches!(self.result, Some(Err(_)))
    }

    fn answer(self: Box<Self>, instead: Option<CatalogError>) {
        let result = match (instead, self.result) {
            (Some(error), _) => Err(error),
            (None, Some(result)) => result,
            (None, None) => {
                Err(CatalogError::failed("a write was never run", WriteState::NotApplied))
            }
        };
        // A dropped receiver is a caller that no longer waits.
        let _ = self.reply.send(result);
    }
}

/// The threads of one backend and the queues to them.
#[derive(Debug)]
pub(crate) struct Workers {
    write: RwLock<Option<mpsc::Sender<Box<dyn WriteJob>>>>,
    read: Option<Readers>,
    /// Places in the queue of reads.
    places: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Whether the writer is at work.
    writing: Arc<AtomicBool>,
    closed: AtomicBool,
    shared: Arc<Shared>,
}

impl Workers {
    /// Starts the threads. In read-only mode the first connection reads like the others.
    pub(crate) fn start(first: Session) -> Result<Workers> {
        let shared = Arc::clone(&first.shared);
        let places = Arc::new(Semaphore::new(QUEUE));
        if shared.options.read_only {
            return Ok(Workers {
                read: Some(Readers::start(first)?),
                places,
                write: RwLock::default(),
                writer: Mutex::default(),
                writing: Arc::default(),
                closed: AtomicBool::new(false),
                shared,
            });
        }
        let read = Some(Readers::start(Session::open_reader(&shared)?)?);
        let (write, write_queue) = mpsc::channel(QUEUE);
        let writing = Arc::new(AtomicBool::new(false));
        let at_work = Arc::clone(&writing);
        let writer = spawn(&shared, "writer", move || writer_loop(&first, write_queue, &at_work))?;
        Ok(Workers {
            write: RwLock::new(Some(write)),
            read,
            places,
            writer: Mutex::new(Some(writer)),
            writing,
            closed: AtomicBool::new(false),
            shared,
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs a read on one of the reader threads. Skipped if nobody waits for it any more.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Session) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open()?;
        // It is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (reply, answer) = oneshot::channel();
        let job: ReadJob = Box::new(move |session: &Session| {
            drop(place);
            if reply.is_closed() {
                return Box::new(|| {});
            }
            let result = work(session);
            // A dropped receiver is a caller that no longer waits.
            Box::new(move || drop(reply.send(result)))
        });
        match &self.read {
            Some(readers) => readers.submit(job),
            None => return Err(self.stopped(WriteState::NotApplied)),
        }
        answer.await.unwrap_or_else(|_| Err(self.stopped(WriteState::NotApplied)))
    }

    /// Runs a write on the writer thread, in a transaction that it may share. `keep` says whether
    /// a result means that something was written; otherwise the job is rolled back.
    pub(crate) async fn write<T, F>(&self, write: Write<F>, keep: fn(&T) -> bool) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Db<'_>) -> DbResult<T> + Send + 'static,
    {
        self.check_open()?;
        let queue = self.write.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(queue) = queue else {
            return Err(CatalogError::failed(
                format!(
                    "the catalog '{}' was opened read-only: open it for writing for {}",
                    self.shared.path().display(),
                    write.doing
                ),
                WriteState::NotApplied,
            ));
        };
        let (reply, answer) = oneshot::channel();
        let (weight_bytes, is_alone) = (write.weight_bytes, !write.needs_schema);
        let job = Job { write: Some(write), weight_bytes, is_alone, keep, result: None, reply };
        if queue.send(Box::new(job)).await.is_err() {
            return Err(self.stopped(WriteState::NotApplied));
        }
        answer.await.unwrap_or_else(|_| Err(self.stopped(WriteState::Unknown)))
    }

    #[cfg(test)]
    pub(crate) fn readers(&self) -> &Readers {
        self.read.as_ref().unwrap()
    }

    /// The connections at this moment.
    pub(crate) fn stats(&self) -> Option<PoolStats> {
        let writers = usize::from(!self.shared.options.read_only);
        let writing = usize::from(self.writing.load(Ordering::Relaxed)).min(writers);
        if self.closed.load(Ordering::Acquire) {
            let limit = self.shared.options.readers + writers;
            return self.read.as_ref().map(|read| PoolStats {
                limit: u64::try_from(limit).unwrap_or(u64::MAX),
                idle: 0,
                ..read.stats(0, writing)
            });
        }
        self.read.as_ref().map(|read| read.stats(writers, writing))
    }

    /// Ends the threads once what was begun is finished, and waits for that. The file is closed then.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let Some(ended) = self.end() else { return };
        // The threads end, whether or not somebody waits for it.
        let _ = ended.await;
    }

    /// A thread that waits for the others, as a caller on an executor must not. None if there is nothing to
    /// wait for any more.
    fn end(&self) -> Option<oneshot::Receiver<()>> {
        let readers = self.read.as_ref().map(Readers::close).unwrap_or_default();
        let queue = self.write.write().unwrap_or_else(PoisonError::into_inner).take();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if readers.is_empty() && writer.is_none() {
            return None;
        }
        let (done, ended) = oneshot::channel();
        let wait = move || {
            for reader in readers {
                let _ = reader.join();
            }
            // The writer's connection is closed last, see `drop`.
            drop(queue);
            if let Some(writer) = writer {
                let _ = writer.join();
            }
            // Nobody may wait any more.
            let _ = done.send(());
        };
        match spawn(&self.shared, "closer", wait) {
            Ok(_) => Some(ended),
            // The channels are gone: the threads end without being waited for.
            Err(error) => {
                tracing::warn!(%error, "the database's threads end by themselves");
                None
            }
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(CatalogError::closed(self.shared.path().display()));
        }
        Ok(())
    }

    fn stopped(&self, write: WriteState) -> CatalogError {
        // A call that came at the same moment as `close`, and was not begun.
        if write == WriteState::NotApplied
            && let Err(error) = self.check_open()
        {
            return error;
        }
        CatalogError::failed(
            format!(
                "a database thread of '{}' has stopped, which is a bug: open the catalog again",
                self.shared.path().display()
            ),
            write,
        )
    }
}

impl Drop for Workers {
    /// Finishes what is queued, then closes the connections, the writer's last: closing the last
    /// connection moves the log into the database and deletes it.
    fn drop(&mut self) {
        self.read = None;
        *self.write.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(writer) = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
    }
}

fn writer_loop(
    session: &Session,
    mut queue: mpsc::Receiver<Box<dyn WriteJob>>,
    at_work: &AtomicBool,
) {
    session.adopt_thread();
    let mut last_pause = Instant::now();
    let mut next = None;
    while let Some(first) = next.take().or_else(|| queue.blocking_recv()) {
        at_work.store(true, Ordering::Relaxed);
        if first.is_alone() {
            run_alone(session, first);
        } else {
            next = run_group(session, first, &mut queue);
        }
        at_work.store(false, Ordering::Relaxed);
        if queue.is_empty() {
            last_pause = Instant::now();
        } else if last_pause.elapsed() >= FAIR_AFTER {
            thread::sleep(FAIR_PAUSE);
            last_pause = Instant::now();
        }
    }
}

/// How a job left the transaction.
enum Step {
    /// Written.
    Kept,
    /// Rolled back, alone.
    Undone,
    /// SQLite gave the whole transaction up (disk full, I/O error): nothing of the group stays.
    Lost(Option<rusqlite::Error>),
}

/// Runs a job and those that wait behind it. The job that it returns is the next one, and needs a
/// transaction to itself.
fn run_group(
    session: &Session,
    first: Box<dyn WriteJob>,
    queue: &mut mpsc::Receiver<Box<dyn WriteJob>>,
) -> Option<Box<dyn WriteJob>> {
    let started = Instant::now();
    if let Err(error) = begin(session) {
        // They all waited for the same lock: no job waits for it a second time here.
        let mut jobs = vec![first];
        while jobs.len() < GROUP_JOBS
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        for job in jobs {
            job.answer(Some(session.classify(&error, "beginning a write", WriteState::NotApplied)));
        }
        return None;
    }

    let mut group: Vec<(Box<dyn WriteJob>, bool)> = Vec::new();
    let mut bytes = 0_usize;
    let mut next = Some(first);
    while let Some(mut job) = next.take_if(|job| !job.is_alone()) {
        bytes = bytes.saturating_add(job.weight_bytes());
        match run_job(session, &mut *job) {
            Step::Kept => group.push((job, true)),
            Step::Undone => group.push((job, false)),
            Step::Lost(error) => {
                rollback(session);
                lose_group(session, job, error.as_ref(), group);
                return None;
            }
        }
        if group.len() < GROUP_JOBS && bytes < GROUP_BYTES && started.elapsed() < GROUP_TIME {
            next = queue.try_recv().ok();
        }
    }

    let kept = group.iter().filter(|(_, kept)| *kept).count();
    if kept == 0 {
        rollback(session);
        for (job, _) in group {
            job.answer(None);
        }
        return next;
    }
    match execute(session, "COMMIT") {
        Ok(()) => {
            count(&session.shared, kept);
            for (job, _) in group {
                job.answer(None);
            }
        }
        Err(error) => {
            rollback(session);
            let doubt = after_failed_commit(&error);
            for (job, kept) in group {
                let write = if kept { doubt } else { WriteState::NotApplied };
                job.answer(Some(session.classify(&error, "committing", write)));
            }
        }
    }
    next
}

/// Counts a transaction and the jobs in it.
fn count(shared: &Shared, jobs: usize) {
    shared.transactions.fetch_add(1, Ordering::Relaxed);
    shared.jobs.fetch_add(u64::try_from(jobs).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Runs a job in a transaction of its own, without a savepoint.
///
/// It may write the whole database anew. So what SQLite needs besides, to take one statement back or
/// to sort the rows of an index, goes to temporary files here, and not to memory.
fn run_alone(session: &Session, mut job: Box<dyn WriteJob>) {
    let result = alone(session, &mut *job);
    rollback(session);
    if let Err(error) = session.keep_temporary_data(Temporary::InMemory) {
        tracing::warn!(?error, path = %session.shared.path().display(), "temp_store");
    }
    job.answer(result.err());
}

fn alone(session: &Session, job: &mut dyn WriteJob) -> Result<()> {
    let doing = "creating or upgrading the schema";
    let begin = || -> DbResult<()> {
        rollback(session);
        session.keep_temporary_data(Temporary::InFiles)?;
        Ok(begin(session)?)
    };
    begin().map_err(|e| e.into_catalog(session.shared.path(), doing, WriteState::NotApplied))?;
    if job.run(session) {
        execute(session, "COMMIT")
            .map_err(|error| session.classify(&error, doing, after_failed_commit(&error)))?;
        count(&session.shared, 1);
    }
    Ok(())
}

fn execute(session: &Session, sql: &str) -> rusqlite::Result<()> {
    session.conn.prepare_cached(sql)?.execute([]).map(|_| ())
}

fn begin(session: &Session) -> rusqlite::Result<()> {
    if !session.conn.is_autocommit() {
        execute(session, "ROLLBACK")?;
    }
    execute(session, "BEGIN IMMEDIATE")
}

/// Ends the transaction, if SQLite has not done so itself. A failure shows at the next BEGIN.
fn rollback(session: &Session) {
    if !session.conn.is_autocommit()
        && let Err(error) = execute(session, "ROLLBACK")
    {
        tracing::warn!(%error, path = %session.shared.path().display(), "ROLLBACK failed");
    }
}

fn run_job(session: &Session, job: &mut dyn WriteJob) -> Step {
    if let Err(error) = execute(session, "SAVEPOINT job") {
        return Step::Lost(Some(error));
    }
    let keep = job.run(session);
    if session.conn.is_autocommit() {
        return Step::Lost(None);
    }
    let ended = if keep {
        execute(session, "RELEASE job")
    } else {
        execute(session, "ROLLBACK TO job").and_then(|()| execute(session, "RELEASE job"))
    };
    match ended {
        Ok(()) if keep => Step::Kept,
        Ok(()) => Step::Undone,
        Err(error) => Step::Lost(Some(error)),
    }
}

/// Answers a group whose transaction is gone: the job that did it gets its own error, the others
/// may try again at once.
fn lose_group(
    session: &Session,
    culprit: Box<dyn WriteJob>,
    error: Option<&rusqlite::Error>,
    others: Vec<(Box<dyn WriteJob>, bool)>,
) {
    let instead = match error {
        Some(error) => Some(session.classify(error, "writing", WriteState::NotApplied)),
        None if culprit.has_failed() => None,
        None => Some(CatalogError::failed(
            format!(
                "database '{}' ended a transaction by itself: nothing was written",
                session.shared.path().display()
            ),
            WriteState::NotApplied,
        )),
    };
    culprit.answer(instead);
    for (job, _) in others {
        job.answer(Some(CatalogError::busy(
            format!(
                "a write to database '{}' was rolled back together with another one that failed",
                session.shared.path().display()
            ),
            WriteState::NotApplied,
        )));
    }
}
