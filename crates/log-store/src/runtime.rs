//! The runtime that catalogs live on.
//!
//! `deltalake` calls its object store from runtimes of its own making, and database pools must stay on
//! the one that opened them.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads of it: databases do the work, not these.
const THREADS: usize = 2;

/// How long [`end`] waits for threads.
const PATIENCE: Duration = Duration::from_secs(2);

/// A runtime, and the process that it is of: threads do not come along into a forked child.
struct Started {
    process: u32,
    handle: std::io::Result<Handle>,
    runtime: Mutex<Option<Runtime>>,
    ended: AtomicBool,
    /// That of a child, or the one after the end of this.
    next: OnceLock<Box<Started>>,
}

impl Started {
    fn here() -> Started {
        let built = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("deltalakedb")
            .enable_all()
            .build();
        let (handle, runtime) = match built {
            Ok(runtime) => (Ok(runtime.handle().clone()), Some(runtime)),
            Err(error) => (Err(error), None),
        };
        Started {
            process: std::process::id(),
            handle,
            runtime: Mutex::new(runtime),
            ended: AtomicBool::new(false),
            next: OnceLock::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.process != std::process::id() || self.ended.load(Ordering::SeqCst)
    }
}

static FIRST: OnceLock<Started> = OnceLock::new();

/// The runtime of this process. A forked child makes its own, and leaves the one that it has inherited alone. What
/// is looked at here has no lock that another thread could have held when the process was forked.
fn runtime() -> Result<&'static Handle> {
    let mut started = FIRST.get_or_init(Started::here);
    while started.is_over() {
        started = started.next.get_or_init(|| Box::new(Started::here()));
    }
    started.handle.as_ref().map_err(|e| {
        CatalogError::failed(format!("cannot start threads: {e}"), WriteState::NotApplied)
    })
}

/// Ends the threads of the runtime, for a process that is about to be forked and has nothing under way: a child
/// would inherit the places where they wait, and trip over them. What is run later starts new ones.
pub fn end() {
    let mut found = FIRST.get();
    while let Some(started) = found {
        if !started.is_over() {
            started.ended.store(true, Ordering::SeqCst);
            let runtime = started.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(runtime) = runtime {
                runtime.shutdown_timeout(PATIENCE);
            }
        }
        found = started.next.get().map(AsRef::as_ref);
    }
}

/// Runs work on the runtime that catalogs are opened on, to its end: it is not cancelled with the
/// caller, as with any remote store.
///
/// # Errors
/// Those of the work; `Unavailable` if it panicked.
pub async fn run<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    runtime()?.spawn(work).await.map_err(|e| {
        CatalogError::failed(format!("work was broken off: {e}"), WriteState::Unknown)
    })?
}
