//! A table of a catalog, at one version.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deltalakedb_catalog_core::action::{Add, Metadata, Protocol};
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{CommitRecord, FileRecord, Snapshot, TableRecord};
use deltalakedb_catalog_engine::catalog::CommitReport;
use deltalakedb_catalog_engine::schema::StructType;
use deltalakedb_mirror::publish::{Waited, wait_published};
use deltalakedb_mirror::store::open_store;
use futures::stream::BoxStream;

use super::{AlterTable, Change, Changes, IntoAt};
use crate::Db;
use crate::filter::parse_filter;
use crate::parquet_files::{describe_files, locate};

/// A table of a catalog, at one version. Made by [`Db::table`]; cheap to clone.
///
/// It stays at its version whatever is committed: [`Table::latest`] opens the table anew.
#[derive(Clone)]
pub struct Table {
    db: Db,
    snapshot: Arc<Snapshot>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.name().to_string())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

impl Table {
    pub(super) fn new(db: Db, snapshot: Snapshot) -> Table {
        Table { db, snapshot: Arc::new(snapshot) }
    }

    /// The table's name when it was opened.
    #[must_use]
    pub fn name(&self) -> &TableName {
        &self.snapshot.table.name
    }

    /// The table's id: it stays when the table is renamed.
    #[must_use]
    pub fn id(&self) -> TableId {
        self.snapshot.table.id
    }

    /// The version that was opened.
    #[must_use]
    pub fn version(&self) -> Version {
        self.snapshot.version
    }

    /// When that version was committed.
    #[must_use]
    pub fn timestamp(&self) -> TimestampMs {
        self.snapshot.timestamp
    }

    /// URL of the table's root, without a trailing slash.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.snapshot.table.location
    }

    /// Number of files at this version.
    #[must_use]
    pub fn num_files(&self) -> u64 {
        self.snapshot.num_files
    }

    /// Sum of the files' sizes at this version, bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.snapshot.size_bytes
    }

    /// Metadata at this version: schema, partition columns, table properties.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.snapshot.metadata
    }

    /// Protocol at this version.
    #[must_use]
    pub fn protocol(&self) -> &Protocol {
        &self.snapshot.protocol
    }

    /// Schema at this version.
    ///
    /// # Errors
    /// `invalid_input` for the schema of an imported table that nobody can read.
    pub fn schema(&self) -> Result<StructType> {
        StructType::parse(&self.metadata().schema_string)
    }

    /// The table's row in the catalog when it was opened.
    #[must_use]
    pub fn record(&self) -> &TableRecord {
        &self.snapshot.table
    }

    /// All that was read when it was opened.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The same table at another version or time, see [`Db::table_at`].
    ///
    /// # Errors
    /// `version_not_found`; `table_not_found` if there is no such table any more.
    pub async fn at(&self, at: impl IntoAt) -> Result<Table> {
        self.db.table_at(self.id(), at).await
    }

    /// The same table at its latest version.
    ///
    /// # Errors
    /// `table_not_found` if there is no such table any more.
    pub async fn latest(&self) -> Result<Table> {
        self.at(At::Head).await
    }

    /// The same table at the version that a commit wrote.
    ///
    /// # Errors
    /// `invalid_input` for a commit that did not change this table; those of [`Table::at`].
    pub async fn at_commit(&self, report: &CommitReport) -> Result<Table> {
        let written = report.tables.iter().find(|table| table.table_id == self.id());
        let written = written.ok_or_else(|| {
            CatalogError::invalid(format!(
                "commit {} did not change table '{}'",
                report.token,
                self.name()
            ))
        })?;
        self.at(written.version).await
    }

    /// Waits until this version is published, by whichever worker: that of
    /// [`Db::publish_in_background`], or that of another program.
    ///
    /// # Errors
    /// `busy` if it is not published within `limit`; `invalid_input` if the table's publishing is off or
    /// has stopped (the message says how to go on); `table_not_found`; those of the database.
    pub async fn wait_published(&self, limit: Duration) -> Result<Waited> {
        wait_published(&self.db, &TableRef::Id(self.id()), Some(self.version()), Some(limit)).await
    }

    /// Files at this version, in the order in which they were added.
    #[must_use]
    pub fn files(&self) -> BoxStream<'static, Result<FileRecord>> {
        self.db.files(self.id(), self.version())
    }

    /// Files at this version that may hold rows for which a condition is true. Left out is what
    /// partition values and statistics rule out, and nothing else.
    ///
    /// ```no_run
    /// # async fn example(orders: deltalakedb::Table) -> deltalakedb::Result<()> {
    /// let files = orders.files_matching("day >= DATE '2026-01-01' AND country = 'de'")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `invalid_input` for text that is no condition (see [`parse_filter`]), and for one that does not
    /// fit the table.
    pub fn files_matching(
        &self,
        condition: &str,
    ) -> Result<BoxStream<'static, Result<FileRecord>>> {
        self.db.files_matching(&self.snapshot, &parse_filter(condition)?)
    }

    /// Commits up to this version, newest first.
    #[must_use]
    pub fn history(&self) -> BoxStream<'static, Result<CommitRecord>> {
        let to_version = Some(self.version());
        self.db.history(self.id(), CommitFilter { to_version, ..CommitFilter::default() })
    }

    /// Describes Parquet files that lie below the table's root: their sizes, partition values and
    /// statistics, read from their footers. Nothing is committed.
    ///
    /// `files` are URLs; for a local table also paths; for any other table also keys relative to the
    /// table's root.
    ///
    /// # Errors
    /// `invalid_input` naming the file and what does not fit the table; `table_frozen`; `unavailable` if a file
    /// cannot be read.
    pub async fn describe_files<I, S>(&self, files: I) -> Result<Vec<Add>>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        self.db.refuse_frozen(&self.snapshot).await?;
        let store = open_store(self.location(), &self.record().storage_options)?;
        let files = files.into_iter().map(|file| locate(&store, file.as_ref()));
        let files = files.collect::<Result<Vec<_>>>()?;
        describe_files(&self.snapshot, &store.store, &store.root, &files).await
    }

    /// Now, by the clock of the catalog.
    pub(super) fn now(&self) -> TimestampMs {
        self.db.clock().now()
    }

    /// Adds files to the table; awaited, they are committed. See [`Changes::append`].
    ///
    /// ```no_run
    /// # async fn example(orders: deltalakedb::Table) -> deltalakedb::Result<()> {
    /// let files = orders.describe_files(["/lake/orders/day=2026-01-31/0.parquet"]).await?;
    /// let report = orders.append(files).token("load-2026-01-31").await?;
    /// let orders = orders.at_commit(&report).await?;
    /// # Ok(()) }
    /// ```
    pub fn append(&self, files: Vec<Add>) -> Changes {
        self.db.changes().append(self, files)
    }

    /// A change of this table, on the version that was opened: for [`Changes::change`], together with
    /// those of other tables.
    pub fn change(&self) -> Change {
        Change::of(self)
    }

    /// Changes of the table's metadata: columns, properties, constraints, descriptions. Awaited, they are
    /// committed as one commit.
    ///
    /// ```
    /// # use deltalakedb::{Db, Result};
    /// # fn main() -> Result<()> { tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let db = Db::create(&"memory://".parse()?).await?;
    /// # let orders = db.create_table("orders").location("memory://a").columns("id long").await?;
    /// let orders = orders
    ///     .alter()
    ///     .add_column("note string comment 'what the customer wrote'")
    ///     .description("one row an order")
    ///     .set_property("delta.deletedFileRetentionDuration", "interval 30 days")
    ///     .await?;
    /// assert_eq!(orders.schema()?.to_string(), "id long, note string");
    /// # Ok(()) }) }
    /// ```
    pub fn alter(&self) -> AlterTable {
        AlterTable::new(self.clone())
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// Changes the table; awaited, the change is committed. What others have committed since this
    /// version is checked against what the change says it read.
    ///
    /// ```
    /// # use deltalakedb::{Add, Db, Result};
    /// # fn file(path: &str) -> Add {
    /// #     let add = r#"{"path":"","partitionValues":{},"size":9,"modificationTime":1}"#;
    /// #     Add { path: path.to_owned(), ..serde_json::from_str(add).unwrap() }
    /// # }
    /// # fn main() -> Result<()> { tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let db = Db::create(&"memory://".parse()?).await?;
    /// # let orders = db.create_table("orders").location("memory://o").columns("id long").await?;
    /// # let report = orders.append(vec![file("old.parquet")]).await?;
    /// # let orders = orders.at_commit(&report).await?;
    /// # let (old, new) = (file("old.parquet"), file("new.parquet"));
    /// // Two programs have read `old`, and each replaces it.
    /// let replace = || {
    ///     orders.commit(|change| {
    ///         change.operation("UPDATE").read_files([&old]).remove_files([old.clone()])
    ///             .add_files([new.clone()])
    ///     })
    /// };
    /// replace().await?;
    /// let late = replace().await.unwrap_err();
    /// assert_eq!(late.code(), "conflict");
    /// # Ok(()) }) }
    /// ```
    pub fn commit(&self, change: impl FnOnce(Change) -> Change) -> Changes {
        self.db.changes().change(change(self.change()))
    }
}
