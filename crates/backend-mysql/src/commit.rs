//! The commit, and what of it an import shares: one version's rows.
//!
//! Three messages, so three round trips, unless a commit is large:
//!
//! 1. Begin, lock the heads in the order of the tables' ids, and read everything the checks need:
//!    the token, names that are to be created, the active rows of the files that come or go. All
//!    that is read after the lock is as new as the lock (READ COMMITTED), so it holds until the end
//!    of the transaction: whoever would change it has to lock the same head first.
//! 2. All writes; those of a large commit in as many messages as they need, with look-ups of the
//!    files that come in pages between them. Each head moves by compare-and-set, which must find its
//!    row; the primary keys of `{p}commits` and `{p}batches` refuse a second writer of a version or
//!    token even where the engine's locks do not hold (Galera's other nodes, optimistic
//!    transactions): then this is error 1062 or 1213, here or at COMMIT, and nothing stays.
//! 3. COMMIT. Only while it is on its way may the commit have happened without us knowing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deltalakedb_catalog_core::action::FileKey;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, Expired, Expiry, HeadRule,
    Rejection, TableCommit,
};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::later::LaterAdds;
use deltalakedb_catalog_core::model::{MirrorMode, TableState};
use deltalakedb_catalog_core::support::{
    CHUNK_BYTES, body_len, check_shape, count, fetch_limit, newest_batch, next_timestamp, page,
    stored_commit_info, table_id, to_json,
};
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use crate::errors::{DbError, DbResult, conflicting};
use crate::files::{self, Active, FileDelta, Plan, UnknownFile};
use crate::outbox;
use crate::rows::{MySqlFormat, Reader, Table, TableKey};
use crate::schema;
use crate::session::literals::{Value, list};
use crate::session::writer::Writer;
use crate::session::{Call, Session, Set};
use crate::tables::insert_table;

/// Lookups of files that go into the first message; more follow in messages of their own.
const FIRST_LOOKUPS: usize = 4;
/// Commits in one message that lose their tokens.
const UPDATES_AT_ONCE: usize = 200;

const HEADS: &str = "SELECT STRAIGHT_JOIN t.id, t.state, t.head_version, t.head_timestamp_ms,
        t.barrier_version, m.mode, c.total_files, c.total_bytes, t.table_key
    FROM {p}tables t JOIN {p}mirror m ON m.table_key = t.table_key
    LEFT JOIN {p}commits c ON c.table_key = t.table_key AND c.version = t.head_version
    WHERE t.id IN (";
/// Whether a token is known, and what it wrote: one statement, so that no other transaction comes between the two.
const REPLAYED: &str = "SELECT t.id, c.version, c.timestamp_ms, c.batch_position
    FROM {p}batches b LEFT JOIN {p}commits c ON c.token = b.token
    LEFT JOIN {p}tables t ON t.table_key = c.table_key
    WHERE b.token = ? ORDER BY c.batch_position";
/// When the newest commit of a token was made: never yet, for one of a table that is imported.
macro_rules! newest {
    () => {
        "COALESCE((SELECT MAX(CASE t.state WHEN 'importing' THEN 9223372036854775807
                ELSE c.timestamp_ms END)
            FROM {p}commits c JOIN {p}tables t ON t.table_key = c.table_key
            WHERE c.token = b.token), b.committed_at_ms)"
    };
}
/// Tokens after one, and whether all of their commits are older than a time. Values: time, time, token, limit.
const TOKENS: &str = concat!(
    "SELECT b.token, b.committed_at_ms < ? AND ",
    newest!(),
    " < ? FROM {p}batches b WHERE b.token > CONVERT(? USING ascii) ORDER BY b.token LIMIT ?"
);
/// Locks the rows of tokens, in their order.
const TAKE_TOKENS: &str = "SELECT b.token FROM {p}batches b WHERE b.token IN (";
/// Which of them are old still, and the places of their commits, in the order in which commits lock theirs.
/// Values: time.
const PLACES: &str = concat!(
    "SELECT STRAIGHT_JOIN b.token, k.table_key, k.version FROM {p}batches b
    LEFT JOIN {p}commits k ON k.token = b.token LEFT JOIN {p}tables o ON o.table_key = k.table_key
    WHERE ",
    newest!(),
    " < ? AND b.token IN ("
);
const FORGET_TOKEN: &str = "UPDATE {p}commits SET token = NULL, batch_position = NULL
    WHERE table_key = ? AND version = ?";
const INSERT_BATCH: &str = "INSERT INTO {p}batches (token, committed_at_ms) VALUES (?, ?)";
/// The compare-and-set that decides who commits. `<=>` also compares null, before the first version.
const MOVE_HEAD: &str = "UPDATE {p}tables SET head_version = ?, head_timestamp_ms = ?,
        barrier_version = CASE WHEN ? = 1 THEN ? ELSE barrier_version END
    WHERE id = ? AND head_version <=> ? AND state <> 'dropped'";
const INSERT_COMMIT: &str = "INSERT INTO {p}commits (table_key, version, timestamp_ms, token,
        batch_position, num_added, num_removed, bytes_added, bytes_removed, changes_metadata,
        changes_protocol, total_files, total_bytes, has_body, body_len, first_line, commit_info)
    VALUES ";
const INSERT_CHUNK: &str =
    "INSERT INTO {p}commit_chunks (table_key, version, chunk_no, body) VALUES ";
const INSERT_PROTOCOL: &str = "INSERT INTO {p}protocols (table_key, version, protocol) VALUES ";
const INSERT_METADATA: &str = "INSERT INTO {p}metadata (table_key, version, metadata) VALUES ";
const INSERT_TXN: &str =
    "INSERT INTO {p}txns (table_key, app_key, version, app_id, app_version, last_updated) VALUES ";
const INSERT_DOMAIN: &str =
    "INSERT INTO {p}domain_metadata (table_key, domain_key, version, domain,
        removed, configuration) VALUES ";

/// A table's head, as the transaction sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    /// Version and timestamp; none before the first.
    pub(crate) at: Option<(Version, TimestampMs)>,
    /// Files and bytes in the table.
    pub(crate) total_files: i64,
    pub(crate) total_bytes: i64,
}

/// One version's rows, besides those of the table itself.
pub(crate) struct NewVersion<'v> {
    pub(crate) version: Version,
    pub(crate) timestamp: TimestampMs,
    pub(crate) token: Option<(&'v CommitToken, i64)>,
    pub(crate) body: &'v CommitBody,
    pub(crate) index: &'v CommitIndex,
    pub(crate) later: Option<&'v LaterAdds>,
}

/// What a token wrote.
pub(crate) async fn resolve_token(
    call: &mut Call,
    token: &CommitToken,
) -> DbResult<Option<Vec<CommittedTable>>> {
    let session = call.session.clone();
    let token = Value::Text(token.as_str());
    let sets = call.read(&session.sql(REPLAYED, &[token])).await?;
    replayed(&sets)
}

fn replayed(sets: &[Set]) -> DbResult<Option<Vec<CommittedTable>>> {
    let Some(known) = sets.first().filter(|set| !set.rows.is_empty()) else { return Ok(None) };
    let mut done = Vec::with_capacity(known.rows.len());
    for row in &known.rows {
        // A token that is known and wrote nothing that is left.
        if row.try_get::<Option<i64>, _>(1)?.is_none() {
            continue;
        }
        let table_id = table_id::<MySqlFormat>(row, 0)?;
        let called = table_id.to_string();
        let r = Reader::new(row, &called, row.try_get(1).ok());
        let written =
            CommittedTable { table_id, version: r.version(1)?, timestamp: TimestampMs(r.get(2)?) };
        done.push((r.get(3)?, written));
    }
    Ok(Some(newest_batch(done)))
}

/// Forgets old tokens, or counts them.
///
/// The rows of the tokens are locked before they are looked at again: an import that finds a token known locks that
/// row, too, so either its commits are seen here, or it comes later and makes the token known anew. A commit locks
/// the newest commit of each of its tables, in the order of the tables' ids, and then a row of its own token: so the
/// rows of commits are changed here in that order.
pub(crate) async fn expire_tokens(
    call: &mut Call,
    expiry: Expiry,
    after: Option<&CommitToken>,
) -> DbResult<Expired<CommitToken>> {
    let session = call.session.clone();
    let before = Value::Int(expiry.before.0);
    let after = Value::Text(after.map_or("", CommitToken::as_str));
    let values = [before, before, after, fetch_limit(expiry.limit).into()];
    let mut found: Vec<(String, bool)> = Vec::new();
    for row in call.read(&session.sql(TOKENS, &values)).await?.iter().flat_map(|set| &set.rows) {
        found.push((row.try_get(0)?, row.try_get::<i64, _>(1)? != 0));
    }
    let found = page(found, expiry.limit, |(token, _)| token.clone());
    let next = found.next.map(CommitToken::new).transpose()?;
    let mut old: BTreeSet<String> =
        found.items.into_iter().filter(|(_, is_old)| *is_old).map(|(token, _)| token).collect();
    if !expiry.dry_run && !old.is_empty() {
        let these = |tokens: &BTreeSet<String>| {
            list(tokens.iter().map(|token| Value::Bytes(token.as_bytes())))
        };
        let all = these(&old);
        let take = session.sql(TAKE_TOKENS, &[]) + &all + ") ORDER BY b.token FOR UPDATE";
        let places = session.sql(PLACES, &[before]) + &all + ") ORDER BY o.id, k.version";
        old.clear();
        let mut updates = Vec::new();
        for row in
            call.open(&format!("{take}; {places}")).await?.iter().skip(1).flat_map(|set| &set.rows)
        {
            old.insert(row.try_get(0)?);
            let place = (row.try_get::<Option<i64>, _>(1)?, row.try_get::<Option<i64>, _>(2)?);
            if let (Some(table), Some(version)) = place {
                updates.push(session.sql(FORGET_TOKEN, &[table.into(), version.into()]));
            }
        }
        for some in updates.chunks(UPDATES_AT_ONCE) {
            call.run(some.join("; ")).await?;
        }
        if !old.is_empty() {
            let delete = session.sql("DELETE FROM {p}batches WHERE token IN (", &[]);
            call.run(delete + &these(&old) + ")").await?;
        }
    }
    Ok(Expired { removed: u64::try_from(old.len()).unwrap_or(u64::MAX), next })
}

/// A row of [`HEADS`].
struct Locked {
    key: TableKey,
    state: TableState,
    head: Head,
    barrier: Version,
    mirror: MirrorMode,
}

fn locked(row: &MySqlRow) -> DbResult<(TableId, Locked)> {
    let id = table_id::<MySqlFormat>(row, 0)?;
    let called = id.to_string();
    let r = Reader::new(row, &called, row.try_get(2).ok());
    let head = match r.version_opt(2)? {
        None => Head::default(),
        Some(version) => Head {
            at: Some((version, TimestampMs(r.get(3)?))),
            total_files: r.get(6)?,
            total_bytes: r.get(7)?,
        },
    };
    Ok((
        id,
        Locked {
            key: TableKey::Is(r.get(8)?),
            state: TableState::parse(r.get(1)?)?,
            head,
            barrier: r.version(4)?,
            mirror: MirrorMode::parse(r.get(5)?)?,
        },
    ))
}

/// What a commit does to one table, once it was checked.
struct Part<'r> {
    committed: CommittedTable,
    key: TableKey,
    commit: &'r TableCommit,
    head: Head,
    mirror: MirrorMode,
    plan: Plan<'r>,
}

/// Commits a batch in one transaction.
pub(crate) async fn commit(
    session: &Arc<Session>,
    request: &CommitRequest,
) -> Result<CommitOutcome> {
    let mut call = schema::begin(session, "committing").await?;
    match check_and_write(&mut call, request).await {
        Ok(outcome @ CommitOutcome::Committed(_)) => call.end(Ok(outcome)).await,
        Ok(outcome) => {
            call.roll_back().await;
            Ok(outcome)
        }
        Err(error) if error.is_duplicate() => {
            call.roll_back().await;
            let first_error = call.fail(error);
            if !call.is_usable() {
                return Err(first_error);
            }
            let outcome = after_duplicate(&mut call, request).await;
            match call.end(outcome).await? {
                Some(outcome) => Ok(outcome),
                // Another writer of the version, on a node whose locks this one does not see.
                None => Err(conflicting(&session.at)),
            }
        }
        Err(error) => call.end(Err(error)).await,
    }
}

/// The checks and the writes of a commit. The caller ends the transaction: by COMMIT only if the answer is
/// `Committed`.
async fn check_and_write(call: &mut Call, request: &CommitRequest) -> DbResult<CommitOutcome> {
    if let Err(wrong) = check_shape(request) {
        // What a token wrote comes first, whatever else the request says.
        let done = resolve_token(call, &request.token).await?;
        return done.map(CommitOutcome::Replayed).ok_or(DbError::Catalog(wrong));
    }
    let session = call.session.clone();

    let ids: BTreeSet<TableId> = request.tables.iter().map(|part| id(&part.target)).collect();
    let heads = session.sql(HEADS, &[]) + &list(ids.iter().map(|id| (*id).into()));
    let token = Value::Text(request.token.as_str());
    let mut statements = vec![
        heads + ") ORDER BY t.id FOR UPDATE",
        session.sql(REPLAYED, &[token]),
        live_names(call, request),
    ];
    let fixed = statements.len();
    let mut lookups: Vec<(TableId, String)> = Vec::new();
    for part in &request.tables {
        if let CommitTarget::Existing { table_id, .. } = &part.target {
            let some = files::lookups_by_id(&session, *table_id, files::keys(&part.index));
            lookups.extend(some.into_iter().map(|statement| (*table_id, statement)));
        }
    }
    let at_once = lookups.len().min(FIRST_LOOKUPS);
    statements.extend(lookups[..at_once].iter().map(|(_, statement)| statement.clone()));
    let sets = call.open(&statements.join("; ")).await?;
    if let Some(done) = replayed(&sets[1.min(sets.len())..])? {
        return Ok(CommitOutcome::Replayed(done));
    }
    let mut heads: BTreeMap<TableId, Locked> = BTreeMap::new();
    for row in sets.first().into_iter().flat_map(|set| &set.rows) {
        let (id, locked) = locked(row)?;
        heads.insert(id, locked);
    }
    let mut taken: BTreeSet<TableName> = names(sets.get(2))?;
    let mut active: BTreeMap<TableId, Active> = BTreeMap::new();
    for ((table, _), set) in lookups.iter().zip(sets.get(fixed..).unwrap_or_default()) {
        active.entry(*table).or_default().take(set)?;
    }
    for (table, statement) in lookups.split_off(at_once) {
        active.entry(table).or_default().load_with(call, &[statement]).await?;
    }

    let mut parts = Vec::with_capacity(request.tables.len());
    for (index, part) in request.tables.iter().enumerate() {
        let rejected = |reason| Ok(CommitOutcome::Rejected { index, reason });
        let table_id = id(&part.target);
        let (key, head, mirror) = match (&part.target, heads.get(&table_id)) {
            (CommitTarget::Create(_), Some(_)) => return rejected(Rejection::IdTaken(table_id)),
            (CommitTarget::Create(new), None) => {
                if !taken.insert(new.name.clone()) {
                    return rejected(Rejection::NameTaken(new.name.clone()));
                }
                (TableKey::Inserted, Head::default(), new.mirror)
            }
            (CommitTarget::Existing { rule, .. }, Some(locked)) => {
                let Some((version, _)) =
                    locked.head.at.filter(|_| locked.state == TableState::Active)
                else {
                    return rejected(Rejection::TableNotFound(table_id));
                };
                let holds = match rule {
                    HeadRule::Exactly(expected) => version == *expected,
                    HeadRule::Append { since } => locked.barrier <= *since,
                };
                if !holds {
                    return Ok(CommitOutcome::HeadMoved { index, head: version });
                }
                (locked.key, locked.head, locked.mirror)
            }
            (CommitTarget::Existing { .. }, None) => {
                return rejected(Rejection::TableNotFound(table_id));
            }
        };
        let version = head.at.map_or(Version::ZERO, |(version, _)| version.next());
        let known = active.entry(table_id).or_default();
        let plan = match Plan::of(&part.index, version, known, UnknownFile::Refuse)? {
            Ok(plan) => plan,
            Err(FileKey { path, dv_id }) => {
                return rejected(Rejection::FileNotActive { path, dv_id });
            }
        };
        let timestamp = next_timestamp(table_id, head.at.map(|(_, time)| time), request.now)?;
        let committed = CommittedTable { table_id, version, timestamp };
        parts.push(Part { committed, key, commit: part, head, mirror, plan });
    }

    let mut out = Writer::new(call);
    out.push(INSERT_BATCH, &[token, request.now.0.into()]).await?;
    let mut done = Vec::with_capacity(parts.len());
    for (position, part) in parts.iter().enumerate() {
        let CommittedTable { version, timestamp, .. } = part.committed;
        let commit = part.commit;
        if let CommitTarget::Create(new) = &commit.target {
            insert_table(&mut out, new, TableState::Active, 0, false, request.now).await?;
        }
        let body = CommitBody {
            first_line: Some(commit.first_line.render(timestamp)),
            rest: commit.rest.clone(),
        };
        let new = NewVersion {
            version,
            timestamp,
            token: Some((&request.token, count(position))),
            body: &body,
            index: &commit.index,
            later: commit.later.as_ref(),
        };
        let table = Table { id: part.committed.table_id, key: part.key };
        write_version(&mut out, table, part.head, &new, &part.plan).await?;
        if part.mirror != MirrorMode::Off {
            outbox::enqueue(&mut out, part.key, version, request.now).await?;
        }
        done.push(part.committed.clone());
    }
    out.finish().await?;
    Ok(CommitOutcome::Committed(done))
}

/// After a duplicate key: who was first, if it is known by now. The transaction is rolled back.
async fn after_duplicate(
    call: &mut Call,
    request: &CommitRequest,
) -> DbResult<Option<CommitOutcome>> {
    if let Some(done) = resolve_token(call, &request.token).await? {
        return Ok(Some(CommitOutcome::Replayed(done)));
    }
    let creates =
        request.tables.iter().enumerate().filter_map(|(index, part)| match &part.target {
            CommitTarget::Create(new) => Some((index, new)),
            CommitTarget::Existing { .. } => None,
        });
    let sql = live_names(call, request);
    let taken = names(call.run(sql).await?.first())?;
    for (index, new) in creates {
        let reason = if crate::tables::state_of(call, new.id).await?.is_some() {
            Rejection::IdTaken(new.id)
        } else if taken.contains(&new.name) {
            Rejection::NameTaken(new.name.clone())
        } else {
            continue;
        };
        return Ok(Some(CommitOutcome::Rejected { index, reason }));
    }
    Ok(None)
}

fn id(target: &CommitTarget) -> TableId {
    match target {
        CommitTarget::Create(new) => new.id,
        CommitTarget::Existing { table_id, .. } => *table_id,
    }
}

/// Which of the names that are to be created are taken.
fn live_names(call: &Call, request: &CommitRequest) -> String {
    let mut sql = call
        .session
        .sql("SELECT namespace, name FROM {p}tables WHERE drop_marker = '' AND (0 = 1", &[]);
    for part in &request.tables {
        if let CommitTarget::Create(new) = &part.target {
            let values = [new.name.namespace().into(), new.name.name().into()];
            sql.push_str(&call.session.sql(" OR (namespace = ? AND name = ?)", &values));
        }
    }
    sql.push(')');
    sql
}

fn names(set: Option<&Set>) -> DbResult<BTreeSet<TableName>> {
    let mut names = BTreeSet::new();
    for row in set.into_iter().flat_map(|set| &set.rows) {
        names.insert(TableName::new(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?)?);
    }
    Ok(names)
}

/// Writes all rows of a version and moves the head to it.
pub(crate) async fn write_version(
    out: &mut Writer<'_>,
    table: Table,
    head: Head,
    new: &NewVersion<'_>,
    plan: &Plan<'_>,
) -> DbResult<Head> {
    let version = new.version.get();
    let index = new.index;
    let barrier = index.metadata.is_some() || index.protocol.is_some();
    let expected = head.at.map(|(version, _)| version.get());
    let values = [
        version.into(),
        new.timestamp.0.into(),
        barrier.into(),
        version.into(),
        table.id.into(),
        expected.into(),
    ];
    out.push_one(MOVE_HEAD, &values).await?;
    let table = table.key;
    // Before the commit's own row: which files of pages were in the table is known after the last one.
    let delta = plan.write_all(new.later, out, table, new.version, head.total_files).await?;
    let after = Head {
        at: Some((new.version, new.timestamp)),
        total_files: head.total_files.saturating_add(delta.files),
        total_bytes: head.total_bytes.saturating_add(delta.bytes),
    };
    insert_commit(out, table, new, delta, &after).await?;
    insert_chunks(out, table, version, new.body).await?;
    write_projection(out, table, version, index).await?;
    Ok(after)
}

/// Protocol, metadata, application transactions and domain metadata of a version.
pub(crate) async fn write_projection(
    out: &mut Writer<'_>,
    table: TableKey,
    version: i64,
    index: &CommitIndex,
) -> DbResult<()> {
    if let Some(protocol) = &index.protocol {
        let json = to_json(protocol)?;
        out.row(INSERT_PROTOCOL, &[table.into(), version.into(), (&json).into()]).await?;
    }
    if let Some(metadata) = &index.metadata {
        let json = to_json(metadata)?;
        out.row(INSERT_METADATA, &[table.into(), version.into(), (&json).into()]).await?;
    }
    for txn in &index.txns {
        let key = FileKey::digest_of(&txn.app_id, "");
        let values = [
            table.into(),
            (&key).into(),
            version.into(),
            (&txn.app_id).into(),
            txn.version.into(),
            txn.last_updated.into(),
        ];
        out.row(INSERT_TXN, &values).await?;
    }
    for domain in &index.domain_metadata {
        let key = FileKey::digest_of(&domain.domain, "");
        let values = [
            table.into(),
            (&key).into(),
            version.into(),
            (&domain.domain).into(),
            domain.removed.into(),
            (&domain.configuration).into(),
        ];
        out.row(INSERT_DOMAIN, &values).await?;
    }
    Ok(())
}

async fn insert_commit(
    out: &mut Writer<'_>,
    table: TableKey,
    new: &NewVersion<'_>,
    delta: FileDelta,
    after: &Head,
) -> DbResult<()> {
    let (later_files, later_bytes) =
        new.later.map_or((0, 0), |later| (later.files(), later.bytes()));
    let values = [
        table.into(),
        new.version.get().into(),
        new.timestamp.0.into(),
        new.token.map(|(token, _)| token.as_str()).into(),
        new.token.map(|(_, position)| position).into(),
        count(new.index.adds.len() + later_files).into(),
        count(new.index.removes.len()).into(),
        new.index.added_bytes().saturating_add(later_bytes).into(),
        delta.bytes_removed.into(),
        new.index.metadata.is_some().into(),
        new.index.protocol.is_some().into(),
        after.total_files.into(),
        after.total_bytes.into(),
        true.into(),
        body_len(new.body).into(),
        new.body.first_line.as_deref().into(),
        stored_commit_info(new.body, new.index).into(),
    ];
    out.row(INSERT_COMMIT, &values).await
}

/// Stores a commit's bytes.
pub(crate) async fn insert_chunks(
    out: &mut Writer<'_>,
    table: TableKey,
    version: i64,
    body: &CommitBody,
) -> DbResult<()> {
    let piece = out.piece().min(CHUNK_BYTES);
    for (number, chunk) in body.rest.zstd.chunks(piece).enumerate() {
        let values = [table.into(), version.into(), count(number).into(), chunk.into()];
        out.row(INSERT_CHUNK, &values).await?;
    }
    Ok(())
}

/// Head for an import: of a table in whatever state, whose row is locked.
pub(crate) async fn import_head(call: &mut Call, table: TableId) -> DbResult<Head> {
    let heads = call.session.sql(HEADS, &[]) + &list([table.into()]) + ")";
    let sets = call.run(heads).await?;
    match sets.first().and_then(|set| set.rows.first()) {
        Some(row) => Ok(locked(row)?.1.head),
        None => Err(DbError::Catalog(CatalogError::TableNotFound(table.to_string()))),
    }
}
