//! What one attempt sends for one table: its plan on the head, checked against the commits that won.

use std::sync::Arc;

use deltalakedb_catalog_core::backend::{AppRows, CommitTarget, HeadRule, TableCommit};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex, index_ndjson};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::later::{LargeCommit, read_stored};
use deltalakedb_catalog_core::model::{MirrorMode, NewTable, Snapshot, TableState};
use deltalakedb_catalog_core::secrets;

use super::part::Part;
use super::{Catalog, ChangeTarget, MAX_UNPUBLISHED, TableChange};
use crate::conflict::{self, ConflictKind, Isolation, Reads};
use crate::fence::FenceChange;
use crate::plan::{LARGE_BYTES, Operation, Plan, PlanBase, PlanTarget, plan};

/// Most commits that one commit is checked against when it is rebased.
const MAX_REBASE_COMMITS: i64 = 100_000;

/// Commits read per call while rebasing.
const REBASE_PAGE: usize = 256;

impl Catalog {
    /// Brings one table of a batch up to the current head.
    pub(super) async fn prepare(
        &self,
        part: &mut Part<'_>,
        token: &CommitToken,
        now: TimestampMs,
    ) -> Result<TableCommit> {
        let target = match &part.change.target {
            ChangeTarget::Create { .. } => self.prepare_create(part, token)?,
            ChangeTarget::Fence { table, change } => {
                self.prepare_fence(part, table, change, token, now).await?
            }
            ChangeTarget::Next { table, version } => {
                self.prepare_next(part, table, *version, token, now).await?
            }
            ChangeTarget::Existing { table, read_version } => {
                // A plan on a remembered head is sent once: the next attempt reads the head.
                let remembered = if part.start_anew(&self.heads) {
                    None
                } else {
                    self.append_to_remembered(part, table, *read_version, token, now)
                };
                match remembered {
                    Some(target) => target,
                    None => self.prepare_rebased(part, table, *read_version, token, now).await?,
                }
            }
        };
        let plan =
            part.plan.as_ref().ok_or_else(|| CatalogError::invalid("commit without a plan"))?;
        Ok(TableCommit {
            target,
            first_line: plan.first_line.clone(),
            rest: plan.rest.clone(),
            index: Arc::clone(&plan.index),
            later: plan.later.clone(),
        })
    }

    /// Version 0 of a new table. All attempts create the same table.
    fn prepare_create(&self, part: &mut Part<'_>, token: &CommitToken) -> Result<CommitTarget> {
        let change = part.change;
        let ChangeTarget::Create { name, location, storage_options, mirror, fence } =
            &change.target
        else {
            return Err(CatalogError::invalid("this change creates no table"));
        };
        secrets::check_options(storage_options)?;
        let id = *part.new_id.get_or_insert_with(|| TableId(self.ids.uuid()));
        part.table_id = Some(id);
        if part.plan.is_none() {
            let target = PlanTarget::New { fence: *fence };
            part.plan = Some(self.plan(change, target, token, name)?);
        }
        Ok(CommitTarget::Create(NewTable {
            id,
            name: name.clone(),
            location: location.clone(),
            storage_options: storage_options.clone(),
            mirror: *mirror,
        }))
    }

    /// A change of who may write, on the protocol that it was read from.
    async fn prepare_fence(
        &self,
        part: &mut Part<'_>,
        table: &TableRef,
        fence: &FenceChange,
        token: &CommitToken,
        now: TimestampMs,
    ) -> Result<CommitTarget> {
        let head = self.head_for(part, table).await?;
        let switches_freeze = fence.switches_freeze();
        if !switches_freeze {
            self.refuse_frozen(&head).await?;
        }
        let Some(ndjson) = fence.lines(&head)? else {
            if switches_freeze {
                // Another one has done it since the caller looked.
                return Err(part.conflict(Some(head.version), ConflictKind::ProtocolChanged));
            }
            return Err(CatalogError::invalid(format!(
                "the fence of table '{}' is {} already",
                part.label,
                if *fence == FenceChange::Raise { "up" } else { "down" }
            )));
        };
        let base = plan_base(&head, now);
        let lowers_fence = matches!(fence, FenceChange::Lower { .. });
        let base = PlanBase { lowers_fence, switches_freeze, ..base };
        let (target, reads) = (PlanTarget::On(base), Reads::default());
        let (origin, parameters) = (&part.change.origin, fence.parameters());
        let operation = Operation { name: fence.operation(), parameters: Some(&parameters) };
        let mut plan = plan(origin, &ndjson, target, &reads, Some(operation), token)?;
        self.signature.sign(&mut plan, &head.table.name);
        let exact = plan.exact || !switches_freeze;
        part.plan = Some(plan);
        if exact {
            return Ok(exactly(&head));
        }
        // It rests on protocol and metadata alone: appends, however many, do not hold it up.
        let rule = HeadRule::Append { since: head.version };
        Ok(CommitTarget::Existing { table_id: head.table.id, rule })
    }

    /// Exactly this version, of a writer that checks and rebases by itself.
    async fn prepare_next(
        &self,
        part: &mut Part<'_>,
        table: &TableRef,
        version: Version,
        token: &CommitToken,
        now: TimestampMs,
    ) -> Result<CommitTarget> {
        let head = self.head_for(part, table).await?;
        self.refuse_frozen(&head).await?;
        part.pressure = back_pressure(&head);
        if head.version >= version {
            return Err(part.conflict(Some(version), ConflictKind::VersionTaken));
        }
        if head.version.next() != version {
            return Err(CatalogError::VersionNotFound {
                table: part.label.clone(),
                version: (version.get() - 1).to_string(),
                earliest: head.table.base_version,
                latest: head.version,
            });
        }
        part.read_version = Some(head.version);
        let base = PlanTarget::On(plan_base(&head, now));
        part.plan = Some(self.plan(part.change, base, token, &head.table.name)?);
        Ok(exactly(&head))
    }

    /// The next version on the head now, checked against the commits that won since the writer read.
    async fn prepare_rebased(
        &self,
        part: &mut Part<'_>,
        table: &TableRef,
        read_version: Option<Version>,
        token: &CommitToken,
        now: TimestampMs,
    ) -> Result<CommitTarget> {
        let head = self.head_for(part, table).await?;
        self.refuse_frozen(&head).await?;
        part.pressure = back_pressure(&head);
        let read = *part.read_version.get_or_insert(read_version.unwrap_or(head.version));
        if read > head.version || read < head.table.base_version {
            return Err(CatalogError::VersionNotFound {
                table: part.label.clone(),
                version: read.to_string(),
                earliest: head.table.base_version,
                latest: head.version,
            });
        }
        if part.plan.as_ref().is_none_or(|plan| plan.exact) {
            let base = PlanTarget::On(plan_base(&head, now));
            let plan = self.plan(part.change, base, token, &head.table.name)?;
            part.isolation = Isolation::for_commit(
                head.metadata.property("delta.isolationLevel"),
                plan.only_rearranges,
            );
            part.plan = Some(plan);
        }
        let blind = part.plan.as_ref().is_some_and(|plan| plan.blind_append);
        let from = part.checked.unwrap_or(read);
        // A blind append has nothing to check but the barrier.
        let barrier_moved = head.table.barrier_version > from;
        if head.version > from && (!blind || barrier_moved) {
            self.check_winners(part, head.table.id, from, head.version).await?;
        }
        part.checked = Some(head.version);
        self.check_applications(part, &head).await?;
        if !blind {
            return Ok(exactly(&head));
        }
        self.heads.keep(&head, now);
        let rule = HeadRule::Append { since: head.version };
        Ok(CommitTarget::Existing { table_id: head.table.id, rule })
    }

    /// The plan of a change, signed.
    fn plan(
        &self,
        change: &TableChange,
        target: PlanTarget<'_>,
        token: &CommitToken,
        table: &TableName,
    ) -> Result<Plan> {
        let operation =
            change.operation.as_deref().map(|name| Operation { name, parameters: None });
        let mut plan =
            plan(&change.origin, &change.ndjson, target, &change.reads, operation, token)?;
        self.signature.sign(&mut plan, table);
        Ok(plan)
    }

    /// An append that reads nothing, on a remembered head. None if no head is remembered, if the change is
    /// no such append, or after such a plan failed.
    fn append_to_remembered(
        &self,
        part: &mut Part<'_>,
        table: &TableRef,
        read_version: Option<Version>,
        token: &CommitToken,
        now: TimestampMs,
    ) -> Option<CommitTarget> {
        let change = part.change;
        let &TableRef::Id(id) = table else { return None };
        if part.reads_heads
            || part.table_id.is_some()
            || read_version.is_some()
            || !change.reads.is_blind()
        {
            return None;
        }
        let head = self.heads.get(id, now)?;
        if head.metadata.property(MAX_UNPUBLISHED).is_some() {
            return None;
        }
        // A mistake in the change may be one on the remembered head alone.
        let base = PlanTarget::On(plan_base(&head, now));
        let plan = self.plan(change, base, token, &head.table.name).ok()?;
        if !plan.blind_append || plan.exact {
            return None;
        }
        part.table_id = Some(id);
        part.plan = Some(plan);
        part.on_remembered_head = true;
        let rule = HeadRule::Append { since: head.version };
        Some(CommitTarget::Existing { table_id: id, rule })
    }

    /// The head that a part of a batch goes on: of the table that it was found to be at first.
    async fn head_for(&self, part: &mut Part<'_>, table: &TableRef) -> Result<Snapshot> {
        let by_id = part.table_id.map(TableRef::Id);
        // A commit is planned and checked on the primary only.
        let asked = by_id.as_ref().unwrap_or(table);
        let head = match self.snapshot_on(&self.backend, asked, At::Head).await {
            Err(CatalogError::TableNotFound(_)) if by_id.is_some() => {
                return Err(part.conflict(None, ConflictKind::TableDropped));
            }
            other => other?,
        };
        if head.table.state != TableState::Active {
            return Err(match by_id {
                Some(_) => part.conflict(None, ConflictKind::TableDropped),
                None => CatalogError::TableNotFound(table.to_string()),
            });
        }
        part.table_id = Some(head.table.id);
        if let Some(warning) = self.skew.warning(&head, self.clock.now()) {
            tracing::warn!("{warning}");
        }
        Ok(head)
    }

    /// Checks a commit against `from < version <= to`.
    async fn check_winners(
        &self,
        part: &Part<'_>,
        table_id: TableId,
        from: Version,
        to: Version,
    ) -> Result<()> {
        let Some(plan) = &part.plan else { return Ok(()) };
        if to.get() - from.get() > MAX_REBASE_COMMITS {
            return Err(CatalogError::invalid(format!(
                "commit to table '{}' was planned on version {from}, the head is {to}: more than \
                 {MAX_REBASE_COMMITS} commits lie between; read the table again",
                part.label
            )));
        }
        let mut next = from.next();
        while next <= to {
            let bodies =
                self.repeat(|| self.backend.read_bodies(table_id, next, to, REBASE_PAGE)).await?;
            if bodies.is_empty() {
                return Err(CatalogError::corrupt(format!(
                    "table '{}': commits {next} to {to} have no stored bytes, so nothing can be checked \
                     against them. Nothing was committed; restore the catalog from a backup",
                    part.label
                )));
            }
            for (record, body) in bodies {
                // What is not there cannot be checked, and may conflict.
                if record.version != next {
                    return Err(CatalogError::corrupt(format!(
                        "table '{}': commit {next} has no stored bytes, so nothing can be checked \
                         against it. Nothing was committed; restore the catalog from a backup",
                        part.label
                    )));
                }
                let origin = format!("table '{}', version {}", part.label, record.version);
                let found = if body.rest.raw_len < LARGE_BYTES as u64 {
                    let winner = index_ndjson(&origin, &body.published()?)?;
                    conflict::check(&plan.index, &part.change.reads, part.isolation, &winner)
                } else {
                    check_large(&plan.index, &part.change.reads, part.isolation, &origin, &body)
                        .await?
                };
                if let Some(kind) = found {
                    return Err(part.conflict(Some(record.version), kind));
                }
                next = record.version.next();
            }
        }
        Ok(())
    }

    /// An application's version only moves forward: writing one again is a duplicate.
    async fn check_applications(&self, part: &Part<'_>, head: &Snapshot) -> Result<()> {
        let Some(plan) = part.plan.as_ref().filter(|p| !p.index.txns.is_empty()) else {
            return Ok(());
        };
        let state = self
            .repeat(|| self.backend.app_state(head.table.id, head.version, AppRows::Transactions))
            .await?;
        for txn in &plan.index.txns {
            if let Some(old) = state.transactions.iter().find(|r| r.app_id == txn.app_id)
                && old.version >= txn.version
            {
                let kind = ConflictKind::TransactionApplied {
                    app_id: txn.app_id.clone(),
                    wanted: txn.version,
                    recorded: old.version,
                };
                return Err(part.conflict(None, kind));
            }
        }
        Ok(())
    }
}

/// [`conflict::check`] against a winner that is too large to be in memory.
pub(super) async fn check_large(
    current: &CommitIndex,
    reads: &Reads,
    isolation: Isolation,
    origin: &str,
    winner: &CommitBody,
) -> Result<Option<ConflictKind>> {
    let LargeCommit { index, later, .. } = read_stored(origin, winner)?;
    if let Some(kind) = conflict::check_changes(&index) {
        return Ok(Some(kind));
    }
    if conflict::appends_matter(current, reads, isolation, &index) {
        let mut pages = later.pages()?;
        while let Some(page) = pages.next().await? {
            if let Some(kind) = conflict::check_adds(reads, &page) {
                return Ok(Some(kind));
            }
        }
    }
    Ok(conflict::check_rest(current, reads, isolation, &index))
}

/// Why a commit has to wait for the mirror, if the table asks for that (see [`MAX_UNPUBLISHED`]).
fn back_pressure(head: &Snapshot) -> Option<String> {
    let bound: i64 = head.metadata.property(MAX_UNPUBLISHED)?.trim().parse().ok()?;
    let stopped = match head.table.mirror {
        MirrorMode::Off => return None,
        MirrorMode::Active => "",
        MirrorMode::Diverged => ", and publishing has stopped: a foreign commit stands in its log",
    };
    let published = head.table.published_version.map_or(-1, Version::get);
    let waiting = head.version.get() - published;
    (bound > 0 && waiting >= bound).then(|| {
        format!(
            "table '{}' has {waiting} versions that are not published yet{stopped}; \
             {MAX_UNPUBLISHED} is {bound}: commits wait until there are fewer",
            head.table.name
        )
    })
}

/// A head as the base of a plan, for a request of this time.
fn plan_base(head: &Snapshot, now: TimestampMs) -> PlanBase<'_> {
    PlanBase {
        protocol: &head.protocol,
        metadata: &head.metadata,
        next_version: head.version.next(),
        next_timestamp: now.max(head.timestamp.plus_ms(1)),
        lowers_fence: false,
        switches_freeze: false,
    }
}

/// The next version, if the head is still this one.
fn exactly(head: &Snapshot) -> CommitTarget {
    CommitTarget::Existing { table_id: head.table.id, rule: HeadRule::Exactly(head.version) }
}
