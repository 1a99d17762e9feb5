//! The part about the schema: a record of its version in a map of its own.

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::{BackendInfo, SchemaBackend};
use deltalakedb_catalog_core::error::{CatalogError, ReadResult, Result, WriteResult};
use deltalakedb_catalog_core::ids::TimestampMs;
use redb::{
    ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
};

use crate::store::{ROWS, commit_failed, failed};
use crate::{RedbBackend, blocking};

/// Version of the rows that this program writes.
const SUPPORTED: u32 = 1;

const SCHEMA: TableDefinition<'static, &'static str, u32> =
    TableDefinition::new("deltalakedb_schema");

fn stored(table: &impl ReadableTable<&'static str, u32>) -> Result<u32> {
    Ok(table.get("version").map_err(failed)?.map_or(0, |version| version.value()))
}

/// The stored version; 0 = none.
pub(crate) fn version(transaction: &ReadTransaction) -> Result<u32> {
    match transaction.open_table(SCHEMA) {
        Ok(table) => stored(&table),
        Err(TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(failed(error)),
    }
}

/// The same in a transaction that writes.
pub(crate) fn version_in(transaction: &WriteTransaction) -> Result<u32> {
    stored(&transaction.open_table(SCHEMA).map_err(failed)?)
}

/// Refuses rows of another version than this program's.
pub(crate) fn require(version: u32) -> Result<()> {
    match version {
        SUPPORTED => Ok(()),
        0 => Err(CatalogError::Schema("there is no catalog in this file: migrate it".to_owned())),
        newer => Err(CatalogError::Schema(format!(
            "the catalog has schema {newer}, this program writes {SUPPORTED}: use a newer program"
        ))),
    }
}

#[async_trait]
impl SchemaBackend for RedbBackend {
    async fn info(&self) -> ReadResult<BackendInfo> {
        let shared = self.shared.clone();
        let schema_version =
            blocking(move || version(&shared.db.begin_read().map_err(failed)?)).await?;
        Ok(BackendInfo {
            kind: "redb",
            server_version: "4, inside of this program".to_owned(),
            schema_version,
            supported_schema_version: SUPPORTED,
            clock: None,
        })
    }

    async fn migrate(&self, _now: TimestampMs) -> WriteResult<()> {
        let shared = self.shared.clone();
        let turn = shared.turn.clone().lock_owned().await;
        let migrate = move || {
            let _turn = turn;
            let transaction = shared.db.begin_write().map_err(failed)?;
            match version_in(&transaction)? {
                0 => {
                    let mut schema = transaction.open_table(SCHEMA).map_err(failed)?;
                    schema.insert("version", SUPPORTED).map_err(failed)?;
                    transaction.open_table(ROWS).map_err(failed)?;
                }
                found => return require(found),
            }
            transaction.commit().map_err(commit_failed)
        };
        Ok(blocking(migrate).await?)
    }
}
