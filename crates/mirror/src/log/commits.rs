//! Commit files as stored bytes plus index, read ahead within a bound, and their timestamps
//! (protocol section "In-Commit Timestamps").

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;
use std::thread;

use bytes::{Buf, Bytes};
use deltalakedb_catalog_core::action::{Add, Metadata, Protocol, Remove};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex, index_ndjson};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TimestampMs, Version};
use deltalakedb_catalog_core::later::{LargeCommit, LaterAdds, read_large};
use futures::executor::{BlockingStream, block_on_stream};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{GetResult, GetResultPayload, ObjectStore, ObjectStoreExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::read_error;
use crate::store::LogDir;

/// From so many bytes on, a file is not in memory as a whole.
pub(super) const STREAMED_BYTES: u64 = 32 << 20;
/// Commits fetched and parsed at the same time.
const READ_AHEAD: usize = 16;
/// From so many bytes on, a file is parsed and compressed at the same time.
const LARGE_BYTES: usize = 8 << 20;
/// Bytes of commit files held by the read-ahead, KiB. A larger single file is read alone.
const READ_AHEAD_KIB: u32 = 64 * 1024;

/// Table property that turns in-commit timestamps on.
const ICT_PROPERTY: &str = "delta.enableInCommitTimestamps";
/// Table property: the version from which on they are there.
const ICT_SINCE_PROPERTY: &str = "delta.inCommitTimestampEnablementVersion";
/// Writer features that allow them.
const ICT_FEATURES: [&str; 2] = ["inCommitTimestamp", "inCommitTimestamp-preview"];

/// A commit file as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitFile {
    /// Version.
    pub version: Version,
    /// Size, bytes.
    pub size: u64,
    /// Modification time.
    pub modified: TimestampMs,
}

impl CommitFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self, log_dir: &Path) -> Path {
        log_dir.clone().join(format!("{}.json", self.version.padded()))
    }
}

/// A commit file, read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadCommit {
    /// What was listed.
    pub file: CommitFile,
    /// Length of the file, bytes.
    pub raw_len: u64,
    /// Its bytes, verbatim.
    pub body: CommitBody,
    /// What they say.
    pub index: CommitIndex,
    /// Files that it adds, of a commit that is too large to be in memory: none of them are in `index` then.
    pub later: Option<LaterAdds>,
}

impl ReadCommit {
    /// Parses the bytes of a commit file. A file or tombstone that is named twice counts once, by
    /// its last action, as for a reader of the log.
    ///
    /// # Errors
    /// `InvalidInput` with the file and line that is not an action of the protocol.
    pub fn parse(origin: &str, file: CommitFile, bytes: &[u8]) -> Result<ReadCommit> {
        let (index, body) = if bytes.len() < LARGE_BYTES {
            (index_ndjson(origin, bytes), CommitBody::verbatim(bytes))
        } else {
            thread::scope(|scope| {
                let body = scope.spawn(|| CommitBody::verbatim(bytes));
                let index = index_ndjson(origin, bytes);
                let broken_off = |_| CatalogError::invalid("compressing a commit broke off");
                (index, body.join().map_err(broken_off).and_then(|body| body))
            })
        };
        let mut index = index?;
        keep_last(&mut index.adds, Add::key_parts);
        keep_last(&mut index.removes, Remove::key_parts);
        Ok(ReadCommit {
            file,
            raw_len: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            body: body?,
            index,
            later: None,
        })
    }

    /// The same, of a large commit file that is not in memory.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), but what is wrong with an add is found when its page is read;
    /// `Unavailable` if the text cannot be read.
    pub fn stream(origin: &str, file: CommitFile, text: impl Read) -> Result<ReadCommit> {
        let LargeCommit { mut index, body, later, twice } = read_large(origin, text)?;
        if twice {
            return ReadCommit::parse(origin, file, &body.rest.unpack()?);
        }
        keep_last(&mut index.removes, Remove::key_parts);
        Ok(ReadCommit { file, raw_len: body.rest.raw_len, body, index, later: Some(later) })
    }
}

fn keep_last<T>(items: &mut Vec<T>, key: impl Fn(&T) -> (&str, Option<String>)) {
    let mut seen = HashSet::with_capacity(items.len());
    let keep: Vec<bool> = items.iter().rev().map(|item| seen.insert(key(item))).collect();
    if keep.contains(&false) {
        let mut keep = keep.into_iter().rev();
        items.retain(|_| keep.next().unwrap_or(true));
    }
}

/// Reads commit files in the given order, some of them ahead: at most 16, and about 64 MiB.
///
/// # Errors
/// As [`ReadCommit::parse`]; `Unavailable` if a file cannot be fetched.
pub fn read_commits(
    store: &Arc<dyn ObjectStore>,
    log_dir: &LogDir,
    files: Vec<CommitFile>,
) -> BoxStream<'static, Result<ReadCommit>> {
    let store = Arc::clone(store);
    let log_dir = log_dir.clone();
    within_budget(files, |file| file.size)
        .map(move |(file, permit)| {
            let path = file.path(&log_dir.path);
            let shown = log_dir.shown(&path);
            fetch(Arc::clone(&store), path, shown, file, permit)
        })
        .buffered(READ_AHEAD)
        .boxed()
}

/// Lets things through while what is held of them is not more than about 64 MiB.
pub(super) fn within_budget<T: Send + 'static>(
    things: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
    size: impl Fn(&T) -> u64 + Send + 'static,
) -> BoxStream<'static, (T, Option<OwnedSemaphorePermit>)> {
    let budget = Arc::new(Semaphore::new(READ_AHEAD_KIB as usize));
    stream::iter(things)
        // One after the other, so that an early one never waits for what a later one holds.
        .then(move |thing| {
            let budget = Arc::clone(&budget);
            let kib = u32::try_from(size(&thing) / 1024 + 1).unwrap_or(READ_AHEAD_KIB);
            async move { (thing, budget.acquire_many_owned(kib.min(READ_AHEAD_KIB)).await.ok()) }
        })
        .boxed()
}

async fn fetch(
    store: Arc<dyn ObjectStore>,
    path: Path,
    shown: String,
    file: CommitFile,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<ReadCommit> {
    let origin = format!("commit file '{shown}'");
    let got = store.get(&path).await.map_err(|e| read_error(&origin, &e))?;
    // Parsing and compressing are work for the processor, not for the reactor.
    let reading = match got.payload {
        // Of a small local file, going to a thread and back would be most of the time.
        GetResultPayload::File(mut local, _) => tokio::task::spawn_blocking(move || {
            if file.size >= STREAMED_BYTES {
                return ReadCommit::stream(&origin, file, local);
            }
            let mut bytes = Vec::with_capacity(usize::try_from(file.size).unwrap_or(0));
            local.read_to_end(&mut bytes).map_err(|source| {
                read_error(
                    &origin,
                    &object_store::Error::Generic { store: "local", source: source.into() },
                )
            })?;
            ReadCommit::parse(&origin, file, &bytes)
        }),
        GetResultPayload::Stream(pieces) if file.size >= STREAMED_BYTES => {
            let text = Pieces { pieces: block_on_stream(pieces), current: Bytes::new() };
            tokio::task::spawn_blocking(move || ReadCommit::stream(&origin, file, text))
        }
        payload @ GetResultPayload::Stream(_) => {
            let got = GetResult { payload, ..got };
            let bytes = got.bytes().await.map_err(|e| read_error(&origin, &e))?;
            tokio::task::spawn_blocking(move || ReadCommit::parse(&origin, file, &bytes))
        }
    };
    let read = reading.await.map_err(|e| {
        CatalogError::failed(format!("reading '{shown}' broke off: {e}"), WriteState::NotApplied)
    })?;
    drop(permit);
    read
}

/// The bytes of an object, read on a thread that may wait for them.
struct Pieces {
    pieces: BlockingStream<BoxStream<'static, object_store::Result<Bytes>>>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.next() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        (&mut self.current).reader().read(into)
    }
}

/// Gives each commit of a log its timestamp: the in-commit timestamp where the table has them
/// enabled at that version, else the modification time of the file, and in any case more than that
/// of the commit before.
///
/// Where it is not known yet whether they are enabled (history below a checkpoint, a continued
/// import), a commit that carries one is believed: the protocol forbids it elsewhere.
#[derive(Debug, Clone, Default)]
pub struct CommitTimestamps {
    previous: Option<TimestampMs>,
    feature: Option<bool>,
    property: Option<bool>,
    since: Option<i64>,
}

impl CommitTimestamps {
    /// Continues after a commit of this time.
    #[must_use]
    pub fn after(previous: Option<TimestampMs>) -> CommitTimestamps {
        CommitTimestamps { previous, ..CommitTimestamps::default() }
    }

    /// Time of the latest commit.
    #[must_use]
    pub fn last(&self) -> Option<TimestampMs> {
        self.previous
    }

    /// Learns protocol and metadata in force.
    pub fn state(&mut self, protocol: Option<&Protocol>, metadata: Option<&Metadata>) {
        if let Some(protocol) = protocol {
            let features = protocol.writer_features.iter().flatten();
            let mut features = features.map(String::as_str);
            self.feature = Some(features.any(|f| ICT_FEATURES.contains(&f)));
        }
        if let Some(metadata) = metadata {
            self.property = Some(metadata.flag(ICT_PROPERTY));
            self.since = metadata.property(ICT_SINCE_PROPERTY).and_then(|v| v.parse().ok());
        }
    }

    fn enabled(&self, version: Version) -> bool {
        self.feature.unwrap_or(true)
            && self.property.unwrap_or(true)
            && self.since.is_none_or(|since| version.get() >= since)
    }

    /// Timestamp of the next commit.
    pub fn next(&mut self, commit: &ReadCommit) -> TimestampMs {
        self.state(commit.index.protocol.as_ref(), commit.index.metadata.as_ref());
        // Nearly no table has them: its `commitInfo` is not parsed for it.
        let in_commit = self
            .enabled(commit.file.version)
            .then(|| commit.index.info().in_commit_timestamp.map(TimestampMs))
            .flatten();
        self.advance(commit.file.version, in_commit, commit.file.modified)
    }

    /// Timestamp of a version of which only these two times are known.
    pub fn advance(
        &mut self,
        version: Version,
        in_commit: Option<TimestampMs>,
        modified: TimestampMs,
    ) -> TimestampMs {
        let own = in_commit.filter(|_| self.enabled(version)).unwrap_or(modified);
        let time = match self.previous {
            Some(previous) if own <= previous => previous.plus_ms(1),
            _ => own,
        };
        self.previous = Some(time);
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: i64, modified: i64) -> CommitFile {
        CommitFile {
            version: Version::new(version).unwrap(),
            size: 0,
            modified: TimestampMs(modified),
        }
    }

    fn commit(version: i64, modified: i64, ndjson: &str) -> ReadCommit {
        ReadCommit::parse("c", file(version, modified), ndjson.as_bytes()).unwrap()
    }

    #[test]
    fn times_grow_strictly_whatever_the_files_say() {
        let mut times = CommitTimestamps::default();
        let got: Vec<i64> = [50, 50, 40, 60]
            .iter()
            .zip(0..)
            .map(|(modified, v)| times.next(&commit(v, *modified, "")).0)
            .collect();
        assert_eq!(got, [50, 51, 52, 60]);
    }

    #[test]
    fn in_commit_timestamps_count_only_where_enabled() {
        let info = r#"{"commitInfo":{"inCommitTimestamp":7}}"#;
        let protocol = |features: &str| {
            format!(
                r#"{{"protocol":{{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":[{features}]}}}}"#
            )
        };
        let metadata = |value: &str| {
            format!(
                r#"{{"metaData":{{"id":"i","schemaString":"","configuration":{{"delta.enableInCommitTimestamps":"{value}"}}}}}}"#
            )
        };
        for (features, value, want) in [
            ("\"inCommitTimestamp\"", "true", 7),
            ("\"inCommitTimestamp-preview\"", "TRUE", 7),
            ("\"inCommitTimestamp\"", "false", 100),
            ("", "true", 100),
        ] {
            let text = format!("{info}\n{}\n{}", protocol(features), metadata(value));
            let mut times = CommitTimestamps::default();
            assert_eq!(times.next(&commit(0, 100, &text)).0, want, "{features} {value}");
        }
        // Nothing known: what the commit says.
        assert_eq!(CommitTimestamps::default().next(&commit(4, 100, info)).0, 7);
    }

    #[test]
    fn a_file_that_is_added_twice_counts_once() {
        let add = |path: &str, size: i64| {
            format!(
                r#"{{"add":{{"path":"{path}","partitionValues":{{}},"size":{size},"modificationTime":1,"dataChange":true}}}}"#
            )
        };
        let text = [add("a", 1), add("b", 2), add("a", 3)].join("\n");
        let read = commit(0, 0, &text);
        let sizes: Vec<i64> = read.index.adds.iter().map(|a| a.size).collect();
        assert_eq!(sizes, [2, 3]);
    }

    #[tokio::test]
    async fn a_large_object_is_read_as_it_comes() {
        use object_store::memory::InMemory;
        let line = |n: usize| {
            format!(
                r#"{{"add":{{"path":"f{n}","partitionValues":{{}},"size":{n},"modificationTime":1,"dataChange":true,"stats":"{}"}}}}"#,
                "x".repeat(9_000)
            )
        };
        let text = (0..4_000).map(line).collect::<Vec<_>>().join("\n");
        assert!(text.len() as u64 > STREAMED_BYTES);
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let listed = CommitFile { size: text.len() as u64, ..file(3, 9) };
        let log = Path::from("_delta_log");
        store.put(&listed.path(&log), text.clone().into()).await.unwrap();
        let mut commits = read_commits(&store, &log.into(), vec![listed]);
        let read = commits.next().await.unwrap().unwrap();
        assert_eq!((read.raw_len, read.index.adds.len()), (text.len() as u64, 0));
        assert!(read.body.published().unwrap() == text.as_bytes());
        let adds = read.later.unwrap().all().await.unwrap();
        assert_eq!(
            adds.iter().map(|add| add.size).collect::<Vec<_>>(),
            (0..4_000).collect::<Vec<_>>()
        );
        assert!(commits.next().await.is_none());
    }
}
