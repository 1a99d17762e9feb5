//! Spans of the engine and of the crates above it. They have the level `trace`: a span costs nothing where nobody asks
//! for it. Names and fields are documented (docs/src/operate/configuration.md, "Traces"). No field has a path, a predicate, a statement
//! or the text of an error: these may have values of the user's in them, or signed URLs.

use deltalakedb_catalog_core::ids::TableRef;
use tracing::Span;
use tracing::field::Empty;

/// Opening a table.
pub(crate) fn open(table: &TableRef) -> Span {
    tracing::trace_span!(
        "open",
        %table,
        version = Empty,
        otel.status_code = Empty,
        error.type = Empty
    )
}

/// Finding the files of a table for a filter.
pub(crate) fn plan(table: &impl std::fmt::Display) -> Span {
    tracing::trace_span!("plan", %table, otel.status_code = Empty, error.type = Empty)
}

/// A commit as its caller sees it, with its repetitions.
pub(crate) fn commit(tables: usize) -> Span {
    tracing::trace_span!(
        "commit",
        tables = number(tables),
        table = Empty,
        version = Empty,
        replayed = Empty,
        attempts = Empty,
        otel.status_code = Empty,
        error.type = Empty
    )
}

/// A number as a field: subscribers that send fields take signed ones as numbers, and others as text.
#[must_use]
pub fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// Says how the work of a span ended: with the stable code of an error, if there is one.
pub fn ended(span: &Span, code: Option<&'static str>) {
    if let Some(code) = code {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", code);
    }
}
