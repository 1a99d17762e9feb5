use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deltalakedb_catalog_engine::env::NoProgress;
use deltalakedb_catalog_engine::fault::{
    Fault, FaultyBackend, FaultySink, SinkFault, SinkVerb, Verb,
};
use deltalakedb_catalog_engine::memory::MemoryBackend;
use tokio::sync::watch;

use super::*;
use crate::diff::{DiffOptions, Verdict, diff, metrics_prometheus};
use crate::ownership::{cutover, release};
use crate::publish::PublisherConfig;
use crate::reconcile::{FindingKind, reconcile};
use crate::repair::{adopt, detach, histories, rebase};
use crate::sink::{LocalSink, open_sink};
use crate::testing::{Lake, add};
use crate::vacuum::{VacuumOptions, vacuum};

const THEIRS: &str = "{\"commitInfo\":{\"operation\":\"WRITE\",\"engineInfo\":\"other\"}}\n";

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

/// An idle table: all of its versions (0 to 2) are published.
async fn idle(lake: &Lake, name: &str) -> TableId {
    let id = lake.table(name, 2).await;
    lake.publisher().run_once(None).await.unwrap();
    id
}

fn foreign(lake: &Lake, name: &str, version: i64) {
    let text = format!("{THEIRS}{}", add("theirs"));
    fs::write(lake.log(name).join(commit_name(v(version))), text).unwrap();
}

async fn mode(lake: &Lake, id: TableId) -> MirrorMode {
    lake.catalog.table(&TableRef::Id(id)).await.unwrap().mirror
}

async fn look(lake: &Lake, id: TableId, version: i64) -> Result<Option<String>> {
    let record = lake.catalog.table(&TableRef::Id(id)).await.unwrap();
    let sink = open_sink(&record.location, &record.storage_options).unwrap();
    let retry = Retry::of(&lake.catalog);
    Desk::of(&lake.catalog, &retry).look(id, sink.as_ref(), v(version)).await
}

/// Waits for a condition, bounded.
async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("the condition came true");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sees_a_foreign_commit_records_it() {
    type Look = for<'a> fn(&'a Lake, TableRef) -> futures::future::BoxFuture<'a, ()>;
    let looks: [(&str, Look); 6] = [
        ("reconcile", |lake, table| {
            Box::pin(async move {
                let report = reconcile(&lake.catalog, &table, false).await.unwrap();
                assert_eq!(report.findings[0].kind, FindingKind::Foreign);
            })
        }),
        ("diff", |lake, table| {
            Box::pin(async move {
                let options = DiffOptions::default();
                let report = diff(&lake.catalog, &table, options, &NoProgress).await.unwrap();
                assert_eq!(report.verdict, Verdict::Drift);
                assert_eq!(report.mirror_status.mode, MirrorMode::Diverged);
            })
        }),
        ("cutover", |lake, table| {
            Box::pin(async move {
                let error = cutover(&lake.catalog, &table).await.unwrap_err().to_string();
                assert!(
                    error.contains("holds version 3") && error.contains("dl repair"),
                    "{error}"
                );
            })
        }),
        ("release", |lake, table| {
            Box::pin(async move {
                let error = release(&lake.catalog, &table, false, &NoProgress).await.unwrap_err();
                assert!(error.to_string().contains("holds version 3"), "{error}");
            })
        }),
        ("repair", |lake, table| {
            Box::pin(async move {
                let both = histories(&lake.catalog, &table).await.unwrap();
                assert_eq!((both.fork, both.mirror), (Some(v(3)), MirrorMode::Diverged));
            })
        }),
        ("vacuum", |lake, table| {
            Box::pin(async move {
                let options = VacuumOptions::default();
                vacuum(&lake.catalog, &table, options, &NoProgress).await.unwrap_err();
            })
        }),
    ];
    for (what, look) in looks {
        let lake = Lake::new();
        let id = idle(&lake, "t").await;
        foreign(&lake, "t", 3);
        assert_eq!(mode(&lake, id).await, MirrorMode::Active);
        look(&lake, TableRef::Id(id)).await;
        assert_eq!(mode(&lake, id).await, MirrorMode::Diverged, "{what}");
        // From then on, whoever asks is told, in metrics too.
        let options = DiffOptions::default();
        let report = diff(&lake.catalog, &TableRef::Id(id), options, &NoProgress).await.unwrap();
        let text = metrics_prometheus(&[report]);
        let failed = format!("dl_mirror_status{{table_id=\"{id}\",version=\"3\"}} 2");
        assert!(text.contains(&failed), "{text}");
        // Commits go on, and nothing of them is published.
        lake.commit(id, &add("ours")).await;
        assert_eq!(lake.publisher().run_once(None).await.unwrap().published, 0, "{what}");
    }
}

#[tokio::test]
async fn what_is_the_catalogs_own_is_not_foreign() {
    let lake = Lake::new();
    let id = idle(&lake, "t").await;
    assert_eq!(look(&lake, id, 3).await.unwrap(), None);
    // It was put, and its record was lost: the worker died.
    lake.commit(id, &add("ours")).await;
    let bodies = lake.catalog.backend().read_bodies(id, v(3), v(3), 1).await.unwrap();
    let ours = bodies[0].1.published().unwrap();
    let path = lake.log("t").join(commit_name(v(3)));
    for len in [ours.len(), 0, 1, ours.len() / 2, ours.len() - 1] {
        fs::write(&path, &ours[..len]).unwrap();
        assert_eq!(look(&lake, id, 3).await.unwrap(), None, "{len} bytes");
        let report = reconcile(&lake.catalog, &TableRef::Id(id), true).await.unwrap();
        assert_eq!(report.drift, 0, "{len} bytes");
        assert_eq!(mode(&lake, id).await, MirrorMode::Active, "{len} bytes");
    }
    // As long as ours, and not ours.
    fs::write(&path, vec![b' '; ours.len()]).unwrap();
    let text = look(&lake, id, 3).await.unwrap().unwrap();
    assert!(text.contains("is not version 3") && text.contains("dl repair default.t"), "{text}");
    assert_eq!(mode(&lake, id).await, MirrorMode::Diverged);
}

#[tokio::test]
async fn a_table_that_is_off_or_dropped_has_no_foreign_commits() {
    let lake = Lake::new();
    let id = idle(&lake, "t").await;
    foreign(&lake, "t", 3);
    detach(&lake.catalog, &TableRef::Id(id)).await.unwrap();
    assert_eq!(look(&lake, id, 3).await.unwrap(), None);
    assert_eq!(mode(&lake, id).await, MirrorMode::Off);
    lake.catalog.drop_table(&TableRef::Id(id)).await.unwrap();
    assert_eq!(look(&lake, id, 3).await.unwrap(), None);
}

/// The publisher of this process puts and records a version at any moment between the look, the
/// judgement and the record.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_being_published_is_never_taken_for_foreign() {
    for verb in [Verb::GetTable, Verb::ReadBodies, Verb::MirrorSetMode] {
        for nth in 0..4 {
            let (reached, at) = watch::channel(false);
            let (open, gate) = watch::channel(false);
            let armed = Arc::new(AtomicUsize::new(usize::MAX));
            let script = {
                let armed = Arc::clone(&armed);
                move |call: deltalakedb_catalog_engine::fault::Call<Verb>| {
                    if call.verb != verb || armed.load(Ordering::SeqCst) == usize::MAX {
                        return Fault::None;
                    }
                    if armed.fetch_sub(1, Ordering::SeqCst) != 0 {
                        return Fault::None;
                    }
                    armed.store(usize::MAX, Ordering::SeqCst);
                    reached.send_replace(true);
                    let mut gate = gate.clone();
                    Fault::Before(Box::pin(async move {
                        gate.wait_for(|open| *open).await.unwrap();
                    }))
                }
            };
            let memory = Arc::new(MemoryBackend::new());
            let lake = Lake::on(Arc::new(FaultyBackend::new(Arc::clone(&memory), script)));
            let id = idle(&lake, "t").await;
            lake.commit(id, &add("ours")).await;
            let publisher = lake.publisher_on(memory, PublisherConfig::default());
            // It has put the object and not recorded it, as a worker that is at it has.
            let bodies = lake.catalog.backend().read_bodies(id, v(3), v(3), 1).await.unwrap();
            let ours = bodies[0].1.published().unwrap();
            fs::write(lake.log("t").join(commit_name(v(3))), &ours[..ours.len() / 2]).unwrap();
            armed.store(nth, Ordering::SeqCst);
            let mut looking = std::pin::pin!(look(&lake, id, 3));
            let mut at = at.clone();
            // Whether or not the look comes to that call at all.
            let mut looked = tokio::select! {
                looked = &mut looking => Some(looked),
                _ = at.wait_for(|at| *at) => None,
            };
            publisher.run_once(None).await.unwrap();
            lake.clock.advance(60_000);
            publisher.run_once(None).await.unwrap();
            open.send_replace(true);
            if looked.is_none() {
                looked = Some(looking.await);
            }
            assert_eq!(looked.unwrap().unwrap(), None, "{verb:?} {nth}");
            let record = lake.catalog.table(&TableRef::Id(id)).await.unwrap();
            assert_eq!((record.mirror, record.published_version), (MirrorMode::Active, Some(v(3))));
        }
    }
}

#[tokio::test]
async fn commits_that_are_adopted_meanwhile_leave_no_record() {
    let (reached, at) = watch::channel(false);
    let (open, gate) = watch::channel(false);
    let memory = Arc::new(MemoryBackend::new());
    let slow = FaultyBackend::new(Arc::clone(&memory), move |call| {
        if call.verb != Verb::MirrorSetMode {
            return Fault::None;
        }
        reached.send_replace(true);
        let mut gate = gate.clone();
        Fault::Before(Box::pin(async move {
            gate.wait_for(|open| *open).await.unwrap();
        }))
    });
    let lake = Lake::on(Arc::new(slow));
    let direct =
        Catalog::new(memory, Arc::clone(lake.catalog.clock()), Arc::clone(lake.catalog.ids()));
    let id = idle(&lake, "t").await;
    foreign(&lake, "t", 3);
    let adopting = async {
        at.clone().wait_for(|at| *at).await.unwrap();
        assert_eq!(adopt(&direct, &TableRef::Id(id)).await.unwrap(), [v(3)]);
        open.send_replace(true);
    };
    let (looked, ()) = tokio::join!(look(&lake, id, 3), adopting);
    assert_eq!(looked.unwrap(), None);
    assert_eq!(mode(&lake, id).await, MirrorMode::Active);
    assert_eq!(lake.publisher().run_once(None).await.unwrap().published, 1);
}

#[tokio::test]
async fn a_record_that_fails_or_whose_answer_is_lost_is_made_by_the_next_look() {
    let faults: [(fn() -> Fault, bool); 4] = [
        (|| Fault::Busy, true),
        (|| Fault::Fail, false),
        (|| Fault::LoseAnswer, true),
        (|| Fault::LoseRequest, false),
    ];
    for (fault, recorded) in faults {
        let backend =
            FaultyBackend::new(MemoryBackend::new(), move |call| match (call.verb, call.nth) {
                (Verb::MirrorSetMode, 0) => fault(),
                _ => Fault::None,
            });
        let lake = Lake::on(Arc::new(backend));
        let id = idle(&lake, "t").await;
        foreign(&lake, "t", 3);
        // A pause of the retry is a pause of this clock.
        let clock = Arc::clone(&lake.clock);
        let ticking = tokio::spawn(async move {
            loop {
                clock.advance(1_000);
                tokio::task::yield_now().await;
            }
        });
        let first = look(&lake, id, 3).await;
        let diverged = mode(&lake, id).await == MirrorMode::Diverged;
        assert_eq!(diverged, recorded, "{first:?}");
        assert!(look(&lake, id, 3).await.unwrap().is_some());
        assert_eq!(mode(&lake, id).await, MirrorMode::Diverged);
        ticking.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_watches_looks_at_idle_tables_once_in_each_interval() {
    const EVERY: i64 = 100_000;
    let lake = Lake::new();
    let mut ids = Vec::new();
    for i in 0..10 {
        ids.push(idle(&lake, &format!("t{i}")).await);
    }
    let (gets, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let config = PublisherConfig { foreign_check_ms: EVERY, ..PublisherConfig::default() };
    let counts = (Arc::clone(&gets), Arc::clone(&others));
    let publisher = Arc::new(
        lake.publisher_on(Arc::clone(lake.catalog.backend()), config).with_sinks(move |table| {
            let (gets, others) = counts.clone();
            let path = url::Url::parse(&table.location).unwrap().to_file_path().unwrap();
            Ok(Arc::new(FaultySink::new(
                LocalSink::new(path.join("_delta_log")),
                move |call, _| {
                    if call.verb == SinkVerb::Get { &gets } else { &others }
                        .fetch_add(1, Ordering::SeqCst);
                    SinkFault::default()
                },
            )))
        }),
    );
    let (stop, stopped) = watch::channel(false);
    let worker = {
        let publisher = Arc::clone(&publisher);
        tokio::spawn(async move { publisher.run(stopped).await })
    };
    // One request at each tenth of the interval, and no other.
    for round in 0..2 {
        for part in 1..=10 {
            let want = round * 10 + part;
            until(async || gets.load(Ordering::SeqCst) == want).await;
            lake.clock.advance(EVERY / 10);
        }
    }
    foreign(&lake, "t7", 3);
    until(async || {
        lake.clock.advance(EVERY / 10);
        mode(&lake, ids[7]).await == MirrorMode::Diverged
    })
    .await;
    assert_eq!(others.load(Ordering::SeqCst), 0);
    for id in ids.iter().filter(|id| **id != ids[7]) {
        assert_eq!(mode(&lake, *id).await, MirrorMode::Active);
    }
    stop.send_replace(true);
    until(async || {
        lake.clock.advance(EVERY);
        worker.is_finished()
    })
    .await;
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_commits_that_were_seen_can_be_adopted_and_not_rebased() {
    let lake = Lake::new();
    let id = idle(&lake, "t").await;
    foreign(&lake, "t", 3);
    reconcile(&lake.catalog, &TableRef::Id(id), true).await.unwrap();
    let error = rebase(&lake.catalog, &TableRef::Id(id), &NoProgress).await.unwrap_err();
    assert!(error.to_string().contains("--adopt"), "{error}");
    assert_eq!(mode(&lake, id).await, MirrorMode::Diverged, "it was not dropped");
    assert_eq!(adopt(&lake.catalog, &TableRef::Id(id)).await.unwrap(), [v(3)]);
    assert_eq!(mode(&lake, id).await, MirrorMode::Active);
    lake.commit(id, &add("ours")).await;
    assert_eq!(lake.publisher().run_once(None).await.unwrap().published, 2);
    // An adoption that died before it went on publishing is repeated.
    lake.catalog
        .backend()
        .mirror_set_mode(id, MirrorMode::Diverged, &lake.catalog.act())
        .await
        .unwrap();
    assert_eq!(adopt(&lake.catalog, &TableRef::Id(id)).await.unwrap(), []);
    assert_eq!(mode(&lake, id).await, MirrorMode::Active);
}
