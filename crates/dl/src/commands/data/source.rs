//! Rows from files or a query, to be written into a table.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use delta::arrow::datatypes::{Field, Schema, SchemaRef};
use delta::datafusion::dataframe::DataFrame;
use delta::datafusion::datasource::file_format::options::ParquetReadOptions;
use deltalakedb::Db;
use deltalakedb::deltalake::{deltalake as delta, fit};
use deltalakedb::rows::has_void;

use super::{query_failure, text};
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

/// Rows, and what is to be said about them.
pub(super) struct Rows {
    pub(super) frame: DataFrame,
    pub(super) notices: Vec<String>,
}

impl Source {
    /// The rows. Columns of text files get the types that they have in `table`, where it has them.
    pub(super) async fn rows(&self, db: &Db, table: Option<SchemaRef>) -> Result<DataFrame> {
        let found = self.read(db, table.as_deref(), None, false).await?.frame;
        for field in found.schema().fields() {
            let mine = table.as_deref().and_then(|t| t.field_with_name(field.name()).ok());
            if mine.is_some_and(|mine| has_void(mine.data_type())) && !field.data_type().is_null() {
                return Err(Failure::invalid(format!(
                    "the table's column '{}' is of type void, which holds nothing but null: give it \
                     a type with `dl write --schema-mode merge`, or leave it out of the rows",
                    field.name()
                )));
            }
        }
        Ok(found)
    }

    /// The rows. Columns of text files have the types that are `declared`, else those of `table`, else those
    /// of their values; with `merge` nested columns may have fields that the table does not have.
    pub(super) async fn read(
        &self,
        db: &Db,
        table: Option<&Schema>,
        declared: Option<&Schema>,
        merge: bool,
    ) -> Result<Rows> {
        let queries = db.queries();
        if let Some(query) = &self.query {
            let frame = queries.query(query).await.map_err(query_failure)?;
            return Ok(Rows { frame, notices: Vec::new() });
        }
        let (files, format) = self.files()?;
        let session = queries.session();
        let extension =
            |path: &PathBuf| path.extension().and_then(|e| e.to_str()).map(str::to_owned);
        let extension =
            files.first().and_then(extension).map_or_else(String::new, |e| format!(".{e}"));
        let format = match format {
            InputFormat::Parquet => {
                let paths: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                let options = ParquetReadOptions::default().file_extension(&extension);
                let frame = session.read_parquet(paths, options).await.map_err(query_failure)?;
                return Ok(Rows { frame, notices: Vec::new() });
            }
            InputFormat::Csv => {
                let tabs = extension.eq_ignore_ascii_case(".tsv");
                let delimiter = self.delimiter.unwrap_or(if tabs { '\t' } else { ',' });
                let delimiter =
                    u8::try_from(delimiter).ok().filter(u8::is_ascii).ok_or_else(|| {
                        Failure::invalid(format!(
                            "--delimiter '{delimiter}' is not one byte of ASCII"
                        ))
                    })?;
                text::Format::Csv { delimiter }
            }
            InputFormat::Ndjson => text::Format::Json,
        };
        let known = known(table, declared, merge);
        let looked_at = files.clone();
        let found = tokio::task::spawn_blocking(move || text::look(&looked_at, format, &known));
        let found = found
            .await
            .map_err(|e| Failure::io("cannot read the files", std::io::Error::other(e)))??;
        // Of a JSON file whatever has no type has none yet; a table's void column takes such nulls.
        let schema = typed(&found.schema, table, declared)?;
        let rows = text::table(&files, format, &schema).map_err(query_failure)?;
        let frame = session.read_table(Arc::new(rows)).map_err(query_failure)?;
        let is_new = |column: &&String| table.is_none_or(|t| t.field_with_name(column).is_err());
        let notices = found.empty.iter().filter(is_new).map(|column| {
            format!(
                "column '{column}' has no value in any of the files, and is taken as string: \
                 --columns '{column} …' says otherwise"
            )
        });
        let notices = notices.collect();
        Ok(Rows { frame, notices })
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

/// Columns whose types are given: by `--columns`, or by the table.
fn known(table: Option<&Schema>, declared: Option<&Schema>, merge: bool) -> text::Known {
    let mut known = text::Known { may_grow: merge, ..text::Known::default() };
    for field in declared.iter().flat_map(|schema| schema.fields()) {
        known.columns.push((field.name().clone(), field.data_type().clone()));
        known.always.push(field.name().clone());
    }
    for field in table.iter().flat_map(|schema| schema.fields()) {
        let is_declared = known.columns.iter().any(|(name, _)| name == field.name());
        // What is void says nothing about the values.
        if !is_declared && !has_void(field.data_type()) {
            known.columns.push((field.name().clone(), field.data_type().clone()));
        }
    }
    known
}

/// The columns with types that rows can be read in.
fn typed(found: &Schema, table: Option<&Schema>, declared: Option<&Schema>) -> Result<SchemaRef> {
    for field in found.fields().iter().filter(|field| has_void(field.data_type())) {
        let mine = table.and_then(|table| table.field_with_name(field.name()).ok());
        if mine.is_none()
            && let Err(misfit) = fit::delta_type(field.data_type())
        {
            let path = match misfit.column.as_str() {
                "" => field.name().clone(),
                below => format!("{}.{below}", field.name()),
            };
            return Err(Failure::invalid(format!("column '{path}': {}", misfit.what)));
        }
    }
    // What must not be null is told with its line.
    let field = |field: &Arc<Field>| {
        let of =
            |schema: &Schema| schema.field_with_name(field.name()).map(Field::is_nullable).ok();
        let nullable = declared.and_then(of).or_else(|| table.and_then(of)).unwrap_or(true);
        field.as_ref().clone().with_nullable(nullable)
    };
    Ok(Arc::new(Schema::new(found.fields().iter().map(field).collect::<Vec<_>>())))
}
