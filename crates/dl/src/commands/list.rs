//! `dl list`

use clap::Args;
use deltalakedb::core::backend::TableFilter;
use deltalakedb::core::model::{MirrorMode, TableState};
use deltalakedb::view::TableView;
use futures::TryStreamExt;

use crate::context::Context;
use crate::failure::Result;
use crate::output::plural;
use crate::time;

/// Arguments of `dl list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dl list
  dl list --namespace sales
  dl list --dropped                    what `dl undrop` can bring back
  dl list --format json | jq -r '.[].table'")]
pub(crate) struct List {
    /// Only tables of this namespace
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Dropped tables instead of live ones
    #[arg(long)]
    dropped: bool,
    /// Tables that an unfinished import holds, instead of live ones
    #[arg(long, conflicts_with = "dropped")]
    importing: bool,
}

impl List {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let db = context.db().await?;
        let state = if self.dropped {
            TableState::Dropped
        } else if self.importing {
            TableState::Importing
        } else {
            TableState::Active
        };
        let filter = TableFilter { namespace: self.namespace.clone(), state: Some(state) };
        let mut tables = db.tables(filter);
        let mut list = if self.dropped {
            context.out.list(&["table", "version", "dropped (UTC)", "id", "location"], &[1])
        } else {
            context.out.list(&["table", "version", "changed (UTC)", "published", "location"], &[1])
        };
        while let Some(table) = tables.try_next().await? {
            let version = || table.head.map_or_else(|| "-".to_owned(), |v| v.to_string());
            let when = |at: Option<_>| at.map_or_else(|| "-".to_owned(), time::show);
            list.push(&TableView::from(&table), || {
                if self.dropped {
                    return vec![
                        table.name.to_string(),
                        version(),
                        when(table.dropped_at),
                        table.id.to_string(),
                        table.location.clone(),
                    ];
                }
                let published = match (table.mirror, table.published_version, table.head) {
                    (MirrorMode::Off, ..) => "off".to_owned(),
                    (MirrorMode::Diverged, ..) => "DIVERGED".to_owned(),
                    (_, published, head) if published == head => "yes".to_owned(),
                    (_, Some(published), _) => format!("up to {published}"),
                    (_, None, _) => "no".to_owned(),
                };
                vec![
                    table.name.to_string(),
                    version(),
                    when(table.head_timestamp),
                    published,
                    table.location.clone(),
                ]
            })?;
        }
        let found = list.len();
        list.end()?;
        if found == 0 {
            context
                .out
                .hint("No tables. `dl import` takes over existing ones, `dl create` makes one.");
        } else {
            context.out.hint(plural(u64::try_from(found).unwrap_or(u64::MAX), "table"));
        }
        Ok(())
    }
}
