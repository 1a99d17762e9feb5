//! Writing rows into a table.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;

use delta::DeltaTable;
use delta::arrow::datatypes::{DataType as ArrowType, Schema};
use delta::datafusion::common::Column;
use delta::datafusion::dataframe::DataFrame;
use delta::datafusion::functions::core::expr_fn::nullif;
use delta::datafusion::logical_expr::{Expr, lit};
use delta::delta_datafusion::create_session;
use delta::operations::write::SchemaMode;
use delta::protocol::SaveMode;
use deltalakedb_catalog_core::ids::TableName;
use deltalakedb_log_store::{deltalake as delta, explain, fit};
use futures::TryStreamExt;
use serde_json::Value;

use super::void::retyped;
use super::{Result, condition, invalid};

/// What becomes of the rows that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They stay.
    Append,
    /// They are replaced: all of them, or those of [`Write::replace_where`].
    Overwrite,
}

/// How columns that the table does not have are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewColumns {
    /// They are added to the table; columns that the rows do not have are null.
    Merge,
    /// The table gets the columns of the rows (with [`Mode::Overwrite`]).
    Overwrite,
}

/// How the options of a write are called where its errors are read.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// [`NewColumns::Merge`].
    pub merge: &'static str,
    /// [`Write::replace_where`].
    pub replace_where: &'static str,
}

/// Rows to be written, and how.
#[derive(Debug)]
pub struct Write {
    /// The rows.
    pub rows: DataFrame,
    /// What becomes of the rows that are there.
    pub mode: Mode,
    /// With [`Mode::Overwrite`]: only rows for which this SQL condition is true are replaced.
    pub replace_where: Option<String>,
    /// How columns that the table does not have are taken; by default they are an error.
    pub schema_mode: Option<NewColumns>,
    /// Columns whose types are given, those of the table among them; none if the rows say it.
    pub base: Option<Schema>,
    /// Partition columns of a table that is not there yet.
    pub partition_by: Vec<String>,
    /// Properties of a table that is not there yet.
    pub properties: BTreeMap<String, String>,
    /// Size at which a file is full, bytes; by default the table's.
    pub target_file_size: Option<NonZeroU64>,
    /// How options are called.
    pub words: Words,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The metrics of the operation, as the commit has them.
    pub metrics: Value,
}

impl Write {
    /// Writes the rows: a commit of the transaction that the table was opened in.
    ///
    /// # Errors
    /// `InvalidInput` for columns or values that do not fit, and for a condition that is none; those of `deltalake`.
    pub async fn into_table(self, name: &TableName, mut table: DeltaTable) -> Result<Written> {
        let failure = |e| explain::operation(name, e);
        let schema = table.snapshot().ok().map(|state| state.snapshot().arrow_schema());
        let schema = schema.as_deref();
        let merge = self.schema_mode == Some(NewColumns::Merge);
        let columns = self.rows.schema().as_arrow();
        if let (Some(table), None) = (schema, self.schema_mode) {
            same_columns(name, table, columns, self.words)?;
        }
        let target = fit::target(columns, self.base.as_ref(), merge)
            .map_err(|misfit| invalid(format!("table '{name}', {misfit}")))?;
        if merge && schema.is_some() {
            table = retyped(name, table, &target).await?;
        }
        let partitions = match table.snapshot() {
            Ok(state) => state.metadata().partition_columns().to_vec(),
            Err(_) => self.partition_by.clone(),
        };
        let rows = partitioned(self.rows, &partitions)?;
        // A new table has the columns of the rows.
        let replace_where = match &self.replace_where {
            Some(text) => {
                Some(condition(name, schema.unwrap_or(&target), self.words.replace_where, text)?)
            }
            None => None,
        };
        let (_, plan) = fit::rows(rows, &target).map_err(explain::query)?.into_parts();
        let mut write = table
            .write(Vec::new())
            .with_input_plan(plan)
            .with_session_state(Arc::new(create_session().state()))
            .with_save_mode(match self.mode {
                Mode::Overwrite => SaveMode::Overwrite,
                Mode::Append => SaveMode::Append,
            })
            .with_table_name(name.name());
        if let Some(condition) = replace_where {
            write = write.with_replace_where(condition);
        }
        if let Some(mode) = self.schema_mode {
            write = write.with_schema_mode(match mode {
                NewColumns::Merge => SchemaMode::Merge,
                NewColumns::Overwrite => SchemaMode::Overwrite,
            });
        }
        if self.target_file_size.is_some() {
            write = write.with_target_file_size(self.target_file_size);
        }
        if !self.partition_by.is_empty() {
            write = write.with_partition_columns(self.partition_by);
        }
        let properties: HashMap<String, Option<String>> =
            self.properties.into_iter().map(|(k, v)| (k, Some(v))).collect();
        if !properties.is_empty() {
            write = write.with_configuration(properties);
        }
        let written = write.await.map_err(failure)?;
        let last = written.history(Some(1)).try_next().await;
        let info = last.map_err(failure)?;
        let metrics = info.and_then(|info| info.info.get("operationMetrics").cloned());
        Ok(Written { metrics: metrics.unwrap_or(Value::Null) })
    }
}

/// Rows whose partition columns have what can be written there: an empty string is null there, and bytes have
/// no text that all readers take for the same bytes.
fn partitioned(mut rows: DataFrame, partitions: &[String]) -> Result<DataFrame> {
    for name in partitions {
        let Ok((qualifier, field)) = rows.schema().qualified_field_with_unqualified_name(name)
        else {
            continue;
        };
        match field.data_type() {
            ArrowType::Binary
            | ArrowType::LargeBinary
            | ArrowType::BinaryView
            | ArrowType::FixedSizeBinary(_) => {
                return Err(invalid(format!(
                    "partition column '{name}' is of type binary: writers and readers do not agree on \
                     how its bytes are written as text, and bytes that are no UTF-8 cannot be. \
                     Partition by another column, for example by encode({name}, 'hex')"
                )));
            }
            ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View => {
                let column = Expr::Column(Column::from((qualifier, field)));
                let value = nullif(column, lit(""));
                rows = rows.with_column(name, value).map_err(explain::query)?;
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// Rows have the columns of their table, in any order.
///
/// # Errors
/// `InvalidInput` that names those that one of the two lacks.
pub fn same_columns(name: &TableName, table: &Schema, rows: &Schema, words: Words) -> Result<()> {
    let missing = |of: &Schema, among: &Schema| {
        let names = among.fields().iter().map(|field| field.name().clone());
        names.filter(|field| of.field_with_name(field).is_err()).collect::<Vec<_>>().join(", ")
    };
    let unknown = missing(table, rows);
    if !unknown.is_empty() {
        return Err(invalid(format!(
            "table '{name}' has no column {unknown}, the rows do: {} adds it",
            words.merge
        )));
    }
    let absent = missing(rows, table);
    if !absent.is_empty() {
        return Err(invalid(format!(
            "the rows have no column {absent}, table '{name}' does: {} leaves it null",
            words.merge
        )));
    }
    Ok(())
}
