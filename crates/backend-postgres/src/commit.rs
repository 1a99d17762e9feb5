//! The commit: one statement for any number of tables.
//!
//! # Why it is right
//!
//! The statement of `commit_sql.rs` runs in a transaction of its own at READ COMMITTED. Three facts
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

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use deltalakedb_catalog_core::action::FileKey;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, HeadRule, Rejection, TableCommit,
};
use deltalakedb_catalog_core::commit::{CommitBody, FirstLine};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TimestampMs, Version};
use deltalakedb_catalog_core::later::LaterAdds;
use deltalakedb_catalog_core::model::MirrorMode;
use deltalakedb_catalog_core::support::{
    CHUNK_BYTES, as_ordinal, body_len, check_shape, count, end_of_time, stored_commit_info,
};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::commit_sql::COMMIT;
use crate::errors::{DbError, DbResult};
use crate::files::{Adds, Digest, FileWriter, Keys, ROWS, Removes, first_missing, reported};
use crate::rows::{Id, Reader, corrupt, to_json};
use crate::schema;
use crate::session::{Args, Call, Mode, Session, statements};

/// Compressed bytes of bodies that travel in the one statement; larger ones in their own.
pub(crate) const BODY_BYTES: usize = 16 << 20;

// Statements that commit.
statements! {
    LOCK: "SELECT t.id FROM {p}tables t WHERE t.id = ANY ($1::uuid[]) ORDER BY t.id FOR UPDATE",
    RESOLVE: "SELECT c.table_id, c.version, c.timestamp_ms
        FROM {p}batches b LEFT JOIN {p}commits c ON c.token = b.token
        WHERE b.token = $1 ORDER BY c.batch_position",
    INSERT_CHUNKS: "INSERT INTO {p}commit_chunks (table_id, version, chunk_no, body)
        SELECT $1, $2, k.chunk_no, k.body
        FROM unnest($3::int8[], $4::bytea[]) AS k (chunk_no, body)",
    /// Takes what a large commit ended off the totals that its first statement wrote.
    CORRECT_TOTALS: "WITH corrected AS (
            UPDATE {p}tables SET head_files = head_files - $3,
                head_bytes = head_bytes - $4::text::numeric
            WHERE id = $1
            RETURNING head_files, head_bytes)
        UPDATE {p}commits c SET total_files = n.head_files,
            total_bytes = least(greatest(n.head_bytes, 0), 9223372036854775807)::int8,
            bytes_removed = $5
        FROM corrected n WHERE c.table_id = $1 AND c.version = $2",
}

/// What the statement answers.
enum Verdict {
    Final(CommitOutcome),
    /// The head moved while the statement waited: final unless the token was committed.
    FinalIfNew(CommitOutcome),
    /// It has to be asked again, with the locks held before.
    Again,
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
            done.push(committed(row, id, 1, 2)?);
        }
    }
    Ok(Some(done))
}

fn committed(row: &PgRow, id: Id, version: usize, timestamp: usize) -> DbResult<CommittedTable> {
    let called = id.0.to_string();
    let r = Reader::new(row, &called, None);
    Ok(CommittedTable {
        table_id: TableId(id.0),
        version: r.version(version)?,
        timestamp: TimestampMs(r.get(timestamp)?),
    })
}

async fn find_token(
    session: &Arc<Session>,
    token: &CommitToken,
) -> Result<Option<Vec<CommittedTable>>> {
    let mut call = schema::begin(session, "looking up a commit token", Mode::ReadOne).await?;
    let found = resolve_token(&mut call, token).await;
    call.end(found).await
}

/// Commits a batch, by itself. See the module's documentation.
pub(crate) async fn commit_now(
    session: &Arc<Session>,
    request: &CommitRequest,
) -> Result<CommitOutcome> {
    if let Err(wrong) = check_shape(request) {
        return match find_token(session, &request.token).await? {
            Some(done) => Ok(CommitOutcome::Replayed(done)),
            None => Err(wrong),
        };
    }
    let batch = Batch::new(request);
    let contended = batch.only_table().is_some_and(|table| session.contended.is(table));
    if batch.is_large() || contended {
        return commit_in_steps(session, &batch).await;
    }
    let mut call = schema::begin(session, "committing", Mode::WriteOne).await?;
    match attempt(&mut call, &batch).await {
        Ok(Verdict::Final(outcome)) => return call.end(Ok(outcome)).await,
        Ok(Verdict::FinalIfNew(outcome)) => {
            call.end(Ok(())).await?;
            let replayed = find_token(session, &request.token).await?;
            return Ok(replayed.map_or(outcome, CommitOutcome::Replayed));
        }
        Ok(Verdict::Again) => call.end_rolled_back(Ok(())).await?,
        Err(error) if error.is_unique_violation() => call.end_rolled_back(Ok(())).await?,
        Err(error) => return call.end(Err(error)).await,
    }
    commit_in_steps(session, &batch).await
}

fn note_size(session: &Session, rows: &[PgRow]) -> DbResult<()> {
    for row in rows {
        session.note_size(row.try_get::<Option<i64>, _>(8)?.unwrap_or(0));
        session.note_commit(row.try_get::<Option<i64>, _>(4)?.unwrap_or(0));
    }
    Ok(())
}

async fn attempt(call: &mut Call, batch: &Batch<'_>) -> DbResult<Verdict> {
    let args = batch.args(true)?;
    let rows = call.fetch(COMMIT, args).await?;
    note_size(&call.session, &rows)?;
    if let Some(table) = batch.only_table()
        && rows.iter().any(|row| row.try_get::<bool, _>(7).unwrap_or(false))
    {
        call.session.contended.note(table);
    }
    batch.verdict(&rows)
}

/// Tables at which commits of other processes were waited for lately.
///
/// A statement that has waited for a row is evaluated anew for it, each part of it: that costs more
/// than the wait, and the others wait for it in turn. With the row locked by a statement before, it is
/// not; this takes three round trips more, none of which anybody else waits for but COMMIT.
#[derive(Debug, Default)]
pub(crate) struct Contended(Mutex<HashMap<TableId, u32>>);

impl Contended {
    /// So many commits lock first, before one looks whether there is still somebody else.
    const FOR: u32 = 64;
    /// Tables that are remembered.
    const MOST: usize = 10_000;

    pub(crate) fn note(&self, table: TableId) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.len() >= Self::MOST {
            tables.clear();
        }
        tables.insert(table, Self::FOR);
    }

    /// Whether it is one of them. Counts no commit.
    pub(crate) fn has(&self, table: TableId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&table)
    }

    pub(crate) fn is(&self, table: TableId) -> bool {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = tables.get_mut(&table) else { return false };
        *left -= 1;
        if *left == 0 {
            tables.remove(&table);
        }
        true
    }
}

/// Locks the tables, then runs the statement with a snapshot that is younger than the locks; the
/// rows of a large batch follow in the same transaction, in parts.
async fn commit_in_steps(session: &Arc<Session>, batch: &Batch<'_>) -> Result<CommitOutcome> {
    let mut call = schema::begin(session, "committing", Mode::Write).await?;
    let result = steps(&mut call, batch).await;
    match result {
        Ok(outcome @ CommitOutcome::Committed(_)) => call.end(Ok(outcome)).await,
        // The winner of a race has committed since we looked: the next try sees it.
        Err(error) if error.is_unique_violation() => {
            let busy = CatalogError::busy(
                format!("another commit to database '{}' came first", session.at),
                WriteState::NotApplied,
            );
            call.end_rolled_back(Err(busy.into())).await
        }
        other => call.end_rolled_back(other).await,
    }
}

async fn steps(call: &mut Call, batch: &Batch<'_>) -> DbResult<CommitOutcome> {
    let session = call.session.clone();
    let ids: Vec<Id> = batch.parts.iter().map(|part| part.id.into()).collect();
    call.fetch(LOCK, Args::new().bind(&ids)).await?;
    let large = batch.is_large();
    let args = batch.args(!large)?;
    let rows = call.fetch(COMMIT, args).await?;
    note_size(&session, &rows)?;
    let outcome = match batch.verdict(&rows)? {
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
        let files_before: Option<i64> =
            rows.get(index).map(|row| row.try_get(8)).transpose()?.flatten();
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
    let args = Args::new()
        .bind(Id::from(part.id))
        .bind(version)
        .bind(ended.files)
        .bind(ended.bytes.to_string())
        .bind(reported(ended.bytes_removed));
    call.execute(CORRECT_TOTALS, args).await?;
    Ok(None)
}

/// Stores a commit's bytes, some at a time.
pub(crate) async fn insert_chunks(
    call: &mut Call,
    table: TableId,
    version: i64,
    zstd: &[u8],
) -> DbResult<()> {
    let chunks: Vec<&[u8]> = zstd.chunks(CHUNK_BYTES).collect();
    let together = BODY_BYTES / CHUNK_BYTES;
    for (group, bodies) in chunks.chunks(together).enumerate() {
        let numbers: Vec<i64> = (0..bodies.len()).map(|n| count(group * together + n)).collect();
        let args = Args::new().bind(Id::from(table)).bind(version).bind(&numbers).bind(bodies);
        call.execute(INSERT_CHUNKS, args).await?;
    }
    Ok(())
}

/// The digest under which a name without a length limit is indexed.
pub(crate) fn name_key(name: &str) -> Digest {
    FileKey::digest_of(name, "")
}

/// One table of a batch, with what is computed once however often it is sent.
struct Part<'r> {
    id: TableId,
    commit: &'r TableCommit,
    keys: Keys,
    /// An earlier part creates a table of this name.
    name_again: bool,
}

struct Batch<'r> {
    request: &'r CommitRequest,
    parts: Vec<Part<'r>>,
}

impl<'r> Batch<'r> {
    fn new(request: &'r CommitRequest) -> Self {
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
    fn only_table(&self) -> Option<TableId> {
        match self.request.tables.as_slice() {
            [TableCommit { target: CommitTarget::Existing { table_id, .. }, .. }] => {
                Some(*table_id)
            }
            _ => None,
        }
    }

    fn is_large(&self) -> bool {
        let (mut rows, mut bytes) = (0_usize, 0_usize);
        for part in &self.parts {
            let index = &part.commit.index;
            rows = rows.saturating_add(index.adds.len()).saturating_add(index.removes.len());
            bytes = bytes.saturating_add(part.commit.rest.zstd.len());
        }
        let in_pages = self.parts.iter().any(|part| part.commit.later.is_some());
        rows > ROWS || bytes > BODY_BYTES || in_pages
    }

    fn not_active(&self, index: usize, position: usize) -> CommitOutcome {
        let removes = &self.parts[index].commit.index.removes;
        let FileKey { path, dv_id } = removes[position].key();
        CommitOutcome::Rejected { index, reason: Rejection::FileNotActive { path, dv_id } }
    }

    /// Parameters of `COMMIT`, in the order of its comment. `whole`: with files and bytes.
    fn args(&self, whole: bool) -> DbResult<Args> {
        let separator = separator(self.parts.iter().map(|part| &part.commit.first_line))?;
        let mut t = PartColumns::default();
        let mut chunks: (Vec<i32>, Vec<i64>, Vec<&[u8]>) = Default::default();
        let mut txns = TxnColumns::default();
        let mut domains = DomainColumns::default();
        let (mut removes, mut adds) = (Removes::default(), Adds::default());
        for (number, part) in (0_i32..).zip(&self.parts) {
            t.push(part, &separator)?;
            let index = &part.commit.index;
            txns.push(number, index);
            domains.push(number, index);
            if !whole {
                continue;
            }
            for (chunk_no, body) in part.commit.rest.zstd.chunks(CHUNK_BYTES).enumerate() {
                chunks.0.push(number);
                chunks.1.push(count(chunk_no));
                chunks.2.push(body);
            }
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
        args = args.bind(&chunks.0).bind(&chunks.1).bind(&chunks.2);
        args = domains.bind(txns.bind(args));
        args = removes.bind_values(args.bind(&removes.tables).bind(&removes.positions));
        args = args.bind(&adds.tables).bind(&adds.ordinals).bind(&adds.ended).bind(&adds.replaces);
        Ok(adds.bind_values(args))
    }

    /// What the rows of `COMMIT` say.
    fn verdict(&self, rows: &[PgRow]) -> DbResult<Verdict> {
        let mut done = Vec::with_capacity(rows.len());
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
                    done.push(committed(row, id, 4, 5)?);
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
            _ if replayed => Verdict::Final(CommitOutcome::Replayed(done)),
            None => Verdict::Final(CommitOutcome::Committed(done)),
            Some(outcome) if !stale => Verdict::Final(outcome),
            Some(outcome @ CommitOutcome::HeadMoved { .. }) => Verdict::FinalIfNew(outcome),
            Some(_) => Verdict::Again,
        })
    }
}

/// A character that is in no first line: it stands for the timestamp, which only the transaction
/// knows. JSON has no control characters, so the first of them will do.
pub(crate) fn separator<'l>(
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

/// Columns of application transactions.
#[derive(Default)]
pub(crate) struct TxnColumns<'r> {
    tables: Vec<i32>,
    keys: Vec<Digest>,
    app_ids: Vec<&'r str>,
    versions: Vec<i64>,
    last_updated: Vec<Option<i64>>,
}

impl<'r> TxnColumns<'r> {
    fn push(&mut self, table: i32, index: &'r deltalakedb_catalog_core::commit::CommitIndex) {
        self.push_all(table, &index.txns);
    }

    pub(crate) fn push_all(
        &mut self,
        table: i32,
        txns: &'r [deltalakedb_catalog_core::action::Txn],
    ) {
        for txn in txns {
            self.tables.push(table);
            self.keys.push(name_key(&txn.app_id));
            self.app_ids.push(&txn.app_id);
            self.versions.push(txn.version);
            self.last_updated.push(txn.last_updated);
        }
    }

    fn bind(&self, args: Args) -> Args {
        self.bind_values(args.bind(&self.tables))
    }

    /// Without the table's number.
    pub(crate) fn bind_values(&self, args: Args) -> Args {
        args.bind(&self.keys)
            .texts("the appId of a transaction", &self.app_ids)
            .bind(&self.versions)
            .bind(&self.last_updated)
    }
}

/// Columns of domain metadata.
#[derive(Default)]
pub(crate) struct DomainColumns<'r> {
    tables: Vec<i32>,
    keys: Vec<Digest>,
    domains: Vec<&'r str>,
    removed: Vec<bool>,
    configurations: Vec<&'r str>,
}

impl<'r> DomainColumns<'r> {
    fn push(&mut self, table: i32, index: &'r deltalakedb_catalog_core::commit::CommitIndex) {
        self.push_all(table, &index.domain_metadata);
    }

    pub(crate) fn push_all(
        &mut self,
        table: i32,
        domains: &'r [deltalakedb_catalog_core::action::DomainMetadata],
    ) {
        for domain in domains {
            self.tables.push(table);
            self.keys.push(name_key(&domain.domain));
            self.domains.push(&domain.domain);
            self.removed.push(domain.removed);
            self.configurations.push(&domain.configuration);
        }
    }

    fn bind(&self, args: Args) -> Args {
        self.bind_values(args.bind(&self.tables))
    }

    /// Without the table's number.
    pub(crate) fn bind_values(&self, args: Args) -> Args {
        args.bind(&self.keys)
            .texts("the domain of domain metadata", &self.domains)
            .bind(&self.removed)
            .texts("the configuration of domain metadata", &self.configurations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_contended_for_some_commits() {
        let (contended, [table, other]) = (Contended::default(), [1, 2].map(uuid::Uuid::from_u128));
        let (table, other) = (TableId(table), TableId(other));
        assert!(!contended.is(table));
        contended.note(table);
        assert!(!contended.is(other));
        let times = (0..1_000).take_while(|_| contended.is(table)).count();
        assert_eq!(times, Contended::FOR as usize);
        assert!(!contended.is(table));
    }
}
