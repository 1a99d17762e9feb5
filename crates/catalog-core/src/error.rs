//! The one error type that crosses crates. A new kind exists only where a caller acts differently.

use thiserror::Error;

use crate::conflict::Conflict;
use crate::frozen::Frozen;
use crate::ids::{CommitToken, InvalidId, TableName, Version};

/// Result of every fallible call in the workspace's libraries.
pub type Result<T, E = CatalogError> = std::result::Result<T, E>;

/// Whether a failed write may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteState {
    /// Nothing was written: trying again is safe.
    NotApplied,
    /// The answer to COMMIT was lost. Ask `resolve_token` which it is.
    Unknown,
}

/// What went wrong. Display text says what, where and what to do; it never contains a secret.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The caller's input is wrong; the same call will fail again.
    #[error("{0}")]
    InvalidInput(String),
    /// No table of this name or id.
    #[error("table '{0}' is not in the catalog (see `dl list`, or `dl list --dropped`)")]
    TableNotFound(String),
    /// The name belongs to a live table (or a running import).
    #[error("table '{0}' exists already: choose another name or drop it first")]
    TableExists(TableName),
    /// A version that is not there: never written, or cleaned up.
    #[error(
        "table '{table}' has no version {version}: versions {earliest} to {latest} can be read"
    )]
    VersionNotFound {
        /// Table as the caller named it.
        table: String,
        /// What was asked for: a version, or a time.
        version: String,
        /// First version whose state can be read.
        earliest: Version,
        /// Head.
        latest: Version,
    },
    /// Another commit got there first and the two do not go together.
    #[error("{0}")]
    Conflict(#[from] Box<Conflict>),
    /// The table is frozen: nothing is written to it until it is unfrozen.
    #[error("{0}")]
    TableFrozen(Box<Frozen>),
    /// The table uses something that this writer does not know.
    #[error("{0}")]
    Unsupported(String),
    /// The database is missing our tables, is newer than this program, or belongs to another one.
    #[error("{0}")]
    Schema(String),
    /// Stored or published data contradicts itself.
    #[error("{0}")]
    Corrupt(String),
    /// The database or store did not do it now; `write` says whether it may have happened.
    #[error("{message}{}", if *.retryable { " (temporary: try again)" } else { "" })]
    Unavailable {
        /// What failed, from the driver, without secrets.
        message: String,
        /// Whether the same call may succeed soon (busy, serialization failure, deadlock).
        retryable: bool,
        /// Whether the write may have happened.
        write: WriteState,
    },
    /// A commit's answer was lost and could not be found out within the bound.
    #[error(
        "it is not known whether commit {token} took effect: {message}. \
         Commit again with the same token: it takes effect at most once"
    )]
    CommitUnknown {
        /// Token to retry or resolve with.
        token: CommitToken,
        /// Why.
        message: String,
    },
}

impl From<InvalidId> for CatalogError {
    fn from(error: InvalidId) -> Self {
        CatalogError::InvalidInput(error.to_string())
    }
}

impl CatalogError {
    /// All values of [`CatalogError::code`].
    pub const CODES: [&'static str; 12] = [
        "invalid_input",
        "table_not_found",
        "table_exists",
        "version_not_found",
        "conflict",
        "table_frozen",
        "unsupported",
        "schema",
        "corrupt",
        "busy",
        "unavailable",
        "commit_unknown",
    ];

    /// Bad input, with a full sentence.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        CatalogError::InvalidInput(message.into())
    }

    /// Contradiction in stored data.
    #[must_use]
    pub fn corrupt(message: impl Into<String>) -> Self {
        CatalogError::Corrupt(message.into())
    }

    /// A failure outside of our hands that is not worth an automatic retry.
    #[must_use]
    pub fn failed(message: impl Into<String>, write: WriteState) -> Self {
        CatalogError::Unavailable { message: message.into(), retryable: false, write }
    }

    /// A failure that goes away by itself: busy, deadlock victim, serialization failure.
    #[must_use]
    pub fn busy(message: impl Into<String>, write: WriteState) -> Self {
        CatalogError::Unavailable { message: message.into(), retryable: true, write }
    }

    /// A call to a backend that was closed: nothing was written. `place` names the database.
    #[must_use]
    pub fn closed(place: impl std::fmt::Display) -> Self {
        CatalogError::failed(
            format!("this program has closed the catalog in '{place}': open it again"),
            WriteState::NotApplied,
        )
    }

    /// Whether the write behind this error may have happened.
    #[must_use]
    pub fn write_state(&self) -> WriteState {
        match self {
            CatalogError::Unavailable { write, .. } => *write,
            CatalogError::CommitUnknown { .. } => WriteState::Unknown,
            _ => WriteState::NotApplied,
        }
    }

    /// The kind of this error as a word that stays the same from version to version:
    /// `invalid_input`, `table_not_found`, `table_exists`, `version_not_found`, `conflict`,
    /// `table_frozen`, `unsupported`, `schema`, `corrupt`, `busy` (the same call may succeed soon),
    /// `unavailable`, `commit_unknown`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            CatalogError::InvalidInput(_) => "invalid_input",
            CatalogError::TableNotFound(_) => "table_not_found",
            CatalogError::TableExists(_) => "table_exists",
            CatalogError::VersionNotFound { .. } => "version_not_found",
            CatalogError::Conflict(_) => "conflict",
            CatalogError::TableFrozen(_) => "table_frozen",
            CatalogError::Unsupported(_) => "unsupported",
            CatalogError::Schema(_) => "schema",
            CatalogError::Corrupt(_) => "corrupt",
            CatalogError::Unavailable { retryable: true, .. } => "busy",
            CatalogError::Unavailable { .. } => "unavailable",
            CatalogError::CommitUnknown { .. } => "commit_unknown",
        }
    }

    /// Whether the core may try the same call again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, CatalogError::Unavailable { retryable: true, .. })
    }
}

/// Result of a call that only reads.
pub type ReadResult<T> = std::result::Result<T, Determinate>;

/// Result of a call that writes.
pub type WriteResult<T> = std::result::Result<T, WriteError>;

/// An error after which it is known that nothing was written. [`CatalogError::write_state`] of what is
/// inside is always [`WriteState::NotApplied`].
#[derive(Debug, Error)]
#[error(transparent)]
pub struct Determinate(CatalogError);

/// An error after which it is not known whether the write took effect: the answer to COMMIT was lost.
#[derive(Debug, Error)]
#[error("{message}{}", if *.retryable { " (temporary: try again)" } else { "" })]
pub struct Indeterminate {
    /// What failed, from the driver, without secrets.
    pub message: String,
    /// Whether the same call may succeed soon.
    pub retryable: bool,
}

/// An error of a call that writes.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Nothing was written.
    #[error(transparent)]
    Determinate(#[from] Determinate),
    /// The write may have happened.
    #[error(transparent)]
    Indeterminate(#[from] Indeterminate),
}

/// An answer of a backend with the one error type that callers of the catalog get.
pub trait PlainResult<T> {
    /// The same answer, its error as a [`CatalogError`].
    ///
    /// # Errors
    /// The answer's own.
    fn plain(self) -> Result<T>;
}

impl<T, E: Into<CatalogError>> PlainResult<T> for Result<T, E> {
    fn plain(self) -> Result<T> {
        self.map_err(Into::into)
    }
}

impl Determinate {
    /// The error inside.
    #[must_use]
    pub fn get(&self) -> &CatalogError {
        &self.0
    }

    /// Whether the engine may make the same call again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.is_retryable()
    }
}

impl WriteError {
    /// Whether the write may have happened.
    #[must_use]
    pub fn write_state(&self) -> WriteState {
        match self {
            WriteError::Determinate(_) => WriteState::NotApplied,
            WriteError::Indeterminate(_) => WriteState::Unknown,
        }
    }

    /// Whether the engine may make the same call again, once it is known whether the write happened.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            WriteError::Determinate(error) => error.is_retryable(),
            WriteError::Indeterminate(error) => error.retryable,
        }
    }
}

impl From<CatalogError> for Determinate {
    /// A call that only reads has written nothing, whatever its driver says.
    fn from(error: CatalogError) -> Self {
        Determinate(match error {
            CatalogError::Unavailable { message, retryable, .. } => {
                CatalogError::Unavailable { message, retryable, write: WriteState::NotApplied }
            }
            // The engine's own; a backend has no way to it.
            unknown @ CatalogError::CommitUnknown { .. } => {
                CatalogError::failed(unknown.to_string(), WriteState::NotApplied)
            }
            other => other,
        })
    }
}

impl From<CatalogError> for WriteError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Unavailable { message, retryable, write: WriteState::Unknown } => {
                WriteError::Indeterminate(Indeterminate { message, retryable })
            }
            // The engine's own; a backend has no way to it.
            unknown @ CatalogError::CommitUnknown { .. } => {
                let message = unknown.to_string();
                WriteError::Indeterminate(Indeterminate { message, retryable: false })
            }
            other => WriteError::Determinate(Determinate(other)),
        }
    }
}

impl From<Determinate> for CatalogError {
    fn from(error: Determinate) -> Self {
        error.0
    }
}

impl From<Indeterminate> for CatalogError {
    fn from(Indeterminate { message, retryable }: Indeterminate) -> Self {
        CatalogError::Unavailable { message, retryable, write: WriteState::Unknown }
    }
}

impl From<WriteError> for CatalogError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Determinate(error) => error.into(),
            WriteError::Indeterminate(error) => error.into(),
        }
    }
}

impl From<InvalidId> for Determinate {
    fn from(error: InvalidId) -> Self {
        Determinate(error.into())
    }
}

impl From<InvalidId> for WriteError {
    fn from(error: InvalidId) -> Self {
        WriteError::Determinate(error.into())
    }
}
