//! `dl diff`

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, ValueEnum};
use deltalakedb::core::backend::TableFilter;
use deltalakedb::core::ids::{TableId, TableRef, Version};
use deltalakedb::core::model::MirrorMode;
use deltalakedb::mirror::diff::{
    DiffOptions, DiffReport, Verdict, VersionList, diff, metrics_json, metrics_prometheus,
};
use deltalakedb::view;
use deltalakedb::{CatalogUri, Db};
use futures::TryStreamExt;
use serde_json::Value;

use crate::context::{Context, key_values};
use crate::failure::{Failure, Result, exit};
use crate::output::{count, one_line, plural};
use crate::report_file::{prepare, replace};
use crate::time;

/// Stands for standard output where a file is taken.
const STDOUT: &str = "-";

/// Arguments of `dl diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
The log is read by the Delta kernel from the files alone, so that an agreement means: every Delta
reader sees what the catalog says. Commit files are compared byte for byte besides. Without a table
all published ones are compared.

A commit of another program in a table's own log is recorded: publishing of that table stops, and
'dl mirror status' says so from then on.

Exit codes: 0 parity, 2 drift, 3 the log only lags behind, 1 error (wrong usage too).

Metrics: dl_mirror_lag_seconds{table_id}, dl_mirror_status{table_id,version} (0 in flight, 1
complete, 2 failed, or a foreign commit stands there), dl_mirror_reconciliation_attempts_total
{table_id,version} (attempts to publish a version after the first one), dl_file_drift_count,
dl_metadata_drift, dl_protocol_drift, dl_version_delta.

Examples:
  dl diff --table sales.orders
  dl diff --table sales.orders --log-dir /backup/orders/_delta_log
  dl diff --lag-threshold-seconds 60 --metrics-format prometheus \\
     --metrics-output /var/lib/node_exporter/dl.prom
  dl diff --table sales.orders --json-output report.json
  dl diff --database /lake/catalog.db --table sales.orders --max-drift-files 2")]
pub(crate) struct Diff {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    #[arg(value_name = "TABLE", conflicts_with_all = ["table", "table_id"])]
    positional: Option<String>,
    /// The same as an option
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Table by its id in the catalog; finds dropped ones too
    #[arg(long, value_name = "ID", conflicts_with = "table")]
    table_id: Option<String>,
    /// Another _delta_log folder than the table's own
    #[arg(long, value_name = "PATH|URL")]
    log_dir: Option<String>,
    /// A log that is behind for so long counts as lag [exit code 3]
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    lag_threshold_seconds: u32,
    /// So many data files may differ, and so many commit files have other bytes, without that being
    /// drift; it is reported all the same
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_drift_files: u64,
    /// Files that differ are shown up to this number; all are counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    show_files: usize,
    /// The catalog's file: the same as --catalog sqlite:///FILE
    #[arg(long, value_name = "FILE")]
    database: Option<String>,
    /// Give out metrics, in this form
    #[arg(long, value_enum, value_name = "FORMAT")]
    metrics_format: Option<MetricsFormat>,
    /// Where the metrics go; '-' is standard output, the report then goes to standard error
    #[arg(long, value_name = "FILE")]
    metrics_output: Option<String>,
    /// Write the report as JSON to this file, whose folder is made; '-' or nothing is standard output
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT)]
    json_output: Option<String>,
    /// Do not compare commit files byte for byte
    #[arg(long)]
    skip_bytes: bool,
    /// Option of the object store of --log-dir; the default are the table's
    #[arg(long = "storage-option", value_name = "KEY=VALUE")]
    storage_options: Vec<String>,
}

/// Forms of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MetricsFormat {
    /// Text exposition format
    Prometheus,
    /// An object with an array for each metric
    Json,
}

impl Diff {
    /// The catalog to use: that of `--catalog`, or the file of `--database`.
    pub(crate) fn catalog(&self, flag: Option<String>) -> Result<Option<String>> {
        let Some(database) = &self.database else { return Ok(flag) };
        if flag.is_some() {
            return Err(Failure::invalid(
                "--database and --catalog both name a catalog: give one of them",
            ));
        }
        // Scripts have both.
        if database.contains("://") {
            return Ok(Some(database.clone()));
        }
        Ok(Some(CatalogUri::sqlite(database).to_string()))
    }

    pub(crate) async fn run(&self, context: &Context) -> Result<u8> {
        let options = DiffOptions {
            log_dir: self.log_dir.clone(),
            storage_options: if self.storage_options.is_empty() {
                None
            } else {
                Some(key_values("--storage-option", &self.storage_options)?)
            },
            lag_threshold_seconds: i64::from(self.lag_threshold_seconds),
            max_drift_files: self.max_drift_files,
            shown_files: self.show_files,
            compare_bytes: !self.skip_bytes,
            now: None,
        };
        for place in [&self.json_output, &self.metrics_output].into_iter().flatten() {
            if place != STDOUT {
                prepare(Path::new(place))?;
            }
        }
        let (db, tables, all) = self.tables(context).await?;
        let mut reports = Vec::with_capacity(tables.len());
        let mut failed = false;
        for table in tables {
            match diff(&db, &table, options.clone(), &context.progress).await {
                Ok(report) => reports.push(report),
                Err(error) if all => {
                    failed = true;
                    context.out.error(&Failure::Mismatch(format!("table {table}: {error}")));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let stdout_taken = self.metrics(context, &reports)?;
        self.report(context, &reports, all, stdout_taken)?;
        let worst = |verdict| reports.iter().any(|r| r.verdict == verdict);
        Ok(if failed {
            exit::ERROR
        } else if worst(Verdict::Drift) {
            exit::DRIFT
        } else if worst(Verdict::LagOnly) {
            exit::LAG
        } else {
            exit::OK
        })
    }

    /// The tables to compare, and whether those are all.
    async fn tables(&self, context: &Context) -> Result<(Db, Vec<TableRef>, bool)> {
        if let Some(table) = self.positional.as_ref().or(self.table.as_ref()) {
            let (db, table) = context.table(table).await?;
            return Ok((db, vec![table], false));
        }
        let db = context.db().await?;
        if let Some(id) = &self.table_id {
            return Ok((db, vec![TableRef::Id(id.parse::<TableId>()?)], false));
        }
        if self.log_dir.is_some() {
            return Err(Failure::invalid(
                "--log-dir is compared with one table: name it with --table or --table-id",
            ));
        }
        let tables: Vec<TableRef> = db
            .tables(TableFilter::default())
            .try_filter(|table| std::future::ready(table.mirror != MirrorMode::Off))
            .map_ok(|table| TableRef::Id(table.id))
            .try_collect()
            .await?;
        Ok((db, tables, true))
    }

    /// Gives out metrics, if wanted; whether they went to standard output.
    fn metrics(&self, context: &Context, reports: &[DiffReport]) -> Result<bool> {
        let (format, place) = match (self.metrics_format, self.metrics_output.as_deref()) {
            (None, None) => return Ok(false),
            (format, place) => {
                (format.unwrap_or(MetricsFormat::Prometheus), place.unwrap_or(STDOUT))
            }
        };
        let text = match format {
            MetricsFormat::Prometheus => metrics_prometheus(reports),
            MetricsFormat::Json => pretty(&metrics_json(reports))?,
        };
        if place == STDOUT {
            context.out.text(text.trim_end())?;
            return Ok(true);
        }
        replace(Path::new(place), &text)?;
        Ok(false)
    }

    fn report(
        &self,
        context: &Context,
        reports: &[DiffReport],
        all: bool,
        stdout_taken: bool,
    ) -> Result<()> {
        let json = || match reports {
            [report] if !all => view::plain(report),
            reports => Value::Array(reports.iter().map(view::plain).collect()),
        };
        let mut stdout_taken = stdout_taken;
        if let Some(place) = self.json_output.as_deref() {
            if place != STDOUT {
                replace(Path::new(place), &pretty(&json())?)?;
            } else if stdout_taken {
                return Err(Failure::invalid(
                    "metrics and report cannot both go to standard output: give one a file",
                ));
            } else {
                context.out.document(&json())?;
                stdout_taken = true;
            }
        }
        if context.out.is_json() {
            return if stdout_taken { Ok(()) } else { context.out.document(&json()) };
        }
        for report in reports {
            let text = describe(report);
            if stdout_taken {
                context.out.hint(text);
            } else {
                context.out.say(text)?;
            }
        }
        if reports.is_empty() {
            context.out.hint("No published table to compare.");
        }
        Ok(())
    }
}

/// A report for people.
pub(super) fn describe(report: &DiffReport) -> String {
    let version = |v: Option<Version>| v.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let verdict = match report.verdict {
        Verdict::Parity => "parity",
        Verdict::Drift => "DRIFT",
        Verdict::LagOnly => "lag",
    };
    let mut text = format!(
        "{}: {verdict}. Catalog at {}, log at {}",
        report.name,
        report.catalog_version,
        version(report.log_version)
    );
    if report.unpublished_versions > 0 {
        let _ = write!(
            text,
            " ({} behind, {})",
            plural(report.unpublished_versions, "version"),
            time::show_duration(report.lag_seconds.saturating_mul(1_000))
        );
    }
    if let (Some(files), Some(at)) = (&report.files, report.compared_version) {
        let _ = write!(
            text,
            "; {} and {} compared at version {at}",
            plural(files.compared, "file"),
            plural(report.bytes.compared, "commit file")
        );
    }
    if !report.own_log {
        let _ = write!(text, "\n  log: {}", report.log_dir);
    }
    for reason in &report.reasons {
        let _ = write!(text, "\n  {}", one_line(reason));
    }
    for (what, fields) in [("metadata", &report.metadata), ("protocol", &report.protocol)] {
        for field in fields {
            let _ = write!(
                text,
                "\n  {what} {}: catalog {}, log {}",
                one_line(&field.field),
                value(field.catalog.as_deref()),
                value(field.log.as_deref())
            );
        }
    }
    if let Some(files) = &report.files {
        for file in &files.examples {
            let kind = serde_json::to_value(file.kind).unwrap_or_default();
            let _ =
                write!(text, "\n  {} {}", kind.as_str().unwrap_or_default(), one_line(&file.path));
            if file.catalog.is_some() || file.log.is_some() {
                let _ = write!(
                    text,
                    ": catalog {}, log {}",
                    value(file.catalog.as_deref()),
                    value(file.log.as_deref())
                );
            }
        }
        let hidden = files.total().saturating_sub(u64::try_from(files.examples.len()).unwrap_or(0));
        if hidden > 0 {
            let _ = write!(text, "\n  … and {} more (--show-files)", count(hidden));
        }
    }
    let list = |versions: &VersionList| -> String {
        versions.first.iter().take(20).map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    for (what, versions) in [
        ("other bytes in the log", &report.bytes.different),
        ("missing in the log", &report.bytes.missing),
        ("not in the catalog", &report.bytes.foreign),
        ("with another checksum (.crc)", &report.bytes.checksums),
    ] {
        if versions.count > 0 {
            let _ = write!(text, "\n  {what}: versions {}", list(versions));
        }
    }
    text
}

fn value(text: Option<&str>) -> String {
    text.map_or_else(|| "none".to_owned(), |text| format!("'{}'", one_line(text)))
}

fn pretty(value: &Value) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|e| Failure::invalid(format!("the report has no JSON form: {e}")))
}
