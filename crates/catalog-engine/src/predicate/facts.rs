//! What is known of a column's values in one file.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Column;
use super::partition::{PartitionType, PartitionValue};
use super::value::{Kind, Stat, Value, range};
use deltalakedb_catalog_core::action::Add;

/// Bounds of a column's values in one file, or in several. Whatever is not known is left open.
///
/// Stored in skipping indexes ([`crate::skip`]): a change of its fields is a new format there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) lower: Option<Value>,
    pub(crate) upper: Option<Value>,
    /// `upper` may have been cut off: values that start with it are below it, too.
    pub(crate) upper_is_prefix: bool,
    /// NaN, greater than all, may be there: statistics leave it out.
    pub(crate) nan: bool,
    /// Whether a row may be null.
    pub(crate) may_be_null: bool,
    /// Whether a row may be other than null.
    pub(crate) may_be_set: bool,
}

impl Facts {
    pub(crate) fn unknown() -> Self {
        Facts {
            lower: None,
            upper: None,
            upper_is_prefix: false,
            nan: true,
            may_be_null: true,
            may_be_set: true,
        }
    }

    /// Makes these the facts of two sets of files together: whatever may come out for one of them
    /// may come out for both.
    pub(crate) fn join(&mut self, other: &Facts) {
        self.may_be_null |= other.may_be_null;
        // Bounds speak of values: where all is null there are none to be kept within them.
        if !other.may_be_set {
            return;
        }
        if !self.may_be_set {
            let may_be_null = self.may_be_null;
            self.clone_from(other);
            self.may_be_null = may_be_null;
            return;
        }
        self.nan |= other.nan;
        let order = |a: &Option<Value>, b: &Option<Value>| a.as_ref()?.order(b.as_ref()?);
        match order(&self.lower, &other.lower) {
            Some(Ordering::Less | Ordering::Equal) => {}
            Some(Ordering::Greater) => self.lower.clone_from(&other.lower),
            None => self.lower = None,
        }
        let (below, above) = match order(&self.upper, &other.upper) {
            Some(Ordering::Equal) => {
                self.upper_is_prefix |= other.upper_is_prefix;
                return;
            }
            Some(Ordering::Less) => (&*self, other),
            Some(Ordering::Greater) => (other, &*self),
            None => {
                (self.upper, self.upper_is_prefix) = (None, false);
                return;
            }
        };
        // What starts with the lesser one may be above the greater one, if that starts with it too.
        let widest = match &above.upper {
            Some(value) if below.upper_is_prefix && below.upper_starts(value) => below,
            _ => above,
        };
        (self.upper, self.upper_is_prefix) = (widest.upper.clone(), widest.upper_is_prefix);
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

/// Facts from `partitionValues`: exact, where the text is a value of the column's type. Any other text may be
/// anything, as readers differ: some take it for null, others do not read the file.
pub(crate) fn partition_facts(add: &Add, column: &Column, data_type: PartitionType) -> Facts {
    let mut facts = Facts::unknown();
    let Some(value) = column.physical.first().and_then(|name| add.partition_values.get(name))
    else {
        return facts;
    };
    let Some(value) = PartitionValue::of(data_type, value.as_deref().unwrap_or_default()) else {
        return facts;
    };
    if value == PartitionValue::Null {
        facts.may_be_set = false;
        return facts;
    }
    facts.may_be_null = false;
    if let Some((lower, upper, nan)) = value.bounds(column.kind) {
        facts.nan = nan;
        facts.lower = Some(lower);
        facts.upper = Some(upper);
    }
    facts
}

/// The statistics of one file, read once for all of its columns.
pub(crate) struct Stats<'a> {
    rows: Option<u64>,
    minimums: Section<'a>,
    maximums: Section<'a>,
    nulls: Section<'a>,
}

/// Columns at the top, with what stands there.
pub(super) type Section<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

impl<'a> Stats<'a> {
    /// Reads statistics; none if they are not a JSON object.
    pub(crate) fn parse(text: &'a str) -> Option<Stats<'a>> {
        let top = section(text)?;
        let under = |name| last(&top, name).and_then(|raw| section(raw.get())).unwrap_or_default();
        Some(Stats {
            rows: last(&top, "numRecords").and_then(number),
            minimums: under("minValues"),
            maximums: under("maxValues"),
            nulls: under("nullCount"),
        })
    }
}

/// What a key stands for: of several, the last one.
fn last<'a>(section: &Section<'a>, key: &str) -> Option<&'a RawValue> {
    section.iter().rev().find(|(name, _)| name == key).map(|(_, raw)| *raw)
}

/// The value at a path.
fn at<'a>(section: &Section<'a>, path: &[String]) -> Option<&'a RawValue> {
    let (first, rest) = path.split_first()?;
    let found = last(section, first)?;
    if rest.is_empty() { Some(found) } else { at(&self::section(found.get())?, rest) }
}

fn number(raw: &RawValue) -> Option<u64> {
    raw.get().trim().parse().ok()
}

/// Facts from the statistics. `tightBounds` need not be looked at: wide bounds are bounds, and a
/// null count of zero or of all rows holds for what a deletion vector leaves of them.
pub(crate) fn stats_facts(stats: &Stats<'_>, physical: &[String], kind: Kind) -> Facts {
    let mut facts = Facts::unknown();
    let bound =
        |section| at(section, physical).and_then(|raw| stat(raw.get())).map(|s| range(kind, &s));
    facts.lower = bound(&stats.minimums).and_then(|r| r.lower);
    facts.upper = bound(&stats.maximums).and_then(|r| r.upper);
    facts.nan = matches!(kind, Kind::Float { .. });
    facts.upper_is_prefix = matches!(kind, Kind::Text);
    if let Some(lower) = &facts.lower
        && facts.all_below(lower)
    {
        // They contradict each other: neither is believed.
        (facts.lower, facts.upper) = (None, None);
        return facts;
    }
    if let Some(nulls) = at(&stats.nulls, physical).and_then(number) {
        // Zeros of an "empty" file are rather those of a writer that did not count.
        facts.may_be_null = nulls > 0 || stats.rows == Some(0);
        let rows = stats.rows.filter(|rows| *rows > 0);
        let bounded = facts.lower.is_some() || facts.upper.is_some();
        facts.may_be_set = bounded || rows != Some(nulls);
    }
    facts
}

pub(super) fn stat(raw: &str) -> Option<Stat> {
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok().map(Stat::Text),
        b't' => Some(Stat::Boolean(true)),
        b'f' => Some(Stat::Boolean(false)),
        b'-' | b'0'..=b'9' => Some(Stat::Number(raw.to_owned())),
        _ => None,
    }
}

/// The keys of a JSON object, with the bytes of their values: numbers keep all of their digits.
pub(super) fn section(json: &str) -> Option<Section<'_>> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let entries = deserializer.deserialize_map(Entries).ok()?;
    // Two objects are none.
    deserializer.end().ok()?;
    Some(entries)
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Section<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::with_capacity(8);
        while let Some(key) = map.next_key_seed(Key)? {
            entries.push((key, map.next_value::<&'de RawValue>()?));
        }
        Ok(entries)
    }
}

/// A key, borrowed unless it has escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}
