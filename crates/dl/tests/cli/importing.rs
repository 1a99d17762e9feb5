//! `import` and `publish`.

use std::fs;
use std::path::PathBuf;

use crate::world::{FIRST_COMMIT, World, foreign_log, plain_add};

#[test]
fn an_import_keeps_every_byte() {
    let world = World::new();
    let odd = format!("{}\r\n{{\"future\":{{\"x\" : 1}}}}\n\n", plain_add("a.parquet"));
    let location = foreign_log(&world, "old", &[FIRST_COMMIT, &odd]);
    let report = world.json(&["import", &location, "s.t"]);
    assert_eq!(report["table"], "s.t");
    assert_eq!(report["head"], 1);
    assert_eq!(report["num_files"], 1);
    assert_eq!(report["imported"], true);
    let published = world.json(&["publish", "s.t", "--to", "copy"]);
    assert_eq!(published["commits"], 2);
    for name in ["00000000000000000000.json", "00000000000000000001.json"] {
        assert_eq!(
            fs::read(world.path("old/_delta_log").join(name)).unwrap(),
            fs::read(world.path("copy/_delta_log").join(name)).unwrap()
        );
    }
    world.dl(&["publish", "s.t", "--to", "copy"]).ok().says("were there");
    world.file("full/_delta_log/00000000000000000000.json", "{}\n");
    world.dl(&["publish", "s.t", "--to", "full"]).fails(&["full"]);
    // The table goes on at its own place.
    world.dl_with_input(&["commit", "s.t"], &plain_add("b.parquet")).ok();
    assert_eq!(world.log_versions("old"), [0, 1, 2]);
}

#[test]
fn a_dry_run_writes_nothing() {
    let world = World::new();
    let location = foreign_log(&world, "old", &[FIRST_COMMIT, &plain_add("a.parquet")]);
    let report = world.json(&["import", &location, "s.t", "--dry-run"]);
    assert_eq!(
        (report["dry_run"].as_bool(), report["imported"].as_bool()),
        (Some(true), Some(false))
    );
    assert_eq!(report["num_files"], 1);
    world.dl(&["import", &location, "s.t", "--dry-run"]).ok().says("Would import 's.t'");
    world.dl(&["show", "s.t"]).fails(&["s.t"]);
}

#[test]
fn an_import_up_to_a_version_is_not_published() {
    let world = World::new();
    let adds = [plain_add("a.parquet"), plain_add("b.parquet")];
    let location = foreign_log(&world, "old", &[FIRST_COMMIT, &adds[0], &adds[1]]);
    world
        .dl(&["import", &location, "s.t", "--up-to-version", "1"])
        .ok()
        .says("at version 1: 1 file");
    let shown = world.json(&["show", "s.t"]);
    assert_eq!((shown["version"].as_i64(), shown["mirror"].as_str()), (Some(1), Some("off")));
    world.dl(&["import", &location, "s.u", "--up-to-version", "9"]).fails(&["9"]);
}

#[test]
fn many_tables_come_by_pattern() {
    let world = World::new();
    for table in ["lake/a", "lake/b.c", "lake/[x]"] {
        foreign_log(&world, table, &[FIRST_COMMIT]);
    }
    foreign_log(&world, "lake/broken", &["no JSON"]);
    world.file("lake/plain/file.txt", "no table");
    let lake = world.path("lake").to_str().unwrap().to_owned();
    let all = format!("{lake}/*");
    world.dl(&["import", &all, "s.all"]).fails(&["{name}"]);
    let run = world.dl(&["import", &all, "--namespace", "s"]).code(1);
    assert!(run.stdout.contains("3 of 4 tables imported"), "{}", run.stdout);
    assert!(run.stderr.contains("lake/broken") && run.stderr.contains("line 1"), "{}", run.stderr);
    let names: Vec<_> = world
        .json(&["list"])
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["table"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["s.[x]", "s.a", "s.b_c"]);
    // A place is published by one table only.
    let taken = world.dl(&["import", &format!("{lake}/a"), "u.a"]).code(1);
    assert!(taken.stderr.contains("is the place of table 's.a' already"), "{}", taken.stderr);
    // Again without a mirror, in JSON: each of them is told.
    let run = world.dl(&["import", &all, "u.{name}", "--no-mirror", "--format", "json"]).code(1);
    let results = run.json();
    let results = results.as_array().unwrap();
    assert_eq!(results.len(), 4);
    let imported = results.iter().filter(|r| r["imported"] == true).count();
    assert_eq!(imported, 3);
    let failed = results.iter().find(|r| r["imported"] == false).unwrap();
    assert_eq!(failed["error"]["kind"], "invalid_input");
    assert!(failed["location"].as_str().unwrap().ends_with("lake/broken"));
    // A folder whose own name looks like a pattern is one table.
    world.dl(&["import", &format!("{lake}/[x]"), "one.x", "--no-mirror"]).ok();
    world.dl(&["import", &format!("{lake}/none-*"), "--namespace", "s"]).fails(&["none-*"]);
}

/// Tables of other engines, where the folder is there.
fn delta_tables() -> Option<PathBuf> {
    let folder = std::env::var_os("DL_DELTA_TABLES").map(PathBuf::from).filter(|f| f.is_dir());
    if folder.is_none() {
        let why = "DL_DELTA_TABLES names no folder with tables of other engines";
        deltalakedb_test_servers::skip(&["corpus"], why);
    }
    folder
}

#[test]
fn tables_of_other_engines_are_imported_and_shown() {
    let Some(tables) = delta_tables() else { return };
    let world = World::new();
    let pattern = tables.join("delta-rs/*").to_str().unwrap().to_owned();
    world.dl(&["import", &pattern, "rs.{name}"]).ok();
    let list = world.json(&["list"]);
    let list = list.as_array().unwrap();
    assert!(list.len() > 40);
    for table in list {
        let name = table["table"].as_str().unwrap();
        world.json(&["show", name]);
        world.json(&["files", name]);
        world.json(&["history", name]);
    }
}

#[test]
fn a_version_that_was_cleaned_up_is_named() {
    let Some(tables) = delta_tables() else { return };
    let world = World::new();
    let location = tables.join("delta-rs/checkpoints_vacuumed").to_str().unwrap().to_owned();
    world.dl(&["import", &location, "s.t"]).ok().says("readable from version 5");
    world.dl(&["show", "s.t", "--version", "2"]).fails(&["version 2", "5 to 12"]);
    world.dl(&["show", "s.t", "--version", "5"]).ok();
    let report = world.json(&["import", &location, "s.u", "--checkpoint-only", "--no-mirror"]);
    assert_eq!(report["base_version"], 10);
}
