//! Commands that read and write rows: `dl sql`, `write`, `delete`, `update`, `merge`, `optimize`.

use std::fs::{self, File};
use std::process::Stdio;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::ipc::reader::{FileReader, StreamReader};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use crate::world::World;

/// A table `s.t` with two partitions, in two versions.
fn filled() -> World {
    let world = World::new();
    world.file("a.csv", "id,name,day\n1,a,d1\n2,b,d1\n3,c,d2\n");
    world.file(
        "b.ndjson",
        "{\"id\":11,\"name\":\"a\",\"day\":\"d1\"}\n{\"id\":13,\"day\":\"d2\"}\n",
    );
    world
        .dl(&["write", "s.t", "a.csv", "--partition-by", "day"])
        .ok()
        .says("Wrote 3 rows in 2 files.\n's.t' is at version 0 (");
    world.dl(&["write", "s.t", "b.ndjson"]).ok().says("Wrote 2 rows in 2 files.");
    world
}

/// Rows of a query, as CSV without its first line.
fn rows(world: &World, query: &str) -> Vec<String> {
    let run = world.dl(&["sql", query, "--to", "csv"]).ok();
    run.stdout.lines().skip(1).map(str::to_owned).collect()
}

const ALL: &str = "SELECT * FROM s.t ORDER BY id";

#[test]
fn a_session_with_rows() {
    let world = filled();
    assert_eq!(rows(&world, ALL), ["1,a,d1", "2,b,d1", "3,c,d2", "11,a,d1", "13,,d2"]);
    world
        .dl(&["delete", "s.t", "--where", "id = 2"])
        .ok()
        .says("Deleted 1 row: 1 file written in place of 1.\n's.t' is at version 2 (");
    let set = ["update", "s.t", "--set", "name = upper(name) || '!'", "--where", "day = 'd1'"];
    world.dl(&set).ok().says("Updated 2 rows: ");
    world.file("c.csv", "id,name,day\n1,eins,d1\n77,neu,d3\n13,,d2\n");
    let merge = [
        "merge",
        "s.t",
        "c.csv",
        "--on",
        "target.id = source.id",
        "--when-matched",
        "AND source.name IS NULL THEN DELETE",
        "--when-matched",
        "UPDATE SET *",
        "--when-not-matched",
        "INSERT *",
        "--when-not-matched-by-source",
        "AND target.id = 3 THEN UPDATE SET name = 'alone'",
    ];
    world.dl(&merge).ok().says("Rows inserted: 1, updated: 2, deleted: 1: ");
    let want = ["1,eins,d1", "3,alone,d2", "11,A!,d1", "77,neu,d3"];
    assert_eq!(rows(&world, ALL), want);
    world.dl(&["write", "s.t", "--query", "SELECT id + 100 AS id, name, day FROM s.t"]).ok();
    world.dl(&["delete", "s.t", "--where", "id > 100 AND id <> 177"]).ok();
    world.dl(&["write", "s.t", "--query", "SELECT 178 AS id, 'x' AS name, 'd3' AS day"]).ok();
    let report = world.json(&["optimize", "s.t"]);
    assert_eq!(report["tables"][0]["version"], 8, "{report}");
    assert_eq!(report["optimized"]["numFilesAdded"], 1, "{report}");
    world.dl(&["delete", "s.t", "--where", "id > 100"]).ok();
    world.dl(&["optimize", "s.t"]).ok().says("Nothing to optimize");
    world
        .dl(&["optimize", "s.t", "--zorder", "id", "--where", "day = 'd1'"])
        .ok()
        .says("Made 1 file");
    assert_eq!(rows(&world, ALL), want);

    let totals = "SELECT day, count(*) AS n FROM s.t GROUP BY day";
    world.dl(&["write", "s.totals", "--query", totals]).ok();
    assert_eq!(rows(&world, "SELECT * FROM s.totals ORDER BY day"), ["d1,2", "d2,1", "d3,1"]);
    let replace = ["--mode", "overwrite", "--replace-where", "day = 'd1'"];
    let query = ["write", "s.totals", "--query", "SELECT 'd1' AS day, 9 AS n"];
    world.dl(&[&query[..], &replace].concat()).ok();
    assert_eq!(rows(&world, "SELECT * FROM s.totals ORDER BY day"), ["d1,9", "d2,1", "d3,1"]);
    world.dl(&["delete", "s.totals", "--all"]).ok();
    assert_eq!(rows(&world, "SELECT * FROM s.totals"), Vec::<String>::new());

    // All of it is in the published log, and the log is what the catalog says.
    assert_eq!(world.log_versions("s/t").len(), 11);
    world.dl(&["diff"]).ok();
}

#[test]
fn versions_times_and_catalogs() {
    let world = filled();
    assert_eq!(rows(&world, "SELECT count(*) FROM s.t VERSION AS OF 0"), ["3"]);
    let both = "SELECT new.id FROM s.t AS new LEFT JOIN catalog.s.t VERSION AS OF 0 old \
                ON new.id = old.id WHERE old.id IS NULL ORDER BY 1";
    assert_eq!(rows(&world, both), ["11", "13"]);
    let history = world.json(&["history", "s.t"]);
    let times: Vec<i64> =
        history.as_array().unwrap().iter().map(|c| c["timestamp_ms"].as_i64().unwrap()).collect();
    let then = chrono::DateTime::from_timestamp_millis(times[1]).unwrap().to_rfc3339();
    let at = format!("SELECT count(*) FROM s.t TIMESTAMP AS OF '{then}'");
    assert_eq!(rows(&world, &at), ["3"]);
    world.dl(&["sql", "SELECT * FROM s.t VERSION AS OF 9"]).fails(&["s.t", "version 9", "0 to 1"]);
    let before = "SELECT * FROM s.t TIMESTAMP AS OF '2001-01-01'";
    world.dl(&["sql", before]).fails(&["s.t", "no version"]);
    world
        .dl(&["sql", "SELECT * FROM s.t TIMESTAMP AS OF 'gestern'"])
        .fails(&["gestern", "RFC 3339"]);

    let other = World::new();
    other.file("a.csv", "id,word\n1,eins\n3,drei\n");
    other.dl(&["write", "x.words", "a.csv"]).ok();
    let attach = format!("other={}", other.catalog());
    let join = "SELECT t.id, w.word FROM s.t t JOIN other.x.words w ON t.id = w.id ORDER BY 1";
    let run = world.dl(&["sql", join, "--to", "csv", "--attach", &attach]).ok();
    assert_eq!(run.stdout, "id,word\n1,eins\n3,drei\n");
    world.dl(&["sql", join]).fails(&["other.x.words", "no catalog 'other'", "only catalog"]);

    world.dl(&["sql", "SHOW TABLES"]).ok().says("s                   t            BASE TABLE");
    world.dl(&["sql", "DESCRIBE s.t"]).ok().says("id           Int64      YES");
}

#[test]
fn every_format_has_the_same_rows() {
    let world = filled();
    let text = world.dl(&["sql", ALL]).ok();
    assert_eq!(
        text.stdout,
        "id  name  day\n 1  a     d1\n 2  b     d1\n 3  c     d2\n11  a     d1\n13  NULL  d2\n"
    );
    assert!(text.stderr.contains("5 rows"), "{}", text.stderr);
    let objects = json!([
        {"id": 1, "name": "a", "day": "d1"},
        {"id": 2, "name": "b", "day": "d1"},
        {"id": 3, "name": "c", "day": "d2"},
        {"id": 11, "name": "a", "day": "d1"},
        {"id": 13, "name": null, "day": "d2"},
    ]);
    assert_eq!(world.json(&["sql", ALL]), objects);
    let lines = world.dl(&["sql", ALL, "--to", "ndjson"]).ok().stdout;
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(lines), objects);

    let seen = |batches: Vec<RecordBatch>| {
        let mut seen = Vec::new();
        for batch in batches {
            let ids = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            let names = batch.column(1).as_any().downcast_ref::<StringArray>().unwrap();
            for row in 0..batch.num_rows() {
                seen.push((
                    ids.value(row),
                    names.is_valid(row).then(|| names.value(row).to_owned()),
                ));
            }
        }
        assert_eq!(seen.len(), 5);
        assert_eq!((seen[0].1.as_deref(), &seen[4]), (Some("a"), &(13, None)));
    };
    for name in ["out.parquet", "out.arrow", "out.csv"] {
        world.dl(&["sql", ALL, "--output", name]).ok();
    }
    let parquet = File::open(world.path("out.parquet")).unwrap();
    let parquet = ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap().build().unwrap();
    seen(parquet.map(Result::unwrap).collect());
    let file = FileReader::try_new(File::open(world.path("out.arrow")).unwrap(), None).unwrap();
    seen(file.map(Result::unwrap).collect());
    assert_eq!(world.read("out.csv"), world.dl(&["sql", ALL, "--to", "csv"]).ok().stdout);
    let stream = world.command(&["sql", ALL, "--to", "arrow"]).output().unwrap();
    seen(StreamReader::try_new(&stream.stdout[..], None).unwrap().map(Result::unwrap).collect());

    // Nothing is left of an output that did not come to its end.
    let bad = "SELECT CAST(name AS BIGINT) FROM s.t";
    world.dl(&["sql", bad, "--output", "bad.csv"]).fails(&["Cannot cast"]);
    let left: Vec<_> =
        fs::read_dir(world.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("bad")), "{left:?}");
    world.dl(&["sql", ALL, "--output", "out.xyz"]).fails(&["out.xyz", "--to"]);
    // No rows are still a table with columns.
    let none = world.dl(&["sql", "SELECT * FROM s.t WHERE id < 0", "--to", "csv"]).ok();
    assert_eq!(none.stdout, "id,name,day\n");
    assert_eq!(world.json(&["sql", "SELECT * FROM s.t WHERE id < 0"]), json!([]));
    let mut reader = world.command(&["sql", "SELECT * FROM generate_series(1, 3000000)"]);
    let mut child = reader.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "", "whoever read it has gone");
}

#[test]
fn files_that_cannot_match_are_never_opened() {
    let world = filled();
    for folder in ["s/t/day=d1", "s/t/day=d2"] {
        for file in fs::read_dir(world.path(folder)).unwrap() {
            let path = file.unwrap().path();
            // Of all but the file with id 3, nothing can be read any more.
            let keep = rows_of(&path) == [3];
            if !keep {
                fs::write(&path, "garbage").unwrap();
            }
        }
    }
    for query in [
        "SELECT id FROM s.t WHERE day = 'd2' AND id < 10",
        "SELECT id FROM s.t WHERE id BETWEEN 3 AND 4",
        "SELECT id FROM s.t WHERE id IN (3, 5) AND name > 'b'",
        "SELECT id FROM s.t WHERE name LIKE 'c%'",
        "SELECT t.id FROM s.t JOIN (VALUES (3)) v(id) ON t.id = v.id WHERE t.id = 3",
    ] {
        assert_eq!(rows(&world, query), ["3"], "{query}");
    }
    world.dl(&["sql", "SELECT id FROM s.t"]).fails(&["parquet"]);
}

fn rows_of(path: &std::path::Path) -> Vec<i64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let mut found = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let ids = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        found.extend(ids.values());
    }
    found
}

#[test]
fn writes_say_what_is_wrong() {
    let world = filled();
    let state = rows(&world, ALL);
    world.file("odd.csv", "id,name,day\nzwei,b,d1\n");
    world.file("more.csv", "id,name,day,colour\n5,e,d1,red\n");
    world.file("noext", "id\n1\n");
    for (arguments, words) in [
        (&["write", "s.t", "odd.csv"][..], &["odd.csv", "line 2", "zwei", "long"][..]),
        (&["write", "s.t", "more.csv"], &["s.t", "no column colour", "--schema-mode merge"]),
        (
            &["write", "s.t", "--query", "SELECT 1 AS id"],
            &["no column name, day", "leaves it null"],
        ),
        (&["write", "s.t", "absent.csv"], &["no files at 'absent.csv'"]),
        (&["write", "s.t", "noext"], &["noext", "--input-format"]),
        (&["write", "s.t", "a.csv", "b.ndjson"], &["b.ndjson", "another format"]),
        (&["write", "s.t", "s/t"], &["is a Delta table", "dl import"]),
        (&["write", "s.t", "s3://b/x.parquet"], &["local files"]),
        (&["write", "s.t", "a.csv", "--partition-by", "id"], &["partitioned by (day)"]),
        (&["write", "s.t", "a.csv", "--location", "elsewhere"], &["s/t", "elsewhere"]),
        (&["write", "s.t", "a.csv", "--mode", "error"], &["s.t", "exists already"]),
        (&["write", "s.t", "a.csv", "--replace-where", "id = 1"], &["--mode overwrite"]),
        (&["write", "s.t", "--query", "SELECT * FROM s.absent"], &["s.absent"]),
        (&["delete", "s.t", "--where", "nope = 1"], &["s.t", "nope", "id"]),
        (&["delete", "s.t", "--where", "id ="], &["s.t"]),
        (&["delete", "s.absent", "--all"], &["s.absent"]),
        (&["update", "s.t", "--set", "id", "--all"], &["--set 'id'"]),
        (&["update", "s.t", "--set", "nope = 1", "--all"], &["s.t", "nope"]),
        (&["optimize", "s.t", "--where", "nope > 1"], &["s.t", "nope"]),
        (&["optimize", "s.t", "--where", "day = 'a' OR day = 'b'"], &["joined with AND"]),
        (&["optimize", "s.t", "--zorder", "nope"], &["s.t", "nope"]),
        (
            &[
                "merge",
                "s.t",
                "a.csv",
                "--on",
                "target.id = source.id",
                "--when-matched",
                "INSERT *",
            ],
            &["--when-matched", "UPDATE SET"],
        ),
        (
            &[
                "merge",
                "s.t",
                "--query",
                "SELECT 1 AS id",
                "--on",
                "target.id = source.id",
                "--when-matched",
                "UPDATE SET *",
            ],
            &["no column 'name'", "It has id"],
        ),
        (
            &[
                "merge",
                "s.t",
                "a.csv",
                "--on",
                "target.id = source.id",
                "--when-matched",
                "UPDATE SET nope = 1",
            ],
            &["s.t", "no column \"nope\"", "id, name, day"],
        ),
        (
            &[
                "merge",
                "s.t",
                "a.csv",
                "--on",
                "target.nope = source.id",
                "--when-matched",
                "DELETE",
            ],
            &["s.t", "nope"],
        ),
        (&["sql", "SELECT nope FROM s.t"], &["nope", "s.t.id"]),
        (&["sql", "DELETE FROM s.t"], &["only reads", "dl delete"]),
        (&["sql", "DROP TABLE s.t"], &["only reads"]),
        (&["sql", "SELECT 1; SELECT 2"], &["single"]),
        (&["sql", "SELEC"], &["SELEC"]),
        (&["sql", "SELECT * FROM a.b.c.d"], &["a.b.c.d"]),
    ] {
        let run = world.dl(arguments).fails(words);
        assert!(!run.stderr.contains("Generic DeltaTable error"), "{}", run.stderr);
    }
    assert_eq!(rows(&world, ALL), state);
    world.dl(&["write", "s.t", "a.csv", "--mode", "ignore"]).ok().says("Nothing was written");
    assert_eq!(world.log_versions("s/t"), [0, 1]);
    world.dl(&["write", "s.t", "more.csv", "--schema-mode", "merge"]).ok();
    assert_eq!(rows(&world, "SELECT colour FROM s.t WHERE id = 5"), ["red"]);
    world.dl(&["delete", "s.t"]).code(2);
    world.dl(&["sql", "SELECT 1", "--to", "xml"]).code(2);
}

#[test]
fn a_token_takes_effect_once() {
    let world = filled();
    for replayed in [false, true] {
        let report = world.json(&["write", "s.t", "a.csv", "--token", "load-1"]);
        assert_eq!(report["replayed"], replayed);
        assert_eq!(report["tables"][0]["version"], 2);
        let report = world.json(&["delete", "s.t", "--where", "id = 1", "--token", "wipe-1"]);
        assert_eq!(
            (&report["replayed"], &report["tables"][0]["version"]),
            (&json!(replayed), &json!(3))
        );
    }
    assert_eq!(rows(&world, "SELECT count(*) FROM s.t"), ["6"]);
}

/// The log of a table as another engine might have written it, imported.
#[test]
fn tables_that_others_wrote_in_their_own_way_are_read() {
    let world = filled();
    let want = rows(&world, ALL);
    let location = world.json(&["show", "s.t"])["location"].as_str().unwrap().to_owned();
    let location = location.strip_prefix("file://").unwrap().to_owned();
    let log = std::path::Path::new(&location).join("_delta_log");
    world.dl(&["release", "s.t"]).ok();
    let protocol = |reader: &str| {
        format!(
            r#"{{"protocol":{{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":[{reader}],"writerFeatures":[{reader}]}}}}"#
        )
    };
    // A reader feature that asks nothing of a query does not keep one from reading.
    let quiet =
        r#""vacuumProtocolCheck","v2Checkpoint","typeWidening","catalogManaged","variantType""#;
    let mut text = String::new();
    for line in fs::read_to_string(log.join(format!("{:020}.json", 0))).unwrap().lines() {
        if line.starts_with("{\"protocol\"") {
            text += &protocol(quiet);
        } else if line.starts_with("{\"metaData\"") {
            // No reader but Spark takes these.
            text += &line
                .replace("\"configuration\":{", "\"configuration\":{\"x\":{\"y\":1},\"n\":null,");
        } else if line.starts_with("{\"add\"") {
            text += &line
                .replace("\"dataChange\":true", "\"dataChange\":null,\"tags\":{\"n\":1.50}")
                .replace("\"modificationTime\":", "\"modificationTime\":0.0,\"modificationTime\":");
        } else {
            text += line;
        }
        text += "\n";
    }
    let foreign = world.path("foreign");
    fs::create_dir_all(foreign.join("_delta_log")).unwrap();
    for entry in fs::read_dir(&location).unwrap() {
        let entry = entry.unwrap().path();
        if entry.ends_with("_delta_log") {
            continue;
        }
        let to = foreign.join(entry.file_name().unwrap());
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(entry).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }
    let name = |version: i64| format!("{version:020}.json");
    fs::write(foreign.join("_delta_log").join(name(0)), &text).unwrap();
    fs::copy(log.join(name(1)), foreign.join("_delta_log").join(name(1))).unwrap();
    let import = |table: &str| {
        let run = world.dl(&["import", foreign.to_str().unwrap(), table, "--no-mirror"]).ok();
        for word in ["'metaData.configuration' is JSON where text belongs", "(version 0, line "] {
            assert!(run.stderr.contains(word), "{}", run.stderr);
        }
    };
    import("s.odd");
    assert_eq!(rows(&world, "SELECT * FROM s.odd ORDER BY id"), want);
    // One that asks something does.
    let asks = text.replace(quiet, "\"someFuture\"");
    fs::write(foreign.join("_delta_log").join(name(0)), asks).unwrap();
    import("s.future");
    world.dl(&["sql", "SELECT * FROM s.future"]).fails(&["someFuture"]);
}
