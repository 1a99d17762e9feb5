//! `quickstart`, again and again, and after being killed.

#[cfg(unix)]
use std::process::Stdio;
#[cfg(unix)]
use std::time::Instant;

use serde_json::Value;

#[cfg(unix)]
use crate::moments::{Caught, Moments, kill_after};
use crate::world::{Run, World};

#[track_caller]
fn check(report: &Value) {
    assert_eq!(report["tables"][0]["table"], "shop.customers");
    for (table, rows) in [(0, 1_200), (1, 4_000)] {
        let table = &report["tables"][table];
        assert_eq!(table["rows_in_catalog"], rows);
        assert_eq!(table["rows_read_by_kernel"], rows);
        assert_eq!(table["checkpoint"], 10);
        assert_eq!(table["diff"], "parity");
    }
}

#[test]
fn it_works_and_a_second_run_adds_nothing() {
    let world = World::empty();
    let first = world.json(&["quickstart"]);
    check(&first);
    assert_eq!(first["transactions"], first["new_transactions"]);
    assert!(world.path("quickstart/orders/order_date=2026-01-01").is_dir());
    let second = world.json(&["quickstart"]);
    check(&second);
    assert_eq!(second["new_transactions"], 0);
    assert_eq!(second["published_versions"], 0);
    assert_eq!(first["tables"], second["tables"]);
    let text = world.dl(&["quickstart"]).ok().says("all were there already").stdout;
    // What it says to try next works.
    let export = text.lines().find_map(|l| l.trim().strip_prefix("export DELTA_DB_CONNECTION='"));
    let catalog = export.unwrap().trim_end_matches('\'');
    let mut tried = 0;
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("dl ")) {
        let script = format!("{} {line}", env!("CARGO_BIN_EXE_dl"));
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).current_dir(world.path(""));
        command.env("DELTA_DB_CONNECTION", catalog);
        Run::from(command.output().unwrap()).ok();
        tried += 1;
    }
    assert!(tried >= 6, "{text}");
}

#[test]
fn one_transaction_spans_both_tables() {
    let world = World::empty();
    world.dl(&["quickstart", "qs", "--quiet"]).ok();
    let catalog = format!("sqlite://{}", world.path("qs/catalog.db").display());
    let token = |table: &str| {
        let history = world.json(&["history", table, "--catalog", &catalog]);
        let commits = history.as_array().unwrap().clone();
        commits.iter().find(|c| c["version"] == 1).unwrap()["token"].clone()
    };
    assert_eq!(token("shop.customers"), token("shop.orders"));
}

#[cfg(unix)]
#[test]
fn it_goes_on_after_being_killed() {
    let whole = World::empty();
    let started = Instant::now();
    whole.dl(&["quickstart"]).ok();
    // A fresh one each time it was done, so that there is a middle to be caught in.
    let mut world = World::empty();
    let mut moments = Moments::new(started.elapsed(), 12, 200);
    while let Some(moment) = moments.next() {
        let mut command = world.command(&["quickstart"]);
        let started = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let running = kill_after(&mut child, started, moment);
        let begun = world.path("quickstart/catalog.db").exists();
        let caught = match (running, begun) {
            (false, _) => Caught::Late,
            (true, true) => Caught::Middle,
            (true, false) => Caught::Early,
        };
        moments.was(moment, caught);
        if caught == Caught::Late {
            check(&world.json(&["quickstart"]));
            world = World::empty();
        }
    }
    check(&world.json(&["quickstart"]));
}

#[test]
fn trouble_is_told() {
    let world = World::empty();
    world.file("file", "no folder");
    world.dl(&["quickstart", "file"]).fails(&["file"]);
    world.dl(&["quickstart", "qs"]).ok();
    let catalog = format!("sqlite://{}", world.path("qs/catalog.db").display());
    world.dl(&["drop", "shop.orders", "--catalog", &catalog]).ok();
    world.dl(&["quickstart", "qs"]).fails(&["shop.orders", "dl list --dropped"]);
    world.dl(&["undrop", "shop.orders", "--catalog", &catalog]).ok();
    check(&world.json(&["quickstart", "qs"]));
    // The tables of a catalog that is gone are not overwritten.
    std::fs::remove_file(world.path("qs/catalog.db")).unwrap();
    world.dl(&["quickstart", "qs"]).fails(&["dl import"]);
}
