//! Imports: a table that is filled from its log, hidden until it is whole.

use deltalakedb_catalog_core::audit::{Act, action};
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
use rusqlite::{OptionalExtension, params};

use crate::audit;
use crate::commit::{
    Head, NewVersion, import_head, insert_chunks, write_projection, write_version,
};
use crate::errors::{DbError, DbResult};
use crate::files::{FileWriter, UnknownFile};
use crate::outbox;
use crate::rows::text::statements;
use crate::rows::{Reader, TABLE_COLUMNS, Table, table_columns, table_record, table_source};
use crate::session::Db;
use crate::tables::{self, get_table, insert_table, not_found, require_table};

statements! {
    PROGRESS: concat!("SELECT ", table_columns!(), ", t.import_from_json, t.import_base_done,
            t.import_files, t.import_tombstones, t.import_live_files, t.import_live_bytes,
            t.import_history_through, t.table_key
        FROM ", table_source!(), " WHERE t.id = ?1 AND t.state = 'importing'"),
    STORE_BASE: "UPDATE {p}tables SET import_files = ?2, import_tombstones = ?3,
            import_live_files = ?4, import_live_bytes = ?5
        WHERE table_key = ?1",
    FINISH_BASE: "UPDATE {p}tables SET import_base_done = 1, head_version = base_version,
            head_timestamp_ms = ?2
        WHERE table_key = ?1",
    /// The base may have its history already: then it keeps its bytes.
    UPSERT_BASE: "INSERT INTO {p}commits (table_key, version, timestamp_ms, num_added,
            num_removed, bytes_added, bytes_removed, changes_metadata, changes_protocol,
            total_files, total_bytes, has_body, body_len)
        VALUES (?1, ?2, ?3, 0, 0, 0, 0, 0, 0, ?4, ?5, 0, 0)
        ON CONFLICT (table_key, version) DO UPDATE SET timestamp_ms = excluded.timestamp_ms,
            total_files = excluded.total_files, total_bytes = excluded.total_bytes",
    /// The base may be there without its bytes: then it keeps its timestamp and totals.
    UPSERT_HISTORY: "INSERT INTO {p}commits (table_key, version, timestamp_ms, num_added,
            num_removed, bytes_added, bytes_removed, changes_metadata, changes_protocol,
            total_files, total_bytes, has_body, body_len, first_line, commit_info, token,
            batch_position)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, 0, 1, ?10, ?11, ?12, ?13, ?14)
        ON CONFLICT (table_key, version) DO UPDATE SET num_added = excluded.num_added,
            num_removed = excluded.num_removed, bytes_added = excluded.bytes_added,
            bytes_removed = excluded.bytes_removed,
            changes_metadata = excluded.changes_metadata,
            changes_protocol = excluded.changes_protocol, has_body = 1,
            body_len = excluded.body_len, first_line = excluded.first_line,
            commit_info = excluded.commit_info, token = excluded.token,
            batch_position = excluded.batch_position",
    KNOW_TOKEN: "INSERT INTO {p}batches (token, committed_at_ms) VALUES (?1, ?2)
        ON CONFLICT (token) DO NOTHING",
    STORE_HISTORY: "UPDATE {p}tables SET import_history_through = ?2 WHERE table_key = ?1",
    NEIGHBOURS: "SELECT
        (SELECT timestamp_ms FROM {p}commits WHERE table_key = ?1 AND version < ?2
            ORDER BY version DESC LIMIT 1),
        (SELECT timestamp_ms FROM {p}commits WHERE table_key = ?1 AND version > ?2
            ORDER BY version LIMIT 1)",
    HAS_STATE: "SELECT EXISTS (SELECT 1 FROM {p}protocols WHERE table_key = ?1)
        AND EXISTS (SELECT 1 FROM {p}metadata WHERE table_key = ?1)",
    FINISH: "UPDATE {p}tables SET state = ?2, dropped_at_ms = ?3,
            created_at_ms = coalesce(?4, created_at_ms),
            drop_marker = CASE WHEN ?3 IS NULL THEN '' ELSE id END
        WHERE table_key = ?1",
    PUBLISH: "UPDATE {p}mirror SET published_version = ?2 WHERE table_key = ?1",
    /// Tokens that nothing but this table's commits know.
    DELETE_BATCHES: "DELETE FROM {p}batches WHERE token IN (
            SELECT token FROM {p}commits WHERE table_key = ?1 AND token IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM {p}commits c
            WHERE c.token = {p}batches.token AND c.table_key <> ?1)",
    DELETE_FILES: "DELETE FROM {p}files WHERE table_key = ?1",
    DELETE_CHUNKS: "DELETE FROM {p}commit_chunks WHERE table_key = ?1",
    DELETE_COMMITS: "DELETE FROM {p}commits WHERE table_key = ?1",
    DELETE_PROTOCOLS: "DELETE FROM {p}protocols WHERE table_key = ?1",
    DELETE_METADATA: "DELETE FROM {p}metadata WHERE table_key = ?1",
    DELETE_TXNS: "DELETE FROM {p}txns WHERE table_key = ?1",
    DELETE_DOMAINS: "DELETE FROM {p}domain_metadata WHERE table_key = ?1",
    DELETE_MIRROR: "DELETE FROM {p}mirror WHERE table_key = ?1",
    DELETE_TABLE: "DELETE FROM {p}tables WHERE table_key = ?1",
}

/// Where an import is, with what only the backend wants to know.
struct Importing {
    table: Table,
    progress: ImportProgress,
    from_json: bool,
    live_files: i64,
    live_bytes: i64,
}

fn find(db: Db<'_>, id: TableId) -> DbResult<Importing> {
    let mut statement = db.prepare(PROGRESS)?;
    let mut rows = statement.query([id.to_string()])?;
    let Some(row) = rows.next()? else { return Err(not_found(id).into()) };
    let r = Reader::new(row, &id, None);
    let at = TABLE_COLUMNS;
    Ok(Importing {
        table: Table { key: r.get(at + 7)?, id },
        from_json: r.get(at)?,
        live_files: r.get(at + 4)?,
        live_bytes: r.get(at + 5)?,
        progress: ImportProgress {
            table: table_record(row)?,
            base_done: r.get(at + 1)?,
            base_files: r.count(at + 2)?,
            base_tombstones: r.count(at + 3)?,
            history_through: r.version_opt(at + 6)?,
        },
    })
}

fn invalid<T>(message: String) -> DbResult<T> {
    Err(DbError::Catalog(CatalogError::invalid(message)))
}

pub(crate) fn begin(
    db: Db<'_>,
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
    if let Some(live) = get_table(db, &TableRef::Name(new.name.clone()))? {
        if live.state == TableState::Importing
            && live.location == new.location
            && live.base_version == base
        {
            let found = find(db, live.id)?;
            if found.from_json == from_json {
                return Ok(found.progress);
            }
        }
        return Err(CatalogError::TableExists(new.name.clone()).into());
    }
    if tables::find(db, new.id)?.is_some() {
        return invalid(format!("table id {} exists already", new.id));
    }
    insert_table(db, new, TableState::Importing, base.get(), from_json, now)?;
    Ok(find(db, new.id)?.progress)
}

pub(crate) fn store_base(
    db: Db<'_>,
    id: TableId,
    skip_files: u64,
    skip_tombstones: u64,
    chunk: &BaseChunk,
    tail: Option<&BaseTail>,
) -> DbResult<ImportProgress> {
    let import = find(db, id)?;
    let progress = &import.progress;
    let name = &progress.table.name;
    if progress.base_done {
        return invalid(format!("import of '{name}': its base is complete"));
    }
    if (skip_files, skip_tombstones) != (progress.base_files, progress.base_tombstones) {
        return invalid(format!(
            "import of '{name}': this chunk continues after {skip_files} files and \
             {skip_tombstones} tombstones, but {} and {} are stored: another import is at work",
            progress.base_files, progress.base_tombstones
        ));
    }
    let base = progress.table.base_version;
    let table = import.table;
    if let Some(tail) = tail {
        let (below, above) = neighbours(db, table, base)?;
        check_between(&progress.table, base, tail.timestamp, below, above)?;
    }
    let (mut files, mut tombstones) =
        (stored(progress.base_files), stored(progress.base_tombstones));
    let mut writer = FileWriter::new(db, table, base.get())?;
    for add in &chunk.files {
        writer.add(add, files)?;
        files += 1;
    }
    for remove in &chunk.tombstones {
        writer.tombstone(remove, tombstones)?;
        tombstones += 1;
    }
    let live_files = import.live_files.saturating_add(writer.delta().files);
    let live_bytes = import.live_bytes.saturating_add(writer.delta().bytes);
    drop(writer);
    db.execute(STORE_BASE, params![table.key, files, tombstones, live_files, live_bytes])?;
    if let Some(tail) = tail {
        finish_base(db, table, base.get(), tail, live_files, live_bytes)?;
    }
    Ok(find(db, id)?.progress)
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn finish_base(
    db: Db<'_>,
    table: Table,
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
    write_projection(db, table, base, &index)?;
    db.execute(UPSERT_BASE, params![table.key, base, tail.timestamp.0, live_files, live_bytes])?;
    db.execute(FINISH_BASE, params![table.key, tail.timestamp.0])?;
    Ok(())
}

/// Timestamps of the stored versions next below and next above.
fn neighbours(
    db: Db<'_>,
    table: Table,
    version: Version,
) -> DbResult<(Option<TimestampMs>, Option<TimestampMs>)> {
    let (below, above): (Option<i64>, Option<i64>) = db
        .prepare(NEIGHBOURS)?
        .query_row(params![table.key, version.get()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((below.map(TimestampMs), above.map(TimestampMs)))
}

pub(crate) fn store_commits(
    db: Db<'_>,
    id: TableId,
    commits: &[ImportedCommit],
) -> DbResult<ImportProgress> {
    let import = find(db, id)?;
    let position = ImportPosition {
        table: &import.progress.table,
        from_json: import.from_json,
        base_done: import.progress.base_done,
        history_through: import.progress.history_through,
    };
    let table = import.table;
    check_import_commits(position, commits, |version| neighbours(db, table, version))?;
    let mut head = import_head(db, table)?;
    let mut history = None;
    for commit in commits {
        if let Some((token, _)) = &commit.token {
            let known = params![token.as_str(), commit.timestamp.0];
            db.execute(KNOW_TOKEN, known)?;
        }
        if position.is_applied(commit.version) {
            head = apply(db, table, head, commit)?;
        } else {
            store_history(db, table, commit)?;
            history = Some(commit.version);
        }
    }
    if let Some(history) = history {
        db.execute(STORE_HISTORY, params![table.key, history.get()])?;
    }
    Ok(find(db, id)?.progress)
}

fn apply(db: Db<'_>, table: Table, head: Head, commit: &ImportedCommit) -> DbResult<Head> {
    let new = NewVersion {
        version: commit.version,
        timestamp: commit.timestamp,
        token: commit.token.as_ref().map(|(token, position)| (token, i64::from(*position))),
        body: &commit.body,
        index: &commit.index,
        later: commit.later.as_ref(),
        unknown: UnknownFile::Tombstone,
    };
    write_version(db, table, head, &new)?.or_else(|key| {
        invalid(format!("version {} removes {key}, which is not in the table", commit.version))
    })
}

/// A commit at or below the base: a line of history and its bytes.
fn store_history(db: Db<'_>, table: Table, commit: &ImportedCommit) -> DbResult<()> {
    let index = &commit.index;
    let bytes_removed =
        index.removes.iter().fold(0_i64, |sum, r| sum.saturating_add(r.size.unwrap_or(0)));
    db.execute(
        UPSERT_HISTORY,
        params![
            table.key,
            commit.version.get(),
            commit.timestamp.0,
            count(commit.num_added()),
            count(index.removes.len()),
            commit.added_bytes(),
            bytes_removed,
            index.metadata.is_some(),
            index.protocol.is_some(),
            body_len(&commit.body),
            commit.body.first_line,
            stored_commit_info(&commit.body, index),
            commit.token.as_ref().map(|(token, _)| token.as_str()),
            commit.token.as_ref().map(|(_, position)| *position),
        ],
    )?;
    insert_chunks(db, table, commit.version.get(), &commit.body)
}

pub(crate) fn finish(db: Db<'_>, id: TableId, end: ImportEnd, act: &Act) -> DbResult<TableRecord> {
    let import = find(db, id)?;
    let table = import.table;
    let has_state: bool = db
        .prepare(HAS_STATE)?
        .query_row([table.key], |row| row.get(0))
        .optional()?
        .unwrap_or(false);
    let record = &import.progress.table;
    if record.head.is_none() || !has_state {
        return Err(CatalogError::corrupt(format!(
            "import of '{}' has no version, protocol or metadata: the log it was read from is \
             incomplete",
            record.name
        ))
        .into());
    }
    check_published(record, end.published)?;
    let state = if end.dropped_at.is_some() { TableState::Dropped } else { TableState::Active };
    let (dropped_at, created_at) = (end.dropped_at.map(|t| t.0), end.created_at.map(|t| t.0));
    db.execute(FINISH, params![table.key, state.as_str(), dropped_at, created_at])?;
    db.execute(PUBLISH, params![table.key, end.published.map(Version::get)])?;
    if record.mirror != MirrorMode::Off {
        outbox::enqueue_missing(db, table, end.published, act.at)?;
    }
    let finished = require_table(db, id)?;
    audit::keep(db, &act.imported(&finished))?;
    Ok(finished)
}

pub(crate) fn abort(db: Db<'_>, id: TableId, act: &Act) -> DbResult<()> {
    let Importing { table, progress, .. } = find(db, id)?;
    audit::keep(db, &act.on(action::IMPORT_ABORT, &progress.table))?;
    for text in [
        DELETE_FILES,
        DELETE_CHUNKS,
        DELETE_BATCHES,
        DELETE_COMMITS,
        DELETE_PROTOCOLS,
        DELETE_METADATA,
        DELETE_TXNS,
        DELETE_DOMAINS,
        DELETE_MIRROR,
        DELETE_TABLE,
    ] {
        db.execute(text, [table.key])?;
    }
    Ok(())
}
