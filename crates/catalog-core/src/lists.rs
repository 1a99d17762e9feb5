//! The long lists of a catalog.

use std::sync::Arc;

use crate::backend::{CatalogBackend, CommitFilter, TableFilter};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::ids::{TableId, TableName, TimestampMs, Version};
use crate::model::{CommitRecord, FileCursor, FileRecord, Page, TableRecord, TombstoneRecord};
use crate::pages::Pages;

/// Rows per page of file lists. Some pages are in memory at a time; beyond some thousand rows a longer
/// one saves nothing.
const FILE_PAGE: usize = 2_500;
/// Rows per page of table and commit lists.
const LIST_PAGE: usize = 1_000;

/// Files of a table at a version.
pub(crate) struct FileList {
    pub(crate) catalog: Catalog,
    pub(crate) table_id: TableId,
    pub(crate) version: Version,
}

impl Pages for FileList {
    type Item = FileRecord;
    type Cursor = FileCursor;

    async fn page(&self, after: Option<FileCursor>) -> Result<Page<FileRecord, FileCursor>> {
        let FileList { catalog, table_id, version } = self;
        catalog.repeat(|| catalog.reader.list_files(*table_id, *version, after, FILE_PAGE)).await
    }

    async fn end(&self, after: &FileCursor) -> Result<Option<FileCursor>> {
        let FileList { catalog, table_id, version } = self;
        catalog.repeat(|| catalog.reader.files_end(*table_id, *version, *after, FILE_PAGE)).await
    }
}

/// Tombstones that a checkpoint carries.
pub(crate) struct TombstoneList {
    pub(crate) catalog: Catalog,
    pub(crate) table_id: TableId,
    pub(crate) version: Version,
    pub(crate) deleted_after: TimestampMs,
}

impl Pages for TombstoneList {
    type Item = TombstoneRecord;
    type Cursor = FileCursor;

    async fn page(&self, after: Option<FileCursor>) -> Result<Page<TombstoneRecord, FileCursor>> {
        let TombstoneList { catalog, table_id, version, deleted_after } = self;
        let (reader, limit) = (&catalog.reader, FILE_PAGE);
        catalog
            .repeat(|| reader.list_tombstones(*table_id, *version, *deleted_after, after, limit))
            .await
    }
}

/// Commits, newest first.
pub(crate) struct History {
    pub(crate) catalog: Catalog,
    pub(crate) table_id: TableId,
    pub(crate) filter: CommitFilter,
}

impl Pages for History {
    type Item = CommitRecord;
    type Cursor = Version;

    async fn page(&self, before: Option<Version>) -> Result<Page<CommitRecord, Version>> {
        let History { catalog, table_id, filter } = self;
        catalog.repeat(|| catalog.reader.list_commits(*table_id, filter, before, LIST_PAGE)).await
    }
}

/// Tables, by name.
pub(crate) struct TableList {
    pub(crate) catalog: Catalog,
    pub(crate) backend: Arc<dyn CatalogBackend>,
    pub(crate) filter: TableFilter,
}

impl Pages for TableList {
    type Item = TableRecord;
    type Cursor = (TableName, TableId);

    async fn page(
        &self,
        after: Option<(TableName, TableId)>,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        let TableList { catalog, backend, filter } = self;
        catalog.repeat(|| backend.list_tables(filter, after.as_ref(), LIST_PAGE)).await
    }
}
