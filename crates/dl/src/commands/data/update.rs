//! `dl update`

use clap::Args;
use serde_json::json;

use super::{Change, Rows, asked, assignments, column_type, expressions, failure, is_column};
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
                // `deltalake` passes over columns that are not there.
                let schema =
                    table.snapshot().map_err(|e| failure(name, e))?.snapshot().arrow_schema();
                let expressions = expressions(name, &table)?;
                let mut given = Vec::with_capacity(values.len());
                for (column, value) in &values {
                    is_column(name, &schema, column)?;
                    let data_type = column_type(&schema, column);
                    let value = expressions.value(value, column, data_type);
                    given.push((column, value.map_err(|e| asked(name, "--set", e))?));
                }
                let condition = self.rows.condition(name, &table)?;
                let mut update = table.update();
                for (column, value) in given {
                    update = update.with_update(column.as_str(), value);
                }
                if let Some(condition) = condition {
                    update = update.with_predicate(condition);
                }
                let (_, metrics) = update.await.map_err(|e| failure(name, e))?;
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
