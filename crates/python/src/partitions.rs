//! The partitions that rows fall into, for writes that replace them.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchReader, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use deltalakedb::rows::quoted;

use crate::failure::{Failure, INTERNAL, QUERY, Result};

/// Most partitions that one write replaces: each is named in the condition of the commit.
const MOST: usize = 1_000;
/// Bytes that are buffered between the rows and the file.
const BUFFER: usize = 1 << 20;

/// Rows of a producer of Python's, which is asked once.
pub(crate) type Source = Box<dyn RecordBatchReader + Send>;

/// Rows that were put aside, and the partitions that they fall into.
pub(crate) struct Spooled {
    pub(crate) rows: Source,
    /// A SQL condition; none if there are no rows.
    pub(crate) partitions: Option<String>,
}

/// Values of the partition columns of a row, as text.
type Values = Vec<Option<String>>;

/// Puts rows aside in a file without a name, which ends with the process, and notes their partitions.
pub(crate) async fn spooled(
    source: Source,
    table: &str,
    columns: &[String],
    schema: SchemaRef,
) -> Result<Spooled> {
    if columns.is_empty() {
        return Err(Failure::invalid(format!(
            "table '{table}' has no partitions: mode=\"overwrite\" replaces all of its rows"
        )));
    }
    let mut kinds = Vec::with_capacity(columns.len());
    for column in columns {
        let field = schema.field_with_name(column).map_err(|_| {
            Failure::new(INTERNAL, format!("partition column '{column}' is no column"))
        })?;
        kinds.push((column.clone(), field.data_type().clone()));
    }
    let work = tokio::task::spawn_blocking(move || spool(source, &kinds));
    work.await.map_err(|e| Failure::new(INTERNAL, format!("work was broken off: {e}")))?
}

fn spool(source: Source, kinds: &[(String, DataType)]) -> Result<Spooled> {
    let aside = |e: &dyn Display| {
        Failure::new(QUERY, format!("putting the rows aside in a temporary file failed: {e}"))
    };
    let file = tempfile::tempfile().map_err(|e| aside(&e))?;
    let schema = source.schema();
    let mut writer = StreamWriter::try_new(BufWriter::with_capacity(BUFFER, file), &schema)
        .map_err(|e| aside(&e))?;
    let mut found = BTreeSet::new();
    for batch in source {
        let batch = batch.map_err(|error| {
            Failure::new(QUERY, format!("reading the rows to write failed: {error}"))
        })?;
        note(&batch, kinds, &mut found)?;
        writer.write(&batch).map_err(|e| aside(&e))?;
    }
    writer.finish().map_err(|e| aside(&e))?;
    let buffer = writer.into_inner().map_err(|e| aside(&e))?;
    let mut file: File = buffer.into_inner().map_err(|e| aside(&e))?;
    file.rewind().map_err(|e| aside(&e))?;
    let reader = BufReader::with_capacity(BUFFER, file);
    let rows = StreamReader::try_new(reader, None).map_err(|e| aside(&e))?;
    let partitions = (!found.is_empty()).then(|| condition(kinds, &found));
    Ok(Spooled { rows: Box::new(rows), partitions })
}

/// Notes the partitions of some rows.
fn note(
    batch: &RecordBatch,
    kinds: &[(String, DataType)],
    found: &mut BTreeSet<Values>,
) -> Result<()> {
    let mut columns = Vec::with_capacity(kinds.len());
    for (name, kind) in kinds {
        let column = batch.column_by_name(name);
        columns.push(column.map(|column| texts(name, column, kind)).transpose()?);
    }
    let mut last: Option<Values> = None;
    for row in 0..batch.num_rows() {
        let value = |column: &Option<StringArray>| {
            let column = column.as_ref()?;
            // An empty text is a null in partitions.
            let text = (!column.is_null(row)).then(|| column.value(row))?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        let values: Values = columns.iter().map(value).collect();
        if last.as_ref() == Some(&values) {
            continue;
        }
        if !found.contains(&values) {
            found.insert(values.clone());
            if found.len() > MOST {
                return Err(Failure::invalid(format!(
                    "the rows fall into more than {MOST} partitions: overwrite fewer at a time, or name \
                     them with mode=\"overwrite\" and predicate="
                )));
            }
        }
        last = Some(values);
    }
    Ok(())
}

/// Values as the table has them, as text.
fn texts(name: &str, column: &ArrayRef, kind: &DataType) -> Result<StringArray> {
    let exactly = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(column, kind, &exactly)
        .and_then(|column| cast_with_options(&column, &DataType::Utf8, &exactly));
    let bad = |text: String| {
        Failure::invalid(format!("partition column '{name}' does not fit the table: {text}"))
    };
    let cast = cast.map_err(|error: ArrowError| bad(error.to_string()))?;
    let texts = cast.as_any().downcast_ref::<StringArray>().cloned();
    texts.ok_or_else(|| bad(format!("{kind} has no text")))
}

/// A condition that is true for the rows of the partitions.
fn condition(kinds: &[(String, DataType)], found: &BTreeSet<Values>) -> String {
    let one = |values: &Values| {
        let parts = kinds.iter().zip(values).map(|((name, kind), value)| {
            let column = quoted(name);
            match value {
                None => format!("{column} IS NULL"),
                Some(text) => format!("{column} = {}", constant(text, kind)),
            }
        });
        format!("({})", parts.collect::<Vec<_>>().join(" AND "))
    };
    any(&found.iter().map(one).collect::<Vec<_>>())
}

/// Conditions of which one is true, in a tree that is not deep.
fn any(parts: &[String]) -> String {
    match parts {
        [] => "FALSE".to_owned(),
        [one] => one.clone(),
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            format!("({} OR {})", any(left), any(right))
        }
    }
}

fn constant(text: &str, kind: &DataType) -> String {
    let text = format!("'{}'", text.replace('\'', "''"));
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => text,
        other => format!("arrow_cast({text}, '{}')", other.to_string().replace('\'', "''")),
    }
}
