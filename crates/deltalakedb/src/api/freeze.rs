//! Freezing tables for maintenance windows.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::frozen::Frozen;
use deltalakedb_catalog_core::ids::{CommitToken, TableRef};
use deltalakedb_catalog_engine::catalog::FreezeReport;
use deltalakedb_catalog_engine::freeze::{Reason, is_frozen};

use super::{IntoTableRef, Table};
use crate::Db;

/// Tables to be frozen or unfrozen, made by [`Db::freeze`] and [`Db::unfreeze`]. Awaited, that is committed in one
/// transaction, for all of them or for none.
#[must_use = "tables are frozen when this is awaited"]
#[derive(Debug)]
pub struct Freezing {
    db: Db,
    tables: Vec<Result<TableRef>>,
    reason: Option<String>,
    token: Option<String>,
    freezes: bool,
}

impl Freezing {
    /// Why: one line, at most 500 characters. It stands in the tables' history, and in the error of each write
    /// that is refused.
    pub fn reason(mut self, text: impl Into<String>) -> Freezing {
        self.reason = Some(text.into());
        self
    }

    /// A token makes a repeated call take effect once, see [`Changes::token`](super::Changes::token).
    pub fn token(mut self, token: impl Into<String>) -> Freezing {
        self.token = Some(token.into());
        self
    }
}

impl IntoFuture for Freezing {
    type Output = Result<FreezeReport>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Commits. A table that is as wanted already stays as it is, and the report says so.
    ///
    /// # Errors
    /// Nothing is committed with any of them but `commit_unknown`.
    ///
    /// - `table_not_found`.
    /// - `invalid_input`: a bad name, reason or token, and no table at all.
    /// - `unsupported`: a table has a feature that this writer does not have.
    /// - `commit_unknown`: the answer was lost. The same call with the same token tells.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let tables = self.tables.into_iter().collect::<Result<Vec<_>>>()?;
            let reason = self.reason.map(|text| text.parse::<Reason>()).transpose()?;
            let token = self.token.map(CommitToken::new).transpose()?;
            let catalog = self.db.catalog();
            if self.freezes {
                catalog.freeze(&tables, reason, token).await
            } else {
                catalog.unfreeze(&tables, reason, token).await
            }
        })
    }
}

impl Db {
    /// Freezes tables: they are read as always, and every write to them is refused with `table_frozen`, in whichever
    /// process, until [`Db::unfreeze`]. Programs that write to the files of a published table refuse it, too, by the
    /// writer feature `deltalakedb.frozen`, once the commit is published ([`Table::wait_published`]).
    ///
    /// ```
    /// # use deltalakedb::{Db, Result};
    /// # fn main() -> Result<()> { tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let db = Db::create(&"memory://".parse()?).await?;
    /// # for name in ["shop.orders", "shop.items"] {
    /// #     db.create_table(name).location(format!("memory://freeze/{name}")).columns("id long").await?;
    /// # }
    /// db.freeze(["shop.orders", "shop.items"]).reason("the store moves").await?;
    ///
    /// let orders = db.table("shop.orders").await?;
    /// let refused = orders.alter().description("new").await.unwrap_err();
    /// assert_eq!(refused.code(), "table_frozen");
    /// assert_eq!(orders.frozen().await?.unwrap().reason.as_deref(), Some("the store moves"));
    ///
    /// db.unfreeze(["shop.orders", "shop.items"]).await?;
    /// # Ok(()) }) }
    /// ```
    pub fn freeze<I>(&self, tables: I) -> Freezing
    where
        I: IntoIterator,
        I::Item: IntoTableRef,
    {
        self.freezing(tables, true)
    }

    /// Lets writers in again: those that could write before.
    pub fn unfreeze<I>(&self, tables: I) -> Freezing
    where
        I: IntoIterator,
        I::Item: IntoTableRef,
    {
        self.freezing(tables, false)
    }

    fn freezing<I>(&self, tables: I, freezes: bool) -> Freezing
    where
        I: IntoIterator,
        I::Item: IntoTableRef,
    {
        let tables = tables.into_iter().map(IntoTableRef::into_table_ref).collect();
        Freezing { db: self.clone(), tables, reason: None, token: None, freezes }
    }
}

impl Table {
    /// Freezes the table, see [`Db::freeze`].
    pub fn freeze(&self) -> Freezing {
        self.db().freeze([self])
    }

    /// Lets writers in again, see [`Db::unfreeze`].
    pub fn unfreeze(&self) -> Freezing {
        self.db().unfreeze([self])
    }

    /// Whether the table was frozen at this version.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        is_frozen(self.protocol())
    }

    /// Since when, by whom and why the table was frozen at this version; none if it was not.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn frozen(&self) -> Result<Option<Frozen>> {
        self.db().catalog().frozen(self.snapshot()).await
    }
}
