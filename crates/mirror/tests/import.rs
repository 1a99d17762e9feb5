//! Imports of logs made for the purpose: interruptions, options, and every error.
// All of this is test code; clippy only sees that of functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "corpus/env.rs"]
mod env;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{CatalogBackend, CommitFilter};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, NewTable, TableState};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::{NoProgress, Progress};
use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend, Verb};
use deltalakedb_catalog_engine::memory::MemoryBackend;
use deltalakedb_catalog_engine::predicate::{ColumnPath, CompareOp, Literal, Predicate, Pruner};
use deltalakedb_mirror::import::{
    BaseSource, ImportOptions, ImportReport, Validation, import_table,
};
use futures::TryStreamExt;

const PROTOCOL: &str = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#;
const V2_PROTOCOL: &str = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["v2Checkpoint"],"writerFeatures":["v2Checkpoint"]}}"#;
const METADATA: &str = r#"{"metaData":{"id":"t","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{},"createdTime":1}}"#;
const UUID: &str = "80a083e8-7026-4e79-81be-64bd76c43a11";

fn add(path: &str) -> String {
    format!(
        r#"{{"add":{{"path":"{path}","partitionValues":{{}},"size":7,"modificationTime":1,"dataChange":true}}}}"#
    )
}

fn remove(path: &str) -> String {
    format!(r#"{{"remove":{{"path":"{path}","deletionTimestamp":2,"dataChange":true}}}}"#)
}

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

fn name() -> TableName {
    "t".parse().unwrap()
}

/// A table folder.
struct Log {
    folder: tempfile::TempDir,
}

impl Log {
    fn new() -> Log {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("_delta_log")).unwrap();
        Log { folder }
    }

    /// Commits 0 to `head`, each with one more file.
    fn with_commits(head: i64) -> Log {
        let log = Log::new();
        log.commit(0, &[PROTOCOL, METADATA, &add("0")]);
        for version in 1..=head {
            log.commit(version, &[&add(&version.to_string())]);
        }
        log
    }

    /// History 3 and 4, a checkpoint of version 4 with so many files, and commits 5 and 6.
    fn cleaned(files: usize) -> Log {
        let log = Log::new();
        log.commit(3, &[&add("3")]);
        log.commit(4, &[&remove("gone")]);
        let mut lines = vec![
            format!(r#"{{"checkpointMetadata":{{"version":4}}}}"#),
            V2_PROTOCOL.to_owned(),
            METADATA.to_owned(),
            r#"{"txn":{"appId":"app","version":9}}"#.to_owned(),
            remove("gone"),
        ];
        lines.extend((0..files).map(|i| add(&format!("f{i}"))));
        log.write(&format!("{:020}.checkpoint.{UUID}.json", 4), &lines.join("\n"));
        log.commit(5, &[&remove("f0"), &add("5")]);
        log.commit(6, &[&add("6")]);
        log
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("_delta_log").join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    fn commit(&self, version: i64, lines: &[&str]) {
        self.write(&format!("{version:020}.json"), &(lines.join("\n") + "\n"));
    }

    fn options(&self) -> ImportOptions {
        ImportOptions::new(name(), self.folder.path().to_str().unwrap())
    }
}

fn memory() -> (Arc<MemoryBackend>, Catalog) {
    let backend = Arc::new(MemoryBackend::new());
    let catalog = env::catalog(Arc::clone(&backend) as Arc<dyn CatalogBackend>);
    (backend, catalog)
}

async fn import(catalog: &Catalog, options: ImportOptions) -> Result<ImportReport> {
    import_table(catalog, options, &NoProgress).await
}

/// All that a reader can see of a table.
async fn contents(catalog: &Catalog) -> Vec<String> {
    let table = TableRef::Name(name());
    let head = catalog.snapshot(&table, At::Head).await.unwrap();
    let id = head.table.id;
    let mut out = vec![format!(
        "{:?} {:?} {:?} {} {}",
        head.table.base_version,
        head.table.published_version,
        head.protocol,
        head.num_files,
        head.size_bytes
    )];
    let (base, last) = (head.table.base_version.get(), head.version.get());
    for version in [base, i64::midpoint(base, last), last] {
        let files: Vec<_> = catalog.files(id, v(version)).try_collect().await.unwrap();
        out.push(format!("{version}: {files:?}"));
    }
    for mut commit in
        catalog.history(id, CommitFilter::default()).try_collect::<Vec<_>>().await.unwrap()
    {
        commit.table_id = deltalakedb_catalog_core::ids::TableId(uuid::Uuid::nil());
        out.push(format!("{commit:?}"));
    }
    let bodies = catalog.backend().read_bodies(id, v(0), head.version, 10_000).await.unwrap();
    out.extend(bodies.into_iter().map(|(_, body)| format!("{:?}", body.published().unwrap())));
    out.push(format!("{:?}", catalog.backend().app_transactions(id, head.version).await.unwrap()));
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_stops_anywhere_is_continued() {
    // Enough for several chunks and batches.
    for log in [Log::with_commits(600), Log::cleaned(11_000)] {
        let (_, whole) = memory();
        let report = import(&whole, log.options()).await.unwrap();
        assert_eq!(report.validation, Validation::Passed);
        let wanted = contents(&whole).await;

        let verbs = [Verb::ImportBegin, Verb::ImportBase, Verb::ImportCommits, Verb::ImportFinish];
        let mut interruptions = 0;
        for verb in verbs {
            for applied in [false, true] {
                for nth in 0.. {
                    let backend = Arc::new(MemoryBackend::new());
                    let faulty = FaultyBackend::new(Arc::clone(&backend), move |call| {
                        match (call.verb == verb && call.nth == nth, applied) {
                            (false, _) => Fault::None,
                            (true, false) => Fault::Fail,
                            (true, true) => Fault::LoseAnswer,
                        }
                    });
                    let dying = env::catalog(Arc::new(faulty));
                    if import(&dying, log.options()).await.is_ok() {
                        break;
                    }
                    interruptions += 1;
                    let catalog = env::catalog(Arc::clone(&backend) as Arc<dyn CatalogBackend>);
                    let again = import(&catalog, log.options()).await;
                    let there = backend.get_table(&TableRef::Name(name())).await.unwrap();
                    if verb == Verb::ImportBegin && !applied {
                        again.unwrap();
                    } else {
                        // Where something is left, it is not continued by accident.
                        let error = again.unwrap_err().to_string();
                        let complete = there.unwrap().state == TableState::Active;
                        assert!(error.contains(if complete { "exists" } else { "--resume" }));
                        let resumed = ImportOptions { resume: true, ..log.options() };
                        assert!(import(&catalog, resumed).await.unwrap().resumed);
                    }
                    assert!(contents(&catalog).await == wanted, "{verb:?} {nth} {applied}");
                }
            }
        }
        assert!(interruptions >= 8, "{interruptions}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_import_can_be_restarted_or_belongs_to_another_place() {
    let log = Log::cleaned(3);
    let backend = Arc::new(MemoryBackend::new());
    let faulty = FaultyBackend::new(Arc::clone(&backend), |call| match call.verb {
        Verb::ImportFinish => Fault::Fail,
        _ => Fault::None,
    });
    import(&env::catalog(Arc::new(faulty)), log.options()).await.unwrap_err();
    let catalog = env::catalog(backend);
    let other = Log::with_commits(1);
    let resumed = ImportOptions { resume: true, ..other.options() };
    let error = import(&catalog, resumed.clone()).await.unwrap_err().to_string();
    assert!(error.contains("is not finished"), "{error}");
    // Its base is gone: it cannot be continued, but begun anew.
    fs::remove_file(log.path(&format!("{:020}.checkpoint.{UUID}.json", 4))).unwrap();
    log.commit(0, &[PROTOCOL, METADATA]);
    log.commit(1, &[&add("1")]);
    log.commit(2, &[&add("2")]);
    let resumed = ImportOptions { resume: true, ..log.options() };
    let error = import(&catalog, resumed).await.unwrap_err().to_string();
    assert!(error.contains("which the log has lost"), "{error}");
    let report = import(&catalog, ImportOptions { restart: true, ..log.options() }).await.unwrap();
    assert_eq!((report.base, report.head), (Some(BaseSource::Commits), v(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_databases_are_waited_for() {
    let log = Log::cleaned(3);
    let faulty = FaultyBackend::new(MemoryBackend::new(), |call| match call.nth % 3 {
        2 => Fault::None,
        _ => Fault::Busy,
    });
    import(&env::catalog(Arc::new(faulty)), log.options()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn history_below_the_base_is_kept_and_can_be_left_out() {
    let log = Log::cleaned(3);
    let (_, catalog) = memory();
    let report = import(&catalog, log.options()).await.unwrap();
    assert_eq!((report.base_version, report.history_commits, report.applied_commits), (v(4), 2, 2));
    assert_eq!((report.num_files, report.base_actions), (4, 4));
    let id = report.table_id.unwrap();
    let history: Vec<_> = catalog.history(id, CommitFilter::default()).try_collect().await.unwrap();
    let versions: Vec<i64> = history.iter().map(|c| c.version.get()).collect();
    assert_eq!(versions, [6, 5, 4, 3]);

    let (_, catalog) = memory();
    let options = ImportOptions { checkpoint_only: true, ..log.options() };
    let report = import(&catalog, options).await.unwrap();
    assert_eq!((report.base_version, report.history_commits), (v(4), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_reports_the_same_and_writes_nothing() {
    for log in [Log::with_commits(4), Log::cleaned(30)] {
        let (backend, catalog) = memory();
        let options = ImportOptions { dry_run: true, ..log.options() };
        let dry = import(&catalog, options).await.unwrap();
        assert!(backend.get_table(&TableRef::Name(name())).await.unwrap().is_none());
        let wet = import(&catalog, log.options()).await.unwrap();
        let as_dry =
            ImportReport { dry_run: true, table_id: None, validation: Validation::Skipped, ..wet };
        assert_eq!(dry, as_dry);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_can_be_imported_up_to_a_version_without_its_mirror() {
    let log = Log::with_commits(5);
    let (_, catalog) = memory();
    let options = ImportOptions { up_to_version: Some(v(3)), ..log.options() };
    let error = import(&catalog, options.clone()).await.unwrap_err().to_string();
    assert!(error.contains("mirror off"), "{error}");
    let options = ImportOptions { mirror: MirrorMode::Off, ..options };
    let report = import(&catalog, options).await.unwrap();
    assert_eq!((report.head, report.log_head, report.num_files), (v(3), v(5), 4));
    assert_eq!(report.validation, Validation::Passed);
    let error = import(&catalog, log.options()).await.unwrap_err();
    assert!(matches!(error, CatalogError::TableExists(_)), "{error}");
}

/// Writes a commit each time that a phase of commits ends, up to three.
struct OtherWriter<'a> {
    log: &'a Log,
    next: AtomicU64,
    /// What the commit of a version adds.
    file: fn(i64) -> String,
}

impl Progress for OtherWriter<'_> {
    fn begin(&self, _: &str, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {
        let version = self.next.fetch_add(1, Ordering::Relaxed);
        if version <= 3 {
            let version = i64::try_from(version).unwrap();
            self.log.commit(version, &[&(self.file)(version)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_come_meanwhile_are_imported() {
    let log = Log::with_commits(0);
    let (_, catalog) = memory();
    let file = |version: i64| add(&version.to_string());
    let writer = OtherWriter { log: &log, next: AtomicU64::new(1), file };
    let report = import_table(&catalog, log.options(), &writer).await.unwrap();
    assert_eq!((report.head, report.log_head, report.applied_commits), (v(3), v(3), 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_checkpoint_is_replaced_by_the_next() {
    let log = Log::cleaned(3);
    log.write(&format!("{:020}.checkpoint.parquet", 3), "PAR1 not really");
    let (_, catalog) = memory();
    let options = ImportOptions { skip_validation: true, ..log.options() };
    let report = import(&catalog, options).await.unwrap();
    assert_eq!(report.base_version, v(4));
    assert!(report.warnings[0].contains("00000000000000000003.checkpoint.parquet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_and_stray_files_are_passed_over() {
    for hint in ["", "nonsense", r#"{"version":99,"size":1}"#, r#"{"version":-1}"#] {
        let log = Log::with_commits(2);
        log.write("_last_checkpoint", hint);
        log.write("00000000000000000001.crc", "nonsense");
        log.write("00000000000000000000.00000000000000000002.compacted.json", "nonsense");
        log.write("00000000000000000003.json.tmp", "nonsense");
        log.write(&format!("{:020}.checkpoint.{:010}.{:010}.parquet", 9, 1, 2), "nonsense");
        let (_, catalog) = memory();
        let options = ImportOptions { skip_validation: true, ..log.options() };
        assert_eq!(import(&catalog, options).await.unwrap().head, v(2), "{hint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_logs_give_clear_errors_and_leave_nothing() {
    type Make = fn() -> Log;
    let cases: &[(&str, Make, &[&str])] = &[
        ("empty", Log::new, &["no Delta table", "neither a commit nor a checkpoint"]),
        (
            "not JSON",
            || {
                let log = Log::with_commits(2);
                log.commit(1, &[&add("x"), "oops"]);
                log
            },
            &["00000000000000000001.json', line 2: not a JSON object"],
        ),
        (
            "not UTF-8",
            || {
                let log = Log::with_commits(2);
                fs::write(log.path("00000000000000000001.json"), b"\xff\xfe{").unwrap();
                log
            },
            &["00000000000000000001.json', line 1: not UTF-8"],
        ),
        (
            "gap",
            || {
                let log = Log::with_commits(5);
                fs::remove_file(log.path("00000000000000000003.json")).unwrap();
                log
            },
            &["00000000000000000003.json is missing", "no complete checkpoint"],
        ),
        (
            "no protocol",
            || {
                let log = Log::new();
                log.commit(0, &[METADATA]);
                log
            },
            &["00000000000000000000.json' has no 'protocol' action"],
        ),
        (
            "no metadata",
            || {
                let log = Log::new();
                log.commit(0, &[PROTOCOL]);
                log
            },
            &["00000000000000000000.json' has no 'metaData' action"],
        ),
        (
            "nothing",
            || {
                let log = Log::new();
                log.commit(0, &[&add("a")]);
                log
            },
            &["neither a 'protocol' nor a 'metaData' action"],
        ),
        (
            "schema is not JSON",
            || {
                let log = Log::with_commits(1);
                let bad = r#"{"metaData":{"id":"i","schemaString":"{oops","partitionColumns":[]}}"#;
                log.commit(2, &[bad]);
                log
            },
            &["00000000000000000002.json'", "the schema in 'metaData' is not JSON"],
        ),
        (
            "unreadable checkpoint",
            || {
                let log = Log::with_commits(1);
                fs::remove_file(log.path("00000000000000000000.json")).unwrap();
                log.write("00000000000000000001.checkpoint.parquet", "PAR1");
                log
            },
            &["00000000000000000001.checkpoint.parquet' cannot be read"],
        ),
        (
            "checkpoint without metadata",
            || {
                let log = Log::new();
                log.write(&format!("{:020}.checkpoint.{UUID}.json", 4), V2_PROTOCOL);
                log
            },
            &["has no metaData action", UUID],
        ),
        (
            "sidecar is missing",
            || {
                let log = Log::new();
                let sidecar =
                    r#"{"sidecar":{"path":"x.parquet","sizeInBytes":5,"modificationTime":1}}"#;
                let text = [V2_PROTOCOL, METADATA, sidecar].join("\n");
                log.write(&format!("{:020}.checkpoint.{UUID}.json", 4), &text);
                log
            },
            &["_sidecars/x.parquet' cannot be read"],
        ),
    ];
    for (case, make, wanted) in cases {
        let log = make();
        let (backend, catalog) = memory();
        for dry_run in [true, false] {
            let options = ImportOptions { dry_run, ..log.options() };
            let error = import(&catalog, options).await.unwrap_err();
            assert!(!matches!(error, CatalogError::Unavailable { .. }), "{case}: {error}");
            let error = error.to_string();
            for fragment in *wanted {
                assert!(error.contains(fragment), "{case}: {error}");
            }
        }
        let left = backend.get_table(&TableRef::Name(name())).await.unwrap();
        assert!(left.is_none(), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn places_without_a_table_are_refused() {
    let (_, catalog) = memory();
    for location in ["/no/such/folder", "memory://nothing-here/t"] {
        let options = ImportOptions::new(name(), location);
        let error = import(&catalog, options).await.unwrap_err().to_string();
        assert!(error.contains("no Delta table at"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_contradicts_the_commits_wins_as_for_other_readers() {
    // The checkpoint, which the kernel prefers, has another file than the commits.
    let log = Log::with_commits(0);
    log.commit(1, &[V2_PROTOCOL]);
    let text = [V2_PROTOCOL, METADATA, &add("other")].join("\n");
    log.write(&format!("{:020}.checkpoint.{UUID}.json", 1), &text);
    let (_, catalog) = memory();
    let report = import(&catalog, log.options()).await.unwrap();
    assert_eq!((report.validation, report.base_version.get()), (Validation::Passed, 1));
    assert!(matches!(report.base, Some(BaseSource::Checkpoint { .. })));
    assert_eq!(report.history_commits, 2, "earlier commits are kept");
    assert!(report.warnings[0].contains("contradict each other"), "{:?}", report.warnings);

    // An import that began from the commits has no other base to go to.
    let (backend, catalog) = memory();
    let location = deltalakedb_mirror::store::normalize_location(&log.options().location).unwrap();
    let table = NewTable {
        id: TableId(uuid::Uuid::from_u128(7)),
        name: name(),
        location,
        storage_options: BTreeMap::new(),
        mirror: MirrorMode::Active,
    };
    backend.import_begin(&table, Version::ZERO, true, TimestampMs(1)).await.unwrap();
    let options = ImportOptions { resume: true, ..log.options() };
    let error = import(&catalog, options).await.unwrap_err().to_string();
    assert!(error.contains("file '0': it is in the catalog, not in the log"), "{error}");
    assert!(error.contains("file 'other': it is in the log, not in the catalog"), "{error}");
    assert!(backend.get_table(&TableRef::Name(name())).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_in_other_stores_are_read() {
    let table = "memory://import-test/some/where";
    let opened = deltalakedb_mirror::store::open_store(table, &BTreeMap::new()).unwrap();
    let body = [PROTOCOL, METADATA, &add("0")].join("\n");
    let path = opened.log_dir().join("00000000000000000000.json");
    opened.store.put_opts(&path, body.into(), object_store::PutOptions::default()).await.unwrap();
    let (_, catalog) = memory();
    let report = import(&catalog, ImportOptions::new(name(), table)).await.unwrap();
    assert_eq!((report.num_files, report.validation), (1, Validation::Passed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_published_by_one_table_only() {
    let log = Log::with_commits(1);
    let (_, catalog) = memory();
    import(&catalog, log.options()).await.unwrap();
    let second = ImportOptions { name: TableName::new("ns", "other").unwrap(), ..log.options() };
    let error = import(&catalog, second.clone()).await.unwrap_err().to_string();
    assert!(error.contains("is the place of table 'default.t' already"), "{error}");
    let silent = ImportOptions { mirror: MirrorMode::Off, ..second.clone() };
    import(&catalog, silent).await.unwrap();
    catalog.drop_table(&TableRef::Name(name())).await.unwrap();
    let third = ImportOptions { name: TableName::new("ns", "third").unwrap(), ..second };
    import(&catalog, third).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_continued_import_reads_times_as_one_that_was_not_interrupted() {
    // In-commit timestamps are not enabled: a writer's leftovers of them mean nothing.
    let log = Log::with_commits(600);
    let stray = r#"{"commitInfo":{"inCommitTimestamp":9000000000000}}"#;
    log.commit(550, &[stray, &add("550")]);
    let (_, whole) = memory();
    import(&whole, log.options()).await.unwrap();

    let backend = Arc::new(MemoryBackend::new());
    let faulty = FaultyBackend::new(Arc::clone(&backend), |call| {
        let second = call.verb == Verb::ImportCommits && call.nth == 1;
        if second { Fault::Fail } else { Fault::None }
    });
    import(&env::catalog(Arc::new(faulty)), log.options()).await.unwrap_err();
    let catalog = env::catalog(backend);
    let resumed = ImportOptions { resume: true, ..log.options() };
    assert!(import(&catalog, resumed).await.unwrap().resumed);
    assert!(contents(&catalog).await == contents(&whole).await);
}

/// A file whose rows have these values in column `a`.
fn numbered(n: i64) -> String {
    format!(
        r#"{{"add":{{"path":"n{n}","partitionValues":{{}},"size":7,"modificationTime":1,"dataChange":true,"stats":"{{\"numRecords\":1,\"minValues\":{{\"a\":{n}}},\"maxValues\":{{\"a\":{}}},\"nullCount\":{{\"a\":0}}}}"}}}}"#,
        n + 2
    )
}

/// Asks for so many values, with the index and file by file; returns how many files the index knows.
async fn index_answers(backend: &MemoryBackend, catalog: &Catalog, values: usize) -> i64 {
    let head = catalog.snapshot(&TableRef::Name(name()), At::Head).await.unwrap();
    let files: Vec<_> = catalog.files(head.table.id, head.version).try_collect().await.unwrap();
    for value in (0..2_000).step_by(2_000 / values) {
        let number = Literal::Number(value.to_string());
        let predicate = Predicate::compare(ColumnPath::top("a"), CompareOp::Eq, number);
        let pruner = Pruner::new(&head.metadata, &predicate).unwrap();
        let mut want: Vec<_> = files.iter().filter(|file| pruner.may_match(&file.add)).collect();
        let found = catalog.files_matching(&head, &predicate).unwrap();
        let mut found: Vec<_> = found.try_collect().await.unwrap();
        want.sort_by_key(|file| file.cursor);
        found.sort_by_key(|file| file.cursor);
        assert_eq!(found.iter().collect::<Vec<_>>(), want, "a = {value}");
        assert!(want.len() <= 5, "{}", want.len());
    }
    let index = backend.skip_index(head.table.id).await.unwrap();
    index.segments.iter().map(|segment| segment.files).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_is_made_while_files_are_stored() {
    // Of commits: 1,000 files, of which the second commit removes 100 and adds one of them again.
    let log = Log::new();
    let first: Vec<String> = (0..600).map(numbered).collect();
    let mut lines = vec![PROTOCOL, METADATA];
    lines.extend(first.iter().map(String::as_str));
    log.commit(0, &lines);
    let mut second: Vec<String> = (600..1_000).map(numbered).collect();
    second.extend((0..100).map(|n| remove(&format!("n{n}"))));
    log.commit(1, &second.iter().map(String::as_str).collect::<Vec<_>>());
    log.commit(2, &[&numbered(50)]);
    let (backend, catalog) = memory();
    let report = import(&catalog, log.options()).await.unwrap();
    assert_eq!(report.num_files, 901);
    // It has also seen those that were removed: it was not made of the rows.
    assert_eq!(index_answers(&backend, &catalog, 300).await, 1_001);

    // Of a checkpoint, in several chunks, and commits.
    let log = Log::cleaned(15_000);
    let lines: Vec<String> = (500..900).map(numbered).collect();
    log.commit(7, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let removes: Vec<String> = (1..15_000).map(|n| remove(&format!("f{n}"))).collect();
    let (backend, catalog) = memory();
    import(&catalog, log.options()).await.unwrap();
    let head = catalog.snapshot(&TableRef::Name(name()), At::Head).await.unwrap();
    let index = backend.skip_index(head.table.id).await.unwrap();
    let [segment] = index.segments.as_slice() else { panic!("{:?}", index.segments.len()) };
    assert_eq!((segment.files, head.num_files), (15_402, 15_401));
    assert_eq!(segment.through.added_version, v(7));

    // Where most of it is gone by the end, it is made of the rows.
    log.commit(8, &removes.iter().map(String::as_str).collect::<Vec<_>>());
    let lines: Vec<String> = (900..1_400).map(numbered).collect();
    log.commit(9, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let (backend, catalog) = memory();
    let report = import(&catalog, log.options()).await.unwrap();
    assert_eq!(report.num_files, 902);
    let head = catalog.snapshot(&TableRef::Name(name()), At::Head).await.unwrap();
    let index = backend.skip_index(head.table.id).await.unwrap();
    assert_eq!(index.segments.iter().map(|segment| segment.files).sum::<i64>(), 902);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_knows_what_came_when_it_was_ended() {
    let log = Log::new();
    let first: Vec<String> = (0..1_000).map(numbered).collect();
    let mut lines = vec![PROTOCOL, METADATA];
    lines.extend(first.iter().map(String::as_str));
    log.commit(0, &lines);
    let (backend, catalog) = memory();
    let file = |version| numbered(1_000 + version);
    let writer = OtherWriter { log: &log, next: AtomicU64::new(1), file };
    let report = import_table(&catalog, log.options(), &writer).await.unwrap();
    assert_eq!((report.head, report.num_files), (v(3), 1_003));
    // It was made of the rows.
    assert_eq!(index_answers(&backend, &catalog, 300).await, 1_003);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_several_batches_are_stored_in_order() {
    let log = Log::with_commits(600);
    let (_, catalog) = memory();
    let report = import(&catalog, log.options()).await.unwrap();
    assert_eq!((report.head, report.num_files, report.applied_commits), (v(600), 601, 601));
    assert_eq!(report.validation, Validation::Passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_is_made_of_rows_where_columns_change_or_an_import_was_continued() {
    let log = Log::new();
    let lines: Vec<String> = (0..700).map(numbered).collect();
    let mut zero = vec![PROTOCOL, METADATA];
    zero.extend(lines.iter().map(String::as_str));
    log.commit(0, &zero);
    let wider = METADATA.replace(
        r#"\"fields\":["#,
        r#"\"fields\":[{\"name\":\"b\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}},"#,
    );
    log.commit(1, &[&wider, &remove("n3"), &numbered(700)]);
    let (backend, catalog) = memory();
    import(&catalog, log.options()).await.unwrap();
    assert_eq!(
        index_answers(&backend, &catalog, 300).await,
        700,
        "files that are there at the end"
    );

    // The first commit is stored, and then the program ends.
    let lines: Vec<String> = (701..20_000).map(numbered).collect();
    log.commit(2, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let backend = Arc::new(MemoryBackend::new());
    let faulty = FaultyBackend::new(Arc::clone(&backend), |call| match call.verb {
        Verb::ImportFinish => Fault::Fail,
        _ => Fault::None,
    });
    let catalog = env::catalog(Arc::new(faulty));
    import(&catalog, log.options()).await.unwrap_err();
    let catalog = env::catalog(Arc::clone(&backend) as Arc<dyn CatalogBackend>);
    import(&catalog, ImportOptions { resume: true, ..log.options() }).await.unwrap();
    assert_eq!(index_answers(&backend, &catalog, 30).await, 19_999);
}

/// A file with so much statistics that twelve thousand of them are a large commit.
fn long(n: i64) -> String {
    let text = "x".repeat(3_000);
    numbered(n).replace(
        r#"\"nullCount\""#,
        &format!(r#"\"tightBounds\":true,\"filler\":\"{text}\",\"nullCount\""#),
    )
}

/// What is in a table: its files without their statistics, and those of one of them.
async fn told(catalog: &Catalog) -> (Vec<(Version, i64, String)>, Vec<usize>) {
    let head = catalog.snapshot(&TableRef::Name(name()), At::Head).await.unwrap();
    let files: Vec<_> = catalog.files(head.table.id, head.version).try_collect().await.unwrap();
    let stats = files.iter().map(|f| f.add.stats.as_ref().map_or(0, String::len)).collect();
    let file = |f: &deltalakedb_catalog_core::model::FileRecord| {
        (f.cursor.added_version, f.cursor.ordinal, f.add.path.clone())
    };
    (files.iter().map(file).collect(), stats)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_commit_is_read_in_pages() {
    let log = Log::new();
    let lines: Vec<String> = (0..12_000).map(long).collect();
    let small = |lines: &[String]| lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    log.commit(0, &[PROTOCOL, METADATA, &numbered(20_000)]);
    log.commit(1, &[&small(&lines), r#"{"txn":{"appId":"a","version":1}}"#, &remove("n20000")]);
    log.commit(2, &[&numbered(20_001)]);
    let first = fs::read(log.path(&format!("{:020}.json", 1))).unwrap();
    assert!(first.len() > 32 << 20, "it is none of the large ones");
    let dry = ImportOptions { dry_run: true, ..log.options() };
    let (backend, catalog) = memory();
    assert_eq!(import(&catalog, dry).await.unwrap().num_files, 12_001);
    let report = import(&catalog, log.options()).await.unwrap();
    assert_eq!((report.num_files, report.head), (12_001, v(2)));
    assert_eq!(index_answers(&backend, &catalog, 5).await, 12_002, "made on the way");
    let (files, stats) = told(&catalog).await;
    assert!(files.iter().take(12_000).map(|f| f.1).eq(0..12_000));
    assert!(files.iter().zip(0..12_000).all(|(f, n)| f.2 == format!("n{n}")));
    assert!(stats.iter().take(12_000).all(|len| *len > 3_000));
    let head = catalog.snapshot(&TableRef::Name(name()), At::Head).await.unwrap();
    let bodies = backend.read_bodies(head.table.id, v(1), v(1), 1).await.unwrap();
    assert!(bodies[0].1.published().unwrap() == first);

    // A file that is added twice counts once, by its last action, as in a small one.
    log.commit(1, &[&small(&lines), &numbered(7)]);
    let (_, catalog) = memory();
    assert_eq!(import(&catalog, log.options()).await.unwrap().num_files, 12_002);
    let (files, stats) = told(&catalog).await;
    assert_eq!(files.iter().filter(|file| file.2 == "n7").count(), 1);
    let at = files.iter().position(|file| file.2 == "n7").unwrap();
    assert!(stats[at] < 100, "the last one");

    // What the protocol does not say is noted when its page is read, and when it is looked for.
    let odd = r#"{"add":{"path":"x","partitionValues":{},"size":1.0,"modificationTime":"1","dataChange":true}}"#;
    log.commit(1, &[&small(&lines), r#"{"txn":{"appId":"a","version":"1"}}"#, odd]);
    for dry_run in [true, false] {
        let (_, catalog) = memory();
        let report = import(&catalog, ImportOptions { dry_run, ..log.options() }).await.unwrap();
        assert_eq!(report.num_files, 12_003);
        for want in [
            "'add.size' is an integer written with a fraction or an exponent (version 1, line 12002)",
            "'add.modificationTime' is a number in quotes (version 1, line 12002)",
            "'txn.version' is a number in quotes (version 1, line 12001)",
        ] {
            assert!(report.warnings.iter().any(|w| w.contains(want)), "{:?}", report.warnings);
        }
    }

    // Damage is the log's fault: nothing is kept.
    for (line, error) in [
        ("{\"add\":{\"path\":\"x\",\"size\":1}}", "line 12001: bad 'add' action"),
        ("{\"add\":{\"path\":\"x\"", "line 12001: not a JSON object"),
    ] {
        log.commit(1, &[&small(&lines), line]);
        let (backend, catalog) = memory();
        let told = import(&catalog, log.options()).await.unwrap_err().to_string();
        assert!(told.contains(error) && told.contains("00001.json"), "{told}");
        assert_eq!(backend.get_table(&TableRef::Name(name())).await.unwrap(), None, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_spelt_in_two_ways_is_named() {
    let log = Log::new();
    let root = log.folder.path().to_str().unwrap().to_owned();
    log.commit(0, &[PROTOCOL, METADATA, &add("a"), &add("b"), &add("x/c"), &add("again")]);
    log.commit(1, &[&add(&format!("file:{root}/a"))]);
    log.commit(2, &[&remove("./b"), &remove(&format!("{root}/again")), &remove("again")]);
    log.commit(3, &[&add("again")]);
    log.commit(4, &[&add("x//c")]);
    let (_, catalog) = memory();
    let error = import(&catalog, log.options()).await.unwrap_err().to_string();
    for said in [
        &format!("'file:{root}/a' and 'a' are one file"),
        "'x//c' and 'x/c' are one file",
        "file 'b' is removed in version 2 as './b'",
        "3 differences",
    ] {
        assert!(error.contains(said), "'{said}' is not in: {error}");
    }
    let (_, catalog) = memory();
    let options = ImportOptions { skip_validation: true, ..log.options() };
    assert_eq!(import(&catalog, options).await.unwrap().num_files, 6);
}
