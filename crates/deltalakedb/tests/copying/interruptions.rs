//! A copy that breaks off at any call goes on from there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deltalakedb::copy::CopyOptions;
use deltalakedb::core::action::{DomainMetadata, Txn};
use deltalakedb::core::audit::Act;
use deltalakedb::core::backend::CatalogBackendExt;
use deltalakedb::core::backend::{CatalogBackend, ImportEnd};
use deltalakedb::core::fault::{Fault, FaultyBackend, Verb};
use deltalakedb::core::ids::{TableId, TableName, TimestampMs, Version};
use deltalakedb::core::model::{BaseChunk, BaseTail, TableState};
use deltalakedb_conformance::change::{Change, file, gone, metadata, new_table, protocol};
use uuid::Uuid;

use crate::history::Writer;
use crate::same::{same_reads, tables};
use crate::world::{Database, Kind, copy, small_steps, whole};

/// How the call at which a copy breaks off ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It is not carried out.
    Before,
    /// It is, and the answer is lost: as with a process that is killed.
    After,
}

/// A backend that from its `last`-th call on answers nothing any more. The counter says how many
/// calls were made.
fn dying(db: &Database, last: u64, end: End) -> (Arc<dyn CatalogBackend>, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let faulty = FaultyBackend::new(Arc::clone(&db.db), move |_| {
        match (counter.fetch_add(1, Ordering::SeqCst), end) {
            (n, _) if n < last => Fault::None,
            (n, End::After) if n == last => Fault::LoseAnswer,
            _ => Fault::Fail,
        }
    });
    (Arc::new(faulty), calls)
}

/// Makes a fault.
type Make = fn() -> Fault;

/// A backend of which one writing call fails in a way that a retry, or a look at the database, heals.
fn hiccup(db: &Database, at: u64, fault: Make) -> (Arc<dyn CatalogBackend>, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let faulty = FaultyBackend::new(Arc::clone(&db.db), move |call| {
        let writes = matches!(
            call.verb,
            Verb::ImportBegin
                | Verb::ImportBase
                | Verb::ImportCommits
                | Verb::ImportFinish
                | Verb::ImportAbort
        );
        if writes && counter.fetch_add(1, Ordering::SeqCst) == at { fault() } else { Fault::None }
    });
    (Arc::new(faulty), calls)
}

async fn source(seed: u64, steps: usize) -> Database {
    let source = Kind::Memory.fresh().await;
    Writer::new(&source.db, seed).steps(steps).await;
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_breaks_off_at_any_call_of_the_target_goes_on() {
    for (kind, seed, steps) in [(Kind::Memory, 41, 45), (Kind::Sqlite, 42, 12)] {
        let source = source(seed, steps).await;
        for end in [End::Before, End::After] {
            let mut resumed = 0;
            for last in 0_u64.. {
                let target = kind.fresh().await;
                let (broken, calls) = dying(&target, last, end);
                if copy(&source.db, &broken, &small_steps()).await.is_ok()
                    && calls.load(Ordering::SeqCst) <= last
                {
                    println!("{kind:?}, {end:?}: {last} calls, {resumed} copies continued");
                    assert!(resumed > 0);
                    break;
                }
                let report = copy(&source.db, &target.db, &small_steps()).await.unwrap();
                whole(&report);
                resumed += u64::from(report.tables.iter().any(|table| table.resumed));
                same_reads(&*source.db, &*target.db).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_breaks_off_at_any_call_of_the_source_goes_on() {
    let source = source(43, 40).await;
    for last in 0_u64.. {
        let target = Kind::Memory.fresh().await;
        let (broken, calls) = dying(&source, last, End::Before);
        if copy(&broken, &target.db, &small_steps()).await.is_ok()
            && calls.load(Ordering::SeqCst) <= last
        {
            println!("{last} calls");
            assert!(last > 50);
            break;
        }
        whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
        same_reads(&*source.db, &*target.db).await;
    }
}

/// A busy database, or a connection that is lost for a moment, does not end a copy.
#[tokio::test(flavor = "multi_thread")]
async fn a_hiccup_at_any_writing_call_of_the_target_is_survived() {
    let source = source(44, 40).await;
    let faults: [(&str, Make); 4] = [
        ("busy", || Fault::Busy),
        ("answer lost, busy", || Fault::LoseAnswerBusy),
        ("answer lost", || Fault::LoseAnswer),
        ("request lost", || Fault::LoseRequest),
    ];
    for (what, fault) in faults {
        for at in 0_u64.. {
            let target = Kind::Memory.fresh().await;
            let (flaky, calls) = hiccup(&target, at, fault);
            // What the first part leaves is not what the second begins with.
            let early = CopyOptions { finish: false, ..small_steps() };
            copy(&source.db, &flaky, &early).await.unwrap();
            whole(&copy(&source.db, &flaky, &small_steps()).await.unwrap());
            same_reads(&*source.db, &*target.db).await;
            if calls.load(Ordering::SeqCst) <= at {
                println!("{what}: {at} calls");
                assert!(at > 30);
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hiccup_while_a_table_begins_anew_is_survived() {
    let faults: [Make; 3] = [|| Fault::Busy, || Fault::LoseAnswerBusy, || Fault::LoseAnswer];
    for fault in faults {
        let source = source(45, 20).await;
        let target = Kind::Memory.fresh().await;
        let early = CopyOptions { finish: false, ..small_steps() };
        copy(&source.db, &target.db, &early).await.unwrap();
        let renamed = tables(&*source.db, TableState::Active).await.swap_remove(0);
        source.db.drop_table(renamed.id, &Act::at(TimestampMs(80_000))).await.unwrap();
        let name = TableName::new("ns", "renamed").unwrap();
        source.db.undrop_table(renamed.id, &name, &Act::default()).await.unwrap();
        // The first writing call throws the table away.
        let (flaky, calls) = hiccup(&target, 0, fault);
        whole(&copy(&source.db, &flaky, &small_steps()).await.unwrap());
        assert!(calls.load(Ordering::SeqCst) > 2);
        same_reads(&*source.db, &*target.db).await;
    }
}

/// Several copies at once do no harm; those that notice each other say so.
#[tokio::test(flavor = "multi_thread")]
async fn copies_that_run_at_once_do_no_harm() {
    let mut noticed = 0;
    for seed in 0..8 {
        let source = source(60 + seed, 40).await;
        let target = Kind::Sqlite.fresh().await;
        let copies = (0..3).map(|_| {
            let (from, to) = (Arc::clone(&source.db), Arc::clone(&target.db));
            tokio::spawn(async move { copy(&from, &to, &small_steps()).await })
        });
        for ended in futures::future::join_all(copies).await {
            match ended.unwrap() {
                Ok(report) => whole(&report),
                Err(error) => {
                    assert!(error.to_string().contains("another copy is at work"), "{error}");
                    noticed += 1;
                }
            }
        }
        whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
        same_reads(&*source.db, &*target.db).await;
    }
    println!("{noticed} of 24 copies noticed another one");
    assert!(noticed > 0);
}

/// A table that was imported from a checkpoint, with more than one step of files, of tombstones and
/// of history.
async fn from_a_checkpoint() -> Database {
    let source = Kind::Memory.fresh().await;
    let v = |version| Version::new(version).unwrap();
    let new = new_table(TableId(Uuid::from_u128(7)), TableName::new("ns", "t").unwrap());
    let db = &source.db;
    db.import_begin(&new, v(20), false, TimestampMs(1)).await.unwrap();
    for version in (5..=20).filter(|version| version % 3 > 0) {
        let change = Change::files([format!("h{version}")]);
        let commit = change.imported(v(version), 100 * version).unwrap();
        db.import_commits(new.id, vec![commit].into()).await.unwrap();
    }
    let chunk = BaseChunk {
        files: (0..7).map(|n| file(format!("f{n}"))).collect(),
        tombstones: (0..5).map(|n| gone(&file(format!("t{n}")), Some(n))).collect(),
    };
    let tail = BaseTail {
        protocol: protocol(7),
        metadata: metadata("base"),
        txns: vec![Txn { app_id: "app".to_owned(), version: 3, last_updated: Some(4) }],
        domain_metadata: vec![DomainMetadata {
            domain: "d".to_owned(),
            configuration: "{}".to_owned(),
            removed: false,
        }],
        timestamp: TimestampMs(2_000),
    };
    db.import_base(new.id, 0, 0, chunk, Some(tail)).await.unwrap();
    for version in 21..28 {
        let change = Change::files([format!("n{version}")]).remove(gone(&file("f3"), None));
        let commit = change.imported(v(version), 100 * version).unwrap();
        db.import_commits(new.id, vec![commit].into()).await.unwrap();
    }
    db.import_finish(new.id, ImportEnd::default(), &Act::at(TimestampMs(2))).await.unwrap();
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_that_breaks_off_between_two_steps_goes_on() {
    let source = from_a_checkpoint().await;
    for kind in [Kind::Memory, Kind::Sqlite] {
        for end in [End::Before, End::After] {
            for last in 0_u64.. {
                let target = kind.fresh().await;
                let (broken, calls) = dying(&target, last, end);
                let copied = copy(&source.db, &broken, &small_steps()).await;
                if copied.is_ok() && calls.load(Ordering::SeqCst) <= last {
                    assert!(last > 20, "{last}");
                    break;
                }
                whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
                same_reads(&*source.db, &*target.db).await;
            }
        }
    }
}
