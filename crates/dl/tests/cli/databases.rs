//! The same commands on every database give the same output and the same `_delta_log/`.
//!
//! PostgreSQL and MariaDB are started from this machine's packages, or are those that
//! `DL_TEST_POSTGRES_URL` and `DL_TEST_MYSQL_URL` name; SQL Server is the one that
//! `DL_TEST_MSSQL_URL` names. Each test has tables of its own there, by their prefix.

use std::fs;
use std::path::Path;

use deltalakedb_test_servers::Database;
use serde_json::Value;

use crate::transcript::session;
use crate::world::{FIRST_COMMIT, Run, World, add, foreign_log, plain_add};

/// A place for a catalog that nothing else uses, or why there is none.
fn world(database: Database) -> Result<World, String> {
    let is_built = match database {
        Database::Sqlite => return Ok(World::at(None)),
        Database::Postgres => cfg!(feature = "postgres"),
        Database::MySql => cfg!(feature = "mysql"),
        Database::Mssql => cfg!(feature = "mssql"),
    };
    if !is_built {
        return Err(format!("dl was built without the cargo feature of {database:?}"));
    }
    Ok(World::at(Some(database.url(Path::new(""), "cli")?)))
}

/// Runs a test there, or says why not.
fn run(database: Database, test: fn(&World)) {
    match world(database) {
        Ok(world) => test(&world),
        Err(why) => deltalakedb_test_servers::skip(&[database.name()], why),
    }
}

/// Declares each test once for each database.
macro_rules! on_every_database {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $test() { super::run(super::Database::Sqlite, super::$test); })*
        }
        mod postgres {
            $(#[test] fn $test() { super::run(super::Database::Postgres, super::$test); })*
        }
        mod mysql {
            $(#[test] fn $test() { super::run(super::Database::MySql, super::$test); })*
        }
        mod mssql {
            $(#[test] fn $test() { super::run(super::Database::Mssql, super::$test); })*
        }
    };
}

on_every_database!(
    the_same_session_gives_the_same_output_and_log,
    a_catalog_is_made_once_and_missed_by_name,
    a_published_table_is_republished_byte_for_byte,
    grants_are_printed_for_both_roles,
    views_are_made_and_dropped,
    tables_are_found_by_url,
    passwords_come_from_many_places,
    what_is_wrong_with_a_connection_is_said,
    replicas_may_be_read_and_may_be_down,
);

fn the_same_session_gives_the_same_output_and_log(world: &World) {
    let here = session(world);
    let there = session(&World::at(None));
    for (ours, expected) in here.printed.iter().zip(&there.printed) {
        assert_eq!(ours, expected);
    }
    for (name, text) in &here.files {
        assert_eq!(Some(text), there.files.get(name), "{name}");
    }
    assert!(here == there, "other files or commands: {:?}", here.files.keys());
    // The comparison is of something.
    let failed: Vec<_> = there
        .printed
        .iter()
        .filter(|(_, text)| !text.starts_with("0: "))
        .map(|(command, _)| command.split_once(" --").map_or(&**command, |(start, _)| start))
        .collect();
    assert_eq!(
        failed,
        [
            "create s.t",
            "commit s.t",
            "commit s.t",
            "import FOLDER/foreign s.again",
            "show s.none",
            "show s.t"
        ]
    );
    assert!(there.files.contains_key("t/00000000000000000010.checkpoint.parquet"));
    assert!(there.files["t/00000000000000000003.json"].contains("TIMESTAMP_MS_"));
    assert_eq!(commits(world, "t").len(), 17);
    assert_eq!(commits(world, "copy"), commits(world, "t"));
}

/// Versions of a table's log with their bytes.
fn commits(world: &World, table: &str) -> Vec<(u64, Vec<u8>)> {
    let versions = world.log_versions(table).into_iter();
    let log = world.path(table).join("_delta_log");
    versions.map(|v| (v, fs::read(log.join(format!("{v:020}.json"))).unwrap())).collect()
}

fn a_catalog_is_made_once_and_missed_by_name(world: &World) {
    let run = world.dl(&["list"]).fails(&["dl init"]);
    assert!(!run.stderr.contains("password"), "{}", run.stderr);
    let first = world.json(&["init"]);
    assert_eq!(world.json(&["init"]), first);
    assert_eq!(first["schema_version"], if first["kind"] == "mssql" { 2 } else { 5 });
    assert!(!first["server_version"].as_str().unwrap().is_empty());
    assert_eq!(world.json(&["list"]), Value::Array(Vec::new()));
}

fn a_published_table_is_republished_byte_for_byte(world: &World) {
    world.dl(&["init"]).ok();
    let odd = concat!(
        "{\"commitInfo\":{\"timestamp\":1700000000000,\"operation\":\"X\",\"x\":1e3,\"y\": 1 }}\n",
        " { \"add\" : {\"path\":\"a.parquet\",\"partitionValues\":{},\"size\":1,",
        "\"modificationTime\":1,\"dataChange\":true,\"own\":[1,{}]} }\n",
        "{\"neverHeardOf\":{\"a\":\"\\u00e9🚀\"}}\n"
    );
    let many: Vec<_> = (0..2_500).map(|n| plain_add(&format!("f/{n}.parquet"))).collect();
    let many = many.join("\n");
    let location = foreign_log(world, "foreign", &[FIRST_COMMIT, odd, &many]);
    world.dl(&["import", &location, "s.t"]).ok();
    world.dl(&["publish", "s.t", "--to", "copy"]).ok();
    assert_eq!(commits(world, "foreign").len(), 3);
    assert_eq!(commits(world, "copy"), commits(world, "foreign"));
    assert_eq!(world.json(&["show", "s.t"])["num_files"], 2_501);
    world.dl(&["diff", "--table", "s.t"]).ok();
}

fn tables_are_found_by_url(world: &World) {
    world.dl(&["init"]).ok();
    world.create("s.t", "t", &[]).ok();
    let catalog = world.catalog();
    let (place, query) = catalog.split_once('?').unwrap_or((&catalog, ""));
    let url = format!("delta+sql://{place}/s.t?{query}");
    let mut command = world.command(&["show", &url, "--format", "json"]);
    let run = Run::from(command.env_remove("DELTA_DB_CONNECTION").output().unwrap()).ok();
    assert_eq!(run.json()["table"], "s.t");
    // Without its password where the environment has the whole URL.
    let public = world.json(&["init"])["catalog"].as_str().unwrap().to_owned();
    let (place, query) = public.split_once('?').unwrap_or((&public, ""));
    let url = format!("delta+sql://{place}/s.t?{query}");
    assert_eq!(world.json(&["show", &url])["table"], "s.t");
}

fn grants_are_printed_for_both_roles(world: &World) {
    if world.catalog().starts_with("sqlite:") {
        world
            .dl(&["grants", "--role", "reader", "--login", "bob"])
            .fails(&["SQLite", "permissions of its file"]);
        return;
    }
    let prefix = world.catalog();
    let prefix = prefix.rsplit_once("table_prefix=").unwrap().1;
    for role in ["reader", "writer"] {
        let printed = world.dl(&["grants", "--role", role, "--login", "bob"]).ok().stdout;
        for word in ["GRANT", "SELECT", "bob", prefix] {
            assert!(printed.contains(word), "{word}: {printed}");
        }
        assert_eq!(printed.contains("INSERT"), role == "writer", "{printed}");
        let json = world.json(&["grants", "--role", role, "--login", "bob"]);
        assert_eq!(json["role"], role);
        for statement in json["statements"].as_array().unwrap() {
            assert!(printed.contains(statement.as_str().unwrap()), "{printed}");
        }
    }
    world.dl(&["grants", "--role", "owner", "--login", "bob"]).code(2);
    world.dl(&["grants", "--role", "reader", "--login", ""]).fails(&["login"]);
}

fn views_are_made_and_dropped(world: &World) {
    if world.catalog().starts_with("mssql:") {
        world.dl(&["views", "create"]).fails(&["SQL Server", "not tried"]);
        return;
    }
    let url = world.catalog();
    let prefix = url.rsplit_once("table_prefix=").map_or("dl_", |(_, prefix)| prefix);
    world.dl(&["views", "create"]).fails(&["no catalog", "dl init"]);
    world.dl(&["init"]).ok();
    for _ in 0..2 {
        assert_eq!(world.json(&["views", "create"])["views"], "made");
    }
    let statements = world.json(&["views", "sql"]);
    let statements = statements["statements"].as_array().unwrap();
    let printed = world.dl(&["views", "sql"]).ok().stdout;
    for view in ["v_tables", "v_files", "v_commits", "v_columns"] {
        let made = format!("VIEW {prefix}{view} AS");
        let makes = |s: &serde_json::Value| s.as_str().unwrap().contains(&made);
        assert_eq!(statements.iter().filter(|s| makes(s)).count(), 1, "{statements:?}");
        assert!(printed.contains(&made), "{printed}");
    }
    let dropping = world.dl(&["views", "sql", "--drop"]).ok().stdout;
    assert!(dropping.contains(&format!("DROP VIEW IF EXISTS {prefix}v_files;")), "{dropping}");
    for _ in 0..2 {
        assert_eq!(world.json(&["views", "drop"])["views"], "dropped");
    }
}

/// A run of `dl list` with another URL and more variables.
fn list(world: &World, url: &str, variables: &[(&str, &str)]) -> Run {
    let mut command = world.command(&["list"]);
    command.env("DELTA_DB_CONNECTION", url).envs(variables.iter().copied());
    command.output().unwrap().into()
}

fn passwords_come_from_many_places(world: &World) {
    world.dl(&["init"]).ok();
    let Ok(url) = url::Url::parse(&world.catalog()) else { panic!("bad URL") };
    let Some(password) = url.password() else {
        // A file, or a server that lets everyone in.
        list(world, &world.catalog(), &[("DELTA_DB_PASSWORD", "unused")]).ok();
        return;
    };
    let password = percent_encoding::percent_decode_str(password).decode_utf8().unwrap();
    let mut public = url.clone();
    public.set_password(None).unwrap();
    let public = public.as_str();
    let file = world.file("secret", &format!("{password}\n"));
    let (wrong, whole) =
        (world.file("wrong", "wrong"), world.file("url", world.catalog().as_str()));
    list(world, public, &[("DELTA_DB_PASSWORD", &password)]).ok();
    list(world, public, &[("DELTA_DB_PASSWORD_FILE", &file)]).ok();
    list(world, public, &[("DELTA_DB_PASSWORD", &password), ("DELTA_DB_PASSWORD_FILE", &wrong)])
        .ok();
    list(world, &format!("{public}&password_file={file}"), &[("DELTA_DB_PASSWORD", "wrong")]).ok();
    list(world, "", &[("DELTA_DB_CONNECTION_FILE", &whole)]).ok();
    list(world, "", &[("DATABASE_URL", &world.catalog())]).ok();
    let own = if url.scheme().starts_with("postgres") { "PGPASSWORD" } else { "MYSQL_PWD" };
    if !url.scheme().starts_with("mssql") {
        list(world, public, &[(own, &password)]).ok();
    }
    list(world, public, &[("DELTA_DB_PASSWORD_FILE", "missing")]).fails(&["missing"]);
    // Not even the drivers tell it to the log. A short one may stand there by chance.
    let run = list(world, &world.catalog(), &[("RUST_LOG", "trace")]).ok();
    assert!(!run.stderr.is_empty());
    if password.len() >= 12 {
        assert!(!run.stderr.contains(&*password), "{}", run.stderr);
    }
}

fn what_is_wrong_with_a_connection_is_said(world: &World) {
    if world.catalog().starts_with("sqlite:") {
        list(world, "sqlite:///none/at/all.db", &[]).fails(&["/none/at/all.db"]);
        return;
    }
    let good = format!("{}&acquire_timeout=2s", world.catalog());
    let good = url::Url::parse(&good).unwrap();
    let change = |change: &dyn Fn(&mut url::Url)| {
        let mut url = good.clone();
        change(&mut url);
        let run = list(world, url.as_str(), &[("DELTA_DB_PASSWORD", "geheim-too")]);
        let run = run.fails(&[url.host_str().unwrap()]);
        assert!(!run.stderr.contains("geheim"), "{}", run.stderr);
        run
    };
    // Nothing listens on port 1.
    let run = change(&|url| url.set_port(Some(1)).unwrap());
    assert!(run.stderr.contains(":1"), "{}", run.stderr);
    let run = change(&|url| url.set_path("/no_such_database"));
    assert!(run.stderr.contains("no_such_database"), "{}", run.stderr);
    if good.password().is_some() {
        let run = change(&|url| url.set_password(Some("geheim")).unwrap());
        let user = good.username();
        assert!(run.stderr.contains(user), "'{user}' is not in: {}", run.stderr);
        assert!(!run.stderr.contains("geheim"), "{}", run.stderr);
    }
}

fn replicas_may_be_read_and_may_be_down(world: &World) {
    let catalog = world.catalog();
    let sign = if catalog.contains('?') { '&' } else { '?' };
    if catalog.starts_with("sqlite:") {
        let url = format!("{catalog}{sign}replica_urls={catalog}");
        list(world, &url, &[]).fails(&["unknown option 'replica_urls'"]);
        return;
    }
    world.dl(&["init"]).ok();
    world.create("s.t", "t", &["--partition-by", "day"]).ok();
    world.dl_with_input(&["commit", "s.t"], &add("day=1/a.parquet", "1")).ok();
    let with = |replica: &str| {
        let encoded =
            percent_encoding::utf8_percent_encode(replica, percent_encoding::NON_ALPHANUMERIC);
        format!("{catalog}{sign}replica_max_staleness=10s&replica_urls={encoded}")
    };
    // The primary is a replica that never lags. Nothing listens on port 1.
    let scheme = catalog.split_once("://").unwrap().0;
    let (good, dead) = (with(&catalog), with(&format!("{scheme}://127.0.0.1:1")));
    let read = |url: &str, arguments: &[&str]| {
        let mut command = world.command(&[arguments, &["-v"]].concat());
        Run::from(command.env("DELTA_DB_CONNECTION", url).output().unwrap()).ok()
    };
    for arguments in
        [&["show", "s.t"][..], &["files", "s.t"], &["history", "s.t"], &["diff", "s.t"], &["list"]]
    {
        let expected = world.dl(arguments).ok().stdout;
        let run = read(&good, arguments);
        assert_eq!(run.stdout, expected, "{arguments:?}");
        assert!(!run.stderr.contains("replica fails"), "{}", run.stderr);
        assert_eq!(read(&dead, arguments).stdout, expected, "{arguments:?}");
    }
    let run = read(&dead, &["files", "s.t"]);
    assert!(run.stderr.contains("a read replica fails"), "{}", run.stderr);
    // Commits go to the primary.
    let mut command = world.command(&["drop", "s.t"]);
    Run::from(command.env("DELTA_DB_CONNECTION", &dead).output().unwrap()).ok();
}
