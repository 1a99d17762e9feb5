use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType as Arrow, Field, Fields, Int32Type};
use deltalakedb_catalog_core::action::{Action, Format, Metadata, NullableMap, Protocol};
use deltalakedb_catalog_core::ids::{TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, TableRecord, TableState};
use deltalakedb_catalog_engine::predicate::{ColumnPath, CompareOp, Literal, Predicate, Pruner};
use deltalakedb_mirror::store::{Store, open_store};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn snapshot(protocol: Protocol, metadata: Metadata) -> Snapshot {
    let version = Version::ZERO;
    Snapshot {
        table: TableRecord {
            id: TableId(uuid::Uuid::nil()),
            name: "t".parse::<TableName>().unwrap(),
            location: "memory://t".into(),
            storage_options: BTreeMap::new(),
            state: TableState::Active,
            created_at: TimestampMs(0),
            dropped_at: None,
            head: Some(version),
            head_timestamp: None,
            base_version: version,
            barrier_version: version,
            mirror: MirrorMode::Off,
            published_version: None,
        },
        version,
        timestamp: TimestampMs(0),
        protocol,
        protocol_version: version,
        metadata,
        metadata_version: version,
        num_files: 0,
        size_bytes: 0,
    }
}

fn table(schema: &str, partitions: &[&str], properties: &[(&str, &str)]) -> Snapshot {
    let protocol = Protocol {
        min_reader_version: 1,
        min_writer_version: 2,
        reader_features: None,
        writer_features: None,
    };
    let metadata = Metadata {
        id: "x".into(),
        name: None,
        description: None,
        format: Format::default(),
        schema_string: StructType::from_text(schema).unwrap().to_json(),
        partition_columns: partitions.iter().map(|p| (*p).to_owned()).collect(),
        created_time: None,
        configuration: properties
            .iter()
            .map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned())))
            .collect::<NullableMap>(),
    };
    snapshot(protocol, metadata)
}

fn store() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

async fn put(store: &Arc<dyn ObjectStore>, name: &str, bytes: Vec<u8>) -> Path {
    let path = path(name);
    store.put(&path, bytes.into()).await.unwrap();
    path
}

fn file(batches: &[RecordBatch]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, batches[0].schema(), None).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
        // One row group each.
        writer.flush().unwrap();
    }
    writer.close().unwrap();
    out
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)))
        .unwrap()
}

/// A file without rows of this Parquet schema.
fn empty(schema: &str) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(&format!("message m {{ {schema} }}")).unwrap());
    let mut out = Vec::new();
    SerializedFileWriter::new(&mut out, schema, Arc::new(WriterProperties::new()))
        .unwrap()
        .close()
        .unwrap();
    out
}

async fn describe(table: &Snapshot, name: &str, bytes: Vec<u8>) -> Result<Add> {
    let store = store();
    let file = put(&store, name, bytes).await;
    let mut adds = describe_files(table, &store, &path("root"), &[file]).await?;
    Ok(adds.remove(0))
}

fn stats(add: &Add) -> Value {
    serde_json::from_str(add.stats.as_deref().unwrap()).unwrap()
}

#[tokio::test]
async fn statistics_come_from_all_row_groups() {
    let group = |longs: Vec<Option<i64>>, texts: Vec<Option<&str>>, doubles: Vec<f64>| {
        let n = longs.len();
        batch(vec![
            ("l", Arc::new(Int64Array::from(longs))),
            ("s", Arc::new(StringArray::from(texts))),
            ("g", Arc::new(Float64Array::from(doubles))),
            ("gone", Arc::new(Int32Array::from(vec![None::<i32>; n]))),
        ])
    };
    let long = "z".repeat(40);
    let bytes = file(&[
        group(
            vec![Some(9_007_199_254_740_993), None],
            vec![Some("b"), Some(&long)],
            vec![0.0, 2.5],
        ),
        group(vec![None, None], vec![None, None], vec![1.0, 7.0]),
        group(vec![Some(-5), Some(3)], vec![Some("a"), None], vec![f64::NAN, 1.0]),
    ]);
    let table = table("l long, s string, g double, gone int, later date", &[], &[]);
    let size = i64::try_from(bytes.len()).unwrap();
    let add = describe(&table, "root/part 1%.parquet", bytes).await.unwrap();
    assert_eq!(add.path, "part%201%25.parquet");
    assert!(add.size == size && add.modification_time > 0 && add.data_change);
    assert_eq!(
        stats(&add),
        json!({
            "numRecords": 6,
            "minValues": {"l": -5, "s": "a", "g": -0.0},
            "maxValues": {"l": 9_007_199_254_740_993_i64, "s": format!("{}\u{7F}", "z".repeat(32))},
            "nullCount": {"l": 3, "s": 3, "g": 0, "gone": 6, "later": 6},
            "tightBounds": true
        })
    );
}

#[tokio::test]
async fn every_type_is_written_as_readers_expect() {
    let decimal = |v: Vec<i128>, p, s| {
        Arc::new(Decimal128Array::from(v).with_precision_and_scale(p, s).unwrap()) as ArrayRef
    };
    let micros = vec![1_700_000_000_123_456, -1_500, 1_700_000_000_123_001];
    let nested = StructArray::from(vec![
        (
            Arc::new(Field::new("c", Arrow::Int32, true)),
            Arc::new(Int32Array::from(vec![Some(4), None, Some(1)])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("d", Arrow::Utf8, true)),
            Arc::new(StringArray::from(vec![Some("x"), Some("y"), None])) as ArrayRef,
        ),
    ]);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1)]),
        Some(vec![Some(2), Some(3)]),
        Some(vec![Some(0)]),
    ]);
    let sparse = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1)]),
        Some(vec![]),
        None,
    ]);
    let entries = StructArray::new(
        Fields::from(vec![
            Field::new("key", Arrow::Utf8, false),
            Field::new("value", Arrow::Int32, true),
        ]),
        vec![
            Arc::new(StringArray::from(vec!["k", "k", "k"])),
            Arc::new(Int32Array::from(vec![1, 2, 3])),
        ],
        None,
    );
    let map = MapArray::new(
        Arc::new(Field::new("key_value", entries.data_type().clone(), false)),
        OffsetBuffer::from_lengths([1, 1, 1]),
        entries,
        None,
        false,
    );
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("byte", Arc::new(Int8Array::from(vec![1, -2, 3]))),
        ("short", Arc::new(Int16Array::from(vec![1, -2, 3]))),
        ("float", Arc::new(Float32Array::from(vec![0.1, 0.2, 0.3]))),
        ("dec9", decimal(vec![12_345, -1, 5], 9, 2)),
        ("dec18", decimal(vec![1, 2, 3], 18, 18)),
        ("dec38", decimal(vec![-99_999_999_999_999_999_999_999_999_999, 0, 7], 38, 2)),
        ("bin", Arc::new(BinaryArray::from_vec(vec![b"a", b"b", b"c"]))),
        ("flag", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("day", Arc::new(Date32Array::from(vec![19_000, 19_001, 0]))),
        ("t", Arc::new(TimestampMicrosecondArray::from(micros.clone()).with_timezone("UTC"))),
        ("n", Arc::new(TimestampMicrosecondArray::from(micros))),
        ("ms", Arc::new(TimestampMillisecondArray::from(vec![5, 6, 7]).with_timezone("UTC"))),
        ("a", Arc::new(nested)),
        ("list", Arc::new(list)),
        ("sparse", Arc::new(sparse)),
        ("map", Arc::new(map)),
    ];
    let bytes = file(&[batch(columns)]);
    let schema = "byte byte, short short, float float, dec9 decimal(9,2), dec18 decimal(18,18), \
                  dec38 decimal(38,2), bin binary, flag boolean, day date, t timestamp, \
                  n timestamp_ntz, ms timestamp, a struct<c:integer,d:string>, list array<integer>, \
                  sparse array<integer>, map map<string,integer>";
    let inferred = {
        let store = store();
        let file = put(&store, "x", bytes.clone()).await;
        infer_schema(&store, &file).await.unwrap()
    };
    assert_eq!(inferred, StructType::from_text(schema).unwrap());
    let add = describe(&table(schema, &[], &[]), "root/f", bytes).await.unwrap();
    let text = add.stats.clone().unwrap();
    for exact in [
        r#""dec38":-999999999999999999999999999.99"#,
        r#""dec18":0.000000000000000001"#,
        r#""dec9":-0.01"#,
        r#""dec9":123.45"#,
    ] {
        assert!(text.contains(exact), "{exact} in {text}");
    }
    let stats = stats(&add);
    let (min, max, nulls) = (&stats["minValues"], &stats["maxValues"], &stats["nullCount"]);
    assert_eq!((&min["byte"], &max["short"]), (&json!(-2), &json!(3)));
    assert!(text.contains(r#""float":0.1,"#) && max.get("float").is_none());
    assert!(min.get("bin").is_none() && min.get("flag").is_none() && nulls["bin"] == 0);
    assert_eq!((&min["day"], &max["day"]), (&json!("1970-01-01"), &json!("2022-01-09")));
    assert_eq!(min["t"], "1969-12-31T23:59:59.998Z");
    assert_eq!(max["t"], "2023-11-14T22:13:20.124Z");
    assert_eq!(max["n"], "2023-11-14T22:13:20.124");
    assert_eq!(max["ms"], "1970-01-01T00:00:00.007Z");
    assert_eq!(min["a"], json!({"c": 1, "d": "x"}));
    assert_eq!(nulls["a"], json!({"c": 1, "d": 1}));
    assert_eq!((nulls.get("list"), nulls.get("sparse")), (Some(&json!(0)), None));
    assert_eq!(nulls["map"], 0);
}

#[tokio::test]
async fn the_table_says_which_columns_have_statistics() {
    let columns = |n: i32| {
        (0..n)
            .map(|i| (format!("c{i}"), Arc::new(Int32Array::from(vec![i])) as ArrayRef))
            .collect::<Vec<_>>()
    };
    let bytes = file(&[RecordBatch::try_from_iter_with_nullable(
        columns(40).into_iter().map(|(n, a)| (n, a, true)),
    )
    .unwrap()]);
    let schema = (0..40).map(|i| format!("c{i} int")).collect::<Vec<_>>().join(", ");
    for (properties, want) in [
        (vec![], 32),
        (vec![("delta.dataSkippingNumIndexedCols", "3")], 3),
        (vec![("delta.dataSkippingNumIndexedCols", "-1")], 40),
        (vec![("delta.dataSkippingNumIndexedCols", "0")], 0),
        (vec![("delta.dataSkippingStatsColumns", "c39, `C1`,nope")], 2),
    ] {
        let add =
            describe(&table(&schema, &[], &properties), "root/f", bytes.clone()).await.unwrap();
        let stats = stats(&add);
        for section in ["minValues", "maxValues", "nullCount"] {
            assert_eq!(stats[section].as_object().unwrap().len(), want, "{properties:?}");
        }
    }
    let bad = [("delta.dataSkippingNumIndexedCols", "many")];
    let err = describe(&table(&schema, &[], &bad), "root/f", bytes).await.unwrap_err();
    assert!(err.to_string().contains("'many'"), "{err}");
}

#[tokio::test]
async fn columns_that_do_not_fit_are_named() {
    let nullable = "id int not null, s string, a struct<b:int>, l array<int>, d decimal(9,2)";
    let id = "required int32 id;";
    for (schema, want) in [
        (
            "optional binary s (STRING);",
            "column 'id': it is not null in the table, and the file lacks",
        ),
        ("required int64 id;", "column 'id': the table has integer, the file long"),
        ("required int32 id (INTEGER(32,false));", "unsigned integer of 32 bits"),
        (
            "required int32 id; optional binary s;",
            "column 's': the table has string, the file binary",
        ),
        (
            "required int32 id; optional int32 extra;",
            "column 'extra': the table has no such column",
        ),
        ("required int32 id; optional binary S (STRING);", "column 'S': the table has 's'"),
        (
            "required int32 id; optional group a { optional int64 b; }",
            "column 'a.b': the table has integer, the file long",
        ),
        (
            "required int32 id; optional group a { optional int32 z; }",
            "column 'a.z': the table has no such",
        ),
        (
            "required int32 id; optional int32 a;",
            "column 'a': the table has struct<b:integer>, the file integer",
        ),
        ("required int32 id; repeated int32 l;", "a repeated field outside of a list"),
        ("required int32 id; optional group l (LIST) { repeated int32 array; }", "layout"),
        (
            "required int32 id; optional group l (LIST) { repeated group list { optional int64 element; } }",
            "column 'l.element'",
        ),
        (
            "required int32 id; optional int32 d (DECIMAL(9,3));",
            "the table has decimal(9,2), the file decimal(9,3)",
        ),
        (
            "required int32 id; optional binary p (STRING);",
            "column 'p': the table is partitioned by it",
        ),
        ("required int32 id; optional int32 P;", "column 'P': the table is partitioned by it"),
    ] {
        let table = table(&format!("{nullable}, p string"), &["p"], &[]);
        let err = describe(&table, "root/p=1/f", empty(schema)).await.unwrap_err().to_string();
        assert!(err.contains(want) && err.contains("'p=1/f'"), "{schema}: {err}");
    }
    let fits = table(nullable, &[], &[]);
    describe(&fits, "root/f", empty(&format!("{id} optional group a {{ }}")))
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    let add = describe(&fits, "root/f", empty(id)).await.unwrap();
    assert_eq!(stats(&add)["numRecords"], 0);

    // Optional in the file, not null in the table: the statistics decide.
    let ids =
        |values: Vec<Option<i32>>| file(&[batch(vec![("id", Arc::new(Int32Array::from(values)))])]);
    describe(&fits, "root/f", ids(vec![Some(1), Some(2)])).await.unwrap();
    let err = describe(&fits, "root/f", ids(vec![Some(1), None])).await.unwrap_err().to_string();
    assert!(err.contains("do not say that it has no nulls"), "{err}");

    for (schema, want) in [
        ("optional int64 t (TIMESTAMP(NANOS,true));", "nanoseconds"),
        ("optional int64 t (TIME(MICROS,true));", "a time of day"),
        ("optional fixed_len_byte_array(16) u (UUID);", "a UUID"),
        (
            "optional group g { optional int64 x (INTEGER(64,false)); }",
            "column 'g.x': an unsigned integer of 64 bits",
        ),
    ] {
        let store = store();
        let file = put(&store, "f", empty(schema)).await;
        let err = infer_schema(&store, &file).await.unwrap_err().to_string();
        assert!(err.contains(want), "{err}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named() {
    let plain = table("a int", &[], &[]);
    for (bytes, want) in [
        (b"".to_vec(), "not a readable Parquet file"),
        (b"PAR1 nonsense PAR1".to_vec(), "not a readable Parquet file"),
        (vec![0xFF; 200_000], "not a readable Parquet file"),
    ] {
        let err = describe(&plain, "root/f", bytes).await.unwrap_err().to_string();
        assert!(err.contains(want) && err.contains("'f'"), "{err}");
    }
    let store = store();
    let missing = path("root/missing");
    let err = describe_files(&plain, &store, &path("root"), std::slice::from_ref(&missing))
        .await
        .unwrap_err();
    assert!(err.to_string().contains("'missing' does not exist"), "{err}");
    let twice = [missing.clone(), missing];
    let err = describe_files(&plain, &store, &path("root"), &twice).await.unwrap_err();
    assert!(err.to_string().contains("named twice"), "{err}");
    let constrained = table("a int", &[], &[("delta.constraints.c", "a > 0")]);
    let err = describe_files(&constrained, &store, &path("root"), &[]).await.unwrap_err();
    assert!(err.to_string().contains("CHECK constraint c"), "{err}");
}

/// What a folder says is written as the protocol has it, whatever wrote the folder.
#[tokio::test]
async fn partition_values_are_written_in_one_spelling() {
    for (ty, folder, want) in [
        ("decimal(10,2)", "1.5", Some("1.50")),
        ("decimal(10,2)", "2", Some("2.00")),
        ("decimal(10,2)", "1.555", None),
        ("int", "1.0", Some("1")),
        ("int", "1.5", None),
        ("double", "-0.0", Some("0.0")),
        ("double", "inf", Some("Infinity")),
        ("boolean", "TRUE", Some("true")),
        ("date", "2020-1-1", Some("2020-01-01")),
        ("timestamp", "2020-01-01 12%3A00%3A00", Some("2020-01-01T12:00:00.000000Z")),
        ("timestamp", "2020-01-01T12%3A00%3A00+02%3A00", Some("2020-01-01T10:00:00.000000Z")),
        ("timestamp", "2020-01-01 12%3A00%3A00.1234567", None),
        ("timestamp_ntz", "2020-01-01T12%3A00%3A00", Some("2020-01-01 12:00:00.000000")),
        ("binary", "a", None),
    ] {
        let table = table(&format!("a int, p {ty}"), &["p"], &[]);
        let name = format!("root/p={folder}/f.parquet");
        let found = describe(&table, &name, empty("optional int32 a;")).await;
        match (found, want) {
            (Ok(add), Some(want)) => {
                let value = add.partition_values.get("p").and_then(|value| value.as_deref());
                assert_eq!(value, Some(want), "{ty} {folder}");
            }
            (Err(error), None) => {
                let error = error.to_string();
                assert!(error.contains("'p'") && error.contains(&name[5..8]), "{error}");
            }
            (found, want) => panic!("{ty} {folder}: {found:?}, not {want:?}"),
        }
    }
}

#[tokio::test]
async fn partition_values_come_from_the_path() {
    let bytes = || empty("optional int32 a;");
    let table = table("a int, p string, q date not null, r int", &["p", "q", "r"], &[]);
    let add =
        describe(&table, "root/p=a%3Ab c/q=2024-01-31/r=007/x/f.parquet", bytes()).await.unwrap();
    // Escaped once by the folder's writer, and once more as a URI.
    assert_eq!(add.path, "p=a%253Ab%20c/q=2024-01-31/r=007/x/f.parquet");
    let value = |text: &str| Some(text.to_owned());
    let want: NullableMap = [("p", value("a:b c")), ("q", value("2024-01-31")), ("r", value("7"))]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v))
        .collect();
    assert_eq!(add.partition_values, want);
    let add = describe(&table, "root/r=__HIVE_DEFAULT_PARTITION__/p=/q=2024-01-31/f", bytes())
        .await
        .unwrap();
    assert_eq!(
        (add.partition_values.get("p"), add.partition_values.get("r")),
        (Some(&None), Some(&None))
    );
    for (name, want) in [
        ("root/p=1/r=1/f", "no folder 'q=…'"),
        ("root/f", "p=…/q=…/r=…/"),
        ("root/p=1/q=2024-02-30/r=1/f", "'2024-02-30' for partition column 'q', which is no date"),
        ("root/p=1/q=2024-02-01/r=99999999999/f", "which is no integer"),
        ("root/p=1/q=__HIVE_DEFAULT_PARTITION__/r=1/f", "null for 'q'"),
        ("root/p=1/q=2024-02-01/r=1/z=1/f", "folder of 'z'"),
        ("root/p=1/p=2/q=2024-02-01/r=1/f", "two folders"),
        ("root/p=%FF/q=2024-02-01/r=1/f", "UTF-8"),
        ("root/_delta_log/p=1/q=2024-02-01/r=1/f", "'_delta_log'"),
        ("other/p=1/q=2024-02-01/r=1/f", "not below the table's root 'root'"),
        ("rootless/f", "not below"),
    ] {
        let err = describe(&table, name, bytes()).await.unwrap_err().to_string();
        assert!(err.contains(want), "{name}: {err}");
    }
}

#[test]
fn locations_lead_into_the_table_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("my table");
    std::fs::create_dir_all(root.join("p=a b")).unwrap();
    std::fs::write(root.join("p=a b/f%20.parquet"), b"").unwrap();
    std::fs::write(dir.path().join("other"), b"").unwrap();
    std::os::unix::fs::symlink(&root, dir.path().join("link")).unwrap();
    let table = open_store(root.to_str().unwrap(), &BTreeMap::new()).unwrap();
    let want = format!("{}/p=a b/f%20.parquet", table.root);
    for given in [
        format!("{}/p=a b/f%20.parquet", root.display()),
        format!("{}/link/p=a b/f%20.parquet", dir.path().display()),
        format!("{}/p=a%20b/f%2520.parquet", table.url),
        format!("FILE:{}/x/../p=a%20b//f%2520.parquet", table.url.path()),
        format!("file://localhost{}/p=a%20b/f%2520.parquet", table.url.path()),
        "p=a b/f%20.parquet".to_owned(),
        "./p=a b//f%20.parquet".to_owned(),
    ] {
        assert_eq!(locate(&table, &given).unwrap().as_ref(), want, "{given}");
    }
    for (given, want) in [
        (format!("{}/other", dir.path().display()), "not below"),
        (format!("{}/../other", root.display()), "not below"),
        ("p=a b/missing".to_owned(), "does not exist"),
        ("s3://bucket/x".to_owned(), ""),
        ("memory://x/y".to_owned(), "not below"),
        (table.url.to_string(), "not below"),
        (format!("{}x/f", table.url), "not below"),
    ] {
        let err = locate(&table, &given).unwrap_err().to_string();
        assert!(err.contains(want), "{given}: {err}");
    }
    let remote = open_store("memory://locate/base", &BTreeMap::new()).unwrap();
    assert_eq!(locate(&remote, "a b/f").unwrap().as_ref(), "base/a b/f");
    assert_eq!(locate(&remote, "memory://locate/base/a%20b/f").unwrap().as_ref(), "base/a b/f");
    for bad in ["../x", "/base/f", "", "a/../../x", "memory://other/base/f"] {
        assert!(locate(&remote, bad).is_err(), "{bad}");
    }
}

/// What is described must never rule out a row that is there: random strings and times.
#[test]
fn described_bounds_hold_for_every_row() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let letters = prop::sample::select(vec!["a", "\u{7F}", "~", "é", "\u{FFFF}", "\u{10FFFF}"]);
    let word = prop::collection::vec(letters, 0..80).prop_map(|parts| parts.concat());
    let row = (
        prop::option::of(word),
        prop::option::of(-3_000_000_000_000_000..3_000_000_000_000_000_i64),
        prop::option::of(any::<f64>()),
        prop::option::of(-200_000..3_000_000_i32),
    );
    let files = prop::collection::vec(prop::collection::vec(row, 1..4), 1..3);
    let table = table("s string, t timestamp, g double, d date", &[], &[]);
    proptest!(ProptestConfig::with_cases(300), |(groups in files)| {
        let batches: Vec<RecordBatch> = groups
            .iter()
            .map(|rows| {
                let times: Vec<_> = rows.iter().map(|r| r.1).collect();
                batch(vec![
                    ("s", Arc::new(rows.iter().map(|r| r.0.clone()).collect::<StringArray>())),
                    ("t", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
                    ("g", Arc::new(rows.iter().map(|r| r.2).collect::<Float64Array>())),
                    ("d", Arc::new(rows.iter().map(|r| r.3).collect::<Date32Array>())),
                ])
            })
            .collect();
        let add = runtime.block_on(describe(&table, "root/f", file(&batches))).unwrap();
        // Readers that take bounds by their word must not be misled, either.
        let stats = stats(&add);
        let (min, max) = (&stats["minValues"], &stats["maxValues"]);
        for (s, t, ..) in groups.iter().flatten() {
            if let Some(s) = s {
                let (min, max) = (min["s"].as_str().unwrap(), max["s"].as_str().unwrap());
                prop_assert!(min <= s.as_str() && s.as_str() <= max, "{:?} {:?} {:?}", min, s, max);
                prop_assert!(max.chars().count() < 32 + 80, "{:?}", max);
            }
            if let (Some(t), Some(min), Some(max)) = (t, min["t"].as_str(), max["t"].as_str()) {
                let micros = |text: &str| {
                    chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
                };
                prop_assert!(micros(min) <= *t && *t <= micros(max), "{} {} {}", min, t, max);
            }
        }
        for (s, t, g, d) in groups.iter().flatten() {
            let mut checks = vec![];
            let null = |name| Predicate::IsNull(ColumnPath::top(name));
            checks.push(match s {
                Some(s) => ("s", Literal::Text(s.clone())),
                None => ("s", Literal::Null),
            });
            if let Some(t) = t.and_then(chrono::DateTime::from_timestamp_micros) {
                checks.push(("t", Literal::Timestamp(t.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())));
            }
            if let Some(g) = g.filter(|g| g.is_finite()) {
                checks.push(("g", Literal::Number(format!("{g:e}"))));
            }
            let day = d.and_then(|d| chrono::DateTime::from_timestamp(i64::from(d) * 86_400, 0));
            if let Some(day) = day {
                checks.push(("d", Literal::Date(day.format("%Y-%m-%d").to_string())));
            }
            for (name, literal) in checks {
                let predicates = if literal == Literal::Null {
                    vec![null(name)]
                } else {
                    [CompareOp::Eq, CompareOp::LtEq, CompareOp::GtEq]
                        .map(|op| Predicate::compare(ColumnPath::top(name), op, literal.clone()))
                        .to_vec()
                };
                for predicate in predicates {
                    // Numbers that are too small or large to be written exactly.
                    let Ok(pruner) = Pruner::new(&table.metadata, &predicate) else { continue };
                    prop_assert!(pruner.may_match(&add), "{:?} {:?}", predicate, add.stats);
                }
            }
        }
    });
}

/// Tables below a folder that engines wrote, with the metadata that each file was added under.
fn foreign_files(root: &std::path::Path) -> Vec<(PathBuf, Protocol, Metadata, Add)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let log = folder.join("_delta_log");
        if !log.is_dir() {
            let inner = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(inner.map(|e| e.path()).filter(|p| p.is_dir()));
            continue;
        }
        let mut commits: Vec<PathBuf> = std::fs::read_dir(&log)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "json"))
            .collect();
        commits.sort();
        let (mut protocol, mut metadata) = (None, None);
        for commit in commits {
            let text = std::fs::read_to_string(&commit).unwrap_or_default();
            for line in text.lines() {
                match Action::parse(line) {
                    Ok(Action::Protocol(p)) => protocol = Some(p),
                    Ok(Action::Metadata(m)) => metadata = Some(m),
                    Ok(Action::Add(add)) => {
                        if let (Some(p), Some(m)) = (&protocol, &metadata) {
                            found.push((folder.clone(), p.clone(), m.clone(), add));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    found
}

/// Every number and text in `theirs` that `ours` has, too, is the same. Times are left out: writers
/// round them and show them in their own zones.
fn same_values(ours: &Value, theirs: &Value, what: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in ours {
                if let Some(other) = theirs.get(key) {
                    same_values(value, other, &format!("{what}.{key}"));
                }
            }
        }
        (Value::Number(a), Value::Number(b)) => assert_eq!(a.as_f64(), b.as_f64(), "{what}"),
        (Value::String(a), Value::String(b)) if !a.contains(':') => assert_eq!(a, b, "{what}"),
        _ => {}
    }
}

#[tokio::test]
async fn files_of_other_engines_are_described_as_they_did() {
    let Some(root) = std::env::var_os("DL_DELTA_TABLES").map(PathBuf::from) else {
        let why = "DL_DELTA_TABLES does not name a folder of Delta tables";
        deltalakedb_test_servers::skip(&["corpus"], why);
        return;
    };
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new());
    let (mut same, mut refused) = (0, BTreeMap::<String, usize>::new());
    for (folder, protocol, metadata, theirs) in foreign_files(&root) {
        let decoded = percent_encoding::percent_decode_str(&theirs.path).decode_utf8().unwrap();
        // Logs edited by hand: one has nulls of a column that no file has, the other wider bounds.
        let edited = folder.ends_with("parsed-stats") || folder.ends_with("delta-0.8.0");
        if edited || !folder.join(decoded.as_ref()).is_file() {
            continue;
        }
        let location: Store = open_store(folder.to_str().unwrap(), &BTreeMap::new()).unwrap();
        let file = path(&format!("{}/{decoded}", location.root));
        let table = snapshot(protocol, metadata);
        let ours = match describe_files(&table, &store, &location.root, &[file]).await {
            Ok(mut adds) => adds.remove(0),
            Err(e) => {
                let text = e.to_string();
                let short =
                    text.rsplit("': ").next().unwrap_or_default().chars().take(90).collect();
                *refused.entry(short).or_default() += 1;
                continue;
            }
        };
        let what = format!("{} {}", folder.display(), theirs.path);
        let decode =
            |p: &str| percent_encoding::percent_decode_str(p).decode_utf8().unwrap().into_owned();
        assert_eq!(decode(&ours.path), decode(&theirs.path), "{what}");
        assert_eq!(ours.size, theirs.size, "{what}");
        for (key, value) in &theirs.partition_values {
            let value = value.clone().filter(|v| !v.is_empty());
            assert_eq!(ours.partition_values[key], value, "{what} {key}");
        }
        let full = theirs.deletion_vector.is_none();
        if let Some(text) = theirs.stats.as_deref().filter(|_| full) {
            let theirs: Value = serde_json::from_str(text).unwrap();
            let ours = stats(&ours);
            same_values(&ours, &theirs, &what);
            same += 1;
        }
    }
    eprintln!("{same} files with equal statistics; refused: {refused:#?}");
    assert!(same > 50, "only {same} files compared");
}
