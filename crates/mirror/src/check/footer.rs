//! Footers of Parquet files against a table's schema. Only what no reader can make sense of counts as wrong.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use deltalakedb_catalog_core::action::{Add, Metadata, Protocol};
use deltalakedb_catalog_engine::features::supports_writer;
use deltalakedb_catalog_engine::schema::{DataType, FIELD_ID, StructField, StructType};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::async_reader::MetadataFetch;
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::types::{Type, TypePtr};
use serde_json::Value;

use super::is_absent;
use crate::store::redact;

/// Bytes read from the end of a file at once: most footers fit.
const FOOTER_GUESS: usize = 64 * 1024;
/// Length of the footer's length and of the magic word behind it.
const TAIL: u64 = 8;

/// Why there is no footer.
pub(super) enum Unread {
    /// The store failed.
    Failed(String),
    /// The file is no Parquet file that can be read.
    Broken(String),
    /// Its footer is encrypted.
    Encrypted,
}

/// Ranges of one object. A failed request is kept aside, as the Parquet reader would turn it into text.
struct Fetch<'a> {
    store: &'a Arc<dyn ObjectStore>,
    path: &'a Path,
    failure: &'a mut Option<object_store::Error>,
}

impl MetadataFetch for Fetch<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            match self.store.get_range(self.path, range).await {
                Ok(bytes) => Ok(bytes),
                Err(error) => {
                    *self.failure = Some(error);
                    Err(ParquetError::General("the store failed".to_owned()))
                }
            }
        }
        .boxed()
    }
}

/// Reads a footer.
pub(super) async fn read(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    size: u64,
) -> Result<ParquetMetaData, Unread> {
    if size < TAIL {
        return Err(Unread::Broken(format!("a file of {size} bytes is no Parquet file")));
    }
    let mut failure = None;
    let fetch = Fetch { store, path, failure: &mut failure };
    let read = ParquetMetaDataReader::new()
        .with_prefetch_hint(Some(FOOTER_GUESS))
        .load_and_finish(fetch, size)
        .await;
    match (read, failure) {
        (Ok(footer), _) => Ok(footer),
        (Err(_), Some(failure)) if is_absent(&failure) => {
            Err(Unread::Failed("the file went away while it was looked at".to_owned()))
        }
        (Err(_), Some(failure)) => Err(Unread::Failed(redact(&failure.to_string()))),
        (Err(error), None) => {
            let magic = store.get_range(path, size - 4..size).await;
            match magic {
                Ok(magic) if magic.as_ref() == b"PARE" => Err(Unread::Encrypted),
                Ok(_) => Err(Unread::Broken(match error {
                    ParquetError::General(text) | ParquetError::EOF(text) => text,
                    other => other.to_string(),
                })),
                Err(failure) => Err(Unread::Failed(redact(&failure.to_string()))),
            }
        }
    }
}

/// Number of rows that the log says a file has.
///
/// # Errors
/// Why it does not say it.
pub(super) fn rows_of(add: &Add) -> Result<i64, String> {
    let Some(stats) = &add.stats else {
        return Err("the log has no statistics of it: its rows are not compared".to_owned());
    };
    let parsed: Option<Value> = serde_json::from_str(stats).ok();
    match parsed.as_ref().and_then(|stats| stats.get("numRecords")).and_then(Value::as_i64) {
        Some(rows) => Ok(rows),
        None => Err("its statistics have no numRecords: its rows are not compared".to_owned()),
    }
}

/// By what columns are found in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Name,
    PhysicalName,
    FieldId,
}

/// What the files of a table hold.
pub(super) struct Expected {
    by: By,
    columns: StructType,
    /// Whether files may hold narrower types than their columns.
    widens: bool,
}

/// What a comparison gave.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) wrong: Vec<String>,
    pub(super) unclear: Vec<String>,
    /// Columns of the table that the file has.
    seen: usize,
}

impl Expected {
    pub(super) fn new(protocol: &Protocol, metadata: &Metadata, schema: StructType) -> Expected {
        let mode = metadata.property("delta.columnMapping.mode").unwrap_or("none");
        let by = match mode.to_ascii_lowercase().as_str() {
            "name" => By::PhysicalName,
            "id" => By::FieldId,
            _ => By::Name,
        };
        let partitions = &metadata.partition_columns;
        let fields = schema.fields.into_iter().filter(|f| !partitions.contains(&f.name)).collect();
        let widens = ["typeWidening", "typeWidening-preview"]
            .into_iter()
            .any(|feature| supports_writer(protocol, feature));
        Expected { by, columns: StructType { fields }, widens }
    }

    pub(super) fn compare(&self, footer: &ParquetMetaData) -> Compared {
        let mut compared = Compared::default();
        let root = footer.file_metadata().schema_descr().root_schema();
        if self.by == By::FieldId && !root.get_fields().iter().any(has_id) {
            compared.unclear.push(
                "the table finds columns by field id, and the file has no field ids: its columns are \
                 not compared"
                    .to_owned(),
            );
            return compared;
        }
        self.fields("", &self.columns, root.get_fields(), &mut compared);
        if compared.seen == 0 && !self.columns.fields.is_empty() && compared.wrong.is_empty() {
            compared.unclear.push(
                "the file holds none of the table's columns: readers see nulls alone".to_owned(),
            );
        }
        compared
    }

    fn find<'a>(&self, field: &StructField, found: &'a [TypePtr]) -> Option<&'a TypePtr> {
        match self.by {
            By::Name => found.iter().find(|item| item.name() == field.name),
            By::PhysicalName => found.iter().find(|item| item.name() == field.physical_name()),
            By::FieldId => {
                let id = field.metadata.get(FIELD_ID).and_then(Value::as_i64)?;
                found
                    .iter()
                    .find(|item| has_id(item) && i64::from(item.get_basic_info().id()) == id)
            }
        }
    }

    fn fields(
        &self,
        within: &str,
        expected: &StructType,
        found: &[TypePtr],
        compared: &mut Compared,
    ) {
        for field in &expected.fields {
            let column = if within.is_empty() {
                field.name.clone()
            } else {
                format!("{within}.{}", field.name)
            };
            if field.data_type == DataType::Void {
                continue;
            }
            if let Some(item) = self.find(field, found) {
                compared.seen += usize::from(within.is_empty());
                self.column(&column, &field.data_type, item, compared);
                continue;
            }
            let lower = field.name.to_lowercase();
            let other = found.iter().find(|item| item.name().to_lowercase() == lower);
            if let Some(other) = other.filter(|_| self.by == By::Name) {
                compared.seen += usize::from(within.is_empty());
                compared.unclear.push(format!(
                    "column '{column}' is '{}' in the file: readers that tell capital letters \
                     apart see nulls",
                    other.name()
                ));
            } else if !field.nullable {
                compared.wrong.push(format!(
                    "column '{column}' is not null in the table, and the file lacks it"
                ));
            }
        }
    }

    fn column(&self, column: &str, expected: &DataType, found: &Type, compared: &mut Compared) {
        let differs = |compared: &mut Compared| {
            let found = shown(found);
            compared
                .wrong
                .push(format!("column '{column}' is {expected} in the table, {found} in the file"));
        };
        match expected {
            DataType::Struct(fields) => {
                if found.is_primitive() || is_list_or_map(found) {
                    differs(compared);
                } else {
                    self.fields(column, fields, found.get_fields(), compared);
                }
            }
            DataType::Array { element, .. } => {
                if found.is_primitive() && !is_repeated(found) {
                    differs(compared);
                } else if let Some(item) = element_of(found) {
                    self.column(&format!("{column}.element"), element, item, compared);
                }
            }
            DataType::Map { key, value, .. } => {
                if found.is_primitive() {
                    differs(compared);
                } else if let Some((k, v)) = entries_of(found) {
                    self.column(&format!("{column}.key"), key, k, compared);
                    self.column(&format!("{column}.value"), value, v, compared);
                }
            }
            DataType::Variant => {
                if found.is_primitive() {
                    differs(compared);
                }
            }
            // Nobody here knows what it is stored as.
            DataType::Other(_) | DataType::Void => {}
            _ if !found.is_primitive() => differs(compared),
            simple => match fits(simple, found) {
                Fit::Yes => {}
                // What the table says it widens, its readers widen.
                Fit::Widened if self.widens => {}
                Fit::Widened => compared.unclear.push(format!(
                    "column '{column}' is {expected} in the table, {} in the file: a reader may or \
                     may not convert it",
                    shown(found)
                )),
                Fit::No => differs(compared),
            },
        }
    }
}

fn has_id(item: &TypePtr) -> bool {
    item.get_basic_info().has_id()
}

fn is_repeated(found: &Type) -> bool {
    let info = found.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::REPEATED
}

fn is_list_or_map(found: &Type) -> bool {
    matches!(found.get_basic_info().logical_type_ref(), Some(LogicalType::List | LogicalType::Map))
}

/// The element of a list of three levels; none for other layouts, which readers read each in their way.
fn element_of(found: &Type) -> Option<&Type> {
    if found.is_primitive() {
        return None;
    }
    let [repeated] = found.get_fields() else { return None };
    if !is_repeated(repeated) || repeated.is_primitive() || repeated.name() == "array" {
        return None;
    }
    match repeated.get_fields() {
        [element] if repeated.name() != format!("{}_tuple", found.name()) => Some(element),
        _ => None,
    }
}

fn entries_of(found: &Type) -> Option<(&Type, &Type)> {
    let [entries] = found.get_fields() else { return None };
    if !is_repeated(entries) || entries.is_primitive() {
        return None;
    }
    match entries.get_fields() {
        [key, value] => Some((key, value)),
        _ => None,
    }
}

/// Whether a column can be read from what a file stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    /// By a reader that widens types (protocol section "Type Widening"), or is lenient.
    Widened,
    No,
}

fn fits(expected: &DataType, found: &Type) -> Fit {
    let Type::PrimitiveType { physical_type, basic_info, .. } = found else { return Fit::No };
    let meaning = basic_info.logical_type_ref();
    let is_date = matches!(meaning, Some(LogicalType::Date));
    let is_time = matches!(meaning, Some(LogicalType::Timestamp(_)));
    let is_decimal = matches!(meaning, Some(LogicalType::Decimal(_)));
    let number = !is_date && !is_time && !is_decimal;
    let exact = match (physical_type, expected) {
        (Physical::INT32, DataType::Integer | DataType::Short | DataType::Byte)
        | (Physical::INT64, DataType::Long) => number,
        (Physical::INT32, DataType::Date) => is_date,
        (Physical::INT64, DataType::Timestamp | DataType::TimestampNtz) => is_time,
        (Physical::INT32 | Physical::INT64, DataType::Decimal { .. }) => is_decimal,
        (Physical::BOOLEAN, DataType::Boolean)
        | (Physical::FLOAT, DataType::Float)
        | (Physical::DOUBLE, DataType::Double)
        | (Physical::INT96, DataType::Timestamp | DataType::TimestampNtz)
        | (Physical::BYTE_ARRAY, DataType::String | DataType::Binary | DataType::Decimal { .. })
        | (Physical::FIXED_LEN_BYTE_ARRAY, DataType::Binary | DataType::Decimal { .. }) => true,
        _ => false,
    };
    if exact {
        return Fit::Yes;
    }
    let whole = matches!(
        expected,
        DataType::Byte
            | DataType::Short
            | DataType::Integer
            | DataType::Long
            | DataType::Date
            | DataType::Timestamp
            | DataType::TimestampNtz
            | DataType::Decimal { .. }
    );
    let widened = match physical_type {
        Physical::INT32 => whole || *expected == DataType::Double,
        Physical::INT64 => whole && *expected != DataType::Date,
        Physical::FLOAT => *expected == DataType::Double,
        Physical::FIXED_LEN_BYTE_ARRAY => *expected == DataType::String,
        _ => false,
    };
    if widened { Fit::Widened } else { Fit::No }
}

/// A Parquet type for messages.
fn shown(found: &Type) -> String {
    let info = found.get_basic_info();
    let kind = match found {
        Type::PrimitiveType { physical_type, .. } => physical_type.to_string(),
        Type::GroupType { .. } => "a group".to_owned(),
    };
    match info.logical_type_ref() {
        Some(meaning) => format!("{kind} ({meaning:?})"),
        None => kind,
    }
}
