//! How much of the pool commits take that others hold up, and in which order they lock.

use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::PlainResult;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltalakedb_catalog_core::backend::{CommitOutcome, TableCommit};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef};
use deltalakedb_conformance::change::Change;
use deltalakedb_conformance::env::v;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tokio::task::JoinHandle;

use crate::world::{World, request};

/// Long enough for whatever must come.
const SOON: Duration = Duration::from_secs(20);

fn append(table: TableId, file: &str) -> TableCommit {
    Change::files([file]).append(table, v(0)).unwrap()
}

/// Sends a commit, or gets into the queue with it, before it returns.
async fn start(
    world: &World,
    token: &str,
    tables: Vec<TableCommit>,
) -> JoinHandle<Result<CommitOutcome>> {
    let (db, request) = (Arc::clone(&world.db), request(token, tables));
    let mut commit = Box::pin(async move { db.commit(request).await.plain() });
    assert!(futures::poll!(&mut commit).is_pending(), "{token}");
    tokio::spawn(commit)
}

/// Sessions of the catalog that wait for a lock on its tables.
async fn waiting(world: &World, admin: &mut PgConnection) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
         AND application_name = $1";
    let row = sqlx::query(sql).bind(&world.schema).fetch_one(admin).await;
    row.unwrap().get(0)
}

async fn until_waiting(world: &World, admin: &mut PgConnection, at_least: i64) {
    let begun = Instant::now();
    while waiting(world, admin).await < at_least {
        assert!(begun.elapsed() < SOON, "not {at_least} sessions wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Another process that gets into the row's queue, and keeps the row once it has it.
async fn next_in_line(world: &World, admin: &mut PgConnection) -> JoinHandle<PgConnection> {
    let mut holder = PgConnection::connect(&world.guard.admin).await.unwrap();
    let pid: i32 = holder.fetch_one("SELECT pg_backend_pid()").await.unwrap().get(0);
    let sql = format!(
        "BEGIN; SELECT 1 FROM {}.dl_tables WHERE id = '{}' FOR UPDATE",
        world.schema, world.table
    );
    let task = tokio::spawn(async move {
        holder.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        holder
    });
    let begun = Instant::now();
    loop {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
        let row = sqlx::query(sql).bind(pid).fetch_one(&mut *admin).await.unwrap();
        if row.get::<i64, _>(0) == 1 {
            return task;
        }
        assert!(begun.elapsed() < SOON, "it does not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_group_takes_one_connection() {
    let Some(mut world) = World::with(1, 12).await else { return };
    let mut admin = PgConnection::connect(&world.guard.admin).await.unwrap();
    world.hold().await;
    let table = world.table;
    let mut tasks = vec![start(&world, "turn", vec![append(table, "turn")]).await];
    until_waiting(&world, &mut admin, 1).await;
    // One of them adds a file that is there already: the statement of all is refused.
    for n in 0..30 {
        let file = if n == 7 { "first".to_owned() } else { format!("f{n}") };
        tasks.push(start(&world, &format!("c{n}"), vec![append(table, &file)]).await);
    }
    // The first one goes through; the group finds the row held, and so do those that follow it.
    let held = next_in_line(&world, &mut admin).await;
    world.release().await;
    let mut held = held.await.unwrap();
    until_waiting(&world, &mut admin, 1).await;
    let later = next_in_line(&world, &mut admin).await;
    held.execute("COMMIT").await.unwrap();
    let mut later = later.await.unwrap();
    until_waiting(&world, &mut admin, 1).await;
    for _ in 0..100 {
        let many = waiting(&world, &mut admin).await;
        assert!(many <= 1, "{many} connections wait for one table");
    }
    later.execute("COMMIT").await.unwrap();
    for task in tasks {
        let outcome = task.await.unwrap().unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
    }
    assert_eq!(world.paths().await.len(), 31);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_others_hold_leave_connections_to_readers() {
    let Some(world) = World::with(12, 8).await else { return };
    let mut admin = PgConnection::connect(&world.guard.admin).await.unwrap();
    let tables = world.tables.clone();
    let mut first = world.held(&tables[..1]).await;
    let others = world.held(&tables[1..]).await;
    let mut tasks = Vec::new();
    // Four turns, half of the pool, and eight that wait for one.
    for (n, table) in tables.iter().enumerate() {
        tasks.push(start(&world, &format!("c{n}"), vec![append(*table, "new")]).await);
    }
    until_waiting(&world, &mut admin, 4).await;
    // When the first is through, the next statement passes over the tables of all that wait.
    first.execute("COMMIT").await.unwrap();
    until_waiting(&world, &mut admin, 5).await;
    for table in &tables {
        let table = TableRef::Id(*table);
        let read = world.db.snapshot(&table, At::Head);
        tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    }
    let many = waiting(&world, &mut admin).await;
    assert_eq!(many, 5, "three turns, and a quarter of the pool");
    drop(others);
    for task in tasks {
        let outcome = task.await.unwrap().unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
    }
}

/// Who publishes locks the mirrors' rows in the order of their tables, and so must commits: who has the
/// second while he waits for the first, waits in a circle sooner or later.
#[tokio::test(flavor = "multi_thread")]
async fn commits_over_several_tables_take_mirrors_in_one_order() {
    let Some(mut world) = World::with(5, 4).await else { return };
    let mut admin = PgConnection::connect(&world.guard.admin).await.unwrap();
    let mut tables = world.tables.clone();
    tables.sort_by_key(|table| table.0);
    let mut orders = vec![tables.clone(), tables.iter().rev().copied().collect()];
    orders.push([2, 0, 4, 1, 3].map(|n: usize| tables[n]).into());
    for (number, order) in orders.into_iter().enumerate() {
        let sql = format!(
            "BEGIN; SELECT 1 FROM {0}.dl_mirror
             WHERE table_key = (SELECT min(table_key) FROM {0}.dl_mirror) FOR UPDATE",
            world.schema
        );
        world.holder.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        let commits = order.iter().map(|table| append(*table, &format!("f{number}"))).collect();
        let commit = start(&world, &format!("c{number}"), commits).await;
        until_waiting(&world, &mut admin, 1).await;
        let free = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {}.dl_mirror FOR UPDATE SKIP LOCKED) AS free",
            world.schema
        );
        let free: i64 = admin.fetch_one(AssertSqlSafe(free)).await.unwrap().get(0);
        world.release().await;
        let outcome = commit.await.unwrap().unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
        assert_eq!(free, 4, "order {number}: it had rows after the one that it waited for");
    }
}
