//! What this package logs, for Python's `logging`: lines wait in a queue until a thread of Python's fetches them, so
//! that no thread of ours ever calls Python.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Write};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::failure::Failure;

/// Most lines that wait. What comes when they do is counted and thrown away.
const MOST: usize = 10_000;
/// Longest line, bytes.
const LONGEST: usize = 16 * 1024;

/// Levels of Python's `logging`, by their tens; 0: nothing is logged.
static LEVEL: AtomicU8 = AtomicU8::new(0);

/// A line: level, module, text, seconds since 1970.
type Line = (u8, String, String, f64);

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Line>,
    ended: bool,
}

/// The lines of a process. A forked child has its own: those of its parent may be locked forever.
struct Queue {
    process: u32,
    waiting: Mutex<Waiting>,
    there: Condvar,
    lost: AtomicU64,
    /// That of a child.
    next: OnceLock<Box<Queue>>,
}

impl Queue {
    fn here() -> Queue {
        Queue {
            process: std::process::id(),
            waiting: Mutex::default(),
            there: Condvar::new(),
            lost: AtomicU64::new(0),
            next: OnceLock::new(),
        }
    }

    fn put(&self, line: Line) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.lines.len() >= MOST {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.lines.push_back(line);
        drop(waiting);
        self.there.notify_one();
    }

    /// Waits for lines, but not long, and takes them; none after the end.
    fn take(&self, limit: Duration) -> Option<Vec<Line>> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.ended;
        let waited = self.there.wait_timeout_while(waiting, limit, waits);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if waiting.lines.is_empty() && waiting.ended {
            return None;
        }
        Some(waiting.lines.drain(..).collect())
    }

    fn set_ended(&self, ended: bool) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).ended = ended;
        self.there.notify_all();
    }
}

fn queue() -> &'static Queue {
    static FIRST: OnceLock<Queue> = OnceLock::new();
    let mut queue = FIRST.get_or_init(Queue::here);
    while queue.process != std::process::id() {
        queue = queue.next.get_or_init(|| Box::new(Queue::here()));
    }
    queue
}

/// Python's number of a level, by its tens.
fn tens(level: Level) -> u8 {
    match level {
        Level::ERROR => 4,
        Level::WARN => 3,
        Level::INFO => 2,
        Level::DEBUG => 1,
        // Below DEBUG; Python has no name for it.
        Level::TRACE => 0,
    }
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let wanted = LEVEL.load(Ordering::Relaxed);
    metadata.is_event()
        && wanted > 0
        && tens(*metadata.level()) + 1 >= wanted
        && metadata.target().starts_with("deltalakedb")
}

struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The level may change.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_wanted(metadata)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        queue().put((tens(*metadata.level()), metadata.target().to_owned(), text.finish(), at));
    }
}

/// The text of a line: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        let mut text = self.message + &self.fields;
        if text.len() > LONGEST {
            let mut end = LONGEST;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Text is only written to memory: that does not fail.
        let _: fmt::Result = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// Sets how much is logged: Python's level by its tens plus one, 0 for nothing.
#[pyfunction]
pub(crate) fn set_log_level(py: Python<'_>, level: u8) -> PyResult<()> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    if level > 0 {
        let installed =
            INSTALLED.get_or_init(|| set_global_default(Registry::default().with(Lines)).is_ok());
        if !installed {
            let text = "something else in this process has set up the log of its Rust code";
            return Err(Failure::invalid(text).raise(py));
        }
        queue().set_ended(false);
    }
    LEVEL.store(level, Ordering::Relaxed);
    Ok(())
}

/// Lines that wait, after at most `limit_s` seconds, and how many were thrown away since the last call; none after
/// [`end_logs`].
#[pyfunction]
pub(crate) fn next_logs(py: Python<'_>, limit_s: f64) -> Option<(Vec<Line>, u64)> {
    let limit = Duration::try_from_secs_f64(limit_s).unwrap_or_default();
    py.detach(|| {
        let queue = queue();
        let lines = queue.take(limit)?;
        Some((lines, queue.lost.swap(0, Ordering::Relaxed)))
    })
}

/// Lets [`next_logs`] end when no line waits any more.
#[pyfunction]
pub(crate) fn end_logs(py: Python<'_>) {
    LEVEL.store(0, Ordering::Relaxed);
    py.detach(|| queue().set_ended(true));
}
