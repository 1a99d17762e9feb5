//! A table as it was: by version and by time, and what happened since.
//!
//! `cargo run -p deltalakedb --example time_travel`
#![allow(clippy::print_stdout, reason = "it shows what it did")]

use std::path::Path;

use deltalakedb::{Change, Db};
use futures::TryStreamExt;

mod shared;
use shared::{Failure, write_parquet};

/// Replaces a file, and reads the table as it was before.
pub(crate) async fn run(url: &str, lake: &Path) -> Result<(), Failure> {
    let db = Db::create(&url.parse()?).await?;
    let created = db
        .create_table("orders")
        .location(lake.join("orders").display().to_string())
        .columns("id long, country string")
        .await?;

    write_parquet(&lake.join("orders/wrong.parquet"), &[(1, "dd")])?;
    created.append(created.describe_files(["wrong.parquet"]).await?).await?;

    // What was read decides whether this goes together with what others commit meanwhile.
    let before = created.latest().await?;
    let wrong: Vec<_> =
        before.files_matching("country = 'dd'")?.map_ok(|file| file.add).try_collect().await?;
    write_parquet(&lake.join("orders/right.parquet"), &[(1, "de")])?;
    let right = before.describe_files(["right.parquet"]).await?;
    let correct = |change: Change| {
        change.operation("UPDATE").read_where("country = 'dd'").remove_files(wrong).add_files(right)
    };
    let report = before.commit(correct).await?;

    let now = before.at_commit(&report).await?;
    for table in [now.at(1).await?, now.at(before.timestamp()).await?, now.clone()] {
        let files: Vec<String> = table.files().map_ok(|f| f.add.path).try_collect().await?;
        println!("version {}: {files:?}", table.version());
    }
    assert_eq!(now.at(before.timestamp()).await?.version(), before.version());

    let history: Vec<_> = now.history().try_collect().await?;
    for commit in &history {
        println!(
            "{} {} +{} -{}",
            commit.version, commit.timestamp.0, commit.num_added, commit.num_removed
        );
    }
    assert_eq!(history.len(), 3);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("catalog.db").display());
    run(&url, folder.path()).await
}
