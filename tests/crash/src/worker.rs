//! What is killed: commits over one or two tables, with tokens, and a publisher beside it.
//!
//! Prints `try TOKEN n` before a commit over n tables and `ok TOKEN id:version …` once it is acknowledged.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use deltalakedb::Db;
use deltalakedb::core::catalog::{ChangeTarget, CommitBatch, TableChange};
use deltalakedb::core::conflict::Reads;
use deltalakedb::core::ids::{CommitToken, TableName, TableRef};
use deltalakedb::core::model::MirrorMode;
use deltalakedb::mirror::publish::PublisherConfig;
use deltalakedb::mirror::store::normalize_location;
use deltalakedb::uri::CatalogUri;

use crate::AnyError;
use crate::rng::Rng;

pub(crate) const TABLES: [&str; 2] = ["crash.left", "crash.right"];

pub(crate) fn catalog_uri(dir: &Path) -> CatalogUri {
    CatalogUri::sqlite(dir.join("catalog.db"))
}

pub(crate) fn main(dir: &Path, round: u64, seed: u64) -> Result<(), AnyError> {
    tokio::runtime::Runtime::new()?.block_on(work(dir, round, seed))
}

async fn work(dir: &Path, round: u64, seed: u64) -> Result<(), AnyError> {
    let db = Db::create(&catalog_uri(dir)).await?;
    let mut batch = CommitBatch { token: Some(CommitToken::new("setup")?), tables: Vec::new() };
    for table in TABLES {
        batch.tables.push(create(dir, table)?);
    }
    db.commit(batch).await?;

    let (_stop, stopped) = tokio::sync::watch::channel(false);
    // Short leases and batches: the next round takes over at once, and most kills hit a publisher.
    let config = PublisherConfig {
        lease_ms: 60,
        poll_ms: 5,
        max_versions: 8,
        complete_batch: 2,
        ..PublisherConfig::default()
    };
    let publisher = db.publisher(config);
    tokio::spawn(async move { publisher.run(stopped).await });

    let mut rng = Rng::new(seed);
    let mut mine: Vec<(usize, String)> = Vec::new();
    for i in 0_u64.. {
        let token = format!("r{round}-c{i}");
        let chosen: Vec<usize> = match rng.below(4) {
            0 | 1 => vec![0, 1],
            2 => vec![0],
            _ => vec![1],
        };
        let mut batch =
            CommitBatch { token: Some(CommitToken::new(token.clone())?), tables: vec![] };
        for table in &chosen {
            let mut lines = String::new();
            for file in 0..=rng.below(3) {
                let path = format!("{token}-{file}.parquet");
                lines.push_str(&add(&path));
                mine.push((*table, path));
            }
            // Now and then a file of an earlier commit of this round goes.
            if rng.below(3) == 0
                && let Some(at) =
                    mine.iter().position(|(t, p)| t == table && !p.starts_with(&token))
            {
                let (_, path) = mine.remove(at);
                lines.push_str(&remove(&path));
            }
            batch.tables.push(change(TABLES[*table], lines)?);
        }
        say(&format!("try {token} {}", chosen.len()))?;
        let report = db.commit(batch).await?;
        let written: Vec<String> =
            report.tables.iter().map(|t| format!("{}:{}", t.table_id, t.version)).collect();
        say(&format!("ok {token} {}", written.join(" ")))?;
    }
    Ok(())
}

fn say(line: &str) -> Result<(), AnyError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

fn create(dir: &Path, table: &str) -> Result<TableChange, AnyError> {
    let schema =
        r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}"#;
    let protocol = serde_json::json!({"protocol": {
        "minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["inCommitTimestamp"]}});
    let metadata = serde_json::json!({"metaData": {
        "id": table, "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
        "partitionColumns": [], "createdTime": 0,
        "configuration": {"delta.enableInCommitTimestamps": "true"}}});
    let name: TableName = table.parse()?;
    let location = normalize_location(&dir.join(name.name()).to_string_lossy())?;
    Ok(TableChange {
        target: ChangeTarget::Create {
            name,
            location,
            storage_options: BTreeMap::new(),
            mirror: MirrorMode::Active,
            fence: true,
        },
        ndjson: format!("{protocol}\n{metadata}\n").into_bytes(),
        origin: "crash worker".to_owned(),
        reads: Reads::default(),
        operation: Some("CREATE TABLE".to_owned()),
    })
}

fn change(table: &str, lines: String) -> Result<TableChange, AnyError> {
    Ok(TableChange {
        target: ChangeTarget::Existing {
            table: TableRef::Name(table.parse()?),
            read_version: None,
        },
        ndjson: lines.into_bytes(),
        origin: "crash worker".to_owned(),
        reads: Reads::default(),
        operation: None,
    })
}

fn add(path: &str) -> String {
    let action = serde_json::json!({"add": {
        "path": path, "partitionValues": {}, "size": 100, "modificationTime": 1, "dataChange": true,
        "stats": "{\"numRecords\":1}"}});
    format!("{action}\n")
}

fn remove(path: &str) -> String {
    let action = serde_json::json!({"remove": {
        "path": path, "deletionTimestamp": 1, "dataChange": true}});
    format!("{action}\n")
}
