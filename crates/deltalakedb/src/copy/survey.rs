//! What source and target hold, and whether a copy from one to the other can go on.

use std::collections::HashMap;

use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, TableName, Version};
use deltalakedb_catalog_core::model::{TableRecord, TableState};
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::retry::Retry;
use futures::TryStreamExt;

use super::load::find;

/// Tables that an error lists.
const MAX_LISTED: usize = 20;

/// Both sides at one time.
pub(super) struct Survey {
    /// Tables of the source: dropped ones first, in the order in which they were dropped, so that
    /// each name is free when the next table with it comes.
    pub(super) source: Vec<TableRecord>,
    /// Tables of the target.
    pub(super) target: HashMap<TableId, TableRecord>,
    /// Unfinished imports at the source.
    pub(super) skipped: Vec<TableName>,
    /// Names of active tables at the target.
    names: HashMap<TableName, TableId>,
    /// How many tables of the source have a name, dropped ones among them.
    uses: HashMap<TableName, usize>,
}

/// Fails unless a catalog is initialised for this program.
pub(crate) async fn require_catalog(catalog: &Catalog, side: &str) -> Result<()> {
    let info = Retry::of(catalog).repeat(|| catalog.backend().info()).await?;
    if info.schema_version == info.supported_schema_version {
        return Ok(());
    }
    Err(CatalogError::Schema(format!(
        "the {side} has schema version {} (0: none), this program needs {}: create or upgrade it \
         with `dl init`",
        info.schema_version, info.supported_schema_version
    )))
}

/// All tables in one state.
pub(crate) async fn tables(catalog: &Catalog, state: TableState) -> Result<Vec<TableRecord>> {
    catalog.tables(TableFilter { namespace: None, state: Some(state) }).try_collect().await
}

/// Names in an error, to a bound.
pub(crate) fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(MAX_LISTED);
    let text = names.take(MAX_LISTED).collect::<Vec<_>>().join(", ");
    if more == 0 { text } else { format!("{text}, and {more} more") }
}

impl Survey {
    /// Looks at both sides.
    ///
    /// # Errors
    /// `InvalidInput` for tables at the target that are not the source's, and for unfinished
    /// imports at the source unless they are to be left out.
    pub(super) async fn take(from: &Catalog, to: &Catalog, skip_importing: bool) -> Result<Survey> {
        let importing = tables(from, TableState::Importing).await?;
        let skipped: Vec<TableName> = importing.into_iter().map(|table| table.name).collect();
        if !skipped.is_empty() && !skip_importing {
            return Err(CatalogError::invalid(format!(
                "the source has unfinished imports: {}. Finish each with `dl import --resume`, \
                 throw it away with `--restart`, or leave them out with --skip-importing",
                listed(skipped.iter().map(ToString::to_string))
            )));
        }
        let active = tables(from, TableState::Active).await?;
        let dropped = tables(from, TableState::Dropped).await?;
        // A table that was dropped between the two lists is in both: the later one counts.
        let mut source: HashMap<TableId, TableRecord> = HashMap::new();
        for table in active.into_iter().chain(dropped) {
            source.insert(table.id, table);
        }
        let mut target = HashMap::new();
        for state in [TableState::Active, TableState::Importing, TableState::Dropped] {
            for table in tables(to, state).await? {
                target.insert(table.id, table);
            }
        }
        let mut foreign = Vec::new();
        for table in target.values() {
            if !source.contains_key(&table.id) && find(from, table.id).await?.is_none() {
                foreign.push(format!("{} ({}, {})", table.name, table.id, table.state.as_str()));
            }
        }
        if !foreign.is_empty() {
            foreign.sort();
            return Err(CatalogError::invalid(format!(
                "the target holds tables that the source does not have: {}. A catalog is copied \
                 into an empty one, or one that a copy of the same source has begun: use another \
                 database, or another table_prefix",
                listed(foreign.into_iter())
            )));
        }
        let mut source: Vec<TableRecord> = source.into_values().collect();
        source.sort_by(|a, b| {
            let order = |t: &TableRecord| (t.state != TableState::Dropped, t.dropped_at);
            (order(a), &a.name, a.id).cmp(&(order(b), &b.name, b.id))
        });
        let mut uses = HashMap::new();
        for table in &source {
            *uses.entry(table.name.clone()).or_insert(0_usize) += 1;
        }
        let names = target
            .values()
            .filter(|table| table.state == TableState::Active)
            .map(|table| (table.name.clone(), table.id))
            .collect();
        Ok(Survey { source, target, skipped, names, uses })
    }

    /// Whether a table of the source is complete at the target: nothing is written to it any more.
    pub(super) fn is_finished(&self, record: &TableRecord) -> bool {
        self.target.get(&record.id).is_some_and(|copy| copy.state != TableState::Importing)
    }

    /// Whether several tables of the source have this name, of which at most one is not dropped.
    pub(super) fn shares_name(&self, record: &TableRecord) -> bool {
        self.uses.get(&record.name).is_some_and(|uses| *uses > 1)
    }

    /// The active table that keeps this one from being registered at the target.
    pub(super) fn name_taken(&self, record: &TableRecord) -> Option<TableId> {
        self.names.get(&record.name).copied().filter(|id| *id != record.id)
    }

    /// Commits that the source has and unfinished tables at the target lack.
    pub(super) fn missing_commits(&self) -> u64 {
        let next = |head: Option<Version>| head.map_or(0, |head| head.get().saturating_add(1));
        self.source
            .iter()
            .filter(|record| !self.is_finished(record))
            .map(|record| {
                let stored = self.target.get(&record.id).and_then(|copy| copy.head);
                let missing = next(record.head).saturating_sub(next(stored));
                u64::try_from(missing).unwrap_or(0)
            })
            .fold(0, u64::saturating_add)
    }
}
