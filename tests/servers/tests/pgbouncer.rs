//! PgBouncer in front of PostgreSQL.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::Command;

use deltalakedb_test_servers::{PgBouncer, PoolMode, Postgres, PostgresOptions, Software};

/// What `psql` on the path says to a query; none if it cannot connect.
fn ask(url: &str, sql: &str) -> Option<String> {
    let output = Command::new("psql").args(["-XAtq", "-c", sql, url]).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn each_role_logs_in_through_it() {
    for software in [Software::Postgres, Software::PgBouncer] {
        if let Err(why) = software.check() {
            deltalakedb_test_servers::skip(&["pgbouncer"], why);
            return;
        }
    }
    let server = Postgres::start(PostgresOptions::default()).unwrap();
    server.create_database("shop").unwrap();
    server.create_role("reader", "secret").unwrap();
    let mut pooler = PgBouncer::start(&server, PoolMode::Transaction).unwrap();
    assert!(!format!("{pooler:?}").contains(server.password()));
    for (url, user) in [
        (pooler.url("shop"), server.user()),
        (pooler.superuser_url("shop"), server.superuser()),
        (pooler.url_as("reader", "secret", "shop"), "reader"),
    ] {
        assert_eq!(ask(&url, "SELECT current_user").unwrap(), user);
    }
    assert_eq!(ask(&pooler.url_as("reader", "wrong", "shop"), "SELECT 1"), None);
    pooler.kill();
    assert_eq!(ask(&pooler.url("shop"), "SELECT 1"), None);
    pooler.start_again().unwrap();
    assert_eq!(ask(&pooler.url("shop"), "SELECT 1").unwrap(), "1");
}
