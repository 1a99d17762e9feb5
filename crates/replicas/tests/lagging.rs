//! Replicas that lag, fail and come back: answers are the primary's.
#![allow(clippy::unwrap_used, reason = "a failed expectation here is a failed test")]

use deltalakedb_catalog_core::backend::parts::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::{
    CatalogBackend, CommitFilter, CommitOutcome, CommitRequest,
};
use deltalakedb_catalog_core::ids::{At, CommitToken, TableId, TableRef, TimestampMs};
use deltalakedb_catalog_engine::catalog::{Catalog, ChangeTarget, CommitBatch, TableChange};
use deltalakedb_catalog_engine::conflict::Reads;
use deltalakedb_catalog_engine::env::{Clock, IdSource};
use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend};
use deltalakedb_catalog_engine::memory::MemoryBackend;
use deltalakedb_conformance::change::{Change, new_table};
use deltalakedb_conformance::env::{name, v};
use deltalakedb_replicas::{Replica, ReplicaConfig, ReplicaReader};
use uuid::Uuid;

#[derive(Debug, Default)]
struct TestClock(AtomicI64);

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(self.0.load(Ordering::SeqCst))
    }
    async fn sleep(&self, _: Duration) {}
}

#[derive(Debug)]
struct TestIds;

impl IdSource for TestIds {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
    fn fraction(&self) -> f64 {
        0.5
    }
}

const ID: TableId = TableId(Uuid::from_u128(7));

/// Version 0 creates the table; each version adds one file. The same call is the same commit.
async fn commit(backend: &MemoryBackend, version: i64) {
    let change = Change::files([format!("f{version}")]);
    let part = match version {
        0 => change.create(new_table(ID, name("t"))),
        _ => change.exactly(ID, v(version - 1)),
    };
    let token = CommitToken::new(format!("c{version}")).unwrap();
    let now = TimestampMs(1_000 + version);
    let request = CommitRequest { token, now, tables: vec![part.unwrap()] };
    let outcome = backend.commit(request).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
}

struct World {
    primary: Arc<MemoryBackend>,
    replica: Arc<MemoryBackend>,
    down: Arc<AtomicBool>,
    clock: Arc<TestClock>,
    reader: ReplicaReader,
}

fn world(max_staleness: Option<Duration>) -> World {
    let (primary, replica) = (Arc::new(MemoryBackend::new()), Arc::new(MemoryBackend::new()));
    let (down, clock) = (Arc::new(AtomicBool::new(false)), Arc::new(TestClock::default()));
    let (inner, broken) = (Arc::clone(&replica), Arc::clone(&down));
    let node = Replica::new("r", move || {
        let broken = Arc::clone(&broken);
        let faulty = FaultyBackend::new(Arc::clone(&inner), move |_| {
            if broken.load(Ordering::SeqCst) { Fault::Fail } else { Fault::None }
        });
        async move { Ok(Arc::new(faulty) as Arc<dyn CatalogBackend>) }
    });
    let config = ReplicaConfig { max_staleness, ..ReplicaConfig::default() };
    let backend = Arc::clone(&primary) as Arc<dyn CatalogBackend>;
    let reader = ReplicaReader::new(backend, vec![node], config)
        .with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    World { primary, replica, down, clock, reader }
}

/// All reads of a named version, compared with the primary.
async fn same(w: &World, version: i64) {
    let (a, b, at) = (&w.reader, &w.primary, v(version));
    assert_eq!(
        a.list_files(ID, at, None, 99).await.unwrap(),
        b.list_files(ID, at, None, 99).await.unwrap()
    );
    let filter = CommitFilter { to_version: Some(at), ..CommitFilter::default() };
    assert_eq!(
        a.list_commits(ID, &filter, None, 99).await.unwrap(),
        b.list_commits(ID, &filter, None, 99).await.unwrap()
    );
    assert_eq!(
        a.read_bodies(ID, v(0), at, 99).await.unwrap(),
        b.read_bodies(ID, v(0), at, 99).await.unwrap()
    );
    let (id, at) = (TableRef::Id(ID), At::Version(at));
    let mut theirs = a.snapshot(&id, at).await.unwrap();
    let ours = b.snapshot(&id, at).await.unwrap();
    // The table's row may be as old as the replica: it has this version at least.
    assert!(theirs.table.head >= Some(v(version)) && theirs.table.head <= ours.table.head);
    theirs.table = ours.table.clone();
    assert_eq!(theirs, ours);
}

#[tokio::test]
async fn every_lag_and_fault_gives_the_answers_of_the_primary() {
    let w = world(None);
    let mut random = 1_u64;
    let (mut head, mut behind) = (0, -1);
    commit(&w.primary, 0).await;
    for _ in 0..600 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        match (random >> 40) % 8 {
            0 if head < 60 => {
                head += 1;
                commit(&w.primary, head).await;
            }
            1 if behind < head => {
                behind += 1;
                commit(&w.replica, behind).await;
            }
            2 => w.down.store((random >> 50).is_multiple_of(3), Ordering::SeqCst),
            3 => {
                w.clock.0.fetch_add(400, Ordering::SeqCst);
            }
            _ => same(&w, i64::try_from(random >> 33).unwrap() % (head + 1)).await,
        }
    }
    let stats = w.reader.stats().remove(0);
    assert!(stats.served > 0 && stats.fell_back > 0 && stats.failed > 0, "{stats:?}");
}

#[tokio::test]
async fn the_head_is_never_older_than_allowed() {
    let w = world(Some(Duration::from_millis(100)));
    let id = TableRef::Id(ID);
    commit(&w.primary, 0).await;
    commit(&w.replica, 0).await;
    let head = async || w.reader.snapshot(&id, At::Head).await.unwrap().version;
    assert_eq!(head().await, v(0));
    assert_eq!(w.reader.stats()[0].served, 0, "nothing was learnt: the primary answers");
    commit(&w.primary, 1).await;
    w.clock.0.store(100, Ordering::SeqCst);
    assert_eq!(head().await, v(0), "as old as allowed");
    assert_eq!(w.reader.stats()[0].served, 1);
    w.clock.0.store(101, Ordering::SeqCst);
    assert_eq!(head().await, v(1), "older than allowed");
    assert_eq!(head().await, v(1), "the replica lags behind what is known");
    assert_eq!(w.reader.stats()[0].fell_back, 1);
}

#[tokio::test]
async fn a_replica_that_fails_is_left_out_and_taken_back() {
    let w = world(None);
    commit(&w.primary, 0).await;
    commit(&w.replica, 0).await;
    w.down.store(true, Ordering::SeqCst);
    same(&w, 0).await;
    let stats = w.reader.stats().remove(0);
    assert_eq!((stats.healthy, stats.failed), (false, 1), "asked once: {stats:?}");
    w.down.store(false, Ordering::SeqCst);
    w.clock.0.store(249, Ordering::SeqCst);
    same(&w, 0).await;
    assert_eq!(w.reader.stats()[0].served, 0, "still left out");
    w.clock.0.store(250, Ordering::SeqCst);
    same(&w, 0).await;
    let stats = w.reader.stats().remove(0);
    assert!(stats.healthy && stats.served == 4, "{stats:?}");
}

#[tokio::test]
async fn a_replica_of_another_catalog_is_refused() {
    let w = world(None);
    commit(&w.replica, 0).await;
    assert!(w.reader.list_files(ID, v(0), None, 9).await.is_err(), "the primary has no such table");
    let stats = w.reader.stats().remove(0);
    assert_eq!((stats.served, stats.failed), (0, 1), "{stats:?}");
}

#[tokio::test]
async fn a_process_sees_what_it_wrote_through_a_catalog() {
    let w = world(Some(Duration::from_secs(60)));
    commit(&w.primary, 0).await;
    commit(&w.replica, 0).await;
    let World { primary, reader, clock, .. } = w;
    let catalog = Catalog::new(primary, clock, Arc::new(TestIds)).with_reader(Arc::new(reader));
    let table = TableRef::Id(ID);
    let head = async || catalog.snapshot(&table, At::Head).await.unwrap().version;
    assert_eq!((head().await, head().await), (v(0), v(0)), "the second is the replica's");
    let change = TableChange {
        target: ChangeTarget::Existing { table: table.clone(), read_version: None },
        ndjson: br#"{"txn":{"appId":"a","version":1}}"#.to_vec(),
        origin: "test".to_owned(),
        reads: Reads::default(),
        operation: None,
    };
    catalog.commit(CommitBatch { token: None, tables: vec![change] }).await.unwrap();
    assert_eq!(head().await, v(1), "it is newer than what the replica has");
}
