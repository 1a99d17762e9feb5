//! The transaction that locks the tables first and then sends the statement, with a snapshot that is younger
//! than the locks. The rows of a large batch follow in the same transaction, in parts.

use deltalakedb_catalog_core::backend::CommitOutcome;
use deltalakedb_catalog_core::error::{CatalogError, WriteState};

use crate::errors::DbResult;
use crate::files::{FileWriter, first_missing, reported};
use crate::rows::Id;
use crate::session::{Args, Call, statements};

use super::columns::insert_chunks;
use super::known::Known;
use super::statement::{Batch, Part, Verdict};

statements! {
    LOCK: "SELECT t.id FROM {p}tables t WHERE t.id = ANY ($1::uuid[]) ORDER BY t.id FOR UPDATE",
    /// Takes what a large commit ended off the totals that its first statement wrote.
    CORRECT_TOTALS: "WITH corrected AS (
            UPDATE {p}tables SET head_files = head_files - $3,
                head_bytes = head_bytes - $4::text::numeric
            WHERE id = $1
            RETURNING table_key, head_files, head_bytes)
        UPDATE {p}commits c SET total_files = n.head_files,
            total_bytes = least(greatest(n.head_bytes, 0), 9223372036854775807)::int8,
            bytes_removed = $5
        FROM corrected n WHERE c.table_key = n.table_key AND c.version = $2",
}

/// Locks the tables and commits the batch, inside of a transaction.
pub(super) async fn commit(
    call: &mut Call,
    batch: &Batch<'_>,
    known: &Known,
) -> DbResult<CommitOutcome> {
    let ids: Vec<Id> = batch.parts.iter().map(|part| part.id.into()).collect();
    call.fetch(LOCK, Args::new().bind(&ids)).await?;
    let large = batch.is_large();
    let answer = batch.send(call, !large, known).await?;
    let outcome = match answer.verdict {
        Verdict::Final(outcome) | Verdict::FinalIfNew(outcome) => outcome,
        // Cannot be: the locks are older than the snapshot.
        Verdict::Again => {
            let what = "a head moved while its row was locked";
            return Err(CatalogError::busy(what, WriteState::NotApplied).into());
        }
    };
    if !large {
        return Ok(outcome);
    }
    let written = match outcome {
        CommitOutcome::Committed(written) => written,
        CommitOutcome::HeadMoved { index, .. } | CommitOutcome::Rejected { index, .. } => {
            // Removes were not looked at yet, and which table fails first is by its place.
            for (earlier, part) in batch.parts.iter().enumerate().take(index) {
                let removes = &part.commit.index.removes;
                if let Some(position) = first_missing(call, part.id, removes, &part.keys).await? {
                    return Ok(batch.not_active(earlier, position));
                }
            }
            return Ok(outcome);
        }
        CommitOutcome::Replayed(_) => return Ok(outcome),
    };
    for (index, (part, done)) in batch.parts.iter().zip(&written).enumerate() {
        let files_before = answer.files_before.get(index).copied().flatten();
        let version = done.version.get();
        if let Some(position) = write_part(call, part, version, files_before).await? {
            return Ok(batch.not_active(index, position));
        }
    }
    Ok(CommitOutcome::Committed(written))
}

/// Writes files and bytes of one table of a large batch, which had so many files. The position of the first
/// remove of a file that is not active, if there is one.
async fn write_part(
    call: &mut Call,
    part: &Part<'_>,
    version: i64,
    files_before: Option<i64>,
) -> DbResult<Option<usize>> {
    let index = &part.commit.index;
    let mut writer = FileWriter::new(call, part.id, version);
    if let Some(position) = writer.remove(&index.removes, &part.keys).await?.first() {
        return Ok(Some(*position));
    }
    writer.add(&index.adds, &part.keys, 0).await?;
    if let Some(later) = &part.commit.later {
        // Without any file in the table, none is in it already: those that the index adds are others.
        let active = files_before.unwrap_or(0) != writer.ended.files;
        writer.later(later, index.adds.len(), active).await?;
    }
    let ended = writer.ended;
    insert_chunks(call, part.id, version, &part.commit.rest.zstd).await?;
    let args = Args::of(part.id)
        .bind(version)
        .bind(ended.files)
        .bind(ended.bytes.to_string())
        .bind(reported(ended.bytes_removed));
    call.execute(CORRECT_TOTALS, args).await?;
    Ok(None)
}
