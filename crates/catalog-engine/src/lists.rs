//! The long lists of a catalog.

use std::sync::Arc;

use crate::pages::Pages;
use crate::retry::Retry;
use deltalakedb_catalog_core::backend::{CatalogBackend, CommitFilter, TableFilter};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, Page, TableRecord, TombstoneRecord,
};

/// Rows per page of file lists. Some pages are in memory at a time; beyond some thousand rows a longer
/// one saves nothing.
const FILE_PAGE: usize = 2_500;
/// Rows per page of table and commit lists.
const LIST_PAGE: usize = 1_000;

/// A database that lists are read from.
pub(crate) struct Source {
    pub(crate) backend: Arc<dyn CatalogBackend>,
    pub(crate) retry: Retry,
    /// Rows per page, in place of what is usual.
    pub(crate) page_size: Option<usize>,
}

impl Source {
    fn files(&self) -> usize {
        self.page_size.unwrap_or(FILE_PAGE)
    }

    fn rows(&self) -> usize {
        self.page_size.unwrap_or(LIST_PAGE)
    }
}

/// Files of a table at a version.
pub(crate) struct FileList {
    pub(crate) source: Source,
    pub(crate) table_id: TableId,
    pub(crate) version: Version,
}

impl Pages for FileList {
    type Item = FileRecord;
    type Cursor = FileCursor;

    async fn page(&self, after: Option<FileCursor>) -> Result<Page<FileRecord, FileCursor>> {
        let FileList { source, table_id, version } = self;
        source
            .retry
            .repeat(|| source.backend.list_files(*table_id, *version, after, source.files()))
            .await
    }

    async fn end(&self, after: &FileCursor) -> Result<Option<FileCursor>> {
        let FileList { source, table_id, version } = self;
        source
            .retry
            .repeat(|| source.backend.files_end(*table_id, *version, *after, source.files()))
            .await
    }
}

/// Tombstones that a checkpoint carries.
pub(crate) struct TombstoneList {
    pub(crate) source: Source,
    pub(crate) table_id: TableId,
    pub(crate) version: Version,
    pub(crate) deleted_after: TimestampMs,
}

impl Pages for TombstoneList {
    type Item = TombstoneRecord;
    type Cursor = FileCursor;

    async fn page(&self, after: Option<FileCursor>) -> Result<Page<TombstoneRecord, FileCursor>> {
        let TombstoneList { source, table_id, version, deleted_after } = self;
        let (reader, limit) = (&source.backend, source.files());
        source
            .retry
            .repeat(|| reader.list_tombstones(*table_id, *version, *deleted_after, after, limit))
            .await
    }
}

/// Commits, newest first.
pub(crate) struct History {
    pub(crate) source: Source,
    pub(crate) table_id: TableId,
    pub(crate) filter: CommitFilter,
}

impl Pages for History {
    type Item = CommitRecord;
    type Cursor = Version;

    async fn page(&self, before: Option<Version>) -> Result<Page<CommitRecord, Version>> {
        let History { source, table_id, filter } = self;
        source
            .retry
            .repeat(|| source.backend.list_commits(*table_id, filter, before, source.rows()))
            .await
    }
}

/// Tables, by name.
pub(crate) struct TableList {
    pub(crate) source: Source,
    pub(crate) filter: TableFilter,
}

impl Pages for TableList {
    type Item = TableRecord;
    type Cursor = (TableName, TableId);

    async fn page(
        &self,
        after: Option<(TableName, TableId)>,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        let TableList { source, filter } = self;
        source
            .retry
            .repeat(|| source.backend.list_tables(filter, after.as_ref(), source.rows()))
            .await
    }
}
