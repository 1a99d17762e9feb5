//! Why a command ended early, for people and for programs.

use std::fmt;
use std::io;

use deltalakedb::core::error::{CatalogError, WriteState};
use deltalakedb::core::error::{Determinate, WriteError};
use deltalakedb::core::ids::InvalidId;
#[cfg(feature = "sql")]
use deltalakedb::deltalake::explain::Explained;
use serde_json::{Map, Value, json};

/// Result of a command's parts.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Process exit codes.
pub(crate) mod exit {
    /// Done.
    pub(crate) const OK: u8 = 0;
    /// Failed; the message says why.
    pub(crate) const ERROR: u8 = 1;
    /// The command line was not understood (clap's own; `dl diff` uses 1 there).
    pub(crate) const USAGE: u8 = 2;
    /// `dl diff`: catalog and log differ.
    pub(crate) const DRIFT: u8 = 2;
    /// `dl check`, `dl doctor`: something is wrong, or could be better.
    pub(crate) const FINDINGS: u8 = 2;
    /// `dl diff`: the log is behind by more than allowed, and otherwise right.
    pub(crate) const LAG: u8 = 3;
    /// Ctrl-C, as shells report it (128 + SIGINT).
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// An error on its way to the user.
#[derive(Debug)]
pub(crate) enum Failure {
    /// From the library.
    Catalog(CatalogError),
    /// Of a file or stream.
    Io {
        /// What was being done.
        what: String,
        /// What the system says.
        error: io::Error,
    },
    /// Whoever read our output has gone: nothing to say, and nobody to say it to.
    BrokenPipe,
    /// Ctrl-C, and what to do to go on.
    Interrupted(String),
    /// Something that must agree does not.
    Mismatch(String),
    /// From the query engine.
    #[cfg(feature = "sql")]
    Engine(String),
}

impl Failure {
    /// Bad input, in a full sentence.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Failure::Catalog(CatalogError::invalid(message))
    }

    /// A failed read or write of a file.
    pub(crate) fn io(what: impl Into<String>, error: io::Error) -> Self {
        Failure::Io { what: what.into(), error }
    }

    /// Stable name of the kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Failure::Catalog(error) => kind_of(error),
            Failure::Io { .. } | Failure::BrokenPipe => "io",
            Failure::Interrupted(_) => "interrupted",
            Failure::Mismatch(_) => "mismatch",
            #[cfg(feature = "sql")]
            Failure::Engine(_) => "query",
        }
    }

    /// Exit code of a command that fails so.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::BrokenPipe => exit::OK,
            Failure::Interrupted(_) => exit::INTERRUPTED,
            _ => exit::ERROR,
        }
    }

    /// As JSON: `{"error": {"kind": …, "message": …, …}}`.
    pub(crate) fn to_json(&self) -> Value {
        let mut error = Map::new();
        error.insert("kind".into(), json!(self.kind()));
        error.insert("message".into(), json!(self.to_string()));
        if let Failure::Catalog(cause) = self {
            error.insert("retryable".into(), json!(cause.is_retryable()));
            error.insert(
                "may_have_happened".into(),
                json!(cause.write_state() == WriteState::Unknown),
            );
            if let CatalogError::CommitUnknown { token, .. } = cause {
                error.insert("token".into(), json!(token));
            }
        }
        json!({ "error": error })
    }
}

/// Stable name of a library error's kind.
fn kind_of(error: &CatalogError) -> &'static str {
    match error {
        CatalogError::InvalidInput(_) => "invalid_input",
        CatalogError::TableNotFound(_) => "table_not_found",
        CatalogError::TableExists(_) => "table_exists",
        CatalogError::VersionNotFound { .. } => "version_not_found",
        CatalogError::Conflict(_) => "conflict",
        CatalogError::TableFrozen(_) => "table_frozen",
        CatalogError::Unsupported(_) => "unsupported",
        CatalogError::Schema(_) => "schema",
        CatalogError::Corrupt(_) => "corrupt",
        CatalogError::Unavailable { .. } => "unavailable",
        CatalogError::CommitUnknown { .. } => "commit_unknown",
        _ => "error",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Catalog(error) => error.fmt(f),
            Failure::Io { what, error } => write!(f, "{what}: {error}"),
            Failure::BrokenPipe => f.write_str("the output was closed"),
            Failure::Interrupted(next) => {
                write!(f, "interrupted. Nothing is lost or half done: {next}")
            }
            Failure::Mismatch(message) => f.write_str(message),
            #[cfg(feature = "sql")]
            Failure::Engine(message) => f.write_str(message),
        }
    }
}

impl From<Determinate> for Failure {
    fn from(error: Determinate) -> Self {
        Failure::Catalog(error.into())
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Failure::Catalog(error.into())
    }
}

impl From<InvalidId> for Failure {
    fn from(error: InvalidId) -> Self {
        Failure::Catalog(error.into())
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        Failure::Catalog(error)
    }
}

#[cfg(feature = "sql")]
impl From<Explained> for Failure {
    fn from(explained: Explained) -> Self {
        match explained {
            Explained::Catalog(error) => Failure::Catalog(error),
            Explained::Engine(text) => Failure::Engine(text),
        }
    }
}

/// An error of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Failure::BrokenPipe
        } else {
            Failure::io("cannot write the output", error)
        }
    }
}
