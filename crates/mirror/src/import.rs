//! Brings an existing Delta table into a catalog: every commit that its log still has, byte for
//! byte, and the state of every version that can be known from it.
//!
//! The log is read by [`crate::log`] and stored in bounded steps, each one transaction. A process
//! that is killed between two steps leaves a table in state `Importing` that nobody can read or
//! write; calling again with [`ImportOptions::resume`] continues it where it was. An error that is
//! the log's fault leaves nothing behind; one of the database or of the network does, for a later
//! `resume`. The files of the table are never touched.

mod load;
mod noted;
mod source;
mod spellings;
mod validate;

use std::collections::BTreeMap;

use deltalakedb_catalog_core::action::Protocol;
use deltalakedb_catalog_core::backend::{ImportEnd, ImportProgress, TableFilter};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, Version};
use deltalakedb_catalog_core::model::{MirrorMode, NewTable, TableRecord, TableState};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use deltalakedb_catalog_engine::fence;
use futures::TryStreamExt;
use serde::Serialize;

use crate::log::{Base, CheckpointKind};
use crate::store::normalize_location;
use deltalakedb_catalog_core::secrets;
use deltalakedb_catalog_engine::retry::Retry;
use load::{Fault, Loader};
use source::{Source, state_warnings};

/// What to import, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// Name that the table gets.
    pub name: TableName,
    /// Table root: the folder above `_delta_log/`, as URL or local path.
    pub location: String,
    /// Options of the object store; secrets only by reference (`env:NAME`, `file:/path`).
    pub storage_options: BTreeMap<String, String>,
    /// Read everything and report, write nothing.
    pub dry_run: bool,
    /// Last version to import. As the log on storage then goes on without the catalog, the mirror
    /// must be `Off`.
    pub up_to_version: Option<Version>,
    /// Start from the newest checkpoint that can be read, without any history below it.
    pub checkpoint_only: bool,
    /// Do not compare the result with what the Delta kernel reads.
    pub skip_validation: bool,
    /// Whether later commits are published: `Active` or `Off`.
    pub mirror: MirrorMode,
    /// Continue an import of this name and location that was interrupted, if there is one. Without
    /// this (or `restart`) such an import is an error, as it may still be running elsewhere.
    pub resume: bool,
    /// Throw an interrupted import of this name away, and begin anew.
    pub restart: bool,
    /// Import and publish a table whose log says that a catalog owns it (see
    /// [`deltalakedb_catalog_engine::fence`]). Two catalogs that publish one log fork it: only where
    /// the other one is gone.
    pub take_over: bool,
}

impl ImportOptions {
    /// A full import with validation, whose later commits are published.
    pub fn new(name: TableName, location: impl Into<String>) -> ImportOptions {
        ImportOptions {
            name,
            location: location.into(),
            storage_options: BTreeMap::new(),
            dry_run: false,
            up_to_version: None,
            checkpoint_only: false,
            skip_validation: false,
            mirror: MirrorMode::Active,
            resume: false,
            restart: false,
            take_over: false,
        }
    }

    /// Refuses a log that another catalog publishes.
    fn check_owner(&self, location: &str, protocol: &Protocol) -> Result<()> {
        if self.take_over || self.mirror == MirrorMode::Off || !fence::is_up(protocol) {
            return Ok(());
        }
        Err(CatalogError::invalid(format!(
            "the log at '{location}' is published by a catalog (it has the writer feature '{}'): \
             two catalogs would fork it. Have that catalog let go of the table (`dl release`), or \
             take it over if that catalog is gone (`dl import --take-over`). With its mirror off \
             the table can be imported as it is",
            fence::FEATURE
        )))
    }
}

/// Where the state of an imported table starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "from")]
pub enum BaseSource {
    /// From commit 0: every version can be read.
    Commits,
    /// From a checkpoint: versions from it on can be read.
    Checkpoint {
        /// Its form.
        form: CheckpointKind,
        /// Name of its (first) file.
        file: String,
    },
}

/// Whether the result was compared with the Delta kernel's reading of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum Validation {
    /// Compared, and the same: files, sizes, partition values, deletion vectors, record counts,
    /// protocol, metadata, application transactions and domain metadata.
    Passed,
    /// Not asked for.
    Skipped,
    /// The kernel cannot read this table.
    NotValidated {
        /// Why.
        why: String,
    },
}

/// What an import did, or with `dry_run` would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Name.
    pub name: TableName,
    /// Location, normalized.
    pub location: String,
    /// Id in the catalog; none after a dry run.
    pub table_id: Option<TableId>,
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// Whether an interrupted import was continued.
    pub resumed: bool,
    /// First version whose state is known.
    pub base_version: Version,
    /// Where it is from; none if the import was complete already.
    pub base: Option<BaseSource>,
    /// Last version.
    pub head: Version,
    /// Last version of the log at the beginning.
    pub log_head: Version,
    /// Files at the head.
    pub num_files: u64,
    /// Their size, bytes.
    pub size_bytes: u64,
    /// Commits that were read and applied by this call.
    pub applied_commits: u64,
    /// Commits below or at the base that were read as history by this call.
    pub history_commits: u64,
    /// Files and tombstones of the base.
    pub base_actions: u64,
    /// Bytes of commit files that were read.
    pub log_bytes: u64,
    /// Comparison with the Delta kernel.
    pub validation: Validation,
    /// Things that a person should know.
    pub warnings: Vec<String>,
}

/// Imports a table.
///
/// Commits that other writers add while it runs are imported too, unless
/// [`ImportOptions::up_to_version`] is set. From the end on, the catalog is the table's only
/// writer.
///
/// # Errors
/// * `InvalidInput`: another catalog publishes this log ([`ImportOptions::take_over`]); the place belongs to another table of the catalog that is published, and this
///   one is to be published too; no Delta table there; a commit that is not the protocol's JSON (file, line);
///   no such version; options that exclude each other; an interrupted import without `resume`.
/// * `TableExists`: the name is taken.
/// * `Corrupt`: a gap in the log that no checkpoint bridges (names the version), an unreadable
///   checkpoint (names the file), no protocol, metadata or schema, a schema that is not JSON, or a
///   result that the Delta kernel does not agree with, from whichever base (lists the
///   differences).
/// * `Unavailable`: the location or the database cannot be reached; `resume` continues.
pub async fn import_table(
    catalog: &Catalog,
    options: ImportOptions,
    progress: &dyn Progress,
) -> Result<ImportReport> {
    // What was written is compared where it was written.
    let catalog = &catalog.clone().on_primary();
    let location = normalize_location(&options.location)?;
    secrets::check_options(&options.storage_options)?;
    if options.mirror == MirrorMode::Diverged {
        return Err(CatalogError::invalid("an import starts with its mirror on or off"));
    }
    if options.resume && options.restart {
        return Err(CatalogError::invalid(
            "an interrupted import is resumed or restarted, not both",
        ));
    }
    let mut warnings = Vec::new();
    let interrupted = match find_table(catalog, &options, &location).await? {
        Found::Nothing => None,
        Found::Interrupted(record) => Some(record),
        Found::Complete(record) => return complete_already(catalog, options, record).await,
    };
    if options.mirror == MirrorMode::Active {
        refuse_taken_place(catalog, &options.name, &location).await?;
    }
    let mut source = Source::open(&options, &location, interrupted.as_ref(), &mut warnings).await?;
    if options.up_to_version.is_some()
        && source.head < source.log_head
        && options.mirror == MirrorMode::Active
    {
        return Err(CatalogError::invalid(format!(
            "the log at '{location}' goes on to version {}: a table that is imported up to \
             version {} cannot be published there. Turn its mirror off, or import all of it",
            source.log_head, source.head
        )));
    }

    if options.dry_run {
        let mut loader = Loader::survey(&mut source, progress);
        loader.run(None).await.map_err(Fault::into_error)?;
        let (num_files, size_bytes) = loader.totals();
        let counts = loader.counts();
        warnings.extend(loader.warnings());
        if let (Some(protocol), Some(metadata)) = (&source.protocol, &source.metadata) {
            options.check_owner(&location, protocol)?;
            warnings.extend(state_warnings(protocol, metadata));
        }
        return Ok(report(&options, location, &source, counts, warnings, |r| {
            r.num_files = num_files;
            r.size_bytes = size_bytes;
        }));
    }

    // Readers prefer a checkpoint to the commits below it. Where the two contradict each other, the
    // state that they see starts from the checkpoint.
    let mut interrupted = interrupted;
    let mut first_error: Option<CatalogError> = None;
    let (table_id, resumed, counts, odd, snapshot, validation, fed) = loop {
        let (started, resumed) =
            begin(catalog, &options, &location, &mut source, interrupted.take()).await?;
        let table_id = started.table.id;
        let mut loader = Loader::store(&mut source, catalog, table_id, progress);
        let loaded = match loader.run(Some(started)).await {
            Ok(()) if options.up_to_version.is_none() => loader.catch_up().await,
            other => other,
        };
        let (counts, odd) = (loader.counts(), loader.warnings());
        let fed = loader.index().await;
        match loaded {
            Ok(()) => {}
            Err(Fault::Backend(error)) => return Err(error),
            Err(Fault::Log(error)) => {
                // Nothing that a later `resume` could use as long as the log is like this.
                if !matches!(error, CatalogError::Unavailable { .. }) {
                    abort(catalog, table_id).await?;
                }
                return Err(error);
            }
        }
        let snapshot = catalog.snapshot(&TableRef::Id(table_id), At::Head).await?;
        if let Err(error) = options.check_owner(&location, &snapshot.protocol) {
            abort(catalog, table_id).await?;
            return Err(error);
        }
        if options.skip_validation {
            break (table_id, resumed, counts, odd, snapshot, Validation::Skipped, fed);
        }
        progress.begin("Comparing with the Delta kernel", "files", Some(snapshot.num_files));
        let validation = validate::validate(catalog, &snapshot, progress).await;
        progress.end();
        match validation {
            Ok(validation) => {
                break (table_id, resumed, counts, odd, snapshot, validation, fed);
            }
            Err(error @ CatalogError::Corrupt(_)) => {
                abort(catalog, table_id).await?;
                let error = first_error.get_or_insert(error);
                if !source.next_base().await.unwrap_or(false) {
                    return Err(first_error.unwrap_or_else(|| {
                        CatalogError::corrupt(format!("'{location}' has no base left"))
                    }));
                }
                let Base::Checkpoint(files) = source.base() else { continue };
                warnings.push(format!(
                    "commits and checkpoint '{}' contradict each other. Readers see the \
                     checkpoint: the state starts from it, and earlier commits are kept as \
                     history. ({error})",
                    files.name()
                ));
            }
            Err(error) => return Err(error),
        }
    };
    let act = catalog.act();
    // The log that was read is the table's own: all of it is published.
    let (retry, by_id) = (Retry::of(catalog), TableRef::Id(table_id));
    let published = retry.repeat(|| catalog.backend().get_table(&by_id)).await?;
    let published = published.and_then(|table| table.head);
    let end = ImportEnd { published, ..ImportEnd::default() };
    let record = retry.repeat(|| catalog.backend().import_finish(table_id, end, &act)).await?;
    // The import stands without it.
    let index = async {
        if let Some(fed) = fed {
            catalog.adopt_index(table_id, fed).await?;
        }
        catalog.maintain_index(table_id).await
    };
    if let Err(error) = index.await {
        tracing::warn!(table = %record.name, %error, "the skipping index was not made");
    }
    warnings.extend(odd);
    warnings.extend(state_warnings(&snapshot.protocol, &snapshot.metadata));
    Ok(report(&options, location, &source, counts, warnings, |r| {
        r.table_id = Some(record.id);
        r.resumed = resumed;
        r.base_version = record.base_version;
        r.head = snapshot.version;
        r.num_files = snapshot.num_files;
        r.size_bytes = snapshot.size_bytes;
        r.validation = validation;
    }))
}

fn report(
    options: &ImportOptions,
    location: String,
    source: &Source,
    counts: load::Counts,
    warnings: Vec<String>,
    finish: impl FnOnce(&mut ImportReport),
) -> ImportReport {
    let base = source.base();
    let mut report = ImportReport {
        name: options.name.clone(),
        location,
        table_id: None,
        dry_run: options.dry_run,
        resumed: false,
        base_version: base.version(),
        base: Some(match base {
            Base::Json => BaseSource::Commits,
            Base::Checkpoint(files) => {
                BaseSource::Checkpoint { form: files.kind, file: files.name().to_owned() }
            }
        }),
        head: source.head,
        log_head: source.log_head,
        num_files: 0,
        size_bytes: 0,
        applied_commits: counts.applied,
        history_commits: counts.history,
        base_actions: counts.base_actions,
        log_bytes: counts.bytes,
        validation: Validation::Skipped,
        warnings,
    };
    finish(&mut report);
    report
}

/// What stands under the name.
enum Found {
    Nothing,
    /// An import that is to be continued.
    Interrupted(TableRecord),
    /// An import that is to be continued, and has been finished: only its answer was lost.
    Complete(TableRecord),
}

async fn find_table(catalog: &Catalog, options: &ImportOptions, location: &str) -> Result<Found> {
    let name = &options.name;
    let table = TableRef::Name(name.clone());
    let found = Retry::of(catalog).repeat(|| catalog.backend().get_table(&table)).await?;
    let Some(record) = found else { return Ok(Found::Nothing) };
    if record.state != TableState::Importing {
        if options.resume && !options.dry_run && record.location == location {
            return Ok(Found::Complete(record));
        }
        return Err(CatalogError::TableExists(name.clone()));
    }
    if options.dry_run {
        return Ok(Found::Nothing);
    }
    if options.restart {
        abort(catalog, record.id).await?;
        return Ok(Found::Nothing);
    }
    if record.location != location {
        return Err(CatalogError::invalid(format!(
            "an import of '{name}' from '{}' is not finished: finish it, choose another name, or \
             throw it away with --restart",
            record.location
        )));
    }
    if !options.resume {
        return Err(CatalogError::invalid(format!(
            "an import of '{name}' is running, or was interrupted: continue it with --resume, or \
             throw it away with --restart"
        )));
    }
    Ok(Found::Interrupted(record))
}

/// Two tables that publish into one log would each be a foreign writer to the other.
async fn refuse_taken_place(catalog: &Catalog, name: &TableName, location: &str) -> Result<()> {
    for state in [TableState::Active, TableState::Importing] {
        let filter = TableFilter { namespace: None, state: Some(state) };
        let mut tables = catalog.tables(filter);
        while let Some(other) = tables.try_next().await? {
            if other.location == location && other.mirror != MirrorMode::Off && other.name != *name
            {
                return Err(CatalogError::invalid(format!(
                    "'{location}' is the place of table '{}' already: two tables cannot publish \
                     into one log. Drop that one first, or import with the mirror off \
                     (--no-mirror)",
                    other.name
                )));
            }
        }
    }
    Ok(())
}

async fn complete_already(
    catalog: &Catalog,
    options: ImportOptions,
    record: TableRecord,
) -> Result<ImportReport> {
    let snapshot = catalog.snapshot(&TableRef::Id(record.id), At::Head).await?;
    Ok(ImportReport {
        name: options.name,
        location: record.location,
        table_id: Some(record.id),
        dry_run: false,
        resumed: true,
        base_version: record.base_version,
        base: None,
        head: snapshot.version,
        log_head: snapshot.version,
        num_files: snapshot.num_files,
        size_bytes: snapshot.size_bytes,
        applied_commits: 0,
        history_commits: 0,
        base_actions: 0,
        log_bytes: 0,
        validation: Validation::Skipped,
        warnings: vec![
            "the import was complete already. It was not compared with its log again: \
             `dl diff` does that"
                .to_owned(),
        ],
    })
}

async fn abort(catalog: &Catalog, table_id: TableId) -> Result<()> {
    let act = catalog.act();
    Retry::of(catalog).repeat(|| catalog.backend().import_abort(table_id, &act)).await
}

/// Registers the table, or finds the interrupted import. True if that was continued.
async fn begin(
    catalog: &Catalog,
    options: &ImportOptions,
    location: &str,
    source: &mut Source,
    interrupted: Option<TableRecord>,
) -> Result<(ImportProgress, bool)> {
    let table = NewTable {
        id: TableId(catalog.ids().uuid()),
        name: options.name.clone(),
        location: location.to_owned(),
        storage_options: options.storage_options.clone(),
        mirror: options.mirror,
    };
    let now = catalog.clock().now();
    loop {
        let base = source.base();
        let from_json = *base == Base::Json;
        let begun = Retry::of(catalog)
            .repeat(|| catalog.backend().import_begin(&table, base.version(), from_json, now))
            .await;
        match begun {
            Ok(progress) => {
                if let Some(stored) = progress.table.head
                    && stored > source.head
                {
                    return Err(CatalogError::invalid(format!(
                        "the interrupted import of '{}' has stored version {stored} already: it \
                         cannot end at version {}",
                        options.name, source.head
                    )));
                }
                let resumed = progress.table.id != table.id;
                return Ok((progress, resumed));
            }
            // Version 0 as commit and as checkpoint are two bases of one version.
            Err(CatalogError::TableExists(_))
                if interrupted.is_some() && source.next_base().await? => {}
            Err(error) => return Err(error),
        }
    }
}
