use std::collections::BTreeMap;

use deltalakedb_catalog_core::ids::{At, TableRef};
use deltalakedb_catalog_engine::env::NoProgress;

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
    let features = if properties.contains("v2") { "\"v2Checkpoint\"" } else { "" };
    let id = lake.create("t", &zero(features, &format!("{interval}{properties}"))).await;
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
    for policy in ["", ",\"delta.checkpointPolicy\":\"v2\""] {
        expired_files_go(&format!("{TEN}{policy}")).await;
    }
}

async fn expired_files_go(properties: &str) {
    let lake = Lake::new();
    let id = table(&lake, properties).await;
    // The last checkpoint, 18, came when 7 had just expired: 8 is read from the checkpoint 6.
    assert_eq!(first_commit(&lake), 6);
    let sidecars = lake.log("t").join("_sidecars");
    let mut left = names(&lake.log("t"));
    if properties.contains("v2") {
        let of_six = format!("{}.checkpoint.", v(6).padded());
        assert_eq!(names(&sidecars).iter().filter(|name| name.starts_with(&of_six)).count(), 3);
        left.extend(names(&sidecars));
    }
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
    // The last one: a feature's promise that history goes as a whole only (delta-io/delta #4146).
    let protected = "\"delta.requireCheckpointProtectionBeforeVersion\":\"9\"";
    for properties in [
        "",
        &format!("{TEN},\"delta.enableExpiredLogCleanup\":\"false\""),
        &format!("{TEN},{protected}"),
    ] {
        let lake = Lake::new();
        table(&lake, properties).await;
        assert_eq!(first_commit(&lake), 0, "{properties}");
    }
}

/// delta-rs #2174 and #3692: cleaning up took the newest checkpoint, or one that a retained version needs.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_table_is_cleaned_up_to_what_retained_versions_need() {
    let lake = Lake::new();
    let id = table(&lake, TEN).await;
    let table = TableRef::Id(id);
    assert_eq!(first_commit(&lake), 6);
    // Version 10 has just expired: 11 is read from the checkpoint 9.
    let expired_at = async |version: i64| {
        let commit = lake.catalog.snapshot(&table, At::Version(v(version))).await.unwrap();
        let due = commit.timestamp.0 + 10_000;
        lake.clock.advance((due - lake.catalog.clock().now().0).max(0));
    };
    expired_at(10).await;
    let before = names(&lake.log("t"));
    let report = clean_log(&lake.catalog, &table, false).await.unwrap();
    assert!(report.expired > 0 && report.deleted == 0, "{report:?}");
    assert_eq!(names(&lake.log("t")), before);
    let (one, other) = tokio::join!(
        clean_log(&lake.catalog, &table, true),
        clean_log(&lake.catalog, &table, true)
    );
    assert_eq!(one.unwrap().expired, report.expired);
    other.unwrap();
    assert_eq!(first_commit(&lake), 9);
    let location = LogLocation::Table(lake.location("t"));
    for version in 11..=20 {
        let state = read_state(location.clone(), &BTreeMap::new(), Some(v(version))).await.unwrap();
        assert_eq!(i64::try_from(state.files.len()).unwrap(), version);
    }
    // However old: the head is read from the newest checkpoint.
    lake.clock.advance(1_000_000_000_000);
    clean_log(&lake.catalog, &table, true).await.unwrap();
    assert_eq!(first_commit(&lake), 18);
    let state = read_state(location, &BTreeMap::new(), None).await.unwrap();
    assert_eq!(state.files.len(), 20);
    assert_eq!(reconcile(&lake.catalog, &table, true).await.unwrap().drift, 0);
    assert_eq!(clean_log(&lake.catalog, &table, true).await.unwrap().expired, 0);
    // A foreign commit ends it, a table that is not published is left alone.
    let foreign = lake.log("t").join(commit_name_of(21));
    std::fs::write(&foreign, "{\"commitInfo\":{}}\n").unwrap();
    clean_log(&lake.catalog, &table, true).await.unwrap_err();
    let left = clean_log(&lake.catalog, &table, true).await;
    assert!(left.is_ok_and(|report| report.left.is_some_and(|why| why.contains("foreign"))));
}

fn commit_name_of(version: i64) -> String {
    format!("{}.json", v(version).padded())
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

/// Sidecars of other writers have no version in their names: who names them decides.
#[tokio::test(flavor = "multi_thread")]
async fn sidecars_of_others_go_when_nothing_names_them() {
    use std::fs::{self, File};
    use std::time::{Duration, UNIX_EPOCH};
    let lake = Lake::new();
    let policy = ",\"delta.checkpointPolicy\":\"v2\"";
    let id = table(&lake, &format!("{TEN}{policy}")).await;
    let sidecars = lake.log("t").join("_sidecars");
    let now = || u64::try_from(lake.clock_ms()).unwrap();
    let write = |name: &str, age_ms: u64| {
        fs::write(sidecars.join(name), "x").unwrap();
        let time = UNIX_EPOCH + Duration::from_millis(now() - age_ms);
        let file = File::options().write(true).open(sidecars.join(name)).unwrap();
        file.set_modified(time).unwrap();
    };
    let day = u64::try_from(ORPHAN_AGE_MS).unwrap();
    // Named by a checkpoint of another writer that is kept; by one that goes; by none; by none, new.
    for (name, age) in [("kept", 2 * day), ("gone", 2 * day), ("none", 2 * day), ("new", 1000)] {
        write(&format!("{name}.parquet"), age);
    }
    for (version, name) in [(20, "kept"), (7, "gone")] {
        let id = uuid::Uuid::new_v4();
        let manifest = format!(
            "{{\"sidecar\":{{\"path\":\"{name}.parquet\",\"sizeInBytes\":1,\"modificationTime\":1}}}}\n"
        );
        let path = lake.log("t").join(format!("{}.checkpoint.{id}.json", v(version).padded()));
        fs::write(path, manifest).unwrap();
    }
    for i in 21..=24 {
        lake.commit(id, &add(&format!("{i}"))).await;
        lake.publisher().run_once(None).await.unwrap();
    }
    assert!(first_commit(&lake) > 7);
    let there = names(&sidecars);
    let there = |name: &str| there.iter().any(|n| n == &format!("{name}.parquet"));
    assert_eq!(["kept", "gone", "none", "new"].map(there), [true, false, false, true]);
}

/// A checkpoint that lacks a sidecar cannot be read: what is before it stays.
#[tokio::test]
async fn an_incomplete_checkpoint_is_none() {
    let lake = Lake::new();
    let policy = ",\"delta.checkpointPolicy\":\"v2\"";
    let id = table(&lake, policy).await;
    let sidecars = lake.log("t").join("_sidecars");
    let of = format!("{}.checkpoint.", v(18).padded());
    let first = names(&sidecars).into_iter().find(|name| name.starts_with(&of)).unwrap();
    std::fs::remove_file(sidecars.join(first)).unwrap();
    let snapshot = lake.catalog.snapshot(&TableRef::Id(id), At::Head).await.unwrap();
    let mut metadata = snapshot.metadata.clone();
    let none = Some("interval 0 seconds".into());
    metadata.configuration.insert("delta.logRetentionDuration".into(), none);
    let sink = crate::sink::open_sink(&lake.location("t"), &BTreeMap::new()).unwrap();
    let now = lake.catalog.clock().now();
    let (backend, retry) = (lake.catalog.backend(), Retry::of(&lake.catalog));
    clean(backend, &retry, id, &metadata, v(20), now, sink.as_ref()).await.unwrap();
    assert_eq!(first_commit(&lake), 15);
    let location = LogLocation::Table(lake.location("t"));
    let state = read_state(location, &BTreeMap::new(), Some(v(17))).await.unwrap();
    assert_eq!(state.files.len(), 17);
}
