//! Access to the columns of a checkpoint by name, whatever Arrow type its writer chose for them:
//! dictionaries, large and view types and narrower integers are cast to one type each.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, MapArray, StringArray,
    StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, TimeUnit};
use deltalakedb_catalog_core::action::{DeletionVector, NullableMap};
use deltalakedb_catalog_core::error::{CatalogError, Result};

/// A struct column, and its name for errors.
pub(crate) struct Record<'a> {
    origin: &'a str,
    name: String,
    array: StructArray,
}

impl<'a> Record<'a> {
    /// A column of a batch; none if the batch has no such column.
    pub(crate) fn of_batch(
        origin: &'a str,
        batch: &arrow::record_batch::RecordBatch,
        name: &str,
    ) -> Result<Option<Record<'a>>> {
        let Some(array) = batch.column_by_name(name) else { return Ok(None) };
        Record::new(origin, name.to_owned(), array)
    }

    /// All columns of a batch as the fields of one struct.
    #[cfg(feature = "kernel")]
    pub(crate) fn whole(origin: &'a str, batch: &arrow::record_batch::RecordBatch) -> Record<'a> {
        Record { origin, name: "file".to_owned(), array: StructArray::from(batch.clone()) }
    }

    fn new(origin: &'a str, name: String, array: &ArrayRef) -> Result<Option<Record<'a>>> {
        if matches!(array.data_type(), DataType::Null) {
            return Ok(None);
        }
        let Some(array) = array.as_any().downcast_ref::<StructArray>() else {
            return Err(CatalogError::corrupt(format!(
                "checkpoint file '{origin}': column '{name}' is {} where a struct is expected",
                array.data_type()
            )));
        };
        Ok(Some(Record { origin, name, array: array.clone() }))
    }

    /// Whether the row holds this action.
    pub(crate) fn has(&self, row: usize) -> bool {
        self.array.is_valid(row)
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.array.len()
    }

    /// A column inside, as it is.
    pub(crate) fn raw(&self, name: &str) -> Option<&ArrayRef> {
        self.array.column_by_name(name).filter(|a| !matches!(a.data_type(), DataType::Null))
    }

    fn typed(&self, name: &str, want: &DataType) -> Result<Option<ArrayRef>> {
        let Some(array) = self.raw(name) else { return Ok(None) };
        self.cast(name, array, want).map(Some)
    }

    fn cast(&self, name: &str, array: &ArrayRef, want: &DataType) -> Result<ArrayRef> {
        if array.data_type() == want {
            return Ok(Arc::clone(array));
        }
        // A time is a number of milliseconds, whatever its unit.
        let number = match (array.data_type(), want) {
            (DataType::Timestamp(_, zone), DataType::Int64) => {
                cast(array, &DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))
                    .and_then(|times| cast(&times, want))
            }
            _ => cast(array, want),
        };
        match number {
            // What does not fit must not become null.
            Ok(number) if number.logical_null_count() <= array.logical_null_count() => Ok(number),
            Ok(_) => Err(CatalogError::corrupt(format!(
                "checkpoint file '{}': column '{}.{name}' is {}, and has a value that is no {want}",
                self.origin,
                self.name,
                array.data_type()
            ))),
            Err(_) => Err(CatalogError::corrupt(format!(
                "checkpoint file '{}': column '{}.{name}' is {} where {want} is expected",
                self.origin,
                self.name,
                array.data_type()
            ))),
        }
    }

    fn wrong(&self, name: &str) -> CatalogError {
        CatalogError::corrupt(format!(
            "checkpoint file '{}': column '{}.{name}' has an unexpected type",
            self.origin, self.name
        ))
    }

    /// A text column.
    pub(crate) fn text(&self, name: &str) -> Result<Column<StringArray>> {
        self.column(name, &DataType::Utf8)
    }

    /// A 64-bit column.
    pub(crate) fn long(&self, name: &str) -> Result<Column<Int64Array>> {
        self.column(name, &DataType::Int64)
    }

    /// A 32-bit column.
    pub(crate) fn int(&self, name: &str) -> Result<Column<Int32Array>> {
        self.column(name, &DataType::Int32)
    }

    /// A Boolean column.
    pub(crate) fn flag(&self, name: &str) -> Result<Column<BooleanArray>> {
        self.column(name, &DataType::Boolean)
    }

    fn column<A: Array + Clone + 'static>(&self, name: &str, ty: &DataType) -> Result<Column<A>> {
        let array = match self.typed(name, ty)? {
            None => None,
            Some(array) => {
                Some(array.as_any().downcast_ref::<A>().ok_or_else(|| self.wrong(name))?.clone())
            }
        };
        Ok(Column { array, name: format!("{}.{name}", self.name), origin: self.origin.to_owned() })
    }

    /// A struct column inside this one.
    pub(crate) fn record(&self, name: &str) -> Result<Option<Record<'a>>> {
        match self.raw(name) {
            None => Ok(None),
            Some(array) => Record::new(self.origin, format!("{}.{name}", self.name), array),
        }
    }

    /// A column of text lists.
    pub(crate) fn texts(&self, name: &str) -> Result<Texts> {
        let want = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let Some(array) = self.typed(name, &want)? else { return Ok(Texts(None)) };
        let list =
            array.as_any().downcast_ref::<ListArray>().ok_or_else(|| self.wrong(name))?.clone();
        Ok(Texts(Some(list)))
    }

    /// A column of maps from text to text, as a map or as a list of key and value.
    pub(crate) fn map(&self, name: &str) -> Result<Maps> {
        let Some(array) = self.raw(name) else { return Ok(Maps(None)) };
        let (offsets, entries) = if let Some(map) = array.as_any().downcast_ref::<MapArray>() {
            (map.offsets().clone(), map.entries().clone())
        } else if let Some(list) = array.as_any().downcast_ref::<ListArray>() {
            let entries = list.values().as_any().downcast_ref::<StructArray>();
            (list.offsets().clone(), entries.ok_or_else(|| self.wrong(name))?.clone())
        } else {
            return Err(self.wrong(name));
        };
        if entries.num_columns() != 2 {
            return Err(self.wrong(name));
        }
        let text = |i: usize| -> Result<StringArray> {
            let array = self.cast(name, entries.column(i), &DataType::Utf8)?;
            let text = array.as_any().downcast_ref::<StringArray>();
            text.cloned().ok_or_else(|| self.wrong(name))
        };
        Ok(Maps(Some(MapColumn {
            nulls: Arc::clone(array),
            offsets,
            keys: text(0)?,
            values: text(1)?,
        })))
    }
}

/// A column that may not be there.
pub(crate) struct Column<A> {
    array: Option<A>,
    name: String,
    origin: String,
}

impl<A: Array> Column<A> {
    fn at(&self, row: usize) -> Option<&A> {
        self.array.as_ref().filter(|a| a.is_valid(row))
    }

    fn missing(&self) -> CatalogError {
        CatalogError::corrupt(format!(
            "checkpoint file '{}': '{}' is missing where it is required",
            self.origin, self.name
        ))
    }
}

impl Column<StringArray> {
    pub(crate) fn get(&self, row: usize) -> Option<String> {
        self.at(row).map(|a| a.value(row).to_owned())
    }

    pub(crate) fn need(&self, row: usize) -> Result<String> {
        self.get(row).ok_or_else(|| self.missing())
    }
}

impl Column<Int64Array> {
    pub(crate) fn get(&self, row: usize) -> Option<i64> {
        self.at(row).map(|a| a.value(row))
    }

    pub(crate) fn need(&self, row: usize) -> Result<i64> {
        self.get(row).ok_or_else(|| self.missing())
    }
}

impl Column<Int32Array> {
    pub(crate) fn get(&self, row: usize) -> Option<i32> {
        self.at(row).map(|a| a.value(row))
    }

    pub(crate) fn need(&self, row: usize) -> Result<i32> {
        self.get(row).ok_or_else(|| self.missing())
    }
}

impl Column<BooleanArray> {
    pub(crate) fn get(&self, row: usize) -> Option<bool> {
        self.at(row).map(|a| a.value(row))
    }
}

/// A column of text lists that may not be there. Null elements are left out.
pub(crate) struct Texts(Option<ListArray>);

impl Texts {
    pub(crate) fn get(&self, row: usize) -> Option<Vec<String>> {
        let list = self.0.as_ref().filter(|a| a.is_valid(row))?;
        let values = list.value(row);
        let values = values.as_any().downcast_ref::<StringArray>()?;
        Some(values.iter().flatten().map(str::to_owned).collect())
    }
}

struct MapColumn {
    nulls: ArrayRef,
    offsets: OffsetBuffer<i32>,
    keys: StringArray,
    values: StringArray,
}

/// A column of maps that may not be there.
pub(crate) struct Maps(Option<MapColumn>);

impl Maps {
    pub(crate) fn get(&self, row: usize) -> Option<NullableMap> {
        let map = self.0.as_ref().filter(|m| m.nulls.is_valid(row))?;
        let start = usize::try_from(*map.offsets.get(row)?).ok()?;
        let end = usize::try_from(*map.offsets.get(row + 1)?).ok()?;
        let entries = (start..end).map(|i| {
            let value = map.values.is_valid(i).then(|| map.values.value(i).to_owned());
            (map.keys.value(i).to_owned(), value)
        });
        Some(entries.collect())
    }
}

/// Columns that `add` and `remove` share.
pub(crate) struct FileColumns {
    pub(crate) path: Column<StringArray>,
    pub(crate) partition_values: Maps,
    pub(crate) size: Column<Int64Array>,
    pub(crate) data_change: Column<BooleanArray>,
    pub(crate) stats: Column<StringArray>,
    pub(crate) tags: Maps,
    vectors: Option<DvColumns>,
    pub(crate) base_row_id: Column<Int64Array>,
    pub(crate) default_row_commit_version: Column<Int64Array>,
}

impl FileColumns {
    pub(crate) fn of(record: &Record<'_>) -> Result<FileColumns> {
        Ok(FileColumns {
            path: record.text("path")?,
            partition_values: record.map("partitionValues")?,
            size: record.long("size")?,
            data_change: record.flag("dataChange")?,
            stats: record.text("stats")?,
            tags: record.map("tags")?,
            vectors: record.record("deletionVector")?.map(DvColumns::of).transpose()?,
            base_row_id: record.long("baseRowId")?,
            default_row_commit_version: record.long("defaultRowCommitVersion")?,
        })
    }

    pub(crate) fn vector(&self, row: usize) -> Result<Option<DeletionVector>> {
        self.vectors.as_ref().map_or(Ok(None), |v| v.get(row))
    }
}

pub(crate) struct DvColumns {
    present: Vec<bool>,
    storage_type: Column<StringArray>,
    path_or_inline_dv: Column<StringArray>,
    offset: Column<Int32Array>,
    size_in_bytes: Column<Int32Array>,
    cardinality: Column<Int64Array>,
    max_row_index: Column<Int64Array>,
}

impl DvColumns {
    fn of(record: Record<'_>) -> Result<DvColumns> {
        let storage_type = record.text("storageType")?;
        // Some writers leave a struct of nulls where they mean a null struct.
        let present = (0..record.len())
            .map(|row| record.has(row) && storage_type.get(row).is_some())
            .collect();
        Ok(DvColumns {
            present,
            storage_type,
            path_or_inline_dv: record.text("pathOrInlineDv")?,
            offset: record.int("offset")?,
            size_in_bytes: record.int("sizeInBytes")?,
            cardinality: record.long("cardinality")?,
            max_row_index: record.long("maxRowIndex")?,
        })
    }

    fn get(&self, row: usize) -> Result<Option<DeletionVector>> {
        if !self.present.get(row).copied().unwrap_or(false) {
            return Ok(None);
        }
        Ok(Some(DeletionVector {
            storage_type: self.storage_type.need(row)?,
            path_or_inline_dv: self.path_or_inline_dv.need(row)?,
            offset: self.offset.get(row),
            size_in_bytes: self.size_in_bytes.need(row)?,
            cardinality: self.cardinality.need(row)?,
            max_row_index: self.max_row_index.get(row),
        }))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int16Array, LargeStringArray, StringViewArray};
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::Int8Type;
    use arrow::record_batch::RecordBatch;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>, nulls: Option<Vec<bool>>) -> RecordBatch {
        let (fields, arrays): (Vec<_>, Vec<_>) = columns
            .into_iter()
            .map(|(name, a)| (Arc::new(Field::new(name, a.data_type().clone(), true)), a))
            .unzip();
        let add = StructArray::new(fields.into(), arrays, nulls.map(NullBuffer::from));
        RecordBatch::try_from_iter([("add", Arc::new(add) as ArrayRef)]).unwrap()
    }

    #[test]
    fn text_and_numbers_are_read_whatever_their_type() {
        let words = ["x", "y"];
        let dictionary: DictionaryArray<Int8Type> = words.into_iter().collect();
        let arrays: [ArrayRef; 3] = [
            Arc::new(LargeStringArray::from(words.to_vec())),
            Arc::new(StringViewArray::from(words.to_vec())),
            Arc::new(dictionary),
        ];
        for path in arrays {
            let size: ArrayRef = Arc::new(Int16Array::from(vec![1, 2]));
            let batch = batch(vec![("path", path), ("size", size)], Some(vec![true, false]));
            let add = Record::of_batch("f", &batch, "add").unwrap().unwrap();
            let columns = FileColumns::of(&add).unwrap();
            assert_eq!((add.has(0), add.has(1)), (true, false));
            assert_eq!(columns.path.need(0).unwrap(), "x");
            assert_eq!(columns.size.need(0).unwrap(), 1);
            // Columns that are not there are null.
            assert_eq!((columns.stats.get(0), columns.partition_values.get(0)), (None, None));
            assert!(Record::of_batch("f", &batch, "txn").unwrap().is_none());
        }
    }

    #[test]
    fn what_cannot_be_read_names_file_and_column() {
        let wrong: ArrayRef = Arc::new(StructArray::new_empty_fields(1, None));
        let batch = batch(vec![("path", wrong)], None);
        let add = Record::of_batch("some.parquet", &batch, "add").unwrap().unwrap();
        let error = FileColumns::of(&add).err().unwrap().to_string();
        assert!(error.contains("'some.parquet'") && error.contains("'add.path'"), "{error}");
        let error = add.text("stats").unwrap().need(0).unwrap_err().to_string();
        assert!(error.contains("'add.stats' is missing"), "{error}");
    }
}
