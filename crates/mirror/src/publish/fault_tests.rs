//! Every step of publishing, and what happens if it fails, and if its recovery fails, too.
//!
//! A step is a call to the catalog or to the store: there is no other place where a fault can be
//! noticed, and a crash between two calls is a crash before the second one. The steps are counted,
//! so none can be forgotten: pairs of a step of the first run and a step of the run that recovers
//! are tried one by one, each with every kind of fault. [`Step::of_verb`] and [`Step::of_call`] name
//! the steps with exhaustive matches, and [`Step::ALL`] must be what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::ids::{TimestampMs, Version};
use deltalakedb_catalog_core::sink::{PutOutcome, Replaced, SinkEntry};
use deltalakedb_catalog_engine::fault::{
    Fault, FaultyBackend, FaultySink, SinkFault, SinkVerb, Verb,
};
use deltalakedb_catalog_engine::memory::MemoryBackend;
use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;
use crate::log::checkpoint::sidecar_names;
use crate::log::listing::{LogName, SIDECARS};
use crate::sink::ObjectSink;
use crate::testing::{Lake, add, remove, zero};

/// A place where publishing can be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Claim,
    ReadCommits,
    ReadState,
    PutCommit,
    CompareCommit,
    SetTime,
    PutChecksum,
    CompareChecksum,
    PutCheckpoint,
    CompareCheckpoint,
    PutSidecar,
    CompareSidecar,
    ReadHint,
    PutHint,
    RepairTorn,
    Record,
    RecordFailure,
    FindExpired,
    ListLog,
    ReadManifest,
    DeleteExpired,
    Release,
    Count,
}

impl Step {
    const ALL: [Step; 23] = [
        Step::Claim,
        Step::ReadCommits,
        Step::ReadState,
        Step::PutCommit,
        Step::CompareCommit,
        Step::SetTime,
        Step::PutChecksum,
        Step::CompareChecksum,
        Step::PutCheckpoint,
        Step::CompareCheckpoint,
        Step::PutSidecar,
        Step::CompareSidecar,
        Step::ReadHint,
        Step::PutHint,
        Step::RepairTorn,
        Step::Record,
        Step::RecordFailure,
        Step::FindExpired,
        Step::ListLog,
        Step::ReadManifest,
        Step::DeleteExpired,
        Step::Release,
        Step::Count,
    ];

    fn of_verb(verb: Verb) -> Option<Step> {
        match verb {
            Verb::MirrorClaim => Some(Step::Claim),
            Verb::ReadBodies => Some(Step::ReadCommits),
            Verb::Snapshot
            | Verb::ListFiles
            | Verb::ListTombstones
            | Verb::AppState
            | Verb::FilesEnd
            | Verb::AppTransactions
            | Verb::DomainMetadata => Some(Step::ReadState),
            Verb::MirrorComplete => Some(Step::Record),
            Verb::MirrorFail => Some(Step::RecordFailure),
            Verb::ListCommits => Some(Step::FindExpired),
            Verb::MirrorRelease => Some(Step::Release),
            Verb::MirrorRows | Verb::GetTable => Some(Step::Count),
            // Renewals come by the clock, not in the order of the work.
            Verb::MirrorRenew => None,
            Verb::Info
            | Verb::FilesAt
            | Verb::SkipIndex
            | Verb::SkipPages
            | Verb::SkipReplace
            | Verb::Migrate
            | Verb::ListTables
            | Verb::DropTable
            | Verb::UndropTable
            | Verb::Commit
            | Verb::ResolveToken
            | Verb::ExpireTokens
            | Verb::ImportBegin
            | Verb::ImportBase
            | Verb::ImportCommits
            | Verb::ImportFinish
            | Verb::ImportAbort
            | Verb::MirrorRetry
            | Verb::MirrorSetMode
            | Verb::MirrorExpire
            | Verb::Close
            | Verb::AuditRecord
            | Verb::AuditList
            | Verb::RegistryGet
            | Verb::RegistryList
            | Verb::RegistryWrite
            | Verb::RegistryAll
            | Verb::RegistryLoad
            | Verb::RegistryRevision => panic!("publishing does not call {verb:?}"),
        }
    }

    fn of_call(verb: SinkVerb, name: &str) -> Step {
        use LogName as L;
        match (verb, LogName::parse(name)) {
            (SinkVerb::PutIfAbsent, L::Commit(_)) => Step::PutCommit,
            (SinkVerb::PutIfAbsent, L::Checksum(_)) => Step::PutChecksum,
            (SinkVerb::PutIfAbsent, L::Checkpoint(_) | L::UuidCheckpoint { .. }) => {
                Step::PutCheckpoint
            }
            (SinkVerb::PutIfAbsent, L::Sidecar(_)) => Step::PutSidecar,
            (SinkVerb::Get, L::Commit(_)) => Step::CompareCommit,
            (SinkVerb::Get, L::Checksum(_)) => Step::CompareChecksum,
            (SinkVerb::Get, L::Checkpoint(_)) => Step::CompareCheckpoint,
            (SinkVerb::Get, L::Sidecar(_)) => Step::CompareSidecar,
            // Compared after a put, and read before what expired is deleted.
            (SinkVerb::Get, L::UuidCheckpoint { .. }) => Step::ReadManifest,
            (SinkVerb::Get, L::LastCheckpoint) => Step::ReadHint,
            (SinkVerb::PutReplace, L::LastCheckpoint) => Step::PutHint,
            (
                SinkVerb::Replace,
                L::Commit(_)
                | L::Checksum(_)
                | L::Checkpoint(_)
                | L::UuidCheckpoint { .. }
                | L::Sidecar(_),
            ) => Step::RepairTorn,
            (SinkVerb::SetModified, L::Commit(_)) => Step::SetTime,
            (SinkVerb::List, _) => Step::ListLog,
            (
                SinkVerb::Delete,
                L::Commit(_) | L::Checksum(_) | L::UuidCheckpoint { .. } | L::Sidecar(_),
            ) => Step::DeleteExpired,
            (verb, _) => panic!("publishing does not call {verb:?} for '{name}'"),
        }
    }
}

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An error, and nothing was done.
    Fails,
    /// A timeout: nothing was done, and nobody knows.
    TimesOut,
    /// Done, and reported as failed.
    LosesAnswer,
    /// A put leaves a beginning of the object behind, and reports that it does not know. Elsewhere
    /// as `LosesAnswer`.
    Tears,
    /// The process dies before the step.
    Dies,
    /// The process dies right after it.
    DiesAfter,
}

const KINDS: [Kind; 6] =
    [Kind::Fails, Kind::TimesOut, Kind::LosesAnswer, Kind::Tears, Kind::Dies, Kind::DiesAfter];

/// A store that looks at the log after each change: no reader may ever see a gap.
#[derive(Debug)]
struct WatchedSink {
    inner: ObjectSink,
}

impl WatchedSink {
    async fn look(&self) {
        let names: Vec<String> =
            self.inner.list(None).await.unwrap().into_iter().map(|e| e.name).collect();
        let of = |pick: fn(LogName) -> Option<Version>| -> BTreeSet<Version> {
            names.iter().filter_map(|name| pick(LogName::parse(name))).collect()
        };
        let commits = of(|n| if let LogName::Commit(v) = n { Some(v) } else { None });
        let checksums = of(|n| if let LogName::Checksum(v) = n { Some(v) } else { None });
        let checkpoints = of(|n| match n {
            LogName::Checkpoint(v) | LogName::UuidCheckpoint { version: v, .. } => Some(v),
            _ => None,
        });
        for name in &names {
            if matches!(LogName::parse(name), LogName::UuidCheckpoint { .. })
                && let Ok(sidecars) =
                    sidecar_names(name, self.inner.get(name).await.unwrap().unwrap())
            {
                assert!(sidecars.iter().all(|sidecar| names.contains(sidecar)), "{names:?}");
            }
        }
        // From the first commit that has not expired on; that is one which can be read.
        let first = commits.first().map_or(0, |version| version.get());
        let gapless = commits.iter().zip(first..).all(|(version, i)| version.get() == i);
        let readable = first == 0 || checkpoints.iter().any(|version| version.get() >= first);
        assert!(gapless && readable, "{names:?}");
        assert!(checksums.is_subset(&commits) && checkpoints.is_subset(&commits), "{names:?}");
        if let Some(hint) = self.inner.get("_last_checkpoint").await.unwrap()
            && let Ok(hint) = serde_json::from_slice::<serde_json::Value>(&hint)
        {
            let version = Version::new(hint["version"].as_i64().unwrap()).unwrap();
            assert!(checkpoints.contains(&version), "{names:?}");
        }
    }
}

#[async_trait]
impl MirrorSink for WatchedSink {
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<PutOutcome> {
        let done = self.inner.put_if_absent(name, bytes).await;
        self.look().await;
        done
    }
    async fn replace(&self, name: &str, expected: &[u8], bytes: Bytes) -> Result<Replaced> {
        self.inner.replace(name, expected, bytes).await
    }
    async fn put_replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        let done = self.inner.put_replace(name, bytes).await;
        self.look().await;
        done
    }
    async fn delete(&self, name: &str) -> Result<()> {
        let done = self.inner.delete(name).await;
        self.look().await;
        done
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

/// Three versions of a table, with every artifact, and its log in memory.
struct World {
    lake: Lake,
    memory: Arc<MemoryBackend>,
    id: TableId,
    store: Arc<InMemory>,
    seen: Arc<Mutex<BTreeSet<Step>>>,
    /// Steps that workers came to, in their order.
    passed: Arc<Mutex<Vec<Step>>>,
}

/// How a worker ended.
#[derive(Debug)]
enum Ended {
    Returned,
    /// It stands at the step: dead if it is dropped, slow if it goes on.
    Stopped,
}

/// A worker that is hit at some of its steps.
struct Worker {
    publisher: Publisher,
    steps: Arc<AtomicUsize>,
    stopped: Arc<Notify>,
    gate: Arc<Notify>,
}

impl World {
    /// With `expires`, nothing but what the head needs is retained in the log, and there is a
    /// checkpoint with sidecars at each version.
    async fn new(expires: bool) -> World {
        let memory = Arc::new(MemoryBackend::new());
        let lake = Lake::on(Arc::clone(&memory) as _);
        let (features, properties) = if expires {
            (
                "\"domainMetadata\",\"v2Checkpoint\"",
                "\"delta.checkpointInterval\":\"1\",\"delta.checkpointPolicy\":\"v2\",\
                 \"delta.logRetentionDuration\":\"interval 0 seconds\"",
            )
        } else {
            ("\"domainMetadata\"", "\"delta.checkpointInterval\":\"2\"")
        };
        let id = lake.create("t", &zero(features, properties)).await;
        let txn = "{\"txn\":{\"appId\":\"a\",\"version\":1}}";
        let domain = "{\"domainMetadata\":{\"domain\":\"d\",\"configuration\":\"\",\
                      \"removed\":false}}\n";
        lake.commit(id, &(add("1") + txn)).await;
        lake.commit(id, &(domain.to_owned() + &add("2") + &remove("1", 1_700_000_000_000))).await;
        lake.clock.advance(1);
        World {
            lake,
            memory,
            id,
            store: Arc::default(),
            seen: Arc::default(),
            passed: Arc::default(),
        }
    }

    /// Another one that is as this one is now. Changes of one are not seen in the other.
    fn fork(&self) -> World {
        let memory = Arc::new(self.memory.fork());
        World {
            lake: self.lake.fork(Arc::clone(&memory) as _),
            memory,
            id: self.id,
            store: Arc::new(self.store.fork()),
            seen: Arc::default(),
            passed: Arc::default(),
        }
    }

    /// Runs a worker that is hit at these steps, then waits for longer than its lease. Returns whether the
    /// last hit came to pass.
    async fn run(&self, hits: &[(usize, Kind)]) -> bool {
        let worker = self.worker(hits);
        worker.run().await;
        let steps = worker.steps.load(Ordering::Relaxed);
        self.later();
        hits.last().is_some_and(|(at, _)| *at < steps)
    }

    fn sink(&self) -> WatchedSink {
        let store = Arc::clone(&self.store) as _;
        WatchedSink { inner: ObjectSink::new(store, Path::from("t"), "memory://t") }
    }

    fn worker(&self, hits: &[(usize, Kind)]) -> Worker {
        let steps = Arc::new(AtomicUsize::new(0));
        let (stopped, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let hit = {
            let (steps, hits) = (Arc::clone(&steps), hits.to_vec());
            let passed = Arc::clone(&self.passed);
            move |name: Step| {
                passed.lock().unwrap().push(name);
                let step = steps.fetch_add(1, Ordering::Relaxed);
                hits.iter().find(|(at, _)| *at == step).map(|(_, kind)| *kind)
            }
        };
        let stop = {
            let (stopped, gate) = (Arc::clone(&stopped), Arc::clone(&gate));
            move || -> futures::future::BoxFuture<'static, ()> {
                let (stopped, gate) = (Arc::clone(&stopped), Arc::clone(&gate));
                Box::pin(async move {
                    stopped.notify_one();
                    gate.notified().await;
                })
            }
        };
        let fault = move |kind| match kind {
            Kind::Fails => Fault::Fail,
            Kind::TimesOut => Fault::LoseRequest,
            Kind::LosesAnswer | Kind::Tears => Fault::LoseAnswer,
            Kind::Dies => Fault::Before(stop()),
            Kind::DiesAfter => Fault::After(stop()),
        };
        let backend = {
            let (hit, fault, seen) = (hit.clone(), fault.clone(), Arc::clone(&self.seen));
            FaultyBackend::new(Arc::clone(self.lake.catalog.backend()), move |call| {
                let Some(step) = Step::of_verb(call.verb) else { return Fault::None };
                let Some(kind) = hit(step) else { return Fault::None };
                seen.lock().unwrap().insert(step);
                fault(kind)
            })
        };
        let (store, seen) = (Arc::clone(&self.store), Arc::clone(&self.seen));
        let config = PublisherConfig { complete_batch: 2, ..Default::default() };
        let publisher = self.lake.publisher_on(Arc::new(backend), config).with_sinks(move |_| {
            let store = Arc::clone(&store) as _;
            let inner = ObjectSink::new(store, Path::from("t"), "memory://t");
            let (hit, fault, seen) = (hit.clone(), fault.clone(), Arc::clone(&seen));
            Ok(Arc::new(FaultySink::new(WatchedSink { inner }, move |call, name: &str| {
                let step = Step::of_call(call.verb, name);
                let Some(kind) = hit(step) else { return SinkFault::None };
                seen.lock().unwrap().insert(step);
                let puts = [SinkVerb::PutIfAbsent, SinkVerb::PutReplace, SinkVerb::Replace];
                if kind == Kind::Tears && puts.contains(&call.verb) {
                    return SinkFault::Truncate(25);
                }
                SinkFault::Common(fault(kind))
            })))
        });
        Worker { publisher, steps, stopped, gate }
    }

    /// Lets leases lapse and pauses end.
    fn later(&self) {
        self.lake.clock.advance(1_000_000);
    }

    /// Runs until everything is published, which may take an attempt or two after a torn write.
    async fn recover(&self, what: &str) {
        for _ in 0..8 {
            self.later();
            let report = self.worker(&[]).publisher.run_once(None).await.unwrap();
            assert_eq!(report.diverged, 0, "{what}: {report:?}");
            if report.unpublished == 0 {
                return;
            }
        }
        panic!("{what}: not published");
    }

    /// Names and bytes of the log.
    async fn log(&self) -> BTreeMap<String, Bytes> {
        let sink = self.sink();
        let mut log = BTreeMap::new();
        for entry in sink.list(None).await.unwrap() {
            let bytes = sink.get(&entry.name).await.unwrap().unwrap();
            log.insert(entry.name, bytes);
        }
        log
    }
}

impl Worker {
    /// Runs to the end, or until it stops at its step.
    async fn run(&self) -> Ended {
        tokio::select! {
            biased;
            _ = self.publisher.run_once(None) => Ended::Returned,
            () = self.stopped.notified() => Ended::Stopped,
        }
    }
}

/// The log without faults, and the steps that it takes.
async fn undisturbed(expires: bool) -> (BTreeMap<String, Bytes>, Vec<Step>) {
    let world = World::new(expires).await;
    let worker = world.worker(&[]);
    assert!(matches!(worker.run().await, Ended::Returned));
    let log = world.log().await;
    let steps = std::mem::take(&mut *world.passed.lock().unwrap());
    if expires {
        let kinds: Vec<LogName> = log.keys().map(|name| LogName::parse(name)).collect();
        let v = Version::new(2).unwrap();
        let want = [
            LogName::UuidCheckpoint { version: v, json: false },
            LogName::Checksum(v),
            LogName::Commit(v),
            LogName::LastCheckpoint,
            LogName::Sidecar(Some(v)),
        ];
        assert_eq!(kinds, want);
        return (log, steps);
    }
    let names: Vec<&str> = log.keys().map(|name| name.trim_start_matches('0')).collect();
    let all = [
        ".crc",
        ".json",
        "1.crc",
        "1.json",
        "2.checkpoint.parquet",
        "2.crc",
        "2.json",
        "_last_checkpoint",
    ];
    assert_eq!(names, all);
    (log, steps)
}

/// A worker that is hit in a world, after the hits that made that world, and the recovery. Returns whether
/// the last hit came to pass.
async fn after_faults(
    (from, before): (&World, &[(usize, Kind)]),
    expires: bool,
    want: &BTreeMap<String, Bytes>,
    seen: &mut BTreeSet<Step>,
    hits: &[(usize, Kind)],
) -> bool {
    let world = from.fork();
    let last_hit = world.run(hits).await;
    let what = format!("{before:?}, then {hits:?}");
    world.recover(&what).await;
    let mut log = world.log().await;
    if expires {
        // What was not deleted is found after the next checkpoint.
        log.retain(|name, _| {
            let name_in_folder = name.trim_start_matches(SIDECARS);
            want.contains_key(name)
                || !EXPIRED.iter().any(|start| name_in_folder.starts_with(start))
        });
    }
    if log != *want {
        let names = |log: &BTreeMap<String, Bytes>| {
            log.iter().map(|(name, bytes)| format!("{name} {}", bytes.len())).collect::<Vec<_>>()
        };
        panic!("{what}: {:?}, not {:?}", names(&log), names(want));
    }
    let table = world.lake.catalog.table(&world.id.into()).await.unwrap();
    assert_eq!(table.published_version, Version::new(2).ok(), "{what}");
    seen.extend(world.seen.lock().unwrap().iter());
    last_hit
}

/// Names of versions 0 and 1 begin with it, and that of no other object.
const EXPIRED: [&str; 2] = ["00000000000000000000", "00000000000000000001"];

/// Does a step of the first run after the other, on all processors.
fn each_step<T: Send>(steps: usize, test: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let k = next.fetch_add(1, Ordering::Relaxed);
            if k >= steps {
                return done;
            }
            done.push(test(k));
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// k × k: a fault at every step, then at every later step of the same run and at every step of the
/// run that recovers, with every pair of kinds.
#[test]
fn faults_at_every_step_and_at_every_step_of_the_recovery_end_in_the_same_log() {
    let mut done = Vec::new();
    for expires in [false, true] {
        let (want, steps) = block_on(undisturbed(expires));
        // What a log with another kind of checkpoint, and whose files expire, has of its own.
        let own = |step: &Step| {
            !expires
                || matches!(
                    step,
                    Step::PutSidecar
                        | Step::PutCheckpoint
                        | Step::FindExpired
                        | Step::ListLog
                        | Step::ReadManifest
                        | Step::DeleteExpired
                )
        };
        let first: Vec<usize> = (0..steps.len()).filter(|k| own(&steps[*k])).collect();
        done.extend(each_step(first.len(), |k| block_on(pairs_from(expires, &want, first[k]))));
    }
    let seen: BTreeSet<Step> = done.iter().flat_map(|(seen, _)| seen).copied().collect();
    assert_eq!(seen, BTreeSet::from(Step::ALL), "steps without a fault");
    let pairs: usize = done.iter().map(|(_, pairs)| pairs).sum();
    assert!(pairs > 15_000, "{pairs} pairs");
}

/// All pairs whose first fault is at step `k`.
async fn pairs_from(
    expires: bool,
    want: &BTreeMap<String, Bytes>,
    k: usize,
) -> (BTreeSet<Step>, usize) {
    let (mut seen, mut pairs) = (BTreeSet::new(), 0);
    let fresh = World::new(expires).await;
    // Where only some steps are new: nothing done and nobody knows, done and nobody knows, torn, dead.
    let new = [Kind::TimesOut, Kind::LosesAnswer, Kind::Tears, Kind::DiesAfter];
    for first in if expires { &new[..] } else { &KINDS[..] } {
        let first = *first;
        let hit = fresh.fork();
        hit.run(&[(k, first)]).await;
        seen.extend(hit.seen.lock().unwrap().iter());
        for second in KINDS {
            let mut j = 0;
            while after_faults((&hit, &[(k, first)]), expires, want, &mut seen, &[(j, second)])
                .await
            {
                j += 1;
            }
            pairs += j;
            if expires {
                continue;
            }
            let mut j = k + 1;
            while after_faults((&fresh, &[]), expires, want, &mut seen, &[(k, first), (j, second)])
                .await
            {
                j += 1;
            }
            pairs += j - k - 1;
        }
    }
    (seen, pairs)
}

/// Two workers: one stands still at step `k` for longer than its lease, another one takes over and
/// is hit at step `j`, then the first goes on as if nothing had happened.
#[test]
fn a_slow_worker_and_its_successor_end_in_the_same_log() {
    let (want, steps) = block_on(undisturbed(false));
    each_step(steps.len(), |k| block_on(slow_at(&want, steps.len(), k)));
}

async fn slow_at(want: &BTreeMap<String, Bytes>, steps: usize, k: usize) {
    let fresh = World::new(false).await;
    for late in [Kind::Dies, Kind::DiesAfter] {
        for second in KINDS {
            for j in 0..steps {
                let what = format!("slow at {k} ({late:?}), then {second:?} at {j}");
                let world = fresh.fork();
                let slow = world.worker(&[(k, late)]);
                let mut running = Box::pin(slow.publisher.run_once(None));
                tokio::select! {
                    biased;
                    report = &mut running => panic!("{what}: never stopped: {report:?}"),
                    () = slow.stopped.notified() => {}
                }
                world.later();
                let next = world.worker(&[(j, second)]);
                next.run().await;
                let done = next.steps.load(Ordering::Relaxed) <= j;
                drop(next);
                slow.gate.notify_one();
                // Its error is that of a lost lease, or none.
                drop(running.await);
                world.recover(&what).await;
                assert!(world.log().await == *want, "{what}");
                if done {
                    break;
                }
            }
        }
    }
}
