//! `dl create`

use std::collections::BTreeMap;

use clap::Args;
use deltalakedb::core::schema::{DataType, StructField, StructType};
use deltalakedb::mirror::store::{normalize_location, open_store};
use deltalakedb::parquet_files::{infer_schema, locate};

use super::commit::finish;
use crate::context::{Context, key_values};
use crate::failure::{Failure, Result};

/// Arguments of `dl create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Columns are written as in SQL: 'id long not null, amount decimal(10,2), tags array<string>'. Types:
byte short integer long float double decimal(p,s) string binary boolean date timestamp
timestamp_ntz variant array<…> map<…> struct<…>.

The protocol is the least that schema and properties need; in-commit timestamps are on unless
--property delta.enableInCommitTimestamps=false. The published protocol also lists the writer
feature 'deltalakedb': every Delta reader reads the table, and writers that do not go through the
catalog refuse it instead of forking its log (--no-fence: without).

Examples:
  dl create sales.orders --location /lake/orders \\
     --columns 'id long not null, amount decimal(10,2), day date' --partition-by day
  dl create sales.items --location s3://bucket/items --schema-from first.parquet
  dl create sales.log --location /lake/log --schema-file schema.json \\
     --property delta.appendOnly=true")]
pub(crate) struct Create {
    /// Name: namespace.table, or a delta+sql:// URL
    name: String,
    /// Folder or URL of the table's root; it must not hold a Delta log yet
    #[arg(long, value_name = "PATH|URL")]
    location: String,
    #[command(flatten)]
    schema: SchemaArguments,
    /// Partition columns, in order
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    partition_by: Vec<String>,
    /// Table property
    #[arg(long = "property", value_name = "KEY=VALUE", allow_hyphen_values = true)]
    properties: Vec<String>,
    /// What the table holds
    #[arg(long)]
    description: Option<String>,
    /// Option of the object store; env:VARIABLE or file:/path in place of a value is looked up when
    /// the table is opened, and is the only form for secrets
    #[arg(long = "storage-option", value_name = "KEY=VALUE")]
    storage_options: Vec<String>,
    /// Keep commits in the catalog only
    #[arg(long)]
    no_mirror: bool,
    /// Let writers that do not go through the catalog commit to its files: they fork its log
    #[arg(long)]
    no_fence: bool,
    /// Leave publishing to `dl mirror run`
    #[arg(long)]
    no_publish: bool,
    /// Idempotency token: 1 to 128 printable ASCII characters
    #[arg(long)]
    token: Option<String>,
}

/// Where the schema is from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SchemaArguments {
    /// Columns as text
    #[arg(long, value_name = "TEXT")]
    columns: Option<String>,
    /// File with a Delta schema in JSON, or with columns as text
    #[arg(long, value_name = "FILE")]
    schema_file: Option<String>,
    /// Parquet file whose schema the table gets; partition columns that it lacks are strings
    #[arg(long, value_name = "FILE")]
    schema_from: Option<String>,
}

impl Create {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let (catalog, name) = context.new_name(&self.name)?;
        let storage_options = key_values("--storage-option", &self.storage_options)?;
        let location = normalize_location(&self.location)?;
        let schema = self.schema(&storage_options).await?;
        let partition_columns: Vec<String> =
            self.partition_by.iter().map(|c| c.trim().to_owned()).collect();
        schema.validate_new(&partition_columns)?;
        let db = context.open(&catalog).await?;
        let mut table = db
            .create_table(&name.to_string())
            .location(location)
            .schema(schema)
            .partition_by(partition_columns)
            .mirror(!self.no_mirror)
            .fence(!self.no_fence);
        for (key, value) in key_values("--property", &self.properties)? {
            table = table.property(key, value);
        }
        for (key, value) in storage_options {
            table = table.storage_option(key, value);
        }
        if let Some(text) = &self.description {
            table = table.description(text);
        }
        if let Some(token) = &self.token {
            table = table.token(token);
        }
        let (_, report) = table.commit().await?;
        finish(context, &db, Some(report), None, !self.no_publish).await
    }

    async fn schema(&self, storage_options: &BTreeMap<String, String>) -> Result<StructType> {
        if let Some(text) = &self.schema.columns {
            return Ok(StructType::from_text(text)?);
        }
        if let Some(file) = &self.schema.schema_file {
            let text = tokio::fs::read_to_string(file)
                .await
                .map_err(|e| Failure::io(format!("cannot read '{file}'"), e))?;
            let schema = if text.trim_start().starts_with('{') {
                StructType::parse(&text)
            } else {
                StructType::from_text(&text)
            };
            return schema.map_err(|e| Failure::invalid(format!("{file}: {e}")));
        }
        let Some(file) = &self.schema.schema_from else {
            return Err(Failure::invalid("give the table's columns"));
        };
        let url = normalize_location(file)?;
        let folder = url.rsplit_once('/').map_or(url.as_str(), |(folder, _)| folder);
        let store = open_store(folder, storage_options)?;
        let mut schema = infer_schema(&store.store, &locate(&store, &url)?).await?;
        // A partition column is in the path, not in the file.
        for column in self.partition_by.iter().map(|c| c.trim()) {
            if schema.field(column).is_none() {
                schema.fields.push(StructField::new(column, DataType::String, true));
            }
        }
        Ok(schema)
    }
}
