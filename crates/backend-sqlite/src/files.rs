//! Rows of files: how the actions of a commit change them.
//!
//! A row is in the table at `v` if `added_version <= v < removed_version`. A `remove` ends the
//! active row of its key and makes it a tombstone; an `add` whose key is active ends that row
//! without one. Of one key at most one row is active.

use deltalakedb_catalog_core::action::{Add, FileKey, NullableMap, Remove, dv_id};
use deltalakedb_catalog_core::commit::CommitIndex;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::later::LaterAdds;
use deltalakedb_catalog_core::support::{TOMBSTONE_ONLY, as_ordinal};
use rusqlite::{CachedStatement, params};
use serde::Serialize;

use crate::errors::{DbError, DbResult};
use crate::rows::text::statements;
use crate::rows::{Table, to_json};
use crate::session::Db;

statements! {
    /// The active row of a key. The key's digest is compared in the index, the key in full.
    FIND: "SELECT rowid, size FROM {p}files INDEXED BY {p}files_by_key
        WHERE table_key = ?1 AND file_key = ?2 AND removed_version = 9223372036854775807
          AND path = ?3 AND dv_id = ?4",
    INSERT: "INSERT INTO {p}files (table_key, added_version, ordinal, removed_version,
            is_tombstone, file_key, size, modification_time, data_change, base_row_id,
            default_row_commit_version, path, dv_id, partition_values, tags, deletion_vector,
            clustering_provider, stats)
        VALUES (?1, ?2, ?3, 9223372036854775807, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13,
            ?14, ?15, ?16)",
    REPLACE: "UPDATE {p}files SET removed_version = ?2 WHERE rowid = ?1",
    REMOVE: "UPDATE {p}files SET removed_version = ?2, is_tombstone = 1,
            deletion_timestamp = ?3, remove_action = ?4
        WHERE rowid = ?1",
    INSERT_TOMBSTONE: "INSERT INTO {p}files (table_key, added_version, ordinal,
            removed_version, is_tombstone, deletion_timestamp, file_key, size,
            modification_time, data_change, path, dv_id, remove_action)
        VALUES (?1, ?2, ?3, ?2, 1, ?4, ?5, ?6, 0, ?7, ?8, ?9, ?10)",
}

/// What the files of a commit changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FileDelta {
    /// Files in the table, more or less.
    pub(crate) files: i64,
    /// Bytes in the table, more or less.
    pub(crate) bytes: i64,
    /// Bytes of removed files, as far as known.
    pub(crate) bytes_removed: i64,
}

/// What to do with a remove of a file that is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownFile {
    /// Refuse the commit.
    Refuse,
    /// Keep the remove as a tombstone: logs of others contain such.
    Tombstone,
}

/// Writes file rows of one version of one table, with everything prepared once.
pub(crate) struct FileWriter<'a> {
    find: CachedStatement<'a>,
    insert: CachedStatement<'a>,
    replace: CachedStatement<'a>,
    remove: CachedStatement<'a>,
    insert_tombstone: CachedStatement<'a>,
    table: Table,
    version: i64,
    json: Vec<u8>,
    delta: FileDelta,
}

impl<'a> FileWriter<'a> {
    pub(crate) fn new(db: Db<'a>, table: Table, version: i64) -> DbResult<Self> {
        let mut insert = db.prepare(INSERT)?;
        let mut find = db.prepare(FIND)?;
        // Bindings stay from one run of a statement to the next: these two are bound once.
        insert.raw_bind_parameter(1, table.key)?;
        insert.raw_bind_parameter(2, version)?;
        find.raw_bind_parameter(1, table.key)?;
        Ok(FileWriter {
            find,
            insert,
            replace: db.prepare(REPLACE)?,
            remove: db.prepare(REMOVE)?,
            insert_tombstone: db.prepare(INSERT_TOMBSTONE)?,
            table,
            version,
            json: Vec::new(),
            delta: FileDelta::default(),
        })
    }

    /// Applies a commit: removes first, then adds. `Err` inside is the first remove of a file that
    /// is not active.
    pub(crate) fn apply(
        &mut self,
        index: &CommitIndex,
        unknown: UnknownFile,
    ) -> DbResult<Result<(), FileKey>> {
        for (position, remove) in index.removes.iter().enumerate() {
            if !self.remove(remove, as_ordinal(position)?, unknown)? {
                return Ok(Err(remove.key()));
            }
        }
        for (position, add) in index.adds.iter().enumerate() {
            self.add(add, as_ordinal(position)?)?;
        }
        Ok(Ok(()))
    }

    /// Inserts the files of a large commit, after `first` others. `active`: whether a file may be in the
    /// table already.
    pub(crate) fn later(&mut self, later: &LaterAdds, first: usize, active: bool) -> DbResult<()> {
        let mut ordinal = as_ordinal(first)?;
        let mut pages = later.pages()?;
        while let Some(page) = pages.blocking_next()? {
            for add in page.iter() {
                let dv_id = dv_id(add.deletion_vector.as_ref());
                let key = FileKey::digest_of(&add.path, &dv_id);
                if active {
                    self.end(add, &key, &dv_id)?;
                }
                self.insert(add, &key, &dv_id, ordinal)?;
                ordinal = ordinal.saturating_add(1);
            }
        }
        Ok(())
    }

    /// What was changed so far.
    pub(crate) fn delta(&self) -> FileDelta {
        self.delta
    }

    fn find(&mut self, key: &[u8; 16], path: &str, dv_id: &str) -> DbResult<Option<(i64, i64)>> {
        self.find.raw_bind_parameter(2, &key[..])?;
        self.find.raw_bind_parameter(3, path)?;
        self.find.raw_bind_parameter(4, dv_id)?;
        let mut rows = self.find.raw_query();
        Ok(match rows.next()? {
            Some(row) => Some((row.get(0)?, row.get(1)?)),
            None => None,
        })
    }

    /// Inserts a file.
    pub(crate) fn add(&mut self, add: &Add, ordinal: i64) -> DbResult<()> {
        let dv_id = dv_id(add.deletion_vector.as_ref());
        let key = FileKey::digest_of(&add.path, &dv_id);
        self.end(add, &key, &dv_id)?;
        self.insert(add, &key, &dv_id, ordinal)
    }

    /// Ends the row of a file that is active.
    fn end(&mut self, add: &Add, key: &[u8; 16], dv_id: &str) -> DbResult<()> {
        if let Some((row, size)) = self.find(key, &add.path, dv_id)? {
            self.replace.execute(params![row, self.version])?;
            self.delta.files -= 1;
            self.delta.bytes = self.delta.bytes.saturating_sub(size);
        }
        Ok(())
    }

    fn insert(&mut self, add: &Add, key: &[u8; 16], dv_id: &str, ordinal: i64) -> DbResult<()> {
        let json = &mut self.json;
        let insert = &mut self.insert;
        insert.raw_bind_parameter(3, ordinal)?;
        insert.raw_bind_parameter(4, &key[..])?;
        insert.raw_bind_parameter(5, add.size)?;
        insert.raw_bind_parameter(6, add.modification_time)?;
        insert.raw_bind_parameter(7, add.data_change)?;
        insert.raw_bind_parameter(8, add.base_row_id)?;
        insert.raw_bind_parameter(9, add.default_row_commit_version)?;
        insert.raw_bind_parameter(10, &add.path)?;
        insert.raw_bind_parameter(11, dv_id)?;
        let partition_values = Some(&add.partition_values).filter(|values| !values.is_empty());
        insert.raw_bind_parameter(12, json_text(json, partition_values)?)?;
        insert.raw_bind_parameter(13, json_text::<NullableMap>(json, add.tags.as_ref())?)?;
        insert.raw_bind_parameter(14, json_text(json, add.deletion_vector.as_ref())?)?;
        insert.raw_bind_parameter(15, add.clustering_provider.as_deref())?;
        insert.raw_bind_parameter(16, add.stats.as_deref())?;
        insert.raw_execute()?;
        self.delta.files += 1;
        self.delta.bytes = self.delta.bytes.saturating_add(add.size);
        Ok(())
    }

    /// Ends a file. False if it is not active and that is refused.
    fn remove(&mut self, remove: &Remove, position: i64, unknown: UnknownFile) -> DbResult<bool> {
        let dv_id = dv_id(remove.deletion_vector.as_ref());
        let key = FileKey::digest_of(&remove.path, &dv_id);
        let Some((row, size)) = self.find(&key, &remove.path, &dv_id)? else {
            if unknown == UnknownFile::Refuse {
                return Ok(false);
            }
            let size = remove.size.unwrap_or(0);
            self.delta.bytes_removed = self.delta.bytes_removed.saturating_add(size);
            self.tombstone(remove, position)?;
            return Ok(true);
        };
        let deleted = remove.deletion_timestamp.unwrap_or(0);
        self.remove.execute(params![row, self.version, deleted, to_json(remove)?])?;
        self.delta.files -= 1;
        self.delta.bytes = self.delta.bytes.saturating_sub(size);
        self.delta.bytes_removed = self.delta.bytes_removed.saturating_add(size);
        Ok(true)
    }

    /// Keeps a remove whose file is not known.
    pub(crate) fn tombstone(&mut self, remove: &Remove, position: i64) -> DbResult<()> {
        let dv_id = dv_id(remove.deletion_vector.as_ref());
        self.insert_tombstone.execute(params![
            self.table.key,
            self.version,
            TOMBSTONE_ONLY.saturating_add(position),
            remove.deletion_timestamp.unwrap_or(0),
            &FileKey::digest_of(&remove.path, &dv_id)[..],
            remove.size.unwrap_or(0),
            remove.data_change,
            remove.path,
            &*dv_id,
            to_json(remove)?,
        ])?;
        Ok(())
    }
}

/// JSON in a buffer that is used again; SQLite copies what is bound.
fn json_text<'b, T: Serialize>(
    buffer: &'b mut Vec<u8>,
    value: Option<&T>,
) -> DbResult<Option<&'b str>> {
    let Some(value) = value else { return Ok(None) };
    buffer.clear();
    serde_json::to_writer(&mut *buffer, value).map_err(|e| {
        DbError::Catalog(CatalogError::invalid(format!("cannot be written as JSON: {e}")))
    })?;
    std::str::from_utf8(buffer)
        .map(Some)
        .map_err(|e| DbError::Catalog(CatalogError::invalid(format!("JSON is not UTF-8: {e}"))))
}
