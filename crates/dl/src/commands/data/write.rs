//! `dl write`

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use delta::DeltaTable;
use delta::arrow::datatypes::{Field, Schema};
use deltalakedb::Db;
use deltalakedb::core::ids::{TableName, TableRef};
use deltalakedb::core::schema::{DataType, StructType};
use deltalakedb::deltalake::{FENCE, LOCATION, deltalake as delta, fit};
use deltalakedb::mirror::store::normalize_location;
use deltalakedb::rows::{self, has_void};
use serde_json::json;

use super::source::Source;
use super::{Change, failure, name_of};
use crate::commands::commit::{Done, finish};
use crate::context::{Context, key_values};
use crate::failure::{Failure, Result};
use crate::output::plural;

/// Arguments of `dl write`.
#[derive(Debug, Args)]
#[command(after_help = "\
Rows are copied into files of the table, split by its partitions (`dl append` adds Parquet files
that lie below the table's root as they are). A table that is not there is made: at --location, else
for a catalog in a SQLite file at namespace/table beside that file.

Types of columns in CSV and JSON files are those of --columns, of the table, and for new columns
the narrowest type that gives back each value in all of the files: 007 and 1.2.3 are text, whole
numbers beyond 64 bits are decimal(38,0). An empty value in a CSV file is null; between quotes it
is the empty string in a column of text. A CSV column without values is a string; in JSON it needs
--columns.

A value is written exactly or not at all: one that the column's type has no place for (300 in a
byte, 1.005 in a decimal(10,2), nanoseconds in a timestamp) is an error that names it. In --query,
CAST says how values are to be converted.

Examples:
  dl write sales.orders orders.parquet
  dl write sales.orders 'new/*.csv' --location /lake/orders --partition-by day
  dl write sales.orders day.parquet --mode overwrite --replace-where \"day = '2026-01-31'\"
  dl write sales.totals --mode overwrite \\
     --query 'SELECT day, sum(amount) AS amount FROM sales.orders GROUP BY day'")]
pub(crate) struct Write {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    #[command(flatten)]
    source: Source,
    /// Types of columns of the rows, as for `dl create`: 'id long, note string'
    #[arg(long, value_name = "TEXT")]
    columns: Option<String>,
    /// What becomes of the rows that are there
    #[arg(long, value_enum, default_value_t = Mode::Append)]
    mode: Mode,
    /// With --mode overwrite: only rows for which this SQL condition is true are replaced
    #[arg(long, value_name = "CONDITION", allow_hyphen_values = true)]
    replace_where: Option<String>,
    /// How columns that the table does not have are taken
    #[arg(long, value_enum)]
    schema_mode: Option<NewColumns>,
    /// Size at which a file is full, bytes [default: the table's delta.targetFileSize, else 100 MiB]
    #[arg(long, value_name = "BYTES")]
    target_size: Option<NonZeroU64>,
    #[command(flatten)]
    new: NewTable,
    #[command(flatten)]
    change: Change,
}

/// How a table is made.
#[derive(Debug, Args)]
#[command(next_help_heading = "A table that is not there yet")]
struct NewTable {
    /// Folder or URL of the table's root
    #[arg(long, value_name = "PATH|URL")]
    location: Option<String>,
    /// Partition columns, in order
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    partition_by: Vec<String>,
    /// Table property
    #[arg(long = "property", value_name = "KEY=VALUE", allow_hyphen_values = true)]
    properties: Vec<String>,
    /// Option of the object store, as for `dl create`
    #[arg(long = "storage-option", value_name = "KEY=VALUE")]
    storage_options: Vec<String>,
    /// Let writers that do not go through the catalog commit to its files: they fork its log
    #[arg(long)]
    no_fence: bool,
}

/// What becomes of the rows that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// They stay
    Append,
    /// They are replaced
    Overwrite,
    /// A table that is there is an error
    Error,
    /// A table that is there is left alone
    Ignore,
}

/// How columns that the table does not have are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NewColumns {
    /// They are added to the table
    Merge,
    /// The table gets the columns of the rows (with --mode overwrite)
    Overwrite,
}

impl Write {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        if self.replace_where.is_some() && self.mode != Mode::Overwrite {
            return Err(Failure::invalid("--replace-where goes with --mode overwrite"));
        }
        let (db, table) = context.table(&self.table).await?;
        if self.change.replayed(context, &db).await? {
            return Ok(());
        }
        let name = name_of(&db, table).await?;
        let transaction = db.transaction();
        let options = self.new.options()?;
        let opened = transaction.table_with(&name, options).await.map_err(|e| failure(&name, e))?;
        let is_new = opened.version().is_none();
        if !is_new {
            self.new.is_as(&db, &name, &opened).await?;
        }
        context.to_go_on(
            "the rows were written as a whole or not at all; `dl history` tells. With --token the \
             same command can be repeated without looking",
        );
        let done = match (is_new, self.mode) {
            (false, Mode::Ignore) => Done::new(
                "written",
                json!(null),
                &format!("Nothing was written: '{name}' is there."),
            ),
            (false, Mode::Error) => {
                return Err(Failure::invalid(format!(
                    "table '{name}' exists already: --mode append or overwrite writes to it"
                )));
            }
            (false, _) => {
                db.refuse_frozen_table(&TableRef::Name(name.clone())).await?;
                self.write(context, &db, &name, opened).await?
            }
            (true, _) => self.write(context, &db, &name, opened).await?,
        };
        let report = transaction.commit_as(self.change.token()?).await?;
        finish(context, &db, report, Some(done), !self.change.no_publish).await
    }

    async fn write(
        &self,
        context: &Context,
        db: &Db,
        name: &TableName,
        table: DeltaTable,
    ) -> Result<Done> {
        let schema = table.snapshot().ok().map(|state| state.snapshot().arrow_schema());
        let schema = schema.as_deref();
        let merge = self.schema_mode == Some(NewColumns::Merge);
        let replaced = self.schema_mode == Some(NewColumns::Overwrite);
        let declared = self.declared()?;
        if let (Some(declared), Some(table), false) = (&declared, schema, replaced) {
            agree(name, table, declared, merge)?;
        }
        let kept = if replaced { None } else { schema };
        let read = self.source.read(db, kept, declared.as_ref(), merge).await?;
        let columns = read.frame.schema().as_arrow();
        if let Some(declared) = &declared {
            let has = |field: &&Arc<Field>| columns.field_with_name(field.name()).is_err();
            if let Some(absent) = declared.fields().iter().find(has) {
                return Err(Failure::invalid(format!(
                    "the rows have no column '{}', which --columns names",
                    absent.name()
                )));
            }
        }
        let base = base(kept, declared.as_ref());
        for notice in read.notices {
            context.out.warn(notice);
        }
        let write = rows::Write {
            rows: read.frame,
            mode: match self.mode {
                Mode::Overwrite => rows::Mode::Overwrite,
                Mode::Append | Mode::Error | Mode::Ignore => rows::Mode::Append,
            },
            replace_where: self.replace_where.clone(),
            schema_mode: self.schema_mode.map(|mode| match mode {
                NewColumns::Merge => rows::NewColumns::Merge,
                NewColumns::Overwrite => rows::NewColumns::Overwrite,
            }),
            base,
            partition_by: self.new.partition_columns(),
            properties: self.new.properties()?,
            target_file_size: self.target_size,
            words: rows::Words { merge: "--schema-mode merge", replace_where: "--replace-where" },
        };
        let metrics = write.into_table(name, table).await?.metrics;
        let number = |key: &str| metrics[key].as_u64().unwrap_or(0);
        let text = format!(
            "Wrote {} in {}",
            plural(number("num_added_rows"), "row"),
            plural(number("num_added_files"), "file")
        );
        let text = match number("num_removed_files") {
            0 => format!("{text}."),
            removed => format!("{text}, in place of {removed}."),
        };
        Ok(Done::new("written", metrics, &text))
    }

    /// The types that `--columns` gives.
    fn declared(&self) -> Result<Option<Schema>> {
        let Some(text) = &self.columns else { return Ok(None) };
        let bad = |e: String| Failure::invalid(format!("--columns: {e}"));
        let schema = StructType::from_text(text).map_err(|e| bad(e.to_string()))?;
        schema.validate_new(&[]).map_err(|e| bad(e.to_string()))?;
        Ok(Some(fit::from_delta(&schema).map_err(|e| bad(e.to_string()))?))
    }
}

/// The columns whose types are given: those of the table, and new ones of `--columns`.
fn base(table: Option<&Schema>, declared: Option<&Schema>) -> Option<Schema> {
    let Some(declared) = declared else { return table.cloned() };
    let mut fields: Vec<Arc<Field>> = Vec::new();
    for field in table.iter().flat_map(|table| table.fields()) {
        // Where the table says void, more is known now.
        let new =
            declared.field_with_name(field.name()).ok().filter(|_| has_void(field.data_type()));
        fields.push(match new {
            Some(new) => Arc::new(field.as_ref().clone().with_data_type(new.data_type().clone())),
            None => Arc::clone(field),
        });
    }
    for field in declared.fields() {
        if !fields.iter().any(|known| known.name() == field.name()) {
            fields.push(Arc::clone(field));
        }
    }
    Some(Schema::new(fields))
}

/// Types of `--columns` are those of the table.
fn agree(name: &TableName, table: &Schema, declared: &Schema, merge: bool) -> Result<()> {
    for field in declared.fields() {
        let (mine, new) = match table.field_with_name(field.name()) {
            Ok(mine) => (mine.data_type(), field.data_type()),
            // Unknown columns are told about later.
            Err(_) => continue,
        };
        let void = merge && has_void(mine);
        if !void && fit::to_delta(mine).map(plain) != fit::to_delta(new).map(plain) {
            return Err(Failure::invalid(format!(
                "table '{name}', column '{}' is {}, and --columns says {}",
                field.name(),
                fit::delta_name(mine),
                fit::delta_name(new)
            )));
        }
    }
    Ok(())
}

/// A type as text, without what may be null.
fn plain(kind: DataType) -> String {
    kind.to_string().replace(" not null", "")
}

impl NewTable {
    fn properties(&self) -> Result<BTreeMap<String, String>> {
        key_values("--property", &self.properties)
    }

    fn partition_columns(&self) -> Vec<String> {
        self.partition_by.iter().map(|column| column.trim().to_owned()).collect()
    }

    /// Options that say how the table is made.
    fn options(&self) -> Result<BTreeMap<String, String>> {
        let mut options = key_values("--storage-option", &self.storage_options)?;
        if let Some(location) = &self.location {
            options.insert(LOCATION.to_owned(), normalize_location(location)?);
        }
        if self.no_fence {
            options.insert(FENCE.to_owned(), "false".to_owned());
        }
        Ok(options)
    }

    /// What is asked for must be so, where the table is there.
    async fn is_as(&self, db: &Db, name: &TableName, table: &DeltaTable) -> Result<()> {
        if let Some(location) = &self.location {
            let record = db.catalog().table(&TableRef::Name(name.clone())).await?;
            if normalize_location(location)? != record.location {
                return Err(Failure::invalid(format!(
                    "table '{name}' is at {}, not at '{location}'",
                    record.location
                )));
            }
        }
        let metadata = table.snapshot().map_err(|e| failure(name, e))?.metadata();
        if !self.partition_by.is_empty()
            && *metadata.partition_columns() != self.partition_columns()
        {
            return Err(Failure::invalid(format!(
                "table '{name}' is partitioned by ({}), not by ({})",
                metadata.partition_columns().join(", "),
                self.partition_by.join(", ")
            )));
        }
        for (key, value) in self.properties()? {
            if metadata.configuration().get(&key) != Some(&value) {
                return Err(Failure::invalid(format!(
                    "table '{name}' exists and does not have the property {key}={value}: --property \
                     is for new tables"
                )));
            }
        }
        Ok(())
    }
}
