//! `dl config check|show|example|schema`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use deltalakedb::config::{Inspection, Origin, Syntax, example, json_schema, unknown_variables};
use deltalakedb::core::backend::{MirrorLease, TableFilter};
use deltalakedb::core::error::CatalogError;
use deltalakedb::core::ids::TableId;
use deltalakedb::core::sink::PutOutcome;
use deltalakedb::mirror::sink::open_sink;
use deltalakedb::{CatalogUri, Db, TableRecord};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Result, exit};
use crate::output::Format;

/// Tables whose store is tried, at most one of each place.
const STORES: usize = 10;

/// What can be done about the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Look whether the configuration is right, and whether what it names can be reached
    Check(Check),
    /// Show each value and where it is from
    Show(Show),
    /// Print a config file with all keys
    Example(Example),
    /// Print the JSON Schema of config files, for editors
    Schema(Schema),
}

/// Arguments of `dl config check`.
#[derive(Debug, Args)]
#[command(after_help = "\
All that is wrong is told at once, with file, line and key. Then the database is tried: connection,
schema, reading; and the stores of up to ten tables: listing a log. Nothing is written, unless
--write-probe. Exit code 1 if anything is not right.

Examples:
  dl config check
  dl config check /etc/dl/production.yaml --offline
  DELTA_PROFILE=production dl config check --write-probe")]
pub(crate) struct Check {
    /// Config file to check in place of the one that would be read
    file: Option<PathBuf>,
    /// Try neither database nor stores
    #[arg(long)]
    offline: bool,
    /// Also try writing: an update of no row, and an object that is put into each log and deleted again
    #[arg(long, conflicts_with = "offline")]
    write_probe: bool,
}

/// Arguments of `dl config show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Secrets are shown as ***, those in URLs too.

Examples:
  dl config show
  dl config show /etc/dl/production.yaml
  dl config show --format json | jq '.values[] | select(.from != \"default\")'")]
pub(crate) struct Show {
    /// Config file to read in place of the one that would be read
    file: Option<PathBuf>,
    /// Only what is set: no defaults
    #[arg(long)]
    set: bool,
}

/// Arguments of `dl config example`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each key stands there with what it does, its default and its names in the environment.

Examples:
  dl config example > dl.toml
  dl config example --format yaml > dl.yaml")]
pub(crate) struct Example {}

/// Arguments of `dl config schema`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dl config schema > dl.schema.json
  echo '# yaml-language-server: $schema=dl.schema.json' > dl.yaml")]
pub(crate) struct Schema {}

/// What was tried, and how that went.
#[derive(Debug, Serialize)]
struct Probe {
    what: String,
    ok: bool,
    result: String,
}

#[derive(Debug, Serialize)]
struct ProblemView {
    file: Option<String>,
    line: Option<usize>,
    from: String,
    key: Option<String>,
    message: String,
}

#[derive(Debug, Serialize)]
struct Checked {
    ok: bool,
    files: Vec<String>,
    profile: Option<String>,
    problems: Vec<ProblemView>,
    probes: Vec<Probe>,
}

#[derive(Debug, Serialize)]
struct ValueView {
    key: &'static str,
    value: String,
    from: String,
}

#[derive(Debug, Serialize)]
struct Report {
    files: Vec<String>,
    profile: Option<String>,
    values: Vec<ValueView>,
}

impl Config {
    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        match self {
            Config::Check(check) => return check.run(context).await,
            Config::Show(show) => return show.run(context),
            Config::Example(_) => {
                let syntax = match context.out.format() {
                    Format::Yaml => Syntax::Yaml,
                    _ => Syntax::Toml,
                };
                context.out.text(example(syntax).trim_end())?;
            }
            Config::Schema(_) => context.out.document(&json_schema())?,
        }
        Ok(exit::OK)
    }
}

/// The configuration as this command finds it.
fn inspect(context: &Context, file: Option<&Path>) -> Inspection {
    let variable = |name: &str| std::env::var(name).ok();
    let mut inspection =
        deltalakedb::Config::inspect(&variable, Path::new(""), file, context.catalog_flag());
    let names: Vec<String> =
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    inspection.problems.extend(unknown_variables(names.iter().map(String::as_str)));
    inspection
}

fn names(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|file| file.display().to_string()).collect()
}

impl Show {
    fn run(&self, context: &Context) -> Result<u8> {
        let inspection = inspect(context, self.file.as_deref());
        let shown = inspection.values.iter().filter(|v| !self.set || v.origin != Origin::Default);
        if context.out.is_json() {
            context.out.document(&Report {
                files: names(&inspection.files),
                profile: inspection.profile.clone(),
                values: shown
                    .map(|v| ValueView {
                        key: v.key,
                        value: v.value.clone(),
                        from: v.origin.to_string(),
                    })
                    .collect(),
            })?;
        } else {
            let mut list = context.out.list(&["key", "value", "from"], &[]);
            for value in shown {
                list.push(&(), || {
                    vec![value.key.to_owned(), value.value.clone(), value.origin.to_string()]
                })?;
            }
            list.end()?;
        }
        for problem in inspection.problems.iter().chain(&inspection.warnings) {
            context.out.warn(problem.to_string());
        }
        Ok(if inspection.problems.is_empty() { exit::OK } else { exit::ERROR })
    }
}

impl Check {
    async fn run(&self, context: &Context) -> Result<u8> {
        let inspection = inspect(context, self.file.as_deref());
        let problems: Vec<ProblemView> = inspection
            .problems
            .iter()
            .map(|problem| {
                let (file, line) = match &problem.origin {
                    Origin::File { file, line, .. } => {
                        (Some(file.display().to_string()), Some(*line))
                    }
                    _ => (None, None),
                };
                let from = problem.origin.to_string();
                let (key, message) = (problem.key.clone(), problem.message.clone());
                ProblemView { file, line, from, key, message }
            })
            .collect();
        for warning in &inspection.warnings {
            context.out.warn(warning.to_string());
        }
        let mut probes = Vec::new();
        if let Some(config) = &inspection.config
            && !self.offline
        {
            if context.catalog_flag().is_some() || config.names_a_catalog() {
                let uri = config.catalog(context.catalog_flag())?;
                self.probe(&uri, &mut probes).await;
            } else {
                let result =
                    "nothing names one: --catalog, DELTA_DB_CONNECTION, or the key catalog";
                probes.push(Probe {
                    what: "catalog".to_owned(),
                    ok: false,
                    result: result.to_owned(),
                });
            }
        }
        let ok = problems.is_empty() && probes.iter().all(|probe| probe.ok);
        if context.out.is_json() {
            let (files, profile) = (names(&inspection.files), inspection.profile.clone());
            context.out.document(&Checked { ok, files, profile, problems, probes })?;
        } else {
            for file in &inspection.files {
                context.out.say(format!("read {}", file.display()))?;
            }
            if let Some(profile) = &inspection.profile {
                context.out.say(format!("profile {profile}"))?;
            }
            for problem in &inspection.problems {
                context.out.text(format!("wrong: {problem}"))?;
            }
            for Probe { what, ok, result } in &probes {
                let sign = if *ok { "ok" } else { "wrong" };
                let line = format!("{sign}: {what}: {result}");
                if *ok { context.out.say(line)? } else { context.out.text(line)? }
            }
            if ok {
                context.out.say("The configuration is right.")?;
            }
        }
        Ok(if ok { exit::OK } else { exit::ERROR })
    }

    /// Tries the database, then the stores.
    async fn probe(&self, uri: &CatalogUri, probes: &mut Vec<Probe>) {
        let mut note = |what: &str, result: std::result::Result<String, CatalogError>| {
            let (ok, result) = match result {
                Ok(text) => (true, text),
                Err(error) => (false, error.to_string()),
            };
            probes.push(Probe { what: what.to_owned(), ok, result });
            ok
        };
        let db = match Db::open(uri).await {
            Ok(db) => db.on_primary(),
            Err(error) => {
                note("database and schema", Err(error));
                return;
            }
        };
        let info = db.backend().info().await.map_err(CatalogError::from);
        let said = info.map(|info| {
            format!("{} {}, schema {}", info.kind, info.server_version, info.schema_version)
        });
        if !note("database and schema", said) {
            return;
        }
        let tables = db.backend().list_tables(&TableFilter::default(), None, 1_000).await;
        let tables = match tables.map_err(CatalogError::from) {
            Ok(page) => page.items,
            Err(error) => {
                note("right to read", Err(error));
                return;
            }
        };
        note("right to read", Ok(format!("{} tables in the first page", tables.len())));
        if self.write_probe {
            // Nobody has this lease: no row is changed, and the right to change rows is asked for.
            let now = db.clock().now();
            let nobody = MirrorLease {
                table_id: TableId(uuid::Uuid::new_v4()),
                owner: "dl config check".to_owned(),
                epoch: 0,
                until: now,
            };
            let answer = db.backend().mirror_renew(&nobody, now, 1).await;
            let answer = answer.map_err(CatalogError::from);
            note("right to write", answer.map(|_| "an update of no row was taken".to_owned()));
        }
        for table in one_of_each_place(&tables) {
            let what = format!("store of '{}' ({})", table.name, table.location);
            note(&what, self.probe_store(table).await);
        }
    }

    async fn probe_store(&self, table: &TableRecord) -> std::result::Result<String, CatalogError> {
        let sink = open_sink(&table.location, &table.storage_options)?;
        let there = sink.list(None).await?.len();
        if !self.write_probe {
            return Ok(format!("its log has {there} objects"));
        }
        // Readers of logs skip names that are no log file's.
        let name = format!(".dl-config-check-{}.tmp", uuid::Uuid::new_v4());
        let first = sink.put_if_absent(&name, Bytes::from_static(b"dl config check")).await?;
        let again = sink.put_if_absent(&name, Bytes::from_static(b"dl config check")).await;
        sink.delete(&name).await?;
        match (first, again?) {
            (PutOutcome::Created, PutOutcome::Created) => Err(CatalogError::Unsupported(
                "an object was created twice: the store has no conditional put, so that two writers could \
                 overwrite each other's commits"
                    .to_owned(),
            )),
            (PutOutcome::Created, _) => {
                Ok(format!("its log has {there} objects; a conditional put works"))
            }
            _ => Ok(format!("its log has {there} objects; the object of the test was there already")),
        }
    }
}

/// Tables, one of each host, bucket or folder above the table's own, with its own options.
fn one_of_each_place(tables: &[TableRecord]) -> Vec<&TableRecord> {
    let mut places: BTreeMap<(String, &BTreeMap<String, String>), &TableRecord> = BTreeMap::new();
    for table in tables {
        let place = match url::Url::parse(&table.location) {
            Ok(url) if url.scheme() != "file" => {
                format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())
            }
            _ => table
                .location
                .trim_end_matches('/')
                .rsplit_once('/')
                .map_or("", |(up, _)| up)
                .to_owned(),
        };
        places.entry((place, &table.storage_options)).or_insert(table);
    }
    places.into_values().take(STORES).collect()
}
