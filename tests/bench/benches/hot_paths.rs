//! The paths that everything else waits for, on SQLite: `cargo bench -p deltalakedb-bench`. `-- --save-baseline
//! NAME` keeps the figures, `-- --baseline NAME` compares with them.
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has failed")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use deltalakedb::Db;
use deltalakedb::core::backend::CommitFilter;
use deltalakedb::core::catalog::{ChangeTarget, CommitBatch, TableChange};
use deltalakedb::core::commit::index_ndjson;
use deltalakedb::core::conflict::Reads;
use deltalakedb::core::ids::{At, TableId, TableRef, Version};
use deltalakedb::core::model::MirrorMode;
use deltalakedb::core::plan::LARGE_BYTES;
use deltalakedb::core::predicate::{ColumnPath, CompareOp, Literal, Predicate, Pruner};
use futures::TryStreamExt;
use futures::future::join_all;
use tokio::runtime::Runtime;

const FILES: u64 = 50_000;
/// Rows of a file; ids follow each other.
const ROWS: u64 = 1_000;

struct World {
    runtime: Runtime,
    db: Db,
    table: TableId,
    _folder: tempfile::TempDir,
}

fn add(n: u64) -> String {
    let stats = serde_json::json!({"numRecords": ROWS,
        "minValues": {"id": n * ROWS, "name": format!("a{n}")},
        "maxValues": {"id": n * ROWS + ROWS - 1, "name": format!("z{n}")},
        "nullCount": {"id": 0, "name": 2}});
    let add = serde_json::json!({"add": {"path": format!("day={}/part-{n}.parquet", n % 5_000),
        "partitionValues": {"day": (n % 5_000).to_string()}, "size": 1_000, "modificationTime": 1,
        "dataChange": true, "stats": stats.to_string()}});
    format!("{add}\n")
}

fn change(target: ChangeTarget, ndjson: String) -> CommitBatch {
    let change = TableChange {
        target,
        ndjson: ndjson.into(),
        origin: "bench".into(),
        reads: Reads::default(),
        operation: None,
    };
    CommitBatch { token: None, tables: vec![change] }
}

impl World {
    fn new() -> World {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let uri = format!("sqlite://{}", folder.path().join("catalog.db").display());
        let (db, table) = runtime.block_on(async {
            let db = Db::create(&uri.parse().unwrap()).await.unwrap();
            let field = |name: &str, kind: &str| {
                serde_json::json!({"name": name, "type": kind, "nullable": true, "metadata": {}})
            };
            let schema = serde_json::json!({"type": "struct", "fields":
                [field("id", "long"), field("name", "string"), field("day", "integer")]});
            let protocol =
                serde_json::json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}});
            let metadata = serde_json::json!({"metaData": {"id": "bench",
                "format": {"provider": "parquet", "options": {}}, "partitionColumns": ["day"],
                "schemaString": schema.to_string(), "configuration": {}}});
            let target = ChangeTarget::Create {
                name: "t".parse().unwrap(),
                location: "memory://t".to_owned(),
                storage_options: BTreeMap::new(),
                mirror: MirrorMode::Off,
                fence: false,
            };
            let created = db.commit(change(target, format!("{protocol}\n{metadata}\n")));
            let table = created.await.unwrap().tables[0].table_id;
            for first in (0..FILES).step_by(1_000) {
                let lines: Vec<String> = (first..first + 1_000).map(add).collect();
                let target =
                    ChangeTarget::Existing { table: TableRef::Id(table), read_version: None };
                db.commit(change(target, lines.concat())).await.unwrap();
            }
            deltalakedb::indexing::finished().await;
            (db, table)
        });
        World { runtime, db, table, _folder: folder }
    }

    /// Another handle, with an option in its URL.
    fn also_open(&self, option: &str) -> Db {
        let uri = format!("{}?{option}", self.db.uri()).parse().unwrap();
        self.runtime.block_on(Db::open(&uri)).unwrap()
    }

    fn planned(&self, predicate: &Predicate) -> usize {
        self.runtime.block_on(async {
            let head = self.db.snapshot(&TableRef::Id(self.table), At::Head).await.unwrap();
            let files = self.db.files_matching(&head, predicate).unwrap();
            files.try_fold(0, |count, _| async move { Ok(count + 1) }).await.unwrap()
        })
    }
}

fn hot_paths(criterion: &mut Criterion) {
    let world = World::new();
    let by_name = TableRef::Name("t".parse().unwrap());
    let open = |at| world.runtime.block_on(world.db.snapshot(&by_name, at)).unwrap();
    criterion.bench_function("open the head", |b| b.iter(|| black_box(open(At::Head))));
    let middle = At::Version(Version::new(25).unwrap());
    criterion.bench_function("open a version", |b| b.iter(|| black_box(open(middle))));

    let number = |n: u64| Literal::Number(n.to_string());
    let day = Predicate::compare(ColumnPath::top("day"), CompareOp::Eq, number(77));
    let ids =
        Predicate::between(ColumnPath::top("id"), number(20_000 * ROWS), number(20_010 * ROWS - 1));
    for (name, predicate) in [("by partition", day), ("by a range", ids)] {
        assert_eq!(world.planned(&predicate), 10);
        criterion.bench_function(&format!("find 10 of {FILES} files {name}"), |b| {
            b.iter(|| black_box(world.planned(&predicate)));
        });
    }
    let uncached = world.also_open("cache_size_bytes=0");
    criterion.bench_function("list 10,000 files", |b| {
        let list =
            || uncached.backend().list_files(world.table, open(At::Head).version, None, 10_000);
        b.iter(|| black_box(world.runtime.block_on(list()).unwrap().items.len()));
    });
    for (from, db) in [("the database", &uncached), ("memory", &world.db)] {
        criterion.bench_function(&format!("list all of {FILES} files from {from}"), |b| {
            let list = async || {
                let files = db.files(world.table, open_head(&world).await);
                files.try_fold(0, |count, _| async move { Ok(count + 1) }).await.unwrap()
            };
            assert_eq!(world.runtime.block_on(list()), FILES);
            b.iter(|| black_box(world.runtime.block_on(list())));
        });
    }
    let stale = world.also_open("cache_max_staleness=60s");
    criterion.bench_function("open a head within a stated staleness", |b| {
        b.iter(|| world.runtime.block_on(stale.snapshot(&by_name, At::Head)).unwrap());
    });
    criterion.bench_function("history of 51 commits", |b| {
        let history = || world.db.history(world.table, CommitFilter::default());
        b.iter(|| world.runtime.block_on(history().try_collect::<Vec<_>>()).unwrap().len());
    });
    let lines: String = (0..10_000).map(add).collect();
    criterion.bench_function("read the lines of 10,000 files", |b| {
        b.iter(|| index_ndjson("bench", lines.as_bytes()).unwrap().adds.len());
    });
    criterion.bench_function("open the catalog and the head", |b| {
        b.iter(|| {
            world.runtime.block_on(async {
                let db = Db::open(world.db.uri()).await.unwrap();
                db.snapshot(&by_name, At::Head).await.unwrap().version
            })
        });
    });
    let files = world
        .runtime
        .block_on(world.db.backend().list_files(world.table, open(At::Head).version, None, 1_000))
        .unwrap();
    let range = Predicate::between(ColumnPath::top("id"), number(5), number(50));
    let pruner = Pruner::new(&open(At::Head).metadata, &range).unwrap();
    criterion.bench_function("look at the statistics of 1,000 files", |b| {
        b.iter(|| files.items.iter().filter(|file| pruner.may_match(&file.add)).count());
    });
    let next = AtomicU64::new(FILES);
    criterion.bench_function("commit one file", |b| {
        b.iter(|| {
            let table = TableRef::Id(world.table);
            let target = ChangeTarget::Existing { table, read_version: None };
            let n = next.fetch_add(1, Ordering::Relaxed);
            world.runtime.block_on(world.db.commit(change(target, add(n)))).unwrap()
        });
    });
    criterion.bench_function("64 tasks commit one file each", |b| {
        let commit = async || {
            let table = TableRef::Id(world.table);
            let target = ChangeTarget::Existing { table, read_version: None };
            let n = next.fetch_add(1, Ordering::Relaxed);
            world.db.commit(change(target, add(n))).await.unwrap()
        };
        b.iter(|| {
            let all = join_all((0..64).map(|_| commit()));
            world.runtime.block_on(all).len()
        });
    });
}

/// More than is held in memory: adds are read in pages.
fn large_commits(criterion: &mut Criterion) {
    let world = World::new();
    let mut group = criterion.benchmark_group("large");
    group.sample_size(10);
    let mut next = 10 * FILES;
    group.bench_function("commit 130,000 files", |b| {
        let lines = || {
            let lines: String = (next..next + 130_000).map(add).collect();
            assert!(lines.len() > LARGE_BYTES);
            next += 130_000;
            lines
        };
        let commit = |lines| {
            let table = TableRef::Id(world.table);
            let target = ChangeTarget::Existing { table, read_version: None };
            world.runtime.block_on(world.db.commit(change(target, lines))).unwrap()
        };
        b.iter_batched(lines, commit, BatchSize::PerIteration);
    });
}

async fn open_head(world: &World) -> Version {
    world.db.snapshot(&TableRef::Id(world.table), At::Head).await.unwrap().version
}

criterion_group!(benches, hot_paths, large_commits);
criterion_main!(benches);
