//! `mirror run|status|retry|enable|disable`.

use std::fs;

use crate::world::{World, add};

#[test]
fn status_shows_what_waits() {
    let world = World::new();
    world.create("s.t", "t", &["--partition-by", "day", "--no-publish"]).ok();
    for n in 0..2 {
        world
            .dl_with_input(&["commit", "s.t", "--no-publish"], &add(&format!("day=1/{n}"), "1"))
            .ok();
    }
    let status = world.json(&["mirror", "status"]);
    assert_eq!(status[0]["table"], "s.t");
    assert_eq!(status[0]["unpublished"], 3);
    assert_eq!(status[0]["published_version"], serde_json::Value::Null);
    assert!(status[0]["lag_seconds"].as_f64().unwrap() >= 0.0);
    let one = world.json(&["mirror", "status", "s.t"]);
    assert_eq!(one[0]["versions"][2]["state"], "PENDING");
    world.dl(&["mirror", "status"]).ok().says("s.t");
    world.dl(&["mirror", "status", "s.t"]).ok().says("3 waiting").says("PENDING");
    let report = world.json(&["mirror", "run", "s.t"]);
    assert_eq!(report["published"], 3);
    assert_eq!(world.json(&["mirror", "status"])[0]["unpublished"], 0);
    world.dl(&["mirror", "run"]).ok().says("Everything is published");
    world.dl(&["mirror", "status", "s.none"]).fails(&["s.none"]);
}

#[test]
fn a_publish_failure_is_a_warning_and_the_mirror_catches_up() {
    let world = World::with_table();
    // A file stands where the log belongs.
    fs::rename(world.path("t"), world.path("aside")).unwrap();
    fs::write(world.path("t"), "in the way").unwrap();
    let run =
        world.dl_with_input(&["commit", "s.t", "--format", "json"], &add("day=1/a.parquet", "1"));
    let run = run.ok();
    assert_eq!(run.json()["tables"][0]["version"], 1);
    assert!(run.json()["warnings"][0].as_str().unwrap().contains("the commit to 's.t' stands"));
    assert!(run.stderr.contains("dl mirror run s.t"), "{}", run.stderr);
    let status = world.json(&["mirror", "status", "s.t"]);
    assert_eq!(status[0]["failed"], 1);
    assert!(status[0]["last_error"].is_string());
    let run = world.dl(&["mirror", "run"]).code(1);
    assert!(run.stderr.contains("not published yet: 1 version"), "{}", run.stderr);
    fs::remove_file(world.path("t")).unwrap();
    fs::rename(world.path("aside"), world.path("t")).unwrap();
    world.dl(&["mirror", "retry", "s.t"]).ok().says("1 version of 's.t'");
    world.dl(&["mirror", "run"]).ok();
    assert_eq!(world.log_versions("t"), [0, 1]);
    world.dl(&["diff", "--table", "s.t"]).ok();
}

#[test]
fn a_foreign_commit_stops_the_table_and_is_kept() {
    let world = World::with_table();
    world.file("t/_delta_log/00000000000000000001.json", "{\"foreign\":{}}\n");
    let run = world.dl_with_input(&["commit", "s.t"], &add("day=1/a.parquet", "1")).ok();
    assert!(run.stderr.contains("warning") && run.stderr.contains("s.t"), "{}", run.stderr);
    assert_eq!(world.json(&["show", "s.t"])["mirror"], "diverged");
    world.dl(&["list"]).ok().says("DIVERGED");
    world.dl(&["diff", "--table", "s.t"]).code(2);
    world.dl(&["mirror", "run"]).code(1);
    assert_eq!(world.read("t/_delta_log/00000000000000000001.json"), "{\"foreign\":{}}\n");
    // Someone decides: the foreign commit goes.
    fs::remove_file(world.path("t/_delta_log/00000000000000000001.json")).unwrap();
    world.dl(&["mirror", "retry", "s.t"]).ok();
    world.dl(&["mirror", "run"]).ok();
    world.dl(&["diff", "--table", "s.t"]).ok();
}

#[test]
fn publishing_can_be_off_and_turned_on() {
    let world = World::new();
    world.create("s.t", "t", &["--partition-by", "day", "--no-mirror"]).ok();
    world.dl_with_input(&["commit", "s.t"], &add("day=1/a.parquet", "1")).ok();
    assert!(!world.path("t").exists());
    let run = world.dl(&["mirror", "run", "s.t"]).ok();
    assert!(run.stderr.contains("dl mirror enable s.t"), "{}", run.stderr);
    world.dl(&["mirror", "enable", "s.t"]).ok();
    world.dl(&["mirror", "run"]).ok();
    assert_eq!(world.log_versions("t"), [0, 1]);
    assert_eq!(world.json(&["mirror", "disable", "s.t"])["mirror"], "off");
    world.dl_with_input(&["commit", "s.t"], &add("day=1/b.parquet", "1")).ok();
    assert_eq!(world.log_versions("t"), [0, 1]);
    world.dl(&["mirror", "enable", "s.t"]).ok();
    world.dl(&["mirror", "run", "s.t"]).ok().says("1 version published");
    assert_eq!(world.log_versions("t"), [0, 1, 2]);
}
