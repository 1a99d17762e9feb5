//! `list`, `show`, `files`, `history`.

use serde_json::Value;

use crate::world::{World, add};

/// Four versions: a table, then one file a day.
fn three_days() -> World {
    let world = World::with_table();
    for day in 1..=3 {
        let first = day * 10;
        let ids: Vec<i64> = (first..first + 10).collect();
        let file = world.parquet(&format!("t/day=2026-01-0{day}/x.parquet"), &ids);
        world.dl(&["append", "s.t", &file]).ok();
    }
    world
}

fn paths(files: &Value) -> Vec<String> {
    files.as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn list_filters_by_namespace() {
    let world = World::new();
    for name in ["a.x", "a.y", "b.x", "plain", "a.b.c"] {
        world.create(name, &format!("at-{name}"), &[]).ok();
    }
    let names = |arguments: &[&str]| -> Vec<String> {
        let tables = world.json(arguments);
        tables.as_array().unwrap().iter().map(|t| t["table"].as_str().unwrap().into()).collect()
    };
    assert_eq!(names(&["list"]), ["a.x", "a.y", "a.b.c", "b.x", "default.plain"]);
    assert_eq!(names(&["list", "--namespace", "a"]), ["a.x", "a.y"]);
    assert_eq!(names(&["list", "--namespace", "none"]), [""; 0]);
    world.dl(&["list"]).ok().says("TABLE").says("default.plain");
}

#[test]
fn hostile_names_are_names() {
    let world = World::new();
    for (n, name) in ["s.'; DROP TABLE dl_tables;--", "s.50% off", "s.naïve 🚀", "s.\"quoted\""]
        .iter()
        .enumerate()
    {
        world.create(name, &format!("t{n} '` #🚀"), &[]).ok();
        let shown = world.json(&["show", name]);
        assert_eq!(shown["table"], *name);
        world.dl(&["diff", "--table", name]).ok();
    }
    assert_eq!(world.json(&["list"]).as_array().unwrap().len(), 4);
}

#[test]
fn many_files_are_found_through_the_index() {
    let world = World::with_table();
    let many = |from: i64| -> String {
        let line = |n: i64| {
            let stats = format!(
                "{{\\\"numRecords\\\":10,\\\"minValues\\\":{{\\\"id\\\":{0}}},\
                 \\\"maxValues\\\":{{\\\"id\\\":{1}}}}}",
                n * 10,
                n * 10 + 9
            );
            format!(
                "{{\"add\":{{\"path\":\"f{n}\",\"partitionValues\":{{\"day\":\"{}\"}},\"size\":1,\
                 \"modificationTime\":1,\"dataChange\":true,\"stats\":\"{stats}\"}}}}\n",
                n % 100
            )
        };
        (from..from + 1_000).map(line).collect()
    };
    let indexed = || world.json(&["show", "s.t"])["skipping_index"]["files"].clone();
    assert_eq!(indexed(), 0);
    for from in [0, 1_000] {
        let file = world.file("actions.json", &many(from));
        world.dl(&["commit", "s.t", &file, "--blind"]).ok();
        // When the command ends, they are in it.
        assert_eq!(indexed(), from + 1_000);
    }
    world.dl(&["show", "s.t"]).ok().says("2,000 files, in 2 segments");
    let found = |condition: &str| paths(&world.json(&["files", "s.t", "--where", condition]));
    assert_eq!(found("id between 9985 and 10015"), ["f998", "f999", "f1000", "f1001"]);
    assert_eq!(found("day = '7' and id < 2000"), ["f7", "f107"]);
    assert_eq!(found("day = '7'").len(), 20);
    assert_eq!(found("day is null"), [""; 0]);
}

#[test]
fn files_are_pruned_by_partition_and_statistics() {
    let world = three_days();
    assert_eq!(world.json(&["files", "s.t"]).as_array().unwrap().len(), 3);
    let one = |condition: &str| paths(&world.json(&["files", "s.t", "--where", condition]));
    assert_eq!(one("day = '2026-01-02'"), ["day=2026-01-02/x.parquet"]);
    assert_eq!(one("id > 29"), ["day=2026-01-03/x.parquet"]);
    assert_eq!(one("id between 15 and 22").len(), 2);
    assert_eq!(one("id < 0 OR name IS NULL").len(), 0);
    let limited = world.json(&["files", "s.t", "--limit", "2"]);
    assert_eq!(limited.as_array().unwrap().len(), 2);
    assert_eq!(limited[0]["num_records"], 10);
    assert_eq!(limited[0]["stats"]["minValues"]["id"], 10);
    let table = world.dl(&["files", "s.t", "--where", "day = '2026-01-02'"]).ok();
    assert!(table.stderr.contains("1 of 3 files"), "{}", table.stderr);
    world.dl(&["files", "s.t", "--where", "nix = 1"]).fails(&["nix", "id, name, day"]);
    world.dl(&["files", "s.t", "--where", "id = "]).fails(&["filter"]);
    world.dl(&["files", "s.t", "--where", "1; DROP TABLE x"]).fails(&[]);
}

#[test]
fn time_travel_is_by_version_and_by_time() {
    let world = three_days();
    let history = world.json(&["history", "s.t"]);
    assert_eq!(history.as_array().unwrap().len(), 4);
    for version in 0..4_usize {
        let shown = world.json(&["show", "s.t", "--version", &version.to_string()]);
        assert_eq!(shown["num_files"], version);
        let commit = &history[3 - version];
        assert_eq!(commit["version"], version);
        let time = commit["timestamp_ms"].to_string();
        assert_eq!(world.json(&["files", "s.t", "--at", &time]).as_array().unwrap().len(), version);
    }
    assert_eq!(world.json(&["show", "s.t", "--at", "2999-01-01"])["version"], 3);
    assert_eq!(world.json(&["show", "s.t", "--at", "2999-01-01 00:00:00"])["version"], 3);
    world.dl(&["show", "s.t", "--at", "2001-01-01"]).fails(&["2001-01-01", "0 to 3"]);
    world.dl(&["show", "s.t", "--version", "4"]).fails(&["4", "0 to 3"]);
    world.dl(&["show", "s.t", "--at", "soon"]).fails(&["RFC 3339"]);
    world.dl(&["show", "s.t", "--at", "1", "--version", "1"]).code(2);
    world.dl(&["show", "s.t", "--version", "1"]).ok().says("the head is 3");
}

#[test]
fn history_lies_between_times() {
    let world = three_days();
    let history = world.json(&["history", "s.t"]);
    let time = |index: usize| history[index]["timestamp_ms"].to_string();
    let some = world.json(&["history", "s.t", "--from", &time(2), "--to", &time(0)]);
    let versions: Vec<_> =
        some.as_array().unwrap().iter().map(|c| c["version"].as_i64().unwrap()).collect();
    assert_eq!(versions, [2, 1]);
    let latest = world.json(&["history", "s.t", "--limit", "1"]);
    assert_eq!(latest[0]["version"], 3);
    assert_eq!(latest[0]["files_added"], 1);
    assert_eq!(latest[0]["total_files"], 3);
    assert_eq!(latest[0]["who"], crate::world::USER);
    let engine = latest[0]["commit_info"]["engineInfo"].as_str().unwrap();
    assert!(engine.contains("deltalakedb"), "{engine}");
    assert_eq!(history[3]["changes_protocol"], true);
    world.dl(&["history", "s.t", "--from", "2999-01-01"]).ok().says("VERSION");
    world.dl(&["history", "s.t"]).ok().says("CREATE TABLE").says("protocol, metadata");
    world.dl(&["history", "s.t", "--from", "x"]).fails(&["not a time"]);
}

#[test]
fn show_reads_well_and_in_json() {
    let world = three_days();
    let text = world.dl(&["show", "s.t"]).ok().stdout;
    for word in ["s.t", "Version", "3 (", "Partitioned by", "id long not null", "published up to"] {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
    let shown = world.json(&["show", "s.t"]);
    assert_eq!(shown["protocol"]["minWriterVersion"], 7);
    assert!(shown["features"]["writer"].to_string().contains("inCommitTimestamp"));
    assert_eq!(shown["mirror"], "active");
    assert_eq!(shown["first_version"], 0);
}

#[test]
fn foreign_text_cannot_drive_the_terminal() {
    let world = World::with_table();
    let info = r#"{"commitInfo":{"operation":"\u001b[31mEVIL\nLINE","userName":"\u001b]0;x"}}"#;
    let input = format!("{info}\n{}", add("day=1/a%1b.parquet", "\\u001b[2J"));
    world.dl_with_input(&["commit", "s.t"], &input).ok();
    for command in ["history", "files", "show"] {
        let run = world.dl(&[command, "s.t"]).ok();
        assert!(!run.stdout.contains('\u{1b}'), "{command}: {:?}", run.stdout);
    }
    assert_eq!(world.json(&["history", "s.t"])[0]["operation"], "\u{1b}[31mEVIL\nLINE");
}

#[test]
fn long_lists_are_printed_in_columns_throughout() {
    let world = World::with_table();
    let lines: Vec<String> = (0..2_500)
        .map(|n| {
            // Later pages have shorter names than the first.
            let name = format!("{}{n:04}", "x".repeat(if n < 900 { 40 } else { n % 7 }));
            add(&format!("day=1/{name}.parquet"), "1")
        })
        .collect();
    world.dl_with_input(&["commit", "s.t", "--no-publish"], &lines.join("\n")).ok();
    let text = world.dl(&["files", "s.t"]).ok().stdout;
    assert_eq!(text.lines().count(), 2_501);
    let column = |line: &str| line.find("10 B").unwrap();
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(column(lines[0]), column(lines[2_499]));
    assert_eq!(world.json(&["files", "s.t"]).as_array().unwrap().len(), 2_500);
}
