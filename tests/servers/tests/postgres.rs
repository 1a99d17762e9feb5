//! PostgreSQL: started, restarted, crashed, paused, copied, and gone.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use deltalakedb_test_servers::{Postgres, PostgresOptions, Software};

/// The server, or none where PostgreSQL is not installed.
fn start() -> Option<Postgres> {
    if let Err(why) = Software::Postgres.check() {
        deltalakedb_test_servers::skip(&["postgres"], why);
        return None;
    }
    Some(Postgres::start(PostgresOptions::default()).unwrap())
}

#[test]
fn it_keeps_what_was_committed_through_restarts_and_crashes() {
    let Some(mut server) = start() else { return };
    server.create_database("shop").unwrap();
    server
        .psql_in("shop", "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1);")
        .unwrap();
    server.restart().unwrap();
    server.psql_in("shop", "INSERT INTO t VALUES (2);").unwrap();
    server.kill();
    assert!(server.psql("SELECT 1;").is_err());
    server.start_again().unwrap();
    assert_eq!(server.psql_in("shop", "SELECT n FROM t ORDER BY n;").unwrap(), "1\n2");
    assert_eq!(server.psql("SHOW fsync;").unwrap(), "on");
    server.stop().unwrap();
    assert!(server.psql("SELECT 1;").is_err());
}

#[test]
fn a_replica_shows_what_the_primary_commits_unless_it_is_paused() {
    let Some(server) = start() else { return };
    let limit = Duration::from_secs(60);
    let mut replica = server.replica().unwrap();
    server.psql("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1);").unwrap();
    replica.wait_caught_up(&server, limit).unwrap();
    assert_eq!(replica.psql("SELECT n FROM t;").unwrap(), "1");
    assert!(
        replica.psql("INSERT INTO t VALUES (2);").unwrap_err().to_string().contains("read-only")
    );
    replica.pause_replay().unwrap();
    server.psql("INSERT INTO t VALUES (3);").unwrap();
    assert!(replica.wait_caught_up(&server, Duration::from_millis(500)).is_err());
    assert_eq!(replica.psql("SELECT max(n) FROM t;").unwrap(), "1");
    replica.resume_replay().unwrap();
    replica.wait_caught_up(&server, limit).unwrap();
    replica.kill();
    server.psql("INSERT INTO t VALUES (4);").unwrap();
    replica.start_again().unwrap();
    replica.wait_caught_up(&server, limit).unwrap();
    assert_eq!(replica.psql("SELECT max(n) FROM t;").unwrap(), "4");
}

#[test]
fn a_paused_server_answers_when_it_goes_on() {
    let Some(server) = start() else { return };
    server.pause();
    std::thread::scope(|scope| {
        let began = Instant::now();
        let asked = scope.spawn(|| server.psql("SELECT 7;").unwrap());
        while began.elapsed() < Duration::from_millis(300) {
            assert!(!asked.is_finished());
            std::thread::yield_now();
        }
        server.resume();
        assert_eq!(asked.join().unwrap(), "7");
    });
}

#[test]
fn options_reach_the_server() {
    if Software::Postgres.check().is_err() {
        deltalakedb_test_servers::skip(&["postgres"], "no PostgreSQL");
        return;
    }
    let options = PostgresOptions {
        config: vec!["statement_timeout = '17s'".to_owned(), "max_connections = 12".to_owned()],
        ..PostgresOptions::default()
    };
    let server = Postgres::start(options).unwrap();
    assert_eq!(server.psql("SHOW statement_timeout;").unwrap(), "17s");
    assert_eq!(server.psql("SHOW max_connections;").unwrap(), "12");
    let refused = PostgresOptions {
        config: vec!["no_such_setting = 1".to_owned()],
        ..PostgresOptions::default()
    };
    let error = format!("{:#}", Postgres::start(refused).unwrap_err());
    assert!(error.contains("no_such_setting"), "{error}");
    let absent = PostgresOptions { version: Some(8), ..PostgresOptions::default() };
    let error = format!("{:#}", Postgres::start(absent).unwrap_err());
    assert!(error.contains("apt-get install"), "{error}");
}

#[test]
fn no_password_is_shown() {
    let Some(server) = start() else { return };
    assert!(!format!("{server:?}").contains(server.password()));
    server.create_role("reader", "it's").unwrap();
    assert_eq!(
        server.psql("SELECT count(*) FROM pg_roles WHERE rolname = 'reader';").unwrap(),
        "1"
    );
}
