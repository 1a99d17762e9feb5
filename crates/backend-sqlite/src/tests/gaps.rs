//! What the core makes of a catalog that has lost a commit.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{At, TableRef, TimestampMs, Version};
use deltalakedb_catalog_engine::catalog::{Catalog, ChangeTarget, CommitBatch, TableChange};
use deltalakedb_catalog_engine::conflict::Reads;
use deltalakedb_catalog_engine::env::{Clock, IdSource};
use uuid::Uuid;

use super::support::{NOW, Place, create, id, raw};

#[derive(Debug)]
struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> TimestampMs {
        NOW
    }
    async fn sleep(&self, _: Duration) {}
}

#[derive(Debug)]
struct Ids;

impl IdSource for Ids {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
    fn fraction(&self) -> f64 {
        0.5
    }
}

fn add(path: &str) -> String {
    format!(
        r#"{{"add":{{"path":"{path}","partitionValues":{{}},"size":1,"modificationTime":1,"dataChange":true}}}}"#
    )
}

fn remove(path: &str) -> String {
    format!(r#"{{"remove":{{"path":"{path}","deletionTimestamp":1,"dataChange":true}}}}"#)
}

fn commit(read: i64, lines: &str) -> CommitBatch {
    let change = TableChange {
        target: ChangeTarget::Existing {
            table: TableRef::Id(id(1)),
            read_version: Some(Version::new(read).unwrap()),
        },
        ndjson: lines.as_bytes().to_vec(),
        origin: "test".to_owned(),
        reads: Reads::default(),
        operation: None,
    };
    CommitBatch { token: None, tables: vec![change] }
}

/// A commit that was planned on version 1 conflicts with version 3; without that, who knows?
#[tokio::test]
async fn a_commit_is_not_checked_past_one_that_is_missing() {
    // The first one, one in the middle, the last one; and all of them.
    for missing in ["version = 2", "version = 3", "version = 4", "version >= 2"] {
        let place = Place::new();
        let backend = place.catalog().await;
        backend.commit(create(1)).await.unwrap();
        let catalog = Catalog::new(
            Arc::clone(&backend) as Arc<dyn CatalogBackend>,
            Arc::new(Still),
            Arc::new(Ids),
        );
        for (read, lines) in
            [(0, add("a") + "\n" + &add("b")), (1, add("x")), (2, remove("a")), (3, add("y"))]
        {
            catalog.commit(commit(read, &lines)).await.unwrap();
        }
        let damage = format!("UPDATE dl_commits SET has_body = 0 WHERE {missing}");
        raw(&place.path()).execute_batch(&damage).unwrap();
        let error = catalog.commit(commit(1, &remove("b"))).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, CatalogError::Corrupt(_)), "{missing}: {text}");
        assert!(text.contains("no stored bytes"), "{missing}: {text}");
        let head = catalog.snapshot(&TableRef::Id(id(1)), At::Head).await.unwrap();
        assert_eq!(head.version.get(), 4, "{missing}");
    }
}
