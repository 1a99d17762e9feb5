//! Minimum and maximum of one column in statistics: whether they can be used.

use std::cmp::Ordering;

use super::facts::stat;
use super::partition::PartitionType;
use super::value::{Kind, Stat, range};
use super::{PartitionValue, kind_of};
use crate::schema::StructField;

/// What minimum and maximum of a column must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    kind: Kind,
    data_type: PartitionType,
}

/// Digits that a number of statistics has for certain, also if it came through a double.
const DOUBLE_DIGITS: usize = 15;

impl Bound {
    /// Of a column that has an order; none for one that has none.
    pub(crate) fn of(field: &StructField) -> Option<Bound> {
        let kind = kind_of(field);
        let data_type = PartitionType::of(&field.data_type);
        (kind != Kind::Opaque).then_some(Bound { kind, data_type })
    }

    /// Whether readers can take the JSON value for a minimum, or maximum, of the column: it is of its type, and
    /// as exact as they take it to be.
    pub(crate) fn is_usable(self, raw: &str, is_max: bool) -> bool {
        let Some(stat) = stat(raw) else { return false };
        match (self.data_type, &stat) {
            (PartitionType::Boolean, Stat::Boolean(_)) => true,
            (PartitionType::Integer { .. }, Stat::Number(text)) => {
                // Readers parse these as such: no point, no exponent.
                !text.contains(['.', 'e', 'E'])
                    && PartitionValue::of(self.data_type, text).is_some()
            }
            (PartitionType::Float, Stat::Number(text)) => {
                text.parse::<f32>().is_ok_and(f32::is_finite)
            }
            (PartitionType::Double, Stat::Number(text)) => {
                text.parse::<f64>().is_ok_and(f64::is_finite)
            }
            (PartitionType::Decimal { .. }, Stat::Number(text)) => {
                let digits = text.bytes().filter(u8::is_ascii_digit).count();
                digits <= DOUBLE_DIGITS && PartitionValue::of(self.data_type, text).is_some()
            }
            (PartitionType::Decimal { .. }, Stat::Text(text)) => {
                PartitionValue::of(self.data_type, text).is_some()
            }
            // A maximum that was cut off may be less than what it is of, whatever was put behind it.
            (PartitionType::String, Stat::Text(text)) => {
                !(is_max && text.ends_with(['\u{FFFF}', '\u{FFFD}']))
            }
            (
                PartitionType::Date | PartitionType::Timestamp | PartitionType::TimestampNtz,
                Stat::Text(_),
            ) => range(self.kind, &stat).lower.is_some(),
            _ => false,
        }
    }

    /// Whether minimum and maximum do not contradict each other.
    pub(crate) fn agree(self, min: Option<&str>, max: Option<&str>) -> bool {
        let bound = |raw: Option<&str>| raw.and_then(stat).map(|stat| range(self.kind, &stat));
        let (Some(lower), Some(upper)) =
            (bound(min).and_then(|r| r.lower), bound(max).and_then(|r| r.upper))
        else {
            return true;
        };
        lower.order(&upper) != Some(Ordering::Greater) || starts(&lower, &upper)
    }
}

/// A maximum that was cut off to what the minimum starts with is not less than it.
fn starts(lower: &super::Value, upper: &super::Value) -> bool {
    match (lower, upper) {
        (super::Value::Text(lower), super::Value::Text(upper)) => lower.starts_with(upper.as_str()),
        _ => false,
    }
}
