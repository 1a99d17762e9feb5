//! The commit, from the call to its SQL.
//!
//! # Two ways
//!
//! A commit goes as one batch of T-SQL if it fits into a request ([`batch`]): one round trip, so
//! rows stay locked for no trip between client and server. It does not fit if it has more
//! parameters, bytes, removes or tables than a request takes. Then it goes in several requests
//! inside of one transaction ([`staged`]), and many new files go by the bulk protocol. Both ways
//! write the same rows, and decide by the same conditions.
//!
//! # Isolation
//!
//! What follows holds at READ COMMITTED with row versions or without, and whatever hints do. A
//! commit's first statement on a table is the `UPDATE` of its row in `{p}tables` with the condition
//! on the head in its `WHERE`. An `UPDATE` waits for others that change the row and then looks at
//! the row that they committed. So of several commits to one table each sees the heads before it,
//! and a commit whose condition no longer holds changes nothing. The row stays locked to the end:
//! no other transaction writes rows of this table.
//!
//! Tables are taken in the order of their ids, so two commits do not wait for each other. Should a
//! deadlock come about all the same, it is a retryable error and nothing is written. Tokens, names,
//! ids and versions are primary keys or unique indexes: a race that got past the look at them ends
//! as a duplicate key, never as two rows.

pub(crate) mod batch;
mod heads;
mod request;
pub(crate) mod staged;
pub(crate) mod token;
pub(crate) mod version;

use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, Rejection, request_in_memory,
};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::support::check_shape;

use crate::MssqlBackend;
use crate::errors::{DbError, DbResult};
use crate::session::Session;
use crate::tables::{live_name, state_of};

pub(crate) use token::{expire_tokens, resolve_token};
pub(crate) use version::{Head, NewVersion, insert_chunks, write_projection, write_version};

impl MssqlBackend {
    /// Commits a request.
    pub(crate) async fn commit_request(&self, request: CommitRequest) -> Result<CommitOutcome> {
        let request = request_in_memory(request).await?;
        let answer = Box::pin(commit(&self.session, &request)).await;
        let error = match answer {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        if error.is_missing() {
            let mut lease = self.lease("committing").await?;
            return self.explain(&mut lease, "committing", Err(error)).await;
        }
        Err(error.into_catalog(self.session.place(), "committing"))
    }
}

/// Commits a request, as one batch or staged. The error does not name the place and the call yet.
async fn commit(session: &Session, request: &CommitRequest) -> DbResult<CommitOutcome> {
    if let Err(error) = check_shape(request) {
        let mut lease = session.lease().await?;
        return match resolve_token(&mut lease, &request.token).await? {
            Some(done) => Ok(CommitOutcome::Replayed(done)),
            None => Err(error.into()),
        };
    }
    let plan = batch::Plan::new(request)?;
    let answer = match plan.batch(session)? {
        Some(batch) => {
            let mut lease = session.lease().await?;
            Box::pin(plan.send(&mut lease, batch)).await
        }
        // It is too large for one request.
        None => Box::pin(staged::commit(session, request)).await,
    };
    match answer {
        Err(error) if error.is_duplicate() => Box::pin(lost_race(session, request, error)).await,
        other => other,
    }
}

/// The answer to a commit that met a duplicate key: the token, a name, or an id was there already.
/// Nothing of this request was written.
async fn lost_race(
    session: &Session,
    request: &CommitRequest,
    error: DbError,
) -> DbResult<CommitOutcome> {
    let mut lease = session.lease().await?;
    if let Some(done) = resolve_token(&mut lease, &request.token).await? {
        return Ok(CommitOutcome::Replayed(done));
    }
    for (index, part) in request.tables.iter().enumerate() {
        let CommitTarget::Create(new) = &part.target else { continue };
        let reason = if state_of(&mut lease, new.id).await?.is_some() {
            Rejection::IdTaken(new.id)
        } else if live_name(&mut lease, &new.name).await?.is_some() {
            Rejection::NameTaken(new.name.clone())
        } else {
            continue;
        };
        return Ok(CommitOutcome::Rejected { index, reason });
    }
    // The other row is gone again: the same request may succeed now.
    let message = error.into_catalog(session.place(), "committing").to_string();
    Err(CatalogError::busy(message, WriteState::NotApplied).into())
}
