use std::collections::BTreeMap;

use deltalakedb_catalog_core::env::NoProgress;
use deltalakedb_catalog_core::ids::{At, TableRef};

use super::*;
use crate::diff::{DiffOptions, Verdict, diff};
use crate::kernel::{LogLocation, read_state};
use crate::reconcile::reconcile;
use crate::testing::{Lake, add, names, zero};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

/// A commit a second, and a checkpoint every third; ten seconds are kept.
async fn table(lake: &Lake, properties: &str) -> TableId {
    let interval = "\"delta.checkpointInterval\":\"3\"";
    let id = lake.create("t", &zero("", &format!("{interval}{properties}"))).await;
    for i in 1..=20 {
        lake.commit(id, &add(&format!("{i}"))).await;
        // As a service does: soon after each commit.
        let report = lake.publisher().run_once(None).await.unwrap();
        assert_eq!(report.failures, []);
    }
    id
}

fn first_commit(lake: &Lake) -> i64 {
    let commits = names(&lake.log("t")).into_iter().filter_map(|n| match LogName::parse(&n) {
        LogName::Commit(version) => Some(version.get()),
        _ => None,
    });
    commits.min().unwrap()
}

const TEN: &str = ",\"delta.logRetentionDuration\":\"interval 10 seconds\"";

#[tokio::test(flavor = "multi_thread")]
async fn expired_files_go_and_retained_versions_stay_readable() {
    let lake = Lake::new();
    let id = table(&lake, TEN).await;
    // The last checkpoint, 18, came when 7 had just expired: 8 is read from the checkpoint 6.
    assert_eq!(first_commit(&lake), 6);
    let left = names(&lake.log("t"));
    assert!(
        left.iter().all(|name| name.starts_with('_') || name[..20].parse::<i64>().unwrap() >= 6)
    );
    let location = LogLocation::Table(lake.location("t"));
    for version in 8..=20 {
        let state = read_state(location.clone(), &BTreeMap::new(), Some(v(version))).await.unwrap();
        assert_eq!(i64::try_from(state.files.len()).unwrap(), version);
    }
    let table = TableRef::Id(id);
    let report = diff(&lake.catalog, &table, DiffOptions::default(), &NoProgress).await.unwrap();
    assert_eq!(report.verdict, Verdict::Parity, "{report:?}");
    assert_eq!(reconcile(&lake.catalog, &table, true).await.unwrap().drift, 0);
    // The catalog forgets nothing.
    let old = lake.catalog.snapshot(&table, At::Version(v(2))).await.unwrap();
    assert_eq!(old.num_files, 2);
}

#[tokio::test]
async fn nothing_goes_where_the_table_says_so_or_nothing_has_expired() {
    for properties in ["", &format!("{TEN},\"delta.enableExpiredLogCleanup\":\"false\"")] {
        let lake = Lake::new();
        table(&lake, properties).await;
        assert_eq!(first_commit(&lake), 0, "{properties}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_old_the_head_can_be_read() {
    let lake = Lake::new();
    let none = ",\"delta.logRetentionDuration\":\"interval 0 seconds\"";
    let id = table(&lake, none).await;
    assert_eq!(first_commit(&lake), 18);
    lake.clock.advance(1_000_000_000_000);
    lake.commit(id, &add("21")).await;
    lake.publisher().run_once(None).await.unwrap();
    assert_eq!(first_commit(&lake), 21);
    let location = LogLocation::Table(lake.location("t"));
    let state = read_state(location, &BTreeMap::new(), None).await.unwrap();
    assert_eq!(state.files.len(), 21);
}

/// Commits that only the log has are not deleted from it.
#[tokio::test]
async fn a_log_with_commits_that_the_catalog_lacks_is_left_alone() {
    let lake = Lake::new();
    table(&lake, TEN).await;
    let before = names(&lake.log("t"));
    std::fs::write(lake.log("t").join(format!("{}.json", v(4).padded())), "").unwrap();
    let id = lake.imported("other", 5, 6, 9).await;
    let snapshot = lake.catalog.snapshot(&TableRef::Id(id), At::Head).await.unwrap();
    let sink = crate::sink::open_sink(&lake.location("t"), &BTreeMap::new()).unwrap();
    let now = lake.catalog.clock().now().plus_ms(1_000_000_000_000);
    let (backend, retry) = (lake.catalog.backend(), Retry::of(&lake.catalog));
    // The other table's rows begin at version 5: version 4 is in the log only.
    let deleted =
        clean(backend, &retry, id, &snapshot.metadata, v(9), now, sink.as_ref()).await.unwrap();
    assert_eq!(deleted, 0);
    assert_eq!(names(&lake.log("t")).len(), before.len() + 1);
}
