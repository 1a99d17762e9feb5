use std::collections::BTreeMap;

use deltalakedb_catalog_core::model::MirrorMode;
use deltalakedb_catalog_engine::catalog::{ChangeTarget, TableChange};
use deltalakedb_catalog_engine::conflict::Reads;
use deltalakedb_mirror::store::normalize_location;

use super::*;

const ZERO: &str = "{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":2}}\n\
    {\"metaData\":{\"id\":\"m\",\"format\":{\"provider\":\"parquet\",\"options\":{}},\
    \"schemaString\":\"{\\\"type\\\":\\\"struct\\\",\\\"fields\\\":[]}\",\"partitionColumns\":[],\
    \"configuration\":{}}}\n";

fn change(target: ChangeTarget, ndjson: String) -> CommitBatch {
    let reads = Reads::default();
    let change = TableChange {
        target,
        ndjson: ndjson.into(),
        origin: "test".into(),
        reads,
        operation: None,
    };
    CommitBatch { token: None, tables: vec![change] }
}

fn create(folder: &std::path::Path, mirror: MirrorMode) -> CommitBatch {
    let target = ChangeTarget::Create {
        name: "t".parse().unwrap(),
        location: normalize_location(folder.join("t").to_str().unwrap()).unwrap(),
        storage_options: BTreeMap::new(),
        mirror,
        fence: true,
    };
    change(target, ZERO.to_owned())
}

fn append(name: &str) -> CommitBatch {
    let target = ChangeTarget::Existing {
        table: "t".parse().map(TableRef::Name).unwrap(),
        read_version: None,
    };
    change(
        target,
        format!(
            "{{\"add\":{{\"path\":\"{name}\",\"partitionValues\":{{}},\"size\":1,\
             \"modificationTime\":1,\"dataChange\":true}}}}"
        ),
    )
}

async fn db(folder: &std::path::Path) -> Db {
    let uri = format!("sqlite://{}", folder.join("c.db").display());
    Db::create(&uri.parse().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_published_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    // Only being woken can be this fast: it looks by itself every hour.
    let config = PublisherConfig { poll_ms: 3_600_000, ..PublisherConfig::default() };
    let (db, mirror) = db(folder.path()).await.publish_in_background(config);
    let limit = Duration::from_secs(30);
    db.commit_published(create(folder.path(), MirrorMode::Active), limit).await.unwrap();
    for i in 0..5 {
        let report = db.commit_published(append(&i.to_string()), limit).await.unwrap();
        let version = report.tables[0].version;
        let file = folder.path().join("t/_delta_log").join(format!("{}.json", version.padded()));
        assert!(file.exists(), "{}", file.display());
    }
    mirror.stop().await.unwrap();
    db.commit(append("after")).await.unwrap();
    let limit = Duration::from_millis(50);
    let error = db.commit_published(append("again"), limit).await.unwrap_err();
    assert!(error.to_string().starts_with("the commit stands, but: version 7"), "{error}");
    let CommitPublishedError::NotPublished(stands) = error else { panic!("{error}") };
    assert_eq!(stands.report.tables[0].version.get(), 7);
    // Dropped, a worker stops, too.
    let (db, mirror) = db.publish_in_background(PublisherConfig::default());
    wait_published(
        &db,
        &"t".parse().map(TableRef::Name).unwrap(),
        None,
        Some(Duration::from_secs(30)),
    )
    .await
    .unwrap();
    drop(mirror);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_published_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let db = db(folder.path()).await;
    let error = db
        .commit_published(create(folder.path(), MirrorMode::Off), Duration::from_secs(30))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("publishing is off"), "{error}");
    let error = db.commit_published(create(folder.path(), MirrorMode::Off), Duration::ZERO).await;
    assert!(matches!(error, Err(CommitPublishedError::Commit(_))));
}
