//! Reads of one table.

use std::collections::BTreeMap;

use super::state::{State, StoredCommit, Table, page};
use deltalakedb_catalog_core::support::{
    FileRow, Opened, bodies_in_one_call, carried_tombstone, is_listed, prelude::*,
};

/// The last value at or before a version.
fn in_force<T: Clone>(map: &BTreeMap<Version, T>, version: Version) -> Option<(Version, T)> {
    map.range(..=version).next_back().map(|(v, t)| (*v, t.clone()))
}

/// Of each name the last value at or before a version.
fn last_of_each<T: Clone>(map: &BTreeMap<(String, Version), T>, version: Version) -> Vec<T> {
    let set = map.iter().filter(|((_, v), _)| *v <= version);
    let last: BTreeMap<&str, &T> = set.map(|((name, _), value)| (name.as_str(), value)).collect();
    last.into_values().cloned().collect()
}

impl State {
    pub(super) fn snapshot(&self, name: &TableRef, at: At) -> Result<Snapshot> {
        let opened = Opened::new(name, self.get_table(name))?;
        let table = self.readable(opened.table.id)?;
        let found = match at {
            At::Head => table.commits.get(&opened.head),
            At::Version(version) => table.commits.get(&version),
            At::Timestamp(t) => table.commits.values().rfind(|c| c.record.timestamp <= t),
        };
        let commit = opened.commit(at, found.map(|commit| commit.record.clone()))?;
        let protocol = in_force(&table.protocol, commit.version);
        let metadata = in_force(&table.metadata, commit.version);
        opened.snapshot(&commit, protocol, metadata)
    }
}

impl Table {
    /// Rows with `added_version <= version < removed_version`.
    pub(super) fn files_at(&self, version: Version) -> impl Iterator<Item = FileRecord> {
        self.files.values().filter_map(move |row| row.file(version))
    }

    /// Whether no file, of any version, comes after this cursor.
    pub(super) fn ends_with(&self, cursor: FileCursor) -> bool {
        let last = self.files.values().rfind(|row| row.add.is_some());
        last.is_none_or(|last| last.cursor <= cursor)
    }

    pub(super) fn list_files(
        &self,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Page<FileRecord, FileCursor> {
        let rest = self.files_at(version).filter(|f| after.is_none_or(|a| f.cursor > a));
        page(rest, limit, |f| f.cursor)
    }

    pub(super) fn list_tombstones(
        &self,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Page<TombstoneRecord, FileCursor> {
        let mut by_key: BTreeMap<FileKey, Vec<&FileRow>> = BTreeMap::new();
        for row in self.files.values() {
            if let Some(key) = row.key() {
                by_key.entry(key).or_default().push(row);
            }
        }
        let carried: BTreeMap<FileCursor, TombstoneRecord> = by_key
            .into_values()
            .filter_map(|rows| carried_tombstone(rows, version, deleted_after))
            .filter(|t| after.is_none_or(|a| t.cursor > a))
            .map(|t| (t.cursor, t))
            .collect();
        page(carried.into_values(), limit, |t| t.cursor)
    }

    pub(super) fn app_state(&self, version: Version, rows: AppRows) -> AppState {
        let mut state = AppState::default();
        if rows.transactions() {
            state.transactions = last_of_each(&self.txns, version);
        }
        if rows.domains() {
            state.domains = last_of_each(&self.domains, version);
            state.domains.retain(|domain| !domain.removed);
        }
        state
    }

    pub(super) fn list_commits(
        &self,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Page<CommitRecord, Version> {
        let newest_first = self.commits.values().rev().map(|commit| &commit.record);
        let listed = newest_first.filter(|commit| is_listed(commit, filter, before));
        page(listed.cloned(), limit, |commit| commit.version)
    }

    pub(super) fn read_bodies(
        &self,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Vec<(CommitRecord, CommitBody)> {
        let with_body = |StoredCommit { record, body }: &StoredCommit| {
            let is_asked_for = from <= record.version && record.version <= to;
            body.clone().filter(|_| is_asked_for).map(|body| (record.clone(), body))
        };
        let found = self.commits.values().filter_map(with_body).take(limit.max(1));
        let mut bodies: Vec<_> = found.collect();
        let lengths: Vec<usize> = bodies.iter().map(|(_, body)| body.rest.zstd.len()).collect();
        bodies.truncate(bodies_in_one_call(&lengths));
        bodies
    }
}
