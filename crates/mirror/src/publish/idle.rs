//! A worker's look at tables for which nothing waits: has another program committed to their logs?
//!
//! A foreign commit stands in the way of the next commit of the catalog, and publishing finds it
//! there. A table that nobody commits to would not be looked at until then.

use std::time::Duration;

use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, TableRef, TimestampMs};
use deltalakedb_catalog_core::model::{MirrorMode, TableRecord, TableState};
use deltalakedb_catalog_engine::pages::each_page;
use futures::{StreamExt, TryStreamExt};

use super::Publisher;
use crate::foreign::Desk;

/// Tables listed at a time.
const PAGE: usize = 500;

/// Whether everything of a table is published.
fn is_idle(table: &TableRecord) -> bool {
    table.state == TableState::Active
        && table.mirror == MirrorMode::Active
        && table.published_version.is_some()
        && table.published_version == table.head
}

impl Publisher {
    /// Looks for the next object of each idle table, once in each interval, for ever: one request a
    /// table, evenly spread over the interval, a bounded number at a time.
    pub(super) async fn watch_idle(&self) {
        let every = self.config.foreign_check_ms;
        if every <= 0 {
            return std::future::pending().await;
        }
        loop {
            let start = self.clock.now();
            match self.idle_tables().await {
                Ok(idle) => self.look_at(idle, start, every).await,
                Err(error) => tracing::warn!(%error, "idle tables could not be listed"),
            }
            self.sleep_until(start.plus_ms(every)).await;
            // A clock that does not wait must not keep the work from its turn.
            tokio::task::yield_now().await;
        }
    }

    /// Looks at each of these tables at its time.
    async fn look_at(&self, idle: Vec<TableId>, start: TimestampMs, every: i64) {
        let tables = i64::try_from(idle.len()).unwrap_or(i64::MAX).max(1);
        let looks = (0_i64..).zip(idle).map(|(i, id)| async move {
            // Of `tables` equal parts of the interval the i-th begins then.
            let into = i128::from(every) * i128::from(i) / i128::from(tables);
            self.sleep_until(start.plus_ms(i64::try_from(into).unwrap_or(every))).await;
            if let Err(error) = self.look_at_one(id).await {
                tracing::warn!(table = %id, %error, "not looked at for foreign commits");
            }
        });
        let mut looks =
            futures::stream::iter(looks).buffer_unordered(self.config.concurrency.max(1));
        while looks.next().await.is_some() {}
    }

    async fn look_at_one(&self, id: TableId) -> Result<()> {
        let table = TableRef::Id(id);
        let record = self.retry.repeat(|| self.backend.get_table(&table)).await?;
        let Some(record) = record.filter(is_idle) else { return Ok(()) };
        let Some(published) = record.published_version else { return Ok(()) };
        let sink = match self.kept_sink(&record) {
            Some(sink) => sink,
            // Not kept: idle tables may be many, and those that are published need their sinks.
            None => (self.open)(&record)?,
        };
        tracing::debug!(table = %record.name, version = %published.next(), "looking for a foreign commit");
        let desk = Desk {
            backend: self.backend.as_ref(),
            retry: &self.retry,
            clock: self.clock.as_ref(),
            actor: &self.actor,
        };
        desk.look(id, sink.as_ref(), published.next()).await.map(drop)
    }

    /// Ids of the tables for which nothing waits.
    async fn idle_tables(&self) -> Result<Vec<TableId>> {
        let filter = TableFilter { namespace: None, state: Some(TableState::Active) };
        let (filter, mut idle) = (&filter, Vec::new());
        let mut pages = each_page(|after| async move {
            self.retry.repeat(|| self.backend.list_tables(filter, after.as_ref(), PAGE)).await
        });
        while let Some(tables) = pages.try_next().await? {
            idle.extend(tables.iter().filter(|table| is_idle(table)).map(|table| table.id));
        }
        Ok(idle)
    }

    async fn sleep_until(&self, at: TimestampMs) {
        let ms = at.0.saturating_sub(self.clock.now().0);
        if let Ok(ms) = u64::try_from(ms)
            && ms > 0
        {
            self.clock.sleep(Duration::from_millis(ms)).await;
        }
    }
}
