//! Whose file is it, and which version of our tables is in it.

use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::ids::{TableRef, Version};

use super::old::{to_version_1, to_version_2};
use super::support::{NOW, Place, append, change, create, id, index, paths, raw};
use crate::{SqliteBackend, SqliteOptions};

fn schema_message<T: std::fmt::Debug>(result: Result<T, impl Into<CatalogError>>) -> String {
    match result.map_err(Into::into).unwrap_err() {
        CatalogError::Schema(message) => message,
        other => panic!("not a schema error: {other:?}"),
    }
}

#[tokio::test]
async fn a_missing_or_empty_catalog_says_to_run_init() {
    let place = Place::new();
    let must_exist = SqliteOptions { must_exist: true, ..place.options() };
    let read_only = SqliteOptions { read_only: true, ..place.options() };
    for options in [&must_exist, &read_only] {
        let message = schema_message(SqliteBackend::open(options.clone()));
        assert!(message.contains("dl init") && message.contains("catalog.db"), "{message}");
        assert!(!place.path().exists(), "nothing is created by looking");
    }
    let backend = place.open();
    assert_eq!(backend.info().await.unwrap().schema_version, 0);
    for message in [
        schema_message(backend.get_table(&TableRef::Id(id(1))).await),
        schema_message(backend.commit(create(1)).await),
        schema_message(SqliteBackend::open(must_exist.clone())),
    ] {
        assert!(message.contains("dl init"), "{message}");
    }
    // Another handle initialises it: this one notices.
    place.open().migrate(NOW).await.unwrap();
    assert!(backend.get_table(&TableRef::Id(id(1))).await.unwrap().is_none());
    assert_eq!(backend.info().await.unwrap().schema_version, 5);
    SqliteBackend::open(must_exist).unwrap();
    SqliteBackend::open(read_only).unwrap();
}

#[tokio::test]
async fn read_only_reads_and_never_writes() {
    let place = Place::new();
    place.catalog().await.commit(create(1)).await.unwrap();
    let options = SqliteOptions { read_only: true, ..place.options() };
    let backend = SqliteBackend::open(options).unwrap();
    assert!(backend.get_table(&TableRef::Id(id(1))).await.unwrap().is_some());
    let error = backend.commit(append(1, "t", index(vec![], vec![]))).await.unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
}

#[tokio::test]
async fn a_file_of_another_program_stays_as_it_is() {
    let place = Place::new();
    let other = raw(&place.path());
    other
        .execute_batch(
            "CREATE TABLE a (x); CREATE TABLE b (x); CREATE VIEW c AS SELECT 1; CREATE TABLE d (x)",
        )
        .unwrap();
    let before = std::fs::read(place.path()).unwrap();
    let message = schema_message(SqliteBackend::open(place.options()));
    assert!(message.contains("another program") && message.contains("a, b, c, …"), "{message}");
    assert_eq!(std::fs::read(place.path()).unwrap(), before);

    let place = Place::new();
    raw(&place.path()).execute_batch("PRAGMA application_id = 7").unwrap();
    let message = schema_message(SqliteBackend::open(place.options()));
    assert!(message.contains("application id is 7"), "{message}");
}

#[tokio::test]
async fn tables_under_our_names_that_are_not_ours_are_refused() {
    let place = Place::new();
    place.catalog().await;
    let raw = raw(&place.path());
    raw.execute_batch("CREATE TABLE X_Files (a); CREATE TABLE y_schema (a, b)").unwrap();
    for (prefix, named) in [("x_", "X_Files"), ("y_", "y_schema")] {
        let options = SqliteOptions { table_prefix: prefix.to_owned(), ..place.options() };
        let message = schema_message(SqliteBackend::open(options));
        assert!(message.contains(named) && message.contains("table_prefix"), "{message}");
    }
    // A file of ours has room for a second catalog.
    let options = SqliteOptions { table_prefix: "z_".to_owned(), ..place.options() };
    let second = SqliteBackend::open(options).unwrap();
    second.migrate(NOW).await.unwrap();
    second.commit(create(1)).await.unwrap();
    assert!(place.open().get_table(&TableRef::Id(id(1))).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_not_a_database_is_refused() {
    let place = Place::new();
    std::fs::write(place.path(), vec![b'x'; 4096]).unwrap();
    let message = schema_message(SqliteBackend::open(place.options()));
    assert!(message.contains("not a SQLite database"), "{message}");
}

#[tokio::test]
async fn a_catalog_of_the_first_version_is_upgraded() {
    let place = Place::new();
    place.catalog().await.commit(create(1)).await.unwrap();
    let conn = raw(&place.path());
    to_version_2(&conn, "dl_");
    to_version_1(&conn, "dl_");
    let must_exist = SqliteOptions { must_exist: true, ..place.options() };
    let message = schema_message(SqliteBackend::open(must_exist.clone()));
    assert!(message.contains("version 1,") && message.contains("dl init"), "{message}");
    let backend = place.open();
    let message = schema_message(backend.commit(append(1, "t", index(vec![], vec![]))).await);
    assert!(message.contains("version 1,") && message.contains("dl init"), "{message}");
    backend.migrate(NOW).await.unwrap();
    backend.commit(append(1, "t", index(vec![], vec![]))).await.unwrap();
    assert_eq!(backend.skip_index(id(1)).await.unwrap().generation, 0);
    SqliteBackend::open(must_exist).unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    raw(&place.path()).execute_batch("INSERT INTO dl_schema VALUES (9, 0, 'tomorrow')").unwrap();
    for message in [
        // Open since before the upgrade: a write finds out by itself.
        schema_message(backend.commit(append(1, "t", index(vec![], vec![]))).await),
        schema_message(backend.migrate(NOW).await),
        schema_message(SqliteBackend::open(SqliteOptions { must_exist: true, ..place.options() })),
    ] {
        assert!(message.contains("version 9") && message.contains("up to 5"), "{message}");
    }
    assert_eq!(backend.info().await.unwrap().schema_version, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_initialise_at_once_end_with_one_schema() {
    let place = Place::new();
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let options = place.options();
            tokio::task::spawn_blocking(move || SqliteBackend::open(options).unwrap())
        })
        .collect();
    let mut backends = Vec::new();
    for task in tasks {
        backends.push(task.await.unwrap());
    }
    let all = backends.iter().map(|backend| backend.migrate(NOW));
    futures::future::try_join_all(all).await.unwrap();
    let versions: i64 = raw(&place.path())
        .query_row("SELECT count(*) FROM dl_schema WHERE version = 5", [], |row| row.get(0))
        .unwrap();
    assert_eq!(versions, 1, "one row for the version, once");
}

#[tokio::test]
async fn damaged_json_is_corrupt_and_names_table_and_version() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    change(&backend, 1, "a", &["f"], &[]).await;
    assert_eq!(paths(&backend, 1, 1).await, ["f"]);
    raw(&place.path()).execute_batch("UPDATE dl_files SET partition_values = '{'").unwrap();
    let error =
        backend.list_files(id(1), Version::new(1).unwrap(), None, 9).await.plain().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CatalogError::Corrupt(_)), "{text}");
    assert!(text.contains(&id(1).to_string()) && text.contains("version 1"), "{text}");
    assert!(text.contains("partition_values"), "{text}");
    raw(&place.path()).execute_batch("UPDATE dl_metadata SET metadata = '[]'").unwrap();
    let error = backend
        .snapshot(&TableRef::Id(id(1)), deltalakedb_catalog_core::ids::At::Head)
        .await
        .plain()
        .unwrap_err();
    assert!(matches!(error, CatalogError::Corrupt(_)), "{error}");
}
