use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use deltalakedb_catalog_engine::env::NoProgress;

use super::*;
use crate::testing::{Lake, START_MS, remove, zero};

pub(super) const DAY: i64 = 86_400_000;

/// A data file of an age in days, as of the lake's clock.
pub(super) fn file(lake: &Lake, name: &str, age_days: i64) {
    let path = lake.dir.path().join("t").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"data").unwrap();
    let ms = u64::try_from(lake.clock_ms() - age_days * DAY).unwrap();
    let time = UNIX_EPOCH + Duration::from_millis(ms);
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
}

pub(super) fn there(lake: &Lake, name: &str) -> bool {
    lake.dir.path().join("t").join(name).exists()
}

fn add(path: &str) -> String {
    crate::testing::add(path)
}

pub(super) async fn run(lake: &Lake, options: VacuumOptions) -> Result<VacuumReport> {
    let table = TableRef::Name("t".parse().unwrap());
    vacuum(&lake.catalog, &table, options, &NoProgress).await
}

pub(super) const DELETE: VacuumOptions = VacuumOptions {
    retention_ms: None,
    accept_short: false,
    keep_versions: Vec::new(),
    ignore_other_tables: false,
    delete: true,
};

#[tokio::test]
async fn only_what_nothing_needs_goes() {
    let lake = Lake::new();
    let features = "\"deletionVectors\"";
    let id = lake.create("t", &zero(features, "")).await;
    lake.clock.advance(100 * DAY);
    let now = lake.clock_ms();
    // ab^-aqEH.-t@S}K{vb[*k^ is the protocol's own example.
    let vector = r#","deletionVector":{"storageType":"u","pathOrInlineDv":"ab^-aqEH.-t@S}K{vb[*k^","offset":1,"sizeInBytes":36,"cardinality":2}"#;
    let with_vector = add("with_vector.parquet")
        .replace("\"dataChange\"", &format!("{}, \"dataChange\"", vector.trim_start_matches(',')));
    lake.commit(
        id,
        &(add("active.parquet") + &add("day=a%20b/odd%2520name.parquet") + &with_vector),
    )
    .await;
    lake.commit(id, &(add("gone.parquet") + &add("lately.parquet"))).await;
    lake.commit(id, &remove("gone.parquet", now - 30 * DAY)).await;
    lake.commit(id, &remove("lately.parquet", now - DAY)).await;
    lake.publisher().run_once(None).await.unwrap();
    let kept = [
        "active.parquet",
        "day=a b/odd%20name.parquet",
        "with_vector.parquet",
        "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin",
        "lately.parquet",
        "_delta_log/of_others",
        "_hidden/x.parquet",
        ".hidden.parquet",
        "day=x/.part.crc",
    ];
    let goes = [
        "gone.parquet",
        "never_committed.parquet",
        "deep/er/orphan.parquet",
        "_change_data/old.parquet",
        "_col=1/old.parquet",
        "ab/deletion_vector_00000000-0000-0000-0000-000000000000.bin",
    ];
    for name in kept.iter().chain(&goes) {
        file(&lake, name, 60);
    }
    file(&lake, "on_its_way.parquet", 1);
    let dry = run(&lake, VacuumOptions::default()).await.unwrap();
    assert_eq!((dry.unneeded, dry.deleted), (6, 0));
    let mut found = dry.files.clone();
    found.sort();
    let mut want = goes.to_vec();
    want.sort_unstable();
    assert_eq!(found, want);
    assert!(goes.iter().all(|name| there(&lake, name)));
    let report = run(&lake, DELETE).await.unwrap();
    assert_eq!((report.unneeded, report.deleted, report.unneeded_bytes), (6, 6, 24));
    assert!(goes.iter().all(|name| !there(&lake, name)));
    assert!(kept.iter().all(|name| there(&lake, name)));
    assert!(there(&lake, "on_its_way.parquet"));
    assert_eq!(run(&lake, DELETE).await.unwrap().unneeded, 0);
}

#[tokio::test]
async fn a_short_retention_must_be_accepted() {
    let lake = Lake::new();
    lake.create("t", &zero("", "")).await;
    lake.clock.advance(100 * DAY);
    file(&lake, "recent.parquet", 2);
    let short = VacuumOptions { retention_ms: Some(DAY), ..DELETE };
    let error = run(&lake, short).await.unwrap_err().to_string();
    assert!(error.contains("24 h is shorter than the 168 h"), "{error}");
    assert!(there(&lake, "recent.parquet"));
    let short = VacuumOptions { retention_ms: Some(DAY), accept_short: true, ..DELETE };
    let report = run(&lake, short).await.unwrap();
    assert_eq!(report.deleted, 1);
}

/// Two months are meant, not the week of a table that says nothing.
#[tokio::test]
async fn a_retention_that_cannot_be_read_deletes_nothing() {
    let lake = Lake::new();
    let property = r#""delta.deletedFileRetentionDuration":"interval 2 months""#;
    lake.create("t", &zero("", property)).await;
    lake.clock.advance(100 * DAY);
    file(&lake, "old.parquet", 30);
    let given = VacuumOptions { retention_ms: Some(90 * DAY), ..DELETE };
    for options in [DELETE, VacuumOptions { delete: false, ..DELETE }, given] {
        let error = run(&lake, options).await.unwrap_err().to_string();
        assert!(error.contains("cannot be read") && error.contains("30 days"), "{error}");
    }
    assert!(there(&lake, "old.parquet"));
    let accepted = VacuumOptions { retention_ms: Some(20 * DAY), accept_short: true, ..DELETE };
    assert_eq!(run(&lake, accepted).await.unwrap().deleted, 1);
}

#[tokio::test]
async fn versions_to_keep_stay_readable() {
    let lake = Lake::new();
    let id = lake.create("t", &zero("", "")).await;
    let now = lake.clock_ms();
    for name in ["a", "b"] {
        lake.commit(id, &add(name)).await;
    }
    lake.commit(id, &remove("a", now)).await;
    lake.commit(id, &remove("b", now)).await;
    lake.publisher().run_once(None).await.unwrap();
    lake.clock.advance(100 * DAY);
    for name in ["a", "b"] {
        file(&lake, name, 90);
    }
    let keep = |version| {
        let keep_versions = vec![Version::new(version).unwrap()];
        VacuumOptions { keep_versions, ..DELETE }
    };
    let error = run(&lake, keep(9)).await.unwrap_err();
    assert!(matches!(error, CatalogError::VersionNotFound { .. }), "{error}");
    assert_eq!(run(&lake, keep(2)).await.unwrap().unneeded, 0);
    assert_eq!(run(&lake, keep(1)).await.unwrap().files, ["b"]);
    assert!(there(&lake, "a") && !there(&lake, "b"));
}

/// Readers of the log are as far as it is published.
#[tokio::test]
async fn what_the_published_version_needs_stays() {
    let lake = Lake::new();
    let id = lake.create("t", &zero("", "")).await;
    lake.commit(id, &add("old.parquet")).await;
    lake.publisher().run_once(None).await.unwrap();
    lake.clock.advance(100 * DAY);
    // Not published yet, and says that it removed the file long ago.
    lake.commit(id, &remove("old.parquet", START_MS)).await;
    file(&lake, "old.parquet", 90);
    assert_eq!(run(&lake, DELETE).await.unwrap().unneeded, 0);
    lake.publisher().run_once(None).await.unwrap();
    assert_eq!(run(&lake, DELETE).await.unwrap().deleted, 1);
}

#[tokio::test]
async fn a_log_that_others_wrote_to_is_not_vacuumed() {
    let lake = Lake::new();
    let id = lake.create("t", &zero("", "")).await;
    lake.publisher().run_once(None).await.unwrap();
    lake.clock.advance(100 * DAY);
    file(&lake, "theirs.parquet", 60);
    fs::write(lake.log("t").join("00000000000000000001.json"), "{}\n").unwrap();
    let error = run(&lake, DELETE).await.unwrap_err().to_string();
    assert!(error.contains("holds version 1"), "{error}");
    lake.commit(id, &add("ours")).await;
    lake.publisher().run_once(None).await.unwrap();
    let error = run(&lake, DELETE).await.unwrap_err().to_string();
    assert!(error.contains("dl repair default.t"), "{error}");
    assert!(there(&lake, "theirs.parquet"));
}

/// What is committed while files are being listed is kept.
#[tokio::test]
async fn a_commit_during_a_vacuum_keeps_its_files() {
    use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend, Verb};
    use deltalakedb_catalog_engine::memory::MemoryBackend;
    use std::sync::Arc;
    let memory = Arc::new(MemoryBackend::new());
    let lake = Lake::on(Arc::clone(&memory) as _);
    let id = lake.create("t", &zero("", "")).await;
    lake.clock.advance(100 * DAY);
    file(&lake, "appended.parquet", 60);
    file(&lake, "orphan.parquet", 60);
    // After everything was read, before anything is deleted: the second look at the head.
    let (open, gate) = tokio::sync::oneshot::channel::<()>();
    let gate = std::sync::Mutex::new(Some(gate));
    let reached = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&reached);
    let faulty = FaultyBackend::new(memory, move |call| {
        if (call.verb, call.nth) != (Verb::Snapshot, 1) {
            return Fault::None;
        }
        let (gate, told) = (gate.lock().unwrap().take().unwrap(), Arc::clone(&told));
        Fault::Before(Box::pin(async move {
            told.notify_one();
            gate.await.unwrap();
        }))
    });
    let (clock, ids) = (lake.catalog.clock().clone(), lake.catalog.ids().clone());
    let catalog = Catalog::new(Arc::new(faulty), clock, ids);
    let vacuuming = tokio::spawn(async move {
        vacuum(&catalog, &TableRef::Id(id), DELETE, &NoProgress).await.unwrap()
    });
    reached.notified().await;
    lake.commit(id, &add("appended.parquet")).await;
    open.send(()).unwrap();
    let report = vacuuming.await.unwrap();
    assert_eq!(report.deleted, 1);
    assert!(there(&lake, "appended.parquet") && !there(&lake, "orphan.parquet"));
}

#[tokio::test]
async fn nothing_of_a_frozen_table_is_deleted() {
    let lake = Lake::new();
    let id = lake.create("t", &zero("", "")).await;
    lake.clock.advance(100 * DAY);
    file(&lake, "orphan.parquet", 60);
    lake.catalog.freeze(&[TableRef::Id(id)], None, None).await.unwrap();
    // Looking is allowed.
    assert_eq!(run(&lake, VacuumOptions::default()).await.unwrap().unneeded, 1);
    assert_eq!(run(&lake, DELETE).await.unwrap_err().code(), "table_frozen");
    assert!(there(&lake, "orphan.parquet"));
    lake.catalog.unfreeze(&[TableRef::Id(id)], None, None).await.unwrap();
    assert_eq!(run(&lake, DELETE).await.unwrap().deleted, 1);
}

/// What is frozen while files are being listed keeps them.
#[tokio::test]
async fn a_freeze_during_a_vacuum_ends_it() {
    use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend, Verb};
    use deltalakedb_catalog_engine::memory::MemoryBackend;
    use std::sync::Arc;
    let memory = Arc::new(MemoryBackend::new());
    let lake = Lake::on(Arc::clone(&memory) as _);
    let id = lake.create("t", &zero("", "")).await;
    lake.clock.advance(100 * DAY);
    file(&lake, "orphan.parquet", 60);
    let plain = lake.catalog.clone();
    let faulty = FaultyBackend::new(memory, move |call| {
        if (call.verb, call.nth) != (Verb::Snapshot, 1) {
            return Fault::None;
        }
        let plain = plain.clone();
        Fault::Before(Box::pin(async move {
            plain.freeze(&[TableRef::Id(id)], None, None).await.unwrap();
        }))
    });
    let (clock, ids) = (lake.catalog.clock().clone(), lake.catalog.ids().clone());
    let catalog = Catalog::new(Arc::new(faulty), clock, ids);
    let error = vacuum(&catalog, &TableRef::Id(id), DELETE, &NoProgress).await.unwrap_err();
    assert_eq!(error.code(), "table_frozen", "{error}");
    assert!(there(&lake, "orphan.parquet"));
}
