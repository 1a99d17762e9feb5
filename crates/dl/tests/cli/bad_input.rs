//! Bad input gets a clear error, and nothing is lost or half done.

use std::fs;

use crate::world::{FIRST_COMMIT, World, add, foreign_log, plain_add, remove};

/// Nothing was written to `s.t` of [`World::with_table`].
#[track_caller]
fn untouched(world: &World) {
    assert_eq!(world.json(&["show", "s.t"])["version"], 0);
    assert_eq!(world.log_versions("t"), [0]);
}

#[test]
fn not_a_delta_table() {
    let world = World::new();
    fs::create_dir(world.path("empty")).unwrap();
    for place in ["empty", "missing"] {
        let path = world.path(place).to_str().unwrap().to_owned();
        world.dl(&["import", &path, "s.t"]).fails(&[place, "Delta"]);
    }
    assert_eq!(world.json(&["list"]), serde_json::json!([]));
    assert_eq!(world.json(&["list", "--importing"]), serde_json::json!([]));
}

#[test]
fn logs_that_cannot_be() {
    let world = World::new();
    let add_a = plain_add("a.parquet");
    let gap = foreign_log(&world, "gap", &[FIRST_COMMIT, &add_a, &add_a]);
    fs::remove_file(world.path("gap/_delta_log/00000000000000000001.json")).unwrap();
    let protocol = FIRST_COMMIT.lines().next().unwrap();
    let metadata = FIRST_COMMIT.lines().nth(1).unwrap();
    let schema = FIRST_COMMIT.replace("\\\"type\\\":\\\"struct\\\"", "\\\"type\\\":");
    for (location, words) in [
        (gap, vec!["1"]),
        (
            foreign_log(&world, "text", &[FIRST_COMMIT, "{}\nno JSON\n"]),
            vec!["00000000000000000001.json", "line 2"],
        ),
        (foreign_log(&world, "no-protocol", &[metadata]), vec!["protocol"]),
        (foreign_log(&world, "no-metadata", &[protocol]), vec!["metadata"]),
        (foreign_log(&world, "schema", &[&schema]), vec!["schema"]),
    ] {
        let run = world.dl(&["import", &location, "s.t"]).code(1);
        for word in words {
            assert!(
                run.stderr.to_lowercase().contains(&word.to_lowercase()),
                "{word}: {}",
                run.stderr
            );
        }
    }
    assert_eq!(world.json(&["list"]), serde_json::json!([]));
    assert_eq!(world.json(&["list", "--importing"]), serde_json::json!([]));
}

#[test]
fn commits_that_cannot_be() {
    let world = World::with_table();
    let good = add("day=1/a.parquet", "1");
    let schema = r#"{"metaData":{"id":"a","format":{"provider":"parquet","options":{}},"schemaString":"{","partitionColumns":[],"configuration":{}}}"#;
    for (input, words) in [
        ("no JSON".to_owned(), vec!["line 1"]),
        (format!("{good}\n\n{{\"add\":"), vec!["line 3"]),
        (format!("{good}\n{good}"), vec!["line 2", "day=1/a.parquet", "line 1"]),
        (format!("{good}\n{}", remove("day=1/a.parquet")), vec!["line 2", "day=1/a.parquet"]),
        (add("../outside.parquet", "1"), vec!["line 1", "../outside.parquet", "escapes"]),
        (add("a/%2e%2e/%2e%2e/x.parquet", "1"), vec!["escapes"]),
        (add("/etc/passwd", "1"), vec!["absolute"]),
        (add("file:///etc/passwd", "1"), vec!["absolute"]),
        (plain_add("a.parquet"), vec!["day"]),
        (good.replace("\"day\"", "\"month\""), vec!["unknown partition column 'month'", "day"]),
        (schema.to_owned(), vec!["line 1", "schema"]),
        (remove("day=1/none.parquet"), vec!["day=1/none.parquet", "not in table"]),
        (String::new(), vec![]),
    ] {
        if input.is_empty() {
            continue;
        }
        world.dl_with_input(&["commit", "s.t"], &input).fails(&words);
    }
    let file = world.file("bad name.json", "no JSON");
    world.dl(&["commit", "s.t", &file]).fails(&["bad name.json, line 1"]);
    world.dl(&["commit", "s.t", "missing.json"]).fails(&["missing.json"]);
    world.dl_with_input(&["commit", "s.t", "--token", "a b"], &good).fails(&["token"]);
    world.dl_with_input(&["commit", "s.none"], &good).fails(&["s.none"]);
    world.dl_with_input(&["commit", "a..b"], &good).fails(&["a."]);
    untouched(&world);
}

#[test]
fn tables_that_cannot_be_created() {
    let world = World::with_table();
    let create = |arguments: &[&str]| {
        let mut all = vec!["create"];
        all.extend(arguments);
        world.dl(&all)
    };
    world.create("s.t", "other", &[]).fails(&["s.t", "exists already"]);
    world.create("s.u", "t", &[]).fails(&["s.t"]);
    world.create("s.u", "u", &["--partition-by", "nix"]).fails(&["nix", "id"]);
    world.create("s.u", "u", &["--property", "x"]).fails(&["--property"]);
    world
        .create("s.u", "u", &["--property", "delta.columnMapping.mode=name"])
        .fails(&["delta.columnMapping.mode"]);
    create(&["s.u", "--location", "u", "--columns", "id strange"]).fails(&["position 4"]);
    create(&["s.u", "--location", "u", "--columns", "id int, ID int"]).fails(&["id"]);
    let schema = world.file("schema.json", "{\"type\":\"struct\"}");
    create(&["s.u", "--location", "u", "--schema-file", &schema]).fails(&["schema.json"]);
    create(&["s.u", "--location", "u"]).code(2);
    create(&["s.u", "--location", "nix://x/y", "--columns", "id int"]).fails(&["nix"]);
    let foreign = foreign_log(&world, "foreign", &[FIRST_COMMIT]);
    create(&["s.u", "--location", &foreign, "--columns", "id int"]).fails(&["dl import"]);
    create(&["7f2c1f64-5717-4562-b3fc-2c963f66afa6", "--location", "u", "--columns", "id int"])
        .fails(&["table id"]);
    assert_eq!(world.json(&["list"]).as_array().unwrap().len(), 1);
    assert!(!world.path("u").exists());
}

#[test]
fn names_that_are_taken_stop_an_import() {
    let world = World::with_table();
    let foreign = foreign_log(&world, "foreign", &[FIRST_COMMIT]);
    world.dl(&["import", &foreign, "s.t"]).fails(&["s.t", "exists already"]);
    untouched(&world);
}

#[test]
fn features_that_no_one_knows_are_kept_but_not_written() {
    let world = World::new();
    let first = FIRST_COMMIT.replace(
        r#""minReaderVersion":1,"minWriterVersion":2"#,
        r#""minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["timeMachine"]"#,
    );
    let location = foreign_log(&world, "odd", &[&first]);
    world.dl(&["import", &location, "s.odd"]).ok();
    assert!(world.dl(&["show", "s.odd"]).ok().stdout.contains("timeMachine"));
    world.dl_with_input(&["commit", "s.odd"], &plain_add("a.parquet")).fails(&["timeMachine"]);
    let file = world.parquet("odd/a.parquet", &[1]);
    world.dl(&["append", "s.odd", &file]).fails(&["timeMachine"]);
    world.dl(&["publish", "s.odd", "--to", "copy"]).ok();
    assert_eq!(world.read("copy/_delta_log/00000000000000000000.json"), first);
}

#[test]
fn catalogs_that_cannot_be_used() {
    let world = World::with_table();
    let at = |file: &str| format!("sqlite://{}", world.path(file).display());
    world.file("text.db", &"no SQLite ".repeat(1_000));
    for command in ["list", "init"] {
        world.dl(&[command, "--catalog", &at("text.db")]).fails(&["text.db"]);
    }
    fs::create_dir(world.path("folder.db")).unwrap();
    world.dl(&["init", "--catalog", &at("folder.db")]).fails(&["folder.db"]);
    world.dl(&["init", "--catalog", &at("none/at/all.db")]).fails(&["none/at/all.db"]);

    let other = rusqlite::Connection::open(world.path("other.db")).unwrap();
    other.execute_batch("CREATE TABLE dl_tables (x); CREATE TABLE theirs (y);").unwrap();
    drop(other);
    world.dl(&["list", "--catalog", &at("other.db")]).fails(&["other.db"]);
    world.dl(&["init", "--catalog", &at("other.db")]).fails(&["other.db"]);
    let other = rusqlite::Connection::open(world.path("other.db")).unwrap();
    let tables: i64 =
        other.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 2, "another program's file is left as it was");
}

#[test]
fn a_locked_catalog_says_so_and_loses_nothing() {
    let world = World::with_table();
    let lock = rusqlite::Connection::open(world.path("catalog.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let catalog = format!("{}?busy_timeout_ms=20", world.catalog());
    let commit = ["commit", "s.t", "--catalog", &catalog];
    world.dl_with_input(&commit, &add("day=1/a.parquet", "1")).fails(&["locked"]);
    // Readers do not wait for a writer.
    world.dl(&["show", "s.t", "--catalog", &catalog]).ok();
    lock.execute_batch("ROLLBACK").unwrap();
    untouched(&world);
    world.dl_with_input(&commit, &add("day=1/a.parquet", "1")).ok();
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_the_next_run_goes_on() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::with_table();
    let lines: Vec<String> = (0..3_000).map(|n| add(&format!("day=1/{n}.parquet"), "1")).collect();
    let input = world.file("many.json", &lines.join("\n"));
    // A limit on the size of files looks like a full disk: writes fail half way.
    let script = world.file("limited.sh", "trap '' XFSZ\nulimit -f 64\nexec \"$@\"\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let limited = |arguments: &[&str]| {
        let dl = world.command(arguments);
        let mut command = std::process::Command::new("sh");
        command.arg(&script).arg(dl.get_program()).args(dl.get_args());
        command.current_dir(world.path(""));
        for (name, value) in dl.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        crate::world::Run::from(command.output().unwrap())
    };
    limited(&["commit", "s.t", &input]).fails(&[]);
    untouched(&world);
    // The commit fits, its publishing does not: the commit stands.
    world.dl(&["commit", "s.t", &input, "--no-publish"]).ok();
    let run = limited(&["mirror", "run"]).code(1);
    assert!(run.stderr.contains("s.t"), "{}", run.stderr);
    assert_eq!(world.log_versions("t"), [0]);
    world.dl(&["mirror", "retry", "s.t"]).ok();
    world.dl(&["mirror", "run"]).ok();
    assert_eq!(world.log_versions("t"), [0, 1]);
    world.dl(&["diff", "--table", "s.t"]).ok();
}

#[cfg(unix)]
#[test]
fn a_read_only_catalog_is_refused_or_read() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::with_table();
    let mode = |mode| {
        for name in ["catalog.db", ""] {
            fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    mode(0o555);
    let is_root = fs::write(world.path("probe"), "").is_ok();
    if is_root {
        mode(0o755);
        deltalakedb_test_servers::skip(&[], "this user may write everywhere");
        return;
    }
    let run = world.dl_with_input(&["commit", "s.t"], &add("day=1/a.parquet", "1"));
    mode(0o755);
    run.fails(&["catalog.db"]);
    untouched(&world);
}
