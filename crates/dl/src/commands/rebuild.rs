//! `dl rebuild`

use clap::Args;
use deltalakedb::mirror::rebuild::{RebuildOptions, RebuildOutcome, rebuild};

use super::copy_catalog::uri;
use crate::context::{Context, key_values};
use crate::failure::{Result, exit};
use crate::output::plural;

/// Arguments of `dl rebuild`.
#[derive(Debug, Args)]
#[command(after_help = "\
For a catalog that was lost: every Delta table below a folder is imported from its published log,
with all the history that the log has, and this catalog publishes it from then on. Commits that were
not published yet are lost with the catalog they were in. A catalog that still works must not
publish these tables any more: two would fork their logs.

Tables get the names back that they had: each commit of a catalog carries its table's. One that
was imported, and not committed to since, is named after its folder, as {parent}.{name}. Where two
tables would have one name, none of them is imported.

A rebuild that was interrupted is repeated; tables that are in the catalog already are left alone.

Examples:
  dl rebuild sqlite:///lake/new.db --from /lake
  dl rebuild postgresql://dl@db/lake --from s3://bucket/lake --names '{parent}.{name}'")]
pub(crate) struct Rebuild {
    /// URL of the catalog; it is made if it is not there
    catalog: String,
    /// Folder or URL with tables below it, at any depth
    #[arg(long, value_name = "PATH|URL")]
    from: String,
    /// Names of all tables, in place of those that they had: {name} is the name of a table's folder,
    /// {parent} that of the one above
    #[arg(long, value_name = "PATTERN")]
    names: Option<String>,
    /// Do not compare the results with what the Delta kernel reads
    #[arg(long)]
    skip_validation: bool,
    /// Option of the object store; env:VARIABLE or file:/path in place of a value is looked up when
    /// the table is opened, and is the only form for secrets
    #[arg(long = "storage-option", value_name = "KEY=VALUE")]
    storage_options: Vec<String>,
}

impl Rebuild {
    pub(crate) async fn run(&self, context: &Context) -> Result<u8> {
        let options = RebuildOptions {
            from: self.from.clone(),
            storage_options: key_values("--storage-option", &self.storage_options)?,
            names: self.names.clone(),
            skip_validation: self.skip_validation,
        };
        let uri = uri(context, "CATALOG", &self.catalog)?;
        context.to_go_on("the same command goes on from there");
        let db = context.create(&uri).await?;
        let tables = rebuild(&db, &options, &context.progress).await?;
        let failed = tables
            .iter()
            .filter(|table| matches!(table.outcome, RebuildOutcome::Failed { .. }))
            .count();
        if context.out.is_json() {
            context.out.document(&tables)?;
            return Ok(if failed == 0 { exit::OK } else { exit::ERROR });
        }
        for table in &tables {
            match &table.outcome {
                RebuildOutcome::Imported(report) => context.out.say(format!(
                    "{}: version {}, {} ({})",
                    report.name,
                    report.head,
                    plural(report.num_files, "file"),
                    table.location
                ))?,
                RebuildOutcome::There { name } => {
                    context.out.say(format!("{name}: there already ({})", table.location))?;
                }
                RebuildOutcome::Failed { error } => {
                    context.out.warn(format!("{}: {error}", table.location));
                }
            }
        }
        context.out.say(format!(
            "{} of {} are in {uri}.",
            tables.len() - failed,
            plural(u64::try_from(tables.len()).unwrap_or(u64::MAX), "table")
        ))?;
        Ok(if failed == 0 { exit::OK } else { exit::ERROR })
    }
}
