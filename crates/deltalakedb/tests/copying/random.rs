//! Random catalogs are copied whole.

use deltalakedb::copy::{CopyOptions, Progressed, Validate};

use crate::history::Writer;
use crate::same::{same_reads, same_writes};
use crate::world::{Kind, PAIRS, copy, on_server, small_steps, whole};

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_the_same_at_every_version() {
    let mut versions = 0;
    for (i, (from, to)) in PAIRS.into_iter().enumerate() {
        for round in 0..12 {
            let seed = u64::try_from(100 * i + round).unwrap();
            println!("{from:?} to {to:?}, seed {seed}");
            let (source, target) = (from.fresh().await, to.fresh().await);
            Writer::new(&source.db, seed).steps(60).await;
            let options = if round % 2 == 0 { small_steps() } else { CopyOptions::default() };
            whole(&copy(&source.db, &target.db, &options).await.unwrap());
            versions += same_reads(&*source.db, &*target.db).await;
            same_writes(&source.db, &target.db).await;
        }
    }
    println!("{versions} versions compared");
    assert!(versions > 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_copy_is_the_same_and_copying_again_only_compares() {
    let (first, second, third) =
        (Kind::Memory.fresh().await, Kind::Sqlite.fresh().await, Kind::Memory.fresh().await);
    Writer::new(&first.db, 7).steps(150).await;
    whole(&copy(&first.db, &second.db, &CopyOptions::default()).await.unwrap());
    whole(&copy(&second.db, &third.db, &small_steps()).await.unwrap());
    same_reads(&*first.db, &*third.db).await;
    let again = CopyOptions { validate: Validate::All, ..CopyOptions::default() };
    let report = copy(&first.db, &third.db, &again).await.unwrap();
    whole(&report);
    assert_eq!(report.commits, 0);
    assert!(!report.tables.is_empty());
    for table in &report.tables {
        assert_eq!(table.progress, Progressed::Present);
        assert!(table.compared_versions > 0);
    }
}

/// The source is in use while most of it is copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_catches_up_with_a_source_in_use() {
    let mut whole_copies = 0;
    for seed in 0..15 {
        println!("seed {seed}");
        let (source, target) = (Kind::Memory.fresh().await, Kind::Sqlite.fresh().await);
        let mut writer = Writer::new(&source.db, 5_000 + seed);
        writer.steps(30).await;
        let early = CopyOptions { finish: false, ..small_steps() };
        let mut stuck = false;
        for _ in 0..3 {
            let report = copy(&source.db, &target.db, &early).await.unwrap();
            assert!(!report.finished);
            stuck |= !report.agrees();
            writer.steps(5).await;
        }
        let report = copy(&source.db, &target.db, &small_steps()).await.unwrap();
        // Where two tables share a name, the dropped one is finished at once: if it is brought back
        // since, the copy cannot go on, and says so.
        if report.agrees() {
            assert!(!stuck);
            whole(&report);
            same_reads(&*source.db, &*target.db).await;
            same_writes(&source.db, &target.db).await;
            whole_copies += 1;
        } else {
            let text = format!("{report:?}");
            assert!(!report.finished, "{text}");
            assert!(
                text.contains(r#""active\" at the source, \"dropped\" at the target"#)
                    || text.contains("after the table became dropped"),
                "{text}"
            );
        }
    }
    assert!(whole_copies >= 10, "{whole_copies}");
}

/// Random catalogs go from memory to a server and back.
async fn there_and_back(server: &str) {
    for seed in 0..6 {
        let Some(target) = on_server(server).await else { return };
        println!("{server}, seed {seed}");
        let (source, back) = (Kind::Memory.fresh().await, Kind::Memory.fresh().await);
        Writer::new(&source.db, 900 + seed).steps(45).await;
        whole(&copy(&source.db, &target.db, &small_steps()).await.unwrap());
        same_reads(&*source.db, &*target.db).await;
        whole(&copy(&target.db, &back.db, &small_steps()).await.unwrap());
        same_reads(&*source.db, &*back.db).await;
        same_writes(&source.db, &target.db).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_postgres_and_back() {
    there_and_back("postgres").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_mysql_and_back() {
    there_and_back("mysql").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_mssql_and_back() {
    there_and_back("mssql").await;
}
