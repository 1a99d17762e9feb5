//! Commits: the one way from a call to its statement.
//!
//! [`Committer::commit`] is the door. It sends each commit in one of these ways:
//!
//! * Any batch, over any number of tables: one statement, a transaction by itself (`statement`). It is one
//!   round trip.
//! * A batch to a table that other processes write to, and a batch for which the statement could not decide: a
//!   transaction that locks the tables and then sends the same statement (`locked`). A statement that has
//!   waited for a row is evaluated anew, and its snapshot may be too old to decide; here neither happens.
//! * A batch with more rows or bytes than one statement takes: the same transaction, with the rows in parts
//!   after the statement. So every statement is bounded.
//! * A small append that reads nothing: a shorter statement (`append`), about half the work. It writes
//!   nothing where anything is not plain; then the append goes as any batch, which finds out why.
//! * Such an append to a table that other processes write to: the shorter statement inside of a function that
//!   locks the table first. That stays one round trip, and the statement is not evaluated anew.
//! * Such appends while their table or the connections are busy: all that wait share one shorter statement
//!   (`group`): one transaction and one sync of the server's disk for all of them.
//!
//! Below the door, `queue` says which appends wait and which turn is next, `group` runs the turns, `known`
//! remembers at which tables this process has waited for others, and `columns` has what imports write too.

mod append;
pub(crate) mod append_sql;
pub(crate) mod columns;
pub(crate) mod expire;
mod group;
mod known;
pub(crate) mod locked;
mod queue;
mod statement;
pub(crate) mod statement_sql;

use std::sync::Arc;

use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest, CommittedTable};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{CommitToken, TableId};
use deltalakedb_catalog_core::support::{check_shape, newest_batch};
use sqlx::Row;

use crate::errors::DbResult;
use crate::rows::Id;
use crate::schema;
use crate::session::{Args, Call, Mode, Session, statements};

use append::{Append, AppendStatement};
use group::Groups;
use known::Known;
use statement::{Batch, Verdict, committed};

statements! {
    RESOLVE: "SELECT (SELECT t.id FROM {p}tables t WHERE t.table_key = c.table_key), c.version, c.timestamp_ms,
            c.batch_position
        FROM {p}batches b LEFT JOIN {p}commits c ON c.token = b.token
        WHERE b.token = $1 ORDER BY c.batch_position",
}

/// Commits to one catalog.
#[derive(Debug)]
pub(crate) struct Committer {
    session: Arc<Session>,
    groups: Groups,
    known: Known,
}

impl Committer {
    pub(crate) fn new(session: &Arc<Session>) -> Arc<Committer> {
        Arc::new(Committer {
            groups: Groups::new(session.options.pool.max_connections),
            known: Known::default(),
            session: Arc::clone(session),
        })
    }

    /// Commits a batch.
    pub(crate) async fn commit(self: &Arc<Self>, request: CommitRequest) -> Result<CommitOutcome> {
        match Append::of(&request).map(|append| append.table) {
            // At once if its table and a connection are free, and with others if it has to wait.
            Some(table) => group::commit(self, table, request).await,
            None => self.commit_batch(&request).await,
        }
    }

    /// Commits one append whose turn it is.
    async fn commit_append(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        // Without the function, an append to a contended table locks it in a statement of its own, as any
        // batch does.
        let fits = |append: &Append<'_>| {
            self.known.has_function() || !self.known.is_contended(append.table)
        };
        let Some(append) = Append::of(request).filter(fits) else {
            return self.commit_batch(request).await;
        };
        let statement = self.statement_for_appends(append.table);
        match self.commit_appends(&[append], statement).await {
            Ok(done) if !done.is_empty() => return Ok(CommitOutcome::Committed(done)),
            Ok(_) => {}
            // The statement for any batch finds out what is wrong.
            Err(error)
                if error.write_state() == WriteState::NotApplied && !error.is_retryable() =>
            {
                tracing::debug!(%error, "an append goes as any commit");
            }
            Err(error) => return Err(error),
        }
        self.commit_batch(request).await
    }

    /// The statement for appends to one table. Counts a commit to it.
    fn statement_for_appends(&self, table: TableId) -> AppendStatement {
        if self.known.spend_contended(table) && self.known.has_function() {
            AppendStatement::OneTableInFunction
        } else {
            AppendStatement::OneTable
        }
    }

    /// Commits appends in one statement: of each table all, or none. Answers the committed ones, in their
    /// order.
    async fn commit_appends(
        &self,
        appends: &[Append<'_>],
        statement: AppendStatement,
    ) -> Result<Vec<CommittedTable>> {
        let mut call = schema::begin(&self.session, "committing", Mode::WriteOne).await?;
        match append::send(&mut call, appends, statement, &self.known).await {
            Err(error) if error.is_unique_violation() => {
                call.end_rolled_back(Ok(())).await?;
                Ok(Vec::new())
            }
            // undefined_function, insufficient_privilege: this program works without the function.
            Err(error)
                if statement == AppendStatement::OneTableInFunction
                    && matches!(error.code(), Some("42883" | "42501")) =>
            {
                self.known.note_no_function();
                call.end_rolled_back(Ok(())).await?;
                Ok(Vec::new())
            }
            other => call.end(other).await,
        }
    }

    /// Commits any batch, with no other.
    async fn commit_batch(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        if let Err(wrong) = check_shape(request) {
            return match self.find_token(&request.token).await? {
                Some(done) => Ok(CommitOutcome::Replayed(done)),
                None => Err(wrong),
            };
        }
        let batch = Batch::new(request);
        let contended = batch.only_table().is_some_and(|table| self.known.spend_contended(table));
        if batch.is_large() || contended {
            return self.commit_locked(&batch).await;
        }
        let mut call = schema::begin(&self.session, "committing", Mode::WriteOne).await?;
        let answer = batch.send(&mut call, true, &self.known).await;
        if let (Ok(answer), Some(table)) = (&answer, batch.only_table())
            && answer.waited
        {
            self.known.note_contended(table);
        }
        match answer.map(|answer| answer.verdict) {
            Ok(Verdict::Final(outcome)) => return call.end(Ok(outcome)).await,
            Ok(Verdict::FinalIfNew(outcome)) => {
                call.end(Ok(())).await?;
                let replayed = self.find_token(&request.token).await?;
                return Ok(replayed.map_or(outcome, CommitOutcome::Replayed));
            }
            Ok(Verdict::Again) => call.end_rolled_back(Ok(())).await?,
            Err(error) if error.is_unique_violation() => call.end_rolled_back(Ok(())).await?,
            Err(error) => return call.end(Err(error)).await,
        }
        self.commit_locked(&batch).await
    }

    /// Commits a batch in a transaction that locks its tables first.
    async fn commit_locked(&self, batch: &Batch<'_>) -> Result<CommitOutcome> {
        let mut call = schema::begin(&self.session, "committing", Mode::Write).await?;
        match locked::commit(&mut call, batch, &self.known).await {
            Ok(outcome @ CommitOutcome::Committed(_)) => call.end(Ok(outcome)).await,
            // The winner of a race has committed since we looked: the next try sees it.
            Err(error) if error.is_unique_violation() => {
                let busy = CatalogError::busy(
                    format!("another commit to database '{}' came first", self.session.at),
                    WriteState::NotApplied,
                );
                call.end_rolled_back(Err(busy.into())).await
            }
            other => call.end_rolled_back(other).await,
        }
    }

    async fn find_token(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        let doing = "looking up a commit token";
        let mut call = schema::begin(&self.session, doing, Mode::ReadOne).await?;
        let found = resolve_token(&mut call, token).await;
        call.end(found).await
    }
}

/// What a token wrote.
pub(crate) async fn resolve_token(
    call: &mut Call,
    token: &CommitToken,
) -> DbResult<Option<Vec<CommittedTable>>> {
    let rows = call.fetch(RESOLVE, Args::new().bind(token.as_str())).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut done = Vec::new();
    for row in &rows {
        if let Some(id) = row.try_get::<Option<Id>, _>(0)? {
            done.push((row.try_get(3)?, committed(row, id, 1, 2)?));
        }
    }
    Ok(Some(newest_batch(done)))
}
