//! Where published objects go. The mirror crate implements it on object stores.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::ids::TimestampMs;

/// Answer of a put-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is there now, with our bytes.
    Created,
    /// An object was there before; it was not touched.
    Exists,
}

/// Answer of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// The object has our bytes now.
    Done,
    /// The object is gone or has other bytes than were expected; it was not touched.
    Changed,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkEntry {
    /// Path relative to the log folder (`00000000000000000000.json`, `_sidecars/x.parquet`).
    pub name: String,
    /// Size, bytes.
    pub size_bytes: u64,
    /// Modification time.
    pub modified: TimestampMs,
}

/// One table's `_delta_log/` on some storage.
///
/// Names are relative to the log folder and never contain `..`. An error with `WriteState::Unknown`
/// means that the object may be there.
#[async_trait]
pub trait MirrorSink: Debug + Send + Sync + 'static {
    /// Creates an object with these bytes unless one exists.
    ///
    /// 1. Atomic: a reader sees the whole object or none, also after a crash.
    /// 2. Exactly one of several racing callers gets `Created`.
    /// 3. `Created` = durable.
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<PutOutcome>;

    /// Replaces an object whose bytes are `expected`, atomically and durably. Only for what a torn
    /// write left behind.
    ///
    /// 1. An object with other bytes is not touched: compare-and-swap where the storage has it. A
    ///    file system has none: there the bytes are compared right before.
    async fn replace(&self, name: &str, expected: &[u8], bytes: Bytes) -> Result<Replaced>;

    /// Creates or replaces an object, atomically and durably. Only for `_last_checkpoint`.
    async fn put_replace(&self, name: &str, bytes: Bytes) -> Result<()>;

    /// Deletes an object; one that is not there is fine. Only for expired parts of a log.
    async fn delete(&self, name: &str) -> Result<()>;

    /// The whole object, or none.
    async fn get(&self, name: &str) -> Result<Option<Bytes>>;

    /// Objects whose name is greater than `after` (all, if none), ascending.
    async fn list(&self, after: Option<&str>) -> Result<Vec<SinkEntry>>;

    /// Sets the modification time where the storage can (a hint for readers that time-travel by
    /// it); does nothing elsewhere.
    async fn set_modified(&self, name: &str, modified: TimestampMs) -> Result<()>;

    /// For messages: where this is, without secrets.
    fn describe(&self) -> String;
}
