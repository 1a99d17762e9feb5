//! An independent opinion: the state of a table as the Delta kernel reads it from the files alone.
//!
//! The kernel shares no code with [`crate::log`], so agreement of the two means something. It
//! replays the log in memory: right for validating and comparing, not for serving.
//!
//! The kernel comes with the cargo feature `kernel`, and brings HTTP clients along. Without the feature
//! [`read_state`] is an `Unsupported` error: imports are not validated, and [`crate::diff`] compares
//! the bytes of commits alone.

#[cfg(feature = "kernel")]
mod engine;
#[cfg(not(feature = "kernel"))]
mod without;

#[cfg(feature = "kernel")]
pub use engine::{count_rows, read_state};
#[cfg(not(feature = "kernel"))]
pub use without::read_state;

#[cfg(feature = "kernel")]
use engine::feature_name;
#[cfg(not(feature = "kernel"))]
use without::feature_name;

use std::collections::{BTreeMap, BTreeSet};

use deltalakedb_catalog_core::action::{
    DomainMetadata, FileKey, Metadata, NullableMap, Protocol, Txn,
};
#[cfg(feature = "kernel")]
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::Version;

#[cfg(feature = "kernel")]
use crate::store::LOG_FOLDER;

/// Where a log lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogLocation {
    /// URL or local path of a table root, the folder above `_delta_log/`.
    Table(String),
    /// URL or local path of a `_delta_log/` folder; its parent need not hold any data.
    LogDir(String),
}

impl LogLocation {
    #[cfg(feature = "kernel")]
    fn root(&self) -> Result<&str> {
        match self {
            LogLocation::Table(root) => Ok(root),
            LogLocation::LogDir(dir) => {
                let dir = dir.trim_end_matches('/');
                match dir.strip_suffix(LOG_FOLDER) {
                    Some("") => Ok("."),
                    Some(root) if root.ends_with('/') => Ok(root),
                    _ => Err(CatalogError::invalid(format!(
                        "the log folder '{dir}' is not named '{LOG_FOLDER}', as Delta readers \
                         need it"
                    ))),
                }
            }
        }
    }
}

/// A file of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelFile {
    /// Partition values.
    pub partition_values: NullableMap,
    /// Size, bytes.
    pub size: i64,
    /// Milliseconds since the epoch.
    pub modification_time: i64,
    /// Statistics, JSON text (made by the kernel where a checkpoint has them as a struct only).
    pub stats: Option<String>,
    /// Rows that its deletion vector removes.
    pub deleted_rows: Option<i64>,
    /// Tags.
    pub tags: Option<NullableMap>,
    /// Row tracking.
    pub base_row_id: Option<i64>,
    /// Row tracking.
    pub default_row_commit_version: Option<i64>,
}

/// State of a table at one version.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelState {
    /// Version.
    pub version: Version,
    /// Protocol.
    pub protocol: Protocol,
    /// Metadata, as written. The kernel drops properties whose value is null.
    pub metadata: Metadata,
    /// Files.
    pub files: BTreeMap<FileKey, KernelFile>,
    /// Latest application transactions, by application. Those past their retention included.
    pub txns: BTreeMap<String, Txn>,
    /// Domain metadata in force, by domain, those of the system included.
    pub domain_metadata: BTreeMap<String, DomainMetadata>,
}

/// Whether two protocols ask the same of a client. Feature lists are compared as sets, and by the
/// names that the kernel knows features by: some have had others in their previews.
#[must_use]
pub fn same_protocol(a: &Protocol, b: &Protocol) -> bool {
    let set = |features: &Option<Vec<String>>| {
        features.as_ref().map(|f| {
            let names = f.iter().map(|name| feature_name(name));
            names.collect::<BTreeSet<_>>()
        })
    };
    a.min_reader_version == b.min_reader_version
        && a.min_writer_version == b.min_writer_version
        && set(&a.reader_features) == set(&b.reader_features)
        && set(&a.writer_features) == set(&b.writer_features)
}
