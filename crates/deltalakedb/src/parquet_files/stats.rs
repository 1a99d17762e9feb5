//! Delta statistics from a Parquet footer (protocol section "Per-file Statistics").
//!
//! A bound may be wider than the data, never narrower; where a footer leaves doubt there is none.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, Utc};
use deltalakedb_catalog_core::action::Metadata;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_engine::schema::{DataType, StructType};
use parquet::basic::{ColumnOrder, ConvertedType, LogicalType, TimeUnit};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;

use super::columns::Leaves;

/// Columns with statistics where the table does not say (`delta.dataSkippingNumIndexedCols`).
const DEFAULT_INDEXED: usize = 32;
/// Characters of a string that are kept.
const PREFIX_CHARS: usize = 32;
/// 1582-10-15: readers shift earlier dates by the calendar that the file was written in.
const FIRST_PLAIN_DAY: i128 = -141_427;
/// 1900-01-01 in microseconds: the same for timestamps, with time zones as they were then.
const FIRST_PLAIN_MICROS: i128 = -2_208_988_800_000_000;

/// The columns that get statistics.
#[derive(Debug)]
pub(super) struct Indexed {
    data: StructType,
    leaves: BTreeSet<Vec<String>>,
}

impl Indexed {
    /// From the table's properties: those that `delta.dataSkippingStatsColumns` names, else the
    /// first `delta.dataSkippingNumIndexedCols` leaves in schema order (-1: all).
    pub(super) fn new(metadata: &Metadata, data: &StructType) -> Result<Indexed> {
        let mut all = Vec::new();
        collect(&mut Vec::new(), data, &mut all);
        let leaves = if let Some(list) = metadata.property("delta.dataSkippingStatsColumns") {
            let wanted = column_list(list);
            all.into_iter().filter(|leaf| wanted.iter().any(|w| starts_with(leaf, w))).collect()
        } else {
            let key = "delta.dataSkippingNumIndexedCols";
            let limit = match metadata.property(key).map(|v| (v, v.trim().parse::<i64>())) {
                None => DEFAULT_INDEXED,
                Some((_, Ok(-1))) => usize::MAX,
                Some((text, number)) => {
                    number.ok().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| {
                        CatalogError::invalid(format!(
                            "table property {key} is '{text}': a number of columns, or -1 for all"
                        ))
                    })?
                }
            };
            all.into_iter().take(limit).collect()
        };
        Ok(Indexed { data: data.clone(), leaves })
    }
}

fn collect(path: &mut Vec<String>, fields: &StructType, out: &mut Vec<Vec<String>>) {
    for field in &fields.fields {
        path.push(field.name.clone());
        match &field.data_type {
            DataType::Struct(inner) => collect(path, inner, out),
            _ => out.push(path.clone()),
        }
        path.pop();
    }
}

/// `a, b.c, `d,e``: names of columns and of structs.
fn column_list(text: &str) -> Vec<Vec<String>> {
    let (mut columns, mut path, mut part, mut quoted) = (vec![], vec![], String::new(), false);
    for c in text.chars() {
        match c {
            '`' => quoted = !quoted,
            '.' if !quoted => path.push(std::mem::take(&mut part)),
            ',' if !quoted => {
                path.push(std::mem::take(&mut part));
                columns.push(std::mem::take(&mut path));
            }
            c if c.is_whitespace() && !quoted => {}
            c => part.push(c),
        }
    }
    path.push(part);
    columns.push(path);
    columns
}

fn starts_with(leaf: &[String], wanted: &[String]) -> bool {
    leaf.len() >= wanted.len()
        && leaf.iter().zip(wanted).all(|(a, b)| a.to_lowercase() == b.to_lowercase())
}

/// What is known of one column: JSON texts of its bounds, and its nulls.
#[derive(Debug, Default)]
struct Summary {
    min: Option<String>,
    max: Option<String>,
    nulls: Option<u64>,
}

/// `add.stats` of a file that was checked against the table.
pub(super) fn to_json(footer: &ParquetMetaData, leaves: &Leaves, indexed: &Indexed) -> String {
    let rows: i64 = footer.row_groups().iter().map(RowGroupMetaData::num_rows).sum();
    let summary = |path: &[String], data_type: &DataType| {
        if !indexed.leaves.contains(path) {
            return Summary::default();
        }
        match data_type {
            DataType::Array { .. } | DataType::Map { .. } => repeated(footer, leaves, path),
            _ => match leaves.get(path) {
                Some(leaf) => column(footer, *leaf, data_type),
                // A column that the file lacks is null in all of its rows.
                None => Summary { nulls: u64::try_from(rows).ok(), ..Summary::default() },
            },
        }
    };
    let mut objects = [Objects::default(), Objects::default(), Objects::default()];
    write(&mut Vec::new(), &indexed.data, &summary, &mut objects);
    let [min, max, nulls] = objects.map(|o| o.text);
    format!(
        "{{\"numRecords\":{rows},\"minValues\":{{{min}}},\"maxValues\":{{{max}}},\
         \"nullCount\":{{{nulls}}},\"tightBounds\":true}}"
    )
}

/// The inside of a JSON object.
#[derive(Debug, Default)]
struct Objects {
    text: String,
}

impl Objects {
    fn push(&mut self, name: &str, value: &str) {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(&quoted(name));
        self.text.push(':');
        self.text.push_str(value);
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Minima, maxima and null counts of the fields, nested as the schema is.
fn write(
    path: &mut Vec<String>,
    fields: &StructType,
    summary: &dyn Fn(&[String], &DataType) -> Summary,
    out: &mut [Objects; 3],
) {
    for field in &fields.fields {
        path.push(field.name.clone());
        if let DataType::Struct(inner) = &field.data_type {
            let mut nested = [Objects::default(), Objects::default(), Objects::default()];
            write(path, inner, summary, &mut nested);
            for (out, nested) in out.iter_mut().zip(nested) {
                if !nested.text.is_empty() {
                    out.push(&field.name, &format!("{{{}}}", nested.text));
                }
            }
        } else {
            let Summary { min, max, nulls } = summary(path, &field.data_type);
            for (out, value) in out.iter_mut().zip([min, max, nulls.map(|n| n.to_string())]) {
                if let Some(value) = value {
                    out.push(&field.name, &value);
                }
            }
        }
        path.pop();
    }
}

/// An array or map: Parquet counts its empty values and null elements as nulls, too, so that only
/// "none at all" says something about the column itself.
fn repeated(footer: &ParquetMetaData, leaves: &Leaves, path: &[String]) -> Summary {
    let mut below = leaves.iter().filter(|(leaf, _)| starts_with(leaf, path)).peekable();
    let nulls = if below.peek().is_none() {
        u64::try_from(footer.row_groups().iter().map(RowGroupMetaData::num_rows).sum::<i64>()).ok()
    } else {
        below.map(|(_, leaf)| null_count(footer, *leaf)).any(|nulls| nulls == Some(0)).then_some(0)
    };
    Summary { nulls, ..Summary::default() }
}

/// Nulls in all row groups, if each says.
fn null_count(footer: &ParquetMetaData, leaf: usize) -> Option<u64> {
    footer
        .row_groups()
        .iter()
        .filter(|group| group.num_rows() > 0)
        .map(|group| group.columns().get(leaf)?.statistics()?.null_count_opt())
        .sum()
}

/// A bound while row groups are merged.
#[derive(Debug, Clone)]
enum Bound {
    Whole(i128),
    /// With its shortest digits as JSON.
    Real(f64, String),
    Bytes(Vec<u8>),
}

impl Bound {
    fn order(&self, other: &Bound) -> Option<Ordering> {
        match (self, other) {
            (Bound::Whole(a), Bound::Whole(b)) => Some(a.cmp(b)),
            (Bound::Real(a, _), Bound::Real(b, _)) => a.partial_cmp(b),
            (Bound::Bytes(a), Bound::Bytes(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

fn column(footer: &ParquetMetaData, leaf: usize, data_type: &DataType) -> Summary {
    let nulls = null_count(footer, leaf);
    let bounds = merged(footer, leaf, data_type);
    let Some((min, max)) = bounds else { return Summary { nulls, ..Summary::default() } };
    let descriptor = footer.file_metadata().schema_descr().column(leaf);
    let (min, max) = match data_type {
        DataType::Date => (min.and_then(plain_day), max.and_then(plain_day)),
        DataType::Timestamp | DataType::TimestampNtz => {
            let micros = micros_per_unit(&descriptor);
            let plain = |bound| plain_micros(bound, micros);
            (min.and_then(plain), max.and_then(plain))
        }
        _ => (min, max),
    };
    // One end before the calendars agree: the shift may reach the other, too.
    let both = matches!(data_type, DataType::Date | DataType::Timestamp | DataType::TimestampNtz);
    if both && min.is_none() {
        return Summary { nulls, ..Summary::default() };
    }
    Summary {
        min: min.and_then(|bound| text(data_type, &bound, false)),
        max: max.and_then(|bound| text(data_type, &bound, true)),
        nulls,
    }
}

/// The least minimum and the greatest maximum, each only if every row group that has values has it.
fn merged(
    footer: &ParquetMetaData,
    leaf: usize,
    data_type: &DataType,
) -> Option<(Option<Bound>, Option<Bound>)> {
    let order = footer.file_metadata().column_order(leaf);
    let descriptor = footer.file_metadata().schema_descr().column(leaf);
    let mut merged: Option<(Option<Bound>, Option<Bound>)> = None;
    for group in footer.row_groups().iter().filter(|group| group.num_rows() > 0) {
        let statistics = group.columns().get(leaf)?.statistics()?;
        let rows = u64::try_from(group.num_rows()).ok();
        if statistics.null_count_opt().is_some() && statistics.null_count_opt() == rows {
            continue;
        }
        let (min, max) = bounds(statistics, data_type, order, &descriptor);
        merged = Some(match merged {
            None => (min, max),
            Some((low, high)) => {
                (outer(low, min, Ordering::Less), outer(high, max, Ordering::Greater))
            }
        });
    }
    merged
}

/// Whichever of two bounds is further out.
fn outer(a: Option<Bound>, b: Option<Bound>, wanted: Ordering) -> Option<Bound> {
    let (a, b) = (a?, b?);
    Some(if b.order(&a)? == wanted { b } else { a })
}

/// The bounds of one row group.
fn bounds(
    statistics: &Statistics,
    data_type: &DataType,
    order: ColumnOrder,
    descriptor: &ColumnDescriptor,
) -> (Option<Bound>, Option<Bound>) {
    if order == ColumnOrder::UNKNOWN {
        return (None, None);
    }
    // Old writers compared bytes as signed.
    let bytes_ordered =
        !statistics.is_min_max_deprecated() && matches!(order, ColumnOrder::TYPE_DEFINED_ORDER(_));
    let whole = |min: Option<i128>, max: Option<i128>| {
        (
            min.filter(|_| statistics.min_is_exact()).map(Bound::Whole),
            max.filter(|_| statistics.max_is_exact()).map(Bound::Whole),
        )
    };
    let is_whole = matches!(
        data_type,
        DataType::Byte
            | DataType::Short
            | DataType::Integer
            | DataType::Long
            | DataType::Date
            | DataType::Timestamp
            | DataType::TimestampNtz
            | DataType::Decimal { .. }
    );
    match (data_type, statistics) {
        (_, Statistics::Int32(s)) if is_whole => {
            whole(s.min_opt().map(|v| (*v).into()), s.max_opt().map(|v| (*v).into()))
        }
        (_, Statistics::Int64(s)) if is_whole => {
            whole(s.min_opt().map(|v| (*v).into()), s.max_opt().map(|v| (*v).into()))
        }
        (DataType::Decimal { .. }, Statistics::FixedLenByteArray(s)) if bytes_ordered => {
            // The flag says "inexact" for want of one, but only a shorter value can be cut.
            let length = usize::try_from(descriptor.type_length()).unwrap_or(0);
            let read = |bytes: &[u8]| {
                if bytes.len() == length { big_endian(bytes).map(Bound::Whole) } else { None }
            };
            (s.min_opt().and_then(|v| read(v.data())), s.max_opt().and_then(|v| read(v.data())))
        }
        (DataType::Decimal { .. }, Statistics::ByteArray(s)) if bytes_ordered => whole(
            s.min_opt().and_then(|v| big_endian(v.data())),
            s.max_opt().and_then(|v| big_endian(v.data())),
        ),
        (DataType::Float, Statistics::Float(s)) => match (s.min_opt(), s.max_opt()) {
            (Some(min), Some(max)) if !min.is_nan() && !max.is_nan() => {
                (real(f64::from(*min), serde_json::to_string(min).ok()), None)
            }
            _ => (None, None),
        },
        (DataType::Double, Statistics::Double(s)) => match (s.min_opt(), s.max_opt()) {
            (Some(min), Some(max)) if !min.is_nan() && !max.is_nan() => {
                (real(*min, serde_json::to_string(min).ok()), None)
            }
            _ => (None, None),
        },
        // Cut bounds are bounds of strings, too.
        (DataType::String, Statistics::ByteArray(s)) if bytes_ordered => (
            s.min_opt().map(|v| Bound::Bytes(v.data().to_vec())),
            s.max_opt().map(|v| Bound::Bytes(v.data().to_vec())),
        ),
        _ => (None, None),
    }
}

/// A minimum of floats. There are no maxima: a NaN, greater than all in readers' eyes, would not
/// show in them.
fn real(value: f64, text: Option<String>) -> Option<Bound> {
    // A zero may stand for a negative one.
    let text = if value == 0.0 { "-0.0".to_owned() } else { text? };
    value.is_finite().then_some(Bound::Real(value, text))
}

fn big_endian(bytes: &[u8]) -> Option<i128> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    let mut full = [if negative { 0xFF } else { 0 }; 16];
    full[16 - bytes.len()..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(full))
}

fn micros_per_unit(descriptor: &ColumnDescriptor) -> i128 {
    let millis = match descriptor.logical_type_ref() {
        Some(LogicalType::Timestamp(time)) => time.unit == TimeUnit::MILLIS,
        _ => descriptor.converted_type() == ConvertedType::TIMESTAMP_MILLIS,
    };
    if millis { 1_000 } else { 1 }
}

fn plain_day(bound: Bound) -> Option<Bound> {
    match bound {
        Bound::Whole(day) if day >= FIRST_PLAIN_DAY => Some(bound),
        _ => None,
    }
}

fn plain_micros(bound: Bound, micros_per_unit: i128) -> Option<Bound> {
    match bound {
        Bound::Whole(time) => Some(time * micros_per_unit)
            .filter(|micros| *micros >= FIRST_PLAIN_MICROS)
            .map(Bound::Whole),
        _ => None,
    }
}

/// A bound as JSON.
fn text(data_type: &DataType, bound: &Bound, max: bool) -> Option<String> {
    match (data_type, bound) {
        (DataType::Date, Bound::Whole(day)) => {
            let seconds = i64::try_from(*day).ok()?.checked_mul(86_400)?;
            year_of_four_digits(DateTime::from_timestamp(seconds, 0)?)
                .map(|day| format!("\"{}\"", day.format("%Y-%m-%d")))
        }
        (DataType::Timestamp | DataType::TimestampNtz, Bound::Whole(micros)) => {
            // Readers expect milliseconds: down for a minimum, up for a maximum.
            let millis = if max { -(-micros).div_euclid(1_000) } else { micros.div_euclid(1_000) };
            let time = DateTime::from_timestamp_millis(i64::try_from(millis).ok()?)?;
            let zone = if *data_type == DataType::Timestamp { "Z" } else { "" };
            year_of_four_digits(time)
                .map(|time| format!("\"{}{zone}\"", time.format("%Y-%m-%dT%H:%M:%S%.3f")))
        }
        (DataType::Decimal { scale, .. }, Bound::Whole(digits)) => {
            Some(decimal(*digits, usize::from(*scale)))
        }
        (DataType::String, Bound::Bytes(bytes)) => {
            if max {
                longest(bytes).as_deref().map(quoted)
            } else {
                Some(quoted(&shortest(bytes)))
            }
        }
        (_, Bound::Whole(number)) => Some(number.to_string()),
        (_, Bound::Real(_, text)) => Some(text.clone()),
        (_, Bound::Bytes(_)) => None,
    }
}

fn year_of_four_digits(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (1..=9_999).contains(&time.year()).then_some(time)
}

fn decimal(digits: i128, scale: usize) -> String {
    let sign = if digits < 0 { "-" } else { "" };
    let all = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = all.split_at(all.len() - scale);
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// The first characters of a minimum; bytes that are cut within a character end before it.
fn shortest(bytes: &[u8]) -> String {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().take(PREFIX_CHARS).collect()
}

/// A maximum's first characters, made greater than all that start with as much of it as needed:
/// as in Spark, by the greatest ASCII character where that is enough, else by the greatest of all.
fn longest(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut rest = text.chars();
    let mut out: String = rest.by_ref().take(PREFIX_CHARS).collect();
    for cut in rest {
        if cut < '\u{7F}' {
            out.push('\u{7F}');
            break;
        }
        out.push(char::MAX);
        if cut < char::MAX {
            break;
        }
    }
    Some(out)
}
