//! The appends that wait for a table, and which of them go next. Nothing is sent here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::TableId;
use tokio::sync::oneshot;

use super::append::{Append, MOST_BYTES, MOST_FILES};

/// Most commits in one statement.
const MOST: usize = 256;

/// How much of one statement is taken.
#[derive(Debug, Default)]
struct Room {
    commits: usize,
    files: usize,
    bytes: usize,
}

impl Room {
    /// Takes the append if it fits; answers whether it does.
    fn takes(&mut self, append: &Append<'_>) -> bool {
        let files = self.files + append.commit.index.adds.len();
        let bytes = self.bytes + append.commit.rest.zstd.len();
        let fits = self.commits < MOST && files <= MOST_FILES && bytes <= MOST_BYTES;
        if fits {
            *self = Room { commits: self.commits + 1, files, bytes };
        }
        fits
    }

    /// Whether no more commits fit, however small.
    fn is_full(&self) -> bool {
        self.commits >= MOST
    }
}

/// An append that waits, and where its caller gets the outcome.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Arc<CommitRequest>,
    pub(super) answer: oneshot::Sender<Result<CommitOutcome>>,
}

impl Waiting {
    fn new(request: &Arc<CommitRequest>) -> (Waiting, oneshot::Receiver<Result<CommitOutcome>>) {
        let (answer, outcome) = oneshot::channel();
        (Waiting { request: Arc::clone(request), answer }, outcome)
    }
}

/// Appends to one table that go together.
pub(super) type TableAppends = (TableId, Vec<Waiting>);

/// The appends that wait, by table, and the tables whose turn could be next.
#[derive(Debug)]
pub(super) struct Queue {
    /// A table that is here has a turn that runs, or is one of `ready`.
    tables: HashMap<TableId, VecDeque<Waiting>>,
    /// Tables without a turn for which appends wait, in the order of their turns.
    ready: VecDeque<TableId>,
    /// Turns that run and count.
    running: usize,
    /// Most turns that may run and count.
    most: usize,
}

impl Queue {
    pub(super) fn new(most: usize) -> Queue {
        Queue { tables: HashMap::new(), ready: VecDeque::new(), running: 0, most: most.max(1) }
    }

    /// Puts an append into the queue of its table; answers where its outcome comes. None if the turn of the
    /// caller is now.
    pub(super) fn wait(
        &mut self,
        table: TableId,
        request: &Arc<CommitRequest>,
    ) -> Option<oneshot::Receiver<Result<CommitOutcome>>> {
        if let Some(waiting) = self.tables.get_mut(&table) {
            let (new, outcome) = Waiting::new(request);
            waiting.push_back(new);
            return Some(outcome);
        }
        if self.running < self.most {
            self.running += 1;
            self.tables.insert(table, VecDeque::new());
            return None;
        }
        let (new, outcome) = Waiting::new(request);
        self.tables.insert(table, VecDeque::from([new]));
        self.ready.push_back(table);
        Some(outcome)
    }

    /// Ends a turn at these tables, and answers the turns that are next. A turn with several tables has none
    /// that is `alone`.
    pub(super) fn end(
        &mut self,
        tables: &[TableId],
        counted: bool,
        alone: impl Fn(TableId) -> bool,
    ) -> Vec<Vec<TableAppends>> {
        self.running = self.running.saturating_sub(counted.into());
        for table in tables {
            match self.tables.get(table) {
                Some(waiting) if waiting.is_empty() => {
                    self.tables.remove(table);
                }
                Some(_) => self.ready.push_back(*table),
                None => {}
            }
        }
        let mut next = Vec::new();
        while self.running < self.most
            && let Some(table) = self.ready.pop_front()
        {
            self.running += 1;
            next.push(self.take(table, &alone));
        }
        next
    }

    /// A turn at this table, with others that wait for one.
    fn take(&mut self, table: TableId, alone: impl Fn(TableId) -> bool) -> Vec<TableAppends> {
        let mut room = Room::default();
        let mut parts = vec![(table, self.fitting(table, &mut room, 1))];
        if alone(table) {
            return parts;
        }
        for other in std::mem::take(&mut self.ready) {
            if !room.is_full() && !alone(other) {
                let waiting = self.fitting(other, &mut room, 0);
                if !waiting.is_empty() {
                    parts.push((other, waiting));
                    continue;
                }
            }
            self.ready.push_back(other);
        }
        parts
    }

    /// Takes the appends of a table that find room, in their order, and no fewer than `least`.
    fn fitting(&mut self, table: TableId, room: &mut Room, least: usize) -> Vec<Waiting> {
        let Some(waiting) = self.tables.get_mut(&table) else { return Vec::new() };
        let fit = waiting
            .iter()
            .take_while(|waiting| Append::of(&waiting.request).is_some_and(|a| room.takes(&a)));
        let number = fit.count().max(least).min(waiting.len());
        waiting.drain(..number).collect()
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
