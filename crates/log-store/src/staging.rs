//! What a transaction has done to a table and not committed yet.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::Version;
use deltalakedb_catalog_core::model::Snapshot;

/// How a creation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    Done,
    /// There is such a version already.
    Exists,
}

/// Commits of a transaction to one table that are not in the catalog yet.
#[derive(Debug)]
pub(crate) struct Staging {
    /// The table as the transaction found it; none if it makes it.
    pub(crate) base: Option<Snapshot>,
    /// Commits after that, and when they were made.
    commits: Mutex<Vec<(Bytes, DateTime<Utc>)>>,
    /// The newest checkpoint of such a commit, by its name in the log: whoever writes one looks at it once more.
    checkpoint: Mutex<Option<(String, Bytes)>>,
}

impl Staging {
    pub(crate) fn new(base: Option<Snapshot>) -> Self {
        Staging { base, commits: Mutex::default(), checkpoint: Mutex::default() }
    }

    /// Keeps a checkpoint for as long as no newer one is written.
    pub(crate) fn keep_checkpoint(&self, name: &str, bytes: Bytes) {
        let mut kept = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((name.to_owned(), bytes));
    }

    /// A checkpoint that was written in this transaction.
    pub(crate) fn checkpoint(&self, name: &str) -> Option<Bytes> {
        let kept = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(kept, _)| kept == name).map(|(_, bytes)| bytes.clone())
    }

    /// First version that is staged.
    pub(crate) fn first(&self) -> Version {
        self.base.as_ref().map_or(Version::ZERO, |base| base.version.next())
    }

    /// Staged commits with their versions.
    pub(crate) fn commits(&self) -> Vec<(Version, Bytes, DateTime<Utc>)> {
        let commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut version = self.first();
        let mut out = Vec::with_capacity(commits.len());
        for (bytes, at) in commits.iter() {
            out.push((version, bytes.clone(), *at));
            version = version.next();
        }
        out
    }

    /// Stages a commit, if it is the next one.
    pub(crate) fn create(&self, version: Version, bytes: Bytes) -> Result<Created> {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let staged = i64::try_from(commits.len()).unwrap_or(i64::MAX);
        let next = self.first().get().saturating_add(staged);
        if version.get() < next {
            return Ok(Created::Exists);
        }
        if version.get() > next {
            return Err(CatalogError::invalid(format!(
                "version {version} does not follow on version {} of the transaction",
                next - 1
            )));
        }
        // Times of a log grow.
        let before = commits.last().map(|(_, at)| *at).or_else(|| {
            let base = self.base.as_ref()?;
            DateTime::from_timestamp_millis(base.timestamp.0)
        });
        let now = Utc::now();
        let at = before.map_or(now, |before| now.max(before + chrono::Duration::milliseconds(1)));
        commits.push((bytes, at));
        Ok(Created::Done)
    }
}
