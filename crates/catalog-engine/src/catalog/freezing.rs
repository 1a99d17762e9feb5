//! Freezing tables, and refusing to write to frozen ones.

use std::collections::BTreeSet;

use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::frozen::Frozen;
use deltalakedb_catalog_core::ids::{At, CommitToken, TableId, TableName, TableRef, Version};
use deltalakedb_catalog_core::model::{Snapshot, TableState};
use futures::stream::TryStreamExt;
use serde::Serialize;

use super::attempts::some_at_a_time;
use super::{Catalog, CommitBatch, CommitReport, TableChange};
use crate::conflict::ConflictKind;
use crate::fence::FenceChange;
use crate::freeze::{self, Reason, is_frozen};
use crate::lists::History;
use crate::pages::pages;

/// How often heads are read anew, as others freeze or unfreeze the same tables.
const MAX_LOOKS: u32 = 20;

/// What freezing or unfreezing did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FreezeReport {
    /// The one commit of all tables that were not as wanted; none if all were.
    pub commit: Option<CommitReport>,
    /// The tables, each once, in the order of the call (of a replayed one: by table id).
    pub tables: Vec<SwitchedTable>,
}

/// A table of a [`FreezeReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SwitchedTable {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// The version that the call wrote; none if the table was as wanted already.
    pub version: Option<Version>,
}

impl FreezeReport {
    /// Whether the call wrote something.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.commit.as_ref().is_some_and(|commit| !commit.replayed)
    }
}

impl Catalog {
    /// Freezes tables, see [`crate::freeze`]: in one transaction, all of them or none. One that is frozen
    /// already stays as it is.
    ///
    /// From the answer on no commit takes effect in any of them, from whichever process, but that of
    /// [`Catalog::unfreeze`]. Writers of files are kept out once the commit is published.
    ///
    /// # Errors
    /// `TableNotFound`; `InvalidInput` without tables; those of [`Catalog::commit`].
    pub async fn freeze(
        &self,
        tables: &[TableRef],
        reason: Option<Reason>,
        token: Option<CommitToken>,
    ) -> Result<FreezeReport> {
        self.switch(tables, &FenceChange::Freeze { reason }, token).await
    }

    /// Unfreezes tables: in one transaction, all of them or none. One that is not frozen stays as it is.
    ///
    /// # Errors
    /// Those of [`Catalog::freeze`].
    pub async fn unfreeze(
        &self,
        tables: &[TableRef],
        reason: Option<Reason>,
        token: Option<CommitToken>,
    ) -> Result<FreezeReport> {
        self.switch(tables, &FenceChange::Unfreeze { reason }, token).await
    }

    async fn switch(
        &self,
        tables: &[TableRef],
        change: &FenceChange,
        token: Option<CommitToken>,
    ) -> Result<FreezeReport> {
        if tables.is_empty() {
            return Err(CatalogError::invalid(format!(
                "there is no table to {}",
                change.operation().to_ascii_lowercase()
            )));
        }
        if let Some(token) = &token
            && let Some(tables) = self.resolve(token).await?
        {
            let token = token.clone();
            return self
                .replayed(CommitReport { token, replayed: true, attempts: 0, tables })
                .await;
        }
        let mut looks = 0;
        loop {
            looks += 1;
            let heads = tables.iter().map(|table| self.live_head(table)).collect();
            let mut seen = BTreeSet::new();
            let mut heads: Vec<Snapshot> = some_at_a_time(heads).await?;
            heads.retain(|head| seen.insert(head.table.id));
            let mut changes = Vec::new();
            for head in &heads {
                if change.lines(head)?.is_some() {
                    changes.push(TableChange::of_fence(head.table.id, change.clone()));
                }
            }
            let commit = if changes.is_empty() {
                None
            } else {
                let batch = CommitBatch { token: token.clone(), tables: changes };
                match self.commit(batch).await {
                    Ok(commit) => Some(commit),
                    // Somebody has frozen or unfrozen one of them just now.
                    Err(CatalogError::Conflict(conflict))
                        if conflict.kind == ConflictKind::ProtocolChanged && looks < MAX_LOOKS =>
                    {
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            };
            let version = |id: TableId| {
                let written = commit.iter().flat_map(|commit| &commit.tables);
                written.filter(|table| table.table_id == id).map(|table| table.version).next()
            };
            let tables = heads
                .into_iter()
                .map(|head| SwitchedTable {
                    table_id: head.table.id,
                    version: version(head.table.id),
                    name: head.table.name,
                })
                .collect();
            return Ok(FreezeReport { commit, tables });
        }
    }

    /// What a call with this token wrote before.
    async fn replayed(&self, commit: CommitReport) -> Result<FreezeReport> {
        let records = commit.tables.iter().map(|written| async {
            let record = self.table_on(&self.backend, &TableRef::Id(written.table_id)).await?;
            let (table_id, version) = (written.table_id, Some(written.version));
            Ok(SwitchedTable { table_id, name: record.name, version })
        });
        let tables = some_at_a_time(records.collect()).await?;
        Ok(FreezeReport { commit: Some(commit), tables })
    }

    async fn live_head(&self, table: &TableRef) -> Result<Snapshot> {
        let head = self.snapshot_on(&self.backend, table, At::Head).await?;
        if head.table.state == TableState::Active {
            return Ok(head);
        }
        Err(CatalogError::TableNotFound(table.to_string()))
    }

    /// Since when, by whom and why a table is frozen at the version of a snapshot; none if it is not.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn frozen(&self, snapshot: &Snapshot) -> Result<Option<Frozen>> {
        if !is_frozen(&snapshot.protocol) {
            return Ok(None);
        }
        // The commit that set the protocol has frozen the table: none came after it.
        let at = Some(snapshot.protocol_version);
        let filter = CommitFilter { from_version: at, to_version: at, ..CommitFilter::default() };
        let mut commits = pages(History {
            source: self.source(&self.backend),
            table_id: snapshot.table.id,
            filter,
        });
        let commit = commits.try_next().await?;
        Ok(Some(freeze::told(snapshot, commit.as_ref())))
    }

    /// Refuses a frozen table: for whoever changes what belongs to a table in another way than by a
    /// commit, which is refused by itself.
    ///
    /// # Errors
    /// `TableFrozen`.
    pub async fn refuse_frozen(&self, head: &Snapshot) -> Result<()> {
        if !is_frozen(&head.protocol) {
            return Ok(());
        }
        let told = self.frozen(head).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "it is not known who has frozen the table");
            None
        });
        let frozen = told.unwrap_or_else(|| freeze::told(head, None));
        Err(CatalogError::TableFrozen(Box::new(frozen)))
    }

    /// As [`Catalog::refuse_frozen`], for the table as it is now.
    ///
    /// # Errors
    /// `TableFrozen`, `TableNotFound`; those of the database.
    pub async fn refuse_frozen_table(&self, table: &TableRef) -> Result<()> {
        self.refuse_frozen(&self.snapshot_on(&self.backend, table, At::Head).await?).await
    }
}
