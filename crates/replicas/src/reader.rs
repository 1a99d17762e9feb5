//! The parts of the contract that replicas may answer: reads, tables, the skipping index. Every other part is
//! passed on to the primary, so no write reaches a replica.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::{
    AppRows, AppState, CatalogBackend, CommitFilter, OperateBackend, PoolStats, ReadBackend,
    SkipBackend, TableBackend, TableFilter,
};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::delegate;
use deltalakedb_catalog_core::error::{ReadResult, WriteResult};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, NewSkipSegment, Page, SkipIndex, SkipPage, Snapshot,
    TableRecord, TombstoneRecord,
};

use crate::{ReplicaReader, as_new};

#[async_trait]
impl TableBackend for ReplicaReader {
    fn note_change(&self, table_id: TableId) {
        self.note_commit(table_id);
    }

    async fn get_table(&self, table: &TableRef) -> ReadResult<Option<TableRecord>> {
        if let Some(known) = self.recent(table) {
            let known = &known;
            let answer = self
                .on_replica(|backend, _| async move {
                    let row = backend.get_table(table).await?;
                    Ok(row.filter(|row| as_new(row, known)))
                })
                .await;
            if let Some(row) = &answer {
                self.advance(row);
                return Ok(answer);
            }
        }
        let asked = self.now();
        let row = self.primary.get_table(table).await?;
        if let Some(row) = &row {
            self.learn(row, asked);
        }
        Ok(row)
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> ReadResult<Page<TableRecord, (TableName, TableId)>> {
        self.primary.list_tables(filter, after, limit).await
    }

    async fn drop_table(&self, table_id: TableId, act: &Act) -> WriteResult<TableRecord> {
        self.primary.drop_table(table_id, act).await
    }

    async fn undrop_table(
        &self,
        table_id: TableId,
        name: &TableName,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        self.primary.undrop_table(table_id, name, act).await
    }
}

#[async_trait]
impl ReadBackend for ReplicaReader {
    async fn snapshot(&self, table: &TableRef, at: At) -> ReadResult<Snapshot> {
        if let (TableRef::Id(id), At::Version(version)) = (table, at) {
            let read =
                |backend: Arc<dyn CatalogBackend>| async move { backend.snapshot(table, at).await };
            if let Some(answer) = self.fixed(*id, version, read).await {
                return Ok(answer);
            }
        } else if let Some(known) = self.recent(table) {
            let known = &known;
            let answer = self
                .on_replica(|backend, _| async move {
                    let snapshot = backend.snapshot(table, at).await?;
                    Ok(Some(snapshot).filter(|s| as_new(&s.table, known)))
                })
                .await;
            if let Some(answer) = answer {
                self.advance(&answer.table);
                return Ok(answer);
            }
        }
        let asked = self.now();
        let snapshot = self.primary.snapshot(table, at).await?;
        self.learn(&snapshot.table, asked);
        Ok(snapshot)
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<FileRecord, FileCursor>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.list_files(table_id, version, after, limit).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.list_files(table_id, version, after, limit).await
    }

    async fn files_end(
        &self,
        table_id: TableId,
        version: Version,
        after: FileCursor,
        limit: usize,
    ) -> ReadResult<Option<FileCursor>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.files_end(table_id, version, after, limit).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.files_end(table_id, version, after, limit).await
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> ReadResult<Vec<FileRecord>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.files_at(table_id, version, cursors).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.files_at(table_id, version, cursors).await
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<TombstoneRecord, FileCursor>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.list_tombstones(table_id, version, deleted_after, after, limit).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.list_tombstones(table_id, version, deleted_after, after, limit).await
    }

    async fn app_state(
        &self,
        table_id: TableId,
        version: Version,
        rows: AppRows,
    ) -> ReadResult<AppState> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.app_state(table_id, version, rows).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.app_state(table_id, version, rows).await
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> ReadResult<Page<CommitRecord, Version>> {
        // Without an upper bound the answer begins at the head, and only the primary knows it.
        let below = before.map(Version::previous);
        let bound = match (filter.to_version, below) {
            (Some(to), Some(Some(below))) => Some(to.min(below)),
            (to, None) => to,
            (None, Some(below)) => below,
            (Some(_), Some(None)) => None,
        };
        if let Some(bound) = bound {
            let read = |backend: Arc<dyn CatalogBackend>| async move {
                backend.list_commits(table_id, filter, before, limit).await
            };
            if let Some(answer) = self.fixed(table_id, bound, read).await {
                return Ok(answer);
            }
        }
        self.primary.list_commits(table_id, filter, before, limit).await
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> ReadResult<Vec<(CommitRecord, CommitBody)>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.read_bodies(table_id, from, to, limit).await
        };
        if let Some(answer) = self.fixed(table_id, to, read).await {
            return Ok(answer);
        }
        self.primary.read_bodies(table_id, from, to, limit).await
    }
}

#[async_trait]
impl SkipBackend for ReplicaReader {
    async fn skip_index(&self, table_id: TableId) -> ReadResult<SkipIndex> {
        // Derived data: an index that lags behind only rules out less.
        let answer = self
            .on_replica(|backend, _| async move {
                let index = backend.skip_index(table_id).await?;
                Ok(Some(index).filter(|index| self.saw_index(table_id, index.generation)))
            })
            .await;
        if let Some(answer) = answer {
            return Ok(answer);
        }
        let index = self.primary.skip_index(table_id).await?;
        self.saw_index(table_id, index.generation);
        Ok(index)
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> ReadResult<Vec<Option<Bytes>>> {
        let answer = self
            .on_replica(|backend, _| async move {
                let found = backend.skip_pages(table_id, pages).await?;
                // The index may have come from elsewhere.
                Ok(Some(found).filter(|found| found.iter().all(Option::is_some)))
            })
            .await;
        match answer {
            Some(answer) => Ok(answer),
            None => self.primary.skip_pages(table_id, pages).await,
        }
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> WriteResult<bool> {
        let replaced = self.primary.skip_replace(table_id, generation, remove, segment).await?;
        if replaced {
            self.saw_index(table_id, generation.saturating_add(1));
        }
        Ok(replaced)
    }
}

delegate!(
    SchemaBackend, CommitBackend, ImportBackend, OutboxBackend, AuditBackend, RegistryBackend
    for ReplicaReader => primary
);

/// The pool is the primary's: each replica has one of its own, which only reads use.
#[async_trait]
impl OperateBackend for ReplicaReader {
    fn pool_stats(&self) -> Option<PoolStats> {
        self.primary.pool_stats()
    }

    async fn close(&self) -> WriteResult<()> {
        for replica in &self.replicas {
            replica.close().await;
        }
        self.primary.close().await
    }
}
