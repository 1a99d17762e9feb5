//! Steps that concern the whole catalog.

use std::collections::BTreeMap;
use std::time::Duration;

use deltalakedb_catalog_core::diagnosis::Tended;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_engine::env::Progress;

use super::MaintainPlan;
use super::step::Done;
use crate::Db;
use crate::backup::{self, BackupOptions};
use crate::uri::Place;

pub(super) async fn backup(
    db: &Db,
    plan: &MaintainPlan,
    done: &mut Done,
    progress: &dyn Progress,
) -> Result<()> {
    let Some(wish) = &plan.backup else {
        done.skip("maintenance.backup.to names no place");
        return Ok(());
    };
    let place = backup::Place::open(&wish.to, &BTreeMap::new())?;
    let now = db.clock().now();
    let listing = place.list().await?;
    let last_full =
        listing.sets.iter().rev().find(|set| set.manifest.parent.is_none() && set.broken.is_none());
    let full = last_full.is_none_or(|set| {
        let age = u64::try_from(now.0.saturating_sub(set.manifest.taken_at.0)).unwrap_or(0);
        wish.full_every.is_some_and(|every| Duration::from_millis(age) >= every)
    });
    let kind = if full { "full" } else { "incremental" };
    if plan.dry_run {
        done.note(format!("a set ({kind}) would be written to {}", place.describe()));
        return Ok(());
    }
    let options = BackupOptions { full, ..BackupOptions::default() };
    let report = db.backup(&place, &options, progress).await?;
    done.count("tables", report.counts.tables);
    done.count("commits", report.counts.commits);
    done.count("bytes", report.size_bytes);
    done.note(format!("set {} ({kind}) is in {}", report.set, place.describe()));
    for name in &report.left_out {
        done.note(format!("{name} was left out: its import is not finished"));
    }
    // What is new is there: now what is old may go.
    let Some(keep) = wish.keep else { return Ok(()) };
    let pruned = backup::prune(&place, keep, now).await?;
    done.count("sets_deleted", u64::try_from(pruned.sets.len()).unwrap_or(u64::MAX));
    for set in &pruned.sets {
        done.note(format!("set {set} was deleted"));
    }
    Ok(())
}

pub(super) async fn database(
    db: &Db,
    plan: &MaintainPlan,
    limit: Duration,
    done: &mut Done,
) -> Result<()> {
    let dry_run = plan.dry_run;
    let _ = limit;
    let tended = match db.uri().place() {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(sqlite) => crate::sqlite::tend(sqlite, limit, dry_run).await?,
        #[cfg(not(feature = "sqlite"))]
        Place::Sqlite(_) => return Err(crate::db::not_built(crate::uri::Scheme::Sqlite)),
        Place::Memory => Tended::nothing("the catalog is in the memory of this process"),
        Place::Server(server) => match server.scheme() {
            #[cfg(feature = "postgres")]
            crate::uri::Scheme::Postgres => crate::postgres::tend(server, limit, dry_run).await?,
            #[cfg(feature = "mysql")]
            crate::uri::Scheme::MySql => crate::mysql::tend(server, dry_run).await?,
            #[cfg(feature = "mssql")]
            crate::uri::Scheme::Mssql => Tended::nothing(
                "SQL Server keeps statistics up to date by itself (AUTO_UPDATE_STATISTICS), and its jobs rebuild \
                 indexes",
            ),
            other => return Err(crate::db::not_built(other)),
        },
    };
    let _ = dry_run;
    done.count("statements", u64::try_from(tended.done.len()).unwrap_or(u64::MAX));
    if tended.done.is_empty() {
        done.skip(tended.left.join("; "));
        return Ok(());
    }
    for text in tended.done.into_iter().chain(tended.left) {
        done.note(text);
    }
    Ok(())
}
