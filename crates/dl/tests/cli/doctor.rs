//! `doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use deltalakedb_test_servers::{
    Database, Galera, MariaDb, MariaDbOptions, Postgres, PostgresOptions, skip,
};
use serde_json::{Value, json};

use crate::world::{World, add};

/// The finding about something, if there is one.
fn finding<'a>(report: &'a Value, what: &str) -> Option<&'a Value> {
    report["findings"].as_array().unwrap().iter().find(|finding| finding["what"] == what)
}

#[test]
fn a_sound_catalog_is_well() {
    let world = World::with_table();
    world.dl(&["doctor"]).ok().says("looks found what should be");
    let report = world.json(&["doctor", "--write-probe"]);
    for what in ["program", "schema", "journal_mode", "pages", "publishing", "stores"] {
        let found = finding(&report, what);
        assert_eq!(found.map(|found| &found["level"]), Some(&json!("ok")), "{what}: {report}");
    }
    // The probe is gone.
    let log = fs::read_dir(world.path("t/_delta_log")).unwrap();
    let names: Vec<_> =
        log.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.contains("probe")), "{names:?}");
    world.dl(&["doctor", "--all"]).ok().says("quick_check finds them sound");
    World::empty().dl(&["doctor"]).code(1);
}

#[test]
fn what_is_wrong_is_told_with_what_to_do() {
    let world = World::with_table();
    world.create("s.late", "late", &["--partition-by", "day", "--no-publish"]).ok();
    // Everyone may write to the catalog's file.
    let file = world.path("catalog.db");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let report = world.dl(&["doctor", "--format", "json"]).code(2).json();
    let permissions = finding(&report, "permissions of the file").unwrap();
    assert!(permissions["advice"].as_str().unwrap().starts_with("chmod o-w"), "{permissions}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    world.dl(&["doctor"]).ok();
    // A foreign commit stops publishing.
    world.file("t/_delta_log/00000000000000000001.json", "{\"foreign\":{}}\n");
    world.dl_with_input(&["commit", "s.t"], &add("day=1/a.parquet", "1")).ok();
    let run = world.dl(&["doctor"]).code(1);
    assert!(run.stdout.contains("publishing of s.t: has stopped"), "{}", run.stdout);
    assert!(run.stdout.contains("dl repair s.t"), "{}", run.stdout);
    // A store that cannot be reached.
    let world = World::with_table();
    fs::remove_dir_all(world.path("t")).unwrap();
    fs::write(world.path("t"), "in the way").unwrap();
    world.dl(&["doctor", "--write-probe"]).code(1).says("store of s.t");
}

#[test]
fn servers_are_asked_for_their_settings() {
    for (word, database, setting) in [
        ("postgres", Database::Postgres, "fsync"),
        ("mysql", Database::MySql, "innodb_flush_log_at_trx_commit"),
    ] {
        let url = match database.url(std::path::Path::new(""), "doctor") {
            Ok(url) => url,
            Err(why) => {
                skip(&[word], why);
                continue;
            }
        };
        let world = World::at(Some(url));
        world.dl(&["init"]).ok();
        world.create("s.t", "t", &[]).ok();
        let run = world.dl(&["doctor", "--format", "json"]);
        let report = run.json();
        assert!(finding(&report, setting).is_some(), "{report}");
        assert_eq!(finding(&report, "clocks").unwrap()["level"], "ok", "{report}");
        assert_eq!(finding(&report, "sizes").unwrap()["level"], "ok", "{report}");
        assert_eq!(finding(&report, "rights").unwrap()["level"], "ok", "{report}");
        // These servers are made for tests: what they lose in a crash is told.
        let worst = report["worst"].as_str().unwrap();
        let code = match worst {
            "error" => 1,
            "warning" => 2,
            _ => 0,
        };
        assert_eq!(run.code, code, "{report}");
        assert!(finding(&report, "settings").is_none(), "{report}");
    }
}

/// What a finding's level is; none if there is none.
fn level<'a>(report: &'a Value, what: &str) -> Option<&'a str> {
    finding(report, what).map(|finding| finding["level"].as_str().unwrap())
}

#[test]
fn a_mariadb_tells_rights_connections_zone_and_replication() {
    if !cfg!(feature = "mysql") {
        return skip(&["mysql"], "dl was built without the cargo feature of MySQL");
    }
    let options = MariaDbOptions {
        config: vec![
            "max_connections=20".to_owned(),
            "max_user_connections=4".to_owned(),
            "default_time_zone=+02:00".to_owned(),
        ],
        ..MariaDbOptions::default()
    };
    let server = match MariaDb::start(options) {
        Ok(server) => server,
        Err(why) => return skip(&["mysql"], format!("{why:#}")),
    };
    // `_` is a wildcard of GRANT.
    server.create_database("la_ke").unwrap();
    let world = World::at(Some(server.url("la_ke")));
    world.dl(&["init"]).ok();
    let doctor = |world: &World| world.json_of(&["doctor"]);
    let report = doctor(&world);
    assert_eq!(level(&report, "rights"), Some("ok"), "{report}");
    assert_eq!(level(&report, "time_zone"), Some("note"), "{report}");
    assert_eq!(level(&report, "clocks"), Some("ok"), "{report}");
    assert_eq!(level(&report, "max_user_connections"), Some("warning"), "{report}");
    let advice = finding(&report, "max_user_connections").unwrap()["advice"].as_str().unwrap();
    assert!(advice.contains("max_connections in the catalog's URL"), "{advice}");
    assert_eq!(level(&report, "connections"), Some("ok"), "{report}");
    for none in ["wsrep_cluster_status", "replication", "settings"] {
        assert_eq!(level(&report, none), None, "{report}");
    }

    // Logins with the rights that `dl grants` prints.
    for (role, rights) in [("admin", "ok"), ("writer", "ok"), ("reader", "note")] {
        server.create_user(role, "pass_word").unwrap();
        let grants = world.dl(&["grants", "--role", role, "--login", role]).ok().stdout;
        server.sql(&grants).unwrap();
        let login = World::at(Some(server.url_as(role, "pass_word", "la_ke")));
        let report = doctor(&login);
        assert_eq!(level(&report, "rights"), Some(rights), "{role}: {report}");
        assert_eq!(level(&report, "registry"), None, "{role}: {report}");
        assert_eq!(level(&report, "settings"), None, "{report}");
    }
    let login = World::at(Some(server.url_as("writer", "pass_word", "la_ke")));
    server.sql("REVOKE INSERT ON la_ke.dl_files FROM writer").unwrap();
    let report = doctor(&login);
    assert_eq!(level(&report, "rights"), Some("note"), "{report}");
    let found = finding(&report, "rights").unwrap()["found"].as_str().unwrap();
    assert!(found.ends_with("may not write dl_files"), "{found}");

    // A replica whose source is not there, and which takes writes.
    if !server.is_mysql() {
        server
            .sql(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='none', \
                 MASTER_CONNECT_RETRY=60; START SLAVE;",
            )
            .unwrap();
        let root = World::at(Some(server.superuser_url("la_ke")));
        let report = doctor(&root);
        assert_eq!(level(&report, "replication"), Some("warning"), "{report}");
        let found = finding(&report, "replication").unwrap()["found"].as_str().unwrap();
        assert_eq!(found, "a replica of 127.0.0.1, stopped");
        // Who may not ask is told nothing of it, and everything else.
        let report = doctor(&login);
        assert_eq!(level(&report, "replication"), None, "{report}");
        assert_eq!(level(&report, "sizes"), Some("ok"), "{report}");
        server.sql("STOP SLAVE; RESET SLAVE ALL;").unwrap();
    }
}

/// Logins with the rights that `dl grants` prints.
#[test]
fn a_postgres_tells_the_rights_of_logins() {
    if !cfg!(feature = "postgres") {
        return skip(&["postgres"], "dl was built without the cargo feature of PostgreSQL");
    }
    let server = match Postgres::start(PostgresOptions::default()) {
        Ok(server) => server,
        Err(why) => return skip(&["postgres"], format!("{why:#}")),
    };
    server.create_database("lake").unwrap();
    let world = World::at(Some(server.url("lake")));
    world.dl(&["init"]).ok();
    for (role, rights) in [("admin", "ok"), ("writer", "ok"), ("reader", "note")] {
        server.create_role(role, "pass_word").unwrap();
        let grants = world.dl(&["grants", "--role", role, "--login", role]).ok().stdout;
        server.psql_in("lake", &grants).unwrap();
        let report = World::at(Some(server.url_as(role, "pass_word", "lake"))).json_of(&["doctor"]);
        assert_eq!(level(&report, "rights"), Some(rights), "{role}: {report}");
        assert_eq!(level(&report, "registry"), None, "{role}: {report}");
    }
    server.psql_in("lake", "REVOKE INSERT ON dl_audit FROM writer").unwrap();
    let login = World::at(Some(server.url_as("writer", "pass_word", "lake")));
    let report = login.json_of(&["doctor"]);
    let found = finding(&report, "rights").unwrap()["found"].as_str().unwrap();
    assert!(found.contains("dl_audit"), "{found}");
    // The registry is a writer's to read, and no reader's.
    server
        .psql_in(
            "lake",
            "GRANT INSERT ON dl_audit TO writer; REVOKE SELECT ON dl_registry FROM writer;
             GRANT SELECT ON dl_registry TO reader",
        )
        .unwrap();
    for (role, rights) in [("writer", "ok"), ("reader", "note")] {
        let report = World::at(Some(server.url_as(role, "pass_word", "lake"))).json_of(&["doctor"]);
        assert_eq!(level(&report, "rights"), Some(rights), "{role}: {report}");
        assert_eq!(level(&report, "registry"), Some("note"), "{role}: {report}");
        let found = finding(&report, "registry").unwrap()["found"].as_str().unwrap();
        assert!(found.contains("dl_registry"), "{role}: {found}");
    }
}

#[test]
fn a_galera_node_tells_how_its_cluster_is() {
    if !cfg!(feature = "mysql") {
        return skip(&["mysql"], "dl was built without the cargo feature of MySQL");
    }
    for (wait, expected) in [("7", "ok"), ("1", "warning")] {
        let cluster = match Galera::start_with(2, &[format!("wsrep_sync_wait={wait}")]) {
            Ok(cluster) => cluster,
            Err(why) => return skip(&["galera"], format!("{why:#}")),
        };
        cluster.create_database("lake").unwrap();
        let world = World::at(Some(cluster.urls("lake")[0].clone()));
        world.dl(&["init"]).ok();
        let report = world.json_of(&["doctor"]);
        for what in ["wsrep_cluster_status", "wsrep_ready", "wsrep_local_state_comment"] {
            assert_eq!(level(&report, what), Some("ok"), "{what}: {report}");
        }
        // Half of two is no majority.
        assert_eq!(level(&report, "wsrep_cluster_size"), Some("note"), "{report}");
        assert_eq!(level(&report, "wsrep_sync_wait"), Some(expected), "{report}");
    }
}
