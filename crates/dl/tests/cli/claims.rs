//! What README and `--help` promise of names, users, logs, metrics and options.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Run, USER, World, add, foreign_log, plain_add};

fn commit(world: &World, name: &str) {
    world.dl_with_input(&["commit", "s.t"], &add(&format!("day=1/{name}.parquet"), "1")).ok();
}

fn foreign(world: &World, version: u32) {
    let text = format!("{{\"commitInfo\":{{}}}}\n{}\n", plain_add("theirs.parquet"));
    world.file(&format!("t/_delta_log/{version:020}.json"), &text);
}

#[track_caller]
fn status(world: &World, code: i32) -> Value {
    world.dl(&["mirror", "status", "--format", "json"]).code(code).json()[0].clone()
}

#[test]
fn a_foreign_commit_in_an_idle_table_is_recorded_by_whoever_sees_it() {
    for (look, code) in [
        (&["mirror", "reconcile"][..], 2),
        (&["mirror", "reconcile", "--dry-run"], 2),
        (&["diff", "--table", "s.t"], 2),
        (&["cutover", "s.t"], 1),
        (&["repair", "s.t"], 2),
        (&["vacuum", "s.t"], 1),
    ] {
        let world = World::new();
        world.create("s.t", "t", &["--no-fence"]).ok();
        foreign(&world, 1);
        assert_eq!(status(&world, 0)["mirror"], "active");
        world.dl(look).code(code);
        let found = status(&world, 2);
        assert_eq!(found["mirror"], "diverged", "{look:?}");
        let error = found["last_error"].as_str().unwrap();
        assert!(error.contains("version 1") && error.contains("dl repair s.t"), "{error}");
        world.dl(&["mirror", "status", "s.t"]).code(2).says("dl repair s.t");
        let metrics = world.dl(&["diff", "--metrics-format", "prometheus"]).code(2).stdout;
        let failed = |line: &str| {
            line.starts_with("dl_mirror_status{") && line.ends_with("version=\"1\"} 2")
        };
        assert!(metrics.lines().any(failed), "{metrics}");
        // Taken in, it is nobody's foreign commit any more.
        world.dl(&["repair", "s.t", "--adopt"]).ok();
        assert_eq!(status(&world, 0)["mirror"], "active");
        world.dl(&["diff", "--table", "s.t"]).ok();
    }
}

#[test]
fn a_worker_that_watches_finds_foreign_commits_of_idle_tables() {
    let world = World::new();
    world.create("s.t", "t", &["--no-fence"]).ok();
    foreign(&world, 1);
    let watch = ["mirror", "run", "--watch", "--foreign-check-interval"];
    world.dl(&[&watch[..], &["soon"]].concat()).fails(&["--foreign-check-interval", "30s"]);
    let mut worker = world.command(&[&watch[..], &["100ms"]].concat()).spawn().unwrap();
    let started = Instant::now();
    while world.json_of(&["mirror", "status"])[0]["mirror"] != "diverged" {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing was found");
        assert!(worker.try_wait().unwrap().is_none(), "the worker ended");
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    status(&world, 2);
}

#[test]
fn commits_say_on_whose_behalf_they_are_made() {
    let world = World::with_table();
    let one = world.parquet("t/day=a/1.parquet", &[1]);
    world.dl(&["append", "s.t", &one]).ok();
    commit(&world, "b");
    let own = r#"{"commitInfo":{"operation":"LOAD","userName":"their own"}}"#;
    let line = format!("{own}\n{}", add("day=1/c.parquet", "1"));
    world.dl_with_input(&["commit", "s.t"], &line).ok();
    let nameless = r#"{"commitInfo":{"operation":"LOAD","a":1.50}}"#;
    let line = format!("{nameless}\n{}", add("day=1/d.parquet", "1"));
    let tricky = "o\"b\\é {x}";
    world.dl_with_input(&["commit", "s.t", "--user", tricky], &line).ok();
    let mut login = world.command(&["commit", "s.t"]);
    login.env_remove("DL_USER").env("LOGNAME", "login").stdin(Stdio::piped());
    let mut login = login.spawn().unwrap();
    std::io::Write::write_all(
        &mut login.stdin.take().unwrap(),
        add("day=1/e.parquet", "1").as_bytes(),
    )
    .unwrap();
    Run::from(login.wait_with_output().unwrap()).ok();
    let history = world.json(&["history", "s.t"]);
    let who: Vec<&str> =
        history.as_array().unwrap().iter().map(|c| c["who"].as_str().unwrap()).collect();
    assert_eq!(who, ["login", tricky, "their own", USER, USER, USER]);
    let first = &history[5]["commit_info"];
    assert!(first["engineInfo"].as_str().unwrap().starts_with("deltalakedb/"), "{first}");
    assert_eq!(history[1]["commit_info"]["a"].to_string(), "1.5");
    // What is published is what is stored.
    let published = world.read("t/_delta_log/00000000000000000004.json");
    assert!(published.contains("\"a\":1.50,\"userName\":\"o\\\"b\\\\é {x}\""), "{published}");
    world.dl(&["diff", "--table", "s.t"]).ok();
    world.dl(&["history", "s.t", "--limit", "2"]).ok().says("login");

    for bad in ["a\nb", "", "\u{1b}[31mred", &"x".repeat(257)] {
        world.dl(&["list", "--user", bad]).fails(&["--user", "a user's name"]);
    }
}

#[test]
fn a_rebuilt_catalog_has_the_names_that_tables_had() {
    let world = World::new();
    world.create("shop.orders", "lake/o", &[]).ok();
    world.create("shop.ü't\"x", "lake/deep/er/x", &[]).ok();
    let imported = foreign_log(&world, "lake/in/im", &[crate::world::FIRST_COMMIT]);
    world.dl(&["import", &imported, "other.name"]).ok();
    let url = format!("sqlite://{}", world.path("new.db").display());
    let lake = world.path("lake");
    let rebuild = ["rebuild", &url, "--from", lake.to_str().unwrap()];
    world.dl(&rebuild).ok();
    let names = |url: &str| {
        let tables = world.json(&["list", "--catalog", url]);
        let names = tables.as_array().unwrap().iter().map(|t| t["table"].as_str().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    // Nothing of a catalog is in a log that was only imported.
    assert_eq!(names(&url), ["in.im", "shop.orders", "shop.ü't\"x"]);
    world.dl_with_input(&["commit", "other.name"], &plain_add("a.parquet")).ok();
    let again = format!("sqlite://{}", world.path("again.db").display());
    world.dl(&["rebuild", &again, "--from", lake.to_str().unwrap()]).ok();
    assert_eq!(names(&again), ["other.name", "shop.orders", "shop.ü't\"x"]);
    let pattern = format!("sqlite://{}", world.path("pattern.db").display());
    let by = ["rebuild", &pattern, "--from", lake.to_str().unwrap(), "--names", "n.{name}"];
    world.dl(&by).ok();
    assert_eq!(names(&pattern), ["n.im", "n.o", "n.x"]);
    // A copy of a table's log: which of the two is it?
    let copy = world.path("lake/copy/orders");
    world.dl(&["publish", "shop.orders", "--to", copy.to_str().unwrap()]).ok();
    let third = format!("sqlite://{}", world.path("third.db").display());
    let run = world.dl(&["rebuild", &third, "--from", lake.to_str().unwrap()]).code(1);
    for part in ["shop.orders", "lake/o", "lake/copy/orders", "--names"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    assert_eq!(names(&third), ["other.name", "shop.ü't\"x"]);
}

#[test]
fn drift_is_counted_for_each_table_and_over_restarts() {
    let world = World::with_table();
    commit(&world, "a");
    world.create("s.other", "other", &[]).ok();
    let file = world.path("t/_delta_log/00000000000000000001.json");
    let metrics = world.path("not/there/yet/parity.prom");
    let reconcile = ["mirror", "reconcile", "--metrics-output", metrics.to_str().unwrap()];
    for _ in 0..3 {
        fs::remove_file(&file).unwrap();
        world.dl(&reconcile).ok();
    }
    let id = |table: &str| world.json(&["show", table])["id"].as_str().unwrap().to_owned();
    let text = fs::read_to_string(&metrics).unwrap();
    for (table, total) in [("s.t", 3), ("s.other", 0)] {
        let line = format!("mirror_parity_drift_total{{table_id=\"{}\"}} {total}", id(table));
        assert!(text.lines().any(|l| l == line), "{line} is not in: {text}");
    }
    // One table's pass keeps the others'.
    world.dl(&["mirror", "reconcile", "s.other", reconcile[2], reconcile[3]]).ok();
    assert_eq!(fs::read_to_string(&metrics).unwrap(), text);
}

#[test]
fn the_first_attempt_is_no_reconciliation() {
    let world = World::with_table();
    commit(&world, "a");
    let metrics = world.dl(&["diff", "--metrics-format", "prometheus"]).ok().stdout;
    let attempts: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("dl_mirror_reconciliation_attempts_total{"))
        .collect();
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].ends_with(" 0"), "{attempts:?}");
}

#[test]
fn files_that_differ_are_tolerated_up_to_a_number_and_shown_up_to_another() {
    let world = World::with_table();
    for name in ["a", "b"] {
        commit(&world, name);
    }
    fs::create_dir_all(world.path("copy/_delta_log")).unwrap();
    for version in 0..2 {
        let name = format!("_delta_log/{version:020}.json");
        fs::copy(world.path("t").join(&name), world.path("copy").join(&name)).unwrap();
    }
    let forged = add("day=1/forged.parquet", "1");
    world.file("copy/_delta_log/00000000000000000002.json", &forged);
    let diff = ["diff", "--table", "s.t", "--log-dir", "copy/_delta_log"];
    let run = |more: &[&str]| world.dl(&[&diff[..], more].concat());
    run(&[]).code(2).says("DRIFT");
    run(&["--max-drift-files", "1"]).code(2).says("DRIFT");
    run(&["--max-drift-files", "2"]).ok().says("parity").says("2 files differ").says("may differ");
    let shown = run(&["--show-files", "1"]).code(2).says("and 1 more (--show-files)");
    assert!(!shown.stdout.contains("forged") || !shown.stdout.contains("day=1/b"));
    let none = run(&["--show-files", "0", "--format", "json"]).code(2).json();
    assert_eq!(none["files"]["examples"].as_array().unwrap().len(), 0);
    assert_eq!(none["files"]["only_in_log"], 1);
    // What is no file is not tolerated.
    world.file(
        "copy/_delta_log/00000000000000000002.json",
        r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":5}}"#,
    );
    run(&["--max-drift-files", "99"]).code(2);
}

#[test]
fn folders_of_reports_are_made_before_the_work() {
    let world = World::with_table();
    let report = world.path("a/b/report.json");
    let metrics = world.path("c/d/metrics.prom");
    let places =
        ["--json-output", report.to_str().unwrap(), "--metrics-output", metrics.to_str().unwrap()];
    world.dl(&[&["diff", "--table", "s.t"], &places[..]].concat()).ok();
    let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["verdict"], "parity");
    assert!(fs::read_to_string(metrics).unwrap().contains("dl_version_delta"));
    world.file("file", "");
    let below = world.path("file/report.json");
    world
        .dl(&["diff", "--table", "s.none", "--json-output", below.to_str().unwrap()])
        .fails(&["cannot make the folder of", "file/report.json"]);
}

#[test]
fn a_catalog_in_a_file_has_many_spellings() {
    let world = World::with_table();
    let absolute = world.path("catalog.db");
    let absolute = absolute.to_str().unwrap();
    fs::create_dir(world.path("sub")).unwrap();
    for url in [
        "sqlite://catalog.db".to_owned(),
        "sqlite:///./catalog.db".to_owned(),
        "sqlite:///sub/../catalog.db".replace("///sub", "///./sub"),
        "sqlite+aiosqlite:///./catalog.db".to_owned(),
        "sqlite+pysqlite://catalog.db".to_owned(),
        format!("sqlite://{absolute}"),
        format!("sqlite:///{absolute}"),
        format!("sqlite+aiosqlite://{absolute}"),
        format!("SQLite+AioSQLite:///{absolute}"),
    ] {
        let mut command = world.command(&["list", "--catalog", &url, "--format", "json"]);
        let run = Run::from(command.env_remove("DELTA_DB_CONNECTION").output().unwrap()).ok();
        assert_eq!(run.json()[0]["table"], "s.t", "{url}");
        let table = format!("delta+sql://{url}/s.t");
        let mut command = world.command(&["show", &table, "--format", "json"]);
        let run = Run::from(command.env_remove("DELTA_DB_CONNECTION").output().unwrap()).ok();
        assert_eq!(run.json()["table"], "s.t", "{table}");
    }
    let mut below = world.command(&["list", "--catalog", "sqlite:///../catalog.db"]);
    Run::from(below.current_dir(world.path("sub")).output().unwrap()).ok().says("s.t");
    let odd = world.path("odd ?#%.db");
    fs::copy(world.path("catalog.db"), &odd).unwrap();
    for database in
        [absolute, "catalog.db", "./sub/../catalog.db", "odd ?#%.db", "sqlite://catalog.db"]
    {
        let mut command = world.command(&["diff", "--database", database, "--table", "s.t"]);
        command.env_remove("DELTA_DB_CONNECTION");
        Run::from(command.output().unwrap()).ok().says("s.t: parity");
    }
    world
        .dl(&["diff", "--database", "a.db", "--catalog", "sqlite://b.db"])
        .fails(&["--database and --catalog"]);
}

#[test]
fn verbose_says_what_happens_and_no_secret() {
    let world = World::with_table();
    let one = world.parquet("t/day=a/1.parquet", &[1]);
    let log = |verbose: &str, arguments: &[&str]| {
        world.dl(&[arguments, &[verbose][..]].concat()).ok().stderr
    };
    let append = log("-v", &["append", "s.t", &one]);
    for part in
        ["begins", "catalog opened", "catalog.db", "committed", "s.t", "versions=\"1\"", "ends"]
    {
        assert!(append.contains(part), "'{part}' is not in: {append}");
    }
    for (arguments, more) in [
        (&["list"][..], ""),
        (&["show", "s.t"], "table opened"),
        (&["files", "s.t"], "version=1"),
        (&["history", "s.t"], "table found"),
        (&["mirror", "status"], ""),
        (&["mirror", "reconcile"], "table"),
        (&["diff", "--table", "s.t"], "table opened"),
        (&["drop", "s.t"], "table found"),
        (&["undrop", "s.t"], ""),
        (&["vacuum", "s.t"], "table opened"),
    ] {
        assert_eq!(log("-q", arguments), "", "{arguments:?}");
        if arguments[0] == "drop" {
            world.dl(&["undrop", "s.t"]).ok();
        }
        if arguments[0] == "undrop" {
            world.dl(&["drop", "s.t"]).ok();
        }
        let text = log("-v", arguments);
        let calls = text.split_once("database_calls=").map_or("", |(_, rest)| rest);
        assert!(!calls.is_empty() && !calls.starts_with('0'), "{arguments:?}: {text}");
        assert!(text.contains("catalog opened") && text.contains(more), "{arguments:?}: {text}");
        assert!(text.contains("store_calls=") && text.contains("ms="), "{text}");
        let more = if arguments[0] == "drop" { "-v" } else { "-vv" };
        if arguments[0] == "drop" || arguments[0] == "undrop" {
            continue;
        }
        let text = log(more, arguments);
        assert!(text.contains("call=") && text.lines().count() > 3, "{arguments:?}: {text}");
    }
    let mut failing = world.command(&["list", "-v"]);
    failing.env("DELTA_DB_CONNECTION", "postgresql://u:geheim@127.0.0.1:1/d?connect_timeout=1s");
    let run = Run::from(failing.output().unwrap());
    assert!(run.code != 0 && !run.stderr.contains("geheim"), "{}", run.stderr);
}
