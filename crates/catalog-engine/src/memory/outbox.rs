//! The mirror's outbox: which worker publishes which versions.

use std::collections::BTreeMap;

use super::state::{State, page};
use deltalakedb_catalog_core::support::{has_expired, is_in_state, prelude::*};

impl State {
    pub(super) fn mirror_claim(&mut self, request: &ClaimRequest) -> Vec<MirrorTask> {
        // Oldest work first; the id makes the order of equally old work definite.
        let mut due = Vec::new();
        for table in self.tables.values_mut() {
            let next = table.outbox.get(&table.stored.next_to_publish());
            let since = table.stored.claimable(next, request);
            due.extend(since.map(|since| (since, table.record().id, table)));
        }
        due.sort_by_key(|(since, id, _)| (*since, *id));
        due.truncate(request.max_tables);
        due.into_iter().map(|(.., table)| table.stored.claim(&mut table.outbox, request)).collect()
    }

    pub(super) fn mirror_renew(
        &mut self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> Option<MirrorLease> {
        self.tables.get_mut(&lease.table_id)?.stored.renew(lease, now.plus_ms(lease_ms))
    }

    pub(super) fn mirror_settle(
        &mut self,
        lease: &MirrorLease,
        how: Settlement<'_>,
    ) -> Result<bool> {
        match self.tables.get_mut(&lease.table_id) {
            Some(table) => table.stored.settle(&mut table.outbox, lease, how),
            None => Ok(false),
        }
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
            .filter(|t| table_id.is_none_or(|id| id == t.record().id))
            .flat_map(|t| t.outbox.values())
            .filter(|row| is_in_state(row, state))
            .map(|row| ((row.table_id, row.version), row))
            .filter(|(key, _)| after.is_none_or(|after| *key > after))
            .collect();
        Ok(page(rows.into_values().cloned(), limit, |row| (row.table_id, row.version)))
    }

    pub(super) fn mirror_expire(
        &mut self,
        expiry: Expiry,
        after: Option<(TableId, Version)>,
    ) -> Expired<(TableId, Version)> {
        let below_published = |t: &super::state::Table| {
            let published = t.record().published_version.unwrap_or_default();
            t.outbox.range(..published).map(|(_, row)| row.clone()).collect::<Vec<_>>()
        };
        let rows = self.tables.values().flat_map(below_published);
        let rows = rows.filter(|row| after.is_none_or(|after| (row.table_id, row.version) > after));
        let looked_at = page(rows, expiry.limit, |row| (row.table_id, row.version));
        let goes = |row: &&MirrorRow| has_expired(row, expiry);
        let mut removed = 0;
        for row in looked_at.items.iter().filter(goes) {
            removed += 1;
            if !expiry.dry_run
                && let Some(table) = self.tables.get_mut(&row.table_id)
            {
                table.outbox.remove(&row.version);
            }
        }
        Expired { removed, next: looked_at.next }
    }

    pub(super) fn mirror_retry(&mut self, id: TableId, act: &Act) -> Result<u64> {
        act.by.check()?;
        let table = self.in_state(id, TableState::Active)?;
        let due = table.stored.retry(&mut table.outbox, act.at);
        let entry = act.retried(table.record(), due);
        self.keep(entry);
        Ok(due)
    }

    pub(super) fn mirror_set_mode(
        &mut self,
        id: TableId,
        mode: MirrorMode,
        act: &Act,
    ) -> Result<TableRecord> {
        act.by.check()?;
        let table = self.in_state(id, TableState::Active)?;
        let before = table.record().mirror;
        let versions = table.commits.keys().copied();
        table.stored.set_mode(&mut table.outbox, mode, versions, act.at);
        let record = table.record().clone();
        if let Some(entry) = act.mode_changed(before, &record) {
            self.keep(entry);
        }
        Ok(record)
    }
}
