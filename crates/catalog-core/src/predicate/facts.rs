//! What is known of a column's values in one file.

use std::cmp::Ordering;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::value::{Kind, Range, Stat, Value, partition_range, range};
use crate::action::Add;

/// Spark's name of the partition whose value is null, should it ever be taken for a value.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Bounds of a column's values in one file. Whatever is not known is left open.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    lower: Option<Value>,
    upper: Option<Value>,
    /// `upper` may have been cut off: values that start with it are below it, too.
    upper_is_prefix: bool,
    /// NaN, greater than all, may be there: statistics leave it out.
    nan: bool,
    /// Whether a row may be null.
    pub(super) may_be_null: bool,
    /// Whether a row may be other than null.
    pub(super) may_be_set: bool,
}

impl Facts {
    pub(super) fn unknown() -> Self {
        Facts {
            lower: None,
            upper: None,
            upper_is_prefix: false,
            nan: true,
            may_be_null: true,
            may_be_set: true,
        }
    }

    fn lower_is(&self, v: &Value, wanted: &[Ordering]) -> bool {
        self.lower.as_ref().and_then(|l| l.order(v)).is_some_and(|o| wanted.contains(&o))
    }

    /// Whether every value is certainly less than `v`, NaN aside.
    fn all_below(&self, v: &Value) -> bool {
        let less = self.upper.as_ref().and_then(|u| u.order(v)) == Some(Ordering::Less);
        less && !(self.upper_is_prefix && self.upper_starts(v))
    }

    /// Whether every value is certainly at most `v`, NaN aside.
    fn all_at_most(&self, v: &Value) -> bool {
        self.all_below(v)
            || !self.upper_is_prefix
                && self.upper.as_ref().and_then(|u| u.order(v)) == Some(Ordering::Equal)
    }

    /// Whether `v` starts with the upper bound.
    fn upper_starts(&self, v: &Value) -> bool {
        matches!((&self.upper, v), (Some(Value::Text(u)), Value::Text(v)) if v.starts_with(u.as_str()))
    }

    pub(super) fn may_be_below(&self, v: &Value) -> bool {
        !self.lower_is(v, &[Ordering::Equal, Ordering::Greater])
    }

    pub(super) fn may_be_at_most(&self, v: &Value) -> bool {
        !self.lower_is(v, &[Ordering::Greater])
    }

    pub(super) fn may_be_above(&self, v: &Value) -> bool {
        self.nan || !self.all_at_most(v)
    }

    pub(super) fn may_be_at_least(&self, v: &Value) -> bool {
        self.nan || !self.all_below(v)
    }

    pub(super) fn may_equal(&self, v: &Value) -> bool {
        self.may_be_at_most(v) && !self.all_below(v)
    }

    pub(super) fn may_differ(&self, v: &Value) -> bool {
        self.nan
            || !(self.lower_is(v, &[Ordering::Equal, Ordering::Greater]) && self.all_at_most(v))
    }

    /// Whether some value may start with `prefix`, and whether some may not.
    pub(super) fn may_start_with(&self, prefix: &str) -> (bool, bool) {
        let p = Value::Text(prefix.to_owned());
        let lower = match &self.lower {
            Some(Value::Text(lower)) => Some(lower.as_str()),
            _ => None,
        };
        let upper = match &self.upper {
            Some(Value::Text(upper)) => Some(upper.as_str()),
            _ => None,
        };
        let all_after = lower.is_some_and(|l| l > prefix && !l.starts_with(prefix));
        let starts = |bound: Option<&str>| bound.is_some_and(|b| b.starts_with(prefix));
        (!all_after && !self.all_below(&p), !(starts(lower) && starts(upper)))
    }
}

/// Facts from `partitionValues`: exact.
pub(super) fn partition_facts(add: &Add, physical: &[String], kind: Kind) -> Facts {
    let mut facts = Facts::unknown();
    let Some(value) = physical.first().and_then(|name| add.partition_values.get(name)) else {
        return facts;
    };
    match value.as_deref() {
        // An empty string is null, whatever the type.
        None | Some("") => facts.may_be_set = false,
        Some(HIVE_NULL) => {}
        Some(text) => {
            let Range { lower, upper } = partition_range(kind, text);
            facts.may_be_null = false;
            facts.nan = matches!(kind, Kind::Float { .. }) && lower.is_none();
            facts.lower = lower;
            facts.upper = upper;
        }
    }
    facts
}

/// Facts from the statistics. `tightBounds` need not be looked at: wide bounds are bounds, and a
/// null count of zero or of all rows holds for what a deletion vector leaves of them.
pub(super) fn stats_facts(add: &Add, physical: &[String], kind: Kind) -> Facts {
    let mut facts = Facts::unknown();
    let Some(stats) = add.stats.as_deref() else { return facts };
    let count = |path: &[&str]| pick(stats, path).and_then(|raw| raw.trim().parse::<u64>().ok());
    let under = |section: &'static str| {
        std::iter::once(section).chain(physical.iter().map(String::as_str)).collect::<Vec<_>>()
    };
    let bound = |section| pick(stats, &under(section)).and_then(stat).map(|s| range(kind, &s));
    facts.lower = bound("minValues").and_then(|r| r.lower);
    facts.upper = bound("maxValues").and_then(|r| r.upper);
    facts.upper_is_prefix = true;
    facts.nan = matches!(kind, Kind::Float { .. });
    if !matches!(kind, Kind::Text) {
        facts.upper_is_prefix = false;
    }
    if let Some(lower) = &facts.lower
        && facts.all_below(lower)
    {
        // They contradict each other: neither is believed.
        (facts.lower, facts.upper) = (None, None);
        return facts;
    }
    if let Some(nulls) = count(&under("nullCount")) {
        // Zeros of an "empty" file are rather those of a writer that did not count.
        let rows = count(&["numRecords"]);
        facts.may_be_null = nulls > 0 || rows == Some(0);
        let rows = rows.filter(|rows| *rows > 0);
        let bounded = facts.lower.is_some() || facts.upper.is_some();
        facts.may_be_set = bounded || rows != Some(nulls);
    }
    facts
}

fn stat(raw: &str) -> Option<Stat> {
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok().map(Stat::Text),
        b't' => Some(Stat::Boolean(true)),
        b'f' => Some(Stat::Boolean(false)),
        b'-' | b'0'..=b'9' => Some(Stat::Number(raw.to_owned())),
        _ => None,
    }
}

/// The bytes of the value at a path of nested JSON objects: numbers keep all of their digits.
fn pick<'a>(json: &'a str, path: &[&str]) -> Option<&'a str> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Pick(path).deserialize(&mut deserializer).ok().flatten().map(RawValue::get)
}

struct Pick<'p>(&'p [&'p str]);

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let Some((first, rest)) = self.0.split_first() else {
            return Ok(None);
        };
        while let Some(hit) = map.next_key_seed(KeyIs(first))? {
            if !hit {
                map.next_value::<IgnoredAny>()?;
            } else if rest.is_empty() {
                found = Some(map.next_value::<&'de RawValue>()?);
            } else {
                found = map.next_value_seed(Pick(rest))?;
            }
        }
        Ok(found)
    }
}

struct KeyIs<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}
