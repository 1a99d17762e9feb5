//! Statistics that `deltalake` writes, made true.
//!
//! It takes the bounds of decimals through doubles, and those without a scale through 64-bit integers at
//! which they stop. Readers that choose files by such bounds pass over rows. Here they are widened by
//! more than a double can be wrong, and left out where nothing is known.

use std::borrow::Cow;
use std::collections::BTreeMap;

use deltalakedb_catalog_core::action::{Action, Metadata};
use deltalakedb_catalog_engine::features::column_mapping_enabled;
use deltalakedb_catalog_engine::schema::{DataType, StructField, StructType};
use serde_json::value::{RawValue, to_raw_value};

/// Digits that a double keeps, whatever they are.
const DOUBLE_DIGITS: u8 = 15;
/// Digits up to which those without a scale are exact.
const LONG_DIGITS: u8 = 18;
/// Rounding of the number, of the power of ten, and of their quotient, and then some.
const ERROR: f64 = 4e-15;

/// A decimal column whose bounds may be wrong.
#[derive(Debug)]
struct Column {
    path: Vec<String>,
    precision: u8,
    scale: u8,
}

/// The metadata that a commit sets, if it does.
pub(crate) fn metadata_in(ndjson: &[u8]) -> Option<Metadata> {
    let lines = ndjson.split(|byte| *byte == b'\n');
    let mut found = lines.filter(|line| line.starts_with(b"{\"metaData\"")).filter_map(|line| {
        match Action::parse(std::str::from_utf8(line).ok()?) {
            Ok(Action::Metadata(metadata)) => Some(metadata),
            _ => None,
        }
    });
    found.next()
}

/// Whether a commit has a bound that may be wrong: a number with a point, or with many digits.
pub(crate) fn may_be_wrong(ndjson: &[u8]) -> bool {
    const BEFORE: &[u8] = b"\\\":";
    ndjson.windows(BEFORE.len()).enumerate().filter(|(_, bytes)| *bytes == BEFORE).any(|(at, _)| {
        let number = ndjson[at + BEFORE.len()..].iter();
        let mut number = number.skip_while(|byte| **byte == b' ' || **byte == b'-');
        let whole = number.by_ref().take_while(|byte| byte.is_ascii_digit());
        let length = whole.count();
        length > usize::from(DOUBLE_DIGITS) || length > 0 && has_fraction(&ndjson[at..])
    })
}

/// Whether the first number has a point or an exponent.
fn has_fraction(bytes: &[u8]) -> bool {
    let mut digits = bytes.iter().skip_while(|byte| !byte.is_ascii_digit());
    let after = digits.find(|byte| !byte.is_ascii_digit());
    matches!(after, Some(b'.' | b'e' | b'E'))
}

/// Columns whose bounds must be looked at.
fn columns(metadata: &Metadata) -> Vec<Column> {
    fn visit(fields: &[StructField], mapped: bool, path: &mut Vec<String>, out: &mut Vec<Column>) {
        for field in fields {
            let name = if mapped { field.physical_name() } else { &field.name };
            path.push(name.to_owned());
            match &field.data_type {
                DataType::Struct(inner) => visit(&inner.fields, mapped, path, out),
                DataType::Decimal { precision, scale }
                    if *precision > if *scale == 0 { LONG_DIGITS } else { DOUBLE_DIGITS } =>
                {
                    out.push(Column { path: path.clone(), precision: *precision, scale: *scale });
                }
                _ => {}
            }
            path.pop();
        }
    }
    let mut columns = Vec::new();
    if let Ok(schema) = StructType::parse(&metadata.schema_string) {
        visit(&schema.fields, column_mapping_enabled(metadata), &mut Vec::new(), &mut columns);
    }
    columns
}

/// Lines of a commit that `deltalake` has written, with bounds that hold.
pub(crate) fn made_true<'a>(ndjson: &'a [u8], metadata: &Metadata) -> Cow<'a, [u8]> {
    let columns = columns(metadata);
    if columns.is_empty() {
        return Cow::Borrowed(ndjson);
    }
    let mut out = Vec::with_capacity(ndjson.len());
    let mut changed = false;
    for line in ndjson.split_inclusive(|byte| *byte == b'\n') {
        let edited = line.starts_with(b"{\"add\"").then(|| of_add(line, &columns)).flatten();
        changed |= edited.is_some();
        match edited {
            Some(edited) => {
                out.extend_from_slice(edited.as_bytes());
                if line.ends_with(b"\n") {
                    out.push(b'\n');
                }
            }
            None => out.extend_from_slice(line),
        }
    }
    if changed { Cow::Owned(out) } else { Cow::Borrowed(ndjson) }
}

/// An object, each value as it is written: other numbers keep their digits.
type Raw = BTreeMap<String, Box<RawValue>>;

/// An `add` with other statistics; none if they stay.
fn of_add(line: &[u8], columns: &[Column]) -> Option<String> {
    let mut action: Raw = serde_json::from_slice(line).ok()?;
    let mut add: Raw = serde_json::from_str(action.get("add")?.get()).ok()?;
    let stats: String = serde_json::from_str(add.get("stats")?.get()).ok()?;
    let mut stats: Raw = serde_json::from_str(&stats).ok()?;
    let mut changed = false;
    for (side, down) in [("minValues", true), ("maxValues", false)] {
        for column in columns {
            let Some(bounds) = stats.get(side) else { continue };
            if let Some(bounds) = with_bound(bounds.get(), &column.path, column, down) {
                stats.insert(side.to_owned(), bounds);
                changed = true;
            }
        }
    }
    if !changed {
        return None;
    }
    let stats = serde_json::to_string(&stats).ok()?;
    add.insert("stats".to_owned(), to_raw_value(&stats).ok()?);
    action.insert("add".to_owned(), to_raw_value(&add).ok()?);
    serde_json::to_string(&action).ok()
}

/// Bounds with another one at this path; none if it has none.
fn with_bound(bounds: &str, path: &[String], column: &Column, down: bool) -> Option<Box<RawValue>> {
    let mut bounds: Raw = serde_json::from_str(bounds).ok()?;
    let (name, rest) = path.split_first()?;
    let bound = bounds.get(name)?.get();
    if !rest.is_empty() {
        let inner = with_bound(bound, rest, column, down)?;
        bounds.insert(name.clone(), inner);
        return to_raw_value(&bounds).ok();
    }
    match widened(bound, column, down) {
        Some(wide) => bounds.insert(name.clone(), RawValue::from_string(wide).ok()?),
        None => bounds.remove(name),
    };
    to_raw_value(&bounds).ok()
}

/// A bound beyond what the true one can be; none if that is not known, or is no value of the type:
/// readers fail at such ones.
fn widened(bound: &str, column: &Column, down: bool) -> Option<String> {
    let value: f64 = bound.parse().ok()?;
    if column.scale == 0 && value.abs() >= 9.2e18 {
        return None;
    }
    let unit = 10.0_f64.powi(-i32::from(column.scale));
    let error = value.abs() * ERROR + unit;
    let wide = if down { value - error } else { value + error };
    let limit = 10.0_f64.powi(i32::from(column.precision) - i32::from(column.scale));
    let fits = wide.is_finite() && wide.abs() < limit * (1.0 - ERROR);
    let digits = usize::from(column.scale);
    // What is cut off is less than the unit that was added.
    fits.then(|| format!("{wide:.digits$}"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn bounds_of_decimals_are_widened_or_left_out() {
        let schema = r#"{"type":"struct","fields":[
            {"name":"a","type":"decimal(38,0)","nullable":true,"metadata":{}},
            {"name":"b","type":"decimal(18,2)","nullable":true,"metadata":{}},
            {"name":"c","type":"decimal(10,2)","nullable":true,"metadata":{}},
            {"name":"id","type":"long","nullable":true,"metadata":{}}]}"#;
        let metadata = serde_json::json!({"metaData": {
            "id": "x", "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
            "partitionColumns": [], "configuration": {},
        }});
        let metadata = metadata_in(metadata.to_string().as_bytes()).unwrap();
        let add = |stats: Value| {
            serde_json::json!({"add": {"path": "f", "stats": stats.to_string()}}).to_string() + "\n"
        };
        let written = add(serde_json::json!({
            "numRecords": 2,
            "minValues": {"a": i64::MIN, "b": 1.5, "c": 1.5, "id": i64::MIN},
            "maxValues": {"a": 90, "b": 9_999_999_999_999_999.0, "c": 2.5, "id": 7},
        }));
        let got = made_true(written.as_bytes(), &metadata);
        let got: Value = serde_json::from_slice(&got).unwrap();
        let stats: Value = serde_json::from_str(got["add"]["stats"].as_str().unwrap()).unwrap();
        assert_eq!(stats["minValues"].get("a"), None);
        assert_eq!(stats["maxValues"]["a"], 91);
        let low = stats["minValues"]["b"].as_f64().unwrap();
        assert!((1.48..1.4901).contains(&low), "{low}");
        assert_eq!(stats["maxValues"].get("b"), None);
        assert_eq!(
            (&stats["minValues"]["c"], &stats["maxValues"]["c"]),
            (&1.5.into(), &2.5.into())
        );
        assert_eq!(stats["minValues"]["id"], i64::MIN);
        assert!(may_be_wrong(written.as_bytes()));
        let whole = add(serde_json::json!({"minValues": {"a": 7, "s": "1.5"}}));
        assert!(!may_be_wrong(whole.as_bytes()));
        let other = "{\"commitInfo\":{}}\n{\"add\":{\"path\":\"g\"}}\n";
        assert!(matches!(made_true(other.as_bytes(), &metadata), Cow::Borrowed(_)));
    }
}
