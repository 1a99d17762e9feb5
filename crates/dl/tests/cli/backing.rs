//! `backup` and `restore`.

use serde_json::Value;

use crate::world::{FIRST_COMMIT, Run, World, add, foreign_log, plain_add, remove};

fn url(world: &World, name: &str) -> String {
    format!("sqlite://{}", world.path(name).display())
}

/// A command on another catalog.
fn on(world: &World, catalog: &str, arguments: &[&str]) -> Run {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--catalog", catalog]);
    world.dl(&arguments)
}

/// What commands say of a catalog.
fn shown(world: &World, catalog: &str, tables: &[&str]) -> Vec<Value> {
    let json = |arguments: &[&str]| {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--format", "json"]);
        on(world, catalog, &arguments).ok().json()
    };
    let mut all = vec![json(&["list"]), json(&["list", "--dropped"])];
    for table in tables {
        for command in ["show", "files", "history"] {
            all.push(json(&[command, table]));
        }
    }
    all
}

/// A catalog with a bit of everything.
fn full() -> World {
    let world = World::with_table();
    world.create("s.old", "old", &[]).ok();
    world.dl(&["drop", "s.old"]).ok();
    world.create("s.old", "old2", &["--no-publish"]).ok();
    let one = world.file("one.json", &add("day=1/a.parquet", "1"));
    world.dl(&["commit", "s.t", &one, "--token", "first"]).ok();
    let log = foreign_log(&world, "foreign", &[FIRST_COMMIT, &plain_add("x.parquet")]);
    world.dl(&["import", &log, "s.foreign"]).ok();
    world
}

const TABLES: [&str; 3] = ["s.t", "s.old", "s.foreign"];

fn sets(world: &World, target: &str) -> Vec<Value> {
    let list = world.dl(&["backup", "list", target, "--format", "json"]).ok().json();
    list["sets"].as_array().unwrap().clone()
}

#[test]
fn a_catalog_is_backed_up_verified_and_restored() {
    let world = full();
    let new = url(&world, "new.db");
    world.dl(&["backup", "backups"]).ok().says("is a full one");
    let two = world.file("two.json", &remove("day=1/a.parquet"));
    world.dl(&["commit", "s.t", &two]).ok();
    let run = world.dl(&["backup", "backups"]).ok();
    run.says("1 commit in this set").says("goes on from");
    assert_eq!(sets(&world, "backups").len(), 2);
    world.dl(&["backup", "verify", "backups"]).ok().says("2 sets verified");
    on(&world, &new, &["restore", "backups"]).fails(&["there is no catalog"]);
    on(&world, &new, &["restore", "backups", "--init", "--validate", "all"])
        .ok()
        .says("Restored 4 tables");
    let catalog = world.catalog();
    assert_eq!(shown(&world, &catalog, &TABLES), shown(&world, &new, &TABLES));
    on(&world, &new, &["restore", "backups"]).ok().says("already");
    // The first set is what the second rests on.
    world.dl(&["backup", "backups", "--keep", "1"]).ok();
    assert_eq!(sets(&world, "backups").len(), 3);
    let kept = world.dl(&["backup", "backups", "--full", "--keep", "1", "--format", "json"]).ok();
    assert_eq!(kept.json()["deleted"].as_array().unwrap().len(), 3);
    assert_eq!(sets(&world, "backups").len(), 1);
    world.dl(&["backup", "verify", "backups"]).ok().says("1 set verified");
    // The lake goes on from the restored catalog.
    let three = world.file("three.json", &add("day=2/b.parquet", "2"));
    on(&world, &new, &["commit", "s.t", &three]).ok();
    assert_eq!(world.log_versions("t"), [0, 1, 2, 3]);
}

/// Restored to a time before the last commits, which are in the lake.
#[test]
fn a_lake_that_is_ahead_is_left_alone_and_can_be_taken_in() {
    let world = full();
    let history = world.json(&["history", "s.t"]);
    let time = history.as_array().unwrap()[0]["timestamp_ms"].as_i64().unwrap();
    for number in 2..4 {
        let path = format!("day=1/late{number}.parquet");
        let file = world.file("late.json", &add(&path, "1"));
        world.dl(&["commit", "s.t", &file]).ok();
    }
    world.dl(&["backup", "backups"]).ok();
    let new = url(&world, "new.db");
    let at = time.to_string();
    let run =
        on(&world, &new, &["restore", "backups", "--init", "--at", &at, "--table", "s.t"]).ok();
    assert!(run.stderr.contains("'s.t' is not published"), "{run:?}");
    assert!(run.stderr.contains("dl repair s.t"), "{run:?}");
    let before = world.read("t/_delta_log/00000000000000000002.json");
    on(&world, &new, &["mirror", "status"]).code(2);
    on(&world, &new, &["repair", "s.t"]).code(2).says("parts at version 2");
    on(&world, &new, &["repair", "s.t", "--adopt"]).ok().says("Adopted 2 foreign commits");
    assert_eq!(world.read("t/_delta_log/00000000000000000002.json"), before);
    let file = world.file("next.json", &add("day=1/next.parquet", "1"));
    on(&world, &new, &["commit", "s.t", &file]).ok();
    assert_eq!(world.log_versions("t"), [0, 1, 2, 3, 4]);
    on(&world, &new, &["diff", "--table", "s.t"]).ok();
}

#[test]
fn the_file_of_a_catalog_is_copied_by_sqlite() {
    let world = full();
    world.dl(&["backup", "--pages", "copy.db"]).ok().says("Copied");
    let (catalog, copy) = (world.catalog(), url(&world, "copy.db"));
    assert_eq!(shown(&world, &catalog, &TABLES), shown(&world, &copy, &TABLES));
    world.dl(&["backup", "--pages", "copy.db"]).fails(&["not overwritten"]);
    world.dl(&["backup", "--pages", "no/such/copy.db"]).fails(&["copy.db"]);
    let mut names: Vec<_> = std::fs::read_dir(world.path("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("copy.db"))
        .collect();
    names.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    assert_eq!(names, ["copy.db"]);
}

#[test]
fn what_is_wrong_is_said() {
    let world = World::with_table();
    world.dl(&["backup"]).code(2);
    world.dl(&["backup", "x", "--keep", "0"]).fails(&["neither a number of sets"]);
    world.dl(&["backup", "verify", "nowhere"]).fails(&["there is no backup"]);
    world.dl(&["restore", "nowhere"]).fails(&["there is no backup in"]);
    world.dl(&["restore", "nowhere", "--set", "x"]).fails(&["is no set of a backup"]);
    world.dl(&["restore", "nowhere", "--at", "yesterday"]).fails(&["is not a time"]);
    world.dl(&["backup", "s3://u:geheim@b/x"]).fails(&["password"]);
    assert!(world.dl(&["backup", "list", "nowhere"]).ok().stderr.is_empty());
    world.dl(&["backup", "backups"]).ok();
    let object = std::fs::read_dir(world.path("backups"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().ends_with(".000000.zst"))
        .unwrap();
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let run = world.dl(&["backup", "verify", "backups"]).code(1);
    assert!(run.stderr.contains("SHA-256"), "{run:?}");
    let new = url(&world, "new.db");
    on(&world, &new, &["restore", "backups", "--init"]).fails(&["SHA-256"]);
    on(&world, &new, &["show", "s.t"]).code(1);
}

#[cfg(unix)]
mod killed {
    use std::fmt::Write as _;
    use std::time::Instant;

    use serde_json::Value;

    use super::{add, on, sets, url};
    use crate::moments::{Caught, Moments, kill_after};
    use crate::world::World;

    /// Tables with some commits of many files.
    fn large() -> World {
        let world = World::new();
        for table in ["s.a", "s.b", "s.c"] {
            world.create(table, &table[2..], &["--partition-by", "day", "--no-publish"]).ok();
            for commit in 0..6 {
                let mut text = String::new();
                for file in 0..400 {
                    let _ =
                        writeln!(text, "{}", add(&format!("day=1/{commit}-{file}.parquet"), "1"));
                }
                let file = world.file("many.json", &text);
                world.dl(&["commit", table, &file, "--no-publish"]).ok();
            }
        }
        world
    }

    /// What commands say of tables; not when what waits was enqueued.
    fn shown(world: &World, catalog: &str, tables: &[&str]) -> Vec<Value> {
        let mut all = vec![on(world, catalog, &["list", "--format", "json"]).ok().json()];
        for table in tables {
            for command in ["files", "history"] {
                all.push(on(world, catalog, &[command, table, "--format", "json"]).ok().json());
            }
        }
        all
    }

    #[test]
    fn a_backup_that_is_killed_leaves_no_set_and_begins_anew() {
        let world = large();
        let started = Instant::now();
        world.dl(&["backup", "first"]).ok();
        let mut moments = Moments::new(started.elapsed(), 5, 100);
        let mut number = 0;
        while let Some(moment) = moments.next() {
            number += 1;
            let target = format!("backups{number}");
            let started = Instant::now();
            let mut child = world.command(&["backup", &target]).spawn().unwrap();
            kill_after(&mut child, started, moment);
            let begun =
                std::fs::read_dir(world.path(&target)).is_ok_and(|mut dir| dir.next().is_some());
            let found = sets(&world, &target);
            moments.was(
                moment,
                match (begun, found.len()) {
                    (false, _) => Caught::Early,
                    (true, 0) => Caught::Middle,
                    (true, _) => Caught::Late,
                },
            );
            world.dl(&["backup", &target]).ok();
            assert_eq!(sets(&world, &target).len(), found.len() + 1);
            world.dl(&["backup", "verify", &target]).ok();
        }
    }

    #[test]
    fn a_restore_that_is_killed_goes_on() {
        let world = large();
        world.dl(&["backup", "backups"]).ok();
        let tables = ["s.a", "s.b", "s.c"];
        let wanted = shown(&world, &world.catalog(), &tables);
        let started = Instant::now();
        on(&world, &url(&world, "first.db"), &["restore", "backups", "--init"]).ok();
        let mut moments = Moments::new(started.elapsed(), 5, 100);
        let mut number = 0;
        while let Some(moment) = moments.next() {
            number += 1;
            let new = url(&world, &format!("new{number}.db"));
            let arguments = ["restore", "backups", "--init", "--catalog", &new];
            let started = Instant::now();
            let mut child = world.command(&arguments).spawn().unwrap();
            let running = kill_after(&mut child, started, moment);
            on(&world, &new, &["init"]).ok();
            let importing =
                on(&world, &new, &["list", "--importing", "--format", "json"]).ok().json();
            let none = importing.as_array().is_some_and(Vec::is_empty);
            let report = on(&world, &new, &["restore", "backups", "--format", "json"]).ok().json();
            let resumed =
                report["tables"].as_array().unwrap().iter().any(|table| table["resumed"] == true);
            moments.was(
                moment,
                match (running, none, resumed) {
                    (true, false, true) => Caught::Middle,
                    (true, true, false) if report["commits"] != 0 => Caught::Early,
                    (true, false, false) => Caught::Early,
                    _ => Caught::Late,
                },
            );
            assert_eq!(shown(&world, &new, &tables), wanted);
        }
    }
}
