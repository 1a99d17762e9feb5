//! Backs up a catalog to a folder or an object store, while it is in use, and restores it into any
//! database, also as it was at an earlier time.
//!
//! ```no_run
//! # async fn example() -> deltalakedb::Result<()> {
//! use std::collections::BTreeMap;
//!
//! use deltalakedb::backup::{BackupOptions, Place, RestoreOptions, restore};
//! use deltalakedb::{Db, NoProgress};
//!
//! let db = Db::open(&"postgresql://dl@db/lake".parse()?).await?;
//! let place = Place::open("s3://bucket/backups", &BTreeMap::new())?;
//! db.backup(&place, &BackupOptions::default(), &NoProgress).await?;
//!
//! let new = Db::create(&"sqlite:///lake/catalog.db".parse()?).await?;
//! let report = restore(&place, &new, &RestoreOptions::default(), &NoProgress).await?;
//! assert!(report.finished && report.agrees());
//! # Ok(()) }
//! ```
//!
//! A backup is a row of *sets*. A full set holds all commits; an incremental one those that its parent
//! lacks, as commits never change. A set's manifest is written last: a set without it does not exist.
//! The format is documented in `docs/src/design/backup.md`.

mod compare;
mod format;
mod heads;
mod moment;
#[cfg(feature = "sqlite")]
mod pages;
mod place;
mod read;
mod report;
mod restore;
mod retention;
mod set;
mod verify;
mod write;

use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableName, TimestampMs, Version};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use serde::Serialize;

use crate::copy::survey::require_catalog;
use crate::copy::{audit, registry};
use heads::Heads;
use place::Begun;
use read::Chain;
use write::{Known, Segments, Writer};

pub use format::{AuditPart, Counts, Manifest, Parent, RegistryPart, Segment, SegmentKind};
#[cfg(feature = "sqlite")]
pub use pages::copy_pages;
pub use place::{Listing, Place, Set, Unfinished};
pub use report::{Notice, RestoreReport};
pub use restore::{RestoreOptions, restore};
pub use retention::{Keep, LEFTOVER_AGE, Pruned, clean, prune};
pub use set::SetId;
pub use verify::{Verified, verify};

/// Rows of the audit that are so much older than the parent are read again: one that was written by a slow transaction, or
/// by a program whose clock is behind, is seen later than its time.
const AUDIT_OVERLAP_MS: i64 = 24 * 3_600 * 1_000;

/// How to back up.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// Back up everything, also what another set has.
    pub full: bool,
    /// Bytes before compression after which an object ends; none = 16 MiB.
    pub segment_bytes: Option<usize>,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupReport {
    /// The set.
    pub set: SetId,
    /// The set that it goes on from; none = it is a full one.
    pub parent: Option<SetId>,
    /// Every commit that was made before this time is in it.
    pub taken_at: TimestampMs,
    /// What is in it.
    pub counts: Counts,
    /// Its objects.
    pub objects: usize,
    /// Their bytes.
    pub size_bytes: u64,
    /// The same before compression.
    pub raw_bytes: u64,
    /// Tables that were left out: an unfinished import holds them.
    pub left_out: Vec<TableName>,
    /// Sets of backups that were broken off, whose objects were deleted.
    pub cleaned: Vec<SetId>,
}

/// Backs up a catalog. Its writers may go on.
///
/// Each table is backed up to one version, and transactions over several tables are in for all of
/// them or for none. Without `full`, a set goes on from the newest one that is there.
///
/// # Errors
/// * `Schema`: the catalog is not initialised.
/// * `InvalidInput`: the place has backups of another catalog; a table's storage options hold a
///   secret in clear.
/// * `Corrupt`: stored bytes contradict their rows, or the set to go on from is damaged.
/// * `Unavailable`: database or store do not answer. No set is made then; the same call begins anew.
pub async fn backup(
    catalog: &Catalog,
    place: &Place,
    options: &BackupOptions,
    progress: &dyn Progress,
) -> Result<BackupReport> {
    backup_by(catalog, place, options, LEFTOVER_AGE, progress).await
}

async fn backup_by(
    catalog: &Catalog,
    place: &Place,
    options: &BackupOptions,
    leftover_age: Duration,
    progress: &dyn Progress,
) -> Result<BackupReport> {
    let catalog = catalog.clone().on_primary();
    require_catalog(&catalog, "catalog").await?;
    let listing = place.list().await?;
    let parent = listing.newest().filter(|_| !options.full);
    let id = SetId::new(catalog.clock().now(), catalog.ids().uuid());
    let begun = Begun { parent: parent.map(|set| set.id().clone()) };
    place.begin(&id, &begun).await?;
    let keeps_audit = audit::is_kept(&catalog).await?;
    let known = match parent {
        Some(set) => Chain::open(place, listing.chain(set.id())?).await?.known(),
        None => Known::new(),
    };
    let Heads { taken_at, tables, importing } = heads::take(&catalog).await?;
    if !known.is_empty() && !tables.iter().any(|table| known.contains_key(&table.id)) {
        place.delete(&id.begun()).await?;
        return Err(CatalogError::invalid(format!(
            "'{}' has backups of another catalog: none of its tables is in this one. Back up to another \
             place",
            place.describe()
        )));
    }
    let next = |head: Option<Version>| head.map_or(0, |head| head.get().saturating_add(1));
    let total = tables.iter().fold(0_i64, |sum, table| {
        let before = known.get(&table.id).map_or(0, |known| next(known.record.head));
        sum.saturating_add(next(table.head).saturating_sub(before).max(0))
    });
    progress.begin("Backing up", "commits", u64::try_from(total).ok());
    let mut writer = Writer::new(place, &id, options.segment_bytes);
    let mut rows = Vec::with_capacity(tables.len());
    for table in &tables {
        let known = known.get(&table.id).map(|known| &**known);
        rows.push(writer.table(&catalog, table, known, progress).await?);
    }
    writer.rows(rows).await?;
    // A row may become visible after ones of a later time, and clocks differ.
    let before = parent.filter(|set| set.manifest.audit.is_some());
    let since = before.map(|set| set.manifest.taken_at.plus_ms(-AUDIT_OVERLAP_MS));
    if keeps_audit {
        writer.audit(&catalog, since).await?;
    }
    let registry = registry::read(&catalog).await?;
    let revision = registry.as_ref().map(|registry| registry.revision);
    if let Some(registry) = registry {
        writer.registry(registry.records).await?;
    }
    let Segments { rest: segments, audit: of_audit, registry: of_registry } =
        writer.finish().await?;
    progress.end();
    let manifest = Manifest {
        format: format::FORMAT.to_owned(),
        version: format::VERSION,
        set: id.clone(),
        parent: parent.map(|set| Parent { set: set.id().clone(), sha256: set.sha256.clone() }),
        taken_at,
        finished_at: catalog.clock().now(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        counts: writer.counts,
        left_out: importing.clone(),
        segments,
        audit: keeps_audit.then_some(AuditPart { since, segments: of_audit }),
        registry: revision.map(|revision| RegistryPart { revision, segments: of_registry }),
    };
    if !place.has_all(&manifest).await? {
        return Err(CatalogError::corrupt(format!(
            "objects of set {id} went away while it was written to '{}': another program has deleted \
             them. Back up again",
            place.describe()
        )));
    }
    place.put(&id.manifest(), format::seal(&manifest)?.into()).await?;
    // What it goes on from may have been deleted meanwhile.
    if let Err(error) = place.list().await?.get(&id) {
        place.delete(&id.manifest()).await?;
        return Err(CatalogError::corrupt(format!(
            "set {id} cannot be used, and was taken back: {error}. Back up again"
        )));
    }
    place.delete(&id.begun()).await?;
    let cleaned = retention::clean(place, catalog.clock().now(), leftover_age).await?;
    let sum = |bytes: fn(&Segment) -> u64| {
        manifest.objects().fold(0_u64, |sum, segment| sum.saturating_add(bytes(segment)))
    };
    Ok(BackupReport {
        parent: begun.parent,
        taken_at,
        counts: manifest.counts,
        objects: manifest.objects().count() + 1,
        size_bytes: sum(|segment| segment.size_bytes),
        raw_bytes: sum(|segment| segment.raw_bytes),
        left_out: importing,
        cleaned,
        set: id,
    })
}
