//! Files that this program must not touch: what it says, and that nothing changes.

use deltalakedb_backend_redb::RedbBackend;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::{CatalogError, PlainResult, Result};
use deltalakedb_catalog_core::ids::{TableId, TableRef, TimestampMs};
use redb::{Database, ReadableDatabase, TableDefinition};
use uuid::Uuid;

const SCHEMA: TableDefinition<'static, &str, u32> = TableDefinition::new("deltalakedb_schema");

fn is_schema<T: std::fmt::Debug>(answer: Result<T>) {
    assert!(matches!(answer, Err(CatalogError::Schema(_))), "{answer:?}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let catalog = RedbBackend::open(&path).unwrap();
    catalog.migrate(TimestampMs(1)).await.unwrap();
    let supported = catalog.info().await.unwrap().supported_schema_version;
    drop(catalog);
    let db = Database::open(&path).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction.open_table(SCHEMA).unwrap().insert("version", supported + 1).unwrap();
    transaction.commit().unwrap();
    drop(db);

    let catalog = RedbBackend::open(&path).unwrap();
    assert_eq!(catalog.info().await.unwrap().schema_version, supported + 1);
    let id = TableId(Uuid::nil());
    is_schema(catalog.get_table(&TableRef::Id(id)).await.plain());
    is_schema(catalog.drop_table(id, TimestampMs(2)).await.plain());
    is_schema(catalog.migrate(TimestampMs(2)).await.plain());
    drop(catalog);
    let table = Database::open(&path).unwrap().begin_read().unwrap().open_table(SCHEMA).unwrap();
    assert_eq!(table.get_owned("version").unwrap().unwrap().value(), supported + 1);
}

#[tokio::test]
async fn tables_of_another_program_are_refused() {
    for name in ["deltalakedb", "deltalakedb_schema"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.redb");
        let theirs: TableDefinition<'_, u64, u64> = TableDefinition::new(name);
        let db = Database::create(&path).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(theirs).unwrap().insert(1, 2).unwrap();
        transaction.commit().unwrap();
        drop(db);

        let catalog = RedbBackend::open(&path).unwrap();
        is_schema(catalog.migrate(TimestampMs(1)).await.plain());
        drop(catalog);
        let db = Database::open(&path).unwrap();
        let transaction = db.begin_read().unwrap();
        let value = transaction.open_table(theirs).unwrap().get_owned(1).unwrap().unwrap().value();
        assert_eq!((value, transaction.list_tables().unwrap().count()), (2, 1), "{name}");
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "not a database\n".repeat(1_000);
    std::fs::write(&path, &text).unwrap();
    is_schema(RedbBackend::open(&path));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_file_that_another_opened_is_busy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let db = Database::create(&path).unwrap();
    let error = RedbBackend::open(&path).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    drop(db);
    RedbBackend::open(&path).unwrap();
}
