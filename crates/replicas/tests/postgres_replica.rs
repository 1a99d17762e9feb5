//! A streaming replica of PostgreSQL: who answers what, while it lags, fails and comes back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's ways to speak"
)]

use deltalakedb_catalog_core::backend::parts::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltalakedb_backend_postgres::{PostgresBackend, PostgresOptions};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs};
use deltalakedb_conformance::change::Change;
use deltalakedb_conformance::env::{retrying, v};
use deltalakedb_conformance::live;
use deltalakedb_replicas::{Replica, ReplicaConfig, ReplicaReader, ReplicaStats};
use deltalakedb_test_servers::{CountingProxy, Postgres, Software};
use url::Url;

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);
const LIMIT: Duration = Duration::from_secs(30);

/// A primary with replicas, each behind a proxy that counts.
struct Lake {
    server: Postgres,
    replicas: Vec<(Postgres, Arc<CountingProxy>)>,
    primary: Arc<PostgresBackend>,
    primary_proxy: CountingProxy,
    table: TableId,
    head: i64,
}

fn options(url: &str, port: u16) -> PostgresOptions {
    let url: Url = url.parse().unwrap();
    let mut options = PostgresOptions::new("127.0.0.1", port, "lake", url.username());
    options.password = url.password().map(Into::into);
    options.pool.acquire_timeout = Duration::from_secs(1);
    options
}

impl Lake {
    /// None where PostgreSQL is not installed.
    async fn new(replicas: usize) -> Option<Lake> {
        if let Err(why) = Software::Postgres.check() {
            deltalakedb_test_servers::skip(&["replica", "postgres"], why);
            return None;
        }
        let server = Postgres::start(deltalakedb_test_servers::PostgresOptions::default()).unwrap();
        server.create_database("lake").unwrap();
        let primary_proxy = CountingProxy::start(server.port()).unwrap();
        let options = options(&server.superuser_url("lake"), primary_proxy.port());
        let primary = PostgresBackend::connect(options).await.unwrap();
        primary.migrate(NOW).await.unwrap();
        let table = live::make_table(primary.as_ref()).await.unwrap();
        let replica = |_| {
            let replica = server.replica().unwrap();
            replica.wait_caught_up(&server, LIMIT).unwrap();
            let proxy = CountingProxy::start(replica.port()).unwrap();
            (replica, Arc::new(proxy))
        };
        let replicas = (0..replicas).map(replica).collect();
        Some(Lake { server, replicas, primary, primary_proxy, table, head: 1 })
    }

    fn reader(&self, config: ReplicaConfig) -> ReplicaReader {
        self.patient_reader(config, Duration::from_secs(1))
    }

    /// A reader whose reads wait this long for a connection.
    fn patient_reader(&self, config: ReplicaConfig, patience: Duration) -> ReplicaReader {
        let replica = |(server, proxy): &(Postgres, Arc<CountingProxy>)| {
            let mut options = options(&server.superuser_url("lake"), proxy.port());
            options.pool.acquire_timeout = patience;
            Replica::new(format!("replica on {}", proxy.port()), move || {
                let options = options.clone();
                async move { Ok(PostgresBackend::connect(options).await? as Arc<dyn CatalogBackend>) }
            })
        };
        let replicas = self.replicas.iter().map(replica).collect();
        let primary = Arc::clone(&self.primary) as Arc<dyn CatalogBackend>;
        ReplicaReader::new(primary, replicas, config)
    }

    /// Adds a file, on the primary.
    async fn commit(&mut self, through: &ReplicaReader) {
        let change = Change::files([format!("f{}", self.head)]).append(self.table, v(1)).unwrap();
        live::commit(through, vec![change]).await.unwrap();
        self.head += 1;
    }

    fn caught_up(&self) {
        for (replica, _) in &self.replicas {
            replica.wait_caught_up(&self.server, LIMIT).unwrap();
        }
    }

    /// Requests since the last call: of the primary, and of each replica.
    fn asked(&self) -> (u64, Vec<u64>) {
        let count = |proxy: &CountingProxy| {
            let count = proxy.round_trips();
            proxy.reset();
            count
        };
        (count(&self.primary_proxy), self.replicas.iter().map(|(_, proxy)| count(proxy)).collect())
    }

    async fn reads_of(&self, reader: &ReplicaReader, version: i64) {
        let (table, at) = (self.table, v(version));
        let snapshot = reader.snapshot(&TableRef::Id(table), At::Version(at)).await.unwrap();
        assert_eq!(snapshot.version, at);
        let files = reader.list_files(table, at, None, 1_000).await.unwrap().items;
        assert_eq!(u64::try_from(files.len()).unwrap(), snapshot.num_files);
        assert_eq!(reader.read_bodies(table, at, at, 10).await.unwrap().len(), 1);
    }

    async fn head_of(&self, reader: &ReplicaReader) -> i64 {
        let read = || async { reader.snapshot(&TableRef::Id(self.table), At::Head).await };
        retrying(read).await.unwrap().version.get()
    }
}

fn first(reader: &ReplicaReader) -> ReplicaStats {
    reader.stats().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_reads_versions_and_the_primary_the_rest() {
    let Some(mut lake) = Lake::new(1).await else { return };
    let reader = lake.reader(ReplicaConfig::default());
    lake.reads_of(&reader, 1).await;
    lake.asked();

    lake.reads_of(&reader, 1).await;
    lake.reads_of(&reader, 0).await;
    let (primary, replicas) = lake.asked();
    assert_eq!(primary, 0, "versions are read from the replica alone");
    assert!(replicas[0] >= 6, "{replicas:?}");

    // Commits, their checks, and the head are the primary's.
    lake.commit(&reader).await;
    assert_eq!(lake.head_of(&reader).await, lake.head);
    reader.get_table(&TableRef::Id(lake.table)).await.unwrap().unwrap();
    let (primary, replicas) = lake.asked();
    assert!(primary >= 3, "{primary}");
    assert_eq!(replicas, [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_leaves_it_to_the_primary() {
    let Some(mut lake) = Lake::new(1).await else { return };
    let stale = ReplicaConfig { max_staleness: Some(LIMIT), ..ReplicaConfig::default() };
    let (exact, stale) = (lake.reader(ReplicaConfig::default()), lake.reader(stale));
    lake.reads_of(&exact, 1).await;
    lake.replicas[0].0.pause_replay().unwrap();
    lake.commit(&exact).await;

    lake.asked();
    lake.reads_of(&exact, 2).await;
    let (primary, _) = lake.asked();
    assert!(primary >= 3, "the replica has no version 2: {primary}");
    let stats = first(&exact);
    assert!(stats.healthy && stats.fell_back >= 3, "lag is no failure: {stats:?}");
    lake.reads_of(&exact, 1).await;
    assert_eq!(lake.asked().0, 0, "what it has, it reads");

    // A head that may be old: first from the primary, then from the replica if that is as far.
    assert_eq!(lake.head_of(&stale).await, 2, "nothing is known yet: the primary");
    assert_eq!(lake.head_of(&stale).await, 2, "the replica is behind what was seen");
    lake.replicas[0].0.resume_replay().unwrap();
    lake.caught_up();
    lake.asked();
    assert_eq!(lake.head_of(&stale).await, 2);
    let (primary, replicas) = lake.asked();
    assert!(primary == 0 && replicas[0] > 0, "now the replica: {primary}, {replicas:?}");
    lake.reads_of(&exact, 2).await;
    assert_eq!(lake.asked().0, 0);

    // What this process writes, it sees.
    lake.commit(&stale).await;
    stale.note_change(lake.table);
    assert_eq!(lake.head_of(&stale).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_is_left_out_and_taken_back() {
    let Some(mut lake) = Lake::new(1).await else { return };
    let config = ReplicaConfig { read_timeout: Duration::from_secs(1), ..ReplicaConfig::default() };
    let reader = lake.reader(config.clone());
    lake.reads_of(&reader, 1).await;
    assert!(first(&reader).healthy);

    lake.replicas[0].0.kill();
    let began = Instant::now();
    for _ in 0..5 {
        lake.reads_of(&reader, 1).await;
    }
    // One read waits for it, the others do not.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let stats = first(&reader);
    assert!(!stats.healthy && stats.failed >= 1, "{stats:?}");

    lake.replicas[0].0.start_again().unwrap();
    lake.caught_up();
    let served = first(&reader).served;
    let began = Instant::now();
    while first(&reader).served == served {
        assert!(began.elapsed() < config.max_backoff * 2, "it is not taken back");
        lake.reads_of(&reader, 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(first(&reader).healthy);

    // A silent one, whose connections stay open, costs a time limit, too.
    lake.replicas[0].1.stall();
    let began = Instant::now();
    lake.reads_of(&reader, 1).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    lake.replicas[0].1.unstall();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_share_the_reads() {
    let Some(lake) = Lake::new(2).await else { return };
    // Which replica answers is asked here, not how fast: a busy machine has time.
    let config =
        ReplicaConfig { read_timeout: Duration::from_secs(60), ..ReplicaConfig::default() };
    let reader = Arc::new(lake.patient_reader(config, Duration::from_secs(60)));
    lake.reads_of(&reader, 1).await;
    lake.reads_of(&reader, 1).await;
    lake.asked();
    let reads = (0..64).map(|_| {
        let (reader, table) = (Arc::clone(&reader), lake.table);
        tokio::spawn(async move { reader.list_files(table, v(1), None, 10).await.unwrap() })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap().items.len(), 2);
    }
    let (primary, replicas) = lake.asked();
    println!("64 reads: {primary} requests of the primary, {replicas:?} of the replicas");
    assert_eq!(primary, 0);
    // The least busy one is asked next, so the slower one of the two gets fewer.
    assert!(replicas.iter().all(|count| *count >= 16), "{replicas:?}");
    assert!(replicas.iter().sum::<u64>() >= 64, "{replicas:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_replica_of_this_catalog_is_refused() {
    let (Some(lake), Some(other)) = (Lake::new(0).await, Lake::new(0).await) else { return };
    let options = options(&other.server.superuser_url("lake"), other.server.port());
    let replica = Replica::new("another catalog", move || {
        let options = options.clone();
        async move { Ok(PostgresBackend::connect(options).await? as Arc<dyn CatalogBackend>) }
    });
    let primary = Arc::clone(&lake.primary) as Arc<dyn CatalogBackend>;
    let reader = ReplicaReader::new(primary, vec![replica], ReplicaConfig::default());
    lake.reads_of(&reader, 1).await;
    let stats = first(&reader);
    assert!(!stats.healthy && stats.served == 0, "{stats:?}");
}
