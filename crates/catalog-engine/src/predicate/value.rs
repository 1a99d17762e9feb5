//! Typed values: reading them from constants, statistics and partition values, and comparing them.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::Literal;

/// How values of a column compare. Stored in skipping indexes: variants are only ever added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Boolean,
    /// Integers and decimals. `lossy`: statistics may have been written through a double.
    Exact {
        lossy: bool,
    },
    /// `single`: statistics may be a 32-bit float's shortest digits.
    Float {
        single: bool,
    },
    Text,
    Date,
    /// `zoned`: an instant; else wall-clock time.
    Timestamp {
        zoned: bool,
    },
    /// Only null or not null.
    Opaque,
}

/// A value. Those of different variants do not compare. Stored as [`Kind`] is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Value {
    Boolean(bool),
    Exact(Exact),
    /// Never NaN.
    Float(f64),
    Text(String),
    /// Days since the epoch.
    Date(i64),
    /// Microseconds since the epoch.
    Timestamp(i128),
}

impl Value {
    /// Order of two values of one kind; none between kinds.
    pub(crate) fn order(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Boolean(a), Value::Boolean(b)) => Some(a.cmp(b)),
            (Value::Exact(a), Value::Exact(b)) => Some(a.order(b)),
            (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Date(a), Value::Date(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// `digits` × 10^-`scale`, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Exact {
    pub(crate) digits: i128,
    pub(crate) scale: i32,
}

impl Exact {
    /// Reads a JSON or SQL number; none if it is not one, or has more digits than fit.
    pub(super) fn parse(text: &str) -> Option<Exact> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let mut digits: i128 = 0;
        for c in whole.chars().chain(fraction.chars()) {
            let digit = i128::from(c.to_digit(10)?);
            digits = digits.checked_mul(10)?.checked_add(digit)?;
        }
        let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        // Wider than any column; keeps the loops that follow short.
        if scale.abs() > 1_000 {
            return if digits == 0 { Some(Exact { digits: 0, scale: 0 }) } else { None };
        }
        Some(Exact { digits: if negative { -digits } else { digits }, scale })
    }

    pub(super) fn order(&self, other: &Exact) -> Ordering {
        let sign = self.digits.signum().cmp(&other.digits.signum());
        if sign != Ordering::Equal || self.digits == 0 {
            return sign;
        }
        let scale = self.scale.max(other.scale);
        match (self.rescaled(scale), other.rescaled(scale)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // Too large for 128 bits is larger in magnitude than what fits. One of the two has
            // the larger scale and is not rescaled at all, so that not both are too large.
            (None, _) if self.digits > 0 => Ordering::Greater,
            (None, _) => Ordering::Less,
            (_, None) if other.digits > 0 => Ordering::Less,
            (_, None) => Ordering::Greater,
        }
    }

    /// Digits at a larger scale.
    pub(super) fn rescaled(&self, scale: i32) -> Option<i128> {
        let power = u32::try_from(scale.checked_sub(self.scale)?).ok()?;
        self.digits.checked_mul(10_i128.checked_pow(power)?)
    }

    /// The least and the greatest number that a double near this one may stand for.
    fn widened(self) -> Option<(Exact, Exact)> {
        let scale = self.scale.max(0);
        let digits = self.rescaled(scale)?;
        // Half a unit in the last of 53 bits, and then some.
        let error = (digits.abs() >> 51) + 1;
        Some((
            Exact { digits: digits.checked_sub(error)?, scale },
            Exact { digits: digits.checked_add(error)?, scale },
        ))
    }
}

/// The constant as a value of that kind; none if it does not fit.
pub(super) fn literal(kind: Kind, literal: &Literal) -> Option<Value> {
    match (kind, literal) {
        (Kind::Boolean, Literal::Boolean(b)) => Some(Value::Boolean(*b)),
        (Kind::Exact { .. }, Literal::Number(n)) => Exact::parse(n).map(Value::Exact),
        (Kind::Float { .. }, Literal::Number(n)) => {
            Exact::parse(n).map(|_| ())?;
            n.parse().ok().map(Value::Float)
        }
        (Kind::Text, Literal::Text(t)) => Some(Value::Text(t.clone())),
        (Kind::Date, Literal::Date(t) | Literal::Text(t)) => date(t).map(Value::Date),
        (
            Kind::Timestamp { zoned },
            Literal::Timestamp(t) | Literal::Date(t) | Literal::Text(t),
        ) => {
            let time = timestamp(t)?;
            let fits = !time.inexact && (zoned || time.zone == Zone::None);
            fits.then_some(Value::Timestamp(time.micros))
        }
        _ => None,
    }
}

/// What a constant for this kind looks like, for errors.
pub(super) fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "write TRUE or FALSE",
        Kind::Exact { .. } | Kind::Float { .. } => "write a number",
        Kind::Text => "write text in single quotes",
        Kind::Date => "write DATE '2024-01-31'",
        Kind::Timestamp { zoned: true } => {
            "write TIMESTAMP '2024-01-31 12:00:00' (UTC), or with an offset as in \
             '2024-01-31T12:00:00+02:00', with at most 6 digits of a second"
        }
        Kind::Timestamp { zoned: false } => {
            "write TIMESTAMP '2024-01-31 12:00:00', without a time zone and with at most 6 digits \
             of a second"
        }
        Kind::Opaque => "only IS NULL and IS NOT NULL are possible",
    }
}

/// Bounds that a minimum and a maximum in the statistics stand for.
pub(super) struct Range {
    pub(super) lower: Option<Value>,
    pub(super) upper: Option<Value>,
}

/// A statistic: JSON text or the JSON number's digits.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stat {
    Text(String),
    Number(String),
    Boolean(bool),
}

/// Bounds of one statistic: everything it may stand for lies between them, when it is a minimum
/// (`lower`), or a maximum (`upper`).
pub(super) fn range(kind: Kind, stat: &Stat) -> Range {
    let none = Range { lower: None, upper: None };
    match (kind, stat) {
        (Kind::Boolean, Stat::Boolean(b)) => {
            Range { lower: Some(Value::Boolean(*b)), upper: Some(Value::Boolean(*b)) }
        }
        (Kind::Exact { lossy }, Stat::Number(text)) => {
            let Some(exact) = Exact::parse(text) else { return none };
            // A decimal that went through a 64-bit integer stops there, however large it was.
            let stops = [i64::MIN, i64::MAX].map(i128::from);
            if lossy && exact.rescaled(0).is_some_and(|whole| stops.contains(&whole)) {
                return none;
            }
            let digits = text.chars().filter(char::is_ascii_digit).count();
            let ends = if lossy || digits > 15 && exact.scale > 0 {
                exact.widened()
            } else {
                Some((exact, exact))
            };
            match ends {
                Some((low, high)) => {
                    Range { lower: Some(Value::Exact(low)), upper: Some(Value::Exact(high)) }
                }
                None => none,
            }
        }
        (Kind::Exact { .. }, Stat::Text(text)) => exact(Exact::parse(text).map(Value::Exact)),
        (Kind::Float { single }, Stat::Number(text) | Stat::Text(text)) => float(text, single),
        (Kind::Text, Stat::Text(text)) => {
            // What writers append to a truncated maximum; without it, it is a prefix of them all.
            let prefix = text.trim_end_matches(['\u{FFFF}', '\u{10FFFF}', '\u{FFFD}']);
            Range {
                lower: Some(Value::Text(text.clone())),
                upper: Some(Value::Text(prefix.to_owned())),
            }
        }
        (Kind::Date, Stat::Text(text)) => exact(date(text).map(Value::Date)),
        (Kind::Timestamp { zoned }, Stat::Text(text)) => {
            let Some(time) = timestamp(text).filter(|t| zoned || t.zone != Zone::Offset) else {
                return none;
            };
            // Truncated to the digits that it shows. Before the epoch that may be towards zero.
            let unseen = time.unseen();
            let below = if time.micros < 0 { unseen } else { 0 };
            Range {
                lower: Some(Value::Timestamp(time.micros - below)),
                upper: Some(Value::Timestamp(time.micros + unseen)),
            }
        }
        _ => none,
    }
}

fn exact(value: Option<Value>) -> Range {
    Range { lower: value.clone(), upper: value }
}

fn float(text: &str, single: bool) -> Range {
    let Some(value) = text.parse::<f64>().ok().filter(|v| !v.is_nan()) else {
        return Range { lower: None, upper: None };
    };
    let (mut low, mut high) = (value, value);
    if single && let Ok(narrow) = text.parse::<f32>() {
        // "0.1" stands for the float next to 0.1, and is compared with 0.1 as either.
        low = low.min(f64::from(narrow.next_down()));
        high = high.max(f64::from(narrow.next_up()));
    }
    Range { lower: Some(Value::Float(low)), upper: Some(Value::Float(high)) }
}

/// Days since the epoch of `[+-]yyyy-mm-dd` in the proleptic Gregorian calendar.
pub(super) fn date(text: &str) -> Option<i64> {
    date_with(text, two_digits)
}

/// As [`date`], also with a month and day of one digit.
pub(super) fn partition_date(text: &str) -> Option<i64> {
    date_with(text, |part| if part.len() == 1 { number(part) } else { two_digits(part) })
}

fn date_with(text: &str, of_year: impl Fn(&str) -> Option<i64>) -> Option<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = rest.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() > 7 || year.len() < 4 {
        return None;
    }
    let year = number(year)?;
    let (year, month, day) = (if negative { -year } else { year }, of_year(month)?, of_year(day)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is their last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468)
}

fn number(text: &str) -> Option<i64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn two_digits(text: &str) -> Option<i64> {
    if text.len() == 2 { number(text) } else { None }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    None,
    Utc,
    Offset,
}

#[derive(Debug, Clone, Copy)]
struct Time {
    micros: i128,
    /// Digits of the second's fraction that were given, at most 6.
    shown: u32,
    /// Whether there were more, and not all zero.
    inexact: bool,
    zone: Zone,
}

impl Time {
    /// How many microseconds more it may have been before it was truncated to what it shows.
    fn unseen(&self) -> i128 {
        if self.inexact { 1 } else { 10_i128.pow(6 - self.shown.min(6)) - 1 }
    }
}

/// `date`, `date time` or `dateTtime`, with a fraction of a second and a zone or without.
fn timestamp(text: &str) -> Option<Time> {
    timestamp_with(text, date, two_digits)
}

fn timestamp_with(
    text: &str,
    date: impl Fn(&str) -> Option<i64>,
    of_clock: impl Fn(&str) -> Option<i64>,
) -> Option<Time> {
    let text = text.trim();
    let (day, rest) = match text.find(['T', 't', ' ']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, ""),
    };
    let midnight = i128::from(date(day)?) * 86_400_000_000;
    if rest.is_empty() {
        return Some(Time { micros: midnight, shown: 0, inexact: false, zone: Zone::None });
    }
    let clock_end = rest.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.');
    let (clock, zone) = rest.split_at(clock_end.unwrap_or(rest.len()));
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.split(':');
    let (hour, minute) = (of_clock(parts.next()?)?, of_clock(parts.next()?)?);
    let second = match parts.next() {
        Some(second) => of_clock(second)?,
        None => 0,
    };
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    if clock.contains('.') && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let (seen, more) = fraction.split_at(fraction.len().min(6));
    let shown = u32::try_from(seen.len()).ok()?;
    let fraction = if seen.is_empty() { 0 } else { number(seen)? * 10_i64.pow(6 - shown) };
    if !more.is_empty() {
        number(more)?;
    }
    let inexact = more.bytes().any(|b| b != b'0');
    let (zone, offset_s) = zone_of(zone.trim_start())?;
    let seconds = hour * 3_600 + minute * 60 + second - offset_s;
    let micros = midnight + i128::from(seconds) * 1_000_000 + i128::from(fraction);
    Some(Time { micros, shown, inexact, zone })
}

/// Microseconds of a timestamp as partition values have it; one with a zone only where that is asked for.
pub(super) fn partition_time(text: &str, zoned: bool) -> Option<i64> {
    let time = lenient(text)?;
    let fits = zoned || time.zone == Zone::None;
    fits.then(|| i64::try_from(time.micros).ok()).flatten()
}

/// Whether a timestamp has digits behind the microseconds that are not zero.
pub(super) fn is_inexact(text: &str) -> bool {
    lenient(text).is_some_and(|time| time.inexact)
}

/// A timestamp, also with parts of one digit.
fn lenient(text: &str) -> Option<Time> {
    let part = |part: &str| if part.len() == 1 { number(part) } else { two_digits(part) };
    timestamp_with(text, partition_date, part)
}

/// The zone and its offset from UTC in seconds.
fn zone_of(text: &str) -> Option<(Zone, i64)> {
    match text {
        "" => return Some((Zone::None, 0)),
        "Z" | "z" | "UTC" => return Some((Zone::Utc, 0)),
        _ => {}
    }
    let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return None,
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    let part = |at: usize| digits.get(at..at + 2).map_or(Some(0), two_digits);
    if !matches!(digits.len(), 2 | 4 | 6) {
        return None;
    }
    let (hours, minutes, seconds) = (part(0)?, part(2)?, part(4)?);
    if hours > 18 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some((Zone::Offset, sign * (hours * 3_600 + minutes * 60 + seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_since_the_epoch() {
        for (text, want) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("2024-03-01", 19_783),
            ("0001-01-01", -719_162),
            ("-0001-01-01", -719_893),
            ("9999-12-31", 2_932_896),
            ("+10000-01-01", 2_932_897),
        ] {
            assert_eq!(date(text), Some(want), "{text}");
        }
        for bad in ["2023-02-29", "2024-13-01", "2024-1-1", "24-01-01", "x", "", "2024-01-01-"] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }

    #[test]
    fn timestamps_come_in_many_forms() {
        for (text, micros, unseen) in [
            ("1970-01-01", 0, 999_999),
            ("1970-01-01T00:00:01.5Z", 1_500_000, 99_999),
            ("1970-01-01 00:00:01.234", 1_234_000, 999),
            ("1970-01-01 00:00:01.234567 UTC", 1_234_567, 0),
            ("1970-01-01T02:00:00.000000+02:00", 0, 0),
            ("1970-01-01T00:00:00.000-0130", 5_400_000_000, 999),
            ("1969-12-31T23:59:59.999Z", -1_000, 999),
            ("1970-01-01T00:00:00.000000001Z", 0, 1),
        ] {
            let time = timestamp(text).unwrap();
            assert_eq!((time.micros, time.unseen()), (micros, unseen), "{text}");
        }
        for bad in ["1970-01-01T", "1970-01-01T25:00", "1970-01-01T00:00:00.Z", "1970-01-01TZ", "é"]
        {
            // A bare "T" is a date with nothing behind it.
            assert_eq!(timestamp(bad).is_some(), bad == "1970-01-01T", "{bad}");
        }
    }

    #[test]
    fn numbers_compare_exactly() {
        let n = |text| Exact::parse(text).unwrap();
        assert_eq!(n("1.50").order(&n("15e-1")), Ordering::Equal);
        assert_eq!(n("9007199254740993").order(&n("9007199254740992")), Ordering::Greater);
        assert_eq!(
            n("1e300").order(&n("99999999999999999999999999999999999999")),
            Ordering::Greater
        );
        assert_eq!(n("-1e300").order(&n("-0.5")), Ordering::Less);
        assert_eq!(n("-0").order(&n("0.000")), Ordering::Equal);
        assert_eq!(n("1e-300").order(&n("1e300")), Ordering::Less);
        for bad in ["", "-", ".", "1x", "1e", "--1", "1e99999", &"9".repeat(50)] {
            assert!(Exact::parse(bad).is_none(), "{bad}");
        }
    }
}
