//! A database that goes away in the middle of a commit: afterwards it is committed, not committed, or
//! can be found out, and no row is there twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use deltalake::arrow::array::{Int64Array, RecordBatch};
use deltalake::datafusion::prelude::SessionContext;
use deltalake::{DeltaResult, DeltaTable, DeltaTableError};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{CommitToken, TimestampMs};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::{Clock, IdSource};
use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend, Verb};
use deltalakedb_catalog_engine::memory::MemoryBackend;
use uuid::Uuid;

use crate::context::Context;
use crate::logstore::log_store;
use crate::{CatalogOpener, LOCATION, Options, TableAddress};

/// A clock that stands still but for what is slept: nothing waits.
#[derive(Debug, Default)]
struct Time(AtomicU64);

#[async_trait]
impl Clock for Time {
    fn now(&self) -> TimestampMs {
        TimestampMs(1_700_000_000_000 + i64::try_from(self.0.load(Ordering::Relaxed)).unwrap())
    }

    async fn sleep(&self, duration: Duration) {
        self.0.fetch_add(u64::try_from(duration.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Ids;

impl IdSource for Ids {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn fraction(&self) -> f64 {
        0.5
    }
}

/// Gives out one catalog.
#[derive(Debug)]
struct One(Catalog);

#[async_trait]
impl CatalogOpener for One {
    fn address(&self, _: &str) -> Result<TableAddress> {
        Err(CatalogError::invalid("only one table".to_owned()))
    }

    async fn open(&self, _: &TableAddress) -> Result<Catalog> {
        Ok(self.0.clone())
    }
}

type Faults = Arc<Mutex<Vec<(Verb, Fault)>>>;

/// A database whose next calls go wrong as the list says, and the table in it.
struct World {
    faults: Faults,
    catalog: Catalog,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> World {
        let faults = Faults::default();
        let script = Arc::clone(&faults);
        let backend = FaultyBackend::new(MemoryBackend::new(), move |call| {
            let mut faults = script.lock().unwrap();
            match faults.iter().position(|(verb, _)| *verb == call.verb) {
                Some(at) => faults.remove(at).1,
                None => Fault::None,
            }
        });
        let backend: Arc<dyn CatalogBackend> = Arc::new(backend);
        let catalog = Catalog::new(backend, Arc::new(Time::default()), Arc::new(Ids));
        let world = World { faults, catalog, folder: tempfile::tempdir().unwrap() };
        world.append(world.table(), 0).await.unwrap();
        world
    }

    fn table(&self) -> DeltaTable {
        let address = TableAddress {
            url: String::new(),
            catalog: "memory".to_owned(),
            table: "s.t".parse().unwrap(),
        };
        let place = self.folder.path().to_str().unwrap().to_owned();
        let options = Options::from([(LOCATION.to_owned(), place)]);
        let context = Context::new(Arc::new(One(self.catalog.clone())), address, options);
        DeltaTable::new(log_store(Arc::new(context), &format!("{:p}", &raw const *self)).unwrap())
    }

    async fn opened(&self) -> DeltaTable {
        let mut table = self.table();
        table.load().await.unwrap();
        table
    }

    async fn append(&self, table: DeltaTable, id: i64) -> DeltaResult<DeltaTable> {
        let ids: deltalake::arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![id]));
        let rows = RecordBatch::try_from_iter_with_nullable([("id", ids, true)]).unwrap();
        table.write([rows]).await
    }

    /// Version and number of rows, as somebody else reads them.
    async fn state(&self) -> (Option<u64>, usize) {
        let table = self.opened().await;
        let session = SessionContext::new();
        let rows = session.read_table(table.table_provider().await.unwrap()).unwrap();
        (table.version(), rows.count().await.unwrap())
    }

    fn next(&self, faults: impl IntoIterator<Item = (Verb, Fault)>) {
        self.faults.lock().unwrap().extend(faults);
    }
}

/// The catalog's error somewhere in one of `deltalake`.
fn unknown(error: &DeltaTableError) -> Option<CommitToken> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(CatalogError::CommitUnknown { token, .. }) = error.downcast_ref() {
            return Some(token.clone());
        }
        source = error.source();
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_found_again() {
    for fault in [Fault::LoseAnswer, Fault::LoseAnswerBusy, Fault::LoseRequest, Fault::Busy] {
        let what = format!("{fault:?}");
        let world = World::new().await;
        let table = world.opened().await;
        world.next([(Verb::Commit, fault)]);
        let table = world.append(table, 1).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(table.version(), Some(1), "{what}");
        assert_eq!(world.state().await, (Some(1), 2), "{what}");
        world.append(table, 2).await.unwrap();
        assert_eq!(world.state().await, (Some(2), 3), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_fails_has_committed_nothing() {
    let world = World::new().await;
    let table = world.opened().await;
    world.next([(Verb::Commit, Fault::Fail)]);
    let error = world.append(table.clone(), 1).await.unwrap_err();
    assert!(error.to_string().contains("injected: failure"), "{error}");
    assert_eq!(unknown(&error), None);
    assert_eq!(world.state().await, (Some(0), 1));
    // The same writer goes on.
    world.append(table, 1).await.unwrap();
    assert_eq!(world.state().await, (Some(1), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_answers_can_be_found_out_by_the_token() {
    for (fault, committed) in [(Fault::LoseAnswer, true), (Fault::LoseRequest, false)] {
        let world = World::new().await;
        let table = world.opened().await;
        // Gone for as long as the core asks.
        let gone = |_| [(Verb::ResolveToken, Fault::Fail), (Verb::Commit, Fault::LoseRequest)];
        world.next([(Verb::Commit, fault)]);
        world.next((0..10_000).flat_map(gone));
        let error = world.append(table, 1).await.unwrap_err();
        world.faults.lock().unwrap().clear();
        let token = unknown(&error).unwrap_or_else(|| panic!("{error:?}"));
        assert!(error.to_string().contains(token.as_str()), "{error}");
        let found = world.catalog.resolve(&token).await.unwrap();
        assert_eq!(found.is_some(), committed);
        let (version, rows) = if committed { (1, 2) } else { (0, 1) };
        assert_eq!(world.state().await, (Some(version), rows));
        // Whoever opens it anew goes on from there.
        world.append(world.opened().await, 2).await.unwrap();
        assert_eq!(world.state().await, (Some(version + 1), rows + 1));
    }
}
