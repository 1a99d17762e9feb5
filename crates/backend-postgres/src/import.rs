//! Imports: a table that is filled from its log, hidden until it is whole.
//!
//! Each verb is one transaction that holds the table's row.

pub(crate) mod run;

use std::collections::HashSet;

use deltalakedb_catalog_core::action::{DomainMetadata, Metadata, Protocol, Remove, Txn};
use deltalakedb_catalog_core::audit::{Act, action};
use deltalakedb_catalog_core::backend::{ImportEnd, ImportProgress, ImportedCommit};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::later::LaterAdds;
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, MirrorMode, NewTable, TableRecord, TableState,
};
use deltalakedb_catalog_core::support::{
    ImportPosition, body_len, check_between, check_import_commits, check_published, count,
    stored_commit_info,
};
use sqlx::Row;

use crate::audit;
use crate::commit::columns::{DomainColumns, TxnColumns, insert_chunks};
use crate::errors::{DbError, DbResult};
use crate::files::{FileWriter, Keys, big, reported};
use crate::outbox;
use crate::rows::{Reader, TABLE_COLUMNS, key, table_columns, table_record, table_source, to_json};
use crate::session::{Args, Call, statements};
use crate::tables::{get_table, insert_table, lock, not_found, require_table, state_of};

use run::Run;

statements! {
    PROGRESS: concat!("SELECT ", table_columns!(), ", t.import_from_json, t.import_base_done,
            t.import_files, t.import_tombstones, t.import_history_through, t.head_files,
            t.head_bytes::text
        FROM ", table_source!(), " WHERE t.id = $1 AND t.state = 'importing'"),
    STORE_BASE: "UPDATE {p}tables SET import_files = $2, import_tombstones = $3,
            head_files = $4, head_bytes = $5::text::numeric
        WHERE id = $1",
    FINISH_BASE: "UPDATE {p}tables SET import_base_done = true, head_version = base_version,
            head_timestamp_ms = $2
        WHERE id = $1",
    /// The base may have its history already: then it keeps its bytes.
    UPDATE_BASE: concat!("UPDATE {p}commits SET timestamp_ms = $3, total_files = $4, total_bytes = $5
        WHERE table_key = ", key!(), " AND version = $2"),
    INSERT_BASE: concat!("INSERT INTO {p}commits (table_key, version, timestamp_ms, num_added,
            num_removed, bytes_added, bytes_removed, changes_metadata, changes_protocol,
            total_files, total_bytes, has_body, body_len)
        VALUES (", key!(), ", $2, $3, 0, 0, 0, 0, false, false, $4, $5, false, 0)"),
    /// The base may be there without its bytes: then it keeps its timestamp and totals.
    UPDATE_HISTORY: concat!("UPDATE {p}commits SET num_added = $3, num_removed = $4, bytes_added = $5,
            bytes_removed = $6, changes_metadata = $7, changes_protocol = $8, has_body = true,
            body_len = $9, first_line = $10, commit_info = $11, token = $12,
            batch_position = $13
        WHERE table_key = ", key!(), " AND version = $2"),
    INSERT_COMMIT: concat!("INSERT INTO {p}commits (table_key, version, num_added, num_removed,
            bytes_added, bytes_removed, changes_metadata, changes_protocol, body_len,
            first_line, commit_info, token, batch_position, timestamp_ms, total_files,
            total_bytes, has_body)
        VALUES (", key!(), ", $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, true)"),
    STORE_HISTORY: "UPDATE {p}tables SET import_history_through = $2 WHERE id = $1",
    /// The compare-and-set of an applied commit.
    MOVE_HEAD: "UPDATE {p}tables SET head_version = $2, head_timestamp_ms = $3,
            head_files = $4, head_bytes = $5::text::numeric,
            barrier_version = CASE WHEN $6 THEN $2 ELSE barrier_version END
        WHERE id = $1 AND head_version IS NOT DISTINCT FROM $7",
    /// Timestamps of the stored versions in and around a range.
    TIMES: concat!("(SELECT version, timestamp_ms FROM {p}commits
            WHERE table_key = ", key!(), " AND version < $2 ORDER BY version DESC LIMIT 1)
        UNION ALL
        (SELECT version, timestamp_ms FROM {p}commits
            WHERE table_key = ", key!(), " AND version >= $2 AND version <= $3)
        UNION ALL
        (SELECT version, timestamp_ms FROM {p}commits
            WHERE table_key = ", key!(), " AND version > $3 ORDER BY version LIMIT 1)
        ORDER BY 1"),
    /// A row that is there is locked, and stays as it is: no pass of upkeep forgets the token meanwhile.
    KNOW_TOKEN: "INSERT INTO {p}batches AS b (token, committed_at_ms) VALUES ($1, $2)
        ON CONFLICT (token) DO UPDATE SET token = b.token WHERE false",
    INSERT_PROTOCOL: concat!("INSERT INTO {p}protocols (table_key, version, protocol)
        VALUES (", key!(), ", $2, $3)"),
    INSERT_METADATA: concat!("INSERT INTO {p}metadata (table_key, version, metadata)
        VALUES (", key!(), ", $2, $3)"),
    INSERT_TXNS: concat!("INSERT INTO {p}txns (table_key, version, app_key, app_id, app_version,
            last_updated)
        SELECT ", key!(), ", $2, x.key, x.app_id, x.app_version, x.last_updated
        FROM unnest($3::bytea[], $4::text[], $5::int8[], $6::int8[])
            AS x (key, app_id, app_version, last_updated)"),
    INSERT_DOMAINS: concat!("INSERT INTO {p}domain_metadata (table_key, version, domain_key, domain,
            removed, configuration)
        SELECT ", key!(), ", $2, x.key, x.domain, x.removed, x.configuration
        FROM unnest($3::bytea[], $4::text[], $5::bool[], $6::text[])
            AS x (key, domain, removed, configuration)"),
    HAS_STATE: concat!("SELECT EXISTS (SELECT 1 FROM {p}protocols WHERE table_key = ", key!(), ")
        AND EXISTS (SELECT 1 FROM {p}metadata WHERE table_key = ", key!(), ")"),
    FINISH: "UPDATE {p}tables SET state = $2, created_at_ms = $3, dropped_at_ms = $4,
            drop_marker = CASE WHEN $4::int8 IS NULL THEN '' ELSE id::text END
        WHERE id = $1",
    PUBLISH: concat!("UPDATE {p}mirror SET published_version = $2 WHERE table_key = ", key!()),
    /// Tokens that nothing but this table's commits know.
    DELETE_BATCHES: concat!("DELETE FROM {p}batches b
        USING {p}commits c
        WHERE c.table_key = ", key!(), " AND c.token = b.token AND NOT EXISTS (
            SELECT 1 FROM {p}commits o WHERE o.token = c.token AND o.table_key <> c.table_key)"),
    DELETE_FILES: concat!("DELETE FROM {p}files WHERE table_key = ", key!()),
    DELETE_CHUNKS: concat!("DELETE FROM {p}commit_chunks WHERE table_key = ", key!()),
    DELETE_COMMITS: concat!("DELETE FROM {p}commits WHERE table_key = ", key!()),
    DELETE_PROTOCOLS: concat!("DELETE FROM {p}protocols WHERE table_key = ", key!()),
    DELETE_METADATA: concat!("DELETE FROM {p}metadata WHERE table_key = ", key!()),
    DELETE_TXNS: concat!("DELETE FROM {p}txns WHERE table_key = ", key!()),
    DELETE_DOMAINS: concat!("DELETE FROM {p}domain_metadata WHERE table_key = ", key!()),
    DELETE_MIRROR: concat!("DELETE FROM {p}mirror WHERE table_key = ", key!()),
    DELETE_TABLE: "DELETE FROM {p}tables WHERE id = $1",
}

/// Where an import is, with what only the backend wants to know.
struct Importing {
    progress: ImportProgress,
    from_json: bool,
    files: i64,
    bytes: i128,
}

async fn find(call: &mut Call, id: TableId) -> DbResult<Importing> {
    let Some(row) = call.fetch_optional(PROGRESS, Args::of(id)).await? else {
        return Err(not_found(id).into());
    };
    let called = id.to_string();
    let r = Reader::new(&row, &called, None);
    let at = TABLE_COLUMNS;
    Ok(Importing {
        from_json: r.get(at)?,
        files: r.get(at + 5)?,
        bytes: big(r.get(at + 6)?)?,
        progress: ImportProgress {
            table: table_record(&row)?,
            base_done: r.get(at + 1)?,
            base_files: r.count(at + 2)?,
            base_tombstones: r.count(at + 3)?,
            history_through: r.version_opt(at + 4)?,
        },
    })
}

/// Locks an importing table's row, and reads it.
async fn find_locked(call: &mut Call, id: TableId) -> DbResult<Importing> {
    lock(call, id).await?;
    find(call, id).await
}

fn invalid<T>(message: String) -> DbResult<T> {
    Err(DbError::Catalog(CatalogError::invalid(message)))
}

pub(crate) async fn begin(
    call: &mut Call,
    new: &NewTable,
    base: Version,
    from_json: bool,
    now: TimestampMs,
) -> DbResult<ImportProgress> {
    if from_json && base != Version::ZERO {
        return invalid(format!(
            "import of '{}': a log that is replayed from JSON starts at version 0, not {base}",
            new.name
        ));
    }
    if let Some(live) = get_table(call, &TableRef::Name(new.name.clone())).await? {
        if live.state == TableState::Importing
            && live.location == new.location
            && live.base_version == base
        {
            let found = find(call, live.id).await?;
            if found.from_json == from_json {
                return Ok(found.progress);
            }
        }
        return Err(CatalogError::TableExists(new.name.clone()).into());
    }
    if state_of(call, new.id).await?.is_some() {
        return invalid(format!("table id {} exists already", new.id));
    }
    match insert_table(call, new, TableState::Importing, base.get(), from_json, now).await {
        // Someone else took the name since we looked.
        Err(error) if error.is_unique_violation() => {
            return Err(CatalogError::TableExists(new.name.clone()).into());
        }
        other => other?,
    }
    Ok(find(call, new.id).await?.progress)
}

pub(crate) async fn store_base(
    call: &mut Call,
    id: TableId,
    skip: (u64, u64),
    chunk: &BaseChunk,
    tail: Option<&BaseTail>,
) -> DbResult<ImportProgress> {
    let import = find_locked(call, id).await?;
    let progress = &import.progress;
    let name = &progress.table.name;
    if progress.base_done {
        return invalid(format!("import of '{name}': its base is complete"));
    }
    if skip != (progress.base_files, progress.base_tombstones) {
        return invalid(format!(
            "import of '{name}': this chunk continues after {} files and {} tombstones, but {} \
             and {} are stored: another import is at work",
            skip.0, skip.1, progress.base_files, progress.base_tombstones
        ));
    }
    let base = progress.table.base_version;
    if let Some(tail) = tail {
        let times = stored_times(call, id, base, base).await?;
        let (below, above) = times.around(base);
        check_between(&progress.table, base, tail.timestamp, below, above)?;
    }
    let position = |stored: u64| usize::try_from(stored).unwrap_or(usize::MAX);
    let keys = Keys::of(&chunk.files, &[]);
    let mut writer = FileWriter::new(call, id, base.get());
    writer.add(&chunk.files, &keys, position(progress.base_files)).await?;
    let tombstones: Vec<(usize, &Remove)> = chunk.tombstones.iter().enumerate().collect();
    writer.tombstones(&tombstones, position(progress.base_tombstones)).await?;
    let ended = writer.ended;
    let files = import.files.saturating_add(keys.live_files).saturating_sub(ended.files);
    let bytes = import.bytes + keys.live_bytes - ended.bytes;
    let stored = |before: u64, more: usize| count(position(before).saturating_add(more));
    let args = Args::of(id)
        .bind(stored(progress.base_files, chunk.files.len()))
        .bind(stored(progress.base_tombstones, chunk.tombstones.len()))
        .bind(files)
        .bind(bytes.to_string());
    call.execute(STORE_BASE, args).await?;
    if let Some(tail) = tail {
        let projection = Projection {
            protocol: Some(&tail.protocol),
            metadata: Some(&tail.metadata),
            txns: &tail.txns,
            domains: &tail.domain_metadata,
        };
        projection.write(call, id, base).await?;
        let totals = || {
            Args::of(id).bind(base.get()).bind(tail.timestamp.0).bind(files).bind(reported(bytes))
        };
        if call.execute(UPDATE_BASE, totals()).await? == 0 {
            call.execute(INSERT_BASE, totals()).await?;
        }
        let args = Args::of(id).bind(tail.timestamp.0);
        call.execute(FINISH_BASE, args).await?;
    }
    Ok(find(call, id).await?.progress)
}

/// What a version says besides its files.
struct Projection<'v> {
    protocol: Option<&'v Protocol>,
    metadata: Option<&'v Metadata>,
    txns: &'v [Txn],
    domains: &'v [DomainMetadata],
}

impl Projection<'_> {
    async fn write(&self, call: &mut Call, id: TableId, version: Version) -> DbResult<()> {
        let args = || Args::of(id).bind(version.get());
        if let Some(protocol) = self.protocol {
            call.execute(INSERT_PROTOCOL, args().bind(to_json(protocol)?)).await?;
        }
        if let Some(metadata) = self.metadata {
            call.execute(INSERT_METADATA, args().bind(to_json(metadata)?)).await?;
        }
        if !self.txns.is_empty() {
            let mut columns = TxnColumns::default();
            columns.push(0, self.txns);
            call.execute(INSERT_TXNS, columns.bind_values(args())).await?;
        }
        if !self.domains.is_empty() {
            let mut columns = DomainColumns::default();
            columns.push(0, self.domains);
            call.execute(INSERT_DOMAINS, columns.bind_values(args())).await?;
        }
        Ok(())
    }
}

/// Timestamps of the stored versions in and around a range, by version.
struct Times(Vec<(Version, TimestampMs)>);

impl Times {
    /// Of the versions next below and next above.
    fn around(&self, version: Version) -> (Option<TimestampMs>, Option<TimestampMs>) {
        let below = self.0.iter().rev().find(|(stored, _)| *stored < version);
        let above = self.0.iter().find(|(stored, _)| *stored > version);
        (below.map(|(_, time)| *time), above.map(|(_, time)| *time))
    }
}

async fn stored_times(call: &mut Call, id: TableId, from: Version, to: Version) -> DbResult<Times> {
    let args = Args::of(id).bind(from.get()).bind(to.get());
    let mut times = Vec::new();
    for row in &call.fetch(TIMES, args).await? {
        times.push((Version::new(row.try_get(0)?)?, TimestampMs(row.try_get(1)?)));
    }
    Ok(Times(times))
}

/// The head while commits are applied.
pub(crate) struct Head {
    pub(crate) version: Option<Version>,
    pub(crate) files: i64,
    pub(crate) bytes: i128,
}

pub(crate) async fn store_commits(
    call: &mut Call,
    id: TableId,
    commits: &[ImportedCommit],
) -> DbResult<ImportProgress> {
    let import = find_locked(call, id).await?;
    let position = ImportPosition {
        table: &import.progress.table,
        from_json: import.from_json,
        base_done: import.progress.base_done,
        history_through: import.progress.history_through,
    };
    let versions = || commits.iter().map(|commit| commit.version);
    let (Some(lowest), Some(highest)) = (versions().min(), versions().max()) else {
        return Ok(import.progress);
    };
    let times = stored_times(call, id, lowest, highest).await?;
    check_import_commits(position, commits, |version| Ok::<_, DbError>(times.around(version)))?;
    let mut head =
        Head { version: import.progress.table.head, files: import.files, bytes: import.bytes };
    let mut history = None;
    let mut rest = commits;
    while let Some((commit, others)) = rest.split_first() {
        if let Some(run) = Run::at(rest, |version| position.is_applied(version)) {
            run.apply(call, id, &mut head).await?;
            rest = rest.get(run.len()..).unwrap_or_default();
            continue;
        }
        rest = others;
        if let Some((token, _)) = &commit.token {
            let args = Args::new().bind(token.as_str()).bind(commit.timestamp.0);
            call.execute(KNOW_TOKEN, args).await?;
        }
        if position.is_applied(commit.version) {
            apply(call, id, &mut head, commit).await?;
        } else {
            store_history(call, id, commit).await?;
            history = Some(commit.version);
        }
    }
    if let Some(history) = history {
        let args = Args::of(id).bind(history.get());
        call.execute(STORE_HISTORY, args).await?;
    }
    Ok(find(call, id).await?.progress)
}

/// A line of history, up to the token's place.
fn line(id: TableId, commit: &ImportedCommit, bytes_removed: i64) -> Args {
    let index = &commit.index;
    let added: i128 = index.adds.iter().map(|add| i128::from(add.size)).sum();
    let added = added + i128::from(commit.later.as_ref().map_or(0, LaterAdds::bytes));
    Args::of(id)
        .bind(commit.version.get())
        .bind(count(commit.num_added()))
        .bind(count(index.removes.len()))
        .bind(reported(added))
        .bind(bytes_removed)
        .bind(index.metadata.is_some())
        .bind(index.protocol.is_some())
        .bind(body_len(&commit.body))
        .text_opt("the first line of the commit", commit.body.first_line.as_deref())
        .text_opt("commitInfo", stored_commit_info(&commit.body, index))
        .bind(commit.token.as_ref().map(|(token, _)| token.as_str()))
        .bind(commit.token.as_ref().map(|(_, place)| i64::from(*place)))
}

/// A commit above the base. Removes of files that are not known become tombstones only.
async fn apply(
    call: &mut Call,
    id: TableId,
    head: &mut Head,
    commit: &ImportedCommit,
) -> DbResult<()> {
    let session = call.session.clone();
    let index = &commit.index;
    let version = commit.version;
    let keys = Keys::of(&index.adds, &index.removes);
    // A log of small commits grows the table as one large commit does.
    session.note_size(head.files);
    let mut writer = FileWriter::new(call, id, version.get());
    let unknown: HashSet<usize> = writer.remove(&index.removes, &keys).await?.into_iter().collect();
    let unknown: Vec<(usize, &Remove)> =
        index.removes.iter().enumerate().filter(|(at, _)| unknown.contains(at)).collect();
    writer.tombstones(&unknown, 0).await?;
    writer.add(&index.adds, &keys, 0).await?;
    let (mut added_files, mut added_bytes) = (keys.live_files, keys.live_bytes);
    if let Some(later) = &commit.later {
        // Without any file in the table, none is in it already: those that the index adds are others.
        let active = head.files != writer.ended.files;
        let (files, bytes) = writer.later(later, index.adds.len(), active).await?;
        added_files = added_files.saturating_add(files);
        added_bytes += bytes;
    }
    let ended = writer.ended;
    let unknown_bytes: i128 = unknown.iter().map(|(_, r)| i128::from(r.size.unwrap_or(0))).sum();
    let bytes_removed = reported(ended.bytes_removed + unknown_bytes);
    let projection = Projection {
        protocol: index.protocol.as_ref(),
        metadata: index.metadata.as_ref(),
        txns: &index.txns,
        domains: &index.domain_metadata,
    };
    projection.write(call, id, version).await?;
    head.files = head.files.saturating_add(added_files).saturating_sub(ended.files);
    head.bytes += added_bytes - ended.bytes;
    let args = line(id, commit, bytes_removed)
        .bind(commit.timestamp.0)
        .bind(head.files)
        .bind(reported(head.bytes));
    call.execute(INSERT_COMMIT, args).await?;
    insert_chunks(call, id, version.get(), &commit.body.rest.zstd).await?;
    let expected = head.version.replace(version);
    move_head(call, id, head, commit, expected).await
}

/// Makes this commit the head.
pub(crate) async fn move_head(
    call: &mut Call,
    id: TableId,
    head: &Head,
    commit: &ImportedCommit,
    expected: Option<Version>,
) -> DbResult<()> {
    let args = Args::of(id)
        .bind(commit.version.get())
        .bind(commit.timestamp.0)
        .bind(head.files)
        .bind(head.bytes.to_string())
        .bind(commit.index.metadata.is_some() || commit.index.protocol.is_some())
        .bind(expected.map(Version::get));
    if call.execute(MOVE_HEAD, args).await? != 1 {
        let what = "it moved while its row was locked";
        return Err(crate::rows::corrupt(id, Some(commit.version.get()), "head", what));
    }
    Ok(())
}

/// A commit at or below the base: a line of history and its bytes.
async fn store_history(call: &mut Call, id: TableId, commit: &ImportedCommit) -> DbResult<()> {
    let removes = &commit.index.removes;
    let bytes_removed = reported(removes.iter().map(|r| i128::from(r.size.unwrap_or(0))).sum());
    if call.execute(UPDATE_HISTORY, line(id, commit, bytes_removed)).await? == 0 {
        let args = line(id, commit, bytes_removed).bind(commit.timestamp.0).bind(0_i64).bind(0_i64);
        call.execute(INSERT_COMMIT, args).await?;
    }
    insert_chunks(call, id, commit.version.get(), &commit.body.rest.zstd).await
}

pub(crate) async fn finish(
    call: &mut Call,
    id: TableId,
    end: ImportEnd,
    act: &Act,
) -> DbResult<TableRecord> {
    let import = find_locked(call, id).await?;
    let record = &import.progress.table;
    let row = call.fetch_one(HAS_STATE, Args::of(id)).await?;
    if record.head.is_none() || !row.try_get::<bool, _>(0)? {
        return Err(CatalogError::corrupt(format!(
            "import of '{}' has no version, protocol or metadata: the log it was read from is \
             incomplete",
            record.name
        ))
        .into());
    }
    check_published(record, end.published)?;
    let state = if end.dropped_at.is_some() { TableState::Dropped } else { TableState::Active };
    let args = Args::of(id)
        .bind(state.as_str())
        .bind(end.created_at.unwrap_or(record.created_at).0)
        .bind(end.dropped_at.map(|time| time.0));
    call.execute(FINISH, args).await?;
    let args = Args::of(id).bind(end.published.map(Version::get));
    call.execute(PUBLISH, args).await?;
    if record.mirror != MirrorMode::Off {
        outbox::enqueue_missing(call, id, end.published, act.at).await?;
    }
    let finished = require_table(call, id).await?;
    audit::keep(call, &act.imported(&finished)).await?;
    Ok(finished)
}

pub(crate) async fn abort(call: &mut Call, id: TableId, act: &Act) -> DbResult<()> {
    let table = find_locked(call, id).await?.progress.table;
    audit::keep(call, &act.on(action::IMPORT_ABORT, &table)).await?;
    for text in [
        DELETE_BATCHES,
        DELETE_FILES,
        DELETE_CHUNKS,
        DELETE_COMMITS,
        DELETE_PROTOCOLS,
        DELETE_METADATA,
        DELETE_TXNS,
        DELETE_DOMAINS,
        DELETE_MIRROR,
        DELETE_TABLE,
    ] {
        call.execute(text, Args::of(id)).await?;
    }
    Ok(())
}
