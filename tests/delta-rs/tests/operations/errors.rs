//! What is wrong is said, by name.

use std::collections::HashMap;

use deltalakedb::core::catalog::{ChangeTarget, CommitBatch, TableChange};
use deltalakedb::core::conflict::Reads;
use deltalakedb::deltalake::deltalake as delta;
use deltalakedb::{CatalogUri, Db};

use crate::both::table_url;
use crate::databases::{self, Database};
use crate::{append, filled_quietly};
use delta::{DeltaTable, DeltaTableBuilder, ensure_table_uri};

pub(crate) async fn what_is_wrong_is_said(database: Database) {
    let dir = tempfile::tempdir().unwrap();
    let catalog = databases::url(database, &dir);
    let open = async |url: &str| delta::open_table(ensure_table_uri(url).unwrap()).await;
    deltalakedb::deltalake::register();

    // No catalog, no table, no place for a new one.
    let error = open(&table_url(&catalog)).await.unwrap_err().to_string();
    assert!(error.contains("dl init"), "{error}");
    let uri: CatalogUri = catalog.parse().unwrap();
    Db::create(&uri).await.unwrap();
    let error = open(&table_url(&catalog)).await.unwrap_err().to_string();
    assert!(error.contains("shop.t") || error.to_lowercase().contains("not a"), "{error}");
    if database != Database::Sqlite {
        let url = ensure_table_uri(table_url(&catalog)).unwrap();
        let table = DeltaTable::try_from_url(url).await.unwrap();
        let error = append(table, 0, 1, "mon").await.unwrap_err().to_string();
        assert!(error.contains("deltalakedb.warehouse"), "{error}");
    }
    for bad in ["delta+sql://nosuch:///x/t", "delta+sql://sqlite:///"] {
        let url = ensure_table_uri(bad).unwrap();
        assert!(DeltaTableBuilder::from_url(url).unwrap().build().is_err(), "{bad}");
    }

    // A table that uses what nobody here writes.
    let both = filled_quietly(database).await;
    let (db, table) = both.catalog().await;
    let change = |ndjson: &str| TableChange {
        target: ChangeTarget::Existing { table: table.clone(), read_version: None },
        ndjson: ndjson.as_bytes().to_vec(),
        origin: "test".to_owned(),
        reads: Reads::default(),
        operation: None,
    };
    let clustering = "{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":7,\
                      \"writerFeatures\":[\"appendOnly\",\"invariants\",\"clustering\",\"domainMetadata\"]}}\n";
    db.commit(CommitBatch { token: None, tables: vec![change(clustering)] }).await.unwrap();
    let mut table_now = both.sql();
    table_now.load().await.unwrap();
    let error = append(table_now, 0, 1, "mon").await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("cluster"), "{error}");

    // One that is gone.
    let both = filled_quietly(database).await;
    let (db, table) = both.catalog().await;
    db.drop_table(&table).await.unwrap();
    let error = append(both.sql(), 0, 1, "mon").await.unwrap_err().to_string();
    assert!(error.contains("not in the catalog"), "{error}");
    let gone = DeltaTable::try_from_url_with_storage_options(
        ensure_table_uri(both.url()).unwrap(),
        HashMap::new(),
    );
    assert!(gone.await.map_or(true, |t| t.version().is_none()));
}
