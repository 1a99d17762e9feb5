//! How far publishing is, over all tables, as the database says: for metrics and health checks.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::backend::{CatalogBackend, TableFilter};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorState, TableRecord, TableState};
use serde::Serialize;

/// Rows of the outbox a call: of a table with more, the rest is passed over.
const ROWS: usize = 200;
/// Tables a call.
const TABLES: usize = 1_000;
/// Most calls of one survey: a catalog with more to tell is refused, and not asked for ever.
const MOST_CALLS: u32 = 10_000;

/// How far publishing of a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorStatus {
    /// All of its commits are published.
    Published,
    /// A commit waits.
    Pending,
    /// The first commit that waits has failed, and is tried again.
    Failed,
    /// A commit of another program stands in its log: publishing has stopped.
    Diverged,
    /// Publishing is turned off.
    Off,
}

impl MirrorStatus {
    /// All of them.
    pub const ALL: [MirrorStatus; 5] = [
        MirrorStatus::Published,
        MirrorStatus::Pending,
        MirrorStatus::Failed,
        MirrorStatus::Diverged,
        MirrorStatus::Off,
    ];

    /// As it is in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            MirrorStatus::Published => "published",
            MirrorStatus::Pending => "pending",
            MirrorStatus::Failed => "failed",
            MirrorStatus::Diverged => "diverged",
            MirrorStatus::Off => "off",
        }
    }
}

/// One table of a survey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SurveyedTable {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// How far it is.
    pub status: MirrorStatus,
    /// When the oldest commit that waits was made; none if none waits.
    pub waits_since: Option<TimestampMs>,
}

/// All active tables, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// The tables.
    pub tables: Vec<SurveyedTable>,
}

impl Survey {
    /// Asks the database: a page of tables a call, and one row of the outbox a table that waits, in a bounded
    /// number of calls. Drop the future to end it earlier.
    ///
    /// # Errors
    /// Those of the database; `Unavailable` if a catalog has more tables than the calls suffice for.
    pub async fn take(backend: &dyn CatalogBackend) -> Result<Survey> {
        let mut calls = 0_u32;
        let waiting = waiting(backend, &mut calls).await?;
        let filter = TableFilter { namespace: None, state: Some(TableState::Active) };
        let (mut tables, mut after) = (Vec::new(), None);
        loop {
            count(&mut calls)?;
            let page = backend.list_tables(&filter, after.as_ref(), TABLES).await?;
            tables.extend(page.items.iter().map(|record| surveyed(record, &waiting)));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        tables.sort_by_key(|table: &SurveyedTable| table.table_id);
        Ok(Survey { tables })
    }

    /// How many tables there are in each state.
    #[must_use]
    pub fn statuses(&self) -> BTreeMap<MirrorStatus, u64> {
        let mut all: BTreeMap<_, _> = MirrorStatus::ALL.map(|status| (status, 0)).into();
        for table in &self.tables {
            *all.entry(table.status).or_default() += 1;
        }
        all
    }

    /// Age of the oldest commit that waits, seconds: of the `most` tables that are the latest, and the largest
    /// of all other ones.
    #[must_use]
    pub fn lags(&self, now: TimestampMs, most: usize) -> (Vec<(TableId, f64)>, Option<f64>) {
        let lag = |table: &SurveyedTable| {
            let ms = table.waits_since.map_or(0, |since| now.0.saturating_sub(since.0).max(0));
            (table.table_id, std::time::Duration::from_millis(ms.unsigned_abs()).as_secs_f64())
        };
        let mut lags: Vec<(TableId, f64)> = self.tables.iter().map(lag).collect();
        lags.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let other = lags.get(most).map(|(_, lag)| *lag);
        lags.truncate(most);
        (lags, other)
    }
}

/// The first row of each table that waits: its time, and whether it failed.
async fn waiting(
    backend: &dyn CatalogBackend,
    calls: &mut u32,
) -> Result<BTreeMap<TableId, (TimestampMs, bool)>> {
    let mut first = BTreeMap::new();
    let end = Version::new(Version::NEVER - 1)?;
    let mut after: Option<(TableId, Version)> = None;
    loop {
        count(calls)?;
        let page = backend.mirror_rows(None, None, after, ROWS).await?;
        for row in &page.items {
            let failed = row.state == MirrorState::Failed;
            first.entry(row.table_id).or_insert((row.enqueued_at, failed));
        }
        match (page.next, page.items.last()) {
            // A table has its oldest row first: the others of the last one are passed over.
            (Some(_), Some(last)) => after = Some((last.table_id, end)),
            _ => return Ok(first),
        }
    }
}

fn surveyed(
    record: &TableRecord,
    waiting: &BTreeMap<TableId, (TimestampMs, bool)>,
) -> SurveyedTable {
    let waits = waiting.get(&record.id).filter(|_| record.mirror != MirrorMode::Off);
    let status = match (record.mirror, waits) {
        (MirrorMode::Off, _) => MirrorStatus::Off,
        (MirrorMode::Diverged, _) => MirrorStatus::Diverged,
        (_, Some((_, true))) => MirrorStatus::Failed,
        (_, Some((_, false))) => MirrorStatus::Pending,
        (_, None) => MirrorStatus::Published,
    };
    SurveyedTable {
        table_id: record.id,
        name: record.name.clone(),
        status,
        waits_since: waits.map(|(since, _)| *since),
    }
}

fn count(calls: &mut u32) -> Result<()> {
    *calls += 1;
    if *calls > MOST_CALLS {
        return Err(CatalogError::failed(
            format!(
                "the catalog has more tables than {MOST_CALLS} calls can tell of: watch it in parts, with \
                 `dl mirror status`"
            ),
            WriteState::NotApplied,
        ));
    }
    Ok(())
}
