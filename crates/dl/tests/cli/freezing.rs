//! `freeze`, `unfreeze`.

use std::fs;

use serde_json::{Value, json};

use crate::world::{USER, World, add};

/// The lines of a published version.
fn published(world: &World, table: &str, version: u32) -> Vec<Value> {
    let text = world.read(&format!("{table}/_delta_log/{version:020}.json"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_frozen_table_is_read_and_refuses_each_write() {
    let world = World::with_table();
    let file = world.parquet("t/day=1/a.parquet", &[1, 2]);
    let load = ["append", "s.t", &file, "--token", "load-1"];
    world.dl(&load).ok();
    world
        .dl(&["freeze", "s.t", "--reason", "the store moves", "--wait", "--timeout", "60"])
        .ok()
        .says("'s.t' is frozen from version 2 on.");
    let lines = published(&world, "t", 2);
    let info = &lines[0]["commitInfo"];
    assert_eq!(info["operation"], "FREEZE");
    assert_eq!(info["operationParameters"], json!({"reason": "the store moves"}));
    assert_eq!(info["userName"], USER);
    let features = lines[1]["protocol"]["writerFeatures"].to_string();
    assert!(features.contains("\"deltalakedb.frozen\"") && features.contains("\"deltalakedb\""));
    assert_eq!(lines.len(), 2);

    let other = world.parquet("t/day=1/b.parquet", &[3]);
    let commands: [&[&str]; 9] = [
        &["append", "s.t", &other],
        &["alter", "s.t", "--description", "x"],
        &["alter", "s.t", "--set", "delta.feature.deltalakedb.frozen=supported"],
        &["drop", "s.t"],
        &["release", "s.t"],
        &["cutover", "s.t"],
        &["vacuum", "s.t", "--delete"],
        &["commit", "s.t", "--blind"],
        &["commit", "s.t"],
    ];
    for command in commands {
        let run = world.dl_with_input(command, &add("day=1/c.parquet", "1"));
        run.fails(&[
            "table 's.t' is frozen since 20",
            USER,
            "the store moves",
            "`dl unfreeze s.t`",
        ]);
        let json = [command, &["--format", "json"]].concat();
        let run = world.dl_with_input(&json, &add("day=1/c.parquet", "1")).code(1);
        let error: Value = serde_json::from_str(run.stderr.trim()).unwrap_or_else(|_| run.json());
        assert_eq!(error["error"]["kind"], "table_frozen", "{command:?}");
        assert_eq!(error["error"]["may_have_happened"], false);
    }
    assert_eq!(world.json(&["show", "s.t"])["version"], 2);
    // What was committed before is answered as before.
    world.dl(&load).ok().says("this token was committed before");

    // All that reads goes on.
    world.dl(&["diff", "s.t"]).ok();
    world.dl(&["check", "s.t", "--footers"]).ok();
    world.dl(&["vacuum", "s.t"]).ok();
    world.dl(&["mirror", "reconcile", "s.t"]).ok();
    world.dl(&["repair", "s.t"]).ok();
    assert_eq!(world.json(&["files", "s.t"]).as_array().unwrap().len(), 1);
    let shown = world.json(&["show", "s.t"]);
    assert_eq!(shown["features"]["frozen"], true);
    assert_eq!(shown["frozen"]["version"], 2);
    assert_eq!(shown["frozen"]["user"], USER);
    assert_eq!(shown["frozen"]["reason"], "the store moves");
    world.dl(&["show", "s.t"]).ok().says("Frozen").says("(`dl unfreeze s.t`)");
    let history = world.json(&["history", "s.t", "--limit", "1"]);
    assert_eq!((&history[0]["operation"], &history[0]["who"]), (&json!("FREEZE"), &json!(USER)));
    // Then it was not frozen.
    let then = world.json(&["show", "s.t", "--version", "1"]);
    assert_eq!((&then["features"]["frozen"], &then["frozen"]), (&json!(false), &Value::Null));

    world
        .dl(&["freeze", "s.t", "--reason", "another"])
        .ok()
        .says("'s.t' is frozen already, since 20")
        .says("the store moves");
    let again = world.json(&["freeze", "s.t", "--reason", "another"]);
    assert_eq!((&again["token"], &again["replayed"]), (&Value::Null, &json!(false)));
    assert_eq!(again["tables"][0]["changed"], false);
    assert_eq!(again["tables"][0]["reason"], "the store moves");

    world.dl(&["unfreeze", "s.t"]).ok().says("is not frozen any more, from version 3 on");
    world.dl(&["unfreeze", "s.t"]).ok().says("'s.t' is not frozen.");
    let lines = published(&world, "t", 3);
    assert_eq!(lines[0]["commitInfo"]["operation"], "UNFREEZE");
    assert!(!lines[1].to_string().contains("frozen"));
    world.dl(&["append", "s.t", &other]).ok();
    world.dl(&["diff", "s.t"]).ok();
    world.dl(&["drop", "s.t"]).ok();
}

#[test]
fn several_tables_are_frozen_in_one_transaction() {
    let world = World::new();
    for table in ["s.a", "s.b", "r.c"] {
        world.create(table, &table[2..], &[]).ok();
    }
    let place = world.path("c");
    let frozen = |table: &str| world.json(&["show", table])["features"]["frozen"].clone();
    world.dl(&["freeze", "s.a", "s.none"]).fails(&["s.none"]);
    assert_eq!(frozen("s.a"), false);
    let report = world.json(&["freeze", "--namespace", "s", "r.c", "s.a", "--token", "w"]);
    let tables = report["tables"].as_array().unwrap();
    let names: Vec<&str> = tables.iter().map(|table| table["table"].as_str().unwrap()).collect();
    assert_eq!(names, ["r.c", "s.a", "s.b"]);
    assert!(tables.iter().all(|table| table["frozen"] == true && table["changed"] == true));
    assert_eq!((&report["token"], &report["warnings"]), (&json!("w"), &json!([])));
    world.dl(&["mirror", "wait", "--token", "w", "--timeout", "30"]).ok();
    // Of a transaction with one frozen table nothing is committed.
    world.create("s.open", "open", &[]).ok();
    world.file("x.json", &crate::world::plain_add("x.parquet"));
    let both = ["commit", "--table", "s.open=x.json", "--table", "r.c=x.json", "--blind"];
    world.dl(&both).fails(&["table 'r.c' is frozen"]);
    assert_eq!(world.json(&["show", "s.open"])["version"], 0);
    // The token's call took effect once: who unfreezes is not undone by a repeated one.
    world.dl(&["unfreeze", "r.c"]).ok();
    let again = world.json(&["freeze", "--namespace", "s", "r.c", "s.a", "--token", "w"]);
    assert_eq!((&again["replayed"], again["tables"].as_array().unwrap().len()), (&json!(true), 3));
    assert_eq!(frozen("r.c"), false);
    world
        .dl(&["freeze", "r.c", "--token", "w"])
        .ok()
        .says("'r.c': this token was committed before, as version 1; it is not frozen.");

    // A copy of the catalog, a backup and a rebuilt one keep it.
    let copy = format!("sqlite://{}", world.path("copy.db").display());
    world.dl(&["copy-catalog", &world.catalog(), &copy, "--init"]).ok();
    let copied = world.json(&["--catalog", &copy, "show", "s.b"]);
    assert_eq!(copied["frozen"]["user"], USER);
    world.dl(&["backup", world.path("sets").to_str().unwrap()]).ok();
    let restored = format!("sqlite://{}", world.path("restored.db").display());
    let sets = world.path("sets");
    let restore = ["restore", sets.to_str().unwrap(), "--init"];
    world.dl(&[&["--catalog", &restored], &restore[..]].concat()).ok();
    world.dl(&["--catalog", &restored, "drop", "s.b"]).fails(&["is frozen since"]);
    // Two catalogs: the log of a table without a fence is imported as it is.
    world.create("s.plain", "plain", &["--no-fence"]).ok();
    world.dl(&["freeze", "s.plain", "--reason", "kept"]).ok();
    let other = World::new();
    let plain = world.path("plain");
    let import = other.dl(&["import", plain.to_str().unwrap(), "s.p"]).ok();
    assert!((import.stdout + &import.stderr).contains("is frozen"));
    assert_eq!(other.json(&["show", "s.p"])["frozen"]["reason"], "kept");
    assert!(fs::exists(place).unwrap());
}

#[test]
fn what_cannot_be_frozen_is_said() {
    let world = World::with_table();
    world.dl(&["freeze"]).code(2);
    world.dl(&["freeze", "--namespace", "none"]).fails(&["namespace 'none' has no tables"]);
    world.dl(&["freeze", "s.t", "--reason", "a\nb"]).fails(&["a reason is one line"]);
    world.dl(&["freeze", "s.t", "--reason", " "]).fails(&["a reason is not empty"]);
    world.dl(&["freeze", "s.t", "--reason", &"x".repeat(501)]).fails(&["500 characters"]);
    world.dl(&["freeze", "s.t", "--token", ""]).fails(&["token"]);
    world.dl(&["freeze", "s.t", "--timeout", "5"]).code(2);
    world.dl(&["freeze", "s.t", "--wait", "--timeout", "-1"]).code(2);
    assert_eq!(world.json(&["show", "s.t"])["version"], 0);
    // Nobody publishes it.
    world
        .dl(&["freeze", "s.t", "--no-publish", "--wait", "--timeout", "0"])
        .fails(&["version 1 of table 's.t' is not published"]);
    world.dl(&["mirror", "run"]).ok();
    world.dl(&["freeze", "s.t", "--wait", "--timeout", "30"]).ok().says("is frozen already");
    world.create("s.off", "off", &["--no-mirror"]).ok();
    let off = world.json(&["freeze", "s.off"]);
    assert!(off["warnings"][0].as_str().unwrap().contains("publishing of 's.off' is off"));
    world.dl(&["freeze", "s.off", "--wait"]).fails(&["dl mirror enable s.off"]);
    // One that is dropped, and back.
    world.create("s.gone", "gone", &[]).ok();
    world.dl(&["drop", "s.gone"]).ok();
    world.dl(&["freeze", "s.gone"]).fails(&["s.gone"]);
}

/// A table without a fence gets its protocol back, whatever it was.
#[test]
fn a_table_without_a_fence_is_frozen_as_well() {
    let world = World::new();
    world.create("s.t", "t", &["--no-fence", "--partition-by", "day"]).ok();
    let before = world.json(&["show", "s.t"])["protocol"].clone();
    world.dl(&["freeze", "s.t"]).ok();
    assert_eq!(world.json(&["show", "s.t"])["features"]["fence"], false);
    world.dl(&["cutover", "s.t"]).fails(&["is frozen"]);
    world.dl(&["unfreeze", "s.t"]).ok();
    assert_eq!(world.json(&["show", "s.t"])["protocol"], before);
    world.dl(&["cutover", "s.t"]).ok();
    world.dl(&["freeze", "s.t"]).ok();
    // The fence is up already: nothing would change.
    world.dl(&["cutover", "s.t"]).fails(&["is frozen"]);
    world.dl(&["unfreeze", "s.t"]).ok();
    world.dl(&["release", "s.t"]).ok();
}
