//! The views show what the reads show.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's ways to fail")]

#[allow(dead_code, reason = "shared with the suite's programs")]
mod support;

use std::collections::BTreeMap;

use deltalakedb_backend_postgres::PostgresBackend;
use deltalakedb_catalog_core::backend::SchemaBackend;
use deltalakedb_conformance::{fixture, views};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use uuid::Uuid;

use support::{Guard, options};

#[tokio::test(flavor = "multi_thread")]
async fn they_show_what_the_reads_show() {
    let admin = match deltalakedb_test_servers::shared_postgres() {
        Ok(url) => url,
        Err(why) => return deltalakedb_test_servers::skip(&["postgres"], why),
    };
    let schema = format!("dl_views_{}", Uuid::new_v4().simple());
    let guard = Guard { admin, schema };
    let place = format!("{}#{}", guard.admin, guard.schema);
    let db = PostgresBackend::connect(options(&place).unwrap()).await.unwrap();
    db.migrate(fixture::START).await.unwrap();
    fixture::build(db.as_ref()).await.unwrap();
    let mut other = PgConnection::connect(&guard.admin).await.unwrap();
    let path = format!("SET search_path = \"{}\"; SET TimeZone = 'Asia/Kolkata'", guard.schema);
    other.execute(sqlx::raw_sql(AssertSqlSafe(path))).await.unwrap();
    // As other programs may have written it.
    for odd in views::ODD_ROWS {
        assert_eq!(other.execute(odd).await.unwrap().rows_affected(), 1, "{odd}");
    }
    db.make_views().await.unwrap();
    // Other views of ours are not in the way of making them anew.
    other.execute("CREATE VIEW mine AS SELECT * FROM dl_v_files").await.unwrap();
    db.make_views().await.unwrap();
    let mut shown = BTreeMap::new();
    for (view, columns) in views::VIEWS {
        let text = |column: &&str| {
            if column.ends_with("_at") {
                let format = r#"YYYY-MM-DD"T"HH24:MI:SS.US"#;
                format!("to_char({column} AT TIME ZONE 'UTC', '{format}')")
            } else {
                format!("{column}::text")
            }
        };
        let columns: Vec<String> = columns.iter().map(text).collect();
        let sql = format!("SELECT {} FROM dl_{view}", columns.join(", "));
        let rows = other.fetch_all(AssertSqlSafe(sql)).await.unwrap();
        let row = |row: &sqlx::postgres::PgRow| (0..columns.len()).map(|n| row.get(n)).collect();
        shown.insert(view.to_owned(), rows.iter().map(row).collect());
    }
    views::compare(db.as_ref(), &shown).await.unwrap();

    let error = db.drop_views().await.unwrap_err().to_string();
    assert!(error.contains("mine") && error.contains("Drop them first"), "{error}");
    other.execute("DROP VIEW mine").await.unwrap();
    db.drop_views().await.unwrap();
    db.drop_views().await.unwrap();
    let left =
        "SELECT count(*) FROM pg_class WHERE relkind = 'v' AND relnamespace = $1::regnamespace";
    let left = sqlx::query(left).bind(&guard.schema).fetch_one(&mut other).await.unwrap();
    assert_eq!(left.get::<i64, _>(0), 0);
}
