//! Commits that wait go together: one statement, one transaction, one sync of the server's disk.
//!
//! A commit to a table finds nobody at it, and goes as it is (`commit`). Those that come meanwhile wait in
//! this process, and when it is through all of them go in one statement: the first gets the next version, and
//! so on. Only appends take part, small ones that read nothing: whatever happened to the table, short of
//! a change of its metadata or protocol, they go on top of any head, in any order.
//!
//! No more than half of the pool's connections commit appends at a time. Tables whose turn would be the next
//! one wait, and all of them go in one statement too. It passes over tables that another process holds, and
//! over those where anything is not plain: they get turns of their own, so that no table waits for another;
//! but no more of these at a time than a quarter of the connections, so that some are left to readers.
//!
//! The statement for one table writes all of its commits or none. None, where anything about it is not plain:
//! a token that is known, a file that is in the table already, a table that is gone, a barrier that moved.
//! Then each goes by itself, which finds out what is to be said about it: one after the other, in the turn
//! that they wait in, so that they never hold more than its connection. Where the database is busy, all of
//! them are told so. Why the statement is right is said in `commit`: it stands on the same facts, and on the
//! same row.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest, CommittedTable};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::TableId;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::commit;
use crate::groups_queue::{Append, Part, Queue, Waiting};
use crate::groups_send::{Way, send};
use crate::schema;
use crate::session::{Mode, Session};

/// Those that wait.
#[derive(Debug)]
pub(crate) struct Groups {
    queue: Mutex<Queue>,
    /// Turns of tables that a statement for several has passed over.
    passed_over: Semaphore,
    /// The function of `APPEND_FUNCTION` was not found.
    no_function: AtomicBool,
}

impl Groups {
    /// Of a pool with so many connections.
    pub(crate) fn new(max_connections: u32) -> Groups {
        let share = |of: u32| usize::try_from(max_connections / of).unwrap_or(usize::MAX);
        Groups {
            queue: Mutex::new(Queue::new(share(2))),
            passed_over: Semaphore::new(share(4).clamp(1, Semaphore::MAX_PERMITS)),
            no_function: AtomicBool::new(false),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_function(&self) -> bool {
        !self.no_function.load(Ordering::Relaxed)
    }

    fn without_function(&self) {
        self.no_function.store(true, Ordering::Relaxed);
    }
}

/// A turn at tables. However it ends, those that wait go next.
struct Turn {
    session: Arc<Session>,
    tables: Vec<TableId>,
    /// Whether it is one of those that the queue counts.
    counted: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let alone = |table| self.session.contended.has(table);
        let next = self.session.groups.queue().end(&self.tables, self.counted, alone);
        for parts in next {
            Turn::start(&self.session, parts, true);
        }
    }
}

impl Turn {
    fn start(session: &Arc<Session>, parts: Vec<Part>, counted: bool) {
        let tables = parts.iter().map(|(table, _)| *table).collect();
        let turn = Turn { session: Arc::clone(session), tables, counted };
        // Without a runtime nobody is left to do it: whoever waits is told by the end of `parts`.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(turn.go(parts));
        } else {
            drop(parts);
        }
    }

    /// Commits these; the rest follows when the turn ends.
    async fn go(mut self, mut parts: Vec<Part>) {
        let groups = Arc::clone(&self.session);
        let _one_of_few = if self.counted {
            None
        } else {
            // It is never closed.
            groups.groups.passed_over.acquire().await.ok()
        };
        for (_, waiting) in &mut parts {
            // Whoever gave up is not committed any more.
            waiting.retain(|waiting| !waiting.tell.is_closed());
        }
        parts.retain(|(_, waiting)| !waiting.is_empty());
        if parts.len() <= 1 {
            for part in parts {
                self.one(part).await;
            }
            return;
        }
        for part in self.together(parts, Way::Across).await {
            // It has a turn of its own, and waits for whom it must, in nobody's way.
            self.tables.retain(|table| *table != part.0);
            Turn::start(&self.session, vec![part], false);
        }
    }

    /// Commits to one table.
    async fn one(&self, (table, mut waiting): Part) {
        if waiting.len() == 1
            && let Some(Waiting { request, tell }) = waiting.pop()
        {
            let outcome = by_itself(&self.session, &request).await;
            let _ = tell.send(outcome);
            return;
        }
        let way = to_one(&self.session, table);
        let left = self.together(vec![(table, waiting)], way).await;
        let mut left = left.into_iter().flat_map(|(_, waiting)| waiting);
        while let Some(Waiting { request, tell }) = left.next() {
            if tell.is_closed() {
                continue;
            }
            let outcome = commit::commit_now(&self.session, &request).await;
            let busy = outcome.as_ref().err().filter(|error| error.is_retryable()).map(not_tried);
            let _ = tell.send(outcome);
            if let Some(busy) = busy {
                // Neither are the others through, but after as long a wait for each of them.
                left.for_each(|waiting| drop(waiting.tell.send(Err(busy()))));
                return;
            }
        }
    }

    /// Commits these in one statement; those of which nothing is written are left.
    async fn together(&self, parts: Vec<Part>, way: Way) -> Vec<Part> {
        let appends: Vec<Append<'_>> = parts
            .iter()
            .flat_map(|(_, waiting)| waiting)
            .filter_map(|waiting| Append::of(&waiting.request))
            .collect();
        let sent = together(&self.session, &appends, way).await;
        drop(appends);
        let done = match sent {
            Ok(done) => done,
            Err(error) if error.write_state() == WriteState::Unknown => {
                tell_all(parts, &error);
                return Vec::new();
            }
            // Each of them would meet the same. They go again together, as each of them says how long.
            Err(error) if parts.len() == 1 && error.is_retryable() => {
                tell_all(parts, &error);
                return Vec::new();
            }
            Err(error) => {
                tracing::debug!(%error, tables = parts.len(), "commits do not go together");
                return parts;
            }
        };
        let mut by_table: HashMap<TableId, Vec<CommittedTable>> = HashMap::new();
        for done in done {
            by_table.entry(done.table_id).or_default().push(done);
        }
        let mut left = Vec::new();
        for (table, waiting) in parts {
            let Some(done) = by_table.remove(&table) else {
                left.push((table, waiting));
                continue;
            };
            // A table has all of its commits in the answer, or none.
            for (waiting, done) in waiting.into_iter().zip(done) {
                let done = Ok(CommitOutcome::Committed(vec![done]));
                // Whoever does not listen any more has dropped the call.
                let _ = waiting.tell.send(done);
            }
        }
        left
    }
}

/// Tells all of them what became of the statement that had their commits.
fn tell_all(parts: Vec<Part>, error: &CatalogError) {
    let message = text(error);
    for waiting in parts.into_iter().flat_map(|(_, waiting)| waiting) {
        let _ = waiting.tell.send(Err(CatalogError::Unavailable {
            message: message.clone(),
            retryable: error.is_retryable(),
            write: error.write_state(),
        }));
    }
}

/// What failed, without what follows from its kind, which it gets once more.
fn text(error: &CatalogError) -> String {
    match error {
        CatalogError::Unavailable { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// For those that were not sent because one before them met this.
fn not_tried(error: &CatalogError) -> impl Fn() -> CatalogError + use<> {
    let message =
        format!("a commit to the same table that came first did not get through: {}", text(error));
    move || CatalogError::busy(message.clone(), WriteState::NotApplied)
}

/// Commits a batch, with others that wait where it can.
pub(crate) async fn commit(
    session: &Arc<Session>,
    request: CommitRequest,
) -> Result<CommitOutcome> {
    let Some(table) = Append::of(&request).map(|append| append.table) else {
        return commit::commit_now(session, &request).await;
    };
    let request = Arc::new(request);
    let told = session.groups.queue().wait(table, &request);
    let Some(told) = told else {
        let _turn = Turn { session: Arc::clone(session), tables: vec![table], counted: true };
        return by_itself(session, &request).await;
    };
    match told.await {
        Ok(outcome) => outcome,
        Err(_) => Err(CatalogError::Unavailable {
            message: format!("the runtime ended while commits to database '{}' waited", session.at),
            retryable: true,
            write: WriteState::Unknown,
        }),
    }
}

/// Commits one append. The statement is the one for several: it is half of what any commit takes, which
/// finds out what is to be said where anything is not plain.
async fn by_itself(session: &Arc<Session>, request: &CommitRequest) -> Result<CommitOutcome> {
    // Without the function, who waits for other processes locks in a statement of its own: `commit` does so.
    let fits =
        |append: &Append<'_>| session.groups.has_function() || !session.contended.has(append.table);
    if let Some(append) = Append::of(request).filter(fits) {
        let way = to_one(session, append.table);
        match together(session, &[append], way).await {
            Ok(done) if !done.is_empty() => return Ok(CommitOutcome::Committed(done)),
            Ok(_) => {}
            // What is wrong, the other statement finds out.
            Err(error)
                if error.write_state() == WriteState::NotApplied && !error.is_retryable() =>
            {
                tracing::debug!(%error, "an append goes as any commit");
            }
            Err(error) => return Err(error),
        }
    }
    commit::commit_now(session, request).await
}

/// How appends to this table go. Counts a commit.
fn to_one(session: &Session, table: TableId) -> Way {
    let in_turn = session.contended.is(table) && session.groups.has_function();
    if in_turn { Way::InTurn } else { Way::Waiting }
}

/// Commits appends; each table's all, or none of them. Those that it answers, in their order.
async fn together(
    session: &Arc<Session>,
    appends: &[Append<'_>],
    way: Way,
) -> Result<Vec<CommittedTable>> {
    let mut call = schema::begin(session, "committing", Mode::WriteOne).await?;
    match send(&mut call, appends, way).await {
        Err(error) if error.is_unique_violation() => {
            call.end_rolled_back(Ok(())).await?;
            Ok(Vec::new())
        }
        // undefined_function, insufficient_privilege: it is done without.
        Err(error) if way == Way::InTurn && matches!(error.code(), Some("42883" | "42501")) => {
            session.groups.without_function();
            call.end_rolled_back(Ok(())).await?;
            Ok(Vec::new())
        }
        other => call.end(other).await,
    }
}
