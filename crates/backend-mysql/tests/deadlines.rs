//! What becomes of a call, at the server too, when its time is over or nobody waits for it any more.
//! Without a server each is skipped, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's ways to speak"
)]

#[allow(dead_code, reason = "shared with the suite's programs")]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use deltalakedb_backend_mysql::{MySqlBackend, MySqlOptions};
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest, TableCommit};
use deltalakedb_catalog_core::error::WriteState;
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableName, TimestampMs};
use deltalakedb_conformance::change::{Change, new_table};
use deltalakedb_conformance::env::v;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use url::Url;
use uuid::Uuid;

use support::{Guard, options};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);
/// Far less than the 50 s that the server itself waits for a lock.
const SOON: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_millis(600);

/// Two tables at version 0, and who looks at the server besides.
struct World {
    admin: String,
    options: MySqlOptions,
    /// In the order in which commits lock them.
    tables: [TableId; 2],
    _guard: Guard,
}

impl World {
    /// None where there is no server.
    async fn new() -> Option<World> {
        let admin = deltalakedb_test_servers::shared_mysql()
            .map_err(|why| deltalakedb_test_servers::skip(&["mysql"], why))
            .ok()?;
        let database = format!("dl_deadlines_{}", Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {database}");
        let mut connection = MySqlConnection::connect(&admin).await.unwrap();
        connection.execute(sqlx::raw_sql(AssertSqlSafe(create))).await.unwrap();
        let mut url: Url = admin.parse().unwrap();
        url.set_path(&database);
        let options = options(url.as_str()).unwrap();
        let db = MySqlBackend::connect(options.clone()).await.unwrap();
        db.migrate(NOW).await.unwrap();
        let mut tables = [TableId(Uuid::new_v4()), TableId(Uuid::new_v4())];
        tables.sort_by_key(|table| table.0);
        let creates = tables.iter().enumerate().map(|(n, table)| {
            let new = new_table(*table, TableName::new("g", format!("t{n}")).unwrap());
            Change::files(["first"]).create(new).unwrap()
        });
        db.commit(request("create", creates.collect())).await.unwrap();
        db.close().await.unwrap();
        let guard = Guard { admin: admin.clone(), database };
        Some(World { admin, options, tables, _guard: guard })
    }

    async fn admin(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.admin).await.unwrap()
    }

    fn lock(&self, table: TableId) -> String {
        format!(
            "START TRANSACTION; SELECT 1 FROM {}.dl_tables WHERE id = X'{}' FOR UPDATE",
            self.options.database,
            table.0.simple()
        )
    }

    /// Takes the row of a table and keeps it, until the transaction of the connection ends.
    async fn hold(&self, table: TableId) -> MySqlConnection {
        let mut holder = self.admin().await;
        let sql = sqlx::raw_sql(AssertSqlSafe(self.lock(table)));
        assert_eq!(holder.fetch_all(sql).await.unwrap().len(), 1);
        holder
    }

    async fn until_at_work(&self, wanted: i64) {
        let sql = "SELECT COUNT(*) FROM information_schema.processlist
             WHERE db = ? AND command <> 'Sleep' AND id <> CONNECTION_ID()";
        let (mut admin, begun) = (self.admin().await, Instant::now());
        loop {
            let row = sqlx::query(sql).bind(&self.options.database).fetch_one(&mut admin).await;
            let found: i64 = row.unwrap().get(0);
            if found == wanted {
                return;
            }
            assert!(begun.elapsed() < SOON, "the server is at {found} statements, not {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Nothing goes on at the server: somebody else gets the row of the table.
    async fn is_free(&self, table: TableId) {
        self.until_at_work(0).await;
        let got = tokio::time::timeout(SOON, self.hold(table)).await;
        drop(got.unwrap());
    }

    /// One that waits for its turn only, and one over both tables, of which it has the first when it waits
    /// for the second.
    fn commits(&self) -> [(&'static str, Vec<TableCommit>); 2] {
        let [first, second] = self.tables;
        let append = |table| Change::files(["new"]).append(table, v(0)).unwrap();
        [("append", vec![append(second)]), ("both", vec![append(second), append(first)])]
    }
}

fn request(token: &str, tables: Vec<TableCommit>) -> CommitRequest {
    CommitRequest { token: CommitToken::new(token).unwrap(), now: NOW, tables }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_times_out_ends_at_the_server() {
    let Some(world) = World::new().await else { return };
    let options = MySqlOptions { statement_timeout: LIMIT, ..world.options.clone() };
    let db = MySqlBackend::connect(options).await.unwrap();
    let [first, second] = world.tables;
    for (what, commits) in world.commits() {
        let holder = world.hold(second).await;
        let error = db.commit(request(what, commits)).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(error.write_state(), WriteState::NotApplied, "{error}");
        world.is_free(first).await;
        drop(holder);
    }
    let append = Change::files(["after"]).append(second, v(0)).unwrap();
    let outcome = db.commit(request("after", vec![append])).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_dropped_end_at_the_server() {
    let Some(world) = World::new().await else { return };
    let db = MySqlBackend::connect(world.options.clone()).await.unwrap();
    let [first, second] = world.tables;
    let holder = world.hold(second).await;
    // All connections of the pool at once: what ends them needs one of its own.
    let tasks: Vec<_> = (0..world.options.pool.max_connections)
        .map(|n| {
            let append = Change::files([format!("f{n}")]).append(second, v(0)).unwrap();
            let (db, request) = (Arc::clone(&db), request(&format!("c{n}"), vec![append]));
            tokio::spawn(async move { db.commit(request).await })
        })
        .collect();
    world.until_at_work(i64::from(world.options.pool.max_connections)).await;
    for task in tasks {
        task.abort();
    }
    world.is_free(first).await;
    drop(holder);
    let append = Change::files(["after"]).append(second, v(0)).unwrap();
    let outcome = db.commit(request("after", vec![append])).await.unwrap();
    let CommitOutcome::Committed(done) = outcome else { panic!("{outcome:?}") };
    assert_eq!(done[0].version, v(1));
}
