//! The actions of the Delta protocol (section "Actions"), read from one line of a commit file.
//!
//! These types are an *index* of a commit: the bytes of the line are what is stored and published,
//! so fields and actions that no type here knows survive untouched.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::error::{CatalogError, Result};
pub use crate::nullable_map::NullableMap;

/// `add`: a file becomes part of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Path as written: relative to the table root or absolute, URI-encoded. Never normalised.
    pub path: String,
    /// Partition column (physical name) to serialized value; null stays null.
    #[serde(default)]
    pub partition_values: NullableMap,
    /// Size of the data file, bytes.
    pub size: i64,
    /// When the file was created, milliseconds since the epoch.
    pub modification_time: i64,
    /// Whether the rows changed (false: only rearranged).
    #[serde(default = "yes")]
    pub data_change: bool,
    /// Per-file statistics: JSON text, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    /// Free-form tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<NullableMap>,
    /// Deletion vector of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
    /// Row tracking: first row id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_row_id: Option<i64>,
    /// Row tracking: commit version of rows without one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_row_commit_version: Option<i64>,
    /// Clustering implementation that wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clustering_provider: Option<String>,
}

/// `remove`: a file leaves the table; the action stays as a tombstone for its retention time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    /// Path as written.
    pub path: String,
    /// When the file was removed, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    /// Whether the rows changed (false: only rearranged).
    #[serde(default = "yes")]
    pub data_change: bool,
    /// Whether `partitionValues`, `size` and `tags` are present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    /// Partition values of the removed file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<NullableMap>,
    /// Size of the removed file, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// Statistics of the removed file, JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    /// Tags of the removed file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<NullableMap>,
    /// Deletion vector: part of the file's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
    /// Row tracking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_row_id: Option<i64>,
    /// Row tracking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_row_commit_version: Option<i64>,
}

/// `cdc`: a file with change data of this commit. Not part of the table's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddCdcFile {
    /// Path as written.
    pub path: String,
    /// Partition values.
    #[serde(default)]
    pub partition_values: NullableMap,
    /// Size, bytes.
    pub size: i64,
    /// Always false in the protocol.
    #[serde(default)]
    pub data_change: bool,
}

/// Descriptor of a deletion vector (protocol section "Deletion Vectors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletionVector {
    /// `u` relative to the table, `i` inline, `p` absolute path.
    pub storage_type: String,
    /// Encoded UUID with prefix, inline data, or path.
    pub path_or_inline_dv: String,
    /// Where the vector starts in its file, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    /// Size of the serialized vector, bytes.
    pub size_in_bytes: i32,
    /// Number of rows it deletes.
    pub cardinality: i64,
    /// Highest row index it contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_row_index: Option<i64>,
}

/// What identifies a deletion vector; empty without one.
#[must_use]
pub fn dv_id(vector: Option<&DeletionVector>) -> Cow<'static, str> {
    vector.map_or("".into(), |vector| vector.unique_id().into())
}

impl DeletionVector {
    /// The protocol's `uniqueId`: storage type, path or inline data, and `@offset` if there is one.
    #[must_use]
    pub fn unique_id(&self) -> String {
        match self.offset {
            Some(offset) => format!("{}{}@{offset}", self.storage_type, self.path_or_inline_dv),
            None => format!("{}{}", self.storage_type, self.path_or_inline_dv),
        }
    }
}

/// Identity of a file in a table: path *and* deletion vector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// Path as written.
    pub path: String,
    /// Deletion vector's unique id; empty where there is none.
    pub dv_id: String,
}

impl FileKey {
    /// First 128 bits of the SHA-256 of both parts: what backends index, as paths may be longer
    /// than an index key. Equal digests are still compared in full.
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        Self::digest_of(&self.path, &self.dv_id)
    }

    /// [`FileKey::digest`] of borrowed parts, for loops over many files.
    #[must_use]
    pub fn digest_of(path: &str, dv_id: &str) -> [u8; 16] {
        let mut hasher = Sha256::new();
        hasher.update(path.as_bytes());
        hasher.update([0]);
        hasher.update(dv_id.as_bytes());
        let full = hasher.finalize();
        let mut out = [0_u8; 16];
        out.copy_from_slice(&full[..16]);
        out
    }
}

impl std::fmt::Display for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.dv_id.is_empty() {
            write!(f, "'{}'", self.path)
        } else {
            write!(f, "'{}' (deletion vector {})", self.path, self.dv_id)
        }
    }
}

fn key(path: &str, dv: Option<&DeletionVector>) -> FileKey {
    FileKey { path: path.to_owned(), dv_id: dv.map(DeletionVector::unique_id).unwrap_or_default() }
}

impl Add {
    /// Identity of the file, borrowed as far as that is possible.
    #[must_use]
    pub fn key_parts(&self) -> (&str, Option<String>) {
        (&self.path, self.deletion_vector.as_ref().map(DeletionVector::unique_id))
    }

    /// Identity of the file.
    #[must_use]
    pub fn key(&self) -> FileKey {
        key(&self.path, self.deletion_vector.as_ref())
    }
}

impl Remove {
    /// Identity of the file, borrowed as far as that is possible.
    #[must_use]
    pub fn key_parts(&self) -> (&str, Option<String>) {
        (&self.path, self.deletion_vector.as_ref().map(DeletionVector::unique_id))
    }

    /// Identity of the file.
    #[must_use]
    pub fn key(&self) -> FileKey {
        key(&self.path, self.deletion_vector.as_ref())
    }
}

/// `metaData`: schema, partitioning and properties of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Delta's id of the table.
    pub id: String,
    /// Name, as the writer gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Description, as the writer gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Always Parquet.
    #[serde(default)]
    pub format: Format,
    /// Schema: JSON text, as written. Empty where an engine has set up a table without one yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema_string: String,
    /// Partition columns (logical names), in order.
    #[serde(default)]
    pub partition_columns: Vec<String>,
    /// Milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
    /// Table properties.
    #[serde(default)]
    pub configuration: NullableMap,
}

impl Metadata {
    /// A property that is set and not null.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.configuration.get(name).and_then(Option::as_deref)
    }

    /// A property that is `true` (any case).
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.property(name).is_some_and(|v| v.eq_ignore_ascii_case("true"))
    }
}

/// File format of the data files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// `parquet`.
    pub provider: String,
    /// Reader options; empty in practice.
    #[serde(default)]
    pub options: NullableMap,
}

impl Default for Format {
    fn default() -> Self {
        Format { provider: "parquet".to_owned(), options: NullableMap::new() }
    }
}

/// `protocol`: what a reader and a writer must understand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// Minimum reader version.
    pub min_reader_version: i32,
    /// Minimum writer version.
    pub min_writer_version: i32,
    /// Reader features, with reader version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    /// Writer features, with writer version 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

/// `txn`: how far an application has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    /// Application's id.
    pub app_id: String,
    /// Application's own version.
    pub version: i64,
    /// Milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// `domainMetadata`: named configuration of a feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainMetadata {
    /// Domain; `delta.` belongs to the system.
    pub domain: String,
    /// Text of the domain's own.
    #[serde(default)]
    pub configuration: String,
    /// Whether this removes the domain.
    #[serde(default)]
    pub removed: bool,
}

/// `commitInfo`, reduced to what the catalog looks at.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitInfo {
    /// Milliseconds since the epoch, by the writer's clock. Some writers give a fraction or text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<serde_json::Value>,
    /// Present iff in-commit timestamps are on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_commit_timestamp: Option<i64>,
    /// `WRITE`, `MERGE`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Whether the writer only added files and read none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_blind_append: Option<bool>,
}

/// `checkpointMetadata` of a V2 checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointMetadata {
    /// Version of the checkpoint.
    pub version: i64,
    /// Free-form tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<NullableMap>,
}

/// `sidecar` of a V2 checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// File name in `_delta_log/_sidecars`, or an absolute URI.
    pub path: String,
    /// Size, bytes.
    pub size_in_bytes: i64,
    /// Milliseconds since the epoch.
    pub modification_time: i64,
    /// Free-form tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<NullableMap>,
}

/// One line of a commit or of a JSON checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `add`
    Add(Add),
    /// `remove`
    Remove(Remove),
    /// `cdc`
    Cdc(AddCdcFile),
    /// `metaData`
    Metadata(Metadata),
    /// `protocol`
    Protocol(Protocol),
    /// `txn`
    Txn(Txn),
    /// `domainMetadata`
    DomainMetadata(DomainMetadata),
    /// `commitInfo`
    CommitInfo(CommitInfo),
    /// `checkpointMetadata` (V2 checkpoints only)
    CheckpointMetadata(CheckpointMetadata),
    /// `sidecar` (V2 checkpoints only)
    Sidecar(Sidecar),
    /// An action of a name that no one here knows: kept as bytes, ignored otherwise.
    Unknown(String),
    /// A line with nothing in it (`{}` or all-null), which some writers leave behind.
    Empty,
}

impl Action {
    /// Reads one line of the protocol. Lines that other engines wrote are read by
    /// [`lenient`](crate::lenient) where they are not.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a JSON object, holds several actions, or a known action does
    /// not have its protocol shape. The text names the action; the caller adds file and line.
    pub fn parse(line: &str) -> Result<Action> {
        // Nearly all lines are one of these two, written without spaces: what stands between the outer
        // braces' name and the last brace is then the whole action. All others, and errors, below.
        let inside = |name: &str| {
            let rest = line.strip_prefix("{\"")?.strip_prefix(name)?.strip_prefix("\":{")?;
            rest.strip_suffix('}').map(|_| &line[line.len() - rest.len() - 1..line.len() - 1])
        };
        if let Some(Ok(add)) = inside("add").map(serde_json::from_str) {
            return Ok(Action::Add(add));
        }
        if let Some(Ok(remove)) = inside("remove").map(serde_json::from_str) {
            return Ok(Action::Remove(remove));
        }
        let object: BTreeMap<String, &RawValue> = serde_json::from_str(line).map_err(|e| {
            CatalogError::invalid(format!("not a JSON object with one action: {e}"))
        })?;
        let mut entries = object.into_iter().filter(|(_, raw)| raw.get() != "null");
        let Some((name, raw)) = entries.next() else {
            return Ok(Action::Empty);
        };
        if let Some((second, _)) = entries.next() {
            return Err(CatalogError::invalid(format!(
                "one line holds the actions '{name}' and '{second}': a line is one action"
            )));
        }
        Action::of(&name, raw.get())
    }

    /// Whether this is the name of an action.
    pub(crate) fn is_known(name: &str) -> bool {
        matches!(
            name,
            "add"
                | "remove"
                | "cdc"
                | "metaData"
                | "protocol"
                | "txn"
                | "domainMetadata"
                | "commitInfo"
                | "checkpointMetadata"
                | "sidecar"
        )
    }

    /// An action of this name from the text of its object.
    pub(crate) fn of(name: &str, raw: &str) -> Result<Action> {
        fn read<'a, T: Deserialize<'a>>(name: &str, raw: &'a str) -> Result<T> {
            serde_json::from_str(raw)
                .map_err(|e| CatalogError::invalid(format!("bad '{name}' action: {e}")))
        }
        Ok(match name {
            "add" => Action::Add(read(name, raw)?),
            "remove" => Action::Remove(read(name, raw)?),
            "cdc" => Action::Cdc(read(name, raw)?),
            "metaData" => Action::Metadata(read(name, raw)?),
            "protocol" => Action::Protocol(read(name, raw)?),
            "txn" => Action::Txn(read(name, raw)?),
            "domainMetadata" => Action::DomainMetadata(read(name, raw)?),
            // Writers put anything into commitInfo: a shape we do not expect is not an error.
            "commitInfo" => Action::CommitInfo(serde_json::from_str(raw).unwrap_or_default()),
            "checkpointMetadata" => Action::CheckpointMetadata(read(name, raw)?),
            "sidecar" => Action::Sidecar(read(name, raw)?),
            _ => Action::Unknown(name.to_owned()),
        })
    }

    /// The action as one line of NDJSON, without the newline, in the protocol's field names.
    ///
    /// # Errors
    /// `InvalidInput` for `Unknown` and `Empty`, which have no content of their own.
    pub fn to_line(&self) -> Result<String> {
        fn line<T: Serialize>(name: &str, value: &T) -> Result<String> {
            let body = serde_json::to_string(value)
                .map_err(|e| CatalogError::invalid(format!("cannot write '{name}': {e}")))?;
            Ok(format!("{{\"{name}\":{body}}}"))
        }
        match self {
            Action::Add(a) => line("add", a),
            Action::Remove(a) => line("remove", a),
            Action::Cdc(a) => line("cdc", a),
            Action::Metadata(a) => line("metaData", a),
            Action::Protocol(a) => line("protocol", a),
            Action::Txn(a) => line("txn", a),
            Action::DomainMetadata(a) => line("domainMetadata", a),
            Action::CommitInfo(a) => line("commitInfo", a),
            Action::CheckpointMetadata(a) => line("checkpointMetadata", a),
            Action::Sidecar(a) => line("sidecar", a),
            Action::Unknown(name) => {
                Err(CatalogError::invalid(format!("action '{name}' has no known content")))
            }
            Action::Empty => Err(CatalogError::invalid("an empty action has no content")),
        }
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_actions_and_fields_are_no_error() {
        assert_eq!(
            Action::parse(r#"{"futureThing":{"a":1}}"#).unwrap(),
            Action::Unknown("futureThing".into())
        );
        let Action::Txn(t) =
            Action::parse(r#"{"txn":{"appId":"a","version":3,"new":[1]}}"#).unwrap()
        else {
            panic!()
        };
        assert_eq!((t.app_id.as_str(), t.version), ("a", 3));
        assert_eq!(Action::parse("{}").unwrap(), Action::Empty);
        assert_eq!(Action::parse(r#"{"add":null}"#).unwrap(), Action::Empty);
    }

    #[test]
    fn broken_lines_say_what_is_wrong() {
        for (line, want) in [
            ("nonsense", "not a JSON object"),
            (r#"{"add":{"path":"x"}}"#, "bad 'add' action: missing field `size`"),
            (r#"{"txn":{"appId":"a","version":1},"add":{}}"#, "'add' and 'txn'"),
            (r#"{"add":{"path":"x","size":1,"modificationTime":1},"cdc":{}}"#, "'add' and 'cdc'"),
            (r#"{"add":{"path":"x","size":1,"modificationTime":1}}}"#, "not a JSON object"),
            (r#"{"add":{"path":"x","size":1,"modificationTime":1}"#, "not a JSON object"),
            (r#"{"remove":{"path":7}}"#, "bad 'remove' action"),
            (r#"{"add":{}"#, "not a JSON object"),
            (r#"{"add":{"#, "not a JSON object"),
        ] {
            let err = Action::parse(line).unwrap_err().to_string();
            assert!(err.contains(want), "{err}");
        }
    }

    #[test]
    fn spaces_make_no_difference() {
        for compact in [
            r#"{"add":{"path":"x","partitionValues":{"b":"1","a":null},"size":1,"modificationTime":2,"dataChange":false,"new":[{}]}}"#,
            r#"{"remove":{"path":"x","deletionTimestamp":5,"deletionVector":{"storageType":"u","pathOrInlineDv":"ab","sizeInBytes":1,"cardinality":1}}}"#,
        ] {
            let parsed = Action::parse(compact).unwrap();
            assert!(matches!(parsed, Action::Add(_) | Action::Remove(_)));
            for spaced in [
                compact.replace(':', ": "),
                compact.replacen('{', "{ ", 1),
                format!("{compact} "),
                compact.replace("}}", "} }"),
                format!("\u{20}{compact}"),
            ] {
                assert_eq!(Action::parse(&spaced).unwrap(), parsed, "{spaced}");
            }
        }
    }

    #[test]
    fn a_deletion_vector_is_part_of_the_key() {
        let dv = DeletionVector {
            storage_type: "u".into(),
            path_or_inline_dv: "ab".into(),
            offset: Some(4),
            size_in_bytes: 1,
            cardinality: 1,
            max_row_index: None,
        };
        assert_eq!(dv.unique_id(), "uab@4");
        let a = FileKey { path: "p".into(), dv_id: String::new() };
        let b = FileKey { path: "p".into(), dv_id: dv.unique_id() };
        assert_ne!(a.digest(), b.digest());
    }
}
