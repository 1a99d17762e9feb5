//! The part that commits. The tables of a batch are checked and written one after another: whatever refuses one of
//! them ends the transaction without a trace.

use async_trait::async_trait;
use deltalakedb_catalog_core::action::FileKey;
use deltalakedb_catalog_core::backend::{
    CommitBackend, CommitOutcome, CommitRequest, CommitTarget, CommittedTable, HeadRule, Rejection,
    TableCommit, request_in_memory,
};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex, commit_info_object};
use deltalakedb_catalog_core::error::{ReadResult, Result, WriteResult};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{CommitRecord, MirrorMode, TableState};
use deltalakedb_catalog_core::support::{check_shape, next_timestamp};
use redb::ReadableTable;

use crate::RedbBackend;
use crate::reads::to_bytes;
use crate::rows::{CommitRow, TableRow, reported};
use crate::store::{Key, Rows, Space, WriteRows};

fn token_key(token: &CommitToken) -> Key {
    Key::new(Space::Token).text(token.as_str())
}

/// A version of a table, before its rows are written.
pub(crate) struct NewCommit<'c> {
    pub(crate) version: Version,
    pub(crate) timestamp: TimestampMs,
    pub(crate) token: Option<(CommitToken, u32)>,
    pub(crate) body: &'c CommitBody,
    pub(crate) index: &'c CommitIndex,
}

impl NewCommit<'_> {
    /// A line of history from what the commit itself says, without totals.
    pub(crate) fn record(&self, table_id: TableId) -> CommitRecord {
        // The first line has the timestamp of the commit filled in; the index was made before it was known.
        let written = self.body.first_line.as_deref().and_then(commit_info_object);
        let sum = |sizes: &mut dyn Iterator<Item = i64>| reported(sizes.map(i128::from).sum());
        let (token, batch_position) = self.token.clone().unzip();
        CommitRecord {
            table_id,
            version: self.version,
            timestamp: self.timestamp,
            token,
            batch_position,
            commit_info: written.map(str::to_owned).or_else(|| self.index.commit_info.clone()),
            num_added: self.index.adds.len() as u64,
            num_removed: self.index.removes.len() as u64,
            bytes_added: sum(&mut self.index.adds.iter().map(|add| add.size)),
            bytes_removed: sum(&mut self.index.removes.iter().map(|r| r.size.unwrap_or(0))),
            changes_metadata: self.index.metadata.is_some(),
            changes_protocol: self.index.protocol.is_some(),
            total_files: 0,
            total_bytes: 0,
            has_body: true,
        }
    }
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    /// What a token wrote.
    fn written_by(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        let parts = self.all(token_key(token))?.map(|entry| {
            let (table_id, version, timestamp) = entry?.json()?;
            Ok(CommittedTable { table_id, version, timestamp })
        });
        Ok(Some(parts.collect::<Result<Vec<_>>>()?).filter(|parts| !parts.is_empty()))
    }
}

impl WriteRows<'_> {
    fn commit_batch(&mut self, request: CommitRequest) -> Result<CommitOutcome> {
        if let Some(done) = self.written_by(&request.token)? {
            return Ok(CommitOutcome::Replayed(done));
        }
        check_shape(&request)?;
        let mut written = Vec::with_capacity(request.tables.len());
        for (index, part) in request.tables.into_iter().enumerate() {
            let position = u32::try_from(index).unwrap_or(u32::MAX);
            let token = (request.token.clone(), position);
            match self.commit_table(index, part, request.now, token)? {
                Ok(table) => written.push(table),
                Err(refused) => return Ok(refused),
            }
        }
        Ok(CommitOutcome::Committed(written))
    }

    /// Writes one table's part, or says why the batch is not written.
    fn commit_table(
        &mut self,
        index: usize,
        part: TableCommit,
        now: TimestampMs,
        token: (CommitToken, u32),
    ) -> Result<Result<CommittedTable, CommitOutcome>> {
        let rejected = |reason| Ok(Err(CommitOutcome::Rejected { index, reason }));
        let (mut table, version) = match part.target {
            CommitTarget::Create(new) => {
                if self.table(new.id)?.is_some() {
                    return rejected(Rejection::IdTaken(new.id));
                }
                if self.live(&new.name)?.is_some() {
                    return rejected(Rejection::NameTaken(new.name));
                }
                (TableRow::new(new, TableState::Active, now), Version::ZERO)
            }
            CommitTarget::Existing { table_id, rule } => {
                let table = self.table(table_id)?;
                let table = table.filter(|t| t.record.state == TableState::Active);
                let found = table.and_then(|t| t.record.head.map(|head| (t, head)));
                let Some((table, head)) = found else {
                    return rejected(Rejection::TableNotFound(table_id));
                };
                let holds = match rule {
                    HeadRule::Exactly(version) => head == version,
                    HeadRule::Append { since } => table.record.barrier_version <= since,
                };
                if !holds {
                    return Ok(Err(CommitOutcome::HeadMoved { index, head }));
                }
                (table, head.next())
            }
        };
        let id = table.record.id;
        let removed = match self.remove_files(&mut table, version, &part.index, false)? {
            Ok(bytes) => bytes,
            Err(FileKey { path, dv_id }) => {
                return rejected(Rejection::FileNotActive { path, dv_id });
            }
        };
        let timestamp = next_timestamp(id, table.record.head_timestamp, now)?;
        let first_line = Some(part.first_line.render(timestamp));
        let body = CommitBody { first_line, rest: part.rest };
        let (token, index) = (Some(token), &*part.index);
        let commit = NewCommit { version, timestamp, token, body: &body, index };
        self.write_commit(&mut table, &commit, removed)?;
        if table.record.mirror != MirrorMode::Off {
            self.enqueue(id, version, now)?;
        }
        self.put_table(&mut table)?;
        Ok(Ok(CommittedTable { table_id: id, version, timestamp }))
    }

    /// Removes the files of a commit: the bytes that they had, or the first one that is not active. In an import
    /// such a remove leaves only its tombstone.
    pub(crate) fn remove_files(
        &mut self,
        table: &mut TableRow,
        version: Version,
        index: &CommitIndex,
        import: bool,
    ) -> Result<Result<i128, FileKey>> {
        let mut bytes = 0;
        for (position, remove) in index.removes.iter().enumerate() {
            bytes += match self.remove_file(table, version, remove)? {
                Some(size) => i128::from(size),
                None if import => {
                    self.add_tombstone(table.record.id, version, position, remove)?;
                    i128::from(remove.size.unwrap_or(0))
                }
                None => return Ok(Err(remove.key())),
            };
        }
        Ok(Ok(bytes))
    }

    /// Writes the rows of the next version, but for its removes, and moves the head of `table` to it.
    pub(crate) fn write_commit(
        &mut self,
        table: &mut TableRow,
        commit: &NewCommit<'_>,
        bytes_removed: i128,
    ) -> Result<()> {
        let (id, version, index) = (table.record.id, commit.version, commit.index);
        for (position, add) in index.adds.iter().enumerate() {
            self.add_file(table, version, position, add)?;
        }
        if index.metadata.is_some() || index.protocol.is_some() {
            table.record.barrier_version = version;
        }
        self.put_state(id, version, index)?;
        let record = CommitRecord {
            bytes_removed: reported(bytes_removed),
            total_files: table.files,
            total_bytes: reported(table.bytes),
            ..commit.record(id)
        };
        table.record.head = Some(version);
        table.record.head_timestamp = Some(commit.timestamp);
        self.put_commit(record, Some(commit.body))
    }

    /// Stores what a version sets of a table's state.
    pub(crate) fn put_state(
        &mut self,
        id: TableId,
        version: Version,
        index: &CommitIndex,
    ) -> Result<()> {
        if let Some(metadata) = &index.metadata {
            self.put(&Key::of(Space::Metadata, id).version(version), metadata)?;
        }
        if let Some(protocol) = &index.protocol {
            self.put(&Key::of(Space::Protocol, id).version(version), protocol)?;
        }
        for txn in &index.txns {
            self.put(&Key::of(Space::Txn, id).text(&txn.app_id).version(version), txn)?;
        }
        for domain in &index.domain_metadata {
            self.put(&Key::of(Space::Domain, id).text(&domain.domain).version(version), domain)?;
        }
        Ok(())
    }

    /// Stores a line of history with the keys that lead to it, and its bytes if there are any.
    pub(crate) fn put_commit(
        &mut self,
        record: CommitRecord,
        body: Option<&CommitBody>,
    ) -> Result<()> {
        let CommitRecord { table_id: id, version, timestamp, .. } = record;
        let times = Key::of(Space::Time, id);
        if let Some(old) = self.commit(id, version)? {
            self.delete(&times.clone().number(old.timestamp.0))?;
        }
        self.put(&times.number(timestamp.0), &version)?;
        if let (Some(token), Some(position)) = (&record.token, record.batch_position) {
            let key = token_key(token).number(i64::from(position));
            self.put(&key, &(id, version, timestamp))?;
        }
        if let Some(body) = body {
            self.put_bytes(&Key::of(Space::Body, id).version(version), &to_bytes(body)?)?;
        }
        self.put(&Key::of(Space::Commit, id).version(version), &CommitRow(record))
    }

    /// Forgets that a token wrote a version of a table.
    pub(crate) fn delete_token(&mut self, record: &CommitRecord) -> Result<()> {
        let (Some(token), Some(position)) = (&record.token, record.batch_position) else {
            return Ok(());
        };
        let key = token_key(token).number(i64::from(position));
        let written: Option<(TableId, Version, TimestampMs)> = self.get(&key)?;
        if written.is_some_and(|(id, _, _)| id == record.table_id) {
            self.delete(&key)?;
        }
        Ok(())
    }
}

#[async_trait]
impl CommitBackend for RedbBackend {
    async fn commit(&self, request: CommitRequest) -> WriteResult<CommitOutcome> {
        let request = request_in_memory(request).await?;
        let stays = |outcome: &CommitOutcome| matches!(outcome, CommitOutcome::Committed(_));
        Ok(self.write_if(stays, move |rows| rows.commit_batch(request)).await?)
    }

    async fn resolve_token(&self, token: &CommitToken) -> ReadResult<Option<Vec<CommittedTable>>> {
        let token = token.clone();
        Ok(self.read(move |rows| rows.written_by(&token)).await?)
    }
}
