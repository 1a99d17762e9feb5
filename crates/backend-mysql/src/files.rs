//! Rows of files: how the actions of a commit change them.
//!
//! A row is in the table at `v` if `added_version <= v < removed_version`. A `remove` ends the
//! active row of its key and makes it a tombstone; an `add` whose key is active ends that row
//! without one. Of one key at most one row is active.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::action::{Add, FileKey, Remove, dv_id};
use deltalakedb_catalog_core::commit::CommitIndex;
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::later::LaterAdds;
use deltalakedb_catalog_core::support::{TOMBSTONE_ONLY, as_ordinal, count, to_json};
use sqlx::Row;

use crate::errors::DbResult;
use crate::rows::TableKey;
use crate::session::literals::{Value, list};
use crate::session::writer::Writer;
use crate::session::{Call, Session, Set};

/// Keys in one `IN (…)`. From 1,000 on MariaDB makes a table of them, and reads all files for it
/// (<https://mariadb.com/kb/en/conversion-of-big-in-predicates-into-subqueries/>).
const KEYS: usize = 900;

/// Active rows of keys. The digest is compared in the index, the key in full by [`Active`].
macro_rules! find {
    ($table:expr) => {
        concat!(
            "SELECT added_version, ordinal, size, path, dv_id
            FROM {p}files FORCE INDEX (by_key)
            WHERE table_key = ",
            $table,
            " AND removed_version = 9223372036854775807 AND file_key IN ("
        )
    };
}
/// In the message that locks the table: what its key is, is not known here yet.
const FIND_BY_ID: &str = find!("{key}");
const FIND: &str = find!("?");
const INSERT: &str = "INSERT INTO {p}files (table_key, added_version, ordinal, removed_version,
        is_tombstone, file_key, size, modification_time, data_change, base_row_id,
        default_row_commit_version, path, dv_id, partition_values, tags, deletion_vector,
        clustering_provider, stats) VALUES ";
const INSERT_TOMBSTONE: &str = "INSERT INTO {p}files (table_key, added_version, ordinal,
        removed_version, is_tombstone, deletion_timestamp, file_key, size, modification_time,
        data_change, path, dv_id, remove_action) VALUES ";
/// Rows that are ended in one statement: each statement costs as much as some rows, and where only
/// one goes into a message, a round trip.
const ENDED: usize = 200;
/// Bytes of remove actions in one statement.
const ENDED_BYTES: usize = 128 << 10;
/// Ends rows, as many as there are of `NEXT_ENDED`. `STRAIGHT_JOIN`: each is looked up by its key.
const REMOVE: [&str; 2] = [
    "UPDATE (SELECT ? AS added_version, ? AS ordinal, ? AS deleted, ? AS action",
    ") r STRAIGHT_JOIN {p}files f
        ON f.table_key = ? AND f.added_version = r.added_version AND f.ordinal = r.ordinal
    SET f.removed_version = ?, f.is_tombstone = 1, f.deletion_timestamp = r.deleted,
        f.remove_action = r.action
    WHERE f.removed_version = 9223372036854775807",
];
const NEXT_ENDED: &str = " UNION ALL SELECT ?, ?, ?, ?";
const REPLACE: &str = "UPDATE {p}files SET removed_version = ?
    WHERE table_key = ? AND added_version = ? AND ordinal = ?
      AND removed_version = 9223372036854775807";

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

impl FileDelta {
    fn plus(self, other: FileDelta) -> FileDelta {
        FileDelta {
            files: self.files.saturating_add(other.files),
            bytes: self.bytes.saturating_add(other.bytes),
            bytes_removed: self.bytes_removed.saturating_add(other.bytes_removed),
        }
    }
}

/// What to do with a remove of a file that is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownFile {
    /// Refuse the commit.
    Refuse,
    /// Keep the remove as a tombstone: logs of others contain such.
    Tombstone,
}

/// A row that is in the table.
#[derive(Debug, Clone, Copy)]
struct Place {
    added_version: i64,
    ordinal: i64,
    size: i64,
}

/// The active rows of the keys that a transaction has to do with, kept up to date by it.
#[derive(Debug, Default)]
pub(crate) struct Active {
    rows: BTreeMap<FileKey, Place>,
}

/// Keys that a commit touches.
pub(crate) fn keys(index: &CommitIndex) -> impl Iterator<Item = FileKey> + '_ {
    index.removes.iter().map(Remove::key).chain(index.adds.iter().map(Add::key))
}

/// Statements that look up keys of files in a table, in the message that locks it.
pub(crate) fn lookups_by_id(
    session: &Session,
    table: TableId,
    keys: impl IntoIterator<Item = FileKey>,
) -> Vec<String> {
    lookups(session, FIND_BY_ID, table.into(), keys)
}

fn lookups(
    session: &Session,
    find: &str,
    table: Value<'_>,
    keys: impl IntoIterator<Item = FileKey>,
) -> Vec<String> {
    let digests: Vec<[u8; 16]> =
        keys.into_iter().map(|key| FileKey::digest_of(&key.path, &key.dv_id)).collect();
    digests
        .chunks(KEYS)
        .map(|some| {
            let mut sql = session.sql(find, &[table]);
            sql.push_str(&list(some.iter().map(Value::from)));
            sql.push(')');
            sql
        })
        .collect()
}

impl Active {
    /// Takes what a statement of [`lookups_by_id`] answered.
    pub(crate) fn take(&mut self, set: &Set) -> DbResult<()> {
        for row in &set.rows {
            let place = Place {
                added_version: row.try_get(0)?,
                ordinal: row.try_get(1)?,
                size: row.try_get(2)?,
            };
            self.rows.insert(FileKey { path: row.try_get(3)?, dv_id: row.try_get(4)? }, place);
        }
        Ok(())
    }

    /// Looks keys up, many a message.
    pub(crate) async fn load(
        &mut self,
        call: &mut Call,
        table: TableKey,
        keys: impl IntoIterator<Item = FileKey>,
    ) -> DbResult<()> {
        let statements = lookups(&call.session, FIND, table.into(), keys);
        self.load_with(call, &statements).await
    }

    /// The same for statements that [`lookups_by_id`] made.
    pub(crate) async fn load_with(
        &mut self,
        call: &mut Call,
        statements: &[String],
    ) -> DbResult<()> {
        // Some 150 KB each: a few fit into the smallest packet.
        for some in statements.chunks(4) {
            for set in call.run(some.join("; ")).await? {
                self.take(&set)?;
            }
        }
        Ok(())
    }
}

/// A file that comes.
struct NewRow<'i> {
    add: &'i Add,
    key: FileKey,
    ordinal: i64,
    /// Replaced by a later action of the same commit: in no state.
    ended: bool,
}

/// How a commit changes rows, decided before anything is written.
#[derive(Default)]
pub(crate) struct Plan<'i> {
    removed: Vec<(Place, &'i Remove)>,
    replaced: Vec<Place>,
    tombstones: Vec<(i64, &'i Remove)>,
    rows: Vec<NewRow<'i>>,
    pub(crate) delta: FileDelta,
}

impl<'i> Plan<'i> {
    /// Removes first, then adds. `Err` inside is the first remove of a file that is not active.
    pub(crate) fn of(
        index: &'i CommitIndex,
        version: Version,
        active: &mut Active,
        unknown: UnknownFile,
    ) -> DbResult<Result<Plan<'i>, FileKey>> {
        let mut plan = Plan::default();
        for (position, remove) in index.removes.iter().enumerate() {
            let key = remove.key();
            if let Some(place) = active.rows.remove(&key) {
                plan.take_away(place.size);
                let removed = plan.delta.bytes_removed.saturating_add(place.size);
                plan.delta.bytes_removed = removed;
                plan.removed.push((place, remove));
            } else if unknown == UnknownFile::Refuse {
                return Ok(Err(key));
            } else {
                let size = remove.size.unwrap_or(0);
                plan.delta.bytes_removed = plan.delta.bytes_removed.saturating_add(size);
                plan.tombstones.push((as_ordinal(position)?, remove));
            }
        }
        for (position, add) in index.adds.iter().enumerate() {
            plan.add(add, as_ordinal(position)?, version, active);
        }
        Ok(Ok(plan))
    }

    /// A piece of a base or of a large commit: files whose ordinals go on from a position.
    pub(crate) fn of_piece(
        files: &'i [Add],
        mut ordinal: i64,
        tombstones: &'i [Remove],
        mut tombstone: i64,
        version: Version,
        active: &mut Active,
    ) -> Plan<'i> {
        let mut plan = Plan::default();
        for add in files {
            plan.add(add, ordinal, version, active);
            ordinal += 1;
        }
        for remove in tombstones {
            plan.tombstones.push((tombstone, remove));
            tombstone += 1;
        }
        plan
    }

    fn take_away(&mut self, size: i64) {
        self.delta.files -= 1;
        self.delta.bytes = self.delta.bytes.saturating_sub(size);
    }

    fn add(&mut self, add: &'i Add, ordinal: i64, version: Version, active: &mut Active) {
        let key = add.key();
        let place = Place { added_version: version.get(), ordinal, size: add.size };
        if let Some(before) = active.rows.insert(key.clone(), place) {
            self.take_away(before.size);
            let here = (before.added_version == version.get())
                .then(|| self.rows.iter_mut().rev().find(|row| row.ordinal == before.ordinal))
                .flatten();
            match here {
                Some(row) => row.ended = true,
                None => self.replaced.push(before),
            }
        }
        self.rows.push(NewRow { add, key, ordinal, ended: false });
        self.delta.files += 1;
        self.delta.bytes = self.delta.bytes.saturating_add(add.size);
    }

    /// Writes it, then the adds of the same commit that come in pages. What all of them changed in a table
    /// that had so many files. The rows of one page are in memory at a time.
    pub(crate) async fn write_all(
        &self,
        later: Option<&LaterAdds>,
        out: &mut Writer<'_>,
        table: TableKey,
        version: Version,
        files_before: i64,
    ) -> DbResult<FileDelta> {
        self.write(out, table, version).await?;
        let mut delta = self.delta;
        let Some(later) = later else { return Ok(delta) };
        // Without any file of before in the table, none of a page is in it: those of the index are others.
        let new = count(self.rows.iter().filter(|row| !row.ended).count());
        let look_up = files_before.saturating_add(delta.files) != new;
        let mut ordinal = as_ordinal(self.rows.len())?;
        let mut pages = later.pages()?;
        while let Some(page) = pages.next().await? {
            let mut active = Active::default();
            if look_up {
                // Rows that this transaction has begun or ended have to be found as they are by now.
                out.send().await?;
                active.load(out.call, table, page.iter().map(Add::key)).await?;
            }
            let plan = Plan::of_piece(&page, ordinal, &[], 0, version, &mut active);
            plan.write(out, table, version).await?;
            delta = delta.plus(plan.delta);
            ordinal = ordinal.saturating_add(count(page.len()));
        }
        Ok(delta)
    }

    /// Writes it.
    pub(crate) async fn write(
        &self,
        out: &mut Writer<'_>,
        table: TableKey,
        version: Version,
    ) -> DbResult<()> {
        let at = Value::Int(version.get());
        let mut rest = self.removed.as_slice();
        while !rest.is_empty() {
            let mut actions = Vec::new();
            let mut bytes = 0;
            for (_, remove) in rest.iter().take(ENDED) {
                let action = to_json(remove)?;
                bytes += action.len();
                if bytes > ENDED_BYTES && !actions.is_empty() {
                    break;
                }
                actions.push(action);
            }
            let (now, later) = rest.split_at(actions.len());
            rest = later;
            let mut values: Vec<Value<'_>> = Vec::with_capacity(now.len() * 4 + 2);
            for ((place, remove), action) in now.iter().zip(&actions) {
                values.push(place.added_version.into());
                values.push(place.ordinal.into());
                values.push(remove.deletion_timestamp.unwrap_or(0).into());
                values.push(action.into());
            }
            values.extend([table.into(), at]);
            let text = REMOVE.join(&NEXT_ENDED.repeat(now.len() - 1));
            out.push_exactly(now.len(), &text, &values).await?;
        }
        for place in &self.replaced {
            let values = [at, table.into(), place.added_version.into(), place.ordinal.into()];
            out.push_one(REPLACE, &values).await?;
        }
        for (position, remove) in &self.tombstones {
            let dv = dv_id(remove.deletion_vector.as_ref());
            let digest = FileKey::digest_of(&remove.path, &dv);
            let action = to_json(remove)?;
            let values = [
                table.into(),
                at,
                TOMBSTONE_ONLY.saturating_add(*position).into(),
                at,
                true.into(),
                remove.deletion_timestamp.unwrap_or(0).into(),
                (&digest).into(),
                remove.size.unwrap_or(0).into(),
                0.into(),
                remove.data_change.into(),
                (&remove.path).into(),
                (&*dv).into(),
                (&action).into(),
            ];
            out.row(INSERT_TOMBSTONE, &values).await?;
        }
        for row in &self.rows {
            let add = row.add;
            let digest = FileKey::digest_of(&row.key.path, &row.key.dv_id);
            let partition_values = (!add.partition_values.is_empty())
                .then(|| to_json(&add.partition_values))
                .transpose()?;
            let tags = add.tags.as_ref().map(to_json).transpose()?;
            let vector = add.deletion_vector.as_ref().map(to_json).transpose()?;
            let values = [
                table.into(),
                at,
                row.ordinal.into(),
                if row.ended { at } else { Version::NEVER.into() },
                false.into(),
                (&digest).into(),
                add.size.into(),
                add.modification_time.into(),
                add.data_change.into(),
                add.base_row_id.into(),
                add.default_row_commit_version.into(),
                (&row.key.path).into(),
                (&row.key.dv_id).into(),
                partition_values.as_deref().into(),
                tags.as_deref().into(),
                vector.as_deref().into(),
                add.clustering_provider.as_deref().into(),
                add.stats.as_deref().into(),
            ];
            out.row(INSERT, &values).await?;
        }
        Ok(())
    }
}
