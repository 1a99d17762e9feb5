//! Which of a file's statistics can be used.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::predicate::Bound;
use crate::schema::{DataType, StructField, StructType};

/// Columns by their names in statistics.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns(BTreeMap<String, Column>);

#[derive(Debug, Clone)]
enum Column {
    Leaf(Bound),
    Struct(Columns),
    /// Of a type without order: only nulls are counted.
    Other,
}

/// The keys of a JSON object, with their values as text.
type Object<'t> = Vec<(Cow<'t, str>, &'t str)>;

/// A JSON object; none if the text is not one.
fn object(text: &str) -> Option<Object<'_>> {
    crate::predicate::object(text)
}

/// What is left of an object.
#[derive(Default)]
struct Kept<'t> {
    entries: Vec<(Cow<'t, str>, Cow<'t, str>)>,
    /// Whether something is missing, or changed.
    changed: bool,
}

impl<'t> Kept<'t> {
    fn keep(&mut self, name: Cow<'t, str>, value: Cow<'t, str>) {
        self.changed |= matches!(value, Cow::Owned(_));
        self.entries.push((name, value));
    }

    fn render(&self) -> String {
        let mut out = String::from("{");
        for (name, value) in &self.entries {
            if !out.ends_with('{') {
                out.push(',');
            }
            out.push_str(&serde_json::Value::from(name.as_ref()).to_string());
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
        out
    }
}

/// The three sections that speak of columns.
#[derive(Default)]
struct Sections<'t> {
    minimums: Object<'t>,
    maximums: Object<'t>,
    nulls: Object<'t>,
}

/// Which values of a section go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Minimums,
    Maximums,
    Nulls,
}

impl Columns {
    pub(super) fn new(schema: &StructType, mapped: bool) -> Columns {
        let column = |field: &StructField| {
            let physical = if mapped { field.physical_name() } else { &field.name };
            let column = match &field.data_type {
                DataType::Struct(inner) => Column::Struct(Columns::new(inner, mapped)),
                _ => Bound::of(field).map_or(Column::Other, Column::Leaf),
            };
            (physical.to_owned(), column)
        };
        Columns(schema.fields.iter().map(column).collect())
    }

    /// Statistics, as far as they can be used; none if nothing can.
    pub(super) fn usable<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        let top = object(text)?;
        let section = |name: &str| {
            let raw = top.iter().rev().find(|(key, _)| key == name).map(|(_, raw)| *raw);
            raw.and_then(object).unwrap_or_default()
        };
        let sections = Sections {
            minimums: section("minValues"),
            maximums: section("maxValues"),
            nulls: section("nullCount"),
        };
        let rows = top.iter().rev().find(|(key, _)| key == "numRecords");
        let rows = rows.and_then(|(_, raw)| count(raw));
        // More nulls than rows: neither is to be believed.
        let rows = rows.filter(|rows| self.most_nulls(&sections.nulls) <= *rows);
        let mut kept = Kept::default();
        for (place, (name, raw)) in top.iter().enumerate() {
            let again = top.iter().skip(place + 1).any(|(later, _)| later == name);
            let section = match name.as_ref() {
                "minValues" => Some(Section::Minimums),
                "maxValues" => Some(Section::Maximums),
                "nullCount" => Some(Section::Nulls),
                _ => None,
            };
            let value = match section {
                _ if again => None,
                Some(section) => self.section(section, raw, &sections, rows),
                None if name == "numRecords" => rows.map(|_| Cow::Borrowed(*raw)),
                None if name == "tightBounds" => {
                    matches!(*raw, "true" | "false").then_some(Cow::Borrowed(*raw))
                }
                // Not known here; what readers cannot decode would spoil all of it.
                None => is_plain(raw).then_some(Cow::Borrowed(*raw)),
            };
            match value {
                Some(value) => kept.keep(name.clone(), value),
                None => kept.changed = true,
            }
        }
        if kept.entries.is_empty() && kept.changed {
            return None;
        }
        Some(if kept.changed { Cow::Owned(kept.render()) } else { Cow::Borrowed(text) })
    }

    fn most_nulls(&self, nulls: &Object<'_>) -> u64 {
        let of = |(name, raw): &(Cow<'_, str>, &str)| match self.0.get(name.as_ref()) {
            Some(Column::Struct(inner)) => object(raw).map(|nulls| inner.most_nulls(&nulls)),
            Some(_) => count(raw),
            None => None,
        };
        nulls.iter().filter_map(of).max().unwrap_or(0)
    }

    /// What is left of a section; none if it is no object.
    fn section<'t>(
        &self,
        section: Section,
        raw: &'t str,
        all: &Sections<'t>,
        rows: Option<u64>,
    ) -> Option<Cow<'t, str>> {
        let mut kept = Kept::default();
        for (name, value) in object(raw)? {
            let usable = match self.0.get(name.as_ref()) {
                _ if value == "null" => Some(Cow::Borrowed(value)),
                Some(Column::Struct(inner)) => {
                    let of = |section: &Object<'t>| {
                        let raw = section.iter().rev().find(|(key, _)| *key == name);
                        raw.and_then(|(_, raw)| object(raw)).unwrap_or_default()
                    };
                    let below = Sections {
                        minimums: of(&all.minimums),
                        maximums: of(&all.maximums),
                        nulls: of(&all.nulls),
                    };
                    inner.section(section, value, &below, rows)
                }
                Some(_) if section == Section::Nulls => {
                    let count = count(value).filter(|n| rows.is_none_or(|rows| *n <= rows));
                    count.map(|_| Cow::Borrowed(value))
                }
                Some(Column::Leaf(bound)) => {
                    let of = |section: &Object<'t>| {
                        section.iter().rev().find(|(key, _)| *key == name).map(|(_, raw)| *raw)
                    };
                    let (min, max) = (of(&all.minimums), of(&all.maximums));
                    let is_max = section == Section::Maximums;
                    let usable = bound.is_usable(value, is_max) && bound.agree(min, max);
                    usable.then_some(Cow::Borrowed(value))
                }
                Some(Column::Other) | None => is_plain(value).then_some(Cow::Borrowed(value)),
            };
            match usable {
                Some(value) => kept.keep(name, value),
                None => kept.changed = true,
            }
        }
        Some(if kept.changed { Cow::Owned(kept.render()) } else { Cow::Borrowed(raw) })
    }
}

/// A number of rows.
fn count(raw: &str) -> Option<u64> {
    raw.parse().ok().filter(|n| i64::try_from(*n).is_ok())
}

/// Whether a value of which nothing is known is one that no JSON parser stumbles over: no half of a pair of
/// surrogates, and no depth without end.
fn is_plain(raw: &str) -> bool {
    const MAX_OPEN: usize = 64;
    !raw.contains("\\u") && raw.bytes().filter(|b| matches!(b, b'{' | b'[')).count() <= MAX_OPEN
}
