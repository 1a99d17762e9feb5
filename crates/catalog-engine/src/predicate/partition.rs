//! Values of partition columns as text (protocol section "Partition Value Serialization").
//!
//! Writers do not agree on the text: `1.5`, `1.50` and `+1.5` are all found for a `decimal(10,2)`, and
//! most readers know one of these only. [`PartitionValue::parse`] takes what any established reader takes,
//! as long as it stands for exactly one value; [`PartitionValue::to_text`] writes the one form that all of
//! them read.

use serde::{Deserialize, Serialize};

use super::value::{self, Exact, Kind, Value};
use crate::schema::DataType;

/// Spark's name for the folder of a null. As a value it is null too, where it cannot be text.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The years that readers can hold (those of Rust's `chrono`, a few less on both ends).
const YEARS: std::ops::RangeInclusive<i64> = -262_000..=262_000;

/// The type of a partition column. Stored in skipping indexes: variants are only ever added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PartitionType {
    /// A whole number of so many bits.
    Integer {
        bits: u8,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    String,
    Binary,
    Boolean,
    Date,
    Timestamp,
    TimestampNtz,
    /// One by which nothing can be partitioned, or that is not known here.
    Other,
}

impl PartitionType {
    pub(crate) fn of(data_type: &DataType) -> PartitionType {
        match data_type {
            DataType::Byte => PartitionType::Integer { bits: 8 },
            DataType::Short => PartitionType::Integer { bits: 16 },
            DataType::Integer => PartitionType::Integer { bits: 32 },
            DataType::Long => PartitionType::Integer { bits: 64 },
            DataType::Float => PartitionType::Float,
            DataType::Double => PartitionType::Double,
            DataType::Decimal { precision, scale } => {
                PartitionType::Decimal { precision: *precision, scale: *scale }
            }
            DataType::String => PartitionType::String,
            DataType::Binary => PartitionType::Binary,
            DataType::Boolean => PartitionType::Boolean,
            DataType::Date => PartitionType::Date,
            DataType::Timestamp => PartitionType::Timestamp,
            DataType::TimestampNtz => PartitionType::TimestampNtz,
            _ => PartitionType::Other,
        }
    }
}

/// A partition column's value.
#[derive(Debug, Clone, PartialEq)]
pub enum PartitionValue {
    /// Null: no text, or an empty one, whatever the type.
    Null,
    /// `boolean`
    Boolean(bool),
    /// `byte`, `short`, `integer`, `long`
    Integer(i64),
    /// `float`; never -0.0, which is the same value as 0.0.
    Float(f32),
    /// `double`; never -0.0, which is the same value as 0.0.
    Double(f64),
    /// `decimal`: `digits` × 10^-`scale`.
    Decimal {
        /// All digits.
        digits: i128,
        /// How many of them are behind the point: those of the type.
        scale: u8,
    },
    /// `string`, not empty.
    String(String),
    /// `binary`: the bytes of the text, as Spark and the Delta kernel read it.
    Binary(String),
    /// `date`: days since the epoch.
    Date(i32),
    /// `timestamp`: microseconds since the epoch. Text without a zone is UTC.
    Timestamp(i64),
    /// `timestamp_ntz`: microseconds since 1970-01-01 00:00:00 of the same clock.
    TimestampNtz(i64),
}

impl PartitionValue {
    /// Reads text as a value of a type; none if it is not one, or stands for one only if it is rounded or cut
    /// off. (Fractions of a microsecond are cut off, as all readers do.)
    #[must_use]
    pub fn parse(data_type: &DataType, text: &str) -> Option<PartitionValue> {
        Self::of(PartitionType::of(data_type), text)
    }

    pub(crate) fn of(data_type: PartitionType, text: &str) -> Option<PartitionValue> {
        if text.is_empty() {
            return Some(PartitionValue::Null);
        }
        match data_type {
            PartitionType::String => return Some(PartitionValue::String(text.to_owned())),
            PartitionType::Binary => return Some(PartitionValue::Binary(text.to_owned())),
            _ if text == HIVE_NULL => return Some(PartitionValue::Null),
            _ => {}
        }
        let text = text.trim();
        match data_type {
            PartitionType::Integer { bits } => {
                let number = i64::try_from(scaled(text, 0)?).ok()?;
                let unused = u32::from(64_u8.saturating_sub(bits));
                let fits = number.checked_shl(unused)?.checked_shr(unused)? == number;
                // An exponent is no whole number to most readers, and null to Spark.
                (fits && !text.contains(['e', 'E'])).then_some(PartitionValue::Integer(number))
            }
            PartitionType::Float => {
                let number: f32 = text.parse().ok()?;
                Some(PartitionValue::Float(if number == 0.0 { 0.0 } else { number }))
            }
            PartitionType::Double => {
                let number: f64 = text.parse().ok()?;
                Some(PartitionValue::Double(if number == 0.0 { 0.0 } else { number }))
            }
            PartitionType::Decimal { precision, scale } => {
                let digits = scaled(text, scale)?;
                let fits = digits.unsigned_abs() < 10_u128.checked_pow(u32::from(precision))?;
                fits.then_some(PartitionValue::Decimal { digits, scale })
            }
            PartitionType::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "1" => Some(PartitionValue::Boolean(true)),
                "false" | "f" | "no" | "n" | "0" => Some(PartitionValue::Boolean(false)),
                _ => None,
            },
            PartitionType::Date => {
                let day = value::partition_date(text).or_else(|| {
                    // Written by what knows timestamps only.
                    let micros = value::partition_time(text, false)?;
                    (micros.rem_euclid(DAY_MICROS) == 0).then(|| micros.div_euclid(DAY_MICROS))
                })?;
                YEARS.contains(&civil(day).0).then_some(())?;
                Some(PartitionValue::Date(i32::try_from(day).ok()?))
            }
            PartitionType::Timestamp => time(text, true).map(PartitionValue::Timestamp),
            PartitionType::TimestampNtz => time(text, false).map(PartitionValue::TimestampNtz),
            PartitionType::String | PartitionType::Binary | PartitionType::Other => None,
        }
    }

    /// The text that stands for it; none for null.
    ///
    /// Numbers are written as Java writes them, which is what Spark and the Delta kernel do; a `timestamp` in
    /// the form with a `Z`, so that it is the same instant to readers in every time zone.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        Some(match self {
            PartitionValue::Null => return None,
            PartitionValue::Boolean(value) => value.to_string(),
            PartitionValue::Integer(number) => number.to_string(),
            PartitionValue::Float(number) => {
                java(f64::from(*number), &number.to_string(), &format!("{number:E}"))
            }
            PartitionValue::Double(number) => {
                java(*number, &number.to_string(), &format!("{number:E}"))
            }
            PartitionValue::Decimal { digits, scale } => {
                let sign = if *digits < 0 { "-" } else { "" };
                let scale = usize::from(*scale);
                let all = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
                let (whole, fraction) = all.split_at(all.len() - scale);
                let point = if fraction.is_empty() { "" } else { "." };
                format!("{sign}{whole}{point}{fraction}")
            }
            PartitionValue::String(text) | PartitionValue::Binary(text) => text.clone(),
            PartitionValue::Date(day) => date_text(i64::from(*day)),
            PartitionValue::Timestamp(micros) => {
                let (day, clock) = split(*micros);
                format!("{day}T{clock}Z")
            }
            PartitionValue::TimestampNtz(micros) => {
                let (day, clock) = split(*micros);
                format!("{day} {clock}")
            }
        })
    }

    /// What values of this kind compare by: the least and the greatest that it may be, and whether it is NaN.
    /// None where nothing is known.
    pub(super) fn bounds(&self, kind: Kind) -> Option<(Value, Value, bool)> {
        let exactly = |value: Value| Some((value.clone(), value, false));
        match (kind, self) {
            (Kind::Boolean, PartitionValue::Boolean(value)) => exactly(Value::Boolean(*value)),
            (Kind::Exact { .. }, PartitionValue::Integer(number)) => {
                exactly(Value::Exact(Exact { digits: (*number).into(), scale: 0 }))
            }
            (Kind::Exact { .. }, PartitionValue::Decimal { digits, scale }) => {
                exactly(Value::Exact(Exact { digits: *digits, scale: (*scale).into() }))
            }
            (Kind::Float { .. }, PartitionValue::Float(number)) if number.is_nan() => {
                Some(NOT_A_NUMBER)
            }
            (Kind::Float { .. }, PartitionValue::Double(number)) if number.is_nan() => {
                Some(NOT_A_NUMBER)
            }
            // "0.1" is the float next to 0.1, and is compared with 0.1 as either.
            (Kind::Float { .. }, PartitionValue::Float(number)) => Some((
                Value::Float(number.next_down().into()),
                Value::Float(number.next_up().into()),
                false,
            )),
            (Kind::Float { .. }, PartitionValue::Double(number)) => exactly(Value::Float(*number)),
            (Kind::Text, PartitionValue::String(text)) => exactly(Value::Text(text.clone())),
            (Kind::Date, PartitionValue::Date(day)) => exactly(Value::Date((*day).into())),
            (
                Kind::Timestamp { .. },
                PartitionValue::Timestamp(micros) | PartitionValue::TimestampNtz(micros),
            ) => exactly(Value::Timestamp((*micros).into())),
            _ => None,
        }
    }
}

/// NaN is above all numbers, infinity among them.
const NOT_A_NUMBER: (Value, Value, bool) =
    (Value::Float(f64::INFINITY), Value::Float(f64::INFINITY), true);

const DAY_MICROS: i64 = 86_400_000_000;

/// The number as a multiple of 10^-`scale`; none if it has more digits behind the point.
fn scaled(text: &str, scale: u8) -> Option<i128> {
    let mut number = Exact::parse(text)?;
    while number.scale > i32::from(scale) && number.digits % 10 == 0 && number.digits != 0 {
        number = Exact { digits: number.digits / 10, scale: number.scale - 1 };
    }
    if number.digits == 0 { Some(0) } else { number.rescaled(scale.into()) }
}

fn time(text: &str, zoned: bool) -> Option<i64> {
    let micros = value::partition_time(text, zoned)?;
    YEARS.contains(&civil(micros.div_euclid(DAY_MICROS)).0).then_some(micros)
}

/// As Java's `toString` does: plain from 0.001 to 10,000,000, with an exponent beyond.
fn java(number: f64, plain: &str, scientific: &str) -> String {
    let with_point = |text: &str, end: usize| {
        let (mantissa, rest) = text.split_at(end);
        let point = if mantissa.contains('.') { "" } else { ".0" };
        format!("{mantissa}{point}{rest}")
    };
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else if number == 0.0 || (1e-3..1e7).contains(&number.abs()) {
        with_point(plain, plain.len())
    } else {
        with_point(scientific, scientific.find('E').unwrap_or(scientific.len()))
    }
}

/// Year, month and day of a day since the epoch, in the proleptic Gregorian calendar.
fn civil(day: i64) -> (i64, i64, i64) {
    // Years begin in March, so that the leap day is their last.
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn date_text(day: i64) -> String {
    let (year, month, day) = civil(day);
    // A year of more or less than four digits has a sign: else readers refuse it.
    let sign = match year {
        ..0 => "-",
        0..=9_999 => "",
        _ => "+",
    };
    format!("{sign}{:04}-{month:02}-{day:02}", year.abs())
}

/// The day and the time of day.
fn split(micros: i64) -> (String, String) {
    let of_day = micros.rem_euclid(DAY_MICROS);
    let (seconds, micros_of_second) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    (
        date_text(micros.div_euclid(DAY_MICROS)),
        format!("{hour:02}:{minute:02}:{second:02}.{micros_of_second:06}"),
    )
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
