//! Tokens of old commits are forgotten.

use deltalakedb_catalog_core::backend::{Expired, Expiry};
use deltalakedb_catalog_core::ids::CommitToken;
use deltalakedb_catalog_core::support::{fetch_limit, page};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::errors::DbResult;
use crate::session::{Args, Call, statements};

/// When the newest commit of a token was made: never yet, for one of a table that is imported. A subquery of
/// its own, so that it looks into the index for each token, however many commits there are.
macro_rules! newest {
    () => {
        "coalesce((SELECT max(CASE t.state WHEN 'importing' THEN 9223372036854775807
                ELSE c.timestamp_ms END)
            FROM {p}commits c JOIN {p}tables t ON t.table_key = c.table_key
            WHERE c.token = b.token), b.committed_at_ms)"
    };
}

statements! {
    /// Tokens after $1, and whether all of their commits are older than $2.
    TOKENS: concat!("SELECT b.token, b.committed_at_ms < $2 AND ", newest!(), " < $2
        FROM {p}batches b WHERE b.token > $1 ORDER BY b.token LIMIT $3"),
    /// An import that has just found a token known holds its row: that token stays.
    TAKE_TOKENS: "SELECT b.token FROM {p}batches b WHERE b.token = ANY ($1::text[])
        ORDER BY b.token FOR UPDATE SKIP LOCKED",
    DELETE_BATCHES: concat!("DELETE FROM {p}batches b
        WHERE b.token = ANY ($1::text[]) AND b.committed_at_ms < $2 AND ", newest!(), " < $2
        RETURNING b.token"),
    FORGET_TOKENS: "UPDATE {p}commits SET token = NULL, batch_position = NULL
        WHERE token = ANY ($1::text[])",
}

/// Forgets old tokens, or counts them.
///
/// Whoever looks a token up does so in one statement, and sees all of it or nothing. The rows of the tokens are
/// locked before they are looked at again: an import that finds a token known locks that row, too, so either its
/// commits are seen here, or it comes later and makes the token known anew. No commit waits for a row that is
/// changed here, but one with such a token.
pub(crate) async fn tokens(
    call: &mut Call,
    expiry: Expiry,
    after: Option<&CommitToken>,
) -> DbResult<Expired<CommitToken>> {
    let args = Args::new()
        .bind(after.map_or("", CommitToken::as_str))
        .bind(expiry.before.0)
        .bind(fetch_limit(expiry.limit));
    let mut found: Vec<(String, bool)> = Vec::new();
    for row in &call.fetch(TOKENS, args).await? {
        found.push((row.try_get(0)?, row.try_get(1)?));
    }
    let found = page(found, expiry.limit, |(token, _)| token.clone());
    let next = found.next.map(CommitToken::new).transpose()?;
    let mut old: Vec<String> =
        found.items.into_iter().filter(|(_, is_old)| *is_old).map(|(token, _)| token).collect();
    if !expiry.dry_run && !old.is_empty() {
        old = texts(&call.fetch(TAKE_TOKENS, Args::new().bind(&old)).await?)?;
        let args = Args::new().bind(&old).bind(expiry.before.0);
        old = texts(&call.fetch(DELETE_BATCHES, args).await?)?;
        call.execute(FORGET_TOKENS, Args::new().bind(&old)).await?;
    }
    Ok(Expired { removed: u64::try_from(old.len()).unwrap_or(u64::MAX), next })
}

fn texts(rows: &[PgRow]) -> DbResult<Vec<String>> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
