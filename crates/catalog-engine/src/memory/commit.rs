//! The commit: every table is checked, then every table is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::state::{State, Table};
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, HeadRule, Rejection, TableCommit,
};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorRow, MirrorState, TableState};
use deltalakedb_catalog_core::support::{check_shape, next_timestamp};

/// Why a checked table is not written.
enum Refusal {
    HeadMoved(Version),
    Rejected(Rejection),
    Error(CatalogError),
}

impl From<Rejection> for Refusal {
    fn from(reason: Rejection) -> Self {
        Refusal::Rejected(reason)
    }
}

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
                Err(Refusal::HeadMoved(head)) => {
                    return Ok(CommitOutcome::HeadMoved { index, head });
                }
                Err(Refusal::Rejected(reason)) => {
                    return Ok(CommitOutcome::Rejected { index, reason });
                }
                Err(Refusal::Error(e)) => return Err(e),
            }
        }

        // Nothing fails from here on.
        for ((part, written), position) in request.tables.into_iter().zip(&planned).zip(0..) {
            let body = CommitBody {
                first_line: Some(part.first_line.render(written.timestamp)),
                rest: part.rest,
            };
            let table = match part.target {
                CommitTarget::Create(new) => self
                    .tables
                    .entry(new.id)
                    .or_insert_with(|| Table::new(&new, TableState::Active, request.now)),
                CommitTarget::Existing { table_id, .. } => self.active(table_id)?,
            };
            let token = Some((request.token.clone(), position));
            let index = Arc::unwrap_or_clone(part.index);
            table.apply(written.version, written.timestamp, token, body, index);
            if table.record.mirror != MirrorMode::Off {
                table.enqueue(written.version, request.now);
            }
        }
        self.tokens.insert(request.token, (0..).zip(planned.iter().cloned()).collect());
        Ok(CommitOutcome::Committed(planned))
    }

    /// What one table's part will write.
    fn check<'a>(
        &self,
        part: &'a TableCommit,
        now: TimestampMs,
        names: &mut BTreeSet<&'a TableName>,
    ) -> Result<CommittedTable, Refusal> {
        let (table_id, table) = match &part.target {
            CommitTarget::Create(new) => {
                if self.tables.contains_key(&new.id) {
                    return Err(Rejection::IdTaken(new.id).into());
                }
                if self.live(&new.name).is_some() || !names.insert(&new.name) {
                    return Err(Rejection::NameTaken(new.name.clone()).into());
                }
                (new.id, None)
            }
            CommitTarget::Existing { table_id, rule } => {
                let table = self
                    .tables
                    .get(table_id)
                    .filter(|t| t.record.state == TableState::Active)
                    .ok_or(Rejection::TableNotFound(*table_id))?;
                let head = table.record.head.ok_or(Rejection::TableNotFound(*table_id))?;
                let holds = match rule {
                    HeadRule::Exactly(version) => head == *version,
                    HeadRule::Append { since } => table.record.barrier_version <= *since,
                };
                if !holds {
                    return Err(Refusal::HeadMoved(head));
                }
                (*table_id, Some(table))
            }
        };

        let mut gone = BTreeSet::new();
        for remove in &part.index.removes {
            let key = remove.key();
            if !table.is_some_and(|t| t.active.contains_key(&key)) || !gone.insert(key.clone()) {
                return Err(Rejection::FileNotActive { path: key.path, dv_id: key.dv_id }.into());
            }
        }

        let version = table.and_then(|t| t.record.head).map_or(Version::ZERO, Version::next);
        let timestamp = next_timestamp(table_id, table.and_then(|t| t.record.head_timestamp), now)
            .map_err(Refusal::Error)?;
        Ok(CommittedTable { table_id, version, timestamp })
    }
}

impl Table {
    /// Puts a version into the outbox.
    pub(super) fn enqueue(&mut self, version: Version, now: TimestampMs) {
        let row = MirrorRow {
            table_id: self.record.id,
            version,
            state: MirrorState::Pending,
            attempts: 0,
            last_error: None,
            retry_at: None,
            digest: None,
            enqueued_at: now,
            published_at: None,
        };
        self.outbox.insert(version, row);
    }
}
