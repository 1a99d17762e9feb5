//! Who writes a table's log: the catalog alone from [`cutover`] on, other programs again after
//! [`release`].

use std::sync::Arc;

use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, Version};
use deltalakedb_catalog_core::model::{MirrorMode, Snapshot, TableRecord, TableState};
use deltalakedb_catalog_core::sink::MirrorSink;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use deltalakedb_catalog_engine::fence::{self, FenceChange};
use deltalakedb_catalog_engine::freeze::is_frozen;
use deltalakedb_catalog_engine::retry::Retry;
use futures::TryStreamExt;
use serde::Serialize;

use crate::checkpoint::{write_checkpoint, write_last_checkpoint};
use crate::checksum::{self, Checksums, checksum_name};
use crate::foreign::Desk;
use crate::log::listing::LogName;
use crate::properties::checkpoint_interval;
use crate::put::{Put, commit_name, put_over_torn};
use crate::sink::open_sink;

/// Commit bodies read at a time.
const BODY_PAGE: usize = 32;

/// What a cutover did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CutoverReport {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// Version that put the fence up; none if it was up already. Foreign writers are kept out once
    /// it is published.
    pub version: Option<Version>,
}

/// What a release did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReleaseReport {
    /// Table; it is dropped from the catalog, which keeps its history.
    pub table_id: TableId,
    /// The name it had.
    pub name: TableName,
    /// Where its log is.
    pub location: String,
    /// Last version, which is in the log.
    pub version: Version,
    /// Commits that this call put into the log.
    pub published: u64,
}

/// Puts a table's fence up (see [`fence`]): from its publication on, the catalog is the table's only
/// writer.
///
/// # Errors
/// `TableNotFound`; `TableFrozen`; `InvalidInput` if the table is not published, or its log holds commits
/// that the catalog does not know; those of a commit.
pub async fn cutover(catalog: &Catalog, table: &TableRef) -> Result<CutoverReport> {
    let catalog = &catalog.clone().on_primary();
    let record = catalog.table(table).await?;
    let (id, name) = (record.id, record.name.clone());
    match record.mirror {
        MirrorMode::Active => {}
        MirrorMode::Off => {
            return Err(CatalogError::invalid(format!(
                "publishing of '{name}' is off, so that no fence would reach its log: `dl mirror \
                 enable {name}` first"
            )));
        }
        MirrorMode::Diverged => {
            refuse_foreign(catalog, &record).await?;
            return Err(diverged(&name));
        }
    }
    refuse_foreign(catalog, &record).await?;
    catalog.refuse_frozen_table(&TableRef::Id(id)).await?;
    let report = catalog.change_fence(&TableRef::Id(id), FenceChange::Raise).await?;
    let version = report.and_then(|report| report.tables.first().map(|table| table.version));
    Ok(CutoverReport { table_id: id, name, version })
}

/// Hands a table back to writers of its files: the fence comes down, every commit is put into the
/// log, and the catalog lets go of the table (it is dropped there, with its history kept).
///
/// The order is what makes it safe. Publishing is turned off, so that the commit without a fence
/// does not reach the log yet; the table is dropped, so that the catalog gets no further commit; and
/// only then the rest of the log is written. A call that died is repeated: by the table's name or
/// id, it goes on where it stopped.
///
/// # Errors
/// `TableNotFound`; `TableFrozen`; `InvalidInput` if the log holds commits that the catalog does not know;
/// those of a commit and of the store.
pub async fn release(
    catalog: &Catalog,
    table: &TableRef,
    keep_timestamps: bool,
    progress: &dyn Progress,
) -> Result<ReleaseReport> {
    let catalog = &catalog.clone().on_primary();
    let record = match catalog.table(table).await {
        Ok(record) => record,
        Err(CatalogError::TableNotFound(text)) => {
            released_halfway(catalog, table).await?.ok_or(CatalogError::TableNotFound(text))?
        }
        Err(error) => return Err(error),
    };
    refuse_foreign(catalog, &record).await?;
    if record.mirror == MirrorMode::Diverged {
        return Err(diverged(&record.name));
    }
    let by_id = TableRef::Id(record.id);
    if record.state == TableState::Active {
        // First: who is told so can go on with a table that is published.
        catalog.refuse_frozen_table(&by_id).await?;
        set_mode(catalog, &record, MirrorMode::Off).await?;
        if let Err(error) = let_go(catalog, &by_id, keep_timestamps).await {
            if matches!(error, CatalogError::TableFrozen(_)) {
                // It was frozen just now, which other writers must learn of.
                set_mode(catalog, &record, record.mirror).await?;
            }
            return Err(error);
        }
    }
    let head = catalog.snapshot(&by_id, At::Head).await?;
    if is_frozen(&head.protocol) {
        return Err(CatalogError::invalid(format!(
            "table '{}' was frozen while it was dropped: `dl undrop {}`, then `dl unfreeze {0}` first",
            record.name, record.id
        )));
    }
    if fence::is_up(&head.protocol) {
        return Err(CatalogError::invalid(format!(
            "table '{}' was dropped with its fence up: `dl undrop {}` first",
            record.name, record.id
        )));
    }
    let published = publish_rest(catalog, &record, &head, progress).await?;
    Ok(ReleaseReport {
        table_id: record.id,
        name: record.name,
        location: record.location,
        version: head.version,
        published,
    })
}

async fn set_mode(catalog: &Catalog, record: &TableRecord, mode: MirrorMode) -> Result<()> {
    let (backend, act) = (catalog.backend(), catalog.act());
    Retry::of(catalog).repeat(|| backend.mirror_set_mode(record.id, mode, &act)).await.map(drop)
}

async fn let_go(catalog: &Catalog, table: &TableRef, keep_timestamps: bool) -> Result<()> {
    catalog.change_fence(table, FenceChange::Lower { keep_timestamps }).await?;
    catalog.drop_table(table).await.map(drop)
}

fn diverged(name: &TableName) -> CatalogError {
    CatalogError::invalid(format!(
        "a foreign commit stands in the log of '{name}', and publishing has stopped: decide about it \
         first (`dl diff --table {name}`)"
    ))
}

/// A table of this name that a release has dropped and whose log may not be complete yet.
async fn released_halfway(catalog: &Catalog, table: &TableRef) -> Result<Option<TableRecord>> {
    let TableRef::Name(name) = table else { return Ok(None) };
    let filter = TableFilter {
        namespace: Some(name.namespace().to_owned()),
        state: Some(TableState::Dropped),
    };
    let mut tables = catalog.tables(filter);
    let mut found: Option<TableRecord> = None;
    while let Some(table) = tables.try_next().await? {
        let unpublished = table.head > table.published_version && table.mirror == MirrorMode::Off;
        if table.name == *name
            && unpublished
            && found.as_ref().is_none_or(|other| other.dropped_at < table.dropped_at)
        {
            found = Some(table);
        }
    }
    Ok(found)
}

/// A log that is ahead of the catalog was written by someone else, which is recorded
/// (see [`crate::foreign`]).
///
/// # Errors
/// `InvalidInput` naming the version that stands in the log and is not the catalog's; those of the store and
/// of the database.
pub async fn refuse_foreign(catalog: &Catalog, record: &TableRecord) -> Result<()> {
    let sink = open_sink(&record.location, &record.storage_options)?;
    let after = record.head.map(commit_name);
    let newer = sink.list(after.as_deref()).await?;
    // The head as of now: what was committed since is the catalog's own.
    let head = catalog.table(&TableRef::Id(record.id)).await?.head;
    let foreign = newer.iter().find_map(|entry| match LogName::parse(&entry.name) {
        LogName::Commit(version) if Some(version) > head => Some(version),
        _ => None,
    });
    let Some(version) = foreign else { return Ok(()) };
    let retry = Retry::of(catalog);
    let recorded = Desk::of(catalog, &retry).look(record.id, sink.as_ref(), version).await?;
    Err(CatalogError::invalid(format!(
        "'{}' holds version {version}, and the catalog's last version of '{}' is {}: another \
         program has committed to its log. Nothing was changed{}. `dl repair {}` shows both histories",
        sink.describe(),
        record.name,
        head.map_or_else(|| "none".to_owned(), |head| head.to_string()),
        if recorded.is_some() { " but that publishing of this table has stopped" } else { "" },
        record.name,
    )))
}

/// Puts what is not published yet into the log, without an outbox: the table is dropped. Safe to
/// repeat, as all of publishing is.
async fn publish_rest(
    catalog: &Catalog,
    record: &TableRecord,
    head: &Snapshot,
    progress: &dyn Progress,
) -> Result<u64> {
    let sink: Arc<dyn MirrorSink> = open_sink(&record.location, &record.storage_options)?;
    let (backend, retry) = (catalog.backend(), Retry::of(catalog));
    let mut checksums = Checksums::new(Arc::clone(backend), retry.clone(), record.id);
    let mut next = record.published_version.map_or(Version::ZERO, Version::next);
    progress.begin(
        "publishing",
        "commits",
        u64::try_from(head.version.get() + 1 - next.get()).ok(),
    );
    let mut published = 0;
    while next <= head.version {
        let bodies =
            retry.repeat(|| backend.read_bodies(record.id, next, head.version, BODY_PAGE)).await?;
        let missing = |version: Version| {
            CatalogError::corrupt(format!(
                "the catalog holds no bytes of version {version} of table '{}': its rows are damaged",
                record.name
            ))
        };
        if bodies.is_empty() {
            return Err(missing(next));
        }
        for (commit, body) in bodies {
            if commit.version != next {
                return Err(missing(next));
            }
            let (version, bytes) = (commit.version, body.published()?);
            let name = commit_name(version);
            match put_over_torn(sink.as_ref(), &name, &bytes, true).await? {
                Put::Created => published += 1,
                Put::Same => {}
                Put::Foreign(_) => {
                    return Err(CatalogError::invalid(format!(
                        "'{}/{name}' is not version {version} of table '{}': another program has \
                         committed to its log meanwhile. Nothing was overwritten; the catalog's \
                         versions are kept (`dl undrop {}`)",
                        sink.describe(),
                        record.name,
                        record.id
                    )));
                }
            }
            sink.set_modified(&name, commit.timestamp).await?;
            let interval = checkpoint_interval(&checksums.advance(&commit, &bytes).await?.metadata);
            if let Some(ours) = checksums.checksum(&commit) {
                let bytes = checksum::encode(&ours)?;
                put_over_torn(sink.as_ref(), &checksum_name(version), &bytes, true).await?;
            }
            if version > Version::ZERO && version.get() % interval == 0 {
                let table = TableRef::Id(record.id);
                let snapshot = catalog.snapshot(&table, At::Version(version)).await?;
                let info =
                    write_checkpoint(backend.as_ref(), &snapshot, sink.as_ref(), true).await?;
                write_last_checkpoint(sink.as_ref(), &info).await?;
            }
            progress.advance(1);
            next = version.next();
        }
    }
    progress.end();
    Ok(published)
}

#[cfg(test)]
#[path = "ownership_tests.rs"]
mod tests;
