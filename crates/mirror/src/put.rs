//! Putting an object whose bytes are known: created, there already, or someone else's.

use bytes::Bytes;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::Version;
use deltalakedb_catalog_core::sink::{MirrorSink, PutOutcome, Replaced};
use sha2::{Digest, Sha256};

/// What stands under a name now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// Our bytes, written by this call.
    Created,
    /// Our bytes, written before (by an earlier run that died, or by a lost answer).
    Same,
    /// Other bytes. They were not touched.
    Foreign(ForeignBytes),
}

/// Bytes that are not those of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForeignBytes {
    /// How many there are.
    pub(crate) found: usize,
    /// How many ours are.
    pub(crate) ours: usize,
    /// Whether they are the first part of ours: a write that a store tore apart.
    pub(crate) torn: bool,
}

impl ForeignBytes {
    /// Where two texts differ, if they do.
    pub(crate) fn compare(found: &[u8], ours: &[u8]) -> Option<ForeignBytes> {
        (found != ours).then(|| ForeignBytes {
            found: found.len(),
            ours: ours.len(),
            torn: ours.starts_with(found),
        })
    }
}

/// Name of a commit's file.
pub(crate) fn commit_name(version: Version) -> String {
    format!("{}.json", version.padded())
}

/// SHA-256, lower-case hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Puts an object unless one of that name exists; an existing one is compared byte for byte.
///
/// Safe to repeat after any failure.
pub(crate) async fn put(sink: &dyn MirrorSink, name: &str, bytes: &Bytes) -> Result<Put> {
    match sink.put_if_absent(name, bytes.clone()).await? {
        PutOutcome::Created => Ok(Put::Created),
        PutOutcome::Exists => {
            let found = sink.get(name).await?.ok_or_else(|| {
                CatalogError::busy(
                    format!("'{}/{name}' went away while it was looked at", sink.describe()),
                    WriteState::NotApplied,
                )
            })?;
            Ok(ForeignBytes::compare(&found, bytes).map_or(Put::Same, Put::Foreign))
        }
    }
}

/// As [`put`], and where a torn write stands (a beginning of these bytes, left by a store that is
/// not atomic) and `repair` says that it had time to become whole, it is replaced.
///
/// What is replaced can only be a write of ours: another writer's commit begins with other bytes,
/// and one that is still being written has grown by the time of a repair.
pub(crate) async fn put_over_torn(
    sink: &dyn MirrorSink,
    name: &str,
    bytes: &Bytes,
    repair: bool,
) -> Result<Put> {
    let foreign = match put(sink, name, bytes).await? {
        Put::Foreign(foreign) => foreign,
        fine => return Ok(fine),
    };
    if !(foreign.torn && repair) {
        return Ok(Put::Foreign(foreign));
    }
    let torn = bytes.slice(..foreign.found);
    tracing::warn!(name, at = %sink.describe(), found = foreign.found, "replacing a torn write");
    match sink.replace(name, &torn, bytes.clone()).await? {
        Replaced::Done => Ok(Put::Created),
        // It has changed since: looked at anew, and not touched again.
        Replaced::Changed => put(sink, name, bytes).await,
    }
}

/// What is said of an object that holds a beginning of what belongs there.
pub(crate) fn torn_text(log_dir: &str, name: &str, foreign: ForeignBytes) -> String {
    format!(
        "'{log_dir}/{name}' holds the first {} of {} bytes, as after a torn write. It is replaced at \
         the next attempt, if it still does",
        foreign.found, foreign.ours
    )
}
