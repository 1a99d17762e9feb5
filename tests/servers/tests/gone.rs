//! No server outlives what started it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use deltalakedb_test_servers::{
    MariaDb, MariaDbOptions, Postgres, PostgresOptions, Software, folders_of, shared_mysql,
    shared_postgres, wait_until,
};

/// Set in the process that is to be killed.
const VICTIM: &str = "DL_TEST_SERVERS_VICTIM";

/// What works in, or is left of, the folders of the servers that a process has started.
fn left(pid: u32) -> Vec<PathBuf> {
    let mut found = folders_of(pid).unwrap();
    let mark = format!("-{pid}-");
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        // Processes end while we look.
        if let Ok(place) = std::fs::read_link(process.path().join("cwd"))
            && place.to_string_lossy().contains(&mark)
        {
            found.push(process.path());
        }
    }
    found
}

fn unavailable() -> bool {
    for software in [Software::Postgres, Software::MariaDb] {
        if let Err(why) = software.check() {
            deltalakedb_test_servers::skip(
                &[if software == Software::Postgres { "postgres" } else { "mysql" }],
                why,
            );
            return true;
        }
    }
    false
}

#[test]
fn dropped_servers_leave_no_process_and_no_folder() {
    if unavailable() {
        return;
    }
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let replica = postgres.replica().unwrap();
    let mut crashed = Postgres::start(PostgresOptions::default()).unwrap();
    crashed.kill();
    let maria = MariaDb::start(MariaDbOptions::default()).unwrap();
    maria.pause();
    assert!(folders_of(std::process::id()).unwrap().len() >= 4);
    assert!(left(std::process::id()).len() > 7);
    drop((postgres, replica, crashed, maria));
    assert_eq!(left(std::process::id()), Vec::<PathBuf>::new());
}

#[test]
fn servers_end_when_the_process_that_started_them_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        println!("\n{}\n{}", shared_postgres().unwrap(), shared_mysql().unwrap());
        println!("started");
        loop {
            std::thread::park();
        }
    }
    if unavailable() {
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "servers_end_when_the_process_that_started_them_is_killed"])
        .arg("--nocapture")
        .env(VICTIM, "1")
        .env_remove("DL_TEST_POSTGRES_URL")
        .env_remove("DL_TEST_MYSQL_URL")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .take_while(|l| l != "started")
        .collect();
    assert!(lines.iter().any(|l| l.starts_with("postgresql://")), "{lines:?}");
    assert!(lines.iter().any(|l| l.starts_with("mysql://")), "{lines:?}");
    assert!(left(victim.id()).len() > 4, "{:?}", left(victim.id()));
    victim.kill().unwrap();
    victim.wait().unwrap();
    let limit = Duration::from_secs(60);
    wait_until("the servers end", limit, || Ok(left(victim.id()).is_empty())).unwrap();
}
