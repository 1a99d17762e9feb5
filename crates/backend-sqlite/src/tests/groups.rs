//! Group commit, dropped futures, several handles on one file.

use std::collections::BTreeSet;

use deltalakedb_catalog_core::backend::CommitOutcome;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::ids::{At, CommitToken, TableRef};
use futures::FutureExt;

use super::support::{Place, add, append, change, committed, create, id, index, paths, remove};

#[tokio::test(flavor = "multi_thread")]
async fn waiting_commits_share_transactions_and_fail_alone() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    let before = backend.stats();
    let commits = (0..200).map(|n| {
        // Every tenth removes a file that is not there.
        let removes = if n % 10 == 9 { vec![remove("nowhere", 1)] } else { vec![] };
        let index = index(vec![add(&format!("f{n}"))], removes);
        backend.commit(append(1, &format!("token-{n}"), index))
    });
    let outcomes = futures::future::join_all(commits).await;
    let mut versions = BTreeSet::new();
    let mut rejected = 0;
    for outcome in outcomes {
        match outcome.unwrap() {
            outcome @ CommitOutcome::Committed(_) => {
                assert!(versions.insert(committed(outcome).version.get()));
            }
            CommitOutcome::Rejected { .. } => rejected += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rejected, 20);
    assert_eq!(versions, (1..=180).collect());
    let after = backend.stats();
    assert_eq!(after.writes - before.writes, 180);
    let transactions = after.write_transactions - before.write_transactions;
    assert!(transactions < 90, "{transactions} transactions for 180 commits");
    let snapshot = backend.snapshot(&TableRef::Id(id(1)), At::Head).await.unwrap();
    assert_eq!((snapshot.num_files, snapshot.size_bytes), (180, 1800));
    assert_eq!(paths(&backend, 1, 180).await.len(), 180);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_in_one_group_commits_once() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    let commits = (0..50).map(|_| backend.commit(append(1, "one", index(vec![add("f")], vec![]))));
    let outcomes = futures::future::try_join_all(commits).await.unwrap();
    let first = outcomes.iter().filter(|o| matches!(o, CommitOutcome::Committed(_))).count();
    let again = outcomes.iter().filter(|o| matches!(o, CommitOutcome::Replayed(_))).count();
    assert_eq!((first, again), (1, 49));
}

#[tokio::test]
async fn a_dropped_future_leaves_a_whole_commit_or_none() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    let adds: Vec<_> = (0..500).map(|n| add(&format!("f{n}"))).collect();
    for n in 0..20 {
        // Polled once, it is queued; then nobody waits for it.
        let request = append(1, &format!("dropped-{n}"), index(adds.clone(), vec![]));
        let _ = backend.commit(request).now_or_never();
    }
    // The queue is in order, so this one is answered after all of them.
    let last = change(&backend, 1, "last", &["z"], &[]).await;
    assert_eq!(last.get(), 21);
    let token = CommitToken::new("dropped-7").unwrap();
    assert_eq!(backend.resolve_token(&token).await.unwrap().unwrap()[0].version.get(), 8);
    let snapshot = backend.snapshot(&TableRef::Id(id(1)), At::Head).await.unwrap();
    assert_eq!(snapshot.num_files, 501);
}

#[tokio::test]
async fn dropping_the_backend_finishes_what_is_queued() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    let request = append(1, "queued", index(vec![add("f")], vec![]));
    let _ = backend.commit(request).now_or_never();
    drop(backend);
    let wal = place.path().with_extension("db-wal");
    assert!(!wal.exists(), "the last connection to close moves the log into the database");
    let backend = place.open();
    assert_eq!(paths(&backend, 1, 1).await, ["f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_on_one_file_take_turns() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    let mut tasks = Vec::new();
    for handle in 0..3 {
        let own = place.open();
        tasks.push(tokio::spawn(async move {
            let commits = (0..100).map(|n| {
                let index = index(vec![add(&format!("{handle}-{n}"))], vec![]);
                own.commit(append(1, &format!("{handle}-{n}"), index))
            });
            futures::future::try_join_all(commits).await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // A commit that another handle acknowledged is seen at once.
    let snapshot = backend.snapshot(&TableRef::Id(id(1)), At::Head).await.unwrap();
    assert_eq!((snapshot.version.get(), snapshot.num_files), (300, 300));
}
