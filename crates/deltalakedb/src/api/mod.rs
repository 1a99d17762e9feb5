//! What programs that embed a catalog use: tables by name, and changes of them.
//!
//! Errors are named by their codes ([`CatalogError::code`]). Besides those that a call names, every call
//! that asks the database may fail with `busy` (the same call may succeed soon), `unavailable`, `corrupt`
//! and `schema`.

mod alter;
mod changes;
mod check_rows;
mod create;
mod freeze;
mod table;
#[cfg(test)]
mod tests;

pub use alter::AlterTable;
pub use changes::{Change, Changes, Target};
pub use create::CreateTable;
pub use freeze::Freezing;
pub use table::Table;

use std::time::SystemTime;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, TimestampMs, Version};

use crate::Db;

/// What names a table: a name, an id, a [`TableRef`], a [`Table`].
pub trait IntoTableRef {
    /// The reference.
    ///
    /// # Errors
    /// `invalid_input` for text that is no name.
    fn into_table_ref(self) -> Result<TableRef>;
}

impl IntoTableRef for &str {
    fn into_table_ref(self) -> Result<TableRef> {
        Ok(self.parse()?)
    }
}

impl IntoTableRef for &String {
    fn into_table_ref(self) -> Result<TableRef> {
        Ok(self.parse()?)
    }
}

impl IntoTableRef for &TableName {
    fn into_table_ref(self) -> Result<TableRef> {
        Ok(TableRef::Name(self.clone()))
    }
}

impl IntoTableRef for TableId {
    fn into_table_ref(self) -> Result<TableRef> {
        Ok(TableRef::Id(self))
    }
}

impl IntoTableRef for &TableRef {
    fn into_table_ref(self) -> Result<TableRef> {
        Ok(self.clone())
    }
}

/// The table, whatever its version.
impl IntoTableRef for &Table {
    fn into_table_ref(self) -> Result<TableRef> {
        Ok(TableRef::Id(self.id()))
    }
}

/// What says which state of a table is meant: a version (a number, a [`Version`]), a time (a
/// [`TimestampMs`], a [`SystemTime`]), an [`At`].
pub trait IntoAt {
    /// The state.
    ///
    /// # Errors
    /// `invalid_input` for a number that is no version.
    fn into_at(self) -> Result<At>;
}

impl IntoAt for i64 {
    fn into_at(self) -> Result<At> {
        Ok(At::Version(Version::new(self)?))
    }
}

impl IntoAt for Version {
    fn into_at(self) -> Result<At> {
        Ok(At::Version(self))
    }
}

impl IntoAt for TimestampMs {
    fn into_at(self) -> Result<At> {
        Ok(At::Timestamp(self))
    }
}

/// The latest version that is not younger, to the millisecond.
impl IntoAt for SystemTime {
    fn into_at(self) -> Result<At> {
        let ms = match self.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).ok(),
            Err(before) => i64::try_from(before.duration().as_millis()).ok().map(|ms| -ms),
        };
        let ms = ms.ok_or_else(|| CatalogError::invalid("a time is too far away"))?;
        Ok(At::Timestamp(TimestampMs(ms)))
    }
}

impl IntoAt for At {
    fn into_at(self) -> Result<At> {
        Ok(self)
    }
}

impl Db {
    /// Opens a table at its latest version: one query.
    ///
    /// `table` is a name (`"shop.orders"`; without a namespace, in `default`), an id, or a
    /// [`TableRef`].
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use futures::TryStreamExt;
    /// # let folder = tempfile::tempdir()?;
    /// # let url = format!("sqlite://{}", folder.path().join("catalog.db").display());
    /// # let lake = folder.path().join("orders").display().to_string();
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use deltalakedb::Db;
    ///
    /// let db = Db::create(&url.parse()?).await?;
    /// db.create_table("shop.orders").location(&lake).columns("id long, day date").await?;
    ///
    /// let orders = db.table("shop.orders").await?;
    /// assert_eq!(orders.version().get(), 0);
    /// let mut files = orders.files();
    /// while let Some(file) = files.try_next().await? {
    ///     println!("{} ({} bytes)", file.add.path, file.add.size);
    /// }
    /// # Ok(()) })
    /// # }
    /// # #[cfg(not(feature = "sqlite"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// `table_not_found`; `invalid_input` for text that is no name, and for a table that is being
    /// imported.
    pub async fn table(&self, table: impl IntoTableRef) -> Result<Table> {
        self.table_at(table, At::Head).await
    }

    /// Opens a table at a version (`3`, a [`Version`]) or at a time (a
    /// [`TimestampMs`] or [`SystemTime`]: the latest version that is not younger).
    ///
    /// # Errors
    /// Those of [`Db::table`]; `version_not_found`.
    pub async fn table_at(&self, table: impl IntoTableRef, at: impl IntoAt) -> Result<Table> {
        let snapshot = self.snapshot(&table.into_table_ref()?, at.into_at()?).await?;
        Ok(Table::new(self.clone(), snapshot))
    }

    /// A table to create; awaited, it is created.
    ///
    /// ```no_run
    /// # async fn example(db: deltalakedb::Db) -> deltalakedb::Result<()> {
    /// let orders = db
    ///     .create_table("shop.orders")
    ///     .location("/lake/orders")
    ///     .columns("id long not null, day date, amount decimal(10,2)")
    ///     .partition_by(["day"])
    ///     .property("delta.deletedFileRetentionDuration", "interval 30 days")
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn create_table(&self, name: &str) -> CreateTable {
        CreateTable::new(self.clone(), name)
    }

    /// Changes of any number of tables; awaited, they are committed in one transaction, all of them or
    /// none.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     db: deltalakedb::Db, orders: Vec<deltalakedb::Add>, items: Vec<deltalakedb::Add>,
    /// # ) -> deltalakedb::Result<()> {
    /// let report = db
    ///     .changes()
    ///     .token("load-2026-01-31")
    ///     .append("shop.orders", orders)
    ///     .append("shop.items", items)
    ///     .await?;
    /// assert!(!report.replayed, "a second run with this token would change nothing");
    /// # Ok(()) }
    /// ```
    pub fn changes(&self) -> Changes {
        Changes::new(self.clone())
    }
}
