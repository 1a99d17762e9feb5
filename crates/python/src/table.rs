//! A table at a version.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use deltalakedb::core::catalog::Catalog;
use deltalakedb::core::schema::StructType;
use deltalakedb::deltalake::deltalake::datafusion::dataframe::DataFrame;
use deltalakedb::deltalake::{explain, fit};
use deltalakedb::filter::parse_filter;
use deltalakedb::rows::{condition, portable, portable_schema, quoted};
use deltalakedb::{CatalogError, Db, Snapshot, TableState};
use futures::{StreamExt, TryStreamExt};
use pyo3::prelude::*;

use crate::catalog::Shared;
use crate::failure::{Failure, INTERNAL, Result};
use crate::files;
use crate::rows::{Batches, NativeRows, NativeSchema};
use crate::runtime::{Effect, wait};

/// Most files of a batch.
const MOST_FILES: usize = 1_000_000;

/// A table at a version. It has no connection of its own.
#[pyclass(frozen, module = "deltalakedb._internal")]
pub(crate) struct NativeTable {
    pub(crate) shared: Arc<Shared>,
    pub(crate) snapshot: Snapshot,
}

/// A value as JSON text.
pub(crate) fn json_text(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Failure::new(INTERNAL, format!("an answer has no JSON form: {e}")))
}

/// The rows of a plan, as they are read, and their columns.
pub(crate) async fn stream_of(frame: DataFrame) -> Result<(SchemaRef, Batches)> {
    let tables = explain::tables(frame.logical_plan());
    let rows = frame.execute_stream().await;
    let rows = rows.map_err(|error| Failure::from(explain::rows(&tables, error)))?;
    let schema = portable_schema(&rows.schema());
    let kind = Arc::clone(&schema);
    let batches: Batches = rows
        .map(move |batch| {
            let batch = batch.map_err(|error| Failure::from(explain::rows(&tables, error)))?;
            portable(&batch, &kind).map_err(|error| {
                Failure::new(INTERNAL, format!("the rows have no such form: {error}"))
            })
        })
        .fuse()
        .boxed();
    Ok((schema, batches))
}

/// Runs a query; its rows come as they are read.
pub(crate) fn query(py: Python<'_>, db: Db, sql: String) -> PyResult<NativeRows> {
    let (schema, batches) = wait(py, Effect::Reads, async move {
        stream_of(db.queries().query(&sql).await.map_err(explain::query)?).await
    })?;
    Ok(NativeRows::new(schema, batches))
}

impl NativeTable {
    fn name_text(&self) -> String {
        self.snapshot.table.name.to_string()
    }

    fn columns(&self) -> Result<Schema> {
        let schema = StructType::parse(&self.snapshot.metadata.schema_string)?;
        fit::from_delta(&schema).map_err(|misfit| {
            CatalogError::Unsupported(format!("table '{}', {misfit}", self.name_text())).into()
        })
    }

    fn fail(&self, py: Python<'_>, failure: Failure) -> PyErr {
        failure.of_table(&self.name_text()).raise(py)
    }
}

#[pymethods]
impl NativeTable {
    #[getter]
    fn name(&self) -> String {
        self.name_text()
    }

    #[getter]
    fn id(&self) -> String {
        self.snapshot.table.id.to_string()
    }

    #[getter]
    fn version(&self) -> i64 {
        self.snapshot.version.get()
    }

    #[getter]
    fn timestamp_ms(&self) -> i64 {
        self.snapshot.timestamp.0
    }

    #[getter]
    fn location(&self) -> &str {
        &self.snapshot.table.location
    }

    #[getter]
    fn num_files(&self) -> u64 {
        self.snapshot.num_files
    }

    #[getter]
    fn size_bytes(&self) -> u64 {
        self.snapshot.size_bytes
    }

    fn metadata_json(&self, py: Python<'_>) -> PyResult<String> {
        json_text(&self.snapshot.metadata).map_err(|failure| self.fail(py, failure))
    }

    fn protocol_json(&self, py: Python<'_>) -> PyResult<String> {
        json_text(&self.snapshot.protocol).map_err(|failure| self.fail(py, failure))
    }

    fn schema(&self, py: Python<'_>) -> PyResult<NativeSchema> {
        let schema = self.columns().map_err(|failure| self.fail(py, failure))?;
        Ok(NativeSchema { schema: Arc::new(schema) })
    }

    /// Files that may have rows for which the condition is true.
    fn files(
        &self,
        py: Python<'_>,
        predicate: Option<&str>,
        batch_size: usize,
    ) -> PyResult<NativeRows> {
        if batch_size == 0 || batch_size > MOST_FILES {
            let text = format!("batch_size must be from 1 to {MOST_FILES}, and is {batch_size}");
            return Err(self.fail(py, Failure::invalid(text)));
        }
        let db = self.shared.db(py)?;
        let found = match predicate {
            Some(text) => parse_filter(text)
                .and_then(|predicate| db.files_matching(&self.snapshot, &predicate)),
            None => Ok(db.files(self.snapshot.table.id, self.snapshot.version)),
        };
        let found = found.map_err(|error| self.fail(py, error.into()))?;
        let (schema, name) = (files::schema(), self.name_text());
        let kind = Arc::clone(&schema);
        let batches = found
            .map_err(move |error| Failure::from(error).of_table(&name))
            .try_chunks(batch_size)
            .map(move |chunk| match chunk {
                Ok(files) => files::batch(&files, &kind),
                Err(error) => Err(error.1),
            })
            .fuse()
            .boxed();
        Ok(NativeRows::new(schema, batches))
    }

    /// Rows for which the condition is true.
    fn rows(
        &self,
        py: Python<'_>,
        columns: Option<Vec<String>>,
        filter: Option<&str>,
        limit: Option<u64>,
    ) -> PyResult<NativeRows> {
        let name = &self.snapshot.table.name;
        let columns = match columns {
            Some(columns) if columns.is_empty() => {
                let text = "columns=[] names no column: leave it out for all columns";
                return Err(self.fail(py, Failure::invalid(text)));
            }
            Some(columns) => {
                columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
            }
            None => "*".to_owned(),
        };
        let filter = match filter {
            // One whole condition, on lines of its own: a comment in it must not end more than it.
            Some(text) => {
                let checked = self
                    .columns()
                    .and_then(|columns| Ok(condition(name, &columns, "filter", text)?));
                checked.map_err(|failure| self.fail(py, failure))?;
                format!("WHERE (\n{text}\n)")
            }
            None => String::new(),
        };
        let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        let sql = format!(
            "SELECT {columns} FROM {}.{} VERSION AS OF {} {filter}{limit}",
            quoted(name.namespace()),
            quoted(name.name()),
            self.snapshot.version
        );
        query(py, self.shared.db(py)?, sql)
    }
}

/// Opens a table.
pub(crate) async fn snapshot(
    catalog: &Catalog,
    table: &str,
    version: Option<i64>,
    timestamp_ms: Option<i64>,
) -> Result<Snapshot> {
    use deltalakedb::{At, IntoAt, IntoTableRef, TimestampMs};
    let at = match (version, timestamp_ms) {
        (Some(_), Some(_)) => {
            return Err(Failure::invalid("give a version or a timestamp, not both"));
        }
        (Some(version), None) => version.into_at()?,
        (None, Some(ms)) => At::Timestamp(TimestampMs(ms)),
        (None, None) => At::Head,
    };
    let found = catalog.snapshot(&table.into_table_ref()?, at).await;
    let found = found.map_err(|error| Failure::from(error).of_table(table))?;
    // By its id it is found, too.
    if found.table.state == TableState::Dropped {
        return Err(CatalogError::TableNotFound(found.table.name.to_string()).into());
    }
    Ok(found)
}
