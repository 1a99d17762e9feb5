//! `dl import`

use std::fmt::Write;

use clap::Args;
use deltalakedb::core::ids::{TableName, Version};
use deltalakedb::core::model::MirrorMode;
use deltalakedb::mirror::import::{
    BaseSource, ImportOptions, ImportReport, Validation, import_table,
};
use deltalakedb::mirror::store::{LOG_FOLDER, open_store};
use deltalakedb::view;
use futures::StreamExt;
use object_store::ObjectStore;
use serde_json::{Value, json};

use crate::context::{Context, key_values};
use crate::failure::{Failure, Result, exit};
use crate::output::{plural, size};

/// Stands for the folder's name in the pattern of table names.
const NAME: &str = "{name}";

/// Arguments of `dl import`.
#[derive(Debug, Args)]
#[command(after_help = "\
The table's data and log stay where they are; every commit that the log still has is kept byte for
byte. From the end of the import on, the catalog is to be the only writer: stop others before, and
keep them out with `dl cutover`.
The result is compared with what the Delta kernel reads from the log (--skip-validation: not).

Several tables at once: a pattern in PATH, and {name} in NAME, which stands for the folder's name
(dots in it become underscores). Folders without a _delta_log are passed over. Each table's result
is printed; the exit code is 1 if any failed.

Examples:
  dl import /lake/orders sales.orders
  dl import /lake/orders sales.orders --dry-run
  dl import /lake/orders sales.orders --resume          after an interruption
  dl import s3://bucket/orders sales.orders --storage-option aws_region=eu-central-1
  dl import '/lake/*' 'sales.{name}'
  dl import '/lake/*' --namespace sales")]
pub(crate) struct Import {
    /// Folder or URL of the Delta table; a pattern with *, ? or [...] for several
    #[arg(value_name = "PATH|URL")]
    source: String,
    /// Name that the table gets: namespace.table, or a pattern with {name}
    #[arg(required_unless_present = "namespace", conflicts_with = "namespace")]
    name: Option<String>,
    /// Name tables like their folders, in this namespace
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Read and check everything, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Last version to import; the mirror is then off, as the log goes on without the catalog
    #[arg(long, value_name = "N")]
    up_to_version: Option<i64>,
    /// Continue an import that was interrupted
    #[arg(long, conflicts_with = "restart")]
    resume: bool,
    /// Throw an interrupted import away and begin anew
    #[arg(long)]
    restart: bool,
    /// Start at the newest checkpoint, without the history below it
    #[arg(long)]
    checkpoint_only: bool,
    /// Do not compare the result with what the Delta kernel reads
    #[arg(long)]
    skip_validation: bool,
    /// Take a table over from another catalog, which must be gone: two would fork its log
    #[arg(long)]
    take_over: bool,
    /// Keep later commits in the catalog only
    #[arg(long)]
    no_mirror: bool,
    /// Option of the object store; env:VARIABLE or file:/path in place of a value is looked up when
    /// the table is opened, and is the only form for secrets
    #[arg(long = "storage-option", value_name = "KEY=VALUE")]
    storage_options: Vec<String>,
}

impl Import {
    pub(crate) async fn run(&self, context: &Context) -> Result<u8> {
        let template = match (&self.name, &self.namespace) {
            (Some(name), _) => name.clone(),
            (None, Some(namespace)) => format!("{namespace}.{NAME}"),
            (None, None) => return Err(Failure::invalid("give the table a name")),
        };
        // The name is part of a URL at most once: the catalog is known before any table is.
        let (catalog, _) = context.new_name(&template.replace(NAME, "name"))?;
        let options = key_values("--storage-option", &self.storage_options)?;
        let base = ImportOptions {
            storage_options: options,
            dry_run: self.dry_run,
            up_to_version: self.up_to_version.map(Version::new).transpose()?,
            checkpoint_only: self.checkpoint_only,
            skip_validation: self.skip_validation,
            mirror: if self.no_mirror || self.up_to_version.is_some() {
                MirrorMode::Off
            } else {
                MirrorMode::Active
            },
            resume: self.resume,
            restart: self.restart,
            take_over: self.take_over,
            ..ImportOptions::new(TableName::new("none", "none")?, "")
        };
        let name_for = |location: &str| -> Result<TableName> {
            let folder = location.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let name = template.replace(NAME, &folder.replace('.', "_"));
            Ok(context.new_name(&name)?.1)
        };
        context.to_go_on("the same command with --resume goes on from there");
        let Some(pattern) = Pattern::of(&self.source) else {
            let db = context.open(&catalog).await?;
            let options = ImportOptions {
                name: name_for(&self.source)?,
                location: self.source.clone(),
                ..base
            };
            let report = import_table(&db, options, &context.progress).await?;
            self.print(context, &report)?;
            return Ok(exit::OK);
        };
        if !template.contains(NAME) {
            return Err(Failure::invalid(format!(
                "'{}' is a pattern: the name needs {NAME} for the folder's name, for example \
                 sales.{NAME}",
                self.source
            )));
        }
        let db = context.open(&catalog).await?;
        let found = pattern.tables(&base).await?;
        if found.is_empty() {
            return Err(Failure::invalid(format!(
                "no folder that matches '{}' has a {LOG_FOLDER}",
                self.source
            )));
        }
        let total = found.len();
        let mut results = Vec::new();
        let mut failed = 0_usize;
        for location in found {
            let imported = match name_for(&location) {
                Err(failure) => Err(failure),
                Ok(name) => {
                    let options =
                        ImportOptions { name, location: location.clone(), ..base.clone() };
                    import_table(&db, options, &context.progress).await.map_err(Failure::from)
                }
            };
            match imported {
                Ok(report) if context.out.is_json() => results.push(with_result(&report, true)),
                Ok(report) => self.print(context, &report)?,
                Err(failure) => {
                    failed += 1;
                    if context.out.is_json() {
                        let mut result = failure.to_json();
                        result["location"] = json!(location);
                        result["imported"] = json!(false);
                        results.push(result);
                    } else {
                        context.out.error(&Failure::Mismatch(format!("{location}: {failure}")));
                    }
                }
            }
        }
        if context.out.is_json() {
            context.out.document(&results)?;
        } else {
            context.out.say(format!(
                "{} of {total} tables {}.",
                total - failed,
                if self.dry_run { "can be imported" } else { "imported" }
            ))?;
        }
        Ok(if failed == 0 { exit::OK } else { exit::ERROR })
    }

    fn print(&self, context: &Context, report: &ImportReport) -> Result<()> {
        if context.out.is_json() {
            return context.out.document(&with_result(report, !self.dry_run));
        }
        let mut text = format!(
            "{} '{}' at version {}: {}, {}, {}",
            if self.dry_run { "Would import" } else { "Imported" },
            report.name,
            report.head,
            plural(report.num_files, "file"),
            size(report.size_bytes),
            plural(report.applied_commits.saturating_add(report.history_commits), "commit"),
        );
        if let Some(BaseSource::Checkpoint { file, .. }) = &report.base {
            let _ = write!(text, "; readable from version {} ({file})", report.base_version);
        }
        match &report.validation {
            Validation::Passed => text.push_str("; the Delta kernel reads the same"),
            Validation::Skipped => {}
            Validation::NotValidated { why } => {
                let _ = write!(text, "; not validated: {why}");
            }
        }
        context.out.say(text)?;
        if report.head < report.log_head && !self.dry_run {
            context.out.hint(format!(
                "The log goes on to version {}; publishing of '{}' is off.",
                report.log_head, report.name
            ));
        }
        for warning in &report.warnings {
            context.out.warn(warning);
        }
        Ok(())
    }
}

fn with_result(report: &ImportReport, imported: bool) -> Value {
    let mut value = view::plain(report);
    value["imported"] = json!(imported);
    value
}

/// Several tables by a pattern.
enum Pattern<'a> {
    /// On this machine.
    Local(&'a str),
    /// In a store: a place, and a pattern for the names right below it.
    Remote(&'a str, &'a str),
}

impl<'a> Pattern<'a> {
    /// None for what names one place. A folder whose own name looks like a pattern is one place.
    fn of(source: &'a str) -> Option<Pattern<'a>> {
        let wild = |text: &str| text.contains(['*', '?', '[']);
        if let Some((scheme, _)) = source.split_once("://").filter(|(s, _)| *s != "file") {
            let (place, name) = source.trim_end_matches('/').rsplit_once('/')?;
            return (wild(name) && place.len() > scheme.len() + 2)
                .then_some(Pattern::Remote(place, name));
        }
        let path = source.strip_prefix("file://").unwrap_or(source);
        (wild(path) && !std::path::Path::new(path).exists()).then_some(Pattern::Local(path))
    }

    /// Locations that match and have a log, sorted.
    async fn tables(&self, options: &ImportOptions) -> Result<Vec<String>> {
        match self {
            Pattern::Local(pattern) => {
                let paths = glob::glob(pattern)
                    .map_err(|e| Failure::invalid(format!("bad pattern '{pattern}': {e}")))?;
                let mut found = Vec::new();
                for path in paths {
                    let path = path.map_err(|e| {
                        Failure::io(format!("cannot look into '{}'", e.path().display()), e.into())
                    })?;
                    if path.join(LOG_FOLDER).is_dir() {
                        found.push(path.to_string_lossy().into_owned());
                    }
                }
                Ok(found)
            }
            Pattern::Remote(place, name) => {
                let pattern = glob::Pattern::new(name)
                    .map_err(|e| Failure::invalid(format!("bad pattern '{name}': {e}")))?;
                let store = open_store(place, &options.storage_options)?;
                let listed =
                    store.store.list_with_delimiter(Some(&store.root)).await.map_err(|e| {
                        Failure::io(format!("cannot list '{place}'"), std::io::Error::other(e))
                    })?;
                let mut found = Vec::new();
                for folder in listed.common_prefixes {
                    let Some(last) = folder.filename().filter(|last| pattern.matches(last)) else {
                        continue;
                    };
                    let log = folder.clone().join(LOG_FOLDER);
                    if store.store.list(Some(&log)).next().await.is_some() {
                        found.push(format!("{place}/{last}"));
                    }
                }
                found.sort();
                Ok(found)
            }
        }
    }
}
