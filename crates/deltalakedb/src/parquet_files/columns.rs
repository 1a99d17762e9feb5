//! Columns of a Parquet file against those of a table.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_engine::schema::{DataType, StructField, StructType};
use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use parquet::schema::types::Type;

/// The table's columns that its files hold: all but the partition columns.
pub(super) fn data_columns(schema: &StructType, partition_columns: &[String]) -> StructType {
    StructType {
        fields: schema
            .fields
            .iter()
            .filter(|f| !partition_columns.contains(&f.name))
            .cloned()
            .collect(),
    }
}

/// Leaves of the file: their path of Parquet names, to their index.
pub(super) type Leaves = BTreeMap<Vec<String>, usize>;

pub(super) fn leaves(footer: &ParquetMetaData) -> Leaves {
    let descriptor = footer.file_metadata().schema_descr();
    (0..descriptor.num_columns())
        .map(|i| (descriptor.column(i).path().parts().to_vec(), i))
        .collect()
}

/// A file's columns as a Delta schema.
pub(super) fn infer(file: &str, footer: &ParquetMetaData) -> Result<StructType> {
    let root = footer.file_metadata().schema_descr().root_schema();
    let mut fields = Vec::new();
    for column in root.get_fields() {
        let found = delta_type(column).map_err(|Refused { path, what }| {
            let path = path.join(".");
            CatalogError::invalid(format!("file '{file}', column '{path}': {what}"))
        })?;
        fields.push(StructField::new(column.name(), found, is_optional(column)));
    }
    Ok(StructType { fields })
}

/// Whether a file fits a table; its leaves if so.
pub(super) fn check(
    file: &str,
    footer: &ParquetMetaData,
    data: &StructType,
    partition_columns: &[String],
) -> Result<Leaves> {
    let root = footer.file_metadata().schema_descr().root_schema();
    if let Some(column) =
        root.get_fields().iter().find(|c| partition_columns.iter().any(|p| same(p, c.name())))
    {
        return Err(CatalogError::invalid(format!(
            "file '{file}', column '{}': the table is partitioned by it, so that its value comes \
             from the path and the file must not hold it",
            column.name()
        )));
    }
    let leaves = leaves(footer);
    let check = Check { file, footer, leaves: &leaves };
    check.fields(&[], &[], data, root.get_fields())?;
    Ok(leaves)
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

struct Check<'a> {
    file: &'a str,
    footer: &'a ParquetMetaData,
    leaves: &'a Leaves,
}

impl Check<'_> {
    fn fail<T>(&self, column: &[&str], what: &str) -> Result<T> {
        Err(CatalogError::invalid(format!(
            "file '{}', column '{}': {what}",
            self.file,
            column.join(".")
        )))
    }

    /// `column` is the path in Delta's words, `stored` in Parquet's.
    fn fields(
        &self,
        column: &[&str],
        stored: &[&str],
        expected: &StructType,
        found: &[parquet::schema::types::TypePtr],
    ) -> Result<()> {
        let mut seen: Vec<&str> = Vec::new();
        for item in found {
            let here = [column, &[item.name()]].concat();
            if seen.contains(&item.name()) {
                return self.fail(&here, "the file holds two columns of this name");
            }
            seen.push(item.name());
            if expected.field(item.name()).is_none() {
                let other = expected.fields.iter().find(|f| same(&f.name, item.name()));
                return match other {
                    Some(f) => self.fail(
                        &here,
                        &format!("the table has '{}': names must agree in case, too", f.name),
                    ),
                    None => self.fail(
                        &here,
                        "the table has no such column: add it to the table first, or write the \
                         file without it",
                    ),
                };
            }
        }
        for field in &expected.fields {
            let here = [column, &[field.name.as_str()]].concat();
            let there = [stored, &[field.name.as_str()]].concat();
            match found.iter().find(|item| item.name() == field.name) {
                Some(item) => self.column(&here, &there, &field.data_type, field.nullable, item)?,
                None if field.nullable => {}
                None => {
                    return self.fail(&here, "it is not null in the table, and the file lacks it");
                }
            }
        }
        Ok(())
    }

    fn column(
        &self,
        column: &[&str],
        stored: &[&str],
        expected: &DataType,
        nullable: bool,
        found: &Type,
    ) -> Result<()> {
        if !nullable && is_optional(found) && !self.has_no_null(stored) {
            return self.fail(
                column,
                "it is not null in the table, but optional in the file, whose statistics do not \
                 say that it has no nulls",
            );
        }
        match expected {
            DataType::Struct(fields) if is_struct(found) => {
                self.fields(column, stored, fields, found.get_fields())
            }
            DataType::Array { element, contains_null } => match list(found) {
                Some(List { element: item, path }) => self.column(
                    &[column, &["element"]].concat(),
                    &[stored, &path].concat(),
                    element,
                    *contains_null,
                    item,
                ),
                None => self.mismatch(column, expected, found),
            },
            DataType::Map { key, value, value_contains_null } => match map(found) {
                Some(Map { key: k, value: v, entries }) => {
                    let under = |part: &'static str| -> Vec<&str> { [column, &[part]].concat() };
                    let there = |name| [stored, &[entries, name]].concat();
                    self.column(&under("key"), &there(k.name()), key, false, k)?;
                    self.column(&under("value"), &there(v.name()), value, *value_contains_null, v)
                }
                None => self.mismatch(column, expected, found),
            },
            DataType::Variant => self.fail(
                column,
                "the table has a variant, whose encoding cannot be checked from outside: write \
                 the rows with a Delta engine and commit what it wrote",
            ),
            simple => match delta_type(found) {
                Ok(actual) if actual == *simple => Ok(()),
                _ => self.mismatch(column, expected, found),
            },
        }
    }

    fn mismatch<T>(&self, column: &[&str], expected: &DataType, found: &Type) -> Result<T> {
        let found = match delta_type(found) {
            Ok(found) => found.to_string(),
            Err(Refused { what, .. }) => what,
        };
        self.fail(column, &format!("the table has {expected}, the file {found}"))
    }

    /// Whether statistics say that nothing below this path is null: then it is not, either.
    fn has_no_null(&self, stored: &[&str]) -> bool {
        let below = |path: &[String]| path.iter().zip(stored).all(|(a, b)| a == b);
        self.leaves.iter().filter(|(path, _)| path.len() >= stored.len() && below(path)).any(
            |(_, leaf)| {
                self.footer.row_groups().iter().all(|group| {
                    let statistics = group.columns().get(*leaf).and_then(|c| c.statistics());
                    group.num_rows() == 0
                        || statistics.and_then(Statistics::null_count_opt) == Some(0)
                })
            },
        )
    }
}

fn is_optional(found: &Type) -> bool {
    let info = found.get_basic_info();
    !info.has_repetition() || info.repetition() == Repetition::OPTIONAL
}

fn is_repeated(found: &Type) -> bool {
    let info = found.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::REPEATED
}

/// A group without a meaning of its own.
fn is_struct(found: &Type) -> bool {
    let info = found.get_basic_info();
    found.is_group()
        && !is_repeated(found)
        && info.logical_type_ref().is_none()
        && info.converted_type() == ConvertedType::NONE
}

/// A list's element, and the Parquet names that lead to it.
struct List<'a> {
    element: &'a Type,
    path: Vec<&'a str>,
}

/// The layouts of lists that the Parquet format knows ("LogicalTypes", section "Lists").
fn list(found: &Type) -> Option<List<'_>> {
    let info = found.get_basic_info();
    let marked = matches!(info.logical_type_ref(), Some(LogicalType::List))
        || info.converted_type() == ConvertedType::LIST;
    if !found.is_group() || !marked || is_repeated(found) {
        return None;
    }
    let [repeated] = found.get_fields() else { return None };
    if !is_repeated(repeated) {
        return None;
    }
    // Two levels, where the repeated field is the element: only old writers made it, and readers
    // disagree about it.
    let two_levels = repeated.is_primitive()
        || repeated.get_fields().len() != 1
        || repeated.name() == "array"
        || repeated.name() == format!("{}_tuple", found.name());
    if two_levels {
        return None;
    }
    let element = repeated.get_fields().first()?;
    Some(List { element, path: vec![repeated.name(), element.name()] })
}

struct Map<'a> {
    key: &'a Type,
    value: &'a Type,
    entries: &'a str,
}

fn map(found: &Type) -> Option<Map<'_>> {
    let info = found.get_basic_info();
    let marked = matches!(info.logical_type_ref(), Some(LogicalType::Map))
        || matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE);
    if !found.is_group() || !marked || is_repeated(found) {
        return None;
    }
    let [entries] = found.get_fields() else { return None };
    if !is_repeated(entries) || !entries.is_group() {
        return None;
    }
    let [key, value] = entries.get_fields() else { return None };
    Some(Map { key, value, entries: entries.name() })
}

/// Why a Parquet type has no Delta type.
struct Refused<'a> {
    path: Vec<&'a str>,
    what: String,
}

fn refused(found: &Type, what: impl Into<String>) -> Refused<'_> {
    Refused { path: vec![found.name()], what: what.into() }
}

/// The Delta type that readers see in a Parquet column.
fn delta_type(found: &Type) -> std::result::Result<DataType, Refused<'_>> {
    if is_repeated(found) {
        return Err(refused(
            found,
            "a repeated field outside of a list, which Delta readers do not know",
        ));
    }
    if found.is_primitive() {
        return leaf(found).map_err(|what| refused(found, what));
    }
    if let Some(List { element, .. }) = list(found) {
        let inner = delta_type(element).map_err(|r| outer(found, r))?;
        return Ok(DataType::Array {
            element: Box::new(inner),
            contains_null: is_optional(element),
        });
    }
    if let Some(Map { key, value, .. }) = map(found) {
        return Ok(DataType::Map {
            key: Box::new(delta_type(key).map_err(|r| outer(found, r))?),
            value: Box::new(delta_type(value).map_err(|r| outer(found, r))?),
            value_contains_null: is_optional(value),
        });
    }
    if matches!(found.get_basic_info().logical_type_ref(), Some(LogicalType::Variant(_))) {
        return Ok(DataType::Variant);
    }
    if is_struct(found) {
        return struct_type(found).map(DataType::Struct);
    }
    Err(refused(found, "a group of a layout that Delta readers do not know"))
}

fn struct_type(found: &Type) -> std::result::Result<StructType, Refused<'_>> {
    let mut fields = Vec::new();
    for field in found.get_fields() {
        let data_type = delta_type(field).map_err(|r| outer(found, r))?;
        fields.push(StructField::new(field.name(), data_type, is_optional(field)));
    }
    Ok(StructType { fields })
}

fn outer<'a>(found: &'a Type, inner: Refused<'a>) -> Refused<'a> {
    let mut path = vec![found.name()];
    path.extend(inner.path);
    Refused { path, what: inner.what }
}

fn leaf(found: &Type) -> std::result::Result<DataType, String> {
    let Type::PrimitiveType { basic_info, physical_type, precision, scale, .. } = found else {
        return Err("a group".to_owned());
    };
    let no = |what: &str| Err(format!("{what}, which Delta does not have"));
    let meaning = basic_info
        .logical_type_ref()
        .cloned()
        .or_else(|| from_converted(basic_info.converted_type(), *precision, *scale));
    match (physical_type, meaning) {
        (Physical::BOOLEAN, None) => Ok(DataType::Boolean),
        (Physical::FLOAT, None) => Ok(DataType::Float),
        (Physical::DOUBLE, None) => Ok(DataType::Double),
        (Physical::INT96, None) => Ok(DataType::Timestamp),
        (Physical::INT32, None) => Ok(DataType::Integer),
        (Physical::INT64, None) => Ok(DataType::Long),
        (Physical::INT32 | Physical::INT64, Some(LogicalType::Integer(int))) => {
            match (int.bit_width, int.is_signed, physical_type) {
                (8, true, Physical::INT32) => Ok(DataType::Byte),
                (16, true, Physical::INT32) => Ok(DataType::Short),
                (32, true, Physical::INT32) => Ok(DataType::Integer),
                (64, true, Physical::INT64) => Ok(DataType::Long),
                (width, false, _) => no(&format!("an unsigned integer of {width} bits")),
                (width, ..) => no(&format!("an odd integer of {width} bits")),
            }
        }
        (Physical::INT32, Some(LogicalType::Date)) => Ok(DataType::Date),
        (Physical::INT64, Some(LogicalType::Timestamp(time))) => match time.unit {
            TimeUnit::NANOS => {
                Err("a timestamp in nanoseconds, which Delta readers refuse: write microseconds"
                    .into())
            }
            _ if time.is_adjusted_to_u_t_c => Ok(DataType::Timestamp),
            _ => Ok(DataType::TimestampNtz),
        },
        (
            Physical::BYTE_ARRAY,
            Some(LogicalType::String | LogicalType::Enum | LogicalType::Json),
        ) => Ok(DataType::String),
        (Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY, None) => Ok(DataType::Binary),
        (_, Some(LogicalType::Decimal(decimal))) => {
            match (u8::try_from(decimal.precision), u8::try_from(decimal.scale)) {
                (Ok(precision @ 1..=38), Ok(scale)) if scale <= precision => {
                    Ok(DataType::Decimal { precision, scale })
                }
                _ => no(&format!("decimal({},{})", decimal.precision, decimal.scale)),
            }
        }
        (_, Some(LogicalType::Unknown)) => no("a column of nothing but nulls, without a type"),
        (_, Some(LogicalType::Time(_))) => no("a time of day"),
        (_, Some(LogicalType::Uuid)) => no("a UUID"),
        (_, Some(LogicalType::Float16)) => no("a 16-bit float"),
        (physical, Some(other)) => no(&format!("{physical} as {other:?}")),
    }
}

/// The meaning that older writers gave only as a converted type.
fn from_converted(converted: ConvertedType, precision: i32, scale: i32) -> Option<LogicalType> {
    Some(match converted {
        ConvertedType::NONE => return None,
        ConvertedType::UTF8 => LogicalType::String,
        ConvertedType::ENUM => LogicalType::Enum,
        ConvertedType::JSON => LogicalType::Json,
        ConvertedType::DECIMAL => LogicalType::decimal(scale, precision),
        ConvertedType::DATE => LogicalType::Date,
        ConvertedType::TIME_MILLIS => LogicalType::time(true, TimeUnit::MILLIS),
        ConvertedType::TIME_MICROS => LogicalType::time(true, TimeUnit::MICROS),
        ConvertedType::TIMESTAMP_MILLIS => LogicalType::timestamp(true, TimeUnit::MILLIS),
        ConvertedType::TIMESTAMP_MICROS => LogicalType::timestamp(true, TimeUnit::MICROS),
        ConvertedType::UINT_8 => LogicalType::integer(8, false),
        ConvertedType::UINT_16 => LogicalType::integer(16, false),
        ConvertedType::UINT_32 => LogicalType::integer(32, false),
        ConvertedType::UINT_64 => LogicalType::integer(64, false),
        ConvertedType::INT_8 => LogicalType::integer(8, true),
        ConvertedType::INT_16 => LogicalType::integer(16, true),
        ConvertedType::INT_32 => LogicalType::integer(32, true),
        ConvertedType::INT_64 => LogicalType::integer(64, true),
        // BSON and intervals (groups' types do not come here): no meaning that Delta has.
        _ => LogicalType::Bson,
    })
}
