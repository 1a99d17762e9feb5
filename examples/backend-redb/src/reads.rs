//! The part that reads what was committed: each call a range of keys, or a few.

use deltalakedb_catalog_core::support::{self, Opened, prelude::*};
use redb::ReadableTable;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::RedbBackend;
use crate::store::{Key, ReadRows, Rows, Space};

/// A line of history as it is stored: with the place in the batch, which serde leaves out.
fn line((line, batch_position): (CommitRecord, Option<u32>)) -> CommitRecord {
    CommitRecord { batch_position, ..line }
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    pub(crate) fn commit(&self, id: TableId, version: Version) -> Result<Option<CommitRecord>> {
        Ok(self.get(&Key::of(Space::Commit, id).version(version))?.map(line))
    }

    /// Lines of history between two keys, by version.
    pub(crate) fn history(
        &self,
        from: &Key,
        to: &Key,
    ) -> Result<impl DoubleEndedIterator<Item = Result<CommitRecord>> + use<'_, T>> {
        Ok(self.scan(from, to)?.map(|row| row.map(line)))
    }

    /// The last value under a key that was set at or before a version.
    fn set_by<V: DeserializeOwned>(&self, values: &Key, version: Version) -> Result<Option<V>> {
        self.scan(values, &values.clone().version(version).after())?.next_back().transpose()
    }

    /// Of each name in a space the last value at or before a version: two keys a name are looked at.
    fn last_of_each<V: DeserializeOwned>(&self, space: &Key, version: Version) -> Result<Vec<V>> {
        let (mut from, mut values) = (space.clone(), Vec::new());
        while let Some(first) = self.scan(&from, &space.end())?.next().transpose()? {
            let (name, _): (String, IgnoredAny) = first;
            let named = space.clone().text(&name);
            values.extend(self.set_by::<(String, V)>(&named, version)?.map(|(_, value)| value));
            from = named.end();
        }
        Ok(values)
    }
}

#[async_trait]
impl ReadBackend for RedbBackend {
    async fn snapshot(&self, table: &TableRef, at: At) -> ReadResult<Snapshot> {
        let table = table.clone();
        let read = move |rows: &ReadRows| {
            let opened = Opened::new(&table, rows.find(&table)?.map(|found| found.record))?;
            let id = opened.table.id;
            let line = match at {
                At::Head => rows.commit(id, opened.head)?,
                At::Version(version) => rows.commit(id, version)?,
                At::Timestamp(time) => {
                    let commits = Key::of(Space::Commit, id);
                    let is_reached = |line: &CommitRecord| line.timestamp <= time;
                    let mut newest_first = rows.history(&commits, &commits.end())?.rev();
                    newest_first.find(|l| l.as_ref().map_or(true, is_reached)).transpose()?
                }
            };
            let line = opened.commit(at, line)?;
            let protocol = rows.set_by(&Key::of(Space::Protocol, id), line.version)?;
            let metadata = rows.set_by(&Key::of(Space::Metadata, id), line.version)?;
            opened.snapshot(&line, protocol, metadata)
        };
        Ok(self.read(read).await?)
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<FileRecord, FileCursor>> {
        let list = move |rows: &ReadRows| {
            rows.readable(table_id)?;
            let found = rows.file_rows(table_id, version, after)?;
            let files = found.filter_map(|row| row.map(|row| row.file(version)).transpose());
            support::page_of(files, limit, |file| file.cursor)
        };
        Ok(self.read(list).await?)
    }

    async fn files_end(
        &self,
        _table_id: TableId,
        _version: Version,
        _after: FileCursor,
        _limit: usize,
    ) -> ReadResult<Option<FileCursor>> {
        Ok(None)
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> ReadResult<Vec<FileRecord>> {
        let cursors = cursors.to_vec();
        let list = move |rows: &ReadRows| {
            let found = cursors.into_iter().map(|cursor| rows.file_row(table_id, cursor));
            let files = found.map(|row| Ok(row?.and_then(|row| row.file(version))));
            files.filter_map(Result::transpose).collect()
        };
        Ok(self.read(list).await?)
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<TombstoneRecord, FileCursor>> {
        let list = move |rows: &ReadRows| {
            rows.readable(table_id)?;
            let found = rows.file_rows(table_id, version, after)?.map(|row| {
                let Some(found) = row?.tombstone(version) else { return Ok(None) };
                let of_file = rows.rows_of(table_id, &found.remove.key())?;
                let of_file = of_file.collect::<Result<Vec<_>>>()?;
                let carried = support::carried_tombstone(&of_file, version, deleted_after);
                Ok(carried.filter(|carried| carried.cursor == found.cursor))
            });
            support::page_of(found.filter_map(Result::transpose), limit, |found| found.cursor)
        };
        Ok(self.read(list).await?)
    }

    async fn app_state(
        &self,
        table_id: TableId,
        version: Version,
        which: AppRows,
    ) -> ReadResult<AppState> {
        let read = move |rows: &ReadRows| {
            rows.readable(table_id)?;
            let mut state = AppState::default();
            if which.transactions() {
                let applications = Key::of(Space::Txn, table_id);
                state.transactions = rows.last_of_each(&applications, version)?;
            }
            if which.domains() {
                let domains = Key::of(Space::Domain, table_id);
                state.domains = rows.last_of_each(&domains, version)?;
                state.domains.retain(|domain| !domain.removed);
            }
            Ok(state)
        };
        Ok(self.read(read).await?)
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> ReadResult<Page<CommitRecord, Version>> {
        let filter = filter.clone();
        let list = move |rows: &ReadRows| {
            rows.readable(table_id)?;
            let commits = Key::of(Space::Commit, table_id);
            let from = commits.clone().version(filter.from_version.unwrap_or_default());
            let to = before.map_or(commits.end(), |before| commits.version(before));
            let newest_first = rows.history(&from, &to)?.rev();
            let wanted = |line: &CommitRecord| support::is_listed(line, &filter, before);
            support::page_where(newest_first, wanted, limit, |line| line.version)
        };
        Ok(self.read(list).await?)
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> ReadResult<Vec<(CommitRecord, CommitBody)>> {
        let read = move |rows: &ReadRows| {
            rows.readable(table_id)?;
            let key = |space, version| Key::of(space, table_id).version(version);
            let (from, to) = (key(Space::Commit, from), key(Space::Commit, to).after());
            let (mut out, mut size) = (Vec::new(), 0);
            for line in rows.history(&from, &to)? {
                let line = line?;
                let start = rows.get(&key(Space::Body, line.version))?;
                let Some((first_line, raw_len)) = start else { continue };
                let zstd = rows.bytes(&key(Space::Rest, line.version))?.unwrap_or_default().into();
                let body = CommitBody { first_line, rest: Packed { zstd, raw_len } };
                size += body.rest.zstd.len();
                if out.len() == limit.max(1) || (size > support::BODIES_BYTES && !out.is_empty()) {
                    break;
                }
                out.push((line, body));
            }
            Ok(out)
        };
        Ok(self.read(read).await?)
    }
}
