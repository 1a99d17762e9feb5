//! `config check|show|example|schema`, what the configuration does, and the log.

use std::process::Command;

use serde_json::Value;

use crate::world::{Run, World};

/// `dl` without the variable that names the catalog, with these.
fn dl(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command: Command = world.command(arguments);
    command.env_remove("DELTA_DB_CONNECTION");
    for (name, value) in variables {
        command.env(name, value);
    }
    command.output().unwrap().into()
}

#[test]
fn the_example_is_checked_shown_and_used() {
    let world = World::empty();
    for (format, file) in [("toml", "dl.toml"), ("yaml", "dl.yaml")] {
        let example = dl(&world, &["config", "example", "--format", format], &[]).ok().stdout;
        world.file(file, &example);
        dl(&world, &["config", "check", "--offline"], &[]).ok().says("is right");
        dl(&world, &["config", "check"], &[]).code(1).says("there is no catalog");
        dl(&world, &["init"], &[]).ok();
        dl(&world, &["config", "check"], &[]).ok().says("ok: right to read");
        let shown = dl(&world, &["config", "show", "--set", "--format", "json"], &[]).ok().json();
        assert_eq!(shown["values"].as_array().unwrap().len(), 1, "{shown}");
        assert_eq!(shown["values"][0]["key"], "catalog");
        std::fs::remove_file(world.path(file)).unwrap();
        std::fs::remove_file(world.path("catalog.db")).unwrap();
    }
    let schema = dl(&world, &["config", "schema"], &[]).ok().json();
    assert!(schema["properties"]["profiles"].is_object(), "{schema}");
    dl(&world, &["list", "--format", "yaml"], &[]).fails(&["--format yaml", "dl config example"]);
}

#[test]
fn a_check_tells_all_that_is_wrong_and_tries_what_is_right() {
    let world = World::empty();
    world.file(
        "bad.yaml",
        "catalog: postgresql://u:geheim@127.0.0.1:1/d\nconnection:\n  poolsize: 3\nserver:\n  port: 80\n",
    );
    let run = dl(&world, &["config", "check", "bad.yaml"], &[]).code(1);
    for line in [
        "wrong: config file bad.yaml:3: connection.poolsize: there is no such key; did you mean connection.pool_size?",
        "wrong: config file bad.yaml:5: server.port: is not there: the service has its options on the command line",
    ] {
        assert!(run.stdout.contains(line), "{}", run.stdout);
    }
    let json = dl(&world, &["config", "check", "bad.yaml", "--format", "json"], &[]).code(1).json();
    assert_eq!(json["problems"][0]["line"], 3, "{json}");
    // Nothing listens on port 1.
    world.file(
        "closed.toml",
        "catalog = 'postgresql://u:geheim@127.0.0.1:1/d'\nretry.deadline = 0\nconnection.pool_timeout = '200ms'",
    );
    let run = dl(&world, &["config", "check", "closed.toml"], &[]).code(1);
    assert!(run.stdout.contains("wrong: database and schema: "), "{}", run.stdout);
    for run in [run, dl(&world, &["config", "show", "closed.toml"], &[]).ok()] {
        assert!(!run.stdout.contains("geheim") && !run.stderr.contains("geheim"), "{run:?}");
    }
    dl(&world, &["config", "check"], &[]).code(1).says("nothing names one");
    dl(&world, &["config", "check", "none.toml"], &[]).code(1).says("cannot be read");
}

#[test]
fn a_check_reaches_stores_and_writes_when_told_to() {
    let world = World::with_table();
    let catalog = world.catalog();
    let variables = [("DATABASE_URL", catalog.as_str())];
    let before = std::fs::read_dir(world.path("t/_delta_log")).unwrap().count();
    dl(&world, &["config", "check"], &variables).ok().says("ok: store of 's.t'");
    let run = dl(&world, &["config", "check", "--write-probe"], &variables).ok();
    let run = run.says("conditional put works").says("an update of no row");
    assert_eq!(std::fs::read_dir(world.path("t/_delta_log")).unwrap().count(), before, "{run:?}");
    std::fs::rename(world.path("t/_delta_log"), world.path("elsewhere")).unwrap();
    std::fs::write(world.path("t/_delta_log"), "a file").unwrap();
    let check = ["config", "check", "--write-probe"];
    dl(&world, &check, &variables).code(1).says("wrong: store of 's.t'");
}

#[test]
fn values_come_from_where_show_says() {
    let world = World::empty();
    world.file("dl.toml", "catalog = 'sqlite://c.db'\n[profiles.dev.retry]\ncount = 2\n");
    let variables =
        [("ENVIRONMENT", "dev"), ("DELTA_CACHE_SIZE", "1MiB"), ("DELTA_DB_PASSWORD", "geheim")];
    let run = dl(&world, &["config", "show"], &variables).ok();
    for words in [
        ["retry.count", "2", "config file dl.toml:3 (profile dev)"],
        ["cache.size", "1MiB", "environment variable DELTA_CACHE_SIZE"],
        ["database.password", "***", "environment variable DELTA_DB_PASSWORD"],
        ["mirror.concurrency", "4", "default"],
    ] {
        let line = run.stdout.lines().find(|line| line.starts_with(words[0])).unwrap();
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
    assert!(!run.stdout.contains("geheim"));
    let flag = ["config", "show", "--catalog", "mysql://u:geheim@h/d", "--format", "json"];
    let shown = dl(&world, &flag, &variables).ok().json();
    assert_eq!(shown["values"][0]["value"], "mysql://u:***@h/d");
    assert_eq!(shown["values"][0]["from"], "option --catalog");
    dl(&world, &["list"], &[("DELTA_PROFILE", "prod")]).fails(&["prod", "dev"]);
    let other = [("ENVIRONMENT", "prod")];
    let run = dl(&world, &["config", "check", "--offline"], &other).ok();
    assert_eq!(run.stderr.matches("there is no profile 'prod'").count(), 1, "{}", run.stderr);
    let run = dl(&world, &["init"], &other).ok();
    assert_eq!(run.stderr.matches("there is no profile 'prod'").count(), 1, "{}", run.stderr);
    let slip = [("DELTA_RETRY_COUNTS", "3")];
    dl(&world, &["config", "check", "--offline"], &slip)
        .code(1)
        .says("did you mean DELTA_RETRY_COUNT?");
    dl(&world, &["list"], &[("DB_POOL_SIZE", "x")]).fails(&["DB_POOL_SIZE", "whole number"]);
}

fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn a_log_is_text_or_json_with_the_id_of_the_invocation() {
    let world = World::new();
    let catalog = world.catalog();
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{id}-00f067aa0ba902b7-01");
    let variables = [
        ("DATABASE_URL", catalog.as_str()),
        ("LOG_LEVEL", "INFO"),
        ("LOG_FORMAT", "json"),
        ("TRACEPARENT", parent.as_str()),
    ];
    let list = ["list", "--format", "json"];
    let run = dl(&world, &list, &variables).ok();
    let lines = objects(&run.stderr);
    assert!(lines.len() >= 3, "{}", run.stderr);
    for line in &lines {
        assert_eq!(line["trace_id"], id, "{line}");
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    assert_eq!(lines[0]["message"], "begins");
    assert_eq!(lines.last().unwrap()["exit_code"], 0);
    // A flag goes before the environment, and -q before both.
    let run = dl(&world, &["list", "-vv", "--format", "json"], &variables).ok();
    assert!(objects(&run.stderr).iter().any(|line| line["level"] == "DEBUG"), "{}", run.stderr);
    assert_eq!(dl(&world, &["list", "-q"], &variables).ok().stderr, "");
    let run = dl(&world, &list, &[("DATABASE_URL", &catalog), ("DELTA_LOG_LEVEL", "info")]).ok();
    assert!(run.stderr.contains("INFO begins"), "{}", run.stderr);
    assert_eq!(dl(&world, &list, &[("DATABASE_URL", &catalog)]).ok().stderr, "");
}

#[test]
fn a_log_file_is_put_aside_and_has_no_secret_in_it() {
    let world = World::new();
    world.file(
        "dl.toml",
        "catalog = 'sqlite://catalog.db'\n[logging]\nlevel = 'trace'\nfile = 'logs/dl.log'\nmax_size = '4KiB'\nmax_files = 2\n",
    );
    for _ in 0..40 {
        let run = dl(&world, &["list", "-q"], &[]).ok();
        assert_eq!(run.stderr, "");
    }
    let mut names: Vec<String> = std::fs::read_dir(world.path("logs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["dl.log", "dl.log.1", "dl.log.2", "dl.log.lock"]);
    for name in &names[..3] {
        assert!(std::fs::metadata(world.path("logs").join(name)).unwrap().len() <= 4 << 10);
    }
    // Nothing listens on port 1. The password comes from a URL, a key, the environment.
    for (text, variable) in [
        ("catalog = 'postgresql://u:geheim@127.0.0.1:1/d'", None),
        ("catalog = 'mysql://u:geheim@127.0.0.1:1/d'", None),
        ("catalog = 'mssql://u:geheim@127.0.0.1:1/d'", None),
        (
            "database = {type = 'mysql', host = '127.0.0.1', port = 1, name = 'd', user = 'u', password = 'geheim'}",
            None,
        ),
        ("catalog = 'postgresql://u@127.0.0.1:1/d'", Some(("DELTA_DB_PASSWORD", "geheim"))),
        ("catalog = 'postgresql://u:${PW}@127.0.0.1:1/d'", Some(("PW", "geheim"))),
    ] {
        for format in ["text", "json"] {
            let more = "retry.deadline = 0\nconnection.pool_timeout = '200ms'";
            let log =
                format!("logging = {{level = 'trace', file = 'one.log', format = '{format}'}}");
            world.file("dl.toml", &format!("{text}\n{more}\n{log}\n"));
            let variables: Vec<_> = variable.into_iter().collect();
            let run = dl(&world, &["list"], &variables).code(1);
            let log = world.read("one.log");
            assert!(log.contains("ends"), "{log}");
            for text in [&log, &run.stdout, &run.stderr] {
                assert!(!text.contains("geheim"), "{text}");
            }
            std::fs::remove_file(world.path("one.log")).unwrap();
        }
    }
    world.file("dl.toml", "logging.file = 'dl.toml/x.log'\n");
    dl(&world, &["list"], &[]).fails(&["log file", "dl.toml/x.log"]);
}
