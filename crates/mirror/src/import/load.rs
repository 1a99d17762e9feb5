//! Moves a log into a backend, step by step; or only looks at it, for a dry run.

use std::collections::HashMap;
use std::sync::Arc;

use deltalakedb_catalog_core::action::FileKey;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{ImportProgress, ImportedCommit};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::later::LaterAdds;
use deltalakedb_catalog_core::model::{BaseChunk, BaseTail};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::noted::Noted;
use super::source::{Source, check_schema};
use crate::log::{CheckpointTail, CommitFile, CommitTimestamps, FileAction, ReadCommit};
use deltalakedb_catalog_engine::retry::Retry;
use deltalakedb_catalog_engine::skip::{Fed, Feed};

/// Commits stored in one transaction. Each one writes all pages anew that it changes, and those of indexes
/// are changed by nearly each.
const BATCH_COMMITS: usize = 2_000;
/// Commits stored in the first one; each has twice as many as the one before.
const FIRST_COMMITS: usize = 250;
/// Bytes of commit files stored in one transaction, unless a single one is larger.
const BATCH_BYTES: u64 = 16 << 20;
/// Files and tombstones of a base stored in one transaction.
const CHUNK_ACTIONS: usize = 10_000;
/// Times that new commits of other writers are looked for at the end.
const CATCH_UP_ROUNDS: usize = 10;

/// Whose fault an error is: what is stored so far is worth keeping if it is not the log's.
pub(super) enum Fault {
    /// The log cannot be read.
    Log(CatalogError),
    /// The database did not do it.
    Backend(CatalogError),
}

impl Fault {
    pub(super) fn into_error(self) -> CatalogError {
        match self {
            Fault::Log(error) | Fault::Backend(error) => error,
        }
    }
}

/// What a loader has read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) applied: u64,
    pub(super) history: u64,
    pub(super) base_actions: u64,
    pub(super) bytes: u64,
}

/// Where commits go.
enum Target<'a> {
    Catalog {
        catalog: &'a Catalog,
        table_id: TableId,
    },
    /// Sizes of the files in the table, by digest of their key.
    Survey(HashMap<[u8; 16], i64>),
}

pub(super) struct Loader<'a> {
    source: &'a mut Source,
    target: Target<'a>,
    progress: &'a dyn Progress,
    times: CommitTimestamps,
    counts: Counts,
    /// Makes the skipping index of what is stored, unless a part was stored by an earlier run.
    feed: Option<Feed>,
    /// What is written in another way than the protocol's.
    odd: Noted,
    /// The same, when nothing seems to follow: its last part is made while the last commits are stored.
    ending: Option<JoinHandle<Option<Fed>>>,
}

impl<'a> Loader<'a> {
    pub(super) fn store(
        source: &'a mut Source,
        catalog: &'a Catalog,
        table_id: TableId,
        progress: &'a dyn Progress,
    ) -> Loader<'a> {
        Loader::new(source, Target::Catalog { catalog, table_id }, progress)
    }

    pub(super) fn survey(source: &'a mut Source, progress: &'a dyn Progress) -> Loader<'a> {
        Loader::new(source, Target::Survey(HashMap::new()), progress)
    }

    fn new(source: &'a mut Source, target: Target<'a>, progress: &'a dyn Progress) -> Loader<'a> {
        let times = CommitTimestamps::default();
        let counts = Counts::default();
        let odd = Noted::default();
        Loader { source, target, progress, times, counts, feed: None, odd, ending: None }
    }

    /// What a person should know of how the log is written.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.odd.warnings()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Files and bytes at the end of a survey.
    pub(super) fn totals(&self) -> (u64, u64) {
        match &self.target {
            Target::Catalog { .. } => (0, 0),
            Target::Survey(files) => (
                u64::try_from(files.len()).unwrap_or(u64::MAX),
                files
                    .values()
                    .filter_map(|size| u64::try_from(*size).ok())
                    .fold(0, u64::saturating_add),
            ),
        }
    }

    /// Everything up to the head, from where an earlier run has stopped.
    pub(super) async fn run(&mut self, started: Option<ImportProgress>) -> Result<(), Fault> {
        let from_checkpoint = self.source.reader().is_some();
        let history_through = started.as_ref().and_then(|p| p.history_through);
        let base_done = started.as_ref().is_some_and(|p| p.base_done && from_checkpoint);
        let mut head = started.as_ref().and_then(|p| p.table.head);
        if started.as_ref().is_some_and(|p| p.table.head.is_none() && p.base_files == 0) {
            let metadata = self.source.reader().and_then(|reader| reader.tail().metadata.as_ref());
            self.feed = Some(Feed::start(metadata));
        }
        if from_checkpoint {
            let history = self.source.history();
            let rest_of_history = history.last().is_some_and(|c| Some(c.version) > history_through);
            if rest_of_history || !base_done {
                // The history is read again for its timestamps, which build on each other.
                let base_time = self.history(history, history_through).await?;
                if !base_done {
                    let skip =
                        started.as_ref().map_or((0, 0), |p| (p.base_files, p.base_tombstones));
                    let stored = self.base(base_time, skip).await?;
                    head = Some(stored);
                }
            }
            self.times = CommitTimestamps::after(self.base_time(started.as_ref()));
            self.times.state(self.source.protocol.as_ref(), self.source.metadata.as_ref());
        } else if let Some(record) = started.as_ref().map(|p| &p.table) {
            self.times = CommitTimestamps::after(record.head_timestamp);
        }
        if head.is_some() {
            self.state_at_head().await?;
        }
        let mut files = self.source.applied();
        files.retain(|c| Some(c.version) > head);
        self.applied(files, head.is_some()).await
    }

    /// Takes protocol and metadata from what is stored: they decide what later timestamps mean, and
    /// the commits that set them are not read again.
    async fn state_at_head(&mut self) -> Result<(), Fault> {
        let Target::Catalog { catalog, table_id } = &self.target else { return Ok(()) };
        let table = TableRef::Id(*table_id);
        let stored = catalog.snapshot(&table, At::Head).await.map_err(Fault::Backend)?;
        self.times.state(Some(&stored.protocol), Some(&stored.metadata));
        self.source.protocol = Some(stored.protocol);
        self.source.metadata = Some(stored.metadata);
        Ok(())
    }

    /// Timestamp of the last stored commit: of the head of an interrupted import, else of the base.
    fn base_time(&self, started: Option<&ImportProgress>) -> Option<TimestampMs> {
        started.and_then(|p| p.table.head_timestamp).or(self.times.last())
    }

    /// The skipping index of all that was stored, if it could be made on the way.
    pub(super) async fn index(&mut self) -> Option<Fed> {
        match self.ending.take() {
            Some(ending) => ending.await.ok().flatten(),
            None => self.feed.take()?.end().await,
        }
    }

    /// Stores what other writers have committed since the log was listed.
    pub(super) async fn catch_up(&mut self) -> Result<(), Fault> {
        for _ in 0..CATCH_UP_ROUNDS {
            let files = self.source.newer().await.map_err(Fault::Log)?;
            if files.is_empty() {
                break;
            }
            self.applied(files, true).await?;
        }
        Ok(())
    }

    /// Commits at or below the base. Returns the timestamp of the base version.
    async fn history(
        &mut self,
        files: Vec<CommitFile>,
        through: Option<Version>,
    ) -> Result<TimestampMs, Fault> {
        let base = self.source.base().version();
        self.times.state(self.source.protocol.as_ref(), self.source.metadata.as_ref());
        self.progress.begin("Reading the history", "commits", u64::try_from(files.len()).ok());
        let mut base_time = None;
        let mut batches = self.batches(files);
        while let Some(batch) = batches.try_next().await.map_err(Fault::Log)? {
            let read = batch.len();
            let mut commits = Vec::with_capacity(read);
            for commit in batch {
                let timestamp = self.times.next(&commit);
                if commit.file.version == base {
                    base_time = Some(timestamp);
                }
                self.counts.history += 1;
                self.counts.bytes += commit.raw_len;
                if Some(commit.file.version) > through {
                    commits.push(imported(commit, timestamp));
                }
            }
            self.send(commits, false).await?;
            self.progress.advance(u64::try_from(read).unwrap_or_default());
        }
        self.progress.end();
        if let Some(time) = base_time {
            return Ok(time);
        }
        let (in_commit, modified) = self.source.base_times().await;
        self.times.state(self.source.protocol.as_ref(), self.source.metadata.as_ref());
        Ok(self.times.advance(base, in_commit, modified))
    }

    /// The state that a checkpoint holds, after the files and tombstones that are stored already.
    async fn base(&mut self, time: TimestampMs, stored: (u64, u64)) -> Result<Version, Fault> {
        let Some(reader) = self.source.reader() else {
            return Err(Fault::Log(CatalogError::corrupt("the base is no checkpoint")));
        };
        let version = reader.version;
        self.odd.take(reader.odd(), || format!("checkpoint '{}'", self.source.base().name()));
        let mut tail = Some(base_tail(reader.tail(), time).map_err(Fault::Log)?);
        self.progress.begin("Reading the checkpoint", "actions", Some(reader.rows()));
        let mut actions = ahead(reader.files(), 3);
        let (mut seen, mut sent) = ((0_u64, 0_u64), stored);
        let mut chunk = BaseChunk::default();
        while let Some(batch) = actions.try_next().await.map_err(Fault::Log)? {
            let read = u64::try_from(batch.len()).unwrap_or_default();
            for action in batch {
                self.counts.base_actions += 1;
                match action {
                    FileAction::Add(add) => {
                        seen.0 += 1;
                        if seen.0 > stored.0 {
                            chunk.files.push(add);
                        }
                    }
                    FileAction::Remove(remove) => {
                        seen.1 += 1;
                        if seen.1 > stored.1 {
                            chunk.tombstones.push(remove);
                        }
                    }
                }
                if chunk.files.len() + chunk.tombstones.len() >= CHUNK_ACTIONS {
                    self.send_base(&mut sent, std::mem::take(&mut chunk), None).await?;
                }
            }
            self.progress.advance(read);
        }
        self.send_base(&mut sent, chunk, tail.take()).await?;
        self.progress.end();
        Ok(version)
    }

    /// Commits above the base, in order.
    async fn applied(&mut self, files: Vec<CommitFile>, started: bool) -> Result<(), Fault> {
        if files.is_empty() {
            return Ok(());
        }
        self.progress.begin("Reading commits", "commits", u64::try_from(files.len()).ok());
        // Was it ended, then too early: files would be missing in it.
        self.ending = None;
        let mut first = !started;
        let mut left = files.len();
        let all = first.then(|| files.clone());
        let mut batches = self.batches(files);
        while let Some(batch) = batches.try_next().await.map_err(Fault::Log)? {
            let read = batch.len();
            let mut commits = Vec::with_capacity(read);
            for mut commit in batch {
                let name = self.source.log_dir.shown(&commit.file.path(&self.source.log_dir.path));
                if first && let Some(all) = &all {
                    self.begin_with(&mut commit, all).await?;
                }
                if let Some(metadata) = &commit.index.metadata {
                    check_schema(metadata, &format!("commit file '{name}'")).map_err(Fault::Log)?;
                    self.source.metadata = Some(metadata.clone());
                }
                if let Some(protocol) = &commit.index.protocol {
                    self.source.protocol = Some(protocol.clone());
                }
                if std::mem::take(&mut first) {
                    self.check_first(&name)?;
                }
                self.counts.applied += 1;
                self.counts.bytes += commit.raw_len;
                let timestamp = self.times.next(&commit);
                commits.push(imported(commit, timestamp));
            }
            left = left.saturating_sub(read);
            self.send(commits, left == 0).await?;
            self.progress.advance(u64::try_from(read).unwrap_or_default());
        }
        self.progress.end();
        Ok(())
    }

    /// A table whose first commit lacks protocol or metadata has those that come first: readers look for
    /// them in the whole log.
    async fn begin_with(
        &mut self,
        first: &mut ReadCommit,
        files: &[CommitFile],
    ) -> Result<(), Fault> {
        let is_known = |commit: &ReadCommit, source: &Source| {
            let protocol = commit.index.protocol.is_some() || source.protocol.is_some();
            protocol && (commit.index.metadata.is_some() || source.metadata.is_some())
        };
        if is_known(first, self.source) {
            return Ok(());
        }
        let later = files.get(1..).unwrap_or_default().to_vec();
        let mut commits = self.source.commits(later);
        while !is_known(first, self.source) {
            let Some(commit) = commits.try_next().await.map_err(Fault::Log)? else { break };
            let version = commit.file.version;
            for (action, is_new) in [
                ("protocol", first.index.protocol.is_none() && commit.index.protocol.is_some()),
                ("metaData", first.index.metadata.is_none() && commit.index.metadata.is_some()),
            ] {
                if is_new {
                    self.odd.first.push(format!(
                        "version {} has no '{action}' action, the first one is in version {version}: \
                         versions before are read with that",
                        first.file.version
                    ));
                }
            }
            first.index.protocol = first.index.protocol.take().or(commit.index.protocol);
            first.index.metadata = first.index.metadata.take().or(commit.index.metadata);
        }
        Ok(())
    }

    /// The commit that creates a table sets its protocol and metadata.
    fn check_first(&self, name: &str) -> Result<(), Fault> {
        let missing = match (&self.source.protocol, &self.source.metadata) {
            (Some(_), Some(_)) => return Ok(()),
            (None, None) => "neither a 'protocol' nor a 'metaData' action",
            (None, Some(_)) => "no 'protocol' action",
            (Some(_), None) => "no 'metaData' action",
        };
        Err(Fault::Log(CatalogError::corrupt(format!(
            "commit file '{name}' has {missing}, and no later one has: the log does not say what the \
             table is. Restore the commit as it was, or have the engine that wrote it write the table anew"
        ))))
    }

    /// Commits in groups that are stored together, read while the group before is stored.
    fn batches(&self, files: Vec<CommitFile>) -> BoxStream<'static, Result<Vec<ReadCommit>>> {
        let number = files.len();
        ahead(group(self.source.commits(files), number), 1)
    }

    /// Stores commits; `last`: no more are known of.
    async fn send(&mut self, commits: Vec<ImportedCommit>, last: bool) -> Result<(), Fault> {
        if commits.is_empty() {
            return Ok(());
        }
        match &mut self.target {
            Target::Survey(files) => {
                let base = self.source.base().version();
                let from_json = self.source.reader().is_none();
                for commit in commits.iter().filter(|c| from_json || c.version > base) {
                    for remove in &commit.index.removes {
                        files.remove(&remove.key().digest());
                    }
                    for add in &commit.index.adds {
                        files.insert(FileKey::digest(&add.key()), add.size);
                    }
                    let Some(later) = &commit.later else { continue };
                    let mut pages = later.pages().map_err(Fault::Log)?;
                    while let Some(page) = pages.next().await.map_err(Fault::Log)? {
                        files.extend(page.iter().map(|add| (add.key().digest(), add.size)));
                    }
                }
                self.odd.take_commits(&commits);
                Ok(())
            }
            Target::Catalog { catalog, table_id } => {
                let table_id = *table_id;
                let commits: Arc<[ImportedCommit]> = commits.into();
                let base = self.source.base().version();
                let applied = |commit: &ImportedCommit| {
                    self.source.reader().is_none() || commit.version > base
                };
                if let Some(feed) = &self.feed
                    && commits.iter().all(applied)
                {
                    feed.commits(&commits).await;
                    // Files of a large commit come to it while they are stored.
                    let whole = commits.iter().all(|commit| commit.later.is_none());
                    if last
                        && whole
                        && !self.source.has_newer().await
                        && let Some(feed) = self.feed.take()
                    {
                        self.ending = Some(tokio::spawn(feed.end()));
                    }
                }
                Retry::of(catalog)
                    .repeat(|| catalog.backend().import_commits(table_id, Arc::clone(&commits)))
                    .await
                    .map(drop)
                    .map_err(|error| {
                        let mut later = commits.iter().filter_map(|commit| commit.later.as_ref());
                        let damaged = later.any(LaterAdds::is_damaged);
                        if damaged { Fault::Log(error) } else { Fault::Backend(error) }
                    })?;
                self.odd.take_commits(&commits);
                Ok(())
            }
        }
    }

    async fn send_base(
        &mut self,
        sent: &mut (u64, u64),
        chunk: BaseChunk,
        tail: Option<BaseTail>,
    ) -> Result<(), Fault> {
        let added = (chunk.files.len(), chunk.tombstones.len());
        match &mut self.target {
            Target::Survey(files) => {
                files.extend(chunk.files.iter().map(|add| (add.key().digest(), add.size)));
            }
            Target::Catalog { catalog, table_id } => {
                let (table_id, (skip_files, skip_tombstones)) = (*table_id, *sent);
                if let Some(feed) = &self.feed {
                    feed.base(self.source.base().version(), skip_files, &chunk.files).await;
                }
                Retry::of(catalog)
                    .repeat(|| {
                        catalog.backend().import_base(
                            table_id,
                            skip_files,
                            skip_tombstones,
                            chunk.clone(),
                            tail.clone(),
                        )
                    })
                    .await
                    .map_err(Fault::Backend)?;
            }
        }
        sent.0 += u64::try_from(added.0).unwrap_or_default();
        sent.1 += u64::try_from(added.1).unwrap_or_default();
        Ok(())
    }
}

fn imported(commit: ReadCommit, timestamp: TimestampMs) -> ImportedCommit {
    ImportedCommit {
        version: commit.file.version,
        timestamp,
        body: commit.body,
        index: commit.index,
        later: commit.later,
        token: None,
    }
}

fn base_tail(tail: &CheckpointTail, timestamp: TimestampMs) -> Result<BaseTail> {
    let (Some(protocol), Some(metadata)) = (tail.protocol.clone(), tail.metadata.clone()) else {
        return Err(CatalogError::corrupt("the checkpoint has no protocol or no metadata"));
    };
    // One of each: the last one, should a writer have left two.
    let txns: HashMap<_, _> = tail.txns.iter().map(|t| (&t.app_id, t)).collect();
    let domains: HashMap<_, _> = tail.domain_metadata.iter().map(|d| (&d.domain, d)).collect();
    Ok(BaseTail {
        protocol,
        metadata,
        txns: txns.into_values().cloned().collect(),
        domain_metadata: domains.into_values().cloned().collect(),
        timestamp,
    })
}

/// Groups commits up to [`BATCH_COMMITS`] and [`BATCH_BYTES`]. The first groups are smaller, so that the
/// database does not wait long for something to do; the last two are alike, as the index is ended while the
/// last one is stored.
fn group(
    commits: BoxStream<'static, Result<ReadCommit>>,
    number: usize,
) -> BoxStream<'static, Result<Vec<ReadCommit>>> {
    stream::try_unfold((commits, number, FIRST_COMMITS), |(mut commits, left, size)| async move {
        let most = if left > size && left < 2 * size { left.div_ceil(2) } else { size };
        let mut batch: Vec<ReadCommit> = Vec::new();
        let mut bytes = 0_u64;
        while batch.len() < most && bytes < BATCH_BYTES {
            match commits.try_next().await? {
                None => break,
                Some(commit) => {
                    bytes = bytes.saturating_add(commit.raw_len);
                    batch.push(commit);
                }
            }
        }
        let left = left.saturating_sub(batch.len());
        let next = (commits, left, (2 * size).min(BATCH_COMMITS));
        Ok(if batch.is_empty() { None } else { Some((batch, next)) })
    })
    .boxed()
}

/// Lets a stream run ahead of its consumer by `depth` items, on a task that ends with it. An item is begun
/// when there is room for it: no further one is held, and its making does not take processors from who is
/// behind.
fn ahead<T: Send + 'static>(
    mut stream: BoxStream<'static, Result<T>>,
    depth: usize,
) -> BoxStream<'static, Result<T>> {
    let (sender, receiver) = mpsc::channel(depth);
    let task = Running(tokio::spawn(async move {
        while let Ok(room) = sender.reserve().await {
            let Some(item) = stream.next().await else { break };
            room.send(item);
        }
    }));
    stream::try_unfold(Some((receiver, task)), |state| async move {
        let Some((mut receiver, mut task)) = state else { return Ok(None) };
        if let Some(item) = receiver.recv().await {
            return Ok(Some((item?, Some((receiver, task)))));
        }
        // A task that broke off must not pass for the end of the log.
        match (&mut task.0).await {
            Ok(()) => Ok(None),
            Err(e) => Err(CatalogError::failed(
                format!("reading the log broke off: {e}"),
                WriteState::NotApplied,
            )),
        }
    })
    .boxed()
}

/// A task that is stopped when nobody waits for it any more.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sizes(number: i64, raw_len: u64) -> Vec<usize> {
        let commit = move |version| -> Result<ReadCommit> {
            let version = Version::new(version)?;
            let file = CommitFile { version, size: raw_len, modified: TimestampMs(1) };
            Ok(ReadCommit { raw_len, ..ReadCommit::parse("c", file, b"")? })
        };
        let commits = stream::iter((0..number).map(commit)).boxed();
        let groups = group(commits, usize::try_from(number).unwrap());
        groups.map_ok(|group| group.len()).try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn groups_grow_and_the_last_two_are_alike() {
        assert!(sizes(0, 1).await.is_empty());
        assert_eq!(sizes(1, 1).await, [1]);
        assert_eq!(sizes(250, 1).await, [250]);
        assert_eq!(sizes(251, 1).await, [126, 125]);
        assert_eq!(sizes(1_000, 1).await, [250, 375, 375]);
        let of_many = sizes(10_000, 1).await;
        assert_eq!(of_many, [250, 500, 1_000, 2_000, 2_000, 2_000, 1_125, 1_125]);
        assert_eq!(sizes(5, BATCH_BYTES).await, [1; 5]);
        assert_eq!(sizes(5, BATCH_BYTES / 2).await, [2, 2, 1]);
    }
}
