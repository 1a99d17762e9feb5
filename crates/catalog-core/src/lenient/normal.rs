//! The protocol's form of actions that other engines wrote in another one.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Oddity;
use crate::fields::Fields;

/// `schemaString` of a table without columns.
pub(super) const NO_COLUMNS: &str = r#"{"type":"struct","fields":[]}"#;

/// What a field holds.
enum Shape {
    Text,
    Integer,
    /// True or false, which nobody reads in any other form.
    Flag,
    Texts,
    TextMap,
    Object(&'static [Field]),
    /// Anything.
    Any,
}

/// A field, what it holds, and whether the protocol requires it.
type Field = (&'static str, Shape, bool);

use Shape::{Any, Flag, Integer, Object, Text, TextMap, Texts};

const VECTOR: &[Field] = &[
    ("storageType", Text, true),
    ("pathOrInlineDv", Text, true),
    ("offset", Integer, false),
    ("sizeInBytes", Integer, true),
    ("cardinality", Integer, true),
    ("maxRowIndex", Integer, false),
];
const ADD: &[Field] = &[
    ("path", Text, true),
    ("partitionValues", TextMap, true),
    ("size", Integer, true),
    ("modificationTime", Integer, true),
    ("dataChange", Flag, true),
    ("stats", Text, false),
    ("tags", TextMap, false),
    ("deletionVector", Object(VECTOR), false),
    ("baseRowId", Integer, false),
    ("defaultRowCommitVersion", Integer, false),
    ("clusteringProvider", Text, false),
];
const REMOVE: &[Field] = &[
    ("path", Text, true),
    ("deletionTimestamp", Integer, false),
    ("dataChange", Flag, true),
    ("extendedFileMetadata", Flag, false),
    ("partitionValues", TextMap, false),
    ("size", Integer, false),
    ("stats", Text, false),
    ("tags", TextMap, false),
    ("deletionVector", Object(VECTOR), false),
    ("baseRowId", Integer, false),
    ("defaultRowCommitVersion", Integer, false),
];
const CDC: &[Field] = &[
    ("path", Text, true),
    ("partitionValues", TextMap, true),
    ("size", Integer, true),
    ("dataChange", Flag, true),
];
const FORMAT: &[Field] = &[("provider", Text, true), ("options", TextMap, true)];
const METADATA: &[Field] = &[
    ("id", Text, true),
    ("name", Text, false),
    ("description", Text, false),
    ("format", Object(FORMAT), true),
    // Whether it is there is seen when it is read.
    ("schemaString", Text, false),
    ("partitionColumns", Texts, true),
    ("createdTime", Integer, false),
    ("configuration", TextMap, true),
];
const PROTOCOL: &[Field] = &[
    ("minReaderVersion", Integer, true),
    ("minWriterVersion", Integer, true),
    ("readerFeatures", Texts, false),
    ("writerFeatures", Texts, false),
];
const TXN: &[Field] =
    &[("appId", Text, true), ("version", Integer, true), ("lastUpdated", Integer, false)];
const DOMAIN_METADATA: &[Field] =
    &[("domain", Text, true), ("configuration", Text, true), ("removed", Flag, true)];
const COMMIT_INFO: &[Field] = &[
    ("timestamp", Any, false),
    ("inCommitTimestamp", Integer, false),
    ("operation", Text, false),
    ("isBlindAppend", Flag, false),
];
const CHECKPOINT_METADATA: &[Field] = &[("version", Integer, true), ("tags", TextMap, false)];
const SIDECAR: &[Field] = &[
    ("path", Text, true),
    ("sizeInBytes", Integer, true),
    ("modificationTime", Integer, true),
    ("tags", TextMap, false),
];

fn fields_of(action: &str) -> Option<&'static [Field]> {
    Some(match action {
        "add" => ADD,
        "remove" => REMOVE,
        "cdc" => CDC,
        "metaData" => METADATA,
        "protocol" => PROTOCOL,
        "txn" => TXN,
        "domainMetadata" => DOMAIN_METADATA,
        "commitInfo" => COMMIT_INFO,
        "checkpointMetadata" => CHECKPOINT_METADATA,
        "sidecar" => SIDECAR,
        _ => return None,
    })
}

/// Whether an action lacks a field that the protocol requires of it, so that strict readers refuse it.
pub(super) fn is_incomplete(action: &str, object: &Fields) -> bool {
    let lacks = |fields: &[Field], object: &Fields| {
        fields.iter().any(|(name, _, required)| {
            *required && object.get(name).is_none_or(|raw| raw.get() == "null")
        })
    };
    let format = || {
        let format = object.get("format").map(|raw| serde_json::from_str::<Fields>(raw.get()));
        format.is_none_or(|format| format.map_or(true, |format| lacks(FORMAT, &format)))
    };
    fields_of(action).is_some_and(|fields| lacks(fields, object))
        || (action == "metaData" && format())
}

/// The known fields of an action in the protocol's form. None if it is no JSON object; what is wrong with
/// a field that cannot be put right, the strict reader says.
pub(super) fn action(name: &str, raw: &str, odd: &mut Vec<Oddity>) -> Option<String> {
    let text = object(name, fields_of(name)?, raw, odd)?;
    let missing = |name: &str| odd.contains(&Oddity::Missing(name.to_owned()));
    let extra = match name {
        "metaData" if missing("metaData.id") => format!("\"id\":\"{}\"", derived_id(raw)),
        // No reader of the table's state looks at it.
        "cdc" if missing("cdc.size") => "\"size\":0".to_owned(),
        _ => return Some(text),
    };
    let comma = if text == "{}" { "" } else { "," };
    Some(format!("{{{extra}{comma}{}", text.get(1..)?))
}

fn object(at: &str, fields: &[Field], raw: &str, odd: &mut Vec<Oddity>) -> Option<String> {
    let given: Fields = serde_json::from_str(raw).ok()?;
    let mut kept = Fields(Vec::with_capacity(fields.len()));
    for (name, shape, required) in fields {
        let here = || format!("{at}.{name}");
        let mut same = given.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.get());
        let (value, earlier) = (same.next_back(), same.next_back());
        if earlier.is_some() {
            odd.push(Oddity::Twice(here()));
        }
        match value {
            None | Some("null") if *required => {
                odd.push(Oddity::Missing(here()));
                if here() == "metaData.format.provider" {
                    kept.push(name, "\"parquet\"".to_owned())?;
                }
            }
            None | Some("null") => {}
            Some(value) => kept.push(name, field(&here(), shape, value, odd)?)?,
        }
    }
    Some(kept.render())
}

fn field(at: &str, shape: &Shape, raw: &str, odd: &mut Vec<Oddity>) -> Option<String> {
    let is_object = raw.starts_with('{');
    Some(match shape {
        Text => text(at, raw, odd),
        Integer => integer(at, raw, odd),
        TextMap if is_object => {
            let given: Fields = serde_json::from_str(raw).ok()?;
            let mut kept = Fields(Vec::with_capacity(given.0.len()));
            for (key, value) in &given.0 {
                let value = match value.get() {
                    "null" => "null".to_owned(),
                    value => text(at, value, odd),
                };
                kept.push(key, value)?;
            }
            kept.render()
        }
        Texts if raw.starts_with('[') => {
            let given: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(raw).ok()?;
            let texts: Vec<String> = given.iter().map(|v| text(at, v.get(), odd)).collect();
            format!("[{}]", texts.join(","))
        }
        Object(fields) if is_object => object(at, fields, raw, odd)?,
        // What this is in place of it, the strict reader says.
        Flag | Any | TextMap | Texts | Object(_) => raw.to_owned(),
    })
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text; anything else as its own text.
fn text(at: &str, raw: &str, odd: &mut Vec<Oddity>) -> String {
    let kind = match raw.as_bytes().first() {
        Some(b'"') => return raw.to_owned(),
        Some(b'{' | b'[') => Oddity::JsonForText,
        _ => Oddity::NumberForText,
    };
    odd.push(kind(at.to_owned()));
    quoted(raw)
}

/// An integer, or what stands there if it is none.
fn integer(at: &str, raw: &str, odd: &mut Vec<Oddity>) -> String {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(number) = Number::parse(inner.unwrap_or(raw)) else { return raw.to_owned() };
    if inner.is_some() {
        odd.push(Oddity::QuotedNumber(at.to_owned()));
    }
    if number.is_cut {
        odd.push(Oddity::CutNumber(at.to_owned()));
    } else if number.is_fractional {
        odd.push(Oddity::FractionalNumber(at.to_owned()));
    }
    number.integer.to_string()
}

/// A number of JSON as an integer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) integer: i64,
    /// Whether it has a point or an exponent.
    pub(super) is_fractional: bool,
    /// Whether its fraction is not zero.
    pub(super) is_cut: bool,
}

impl Number {
    /// None if it is no number, or none of 64 bits.
    pub(super) fn parse(text: &str) -> Option<Number> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text),
        };
        let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (digits, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        // Some more digits than 64 bits have, as there may be zeros in front.
        if whole.is_empty() || !is_digits(&all) || all.len() > 400 || exponent.abs() > 400 {
            return None;
        }
        let point = i32::try_from(whole.len()).ok()? + exponent;
        let point = usize::try_from(point.max(0)).ok()?;
        let padded = format!("{all:0<point$}");
        let (kept, cut) = padded.split_at(point);
        let kept = if kept.is_empty() { "0" } else { kept };
        Some(Number {
            integer: format!("{sign}{kept}").parse().ok()?,
            is_fractional: digits.contains(['.', 'e', 'E']),
            is_cut: cut.bytes().any(|b| b != b'0'),
        })
    }
}

/// An id in the form of a UUID, of the text of an action that has none.
pub(super) fn derived_id(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// A schema with the `nullable`, `containsNull` and `metadata` that writers left out; none if nothing is
/// missing, or if it is no schema.
pub(super) fn schema(text: &str, odd: &mut Vec<Oddity>) -> Option<String> {
    let mut schema: Value = serde_json::from_str(text).ok()?;
    let mut missing = Vec::new();
    within(&mut schema, &mut missing);
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return None;
    }
    odd.extend(missing.into_iter().map(|what| Oddity::Missing(format!("schemaString: {what}"))));
    Some(schema.to_string())
}

/// Fills in what is missing in a type.
fn within(data_type: &mut Value, missing: &mut Vec<&'static str>) {
    fn fill(object: &mut Value, key: &'static str, value: Value, missing: &mut Vec<&'static str>) {
        if let Value::Object(map) = object
            && map.get(key).is_none_or(Value::is_null)
        {
            map.insert(key.to_owned(), value);
            missing.push(key);
        }
    }
    match data_type.get("type").and_then(Value::as_str) {
        Some("struct") => {
            let fields = data_type.get_mut("fields").and_then(Value::as_array_mut);
            for field in fields.into_iter().flatten() {
                fill(field, "nullable", Value::Bool(true), missing);
                fill(field, "metadata", Value::Object(serde_json::Map::new()), missing);
                if let Some(inner) = field.get_mut("type") {
                    within(inner, missing);
                }
            }
        }
        Some("array") => {
            fill(data_type, "containsNull", Value::Bool(true), missing);
            if let Some(inner) = data_type.get_mut("elementType") {
                within(inner, missing);
            }
        }
        Some("map") => {
            fill(data_type, "valueContainsNull", Value::Bool(true), missing);
            for key in ["keyType", "valueType"] {
                if let Some(inner) = data_type.get_mut(key) {
                    within(inner, missing);
                }
            }
        }
        _ => {}
    }
}
