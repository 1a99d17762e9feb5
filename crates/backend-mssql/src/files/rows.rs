//! New rows of files as parameters, and the statements that write them.

use std::borrow::Cow;
use std::collections::HashMap;

use deltalakedb_catalog_core::action::{Add, FileKey, Remove, dv_id};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::TableId;
use deltalakedb_catalog_core::support::as_ordinal;
use tiberius::ColumnData;

use crate::rows::{big, big_opt, flag, id, key, owned, text, text_opt, to_json};
use crate::session::batch::Batch;

/// About the largest request, bytes.
const REQUEST_BYTES: usize = 8 << 20;

/// The columns of a new row, in the order of [`NewFile::values`].
pub(crate) const COLUMNS: [&str; 19] = [
    "table_id",
    "added_version",
    "ordinal",
    "removed_version",
    "is_tombstone",
    "deletion_timestamp",
    "file_key",
    "size",
    "modification_time",
    "data_change",
    "base_row_id",
    "default_row_commit_version",
    "path",
    "dv_id",
    "partition_values",
    "tags",
    "deletion_vector",
    "clustering_provider",
    "stats",
];

/// A row to insert for an `add`.
#[derive(Debug)]
pub(crate) struct NewFile<'a> {
    pub(crate) add: &'a Add,
    ordinal: i64,
    pub(crate) key: [u8; 16],
    pub(crate) dv_id: Cow<'a, str>,
    /// A later add of the same commit has the same key.
    pub(crate) superseded: bool,
    partition_values: Option<String>,
    tags: Option<String>,
    deletion_vector: Option<String>,
}

impl<'a> NewFile<'a> {
    fn new(add: &'a Add, ordinal: i64) -> Result<Self> {
        let dv_id = dv_id(add.deletion_vector.as_ref());
        Ok(NewFile {
            key: FileKey::digest_of(&add.path, &dv_id),
            ordinal,
            superseded: false,
            partition_values: Some(&add.partition_values)
                .filter(|values| !values.is_empty())
                .map(to_json)
                .transpose()?,
            tags: add.tags.as_ref().map(to_json).transpose()?,
            deletion_vector: add.deletion_vector.as_ref().map(to_json).transpose()?,
            dv_id,
            add,
        })
    }

    /// Values of the columns from `file_key` on that differ from row to row.
    fn own_values(&self) -> [ColumnData<'_>; 13] {
        [
            key(self.key),
            big(self.add.size),
            big(self.add.modification_time),
            flag(self.add.data_change),
            big_opt(self.add.base_row_id),
            big_opt(self.add.default_row_commit_version),
            text(&self.add.path),
            text(&self.dv_id),
            text_opt(self.partition_values.as_deref()),
            text_opt(self.tags.as_deref()),
            text_opt(self.deletion_vector.as_deref()),
            text_opt(self.add.clustering_provider.as_deref()),
            text_opt(self.add.stats.as_deref()),
        ]
    }

    /// The whole row, for the bulk protocol.
    pub(crate) fn values(&self, table: TableId, version: i64) -> Vec<ColumnData<'_>> {
        let removed = if self.superseded { version } else { i64::MAX };
        let mut row =
            vec![id(table), big(version), big(self.ordinal), big(removed), big(0), big_opt(None)];
        row.extend(self.own_values());
        row
    }

    pub(crate) fn longest_text(&self) -> usize {
        let stats = self.add.stats.as_deref().map_or(0, str::len);
        let json = [&self.partition_values, &self.tags, &self.deletion_vector];
        let json = json.into_iter().flatten().map(String::len).max().unwrap_or(0);
        let provider = self.add.clustering_provider.as_deref().map_or(0, str::len);
        stats.max(json).max(provider).max(self.add.path.len()).max(self.dv_id.len())
    }

    /// About how much is sent for it, bytes.
    pub(crate) fn weight(&self) -> usize {
        self.own_values().iter().map(weight).sum()
    }
}

/// About how much a parameter takes on the wire, bytes.
pub(crate) fn weight(value: &ColumnData<'_>) -> usize {
    match value {
        ColumnData::String(Some(text)) => text.len() * 2,
        ColumnData::Binary(Some(bytes)) => bytes.len(),
        _ => 16,
    }
}

/// The rows of a list of adds, numbered from `first` on. Of those with one key the last one stays.
pub(crate) fn new_files(adds: &[Add], first: i64) -> Result<Vec<NewFile<'_>>> {
    let mut rows: Vec<NewFile<'_>> = Vec::with_capacity(adds.len());
    let mut seen: HashMap<[u8; 16], usize> = HashMap::with_capacity(adds.len());
    for (position, add) in adds.iter().enumerate() {
        let row = NewFile::new(add, first.saturating_add(as_ordinal(position)?))?;
        if let Some(earlier) = seen.insert(row.key, position)
            && let Some(earlier) = rows.get_mut(earlier)
        {
            earlier.superseded = true;
        }
        rows.push(row);
    }
    Ok(rows)
}

/// How many of these rows go into one request by their size: at least one.
pub(crate) fn light(rows: &[NewFile<'_>]) -> usize {
    let mut size = 0_usize;
    let within = rows.iter().take_while(|row| {
        size = size.saturating_add(row.weight());
        size <= REQUEST_BYTES
    });
    within.count().max(1)
}

/// What stays of new rows: their number and bytes.
pub(crate) fn totals(rows: &[NewFile<'_>]) -> (i64, i64) {
    rows.iter()
        .filter(|row| !row.superseded)
        .fold((0, 0), |(files, bytes), row| (files + 1, i64::saturating_add(bytes, row.add.size)))
}

/// Which of the columns of [`NewFile::own_values`] are not null in every row: the others are
/// written as `NULL`, which spares most parameters of most commits.
fn used(rows: &[NewFile<'_>]) -> [bool; 13] {
    let mut used = [false; 13];
    for row in rows {
        for (used, value) in used.iter_mut().zip(row.own_values()) {
            *used |= !matches!(value, ColumnData::I64(None) | ColumnData::String(None));
        }
    }
    used
}

/// How many parameters a row of these takes.
pub(crate) fn parameters_per_row(rows: &[NewFile<'_>]) -> usize {
    used(rows).into_iter().filter(|used| *used).count()
}

/// Writes an `INSERT` of these rows. `table` and `version` are parameters or variables.
pub(crate) fn insert<'a>(
    batch: &mut Batch<'a>,
    rows: &'a [NewFile<'_>],
    table: &str,
    version: &str,
) {
    if rows.is_empty() {
        return;
    }
    let used = used(rows);
    batch.write(format_args!("INSERT INTO {{p}}files ({}) VALUES\n", COLUMNS.join(", ")));
    for (number, row) in rows.iter().enumerate() {
        let comma = if number == 0 { "" } else { ",\n" };
        let removed = if row.superseded { version } else { "9223372036854775807" };
        batch
            .write(format_args!("{comma}({table}, {version}, {}, {removed}, 0, NULL", row.ordinal));
        for (value, used) in row.own_values().into_iter().zip(used) {
            if used {
                let value = batch.bind(value);
                batch.write(format_args!(", {value}"));
            } else {
                batch.write(format_args!(", NULL"));
            }
        }
        batch.write(format_args!(")"));
    }
    batch.write(format_args!(";\n"));
}

/// Writes a remove: the active row of its key becomes a tombstone. How many rows it was is
/// `@@ROWCOUNT`. The key's digest is compared in the index, the key itself besides.
pub(crate) fn remove<'a>(
    batch: &mut Batch<'a>,
    remove: &'a Remove,
    table: &str,
    version: &str,
) -> Result<()> {
    let dv_id = dv_id(remove.deletion_vector.as_ref());
    let digest = batch.bind(key(FileKey::digest_of(&remove.path, &dv_id)));
    let path = batch.bind(text(&remove.path));
    let dv_id = batch.bind(owned(dv_id.into_owned()));
    let deleted = batch.bind(big(remove.deletion_timestamp.unwrap_or(0)));
    let action = batch.bind(owned(to_json(remove)?));
    batch.write(format_args!(
        "UPDATE {{p}}files SET removed_version = {version}, is_tombstone = 1, deletion_timestamp = \
         {deleted}, remove_action = {action} WHERE table_id = {table} AND file_key = {digest} AND \
         removed_version = 9223372036854775807 AND path = {path} AND dv_id = {dv_id};\n"
    ));
    Ok(())
}

/// Writes what ends the active rows whose keys were added again, after the new rows were inserted.
pub(crate) fn replace(batch: &mut Batch<'_>, rows: &[NewFile<'_>], table: &str, version: &str) {
    if rows.is_empty() {
        return;
    }
    let keys: Vec<String> = rows.iter().map(|row| batch.bind(key(row.key)).to_string()).collect();
    batch.write(format_args!(
        "UPDATE f SET removed_version = {version} FROM {{p}}files f WHERE f.table_id = {table} \
         AND f.removed_version = 9223372036854775807 AND f.added_version < {version} AND \
         f.file_key IN ({}) AND EXISTS (SELECT 1 FROM {{p}}files n WHERE n.table_id = {table} AND \
         n.added_version = {version} AND n.file_key = f.file_key AND n.path = f.path AND n.dv_id \
         = f.dv_id);\n",
        keys.join(", ")
    ));
}
