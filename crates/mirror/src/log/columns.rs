//! Access to the columns of a checkpoint by name, whatever Arrow type its writer chose for them:
//! dictionaries, large and view types and narrower integers are cast to one type each.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, MapArray, StringArray,
    StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use deltalakedb_catalog_core::action::NullableMap;
use deltalakedb_catalog_core::error::{CatalogError, Result};

/// A struct column, and its name for errors.
pub(super) struct Record<'a> {
    origin: &'a str,
    name: String,
    array: StructArray,
}

impl<'a> Record<'a> {
    /// A column of a batch; none if the batch has no such column.
    pub(super) fn of_batch(
        origin: &'a str,
        batch: &arrow::record_batch::RecordBatch,
        name: &str,
    ) -> Result<Option<Record<'a>>> {
        let Some(array) = batch.column_by_name(name) else { return Ok(None) };
        Record::new(origin, name.to_owned(), array)
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
    pub(super) fn has(&self, row: usize) -> bool {
        self.array.is_valid(row)
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.array.len()
    }

    /// A column inside, as it is.
    pub(super) fn raw(&self, name: &str) -> Option<&ArrayRef> {
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
        cast(array, want).map_err(|_| {
            CatalogError::corrupt(format!(
                "checkpoint file '{}': column '{}.{name}' is {} where {want} is expected",
                self.origin,
                self.name,
                array.data_type()
            ))
        })
    }

    fn wrong(&self, name: &str) -> CatalogError {
        CatalogError::corrupt(format!(
            "checkpoint file '{}': column '{}.{name}' has an unexpected type",
            self.origin, self.name
        ))
    }

    /// A text column.
    pub(super) fn text(&self, name: &str) -> Result<Column<StringArray>> {
        self.column(name, &DataType::Utf8)
    }

    /// A 64-bit column.
    pub(super) fn long(&self, name: &str) -> Result<Column<Int64Array>> {
        self.column(name, &DataType::Int64)
    }

    /// A 32-bit column.
    pub(super) fn int(&self, name: &str) -> Result<Column<Int32Array>> {
        self.column(name, &DataType::Int32)
    }

    /// A Boolean column.
    pub(super) fn flag(&self, name: &str) -> Result<Column<BooleanArray>> {
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
    pub(super) fn record(&self, name: &str) -> Result<Option<Record<'a>>> {
        match self.raw(name) {
            None => Ok(None),
            Some(array) => Record::new(self.origin, format!("{}.{name}", self.name), array),
        }
    }

    /// A column of text lists.
    pub(super) fn texts(&self, name: &str) -> Result<Texts> {
        let want = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let Some(array) = self.typed(name, &want)? else { return Ok(Texts(None)) };
        let list =
            array.as_any().downcast_ref::<ListArray>().ok_or_else(|| self.wrong(name))?.clone();
        Ok(Texts(Some(list)))
    }

    /// A column of maps from text to text, as a map or as a list of key and value.
    pub(super) fn map(&self, name: &str) -> Result<Maps> {
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
pub(super) struct Column<A> {
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
    pub(super) fn get(&self, row: usize) -> Option<String> {
        self.at(row).map(|a| a.value(row).to_owned())
    }

    pub(super) fn need(&self, row: usize) -> Result<String> {
        self.get(row).ok_or_else(|| self.missing())
    }
}

impl Column<Int64Array> {
    pub(super) fn get(&self, row: usize) -> Option<i64> {
        self.at(row).map(|a| a.value(row))
    }

    pub(super) fn need(&self, row: usize) -> Result<i64> {
        self.get(row).ok_or_else(|| self.missing())
    }
}

impl Column<Int32Array> {
    pub(super) fn get(&self, row: usize) -> Option<i32> {
        self.at(row).map(|a| a.value(row))
    }

    pub(super) fn need(&self, row: usize) -> Result<i32> {
        self.get(row).ok_or_else(|| self.missing())
    }
}

impl Column<BooleanArray> {
    pub(super) fn get(&self, row: usize) -> Option<bool> {
        self.at(row).map(|a| a.value(row))
    }
}

/// A column of text lists that may not be there. Null elements are left out.
pub(super) struct Texts(Option<ListArray>);

impl Texts {
    pub(super) fn get(&self, row: usize) -> Option<Vec<String>> {
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
pub(super) struct Maps(Option<MapColumn>);

impl Maps {
    pub(super) fn get(&self, row: usize) -> Option<NullableMap> {
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
