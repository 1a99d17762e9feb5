//! Files of a local disk by what they are, not by what they are called.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::paths::Place;
use url::Url;

/// What a file is, whatever its name: device and inode.
#[cfg(unix)]
pub(super) type FileId = (u64, u64);
/// What a file is, whatever its name: its path without links.
#[cfg(not(unix))]
pub(super) type FileId = PathBuf;

/// What a look at a file that may go has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing speaks for it.
    Free,
    /// It is a file that is needed, under another name.
    Needed,
    /// A symbolic link leads to it.
    Linked,
    /// It is not there any more.
    Gone,
}

/// The folder of a table.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: Arc<PathBuf>,
}

impl Disk {
    pub(super) fn new(root: &Path) -> Disk {
        Disk { root: Arc::new(root.to_owned()) }
    }

    /// A place as a path of this machine; none if it is none.
    pub(super) fn path_of(&self, place: &Place) -> Option<PathBuf> {
        match place {
            Place::Inside(key) => Some(self.root.join(key)),
            Place::Outside(outside) => Url::parse(&outside.url)
                .ok()
                .filter(|url| url.scheme() == "file")?
                .to_file_path()
                .ok(),
        }
    }

    /// What these files are; those that are not there are left out.
    pub(super) async fn ids(&self, paths: Vec<PathBuf>) -> Result<Vec<FileId>> {
        blocking(move || {
            let mut ids = Vec::with_capacity(paths.len());
            for path in paths {
                ids.extend(id(&path).map_err(|e| trouble(&path, &e))?);
            }
            Ok(ids)
        })
        .await
    }

    /// Looks at files below the root, in this order.
    pub(super) async fn look(
        &self,
        relative: Vec<String>,
        needed: Arc<HashSet<FileId>>,
    ) -> Result<Vec<Finding>> {
        let root = Arc::clone(&self.root);
        blocking(move || {
            // The root itself may be a link.
            let real = fs::canonicalize(root.as_path()).map_err(|e| trouble(&root, &e))?;
            let look = |relative: &String| {
                let path = root.join(relative);
                let Some(id) = id(&path).map_err(|e| trouble(&path, &e))? else {
                    return Ok(Finding::Gone);
                };
                if needed.contains(&id) {
                    return Ok(Finding::Needed);
                }
                let straight =
                    fs::canonicalize(&path).map_err(|e| trouble(&path, &e))? == real.join(relative);
                Ok(if straight { Finding::Free } else { Finding::Linked })
            };
            relative.iter().map(look).collect()
        })
        .await
    }
}

/// A folder without links; itself, if it is not there.
pub(super) fn real(folder: &Path) -> PathBuf {
    fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
}

/// What a file is; none if it is not there.
fn id(path: &Path) -> io::Result<Option<FileId>> {
    #[cfg(unix)]
    let found = fs::metadata(path).map(|meta| {
        use std::os::unix::fs::MetadataExt;
        (meta.dev(), meta.ino())
    });
    #[cfg(not(unix))]
    let found = fs::canonicalize(path);
    match found {
        Ok(id) => Ok(Some(id)),
        // A name that no file can have is that of none.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidFilename
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn trouble(path: &Path, error: &io::Error) -> CatalogError {
    CatalogError::failed(
        format!(
            "cannot look at '{}', so that nobody knows which file it is: {error}. Nothing is deleted \
             in doubt",
            path.display()
        ),
        WriteState::NotApplied,
    )
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| {
        CatalogError::failed(format!("looking at files broke off: {e}"), WriteState::NotApplied)
    })?
}
