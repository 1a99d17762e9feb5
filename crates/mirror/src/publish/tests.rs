use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorState};
use deltalakedb_catalog_core::sink::{PutOutcome, Replaced, SinkEntry};
use deltalakedb_catalog_engine::env::Clock;
use deltalakedb_catalog_engine::fault::{
    Fault, FaultyBackend, FaultySink, SinkFault, SinkVerb, Verb,
};
use tokio::sync::Semaphore;

use super::*;
use crate::kernel::{LogLocation, read_state};
use crate::sink::LocalSink;
use crate::testing::{Lake, START_MS, TestIds, add, is_commit, names, zero};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

fn json(version: i64) -> String {
    format!("{}.json", v(version).padded())
}

/// Checks that a log holds exactly the catalog's versions 0 to `head`, byte for byte.
async fn assert_published(lake: &Lake, name: &str, id: TableId, head: i64) {
    let bodies = lake.catalog.backend().read_bodies(id, v(0), v(head), 1_000).await.unwrap();
    assert_eq!(i64::try_from(bodies.len()).unwrap(), head + 1);
    for (record, body) in bodies {
        let path = lake.log(name).join(json(record.version.get()));
        assert_eq!(fs::read(&path).unwrap(), body.published().unwrap(), "{}", path.display());
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let ms = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        assert_eq!(i64::try_from(ms).unwrap(), record.timestamp.0);
    }
    assert!(!lake.log(name).join(json(head + 1)).exists());
    let table = lake.catalog.table(&TableRef::Id(id)).await.unwrap();
    assert_eq!(table.published_version, Some(v(head)));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_published_with_checkpoints() {
    let lake = Lake::new();
    let id = lake.table("t", 23).await;
    let report = lake.publisher().run_once(None).await.unwrap();
    assert_eq!((report.published, report.checkpoints, report.unpublished), (24, 2, 0));
    assert_eq!(report.failures, []);
    assert_eq!(report.tables[&id].published_version, Some(v(23)));
    assert_published(&lake, "t", id, 23).await;
    let log = names(&lake.log("t"));
    assert_eq!(log.len(), 24 + 24 + 2 + 1, "{log:?}");
    assert!(log.contains(&"00000000000000000010.checkpoint.parquet".to_owned()));
    let hint = fs::read_to_string(lake.log("t").join("_last_checkpoint")).unwrap();
    assert!(hint.starts_with("{\"version\":20,\"size\":22,"), "{hint}");
    let location = LogLocation::Table(lake.location("t"));
    for version in [Some(v(9)), Some(v(10)), Some(v(15)), None] {
        let state = read_state(location.clone(), &BTreeMap::new(), version).await.unwrap();
        let want = version.map_or(23, Version::get);
        assert_eq!(i64::try_from(state.files.len()).unwrap(), want);
    }
    let again = lake.publisher().run_once(None).await.unwrap();
    assert_eq!(again, RunReport::default());
}

#[tokio::test]
async fn the_checkpoint_interval_follows_the_metadata() {
    let lake = Lake::new();
    let id = lake.create("t", &zero("", "\"delta.checkpointInterval\":\"3\"")).await;
    for i in 1..=4 {
        lake.commit(id, &add(&format!("{i}"))).await;
    }
    let metadata = zero("", "\"delta.checkpointInterval\":\"2\"");
    lake.commit(id, metadata.lines().nth(1).unwrap()).await;
    for i in 6..=8 {
        lake.commit(id, &add(&format!("{i}"))).await;
    }
    let report = lake.publisher().run_once(None).await.unwrap();
    assert_eq!((report.published, report.failures), (9, vec![]));
    let checkpoints: Vec<i64> = names(&lake.log("t"))
        .iter()
        .filter_map(|n| n.strip_suffix(".checkpoint.parquet")?.parse().ok())
        .collect();
    assert_eq!(checkpoints, [3, 6, 8]);
}

#[tokio::test]
async fn many_tables_are_published_side_by_side() {
    let lake = Lake::new();
    let mut tables = Vec::new();
    for i in 0..9 {
        tables.push((format!("t{i}"), lake.table(&format!("t{i}"), 7).await));
    }
    let config = PublisherConfig { max_versions: 3, complete_batch: 2, ..Default::default() };
    let publisher = lake.publisher_on(Arc::clone(lake.catalog.backend()), config);
    let report = publisher.run_once(None).await.unwrap();
    assert_eq!((report.published, report.tables.len(), report.failures), (72, 9, vec![]));
    for (name, id) in tables {
        assert_published(&lake, &name, id, 7).await;
    }
}

#[tokio::test]
async fn only_the_table_asked_for_is_published() {
    let lake = Lake::new();
    let (a, b) = (lake.table("a", 1).await, lake.table("b", 1).await);
    let report = lake.publisher().run_once(Some(b)).await.unwrap();
    assert_eq!((report.published, report.unpublished), (2, 0));
    assert_published(&lake, "b", b, 1).await;
    assert!(!lake.log("a").exists());
    assert_eq!(lake.catalog.table(&TableRef::Id(a)).await.unwrap().published_version, None);
}

#[tokio::test]
async fn what_a_dropped_table_has_not_published_waits_for_nothing() {
    let lake = Lake::new();
    let id = lake.table("t", 3).await;
    lake.table("other", 1).await;
    lake.catalog.drop_table(&TableRef::Id(id)).await.unwrap();
    let report = lake.publisher().run_once(None).await.unwrap();
    assert_eq!((report.published, report.unpublished), (2, 0));
    lake.catalog.undrop_table(&TableRef::Id(id), None).await.unwrap();
    let report = lake.publisher().run_once(None).await.unwrap();
    assert_eq!((report.published, report.unpublished), (4, 0));
}

#[tokio::test]
async fn a_foreign_commit_stops_its_table_and_nothing_is_lost() {
    let lake = Lake::new();
    let (id, other) = (lake.table("t", 3).await, lake.table("other", 1).await);
    fs::create_dir_all(lake.log("t")).unwrap();
    let foreign = lake.log("t").join(json(2));
    fs::write(&foreign, b"{\"commitInfo\":{}}\n").unwrap();
    let publisher = lake.publisher();
    let report = publisher.run_once(None).await.unwrap();
    assert_eq!((report.published, report.diverged, report.unpublished), (2 + 2, 1, 2));
    let [issue] = report.failures.as_slice() else { panic!("{report:?}") };
    assert_eq!((issue.version, issue.diverged, issue.retry_at), (v(2), true, None));
    for want in [json(2).as_str(), "default.t", "another program", "dl mirror retry"] {
        assert!(issue.error.contains(want), "{}", issue.error);
    }
    assert_eq!(fs::read(&foreign).unwrap(), b"{\"commitInfo\":{}}\n");
    let table = lake.catalog.table(&TableRef::Id(id)).await.unwrap();
    assert_eq!((table.mirror, table.published_version), (MirrorMode::Diverged, Some(v(1))));
    assert_published(&lake, "other", other, 1).await;
    lake.clock.advance(10_000_000);
    assert_eq!(publisher.run_once(None).await.unwrap().published, 0, "not by itself");
    // Commits go on, and after a decision publishing does, too.
    lake.commit(id, &add("more")).await;
    fs::remove_file(&foreign).unwrap();
    lake.catalog.backend().mirror_retry(id, &Act::at(lake.clock.now())).await.unwrap();
    assert_eq!(publisher.run_once(None).await.unwrap().published, 3);
    assert_published(&lake, "t", id, 4).await;
}

/// A publisher whose sinks follow a script.
fn faulty(
    lake: &Lake,
    script: impl Fn(SinkVerb, u64, &str) -> SinkFault + Send + Sync + 'static,
) -> Publisher {
    let script = Arc::new(script);
    let root = lake.dir.path().to_owned();
    lake.publisher().with_sinks(move |table| {
        let script = Arc::clone(&script);
        let folder = root.join(table.name.name()).join("_delta_log");
        Ok(Arc::new(FaultySink::new(LocalSink::new(folder), move |call, name: &str| {
            script(call.verb, call.nth, name)
        })))
    })
}

#[tokio::test]
async fn failures_are_recorded_and_tried_again_later_and_later() {
    let lake = Lake::new();
    let id = lake.table("t", 2).await;
    let broken = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&broken);
    let publisher = faulty(&lake, move |verb, _, name| {
        let hit = verb == SinkVerb::PutIfAbsent && name.starts_with("00000000000000000001");
        if hit && seen.load(Ordering::Relaxed) {
            SinkFault::Common(Fault::Fail)
        } else {
            SinkFault::None
        }
    });
    let mut pauses = Vec::new();
    for attempt in 0..12 {
        let report = publisher.run_once(None).await.unwrap();
        let [issue] = report.failures.as_slice() else { panic!("{report:?}") };
        assert_eq!((issue.version, report.unpublished), (v(1), 2), "attempt {attempt}");
        let pause = issue.retry_at.unwrap().0 - lake.clock.now().0;
        pauses.push(pause);
        lake.clock.advance(pause - 1);
        assert_eq!(publisher.run_once(None).await.unwrap().failures, [], "not before its time");
        lake.clock.advance(1);
    }
    assert_eq!(pauses[..4], [375, 750, 1_500, 3_000]);
    assert_eq!(pauses[10..], [225_000, 225_000]);
    broken.store(false, Ordering::Relaxed);
    assert_eq!(publisher.run_once(None).await.unwrap().published, 2);
    assert_published(&lake, "t", id, 2).await;
}

#[tokio::test]
async fn lost_answers_of_the_database_cost_nothing_but_time() {
    for verb in [Verb::MirrorComplete, Verb::MirrorRelease, Verb::MirrorFail, Verb::ReadBodies] {
        for fault in [|| Fault::Busy, || Fault::Fail, || Fault::LoseAnswer, || Fault::LoseRequest] {
            let lake = Lake::new();
            let id = lake.table("t", 5).await;
            let backend = FaultyBackend::new(Arc::clone(lake.catalog.backend()), move |call| {
                if call.verb == verb && call.nth == 0 { fault() } else { Fault::None }
            });
            let config = PublisherConfig { complete_batch: 2, ..Default::default() };
            let publisher = lake.publisher_on(Arc::new(backend), config);
            let clock = Arc::clone(&lake.clock);
            for _ in 0..4 {
                // A busy database makes the publisher sleep: time goes on.
                let ticker = async {
                    loop {
                        clock.advance(10_000);
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    report = publisher.run_once(None) => { report.unwrap(); }
                    () = ticker => {}
                }
                clock.advance(60_000);
            }
            assert_published(&lake, "t", id, 5).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_publishers_publish_each_version_once() {
    let lake = Lake::new();
    let mut tables = Vec::new();
    for i in 0..4 {
        tables.push((format!("t{i}"), lake.table(&format!("t{i}"), 20).await));
    }
    let config = PublisherConfig { max_versions: 4, ..Default::default() };
    let runs = (0..8).map(|_| {
        let publisher = lake.publisher_on(Arc::clone(lake.catalog.backend()), config.clone());
        tokio::spawn(async move { publisher.run_once(None).await.unwrap() })
    });
    let reports = futures::future::join_all(runs).await;
    let published: u64 = reports.into_iter().map(|r| r.unwrap().published).sum();
    assert_eq!(published, 84);
    for (name, id) in tables {
        assert_published(&lake, &name, id, 20).await;
    }
}

/// A sink whose puts wait for a permit each.
#[derive(Debug)]
struct GatedSink {
    inner: LocalSink,
    permits: Arc<Semaphore>,
    waiting: Arc<Notify>,
}

#[async_trait]
impl MirrorSink for GatedSink {
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<PutOutcome> {
        if is_commit(name) {
            self.waiting.notify_one();
            self.permits.acquire().await.unwrap().forget();
        }
        self.inner.put_if_absent(name, bytes).await
    }
    async fn replace(&self, name: &str, expected: &[u8], bytes: Bytes) -> Result<Replaced> {
        self.inner.replace(name, expected, bytes).await
    }
    async fn put_replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.inner.put_replace(name, bytes).await
    }
    async fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name).await
    }
    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        self.inner.get(name).await
    }
    async fn list(&self, after: Option<&str>) -> Result<Vec<SinkEntry>> {
        self.inner.list(after).await
    }
    async fn set_modified(&self, name: &str, modified: TimestampMs) -> Result<()> {
        self.inner.set_modified(name, modified).await
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

fn gated(
    lake: &Lake,
    backend: Arc<dyn CatalogBackend>,
) -> (Publisher, Arc<Semaphore>, Arc<Notify>) {
    let (permits, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (root, gate, told) =
        (lake.dir.path().to_owned(), Arc::clone(&permits), Arc::clone(&waiting));
    let publisher = lake.publisher_on(backend, PublisherConfig::default());
    let publisher = publisher.with_sinks(move |table| {
        Ok(Arc::new(GatedSink {
            inner: LocalSink::new(root.join(table.name.name()).join("_delta_log")),
            permits: Arc::clone(&gate),
            waiting: Arc::clone(&told),
        }))
    });
    (publisher, permits, waiting)
}

#[tokio::test]
async fn a_lease_is_renewed_while_a_put_takes_long() {
    let lake = Lake::new();
    let id = lake.table("t", 0).await;
    let renewals = Arc::new(Semaphore::new(0));
    let counted = Arc::clone(&renewals);
    let backend = FaultyBackend::new(Arc::clone(lake.catalog.backend()), move |call| {
        if call.verb == Verb::MirrorRenew {
            let counted = Arc::clone(&counted);
            return Fault::After(Box::pin(async move { counted.add_permits(1) }));
        }
        Fault::None
    });
    let (publisher, permits, waiting) = gated(&lake, Arc::new(backend));
    let run = publisher.run_once(None);
    let outside = async {
        waiting.notified().await;
        for _ in 0..20 {
            lake.clock.advance(10_000);
            renewals.acquire().await.unwrap().forget();
            assert_eq!(lake.publisher().run_once(None).await.unwrap().published, 0, "it is held");
        }
        permits.add_permits(1);
    };
    let (report, ()) = tokio::join!(run, outside);
    let report = report.unwrap();
    assert_eq!((report.published, report.lost_leases), (1, 0));
    assert_published(&lake, "t", id, 0).await;
}

#[tokio::test]
async fn what_is_being_published_goes_on_while_more_is_claimed() {
    let lake = Lake::new();
    let ids = [lake.table("t", 0).await, lake.table("u", 0).await];
    let (claiming, recorded) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (claims, may_claim) = (Arc::clone(&claiming), Arc::new(Semaphore::new(0)));
    let (records, gate) = (Arc::clone(&recorded), Arc::clone(&may_claim));
    // The second claim waits in the database: for a lock, or a connection, of who publishes.
    let backend = FaultyBackend::new(Arc::clone(lake.catalog.backend()), move |call| {
        let (claims, records, gate) =
            (Arc::clone(&claims), Arc::clone(&records), Arc::clone(&gate));
        match call.verb {
            Verb::MirrorClaim if call.nth == 1 => Fault::Before(Box::pin(async move {
                claims.add_permits(1);
                gate.acquire().await.unwrap().forget();
            })),
            Verb::MirrorComplete => Fault::After(Box::pin(async move { records.add_permits(1) })),
            _ => Fault::None,
        }
    });
    // One permit: one of the two is done, the other one is on its way.
    let (publisher, permits, _) = gated(&lake, Arc::new(backend));
    permits.add_permits(1);
    let run = publisher.run_once(None);
    let outside = async {
        claiming.acquire().await.unwrap().forget();
        recorded.acquire().await.unwrap().forget();
        permits.add_permits(1);
        let other = tokio::time::timeout(Duration::from_secs(20), recorded.acquire()).await;
        other.expect("the other one is not polled while the claim waits").unwrap().forget();
        may_claim.add_permits(1);
    };
    let (report, ()) = tokio::join!(run, outside);
    assert_eq!(report.unwrap().published, 2);
    for id in ids {
        let table = lake.catalog.table(&TableRef::Id(id)).await.unwrap();
        assert_eq!(table.published_version, Some(v(0)));
    }
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_stops_at_once() {
    let lake = Lake::new();
    let id = lake.table("t", 2).await;
    // Its renewals go unheard for so long that another worker takes over.
    let backend = FaultyBackend::new(Arc::clone(lake.catalog.backend()), |call| {
        if call.verb == Verb::MirrorRenew && call.nth < 2 { Fault::Fail } else { Fault::None }
    });
    let (publisher, _permits, waiting) = gated(&lake, Arc::new(backend));
    let run = publisher.run_once(None);
    let outside = async {
        waiting.notified().await;
        lake.clock.advance(40_000);
        lake.publisher().run_once(None).await.unwrap()
    };
    let (lost, other) = tokio::join!(run, outside);
    let lost = lost.unwrap();
    assert_eq!((lost.published, lost.lost_leases), (0, 1), "{lost:?}");
    assert_eq!(other.published, 3);
    assert_published(&lake, "t", id, 2).await;
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_written_does_not_stop_commits() {
    let lake = Lake::new();
    let id = lake.table("t", 12).await;
    let publisher = faulty(&lake, |verb, _, name| {
        if verb == SinkVerb::PutIfAbsent && name.ends_with(".parquet") {
            return SinkFault::Common(Fault::Fail);
        }
        SinkFault::None
    });
    for _ in 0..2 {
        let report = publisher.run_once(None).await.unwrap();
        assert_eq!(report.failures[0].version, v(10));
        assert!(report.failures[0].retry_at.is_some());
        lake.clock.advance(5_000);
    }
    let report = publisher.run_once(None).await.unwrap();
    let [issue] = report.failures.as_slice() else { panic!("{report:?}") };
    assert!(issue.published && issue.error.contains("checkpoint of version 10"), "{issue:?}");
    assert_published(&lake, "t", id, 12).await;
}

#[tokio::test]
async fn a_sink_that_cannot_be_opened_is_a_failure_of_its_table() {
    let lake = Lake::new();
    lake.table("t", 1).await;
    let other = lake.table("u", 1).await;
    let root = lake.dir.path().to_owned();
    let publisher = lake.publisher().with_sinks(move |table| {
        if table.name.name() == "t" {
            return Err(CatalogError::Unsupported("needs the cargo feature `s3`".into()));
        }
        Ok(Arc::new(LocalSink::new(root.join("u/_delta_log"))))
    });
    let report = publisher.run_once(None).await.unwrap();
    assert_eq!((report.published, report.failures.len()), (2, 1));
    assert!(report.failures[0].error.contains("`s3`"));
    assert_published(&lake, "u", other, 1).await;
    let rows = lake.catalog.backend().mirror_rows(None, Some(MirrorState::Failed), None, 10).await;
    assert_eq!(rows.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_running_publisher_is_woken_and_stopped() {
    let lake = Lake::new();
    let id = lake.table("t", 0).await;
    let publisher = Arc::new(lake.publisher());
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn({
        let publisher = Arc::clone(&publisher);
        async move { publisher.run(stopped).await }
    });
    for head in 0..=2 {
        if head > 0 {
            lake.commit(id, &add(&format!("{head}"))).await;
        }
        // Woken, not polled: the clock stands still but for the second that each commit takes.
        publisher.wake();
        let published = || async {
            let table = lake.catalog.table(&TableRef::Id(id)).await.unwrap();
            table.published_version == Some(v(head))
        };
        tokio::time::timeout(Duration::from_secs(30), async {
            while !published().await {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_stopped_publisher_gives_its_leases_up() {
    let lake = Lake::new();
    let id = lake.table("t", 3).await;
    let (publisher, permits, waiting) = gated(&lake, Arc::clone(lake.catalog.backend()));
    let (stop, stopped) = watch::channel(false);
    let outside = async {
        waiting.notified().await;
        stop.send(true).unwrap();
        permits.add_permits(10);
    };
    let (end, ()) = tokio::join!(publisher.run(stopped), outside);
    end.unwrap();
    let table = lake.catalog.table(&TableRef::Id(id)).await.unwrap();
    assert_eq!(table.published_version, Some(v(0)), "the version at hand is finished");
    assert_eq!(lake.publisher().run_once(None).await.unwrap().published, 3, "no lease is left");
}

#[tokio::test]
async fn published_bytes_hold_the_digest_that_is_recorded() {
    let lake = Lake::new();
    let id = lake.table("t", 2).await;
    lake.publisher().run_once(None).await.unwrap();
    let rows = lake
        .catalog
        .backend()
        .mirror_rows(Some(id), Some(MirrorState::Complete), None, 10)
        .await
        .unwrap()
        .items;
    let digests: BTreeSet<String> = rows.into_iter().map(|r| r.digest.unwrap()).collect();
    let found: BTreeSet<String> = (0..=2)
        .map(|i| crate::put::digest(&fs::read(lake.log("t").join(json(i))).unwrap()))
        .collect();
    assert_eq!(digests, found);
    assert_eq!(
        crate::put::digest(b""),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
}

/// Does not wait, and keeps in mind for how long it was asked to.
#[derive(Debug, Default)]
struct Pauses(Mutex<Vec<u128>>);

#[async_trait]
impl Clock for Pauses {
    fn now(&self) -> TimestampMs {
        TimestampMs(START_MS)
    }
    async fn sleep(&self, pause: Duration) {
        self.0.lock().unwrap().push(pause.as_millis());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn after_an_outage_of_the_database_a_worker_goes_on_within_seconds() {
    const CALLS: u64 = 40;
    let lake = Lake::new();
    let (stop, stopped) = watch::channel(false);
    let backend = FaultyBackend::new(Arc::clone(lake.catalog.backend()), move |call| {
        match (call.verb, call.nth) {
            (Verb::MirrorClaim, 0..CALLS) => return Fault::Fail,
            (Verb::MirrorClaim, _) => stop.send(true).unwrap(),
            _ => {}
        }
        Fault::None
    });
    let clock = Arc::new(Pauses::default());
    let ids = Arc::new(TestIds::default());
    // Looks for foreign commits have pauses of their own.
    let config = PublisherConfig { foreign_check_ms: 0, ..PublisherConfig::default() };
    let publisher = Publisher::new(Arc::new(backend), Arc::clone(&clock) as _, ids, config);
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, publisher.run(stopped)).await.unwrap().unwrap();
    let mut pauses = clock.0.lock().unwrap();
    assert!(pauses.len() >= usize::try_from(CALLS).unwrap(), "{pauses:?}");
    // The last one may be that of a worker with nothing to do.
    pauses.truncate(usize::try_from(CALLS).unwrap());
    assert!(pauses[0] < 1_000 && pauses.is_sorted(), "they grow: {pauses:?}");
    assert!(pauses.iter().all(|ms| *ms <= 5_000), "{pauses:?}");
}

#[tokio::test]
async fn a_lease_that_an_outage_left_behind_is_given_up_when_it_is_over() {
    let lake = Lake::new();
    let id = lake.table("t", 3).await;
    // It goes away in the middle of the work, and is away for as long as that is told of.
    let backend = FaultyBackend::new(Arc::clone(lake.catalog.backend()), |call| {
        match (call.verb, call.nth) {
            (Verb::ReadBodies | Verb::MirrorFail | Verb::MirrorRelease, 0) => Fault::Fail,
            _ => Fault::None,
        }
    });
    let publisher = lake.publisher_on(Arc::new(backend), PublisherConfig::default());
    let report = publisher.run_once(None).await.unwrap();
    assert_eq!((report.published, report.unpublished, report.failures.len()), (0, 4, 1));
    let report = publisher.run_once(None).await.unwrap();
    assert_eq!((report.published, report.unpublished), (0, 4), "it cannot be given up yet");
    // No time has passed: nobody waited for the lease to lapse.
    let report = publisher.run_once(None).await.unwrap();
    assert_eq!((report.published, report.failures), (4, vec![]));
    assert_published(&lake, "t", id, 3).await;
}

#[tokio::test]
async fn all_that_waits_is_counted() {
    let lake = Lake::new();
    // More than a page, of one table and of several.
    for (name, head) in [("a", 24), ("b", 3), ("c", 12)] {
        lake.table(name, head).await;
    }
    let publisher =
        lake.publisher().with_sinks(|_| Err(CatalogError::Unsupported("as a test".into())));
    let report = publisher.run_once(None).await.unwrap();
    assert_eq!((report.published, report.unpublished), (0, 25 + 4 + 13));
}
