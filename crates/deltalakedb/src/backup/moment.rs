//! What a catalog held at a time, from a set that was taken later.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use deltalakedb_catalog_core::backend::CommittedTable;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{TableRecord, TableState};
use deltalakedb_catalog_core::support::batches as batches_of;
use sha2::{Digest, Sha256};

use super::format::TableEntry;
use super::heads::lower;
use super::read::{Chain, Item};
use super::report::Notice;
use crate::copy::Limits;

/// A catalog at a time.
#[derive(Default)]
pub(super) struct Moment {
    pub(super) tables: Vec<Arc<TableEntry>>,
    pub(super) left_out: Vec<Notice>,
    pub(super) notes: Vec<Notice>,
}

fn is_there(heads: &HashMap<TableId, Option<Version>>, record: &TableRecord) -> bool {
    heads.get(&record.id).copied().flatten().is_some_and(|head| head >= record.base_version)
}

/// Rows of the tables as of a time: commits up to it by their timestamps, and transactions over several
/// tables whole or not at all. With each table that was not there yet, why. Takes some 50 bytes of
/// memory for each commit.
///
/// # Errors
/// `Corrupt`; those of the store.
pub(super) async fn at(chain: &Arc<Chain>, time: TimestampMs) -> Result<Moment> {
    let mut heads: HashMap<TableId, Option<Version>> = HashMap::new();
    let mut commits: Vec<(u128, u32, Version, TimestampMs, u32)> = Vec::new();
    for (number, table) in (0_u32..).zip(&chain.tables) {
        let record = &table.record;
        let stored = chain.table(record, table.from_json, Limits::default())?;
        let mut walk = stored.walk(None);
        let mut head = None;
        while let Some(item) = walk.next().await? {
            let commit = match item {
                Item::Commit(record, _) | Item::BaseRecord(record) => record,
                Item::BaseEnd(tail) => {
                    head = Some(record.base_version).filter(|_| tail.timestamp <= time).or(head);
                    continue;
                }
                Item::File(_) | Item::Tombstone(_) => continue,
            };
            if commit.timestamp <= time {
                head = Some(commit.version);
            }
            if let Some(token) = commit.token {
                let place = commit.batch_position.unwrap_or_default();
                let hash = hash(token.as_str());
                commits.push((hash, number, commit.version, commit.timestamp, place));
            }
        }
        // Registered later, whatever the times of the commits that it brought.
        heads.insert(record.id, head.filter(|_| record.created_at <= time));
    }
    // Neighbours with one token are the parts of one transaction.
    commits.sort_unstable();
    let id = |number: u32| {
        let table = usize::try_from(number).ok().and_then(|number| chain.tables.get(number));
        table.map(|table| table.record.id)
    };
    let batches: Vec<Vec<(TableId, Version)>> = commits
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|batch| batch.len() > 1)
        .flat_map(|parts| {
            let part = |&(_, number, version, timestamp, place): &(_, _, _, _, u32)| {
                let table_id = id(number)?;
                Some((i64::from(place), CommittedTable { table_id, version, timestamp }))
            };
            batches_of(parts.iter().filter_map(part).collect())
        })
        .map(|batch| batch.into_iter().map(|part| (part.table_id, part.version)).collect())
        .collect();
    drop(commits);
    lower(&mut heads, &batches);
    let mut names: BTreeSet<TableName> = chain
        .tables
        .iter()
        .filter(|table| table.record.state == TableState::Active && is_there(&heads, &table.record))
        .map(|table| table.record.name.clone())
        .collect();
    let mut found = Moment::default();
    // Dropped ones come in the order in which they were dropped: the first one had the name.
    for table in &chain.tables {
        let record = &table.record;
        let name = || record.name.clone();
        let head = heads.get(&record.id).copied().flatten();
        let Some(head) = head.filter(|head| *head >= record.base_version) else {
            let why = match head {
                None => "it had no version at that time".to_owned(),
                Some(_) => format!(
                    "its first version that can be read, {}, is of a later time",
                    record.base_version
                ),
            };
            found.left_out.push(Notice { name: name(), why });
            continue;
        };
        let mut table = TableEntry::clone(table);
        table.record.head = Some(head);
        table.record.published_version = record.published_version.min(Some(head));
        if record.dropped_at.is_some_and(|dropped_at| dropped_at > time) {
            if names.insert(name()) {
                table.record.dropped_at = None;
                table.record.state = TableState::Active;
            } else {
                let why = format!(
                    "table {} was dropped after that time, and another table has its name by now: it \
                     comes back as dropped (`dl undrop {} --as NEW_NAME`)",
                    record.id, record.id
                );
                found.notes.push(Notice { name: name(), why });
            }
        }
        found.tables.push(Arc::new(table));
    }
    // Each name is free when the next table with it comes.
    found.tables.sort_by_key(|table| table.record.state != TableState::Dropped);
    Ok(found)
}

fn hash(token: &str) -> u128 {
    let full = Sha256::digest(token.as_bytes());
    let mut half = [0_u8; 16];
    half.copy_from_slice(&full[..16]);
    u128::from_be_bytes(half)
}
