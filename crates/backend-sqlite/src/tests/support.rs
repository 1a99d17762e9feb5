//! What the tests are made from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use deltalakedb_catalog_core::action::{Add, Format, Metadata, NullableMap, Protocol, Remove};
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, HeadRule, TableCommit,
};
use deltalakedb_catalog_core::commit::{CommitIndex, FirstLine, Packed};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, NewTable};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{SqliteBackend, SqliteOptions};

pub(crate) const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

/// A folder with room for a catalog.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("catalog.db")
    }

    pub(crate) fn options(&self) -> SqliteOptions {
        SqliteOptions { busy_timeout_ms: 5_000, ..SqliteOptions::new(self.path()) }
    }

    pub(crate) fn open(&self) -> Arc<SqliteBackend> {
        SqliteBackend::open(self.options()).unwrap()
    }

    /// An open catalog with our tables.
    pub(crate) async fn catalog(&self) -> Arc<SqliteBackend> {
        let backend = self.open();
        backend.migrate(NOW).await.unwrap();
        backend
    }
}

/// A plain connection, as another program has it.
pub(crate) fn raw(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

pub(crate) fn id(n: u128) -> TableId {
    TableId(Uuid::from_u128(n))
}

pub(crate) fn new_table(n: u128) -> NewTable {
    NewTable {
        id: id(n),
        name: TableName::new("test", format!("t{n}")).unwrap(),
        location: format!("memory:///t{n}"),
        storage_options: [("region".to_owned(), "here".to_owned())].into(),
        mirror: MirrorMode::Active,
    }
}

pub(crate) fn metadata() -> Metadata {
    Metadata {
        id: "m".to_owned(),
        name: None,
        description: None,
        format: Format::default(),
        schema_string: r#"{"type":"struct","fields":[]}"#.to_owned(),
        partition_columns: Vec::new(),
        created_time: None,
        configuration: NullableMap::new(),
    }
}

pub(crate) fn protocol() -> Protocol {
    Protocol {
        min_reader_version: 1,
        min_writer_version: 2,
        reader_features: None,
        writer_features: None,
    }
}

pub(crate) fn add(path: &str) -> Add {
    Add {
        path: path.to_owned(),
        partition_values: [("p".to_owned(), Some("1".to_owned()))].into_iter().collect(),
        size: 10,
        modification_time: 1,
        data_change: true,
        stats: Some(r#"{"numRecords":3}"#.to_owned()),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

pub(crate) fn remove(path: &str, at: i64) -> Remove {
    Remove {
        path: path.to_owned(),
        deletion_timestamp: Some(at),
        data_change: true,
        extended_file_metadata: None,
        partition_values: None,
        size: Some(10),
        stats: None,
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
    }
}

pub(crate) fn index(adds: Vec<Add>, removes: Vec<Remove>) -> CommitIndex {
    CommitIndex { adds, removes, ..CommitIndex::default() }
}

fn request(token: &str, target: CommitTarget, index: CommitIndex) -> CommitRequest {
    CommitRequest {
        token: CommitToken::new(token).unwrap(),
        now: NOW,
        tables: vec![TableCommit {
            target,
            first_line: FirstLine::with_parts(vec![
                r#"{"commitInfo":{"timestamp":"#.to_owned(),
                "}}".to_owned(),
            ]),
            rest: Packed::pack(b"{\"add\":{}}\n").unwrap(),
            index: index.into(),
            later: None,
        }],
    }
}

pub(crate) fn create(n: u128) -> CommitRequest {
    let index = CommitIndex {
        metadata: Some(metadata()),
        protocol: Some(protocol()),
        ..CommitIndex::default()
    };
    request(&format!("create-{n}"), CommitTarget::Create(new_table(n)), index)
}

pub(crate) fn append(n: u128, token: &str, index: CommitIndex) -> CommitRequest {
    let rule = HeadRule::Append { since: Version::ZERO };
    request(token, CommitTarget::Existing { table_id: id(n), rule }, index)
}

pub(crate) fn committed(outcome: CommitOutcome) -> CommittedTable {
    match outcome {
        CommitOutcome::Committed(mut tables) => tables.pop().unwrap(),
        other => panic!("not committed: {other:?}"),
    }
}

/// Commits adds and removes, returns the version.
pub(crate) async fn change(
    backend: &SqliteBackend,
    n: u128,
    token: &str,
    adds: &[&str],
    removes: &[&str],
) -> Version {
    let index = index(
        adds.iter().map(|path| add(path)).collect(),
        removes.iter().map(|path| remove(path, 100)).collect(),
    );
    committed(backend.commit(append(n, token, index)).await.unwrap()).version
}

/// All files at a version, read in pages of two.
pub(crate) async fn paths(backend: &SqliteBackend, n: u128, version: i64) -> Vec<String> {
    let mut paths = Vec::new();
    let mut after = None;
    loop {
        let version = Version::new(version).unwrap();
        let page = backend.list_files(id(n), version, after, 2).await.unwrap();
        paths.extend(page.items.into_iter().map(|file| file.add.path));
        match page.next {
            Some(next) => after = Some(next),
            None => return paths,
        }
    }
}
