//! `audit`.

use serde_json::Value;

use crate::world::{USER, World};

fn rows(world: &World, arguments: &[&str]) -> Vec<Value> {
    let run = world.dl(&[&["audit", "--format", "json"], arguments].concat()).ok();
    run.json().as_array().unwrap().clone()
}

fn actions(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["action"].as_str().unwrap()).collect()
}

#[test]
fn who_did_what_is_shown_in_both_orders_and_with_filters() {
    let world = World::with_table();
    let file = world.parquet("t/day=1/a.parquet", &[1, 2]);
    world.dl(&["append", "s.t", &file]).ok();
    world.dl(&["alter", "s.t", "--set", "team=sales"]).ok();
    world.dl(&["mirror", "disable", "s.t"]).ok();
    world.dl(&["drop", "s.t", "--user", "eve \"=1+1\", x"]).ok();
    world.dl(&["drop", "s.t"]).fails(&["s.t"]);
    world.dl(&["undrop", "s.t", "--as", "s.u"]).ok();
    world.dl(&["vacuum", "s.u"]).ok();
    let want =
        ["table.create", "commit", "table.alter", "mirror.mode", "table.drop", "table.undrop"];
    let all = rows(&world, &[]);
    assert_eq!(actions(&all), want);
    assert_eq!(all[0]["user"], USER);
    assert_eq!(all[4]["user"], "eve \"=1+1\", x");
    assert_eq!(all[4]["table"], "s.t");
    assert_eq!(all[5]["detail"]["from"], "s.t");
    assert!(all[3]["program"].as_str().unwrap().starts_with("deltalakedb "), "{all:?}");
    let newest = rows(&world, &["--newest-first"]);
    assert_eq!(newest.iter().rev().collect::<Vec<_>>(), all.iter().collect::<Vec<_>>());
    assert_eq!(actions(&rows(&world, &["--newest-first", "--limit", "1"])), ["table.undrop"]);
    assert_eq!(actions(&rows(&world, &["--no-commits"])), want[3..]);
    assert_eq!(actions(&rows(&world, &["--user", "eve \"=1+1\", x"])), ["table.drop"]);
    let two = ["--action", "table.drop", "--action", "table.create"];
    assert_eq!(actions(&rows(&world, &two)), ["table.create", "table.drop"]);
    assert_eq!(rows(&world, &["--until", "2020-01-01"]), Vec::<Value>::new());
    assert_eq!(actions(&rows(&world, &["--table", "s.u", "--no-commits"])), want[3..]);
    world.dl(&["audit", "--table", "s.none"]).fails(&["s.none"]);
    world.dl(&["audit", "--since", "yesterday"]).fails(&["is not a time"]);
    world.dl(&["list", "--format", "csv"]).fails(&["dl audit"]);

    let csv = world.dl(&["audit", "--format", "csv", "--no-commits", "--newest-first"]).ok();
    let lines: Vec<&str> = csv.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{}", csv.stdout);
    assert_eq!(lines[0], "time,action,table,table_id,version,user,origin,program,detail,token,id");
    assert!(lines[2].contains(",table.drop,s.t,"), "{}", csv.stdout);
    assert!(lines[2].contains(",\"eve \"\"=1+1\"\", x\","), "{}", csv.stdout);
    world.dl(&["audit"]).ok().says("version 1").says("+1 files").says("from active, to off");
}

#[test]
fn a_vacuum_that_deletes_is_kept_from_its_start_on() {
    let world = World::with_table();
    world.dl(&["vacuum", "s.t", "--delete"]).ok();
    let rows = rows(&world, &["--no-commits"]);
    assert_eq!(actions(&rows), ["vacuum.start", "vacuum.end"]);
    assert_eq!(rows[1]["detail"]["deleted"], 0);
}

#[test]
fn a_copied_catalog_has_the_audit_once() {
    let world = World::with_table();
    world.dl(&["drop", "s.t"]).ok();
    world.dl(&["undrop", "s.t"]).ok();
    let new = format!("sqlite://{}", world.path("new.db").display());
    for _ in 0..2 {
        world.dl(&["copy-catalog", &world.catalog(), &new, "--init"]).ok();
    }
    let rows = rows(&world, &["--no-commits", "--catalog", &new]);
    let mut found = actions(&rows);
    found.sort_unstable();
    assert_eq!(found, ["copy", "import.finish", "table.drop", "table.undrop"]);
}
