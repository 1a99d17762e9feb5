//! The versions that a token wrote.

use deltalakedb_catalog_core::backend::{CommittedTable, Expired, Expiry};
use deltalakedb_catalog_core::ids::CommitToken;
use deltalakedb_catalog_core::support::{newest_batch, page};
use tiberius::Row;

use crate::errors::DbResult;
use crate::rows::text::statements;
use crate::rows::{Reader, big, bytes};
use crate::session::Lease;
use crate::tables::{bounded, fetch};

statements! {
    /// Whether it is known, and what it wrote: one statement, so that no other transaction comes between
    /// the two.
    WRITTEN: "SELECT c.table_id, c.version, c.timestamp_ms, c.batch_position
        FROM {p}batches b LEFT JOIN {p}commits c ON c.token = b.token
        WHERE b.token = @P1 ORDER BY c.batch_position",
    /// Tokens after @P1, and whether all of their commits are older than @P2. One of a table that is
    /// imported is as new as can be.
    TOKENS: "SELECT TOP (@P3) b.token, CASE WHEN b.committed_at_ms < @P2 AND COALESCE((
                SELECT MAX(CASE t.state WHEN N'importing' THEN 9223372036854775807 ELSE c.timestamp_ms END)
                FROM {p}commits c JOIN {p}tables t ON t.id = c.table_id
                WHERE c.token = b.token), b.committed_at_ms) < @P2 THEN 1 ELSE 0 END AS old
        FROM {p}batches b WHERE b.token > @P1 ORDER BY b.token",
    /// The row is locked first: an import that finds the token known locks it, too.
    FORGET: "SET NOCOUNT ON; DECLARE @n BIGINT, @newest BIGINT;
        UPDATE {p}batches SET committed_at_ms = committed_at_ms WHERE token = @P1;
        SET @n = @@ROWCOUNT;
        SELECT @newest = MAX(CASE t.state WHEN N'importing' THEN 9223372036854775807
            ELSE c.timestamp_ms END)
        FROM {p}commits c JOIN {p}tables t ON t.id = c.table_id WHERE c.token = @P1;
        IF @newest >= @P2 SET @n = 0;
        IF @n > 0
        BEGIN
            UPDATE {p}commits SET token = NULL, batch_position = NULL WHERE token = @P1;
            DELETE FROM {p}batches WHERE token = @P1
        END;
        SELECT @n AS changed",
}

/// Forgets old tokens, or counts them.
pub(crate) async fn expire_tokens(
    lease: &mut Lease,
    expiry: Expiry,
    after: Option<&CommitToken>,
) -> DbResult<Expired<CommitToken>> {
    let after = after.map_or("", CommitToken::as_str);
    let values = vec![bytes(after.as_bytes()), big(expiry.before.0), fetch(expiry.limit)];
    let mut found = Vec::new();
    for row in lease.run(TOKENS, values).await?.iter().flatten() {
        let r = Reader::new(row, "batches", None);
        let token = r.opt_token(0)?.ok_or_else(|| r.corrupt(0, "it is null"))?;
        found.push((token, r.i64(1)? != 0));
    }
    let found = page(found, bounded(expiry.limit), |(token, _)| token.clone());
    let mut removed = 0;
    for (token, _) in found.items.iter().filter(|(_, is_old)| *is_old) {
        if expiry.dry_run {
            removed += 1;
            continue;
        }
        let values = vec![bytes(token.as_str().as_bytes()), big(expiry.before.0)];
        let sets = lease.run(FORGET, values).await?;
        let changed = sets.first().and_then(|rows| rows.first());
        let changed = changed.map(|row| Reader::new(row, "batches", None).i64(0)).transpose()?;
        removed += u64::from(changed.is_some_and(|changed| changed > 0));
    }
    Ok(Expired { removed, next: found.next })
}

/// The versions that a token wrote; none if no commit with it took effect.
pub(crate) async fn resolve_token(
    lease: &mut Lease,
    token: &CommitToken,
) -> DbResult<Option<Vec<CommittedTable>>> {
    let values = vec![bytes(token.as_str().as_bytes())];
    let sets = lease.run(WRITTEN, values).await?;
    if sets.first().is_none_or(Vec::is_empty) {
        return Ok(None);
    }
    committed_rows(sets.first()).map(Some)
}

/// Rows of table, version and timestamp; nulls, for a token that is known and wrote nothing that is left.
pub(crate) fn committed_rows(rows: Option<&Vec<Row>>) -> DbResult<Vec<CommittedTable>> {
    let mut done = Vec::new();
    for row in rows.into_iter().flatten() {
        let r = Reader::new(row, "commits", None);
        if r.opt_i64(1)?.is_none() {
            continue;
        }
        let written =
            CommittedTable { table_id: r.id(0)?, version: r.version(1)?, timestamp: r.time(2)? };
        done.push((r.i64(3)?, written));
    }
    Ok(newest_batch(done))
}
