//! `dl vacuum`

use clap::Args;
use deltalakedb::core::ids::Version;
use deltalakedb::mirror::vacuum::{VacuumOptions, vacuum};
use deltalakedb::view;

use crate::context::Context;
use crate::failure::Result;
use crate::output::{count_of, plural, size};
use crate::time::show_duration;

/// Files shown before "and so on".
const SHOWN: usize = 20;

/// Arguments of `dl vacuum`.
#[derive(Debug, Args)]
#[command(after_help = "\
Data files go that no version needs: neither the head, nor what is published so far, nor a version
that a file was removed after within the retention; files of commits on their way are younger than
that. Older versions can still be listed, but no longer read. Without --delete nothing is deleted.

The retention is the table's delta.deletedFileRetentionDuration, a week if it has none. Anything
whose name begins with `_` or `.` is left alone, but for _change_data; so are folders of other
tables below this one's (that have a _delta_log, or are tables of this catalog), files that other
tables of this catalog name (shallow clones), and what is reached through symbolic links. Files
are told by what their paths mean, however they are spelt; one that cannot be placed ends the
command.

Do not append files that have been lying there for longer than the retention while files are
deleted: a file that is committed in just that moment may go.

Examples:
  dl vacuum sales.orders
  dl vacuum sales.orders --delete
  dl vacuum sales.orders --retain-hours 24 --accept-short-retention --delete")]
pub(crate) struct Vacuum {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
    /// Delete the files, not only show them
    #[arg(long)]
    delete: bool,
    /// Keep what was removed, or written without being committed, for so many hours
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=876_000))]
    retain_hours: Option<u32>,
    /// Take a retention shorter than the table's: readers of older versions and commits on their
    /// way may lose files
    #[arg(long, requires = "retain_hours")]
    accept_short_retention: bool,
    /// Do not ask whether other tables of the catalog need files below this one's root: they are read
    /// for that, file by file
    #[arg(long)]
    ignore_other_tables: bool,
    /// Keep what this version needs, however old it is: for long readers, for audits; can be repeated
    #[arg(long, value_name = "N")]
    keep_version: Vec<Version>,
}

impl Vacuum {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let options = VacuumOptions {
            retention_ms: self.retain_hours.map(|hours| i64::from(hours) * 3_600_000),
            accept_short: self.accept_short_retention,
            keep_versions: self.keep_version.clone(),
            ignore_other_tables: self.ignore_other_tables,
            delete: self.delete,
        };
        let (db, table) = context.table(&self.table).await?;
        context.to_go_on("what was deleted so far was not needed");
        let report = vacuum(&db, &table, options, &context.progress).await?;
        if context.out.is_json() {
            return context.out.document(&view::plain(&report));
        }
        for file in report.files.iter().take(SHOWN) {
            context.out.say(format!("  {file}"))?;
        }
        let all = usize::try_from(report.unneeded).unwrap_or(usize::MAX);
        if all > SHOWN.min(report.files.len()) {
            context.out.say(format!("  and {} more", all - SHOWN.min(report.files.len())))?;
        }
        context.out.say(format!(
            "{} of {} below '{}' {} not needed, {} in all, with a retention of {}. {}",
            report.unneeded,
            plural(report.seen, "file"),
            report.name,
            if report.unneeded == 1 { "is" } else { "are" },
            size(report.unneeded_bytes),
            show_duration(report.retention_ms),
            if self.delete {
                format!("Deleted {}.", report.deleted)
            } else {
                "Nothing was deleted.".to_owned()
            }
        ))?;
        if report.other_tables > 0 {
            let mut named: Vec<&str> =
                report.other_table_folders.iter().take(SHOWN).map(String::as_str).collect();
            if report.other_tables > count_of(named.len()) {
                named.push("…");
            }
            let folders = plural(report.other_tables, "folder");
            let whose = if report.other_tables == 1 { "another table" } else { "other tables" };
            context.out.say(format!("Left alone: {folders} of {whose}: {}.", named.join(", ")))?;
        }
        if report.linked > 0 {
            let files = plural(report.linked, "file");
            context.out.say(format!("Left alone: {files} behind symbolic links."))?;
        }
        if !self.delete && report.unneeded > 0 {
            context.out.hint(format!("`dl vacuum {} --delete` deletes them.", report.name));
        }
        Ok(())
    }
}
