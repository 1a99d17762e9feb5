//! Conditions and values of operations, from text.

use std::fmt;

use deltalake::arrow::datatypes::{DataType, Schema};
use deltalake::datafusion::common::tree_node::TreeNode;
use deltalake::datafusion::common::{DFSchema, TableReference};
use deltalake::datafusion::error::Result;
use deltalake::datafusion::execution::session_state::SessionState;
use deltalake::datafusion::logical_expr::{Expr, ExprSchemable};
use deltalakedb_catalog_core::error::CatalogError;

use super::query_error;
use super::session::operation_session;
use super::{literals, versions};

/// Reads SQL conditions and values for the `deltalake` crate's operations.
///
/// What that crate reads itself from text goes through doubles and nanoseconds; here constants take the
/// types of the columns that they are compared with, exactly, or are refused by name.
pub struct Expressions {
    state: SessionState,
    schema: DFSchema,
}

impl fmt::Debug for Expressions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expressions").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Expressions {
    /// Expressions over the columns of one table.
    ///
    /// # Errors
    /// If two columns have one name.
    pub fn of(table: &Schema) -> Result<Expressions> {
        let schema = DFSchema::try_from(table.clone())?;
        Ok(Expressions { state: operation_session(), schema })
    }

    /// Expressions over a table and the rows that are merged into it, by the names that they have there.
    ///
    /// # Errors
    /// If two columns of one of them have one name.
    pub fn of_merge(
        (target, table): (&str, &Schema),
        (source, rows): (&str, &Schema),
    ) -> Result<Expressions> {
        let of = |name: &str, schema| {
            DFSchema::try_from_qualified_schema(TableReference::bare(name.to_owned()), schema)
        };
        let schema = of(source, rows)?.join(&of(target, table)?)?;
        Ok(Expressions { state: operation_session(), schema })
    }

    /// A condition on rows.
    ///
    /// # Errors
    /// Text that is no condition on these columns; a constant that is no value of the type it is compared
    /// with.
    pub fn condition(&self, text: &str) -> Result<Expr> {
        let expr = literals::typed(self.parse(text)?, &self.schema)?;
        match expr.get_type(&self.schema)? {
            DataType::Boolean | DataType::Null => Ok(expr),
            other => Err(query_error(CatalogError::invalid(format!(
                "'{text}' is no condition: it is of type {}",
                literals::type_name(&other)
            )))),
        }
    }

    /// A value for a column.
    ///
    /// # Errors
    /// Text that is no expression over these columns; a constant that the column's type cannot hold.
    pub fn value(&self, text: &str, column: &str, data_type: Option<&DataType>) -> Result<Expr> {
        let expr = self.parse(text)?;
        match data_type {
            Some(data_type) => literals::assigned(expr, &self.schema, column, data_type),
            None => literals::typed(expr, &self.schema),
        }
    }

    fn parse(&self, text: &str) -> Result<Expr> {
        let known = versions::with_known_numbers(text).map_err(query_error)?;
        let expr = self.state.create_logical_expr(&known, &self.schema)?;
        let bad = |why: String| Err(query_error(CatalogError::invalid(format!("'{text}': {why}"))));
        if let Expr::Alias(alias) = &expr {
            return bad(format!("'{}' at its end is too much", alias.name));
        }
        let of_one_row = |expr: &Expr| {
            !matches!(
                expr,
                Expr::AggregateFunction(_)
                    | Expr::WindowFunction(_)
                    | Expr::ScalarSubquery(_)
                    | Expr::InSubquery(_)
                    | Expr::Exists(_)
            )
        };
        if expr.exists(|expr| Ok(!of_one_row(expr)))? {
            return bad(
                "it is about single rows: no aggregates, windows and subqueries. Use `dl merge` \
                 with --query for those"
                    .to_owned(),
            );
        }
        Ok(expr)
    }
}
