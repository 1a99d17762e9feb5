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

use async_trait::async_trait;
use deltalakedb_backend_postgres::{PostgresBackend, PostgresOptions};
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest, TableCommit};
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableName, TableRef, TimestampMs};
use deltalakedb_catalog_engine::catalog::{Catalog, ChangeTarget, CommitBatch, TableChange};
use deltalakedb_catalog_engine::env::{Clock, IdSource};
use deltalakedb_conformance::change::{Change, new_table};
use deltalakedb_conformance::env::v;
use deltalakedb_test_servers::{PgBouncer, PoolMode, Postgres};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use uuid::Uuid;

use support::{Guard, options};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);
/// Long enough for a server that was told, on a machine that has much to do.
const SOON: Duration = Duration::from_secs(10);
/// So long for an answer that must come by the deadline of the call.
const LIMIT: Duration = Duration::from_millis(600);

/// Two tables at version 0, and who looks at the server besides.
struct World {
    admin: String,
    options: PostgresOptions,
    schema: String,
    /// In the order in which commits lock them.
    tables: [TableId; 2],
    _guard: Guard,
}

fn shared() -> Option<String> {
    deltalakedb_test_servers::shared_postgres()
        .map_err(|why| deltalakedb_test_servers::skip(&["postgres"], why))
        .ok()
}

impl World {
    async fn on(admin: String) -> World {
        let schema = format!("dl_deadlines_{}", Uuid::new_v4().simple());
        let mut options = options(&format!("{admin}#{schema}")).unwrap();
        // By which its sessions are found.
        options.application_name.clone_from(&schema);
        let db = PostgresBackend::connect(options.clone()).await.unwrap();
        db.migrate(NOW).await.unwrap();
        let mut tables = [TableId(Uuid::new_v4()), TableId(Uuid::new_v4())];
        tables.sort_by_key(|table| table.0);
        let creates = tables.iter().enumerate().map(|(n, table)| {
            let new = new_table(*table, TableName::new("g", format!("t{n}")).unwrap());
            Change::files(["first"]).create(new).unwrap()
        });
        db.commit(request("create", creates.collect())).await.unwrap();
        let guard = Guard { admin: admin.clone(), schema: schema.clone() };
        World { admin, options, schema, tables, _guard: guard }
    }

    async fn admin(&self) -> PgConnection {
        PgConnection::connect(&self.admin).await.unwrap()
    }

    /// Takes the row of a table and keeps it, until the transaction of the connection ends.
    async fn hold(&self, table: TableId) -> PgConnection {
        let sql = format!(
            "BEGIN; SELECT 1 FROM {}.dl_tables WHERE id = '{table}' FOR UPDATE",
            self.schema
        );
        let mut holder = self.admin().await;
        holder.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        holder
    }

    /// Statements of the catalog that the server is at.
    async fn at_work(&self, admin: &mut PgConnection) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity
             WHERE state = 'active' AND application_name = $1";
        let row = sqlx::query(sql).bind(&self.schema).fetch_one(admin).await;
        row.unwrap().get(0)
    }

    async fn until_at_work(&self, wanted: i64) {
        let mut admin = self.admin().await;
        let begun = Instant::now();
        loop {
            let found = self.at_work(&mut admin).await;
            if found == wanted {
                return;
            }
            assert!(begun.elapsed() < SOON, "the server is at {found} statements, not {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Nothing goes on at the server: somebody else gets the row of the table at once.
    async fn is_free(&self, table: TableId) {
        self.until_at_work(0).await;
        let sql = format!(
            "BEGIN; SELECT 1 FROM {}.dl_tables WHERE id = '{table}' FOR UPDATE NOWAIT; COMMIT",
            self.schema
        );
        self.admin().await.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }

    /// One that waits for its turn only, one that is checked, and one over both tables, of which it has the
    /// first when it waits for the second.
    fn commits(&self) -> [(&'static str, Vec<TableCommit>); 3] {
        let [first, second] = self.tables;
        let append = |table| Change::files(["new"]).append(table, v(0)).unwrap();
        [
            ("append", vec![append(second)]),
            ("commit", vec![Change::files(["new"]).exactly(second, v(0)).unwrap()]),
            ("both", vec![append(second), append(first)]),
        ]
    }
}

fn request(token: &str, tables: Vec<TableCommit>) -> CommitRequest {
    CommitRequest { token: CommitToken::new(token).unwrap(), now: NOW, tables }
}

/// Ended by its deadline, and for certain: not written.
fn timed_out(what: &str, outcome: &Result<CommitOutcome>) {
    let Err(error) = outcome else { panic!("{what}: {outcome:?}") };
    assert!(error.is_retryable(), "{what}: {error}");
    assert_eq!(error.write_state(), WriteState::NotApplied, "{what}: {error}");
}

/// Each commit waits for a row that somebody holds, and its time ends.
async fn commits_that_time_out_end_at_the_server(world: &World, options: PostgresOptions) {
    let options = PostgresOptions { statement_timeout: LIMIT, ..options };
    let db = PostgresBackend::connect(options).await.unwrap();
    let [first, second] = world.tables;
    // The second round meets a table at which others were waited for.
    for round in 0..2 {
        for (what, commits) in world.commits() {
            let holder = world.hold(second).await;
            let token = format!("{what}-{round}");
            timed_out(&token, &db.commit(request(&token, commits)).await.plain());
            world.is_free(first).await;
            drop(holder);
            let told = db.resolve_token(&CommitToken::new(&token).unwrap()).await.unwrap();
            assert_eq!(told, None, "{token}");
        }
    }
    world.until_at_work(0).await;
    let append = Change::files(["after"]).append(second, v(0)).unwrap();
    let outcome = db.commit(request("after", vec![append])).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_times_out_ends_at_the_server() {
    let Some(admin) = shared() else { return };
    let world = World::on(admin).await;
    commits_that_time_out_end_at_the_server(&world, world.options.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_dropped_ends_at_the_server() {
    let Some(admin) = shared() else { return };
    let world = World::on(admin).await;
    let version: i32 = {
        let sql = "SELECT current_setting('server_version_num')::int4";
        world.admin().await.fetch_one(sql).await.unwrap().get(0)
    };
    if version < 140_000 {
        let why = format!("PostgreSQL {version} does not look whether its clients are there");
        return deltalakedb_test_servers::skip(&[], why);
    }
    let db = PostgresBackend::connect(world.options.clone()).await.unwrap();
    let [first, second] = world.tables;
    for (what, commits) in world.commits() {
        let holder = world.hold(second).await;
        let (task, request) = (Arc::clone(&db), request(what, commits));
        let task = tokio::spawn(async move { task.commit(request).await });
        world.until_at_work(1).await;
        task.abort();
        world.is_free(first).await;
        drop(holder);
    }
    world.until_at_work(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_through_a_pooler_that_times_out_ends_at_the_server() {
    let server = match Postgres::start(deltalakedb_test_servers::PostgresOptions::default()) {
        Ok(server) => server,
        Err(why) => return deltalakedb_test_servers::skip(&["postgres"], format!("{why:#}")),
    };
    for (mode, statement_cache) in [(PoolMode::Session, 100), (PoolMode::Transaction, 0)] {
        let world = World::on(server.superuser_url("postgres")).await;
        let pooler = match PgBouncer::start(&server, mode) {
            Ok(pooler) => pooler,
            Err(why) => return deltalakedb_test_servers::skip(&["pgbouncer"], format!("{why:#}")),
        };
        let options =
            PostgresOptions { port: pooler.port(), statement_cache, ..world.options.clone() };
        commits_that_time_out_end_at_the_server(&world, options).await;
    }
}

#[derive(Debug)]
struct RealTime(Instant);

#[async_trait]
impl Clock for RealTime {
    fn now(&self) -> TimestampMs {
        NOW.plus_ms(i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

#[derive(Debug)]
struct RandomIds;

impl IdSource for RandomIds {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn fraction(&self) -> f64 {
        0.5
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_repeated_for_as_long_as_it_was_told_and_says_so() {
    let Some(admin) = shared() else { return };
    let world = World::on(admin).await;
    let options = PostgresOptions { statement_timeout: LIMIT, ..world.options.clone() };
    let db = PostgresBackend::connect(options).await.unwrap();
    let clock = Arc::new(RealTime(Instant::now()));
    let catalog = Catalog::new(db, clock, Arc::new(RandomIds));
    let table = world.tables[1];
    let holder = world.hold(table).await;
    let batch = move |file: &str| {
        CommitBatch {
        token: None,
        tables: vec![TableChange {
            target: ChangeTarget::Existing { table: TableRef::Id(table), read_version: None },
            ndjson: format!(
                r#"{{"add":{{"path":"{file}","partitionValues":{{}},"size":1,"modificationTime":1,"dataChange":true}}}}"#
            )
            .into_bytes(),
            origin: "a test".to_owned(),
            reads: deltalakedb_catalog_engine::conflict::Reads::default(),
            operation: None,
        }],
    }
    };
    // For one commit.
    let impatient = catalog.clone().with_retry_timeout(4 * LIMIT);
    let error = impatient.commit(batch("a")).await.unwrap_err();
    assert!(matches!(error, CatalogError::Unavailable { .. }), "{error}");
    let text = error.to_string();
    for word in ["statement timeout", "times in", "retry_timeout allows 2.4 s"] {
        assert!(text.contains(word), "no '{word}' in: {text}");
    }
    world.is_free(world.tables[0]).await;
    // By itself it is patient.
    let task = tokio::spawn(async move { catalog.commit(batch("b")).await });
    world.until_at_work(1).await;
    drop(holder);
    assert_eq!(task.await.unwrap().unwrap().tables[0].version, v(1));
}
