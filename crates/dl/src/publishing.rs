//! Publishing from a command: right after a commit, or until all is there.

use std::time::{Duration, Instant};

use deltalakedb::Db;
use deltalakedb::core::ids::{TableId, TableRef};
use deltalakedb::core::model::MirrorMode;
use deltalakedb::mirror::publish::{PublishIssue, Publisher, PublisherConfig, RunReport};

use crate::context::Context;
use crate::failure::Result;

/// Lease of a command: short, as only a killed one leaves it behind, and others wait for it then.
const LEASE_MS: i64 = 10_000;
/// Longest wait for a lease that a killed process may have left (its own may be a service's).
const LEASE_WAIT: Duration = Duration::from_secs(32);
/// Pause between two looks at such a lease.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A publisher for as long as a command runs.
pub(crate) fn publisher(context: &Context, db: &Db) -> Publisher {
    let default = PublisherConfig { lease_ms: LEASE_MS, ..PublisherConfig::default() };
    db.publisher(context.publisher_config(default))
}

/// A worker that goes on, and looks at idle tables so often for commits of other programs.
pub(crate) fn watcher(context: &Context, db: &Db, foreign_check: Option<Duration>) -> Publisher {
    let default = PublisherConfig { lease_ms: LEASE_MS, ..PublisherConfig::default() };
    let mut config = context.publisher_config(default);
    if let Some(every) = foreign_check {
        config.foreign_check_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    }
    db.publisher(config)
}

/// Publishes tables right after a commit. Failing is a warning: the commit stands.
pub(crate) async fn after_commit(context: &Context, db: &Db, tables: &[TableId]) -> Vec<String> {
    let mut warnings = Vec::new();
    let publisher = publisher(context, db);
    for id in tables {
        if let Some(trouble) = publish_one(db, &publisher, *id).await {
            context.out.warn(&trouble);
            warnings.push(trouble);
        }
    }
    warnings
}

async fn publish_one(db: &Db, publisher: &Publisher, id: TableId) -> Option<String> {
    let label = match db.catalog().table(&TableRef::Id(id)).await {
        Ok(table) if table.mirror == MirrorMode::Off => return None,
        Ok(table) => table.name.to_string(),
        Err(_) => id.to_string(),
    };
    let mut stopped = false;
    let trouble = match publisher.run_once(Some(id)).await {
        Err(error) => error.to_string(),
        Ok(report) => match report.failures.first() {
            Some(issue) if issue.published => {
                return Some(format!(
                    "table '{}', version {}: {}",
                    issue.name, issue.version, issue.error
                ));
            }
            Some(issue) => {
                stopped = issue.diverged;
                issue.error.clone()
            }
            None if report.unpublished > 0 => {
                "another worker has the table, or an earlier version waits to be tried again"
                    .to_owned()
            }
            None => return None,
        },
    };
    let next = if stopped {
        // The trouble itself says what to do.
        String::new()
    } else {
        format!(". `dl mirror run {label}` catches up")
    };
    Some(format!("the commit to '{label}' stands, but is not published yet: {trouble}{next}"))
}

/// Publishes everything that is due. A lease that someone holds is waited for: it lapses soon if
/// its holder was killed.
pub(crate) async fn until_done(
    context: &Context,
    db: &Db,
    only: Option<TableId>,
) -> Result<RunReport> {
    let publisher = publisher(context, db);
    let started = Instant::now();
    let mut told = false;
    let mut total = RunReport::default();
    loop {
        let report = publisher.run_once(only).await?;
        let went_on = report.published > 0;
        merge(&mut total, report);
        if total.unpublished == 0 || !waits_for_a_lease(db, only).await? {
            return Ok(total);
        }
        if !went_on {
            if started.elapsed() > LEASE_WAIT {
                return Ok(total);
            }
            if !told {
                told = true;
                context.out.hint(
                    "Another worker is publishing, or was killed a moment ago: waiting for it …",
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Whether something unpublished neither failed nor waits for its time: then a lease is in the way.
async fn waits_for_a_lease(db: &Db, only: Option<TableId>) -> Result<bool> {
    let page = db.backend().mirror_rows(only, None, None, 1_000).await?;
    let mut seen = None;
    for row in page.items {
        // Only a table's first version can be claimed; the others wait behind it.
        if seen.replace(row.table_id) == Some(row.table_id) || row.retry_at.is_some() {
            continue;
        }
        let table = db.catalog().table(&TableRef::Id(row.table_id)).await?;
        let live = table.state == deltalakedb::core::model::TableState::Active;
        if live && table.mirror == MirrorMode::Active {
            return Ok(true);
        }
    }
    Ok(false)
}

fn merge(total: &mut RunReport, report: RunReport) {
    total.published += report.published;
    total.checkpoints += report.checkpoints;
    total.diverged += report.diverged;
    total.lost_leases += report.lost_leases;
    total.unpublished = report.unpublished;
    total.failures.extend(report.failures);
    for (id, run) in report.tables {
        match total.tables.get_mut(&id) {
            Some(known) => {
                known.published += run.published;
                known.checkpoints += run.checkpoints;
                known.published_version = known.published_version.max(run.published_version);
            }
            None => {
                total.tables.insert(id, run);
            }
        }
    }
}

/// A failure as a line for people.
pub(crate) fn describe(issue: &PublishIssue) -> String {
    let next = match (issue.diverged, issue.published, issue.retry_at) {
        (true, ..) => format!(
            "; publishing of this table has stopped. Look with `dl diff --table {}`",
            issue.name
        ),
        (_, true, _) => "; the version itself is published".to_owned(),
        (.., Some(at)) => format!(
            "; tried again after {} UTC (`dl mirror retry {}`: now)",
            crate::time::show(at),
            issue.name
        ),
        _ => String::new(),
    };
    format!("table '{}', version {}: {}{next}", issue.name, issue.version, issue.error)
}
