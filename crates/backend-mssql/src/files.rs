//! Rows of files: how the actions of a commit change them.
//!
//! A row is in the table at `v` if `added_version <= v < removed_version`. A `remove` ends the
//! active row of its key and makes it a tombstone; an `add` whose key is active ends that row
//! without one. Of one key at most one row is active.

use std::collections::{HashMap, HashSet};

use deltalakedb_catalog_core::action::{Add, FileKey, Remove, dv_id};
use deltalakedb_catalog_core::commit::CommitIndex;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::TableId;
use deltalakedb_catalog_core::support::{TOMBSTONE_ONLY, as_ordinal, count};

use crate::errors::DbResult;
use crate::files::rows::{COLUMNS, NewFile, insert, light, new_files, parameters_per_row, totals};
use crate::rows::text::statements;
use crate::rows::{Reader, big, flag, id, key, owned, text, to_json};
use crate::session::Lease;
use crate::session::batch::{Batch, MAX_PARAMETERS, MAX_VALUES};

pub(crate) mod rows;

/// Keys that are looked up in one request.
const KEYS: usize = 1000;
/// If at least one in so many active rows is looked for, all are read.
const SCAN_FROM_PART: i64 = 8;
/// Rows in one page of them.
const SCAN_PAGE: usize = 20_000;
/// Removes or ended rows in one request.
const UPDATES: usize = 400;
/// From so many rows on the bulk protocol is used: below, its extra requests cost more.
const BULK_ROWS: usize = 1000;
/// Longest text that goes by the bulk protocol, UTF-16 units: the driver refuses 64 KiB and more.
const BULK_TEXT: usize = 32_000;

statements! {
    INSERT_TOMBSTONE: "INSERT INTO {p}files (table_id, added_version, ordinal,
            removed_version, is_tombstone, deletion_timestamp, file_key, size,
            modification_time, data_change, path, dv_id, remove_action)
        VALUES (@P1, @P2, @P3, @P2, 1, @P4, @P5, @P6, 0, @P7, @P8, @P9, @P10)",
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

/// A row that is in the table now.
#[derive(Debug, Clone, Copy)]
struct Active {
    added_version: i64,
    ordinal: i64,
    size: i64,
}

/// Applies actions in a transaction of several requests, which holds the table's row: nobody else
/// changes its files meanwhile.
pub(crate) struct FileWriter {
    pub(crate) table: TableId,
    pub(crate) version: i64,
}

impl FileWriter {
    /// Applies a commit to a table with so many files (none: its first version): removes first,
    /// then adds. `Err` inside is the first remove of a file that
    /// is not active.
    pub(crate) async fn apply(
        &self,
        lease: &mut Lease,
        index: &CommitIndex,
        unknown: UnknownFile,
        total_files: Option<i64>,
    ) -> DbResult<Result<FileDelta, FileKey>> {
        let added = new_files(&index.adds, 0)?;
        let mut keys: Vec<[u8; 16]> = added.iter().map(|row| row.key).collect();
        let removed: Vec<FileKey> = index.removes.iter().map(Remove::key).collect();
        keys.extend(removed.iter().map(FileKey::digest));
        let mut active = match total_files {
            None => HashMap::new(),
            Some(total) => self.active(lease, keys, total).await?,
        };
        let mut delta = FileDelta::default();
        let mut ended: Vec<(Active, &Remove)> = Vec::new();
        let mut unknown_files = Vec::new();
        for (position, (remove, key)) in index.removes.iter().zip(removed).enumerate() {
            if let Some(row) = active.remove(&key) {
                delta.files -= 1;
                delta.bytes = delta.bytes.saturating_sub(row.size);
                delta.bytes_removed = delta.bytes_removed.saturating_add(row.size);
                ended.push((row, remove));
            } else if unknown == UnknownFile::Refuse {
                return Ok(Err(key));
            } else {
                let size = remove.size.unwrap_or(0);
                delta.bytes_removed = delta.bytes_removed.saturating_add(size);
                unknown_files.push((position, remove));
            }
        }
        self.end_removed(lease, &ended).await?;
        for (position, remove) in unknown_files {
            self.tombstone(lease, remove, as_ordinal(position)?).await?;
        }
        let replaced = self.add(lease, &added, active).await?;
        delta.files += replaced.files;
        delta.bytes = delta.bytes.saturating_add(replaced.bytes);
        Ok(Ok(delta))
    }

    /// Inserts files of an import's base, numbered from `first` on.
    pub(crate) async fn base(
        &self,
        lease: &mut Lease,
        adds: &[Add],
        first: i64,
    ) -> DbResult<FileDelta> {
        let added = new_files(adds, first)?;
        let keys = added.iter().map(|row| row.key).collect();
        let active = self.active(lease, keys, i64::MAX).await?;
        self.add(lease, &added, active).await
    }

    async fn add(
        &self,
        lease: &mut Lease,
        added: &[NewFile<'_>],
        active: HashMap<FileKey, Active>,
    ) -> DbResult<FileDelta> {
        let (files, bytes) = totals(added);
        let mut delta = FileDelta { files, bytes, bytes_removed: 0 };
        let mut replaced = Vec::new();
        if !active.is_empty() {
            for row in added {
                let key = FileKey { path: row.add.path.clone(), dv_id: row.dv_id.to_string() };
                if let Some(old) = active.get(&key).filter(|_| !row.superseded) {
                    delta.files -= 1;
                    delta.bytes = delta.bytes.saturating_sub(old.size);
                    replaced.push(*old);
                }
            }
        }
        self.end_replaced(lease, &replaced).await?;
        self.insert_all(lease, added).await?;
        Ok(delta)
    }

    /// The active rows of these keys: looked up, or picked from all of the table's active rows where
    /// the keys are a good part of these rows.
    async fn active(
        &self,
        lease: &mut Lease,
        keys: Vec<[u8; 16]>,
        total_files: i64,
    ) -> DbResult<HashMap<FileKey, Active>> {
        let looked_up = count(keys.len());
        if keys.len() > KEYS && looked_up.saturating_mul(SCAN_FROM_PART) >= total_files {
            return self.active_of_all(lease, keys.into_iter().collect()).await;
        }
        let mut active = HashMap::new();
        for keys in keys.chunks(KEYS) {
            let mut batch = Batch::new();
            let table = batch.bind(id(self.table));
            let keys: Vec<String> =
                keys.iter().map(|digest| batch.bind(key(*digest)).to_string()).collect();
            batch.write(format_args!(
                "SELECT added_version, ordinal, size, path, dv_id FROM {{p}}files WHERE table_id = \
                 {table} AND removed_version = 9223372036854775807 AND file_key IN ({})",
                keys.join(", ")
            ));
            let sets = lease.run(&batch.sql, batch.values).await?;
            for row in sets.iter().flatten() {
                let (key, row) = self.active_row(row)?;
                active.insert(key, row);
            }
        }
        Ok(active)
    }

    /// The same by one pass over the table's active rows, in pages.
    async fn active_of_all(
        &self,
        lease: &mut Lease,
        keys: HashSet<[u8; 16]>,
    ) -> DbResult<HashMap<FileKey, Active>> {
        let statement = format!(
            "SELECT TOP ({SCAN_PAGE}) added_version, ordinal, size, path, dv_id FROM {{p}}files \
             WHERE table_id = @P1 AND removed_version = 9223372036854775807 AND (added_version > \
             @P2 OR (added_version = @P2 AND ordinal > @P3)) ORDER BY added_version, ordinal"
        );
        let mut active = HashMap::new();
        let mut after = (-1, -1);
        loop {
            let values = vec![id(self.table), big(after.0), big(after.1)];
            let sets = lease.run(&statement, values).await?;
            let mut rows = 0;
            for row in sets.iter().flatten() {
                let (key, row) = self.active_row(row)?;
                after = (row.added_version, row.ordinal);
                rows += 1;
                if keys.contains(&key.digest()) {
                    active.insert(key, row);
                }
            }
            if rows < SCAN_PAGE {
                return Ok(active);
            }
        }
    }

    fn active_row(&self, row: &tiberius::Row) -> DbResult<(FileKey, Active)> {
        let called = self.table.to_string();
        let r = Reader::new(row, &called, None);
        let key = FileKey { path: r.text(3)?, dv_id: r.text(4)? };
        Ok((key, Active { added_version: r.i64(0)?, ordinal: r.i64(1)?, size: r.i64(2)? }))
    }

    /// Makes tombstones of rows.
    async fn end_removed(&self, lease: &mut Lease, ended: &[(Active, &Remove)]) -> DbResult<()> {
        for ended in ended.chunks(UPDATES) {
            let mut batch = Batch::new();
            let (table, version) = (batch.bind(id(self.table)), batch.bind(big(self.version)));
            let mut rows = Vec::with_capacity(ended.len());
            for (row, remove) in ended {
                let added = batch.bind(big(row.added_version));
                let ordinal = batch.bind(big(row.ordinal));
                let deleted = batch.bind(big(remove.deletion_timestamp.unwrap_or(0)));
                let action = batch.bind(owned(to_json(remove)?));
                rows.push(format!("({added}, {ordinal}, {deleted}, {action})"));
            }
            batch.write(format_args!(
                "UPDATE f SET removed_version = {version}, is_tombstone = 1, deletion_timestamp = \
                 r.deleted, remove_action = r.action FROM {{p}}files f INNER JOIN (VALUES {}) AS r \
                 (added_version, ordinal, deleted, action) ON f.added_version = r.added_version \
                 AND f.ordinal = r.ordinal WHERE f.table_id = {table};\n",
                rows.join(", ")
            ));
            lease.run(&batch.sql, batch.values).await?;
        }
        Ok(())
    }

    /// Ends rows without a tombstone.
    async fn end_replaced(&self, lease: &mut Lease, ended: &[Active]) -> DbResult<()> {
        for ended in ended.chunks(UPDATES) {
            let mut batch = Batch::new();
            let (table, version) = (batch.bind(id(self.table)), batch.bind(big(self.version)));
            let mut rows = Vec::with_capacity(ended.len());
            for row in ended {
                let added = batch.bind(big(row.added_version));
                let ordinal = batch.bind(big(row.ordinal));
                rows.push(format!("({added}, {ordinal})"));
            }
            batch.write(format_args!(
                "UPDATE f SET removed_version = {version} FROM {{p}}files f INNER JOIN (VALUES \
                 {}) AS r (added_version, ordinal) ON f.added_version = r.added_version AND \
                 f.ordinal = r.ordinal WHERE f.table_id = {table};\n",
                rows.join(", ")
            ));
            lease.run(&batch.sql, batch.values).await?;
        }
        Ok(())
    }

    /// Inserts rows: many by the bulk protocol, the others in lists of values.
    async fn insert_all(&self, lease: &mut Lease, rows: &[NewFile<'_>]) -> DbResult<()> {
        let many = lease.bulk_allowed() && rows.len() >= BULK_ROWS;
        let fits = |row: &&NewFile<'_>| many && row.longest_text() <= BULK_TEXT;
        if many {
            let values =
                rows.iter().filter(fits).map(|row| Ok(row.values(self.table, self.version)));
            let answer = lease.bulk("{p}files", &COLUMNS, values).await;
            if let Err(error) = &answer
                && error.speaks_against_bulk()
            {
                tracing::warn!(?error, "a bulk load failed: files go in lists from now on");
                lease.give_bulk_up();
            }
            answer?;
        }
        let mut rest = rows;
        while !rest.is_empty() {
            let skipped = rest.iter().take_while(|row| fits(row)).count();
            rest = rest.get(skipped..).unwrap_or_default();
            let candidates = rest.iter().take(MAX_VALUES).take_while(|row| !fits(row)).count();
            let candidates = rest.get(..candidates).unwrap_or_default();
            if candidates.is_empty() {
                continue;
            }
            let most = (MAX_PARAMETERS - 2) / parameters_per_row(candidates).max(1);
            let most = most.min(candidates.len()).min(light(candidates));
            let rows = candidates.get(..most).unwrap_or_default();
            let mut batch = Batch::new();
            let table = batch.bind(id(self.table)).to_string();
            let version = batch.bind(big(self.version)).to_string();
            insert(&mut batch, rows, &table, &version);
            lease.run(&batch.sql, batch.values).await?;
            rest = rest.get(rows.len()..).unwrap_or_default();
        }
        Ok(())
    }

    /// Keeps a remove whose file is not known.
    pub(crate) async fn tombstone(
        &self,
        lease: &mut Lease,
        remove: &Remove,
        position: i64,
    ) -> DbResult<()> {
        let dv_id = dv_id(remove.deletion_vector.as_ref());
        let values = vec![
            id(self.table),
            big(self.version),
            big(TOMBSTONE_ONLY.saturating_add(position)),
            big(remove.deletion_timestamp.unwrap_or(0)),
            key(FileKey::digest_of(&remove.path, &dv_id)),
            big(remove.size.unwrap_or(0)),
            flag(remove.data_change),
            text(&remove.path),
            text(&dv_id),
            owned(to_json(remove)?),
        ];
        lease.run(INSERT_TOMBSTONE, values).await?;
        Ok(())
    }
}
