//! Rows from files or a query, to be written into a table.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use delta::arrow::datatypes::{Field, Schema, SchemaRef};
use delta::datafusion::dataframe::DataFrame;
use delta::datafusion::datasource::file_format::options::{
    CsvReadOptions, JsonReadOptions, ParquetReadOptions,
};
use deltalakedb::Db;
use deltalakedb::deltalake::deltalake as delta;

use super::query_failure;
use crate::failure::{Failure, Result};

/// What rows come from.
#[derive(Debug, Args)]
pub(super) struct Source {
    /// Files, folders or patterns (*, **, ?): Parquet, CSV with a header, or JSON with a row a line
    #[arg(value_name = "FILE|DIR|GLOB", required_unless_present = "query")]
    files: Vec<String>,
    /// Rows of a query over the catalog's tables, instead of files
    #[arg(long, value_name = "SELECT", conflicts_with_all = ["files", "input_format"])]
    query: Option<String>,
    /// What the files are [default: by their names: .parquet, .csv, .tsv, .json, .ndjson, .jsonl]
    #[arg(long, value_name = "FORMAT")]
    input_format: Option<InputFormat>,
    /// Character between the columns of CSV files [default: comma; a tab in .tsv files]
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<char>,
}

/// Formats of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    /// Apache Parquet
    Parquet,
    /// Text with separated columns, their names in the first line
    Csv,
    /// JSON, one object a line
    Ndjson,
}

impl InputFormat {
    const ALL: [InputFormat; 3] = [InputFormat::Parquet, InputFormat::Csv, InputFormat::Ndjson];

    fn extensions(self) -> &'static [&'static str] {
        match self {
            InputFormat::Parquet => &["parquet"],
            InputFormat::Csv => &["csv", "tsv"],
            InputFormat::Ndjson => &["ndjson", "jsonl", "json"],
        }
    }

    fn of(path: &Path) -> Option<InputFormat> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        InputFormat::ALL.into_iter().find(|f| f.extensions().contains(&extension.as_str()))
    }
}

impl Source {
    /// The rows. Columns of text files get the types that they have in `table`, where it has them.
    pub(super) async fn rows(&self, db: &Db, table: Option<SchemaRef>) -> Result<DataFrame> {
        let queries = db.queries();
        if let Some(query) = &self.query {
            return queries.query(query).await.map_err(query_failure);
        }
        let (files, format) = self.files()?;
        let session = queries.session();
        let extension =
            |path: &PathBuf| path.extension().and_then(|e| e.to_str()).map(str::to_owned);
        let extension =
            files.first().and_then(extension).map_or_else(String::new, |e| format!(".{e}"));
        let paths: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let read = match format {
            InputFormat::Parquet => {
                let options = ParquetReadOptions::default().file_extension(&extension);
                session.read_parquet(paths, options).await
            }
            InputFormat::Csv => {
                let tabs = extension.eq_ignore_ascii_case(".tsv");
                let delimiter = self.delimiter.unwrap_or(if tabs { '\t' } else { ',' });
                let delimiter = u8::try_from(delimiter).map_err(|_| {
                    Failure::invalid(format!("--delimiter '{delimiter}' is not one byte of ASCII"))
                })?;
                let options = || {
                    CsvReadOptions::new()
                        .has_header(true)
                        .delimiter(delimiter)
                        .file_extension(&extension)
                };
                let found = session.read_csv(paths.clone(), options()).await;
                match found.map(|found| typed(found.schema().as_arrow(), table.as_deref())) {
                    Ok(schema) => session.read_csv(paths, options().schema(&schema)).await,
                    Err(error) => Err(error),
                }
            }
            InputFormat::Ndjson => {
                let options = || JsonReadOptions::default().file_extension(&extension);
                let found = session.read_json(paths.clone(), options()).await;
                match found.map(|found| typed(found.schema().as_arrow(), table.as_deref())) {
                    Ok(schema) => session.read_json(paths, options().schema(&schema)).await,
                    Err(error) => Err(error),
                }
            }
        };
        read.map_err(query_failure)
    }

    /// The files that the arguments stand for, and what they are.
    fn files(&self) -> Result<(Vec<PathBuf>, InputFormat)> {
        let mut files = Vec::new();
        for argument in &self.files {
            if argument.contains("://") {
                return Err(Failure::invalid(
                    "rows are read from local files; for files in an object store that are to stay \
                     where they are, see `dl append`",
                ));
            }
            let path = Path::new(argument);
            let found = if path.is_dir() {
                in_folder(path, self.input_format)?
            } else if path.exists() {
                vec![path.to_owned()]
            } else {
                matching(argument)?
            };
            if found.is_empty() {
                return Err(Failure::invalid(format!("there are no files at '{argument}'")));
            }
            files.extend(found);
        }
        if let Some(format) = self.input_format {
            return Ok((files, format));
        }
        let mut formats = files.iter().map(|file| {
            InputFormat::of(file).ok_or_else(|| {
                Failure::invalid(format!(
                    "the name of '{}' does not say what is in it: give --input-format parquet, csv \
                     or ndjson",
                    file.display()
                ))
            })
        });
        let Some(first) = formats.next().transpose()? else {
            return Err(Failure::invalid("there are no files to read"));
        };
        for (format, file) in formats.zip(files.iter().skip(1)) {
            if format? != first {
                return Err(Failure::invalid(format!(
                    "'{}' has another format than '{}': write one format at a time",
                    file.display(),
                    files[0].display()
                )));
            }
        }
        Ok((files, first))
    }
}

/// Files in a folder, at any depth, by their names.
fn in_folder(folder: &Path, format: Option<InputFormat>) -> Result<Vec<PathBuf>> {
    if folder.join("_delta_log").exists() {
        return Err(Failure::invalid(format!(
            "'{}' is a Delta table: some of its files may not belong to it any more. Take it over \
             with `dl import` and name it in --query",
            folder.display()
        )));
    }
    let escaped = glob::Pattern::escape(&folder.to_string_lossy());
    let mut files = matching(&format!("{escaped}/**/*"))?;
    files.retain(|file| {
        let hidden = |name: &str| name.starts_with(['_', '.']);
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        !hidden(name) && InputFormat::of(file).is_some_and(|f| format.is_none_or(|want| want == f))
    });
    Ok(files)
}

fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let paths = glob::glob(pattern)
        .map_err(|e| Failure::invalid(format!("bad pattern '{pattern}': {e}")))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path
            .map_err(|e| Failure::io(format!("cannot read '{}'", e.path().display()), e.into()))?;
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// Columns as they were found, with the table's types.
fn typed(found: &Schema, table: Option<&Schema>) -> Schema {
    let field = |field: &Arc<Field>| match table.and_then(|t| t.field_with_name(field.name()).ok())
    {
        Some(of_table) => {
            Arc::new(field.as_ref().clone().with_data_type(of_table.data_type().clone()))
        }
        None => Arc::clone(field),
    };
    Schema::new(found.fields().iter().map(field).collect::<Vec<_>>())
}
