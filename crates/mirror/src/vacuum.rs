//! Deletes data files that nothing needs any more (protocol section "Vacuum Protocol Check" and
//! "Data Files"): neither the head, nor a version that is still being published, nor readers of older
//! versions within the retention, nor a commit that is on its way.
//!
//! A file goes if it lies below the table's root, is older than the retention
//! (`delta.deletedFileRetentionDuration`, a week if not set), and no active file, no tombstone within
//! the retention and no deletion vector of either names it. Everything unclear is kept: names are
//! compared in every form that a writer may have given them.
//!
//! Commits may go on meanwhile. A file of a commit that is not there yet is younger than the retention;
//! whoever commits an *older* file that the table does not have (`dl append` of files that lay around)
//! must not do so while a vacuum deletes: what such commits added up to each batch of deletions is
//! kept, and the moment in between cannot be closed from here.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};

use deltalakedb_catalog_core::action::DeletionVector;
use deltalakedb_catalog_core::catalog::Catalog;
use deltalakedb_catalog_core::env::Progress;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, Snapshot, TableState};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use uuid::Uuid;

use crate::ownership::refuse_foreign;
use crate::properties::tombstone_retention_ms;
use crate::store::{LOG_FOLDER, open_store, store_error};

/// Files deleted between two looks at the table's head.
const BATCH: usize = 1_000;
/// Files named in a report.
const SHOWN: usize = 1_000;

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
    /// Files below the root that were looked at.
    pub seen: u64,
    /// Files that nothing needs.
    pub unneeded: u64,
    /// Their size, bytes.
    pub unneeded_bytes: u64,
    /// How many of them were deleted.
    pub deleted: u64,
    /// Some of them, in the order of the listing, relative to the root.
    pub files: Vec<String>,
}

/// Finds, and with [`VacuumOptions::delete`] deletes, files that nothing needs.
///
/// # Errors
/// `TableNotFound`; `VersionNotFound` for one to keep that is not there; `InvalidInput` for a
/// retention that is too short, and for a table in whose log others have committed: the catalog does
/// not know which files those need; those of the database and of the store. What was deleted by then
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
    let own = tombstone_retention_ms(&head.metadata);
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
    let mut needed = Needed { names: HashSet::new(), root: place.url.as_str().to_owned() };
    for version in &options.keep_versions {
        // One that is not there is an error, not nothing to keep.
        catalog.snapshot(&TableRef::Id(record.id), At::Version(*version)).await?;
    }
    needed.read(catalog, &head, &options.keep_versions, cutoff, progress).await?;
    let mut report = VacuumReport {
        table_id: record.id,
        name: record.name.clone(),
        version: head.version,
        retention_ms,
        seen: 0,
        unneeded: 0,
        unneeded_bytes: 0,
        deleted: 0,
        files: Vec::new(),
    };
    let prefix = (!place.root.is_root()).then_some(&place.root);
    let mut listing = place.store.list(prefix);
    let list_error =
        |e: &object_store::Error| store_error(&format!("cannot list '{}'", place.url), e);
    let mut doomed: Vec<Path> = Vec::new();
    let mut read_to = head.version;
    progress.begin("looking at files", "files", None);
    loop {
        let next = match listing.try_next().await {
            Ok(next) => next,
            Err(object_store::Error::NotFound { .. }) => None,
            Err(e) => return Err(list_error(&e)),
        };
        let last = next.is_none();
        if let Some(object) = next {
            let Some(relative) = relative(&object.location, &place.root) else { continue };
            if is_hidden(&relative) {
                continue;
            }
            report.seen += 1;
            progress.advance(1);
            let modified = TimestampMs(object.last_modified.timestamp_millis());
            if modified >= cutoff || needed.has(&relative) {
                continue;
            }
            report.unneeded += 1;
            report.unneeded_bytes += object.size;
            if report.files.len() < SHOWN {
                report.files.push(relative);
            }
            doomed.push(object.location);
        }
        if options.delete && (doomed.len() >= BATCH || last) && !doomed.is_empty() {
            // What was committed since is needed as well.
            read_to = needed.read_since(catalog, record.id, read_to).await?;
            for path in doomed.drain(..) {
                if relative(&path, &place.root).is_some_and(|relative| needed.has(&relative)) {
                    continue;
                }
                match place.store.delete(&path).await {
                    Ok(()) => report.deleted += 1,
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => {
                        let shown = place.shown(&path);
                        return Err(store_error(&format!("cannot delete '{shown}'"), &e));
                    }
                }
            }
        } else if !options.delete {
            doomed.clear();
        }
        if last {
            break;
        }
    }
    progress.end();
    Ok(report)
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

/// Names of files that are needed, as digests: each in every form that it may be found under.
struct Needed {
    names: HashSet<u128>,
    /// URL of the table's root.
    root: String,
}

impl Needed {
    /// Active files of the head, of the last published version and of those to keep, and tombstones
    /// within the retention.
    async fn read(
        &mut self,
        catalog: &Catalog,
        head: &Snapshot,
        keep: &[Version],
        cutoff: TimestampMs,
        progress: &dyn Progress,
    ) -> Result<()> {
        let id = head.table.id;
        progress.begin("reading what is needed", "files", Some(head.num_files));
        // Foreign readers are as far as the log is.
        let published = head
            .table
            .published_version
            .filter(|published| *published < head.version && *published >= head.table.base_version);
        let versions = [Some(head.version), published].into_iter().flatten();
        for version in versions.chain(keep.iter().copied()) {
            let mut files = catalog.files(id, version);
            while let Some(file) = files.try_next().await? {
                self.add(&file.add.path, file.add.deletion_vector.as_ref());
                progress.advance(1);
            }
        }
        let mut tombstones = catalog.tombstones(id, head.version, cutoff);
        while let Some(file) = tombstones.try_next().await? {
            self.add(&file.remove.path, file.remove.deletion_vector.as_ref());
        }
        progress.end();
        Ok(())
    }

    /// What was added after a version. Returns the head.
    async fn read_since(
        &mut self,
        catalog: &Catalog,
        id: TableId,
        since: Version,
    ) -> Result<Version> {
        let head = catalog.snapshot(&TableRef::Id(id), At::Head).await?;
        if head.version > since {
            let mut files = catalog.files(id, head.version);
            while let Some(file) = files.try_next().await? {
                if file.cursor.added_version > since {
                    self.add(&file.add.path, file.add.deletion_vector.as_ref());
                }
            }
        }
        Ok(head.version)
    }

    fn add(&mut self, path: &str, vector: Option<&DeletionVector>) {
        self.name(path);
        let Some(vector) = vector else { return };
        match vector.storage_type.as_str() {
            "u" => {
                if let Some(file) = vector_file(&vector.path_or_inline_dv) {
                    self.name(&file);
                }
            }
            "p" => self.name(&vector.path_or_inline_dv),
            _ => {}
        }
    }

    fn name(&mut self, path: &str) {
        let inside = path.strip_prefix(self.root.as_str()).unwrap_or(path);
        for form in forms(inside.trim_start_matches('/')) {
            self.names.insert(digest(&form));
        }
    }

    fn has(&self, relative: &str) -> bool {
        forms(relative).iter().any(|form| self.names.contains(&digest(form)))
    }
}

/// A name as it is, and with one and two layers of percent-encoding taken off.
fn forms(name: &str) -> [String; 3] {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let plain = name.trim_start_matches("./").to_owned();
    let once = decode(&plain);
    let twice = decode(&once);
    [plain, once, twice]
}

/// Two halves, by hashers with other beginnings: no file is kept by accident, and none is deleted.
fn digest(name: &str) -> u128 {
    let half = |seed: u8| {
        let mut hasher = std::hash::DefaultHasher::new();
        seed.hash(&mut hasher);
        name.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(1) << 64) | half(2)
}

/// The file of a deletion vector that is relative to the table: `<prefix>/deletion_vector_<uuid>.bin`
/// (protocol section "Derived Fields").
fn vector_file(encoded: &str) -> Option<String> {
    /// Characters of a UUID in Z85.
    const UUID_CHARS: usize = 20;
    let at = encoded.len().checked_sub(UUID_CHARS)?;
    let (prefix, encoded) = (encoded.get(..at)?, encoded.get(at..)?);
    let uuid = Uuid::from_slice(&z85::decode(encoded).ok()?).ok()?;
    let file = format!("deletion_vector_{}.bin", uuid.as_hyphenated());
    Some(if prefix.is_empty() { file } else { format!("{prefix}/{file}") })
}

#[cfg(test)]
#[path = "vacuum_tests.rs"]
mod tests;
