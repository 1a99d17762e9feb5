//! When the database cannot do it: which error, and what is left behind.

use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::{CommitToken, TableRef};

use super::support::{NOW, Place, add, append, change, create, id, index, paths, raw};
use crate::{SqliteBackend, SqliteOptions};

#[tokio::test]
async fn a_lock_held_elsewhere_is_busy_and_nothing_happened() {
    let place = Place::new();
    let options = SqliteOptions { busy_timeout_ms: 30, ..place.options() };
    let backend = SqliteBackend::open(options).unwrap();
    backend.migrate(NOW).await.unwrap();
    backend.commit(create(1)).await.unwrap();
    let other = raw(&place.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = backend.commit(append(1, "t", index(vec![add("f")], vec![]))).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(error.write_state(), WriteState::NotApplied);
    assert!(error.to_string().contains("catalog.db"), "{error}");
    // Readers do not wait for writers.
    assert!(backend.get_table(&TableRef::Id(id(1))).await.unwrap().is_some());
    other.execute_batch("ROLLBACK").unwrap();
    change(&backend, 1, "t", &["f"], &[]).await;
}

#[tokio::test]
async fn a_full_disk_fails_that_commit_only() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    let limit = |pages: i64| {
        backend.write("limiting the size", move |db| {
            let now: i64 = db.conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
            let most = if pages == 0 { 1 << 30 } else { now + pages };
            db.conn.pragma_update(None, "max_page_count", most)?;
            Ok(())
        })
    };
    limit(20).await.unwrap();
    let adds: Vec<_> = (0..5_000).map(|n| add(&format!("f{n}"))).collect();
    let error =
        backend.commit(append(1, "big", index(adds.clone(), vec![]))).await.plain().unwrap_err();
    assert!(matches!(error, CatalogError::Unavailable { retryable: false, .. }), "{error:?}");
    assert_eq!(error.write_state(), WriteState::NotApplied);
    let text = error.to_string();
    assert!(text.contains("no space left") && text.contains("catalog.db"), "{text}");
    let token = CommitToken::new("big").unwrap();
    assert!(backend.resolve_token(&token).await.unwrap().is_none());
    // A small one fits, and with space the big one too.
    assert_eq!(change(&backend, 1, "small", &["s"], &[]).await.get(), 1);
    limit(0).await.unwrap();
    backend.commit(append(1, "big", index(adds, vec![]))).await.unwrap();
    assert_eq!(paths(&backend, 1, 1).await, ["s"]);
}

#[tokio::test]
async fn a_full_disk_in_a_group_lets_the_others_try_again() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    let small =
        |n: i32| append(1, &format!("small-{n}"), index(vec![add(&format!("s{n}"))], vec![]));
    let adds: Vec<_> = (0..20_000).map(|n| add(&format!("f{n}"))).collect();
    let big = append(1, "big", index(adds, vec![]));
    let limit = backend.write("limiting the size", |db| {
        let now: i64 = db.conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
        db.conn.pragma_update(None, "max_page_count", now + 100)?;
        Ok(())
    });
    let (limited, a, big, b) = tokio::join!(
        limit,
        backend.commit(small(1)),
        backend.commit(big),
        backend.commit(small(2))
    );
    let error = big.unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
    // Whatever was grouped with it is applied or may be tried again.
    assert!(limited.is_ok() || limited.unwrap_err().is_retryable());
    let mut applied = 0;
    for outcome in [a, b] {
        match outcome {
            Ok(_) => applied += 1,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                assert_eq!(error.write_state(), WriteState::NotApplied);
            }
        }
    }
    let head = backend.get_table(&TableRef::Id(id(1))).await.unwrap().unwrap().head.unwrap();
    assert_eq!(head.get(), applied);
    backend.commit(small(3)).await.unwrap();
}

#[tokio::test]
async fn a_reader_connection_cannot_write() {
    let place = Place::new();
    let backend = place.catalog().await;
    let error = backend
        .read("testing", |db| {
            db.conn.execute_batch("DELETE FROM dl_tables")?;
            Ok(())
        })
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cannot be written while testing"), "{error}");
}

#[tokio::test]
async fn paths_that_cannot_be_opened_say_so() {
    let place = Place::new();
    for path in [place.path().join("below/x.db"), place.path().parent().unwrap().to_owned()] {
        let error = SqliteBackend::open(SqliteOptions::new(&path)).unwrap_err();
        assert!(matches!(error, CatalogError::Unavailable { retryable: false, .. }), "{error:?}");
        assert!(error.to_string().contains("cannot be opened"), "{error}");
    }
}

#[tokio::test]
async fn settings_are_what_durability_needs() {
    let place = Place::new();
    let backend = place.catalog().await;
    let read = |name: &'static str| {
        backend.write("reading a setting", move |db| {
            Ok(db.conn.pragma_query_value(None, name, |row| {
                Ok(format!("{:?}", row.get_ref(0)?.data_type())
                    + &row.get::<_, rusqlite::types::Value>(0).map(|v| format!("{v:?}"))?)
            })?)
        })
    };
    assert!(read("journal_mode").await.unwrap().contains("wal"));
    assert!(read("synchronous").await.unwrap().contains("Integer(2)"));
    assert!(read("application_id").await.unwrap().contains("1145848898"));
}
