//! The upgrade that adds the registry, and what is told of one that was damaged.

use deltalakedb_catalog_core::audit::{Act, AuditFilter, AuditOrder};
use deltalakedb_catalog_core::backend::{
    AuditBackend, CommitBackend, RegistryBackend, SchemaBackend, TableBackend,
};
use deltalakedb_catalog_core::error::{CatalogError, PlainResult};
use deltalakedb_catalog_core::registry::{Expected, RecordKey, RecordWrite, RegistryOutcome};

use super::old::{dump, to_version_3, to_version_4};
use super::support::{NOW, Place, create, id, raw};
use crate::{SqliteBackend, SqliteOptions};

fn put(name: &str) -> RecordWrite {
    let key = RecordKey::new("share", name).unwrap();
    RecordWrite { key, expected: Expected::Absent, body: Some("{}".to_owned()) }
}

async fn actions(backend: &SqliteBackend) -> Vec<String> {
    let filter = AuditFilter::default();
    let page = backend.audit_list(&filter, AuditOrder::OldestFirst, None, 10).await.unwrap();
    page.items.into_iter().map(|row| row.entry.action).collect()
}

#[tokio::test]
async fn a_catalog_of_version_4_gets_a_registry_and_keeps_its_rows() {
    let place = Place::new();
    let before = {
        let backend = place.catalog().await;
        backend.commit(create(1)).await.unwrap();
        backend.drop_table(id(1), &Act::at(NOW)).await.unwrap();
        let conn = raw(&place.path());
        to_version_4(&conn, "dl_");
        dump(&conn, "dl_")
    };
    let must_exist = SqliteOptions { must_exist: true, ..place.options() };
    let refused = SqliteBackend::open(must_exist.clone()).unwrap_err().to_string();
    assert!(refused.contains("version 4,") && refused.contains("dl init"), "{refused}");
    let backend = place.open();
    let refused = backend.registry_revision().await.unwrap_err().to_string();
    assert!(refused.contains("version 4,"), "{refused}");
    backend.migrate(NOW).await.unwrap();
    assert_eq!(backend.registry_revision().await.unwrap(), 0);
    let written = backend.registry_write(&[put("a")], NOW, None).await.unwrap();
    assert_eq!(written, RegistryOutcome::Written(1));
    // Again, as by a process that was slower.
    backend.migrate(NOW).await.unwrap();
    assert_eq!(backend.registry_revision().await.unwrap(), 1);
    assert_eq!(dump(&raw(&place.path()), "dl_"), before);
    assert_eq!(actions(&backend).await, ["table.drop"]);
    SqliteBackend::open(must_exist).unwrap();
}

#[tokio::test]
async fn a_table_of_that_name_which_is_not_ours_refuses_the_upgrade() {
    let place = Place::new();
    drop(place.catalog().await);
    let conn = raw(&place.path());
    for old in [to_version_4, to_version_3] {
        old(&conn, "dl_");
        conn.execute_batch("CREATE TABLE DL_Registry (mine)").unwrap();
        let before: i64 =
            conn.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0)).unwrap();
        let error = place.open().migrate(NOW).await.plain().unwrap_err().to_string();
        assert!(error.contains("dl_registry") && error.contains("Rename it"), "{error}");
        let after: i64 =
            conn.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0)).unwrap();
        assert_eq!(after, before, "nothing was changed");
        conn.execute_batch("DROP TABLE DL_Registry").unwrap();
        place.open().migrate(NOW).await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_without_its_revision_is_damaged() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.registry_write(&[put("a")], NOW, None).await.unwrap();
    raw(&place.path()).execute_batch("DELETE FROM dl_registry WHERE kind = ''").unwrap();
    let read = backend.registry_revision().await.plain();
    assert!(
        matches!(&read, Err(CatalogError::Corrupt(text)) if text.contains("revision")),
        "{read:?}"
    );
    let write = backend.registry_write(&[put("b")], NOW, None).await.plain();
    assert!(matches!(write, Err(CatalogError::Corrupt(_))), "{write:?}");
    assert_eq!(backend.registry_list("share", None, 10).await.unwrap().items.len(), 1);
}
