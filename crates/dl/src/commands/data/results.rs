//! Rows of a query, in the format that is asked for.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::json::writer::{JsonArray, LineDelimited, Writer, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;
use deltalakedb::rows::{portable, portable_schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::List;

/// Format of a query's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RowFormat {
    /// Aligned text
    Table,
    /// Text with commas, names in the first line
    Csv,
    /// One JSON array of objects
    Json,
    /// JSON, one object a line
    Ndjson,
    /// Apache Parquet
    Parquet,
    /// Arrow IPC: the file format in a file, else the stream format
    Arrow,
}

impl RowFormat {
    /// By a file's name.
    pub(super) fn of(path: &Path) -> Option<RowFormat> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "txt" => RowFormat::Table,
            "csv" => RowFormat::Csv,
            "json" => RowFormat::Json,
            "ndjson" | "jsonl" => RowFormat::Ndjson,
            "parquet" => RowFormat::Parquet,
            "arrow" | "feather" | "ipc" => RowFormat::Arrow,
            _ => return None,
        })
    }

    fn is_binary(self) -> bool {
        matches!(self, RowFormat::Parquet | RowFormat::Arrow)
    }
}

/// Takes the rows of a query.
pub(super) struct Results {
    sink: Sink,
    schema: SchemaRef,
    file: Option<(PathBuf, PathBuf)>,
}

/// Where bytes go to: a file, or standard output.
type Target = BufWriter<Box<dyn Write + Send>>;

enum Sink {
    List(List),
    Csv(Box<csv::Writer<Target>>),
    Json(Box<Writer<Target, JsonArray>>),
    Ndjson(Box<Writer<Target, LineDelimited>>),
    Parquet(Box<ArrowWriter<Target>>),
    ArrowFile(Box<FileWriter<Target>>),
    ArrowStream(Box<StreamWriter<Target>>),
}

impl Results {
    /// Opens the output. A file appears under its name when all rows are in it.
    pub(super) fn new(
        context: &Context,
        format: RowFormat,
        output: Option<&Path>,
        schema: &Schema,
    ) -> Result<Results> {
        let schema = portable_schema(schema);
        if format.is_binary() && output.is_none() && io::stdout().is_terminal() {
            return Err(Failure::invalid(
                "this format is not for terminals: give --output FILE, or send it to a program",
            ));
        }
        if format == RowFormat::Table && output.is_none() {
            let header = schema.fields().iter().map(|field| field.name().clone()).collect();
            let right = schema.fields().iter().enumerate();
            let right = right.filter(|(_, field)| field.data_type().is_numeric());
            let right = right.map(|(index, _)| index).collect();
            let sink = Sink::List(context.out.rows(header, right));
            return Ok(Results { sink, schema, file: None });
        }
        let file = output.map(|path| {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}.tmp", uuid::Uuid::new_v4().as_simple()));
            (path.with_file_name(name), path.to_owned())
        });
        let bytes: Box<dyn Write + Send> = match &file {
            Some((temporary, path)) => Box::new(
                File::create(temporary)
                    .map_err(|e| Failure::io(format!("cannot write '{}'", path.display()), e))?,
            ),
            None => Box::new(io::stdout()),
        };
        let target = BufWriter::new(bytes);
        let sink = match format {
            RowFormat::Table => {
                return Err(Failure::invalid("aligned text goes to standard output only"));
            }
            RowFormat::Csv => {
                Sink::Csv(Box::new(csv::WriterBuilder::new().with_header(true).build(target)))
            }
            RowFormat::Json => {
                let builder = WriterBuilder::new().with_explicit_nulls(true);
                Sink::Json(Box::new(builder.build(target)))
            }
            RowFormat::Ndjson => {
                let builder = WriterBuilder::new().with_explicit_nulls(true);
                Sink::Ndjson(Box::new(builder.build(target)))
            }
            RowFormat::Parquet => {
                let properties =
                    WriterProperties::builder().set_compression(Compression::SNAPPY).build();
                let writer = ArrowWriter::try_new(target, Arc::clone(&schema), Some(properties));
                Sink::Parquet(Box::new(writer.map_err(of_parquet)?))
            }
            RowFormat::Arrow if file.is_some() => {
                Sink::ArrowFile(Box::new(FileWriter::try_new(target, &schema).map_err(of_arrow)?))
            }
            RowFormat::Arrow => Sink::ArrowStream(Box::new(
                StreamWriter::try_new(target, &schema).map_err(of_arrow)?,
            )),
        };
        Ok(Results { sink, schema, file })
    }

    /// Writes rows.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = portable(batch, &self.schema).map_err(of_arrow)?;
        match &mut self.sink {
            Sink::List(list) => {
                let options = FormatOptions::default().with_null("NULL");
                let formatters = batch
                    .columns()
                    .iter()
                    .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(of_arrow)?;
                for row in 0..batch.num_rows() {
                    let cells = formatters
                        .iter()
                        .map(|f| f.value(row).try_to_string())
                        .collect::<Result<Vec<_>, _>>()
                        .map_err(of_arrow)?;
                    list.push_row(&cells)?;
                }
                Ok(())
            }
            Sink::Csv(writer) => writer.write(&batch).map_err(of_arrow),
            Sink::Json(writer) => writer.write(&batch).map_err(of_arrow),
            Sink::Ndjson(writer) => writer.write(&batch).map_err(of_arrow),
            Sink::Parquet(writer) => writer.write(&batch).map_err(of_parquet),
            Sink::ArrowFile(writer) => writer.write(&batch).map_err(of_arrow),
            Sink::ArrowStream(writer) => writer.write(&batch).map_err(of_arrow),
        }
    }

    /// Ends the output.
    pub(super) fn end(self) -> Result<()> {
        let Results { sink, schema, mut file } = self;
        let mut target = match sink {
            Sink::List(list) => return list.end(),
            Sink::Csv(mut writer) => {
                // Names also where there are no rows.
                writer.write(&RecordBatch::new_empty(schema)).map_err(of_arrow)?;
                writer.into_inner()
            }
            Sink::Json(mut writer) => {
                writer.finish().map_err(of_arrow)?;
                let mut target = writer.into_inner();
                target.write_all(b"\n")?;
                target
            }
            Sink::Ndjson(mut writer) => {
                writer.finish().map_err(of_arrow)?;
                writer.into_inner()
            }
            Sink::Parquet(writer) => writer.into_inner().map_err(of_parquet)?,
            Sink::ArrowFile(writer) => writer.into_inner().map_err(of_arrow)?,
            Sink::ArrowStream(writer) => writer.into_inner().map_err(of_arrow)?,
        };
        target.flush()?;
        drop(target);
        let Some((temporary, path)) = file.take() else { return Ok(()) };
        let written = File::open(&temporary).and_then(|file| file.sync_all());
        written.and_then(|()| std::fs::rename(&temporary, &path)).map_err(|e| {
            let _ = std::fs::remove_file(&temporary);
            Failure::io(format!("cannot write '{}'", path.display()), e)
        })
    }

    /// Leaves nothing behind.
    pub(super) fn abandon(self) {
        if let Some((temporary, _)) = self.file {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn of_arrow(error: ArrowError) -> Failure {
    match error {
        ArrowError::IoError(_, error) => error.into(),
        ArrowError::CsvError(text) if text.contains("Broken pipe") => Failure::BrokenPipe,
        other => Failure::Engine(format!("the rows have no such form: {other}")),
    }
}

fn of_parquet(error: ParquetError) -> Failure {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => (*error).into(),
            Err(source) => Failure::Engine(source.to_string()),
        },
        other => Failure::Engine(format!("the rows have no such form: {other}")),
    }
}
