//! `dl views`

use clap::{Args, Subcommand};
use deltalakedb::{CatalogUri, views};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Result;

/// What can be done about the views.
#[derive(Debug, Subcommand)]
pub(crate) enum Views {
    /// Make the views, or make them anew
    Create(Create),
    /// Drop the views
    Drop(Drop),
    /// Print the SQL that makes the views, for an administrator
    Sql(Sql),
}

/// Arguments of `dl views create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Read-only views of the catalog for other tools: dl_v_tables, dl_v_files, dl_v_commits and
dl_v_columns ('dl_' is the URL's table_prefix). Their columns are the same on PostgreSQL, MySQL,
MariaDB and SQLite, and stay so.

Examples:
  dl views create
  dl views create --catalog postgresql://owner@host/lake")]
pub(crate) struct Create {}

/// Arguments of `dl views drop`.
#[derive(Debug, Args)]
#[command(after_help = "\
An upgrade of the catalog asks for it; make the views again after it.

Examples:
  dl views drop")]
pub(crate) struct Drop {}

/// Arguments of `dl views sql`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is run, and the server is not asked.

Examples:
  dl views sql | psql -d lake
  dl views sql --drop | mysql lake")]
pub(crate) struct Sql {
    /// Print what drops them
    #[arg(long)]
    drop: bool,
}

#[derive(Debug, Serialize)]
struct Printed<'a> {
    catalog: String,
    statements: &'a [String],
}

#[derive(Debug, Serialize)]
struct Done {
    catalog: String,
    views: &'static str,
}

impl Views {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let uri = context.catalog_uri()?;
        match self {
            Views::Create(_) => {
                views::create(&uri).await?;
                done(context, &uri, "made")
            }
            Views::Drop(_) => {
                views::drop(&uri).await?;
                done(context, &uri, "dropped")
            }
            Views::Sql(sql) => sql.run(context, &uri),
        }
    }
}

fn done(context: &Context, uri: &CatalogUri, views: &'static str) -> Result<()> {
    if context.out.is_json() {
        return context.out.document(&Done { catalog: uri.to_string(), views });
    }
    context.out.say(format!("the views of {uri} are {views}"))?;
    Ok(())
}

impl Sql {
    fn run(&self, context: &Context, uri: &CatalogUri) -> Result<()> {
        let statements =
            if self.drop { views::drop_statements(uri)? } else { views::statements(uri)? };
        if context.out.is_json() {
            let catalog = uri.to_string();
            return context.out.document(&Printed { catalog, statements: &statements });
        }
        for statement in &statements {
            context.out.text(statement)?;
        }
        Ok(())
    }
}
