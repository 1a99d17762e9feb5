//! `check --data`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, StringArray};
use serde_json::{Value, json};

use crate::world::{World, foreign_log};

/// Version 0 of a table with the columns `id` and `name`, with deletion vectors.
const WITH_VECTORS: &str = concat!(
    r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}"#,
    "\n",
    r#"{"metaData":{"id":"m","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}},{\"name\":\"name\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{}}}"#,
    "\n",
);

fn size_of(world: &World, file: &str) -> u64 {
    fs::metadata(world.path(file)).unwrap().len()
}

/// An `add` of a file of `rows` rows.
fn add(path: &str, size: u64, rows: u32, vector: &str) -> String {
    let path = serde_json::to_string(path).unwrap();
    format!(
        r#"{{"add":{{"path":{path},"partitionValues":{{}},"size":{size},"modificationTime":1,"dataChange":true,"stats":"{{\"numRecords\":{rows}}}"{vector}}}}}"#
    ) + "\n"
}

fn kinds(report: &Value) -> Vec<&str> {
    let findings = report["findings"]["first"].as_array().unwrap();
    let mut kinds: Vec<&str> = findings.iter().map(|f| f["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    kinds
}

#[test]
fn files_that_are_gone_or_changed_are_found() {
    let world = World::new();
    let columns = "id long not null, name string";
    world.dl(&["create", "s.t", "--location", "t", "--columns", columns]).ok();
    for n in 0..4 {
        let file = world.parquet(&format!("t/{n}.parquet"), &[n, n + 10]);
        world.dl(&["append", "s.t", &file]).ok();
    }
    world.dl(&["check", "--data", "s.t"]).ok().says("4 files at version 4").says("all is right");
    let right = world.json(&["check", "--data", "s.t", "--footers"]);
    assert_eq!((&right["files"], &right["footers"]), (&json!(4), &json!(4)));
    assert_eq!(
        (&right["findings"]["count"], &right["not_comparable"]["count"]),
        (&json!(0), &json!(0))
    );

    fs::remove_file(world.path("t/0.parquet")).unwrap();
    // Of the same size, so that only its footer tells.
    let size = usize::try_from(size_of(&world, "t/1.parquet")).unwrap();
    fs::write(world.path("t/1.parquet"), vec![b'x'; size]).unwrap();
    fs::write(world.path("t/2.parquet"), "short").unwrap();
    world
        .dl(&["check", "s.t"])
        .code(2)
        .says("2 findings")
        .says("missing: 0.parquet: there is no '")
        .says("size: 2.parquet: the log says");
    let report = world.json_of(&["check", "s.t", "--footers"]);
    assert_eq!(kinds(&report), ["missing", "size", "unreadable", "unreadable"]);
    assert_eq!(report["kinds"]["unreadable"], 2);
    // What is listed is bounded, what is counted is not.
    let report = world.json_of(&["check", "s.t", "--footers", "--show-files", "1"]);
    assert_eq!(report["findings"]["count"], 4);
    assert_eq!(report["findings"]["first"].as_array().unwrap().len(), 1);
    world.dl(&["check", "s.t", "--show-files", "1"]).code(2).says("and 1 more");
    // The version before these files came is right.
    world.dl(&["check", "s.t", "--version", "0"]).ok().says("0 files");
    // All tables: the one that is right is no less so.
    world.create("s.other", "other", &[]).ok();
    let all = world.dl(&["check", "--all", "--format", "json"]).code(2).json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    world.dl(&["check"]).code(2);
    world.dl(&["check", "s.t", "--all"]).code(2);
    world.dl(&["check", "s.none"]).fails(&["s.none"]);
}

#[test]
fn footers_are_compared_with_rows_and_columns() {
    let world = World::new();
    let files = [("right", 2), ("rows", 3), ("narrow", 1), ("case", 1), ("other", 1), ("less", 1)];
    world.parquet("t/right.parquet", &[1, 2]);
    world.parquet("t/rows.parquet", &[1, 2]);
    let text = |values: Vec<&'static str>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    world.parquet_of(
        "t/narrow.parquet",
        vec![("id", Arc::clone(&narrow)), ("name", text(vec!["a"]))],
    );
    world.parquet_of(
        "t/case.parquet",
        vec![("id", Arc::new(arrow::array::Int64Array::from(vec![1]))), ("NAME", text(vec!["a"]))],
    );
    world.parquet_of("t/other.parquet", vec![("id", text(vec!["a"])), ("name", text(vec!["a"]))]);
    // A column that came later is no matter.
    world.parquet_of("t/less.parquet", vec![("name", text(vec!["a"]))]);
    let adds: String = files
        .iter()
        .map(|(name, rows)| {
            let path = format!("{name}.parquet");
            add(&path, size_of(&world, &format!("t/{path}")), *rows, "")
        })
        .collect();
    let location = foreign_log(&world, "t", &[WITH_VECTORS, &adds]);
    world.dl(&["import", &location, "s.t", "--no-mirror"]).ok();
    world.dl(&["check", "s.t"]).ok();
    let report = world.json_of(&["check", "s.t", "--footers"]);
    let mut found: Vec<String> = report["findings"]["first"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| format!("{} {}", f["kind"].as_str().unwrap(), f["path"].as_str().unwrap()))
        .collect();
    found.sort_unstable();
    assert_eq!(found, ["column other.parquet", "rows rows.parquet"], "{report}");
    let unclear = report["not_comparable"]["first"].to_string();
    for word in ["narrow.parquet", "case.parquet", "capital letters"] {
        assert!(unclear.contains(word), "{word}: {unclear}");
    }
    assert_eq!(report["not_comparable"]["count"], 2, "{unclear}");
}

#[test]
fn paths_mean_what_the_protocol_says() {
    let world = World::new();
    let root = world.path("t").to_str().unwrap().to_owned();
    // Where a file lies, and how the log spells it.
    let spelt = [
        ("t/day=1%2F2/a.parquet", "day=1%252F2/a.parquet".to_owned()),
        ("t/with space.parquet", "with%20space.parquet".to_owned()),
        ("t/org=%40X/b.parquet", "org=%2540X/b.parquet".to_owned()),
        ("t/ü.parquet", "%C3%BC.parquet".to_owned()),
        ("t/abs.parquet", format!("file:{root}/abs.parquet")),
        ("elsewhere/c.parquet", format!("file://{}", world.path("elsewhere/c.parquet").display())),
    ];
    let mut adds = String::new();
    for (file, path) in &spelt {
        world.parquet(file, &[1]);
        adds += &add(path, size_of(&world, file), 1, "");
    }
    // Written without being encoded: the protocol's reading is another name.
    world.parquet("t/x%20y.parquet", &[1]);
    adds += &add("x%20y.parquet", size_of(&world, "t/x%20y.parquet"), 1, "");
    // Nobody can tell from here.
    adds += &add("s3://bucket/t/d.parquet", 1, 1, "");
    // A file stands where a folder would be.
    adds += &add("abs.parquet/e.parquet", 1, 1, "");
    let location = foreign_log(&world, "t", &[WITH_VECTORS, &adds]);
    world.dl(&["import", &location, "s.t", "--no-mirror", "--skip-validation"]).ok();
    let report = world.json_of(&["check", "s.t", "--footers"]);
    assert_eq!(kinds(&report), ["missing", "missing"], "{report}");
    let findings = report["findings"]["first"].to_string();
    assert!(findings.contains("some readers take it for"), "{findings}");
    assert!(findings.contains("abs.parquet/e.parquet"), "{findings}");
    let unclear = report["not_comparable"]["first"].to_string();
    assert!(unclear.contains("another store"), "{unclear}");
    assert_eq!((&report["files"], &report["footers"]), (&json!(9), &json!(6)));
}

#[test]
fn deletion_vectors_are_compared_with_their_checksums() {
    let world = World::new();
    world.parquet("t/a.parquet", &[1, 2]);
    let size = size_of(&world, "t/a.parquet");
    // One byte of format, then size, data, checksum.
    let data = b"any bytes: they are not read as a bitmap here";
    let framed = |checksum: u32| {
        let mut file = vec![1_u8];
        file.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        file.extend(data);
        file.extend(checksum.to_be_bytes());
        file
    };
    let right = crc32fast::hash(data);
    fs::write(world.path("t/right.bin"), framed(right)).unwrap();
    fs::write(world.path("t/wrong.bin"), framed(right ^ 1)).unwrap();
    fs::write(world.path("t/short.bin"), &framed(right)[..20]).unwrap();
    fs::write(world.path("t/empty.bin"), [1_u8]).unwrap();
    let vector = |file: &str, bytes: usize| {
        let path = world.path("t").join(file);
        format!(
            r#","deletionVector":{{"storageType":"p","pathOrInlineDv":"file://{}","offset":1,"sizeInBytes":{bytes},"cardinality":1}}"#,
            path.display()
        )
    };
    let cases = [
        ("right.bin", data.len()),
        ("wrong.bin", data.len()),
        ("short.bin", data.len()),
        ("empty.bin", data.len()),
        ("none.bin", data.len()),
        ("right.bin", data.len() - 1),
    ];
    let mut adds = String::new();
    for (n, (file, bytes)) in cases.into_iter().enumerate() {
        let name = format!("{n}.parquet");
        fs::copy(world.path("t/a.parquet"), world.path(&format!("t/{name}"))).unwrap();
        adds += &add(&name, size, 2, &vector(file, bytes));
    }
    let location = foreign_log(&world, "t", &[WITH_VECTORS, &adds]);
    world.dl(&["import", &location, "s.t", "--no-mirror", "--skip-validation"]).ok();
    let report = world.json_of(&["check", "s.t"]);
    assert_eq!(
        kinds(&report),
        ["vector_checksum", "vector_missing", "vector_size", "vector_size", "vector_size"],
        "{report}"
    );
    assert_eq!(report["vectors"], 6);
    assert_eq!(report["failures"]["count"], 0, "{report}");
}

/// Tables that come without all of their files: their projects test logs with them.
const WITHOUT_FILES: [&str; 7] = [
    "rs.checkpoint_with_partitions",
    "rs.checkpoints",
    "rs.checkpoints_vacuumed",
    "rs.latest_not_checkpointed",
    "rs.spark-variant-stable-feature-checkpoint",
    "rs.table-with-domain-metadata",
    "rs.with_checkpoint_no_last_checkpoint",
];

/// What Spark and others wrote is right, footers, columns and deletion vectors included: column mapping, widened
/// types, partitions with special characters, old list layouts.
#[test]
fn tables_of_other_engines_are_right_but_for_files_that_are_not_there() {
    let tables = std::env::var_os("DL_DELTA_TABLES").map(PathBuf::from).filter(|f| f.is_dir());
    let Some(tables) = tables else {
        let why = "DL_DELTA_TABLES names no folder with tables of other engines";
        deltalakedb_test_servers::skip(&["corpus"], why);
        return;
    };
    let world = World::new();
    let pattern = tables.join("delta-rs/*").to_str().unwrap().to_owned();
    world.dl(&["import", &pattern, "rs.{name}", "--no-mirror"]).ok();
    let run = world.dl(&["check", "--all", "--footers", "--format", "json"]).code(2);
    let reports = run.json();
    let reports = reports.as_array().unwrap();
    assert!(reports.len() > 40, "{}", reports.len());
    let mut wrong = Vec::new();
    for report in reports {
        assert_eq!(report["failures"]["count"], 0, "{report}");
        if report["findings"]["count"] != 0 {
            assert_eq!(report["kinds"], json!({ "missing": report["files"] }), "{report}");
            wrong.push(report["table"].as_str().unwrap());
        }
    }
    wrong.sort_unstable();
    assert_eq!(wrong, WITHOUT_FILES);
    let vectors: u64 = reports.iter().map(|report| report["vectors"].as_u64().unwrap()).sum();
    assert!(vectors > 0);
}
