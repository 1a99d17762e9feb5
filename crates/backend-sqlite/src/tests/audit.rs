//! What only SQLite's audit has: triggers, and the upgrade that adds it.

use deltalakedb_catalog_core::audit::{Act, Actor, AuditFilter, AuditOrder};
use deltalakedb_catalog_core::backend::{AuditBackend, CommitBackend, SchemaBackend, TableBackend};
use deltalakedb_catalog_core::error::PlainResult;

use super::old::{dump, to_version_3};
use super::support::{NOW, Place, create, id, raw};
use crate::{SqliteBackend, SqliteOptions};

async fn actions(backend: &SqliteBackend) -> Vec<String> {
    let filter = AuditFilter::default();
    let page = backend.audit_list(&filter, AuditOrder::OldestFirst, None, 10).await.unwrap();
    page.items.into_iter().map(|row| row.entry.action).collect()
}

#[tokio::test]
async fn rows_are_neither_changed_nor_deleted_by_anyones_sql() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    backend.drop_table(id(1), &Act::at(NOW)).await.unwrap();
    let conn = raw(&place.path());
    for sql in [
        "UPDATE dl_audit SET user_name = 'someone else'",
        "DELETE FROM dl_audit",
        "REPLACE INTO dl_audit (id, at_ms, action) SELECT id, 0, 'x' FROM dl_audit",
        "INSERT INTO dl_audit (id, at_ms, action) VALUES (1, 0, 'x') ON CONFLICT (id) DO UPDATE SET action = 'x'",
    ] {
        let conn = || -> rusqlite::Result<usize> {
            // Without it, REPLACE deletes rows without a word.
            conn.pragma_update(None, "recursive_triggers", 1)?;
            conn.execute(sql, [])
        };
        let error = conn().unwrap_err().to_string();
        assert!(error.contains("rows of the audit are never"), "{sql}: {error}");
    }
    assert_eq!(actions(&backend).await, ["table.drop"]);
}

#[tokio::test]
async fn a_catalog_of_version_3_gets_an_audit_and_keeps_its_rows() {
    let place = Place::new();
    let before = {
        let backend = place.catalog().await;
        backend.commit(create(1)).await.unwrap();
        backend.commit(create(2)).await.unwrap();
        let conn = raw(&place.path());
        to_version_3(&conn, "dl_");
        dump(&conn, "dl_")
    };
    let must_exist = SqliteOptions { must_exist: true, ..place.options() };
    let refused = SqliteBackend::open(must_exist.clone()).unwrap_err().to_string();
    assert!(refused.contains("version 3,") && refused.contains("dl init"), "{refused}");
    let backend = place.open();
    let refused = backend.drop_table(id(1), &Act::at(NOW)).await.plain().unwrap_err().to_string();
    assert!(refused.contains("version 3,"), "{refused}");
    for _ in 0..2 {
        backend.migrate(NOW).await.unwrap();
    }
    assert_eq!(dump(&raw(&place.path()), "dl_"), before);
    assert_eq!(actions(&backend).await, Vec::<String>::new());
    let by = Actor { user: Some("ann".to_owned()), ..Actor::default() };
    backend.drop_table(id(1), &Act { at: NOW, by }).await.unwrap();
    assert_eq!(actions(&backend).await, ["table.drop"]);
    SqliteBackend::open(must_exist).unwrap();
}

#[tokio::test]
async fn a_table_of_that_name_which_is_not_ours_refuses_the_upgrade() {
    let place = Place::new();
    drop(place.catalog().await);
    let conn = raw(&place.path());
    to_version_3(&conn, "dl_");
    conn.execute_batch("CREATE TABLE DL_Audit (mine)").unwrap();
    let error = place.open().migrate(NOW).await.plain().unwrap_err().to_string();
    assert!(error.contains("dl_audit") && error.contains("Rename it"), "{error}");
    conn.execute_batch("ALTER TABLE DL_Audit RENAME TO mine").unwrap();
    place.open().migrate(NOW).await.unwrap();
}
