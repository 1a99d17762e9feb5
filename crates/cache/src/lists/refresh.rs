//! A list at a later version: the one that is here, and what the commits since say.

use std::collections::HashMap;
use std::sync::Arc;

use deltalakedb_catalog_core::action::{Add, FileKey};
use deltalakedb_catalog_core::commit::CommitIndex;
use deltalakedb_catalog_core::ids::Version;
use deltalakedb_catalog_core::model::{FileCursor, FileRecord};
use deltalakedb_catalog_core::support::as_ordinal;

use super::columns::hash;
use super::{Columns, FileList, Part};

/// A last part that is shorter is made anew together with what is added, so that there are not many short
/// ones.
const SHORT_PART: usize = 256;
/// Files in a part that is made of commits.
const PART_FILES: usize = 16_384;

/// A commit after the version of the list.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) version: Version,
    pub(crate) index: CommitIndex,
}

/// What became of a file that the commits speak of: it was added last there, or is not in the table.
#[derive(Debug, Clone, Copy)]
enum Now {
    Added(usize),
    Gone,
}

/// The list at the version of the last change, exactly as the database lists it: in each commit removes come
/// before adds, and an add of a file that is in the table takes the place of its row. `changes` are all
/// commits since the list's version, in order. None if that cannot be said in columns.
pub(crate) fn refresh(list: &FileList, changes: Vec<Change>) -> Option<FileList> {
    let version = changes.last().map_or(list.version, |change| change.version);
    let (touched, added) = net(changes)?;
    let mut parts = without(&list.parts, &touched)?;
    let mut added: Vec<FileRecord> = added.into_iter().flatten().collect();
    if added.is_empty() {
        return Some(FileList::new(version, parts));
    }
    if let Some(short) = parts.pop_if(|part| part.files < SHORT_PART) {
        let before = short.rows(0).map(|row| short.columns.file(row));
        added.splice(0..0, before);
    }
    for files in added.chunks(PART_FILES) {
        parts.push(Columns::new(files)?.into());
    }
    Some(FileList::new(version, parts))
}

type Net = (HashMap<FileKey, Now>, Vec<Option<FileRecord>>);

/// The files that the commits speak of, and those that they leave in the table.
fn net(changes: Vec<Change>) -> Option<Net> {
    let mut touched: HashMap<FileKey, Now> = HashMap::new();
    let mut added: Vec<Option<FileRecord>> = Vec::new();
    let mut end = |added: &mut Vec<Option<FileRecord>>, key: FileKey, now: Now| {
        if let Some(Now::Added(before)) = touched.insert(key, now)
            && let Some(file) = added.get_mut(before)
        {
            *file = None;
        }
    };
    for Change { version, index } in changes {
        for remove in &index.removes {
            end(&mut added, remove.key(), Now::Gone);
        }
        for (position, add) in index.adds.into_iter().enumerate() {
            let key = add.key();
            let file = record(version, position, add)?;
            let row = added.len();
            end(&mut added, key, Now::Added(row));
            added.push(Some(file));
        }
    }
    Some((touched, added))
}

fn record(version: Version, position: usize, add: Add) -> Option<FileRecord> {
    let ordinal = as_ordinal(position).ok()?;
    Some(FileRecord { cursor: FileCursor { added_version: version, ordinal }, add })
}

/// The parts without the files that the commits speak of: each of them is gone, or has a new row.
fn without(parts: &[Part], touched: &HashMap<FileKey, Now>) -> Option<Vec<Part>> {
    let filter = Filter::new(touched.keys());
    let mut left = Vec::with_capacity(parts.len() + 1);
    for part in parts {
        let hit = |(_, hash): &(usize, &u32)| filter.may_have(**hash);
        let rows: Vec<usize> = part
            .columns
            .hashes()
            .iter()
            .enumerate()
            .filter(hit)
            .map(|(row, _)| row)
            .filter(|row| part.is_there(*row) && touched.contains_key(&part.columns.key(*row)))
            .collect();
        if rows.is_empty() {
            left.push(part.clone());
            continue;
        }
        let part = part.without(&rows);
        // What is mostly gone gives its memory back.
        if part.files > 0 && part.files < part.columns.len() / 2 {
            let files: Vec<FileRecord> = part.rows(0).map(|row| part.columns.file(row)).collect();
            left.push(Part::whole(Arc::new(Columns::new(&files)?)));
        } else if part.files > 0 {
            left.push(part);
        }
    }
    Some(left)
}

/// Tells most hashes that are not among some apart from those that are, at the cost of one bit.
struct Filter {
    bits: Vec<u64>,
    mask: usize,
}

impl Filter {
    fn new<'k>(keys: impl ExactSizeIterator<Item = &'k FileKey>) -> Self {
        // Sixteen bits for each.
        let bits = keys.len().saturating_mul(16).next_power_of_two().max(1 << 10);
        let mut filter = Filter { bits: vec![0; bits / 64], mask: bits - 1 };
        for key in keys {
            let (word, bit) = filter.place(hash(&key.path, &key.dv_id));
            if let Some(word) = filter.bits.get_mut(word) {
                *word |= bit;
            }
        }
        filter
    }

    fn place(&self, hash: u32) -> (usize, u64) {
        let at = usize::try_from(hash).unwrap_or_default() & self.mask;
        (at / 64, 1 << (at % 64))
    }

    fn may_have(&self, hash: u32) -> bool {
        let (word, bit) = self.place(hash);
        self.bits.get(word).is_some_and(|word| word & bit != 0)
    }
}
