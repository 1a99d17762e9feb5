//! What to do when another program has committed to a published log all the same.
//!
//! [`histories`] shows where the two part. Where the catalog has nothing at those versions, its table
//! can [`adopt`] the foreign commits. Where both have commits, the catalog's can be put on top of the
//! foreign ones, if they do not conflict ([`rebase`]); or the table stays in the catalog alone, its
//! mirror off, and the log goes its own way.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, HeadRule, TableCommit, TableFilter,
};
use deltalakedb_catalog_core::commit::{CommitIndex, FirstLine, Packed, index_ndjson};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{MirrorMode, TableRecord, TableState};
use deltalakedb_catalog_core::paths::Place;
use deltalakedb_catalog_core::sink::{MirrorSink, SinkEntry};
use deltalakedb_catalog_engine::catalog::{Catalog, ChangeTarget, CommitBatch, TableChange};
use deltalakedb_catalog_engine::conflict::{self, Conflict, Isolation, Reads};
use deltalakedb_catalog_engine::env::Progress;
use deltalakedb_catalog_engine::features;
use deltalakedb_catalog_engine::freeze;
use deltalakedb_catalog_engine::retry::Retry;
use futures::TryStreamExt;
use serde::Serialize;

use crate::foreign::Desk;
use crate::import::{ImportOptions, import_table};
use crate::log::listing::LogName;
use crate::put::{ForeignBytes, commit_name};
use crate::sink::open_sink;
use crate::store::root_at;

/// Commits read at a time.
const PAGE: usize = 64;
/// Commits shown of each history.
const SHOWN: usize = 100;

/// The two histories of a table from where they part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Histories {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// Whether it is published.
    pub mirror: MirrorMode,
    /// Last version of the catalog.
    pub catalog_head: Version,
    /// Last commit in the log.
    pub log_head: Option<Version>,
    /// First version at which the log has something else than the catalog; none = they agree, as far
    /// as the log goes.
    pub fork: Option<Version>,
    /// Commits of the catalog from there on, to a bound.
    pub catalog: Vec<HistoryLine>,
    /// Commits of the log from there on, to a bound.
    pub log: Vec<HistoryLine>,
}

impl Histories {
    /// Whether [`adopt`] can help: the catalog has nothing where the foreign commits are.
    #[must_use]
    pub fn can_adopt(&self) -> bool {
        self.fork.is_some_and(|fork| fork > self.catalog_head)
    }
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryLine {
    /// Version.
    pub version: Version,
    /// `commitInfo.operation`.
    pub operation: Option<String>,
    /// `commitInfo.engineInfo`.
    pub engine: Option<String>,
    /// Files added.
    pub adds: usize,
    /// Files removed.
    pub removes: usize,
    /// Why it could not be read.
    pub error: Option<String>,
}

impl HistoryLine {
    fn of(version: Version, bytes: &[u8]) -> HistoryLine {
        match parse(version, bytes) {
            Ok(index) => {
                #[derive(serde::Deserialize, Default)]
                #[serde(rename_all = "camelCase", default)]
                struct Info {
                    operation: Option<String>,
                    engine_info: Option<String>,
                }
                let info = index.commit_info.as_deref().map(serde_json::from_str::<Info>);
                let info = info.and_then(std::result::Result::ok).unwrap_or_default();
                HistoryLine {
                    version,
                    operation: info.operation,
                    engine: info.engine_info,
                    adds: index.adds.len(),
                    removes: index.removes.len(),
                    error: None,
                }
            }
            Err(e) => HistoryLine {
                version,
                operation: None,
                engine: None,
                adds: 0,
                removes: 0,
                error: Some(e.to_string()),
            },
        }
    }
}

fn parse(version: Version, bytes: &[u8]) -> Result<CommitIndex> {
    index_ndjson(&commit_name(version), bytes)
}

/// A forked table, and the commits of its log that are not the catalog's.
struct Fork {
    record: TableRecord,
    head: Version,
    sink: Arc<dyn MirrorSink>,
    /// Commit files of the log, ascending.
    commits: Vec<(Version, SinkEntry)>,
    /// First version at which the log has something else.
    parts_at: Option<Version>,
}

impl Fork {
    async fn look(catalog: &Catalog, record: TableRecord) -> Result<Fork> {
        let sink = open_sink(&record.location, &record.storage_options)?;
        let after = record.published_version.map(commit_name);
        let commits: Vec<(Version, SinkEntry)> = sink
            .list(after.as_deref())
            .await?
            .into_iter()
            .filter_map(|entry| match LogName::parse(&entry.name) {
                LogName::Commit(version) => Some((version, entry)),
                _ => None,
            })
            .collect();
        // As of now: what was committed since the listing is the catalog's own.
        let table = TableRef::Id(record.id);
        let head = catalog.snapshot(&table, At::Head).await?.version;
        let mut fork = Fork { record, head, sink, commits, parts_at: None };
        for (version, _) in fork.commits.clone() {
            let differs = match fork.ours(catalog, version).await? {
                None => true,
                Some(ours) => {
                    let theirs = fork.theirs(version).await?;
                    ForeignBytes::compare(&theirs, &ours).is_some()
                }
            };
            if differs {
                fork.parts_at = Some(version);
                break;
            }
        }
        Ok(fork)
    }

    async fn ours(&self, catalog: &Catalog, version: Version) -> Result<Option<Bytes>> {
        if version > self.head {
            return Ok(None);
        }
        let (backend, id) = (catalog.backend(), self.record.id);
        let found =
            Retry::of(catalog).repeat(|| backend.read_bodies(id, version, version, 1)).await?;
        found.into_iter().next().map(|(_, body)| body.published()).transpose()
    }

    async fn theirs(&self, version: Version) -> Result<Bytes> {
        let name = commit_name(version);
        self.sink.get(&name).await?.ok_or_else(|| {
            CatalogError::invalid(format!(
                "'{}/{name}' went away while it was looked at",
                self.sink.describe()
            ))
        })
    }

    fn foreign(&self) -> impl Iterator<Item = &(Version, SinkEntry)> {
        let fork = self.parts_at;
        self.commits.iter().filter(move |(version, _)| fork.is_some_and(|fork| *version >= fork))
    }
}

/// Both histories of a table, from where they part. That they do is recorded (see [`crate::foreign`]).
///
/// # Errors
/// `TableNotFound`; those of the database and of the store.
pub async fn histories(catalog: &Catalog, table: &TableRef) -> Result<Histories> {
    let catalog = &catalog.clone().on_primary();
    let record = catalog.table(table).await?;
    let fork = Fork::look(catalog, record).await?;
    let mut mirror = fork.record.mirror;
    if let Some(first) = fork.parts_at {
        let retry = Retry::of(catalog);
        let found =
            Desk::of(catalog, &retry).look(fork.record.id, fork.sink.as_ref(), first).await?;
        if found.is_some() {
            mirror = MirrorMode::Diverged;
        }
    }
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    if let Some(first) = fork.parts_at {
        let (backend, id) = (catalog.backend(), fork.record.id);
        let bodies =
            Retry::of(catalog).repeat(|| backend.read_bodies(id, first, fork.head, SHOWN)).await?;
        for (record, body) in bodies {
            ours.push(HistoryLine::of(record.version, &body.published()?));
        }
        for (version, _) in fork.foreign().take(SHOWN) {
            theirs.push(HistoryLine::of(*version, &fork.theirs(*version).await?));
        }
    }
    Ok(Histories {
        table_id: fork.record.id,
        name: fork.record.name.clone(),
        mirror,
        catalog_head: fork.head,
        log_head: fork
            .commits
            .last()
            .map(|(version, _)| *version)
            .or(fork.record.published_version),
        fork: fork.parts_at,
        catalog: ours,
        log: theirs,
    })
}

/// Takes foreign commits into the catalog, byte for byte, where it has nothing at their versions.
/// Returns the versions that were adopted.
///
/// Each is one commit: a call that died is repeated.
///
/// # Errors
/// `TableFrozen`; `InvalidInput` if the catalog has commits of its own there, for commits that are not the
/// protocol's JSON or remove what is not in the table; `Unsupported` for features that the catalog
/// does not know.
pub async fn adopt(catalog: &Catalog, table: &TableRef) -> Result<Vec<Version>> {
    let catalog = &catalog.clone().on_primary();
    let record = catalog.table(table).await?;
    let fork = Fork::look(catalog, record).await?;
    let name = &fork.record.name;
    let Some(first) = fork.parts_at else {
        // A call that died may have taken them in.
        publish_again(catalog, &fork.record).await?;
        return Ok(Vec::new());
    };
    catalog.refuse_frozen_table(&TableRef::Id(fork.record.id)).await?;
    if first <= fork.head {
        return Err(CatalogError::invalid(format!(
            "the catalog has commits of its own from version {first} of '{name}' on (to {}): foreign \
             ones cannot be adopted in their place. Its own may go on top of them: `dl repair {name} \
             --rebase`",
            fork.head
        )));
    }
    refuse_second_spellings(catalog, &fork).await?;
    let mut adopted = Vec::new();
    let mut head = fork.head;
    for (version, entry) in fork.foreign() {
        if *version != head.next() {
            return Err(CatalogError::invalid(format!(
                "version {} of '{name}' is missing in its log, which has version {version}",
                head.next()
            )));
        }
        let bytes = fork.theirs(*version).await?;
        adopt_one(catalog, &fork, *version, entry, &bytes).await?;
        adopted.push(*version);
        head = *version;
    }
    publish_again(catalog, &fork.record).await?;
    Ok(adopted)
}

/// Nothing foreign is left in a table's log: publishing goes on.
async fn publish_again(catalog: &Catalog, record: &TableRecord) -> Result<()> {
    let (backend, act) = (catalog.backend(), catalog.act());
    let table = TableRef::Id(record.id);
    let retry = Retry::of(catalog);
    let mode = retry.repeat(|| backend.get_table(&table)).await?.map(|record| record.mirror);
    if mode == Some(MirrorMode::Diverged) {
        retry.repeat(|| backend.mirror_retry(record.id, &act)).await?;
    }
    Ok(())
}

/// Readers tell files apart by the text of their paths, or by what it means: a file that is added by a
/// second spelling would be in the table twice for some of them.
async fn refuse_second_spellings(catalog: &Catalog, fork: &Fork) -> Result<()> {
    let (root, _) = root_at(&fork.record.location, &fork.record.storage_options)?;
    let refuse = |one: &str, other: &str| {
        Err(CatalogError::invalid(format!(
            "the foreign commits in the log of '{}' add '{one}', which is the file '{other}' of the table \
             by another spelling: some readers would have its rows twice. They cannot be adopted; `dl \
             repair {} --detach` leaves the log to others",
            fork.record.name, fork.record.name
        )))
    };
    let mut added: HashMap<Place, String> = HashMap::new();
    for (version, _) in fork.foreign() {
        // What cannot be read is refused when its turn comes.
        let Ok(index) = parse(*version, &fork.theirs(*version).await?) else { continue };
        for add in index.adds {
            // One that cannot be placed has no second spelling that could be known.
            let Ok(found) = root.resolve(&add.path) else { continue };
            match added.get(&found.place) {
                Some(other) if *other != add.path => return refuse(&add.path, other),
                Some(_) => {}
                None => drop(added.insert(found.place, add.path)),
            }
        }
    }
    let mut files = catalog.files(fork.record.id, fork.head);
    while let Some(file) = files.try_next().await? {
        let Ok(found) = root.resolve(&file.add.path) else { continue };
        if let Some(other) = added.get(&found.place).filter(|other| **other != file.add.path) {
            return refuse(other, &file.add.path);
        }
    }
    Ok(())
}

async fn adopt_one(
    catalog: &Catalog,
    fork: &Fork,
    version: Version,
    entry: &SinkEntry,
    bytes: &Bytes,
) -> Result<()> {
    let (id, name) = (fork.record.id, commit_name(version));
    let index = parse(version, bytes)?;
    let base = catalog.snapshot(&TableRef::Id(id), At::Head).await?;
    let protocol = index.protocol.as_ref().unwrap_or(&base.protocol);
    features::check_commit(protocol, index.metadata.as_ref().unwrap_or(&base.metadata))?;
    // What is stored is rendered as the first line, a newline, and the rest.
    let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Err(CatalogError::invalid(format!(
            "'{name}' is one line without an end: it cannot be kept byte for byte"
        )));
    };
    let first = std::str::from_utf8(bytes.get(..newline).unwrap_or_default())
        .map_err(|_| CatalogError::invalid(format!("'{name}' is not UTF-8 text")))?;
    let rest = Packed::pack(bytes.get(newline + 1..).unwrap_or_default())?;
    let time = index.info().in_commit_timestamp.map_or(entry.modified, TimestampMs);
    let previous = version.previous().unwrap_or(Version::ZERO);
    let request = CommitRequest {
        token: CommitToken::new(format!("adopt-{id}-{version}"))?,
        now: time,
        tables: vec![TableCommit {
            target: CommitTarget::Existing { table_id: id, rule: HeadRule::Exactly(previous) },
            first_line: FirstLine::fixed(first),
            rest,
            index: Arc::new(index),
            later: None,
        }],
    };
    let retry = Retry::of(catalog);
    match retry.repeat(|| catalog.backend().commit(request.clone())).await? {
        CommitOutcome::Committed(_) | CommitOutcome::Replayed(_) => Ok(()),
        CommitOutcome::HeadMoved { head, .. } => Err(CatalogError::invalid(format!(
            "the catalog's table is at version {head} by now: its commits and the foreign ones must \
             be looked at anew (`dl repair {}`)",
            fork.record.name
        ))),
        CommitOutcome::Rejected { reason, .. } => Err(CatalogError::invalid(format!(
            "'{name}' cannot be adopted: {reason:?}. Versions before it were adopted"
        ))),
    }
}

/// What a rebase did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RebaseReport {
    /// The table as it was, dropped, with its history.
    pub old_id: TableId,
    /// The table now.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// First version of the fork.
    pub fork: Version,
    /// The catalog's commits from the fork on, with their new versions.
    pub moved: Vec<(Version, Version)>,
}

/// Puts the catalog's commits of a forked table on top of the foreign ones.
///
/// Every one is checked against every foreign commit, by Delta's conflict rules; one that does not
/// say that it is a blind append counts as having read the whole table. The table gets a new id: the
/// old one is dropped, with its history, and the log is imported with the foreign commits, which the
/// catalog's follow. A conflict leaves everything as it was. A call that died is repeated.
///
/// # Errors
/// `TableFrozen`; `Conflict`; `InvalidInput` if the table is not forked; those of an import.
pub async fn rebase(
    catalog: &Catalog,
    table: &TableRef,
    progress: &dyn Progress,
) -> Result<RebaseReport> {
    let catalog = &catalog.clone().on_primary();
    let old = forked(catalog, table).await?;
    let name = old.name.clone();
    if old.state == TableState::Active {
        catalog.refuse_frozen_table(&TableRef::Id(old.id)).await?;
        let fork = Fork::look(catalog, old.clone()).await?;
        if fork.parts_at.is_some_and(|first| first > fork.head) {
            return Err(CatalogError::invalid(format!(
                "the catalog has no commits of '{name}' to put on top of the foreign ones: `dl repair \
                 {name} --adopt` takes them in, and the table keeps its id"
            )));
        }
        // Nobody commits to it from here on.
        catalog.drop_table(&TableRef::Id(old.id)).await?;
    }
    match on_top(catalog, &old, progress).await {
        Ok(report) => Ok(report),
        Err(error) => {
            let undone = undo(catalog, &old).await;
            Err(match undone {
                Ok(()) => error,
                Err(e) => CatalogError::invalid(format!(
                    "{error}. The table is dropped now, with its history (`dl undrop {}` brings it \
                     back as '{name}'): {e}",
                    old.id
                )),
            })
        }
    }
}

/// The table that is meant: one that diverged, or was dropped by a rebase that died.
async fn forked(catalog: &Catalog, table: &TableRef) -> Result<TableRecord> {
    let found = match catalog.table(table).await {
        Ok(record) if record.mirror == MirrorMode::Diverged => return Ok(record),
        Ok(record) => Some(record),
        Err(CatalogError::TableNotFound(_)) => None,
        Err(CatalogError::InvalidInput(_)) if matches!(table, TableRef::Name(_)) => None,
        Err(error) => return Err(error),
    };
    if let TableRef::Name(name) = table {
        let filter = TableFilter {
            namespace: Some(name.namespace().to_owned()),
            state: Some(TableState::Dropped),
        };
        let mut tables = catalog.tables(filter);
        while let Some(dropped) = tables.try_next().await? {
            let same = found.as_ref().is_none_or(|found| found.location == dropped.location);
            let unfinished =
                found.as_ref().is_none_or(|found| found.created_at >= dropped.created_at);
            if dropped.name == *name && dropped.mirror == MirrorMode::Diverged && same && unfinished
            {
                return Ok(dropped);
            }
        }
    }
    Err(match found {
        Some(record) => CatalogError::invalid(format!(
            "no foreign commit stands in the way of '{}': there is nothing to rebase. `dl repair {}` \
             shows both histories",
            record.name, record.name
        )),
        None => CatalogError::TableNotFound(table.to_string()),
    })
}

async fn on_top(
    catalog: &Catalog,
    old: &TableRecord,
    progress: &dyn Progress,
) -> Result<RebaseReport> {
    let fork = Fork::look(catalog, old.clone()).await?;
    let Some(first) = fork.parts_at else {
        return Err(CatalogError::invalid(format!(
            "the log of '{}' has nothing that the catalog does not have: `dl mirror retry {}` \
             publishes again",
            old.name, old.name
        )));
    };
    let ours = commits_from(catalog, old.id, first, fork.head).await?;
    // Those that a call which died has put there already are ours, and not foreign.
    let table = TableRef::Name(old.name.clone());
    let there = match catalog.table(&table).await {
        Ok(record) => Some(record),
        Err(CatalogError::TableNotFound(_) | CatalogError::InvalidInput(_)) => None,
        Err(error) => return Err(error),
    };
    if there.is_none() {
        check_conflicts(catalog, &fork, &ours).await?;
    }
    let options = ImportOptions {
        storage_options: old.storage_options.clone(),
        resume: true,
        take_over: true,
        ..ImportOptions::new(old.name.clone(), old.location.clone())
    };
    let report = import_table(catalog, options, progress).await?;
    let new_id = report.table_id.unwrap_or(old.id);
    let mut moved = Vec::new();
    for (version, bytes, index) in ours {
        let token = Some(CommitToken::new(format!("rebase-{}-{version}", old.id))?);
        if let Some(freezes) = switch(&index) {
            // Whether the table is frozen is the catalog's own business, not that of a commit's lines.
            let table = [TableRef::Id(new_id)];
            let done = if freezes {
                catalog.freeze(&table, None, token).await?
            } else {
                catalog.unfreeze(&table, None, token).await?
            };
            moved.extend(done.tables.iter().filter_map(|table| Some((version, table.version?))));
            continue;
        }
        let change = TableChange {
            target: ChangeTarget::Existing { table: TableRef::Id(new_id), read_version: None },
            ndjson: bytes.to_vec(),
            origin: format!("version {version} of the catalog"),
            reads: reads_of(&index),
            operation: None,
        };
        let done = catalog.commit(CommitBatch { token, tables: vec![change] }).await?;
        if let Some(table) = done.tables.first() {
            moved.push((version, table.version));
        }
    }
    let name = old.name.clone();
    Ok(RebaseReport { old_id: old.id, table_id: new_id, name, fork: first, moved })
}

/// Commits of the catalog: version, bytes, index.
async fn commits_from(
    catalog: &Catalog,
    id: TableId,
    first: Version,
    last: Version,
) -> Result<Vec<(Version, Bytes, CommitIndex)>> {
    let (backend, retry) = (catalog.backend(), Retry::of(catalog));
    let mut commits = Vec::new();
    let mut next = first;
    while next <= last {
        let bodies = retry.repeat(|| backend.read_bodies(id, next, last, PAGE)).await?;
        if bodies.is_empty() {
            return Err(missing(id, next));
        }
        for (record, body) in bodies {
            // One that was passed over would be lost with this side of the fork.
            if record.version != next {
                return Err(missing(id, next));
            }
            next = next.next();
            let bytes = body.published()?;
            let index = parse(record.version, &bytes)?;
            commits.push((record.version, bytes, index));
        }
    }
    Ok(commits)
}

fn missing(id: TableId, version: Version) -> CatalogError {
    CatalogError::corrupt(format!(
        "the catalog holds no bytes of version {version} of table {id}: its rows are damaged. Nothing was \
         changed; restore the catalog from a backup"
    ))
}

/// What a commit's writer read, as far as it says.
fn reads_of(index: &CommitIndex) -> Reads {
    if index.info().is_blind_append == Some(true) || switch(index).is_some() {
        Reads::default()
    } else {
        Reads::whole_table()
    }
}

/// Whether a commit freezes the table, or unfreezes it, and does nothing else.
fn switch(index: &CommitIndex) -> Option<bool> {
    #[derive(serde::Deserialize)]
    struct Info {
        operation: Option<String>,
    }
    let alone = index.adds.is_empty() && index.removes.is_empty() && index.metadata.is_none();
    let protocol = index.protocol.as_ref().filter(|_| alone)?;
    let info: Info = serde_json::from_str(index.commit_info.as_deref()?).ok()?;
    match info.operation.as_deref() {
        Some(freeze::FREEZE) if freeze::is_frozen(protocol) => Some(true),
        Some(freeze::UNFREEZE) if !freeze::is_frozen(protocol) => Some(false),
        _ => None,
    }
}

/// Every commit of ours against every foreign one, before anything is changed.
async fn check_conflicts(
    catalog: &Catalog,
    fork: &Fork,
    ours: &[(Version, Bytes, CommitIndex)],
) -> Result<()> {
    let head = catalog.snapshot(&TableRef::Id(fork.record.id), At::Head).await?;
    let level = head.metadata.property("delta.isolationLevel");
    for (foreign, _) in fork.foreign() {
        let winner = parse(*foreign, &fork.theirs(*foreign).await?)?;
        for (version, _, index) in ours {
            let isolation = Isolation::for_commit(level, index.only_rearranges());
            if let Some(kind) = conflict::check(index, &reads_of(index), isolation, &winner) {
                return Err(CatalogError::Conflict(Box::new(Conflict {
                    table: fork.record.name.to_string(),
                    read_version: Some(*version),
                    winning_version: Some(*foreign),
                    kind,
                })));
            }
        }
    }
    Ok(())
}

/// Brings the old table back, unless the new one is there with commits of ours.
async fn undo(catalog: &Catalog, old: &TableRecord) -> Result<()> {
    let table = TableRef::Name(old.name.clone());
    match catalog.table(&table).await {
        Ok(new) if new.id != old.id => {
            // Frozen or not, as the foreign commits say: nobody was told of it yet.
            let (backend, act) = (catalog.backend(), catalog.act());
            Retry::of(catalog).repeat(|| backend.drop_table(new.id, &act)).await?;
        }
        Ok(_) | Err(CatalogError::TableNotFound(_)) => {}
        // Half imported: it is continued by the next call.
        Err(error) => return Err(error),
    }
    catalog.undrop_table(&TableRef::Id(old.id), None).await.map(drop)
}

/// Leaves the log to others: the table stays in the catalog, with its mirror off.
///
/// # Errors
/// `TableNotFound`; those of the database.
pub async fn detach(catalog: &Catalog, table: &TableRef) -> Result<TableRecord> {
    let catalog = &catalog.clone().on_primary();
    let record = catalog.table(table).await?;
    let (backend, act) = (catalog.backend(), catalog.act());
    Retry::of(catalog).repeat(|| backend.mirror_set_mode(record.id, MirrorMode::Off, &act)).await
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
