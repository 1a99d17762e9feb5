//! Single values in another type.

use std::sync::Arc;

use deltalake::arrow::array::{
    Array, ArrayRef, Date32Array, Int64Array, TimestampMicrosecondArray, new_null_array,
};
use deltalake::arrow::compute::kernels::cmp::not_distinct;
use deltalake::arrow::compute::{
    CastOptions, can_cast_types, cast as arrow_cast, cast_with_options,
};
use deltalake::arrow::datatypes::{DataType, TimeUnit};
use deltalake::arrow::error::ArrowError;

use super::refusal::{refused, shown};
use super::types::delta_name;
use super::{Misfit, first_value, text};

type Result<T> = std::result::Result<T, Misfit>;

/// How values of one type become values of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// As text is read.
    Parse,
    /// By a cast that loses nothing, or fails.
    Plain,
    /// By a cast, where casting back gives the same.
    ThereAndBack,
    /// As days or instants, counted in another unit.
    Instants,
    /// Not at all.
    Never,
}

fn how(from: &DataType, to: &DataType) -> How {
    use DataType as T;
    let text = |t: &T| matches!(t, T::Utf8 | T::LargeUtf8 | T::Utf8View);
    let bytes =
        |t: &T| matches!(t, T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_));
    let date = |t: &T| matches!(t, T::Date32 | T::Date64);
    let time = |t: &T| matches!(t, T::Timestamp(..));
    let number = T::is_numeric;
    let as_text = |t: &T| number(t) || date(t) || time(t) || *t == T::Boolean;
    // What a clock in such a zone shows is not what it shows in UTC.
    let zone = match from {
        T::Timestamp(_, Some(zone)) => !matches!(zone.as_ref(), "UTC" | "+00:00" | "Z"),
        _ => false,
    };
    match to {
        _ if zone && !matches!(to, T::Timestamp(_, Some(_))) => How::Never,
        _ if text(from) && (text(to) || bytes(to)) => How::Plain,
        _ if text(from) => How::Parse,
        _ if bytes(from) && (bytes(to) || text(to)) => How::Plain,
        _ if as_text(from) && text(to) => How::Plain,
        _ if number(from) && number(to) => How::ThereAndBack,
        _ if (date(from) || time(from)) && (date(to) || time(to)) => How::Instants,
        _ => How::Never,
    }
}

pub(super) fn fit(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let from = array.data_type();
    // Of nulls alone nothing gets lost, whatever they are called.
    let Some(value) = first_value(array) else {
        return Ok(new_null_array(to, array.len()));
    };
    if *to == DataType::Null {
        let what = format!(
            "the table's column is of type void, which holds nothing but null, and the rows have \
             {}: --schema-mode merge gives the column the type of the rows",
            shown(array, value)
        );
        return Err(Misfit::of_row(value, what));
    }
    let never = || {
        Misfit::of_type(format!(
            "the table has {}, the rows have {}: convert the values first, as with CAST in --query",
            delta_name(to),
            delta_name(from)
        ))
    };
    match how(from, to) {
        How::Parse => text::parse(array, to).ok_or_else(never)?,
        How::Instants => instants(array, to)?.ok_or_else(never),
        How::Plain if can_cast_types(from, to) => cast(array, to, None),
        How::ThereAndBack if can_cast_types(from, to) && can_cast_types(to, from) => {
            cast(array, to, Some(from))
        }
        How::Plain | How::ThereAndBack | How::Never => Err(never()),
    }
}

/// Nanoseconds between two values of a type.
fn unit(kind: &DataType) -> Option<i128> {
    Some(match kind {
        DataType::Date32 => 86_400_000_000_000,
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
        _ => return None,
    })
}

/// Days and instants in the unit of another type: Arrow's own cast cuts off what is between two units, and
/// overflows. None for types that no column of a table is of.
fn instants(array: &ArrayRef, to: &DataType) -> Result<Option<ArrayRef>> {
    let broken = |e: ArrowError| Misfit::of_type(e.to_string());
    let (Some(from_unit), Some(to_unit)) = (unit(array.data_type()), unit(to)) else {
        return Ok(None);
    };
    let counts = arrow_cast(array, &DataType::Int64).map_err(broken)?;
    let Some(counts) = counts.as_any().downcast_ref::<Int64Array>() else { return Ok(None) };
    let mut out: Vec<Option<i64>> = Vec::with_capacity(counts.len());
    for (row, count) in counts.iter().enumerate() {
        let Some(count) = count else {
            out.push(None);
            continue;
        };
        let nanos = i128::from(count) * from_unit;
        let fits = (nanos % to_unit == 0).then(|| i64::try_from(nanos / to_unit).ok()).flatten();
        out.push(Some(fits.ok_or_else(|| refused(array, row, to))?));
    }
    Ok(match to {
        DataType::Date32 => {
            let mut days = Vec::with_capacity(out.len());
            for (row, count) in out.into_iter().enumerate() {
                days.push(match count.map(i32::try_from).transpose() {
                    Ok(day) => day,
                    Err(_) => return Err(refused(array, row, to)),
                });
            }
            Some(Arc::new(Date32Array::from(days)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Some(Arc::new(TimestampMicrosecondArray::from(out).with_timezone_opt(zone.clone())))
        }
        _ => None,
    })
}

fn cast(array: &ArrayRef, to: &DataType, back: Option<&DataType>) -> Result<ArrayRef> {
    let broken = |e: ArrowError| Misfit::of_type(e.to_string());
    // What does not fit is null then, and is found below.
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let fitted = cast_with_options(array, to, &lenient).map_err(broken)?;
    let (before, after) = (array.logical_nulls(), fitted.logical_nulls());
    let valid = |nulls: &Option<deltalake::arrow::buffer::NullBuffer>, row| {
        nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
    };
    if after.is_some()
        && let Some(row) = (0..array.len()).find(|row| valid(&before, *row) && !valid(&after, *row))
    {
        return Err(refused(array, row, to));
    }
    if let Some(from) = back {
        let again = cast_with_options(&fitted, from, &lenient).map_err(broken)?;
        let same = not_distinct(&again, array).map_err(broken)?;
        if let Some(row) = same.values().iter().position(|same| !same) {
            return Err(refused(array, row, to));
        }
    }
    Ok(Arc::clone(&fitted))
}
