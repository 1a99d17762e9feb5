//! Tables whose paths other engines have spelt in their way: absolute, with other schemes, dots, escapes.

use std::fs;

use serde_json::json;

use crate::world::{World, add};

const SCHEMA: &str = r#"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}},{\"name\":\"name\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}}]}"#;

/// The log of a table that another engine wrote, with these files in it.
fn log(world: &World, table: &str, files: &[(&str, &str)]) {
    let mut lines = format!(
        "{{\"protocol\":{{\"minReaderVersion\":1,\"minWriterVersion\":2}}}}\n{{\"metaData\":{{\"id\":\"x\",\"format\":{{\"provider\":\"parquet\",\"options\":{{}}}},\"schemaString\":\"{SCHEMA}\",\"partitionColumns\":[],\"configuration\":{{}},\"createdTime\":1}}}}\n"
    );
    for (file, path) in files {
        let size = fs::metadata(world.path(file)).unwrap().len();
        let line = format!(
            "{{\"add\":{{\"path\":\"{path}\",\"partitionValues\":{{}},\"size\":{size},\"modificationTime\":1700000000000,\"dataChange\":true}}}}\n"
        );
        lines.push_str(&line);
    }
    world.file(&format!("{table}/_delta_log/00000000000000000000.json"), &lines);
}

/// A table `s.t` at `t/` with one row in each file, each spelt in another way.
fn spelt() -> (World, Vec<&'static str>) {
    let world = World::new();
    let root = world.path("t").to_str().unwrap().to_owned();
    let files = vec![
        ("t/plain.parquet", "plain.parquet".to_owned()),
        ("t/a b%20c.parquet", "a%20b%2520c.parquet".to_owned()),
        ("t/x/double.parquet", "x//double.parquet".to_owned()),
        ("t/x/dots.parquet", "./gone/../x/./dots.parquet".to_owned()),
        ("t/up.parquet", "../t/up.parquet".to_owned()),
        ("t/bare.parquet", format!("{root}/bare.parquet")),
        ("t/one slash.parquet", format!("file:{root}/one%20slash.parquet")),
        ("t/three.parquet", format!("file://{root}/three.parquet")),
        ("t/host.parquet", format!("FILE://localhost{root}/host.parquet")),
    ];
    for (i, (file, _)) in files.iter().enumerate() {
        world.parquet(file, &[i64::try_from(i).unwrap()]);
    }
    let named: Vec<(&str, &str)> = files.iter().map(|(f, p)| (*f, p.as_str())).collect();
    log(&world, "t", &named);
    world.dl(&["import", world.path("t").to_str().unwrap(), "s.t"]).ok();
    (world, files.into_iter().map(|(file, _)| file).collect())
}

#[test]
fn append_passes_over_files_that_are_there_by_another_spelling() {
    let (world, files) = spelt();
    let again = world.json(&["append", "s.t", "t"]);
    assert_eq!(again["appended"]["files"], json!(0));
    assert_eq!(again["appended"]["skipped"], json!(files.len()));
    world.parquet("t/new one.parquet", &[100]);
    let more = world.json(&["append", "s.t", "t"]);
    assert_eq!(more["appended"]["files"], json!(1));
    let again = world.json(&["append", "s.t", "t/new one.parquet"]);
    assert_eq!(again["appended"]["files"], json!(0));
    // A file under two spellings in one commit.
    let twice = [add("z.parquet", "d"), add("./z.parquet", "d")].join("\n");
    world.create("s.u", "u", &["--partition-by", "day"]).ok();
    world.dl_with_input(&["commit", "s.u"], &twice).fails(&["line 2", "in line 1"]);
}

#[cfg(feature = "sql")]
#[test]
fn queries_read_the_file_that_is_meant() {
    let (world, files) = spelt();
    let all = "SELECT id FROM s.t ORDER BY id";
    let run = world.dl(&["sql", all, "--to", "csv"]).ok();
    let want: Vec<String> = (0..files.len()).map(|i| i.to_string()).collect();
    assert_eq!(run.stdout.lines().skip(1).collect::<Vec<_>>(), want);
    // A clone that has its files elsewhere on the same disk, and one that nobody here can open.
    let root = world.path("t").to_str().unwrap().to_owned();
    let clone = format!("file:{root}/a%20b%2520c.parquet");
    log(&world, "clone", &[("t/a b%20c.parquet", &clone)]);
    world.dl(&["import", world.path("clone").to_str().unwrap(), "s.clone"]).ok();
    let query = ["sql", "SELECT id FROM s.clone", "--to", "csv"];
    assert_eq!(world.dl(&query).ok().stdout, "id\n1\n");
    log(&world, "far", &[("t/plain.parquet", "s3://elsewhere/far/x.parquet")]);
    world.dl(&["import", world.path("far").to_str().unwrap(), "s.far"]).ok();
    world.dl(&["sql", "SELECT id FROM s.far"]).fails(&[
        "s3://elsewhere/far/x.parquet",
        "'s.far'",
        "another store",
    ]);
}

#[test]
fn vacuum_says_what_it_left_to_other_tables() {
    let (world, files) = spelt();
    world.parquet("t/inner/a.parquet", &[1]);
    log(&world, "t/inner", &[("t/inner/a.parquet", "a.parquet")]);
    world.file("t/orphan.parquet", "data");
    let now = ["vacuum", "s.t", "--retain-hours", "0", "--accept-short-retention"];
    world
        .dl(&now)
        .ok()
        .says("  orphan.parquet\n")
        .says("Left alone: 1 folder of another table: inner.");
    let report = world.json(&[&now[..], &["--delete"]].concat());
    assert_eq!(report["files"], json!(["orphan.parquet"]));
    assert_eq!(report["other_tables"], json!(1));
    assert_eq!(report["other_table_folders"], json!(["inner"]));
    assert!(files.iter().all(|file| world.path(file).exists()));
    assert!(world.path("t/inner/a.parquet").exists());
}

/// Its writer encodes names in its own way, and writes a checkpoint after each commit.
#[cfg(feature = "sql")]
#[test]
fn changes_take_effect_on_files_with_names_that_must_be_encoded() {
    let world = World::new();
    let ids = |at: i64| [at, at + 1];
    let folders = ["p=2020-01-01 00%3A00%3A00", "p=2020-01-02 00%3A00%3A00"];
    for (at, (folder, name)) in folders.iter().zip(["a b", "[x] é%"]).enumerate() {
        let at = i64::try_from(at).unwrap() * 2;
        world.parquet(&format!("t/{folder}/{name}.parquet"), &ids(at));
    }
    let location = world.path("t");
    world
        .dl(&[
            "create",
            "s.t",
            "--location",
            location.to_str().unwrap(),
            "--columns",
            "id long not null, name string, p timestamp",
            "--partition-by",
            "p",
            "--property",
            "delta.checkpointInterval=1",
        ])
        .ok();
    world.dl(&["append", "s.t", "t"]).ok();
    world.dl(&["delete", "s.t", "--where", "id = 1"]).ok().says("Deleted 1 row");
    world.dl(&["update", "s.t", "--set", "id = 9", "--where", "id = 2"]).ok().says("Updated 1 row");
    let run = world.dl(&["sql", "SELECT id FROM s.t ORDER BY id", "--to", "csv"]).ok();
    assert_eq!(run.stdout, "id\n0\n3\n9\n");
    world.dl(&["diff", "s.t"]).ok();
}
