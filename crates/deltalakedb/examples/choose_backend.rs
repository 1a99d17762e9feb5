//! The database is chosen by URL at run time, among those that cargo features built in.
//!
//! `cargo run -p deltalakedb --example choose_backend -- memory://`
//! `cargo run -p deltalakedb --features postgres --example choose_backend -- postgresql://user@host/db`
#![allow(clippy::print_stdout, reason = "it shows what it did")]

use std::path::Path;

use deltalakedb::{CatalogUri, Db};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Opens the catalog of a URL, and tells errors apart by their codes.
pub(crate) async fn run(url: &str, lake: &Path) -> Result<(), Failure> {
    println!("built in: {}", CatalogUri::supported().join(", "));
    let db = match Db::create(&url.parse()?).await {
        Ok(db) => db,
        Err(error) if error.code() == "unsupported" => {
            return Err(format!("build this program with another cargo feature: {error}").into());
        }
        Err(error) => return Err(error.into()),
    };
    let Err(error) = db.table("no.such_table").await else { return Err("it is there".into()) };
    println!("{}: {error}", error.code());
    assert_eq!(error.code(), "table_not_found");

    let location = lake.join("orders").display().to_string();
    db.create_table("orders").location(location).columns("id long").await?;
    assert_eq!(db.table("orders").await?.version().get(), 0);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| format!("sqlite://{}", folder.path().join("catalog.db").display()));
    run(&url, folder.path()).await
}
