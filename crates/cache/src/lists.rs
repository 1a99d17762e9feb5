//! The files of a table at a version, in columns.
//!
//! A list is made of parts, each a few thousand files in Arrow arrays. Parts never change and are shared: a
//! list at a later version has the same ones, marks what was removed in them, and has the files that were
//! added since in parts of its own at the end, as files are listed in the order in which they were added.

mod columns;
mod refresh;

use std::collections::HashSet;
use std::mem::size_of;
use std::sync::Arc;

use deltalakedb_catalog_core::ids::Version;
use deltalakedb_catalog_core::model::{FileCursor, FileRecord, Page};

pub(crate) use columns::Columns;
pub(crate) use refresh::{Change, refresh};

/// A page of files.
pub(crate) type FilePage = Page<FileRecord, FileCursor>;

/// A page as it was read.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) columns: Arc<Columns>,
    /// The cursor of its last file, if others follow.
    pub(crate) next: Option<FileCursor>,
}

impl Chunk {
    pub(crate) fn weight(&self) -> usize {
        size_of::<Chunk>() + self.columns.weight()
    }

    /// The page that begins where this one does, if it is in here.
    pub(crate) fn page(&self, limit: usize) -> Option<FilePage> {
        let len = self.columns.len();
        if limit > len && self.next.is_some() {
            return None;
        }
        let items: Vec<FileRecord> =
            (0..len.min(limit)).map(|row| self.columns.file(row)).collect();
        let next = if limit < len { items.last().map(|file| file.cursor) } else { self.next };
        Some(FilePage { items, next })
    }
}

/// Files in a row, and which of them are not in the list any more.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    columns: Arc<Columns>,
    /// A bit for each file; none = all are there.
    gone: Option<Arc<[u64]>>,
    /// Files that are there.
    files: usize,
}

impl Part {
    pub(crate) fn whole(columns: Arc<Columns>) -> Self {
        Part { files: columns.len(), columns, gone: None }
    }

    fn is_there(&self, row: usize) -> bool {
        let word = self.gone.as_ref().and_then(|gone| gone.get(row / 64));
        word.is_none_or(|word| word >> (row % 64) & 1 == 0)
    }

    fn rows(&self, from: usize) -> impl Iterator<Item = usize> {
        (from..self.columns.len()).filter(|row| self.is_there(*row))
    }

    fn without(&self, rows: &[usize]) -> Part {
        let mut gone = match &self.gone {
            Some(gone) => gone.to_vec(),
            None => vec![0_u64; self.columns.len().div_ceil(64)],
        };
        for row in rows {
            if let Some(word) = gone.get_mut(row / 64) {
                *word |= 1 << (row % 64);
            }
        }
        let left = gone.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        Part {
            columns: Arc::clone(&self.columns),
            files: self.columns.len().saturating_sub(left),
            gone: Some(gone.into()),
        }
    }
}

/// All files of a table at a version.
#[derive(Debug)]
pub(crate) struct FileList {
    pub(crate) version: Version,
    /// In the order of the cursors; none is empty.
    parts: Vec<Part>,
}

impl FileList {
    pub(crate) fn new(version: Version, parts: Vec<Part>) -> Self {
        let parts = parts.into_iter().filter(|part| part.files > 0).collect();
        FileList { version, parts }
    }

    /// Number of files.
    pub(crate) fn files(&self) -> usize {
        self.parts.iter().map(|part| part.files).sum()
    }

    pub(crate) fn weight(&self) -> usize {
        Kept { newest: self, before: None }.weight()
    }

    /// Rows of parts, after a cursor.
    fn after(&self, after: Option<FileCursor>) -> impl Iterator<Item = (&Part, usize)> {
        let first = after.map_or(0, |after| {
            self.parts.partition_point(|part| part.columns.last().is_none_or(|last| last <= after))
        });
        let parts = self.parts.get(first..).unwrap_or_default();
        parts.iter().enumerate().flat_map(move |(index, part)| {
            let from = match after {
                Some(after) if index == 0 => part.columns.after(after),
                _ => 0,
            };
            part.rows(from).map(move |row| (part, row))
        })
    }

    /// What `list_files` gives.
    pub(crate) fn page(&self, after: Option<FileCursor>, limit: usize) -> FilePage {
        let mut rows = self.after(after);
        let items: Vec<FileRecord> =
            rows.by_ref().take(limit).map(|(part, row)| part.columns.file(row)).collect();
        let next = rows.next().and_then(|_| items.last().map(|file| file.cursor));
        FilePage { items, next }
    }

    /// What `files_end` gives.
    pub(crate) fn end(&self, after: FileCursor, limit: usize) -> Option<FileCursor> {
        let mut rows = self.after(Some(after)).skip(limit.saturating_sub(1));
        let (part, row) = rows.next()?;
        rows.next().and_then(|_| part.columns.cursor(row))
    }

    /// What `files_at` gives.
    pub(crate) fn at(&self, cursors: &[FileCursor]) -> Vec<FileRecord> {
        let find = |cursor: &FileCursor| {
            let index = self
                .parts
                .partition_point(|part| part.columns.last().is_some_and(|last| last < *cursor));
            let part = self.parts.get(index)?;
            let row = part.columns.find(*cursor).filter(|row| part.is_there(*row))?;
            Some(part.columns.file(row))
        };
        cursors.iter().filter_map(find).collect()
    }
}

/// The newest list of a table, and the one before: who is reading that need not begin again.
#[derive(Debug, Clone)]
pub(crate) struct Kept<L = Arc<FileList>> {
    pub(crate) newest: L,
    pub(crate) before: Option<L>,
}

impl<L: AsRef<FileList>> Kept<L> {
    /// What is shared counts once.
    pub(crate) fn weight(&self) -> usize {
        let lists = [Some(&self.newest), self.before.as_ref()];
        let mut counted = HashSet::new();
        let mut weight = 0;
        for list in lists.into_iter().flatten() {
            let list = list.as_ref();
            weight += size_of::<FileList>();
            for part in &list.parts {
                weight += size_of::<Part>() + part.gone.as_ref().map_or(0, |gone| 8 * gone.len());
                if counted.insert(Arc::as_ptr(&part.columns)) {
                    weight += part.columns.weight();
                }
            }
        }
        weight
    }
}

impl AsRef<FileList> for FileList {
    fn as_ref(&self) -> &FileList {
        self
    }
}

impl Kept {
    /// The list of a version, if it is here.
    pub(crate) fn at(&self, version: Version) -> Option<&Arc<FileList>> {
        [Some(&self.newest), self.before.as_ref()]
            .into_iter()
            .flatten()
            .find(|list| list.version == version)
    }
}

#[cfg(test)]
mod tests;
