//! Checkpoints written from the catalog's rows, without replaying the log (Delta protocol, sections
//! "Checkpoints", "Sidecar Files" and "Last Checkpoint File").
//!
//! With `delta.checkpointPolicy` = `v2` (and the feature `v2Checkpoint`, which it asks for), files and
//! tombstones go into sidecars of a bounded number of rows, one after the other, and
//! `N.checkpoint.<uuid>.parquet` names them: no table is too large for it. Otherwise a checkpoint is
//! one Parquet file with the classic name `N.checkpoint.parquet`; where the table has the feature its
//! content follows the V2 spec (a `checkpointMetadata` action), else the V1 spec, which knows none.
//! Never a multi-part checkpoint, which a table with that feature may not have.
//!
//! A checkpoint is a pure function of the rows at its version: tombstones expire relative to that
//! version's commit timestamp, not to the time of writing; the UUIDs in names are digests of the
//! contents, so that whoever repeats the work finds what is there. Files are read page by page; what
//! stays in memory is the encoded Parquet file, some 50 bytes a file, or one sidecar of it.

mod parsed;
mod rows;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::action::Sidecar;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::Version;
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_core::sink::MirrorSink;
use deltalakedb_catalog_engine::features;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use crate::log::listing::SIDECARS;
use crate::properties::{checkpoint_policy_v2, tombstone_retention_ms};
use crate::put::{Put, put_over_torn, torn_text};
use rows::{CheckpointEncoder, Content, V2_CHECKPOINT, Values};

/// Rows per page and per batch: bounds the memory of unencoded rows.
const PAGE: usize = 8_192;
/// Files and tombstones in a sidecar: some 12 MB. Few enough in tests that there are several.
const SIDECAR_ROWS: usize = if cfg!(test) { 2 } else { 250_000 };
/// Name of the hint file.
pub(crate) const LAST_CHECKPOINT: &str = "_last_checkpoint";

/// A checkpoint that is in the log now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckpointInfo {
    /// Version whose state it holds.
    pub version: Version,
    /// Name of its file in the log folder; of several, the one that names the others.
    pub name: String,
    /// Number of actions in it.
    pub actions: u64,
    /// Number of `add` actions in it.
    pub add_files: u64,
    /// Size of its files, bytes.
    pub size_bytes: u64,
    /// False if a checkpoint of this version was there before; it was left alone.
    pub created: bool,
}

/// Takes the files of a checkpoint, in the order in which they must be written.
#[async_trait]
pub trait CheckpointTarget: Send {
    /// The next file, by its name in the log folder. Returns the size of what is there now, bytes.
    async fn file(&mut self, name: &str, bytes: Bytes) -> Result<u64>;
}

/// What was encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedCheckpoint {
    /// Name of its last file, which makes it a checkpoint.
    pub name: String,
    /// Number of actions in it.
    pub actions: u64,
    /// Number of `add` actions in it.
    pub add_files: u64,
    /// Size of all its files, bytes.
    pub size_bytes: u64,
}

/// Name of the classic checkpoint of a version.
#[must_use]
pub fn checkpoint_name(version: Version) -> String {
    format!("{}.checkpoint.parquet", version.padded())
}

/// Whether a snapshot's checkpoint has sidecars.
pub(crate) fn has_sidecars(snapshot: &Snapshot) -> bool {
    features::supports_writer(&snapshot.protocol, V2_CHECKPOINT)
        && checkpoint_policy_v2(&snapshot.metadata)
}

/// A name for bytes: their digest, in the form of a UUID for own use (version 8, RFC 9562).
fn content_id(bytes: &[u8]) -> Uuid {
    let mut id = [0; 16];
    id.copy_from_slice(&Sha256::digest(bytes)[..16]);
    uuid::Builder::from_custom_bytes(id).into_uuid()
}

/// Makes the checkpoint of a snapshot from the catalog's rows.
///
/// # Errors
/// Those of the backend's reads, and of the target; `Corrupt` if the number of file rows is not what
/// the commit recorded: such a state is never published (sidecars alone are no checkpoint).
pub async fn encode_checkpoint(
    backend: &dyn CatalogBackend,
    snapshot: &Snapshot,
    target: &mut dyn CheckpointTarget,
) -> Result<EncodedCheckpoint> {
    encode(backend, snapshot, has_sidecars(snapshot), Values::AsWritten, target).await
}

/// As [`encode_checkpoint`], in one file whatever the table's policy is, and with partition values in their
/// canonical spelling (see [`deltalakedb_catalog_engine::canonical`]).
///
/// # Errors
/// As [`encode_checkpoint`].
pub async fn encode_one_file(
    backend: &dyn CatalogBackend,
    snapshot: &Snapshot,
    target: &mut dyn CheckpointTarget,
) -> Result<EncodedCheckpoint> {
    encode(backend, snapshot, false, Values::Canonical, target).await
}

async fn encode(
    backend: &dyn CatalogBackend,
    snapshot: &Snapshot,
    sidecars: bool,
    values: Values,
    target: &mut dyn CheckpointTarget,
) -> Result<EncodedCheckpoint> {
    let (table_id, version) = (snapshot.table.id, snapshot.version);
    let txns = backend.app_transactions(table_id, version).await?;
    let domains = backend.domain_metadata(table_id, version).await?;
    let mut files =
        Files { snapshot, values, target, open: None, sidecars: Vec::new(), size: 0, rows: 0 };
    let small = |encoder| {
        off_runtime(encoder, move |e: &mut CheckpointEncoder| e.small_actions(&txns, &domains))
    };
    let (limit, manifest) = if sidecars {
        (
            SIDECAR_ROWS,
            Some(small(CheckpointEncoder::new(snapshot, Content::Manifest, values)?).await?),
        )
    } else {
        files.open =
            Some((small(CheckpointEncoder::new(snapshot, Content::All, values)?).await?, 0));
        (usize::MAX, None)
    };

    let retention_ms = tombstone_retention_ms(&snapshot.metadata);
    let deleted_after = snapshot.timestamp.plus_ms(retention_ms.saturating_neg());
    let mut after = None;
    loop {
        let page = backend.list_tombstones(table_id, version, deleted_after, after, PAGE).await?;
        files.rows(limit, page.items, CheckpointEncoder::removes).await?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut add_files = 0;
    let mut page = backend.list_files(table_id, version, None, PAGE).await?;
    loop {
        add_files += u64::try_from(page.items.len()).unwrap_or(u64::MAX);
        let (items, after) = (page.items, page.next);
        let next = async {
            match after {
                Some(after) => {
                    backend.list_files(table_id, version, Some(after), PAGE).await.map(Some)
                }
                None => Ok(None),
            }
        };
        let next = if sidecars {
            // Files are put in between: in the order in which they are listed here, and no other.
            files.rows(limit, items, CheckpointEncoder::adds).await?;
            next.await?
        } else {
            // The next page is read while this one is encoded.
            let encoded = files.rows(limit, items, CheckpointEncoder::adds);
            let (encoded, next) = futures::join!(encoded, next);
            encoded?;
            next?
        };
        match next {
            Some(next) => page = next,
            None => break,
        }
    }
    if add_files != snapshot.num_files {
        return Err(CatalogError::corrupt(format!(
            "table '{}', version {version}: the catalog has rows of {add_files} files, its commit \
             recorded {}. No checkpoint was written. Run `dl diff --table {}` to see which files \
             differ",
            snapshot.table.name, snapshot.num_files, snapshot.table.name
        )));
    }
    let name = match manifest {
        None => files.put_all().await?,
        Some(manifest) => files.put_manifest(manifest).await?,
    };
    Ok(EncodedCheckpoint { name, actions: files.rows, add_files, size_bytes: files.size })
}

/// Files of a checkpoint, as they are made.
struct Files<'a> {
    snapshot: &'a Snapshot,
    values: Values,
    target: &'a mut dyn CheckpointTarget,
    /// The file that rows go to, and how many of them have.
    open: Option<(CheckpointEncoder, usize)>,
    sidecars: Vec<Sidecar>,
    /// Bytes and rows in files so far.
    size: u64,
    rows: u64,
}

impl Files<'_> {
    /// Rows, into files of at most `limit`.
    async fn rows<T: Send + 'static>(
        &mut self,
        limit: usize,
        mut items: Vec<T>,
        write: fn(&mut CheckpointEncoder, &[T]) -> Result<()>,
    ) -> Result<()> {
        while !items.is_empty() {
            let (encoder, rows) = match self.open.take() {
                Some(open) => open,
                None => (CheckpointEncoder::new(self.snapshot, Content::Sidecar, self.values)?, 0),
            };
            let rest = items.split_off(items.len().min(limit - rows));
            let rows = rows + items.len();
            let encoder = off_runtime(encoder, move |e| write(e, &items)).await?;
            items = rest;
            self.open = Some((encoder, rows));
            if rows >= limit {
                self.put_sidecar().await?;
            }
        }
        Ok(())
    }

    async fn put_sidecar(&mut self) -> Result<()> {
        let Some((encoder, _)) = self.open.take() else { return Ok(()) };
        let bytes = self.encoded(encoder).await?;
        let part = self.sidecars.len() + 1;
        let version = self.snapshot.version.padded();
        let path = format!("{version}.checkpoint.{part:010}.{}.parquet", content_id(&bytes));
        let size_in_bytes = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        self.put(&format!("{SIDECARS}{path}"), bytes).await?;
        // Not the time of writing: the same rows make the same bytes.
        let modification_time = self.snapshot.timestamp.0;
        self.sidecars.push(Sidecar { path, size_in_bytes, modification_time, tags: None });
        Ok(())
    }

    async fn put_manifest(&mut self, manifest: CheckpointEncoder) -> Result<String> {
        self.put_sidecar().await?;
        let sidecars = std::mem::take(&mut self.sidecars);
        let manifest = off_runtime(manifest, move |e| e.sidecars(&sidecars)).await?;
        let bytes = self.encoded(manifest).await?;
        let version = self.snapshot.version.padded();
        let name = format!("{version}.checkpoint.{}.parquet", content_id(&bytes));
        self.put(&name, bytes).await?;
        Ok(name)
    }

    async fn put_all(&mut self) -> Result<String> {
        let name = checkpoint_name(self.snapshot.version);
        if let Some((encoder, _)) = self.open.take() {
            let bytes = self.encoded(encoder).await?;
            self.put(&name, bytes).await?;
        }
        Ok(name)
    }

    async fn encoded(&mut self, encoder: CheckpointEncoder) -> Result<Bytes> {
        let (bytes, rows) = blocking(move || encoder.finish()).await?;
        self.rows += rows;
        Ok(bytes)
    }

    async fn put(&mut self, name: &str, bytes: Bytes) -> Result<()> {
        self.size += self.target.file(name, bytes).await?;
        Ok(())
    }
}

/// Writes the checkpoint of a snapshot, unless its version has one. With `repair`, what is left of
/// a torn write of it is replaced.
///
/// # Errors
/// Those of [`encode_checkpoint`] and of the sink; `Corrupt` if something stands there that is no
/// Parquet file, or not what its name says.
pub async fn write_checkpoint(
    backend: &dyn CatalogBackend,
    snapshot: &Snapshot,
    sink: &dyn MirrorSink,
    repair: bool,
) -> Result<CheckpointInfo> {
    let mut putting = Putting { sink, repair, created: false };
    let encoded = encode_checkpoint(backend, snapshot, &mut putting).await?;
    let EncodedCheckpoint { name, actions, add_files, size_bytes } = encoded;
    let created = putting.created;
    Ok(CheckpointInfo { version: snapshot.version, name, actions, add_files, size_bytes, created })
}

/// Puts the files of a checkpoint.
struct Putting<'a> {
    sink: &'a dyn MirrorSink,
    repair: bool,
    /// Whether the last file was not there before.
    created: bool,
}

#[async_trait]
impl CheckpointTarget for Putting<'_> {
    async fn file(&mut self, name: &str, bytes: Bytes) -> Result<u64> {
        let len = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let found = put_over_torn(self.sink, name, &bytes, self.repair).await?;
        self.created = found == Put::Created;
        let foreign = match found {
            Put::Created | Put::Same => return Ok(len(bytes.len())),
            Put::Foreign(foreign) => foreign,
        };
        if foreign.torn {
            let text = torn_text(&self.sink.describe(), name, foreign);
            return Err(CatalogError::busy(text, WriteState::NotApplied));
        }
        // Another engine that read our log, or another version of this one: as good as ours, if it
        // is whole. A name that stands for its content has no other.
        let whole = name.ends_with(".checkpoint.parquet")
            && is_parquet(&self.sink.get(name).await?.unwrap_or_default());
        if whole {
            return Ok(len(foreign.found));
        }
        Err(CatalogError::corrupt(format!(
            "'{}/{name}' is no Parquet file of this checkpoint: it was damaged, or another program \
             wrote it. Readers that come across it fail: delete it",
            self.sink.describe()
        )))
    }
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
    let mut lines = Vec::new();
    canonical(value, "", true, &mut lines);
    hex::encode(Md5::digest(lines.join(",").as_bytes()))
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

fn encode_error(e: impl std::fmt::Display) -> CatalogError {
    CatalogError::invalid(format!("cannot encode a checkpoint: {e}"))
}

#[cfg(test)]
#[path = "checkpoint/tests.rs"]
mod tests;
