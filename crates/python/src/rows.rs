//! Rows on their way to Python: lazily, a batch at a time, by the Arrow `PyCapsule` interface.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, RecordBatchReader, StructArray};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use arrow::ffi_stream::FFI_ArrowArrayStream;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use tokio::sync::Mutex;

use crate::failure::{Failure, INTERNAL, Result};
use crate::kept::Kept;
use crate::runtime::{Effect, wait, wait_for_fork};

/// Batches as they are read.
pub(crate) type Batches = BoxStream<'static, Result<RecordBatch>>;

fn arrow_failure(py: Python<'_>, error: &ArrowError) -> PyErr {
    Failure::new(INTERNAL, format!("the rows cannot be handed over: {error}")).raise(py)
}

/// A schema as a capsule.
pub(crate) fn schema_capsule<'py>(
    py: Python<'py>,
    schema: &SchemaRef,
) -> PyResult<Bound<'py, PyCapsule>> {
    let schema = FFI_ArrowSchema::try_from(schema.as_ref()).map_err(|e| arrow_failure(py, &e))?;
    PyCapsule::new_with_value(py, schema, c"arrow_schema")
}

/// Columns and their types.
#[pyclass(frozen, module = "deltalakedb._internal")]
pub(crate) struct NativeSchema {
    pub(crate) schema: SchemaRef,
}

#[pymethods]
impl NativeSchema {
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        schema_capsule(py, &self.schema)
    }
}

/// Some rows.
#[pyclass(frozen, module = "deltalakedb._internal")]
pub(crate) struct NativeBatch {
    batch: RecordBatch,
}

#[pymethods]
impl NativeBatch {
    #[getter]
    fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        schema_capsule(py, self.batch.schema_ref())
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        // A wish, which a producer may pass over.
        drop(requested_schema);
        let schema = schema_capsule(py, self.batch.schema_ref())?;
        let array = FFI_ArrowArray::new(&StructArray::from(self.batch.clone()).to_data());
        Ok((schema, PyCapsule::new_with_value(py, array, c"arrow_array")?))
    }
}

/// Rows that are read once.
#[pyclass(frozen, module = "deltalakedb._internal")]
pub(crate) struct NativeRows {
    schema: SchemaRef,
    batches: Kept<Arc<Mutex<Batches>>>,
}

impl NativeRows {
    pub(crate) fn new(schema: SchemaRef, batches: Batches) -> NativeRows {
        NativeRows { schema, batches: Kept::new(Arc::new(Mutex::new(batches))) }
    }
}

/// The next batch; none after the last one.
fn next(py: Python<'_>, batches: &Kept<Arc<Mutex<Batches>>>) -> PyResult<Option<RecordBatch>> {
    // A fork ends their threads: what is left of them then would look like all.
    wait_for_fork(py)?;
    let batches = Arc::clone(batches.get().map_err(|failure| failure.raise(py))?);
    wait(py, Effect::Reads, async move { batches.lock().await.try_next().await })
}

#[pymethods]
impl NativeRows {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<NativeBatch>> {
        Ok(next(py, &self.batches)?.map(|batch| NativeBatch { batch }))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        schema_capsule(py, &self.schema)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // A wish, which a producer may pass over.
        drop(requested_schema);
        let batches = self.batches.get().map_err(|failure| failure.raise(py))?;
        let reader =
            Reader { schema: Arc::clone(&self.schema), batches: Kept::new(Arc::clone(batches)) };
        let stream = FFI_ArrowArrayStream::new(Box::new(reader));
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }
}

/// The same for consumers that are no Python.
struct Reader {
    schema: SchemaRef,
    batches: Kept<Arc<Mutex<Batches>>>,
}

impl Iterator for Reader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = Python::try_attach(|py| next(py, &self.batches));
        match read? {
            Ok(batch) => batch.map(Ok),
            Err(error) => Some(Err(ArrowError::ExternalError(error.to_string().into()))),
        }
    }
}

impl RecordBatchReader for Reader {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
