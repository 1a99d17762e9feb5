//! `dl cutover` and `dl release`

use clap::Args;
use deltalakedb::Db;
use deltalakedb::core::features::check_commit;
use deltalakedb::core::fence;
use deltalakedb::core::ids::{At, TableRef};
use deltalakedb::core::model::{MirrorMode, TableState};
use deltalakedb::mirror::diff::{DiffOptions, Verdict, diff};
use deltalakedb::mirror::ownership::{self, CutoverReport, refuse_foreign};
use deltalakedb::view;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::plural;
use crate::publishing;

/// Arguments of `dl cutover`.
#[derive(Debug, Args)]
#[command(after_help = "\
Commits a protocol that also lists the writer feature 'deltalakedb', and turns in-commit timestamps
on unless the table refuses them. Every Delta reader reads on; other writers fail with the name of
that feature instead of forking the log. Tables that `dl create` makes have it from the start.

The published log is compared with the catalog first, as by `dl diff`. Where they contradict each
other nothing is changed, and the differences are shown: `dl repair` decides about commits of other
programs. A log that only lags behind is no reason to refuse.

Writers that were in the middle of a commit through the catalog get a conflict and try again.
Some engines still vacuum or checkpoint such a table, as these are no commits: vacuum with the
catalog's retention only.

Examples:
  dl import /lake/orders sales.orders
  dl cutover sales.orders
  dl release sales.orders           the other way")]
pub(crate) struct Cutover {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    /// Leave publishing to `dl mirror run`
    #[arg(long)]
    no_publish: bool,
    /// Do not compare the published log with the catalog first
    #[arg(long)]
    skip_diff: bool,
}

#[derive(Debug, Serialize)]
struct CutoverView {
    #[serde(flatten)]
    report: CutoverReport,
    warnings: Vec<String>,
}

impl Cutover {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let (db, table) = context.table(&self.table).await?;
        if !self.skip_diff {
            agrees(context, &db, &table).await?;
        }
        let report = ownership::cutover(&db, &table).await?;
        let warnings = if self.no_publish {
            Vec::new()
        } else {
            publishing::after_commit(context, &db, &[report.table_id]).await
        };
        if context.out.is_json() {
            return context.out.document(&CutoverView { report, warnings });
        }
        context.out.say(match report.version {
            Some(version) if self.no_publish || !warnings.is_empty() => format!(
                "The fence of '{}' is up at version {version}. Other writers are kept out once that \
                 is published.",
                report.name
            ),
            Some(version) => format!(
                "The fence of '{}' is up from version {version} on: the catalog is its only writer.",
                report.name
            ),
            None => format!("The fence of '{}' is up already.", report.name),
        })
    }
}

/// Whether a table's published log says what the catalog says.
///
/// # Errors
/// The differences. What keeps a table from being cut over at all is left to the cut-over to say.
async fn agrees(context: &Context, db: &Db, table: &TableRef) -> Result<()> {
    let db = db.clone().on_primary();
    let record = db.catalog().table(table).await?;
    if record.state != TableState::Active || record.mirror != MirrorMode::Active {
        return Ok(());
    }
    let by_id = TableRef::Id(record.id);
    let head = db.snapshot(&by_id, At::Head).await?;
    refuse_foreign(&db, &record).await?;
    if fence::is_up(&head.protocol) || check_commit(&head.protocol, &head.metadata).is_err() {
        return Ok(());
    }
    let name = &record.name;
    let report = diff(&db, &by_id, DiffOptions::default(), &context.progress).await;
    let report = report.map_err(|error| {
        Failure::Mismatch(format!(
            "the published log of '{name}' cannot be compared with the catalog, so that '{name}' is \
             not cut over: {error}. --skip-diff cuts over without comparing"
        ))
    })?;
    if report.verdict != Verdict::Drift {
        return Ok(());
    }
    Err(Failure::Mismatch(format!(
        "the published log of '{name}' is not what the catalog says, so that '{name}' is not cut over:\n\
         {}\n`dl diff {name}` shows more. `dl repair {name}` decides about commits of other programs, \
         `dl mirror reconcile {name}` puts missing files back. Where neither helps, as with a checksum \
         that another program wrote wrongly, --skip-diff cuts over all the same",
        super::diff::describe(&report)
    )))
}

/// Arguments of `dl release`.
#[derive(Debug, Args)]
#[command(after_help = "\
Commits a protocol without the fence, and without in-commit timestamps, which some writers do not
know (--keep-timestamps: with them). Then the catalog lets go of the table: it is dropped there,
with its history kept, and all of its commits are in _delta_log/. From then on any Delta writer may
commit to its files.

A release that was interrupted is finished by the same command.

Examples:
  dl release sales.orders
  dl import /lake/orders sales.orders    takes it in again")]
pub(crate) struct Release {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    /// Keep in-commit timestamps
    #[arg(long)]
    keep_timestamps: bool,
}

impl Release {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let (db, table) = context.table(&self.table).await?;
        context.to_go_on("the same command goes on from there");
        let report =
            ownership::release(&db, &table, self.keep_timestamps, &context.progress).await?;
        if context.out.is_json() {
            return context.out.document(&view::plain(&report));
        }
        context.out.say(format!(
            "Released '{}' at version {} ({} published now): its log at {} is complete, and other \
             writers may commit to it. Its history is kept here under id {}.",
            report.name,
            report.version,
            plural(report.published, "version"),
            report.location,
            report.table_id
        ))
    }
}
