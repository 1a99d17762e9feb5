use std::collections::BTreeMap;
use std::fs;

use deltalakedb_catalog_engine::conflict::ConflictKind;
use deltalakedb_catalog_engine::env::NoProgress;

use super::*;
use crate::diff::{DiffOptions, Verdict, diff};
use crate::kernel::{LogLocation, read_state};
use crate::testing::{Lake, add, remove, zero};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

fn by_name() -> TableRef {
    TableRef::Name("t".parse().unwrap())
}

/// A table without a fence, published up to version 2 (files 1 and 2).
async fn table(lake: &Lake) -> TableId {
    let id = lake.create("t", &zero("", "")).await;
    lake.commit(id, &add("1")).await;
    lake.commit(id, &add("2")).await;
    lake.publisher().run_once(None).await.unwrap();
    id
}

/// What another program commits.
fn foreign(lake: &Lake, version: i64, actions: &str) {
    let info = "{\"commitInfo\":{\"timestamp\":1700000009000,\"operation\":\"WRITE\",\
                \"engineInfo\":\"other\"}}\n";
    fs::write(lake.log("t").join(commit_name(v(version))), format!("{info}{actions}")).unwrap();
}

async fn assert_whole(lake: &Lake, files: &[&str]) {
    let table = lake.catalog.table(&by_name()).await.unwrap();
    let report = lake.publisher().run_once(None).await.unwrap();
    assert_eq!((report.failures, report.unpublished), (vec![], 0));
    let report = diff(&lake.catalog, &TableRef::Id(table.id), DiffOptions::default(), &NoProgress)
        .await
        .unwrap();
    assert_eq!(report.verdict, Verdict::Parity, "{report:?}");
    let location = LogLocation::Table(lake.location("t"));
    let state = read_state(location, &BTreeMap::new(), None).await.unwrap();
    let mut paths: Vec<String> = state.files.keys().map(|key| key.path.clone()).collect();
    paths.sort();
    assert_eq!(paths, files);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_commits_are_adopted_where_the_catalog_has_none() {
    let lake = Lake::new();
    table(&lake).await;
    let empty = histories(&lake.catalog, &by_name()).await.unwrap();
    assert_eq!((empty.fork, empty.can_adopt()), (None, false));
    assert_eq!(adopt(&lake.catalog, &by_name()).await.unwrap(), vec![]);
    foreign(&lake, 3, &add("theirs"));
    foreign(&lake, 4, &(add("more") + &remove("1", 1_700_000_009_500)));
    let both = histories(&lake.catalog, &by_name()).await.unwrap();
    assert_eq!((both.fork, both.log_head, both.catalog_head), (Some(v(3)), Some(v(4)), v(2)));
    assert!(both.can_adopt() && both.catalog.is_empty());
    assert_eq!(both.log[1].engine.as_deref(), Some("other"));
    assert_eq!((both.log[1].adds, both.log[1].removes), (1, 1));
    assert_eq!(adopt(&lake.catalog, &by_name()).await.unwrap(), [v(3), v(4)]);
    assert_whole(&lake, &["2", "more", "theirs"]).await;
}

#[tokio::test]
async fn a_file_is_not_adopted_by_a_second_spelling() {
    for (first, second) in [("./1", "theirs"), ("theirs", "x/../theirs"), ("ABS/2", "theirs")] {
        let lake = Lake::new();
        table(&lake).await;
        let absolute = format!("file:{}", lake.dir.path().join("t").to_str().unwrap());
        foreign(&lake, 3, &add(&first.replace("ABS", &absolute)));
        foreign(&lake, 4, &add(second));
        let error = adopt(&lake.catalog, &by_name()).await.unwrap_err().to_string();
        assert!(error.contains("another spelling"), "{error}");
        let head = lake.catalog.table(&by_name()).await.unwrap().head;
        assert_eq!(head, Some(v(2)));
    }
}

#[tokio::test]
async fn what_cannot_be_adopted_is_refused() {
    for (actions, want) in [
        (add("x").trim_end().to_owned() + "{", "line 2"),
        (remove("nowhere", 1), "FileNotActive"),
        (
            "{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":7,\"writerFeatures\":[\"rowTracking\"]}}\n"
                .to_owned(),
            "rowTracking",
        ),
    ] {
        let lake = Lake::new();
        table(&lake).await;
        foreign(&lake, 3, &actions);
        let error = adopt(&lake.catalog, &by_name()).await.unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        let record = lake.catalog.table(&by_name()).await.unwrap();
        assert_eq!(record.head, Some(v(2)));
    }
    let lake = Lake::new();
    table(&lake).await;
    foreign(&lake, 4, &add("x"));
    let error = adopt(&lake.catalog, &by_name()).await.unwrap_err();
    assert!(error.to_string().contains("version 3 of 'default.t' is missing"), "{error}");
}

/// Two commits of ours, two of theirs.
async fn fork(ours: &str) -> (Lake, TableId) {
    let lake = Lake::new();
    let id = table(&lake).await;
    foreign(&lake, 3, &add("theirs"));
    foreign(&lake, 4, &(add("more") + &remove("2", 1_700_000_009_500)));
    let blind = "{\"commitInfo\":{\"operation\":\"WRITE\",\"isBlindAppend\":true}}\n";
    lake.commit(id, &format!("{blind}{}", add("a"))).await;
    lake.commit(id, ours).await;
    let report = lake.publisher().run_once(None).await.unwrap();
    assert_eq!(report.diverged, 1);
    (lake, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_the_catalog_go_on_top() {
    let blind = "{\"commitInfo\":{\"operation\":\"WRITE\",\"isBlindAppend\":true}}\n";
    let (lake, id) = fork(&format!("{blind}{}", add("b"))).await;
    let both = histories(&lake.catalog, &by_name()).await.unwrap();
    assert_eq!((both.fork, both.catalog.len(), both.log.len()), (Some(v(3)), 2, 2));
    assert!(!both.can_adopt());
    let error = adopt(&lake.catalog, &by_name()).await.unwrap_err();
    assert!(error.to_string().contains("--rebase"), "{error}");
    let report = rebase(&lake.catalog, &by_name(), &NoProgress).await.unwrap();
    assert_eq!((report.old_id, report.fork), (id, v(3)));
    assert_eq!(report.moved, [(v(3), v(5)), (v(4), v(6))]);
    assert_whole(&lake, &["1", "a", "b", "more", "theirs"]).await;
    let old = lake.catalog.table(&TableRef::Id(id)).await.unwrap();
    assert_eq!(old.state, TableState::Dropped);
    let error =
        rebase(&lake.catalog, &TableRef::Id(report.table_id), &NoProgress).await.unwrap_err();
    assert!(error.to_string().contains("nothing to rebase"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_leaves_everything_as_it_was() {
    // File 2 is removed by both; and who read the table has not seen theirs.
    let read = "{\"commitInfo\":{\"operation\":\"WRITE\",\"isBlindAppend\":false}}\n";
    for ours in [remove("2", 1_700_000_008_000), format!("{read}{}", add("b"))] {
        let (lake, id) = fork(&ours).await;
        let error = rebase(&lake.catalog, &by_name(), &NoProgress).await.unwrap_err();
        let CatalogError::Conflict(conflict) = &error else { panic!("{error}") };
        assert!(!matches!(conflict.kind, ConflictKind::TooManyAttempts { .. }));
        let record = lake.catalog.table(&by_name()).await.unwrap();
        assert_eq!((record.id, record.head), (id, Some(v(4))));
        assert_eq!(record.mirror, MirrorMode::Diverged);
        let record = detach(&lake.catalog, &by_name()).await.unwrap();
        assert_eq!(record.mirror, MirrorMode::Off);
        lake.commit(id, &add("goes on")).await;
    }
}

/// A call that dies after any step is finished by the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebase_that_died_is_repeated() {
    use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend, Verb};
    use deltalakedb_catalog_engine::memory::MemoryBackend;
    let blind = "{\"commitInfo\":{\"operation\":\"WRITE\",\"isBlindAppend\":true}}\n";
    for verb in
        [Verb::DropTable, Verb::ImportBegin, Verb::ImportCommits, Verb::ImportFinish, Verb::Commit]
    {
        for nth in 0..2 {
            let memory = Arc::new(MemoryBackend::new());
            let lake = Lake::on(Arc::clone(&memory) as _);
            let id = table(&lake).await;
            foreign(&lake, 3, &add("theirs"));
            for name in ["a", "b"] {
                lake.commit(id, &format!("{blind}{}", add(name))).await;
            }
            lake.publisher().run_once(None).await.unwrap();
            let reached = Arc::new(tokio::sync::Notify::new());
            let faulty = {
                let reached = Arc::clone(&reached);
                FaultyBackend::new(memory, move |call| {
                    if (call.verb, call.nth) != (verb, nth) {
                        return Fault::None;
                    }
                    let reached = Arc::clone(&reached);
                    Fault::After(Box::pin(async move {
                        reached.notify_one();
                        futures::future::pending::<()>().await;
                    }))
                })
            };
            let (clock, ids) = (lake.catalog.clock().clone(), lake.catalog.ids().clone());
            let catalog = Catalog::new(Arc::new(faulty), clock, ids);
            let name = by_name();
            let died = tokio::select! {
                report = rebase(&catalog, &name, &NoProgress) => {
                    report.unwrap();
                    false
                }
                () = reached.notified() => true,
            };
            if died {
                let report = rebase(&lake.catalog, &by_name(), &NoProgress).await.unwrap();
                assert_eq!(report.moved, [(v(3), v(4)), (v(4), v(5))], "{verb:?} {nth}");
            }
            assert_whole(&lake, &["1", "2", "a", "b", "theirs"]).await;
        }
    }
}

/// A program that ignores the feature has written to a frozen table all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_table_is_repaired_once_it_is_unfrozen() {
    // While it is frozen and published, and the catalog has nothing of its own there.
    let lake = Lake::new();
    let id = table(&lake).await;
    lake.catalog.freeze(&[by_name()], None, None).await.unwrap();
    lake.publisher().run_once(None).await.unwrap();
    foreign(&lake, 4, &add("theirs"));
    for error in [
        adopt(&lake.catalog, &by_name()).await.unwrap_err(),
        adopt(&lake.catalog, &TableRef::Id(id)).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), "table_frozen", "{error}");
    }
    let both = histories(&lake.catalog, &by_name()).await.unwrap();
    assert_eq!((both.fork, both.catalog_head), (Some(v(4)), v(3)));
    // Its mirror has stopped, and the catalog's commits have not.
    lake.catalog.unfreeze(&[by_name()], None, None).await.unwrap();
    let error = adopt(&lake.catalog, &by_name()).await.unwrap_err();
    assert!(error.to_string().contains("--rebase"), "{error}");
    let report = rebase(&lake.catalog, &by_name(), &NoProgress).await.unwrap();
    assert_eq!(report.moved, [(v(4), v(5))]);
    let now = lake.catalog.snapshot(&by_name(), At::Head).await.unwrap();
    assert!(!freeze::is_frozen(&now.protocol));
    assert_whole(&lake, &["1", "2", "theirs"]).await;

    // Before the freeze is published: both have that version.
    let lake = Lake::new();
    table(&lake).await;
    foreign(&lake, 3, &add("theirs"));
    lake.catalog.freeze(&[by_name()], None, None).await.unwrap();
    assert_eq!(lake.publisher().run_once(None).await.unwrap().diverged, 1);
    let error = rebase(&lake.catalog, &by_name(), &NoProgress).await.unwrap_err();
    assert_eq!(error.code(), "table_frozen", "{error}");
    let record = lake.catalog.table(&by_name()).await.unwrap();
    assert_eq!(record.state, TableState::Active);
    lake.catalog.unfreeze(&[by_name()], None, None).await.unwrap();
    let report = rebase(&lake.catalog, &by_name(), &NoProgress).await.unwrap();
    assert_eq!(report.moved, [(v(3), v(4)), (v(4), v(5))]);
    assert_whole(&lake, &["1", "2", "theirs"]).await;
    // Leaving the log to others changes nothing in the table.
    let lake = Lake::new();
    table(&lake).await;
    foreign(&lake, 3, &add("theirs"));
    lake.catalog.freeze(&[by_name()], None, None).await.unwrap();
    assert_eq!(detach(&lake.catalog, &by_name()).await.unwrap().mirror, MirrorMode::Off);
}
