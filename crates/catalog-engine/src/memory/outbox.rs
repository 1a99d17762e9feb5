//! The mirror's outbox: who publishes which versions.

use std::collections::BTreeMap;

use super::state::{Held, State, Table, page};
use deltalakedb_catalog_core::backend::{
    ClaimRequest, MirrorLease, MirrorTask, PublishFailure, Published,
};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    MirrorMode, MirrorRow, MirrorState, Page, TableRecord, TableState,
};

impl State {
    pub(super) fn mirror_claim(&mut self, request: &ClaimRequest) -> Result<Vec<MirrorTask>> {
        // Oldest work first; the id makes the order of equally old work definite.
        let mut due: Vec<(TimestampMs, TableId)> = self
            .tables
            .values()
            .filter(|t| request.only.is_none_or(|only| only == t.record.id))
            .filter(|t| t.claimable(&request.owner, request.now))
            .filter_map(|t| {
                let first = t.first_unpublished()?;
                let may_be_tried = first.retry_at.is_none_or(|at| at <= request.now);
                may_be_tried.then_some((first.enqueued_at, t.record.id))
            })
            .collect();
        due.sort();
        due.truncate(request.max_tables);
        due.into_iter()
            .map(|(_, id)| Ok(self.active(id)?.claim(request)))
            .collect::<Result<Vec<_>>>()
    }

    /// The table of a lease, if the lease still holds.
    fn held(&mut self, lease: &MirrorLease) -> Option<&mut Table> {
        self.tables.get_mut(&lease.table_id).filter(|t| {
            t.epoch == lease.epoch && t.lease.as_ref().is_some_and(|h| h.owner == lease.owner)
        })
    }

    pub(super) fn mirror_renew(
        &mut self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> Option<MirrorLease> {
        let until = now.plus_ms(lease_ms);
        let table = self.held(lease)?;
        table.lease = Some(Held { owner: lease.owner.clone(), until });
        Some(MirrorLease { until, ..lease.clone() })
    }

    pub(super) fn mirror_complete(
        &mut self,
        lease: &MirrorLease,
        done: &[Published],
    ) -> Result<bool> {
        let Some(table) = self.held(lease) else { return Ok(false) };
        let mut next = table.next_to_publish();
        for published in done {
            if published.version != next || !table.outbox.contains_key(&next) {
                return Err(CatalogError::invalid(format!(
                    "table '{}': version {} was published out of order, {next} comes next",
                    table.record.name, published.version
                )));
            }
            next = next.next();
        }
        for published in done {
            if let Some(row) = table.outbox.get_mut(&published.version) {
                row.state = MirrorState::Complete;
                row.digest = Some(published.digest.clone());
                row.published_at = Some(published.at);
                row.retry_at = None;
                row.last_error = None;
            }
            table.record.published_version = Some(published.version);
        }
        Ok(true)
    }

    pub(super) fn mirror_fail(
        &mut self,
        lease: &MirrorLease,
        failure: &PublishFailure,
    ) -> Result<bool> {
        let Some(table) = self.held(lease) else { return Ok(false) };
        let name = table.record.name.clone();
        let row = table
            .outbox
            .get_mut(&failure.version)
            .filter(|row| row.state != MirrorState::Complete)
            .ok_or_else(|| {
                CatalogError::invalid(format!(
                    "table '{name}': version {} is not waiting to be published",
                    failure.version
                ))
            })?;
        row.state = MirrorState::Failed;
        row.last_error = Some(failure.error.clone());
        row.retry_at = Some(failure.retry_at);
        // A table that was switched off meanwhile stays off: its later versions are not enqueued.
        if failure.diverged && table.record.mirror == MirrorMode::Active {
            table.record.mirror = MirrorMode::Diverged;
        }
        table.give_up_lease();
        Ok(true)
    }

    pub(super) fn mirror_release(&mut self, lease: &MirrorLease) -> bool {
        let Some(table) = self.held(lease) else { return false };
        table.give_up_lease();
        true
    }

    pub(super) fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> Result<Page<MirrorRow, (TableId, Version)>> {
        if let Some(id) = table_id {
            self.readable(id)?;
        }
        let rows: BTreeMap<(TableId, Version), &MirrorRow> = self
            .tables
            .values()
            .filter(|t| table_id.is_none_or(|id| id == t.record.id))
            .flat_map(|t| t.outbox.values())
            .filter(|row| match state {
                Some(state) => row.state == state,
                None => row.state != MirrorState::Complete,
            })
            .map(|row| ((row.table_id, row.version), row))
            .filter(|(key, _)| after.is_none_or(|after| *key > after))
            .collect();
        Ok(page(rows.into_values().cloned(), limit, |row| (row.table_id, row.version)))
    }

    pub(super) fn mirror_retry(&mut self, id: TableId, now: TimestampMs) -> Result<u64> {
        let table = self.active(id)?;
        if table.record.mirror == MirrorMode::Diverged {
            table.record.mirror = MirrorMode::Active;
        }
        let mut rows = 0;
        for row in table.outbox.values_mut().filter(|row| row.state == MirrorState::Failed) {
            row.retry_at = Some(now);
            rows += 1;
        }
        Ok(rows)
    }

    pub(super) fn mirror_set_mode(
        &mut self,
        id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        let table = self.active(id)?;
        if mode == MirrorMode::Diverged {
            if table.record.mirror == MirrorMode::Active {
                table.record.mirror = mode;
            }
            return Ok(table.record.clone());
        }
        table.record.mirror = mode;
        if mode == MirrorMode::Active {
            table.enqueue_missing(now);
        }
        Ok(table.record.clone())
    }
}

impl Table {
    /// Enqueues every version after the published one that is not.
    pub(super) fn enqueue_missing(&mut self, now: TimestampMs) {
        let missing: Vec<Version> = self
            .commits
            .range(self.next_to_publish()..)
            .map(|(version, _)| *version)
            .filter(|version| !self.outbox.contains_key(version))
            .collect();
        for version in missing {
            self.enqueue(version, now);
        }
    }

    fn next_to_publish(&self) -> Version {
        self.record.published_version.map_or(Version::ZERO, Version::next)
    }

    /// The outbox row of the first version that is not published.
    fn first_unpublished(&self) -> Option<&MirrorRow> {
        self.outbox.get(&self.next_to_publish())
    }

    /// Whether an owner may have the lease now. A lease holds before `until` and lapses at it.
    fn claimable(&self, owner: &str, now: TimestampMs) -> bool {
        self.record.state == TableState::Active
            && self.record.mirror == MirrorMode::Active
            && self.lease.as_ref().is_none_or(|held| held.owner == owner || held.until <= now)
    }

    fn claim(&mut self, request: &ClaimRequest) -> MirrorTask {
        if self.lease.as_ref().is_none_or(|held| held.owner != request.owner) {
            self.epoch += 1;
        }
        let until = request.now.plus_ms(request.lease_ms);
        self.lease = Some(Held { owner: request.owner.clone(), until });

        let attempts = self.first_unpublished().map_or(0, |row| row.attempts);
        let mut versions = Vec::new();
        let next = self.next_to_publish();
        for (version, row) in self.outbox.range_mut(next..).take(request.max_versions.max(1)) {
            row.state = MirrorState::InFlight;
            row.attempts = row.attempts.saturating_add(1);
            versions.push(*version);
        }
        MirrorTask {
            lease: MirrorLease {
                table_id: self.record.id,
                owner: request.owner.clone(),
                epoch: self.epoch,
                until,
            },
            table: self.record.clone(),
            versions,
            attempts,
        }
    }

    fn give_up_lease(&mut self) {
        self.lease = None;
        for row in self.outbox.values_mut().filter(|row| row.state == MirrorState::InFlight) {
            row.state = MirrorState::Pending;
        }
    }
}
