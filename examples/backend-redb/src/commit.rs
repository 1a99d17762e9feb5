//! The part that commits. The tables of a batch are checked and written one after another: whatever refuses one of
//! them ends the transaction without a trace.

use deltalakedb_catalog_core::support::{self, NewVersion, Refusal, StoredTable, prelude::*};
use redb::ReadableTable;

use crate::RedbBackend;
use crate::outbox::row_key;
use crate::store::{Key, Rows, Space, WriteRows};

pub(crate) fn token_key(token: &CommitToken) -> Key {
    Key::new(Space::Token).text(token.as_str())
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    /// What a token wrote.
    fn written_by(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        let mut written = Vec::new();
        for place in self.all(&token_key(token))? {
            let (id, version) = place?;
            let line = self.commit(id, version)?;
            let place = line.as_ref().and_then(|line| line.batch_position).unwrap_or_default();
            written.extend(line.as_ref().map(|line| (i64::from(place), line.into())));
        }
        Ok(Some(support::newest_batch(written)).filter(|written| !written.is_empty()))
    }
}

impl WriteRows<'_> {
    fn commit_batch(&mut self, request: CommitRequest) -> Result<CommitOutcome> {
        self.check_schema()?;
        if let Some(done) = self.written_by(&request.token)? {
            return Ok(CommitOutcome::Replayed(done));
        }
        support::check_shape(&request)?;
        let mut written = Vec::with_capacity(request.tables.len());
        for (index, (part, position)) in request.tables.into_iter().zip(0..).enumerate() {
            match self.commit_table(part, request.now, (request.token.clone(), position)) {
                Ok(table) => written.push(table),
                Err(refusal) => return refusal.outcome(index),
            }
        }
        Ok(CommitOutcome::Committed(written))
    }

    /// Forgets old tokens. Their keys begin with them, so that they are in the order of their bytes.
    fn expire_tokens(
        &mut self,
        expiry: Expiry,
        after: Option<&CommitToken>,
    ) -> Result<Expired<CommitToken>> {
        let all = Key::new(Space::Token);
        let from = after.map_or(all.clone(), |token| token_key(token).end());
        let mut tokens: Vec<(CommitToken, Vec<(TableId, Version)>)> = Vec::new();
        for place in self.scan::<(TableId, Version)>(&from, &all.end())? {
            let place = place?;
            // A row has its token in its key alone: the line of history says it, too.
            let Some(token) = self.commit(place.0, place.1)?.and_then(|line| line.token) else {
                continue;
            };
            let seen = tokens.len();
            match tokens.last_mut() {
                Some((last, places)) if *last == token => places.push(place),
                _ if seen > expiry.limit.max(1) => break,
                _ => tokens.push((token, vec![place])),
            }
        }
        let page = support::page(tokens, expiry.limit, |(token, _)| token.clone());
        let mut removed = 0;
        for (token, places) in page.items {
            let mut lines = Vec::new();
            for (id, version) in places {
                let importing =
                    self.table(id)?.is_some_and(|t| t.record.state == TableState::Importing);
                lines.extend(self.commit(id, version)?.map(|line| (line, importing)));
            }
            if lines.iter().any(|(line, importing)| *importing || line.timestamp >= expiry.before) {
                continue;
            }
            removed += 1;
            if expiry.dry_run {
                continue;
            }
            self.delete_all(&token_key(&token))?;
            for (mut line, _) in lines {
                (line.token, line.batch_position) = (None, None);
                self.put_commit(&line, None)?;
            }
        }
        Ok(Expired { removed, next: page.next })
    }

    /// Writes one table's part.
    fn commit_table(
        &mut self,
        part: TableCommit,
        now: TimestampMs,
        token: (CommitToken, u32),
    ) -> Result<CommittedTable, Refusal> {
        let (mut table, version) = match part.target {
            CommitTarget::Create(new) => {
                let name_taken = self.live(&new.name)?.is_some();
                support::check_create(&new, self.table(new.id)?.is_some(), name_taken)?;
                (StoredTable::new(new, TableState::Active, now), Version::ZERO)
            }
            CommitTarget::Existing { table_id, rule } => {
                let table = self.table(table_id)?.ok_or(Rejection::TableNotFound(table_id))?;
                let version = table.next_version(rule)?;
                (table, version)
            }
        };
        let table_id = table.record.id;
        support::check_removes(&part.index, |file| Ok(self.active(table_id, file)?.is_some()))?;
        let timestamp = support::next_timestamp(table_id, table.record.head_timestamp, now)?;
        let first_line = Some(part.first_line.render(timestamp));
        let (body, index) = (&CommitBody { first_line, rest: part.rest }, &*part.index);
        let commit = NewVersion { version, timestamp, token: Some(token), body, index };
        self.write_version(&mut table, &commit)?;
        if table.record.mirror != MirrorMode::Off {
            self.put(&row_key(table_id, version), &table.pending(version, now))?;
        }
        Ok(CommittedTable { table_id, version, timestamp })
    }

    /// Writes the rows of the next version, and moves the head of `table` to it.
    pub(crate) fn write_version(
        &mut self,
        table: &mut StoredTable,
        commit: &NewVersion<'_>,
    ) -> Result<()> {
        let (id, version, index) = (table.record.id, commit.version, commit.index);
        let mut bytes_removed = 0;
        for (position, remove) in index.removes.iter().enumerate() {
            let active = self.active(id, &remove.key())?;
            let (row, bytes) = table.remove_file(active, version, position, remove)?;
            self.put_file(id, &row)?;
            bytes_removed += i128::from(bytes);
        }
        for (position, add) in index.adds.iter().enumerate() {
            let active = self.active(id, &add.key())?;
            for row in table.add_file(active, version, position, add)? {
                self.put_file(id, &row)?;
            }
        }
        self.put_state(id, version, index)?;
        let mut line = commit.line(id);
        table.advance(&mut line, bytes_removed);
        self.put_commit(&line, Some(commit.body))?;
        self.put_table(table)
    }

    /// Stores what a version sets of a table's state.
    pub(crate) fn put_state(
        &mut self,
        id: TableId,
        version: Version,
        index: &CommitIndex,
    ) -> Result<()> {
        if let Some(metadata) = &index.metadata {
            self.put(&Key::of(Space::Metadata, id).version(version), &(version, metadata))?;
        }
        if let Some(protocol) = &index.protocol {
            self.put(&Key::of(Space::Protocol, id).version(version), &(version, protocol))?;
        }
        for txn in &index.txns {
            let key = Key::of(Space::Txn, id).text(&txn.app_id);
            self.put(&key.version(version), &(&txn.app_id, txn))?;
        }
        for domain in &index.domain_metadata {
            let key = Key::of(Space::Domain, id).text(&domain.domain);
            self.put(&key.version(version), &(&domain.domain, domain))?;
        }
        Ok(())
    }

    /// Stores a line of history, its token, and its bytes if there are any.
    pub(crate) fn put_commit(
        &mut self,
        line: &CommitRecord,
        body: Option<&CommitBody>,
    ) -> Result<()> {
        let CommitRecord { table_id: id, version, batch_position, .. } = *line;
        if let (Some(token), Some(position)) = (&line.token, batch_position) {
            let key = token_key(token).number(position.into()).id(id).version(version);
            self.put(&key, &(id, version))?;
        }
        if let Some(CommitBody { first_line, rest }) = body {
            self.put(&Key::of(Space::Body, id).version(version), &(first_line, rest.raw_len))?;
            self.put_bytes(&Key::of(Space::Rest, id).version(version), &rest.zstd)?;
        }
        self.put(&Key::of(Space::Commit, id).version(version), &(line, batch_position))
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

    async fn expire_tokens(
        &self,
        expiry: Expiry,
        after: Option<&CommitToken>,
    ) -> WriteResult<Expired<CommitToken>> {
        let after = after.cloned();
        Ok(self.write(move |rows| rows.expire_tokens(expiry, after.as_ref())).await?)
    }
}
