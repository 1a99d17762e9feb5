//! Waiting for work: without Python's lock, and so that Ctrl-C ends it.

use std::cell::RefCell;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use deltalakedb::deltalake::end_runtime;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::failure::{Failure, INTERNAL, Result};

/// How often is looked for signals while something is waited for.
const SLICE: Duration = Duration::from_millis(50);
/// Longest wait before a fork for calls of other threads.
const QUIET: Duration = Duration::from_secs(5);

/// Calls of this process that are waited for. It changes only while Python's lock is held.
static CALLS: AtomicUsize = AtomicUsize::new(0);
/// Whether this process is about to be forked: calls begin after it.
static FORKING: AtomicBool = AtomicBool::new(false);

/// How long the end of the threads is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A runtime, and the process that it is of: threads do not come along into a forked child.
struct Started {
    process: u32,
    handle: std::io::Result<Handle>,
    runtime: Mutex<Option<Runtime>>,
    ended: AtomicBool,
    /// That of a child, or the one after a fork.
    next: OnceLock<Box<Started>>,
}

impl Started {
    fn here() -> Started {
        let built =
            Builder::new_multi_thread().thread_name("deltalakedb-python").enable_all().build();
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

/// The runtime of this process. A forked child makes its own, and leaves that which it inherited alone.
fn runtime() -> Result<&'static Handle> {
    let mut started = FIRST.get_or_init(Started::here);
    while started.is_over() {
        started = started.next.get_or_init(|| Box::new(Started::here()));
    }
    started
        .handle
        .as_ref()
        .map_err(|e| Failure::new(INTERNAL, format!("cannot start threads: {e}")))
}

/// Ends all threads before a fork. `parking_lot`, by which they wait, notes them in one table of the process: a child
/// would inherit it with threads that it does not have, and hang as soon as it meets one.
pub(crate) fn end_threads(py: Python<'_>) {
    py.detach(|| {
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
        end_runtime();
    });
}

/// What a call does, for the message of an interruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing is written.
    Reads,
    /// Something is committed.
    Writes,
}

/// A call that is waited for.
struct Call;

impl Call {
    fn begin() -> Call {
        CALLS.fetch_add(1, Ordering::SeqCst);
        Call
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::SeqCst);
    }
}

thread_local! {
    /// What ends the calls of this thread, see [`set_cancel`].
    static CANCEL: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// A wish to end calls, made by another thread.
#[pyclass(frozen, module = "deltalakedb._internal")]
#[derive(Default)]
pub(crate) struct NativeCancel {
    wished: Arc<AtomicBool>,
}

#[pymethods]
impl NativeCancel {
    #[new]
    fn new() -> NativeCancel {
        NativeCancel::default()
    }

    /// Ends calls that run, and those to come.
    fn cancel(&self) {
        self.wished.store(true, Ordering::SeqCst);
    }
}

/// Lets a wish end the calls of this thread from now on; none: nothing does but signals.
#[pyfunction]
pub(crate) fn set_cancel(cancel: Option<PyRef<'_, NativeCancel>>) {
    let wished = cancel.map(|cancel| Arc::clone(&cancel.wished));
    CANCEL.with(|current| current.replace(wished));
}

/// The exception of a call that nobody wants any more.
fn check_cancelled(py: Python<'_>) -> PyResult<()> {
    let wished = CANCEL.with(|current| {
        current.borrow().as_ref().is_some_and(|wished| wished.load(Ordering::SeqCst))
    });
    if !wished {
        return Ok(());
    }
    let kind = py.import("asyncio")?.getattr("CancelledError")?;
    Err(PyErr::from_value(kind.call0()?))
}

/// Does work on the runtime and waits for it; other threads of Python go on. A signal's exception, Ctrl-C's
/// among them, ends the work.
pub(crate) fn wait<T: Send + 'static>(
    py: Python<'_>,
    effect: Effect,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> PyResult<T> {
    wait_for_fork(py)?;
    check_cancelled(py)?;
    wait_at_once(py, effect, work)
}

/// Whether this process is about to be forked.
pub(crate) fn is_forking() -> bool {
    FORKING.load(Ordering::SeqCst)
}

/// Waits until this process has been forked, if it is about to be. Python's lock is held from then on: what is looked
/// up now is good for the next [`wait`].
pub(crate) fn wait_for_fork(py: Python<'_>) -> PyResult<()> {
    let began = Instant::now();
    while is_forking() && began.elapsed() < 2 * QUIET {
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
        py.check_signals()?;
    }
    Ok(())
}

/// The same for what belongs to a fork.
pub(crate) fn wait_at_once<T: Send + 'static>(
    py: Python<'_>,
    effect: Effect,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> PyResult<T> {
    let runtime = runtime().map_err(|failure| failure.raise(py))?;
    let call = Call::begin();
    let (sender, mut receiver) = sync_channel(1);
    let task = runtime.spawn(async move {
        // If nobody waits any more, nobody wants it.
        let _ = sender.send(work.await);
    });
    let answer = loop {
        let got;
        (receiver, got) = py.detach(move || {
            let got = receiver.recv_timeout(SLICE);
            (receiver, got)
        });
        match got {
            Ok(answer) => break answer.map_err(|failure| failure.raise(py)),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(error) = py.check_signals().and_then(|()| check_cancelled(py)) {
                    task.abort();
                    break Err(interrupted(py, effect, error));
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                let text = "a fault in deltalakedb ended the call; please report it. What it wrote, \
                            if anything, the table's history tells";
                break Err(Failure::new(INTERNAL, text).raise(py));
            }
        }
    };
    drop(call);
    answer
}

/// Work whose future cannot go from thread to thread: on a thread of its own. It ends when nobody waits for it.
pub(crate) async fn on_own_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    // Dropped with this future.
    let (waits, gone) = tokio::sync::oneshot::channel::<()>();
    let handle = tokio::runtime::Handle::current();
    let task = tokio::task::spawn_blocking(move || {
        handle.block_on(async move {
            tokio::select! {
                answer = work() => answer,
                _ = gone => Err(Failure::new(INTERNAL, "the call was given up")),
            }
        })
    });
    let answer = task.await;
    drop(waits);
    answer.map_err(|e| Failure::new(INTERNAL, format!("work was broken off: {e}")))?
}

/// The exception of Ctrl-C says what is known of a commit that was under way.
fn interrupted(py: Python<'_>, effect: Effect, error: PyErr) -> PyErr {
    if effect == Effect::Reads || !error.is_instance_of::<PyKeyboardInterrupt>(py) {
        return error;
    }
    let told = PyKeyboardInterrupt::new_err(
        "interrupted while something was committed: it took effect as a whole or not at all. The \
         table's history tells which; the same call with a token can be repeated without looking",
    );
    told.set_cause(py, Some(error));
    told
}

/// Lets no other call begin, and waits until those that run have ended, for [`QUIET`] at most: a fork would leave
/// their locks locked in the child. Returns whether all calls have ended.
pub(crate) fn wait_for_quiet(py: Python<'_>) -> PyResult<bool> {
    FORKING.store(true, Ordering::SeqCst);
    let began = Instant::now();
    while CALLS.load(Ordering::SeqCst) > 0 && began.elapsed() < QUIET {
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
        py.check_signals()?;
    }
    Ok(CALLS.load(Ordering::SeqCst) == 0)
}

/// After a fork.
pub(crate) fn go_on() {
    FORKING.store(false, Ordering::SeqCst);
}

/// In a forked child: the threads whose calls were counted are not in it.
pub(crate) fn forget_calls() {
    CALLS.store(0, Ordering::SeqCst);
}
