//! What needs a server and more than the suite: logins, lost answers, round trips, many files.
//!
//! On the server of `DL_TEST_MSSQL_URL`; without it each is skipped, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's ways to speak"
)]

#[allow(dead_code, reason = "shared with the suite's programs")]
mod support;

use std::sync::Arc;
use std::time::Duration;

use deltalakedb_backend_mssql::{GrantRole, MssqlBackend, MssqlOptions, grants};
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::ids::{At, TableRef, TimestampMs};
use deltalakedb_conformance::env::retrying;
use deltalakedb_conformance::live::{self, Lost};
use deltalakedb_test_servers::CountingProxy;
use uuid::Uuid;

use support::{Tables, client, fresh_prefix, options};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

/// Options for tables of this test's own, which go with the guard; none where there is no server.
fn server() -> Option<(MssqlOptions, Tables)> {
    if deltalakedb_test_servers::mssql_urls().is_empty() {
        let why = "DL_TEST_MSSQL_URL is not set: SQL Server does not run here by itself";
        deltalakedb_test_servers::skip(&["mssql"], why);
        return None;
    }
    let prefix = fresh_prefix();
    Some((options(&prefix).unwrap(), Tables { prefix }))
}

async fn open(options: &MssqlOptions) -> Arc<MssqlBackend> {
    MssqlBackend::connect(options.clone()).await.unwrap()
}

/// The same server, through a proxy.
fn through(options: &MssqlOptions) -> (CountingProxy, MssqlOptions) {
    let proxy = CountingProxy::start_to((options.host.as_str(), options.port)).unwrap();
    let mut options = options.clone();
    "127.0.0.1".clone_into(&mut options.host);
    options.port = proxy.port();
    (proxy, options)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_one_round_trip_and_so_is_opening_a_table() {
    let Some((options, _tables)) = server() else { return };
    let (proxy, options) = through(&options);
    let db = open(&options).await;
    db.migrate(NOW).await.unwrap();
    let taken = || {
        let count = proxy.round_trips();
        proxy.reset();
        count
    };
    let counts = live::round_trips(db.as_ref(), taken).await.unwrap();
    println!("{counts:?}");
    assert!(counts.iter().all(|(_, count)| *count == 1), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_of_the_first_version_is_upgraded() {
    let Some((options, _tables)) = server() else { return };
    let db = open(&options).await;
    db.migrate(NOW).await.unwrap();
    let table = live::make_table(db.as_ref()).await.unwrap();
    let mut client = client(&options).await.unwrap();
    for statement in live::TO_FIRST_SCHEMA {
        let prefix = format!("[{}].{}", options.schema, options.table_prefix);
        let sent = client.simple_query(statement.replace("{p}", &prefix)).await.unwrap();
        sent.into_results().await.unwrap();
    }
    live::upgrade(open(&options).await.as_ref(), table).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_in_doubt_and_the_token_tells() {
    let Some((options, _tables)) = server() else { return };
    let (proxy, options) = through(&options);
    let db = open(&options).await;
    db.migrate(NOW).await.unwrap();
    let lose = |lost| match lost {
        Lost::Answer => proxy.cut_after_next_request(),
        Lost::Request => proxy.cut_before_request(1, b""),
    };
    live::lost_commits(db.as_ref(), lose).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_recovers_from_connections_that_were_cut() {
    let Some((options, _tables)) = server() else { return };
    let (proxy, options) = through(&options);
    let db = open(&options).await;
    db.migrate(NOW).await.unwrap();
    let table = TableRef::Id(live::make_table(db.as_ref()).await.unwrap());
    for _ in 0..3 {
        proxy.cut();
        // The first call may meet a connection that looked alive.
        let read = || db.snapshot(&table, At::Head);
        tokio::time::timeout(Duration::from_secs(30), retrying(read)).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_get_through_a_network_that_breaks() {
    let Some((options, _tables)) = server() else { return };
    let (proxy, options) = through(&options);
    let db = open(&options).await;
    db.migrate(NOW).await.unwrap();
    let mut times = 0;
    let disturb = || {
        times += 1;
        match times {
            40.. => {}
            _ if times % 3 == 0 => proxy.cut_after_next_request(),
            _ => proxy.cut(),
        }
    };
    let seen = live::disturbed(db, disturb).await.unwrap();
    println!("{seen:?}");
    assert!(seen.committed + seen.found > 100, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_it_is_for() {
    let Some((options, _tables)) = server() else { return };
    let owner = open(&options).await;
    owner.migrate(NOW).await.unwrap();
    let mut admin = client(&options).await.unwrap();
    let mut run = async |sql: String| {
        let answer = admin.simple_query(&sql).await.unwrap().into_results().await;
        answer.unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    let mut logins = Vec::new();
    for (role, kind) in [(GrantRole::Reader, "reader"), (GrantRole::Writer, "writer")] {
        let login = format!("{kind}_{}", &Uuid::new_v4().simple().to_string()[..12]);
        run(format!("CREATE LOGIN [{login}] WITH PASSWORD = 'Throwaway-1'")).await;
        run(format!("CREATE USER [{login}] FOR LOGIN [{login}]")).await;
        for sql in grants(&options, role, &login).unwrap() {
            run(sql).await;
        }
        let mut theirs = options.clone();
        theirs.user.clone_from(&login);
        theirs.password = Some("Throwaway-1".into());
        logins.push((login, open(&theirs).await));
    }
    live::roles(owner.as_ref(), logins[0].1.as_ref(), logins[1].1.as_ref()).await.unwrap();
    let mut other = options.clone();
    other.table_prefix = fresh_prefix();
    other.user.clone_from(&logins[1].0);
    other.password = Some("Throwaway-1".into());
    let error = open(&other).await.migrate(NOW).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    for (login, db) in logins {
        drop(db);
        // Best effort: it is a server for tests.
        for sql in [format!("DROP USER [{login}]"), format!("DROP LOGIN [{login}]")] {
            if let Err(error) = admin.simple_query(&sql).await {
                println!("{sql}: {error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_many_files() {
    let Some((options, _tables)) = server() else { return };
    let db = open(&options).await;
    db.migrate(NOW).await.unwrap();
    let bulk = live::bulk(db.as_ref(), 20_000).await.unwrap();
    println!("20,000 files: {bulk:?}");
}

/// `cargo test --release -p deltalakedb-backend-mssql --test live -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, in release"]
async fn a_commit_of_a_hundred_thousand_files() {
    let Some((options, _tables)) = server() else { return };
    let db = open(&options).await;
    db.migrate(NOW).await.unwrap();
    let bulk = live::bulk(db.as_ref(), 100_000).await.unwrap();
    println!("100,000 files: {bulk:?}");
}
