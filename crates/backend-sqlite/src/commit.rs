//! The commit, from the call to its SQL; and the rows of one version, which an import writes too.

use deltalakedb_catalog_core::action::FileKey;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, Expired, Expiry, HeadRule,
    Rejection, TableCommit,
};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TimestampMs, Version};
use deltalakedb_catalog_core::later::LaterAdds;
use deltalakedb_catalog_core::model::{MirrorMode, TableState};
use deltalakedb_catalog_core::support::{
    CHUNK_BYTES, body_len, check_shape, count, fetch_limit, newest_batch, next_timestamp, page,
    stored_commit_info,
};
use rusqlite::{OptionalExtension, params};

use crate::SqliteBackend;
use crate::errors::DbResult;
use crate::files::{FileDelta, FileWriter, UnknownFile};
use crate::outbox;
use crate::rows::text::statements;
use crate::rows::{Reader, Table, corrupt, to_json};
use crate::session::Db;
use crate::tables::{find, insert_table, name_is_taken};
use crate::worker::Write;

statements! {
    REPLAYED: "SELECT t.id, c.version, c.timestamp_ms, c.batch_position FROM {p}commits c
        LEFT JOIN {p}tables t ON t.table_key = c.table_key
        WHERE c.token = ?1 ORDER BY c.batch_position",
    TOKEN_IS_KNOWN: "SELECT 1 FROM {p}batches WHERE token = ?1",
    /// Tokens after ?1, and whether all of their commits are older than ?2. Those of a table that is
    /// imported are as new as can be.
    TOKENS: "SELECT b.token, b.committed_at_ms < ?2 AND coalesce((
                SELECT max(CASE t.state WHEN 'importing' THEN 9223372036854775807 ELSE c.timestamp_ms END)
                FROM {p}commits c JOIN {p}tables t ON t.table_key = c.table_key
                WHERE c.token = b.token), b.committed_at_ms) < ?2
        FROM {p}batches b WHERE b.token > ?1 ORDER BY b.token LIMIT ?3",
    DELETE_BATCH: "DELETE FROM {p}batches WHERE token = ?1",
    FORGET_TOKEN: "UPDATE {p}commits SET token = NULL, batch_position = NULL WHERE token = ?1",
    INSERT_BATCH: "INSERT INTO {p}batches (token, committed_at_ms) VALUES (?1, ?2)",
    HEAD: "SELECT t.state, t.head_version, t.head_timestamp_ms, t.barrier_version, m.mode,
            c.total_files, c.total_bytes, t.table_key
        FROM {p}tables t JOIN {p}mirror m ON m.table_key = t.table_key
        LEFT JOIN {p}commits c ON c.table_key = t.table_key AND c.version = t.head_version
        WHERE t.id = ?1",
    /// The compare-and-set that decides who commits. `IS` also compares null, before the first
    /// version.
    MOVE_HEAD: "UPDATE {p}tables SET head_version = ?2, head_timestamp_ms = ?3,
            barrier_version = CASE WHEN ?4 THEN ?2 ELSE barrier_version END
        WHERE table_key = ?1 AND head_version IS ?5 AND state <> 'dropped'",
    INSERT_COMMIT: "INSERT INTO {p}commits (table_key, version, timestamp_ms, token,
            batch_position, num_added, num_removed, bytes_added, bytes_removed,
            changes_metadata, changes_protocol, total_files, total_bytes, has_body, body_len,
            first_line, commit_info)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 1, ?14, ?15, ?16)",
    INSERT_CHUNK: "INSERT INTO {p}commit_chunks (table_key, version, chunk_no, body)
        VALUES (?1, ?2, ?3, ?4)",
    INSERT_PROTOCOL: "INSERT INTO {p}protocols (table_key, version, protocol)
        VALUES (?1, ?2, ?3)",
    INSERT_METADATA: "INSERT INTO {p}metadata (table_key, version, metadata)
        VALUES (?1, ?2, ?3)",
    INSERT_TXN: "INSERT INTO {p}txns (table_key, app_id, version, app_version, last_updated)
        VALUES (?1, ?2, ?3, ?4, ?5)",
    INSERT_DOMAIN: "INSERT INTO {p}domain_metadata (table_key, domain, version, removed,
            configuration)
        VALUES (?1, ?2, ?3, ?4, ?5)",
}

/// A file or remove is about this much in rows and indexes, bytes: for the size of groups.
pub(crate) const FILE_WEIGHT_BYTES: usize = 512;

/// Why one table's part is not written.
enum Refusal {
    HeadMoved(Version),
    Rejected(Rejection),
}

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
    /// Adds that are not in memory.
    pub(crate) later: Option<&'v LaterAdds>,
    pub(crate) unknown: UnknownFile,
}

impl SqliteBackend {
    /// Commits a request: one job of the writer thread, in a transaction that it may share with
    /// other jobs (see `worker`). A job that is not `Committed` is rolled back alone.
    pub(crate) async fn commit_request(&self, request: CommitRequest) -> Result<CommitOutcome> {
        let weight_bytes = request.tables.iter().fold(0_usize, |sum, part| {
            sum.saturating_add(weight(&part.index, part.later.as_ref(), part.rest.zstd.len()))
        });
        let write = Write {
            doing: "committing",
            weight_bytes,
            needs_schema: true,
            work: move |db: Db<'_>| commit(db, &request),
        };
        self.workers.write(write, |outcome| matches!(outcome, CommitOutcome::Committed(_))).await
    }
}

/// About how much a commit's rows take, bytes.
pub(crate) fn weight(index: &CommitIndex, later: Option<&LaterAdds>, body: usize) -> usize {
    (index.adds.len() + index.removes.len() + later.map_or(0, LaterAdds::files))
        .saturating_mul(FILE_WEIGHT_BYTES)
        .saturating_add(body)
        .saturating_add(1024)
}

/// Commits a batch inside of the caller's transaction, which rolls back whatever is not
/// `Committed`.
///
/// The write lock is held since before the first statement (see `session`): no head, name or file
/// that is looked at here can change before the transaction ends.
fn commit(db: Db<'_>, request: &CommitRequest) -> DbResult<CommitOutcome> {
    if let Some(done) = resolve_token(db, &request.token)? {
        return Ok(CommitOutcome::Replayed(done));
    }
    check_shape(request)?;
    db.execute(INSERT_BATCH, params![request.token.as_str(), request.now.0])?;
    let mut done = Vec::with_capacity(request.tables.len());
    for (index, part) in request.tables.iter().enumerate() {
        match commit_table(db, request, index, part)? {
            Ok(committed) => done.push(committed),
            Err(Refusal::HeadMoved(head)) => return Ok(CommitOutcome::HeadMoved { index, head }),
            Err(Refusal::Rejected(reason)) => {
                return Ok(CommitOutcome::Rejected { index, reason });
            }
        }
    }
    Ok(CommitOutcome::Committed(done))
}

fn commit_table(
    db: Db<'_>,
    request: &CommitRequest,
    position: usize,
    part: &TableCommit,
) -> DbResult<Result<CommittedTable, Refusal>> {
    let rejected = |reason| Ok(Err(Refusal::Rejected(reason)));
    let (table, head, mirror) = match &part.target {
        CommitTarget::Create(new) => {
            if find(db, new.id)?.is_some() {
                return rejected(Rejection::IdTaken(new.id));
            }
            if name_is_taken(db, &new.name)? {
                return rejected(Rejection::NameTaken(new.name.clone()));
            }
            let table = insert_table(db, new, TableState::Active, 0, false, request.now)?;
            (table, Head::default(), new.mirror)
        }
        CommitTarget::Existing { table_id, rule } => {
            let Some(found) = find_head(db, *table_id)? else {
                return rejected(Rejection::TableNotFound(*table_id));
            };
            let holds = match rule {
                HeadRule::Exactly(expected) => found.version == *expected,
                HeadRule::Append { since } => found.barrier <= *since,
            };
            if !holds {
                return Ok(Err(Refusal::HeadMoved(found.version)));
            }
            (found.table, found.head, found.mirror)
        }
    };
    let version = head.at.map_or(Version::ZERO, |(version, _)| version.next());
    let timestamp = next_timestamp(table.id, head.at.map(|(_, time)| time), request.now)?;
    let body =
        CommitBody { first_line: Some(part.first_line.render(timestamp)), rest: part.rest.clone() };
    let batch_position = i64::try_from(position).unwrap_or(i64::MAX);
    let written = write_version(
        db,
        table,
        head,
        &NewVersion {
            version,
            timestamp,
            token: Some((&request.token, batch_position)),
            body: &body,
            index: &part.index,
            later: part.later.as_ref(),
            unknown: UnknownFile::Refuse,
        },
    )?;
    if let Err(FileKey { path, dv_id }) = written {
        return rejected(Rejection::FileNotActive { path, dv_id });
    }
    if mirror != MirrorMode::Off {
        outbox::enqueue(db, table, version, request.now)?;
    }
    Ok(Ok(CommittedTable { table_id: table.id, version, timestamp }))
}

/// An active table, as a commit finds it.
struct Found {
    table: Table,
    head: Head,
    version: Version,
    barrier: Version,
    mirror: MirrorMode,
}

fn find_head(db: Db<'_>, id: TableId) -> DbResult<Option<Found>> {
    let mut statement = db.prepare(HEAD)?;
    let mut rows = statement.query([id.to_string()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let r = Reader::new(row, &id, row.get(1).ok());
    let (state, mode): (String, String) = (r.get(0)?, r.get(4)?);
    if state != TableState::Active.as_str() {
        return Ok(None);
    }
    let Some(version) = r.version_opt(1)? else { return Ok(None) };
    let head = Head {
        at: Some((version, TimestampMs(r.get(2)?))),
        total_files: r.get(5)?,
        total_bytes: r.get(6)?,
    };
    Ok(Some(Found {
        table: Table { key: r.get(7)?, id },
        head,
        version,
        barrier: r.version(3)?,
        mirror: MirrorMode::parse(&mode)?,
    }))
}

/// The versions that a token wrote; none if no commit with it took effect.
pub(crate) fn resolve_token(
    db: Db<'_>,
    token: &CommitToken,
) -> DbResult<Option<Vec<CommittedTable>>> {
    if !db.prepare(TOKEN_IS_KNOWN)?.exists([token.as_str()])? {
        return Ok(None);
    }
    let mut statement = db.prepare(REPLAYED)?;
    let mut rows = statement.query([token.as_str()])?;
    let mut done = Vec::new();
    while let Some(row) = rows.next()? {
        let table: String = row.get(0)?;
        let r = Reader::new(row, &table, row.get(1).ok());
        let written = CommittedTable {
            table_id: table.parse().map_err(|e| corrupt(&table, None, "table_id", e))?,
            version: r.version(1)?,
            timestamp: TimestampMs(r.get(2)?),
        };
        done.push((r.get(3)?, written));
    }
    Ok(Some(newest_batch(done)))
}

/// Forgets old tokens, or counts them.
pub(crate) fn expire_tokens(
    db: Db<'_>,
    expiry: Expiry,
    after: Option<&CommitToken>,
) -> DbResult<Expired<CommitToken>> {
    let after = after.map_or("", CommitToken::as_str);
    let found: Vec<(String, bool)> = db
        .prepare(TOKENS)?
        .query_map(params![after, expiry.before.0, fetch_limit(expiry.limit)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let found = page(found, expiry.limit, |(token, _)| token.clone());
    let mut removed = 0;
    for (token, _) in found.items.iter().filter(|(_, is_old)| *is_old) {
        removed += 1;
        if !expiry.dry_run {
            db.execute(DELETE_BATCH, [token])?;
            db.execute(FORGET_TOKEN, [token])?;
        }
    }
    Ok(Expired { removed, next: found.next.map(CommitToken::new).transpose()? })
}

/// Writes all rows of a version and moves the head to it. `Err` inside: a remove of a file that is
/// not active.
pub(crate) fn write_version(
    db: Db<'_>,
    table: Table,
    head: Head,
    new: &NewVersion<'_>,
) -> DbResult<Result<Head, FileKey>> {
    let version = new.version.get();
    let index = new.index;
    let mut files = FileWriter::new(db, table, version)?;
    if let Err(key) = files.apply(index, new.unknown)? {
        return Ok(Err(key));
    }
    if let Some(later) = new.later {
        // Those that the index adds are others.
        let others = head.total_files.saturating_add(files.delta().files);
        let active = others != count(index.adds.len());
        files.later(later, index.adds.len(), active)?;
    }
    let delta = files.delta();
    drop(files);
    write_projection(db, table, version, index)?;
    let after = Head {
        at: Some((new.version, new.timestamp)),
        total_files: head.total_files.saturating_add(delta.files),
        total_bytes: head.total_bytes.saturating_add(delta.bytes),
    };
    insert_commit(db, table, new, delta, after.total_files, after.total_bytes)?;
    insert_chunks(db, table, version, new.body)?;
    let barrier = index.metadata.is_some() || index.protocol.is_some();
    let expected = head.at.map(|(version, _)| version.get());
    let moved =
        db.execute(MOVE_HEAD, params![table.key, version, new.timestamp.0, barrier, expected])?;
    if moved == 1 {
        Ok(Ok(after))
    } else {
        Err(corrupt(table, Some(version), "head", "it moved while the write lock was held"))
    }
}

/// Protocol, metadata, application transactions and domain metadata of a version.
pub(crate) fn write_projection(
    db: Db<'_>,
    table: Table,
    version: i64,
    index: &CommitIndex,
) -> DbResult<()> {
    if let Some(protocol) = &index.protocol {
        db.execute(INSERT_PROTOCOL, params![table.key, version, to_json(protocol)?])?;
    }
    if let Some(metadata) = &index.metadata {
        db.execute(INSERT_METADATA, params![table.key, version, to_json(metadata)?])?;
    }
    for txn in &index.txns {
        db.execute(
            INSERT_TXN,
            params![table.key, txn.app_id, version, txn.version, txn.last_updated],
        )?;
    }
    for domain in &index.domain_metadata {
        db.execute(
            INSERT_DOMAIN,
            params![table.key, domain.domain, version, domain.removed, domain.configuration],
        )?;
    }
    Ok(())
}

fn insert_commit(
    db: Db<'_>,
    table: Table,
    new: &NewVersion<'_>,
    delta: FileDelta,
    total_files: i64,
    total_bytes: i64,
) -> DbResult<()> {
    db.execute(
        INSERT_COMMIT,
        params![
            table.key,
            new.version.get(),
            new.timestamp.0,
            new.token.map(|(token, _)| token.as_str()),
            new.token.map(|(_, position)| position),
            count(new.index.adds.len() + new.later.map_or(0, LaterAdds::files)),
            count(new.index.removes.len()),
            new.index.added_bytes().saturating_add(new.later.map_or(0, LaterAdds::bytes)),
            delta.bytes_removed,
            new.index.metadata.is_some(),
            new.index.protocol.is_some(),
            total_files,
            total_bytes,
            body_len(new.body),
            new.body.first_line,
            stored_commit_info(new.body, new.index),
        ],
    )?;
    Ok(())
}

/// Stores a commit's bytes.
pub(crate) fn insert_chunks(
    db: Db<'_>,
    table: Table,
    version: i64,
    body: &CommitBody,
) -> DbResult<()> {
    let mut statement = db.prepare(INSERT_CHUNK)?;
    for (number, chunk) in body.rest.zstd.chunks(CHUNK_BYTES).enumerate() {
        statement.execute(params![table.key, version, count(number), chunk])?;
    }
    Ok(())
}

/// Head for an import: of a table in whatever state.
pub(crate) fn import_head(db: Db<'_>, table: Table) -> DbResult<Head> {
    let row = db
        .prepare(HEAD)?
        .query_row([table.id.to_string()], |row| {
            Ok((
                row.get::<_, Option<i64>>(1)?,
                row.get::<_, Option<i64>>(2)?,
                row.get::<_, Option<i64>>(5)?,
                row.get::<_, Option<i64>>(6)?,
            ))
        })
        .optional()?;
    match row {
        Some((Some(version), Some(timestamp), Some(total_files), Some(total_bytes))) => Ok(Head {
            at: Some((Version::new(version)?, TimestampMs(timestamp))),
            total_files,
            total_bytes,
        }),
        Some((None, ..)) => Ok(Head::default()),
        _ => Err(corrupt(table, None, "head", "its commit is missing")),
    }
}
