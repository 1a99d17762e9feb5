//! What is told of a commit, and how long planning takes.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use deltalakedb_catalog_core::backend::CommittedTable;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::FileRecord;
use futures::stream::{BoxStream, Stream, StreamExt};

use serde_json::Value;
use tracing::Span;

use super::part::Part;
use crate::env::Clock;
use crate::measure::Meters;
use crate::plan::Plan;
use crate::signature::UserName;
use crate::spans;

/// Where log events of commits go.
const TARGET: &str = "deltalakedb::commit";
/// Of a text of the user's, so many characters are told.
const MOST_CHARS: usize = 200;

/// Told of every batch that a catalog has committed.
pub trait CommitHook: fmt::Debug + Send + Sync {
    /// Must not block: the answer to the writer waits for it.
    fn committed(&self, commit: &CommitEvent<'_>);
}

/// A batch that took effect.
#[derive(Clone, Copy)]
pub struct CommitEvent<'a> {
    token: &'a CommitToken,
    replayed: bool,
    attempts: u32,
    time: Duration,
    tables: &'a [CommittedTable],
    working: &'a [Part<'a>],
    user: Option<&'a UserName>,
}

/// What a commit did to one table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ChangedTable {
    /// The table as the caller named it.
    pub table: String,
    /// Its id.
    pub table_id: TableId,
    /// The new version.
    pub version: Version,
    /// Its commit timestamp.
    pub timestamp: TimestampMs,
    /// `commitInfo.operation`; at most 200 characters.
    pub operation: Option<String>,
    /// `commitInfo.userName`; at most 200 characters.
    pub user: Option<String>,
    /// Files added.
    pub added: u64,
    /// Files removed.
    pub removed: u64,
    /// Size of the files added, bytes.
    pub added_bytes: u64,
    /// Size of the files removed, as far as the commit says it, bytes.
    pub removed_bytes: u64,
}

impl fmt::Debug for CommitEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitEvent")
            .field("token", self.token)
            .field("replayed", &self.replayed)
            .field("attempts", &self.attempts)
            .field("time", &self.time)
            .field("tables", &self.tables)
            .finish_non_exhaustive()
    }
}

impl<'a> CommitEvent<'a> {
    pub(super) fn new(
        token: &'a CommitToken,
        replayed: bool,
        attempts: u32,
        time: Duration,
        tables: &'a [CommittedTable],
        working: &'a [Part<'a>],
        user: Option<&'a UserName>,
    ) -> Self {
        CommitEvent { token, replayed, attempts, time, tables, working, user }
    }

    /// The token that the batch is known by.
    #[must_use]
    pub fn token(&self) -> &'a CommitToken {
        self.token
    }

    /// Whether an earlier call with this token had written it.
    #[must_use]
    pub fn replayed(&self) -> bool {
        self.replayed
    }

    /// How often it was sent.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long it took, with its repetitions.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.time
    }

    /// The new versions.
    #[must_use]
    pub fn tables(&self) -> &'a [CommittedTable] {
        self.tables
    }

    /// How many files the batch added.
    #[must_use]
    pub fn files_added(&self) -> usize {
        self.working.iter().filter_map(|part| part.plan.as_ref()).map(Plan::num_added).sum()
    }

    /// What the commit did to each table, as the caller has asked for it: this call reads the actions. A table
    /// of a batch that was written by an earlier call has only what is known of it.
    #[must_use]
    pub fn changes(&self) -> Vec<ChangedTable> {
        self.tables.iter().map(|table| self.change(table)).collect()
    }

    fn change(&self, table: &CommittedTable) -> ChangedTable {
        let id = Some(table.table_id);
        let mut parts = self.working.iter();
        let part = parts.find(|part| part.table_id == id || part.new_id == id);
        let mut change = ChangedTable {
            table: part.map_or_else(|| table.table_id.to_string(), |part| part.label.clone()),
            table_id: table.table_id,
            version: table.version,
            timestamp: table.timestamp,
            operation: None,
            user: self.user.map(|user| short(user.as_str())),
            added: 0,
            removed: 0,
            added_bytes: 0,
            removed_bytes: 0,
        };
        let Some(plan) = part.and_then(|part| part.plan.as_ref()) else { return change };
        let info = plan.index.commit_info.as_deref().map(serde_json::from_str::<Value>);
        let info = info.and_then(std::result::Result::ok).unwrap_or_default();
        let word = |key: &str| info.get(key).and_then(Value::as_str).map(short);
        let size = |size: i64| u64::try_from(size).unwrap_or(0);
        let later = plan.later.as_ref().map_or(0, |later| size(later.bytes()));
        change.operation = word("operation");
        change.user = word("userName").or(change.user);
        change.added = u64::try_from(plan.num_added()).unwrap_or(u64::MAX);
        change.removed = u64::try_from(plan.index.removes.len()).unwrap_or(u64::MAX);
        change.added_bytes = size(plan.index.added_bytes()).saturating_add(later);
        let removed = plan.index.removes.iter().filter_map(|remove| remove.size).map(size);
        change.removed_bytes = removed.fold(0, u64::saturating_add);
        change
    }

    /// One event for those who read the log.
    pub(super) fn log(&self) {
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return;
        }
        let changes = self.changes();
        let list = |of: &dyn Fn(&ChangedTable) -> String| {
            changes.iter().map(of).collect::<Vec<_>>().join(",")
        };
        let distinct = |of: &dyn Fn(&ChangedTable) -> Option<String>| {
            let words: BTreeSet<String> = changes.iter().filter_map(of).collect();
            words.into_iter().collect::<Vec<_>>().join(",")
        };
        let sum =
            |of: &dyn Fn(&ChangedTable) -> u64| changes.iter().map(of).fold(0, u64::saturating_add);
        let tables = list(&|change| change.table.clone());
        let versions = list(&|change| change.version.to_string());
        let operation = distinct(&|change| change.operation.clone());
        let user = distinct(&|change| change.user.clone());
        tracing::info!(
            target: TARGET,
            tables,
            versions,
            operation,
            added = sum(&|change| change.added),
            removed = sum(&|change| change.removed),
            bytes = sum(&|change| change.added_bytes),
            user,
            token = self.token.as_str(),
            ms = self.time.as_secs_f64() * 1_000.0,
            replayed = self.replayed,
            attempts = self.attempts,
            "committed"
        );
    }
}

/// A text of the user's, to a bound.
fn short(text: &str) -> String {
    text.chars().take(MOST_CHARS).collect()
}

/// Files of a plan, timed: from the first question to the last file, without the time that the caller takes
/// between two of them.
pub(super) struct PlanTime {
    files: BoxStream<'static, Result<FileRecord>>,
    meters: Arc<Meters>,
    clock: Arc<dyn Clock>,
    /// Since when the caller waits.
    since: Option<Duration>,
    begun: bool,
    ended: bool,
    spent: Duration,
    span: Span,
}

impl PlanTime {
    pub(super) fn around(
        files: BoxStream<'static, Result<FileRecord>>,
        meters: Arc<Meters>,
        clock: Arc<dyn Clock>,
        span: Span,
    ) -> BoxStream<'static, Result<FileRecord>> {
        let (since, spent) = (None, Duration::ZERO);
        PlanTime { files, meters, clock, since, begun: false, ended: false, spent, span }.boxed()
    }

    fn end(&mut self, error: Option<&CatalogError>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.meters.planned(error, self.spent);
            spans::ended(&self.span, error.map(CatalogError::code));
            // A caller may keep the list for long after its end.
            self.span = Span::none();
        }
    }
}

impl Stream for PlanTime {
    type Item = Result<FileRecord>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.begun, true) {
            this.since = Some(this.clock.monotonic());
        }
        let answer = this.span.in_scope(|| this.files.poll_next_unpin(context));
        if answer.is_pending() {
            // Files that are there already cost no look at the clock.
            this.since.get_or_insert_with(|| this.clock.monotonic());
            return answer;
        }
        if let Some(since) = this.since.take() {
            this.spent += this.clock.monotonic().saturating_sub(since);
        }
        match &answer {
            Poll::Ready(None) => this.end(None),
            Poll::Ready(Some(Err(error))) => this.end(Some(error)),
            _ => {}
        }
        answer
    }
}

impl Drop for PlanTime {
    /// A caller that wants no more files has its plan.
    fn drop(&mut self) {
        if self.begun {
            self.end(None);
        }
    }
}
