//! Constants as values of a column's type: exactly, or between two of them.

use deltalake::arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use deltalake::arrow::datatypes::{DataType, Date32Type, TimeUnit, i256};
use deltalake::datafusion::common::ScalarValue;

/// Nanoseconds of a day.
const DAY_NS: i128 = 86_400_000_000_000;
/// Powers of ten that 256 bits hold.
const MAX_POWER: u32 = 76;

/// Where a constant lies among the values that a type has.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fit {
    /// It is this value.
    Exact(ScalarValue),
    /// It lies between this value and the next greater one.
    After(ScalarValue),
    /// It is greater than this, the greatest one.
    Above(ScalarValue),
    /// It is less than this, the least one.
    Below(ScalarValue),
    /// It is a double, and compares as one.
    Double(f64),
}

/// Where a constant lies among the values of a type. None if the query engine's own rules are right.
///
/// # Errors
/// Why text is no value of the type.
pub(super) fn fit(constant: &ScalarValue, wanted: &DataType) -> Result<Option<Fit>, String> {
    let text = match constant {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => {
            text.as_deref().map(str::trim)
        }
        ScalarValue::Dictionary(_, inner) => return fit(inner, wanted),
        _ => None,
    };
    Ok(match wanted {
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Decimal128(..) => match text {
            Some(text) => {
                let number = Number::parse(text).ok_or("it is no number")?;
                exact_number(number, wanted)
            }
            None => match Number::of(constant) {
                Some(number) => exact_number(number, wanted),
                None => double(constant).and_then(|double| among_exact(double, wanted)),
            },
        },
        DataType::Float32 | DataType::Float64 => match text {
            Some(text) => {
                let known = text.parse::<f64>().is_ok();
                Some(float(known.then_some(text).ok_or("it is no number")?, wanted))
            }
            None => match Number::of(constant) {
                Some(number) => Some(float(&number.to_text(), wanted)),
                None => double(constant).map(|double| float_of(double, wanted)),
            },
        },
        DataType::Date32 => match text {
            Some(text) => Some(Fit::Exact(ScalarValue::Date32(Some(date(text)?)))),
            None => nanoseconds(constant).map(|ns| {
                time(ns, DAY_NS, i32::MIN.into(), i32::MAX.into(), |days| {
                    ScalarValue::Date32(i32::try_from(days).ok())
                })
            }),
        },
        DataType::Timestamp(unit, zone)
            if zone.as_deref().is_none_or(|z| matches!(z, "UTC" | "+00:00")) =>
        {
            let ns = match text {
                Some(text) => Some(instant(text)?),
                None => nanoseconds(constant),
            };
            ns.map(|ns| {
                time(ns, unit_ns(*unit), i64::MIN.into(), i64::MAX.into(), |at| {
                    let (at, zone) = (i64::try_from(at).ok(), zone.clone());
                    match unit {
                        TimeUnit::Second => ScalarValue::TimestampSecond(at, zone),
                        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(at, zone),
                        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(at, zone),
                        TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(at, zone),
                    }
                })
            })
        }
        _ => None,
    })
}

/// `digits` × 10^-`scale`.
#[derive(Debug, Clone, Copy)]
struct Number {
    digits: i256,
    scale: i32,
}

impl Number {
    fn of(value: &ScalarValue) -> Option<Number> {
        let whole = |digits: i128| Some(Number { digits: i256::from_i128(digits), scale: 0 });
        match value {
            ScalarValue::Int8(Some(n)) => whole((*n).into()),
            ScalarValue::Int16(Some(n)) => whole((*n).into()),
            ScalarValue::Int32(Some(n)) => whole((*n).into()),
            ScalarValue::Int64(Some(n)) => whole((*n).into()),
            ScalarValue::UInt8(Some(n)) => whole((*n).into()),
            ScalarValue::UInt16(Some(n)) => whole((*n).into()),
            ScalarValue::UInt32(Some(n)) => whole((*n).into()),
            ScalarValue::UInt64(Some(n)) => whole((*n).into()),
            ScalarValue::Decimal128(Some(n), _, scale) => {
                Some(Number { digits: i256::from_i128(*n), scale: (*scale).into() })
            }
            ScalarValue::Decimal256(Some(n), _, scale) => {
                Some(Number { digits: *n, scale: (*scale).into() })
            }
            _ => None,
        }
    }

    /// Digits with a sign, a point and an exponent; none if there are more than 256 bits hold.
    fn parse(text: &str) -> Option<Number> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let negative = mantissa.starts_with('-');
        let mantissa = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = || whole.chars().chain(fraction.chars());
        if all().next().is_none() || !all().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let digits: String = if negative { "-" } else { "" }.to_owned() + whole + fraction;
        let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        Some(Number { digits: i256::from_string(&digits)?, scale })
    }

    fn to_text(self) -> String {
        format!("{}e{}", self.digits, -i64::from(self.scale))
    }

    /// The greatest whole number of units of 10^-`scale` that is not above it, and whether it is equal;
    /// none if 256 bits do not hold it.
    fn floor(self, scale: i32) -> Option<(i256, bool)> {
        if self.digits == i256::ZERO {
            return Some((i256::ZERO, true));
        }
        let shift = i64::from(scale) - i64::from(self.scale);
        let power = u32::try_from(shift.unsigned_abs()).unwrap_or(u32::MAX);
        let ten = |power| i256::from_i128(10).checked_pow(power);
        if shift >= 0 {
            let factor = (power <= MAX_POWER).then(|| ten(power))??;
            return Some((self.digits.checked_mul(factor)?, true));
        }
        let below = if self.digits.is_negative() { i256::MINUS_ONE } else { i256::ZERO };
        if power > MAX_POWER {
            return Some((below, false));
        }
        let factor = ten(power)?;
        let (whole, rest) = (self.digits.checked_div(factor)?, self.digits.checked_rem(factor)?);
        if rest == i256::ZERO {
            return Some((whole, true));
        }
        // Division is towards zero.
        Some((whole.checked_add(below)?, false))
    }
}

/// A number among the values of an integer or decimal type.
fn exact_number(number: Number, wanted: &DataType) -> Option<Fit> {
    let (least, greatest, scale) = limits(wanted)?;
    let value = |digits: i128| scalar(digits, wanted);
    let (low, high) = (i256::from_i128(least), i256::from_i128(greatest));
    let above = || value(greatest).map(Fit::Above);
    let below = || value(least).map(Fit::Below);
    let Some((floor, equal)) = number.floor(scale) else {
        return if number.digits.is_negative() { below() } else { above() };
    };
    if floor < low {
        return below();
    }
    if floor > high || floor == high && !equal {
        return above();
    }
    let value = value(floor.to_i128()?)?;
    Some(if equal { Fit::Exact(value) } else { Fit::After(value) })
}

/// A double among the values of an integer or decimal type.
fn among_exact(double: f64, wanted: &DataType) -> Option<Fit> {
    let (least, greatest, _) = limits(wanted)?;
    // NaN is greater than all; 38 digits are the most.
    if double.is_nan() || double >= 1e39 {
        return scalar(greatest, wanted).map(Fit::Above);
    }
    if double <= -1e39 {
        return scalar(least, wanted).map(Fit::Below);
    }
    Some(Fit::Double(double))
}

/// Least and greatest value of a type in units of its scale, and the scale.
fn limits(of: &DataType) -> Option<(i128, i128, i32)> {
    Some(match of {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into(), 0),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into(), 0),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into(), 0),
        DataType::Int64 => (i64::MIN.into(), i64::MAX.into(), 0),
        DataType::Decimal128(precision, scale) => {
            let greatest = 10_i128.checked_pow((*precision).into())? - 1;
            (-greatest, greatest, (*scale).into())
        }
        _ => return None,
    })
}

fn scalar(digits: i128, of: &DataType) -> Option<ScalarValue> {
    Some(match of {
        DataType::Int8 => ScalarValue::Int8(Some(digits.try_into().ok()?)),
        DataType::Int16 => ScalarValue::Int16(Some(digits.try_into().ok()?)),
        DataType::Int32 => ScalarValue::Int32(Some(digits.try_into().ok()?)),
        DataType::Int64 => ScalarValue::Int64(Some(digits.try_into().ok()?)),
        DataType::Decimal128(precision, scale) => {
            ScalarValue::Decimal128(Some(digits), *precision, *scale)
        }
        _ => return None,
    })
}

fn double(value: &ScalarValue) -> Option<f64> {
    match value {
        ScalarValue::Float64(Some(value)) => Some(*value),
        ScalarValue::Float32(Some(value)) => Some((*value).into()),
        _ => None,
    }
}

/// Digits as the nearest value of a floating-point type; beyond the greatest is not infinity.
fn float(text: &str, wanted: &DataType) -> Fit {
    let named = text.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E'));
    if *wanted == DataType::Float32 {
        let value = text.parse::<f32>().unwrap_or(f32::NAN);
        let single = |value| ScalarValue::Float32(Some(value));
        return match (value.is_infinite() && !named, value > 0.0) {
            (true, true) => Fit::After(single(f32::MAX)),
            (true, false) => Fit::After(single(f32::NEG_INFINITY)),
            _ => Fit::Exact(single(value)),
        };
    }
    let value = text.parse::<f64>().unwrap_or(f64::NAN);
    let double = |value| ScalarValue::Float64(Some(value));
    match (value.is_infinite() && !named, value > 0.0) {
        (true, true) => Fit::After(double(f64::MAX)),
        (true, false) => Fit::After(double(f64::NEG_INFINITY)),
        _ => Fit::Exact(double(value)),
    }
}

/// A double among the values of a floating-point type.
fn float_of(value: f64, wanted: &DataType) -> Fit {
    if *wanted == DataType::Float64 {
        return Fit::Exact(ScalarValue::Float64(Some(value)));
    }
    let single = format!("{value:e}").parse::<f32>().unwrap_or(f32::NAN);
    let same = value.is_nan() || f64::from(single).total_cmp(&value).is_eq();
    if same { Fit::Exact(ScalarValue::Float32(Some(single))) } else { Fit::Double(value) }
}

fn unit_ns(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// Nanoseconds since the epoch of a date or time.
fn nanoseconds(value: &ScalarValue) -> Option<i128> {
    let (count, unit) = match value {
        ScalarValue::Date32(Some(days)) => (i64::from(*days), DAY_NS),
        ScalarValue::Date64(Some(at)) | ScalarValue::TimestampMillisecond(Some(at), _) => {
            (*at, unit_ns(TimeUnit::Millisecond))
        }
        ScalarValue::TimestampSecond(Some(at), _) => (*at, unit_ns(TimeUnit::Second)),
        ScalarValue::TimestampMicrosecond(Some(at), _) => (*at, unit_ns(TimeUnit::Microsecond)),
        ScalarValue::TimestampNanosecond(Some(at), _) => (*at, 1),
        _ => return None,
    };
    Some(i128::from(count) * unit)
}

/// A time among those that have so many nanoseconds between them.
fn time(
    ns: i128,
    unit: i128,
    least: i128,
    greatest: i128,
    value: impl Fn(i128) -> ScalarValue,
) -> Fit {
    let (floor, equal) = (ns.div_euclid(unit), ns.rem_euclid(unit) == 0);
    if floor < least {
        Fit::Below(value(least))
    } else if floor > greatest || floor == greatest && !equal {
        Fit::Above(value(greatest))
    } else if equal {
        Fit::Exact(value(floor))
    } else {
        Fit::After(value(floor))
    }
}

/// Nanoseconds since the epoch of a time as text.
fn instant(text: &str) -> Result<i128, String> {
    let time = string_to_datetime(&chrono::Utc, text).map_err(|_| {
        "write 'YYYY-MM-DD HH:MM:SS' (UTC), with a fraction of a second or an offset where needed"
            .to_owned()
    })?;
    Ok(i128::from(time.timestamp()) * 1_000_000_000 + i128::from(time.timestamp_subsec_nanos()))
}

/// Days since the epoch of a date as text.
fn date(text: &str) -> Result<i32, String> {
    const FORM: &str = "write 'YYYY-MM-DD'";
    if text.len() <= 10 {
        return Date32Type::parse(text).ok_or_else(|| FORM.to_owned());
    }
    let ns = instant(text).map_err(|_| FORM)?;
    if ns.rem_euclid(DAY_NS) != 0 {
        return Err("it has a time of day, and a date has none: write 'YYYY-MM-DD', or TIMESTAMP \
                    before the text"
            .to_owned());
    }
    i32::try_from(ns.div_euclid(DAY_NS)).map_err(|_| FORM.to_owned())
}

/// A number in the text of a query: what stands in its place, if a decimal of 76 digits cannot hold it.
///
/// # Errors
/// If a double does not hold it either.
pub(in crate::sql) fn number_token(text: &str) -> Result<Option<String>, String> {
    let plain = text.replace('_', "");
    if plain.parse::<u64>().is_ok() {
        return Ok(None);
    }
    let (mantissa, exponent) = match plain.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().unwrap_or(i64::MAX)),
        None => (plain.as_str(), 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let scale = i64::try_from(fraction.len()).unwrap_or(i64::MAX).saturating_sub(exponent);
    let most = i64::from(MAX_POWER);
    if digits.len() <= usize::try_from(MAX_POWER).unwrap_or(0) && (-most..=most).contains(&scale) {
        return Ok(None);
    }
    if digits.trim_end_matches('0').len() > usize::try_from(MAX_POWER).unwrap_or(0) {
        return Err(format!("{text} has more than {MAX_POWER} digits"));
    }
    Ok(Some(format!("CAST('{plain}' AS DOUBLE)")))
}
