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
fn a_log_that_is_not_the_catalog_s_is_not_cut_over() {
    let world = World::new();
    world.create("s.t", "t", &["--no-fence", "--partition-by", "day"]).ok();
    world.dl_with_input(&["commit", "s.t"], &add("day=1/a.parquet", "1")).ok();
    let one = "t/_delta_log/00000000000000000001.json";
    let published = world.read(one);
    world.file(one, &published.replace("a.parquet", "b.parquet"));
    world.dl(&["cutover", "s.t"]).fails(&[
        "'s.t' is not cut over",
        "a.parquet",
        "b.parquet",
        "dl diff s.t",
        "--skip-diff",
    ]);
    assert_eq!(world.json(&["show", "s.t"])["features"]["fence"], false);
    assert_eq!(world.json(&["show", "s.t"])["version"], 1);
    world.file(one, &published);
    // A log that is behind is no contradiction.
    let late = ["commit", "s.t", "--no-publish"];
    world.dl_with_input(&late, &add("day=1/c.parquet", "1")).ok();
    world.dl(&["cutover", "s.t"]).ok().says("is up from version 3 on");
    // Who says so cuts over without comparing.
    world.create("s.u", "u", &["--no-fence", "--partition-by", "day"]).ok();
    let zero = "u/_delta_log/00000000000000000000.json";
    let other = world.read(zero).replace(r#"nullable\":true"#, r#"nullable\":false"#);
    world.file(zero, &other);
    world.dl(&["cutover", "s.u"]).fails(&["'s.u' is not cut over"]);
    world.dl(&["cutover", "s.u", "--skip-diff"]).ok().says("is up from version 1 on");
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

#[test]
fn a_lost_catalog_is_rebuilt() {
    let world = World::new();
    for name in ["orders", "items"] {
        world.create(&format!("sales.{name}"), &format!("lake/sales/{name}"), &[]).ok();
    }
    fs::remove_file(world.path("catalog.db")).unwrap();
    let url = format!("sqlite://{}", world.path("new.db").display());
    let lake = world.path("lake");
    let rebuild = ["rebuild", &url, "--from", lake.to_str().unwrap()];
    world.dl(&rebuild).ok().says("sales.orders: version 0").says("2 of 2 tables are in");
    world.dl(&rebuild).ok().says("sales.items: there already");
    world.dl(&["--catalog", &url, "diff"]).ok();
    world.file("lake/bad/_delta_log/00000000000000000009.json", "{}\n");
    world.dl(&rebuild).code(1).says("2 of 3 tables");
    world.dl(&["rebuild", &url, "--from", "/nowhere", "--names", "x.y"]).fails(&["{name}"]);
}

#[test]
fn a_fork_is_shown_and_repaired() {
    let world = World::new();
    let table = ["--no-fence", "--partition-by", "day"];
    world.create("s.t", "t", &table).ok();
    world.dl(&["repair", "s.t"]).ok().says("nothing that the catalog does not have");
    let theirs = |version: u32, file: &str| {
        let info = r#"{"commitInfo":{"operation":"WRITE","engineInfo":"other 1.0"}}"#;
        let name = format!("t/_delta_log/{version:020}.json");
        world.file(&name, &format!("{info}\n{}\n", add(file, "1")));
    };
    theirs(1, "day=1/theirs");
    world.dl(&["repair", "s.t"]).code(2).says("parts at version 1").says("other 1.0");
    world.dl(&["repair", "s.t", "--adopt"]).ok().says("Adopted 1 foreign commit");
    assert_eq!(world.json(&["mirror", "status"])[0]["published_version"], 1);
    theirs(2, "day=1/more");
    world.dl_with_input(&["commit", "s.t", "--blind"], &add("day=1/ours", "1")).ok();
    world.dl(&["mirror", "status"]).code(2);
    world.dl(&["repair", "s.t", "--adopt"]).fails(&["--rebase"]);
    let both = world.dl(&["repair", "s.t", "--format", "json"]).code(2);
    assert_eq!((&both.json()["fork"], &both.json()["log"][0]["adds"]), (&json!(2), &json!(1)));
    world.dl(&["repair", "s.t", "--rebase"]).ok().says("1 commit of 's.t' now follow");
    world.dl(&["diff", "--table", "s.t"]).ok();
    assert_eq!(world.json(&["show", "s.t"])["num_files"], 3);
    theirs(4, "day=1/again");
    world.dl_with_input(&["commit", "s.t"], &add("day=1/b", "1")).ok();
    world.dl(&["repair", "s.t", "--detach"]).ok().says("Publishing of 's.t' is off");
    world.dl(&["mirror", "status"]).ok();
    world.dl(&["repair", "s.t", "--detach", "--adopt"]).code(2);
}
