//! The part that hands out versions to be published. Versions up to the published one are complete, those after it
//! are not: claims and settlements read only the latter.

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::{
    ClaimRequest, MirrorLease, MirrorTask, OutboxBackend, PublishFailure, Published, Settlement,
};
use deltalakedb_catalog_core::error::{CatalogError, ReadResult, Result, WriteResult};
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    MirrorMode, MirrorRow, MirrorState, Page, TableRecord, TableState,
};
use redb::ReadableTable;

use crate::RedbBackend;
use crate::rows::{OutboxRow, TableRow};
use crate::store::{Key, ReadRows, Rows, Space, WriteRows, page};

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    pub(crate) fn outbox(&self, id: TableId, version: Version) -> Result<Option<MirrorRow>> {
        let row = self.get(&Key::of(Space::Outbox, id).version(version))?;
        Ok(row.map(|OutboxRow(row)| row))
    }

    /// The rows of a table that are not complete, at most so many.
    fn unpublished(&self, table: &TableRow, limit: usize) -> Result<Vec<MirrorRow>> {
        let rows = Key::of(Space::Outbox, table.record.id);
        let found = self.scan(&rows.clone().version(table.next_to_publish()), &rows.end())?;
        found.take(limit).map(|entry| Ok(entry?.json::<OutboxRow>()?.0)).collect()
    }

    /// The table of a lease, if the lease still holds.
    fn held(&self, lease: &MirrorLease) -> Result<Option<TableRow>> {
        let holds = |table: &TableRow| {
            table.epoch == lease.epoch
                && table.lease.as_ref().is_some_and(|(owner, _)| *owner == lease.owner)
        };
        Ok(self.table(lease.table_id)?.filter(holds))
    }

    /// Tables that a worker may have now, oldest work first. A lease holds before its end and lapses at it.
    fn claimable(&self, request: &ClaimRequest) -> Result<Vec<TableRow>> {
        let candidates: Vec<TableId> = match request.only {
            Some(id) => vec![id],
            None => self.all(Key::new(Space::Due))?.map(|e| e?.id()).collect::<Result<_>>()?,
        };
        let mut tables = Vec::new();
        for id in candidates {
            if tables.len() >= request.max_tables {
                break;
            }
            let free = |(owner, until): &(String, TimestampMs)| {
                *owner == request.owner || *until <= request.now
            };
            let table = self.table(id)?.filter(|table| table.due.is_some());
            let Some(table) = table.filter(|table| table.lease.as_ref().is_none_or(free)) else {
                continue;
            };
            let first = self.outbox(id, table.next_to_publish())?;
            if first.is_some_and(|row| row.retry_at.is_none_or(|at| at <= request.now)) {
                tables.push(table);
            }
        }
        Ok(tables)
    }
}

impl WriteRows<'_> {
    fn put_outbox(&mut self, row: MirrorRow) -> Result<()> {
        let key = Key::of(Space::Outbox, row.table_id).version(row.version);
        self.put(&key, &OutboxRow(row))
    }

    /// Puts a version into the outbox.
    pub(crate) fn enqueue(
        &mut self,
        id: TableId,
        version: Version,
        now: TimestampMs,
    ) -> Result<()> {
        self.put_outbox(MirrorRow {
            table_id: id,
            version,
            state: MirrorState::Pending,
            attempts: 0,
            last_error: None,
            retry_at: None,
            digest: None,
            enqueued_at: now,
            published_at: None,
        })
    }

    /// Enqueues every version after the published one that is not.
    pub(crate) fn enqueue_missing(&mut self, table: &TableRow, now: TimestampMs) -> Result<()> {
        let id = table.record.id;
        let commits = Key::of(Space::Commit, id);
        let found = self.scan(&commits.clone().version(table.next_to_publish()), &commits.end())?;
        let versions = found.map(|entry| entry?.version()).collect::<Result<Vec<_>>>()?;
        for version in versions {
            if self.outbox(id, version)?.is_none() {
                self.enqueue(id, version, now)?;
            }
        }
        Ok(())
    }

    fn claim(&mut self, mut table: TableRow, request: &ClaimRequest) -> Result<MirrorTask> {
        if table.lease.as_ref().is_none_or(|(owner, _)| *owner != request.owner) {
            table.epoch += 1;
        }
        let until = request.now.plus_ms(request.lease_ms);
        table.lease = Some((request.owner.clone(), until));
        let rows = self.unpublished(&table, request.max_versions.max(1))?;
        let attempts = rows.first().map_or(0, |row| row.attempts);
        let versions = rows.iter().map(|row| row.version).collect();
        for mut row in rows {
            row.state = MirrorState::InFlight;
            row.attempts = row.attempts.saturating_add(1);
            self.put_outbox(row)?;
        }
        self.put_table(&mut table)?;
        let (table_id, owner, epoch) = (table.record.id, request.owner.clone(), table.epoch);
        let lease = MirrorLease { table_id, owner, epoch, until };
        Ok(MirrorTask { lease, table: table.record, versions, attempts })
    }

    fn complete(&mut self, mut table: TableRow, done: &[Published]) -> Result<()> {
        for published in done {
            let next = table.next_to_publish();
            let row = self.outbox(table.record.id, next)?.filter(|_| published.version == next);
            let row = row.ok_or_else(|| {
                CatalogError::invalid(format!(
                    "table '{}': version {} was published out of order, {next} comes next",
                    table.record.name, published.version
                ))
            })?;
            self.put_outbox(MirrorRow {
                state: MirrorState::Complete,
                digest: Some(published.digest.clone()),
                published_at: Some(published.at),
                retry_at: None,
                last_error: None,
                ..row
            })?;
            table.record.published_version = Some(next);
        }
        self.put_table(&mut table)
    }

    fn fail(&mut self, mut table: TableRow, failure: &PublishFailure) -> Result<()> {
        let row = self.outbox(table.record.id, failure.version)?;
        let row = row.filter(|row| row.state != MirrorState::Complete).ok_or_else(|| {
            CatalogError::invalid(format!(
                "table '{}': version {} is not waiting to be published",
                table.record.name, failure.version
            ))
        })?;
        self.put_outbox(MirrorRow {
            state: MirrorState::Failed,
            last_error: Some(failure.error.clone()),
            retry_at: Some(failure.retry_at),
            ..row
        })?;
        // A table that was switched off meanwhile stays off: its later versions are not enqueued.
        if failure.diverged && table.record.mirror == MirrorMode::Active {
            table.record.mirror = MirrorMode::Diverged;
        }
        self.give_up_lease(table)
    }

    fn give_up_lease(&mut self, mut table: TableRow) -> Result<()> {
        table.lease = None;
        let pending = |row| MirrorRow { state: MirrorState::Pending, ..row };
        self.change_all(&table, MirrorState::InFlight, pending)?;
        self.put_table(&mut table)
    }

    /// Changes the rows of a table that are in a state. How many these are.
    fn change_all(
        &mut self,
        table: &TableRow,
        state: MirrorState,
        change: impl Fn(MirrorRow) -> MirrorRow,
    ) -> Result<u64> {
        let mut count = 0;
        for row in self.unpublished(table, usize::MAX)? {
            if row.state == state {
                self.put_outbox(change(row))?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn retry(&mut self, id: TableId, now: TimestampMs) -> Result<u64> {
        let mut table = self.in_state(id, TableState::Active)?;
        if table.record.mirror == MirrorMode::Diverged {
            table.record.mirror = MirrorMode::Active;
        }
        let due = |row| MirrorRow { retry_at: Some(now), ..row };
        let count = self.change_all(&table, MirrorState::Failed, due)?;
        self.put_table(&mut table)?;
        Ok(count)
    }

    fn set_mode(&mut self, id: TableId, mode: MirrorMode, now: TimestampMs) -> Result<TableRecord> {
        let mut table = self.in_state(id, TableState::Active)?;
        if mode != MirrorMode::Diverged || table.record.mirror == MirrorMode::Active {
            table.record.mirror = mode;
        }
        if mode == MirrorMode::Active {
            self.enqueue_missing(&table, now)?;
        }
        self.put_table(&mut table)?;
        Ok(table.record)
    }
}

/// What is done to a table whose lease holds.
type Settle = Box<dyn FnOnce(&mut WriteRows<'_>, TableRow) -> Result<()> + Send>;

#[async_trait]
impl OutboxBackend for RedbBackend {
    async fn mirror_claim(&self, request: &ClaimRequest) -> WriteResult<Vec<MirrorTask>> {
        let request = request.clone();
        let claim = move |rows: &mut WriteRows<'_>| {
            let tables = rows.claimable(&request)?;
            tables.into_iter().map(|table| rows.claim(table, &request)).collect()
        };
        Ok(self.write_if(|tasks: &Vec<MirrorTask>| !tasks.is_empty(), claim).await?)
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> WriteResult<Option<MirrorLease>> {
        let lease = MirrorLease { until: now.plus_ms(lease_ms), ..lease.clone() };
        let renew = move |rows: &mut WriteRows<'_>| {
            let Some(mut table) = rows.held(&lease)? else { return Ok(None) };
            table.lease = Some((lease.owner.clone(), lease.until));
            rows.put_table(&mut table)?;
            Ok(Some(lease))
        };
        Ok(self.write_if(Option::is_some, renew).await?)
    }

    async fn mirror_settle(&self, lease: &MirrorLease, how: Settlement<'_>) -> WriteResult<bool> {
        let lease = lease.clone();
        let settle: Settle = match how {
            Settlement::Published(done) => {
                let done = done.to_vec();
                Box::new(move |rows, table| rows.complete(table, &done))
            }
            Settlement::Failed(failure) => {
                let failure = failure.clone();
                Box::new(move |rows, table| rows.fail(table, &failure))
            }
            Settlement::Released => Box::new(|rows, table| rows.give_up_lease(table)),
        };
        let work = move |rows: &mut WriteRows<'_>| match rows.held(&lease)? {
            Some(table) => settle(rows, table).map(|()| true),
            None => Ok(false),
        };
        Ok(self.write_if(|held| *held, work).await?)
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> ReadResult<Page<MirrorRow, (TableId, Version)>> {
        let list = move |rows: &ReadRows| {
            let of = match table_id {
                Some(id) => Key::of(Space::Outbox, rows.readable(id)?.record.id),
                None => Key::new(Space::Outbox),
            };
            let mut from = of.clone();
            if let Some((id, version)) = after {
                from = from.max(Key::of(Space::Outbox, id).version(version).after());
            }
            let found = rows.scan(&from, &of.end())?.map(|e| Ok(e?.json::<OutboxRow>()?.0));
            let wanted = found.filter(|row| match (row, state) {
                (Ok(row), Some(state)) => row.state == state,
                (Ok(row), None) => row.state != MirrorState::Complete,
                (Err(_), _) => true,
            });
            page(wanted, limit, |row| (row.table_id, row.version))
        };
        Ok(self.read(list).await?)
    }

    async fn mirror_retry(&self, table_id: TableId, now: TimestampMs) -> WriteResult<u64> {
        Ok(self.write(move |rows| rows.retry(table_id, now)).await?)
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> WriteResult<TableRecord> {
        Ok(self.write(move |rows| rows.set_mode(table_id, mode, now)).await?)
    }
}
