//! What is kept, and what is not. That answers stay right is the conformance suite's matter, which
//! runs on a cached backend too.

use std::collections::BTreeMap;
use std::sync::Mutex;

use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, HeadRule, TableCommit,
};
use deltalakedb_catalog_core::commit::{FirstLine, Packed, index_lines, parse_ndjson};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{FileRecord, MirrorMode, NewTable};
use deltalakedb_catalog_engine::fault::{Call, Fault, FaultyBackend, Verb};
use deltalakedb_catalog_engine::memory::MemoryBackend;
use futures::future::BoxFuture;
use futures::poll;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::*;

pub(crate) type Counting = FaultyBackend<MemoryBackend>;

const ZERO: &str = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}
{"metaData":{"id":"m","format":{"provider":"parquet","options":{}},"schemaString":"{}","partitionColumns":[],"configuration":{}}}
"#;

pub(crate) fn id() -> TableId {
    numbered(1)
}

pub(crate) fn numbered(number: u128) -> TableId {
    TableId(Uuid::from_u128(number))
}

pub(crate) fn name() -> TableName {
    TableName::new("ns", "t").unwrap()
}

pub(crate) fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

pub(crate) fn scripted(
    script: impl Fn(Call<Verb>) -> Fault + Send + Sync + 'static,
) -> Arc<Counting> {
    Arc::new(FaultyBackend::new(MemoryBackend::new(), script))
}

pub(crate) fn counting() -> Arc<Counting> {
    scripted(|_| Fault::None)
}

fn counted() -> (Arc<Counting>, CachedBackend) {
    let inner = counting();
    (Arc::clone(&inner), CachedBackend::new(inner))
}

/// A backend whose first call of this verb is held up; it goes on once the sender is used.
pub(crate) fn held(
    verb: Verb,
    how: fn(BoxFuture<'static, ()>) -> Fault,
) -> (oneshot::Sender<()>, Arc<Counting>) {
    held_from(verb, 0, how)
}

/// The same of a later call.
pub(crate) fn held_from(
    verb: Verb,
    nth: u64,
    how: fn(BoxFuture<'static, ()>) -> Fault,
) -> (oneshot::Sender<()>, Arc<Counting>) {
    let (open, opened) = oneshot::channel::<()>();
    let opened = Mutex::new(Some(opened));
    let inner = scripted(move |call| {
        if (call.verb, call.nth) != (verb, nth) {
            return Fault::None;
        }
        match opened.lock().unwrap().take() {
            Some(opened) => how(Box::pin(async move {
                let _ = opened.await;
            })),
            None => Fault::None,
        }
    });
    (open, inner)
}

pub(crate) async fn try_commit(
    db: &dyn CatalogBackend,
    token: &str,
    target: CommitTarget,
    lines: &str,
) -> CommitOutcome {
    let table = TableCommit {
        target,
        first_line: FirstLine::fixed("{}"),
        rest: Packed::pack(lines.as_bytes()).unwrap(),
        index: Arc::new(index_lines(parse_ndjson("test", lines.as_bytes()).unwrap())),
        later: None,
    };
    let token = CommitToken::new(token).unwrap();
    let request = CommitRequest { token, now: TimestampMs(1), tables: vec![table] };
    db.commit(request).await.unwrap()
}

pub(crate) async fn commit(
    db: &dyn CatalogBackend,
    token: &str,
    target: CommitTarget,
    lines: &str,
) {
    let outcome = try_commit(db, token, target, lines).await;
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
}

pub(crate) fn new_table(id: TableId, name: TableName) -> NewTable {
    NewTable {
        id,
        name,
        location: "memory://t".to_owned(),
        storage_options: BTreeMap::new(),
        mirror: MirrorMode::Off,
    }
}

pub(crate) async fn create_as(db: &dyn CatalogBackend, id: TableId, name: TableName) {
    commit(db, &format!("create-{id}"), CommitTarget::Create(new_table(id, name)), ZERO).await;
}

pub(crate) async fn create(db: &dyn CatalogBackend) {
    create_as(db, id(), name()).await;
}

pub(crate) fn adds(paths: impl IntoIterator<Item = String>) -> String {
    paths.into_iter().map(|path| add_line(&path) + "\n").collect()
}

fn add_line(path: &str) -> String {
    format!(
        "{{\"add\":{{\"path\":\"{path}\",\"partitionValues\":{{}},\"size\":1,\"modificationTime\":1,\"dataChange\":true}}}}"
    )
}

pub(crate) fn on(rule: HeadRule) -> CommitTarget {
    CommitTarget::Existing { table_id: id(), rule }
}

pub(crate) async fn append(db: &dyn CatalogBackend, token: &str) {
    let target = on(HeadRule::Append { since: Version::ZERO });
    commit(db, token, target, &adds([token.to_owned()])).await;
}

/// Opens the table, so that its versions are known.
pub(crate) async fn open(db: &dyn CatalogBackend) -> Snapshot {
    db.snapshot(&TableRef::Id(id()), At::Head).await.unwrap()
}

pub(crate) async fn all(
    db: &dyn CatalogBackend,
    version: Version,
    limit: usize,
) -> Vec<FileRecord> {
    let (mut files, mut after) = (Vec::new(), None);
    loop {
        let page = db.list_files(id(), version, after, limit).await.unwrap();
        files.extend(page.items);
        after = page.next;
        if after.is_none() {
            return files;
        }
    }
}

#[tokio::test]
async fn a_page_is_read_once_and_a_new_version_is_another_page() {
    let (inner, db) = counted();
    create(&db).await;
    append(&db, "a").await;
    open(&db).await;
    for _ in 0..3 {
        let page = db.list_files(id(), v(1), None, 10).await.unwrap();
        assert_eq!(page.items.len(), 1);
        db.app_transactions(id(), v(1)).await.unwrap();
        db.domain_metadata(id(), v(1)).await.unwrap();
    }
    let calls = [Verb::ListFiles, Verb::AppTransactions, Verb::DomainMetadata];
    assert_eq!(calls.map(|verb| inner.calls(verb)), [1, 1, 1]);
    let stats = db.stats();
    assert_eq!((stats.hits, stats.misses, stats.evictions, stats.stale_hits), (6, 3, 0, 0));
    append(&db, "b").await;
    open(&db).await;
    assert_eq!(db.list_files(id(), v(2), None, 10).await.unwrap().items.len(), 2);
    assert_eq!(db.list_files(id(), v(1), None, 10).await.unwrap().items.len(), 1);
    assert_eq!(inner.calls(Verb::ListFiles), 2);
}

#[tokio::test]
async fn a_version_that_is_not_known_to_exist_is_not_kept() {
    let (_, db) = counted();
    create(&db).await;
    open(&db).await;
    // The answer of today for a version of tomorrow.
    let early = db.list_files(id(), v(1), None, 10).await.unwrap();
    assert!(early.items.is_empty());
    append(&db, "a").await;
    assert_eq!(db.list_files(id(), v(1), None, 10).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn an_answer_from_before_its_version_is_not_kept_when_it_arrives_later() {
    let (opening, inner) = held(Verb::ListFiles, Fault::After);
    let db = CachedBackend::new(inner);
    create(&db).await;
    open(&db).await;
    let mut early = Box::pin(db.list_files(id(), v(1), None, 10));
    assert!(poll!(&mut early).is_pending());
    append(&db, "a").await;
    open(&db).await;
    // Nor is it shared with who asks now.
    assert_eq!(db.list_files(id(), v(1), None, 20).await.unwrap().items.len(), 1);
    assert_eq!(db.list_files(id(), v(1), None, 10).await.unwrap().items.len(), 1);
    opening.send(()).unwrap();
    assert!(early.await.unwrap().items.is_empty());
    assert_eq!(db.list_files(id(), v(1), None, 10).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn nothing_is_kept_of_a_table_that_is_importing() {
    let (inner, db) = counted();
    let table = new_table(id(), name());
    db.import_begin(&table, Version::ZERO, true, TimestampMs(1)).await.unwrap();
    let lines = format!("{ZERO}{}", adds(["a".to_owned()]));
    let commit = deltalakedb_catalog_core::backend::ImportedCommit {
        version: Version::ZERO,
        timestamp: TimestampMs(1),
        body: deltalakedb_catalog_core::commit::CommitBody::verbatim(lines.as_bytes()).unwrap(),
        index: index_lines(parse_ndjson("test", lines.as_bytes()).unwrap()),
        later: None,
        token: None,
    };
    db.import_commits(id(), vec![commit].into()).await.unwrap();
    for _ in 0..2 {
        open(&db).await;
        assert_eq!(all(&db, Version::ZERO, 10).await.len(), 1);
    }
    assert_eq!((inner.calls(Verb::ListFiles), db.stats().entries), (2, 0));
}

#[tokio::test]
async fn concurrent_readers_of_one_page_ask_once() {
    let (opening, inner) = held(Verb::ListFiles, Fault::Before);
    let db = CachedBackend::new(Arc::clone(&inner) as Arc<dyn CatalogBackend>);
    create(&db).await;
    open(&db).await;
    let mut one = Box::pin(db.list_files(id(), v(0), None, 10));
    let mut two = Box::pin(db.list_files(id(), v(0), None, 10));
    assert!(poll!(&mut one).is_pending() && poll!(&mut two).is_pending());
    drop(one);
    opening.send(()).unwrap();
    two.await.unwrap();
    assert_eq!((inner.calls(Verb::ListFiles), db.stats().joined), (1, 1));
}

#[tokio::test]
async fn the_weight_is_bounded_and_nothing_is_kept_without_room() {
    let inner = counting();
    let options = CacheOptions {
        capacity_bytes: 40_000,
        head_max_staleness: Some(Duration::from_secs(3_600)),
        ..CacheOptions::default()
    };
    let db = CachedBackend::with_options(inner.clone() as Arc<dyn CatalogBackend>, &options);
    let reader = db.reader();
    create(&db).await;
    for token in 0..50 {
        append(&db, &format!("t{token}")).await;
    }
    for other in 2..40 {
        let name = TableName::new("ns", format!("t{other}")).unwrap();
        create_as(&db, numbered(other), name.clone()).await;
        reader.snapshot(&TableRef::Name(name), At::Head).await.unwrap();
        reader.app_transactions(numbered(other), v(0)).await.unwrap();
    }
    open(&reader).await;
    for version in 1..=50 {
        for limit in [3, 2_500] {
            assert_eq!(
                all(&reader, v(version), limit).await.len(),
                usize::try_from(version).unwrap()
            );
            let stats = db.stats();
            assert!(stats.weight_bytes <= 40_000, "{stats:?}");
        }
    }
    let stats = db.stats();
    assert!(stats.entries > 5 && stats.weight_bytes > 20_000 && stats.evictions > 50, "{stats:?}");

    let none = CachedBackend::with_capacity(inner.clone() as Arc<dyn CatalogBackend>, 0);
    open(&none).await;
    let before = inner.calls(Verb::ListFiles);
    for _ in 0..3 {
        all(&none, v(50), 100).await;
    }
    assert_eq!((inner.calls(Verb::ListFiles) - before, none.stats().entries), (3, 0));
}

#[tokio::test]
async fn an_entry_ends_after_its_time() {
    let inner = counting();
    let options = CacheOptions { ttl: Some(Duration::from_nanos(1)), ..CacheOptions::default() };
    let db = CachedBackend::with_options(inner.clone() as Arc<dyn CatalogBackend>, &options);
    create(&db).await;
    for _ in 0..3 {
        open(&db).await;
        all(&db, v(0), 10).await;
    }
    assert_eq!(inner.calls(Verb::ListFiles), 3);
}
