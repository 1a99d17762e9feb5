//! Files that this program must not touch: what it says, and that nothing changes.

use deltalakedb_backend_redb::RedbBackend;
use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::{CatalogError, PlainResult, Result};
use deltalakedb_catalog_core::ids::{TableId, TableRef, TimestampMs};
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use uuid::Uuid;

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("deltalakedb");
/// The key of the schema's version, and a version as it is stored.
const SCHEMA: &[u8] = &[0];

fn stored(version: u32) -> Vec<u8> {
    version.to_string().into_bytes()
}

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
    let newer = stored(supported + 1);
    transaction.open_table(ROWS).unwrap().insert(SCHEMA, newer.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);

    let catalog = RedbBackend::open(&path).unwrap();
    assert_eq!(catalog.info().await.unwrap().schema_version, supported + 1);
    let id = TableId(Uuid::nil());
    is_schema(catalog.get_table(&TableRef::Id(id)).await.plain());
    is_schema(catalog.drop_table(id, &Act::at(TimestampMs(2))).await.plain());
    is_schema(catalog.migrate(TimestampMs(2)).await.plain());
    drop(catalog);
    let table = Database::open(&path).unwrap().begin_read().unwrap().open_table(ROWS).unwrap();
    assert_eq!(table.get_owned(SCHEMA).unwrap().unwrap().value(), newer);
}

#[tokio::test]
async fn a_map_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.redb");
    let theirs: TableDefinition<'_, u64, u64> = TableDefinition::new("deltalakedb");
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
    assert_eq!((value, transaction.list_tables().unwrap().count()), (2, 1));
}

/// Also where its keys and values have the same types.
#[tokio::test]
async fn rows_of_another_program_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.redb");
    let db = Database::create(&path).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction.open_table(ROWS).unwrap().insert(b"key".as_slice(), b"1".as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);

    let catalog = RedbBackend::open(&path).unwrap();
    is_schema(catalog.migrate(TimestampMs(1)).await.plain());
    drop(catalog);
    let table = Database::open(&path).unwrap().begin_read().unwrap().open_table(ROWS).unwrap();
    let row = table.get_owned(b"key".as_slice()).unwrap().unwrap();
    assert_eq!((row.value(), table.len().unwrap()), (b"1".as_slice(), 1));
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
