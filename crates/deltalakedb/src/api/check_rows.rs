//! The rows that a table has, looked at before a constraint is added.

use deltalakedb_catalog_core::error::{CatalogError, Result};

use super::Table;

/// Reads the rows of the version that was opened, and looks whether a constraint holds for each of them.
///
/// # Errors
/// `InvalidInput` if it does not, with the number of rows for which it is false or null, and if a data file is
/// damaged; those of the database and of the store.
#[cfg(feature = "deltalake")]
pub(super) async fn check(table: &Table, name: &str, expression: &str) -> Result<()> {
    use std::sync::Arc;

    use deltalakedb_log_store::deltalake::datafusion::catalog::TableProvider as _;
    use deltalakedb_log_store::deltalake::datafusion::error::DataFusionError;
    use deltalakedb_log_store::explain::{Explained, query};
    use deltalakedb_log_store::sql::{CatalogTable, Expressions};

    let failed = |error: DataFusionError| match query(error) {
        Explained::Catalog(error) => error,
        Explained::Engine(text) => CatalogError::invalid(format!(
            "constraint '{name}' ({expression}) of table '{}': {text}",
            table.name()
        )),
    };
    let catalog = (**table.db()).clone();
    let rows = CatalogTable::new(catalog, table.snapshot().clone()).await.map_err(failed)?;
    let holds = Expressions::of(&rows.schema())
        .and_then(|expressions| expressions.condition(expression))
        .map_err(failed)?;
    let queries = table.db().queries();
    let others = queries
        .session()
        .read_table(Arc::new(rows))
        .and_then(|all| all.filter(holds.is_not_true()))
        .map_err(failed)?;
    match others.count().await.map_err(failed)? {
        0 => Ok(()),
        count => Err(CatalogError::invalid(format!(
            "constraint '{name}' ({expression}) does not hold for {count} row{} of table '{}' at version {}: it is \
             false or null there. Nothing was changed",
            if count == 1 { "" } else { "s" },
            table.name(),
            table.version()
        ))),
    }
}

/// As there is nothing here that reads rows.
///
/// # Errors
/// `Unsupported`.
#[cfg(not(feature = "deltalake"))]
pub(super) async fn check(table: &Table, name: &str, _: &str) -> Result<()> {
    std::future::ready(Err(CatalogError::Unsupported(format!(
        "table '{}' has rows in {} file(s), and every row would have to be checked against the constraint '{name}', \
         which this program was built without (cargo feature `deltalake`; of `dl` it is `sql`). Add the constraint \
         with an engine that reads the rows (Spark), or while the table is empty",
        table.name(),
        table.num_files()
    ))))
    .await
}
