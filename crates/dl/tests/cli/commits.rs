//! `create`, `append`, `commit`, `drop`, `undrop`.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array};

use crate::world::{World, add, remove};

#[test]
fn create_publishes_version_0() {
    let world = World::new();
    world
        .create(
            "s.t",
            "t",
            &["--partition-by", "day", "--property", "delta.appendOnly=true", "--description", "x"],
        )
        .ok()
        .says("'s.t' is at version 0");
    let shown = world.json(&["show", "s.t"]);
    assert_eq!(shown["version"], 0);
    assert_eq!(shown["head_version"], 0);
    assert_eq!(shown["published_version"], 0);
    assert_eq!(shown["partition_columns"], serde_json::json!(["day"]));
    assert_eq!(shown["properties"]["delta.appendOnly"], "true");
    assert_eq!(shown["features"]["append_only"], true);
    assert_eq!(shown["description"], "x");
    assert_eq!(shown["schema"]["fields"][0]["name"], "id");
    assert_eq!(shown["schema"]["fields"][0]["nullable"], false);
    assert_eq!(world.log_versions("t"), [0]);
    assert!(world.read("t/_delta_log/00000000000000000000.json").contains("\"metaData\""));
}

#[test]
fn create_takes_schemas_from_files() {
    let world = World::new();
    let json = world.file(
        "schema.json",
        r#"{"type":"struct","fields":[{"name":"x","type":"integer","nullable":true,"metadata":{}}]}"#,
    );
    world.dl(&["create", "s.json", "--location", "a", "--schema-file", &json]).ok();
    assert_eq!(world.json(&["show", "s.json"])["schema"]["fields"][0]["type"], "integer");
    let text = world.file("schema.txt", "x int, `odd-name` string");
    world.dl(&["create", "s.text", "--location", "b", "--schema-file", &text]).ok();
    assert_eq!(world.json(&["show", "s.text"])["schema"]["fields"][1]["name"], "odd-name");
    let parquet = world.parquet("c/day=1/x.parquet", &[1, 2]);
    world
        .dl(&[
            "create",
            "s.pq",
            "--location",
            "c",
            "--schema-from",
            &parquet,
            "--partition-by",
            "day",
        ])
        .ok();
    world.dl(&["append", "s.pq", "c"]).ok();
    let shown = world.json(&["show", "s.pq"]);
    assert_eq!(shown["schema"]["fields"][0]["type"], "long");
    assert_eq!(shown["schema"]["fields"][2]["name"], "day");
    assert_eq!(shown["num_files"], 1);
}

#[test]
fn append_takes_files_folders_and_patterns_once() {
    let world = World::with_table();
    let one = world.parquet("t/day=a/1.parquet", &[1, 2, 3]);
    let appended = world.json(&["append", "s.t", &one]);
    assert_eq!(appended["appended"]["files"], 1);
    assert_eq!(appended["appended"]["rows"], 3);
    assert_eq!(appended["tables"][0]["table"], "s.t");
    assert_eq!(appended["tables"][0]["version"], 1);
    world.parquet("t/day=b%20c/2.parquet", &[4]);
    world.parquet("t/day=__HIVE_DEFAULT_PARTITION__/3.parquet", &[5]);
    world.file("t/.hidden/4.parquet", "no Parquet");
    world.file("t/readme.txt", "no Parquet");
    let before = world.dl(&["append", "s.t", "t", "--dry-run"]).ok().says("Would append 2 files");
    assert!(before.stderr.contains("Passed over: 1 file"), "{}", before.stderr);
    world.dl(&["append", "s.t", "t"]).ok().says("Appended 2 files (2 rows");
    world.dl(&["append", "s.t", "t"]).ok().says("Nothing to append");
    world.parquet("t/day=d/5.parquet", &[6]);
    world.parquet("t/day=d/6.parquet", &[7]);
    world.dl(&["append", "s.t", "t/day=d/*.parquet"]).ok().says("Appended 2 files");
    // Relative to the table's root, where there is no such file in the working folder.
    world.parquet("t/day=e/7.parquet", &[8]);
    world.dl(&["append", "s.t", "day=e/7.parquet"]).ok();
    let files = world.json(&["files", "s.t"]);
    let mut days: Vec<_> = files
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["partition_values"]["day"].as_str().map(str::to_owned))
        .collect();
    days.sort();
    let some = |day: &str| Some(day.to_owned());
    assert_eq!(days, [None, some("a"), some("b c"), some("d"), some("d"), some("e")]);
    assert_eq!(world.log_versions("t"), [0, 1, 2, 3, 4]);
    world.dl(&["diff", "--table", "s.t"]).ok();
}

#[test]
fn append_is_idempotent_by_token() {
    let world = World::with_table();
    let file = world.parquet("t/day=a/1.parquet", &[1]);
    world.dl(&["append", "s.t", &file, "--token", "one"]).ok();
    let again = world.json(&["append", "s.t", &file, "--token", "one"]);
    assert_eq!(again["replayed"], true);
    assert_eq!(again["tables"][0]["version"], 1);
    assert_eq!(world.json(&["show", "s.t"])["version"], 1);
}

#[test]
fn append_refuses_what_readers_would_see_wrong() {
    let world = World::with_table();
    let ints = Arc::new(Int64Array::from(vec![1]));
    for (name, columns, words) in [
        (
            "t/day=a/type.parquet",
            vec![("id", Arc::new(Float64Array::from(vec![1.5])) as arrow::array::ArrayRef)],
            vec!["type.parquet", "id"],
        ),
        (
            "t/day=a/extra.parquet",
            vec![("id", ints.clone() as _), ("surplus", ints.clone() as _)],
            vec!["extra.parquet", "surplus"],
        ),
        ("t/nowhere.parquet", vec![("id", ints.clone() as _)], vec!["nowhere.parquet", "day"]),
        ("t/month=1/wrong.parquet", vec![("id", ints.clone() as _)], vec!["wrong.parquet"]),
    ] {
        let file = world.parquet_of(name, columns);
        world.dl(&["append", "s.t", &file]).fails(&words);
        std::fs::remove_file(file).unwrap();
    }
    let broken = world.file("t/day=a/broken.parquet", "PAR1 no Parquet PAR1");
    world.dl(&["append", "s.t", &broken]).fails(&["broken.parquet", "Parquet"]);
    let outside = world.parquet("elsewhere/1.parquet", &[1]);
    world.dl(&["append", "s.t", &outside]).fails(&["not below the table's location"]);
    world.dl(&["append", "s.t", "none.parquet"]).fails(&["none.parquet", "does not exist"]);
    world.dl(&["append", "s.t", "none-*.parquet"]).fails(&["no file matches"]);
    assert_eq!(world.json(&["show", "s.t"])["version"], 0, "nothing was written");
}

#[test]
fn commit_reads_files_and_standard_input() {
    let world = World::with_table();
    let file = world.file("one.json", &add("day=1/a.parquet", "1"));
    world.dl(&["commit", "s.t", &file, "--blind"]).ok().says("'s.t' is at version 1");
    world
        .dl_with_input(&["commit", "s.t", "-", "--operation", "DELETE"], &remove("day=1/a.parquet"))
        .ok();
    world.dl_with_input(&["commit", "s.t"], &add("day=1/b.parquet", "1")).ok();
    let history = world.json(&["history", "s.t"]);
    let operations: Vec<_> =
        history.as_array().unwrap().iter().map(|c| c["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["WRITE", "DELETE", "WRITE", "CREATE TABLE"]);
    assert_eq!(world.json(&["files", "s.t"])[0]["path"], "day=1/b.parquet");
    assert_eq!(world.log_versions("t"), [0, 1, 2, 3]);
}

#[test]
fn commit_spans_tables_all_or_nothing() {
    let world = World::with_table();
    world.create("s.u", "u", &["--partition-by", "day"]).ok();
    let good = world.file("good.json", &add("day=1/a.parquet", "1"));
    let bad = world.file("bad.json", &remove("day=1/none.parquet"));
    world
        .dl(&["commit", "--table", &format!("s.t={good}"), "--table", &format!("s.u={bad}")])
        .fails(&["bad.json", "day=1/none.parquet", "s.u"]);
    assert_eq!(world.json(&["show", "s.t"])["version"], 0);
    let report = world.json(&[
        "commit",
        "--table",
        &format!("s.t={good}"),
        "--table",
        &format!("s.u={good}"),
        "--token",
        "both",
    ]);
    assert_eq!(report["token"], "both");
    assert_eq!(report["tables"][0]["version"], 1);
    assert_eq!(report["tables"][1]["table"], "s.u");
    let again = world.json(&["commit", "s.t", &good, "--token", "both"]);
    assert_eq!(again["replayed"], true);
    assert_eq!(world.json(&["show", "s.t"])["version"], 1);
    for table in ["t", "u"] {
        assert_eq!(world.log_versions(table), [0, 1]);
    }
    world
        .dl(&["commit", "--table", &format!("s.t={good}"), "--table", &format!("s.t={good}")])
        .fails(&["twice"]);
    world.dl(&["commit", "--table", "s.t=-", "--table", "s.u=-"]).fails(&["standard input"]);
    world.dl(&["commit", "--table", "s.t"]).fails(&["TABLE=FILE"]);
}

#[test]
fn read_versions_find_conflicts() {
    let world = World::with_table();
    let first = world.file("first.json", &add("day=1/a.parquet", "1"));
    world.dl(&["commit", "s.t", &first]).ok();
    world.dl_with_input(&["commit", "s.t", "--read-version", "1"], &remove("day=1/a.parquet")).ok();
    world
        .dl_with_input(&["commit", "s.t", "--read-version", "1"], &remove("day=1/a.parquet"))
        .fails(&["s.t", "day=1/a.parquet"]);
    let run = world.dl_with_input(
        &["commit", "s.t", "--read-version", "1", "--format", "json"],
        &remove("day=1/a.parquet"),
    );
    let error: serde_json::Value = serde_json::from_str(&run.code(1).stderr).unwrap();
    assert_eq!(error["error"]["kind"], "conflict");
    let good = world.file("good.json", &add("day=1/c.parquet", "1"));
    world.dl(&["commit", "s.t", &good, "--read-version", "9"]).fails(&["9"]);
    world.dl(&["commit", "s.t", &good, "--read-version", "s.u=1"]).fails(&["s.u"]);
    world.dl(&["commit", "s.t", &good, "--read-version", "-1"]).code(2);
    // A writer that read nothing fits on any head.
    world.dl(&["commit", "s.t", &good, "--read-version", "0", "--blind"]).ok();
}

#[test]
fn no_publish_leaves_it_to_the_mirror() {
    let world = World::new();
    world.create("s.t", "t", &["--no-publish"]).ok();
    assert_eq!(world.log_versions("t"), [0_u64; 0]);
    world.dl(&["mirror", "run"]).ok().says("s.t: 1 version published");
    assert_eq!(world.log_versions("t"), [0]);
}

#[test]
fn a_dropped_table_comes_back() {
    let world = World::with_table();
    let dropped = world.json(&["drop", "s.t"]);
    let id = dropped["id"].as_str().unwrap().to_owned();
    assert_eq!(dropped["state"], "dropped");
    world.dl(&["show", "s.t"]).fails(&["s.t", "not in the catalog"]);
    world.dl(&["drop", "s.t"]).fails(&["s.t"]);
    assert_eq!(world.json(&["list"]), serde_json::json!([]));
    assert_eq!(world.json(&["list", "--dropped"])[0]["id"], id.as_str());
    world.dl(&["show", &id]).ok().says("dropped");
    world.dl(&["undrop", "s.t"]).ok();
    assert_eq!(world.json(&["show", "s.t"])["id"], id.as_str());
    world.dl(&["drop", "s.t"]).ok();
    world.create("s.t", "other", &[]).ok();
    world.dl(&["undrop", &id]).fails(&["s.t", "exists already"]);
    world.dl(&["undrop", &id, "--as", "s.old"]).ok().says("'s.old' is back");
    world.dl(&["undrop", &id]).fails(&[]);
    let names: Vec<_> = world
        .json(&["list"])
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["table"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["s.old", "s.t"]);
}
