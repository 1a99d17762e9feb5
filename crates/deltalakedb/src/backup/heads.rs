//! Up to which version each table is backed up, while writers go on.
//!
//! Tables are listed until two lists in a row are the same: then these were the heads at one moment
//! between the two. In a catalog that never stands still, the last two lists decide. Of a table that
//! changed between them, commits after the first list are taken along only with everything that
//! their transactions wrote elsewhere. So each commit that was made before the first of the two lists
//! is in, and a transaction over several tables is in for all of them or for none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{TableRecord, TableState};
use deltalakedb_catalog_engine::catalog::Catalog;
use futures::TryStreamExt;

use crate::copy::load::find;
use crate::copy::survey::tables;

/// How often the tables are listed at most.
const ROUNDS: usize = 6;

/// What a backup takes.
pub(super) struct Heads {
    /// Every commit before this time is in.
    pub(super) taken_at: TimestampMs,
    /// Tables, the dropped ones first, in the order in which they were dropped.
    pub(super) tables: Vec<TableRecord>,
    /// Unfinished imports.
    pub(super) importing: Vec<TableName>,
}

type Tables = BTreeMap<TableId, TableRecord>;

/// Decides.
///
/// # Errors
/// Those of the database; `Unavailable` if tables are renamed all the time.
pub(super) async fn take(catalog: &Catalog) -> Result<Heads> {
    let mut began = catalog.clock().now();
    let (mut before, _) = list(catalog).await?;
    for round in 1.. {
        let taken_at = began;
        began = catalog.clock().now();
        let (now, importing) = list(catalog).await?;
        let still = same(&before, &now);
        if (still || round >= ROUNDS) && names_are_unique(&now) {
            let now = if still { now } else { whole_transactions(catalog, &before, now).await? };
            let mut tables: Vec<TableRecord> = now.into_values().collect();
            tables.sort_by(|a, b| {
                let order = |t: &TableRecord| (t.state != TableState::Dropped, t.dropped_at);
                (order(a), &a.name, a.id).cmp(&(order(b), &b.name, b.id))
            });
            return Ok(Heads { taken_at, tables, importing });
        }
        if round >= 2 * ROUNDS {
            break;
        }
        before = now;
    }
    Err(CatalogError::busy(
        "tables are dropped and made under the same names all the time: no list of them was whole"
            .to_owned(),
        WriteState::NotApplied,
    ))
}

/// All tables that can be read, and the names of the others.
async fn list(catalog: &Catalog) -> Result<(Tables, Vec<TableName>)> {
    let importing = tables(catalog, TableState::Importing).await?;
    let mut found = Tables::new();
    // A table that was dropped between two lists is in both: the later one counts.
    for state in [TableState::Active, TableState::Dropped] {
        for table in tables(catalog, state).await? {
            found.insert(table.id, table);
        }
    }
    let importing: Vec<_> = importing
        .into_iter()
        .filter(|table| !found.contains_key(&table.id))
        .map(|table| table.name)
        .collect();
    Ok((found, importing))
}

fn same(before: &Tables, now: &Tables) -> bool {
    let content = |record: &TableRecord| TableRecord { published_version: None, ..record.clone() };
    before.len() == now.len()
        && before.values().zip(now.values()).all(|(a, b)| content(a) == content(b))
}

fn names_are_unique(tables: &Tables) -> bool {
    let mut names = BTreeSet::new();
    let active = tables.values().filter(|table| table.state == TableState::Active);
    active.map(|table| &table.name).all(|name| names.insert(name))
}

/// Lowers heads until no transaction is in by halves.
async fn whole_transactions(catalog: &Catalog, before: &Tables, mut now: Tables) -> Result<Tables> {
    // Brought back between the lists of its two states.
    for id in before.keys() {
        if !now.contains_key(id)
            && let Some(found) = find(catalog, *id).await?
            && found.state != TableState::Importing
        {
            now.insert(*id, found);
        }
    }
    let mut tokens = BTreeSet::new();
    let mut batches: Vec<Vec<(TableId, Version)>> = Vec::new();
    for (id, record) in &now {
        let seen = before.get(id).and_then(|record| record.head);
        if seen == record.head {
            continue;
        }
        let filter = CommitFilter {
            from_version: seen.map(Version::next),
            to_version: record.head,
            ..CommitFilter::default()
        };
        let mut commits = catalog.history(*id, filter);
        while let Some(commit) = commits.try_next().await? {
            let Some(token) = commit.token.filter(|token| tokens.insert(token.clone())) else {
                continue;
            };
            let written = catalog.resolve(&token).await?.unwrap_or_default();
            if written.len() > 1 {
                batches.push(written.into_iter().map(|w| (w.table_id, w.version)).collect());
            }
        }
    }
    let mut heads: HashMap<TableId, Option<Version>> =
        now.iter().map(|(id, record)| (*id, record.head)).collect();
    lower(&mut heads, &batches);
    for (id, record) in &mut now {
        let head = heads.get(id).copied().flatten();
        if head != record.head {
            *record = cut(catalog, record, head).await?;
        }
    }
    now.retain(|_, record| record.head.is_some_and(|head| head >= record.base_version));
    Ok(now)
}

/// Leaves out each transaction of which a part is left out, and what follows it.
pub(super) fn lower(
    heads: &mut HashMap<TableId, Option<Version>>,
    batches: &[Vec<(TableId, Version)>],
) {
    loop {
        let mut lowered = false;
        for batch in batches {
            let is_in = |heads: &HashMap<TableId, Option<Version>>, id, version| {
                heads.get(id).is_some_and(|head| *head >= Some(version))
            };
            if batch.iter().all(|(id, version)| is_in(heads, id, *version)) {
                continue;
            }
            for (id, version) in batch {
                if is_in(heads, id, *version) {
                    heads.insert(*id, version.previous());
                    lowered = true;
                }
            }
        }
        if !lowered {
            return;
        }
    }
}

/// A table's row as it was at an earlier head.
async fn cut(
    catalog: &Catalog,
    record: &TableRecord,
    head: Option<Version>,
) -> Result<TableRecord> {
    let mut record = TableRecord {
        head,
        published_version: record.published_version.min(head),
        barrier_version: record.base_version,
        head_timestamp: None,
        ..record.clone()
    };
    let Some(head) = head else { return Ok(record) };
    let filter = CommitFilter { to_version: Some(head), ..CommitFilter::default() };
    let mut commits = catalog.history(record.id, filter);
    while let Some(commit) = commits.try_next().await? {
        record.head_timestamp.get_or_insert(commit.timestamp);
        if commit.version <= record.base_version {
            break;
        }
        if commit.changes_metadata || commit.changes_protocol {
            record.barrier_version = commit.version;
            break;
        }
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn transactions_are_left_out_whole_and_what_follows_them_too() {
        let id = |n: u128| TableId(Uuid::from_u128(n));
        let v = |n| Version::new(n).unwrap();
        let mut heads =
            HashMap::from([(id(1), Some(v(5))), (id(2), Some(v(9))), (id(3), Some(v(0)))]);
        let batches = [
            // Whole.
            vec![(id(1), v(2)), (id(2), v(3))],
            // Its part in 3 is left out.
            vec![(id(2), v(7)), (id(3), v(1))],
            // So this one is, by what follows.
            vec![(id(1), v(4)), (id(2), v(8))],
            // A table that is not there.
            vec![(id(3), v(0)), (id(4), v(0))],
        ];
        lower(&mut heads, &batches);
        assert_eq!(heads[&id(1)], Some(v(3)));
        assert_eq!(heads[&id(2)], Some(v(6)));
        assert_eq!(heads[&id(3)], None);
    }
}
