//! `dl history`

use clap::Args;
use deltalakedb::core::backend::CommitFilter;
use deltalakedb::core::model::CommitRecord;
use deltalakedb::view::CommitView;
use futures::TryStreamExt;

use crate::context::Context;
use crate::failure::Result;
use crate::output::{count, size};
use crate::time;

/// Arguments of `dl history`.
#[derive(Debug, Args)]
#[command(after_help = "\
Newest first. Times are RFC 3339, YYYY-MM-DD, 'YYYY-MM-DD HH:MM:SS' (both UTC) or Unix ms.

Examples:
  dl history sales.orders --limit 10
  dl history sales.orders --from 2026-01-01 --to 2026-02-01
  dl history sales.orders --format json | jq '.[] | select(.operation == \"DELETE\")'")]
pub(crate) struct History {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    /// Commits at or after this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Commits before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl History {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let filter = CommitFilter {
            from_time: self.from.as_deref().map(time::parse).transpose()?,
            to_time: self.to.as_deref().map(time::parse).transpose()?,
            ..CommitFilter::default()
        };
        let (db, table) = context.table(&self.table).await?;
        let record = db.catalog().table(&table).await?;
        let mut commits = db.history(record.id, filter);
        let mut list = context.out.list(
            &["version", "time (UTC)", "operation", "who", "files", "bytes", "changes"],
            &[0, 4, 5],
        );
        let limit = self.limit.unwrap_or(usize::MAX);
        while list.len() < limit {
            let Some(commit) = commits.try_next().await? else { break };
            let view = CommitView::from(&commit);
            list.push(&view, || {
                vec![
                    commit.version.to_string(),
                    time::show(commit.timestamp),
                    view.operation.clone().unwrap_or_else(|| "-".to_owned()),
                    view.who.clone().unwrap_or_else(|| "-".to_owned()),
                    plus_minus(commit.num_added, commit.num_removed, count),
                    plus_minus(commit.bytes_added, commit.bytes_removed, size),
                    changes(&commit),
                ]
            })?;
        }
        list.end()
    }
}

/// `+3 -1`
fn plus_minus(added: u64, removed: u64, show: fn(u64) -> String) -> String {
    match (added, removed) {
        (0, 0) => "-".to_owned(),
        (added, 0) => format!("+{}", show(added)),
        (0, removed) => format!("-{}", show(removed)),
        (added, removed) => format!("+{} -{}", show(added), show(removed)),
    }
}

fn changes(commit: &CommitRecord) -> String {
    match (commit.changes_protocol, commit.changes_metadata) {
        (true, true) => "protocol, metadata",
        (true, false) => "protocol",
        (false, true) => "metadata",
        (false, false) => "",
    }
    .to_owned()
}
