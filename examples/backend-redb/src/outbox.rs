//! The part that hands out versions to be published. Versions up to the published one are complete, those after it
//! are not: claims and settlements read only the latter.

use deltalakedb_catalog_core::support::{self, Outbox, OwnedSettlement, StoredTable, prelude::*};
use redb::ReadableTable;

use crate::RedbBackend;
use crate::store::{Key, ReadRows, Rows, Space, WriteRows};

pub(crate) fn row_key(id: TableId, version: Version) -> Key {
    Key::of(Space::Outbox, id).version(version)
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    /// The versions of a table from one on.
    pub(crate) fn versions(&self, id: TableId, from: Version) -> Result<Vec<Version>> {
        let commits = Key::of(Space::Commit, id);
        let lines = self.history(&commits.clone().version(from), &commits.end())?;
        lines.map(|line| Ok(line?.version)).collect()
    }

    /// Tables that a worker may have now, oldest work first; the id makes the order of equally old work definite.
    fn claimable(&self, request: &ClaimRequest) -> Result<Vec<StoredTable>> {
        let mut found = Vec::new();
        for table in self.all::<StoredTable>(&Key::new(Space::Table))? {
            let table = table?;
            let id = table.record.id;
            let next = self.get(&row_key(id, table.next_to_publish()))?;
            let since = table.claimable(next.as_ref(), request);
            found.extend(since.map(|since| (since, id, table)));
        }
        found.sort_by_key(|(since, id, _)| (*since, *id));
        Ok(found.into_iter().map(|(.., table)| table).take(request.max_tables).collect())
    }
}

impl WriteRows<'_> {
    /// Changes a table and the rows of its outbox that are not complete.
    pub(crate) fn change<A>(
        &mut self,
        mut table: StoredTable,
        change: impl FnOnce(&mut StoredTable, &mut Outbox) -> Result<A>,
    ) -> Result<A> {
        let id = table.record.id;
        let (from, to) = (row_key(id, table.next_to_publish()), Key::of(Space::Outbox, id).end());
        let rows = self.scan::<MirrorRow>(&from, &to)?;
        let before =
            rows.map(|row| row.map(|row| (row.version, row))).collect::<Result<Outbox>>()?;
        let mut outbox = before.clone();
        let answer = change(&mut table, &mut outbox)?;
        for (version, row) in outbox {
            if before.get(&version) != Some(&row) {
                self.put(&row_key(id, version), &row)?;
            }
        }
        self.put_table(&table)?;
        Ok(answer)
    }
}

#[async_trait]
impl OutboxBackend for RedbBackend {
    async fn mirror_claim(&self, request: &ClaimRequest) -> WriteResult<Vec<MirrorTask>> {
        let request = request.clone();
        let claim = move |rows: &mut WriteRows<'_>| {
            let tables = rows.claimable(&request)?.into_iter();
            let claim = |t: &mut StoredTable, outbox: &mut Outbox| Ok(t.claim(outbox, &request));
            tables.map(|table| rows.change(table, claim)).collect()
        };
        Ok(self.write(claim).await?)
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> WriteResult<Option<MirrorLease>> {
        let lease = lease.clone();
        let renew = move |rows: &mut WriteRows<'_>| {
            let Some(mut table) = rows.table(lease.table_id)? else { return Ok(None) };
            let renewed = table.renew(&lease, now.plus_ms(lease_ms));
            rows.put_table(&table)?;
            Ok(renewed)
        };
        Ok(self.write(renew).await?)
    }

    async fn mirror_settle(&self, lease: &MirrorLease, how: Settlement<'_>) -> WriteResult<bool> {
        let lease = lease.clone();
        let how = OwnedSettlement::from(how);
        let settle = move |rows: &mut WriteRows<'_>| {
            let Some(table) = rows.table(lease.table_id)? else { return Ok(false) };
            rows.change(table, |table, outbox| table.settle(outbox, &lease, how.get()))
        };
        Ok(self.write(settle).await?)
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
            let after = after.map(|(id, version)| row_key(id, version).after());
            let from = after.into_iter().chain([of.clone()]).max().unwrap_or(of.clone());
            let found = rows.scan(&from, &of.end())?;
            let wanted = |row: &MirrorRow| support::is_in_state(row, state);
            support::page_where(found, wanted, limit, |row| (row.table_id, row.version))
        };
        Ok(self.read(list).await?)
    }

    async fn mirror_retry(&self, table_id: TableId, act: &Act) -> WriteResult<u64> {
        let act = act.clone();
        let retry = move |rows: &mut WriteRows<'_>| {
            let table = rows.in_state(table_id, TableState::Active)?;
            let record = table.record.clone();
            let due = rows.change(table, |table, outbox| Ok(table.retry(outbox, act.at)))?;
            rows.keep(act.retried(&record, due))?;
            Ok(due)
        };
        Ok(self.write(retry).await?)
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        let act = act.clone();
        let set_mode = move |rows: &mut WriteRows<'_>| {
            let table = rows.in_state(table_id, TableState::Active)?;
            let versions = rows.versions(table_id, table.next_to_publish())?;
            let before = table.record.mirror;
            let after = rows.change(table, |table, outbox| {
                table.set_mode(outbox, mode, versions, act.at);
                Ok(table.record.clone())
            })?;
            if let Some(entry) = act.mode_changed(before, &after) {
                rows.keep(entry)?;
            }
            Ok(after)
        };
        Ok(self.write(set_mode).await?)
    }

    async fn mirror_expire(
        &self,
        expiry: Expiry,
        after: Option<(TableId, Version)>,
    ) -> WriteResult<Expired<(TableId, Version)>> {
        let expire = move |rows: &mut WriteRows<'_>| {
            let all = Key::new(Space::Outbox);
            let from = after.map_or(all.clone(), |(id, version)| row_key(id, version).after());
            let found = rows.scan::<MirrorRow>(&from, &all.end())?;
            let page = support::page_of(found, expiry.limit, |row| (row.table_id, row.version))?;
            let mut removed = 0;
            for row in page.items {
                let published = rows.table(row.table_id)?.and_then(|t| t.record.published_version);
                if Some(row.version) < published && support::has_expired(&row, expiry) {
                    removed += 1;
                    if !expiry.dry_run {
                        rows.delete_all(&row_key(row.table_id, row.version))?;
                    }
                }
            }
            Ok(Expired { removed, next: page.next })
        };
        Ok(self.write(expire).await?)
    }
}
