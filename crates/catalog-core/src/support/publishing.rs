//! The outbox of one table, as values: its rows and the lease, and what claims, settlements and changes of the
//! mode make of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{StoredTable, not_waiting, out_of_order};
use crate::backend::{
    ClaimRequest, Expiry, MirrorLease, MirrorTask, PublishFailure, Published, Settlement,
};
use crate::error::Result;
use crate::ids::{TimestampMs, Version};
use crate::model::{MirrorMode, MirrorRow, MirrorState, TableState};

/// The right to publish a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The worker that has it, and until when. It holds before that time and lapses at it.
    pub holder: Option<(String, TimestampMs)>,
    /// Grows with each claim by a worker that is not the holder.
    pub epoch: i64,
}

/// Rows of a table's outbox, by version: all that are not complete. Complete ones may be among them.
pub type Outbox = BTreeMap<Version, MirrorRow>;

impl StoredTable {
    /// The version after the published one: the rows from here on are not complete, those before are.
    #[must_use]
    pub fn next_to_publish(&self) -> Version {
        self.record.published_version.map_or(Version::ZERO, Version::next)
    }

    /// The row that a commit puts into the outbox.
    #[must_use]
    pub fn pending(&self, version: Version, now: TimestampMs) -> MirrorRow {
        MirrorRow {
            table_id: self.record.id,
            version,
            state: MirrorState::Pending,
            attempts: 0,
            last_error: None,
            retry_at: None,
            digest: None,
            enqueued_at: now,
            published_at: None,
        }
    }

    /// Puts those of the versions into the outbox that wait to be published and are not there.
    pub(super) fn enqueue(
        &self,
        outbox: &mut Outbox,
        versions: impl IntoIterator<Item = Version>,
        now: TimestampMs,
    ) {
        for version in versions.into_iter().filter(|version| *version >= self.next_to_publish()) {
            outbox.entry(version).or_insert_with(|| self.pending(version, now));
        }
    }

    /// Since when work waits here that a worker may have now; none if there is none. `next` is the row of the
    /// next version to publish.
    #[must_use]
    pub fn claimable(
        &self,
        next: Option<&MirrorRow>,
        request: &ClaimRequest,
    ) -> Option<TimestampMs> {
        let is_published = self.record.state == TableState::Active
            && self.record.mirror == MirrorMode::Active
            && request.only.is_none_or(|only| only == self.record.id);
        let is_free = self
            .lease
            .holder
            .as_ref()
            .is_none_or(|(owner, until)| *owner == request.owner || *until <= request.now);
        let next = next.filter(|_| is_published && is_free)?;
        next.retry_at.is_none_or(|at| at <= request.now).then_some(next.enqueued_at)
    }

    /// Gives the lease and the next versions to a worker that may have them.
    #[must_use]
    pub fn claim(&mut self, outbox: &mut Outbox, request: &ClaimRequest) -> MirrorTask {
        let (owner, until) = (request.owner.clone(), request.now.plus_ms(request.lease_ms));
        if self.lease.holder.as_ref().is_none_or(|(before, _)| *before != owner) {
            self.lease.epoch += 1;
        }
        self.lease.holder = Some((owner.clone(), until));
        let next = self.next_to_publish();
        let attempts = outbox.get(&next).map_or(0, |row| row.attempts);
        let mut versions = Vec::new();
        for (version, row) in outbox.range_mut(next..).take(request.max_versions.max(1)) {
            row.state = MirrorState::InFlight;
            row.attempts = row.attempts.saturating_add(1);
            versions.push(*version);
        }
        let epoch = self.lease.epoch;
        let lease = MirrorLease { table_id: self.record.id, owner, epoch, until };
        MirrorTask { lease, table: self.record.clone(), versions, attempts }
    }

    /// Whether a lease still holds. It holds until another worker takes it, even if it has lapsed.
    #[must_use]
    pub fn is_held(&self, lease: &MirrorLease) -> bool {
        let owner = self.lease.holder.as_ref().map(|(owner, _)| owner);
        self.lease.epoch == lease.epoch && owner == Some(&lease.owner)
    }

    /// Extends a lease; none if it was lost.
    #[must_use]
    pub fn renew(&mut self, lease: &MirrorLease, until: TimestampMs) -> Option<MirrorLease> {
        if !self.is_held(lease) {
            return None;
        }
        self.lease.holder = Some((lease.owner.clone(), until));
        Some(MirrorLease { until, ..lease.clone() })
    }

    /// Records what became of versions that a lease was for; false, with nothing changed, if the lease was lost.
    ///
    /// # Errors
    /// `InvalidInput`, with nothing changed, for versions that are not the next ones or do not wait.
    pub fn settle(
        &mut self,
        outbox: &mut Outbox,
        lease: &MirrorLease,
        how: Settlement<'_>,
    ) -> Result<bool> {
        if !self.is_held(lease) {
            return Ok(false);
        }
        match how {
            Settlement::Published(done) => self.complete(outbox, done)?,
            Settlement::Failed(failure) => self.fail(outbox, failure)?,
            Settlement::Released => self.give_up_lease(outbox),
        }
        Ok(true)
    }

    fn complete(&mut self, outbox: &mut Outbox, done: &[Published]) -> Result<()> {
        let mut next = self.next_to_publish();
        for published in done {
            if published.version != next || !outbox.contains_key(&next) {
                return Err(out_of_order(&self.record, published.version, next.get()));
            }
            next = next.next();
        }
        for published in done {
            if let Some(row) = outbox.get_mut(&published.version) {
                row.state = MirrorState::Complete;
                row.digest = Some(published.digest.clone());
                row.published_at = Some(published.at);
                row.retry_at = None;
                row.last_error = None;
            }
            self.record.published_version = Some(published.version);
        }
        Ok(())
    }

    fn fail(&mut self, outbox: &mut Outbox, failure: &PublishFailure) -> Result<()> {
        let row = outbox.get_mut(&failure.version);
        let row = row.filter(|row| row.state != MirrorState::Complete);
        let row = row.ok_or_else(|| not_waiting(&self.record, failure.version))?;
        row.state = MirrorState::Failed;
        row.last_error = Some(failure.error.clone());
        row.retry_at = Some(failure.retry_at);
        // A table that was switched off meanwhile stays off: its later versions have no rows.
        if failure.diverged && self.record.mirror == MirrorMode::Active {
            self.record.mirror = MirrorMode::Diverged;
        }
        self.give_up_lease(outbox);
        Ok(())
    }

    fn give_up_lease(&mut self, outbox: &mut Outbox) {
        self.lease.holder = None;
        for row in outbox.values_mut().filter(|row| row.state == MirrorState::InFlight) {
            row.state = MirrorState::Pending;
        }
    }

    /// Makes failed versions due now and a diverged table active again. How many versions these are.
    pub fn retry(&mut self, outbox: &mut Outbox, now: TimestampMs) -> u64 {
        if self.record.mirror == MirrorMode::Diverged {
            self.record.mirror = MirrorMode::Active;
        }
        let mut due = 0;
        for row in outbox.values_mut().filter(|row| row.state == MirrorState::Failed) {
            row.retry_at = Some(now);
            due += 1;
        }
        due
    }

    /// Turns publishing on or off, or notes a foreign commit. Where it is turned on, those of `versions` are enqueued
    /// that wait to be published: the caller gives all from [`next_to_publish`](StoredTable::next_to_publish) on.
    pub fn set_mode(
        &mut self,
        outbox: &mut Outbox,
        mode: MirrorMode,
        versions: impl IntoIterator<Item = Version>,
        now: TimestampMs,
    ) {
        // A table that is off stays off: its later versions have no rows.
        if mode != MirrorMode::Diverged || self.record.mirror == MirrorMode::Active {
            self.record.mirror = mode;
        }
        if mode == MirrorMode::Active {
            self.enqueue(outbox, versions, now);
        }
    }
}

/// Whether a row belongs to a list of rows in a state; without one, of those that are not complete.
#[must_use]
pub fn is_in_state(row: &MirrorRow, state: Option<MirrorState>) -> bool {
    match state {
        Some(state) => row.state == state,
        None => row.state != MirrorState::Complete,
    }
}

/// Whether a row below a table's `published_version` goes.
#[must_use]
pub fn has_expired(row: &MirrorRow, expiry: Expiry) -> bool {
    row.state == MirrorState::Complete && row.published_at.is_some_and(|at| at < expiry.before)
}

/// A settlement that owns what it says, for a backend whose work goes to another thread.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedSettlement {
    /// [`Settlement::Published`].
    Published(Vec<Published>),
    /// [`Settlement::Failed`].
    Failed(PublishFailure),
    /// [`Settlement::Released`].
    Released,
}

impl From<Settlement<'_>> for OwnedSettlement {
    fn from(how: Settlement<'_>) -> Self {
        match how {
            Settlement::Published(done) => OwnedSettlement::Published(done.to_vec()),
            Settlement::Failed(failure) => OwnedSettlement::Failed(failure.clone()),
            Settlement::Released => OwnedSettlement::Released,
        }
    }
}

impl OwnedSettlement {
    /// The same, borrowed.
    #[must_use]
    pub fn get(&self) -> Settlement<'_> {
        match self {
            OwnedSettlement::Published(done) => Settlement::Published(done),
            OwnedSettlement::Failed(failure) => Settlement::Failed(failure),
            OwnedSettlement::Released => Settlement::Released,
        }
    }
}
