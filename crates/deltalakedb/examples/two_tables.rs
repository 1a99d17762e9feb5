//! One commit over two tables, with a token: a second run of the same load changes nothing.
//!
//! `cargo run -p deltalakedb --example two_tables`
#![allow(clippy::print_stdout, reason = "it shows what it did")]

use std::path::Path;

use deltalakedb::Db;

mod shared;
use shared::{Failure, write_parquet};

/// Creates two tables and loads both, twice.
pub(crate) async fn run(url: &str, lake: &Path) -> Result<(), Failure> {
    let db = Db::create(&url.parse()?).await?;
    let folder = |table: &str| lake.join(table).display().to_string();
    db.changes()
        .token("create")
        .create(
            db.create_table("shop.orders")
                .location(folder("orders"))
                .columns("id long not null, country string"),
        )
        .create(
            db.create_table("shop.customers")
                .location(folder("customers"))
                .columns("id long not null, country string"),
        )
        .await?;

    write_parquet(&lake.join("orders/1.parquet"), &[(1, "de"), (2, "fr")])?;
    write_parquet(&lake.join("customers/1.parquet"), &[(10, "de")])?;
    for run in ["first", "second"] {
        let orders = db.table("shop.orders").await?;
        let customers = db.table("shop.customers").await?;
        let new_orders = orders.describe_files(["1.parquet"]).await?;
        let new_customers = customers.describe_files(["1.parquet"]).await?;
        let report = db
            .changes()
            .token("load-2026-01-31")
            .append(&orders, new_orders)
            .append(&customers, new_customers)
            .await?;
        println!("{run} run: replayed {}, versions {:?}", report.replayed, report.tables);
    }

    let orders = db.table("shop.orders").await?;
    assert_eq!((orders.version().get(), orders.num_files()), (1, 1));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("catalog.db").display());
    run(&url, folder.path()).await
}
