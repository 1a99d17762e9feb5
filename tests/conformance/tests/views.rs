//! The views of SQLite show what the reads show.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::collections::BTreeMap;

use deltalakedb_backend_sqlite::{SqliteBackend, SqliteOptions};
use deltalakedb_catalog_core::backend::SchemaBackend;
use deltalakedb_conformance::{fixture, views};
use rusqlite::Connection;

#[tokio::test]
async fn they_show_what_the_reads_show() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.db");
    let db = SqliteBackend::open(SqliteOptions::new(&path)).unwrap();
    db.migrate(fixture::START).await.unwrap();
    fixture::build(&*db).await.unwrap();
    let other = Connection::open(&path).unwrap();
    // As other programs may have written it.
    for odd in views::ODD_ROWS {
        assert_eq!(other.execute(odd, []).unwrap(), 1, "{odd}");
    }
    db.make_views().await.unwrap();
    db.make_views().await.unwrap();
    let mut shown = BTreeMap::new();
    for (view, columns) in views::VIEWS {
        let columns: Vec<String> = columns.iter().map(|c| format!("CAST({c} AS TEXT)")).collect();
        let sql = format!("SELECT {} FROM dl_{view}", columns.join(", "));
        let mut query = other.prepare(&sql).unwrap();
        let row = |row: &rusqlite::Row<'_>| (0..columns.len()).map(|n| row.get(n)).collect();
        let rows: Vec<views::Row> = query.query_map([], row).unwrap().map(Result::unwrap).collect();
        shown.insert(view.to_owned(), rows);
    }
    views::compare(&*db, &shown).await.unwrap();

    db.drop_views().await.unwrap();
    db.drop_views().await.unwrap();
    let left = "SELECT count(*) FROM sqlite_master WHERE type = 'view'";
    assert_eq!(other.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}
