//! Statistics that a checkpoint holds only as a struct (`add.stats_parsed`, written with
//! `delta.checkpoint.writeStatsAsJson = false`) as the JSON text of `add.stats` (protocol section
//! "Per-file Statistics").
//!
//! The text is what Delta writes itself: nested objects for nested columns, no key for a null,
//! dates as `2024-02-29`, timestamps floored to milliseconds (`2024-02-29T12:00:00.123Z`, without
//! the `Z` for `timestamp_ntz`), decimals as numbers. Values that JSON statistics do not have
//! (binary, variant, arrays, maps, NaN, infinities) are left out, which only prunes less.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, Decimal128Array, Decimal256Array,
    Float32Array, Float64Array, Int32Array, Int64Array, PrimitiveArray, StringArray, StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use chrono::{DateTime, NaiveDate};

/// Writes the rows of one struct column as JSON.
#[derive(Debug)]
pub struct StatsWriter {
    root: Option<Node>,
}

#[derive(Debug)]
enum Node {
    Struct { nulls: StructArray, fields: Vec<(String, Node)> },
    Bool(BooleanArray),
    Long(Int64Array),
    Float(Float32Array),
    Double(Float64Array),
    Date(Int32Array),
    Millis { values: Int64Array, utc: bool },
    Decimal(Decimal128Array),
    WideDecimal(Decimal256Array),
    Text(StringArray),
}

impl StatsWriter {
    /// Takes a struct column.
    #[must_use]
    pub fn new(stats: &ArrayRef) -> StatsWriter {
        StatsWriter { root: node(stats).filter(|n| matches!(n, Node::Struct { .. })) }
    }

    /// The statistics of a row; none if they are null or say nothing.
    #[must_use]
    pub fn json(&self, row: usize) -> Option<String> {
        let mut out = String::new();
        let written = self.root.as_ref()?.write(row, &mut out);
        (written && out != "{}").then_some(out)
    }
}

/// None for types that have no place in statistics.
fn node(array: &ArrayRef) -> Option<Node> {
    fn to<A: Array + Clone + 'static>(array: &ArrayRef, ty: &DataType) -> Option<A> {
        cast(array, ty).ok()?.as_any().downcast_ref::<A>().cloned()
    }
    Some(match array.data_type() {
        DataType::Struct(_) => {
            let nulls = array.as_any().downcast_ref::<StructArray>()?.clone();
            let fields: Vec<(String, Node)> = nulls
                .fields()
                .iter()
                .zip(nulls.columns())
                .filter_map(|(field, column)| Some((field.name().clone(), node(column)?)))
                .collect();
            // A variant is a struct of binaries, which is no object in JSON statistics.
            if fields.is_empty() && nulls.num_columns() > 0 {
                return None;
            }
            Node::Struct { nulls, fields }
        }
        DataType::Boolean => Node::Bool(to(array, &DataType::Boolean)?),
        DataType::Float16 | DataType::Float32 => Node::Float(to(array, &DataType::Float32)?),
        DataType::Float64 => Node::Double(to(array, &DataType::Float64)?),
        DataType::Date32 | DataType::Date64 => {
            Node::Date(to(&cast(array, &DataType::Date32).ok()?, &DataType::Int32)?)
        }
        DataType::Timestamp(unit, zone) => Node::Millis {
            values: millis(array, *unit)?,
            // INT96, the old encoding of `timestamp`, arrives as nanoseconds without a zone;
            // `timestamp_ntz` is never written so.
            utc: zone.is_some() || matches!(unit, TimeUnit::Nanosecond),
        },
        DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) => {
            Node::Decimal(to(array, &DataType::Decimal128(38, *s))?)
        }
        DataType::Decimal256(_, s) => Node::WideDecimal(to(array, &DataType::Decimal256(76, *s))?),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            Node::Text(to(array, &DataType::Utf8)?)
        }
        DataType::Dictionary(_, value) => return node(&cast(array, value).ok()?),
        ty if ty.is_integer() => Node::Long(to(array, &DataType::Int64)?),
        _ => return None,
    })
}

/// Floors to milliseconds, also before 1970, so that a minimum never rises.
fn millis(array: &ArrayRef, unit: TimeUnit) -> Option<Int64Array> {
    fn map<T: ArrowPrimitiveType<Native = i64>>(
        array: &ArrayRef,
        f: impl Fn(i64) -> i64,
    ) -> Option<Int64Array> {
        Some(array.as_any().downcast_ref::<PrimitiveArray<T>>()?.unary(f))
    }
    match unit {
        TimeUnit::Second => map::<TimestampSecondType>(array, |v| v.saturating_mul(1000)),
        TimeUnit::Millisecond => map::<TimestampMillisecondType>(array, |v| v),
        TimeUnit::Microsecond => map::<TimestampMicrosecondType>(array, |v| v.div_euclid(1000)),
        TimeUnit::Nanosecond => map::<TimestampNanosecondType>(array, |v| v.div_euclid(1_000_000)),
    }
}

impl Node {
    /// Appends the value of a row; false, with nothing appended, if there is none.
    fn write(&self, row: usize, out: &mut String) -> bool {
        if self.is_null(row) {
            return false;
        }
        match self {
            Node::Struct { fields, .. } => {
                out.push('{');
                for (name, field) in fields {
                    let before = out.len();
                    if !out.ends_with('{') {
                        out.push(',');
                    }
                    out.push_str(&quoted(name));
                    out.push(':');
                    if !field.write(row, out) {
                        out.truncate(before);
                    }
                }
                out.push('}');
                true
            }
            Node::Bool(a) => push(out, a.value(row)),
            Node::Long(a) => push(out, a.value(row)),
            Node::Float(a) => push_json(out, a.value(row).is_finite(), &a.value(row)),
            Node::Double(a) => push_json(out, a.value(row).is_finite(), &a.value(row)),
            Node::Decimal(a) => push(out, a.value_as_string(row)),
            Node::WideDecimal(a) => push(out, a.value_as_string(row)),
            Node::Text(a) => push(out, quoted(a.value(row))),
            Node::Date(a) => match NaiveDate::from_epoch_days(a.value(row)) {
                Some(date) => push(out, format_args!("\"{}\"", date.format("%Y-%m-%d"))),
                None => false,
            },
            Node::Millis { values, utc } => {
                match DateTime::from_timestamp_millis(values.value(row)) {
                    Some(time) => {
                        let time = time.format("%Y-%m-%dT%H:%M:%S%.3f");
                        push(out, format_args!("\"{time}{}\"", if *utc { "Z" } else { "" }))
                    }
                    None => false,
                }
            }
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Node::Struct { nulls, .. } => nulls.is_null(row),
            Node::Bool(a) => a.is_null(row),
            Node::Long(a) | Node::Millis { values: a, .. } => a.is_null(row),
            Node::Float(a) => a.is_null(row),
            Node::Double(a) => a.is_null(row),
            Node::Date(a) => a.is_null(row),
            Node::Decimal(a) => a.is_null(row),
            Node::WideDecimal(a) => a.is_null(row),
            Node::Text(a) => a.is_null(row),
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn push(out: &mut String, value: impl std::fmt::Display) -> bool {
    use std::fmt::Write;
    write!(out, "{value}").is_ok()
}

fn push_json<T: serde::Serialize>(out: &mut String, finite: bool, value: &T) -> bool {
    match serde_json::to_string(value) {
        Ok(text) if finite => push(out, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, Date32Array, DictionaryArray, TimestampMicrosecondArray,
        TimestampNanosecondArray,
    };
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::{Field, Int8Type};

    use super::*;

    fn stats(fields: Vec<(&str, ArrayRef)>) -> ArrayRef {
        let fields: Vec<(Arc<Field>, ArrayRef)> = fields
            .into_iter()
            .map(|(n, a)| (Arc::new(Field::new(n, a.data_type().clone(), true)), a))
            .collect();
        Arc::new(StructArray::from(fields))
    }

    #[test]
    fn values_are_written_as_delta_writes_them() {
        let decimals = Decimal128Array::from(vec![-5]).with_precision_and_scale(10, 2).unwrap();
        let text: DictionaryArray<Int8Type> = vec!["a\"\u{1f680}\n"].into_iter().collect();
        let values = stats(vec![
            ("int", Arc::new(Int32Array::from(vec![-7]))),
            ("double", Arc::new(Float64Array::from(vec![1.5e300]))),
            ("float", Arc::new(Float32Array::from(vec![0.1]))),
            ("nan", Arc::new(Float64Array::from(vec![f64::NAN]))),
            ("inf", Arc::new(Float32Array::from(vec![f32::INFINITY]))),
            ("date", Arc::new(Date32Array::from(vec![-1]))),
            ("ts", Arc::new(TimestampMicrosecondArray::from(vec![-1_500]).with_timezone("+00:00"))),
            ("ntz", Arc::new(TimestampMicrosecondArray::from(vec![1_783_007_755_298_677]))),
            ("int96", Arc::new(TimestampNanosecondArray::from(vec![-1]))),
            ("dec", Arc::new(decimals)),
            ("text", Arc::new(text)),
            ("bin", Arc::new(BinaryArray::from(vec![&b"x"[..]]))),
            ("variant", stats(vec![("value", Arc::new(BinaryArray::from(vec![&b"x"[..]])))])),
            ("null", Arc::new(Int64Array::from(vec![None]))),
            ("nest", stats(vec![("b", Arc::new(BooleanArray::from(vec![true])))])),
        ]);
        let all =
            stats(vec![("numRecords", Arc::new(Int64Array::from(vec![3]))), ("minValues", values)]);
        assert_eq!(
            StatsWriter::new(&all).json(0).unwrap(),
            concat!(
                r#"{"numRecords":3,"minValues":{"int":-7,"double":1.5e+300,"float":0.1,"#,
                r#""date":"1969-12-31","ts":"1969-12-31T23:59:59.998Z","#,
                r#""ntz":"2026-07-02T15:55:55.298","int96":"1969-12-31T23:59:59.999Z","#,
                r#""dec":-0.05,"text":"a\"🚀\n","nest":{"b":true}}}"#
            )
        );
    }

    #[test]
    fn a_null_or_empty_struct_is_no_statistics() {
        let inner: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let field = Arc::new(Field::new("numRecords", DataType::Int64, true));
        let column: ArrayRef = Arc::new(StructArray::new(
            vec![field].into(),
            vec![inner],
            Some(NullBuffer::from(vec![false, true])),
        ));
        let writer = StatsWriter::new(&column);
        assert_eq!(writer.json(0), None);
        assert_eq!(writer.json(1), None);
    }
}
