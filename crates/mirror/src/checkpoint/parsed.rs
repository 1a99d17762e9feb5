//! Statistics and partition values of a checkpoint as typed columns: `add.stats_parsed` and
//! `add.partitionValues_parsed` (protocol section "Checkpoint Schema"), for readers that prune with
//! them instead of with text.
//!
//! Written where `delta.checkpoint.writeStatsAsStruct` is true, or not set while
//! `delta.checkpoint.writeStatsAsJson` is false.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array,
    StringArray, StructArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType as Arrow, Field, Fields, Schema, TimeUnit};
use arrow::json::ReaderBuilder;
use deltalakedb_catalog_core::action::{Add, Metadata};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_engine::canonical::Canonical;
use deltalakedb_catalog_engine::features::column_mapping_enabled;
use deltalakedb_catalog_engine::predicate::PartitionValue;
use deltalakedb_catalog_engine::schema::{DataType, StructField, StructType};

use super::encode_error;
use crate::properties::{stats_as_json, stats_as_struct};

/// Columns with statistics where `delta.dataSkippingNumIndexedCols` is not set.
const DEFAULT_INDEXED: usize = 32;

/// How statistics and partition values are written.
#[derive(Debug, Clone)]
pub(super) struct Parsed {
    /// Whether `add.stats` is written, too.
    pub(super) json: bool,
    partitions: Vec<(String, Arrow)>,
    stats: Option<Fields>,
}

impl Parsed {
    /// What a table's properties ask for. A schema that cannot be read has no typed columns.
    pub(super) fn of(metadata: &Metadata) -> Parsed {
        let mut parsed =
            Parsed { json: stats_as_json(metadata), partitions: Vec::new(), stats: None };
        if !stats_as_struct(metadata) {
            return parsed;
        }
        let Ok(schema) = StructType::parse(&metadata.schema_string) else {
            parsed.json = true;
            return parsed;
        };
        let mapped = column_mapping_enabled(metadata);
        for name in &metadata.partition_columns {
            if let Some(field) = schema.field(name)
                && let Some(ty) = arrow_type(&field.data_type)
            {
                parsed.partitions.push((physical(field, mapped), ty));
            }
        }
        let is_data = |field: &&StructField| !metadata.partition_columns.contains(&field.name);
        let fields: Vec<&StructField> = schema.fields.iter().filter(is_data).collect();
        let indexed = metadata
            .property("delta.dataSkippingNumIndexedCols")
            .and_then(|text| text.trim().parse::<i64>().ok())
            .map_or(DEFAULT_INDEXED, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let bounds = fields_of(&fields, mapped, &mut indexed.clone(), &arrow_type);
        let counts = fields_of(&fields, mapped, &mut indexed.clone(), &|_| Some(Arrow::Int64));
        let mut stats = vec![
            Field::new("numRecords", Arrow::Int64, true),
            Field::new("tightBounds", Arrow::Boolean, true),
        ];
        for (name, fields) in
            [("minValues", &bounds), ("maxValues", &bounds), ("nullCount", &counts)]
        {
            if !fields.is_empty() {
                stats.push(Field::new(name, Arrow::Struct(fields.clone()), true));
            }
        }
        parsed.stats = Some(stats.into());
        parsed
    }

    /// The columns of `add` that this adds.
    pub(super) fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        if !self.partitions.is_empty() {
            let inner = self.partition_fields();
            fields.push(Field::new("partitionValues_parsed", Arrow::Struct(inner), true));
        }
        if let Some(stats) = &self.stats {
            fields.push(Field::new("stats_parsed", Arrow::Struct(stats.clone()), true));
        }
        fields
    }

    fn partition_fields(&self) -> Fields {
        self.partitions.iter().map(|(name, ty)| Field::new(name, ty.clone(), true)).collect()
    }

    /// Those columns for some files, with what of their statistics can be used.
    pub(super) fn columns<'a>(
        &self,
        adds: impl Iterator<Item = &'a Add> + Clone,
        stats: &[Option<&str>],
        canonical: &Canonical,
    ) -> Result<Vec<ArrayRef>> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        if !self.partitions.is_empty() {
            let mut arrays = Vec::new();
            for (name, ty) in &self.partitions {
                // A text that is no value of its type becomes null: readers have the text, too.
                let values: Vec<PartitionValue> = adds
                    .clone()
                    .map(|add| {
                        let text = add.partition_values.get(name).and_then(Option::as_deref);
                        let value = canonical.partition_value(name, text);
                        value.unwrap_or(PartitionValue::Null)
                    })
                    .collect();
                arrays.push(partition_column(ty, &values)?);
            }
            let array = StructArray::try_new(self.partition_fields(), arrays, None);
            columns.push(Arc::new(array.map_err(encode_error)?));
        }
        if let Some(fields) = &self.stats {
            columns.push(stats_column(fields, stats)?);
        }
        Ok(columns)
    }
}

/// Values of one partition column, which are of its type or null.
fn partition_column(ty: &Arrow, values: &[PartitionValue]) -> Result<ArrayRef> {
    use PartitionValue as V;
    fn all<T, A: Array + FromIterator<Option<T>> + 'static>(
        values: &[PartitionValue],
        get: impl Fn(&PartitionValue) -> Option<T>,
    ) -> ArrayRef {
        Arc::new(values.iter().map(get).collect::<A>())
    }
    let times = |v: &V| match v {
        V::Timestamp(micros) | V::TimestampNtz(micros) => Some(*micros),
        _ => None,
    };
    Ok(match ty {
        Arrow::Float32 => all::<_, Float32Array>(values, |v| match v {
            V::Float(number) => Some(*number),
            _ => None,
        }),
        Arrow::Float64 => all::<_, Float64Array>(values, |v| match v {
            V::Double(number) => Some(*number),
            _ => None,
        }),
        Arrow::Utf8 => {
            let texts = values.iter().map(|v| match v {
                V::String(text) => Some(text.as_str()),
                _ => None,
            });
            Arc::new(texts.collect::<StringArray>())
        }
        Arrow::Date32 => all::<_, Date32Array>(values, |v| match v {
            V::Date(day) => Some(*day),
            _ => None,
        }),
        Arrow::Decimal128(precision, scale) => {
            let digits = values.iter().map(|v| match v {
                V::Decimal { digits, .. } => Some(*digits),
                _ => None,
            });
            let array: Decimal128Array = digits.collect();
            let array = array.with_precision_and_scale(*precision, *scale);
            Arc::new(array.map_err(encode_error)?)
        }
        Arrow::Timestamp(_, zone) => {
            let micros: TimestampMicrosecondArray = values.iter().map(times).collect();
            Arc::new(micros.with_timezone_opt(zone.clone()))
        }
        // The other types are whole numbers, which were found to fit.
        ty => {
            let numbers = all::<_, Int64Array>(values, |v| match v {
                V::Integer(number) => Some(*number),
                _ => None,
            });
            cast(&numbers, ty).map_err(encode_error)?
        }
    })
}

fn physical(field: &StructField, mapped: bool) -> String {
    if mapped { field.physical_name().to_owned() } else { field.name.clone() }
}

/// Fields of statistics, in the schema's order, for the first `left` columns that are no structs.
fn fields_of(
    fields: &[&StructField],
    mapped: bool,
    left: &mut usize,
    leaf: &dyn Fn(&DataType) -> Option<Arrow>,
) -> Fields {
    let mut out = Vec::new();
    for field in fields {
        let ty = if let DataType::Struct(inner) = &field.data_type {
            let inner: Vec<&StructField> = inner.fields.iter().collect();
            let inner = fields_of(&inner, mapped, left, leaf);
            (!inner.is_empty()).then_some(Arrow::Struct(inner))
        } else if *left == 0 {
            None
        } else {
            *left -= 1;
            leaf(&field.data_type)
        };
        if let Some(ty) = ty {
            out.push(Field::new(physical(field, mapped), ty, true));
        }
    }
    out.into()
}

/// The type of values that have an order and a place in statistics.
fn arrow_type(ty: &DataType) -> Option<Arrow> {
    Some(match ty {
        DataType::Byte => Arrow::Int8,
        DataType::Short => Arrow::Int16,
        DataType::Integer => Arrow::Int32,
        DataType::Long => Arrow::Int64,
        DataType::Float => Arrow::Float32,
        DataType::Double => Arrow::Float64,
        DataType::Decimal { precision, scale } => {
            Arrow::Decimal128(*precision, i8::try_from(*scale).ok()?)
        }
        DataType::String => Arrow::Utf8,
        DataType::Date => Arrow::Date32,
        DataType::Timestamp => Arrow::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::TimestampNtz => Arrow::Timestamp(TimeUnit::Microsecond, None),
        _ => return None,
    })
}

/// JSON statistics as one struct column. Statistics that do not fit the types become null, as if the
/// file had none.
fn stats_column(fields: &Fields, texts: &[Option<&str>]) -> Result<ArrayRef> {
    if texts.is_empty() {
        return Ok(new_null_array(&Arrow::Struct(fields.clone()), 0));
    }
    if let Some(column) = decode(fields, texts) {
        return Ok(column);
    }
    let mut rows = Vec::with_capacity(texts.len());
    for text in texts {
        let one = decode(fields, &[*text]);
        rows.push(one.unwrap_or_else(|| new_null_array(&Arrow::Struct(fields.clone()), 1)));
    }
    let rows: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
    concat(&rows).map_err(encode_error)
}

/// None if any of them does not fit.
fn decode(fields: &Fields, texts: &[Option<&str>]) -> Option<ArrayRef> {
    let schema = Arc::new(Schema::new(fields.clone()));
    let mut decoder =
        ReaderBuilder::new(schema).with_batch_size(texts.len()).build_decoder().ok()?;
    for text in texts {
        let text = text.unwrap_or("{}").as_bytes();
        // All of it: a decoder that is full stops early.
        if decoder.decode(text).ok()? != text.len() {
            return None;
        }
        decoder.decode(b"\n").ok()?;
    }
    let batch = decoder.flush().ok()??;
    if batch.num_rows() != texts.len() {
        return None;
    }
    let nulls: NullBuffer = texts.iter().map(Option::is_some).collect();
    let array = StructArray::try_new(fields.clone(), batch.columns().to_vec(), Some(nulls)).ok()?;
    Some(Arc::new(array))
}

#[cfg(test)]
#[path = "parsed_tests.rs"]
mod tests;
