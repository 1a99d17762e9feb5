//! One measurement in this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use deltalakedb::Db;
use deltalakedb::core::catalog::{ChangeTarget, CommitBatch, TableChange};
use deltalakedb::core::conflict::Reads;
use deltalakedb::core::env::NoProgress;
use deltalakedb::core::ids::{At, TableRef};
use deltalakedb::mirror::import::{ImportOptions, import_table};
use deltalakedb::mirror::publish::PublisherConfig;
use deltalakedb::mirror::store::normalize_location;
use deltalakedb::uri::CatalogUri;
use futures::TryStreamExt;

use crate::{AnyError, mirror};

pub(crate) const TABLE: &str = "bench.t";
const HOT: &str = "bench.hot";

pub(crate) fn one(what: &str, dir: &Path, seconds: u64, tasks: u64) -> Result<(), AnyError> {
    let runtime = tokio::runtime::Runtime::new()?;
    match what {
        "import" => runtime.block_on(import(dir, true))?,
        "import-validated" => runtime.block_on(import(dir, false))?,
        "open" => runtime.block_on(open(dir))?,
        "list" => runtime.block_on(list(dir))?,
        "commit" => runtime.block_on(commit(dir, seconds, tasks))?,
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

async fn import(dir: &Path, skip_validation: bool) -> Result<(), AnyError> {
    let started = Instant::now();
    let db = Db::create(&uri(dir)).await?;
    let location = normalize_location(&dir.join("t").to_string_lossy())?;
    let options = ImportOptions { skip_validation, ..ImportOptions::new(TABLE.parse()?, location) };
    import_table(&db, options, &NoProgress).await?;
    print_ms(started);
    Ok(())
}

async fn open(dir: &Path) -> Result<(), AnyError> {
    let started = Instant::now();
    let db = Db::open(&uri(dir)).await?;
    let table = TableRef::Name(TABLE.parse()?);
    let snapshot = db.snapshot(&table, At::Head).await?;
    print_ms(started);
    if snapshot.num_files == 0 {
        return Err("the table is empty".into());
    }
    let mut warm: Vec<f64> = Vec::new();
    for _ in 0..1_000 {
        let started = Instant::now();
        db.snapshot(&table, At::Head).await?;
        warm.push(started.elapsed().as_secs_f64() * 1e6);
    }
    warm.sort_by(f64::total_cmp);
    println!("warm_us={}", warm[warm.len() / 2]);
    Ok(())
}

async fn list(dir: &Path) -> Result<(), AnyError> {
    let started = Instant::now();
    let db = Db::open(&uri(dir)).await?;
    let snapshot = db.snapshot(&TableRef::Name(TABLE.parse()?), At::Head).await?;
    let mut files = db.files(snapshot.table.id, snapshot.version);
    let mut count = 0_u64;
    while files.try_next().await?.is_some() {
        count += 1;
    }
    print_ms(started);
    if count != snapshot.num_files {
        return Err(format!("{count} files were listed, {} are there", snapshot.num_files).into());
    }
    Ok(())
}

/// Small commits to a table of its own, in the catalog that holds the large one.
async fn commit(dir: &Path, seconds: u64, tasks: u64) -> Result<(), AnyError> {
    let db = Db::open(&uri(dir)).await?;
    let name = format!("{HOT}{tasks}");
    let location = normalize_location(&dir.join(format!("hot{tasks}")).to_string_lossy())?;
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
            let mut done = 0_u32;
            while Instant::now() < deadline {
                let add = serde_json::json!({"add": {
                    "path": format!("part-{task}-{done}.parquet"), "partitionValues": {},
                    "size": 1000, "modificationTime": 1, "dataChange": true,
                    "stats": "{\"numRecords\":10,\"minValues\":{\"id\":1},\"maxValues\":{\"id\":10},\"nullCount\":{\"id\":0}}"}});
                let table = TableRef::Name(name.parse()?);
                let target = ChangeTarget::Existing { table, read_version: None };
                db.commit(batch(target, format!("{add}\n"))).await?;
                done += 1;
            }
            Ok::<u32, AnyError>(done)
        }));
    }
    let mut commits = 0_u32;
    for committer in committers {
        commits += committer.await??;
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
