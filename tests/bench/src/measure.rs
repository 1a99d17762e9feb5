//! One measurement in this process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deltalakedb::Db;
use deltalakedb::core::backend::CommitFilter;
use deltalakedb::core::catalog::{ChangeTarget, CommitBatch, TableChange};
use deltalakedb::core::conflict::Reads;
use deltalakedb::core::env::NoProgress;
use deltalakedb::core::ids::{At, TableRef, Version};
use deltalakedb::core::predicate::{ColumnPath, CompareOp, Literal, Predicate};
use deltalakedb::mirror::import::{ImportOptions, import_table};
use deltalakedb::mirror::publish::PublisherConfig;
use deltalakedb::mirror::store::normalize_location;
use deltalakedb::uri::CatalogUri;
use futures::TryStreamExt;

use crate::generate::{FILES_PER_DAY, Probe};
use crate::{AnyError, mirror};

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

    fn uri(&self) -> Result<CatalogUri, AnyError> {
        match &self.url {
            Some(url) => Ok(url.parse()?),
            None => Ok(uri(&self.dir)),
        }
    }
}

pub(crate) fn one(what: &str, subject: &Subject) -> Result<(), AnyError> {
    let runtime = tokio::runtime::Runtime::new()?;
    let Subject { dir, seconds, tasks, .. } = subject;
    let (seconds, tasks) = (*seconds, *tasks);
    match what {
        "import" => runtime.block_on(import(subject, true))?,
        "import-validated" => runtime.block_on(import(subject, false))?,
        "open" => runtime.block_on(open(subject))?,
        "refresh" => runtime.block_on(refresh(subject))?,
        "list" => runtime.block_on(list(subject))?,
        "plan-partition" | "plan-stats" => runtime.block_on(plan(what, subject))?,
        "travel" => runtime.block_on(travel(subject))?,
        "history" => runtime.block_on(history(subject))?,
        "commit" => runtime.block_on(commit(subject))?,
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

/// Asks once more what the head is.
async fn refresh(subject: &Subject) -> Result<(), AnyError> {
    let db = Db::open(&subject.uri()?).await?;
    let table = table()?;
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..201 {
        let started = Instant::now();
        db.snapshot(&table, At::Head).await?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("ms={}", times[times.len() / 2]);
    Ok(())
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
    let id = db.table(&table()?).await?.id;
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
    let (uri, probe) = (subject.uri()?, Probe::of(subject.files));
    let (low, high) = probe.ids;
    let predicate = if what == "plan-partition" {
        Predicate::compare(ColumnPath::top("day"), CompareOp::Eq, Literal::Date(probe.day))
    } else {
        let number = |n: u64| Literal::Number(n.to_string());
        Predicate::between(ColumnPath::top("id"), number(low), number(high))
    };
    let started = Instant::now();
    let db = Db::open(&uri).await?;
    let snapshot = db.snapshot(&table()?, At::Head).await?;
    let mut files = db.files_matching(&snapshot, &predicate)?;
    let mut count = 0_u64;
    while files.try_next().await?.is_some() {
        count += 1;
    }
    print_ms(started);
    print_count(count);
    if count != FILES_PER_DAY {
        return Err(format!("{count} files were found, {FILES_PER_DAY} match").into());
    }
    Ok(())
}

async fn list(subject: &Subject) -> Result<(), AnyError> {
    let uri = subject.uri()?;
    let started = Instant::now();
    let db = Db::open(&uri).await?;
    let snapshot = db.snapshot(&table()?, At::Head).await?;
    let mut files = db.files(snapshot.table.id, snapshot.version);
    let mut count = 0_u64;
    while files.try_next().await?.is_some() {
        count += 1;
    }
    print_ms(started);
    print_count(count);
    if count != snapshot.num_files {
        return Err(format!("{count} files were listed, {} are there", snapshot.num_files).into());
    }
    Ok(())
}

fn print_count(count: u64) {
    println!("count={count}");
}

/// Small commits to a table of its own, in the catalog that holds the large one.
async fn commit(subject: &Subject) -> Result<(), AnyError> {
    let (seconds, tasks) = (subject.seconds, subject.tasks);
    let db = Db::open(&subject.uri()?).await?;
    // A run after another one has a table of its own.
    let run = db.ids().uuid().as_simple().to_string();
    let name = format!("{HOT}-{run}");
    let location = normalize_location(&subject.dir.join(format!("hot-{run}")).to_string_lossy())?;
    let schema =
        r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}"#;
    let protocol = serde_json::json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 7,
        "writerFeatures": ["inCommitTimestamp"]}});
    let metadata = serde_json::json!({"metaData": {"id": "hot", "schemaString": schema,
        "format": {"provider": "parquet", "options": {}}, "partitionColumns": [],
        "configuration": {"delta.enableInCommitTimestamps": "true"}}});
    let create = ChangeTarget::Create {
        name: name.parse()?,
        location,
        storage_options: BTreeMap::new(),
        mirror: deltalakedb::core::model::MirrorMode::Active,
        fence: false,
    };
    db.commit(batch(create, format!("{protocol}\n{metadata}\n"))).await?;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publisher = db.publisher(PublisherConfig::default());
    let worker = tokio::spawn(async move { publisher.run(stopped).await });

    let deadline = Instant::now() + Duration::from_secs(seconds);
    let started = Instant::now();
    let mut committers = Vec::new();
    for task in 0..tasks {
        let db = db.clone();
        let name = name.clone();
        committers.push(tokio::spawn(async move {
            let (mut done, mut times) = (0_u32, Vec::new());
            while Instant::now() < deadline {
                let add = serde_json::json!({"add": {
                    "path": format!("part-{task}-{done}.parquet"), "partitionValues": {},
                    "size": 1000, "modificationTime": 1, "dataChange": true,
                    "stats": "{\"numRecords\":10,\"minValues\":{\"id\":1},\"maxValues\":{\"id\":10},\"nullCount\":{\"id\":0}}"}});
                let table = TableRef::Name(name.parse()?);
                let target = ChangeTarget::Existing { table, read_version: None };
                let began = Instant::now();
                db.commit(batch(target, format!("{add}\n"))).await?;
                times.push(began.elapsed().as_secs_f64() * 1e3);
                done += 1;
            }
            Ok::<_, AnyError>((done, times))
        }));
    }
    let (mut commits, mut times) = (0_u32, Vec::new());
    for committer in committers {
        let (done, took) = committer.await??;
        commits += done;
        times.extend(took);
    }
    times.sort_by(f64::total_cmp);
    for (name, percent) in [("p50_ms", 50), ("p99_ms", 99), ("max_ms", 100)] {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        println!("{name}={}", times.get(index).copied().unwrap_or(f64::NAN));
    }
    let elapsed = started.elapsed().as_secs_f64();
    println!("commits_per_s={}", f64::from(commits) / elapsed);
    let table = TableRef::Name(name.parse()?);
    loop {
        let record = db.table(&table).await?;
        if record.published_version == record.head {
            break;
        }
        if started.elapsed() > Duration::from_secs(600 + seconds) {
            return Err("the mirror does not catch up".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("published_per_s={}", f64::from(commits) / started.elapsed().as_secs_f64());
    stop.send(true)?;
    worker.await??;
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
