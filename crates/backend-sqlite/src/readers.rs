//! Threads that read, each with a connection of its own.
//!
//! The thread that read last reads next: its connection knows the schema, has the statements
//! prepared, and holds the pages of a list that goes on. Further connections are opened when all others are at work, so a
//! program that asks for one thing at a time pays for one.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use deltalakedb_catalog_core::backend::{PoolStats, Waits};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};

use crate::session::{Session, Shared};

/// A read that waits for a connection. It returns a function that gives the answer. The thread
/// calls that function when it is free for the next read, so that a caller finds it free.
pub(crate) type ReadJob = Box<dyn FnOnce(&Session) -> Answer + Send>;
pub(crate) type Answer = Box<dyn FnOnce() + Send>;

/// The threads of one backend.
#[derive(Debug)]
pub(crate) struct Readers(Arc<Pool>);

struct Pool {
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Reads for which no further thread may be started.
    waits: Waits,
}

#[derive(Default)]
struct State {
    /// Reads for which there is no thread yet: as many as `worker` lets in.
    waiting: VecDeque<Waiting>,
    /// Threads without work. The thread that worked last is at the end.
    idle: Vec<SyncSender<ReadJob>>,
    /// Threads that run.
    running: usize,
    closed: bool,
    threads: Vec<JoinHandle<()>>,
}

/// A read that waits, and since when if no further thread may be started for it.
struct Waiting {
    job: ReadJob,
    since: Option<Instant>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// Starts a thread of a backend.
pub(crate) fn spawn(
    shared: &Shared,
    what: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("dl-sqlite-{what}")).spawn(body).map_err(|e| {
        CatalogError::failed(
            format!("cannot start a thread for database '{}': {e}", shared.path().display()),
            WriteState::NotApplied,
        )
    })
}

impl Readers {
    /// Starts the first thread.
    pub(crate) fn start(first: Session) -> Result<Readers> {
        let shared = Arc::clone(&first.shared);
        let pool = Arc::new(Pool { shared, state: Mutex::default(), waits: Waits::default() });
        let mut state = pool.state();
        let running = Running::new(&pool, &mut state);
        // The thread counts as idle from now on, before it has begun: else a call that reads at once
        // would open another connection.
        let (sender, work) = sync_channel(1);
        state.idle.push(sender);
        drop(state);
        let thread = spawn(&pool.shared, "reader", move || running.serve(first, Some(work)))?;
        pool.state().threads.push(thread);
        Ok(Readers(pool))
    }

    /// Gives a read to the thread that read last, or to another one.
    pub(crate) fn submit(&self, job: ReadJob) {
        let mut state = self.0.state();
        if state.closed {
            // Its caller learns it by the end of its channel.
            return;
        }
        let job = match state.idle.pop() {
            None => job,
            // Every thread in `idle` waits for a job.
            Some(reader) => match reader.send(job) {
                Ok(()) => return,
                Err(unsent) => unsent.0,
            },
        };
        let may_start = state.running < self.0.shared.options.readers;
        state.waiting.push_back(Waiting { job, since: (!may_start).then(Instant::now) });
        if may_start {
            let running = Running::new(&self.0, &mut state);
            drop(state);
            self.open_another(running);
        }
    }

    fn open_another(&self, running: Running) {
        let shared = Arc::clone(&self.0.shared);
        let thread = spawn(&self.0.shared, "reader", move || match Session::open_reader(&shared) {
            Ok(session) => running.serve(session, None),
            // The other threads answer the reads that wait.
            Err(error) => tracing::warn!(%error, "no further connection for reads"),
        });
        match thread {
            Ok(thread) => {
                let mut state = self.0.state();
                state.threads.retain(|thread| !thread.is_finished());
                state.threads.push(thread);
            }
            Err(error) => tracing::warn!(%error, "no further thread for reads"),
        }
    }

    /// The connections for reads at this moment, and `writers` more, of which so many are at work.
    pub(crate) fn stats(&self, writers: usize, writing: usize) -> PoolStats {
        let (running, idle) = {
            let state = self.0.state();
            (state.running, state.idle.len().min(state.running))
        };
        let active = running - idle + writing;
        let limit = self.0.shared.options.readers.max(running) + writers;
        self.0.waits.stats(limit, active, (idle + writers).saturating_sub(writing))
    }

    /// Lets the threads end when what waits is done, and starts no other. They are to be joined.
    pub(crate) fn close(&self) -> Vec<JoinHandle<()>> {
        let mut state = self.0.state();
        state.closed = true;
        state.idle.clear();
        std::mem::take(&mut state.threads)
    }

    /// Reads that have no thread yet.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.state().waiting.len()
    }

    /// Connections that are open.
    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.0.state().running
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that counts as running, however it ends.
struct Running(Arc<Pool>);

impl Running {
    fn new(pool: &Arc<Pool>, state: &mut State) -> Running {
        state.running += 1;
        Running(Arc::clone(pool))
    }

    fn serve(self, mut session: Session, first: Option<Receiver<ReadJob>>) {
        session.adopt_thread();
        let mut next = match first {
            Some(first) => first.recv().ok(),
            None => self.next(Box::new(|| {})),
        };
        while let Some(job) = next {
            let answer = job(&session);
            session = match session.for_the_next_read() {
                Ok(session) => session,
                Err(error) => {
                    tracing::warn!(%error, "a connection for reads was lost");
                    answer();
                    return;
                }
            };
            next = self.next(answer);
        }
    }

    fn next(&self, answer: Answer) -> Option<ReadJob> {
        let mut state = self.0.state();
        let waiting = state.waiting.pop_front();
        if waiting.is_some() || state.closed {
            drop(state);
            answer();
            let waiting = waiting?;
            if let Some(since) = waiting.since {
                let time = since.elapsed();
                self.0.waits.note(time);
                metrics::histogram!("dl_pool_wait_seconds").record(time);
            }
            return Some(waiting.job);
        }
        let (sender, receiver) = sync_channel(1);
        state.idle.push(sender);
        drop(state);
        answer();
        receiver.recv().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        // Without a thread no read is answered: its caller learns it by the end of its channel.
        let lost =
            if state.running == 0 { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        drop(state);
        drop(lost);
    }
}

impl Drop for Readers {
    /// Finishes what waits, then closes the connections.
    fn drop(&mut self) {
        for thread in self.close() {
            let _ = thread.join();
        }
    }
}
