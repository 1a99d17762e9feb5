//! `doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use deltalakedb_test_servers::{Database, skip};
use serde_json::{Value, json};

use crate::world::{World, add};

/// The finding about something, if there is one.
fn finding<'a>(report: &'a Value, what: &str) -> Option<&'a Value> {
    report["findings"].as_array().unwrap().iter().find(|finding| finding["what"] == what)
}

#[test]
fn a_sound_catalog_is_well() {
    let world = World::with_table();
    world.dl(&["doctor"]).ok().says("looks found what should be");
    let report = world.json(&["doctor", "--write-probe"]);
    for what in ["program", "schema", "journal_mode", "pages", "publishing", "stores"] {
        let found = finding(&report, what);
        assert_eq!(found.map(|found| &found["level"]), Some(&json!("ok")), "{what}: {report}");
    }
    // The probe is gone.
    let log = fs::read_dir(world.path("t/_delta_log")).unwrap();
    let names: Vec<_> =
        log.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.contains("probe")), "{names:?}");
    world.dl(&["doctor", "--all"]).ok().says("quick_check finds them sound");
    World::empty().dl(&["doctor"]).code(1);
}

#[test]
fn what_is_wrong_is_told_with_what_to_do() {
    let world = World::with_table();
    world.create("s.late", "late", &["--partition-by", "day", "--no-publish"]).ok();
    // Everyone may write to the catalog's file.
    let file = world.path("catalog.db");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let report = world.dl(&["doctor", "--format", "json"]).code(2).json();
    let permissions = finding(&report, "permissions of the file").unwrap();
    assert!(permissions["advice"].as_str().unwrap().starts_with("chmod o-w"), "{permissions}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    world.dl(&["doctor"]).ok();
    // A foreign commit stops publishing.
    world.file("t/_delta_log/00000000000000000001.json", "{\"foreign\":{}}\n");
    world.dl_with_input(&["commit", "s.t"], &add("day=1/a.parquet", "1")).ok();
    let run = world.dl(&["doctor"]).code(1);
    assert!(run.stdout.contains("publishing of s.t: has stopped"), "{}", run.stdout);
    assert!(run.stdout.contains("dl repair s.t"), "{}", run.stdout);
    // A store that cannot be reached.
    let world = World::with_table();
    fs::remove_dir_all(world.path("t")).unwrap();
    fs::write(world.path("t"), "in the way").unwrap();
    world.dl(&["doctor", "--write-probe"]).code(1).says("store of s.t");
}

#[test]
fn servers_are_asked_for_their_settings() {
    for (word, database, setting) in [
        ("postgres", Database::Postgres, "fsync"),
        ("mysql", Database::MySql, "innodb_flush_log_at_trx_commit"),
    ] {
        let url = match database.url(std::path::Path::new(""), "doctor") {
            Ok(url) => url,
            Err(why) => {
                skip(&[word], why);
                continue;
            }
        };
        let world = World::at(Some(url));
        world.dl(&["init"]).ok();
        world.create("s.t", "t", &[]).ok();
        let run = world.dl(&["doctor", "--format", "json"]);
        let report = run.json();
        assert!(finding(&report, setting).is_some(), "{report}");
        assert_eq!(finding(&report, "clocks").unwrap()["level"], "ok", "{report}");
        assert_eq!(finding(&report, "sizes").unwrap()["level"], "ok", "{report}");
        // These servers are made for tests: what they lose in a crash is told.
        let worst = report["worst"].as_str().unwrap();
        let code = match worst {
            "error" => 1,
            "warning" => 2,
            _ => 0,
        };
        assert_eq!(run.code, code, "{report}");
        assert!(finding(&report, "settings").is_none(), "{report}");
    }
}
