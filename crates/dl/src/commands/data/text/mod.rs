//! Rows of text files: CSV and JSON.
//!
//! What the types of columns are is found by looking at all values of all files, and a value that does not fit
//! is an error that names its file and line. Where nothing is to be found out only names are looked at.

mod csv;
mod guess;
mod json;

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use delta::arrow::array::RecordBatch;
use delta::arrow::datatypes::{DataType, Schema, SchemaRef};
use delta::datafusion::catalog::streaming::StreamingTable;
use delta::datafusion::error::{DataFusionError, Result as QueryResult};
use delta::datafusion::execution::{SendableRecordBatchStream, TaskContext};
use delta::datafusion::physical_plan::stream::RecordBatchReceiverStream;
use delta::datafusion::physical_plan::streaming::PartitionStream;
use deltalakedb::core::error::{CatalogError, Result, WriteState};
use deltalakedb::deltalake::deltalake as delta;
use deltalakedb::deltalake::fit;

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Files that are read at once.
const AT_ONCE: usize = 8;

/// How the rows are written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Format {
    /// Separated by a character, names in the first line.
    Csv { delimiter: u8 },
    /// One object after the other.
    Json,
}

/// What is known of the columns before the files are read.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Columns whose types are given.
    pub(super) columns: Vec<(String, DataType)>,
    /// Whether structs may have fields beyond these.
    pub(super) may_grow: bool,
    /// Columns that are there even if no row has them (JSON leaves out what is null).
    pub(super) always: Vec<String>,
}

impl Known {
    fn column(&self, name: &str) -> Option<&DataType> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, kind)| kind)
    }
}

/// Columns of files.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) schema: Schema,
    /// Columns without any value, which are taken as strings.
    pub(super) empty: Vec<String>,
}

/// Finds out which columns files have. Blocks.
pub(super) fn look(files: &[PathBuf], format: Format, known: &Known) -> Result<Found> {
    match format {
        Format::Csv { delimiter } => csv::look(files, delimiter, known),
        Format::Json => json::look(files, known),
    }
}

/// The rows of files, in the types of `schema`.
pub(super) fn table(
    files: &[PathBuf],
    format: Format,
    schema: &SchemaRef,
) -> QueryResult<StreamingTable> {
    let each = files.len().div_ceil(AT_ONCE).max(1);
    let parts = files.chunks(each).map(|files| {
        let part = Part { files: files.to_vec(), format, schema: Arc::clone(schema) };
        Arc::new(part) as Arc<dyn PartitionStream>
    });
    StreamingTable::try_new(Arc::clone(schema), parts.collect())
}

/// Some of the files, read one after the other.
#[derive(Debug)]
struct Part {
    files: Vec<PathBuf>,
    format: Format,
    schema: SchemaRef,
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), 2);
        let (files, format, schema) = (self.files.clone(), self.format, Arc::clone(&self.schema));
        let rows = stream.tx();
        stream.spawn_blocking(move || {
            for file in files {
                // Nobody wants more, once it cannot be sent.
                let mut send = |batch| rows.blocking_send(Ok(batch)).is_ok();
                let read = match format {
                    Format::Csv { delimiter } => csv::read(&file, delimiter, &schema, &mut send),
                    Format::Json => json::read(&file, &schema, &mut send),
                };
                read.map_err(|e| DataFusionError::External(Box::new(e)))?;
            }
            Ok(())
        });
        stream.build()
    }
}

/// Takes a batch; false if no more are wanted.
type Taker<'a> = dyn FnMut(RecordBatch) -> bool + 'a;

/// Opens a file behind its byte order mark.
fn open(file: &Path) -> Result<BufReader<File>> {
    let opened = File::open(file).map_err(|e| unreadable(file, &e))?;
    let mut reader = BufReader::with_capacity(1 << 16, opened);
    let start = reader.fill_buf().map_err(|e| unreadable(file, &e))?;
    if start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
        return Err(wrong(file, "it is UTF-16: convert it to UTF-8"));
    }
    if start.starts_with(&[0xEF, 0xBB, 0xBF]) {
        reader.consume(3);
    }
    Ok(reader)
}

fn unreadable(file: &Path, error: &std::io::Error) -> CatalogError {
    CatalogError::failed(
        format!("cannot read '{}': {error}", file.display()),
        WriteState::NotApplied,
    )
}

fn wrong(file: &Path, what: impl fmt::Display) -> CatalogError {
    CatalogError::invalid(format!("file '{}': {what}", file.display()))
}

fn wrong_at(file: &Path, unit: &str, number: u64, what: impl fmt::Display) -> CatalogError {
    CatalogError::invalid(format!("file '{}', {unit} {number}: {what}", file.display()))
}

/// What the names of columns must keep.
fn check_names<'a>(file: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut seen: Vec<String> = Vec::new();
    for (i, name) in names.into_iter().enumerate() {
        if name.is_empty() {
            return Err(wrong(file, format_args!("column {} has no name", i + 1)));
        }
        let plain = name.to_lowercase();
        if seen.contains(&plain) {
            return Err(wrong(
                file,
                format_args!("two columns are called '{name}': names differ by more than case"),
            ));
        }
        seen.push(plain);
    }
    Ok(())
}

/// Columns in the types of the schema.
fn fitted(
    schema: &SchemaRef,
    columns: &[delta::arrow::array::ArrayRef],
    rows: usize,
) -> std::result::Result<RecordBatch, fit::Misfit> {
    let mut out = Vec::with_capacity(columns.len());
    let mut first: Option<fit::Misfit> = None;
    for (array, field) in columns.iter().zip(schema.fields()) {
        match fit::column(array, field) {
            Ok(column) => out.push(column),
            // The first line that is wrong is named, not the first column.
            Err(misfit) => {
                if first.as_ref().is_none_or(|first| misfit.row < first.row) {
                    first = Some(misfit);
                }
            }
        }
    }
    if let Some(misfit) = first {
        return Err(misfit);
    }
    let options = delta::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), out, &options).map_err(|e| fit::Misfit {
        column: String::new(),
        row: None,
        what: e.to_string(),
    })
}
