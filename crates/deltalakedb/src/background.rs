//! Publishing while a program works: a worker in the background.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{CommitToken, TableRef};
use deltalakedb_catalog_engine::catalog::{CommitBatch, CommitEvent, CommitHook, CommitReport};
use deltalakedb_mirror::publish::{Publisher, PublisherConfig, Waited, wait_published};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Db;

/// Wakes the worker after each commit of this program.
#[derive(Debug)]
struct Wake(Arc<Publisher>);

impl CommitHook for Wake {
    fn committed(&self, _: &CommitEvent<'_>) {
        self.0.wake();
    }
}

/// A worker that publishes in the background, as long as this value is there.
///
/// Dropping it tells the worker to stop; [`BackgroundMirror::stop`] also waits for that.
#[derive(Debug)]
pub struct BackgroundMirror {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
}

impl BackgroundMirror {
    /// Ends the worker: the version at hand is finished, and its leases are given up.
    ///
    /// # Errors
    /// Those of the worker.
    pub async fn stop(self) -> Result<()> {
        // A worker that is gone has stopped.
        let _ = self.stop.send(true);
        self.task.await.map_err(|e| {
            CatalogError::failed(
                format!("the background worker broke down: {e}"),
                WriteState::NotApplied,
            )
        })?
    }
}

impl Db {
    /// Starts a worker in this process, which publishes the commits of every program, and those of
    /// the returned handle and its clones at once. Any number of programs may do so.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use deltalakedb::{Db, mirror::publish::PublisherConfig};
    /// let db = Db::open(&"sqlite:///lake/catalog.db".parse()?).await?;
    /// let (db, mirror) = db.publish_in_background(PublisherConfig::default());
    /// // … commit through `db` …
    /// mirror.stop().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn publish_in_background(self, config: PublisherConfig) -> (Db, BackgroundMirror) {
        let publisher = Arc::new(self.publisher(config));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn({
            let publisher = Arc::clone(&publisher);
            async move { publisher.run(stopped).await }
        });
        (self.with_commit_hook(Arc::new(Wake(publisher))), BackgroundMirror { stop, task })
    }

    /// Commits, and returns once every version that it wrote is published: by the worker of
    /// [`Db::publish_in_background`], or by that of another program.
    ///
    /// # Errors
    /// Those of a commit: nothing was written. [`CommitNotPublished`]: the commit stands.
    pub async fn commit_published(
        &self,
        batch: CommitBatch,
        limit: Duration,
    ) -> std::result::Result<CommitReport, CommitPublishedError> {
        let report = self.commit(batch).await.map_err(CommitPublishedError::Commit)?;
        if let Err(error) = self.wait_published(&report, limit).await {
            let stands = CommitNotPublished { report, error };
            return Err(CommitPublishedError::NotPublished(Box::new(stands)));
        }
        Ok(report)
    }

    /// Waits until every version that a commit wrote is published: by the worker of
    /// [`Db::publish_in_background`], or by that of another program. `limit` is for each table.
    ///
    /// # Errors
    /// `busy` if the time is over, `invalid_input` if a table's publishing is off or has stopped,
    /// `table_not_found` if a table is gone; those of the database. The commit stands in any case.
    pub async fn wait_published(&self, report: &CommitReport, limit: Duration) -> Result<()> {
        for table in &report.tables {
            let id = TableRef::Id(table.table_id);
            wait_published(self, &id, Some(table.version), Some(limit)).await?;
        }
        Ok(())
    }

    /// Waits until every table of the transaction with this token is published up to the version that the
    /// transaction gave it, by whichever worker. `limit` is for all of them together; none: as long as it
    /// takes. What was waited for comes in the order of the transaction.
    ///
    /// A catalog keeps a token for as long as it keeps the commit, unless `maintenance.expire.tokens` says how
    /// long: a token that has expired is as one that was never used.
    ///
    /// ```no_run
    /// # async fn example(db: deltalakedb::Db) -> deltalakedb::Result<()> {
    /// use std::time::Duration;
    /// let tables = db.wait_published_token("load-2026-01-31", Some(Duration::from_secs(30))).await?;
    /// for table in tables {
    ///     println!("{} is published up to {}", table.name, table.published_version);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `invalid_input` for a token that no commit has, and one that cannot be a token; those of
    /// [`Db::wait_published`].
    pub async fn wait_published_token(
        &self,
        token: impl Into<String>,
        limit: Option<Duration>,
    ) -> Result<Vec<Waited>> {
        let token = CommitToken::new(token)?;
        let Some(tables) = self.resolve(&token).await? else {
            return Err(CatalogError::invalid(format!(
                "no commit has the token '{token}' in {}: nothing was committed with it, or its commit \
                 is still on its way, or the token has expired: 'dl maintain' forgets old ones if \
                 maintenance.expire.tokens says so. Compare the token and the catalog with those of the writer",
                self.uri()
            )));
        };
        let began = Instant::now();
        let mut waited = Vec::with_capacity(tables.len());
        for table in tables {
            let left = limit.map(|limit| limit.saturating_sub(began.elapsed()));
            let id = TableRef::Id(table.table_id);
            waited.push(wait_published(self, &id, Some(table.version), left).await?);
        }
        Ok(waited)
    }
}

/// A commit that took effect and is not in every log yet.
#[derive(Debug)]
pub struct CommitNotPublished {
    /// What was committed.
    pub report: CommitReport,
    /// Why it is not known to be published.
    pub error: CatalogError,
}

/// Why [`Db::commit_published`] did not do both.
#[derive(Debug)]
pub enum CommitPublishedError {
    /// The commit failed.
    Commit(CatalogError),
    /// The commit stands; it is published later.
    NotPublished(Box<CommitNotPublished>),
}

impl std::fmt::Display for CommitPublishedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CommitPublishedError::Commit(error) => error.fmt(f),
            CommitPublishedError::NotPublished(stands) => {
                write!(f, "the commit stands, but: {}", stands.error)
            }
        }
    }
}

impl std::error::Error for CommitPublishedError {}

#[cfg(test)]
#[cfg(feature = "sqlite")]
#[path = "background_tests.rs"]
mod tests;
