//! A conflict between two commits, as a value. The engine decides whether there is one.

use std::fmt;

use crate::ids::Version;

/// Why two commits do not go together. The names are Delta's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConflictKind {
    /// The winner changed the protocol.
    ProtocolChanged,
    /// The winner changed the metadata.
    MetadataChanged,
    /// The winner added a file to what this commit read.
    ConcurrentAppend {
        /// Path of that file.
        path: String,
    },
    /// The winner removed a file that this commit read.
    ConcurrentDeleteRead {
        /// Path of that file.
        path: String,
    },
    /// Both remove the same file.
    ConcurrentDeleteDelete {
        /// Path of that file.
        path: String,
    },
    /// Both move the same application's progress, or the winner moved one that was read.
    ConcurrentTransaction {
        /// The application.
        app_id: String,
    },
    /// Both set the same domain.
    ConcurrentDomainMetadata {
        /// The domain.
        domain: String,
    },
    /// The application recorded this or a later version before: its data is in the table already.
    TransactionApplied {
        /// The application.
        app_id: String,
        /// Version it wants to write.
        wanted: i64,
        /// Version the table has.
        recorded: i64,
    },
    /// The version that the commit was to become is there already.
    VersionTaken,
    /// The table was dropped meanwhile.
    TableDropped,
    /// The commits kept changing for longer than the bound.
    TooManyAttempts {
        /// Attempts made.
        attempts: u32,
    },
}

impl ConflictKind {
    /// All values of [`ConflictKind::label`].
    pub const LABELS: [&'static str; 11] = [
        "protocol_changed",
        "metadata_changed",
        "concurrent_append",
        "concurrent_delete_read",
        "concurrent_delete_delete",
        "concurrent_transaction",
        "concurrent_domain_metadata",
        "transaction_applied",
        "version_taken",
        "table_dropped",
        "too_many_attempts",
    ];

    /// The kind as one word in snake case, which stays the same from version to version.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            ConflictKind::ProtocolChanged => "protocol_changed",
            ConflictKind::MetadataChanged => "metadata_changed",
            ConflictKind::ConcurrentAppend { .. } => "concurrent_append",
            ConflictKind::ConcurrentDeleteRead { .. } => "concurrent_delete_read",
            ConflictKind::ConcurrentDeleteDelete { .. } => "concurrent_delete_delete",
            ConflictKind::ConcurrentTransaction { .. } => "concurrent_transaction",
            ConflictKind::ConcurrentDomainMetadata { .. } => "concurrent_domain_metadata",
            ConflictKind::TransactionApplied { .. } => "transaction_applied",
            ConflictKind::VersionTaken => "version_taken",
            ConflictKind::TableDropped => "table_dropped",
            ConflictKind::TooManyAttempts { .. } => "too_many_attempts",
        }
    }
}

/// A conflict, with where it happened. Nothing of the batch was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Table as the caller named it.
    pub table: String,
    /// The version that the writer read.
    pub read_version: Option<Version>,
    /// The version that won, where one did.
    pub winning_version: Option<Version>,
    /// Why.
    pub kind: ConflictKind,
}

impl std::error::Error for Conflict {}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit to table '{}' conflicts", self.table)?;
        if let Some(v) = self.winning_version {
            write!(f, " with version {v}")?;
        }
        if let Some(v) = self.read_version {
            write!(f, " (it was planned on version {v})")?;
        }
        f.write_str(": ")?;
        match &self.kind {
            ConflictKind::ProtocolChanged => f.write_str("the protocol changed"),
            ConflictKind::MetadataChanged => f.write_str("the metadata changed"),
            ConflictKind::ConcurrentAppend { path } => {
                write!(f, "file '{path}' was added to what the commit read (ConcurrentAppend)")
            }
            ConflictKind::ConcurrentDeleteRead { path } => {
                write!(
                    f,
                    "file '{path}', which the commit read, was removed (ConcurrentDeleteRead)"
                )
            }
            ConflictKind::ConcurrentDeleteDelete { path } => {
                write!(f, "file '{path}' was removed by both (ConcurrentDeleteDelete)")
            }
            ConflictKind::ConcurrentTransaction { app_id } => {
                write!(f, "application '{app_id}' moved on (ConcurrentTransaction)")
            }
            ConflictKind::ConcurrentDomainMetadata { domain } => {
                write!(f, "domain '{domain}' was set by both (ConcurrentDomainMetadata)")
            }
            ConflictKind::TransactionApplied { app_id, wanted, recorded } => write!(
                f,
                "application '{app_id}' wrote version {recorded} before, this is {wanted}: \
                 its data is in the table already"
            ),
            ConflictKind::VersionTaken => f.write_str("that version is there already"),
            ConflictKind::TableDropped => f.write_str("the table was dropped"),
            ConflictKind::TooManyAttempts { attempts } => {
                write!(f, "still racing other writers after {attempts} attempts")
            }
        }?;
        f.write_str(". Nothing was written; read the table again and redo the commit")
    }
}
