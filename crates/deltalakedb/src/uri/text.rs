//! The pieces that URLs are made of: percent-encoding, numbers, durations, words.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What is encoded in a path of a file: what would end it, and what would not print.
pub(super) const IN_PATH: &AsciiSet = &CONTROLS.add(b'%').add(b'?');
/// What is encoded in a table's segment or an option's value.
pub(super) const IN_SEGMENT: &AsciiSet = &IN_PATH.add(b'/').add(b'&').add(b'=');
/// What is encoded in any part of a server's URL but a path in an option: all that separates parts
/// somewhere in it, and what shells and other readers of URLs take for something else.
pub(super) const IN_SERVER: &AsciiSet = &IN_SERVER_PATH.add(b'/');
/// The same in an option's value that is a path.
pub(super) const IN_SERVER_PATH: &AsciiSet = &CONTROLS
    .add(b'%')
    .add(b'?')
    .add(b'&')
    .add(b'=')
    .add(b'@')
    .add(b':')
    .add(b'#')
    .add(b',')
    .add(b'+')
    .add(b' ')
    .add(b'"')
    .add(b'\'')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'[')
    .add(b']');

/// Splits what follows `scheme://` at the first `?`.
pub(super) fn split_query(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    }
}

/// The `name=value` pairs of a query, as they stand.
pub(super) fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Writes `?a=b`, then `&c=d`: the options of a URL.
pub(super) struct QueryWriter<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    sign: char,
}

impl<'a, 'f> QueryWriter<'a, 'f> {
    pub(super) fn new(f: &'a mut fmt::Formatter<'f>) -> Self {
        QueryWriter { f, sign: '?' }
    }

    /// Writes an option with these characters of its value encoded.
    pub(super) fn option(
        &mut self,
        name: &str,
        value: &str,
        encoded: &'static AsciiSet,
    ) -> fmt::Result {
        write!(self.f, "{}{name}={}", self.sign, utf8_percent_encode(value, encoded))?;
        self.sign = '&';
        Ok(())
    }
}

/// Percent-decodes. Unlike browsers it does not let a `%` stand for itself: a path that was meant
/// otherwise would become another file. `what` is named in errors, the text itself is not.
pub(super) fn decode(what: &str, text: &str) -> Result<String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        let hex = after.as_bytes().get(..2).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
        if !hex {
            return Err(CatalogError::invalid(format!(
                "{what} has a '%' that is not followed by two hexadecimal digits: write a percent \
                 sign as %25"
            )));
        }
        rest = after;
    }
    let decoded = percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| CatalogError::invalid(format!("{what} is not UTF-8 when decoded")))?;
    if decoded.contains('\0') {
        return Err(CatalogError::invalid(format!("{what} contains NUL")));
    }
    Ok(decoded.into_owned())
}

/// The start of foreign text, without control characters.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

/// A whole number.
pub(super) fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| {
        CatalogError::invalid(format!(
            "option {name} of the catalog's URL must be a whole number, not '{}'",
            printable(value)
        ))
    })
}

/// A number of times.
pub(super) fn at_least_one(name: &str, number: u32) -> Result<u32> {
    if number == 0 {
        return Err(CatalogError::invalid(format!(
            "option {name} of the catalog's URL must be at least 1"
        )));
    }
    Ok(number)
}

/// A number of rows that are read at a time.
pub(super) fn page_size(name: &str, number: u32) -> Result<u32> {
    if !(100..=10_000).contains(&number) {
        return Err(CatalogError::invalid(format!(
            "option {name} of the catalog's URL must be from 100 to 10000 rows"
        )));
    }
    Ok(number)
}

/// `true` or `false`, in the words of configuration files and drivers.
pub(super) fn boolean(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(CatalogError::invalid(format!(
            "option {name} of the catalog's URL must be true or false"
        ))),
    }
}

/// `500ms`, `30s`, `5m`, `2h`, `1d`; a plain number is seconds.
pub(super) fn duration(name: &str, value: &str) -> Result<Duration> {
    parse_duration(value).ok_or_else(|| {
        CatalogError::invalid(format!(
            "option {name} of the catalog's URL must be a duration of at most 365d: a whole number \
             of seconds, or one with a unit such as 500ms, 30s, 5m, 2h"
        ))
    })
}

/// The same; none if it is no duration, or too long.
pub(crate) fn parse_duration(value: &str) -> Option<Duration> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let unit_ms = match unit {
        "ms" => Some(1_u64),
        "" | "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let ms = number.parse::<u64>().ok().zip(unit_ms).and_then(|(n, ms)| n.checked_mul(ms));
    // Drivers add durations to instants: what overflows there is no sensible setting.
    ms.filter(|ms| *ms <= MAX_DURATION_MS).map(Duration::from_millis)
}

/// A year.
const MAX_DURATION_MS: u64 = 365 * 86_400_000;

/// A duration as [`duration`] reads it.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("30", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            let read = duration("x", text).unwrap();
            assert_eq!(read, Duration::from_millis(ms), "{text}");
            assert_eq!(duration("x", &show_duration(read)).unwrap(), read);
        }
        for text in ["", "s", "-1", "1.5s", "1 s", "1w", "٣s", "366d", "99999999999999999999"] {
            let e = duration("idle_timeout", text).unwrap_err().to_string();
            assert!(e.contains("idle_timeout") && e.contains("500ms, 30s, 5m"), "{text}: {e}");
        }
    }
}
