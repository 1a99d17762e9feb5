//! Values that are written as text.

use std::sync::Arc;

use chrono::{NaiveDate, Utc};
use deltalake::arrow::array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, PrimitiveArray, StringArray,
};
use deltalake::arrow::compute::cast;
use deltalake::arrow::compute::kernels::cast_utils::string_to_datetime;
use deltalake::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};

use super::Misfit;
use super::refusal::refused;

type Result<T> = std::result::Result<T, Misfit>;

/// Reads texts as values of a type; none if the type is not read from text.
pub(super) fn parse(array: &ArrayRef, to: &DataType) -> Option<Result<ArrayRef>> {
    let texts = match cast(array, &DataType::Utf8) {
        Ok(texts) => texts,
        Err(error) => return Some(Err(Misfit::of_type(error.to_string()))),
    };
    let texts = texts.as_any().downcast_ref::<StringArray>()?;
    Some(match to {
        DataType::Int8 => each::<Int8Type>(texts, to, |t| t.parse().ok()),
        DataType::Int16 => each::<Int16Type>(texts, to, |t| t.parse().ok()),
        DataType::Int32 => each::<Int32Type>(texts, to, |t| t.parse().ok()),
        DataType::Int64 => each::<Int64Type>(texts, to, |t| t.parse().ok()),
        DataType::Float32 => each::<Float32Type>(texts, to, |text| {
            let value: f32 = text.parse().ok()?;
            is_near(text, f64::from(value), value.is_finite()).then_some(value)
        }),
        DataType::Float64 => each::<Float64Type>(texts, to, |text| {
            let value: f64 = text.parse().ok()?;
            is_near(text, value, value.is_finite()).then_some(value)
        }),
        DataType::Boolean => booleans(texts, to),
        DataType::Decimal128(precision, scale) => {
            values(texts, to, |text| decimal(text, *precision, *scale)).and_then(|values| {
                let made =
                    Decimal128Array::from(values).with_precision_and_scale(*precision, *scale);
                made.map(|array| Arc::new(array) as ArrayRef)
                    .map_err(|e| Misfit::of_type(e.to_string()))
            })
        }
        DataType::Date32 => each::<Date32Type>(texts, to, date),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let naive = zone.is_none();
            values(texts, to, |text| micros(text, naive)).map(|values| {
                let array = PrimitiveArray::<TimestampMicrosecondType>::from(values);
                Arc::new(array.with_timezone_opt(zone.clone())) as ArrayRef
            })
        }
        _ => return None,
    })
}

fn values<T>(
    texts: &StringArray,
    to: &DataType,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<Option<T>>> {
    let mut out = Vec::with_capacity(texts.len());
    for (row, text) in texts.iter().enumerate() {
        out.push(match text {
            Some(text) => Some(read(text).ok_or_else(|| refused(texts, row, to))?),
            None => None,
        });
    }
    Ok(out)
}

fn each<T: ArrowPrimitiveType>(
    texts: &StringArray,
    to: &DataType,
    read: impl Fn(&str) -> Option<T::Native>,
) -> Result<ArrayRef>
where
    PrimitiveArray<T>: From<Vec<Option<T::Native>>>,
{
    Ok(Arc::new(PrimitiveArray::<T>::from(values(texts, to, read)?)))
}

fn booleans(texts: &StringArray, to: &DataType) -> Result<ArrayRef> {
    let read = |text: &str| {
        let is = |word| text.eq_ignore_ascii_case(word);
        if is("true") { Some(true) } else { is("false").then_some(false) }
    };
    Ok(Arc::new(BooleanArray::from(values(texts, to, read)?)))
}

/// A number with a point is the nearest that there is; an integer must be itself, and only what says so is
/// infinite.
fn is_near(text: &str, value: f64, finite: bool) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !finite {
        return !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    }
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return true;
    }
    // Whole numbers are printed with all of their digits.
    format!("{value:.0}").trim_start_matches('-') == digits.trim_start_matches('0')
        || digits.bytes().all(|b| b == b'0')
}

/// Digits times ten to the scale, if no digit is left over.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction_digits = i32::try_from(fraction.len()).ok()?;
    let mut all = format!("{whole}{fraction}");
    if !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Zeros to put behind the digits, or digits that must be zero.
    let mut shift = i32::from(scale).checked_add(exponent)?.checked_sub(fraction_digits)?;
    while shift < 0 && all.ends_with('0') {
        all.pop();
        shift += 1;
    }
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let zeros = usize::try_from(shift).ok()?;
    if significant.len().checked_add(zeros)? > usize::from(precision) {
        return None;
    }
    let value: i128 = format!("{significant}{}", "0".repeat(zeros)).parse().ok()?;
    Some(if negative { -value } else { value })
}

fn date(text: &str) -> Option<i32> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    let days = day.signed_duration_since(NaiveDate::default()).num_days();
    i32::try_from(days).ok()
}

/// Microseconds since 1970, in UTC where the text names no zone. For a column without zones it must name none,
/// or UTC.
fn micros(text: &str, naive: bool) -> Option<i64> {
    let time = text.get(10..).unwrap_or_default();
    let utc = time.ends_with(['Z', 'z']);
    if naive
        && !utc
        && time
            .contains(|c: char| c == '+' || c == '-' || c.is_alphabetic() && c != 'T' && c != 't')
    {
        return None;
    }
    let fraction = time.split_once('.').map_or("", |(_, rest)| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        &rest[..end]
    });
    let finer = fraction.get(6..).unwrap_or_default();
    if finer.bytes().any(|digit| digit != b'0') {
        return None;
    }
    // More than nine digits are not read, and those are zeros.
    let shorter = (finer.len() > 3)
        .then(|| text.replacen(&format!(".{fraction}"), &format!(".{}", &fraction[..6]), 1));
    let read = string_to_datetime(&Utc, shorter.as_deref().unwrap_or(text)).ok()?;
    // The second 60 would be another one.
    (read.timestamp_subsec_nanos() < 1_000_000_000).then(|| read.timestamp_micros())
}
