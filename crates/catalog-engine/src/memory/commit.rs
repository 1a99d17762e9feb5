//! The commit: every table is checked, then every table is written.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::state::{State, Table, page};
use deltalakedb_catalog_core::support::{
    NewVersion, Refusal, StoredTable, check_create, check_removes, check_shape, next_timestamp,
    prelude::*,
};

impl State {
    pub(super) fn commit(&mut self, request: CommitRequest) -> Result<CommitOutcome> {
        if let Some(done) = self.replayed(&request.token) {
            return Ok(CommitOutcome::Replayed(done));
        }
        check_shape(&request)?;

        let mut planned = Vec::with_capacity(request.tables.len());
        let mut names = BTreeSet::new();
        for (index, table) in request.tables.iter().enumerate() {
            match self.check(table, request.now, &mut names) {
                Ok(written) => planned.push(written),
                Err(refusal) => return refusal.outcome(index),
            }
        }

        // Nothing fails from here on: no commit in memory is too long to be numbered.
        for ((part, written), position) in request.tables.into_iter().zip(&planned).zip(0..) {
            let CommittedTable { table_id, version, timestamp } = *written;
            let first_line = Some(part.first_line.render(timestamp));
            let (body, index) = (&CommitBody { first_line, rest: part.rest }, &*part.index);
            if let CommitTarget::Create(new) = part.target {
                let table = Table::new(StoredTable::new(new, TableState::Active, request.now));
                self.tables.insert(table_id, table);
            }
            let table = self.in_state(table_id, TableState::Active)?;
            let token = Some((request.token.clone(), position));
            table.apply(&NewVersion { version, timestamp, token, body, index })?;
            if table.record().mirror != MirrorMode::Off {
                table.outbox.insert(version, table.stored.pending(version, request.now));
            }
        }
        let places = (0..).zip(&planned).map(|(place, w)| (place, w.table_id, w.version));
        self.tokens.insert(request.token, places.collect());
        Ok(CommitOutcome::Committed(planned))
    }

    pub(super) fn expire_tokens(
        &mut self,
        expiry: Expiry,
        after: Option<&CommitToken>,
    ) -> Expired<CommitToken> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tokens = self.tokens.range::<CommitToken, _>((from, Bound::Unbounded));
        let looked_at = page(tokens.map(|(token, _)| token.clone()), expiry.limit, Clone::clone);
        let mut removed = 0;
        for token in looked_at.items {
            let Some(places) = self.tokens.get(&token) else { continue };
            let is_old = |(_, id, version): &(u32, TableId, Version)| {
                self.tables.get(id).is_none_or(|table| {
                    let commit = table.commits.get(version);
                    table.record().state != TableState::Importing
                        && commit.is_none_or(|commit| commit.record.timestamp < expiry.before)
                })
            };
            if !places.iter().all(is_old) {
                continue;
            }
            removed += 1;
            if expiry.dry_run {
                continue;
            }
            for (_, id, version) in self.tokens.remove(&token).into_iter().flatten() {
                let table = self.tables.get_mut(&id);
                if let Some(commit) = table.and_then(|table| table.commits.get_mut(&version)) {
                    commit.record.token = None;
                    commit.record.batch_position = None;
                }
            }
        }
        Expired { removed, next: looked_at.next }
    }

    /// What one table's part will write.
    fn check<'a>(
        &self,
        part: &'a TableCommit,
        now: TimestampMs,
        names: &mut BTreeSet<&'a TableName>,
    ) -> Result<CommittedTable, Refusal> {
        let (table_id, table, version) = match &part.target {
            CommitTarget::Create(new) => {
                let name_taken = self.live(&new.name).is_some() || names.contains(&new.name);
                check_create(new, self.tables.contains_key(&new.id), name_taken)?;
                names.insert(&new.name);
                (new.id, None, Version::ZERO)
            }
            CommitTarget::Existing { table_id, rule } => {
                let table = self.tables.get(table_id).ok_or(Rejection::TableNotFound(*table_id))?;
                (*table_id, Some(table), table.stored.next_version(*rule)?)
            }
        };
        let is_active = |key: &FileKey| table.is_some_and(|t| t.active.contains_key(key));
        check_removes(&part.index, |key| Ok(is_active(key)))?;
        let head = table.and_then(|t| t.record().head_timestamp);
        let timestamp = next_timestamp(table_id, head, now)?;
        Ok(CommittedTable { table_id, version, timestamp })
    }
}
