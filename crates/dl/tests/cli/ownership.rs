//! `cutover`, `release`, `create --no-fence`, `import --take-over`.

use std::fs;

use serde_json::{Value, json};

use crate::world::{World, add};

/// Writer features of the protocol in a version's file.
fn published_features(world: &World, table: &str, version: u32) -> Option<Value> {
    let log = world.path(table).join("_delta_log").join(format!("{version:020}.json"));
    let lines = fs::read_to_string(log).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find_map(|line| line.get("protocol").map(|p| p["writerFeatures"].clone()))
}

#[test]
fn new_tables_have_the_fence_unless_told_otherwise() {
    let world = World::new();
    world.create("s.t", "t", &[]).ok();
    world.create("s.open", "open", &["--no-fence"]).ok();
    let fenced = published_features(&world, "t", 0).unwrap();
    assert_eq!(fenced, json!(["appendOnly", "inCommitTimestamp", "invariants", "deltalakedb"]));
    let open = published_features(&world, "open", 0).unwrap();
    assert_eq!(open, json!(["appendOnly", "inCommitTimestamp", "invariants"]));
    assert_eq!(world.json(&["show", "s.t"])["features"]["fence"], true);
    assert_eq!(world.json(&["show", "s.open"])["features"]["fence"], false);
    world.dl(&["show", "s.t"]).ok().says("foreign writers kept out");
    // What is committed does not take it away.
    let wider = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":4}}"#;
    world.dl_with_input(&["commit", "s.t"], wider).ok();
    let features = published_features(&world, "t", 1).unwrap();
    let names: Vec<&str> =
        features.as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    assert!(names.contains(&"deltalakedb") && names.contains(&"changeDataFeed"), "{names:?}");
    assert!(names.contains(&"inCommitTimestamp"), "{names:?}");
    world.dl(&["diff", "--table", "s.t"]).ok();
}

#[test]
fn a_table_is_cut_over_released_and_taken_in_again() {
    let world = World::new();
    world.create("s.t", "t", &["--no-fence", "--partition-by", "day"]).ok();
    world.dl_with_input(&["commit", "s.t"], &add("a.parquet", "")).ok();
    world.dl(&["cutover", "s.t"]).ok().says("is up from version 2 on");
    world.dl(&["cutover", "s.t"]).ok().says("is up already");
    assert!(world.json(&["cutover", "s.t"])["version"].is_null());
    assert!(published_features(&world, "t", 2).unwrap().to_string().contains("deltalakedb"));
    world.dl(&["diff", "--table", "s.t"]).ok();

    // A second catalog keeps away from it.
    let other = World::new();
    let place = world.path("t");
    let place = place.to_str().unwrap();
    other.dl(&["import", place, "s.t"]).fails(&["two catalogs would fork it", "--take-over"]);
    other.dl(&["import", place, "s.t", "--dry-run"]).fails(&["--take-over"]);
    assert_eq!(other.json(&["list"]), json!([]));
    other.dl(&["import", place, "s.reading", "--no-mirror"]).ok();

    world
        .dl(&["release", "s.t"])
        .ok()
        .says("Released 's.t' at version 3")
        .says("1 version published");
    world.dl(&["release", "s.t"]).ok().says("0 versions published");
    assert_eq!(published_features(&world, "t", 3), Some(Value::Null));
    world.dl(&["show", "s.t"]).fails(&["s.t"]);
    other.dl(&["import", place, "s.t"]).ok();
    other.dl(&["cutover", "s.t"]).ok();
    // The catalog that owns it is lost: another one takes over.
    let third = World::new();
    third.dl(&["import", place, "s.t", "--take-over"]).ok();
    third.dl_with_input(&["commit", "s.t"], &add("b.parquet", "")).ok();
    assert_eq!(world.log_versions("t"), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_table_that_cannot_be_cut_over_says_why() {
    let world = World::new();
    world.create("s.t", "t", &["--no-fence", "--no-mirror"]).ok();
    world.dl(&["cutover", "s.t"]).fails(&["publishing of 's.t' is off", "dl mirror enable s.t"]);
    world.create("s.u", "u", &["--no-fence"]).ok();
    world.file("u/_delta_log/00000000000000000001.json", "{\"foreign\":{}}\n");
    for command in ["cutover", "release"] {
        world.dl(&[command, "s.u"]).fails(&["holds version 1", "last version of 's.u' is 0"]);
    }
    world.dl(&["cutover", "s.none"]).fails(&["s.none"]);
}
