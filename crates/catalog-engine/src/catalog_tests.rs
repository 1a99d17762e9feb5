use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

#[path = "catalog/freezing_tests.rs"]
mod freezing;
#[path = "catalog/registry_tests.rs"]
mod registry;

use super::prepare::check_large;
use super::*;
use crate::conflict::{self, ConflictKind, Isolation, Reads};
use crate::fault::{Call, Fault, FaultyBackend, Verb};
use crate::memory::MemoryBackend;

use deltalakedb_catalog_core::commit::{CommitBody, index_ndjson};
use deltalakedb_catalog_core::error::WriteState;
use deltalakedb_catalog_core::model::NewTable;

/// Stands still, and so shows that timestamps grow by themselves.
#[derive(Debug)]
struct FrozenClock;

#[async_trait]
impl Clock for FrozenClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(1_000)
    }
    async fn sleep(&self, _: Duration) {
        tokio::task::yield_now().await;
    }
}

#[derive(Debug, Default)]
struct CountingIds(AtomicU64);

impl IdSource for CountingIds {
    fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1)
    }
    fn fraction(&self) -> f64 {
        0.5
    }
}

fn catalog() -> Catalog {
    Catalog::new(
        Arc::new(MemoryBackend::new()),
        Arc::new(FrozenClock),
        Arc::new(CountingIds::default()),
    )
}

fn name(s: &str) -> TableName {
    s.parse().unwrap()
}

fn by_name(s: &str) -> TableRef {
    TableRef::Name(name(s))
}

fn zero(features: &str, properties: &str) -> String {
    format!(
        "{{\"protocol\":{{\"minReaderVersion\":1,\"minWriterVersion\":7,\"writerFeatures\":[{features}]}}}}\n\
         {{\"metaData\":{{\"id\":\"i\",\"format\":{{\"provider\":\"parquet\",\"options\":{{}}}},\
         \"schemaString\":\"{{\\\"type\\\":\\\"struct\\\",\\\"fields\\\":[{{\\\"name\\\":\\\"id\\\",\\\"type\\\":\\\"long\\\",\\\"nullable\\\":true,\\\"metadata\\\":{{}}}}]}}\",\
         \"partitionColumns\":[],\"configuration\":{{{properties}}}}}}}\n"
    )
}

fn change(target: ChangeTarget, ndjson: impl Into<Vec<u8>>) -> TableChange {
    TableChange {
        target,
        ndjson: ndjson.into(),
        origin: "test".into(),
        reads: Reads::default(),
        operation: None,
    }
}

fn create(table: &str) -> TableChange {
    let target = ChangeTarget::Create {
        name: name(table),
        location: format!("memory://x/{table}"),
        storage_options: BTreeMap::new(),
        mirror: MirrorMode::Active,
        fence: false,
    };
    change(target, zero("\"inCommitTimestamp\"", "\"delta.enableInCommitTimestamps\":\"true\""))
}

fn on(table: &str, read: Option<i64>, ndjson: &str) -> TableChange {
    let read_version = read.map(|v| Version::new(v).unwrap());
    change(ChangeTarget::Existing { table: by_name(table), read_version }, ndjson)
}

fn add(path: &str) -> String {
    format!(
        "{{\"add\":{{\"path\":\"{path}\",\"partitionValues\":{{}},\"size\":10,\"modificationTime\":1,\"dataChange\":true}}}}\n"
    )
}

fn remove(path: &str) -> String {
    format!("{{\"remove\":{{\"path\":\"{path}\",\"deletionTimestamp\":1,\"dataChange\":true}}}}\n")
}

fn txn(app: &str, version: i64) -> String {
    format!("{{\"txn\":{{\"appId\":\"{app}\",\"version\":{version}}}}}\n")
}

fn batch(tables: Vec<TableChange>) -> CommitBatch {
    CommitBatch { token: None, tables }
}

async fn paths(catalog: &Catalog, table: &str, at: At) -> Vec<String> {
    let snapshot = catalog.snapshot(&by_name(table), at).await.unwrap();
    let files: Vec<FileRecord> =
        catalog.files(snapshot.table.id, snapshot.version).try_collect().await.unwrap();
    assert_eq!(files.len() as u64, snapshot.num_files);
    files.into_iter().map(|f| f.add.path).collect()
}

fn kind(error: CatalogError) -> ConflictKind {
    match error {
        CatalogError::Conflict(conflict) => conflict.kind,
        other => panic!("not a conflict: {other}"),
    }
}

#[tokio::test]
async fn a_stale_blind_append_goes_on_top_and_a_stale_delete_is_checked() {
    let c = catalog();
    c.commit(batch(vec![create("t")])).await.unwrap();
    c.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap();
    let report = c.commit(batch(vec![on("t", Some(0), &add("b"))])).await.unwrap();
    assert_eq!(report.tables[0].version.get(), 2);
    assert_eq!(report.tables[0].timestamp, TimestampMs(1_002), "the clock stands still");

    // Planned on 1, removes what is there since 1: passes over the blind append of version 2.
    c.commit(batch(vec![on("t", Some(1), &remove("a"))])).await.unwrap();
    assert_eq!(paths(&c, "t", At::Head).await, ["b"]);
    assert_eq!(paths(&c, "t", At::Version(Version::new(2).unwrap())).await, ["a", "b"]);
    let error = c.commit(batch(vec![on("t", Some(1), &remove("a"))])).await.unwrap_err();
    assert_eq!(kind(error), ConflictKind::ConcurrentDeleteDelete { path: "a".into() });
    let error = c.commit(batch(vec![on("t", None, &remove("zzz"))])).await.unwrap_err();
    assert!(error.to_string().contains("'zzz', which is not in table 'default.t'"), "{error}");
}

#[tokio::test]
async fn a_metadata_change_stops_even_blind_appends_planned_before_it() {
    let c = catalog();
    c.commit(batch(vec![create("t")])).await.unwrap();
    let again: String =
        zero("\"inCommitTimestamp\"", "\"delta.enableInCommitTimestamps\":\"true\"")
            .lines()
            .filter(|l| l.contains("metaData"))
            .collect();
    c.commit(batch(vec![on("t", None, &again)])).await.unwrap();
    let error = c.commit(batch(vec![on("t", Some(0), &add("b"))])).await.unwrap_err();
    assert_eq!(kind(error), ConflictKind::MetadataChanged);
    c.commit(batch(vec![on("t", Some(1), &add("b"))])).await.unwrap();
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let c = catalog();
    c.commit(batch(vec![create("a"), create("b")])).await.unwrap();
    let bad = batch(vec![on("a", None, &add("x")), on("b", None, &remove("none"))]);
    c.commit(bad).await.unwrap_err();
    assert!(paths(&c, "a", At::Head).await.is_empty());
    let good = batch(vec![on("a", None, &add("x")), on("b", None, &add("y")), create("c")]);
    let report = c.commit(good).await.unwrap();
    assert_eq!(report.tables.iter().map(|t| t.version.get()).collect::<Vec<_>>(), [1, 1, 0]);
    let twice = batch(vec![on("a", None, &add("z")), on("a", None, &add("w"))]);
    assert!(c.commit(twice).await.unwrap_err().to_string().contains("twice"));
    assert!(matches!(
        c.commit(batch(vec![create("a")])).await.unwrap_err(),
        CatalogError::TableExists(_)
    ));
}

#[tokio::test]
async fn a_token_commits_once_even_if_its_plan_no_longer_fits() {
    let c = catalog();
    c.commit(batch(vec![create("t")])).await.unwrap();
    c.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap();
    let token = CommitToken::new("tok").unwrap();
    let mut again = batch(vec![on("t", Some(1), &remove("a"))]);
    again.token = Some(token.clone());
    let first = c.commit(again.clone()).await.unwrap();
    let second = c.commit(again).await.unwrap();
    assert!(!first.replayed && second.replayed);
    assert_eq!(first.tables, second.tables);
    assert_eq!(c.resolve(&token).await.unwrap(), Some(first.tables));
    assert_eq!(c.resolve(&CommitToken::new("other").unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn application_transactions_move_forward_only() {
    let c = catalog();
    c.commit(batch(vec![create("t")])).await.unwrap();
    c.commit(batch(vec![on("t", None, &(txn("app", 5) + &add("a")))])).await.unwrap();
    for stale in [5, 4] {
        let error = c
            .commit(batch(vec![on("t", None, &(txn("app", stale) + &add("b")))]))
            .await
            .unwrap_err();
        assert_eq!(
            kind(error),
            ConflictKind::TransactionApplied { app_id: "app".into(), wanted: stale, recorded: 5 }
        );
    }
    let error =
        c.commit(batch(vec![on("t", Some(0), &(txn("app", 6) + &add("b")))])).await.unwrap_err();
    assert_eq!(kind(error), ConflictKind::ConcurrentTransaction { app_id: "app".into() });
    c.commit(batch(vec![on("t", Some(1), &(txn("app", 6) + &add("b")))])).await.unwrap();
    c.commit(batch(vec![on("t", Some(1), &(txn("other", 1) + &add("c")))])).await.unwrap();
}

#[tokio::test]
async fn published_bytes_carry_the_in_commit_timestamp_first() {
    let c = catalog();
    let id = c.commit(batch(vec![create("t")])).await.unwrap().tables[0].table_id;
    c.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap();
    let one = Version::new(1).unwrap();
    let bodies = c.backend().read_bodies(id, one, one, 1).await.unwrap();
    let text = String::from_utf8(bodies[0].1.published().unwrap().to_vec()).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["commitInfo"]["inCommitTimestamp"], 1_001);
    assert_eq!(text.lines().nth(1).unwrap().to_owned() + "\n", add("a"));
}

#[tokio::test]
async fn drop_and_undrop_by_name_find_the_latest() {
    let c = catalog();
    for path in ["first", "second"] {
        c.commit(batch(vec![create("t")])).await.unwrap();
        c.commit(batch(vec![on("t", None, &add(path))])).await.unwrap();
        c.drop_table(&by_name("t")).await.unwrap();
    }
    assert!(matches!(c.table(&by_name("t")).await, Err(CatalogError::TableNotFound(_))));
    c.undrop_table(&by_name("t"), None).await.unwrap();
    c.undrop_table(&by_name("t"), Some(name("u"))).await.unwrap();
    let mut all = [paths(&c, "t", At::Head).await, paths(&c, "u", At::Head).await];
    all.sort();
    assert_eq!(all, [["first"], ["second"]]);
    assert!(matches!(
        c.undrop_table(&by_name("t"), None).await,
        Err(CatalogError::TableNotFound(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_deleters_and_appenders_end_without_loss() {
    let c = catalog();
    c.commit(batch(vec![create("t")])).await.unwrap();
    let seed: String = (0..8).map(|i| add(&format!("s{i}"))).collect();
    c.commit(batch(vec![on("t", None, &seed)])).await.unwrap();
    let mut tasks = Vec::new();
    for i in 0..8 {
        let c = c.clone();
        tasks.push(tokio::spawn(async move {
            c.commit(batch(vec![on("t", Some(1), &remove(&format!("s{i}")))])).await.unwrap();
            c.commit(batch(vec![on("t", Some(1), &add(&format!("n{i}")))])).await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let snapshot = c.snapshot(&by_name("t"), At::Head).await.unwrap();
    assert_eq!((snapshot.version.get(), snapshot.num_files), (17, 8));
}

#[tokio::test]
async fn a_table_that_is_being_imported_says_so() {
    let c = catalog();
    let table = NewTable {
        id: TableId(Uuid::from_u128(9)),
        name: name("t"),
        location: "memory://x/t".into(),
        storage_options: BTreeMap::new(),
        mirror: MirrorMode::Active,
    };
    c.backend().import_begin(&table, Version::ZERO, true, TimestampMs(1)).await.unwrap();
    for error in [
        c.snapshot(&by_name("t"), At::Head).await.unwrap_err(),
        c.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("is being imported"), "{error}");
    }
}

/// A reader that knows nothing is asked by users only: commits never see it.
#[tokio::test]
async fn commits_and_drops_never_touch_the_reader() {
    let empty = Arc::new(MemoryBackend::new());
    let this = catalog().with_reader(Arc::clone(&empty) as Arc<dyn CatalogBackend>);
    let commit = |change| CommitBatch { token: None, tables: vec![change] };
    this.commit(commit(create("t"))).await.unwrap();
    let target = ChangeTarget::Existing { table: by_name("t"), read_version: None };
    let lines = r#"{"txn":{"appId":"a","version":1}}"#;
    this.commit(commit(change(target, lines))).await.unwrap();

    let missing = this.snapshot(&by_name("t"), At::Head).await;
    assert!(matches!(missing, Err(CatalogError::TableNotFound(_))), "{missing:?}");
    assert!(matches!(this.table(&by_name("t")).await, Err(CatalogError::TableNotFound(_))));
    let listed: Vec<_> = this.tables(TableFilter::default()).try_collect().await.unwrap();
    assert!(listed.is_empty());

    this.drop_table(&by_name("t")).await.unwrap();
    let back = this.undrop_table(&by_name("t"), None).await.unwrap();
    assert_eq!(back.head, Some(Version::new(1).unwrap()));
}

/// A catalog with a table `t` that has a file `a` at version 1, on a backend with faults after that.
async fn faulty(script: impl Fn(Call<Verb>) -> Fault + Send + Sync + 'static) -> Catalog {
    let memory = Arc::new(MemoryBackend::new());
    let ids: Arc<dyn IdSource> = Arc::new(CountingIds::default());
    let c = Catalog::new(memory.clone(), Arc::new(FrozenClock), ids.clone());
    c.commit(batch(vec![create("t")])).await.unwrap();
    c.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap();
    let backend = FaultyBackend::new(memory, script);
    Catalog::new(Arc::new(backend), Arc::new(FrozenClock), ids)
}

#[tokio::test]
async fn a_commit_in_doubt_stays_so_when_the_database_goes_away() {
    // The answer is lost, and then nothing can be asked for as long as the core tries.
    let tries = 2 * u64::from(crate::retry::MAX_ATTEMPTS);
    let c = faulty(move |call| match (call.verb, call.nth) {
        (Verb::Commit, 0) => Fault::LoseAnswer,
        (Verb::Snapshot, 0) => Fault::None,
        (Verb::ResolveToken, nth) if nth >= tries => Fault::None,
        _ => Fault::Busy,
    })
    .await;
    let error = c.commit(batch(vec![on("t", None, &add("b"))])).await.unwrap_err();
    let CatalogError::CommitUnknown { token, .. } = error else { panic!("{error}") };
    let found = c.resolve(&token).await.unwrap();
    assert_eq!(found.unwrap()[0].version.get(), 2);
}

/// Goes on when it is told to, or slept on.
#[derive(Debug, Default)]
struct PassingClock(AtomicU64);

impl PassingClock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

#[async_trait]
impl Clock for PassingClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(i64::try_from(self.0.load(Ordering::Relaxed)).unwrap())
    }
    async fn sleep(&self, time: Duration) {
        self.pass(time);
    }
}

#[tokio::test]
async fn a_commit_that_times_out_is_repeated_until_its_deadline_only() {
    let memory = Arc::new(MemoryBackend::new());
    let ids: Arc<dyn IdSource> = Arc::new(CountingIds::default());
    let clock = Arc::new(PassingClock::default());
    let c = Catalog::new(memory.clone(), clock.clone(), ids.clone());
    c.commit(batch(vec![create("t")])).await.unwrap();
    // Each attempt runs into the statement's own limit of a minute.
    let passing = Arc::clone(&clock);
    let backend = Arc::new(FaultyBackend::new(memory, move |call: Call<Verb>| {
        if call.verb != Verb::Commit {
            return Fault::None;
        }
        passing.pass(Duration::from_secs(60));
        Fault::Busy
    }));
    let c = Catalog::new(backend.clone(), clock.clone(), ids);
    for (timeout, attempts) in [(None, 1), (Some(0), 1), (Some(150), 3), (Some(100_000), 60)] {
        let c = match timeout {
            None => c.clone(),
            Some(seconds) => c.clone().with_retry_timeout(Duration::from_secs(seconds)),
        };
        let (begun, sent) = (clock.monotonic(), backend.calls(Verb::Commit));
        let error = c.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap_err();
        assert_eq!(backend.calls(Verb::Commit) - sent, attempts, "{timeout:?}: {error}");
        let took = clock.monotonic().saturating_sub(begun);
        assert!(took <= c.retry_timeout() + Duration::from_secs(60), "{took:?}: {error}");
        assert_eq!(error.write_state(), WriteState::NotApplied);
        let times = if attempts == 1 { "once".to_owned() } else { format!("{attempts} times") };
        assert!(error.to_string().contains(&format!("tried {times} in ")), "{error}");
    }
}

#[tokio::test]
async fn a_commit_in_doubt_does_not_conflict_with_itself() {
    // The answer is lost, and the token not visible at once: the next attempt meets its own commit.
    let c = faulty(|call| match (call.verb, call.nth) {
        (Verb::Commit, 0) => Fault::LoseAnswer,
        (Verb::ResolveToken, 0) => Fault::Fail,
        _ => Fault::None,
    })
    .await;
    // Who publishes, and who reads, is told of it all the same.
    let told = Arc::new(Told::default());
    let c = c.with_commit_hook(Arc::clone(&told) as _);
    let report = c.commit(batch(vec![on("t", None, &remove("a"))])).await.unwrap();
    assert_eq!(report.tables[0].version.get(), 2);
    assert!(!report.replayed);
    assert_eq!(*told.0.lock().unwrap(), [report.tables[0].table_id]);
}

/// Of the second append on nobody reads the head; whatever changed meanwhile is seen all the same.
#[tokio::test]
async fn appends_are_planned_on_a_head_that_is_remembered() {
    let memory = Arc::new(MemoryBackend::new());
    let lost = Arc::new(AtomicU64::new(0));
    let losing = Arc::clone(&lost);
    let backend = Arc::new(FaultyBackend::new(memory.clone(), move |call: Call<Verb>| {
        match (call.verb, losing.load(Ordering::Relaxed)) {
            (Verb::Commit, 1) => {
                losing.store(0, Ordering::Relaxed);
                Fault::Busy
            }
            _ => Fault::None,
        }
    }));
    let ids: Arc<dyn IdSource> = Arc::new(CountingIds::default());
    let here = Catalog::new(backend.clone(), Arc::new(FrozenClock), ids.clone());
    let there = Catalog::new(memory, Arc::new(FrozenClock), ids);
    let id = there.commit(batch(vec![create("t")])).await.unwrap().tables[0].table_id;
    let by_id = |name: &str| {
        let target = ChangeTarget::Existing { table: TableRef::Id(id), read_version: None };
        batch(vec![change(target, add(name))])
    };
    let version = |report: CommitReport| report.tables[0].version.get();
    for (n, name) in (1_i64..).zip(["a", "b", "c"]) {
        assert_eq!(version(here.commit(by_id(name)).await.unwrap()), n);
    }
    assert_eq!(backend.calls(Verb::Snapshot), 1, "the first one");
    // A busy database: the next attempt looks again.
    lost.store(1, Ordering::Relaxed);
    assert_eq!(version(here.commit(by_id("d")).await.unwrap()), 4);
    assert_eq!(backend.calls(Verb::Snapshot), 2);

    // Others make it a table with a partition: what was fine is not any more.
    let zero = zero("\"inCommitTimestamp\"", "\"delta.enableInCommitTimestamps\":\"true\"");
    let metadata = zero
        .lines()
        .nth(1)
        .unwrap()
        .replace("\"partitionColumns\":[]", "\"partitionColumns\":[\"id\"]");
    let target = ChangeTarget::Existing { table: TableRef::Id(id), read_version: None };
    there.commit(batch(vec![change(target, metadata)])).await.unwrap();
    let error = here.commit(by_id("e")).await.unwrap_err();
    assert!(error.to_string().contains("no value for partition column 'id'"), "{error}");
    let dropped = there.drop_table(&TableRef::Id(id)).await.unwrap();
    assert_eq!(dropped.head.unwrap().get(), 5);
    for _ in 0..2 {
        let error = here.commit(by_id("f")).await.unwrap_err();
        assert!(matches!(error, CatalogError::TableNotFound(_)), "{error}");
    }
}

/// Tables of the commits that a hook was told of.
#[derive(Debug, Default)]
struct Told(std::sync::Mutex<Vec<TableId>>);

impl CommitHook for Told {
    fn committed(&self, commit: &CommitEvent<'_>) {
        self.0.lock().unwrap().extend(commit.tables().iter().map(|table| table.table_id));
    }
}

/// Each commit is over both tables, so at every instant they have the same version.
#[tokio::test]
async fn tables_are_read_as_of_one_instant() {
    let memory = Arc::new(MemoryBackend::new());
    let ids: Arc<dyn IdSource> = Arc::new(CountingIds::default());
    let writer = Catalog::new(memory.clone(), Arc::new(FrozenClock), ids.clone());
    writer.commit(batch(vec![create("a"), create("b")])).await.unwrap();
    let other = writer.clone();
    // Before some of the reads of heads, and between the two of a round.
    let backend = FaultyBackend::new(memory, move |call| match (call.verb, call.nth) {
        (Verb::Snapshot, 1) | (Verb::GetTable, 1 | 2 | 5) => {
            let (other, nth) = (other.clone(), format!("{:?}{}", call.verb, call.nth));
            Fault::Before(Box::pin(async move {
                let both = vec![on("a", None, &add(&nth)), on("b", None, &add(&nth))];
                other.commit(batch(both)).await.unwrap();
            }))
        }
        _ => Fault::None,
    });
    let c = Catalog::new(Arc::new(backend), Arc::new(FrozenClock), ids);
    let at_once = c.snapshots_at_once(&[by_name("b"), by_name("a")]).await.unwrap();
    let seen: Vec<_> =
        at_once.iter().map(|s| (s.table.name.to_string(), s.version.get())).collect();
    assert_eq!(seen, [("default.b".to_owned(), 4), ("default.a".to_owned(), 4)]);
    let error = c.snapshots_at_once(&[by_name("a"), by_name("none")]).await.unwrap_err();
    assert!(matches!(error, CatalogError::TableNotFound(_)), "{error}");
}

/// For writers that check and rebase by themselves.
#[tokio::test]
async fn a_commit_that_names_its_version_is_never_moved() {
    let c = catalog();
    c.commit(batch(vec![create("t")])).await.unwrap();
    let next = |version: i64, file: &str| {
        let version = Version::new(version).unwrap();
        batch(vec![change(ChangeTarget::Next { table: by_name("t"), version }, add(file))])
    };
    let report = c.commit(next(1, "a")).await.unwrap();
    assert_eq!(report.tables[0].version.get(), 1);
    for taken in [0, 1] {
        let error = c.commit(next(taken, "b")).await.unwrap_err();
        let CatalogError::Conflict(conflict) = error else { panic!("{error}") };
        assert_eq!(conflict.kind, ConflictKind::VersionTaken);
    }
    let error = c.commit(next(3, "b")).await.unwrap_err();
    assert!(matches!(error, CatalogError::VersionNotFound { .. }), "{error}");
    assert_eq!(c.commit(next(2, "b")).await.unwrap().tables[0].version.get(), 2);
    // A lost answer is found again, and no conflict with itself.
    let c = faulty(|call| match (call.verb, call.nth) {
        (Verb::Commit, 0) => Fault::LoseAnswer,
        (Verb::ResolveToken, 0) => Fault::Fail,
        _ => Fault::None,
    })
    .await;
    let report = c.commit(next(2, "b")).await.unwrap();
    assert_eq!((report.tables[0].version.get(), report.replayed), (2, false));
}

#[tokio::test]
async fn a_busy_database_after_many_lost_races_is_no_error() {
    // Each attempt but the last finds that another writer was faster; then one deadlock.
    let memory = Arc::new(MemoryBackend::new());
    let ids: Arc<dyn IdSource> = Arc::new(CountingIds::default());
    let other = Catalog::new(memory.clone(), Arc::new(FrozenClock), ids.clone());
    other.commit(batch(vec![create("t")])).await.unwrap();
    other.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap();
    let fast = other.clone();
    let backend = FaultyBackend::new(memory, move |call| match (call.verb, call.nth) {
        (Verb::Commit, nth @ 0..12) => {
            let fast = fast.clone();
            Fault::Before(Box::pin(async move {
                fast.commit(batch(vec![on("t", None, &add(&format!("f{nth}")))])).await.unwrap();
            }))
        }
        (Verb::Commit, 12..15) => Fault::Busy,
        _ => Fault::None,
    });
    let c = Catalog::new(Arc::new(backend), Arc::new(FrozenClock), ids);
    let report = c.commit(batch(vec![on("t", Some(1), &remove("a"))])).await.unwrap();
    assert_eq!((report.tables[0].version.get(), report.attempts), (14, 16));
}

#[tokio::test]
async fn a_large_winner_is_checked_as_a_small_one() {
    let ours = index_ndjson("ours", remove("a").as_bytes()).unwrap();
    let matching = |part: &'static str| Reads {
        matching: Some(Arc::new(move |add: &deltalakedb_catalog_core::action::Add| {
            add.path.contains(part)
        })),
        ..Reads::default()
    };
    let reads = [Reads::default(), Reads::whole_table(), matching("b"), matching("nothing")];
    let info = |blind: bool| format!(r#"{{"commitInfo":{{"isBlindAppend":{blind}}}}}"#);
    let metadata = zero("", "").lines().nth(1).unwrap().to_owned();
    let mut found = std::collections::BTreeSet::new();
    for lines in [
        vec![add("b"), add("c")],
        vec![remove("a"), add("c")],
        vec![remove("b")],
        vec![add("c"), metadata],
        vec![txn("app", 1)],
    ] {
        for (blind, reads) in
            [true, false].into_iter().flat_map(|b| reads.iter().map(move |r| (b, r)))
        {
            for isolation in
                [Isolation::Serializable, Isolation::WriteSerializable, Isolation::Snapshot]
            {
                let rest = lines.join("\n") + "\n";
                let body = CommitBody {
                    first_line: Some(info(blind)),
                    rest: deltalakedb_catalog_core::commit::Packed::pack(rest.as_bytes()).unwrap(),
                };
                let text = body.published().unwrap();
                let winner = index_ndjson("winner", &text).unwrap();
                let small = conflict::check(&ours, reads, isolation, &winner);
                let large = check_large(&ours, reads, isolation, "winner", &body).await.unwrap();
                assert_eq!(small, large, "{rest} {reads:?} {isolation:?}");
                found.insert(small.map(|kind| format!("{kind:?}")));
            }
        }
    }
    assert_eq!(found.len(), 6, "{found:?}");
}

/// Until all of them have been asked, none gets an answer.
#[tokio::test]
async fn heads_of_a_batch_are_read_together() {
    let memory = Arc::new(MemoryBackend::new());
    let ids: Arc<dyn IdSource> = Arc::new(CountingIds::default());
    let plain = Catalog::new(memory.clone(), Arc::new(FrozenClock), ids.clone());
    let names = ["a", "b", "c", "d"];
    plain.commit(batch(names.map(create).to_vec())).await.unwrap();
    let met = Arc::new(tokio::sync::Barrier::new(names.len()));
    let backend = FaultyBackend::new(memory, move |call| match call.verb {
        Verb::Snapshot | Verb::GetTable => {
            let met = Arc::clone(&met);
            Fault::Before(Box::pin(async move {
                met.wait().await;
            }))
        }
        _ => Fault::None,
    });
    let c = Catalog::new(Arc::new(backend), Arc::new(FrozenClock), ids);
    let limit = Duration::from_secs(20);
    let changes = names.map(|name| on(name, None, &add("x"))).to_vec();
    let report = tokio::time::timeout(limit, c.commit(batch(changes))).await;
    let report = report.expect("heads are read one by one").unwrap();
    assert_eq!(report.tables.len(), 4);
    let tables = names.map(by_name);
    let seen = tokio::time::timeout(limit, c.snapshots_at_once(&tables)).await;
    let seen = seen.expect("heads are read one by one").unwrap();
    assert!(seen.iter().all(|snapshot| snapshot.version.get() == 1));
    assert_eq!(seen.iter().map(|s| s.table.name.name()).collect::<Vec<_>>(), names);
}

/// What is wrong with the first table is told, whichever answer came first.
#[tokio::test]
async fn of_several_tables_the_first_error_is_told() {
    let c = catalog();
    c.commit(batch(vec![create("a")])).await.unwrap();
    let wrong =
        batch(vec![on("a", None, &add("x")), on("n1", None, &add("x")), on("n2", None, "")]);
    let error = c.commit(wrong).await.unwrap_err();
    assert!(error.to_string().contains("n1"), "{error}");
}

/// Says what a test says.
#[derive(Debug)]
struct SetClock(AtomicI64);

#[async_trait]
impl Clock for SetClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(self.0.load(Ordering::Relaxed))
    }
    async fn sleep(&self, _: Duration) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_clock_that_is_a_year_ahead_pins_no_table() {
    const NOW: i64 = 1_700_000_000_000;
    const YEAR: i64 = 365 * 86_400_000;
    let memory = Arc::new(MemoryBackend::new());
    memory.set_clock(Some(TimestampMs(NOW)));
    let clock = Arc::new(SetClock(AtomicI64::new(NOW)));
    let ids: Arc<dyn IdSource> = Arc::new(CountingIds::default());
    let backend = Arc::new(FaultyBackend::new(Arc::clone(&memory), |_| Fault::None));
    let c = Catalog::new(backend.clone(), clock.clone(), ids);
    c.commit(batch(vec![create("t")])).await.unwrap();
    c.commit(batch(vec![on("t", None, &add("a"))])).await.unwrap();
    assert_eq!(backend.calls(Verb::Info), 1, "not before each commit");

    clock.0.store(NOW + YEAR, Ordering::Relaxed);
    let error = c.commit(batch(vec![on("t", None, &add("b"))])).await.unwrap_err();
    let text = error.to_string();
    for word in ["2024-11-13 22:13:20", "2023-11-14 22:13:20", "365.0 days", "max_clock_skew"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!error.is_retryable() && error.write_state() == WriteState::NotApplied);
    let head = c.snapshot(&by_name("t"), At::Head).await.unwrap();
    assert_eq!((head.version.get(), head.timestamp), (1, TimestampMs(NOW + 1)));

    // Who sets the clock right goes on; so does who allows it.
    clock.0.store(NOW + 5, Ordering::Relaxed);
    c.commit(batch(vec![on("t", None, &add("b"))])).await.unwrap();
    clock.0.store(NOW + YEAR, Ordering::Relaxed);
    let c = c.with_max_clock_skew(Duration::from_secs(2 * 365 * 86_400));
    let report = c.commit(batch(vec![on("t", None, &add("c"))])).await.unwrap();
    assert_eq!(report.tables[0].timestamp, TimestampMs(NOW + YEAR));

    // A head of the future, as of an import, is no reason to refuse.
    clock.0.store(NOW + 10, Ordering::Relaxed);
    let c = c.with_max_clock_skew(Duration::from_secs(3_600));
    let head = c.snapshot(&by_name("t"), At::Head).await.unwrap();
    let warning = c.skew.warning(&head, TimestampMs(NOW + 10)).unwrap();
    assert!(warning.contains("default.t") && warning.contains("2024-11-13"), "{warning}");
    assert_eq!(c.skew.warning(&head, TimestampMs(NOW + 10)), None, "once");
    let report = c.commit(batch(vec![on("t", None, &add("d"))])).await.unwrap();
    assert_eq!(report.tables[0].timestamp, TimestampMs(NOW + YEAR + 1));
}

/// The clocks are compared by who can: a database that does not answer keeps nobody from trying.
#[tokio::test]
async fn a_database_that_does_not_say_its_time_is_committed_to() {
    let c = faulty(|call| if call.verb == Verb::Info { Fault::Fail } else { Fault::None }).await;
    let report = c.commit(batch(vec![on("t", None, &add("b"))])).await.unwrap();
    assert_eq!(report.tables[0].version.get(), 2);
}
