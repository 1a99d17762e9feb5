//! Files of JSON objects, one after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use delta::arrow::array::RecordBatchReader;
use delta::arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use delta::arrow::json::ReaderBuilder;
use deltalakedb::core::error::Result;
use deltalakedb::deltalake::deltalake as delta;
use deltalakedb::deltalake::fit;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{BATCH_ROWS, Found, Known, Taker, check_names, fitted, open, wrong, wrong_at};

/// A value, as far as its type goes. Objects keep the order of their names.
#[derive(Debug)]
enum Value {
    Null,
    Bool,
    Long,
    /// A whole number beyond 63 bits.
    Whole,
    Double,
    Text,
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Values)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Value, E> {
        Ok(Value::Long)
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(if i64::try_from(value).is_ok() { Value::Long } else { Value::Whole })
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Value, E> {
        Ok(Value::Double)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Value, E> {
        Ok(Value::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let mut values: Vec<(String, Value)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if values.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format!("'{name}' is twice in an object")));
            }
            values.push((name, value));
        }
        Ok(Value::Object(values))
    }
}

/// What values of a column are.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Nothing but null so far.
    Unknown,
    Boolean,
    Long,
    /// Whole numbers, some of them longer than 63 bits.
    Whole,
    Double,
    Text,
    List(Box<Kind>),
    Object(Vec<(String, Kind)>),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::Unknown => "null",
            Kind::Boolean => "a boolean",
            Kind::Long | Kind::Whole | Kind::Double => "a number",
            Kind::Text => "text",
            Kind::List(_) => "an array",
            Kind::Object(_) => "an object",
        }
    }

    fn of(value: &Value) -> Kind {
        match value {
            Value::Null => Kind::Unknown,
            Value::Bool => Kind::Boolean,
            Value::Long => Kind::Long,
            Value::Whole => Kind::Whole,
            Value::Double => Kind::Double,
            Value::Text => Kind::Text,
            Value::Array(_) => Kind::List(Box::new(Kind::Unknown)),
            Value::Object(_) => Kind::Object(Vec::new()),
        }
    }

    /// Takes a value in. The path of what contradicts, and how, if something does.
    fn learn(&mut self, value: &Value) -> std::result::Result<(), (String, String)> {
        let new = Kind::of(value);
        // From the narrowest to the widest.
        let numbers = [Kind::Long, Kind::Whole, Kind::Double];
        let width = |kind: &Kind| numbers.iter().position(|number| number == kind);
        if new == Kind::Unknown {
            return Ok(());
        }
        if *self == Kind::Unknown {
            *self = new;
        } else if let (Some(mine), Some(theirs)) = (width(&*self), width(&new)) {
            if theirs > mine {
                *self = new;
            }
        } else if std::mem::discriminant(self) != std::mem::discriminant(&new) {
            let what = format!("{} here and {} in a row before", new.name(), self.name());
            return Err((String::new(), what));
        }
        match (self, value) {
            (Kind::List(element), Value::Array(values)) => {
                for value in values {
                    element.learn(value).map_err(|e| below("element", e))?;
                }
            }
            (Kind::Object(fields), Value::Object(values)) => {
                for (name, value) in values {
                    let known = fields.iter().position(|(known, _)| known == name);
                    let at = known.unwrap_or_else(|| {
                        fields.push((name.clone(), Kind::Unknown));
                        fields.len() - 1
                    });
                    if let Some((_, kind)) = fields.get_mut(at) {
                        kind.learn(value).map_err(|e| below(name, e))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn into_type(self) -> DataType {
        match self {
            Kind::Unknown => DataType::Null,
            Kind::Boolean => DataType::Boolean,
            Kind::Long => DataType::Int64,
            Kind::Whole => DataType::Decimal128(38, 0),
            Kind::Double => DataType::Float64,
            Kind::Text => DataType::Utf8,
            Kind::List(element) => {
                DataType::List(Arc::new(Field::new("element", element.into_type(), true)))
            }
            Kind::Object(fields) => {
                let field = |(name, kind): (String, Kind)| Field::new(name, kind.into_type(), true);
                DataType::Struct(fields.into_iter().map(field).collect::<Vec<_>>().into())
            }
        }
    }
}

fn below(name: &str, (path, what): (String, String)) -> (String, String) {
    let dot = if path.is_empty() { "" } else { "." };
    (format!("{name}{dot}{path}"), what)
}

const REMEDY: &str = "say what the column is with --columns, as in --columns 'name string'";

pub(super) fn look(files: &[PathBuf], known: &Known) -> Result<Found> {
    let mut columns: Vec<(String, Kind)> = Vec::new();
    for file in files {
        let rows = serde_json::Deserializer::from_reader(open(file)?).into_iter::<Value>();
        for (i, row) in (1_u64..).zip(rows) {
            let row = row.map_err(|e| wrong_at(file, "row", i, format_args!("no JSON: {e}")))?;
            let Value::Object(values) = row else {
                let what = format!("{} is no row: a row is an object", Kind::of(&row).name());
                return Err(wrong_at(file, "row", i, what));
            };
            for (name, value) in values {
                let seen = columns.iter().position(|(column, _)| *column == name);
                let at = seen.unwrap_or_else(|| {
                    columns.push((name.clone(), Kind::Unknown));
                    columns.len() - 1
                });
                let is_open = known.column(&name).is_none_or(|kind| {
                    known.may_grow && (kind.is_nested() || *kind == DataType::Null)
                });
                if let (true, Some((_, kind))) = (is_open, columns.get_mut(at)) {
                    kind.learn(&value).map_err(|e| {
                        let (path, what) = below(&name, e);
                        let what = format!("column '{path}' is {what}: {REMEDY}");
                        wrong_at(file, "row", i, what)
                    })?;
                }
            }
        }
    }
    for name in &known.always {
        if !columns.iter().any(|(column, _)| column == name) {
            columns.push((name.clone(), Kind::Unknown));
        }
    }
    if let Some(file) = files.first() {
        check_names(file, columns.iter().map(|(name, _)| name.as_str()))?;
    }
    let mut fields = Vec::with_capacity(columns.len());
    for (name, kind) in columns {
        let found = kind.into_type();
        let kind = match known.column(&name) {
            Some(mine) if known.may_grow => fit::merged(mine, &found).map_err(|e| {
                deltalakedb::core::error::CatalogError::invalid(format!(
                    "column '{name}': {}",
                    e.what
                ))
            })?,
            Some(mine) => mine.clone(),
            None => found,
        };
        fields.push(Field::new(name, kind, true));
    }
    Ok(Found { schema: Schema::new(fields), empty: Vec::new() })
}

/// The type that values are read as before they are made fit: numbers as they are written.
fn raw(kind: &DataType) -> DataType {
    let field = |field: &FieldRef| {
        let kind = raw(field.data_type());
        Arc::new(Field::new(field.name(), kind, true))
    };
    match kind {
        DataType::List(element) => DataType::List(field(element)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(parts) => {
                let parts: Fields = parts
                    .iter()
                    .enumerate()
                    .map(|(i, part)| Arc::new(field(part).as_ref().clone().with_nullable(i > 0)))
                    .collect();
                let entries = Field::new(entries.name(), DataType::Struct(parts), false);
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => kind.clone(),
        },
        DataType::Null | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            kind.clone()
        }
        _ => DataType::Utf8,
    }
}

fn reader(file: &Path, schema: &SchemaRef, rows: usize) -> Result<impl RecordBatchReader + use<>> {
    let field = |f: &FieldRef| Field::new(f.name(), raw(f.data_type()), true);
    let raw = Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>());
    let builder = ReaderBuilder::new(Arc::new(raw))
        .with_batch_size(rows)
        .with_coerce_primitive(true)
        .with_strict_mode(true);
    builder.build(open(file)?).map_err(|e| wrong(file, e))
}

pub(super) fn read(file: &Path, schema: &SchemaRef, send: &mut Taker<'_>) -> Result<()> {
    let mut before = 0;
    for batch in reader(file, schema, BATCH_ROWS)? {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return Err(find(file, schema, &error.to_string())),
        };
        let rows =
            fitted(schema, batch.columns(), batch.num_rows()).map_err(|misfit| {
                match misfit.row.and_then(|row| u64::try_from(row).ok()) {
                    Some(row) => wrong_at(file, "row", before + row + 1, misfit),
                    None => wrong(file, misfit),
                }
            })?;
        before += u64::try_from(batch.num_rows()).unwrap_or(0);
        if !send(rows) {
            return Ok(());
        }
    }
    Ok(())
}

/// The error of a batch, with the row that it is about.
fn find(file: &Path, schema: &SchemaRef, error: &str) -> deltalakedb::core::error::CatalogError {
    match reader(file, schema, 1) {
        Ok(rows) => {
            for (i, row) in (1_u64..).zip(rows) {
                if let Err(error) = row {
                    // The reader's words for a field that the schema does not have.
                    let unknown = error.to_string().contains("missing from schema");
                    let remedy =
                        if unknown { ": --schema-mode merge adds it to the table" } else { "" };
                    return wrong_at(file, "row", i, format_args!("{error}{remedy}"));
                }
            }
            wrong(file, error)
        }
        Err(error) => error,
    }
}
