//! Several processes on one file, and processes that are killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::ids::{At, TableRef};

use super::old::{dump, to_version_2};
use super::support::{NOW, Place, add, append, change, committed, create, id, index, raw, remove};
use crate::{SqliteBackend, SqliteOptions};

/// Tells the test below that it is a child, and on which file.
const CHILD: &str = "DL_TEST_SQLITE_CHILD";
/// Commits of a child that is left alone.
const COMMITS: usize = 150;

/// The test program again, running only [`child`].
fn spawn(place: &Place, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::processes::child", "--ignored", "--nocapture"])
        .env(CHILD, format!("{name}={}", place.path().display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The child upgrades the catalog, and stops when this table is copied.
const UPGRADE: &str = "upgrade-";

/// Hears what an upgrade reports, and holds it up there.
struct StopAt(String);

impl tracing::Subscriber for StopAt {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().ends_with("::upgrade")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut table = Copied(String::new());
        event.record(&mut table);
        if table.0 == self.0 {
            println!("\nacknowledged 0");
            loop {
                std::thread::park();
            }
        }
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// The field `table` of an event.
struct Copied(String);

impl tracing::field::Visit for Copied {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "table" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

/// The body of a child process: commits four at a time and prints what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the body of a child process, started by the tests beside it"]
async fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (name, path) = task.split_once('=').unwrap();
    if let Some(table) = name.strip_prefix(UPGRADE) {
        tracing::subscriber::set_global_default(StopAt(table.to_owned())).unwrap();
        SqliteBackend::open(SqliteOptions::new(path)).unwrap().migrate(NOW).await.unwrap();
        return;
    }
    let backend = SqliteBackend::open(SqliteOptions::new(path)).unwrap();
    for n in (0..COMMITS).step_by(3) {
        let commits = (n..n + 3).map(|n| {
            let adds = (0..20).map(|file| add(&format!("{name}-{n}-{file}"))).collect();
            // Every commit also removes a file that an earlier one added.
            let removes = match n.checked_sub(3) {
                Some(before) => vec![remove(&format!("{name}-{before}-0"), 5)],
                None => vec![],
            };
            backend.commit(append(1, &format!("{name}-{n}"), index(adds, removes)))
        });
        for outcome in futures::future::try_join_all(commits).await.unwrap() {
            println!("\nacknowledged {}", committed(outcome).version);
        }
    }
}

/// The next version that a child reports.
fn acknowledged(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Option<i64> {
    lines.find_map(|line| line.unwrap().strip_prefix("acknowledged ")?.parse().ok())
}

/// Rows that contradict each other.
fn check(place: &Place) {
    let conn = raw(&place.path());
    let integrity: String =
        conn.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    let (head, commits, batches, outbox, active, total): (i64, i64, i64, i64, i64, i64) = conn
        .query_row(
            "SELECT t.head_version,
                (SELECT count(*) FROM dl_commits), (SELECT count(*) FROM dl_batches),
                (SELECT count(*) FROM dl_mirror_status),
                (SELECT count(*) FROM dl_files WHERE removed_version = 9223372036854775807),
                (SELECT total_files FROM dl_commits WHERE version = t.head_version)
             FROM dl_tables t",
            [],
            |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
            },
        )
        .unwrap();
    assert_eq!([commits, batches, outbox], [head + 1; 3]);
    assert_eq!(active, total);
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let place = Place::new();
    place.catalog().await.commit(create(1)).await.unwrap();
    for round in 0..5_usize {
        let mut child = spawn(&place, &format!("round{round}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = 0;
        for _ in 0..=round * 7 {
            last = acknowledged(&mut lines).unwrap();
        }
        child.kill().unwrap();
        // What it had acknowledged by then is in the pipe.
        while let Some(version) = acknowledged(&mut lines) {
            last = version.max(last);
        }
        child.wait().unwrap();
        let backend = place.open();
        let snapshot = backend.snapshot(&TableRef::Id(id(1)), At::Head).await.unwrap();
        assert!(snapshot.version.get() >= last, "{} < {last}", snapshot.version);
        change(&backend, 1, &format!("after-{round}"), &["x"], &[]).await;
        drop(backend);
        check(&place);
    }
}

#[tokio::test]
async fn processes_take_turns_and_none_starves() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    let mut children: Vec<_> = (0..3).map(|n| spawn(&place, &format!("child{n}"))).collect();
    for child in &mut children {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        while acknowledged(&mut lines).is_some() {
            count += 1;
        }
        assert!(child.wait().unwrap().success());
        assert_eq!(count, COMMITS);
    }
    let snapshot = backend.snapshot(&TableRef::Id(id(1)), At::Head).await.unwrap();
    assert_eq!(snapshot.version.get(), i64::try_from(3 * COMMITS).unwrap());
    drop(backend);
    check(&place);
}

#[tokio::test]
async fn an_upgrade_that_is_killed_leaves_version_2_and_can_be_run_again() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    // More than stays in the log's first pages.
    let adds: Vec<_> = (0..30_000).map(|n| add(&format!("f{n}"))).collect();
    backend.commit(append(1, "many", index(adds, vec![]))).await.unwrap();
    drop(backend);
    let conn = raw(&place.path());
    to_version_2(&conn, "dl_");
    let rows = dump(&conn, "dl_");
    for table in ["tables", "files", "metadata", "skip_pages"] {
        let mut child = spawn(&place, &format!("{UPGRADE}dl_{table}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        acknowledged(&mut lines).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let version: i64 =
            conn.query_row("SELECT max(version) FROM dl_schema", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 2, "{table}");
        assert!(dump(&conn, "dl_") == rows, "{table}");
    }
    // One that nobody holds up, killed at whatever moment.
    let mut killed = 0;
    for pause_ms in [20, 60, 100, 150, 200, 300, 400] {
        let mut child = spawn(&place, &format!("{UPGRADE}nowhere"));
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        let version: i64 =
            conn.query_row("SELECT max(version) FROM dl_schema", [], |row| row.get(0)).unwrap();
        assert!(version == 2 || version == 5, "{version}");
        assert!(dump(&conn, "dl_") == rows, "after {pause_ms} ms, version {version}");
        killed += 1;
        if version == 5 {
            break;
        }
    }
    assert!(killed > 0);
    drop(conn);
    let backend = place.catalog().await;
    assert!(dump(&raw(&place.path()), "dl_") == rows);
    change(&backend, 1, "after", &["x"], &["f7"]).await;
    drop(backend);
    check(&place);
}
