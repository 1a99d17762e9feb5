//! Checkpoints written from the catalog's rows, without replaying the log.
//!
//! One Parquet file with the classic name `N.checkpoint.parquet` (Delta protocol, sections
//! "Checkpoints" and "Last Checkpoint File"). Where the table has the feature `v2Checkpoint`, its
//! content follows the V2 spec: a `checkpointMetadata` action, and no sidecars, which the spec
//! leaves to the writer. A table with that feature never gets a multi-part checkpoint, as the
//! protocol demands; a table without it gets the V1 spec, which knows no `checkpointMetadata`.
//!
//! A checkpoint is a pure function of the rows at its version: tombstones expire relative to that
//! version's commit timestamp, not to the time of writing. Files are read page by page; what stays
//! in memory is the encoded Parquet file, some 100 bytes a file.

mod parsed;
mod rows;

use bytes::Bytes;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::Version;
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_core::sink::MirrorSink;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::properties::tombstone_retention_ms;
use crate::put::{Put, put_over_torn, torn_text};
use rows::CheckpointEncoder;

/// Rows per page and per batch: bounds the memory of unencoded rows.
const PAGE: usize = 8_192;
/// Name of the hint file.
pub(crate) const LAST_CHECKPOINT: &str = "_last_checkpoint";

/// A checkpoint that is in the log now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckpointInfo {
    /// Version whose state it holds.
    pub version: Version,
    /// Name of its file in the log folder.
    pub name: String,
    /// Number of actions in it.
    pub actions: u64,
    /// Number of `add` actions in it.
    pub add_files: u64,
    /// Size of the file, bytes.
    pub size_bytes: u64,
    /// False if a checkpoint of this version was there before; it was left alone.
    pub created: bool,
}

/// Bytes of a checkpoint, and what is in them.
#[derive(Debug, Clone)]
pub struct EncodedCheckpoint {
    /// The Parquet file.
    pub bytes: Bytes,
    /// Number of actions in it.
    pub actions: u64,
    /// Number of `add` actions in it.
    pub add_files: u64,
}

/// Name of the classic checkpoint of a version.
#[must_use]
pub fn checkpoint_name(version: Version) -> String {
    format!("{}.checkpoint.parquet", version.padded())
}

/// Makes the checkpoint of a snapshot from the catalog's rows.
///
/// # Errors
/// Those of the backend's reads; `Corrupt` if the number of file rows is not what the commit
/// recorded: such a state is never published.
pub async fn encode_checkpoint(
    backend: &dyn CatalogBackend,
    snapshot: &Snapshot,
) -> Result<EncodedCheckpoint> {
    let (table_id, version) = (snapshot.table.id, snapshot.version);
    let txns = backend.app_transactions(table_id, version).await?;
    let domains = backend.domain_metadata(table_id, version).await?;
    let mut encoder = CheckpointEncoder::new(snapshot)?;
    encoder = off_runtime(encoder, move |e| e.small_actions(&txns, &domains)).await?;

    let retention_ms = tombstone_retention_ms(&snapshot.metadata);
    let deleted_after = snapshot.timestamp.plus_ms(retention_ms.saturating_neg());
    let mut after = None;
    loop {
        let page = backend.list_tombstones(table_id, version, deleted_after, after, PAGE).await?;
        if !page.items.is_empty() {
            encoder = off_runtime(encoder, move |e| e.removes(&page.items)).await?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }

    let mut after = None;
    loop {
        let page = backend.list_files(table_id, version, after, PAGE).await?;
        if !page.items.is_empty() {
            encoder = off_runtime(encoder, move |e| e.adds(&page.items)).await?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let encoded = blocking(move || encoder.finish()).await?;
    if encoded.add_files == snapshot.num_files {
        Ok(encoded)
    } else {
        Err(CatalogError::corrupt(format!(
            "table '{}', version {version}: the catalog has rows of {} files, its commit recorded \
             {}. No checkpoint was written. Run `dl diff --table {}` to see which files differ",
            snapshot.table.name, encoded.add_files, snapshot.num_files, snapshot.table.name
        )))
    }
}

/// Writes the checkpoint of a snapshot, unless its version has one. With `repair`, what is left of
/// a torn write of it is replaced.
///
/// # Errors
/// Those of [`encode_checkpoint`] and of the sink; `Corrupt` if something stands there that is no
/// Parquet file.
pub async fn write_checkpoint(
    backend: &dyn CatalogBackend,
    snapshot: &Snapshot,
    sink: &dyn MirrorSink,
    repair: bool,
) -> Result<CheckpointInfo> {
    let name = checkpoint_name(snapshot.version);
    let encoded = encode_checkpoint(backend, snapshot).await?;
    let EncodedCheckpoint { bytes, actions, add_files } = encoded;
    let (created, size) = match put_over_torn(sink, &name, &bytes, repair).await? {
        Put::Created => (true, bytes.len()),
        Put::Same => (false, bytes.len()),
        Put::Foreign(foreign) if foreign.torn => {
            let text = torn_text(&sink.describe(), &name, foreign);
            return Err(CatalogError::busy(text, WriteState::NotApplied));
        }
        // Another engine that read our log, or another version of this one: as good as ours, if it
        // is whole.
        Put::Foreign(foreign) => {
            let found = sink.get(&name).await?.unwrap_or_default();
            if !is_parquet(&found) {
                return Err(CatalogError::corrupt(format!(
                    "'{}/{name}' is no Parquet file: it was damaged, or another program wrote it. \
                     Readers that come across it fail: delete it",
                    sink.describe()
                )));
            }
            (false, foreign.found)
        }
    };
    Ok(CheckpointInfo {
        version: snapshot.version,
        name,
        actions,
        add_files,
        size_bytes: u64::try_from(size).unwrap_or(u64::MAX),
        created,
    })
}

/// Whether bytes begin and end as those of a Parquet file do.
fn is_parquet(bytes: &[u8]) -> bool {
    const MAGIC: &[u8] = b"PAR1";
    bytes.len() > 2 * MAGIC.len() && bytes.starts_with(MAGIC) && bytes.ends_with(MAGIC)
}

/// `_last_checkpoint`, as far as we write it. All fields but the first two are optional.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LastCheckpoint {
    version: i64,
    size: u64,
    size_in_bytes: u64,
    num_of_add_files: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

/// What decides whether an existing hint is newer.
#[derive(Debug, Deserialize)]
struct LastCheckpointVersion {
    version: i64,
}

/// The version that a hint names, if it can be read.
pub(crate) fn hinted_version(hint: &[u8]) -> Option<Version> {
    let hint: LastCheckpointVersion = serde_json::from_slice(hint).ok()?;
    Version::new(hint.version).ok()
}

/// Points `_last_checkpoint` to a checkpoint, unless it points to this or a later one. Returns
/// whether it was written.
///
/// # Errors
/// Those of the sink.
pub async fn write_last_checkpoint(sink: &dyn MirrorSink, info: &CheckpointInfo) -> Result<bool> {
    if let Some(bytes) = sink.get(LAST_CHECKPOINT).await?
        && let Ok(found) = serde_json::from_slice::<LastCheckpointVersion>(&bytes)
        && found.version >= info.version.get()
    {
        return Ok(false);
    }
    let bad = |e: serde_json::Error| {
        CatalogError::invalid(format!("cannot write '{LAST_CHECKPOINT}': {e}"))
    };
    let mut hint = LastCheckpoint {
        version: info.version.get(),
        size: info.actions,
        size_in_bytes: info.size_bytes,
        num_of_add_files: info.add_files,
        checksum: None,
    };
    hint.checksum = Some(json_checksum(&serde_json::to_value(&hint).map_err(bad)?));
    let bytes = serde_json::to_vec(&hint).map_err(bad)?;
    sink.put_replace(LAST_CHECKPOINT, bytes.into()).await?;
    Ok(true)
}

/// Checksum of `_last_checkpoint` (protocol section "JSON checksum"): MD5 of its canonical text,
/// without the field `checksum`, as 32 hexadecimal digits.
pub(crate) fn json_checksum(value: &serde_json::Value) -> String {
    use std::fmt::Write;
    let mut lines = Vec::new();
    canonical(value, "", true, &mut lines);
    let mut text = String::with_capacity(32);
    for byte in Md5::digest(lines.join(",").as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A JSON value as lines `path=value`: fields by name, elements by position, texts percent-encoded.
fn canonical(value: &serde_json::Value, path: &str, top: bool, lines: &mut Vec<String>) {
    use serde_json::Value;
    let step = |key: String| if path.is_empty() { key } else { format!("{path}+{key}") };
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|a, b| a.0.cmp(b.0));
            for (name, value) in fields {
                if !(top && name == "checksum") {
                    canonical(value, &step(quoted(name)), false, lines);
                }
            }
        }
        Value::Array(elements) => {
            for (i, value) in elements.iter().enumerate() {
                canonical(value, &step(i.to_string()), false, lines);
            }
        }
        Value::String(text) => lines.push(format!("{path}={}", quoted(text))),
        literal => lines.push(format!("{path}={literal}")),
    }
}

fn quoted(text: &str) -> String {
    /// RFC 3986: everything but the unreserved characters.
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    format!("\"{}\"", utf8_percent_encode(text, RESERVED))
}

/// Encoding is processor work: not on the threads that serve connections.
async fn off_runtime(
    mut encoder: CheckpointEncoder,
    work: impl FnOnce(&mut CheckpointEncoder) -> Result<()> + Send + 'static,
) -> Result<CheckpointEncoder> {
    blocking(move || work(&mut encoder).map(|()| encoder)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| {
        CatalogError::failed(
            format!("encoding a checkpoint was broken off: {e}"),
            WriteState::NotApplied,
        )
    })?
}

#[cfg(test)]
#[path = "checkpoint/tests.rs"]
mod tests;
