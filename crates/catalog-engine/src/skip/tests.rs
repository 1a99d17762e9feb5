use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::maintain::maintain_within;
use super::plan::{Step, walk};
use super::*;
use crate::catalog::{Catalog, ChangeTarget, CommitBatch, TableChange};
use crate::conflict::Reads;
use crate::env::{Clock, IdSource};
use crate::fault::{Fault, FaultyBackend, Verb};
use crate::memory::MemoryBackend;
use crate::predicate::tests::{RANDOM, conds, describe, files, metadata, writers};
use crate::predicate::{ColumnPath, CompareOp, Literal, Predicate, Pruner};
use crate::retry::Retry;
use crate::schema::StructType;
use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{FileCursor, MirrorMode, NewSkipSegment, Snapshot};

#[derive(Debug)]
struct NoTime;

#[async_trait]
impl Clock for NoTime {
    fn now(&self) -> TimestampMs {
        TimestampMs(1)
    }
    async fn sleep(&self, _: Duration) {}
}

#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl IdSource for Counted {
    fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1)
    }
    fn fraction(&self) -> f64 {
        0.5
    }
}

const SMALL: Limits = Limits {
    tail: 2,
    min_files: 0,
    block_files: 3,
    inline_blocks: 2,
    segment_files: 24,
    segment_entries: usize::MAX,
};

/// A table, and what is done to it.
struct World {
    backend: Arc<dyn CatalogBackend>,
    catalog: Catalog,
    table: TableId,
    names: usize,
}

impl World {
    async fn new(backend: Arc<dyn CatalogBackend>) -> World {
        let catalog =
            Catalog::new(Arc::clone(&backend), Arc::new(NoTime), Arc::new(Counted::default()));
        let zero = [
            json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
            json!({"metaData": metadata(RANDOM, &["p", "q"])}),
        ];
        let target = ChangeTarget::Create {
            name: "t".parse().unwrap(),
            location: "memory://t".into(),
            storage_options: BTreeMap::new(),
            mirror: MirrorMode::Off,
            fence: false,
        };
        let mut world = World { backend, catalog, table: TableId(Uuid::nil()), names: 0 };
        world.table = world.commit(target, &zero).await;
        world
    }

    async fn commit(&self, target: ChangeTarget, lines: &[serde_json::Value]) -> TableId {
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        let change = TableChange {
            target,
            ndjson: lines.join("\n").into(),
            origin: "test".into(),
            reads: Reads::default(),
            operation: None,
        };
        let batch = CommitBatch { token: None, tables: vec![change] };
        self.catalog.commit(batch).await.unwrap().tables[0].table_id
    }

    /// Adds files under fresh names, and takes every `n`th one of those that are there away.
    async fn change(&mut self, adds: Vec<Add>, n: Option<usize>) {
        let mut lines = Vec::new();
        for add in adds {
            self.names += 1;
            lines.push(json!({"add": Add { path: format!("f{}", self.names), ..add }}));
        }
        if let Some(n) = n {
            for file in self.all(&self.head().await).await.iter().step_by(n) {
                let remove = json!({"path": file.1.path, "dataChange": true});
                lines.push(json!({"remove": remove}));
            }
        }
        self.append(&lines).await;
    }

    async fn append(&self, lines: &[serde_json::Value]) {
        let table = TableRef::Id(self.table);
        if !lines.is_empty() {
            self.commit(ChangeTarget::Existing { table, read_version: None }, lines).await;
        }
    }

    async fn head(&self) -> Snapshot {
        self.at(At::Head).await
    }

    async fn at(&self, at: At) -> Snapshot {
        self.catalog.snapshot(&TableRef::Id(self.table), at).await.unwrap()
    }

    async fn all(&self, snapshot: &Snapshot) -> Vec<(FileCursor, Add)> {
        let files = self.catalog.files(self.table, snapshot.version);
        files.map_ok(|f| (f.cursor, f.add)).try_collect().await.unwrap()
    }

    async fn index(&self) -> deltalakedb_catalog_core::error::Result<Maintained> {
        maintain_within(&*self.backend, &Retry::of(&self.catalog), self.table, SMALL).await
    }

    /// What planning gives.
    async fn planned(&self, snapshot: &Snapshot, predicate: &Predicate) -> Vec<FileCursor> {
        let pruner = Pruner::new(&snapshot.metadata, predicate).unwrap();
        let (backend, retry) = (Arc::clone(&self.backend), Retry::of(&self.catalog));
        let files = walk(backend, retry, snapshot, pruner, Step::Index);
        files.map_ok(|file| file.cursor).try_collect().await.unwrap()
    }

    /// What looking at each file gives.
    async fn wanted(&self, snapshot: &Snapshot, predicate: &Predicate) -> Vec<FileCursor> {
        let pruner = Pruner::new(&snapshot.metadata, predicate).unwrap();
        let files = self.all(snapshot).await.into_iter();
        files.filter(|(_, add)| pruner.may_match(add)).map(|(cursor, _)| cursor).collect()
    }
}

/// What happens to a table: files of each commit, whether some are removed, and whether the index is
/// brought up to date afterwards.
type History = Vec<(Vec<Add>, Option<usize>, bool)>;

fn histories() -> impl Strategy<Value = History> {
    let file = (files(), writers()).prop_map(|(rows, writer)| describe(&rows, &writer));
    let remove = prop::option::weighted(0.2, 1..5_usize);
    let step = (prop::collection::vec(file, 0..12), remove, prop::bool::weighted(0.4));
    prop::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Through the index come exactly the files that are left when each is looked at, in their order:
    /// at every version, whatever was indexed when.
    #[test]
    fn the_index_leaves_out_what_looking_at_each_file_does(
        history in histories(),
        questions in prop::collection::vec((conds(), any::<prop::sample::Index>()), 6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(Arc::new(MemoryBackend::new())).await;
            for (adds, remove, index) in history {
                world.change(adds, remove).await;
                if index {
                    world.index().await.unwrap();
                }
            }
            let head = world.head().await.version.get();
            for (cond, version) in questions {
                let version = i64::try_from(version.index(usize::try_from(head).unwrap() + 1)).unwrap();
                for at in [At::Version(Version::new(version).unwrap()), At::Head] {
                    let snapshot = world.at(at).await;
                    let predicate = cond.predicate();
                    assert_eq!(
                        world.planned(&snapshot, &predicate).await,
                        world.wanted(&snapshot, &predicate).await,
                        "{predicate:?} at {at:?}"
                    );
                }
            }
        });
    }
}

/// Files of one column: each spans so many values from `start` on.
fn span(start: i64, width: i64, partition: i64) -> Add {
    let stats = format!(
        r#"{{"numRecords":1,"minValues":{{"i":{start}}},"maxValues":{{"i":{}}},"nullCount":{{"i":0}}}}"#,
        start + width
    );
    Add {
        path: String::new(),
        partition_values: [("p".to_owned(), Some(partition.to_string())), ("q".to_owned(), None)]
            .into_iter()
            .collect(),
        size: 1,
        modification_time: 0,
        data_change: true,
        stats: Some(stats),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

fn column(name: &str) -> ColumnPath {
    ColumnPath::top(name)
}

fn number(n: i64) -> Literal {
    Literal::Number(n.to_string())
}

/// Counts calls.
async fn counted() -> (World, Arc<FaultyBackend<Arc<MemoryBackend>>>) {
    let backend = Arc::new(FaultyBackend::new(Arc::new(MemoryBackend::new()), |_| Fault::None));
    (World::new(Arc::clone(&backend) as _).await, backend)
}

#[tokio::test]
async fn few_files_are_looked_at_wide_ones_among_them_or_not() {
    let (mut world, backend) = counted().await;
    // 96 narrow files side by side, every 16th one spans all of them.
    let adds =
        (0..96).map(|n| if n % 16 == 0 { span(0, 9_600, n % 7) } else { span(n * 100, 99, n % 7) });
    world.change(adds.collect(), None).await;
    world.index().await.unwrap();
    let head = world.head().await;
    let between = Predicate::between(column("i"), number(4_710), number(4_720));
    let before = backend.calls(Verb::ListFiles);
    let planned = world.planned(&head, &between).await;
    assert_eq!(planned, world.wanted(&head, &between).await);
    assert_eq!(planned.len(), 7);
    // None of the tail in planning, as there is none; one of all files in looking at each.
    assert_eq!(backend.calls(Verb::ListFiles) - before, 1);
    assert_eq!(backend.calls(Verb::FilesAt), 1);
    assert_eq!(backend.calls(Verb::SkipPages), 2, "directories, then blocks, of all segments");

    // Of two columns both rule out.
    let both = Predicate::And(vec![
        Predicate::compare(column("p"), CompareOp::Eq, Literal::Text("3".into())),
        Predicate::between(column("i"), number(1_000), number(3_000)),
    ]);
    let planned = world.planned(&head, &both).await;
    assert_eq!(planned, world.wanted(&head, &both).await);
    assert!(!planned.is_empty());
    // Nothing at all: no page of a block, no file.
    let calls = || [Verb::SkipPages, Verb::FilesAt].map(|verb| backend.calls(verb));
    let (before, lists) = (calls(), backend.calls(Verb::ListFiles));
    let none = Predicate::compare(column("i"), CompareOp::Gt, number(1_000_000));
    assert!(world.planned(&head, &none).await.is_empty());
    assert_eq!(calls(), before);
    // Of one segment of four, nothing of the others.
    let first = Predicate::compare(column("i"), CompareOp::Lt, number(150));
    assert_eq!(world.planned(&head, &first).await.len(), 7);
    assert_eq!(backend.calls(Verb::ListFiles) - lists, 0);
    // A file that nothing covers yet is looked at, also by who reads the version before: it may be there.
    world.change(vec![span(100, 10, 1)], None).await;
    assert_eq!(world.planned(&head, &first).await.len(), 7);
    let head = world.head().await;
    assert_eq!(world.planned(&head, &first).await.len(), 8);
    assert_eq!(backend.calls(Verb::ListFiles) - lists, 2, "the tail, each time");
}

/// Of a database that is busy for a moment the index is read later; where it stays busy, that is said, and
/// not answered with a look at every file. Only who may not read the index does without.
#[tokio::test]
async fn a_busy_database_is_no_reason_to_look_at_every_file() {
    for (fault, busy_for) in [("busy", 3_u64), ("busy", u64::MAX), ("failed", u64::MAX)] {
        let memory = Arc::new(MemoryBackend::new());
        let mut world = World::new(Arc::clone(&memory) as _).await;
        world.change((0..96).map(|n| span(n * 100, 99, n % 7)).collect(), None).await;
        world.index().await.unwrap();
        let head = world.head().await;
        let backend = Arc::new(FaultyBackend::new(memory, move |call| match call.verb {
            Verb::SkipIndex if call.nth < busy_for && fault == "busy" => Fault::Busy,
            Verb::SkipIndex if call.nth < busy_for => Fault::Fail,
            _ => Fault::None,
        }));
        let between = Predicate::between(column("i"), number(4_710), number(4_720));
        let pruner = Pruner::new(&head.metadata, &between).unwrap();
        let retry = Retry::of(&world.catalog);
        let files = walk(Arc::clone(&backend) as _, retry, &head, pruner, Step::Index);
        let files: deltalakedb_catalog_core::error::Result<
            Vec<deltalakedb_catalog_core::model::FileRecord>,
        > = files.try_collect().await;
        let lists = backend.calls(Verb::ListFiles);
        match (fault, busy_for) {
            ("busy", 3) => assert_eq!((files.unwrap().len(), lists), (1, 0)),
            ("busy", _) => {
                let error = files.unwrap_err();
                assert!(error.is_retryable() && lists == 0, "{error}, {lists} pages of files");
            }
            _ => assert_eq!((files.unwrap().len(), lists), (1, 1)),
        }
    }
}

#[tokio::test]
async fn segments_that_cannot_answer_are_read_file_by_file() {
    let (mut world, _) = counted().await;
    let adds: Vec<Add> = (0..40).map(|n| span(n * 100, 99, n % 7)).collect();
    world.change(adds, None).await;
    world.index().await.unwrap();
    let index = world.backend.skip_index(world.table).await.unwrap();
    assert_eq!(index.segments.len(), 2, "24 files, and 16");
    let between = Predicate::between(column("i"), number(150), number(3_020));

    // Damage: of the root, of a page; and a page that is not there.
    let (first, second) = (index.segments[0].clone(), index.segments[1].clone());
    let new = |root: &[u8],
               pages: Vec<Vec<u8>>,
               of: &deltalakedb_catalog_core::model::SkipSegment| NewSkipSegment {
        after: of.after,
        through: of.through,
        version: of.version,
        files: of.files,
        root: root.to_vec().into(),
        pages: pages.into_iter().map(Into::into).collect(),
    };
    let broken = new(b"not zstd", Vec::new(), &first);
    assert!(
        world
            .backend
            .skip_replace(world.table, index.generation, &[first.id], &broken)
            .await
            .unwrap()
    );
    let pageless = new(&second.root, vec![b"\x28\xb5\x2f\xfd".to_vec()], &second);
    assert!(
        world
            .backend
            .skip_replace(world.table, index.generation + 1, &[second.id], &pageless)
            .await
            .unwrap()
    );
    let head = world.head().await;
    assert_eq!(world.planned(&head, &between).await, world.wanted(&head, &between).await);

    // The next run makes the first one anew, and all that follow.
    let done = world.index().await.unwrap();
    assert_eq!(done, Maintained { files: 40, segments: 2 });
    assert_eq!(world.planned(&head, &between).await, world.wanted(&head, &between).await);
    assert_eq!(world.index().await.unwrap(), Maintained::default(), "nothing is left to do");
}

#[tokio::test]
async fn a_column_of_another_type_is_indexed_anew() {
    let (mut world, _) = counted().await;
    world.change((0..10).map(|n| span(n * 100, 99, n)).collect(), None).await;
    world.index().await.unwrap();
    let wider = RANDOM.replace("i long", "i double");
    let mut changed = metadata(RANDOM, &["p", "q"]);
    changed.schema_string = StructType::from_text(&wider).unwrap().to_json();
    world.append(&[json!({"metaData": changed})]).await;
    let head = world.head().await;
    let between = Predicate::between(column("i"), number(150), number(320));
    assert_eq!(world.planned(&head, &between).await, world.wanted(&head, &between).await);
    assert_eq!(world.index().await.unwrap(), Maintained { files: 10, segments: 1 });
    assert_eq!(world.planned(&head, &between).await, world.wanted(&head, &between).await);
}

#[tokio::test]
async fn of_two_that_maintain_an_index_one_wins() {
    let memory = Arc::new(MemoryBackend::new());
    let mut world = World::new(Arc::clone(&memory) as _).await;
    world.change((0..60).map(|n| span(n * 100, 99, n)).collect(), None).await;
    // Somebody else is faster, each time.
    let other = Arc::clone(&memory);
    let table = world.table;
    let backend = FaultyBackend::new(memory, move |call| {
        if call.verb == Verb::SkipReplace {
            let other = Arc::clone(&other);
            futures::executor::block_on(async move {
                let generation = other.skip_index(table).await.unwrap().generation;
                let segment = NewSkipSegment {
                    after: None,
                    through: FileCursor { added_version: Version::ZERO, ordinal: 0 },
                    version: Version::ZERO,
                    files: 0,
                    root: Vec::new().into(),
                    pages: Vec::new(),
                };
                assert!(other.skip_replace(table, generation, &[], &segment).await.unwrap());
            });
        }
        Fault::None
    });
    let retry = Retry::of(&world.catalog);
    let done = maintain_within(&backend, &retry, table, SMALL).await.unwrap();
    assert_eq!(done, Maintained::default());
    assert_eq!(backend.calls(Verb::SkipReplace), 1, "it stops at once");
    assert_eq!(world.index().await.unwrap().files, 60, "and the next run puts it right");
}
