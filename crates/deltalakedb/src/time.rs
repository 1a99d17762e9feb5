//! Times as people give them.

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
