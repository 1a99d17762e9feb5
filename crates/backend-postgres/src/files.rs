//! Rows of files: how the actions of a commit change them.
//!
//! A row is in the table at `v` if `added_version <= v < removed_version`. A `remove` ends the
//! active row of its key and makes it a tombstone; an `add` whose key is active ends that row
//! without one. Of one key at most one row is active: the unique index `files_active` sees to it.
//!
//! Rows travel as arrays, one parameter a column, so that neither the number of parameters nor
//! the text of the statement depends on how many there are.

use std::collections::{HashMap, HashSet};

use deltalakedb_catalog_core::action::{Add, FileKey, Remove, dv_id};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::TableId;
use deltalakedb_catalog_core::later::LaterAdds;
use deltalakedb_catalog_core::support::{TOMBSTONE_ONLY, as_ordinal, count};
use sqlx::Row;

use crate::errors::DbResult;
use crate::rows::{key, to_json};
use crate::session::{Args, Call, statements};

/// Rows in one statement of a large commit or an import.
pub(crate) const ROWS: usize = 10_000;

/// The digest that stands for a key in indexes.
pub(crate) type Digest = [u8; 16];

// Statements that write `{p}files`, for transactions that hold the table's row.
//
// The table's id comes from a sub-select where rows are looked up: the planner, who knows the value of
// a parameter, would look it up in its statistics, find that a table which is new has no rows, and read
// all active ones for each key.
statements! {
    REMOVE: concat!("WITH ended AS (
            UPDATE {p}files f SET removed_version = $2, is_tombstone = true,
                deletion_timestamp = r.deleted, remove_action = r.action
            FROM unnest($3::int8[], $4::bytea[], $5::text[], $6::text[], $7::int8[],
                $8::text[]) AS r (position, key, path, dv_id, deleted, action)
            WHERE f.table_key = ", key!(), " AND f.file_key = r.key
              AND f.removed_version = 9223372036854775807
              AND f.path = r.path AND f.dv_id = r.dv_id
            RETURNING r.position, f.size)
        SELECT position, size FROM ended"),
    REPLACE: concat!("WITH ended AS (
            UPDATE {p}files f SET removed_version = $2
            FROM unnest($3::bytea[], $4::text[], $5::text[]) AS a (key, path, dv_id)
            WHERE f.table_key = ", key!(), " AND f.file_key = a.key
              AND f.removed_version = 9223372036854775807
              AND f.path = a.path AND f.dv_id = a.dv_id
            RETURNING f.size)
        SELECT count(*), coalesce(sum(size), 0)::text FROM ended"),
    INSERT: concat!("INSERT INTO {p}files (table_key, added_version, ordinal, removed_version,
            is_tombstone, file_key, size, modification_time, data_change, base_row_id,
            default_row_commit_version, path, dv_id, partition_values, tags, deletion_vector,
            clustering_provider, stats)
        SELECT ", key!(), ", $2, a.ordinal, CASE WHEN a.ended THEN $2 ELSE 9223372036854775807 END,
            false, a.key, a.size, a.modification_time, a.data_change, a.base_row_id,
            a.default_row_commit_version, a.path, a.dv_id, a.partition_values, a.tags,
            a.deletion_vector, a.clustering_provider, a.stats
        FROM unnest($3::int8[], $4::bool[], $5::bytea[], $6::int8[], $7::int8[], $8::bool[],
            $9::int8[], $10::int8[], $11::text[], $12::text[], $13::text[], $14::text[],
            $15::text[], $16::text[], $17::text[]) AS a (ordinal, ended, key, size,
            modification_time, data_change, base_row_id, default_row_commit_version, path,
            dv_id, partition_values, tags, deletion_vector, clustering_provider, stats)"),
    INSERT_TOMBSTONES: concat!("INSERT INTO {p}files (table_key, added_version, ordinal,
            removed_version, is_tombstone, deletion_timestamp, file_key, size,
            modification_time, data_change, path, dv_id, remove_action)
        SELECT ", key!(), ", $2, r.ordinal, $2, true, r.deleted, r.key, r.size, 0, r.data_change, r.path,
            r.dv_id, r.action
        FROM unnest($3::int8[], $4::bytea[], $5::text[], $6::text[], $7::int8[], $8::text[],
            $9::int8[], $10::bool[]) AS r (ordinal, key, path, dv_id, deleted, action, size,
            data_change)"),
    /// The first of these removes whose file is not active.
    FIRST_MISSING: concat!("SELECT min(r.position)
        FROM unnest($2::int8[], $3::bytea[], $4::text[], $5::text[])
            AS r (position, key, path, dv_id)
        WHERE (
            SELECT 1 FROM {p}files f
            WHERE f.table_key = ", key!(), " AND f.file_key = r.key
              AND f.removed_version = 9223372036854775807
              AND f.path = r.path AND f.dv_id = r.dv_id
            LIMIT 1) IS NULL"),
}

/// Adds, column by column.
#[derive(Debug, Default)]
pub(crate) struct Adds<'i> {
    pub(crate) tables: Vec<i32>,
    pub(crate) ordinals: Vec<i64>,
    /// A later add of the commit has the same key: the row ends where it begins.
    pub(crate) ended: Vec<bool>,
    /// An active row of this key, if there is one, ends here.
    pub(crate) replaces: Vec<bool>,
    pub(crate) keys: Vec<Digest>,
    pub(crate) sizes: Vec<i64>,
    pub(crate) modification_times: Vec<i64>,
    pub(crate) data_changes: Vec<bool>,
    pub(crate) base_row_ids: Vec<Option<i64>>,
    pub(crate) default_row_commit_versions: Vec<Option<i64>>,
    pub(crate) paths: Vec<&'i str>,
    pub(crate) dv_ids: Vec<String>,
    pub(crate) partition_values: Vec<Option<String>>,
    pub(crate) tags: Vec<Option<String>>,
    pub(crate) deletion_vectors: Vec<Option<String>>,
    pub(crate) clustering_providers: Vec<Option<&'i str>>,
    pub(crate) stats: Vec<Option<&'i str>>,
}

/// Removes, column by column; of those with the same key in one commit only the first.
#[derive(Debug, Default)]
pub(crate) struct Removes<'i> {
    pub(crate) tables: Vec<i32>,
    pub(crate) positions: Vec<i64>,
    pub(crate) keys: Vec<Digest>,
    pub(crate) paths: Vec<&'i str>,
    pub(crate) dv_ids: Vec<String>,
    pub(crate) deleted: Vec<i64>,
    pub(crate) actions: Vec<String>,
    pub(crate) sizes: Vec<i64>,
    pub(crate) data_changes: Vec<bool>,
}

/// What a commit says about keys, before rows are made of it.
pub(crate) struct Keys {
    adds: Vec<Digest>,
    dvs: Vec<String>,
    /// For each add: whether a later one has its key.
    ended: Vec<bool>,
    /// For each add: whether it may end an active row.
    replaces: Vec<bool>,
    /// Positions of removes whose key an earlier one of the commit has.
    pub(crate) again: Vec<usize>,
    /// Number and bytes of the adds that are not `ended`.
    pub(crate) live_files: i64,
    pub(crate) live_bytes: i128,
}

impl Keys {
    /// Digests of the adds, in order.
    pub(crate) fn adds(&self) -> &[Digest] {
        &self.adds
    }

    pub(crate) fn of(adds: &[Add], removes: &[Remove]) -> Self {
        let mut removed = HashSet::with_capacity(removes.len());
        let mut again = Vec::new();
        for (position, remove) in removes.iter().enumerate() {
            if !removed.insert(remove_key(remove).0) {
                again.push(position);
            }
        }
        let mut last: HashMap<Digest, usize> = HashMap::with_capacity(adds.len());
        let mut keys = Vec::with_capacity(adds.len());
        let mut dvs = Vec::with_capacity(adds.len());
        for (position, add) in adds.iter().enumerate() {
            let dv = dv_id(add.deletion_vector.as_ref()).into_owned();
            let key = FileKey::digest_of(&add.path, &dv);
            last.insert(key, position);
            keys.push(key);
            dvs.push(dv);
        }
        let mut this = Keys {
            ended: Vec::with_capacity(adds.len()),
            replaces: Vec::with_capacity(adds.len()),
            adds: keys,
            dvs,
            again,
            live_files: 0,
            live_bytes: 0,
        };
        for (position, (add, key)) in adds.iter().zip(&this.adds).enumerate() {
            let ended = last.get(key) != Some(&position);
            this.ended.push(ended);
            // Removes apply first: what they ended is not there any more.
            this.replaces.push(!ended && !removed.contains(key));
            if !ended {
                this.live_files += 1;
                this.live_bytes += i128::from(add.size);
            }
        }
        this
    }
}

impl Keys {
    /// Of files that are known not to be in the table.
    pub(crate) fn of_new_files(mut self) -> Self {
        self.replaces.fill(false);
        self
    }
}

fn remove_key(remove: &Remove) -> (Digest, String) {
    let dv = dv_id(remove.deletion_vector.as_ref()).into_owned();
    (FileKey::digest_of(&remove.path, &dv), dv)
}

impl<'i> Adds<'i> {
    /// Adds of table number `table`, from position `from` on; ordinals begin at `offset`.
    pub(crate) fn push(
        &mut self,
        table: i32,
        adds: &'i [Add],
        keys: &Keys,
        from: usize,
        offset: usize,
    ) -> DbResult<()> {
        for (position, add) in adds.iter().enumerate().skip(from).take(ROWS) {
            self.tables.push(table);
            self.ordinals.push(as_ordinal(offset.saturating_add(position))?);
            self.ended.push(keys.ended[position]);
            self.replaces.push(keys.replaces[position]);
            self.keys.push(keys.adds[position]);
            self.sizes.push(add.size);
            self.modification_times.push(add.modification_time);
            self.data_changes.push(add.data_change);
            self.base_row_ids.push(add.base_row_id);
            self.default_row_commit_versions.push(add.default_row_commit_version);
            self.paths.push(&add.path);
            self.dv_ids.push(keys.dvs[position].clone());
            let values = Some(&add.partition_values).filter(|values| !values.is_empty());
            self.partition_values.push(values.map(to_json).transpose()?);
            self.tags.push(add.tags.as_ref().map(to_json).transpose()?);
            self.deletion_vectors.push(add.deletion_vector.as_ref().map(to_json).transpose()?);
            self.clustering_providers.push(add.clustering_provider.as_deref());
            self.stats.push(add.stats.as_deref());
        }
        Ok(())
    }

    /// From `ordinals` to `stats`, without `tables` and `replaces`.
    fn bind(&self, args: Args) -> Args {
        self.bind_values(args.bind(&self.ordinals).bind(&self.ended))
    }

    /// From `keys` on.
    pub(crate) fn bind_values(&self, args: Args) -> Args {
        args.bind(&self.keys)
            .bind(&self.sizes)
            .bind(&self.modification_times)
            .bind(&self.data_changes)
            .bind(&self.base_row_ids)
            .bind(&self.default_row_commit_versions)
            .texts("the path of an add", &self.paths)
            .owned_texts("the deletion vector of an add", &self.dv_ids)
            .bind(&self.partition_values)
            .bind(&self.tags)
            .bind(&self.deletion_vectors)
            .texts_opt("the clustering provider of an add", &self.clustering_providers)
            .texts_opt("the statistics of an add", &self.stats)
    }
}

impl<'i> Removes<'i> {
    /// A remove of table number `table`.
    pub(crate) fn push(&mut self, table: i32, position: usize, remove: &'i Remove) -> DbResult<()> {
        let (key, dv) = remove_key(remove);
        self.tables.push(table);
        self.positions.push(as_ordinal(position)?);
        self.keys.push(key);
        self.paths.push(&remove.path);
        self.dv_ids.push(dv);
        self.deleted.push(remove.deletion_timestamp.unwrap_or(0));
        self.actions.push(to_json(remove)?);
        self.sizes.push(remove.size.unwrap_or(0));
        self.data_changes.push(remove.data_change);
        Ok(())
    }

    /// Keys only.
    fn bind_keys(&self, args: Args) -> Args {
        args.bind(&self.keys)
            .texts("the path of a remove", &self.paths)
            .owned_texts("the deletion vector of a remove", &self.dv_ids)
    }

    /// From `keys` to `actions`.
    pub(crate) fn bind_values(&self, args: Args) -> Args {
        self.bind_keys(args).bind(&self.deleted).bind(&self.actions)
    }
}

/// What files of a commit changed, besides adding those that are new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Files that are not in the table any more.
    pub(crate) files: i64,
    /// Their bytes.
    pub(crate) bytes: i128,
    /// Bytes of those that removes name, as far as known.
    pub(crate) bytes_removed: i128,
}

/// Writes file rows of one version of one table in many small statements, inside of a transaction
/// that holds the table's row.
pub(crate) struct FileWriter<'c> {
    call: &'c mut Call,
    table: TableId,
    version: i64,
    pub(crate) ended: Ended,
}

impl<'c> FileWriter<'c> {
    pub(crate) fn new(call: &'c mut Call, table: TableId, version: i64) -> Self {
        FileWriter { call, table, version, ended: Ended::default() }
    }

    fn args(&self) -> Args {
        Args::of(self.table).bind(self.version)
    }

    /// Ends the files that removes name. Returns the positions of those that are not active.
    pub(crate) async fn remove(&mut self, removes: &[Remove], keys: &Keys) -> DbResult<Vec<usize>> {
        let again: HashSet<usize> = keys.again.iter().copied().collect();
        let first: Vec<usize> = (0..removes.len()).filter(|p| !again.contains(p)).collect();
        let mut missing = keys.again.clone();
        for positions in first.chunks(ROWS) {
            let mut rows = Removes::default();
            for position in positions {
                rows.push(0, *position, &removes[*position])?;
            }
            let args = rows.bind_values(self.args().bind(&rows.positions));
            let mut found = HashSet::new();
            for row in self.call.fetch(REMOVE, args).await? {
                let (position, size): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
                found.insert(position);
                self.ended.files += 1;
                self.ended.bytes += i128::from(size);
                self.ended.bytes_removed += i128::from(size);
            }
            let gone = positions.iter().zip(&rows.positions).filter(|(_, p)| !found.contains(p));
            missing.extend(gone.map(|(position, _)| *position));
        }
        missing.sort_unstable();
        Ok(missing)
    }

    /// Inserts files; ordinals begin at `offset`.
    pub(crate) async fn add(&mut self, adds: &[Add], keys: &Keys, offset: usize) -> DbResult<()> {
        let session = self.call.session.clone();
        for from in (0..adds.len()).step_by(ROWS) {
            // What this transaction has added is read again for each part.
            session.note_size(count(from.saturating_add(offset)));
            let mut rows = Adds::default();
            rows.push(0, adds, keys, from, offset)?;
            let replacing = || (0..rows.keys.len()).filter(|row| rows.replaces[*row]);
            let replaced: Vec<Digest> = replacing().map(|row| rows.keys[row]).collect();
            if !replaced.is_empty() {
                let paths: Vec<&str> = replacing().map(|row| rows.paths[row]).collect();
                let dvs: Vec<&str> = replacing().map(|row| rows.dv_ids[row].as_str()).collect();
                let args = self
                    .args()
                    .bind(&replaced)
                    .texts("the path of an add", &paths)
                    .texts("the deletion vector of an add", &dvs);
                let row = self.call.fetch_one(REPLACE, args).await?;
                self.ended.files += row.try_get::<i64, _>(0)?;
                self.ended.bytes += big(row.try_get(1)?)?;
            }
            let args = rows.bind(self.args());
            self.call.execute(INSERT, args).await?;
        }
        Ok(())
    }

    /// Inserts the files of a large commit, after `first` others. `active`: whether a file may be in the
    /// table already. Returns their number and bytes.
    pub(crate) async fn later(
        &mut self,
        later: &LaterAdds,
        mut first: usize,
        active: bool,
    ) -> DbResult<(i64, i128)> {
        let (mut files, mut bytes) = (0_i64, 0_i128);
        let mut pages = later.pages()?;
        while let Some(page) = pages.next().await? {
            let keys = Keys::of(&page, &[]);
            let keys = if active { keys } else { keys.of_new_files() };
            self.add(&page, &keys, first).await?;
            first = first.saturating_add(page.len());
            files = files.saturating_add(keys.live_files);
            bytes += keys.live_bytes;
        }
        Ok((files, bytes))
    }

    /// Keeps removes whose file is not known, as the ordinals after `offset`.
    pub(crate) async fn tombstones(
        &mut self,
        removes: &[(usize, &Remove)],
        offset: usize,
    ) -> DbResult<()> {
        for chunk in removes.chunks(ROWS) {
            let mut rows = Removes::default();
            for (position, remove) in chunk {
                rows.push(0, offset.saturating_add(*position), remove)?;
            }
            let ordinals: Vec<i64> =
                rows.positions.iter().map(|p| TOMBSTONE_ONLY.saturating_add(*p)).collect();
            let args = rows
                .bind_values(self.args().bind(&ordinals))
                .bind(&rows.sizes)
                .bind(&rows.data_changes);
            self.call.execute(INSERT_TOMBSTONES, args).await?;
        }
        Ok(())
    }
}

/// The first remove of a table whose file is not active.
pub(crate) async fn first_missing(
    call: &mut Call,
    table: TableId,
    removes: &[Remove],
    keys: &Keys,
) -> DbResult<Option<usize>> {
    let mut first = keys.again.first().copied();
    for from in (0..removes.len()).step_by(ROWS) {
        let mut rows = Removes::default();
        for (position, remove) in removes.iter().enumerate().skip(from).take(ROWS) {
            rows.push(0, position, remove)?;
        }
        let args = rows.bind_keys(Args::of(table).bind(&rows.positions));
        let found: Option<i64> = call.fetch_one(FIRST_MISSING, args).await?.try_get(0)?;
        if let Some(position) = found.and_then(|position| usize::try_from(position).ok()) {
            first = Some(first.map_or(position, |first| first.min(position)));
            break;
        }
    }
    Ok(first)
}

/// A sum that may not fit 64 bits, which travels as text.
pub(crate) fn big(text: &str) -> DbResult<i128> {
    text.parse().map_err(|_| {
        CatalogError::corrupt(format!("a sum of sizes in the database is no number: {text:?}"))
            .into()
    })
}

/// A sum of sizes as a signed column holds and reports it.
pub(crate) fn reported(bytes: i128) -> i64 {
    i64::try_from(bytes.clamp(0, i128::from(i64::MAX))).unwrap_or(i64::MAX)
}
