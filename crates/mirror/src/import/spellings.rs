//! Files that a log spells in two ways.
//!
//! Readers tell files apart by their paths: the Delta kernel by the text, Spark by the decoded URI. Where one
//! file is written in two ways, they do not see the same table: it may be in it twice, or be removed for
//! some and not for others. Which of them is right nobody can tell, so that the difference is told instead.

use std::collections::HashMap;

use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TimestampMs, Version};
use deltalakedb_catalog_core::model::{FileRecord, Snapshot};
use deltalakedb_catalog_core::paths::{Place, TableRoot};
use deltalakedb_catalog_engine::catalog::Catalog;
use futures::TryStreamExt;

use crate::store::open_store;

/// A path as it is written, with the version that said so.
type Written = (String, Version);

/// Looks for files with two spellings. Where all paths are written alike, which is nearly always, nothing is
/// kept and no list is read a second time.
pub(super) struct Spellings {
    root: TableRoot,
    /// Active files whose paths are not plain names.
    odd: HashMap<Place, Written>,
    found: Vec<String>,
}

impl Spellings {
    pub(super) fn new(snapshot: &Snapshot) -> Result<Spellings> {
        let table = &snapshot.table;
        let root = open_store(&table.location, &table.storage_options)?.paths()?;
        Ok(Spellings { root, odd: HashMap::new(), found: Vec::new() })
    }

    /// Takes note of an active file.
    pub(super) fn note(&mut self, file: &FileRecord) {
        let path = &file.add.path;
        if TableRoot::stays_inside(path) {
            return;
        }
        // One that cannot be placed has no second spelling that could be known.
        let Ok(found) = self.root.resolve(path) else { return };
        let written = (path.clone(), file.cursor.added_version);
        match self.odd.get(&found.place) {
            Some((other, _)) if other != path => self.found.push(twice(other, path)),
            _ => drop(self.odd.insert(found.place, written)),
        }
    }

    /// What is spelt in two ways, once all active files were noted.
    pub(super) async fn find(
        mut self,
        catalog: &Catalog,
        snapshot: &Snapshot,
    ) -> Result<Vec<String>> {
        let (id, version) = (snapshot.table.id, snapshot.version);
        let mut removed: HashMap<Place, Written> = HashMap::new();
        let mut tombstones = catalog.tombstones(id, version, TimestampMs(i64::MIN));
        while let Some(tombstone) = tombstones.try_next().await? {
            let path = &tombstone.remove.path;
            let is_plain = TableRoot::stays_inside(path);
            if is_plain && self.odd.is_empty() {
                continue;
            }
            let Ok(found) = self.root.resolve(path) else { continue };
            let at = tombstone.removed_version;
            if let Some((added, since)) = self.odd.get(&found.place)
                && added != path
                && at > *since
            {
                self.found.push(removed_otherwise(added, path, at));
            }
            if !is_plain {
                removed.insert(found.place, (path.clone(), at));
            }
        }
        if self.odd.is_empty() && removed.is_empty() {
            return Ok(self.found);
        }
        let mut files = catalog.files(id, version);
        while let Some(file) = files.try_next().await? {
            let path = &file.add.path;
            if !TableRoot::stays_inside(path) {
                continue;
            }
            let place = Place::Inside(path.clone());
            if let Some((other, _)) = self.odd.get(&place) {
                self.found.push(twice(other, path));
            }
            if let Some((other, at)) = removed.get(&place)
                && *at > file.cursor.added_version
            {
                self.found.push(removed_otherwise(path, other, *at));
            }
        }
        Ok(self.found)
    }
}

fn twice(one: &str, other: &str) -> String {
    format!("files '{one}' and '{other}' are one file: some readers have its rows twice")
}

fn removed_otherwise(added: &str, removed: &str, at: Version) -> String {
    format!(
        "file '{added}' is removed in version {at} as '{removed}', another spelling: some readers have \
         it in the table, some do not"
    )
}
