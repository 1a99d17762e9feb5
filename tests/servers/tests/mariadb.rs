//! MariaDB (or MySQL): started, restarted, crashed, paused, and gone.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use deltalakedb_test_servers::{MariaDb, MariaDbOptions, Software};

/// The server, or none where none is installed.
fn start(config: &[&str]) -> Option<MariaDb> {
    if let Err(why) = Software::MariaDb.check() {
        deltalakedb_test_servers::skip(&["mysql"], why);
        return None;
    }
    let config = config.iter().map(|l| (*l).to_owned()).collect();
    Some(MariaDb::start(MariaDbOptions { config, ..MariaDbOptions::default() }).unwrap())
}

#[test]
fn it_keeps_what_was_committed_through_restarts_and_crashes() {
    let Some(mut server) = start(&["lock_wait_timeout=17"]) else { return };
    server.create_database("my_shop").unwrap();
    server
        .sql("USE my_shop; CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1);")
        .unwrap();
    server.restart().unwrap();
    server.sql("INSERT INTO my_shop.t VALUES (2);").unwrap();
    server.kill();
    assert!(server.sql("SELECT 1").is_err());
    server.start_again().unwrap();
    assert_eq!(server.sql("SELECT n FROM my_shop.t ORDER BY n").unwrap(), "1\n2");
    assert_eq!(
        server.sql("SELECT @@innodb_flush_log_at_trx_commit, @@global.lock_wait_timeout").unwrap(),
        "1\t17"
    );
    server.stop().unwrap();
    assert!(server.sql("SELECT 1").is_err());
}

#[test]
fn a_paused_server_answers_when_it_goes_on() {
    let Some(server) = start(&[]) else { return };
    assert!(!format!("{server:?}").contains(server.password()));
    server.create_user("reader", "it's").unwrap();
    server.pause();
    std::thread::scope(|scope| {
        let began = Instant::now();
        let asked = scope.spawn(|| server.sql("SELECT 7").unwrap());
        while began.elapsed() < Duration::from_millis(300) {
            assert!(!asked.is_finished());
            std::thread::yield_now();
        }
        server.resume();
        assert_eq!(asked.join().unwrap(), "7");
    });
}
