//! `mirror run|status|retry|enable|disable`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::world::{Run, World, add};

/// Waits for a condition, bounded.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::yield_now();
    }
}

/// Whether a program has opened a file of this name; where nobody says so, it is taken to have.
fn has_open(child: &Child, name: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{}/fd", child.id())) else { return true };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.ends_with(name)))
}

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
    world.dl(&["mirror", "status"]).code(2);
    world.dl(&["mirror", "status", "s.t", "--format", "json"]).code(2);
    world.dl(&["mirror", "wait", "s.t"]).fails(&["version 1 of table 's.t'", "has stopped"]);
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

#[test]
fn a_version_is_waited_for() {
    let world = World::new();
    world.create("s.t", "t", &["--partition-by", "day", "--no-publish"]).ok();
    world
        .dl(&["mirror", "wait", "s.t", "--timeout", "0.2"])
        .fails(&["version 0 of table 's.t' is not published after", "dl mirror run s.t"]);
    world.dl(&["mirror", "wait", "s.t", "7"]).fails(&["7"]);
    world.dl(&["mirror", "wait", "s.t", "--timeout=-1"]).fails(&["--timeout"]);
    // It is late by any measure, once the clock has moved at all.
    until("it is late", || world.dl(&["mirror", "status", "--late", "0"]).code == 3);
    world.dl(&["mirror", "status"]).ok();
    let mut waiting = world.command(&["mirror", "wait", "s.t"]).spawn().unwrap();
    until("it has opened the catalog", || has_open(&waiting, "catalog.db"));
    assert!(waiting.try_wait().unwrap().is_none(), "it does not wait");
    world.dl(&["mirror", "run"]).ok();
    Run::from(waiting.wait_with_output().unwrap()).ok().says("s.t: version 0 is published");
    assert_eq!(world.json(&["mirror", "wait", "s.t", "0"])["published_version"], 0);
    world.dl(&["mirror", "status", "--late", "0"]).ok();
}

#[test]
fn all_tables_of_a_transaction_are_waited_for() {
    let world = World::new();
    for name in ["a", "b"] {
        world.create(&format!("s.{name}"), name, &["--partition-by", "day"]).ok();
        world.file(&format!("{name}.json"), &add("day=1/x.parquet", "1"));
    }
    let both = ["--table", "s.a=a.json", "--table", "s.b=b.json", "--token", "load-1"];
    world.dl(&[&["commit", "--no-publish"], &both[..]].concat()).ok();
    let wait = ["mirror", "wait", "--token", "load-1"];
    // One of two is not all.
    world.dl(&["mirror", "run", "s.a"]).ok();
    world
        .dl(&[&wait[..], &["--timeout", "0.2"]].concat())
        .fails(&["version 1 of table 's.b' is not published after"]);
    let mut waiting = world.command(&wait).spawn().unwrap();
    until("it has opened the catalog", || has_open(&waiting, "catalog.db"));
    assert!(waiting.try_wait().unwrap().is_none(), "it does not wait");
    world.dl(&["mirror", "run"]).ok();
    Run::from(waiting.wait_with_output().unwrap())
        .ok()
        .says("s.a: version 1 is published")
        .says("s.b: version 1 is published");
    // Later versions that wait are no concern of this token.
    world.dl_with_input(&["commit", "s.a", "--no-publish"], &add("day=1/y.parquet", "1")).ok();
    let waited = world.json(&[&wait[..], &["--timeout", "1"]].concat());
    assert_eq!(waited[0]["table"], "s.a");
    assert_eq!((&waited[0]["version"], &waited[1]["version"]), (&1.into(), &1.into()));
    // What is published stays so, also of a table that was dropped.
    world.dl(&["drop", "s.b"]).ok();
    world.dl(&wait).ok();
    world.dl(&["mirror", "wait", "--token", "load-2"]).fails(&[
        "no commit has the token 'load-2'",
        "the token has expired",
        "maintenance.expire.tokens",
    ]);
    world.dl(&["mirror", "wait", "--token", ""]).fails(&["1 to 128"]);
    world.dl(&["mirror", "wait"]).code(2);
    world.dl(&["mirror", "wait", "s.a", "--token", "load-1"]).code(2);
}

#[test]
fn a_bound_on_what_is_not_published_holds_commits_back() {
    let world = World::new();
    let bound = ["--property", "deltalakedb.maxUnpublishedVersions=2", "--no-publish"];
    world.create("s.t", "t", &[&bound[..], &["--partition-by", "day"]].concat()).ok();
    let commit = |name: &str| {
        world.dl_with_input(&["commit", "s.t", "--no-publish"], &add(&format!("day=1/{name}"), "1"))
    };
    commit("a").ok();
    // It says each time that it goes again.
    let mut command = world.command(&["commit", "s.t", "--no-publish"]);
    command.env("RUST_LOG", "debug").stdin(Stdio::piped());
    let mut held = command.spawn().unwrap();
    held.stdin.take().unwrap().write_all(add("day=1/b", "1").as_bytes()).unwrap();
    let mut log = BufReader::new(held.stderr.take().unwrap());
    for _ in 0..3 {
        let mut line = String::new();
        while !line.contains("goes again") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
        }
    }
    assert!(held.try_wait().unwrap().is_none(), "it is not held back");
    assert_eq!(world.json(&["show", "s.t"])["version"], 1);
    world.dl(&["mirror", "run"]).ok();
    std::io::copy(&mut log, &mut std::io::sink()).unwrap();
    Run::from(held.wait_with_output().unwrap()).ok();
    assert_eq!(world.json(&["show", "s.t"])["version"], 2);
}

#[test]
fn missing_files_are_put_back() {
    let world = World::with_table();
    world.dl_with_input(&["commit", "s.t"], &add("day=1/a", "1")).ok();
    world.dl(&["mirror", "reconcile"]).ok().says("1 table, 2 commit files: all is there");
    let file = world.path("t/_delta_log/00000000000000000001.json");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    world.dl(&["mirror", "reconcile", "--dry-run"]).code(2);
    assert!(!file.exists());
    let metrics = world.path("parity.prom");
    let output = metrics.to_str().unwrap();
    world
        .dl(&["mirror", "reconcile", "s.t", "--metrics-output", output])
        .ok()
        .says("1 wrong, all put right");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert!(fs::read_to_string(&metrics).unwrap().ends_with("\"} 1\n"));
    world.file("t/_delta_log/00000000000000000002.json", "{\"foreign\":{}}\n");
    world.dl(&["mirror", "reconcile"]).code(2).says("1 wrong, 1 of them still are");
    let report = world.dl(&["mirror", "reconcile", "--format", "json"]).code(2);
    assert_eq!(report.json()["tables"][0]["findings"][0]["kind"], "foreign");
}
