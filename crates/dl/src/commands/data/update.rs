//! `dl update`

use clap::Args;
use deltalakedb::rows;
use serde_json::json;

use super::{Change, Rows, assignments};
use crate::commands::commit::Done;
use crate::context::Context;
use crate::failure::Result;
use crate::output::{count_of, plural};

/// Arguments of `dl update`.
#[derive(Debug, Args)]
#[command(after_help = "\
Files with rows that change are written anew. Conditions and values are SQL over the table's columns
as they were before; names are written as they are.

Examples:
  dl update sales.orders --set \"status = 'void', amount = 0\" --where \"id = 17\"
  dl update sales.orders --set 'amount = amount * 100' --all")]
pub(crate) struct Update {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    /// New values: COLUMN = EXPRESSION, several with commas between them
    #[arg(long, value_name = "ASSIGNMENTS", required = true)]
    set: Vec<String>,
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    change: Change,
}

impl Update {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let mut values = Vec::new();
        for text in &self.set {
            values.extend(assignments("--set", text)?);
        }
        self.change
            .run(context, &self.table, async |_, name, table| {
                let condition = self.rows.condition.as_deref();
                let (values, rows) = (("--set", values.as_slice()), ("--where", condition));
                let metrics = rows::update(name, table, values, rows).await?;
                let text = format!("Updated {}", plural(count_of(metrics.num_updated_rows), "row"));
                Ok(Some(Done::files(
                    "updated",
                    json!(metrics),
                    &text,
                    metrics.num_removed_files,
                    metrics.num_added_files,
                )))
            })
            .await
    }
}
