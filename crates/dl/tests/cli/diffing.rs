//! `diff`: exit codes, flags, metrics.

use std::fs;

use serde_json::Value;

use crate::world::{World, add};

const NAMES: &[&str] = &[
    "dl_mirror_lag_seconds",
    "dl_mirror_status",
    "dl_mirror_reconciliation_attempts_total",
    "dl_file_drift_count",
    "dl_metadata_drift",
    "dl_protocol_drift",
    "dl_version_delta",
];

fn commit(world: &World, name: &str) {
    world.dl_with_input(&["commit", "s.t"], &add(&format!("day=1/{name}.parquet"), "1")).ok();
}

#[test]
fn parity_is_0() {
    let world = World::with_table();
    commit(&world, "a");
    world.dl(&["diff", "--table", "s.t"]).ok().says("s.t: parity");
    let report = world.json(&["diff", "--table", "s.t"]);
    assert_eq!(report["verdict"], "parity");
    assert_eq!(report["table"], "s.t");
    assert_eq!(report["catalog_version"], 1);
    let id = report["table_id"].as_str().unwrap();
    world.dl(&["diff", "--table-id", id]).ok();
    // All published tables.
    let all = world.json(&["diff"]);
    assert_eq!(all.as_array().unwrap().len(), 1);
}

#[test]
fn drift_is_2() {
    let world = World::with_table();
    for name in ["a", "b", "c"] {
        commit(&world, name);
    }
    fs::create_dir_all(world.path("copy/_delta_log")).unwrap();
    for version in 0..3 {
        let name = format!("_delta_log/{version:020}.json");
        fs::copy(world.path("t").join(&name), world.path("copy").join(&name)).unwrap();
    }
    let forged = add("day=1/forged.parquet", "1");
    world.file("copy/_delta_log/00000000000000000003.json", &forged);
    let arguments = ["diff", "--table", "s.t", "--log-dir", "copy/_delta_log"];
    world.dl(&arguments).code(2).says("DRIFT").says("day=1/forged.parquet");
    let mut few = arguments.to_vec();
    few.extend(["--max-drift-files", "1", "--format", "json"]);
    let report = world.dl(&few).code(2).json();
    assert_eq!(report["files"]["only_in_log"], 1);
    assert_eq!(report["files"]["only_in_catalog"], 1);
    assert!(report["files"]["examples"].as_array().unwrap().len() <= 2);
    assert_eq!(report["bytes"]["different"]["first"][0], 3);
}

#[test]
fn lag_alone_is_3_and_only_above_its_threshold() {
    let world = World::with_table();
    world.dl_with_input(&["commit", "s.t", "--no-publish"], &add("day=1/a.parquet", "1")).ok();
    world.dl(&["diff", "--table", "s.t", "--lag-threshold-seconds", "3600"]).ok();
    // Without a threshold any lag counts.
    world.dl(&["diff", "--table", "s.t"]).code(3);
    world.dl(&["mirror", "run"]).ok();
    world.dl(&["diff", "s.t"]).ok();
}

#[test]
fn errors_are_1() {
    let world = World::with_table();
    world.dl(&["diff", "--table", "s.none"]).fails(&["s.none"]);
    world.dl(&["diff", "--table-id", "x"]).fails(&["'x'"]);
    world.dl(&["diff", "--log-dir", "t/_delta_log"]).fails(&["--table"]);
    world.dl(&["diff", "--table", "s.t", "--table-id", "x"]).code(1);
    world.dl(&["diff", "--table", "s.t", "--metrics-format", "xml"]).code(1);
    world
        .dl(&["diff", "--table", "s.t", "--metrics-output", "catalog.db/x"])
        .fails(&["catalog.db/x"]);
    world
        .dl(&["diff", "--table", "s.t", "--metrics-output", "-", "--json-output", "-"])
        .fails(&["standard output"]);
}

#[test]
fn metrics_bear_their_names() {
    let world = World::with_table();
    commit(&world, "a");
    world
        .dl(&[
            "diff",
            "--table",
            "s.t",
            "--metrics-format",
            "prometheus",
            "--metrics-output",
            "dl.prom",
            "--json-output",
            "report.json",
        ])
        .ok()
        .says("parity");
    let text = world.read("dl.prom");
    let id = world.json(&["show", "s.t"])["id"].as_str().unwrap().to_owned();
    for name in NAMES {
        assert!(text.contains(&format!("# TYPE {name} ")), "{text}");
    }
    assert!(text.contains(&format!("dl_mirror_lag_seconds{{table_id=\"{id}\"}} 0")), "{text}");
    assert!(
        text.contains(&format!("dl_mirror_status{{table_id=\"{id}\",version=\"1\"}} 1")),
        "{text}"
    );
    let report: Value = serde_json::from_str(&world.read("report.json")).unwrap();
    assert_eq!(report["verdict"], "parity");
    assert!(
        !world
            .path("")
            .read_dir()
            .unwrap()
            .any(|f| { f.unwrap().file_name().to_string_lossy().contains("unfinished") })
    );

    let run = world.dl(&["diff", "--table", "s.t", "--metrics-format", "json"]).ok();
    let metrics = run.json();
    for name in NAMES {
        assert!(metrics[name].is_array(), "{name}: {metrics}");
    }
    assert!(run.stderr.contains("parity"), "the report goes to standard error: {}", run.stderr);
    let run = world.dl(&["diff", "--json-output", "--table", "s.t"]).ok();
    assert_eq!(run.json()["verdict"], "parity");
}
