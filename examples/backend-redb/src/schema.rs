//! The part about the schema: its version is the first row.

use deltalakedb_catalog_core::support::{self, prelude::*};
use std::sync::atomic::Ordering;

use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError};

use crate::store::{Key, ROWS, Rows, Space, WriteRows, failed};
use crate::{RedbBackend, blocking};

/// Version of the rows that this program writes.
const SUPPORTED: u32 = 3;

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    /// The stored version; 0 = none.
    fn schema_version(&self) -> Result<u32> {
        Ok(self.get(&Key::new(Space::Schema))?.unwrap_or(0))
    }

    /// Refuses rows of another version than this program's.
    pub(crate) fn check_schema(&self) -> Result<()> {
        let version = self.schema_version()?;
        support::check_schema_version(version, SUPPORTED, "redb", "its rows have no version")
    }
}

#[async_trait]
impl SchemaBackend for RedbBackend {
    async fn info(&self) -> ReadResult<BackendInfo> {
        let db = self.open_db()?;
        let read = move || match db.begin_read().map_err(failed)?.open_table(ROWS) {
            Ok(rows) => Rows(rows).schema_version(),
            Err(TableError::TableDoesNotExist(_)) => Ok(0),
            Err(error) => Err(failed(error)),
        };
        Ok(BackendInfo {
            kind: "redb",
            server_version: "4, inside of this program".to_owned(),
            schema_version: blocking(read).await?,
            supported_schema_version: SUPPORTED,
            clock: None,
            keeps_audit: true,
        })
    }

    async fn migrate(&self, _now: TimestampMs) -> WriteResult<()> {
        let migrate = |rows: &mut WriteRows<'_>| {
            // Version 2 added rows of the audit, version 3 those of the registry. Neither changed any.
            if rows.0.is_empty().map_err(failed)? || matches!(rows.schema_version()?, 1 | 2) {
                rows.put(&Key::new(Space::Schema), &SUPPORTED)?;
            }
            rows.check_schema()
        };
        Ok(self.write_if(|()| true, migrate).await?)
    }
}

/// redb's handles are none of a pool: reads are as many as there are callers, and there is one writer. The file
/// is closed with the last value of this type, so that a call under way ends as it would have.
#[async_trait]
impl OperateBackend for RedbBackend {
    fn pool_stats(&self) -> Option<PoolStats> {
        None
    }

    async fn close(&self) -> WriteResult<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}
