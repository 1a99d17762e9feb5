//! `dl write` writes a value exactly or not at all, and never makes a column of type `void`.

use std::fs;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date64Array, Float64Array, Int64Array, NullArray, StringArray,
    TimestampNanosecondArray, UInt64Array,
};
use serde_json::{Value, json};

use crate::world::World;

/// Types of the columns of a table, by what is published.
fn types(world: &World, location: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for version in world.log_versions(location) {
        let text = world.read(&format!("{location}/_delta_log/{version:020}.json"));
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(schema) = line["metaData"]["schemaString"].as_str() {
                let schema: Value = serde_json::from_str(schema).unwrap();
                let fields = schema["fields"].as_array().unwrap();
                found = fields
                    .iter()
                    .map(|f| (f["name"].as_str().unwrap().to_owned(), f["type"].clone()))
                    .collect();
            }
        }
    }
    found
}

fn named(pairs: &[(&str, Value)]) -> Vec<(String, Value)> {
    pairs.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect()
}

#[test]
fn an_empty_csv_column_is_one_of_strings() {
    let world = World::new();
    world.file("1.csv", "id,note\n1,\n");
    world.file("2.csv", "id,note\n2,hello\n");
    let run = world.dl(&["write", "x.t", "1.csv", "--location", "t"]).ok();
    assert!(run.stderr.contains("column 'note' has no value"), "{}", run.stderr);
    assert_eq!(types(&world, "t"), named(&[("id", json!("long")), ("note", json!("string"))]));
    world.dl(&["write", "x.t", "2.csv"]).ok();
    let rows = world.json(&["sql", "SELECT id, note FROM x.t ORDER BY id"]);
    assert_eq!(rows[1], json!({ "id": 2, "note": "hello" }));
    // The value is in another file of the same command.
    world.dl(&["write", "x.both", "1.csv", "2.csv", "--location", "both"]).ok();
    assert_eq!(types(&world, "both")[1].1, "string");
    let said = ["write", "x.said", "1.csv", "--location", "said", "--columns", "note date"];
    world.dl(&said).ok();
    assert_eq!(types(&world, "said")[1].1, "date");
}

#[test]
fn json_without_a_type_is_refused_until_columns_say_it() {
    let world = World::new();
    for (i, (lines, column)) in [
        ("{\"id\":1,\"note\":null}\n", "'note'"),
        ("{\"id\":1,\"note\":[]}\n", "'note.element'"),
        ("{\"id\":1,\"note\":[[],null]}\n", "'note.element.element'"),
        ("{\"id\":1,\"note\":{}}\n", "'note'"),
        ("{\"id\":1,\"note\":{\"a\":null}}\n", "'note.a'"),
        ("{\"id\":1,\"note\":1}\n{\"id\":2,\"note\":\"x\"}\n", "row 2: column 'note'"),
        ("{\"id\":1,\"note\":[1]}\n{\"id\":2,\"note\":[\"x\"]}\n", "row 2: column 'note.element'"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = format!("{i}.json");
        world.file(&file, lines);
        world
            .dl(&["write", &format!("x.t{i}"), &file, "--location", &format!("t{i}")])
            .fails(&[column, "--columns"]);
    }
    let columns = "note array<string>";
    world.dl(&["write", "x.a", "1.json", "--location", "a", "--columns", columns]).ok();
    world.file("later.json", "{\"id\":2,\"note\":[\"x\",\"y\"]}\n{\"id\":3}\n");
    world.dl(&["write", "x.a", "later.json"]).ok();
    let rows = world.json(&["sql", "SELECT id, note FROM x.a ORDER BY id"]);
    assert_eq!(rows[1]["note"], json!(["x", "y"]));
    // Mixed values are what --columns says they are.
    world.dl(&["write", "x.m", "5.json", "--location", "m", "--columns", "note string"]).ok();
    let rows = world.json(&["sql", "SELECT note FROM x.m ORDER BY id"]);
    assert_eq!(rows, json!([{ "note": "1" }, { "note": "x" }]));
}

#[test]
fn no_other_way_makes_a_void_column() {
    let world = World::new();
    world.dl(&["write", "x.q", "--query", "SELECT 1 AS id, NULL AS x"]).fails(&["'x'", "CAST"]);
    let deep = "SELECT 1 AS id, named_struct('a', NULL) AS x";
    world.dl(&["write", "x.q", "--query", deep]).fails(&["'x.a'", "CAST"]);
    world.dl(&["write", "x.q", "--query", "SELECT 1 AS id, make_array() AS x"]).fails(&["'x"]);
    let nulls: ArrayRef = Arc::new(NullArray::new(1));
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    world.parquet_of("void.parquet", vec![("id", one.clone()), ("x", nulls)]);
    world.dl(&["write", "x.p", "void.parquet", "--location", "p"]).fails(&["'x'", "no values"]);
    world
        .dl(&["create", "x.c", "--location", "c", "--columns", "id long, x void"])
        .fails(&["void"]);
    let from = ["create", "x.c", "--location", "c", "--schema-from", "void.parquet"];
    world.dl(&from).fails(&["void.parquet", "'x'", "nothing but nulls"]);
    world.parquet_of("one.parquet", vec![("id", one)]);
    world.dl(&["write", "x.p", "one.parquet", "--location", "p"]).ok();
    let merge = ["write", "x.p", "void.parquet", "--schema-mode", "merge"];
    world.dl(&merge).fails(&["'x'", "no values"]);
    // Nulls without a type go where a type is known.
    let declared = [&merge[..], &["--columns", "x string"]].concat();
    world.dl(&declared).ok();
    assert_eq!(types(&world, "p")[1].1, "string");
    // Files are not rewritten, so one without a type is not the table's.
    fs::copy(world.path("void.parquet"), world.path("p/void.parquet")).unwrap();
    world.dl(&["append", "x.p", "p/void.parquet"]).fails(&["'x'", "nothing but nulls"]);
}

#[test]
fn columns_that_are_not_null_take_no_null() {
    let world = World::new();
    world.file("some.csv", "id,note\n1,x\n,y\n");
    let columns = ["--columns", "id long not null"];
    let new = ["write", "x.n", "some.csv", "--location", "n"];
    world.dl(&[&new[..], &columns].concat()).fails(&["some.csv", "line 3", "'id'", "not null"]);
    world.file("all.csv", "id,note\n1,x\n");
    world.dl(&["write", "x.n", "all.csv", "--location", "n", columns[0], columns[1]]).ok();
    assert!(world.dl(&["show", "x.n"]).ok().stdout.contains("not null"));
    world.dl(&["write", "x.n", "some.csv"]).fails(&["some.csv", "line 3", "'id'", "not null"]);
}

#[test]
fn json_fields_come_with_a_merge_and_never_get_lost() {
    let world = World::new();
    world.file("1.json", "{\"id\":1,\"s\":{\"a\":1}}\n");
    world.file("2.json", "{\"id\":2,\"s\":{\"a\":2,\"b\":\"x\"}}\n{\"id\":3}\n");
    world.dl(&["write", "x.s", "1.json"]).ok();
    world.dl(&["write", "x.s", "2.json"]).fails(&["2.json", "row 1", "'b'", "--schema-mode merge"]);
    world.dl(&["write", "x.s", "2.json", "--schema-mode", "merge"]).ok();
    let rows = world.json(&["sql", "SELECT id, s['b'] AS b FROM x.s ORDER BY id"]);
    assert_eq!(rows[1], json!({ "id": 2, "b": "x" }));
    // A type that shows late, a number that no double holds, a name that is there twice, no object.
    let late = format!("{}{{\"a\":1.5}}\n", "{\"a\":1}\n".repeat(2000));
    world.file("late.json", &late);
    world.dl(&["write", "x.late", "late.json", "--location", "late"]).ok();
    assert_eq!(types(&world, "late")[0].1, "double");
    world.file("long.json", "{\"a\":18446744073709551615}\n{\"a\":1}\n");
    world.dl(&["write", "x.long", "long.json", "--location", "long"]).ok();
    assert_eq!(types(&world, "long")[0].1, "decimal(38,0)");
    for (i, (text, words)) in [
        (
            "{\"a\":123456789012345678901234567890}\n",
            &["row 1", "'a'", "123456789012345678901234567890"][..],
        ),
        ("{\"a\":1}\n{\"a\":2,\n", &["row 2", "no JSON"]),
        ("{\"a\":1,\"a\":2}\n", &["row 1", "'a' is twice"]),
        ("[{\"a\":1}]\n", &["row 1", "an array is no row"]),
    ]
    .into_iter()
    .enumerate()
    {
        let file = format!("bad{i}.json");
        world.file(&file, text);
        let words = [&[file.as_str()], words].concat();
        world.dl(&["write", "x.bad", &file]).fails(&words);
    }
}

/// A table of another engine, with a void column.
fn imported(world: &World) {
    let log = world.path("v/_delta_log");
    fs::create_dir_all(&log).unwrap();
    let field = |name: &str, kind: &str| json!({ "name": name, "type": kind, "nullable": true, "metadata": { "comment": "kept" } });
    let schema =
        json!({ "type": "struct", "fields": [field("id", "long"), field("note", "void")] });
    let lines = [
        json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }),
        json!({ "metaData": {
            "id": "5fba94ed-9794-4965-ba6e-6ee3c0d22af9", "format": { "provider": "parquet", "options": {} },
            "schemaString": schema.to_string(), "partitionColumns": [], "configuration": {},
            "createdTime": 1,
        } }),
    ];
    let text = lines.map(|line| line.to_string()).join("\n");
    fs::write(log.join(format!("{:020}.json", 0)), text).unwrap();
    world.dl(&["import", "v", "x.v"]).ok();
}

#[test]
fn a_void_column_of_another_engine_takes_no_values_until_it_has_a_type() {
    let world = World::new();
    imported(&world);
    world.file("empty.csv", "id,note\n1,\n");
    world.dl(&["write", "x.v", "empty.csv"]).ok();
    world.file("full.csv", "id,note\n2,hello\n");
    world.file("full.json", "{\"id\":2,\"note\":\"hello\"}\n");
    for file in ["full.csv", "full.json"] {
        world.dl(&["write", "x.v", file]).fails(&[
            "'note'",
            "void",
            "'hello'",
            "--schema-mode merge",
        ]);
    }
    world.dl(&["write", "x.v", "--query", "SELECT 2 AS id, 'hello' AS note"]).fails(&[
        "'note'",
        "void",
        "hello",
        "--schema-mode merge",
    ]);
    world.dl(&["update", "x.v", "--set", "note = 'x'", "--all"]).fails(&["'note'", "void"]);
    world
        .dl(&[
            "merge",
            "x.v",
            "full.csv",
            "--on",
            "target.id = source.id",
            "--when-not-matched",
            "INSERT *",
        ])
        .fails(&["'note'", "void"]);
    world.dl(&["update", "x.v", "--set", "id = 7", "--all"]).ok();
    world.dl(&["write", "x.v", "full.csv", "--schema-mode", "merge"]).ok();
    assert_eq!(types(&world, "v"), named(&[("id", json!("long")), ("note", json!("string"))]));
    let rows = world.json(&["sql", "SELECT id, note FROM x.v ORDER BY id"]);
    assert_eq!(rows[0], json!({ "id": 2, "note": "hello" }));
    assert_eq!(rows[1]["id"], 7);
    assert!(rows[1]["note"].is_null(), "{rows}");
    world.dl(&["write", "x.v", "full.csv"]).ok();
}

#[test]
fn csv_types_hold_every_value_of_every_file() {
    let world = World::new();
    let mut long = String::from("n\n");
    for i in 0..3000 {
        long += &i.to_string();
        long.push('\n');
    }
    let point = format!("{long}1.5\n");
    let text = format!("{long}none\n");
    for (i, (lines, kind)) in [
        (long.as_str(), "long"),
        (&point, "double"),
        (&text, "string"),
        ("n\n9223372036854775807\n", "long"),
        ("n\n9223372036854775808\n1\n", "decimal(38,0)"),
        ("n\n9007199254740993\n0.5\n", "string"),
        ("n\n01234\n99999\n", "string"),
        ("n\n+5\n", "string"),
        ("n\n-5\n0\n", "long"),
        ("n\n1.5\nNaN\n", "double"),
        ("n\nNaN\n", "string"),
        ("n\n1e400\n", "string"),
        ("n\nTRUE\nfalse\n", "boolean"),
        ("n\n0001-01-01\n9999-12-31\n", "date"),
        ("n\n2026-02-29\n", "string"),
        ("n\n2026-01-31 10:00:00.123456\n2026-01-31T10:00:00\n", "timestamp_ntz"),
        ("n\n2026-01-31 10:00:00.123456789\n", "string"),
        ("n\n2026-01-31 10:00:00+02:00\n", "string"),
        ("n\n2026-01-31\n2026-01-31 10:00:00\n", "string"),
        ("\u{feff}n\r\n1\r\n2\r\n", "long"),
    ]
    .into_iter()
    .enumerate()
    {
        let (file, table, at) = (format!("{i}.csv"), format!("x.t{i}"), format!("t{i}"));
        world.file(&file, lines);
        world.dl(&["write", &table, &file, "--location", &at]).ok();
        assert_eq!(types(&world, &at), named(&[("n", json!(kind))]), "{lines:.60}");
    }
    let last = world.json(&["sql", "SELECT n FROM x.t4 ORDER BY n DESC LIMIT 1"]);
    assert!(last[0]["n"].to_string().contains("9223372036854775808"), "{last}");
}

#[test]
fn csv_files_that_are_wrong_are_named_with_their_line() {
    let world = World::new();
    for (i, (text, words)) in [
        ("a,b\n1,2\n3\n", &["line 3", "1 value", "2 columns"][..]),
        ("a,b\n\"x\ny\",2\n3,4,5\n", &["line 4", "3 values"]),
        ("a,b\r\n1,2\r\n3\r\n", &["line 3"]),
        ("a,a\n1,2\n", &["two columns", "'a'"]),
        ("a,A\n1,2\n", &["two columns", "'A'"]),
        ("a,\n1,2\n", &["column 2 has no name"]),
        ("a,b\n1,\"x\n", &["line 2", "quote"]),
        ("", &["is empty"]),
        ("a\n1\n\n2\n", &["line 4", "empty line"]),
    ]
    .into_iter()
    .enumerate()
    {
        let file = format!("{i}.csv");
        world.file(&file, text);
        let words = [&[file.as_str()], words].concat();
        world.dl(&["write", &format!("x.t{i}"), &file]).fails(&words);
    }
    fs::write(world.path("latin.csv"), b"a\nok\ncaf\xe9\n").unwrap();
    world.dl(&["write", "x.latin", "latin.csv"]).fails(&["latin.csv", "line 3", "UTF-8"]);
    world.file("one.csv", "a,b\n1,2\n");
    world.file("other.csv", "a,c\n1,2\n");
    world.dl(&["write", "x.two", "one.csv", "other.csv"]).fails(&["other.csv", "'c'"]);
    // The same columns in another order are the same columns.
    world.file("turned.csv", "b,a\n20,10\n");
    world.dl(&["write", "x.two", "one.csv", "turned.csv"]).ok();
    let rows = world.json(&["sql", "SELECT a, b FROM x.two ORDER BY a"]);
    assert_eq!(rows, json!([{ "a": 1, "b": 2 }, { "a": 10, "b": 20 }]));
    world.file("quotes.csv", "a,b\n1,\"\"\n2,\n3,\"x\n\"\"y\"\"\"\n");
    world.dl(&["write", "x.quotes", "quotes.csv"]).ok();
    let rows = world.json(&["sql", "SELECT b, b IS NULL AS none FROM x.quotes ORDER BY a"]);
    assert_eq!(rows[0], json!({ "b": "", "none": false }));
    assert_eq!(rows[1]["none"], true);
    assert_eq!(rows[2]["b"], "x\n\"y\"");
}

#[test]
fn text_that_does_not_fit_the_table_is_named() {
    let world = World::new();
    let columns =
        "b byte, n integer, d decimal(5,2), f double, t timestamp, z timestamp_ntz, o boolean";
    world.dl(&["create", "x.t", "--location", "t", "--columns", columns]).ok();
    let good = [
        "127",
        "-2147483648",
        "999.99",
        "-0.0",
        "9999-12-31T23:59:59.999999Z",
        "0001-01-01 00:00:00",
        "true",
    ];
    let write = |at: usize, value: &str| {
        let mut row = good.map(str::to_owned);
        if let Some(place) = row.get_mut(at) {
            value.clone_into(place);
        }
        world.file("r.csv", &format!("b,n,d,f,t,z,o\n{}\n{}\n", good.join(","), row.join(",")));
        world.dl(&["write", "x.t", "r.csv"])
    };
    write(99, "").ok();
    for (at, column, value) in [
        (0, "b", "128"),
        (0, "b", "1.0"),
        (1, "n", "2147483648"),
        (1, "n", "x"),
        (2, "d", "1.005"),
        (2, "d", "1000"),
        (3, "f", "1e999"),
        (3, "f", "9007199254740993"),
        (4, "t", "2026-01-31T00:00:00.0000001Z"),
        (4, "t", "2026-13-01"),
        (5, "z", "2026-01-31T00:00:00+02:00"),
        (6, "o", "yes"),
    ] {
        write(at, value).fails(&["r.csv", "line 3", &format!("'{column}'"), value]);
    }
    for (at, value) in [(2, "1.500"), (2, "1e2"), (3, "1e-400"), (4, "2026-01-31T01:00:00+02:00")] {
        write(at, value).ok();
    }
    let rows = world.json(&["sql", "SELECT count(*) AS n, count(b) AS b, count(t) AS t FROM x.t"]);
    assert_eq!(rows, json!([{ "n": 10, "b": 10, "t": 10 }]));
}

#[test]
fn rows_of_parquet_files_and_queries_lose_nothing() {
    let world = World::new();
    let columns = "i integer, f float, d date, t timestamp, l long, c decimal(4,1)";
    world.dl(&["create", "x.t", "--location", "t", "--columns", columns]).ok();
    let one = |column: &str, values: ArrayRef| {
        let rest = ["i", "f", "d", "t", "l", "c"].into_iter().filter(|c| *c != column);
        let nulls = |c| (c, Arc::new(NullArray::new(1)) as ArrayRef);
        world.parquet_of("r.parquet", rest.map(nulls).chain([(column, values)]).collect());
        world.dl(&["write", "x.t", "r.parquet"])
    };
    let bad: Vec<(&str, ArrayRef, &str)> = vec![
        ("i", Arc::new(Int64Array::from(vec![1_i64 << 31])), "2147483648"),
        ("i", Arc::new(Float64Array::from(vec![1.5])), "1.5"),
        ("i", Arc::new(StringArray::from(vec!["x"])), "'x'"),
        ("f", Arc::new(Float64Array::from(vec![0.1])), "0.1"),
        ("d", Arc::new(Date64Array::from(vec![86_400_001])), "date"),
        ("t", Arc::new(TimestampNanosecondArray::from(vec![1001])), "timestamp"),
        ("l", Arc::new(UInt64Array::from(vec![u64::MAX])), "18446744073709551615"),
        ("c", Arc::new(Float64Array::from(vec![0.25])), "0.25"),
        ("l", Arc::new(arrow::array::BooleanArray::from(vec![true])), "boolean"),
    ];
    for (column, values, shown) in bad {
        one(column, values).fails(&[&format!("'{column}'"), shown]);
    }
    let good: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from(vec![i64::from(i32::MAX)]))),
        ("i", Arc::new(Float64Array::from(vec![-3.0]))),
        ("f", Arc::new(Float64Array::from(vec![0.5]))),
        ("d", Arc::new(Date64Array::from(vec![86_400_000]))),
        ("t", Arc::new(TimestampNanosecondArray::from(vec![2000]))),
        ("c", Arc::new(Float64Array::from(vec![0.2]))),
    ];
    let count = good.len();
    for (column, values) in good {
        one(column, values).ok();
    }
    let query = "SELECT count(*) AS n, count(i) AS i, count(f) AS f, count(d) AS d, count(t) AS t, \
                 count(c) AS c FROM x.t";
    let want = json!([{ "n": count, "i": 2, "f": 1, "d": 1, "t": 1, "c": 1 }]);
    assert_eq!(world.json(&["sql", query]), want);
    // A new table gets types that hold the values.
    let wide: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
    world.parquet_of("wide.parquet", vec![("u", wide)]);
    world.dl(&["write", "x.wide", "wide.parquet", "--location", "wide"]).ok();
    assert_eq!(types(&world, "wide"), named(&[("u", json!("decimal(20,0)"))]));
    world
        .dl(&["write", "x.span", "--query", "SELECT INTERVAL '1 day' AS span, 1 AS id"])
        .fails(&["'span'", "Interval", "CAST"]);
    world
        .dl(&["write", "x.wide", "wide.parquet", "--columns", "u long"])
        .fails(&["decimal(20,0)", "long"]);
    world.dl(&["write", "x.wide", "wide.parquet", "--columns", "q long"]).fails(&["'q'"]);
}
