//! `dl files`

use clap::Args;
use deltalakedb::filter::parse_filter;
use deltalakedb::view::{FileView, partition};
use futures::TryStreamExt;

use super::target::AtArguments;
use crate::context::Context;
use crate::failure::Result;
use crate::output::{count, size};

/// Arguments of `dl files`.
#[derive(Debug, Args)]
#[command(after_help = "\
--where takes conditions on partition columns (exact) and on columns with statistics: a file is
listed unless its values or its minimum, maximum and null count rule out every row.

Examples:
  dl files sales.orders
  dl files sales.orders --version 12
  dl files sales.orders --at '2026-01-31 12:00:00'
  dl files sales.orders --where \"day = '2026-01-31' AND amount > 100\"
  dl files sales.orders --format json | jq 'map(.size_bytes) | add'")]
pub(crate) struct Files {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    #[command(flatten)]
    at: AtArguments,
    /// Only files that may hold rows for which this SQL condition is true
    #[arg(long = "where", value_name = "CONDITION", allow_hyphen_values = true)]
    condition: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Files {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        self.at.at()?;
        let predicate = self.condition.as_deref().map(parse_filter).transpose()?;
        let (db, table) = context.table(&self.table).await?;
        let snapshot = self.at.snapshot(&db, &table).await?;
        let mut files = match &predicate {
            Some(predicate) => db.files_matching(&snapshot, predicate)?,
            None => db.files(snapshot.table.id, snapshot.version),
        };
        let mut list =
            context.out.list(&["path", "size", "records", "partition", "added in"], &[1, 2, 4]);
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut bytes = 0_u64;
        while list.len() < limit {
            let Some(file) = files.try_next().await? else { break };
            let size_bytes = u64::try_from(file.add.size).unwrap_or(0);
            bytes = bytes.saturating_add(size_bytes);
            let view = FileView::from(&file);
            list.push(&view, || {
                vec![
                    file.add.path.clone(),
                    size(size_bytes),
                    view.num_records.map_or_else(|| "-".to_owned(), count),
                    partition(&file.add.partition_values),
                    file.cursor.added_version.to_string(),
                ]
            })?;
        }
        let listed = u64::try_from(list.len()).unwrap_or(u64::MAX);
        list.end()?;
        context.out.hint(format!(
            "{} of {} files, {}, at version {}",
            count(listed),
            count(snapshot.num_files),
            size(bytes),
            snapshot.version
        ));
        Ok(())
    }
}
