//! What is run: the tables of a scenario and the commits in it.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use deltalakedb_catalog_core::action::Metadata;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, TableName, TableRef, Version};
use deltalakedb_catalog_core::model::MirrorMode;
use deltalakedb_catalog_engine::catalog::{ChangeTarget, TableChange};
use deltalakedb_catalog_engine::conflict::Reads;
use serde_json::json;

use crate::journal::FileChange;

/// What the workers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Blind appends to one table.
    Appends,
    /// Commits over two to five of five tables, in random order.
    Batches,
    /// Appends, removes and adds of the same files, metadata changes, application transactions,
    /// batches, and drops of a table: conflicts are part of it.
    Mixed,
}

impl Scenario {
    /// Number of tables.
    #[must_use]
    pub const fn tables(self) -> usize {
        match self {
            Scenario::Appends => 1,
            Scenario::Batches => 5,
            Scenario::Mixed => 2,
        }
    }

    /// Commits of each worker in the full size.
    #[must_use]
    pub const fn full_size(self) -> u64 {
        match self {
            Scenario::Appends => 200,
            Scenario::Batches => 100,
            Scenario::Mixed => 60,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scenario::Appends => "appends",
            Scenario::Batches => "batches",
            Scenario::Mixed => "mixed",
        })
    }
}

/// Name of a table of a run. Each run has a namespace of its own.
///
/// # Errors
/// If `run` is not part of a name.
pub fn table_name(run: &str, table: usize) -> Result<TableName> {
    Ok(TableName::new(format!("contention-{run}"), format!("t{table}"))?)
}

/// Version 0 of a table. With in-commit timestamps: the checker compares them with the rows.
///
/// # Errors
/// If `run` is not part of a name.
pub fn create(run: &str, table: usize) -> Result<TableChange> {
    let name = table_name(run, table)?;
    let schema =
        r#"{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}"#;
    let protocol = json!({"protocol": {
        "minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["inCommitTimestamp"]}});
    let metadata = json!({"metaData": {
        "id": name.to_string(), "format": {"provider": "parquet", "options": {}},
        "schemaString": schema, "partitionColumns": [], "createdTime": 0,
        "configuration": {"delta.enableInCommitTimestamps": "true"}}});
    Ok(TableChange {
        target: ChangeTarget::Create {
            location: format!("file:///contention/{run}/{}", name.name()),
            name,
            storage_options: BTreeMap::new(),
            mirror: MirrorMode::Active,
            fence: false,
        },
        ndjson: format!("{protocol}\n{metadata}\n").into_bytes(),
        origin: "contention".to_owned(),
        reads: Reads::default(),
        operation: Some("CREATE TABLE".to_owned()),
    })
}

/// One table's part of a commit, on its way to NDJSON.
#[derive(Debug, Clone)]
pub struct Change {
    /// Table.
    pub table_id: TableId,
    /// Version that the worker read; none = the head.
    pub read: Option<Version>,
    /// Files.
    pub files: FileChange,
    /// Other actions, as lines.
    pub others: Vec<String>,
}

impl Change {
    /// Adds files, having read nothing.
    #[must_use]
    pub fn append(table_id: TableId, paths: Vec<String>) -> Self {
        let files = FileChange { adds: paths, removes: Vec::new() };
        Change { table_id, read: None, files, others: Vec::new() }
    }

    /// Takes a file out as well.
    #[must_use]
    pub fn remove(mut self, path: &str) -> Self {
        self.files.removes.push(path.to_owned());
        self
    }

    /// Having read this version.
    #[must_use]
    pub fn at(mut self, version: Version) -> Self {
        self.read = Some(version);
        self
    }

    /// How far an application is.
    #[must_use]
    pub fn transaction(mut self, app_id: &str, version: u64) -> Self {
        self.others.push(json!({"txn": {"appId": app_id, "version": version}}).to_string());
        self
    }

    /// Sets a property of the table.
    #[must_use]
    pub fn property(mut self, current: &Metadata, value: &str) -> Self {
        let mut next = current.clone();
        next.configuration.insert("contention.note".to_owned(), Some(value.to_owned()));
        self.others.push(json!({"metaData": next}).to_string());
        self
    }

    /// For the catalog.
    #[must_use]
    pub fn build(&self) -> TableChange {
        let mut lines: Vec<String> = Vec::new();
        for path in &self.files.removes {
            let action =
                json!({"remove": {"path": path, "deletionTimestamp": 1, "dataChange": true}});
            lines.push(action.to_string());
        }
        for path in &self.files.adds {
            // The size follows from the path, so that a mixed-up row shows.
            let size = path.bytes().fold(7_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 65_521);
            let action = json!({"add": {
                "path": path, "partitionValues": {}, "size": size, "modificationTime": 1,
                "dataChange": true, "stats": "{\"numRecords\":1}"}});
            lines.push(action.to_string());
        }
        lines.extend_from_slice(&self.others);
        lines.push(String::new());
        TableChange {
            target: ChangeTarget::Existing {
                table: TableRef::Id(self.table_id),
                read_version: self.read,
            },
            ndjson: lines.join("\n").into_bytes(),
            origin: "contention".to_owned(),
            reads: Reads::default(),
            operation: None,
        }
    }
}
