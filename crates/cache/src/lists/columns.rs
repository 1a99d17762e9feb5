//! Files as columns: what comes out is what went in, field by field.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::mem::size_of;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{Array, BooleanArray, Int32Array, Int64Array, StringArray, UInt32Array};
use deltalakedb_catalog_core::action::{Add, DeletionVector, FileKey, NullableMap};
use deltalakedb_catalog_core::model::{FileCursor, FileRecord};

use crate::entries::map;

/// Text of one column, bytes at most: offsets are 32-bit numbers.
const MAX_TEXT_BYTES: usize = 1 << 30;

/// Some files, in the order of their cursors. A column in which nothing is set is none.
#[derive(Debug)]
pub(crate) struct Columns {
    cursors: Box<[FileCursor]>,
    /// Of path and deletion vector: to find a file without looking at its text.
    hashes: Box<[u32]>,
    path: StringArray,
    partition_values: Coded,
    size: Int64Array,
    modification_time: Int64Array,
    data_change: BooleanArray,
    stats: Option<StringArray>,
    tags: Coded,
    vectors: Option<Vectors>,
    base_row_id: Option<Int64Array>,
    default_row_commit_version: Option<Int64Array>,
    clustering_provider: Option<StringArray>,
}

/// Deletion vectors; all null in a row without one.
#[derive(Debug)]
struct Vectors {
    storage_type: StringArray,
    path_or_inline_dv: StringArray,
    offset: Option<Int32Array>,
    size_in_bytes: Int32Array,
    cardinality: Int64Array,
    max_row_index: Option<Int64Array>,
}

/// Maps of text, each different one once: the files of a partition have the same.
#[derive(Debug)]
struct Coded {
    maps: Box<[NullableMap]>,
    /// Which one a row has; null = none at all.
    rows: Option<UInt32Array>,
}

impl Columns {
    /// None if there is more text than a column can hold.
    pub(crate) fn new(files: &[FileRecord]) -> Option<Columns> {
        let adds = || files.iter().map(|file| &file.add);
        let vectors = || adds().map(|add| add.deletion_vector.as_ref());
        Some(Columns {
            cursors: files.iter().map(|file| file.cursor).collect(),
            hashes: adds().map(|add| hash_of(&add.path, add.deletion_vector.as_ref())).collect(),
            path: texts(adds().map(|add| Some(&*add.path)))?,
            partition_values: Coded::new(adds().map(|add| Some(&add.partition_values)))?,
            size: adds().map(|add| Some(add.size)).collect(),
            modification_time: adds().map(|add| Some(add.modification_time)).collect(),
            data_change: adds().map(|add| Some(add.data_change)).collect(),
            stats: set(texts(adds().map(|add| add.stats.as_deref()))?),
            tags: Coded::new(adds().map(|add| add.tags.as_ref()))?,
            vectors: if vectors().any(|vector| vector.is_some()) {
                Some(Vectors::new(vectors)?)
            } else {
                None
            },
            base_row_id: set(adds().map(|add| add.base_row_id).collect()),
            default_row_commit_version: set(adds()
                .map(|add| add.default_row_commit_version)
                .collect()),
            clustering_provider: set(texts(adds().map(|add| add.clustering_provider.as_deref()))?),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.cursors.len()
    }

    /// A file. Rows are below [`Columns::len`].
    pub(crate) fn file(&self, row: usize) -> FileRecord {
        let text = |column: &Option<StringArray>| {
            column.as_ref().filter(|c| c.is_valid(row)).map(|c| c.value(row).to_owned())
        };
        let add = Add {
            path: self.path.value(row).to_owned(),
            partition_values: self.partition_values.get(row).cloned().unwrap_or_default(),
            size: self.size.value(row),
            modification_time: self.modification_time.value(row),
            data_change: self.data_change.value(row),
            stats: text(&self.stats),
            tags: self.tags.get(row).cloned(),
            deletion_vector: self.vector(row),
            base_row_id: long(self.base_row_id.as_ref(), row),
            default_row_commit_version: long(self.default_row_commit_version.as_ref(), row),
            clustering_provider: text(&self.clustering_provider),
        };
        FileRecord { cursor: self.cursors[row], add }
    }

    fn vector(&self, row: usize) -> Option<DeletionVector> {
        self.vectors.as_ref().and_then(|vectors| vectors.get(row))
    }

    /// What identifies a file.
    pub(crate) fn key(&self, row: usize) -> FileKey {
        let dv_id = self.vector(row).map(|vector| vector.unique_id()).unwrap_or_default();
        FileKey { path: self.path.value(row).to_owned(), dv_id }
    }

    pub(crate) fn hashes(&self) -> &[u32] {
        &self.hashes
    }

    pub(crate) fn cursor(&self, row: usize) -> Option<FileCursor> {
        self.cursors.get(row).copied()
    }

    pub(crate) fn last(&self) -> Option<FileCursor> {
        self.cursors.last().copied()
    }

    /// The first row after a cursor.
    pub(crate) fn after(&self, after: FileCursor) -> usize {
        self.cursors.partition_point(|cursor| *cursor <= after)
    }

    pub(crate) fn find(&self, cursor: FileCursor) -> Option<usize> {
        self.cursors.binary_search(&cursor).ok()
    }

    /// Memory that it takes, bytes.
    pub(crate) fn weight(&self) -> usize {
        let arrays: [Option<&dyn Array>; 8] = [
            Some(&self.path),
            Some(&self.size),
            Some(&self.modification_time),
            Some(&self.data_change),
            self.stats.as_ref().map(|column| column as &dyn Array),
            self.base_row_id.as_ref().map(|column| column as &dyn Array),
            self.default_row_commit_version.as_ref().map(|column| column as &dyn Array),
            self.clustering_provider.as_ref().map(|column| column as &dyn Array),
        ];
        size_of::<Columns>()
            + self.cursors.len() * (size_of::<FileCursor>() + size_of::<u32>())
            + arrays.into_iter().flatten().map(Array::get_buffer_memory_size).sum::<usize>()
            + self.partition_values.weight()
            + self.tags.weight()
            + self.vectors.as_ref().map_or(0, Vectors::weight)
    }
}

/// Hash of what identifies a file. Equal ones are still compared in full.
pub(crate) fn hash(path: &str, dv_id: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write(path.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(dv_id.as_bytes());
    u32::try_from(hasher.finish() >> 32).unwrap_or_default()
}

fn hash_of(path: &str, vector: Option<&DeletionVector>) -> u32 {
    match vector {
        Some(vector) => hash(path, &vector.unique_id()),
        None => hash(path, ""),
    }
}

fn texts<'t>(values: impl Iterator<Item = Option<&'t str>> + Clone) -> Option<StringArray> {
    let (mut rows, mut bytes) = (0_usize, 0_usize);
    for value in values.clone() {
        rows += 1;
        bytes += value.map_or(0, str::len);
    }
    if bytes > MAX_TEXT_BYTES {
        return None;
    }
    let mut builder = StringBuilder::with_capacity(rows, bytes);
    for value in values {
        builder.append_option(value);
    }
    Some(builder.finish())
}

/// A column, unless nothing is set in it.
fn set<A: Array>(column: A) -> Option<A> {
    (column.null_count() < column.len()).then_some(column)
}

fn long(column: Option<&Int64Array>, row: usize) -> Option<i64> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

impl Vectors {
    fn new<'v, I>(vectors: impl Fn() -> I) -> Option<Vectors>
    where
        I: Iterator<Item = Option<&'v DeletionVector>> + Clone,
    {
        Some(Vectors {
            storage_type: texts(vectors().map(|v| v.map(|v| &*v.storage_type)))?,
            path_or_inline_dv: texts(vectors().map(|v| v.map(|v| &*v.path_or_inline_dv)))?,
            offset: set(vectors().map(|v| v.and_then(|v| v.offset)).collect()),
            size_in_bytes: vectors().map(|v| v.map(|v| v.size_in_bytes)).collect(),
            cardinality: vectors().map(|v| v.map(|v| v.cardinality)).collect(),
            max_row_index: set(vectors().map(|v| v.and_then(|v| v.max_row_index)).collect()),
        })
    }

    fn get(&self, row: usize) -> Option<DeletionVector> {
        self.storage_type.is_valid(row).then(|| DeletionVector {
            storage_type: self.storage_type.value(row).to_owned(),
            path_or_inline_dv: self.path_or_inline_dv.value(row).to_owned(),
            offset: self.offset.as_ref().filter(|c| c.is_valid(row)).map(|c| c.value(row)),
            size_in_bytes: self.size_in_bytes.value(row),
            cardinality: self.cardinality.value(row),
            max_row_index: long(self.max_row_index.as_ref(), row),
        })
    }

    fn weight(&self) -> usize {
        self.storage_type.get_buffer_memory_size()
            + self.path_or_inline_dv.get_buffer_memory_size()
            + self.size_in_bytes.get_buffer_memory_size()
            + self.cardinality.get_buffer_memory_size()
            + self.offset.as_ref().map_or(0, Array::get_buffer_memory_size)
            + self.max_row_index.as_ref().map_or(0, Array::get_buffer_memory_size)
    }
}

impl Coded {
    fn new<'m>(values: impl Iterator<Item = Option<&'m NullableMap>>) -> Option<Coded> {
        let mut maps: Vec<NullableMap> = Vec::new();
        let mut codes: HashMap<Box<[u8]>, u32> = HashMap::new();
        let mut bytes = Vec::new();
        let mut rows = Vec::new();
        // Files of one partition often follow each other.
        let mut last: Option<(&NullableMap, u32)> = None;
        for value in values {
            let Some(value) = value else {
                rows.push(None);
                continue;
            };
            if let Some((same, code)) = last
                && same == value
            {
                rows.push(Some(code));
                continue;
            }
            bytes.clear();
            write(value, &mut bytes);
            let code = if let Some(code) = codes.get(&*bytes) {
                *code
            } else {
                let code = u32::try_from(maps.len()).ok()?;
                maps.push(value.clone());
                codes.insert(bytes.as_slice().into(), code);
                code
            };
            last = Some((value, code));
            rows.push(Some(code));
        }
        let one = maps.len() == 1 && rows.iter().all(Option::is_some);
        let rows = if one || maps.is_empty() { None } else { Some(UInt32Array::from(rows)) };
        Some(Coded { maps: maps.into(), rows })
    }

    fn get(&self, row: usize) -> Option<&NullableMap> {
        let code = match &self.rows {
            None => 0,
            Some(rows) if rows.is_valid(row) => usize::try_from(rows.value(row)).ok()?,
            Some(_) => return None,
        };
        self.maps.get(code)
    }

    fn weight(&self) -> usize {
        let maps: usize = self.maps.iter().map(|one| size_of::<NullableMap>() + map(one)).sum();
        maps + self.rows.as_ref().map_or(0, Array::get_buffer_memory_size)
    }
}

/// Bytes that differ where maps do.
fn write(map: &NullableMap, to: &mut Vec<u8>) {
    for (name, value) in map {
        for text in [Some(name), value.as_ref()] {
            match text {
                Some(text) => {
                    to.push(1);
                    to.extend_from_slice(&text.len().to_le_bytes());
                    to.extend_from_slice(text.as_bytes());
                }
                None => to.push(0),
            }
        }
    }
}

/// Columns of a page.
impl From<Columns> for super::Part {
    fn from(columns: Columns) -> Self {
        super::Part::whole(Arc::new(columns))
    }
}
