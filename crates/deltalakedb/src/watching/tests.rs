use std::sync::Mutex;

use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_engine::catalog::{ChangeTarget, CommitBatch, TableChange};
use deltalakedb_catalog_engine::conflict::Reads;

use super::*;

async fn table() -> Db {
    let db = Db::create(&"memory://".parse().unwrap()).await.unwrap();
    db.create_table("s.t").location("memory://watching/t").columns("id long").await.unwrap();
    db
}

fn append(path: &str, read: Option<i64>) -> CommitBatch {
    let line = format!(
        "{{\"add\":{{\"path\":\"{path}\",\"partitionValues\":{{}},\"size\":7,\
         \"modificationTime\":1,\"dataChange\":true}}}}"
    );
    let read_version =
        read.map(|version| deltalakedb_catalog_core::ids::Version::new(version).unwrap());
    CommitBatch {
        token: None,
        tables: vec![TableChange {
            target: ChangeTarget::Existing { table: "s.t".parse().unwrap(), read_version },
            ndjson: line.into_bytes(),
            origin: "test".to_owned(),
            reads: Reads { whole_table: true, ..Reads::default() },
            operation: Some("WRITE".to_owned()),
        }],
    }
}

#[tokio::test]
async fn what_happens_is_counted_by_outcome_kind_and_code() {
    let db = table().await;
    db.commit(append("a", Some(0))).await.unwrap();
    let error = db.commit(append("b", Some(0))).await.unwrap_err();
    assert!(matches!(error, CatalogError::Conflict(_)), "{error}");
    let mut again = append("c", None);
    again.token = Some(deltalakedb_catalog_core::ids::CommitToken::new("once").unwrap());
    db.commit(again.clone()).await.unwrap();
    assert!(db.commit(again).await.unwrap().replayed);
    db.snapshot(&"s.none".parse().unwrap(), At::Head).await.unwrap_err();
    let head = db.snapshot(&"s.t".parse().unwrap(), At::Head).await.unwrap();
    let filter = crate::filter::parse_filter("id = 1").unwrap();
    let files: Vec<_> = db.files_matching(&head, &filter).unwrap().try_collect().await.unwrap();
    assert_eq!(files.len(), 2);

    let metrics = db.metrics();
    for (name, label, count) in [
        ("dl_commits_total", ("outcome", "committed"), 3),
        ("dl_commits_total", ("outcome", "replayed"), 1),
        ("dl_commits_total", ("outcome", "conflict"), 1),
        ("dl_commit_seconds", ("outcome", "committed"), 3),
        ("dl_conflicts_total", ("kind", "concurrent_append"), 1),
        ("dl_errors_total", ("code", "conflict"), 1),
        ("dl_errors_total", ("code", "table_not_found"), 1),
        ("dl_open_seconds", ("outcome", "error"), 1),
        ("dl_plan_seconds", ("outcome", "ok"), 1),
        ("dl_plan_seconds", ("outcome", "error"), 0),
    ] {
        assert_eq!(metrics.count(name, Some(label)), count, "{name} {label:?}: {metrics:?}");
    }
    assert!(metrics.count("dl_call_seconds", Some(("statement", "commit"))) >= 3);
    // Every name that is counted is a documented one.
    for measured in &metrics.measured {
        assert!(METRICS.iter().any(|metric| metric.name == measured.name), "{measured:?}");
    }
    let text = serde_json::to_string(&metrics).unwrap();
    assert!(text.contains("\"dl_open_seconds\"") && text.contains("\"seconds\""), "{text}");
}

#[tokio::test]
async fn hooks_are_told_of_calls_and_commits() {
    let calls: Arc<Mutex<Vec<CallEvent>>> = Arc::default();
    let slow: Arc<Mutex<Vec<CallEvent>>> = Arc::default();
    let commits: Arc<Mutex<Vec<crate::ChangedTable>>> = Arc::default();
    let (all, late, told) = (Arc::clone(&calls), Arc::clone(&slow), Arc::clone(&commits));
    let db = table()
        .await
        .with_user(Some("ann".parse().unwrap()))
        .on_call(move |call| all.lock().unwrap().push(*call))
        .on_slow_call(Duration::from_secs(3_600), move |call| late.lock().unwrap().push(*call))
        .on_commit(move |commit| told.lock().unwrap().extend(commit.changes()));
    db.commit(append("a", Some(0))).await.unwrap();
    let calls = calls.lock().unwrap();
    let commit = calls.iter().find(|call| call.statement == "commit").unwrap();
    assert_eq!((commit.outcome, commit.code), ("ok", None));
    assert!(slow.lock().unwrap().is_empty());
    let commits = commits.lock().unwrap();
    let [change] = &commits[..] else { panic!("{commits:?}") };
    assert_eq!((change.table.as_str(), change.version.get()), ("s.t", 1));
    assert_eq!((change.operation.as_deref(), change.user.as_deref()), (Some("WRITE"), Some("ann")));
    assert_eq!((change.added, change.removed, change.added_bytes), (1, 0, 7));
}

#[tokio::test]
async fn warming_is_bounded_and_tells_what_it_could_not_read() {
    let db = table().await;
    db.commit(append("a", Some(0))).await.unwrap();
    let tables = ["s.t", "s.none"].map(|name| name.parse::<TableRef>().unwrap());
    let warmed = db.warm(tables.clone(), Duration::from_secs(60)).await;
    assert_eq!((warmed.tables, warmed.files, warmed.late), (1, 1, 0));
    assert!(warmed.failures[0].1.contains("s.none"), "{warmed:?}");
    db.close().await.unwrap();
    let warmed = db.warm(tables, Duration::from_secs(60)).await;
    assert_eq!((warmed.tables, warmed.failures.len()), (0, 2), "{warmed:?}");
    assert_eq!(db.ping(Duration::from_secs(2)).await.unwrap_err().code(), "unavailable");
    db.close().await.unwrap();
}
