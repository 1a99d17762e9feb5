//! What is counted and timed: numbers of this process, and the same numbers for the recorder of the
//! [`metrics`] crate, if the program has installed one.
//!
//! Each number has its place in an array, and its handle in the recorder is made once, at the first use: to
//! count costs some atomic additions, with a recorder or without. A recorder must therefore be installed
//! before a catalog is opened.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deltalakedb_catalog_core::conflict::ConflictKind;
use deltalakedb_catalog_core::delegation::{CallError, Verb};
use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use metrics::{Key, Label, Level, Metadata};

static METADATA: Metadata<'static> =
    Metadata::new("deltalakedb", Level::INFO, Some(module_path!()));

/// A name with up to two labels.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    name: &'static str,
    labels: [(&'static str, &'static str); 2],
    used: usize,
}

impl Series {
    /// Without labels.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Series { name, labels: [("", ""); 2], used: 0 }
    }

    /// With one more label; a third one takes the place of the second.
    #[must_use]
    pub const fn with(mut self, label: &'static str, value: &'static str) -> Self {
        if self.used == 0 {
            self.labels[0] = (label, value);
            self.used = 1;
        } else {
            self.labels[1] = (label, value);
            self.used = 2;
        }
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> &[(&'static str, &'static str)] {
        self.labels.get(..self.used).unwrap_or_default()
    }

    fn key(&self) -> Key {
        let labels: Vec<Label> = self
            .labels()
            .iter()
            .map(|(name, value)| Label::from_static_parts(name, value))
            .collect();
        Key::from_parts(self.name, labels)
    }
}

/// How often something was done, and how long it took.
#[derive(Debug)]
pub struct Timer {
    series: Series,
    count: AtomicU64,
    nanos: AtomicU64,
    handle: OnceLock<metrics::Histogram>,
}

impl Timer {
    /// One that was not used yet.
    #[must_use]
    pub const fn new(series: Series) -> Self {
        Timer {
            series,
            count: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            handle: OnceLock::new(),
        }
    }

    /// Once more, for so long.
    pub fn record(&self, time: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.handle
            .get_or_init(|| {
                let key = self.series.key();
                metrics::with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
            })
            .record(time.as_secs_f64());
    }

    /// Its name and labels.
    #[must_use]
    pub fn series(&self) -> &Series {
        &self.series
    }

    /// How often.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How long, all together.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// How often something happened.
#[derive(Debug)]
pub struct Count {
    series: Series,
    total: AtomicU64,
    handle: OnceLock<metrics::Counter>,
}

impl Count {
    /// One that was not used yet.
    #[must_use]
    pub const fn new(series: Series) -> Self {
        Count { series, total: AtomicU64::new(0), handle: OnceLock::new() }
    }

    /// Once more.
    pub fn count(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.handle
            .get_or_init(|| {
                let key = self.series.key();
                metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
            })
            .increment(1);
    }

    /// Its name and labels.
    #[must_use]
    pub fn series(&self) -> &Series {
        &self.series
    }

    /// How often.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// How a call of the database's contract ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says its name")]
pub enum CallOutcome {
    Ok,
    Busy,
    Unavailable,
    Unknown,
    Error,
}

impl CallOutcome {
    const ALL: [CallOutcome; 5] = [
        CallOutcome::Ok,
        CallOutcome::Busy,
        CallOutcome::Unavailable,
        CallOutcome::Unknown,
        CallOutcome::Error,
    ];

    /// As it is in metrics: `ok`, `busy` (the same call may succeed soon), `unavailable`, `unknown` (it may
    /// have been written), `error` (all others).
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            CallOutcome::Ok => "ok",
            CallOutcome::Busy => "busy",
            CallOutcome::Unavailable => "unavailable",
            CallOutcome::Unknown => "unknown",
            CallOutcome::Error => "error",
        }
    }

    /// That of a failed call.
    #[must_use]
    pub fn of(error: &impl CallError) -> CallOutcome {
        match (error.write_state(), error.code()) {
            (WriteState::Unknown, _) => CallOutcome::Unknown,
            (WriteState::NotApplied, "busy") => CallOutcome::Busy,
            (WriteState::NotApplied, "unavailable") => CallOutcome::Unavailable,
            (WriteState::NotApplied, _) => CallOutcome::Error,
        }
    }
}

/// How a commit ended: as `dl_commit_seconds` calls it.
const COMMIT_OUTCOMES: [&str; 6] =
    ["committed", "replayed", "conflict", "refused", "unknown", "error"];

fn commit_outcome(answer: Result<bool, &CatalogError>) -> usize {
    match answer {
        Ok(replayed) => usize::from(replayed),
        Err(CatalogError::Conflict(_)) => 2,
        Err(
            CatalogError::InvalidInput(_)
            | CatalogError::TableFrozen(_)
            | CatalogError::Unsupported(_)
            | CatalogError::TableNotFound(_)
            | CatalogError::TableExists(_)
            | CatalogError::VersionNotFound { .. },
        ) => 3,
        Err(CatalogError::CommitUnknown { .. }) => 4,
        Err(_) => 5,
    }
}

/// All numbers of one catalog, for as long as a handle on it lives.
#[derive(Debug)]
pub struct Meters {
    calls: Vec<[Timer; 5]>,
    open: [Timer; 2],
    plan: [Timer; 2],
    commit: [Timer; 6],
    commits: [Count; 6],
    conflicts: Vec<Count>,
    retries: Vec<Count>,
    errors: Vec<Count>,
}

impl Default for Meters {
    fn default() -> Self {
        let ended = |name| {
            ["ok", "error"].map(|outcome| Timer::new(Series::new(name).with("outcome", outcome)))
        };
        let statement = |name, verb: &Verb| Series::new(name).with("statement", verb.label());
        let call = |verb: &Verb| {
            let series = statement("dl_call_seconds", verb);
            CallOutcome::ALL.map(|outcome| Timer::new(series.with("outcome", outcome.label())))
        };
        let count = |name, label, value| Count::new(Series::new(name).with(label, value));
        Meters {
            calls: Verb::ALL.iter().map(call).collect(),
            open: ended("dl_open_seconds"),
            plan: ended("dl_plan_seconds"),
            commit: COMMIT_OUTCOMES.map(|outcome| {
                Timer::new(Series::new("dl_commit_seconds").with("outcome", outcome))
            }),
            commits: COMMIT_OUTCOMES.map(|outcome| count("dl_commits_total", "outcome", outcome)),
            conflicts: ConflictKind::LABELS
                .iter()
                .map(|kind| count("dl_conflicts_total", "kind", kind))
                .collect(),
            retries: Verb::ALL
                .iter()
                .map(|verb| Count::new(statement("dl_retries_total", verb)))
                .collect(),
            errors: CatalogError::CODES
                .iter()
                .map(|code| count("dl_errors_total", "code", code))
                .collect(),
        }
    }
}

impl Meters {
    /// A call of the contract has ended so. One that was busy is made again.
    pub fn call(&self, verb: Verb, outcome: CallOutcome, time: Duration) {
        let timer = self.calls.get(verb as usize).and_then(|verb| verb.get(outcome as usize));
        if let Some(timer) = timer {
            timer.record(time);
        }
        // A commit's repetitions are counted where they are made.
        if outcome == CallOutcome::Busy && verb != Verb::Commit {
            self.again(verb);
        }
    }

    /// A call is made again.
    pub(crate) fn again(&self, verb: Verb) {
        if let Some(count) = self.retries.get(verb as usize) {
            count.count();
        }
    }

    fn ended(&self, timers: &[Timer; 2], error: Option<&CatalogError>, time: Duration) {
        let [ok, failed] = timers;
        match error {
            None => ok.record(time),
            Some(error) => {
                failed.record(time);
                self.error(error);
            }
        }
    }

    pub(crate) fn opened(&self, error: Option<&CatalogError>, time: Duration) {
        self.ended(&self.open, error, time);
    }

    pub(crate) fn planned(&self, error: Option<&CatalogError>, time: Duration) {
        self.ended(&self.plan, error, time);
    }

    /// A commit has ended: with whether it was replayed, or with this error.
    pub(crate) fn committed(&self, answer: Result<bool, &CatalogError>, time: Duration) {
        let outcome = commit_outcome(answer);
        if let (Some(timer), Some(count)) = (self.commit.get(outcome), self.commits.get(outcome)) {
            timer.record(time);
            count.count();
        }
        let Err(error) = answer else { return };
        self.error(error);
        if let CatalogError::Conflict(conflict) = error {
            let place = ConflictKind::LABELS.iter().position(|l| *l == conflict.kind.label());
            if let Some(count) = place.and_then(|place| self.conflicts.get(place)) {
                count.count();
            }
        }
    }

    /// A user got this error.
    pub(crate) fn error(&self, error: &CatalogError) {
        let code = error.code();
        if let Some(count) = CatalogError::CODES
            .iter()
            .position(|c| *c == code)
            .and_then(|code| self.errors.get(code))
        {
            count.count();
        }
    }

    /// All that were used, of those that are timed.
    pub fn timers(&self) -> impl Iterator<Item = &Timer> {
        let calls = self.calls.iter().flatten();
        let timers = calls.chain(&self.open).chain(&self.plan).chain(&self.commit);
        timers.filter(|timer| timer.count() > 0)
    }

    /// All that were used, of those that are only counted.
    pub fn counts(&self) -> impl Iterator<Item = &Count> {
        let counts = self.commits.iter().chain(&self.conflicts).chain(&self.retries);
        counts.chain(&self.errors).filter(|count| count.get() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_place() {
        let meters = Meters::default();
        let version = deltalakedb_catalog_core::ids::Version::ZERO;
        let errors = [
            CatalogError::invalid("x"),
            CatalogError::TableNotFound("x".to_owned()),
            CatalogError::TableExists("x".parse().unwrap()),
            CatalogError::VersionNotFound {
                table: "x".to_owned(),
                version: "7".to_owned(),
                earliest: version,
                latest: version,
            },
            CatalogError::TableFrozen(Box::new(deltalakedb_catalog_core::frozen::Frozen {
                table: "x".to_owned(),
                version,
                since: None,
                user: None,
                reason: None,
            })),
            CatalogError::Unsupported("x".to_owned()),
            CatalogError::Schema("x".to_owned()),
            CatalogError::corrupt("x"),
            CatalogError::busy("x", WriteState::NotApplied),
            CatalogError::failed("x", WriteState::NotApplied),
            CatalogError::CommitUnknown {
                token: deltalakedb_catalog_core::ids::CommitToken::new("t").unwrap(),
                message: "x".to_owned(),
            },
        ];
        for error in &errors {
            meters.error(error);
        }
        // All but `conflict`.
        assert_eq!(meters.counts().count(), errors.len());
        assert!(meters.counts().all(|count| count.get() == 1));
    }

    #[test]
    fn a_call_is_counted_by_its_statement_and_outcome() {
        let meters = Meters::default();
        for outcome in CallOutcome::ALL {
            meters.call(Verb::ListFiles, outcome, Duration::from_millis(2));
        }
        meters.call(Verb::ListFiles, CallOutcome::Ok, Duration::from_millis(3));
        let labels: Vec<_> =
            meters.timers().map(|t| (t.series().labels().to_vec(), t.count(), t.total())).collect();
        assert_eq!(labels.len(), 5, "{labels:?}");
        assert_eq!(labels[0].0, [("statement", "list_files"), ("outcome", "ok")]);
        assert_eq!((labels[0].1, labels[0].2), (2, Duration::from_millis(5)));
        // The busy one is made again.
        assert_eq!(meters.counts().map(Count::get).collect::<Vec<_>>(), [1]);
    }
}
