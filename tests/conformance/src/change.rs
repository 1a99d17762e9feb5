//! Builders of commits: the bytes are made first, and the index from the bytes.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::action::{
    Action, Add, DeletionVector, DomainMetadata, Format, Metadata, NullableMap, Protocol, Remove,
    Txn,
};
use deltalakedb_catalog_core::backend::{CommitTarget, HeadRule, ImportedCommit, TableCommit};
use deltalakedb_catalog_core::commit::{
    CommitBody, CommitIndex, FirstLine, Packed, commit_info_object, index_lines, parse_ndjson,
};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, TableName, TimestampMs, Version};
use deltalakedb_catalog_core::later::{LargeCommit, read_large_by};
use deltalakedb_catalog_core::model::{MirrorMode, NewTable};

/// A file of 100 bytes without statistics.
#[must_use]
pub fn file(path: impl Into<String>) -> Add {
    Add {
        path: path.into(),
        partition_values: NullableMap::new(),
        size: 100,
        modification_time: 1_600_000_000_000,
        data_change: true,
        stats: None,
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

/// The same file with a deletion vector that is told apart by `id`.
#[must_use]
pub fn with_dv(mut add: Add, id: &str) -> Add {
    add.deletion_vector = Some(DeletionVector {
        storage_type: "u".to_owned(),
        path_or_inline_dv: id.to_owned(),
        offset: Some(1),
        size_in_bytes: 36,
        cardinality: 2,
        max_row_index: None,
    });
    add
}

/// A commit as a large one: its adds come in pages of so many files, after all of its other actions.
///
/// # Errors
/// Where its text cannot be read.
pub fn in_pages(commit: TableCommit, page: usize) -> Result<TableCommit> {
    let text = commit.rest.unpack()?;
    let LargeCommit { index, later, .. } = read_large_by("a case", &text[..], page)?;
    let index = CommitIndex { commit_info: commit.index.commit_info.clone(), ..index };
    Ok(TableCommit { index: index.into(), later: Some(later), ..commit })
}

/// The remove of a file.
#[must_use]
pub fn gone(add: &Add, deleted_at: Option<i64>) -> Remove {
    Remove {
        path: add.path.clone(),
        deletion_timestamp: deleted_at,
        data_change: true,
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        stats: None,
        tags: None,
        deletion_vector: add.deletion_vector.clone(),
        base_row_id: None,
        default_row_commit_version: None,
    }
}

/// Metadata of a table with one column, told apart by its description.
#[must_use]
pub fn metadata(description: &str) -> Metadata {
    Metadata {
        id: "3b2c1d70-0000-4000-8000-000000000001".to_owned(),
        name: None,
        description: Some(description.to_owned()),
        format: Format::default(),
        schema_string: concat!(
            r#"{"type":"struct","fields":[{"name":"x","type":"long","nullable":true,"#,
            r#""metadata":{}}]}"#
        )
        .to_owned(),
        partition_columns: Vec::new(),
        created_time: Some(1_600_000_000_000),
        configuration: NullableMap::new(),
    }
}

/// Protocol of a plain table.
#[must_use]
pub fn protocol(min_writer_version: i32) -> Protocol {
    Protocol {
        min_reader_version: 1,
        min_writer_version,
        reader_features: None,
        writer_features: None,
    }
}

/// A table to register, published to a place of its own.
#[must_use]
pub fn new_table(id: TableId, name: TableName) -> NewTable {
    NewTable {
        id,
        name,
        location: format!("memory:///tables/{id}"),
        storage_options: BTreeMap::new(),
        mirror: MirrorMode::Active,
    }
}

/// The actions of one commit to one table.
#[derive(Debug, Clone, Default)]
pub struct Change {
    first_line: Option<FirstLine>,
    actions: Vec<Action>,
    raw: Vec<u8>,
}

impl Change {
    /// Nothing but a `commitInfo`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds files of 100 bytes.
    #[must_use]
    pub fn files<P: Into<String>>(paths: impl IntoIterator<Item = P>) -> Self {
        paths.into_iter().fold(Self::new(), |change, path| change.add(file(path)))
    }

    fn push(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }

    /// Adds a file.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "named like its action")]
    pub fn add(self, add: Add) -> Self {
        self.push(Action::Add(add))
    }

    /// Removes a file.
    #[must_use]
    pub fn remove(self, remove: Remove) -> Self {
        self.push(Action::Remove(remove))
    }

    /// Sets the metadata.
    #[must_use]
    pub fn metadata(self, metadata: Metadata) -> Self {
        self.push(Action::Metadata(metadata))
    }

    /// Sets the protocol.
    #[must_use]
    pub fn protocol(self, protocol: Protocol) -> Self {
        self.push(Action::Protocol(protocol))
    }

    /// Records the progress of an application.
    #[must_use]
    pub fn txn(self, app_id: &str, version: i64) -> Self {
        self.push(Action::Txn(Txn { app_id: app_id.to_owned(), version, last_updated: None }))
    }

    /// Sets a domain, or removes it.
    #[must_use]
    pub fn domain(self, domain: &str, configuration: Option<&str>) -> Self {
        self.push(Action::DomainMetadata(DomainMetadata {
            domain: domain.to_owned(),
            configuration: configuration.unwrap_or_default().to_owned(),
            removed: configuration.is_none(),
        }))
    }

    /// Appends bytes as they are, after all actions. The index does not see them.
    #[must_use]
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.raw.extend_from_slice(bytes.as_ref());
        self
    }

    /// Replaces the first line.
    #[must_use]
    pub fn first_line(mut self, line: FirstLine) -> Self {
        self.first_line = Some(line);
        self
    }

    fn parts(self) -> Result<(FirstLine, Vec<u8>, CommitIndex)> {
        let first_line = self.first_line.unwrap_or_else(|| {
            FirstLine::with_parts(vec![
                r#"{"commitInfo":{"timestamp":"#.to_owned(),
                r#","operation":"WRITE"}}"#.to_owned(),
            ])
        });
        let mut rest = Vec::new();
        for action in &self.actions {
            rest.extend_from_slice(action.to_line()?.as_bytes());
            rest.push(b'\n');
        }
        let mut index = index_lines(parse_ndjson("change", &rest)?);
        index.commit_info =
            commit_info_object(&first_line.render(TimestampMs(0))).map(str::to_owned);
        rest.extend_from_slice(&self.raw);
        Ok((first_line, rest, index))
    }

    fn part(self, target: CommitTarget) -> Result<TableCommit> {
        let (first_line, rest, index) = self.parts()?;
        let rest = Packed::pack(&rest)?;
        Ok(TableCommit { target, first_line, rest, index: index.into(), later: None })
    }

    /// As version 0 of a new table, with protocol and metadata unless this change has them.
    ///
    /// # Errors
    /// Where an action cannot be written as JSON.
    pub fn create(mut self, table: NewTable) -> Result<TableCommit> {
        if !self.actions.iter().any(|a| matches!(a, Action::Metadata(_))) {
            self.actions.insert(0, Action::Metadata(metadata("first")));
        }
        if !self.actions.iter().any(|a| matches!(a, Action::Protocol(_))) {
            self.actions.insert(0, Action::Protocol(protocol(2)));
        }
        self.part(CommitTarget::Create(table))
    }

    /// On a table whose head is exactly this version.
    ///
    /// # Errors
    /// Where an action cannot be written as JSON.
    pub fn exactly(self, table_id: TableId, head: Version) -> Result<TableCommit> {
        self.part(CommitTarget::Existing { table_id, rule: HeadRule::Exactly(head) })
    }

    /// On any head of a table that nothing but files was added to since this version.
    ///
    /// # Errors
    /// Where an action cannot be written as JSON.
    pub fn append(self, table_id: TableId, since: Version) -> Result<TableCommit> {
        self.part(CommitTarget::Existing { table_id, rule: HeadRule::Append { since } })
    }

    /// As a commit of another engine.
    ///
    /// # Errors
    /// Where an action cannot be written as JSON.
    pub fn imported(self, version: Version, timestamp: i64) -> Result<ImportedCommit> {
        let (first_line, rest, index) = self.parts()?;
        let timestamp = TimestampMs(timestamp);
        let mut bytes = first_line.render(timestamp).into_bytes();
        bytes.push(b'\n');
        bytes.extend_from_slice(&rest);
        Ok(ImportedCommit {
            version,
            timestamp,
            body: CommitBody::verbatim(&bytes)?,
            index,
            later: None,
            token: None,
        })
    }

    /// The same as a large commit, whose adds come in pages of so many files.
    ///
    /// # Errors
    /// Where an action cannot be written as JSON.
    pub fn imported_in_pages(
        self,
        version: Version,
        timestamp: i64,
        page: usize,
    ) -> Result<ImportedCommit> {
        let commit = self.imported(version, timestamp)?;
        let bytes = commit.body.published()?;
        let LargeCommit { index, body, later, .. } = read_large_by("a case", &bytes[..], page)?;
        Ok(ImportedCommit { body, index, later: Some(later), ..commit })
    }
}
