//! Imports: a table that is filled from its log, hidden until it is whole.

use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_core::audit::{Act, action};
use deltalakedb_catalog_core::backend::{ImportEnd, ImportProgress, ImportedCommit};
use deltalakedb_catalog_core::commit::CommitIndex;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, MirrorMode, NewTable, TableRecord, TableState,
};
use deltalakedb_catalog_core::support::{
    ImportPosition, StoredTimes, body_len, check_base_chunk, check_between, check_import_commits,
    check_import_start, check_published, check_whole, count, id_exists, is_same_import, range_of,
    removed_bytes, stored_commit_info, table_record,
};
use sqlx::Row;

use crate::audit;
use crate::commit::{
    Head, NewVersion, import_head, insert_chunks, write_projection, write_version,
};
use crate::errors::{DbError, DbResult};
use crate::files::{self, Active, Plan, UnknownFile};
use crate::outbox;
use crate::rows::{
    MySqlFormat, Reader, TABLE_COLUMNS, Table, TableKey, table_columns, table_source,
};
use crate::session::writer::Writer;
use crate::session::{Call, first};
use crate::tables::{LOCK, get_table, insert_table, not_found, require_table, state_of};

const PROGRESS: &str = concat!(
    "SELECT ",
    table_columns!(),
    ", t.import_from_json, t.import_base_done, t.import_files, t.import_tombstones,
        t.import_live_files, t.import_live_bytes, t.import_history_through, t.table_key
    FROM ",
    table_source!(),
    " WHERE t.id = ? AND t.state = 'importing'"
);
const STORE_BASE: &str = "UPDATE {p}tables SET import_files = ?, import_tombstones = ?,
        import_live_files = ?, import_live_bytes = ?
    WHERE id = ?";
const FINISH_BASE: &str = "UPDATE {p}tables SET import_base_done = 1, head_version = base_version,
        head_timestamp_ms = ?
    WHERE id = ?";
const HAS_COMMIT: &str = "SELECT 1 FROM {p}commits WHERE table_key = ? AND version = ?";
/// The base may have its history already: then it keeps its bytes.
const UPDATE_BASE: &str = "UPDATE {p}commits SET timestamp_ms = ?, total_files = ?, total_bytes = ?
    WHERE table_key = ? AND version = ?";
const INSERT_BASE: &str = "INSERT INTO {p}commits (table_key, version, timestamp_ms, num_added,
        num_removed, bytes_added, bytes_removed, changes_metadata, changes_protocol, total_files,
        total_bytes, has_body, body_len)
    VALUES (?, ?, ?, 0, 0, 0, 0, 0, 0, ?, ?, 0, 0)";
/// The base may be there without its bytes: then it keeps its timestamp and totals.
const UPDATE_HISTORY: &str =
    "UPDATE {p}commits SET num_added = ?, num_removed = ?, bytes_added = ?,
        bytes_removed = ?, changes_metadata = ?, changes_protocol = ?, has_body = 1, body_len = ?,
        first_line = ?, commit_info = ?, token = ?, batch_position = ?
    WHERE table_key = ? AND version = ?";
const INSERT_HISTORY: &str = "INSERT INTO {p}commits (table_key, version, timestamp_ms, num_added,
        num_removed, bytes_added, bytes_removed, changes_metadata, changes_protocol, total_files,
        total_bytes, has_body, body_len, first_line, commit_info, token, batch_position)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 1, ?, ?, ?, ?, ?)";
const STORE_HISTORY: &str = "UPDATE {p}tables SET import_history_through = ? WHERE id = ?";
const BELOW: &str = "SELECT version, timestamp_ms FROM {p}commits
    WHERE table_key = ? AND version < ? ORDER BY version DESC LIMIT 1";
const FROM: &str = "SELECT version, timestamp_ms FROM {p}commits
    WHERE table_key = ? AND version >= ? AND version <= ? ORDER BY version";
const ABOVE: &str = "SELECT version, timestamp_ms FROM {p}commits
    WHERE table_key = ? AND version > ? ORDER BY version LIMIT 1";
const HAS_STATE: &str = "SELECT EXISTS (SELECT 1 FROM {p}protocols WHERE table_key = ?)
    AND EXISTS (SELECT 1 FROM {p}metadata WHERE table_key = ?)";
const FINISH: &str = "UPDATE {p}tables SET state = ?, drop_marker = ?, created_at_ms = ?,
        dropped_at_ms = ?
    WHERE id = ?";
const PUBLISH: &str = "UPDATE {p}mirror SET published_version = ? WHERE table_key = ?";
/// A row that is there is locked, and stays as it is: no pass of upkeep forgets the token meanwhile.
const KNOW_TOKEN: &str = "INSERT INTO {p}batches (token, committed_at_ms) VALUES (?, ?)
    ON DUPLICATE KEY UPDATE committed_at_ms = committed_at_ms";
/// Tokens that nothing but this table's commits know.
const DELETE_BATCHES: &str = "DELETE FROM {p}batches WHERE token IN (
        SELECT c.token FROM {p}commits c WHERE c.table_key = ? AND c.token IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM {p}commits o
            WHERE o.token = c.token AND o.table_key <> c.table_key))";
/// What is deleted of a table, after its tokens.
const DELETES: [&str; 8] = [
    "DELETE FROM {p}files WHERE table_key = ?",
    "DELETE FROM {p}commit_chunks WHERE table_key = ?",
    "DELETE FROM {p}commits WHERE table_key = ?",
    "DELETE FROM {p}protocols WHERE table_key = ?",
    "DELETE FROM {p}metadata WHERE table_key = ?",
    "DELETE FROM {p}txns WHERE table_key = ?",
    "DELETE FROM {p}domain_metadata WHERE table_key = ?",
    "DELETE FROM {p}mirror WHERE table_key = ?",
];
const DELETE_TABLE: &str = "DELETE FROM {p}tables WHERE id = ?";

/// Where an import is, with what only the backend wants to know.
struct Importing {
    key: TableKey,
    progress: ImportProgress,
    from_json: bool,
    live_files: i64,
    live_bytes: i64,
}

async fn progress(call: &mut Call, id: TableId) -> DbResult<Importing> {
    let Some(row) = call.row(PROGRESS, &[id.into()]).await? else {
        return Err(not_found(id).into());
    };
    let called = id.to_string();
    let r = Reader::new(&row, &called, None);
    let at = TABLE_COLUMNS;
    Ok(Importing {
        key: TableKey::Is(r.get(at + 7)?),
        from_json: r.get(at)?,
        live_files: r.get(at + 4)?,
        live_bytes: r.get(at + 5)?,
        progress: ImportProgress {
            table: table_record::<MySqlFormat>(&row)?,
            base_done: r.get(at + 1)?,
            base_files: r.count(at + 2)?,
            base_tombstones: r.count(at + 3)?,
            history_through: r.version_opt(at + 6)?,
        },
    })
}

/// Opens a transaction, locks an importing table's row, and reads it.
async fn open(call: &mut Call, id: TableId) -> DbResult<Importing> {
    let lock = call.session.sql(LOCK, &[id.into()]);
    call.open(&lock).await?;
    progress(call, id).await
}

pub(crate) async fn begin(
    call: &mut Call,
    new: &NewTable,
    base: Version,
    from_json: bool,
    now: TimestampMs,
) -> DbResult<ImportProgress> {
    check_import_start(new, base, from_json)?;
    call.open("SELECT 1").await?;
    if let Some(live) = get_table(call, &TableRef::Name(new.name.clone())).await? {
        if is_same_import(&live, new, base) {
            let found = progress(call, live.id).await?;
            if found.from_json == from_json {
                return Ok(found.progress);
            }
        }
        return Err(CatalogError::TableExists(new.name.clone()).into());
    }
    if state_of(call, new.id).await?.is_some() {
        return Err(id_exists(new).into());
    }
    let mut out = Writer::new(call);
    let state = TableState::Importing;
    let registered = match insert_table(&mut out, new, state, base.get(), from_json, now).await {
        Ok(()) => out.finish().await,
        Err(error) => Err(error),
    };
    match registered {
        // Someone else took the name since we looked.
        Err(error) if error.is_duplicate() => {
            return Err(CatalogError::TableExists(new.name.clone()).into());
        }
        other => other?,
    }
    Ok(progress(call, new.id).await?.progress)
}

pub(crate) async fn store_base(
    call: &mut Call,
    id: TableId,
    skip: (u64, u64),
    chunk: &BaseChunk,
    tail: Option<&BaseTail>,
) -> DbResult<ImportProgress> {
    let import = open(call, id).await?;
    let table = import.key;
    let done = &import.progress;
    check_base_chunk(done, skip)?;
    let base = done.table.base_version;
    if let Some(tail) = tail {
        let known = stored_times(call, table, base, base).await?;
        let (below, above) = known.around(base);
        check_between(&done.table, base, tail.timestamp, below, above)?;
    }
    let mut active = Active::default();
    active.load(call, table, chunk.files.iter().map(Add::key)).await?;
    let (files, tombstones) = (stored(done.base_files), stored(done.base_tombstones));
    let plan =
        Plan::of_piece(&chunk.files, files, &chunk.tombstones, tombstones, base, &mut active);
    let live_files = import.live_files.saturating_add(plan.delta.files);
    let live_bytes = import.live_bytes.saturating_add(plan.delta.bytes);
    let has_commit = match tail {
        Some(_) => call.row(HAS_COMMIT, &[table.into(), base.get().into()]).await?.is_some(),
        None => false,
    };

    let mut out = Writer::new(call);
    plan.write(&mut out, table, base).await?;
    let values = [
        files.saturating_add(count(chunk.files.len())).into(),
        tombstones.saturating_add(count(chunk.tombstones.len())).into(),
        live_files.into(),
        live_bytes.into(),
        id.into(),
    ];
    out.push_one(STORE_BASE, &values).await?;
    if let Some(tail) = tail {
        let index = CommitIndex {
            protocol: Some(tail.protocol.clone()),
            metadata: Some(tail.metadata.clone()),
            txns: tail.txns.clone(),
            domain_metadata: tail.domain_metadata.clone(),
            ..CommitIndex::default()
        };
        write_projection(&mut out, table, base.get(), &index).await?;
        let (time, key, at) = (tail.timestamp.0.into(), table.into(), base.get().into());
        let (live_files, live_bytes) = (live_files.into(), live_bytes.into());
        if has_commit {
            out.push_one(UPDATE_BASE, &[time, live_files, live_bytes, key, at]).await?;
        } else {
            out.push(INSERT_BASE, &[key, at, time, live_files, live_bytes]).await?;
        }
        out.push_one(FINISH_BASE, &[time, id.into()]).await?;
    }
    out.finish().await?;
    Ok(progress(call, id).await?.progress)
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Timestamps of the stored versions in and around a range.
async fn stored_times(
    call: &mut Call,
    table: TableKey,
    from: Version,
    to: Version,
) -> DbResult<StoredTimes> {
    let session = call.session.clone();
    let (key, from, to) = (table.into(), from.get().into(), to.get().into());
    let statements = [
        session.sql(BELOW, &[key, from]),
        session.sql(FROM, &[key, from, to]),
        session.sql(ABOVE, &[key, to]),
    ];
    let mut times = Vec::new();
    for row in call.run(statements.join("; ")).await?.iter().flat_map(|set| &set.rows) {
        let version = Version::new(row.try_get(0)?)?;
        times.push((version, TimestampMs(row.try_get(1)?)));
    }
    Ok(StoredTimes(times))
}

pub(crate) async fn store_commits(
    call: &mut Call,
    id: TableId,
    commits: &[ImportedCommit],
) -> DbResult<ImportProgress> {
    let import = open(call, id).await?;
    let table = Table { id, key: import.key };
    let position = ImportPosition {
        table: &import.progress.table,
        from_json: import.from_json,
        base_done: import.progress.base_done,
        history_through: import.progress.history_through,
    };
    let Some((lowest, highest)) = range_of(commits) else {
        return Ok(import.progress);
    };
    let times = stored_times(call, table.key, lowest, highest).await?;
    check_import_commits(position, commits, |version| Ok::<_, DbError>(times.around(version)))?;

    let mut head = import_head(call, id).await?;
    let mut history = None;
    // After files that come in pages, what the next commits may end is looked up anew: nobody keeps up to
    // date in memory what pages do.
    for run in commits.split_inclusive(|commit| commit.later.is_some()) {
        // All rows that these commits may end, in one go; what they do to them is kept up to date in
        // memory from commit to commit.
        let mut active = Active::default();
        let applied = run.iter().filter(|commit| position.is_applied(commit.version));
        let keys: std::collections::BTreeSet<_> =
            applied.flat_map(|commit| files::keys(&commit.index)).collect();
        active.load(call, table.key, keys).await?;
        let mut out = Writer::new(call);
        for commit in run {
            if let Some((token, _)) = &commit.token {
                let token = token.as_str().into();
                out.push(KNOW_TOKEN, &[token, commit.timestamp.0.into()]).await?;
            }
            if position.is_applied(commit.version) {
                head = apply(&mut out, table, head, commit, &mut active).await?;
            } else {
                store_history(&mut out, table.key, commit, times.has(commit.version)).await?;
                history = Some(commit.version);
            }
        }
        out.finish().await?;
    }
    if let Some(history) = history {
        call.execute(STORE_HISTORY, &[history.get().into(), id.into()]).await?;
    }
    Ok(progress(call, id).await?.progress)
}

/// A commit above the base: it moves the head.
async fn apply(
    out: &mut Writer<'_>,
    table: Table,
    head: Head,
    commit: &ImportedCommit,
    active: &mut Active,
) -> DbResult<Head> {
    let new = NewVersion {
        version: commit.version,
        timestamp: commit.timestamp,
        token: commit.token.as_ref().map(|(token, place)| (token, i64::from(*place))),
        body: &commit.body,
        index: &commit.index,
        later: commit.later.as_ref(),
    };
    let plan = Plan::of(&commit.index, commit.version, active, UnknownFile::Tombstone)?;
    let plan = plan.map_err(|key| {
        CatalogError::invalid(format!(
            "version {} removes {key}, which is not in the table",
            commit.version
        ))
    })?;
    write_version(out, table, head, &new, &plan).await
}

/// A commit at or below the base: a line of history and its bytes.
async fn store_history(
    out: &mut Writer<'_>,
    table: TableKey,
    commit: &ImportedCommit,
    stored: bool,
) -> DbResult<()> {
    let index = &commit.index;
    let (key, version) = (table.into(), commit.version.get().into());
    let counts = [
        count(commit.num_added()).into(),
        count(index.removes.len()).into(),
        commit.added_bytes().into(),
        removed_bytes(index).into(),
        index.metadata.is_some().into(),
        index.protocol.is_some().into(),
    ];
    let texts = [
        body_len(&commit.body).into(),
        commit.body.first_line.as_deref().into(),
        stored_commit_info(&commit.body, index).into(),
        commit.token.as_ref().map(|(token, _)| token.as_str()).into(),
        commit.token.as_ref().map(|(_, place)| i64::from(*place)).into(),
    ];
    if stored {
        let values = [&counts[..], &texts, &[key, version]].concat();
        out.push_one(UPDATE_HISTORY, &values).await?;
    } else {
        let values = [&[key, version, commit.timestamp.0.into()][..], &counts, &texts].concat();
        out.push(INSERT_HISTORY, &values).await?;
    }
    insert_chunks(out, table, commit.version.get(), &commit.body).await
}

pub(crate) async fn finish(
    call: &mut Call,
    id: TableId,
    end: ImportEnd,
    act: &Act,
) -> DbResult<TableRecord> {
    let import = open(call, id).await?;
    let table = import.key;
    let record = &import.progress.table;
    let sql = call.session.sql(HAS_STATE, &[table.into(), table.into()]);
    let has_state: bool = match first(&call.run(sql).await?) {
        Some(row) => row.try_get(0)?,
        None => false,
    };
    check_whole(record, has_state)?;
    check_published(record, end.published)?;
    let (state, marker) = match end.dropped_at {
        Some(_) => (TableState::Dropped, id.to_string()),
        None => (TableState::Active, String::new()),
    };
    let values = [
        state.as_str().into(),
        (&marker).into(),
        end.created_at.unwrap_or(record.created_at).0.into(),
        end.dropped_at.map(|time| time.0).into(),
        id.into(),
    ];
    call.execute(FINISH, &values).await?;
    call.execute(PUBLISH, &[end.published.map(Version::get).into(), table.into()]).await?;
    if record.mirror != MirrorMode::Off {
        outbox::enqueue_missing(call, table, end.published, act.at).await?;
    }
    let finished = require_table(call, id).await?;
    audit::keep(call, &act.imported(&finished)).await?;
    Ok(finished)
}

pub(crate) async fn abort(call: &mut Call, id: TableId, act: &Act) -> DbResult<()> {
    let import = open(call, id).await?;
    let table = import.key;
    audit::keep(call, &act.on(action::IMPORT_ABORT, &import.progress.table)).await?;
    for text in [DELETE_BATCHES].iter().chain(&DELETES) {
        call.execute(text, &[table.into()]).await?;
    }
    call.execute(DELETE_TABLE, &[id.into()]).await?;
    Ok(())
}
