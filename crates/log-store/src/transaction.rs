//! Transactions over several tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltalake::{DeltaResult, DeltaTable, DeltaTableError};
use deltalakedb_catalog_core::action::Action;
use deltalakedb_catalog_core::commit::parse_ndjson;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, CommitToken, TableName, TableRef};
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_engine::catalog::{
    Catalog, ChangeTarget, CommitBatch, CommitReport, TableChange,
};
use deltalakedb_catalog_engine::conflict::Reads;
use uuid::Uuid;

use crate::context::Context;
use crate::logstore::log_store;
use crate::squash::squash;
use crate::staging::Staging;
use crate::{Opener, Options, TableAddress, runtime};

/// A transaction over tables of one catalog: tables are opened in it, any operation of the `deltalake`
/// crate works on them, and one commit makes all of it visible, or nothing.
///
/// Reads in it see each table as it was when it was opened first, and the transaction's own writes. At
/// the commit each table is checked against what others have committed since, and put on top of it
/// where Delta's conflict rules allow that. Several operations on a table become one version of it.
///
/// Dropping a transaction leaves nothing behind but data files that nobody refers to: vacuum finds them.
#[derive(Debug)]
pub struct Transaction {
    catalog: Catalog,
    opener: Opener,
    /// The catalog's URL for people.
    shown: String,
    id: Uuid,
    tables: tokio::sync::Mutex<BTreeMap<TableName, Arc<Context>>>,
}

impl Transaction {
    /// Begins a transaction. `opener` says where new tables are made, and reads filters.
    #[must_use]
    pub fn begin(catalog: Catalog, opener: Opener, shown: &str) -> Transaction {
        let (shown, id) = (shown.to_owned(), Uuid::new_v4());
        Transaction { catalog, opener, shown, id, tables: tokio::sync::Mutex::default() }
    }

    /// Opens a table in the transaction; one that the catalog does not have can be created.
    ///
    /// # Errors
    /// Those of the catalog and of `deltalake`.
    pub async fn table(&self, table: &TableName) -> DeltaResult<DeltaTable> {
        self.table_with(table, Options::new()).await
    }

    /// As [`Transaction::table`], with storage options (see [`crate::LOCATION`], [`crate::WAREHOUSE`]).
    ///
    /// # Errors
    /// As [`Transaction::table`].
    pub async fn table_with(&self, table: &TableName, options: Options) -> DeltaResult<DeltaTable> {
        let error = |e: CatalogError| DeltaTableError::GenericError { source: Box::new(e) };
        let context = self.context(table, options).await.map_err(error)?;
        let key = format!("{}\n{}", self.shown, self.id);
        let mut opened = DeltaTable::new(log_store(context, &key)?);
        match opened.load().await {
            Ok(()) | Err(DeltaTableError::NotATable(_)) => Ok(opened),
            Err(error) => Err(error),
        }
    }

    /// Opens tables as of one instant (see [`Catalog::snapshots_at_once`]); those that the transaction
    /// has opened before stay as they are. In the order of `tables`.
    ///
    /// # Errors
    /// As [`Transaction::table`]; each must be there.
    pub async fn tables(&self, tables: &[TableName]) -> DeltaResult<Vec<DeltaTable>> {
        let error = |e: CatalogError| DeltaTableError::GenericError { source: Box::new(e) };
        {
            let mut open = self.tables.lock().await;
            let missing: Vec<TableRef> = tables
                .iter()
                .filter(|name| !open.contains_key(*name))
                .map(|name| TableRef::Name(name.clone()))
                .collect();
            let catalog = self.catalog.clone();
            let found = runtime::run(async move { catalog.snapshots_at_once(&missing).await });
            for snapshot in found.await.map_err(error)? {
                let name = snapshot.table.name.clone();
                let context = self.open(&name, Options::new(), Some(snapshot)).map_err(error)?;
                open.insert(name, context);
            }
        }
        let mut opened = Vec::with_capacity(tables.len());
        for name in tables {
            opened.push(self.table(name).await?);
        }
        Ok(opened)
    }

    async fn context(&self, table: &TableName, options: Options) -> Result<Arc<Context>> {
        let mut tables = self.tables.lock().await;
        if let Some(context) = tables.get(table) {
            return Ok(Arc::clone(context));
        }
        let (catalog, by_name) = (self.catalog.clone().on_primary(), TableRef::Name(table.clone()));
        let found = runtime::run(async move { catalog.snapshot(&by_name, At::Head).await }).await;
        let base = match found {
            Ok(snapshot) => Some(snapshot),
            Err(CatalogError::TableNotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let context = self.open(table, options, base)?;
        tables.insert(table.clone(), Arc::clone(&context));
        Ok(context)
    }

    fn open(
        &self,
        table: &TableName,
        options: Options,
        base: Option<Snapshot>,
    ) -> Result<Arc<Context>> {
        let address =
            TableAddress { url: String::new(), catalog: self.shown.clone(), table: table.clone() };
        let (opener, catalog) = (Arc::clone(&self.opener), self.catalog.clone());
        let staging = Staging::new(base);
        Ok(Arc::new(Context::staged(opener, address, options, catalog, staging)?))
    }

    /// Commits what was done to all tables, in one transaction of the database. Tables that were only
    /// read are not checked. None, if nothing was done.
    ///
    /// # Errors
    /// Those of [`Catalog::commit`]: a conflict, or a table that was dropped, names the table. Nothing
    /// was written then; only after `CommitUnknown` is that not known.
    pub async fn commit(self) -> Result<Option<CommitReport>> {
        self.commit_as(None).await
    }

    /// As [`Transaction::commit`], with a token: a repeated one takes effect once.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub async fn commit_as(self, token: Option<CommitToken>) -> Result<Option<CommitReport>> {
        let mut tables = Vec::new();
        for (name, context) in self.tables.into_inner() {
            let Some(staging) = context.staging() else { continue };
            let commits: Vec<Vec<u8>> =
                staging.commits().into_iter().map(|(_, bytes, _)| bytes.to_vec()).collect();
            if commits.is_empty() {
                continue;
            }
            let ndjson = squash(&name.to_string(), &commits)?;
            let (target, reads) = if let Some(base) = &staging.base {
                let table = TableRef::Id(base.table.id);
                let reads = reads(&self.opener, base, &name, &commits)?;
                (ChangeTarget::Existing { table, read_version: Some(base.version) }, reads)
            } else {
                (context.creation()?, Reads::default())
            };
            let origin = format!("the transaction's changes to table '{name}'");
            tables.push(TableChange { target, ndjson, origin, reads, operation: None });
        }
        if tables.is_empty() {
            return Ok(None);
        }
        let (catalog, batch) = (self.catalog, CommitBatch { token, tables });
        runtime::run(async move { catalog.commit(batch).await }).await.map(Some)
    }
}

/// What the commits of a transaction have read of a table: by what they say they did.
fn reads(
    opener: &Opener,
    base: &Snapshot,
    table: &TableName,
    commits: &[Vec<u8>],
) -> Result<Reads> {
    let mut filters = Vec::new();
    for bytes in commits {
        let lines = parse_ndjson(&format!("a change to table '{table}'"), bytes)?;
        let info = lines.iter().find(|line| matches!(line.action, Action::CommitInfo(_)));
        let info: serde_json::Value =
            info.and_then(|line| serde_json::from_str(line.text).ok()).unwrap_or_default();
        let info = &info["commitInfo"];
        let rewrites = lines.iter().any(|line| matches!(line.action, Action::Remove(_)));
        let operation = info["operation"].as_str().unwrap_or_default();
        let overwrites = info["operationParameters"]["mode"] == "Overwrite";
        // Adds alone depend on nothing; an overwrite replaces also what it did not find. A compaction
        // reads what it removes, which is checked anyway.
        if !rewrites && !overwrites && operation == "WRITE" || operation == "OPTIMIZE" {
            continue;
        }
        let predicate = info["operationParameters"]["predicate"].as_str();
        match predicate.and_then(|text| opener.filter(text, &base.metadata)) {
            Some(filter) => filters.push(filter),
            None => return Ok(Reads::whole_table()),
        }
    }
    if filters.is_empty() {
        return Ok(Reads::default());
    }
    let matching = Arc::new(move |add: &_| filters.iter().any(|filter| filter(add)));
    Ok(Reads { matching: Some(matching), ..Reads::default() })
}
