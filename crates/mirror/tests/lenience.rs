//! Logs that are not written as the protocol says, and that established readers read all the same: made
//! after public bug reports. Each is imported, its bytes are kept, the Delta kernel (which DuckDB,
//! `deltalake` and Polars read with) agrees with what was made of them, and a person is told.
// All of this is test code; clippy only sees that of functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "corpus/env.rs"]
mod env;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Field;
use arrow::record_batch::RecordBatch;
use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{At, TableName, TableRef, Version};
use deltalakedb_catalog_core::lenient::normal_lines;
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::NoProgress;
use deltalakedb_catalog_engine::memory::MemoryBackend;
use deltalakedb_mirror::import::{ImportOptions, ImportReport, Validation, import_table};
use deltalakedb_mirror::kernel::{LogLocation, read_state};
use deltalakedb_mirror::log::{CommitFile, ReadCommit};
use futures::TryStreamExt;

const PROTOCOL: &str = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#;
const METADATA: &str = r#"{"metaData":{"id":"t","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}},{\"name\":\"p\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":["p"],"configuration":{},"createdTime":1}}"#;
const ADD: &str = r#"{"add":{"path":"p=1/f","partitionValues":{"p":"1"},"size":696,"modificationTime":1,"dataChange":true}}"#;

fn name() -> TableName {
    "t".parse().unwrap()
}

/// A table folder with these commits.
fn log(commits: &[String]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("_delta_log")).unwrap();
    for (version, text) in commits.iter().enumerate() {
        fs::write(commit(&folder, version), text).unwrap();
    }
    folder
}

fn commit(folder: &tempfile::TempDir, version: usize) -> PathBuf {
    folder.path().join(format!("_delta_log/{version:020}.json"))
}

fn catalog() -> Catalog {
    env::catalog(Arc::new(MemoryBackend::new()) as Arc<dyn CatalogBackend>)
}

async fn import(catalog: &Catalog, folder: &tempfile::TempDir) -> Result<ImportReport> {
    let options = ImportOptions::new(name(), folder.path().to_str().unwrap());
    import_table(catalog, options, &NoProgress).await
}

async fn head(catalog: &Catalog) -> (Snapshot, Vec<Add>) {
    let head = catalog.snapshot(&TableRef::Name(name()), At::Head).await.unwrap();
    let files: Vec<_> = catalog.files(head.table.id, head.version).try_collect().await.unwrap();
    (head, files.into_iter().map(|file| file.add).collect())
}

/// What a log has in place of what the protocol says, and what is told about it.
struct Case {
    what: &'static str,
    commits: Vec<String>,
    warning: &'static str,
}

fn case(what: &'static str, commits: &[&str], warning: &'static str) -> Case {
    Case { what, commits: commits.iter().map(|c| (*c).to_owned()).collect(), warning }
}

/// One commit with other text in one place.
fn with(what: &'static str, old: &str, new: &str, warning: &'static str) -> Case {
    let text = [PROTOCOL, METADATA, ADD, ""].join("\n");
    assert!(text.contains(old), "{what}");
    case(what, &[&text.replacen(old, new, 1)], warning)
}

/// One commit with another line.
fn and(what: &'static str, line: &str, warning: &'static str) -> Case {
    case(what, &[&[PROTOCOL, METADATA, ADD, line, ""].join("\n")], warning)
}

/// What the Delta kernel reads too.
fn read_by_the_kernel() -> Vec<Case> {
    let whole = [PROTOCOL, METADATA, ADD, ""].join("\n");
    vec![
        with("a size with a point", "696", "696.0", "'add.size' is an integer written with a"),
        with("a size with an exponent", "696", "6.96e2", "'add.size' is an integer written with a"),
        with("a size with a fraction", "696", "696.5", "'add.size' has a fraction"),
        with("a size in quotes", "696", "\"696\"", "'add.size' is a number in quotes"),
        with(
            "a time with a point",
            "\"modificationTime\":1",
            "\"modificationTime\":1.0",
            "'add.modificationTime' is",
        ),
        with(
            "a partition value that is a number",
            "{\"p\":\"1\"}",
            "{\"p\":1}",
            "'add.partitionValues' is a number",
        ),
        with(
            "one with a point",
            "{\"p\":\"1\"}",
            "{\"p\":1.50}",
            "'add.partitionValues' is a number",
        ),
        with(
            "one that is true",
            "{\"p\":\"1\"}",
            "{\"p\":true}",
            "'add.partitionValues' is a number",
        ),
        with(
            "tags that are no text",
            "\"dataChange\":true",
            "\"dataChange\":true,\"tags\":{\"n\":1,\"b\":false}",
            "'add.tags' is a number",
        ),
        with(
            "a row id with a point",
            "\"dataChange\":true",
            "\"dataChange\":true,\"baseRowId\":1.0",
            "'add.baseRowId' is",
        ),
        with("a field twice", "\"size\":696", "\"size\":1,\"size\":696", "'add.size' stands twice"),
        with(
            "an unknown key beside the action",
            "{\"add\"",
            "{\"futureThing\":{\"a\":1},\"add\"",
            "a key that is no action",
        ),
        with("an unknown key after it", "true}}", "true},\"x\":1}", "a key that is no action"),
        with(
            "two actions in one object",
            "{\"add\"",
            "{\"txn\":{\"appId\":\"a\",\"version\":1},\"add\"",
            "holds several actions",
        ),
        with(
            "properties that are no text",
            "\"configuration\":{}",
            "\"configuration\":{\"x\":1,\"delta.appendOnly\":true}",
            "'metaData.configuration' is a number",
        ),
        with("an id that is a number", "\"id\":\"t\"", "\"id\":5", "'metaData.id' is a number"),
        with(
            "a creation time with an exponent",
            "\"createdTime\":1",
            "\"createdTime\":1.7e12",
            "'metaData.createdTime' is",
        ),
        with(
            "a creation time in quotes",
            "\"createdTime\":1",
            "\"createdTime\":\"17\"",
            "'metaData.createdTime' is",
        ),
        with(
            "options that are numbers",
            "\"options\":{}",
            "\"options\":{\"a\":1}",
            "'metaData.format.options' is a number",
        ),
        with(
            "a protocol with points",
            "\"minReaderVersion\":1,\"minWriterVersion\":2",
            "\"minReaderVersion\":1.0,\"minWriterVersion\":\"2\"",
            "'protocol.minReaderVersion' is",
        ),
        with(
            "field metadata of all kinds",
            r#"\"metadata\":{}"#,
            r#"\"metadata\":{\"a\":1,\"b\":[true],\"c\":null}"#,
            "",
        ),
        with("no creation time", ",\"createdTime\":1", "", ""),
        with(
            "null fields",
            "\"dataChange\":true",
            "\"dataChange\":true,\"deletionVector\":null,\"stats\":null,\"tags\":null",
            "",
        ),
        with(
            "unknown fields",
            "\"dataChange\":true",
            "\"dataChange\":true,\"new\":{\"a\":[1]}",
            "",
        ),
        and(
            "a transaction in quotes",
            r#"{"txn":{"appId":"a","version":"3","lastUpdated":1.0}}"#,
            "'txn.version' is a number in quotes",
        ),
        and(
            "an application that is a number",
            r#"{"txn":{"appId":5,"version":1}}"#,
            "'txn.appId' is a number",
        ),
        and(
            "change data without a size",
            r#"{"cdc":{"path":"x","partitionValues":{"p":1},"dataChange":false}}"#,
            "'cdc.size' is missing",
        ),
        and(
            "a tombstone with numbers of all kinds",
            r#"{"remove":{"path":"gone","deletionTimestamp":1.7e12,"dataChange":true,"size":"7","partitionValues":{"p":2}}}"#,
            "'remove.deletionTimestamp' is",
        ),
        and(
            "a commitInfo of an odd shape",
            r#"{"commitInfo":{"timestamp":"x","operation":5,"operationParameters":{"a":{"b":[1]}}}}"#,
            "",
        ),
        and("a commitInfo that is text", r#"{"commitInfo":"x"}"#, ""),
        and("an empty object", "{}", ""),
        and("a control character", "{\"commitInfo\":{\"a\":\"x\ty\"}}", "a control character"),
        and(
            "two objects on a line",
            r#"{"txn":{"appId":"a","version":1}} {"txn":{"appId":"b","version":1}}"#,
            "several JSON objects",
        ),
        case("line ends of another system", &[&whole.replace('\n', "\r\n")], ""),
        case("line ends of an old one", &[&whole.replace('\n', "\r")], "several JSON objects"),
        case("blank lines and spaces", &[&whole.replace('\n', "  \n \n  ")], ""),
        case("no line end at the end", &[whole.trim_end()], ""),
        case(
            "an action over several lines",
            &[&whole.replace("{\"path\"", "{\n \"path\"")],
            "extends over several lines",
        ),
        case(
            "the protocol in a later commit",
            &[&[METADATA, ADD].join("\n"), "{\"commitInfo\":{}}", PROTOCOL],
            "version 0 has no 'protocol' action, the first one is in version 2",
        ),
        case(
            "the metadata in a later commit",
            &[PROTOCOL, &[METADATA, ADD].join("\n")],
            "version 0 has no 'metaData' action, the first one is in version 1",
        ),
        case(
            "protocol and metadata in one object",
            &[&format!(
                "{},{}\n{ADD}",
                PROTOCOL.strip_suffix('}').unwrap(),
                METADATA.strip_prefix('{').unwrap()
            )],
            "holds several actions",
        ),
    ]
}

/// What Spark reads, and the Delta kernel does not.
fn read_by_spark() -> Vec<Case> {
    vec![
        with("statistics that are an object", "\"dataChange\":true", "\"dataChange\":true,\"stats\":{\"numRecords\":2}", "'add.stats' is JSON where text belongs"),
        with("tags that are objects", "\"dataChange\":true", "\"dataChange\":true,\"tags\":{\"n\":{\"a\":1}}", "'add.tags' is JSON"),
        with("properties that are objects", "\"configuration\":{}", "\"configuration\":{\"x\":{\"a\":1}}", "'metaData.configuration' is JSON"),
        with("no id", "\"id\":\"t\",", "", "'metaData.id' is missing: an id is derived"),
        with("no partition columns", "\"partitionColumns\":[\"p\"]", "\"partitionColumns\":null", "'metaData.partitionColumns' is missing"),
        with("no format", "\"format\":{\"provider\":\"parquet\",\"options\":{}}", "\"format\":null", "'metaData.format' is missing"),
        with("no provider", "\"provider\":\"parquet\",\"options\":{}", "\"options\":{}", "'metaData.format.provider' is missing"),
        with("no properties", "\"configuration\":{}", "\"configuration\":null", "'metaData.configuration' is missing"),
        with("no partition values", "{\"p\":\"1\"}", "null", "'add.partitionValues' is missing"),
        with("fields without metadata", r#",\"metadata\":{}"#, "", "'schemaString: metadata' is missing"),
        with("a byte order mark", PROTOCOL, &format!("\u{feff}{PROTOCOL}"), "begins with a byte order mark"),
        case("no schema", &[&[PROTOCOL, r#"{"metaData":{"id":"t","format":{"provider":"parquet","options":{}},"partitionColumns":[],"configuration":{}}}"#].join("\n")], "'metaData.schemaString' is missing"),
    ]
}

async fn check(case: Case, by_the_kernel: bool) {
    let what = case.what;
    let folder = log(&case.commits);
    let catalog = catalog();
    let report = import(&catalog, &folder).await.unwrap_or_else(|e| panic!("{what}: {e}"));
    match &report.validation {
        Validation::Passed => assert!(by_the_kernel, "{what}"),
        Validation::NotValidated { why } => assert!(!by_the_kernel, "{what}: {why}"),
        Validation::Skipped => panic!("{what}"),
    }
    let told = report.warnings.join("\n");
    if case.warning.is_empty() {
        assert_eq!(told, "", "{what}");
    } else {
        assert!(told.contains(case.warning) && told.contains("version 0"), "{what}: {told}");
    }
    let dry = catalog_free_dry_run(&folder).await;
    assert_eq!(dry.warnings, report.warnings, "{what}");

    // The bytes are those of the log, and another catalog gets the same from them.
    let (snapshot, files) = head(&catalog).await;
    let bodies =
        catalog.backend().read_bodies(snapshot.table.id, Version::ZERO, snapshot.version, 9).await;
    for (record, body) in bodies.unwrap() {
        let version = usize::try_from(record.version.get()).unwrap();
        let stored = fs::read(commit(&folder, version)).unwrap();
        assert_eq!(body.published().unwrap(), stored, "{what}");
        // Read as a large commit it says the same.
        let file = CommitFile { version: record.version, size: 1, modified: record.timestamp };
        let small = ReadCommit::parse("c", file, &stored).unwrap();
        let large = ReadCommit::stream("c", file, &stored[..]).unwrap();
        let adds = large.later.as_ref().unwrap().all().await.unwrap();
        assert_eq!(adds, small.index.adds, "{what}");
        assert_eq!(large.index.metadata, small.index.metadata, "{what}");
        assert_eq!(large.index.txns, small.index.txns, "{what}");
        let odd = large.index.odd.iter().count() + large.later.unwrap().odd().iter().count();
        assert_eq!(odd == 0, small.index.odd.is_empty(), "{what}");
    }

    // In the protocol's form, as the catalog hands the commits out, the kernel reads all of them.
    let normal = tempfile::tempdir().unwrap();
    fs::create_dir(normal.path().join("_delta_log")).unwrap();
    for version in 0..case.commits.len() {
        let stored = fs::read(commit(&folder, version)).unwrap();
        fs::write(commit(&normal, version), normal_lines("c", &stored).unwrap()).unwrap();
    }
    let place = LogLocation::Table(normal.path().to_str().unwrap().to_owned());
    let seen = read_state(place, &BTreeMap::new(), None).await;
    if snapshot.metadata.schema_string.contains("\"fields\":[]") {
        // It knows what is meant, and scans no table without columns.
        let why = seen.unwrap_err().to_string();
        assert!(why.contains("empty schema"), "{what}: {why}");
        return;
    }
    let seen = seen.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(seen.files.len(), files.len(), "{what}");
    for add in &files {
        let file = &seen.files[&add.key()];
        assert_eq!(
            (file.size, &file.partition_values),
            (add.size, &add.partition_values),
            "{what}"
        );
    }
    assert_eq!(seen.metadata.configuration, snapshot.metadata.configuration, "{what}");
    assert_eq!(seen.metadata.id, snapshot.metadata.id, "{what}");
}

async fn catalog_free_dry_run(folder: &tempfile::TempDir) -> ImportReport {
    let options = ImportOptions {
        dry_run: true,
        ..ImportOptions::new(name(), folder.path().to_str().unwrap())
    };
    import_table(&catalog(), options, &NoProgress).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_reads_is_imported_as_it_reads_it() {
    for case in read_by_the_kernel() {
        check(case, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_spark_reads_is_imported() {
    for case in read_by_spark() {
        check(case, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_odd_is_told_once_with_its_number_and_first_place() {
    let odd = |n: usize| ADD.replace("p=1/f", &format!("p=1/f{n}")).replace("696", "696.0");
    let commits = vec![
        [PROTOCOL, METADATA, ADD, ""].join("\n"),
        format!("{ADD}\n\n{}\n{}\n", odd(1), odd(2)),
        odd(3),
    ];
    let report = import(&catalog(), &log(&commits)).await.unwrap();
    assert_eq!(
        report.warnings,
        ["the log is not written as the protocol says: 'add.size' is an integer written with a \
             fraction or an exponent (version 1, line 3, 3 times from there on)"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_reads_is_refused_with_the_whole_path() {
    for (old, new, want) in [
        ("\"size\":696,", "", "line 3: bad 'add' action: missing field `size`"),
        ("\"path\":\"p=1/f\",", "", "line 3: bad 'add' action: missing field `path`"),
        ("696", "\"many\"", "line 3: bad 'add' action"),
        ("696", "9223372036854775808", "line 3: bad 'add' action"),
        ("\"dataChange\":true", "\"dataChange\":\"true\"", "line 3: bad 'add' action"),
        ("\"size\"", "\"SIZE\"", "line 3: bad 'add' action: missing field `size`"),
        ("{\"p\":\"1\"}", "[]", "line 3: bad 'add' action"),
        ("true}}", "true}", "line 3: not a JSON object"),
        (PROTOCOL, "null", "line 1: not a JSON object"),
        (PROTOCOL, "\0\0\0", "line 1: not a JSON object"),
        (PROTOCOL, "{}", "has no 'protocol' action, and no later one has"),
        ("\"minWriterVersion\":2", "\"x\":1", "line 1: bad 'protocol' action"),
    ] {
        let text = [PROTOCOL, METADATA, ADD, ""].join("\n");
        assert!(text.contains(old), "{old}");
        let folder = log(&[text.replacen(old, new, 1)]);
        let error = import(&catalog(), &folder).await.unwrap_err().to_string();
        let path = commit(&folder, 0);
        assert!(error.contains(want), "{error}");
        assert!(error.contains(&format!("commit file '{}'", path.display())), "{error}");
    }
    // In other stores it is the URL.
    let table = "memory://lenience/some/where";
    let opened = deltalakedb_mirror::store::open_store(table, &BTreeMap::new()).unwrap();
    let path = opened.log_dir().join("00000000000000000000.json");
    let put = opened.store.put_opts(&path, "oops".into(), object_store::PutOptions::default());
    put.await.unwrap();
    let error = import_table(&catalog(), ImportOptions::new(name(), table), &NoProgress).await;
    let error = error.unwrap_err().to_string();
    let whole = "'memory://lenience/some/where/_delta_log/00000000000000000000.json'";
    assert!(error.contains(whole), "{error}");
}

/// A struct column with these fields.
fn record(fields: Vec<(&str, ArrayRef)>, present: Vec<bool>) -> ArrayRef {
    let (fields, arrays): (Vec<_>, Vec<_>) = fields
        .into_iter()
        .map(|(name, a)| (Arc::new(Field::new(name, a.data_type().clone(), true)), a))
        .unzip();
    Arc::new(StructArray::new(fields.into(), arrays, Some(present.into())))
}

/// A table that consists of one checkpoint, whose one file has this size and time.
fn checkpoint(size: ArrayRef, modified: ArrayRef) -> tempfile::TempDir {
    let first = vec![true, false, false];
    let ints = |n: i32| Arc::new(Int32Array::from(vec![n; 3])) as ArrayRef;
    let texts = |t: &str| Arc::new(StringArray::from(vec![t; 3])) as ArrayRef;
    let schema = r#"{"type":"struct","fields":[{"name":"a","type":"long"}]}"#;
    let protocol =
        record(vec![("minReaderVersion", ints(1)), ("minWriterVersion", ints(2))], first);
    let metadata = record(vec![("schemaString", texts(schema))], vec![false, true, false]);
    let add = vec![("path", texts("f")), ("size", size), ("modificationTime", modified)];
    let add = record(add, vec![false, false, true]);
    let batch =
        RecordBatch::try_from_iter([("protocol", protocol), ("metaData", metadata), ("add", add)]);
    let batch = batch.unwrap();
    let folder = log(&[]);
    let path = folder.path().join(format!("_delta_log/{:020}.checkpoint.parquet", 3));
    let file = fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_checkpoints_are_converted_but_never_to_null() {
    let time = || {
        let times = TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_000); 3]);
        Arc::new(times.with_timezone("UTC")) as ArrayRef
    };
    let sizes: [ArrayRef; 3] = [
        Arc::new(Float64Array::from(vec![None, None, Some(696.0)])),
        Arc::new(StringArray::from(vec![None, None, Some("696")])),
        Arc::new(Int32Array::from(vec![None, None, Some(696)])),
    ];
    for (size, odd) in sizes.into_iter().zip([true, true, false]) {
        let folder = checkpoint(size, time());
        let catalog = catalog();
        let report = import(&catalog, &folder).await.unwrap();
        let told = report.warnings.join("\n");
        assert_eq!(told.contains("column 'add.size' is"), odd, "{told}");
        assert!(told.contains("column 'add.modificationTime' is Timestamp"), "{told}");
        assert!(told.contains("'metaData.id' is missing"), "{told}");
        assert!(told.contains("'schemaString: nullable' is missing"), "{told}");
        assert!(told.contains(&format!("(checkpoint '{:020}.checkpoint.parquet')", 3)), "{told}");
        let (_, files) = head(&catalog).await;
        assert_eq!((files[0].size, files[0].modification_time), (696, 1_700_000_000_000));
    }
    for size in [
        Arc::new(StringArray::from(vec![None, None, Some("many")])) as ArrayRef,
        Arc::new(Float64Array::from(vec![None, None, Some(1e30)])),
    ] {
        let folder = checkpoint(size, time());
        let error = import(&catalog(), &folder).await.unwrap_err().to_string();
        let file = folder.path().join(format!("_delta_log/{:020}.checkpoint.parquet", 3));
        assert!(error.contains(&format!("'{}'", file.display())), "{error}");
        assert!(
            error.contains("column 'add.size'") && error.contains("a value that is no"),
            "{error}"
        );
    }
}
