//! The part that reads what was committed: each call a range of keys, or a few.

use async_trait::async_trait;
use deltalakedb_catalog_core::action::{Metadata, Protocol};
use deltalakedb_catalog_core::backend::{AppRows, AppState, CommitFilter, ReadBackend};
use deltalakedb_catalog_core::commit::{CommitBody, Packed};
use deltalakedb_catalog_core::error::{CatalogError, ReadResult, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, Page, Snapshot, TableState, TombstoneRecord,
};
use deltalakedb_catalog_core::support::BODIES_BYTES;
use redb::ReadableTable;
use serde::de::DeserializeOwned;

use crate::RedbBackend;
use crate::files::{in_force, tombstone};
use crate::rows::CommitRow;
use crate::store::{Key, ReadRows, Rows, Space, from_json, page, to_json};

/// A body as it is stored: first line and length as JSON, a newline, the zstd frame.
pub(crate) fn to_bytes(body: &CommitBody) -> Result<Vec<u8>> {
    let mut bytes = to_json(&(&body.first_line, body.rest.raw_len))?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&body.rest.zstd);
    Ok(bytes)
}

fn from_bytes(mut bytes: Vec<u8>) -> Result<CommitBody> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let zstd = bytes.split_off(bytes.len().min(end + 1));
    let (first_line, raw_len) = from_json(&bytes)?;
    Ok(CommitBody { first_line, rest: Packed { zstd: zstd.into(), raw_len } })
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    pub(crate) fn commit(&self, id: TableId, version: Version) -> Result<Option<CommitRecord>> {
        let row = self.get(&Key::of(Space::Commit, id).version(version))?;
        Ok(row.map(|CommitRow(record)| record))
    }

    /// The last version whose timestamp is before a time.
    fn version_before(&self, id: TableId, time: TimestampMs) -> Result<Option<Version>> {
        let times = Key::of(Space::Time, id);
        let last = self.scan(&times, &times.clone().number(time.0))?.next_back().transpose()?;
        last.map(|entry| entry.json()).transpose()
    }

    /// The last value of a space that was set at or before a version, and the version that set it.
    fn set_by<V: DeserializeOwned>(
        &self,
        values: &Key,
        version: Version,
    ) -> Result<Option<(Version, V)>> {
        let last = self.scan(values, &values.clone().version(version).after())?.next_back();
        last.transpose()?.map(|entry| Ok((entry.version()?, entry.json()?))).transpose()
    }

    /// Of each name in a space the last value at or before a version: two keys a name are looked at.
    fn last_of_each<V: DeserializeOwned>(
        &self,
        space: Space,
        id: TableId,
        version: Version,
    ) -> Result<Vec<V>> {
        let (mut from, end) = (Key::of(space, id), Key::of(space, id).end());
        let mut values = Vec::new();
        while let Some(entry) = self.scan(&from, &end)?.next().transpose()? {
            let name = entry.without_number()?;
            values.extend(self.set_by(&name, version)?.map(|(_, value)| value));
            from = name.end();
        }
        Ok(values)
    }

    fn snapshot(&self, name: &TableRef, at: At) -> Result<Snapshot> {
        let hidden = |state| state == TableState::Importing && matches!(name, TableRef::Name(_));
        let found = self.find(name)?.filter(|t| !hidden(t.record.state)).map(|t| t.record);
        let Some((table, head)) = found.and_then(|table| table.head.map(|head| (table, head)))
        else {
            return Err(CatalogError::TableNotFound(name.to_string()));
        };
        let (asked, version) = match at {
            At::Head => (head.to_string(), Some(head)),
            At::Version(version) => (version.to_string(), Some(version)),
            At::Timestamp(time) => {
                let last = match time.0.checked_add(1) {
                    Some(after) => self.version_before(table.id, TimestampMs(after))?,
                    None => Some(head),
                };
                (format!("at {time} ms"), last)
            }
        };
        let commit = match version.filter(|version| *version >= table.base_version) {
            Some(version) => self.commit(table.id, version)?,
            None => None,
        };
        let commit = commit.ok_or_else(|| CatalogError::VersionNotFound {
            table: name.to_string(),
            version: asked,
            earliest: table.base_version,
            latest: head,
        })?;
        let version = commit.version;
        let none = || CatalogError::corrupt(format!("'{name}' lacks protocol or metadata"));
        let protocols = Key::of(Space::Protocol, table.id);
        let metadata = Key::of(Space::Metadata, table.id);
        let (protocol_version, protocol): (_, Protocol) =
            self.set_by(&protocols, version)?.ok_or_else(none)?;
        let (metadata_version, metadata): (_, Metadata) =
            self.set_by(&metadata, version)?.ok_or_else(none)?;
        Ok(Snapshot {
            table,
            version,
            timestamp: commit.timestamp,
            protocol,
            protocol_version,
            metadata,
            metadata_version,
            num_files: commit.total_files,
            size_bytes: commit.total_bytes,
        })
    }

    fn list_commits(
        &self,
        id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>> {
        self.readable(id)?;
        let commits = Key::of(Space::Commit, id);
        let (mut from, mut to) = (commits.clone(), commits.clone().end());
        if let Some(version) = filter.from_version {
            from = commits.clone().version(version);
        }
        if let Some(time) = filter.from_time
            && let Some(version) = self.version_before(id, time)?
        {
            from = from.max(commits.clone().version(version).after());
        }
        if let Some(version) = filter.to_version {
            to = commits.clone().version(version).after();
        }
        if let Some(version) = before {
            to = to.min(commits.clone().version(version));
        }
        if let Some(time) = filter.to_time {
            let last = self.version_before(id, time)?;
            to = last.map_or(from.clone(), |last| to.min(commits.version(last).after()));
        }
        let newest_first = self.scan(&from, &to)?.rev();
        page(newest_first.map(|entry| Ok(entry?.json::<CommitRow>()?.0)), limit, |c| c.version)
    }
}

#[async_trait]
impl ReadBackend for RedbBackend {
    async fn snapshot(&self, table: &TableRef, at: At) -> ReadResult<Snapshot> {
        let table = table.clone();
        Ok(self.read(move |rows| rows.snapshot(&table, at)).await?)
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
            let files = Key::of(Space::File, table_id);
            let from = after.map_or(files.clone(), |after| files.clone().cursor(after).after());
            let found = rows.scan(&from, &files.version(version).end())?;
            let files = found.filter_map(|e| e.and_then(|e| in_force(&e, version)).transpose());
            page(files, limit, |file| file.cursor)
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
            let found = cursors.into_iter().map(|c| rows.file_at(table_id, version, c).transpose());
            found.flatten().collect()
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
            let all = Key::of(Space::Tombstone, table_id);
            let from = after.map_or(all.clone(), |after| all.clone().cursor(after).after());
            let found = rows.scan(&from, &all.version(version).end())?.map(|entry| {
                let found = tombstone(&entry?)?;
                let deleted = found.remove.deletion_timestamp.unwrap_or(0);
                let carried = found.removed_version <= version
                    && deleted > deleted_after.0
                    && !rows.is_superseded(table_id, version, &found)?;
                Ok(carried.then_some(found))
            });
            page(found.filter_map(Result::transpose), limit, |tombstone| tombstone.cursor)
        };
        Ok(self.read(list).await?)
    }

    async fn app_state(
        &self,
        table_id: TableId,
        version: Version,
        which: AppRows,
    ) -> ReadResult<AppState> {
        let state = move |rows: &ReadRows| {
            rows.readable(table_id)?;
            let mut state = AppState::default();
            if which.transactions() {
                state.transactions = rows.last_of_each(Space::Txn, table_id, version)?;
            }
            if which.domains() {
                state.domains = rows.last_of_each(Space::Domain, table_id, version)?;
                state.domains.retain(|domain| !domain.removed);
            }
            Ok(state)
        };
        Ok(self.read(state).await?)
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> ReadResult<Page<CommitRecord, Version>> {
        let filter = filter.clone();
        Ok(self.read(move |rows| rows.list_commits(table_id, &filter, before, limit)).await?)
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> ReadResult<Vec<(CommitRecord, CommitBody)>> {
        let list = move |rows: &ReadRows| {
            rows.readable(table_id)?;
            let bodies = Key::of(Space::Body, table_id);
            let (from, to) = (bodies.clone().version(from), bodies.version(to).after());
            let (mut out, mut size) = (Vec::new(), 0);
            for entry in rows.scan(&from, &to)?.take(limit.max(1)) {
                let entry = entry?;
                let record = rows.commit(table_id, entry.version()?)?;
                let none = || CatalogError::corrupt("a commit's bytes have no line of history");
                let (record, body) = (record.ok_or_else(none)?, from_bytes(entry.value)?);
                size += body.rest.zstd.len();
                if size > BODIES_BYTES && !out.is_empty() {
                    break;
                }
                out.push((record, body));
            }
            Ok(out)
        };
        Ok(self.read(list).await?)
    }
}
