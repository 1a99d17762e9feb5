//! A hook that is told of each commit of this process, and publishing in the background.
//!
//! `cargo run -p deltalakedb --example hook`
#![allow(clippy::print_stdout, reason = "it shows what it did")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deltalakedb::{CommitEvent, CommitHook, Db, PublisherConfig};

mod shared;
use shared::{Failure, write_parquet};

/// Counts commits.
#[derive(Debug, Default)]
struct Counter(AtomicUsize);

impl CommitHook for Counter {
    fn committed(&self, commit: &CommitEvent<'_>) {
        let (tables, files) = (commit.tables(), commit.files_added());
        self.0.fetch_add(tables.len(), Ordering::Relaxed);
        println!("{} changed, {files} files added", tables.len());
    }
}

/// Commits twice, and waits until readers of the plain log see it.
pub(crate) async fn run(url: &str, lake: &Path) -> Result<(), Failure> {
    let counter = Arc::new(Counter::default());
    let db = Db::create(&url.parse()?).await?.with_commit_hook(counter.clone());
    let (db, worker) = db.publish_in_background(PublisherConfig::default());

    let orders = db
        .create_table("orders")
        .location(lake.join("orders").display().to_string())
        .columns("id long, country string")
        .await?;
    write_parquet(&lake.join("orders/1.parquet"), &[(1, "de")])?;
    let report = orders.append(orders.describe_files(["1.parquet"]).await?).await?;

    db.wait_published(&report, Duration::from_secs(30)).await?;
    worker.stop().await?;

    assert_eq!(counter.0.load(Ordering::Relaxed), 2);
    assert!(lake.join("orders/_delta_log/00000000000000000001.json").exists());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("catalog.db").display());
    run(&url, folder.path()).await
}
