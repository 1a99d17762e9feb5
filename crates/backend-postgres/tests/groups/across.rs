//! Commits to tables that wait for a turn, and go in one statement.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::parts::*;
use std::sync::Arc;
use std::time::Duration;

use deltalakedb_backend_postgres::PostgresBackend;
use deltalakedb_catalog_core::backend::{CommitFilter, CommitOutcome, Rejection, TableCommit};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef};
use deltalakedb_conformance::change::{Change, metadata};
use deltalakedb_conformance::env::v;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::time::timeout;

use crate::support::options;
use crate::world::{NOW, World, request, version};

/// Long enough for a commit that waits for nobody.
const SOON: Duration = Duration::from_secs(10);

fn append(table: TableId, file: &str) -> TableCommit {
    Change::files([file]).append(table, v(0)).unwrap()
}

/// How many transactions wrote the commits after the first of these tables.
async fn transactions(world: &mut World, tables: &[TableId]) -> i64 {
    let ids: Vec<String> = tables.iter().map(|table| format!("'{table}'")).collect();
    let sql = format!(
        "SELECT count(DISTINCT xmin::text) FROM {0}.dl_commits WHERE version > 0 AND table_key IN
            (SELECT table_key FROM {0}.dl_tables WHERE id IN ({1}))",
        world.schema,
        ids.join(", ")
    );
    world.holder.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0)
}

async fn release(mut holder: PgConnection) {
    holder.execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_wait_for_a_turn_go_in_one_statement() {
    // Half of the connections, one: the turns of all tables.
    let Some(mut world) = World::with(4, 2).await else { return };
    let tables = world.tables.clone();
    let holder = world.held(&tables[..1]).await;
    let mut tasks = vec![world.start("a0", append(tables[0], "a0")).await];
    for (n, name) in [(1, "b0"), (2, "c0"), (1, "b1"), (3, "d0"), (0, "a1"), (1, "b2"), (3, "d1")] {
        tasks.push(world.start(name, append(tables[n], name)).await);
    }
    release(holder).await;
    let mut versions = Vec::new();
    for task in tasks {
        let CommitOutcome::Committed(done) = task.await.unwrap().unwrap() else { panic!() };
        versions.push((done[0].table_id, done[0].version.get()));
    }
    let want = [(0, 1), (1, 1), (2, 1), (1, 2), (3, 1), (0, 2), (1, 3), (3, 2)];
    assert_eq!(
        versions,
        want.map(|(n, version)| (tables[n], version)),
        "each in its table's order"
    );
    assert_eq!(transactions(&mut world, &tables[1..]).await, 1);
    assert_eq!(world.paths_of(tables[1]).await, ["first", "b0", "b1", "b2"]);
    assert_eq!(world.paths_of(tables[3]).await, ["first", "d0", "d1"]);

    let db = &world.db;
    for table in &tables {
        let commits = db.list_commits(*table, &CommitFilter::default(), None, 99).await.unwrap();
        let mut files = u64::try_from(commits.items.len()).unwrap();
        for commit in &commits.items {
            assert_eq!((commit.total_files, commit.total_bytes), (files, files * 100));
            assert_eq!(commit.timestamp, NOW.plus_ms(commit.version.get()), "they grow strictly");
            files -= 1;
        }
        let bodies = db.read_bodies(*table, v(1), v(9), 99).await.unwrap();
        let paths = world.paths_of(*table).await;
        for ((record, body), path) in bodies.iter().zip(&paths[1..]) {
            let text = String::from_utf8(body.published().unwrap().to_vec()).unwrap();
            assert!(text.contains(&format!("\"{path}\"")), "{path}: {text}");
            assert!(
                text.lines().next().unwrap().contains(&record.timestamp.0.to_string()),
                "{text}"
            );
            let token = record.token.clone().unwrap();
            let told = db.resolve_token(&token).await.unwrap().unwrap();
            assert_eq!(
                (told.len(), told[0].table_id, told[0].version),
                (1, *table, record.version)
            );
        }
        let rows = db.mirror_rows(Some(*table), None, None, 99).await.unwrap();
        assert_eq!(rows.items.len(), commits.items.len());
        let pending = format!(
            "SELECT pending_since_ms FROM {0}.dl_mirror WHERE table_key = (SELECT table_key FROM {0}.dl_tables WHERE id = '{table}')",
            world.schema
        );
        let pending: Option<i64> =
            world.holder.fetch_one(AssertSqlSafe(pending)).await.unwrap().get(0);
        assert_eq!(pending, Some(NOW.0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_others_hold_is_in_nobodys_way() {
    let Some(mut world) = World::with(4, 4).await else { return };
    let tables = world.tables.clone();
    let (two, long) = (world.held(&tables[..2]).await, world.held(&tables[2..3]).await);
    // Both turns.
    let first = [
        world.start("a0", append(tables[0], "a0")).await,
        world.start("b0", append(tables[1], "b0")).await,
    ];
    let held = [
        world.start("c0", append(tables[2], "c0")).await,
        world.start("c1", append(tables[2], "c1")).await,
    ];
    let free = [
        world.start("d0", append(tables[3], "d0")).await,
        world.start("a1", append(tables[0], "a1")).await,
        world.start("d1", append(tables[3], "d1")).await,
    ];
    release(two).await;
    for task in first.into_iter().chain(free) {
        timeout(SOON, task).await.expect("it waited for a table of others").unwrap().unwrap();
    }
    assert_eq!(transactions(&mut world, &tables[3..]).await, 1);
    // And so it goes on.
    for n in 0..5 {
        let (name, table) = (format!("e{n}"), tables[[0, 1, 3][n % 3]]);
        let commit = world.db.commit(request(&name, vec![append(table, &name)]));
        timeout(SOON, commit).await.expect("it waited for a table of others").unwrap();
    }
    assert!(held.iter().all(|task| !task.is_finished()));
    release(long).await;
    let [one, other] = held;
    let versions = [version(&one.await.unwrap().unwrap()), version(&other.await.unwrap().unwrap())];
    assert_eq!(versions, [1, 2]);
    assert_eq!(world.paths_of(tables[2]).await, ["first", "c0", "c1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_plain_is_told_of_its_table_and_the_others_go_through() {
    let Some(mut world) = World::with(7, 2).await else { return };
    let tables = world.tables.clone();
    // A change of metadata, a table that is gone, one that is not published.
    let change = Change::new().metadata(metadata("new")).exactly(tables[1], v(0)).unwrap();
    world.db.commit(request("meta", vec![change])).await.unwrap();
    world.db.drop_table(tables[2], &Act::at(NOW)).await.unwrap();
    let off = format!(
        "UPDATE {0}.dl_mirror SET mode = 'off', pending_since_ms = NULL
         WHERE table_key = (SELECT table_key FROM {0}.dl_tables WHERE id = '{1}')",
        world.schema, tables[5]
    );
    world.holder.execute(AssertSqlSafe(off)).await.unwrap();
    let holder = world.held(&tables[..1]).await;
    let mut tasks = Vec::new();
    for (n, name) in ["a", "b", "c", "d", "e", "f"].iter().enumerate() {
        tasks.push(world.start(name, append(tables[n], name)).await);
    }
    release(holder).await;
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap().unwrap());
    }
    assert!(matches!(outcomes[1], CommitOutcome::HeadMoved { .. }), "{outcomes:?}");
    let gone = |o: &CommitOutcome| {
        matches!(o, CommitOutcome::Rejected { reason: Rejection::TableNotFound(_), .. })
    };
    assert!(gone(&outcomes[2]), "{outcomes:?}");
    for n in [0, 3, 4, 5] {
        assert_eq!(version(&outcomes[n]), 1);
    }
    assert_eq!(transactions(&mut world, &tables[3..6]).await, 1);
    let rows = world.db.mirror_rows(Some(tables[5]), None, None, 99).await.unwrap();
    assert_eq!(rows.items.len(), 1, "nothing is to be published of it since");

    // A token that is known, one that comes twice, and a file that the table has: nobody goes with them, and
    // all are told what is right.
    let holder = world.held(&tables[..1]).await;
    let mut tasks = Vec::new();
    for (n, name, file) in [
        (0, "a2", "a2"),
        (3, "d", "d"),
        (4, "twice", "e2"),
        (4, "twice", "e2"),
        (5, "f2", "first"),
        (6, "g2", "g2"),
    ] {
        tasks.push(world.start(name, append(tables[n], file)).await);
    }
    release(holder).await;
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap().unwrap());
    }
    assert!(matches!(outcomes[1], CommitOutcome::Replayed(_)), "{outcomes:?}");
    let again = outcomes[2..4].iter().filter(|o| matches!(o, CommitOutcome::Replayed(_))).count();
    assert_eq!(again, 1, "{outcomes:?}");
    for (n, want) in [(0, 2), (4, 2), (5, 1)] {
        assert_eq!(version(&outcomes[n]), want, "{n}: {outcomes:?}");
    }
    assert_eq!(world.paths_of(tables[3]).await, ["first", "d"]);
    assert_eq!(world.paths_of(tables[4]).await, ["first", "e", "e2"]);
    assert_eq!(world.paths_of(tables[5]).await, ["f", "first"], "it was replaced");
    assert_eq!(world.paths_of(tables[6]).await, ["first", "g2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_of_two_processes_on_many_tables() {
    let Some(world) = World::with(12, 4).await else { return };
    let mut options = options(&format!("{}#{}", world.guard.admin, world.schema)).unwrap();
    options.pool.max_connections = 6;
    let other = Arc::new(PostgresBackend::connect(options).await.unwrap());
    let mut tasks = Vec::new();
    for (process, db) in [&world.db, &other].into_iter().enumerate() {
        for task in 0..30 {
            let (db, tables) = (Arc::clone(db), world.tables.clone());
            tasks.push(tokio::spawn(async move {
                for n in 0..12 {
                    // Some tables belong to one of the processes, others to both.
                    let table = tables[(task * 7 + n * (1 + task % 3)) % tables.len()];
                    let name = format!("{process}-{task}-{n}");
                    let outcome = db.commit(request(&name, vec![append(table, &name)])).await;
                    assert!(version(&outcome.unwrap()) > 0);
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let (mut files, mut versions) = (0, 0);
    for table in &world.tables {
        let head = world.db.snapshot(&TableRef::Id(*table), At::Head).await.unwrap();
        let paths = world.paths_of(*table).await;
        assert_eq!(i64::try_from(paths.len()).unwrap(), head.version.get() + 1, "one a version");
        let commits = world.db.list_commits(*table, &CommitFilter::default(), None, 999).await;
        assert_eq!(commits.unwrap().items.len(), paths.len());
        files += paths.len() - 1;
        versions += head.version.get();
    }
    assert_eq!((files, versions), (720, 720));
}
