//! `dl alter`

use clap::Args;
use deltalakedb::AlterTable;

use super::commit::finish;
use crate::context::{Context, key_values};
use crate::failure::{Failure, Result};

/// Arguments of `dl alter`.
#[derive(Debug, Args)]
#[command(after_help = "\
All changes of one command are one commit, in this order: properties, columns that are added,
renamed, dropped, nullable, comments, constraints, the description. A change of schema or properties
that others commit at the same time is a conflict; files that they add are none.

COLUMN is a path: addr.zip; elements of arrays are 'element', keys and values of maps 'key' and
'value'; other names than words stand in backticks. A new column may be null, and is so in all rows
that there are.

Columns are renamed and dropped where the table maps columns: --set delta.columnMapping.mode=name
turns that on, in a commit of its own before. Files then have to be written by an engine that knows
it. What mentions a column keeps it: constraints, generated columns, clustering, lists of columns.

A property brings the feature that it needs into the protocol; one that is not known here, or needs
what this program cannot do, is refused. A constraint must be true for all rows.

Examples:
  dl alter sales.orders --description 'one row an order' --comment 'id=as the shop counts'
  dl alter sales.orders --add-column \"note string comment 'free text'\"
  dl alter sales.orders --set delta.deletedFileRetentionDuration='interval 30 days'
  dl alter sales.orders --set delta.columnMapping.mode=name
  dl alter sales.orders --rename-column note=remark --drop-column fax
  dl alter sales.orders --add-constraint positive='amount > 0'")]
pub(crate) struct Alter {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    #[command(flatten)]
    what: What,
    /// Leave publishing to `dl mirror run`
    #[arg(long)]
    no_publish: bool,
}

/// What to change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct What {
    /// What the table holds; an empty text takes the description away
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Set a table property
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Take a table property away
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Say what a column holds; an empty text takes the comment away
    #[arg(long, value_name = "COLUMN=TEXT")]
    comment: Vec<String>,
    /// Add a column, as in SQL: 'name type', with a comment 'text' where wanted
    #[arg(long, value_name = "COLUMN TYPE")]
    add_column: Vec<String>,
    /// Rename a column
    #[arg(long, value_name = "COLUMN=NAME")]
    rename_column: Vec<String>,
    /// Drop a column; data files keep what they hold
    #[arg(long, value_name = "COLUMN")]
    drop_column: Vec<String>,
    /// Let a column be null
    #[arg(long, value_name = "COLUMN")]
    set_nullable: Vec<String>,
    /// Add a CHECK constraint
    #[arg(long, value_name = "NAME=EXPRESSION")]
    add_constraint: Vec<String>,
    /// Drop a CHECK constraint
    #[arg(long, value_name = "NAME")]
    drop_constraint: Vec<String>,
}

impl Alter {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let (db, table) = context.table(&self.table).await?;
        let opened = db.clone().on_primary().table(&table).await?;
        let name = opened.name().clone();
        match self.what.of(opened.alter())?.commit().await? {
            Some(report) => finish(context, &db, Some(report), None, !self.no_publish).await,
            None if context.out.is_json() => context
                .out
                .document(&serde_json::json!({ "table": name.to_string(), "changed": false })),
            None => context.out.say(format!("'{name}' is so already: nothing was committed.")),
        }
    }
}

impl What {
    fn of(&self, mut alter: AlterTable) -> Result<AlterTable> {
        for (key, value) in key_values("--set", &self.set)? {
            alter = alter.set_property(key, value);
        }
        for key in &self.unset {
            alter = alter.unset_property(key);
        }
        for text in &self.add_column {
            alter = alter.add_column(text);
        }
        for pair in &self.rename_column {
            let (column, name) = pair_of("--rename-column", "COLUMN=NAME", pair)?;
            alter = alter.rename_column(column, name);
        }
        for column in &self.drop_column {
            alter = alter.drop_column(column);
        }
        for column in &self.set_nullable {
            alter = alter.set_nullable(column);
        }
        for pair in &self.comment {
            let (column, text) = pair_of("--comment", "COLUMN=TEXT", pair)?;
            alter = alter.comment(column, text);
        }
        for pair in &self.add_constraint {
            let (name, expression) = pair_of("--add-constraint", "NAME=EXPRESSION", pair)?;
            alter = alter.add_constraint(name, expression);
        }
        for name in &self.drop_constraint {
            alter = alter.drop_constraint(name);
        }
        if let Some(text) = &self.description {
            alter = alter.description(text);
        }
        Ok(alter)
    }
}

fn pair_of<'a>(option: &str, form: &str, pair: &'a str) -> Result<(&'a str, &'a str)> {
    pair.split_once('=')
        .map(|(name, text)| (name.trim(), text.trim()))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| Failure::invalid(format!("{option} takes {form}, not '{pair}'")))
}
