//! Arithmetic of the mirror's outbox: rounds of a claim, what a lease covers, what is refused.

use std::future::Future;

use super::corrupt;
use crate::backend::{ClaimRequest, Expired, Expiry, MirrorLease, MirrorTask};
use crate::error::{CatalogError, Result};
use crate::ids::{TableId, Version};
use crate::model::TableRecord;

/// How often one claim of mirror work looks for more, where other workers took what it had found.
const CLAIM_ROUNDS: usize = 8;

/// Claims mirror work in rounds. Each round looks for tables with work, and leases those that this claim
/// does not have yet, as far as no other worker took them in between.
///
/// # Errors
/// Those of `look` and `lease` while nothing is leased. Once a table is leased, it is the answer: the rest
/// can wait for the next claim.
pub async fn claim_in_rounds<L, C>(
    request: &ClaimRequest,
    look: impl Fn() -> L,
    lease: impl Fn(Vec<TableId>) -> C,
) -> Result<Vec<MirrorTask>>
where
    L: Future<Output = Result<Vec<TableId>>>,
    C: Future<Output = Result<Vec<MirrorTask>>>,
{
    let mut tasks: Vec<MirrorTask> = Vec::new();
    for _ in 0..CLAIM_ROUNDS {
        let wanted = request.max_tables.saturating_sub(tasks.len());
        if wanted == 0 {
            break;
        }
        let round = async {
            let mut found = look().await?;
            found.retain(|id| tasks.iter().all(|task| task.table.id != *id));
            found.truncate(wanted);
            if found.is_empty() { Ok(None) } else { lease(found).await.map(Some) }
        };
        match round.await {
            Ok(Some(more)) => tasks.extend(more),
            Err(error) if tasks.is_empty() => return Err(error),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(tasks)
}

/// A page of an expiry of the outbox, table by table: callers know tables by their ids, and the rows of one are
/// together.
#[derive(Debug)]
pub struct OutboxExpiry {
    after: Option<(TableId, Version)>,
    /// Tables and rows that may be looked at yet.
    tables: usize,
    left: usize,
    entered: Option<TableId>,
    removed: u64,
    next: Option<(TableId, Version)>,
}

impl OutboxExpiry {
    /// A page.
    #[must_use]
    pub fn new(expiry: Expiry, after: Option<(TableId, Version)>) -> OutboxExpiry {
        let limit = expiry.limit.max(1);
        OutboxExpiry { after, tables: limit, left: limit, entered: None, removed: 0, next: None }
    }

    /// The first table to look at.
    #[must_use]
    pub fn first_table(&self) -> TableId {
        self.after.map_or(TableId(uuid::Uuid::nil()), |(id, _)| id)
    }

    /// So many tables are read, from the first one on, by their ids.
    #[must_use]
    pub fn fetch_tables(&self) -> i64 {
        // The one where the last page ended, and one that says that others follow.
        i64::try_from(self.tables).unwrap_or(i64::MAX).saturating_add(2)
    }

    /// Whether this table is looked at. If not, the page ends before it.
    pub fn enters(&mut self, table: TableId) -> bool {
        if self.after.is_none_or(|(id, _)| id != table) {
            if self.tables == 0 {
                let last = Version::new(Version::NEVER - 1).ok();
                self.next = self.entered.zip(last);
                return false;
            }
            self.tables -= 1;
        }
        self.entered = Some(table);
        true
    }

    /// The version after which the rows of a table are looked at.
    #[must_use]
    pub fn after_version(&self, table: TableId) -> i64 {
        self.after.filter(|(id, _)| *id == table).map_or(-1, |(_, version)| version.get())
    }

    /// So many rows may be looked at.
    #[must_use]
    pub fn rows(&self) -> i64 {
        i64::try_from(self.left).unwrap_or(i64::MAX)
    }

    /// So many rows of a table were looked at up to its last one, and so many removed. Whether the page is full.
    ///
    /// # Errors
    /// `Corrupt`: a version that is none.
    pub fn took(
        &mut self,
        table: TableId,
        looked_at: u64,
        last: Option<i64>,
        removed: u64,
    ) -> Result<bool> {
        self.removed = self.removed.saturating_add(removed);
        self.left = self.left.saturating_sub(usize::try_from(looked_at).unwrap_or(usize::MAX));
        if self.left == 0
            && let Some(last) = last
        {
            let version =
                Version::new(last).map_err(|e| corrupt(table, Some(last), "version", e))?;
            self.next = Some((table, version));
        }
        Ok(self.next.is_some())
    }

    /// What the page came to.
    #[must_use]
    pub fn end(self) -> Expired<(TableId, Version)> {
        Expired { removed: self.removed, next: self.next }
    }
}

/// The version after the published one.
#[must_use]
pub fn next_version(published: Option<Version>) -> i64 {
    published.map_or(0, |published| published.get().saturating_add(1))
}

/// A table whose next version may be published, as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Claimable {
    /// The table.
    pub table: TableId,
    /// Last published version.
    pub published: Option<i64>,
    /// Whether the lease is that of the owner who asks.
    pub same_holder: bool,
    /// Epoch of the lease.
    pub epoch: i64,
    /// How often the next version was tried.
    pub attempts: u32,
}

impl Claimable {
    /// The next version to publish.
    #[must_use]
    pub fn first(&self) -> i64 {
        self.published.map_or(0, |published| published.saturating_add(1))
    }

    /// The lease that a claim takes. Another holder than before has another epoch.
    #[must_use]
    pub fn lease(&self, request: &ClaimRequest) -> MirrorLease {
        MirrorLease {
            table_id: self.table,
            owner: request.owner.clone(),
            epoch: if self.same_holder { self.epoch } else { self.epoch.saturating_add(1) },
            until: request.now.plus_ms(request.lease_ms),
        }
    }

    /// The task of a claim that took this lease and found these versions in the outbox.
    ///
    /// # Errors
    /// Those of [`check_gapless`].
    pub fn task(
        &self,
        lease: MirrorLease,
        table: TableRecord,
        versions: &[i64],
    ) -> Result<MirrorTask> {
        check_gapless(self.table, self.first(), versions)?;
        let versions = versions.iter().map(|version| Version::new(*version));
        let versions = versions.collect::<Result<_, _>>()?;
        Ok(MirrorTask { lease, table, versions, attempts: self.attempts })
    }
}

/// Most versions of one task.
#[must_use]
pub fn most_versions(request: &ClaimRequest) -> i64 {
    i64::try_from(request.max_versions.max(1)).unwrap_or(i64::MAX)
}

/// The last of the versions that the outbox has from `first` on.
///
/// # Errors
/// `Corrupt` if there is none, or one between them is missing.
pub fn check_gapless(table: TableId, first: i64, versions: &[i64]) -> Result<i64> {
    let gapless = (first..).zip(versions).all(|(expected, found)| expected == *found);
    match versions.last() {
        Some(last) if gapless => Ok(*last),
        _ => Err(corrupt(table, Some(first), "outbox", "a version is missing in it")),
    }
}

/// The error of a version that was published before its predecessor, or is not in the outbox.
#[must_use]
pub fn out_of_order(table: &TableRecord, version: Version, next: i64) -> CatalogError {
    CatalogError::invalid(format!(
        "table '{}': version {version} was published out of order, {next} comes next",
        table.name
    ))
}

/// The error of a failure of a version that is not in the outbox, or published.
#[must_use]
pub fn not_waiting(table: &TableRecord, version: Version) -> CatalogError {
    CatalogError::invalid(format!(
        "table '{}': version {version} is not waiting to be published",
        table.name
    ))
}

/// The key after which a page of the outbox starts.
#[must_use]
pub fn outbox_start(after: Option<(TableId, Version)>) -> (TableId, i64) {
    after.map_or((TableId(uuid::Uuid::nil()), -1), |(id, version)| (id, version.get()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::{TableName, TimestampMs};
    use crate::model::{MirrorMode, TableState};

    fn task(id: TableId) -> MirrorTask {
        let at = TimestampMs(0);
        MirrorTask {
            lease: MirrorLease { table_id: id, owner: "w".to_owned(), epoch: 1, until: at },
            table: TableRecord {
                id,
                name: TableName::new("shop", "orders").unwrap(),
                location: "s3://lake/orders".to_owned(),
                storage_options: BTreeMap::new(),
                state: TableState::Active,
                created_at: at,
                dropped_at: None,
                head: Some(Version::ZERO),
                head_timestamp: Some(at),
                base_version: Version::ZERO,
                barrier_version: Version::ZERO,
                mirror: MirrorMode::Active,
                published_version: None,
            },
            versions: vec![Version::ZERO],
            attempts: 0,
        }
    }

    fn request(max_tables: usize) -> ClaimRequest {
        ClaimRequest {
            owner: "w".to_owned(),
            now: TimestampMs(5),
            lease_ms: 10,
            max_tables,
            max_versions: 1,
            only: None,
        }
    }

    fn ids(numbers: impl IntoIterator<Item = u128>) -> Vec<TableId> {
        numbers.into_iter().map(|n| TableId(uuid::Uuid::from_u128(n))).collect()
    }

    fn failed<T>() -> Result<T> {
        Err(CatalogError::invalid("no"))
    }

    #[tokio::test]
    async fn a_claim_looks_again_for_tables_that_others_took() {
        let rounds = Cell::new(0);
        let look = || async { Ok(ids([1, 2, 3])) };
        let lease = |found: Vec<TableId>| {
            rounds.set(rounds.get() + 1);
            // Of each round's tables, another worker took all but the first.
            async move { Ok(found.first().map(|id| task(*id)).into_iter().collect()) }
        };
        let tasks = claim_in_rounds(&request(2), look, lease).await.unwrap();
        let got: Vec<TableId> = tasks.iter().map(|task| task.table.id).collect();
        assert_eq!((got, rounds.get()), (ids([1, 2]), 2));
    }

    #[tokio::test]
    async fn a_claim_fails_only_with_nothing_in_hand() {
        let rounds = Cell::new(0);
        let lease = |found: Vec<TableId>| {
            rounds.set(rounds.get() + 1);
            let first = rounds.get() == 1;
            async move { if first { Ok(vec![task(found[0])]) } else { failed() } }
        };
        let look = || async { Ok(ids([1, 2])) };
        assert_eq!(claim_in_rounds(&request(2), look, lease).await.unwrap().len(), 1);
        let fails = async |request: &ClaimRequest| {
            claim_in_rounds(request, || async { failed() }, |_| async { failed() }).await
        };
        assert!(fails(&request(2)).await.is_err());
        assert_eq!(fails(&request(0)).await.unwrap(), Vec::new());
    }

    #[test]
    fn versions_of_a_task_follow_each_other() {
        let id = ids([1])[0];
        assert_eq!(check_gapless(id, 3, &[3, 4]).unwrap(), 4);
        assert!(check_gapless(id, 3, &[]).is_err());
        assert!(check_gapless(id, 3, &[3, 5]).is_err());
    }
}
