//! `dl restore`

use clap::Args;
use deltalakedb::backup::{RestoreOptions, RestoreReport, restore};
use deltalakedb::copy::{Progressed, TableCopy};
use deltalakedb::core::ids::TableRef;
use deltalakedb::view;
use serde_json::json;

use super::backup::StoreOptions;
use super::copied::{self, Done, How};
use crate::context::Context;
use crate::failure::{Failure, Result, exit};
use crate::output::{count_of, plural};
use crate::time;

/// Arguments of `dl restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
Into a catalog in any kind of database. Tables come back with their ids, names, every version,
tokens, and what is published. Nobody finds a table by name before all of them were compared with
the backup and agree. After an interruption, the same command goes on from there; once all is done,
it only compares. No table that is there is ever changed. Exit code 1: something differs; what, is
listed.

With --at: commits up to that time, by their timestamps, and a transaction over several tables
whole or not at all.

A table whose published log is ahead of what was restored is not published, nor is one whose log
cannot be looked at: `dl repair TABLE` shows both histories, and --adopt there takes the later
commits in. The old catalog must not be used any more.

Examples:
  dl restore /backups/lake --catalog sqlite:///lake/new.db --init
  dl restore s3://bucket/lake --catalog postgresql://dl@db/lake --init --at '2026-01-31 12:00:00'
  dl restore /backups/lake --table sales.orders --into-existing")]
pub(crate) struct Restore {
    /// Folder or URL of the backup
    target: String,
    /// Create or upgrade the tables of the catalog first, as `dl init` does
    #[arg(long)]
    init: bool,
    /// The set to restore; without it the newest one, or the one that --at needs
    #[arg(long, value_name = "SET")]
    set: Option<String>,
    /// As of a time: RFC 3339, YYYY-MM-DD, 'YYYY-MM-DD HH:MM:SS' (both UTC) or Unix milliseconds
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Only this table; may be given several times. A dropped one is named by its id
    #[arg(long = "table", value_name = "NAME")]
    tables: Vec<String>,
    /// Restore beside other tables: only tables that are absent, and none that is there is changed
    #[arg(long)]
    into_existing: bool,
    /// Publish as when it was backed up, without a look at the logs
    #[arg(long)]
    keep_publishing: bool,
    /// How much is compared with the backup: the state at all versions of each table, at five of them
    /// (first and last included) or nothing. But for `none`, every commit is
    #[arg(long, value_enum, value_name = "HOW", default_value = "sample")]
    validate: How,
    #[command(flatten)]
    store: StoreOptions,
}

impl Restore {
    pub(crate) async fn run(&self, context: &Context) -> Result<u8> {
        let tables = self.tables.iter().map(|table| table.parse::<TableRef>());
        let options = RestoreOptions {
            set: self.set.as_deref().map(str::parse).transpose()?,
            at: self.at.as_deref().map(time::parse).transpose()?,
            tables: tables
                .collect::<std::result::Result<_, _>>()
                .map_err(|e| Failure::invalid(format!("--table: {e}")))?,
            into_existing: self.into_existing,
            keep_publishing: self.keep_publishing,
            validate: self.validate.validate(),
            ..RestoreOptions::default()
        };
        let place = self.store.open(&self.target)?;
        let uri = context.catalog_uri()?;
        context.to_go_on("the same command again goes on from there");
        let db = if self.init { context.create(&uri).await? } else { context.open(&uri).await? };
        let report = restore(&place, &db, &options, &context.progress).await?;
        if context.out.is_json() {
            let mut value = view::plain(&report);
            value["catalog"] = json!(uri.to_string());
            value["agrees"] = json!(report.agrees());
            context.out.document(&value)?;
        } else {
            print(context, &report, &uri.to_string())?;
        }
        Ok(if report.agrees() { exit::OK } else { exit::ERROR })
    }
}

fn print(context: &Context, report: &RestoreReport, uri: &str) -> Result<()> {
    copied::list(context, &report.tables, Done::Restored)?;
    for left in &report.left_out {
        context.out.warn(format!("'{}' was left out: {}", left.name, left.why));
    }
    for note in &report.notes {
        context.out.warn(format!("'{}': {}", note.name, note.why));
    }
    for paused in &report.paused {
        context.out.warn(format!(
            "'{}' is not published: {}. `dl repair {}` shows both histories",
            paused.name, paused.why, paused.name
        ));
    }
    let tables = plural(count_of(report.tables.len()), "table");
    let differ = report.tables.iter().filter(|table| table.num_differences > 0).count();
    let present = |table: &TableCopy| table.progress == Progressed::Present;
    let up_to = time::show(report.up_to);
    context.out.say(if differ > 0 {
        format!(
            "{differ} of {tables} differ from the backup. Nothing that differs became active now."
        )
    } else if report.tables.iter().all(present) {
        format!("{uri} has all of set {} already: {tables}.", report.set)
    } else {
        let commits = plural(report.commits, "commit");
        format!("Restored {tables} ({commits}) into {uri}, up to {up_to} (UTC).")
    })
}
