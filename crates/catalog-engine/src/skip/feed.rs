//! The index of a table that is being imported, made of its files while they are stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::executor::block_on;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Limits;
use super::build::{Builder, Built};
use crate::predicate::Column;
use deltalakedb_catalog_core::action::{Add, Metadata};
use deltalakedb_catalog_core::backend::ImportedCommit;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::Version;
use deltalakedb_catalog_core::later::PageWatcher;
use deltalakedb_catalog_core::model::FileCursor;
use deltalakedb_catalog_core::support::as_ordinal;

/// Batches that wait for the index, besides the one that is looked at.
const WAITING: usize = 1;

/// Takes all files that an import stores, in the order of their cursors. It works on a thread of its
/// own, beside the database.
#[derive(Debug)]
pub struct Feed {
    sender: mpsc::Sender<Batch>,
    /// Large commits of which not all files have passed.
    pending: Arc<AtomicUsize>,
    thread: JoinHandle<Result<Option<Fed>>>,
}

/// What was made of them, for [`Catalog::adopt_index`](crate::catalog::Catalog::adopt_index).
#[derive(Debug)]
pub struct Fed {
    pub(super) columns: Vec<Column>,
    pub(super) segments: Vec<(Built, FileCursor)>,
    /// Files that passed, also those that were removed later.
    pub(super) files: u64,
}

#[derive(Debug)]
enum Batch {
    Base {
        version: Version,
        first: u64,
        files: Vec<Add>,
    },
    Commits(Arc<[ImportedCommit]>),
    /// Files of a large commit, and how many there were before them.
    Later {
        version: Version,
        first: usize,
        files: Arc<[Add]>,
    },
}

/// The place to which the files of a large commit go, while the database reads them: from a thread that may
/// wait.
#[derive(Debug)]
struct FeedPages {
    /// Nobody who keeps this keeps the index from being ended.
    sender: mpsc::WeakSender<Batch>,
    pending: Arc<AtomicUsize>,
    version: Version,
    first: usize,
}

impl PageWatcher for FeedPages {
    fn page(&mut self, files: &Arc<[Add]>) {
        let batch =
            Batch::Later { version: self.version, first: self.first, files: Arc::clone(files) };
        self.first = self.first.saturating_add(files.len());
        if let Some(sender) = self.sender.upgrade() {
            let _ = sender.blocking_send(batch);
        }
    }

    /// To be called after the last one. If it is not, there is no index of this import.
    fn complete(self: Box<Self>) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Feed {
    /// Begins with the metadata of the base, if there is one. To be called inside of a runtime.
    #[must_use]
    pub fn start(metadata: Option<&Metadata>) -> Feed {
        let (sender, batches) = mpsc::channel(WAITING);
        let metadata = metadata.cloned();
        let thread = spawn_blocking(move || run(metadata.as_ref(), batches));
        Feed { sender, pending: Arc::default(), thread }
    }

    /// Files of the base, and how many there were before them.
    pub async fn base(&self, version: Version, first: u64, files: &[Add]) {
        self.send(Batch::Base { version, first, files: files.to_vec() }).await;
    }

    /// Commits that are applied: above the base.
    pub async fn commits(&self, commits: &Arc<[ImportedCommit]>) {
        self.send(Batch::Commits(Arc::clone(commits))).await;
        for (place, commit) in commits.iter().enumerate() {
            let Some(later) = &commit.later else { continue };
            self.pending.fetch_add(1, Ordering::AcqRel);
            // Files come in the order of their cursors: in none but the last commit there may be more.
            if place + 1 == commits.len() {
                later.watch(FeedPages {
                    sender: self.sender.downgrade(),
                    pending: Arc::clone(&self.pending),
                    version: commit.version,
                    first: commit.index.adds.len(),
                });
            }
        }
    }

    async fn send(&self, batch: Batch) {
        // Who has given up does not listen any more: then the index is made later.
        let _ = self.sender.send(batch).await;
    }

    /// The index of all that passed; none if it has to be made from the rows, as columns changed on the
    /// way.
    pub async fn end(self) -> Option<Fed> {
        drop(self.sender);
        match self.thread.await {
            Ok(Ok(fed)) => fed.filter(|_| self.pending.load(Ordering::Acquire) == 0),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no index was made of what was imported");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "making an index of what was imported ended early");
                None
            }
        }
    }
}

fn run(metadata: Option<&Metadata>, mut batches: mpsc::Receiver<Batch>) -> Result<Option<Fed>> {
    let mut making = Making::default();
    if let Some(metadata) = metadata {
        making.columns(metadata)?;
    }
    while let Some(batch) = batches.blocking_recv() {
        let known = match batch {
            Batch::Base { version, first, files } => {
                let first = usize::try_from(first).unwrap_or(usize::MAX);
                making.files(version, first, &files)?
            }
            Batch::Later { version, first, files } => making.files(version, first, &files)?,
            Batch::Commits(commits) => {
                let mut known = true;
                for commit in commits.iter() {
                    if let Some(metadata) = &commit.index.metadata {
                        known &= making.columns(metadata)?;
                    }
                    known &= making.files(commit.version, 0, &commit.index.adds)?;
                }
                known
            }
        };
        if !known {
            return Ok(None);
        }
    }
    making.end()
}

#[derive(Default)]
struct Making {
    builder: Option<Builder>,
    segments: Vec<(Built, FileCursor)>,
    last: Option<FileCursor>,
    files: u64,
}

impl Making {
    /// False if files were looked at with other columns.
    fn columns(&mut self, metadata: &Metadata) -> Result<bool> {
        let builder = Builder::new(Column::all(metadata)?, Limits::default());
        let same = |old: &Builder| old.columns() == builder.columns();
        if self.builder.as_ref().is_some_and(same) {
            return Ok(true);
        }
        self.builder = Some(builder);
        Ok(self.files == 0)
    }

    fn files(&mut self, version: Version, first: usize, files: &[Add]) -> Result<bool> {
        let Some(builder) = &mut self.builder else { return Ok(files.is_empty()) };
        for (position, add) in files.iter().enumerate() {
            let ordinal = as_ordinal(first.saturating_add(position))?;
            let cursor = FileCursor { added_version: version, ordinal };
            builder.add(cursor, add);
            self.files += 1;
            self.last = Some(cursor);
            if builder.is_full() {
                self.segments.push((block_on(builder.finish())?, cursor));
            }
        }
        Ok(true)
    }

    fn end(mut self) -> Result<Option<Fed>> {
        let (Some(mut builder), Some(last)) = (self.builder, self.last) else { return Ok(None) };
        if builder.files() > 0 {
            self.segments.push((block_on(builder.finish())?, last));
        }
        let columns = builder.columns().to_vec();
        Ok(Some(Fed { columns, segments: self.segments, files: self.files }))
    }
}
