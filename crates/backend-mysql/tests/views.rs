//! The views show what the reads show.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's ways to fail")]

#[allow(dead_code, reason = "shared with the suite's programs")]
mod support;

use std::collections::BTreeMap;

use deltalakedb_backend_mysql::MySqlBackend;
use deltalakedb_catalog_core::backend::SchemaBackend;
use deltalakedb_conformance::{fixture, views};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use url::Url;
use uuid::Uuid;

use support::{Guard, options};

#[tokio::test(flavor = "multi_thread")]
async fn they_show_what_the_reads_show() {
    let admin = match deltalakedb_test_servers::shared_mysql() {
        Ok(url) => url,
        Err(why) => return deltalakedb_test_servers::skip(&["mysql"], why),
    };
    let database = format!("dl_views_{}", Uuid::new_v4().simple());
    let mut other = MySqlConnection::connect(&admin).await.unwrap();
    // What the views compare must not depend on what the database compares by.
    let sql = format!("CREATE DATABASE {database} CHARACTER SET latin1");
    other.execute(AssertSqlSafe(sql)).await.unwrap();
    let mut place: Url = admin.parse().unwrap();
    place.set_path(&database);
    let _guard = Guard { admin, database };
    let mut other = MySqlConnection::connect(place.as_str()).await.unwrap();
    other.execute("SET time_zone = '+05:30'").await.unwrap();
    let db = MySqlBackend::connect(options(place.as_str()).unwrap()).await.unwrap();
    db.migrate(fixture::START).await.unwrap();
    fixture::build(db.as_ref()).await.unwrap();
    // As other programs may have written it.
    for odd in views::ODD_ROWS {
        assert_eq!(other.execute(odd).await.unwrap().rows_affected(), 1, "{odd}");
    }
    db.make_views().await.unwrap();
    other.execute("CREATE VIEW mine AS SELECT * FROM dl_v_files").await.unwrap();
    db.make_views().await.unwrap();
    let mut shown = BTreeMap::new();
    for (view, columns) in views::VIEWS {
        let columns: Vec<String> =
            columns.iter().map(|c| format!("CAST({c} AS CHAR CHARACTER SET utf8mb4)")).collect();
        let sql = format!("SELECT {} FROM dl_{view}", columns.join(", "));
        let rows = other.fetch_all(AssertSqlSafe(sql)).await.unwrap();
        let row = |row: &sqlx::mysql::MySqlRow| (0..columns.len()).map(|n| row.get(n)).collect();
        shown.insert(view.to_owned(), rows.iter().map(row).collect());
    }
    views::compare(db.as_ref(), &shown).await.unwrap();

    other.execute("DROP VIEW mine").await.unwrap();
    db.drop_views().await.unwrap();
    db.drop_views().await.unwrap();
    let left = "SELECT COUNT(*) FROM information_schema.views WHERE table_schema = DATABASE()";
    assert_eq!(other.fetch_one(left).await.unwrap().get::<i64, _>(0), 0);
}
