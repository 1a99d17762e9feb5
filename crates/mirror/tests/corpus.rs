//! Round trip of tables that other engines wrote: import, export, and the Delta kernel reads the
//! same from the exported log as from the original one, at every version that it can read there.
// All of this is test code; clippy only sees that of functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "corpus/env.rs"]
mod env;
#[path = "corpus/tables.rs"]
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use deltalakedb_backend_sqlite::{SqliteBackend, SqliteOptions};
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::ids::{TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::NoProgress;
use deltalakedb_catalog_engine::memory::MemoryBackend;
use deltalakedb_mirror::export::publish_to;
use deltalakedb_mirror::import::{ImportOptions, ImportReport, Validation, import_table};
use deltalakedb_mirror::kernel::{
    KernelFile, KernelState, LogLocation, count_rows, read_state, same_protocol,
};
use deltalakedb_mirror::log::listing::LogName;
use serde_json::Value;
use tables::{Corpus, CorpusTable};

/// Tables that cannot be imported, and what the error says.
const UNREADABLE: [(&str, &str); 1] = [
    // Only a checksum file, without any commit.
    ("kernel/crc-malformed", "neither a commit nor a checkpoint"),
];

/// Tables whose checkpoint contradicts their commits (here: it is another table's, with another
/// id, schema and properties). Readers see the checkpoint, and so must the republished log.
const CONTRADICTORY: [&str; 1] = ["kernel/parquet_row_group_skipping"];

/// Tables that the Delta kernel cannot read, and why.
const NOT_VALIDATED: [(&str, &str); 2] = [
    // Reader version 5 does not exist.
    ("delta-rs/simple_table_features", "Reader features must not be present"),
    ("kernel/table-with-geo", "geometry"),
];

/// Tables above this are compared at their base and head only.
const MANY_FILES: u64 = 50_000;

fn no_options() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn options(table: &CorpusTable) -> ImportOptions {
    let name = TableName::new("corpus", table.name.replace(['/', '.'], "_")).unwrap();
    ImportOptions::new(name, table.root.to_str().unwrap())
}

async fn state(
    root: &Path,
    version: Version,
) -> deltalakedb_catalog_core::error::Result<KernelState> {
    let location = LogLocation::Table(root.to_str().unwrap().to_owned());
    read_state(location, &no_options(), Some(version)).await
}

/// JSON without regard to spaces; broken text stands for itself.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// What must be the same of two files; statistics apart.
fn essence(file: &KernelFile) -> KernelFile {
    // Some checkpoints hold an empty map where the commit holds null.
    let tags = file.tags.clone().filter(|tags| !tags.is_empty());
    KernelFile { stats: None, tags, ..file.clone() }
}

fn assert_same_state(table: &str, original: &KernelState, exported: &KernelState) {
    let at = format!("{table} at version {}", original.version);
    assert_eq!(original.version, exported.version, "{at}");
    assert!(
        same_protocol(&original.protocol, &exported.protocol),
        "{at}: {:?} {:?}",
        original.protocol,
        exported.protocol
    );
    let [a, b] = [original, exported].map(|s| {
        let mut metadata = s.metadata.clone();
        metadata.schema_string = json(&metadata.schema_string).to_string();
        metadata
    });
    assert_eq!(a, b, "{at}");
    let keys = |state: &KernelState| state.files.keys().cloned().collect::<Vec<_>>();
    assert!(keys(original) == keys(exported), "{at}: other files");
    for (key, file) in &original.files {
        assert_eq!(essence(file), essence(&exported.files[key]), "{at}, file {key}");
        // Statistics that the original's checkpoint has lost are there again.
        let Some(stats) = &file.stats else { continue };
        let other = exported.files[key].stats.as_deref().map(json);
        assert_eq!(Some(json(stats)), other, "{at}, file {key}");
    }
    assert_eq!(original.txns, exported.txns, "{at}");
    assert_eq!(original.domain_metadata, exported.domain_metadata, "{at}");
}

fn assert_same_commits(table: &CorpusTable, exported: &Path, head: Version) -> usize {
    let mut compared = 0;
    for entry in fs::read_dir(table.root.join("_delta_log")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let LogName::Commit(version) = LogName::parse(name) else { continue };
        if version > head {
            continue;
        }
        let other = exported.join("_delta_log").join(name);
        assert!(fs::read(&path).unwrap() == fs::read(other).unwrap(), "{}: {name}", table.name);
        compared += 1;
    }
    compared
}

/// Exports a table and compares. Returns the number of compared versions and of commits.
async fn round_trip(
    catalog: &Catalog,
    table: &CorpusTable,
    report: &ImportReport,
) -> (usize, usize) {
    let target = tempfile::tempdir().unwrap();
    let to = target.path().join("t");
    let reference = TableRef::Id(report.table_id.unwrap());
    publish_to(catalog, &reference, to.to_str().unwrap(), &no_options(), &NoProgress)
        .await
        .unwrap_or_else(|e| panic!("{}: {e}", table.name));
    let commits = assert_same_commits(table, &to, report.head);
    let mut versions = 0;
    for version in report.base_version.get()..=report.head.get() {
        let inner = version > report.base_version.get() && version < report.head.get();
        if report.num_files > MANY_FILES && inner {
            continue;
        }
        let version = Version::new(version).unwrap();
        let Ok(original) = state(&table.root, version).await else { continue };
        let exported = state(&to, version).await.unwrap_or_else(|e| panic!("{}: {e}", table.name));
        assert_same_state(&table.name, &original, &exported);
        versions += 1;
    }
    (versions, commits)
}

async fn every_table(catalog: Catalog) {
    let Some(corpus) = Corpus::open() else { return };
    let (mut round_trips, mut versions) = (0, 0);
    for table in &corpus.tables {
        let expected = UNREADABLE.iter().find(|(name, _)| *name == table.name);
        let report = match (import_table(&catalog, options(table), &NoProgress).await, expected) {
            (Ok(report), None) => report,
            (Err(error), Some((_, fragment))) => {
                let error = error.to_string();
                assert!(error.contains(fragment), "{}: {error}", table.name);
                println!("refused      {}: {}", table.name, error.lines().next().unwrap());
                continue;
            }
            (Err(error), None) => panic!("{}: {error}", table.name),
            (Ok(_), Some(_)) => panic!("{} was imported", table.name),
        };
        let expected = NOT_VALIDATED.iter().find(|(name, _)| *name == table.name);
        match (&report.validation, expected) {
            (Validation::Passed, None) => {}
            (Validation::NotValidated { why }, Some((_, fragment))) => {
                assert!(why.contains(fragment), "{}: {why}", table.name);
            }
            (other, _) => panic!("{}: {other:?}", table.name),
        }
        let warned = report.warnings.iter().any(|w| w.contains("contradict each other"));
        assert_eq!(warned, CONTRADICTORY.contains(&table.name.as_str()), "{}", table.name);
        let (compared, commits) = round_trip(&catalog, table, &report).await;
        assert_eq!(compared == 0, expected.is_some(), "{}", table.name);
        println!(
            "round trip   {}: versions {} to {}, {} files, {commits} commits byte for byte, \
             {compared} versions compared",
            table.name, report.base_version, report.head, report.num_files
        );
        round_trips += 1;
        versions += compared;
    }
    println!("{round_trips} tables, {versions} versions");
    assert!(round_trips + UNREADABLE.len() == corpus.tables.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_makes_the_round_trip_in_memory() {
    every_table(env::catalog(Arc::new(MemoryBackend::new()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_makes_the_round_trip_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let backend = SqliteBackend::open(SqliteOptions::new(folder.path().join("c.db"))).unwrap();
    backend.migrate(TimestampMs(0)).await.unwrap();
    every_table(env::catalog(backend)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_counted_without_deleted_ones() {
    let Some(corpus) = Corpus::open() else { return };
    let expected = [("delta-rs/table-with-dv-small", 8), ("delta-rs/table-without-dv-small", 10)];
    for (name, rows) in expected {
        let table = corpus.tables.iter().find(|t| t.name == name).unwrap();
        let counted = count_rows(table.root.to_str().unwrap(), &no_options()).await.unwrap();
        assert_eq!(counted, rows, "{name}");
    }
}
