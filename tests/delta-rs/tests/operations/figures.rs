//! How long things take on a table of 100,000 files and 10,000 commits, beside a plain table with the
//! same log and a checkpoint at its head.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use deltalakedb::core::catalog::{ChangeTarget, CommitBatch, TableChange};
use deltalakedb::core::conflict::Reads;
use deltalakedb::core::ids::TableRef;
use deltalakedb::deltalake::{FENCE, WAREHOUSE, deltalake as delta};
use deltalakedb::mirror::publish::PublisherConfig;
use deltalakedb::{CatalogUri, Db};

use crate::both::table_url;
use crate::databases::{self, Database};
use crate::{batch, create};
use delta::datafusion::prelude::{SessionContext, col, lit};
use delta::protocol::SaveMode;
use delta::{DeltaTable, ensure_table_uri};

const COMMITS: u64 = 10_000;
const FILES: u64 = 10;
const RUNS: usize = 5;

/// Not fenced, and without in-commit timestamps: the plain copy is written to.
const PROPERTIES: &[(&str, &str)] = &[
    ("delta.checkpointInterval", "10000"),
    ("delta.enableInCommitTimestamps", "false"),
    ("delta.enableExpiredLogCleanup", "false"),
];

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Opens it some times; the first time apart.
async fn opened(url: &str) -> (DeltaTable, Duration, Duration) {
    let url = ensure_table_uri(url).unwrap();
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..=RUNS {
        let started = Instant::now();
        last = Some(delta::open_table(url.clone()).await.unwrap());
        times.push(started.elapsed());
    }
    (last.unwrap(), times[0], median(times.split_off(1)))
}

async fn appended(mut table: DeltaTable) -> (DeltaTable, Duration) {
    let mut times = Vec::new();
    for i in 0..RUNS {
        let row = batch([900 + i64::try_from(i).unwrap()], "real");
        let started = Instant::now();
        table = table.write([row]).with_save_mode(SaveMode::Append).await.unwrap();
        times.push(started.elapsed());
    }
    (table, median(times))
}

async fn merged(mut table: DeltaTable) -> Duration {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let source = SessionContext::new().read_batch(batch([900], "real")).unwrap();
        let on = col("target.day").eq(lit("real")).and(col("target.id").eq(col("source.id")));
        let started = Instant::now();
        table = table
            .merge(source, on)
            .with_source_alias("source")
            .with_target_alias("target")
            .when_matched_update(|update| update.update("name", lit("met")))
            .unwrap()
            .await
            .unwrap()
            .0;
        times.push(started.elapsed());
    }
    median(times)
}

/// Plans a query anew each time, down to the files that it reads: in the catalog, and on a plain table
/// that is open already.
async fn planned(db: &Db, plain: &DeltaTable, filter: &str) -> (Duration, Duration) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let text = format!("SELECT id FROM shop.t WHERE {filter}");
        let started = Instant::now();
        let query = db.queries().query(&text).await.unwrap();
        let plan = query.create_physical_plan().await.unwrap();
        ours.push(started.elapsed());
        let started = Instant::now();
        let session = delta::delta_datafusion::create_session().into_inner();
        session.register_table("t", plain.table_provider().await.unwrap()).unwrap();
        let query = session.sql(&format!("SELECT id FROM t WHERE {filter}")).await.unwrap();
        let same = query.create_physical_plan().await.unwrap();
        theirs.push(started.elapsed());
        assert_eq!(plan.schema(), same.schema());
    }
    (median(ours), median(theirs))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, in release"]
async fn how_fast_is_a_large_table_beside_a_plain_one() {
    deltalakedb::deltalake::register();
    let dir = tempfile::tempdir().unwrap();
    let catalog = databases::url(Database::Sqlite, &dir);
    let uri: CatalogUri = catalog.parse().unwrap();
    let db = Db::create(&uri).await.unwrap();
    let url = table_url(&catalog);
    let warehouse = dir.path().join("lake").to_str().unwrap().to_owned();
    let options =
        HashMap::from([(WAREHOUSE.to_owned(), warehouse), (FENCE.to_owned(), "false".to_owned())]);
    let fresh =
        DeltaTable::try_from_url_with_storage_options(ensure_table_uri(&url).unwrap(), options);
    let made = create(fresh.await.unwrap(), PROPERTIES).await.unwrap();
    made.write([batch(0..10, "real")]).with_save_mode(SaveMode::Append).await.unwrap();
    let table = TableRef::Name("shop.t".parse().unwrap());
    for commit in 2..=COMMITS {
        let mut adds = String::new();
        for file in 0..FILES {
            let (day, id) = (commit % 100, commit * FILES + file);
            let line = format!(
                "{{\"add\":{{\"path\":\"day=d{day}/{id}.parquet\",\"partitionValues\":{{\"day\":\"d{day}\"}},\
                 \"size\":1000,\"modificationTime\":1700000000000,\"dataChange\":true,\"stats\":\
                 \"{{\\\"numRecords\\\":10,\\\"minValues\\\":{{\\\"id\\\":{id}}},\\\"maxValues\\\":\
                 {{\\\"id\\\":{id}}},\\\"nullCount\\\":{{\\\"id\\\":0}}}}\"}}}}\n"
            );
            adds.push_str(&line);
        }
        let change = TableChange {
            target: ChangeTarget::Existing { table: table.clone(), read_version: None },
            ndjson: adds.into_bytes(),
            origin: "figures".to_owned(),
            reads: Reads::default(),
            operation: Some("WRITE".to_owned()),
        };
        db.commit(CommitBatch { token: None, tables: vec![change] }).await.unwrap();
    }
    deltalakedb::deltalake::shutdown().await.unwrap();
    let config = PublisherConfig::default();
    while db.publisher(config.clone()).run_once(None).await.unwrap().unpublished > 0 {}
    let plain = dir.path().join("plain");
    copy(&dir.path().join("lake/shop/t"), &plain);

    println!("| | catalog (SQLite) | plain, checkpoint at the head | ratio |");
    println!("| --- | --- | --- | --- |");
    let line = |what: &str, ours: Duration, theirs: Duration| {
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        println!("| {what} | {:.1} ms | {:.1} ms | {ratio:.2} |", ms(ours), ms(theirs));
    };
    let (sql, sql_first, sql_again) = opened(&url).await;
    let (plain, plain_first, plain_again) = opened(plain.to_str().unwrap()).await;
    assert_eq!((sql.version(), plain.version()), (Some(COMMITS), Some(COMMITS)));
    line("open, first in the process", sql_first, plain_first);
    line("open again", sql_again, plain_again);
    for (what, filter) in [
        ("plan a query of 1 file", "day = 'd7' AND id = 5070"),
        ("plan a query of 1,000 files", "day = 'd7'"),
        ("plan a query of all files", "id >= 0"),
    ] {
        let (ours, theirs) = planned(&db, &plain, filter).await;
        line(&format!("{what} (the plain table is open)"), ours, theirs);
    }
    let (sql, sql_append) = appended(sql).await;
    let (plain, plain_append) = appended(plain).await;
    line("append one row", sql_append, plain_append);
    line("merge that touches one file", merged(sql).await, merged(plain).await);
}
