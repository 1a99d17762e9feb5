//! Reading rows of a table.

use std::sync::Arc;

use delta::arrow::datatypes::Schema;
use delta::datafusion::catalog::TableProvider;
use delta::datafusion::dataframe::DataFrame;
use deltalakedb_catalog_core::ids::TableName;
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_log_store::{deltalake as delta, explain};

use super::{Result, condition, invalid};
use crate::Db;
use crate::deltalake::CatalogTable;

/// Which rows of a table are read.
#[derive(Debug, Clone, Default)]
pub struct Select<'a> {
    /// These columns, in this order; none = all of them.
    pub columns: Option<&'a [String]>,
    /// Rows for which this SQL condition is true, and how the option is called where its errors are read.
    pub filter: Option<(&'a str, &'a str)>,
    /// At most so many.
    pub limit: Option<usize>,
}

impl Select<'_> {
    /// Plans the read of a table at a version. Files that cannot hold such rows are left out by the catalog.
    ///
    /// # Errors
    /// `InvalidInput` for columns that are not there, or twice, and for a condition that is none; those of opening the
    /// table's store; `Unsupported` for a table that the query engine cannot read.
    pub async fn of(&self, db: &Db, snapshot: &Snapshot) -> Result<DataFrame> {
        let name = &snapshot.table.name;
        let table = CatalogTable::new(db.catalog().clone(), snapshot.clone()).await;
        let table = Arc::new(table.map_err(explain::query)?);
        let schema = table.schema();
        let queries = db.queries();
        let mut rows = queries.session().read_table(table).map_err(explain::query)?;
        if let Some((option, text)) = self.filter {
            let filter = condition(name, &schema, option, text)?;
            rows = rows.filter(filter).map_err(explain::query)?;
        }
        if let Some(columns) = self.columns {
            check(&schema, name, columns)?;
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            rows = rows.select_columns(&columns).map_err(explain::query)?;
        }
        if let Some(limit) = self.limit {
            // The engine counts in 64 bits with a sign.
            let limit = limit.min(usize::MAX >> 1);
            rows = rows.limit(0, Some(limit)).map_err(explain::query)?;
        }
        Ok(rows)
    }
}

fn check(schema: &Schema, name: &TableName, columns: &[String]) -> Result<()> {
    if columns.is_empty() {
        return Err(invalid("no column is named: leave columns out for all of them"));
    }
    for (at, column) in columns.iter().enumerate() {
        if schema.field_with_name(column).is_err() {
            let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let names = names.join(", ");
            return Err(invalid(format!("table '{name}' has no column {column}, only {names}")));
        }
        if columns.iter().take(at).any(|before| before == column) {
            return Err(invalid(format!("column {column} stands twice")));
        }
    }
    Ok(())
}
