//! Values as a Delta table takes them: exactly, or not at all.
//!
//! The `deltalake` crate casts what it writes to the types of the table, as Arrow casts: digits that a type has
//! no place for are cut off, and to `void` everything casts, as null. Rows that went through [`rows`] have
//! these types already, so nothing is left to cast. A value is changed into another type only if the same value
//! comes back from it; a null is one only where the source has one. Everything else is a [`Misfit`].

mod leaf;
mod nested;
mod plan;
mod refusal;
mod text;
mod types;

use std::fmt;

use deltalake::arrow::array::{Array, ArrayRef};
use deltalake::arrow::datatypes::{DataType, Field};

pub use plan::{rows, target};
pub use types::{delta_name, delta_type, from_delta, merged, to_delta};

/// A value, or a type, that a column cannot take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Path of the column.
    pub column: String,
    /// Row of the array, where it is about one value.
    pub row: Option<usize>,
    /// What does not fit, and what to do.
    pub what: String,
}

impl Misfit {
    fn of_type(what: impl Into<String>) -> Misfit {
        Misfit { column: String::new(), row: None, what: what.into() }
    }

    fn of_row(row: usize, what: impl Into<String>) -> Misfit {
        Misfit { column: String::new(), row: Some(row), what: what.into() }
    }

    /// The same, seen from the column that `self.column` is in.
    fn within(mut self, name: &str) -> Misfit {
        let dot = if self.column.is_empty() { "" } else { "." };
        self.column = format!("{name}{dot}{}", self.column);
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column '{}': {}", self.column, self.what)
    }
}

impl std::error::Error for Misfit {}

/// The values of a column, as its field in the table has them.
///
/// # Errors
/// A [`Misfit`] about the types, or about the first value that does not fit.
pub fn column(array: &ArrayRef, field: &Field) -> Result<ArrayRef, Misfit> {
    let fitted = nested::fit(array, field.data_type()).map_err(|e| e.within(field.name()))?;
    if let (false, Some(row)) = (field.is_nullable(), first_null(&fitted)) {
        return Err(Misfit::of_row(row, "null, and the column is not null").within(field.name()));
    }
    Ok(fitted)
}

fn first_null(array: &dyn Array) -> Option<usize> {
    if *array.data_type() == DataType::Null {
        return (!array.is_empty()).then_some(0);
    }
    let nulls = array.logical_nulls()?;
    nulls.iter().position(|valid| !valid)
}

fn first_value(array: &dyn Array) -> Option<usize> {
    match array.logical_nulls() {
        Some(nulls) => nulls.valid_indices().next(),
        None => (!array.is_empty()).then_some(0),
    }
}
