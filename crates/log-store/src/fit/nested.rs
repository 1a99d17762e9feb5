//! Structs, lists and maps; what is in them goes to [`super::leaf`].

use std::sync::Arc;

use deltalake::arrow::array::{
    Array, ArrayRef, ListArray, MapArray, StructArray, make_array, new_null_array,
};
use deltalake::arrow::buffer::{NullBuffer, OffsetBuffer};
use deltalake::arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use deltalake::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use deltalake::arrow::error::ArrowError;

use super::types::delta_name;
use super::{Misfit, first_null, leaf};

type Result<T> = std::result::Result<T, Misfit>;

/// An array in another type, value by value.
pub(super) fn fit(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    if *from == DataType::Null {
        return Ok(new_null_array(to, array.len()));
    }
    match (from, to) {
        (DataType::Dictionary(_, values), _) => fit(&plain(array, values)?, to),
        (DataType::RunEndEncoded(_, values), _) => fit(&plain(array, values.data_type())?, to),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let parts = array.as_any().downcast_ref::<StructArray>();
            parts.map_or_else(|| none(from, to), |parts| structs(parts, fields))
        }
        (DataType::List(_), DataType::List(element)) => {
            let list = array.as_any().downcast_ref::<ListArray>();
            list.map_or_else(|| none(from, to), |list| lists(list, element))
        }
        (
            DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item)
            | DataType::LargeListView(item),
            DataType::List(_),
        ) => fit(&plain(array, &DataType::List(Arc::clone(item)))?, to),
        (DataType::Map(_, _), DataType::Map(entries, sorted)) => {
            let map = array.as_any().downcast_ref::<MapArray>();
            map.map_or_else(|| none(from, to), |map| maps(map, entries, *sorted))
        }
        _ => leaf::fit(array, to),
    }
}

fn none<T>(from: &DataType, to: &DataType) -> Result<T> {
    Err(Misfit::of_type(format!("{} is no {}", delta_name(from), delta_name(to))))
}

/// The same values in another layout.
fn plain(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if !can_cast_types(array.data_type(), to) {
        return none(array.data_type(), to);
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &strict).map_err(broken)
}

fn broken(error: ArrowError) -> Misfit {
    Misfit::of_type(error.to_string())
}

fn structs(array: &StructArray, fields: &Fields) -> Result<ArrayRef> {
    if let Some(other) = array.fields().iter().find(|f| fields.find(f.name()).is_none()) {
        return Err(Misfit::of_type("the table has no such field: --schema-mode merge adds it")
            .within(other.name()));
    }
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        columns.push(match array.column_by_name(field.name()) {
            Some(values) => {
                let values = masked(values, array.nulls())?;
                let fitted = fit(&values, field.data_type()).map_err(|e| e.within(field.name()))?;
                check_nulls(&fitted, field, array.nulls())?;
                fitted
            }
            None if field.is_nullable() => new_null_array(field.data_type(), array.len()),
            None => {
                return Err(Misfit::of_type("it is not null, and the rows do not have it")
                    .within(field.name()));
            }
        });
    }
    let made = StructArray::try_new_with_length(
        fields.clone(),
        columns,
        array.nulls().cloned(),
        array.len(),
    );
    Ok(Arc::new(made.map_err(broken)?))
}

/// Values whose struct is null are none.
fn masked(values: &ArrayRef, parent: Option<&NullBuffer>) -> Result<ArrayRef> {
    let (Some(parent), true) = (parent, values.data_type() != &DataType::Null) else {
        return Ok(Arc::clone(values));
    };
    if matches!(values.data_type(), DataType::Union(..) | DataType::RunEndEncoded(..)) {
        return Ok(Arc::clone(values));
    }
    let nulls = NullBuffer::union(values.nulls(), Some(parent));
    let data = values.to_data().into_builder().nulls(nulls).build().map_err(broken)?;
    Ok(make_array(data))
}

fn check_nulls(values: &ArrayRef, field: &Field, parent: Option<&NullBuffer>) -> Result<()> {
    if field.is_nullable() || first_null(values).is_none() {
        return Ok(());
    }
    let nulls = values.logical_nulls();
    let is_null = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_null(row));
    let there = |row: usize| parent.is_none_or(|parent| parent.is_valid(row));
    match (0..values.len()).find(|row| is_null(*row) && there(*row)) {
        Some(row) => {
            Err(Misfit::of_row(row, "null, and the field is not null").within(field.name()))
        }
        None => Ok(()),
    }
}

/// Offsets that begin at 0, and the part of the values that they are about.
fn rebased(offsets: &OffsetBuffer<i32>) -> (OffsetBuffer<i32>, usize, usize) {
    let lengths = offsets.lengths();
    let first = offsets.first().copied().unwrap_or(0);
    let last = offsets.last().copied().unwrap_or(0);
    let at = usize::try_from(first).unwrap_or(0);
    (OffsetBuffer::from_lengths(lengths), at, usize::try_from(last).unwrap_or(0) - at)
}

/// The row of a list that an element is in.
fn row_of(offsets: &OffsetBuffer<i32>, element: usize) -> usize {
    let element = i32::try_from(element).unwrap_or(i32::MAX);
    offsets.partition_point(|start| *start <= element).saturating_sub(1)
}

fn lists(array: &ListArray, element: &FieldRef) -> Result<ArrayRef> {
    let (offsets, at, length) = rebased(array.offsets());
    let outside = |mut misfit: Misfit| {
        misfit.row = misfit.row.map(|row| row_of(&offsets, row));
        misfit.within("element")
    };
    let values = fit(&array.values().slice(at, length), element.data_type()).map_err(outside)?;
    if let (false, Some(row)) = (element.is_nullable(), first_null(&values)) {
        return Err(outside(Misfit::of_row(row, "null, and elements are not null")));
    }
    let made = ListArray::try_new(Arc::clone(element), offsets, values, array.nulls().cloned());
    Ok(Arc::new(made.map_err(broken)?))
}

fn maps(array: &MapArray, entries: &FieldRef, sorted: bool) -> Result<ArrayRef> {
    let DataType::Struct(fields) = entries.data_type() else {
        return none(array.data_type(), entries.data_type());
    };
    let [key, value] = &fields[..] else {
        return none(array.data_type(), entries.data_type());
    };
    let (offsets, at, length) = rebased(array.offsets());
    let part = |name: &str, values: &ArrayRef, field: &FieldRef| {
        let outside = |mut misfit: Misfit| {
            misfit.row = misfit.row.map(|row| row_of(&offsets, row));
            misfit.within(name)
        };
        let fitted = fit(&values.slice(at, length), field.data_type()).map_err(outside)?;
        match (field.is_nullable(), first_null(&fitted)) {
            (false, Some(row)) => Err(outside(Misfit::of_row(row, "null, and it is not null"))),
            _ => Ok(fitted),
        }
    };
    let columns = vec![part("key", array.keys(), key)?, part("value", array.values(), value)?];
    let inner = StructArray::try_new_with_length(fields.clone(), columns, None, length);
    let made = MapArray::try_new(
        Arc::clone(entries),
        offsets.clone(),
        inner.map_err(broken)?,
        array.nulls().cloned(),
        sorted,
    );
    Ok(Arc::new(made.map_err(broken)?))
}
