//! A log folder on a local (or mounted) file system.
//!
//! Put-if-absent is a hard link: the bytes are written and synced under a temporary name in the
//! same folder, and `link(2)` gives them their real name, which fails if that name exists. So a
//! reader sees the whole object or none, one of several racing writers wins, and once the folder
//! is synced the object survives a power failure.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::sink::{MirrorSink, PutOutcome, Replaced, SinkEntry};
use uuid::Uuid;

use super::check_name;
use crate::log::listing::SIDECARS;

/// How temporary names begin. Readers of Delta logs pass over names that are no log file's.
const TEMP_PREFIX: &str = ".tmp.";
/// A temporary file of this age is the leftover of a crash: a put takes seconds.
const TEMP_MAX_AGE: Duration = Duration::from_secs(3_600);

/// A folder.
#[derive(Debug)]
pub struct LocalSink {
    folder: Arc<PathBuf>,
    /// Whether this sink has looked for leftovers.
    swept: AtomicBool,
}

impl LocalSink {
    /// The log folder at this path; it need not exist yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        LocalSink { folder: Arc::new(folder), swept: AtomicBool::new(false) }
    }

    /// Runs blocking work on tokio's threads for it. It is not cancelled with the caller: a put
    /// whose future is dropped may still happen, as with any remote store.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let folder = Arc::clone(&self.folder);
        tokio::task::spawn_blocking(move || work(&folder)).await.map_err(|e| {
            CatalogError::failed(
                format!("file work in '{}' was broken off: {e}", self.folder.display()),
                WriteState::Unknown,
            )
        })?
    }
}

#[async_trait]
impl MirrorSink for LocalSink {
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<PutOutcome> {
        check_name(name)?;
        let name = name.to_owned();
        self.blocking(move |folder| put_if_absent(&folder.join(name), &bytes)).await
    }

    async fn replace(&self, name: &str, expected: &[u8], bytes: Bytes) -> Result<Replaced> {
        check_name(name)?;
        let (name, expected) = (name.to_owned(), expected.to_vec());
        self.blocking(move |folder| {
            let path = folder.join(name);
            let (mut staged, folder) = stage(&path, &bytes)?;
            match fs::read(&path) {
                Ok(found) if found == expected => {}
                Ok(_) => return Ok(Replaced::Changed),
                Err(e) if is_missing(&e) => return Ok(Replaced::Changed),
                Err(e) => return Err(failure("read", &path, &e, WriteState::NotApplied)),
            }
            let unknown = |e: io::Error| failure("write", &path, &e, WriteState::Unknown);
            fs::rename(&staged.path, &path).map_err(unknown)?;
            staged.moved = true;
            sync_folder(&folder).map_err(unknown)?;
            Ok(Replaced::Done)
        })
        .await
    }

    async fn put_replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        check_name(name)?;
        let name = name.to_owned();
        let sweep = !self.swept.swap(true, Ordering::Relaxed);
        self.blocking(move |folder| {
            if sweep {
                sweep_leftovers(folder);
                sweep_leftovers(&folder.join(SIDECARS));
            }
            put_replace(&folder.join(name), &bytes)
        })
        .await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let name = name.to_owned();
        self.blocking(move |folder| {
            let path = folder.join(name);
            match fs::remove_file(&path) {
                Err(e) if !is_missing(&e) => Err(failure("delete", &path, &e, WriteState::Unknown)),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        check_name(name)?;
        let name = name.to_owned();
        self.blocking(move |folder| {
            let path = folder.join(name);
            match fs::read(&path) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(e) if is_missing(&e) => Ok(None),
                Err(e) => Err(failure("read", &path, &e, WriteState::NotApplied)),
            }
        })
        .await
    }

    async fn list(&self, after: Option<&str>) -> Result<Vec<SinkEntry>> {
        let after = after.map(str::to_owned);
        self.blocking(move |folder| {
            let mut entries = Vec::new();
            list_folder(folder, "", after.as_deref(), &mut entries)?;
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
        .await
    }

    async fn set_modified(&self, name: &str, modified: TimestampMs) -> Result<()> {
        check_name(name)?;
        let name = name.to_owned();
        self.blocking(move |folder| {
            let path = folder.join(name);
            OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_modified(to_system_time(modified)))
                .map_err(|e| failure("set the time of", &path, &e, WriteState::Unknown))
        })
        .await
    }

    fn describe(&self) -> String {
        self.folder.display().to_string()
    }
}

/// A file under a temporary name, which goes away unless it was moved to its place.
struct Staged {
    path: PathBuf,
    moved: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.moved {
            // What cannot be deleted now is found by the next sweep.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes and syncs bytes under a temporary name in the folder where `path` will be.
fn stage(path: &Path, bytes: &[u8]) -> Result<(Staged, PathBuf)> {
    let fail = |e: &io::Error| failure("write", path, e, WriteState::NotApplied);
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let temp = folder.join(format!("{TEMP_PREFIX}{}", Uuid::new_v4().as_simple()));
    let open = || OpenOptions::new().write(true).create_new(true).open(&temp);
    let mut file = match open() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            create_folder(&folder).map_err(|e| fail(&e))?;
            open().map_err(|e| fail(&e))?
        }
        other => other.map_err(|e| fail(&e))?,
    };
    let staged = Staged { path: temp, moved: false };
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| fail(&e))?;
    Ok((staged, folder))
}

fn put_if_absent(path: &Path, bytes: &[u8]) -> Result<PutOutcome> {
    let unknown = |e: io::Error| failure("write", path, &e, WriteState::Unknown);
    let exists = |folder: &Path| {
        // Who wrote it may have died before syncing the folder: it is durable from here on.
        sync_folder(folder).map_err(unknown)?;
        Ok(PutOutcome::Exists)
    };
    if path.symlink_metadata().is_ok() {
        return exists(path.parent().unwrap_or(Path::new("/")));
    }
    let (staged, folder) = stage(path, bytes)?;
    match fs::hard_link(&staged.path, path) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return exists(&folder),
        Err(e) => return Err(link_failure(path, &e)),
    }
    drop(staged);
    sync_folder(&folder).map_err(unknown)?;
    Ok(PutOutcome::Created)
}

fn put_replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let unknown = |e: io::Error| failure("write", path, &e, WriteState::Unknown);
    let (mut staged, folder) = stage(path, bytes)?;
    fs::rename(&staged.path, path).map_err(unknown)?;
    staged.moved = true;
    sync_folder(&folder).map_err(unknown)
}

/// Creates a folder and those above it, each synced into its parent.
fn create_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|f| !f.exists()).collect();
    fs::create_dir_all(folder)?;
    for made in missing.iter().rev() {
        if let Some(parent) = made.parent() {
            sync_folder(parent)?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|f| f.sync_all()) {
        // Some network file systems have no sync of folders; their links are synchronous.
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Windows has no handle of a folder that could be synced.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

fn list_folder(
    folder: &Path,
    prefix: &str,
    after: Option<&str>,
    entries: &mut Vec<SinkEntry>,
) -> Result<()> {
    let fail = |path: &Path, e: &io::Error| failure("list", path, e, WriteState::NotApplied);
    let found = match fs::read_dir(folder) {
        Ok(found) => found,
        Err(e) if is_missing(&e) => return Ok(()),
        Err(e) => return Err(fail(folder, &e)),
    };
    for entry in found {
        let entry = entry.map_err(|e| fail(folder, &e))?;
        // A name that is no text is no log file's; it is shown as well as it can be.
        let file_name = entry.file_name().to_string_lossy().into_owned();
        if file_name.starts_with(TEMP_PREFIX) {
            continue;
        }
        let name = format!("{prefix}{file_name}");
        let metadata = match fs::metadata(entry.path()) {
            Ok(metadata) => metadata,
            // Deleted meanwhile, or a dangling link.
            Err(e) if is_missing(&e) => continue,
            Err(e) => return Err(fail(&entry.path(), &e)),
        };
        if metadata.is_dir() {
            list_folder(&entry.path(), &format!("{name}/"), after, entries)?;
        } else if after.is_none_or(|after| name.as_str() > after) {
            let modified = metadata.modified().map_err(|e| fail(&entry.path(), &e))?;
            entries.push(SinkEntry {
                name,
                size_bytes: metadata.len(),
                modified: from_system_time(modified),
            });
        }
    }
    Ok(())
}

/// Deletes what crashed puts left behind. Best effort: leftovers harm nobody.
fn sweep_leftovers(folder: &Path) {
    let Ok(found) = fs::read_dir(folder) else { return };
    for entry in found.flatten() {
        let is_temp = entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX);
        let is_old = || {
            let modified = entry.metadata().and_then(|m| m.modified()).ok()?;
            Some(SystemTime::now().duration_since(modified).ok()? > TEMP_MAX_AGE)
        };
        if is_temp && is_old().unwrap_or(false) {
            let result = fs::remove_file(entry.path());
            tracing::info!(file = %entry.path().display(), ok = result.is_ok(), "swept a leftover");
        }
    }
}

fn is_missing(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn to_system_time(time: TimestampMs) -> SystemTime {
    let distance = Duration::from_millis(time.0.unsigned_abs());
    let moved = if time.0 < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(UNIX_EPOCH)
}

fn from_system_time(time: SystemTime) -> TimestampMs {
    let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    TimestampMs(match time.duration_since(UNIX_EPOCH) {
        Ok(after) => ms(after),
        Err(before) => -ms(before.duration()),
    })
}

fn link_failure(path: &Path, e: &io::Error) -> CatalogError {
    if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) {
        return CatalogError::failed(
            format!(
                "cannot create '{}': {e}. Either the file system has no hard links, which commits \
                 need so that no two writers create one version, or this user may not make them",
                path.display()
            ),
            WriteState::NotApplied,
        );
    }
    failure("write", path, e, WriteState::Unknown)
}

/// What a person can do about an error of the system.
fn failure(what: &str, path: &Path, e: &io::Error, write: WriteState) -> CatalogError {
    let advice = match e.kind() {
        ErrorKind::StorageFull => ". The disk is full: free some space, then try again",
        ErrorKind::QuotaExceeded => ". The disk quota is used up: free some space, then try again",
        ErrorKind::PermissionDenied => {
            ". The user that runs this process lacks the right: change the folder's owner or mode"
        }
        ErrorKind::ReadOnlyFilesystem => ". The file system is mounted read-only",
        ErrorKind::NotADirectory => ". A part of the path is a file where a folder is needed",
        _ => "",
    };
    CatalogError::failed(format!("cannot {what} '{}': {e}{advice}", path.display()), write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_say_what_to_do() {
        for (kind, want) in [
            (ErrorKind::StorageFull, "The disk is full"),
            (ErrorKind::QuotaExceeded, "quota"),
            (ErrorKind::PermissionDenied, "owner or mode"),
            (ErrorKind::ReadOnlyFilesystem, "read-only"),
        ] {
            let path = Path::new("/t/_delta_log/0.json");
            let e = failure("write", path, &io::Error::from(kind), WriteState::NotApplied);
            assert!(e.to_string().starts_with("cannot write '/t/_delta_log/0.json': "), "{e}");
            assert!(e.to_string().contains(want), "{e}");
        }
    }
}
