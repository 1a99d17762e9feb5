//! Errors, as the Python side raises them: `deltalakedb.exceptions` has one class for each code.

use deltalakedb::CatalogError;
use deltalakedb::deltalake::explain::Explained;
use pyo3::prelude::*;
use serde_json::{Value, json};

/// Codes of this crate's own, beside [`CatalogError::CODES`].
pub(crate) const OWN_CODES: [&str; 6] = [CLOSED, SCHEMA_MISMATCH, QUERY, TIMEOUT, FORKED, INTERNAL];

/// A catalog that this program has closed.
pub(crate) const CLOSED: &str = "catalog_closed";
/// Rows that do not fit their table.
pub(crate) const SCHEMA_MISMATCH: &str = "schema_mismatch";
/// What the query engine cannot do.
pub(crate) const QUERY: &str = "query";
/// What took longer than its limit.
pub(crate) const TIMEOUT: &str = "timeout";
/// What belongs to the process that this one was forked from.
pub(crate) const FORKED: &str = "forked";
/// A fault of this package.
pub(crate) const INTERNAL: &str = "internal";

/// Result of work that Python waits for.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug)]
pub(crate) struct Failure {
    code: &'static str,
    message: String,
    table: Option<String>,
    details: Value,
}

impl Failure {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), table: None, details: json!({}) }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        CatalogError::invalid(message).into()
    }

    /// With the table that it is about, if that is not known yet.
    pub(crate) fn of_table(mut self, table: &str) -> Failure {
        self.table.get_or_insert_with(|| table.to_owned());
        self
    }

    /// With another code.
    pub(crate) fn with_code(mut self, code: &'static str) -> Failure {
        self.code = code;
        self
    }

    /// The table that it is about.
    pub(crate) fn table(&self) -> Option<&str> {
        self.table.as_deref()
    }

    /// With a table's name in place of its id.
    pub(crate) fn with_name(mut self, id: &str, name: &str) -> Failure {
        self.message = self.message.replace(id, name);
        self.table = Some(name.to_owned());
        self
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The exception.
    pub(crate) fn raise(self, py: Python<'_>) -> PyErr {
        let made = py.import("deltalakedb.exceptions").and_then(|module| {
            let arguments = (self.code, &self.message, self.table, self.details.to_string());
            module.call_method1("_of_native", arguments)
        });
        made.map_or_else(|error| error, PyErr::from_value)
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        let (table, details) = match &error {
            CatalogError::TableNotFound(table) => (Some(table.clone()), json!({})),
            CatalogError::TableExists(name) => (Some(name.to_string()), json!({})),
            CatalogError::VersionNotFound { table, version, earliest, latest } => (
                Some(table.clone()),
                json!({ "version": version, "earliest": earliest.get(), "latest": latest.get() }),
            ),
            CatalogError::Conflict(conflict) => {
                let version = |v: Option<deltalakedb::Version>| v.map(deltalakedb::Version::get);
                (
                    Some(conflict.table.clone()),
                    json!({
                        "read_version": version(conflict.read_version),
                        "winning_version": version(conflict.winning_version),
                        "kind": conflict.kind.label(),
                    }),
                )
            }
            CatalogError::TableFrozen(frozen) => {
                (Some(frozen.table.clone()), json!({ "reason": frozen.reason }))
            }
            CatalogError::CommitUnknown { token, .. } => (None, json!({ "token": token.as_str() })),
            _ => (None, json!({})),
        };
        Failure { code: error.code(), message: error.to_string(), table, details }
    }
}

impl From<Explained> for Failure {
    fn from(error: Explained) -> Self {
        match error {
            Explained::Catalog(error) => error.into(),
            Explained::Engine(text) => Failure::new(QUERY, text),
        }
    }
}
