//! Commits of one process that wait for each other, and go in one statement. Without a server each test is
//! skipped, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's ways to speak"
)]

#[allow(dead_code, reason = "shared with the suite's programs")]
#[path = "../support/mod.rs"]
mod support;

mod across;
mod bounds;
mod world;

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::PlainResult;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltalakedb_backend_postgres::PostgresBackend;
use deltalakedb_catalog_core::backend::{CommitFilter, CommitOutcome, Rejection};
use deltalakedb_catalog_core::ids::{At, CommitToken, TableRef};
use deltalakedb_conformance::change::{Change, file, gone, metadata};
use deltalakedb_conformance::env::v;
use sqlx::{AssertSqlSafe, Executor, Row};

use support::options;
use world::{NOW, World, request, version};

#[tokio::test(flavor = "multi_thread")]
async fn those_that_wait_go_in_their_order_with_all_that_belongs_to_them() {
    let Some(mut world) = World::new().await else { return };
    world.hold().await;
    let mut tasks = vec![world.start("t0", world.append(&["a0"])).await];
    for n in 1..6 {
        let (one, two) = (format!("a{n}"), format!("b{n}"));
        tasks.push(world.start(&format!("t{n}"), world.append(&[&one, &two])).await);
    }
    world.release().await;
    for (n, task) in (0_i64..).zip(tasks) {
        assert_eq!(version(&task.await.unwrap().unwrap()), n + 1);
    }
    assert_eq!(
        world.paths().await,
        ["first", "a0", "a1", "b1", "a2", "b2", "a3", "b3", "a4", "b4", "a5", "b5"]
    );
    let db = &world.db;
    let commits = db.list_commits(world.table, &CommitFilter::default(), None, 99).await.unwrap();
    let mut files: u64 = 12;
    for (n, commit) in (0_i64..).zip(&commits.items) {
        assert_eq!(commit.version, v(6 - n));
        assert_eq!((commit.total_files, commit.total_bytes), (files, files * 100));
        assert_eq!(commit.timestamp, NOW.plus_ms(6 - n), "they grow strictly");
        files -= commit.num_added;
    }
    // As those that go alone: the token tells, the bytes are there, and each is to be published.
    let token = CommitToken::new("t4").unwrap();
    let told = db.resolve_token(&token).await.unwrap().unwrap();
    assert_eq!((told.len(), told[0].version, told[0].timestamp), (1, v(5), NOW.plus_ms(5)));
    let bodies = db.read_bodies(world.table, v(0), v(9), 99).await.unwrap();
    for (record, body) in &bodies[2..] {
        let text = String::from_utf8(body.published().unwrap().to_vec()).unwrap();
        let number = record.version.get() - 1;
        assert!(text.contains(&format!("\"b{number}\"")), "{text}");
        assert!(text.lines().next().unwrap().contains(&record.timestamp.0.to_string()), "{text}");
    }
    let rows = db.mirror_rows(Some(world.table), None, None, 99).await.unwrap();
    assert_eq!(rows.items.len(), 7);
}

/// Appends of two processes at once, to one table.
async fn race(world: &World, other: &Arc<PostgresBackend>, name: &str, commits: usize) {
    let writers = [(&world.db, "a"), (other, "b")].map(|(db, writer)| {
        let (db, name, table) = (Arc::clone(db), format!("{name}-{writer}"), world.table);
        tokio::spawn(async move {
            for n in 0..commits {
                let file = format!("{name}{n}");
                let append = Change::files([file.clone()]).append(table, v(0)).unwrap();
                let outcome = db.commit(request(&file, vec![append])).await.unwrap();
                assert!(version(&outcome) > 0);
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_processes_that_wait_for_each_other_go_through_a_function_or_without() {
    let Some(mut world) = World::new().await else { return };
    let options = options(&format!("{}#{}", world.guard.admin, world.schema)).unwrap();
    let other = Arc::new(PostgresBackend::connect(options).await.unwrap());
    // The same function, which leaves a trace.
    let schema = world.schema.clone();
    let definition = format!("SELECT pg_get_functiondef('{schema}.dl_append_3'::regproc)");
    let row = world.holder.fetch_one(AssertSqlSafe(definition)).await.unwrap();
    let definition: String = row.get(0);
    let traced = definition.replacen(
        "PERFORM",
        &format!("INSERT INTO {schema}.used VALUES (1); PERFORM"),
        1,
    );
    assert_ne!(traced, definition);
    let sql = format!("CREATE TABLE {schema}.used (n int); {traced}");
    world.holder.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();

    // Two that wait for the row: the second finds that the head has moved.
    world.hold().await;
    let first = world.start("w0", world.append(&["w0"])).await;
    let append = world.append(&["w1"]);
    let waiting = Arc::clone(&other);
    let second =
        tokio::spawn(async move { waiting.commit(request("w1", vec![append])).await.plain() });
    world.waiting(2).await;
    world.release().await;
    for waiting in [first, second] {
        assert!(version(&waiting.await.unwrap().unwrap()) > 0);
    }
    race(&world, &other, "with", 20).await;
    let count = format!("SELECT count(*) FROM {schema}.used");
    let row = world.holder.fetch_one(AssertSqlSafe(count)).await.unwrap();
    assert!(row.get::<i64, _>(0) > 0, "nobody went through the function");
    // A catalog of an earlier program has none.
    let drop = format!("DROP FUNCTION {schema}.dl_append_3");
    world.holder.execute(AssertSqlSafe(drop)).await.unwrap();
    race(&world, &other, "without", 20).await;
    assert_eq!(world.paths().await.len(), 1 + 2 + 80);
    let head = world.db.snapshot(&TableRef::Id(world.table), At::Head).await.unwrap();
    assert_eq!(head.version, v(82));
    // Whoever upgrades makes it again.
    world.db.migrate(NOW).await.unwrap();
    let again = format!("SELECT '{schema}.dl_append_3'::regproc");
    world.holder.execute(AssertSqlSafe(again)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_plain_goes_alone_and_the_others_with_it() {
    let Some(mut world) = World::new().await else { return };
    world.db.commit(request("known", vec![world.append(&["k"])])).await.unwrap();
    world.hold().await;
    let tasks = [
        world.start("t0", world.append(&["x"])).await,
        world.start("t1", world.append(&["y"])).await,
        // Replaces the file of the one before, and one of the table.
        world.start("t2", world.append(&["y", "first"])).await,
        // Was committed before; and comes twice.
        world.start("known", world.append(&["k"])).await,
        world.start("t3", world.append(&["z"])).await,
        world.start("t3", world.append(&["z"])).await,
        // Removes: no append, it waits for the row by itself, after the first one.
        {
            let removes = Change::new().remove(gone(&file("k"), Some(1)));
            world.waiting(1).await;
            world.start("t4", removes.exactly(world.table, v(1)).unwrap()).await
        },
    ];
    world.release().await;
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap().unwrap());
    }
    assert!(matches!(outcomes[3], CommitOutcome::Replayed(_)), "{outcomes:?}");
    let again = outcomes[4..6].iter().filter(|o| matches!(o, CommitOutcome::Replayed(_))).count();
    assert_eq!(again, 1, "{outcomes:?}");
    assert!(matches!(outcomes[6], CommitOutcome::HeadMoved { .. }), "{outcomes:?}");
    let mut paths = world.paths().await;
    paths.sort();
    assert_eq!(paths, ["first", "k", "x", "y", "z"]);
    let head = world.db.snapshot(&TableRef::Id(world.table), At::Head).await.unwrap();
    assert_eq!(head.version, v(5), "create, known, t0, t1, t2, t3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_or_a_drop_is_seen_by_all_that_wait() {
    let Some(mut world) = World::new().await else { return };
    world.hold().await;
    let change = Change::new().metadata(metadata("new")).exactly(world.table, v(0)).unwrap();
    let change = world.start("meta", change).await;
    world.waiting(1).await;
    let late: Vec<_> = [
        world.start("t1", world.append(&["x"])).await,
        world.start("t2", world.append(&["y"])).await,
        world.start("t3", world.append(&["z"])).await,
    ]
    .into();
    world.release().await;
    assert_eq!(version(&change.await.unwrap().unwrap()), 1);
    for task in late {
        let outcome = task.await.unwrap().unwrap();
        assert!(matches!(outcome, CommitOutcome::HeadMoved { .. }), "{outcome:?}");
    }
    assert_eq!(world.paths().await, ["first"]);

    world.hold().await;
    let (db, table) = (Arc::clone(&world.db), world.table);
    let drop = tokio::spawn(async move { db.drop_table(table, &Act::at(NOW)).await });
    world.waiting(1).await;
    let append = || Change::files(["x"]).append(table, v(1)).unwrap();
    let late = [
        world.start("t4", append()).await,
        world.start("t5", append()).await,
        world.start("t6", append()).await,
    ];
    // A statement that comes when the row is just let go may be faster than one that has waited for it.
    world.waiting(2).await;
    world.release().await;
    drop.await.unwrap().unwrap();
    for task in late {
        let outcome = task.await.unwrap().unwrap();
        let CommitOutcome::Rejected { reason: Rejection::TableNotFound(_), .. } = outcome else {
            panic!("{outcome:?}");
        };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_gives_up_is_in_nobodys_way() {
    let Some(mut world) = World::new().await else { return };
    world.hold().await;
    let mut tasks = Vec::new();
    for n in 0..6 {
        let name = format!("f{n}");
        tasks.push(world.start(&name, world.append(&[&name])).await);
    }
    // One that waits, and the one whose turn it is: whatever the server makes of that, others go on.
    for given_up in [3, 0] {
        world.waiting(1).await;
        tasks[given_up].abort();
        let began = Instant::now();
        while !tasks[given_up].is_finished() {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not give up");
            tokio::task::yield_now().await;
        }
    }
    world.release().await;
    let mut done = Vec::new();
    for task in tasks {
        if let Ok(outcome) = task.await {
            done.push(version(&outcome.unwrap()));
        }
    }
    assert_eq!(done.len(), 4);
    let paths = world.paths().await;
    for name in ["f1", "f2", "f4", "f5"] {
        assert!(paths.iter().any(|path| path == name), "{paths:?}");
    }
    assert!(!paths.iter().any(|path| path == "f3"), "it was given up before its turn: {paths:?}");
    // Nobody is at the table any more.
    world.db.commit(request("last", vec![world.append(&["last"])])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_on_one_table() {
    let Some(world) = World::new().await else { return };
    let tasks: Vec<_> = (0..24)
        .map(|task| {
            let (db, table) = (Arc::clone(&world.db), world.table);
            tokio::spawn(async move {
                let mut versions = Vec::new();
                for n in 0..20 {
                    let name = format!("{task}-{n}");
                    let commit = Change::files([&name]).append(table, v(0)).unwrap();
                    let outcome = db.commit(request(&name, vec![commit])).await.unwrap();
                    versions.push(version(&outcome));
                }
                assert!(versions.is_sorted(), "one after another: {versions:?}");
                versions
            })
        })
        .collect();
    let mut versions = Vec::new();
    for task in tasks {
        versions.extend(task.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=480).collect::<Vec<_>>());
    assert_eq!(world.paths().await.len(), 481);
}
