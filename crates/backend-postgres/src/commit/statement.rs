//! The statement for any batch: its parameters, and what its answer says.
//!
//! # Why it is right
//!
//! The statement of `statement_sql.rs` runs in a transaction of its own at READ COMMITTED. Three facts
//! of PostgreSQL decide what may be built on
//! (<https://www.postgresql.org/docs/current/transaction-iso.html>,
//! <https://www.postgresql.org/docs/current/queries-with.html#QUERIES-WITH-MODIFYING>):
//!
//! 1. All parts of a statement read with one snapshot, taken before the first of them runs. None
//!    sees what another part writes: data flows between them through RETURNING only.
//! 2. `SELECT … FOR UPDATE` waits for whoever holds a row, then answers the row's *newest*
//!    version. All other tables are still read as of the snapshot: as they were before the wait.
//! 3. UPDATE finds rows by the snapshot, and where such a row was changed since, looks at its
//!    condition and computes its new values again on the newest version.
//!
//! So:
//!
//! * Rows of `tables` are locked first, in the order of their ids (no two commits wait for each
//!   other). Everything that decides about a head or is computed from it stands on that row.
//! * Every write takes its rows from `go`, which is empty unless every check of every table
//!   passed: all or nothing. A part that has nothing to write writes nothing.
//! * The row of `tables` is updated by its id alone: a condition on the old head would be looked
//!   at with the snapshot first (fact 3) and find nothing after a wait. The lock keeps others out,
//!   and whatever happens the primary key of `commits` admits one writer a version.
//! * Files are read with the snapshot. If the head that was locked is not the head of the snapshot
//!   (`stale`), a commit lies between that this statement cannot see. A `remove` is then not
//!   decided here but in a second transaction that takes its snapshot when it has the locks. An
//!   `add` needs no such care: the one thing that can go wrong is that its key is active without
//!   our seeing it, and `files_active` refuses that row, and with it the whole statement; the second
//!   transaction then sees and replaces it. An active row that we do see and that went meanwhile
//!   is not counted, as `ended` counts rows that were really updated (fact 3).
//! * The row of `mirror` is updated always, with a value computed from its newest version (fact
//!   3): a condition on `mode` or `pending_since_ms` would be looked at with the snapshot, and miss
//!   that publishing was switched on, or caught up, meanwhile.
//! * A token is looked up with the snapshot. If its twin commits meanwhile, either `batches` or
//!   another unique index refuses ours, or we waited for a row that the twin moved: `stale`. In each of
//!   these cases the token is looked up again before anything is answered.
//!
//! An error that the server answers means that nothing was written. Only if no answer comes at
//! all is the outcome unknown.

use std::collections::HashSet;

use deltalakedb_catalog_core::action::FileKey;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, HeadRule, Rejection, TableCommit,
};
use deltalakedb_catalog_core::commit::{CommitBody, FirstLine};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::later::LaterAdds;
use deltalakedb_catalog_core::model::MirrorMode;
use deltalakedb_catalog_core::support::{
    as_ordinal, body_len, count, end_of_time, newest_batch, stored_commit_info,
};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::errors::{DbError, DbResult};
use crate::files::{Adds, Keys, ROWS, Removes, reported};
use crate::rows::{Id, Reader, corrupt, to_json};
use crate::session::{Args, Call};

use super::columns::{BODY_BYTES, Chunks, DomainColumns, TxnColumns};
use super::known::Known;
use super::statement_sql::COMMIT;

/// What the statement says about the batch.
pub(super) enum Verdict {
    /// This is the outcome.
    Final(CommitOutcome),
    /// The head moved while the statement waited: this is the outcome unless the token was committed.
    FinalIfNew(CommitOutcome),
    /// The snapshot is too old to decide: the statement has to be sent again, with the locks held before.
    Again,
}

/// What the statement answers.
pub(super) struct Answer {
    pub(super) verdict: Verdict,
    /// Files of each table before the commit, where the table was there.
    pub(super) files_before: Vec<Option<i64>>,
    /// A head moved while the statement waited for its row.
    pub(super) waited: bool,
}

/// One table of a batch, with what is computed once however often it is sent.
pub(super) struct Part<'r> {
    pub(super) id: TableId,
    pub(super) commit: &'r TableCommit,
    pub(super) keys: Keys,
    /// An earlier part creates a table of this name.
    name_again: bool,
}

pub(super) struct Batch<'r> {
    request: &'r CommitRequest,
    pub(super) parts: Vec<Part<'r>>,
}

impl<'r> Batch<'r> {
    pub(super) fn new(request: &'r CommitRequest) -> Self {
        let mut names = HashSet::new();
        let parts = request.tables.iter().map(|commit| {
            let (id, name_again) = match &commit.target {
                CommitTarget::Create(new) => (new.id, !names.insert(&new.name)),
                CommitTarget::Existing { table_id, .. } => (*table_id, false),
            };
            let keys = Keys::of(&commit.index.adds, &commit.index.removes);
            Part { id, commit, keys, name_again }
        });
        Batch { request, parts: parts.collect() }
    }

    /// The table, if it is one that exists already and the only one.
    pub(super) fn only_table(&self) -> Option<TableId> {
        match self.request.tables.as_slice() {
            [TableCommit { target: CommitTarget::Existing { table_id, .. }, .. }] => {
                Some(*table_id)
            }
            _ => None,
        }
    }

    pub(super) fn is_large(&self) -> bool {
        let (mut rows, mut bytes) = (0_usize, 0_usize);
        for part in &self.parts {
            let index = &part.commit.index;
            rows = rows.saturating_add(index.adds.len()).saturating_add(index.removes.len());
            bytes = bytes.saturating_add(part.commit.rest.zstd.len());
        }
        let in_pages = self.parts.iter().any(|part| part.commit.later.is_some());
        rows > ROWS || bytes > BODY_BYTES || in_pages
    }

    pub(super) fn not_active(&self, index: usize, position: usize) -> CommitOutcome {
        let removes = &self.parts[index].commit.index.removes;
        let FileKey { path, dv_id } = removes[position].key();
        CommitOutcome::Rejected { index, reason: Rejection::FileNotActive { path, dv_id } }
    }

    /// Parameters of `COMMIT`, in the order of its comment. `whole`: with files and bytes.
    fn args(&self, whole: bool) -> DbResult<Args> {
        let separator = separator(self.parts.iter().map(|part| &part.commit.first_line))?;
        let mut t = PartColumns::default();
        let mut chunks = Chunks::default();
        let mut txns = TxnColumns::default();
        let mut domains = DomainColumns::default();
        let (mut removes, mut adds) = (Removes::default(), Adds::default());
        for (number, part) in (0_i32..).zip(&self.parts) {
            t.push(part, &separator)?;
            let index = &part.commit.index;
            txns.push(number, &index.txns);
            domains.push(number, &index.domain_metadata);
            if !whole {
                continue;
            }
            chunks.push(number, &part.commit.rest.zstd);
            for (position, remove) in index.removes.iter().enumerate() {
                if !part.keys.again.contains(&position) {
                    removes.push(number, position, remove)?;
                }
            }
            adds.push(number, &index.adds, &part.keys, 0, 0)?;
        }
        let mut args = Args::new()
            .bind(self.request.token.as_str())
            .bind(self.request.now.0)
            .bind(separator.as_str());
        args = t.bind(args, whole);
        args = args.bind(&chunks.commits).bind(&chunks.positions).bind(&chunks.bodies);
        args = domains.bind(txns.bind(args));
        args = removes.bind_values(args.bind(&removes.tables).bind(&removes.positions));
        args = args.bind(&adds.tables).bind(&adds.ordinals).bind(&adds.ended).bind(&adds.replaces);
        Ok(adds.bind_values(args))
    }

    /// Sends the statement. `whole`: with files and bytes.
    pub(super) async fn send(
        &self,
        call: &mut Call,
        whole: bool,
        known: &Known,
    ) -> DbResult<Answer> {
        let rows = call.fetch(COMMIT, self.args(whole)?).await?;
        let mut files_before = Vec::with_capacity(rows.len());
        for row in &rows {
            let files: Option<i64> = row.try_get(8)?;
            known.note_commit(
                &call.session,
                files.unwrap_or(0),
                row.try_get::<Option<i64>, _>(4)?.unwrap_or(0),
            );
            files_before.push(files);
        }
        let waited = rows.iter().any(|row| row.try_get(7).unwrap_or(false));
        Ok(Answer { verdict: self.verdict(&rows)?, files_before, waited })
    }

    /// What the rows of `COMMIT` say.
    fn verdict(&self, rows: &[PgRow]) -> DbResult<Verdict> {
        let mut done = Vec::with_capacity(rows.len());
        let mut written = Vec::new();
        let mut replayed = false;
        let mut refused: Option<CommitOutcome> = None;
        let mut stale = false;
        for row in rows {
            let problem: Option<&str> = row.try_get(1)?;
            let id: Option<Id> = row.try_get(2)?;
            stale |= row.try_get::<bool, _>(7)?;
            let Some(id) = id else {
                // A token that is known and wrote nothing that is left.
                replayed = true;
                continue;
            };
            let table_id = TableId(id.0);
            let index = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
            let rejected = |reason| CommitOutcome::Rejected { index, reason };
            let outcome = match problem {
                None => {
                    done.push(committed(row, id, 4, 5)?);
                    continue;
                }
                Some("replayed") => {
                    replayed = true;
                    written.push((row.try_get(0)?, committed(row, id, 4, 5)?));
                    continue;
                }
                Some("stale") => return Ok(Verdict::Again),
                Some("moved") => {
                    let head = Version::new(row.try_get(3)?)?;
                    CommitOutcome::HeadMoved { index, head }
                }
                Some("id") => rejected(Rejection::IdTaken(table_id)),
                Some("none") => rejected(Rejection::TableNotFound(table_id)),
                Some("name") => match &self.request.tables[index].target {
                    CommitTarget::Create(new) => rejected(Rejection::NameTaken(new.name.clone())),
                    CommitTarget::Existing { .. } => rejected(Rejection::TableNotFound(table_id)),
                },
                Some("file") => {
                    let position: i64 = row.try_get(6)?;
                    self.not_active(index, usize::try_from(position).unwrap_or(0))
                }
                Some("time") => {
                    if refused.is_none() {
                        return if stale {
                            Ok(Verdict::Again)
                        } else {
                            Err(end_of_time(table_id).into())
                        };
                    }
                    continue;
                }
                Some(other) => return Err(corrupt(table_id, None, "answer to a commit", other)),
            };
            refused.get_or_insert(outcome);
        }
        Ok(match refused {
            _ if replayed => Verdict::Final(CommitOutcome::Replayed(newest_batch(written))),
            None => Verdict::Final(CommitOutcome::Committed(done)),
            Some(outcome) if !stale => Verdict::Final(outcome),
            Some(outcome @ CommitOutcome::HeadMoved { .. }) => Verdict::FinalIfNew(outcome),
            Some(_) => Verdict::Again,
        })
    }
}

/// One committed table in a row of an answer.
pub(super) fn committed(
    row: &PgRow,
    id: Id,
    version: usize,
    timestamp: usize,
) -> DbResult<CommittedTable> {
    let called = id.0.to_string();
    let r = Reader::new(row, &called, None);
    Ok(CommittedTable {
        table_id: TableId(id.0),
        version: r.version(version)?,
        timestamp: TimestampMs(r.get(timestamp)?),
    })
}

/// A character that is in no first line: it stands for the timestamp, which only the transaction
/// knows. JSON has no control characters, so the first of them will do.
pub(super) fn separator<'l>(
    lines: impl Iterator<Item = &'l FirstLine> + Clone,
) -> DbResult<String> {
    ('\u{1}'..'\u{20}')
        .chain('\u{e000}'..'\u{f8ff}')
        .find(|c| !lines.clone().any(|line| line.parts().iter().any(|part| part.contains(*c))))
        .map(String::from)
        .ok_or_else(|| {
            DbError::Catalog(CatalogError::invalid(
                "the first line of a commit contains every character of the private use area",
            ))
        })
}

/// Columns of the tables of a batch.
#[derive(Default)]
struct PartColumns<'r> {
    ids: Vec<Id>,
    creates: Vec<bool>,
    expected: Vec<Option<i64>>,
    since: Vec<Option<i64>>,
    namespaces: Vec<Option<&'r str>>,
    names: Vec<Option<&'r str>>,
    names_again: Vec<bool>,
    locations: Vec<Option<&'r str>>,
    storage_options: Vec<Option<String>>,
    modes: Vec<Option<&'static str>>,
    first_lines: Vec<String>,
    commit_infos: Vec<Option<&'r str>>,
    body_lens: Vec<i64>,
    num_added: Vec<i64>,
    num_removed: Vec<i64>,
    bytes_added: Vec<i64>,
    live_files: Vec<i64>,
    live_bytes: Vec<String>,
    again: Vec<Option<i64>>,
    protocols: Vec<Option<String>>,
    metadata: Vec<Option<String>>,
}

impl<'r> PartColumns<'r> {
    fn push(&mut self, part: &Part<'r>, separator: &str) -> DbResult<()> {
        let index = &part.commit.index;
        let mut new = None;
        let (mut expected, mut since) = (None, None);
        match &part.commit.target {
            CommitTarget::Create(table) => new = Some(table),
            CommitTarget::Existing { rule: HeadRule::Exactly(version), .. } => {
                expected = Some(version.get());
            }
            CommitTarget::Existing { rule: HeadRule::Append { since: version }, .. } => {
                since = Some(version.get());
            }
        }
        self.ids.push(part.id.into());
        self.creates.push(new.is_some());
        self.expected.push(expected);
        self.since.push(since);
        self.namespaces.push(new.map(|new| new.name.namespace()));
        self.names.push(new.map(|new| new.name.name()));
        self.names_again.push(part.name_again);
        self.locations.push(new.map(|new| new.location.as_str()));
        self.storage_options.push(new.map(|new| to_json(&new.storage_options)).transpose()?);
        self.modes.push(new.map(|new| MirrorMode::as_str(new.mirror)));
        let line = &part.commit.first_line;
        self.first_lines.push(line.parts().join(separator));
        // Whether it is a commitInfo does not depend on the timestamp in it.
        let body = CommitBody {
            first_line: Some(line.render(TimestampMs(0))),
            rest: part.commit.rest.clone(),
        };
        self.commit_infos.push(stored_commit_info(&body, index));
        self.body_lens.push(body_len(&body));
        let later = part.commit.later.as_ref();
        let later_bytes = i128::from(later.map_or(0, LaterAdds::bytes));
        self.num_added.push(count(part.commit.num_added()));
        self.num_removed.push(count(index.removes.len()));
        let bytes: i128 = index.adds.iter().map(|a| i128::from(a.size)).sum();
        self.bytes_added.push(reported(bytes + later_bytes));
        let later_files = count(later.map_or(0, LaterAdds::files));
        self.live_files.push(part.keys.live_files.saturating_add(later_files));
        self.live_bytes.push((part.keys.live_bytes + later_bytes).to_string());
        let again = part.keys.again.first().map(|position| as_ordinal(*position)).transpose()?;
        self.again.push(again);
        self.protocols.push(index.protocol.as_ref().map(to_json).transpose()?);
        self.metadata.push(index.metadata.as_ref().map(to_json).transpose()?);
        Ok(())
    }

    fn bind(&self, args: Args, whole: bool) -> Args {
        let nothing_again = vec![None::<i64>; self.again.len()];
        args.bind(&self.ids)
            .bind(&self.creates)
            .bind(&self.expected)
            .bind(&self.since)
            .bind(&self.namespaces)
            .bind(&self.names)
            .bind(&self.names_again)
            .texts_opt("location", &self.locations)
            .bind(&self.storage_options)
            .bind(&self.modes)
            .owned_texts("the first line of the commit", &self.first_lines)
            .texts_opt("commitInfo", &self.commit_infos)
            .bind(&self.body_lens)
            .bind(&self.num_added)
            .bind(&self.num_removed)
            .bind(&self.bytes_added)
            .bind(&self.live_files)
            .bind(&self.live_bytes)
            .bind(if whole { &self.again } else { &nothing_again })
            .bind(&self.protocols)
            .bind(&self.metadata)
    }
}
