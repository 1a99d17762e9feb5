//! The merged list against what was done, in both orders.
#![cfg(feature = "sqlite")]

use std::collections::BTreeMap;

use deltalakedb_catalog_core::audit::{Act, Actor, AuditOrder};
use deltalakedb_catalog_core::ids::{TableName, TableRef, TimestampMs};
use deltalakedb_catalog_core::model::MirrorMode;
use deltalakedb_catalog_engine::catalog::{ChangeTarget, CommitBatch, TableChange};
use futures::TryStreamExt;

use super::{AuditEvent, AuditQuery};
use crate::Db;

async fn db() -> (Db, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("c.db").display());
    (Db::create(&url.parse().unwrap()).await.unwrap(), folder)
}

fn name(text: &str) -> TableName {
    text.parse().unwrap()
}

async fn commit(db: &Db, target: ChangeTarget, operation: &str, ndjson: &str) {
    let change = TableChange {
        target,
        ndjson: ndjson.into(),
        origin: "test".to_owned(),
        reads: deltalakedb_catalog_engine::conflict::Reads::default(),
        operation: Some(operation.to_owned()),
    };
    db.commit(CommitBatch { token: None, tables: vec![change] }).await.unwrap();
}

async fn create(db: &Db, table: &str) {
    let zero = "{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":2}}\n\
        {\"metaData\":{\"id\":\"m\",\"format\":{\"provider\":\"parquet\",\"options\":{}},\
        \"schemaString\":\"{\\\"type\\\":\\\"struct\\\",\\\"fields\\\":[]}\",\
        \"partitionColumns\":[],\"configuration\":{}}}\n";
    let target = ChangeTarget::Create {
        name: name(table),
        location: format!("memory://{table}"),
        storage_options: BTreeMap::new(),
        mirror: MirrorMode::Off,
        fence: false,
    };
    commit(db, target, "CREATE TABLE", zero).await;
}

async fn append(db: &Db, table: &str, file: &str) {
    let line = format!(
        "{{\"add\":{{\"path\":\"{file}\",\"partitionValues\":{{}},\"size\":1,\"modificationTime\":1,\
         \"dataChange\":true}}}}"
    );
    let target = ChangeTarget::Existing { table: TableRef::Name(name(table)), read_version: None };
    commit(db, target, "WRITE", &line).await;
}

async fn list(db: &Db, query: AuditQuery) -> Vec<AuditEvent> {
    db.audit(query).await.unwrap().try_collect().await.unwrap()
}

fn said(events: &[AuditEvent]) -> Vec<String> {
    let version = |event: &AuditEvent| event.version.map(|v| format!("@{v}")).unwrap_or_default();
    let table = |event: &AuditEvent| event.table.clone().unwrap_or_default();
    events.iter().map(|e| format!("{} {}{}", e.action, table(e), version(e))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_and_rows_are_one_list_by_time() {
    let (db, _folder) = db().await;
    let db = db.with_user(Some("ann \"o'b\" 😀".parse().unwrap()));
    create(&db, "a.x").await;
    append(&db, "a.x", "f1").await;
    create(&db, "a.y").await;
    for n in 0..5 {
        append(&db, "a.y", &format!("g{n}")).await;
        append(&db, "a.x", &format!("h{n}")).await;
    }
    db.drop_table(&TableRef::Name(name("a.x"))).await.unwrap();
    create(&db, "a.x").await;
    let query = AuditQuery::default;
    let mut events = list(&db, query()).await;
    assert_eq!(events.len(), 1 + 1 + 1 + 10 + 1 + 1, "{:?}", said(&events));
    assert!(events.is_sorted_by_key(|event| event.at_ms), "{events:?}");
    let actions = said(&events);
    assert_eq!(actions[..2], ["table.create a.x@0", "commit a.x@1"]);
    assert!(actions.contains(&"table.drop a.x".to_owned()), "{actions:?}");
    assert!(events.iter().all(|event| event.user.as_deref() == Some("ann \"o'b\" 😀")));
    let drop = events.iter().find(|event| event.action == "table.drop").unwrap().clone();
    assert!(drop.program.as_deref().is_some_and(|text| text.starts_with("deltalakedb ")));
    assert!(drop.id.is_some() && drop.table_id.is_some());

    let back = AuditQuery { order: AuditOrder::NewestFirst, ..query() };
    let newest = list(&db, back.clone()).await;
    assert!(newest.iter().rev().is_sorted_by_key(|event| event.at_ms), "{newest:?}");
    let key = |event: &AuditEvent| (event.at_ms, event.table_id, event.version, event.id);
    let mut newest_too = newest.clone();
    newest_too.sort_by_key(key);
    events.sort_by_key(key);
    assert_eq!(newest_too, events);

    // Both tables that had the name, and no others.
    let of = |table: &str| Some(TableRef::Name(name(table)));
    let x = list(&db, AuditQuery { table: of("a.x"), ..query() }).await;
    let want: Vec<_> = events.iter().filter(|e| e.table.as_deref() == Some("a.x")).collect();
    assert_eq!(x.len(), want.len(), "{:?}", said(&x));
    let by_id = AuditQuery { table: drop.table_id.map(TableRef::Id), ..query() };
    assert_eq!(list(&db, by_id).await.len(), x.len() - 1);
    let error = db.audit(AuditQuery { table: of("a.z"), ..query() }).await.err().unwrap();
    assert_eq!(error.code(), "table_not_found");

    // Conditions, against the whole list.
    let (from, to) = (newest[8].at_ms, newest[2].at_ms);
    for order in [AuditOrder::OldestFirst, AuditOrder::NewestFirst] {
        let query = || AuditQuery { order, ..query() };
        let within = list(&db, AuditQuery { since: Some(from), until: Some(to), ..query() }).await;
        let want = events.iter().filter(|e| e.at_ms >= from && e.at_ms < to).count();
        assert_eq!(within.len(), want, "{order:?}");
        let actions = vec!["table.create".to_owned(), "table.drop".to_owned()];
        assert_eq!(list(&db, AuditQuery { actions, ..query() }).await.len(), 4, "{order:?}");
        let rows = list(&db, AuditQuery { no_commits: true, ..query() }).await;
        assert_eq!(said(&rows), ["table.drop a.x"], "{order:?}");
        let none = list(&db, AuditQuery { user: Some("bob".to_owned()), ..query() }).await;
        assert_eq!(none, Vec::new(), "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tables_and_long_histories_come_in_order() {
    let (db, _folder) = db().await;
    for table in 0..30 {
        create(&db, &format!("m.t{table}")).await;
    }
    for round in 0..8 {
        for table in 0..30 {
            if (table + round) % 3 != 0 {
                append(&db, &format!("m.t{table}"), &format!("f{round}")).await;
            }
        }
        let act = Act { at: db.clock().now(), by: Actor::default() };
        let mut entry =
            act.on("test.round", &db.catalog().table(&TableRef::Name(name("m.t0"))).await.unwrap());
        entry.detail = None;
        db.backend().audit_record(&entry).await.unwrap();
    }
    let all = list(&db, AuditQuery::default()).await;
    assert_eq!(all.len(), 30 + 160 + 8);
    assert!(all.is_sorted_by_key(|event| event.at_ms));
    let back = AuditQuery { order: AuditOrder::NewestFirst, ..AuditQuery::default() };
    let mut back = list(&db, back).await;
    assert!(back.iter().rev().is_sorted_by_key(|event| event.at_ms));
    let key = |event: &AuditEvent| (event.at_ms, event.table_id, event.version, event.id);
    let mut all = all;
    all.sort_by_key(key);
    back.sort_by_key(key);
    assert_eq!(all, back);
    let none = AuditQuery { since: Some(TimestampMs(i64::MAX)), ..AuditQuery::default() };
    assert_eq!(list(&db, none).await, Vec::new());
}
