//! `dl mirror run|status|retry|enable|disable`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use deltalakedb::Db;
use deltalakedb::core::backend::TableFilter;
use deltalakedb::core::ids::{TableId, TableRef, Version};
use deltalakedb::core::model::{MirrorMode, TableRecord, TableState};
use deltalakedb::mirror::foreign::standing;
use deltalakedb::mirror::measure::go_on_from;
use deltalakedb::mirror::publish::wait_published;
use deltalakedb::mirror::reconcile::{FindingKind, ReconcilePass, reconcile_all};
use deltalakedb::view::{MirrorView, TableView};
use futures::TryStreamExt;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result, exit};
use crate::listen::Listener;
use crate::output::{count, plural};
use crate::publishing;
use crate::report_file::{prepare, replace};
use crate::time;

/// What can be done about the mirror.
#[derive(Debug, Subcommand)]
pub(crate) enum Mirror {
    /// Publish what is not published yet
    Run(Run),
    /// Show how far publishing is
    Status(Status),
    /// Wait until a version is published
    Wait(Wait),
    /// Look for published files that are missing or changed, and put missing ones back
    Reconcile(Reconcile),
    /// Try failed versions again now, and go on with a table that diverged
    Retry(One),
    /// Publish a table's commits from now on, and those it has
    Enable(One),
    /// Keep a table's commits in the catalog only
    Disable(One),
}

/// Arguments of `dl mirror run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Any number of workers may run at a time, on any number of machines. A crash loses nothing: the next
run continues. Exit code 1 if something could not be published.

With --listen the worker tells over HTTP how it is: /health (the worker has its turns), /ready (the
database answers, and its schema is right), /metrics (Prometheus; the operating guide lists the
names). Nothing is secret there, and nobody is asked for a password: choose an address that only
those who watch can reach. With --reconcile-every, published logs are compared with the catalog
again and again, as 'dl mirror reconcile --watch' does.

With --watch, a table for which nothing waits is looked at for commits of other programs in each
--foreign-check-interval: one request to its store, spread over the interval. The default is 5m, or
'mirror.foreign_check_interval' of the configuration. What is found is recorded: 'dl mirror status'.

Examples:
  dl mirror run                     everything that waits, then end
  dl mirror run sales.orders
  dl mirror run --watch             until Ctrl-C
  dl mirror run --watch --foreign-check-interval 30s
  dl mirror run --watch --listen 127.0.0.1:9464 --reconcile-every 300")]
pub(crate) struct Run {
    /// Only this table: namespace.table, its id, or a delta+sql:// URL
    table: Option<String>,
    /// Go on publishing until Ctrl-C
    #[arg(long, conflicts_with = "table")]
    watch: bool,
    /// How often idle tables are looked at for foreign commits, as 30s, 5m, 2h; 0 = never
    #[arg(long, value_name = "TIME", requires = "watch")]
    foreign_check_interval: Option<String>,
    /// Serve /health, /ready and /metrics over HTTP on this address, as 127.0.0.1:9464
    #[arg(long, value_name = "ADDR", requires = "watch")]
    listen: Option<String>,
    /// Compare published logs with the catalog so often, and put back what is missing
    #[arg(long, value_name = "SECONDS", requires = "watch")]
    reconcile_every: Option<u32>,
    /// File for the counter of what --reconcile-every finds, which goes on from what the file says
    #[arg(long, value_name = "FILE", requires = "reconcile_every")]
    metrics_output: Option<PathBuf>,
}

/// Arguments of `dl mirror status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 if all is well, 2 if a foreign commit stands in some table's log (its publishing has
stopped), 3 if a version has been waiting for longer than --late.

Examples:
  dl mirror status
  dl mirror status sales.orders     each unpublished version, with its last error
  dl mirror status --format json | jq '.[] | select(.lag_seconds > 60)'")]
pub(crate) struct Status {
    /// Only this table: namespace.table, its id, or a delta+sql:// URL
    table: Option<String>,
    /// How long a version may wait before that is worth an exit code
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    late: u32,
}

/// Arguments of `dl mirror wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Publishes nothing itself: a worker does, of a service or of `dl mirror run --watch`.

Examples:
  dl mirror wait sales.orders               the latest version
  dl mirror wait sales.orders 41 --timeout 5
  dl mirror wait --token load-2026-01-31    all tables of one transaction")]
pub(crate) struct Wait {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    #[arg(required_unless_present = "token", conflicts_with = "token")]
    table: Option<String>,
    /// Version; the latest if not given
    version: Option<i64>,
    /// The transaction with this token: each of its tables, up to the version that it got there
    #[arg(long)]
    token: Option<String>,
    /// Give up after this time
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
}

/// Arguments of `dl mirror reconcile`.
#[derive(Debug, Args)]
#[command(after_help = "\
One listing of a log, no reads of its files: sizes are compared with the catalog's commits. What
is missing is written again, what is there is never overwritten. `dl diff` compares bytes and
states. Commits before the first one in the log are not missed: readers start from a checkpoint. A
commit of another program is recorded: publishing of its table stops, and 'dl mirror status' says
so.

Exit code 0 if all is right (now), 2 if something is not and stays so.

Examples:
  dl mirror reconcile
  dl mirror reconcile sales.orders --dry-run
  dl mirror reconcile --watch --every 300 --metrics-output /var/lib/node_exporter/dl_parity.prom")]
pub(crate) struct Reconcile {
    /// Only this table: namespace.table, its id, or a delta+sql:// URL
    table: Option<String>,
    /// Write nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Pause between two passes
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "watch")]
    every: u32,
    /// File for the counter mirror_parity_drift_total{table_id}, in Prometheus' text format; it goes on
    /// from what the file says. Its folder is made
    #[arg(long, value_name = "FILE")]
    metrics_output: Option<PathBuf>,
}

/// A command on one table's mirror.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dl mirror status sales.orders     what waits and why
  dl mirror retry sales.orders
  dl mirror disable sales.orders
  dl mirror enable sales.orders")]
pub(crate) struct One {
    /// Table: namespace.table, its id, or a delta+sql:// URL
    table: String,
}

impl Mirror {
    /// Whether it goes on until it is told to stop.
    pub(crate) fn watches(&self) -> bool {
        match self {
            Mirror::Run(run) => run.watch,
            Mirror::Reconcile(reconcile) => reconcile.watch,
            _ => false,
        }
    }

    pub(crate) async fn run(self, context: &Context) -> Result<u8> {
        match self {
            Mirror::Run(run) => return run.run(context).await,
            Mirror::Status(status) => return status.run(context).await,
            Mirror::Reconcile(reconcile) => return reconcile.run(context).await,
            Mirror::Wait(wait) => wait.run(context).await?,
            Mirror::Retry(one) => retry(&one.table, context).await?,
            Mirror::Enable(one) => set_mode(&one.table, MirrorMode::Active, context).await?,
            Mirror::Disable(one) => set_mode(&one.table, MirrorMode::Off, context).await?,
        }
        Ok(exit::OK)
    }
}

impl Run {
    async fn run(&self, context: &Context) -> Result<u8> {
        // Before the catalog is opened: what it counts goes to the recorder.
        let configured = || context.listen().filter(|_| self.watch);
        let listener = match self.listen.clone().or_else(configured) {
            Some(address) => Some(Listener::bind(&address).await?),
            None => None,
        };
        let (db, only) = match &self.table {
            Some(table) => {
                let (db, table) = context.table(table).await?;
                let db = db.on_primary();
                let record = db.catalog().table(&table).await?;
                if record.mirror == MirrorMode::Off {
                    context.out.warn(format!(
                        "publishing of '{}' is turned off: `dl mirror enable {}`",
                        record.name, record.name
                    ));
                }
                if record.mirror == MirrorMode::Diverged {
                    context.out.warn(format!("'{}': {}", record.name, standing(&record)));
                }
                (db, Some(record.id))
            }
            None => (context.db().await?.on_primary(), None),
        };
        if self.watch {
            let every = context.foreign_check_interval(self.foreign_check_interval.as_deref())?;
            let drift = self.metrics_output.as_deref().map(DriftCounter::open).transpose()?;
            let publisher = Arc::new(publishing::watcher(context, &db, every));
            if let Some(listener) = listener {
                let address = listener.address()?;
                context.out.hint(format!("Listening on http://{address}"));
                // A task of its own: it answers, whatever the worker does.
                let server = listener.serve(db.clone(), publisher.clone(), context.stop());
                tokio::spawn(server);
            }
            context.out.hint("Publishing as commits come. Ctrl-C ends it.");
            tokio::select! {
                ended = publisher.run(context.stop()) => ended?,
                () = self.reconcile(context, &db, drift) => {}
            }
            return Ok(exit::OK);
        }
        let report = publishing::until_done(context, &db, only).await?;
        let failed = report.unpublished > 0 || !report.failures.is_empty();
        if context.out.is_json() {
            context.out.document(&deltalakedb::view::plain(&report))?;
        } else {
            for run in report.tables.values().filter(|run| run.published > 0) {
                context.out.say(format!(
                    "{}: {} published, now up to {}{}",
                    run.name,
                    plural(run.published, "version"),
                    run.published_version.map_or_else(|| "-".to_owned(), |v| v.to_string()),
                    match run.checkpoints {
                        0 => String::new(),
                        n => format!(", {}", plural(n, "checkpoint")),
                    }
                ))?;
            }
            if report.published == 0 && !failed {
                context.out.say("Everything is published.")?;
            }
        }
        for issue in &report.failures {
            context.out.warn(publishing::describe(issue));
        }
        if report.unpublished > 0 {
            context.out.warn(format!(
                "not published yet: {}. `dl mirror status` says why",
                plural(report.unpublished, "version")
            ));
        }
        Ok(if failed { exit::ERROR } else { exit::OK })
    }
}

impl Run {
    /// Passes of reconciliation over all tables, for ever, if they are asked for.
    async fn reconcile(&self, context: &Context, db: &Db, mut drift: Option<DriftCounter>) {
        let Some(every) = self.reconcile_every else { return std::future::pending().await };
        if let Some(counter) = &drift {
            go_on_from(&counter.totals);
        }
        let pause = Duration::from_secs(u64::from(every.max(1)));
        let mut kept = true;
        loop {
            let state = Some(TableState::Active);
            let filter = TableFilter { state, ..TableFilter::default() };
            match db.tables(filter).try_collect::<Vec<TableRecord>>().await {
                Ok(tables) => {
                    let pass = reconcile_all(db, &tables, true).await;
                    for (table, error) in &pass.failures {
                        tracing::warn!(%table, error, "a published log was not compared");
                    }
                    if let Some(counter) = &mut drift {
                        // The recorder has the numbers, and the next pass writes all of them.
                        let written = counter.add(&pass);
                        if let (Err(failure), true) = (&written, kept) {
                            context.out.warn(format!(
                                "{failure}. Publishing goes on, and the file is tried after each pass"
                            ));
                        }
                        kept = written.is_ok();
                    }
                }
                Err(error) => tracing::warn!(%error, "published logs were not compared"),
            }
            tokio::time::sleep(pause).await;
        }
    }
}

impl Wait {
    async fn run(&self, context: &Context) -> Result<()> {
        let version = self.version.map(Version::new).transpose()?;
        let limit = self
            .timeout
            .map(|seconds| {
                Duration::try_from_secs_f64(seconds)
                    .map_err(|_| Failure::invalid(format!("--timeout {seconds}: not a time")))
            })
            .transpose()?;
        let waited = match (&self.table, &self.token) {
            (Some(table), _) => {
                let (db, table) = context.table(table).await?;
                let waited = wait_published(&db, &table, version, limit).await?;
                if context.out.is_json() {
                    return context.out.document(&deltalakedb::view::plain(&waited));
                }
                vec![waited]
            }
            (None, token) => {
                let token = token.as_deref().unwrap_or_default();
                let waited = context.db().await?.wait_published_token(token, limit).await?;
                if context.out.is_json() {
                    return context.out.document(&deltalakedb::view::plain(&waited));
                }
                waited
            }
        };
        for table in waited {
            context.out.say(format!(
                "{}: version {} is published (up to {} is)",
                table.name, table.version, table.published_version
            ))?;
        }
        Ok(())
    }
}

impl Reconcile {
    async fn run(&self, context: &Context) -> Result<u8> {
        let (db, only) = match &self.table {
            Some(table) => {
                let (db, table) = context.table(table).await?;
                (db, Some(table))
            }
            None => (context.db().await?, None),
        };
        let db = db.on_primary();
        let mut stop = context.stop();
        let mut counter = self.metrics_output.as_deref().map(DriftCounter::open).transpose()?;
        loop {
            let tables: Vec<TableRecord> = if let Some(table) = &only {
                vec![db.catalog().table(table).await?]
            } else {
                let state = Some(TableState::Active);
                db.tables(TableFilter { state, ..TableFilter::default() }).try_collect().await?
            };
            let pass = reconcile_all(&db, &tables, !self.dry_run).await;
            if let Some(counter) = &mut counter {
                counter.add(&pass)?;
            }
            Self::print(context, &pass)?;
            if !self.watch {
                let fine = pass.unrepaired() == 0 && pass.failures.is_empty();
                return Ok(if fine { exit::OK } else { exit::DRIFT });
            }
            let pause = Duration::from_secs(u64::from(self.every));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => return Ok(exit::OK),
            }
        }
    }

    fn print(context: &Context, pass: &ReconcilePass) -> Result<()> {
        if context.out.is_json() {
            return context.out.document(pass);
        }
        for table in pass.tables.iter().filter(|table| table.drift > 0) {
            for finding in &table.findings {
                let what = match finding.kind {
                    FindingKind::Missing => "is missing",
                    FindingKind::Different => "is not what the catalog published",
                    FindingKind::Foreign => "is a commit that the catalog does not know",
                };
                let done = if finding.repaired { "; it was written again" } else { "" };
                context.out.warn(format!("{}: '{}' {what}{done}", table.name, finding.name));
            }
        }
        for (name, error) in &pass.failures {
            context.out.warn(format!("{name}: {error}"));
        }
        let objects: u64 = pass.tables.iter().map(|table| table.expected).sum();
        context.out.say(format!(
            "{}, {}: {}",
            plural(u64::try_from(pass.tables.len()).unwrap_or(u64::MAX), "table"),
            plural(objects, "commit file"),
            match (pass.drift(), pass.unrepaired()) {
                (0, _) => "all is there".to_owned(),
                (drift, 0) => format!("{drift} wrong, all put right"),
                (drift, left) => format!("{drift} wrong, {left} of them still are"),
            }
        ))
    }
}

/// The counter `mirror_parity_drift_total` of each table, kept in the file that it is given out in: so it
/// goes on where the process before this one stopped.
struct DriftCounter {
    file: PathBuf,
    totals: BTreeMap<TableId, u64>,
}

impl DriftCounter {
    const NAME: &str = "mirror_parity_drift_total";

    fn open(file: &Path) -> Result<DriftCounter> {
        prepare(file)?;
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Failure::io(format!("cannot read '{}'", file.display()), e)),
        };
        Ok(DriftCounter { file: file.to_owned(), totals: Self::parse(&text) })
    }

    /// Lines of ours; others are not kept.
    fn parse(text: &str) -> BTreeMap<TableId, u64> {
        let sample = |line: &str| {
            let rest = line.strip_prefix(Self::NAME)?.strip_prefix("{table_id=\"")?;
            let (id, total) = rest.split_once("\"} ")?;
            Some((id.parse().ok()?, total.trim().parse().ok()?))
        };
        text.lines().filter_map(sample).collect()
    }

    fn add(&mut self, pass: &ReconcilePass) -> Result<()> {
        use std::fmt::Write as _;
        for table in &pass.tables {
            let total = self.totals.entry(table.table_id).or_default();
            *total = total.saturating_add(table.drift);
        }
        let name = Self::NAME;
        let mut text = format!(
            "# HELP {name} Published objects that were missing or changed when they were looked at.\n\
             # TYPE {name} counter\n"
        );
        for (id, total) in &self.totals {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}{{table_id=\"{id}\"}} {total}");
        }
        replace(&self.file, &text)
    }
}

impl Status {
    /// What a monitor wants to know of a table.
    fn code(status: &MirrorView) -> u8 {
        if status.table.mirror == MirrorMode::Diverged {
            exit::DRIFT
        } else if status.late {
            exit::LAG
        } else {
            exit::OK
        }
    }

    async fn run(&self, context: &Context) -> Result<u8> {
        let late = Duration::from_secs(u64::from(self.late));
        if let Some(table) = &self.table {
            let (db, table) = context.table(table).await?;
            let db = db.on_primary();
            let record = db.catalog().table(&table).await?;
            let status = MirrorView::look(&db, &record, true, late).await?;
            let code = Self::code(&status);
            if context.out.is_json() {
                context.out.document(&[status])?;
                return Ok(code);
            }
            context.out.text(summary(&status))?;
            if let Some(error) =
                status.last_error.as_ref().filter(|_| status.table.mirror == MirrorMode::Diverged)
            {
                context.out.text(error)?;
            }
            if !status.versions.is_empty() {
                let mut list = context.out.list(
                    &["version", "state", "attempts", "committed (UTC)", "next try (UTC)", "error"],
                    &[0, 2],
                );
                for v in &status.versions {
                    list.push(v, || {
                        vec![
                            v.version.to_string(),
                            v.state.as_str().to_owned(),
                            v.attempts.to_string(),
                            time::show(v.enqueued_at_ms),
                            v.retry_at_ms.map(time::show).unwrap_or_default(),
                            v.last_error.clone().unwrap_or_default(),
                        ]
                    })?;
                }
                list.end()?;
            }
            return Ok(code);
        }
        let db = context.db().await?.on_primary();
        let filter = TableFilter { state: Some(TableState::Active), ..TableFilter::default() };
        let mut tables = db.tables(filter);
        let mut list = context.out.list(
            &["table", "mirror", "version", "published", "waiting", "failed", "lag", "error"],
            &[2, 3, 4, 5, 6],
        );
        let (mut diverged, mut lags) = (false, false);
        while let Some(record) = tables.try_next().await? {
            let status = MirrorView::look(&db, &record, false, late).await?;
            let code = Self::code(&status);
            diverged |= code == exit::DRIFT;
            lags |= code == exit::LAG;
            list.push(&status, || {
                let version =
                    |v: Option<Version>| v.map_or_else(|| "-".to_owned(), |v| v.to_string());
                vec![
                    status.table.table.clone(),
                    status.table.mirror.as_str().to_owned(),
                    version(status.table.version),
                    version(status.table.published_version),
                    count(status.unpublished),
                    count(status.failed),
                    if status.unpublished == 0 { "-".to_owned() } else { lag(status.lag_seconds) },
                    status.last_error.clone().unwrap_or_default(),
                ]
            })?;
        }
        list.end()?;
        Ok(match (diverged, lags) {
            (true, _) => exit::DRIFT,
            (false, true) => exit::LAG,
            (false, false) => exit::OK,
        })
    }
}

fn summary(status: &MirrorView) -> String {
    let version = |v: Option<Version>| v.map_or_else(|| "-".to_owned(), |v| v.to_string());
    format!(
        "{}: mirror {}, version {}, published {}, {} waiting{}",
        status.table.table,
        status.table.mirror.as_str(),
        version(status.table.version),
        version(status.table.published_version),
        count(status.unpublished),
        if status.unpublished == 0 {
            String::new()
        } else {
            format!(", {} behind", lag(status.lag_seconds))
        }
    )
}

fn lag(seconds: f64) -> String {
    let ms = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    time::show_duration(i64::try_from(ms.as_millis()).unwrap_or(i64::MAX))
}

/// Reads a table's part of the outbox; with `versions`, the first page of it in full.

#[derive(Debug, Serialize)]
struct Retried {
    table: String,
    versions: u64,
}

async fn retry(table: &str, context: &Context) -> Result<()> {
    let (db, table) = context.table(table).await?;
    let db = db.on_primary();
    let record = db.catalog().table(&table).await?;
    let versions = db.backend().mirror_retry(record.id, &db.act()).await?;
    if context.out.is_json() {
        return context.out.document(&Retried { table: record.name.to_string(), versions });
    }
    context.out.say(format!(
        "{} of '{}' may be tried now: `dl mirror run {}`",
        plural(versions, "version"),
        record.name,
        record.name
    ))
}

async fn set_mode(table: &str, mode: MirrorMode, context: &Context) -> Result<()> {
    let (db, table) = context.table(table).await?;
    let db = db.on_primary();
    let record = db.catalog().table(&table).await?;
    let record = db.backend().mirror_set_mode(record.id, mode, &db.act()).await?;
    // The cache may hold the row as it was.
    let record = db.catalog().table(&TableRef::Id(record.id)).await.unwrap_or(record);
    if context.out.is_json() {
        return context.out.document(&TableView::from(&record));
    }
    context.out.say(format!(
        "Publishing of '{}' is {}.",
        record.name,
        if mode == MirrorMode::Off { "off" } else { "on: `dl mirror run` catches up" }
    ))
}
