//! Appends that wait go together: one statement, one transaction, one sync of the server's disk.
//!
//! An append whose table is free is committed at once. Appends that come meanwhile wait in this process, and
//! when the first is through all of them go in one statement: the first gets the next version, and so on.
//! Only appends take part, small ones that read nothing: whatever happened to the table, short of a change
//! of its metadata or protocol, they go on top of any head, in any order.
//!
//! No more than half of the pool's connections commit appends at a time. Tables whose turn would be the next
//! one wait, and all of them go in one statement too. It passes over tables that another process holds, and
//! over those where anything is not plain: they get turns of their own, so that no table waits for another;
//! but no more of these at a time than a quarter of the connections, so that some are left to readers.
//!
//! The statement for one table writes all of its commits or none. It writes none where anything about it is
//! not plain: a token that is known, a file that is in the table already, a table that is gone, a barrier that
//! moved. Then each commit goes by itself, which finds out what is to be said about it: one after the other,
//! in the turn that they wait in, so that they never hold more than its connection. Where the database is
//! busy, all of them are told so. Why the statement is right is said in `statement`: it stands on the same
//! facts, and on the same row.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest, CommittedTable};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::TableId;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::Committer;
use super::append::{Append, AppendStatement};
use super::queue::{Queue, TableAppends, Waiting};

/// The appends that wait.
#[derive(Debug)]
pub(super) struct Groups {
    queue: Mutex<Queue>,
    /// Turns of tables that a statement for several has passed over.
    passed_over: Semaphore,
}

impl Groups {
    /// Of a pool with so many connections.
    pub(super) fn new(max_connections: u32) -> Groups {
        let share = |of: u32| usize::try_from(max_connections / of).unwrap_or(usize::MAX);
        Groups {
            queue: Mutex::new(Queue::new(share(2))),
            passed_over: Semaphore::new(share(4).clamp(1, Semaphore::MAX_PERMITS)),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn at tables. However the turn ends, the appends that wait go next.
struct Turn {
    committer: Arc<Committer>,
    tables: Vec<TableId>,
    /// Whether the queue counts this turn.
    counted: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let alone = |table| self.committer.known.is_contended(table);
        let next = self.committer.groups.queue().end(&self.tables, self.counted, alone);
        for parts in next {
            Turn::start(&self.committer, parts, true);
        }
    }
}

impl Turn {
    fn start(committer: &Arc<Committer>, parts: Vec<TableAppends>, counted: bool) {
        let tables = parts.iter().map(|(table, _)| *table).collect();
        let turn = Turn { committer: Arc::clone(committer), tables, counted };
        // Without a runtime nobody can run the turn: the end of `parts` tells the commits that wait.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(turn.go(parts));
        } else {
            drop(parts);
        }
    }

    /// Commits these appends; the rest of the queue follows when the turn ends.
    async fn go(mut self, mut parts: Vec<TableAppends>) {
        let committer = Arc::clone(&self.committer);
        let _one_of_few = if self.counted {
            None
        } else {
            // The semaphore is never closed.
            committer.groups.passed_over.acquire().await.ok()
        };
        for (_, waiting) in &mut parts {
            // A commit whose caller gave up is not sent any more.
            waiting.retain(|waiting| !waiting.answer.is_closed());
        }
        parts.retain(|(_, waiting)| !waiting.is_empty());
        if parts.len() <= 1 {
            for part in parts {
                self.commit_one_table(part).await;
            }
            return;
        }
        for part in self.commit_together(parts, AppendStatement::SeveralTables).await {
            // A table that was passed over gets a turn of its own: no other table waits for it there.
            self.tables.retain(|table| *table != part.0);
            Turn::start(&self.committer, vec![part], false);
        }
    }

    /// Commits appends to one table.
    async fn commit_one_table(&self, (table, mut waiting): TableAppends) {
        if waiting.len() == 1
            && let Some(Waiting { request, answer }) = waiting.pop()
        {
            let outcome = self.committer.commit_append(&request).await;
            let _ = answer.send(outcome);
            return;
        }
        let statement = self.committer.statement_for_appends(table);
        let left = self.commit_together(vec![(table, waiting)], statement).await;
        let mut left = left.into_iter().flat_map(|(_, waiting)| waiting);
        while let Some(Waiting { request, answer }) = left.next() {
            if answer.is_closed() {
                continue;
            }
            let outcome = self.committer.commit_batch(&request).await;
            let busy = outcome.as_ref().err().filter(|error| error.is_retryable()).map(not_tried);
            let _ = answer.send(outcome);
            if let Some(busy) = busy {
                // The others would meet the same, each after as long a wait.
                left.for_each(|waiting| drop(waiting.answer.send(Err(busy()))));
                return;
            }
        }
    }

    /// Commits these appends in one statement. Answers the tables for which nothing was written.
    async fn commit_together(
        &self,
        parts: Vec<TableAppends>,
        statement: AppendStatement,
    ) -> Vec<TableAppends> {
        let appends: Vec<Append<'_>> = parts
            .iter()
            .flat_map(|(_, waiting)| waiting)
            .filter_map(|waiting| Append::of(&waiting.request))
            .collect();
        let sent = self.committer.commit_appends(&appends, statement).await;
        drop(appends);
        let done = match sent {
            Ok(done) => done,
            Err(error) if error.write_state() == WriteState::Unknown => {
                tell_all(parts, &error);
                return Vec::new();
            }
            // Each commit by itself would meet the same. Each caller is told when to try again, and then they go
            // together again.
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
                // A caller that does not listen any more has dropped the call.
                let _ = waiting.answer.send(done);
            }
        }
        left
    }
}

/// Tells all callers what became of the statement that had their commits.
fn tell_all(parts: Vec<TableAppends>, error: &CatalogError) {
    let message = text(error);
    for waiting in parts.into_iter().flat_map(|(_, waiting)| waiting) {
        let _ = waiting.answer.send(Err(CatalogError::Unavailable {
            message: message.clone(),
            retryable: error.is_retryable(),
            write: error.write_state(),
        }));
    }
}

/// What failed, without the hint of the error's kind: the new error adds it again.
fn text(error: &CatalogError) -> String {
    match error {
        CatalogError::Unavailable { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// The error for commits that were not sent because one before them met this error.
fn not_tried(error: &CatalogError) -> impl Fn() -> CatalogError + use<> {
    let message =
        format!("a commit to the same table that came first did not get through: {}", text(error));
    move || CatalogError::busy(message.clone(), WriteState::NotApplied)
}

/// Commits an append to this table: at once if its turn is now, else with those that wait for the table.
pub(super) async fn commit(
    committer: &Arc<Committer>,
    table: TableId,
    request: CommitRequest,
) -> Result<CommitOutcome> {
    let request = Arc::new(request);
    let outcome = committer.groups.queue().wait(table, &request);
    let Some(outcome) = outcome else {
        let _turn = Turn { committer: Arc::clone(committer), tables: vec![table], counted: true };
        return committer.commit_append(&request).await;
    };
    match outcome.await {
        Ok(outcome) => outcome,
        Err(_) => Err(CatalogError::Unavailable {
            message: format!(
                "the runtime ended while commits to database '{}' waited",
                committer.session.at
            ),
            retryable: true,
            write: WriteState::Unknown,
        }),
    }
}
