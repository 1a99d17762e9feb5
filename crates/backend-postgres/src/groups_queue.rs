//! Which commits may go with others, who waits for which table, and who goes next. Nothing is sent here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, HeadRule, TableCommit,
};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::TableId;
use tokio::sync::oneshot;

/// Most commits in one statement.
const MOST: usize = 256;
/// Most files in one statement.
const MOST_FILES: usize = 2_000;
/// Most compressed bytes in one statement.
const MOST_BYTES: usize = 4 << 20;

/// An append that may go with others.
pub(crate) struct Append<'r> {
    pub(crate) request: &'r CommitRequest,
    pub(crate) commit: &'r TableCommit,
    pub(crate) table: TableId,
    pub(crate) since: i64,
}

impl<'r> Append<'r> {
    pub(crate) fn of(request: &'r CommitRequest) -> Option<Append<'r>> {
        let [commit] = request.tables.as_slice() else { return None };
        let CommitTarget::Existing { table_id, rule: HeadRule::Append { since } } = &commit.target
        else {
            return None;
        };
        let index = &commit.index;
        let plain = commit.later.is_none()
            && index.removes.is_empty()
            && index.protocol.is_none()
            && index.metadata.is_none()
            && index.txns.is_empty()
            && index.domain_metadata.is_empty();
        let small = index.adds.len() <= MOST_FILES / 4 && commit.rest.zstd.len() <= MOST_BYTES / 4;
        (plain && small).then(|| Append { request, commit, table: *table_id, since: since.get() })
    }
}

/// What a statement has taken.
#[derive(Debug, Default)]
struct Room {
    commits: usize,
    files: usize,
    bytes: usize,
}

impl Room {
    /// Whether it fits; it is taken if so.
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

/// What a waiting commit is told: it is through, in whatever way.
pub(crate) type Told = Result<CommitOutcome>;

/// A commit that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: Arc<CommitRequest>,
    pub(crate) tell: oneshot::Sender<Told>,
}

impl Waiting {
    pub(crate) fn new(request: &Arc<CommitRequest>) -> (Waiting, oneshot::Receiver<Told>) {
        let (tell, told) = oneshot::channel();
        (Waiting { request: Arc::clone(request), tell }, told)
    }
}

/// Commits of one table that go together.
pub(crate) type Part = (TableId, Vec<Waiting>);

/// Those that wait, by table, and the tables whose turn it could be.
#[derive(Debug)]
pub(crate) struct Queue {
    /// A table that is here has somebody at it, or is one of `ready`.
    tables: HashMap<TableId, VecDeque<Waiting>>,
    /// Tables with nobody at them for which somebody waits, in the order of their turns.
    ready: VecDeque<TableId>,
    /// Turns on their way that count.
    running: usize,
    /// Most of them.
    most: usize,
}

impl Queue {
    pub(crate) fn new(most: usize) -> Queue {
        Queue { tables: HashMap::new(), ready: VecDeque::new(), running: 0, most: most.max(1) }
    }

    /// Waits for those that are at the table, or for a turn; none if the caller's turn is now.
    pub(crate) fn wait(
        &mut self,
        table: TableId,
        request: &Arc<CommitRequest>,
    ) -> Option<oneshot::Receiver<Told>> {
        if let Some(waiting) = self.tables.get_mut(&table) {
            let (new, told) = Waiting::new(request);
            waiting.push_back(new);
            return Some(told);
        }
        if self.running < self.most {
            self.running += 1;
            self.tables.insert(table, VecDeque::new());
            return None;
        }
        let (new, told) = Waiting::new(request);
        self.tables.insert(table, VecDeque::from([new]));
        self.ready.push_back(table);
        Some(told)
    }

    /// A turn at these tables ends; those that go next, each a turn. One with several tables has none that
    /// is `alone`.
    pub(crate) fn end(
        &mut self,
        tables: &[TableId],
        counted: bool,
        alone: impl Fn(TableId) -> bool,
    ) -> Vec<Vec<Part>> {
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
    fn take(&mut self, table: TableId, alone: impl Fn(TableId) -> bool) -> Vec<Part> {
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

    /// Those of a table that find room, in their order, and no fewer than `least`.
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
#[path = "groups_queue_tests.rs"]
mod tests;
