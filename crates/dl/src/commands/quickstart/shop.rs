//! The quickstart's commits. Each has a token of its own: an interrupted run is picked up where it
//! was, and a second one commits nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deltalakedb::Db;
use deltalakedb::core::action::{Action, Add, Format, Metadata, NullableMap, Remove};
use deltalakedb::core::catalog::{ChangeTarget, CommitBatch, TableChange};
use deltalakedb::core::conflict::Reads;
use deltalakedb::core::env::Progress;
use deltalakedb::core::error::CatalogError;
use deltalakedb::core::features::default_protocol_for;
use deltalakedb::core::ids::{At, CommitToken, TableName, TableRef};
use deltalakedb::core::model::{MirrorMode, Snapshot};
use deltalakedb::core::schema::StructType;
use deltalakedb::mirror::store::{normalize_location, open_store};
use deltalakedb::parquet_files::{describe_files, locate};

use super::data;
use crate::commands::create::check_free;
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
        let mut tables = Vec::new();
        for (index, columns, partition_columns) in [
            (CUSTOMERS, data::CUSTOMERS, vec![]),
            (ORDERS, data::ORDERS, vec![data::ORDERS_PARTITION.to_owned()]),
        ] {
            let name = &self.names[index];
            let location = self.location(index)?;
            check_free(self.db, name, &location, &BTreeMap::new()).await?;
            let schema = StructType::from_text(columns)?;
            let mut properties = NullableMap::new();
            properties.insert("delta.checkpointInterval".to_owned(), Some("10".to_owned()));
            let new = default_protocol_for(&schema, &properties)?;
            let metadata = Metadata {
                id: self.db.ids().uuid().as_hyphenated().to_string(),
                name: Some(name.name().to_owned()),
                description: Some(format!("The {} of a made-up shop", name.name())),
                format: Format::default(),
                schema_string: schema.to_json(),
                partition_columns,
                created_time: Some(self.db.clock().now().0),
                configuration: new.configuration,
            };
            tables.push(TableChange {
                target: ChangeTarget::Create {
                    name: name.clone(),
                    location,
                    storage_options: BTreeMap::new(),
                    mirror: MirrorMode::Active,
                    fence: true,
                },
                ndjson: lines([Action::Protocol(new.protocol), Action::Metadata(metadata)])?,
                origin: "dl quickstart".to_owned(),
                reads: Reads::default(),
                operation: Some("CREATE TABLE".to_owned()),
            });
        }
        self.commit(token, tables).await
    }

    /// What this shop committed to before may have been dropped since.
    async fn check_tables(&self) -> Result<()> {
        for index in [CUSTOMERS, ORDERS] {
            let name = &self.names[index];
            let location = self.location(index)?;
            let ours = match self.db.table(&TableRef::Name(name.clone())).await {
                Ok(table) => table.location == location,
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
        let mut tables = Vec::new();
        for (index, files) in [(CUSTOMERS, customers), (ORDERS, orders)] {
            let (snapshot, adds) = self.describe(index, &files).await?;
            tables.push(TableChange {
                target: ChangeTarget::Existing {
                    table: TableRef::Id(snapshot.table.id),
                    read_version: Some(snapshot.version),
                },
                ndjson: lines(adds.into_iter().map(Action::Add))?,
                origin: "dl quickstart".to_owned(),
                reads: Reads::default(),
                operation: Some("WRITE".to_owned()),
            });
        }
        self.commit(token, tables).await
    }

    /// Replaces the first day's orders by corrected ones.
    async fn correct(&self) -> Result<bool> {
        let token = step("correction")?;
        if self.is_done(&token).await? {
            return Ok(false);
        }
        let files = [data::orders_path(0), data::corrected_path()];
        let (snapshot, described) = self.describe(ORDERS, &files).await?;
        let now = self.db.clock().now();
        let actions = described.into_iter().enumerate().map(|(i, add)| {
            if i > 0 {
                return Action::Add(add);
            }
            Action::Remove(Remove {
                path: add.path,
                deletion_timestamp: Some(now.0),
                data_change: true,
                extended_file_metadata: Some(true),
                partition_values: Some(add.partition_values),
                size: Some(add.size),
                stats: None,
                tags: None,
                deletion_vector: None,
                base_row_id: None,
                default_row_commit_version: None,
            })
        });
        let change = TableChange {
            target: ChangeTarget::Existing {
                table: TableRef::Id(snapshot.table.id),
                read_version: Some(snapshot.version),
            },
            ndjson: lines(actions)?,
            origin: "dl quickstart".to_owned(),
            reads: Reads::whole_table(),
            operation: Some("UPDATE".to_owned()),
        };
        self.commit(token, vec![change]).await
    }

    async fn commit(&self, token: CommitToken, tables: Vec<TableChange>) -> Result<bool> {
        let report = self.db.commit(CommitBatch { token: Some(token), tables }).await?;
        Ok(!report.replayed)
    }

    fn location(&self, index: usize) -> Result<String> {
        Ok(normalize_location(&self.roots[index].to_string_lossy())?)
    }

    async fn describe(&self, index: usize, files: &[String]) -> Result<(Snapshot, Vec<Add>)> {
        let snapshot =
            self.db.snapshot(&TableRef::Name(self.names[index].clone()), At::Head).await?;
        let store = open_store(&snapshot.table.location, &snapshot.table.storage_options)?;
        let paths = files
            .iter()
            .map(|file| locate(&store, &self.roots[index].join(file).to_string_lossy()))
            .collect::<deltalakedb::core::error::Result<Vec<_>>>()?;
        let adds = describe_files(&snapshot, &store.store, &store.root, &paths).await?;
        Ok((snapshot, adds))
    }
}

/// The token of a step. It only has to be unique in the quickstart's own catalog.
fn step(what: &str) -> Result<CommitToken> {
    Ok(CommitToken::new(format!("quickstart-{what}"))?)
}

fn lines(actions: impl IntoIterator<Item = Action>) -> Result<Vec<u8>> {
    let mut text = String::new();
    for action in actions {
        text.push_str(&action.to_line()?);
        text.push('\n');
    }
    Ok(text.into_bytes())
}
