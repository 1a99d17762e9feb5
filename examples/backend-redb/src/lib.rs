//! An example of a backend: the seven parts of [`deltalakedb_catalog_core::backend`] over an embedded key-value
//! store ([redb](https://docs.rs/redb)). It passes the conformance suite and the oracle.
//!
//! It shows what the contract asks of a database that has no SQL:
//!
//! * `store`: keys, ranges of keys, transactions, and which error means what.
//! * `rows`: the values, and what is stored beside the model's own records.
//! * `schema`, `tables`, `commit`, `files`, `reads`, `import`, `outbox`, `skip`: the parts.
//!
//! It is not a product. A product would do this otherwise:
//!
//! * redb's default mode lets one process have a file open. Handles of one process share one database (see
//!   [`RedbBackend::open`]). A product would choose a mode or a store for several processes.
//! * Each write is a transaction with a sync of its own. A product would put waiting writes into one.
//! * Rows are JSON. A removed file stays in the range that a list of files reads, and a published version in the
//!   range that a list of the outbox reads. A product would have a compact format, indexes of what is in force and
//!   of what is open, and a way to delete old rows.
//! * A commit's bytes are one value, and a large commit is held in memory. A product would cut the bytes into
//!   pieces, and read the adds in pages.
//! * After an I/O error redb refuses writes until the file is opened again. A product would open it again.
#![forbid(unsafe_code)]

mod commit;
mod files;
mod import;
mod outbox;
mod reads;
mod rows;
mod schema;
mod skip;
mod store;
mod tables;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use redb::{Database, ReadableDatabase};

use store::{ReadRows, Rows, WriteRows};

/// The databases that this process has open, by path.
static OPEN: Mutex<BTreeMap<PathBuf, Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// A catalog in a redb file.
#[derive(Clone)]
pub struct RedbBackend {
    shared: Arc<Shared>,
}

/// What all handles on one file share.
struct Shared {
    db: Database,
    path: PathBuf,
    /// Writers wait here, where waiting costs no thread.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl RedbBackend {
    /// Opens a file, or creates it. It blocks for a moment. Two handles of one process on one path share one
    /// database, as redb locks the file for whoever opened it; another process is refused as busy.
    ///
    /// # Errors
    /// `Schema` if the file is no redb database, `Unavailable` if it cannot be opened.
    pub fn open(path: &Path) -> Result<RedbBackend> {
        let path = std::path::absolute(path).map_err(|e| {
            let what = format!("cannot find '{}': {e}", path.display());
            CatalogError::failed(what, WriteState::NotApplied)
        })?;
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, shared| shared.strong_count() > 0);
        if let Some(shared) = open.get(&path).and_then(Weak::upgrade) {
            return Ok(RedbBackend { shared });
        }
        let db = Database::create(&path).map_err(store::failed)?;
        let shared = Arc::new(Shared { db, path: path.clone(), turn: Arc::default() });
        open.insert(path, Arc::downgrade(&shared));
        Ok(RedbBackend { shared })
    }

    /// Reads from one snapshot of the rows.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadRows) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        blocking(move || {
            let transaction = shared.db.begin_read().map_err(store::failed)?;
            schema::require(schema::version(&transaction)?)?;
            work(&Rows(transaction.open_table(store::ROWS).map_err(store::failed)?))
        })
        .await
    }

    /// Writes in one transaction, which stays whenever the work succeeds.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut WriteRows<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.write_if(|_| true, work).await
    }

    /// Writes in one transaction, which stays if its answer says so. redb has one writer at a time, which makes
    /// all writes serial. A caller that goes away does not stop the thread: all is written then, or nothing.
    async fn write_if<T: Send + 'static>(
        &self,
        stays: fn(&T) -> bool,
        work: impl FnOnce(&mut WriteRows<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        let turn = shared.turn.clone().lock_owned().await;
        blocking(move || {
            let _turn = turn;
            let transaction = shared.db.begin_write().map_err(store::failed)?;
            schema::require(schema::version_in(&transaction)?)?;
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

impl fmt::Debug for RedbBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbBackend").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

/// Runs work that blocks. If its thread ends without an answer, it is not known what was written.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let ended = |e| CatalogError::failed(format!("a call broke off: {e}"), WriteState::Unknown);
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}
