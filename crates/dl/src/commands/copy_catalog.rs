//! `dl copy-catalog`

use clap::Args;
use deltalakedb::copy::{CopyOptions, CopyReport, Progressed, TableCopy, copy_catalog};
use deltalakedb::view;
use deltalakedb::{CatalogUri, Db};
use serde_json::json;

use super::copied::{self, Done, How};
use crate::context::Context;
use crate::failure::{Failure, Result, exit};
use crate::output::plural;

/// Stands before the name of an environment variable that holds a URL.
const FROM_ENVIRONMENT: &str = "env:";

/// Arguments of `dl copy-catalog`.
#[derive(Debug, Args)]
#[command(after_help = "\
Everything that a reader or writer can see is the same in TO: tables with their ids, every version,
history, tokens, dropped tables, what is published. FROM is only read. TO must be empty, or hold an
unfinished copy of FROM: after an interruption, the same command goes on from there.

Stop the writers of FROM and its `dl mirror run` first, and use TO alone afterwards. To copy most of
it while FROM is in use, run it with --no-finish; stop the writers, and run it again without.

No table can be found in TO by name before FROM and TO were compared and agree. Once they do, the
same command only compares. Exit code 1: something differs; what, is listed.

Not copied: leases of mirror workers, attempts and errors of versions that are not published yet
(they are due at once in TO), and when and with which digest others were published.

Examples:
  dl copy-catalog sqlite:///lake/catalog.db postgresql://dl@db/lake --init
  dl copy-catalog sqlite:///lake/catalog.db env:NEW_CATALOG --init --validate all
  dl copy-catalog sqlite://old.db sqlite://new.db --init --no-finish")]
pub(crate) struct CopyCatalog {
    /// URL of the catalog to copy; env:NAME takes it from the environment variable NAME
    from: String,
    /// URL of the catalog to copy it to; env:NAME likewise
    to: String,
    /// Create or upgrade the tables in TO first, as `dl init` does
    #[arg(long)]
    init: bool,
    /// How much of the two is compared: the state at all versions of each table, at five of them
    /// (first and last included) or at none. History, tokens and the bytes of every commit are
    /// always compared, but for `none`
    #[arg(long, value_enum, value_name = "HOW", default_value = "sample")]
    validate: How,
    /// Leave out tables that an unfinished import holds in FROM
    #[arg(long)]
    skip_importing: bool,
    /// Copy what is there, and leave TO unfinished: FROM may be in use
    #[arg(long)]
    no_finish: bool,
}

impl CopyCatalog {
    pub(crate) async fn run(&self, context: &Context) -> Result<u8> {
        let from = uri(context, "FROM", &self.from)?;
        let to = uri(context, "TO", &self.to)?;
        if from.same_catalog(&to) {
            return Err(Failure::invalid(format!("FROM and TO are the same catalog: {from}")));
        }
        context.to_go_on("the same command again goes on from there");
        let source = Db::open(&from).await?;
        let target = if self.init { Db::create(&to).await? } else { Db::open(&to).await? };
        let options = CopyOptions {
            validate: self.validate.validate(),
            skip_importing: self.skip_importing,
            finish: !self.no_finish,
            ..CopyOptions::default()
        };
        let report = copy_catalog(&source, &target, &options, &context.progress).await?;
        if context.out.is_json() {
            let mut value = view::plain(&report);
            value["from"] = json!(from.to_string());
            value["to"] = json!(to.to_string());
            value["agrees"] = json!(report.agrees());
            let skipped = report.skipped.iter().map(ToString::to_string);
            value["skipped"] = json!(skipped.collect::<Vec<_>>());
            context.out.document(&value)?;
        } else {
            let compared = !matches!(self.validate, How::None);
            print(context, &report, (&from, &to), compared)?;
        }
        Ok(if report.agrees() { exit::OK } else { exit::ERROR })
    }
}

fn print(
    context: &Context,
    report: &CopyReport,
    (from, to): (&CatalogUri, &CatalogUri),
    compared: bool,
) -> Result<()> {
    copied::list(context, &report.tables, Done::Copied)?;
    for name in &report.skipped {
        context.out.warn(format!("'{name}' was left out: its import is not finished"));
    }
    let tables = plural(u64::try_from(report.tables.len()).unwrap_or(u64::MAX), "table");
    let commits = plural(report.commits, "commit");
    let differ = report.tables.iter().filter(|table| table.num_differences > 0).count();
    context.out.say(if differ > 0 {
        format!(
            "{differ} of {tables} differ between {from} and {to}. Nothing that differs became \
             active now."
        )
    } else if !report.finished {
        format!(
            "{commits} copied from {from}; {to} is not finished: the same command without \
             --no-finish catches up and finishes it."
        )
    } else {
        let present = |table: &TableCopy| table.progress == Progressed::Present;
        let compared = if compared { "They agree." } else { "Not compared, but for their heads." };
        if report.tables.iter().all(present) {
            format!("{to} is a complete copy of {from} already: {tables}. {compared}")
        } else {
            format!("Copied {tables} ({commits}) from {from} to {to}. {compared}")
        }
    })?;
    if report.finished && !report.tables.is_empty() {
        context.out.hint(format!(
            "From now on use {to} alone: two catalogs that publish one table are foreign to \
             each other."
        ));
    }
    Ok(())
}

/// A catalog's URL from the command line.
pub(super) fn uri(context: &Context, what: &str, text: &str) -> Result<CatalogUri> {
    let Some(name) = text.strip_prefix(FROM_ENVIRONMENT) else {
        let uri = text.parse().map_err(|e| Failure::invalid(format!("{what}: {e}")))?;
        context.warn_of_password(&uri);
        return Ok(uri);
    };
    let url = std::env::var(name).map_err(|_| {
        Failure::invalid(format!("{what}: the environment variable {name} is not set"))
    })?;
    url.parse().map_err(|e| Failure::invalid(format!("{what} (environment variable {name}): {e}")))
}
