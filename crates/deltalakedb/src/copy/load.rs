//! Fills one table of the target.

use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{ImportEnd, ImportProgress};
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TableId, TableRef, Version};
use deltalakedb_catalog_core::model::{NewTable, TableRecord, TableState};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use deltalakedb_catalog_engine::retry::Retry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::source::{Step, Steps};

/// What a call has done for a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loaded {
    /// Commits stored.
    pub(crate) commits: u64,
    /// Whether some of the table was there already.
    pub(crate) resumed: bool,
}

/// Whether what is stored of a table can be continued. (`head`: the source may have been restored
/// from a backup.)
pub(crate) fn continues(source: &TableRecord, copy: &TableRecord) -> bool {
    source.name == copy.name
        && source.location == copy.location
        && source.storage_options == copy.storage_options
        && source.mirror == copy.mirror
        && source.base_version == copy.base_version
        && copy.head <= source.head
}

/// Whether the same call may succeed soon, or has succeeded although its answer is lost.
fn is_transient(error: &CatalogError) -> bool {
    error.is_retryable() || error.write_state() == WriteState::Unknown
}

/// Ends the import of a table as the source has it.
pub(crate) async fn finish(to: &Catalog, record: &TableRecord) -> Result<TableRecord> {
    let finished = finish_import(to, record).await?;
    // The copy stands without it: it is no part of what is copied, but made anew.
    if let Err(error) = to.maintain_index(record.id).await {
        tracing::warn!(table = %record.name, %error, "the skipping index was not made");
    }
    Ok(finished)
}

async fn finish_import(to: &Catalog, record: &TableRecord) -> Result<TableRecord> {
    let end = ImportEnd {
        published: record.published_version,
        created_at: Some(record.created_at),
        dropped_at: record.dropped_at,
    };
    let act = to.act();
    let mut attempts = Retry::of(to).start();
    loop {
        let error = match to.backend().import_finish(record.id, end, &act).await.plain() {
            Ok(finished) => return Ok(finished),
            Err(error) => error,
        };
        // Maybe only the answer was lost, or another copy was faster.
        match find(to, record.id).await? {
            Some(found) if found.state != TableState::Importing => return Ok(found),
            _ => {}
        }
        if !is_transient(&error) {
            return Err(error);
        }
        if !attempts.again().await {
            return Err(attempts.explain(error));
        }
    }
}

/// Deletes what is stored of a table that is not finished.
pub(crate) async fn abort(to: &Catalog, id: TableId) -> Result<()> {
    let act = to.act();
    let mut attempts = Retry::of(to).start();
    loop {
        let Err(error) = to.backend().import_abort(id, &act).await.plain() else { return Ok(()) };
        if !is_transient(&error) {
            return Err(error);
        }
        if !attempts.again().await {
            return Err(attempts.explain(error));
        }
        if find(to, id).await?.is_none() {
            return Ok(());
        }
    }
}

/// The row of a table, whatever its state.
pub(crate) async fn find(catalog: &Catalog, id: TableId) -> Result<Option<TableRecord>> {
    let table = TableRef::Id(id);
    Retry::of(catalog).repeat(|| catalog.backend().get_table(&table)).await
}

/// Stores everything up to the head, from where an earlier call has stopped.
pub(crate) async fn load(
    source: &impl Steps,
    to: &Catalog,
    record: &TableRecord,
    progress: &dyn Progress,
) -> Result<Loaded> {
    let mut stored = begin(to, record, source.is_replayed()).await?;
    let resumed = stored.table.head.is_some()
        || stored.history_through.is_some()
        || stored.base_files > 0
        || stored.base_tombstones > 0;
    let mut commits = 0;
    let mut failures = Retry::of(to).start();
    loop {
        let start = position(&stored);
        let Err(error) = run(source, to, &mut stored, &mut commits, progress).await else {
            return Ok(Loaded { commits, resumed });
        };
        if position(&stored) > start {
            failures.begin_anew();
        }
        if matches!(error, CatalogError::InvalidInput(_) | CatalogError::TableNotFound(_)) {
            let now = begin(to, record, source.is_replayed()).await?;
            return Err(if position(&now) == position(&stored) { error } else { rival(record) });
        }
        if !is_transient(&error) {
            return Err(error);
        }
        if !failures.again().await {
            return Err(failures.explain(error));
        }
        // Whatever became of that step: go on from what is there.
        tracing::debug!(table = %record.name, %error, "the copy of a table goes on");
        stored = begin(to, record, source.is_replayed()).await?;
    }
}

fn position(at: &ImportProgress) -> (Option<Version>, Option<Version>, u64, u64) {
    (at.table.head, at.history_through, at.base_files, at.base_tombstones)
}

/// Registers the table, or finds it.
async fn begin(to: &Catalog, record: &TableRecord, from_json: bool) -> Result<ImportProgress> {
    let new = NewTable {
        id: record.id,
        name: record.name.clone(),
        location: record.location.clone(),
        storage_options: record.storage_options.clone(),
        mirror: record.mirror,
    };
    let (backend, now) = (to.backend(), to.clock().now());
    let mut attempts = Retry::of(to).start();
    let progress = loop {
        let begun = backend.import_begin(&new, record.base_version, from_json, now).await.plain();
        match begun {
            Err(error) if is_transient(&error) => {
                if !attempts.again().await {
                    return Err(attempts.explain(error));
                }
            }
            Err(error @ (CatalogError::TableExists(_) | CatalogError::InvalidInput(_))) => {
                return Err(in_the_way(to, record, error).await);
            }
            other => break other?,
        }
    };
    if progress.table.id == record.id {
        return Ok(progress);
    }
    Err(CatalogError::invalid(format!(
        "an import of '{}' into the target is running ({}), which is not this copy",
        record.name, progress.table.id
    )))
}

/// The error of a table that someone else fills, too.
fn rival(record: &TableRecord) -> CatalogError {
    CatalogError::invalid(format!(
        "another copy is at work on table '{}' of the target: wait for its end or stop it, then \
         run the same command again",
        record.name
    ))
}

/// The error of a table that cannot be registered.
async fn in_the_way(to: &Catalog, record: &TableRecord, error: CatalogError) -> CatalogError {
    match find(to, record.id).await {
        Ok(Some(found)) if found.state != TableState::Importing => rival(record),
        Ok(Some(_)) => CatalogError::invalid(format!(
            "table '{}' of the target was begun from another state of the source: empty the \
             target and copy again",
            record.name
        )),
        _ => error,
    }
}

/// Carries out steps until nothing is left.
async fn run(
    source: &impl Steps,
    to: &Catalog,
    stored: &mut ImportProgress,
    commits: &mut u64,
    progress: &dyn Progress,
) -> Result<()> {
    let id = stored.table.id;
    let backend = to.backend();
    // One step is read and parsed while the one before is stored.
    let (sender, mut steps) = mpsc::channel(1);
    let _reader = Running(tokio::spawn(source.clone().send(stored.clone(), sender)));
    while let Some(step) = steps.recv().await {
        *stored = match step? {
            Step::Commits(batch) => {
                let count = u64::try_from(batch.len()).unwrap_or_default();
                let after = backend.import_commits(id, batch.into()).await?;
                progress.advance(count);
                *commits = commits.saturating_add(count);
                after
            }
            Step::Base { files, tombstones, chunk, tail } => {
                backend.import_base(id, files, tombstones, chunk, tail.map(|tail| *tail)).await?
            }
        };
    }
    if stored.table.head == Some(source.head()) {
        return Ok(());
    }
    // The reader ended without a word: it must not pass for the end of the table.
    Err(CatalogError::failed(
        format!("reading table {id} of the source broke off"),
        WriteState::NotApplied,
    ))
}

/// A task that is stopped when nobody waits for it any more.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
