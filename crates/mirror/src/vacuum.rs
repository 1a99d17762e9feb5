//! Deletes data files that nothing needs any more (protocol section "Vacuum Protocol Check" and
//! "Data Files"): neither the head, nor a version that is still being published, nor readers of older
//! versions within the retention, nor a commit that is on its way.
//!
//! A file goes if it lies below the table's root, is older than the retention
//! (`delta.deletedFileRetentionDuration`, a week if not set), and no active file, no tombstone within
//! the retention and no deletion vector of either names it. Everything unclear is kept:
//!
//! 1. Names are compared by what they mean ([`paths`](deltalakedb_catalog_core::paths)), in every reading
//!    that they may have. A path that cannot be placed ends the vacuum.
//! 2. On local disks files are compared by what they are, too: by device and inode. What is reached
//!    through a symbolic link is never deleted.
//! 3. Folders of other tables are theirs: those that have a log of their own, and those that the catalog
//!    knows as locations of other tables. Everything is listed before anything is deleted, as a log may
//!    be listed after its data.
//! 4. Files that other tables of the catalog name are kept: shallow clones, tables above this one.
//!
//! Commits may go on meanwhile. A file of a commit that is not there yet is younger than the retention;
//! whoever commits an *older* file that the table does not have (`dl append` of files that lay around)
//! must not do so while a vacuum deletes: what such commits added up to each batch of deletions is
//! kept, and the moment in between cannot be closed from here.

mod local;
mod needed;
mod others;

use deltalakedb_catalog_core::action::Metadata;
use deltalakedb_catalog_core::audit::action;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, TableState};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Serialize;
use serde_json::json;

use crate::ownership::refuse_foreign;
use crate::properties::readable_tombstone_retention_ms;
use crate::store::{LOG_FOLDER, Store, open_store, store_error};
use local::{Disk, Finding};
use needed::Needed;
use others::Others;

/// Files deleted between two looks at the table's head.
const BATCH: usize = 1_000;
/// Files named in a report.
const SHOWN: usize = 1_000;
/// Files that may go which are kept in memory; if there are more, everything is listed twice.
const MAX_FOUND: usize = 200_000;

/// What to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VacuumOptions {
    /// Files that were removed, or written without being committed, for longer than this. The table's
    /// own retention if not given.
    pub retention_ms: Option<i64>,
    /// Accept a retention that is shorter than the table's: readers of older versions and commits on
    /// their way may lose files.
    pub accept_short: bool,
    /// Versions that stay readable, however old: of long readers, of audits.
    pub keep_versions: Vec<Version>,
    /// Do not ask whether other tables of the catalog need files below this root, as shallow clones do:
    /// each of their files is looked at for that.
    pub ignore_other_tables: bool,
    /// Delete; without it nothing is.
    pub delete: bool,
}

/// What a vacuum found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VacuumReport {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// Version whose files were kept (and those of later ones).
    pub version: Version,
    /// Retention in force, milliseconds.
    pub retention_ms: i64,
    /// Files below the root that were looked at, those of other tables included.
    pub seen: u64,
    /// Files that nothing needs.
    pub unneeded: u64,
    /// Their size, bytes.
    pub unneeded_bytes: u64,
    /// How many of them were deleted.
    pub deleted: u64,
    /// Some of them, in the order of the listing, relative to the root.
    pub files: Vec<String>,
    /// Folders below the root that are other tables': nothing in them was looked at.
    pub other_tables: u64,
    /// Some of them, relative to the root.
    pub other_table_folders: Vec<String>,
    /// Old files that are reached through a symbolic link, and left alone for that.
    pub linked: u64,
}

/// `delta.deletedFileRetentionDuration` of a table, milliseconds; a week if it has none. Publishing takes what cannot
/// be read as not set; nothing is deleted by it.
///
/// # Errors
/// `InvalidInput` for a value that cannot be read.
pub fn stated_retention_ms(name: &TableName, metadata: &Metadata) -> Result<i64> {
    readable_tombstone_retention_ms(metadata).ok_or_else(|| {
        CatalogError::invalid(format!(
            "delta.deletedFileRetentionDuration of '{name}' cannot be read, as months and years have no fixed \
             length: write it as 'interval 30 days' (`dl alter {name} --set`)"
        ))
    })
}

/// Finds, and with [`VacuumOptions::delete`] deletes, files that nothing needs.
///
/// # Errors
/// `TableNotFound`; `TableFrozen`, also if the table is frozen while this deletes; `VersionNotFound` for one to
/// keep that is not there; `InvalidInput` for a
/// retention that is too short, or of the table and cannot be read, for a table in whose log others have committed (the catalog does
/// not know which files those need), for a path that cannot be placed, for a second table at the same
/// location; those of the database and of the store. What was deleted by then
/// stays deleted: none of it was needed.
pub async fn vacuum(
    catalog: &Catalog,
    table: &TableRef,
    options: VacuumOptions,
    progress: &dyn Progress,
) -> Result<VacuumReport> {
    let catalog = &catalog.clone().on_primary();
    let record = catalog.table(table).await?;
    if record.state != TableState::Active {
        return Err(CatalogError::TableNotFound(table.to_string()));
    }
    if record.mirror == MirrorMode::Diverged {
        return Err(CatalogError::invalid(format!(
            "a foreign commit stands in the log of '{}', and the catalog does not know which files it \
             needs: `dl repair {}` first",
            record.name, record.name
        )));
    }
    refuse_foreign(catalog, &record).await?;
    let head = catalog.snapshot(&TableRef::Id(record.id), At::Head).await?;
    if options.delete {
        catalog.refuse_frozen(&head).await?;
    }
    let own = match (options.retention_ms, stated_retention_ms(&record.name, &head.metadata)) {
        (_, Ok(own)) => own,
        // However short: what the table says does not count then.
        (Some(given), Err(_)) if options.accept_short => given,
        (_, Err(error)) => return Err(error),
    };
    let retention_ms = options.retention_ms.unwrap_or(own);
    if retention_ms < own && !options.accept_short {
        return Err(CatalogError::invalid(format!(
            "a retention of {} h is shorter than the {} h of '{}' (delta.deletedFileRetentionDuration): \
             readers of older versions and commits on their way may need these files; \
             `dl vacuum` takes it with --accept-short-retention",
            retention_ms / 3_600_000,
            own / 3_600_000,
            record.name
        )));
    }
    let cutoff = catalog.clock().now().plus_ms(retention_ms.saturating_neg());
    let place = open_store(&record.location, &record.storage_options)?;
    let disk = place.local.as_deref().map(Disk::new);
    for version in &options.keep_versions {
        // One that is not there is an error, not nothing to keep.
        catalog.snapshot(&TableRef::Id(record.id), At::Version(*version)).await?;
    }
    let others = Others::of(catalog, &record, &place).await?;
    let mut needed = Needed::new(place.paths()?, disk.clone());
    needed.read(catalog, &head, &options.keep_versions, cutoff, progress).await?;
    let report = VacuumReport {
        table_id: record.id,
        name: record.name.clone(),
        version: head.version,
        retention_ms,
        seen: 0,
        unneeded: 0,
        unneeded_bytes: 0,
        deleted: 0,
        files: Vec::new(),
        other_tables: 0,
        other_table_folders: Vec::new(),
        linked: 0,
    };
    let read_to = head.version;
    let mut work = Work {
        catalog,
        place,
        disk,
        options,
        cutoff,
        needed,
        others,
        asked: false,
        read_to,
        report,
    };
    if work.options.delete {
        // Before the first file goes: who looks for one that is gone finds this, whatever happened then.
        let detail = json!({ "version": head.version, "retention_ms": retention_ms });
        catalog.record(action::VACUUM_START, Some(&record), &detail).await?;
    }
    let result = work.run(progress).await;
    if work.options.delete {
        let mut detail = json!({ "deleted": work.report.deleted, "seen": work.report.seen });
        if let Err(error) = &result {
            detail["error"] = error.code().into();
        }
        catalog.record(action::VACUUM_END, Some(&record), &detail).await?;
    }
    result?;
    work.report.other_tables = u64::try_from(work.others.folders().len()).unwrap_or(u64::MAX);
    work.report.other_table_folders = work.others.folders().take(SHOWN).cloned().collect();
    Ok(work.report)
}

/// An old file that is not known to be needed.
struct Found {
    path: Path,
    /// The same, relative to the root.
    relative: String,
    size: u64,
}

struct Work<'a> {
    catalog: &'a Catalog,
    place: Store,
    disk: Option<Disk>,
    options: VacuumOptions,
    cutoff: TimestampMs,
    needed: Needed,
    others: Others,
    /// Whether the other tables were asked what they need.
    asked: bool,
    /// Version whose commits are known.
    read_to: Version,
    report: VacuumReport,
}

impl Work<'_> {
    async fn run(&mut self, progress: &dyn Progress) -> Result<()> {
        progress.begin("looking at files", "files", None);
        let mut found = Vec::new();
        let mut too_many = false;
        let mut listing = self.list();
        while let Some(object) = self.next(&mut listing).await? {
            let Some(relative) = relative(&object.location, &self.place.root) else { continue };
            self.others.note(&relative);
            if is_hidden(&relative) {
                continue;
            }
            self.report.seen += 1;
            progress.advance(1);
            if too_many || !self.may_go(&object, &relative) {
                continue;
            }
            too_many = found.len() >= MAX_FOUND;
            found.push(Found { path: object.location, relative, size: object.size });
        }
        drop(listing);
        progress.end();
        if !too_many {
            let mut found = found.into_iter();
            loop {
                let some: Vec<Found> = found.by_ref().take(BATCH).collect();
                if some.is_empty() {
                    return Ok(());
                }
                self.settle(some, progress).await?;
            }
        }
        drop(found);
        let mut some = Vec::new();
        let mut listing = self.list();
        while let Some(object) = self.next(&mut listing).await? {
            let Some(relative) = relative(&object.location, &self.place.root) else { continue };
            if is_hidden(&relative) || !self.may_go(&object, &relative) {
                continue;
            }
            some.push(Found { path: object.location, relative, size: object.size });
            if some.len() >= BATCH {
                self.settle(std::mem::take(&mut some), progress).await?;
            }
        }
        self.settle(some, progress).await
    }

    fn list(&self) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let root = &self.place.root;
        self.place.store.list((!root.is_root()).then_some(root))
    }

    async fn next(
        &self,
        listing: &mut BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> Result<Option<ObjectMeta>> {
        match listing.try_next().await {
            Ok(next) => Ok(next),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(store_error(&format!("cannot list '{}'", self.place.url), &e)),
        }
    }

    fn may_go(&self, object: &ObjectMeta, relative: &str) -> bool {
        let modified = TimestampMs(object.last_modified.timestamp_millis());
        modified < self.cutoff && !self.needed.has(relative)
    }

    /// Decides about some files, and deletes those that may go.
    async fn settle(&mut self, mut found: Vec<Found>, progress: &dyn Progress) -> Result<()> {
        found.retain(|file| !self.others.own(&file.relative));
        if found.is_empty() {
            return Ok(());
        }
        if !self.asked && !self.options.ignore_other_tables {
            self.others.read(self.catalog, &mut self.needed, progress).await?;
            self.asked = true;
        }
        if self.options.delete {
            // What was committed since is needed as well.
            let id = self.report.table_id;
            self.read_to = self.needed.read_since(self.catalog, id, self.read_to).await?;
        }
        found.retain(|file| !self.needed.has(&file.relative));
        if let Some(disk) = &self.disk {
            let relative = found.iter().map(|file| file.relative.clone()).collect();
            let findings = disk.look(relative, self.needed.ids()).await?;
            let mut findings = findings.into_iter();
            found.retain(|_| match findings.next() {
                Some(Finding::Free) => true,
                Some(Finding::Linked) => {
                    self.report.linked += 1;
                    false
                }
                Some(Finding::Needed | Finding::Gone) | None => false,
            });
        }
        for file in found {
            self.report.unneeded += 1;
            self.report.unneeded_bytes += file.size;
            if self.report.files.len() < SHOWN {
                self.report.files.push(file.relative);
            }
            if !self.options.delete {
                continue;
            }
            match self.place.store.delete(&file.path).await {
                Ok(()) => self.report.deleted += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => {
                    let shown = self.place.shown(&file.path);
                    return Err(store_error(&format!("cannot delete '{shown}'"), &e));
                }
            }
        }
        Ok(())
    }
}

/// The path of an object below a root, as text.
fn relative(path: &Path, root: &Path) -> Option<String> {
    let parts = path.prefix_match(root)?;
    Some(parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
}

/// Whether a file is none of the table's data: the log, and what begins with `_` or `.` but change
/// data and partitions of such a column (protocol section "File Types").
fn is_hidden(relative: &str) -> bool {
    relative.split('/').any(|part| {
        part == LOG_FOLDER
            || part.starts_with('.')
            || (part.starts_with('_') && part != "_change_data" && !part.contains('='))
    })
}

#[cfg(test)]
#[path = "vacuum_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "vacuum_paths_tests.rs"]
mod paths_tests;
