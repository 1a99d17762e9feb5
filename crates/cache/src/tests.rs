//! What is cached, and what is not. That answers stay right is the conformance suite's matter, which
//! runs on a cached backend too.

use deltalakedb_catalog_core::backend::{CommitTarget, HeadRule, TableCommit};
use deltalakedb_catalog_core::commit::{FirstLine, Packed, index_lines, parse_ndjson};
use deltalakedb_catalog_core::fault::{Fault, FaultyBackend, Verb};
use deltalakedb_catalog_core::memory::MemoryBackend;
use uuid::Uuid;

use super::*;

type Counting = FaultyBackend<MemoryBackend>;

const ZERO: &str = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}
{"metaData":{"id":"m","format":{"provider":"parquet","options":{}},"schemaString":"{}","partitionColumns":[],"configuration":{}}}
"#;

fn id() -> TableId {
    TableId(Uuid::from_u128(1))
}

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

fn counted() -> (Arc<Counting>, CachedBackend) {
    let inner = Arc::new(FaultyBackend::new(MemoryBackend::new(), |_| Fault::None));
    (Arc::clone(&inner), CachedBackend::new(inner))
}

async fn commit(db: &CachedBackend, token: &str, target: CommitTarget, lines: &str) {
    let table = TableCommit {
        target,
        first_line: FirstLine::fixed("{}"),
        rest: Packed::pack(lines.as_bytes()).unwrap(),
        index: Arc::new(index_lines(parse_ndjson("test", lines.as_bytes()).unwrap())),
        later: None,
    };
    let token = CommitToken::new(token).unwrap();
    let request = CommitRequest { token, now: TimestampMs(1), tables: vec![table] };
    assert!(matches!(db.commit(request).await.unwrap(), CommitOutcome::Committed(_)));
}

async fn create(db: &CachedBackend) {
    let new = NewTable {
        id: id(),
        name: TableName::new("ns", "t").unwrap(),
        location: "memory://t".to_owned(),
        storage_options: std::collections::BTreeMap::new(),
        mirror: MirrorMode::Off,
    };
    commit(db, "create", CommitTarget::Create(new), ZERO).await;
}

async fn append(db: &CachedBackend, token: &str) {
    let target =
        CommitTarget::Existing { table_id: id(), rule: HeadRule::Append { since: Version::ZERO } };
    let lines = format!(
        "{{\"add\":{{\"path\":\"{token}\",\"partitionValues\":{{}},\"size\":1,\"modificationTime\":1,\"dataChange\":true}}}}\n"
    );
    commit(db, token, target, &lines).await;
}

#[tokio::test]
async fn a_page_is_read_once_and_a_new_version_is_another_page() {
    let (inner, db) = counted();
    create(&db).await;
    append(&db, "a").await;
    db.snapshot(&TableRef::Id(id()), At::Head).await.unwrap();
    for _ in 0..3 {
        let page = db.list_files(id(), v(1), None, 10).await.unwrap();
        assert_eq!(page.items.len(), 1);
        db.app_transactions(id(), v(1)).await.unwrap();
        db.domain_metadata(id(), v(1)).await.unwrap();
    }
    let calls = [Verb::ListFiles, Verb::AppTransactions, Verb::DomainMetadata];
    assert_eq!(calls.map(|verb| inner.calls(verb)), [1, 1, 1]);
    let stats = db.stats();
    assert_eq!((stats.hits, stats.misses, stats.evictions, stats.entries), (6, 3, 0, 3));
    append(&db, "b").await;
    db.snapshot(&TableRef::Id(id()), At::Head).await.unwrap();
    assert_eq!(db.list_files(id(), v(2), None, 10).await.unwrap().items.len(), 2);
    assert_eq!(db.list_files(id(), v(1), None, 10).await.unwrap().items.len(), 1);
    assert_eq!(inner.calls(Verb::ListFiles), 2);
}

#[tokio::test]
async fn a_version_that_is_not_known_to_exist_is_not_cached() {
    let (_, db) = counted();
    create(&db).await;
    db.snapshot(&TableRef::Id(id()), At::Head).await.unwrap();
    // The answer of today for a version of tomorrow.
    let early = db.list_files(id(), v(1), None, 10).await.unwrap();
    assert!(early.items.is_empty());
    append(&db, "a").await;
    assert_eq!(db.list_files(id(), v(1), None, 10).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn long_pages_pass_by_and_the_weight_is_bounded() {
    let (inner, _) = counted();
    let db = CachedBackend::with_capacity(inner.clone() as Arc<dyn CatalogBackend>, 2_000);
    create(&db).await;
    for token in 0..50 {
        append(&db, &format!("t{token}")).await;
    }
    db.snapshot(&TableRef::Id(id()), At::Head).await.unwrap();
    for _ in 0..2 {
        db.list_files(id(), v(50), None, MAX_CACHED_PAGE + 1).await.unwrap();
    }
    assert_eq!((inner.calls(Verb::ListFiles), db.stats().entries), (2, 0));
    for version in 1..=50 {
        db.list_files(id(), v(version), None, 3).await.unwrap();
    }
    let stats = db.stats();
    assert!(stats.entries < 10 && stats.weight_bytes <= 2_000, "{stats:?}");
    // An entry that is not let in counts as one that had to go.
    assert_eq!((stats.hits, stats.misses, stats.evictions), (0, 50, 50 - stats.entries));
}
