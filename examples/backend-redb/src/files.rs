//! Files and tombstones: rows by cursor, and a second key by what the file is.

use deltalakedb_catalog_core::support::{FileRow, prelude::*};
use redb::ReadableTable;

use crate::store::{Key, Rows, Space, WriteRows};

fn key_of(id: TableId, file: &FileKey) -> Key {
    Key::of(Space::FileKey, id).text(&file.path).text(&file.dv_id)
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    pub(crate) fn file_row(&self, id: TableId, cursor: FileCursor) -> Result<Option<FileRow>> {
        self.get(&Key::of(Space::File, id).cursor(cursor))
    }

    /// The rows that were added up to a version, by cursor.
    pub(crate) fn file_rows(
        &self,
        id: TableId,
        version: Version,
        after: Option<FileCursor>,
    ) -> Result<impl Iterator<Item = Result<FileRow>> + use<'_, T>> {
        let all = Key::of(Space::File, id);
        let from = after.map_or(all.clone(), |after| all.clone().cursor(after).after());
        self.scan(&from, &all.version(version).end())
    }

    /// The rows of a file, the last one that was added first.
    pub(crate) fn rows_of(
        &self,
        id: TableId,
        file: &FileKey,
    ) -> Result<impl Iterator<Item = Result<FileRow>> + use<'_, T>> {
        let cursors = self.all(&key_of(id, file))?.rev();
        Ok(cursors.filter_map(move |cursor| cursor.and_then(|c| self.file_row(id, c)).transpose()))
    }

    /// The row of a file that is in the table at the head.
    pub(crate) fn active(&self, id: TableId, file: &FileKey) -> Result<Option<FileRow>> {
        let mut rows = self.rows_of(id, file)?;
        rows.find(|row| row.as_ref().map_or(true, FileRow::is_active)).transpose()
    }
}

impl WriteRows<'_> {
    pub(crate) fn put_file(&mut self, id: TableId, row: &FileRow) -> Result<()> {
        if let Some(file) = row.key() {
            self.put(&key_of(id, &file).cursor(row.cursor), &row.cursor)?;
        }
        self.put(&Key::of(Space::File, id).cursor(row.cursor), row)
    }
}
