//! Creating a table.

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use deltalakedb_catalog_core::action::{Action, Format, Metadata, NullableMap};
use deltalakedb_catalog_core::backend::{TableBackend, TableFilter};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableName, TableRef};
use deltalakedb_catalog_core::model::{MirrorMode, TableState};
use deltalakedb_catalog_engine::catalog::{Catalog, ChangeTarget, CommitReport, TableChange};
use deltalakedb_catalog_engine::conflict::Reads;
use deltalakedb_catalog_engine::features::default_protocol_for;
use deltalakedb_catalog_engine::schema::StructType;
use deltalakedb_mirror::sink::open_sink;
use deltalakedb_mirror::store::normalize_location;
use futures::TryStreamExt;

use super::Table;
use crate::Db;

/// A table to create. Awaited, it is created, and opened.
#[must_use = "a table is created when this is awaited"]
#[derive(Debug)]
pub struct CreateTable {
    db: Db,
    name: String,
    token: Option<String>,
    location: Option<String>,
    schema: Option<Result<StructType>>,
    partition_columns: Vec<String>,
    description: Option<String>,
    properties: NullableMap,
    storage_options: BTreeMap<String, String>,
    mirror: MirrorMode,
    fence: bool,
}

impl CreateTable {
    pub(super) fn new(db: Db, name: &str) -> CreateTable {
        CreateTable {
            db,
            name: name.to_owned(),
            token: None,
            location: None,
            schema: None,
            partition_columns: Vec::new(),
            description: None,
            properties: NullableMap::new(),
            storage_options: BTreeMap::new(),
            mirror: MirrorMode::Active,
            fence: true,
        }
    }

    /// Folder or URL of the table's root, for its data files and its published log. Required.
    pub fn location(mut self, location: impl Into<String>) -> CreateTable {
        self.location = Some(location.into());
        self
    }

    /// Columns as text, as `id long not null, day date, tags array<string>`.
    pub fn columns(mut self, columns: &str) -> CreateTable {
        self.schema = Some(StructType::from_text(columns));
        self
    }

    /// Columns as a schema. This or [`CreateTable::columns`] is required.
    pub fn schema(mut self, schema: StructType) -> CreateTable {
        self.schema = Some(Ok(schema));
        self
    }

    /// Partition columns, in order.
    pub fn partition_by<I, S>(mut self, columns: I) -> CreateTable
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.partition_columns = columns.into_iter().map(Into::into).collect();
        self
    }

    /// What the table is for, in words.
    pub fn description(mut self, text: impl Into<String>) -> CreateTable {
        self.description = Some(text.into());
        self
    }

    /// A table property, as `delta.appendOnly` or one of your own.
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> CreateTable {
        self.properties.insert(key.into(), Some(value.into()));
        self
    }

    /// An option of the object store. It is stored in the catalog: give secrets by reference
    /// (`env:NAME`, `file:/path`).
    pub fn storage_option(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> CreateTable {
        self.storage_options.insert(key.into(), value.into());
        self
    }

    /// Whether commits are published to the table's `_delta_log/`. True if not said.
    pub fn mirror(mut self, publish: bool) -> CreateTable {
        self.mirror = if publish { MirrorMode::Active } else { MirrorMode::Off };
        self
    }

    /// Whether writers that do not go through the catalog are kept out, see
    /// [`fence`](deltalakedb_catalog_engine::fence). True if not said.
    pub fn fence(mut self, fence: bool) -> CreateTable {
        self.fence = fence;
        self
    }

    /// As [`Changes::token`](super::Changes::token).
    pub fn token(mut self, token: impl Into<String>) -> CreateTable {
        self.token = Some(token.into());
        self
    }

    /// Creates the table, and tells how it was committed.
    ///
    /// # Errors
    /// As of awaiting it.
    pub async fn commit(self) -> Result<(Table, CommitReport)> {
        let db = self.db.clone();
        let report = self.create().await?;
        let Some(created) = report.tables.first() else {
            return Err(CatalogError::corrupt(format!(
                "token '{}' was committed for no table",
                report.token
            )));
        };
        let snapshot = db.snapshot(&TableRef::Id(created.table_id), At::Head).await?;
        Ok((Table::new(db, snapshot), report))
    }

    async fn create(self) -> Result<CommitReport> {
        let mut changes = self.db.changes();
        if let Some(token) = &self.token {
            changes = changes.token(token);
        }
        changes.create(self).await
    }

    /// The change that makes the table. `checked`: its place is not looked at again.
    pub(super) async fn into_request(self, checked: bool) -> Result<TableChange> {
        let db = self.db;
        let name: TableName = self.name.parse()?;
        let missing = |what: &str| {
            CatalogError::invalid(format!("table '{name}' cannot be created without {what}"))
        };
        let location = normalize_location(&self.location.ok_or_else(|| missing("a location"))?)?;
        let schema = self.schema.ok_or_else(|| missing("columns"))??;
        schema.validate_new(&self.partition_columns)?;
        let new = default_protocol_for(&schema, &self.properties)?;
        if !checked {
            check_location(&db, &name, &location, &self.storage_options).await?;
        }
        let metadata = Metadata {
            id: db.ids().uuid().as_hyphenated().to_string(),
            name: Some(name.name().to_owned()),
            description: self.description,
            format: Format::default(),
            schema_string: schema.to_json(),
            partition_columns: self.partition_columns,
            created_time: Some(db.clock().now().0),
            configuration: new.configuration,
        };
        let ndjson = format!(
            "{}\n{}\n",
            Action::Protocol(new.protocol).to_line()?,
            Action::Metadata(metadata).to_line()?
        );
        Ok(TableChange {
            target: ChangeTarget::Create {
                name,
                location,
                storage_options: self.storage_options,
                mirror: self.mirror,
                fence: self.fence,
            },
            ndjson: ndjson.into_bytes(),
            origin: "the new table".to_owned(),
            reads: Reads::default(),
            operation: Some("CREATE TABLE".to_owned()),
        })
    }
}

impl IntoFuture for CreateTable {
    type Output = Result<Table>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Creates the table, and opens it.
    ///
    /// # Errors
    /// `table_exists`; `invalid_input` for columns or properties that do not go together, and for a
    /// location that holds a table already; `unsupported` for a property that asks for a feature that
    /// this writer does not have; those of the database and of the store.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.commit().await?.0) })
    }
}

/// Whether a new table can be made at a location: a place belongs to one table, and a new table begins
/// without a log, else its version 0 could never be published.
///
/// # Errors
/// `table_exists` if the log that is there is of a table of this name; `invalid_input` naming another table
/// that is there; those of the database and of the store.
async fn check_location(
    catalog: &Catalog,
    name: &TableName,
    location: &str,
    storage_options: &BTreeMap<String, String>,
) -> Result<()> {
    for state in [TableState::Active, TableState::Importing] {
        let mut tables = catalog.tables(TableFilter { namespace: None, state: Some(state) });
        while let Some(other) = tables.try_next().await? {
            if other.location == location && other.name != *name {
                return Err(CatalogError::invalid(format!(
                    "'{location}' is the location of table '{}' already",
                    other.name
                )));
            }
        }
    }
    let log = open_sink(location, storage_options)?;
    if !log.list(None).await?.is_empty() {
        // A table of this name may have published it: then the name is what is in the way.
        if catalog.backend().get_table(&TableRef::Name(name.clone())).await?.is_some() {
            return Err(CatalogError::TableExists(name.clone()));
        }
        return Err(CatalogError::invalid(format!(
            "'{location}' holds a Delta log already: take it over with `dl import {location} {name}`"
        )));
    }
    Ok(())
}
