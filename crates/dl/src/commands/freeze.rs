//! `dl freeze` and `dl unfreeze`

use std::time::{Duration, Instant};

use clap::Args;
use deltalakedb::Db;
use deltalakedb::core::backend::TableFilter;
use deltalakedb::core::catalog::{FreezeReport, SwitchedTable};
use deltalakedb::core::frozen::Frozen;
use deltalakedb::core::ids::{At, CommitToken, TableId, TableRef, TimestampMs, Version};
use deltalakedb::core::model::{MirrorMode, TableState};
use deltalakedb::mirror::publish::wait_published;
use futures::TryStreamExt;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::plural;
use crate::publishing;

/// Arguments of `dl freeze`.
#[derive(Debug, Args)]
#[command(after_help = "\
A frozen table is read as always. Every write to it is refused, whoever writes: its rows, schema and
properties, optimizing, deleting data files, dropping, cut-over and release. The error says who has
frozen it, when and why. Publishing, checkpoints, comparing, copies and backups go on.

Freezing is a commit, of all tables in one transaction. What was planned before and comes after it
is refused. Programs that write to the files of a published table are kept out by the writer feature
'deltalakedb.frozen' once the commit is published: --wait returns then. Some engines vacuum a table
without looking at its features: stop those first.

A table that is frozen already stays as it is; if all are, nothing is committed.

Examples:
  dl freeze sales.orders --reason 'the store moves, until 06:00'
  dl freeze sales.orders sales.items --wait --timeout 60
  dl freeze --namespace sales --token window-2026-01-31
  dl unfreeze --namespace sales")]
pub(crate) struct Freeze {
    #[command(flatten)]
    which: Which,
}

/// Arguments of `dl unfreeze`.
#[derive(Debug, Args)]
#[command(after_help = "\
Lets writers in again: those that could write before. All tables in one transaction, or none.

Examples:
  dl unfreeze sales.orders
  dl unfreeze --namespace sales --reason 'the store has moved' --wait")]
pub(crate) struct Unfreeze {
    #[command(flatten)]
    which: Which,
}

/// Which tables, and how.
#[derive(Debug, Args)]
struct Which {
    /// Tables: namespace.table, ids, or delta+sql:// URLs of one catalog
    #[arg(required_unless_present = "namespace")]
    tables: Vec<String>,
    /// All tables of this namespace, besides those that are named
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Why: one line, for the history and for whoever is refused
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Idempotency token: 1 to 128 printable ASCII characters
    #[arg(long)]
    token: Option<String>,
    /// Leave publishing to `dl mirror run`
    #[arg(long)]
    no_publish: bool,
    /// Return only when this is published, by whichever worker
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after this time [default: no limit]
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<f64>,
}

impl Freeze {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        self.which.run(context, true).await
    }
}

impl Unfreeze {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        self.which.run(context, false).await
    }
}

/// What the command did.
#[derive(Debug, Serialize)]
struct View {
    /// None if nothing was committed.
    token: Option<CommitToken>,
    /// Whether an earlier call with this token has done it.
    replayed: bool,
    tables: Vec<TableView>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TableView {
    table: String,
    id: TableId,
    /// Whether it is frozen now.
    frozen: bool,
    /// Whether this commit changed that.
    changed: bool,
    /// The version that this commit wrote.
    version: Option<Version>,
    since_ms: Option<TimestampMs>,
    user: Option<String>,
    reason: Option<String>,
}

impl Which {
    async fn run(&self, context: &Context, freezes: bool) -> Result<()> {
        let timeout = self.timeout.map(limit).transpose()?;
        let (db, mut tables) = context.tables(self.tables.iter().map(String::as_str)).await?;
        let db = db.on_primary();
        if let Some(namespace) = &self.namespace {
            let state = Some(TableState::Active);
            let mut found = db.tables(TableFilter { namespace: Some(namespace.clone()), state });
            let named = tables.len();
            while let Some(table) = found.try_next().await? {
                tables.push(TableRef::Id(table.id));
            }
            if tables.len() == named {
                return Err(Failure::invalid(format!(
                    "namespace '{}' has no tables (`dl list` shows all)",
                    namespace.escape_debug()
                )));
            }
        }
        context.to_go_on(
            "the commit took effect for all tables or for none, and the same command finishes it: \
             tables that are so already stay as they are",
        );
        let mut work = if freezes { db.freeze(&tables) } else { db.unfreeze(&tables) };
        if let Some(reason) = &self.reason {
            work = work.reason(reason);
        }
        if let Some(token) = &self.token {
            work = work.token(token);
        }
        let report = work.await?;
        let mut warnings = self.publish(context, &db, &report).await;
        if self.wait {
            wait(&db, &report, timeout).await?;
        } else {
            warnings.extend(unpublished(context, &db, &report.tables, freezes).await?);
        }
        let tables = views(&db, &report).await?;
        if context.out.is_json() {
            let replayed = report.commit.as_ref().is_some_and(|commit| commit.replayed);
            let token = report.commit.map(|commit| commit.token);
            return context.out.document(&View { token, replayed, tables, warnings });
        }
        for table in &tables {
            context.out.say(line(table, freezes))?;
        }
        if tables.len() > 1 {
            let changed = tables.iter().filter(|table| table.changed).count();
            context.out.hint(format!(
                "{}, {} changed by this commit.",
                plural(u64::try_from(tables.len()).unwrap_or(u64::MAX), "table"),
                changed
            ));
        }
        Ok(())
    }

    async fn publish(&self, context: &Context, db: &Db, report: &FreezeReport) -> Vec<String> {
        if self.no_publish {
            return Vec::new();
        }
        // Also what an earlier call has left.
        let ids: Vec<TableId> = report.tables.iter().map(|table| table.table_id).collect();
        publishing::after_commit(context, db, &ids).await
    }
}

fn limit(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| Failure::invalid(format!("--timeout {seconds}: not a time")))
}

/// Waits until each table is published up to the commit, all of them within one time.
async fn wait(db: &Db, report: &FreezeReport, limit: Option<Duration>) -> Result<()> {
    let begun = Instant::now();
    for table in &report.tables {
        let left = limit.map(|limit| limit.saturating_sub(begun.elapsed()));
        wait_published(db, &TableRef::Id(table.table_id), table.version, left).await?;
    }
    Ok(())
}

/// Warns of tables whose writers of files are not told.
async fn unpublished(
    context: &Context,
    db: &Db,
    tables: &[SwitchedTable],
    freezes: bool,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for table in tables {
        let record = db.catalog().table(&TableRef::Id(table.table_id)).await?;
        if record.mirror != MirrorMode::Off {
            continue;
        }
        let warning = format!(
            "publishing of '{}' is off: programs that write to its files {}",
            record.name,
            if freezes { "are not kept out" } else { "are not told" }
        );
        context.out.warn(&warning);
        warnings.push(warning);
    }
    Ok(warnings)
}

/// The tables as they are now: a token may be of a time ago.
async fn views(db: &Db, report: &FreezeReport) -> Result<Vec<TableView>> {
    let mut views = Vec::with_capacity(report.tables.len());
    for SwitchedTable { table_id, name, version } in &report.tables {
        let head = db.snapshot(&TableRef::Id(*table_id), At::Head).await?;
        let frozen = db.catalog().frozen(&head).await?;
        let is_frozen = frozen.is_some();
        let (since, user, reason) = match frozen {
            Some(Frozen { since, user, reason, .. }) => (since, user, reason),
            None => (None, None, None),
        };
        views.push(TableView {
            table: name.to_string(),
            id: *table_id,
            frozen: is_frozen,
            changed: version.is_some() && report.changed(),
            version: *version,
            since_ms: since,
            user,
            reason,
        });
    }
    Ok(views)
}

fn line(view: &TableView, freezes: bool) -> String {
    let TableView { table, changed, version, frozen, .. } = view;
    let told = Frozen {
        table: table.clone(),
        version: version.unwrap_or(Version::ZERO),
        since: view.since_ms,
        user: view.user.clone(),
        reason: view.reason.clone(),
    };
    match (*version, *changed, *frozen) {
        (Some(version), true, _) if freezes => {
            format!("'{table}' is frozen from version {version} on.")
        }
        (Some(version), true, _) => {
            format!("'{table}' is not frozen any more, from version {version} on.")
        }
        (Some(version), false, true) => format!(
            "'{table}': this token was committed before, as version {version}; it is frozen {}.",
            told.details()
        ),
        (Some(version), false, false) => format!(
            "'{table}': this token was committed before, as version {version}; it is not frozen."
        ),
        (None, _, true) if view.since_ms.is_none() => format!("'{table}' is frozen already."),
        (None, _, true) => format!("'{table}' is frozen already, {}.", told.details()),
        (None, _, false) => format!("'{table}' is not frozen."),
    }
}
