//! Constants in conditions and values, and what is said about those that do not fit.

use std::fs;

use crate::world::World;

/// A table `s.t` with a decimal of many digits, a time in year 9999 and a double.
fn filled() -> World {
    let world = World::new();
    let columns = "id long, a decimal(32,16), big decimal(38,0), at timestamp, day date, f double, \
                   small byte";
    let create = ["create", "s.t", "--location", "s/t", "--columns", columns];
    world.dl(&create).ok();
    world.file(
        "rows.csv",
        "id,a,big,at,day,f,small\n\
         1,1.0000000000000001,99999999999999999999999999999999999999,9999-12-31T00:00:00Z,9999-12-31,-0.0,1\n\
         2,1.0000000000000000,99999999999999999999999999999999999998,2024-01-01T00:00:00Z,0001-01-01,NaN,127\n\
         3,-5.5,-1,0001-01-01T00:00:00Z,2024-01-01,2.5,-128\n",
    );
    world.dl(&["write", "s.t", "rows.csv"]).ok();
    world
}

fn ids(world: &World, condition: &str) -> String {
    let query = format!("SELECT id FROM s.t WHERE {condition} ORDER BY id");
    let run = world.dl(&["sql", &query, "--to", "csv"]).ok();
    run.stdout.lines().skip(1).collect::<Vec<_>>().join(",")
}

#[test]
fn constants_are_compared_by_all_of_their_digits() {
    let world = filled();
    for (condition, want) in [
        ("a = 1.0000000000000001", "1"),
        ("a = 1.00000000000000001", ""),
        ("a < 1.00000000000000001", "2,3"),
        ("a <> 1.00000000000000001", "1,2,3"),
        ("a IN (1.0000000000000001, 7)", "1"),
        ("big = 99999999999999999999999999999999999998", "2"),
        ("big > 1e37", "1,2"),
        ("big < 1e300", "1,2,3"),
        ("at = TIMESTAMP '9999-12-31 00:00:00'", "1"),
        ("at = '9999-12-31'", "1"),
        ("at = to_timestamp('9999-12-31')", "1"),
        ("at > now()", "1"),
        ("at < CAST('1000-01-01' AS TIMESTAMP)", "3"),
        ("day < TIMESTAMP '9999-12-31 00:00:00.000001'", "1,2,3"),
        ("day <= TIMESTAMP '0001-01-01 12:00:00'", "2"),
        ("f = 0", "1"),
        ("f > 1e300", "2"),
        ("NOT (f < 2.5)", "2,3"),
        ("small < 1000", "1,2,3"),
        ("-2 < a", "1,2"),
    ] {
        assert_eq!(ids(&world, condition), want, "{condition}");
    }
}

#[test]
fn operations_compare_as_queries_do() {
    let world = filled();
    let one = "Updated 1 row";
    let update = |set: &str, condition: &str| {
        world.dl(&["update", "s.t", "--set", set, "--where", condition]).ok().says(one);
    };
    update("at = TIMESTAMP '9998-12-31 00:00:00'", "at = '9999-12-31'");
    update("a = 1.0000000000000002", "a = 1.0000000000000000");
    update("big = big - 1", "big = 99999999999999999999999999999999999998");
    update("small = 5", "f >= 1e300");
    // The statistics of what was written are no reason to pass over it.
    update("id = id", "big = 99999999999999999999999999999999999997");
    assert_eq!(ids(&world, "big = 99999999999999999999999999999999999997"), "2");
    world.dl(&["delete", "s.t", "--where", "-2 > a"]).ok().says("Deleted 1 row");
    world.dl(&["delete", "s.t", "--where", "a = 1.0000000000000001"]).ok().says("Deleted 1 row");
    assert_eq!(ids(&world, "true"), "2");
    let set = "UPDATE SET a = 1.0000000000000003";
    let matched = format!("AND target.a = 1.0000000000000002 THEN {set}");
    let query = "SELECT id FROM s.t";
    let on = "target.id = source.id";
    world
        .dl(&["merge", "s.t", "--query", query, "--on", on, "--when-matched", &matched])
        .ok()
        .says("updated: 1");
    let where_it_is = ["--mode", "overwrite", "--replace-where", "a = 1.0000000000000003"];
    let rows = ["write", "s.t", "--query", "SELECT * FROM s.t"];
    world.dl(&[&rows[..], &where_it_is[..]].concat()).ok();
    assert_eq!(ids(&world, "a = 1.0000000000000003"), "2");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let world = filled();
    for (command, words) in [
        (["delete", "--where", "a = 'x'"], ["'s.t', --where", "'x'", "decimal(32,16)"]),
        (["delete", "--where", "day = '2024-13-01'"], ["'s.t', --where", "'2024-13-01'", "date"]),
        (["delete", "--where", "id = 1 garbage"], ["'s.t', --where", "garbage", ""]),
        (["delete", "--where", "id"], ["'s.t', --where", "no condition", "long"]),
        (["update", "--set", "small = 300"], ["'s.t', --set", "300", "byte"]),
        (["update", "--set", "a = 1.00000000000000001"], ["'s.t', --set", "rounded", "decimal"]),
        (["update", "--set", "day = 'soon'"], ["'s.t', --set", "'soon'", "date"]),
    ] {
        let [name, option, text] = command;
        let all = if name == "update" { vec!["--all"] } else { vec![] };
        world.dl(&[&[name, "s.t", option, text][..], &all[..]].concat()).fails(&words);
    }
    assert_eq!(ids(&world, "true"), "1,2,3");
}

#[test]
fn messages_are_ours() {
    let world = World::new();
    world.file("a.csv", "id,Name,amount\n1,a,1.5\n2,b,2.5\n");
    world.file("bad.json", "{\"id\": 1, ");
    world.file("bad.parquet", "x");
    world.dl(&["write", "s.t", "a.csv"]).ok();
    let sql = |text: &str, words: &[&str]| messages(&world, &["sql", text], words);
    sql("SELECT NAME FROM s.t", &["no column NAME", "write s.t.Name"]);
    sql("SELECT nope FROM s.t", &["no column nope", "s.t.Name"]);
    sql("SELECT foo(id) FROM s.t", &["foo"]);
    sql("SELECT sum(Name) FROM s.t", &["sum(string)"]);
    sql("SELECT id + Name FROM s.t", &["string"]);
    sql("SELECT id / 0 FROM s.t", &["division by zero", "'s.t' at version 0"]);
    sql("SELECT Name ~ '(' FROM s.t", &["unclosed group"]);
    sql("SELECT id FROM s.t, s.t AS u", &["more than one", "t.id"]);
    sql("SELECT CAST(id * 1000 AS TINYINT) FROM s.t", &["1000"]);
    sql("SELECT (SELECT id FROM s.t) FROM s.t", &["more than one row"]);
    sql("SELECT * FROM s.t WHERE id = 'abc'", &["id is of type long", "'abc'"]);
    let operation = |arguments: &[&str], words: &[&str]| messages(&world, arguments, words);
    operation(&["delete", "s.t", "--where", "NAME = 'a'"], &["'s.t', --where", "write Name"]);
    operation(&["delete", "s.t", "--where", "id ="], &["'s.t', --where", "bad SQL"]);
    let counts = ["delete", "s.t", "--where", "count(*) > 1"];
    operation(&counts, &["'s.t', --where", "single rows"]);
    let asks = ["delete", "s.t", "--where", "id = (SELECT 1)"];
    operation(&asks, &["'s.t', --where", "single rows"]);
    operation(&["update", "s.t", "--set", "id = Name", "--all"], &["'s.t'", "'a'"]);
    operation(&["write", "s.t", "bad.json"], &["JSON"]);
    operation(&["write", "s.t", "bad.parquet"], &["Parquet"]);
    let on = ["--on", "id = id", "--when-matched", "UPDATE SET *"];
    operation(
        &[&["merge", "s.t", "a.csv"][..], &on[..]].concat(),
        &["'s.t', --on", "more than one"],
    );
    // A data file that is damaged, and one that is gone.
    let folder = world.path("s/t");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "parquet"));
    let file = file.unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let commands: [&[&str]; 3] = [
        &["sql", "SELECT * FROM s.t"],
        &["delete", "s.t", "--where", "id = 1"],
        &["update", "s.t", "--set", "id = 1", "--where", "id = 1"],
    ];
    fs::write(&file, "x").unwrap();
    for command in commands {
        operation(command, &["table 's.t'", "damaged", name]);
    }
    fs::remove_file(&file).unwrap();
    for command in commands {
        operation(command, &["table 's.t'", "is not there", file.to_str().unwrap()]);
    }
}

/// Fails with these words, and with none of other layers.
#[track_caller]
fn messages(world: &World, arguments: &[&str], words: &[&str]) {
    let run = world.dl(arguments).fails(words);
    for other in [
        "DataFusion",
        "datafusion",
        "bug",
        "issue",
        "backtrace",
        "caused by",
        "Optimizer rule",
        "External",
        "error: error",
        "Arrow error",
        "Generic",
        "__delta_rs",
        "files_scan",
        "Utf8",
    ] {
        assert!(!run.stderr.contains(other), "'{other}' is in: {}", run.stderr);
    }
}
