//! Types of Arrow and of Delta.

use std::sync::Arc;

use deltalake::arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use deltalakedb_catalog_engine::schema::{DataType as Delta, StructField, StructType};

use super::Misfit;

type Result<T> = std::result::Result<T, Misfit>;

/// The type of a new column for values of a type: one that holds each of them exactly.
///
/// # Errors
/// A [`Misfit`] for what Delta has no type for, nulls without a type among it.
pub fn delta_type(from: &DataType) -> Result<DataType> {
    use DataType as T;
    let field = |f: &FieldRef| -> Result<FieldRef> {
        let kind = delta_type(f.data_type()).map_err(|e| e.within(f.name()))?;
        Ok(Arc::new(f.as_ref().clone().with_data_type(kind)))
    };
    let element = |f: &FieldRef| -> Result<T> {
        let kind = delta_type(f.data_type()).map_err(|e| e.within("element"))?;
        Ok(T::List(Arc::new(Field::new("element", kind, f.is_nullable()))))
    };
    Ok(match from {
        T::Null => {
            return Err(Misfit::of_type(
                "it has no values, so that nothing says what its type is: name it with --columns, \
                 as CAST(NULL AS VARCHAR) in a query, or leave the column out",
            ));
        }
        T::UInt8 => T::Int16,
        T::UInt16 => T::Int32,
        T::UInt32 => T::Int64,
        T::UInt64 => T::Decimal128(20, 0),
        T::Float16 => T::Float32,
        T::Date64 => T::Date32,
        T::Timestamp(_, None) => T::Timestamp(TimeUnit::Microsecond, None),
        T::Timestamp(_, Some(_)) => T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        T::LargeUtf8 | T::Utf8View => T::Utf8,
        T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => T::Binary,
        T::Dictionary(_, values) => delta_type(values)?,
        T::RunEndEncoded(_, values) => delta_type(values.data_type())?,
        T::Decimal32(p, s) | T::Decimal64(p, s) | T::Decimal128(p, s) | T::Decimal256(p, s) => {
            let (precision, scale) = match u8::try_from(*s) {
                Ok(scale) => (*p, scale),
                Err(_) => (p.saturating_add(s.unsigned_abs()), 0),
            };
            match i8::try_from(scale) {
                Ok(digits) if precision <= 38 && scale <= precision => {
                    T::Decimal128(precision, digits)
                }
                _ => return none(from),
            }
        }
        T::List(f)
        | T::LargeList(f)
        | T::FixedSizeList(f, _)
        | T::ListView(f)
        | T::LargeListView(f) => element(f)?,
        T::Map(entries, sorted) => match entries.data_type() {
            T::Struct(_) => {
                let kind = delta_type(entries.data_type())?;
                T::Map(Arc::new(entries.as_ref().clone().with_data_type(kind)), *sorted)
            }
            _ => return none(from),
        },
        T::Struct(fields) if fields.is_empty() => {
            return Err(Misfit::of_type(
                "it is a struct without fields, which no data file can hold: name its fields with \
                 --columns, or leave the column out",
            ));
        }
        T::Struct(fields) => T::Struct(fields.iter().map(field).collect::<Result<Fields>>()?),
        T::Boolean
        | T::Int8
        | T::Int16
        | T::Int32
        | T::Int64
        | T::Float32
        | T::Float64
        | T::Date32
        | T::Utf8
        | T::Binary => from.clone(),
        _ => return none(from),
    })
}

fn none<T>(from: &DataType) -> Result<T> {
    Err(Misfit::of_type(format!(
        "Delta has no type for {}: convert the values first, as with CAST in --query",
        delta_name(from)
    )))
}

/// A type as people know it: by Delta's name, where it has one.
#[must_use]
pub fn delta_name(kind: &DataType) -> String {
    match kind {
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp_ntz".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => {
            "timestamp".to_owned()
        }
        DataType::Timestamp(..) => kind.to_string(),
        _ => to_delta(kind).map_or_else(|| kind.to_string(), |delta| delta.to_string()),
    }
}

/// What rows of `source` make of a table's column when the schema is merged: new fields come, and `void`
/// gets the type of the rows.
///
/// # Errors
/// As [`delta_type`].
pub fn merged(table: &DataType, source: &DataType) -> Result<DataType> {
    use DataType as T;
    let both = |a: &FieldRef, b: &FieldRef| -> Result<FieldRef> {
        let kind = merged(a.data_type(), b.data_type()).map_err(|e| e.within(a.name()))?;
        Ok(Arc::new(a.as_ref().clone().with_data_type(kind)))
    };
    Ok(match (table, source) {
        // Nothing is known of it yet.
        (T::Null, T::Null) => T::Null,
        (T::Null, source) => delta_type(source)?,
        (T::Struct(mine), T::Struct(theirs)) => {
            let mut fields = Vec::with_capacity(mine.len());
            for field in mine {
                fields.push(match theirs.find(field.name()) {
                    Some((_, other)) => both(field, other)?,
                    None => Arc::clone(field),
                });
            }
            for field in theirs.iter().filter(|f| mine.find(f.name()).is_none()) {
                let kind = delta_type(field.data_type()).map_err(|e| e.within(field.name()))?;
                fields.push(Arc::new(Field::new(field.name(), kind, true)));
            }
            T::Struct(fields.into())
        }
        (
            T::List(mine),
            T::List(theirs)
            | T::LargeList(theirs)
            | T::FixedSizeList(theirs, _)
            | T::ListView(theirs)
            | T::LargeListView(theirs),
        ) => T::List(both(mine, theirs)?),
        (T::Map(mine, sorted), T::Map(theirs, _)) => match (mine.data_type(), theirs.data_type()) {
            (T::Struct(a), T::Struct(b)) if a.len() == 2 && b.len() == 2 => {
                let parts = [both(&a[0], &b[0])?, both(&a[1], &b[1])?];
                let entries = T::Struct(Fields::from(parts.to_vec()));
                T::Map(Arc::new(mine.as_ref().clone().with_data_type(entries)), *sorted)
            }
            _ => table.clone(),
        },
        _ => table.clone(),
    })
}

/// A Delta schema's columns in Arrow.
///
/// # Errors
/// A [`Misfit`] for types that are not known here, and for variants.
pub fn from_delta(schema: &StructType) -> Result<Schema> {
    Ok(Schema::new(fields_from(schema)?))
}

fn fields_from(schema: &StructType) -> Result<Fields> {
    let field = |field: &StructField| {
        let kind = type_from(&field.data_type).map_err(|e| e.within(&field.name))?;
        Ok(Field::new(&field.name, kind, field.nullable))
    };
    schema.fields.iter().map(field).collect::<Result<Vec<_>>>().map(Fields::from)
}

fn type_from(kind: &Delta) -> Result<DataType> {
    use DataType as T;
    Ok(match kind {
        Delta::Byte => T::Int8,
        Delta::Short => T::Int16,
        Delta::Integer => T::Int32,
        Delta::Long => T::Int64,
        Delta::Float => T::Float32,
        Delta::Double => T::Float64,
        Delta::Decimal { precision, scale } => match i8::try_from(*scale) {
            Ok(scale) => T::Decimal128(*precision, scale),
            Err(_) => return Err(Misfit::of_type(format!("{kind} is out of range"))),
        },
        Delta::String => T::Utf8,
        Delta::Binary => T::Binary,
        Delta::Boolean => T::Boolean,
        Delta::Date => T::Date32,
        Delta::Timestamp => T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Delta::TimestampNtz => T::Timestamp(TimeUnit::Microsecond, None),
        Delta::Void => T::Null,
        Delta::Array { element, contains_null } => {
            let kind = type_from(element).map_err(|e| e.within("element"))?;
            T::List(Arc::new(Field::new("element", kind, *contains_null)))
        }
        Delta::Map { key, value, value_contains_null } => {
            let key = type_from(key).map_err(|e| e.within("key"))?;
            let value = type_from(value).map_err(|e| e.within("value"))?;
            let fields =
                [Field::new("key", key, false), Field::new("value", value, *value_contains_null)];
            let entries = T::Struct(Fields::from(fields.to_vec()));
            T::Map(Arc::new(Field::new("key_value", entries, false)), false)
        }
        Delta::Struct(fields) => T::Struct(fields_from(fields)?),
        Delta::Variant | Delta::Other(_) => {
            return Err(Misfit::of_type(format!("no rows of type {kind} are written here")));
        }
    })
}

/// Delta's type for one of Arrow; none where no column is of it.
#[must_use]
pub fn to_delta(kind: &DataType) -> Option<Delta> {
    use DataType as T;
    Some(match kind {
        T::Int8 => Delta::Byte,
        T::Int16 => Delta::Short,
        T::Int32 => Delta::Integer,
        T::Int64 => Delta::Long,
        T::Float32 => Delta::Float,
        T::Float64 => Delta::Double,
        T::Decimal128(precision, scale) => {
            Delta::Decimal { precision: *precision, scale: u8::try_from(*scale).ok()? }
        }
        T::Utf8 | T::LargeUtf8 | T::Utf8View => Delta::String,
        T::Binary | T::LargeBinary | T::BinaryView => Delta::Binary,
        T::Boolean => Delta::Boolean,
        T::Date32 => Delta::Date,
        T::Timestamp(TimeUnit::Microsecond, None) => Delta::TimestampNtz,
        T::Timestamp(TimeUnit::Microsecond, Some(_)) => Delta::Timestamp,
        T::Null => Delta::Void,
        T::List(element) | T::LargeList(element) => Delta::Array {
            element: Box::new(to_delta(element.data_type())?),
            contains_null: element.is_nullable(),
        },
        T::Map(entries, _) => match entries.data_type() {
            T::Struct(fields) if fields.len() == 2 => Delta::Map {
                key: Box::new(to_delta(fields[0].data_type())?),
                value: Box::new(to_delta(fields[1].data_type())?),
                value_contains_null: fields[1].is_nullable(),
            },
            _ => return None,
        },
        T::Struct(fields) => {
            let field = |f: &FieldRef| {
                Some(StructField::new(f.name(), to_delta(f.data_type())?, f.is_nullable()))
            };
            let fields = fields.iter().map(field).collect::<Option<_>>()?;
            Delta::Struct(StructType { fields })
        }
        _ => return None,
    })
}
