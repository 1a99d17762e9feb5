//! `dl write`

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use delta::DeltaTable;
use delta::arrow::datatypes::Schema;
use delta::delta_datafusion::create_session;
use delta::operations::write::SchemaMode;
use delta::protocol::SaveMode;
use deltalakedb::Db;
use deltalakedb::core::ids::{TableName, TableRef};
use deltalakedb::deltalake::{FENCE, LOCATION, deltalake as delta};
use deltalakedb::mirror::store::normalize_location;
use futures::TryStreamExt;
use serde_json::{Value, json};

use super::source::Source;
use super::{Change, condition, failure, name_of};
use crate::commands::commit::{Done, finish};
use crate::context::{Context, key_values};
use crate::failure::{Failure, Result};
use crate::output::plural;

/// Arguments of `dl write`.
#[derive(Debug, Args)]
#[command(after_help = "\
Rows are copied into files of the table, split by its partitions (`dl append` adds Parquet files
that lie below the table's root as they are). A table that is not there is made: at --location, else
for a catalog in a SQLite file at namespace/table beside that file. Types of columns in CSV and JSON
files are those of the table, and for a new table what the values look like.

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
            _ => self.write(&db, &name, opened).await?,
        };
        let report = transaction.commit_as(self.change.token()?).await?;
        finish(context, &db, report, Some(done), !self.change.no_publish).await
    }

    async fn write(&self, db: &Db, name: &TableName, table: DeltaTable) -> Result<Done> {
        let schema = table.snapshot().ok().map(|state| state.snapshot().arrow_schema());
        let rows = self.source.rows(db, schema.clone()).await?;
        if let (Some(table), None) = (&schema, self.schema_mode) {
            same_columns(name, table, rows.schema().as_arrow())?;
        }
        let replace_where = match (&self.replace_where, &schema) {
            (Some(text), Some(schema)) => Some(condition(name, schema, "--replace-where", text)?),
            // A new table has the columns of the rows.
            (Some(text), None) => {
                Some(condition(name, rows.schema().as_arrow(), "--replace-where", text)?)
            }
            (None, _) => None,
        };
        let (state, plan) = rows.into_parts();
        drop(state);
        let mut write = table
            .write(Vec::new())
            .with_input_plan(plan)
            .with_session_state(Arc::new(create_session().state()))
            .with_save_mode(match self.mode {
                Mode::Overwrite => SaveMode::Overwrite,
                Mode::Append | Mode::Error | Mode::Ignore => SaveMode::Append,
            })
            .with_table_name(name.name());
        if let Some(condition) = replace_where {
            write = write.with_replace_where(condition);
        }
        if let Some(mode) = self.schema_mode {
            write = write.with_schema_mode(match mode {
                NewColumns::Merge => SchemaMode::Merge,
                NewColumns::Overwrite => SchemaMode::Overwrite,
            });
        }
        if self.target_size.is_some() {
            write = write.with_target_file_size(self.target_size);
        }
        if !self.new.partition_by.is_empty() {
            write = write.with_partition_columns(self.new.partition_columns());
        }
        let properties: HashMap<String, Option<String>> =
            self.new.properties()?.into_iter().map(|(k, v)| (k, Some(v))).collect();
        if !properties.is_empty() {
            write = write.with_configuration(properties);
        }
        let written = write.await.map_err(|e| failure(name, e))?;
        let last = written.history(Some(1)).try_next().await;
        let info = last.map_err(|e| failure(name, e))?;
        let metrics = info.and_then(|info| info.info.get("operationMetrics").cloned());
        let metrics = metrics.unwrap_or(Value::Null);
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
}

/// Rows have the columns of their table, in any order.
fn same_columns(name: &TableName, table: &Schema, rows: &Schema) -> Result<()> {
    let missing = |of: &Schema, among: &Schema| {
        let names = among.fields().iter().map(|field| field.name().clone());
        names.filter(|field| of.field_with_name(field).is_err()).collect::<Vec<_>>().join(", ")
    };
    let unknown = missing(table, rows);
    if !unknown.is_empty() {
        return Err(Failure::invalid(format!(
            "table '{name}' has no column {unknown}, the rows do: --schema-mode merge adds it"
        )));
    }
    let absent = missing(rows, table);
    if !absent.is_empty() {
        return Err(Failure::invalid(format!(
            "the rows have no column {absent}, table '{name}' does: --schema-mode merge leaves it null"
        )));
    }
    Ok(())
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
            let record = db.table(&TableRef::Name(name.clone())).await?;
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
