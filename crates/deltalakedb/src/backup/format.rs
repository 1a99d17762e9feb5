//! The format of a backup: docs/src/design/backup.md says what each field means.

use bytes::Bytes;
use deltalakedb_catalog_core::action::{Add, DomainMetadata, Metadata, Protocol, Remove, Txn};
use deltalakedb_catalog_core::audit::AuditRow;
use deltalakedb_catalog_core::commit::{CommitBody, Packed};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{BaseTail, CommitRecord, TableRecord};
use deltalakedb_catalog_core::registry::Record;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::set::SetId;

/// How a manifest begins.
pub(super) const FORMAT: &str = "deltalakedb-backup";
/// The version of the format that this program writes, and the newest one that it reads.
pub(super) const VERSION: u32 = 1;
/// Texts of commits up to this length are stored as they are: they compress well together.
pub(super) const PLAIN_BYTES: u64 = 1 << 20;
/// Refuses to unpack more than this.
const MAX_SEGMENT_BYTES: u64 = 16 << 30;

/// What a set is made of. It is written last: a set without it does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `deltalakedb-backup`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// The set.
    pub set: SetId,
    /// The set that this one goes on from; none = it is a full one.
    pub parent: Option<Parent>,
    /// Every commit that was made before this time is in the set.
    pub taken_at: TimestampMs,
    /// When the manifest was written.
    pub finished_at: TimestampMs,
    /// Version of the program that wrote it.
    pub program: String,
    /// What is in this set, without its parents.
    pub counts: Counts,
    /// Tables that are not in it, as an import had not finished them.
    pub left_out: Vec<TableName>,
    /// Its objects, but for those of the audit and the registry.
    pub segments: Vec<Segment>,
    /// Rows of the audit; none: the catalog kept none, or the program that wrote the set did not back it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditPart>,
    /// The registry; none: the database kept none, or the program that wrote the set did not back it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryPart>,
}

impl Manifest {
    /// All of its objects.
    pub fn objects(&self) -> impl Iterator<Item = &Segment> {
        let of_audit = self.audit.iter().flat_map(|audit| &audit.segments);
        let of_registry = self.registry.iter().flat_map(|registry| &registry.segments);
        self.segments.iter().chain(of_audit).chain(of_registry)
    }
}

/// The rows of the audit that a set has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPart {
    /// Rows from this time on; none: all rows. Rows of the hours before the parent was taken are in both sets.
    pub since: Option<TimestampMs>,
    /// Its objects.
    pub segments: Vec<Segment>,
}

/// The registry: each set has all of its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryPart {
    /// Its revision.
    pub revision: i64,
    /// Its objects.
    pub segments: Vec<Segment>,
}

/// The set that another one goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The set.
    pub set: SetId,
    /// SHA-256 of its manifest's object, hex.
    pub sha256: String,
}

/// Numbers of a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Tables, also those in which nothing is new.
    pub tables: u64,
    /// Commits.
    pub commits: u64,
    /// Files of the bases of imports.
    pub files: u64,
    /// Tombstones of these bases.
    pub tombstones: u64,
    /// Rows of the audit.
    #[serde(default)]
    pub audit: u64,
    /// Records of the registry.
    #[serde(default)]
    pub registry: u64,
}

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    /// Commits and bases.
    Data,
    /// The rows of the tables.
    Tables,
    /// Rows of the audit.
    Audit,
    /// Records of the registry.
    Registry,
}

/// An object of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Name of the object.
    pub name: String,
    /// What it holds.
    pub kind: SegmentKind,
    /// Number of its entries.
    pub entries: u64,
    /// Size of the object, bytes.
    pub size_bytes: u64,
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// SHA-256 of the object, hex.
    pub sha256: String,
}

/// Where a table's part of a set begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    /// Index in the manifest's segments.
    pub(super) segment: usize,
    /// Byte before compression.
    pub(super) offset: usize,
}

/// A table of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableEntry {
    /// Its row. The head is the last version of the set.
    pub(super) record: TableRecord,
    /// Whether its state is replayed from version 0.
    pub(super) from_json: bool,
    /// The parent has its versions up to this one; none = all of the table is here.
    pub(super) after: Option<Version>,
    /// Where what is new begins; none = nothing is.
    pub(super) data: Option<Start>,
}

/// A line of a segment.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// What follows is of this table.
    Table(TableId),
    /// Protocol and metadata of version 0, where its commit may lack them.
    State { protocol: Protocol, metadata: Metadata },
    /// A commit; its text follows the line.
    Commit(CommitLine),
    /// History of a base whose text is gone.
    BaseRecord(CommitLine),
    /// A file of the base.
    File(Add),
    /// A tombstone of the base.
    Tombstone(Remove),
    /// The base is complete.
    BaseEnd(Tail),
    /// The table's part of this set is complete, after so many entries.
    End { entries: u64 },
    /// A table's row.
    Row(TableEntry),
    /// A row of the audit.
    Audit(AuditRow),
    /// A record of the registry.
    Record(Record),
}

/// A commit, without its text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CommitLine {
    pub(super) record: CommitRecord,
    /// The table's place in the batch of the commit's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch_position: Option<u32>,
    /// First line of a commit of the catalog's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_line: Option<String>,
    /// Bytes that follow, without the newline after them.
    bytes: u64,
    /// Length of the text, where these bytes are a zstd frame of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unpacked: Option<u64>,
}

/// The small rest of a base.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tail {
    protocol: Protocol,
    metadata: Metadata,
    txns: Vec<Txn>,
    domain_metadata: Vec<DomainMetadata>,
    timestamp: TimestampMs,
}

impl From<BaseTail> for Tail {
    fn from(tail: BaseTail) -> Tail {
        let BaseTail { protocol, metadata, txns, domain_metadata, timestamp } = tail;
        Tail { protocol, metadata, txns, domain_metadata, timestamp }
    }
}

impl From<Tail> for BaseTail {
    fn from(tail: Tail) -> BaseTail {
        let Tail { protocol, metadata, txns, domain_metadata, timestamp } = tail;
        BaseTail { protocol, metadata, txns, domain_metadata, timestamp }
    }
}

/// The text of a commit, as it stands in a segment.
#[derive(Debug, Clone)]
pub(super) struct Text {
    first_line: Option<String>,
    bytes: Bytes,
    unpacked: Option<u64>,
}

impl Text {
    /// Bytes of the commit, without its first line.
    pub(super) fn len(&self) -> u64 {
        self.unpacked.unwrap_or_else(|| u64::try_from(self.bytes.len()).unwrap_or(u64::MAX))
    }

    /// The same as a database stores it.
    ///
    /// # Errors
    /// Those of [`Packed::pack`].
    pub(super) fn into_body(self) -> Result<CommitBody> {
        let rest = match self.unpacked {
            Some(raw_len) => Packed { zstd: self.bytes, raw_len },
            None => Packed::pack(&self.bytes)?,
        };
        Ok(CommitBody { first_line: self.first_line, rest })
    }
}

/// Appends an entry to a segment.
///
/// # Errors
/// `Corrupt` for what cannot be written as JSON.
pub(super) fn append(segment: &mut Vec<u8>, entry: &Entry) -> Result<()> {
    serde_json::to_writer(&mut *segment, entry)
        .map_err(|e| CatalogError::corrupt(format!("a row cannot be written as JSON: {e}")))?;
    segment.push(b'\n');
    Ok(())
}

/// Appends a commit with its text.
///
/// # Errors
/// `Corrupt` if its bytes do not unpack.
pub(super) fn append_commit(
    segment: &mut Vec<u8>,
    record: CommitRecord,
    body: &CommitBody,
) -> Result<()> {
    let (bytes, unpacked) = if body.rest.raw_len <= PLAIN_BYTES {
        (Bytes::from(body.rest.unpack()?), None)
    } else {
        (body.rest.zstd.clone(), Some(body.rest.raw_len))
    };
    let line = CommitLine {
        batch_position: record.batch_position,
        record,
        first_line: body.first_line.clone(),
        bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        unpacked,
    };
    append(segment, &Entry::Commit(line))?;
    segment.extend_from_slice(&bytes);
    segment.push(b'\n');
    Ok(())
}

/// History of a base without a text.
pub(super) fn base_record(record: CommitRecord) -> Entry {
    Entry::BaseRecord(CommitLine {
        batch_position: record.batch_position,
        record,
        first_line: None,
        bytes: 0,
        unpacked: None,
    })
}

/// Takes a commit out of its line.
pub(super) fn commit_of(line: CommitLine, bytes: Bytes) -> (CommitRecord, Text) {
    let record = CommitRecord { batch_position: line.batch_position, ..line.record };
    (record, Text { first_line: line.first_line, bytes, unpacked: line.unpacked })
}

/// Reads the entry at an offset of a segment, and where the next one begins. None: the segment ends.
///
/// # Errors
/// `Corrupt`, without the segment's name.
pub(super) fn entry_at(segment: &Bytes, at: usize) -> Result<Option<(Entry, Bytes, usize)>> {
    let broken = |what: &str| CatalogError::corrupt(format!("byte {at}: {what}"));
    let rest = segment.get(at..).ok_or_else(|| broken("it ends before"))?;
    if rest.is_empty() {
        return Ok(None);
    }
    let len = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| broken("no line ends"))?;
    let entry: Entry =
        serde_json::from_slice(&rest[..len]).map_err(|e| broken(&format!("no entry: {e}")))?;
    let start = at + len + 1;
    let Entry::Commit(line) = &entry else { return Ok(Some((entry, Bytes::new(), start))) };
    let end = usize::try_from(line.bytes).ok().and_then(|bytes| start.checked_add(bytes));
    let end = end.filter(|end| segment.get(*end) == Some(&b'\n'));
    let end = end.ok_or_else(|| broken("the text of a commit is cut off"))?;
    let bytes = segment.slice(start..end);
    Ok(Some((entry, bytes, end + 1)))
}

/// SHA-256, hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Compresses a segment.
///
/// # Errors
/// `Unavailable` if zstd cannot.
pub(super) fn compress(raw: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(raw, 3).map_err(|e| {
        let write = deltalakedb_catalog_core::error::WriteState::NotApplied;
        CatalogError::failed(format!("cannot compress a segment: {e}"), write)
    })
}

/// Checks an object against its manifest, and unpacks it.
///
/// # Errors
/// `Corrupt`, naming the object.
pub(super) fn unpack(segment: &Segment, object: &[u8]) -> Result<Bytes> {
    let name = &segment.name;
    if u64::try_from(object.len()) != Ok(segment.size_bytes) {
        return Err(CatalogError::corrupt(format!(
            "'{name}' has {} bytes, its manifest says {}: it was torn or changed",
            object.len(),
            segment.size_bytes
        )));
    }
    if sha256(object) != segment.sha256 {
        return Err(CatalogError::corrupt(format!(
            "'{name}' is not what was written: its SHA-256 is not the one in its manifest"
        )));
    }
    let raw_bytes = usize::try_from(segment.raw_bytes.min(MAX_SEGMENT_BYTES)).unwrap_or(0);
    let raw = zstd::bulk::decompress(object, raw_bytes)
        .map_err(|e| CatalogError::corrupt(format!("'{name}' does not unpack: {e}")))?;
    if u64::try_from(raw.len()) != Ok(segment.raw_bytes) {
        return Err(CatalogError::corrupt(format!(
            "'{name}' unpacks to {} bytes, its manifest says {}",
            raw.len(),
            segment.raw_bytes
        )));
    }
    Ok(raw.into())
}

/// A manifest with the SHA-256 of its text.
#[derive(Serialize, Deserialize)]
struct Sealed {
    sha256: String,
    manifest: Box<RawValue>,
}

/// The object of a manifest.
///
/// # Errors
/// `Corrupt` for what cannot be written as JSON.
pub(super) fn seal(manifest: &Manifest) -> Result<Vec<u8>> {
    let broken =
        |e: serde_json::Error| CatalogError::corrupt(format!("a manifest cannot be written: {e}"));
    let text = serde_json::to_string(manifest).map_err(broken)?;
    let sha256 = sha256(text.as_bytes());
    let manifest = RawValue::from_string(text).map_err(broken)?;
    let mut bytes = serde_json::to_vec(&Sealed { sha256, manifest }).map_err(broken)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads the object of a manifest.
///
/// # Errors
/// `Corrupt` if it is torn or changed, `Unsupported` if a newer program wrote it.
pub(super) fn unseal(name: &str, object: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct Form {
        format: String,
        version: u32,
    }
    let broken = |e: &dyn std::fmt::Display| {
        CatalogError::corrupt(format!("'{name}' is no manifest of a backup: {e}"))
    };
    let sealed: Sealed = serde_json::from_slice(object).map_err(|e| broken(&e))?;
    let text = sealed.manifest.get();
    if sha256(text.as_bytes()) != sealed.sha256 {
        return Err(broken(&"its SHA-256 is not the one that was written with it"));
    }
    let form: Form = serde_json::from_str(text).map_err(|e| broken(&e))?;
    if form.format != FORMAT {
        return Err(broken(&"its format is another one"));
    }
    if form.version > VERSION {
        return Err(CatalogError::Unsupported(format!(
            "'{name}' has version {} of the format, this program reads up to {VERSION}: use a newer \
             program",
            form.version
        )));
    }
    serde_json::from_str(text).map_err(|e| broken(&e))
}
