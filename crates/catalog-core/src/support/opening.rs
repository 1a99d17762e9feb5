//! How a table is opened at a version.

use super::corrupt;
use crate::action::{Metadata, Protocol};
use crate::error::{CatalogError, Result};
use crate::ids::{At, TableRef, Version};
use crate::model::{CommitRecord, Snapshot, TableRecord, TableState};

/// A table that is opened: how the caller names it, its record and its head.
#[derive(Debug, Clone)]
pub struct Opened<'n> {
    name: &'n TableRef,
    /// The record.
    pub table: TableRecord,
    /// The latest version.
    pub head: Version,
}

impl<'n> Opened<'n> {
    /// Opens what was found under a name or an id.
    ///
    /// # Errors
    /// `TableNotFound` if there is no table, it has no version yet, or it is importing and asked for by name.
    pub fn new(name: &'n TableRef, found: Option<TableRecord>) -> Result<Opened<'n>> {
        let by_name = matches!(name, TableRef::Name(_));
        let found = found.filter(|t| !(by_name && t.state == TableState::Importing));
        let opened = found.and_then(|t| Some(Opened { name, head: t.head?, table: t }));
        opened.ok_or_else(|| CatalogError::TableNotFound(name.to_string()))
    }

    /// The line of history of the version that was asked for. Versions below the base have one, but no state.
    ///
    /// # Errors
    /// `VersionNotFound`.
    pub fn commit(&self, at: At, found: Option<CommitRecord>) -> Result<CommitRecord> {
        let base = self.table.base_version;
        found.filter(|line| line.version >= base).ok_or_else(|| CatalogError::VersionNotFound {
            table: self.name.to_string(),
            version: match at {
                At::Head => self.head.to_string(),
                At::Version(version) => version.to_string(),
                At::Timestamp(time) => format!("at {time} ms"),
            },
            earliest: base,
            latest: self.head,
        })
    }

    /// The snapshot of a version, from its line of history, and from protocol and metadata in force with the
    /// versions that set them.
    ///
    /// # Errors
    /// `Corrupt` without protocol or metadata.
    pub fn snapshot(
        self,
        commit: &CommitRecord,
        protocol: Option<(Version, Protocol)>,
        metadata: Option<(Version, Metadata)>,
    ) -> Result<Snapshot> {
        let (version, what) = (commit.version, "protocol or metadata");
        let (Some((protocol_version, protocol)), Some((metadata_version, metadata))) =
            (protocol, metadata)
        else {
            let none = "there is none at this version";
            return Err(corrupt(self.name, Some(version.get()), what, none));
        };
        Ok(Snapshot {
            table: self.table,
            version,
            timestamp: commit.timestamp,
            protocol,
            protocol_version,
            metadata,
            metadata_version,
            num_files: commit.total_files,
            size_bytes: commit.total_bytes,
        })
    }
}
