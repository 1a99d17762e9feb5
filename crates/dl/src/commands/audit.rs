//! `dl audit`

use std::io;

use clap::Args;
use deltalakedb::audit::{AuditEvent, AuditQuery};
use deltalakedb::core::audit::AuditOrder;
use futures::TryStreamExt;
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{Format, count};
use crate::time;

/// Arguments of `dl audit`.
#[derive(Debug, Args)]
#[command(after_help = "\
Oldest first, unless --newest-first is given. Commits of all tables are among the rows, by their
operation: table.create, table.alter, table.cutover, table.release, commit. What else is recorded:
table.drop, table.undrop, mirror.mode, mirror.retry, import.finish, import.abort, vacuum.start,
vacuum.end, restore, copy. --user NAME shows only what was done on behalf of this user.
Times are RFC 3339, YYYY-MM-DD, 'YYYY-MM-DD HH:MM:SS' (both UTC) or Unix ms.

Examples:
  dl audit --newest-first --limit 20
  dl audit --table sales.orders --action table.drop --action table.undrop
  dl audit --user ann --since 2026-01-01 --until 2026-02-01 --no-commits
  dl audit --format csv > audit.csv
  dl audit --format json | jq '.[] | select(.action == \"table.drop\")'")]
pub(crate) struct Audit {
    /// Only this table: namespace.table (also one that was dropped), its id, or a delta+sql:// URL
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Only this action (may be repeated)
    #[arg(long = "action", value_name = "ACTION")]
    actions: Vec<String>,
    /// What was done at or after this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// What was done before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Leave commits out
    #[arg(long)]
    no_commits: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// The newest first
    #[arg(long)]
    newest_first: bool,
}

/// Columns of the table for people.
const COLUMNS: [&str; 6] = ["time (UTC)", "action", "table", "who", "from", "detail"];
/// Columns of the form for spreadsheets.
const CSV: [&str; 11] = [
    "time", "action", "table", "table_id", "version", "user", "origin", "program", "detail",
    "token", "id",
];

impl Audit {
    pub(crate) async fn run(&self, context: &Context) -> Result<()> {
        let (db, table) = match &self.table {
            Some(table) => {
                let (db, table) = context.table(table).await?;
                (db, Some(table))
            }
            None => (context.db().await?, None),
        };
        let query = AuditQuery {
            table,
            actions: self.actions.clone(),
            user: context.user_flag().map(str::to_owned),
            since: self.since.as_deref().map(time::parse).transpose()?,
            until: self.until.as_deref().map(time::parse).transpose()?,
            no_commits: self.no_commits,
            order: if self.newest_first {
                AuditOrder::NewestFirst
            } else {
                AuditOrder::OldestFirst
            },
        };
        let mut events = db.audit(query).await?;
        let limit = self.limit.unwrap_or(usize::MAX);
        if context.out.format() == Format::Csv {
            let mut out = csv::Writer::from_writer(io::stdout().lock());
            out.write_record(CSV).map_err(written)?;
            let mut left = limit;
            while left > 0
                && let Some(event) = events.try_next().await?
            {
                out.write_record(record(&event)).map_err(written)?;
                left -= 1;
            }
            out.flush()?;
            return Ok(());
        }
        let mut list = context.out.list(&COLUMNS, &[]);
        while list.len() < limit {
            let Some(event) = events.try_next().await? else { break };
            list.push(&event, || row(&event))?;
        }
        list.end()
    }
}

fn written(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => Failure::invalid(format!("a row has no form in CSV: {other:?}")),
    }
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

fn row(event: &AuditEvent) -> Vec<String> {
    vec![
        time::show(event.at_ms),
        event.action.clone(),
        or_dash(event.table.as_deref()),
        or_dash(event.user.as_deref().or(event.program.as_deref())),
        or_dash(event.origin.as_deref()),
        detail(event),
    ]
}

/// What else there is, for people: `version 3, WRITE, +2 files`, `from active, to off`.
fn detail(event: &AuditEvent) -> String {
    let Some(Value::Object(fields)) = &event.detail else { return String::new() };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let Some(version) = event.version else {
        let fields = fields.iter().map(|(name, value)| format!("{name} {}", text(value)));
        return fields.collect::<Vec<_>>().join(", ");
    };
    let mut parts = vec![format!("version {version}")];
    parts.extend(fields.get("operation").map(text));
    for (sign, name) in [('+', "files_added"), ('-', "files_removed")] {
        let files = fields.get(name).and_then(Value::as_u64).filter(|files| *files > 0);
        parts.extend(files.map(|files| format!("{sign}{} files", count(files))));
    }
    parts.join(", ")
}

/// The values as they are: a program that opens the file must not take text for formulas.
fn record(event: &AuditEvent) -> [String; 11] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        time::show(event.at_ms),
        event.action.clone(),
        text(&event.table),
        event.table_id.map(|id| id.to_string()).unwrap_or_default(),
        event.version.map(|version| version.to_string()).unwrap_or_default(),
        text(&event.user),
        text(&event.origin),
        text(&event.program),
        event.detail.as_ref().map(Value::to_string).unwrap_or_default(),
        event.token.as_ref().map(|token| token.as_str().to_owned()).unwrap_or_default(),
        event.id.map(|id| id.to_string()).unwrap_or_default(),
    ]
}
