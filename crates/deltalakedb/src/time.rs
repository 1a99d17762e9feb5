//! Times as people give them.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;

/// The forms that [`parse`] reads, for help texts.
pub const FORMS: &str =
    "RFC 3339, YYYY-MM-DD, 'YYYY-MM-DD HH:MM:SS' (both UTC) or Unix milliseconds";

/// Reads a time. A date is its midnight in UTC.
///
/// # Errors
/// `InvalidInput` that lists the forms.
pub fn parse(text: &str) -> Result<TimestampMs> {
    let text = text.trim();
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(TimestampMs(ms));
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(TimestampMs(time.timestamp_millis()));
    }
    for form in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, form) {
            return Ok(TimestampMs(time.and_utc().timestamp_millis()));
        }
    }
    if let Some(time) =
        NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|date| date.and_hms_opt(0, 0, 0))
    {
        return Ok(TimestampMs(time.and_utc().timestamp_millis()));
    }
    Err(CatalogError::invalid(format!("'{}' is not a time: give {FORMS}", text.escape_debug())))
}

/// Reads a length of time: `500ms`, `30s`, `15m`, `12h`, `90d`; at most 365 days. A plain number is seconds.
///
/// # Errors
/// `InvalidInput` that lists the units.
pub fn parse_length(text: &str) -> Result<Duration> {
    crate::uri::parse_duration(text).ok_or_else(|| {
        let text = text.escape_debug();
        CatalogError::invalid(format!(
            "'{text}' is not a length of time: give a whole number and ms, s, m, h or d, at most 365d"
        ))
    })
}
