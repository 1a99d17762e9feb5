//! The versions that a token wrote.

use deltalakedb_catalog_core::backend::CommittedTable;
use deltalakedb_catalog_core::ids::CommitToken;

use crate::errors::DbResult;
use crate::rows::text::statements;
use crate::rows::{Reader, bytes};
use crate::session::{Lease, Sets};

statements! {
    TOKEN_IS_KNOWN: "SELECT COUNT(*) AS known FROM {p}batches WHERE token = @P1;
        SELECT table_id, version, timestamp_ms FROM {p}commits
        WHERE token = @P1 ORDER BY batch_position",
}

/// The versions that a token wrote; none if no commit with it took effect.
pub(crate) async fn resolve_token(
    lease: &mut Lease,
    token: &CommitToken,
) -> DbResult<Option<Vec<CommittedTable>>> {
    let values = vec![bytes(token.as_str().as_bytes())];
    let sets = lease.run(TOKEN_IS_KNOWN, values).await?;
    let known = sets.first().and_then(|rows| rows.first());
    let known = known.map(|row| Reader::new(row, "batches", None).i64(0)).transpose()?;
    if known.is_none_or(|known| known == 0) {
        return Ok(None);
    }
    committed_rows(&sets).map(Some)
}

/// The second result set: table, version and timestamp.
pub(crate) fn committed_rows(sets: &Sets) -> DbResult<Vec<CommittedTable>> {
    let mut done = Vec::new();
    for row in sets.get(1).into_iter().flatten() {
        let r = Reader::new(row, "commits", None);
        done.push(CommittedTable {
            table_id: r.id(0)?,
            version: r.version(1)?,
            timestamp: r.time(2)?,
        });
    }
    Ok(done)
}
