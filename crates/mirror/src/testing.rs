//! What the tests of this crate share: time that tests move, and tables with known commits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{CatalogBackend, ImportEnd, ImportedCommit};
use deltalakedb_catalog_core::commit::{CommitBody, index_lines, parse_ndjson};
use deltalakedb_catalog_core::ids::{TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{BaseChunk, BaseTail, MirrorMode, NewTable};
use deltalakedb_catalog_engine::catalog::{Catalog, ChangeTarget, CommitBatch, TableChange};
use deltalakedb_catalog_engine::conflict::Reads;
use deltalakedb_catalog_engine::env::{Clock, IdSource};
use deltalakedb_catalog_engine::memory::MemoryBackend;
use tokio::sync::watch;
use uuid::Uuid;

use crate::log::listing::LogName;
use crate::publish::{Publisher, PublisherConfig};

/// The time at which tests begin, milliseconds.
pub(crate) const START_MS: i64 = 1_700_000_000_000;

/// Moves only when a test moves it; who sleeps waits for that.
#[derive(Debug)]
pub(crate) struct TestClock(watch::Sender<i64>);

impl TestClock {
    pub(crate) fn advance(&self, ms: i64) {
        self.0.send_modify(|now| *now += ms);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(*self.0.borrow())
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.now().0 + i64::try_from(duration.as_millis()).unwrap();
        let mut now = self.0.subscribe();
        now.wait_for(|now| *now >= until).await.unwrap();
    }
}

#[derive(Debug, Default)]
pub(crate) struct TestIds(AtomicU64);

impl IdSource for TestIds {
    fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1)
    }

    fn fraction(&self) -> f64 {
        0.5
    }
}

/// A catalog in memory, and a folder for its tables.
pub(crate) struct Lake {
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<TestClock>,
    ids: Arc<TestIds>,
    pub(crate) dir: Arc<tempfile::TempDir>,
}

impl Lake {
    pub(crate) fn new() -> Lake {
        Lake::on(Arc::new(MemoryBackend::new()))
    }

    pub(crate) fn on(backend: Arc<dyn CatalogBackend>) -> Lake {
        let clock = Arc::new(TestClock(watch::Sender::new(START_MS)));
        let ids = Arc::new(TestIds::default());
        let catalog = Catalog::new(backend, Arc::clone(&clock) as _, Arc::clone(&ids) as _);
        Lake { catalog, clock, ids, dir: Arc::new(tempfile::tempdir().unwrap()) }
    }

    /// The same at this moment over another backend; the folder is the same one.
    pub(crate) fn fork(&self, backend: Arc<dyn CatalogBackend>) -> Lake {
        let clock = Arc::new(TestClock(watch::Sender::new(self.clock_ms())));
        let ids = Arc::new(TestIds(AtomicU64::new(self.ids.0.load(Ordering::Relaxed))));
        let catalog = Catalog::new(backend, Arc::clone(&clock) as _, Arc::clone(&ids) as _);
        Lake { catalog, clock, ids, dir: Arc::clone(&self.dir) }
    }

    pub(crate) fn clock_ms(&self) -> i64 {
        self.clock.now().0
    }

    pub(crate) fn publisher(&self) -> Publisher {
        self.publisher_on(Arc::clone(self.catalog.backend()), PublisherConfig::default())
    }

    pub(crate) fn publisher_on(
        &self,
        backend: Arc<dyn CatalogBackend>,
        config: PublisherConfig,
    ) -> Publisher {
        let (clock, ids) = (self.catalog.clock(), self.catalog.ids());
        Publisher::new(backend, Arc::clone(clock), Arc::clone(ids), config)
    }

    /// The local log folder of a table of [`Lake::create`].
    pub(crate) fn log(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name).join("_delta_log")
    }

    pub(crate) fn location(&self, name: &str) -> String {
        crate::store::normalize_location(self.dir.path().join(name).to_str().unwrap()).unwrap()
    }

    pub(crate) async fn create(&self, name: &str, zero: &str) -> TableId {
        self.create_with(name, zero, MirrorMode::Active).await
    }

    pub(crate) async fn create_with(&self, name: &str, zero: &str, mirror: MirrorMode) -> TableId {
        let target = ChangeTarget::Create {
            name: name.parse().unwrap(),
            location: self.location(name),
            storage_options: BTreeMap::new(),
            mirror,
            fence: false,
        };
        self.change(target, zero).await.0
    }

    /// Commits on the head, one second later.
    pub(crate) async fn commit(&self, id: TableId, ndjson: &str) -> Version {
        self.clock.advance(1_000);
        let target = ChangeTarget::Existing { table: TableRef::Id(id), read_version: None };
        self.change(target, ndjson).await.1
    }

    pub(crate) async fn change(&self, target: ChangeTarget, ndjson: &str) -> (TableId, Version) {
        let change = TableChange {
            target,
            ndjson: ndjson.into(),
            origin: "test".into(),
            reads: Reads::default(),
            operation: None,
        };
        let batch = CommitBatch { token: None, tables: vec![change] };
        let done = self.catalog.commit(batch).await.unwrap().tables.remove(0);
        (done.table_id, done.version)
    }

    /// A table with versions 0 to `head`; each commit adds one file.
    pub(crate) async fn table(&self, name: &str, head: i64) -> TableId {
        let id = self.create(name, &zero("", "")).await;
        for i in 1..=head {
            self.commit(id, &add(&format!("part-{i}.parquet"))).await;
        }
        id
    }
}

/// Version 0 of a table `id: long, day: string`, partitioned by `day`.
pub(crate) fn zero(features: &str, properties: &str) -> String {
    let reader: Vec<&str> = features
        .split(',')
        .filter(|f| ["\"deletionVectors\"", "\"v2Checkpoint\""].contains(f))
        .collect();
    let (version, reader) = if reader.is_empty() {
        (1, String::new())
    } else {
        (3, format!("\"readerFeatures\":[{}],", reader.join(",")))
    };
    let field = |name: &str, ty: &str| {
        format!(r#"{{\"name\":\"{name}\",\"type\":\"{ty}\",\"nullable\":true,\"metadata\":{{}}}}"#)
    };
    format!(
        "{{\"protocol\":{{\"minReaderVersion\":{version},\"minWriterVersion\":7,{reader}\
         \"writerFeatures\":[{features}]}}}}\n\
         {{\"metaData\":{{\"id\":\"5fba94ed-9794-4965-ba6e-6ee3c0d22af9\",\"name\":\"n\",\
         \"format\":{{\"provider\":\"parquet\",\"options\":{{}}}},\
         \"schemaString\":\"{{\\\"type\\\":\\\"struct\\\",\\\"fields\\\":[{},{}]}}\",\
         \"partitionColumns\":[\"day\"],\"configuration\":{{{properties}}},\
         \"createdTime\":1700000000000}}}}\n",
        field("id", "long"),
        field("day", "string"),
    )
}

pub(crate) fn add(path: &str) -> String {
    format!(
        "{{\"add\":{{\"path\":\"{path}\",\"partitionValues\":{{\"day\":\"2024-01-01\"}},\
         \"size\":100,\"modificationTime\":1700000000000,\"dataChange\":true,\
         \"stats\":\"{{\\\"numRecords\\\":3}}\",\"tags\":{{\"a\":\"b\",\"c\":null}}}}}}\n"
    )
}

pub(crate) fn remove(path: &str, at_ms: i64) -> String {
    format!(
        "{{\"remove\":{{\"path\":\"{path}\",\"deletionTimestamp\":{at_ms},\"dataChange\":true,\
         \"extendedFileMetadata\":true,\"partitionValues\":{{\"day\":\"2024-01-01\"}},\
         \"size\":100}}}}\n"
    )
}

/// Names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(found) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        found.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

impl Lake {
    /// A table whose state starts from a checkpoint of version `base`: history from `first` on,
    /// one file an earlier version, and commits up to `head`.
    pub(crate) async fn imported(&self, name: &str, first: i64, base: i64, head: i64) -> TableId {
        let backend = self.catalog.backend();
        let id = TableId(self.catalog.ids().uuid());
        let table = NewTable {
            id,
            name: name.parse().unwrap(),
            location: self.location(name),
            storage_options: BTreeMap::new(),
            mirror: MirrorMode::Active,
        };
        let version = |v| Version::new(v).unwrap();
        let time = |v| TimestampMs(START_MS + v * 1_000);
        let zero = zero("", "\"delta.checkpointInterval\":\"4\"");
        let zero = index_lines(parse_ndjson("test", zero.as_bytes()).unwrap());
        let lines = |v| add(&format!("part-{v}.parquet"));
        let index = |v| index_lines(parse_ndjson("test", lines(v).as_bytes()).unwrap());
        let files = (1..=base).flat_map(|v| index(v).adds).collect();
        let tail = BaseTail {
            protocol: zero.protocol.unwrap(),
            metadata: zero.metadata.unwrap(),
            txns: Vec::new(),
            domain_metadata: Vec::new(),
            timestamp: time(base),
        };
        let now = self.catalog.clock().now();
        backend.import_begin(&table, version(base), false, now).await.unwrap();
        let chunk = BaseChunk { files, tombstones: Vec::new() };
        backend.import_base(id, 0, 0, chunk, Some(tail)).await.unwrap();
        let commits: Vec<ImportedCommit> = (first..=head)
            .map(|v| ImportedCommit {
                version: version(v),
                timestamp: time(v),
                body: CommitBody::verbatim(lines(v).as_bytes()).unwrap(),
                index: index(v),
                later: None,
                token: None,
            })
            .collect();
        backend.import_commits(id, commits.into()).await.unwrap();
        let end = ImportEnd { published: Some(version(head)), ..ImportEnd::default() };
        backend.import_finish(id, end, &Act::at(now)).await.unwrap();
        self.clock.advance(head * 1_000);
        id
    }
}

/// Whether a file of a log is a commit.
pub(crate) fn is_commit(name: &str) -> bool {
    matches!(LogName::parse(name), LogName::Commit(_))
}

/// Deletes the version checksums of a log.
pub(crate) fn remove_checksums(folder: &Path) {
    for name in names(folder) {
        if matches!(LogName::parse(&name), LogName::Checksum(_)) {
            std::fs::remove_file(folder.join(name)).unwrap();
        }
    }
}
