//! The type that all values of a column of a CSV file have.

use chrono::{NaiveDate, NaiveDateTime};
use delta::arrow::datatypes::{DataType, TimeUnit};
use deltalakedb::deltalake::deltalake as delta;

/// Longest number that decimals hold.
const DECIMAL_DIGITS: usize = 38;

/// Types that are still possible. A type is one only if it gives each text back: `007` is no number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guess {
    seen: bool,
    number_seen: bool,
    boolean: bool,
    long: bool,
    whole: bool,
    double: bool,
    date: bool,
    time: bool,
}

impl Default for Guess {
    fn default() -> Self {
        Guess {
            seen: false,
            number_seen: false,
            boolean: true,
            long: true,
            whole: true,
            double: true,
            date: true,
            time: true,
        }
    }
}

impl Guess {
    pub(super) fn learn(&mut self, text: &str) {
        let first = !self.seen;
        self.seen = true;
        let all = self.boolean || self.long || self.whole || self.double || self.date || self.time;
        if !all {
            return;
        }
        let number = number(text);
        self.number_seen |= !matches!(number, Number::None | Number::Not);
        self.boolean &= text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
        self.long &= matches!(number, Number::Long);
        self.whole &= matches!(number, Number::Long | Number::Whole);
        self.double &= match number {
            // Of the whole numbers doubles hold those that are not too long.
            Number::Long | Number::Whole => exact_double(text),
            Number::Point | Number::Not => true,
            Number::None => false,
        };
        self.date &= (first || self.date) && is_date(text);
        self.time &= is_time(text);
    }

    /// The type; none if there was no value.
    pub(super) fn kind(self) -> Option<DataType> {
        if !self.seen {
            return None;
        }
        Some(if self.boolean {
            DataType::Boolean
        } else if self.long {
            DataType::Int64
        } else if self.whole {
            DataType::Decimal128(38, 0)
        } else if self.double && self.number_seen {
            DataType::Float64
        } else if self.date {
            DataType::Date32
        } else if self.time {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        } else {
            DataType::Utf8
        })
    }
}

/// What kind of number a text is.
enum Number {
    None,
    /// `NaN` and infinities, which are doubles beside numbers.
    Not,
    Long,
    /// Longer than 64 bits.
    Whole,
    Point,
}

fn number(text: &str) -> Number {
    if matches!(text, "NaN" | "inf" | "-inf" | "Infinity" | "-Infinity") {
        return Number::Not;
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let leading_zero = digits.len() > 1
        && digits.starts_with('0')
        && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if leading_zero {
        return Number::None;
    }
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return match text.parse::<i64>() {
            // A zero with a sign is one of doubles only.
            Ok(0) if text.starts_with('-') => Number::Point,
            Ok(_) => Number::Long,
            Err(_) if digits.len() <= DECIMAL_DIGITS => Number::Whole,
            Err(_) => Number::None,
        };
    }
    let of_numbers = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().any(|b| b.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
    match text.parse::<f64>() {
        Ok(value) if of_numbers && value.is_finite() => Number::Point,
        _ => Number::None,
    }
}

fn exact_double(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(|value| format!("{value:.0}") == text)
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
}

/// A day and a time without a zone, to the microsecond.
fn is_time(text: &str) -> bool {
    if !text.is_ascii() || !matches!(text.as_bytes().get(10), Some(b' ' | b'T')) {
        return false;
    }
    let (day, time) = (&text[..10], &text[11..]);
    let fraction = time.split_once('.').map_or("", |(_, fraction)| fraction);
    let finer = fraction.get(6..).unwrap_or_default();
    // The second 60 would come back as another one.
    let second = time.get(6..8).unwrap_or_default();
    is_date(day)
        && second != "60"
        && finer.len() <= 3
        && finer.bytes().all(|b| b == b'0')
        && time.as_bytes().get(2) == Some(&b':')
        && NaiveDateTime::parse_from_str(&format!("{day}T{time}"), "%Y-%m-%dT%H:%M:%S%.f").is_ok()
}
