//! `dl drop` and `dl undrop`

use clap::Args;
use deltalakedb::view::TableView;

use crate::context::Context;
use crate::failure::Result;

/// Arguments of `dl drop`.
#[derive(Debug, Args)]
#[command(after_help = "\
No file is deleted: neither data nor _delta_log/. The name is free again at once.

Examples:
  dl drop sales.orders
  dl undrop sales.orders          changes your mind")]
pub(crate) struct Drop {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
}

impl Drop {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let (db, table) = context.table(&self.table).await?;
        let dropped = db.drop_table(&table).await?;
        if context.out.is_json() {
            return context.out.document(&TableView::from(&dropped));
        }
        context.out.say(format!(
            "Dropped '{}' (id {}). Its files are kept; `dl undrop {}` brings it back.",
            dropped.name, dropped.id, dropped.id
        ))
    }
}

/// Arguments of `dl undrop`.
#[derive(Debug, Args)]
#[command(after_help = "\
By name it is the one of that name that was dropped last; `dl list --dropped` shows all with ids.

Examples:
  dl undrop sales.orders
  dl undrop 7f2c1f64-5717-4562-b3fc-2c963f66afa6 --as sales.orders_old")]
pub(crate) struct Undrop {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    /// New name, if the old one is taken
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
}

impl Undrop {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let name = self.name.as_deref().map(str::parse).transpose()?;
        let (db, table) = context.table(&self.table).await?;
        let record = db.undrop_table(&table, name).await?;
        if context.out.is_json() {
            return context.out.document(&TableView::from(&record));
        }
        context.out.say(format!(
            "'{}' is back at version {}.",
            record.name,
            record.head.map_or_else(|| "-".to_owned(), |v| v.to_string())
        ))
    }
}
