//! Partition values and statistics as other engines write them, through every command that looks at them.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, StringArray};
use serde_json::{Value, json};

use crate::world::World;

/// Version 0 of a foreign table with the columns `id` and `p`, partitioned by `p`, and its files.
fn foreign(world: &World, table: &str, ty: &str, nullable: bool, values: &[Option<&str>]) {
    let ntz = ty == "timestamp_ntz";
    let protocol = if ntz {
        json!({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["timestampNtz"],
            "writerFeatures": ["timestampNtz"]})
    } else {
        json!({"minReaderVersion": 1, "minWriterVersion": 2})
    };
    let field = |name: &str, ty: &str, nullable: bool| json!({"name": name, "type": ty, "nullable": nullable, "metadata": {}});
    let schema =
        json!({"type": "struct", "fields": [field("id", "long", true), field("p", ty, nullable)]});
    let mut lines = vec![
        json!({"protocol": protocol}),
        json!({"metaData": {"id": "a", "format": {"provider": "parquet", "options": {}},
            "schemaString": schema.to_string(), "partitionColumns": ["p"], "configuration": {}}}),
    ];
    for (id, value) in (0_i64..).zip(values) {
        lines.push(add(world, table, id, &json!({ "p": value }), None));
    }
    let text = lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n");
    world.file(&format!("{table}/_delta_log/{:020}.json", 0), &text);
}

/// The action of a file with one row, which is written.
fn add(world: &World, table: &str, id: i64, values: &Value, stats: Option<&str>) -> Value {
    let name = format!("{id}.parquet");
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![id]));
    let path = world.parquet_of(&format!("{table}/{name}"), vec![("id", ids)]);
    let size = fs::metadata(path).unwrap().len();
    let mut add = json!({"path": name, "partitionValues": values, "size": size,
        "modificationTime": 1, "dataChange": true});
    if let Some(stats) = stats {
        add["stats"] = json!(stats);
    }
    json!({ "add": add })
}

/// First column of a query, as text.
fn rows(world: &World, query: &str) -> Vec<String> {
    let run = world.dl(&["sql", query, "--to", "csv"]).ok();
    run.stdout.lines().skip(1).map(str::to_owned).collect()
}

/// Ids of the files that a condition leaves.
fn files(world: &World, table: &str, condition: &str) -> Vec<String> {
    let found = world.json(&["files", table, "--where", condition]);
    let paths = found.as_array().or_else(|| found["files"].as_array()).unwrap();
    let mut ids: Vec<String> = paths
        .iter()
        .map(|file| file["path"].as_str().unwrap().trim_end_matches(".parquet").to_owned())
        .collect();
    ids.sort_unstable();
    ids
}

fn ids(found: &[&str]) -> Vec<String> {
    found.iter().map(|id| (*id).to_owned()).collect()
}

/// Type, what is found in logs and folders, and the value that it stands for: as SQL writes it, and as it is
/// shown.
const VALUES: &[(&str, &[&str], &str, &str)] = &[
    ("decimal(10,2)", &["1.5", "1.50", "+1.5", "150e-2", " 1.5"], "1.5", "1.50"),
    ("integer", &["7", "+7", "007", "7.0", " 7"], "7", "7"),
    ("double", &["0.0", "-0.0", "0", "-0"], "0", "0.0"),
    ("double", &["1000", "1e3", "1.0E3"], "1000", "1000.0"),
    ("boolean", &["true", "TRUE", "t"], "true", "true"),
    ("date", &["2020-01-02", "2020-1-2", "2020-01-02 00:00:00"], "DATE '2020-01-02'", "2020-01-02"),
    (
        "timestamp",
        &[
            "2020-01-02 10:00:00",
            "2020-01-02T10:00:00Z",
            "2020-01-02T10:00:00.000000Z",
            "2020-01-02T12:00:00+02:00",
            "2020-1-2 10:0:0",
        ],
        "TIMESTAMP '2020-01-02 10:00:00'",
        "2020-01-02T10:00:00Z",
    ),
    (
        "timestamp_ntz",
        &["2020-01-02 10:00:00", "2020-01-02T10:00:00", "2020-01-02 10:00:00.000000"],
        "TIMESTAMP '2020-01-02 10:00:00'",
        "2020-01-02T10:00:00",
    ),
    ("string", &["a:b c", "a:b c"], "'a:b c'", "a:b c"),
];

#[test]
fn every_spelling_of_a_value_is_that_value_in_every_command() {
    for (ty, texts, literal, shown) in VALUES {
        let world = World::new();
        let values: Vec<Option<&str>> = texts.iter().map(|text| Some(*text)).collect();
        foreign(&world, "t", ty, true, &values);
        world.dl(&["import", world.path("t").to_str().unwrap(), "s.t"]).ok();
        let all: Vec<String> = (0..texts.len()).map(|id| id.to_string()).collect();
        let equal = format!("p = {literal}");
        let other = format!("p <> {literal}");
        assert_eq!(files(&world, "s.t", &equal), all, "{ty}");
        assert_eq!(files(&world, "s.t", &other), ids(&[]), "{ty}");
        assert_eq!(
            rows(&world, &format!("SELECT id FROM s.t WHERE {equal} ORDER BY id")),
            all,
            "{ty}"
        );
        assert_eq!(rows(&world, &format!("SELECT id FROM s.t WHERE {other}")), ids(&[]), "{ty}");
        assert_eq!(rows(&world, "SELECT DISTINCT p FROM s.t"), [*shown], "{ty}");
        // What another program says of the same value lies in a folder.
        {
            let plain: Vec<&str> =
                texts.iter().copied().filter(|text| !text.contains(':')).collect();
            for (id, text) in (100_i64..).zip(&plain) {
                let ids: ArrayRef = Arc::new(Int64Array::from(vec![id]));
                world.parquet_of(&format!("t/p={text}/{id}.parquet"), vec![("id", ids)]);
                world.dl(&["append", "s.t", &format!("t/p={text}/{id}.parquet")]).ok();
            }
            assert_eq!(rows(&world, "SELECT DISTINCT p FROM s.t"), [*shown], "{ty}");
            let n = rows(&world, &format!("SELECT count(*) FROM s.t WHERE {equal}"));
            assert_eq!(n, [(texts.len() + plain.len()).to_string()], "{ty}");
        }
        // A change reads the log of the table: the rows are found there, too.
        world.dl(&["write", "s.t", "--query", "SELECT 9 AS id, p FROM s.t WHERE id = 0"]).ok();
        world.dl(&["update", "s.t", "--set", "id = 10", "--where", "id = 9"]).ok();
        assert_eq!(rows(&world, "SELECT count(*) FROM s.t WHERE id = 10"), ["1"], "{ty}");
        // The engine below cannot write down every constant of a time.
        if ty.starts_with("timestamp") {
            continue;
        }
        world.dl(&["delete", "s.t", "--where", &other]).ok();
        assert_ne!(rows(&world, "SELECT count(*) FROM s.t"), ["0"], "{ty}");
        world.dl(&["delete", "s.t", "--where", &equal]).ok();
        assert_eq!(rows(&world, "SELECT count(*) FROM s.t"), ["0"], "{ty}");
    }
}

#[test]
fn a_text_that_is_no_value_is_named_and_others_are_read() {
    let world = World::new();
    foreign(&world, "t", "integer", true, &[Some("1"), Some("many")]);
    world.dl(&["import", world.path("t").to_str().unwrap(), "s.t"]).ok();
    world.dl(&["sql", "SELECT * FROM s.t"]).fails(&[
        "s.t",
        "1.parquet",
        "'p'",
        "'many'",
        "integer",
    ]);
    // It may be anything: it is among the files that may match.
    assert_eq!(files(&world, "s.t", "p = 1"), ids(&["0", "1"]));
    let remove =
        json!({"remove": {"path": "1.parquet", "deletionTimestamp": 1, "dataChange": true}});
    world.dl_with_input(&["commit", "s.t"], &remove.to_string()).ok();
    assert_eq!(rows(&world, "SELECT p FROM s.t"), ["1"]);
    // Nor is one committed here.
    let bad = add(&world, "t", 5, &json!({"p": "many"}), None);
    let run = world.dl_with_input(&["commit", "s.t"], &bad.to_string());
    run.fails(&["5.parquet", "'p'", "'many'", "integer"]);
}

#[test]
fn nan_and_infinities_are_found_as_they_are_ordered() {
    let world = World::new();
    let values = ["NaN", "Infinity", "-Infinity", "1.0", "nan", "inf"].map(Some);
    foreign(&world, "t", "double", true, &values);
    world.dl(&["import", world.path("t").to_str().unwrap(), "s.t"]).ok();
    for (condition, want) in [
        ("p > 5", &["0", "1", "4", "5"][..]),
        ("p < 5", &["2", "3"]),
        ("p <> 1", &["0", "1", "2", "4", "5"]),
        ("p IS NULL", &[]),
    ] {
        let query = format!("SELECT id FROM s.t WHERE {condition} ORDER BY id");
        assert_eq!(rows(&world, &query), ids(want), "{condition}");
        assert_eq!(files(&world, "s.t", condition), ids(want), "{condition}");
    }
}

#[test]
fn an_empty_string_is_null_for_every_command() {
    let world = World::new();
    foreign(&world, "t", "string", true, &[Some(""), None, Some("x")]);
    let location = world.path("t").to_str().unwrap().to_owned();
    world.dl(&["import", &location, "s.t"]).ok();
    let at = |condition: &str| {
        let found = rows(&world, &format!("SELECT id FROM s.t WHERE {condition} ORDER BY id"));
        assert_eq!(files(&world, "s.t", condition), found, "{condition}");
        found
    };
    assert_eq!(at("p = ''"), ids(&[]));
    assert_eq!(at("p IS NULL"), ids(&["0", "1"]));
    assert_eq!(at("p IS NOT NULL"), ids(&["2"]));
    assert_eq!(at("p <> 'y'"), ids(&["2"]));
    world.dl(&["delete", "s.t", "--where", "p = ''"]).ok();
    world.dl(&["update", "s.t", "--set", "id = 7", "--where", "p = '' OR p = 'y'"]).ok();
    assert_eq!(rows(&world, "SELECT count(*) FROM s.t"), ["3"]);
    world.dl(&["diff", "--table", "s.t"]).ok();
    // Written, it becomes null: in the log that others read, too.
    let texts = |values: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let three: ArrayRef = Arc::new(Int64Array::from(vec![3]));
    let rows_of = world.parquet_of("in.parquet", vec![("id", three), ("p", texts(vec![""]))]);
    world.dl(&["write", "s.t", &rows_of]).ok();
    world.dl(&["update", "s.t", "--set", "p = ''", "--where", "p = 'x'"]).ok();
    assert_eq!(
        rows(&world, "SELECT id FROM s.t WHERE p IS NULL ORDER BY id"),
        ["0", "1", "2", "3"]
    );
    for version in world.log_versions("t").into_iter().filter(|version| *version > 0) {
        let text = world.read(&format!("t/_delta_log/{version:020}.json"));
        assert!(!text.contains(r#""partitionValues":{"p":""}"#), "{text}");
    }
    world.dl(&["diff", "--table", "s.t"]).ok();
    let merge =
        ["merge", "s.t", &rows_of, "--on", "target.id = source.id", "--when-matched", "DELETE"];
    world.dl(&merge).ok();
    let replace = ["write", "s.t", &rows_of, "--mode", "overwrite", "--replace-where", "p IS NULL"];
    world.dl(&replace).ok();
    assert_eq!(rows(&world, "SELECT id FROM s.t"), ["3"]);
    // A column that is not null cannot have it.
    let columns = ["--columns", "id long, p string not null", "--partition-by", "p"];
    let mut create = vec!["create", "s.n", "--location", "n"];
    create.extend(columns);
    world.dl(&create).ok();
    world.dl(&["write", "s.n", &rows_of]).code(1);
    let empty = add(&world, "n", 1, &json!({"p": ""}), None);
    world.dl_with_input(&["commit", "s.n"], &empty.to_string()).fails(&[
        "1.parquet",
        "'p'",
        "null",
    ]);
}

#[test]
fn bytes_partition_no_table_that_is_made_here_and_are_read_where_others_wrote_them() {
    let world = World::new();
    let columns = "id long, b binary";
    world
        .dl(&["create", "s.c", "--location", "c", "--columns", columns, "--partition-by", "b"])
        .fails(&["'b'", "binary"]);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"\x01\xff"[..]]));
    let rows_of = world.parquet_of("in.parquet", vec![("id", ids), ("b", bytes)]);
    world
        .dl(&["write", "s.w", &rows_of, "--location", "w", "--partition-by", "b"])
        .fails(&["'b'", "binary"]);
    assert!(!world.path("w").exists(), "nothing is left");
    world.dl(&["write", "s.w", &rows_of, "--location", "w"]).ok();
    assert_eq!(rows(&world, "SELECT b FROM s.w"), ["01ff"]);
    foreign(&world, "t", "binary", true, &[Some("\u{1}a"), Some("é"), Some("")]);
    world.dl(&["import", world.path("t").to_str().unwrap(), "s.t"]).ok();
    assert_eq!(rows(&world, "SELECT p FROM s.t WHERE p IS NOT NULL ORDER BY id"), ["0161", "c3a9"]);
    let new = add(&world, "t", 5, &json!({"p": "x"}), None);
    world.dl_with_input(&["commit", "s.t"], &new.to_string()).fails(&[
        "5.parquet",
        "'p'",
        "binary",
    ]);
    world.dl(&["update", "s.t", "--set", "id = 9", "--where", "id = 1"]).fails(&["'p'", "binary"]);
}

/// Statistics that no reader can use, or that cannot be true.
const UNUSABLE: &[&str] = &[
    "",
    "null",
    "no JSON at all",
    "[1]",
    r#"{"numRecords":1,"minValues":{"g":-Infinity},"maxValues":{"g":NaN}}"#,
    r#"{"numRecords":"1"}"#,
    r#"{"numRecords":-1,"nullCount":{"id":5}}"#,
    r#"{"numRecords":1.5}"#,
    r#"{"numRecords":1,"minValues":{"id":"x"},"maxValues":{"id":true}}"#,
    r#"{"numRecords":1,"minValues":{"id":900},"maxValues":{"id":-900}}"#,
    r#"{"numRecords":1,"nullCount":{"id":7,"g":"x"}}"#,
    r#"{"numRecords":1,"minValues":{"id":1e300},"maxValues":{"id":99999999999999999999999}}"#,
    r#"{"numRecords":1,"minValues":5,"maxValues":[],"nullCount":"x"}"#,
    r#"{"numRecords":1,"zz":"\ud800","maxValues":{"s":"\ud800"}}"#,
    r#"{"numRecords":1"#,
    "{}{}",
];

#[test]
fn statistics_that_cannot_be_used_are_as_if_they_were_not_there() {
    let world = World::new();
    let field =
        |name: &str, ty: &str| json!({"name": name, "type": ty, "nullable": true, "metadata": {}});
    let schema = json!({"type": "struct", "fields":
        [field("id", "long"), field("g", "double"), field("s", "string")]});
    let mut lines = vec![
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {"id": "a", "format": {"provider": "parquet", "options": {}},
            "schemaString": schema.to_string(), "partitionColumns": [], "configuration":
            {"delta.checkpointInterval": "1", "delta.checkpoint.writeStatsAsStruct": "true"}}}),
    ];
    for (id, stats) in (0_i64..).zip(UNUSABLE) {
        lines.push(add(&world, "t", id, &json!({}), Some(stats)));
    }
    let text = lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n");
    world.file(&format!("t/_delta_log/{:020}.json", 0), &text);
    world.dl(&["import", world.path("t").to_str().unwrap(), "s.t", "--skip-validation"]).ok();
    let n = UNUSABLE.len();
    let check = |n: usize| {
        assert_eq!(rows(&world, "SELECT count(*) FROM s.t"), [n.to_string()]);
        assert_eq!(
            rows(&world, "SELECT count(id) FROM s.t WHERE id >= 0 AND id < 100"),
            [n.to_string()]
        );
        assert_eq!(rows(&world, "SELECT max(id) FROM s.t"), [(n - 1).to_string()]);
        for id in 0..n {
            let found = files(&world, "s.t", &format!("id = {id}"));
            assert!(found.contains(&id.to_string()), "{id}: {found:?}");
            assert_eq!(
                rows(&world, &format!("SELECT id FROM s.t WHERE id = {id}")),
                [id.to_string()]
            );
        }
    };
    check(n);
    // A commit of ours publishes a checkpoint, which the kernel must be able to read.
    let last = i64::try_from(n).unwrap();
    let good =
        add(&world, "t", last, &json!({}), Some(r#"{"numRecords":1,"minValues":{"id":16}}"#));
    world.dl_with_input(&["commit", "s.t"], &good.to_string()).ok();
    let checkpoint = format!("t/_delta_log/{:020}.checkpoint.parquet", 1);
    assert!(world.path(&checkpoint).exists());
    fs::remove_file(world.path(&format!("t/_delta_log/{:020}.json", 0))).unwrap();
    world.dl(&["import", world.path("t").to_str().unwrap(), "s.again", "--no-mirror"]).ok();
    assert_eq!(rows(&world, "SELECT count(*) FROM s.again WHERE id < 100"), [(n + 1).to_string()]);
}
