//! `dl check`

use std::time::Duration;

use clap::Args;
use deltalakedb::Db;
use deltalakedb::core::backend::TableFilter;
use deltalakedb::core::ids::{TableRef, Version};
use deltalakedb::core::model::TableState;
use deltalakedb::mirror::check::{CheckOptions, CheckReport, check_data};
use deltalakedb::view;
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, Result, exit};
use crate::output::{count, one_line, plural, size};

/// Arguments of `dl check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each live file must exist in the table's store and have its size; so must the file of its deletion
vector, whose checksum is compared. With --footers each file's Parquet footer must have as many rows
as the log says, and the table's columns: by name, or by physical name or field id under column
mapping. Nothing is changed.

Where nobody can tell, a file is 'not comparable', with the reason; that is no finding. Files that
others remove meanwhile are left out. `dl diff` compares the published log.

Exit codes: 0 all right, 2 something is wrong, 1 something could not be looked at.

Examples:
  dl check --data sales.orders
  dl check --data sales.orders --footers
  dl check --data --all --format json | jq '.[] | select(.findings.count > 0)'")]
pub(crate) struct Check {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    table: Option<String>,
    /// All tables of the catalog
    #[arg(long)]
    all: bool,
    /// The data files: what there is to check today, so that it may be left out
    #[arg(long)]
    data: bool,
    /// Read each file's Parquet footer, too
    #[arg(long)]
    footers: bool,
    /// The files of this version; the latest if not given
    #[arg(long, value_name = "N", conflicts_with = "all")]
    version: Option<Version>,
    /// Requests to the store at a time
    #[arg(long, value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(1..=1_024))]
    concurrency: u16,
    /// Longest that one request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    request_timeout: u32,
    /// What is wrong is listed up to this number; all is counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    show_files: usize,
}

/// A table that could not be looked at.
#[derive(Debug, Serialize)]
struct Failed {
    table: String,
    error: String,
}

impl Check {
    pub(crate) async fn run(&self, context: &Context) -> Result<u8> {
        let options = CheckOptions {
            version: self.version,
            footers: self.footers,
            concurrency: usize::from(self.concurrency),
            deadline: Duration::from_secs(u64::from(self.request_timeout)),
            shown: self.show_files,
        };
        let (db, tables) = self.tables(context).await?;
        context.to_go_on("nothing was changed");
        let mut values: Vec<Value> = Vec::new();
        let mut found = false;
        let mut failed = false;
        let number = tables.len();
        for (table, name) in tables {
            match check_data(&db, &table, &options, &context.progress).await {
                Ok(report) => {
                    found |= report.findings.count > 0;
                    failed |= report.failures.count > 0;
                    if context.out.is_json() {
                        values.push(view::plain(&report));
                    } else {
                        context.out.say(describe(&report))?;
                    }
                }
                Err(error) if self.all => {
                    failed = true;
                    context.out.error(&Failure::Mismatch(format!("table {name}: {error}")));
                    values.push(json!(Failed { table: name, error: error.to_string() }));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if context.out.is_json() {
            match values.pop() {
                Some(one) if !self.all => context.out.document(&one)?,
                last => {
                    values.extend(last);
                    context.out.document(&values)?;
                }
            }
        } else if number == 0 {
            context.out.hint("The catalog has no table.");
        }
        Ok(if failed {
            exit::ERROR
        } else if found {
            exit::FINDINGS
        } else {
            exit::OK
        })
    }

    async fn tables(&self, context: &Context) -> Result<(Db, Vec<(TableRef, String)>)> {
        if let Some(table) = &self.table {
            let (db, reference) = context.table(table).await?;
            let name = reference.to_string();
            return Ok((db, vec![(reference, name)]));
        }
        let db = context.db().await?;
        let filter = TableFilter { state: Some(TableState::Active), ..TableFilter::default() };
        let tables = db
            .tables(filter)
            .map_ok(|table| (TableRef::Id(table.id), table.name.to_string()))
            .try_collect()
            .await?;
        Ok((db, tables))
    }
}

/// A report for people.
fn describe(report: &CheckReport) -> String {
    use std::fmt::Write as _;

    let mut text = format!(
        "{}: {} at version {}, {}",
        report.name,
        plural(report.files, "file"),
        report.version,
        size(report.bytes)
    );
    if report.vectors > 0 {
        let _ = write!(text, ", {}", plural(report.vectors, "deletion vector"));
    }
    if report.footers > 0 {
        let _ = write!(text, ", {} read", plural(report.footers, "footer"));
    }
    let _ = match (report.findings.count, report.failures.count) {
        (0, 0) => write!(text, ": all is right"),
        (0, failures) => write!(text, ": {} could not be looked at", plural(failures, "file")),
        (findings, 0) => write!(text, ": {}", plural(findings, "finding")),
        (findings, failures) => write!(
            text,
            ": {}, and {} could not be looked at",
            plural(findings, "finding"),
            plural(failures, "file")
        ),
    };
    for finding in &report.findings.first {
        let kind = serde_json::to_value(finding.kind).unwrap_or_default();
        let kind = kind.as_str().unwrap_or_default().replace('_', " ");
        let _ =
            write!(text, "\n  {kind}: {}: {}", one_line(&finding.path), one_line(&finding.detail));
    }
    more(&mut text, report.findings.count, report.findings.first.len());
    for (what, remarks) in
        [("not comparable", &report.not_comparable), ("not looked at", &report.failures)]
    {
        for remark in &remarks.first {
            let _ = write!(
                text,
                "\n  {what}: {}: {}",
                one_line(&remark.path),
                one_line(&remark.reason)
            );
        }
        more(&mut text, remarks.count, remarks.first.len());
    }
    if report.removed_meanwhile > 0 {
        let _ = write!(
            text,
            "\n  left out: {} of files that were removed meanwhile",
            plural(report.removed_meanwhile, "finding")
        );
    }
    text
}

fn more(text: &mut String, all: u64, shown: usize) {
    use std::fmt::Write as _;

    let hidden = all.saturating_sub(u64::try_from(shown).unwrap_or(u64::MAX));
    if hidden > 0 {
        let _ = write!(text, "\n  … and {} more (--show-files)", count(hidden));
    }
}
