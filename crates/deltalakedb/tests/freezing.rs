//! Writers of several programs, and a freeze in the midst of them, on each database.
#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests: clippy only knows the functions that are marked as such"
)]

use std::time::Duration;

use deltalakedb::{Add, Change, Db, TableId};
use deltalakedb_test_servers::{Database, skip};
use futures::TryStreamExt;

/// A test must not wait longer than this for writers to be told.
const LIMIT: Duration = Duration::from_secs(120);
/// Commits before the freeze.
const BEFORE: i64 = 30;

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    on(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    on(Database::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql() {
    on(Database::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mssql() {
    on(Database::Mssql).await;
}

async fn on(database: Database) {
    let built = match database {
        Database::Sqlite => true,
        Database::Postgres => cfg!(feature = "postgres"),
        Database::MySql => cfg!(feature = "mysql"),
        Database::Mssql => cfg!(feature = "mssql"),
    };
    let folder = tempfile::tempdir().unwrap();
    let url = if built {
        database.url(folder.path(), "fz")
    } else {
        Err(format!("built without the cargo feature {}", database.name()))
    };
    match url {
        Ok(url) => race(&url).await,
        Err(why) => skip(&[database.name()], why),
    }
}

fn file(path: &str) -> Add {
    serde_json::from_str(&format!(
        r#"{{"path":"{path}","partitionValues":{{}},"size":7,"modificationTime":1}}"#
    ))
    .unwrap()
}

/// What a writer does.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Appends that read nothing, on a head that is remembered.
    Blind,
    /// Appends that have read the version that they go on.
    Reads,
    /// One transaction over both tables.
    Both,
}

/// Writes until it is told that the table is frozen. Paths of `a` that were acknowledged, and how many of `b`.
async fn write(db: Db, [a, b]: [TableId; 2], work: Work, name: String) -> (Vec<String>, u64) {
    let (mut paths, mut others) = (Vec::new(), 0);
    for n in 0_u32.. {
        let path = format!("{name}-{n}");
        let commit = match work {
            Work::Blind => db.changes().append(a, vec![file(&path)]),
            Work::Reads => {
                let table = db.clone().on_primary().table(a).await.unwrap();
                let change = Change::of(&table).read_whole_table().add_files([file(&path)]);
                db.changes().change(change)
            }
            Work::Both => db.changes().append(b, vec![file(&path)]).append(a, vec![file(&path)]),
        };
        match commit.await {
            Ok(_) => {
                paths.push(path);
                others += u64::from(matches!(work, Work::Both));
            }
            Err(error) if error.code() == "table_frozen" => {
                assert!(error.to_string().contains("'shop.a' is frozen since"), "{error}");
                assert!(error.to_string().contains("the store moves"), "{error}");
                return (paths, others);
            }
            Err(error) => {
                assert!(["conflict", "busy"].contains(&error.code()), "{work:?}: {error}");
            }
        }
    }
    unreachable!("it ends when the table is frozen")
}

async fn race(url: &str) {
    let uri = url.parse().unwrap();
    let admin = Db::create(&uri).await.unwrap();
    let mut ids = Vec::new();
    for name in ["shop.a", "shop.b"] {
        let table = admin.create_table(name).location(format!("memory://race/{name}"));
        ids.push(table.columns("id long").await.unwrap().id());
    }
    let ids = [ids[0], ids[1]];
    let mut writers = Vec::new();
    for process in 0..2 {
        let db = Db::open(&uri).await.unwrap();
        for (n, work) in
            [Work::Blind, Work::Blind, Work::Blind, Work::Reads, Work::Both].into_iter().enumerate()
        {
            let name = format!("{process}-{n}");
            writers.push(tokio::spawn(write(db.clone(), ids, work, name)));
        }
    }
    let begun = std::time::Instant::now();
    while admin.table(ids[0]).await.unwrap().version().get() < BEFORE {
        assert!(begun.elapsed() < LIMIT, "nobody commits");
        tokio::task::yield_now().await;
    }
    let report = admin.freeze(["shop.a"]).reason("the store moves").await.unwrap();
    let frozen = report.tables[0].version.unwrap();

    let (mut paths, mut others) = (Vec::new(), 0);
    for writer in writers {
        let (written, both) = tokio::time::timeout(LIMIT, writer).await.unwrap().unwrap();
        paths.extend(written);
        others += both;
    }
    let after = admin.clone().on_primary().table("shop.a").await.unwrap();
    assert_eq!(after.version(), frozen, "no commit came after it");
    assert!(after.is_frozen());
    let mut there: Vec<String> =
        after.files().map_ok(|file| file.add.path).try_collect().await.unwrap();
    there.sort();
    paths.sort();
    assert_eq!(there, paths, "what was acknowledged is there, and nothing else");
    let b = admin.clone().on_primary().table("shop.b").await.unwrap();
    assert_eq!(b.num_files(), others, "of a refused transaction nothing is there");
    assert!(!b.is_frozen());

    admin.unfreeze(["shop.a"]).await.unwrap();
    admin.changes().append(ids[0], vec![file("later")]).await.unwrap();
    // Who opened the table before decides anew.
    let error = after.append(vec![file("late")]).await.unwrap_err();
    assert_eq!(error.code(), "conflict", "{error}");
}
