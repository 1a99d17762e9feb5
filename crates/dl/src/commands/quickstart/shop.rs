//! The quickstart's commits. Each has a token of its own: an interrupted run is picked up where it
//! was, and a second one commits nothing.

use std::path::{Path, PathBuf};

use deltalakedb::core::env::Progress;
use deltalakedb::mirror::store::normalize_location;
use deltalakedb::{Add, CatalogError, Change, CommitToken, Db, Table, TableName};

use super::data;
use crate::failure::{Failure, Result};

/// Two tables and where they are.
pub(super) struct Shop<'a> {
    db: &'a Db,
    names: [TableName; 2],
    roots: [PathBuf; 2],
}

/// Position of the tables in the arrays above.
const CUSTOMERS: usize = 0;
const ORDERS: usize = 1;

impl<'a> Shop<'a> {
    pub(super) fn new(db: &'a Db, folder: &Path) -> Result<Self> {
        Ok(Shop {
            db,
            names: [TableName::new("shop", "customers")?, TableName::new("shop", "orders")?],
            roots: [folder.join("customers"), folder.join("orders")],
        })
    }

    pub(super) fn names(&self) -> &[TableName; 2] {
        &self.names
    }

    pub(super) fn write_data(&self, progress: &dyn Progress) -> Result<()> {
        progress.begin("Writing data", "tables", Some(2));
        data::write_customers(&self.roots[CUSTOMERS])?;
        progress.advance(1);
        data::write_orders(&self.roots[ORDERS])?;
        progress.end();
        Ok(())
    }

    /// Commits what is not committed yet; for each transaction, whether it is new.
    pub(super) async fn commit_all(&self, progress: &dyn Progress) -> Result<Vec<bool>> {
        progress.begin("Committing", "transactions", Some(data::LATER_DAYS + 3));
        let mut new = vec![self.create().await?];
        self.check_tables().await?;
        progress.advance(1);
        let first_orders: Vec<String> = (0..data::FIRST_DAYS).map(data::orders_path).collect();
        new.push(self.add("first-load", vec![data::customers_path(None)], first_orders).await?);
        progress.advance(1);
        for day in data::FIRST_DAYS..data::FIRST_DAYS + data::LATER_DAYS {
            let signups = vec![data::customers_path(Some(day))];
            let token = format!("day-{}", data::day(day));
            new.push(self.add(&token, signups, vec![data::orders_path(day)]).await?);
            progress.advance(1);
        }
        new.push(self.correct().await?);
        progress.end();
        Ok(new)
    }

    /// Whether the token of a step has been committed.
    async fn is_done(&self, token: &CommitToken) -> Result<bool> {
        Ok(self.db.resolve(token).await?.is_some())
    }

    async fn create(&self) -> Result<bool> {
        let token = step("create")?;
        if self.is_done(&token).await? {
            return Ok(false);
        }
        let mut changes = self.db.changes().token(token.as_str());
        for (index, columns, partition_columns) in [
            (CUSTOMERS, data::CUSTOMERS, None),
            (ORDERS, data::ORDERS, Some(data::ORDERS_PARTITION)),
        ] {
            let name = &self.names[index];
            changes = changes.create(
                self.db
                    .create_table(&name.to_string())
                    .location(self.location(index)?)
                    .columns(columns)
                    .partition_by(partition_columns)
                    .property("delta.checkpointInterval", "10")
                    .description(format!("The {} of a made-up shop", name.name())),
            );
        }
        Ok(!changes.await?.replayed)
    }

    /// What this shop committed to before may have been dropped since.
    async fn check_tables(&self) -> Result<()> {
        for index in [CUSTOMERS, ORDERS] {
            let name = &self.names[index];
            let location = self.location(index)?;
            let ours = match self.db.table(name).await {
                Ok(table) => table.location() == location,
                Err(CatalogError::TableNotFound(_)) => false,
                Err(error) => return Err(error.into()),
            };
            if !ours {
                return Err(Failure::invalid(format!(
                    "table '{name}' of an earlier quickstart was dropped or replaced in this \
                     catalog: bring it back (`dl list --dropped`), or give another folder"
                )));
            }
        }
        Ok(())
    }

    /// Adds files to both tables in one transaction.
    async fn add(&self, what: &str, customers: Vec<String>, orders: Vec<String>) -> Result<bool> {
        let token = step(what)?;
        if self.is_done(&token).await? {
            return Ok(false);
        }
        let mut changes = self.db.changes().token(token.as_str());
        for (index, files) in [(CUSTOMERS, customers), (ORDERS, orders)] {
            let (table, adds) = self.describe(index, &files).await?;
            changes = changes.append(&table, adds);
        }
        Ok(!changes.await?.replayed)
    }

    /// Replaces the first day's orders by corrected ones.
    async fn correct(&self) -> Result<bool> {
        let token = step("correction")?;
        if self.is_done(&token).await? {
            return Ok(false);
        }
        let files = [data::orders_path(0), data::corrected_path()];
        let (orders, mut described) = self.describe(ORDERS, &files).await?;
        let corrected = described.split_off(1);
        let change = Change::of(&orders)
            .operation("UPDATE")
            .read_whole_table()
            .remove_files(described)
            .add_files(corrected);
        Ok(!self.db.changes().token(token.as_str()).change(change).await?.replayed)
    }

    fn location(&self, index: usize) -> Result<String> {
        Ok(normalize_location(&self.roots[index].to_string_lossy())?)
    }

    async fn describe(&self, index: usize, files: &[String]) -> Result<(Table, Vec<Add>)> {
        let table = self.db.table(&self.names[index]).await?;
        let root = &self.roots[index];
        let paths = files.iter().map(|file| root.join(file).to_string_lossy().into_owned());
        let adds = table.describe_files(paths).await?;
        Ok((table, adds))
    }
}

/// The token of a step. It only has to be unique in the quickstart's own catalog.
fn step(what: &str) -> Result<CommitToken> {
    Ok(CommitToken::new(format!("quickstart-{what}"))?)
}
