//! Which files are needed.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use deltalakedb_catalog_core::action::{Action, DeletionVector};
use deltalakedb_catalog_core::commit::parse_ndjson;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_core::paths::{Resolved, TableRoot};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use deltalakedb_catalog_engine::retry::Retry;
use futures::TryStreamExt;
use percent_encoding::percent_decode_str;

use super::local::{Disk, FileId};
use crate::put::commit_name;

/// Commits read at a time.
const BODY_PAGE: usize = 64;
/// Local files looked at in one go.
const LOOK_AT: usize = 10_000;

/// Files that are needed: digests of their keys below the root, in every reading of their paths, and on
/// local disks what they are.
pub(super) struct Needed {
    root: TableRoot,
    disk: Option<Disk>,
    names: HashSet<u128>,
    ids: Arc<HashSet<FileId>>,
    /// Not looked at yet.
    pending: Vec<PathBuf>,
}

impl Needed {
    pub(super) fn new(root: TableRoot, disk: Option<Disk>) -> Needed {
        let (names, ids, pending) = (HashSet::new(), Arc::default(), Vec::new());
        Needed { root, disk, names, ids, pending }
    }

    pub(super) fn root(&self) -> &TableRoot {
        &self.root
    }

    /// What needed files of a local disk are.
    pub(super) fn ids(&self) -> Arc<HashSet<FileId>> {
        Arc::clone(&self.ids)
    }

    /// Active files of the head, of the last published version and of those to keep, and tombstones
    /// within the retention.
    pub(super) async fn read(
        &mut self,
        catalog: &Catalog,
        head: &Snapshot,
        keep: &[Version],
        cutoff: TimestampMs,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (id, name, root) = (head.table.id, &head.table.name, self.root.clone());
        progress.begin("reading what is needed", "files", Some(head.num_files));
        for version in current(head).chain(keep.iter().copied()) {
            let mut files = catalog.files(id, version);
            while let Some(file) = files.try_next().await? {
                let vector = file.add.deletion_vector.as_ref();
                for found in resolve(&root, name, &file.add.path, vector)? {
                    self.add(&found).await?;
                }
                progress.advance(1);
            }
        }
        let mut tombstones = catalog.tombstones(id, head.version, cutoff);
        while let Some(file) = tombstones.try_next().await? {
            let vector = file.remove.deletion_vector.as_ref();
            for found in resolve(&root, name, &file.remove.path, vector)? {
                self.add(&found).await?;
            }
        }
        self.settle().await?;
        progress.end();
        Ok(())
    }

    /// What was added after a version, whether or not it is there any more: read from the commits since.
    /// Returns the head.
    ///
    /// # Errors
    /// `TableFrozen`: of a table that was frozen since nothing is deleted.
    pub(super) async fn read_since(
        &mut self,
        catalog: &Catalog,
        id: TableId,
        since: Version,
    ) -> Result<Version> {
        let head = catalog.snapshot(&TableRef::Id(id), At::Head).await?;
        catalog.refuse_frozen(&head).await?;
        let (name, root) = (&head.table.name, self.root.clone());
        let (backend, retry) = (catalog.backend(), Retry::of(catalog));
        let mut read = since;
        while read < head.version {
            let next = read.next();
            let bodies =
                retry.repeat(|| backend.read_bodies(id, next, head.version, BODY_PAGE)).await?;
            if bodies.is_empty() {
                return Err(lacks(name, next));
            }
            for (commit, body) in bodies {
                if commit.version != read.next() {
                    return Err(lacks(name, read.next()));
                }
                read = commit.version;
                let bytes = body.published()?;
                for line in parse_ndjson(&commit_name(read), &bytes)? {
                    let (path, vector) = match &line.action {
                        Action::Add(add) => (&add.path, add.deletion_vector.as_ref()),
                        Action::Cdc(cdc) => (&cdc.path, None),
                        _ => continue,
                    };
                    for found in resolve(&root, name, path, vector)? {
                        self.add(&found).await?;
                    }
                }
            }
        }
        self.settle().await?;
        Ok(head.version)
    }

    /// A file, in each of its readings.
    pub(super) async fn add(&mut self, found: &Resolved) -> Result<()> {
        for key in found.keys() {
            self.names.insert(digest(key));
        }
        if let Some(disk) = &self.disk {
            self.pending.extend(found.all().filter_map(|place| disk.path_of(place)));
            if self.pending.len() >= LOOK_AT {
                self.settle().await?;
            }
        }
        Ok(())
    }

    /// Looks at the local files that were not looked at yet.
    pub(super) async fn settle(&mut self) -> Result<()> {
        if let Some(disk) = &self.disk
            && !self.pending.is_empty()
        {
            let ids = disk.ids(std::mem::take(&mut self.pending)).await?;
            Arc::make_mut(&mut self.ids).extend(ids);
        }
        Ok(())
    }

    /// Whether a file is needed, by its name. Stores that encode names are forgiven.
    pub(super) fn has(&self, relative: &str) -> bool {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let has = |name: &str| self.names.contains(&digest(name));
        if has(relative) {
            return true;
        }
        if !relative.contains('%') {
            return false;
        }
        let once = decode(relative);
        has(&once) || has(&decode(&once))
    }
}

/// Versions that are read now: the head, and the one that readers of the log are at.
pub(super) fn current(head: &Snapshot) -> impl Iterator<Item = Version> + use<> {
    let published = head
        .table
        .published_version
        .filter(|published| *published < head.version && *published >= head.table.base_version);
    [Some(head.version), published].into_iter().flatten()
}

/// The file of an action, and that of its deletion vector.
pub(super) fn resolve(
    root: &TableRoot,
    table: &TableName,
    path: &str,
    vector: Option<&DeletionVector>,
) -> Result<impl Iterator<Item = Resolved> + use<>> {
    let refused = |e: CatalogError| {
        CatalogError::invalid(format!(
            "table '{table}' has a file whose place is not known, so that nothing can be deleted: {e}"
        ))
    };
    let file = root.resolve(path).map_err(refused)?;
    let vector = vector.map(|v| root.resolve_vector(v)).transpose().map_err(refused)?.flatten();
    Ok(std::iter::once(file).chain(vector))
}

fn lacks(table: &TableName, version: Version) -> CatalogError {
    CatalogError::corrupt(format!(
        "the catalog has no bytes of version {version} of '{table}', which was committed meanwhile: \
         nobody knows which files it needs. `dl vacuum` again looks at all files"
    ))
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
