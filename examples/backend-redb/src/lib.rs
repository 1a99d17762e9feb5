//! An example of a backend: the ten parts of [`deltalakedb_catalog_core::backend`] over an embedded key-value
//! store ([redb](https://docs.rs/redb)). It passes the conformance suite and the oracle.
//!
//! It shows what the contract asks of a database that has no SQL:
//!
//! * `store`: keys, ranges of keys, and which error of the store means what.
//! * `schema`, `tables`, `commit`, `files`, `reads`, `import`, `outbox`, `skip`, `audit`, `registry`: the parts. A part reads rows, lets
//!   [`support`](deltalakedb_catalog_core::support) say what the contract makes of them, and writes rows.
//!
//! It is not a product. A product would do this otherwise:
//!
//! * redb's default mode lets one handle have a file open: its clones share it. A product would choose a mode or a
//!   store for several processes.
//! * Each write is a transaction with a sync of its own, also one that changes nothing. A product would put waiting
//!   writes into one.
//! * Rows are JSON. A removed file stays in the range that a list of files reads, a published version in the range
//!   that a list of the outbox reads, a version is found by its time from the newest one on, and a claim looks at
//!   every table. A product would have a compact format, indexes of what is in force, open and due, and a way to
//!   delete old rows.
//! * A commit's bytes are one value, and a large commit is held in memory. A product would cut the bytes into
//!   pieces, and read the adds in pages.
//! * After an I/O error redb refuses writes until the file is opened again. A product would open it again.
#![forbid(unsafe_code)]

mod audit;
mod commit;
mod files;
mod import;
mod outbox;
mod reads;
mod registry;
mod schema;
mod skip;
mod store;
mod tables;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use redb::{Database, ReadableDatabase};

use store::{ReadRows, Rows, WriteRows};

/// A catalog in a redb file.
#[derive(Debug, Clone)]
pub struct RedbBackend {
    db: Arc<Database>,
    /// Writers wait here, where waiting costs no thread.
    turn: Arc<tokio::sync::Mutex<()>>,
    closed: Arc<AtomicBool>,
}

impl RedbBackend {
    /// Opens a file, or creates it. It blocks for a moment. redb locks the file: whoever opens it once more is
    /// refused as busy.
    ///
    /// # Errors
    /// `Schema` if the file is no redb database, `Unavailable` if it cannot be opened.
    pub fn open(path: &Path) -> Result<RedbBackend> {
        let db = Database::create(path).map_err(store::failed)?;
        Ok(RedbBackend { db: Arc::new(db), turn: Arc::default(), closed: Arc::default() })
    }

    /// The database, for a call; none is begun after `close`.
    fn open_db(&self) -> Result<Arc<Database>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(CatalogError::closed("redb"));
        }
        Ok(self.db.clone())
    }

    /// Reads from one snapshot of the rows.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadRows) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let db = self.open_db()?;
        blocking(move || {
            let transaction = db.begin_read().map_err(store::failed)?;
            let rows = Rows(transaction.open_table(store::ROWS).map_err(store::failed)?);
            rows.check_schema()?;
            work(&rows)
        })
        .await
    }

    /// Writes in one transaction, which stays whenever the work succeeds.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut WriteRows<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let checked = |rows: &mut WriteRows<'_>| rows.check_schema().and_then(|()| work(rows));
        self.write_if(|_| true, checked).await
    }

    /// Writes rows of any schema in one transaction, which stays if its answer says so. redb has one writer at a
    /// time, which makes all writes serial. A caller that goes away does not stop the thread: all is written then,
    /// or nothing.
    async fn write_if<T: Send + 'static>(
        &self,
        stays: fn(&T) -> bool,
        work: impl FnOnce(&mut WriteRows<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let db = self.open_db()?;
        let turn = self.turn.clone().lock_owned().await;
        blocking(move || {
            let _turn = turn;
            let transaction = db.begin_write().map_err(store::failed)?;
            let rows = transaction.open_table(store::ROWS).map_err(store::failed)?;
            let answer = work(&mut Rows(rows))?;
            if stays(&answer) {
                transaction.commit().map_err(store::commit_failed)?;
            }
            Ok(answer)
        })
        .await
    }
}

/// Runs work that blocks. If its thread ends without an answer, it is not known what was written.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let ended = |e| CatalogError::failed(format!("a call broke off: {e}"), WriteState::Unknown);
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}
