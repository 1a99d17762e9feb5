//! `dl publish`

use clap::Args;
use deltalakedb::mirror::export::publish_to;
use deltalakedb::view;

use crate::context::{Context, key_values};
use crate::failure::Result;
use crate::output::plural;

/// Arguments of `dl publish`.
#[derive(Debug, Args)]
#[command(after_help = "\
Writes <URL>/_delta_log with every commit that the catalog has, byte for byte as it is published,
and checkpoints. The place must be empty; data files are not copied. Running it again after an
interruption continues.

Examples:
  dl publish sales.orders --to /backup/orders
  dl publish sales.orders --to s3://bucket/backup/orders --storage-option aws_region=eu-central-1")]
pub(crate) struct Publish {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    /// Folder or URL that becomes a table root
    #[arg(long, value_name = "URL")]
    to: String,
    /// Option of the object store; env:VARIABLE or file:/path stands for what is there
    #[arg(long = "storage-option", value_name = "KEY=VALUE")]
    storage_options: Vec<String>,
}

impl Publish {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let options = key_values("--storage-option", &self.storage_options)?;
        let (db, table) = context.table(&self.table).await?;
        let report = publish_to(&db, &table, &self.to, &options, &context.progress).await?;
        if context.out.is_json() {
            return context.out.document(&view::plain(&report));
        }
        let found = match report.commits_found {
            0 => String::new(),
            n => format!(" ({} were there)", plural(n, "commit")),
        };
        context.out.say(format!(
            "Published '{}' up to version {} to {}: {}{found}, {}",
            report.name,
            report.version,
            report.log_dir,
            plural(report.commits, "commit"),
            plural(u64::try_from(report.checkpoints.len()).unwrap_or(u64::MAX), "checkpoint"),
        ))
    }
}
