//! What is said of a value that does not fit.

use deltalake::arrow::array::Array;
use deltalake::arrow::datatypes::DataType;
use deltalake::arrow::util::display::array_value_to_string;

use super::Misfit;
use super::types::delta_name;

/// A value as it is named in errors.
pub(super) fn shown(array: &dyn Array, row: usize) -> String {
    const LONGEST: usize = 100;
    let text = array_value_to_string(array, row).unwrap_or_else(|_| "a value".to_owned());
    if text.chars().count() <= LONGEST {
        return format!("'{text}'");
    }
    format!("'{}…'", text.chars().take(LONGEST).collect::<String>())
}

pub(super) fn refused(array: &dyn Array, row: usize, to: &DataType) -> Misfit {
    let from = array.data_type();
    let remedy = match from {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            "change the value, or give a new column another type with --columns"
        }
        _ => "change the value, or say how it is to be converted, as with CAST in --query",
    };
    Misfit::of_row(
        row,
        format!(
            "{} ({}) has no exact counterpart of type {}: {remedy}",
            shown(array, row),
            delta_name(from),
            delta_name(to)
        ),
    )
}
