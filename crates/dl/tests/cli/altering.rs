//! `alter`.

use serde_json::{Value, json};

use crate::world::World;

/// The actions of a published version.
fn published(world: &World, table: &str, version: u32) -> Vec<Value> {
    let text = world.read(&format!("{table}/_delta_log/{version:020}.json"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn action<'a>(actions: &'a [Value], name: &str) -> Option<&'a Value> {
    actions.iter().find_map(|action| action.get(name))
}

/// A text in JSON that is JSON.
fn inner(value: &Value) -> Value {
    serde_json::from_str(value.as_str().unwrap()).unwrap()
}

#[test]
fn each_change_is_a_commit_as_spark_writes_it() {
    let world = World::new();
    world.create("s.t", "t", &["--partition-by", "day"]).ok();
    let file = world.parquet("t/day=1/a.parquet", &[1, 2]);
    world.dl(&["append", "s.t", &file]).ok();
    let steps: [(&[&str], &str, Value); 6] = [
        (
            &["--description", "one row an order"],
            "SET TBLPROPERTIES",
            json!({"properties": {"comment": "one row an order"}}),
        ),
        (
            &["--set", "delta.checkpointInterval=20", "--set", "team=sales"],
            "SET TBLPROPERTIES",
            json!({"properties": {"delta.checkpointInterval": "20", "team": "sales"}}),
        ),
        (&["--unset", "team"], "UNSET TBLPROPERTIES", json!({"properties": ["team"]})),
        (
            &["--add-column", "note string comment 'free text'"],
            "ADD COLUMNS",
            json!({"columns": [{"column": {"name": "note", "type": "string", "nullable": true,
                                            "metadata": {"comment": "free text"}}}]}),
        ),
        (
            &["--comment", "id=as the shop counts"],
            "CHANGE COLUMN",
            json!({"column": {"name": "id", "type": "long", "nullable": false,
                               "metadata": {"comment": "as the shop counts"}}}),
        ),
        (
            &["--set-nullable", "id"],
            "CHANGE COLUMN",
            json!({"column": {"name": "id", "type": "long", "nullable": true,
                               "metadata": {"comment": "as the shop counts"}}}),
        ),
    ];
    for (n, (arguments, operation, parameters)) in steps.into_iter().enumerate() {
        world.dl(&[&["alter", "s.t"], arguments].concat()).ok();
        let actions = published(&world, "t", u32::try_from(n).unwrap() + 2);
        let info = action(&actions, "commitInfo").unwrap();
        assert_eq!(info["operation"], operation);
        for (key, value) in parameters.as_object().unwrap() {
            assert_eq!(&inner(&info["operationParameters"][key]), value, "{info}");
        }
        assert!(action(&actions, "metaData").is_some(), "{actions:?}");
        assert!(action(&actions, "add").is_none(), "{actions:?}");
    }
    // What every Delta reader sees is what the catalog says.
    world.dl(&["diff", "s.t"]).ok();
    let shown = world.json(&["show", "s.t"]);
    assert_eq!(shown["description"], "one row an order");
    assert_eq!(shown["version"], 7);
    assert_eq!(shown["num_files"], 1);
    world.dl(&["check", "s.t", "--footers"]).ok();
    // Once more is nothing.
    world.dl(&["alter", "s.t", "--set-nullable", "id"]).ok().says("so already");
    assert_eq!(world.json(&["alter", "s.t", "--set-nullable", "ID"])["changed"], false);
    assert_eq!(world.json(&["show", "s.t"])["version"], 7);
    // Rows that came before a column are read as null; appends go on.
    let file = world.parquet("t/day=1/b.parquet", &[3]);
    world.dl(&["append", "s.t", &file]).ok();
}

#[test]
fn columns_are_renamed_and_dropped_under_column_mapping() {
    let world = World::new();
    world.create("s.t", "t", &["--partition-by", "day"]).ok();
    let file = world.parquet("t/day=1/a.parquet", &[1, 2]);
    world.dl(&["append", "s.t", &file]).ok();
    world
        .dl(&["alter", "s.t", "--rename-column", "name=label"])
        .fails(&["'name' cannot be renamed", "delta.columnMapping.mode=name"]);
    world.dl(&["alter", "s.t", "--set", "delta.columnMapping.mode=name"]).ok();
    let actions = published(&world, "t", 2);
    let protocol = action(&actions, "protocol").unwrap();
    assert_eq!(protocol["readerFeatures"], json!(["columnMapping"]));
    assert!(protocol["writerFeatures"].to_string().contains("deltalakedb"));
    world.dl(&["diff", "s.t"]).ok();
    world.dl(&["alter", "s.t", "--rename-column", "name=the label"]).ok();
    world.dl(&["alter", "s.t", "--rename-column", "day=date of order"]).ok();
    world.dl(&["diff", "s.t"]).ok();
    // By their names in files they are all there, and have their rows.
    let report = world.json(&["check", "s.t", "--footers"]);
    assert_eq!((&report["footers"], &report["not_comparable"]["count"]), (&json!(1), &json!(0)));
    let shown = world.json(&["show", "s.t"]);
    assert_eq!(shown["partition_columns"], json!(["date of order"]));
    assert_eq!(shown["properties"]["delta.columnMapping.maxColumnId"], "3");
    // The filter knows the new name, the files the old one.
    let files = world.json(&["files", "s.t", "--where", "`date of order` = '1'"]);
    assert_eq!(files.as_array().unwrap().len(), 1);
    world.dl(&["alter", "s.t", "--drop-column", "`the label`"]).ok();
    world.dl(&["alter", "s.t", "--add-column", "name long"]).ok();
    let actions = published(&world, "t", 6);
    let schema = inner(&action(&actions, "metaData").unwrap()["schemaString"]);
    let name = schema["fields"].as_array().unwrap().last().unwrap();
    assert_eq!(name["metadata"]["delta.columnMapping.id"], 4);
    let physical = name["metadata"]["delta.columnMapping.physicalName"].as_str().unwrap();
    assert!(physical.starts_with("col-"), "{physical}");
    world.dl(&["diff", "s.t"]).ok();
    world.dl(&["check", "s.t", "--footers"]).ok();
    world.dl(&["alter", "s.t", "--drop-column", "`date of order`"]).fails(&["partitioned by it"]);
    world
        .dl(&["alter", "s.t", "--set", "delta.columnMapping.mode=none"])
        .fails(&["cannot go from"]);
}

#[test]
fn constraints_are_added_and_dropped() {
    let world = World::new();
    world.create("s.t", "t", &["--partition-by", "day"]).ok();
    world.dl(&["alter", "s.t", "--add-constraint", "pos=id > 0"]).ok();
    let actions = published(&world, "t", 1);
    let info = action(&actions, "commitInfo").unwrap();
    assert_eq!(info["operation"], "ADD CONSTRAINT");
    assert_eq!(info["operationParameters"], json!({"name": "pos", "expr": "id > 0"}));
    assert!(
        action(&actions, "protocol").unwrap()["writerFeatures"]
            .to_string()
            .contains("checkConstraints")
    );
    for (constraint, word) in [
        ("x=nothing > 0", "nothing"),
        ("x=id >", "x"),
        ("pos=id > 1", "already"),
        ("=id > 1", "NAME=EXPRESSION"),
    ] {
        world.dl(&["alter", "s.t", "--add-constraint", constraint]).fails(&[word]);
    }
    let file = world.parquet("t/day=1/a.parquet", &[1]);
    world.dl(&["append", "s.t", &file]).fails(&["pos"]);
    world.dl(&["alter", "s.t", "--drop-constraint", "pos"]).ok();
    world.dl(&["append", "s.t", &file]).ok();
    if cfg!(feature = "sql") {
        world.dl(&["alter", "s.t", "--add-constraint", "pos=id > 1"]).fails(&[
            "'pos'",
            "1 row of",
            "Nothing was changed",
        ]);
    } else {
        world.dl(&["alter", "s.t", "--add-constraint", "pos=id > 0"]).fails(&[
            "1 file(s)",
            "every row would have to be checked",
            "Spark",
        ]);
    }
    world.dl(&["diff", "s.t"]).ok();
}

#[test]
fn what_cannot_be_changed_says_why() {
    let world = World::new();
    world.create("s.t", "t", &[]).ok();
    for (arguments, words) in [
        (vec!["--set", "delta.enableRowTracking=true"], vec!["delta.enableRowTracking", "row ids"]),
        (
            vec!["--set", "delta.logRetentionDuration=30"],
            vec!["delta.logRetentionDuration", "interval"],
        ),
        (vec!["--set", "delta.unheard=1"], vec!["delta.unheard", "not known here"]),
        (vec!["--unset", "none"], vec!["no property none"]),
        (vec!["--add-column", "id long"], vec!["'id' is there already"]),
        (vec!["--add-column", "x long not null"], vec!["not null"]),
        (vec!["--add-column", "x nonsense"], vec!["x nonsense"]),
        (vec!["--comment", "none=x"], vec!["unknown column 'none'"]),
        (vec!["--comment", "id"], vec!["COLUMN=TEXT"]),
        (vec!["--drop-constraint", "none"], vec!["no constraint 'none'"]),
    ] {
        world.dl(&[&["alter", "s.t"], arguments.as_slice()].concat()).fails(&words);
    }
    assert_eq!(world.json(&["show", "s.t"])["version"], 0);
    world.dl(&["alter", "s.t"]).code(2);
    world.dl(&["alter", "s.none", "--description", "x"]).fails(&["s.none"]);
    // All of one command is one commit.
    let both = ["alter", "s.t", "--add-column", "a int", "--set", "team=x", "--no-publish"];
    world.dl(&both).ok();
    let history = world.json(&["history", "s.t"]);
    assert_eq!(
        (&history[0]["version"], &history[0]["operation"]),
        (&json!(1), &json!("ALTER TABLE"))
    );
    assert_eq!(world.log_versions("t"), [0]);
}

/// Rows that there are count: in partitions, in files without statistics, deleted ones not.
#[cfg(feature = "sql")]
#[test]
fn a_constraint_is_checked_against_the_rows_that_there_are() {
    let world = World::new();
    world.create("s.t", "t", &["--partition-by", "day"]).ok();
    let rows = world.file(
        "rows.csv",
        "id,name,day\n1,one,2026-01-01\n2,two,2026-01-02\n3,,2026-01-02\n-4,four,2026-01-03\n",
    );
    world.dl(&["write", "s.t", &rows]).ok();
    let refused = |constraint: &str, rows: &str| {
        world.dl(&["alter", "s.t", "--add-constraint", constraint]).fails(&[
            rows,
            "at version 1",
            "false or null",
        ]);
    };
    refused("c=id > 0", "1 row of table 's.t'");
    refused("c=id between 1 and 2", "2 rows");
    // Null is not true.
    refused("c=name <> 'x'", "1 row");
    refused("c=day < '2026-01-02'", "3 rows");
    assert_eq!(world.json(&["show", "s.t"])["version"], 1, "nothing was changed");
    world.dl(&["alter", "s.t", "--add-constraint", "c=day > '2025' and id > -5"]).ok();
    world.dl(&["delete", "s.t", "--where", "id < 0"]).ok();
    world.dl(&["alter", "s.t", "--add-constraint", "positive=id > 0"]).ok();
    // Two of which one does not hold: neither is added.
    let both = ["alter", "s.t", "--add-constraint", "a=id < 9", "--add-constraint", "b=id < 3"];
    world.dl(&both).fails(&["'b'", "1 row"]);
    assert_eq!(world.json(&["show", "s.t"])["version"], 4);
    let bad = world.file("bad.csv", "id,name,day\n-1,x,2026-01-04\n");
    world.dl(&["write", "s.t", &bad]).fails(&["1 rows failed validation"]);
    world.dl(&["diff", "s.t"]).ok();
    // A file that is gone: nobody can say.
    for entry in std::fs::read_dir(world.path("t/day=2026-01-01")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    world.dl(&["alter", "s.t", "--add-constraint", "d=id > 0"]).code(1);
    assert_eq!(world.json(&["show", "s.t"])["version"], 4);
}
