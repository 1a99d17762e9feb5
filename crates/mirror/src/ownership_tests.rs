use std::collections::BTreeMap;
use std::fs;

use deltalakedb_catalog_core::action::NullableMap;
use deltalakedb_catalog_engine::env::NoProgress;
use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend, Verb};
use deltalakedb_catalog_engine::features;
use deltalakedb_catalog_engine::memory::MemoryBackend;

use super::*;
use crate::diff::{DiffOptions, Verdict, diff};
use crate::kernel::{LogLocation, read_state};
use crate::testing::{Lake, add, zero};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

/// A table of a legacy protocol, as most tables are.
async fn legacy(lake: &Lake) -> TableId {
    let zero = zero("", "")
        .replace("\"minWriterVersion\":7,\"writerFeatures\":[]", "\"minWriterVersion\":2");
    let id = lake.create("t", &zero).await;
    lake.commit(id, &add("1")).await;
    id
}

async fn parity(lake: &Lake, id: TableId) {
    let report =
        diff(&lake.catalog, &TableRef::Id(id), DiffOptions::default(), &NoProgress).await.unwrap();
    assert_eq!(report.verdict, Verdict::Parity, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_cut_over_and_released() {
    let lake = Lake::new();
    let id = legacy(&lake).await;
    let table = TableRef::Id(id);
    lake.publisher().run_once(None).await.unwrap();
    let report = cutover(&lake.catalog, &table).await.unwrap();
    assert_eq!(report.version, Some(v(2)));
    assert_eq!(cutover(&lake.catalog, &table).await.unwrap().version, None);
    lake.commit(id, &add("2")).await;
    let report = lake.publisher().run_once(None).await.unwrap();
    assert_eq!((report.published, report.failures), (2, vec![]));
    parity(&lake, id).await;

    let location = LogLocation::Table(lake.location("t"));
    let log = read_state(location.clone(), &BTreeMap::new(), None).await.unwrap();
    assert_eq!((log.protocol.min_reader_version, log.protocol.min_writer_version), (1, 7));
    assert_eq!(
        log.protocol.writer_features.as_deref().unwrap(),
        ["appendOnly", "invariants", "deltalakedb", "inCommitTimestamp"]
    );
    let at = lake.catalog.snapshot(&table, At::Version(v(2))).await.unwrap();
    let property = |name: &str| log.metadata.property(name).map(str::to_owned);
    assert_eq!(property("delta.inCommitTimestampEnablementVersion").unwrap(), "2");
    assert_eq!(
        property("delta.inCommitTimestampEnablementTimestamp").unwrap(),
        at.timestamp.0.to_string()
    );
    let commit = fs::read_to_string(lake.log("t").join(commit_name(v(2)))).unwrap();
    let ict = format!("{{\"commitInfo\":{{\"inCommitTimestamp\":{},", at.timestamp.0);
    assert!(commit.starts_with(&ict), "{commit}");

    lake.commit(id, &add("3")).await;
    let report = release(&lake.catalog, &table, false, &NoProgress).await.unwrap();
    assert_eq!((report.version, report.published), (v(5), 2));
    let log = read_state(location, &BTreeMap::new(), None).await.unwrap();
    assert_eq!((log.version, log.files.len()), (v(5), 3));
    assert_eq!((log.protocol.min_reader_version, log.protocol.min_writer_version), (1, 2));
    assert_eq!(log.protocol.writer_features, None);
    assert_eq!(log.metadata.configuration, NullableMap::new());
    let record = lake.catalog.table(&table).await.unwrap();
    assert_eq!(record.state, TableState::Dropped);
    // Again: by id, and by name.
    for table in [table, TableRef::Name("t".parse().unwrap())] {
        let again = release(&lake.catalog, &table, false, &NoProgress).await.unwrap();
        assert_eq!((again.version, again.published), (v(5), 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_commit_timestamps_may_stay() {
    let lake = Lake::new();
    let id = legacy(&lake).await;
    cutover(&lake.catalog, &TableRef::Id(id)).await.unwrap();
    release(&lake.catalog, &TableRef::Id(id), true, &NoProgress).await.unwrap();
    let location = LogLocation::Table(lake.location("t"));
    let log = read_state(location, &BTreeMap::new(), None).await.unwrap();
    assert!(features::ict_enabled(&log.protocol, &log.metadata));
    assert!(!fence::is_up(&log.protocol));
}

#[tokio::test]
async fn a_log_with_foreign_commits_is_neither_cut_over_nor_released() {
    let lake = Lake::new();
    let id = legacy(&lake).await;
    lake.publisher().run_once(None).await.unwrap();
    fs::write(lake.log("t").join(commit_name(v(2))), "{\"commitInfo\":{}}\n").unwrap();
    let table = TableRef::Id(id);
    for error in [
        cutover(&lake.catalog, &table).await.unwrap_err(),
        release(&lake.catalog, &table, false, &NoProgress).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("holds version 2"), "{error}");
    }
    let record = lake.catalog.table(&table).await.unwrap();
    assert_eq!((record.state, record.head), (TableState::Active, Some(v(1))));
    assert_eq!(record.mirror, MirrorMode::Diverged);
}

#[tokio::test]
async fn a_table_that_is_not_published_is_not_cut_over() {
    let lake = Lake::new();
    let id = lake.create_with("t", &zero("", ""), MirrorMode::Off).await;
    let error = cutover(&lake.catalog, &TableRef::Id(id)).await.unwrap_err();
    assert!(error.to_string().contains("dl mirror enable default.t"), "{error}");
}

/// The fence comes down in the log only once the catalog gets no more commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_dies_anywhere_is_finished_by_the_next() {
    for verb in [
        Verb::MirrorSetMode,
        Verb::Commit,
        Verb::DropTable,
        Verb::Snapshot,
        Verb::ReadBodies,
        Verb::AppTransactions,
    ] {
        for nth in 0..3 {
            for lost in [false, true] {
                let memory = std::sync::Arc::new(MemoryBackend::new());
                let lake = Lake::on(std::sync::Arc::clone(&memory) as _);
                let id = legacy(&lake).await;
                cutover(&lake.catalog, &TableRef::Id(id)).await.unwrap();
                lake.publisher().run_once(None).await.unwrap();
                let faulty = FaultyBackend::new(memory, move |call| match (call.verb, lost) {
                    (v, false) if v == verb && call.nth == nth => Fault::Fail,
                    (v, true) if v == verb && call.nth == nth => Fault::LoseAnswer,
                    _ => Fault::None,
                });
                let (clock, ids) = (lake.catalog.clock().clone(), lake.catalog.ids().clone());
                let catalog = Catalog::new(std::sync::Arc::new(faulty), clock, ids);
                let name = TableRef::Name("t".parse().unwrap());
                let first = release(&catalog, &name, false, &NoProgress).await;
                // A publisher in between must not put the commit without a fence too early.
                lake.publisher().run_once(None).await.unwrap();
                let live = lake.catalog.table(&TableRef::Id(id)).await.unwrap().state;
                let there = lake.log("t").join(commit_name(v(3))).exists();
                assert!(!(there && live == TableState::Active), "{verb:?} {nth} {lost}");
                if first.is_err() {
                    release(&lake.catalog, &name, false, &NoProgress).await.unwrap();
                }
                let location = LogLocation::Table(lake.location("t"));
                let log = read_state(location, &BTreeMap::new(), None).await.unwrap();
                assert_eq!(log.version, v(3), "{verb:?} {nth} {lost}");
                assert!(!fence::is_up(&log.protocol));
            }
        }
    }
}

/// Reads, publishing, comparing and rebuilding go on; handing over does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_table_keeps_its_owner() {
    for fenced in [false, true] {
        let lake = Lake::new();
        let id = legacy(&lake).await;
        let table = TableRef::Id(id);
        if fenced {
            cutover(&lake.catalog, &table).await.unwrap();
        }
        let before = lake.catalog.snapshot(&table, At::Head).await.unwrap();
        lake.catalog.freeze(std::slice::from_ref(&table), None, None).await.unwrap();
        lake.publisher().run_once(None).await.unwrap();
        parity(&lake, id).await;
        // The kernel reads the published table, and sees why it must not write to it.
        let location = LogLocation::Table(lake.location("t"));
        let log = read_state(location.clone(), &BTreeMap::new(), None).await.unwrap();
        assert_eq!((log.files.len(), log.protocol.min_reader_version), (1, 1));
        let features = log.protocol.writer_features.unwrap();
        assert!(features.contains(&"deltalakedb.frozen".to_owned()), "{features:?}");
        assert_eq!(features.contains(&"deltalakedb".to_owned()), fenced);

        for error in [
            cutover(&lake.catalog, &table).await.unwrap_err(),
            release(&lake.catalog, &table, false, &NoProgress).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), "table_frozen", "{error}");
        }
        let record = lake.catalog.table(&table).await.unwrap();
        assert_eq!((record.state, record.mirror), (TableState::Active, MirrorMode::Active));
        lake.catalog.unfreeze(std::slice::from_ref(&table), None, None).await.unwrap();
        let now = lake.catalog.snapshot(&table, At::Head).await.unwrap();
        assert_eq!((now.protocol, now.metadata), (before.protocol, before.metadata));
        release(&lake.catalog, &table, false, &NoProgress).await.unwrap();
        let log = read_state(location, &BTreeMap::new(), None).await.unwrap();
        assert_eq!((log.protocol.min_reader_version, log.protocol.min_writer_version), (1, 2));
    }
}

/// A freeze that comes while a table is released is published, and nothing is handed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_during_a_release_wins_or_comes_too_late() {
    for (verb, nth, late) in
        [(Verb::MirrorSetMode, 0, false), (Verb::Commit, 0, false), (Verb::DropTable, 0, true)]
    {
        let memory = std::sync::Arc::new(MemoryBackend::new());
        let lake = Lake::on(std::sync::Arc::clone(&memory) as _);
        let id = legacy(&lake).await;
        let table = TableRef::Id(id);
        cutover(&lake.catalog, &table).await.unwrap();
        lake.publisher().run_once(None).await.unwrap();
        let plain = lake.catalog.clone();
        let faulty = FaultyBackend::new(memory, move |call| {
            if (call.verb, call.nth) != (verb, nth) {
                return Fault::None;
            }
            let plain = plain.clone();
            Fault::Before(Box::pin(async move {
                plain.freeze(&[TableRef::Id(id)], None, None).await.unwrap();
            }))
        });
        let (clock, ids) = (lake.catalog.clock().clone(), lake.catalog.ids().clone());
        let catalog = Catalog::new(std::sync::Arc::new(faulty), clock, ids);
        // A commit that has lost a race pauses.
        let turning = async {
            loop {
                lake.clock.advance(1_000);
                tokio::task::yield_now().await;
            }
        };
        let error = tokio::select! {
            released = release(&catalog, &table, false, &NoProgress) => released.unwrap_err(),
            () = turning => continue,
        };
        let record = lake.catalog.table(&table).await.unwrap();
        if late {
            // No fence was put down in the log: nobody was let in.
            assert!(error.to_string().contains("was frozen while it was dropped"), "{error}");
            assert_eq!(record.state, TableState::Dropped);
            lake.catalog.undrop_table(&table, None).await.unwrap();
        } else {
            assert_eq!(error.code(), "table_frozen", "{verb:?}: {error}");
            assert_eq!((record.state, record.mirror), (TableState::Active, MirrorMode::Active));
            lake.publisher().run_once(None).await.unwrap();
            parity(&lake, id).await;
        }
        lake.catalog.unfreeze(std::slice::from_ref(&table), None, None).await.unwrap();
        release(&lake.catalog, &table, false, &NoProgress).await.unwrap();
    }
}
