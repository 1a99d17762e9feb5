//! What is kept, by what it is about, and what it weighs.

use std::mem::size_of;
use std::sync::Arc;

use bytes::Bytes;
use deltalakedb_catalog_core::action::{DomainMetadata, Metadata, NullableMap, Protocol, Txn};
use deltalakedb_catalog_core::backend::{AppRows, AppState};
use deltalakedb_catalog_core::ids::{TableId, TableName, Version};
use deltalakedb_catalog_core::model::{FileCursor, FileRecord, SkipPage, Snapshot, TableRecord};

use crate::head::Head;
use crate::lists::{Chunk, Kept};

/// What an entry costs besides what it says, bytes: its place in the map, in the order of use and in
/// that of time.
const OVERHEAD_BYTES: usize = 256;

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Which versions of a table never change.
    Seen(TableId),
    /// The row of a table, of some moment.
    Head(TableId),
    /// The table that has a name, as far as its row says so too.
    Name(TableName),
    /// Protocol, metadata and totals of a version.
    Snapshot(TableId, Version),
    /// The newest lists of a table's files.
    Lists(TableId),
    /// Files of a version, after a cursor.
    Chunk(TableId, Version, Option<FileCursor>),
    /// Application transactions of a version, or its domain metadata.
    App(TableId, Version, AppRows),
    /// A page of a skipping index.
    Skip(TableId, SkipPage),
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Seen(Seen),
    Head(Head),
    Name(TableId),
    Snapshot(Arc<Snapshot>),
    Lists(Kept),
    Chunk(Arc<Chunk>),
    App(Arc<AppState>),
    Skip(Bytes),
}

/// The versions of a table that were seen while it was active: from then on, nothing changes below its
/// head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// First version whose state is known.
    pub(crate) base: Version,
    /// Highest version that was seen.
    pub(crate) head: Version,
    /// Number of files in the snapshot that was read last.
    pub(crate) files: Option<u64>,
}

impl Seen {
    pub(crate) fn covers(&self, version: Version) -> bool {
        self.base <= version && version <= self.head
    }
}

/// Estimate of the memory that an entry takes, bytes.
pub(crate) fn weight(key: &Key, entry: &Entry) -> usize {
    let key = match key {
        Key::Name(name) => name.namespace().len() + name.name().len(),
        _ => 0,
    };
    let held = match entry {
        Entry::Seen(_) | Entry::Name(_) => 0,
        Entry::Head(head) => record(&head.record),
        Entry::Snapshot(snapshot) => {
            size_of::<Snapshot>()
                + record(&snapshot.table)
                + protocol(&snapshot.protocol)
                + metadata(&snapshot.metadata)
        }
        Entry::Lists(kept) => kept.weight(),
        Entry::Chunk(chunk) => chunk.weight(),
        Entry::Skip(bytes) => bytes.len(),
        Entry::App(kept) => {
            let txns = kept.transactions.iter();
            let domains = kept.domains.iter();
            txns.map(|t| size_of::<Txn>() + t.app_id.len()).sum::<usize>()
                + domains
                    .map(|d| size_of::<DomainMetadata>() + d.domain.len() + d.configuration.len())
                    .sum::<usize>()
        }
    };
    OVERHEAD_BYTES + size_of::<Key>() + size_of::<Entry>() + key + held
}

/// What a file takes in columns, about, bytes. Partition values are shared by the files of a partition.
pub(crate) fn file(file: &FileRecord) -> usize {
    /// Numbers, offsets of texts, the hash.
    const NUMBERS: usize = 64;
    let add = &file.add;
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let vector = add.deletion_vector.as_ref().map_or(0, |v| NUMBERS + v.path_or_inline_dv.len());
    NUMBERS + add.path.len() + text(&add.stats) + text(&add.clustering_provider) + vector
}

/// What a map of text holds, bytes.
pub(crate) fn map(map: &NullableMap) -> usize {
    let entry = size_of::<(String, Option<String>)>();
    map.iter().map(|(k, v)| entry + k.len() + v.as_ref().map_or(0, String::len)).sum()
}

fn record(record: &TableRecord) -> usize {
    let name = record.name.namespace().len() + record.name.name().len();
    let options: usize = record
        .storage_options
        .iter()
        .map(|(k, v)| 2 * size_of::<String>() + k.len() + v.len())
        .sum();
    size_of::<TableRecord>() + name + record.location.len() + options
}

fn protocol(protocol: &Protocol) -> usize {
    let features = [&protocol.reader_features, &protocol.writer_features];
    features.into_iter().flatten().flatten().map(|f| size_of::<String>() + f.len()).sum()
}

fn metadata(metadata: &Metadata) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    metadata.id.len()
        + text(&metadata.name)
        + text(&metadata.description)
        + metadata.format.provider.len()
        + map(&metadata.format.options)
        + metadata.schema_string.len()
        + metadata.partition_columns.iter().map(|c| size_of::<String>() + c.len()).sum::<usize>()
        + map(&metadata.configuration)
}
