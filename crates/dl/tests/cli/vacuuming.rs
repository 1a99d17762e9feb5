//! `dl vacuum`.

use std::fs::File;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::world::{World, add};

/// A file that was written so many hours ago.
fn old_file(world: &World, name: &str, hours: u64) {
    world.file(name, "data");
    let time = SystemTime::now() - Duration::from_secs(hours * 3_600);
    let file = File::options().write(true).open(world.path(name)).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn unneeded_files_are_shown_and_then_deleted() {
    let world = World::new();
    world.create("s.t", "t", &["--partition-by", "day"]).ok();
    world.dl_with_input(&["commit", "s.t"], &add("used.parquet", "")).ok();
    for (name, hours) in [("used", 300), ("orphan", 300), ("recent", 30)] {
        old_file(&world, &format!("t/{name}.parquet"), hours);
    }
    let there = |name: &str| world.path(&format!("t/{name}.parquet")).exists();

    world
        .dl(&["vacuum", "s.t"])
        .ok()
        .says("  orphan.parquet\n")
        .says("1 of 3 files below 's.t' is not needed")
        .says("with a retention of 7 d 0 h. Nothing was deleted.");
    assert!(there("orphan"));
    let report = world.json(&["vacuum", "s.t", "--delete"]);
    assert_eq!(report["deleted"], 1);
    assert_eq!(report["files"], json!(["orphan.parquet"]));
    assert!(!there("orphan") && there("recent") && there("used"));

    let short = ["vacuum", "s.t", "--retain-hours", "24", "--delete"];
    world.dl(&short).fails(&["24 h is shorter than the 168 h", "--accept-short-retention"]);
    assert!(there("recent"));
    let accepted = [&short[..], &["--accept-short-retention"]].concat();
    world.dl(&accepted).ok().says("Deleted 1.");
    assert!(!there("recent") && there("used"));
    world.dl(&accepted).ok().says("0 of 1 file below 's.t' are not needed");

    world.dl(&["vacuum", "s.t", "--keep-version", "9"]).fails(&["version 9"]);
    // A log that others write to needs files that the catalog does not know.
    old_file(&world, "t/theirs.parquet", 300);
    world.file("t/_delta_log/00000000000000000002.json", "{\"foreign\":{}}\n");
    world.dl(&["vacuum", "s.t", "--delete"]).fails(&["holds version 2"]);
    assert!(there("theirs"));
    world.dl(&["vacuum", "s.none"]).fails(&["s.none"]);
}
