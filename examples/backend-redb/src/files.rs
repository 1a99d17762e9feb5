//! Files and tombstones: rows by cursor, and a second key by the digest of what the file is.

use deltalakedb_catalog_core::action::{Add, FileKey, Remove};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::model::{FileCursor, FileRecord, TombstoneRecord};
use deltalakedb_catalog_core::support::{TOMBSTONE_ONLY, as_ordinal};
use redb::ReadableTable;

use crate::rows::TableRow;
use crate::store::{Entry, Key, Rows, Space, WriteRows};

fn keyed(id: TableId, key: &FileKey) -> Key {
    Key::of(Space::FileKey, id).bytes(&key.digest())
}

fn at(space: Space, id: TableId, cursor: FileCursor) -> Key {
    Key::of(space, id).cursor(cursor)
}

/// A file's row, if the file is in the table at a version.
pub(crate) fn in_force(entry: &Entry, version: Version) -> Result<Option<FileRecord>> {
    let (removed, add): (i64, Add) = entry.json()?;
    let cursor = entry.cursor()?;
    Ok((removed > version.get()).then_some(FileRecord { cursor, add }))
}

/// A tombstone's row.
pub(crate) fn tombstone(entry: &Entry) -> Result<TombstoneRecord> {
    let (removed_version, remove) = entry.json()?;
    Ok(TombstoneRecord { cursor: entry.cursor()?, removed_version, remove })
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    /// The file at a cursor, if it is in the table at a version.
    pub(crate) fn file_at(
        &self,
        id: TableId,
        version: Version,
        cursor: FileCursor,
    ) -> Result<Option<FileRecord>> {
        let file: Option<(i64, Add)> = self.get(&at(Space::File, id, cursor))?;
        let in_force = |removed| cursor.added_version <= version && removed > version.get();
        Ok(file
            .filter(|(removed, _)| in_force(*removed))
            .map(|(_, add)| FileRecord { cursor, add }))
    }

    /// The file of a key at the head. The last row that was added is looked at first.
    fn active(&self, id: TableId, key: &FileKey) -> Result<Option<(FileCursor, Add)>> {
        for entry in self.all(keyed(id, key))?.rev() {
            let cursor = entry?.cursor()?;
            let file: Option<(i64, Add)> = self.get(&at(Space::File, id, cursor))?;
            // Digests may be equal where keys are not.
            let found = file.filter(|(until, add)| *until == Version::NEVER && add.key() == *key);
            if let Some((_, add)) = found {
                return Ok(Some((cursor, add)));
            }
        }
        Ok(None)
    }

    /// Whether a checkpoint of a version does not carry a tombstone: the file is there again, or was removed
    /// again, by that version.
    pub(crate) fn is_superseded(
        &self,
        id: TableId,
        version: Version,
        tombstone: &TombstoneRecord,
    ) -> Result<bool> {
        let key = tombstone.remove.key();
        for entry in self.all(keyed(id, &key))? {
            let cursor = entry?.cursor()?;
            if self.file_at(id, version, cursor)?.is_some_and(|file| file.add.key() == key) {
                return Ok(true);
            }
            let other: Option<(Version, Remove)> = self.get(&at(Space::Tombstone, id, cursor))?;
            let place = (tombstone.removed_version, tombstone.cursor);
            let later = |at: Version| at <= version && (at, cursor) > place;
            if other.is_some_and(|(at, remove)| later(at) && remove.key() == key) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl WriteRows<'_> {
    /// Adds a file; an active file of the same key ends here without a tombstone.
    pub(crate) fn add_file(
        &mut self,
        table: &mut TableRow,
        version: Version,
        position: usize,
        add: &Add,
    ) -> Result<()> {
        let (id, key) = (table.record.id, add.key());
        let cursor = FileCursor { added_version: version, ordinal: as_ordinal(position)? };
        if let Some((old, replaced)) = self.active(id, &key)? {
            self.end_file(table, old, &replaced, version)?;
        }
        table.files += 1;
        table.bytes += i128::from(add.size);
        self.put_bytes(&keyed(id, &key).cursor(cursor), &[])?;
        self.put(&at(Space::File, id, cursor), &(Version::NEVER, add))
    }

    fn end_file(
        &mut self,
        table: &mut TableRow,
        cursor: FileCursor,
        add: &Add,
        version: Version,
    ) -> Result<()> {
        table.files = table.files.saturating_sub(1);
        table.bytes -= i128::from(add.size);
        self.put(&at(Space::File, table.record.id, cursor), &(version, add))
    }

    /// Removes a file and keeps its tombstone. The bytes that it had; none, with nothing changed, if it is not
    /// active.
    pub(crate) fn remove_file(
        &mut self,
        table: &mut TableRow,
        version: Version,
        remove: &Remove,
    ) -> Result<Option<i64>> {
        let id = table.record.id;
        let Some((cursor, add)) = self.active(id, &remove.key())? else { return Ok(None) };
        self.end_file(table, cursor, &add, version)?;
        self.put(&at(Space::Tombstone, id, cursor), &(version, remove))?;
        Ok(Some(add.size))
    }

    /// A tombstone of a file that nothing else is known about.
    pub(crate) fn add_tombstone(
        &mut self,
        id: TableId,
        version: Version,
        position: usize,
        remove: &Remove,
    ) -> Result<()> {
        let ordinal = TOMBSTONE_ONLY.saturating_add(as_ordinal(position)?);
        let cursor = FileCursor { added_version: version, ordinal };
        self.put_bytes(&keyed(id, &remove.key()).cursor(cursor), &[])?;
        self.put(&at(Space::Tombstone, id, cursor), &(version, remove))
    }
}
