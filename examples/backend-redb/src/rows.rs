//! The values: the model's own records, as serde writes and reads them, and what is stored beside them.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, MirrorMode, MirrorRow, MirrorState, NewTable, TableRecord, TableState,
};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// A table, with what only the backend knows of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableRow {
    #[serde(with = "TableRecordDef")]
    pub(crate) record: TableRecord,
    /// Files at the head.
    pub(crate) files: u64,
    /// Bytes at the head; wide, so that sums of hostile sizes stay exact.
    #[serde(with = "text")]
    pub(crate) bytes: i128,
    /// Who may publish, and until when.
    pub(crate) lease: Option<(String, TimestampMs)>,
    /// Grows with each claim of a free or lapsed lease.
    pub(crate) epoch: i64,
    /// Where an import is.
    pub(crate) import: Option<Import>,
    /// Since when work waits that a worker may have: the key in `Space::Due`.
    pub(crate) due: Option<TimestampMs>,
}

/// Where an import is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Import {
    pub(crate) from_json: bool,
    pub(crate) base_done: bool,
    pub(crate) base_files: u64,
    pub(crate) base_tombstones: u64,
    pub(crate) history_through: Option<Version>,
}

impl TableRow {
    pub(crate) fn new(new: NewTable, state: TableState, now: TimestampMs) -> Self {
        TableRow {
            record: TableRecord {
                id: new.id,
                name: new.name,
                location: new.location,
                storage_options: new.storage_options,
                state,
                created_at: now,
                dropped_at: None,
                head: None,
                head_timestamp: None,
                base_version: Version::ZERO,
                barrier_version: Version::ZERO,
                mirror: new.mirror,
                published_version: None,
            },
            files: 0,
            bytes: 0,
            lease: None,
            epoch: 0,
            import: None,
            due: None,
        }
    }

    pub(crate) fn next_to_publish(&self) -> Version {
        self.record.published_version.map_or(Version::ZERO, Version::next)
    }
}

/// Sums of bytes are reported in what a signed 64-bit column holds.
pub(crate) fn reported(bytes: i128) -> u64 {
    u64::try_from(bytes.clamp(0, i128::from(i64::MAX))).unwrap_or(0)
}

/// A line of history as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct CommitRow(#[serde(with = "CommitRecordDef")] pub(crate) CommitRecord);

/// A row of the outbox as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct OutboxRow(#[serde(with = "MirrorRowDef")] pub(crate) MirrorRow);

#[derive(Serialize, Deserialize)]
#[serde(remote = "TableState")]
enum TableStateDef {
    Active,
    Importing,
    Dropped,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "MirrorMode")]
enum MirrorModeDef {
    Active,
    Diverged,
    Off,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "MirrorState")]
enum MirrorStateDef {
    Pending,
    InFlight,
    Complete,
    Failed,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "TableRecord")]
struct TableRecordDef {
    id: TableId,
    #[serde(with = "text")]
    name: TableName,
    location: String,
    storage_options: BTreeMap<String, String>,
    #[serde(with = "TableStateDef")]
    state: TableState,
    created_at: TimestampMs,
    dropped_at: Option<TimestampMs>,
    head: Option<Version>,
    head_timestamp: Option<TimestampMs>,
    base_version: Version,
    barrier_version: Version,
    #[serde(with = "MirrorModeDef")]
    mirror: MirrorMode,
    published_version: Option<Version>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "CommitRecord")]
struct CommitRecordDef {
    table_id: TableId,
    version: Version,
    timestamp: TimestampMs,
    #[serde(deserialize_with = "token")]
    token: Option<CommitToken>,
    batch_position: Option<u32>,
    commit_info: Option<String>,
    num_added: u64,
    num_removed: u64,
    bytes_added: u64,
    bytes_removed: u64,
    changes_metadata: bool,
    changes_protocol: bool,
    total_files: u64,
    total_bytes: u64,
    has_body: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "MirrorRow")]
struct MirrorRowDef {
    table_id: TableId,
    version: Version,
    #[serde(with = "MirrorStateDef")]
    state: MirrorState,
    attempts: u32,
    last_error: Option<String>,
    retry_at: Option<TimestampMs>,
    digest: Option<String>,
    enqueued_at: TimestampMs,
    published_at: Option<TimestampMs>,
}

/// Values that are written as their text.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<V: Display, S: Serializer>(
        value: &V,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'d, V: FromStr<Err: Display>, D: Deserializer<'d>>(
        from: D,
    ) -> Result<V, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Serde writes tokens, but does not read them.
fn token<'d, D: Deserializer<'d>>(from: D) -> Result<Option<CommitToken>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(CommitToken::new).transpose().map_err(D::Error::custom)
}
