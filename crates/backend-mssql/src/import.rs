//! Imports: a table that is filled from its log, hidden until it is whole.
//!
//! Each call is one transaction that first takes the row of the table by an `UPDATE`, so that two
//! importers of one table take turns and see what the other one stored.

use deltalakedb_catalog_core::backend::{ImportEnd, ImportProgress, ImportedCommit};
use deltalakedb_catalog_core::commit::CommitIndex;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, MirrorMode, NewTable, TableRecord, TableState,
};
use deltalakedb_catalog_core::support::{
    ImportPosition, body_len, check_between, check_import_commits, check_published, count,
    stored_commit_info,
};

use crate::commit::{Head, NewVersion, insert_chunks, write_projection, write_version};
use crate::errors::{DbError, DbResult};
use crate::files::{FileWriter, UnknownFile};
use crate::rows::text::statements;
use crate::rows::{
    Reader, TABLE_COLUMNS, big, big_opt, bytes, flag, id, table_columns, table_record,
    table_source, text, text_opt,
};
use crate::session::Lease;
use crate::tables::{first, get_table, insert_table, not_found, require_table, state_of};

statements! {
    /// Takes the row, changing nothing.
    LOCK: "UPDATE {p}tables SET state = state WHERE id = @P1 AND state = N'importing'",
    PROGRESS: concat!("SELECT ", table_columns!(), ", t.import_from_json, t.import_base_done,
            t.import_files, t.import_tombstones, t.import_live_files, t.import_live_bytes,
            t.import_history_through
        FROM ", table_source!(), " WHERE t.id = @P1 AND t.state = N'importing'"),
    HEAD_TOTALS: "SELECT c.total_files, c.total_bytes
        FROM {p}tables t JOIN {p}commits c ON c.table_id = t.id AND c.version = t.head_version
        WHERE t.id = @P1",
    STORE_BASE: "UPDATE {p}tables SET import_files = @P2, import_tombstones = @P3,
            import_live_files = @P4, import_live_bytes = @P5
        WHERE id = @P1",
    FINISH_BASE: "UPDATE {p}tables SET import_base_done = 1, head_version = base_version,
            head_timestamp_ms = @P2
        WHERE id = @P1",
    /// The base may have its history already: then it keeps its bytes.
    UPDATE_BASE: "SET NOCOUNT ON; DECLARE @n BIGINT;
        UPDATE {p}commits SET timestamp_ms = @P3, total_files = @P4, total_bytes = @P5
        WHERE table_id = @P1 AND version = @P2;
        SET @n = @@ROWCOUNT;
        SELECT @n AS changed",
    INSERT_BASE: "INSERT INTO {p}commits (table_id, version, timestamp_ms, num_added,
            num_removed, bytes_added, bytes_removed, changes_metadata, changes_protocol,
            total_files, total_bytes, has_body, body_len)
        VALUES (@P1, @P2, @P3, 0, 0, 0, 0, 0, 0, @P4, @P5, 0, 0)",
    /// The base may be there without its bytes: then it keeps its timestamp and totals.
    UPDATE_HISTORY: "SET NOCOUNT ON; DECLARE @n BIGINT;
        UPDATE {p}commits SET num_added = @P4, num_removed = @P5, bytes_added = @P6,
            bytes_removed = @P7, changes_metadata = @P8, changes_protocol = @P9, has_body = 1,
            body_len = @P10, first_line = @P11, commit_info = @P12, token = @P13,
            batch_position = @P14
        WHERE table_id = @P1 AND version = @P2 AND @P3 = @P3;
        SET @n = @@ROWCOUNT;
        SELECT @n AS changed",
    INSERT_HISTORY: "INSERT INTO {p}commits (table_id, version, timestamp_ms, num_added,
            num_removed, bytes_added, bytes_removed, changes_metadata, changes_protocol,
            total_files, total_bytes, has_body, body_len, first_line, commit_info, token,
            batch_position)
        VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, 0, 0, 1, @P10, @P11, @P12, @P13,
            @P14)",
    STORE_HISTORY: "UPDATE {p}tables SET import_history_through = @P2 WHERE id = @P1",
    STORE_HEAD: "UPDATE {p}tables SET head_version = @P2, head_timestamp_ms = @P3,
            barrier_version = @P4
        WHERE id = @P1",
    NEIGHBOURS: "SELECT
        (SELECT MAX(timestamp_ms) FROM {p}commits WHERE table_id = @P1 AND version < @P2),
        (SELECT MIN(timestamp_ms) FROM {p}commits WHERE table_id = @P1 AND version > @P2)",
    /// A row that is there is locked: no pass of upkeep forgets the token meanwhile.
    INSERT_TOKEN: "UPDATE {p}batches SET committed_at_ms = committed_at_ms WHERE token = @P1;
        IF @@ROWCOUNT = 0
            INSERT INTO {p}batches (token, committed_at_ms) VALUES (@P1, @P2)",
    HAS_STATE: "SELECT (SELECT COUNT(*) FROM {p}protocols WHERE table_id = @P1),
        (SELECT COUNT(*) FROM {p}metadata WHERE table_id = @P1)",
    FINISH: "UPDATE {p}tables SET state = @P2, drop_marker = @P3, created_at_ms = @P4,
            dropped_at_ms = @P5
        WHERE id = @P1",
    PUBLISH: "UPDATE {p}mirror SET published_version = @P2 WHERE table_id = @P1",
    /// Tokens that no version of another table has.
    DELETE_TOKENS: "DELETE FROM {p}batches WHERE token IN (
            SELECT c.token FROM {p}commits c WHERE c.table_id = @P1 AND NOT EXISTS (
                SELECT 1 FROM {p}commits o WHERE o.token = c.token AND o.table_id <> @P1))",
    DELETE_FILES: "DELETE FROM {p}files WHERE table_id = @P1",
    DELETE_CHUNKS: "DELETE FROM {p}commit_chunks WHERE table_id = @P1",
    DELETE_COMMITS: "DELETE FROM {p}commits WHERE table_id = @P1",
    DELETE_PROTOCOLS: "DELETE FROM {p}protocols WHERE table_id = @P1",
    DELETE_METADATA: "DELETE FROM {p}metadata WHERE table_id = @P1",
    DELETE_TXNS: "DELETE FROM {p}txns WHERE table_id = @P1",
    DELETE_DOMAINS: "DELETE FROM {p}domain_metadata WHERE table_id = @P1",
    DELETE_MIRROR: "DELETE FROM {p}mirror WHERE table_id = @P1",
    DELETE_TABLE: "DELETE FROM {p}tables WHERE id = @P1",
}

/// Where an import is, with what only the backend wants to know.
struct Importing {
    progress: ImportProgress,
    from_json: bool,
    live_files: i64,
    live_bytes: i64,
}

/// Takes the row of an importing table, and reads it.
async fn find(lease: &mut Lease, table: TableId) -> DbResult<Importing> {
    lease.run(LOCK, vec![id(table)]).await?;
    let sets = lease.run(PROGRESS, vec![id(table)]).await?;
    let Some(row) = first(&sets) else { return Err(not_found(table).into()) };
    let called = table.to_string();
    let r = Reader::new(row, &called, None);
    let at = TABLE_COLUMNS;
    Ok(Importing {
        from_json: r.flag(at)?,
        live_files: r.i64(at + 4)?,
        live_bytes: r.i64(at + 5)?,
        progress: ImportProgress {
            table: table_record(row)?,
            base_done: r.flag(at + 1)?,
            base_files: r.count(at + 2)?,
            base_tombstones: r.count(at + 3)?,
            history_through: r.opt_version(at + 6)?,
        },
    })
}

fn invalid<T>(message: String) -> DbResult<T> {
    Err(DbError::Catalog(CatalogError::invalid(message)))
}

pub(crate) async fn begin(
    lease: &mut Lease,
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
    if let Some(live) = get_table(lease, &TableRef::Name(new.name.clone())).await? {
        if live.state == TableState::Importing
            && live.location == new.location
            && live.base_version == base
        {
            let found = find(lease, live.id).await?;
            if found.from_json == from_json {
                return Ok(found.progress);
            }
        }
        return Err(CatalogError::TableExists(new.name.clone()).into());
    }
    if state_of(lease, new.id).await?.is_some() {
        return invalid(format!("table id {} exists already", new.id));
    }
    let state = TableState::Importing;
    match insert_table(lease, new, state, base.get(), from_json, now).await {
        Err(error) if error.is_duplicate() => {
            return Err(CatalogError::TableExists(new.name.clone()).into());
        }
        other => other?,
    }
    Ok(find(lease, new.id).await?.progress)
}

pub(crate) async fn store_base(
    lease: &mut Lease,
    table: TableId,
    skip: (u64, u64),
    chunk: &BaseChunk,
    tail: Option<&BaseTail>,
) -> DbResult<ImportProgress> {
    let import = find(lease, table).await?;
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
        let (below, above) = neighbours(lease, table, base).await?;
        check_between(&progress.table, base, tail.timestamp, below, above)?;
    }
    let files = stored(progress.base_files);
    let mut tombstones = stored(progress.base_tombstones);
    let writer = FileWriter { table, version: base.get() };
    let delta = writer.base(lease, &chunk.files, files).await?;
    for remove in &chunk.tombstones {
        writer.tombstone(lease, remove, tombstones).await?;
        tombstones += 1;
    }
    let files = files.saturating_add(count(chunk.files.len()));
    let live_files = import.live_files.saturating_add(delta.files);
    let live_bytes = import.live_bytes.saturating_add(delta.bytes);
    let values = vec![id(table), big(files), big(tombstones), big(live_files), big(live_bytes)];
    lease.run(STORE_BASE, values).await?;
    if let Some(tail) = tail {
        finish_base(lease, table, base.get(), tail, live_files, live_bytes).await?;
    }
    Ok(find(lease, table).await?.progress)
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// How many rows a statement that answers with it changed.
async fn changed(
    lease: &mut Lease,
    statement: &str,
    values: Vec<tiberius::ColumnData<'_>>,
) -> DbResult<i64> {
    let sets = lease.run(statement, values).await?;
    first(&sets).map_or(Ok(0), |row| Reader::new(row, "tables", None).i64(0))
}

async fn finish_base(
    lease: &mut Lease,
    table: TableId,
    base: i64,
    tail: &BaseTail,
    live_files: i64,
    live_bytes: i64,
) -> DbResult<()> {
    let index = CommitIndex {
        protocol: Some(tail.protocol.clone()),
        metadata: Some(tail.metadata.clone()),
        txns: tail.txns.clone(),
        domain_metadata: tail.domain_metadata.clone(),
        ..CommitIndex::default()
    };
    write_projection(lease, table, base, &index).await?;
    let values =
        || vec![id(table), big(base), big(tail.timestamp.0), big(live_files), big(live_bytes)];
    if changed(lease, UPDATE_BASE, values()).await? == 0 {
        lease.run(INSERT_BASE, values()).await?;
    }
    lease.run(FINISH_BASE, vec![id(table), big(tail.timestamp.0)]).await?;
    Ok(())
}

/// Timestamps of the stored versions next below and next above: they grow with the version.
async fn neighbours(
    lease: &mut Lease,
    table: TableId,
    version: Version,
) -> DbResult<(Option<TimestampMs>, Option<TimestampMs>)> {
    let sets = lease.run(NEIGHBOURS, vec![id(table), big(version.get())]).await?;
    let Some(row) = first(&sets) else { return Ok((None, None)) };
    let called = table.to_string();
    let r = Reader::new(row, &called, Some(version.get()));
    Ok((r.opt_time(0)?, r.opt_time(1)?))
}

pub(crate) async fn store_commits(
    lease: &mut Lease,
    table: TableId,
    commits: &[ImportedCommit],
) -> DbResult<ImportProgress> {
    let import = find(lease, table).await?;
    let record = &import.progress.table;
    let position = ImportPosition {
        table: record,
        from_json: import.from_json,
        base_done: import.progress.base_done,
        history_through: import.progress.history_through,
    };
    let mut known = Vec::with_capacity(commits.len());
    for commit in commits {
        known.push(neighbours(lease, table, commit.version).await?);
    }
    let mut known = known.into_iter();
    check_import_commits(position, commits, |_| {
        Ok::<_, DbError>(known.next().unwrap_or((None, None)))
    })?;
    let mut head = head(lease, record).await?;
    let mut barrier = record.barrier_version;
    let mut history = None;
    let mut applied = false;
    for commit in commits {
        if let Some((token, _)) = &commit.token {
            let values = vec![bytes(token.as_str().as_bytes()), big(commit.timestamp.0)];
            lease.run(INSERT_TOKEN, values).await?;
        }
        if position.is_applied(commit.version) {
            head = apply(lease, table, head, commit).await?;
            applied = true;
            if commit.index.metadata.is_some() || commit.index.protocol.is_some() {
                barrier = commit.version;
            }
        } else {
            store_history(lease, table, commit).await?;
            history = Some(commit.version);
        }
    }
    if let (Some((version, timestamp)), true) = (head.at, applied) {
        let values = vec![id(table), big(version.get()), big(timestamp.0), big(barrier.get())];
        lease.run(STORE_HEAD, values).await?;
    }
    if let Some(history) = history {
        lease.run(STORE_HISTORY, vec![id(table), big(history.get())]).await?;
    }
    Ok(find(lease, table).await?.progress)
}

async fn head(lease: &mut Lease, record: &TableRecord) -> DbResult<Head> {
    let (Some(version), Some(timestamp)) = (record.head, record.head_timestamp) else {
        return Ok(Head::default());
    };
    let sets = lease.run(HEAD_TOTALS, vec![id(record.id)]).await?;
    let called = record.id.to_string();
    let Some(row) = first(&sets) else {
        return Err(crate::rows::corrupt(&called, None, "head", "its commit is missing"));
    };
    let r = Reader::new(row, &called, Some(version.get()));
    Ok(Head { at: Some((version, timestamp)), total_files: r.i64(0)?, total_bytes: r.i64(1)? })
}

/// A token with the table's place in its batch, as parameters.
fn token_values(commit: &ImportedCommit) -> [tiberius::ColumnData<'_>; 2] {
    match &commit.token {
        Some((token, position)) => [bytes(token.as_str().as_bytes()), big(i64::from(*position))],
        None => [tiberius::ColumnData::Binary(None), big_opt(None)],
    }
}

async fn apply(
    lease: &mut Lease,
    table: TableId,
    head: Head,
    commit: &ImportedCommit,
) -> DbResult<Head> {
    let new = NewVersion {
        version: commit.version,
        timestamp: commit.timestamp,
        token: commit.token.as_ref().map(|(token, position)| (token, i64::from(*position))),
        body: &commit.body,
        index: &commit.index,
        unknown: UnknownFile::Tombstone,
    };
    write_version(lease, table, head, &new).await?.or_else(|key| {
        invalid(format!("version {} removes {key}, which is not in the table", commit.version))
    })
}

/// A commit at or below the base: a line of history and its bytes.
async fn store_history(lease: &mut Lease, table: TableId, commit: &ImportedCommit) -> DbResult<()> {
    let index = &commit.index;
    let bytes_removed =
        index.removes.iter().fold(0_i64, |sum, r| sum.saturating_add(r.size.unwrap_or(0)));
    let values = || {
        let mut values = vec![
            id(table),
            big(commit.version.get()),
            big(commit.timestamp.0),
            big(count(index.adds.len())),
            big(count(index.removes.len())),
            big(index.added_bytes()),
            big(bytes_removed),
            flag(index.metadata.is_some()),
            flag(index.protocol.is_some()),
            big(body_len(&commit.body)),
            text_opt(commit.body.first_line.as_deref()),
            text_opt(stored_commit_info(&commit.body, index)),
        ];
        values.extend(token_values(commit));
        values
    };
    if changed(lease, UPDATE_HISTORY, values()).await? == 0 {
        lease.run(INSERT_HISTORY, values()).await?;
    }
    insert_chunks(lease, table, commit.version.get(), &commit.body).await
}

pub(crate) async fn finish(
    lease: &mut Lease,
    table: TableId,
    end: ImportEnd,
    now: TimestampMs,
) -> DbResult<TableRecord> {
    let import = find(lease, table).await?;
    let record = &import.progress.table;
    let sets = lease.run(HAS_STATE, vec![id(table)]).await?;
    let has_state = match first(&sets) {
        Some(row) => {
            let r = Reader::new(row, "protocols", None);
            r.i64(0)? > 0 && r.i64(1)? > 0
        }
        None => false,
    };
    if record.head.is_none() || !has_state {
        return Err(CatalogError::corrupt(format!(
            "import of '{}' has no version, protocol or metadata: the log it was read from is \
             incomplete",
            record.name
        ))
        .into());
    }
    check_published(record, end.published)?;
    let (state, marker) = match end.dropped_at {
        Some(_) => (TableState::Dropped, table.to_string()),
        None => (TableState::Active, String::new()),
    };
    let values = vec![
        id(table),
        text(state.as_str()),
        text(&marker),
        big(end.created_at.unwrap_or(record.created_at).0),
        big_opt(end.dropped_at.map(|time| time.0)),
    ];
    lease.run(FINISH, values).await?;
    let values = vec![id(table), big_opt(end.published.map(Version::get))];
    lease.run(PUBLISH, values).await?;
    if record.mirror != MirrorMode::Off {
        crate::outbox::enqueue_missing(lease, table, end.published, now).await?;
    }
    require_table(lease, table).await
}

pub(crate) async fn abort(lease: &mut Lease, table: TableId) -> DbResult<()> {
    find(lease, table).await?;
    for statement in [
        DELETE_TOKENS,
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
        lease.run(statement, vec![id(table)]).await?;
    }
    Ok(())
}
