//! Other tables: their folders below the root, and the files below the root that they name.

use std::collections::BTreeSet;

use deltalakedb_catalog_core::action::DeletionVector;
use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef};
use deltalakedb_catalog_core::model::{TableRecord, TableState};
use deltalakedb_catalog_core::paths::TableRoot;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use futures::TryStreamExt;

use super::local::real;
use super::needed::{Needed, current, resolve};
use crate::properties::readable_tombstone_retention_ms;
use crate::store::{LOG_FOLDER, Store, root_at};

/// Another table of the catalog.
struct Other {
    id: TableId,
    name: TableName,
    root: TableRoot,
    /// Whether it lies above the table, so that its own files may be among the table's.
    above: bool,
}

/// What other tables have below the root.
pub(super) struct Others {
    /// Their folders, relative to the root.
    folders: BTreeSet<String>,
    tables: Vec<Other>,
}

impl Others {
    /// Those that the catalog knows, in whatever state: a table that was dropped can be brought back.
    pub(super) async fn of(catalog: &Catalog, own: &TableRecord, place: &Store) -> Result<Others> {
        let root = place.paths()?;
        let mut others = Others { folders: BTreeSet::new(), tables: Vec::new() };
        for state in [TableState::Active, TableState::Importing, TableState::Dropped] {
            let filter = TableFilter { namespace: None, state: Some(state) };
            let mut tables = catalog.tables(filter);
            while let Some(table) = tables.try_next().await? {
                if table.id == own.id {
                    continue;
                }
                let (their_root, their_folder) = root_at(&table.location, &table.storage_options)?;
                let mut below = root.holds(&their_root);
                let mut above = their_root.holds(&root).is_some();
                if let (Some(ours), Some(theirs)) = (&place.local, &their_folder) {
                    let (ours, theirs) = (real(ours), real(theirs));
                    let inside = theirs.strip_prefix(&ours).ok().and_then(|path| path.to_str());
                    below = below.or(inside.map(|path| path.replace('\\', "/")));
                    above |= ours.starts_with(&theirs);
                }
                match below.as_deref() {
                    // The same log under another name, or what this table was before it was rebased or
                    // imported again.
                    Some("") if state == TableState::Dropped => continue,
                    Some("") => {
                        return Err(CatalogError::invalid(format!(
                            "table '{}' lies at '{}', too, and needs files of its own there: drop one \
                             of the two first",
                            table.name, own.location
                        )));
                    }
                    Some(folder) => drop(others.folders.insert(folder.to_owned())),
                    None => {}
                }
                if state != TableState::Importing && table.head.is_some() {
                    let (id, name) = (table.id, table.name);
                    others.tables.push(Other { id, name, root: their_root, above });
                }
            }
        }
        Ok(others)
    }

    /// Learns from an object below the root whether it is in a log that is not the table's.
    pub(super) fn note(&mut self, relative: &str) {
        let log = relative.match_indices(LOG_FOLDER).find(|(at, _)| {
            let rest = relative.get(at + LOG_FOLDER.len()..).unwrap_or_default();
            *at > 0 && relative.as_bytes()[at - 1] == b'/' && rest.starts_with('/')
        });
        if let Some((at, _)) = log
            && let Some(folder) = relative.get(..at - 1)
            && !relative.starts_with(&format!("{LOG_FOLDER}/"))
            && !self.folders.contains(folder)
        {
            self.folders.insert(folder.to_owned());
        }
    }

    /// Whether a file is another table's.
    pub(super) fn own(&self, relative: &str) -> bool {
        let mut folders = relative.match_indices('/').filter_map(|(at, _)| relative.get(..at));
        folders.any(|folder| self.folders.contains(folder))
    }

    /// Folders of other tables, sorted.
    pub(super) fn folders(&self) -> impl ExactSizeIterator<Item = &String> {
        self.folders.iter()
    }

    /// Reads which files below the root the other tables name: by absolute paths, as shallow clones do,
    /// or because they lie above it. Paths of other forms lead nowhere else than into their own folders.
    pub(super) async fn read(
        &self,
        catalog: &Catalog,
        needed: &mut Needed,
        progress: &dyn Progress,
    ) -> Result<()> {
        if self.tables.is_empty() {
            return Ok(());
        }
        progress.begin("asking other tables what they need", "tables", None);
        for other in &self.tables {
            let head = catalog.snapshot(&TableRef::Id(other.id), At::Head).await?;
            for version in current(&head) {
                let mut files = catalog.files(other.id, version);
                while let Some(file) = files.try_next().await? {
                    let vector = file.add.deletion_vector.as_ref();
                    other.file(needed, &file.add.path, vector).await?;
                }
            }
            // One that cannot be read may mean any time.
            let retention = readable_tombstone_retention_ms(&head.metadata).unwrap_or(i64::MAX);
            let cutoff = catalog.clock().now().plus_ms(retention.saturating_neg());
            let mut tombstones = catalog.tombstones(other.id, head.version, cutoff);
            while let Some(file) = tombstones.try_next().await? {
                let vector = file.remove.deletion_vector.as_ref();
                other.file(needed, &file.remove.path, vector).await?;
            }
            progress.advance(1);
        }
        needed.settle().await?;
        progress.end();
        Ok(())
    }
}

impl Other {
    async fn file(
        &self,
        needed: &mut Needed,
        path: &str,
        vector: Option<&DeletionVector>,
    ) -> Result<()> {
        let stays = TableRoot::stays_inside(path) && vector.is_none_or(|v| v.storage_type != "p");
        if stays && !self.above {
            return Ok(());
        }
        let found: Vec<_> = resolve(&self.root, &self.name, path, vector)
            .map_err(|e| {
                CatalogError::invalid(format!(
                    "{e}. `dl vacuum --ignore-other-tables` does not ask what other tables need"
                ))
            })?
            .collect();
        for found in found {
            for place in found.all() {
                // The same object, seen from the table's own root; folders are no files.
                if let Ok(seen) = needed.root().resolve(&self.root.url_of(place)) {
                    needed.add(&seen).await?;
                }
            }
        }
        Ok(())
    }
}
