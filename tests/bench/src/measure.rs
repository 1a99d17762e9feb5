//! One measurement in this process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deltalakedb::Db;
use deltalakedb::core::backend::CommitFilter;
use deltalakedb::core::catalog::{ChangeTarget, CommitBatch, TableChange};
use deltalakedb::core::conflict::Reads;
use deltalakedb::core::env::NoProgress;
use deltalakedb::core::ids::{At, TableId, TableRef, Version};
use deltalakedb::core::predicate::{ColumnPath, CompareOp, Literal, Predicate};
use deltalakedb::mirror::import::{ImportOptions, import_table};
use deltalakedb::mirror::publish::PublisherConfig;
use deltalakedb::mirror::store::normalize_location;
use deltalakedb::uri::CatalogUri;
use futures::TryStreamExt;

use crate::generate::{FILES_PER_DAY, Probe};
use crate::{AnyError, bulk, mirror, safety};

pub(crate) const TABLE: &str = "bench.t";
const HOT: &str = "bench.hot";

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Subject {
    /// Working folder.
    pub(crate) dir: PathBuf,
    /// The catalog [default: a SQLite file in the working folder].
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Files of the table.
    #[arg(long, default_value_t = 0)]
    pub(crate) files: u64,
    /// Version to go back to.
    #[arg(long, default_value_t = 0)]
    pub(crate) version: i64,
    /// Seconds of the commit loop.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Concurrent committers, or tables.
    #[arg(long, default_value_t = 1)]
    pub(crate) tasks: u64,
}

impl Subject {
    pub(crate) fn in_folder(dir: &Path) -> Subject {
        let dir = dir.to_owned();
        Subject { dir, url: None, files: 0, version: 0, seconds: 10, tasks: 1 }
    }

    pub(crate) fn uri(&self) -> Result<CatalogUri, AnyError> {
        match &self.url {
            Some(url) => Ok(url.parse()?),
            None => Ok(uri(&self.dir)),
        }
    }

    /// The catalog, with one more option in its URL.
    fn uri_with(&self, option: &str) -> Result<CatalogUri, AnyError> {
        let url = self.url.clone().unwrap_or_else(|| uri(&self.dir).to_string());
        let sign = if url.contains('?') { '&' } else { '?' };
        Ok(format!("{url}{sign}{option}").parse()?)
    }
}

pub(crate) fn one(what: &str, subject: &Subject) -> Result<(), AnyError> {
    let runtime = tokio::runtime::Runtime::new()?;
    let Subject { dir, seconds, tasks, .. } = subject;
    let (seconds, tasks) = (*seconds, *tasks);
    match what {
        "import" => runtime.block_on(import(subject, true))?,
        "import-validated" => runtime.block_on(import(subject, false))?,
        "connect" => runtime.block_on(bulk::connect(subject))?,
        "bulk" => runtime.block_on(bulk::bulk(subject))?,
        "open" => runtime.block_on(open(subject))?,
        "refresh" => runtime.block_on(refresh(&subject.uri()?))?,
        "refresh-stale" => {
            runtime.block_on(refresh(&subject.uri_with("cache_max_staleness=60s")?))?;
        }
        "replan" => runtime.block_on(replan(subject))?,
        "list" => runtime.block_on(list(subject))?,
        "relist" => runtime.block_on(relist(subject))?,
        "plan-partition" | "plan-stats" => runtime.block_on(plan(what, subject))?,
        "travel" => runtime.block_on(travel(subject))?,
        "history" => runtime.block_on(history(subject))?,
        "add-all" => runtime.block_on(add_all(subject))?,
        "commit" => runtime.block_on(commit(subject, 1))?,
        "commit-tables" => runtime.block_on(commit(subject, 16))?,
        "commit-processes" => runtime.block_on(commit_processes(subject))?,
        "commit-into" => runtime.block_on(commit_into(subject))?,
        "backup" => runtime.block_on(safety::back_up(subject, true))?,
        "backup-next" => runtime.block_on(safety::back_up(subject, false))?,
        "backup-verify" => runtime.block_on(safety::verify(subject))?,
        "restore" => runtime.block_on(safety::restore(subject))?,
        "checkpoint" => runtime.block_on(mirror::checkpoint(dir))?,
        "publish-local" => runtime.block_on(mirror::publish(dir, "local", tasks, 400))?,
        "publish-s3" => runtime.block_on(mirror::publish(dir, "s3", tasks, 400))?,
        "lag-local" => runtime.block_on(mirror::lag(dir, "local", tasks, 200, seconds))?,
        "lag-s3" => runtime.block_on(mirror::lag(dir, "s3", tasks, 200, seconds))?,
        other => return Err(format!("no measurement '{other}'").into()),
    }
    println!("peak_mb={}", peak_mb()?);
    Ok(())
}

pub(crate) fn uri(dir: &Path) -> CatalogUri {
    CatalogUri::sqlite(dir.join("catalog.db"))
}

pub(crate) fn print_ms(since: Instant) {
    println!("ms={}", since.elapsed().as_secs_f64() * 1e3);
}

async fn import(subject: &Subject, skip_validation: bool) -> Result<(), AnyError> {
    let started = Instant::now();
    let db = Db::create(&subject.uri()?).await?;
    let location = normalize_location(&subject.dir.join("t").to_string_lossy())?;
    let options = ImportOptions { skip_validation, ..ImportOptions::new(TABLE.parse()?, location) };
    import_table(&db, options, &NoProgress).await?;
    print_ms(started);
    Ok(())
}

fn table() -> Result<TableRef, AnyError> {
    Ok(TableRef::Name(TABLE.parse()?))
}

async fn open(subject: &Subject) -> Result<(), AnyError> {
    let uri = subject.uri()?;
    let started = Instant::now();
    let snapshot = Db::open(&uri).await?.snapshot(&table()?, At::Head).await?;
    print_ms(started);
    print_count(snapshot.num_files);
    Ok(())
}

/// Prints the median time of a call that was made before.
async fn print_median_ms(
    times: usize,
    mut call: impl AsyncFnMut() -> Result<(), AnyError>,
) -> Result<(), AnyError> {
    call().await?;
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let started = Instant::now();
        call().await?;
        taken.push(started.elapsed().as_secs_f64() * 1e3);
    }
    taken.sort_by(f64::total_cmp);
    println!("ms={}", taken.get(times / 2).copied().unwrap_or(f64::NAN));
    Ok(())
}

/// Asks once more what the head is.
async fn refresh(uri: &CatalogUri) -> Result<(), AnyError> {
    let (db, table) = (Db::open(uri).await?, table()?);
    print_median_ms(201, async || Ok(db.snapshot(&table, At::Head).await.map(drop)?)).await
}

/// Finds ten files once more.
async fn replan(subject: &Subject) -> Result<(), AnyError> {
    let db = Db::open(&subject.uri()?).await?;
    let predicate = predicate("plan-stats", subject.files);
    print_median_ms(51, async || planned(&db, &predicate).await).await
}

/// Lists all files once more, with room for the list in memory.
async fn relist(subject: &Subject) -> Result<(), AnyError> {
    let db = Db::open(&subject.uri_with("cache_size_bytes=1073741824")?).await?;
    print_median_ms(5, async || listed(&db).await.map(drop)).await
}

async fn travel(subject: &Subject) -> Result<(), AnyError> {
    let uri = subject.uri()?;
    let version = At::Version(Version::new(subject.version)?);
    let started = Instant::now();
    let snapshot = Db::open(&uri).await?.snapshot(&table()?, version).await?;
    print_ms(started);
    print_count(snapshot.num_files);
    Ok(())
}

async fn history(subject: &Subject) -> Result<(), AnyError> {
    let uri = subject.uri()?;
    let started = Instant::now();
    let db = Db::open(&uri).await?;
    let id = db.catalog().table(&table()?).await?.id;
    let mut commits = db.history(id, CommitFilter::default());
    let mut count = 0;
    while commits.try_next().await?.is_some() {
        count += 1;
    }
    print_ms(started);
    print_count(count);
    Ok(())
}

/// Finds the ten files that a filter needs.
async fn plan(what: &str, subject: &Subject) -> Result<(), AnyError> {
    let (uri, predicate) = (subject.uri()?, predicate(what, subject.files));
    let started = Instant::now();
    planned(&Db::open(&uri).await?, &predicate).await?;
    print_ms(started);
    Ok(())
}

/// What is true of ten files of a table of so many.
fn predicate(what: &str, files: u64) -> Predicate {
    let probe = Probe::of(files);
    let (low, high) = probe.ids;
    if what == "plan-partition" {
        return Predicate::compare(ColumnPath::top("day"), CompareOp::Eq, Literal::Date(probe.day));
    }
    let number = |n: u64| Literal::Number(n.to_string());
    Predicate::between(ColumnPath::top("id"), number(low), number(high))
}

async fn planned(db: &Db, predicate: &Predicate) -> Result<(), AnyError> {
    let snapshot = db.snapshot(&table()?, At::Head).await?;
    let mut files = db.files_matching(&snapshot, predicate)?;
    let mut count = 0_u64;
    while files.try_next().await?.is_some() {
        count += 1;
    }
    if count != FILES_PER_DAY {
        return Err(format!("{count} files were found, {FILES_PER_DAY} match").into());
    }
    Ok(())
}

async fn list(subject: &Subject) -> Result<(), AnyError> {
    let uri = subject.uri()?;
    let started = Instant::now();
    let count = listed(&Db::open(&uri).await?).await?;
    print_ms(started);
    print_count(count);
    Ok(())
}

async fn listed(db: &Db) -> Result<u64, AnyError> {
    let snapshot = db.snapshot(&table()?, At::Head).await?;
    let mut files = db.files(snapshot.table.id, snapshot.version);
    let mut count = 0_u64;
    while files.try_next().await?.is_some() {
        count += 1;
    }
    if count != snapshot.num_files {
        return Err(format!("{count} files were listed, {} are there", snapshot.num_files).into());
    }
    Ok(count)
}

fn print_count(count: u64) {
    println!("count={count}");
}

/// One commit of a program's own with all files of the first commit of the log, as a new table without a
/// mirror.
async fn add_all(subject: &Subject) -> Result<(), AnyError> {
    let db = Db::open(&subject.uri()?).await?;
    let log = subject.dir.join("t").join("_delta_log");
    let text = std::fs::read_to_string(log.join(format!("{:020}.json", 0)))?;
    let run = db.ids().uuid().as_simple().to_string();
    let create = ChangeTarget::Create {
        name: format!("all-{run}").parse()?,
        location: normalize_location(&subject.dir.join(&run).to_string_lossy())?,
        storage_options: BTreeMap::new(),
        mirror: deltalakedb::core::model::MirrorMode::Off,
        fence: false,
    };
    let started = Instant::now();
    let created = db.commit(batch(create, text)).await?;
    print_ms(started);
    let id = created.tables.first().ok_or("no table was created")?.table_id;
    let snapshot = db.snapshot(&TableRef::Id(id), At::Head).await?;
    if snapshot.num_files != subject.files {
        return Err(format!("{} files were added of {}", snapshot.num_files, subject.files).into());
    }
    Ok(())
}

/// A table for small commits, in the catalog that holds the large one.
async fn create_hot(db: &Db, dir: &Path) -> Result<TableId, AnyError> {
    // A run after another one has a table of its own.
    let run = db.ids().uuid().as_simple().to_string();
    let location = normalize_location(&dir.join(format!("hot-{run}")).to_string_lossy())?;
    let schema =
        r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}"#;
    let protocol = serde_json::json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 7,
        "writerFeatures": ["inCommitTimestamp"]}});
    let metadata = serde_json::json!({"metaData": {"id": "hot", "schemaString": schema,
        "format": {"provider": "parquet", "options": {}}, "partitionColumns": [],
        "configuration": {"delta.enableInCommitTimestamps": "true"}}});
    let create = ChangeTarget::Create {
        name: format!("{HOT}-{run}").parse()?,
        location,
        storage_options: BTreeMap::new(),
        mirror: deltalakedb::core::model::MirrorMode::Active,
        fence: false,
    };
    let created = db.commit(batch(create, format!("{protocol}\n{metadata}\n"))).await?;
    Ok(created.tables.first().ok_or("no table was created")?.table_id)
}

/// One-file commits by so many tasks, to the tables in turns, for a while; how long each took, ms.
async fn commits(
    db: &Db,
    tables: &[TableId],
    tasks: u64,
    seconds: u64,
) -> Result<Vec<f64>, AnyError> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut committers = Vec::new();
    for (task, id) in (0..tasks).zip(tables.iter().copied().cycle()) {
        let db = db.clone();
        // Unique, also beside other processes.
        let prefix = format!("{}-{task}", std::process::id());
        committers.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < deadline {
                let add = serde_json::json!({"add": {
                    "path": format!("part-{prefix}-{}.parquet", times.len()), "partitionValues": {},
                    "size": 1000, "modificationTime": 1, "dataChange": true,
                    "stats": "{\"numRecords\":10,\"minValues\":{\"id\":1},\"maxValues\":{\"id\":10},\"nullCount\":{\"id\":0}}"}});
                // As a program that holds a table open does: it knows its id.
                let table = TableRef::Id(id);
                let target = ChangeTarget::Existing { table, read_version: None };
                let began = Instant::now();
                db.commit(batch(target, format!("{add}\n"))).await?;
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, AnyError>(times)
        }));
    }
    let mut times = Vec::new();
    for committer in committers {
        times.extend(committer.await??);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn print_percentiles(times: &[f64]) {
    for (name, percent) in [("p50_ms", 50), ("p99_ms", 99), ("max_ms", 100)] {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        println!("{name}={}", times.get(index).copied().unwrap_or(f64::NAN));
    }
}

#[allow(clippy::cast_precision_loss)]
fn per_second(commits: usize, since: Instant) -> f64 {
    commits as f64 / since.elapsed().as_secs_f64()
}

/// Small commits, with a worker that publishes them meanwhile.
async fn commit(subject: &Subject, tables: usize) -> Result<(), AnyError> {
    let db = Db::open(&subject.uri()?).await?;
    let mut ids = Vec::new();
    for _ in 0..tables {
        ids.push(create_hot(&db, &subject.dir).await?);
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publisher = db.publisher(PublisherConfig::default());
    let worker = tokio::spawn(async move { publisher.run(stopped).await });
    let started = Instant::now();
    let times = commits(&db, &ids, subject.tasks, subject.seconds).await?;
    println!("commits_per_s={}", per_second(times.len(), started));
    print_percentiles(&times);
    caught_up(&db, &ids).await?;
    println!("published_per_s={}", per_second(times.len(), started));
    stop.send(true)?;
    worker.await??;
    Ok(())
}

async fn caught_up(db: &Db, tables: &[TableId]) -> Result<(), AnyError> {
    let started = Instant::now();
    for id in tables {
        loop {
            let record = db.catalog().table(&TableRef::Id(*id)).await?;
            if record.published_version == record.head {
                break;
            }
            if started.elapsed() > Duration::from_secs(600) {
                return Err("the mirror does not catch up".into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// File in which processes find the table that they commit to.
const HOT_FILE: &str = "hot-table";

/// Small commits of processes of one task each to one table, with a worker that publishes them.
async fn commit_processes(subject: &Subject) -> Result<(), AnyError> {
    let db = Db::open(&subject.uri()?).await?;
    let id = create_hot(&db, &subject.dir).await?;
    std::fs::write(subject.dir.join(HOT_FILE), id.to_string())?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publisher = db.publisher(PublisherConfig::default());
    let worker = tokio::spawn(async move { publisher.run(stopped).await });
    let one = Subject { tasks: 1, ..subject.clone() };
    let mut children = Vec::new();
    for _ in 0..subject.tasks {
        let one = one.clone();
        children.push(tokio::task::spawn_blocking(move || crate::child("commit-into", &one)));
    }
    let (mut rate, mut p99) = (0.0, 0.0_f64);
    for child in children {
        let figures = child.await??;
        let figure = |name: &str| figures.get(name).copied().ok_or(format!("no {name}"));
        rate += figure("commits_per_s")?;
        p99 = p99.max(figure("p99_ms")?);
    }
    println!("commits_per_s={rate}");
    println!("p99_ms={p99}");
    caught_up(&db, &[id]).await?;
    stop.send(true)?;
    worker.await??;
    Ok(())
}

/// One of these processes.
async fn commit_into(subject: &Subject) -> Result<(), AnyError> {
    let db = Db::open(&subject.uri()?).await?;
    let id: TableId = std::fs::read_to_string(subject.dir.join(HOT_FILE))?.parse()?;
    let started = Instant::now();
    let times = commits(&db, &[id], subject.tasks, subject.seconds).await?;
    println!("commits_per_s={}", per_second(times.len(), started));
    print_percentiles(&times);
    Ok(())
}

pub(crate) fn batch(target: ChangeTarget, ndjson: String) -> CommitBatch {
    CommitBatch {
        token: None,
        tables: vec![TableChange {
            target,
            ndjson: ndjson.into_bytes(),
            origin: "bench".to_owned(),
            reads: Reads::default(),
            operation: None,
        }],
    }
}

/// Highest resident memory of this process so far.
fn peak_mb() -> Result<f64, AnyError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    let kb: f64 = line.split_whitespace().nth(1).ok_or("no VmHWM")?.parse()?;
    Ok(kb / 1024.0)
}
