//! `dl delete`

use clap::Args;
use deltalakedb::rows;
use serde_json::json;

use super::{Change, Rows};
use crate::commands::commit::Done;
use crate::context::Context;
use crate::failure::Result;
use crate::output::plural;

/// Arguments of `dl delete`.
#[derive(Debug, Args)]
#[command(after_help = "\
Files whose rows all go are removed, others are written anew. Old versions keep their files until
`dl vacuum`. The condition is SQL over the table's columns; names are written as they are.

Examples:
  dl delete sales.orders --where \"day < DATE '2020-01-01'\"
  dl delete sales.orders --all --token wipe-2026-02")]
pub(crate) struct Delete {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    change: Change,
}

impl Delete {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        self.change
            .run(context, &self.table, async |_, name, table| {
                let condition = self.rows.condition.as_deref();
                let metrics = rows::delete(name, table, "--where", condition).await?;
                let rows = metrics.num_deleted_rows.and_then(|rows| u64::try_from(rows).ok());
                let text = rows.map_or_else(
                    || "Deleted".to_owned(),
                    |rows| format!("Deleted {}", plural(rows, "row")),
                );
                Ok(Some(Done::files(
                    "deleted",
                    json!(metrics),
                    &text,
                    metrics.num_removed_files,
                    metrics.num_added_files,
                )))
            })
            .await
    }
}
