//! `copy-catalog`.

use serde_json::{Value, json};

use crate::world::{FIRST_COMMIT, World, add, foreign_log, plain_add, remove};

fn url(world: &World, name: &str) -> String {
    format!("sqlite://{}", world.path(name).display())
}

/// A command on another catalog.
fn on(world: &World, catalog: &str, arguments: &[&str]) -> crate::world::Run {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--catalog", catalog]);
    world.dl(&arguments)
}

fn json_on(world: &World, catalog: &str, arguments: &[&str]) -> Value {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--format", "json"]);
    on(world, catalog, &arguments).ok().json()
}

/// A catalog with a bit of everything.
fn full() -> World {
    let world = World::with_table();
    world.create("s.old", "old", &[]).ok();
    world.dl(&["drop", "s.old"]).ok();
    world.create("s.old", "old2", &[]).ok();
    world.dl(&["drop", "s.old"]).ok();
    world.create("s.old", "old3", &["--no-publish"]).ok();
    let one = world.file("one.json", &add("day=1/a.parquet", "1"));
    world.dl(&["commit", "s.t", &one, "--token", "first"]).ok();
    let two = world.file("two.json", &remove("day=1/a.parquet"));
    world.dl(&["commit", "s.t", &two, "--no-publish"]).ok();
    let log = foreign_log(&world, "foreign", &[FIRST_COMMIT, &plain_add("x.parquet")]);
    world.dl(&["import", &log, "s.foreign"]).ok();
    world
}

/// What commands say of a catalog.
fn shown(world: &World, catalog: &str) -> Vec<Value> {
    let mut all = vec![
        json_on(world, catalog, &["list"]),
        json_on(world, catalog, &["list", "--dropped"]),
        json_on(world, catalog, &["list", "--importing"]),
    ];
    for table in ["s.t", "s.old", "s.foreign"] {
        for command in ["show", "files", "history"] {
            all.push(json_on(world, catalog, &[command, table]));
        }
    }
    all
}

#[test]
fn a_catalog_is_copied_whole() {
    let world = full();
    let (from, to) = (world.catalog(), url(&world, "new.db"));
    on(&world, &to, &["list"]).fails(&["there is no catalog"]);
    world.dl(&["copy-catalog", &from, &to]).fails(&["dl init"]);
    let copied = world.dl(&["copy-catalog", &from, &to, "--init"]).ok();
    let copied = copied.says("Copied 5 tables").says("They agree").says("dropped");
    assert!(copied.stderr.contains("alone"), "{}", copied.stderr);
    assert_eq!(shown(&world, &from), shown(&world, &to));

    // A token that was committed before the copy is known.
    let other = world.file("other.json", &add("day=2/other.parquet", "2"));
    let again = json_on(&world, &to, &["commit", "s.t", &other, "--token", "first"]);
    assert_eq!((&again["replayed"], &again["tables"][0]["version"]), (&json!(true), &json!(1)));
    // What waited to be published still does, and the log is the same.
    on(&world, &to, &["mirror", "run"]).ok();
    assert_eq!(world.log_versions("t"), [0, 1, 2]);
    on(&world, &to, &["diff", "--table", "s.t"]).ok();
    on(&world, &to, &["commit", "s.t", &other]).ok();
    on(&world, &to, &["drop", "s.old"]).ok();
    on(&world, &to, &["undrop", "s.old"]).ok();

    // The target is in use now: nothing is written over.
    let run = world.dl(&["copy-catalog", &from, &to]);
    let run = run.fails(&["'s.t'", "target is in use", "version 3"]);
    assert!(
        run.stdout.contains("DIFFERS") && run.stdout.contains("1 of 5 tables"),
        "{}",
        run.stdout
    );
    assert_eq!(json_on(&world, &to, &["show", "s.t"])["version"], 3);
    assert_eq!(json_on(&world, &from, &["show", "s.t"])["version"], 2);
}

#[test]
fn copying_again_compares() {
    let world = full();
    let (from, to) = (world.catalog(), url(&world, "new.db"));
    let first = world.json(&["copy-catalog", &from, &to, "--init", "--validate", "all"]);
    assert_eq!(first["finished"], true);
    assert_eq!(first["agrees"], true);
    assert_eq!(first["commits"], 8);
    assert_eq!(first["skipped"], json!([]));
    let of = |report: &Value, table: &str| -> Value {
        let tables = report["tables"].as_array().unwrap();
        tables.iter().find(|t| t["table"] == table).unwrap().clone()
    };
    let table = of(&first, "s.t");
    assert_eq!(table["progress"], "copied");
    assert_eq!((&table["commits"], &table["compared_versions"]), (&json!(3), &json!(3)));
    assert_eq!(table["differences"], json!([]));
    let again = world.json(&["copy-catalog", &from, &to]);
    assert_eq!((&again["commits"], &again["finished"]), (&json!(0), &json!(true)));
    assert_eq!(of(&again, "s.t")["progress"], "present");
    world.dl(&["copy-catalog", &from, &to]).ok().says("already: 5 tables. They agree");
    world.dl(&["copy-catalog", &from, &to, "--validate", "none"]).ok().says("Not compared");

    // A row that someone has changed is found.
    let file = rusqlite::Connection::open(world.path("new.db")).unwrap();
    file.execute("UPDATE dl_commits SET num_added = 7 WHERE token = 'first'", []).unwrap();
    file.execute("UPDATE dl_files SET size = 11 WHERE path = 'x.parquet'", []).unwrap();
    drop(file);
    world.dl(&["copy-catalog", &from, &to]).fails(&[
        "'s.t'",
        "history, version 1, files added: 1 at the source, 7 at the target",
        "'s.foreign'",
        "version 1, files: not the same from 'x.parquet' on",
    ]);
    let report = world.dl(&["copy-catalog", &from, &to, "--format", "json"]).code(1).json();
    assert_eq!((&report["agrees"], &report["finished"]), (&json!(false), &json!(false)));
}

#[test]
fn a_copy_in_two_parts() {
    let world = full();
    let (from, to) = (world.catalog(), url(&world, "new.db"));
    let run = world.dl(&["copy-catalog", &from, &to, "--init", "--no-finish"]).ok();
    run.says("not finished").says("--no-finish");
    assert_eq!(json_on(&world, &to, &["list"]), json!([]), "nothing can be found yet");
    on(&world, &to, &["show", "s.t"]).fails(&["import"]);
    let more = world.file("more.json", &add("day=3/c.parquet", "3"));
    world.dl(&["commit", "s.t", &more]).ok();
    world.create("s.new", "new", &[]).ok();
    let report = world.json(&["copy-catalog", &from, &to]);
    assert_eq!((&report["commits"], &report["finished"]), (&json!(2), &json!(true)));
    assert_eq!(shown(&world, &from), shown(&world, &to));
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let world = full();
    let (from, to) = (world.catalog(), url(&world, "new.db"));
    world.dl(&["copy-catalog", &from, &from]).fails(&["same catalog"]);
    world.dl(&["copy-catalog", "nonsense", &to]).fails(&["FROM", "URL"]);
    world.dl(&["copy-catalog", &from, "geheim@host"]).fails(&["TO", "URL"]);
    world.dl(&["copy-catalog", &from, "env:NO_SUCH_VARIABLE"]).fails(&["NO_SUCH_VARIABLE"]);
    assert!(!world.path("new.db").exists());
    let mut command = world.command(&["copy-catalog", &from, "env:NEW_CATALOG", "--init"]);
    crate::world::Run::from(command.env("NEW_CATALOG", "u:geheim@h").output().unwrap())
        .fails(&["TO", "NEW_CATALOG"]);
    let mut command = world.command(&["copy-catalog", &from, "env:NEW_CATALOG", "--init"]);
    crate::world::Run::from(command.env("NEW_CATALOG", &to).output().unwrap()).ok();

    let theirs = url(&world, "theirs.db");
    on(&world, &theirs, &["init"]).ok();
    let place = world.path("theirs").display().to_string();
    on(&world, &theirs, &["create", "x.y", "--location", &place, "--columns", "id long"]).ok();
    world.dl(&["copy-catalog", &from, &theirs]).fails(&["x.y", "empty"]);
    let shared = format!("{theirs}?table_prefix=copy_");
    world.dl(&["copy-catalog", &from, &shared, "--init"]).ok();
    assert_eq!(shown(&world, &from), shown(&world, &shared));
}

/// A source whose copy takes some time.
fn large(commits: usize) -> World {
    let world = World::new();
    let adds: Vec<String> = (0..commits)
        .map(|n| (0..20).map(|f| plain_add(&format!("{n}-{f}.parquet")) + "\n").collect())
        .collect();
    let mut log = vec![FIRST_COMMIT];
    log.extend(adds.iter().map(String::as_str));
    let location = foreign_log(&world, "t", &log);
    world.dl(&["import", &location, "s.t", "--skip-validation"]).ok();
    for name in ["a", "b"] {
        world.create(&format!("s.{name}"), name, &[]).ok();
    }
    world
}

#[cfg(unix)]
#[test]
fn a_killed_copy_goes_on() {
    use std::process::Stdio;
    use std::time::Instant;

    use crate::moments::{Caught, Moments, kill_after};

    let world = large(500);
    let from = world.catalog();
    let started = Instant::now();
    world.dl(&["copy-catalog", &from, &url(&world, "whole.db"), "--init"]).ok();
    let mut moments = Moments::new(started.elapsed(), 3, 100);
    let mut step = 0;
    while let Some(moment) = moments.next() {
        step += 1;
        let to = url(&world, &format!("to{step}.db"));
        // Killed twice before it may end.
        for moment in [moment / 2, moment] {
            let mut command = world.command(&["copy-catalog", &from, &to, "--init"]);
            let started = Instant::now();
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            kill_after(&mut child, started, moment);
        }
        let report = world.json(&["copy-catalog", &from, &to, "--init"]);
        assert_eq!((&report["finished"], &report["agrees"]), (&json!(true), &json!(true)));
        let tables = report["tables"].as_array().unwrap();
        let caught = if tables.iter().any(|table| table["resumed"] == true) {
            Caught::Middle
        } else if report["commits"] == 0 {
            Caught::Late
        } else {
            Caught::Early
        };
        moments.was(moment, caught);
        assert_eq!(json_on(&world, &to, &["list"]), json_on(&world, &from, &["list"]));
    }
    let last = url(&world, &format!("to{step}.db"));
    let all = world.json(&["copy-catalog", &from, &last, "--validate", "all"]);
    assert_eq!((&all["commits"], &all["agrees"]), (&json!(0), &json!(true)));
}

#[cfg(unix)]
#[test]
fn ctrl_c_says_how_to_go_on() {
    use std::process::Command;
    use std::time::{Duration, Instant};

    let world = large(800);
    let (from, to) = (world.catalog(), url(&world, "new.db"));
    let child = world.command(&["copy-catalog", &from, &to, "--init"]).spawn().unwrap();
    // Once the target is there, somebody listens to the signal.
    let started = Instant::now();
    while !world.path("new.db").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::yield_now();
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let run = crate::world::Run::from(child.wait_with_output().unwrap());
    assert_eq!(run.code, 130, "{}", run.stderr);
    assert!(run.stderr.contains("the same command again goes on from there"), "{}", run.stderr);
    world.dl(&["copy-catalog", &from, &to, "--init"]).ok().says("They agree");
}

/// A place for a catalog on a server that nothing else uses, or why there is none.
fn place(database: &str) -> Result<String, String> {
    type Server = fn() -> Result<String, String>;
    let (built, server): (bool, Server) = match database {
        "postgres" => (cfg!(feature = "postgres"), deltalakedb_test_servers::shared_postgres),
        "mysql" => (cfg!(feature = "mysql"), deltalakedb_test_servers::shared_mysql),
        _ => (cfg!(feature = "mssql"), || {
            let given = deltalakedb_test_servers::mssql_urls().into_iter().next();
            given.ok_or_else(|| "set DL_TEST_MSSQL_URL to a SQL Server".to_owned())
        }),
    };
    if !built {
        return Err(format!("dl was built without the cargo feature of {database}"));
    }
    let url = server()?;
    let sign = if url.contains('?') { '&' } else { '?' };
    let id = uuid::Uuid::new_v4().simple().to_string();
    Ok(format!("{url}{sign}table_prefix=c{}_", &id[..8]))
}

/// Copies a catalog from SQLite through servers and back, if they are there.
fn through(databases: &[&str]) {
    let mut places = Vec::new();
    for database in databases {
        match place(database) {
            Ok(place) => places.push(place),
            Err(why) => {
                deltalakedb_test_servers::skip(&[database], why);
                return;
            }
        }
    }
    let world = full();
    let adds: String = (0..300).map(|n| add(&format!("day=4/{n}.parquet"), "4") + "\n").collect();
    world.dl_with_input(&["commit", "s.t", "--no-publish"], &adds).ok();
    let source = world.catalog();
    places.push(url(&world, "back.db"));
    let mut from = source.clone();
    for to in places {
        let arguments = [
            "copy-catalog",
            "env:FROM",
            "env:TO",
            "--init",
            "--validate",
            "all",
            "--format",
            "json",
        ];
        let copy = || -> Value {
            let mut command = world.command(&arguments);
            command.env("FROM", &from).env("TO", &to);
            crate::world::Run::from(command.output().unwrap()).ok().json()
        };
        let copied = copy();
        assert_eq!((&copied["finished"], &copied["commits"]), (&json!(true), &json!(9)));
        assert_eq!(copy()["commits"], 0);
        assert_eq!(shown(&world, &to), shown(&world, &source));
        from = to;
    }
}

#[test]
fn from_sqlite_to_postgres_and_back() {
    through(&["postgres"]);
}

#[test]
fn from_sqlite_to_mysql_and_back() {
    through(&["mysql"]);
}

#[test]
fn from_sqlite_to_mssql_and_back() {
    through(&["mssql"]);
}

#[test]
fn from_sqlite_to_postgres_to_mysql_and_back() {
    through(&["postgres", "mysql"]);
}
