//! Logs in folders of this machine. To read a small file there takes less time than to hand it from task
//! to task: one thread lists the folder, and one reads, parses and compresses many files in their order.

use std::fs::{self, File};
use std::io::{self, Cursor, ErrorKind, Read};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread;

use chrono::{DateTime, Utc};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TimestampMs, Version};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::OwnedSemaphorePermit;

use super::commits::{CommitFile, ReadCommit, STREAMED_BYTES, within_budget};
use super::listing::{LogListing, LogName};
use super::read_error;
use crate::store::{LOG_FOLDER, LogDir, Store};

/// Commits that a thread reads before it hands them on.
const GROUP_COMMITS: usize = 64;
/// Their bytes, unless a single one is larger.
const GROUP_BYTES: u64 = 2 << 20;
/// Groups read at the same time, at most: one for each processor.
const MOST_GROUPS: usize = 8;

/// The log of a table in a folder of this machine.
#[derive(Debug, Clone)]
pub struct LocalLog {
    folder: Arc<std::path::Path>,
    /// The same for the object store: errors name files as they do for any other store.
    log_dir: LogDir,
}

impl LocalLog {
    /// The log of a table, if the table is in a local folder.
    #[must_use]
    pub fn of(table: &Store) -> Option<LocalLog> {
        let folder: PathBuf = table.local.as_ref()?.join(LOG_FOLDER);
        Some(LocalLog { folder: folder.into(), log_dir: table.log_folder() })
    }

    /// What [`LogListing::read`] finds. Commits up to `after` may be left out: nothing is asked about them.
    ///
    /// # Errors
    /// `Unavailable` if the folder cannot be listed.
    pub async fn list(&self, after: Option<Version>) -> Result<LogListing> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.listed(after)).await.map_err(broken_off)?
    }

    fn listed(&self, after: Option<Version>) -> Result<LogListing> {
        let failed = |e| self.failed(&format!("the folder '{}'", self.log_dir), e);
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(LogListing::from_files(self.log_dir.clone(), found));
            }
            Err(e) => return Err(failed(e)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match LogName::parse(&name) {
                LogName::Compacted | LogName::Sidecar(_) | LogName::Other => continue,
                LogName::Commit(version) if Some(version) <= after => continue,
                _ => {}
            }
            // A link is what it leads to.
            let metadata = match entry.metadata() {
                Ok(metadata) if metadata.is_symlink() => fs::metadata(entry.path()),
                other => other,
            };
            let metadata = match metadata {
                Ok(metadata) => metadata,
                // Gone meanwhile, or a link that leads nowhere.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            if metadata.is_file() {
                let modified = DateTime::<Utc>::from(metadata.modified().map_err(failed)?);
                found.push((name, metadata.len(), TimestampMs(modified.timestamp_millis())));
            }
        }
        Ok(LogListing::from_files(self.log_dir.clone(), found))
    }

    /// Reads commit files in the given order, some of them ahead: a group for each processor, and about
    /// 64 MiB. Who drops the stream stops what is being read. What comes after an error is no longer in order.
    ///
    /// # Errors
    /// As [`ReadCommit::parse`]; `Unavailable` if a file cannot be read.
    pub fn commits(&self, files: Vec<CommitFile>) -> BoxStream<'static, Result<ReadCommit>> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let log = self.clone();
        // Threads see from it whether anybody still waits for them.
        let wanted = Arc::new(());
        within_budget(groups(files), |group| group.iter().map(|file| file.size).sum())
            .map(move |(group, permit)| read(log.clone(), Arc::downgrade(&wanted), group, permit))
            .buffered(threads.min(MOST_GROUPS))
            .flat_map(stream::iter)
            .boxed()
    }

    fn origin(&self, file: &CommitFile) -> String {
        format!("commit file '{}'", self.log_dir.shown(&file.path(&self.log_dir.path)))
    }

    fn failed(&self, what: &str, source: io::Error) -> CatalogError {
        let gone = source.kind() == ErrorKind::NotFound;
        let (path, source) = (self.log_dir.to_string(), source.into());
        let error = if gone {
            object_store::Error::NotFound { path, source }
        } else {
            object_store::Error::Generic { store: "local", source }
        };
        read_error(what, &error)
    }
}

/// Files that are read one after the other, by one thread.
fn groups(files: Vec<CommitFile>) -> impl Iterator<Item = Vec<CommitFile>> {
    let mut files = files.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut group = vec![files.next()?];
        let mut bytes = group.iter().map(|file| file.size).sum::<u64>();
        while group.len() < GROUP_COMMITS {
            let more = |file: &CommitFile| bytes.saturating_add(file.size) <= GROUP_BYTES;
            let Some(file) = files.next_if(more) else { break };
            bytes += file.size;
            group.push(file);
        }
        Some(group)
    })
}

/// The commits of a group, up to the first one that cannot be read.
async fn read(
    log: LocalLog,
    wanted: Weak<()>,
    group: Vec<CommitFile>,
    permit: Option<OwnedSemaphorePermit>,
) -> Vec<Result<ReadCommit>> {
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = GroupReader { log, wanted, buffer: Vec::new() };
        let mut commits = Vec::with_capacity(group.len());
        for file in group {
            if reader.wanted.strong_count() == 0 {
                break;
            }
            commits.push(reader.commit(file));
            if commits.last().is_some_and(Result::is_err) {
                break;
            }
        }
        commits
    });
    let commits = reading.await;
    drop(permit);
    commits.unwrap_or_else(|e| vec![Err(broken_off(e))])
}

fn broken_off(error: tokio::task::JoinError) -> CatalogError {
    CatalogError::failed(format!("reading the log broke off: {error}"), WriteState::NotApplied)
}

/// Reads one file after the other.
struct GroupReader {
    log: LocalLog,
    wanted: Weak<()>,
    /// Kept from file to file.
    buffer: Vec<u8>,
}

impl GroupReader {
    fn commit(&mut self, file: CommitFile) -> Result<ReadCommit> {
        let origin = self.log.origin(&file);
        let path = self.log.folder.join(format!("{}.json", file.version.padded()));
        let failed = |e| self.log.failed(&origin, e);
        let mut local =
            WhileWanted { file: File::open(path).map_err(failed)?, wanted: &self.wanted };
        if file.size >= STREAMED_BYTES {
            return ReadCommit::stream(&origin, file, local);
        }
        let expected = usize::try_from(file.size).unwrap_or(0);
        let length =
            fill(&mut self.buffer, (&mut local).take(STREAMED_BYTES), expected).map_err(failed)?;
        let bytes = self.buffer.get(..length).unwrap_or_default();
        if u64::try_from(length).is_ok_and(|length| length < STREAMED_BYTES) {
            ReadCommit::parse(&origin, file, bytes)
        } else {
            // It has grown since it was listed.
            ReadCommit::stream(&origin, file, Cursor::new(bytes).chain(local))
        }
    }
}

/// Reads all into a buffer that is as long as it ever was; the bytes read are at its start. Their number.
fn fill(buffer: &mut Vec<u8>, mut from: impl Read, expected: usize) -> io::Result<usize> {
    // One byte more: the end is seen without room for more.
    if buffer.len() <= expected {
        buffer.resize(expected + 1, 0);
    }
    let mut length = 0;
    loop {
        if length == buffer.len() {
            buffer.resize(2 * length, 0);
        }
        match from.read(buffer.get_mut(length..).unwrap_or_default()) {
            Ok(0) => return Ok(length),
            Ok(more) => length += more,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A file that cannot be read on when nobody waits for it any more.
struct WhileWanted<'w> {
    file: File,
    wanted: &'w Weak<()>,
}

impl Read for WhileWanted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.wanted.strong_count() == 0 {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        self.file.read(into)
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
