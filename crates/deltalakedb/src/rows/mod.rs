//! Rows of a table: written, deleted, updated, in one commit of a [`Transaction`](crate::deltalake::Transaction).
//!
//! On the operations of the `deltalake` crate, with the checks that they lack: a column that is not there is an
//! error, values are written exactly or not at all ([`fit`](crate::deltalake::fit)), and errors name table, column
//! and what to do.

mod portable;
mod select;
mod void;
mod write;

use delta::DeltaTable;
use delta::arrow::datatypes::{DataType, Schema, SchemaRef};
use delta::datafusion::error::DataFusionError;
use delta::datafusion::logical_expr::Expr;
use delta::operations::delete::DeleteMetrics;
use delta::operations::update::UpdateMetrics;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::TableName;
use deltalakedb_log_store::deltalake as delta;
use deltalakedb_log_store::explain::{self, Explained};

use crate::deltalake::Expressions;

pub use portable::{portable, portable_schema};
pub use select::Select;
pub use void::{has_void, takes_values};
pub use write::{Mode, NewColumns, Words, Write, Written, same_columns};

/// Result of what works on rows.
pub type Result<T> = std::result::Result<T, Explained>;

/// Bad input, with a full sentence.
fn invalid(text: impl Into<String>) -> Explained {
    Explained::Catalog(CatalogError::invalid(text))
}

/// The columns of a table that is open, as Arrow has them.
///
/// # Errors
/// Those of `deltalake`, for a table that is not there yet.
pub fn schema(name: &TableName, table: &DeltaTable) -> Result<SchemaRef> {
    let state = table.snapshot().map_err(|e| explain::operation(name, e))?;
    Ok(state.snapshot().arrow_schema())
}

/// Deletes the rows for which a SQL condition is true; without one all rows.
///
/// # Errors
/// `InvalidInput` for a condition that is none; those of `deltalake`.
pub async fn delete(
    name: &TableName,
    table: DeltaTable,
    option: &str,
    text: Option<&str>,
) -> Result<DeleteMetrics> {
    let schema = schema(name, &table)?;
    let parsed = text.map(|text| condition(name, &schema, option, text)).transpose()?;
    let mut delete = table.delete();
    if let Some(condition) = parsed {
        delete = delete.with_predicate(condition);
    }
    let (_, metrics) = delete.await.map_err(|e| explain::operation(name, e))?;
    Ok(metrics)
}

/// Sets columns to values in the rows for which a SQL condition is true; without one in all rows. `values` are
/// columns, quoted as SQL has it, and expressions over the columns as they were before.
///
/// # Errors
/// `InvalidInput` for a column that is not there, for a value or a condition that is none; those of `deltalake`.
pub async fn update(
    name: &TableName,
    table: DeltaTable,
    values: (&str, &[(String, String)]),
    rows: (&str, Option<&str>),
) -> Result<UpdateMetrics> {
    // `deltalake` passes over columns that are not there.
    let schema = schema(name, &table)?;
    let expressions = Expressions::of(&schema).map_err(|e| asked(name, "columns", e))?;
    let (option, values) = values;
    let mut given = Vec::with_capacity(values.len());
    for (column, value) in values {
        is_column(name, &schema, column)?;
        let value = expressions.value(value, column, column_type(&schema, column));
        given.push((column, value.map_err(|e| asked(name, option, e))?));
    }
    let (option, text) = rows;
    let parsed = text.map(|text| condition(name, &schema, option, text)).transpose()?;
    let mut update = table.update();
    for (column, value) in given {
        update = update.with_update(column.as_str(), value);
    }
    if let Some(condition) = parsed {
        update = update.with_predicate(condition);
    }
    let (_, metrics) = update.await.map_err(|e| explain::operation(name, e))?;
    Ok(metrics)
}

/// Reads a condition that was given with this option, over these columns.
///
/// # Errors
/// `InvalidInput` with table and option.
pub fn condition(table: &TableName, schema: &Schema, option: &str, text: &str) -> Result<Expr> {
    let parsed = Expressions::of(schema).and_then(|expressions| expressions.condition(text));
    parsed.map_err(|e| asked(table, option, e))
}

/// What is wrong with a piece of SQL for a table.
#[must_use]
pub fn asked(table: &TableName, option: &str, error: DataFusionError) -> Explained {
    let text = match explain::query(error) {
        Explained::Catalog(CatalogError::InvalidInput(text)) | Explained::Engine(text) => text,
        other @ Explained::Catalog(_) => return other,
    };
    invalid(format!("table '{table}', {option}: {text}"))
}

/// The type of a quoted column, if it is one at the top.
#[must_use]
pub fn column_type<'s>(schema: &'s Schema, quoted_name: &str) -> Option<&'s DataType> {
    let own = quoted_name.strip_prefix("\"target\".").unwrap_or(quoted_name);
    let field = schema.fields().iter().find(|field| quoted(field.name()) == own)?;
    Some(field.data_type())
}

/// A quoted column is one of the table's, or a field in one; `target.` may stand before it.
///
/// # Errors
/// `InvalidInput` for another one, and for one of type `void`.
pub fn is_column(table: &TableName, schema: &Schema, quoted_name: &str) -> Result<()> {
    let own = quoted_name.strip_prefix("\"target\".").unwrap_or(quoted_name);
    let known = |name: &String| {
        let name = quoted(name);
        [own, quoted_name].iter().any(|column| {
            column.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    if let Some(field) = schema.fields().iter().find(|field| known(field.name())) {
        return takes_values(table, field);
    }
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Err(invalid(format!("table '{table}' has no column {quoted_name}, only {}", names.join(", "))))
}

/// A name as SQL takes it, whatever is in it.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
