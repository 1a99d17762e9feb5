//! The log of a table to import, opened: the base is chosen and known to be readable.

use std::sync::Arc;

use deltalakedb_catalog_core::action::{Metadata, Protocol};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TimestampMs, Version};
use deltalakedb_catalog_core::model::TableRecord;
use deltalakedb_catalog_engine::features;
use futures::stream::BoxStream;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;

use super::ImportOptions;
use crate::log::{
    Base, Chain, ChainOptions, CheckpointReader, CommitFile, LocalLog, LogListing, ReadCommit,
    read_commits,
};
use crate::store::{LogDir, open_store};

/// Features by which a table says that a catalog owns its commits.
const CATALOG_FEATURES: [&str; 3] = ["catalogManaged", "catalogOwned", "catalogOwned-preview"];

/// An opened log.
pub(super) struct Source {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) log_dir: LogDir,
    /// Where the table is a local folder.
    local: Option<LocalLog>,
    pub(super) checkpoint_only: bool,
    /// Last version to import.
    pub(super) head: Version,
    /// Last version in the log.
    pub(super) log_head: Version,
    chain: Chain,
    base: Base,
    /// Bases that have not been tried, best first.
    others: std::vec::IntoIter<Base>,
    reader: Option<CheckpointReader>,
    /// Protocol and metadata in force, as far as it was read.
    pub(super) protocol: Option<Protocol>,
    pub(super) metadata: Option<Metadata>,
}

impl Source {
    pub(super) async fn open(
        options: &ImportOptions,
        location: &str,
        interrupted: Option<&TableRecord>,
        warnings: &mut Vec<String>,
    ) -> Result<Source> {
        let opened = open_store(location, &options.storage_options)?;
        if let Some(folder) = opened.local.as_ref().filter(|f| !f.is_dir()) {
            return Err(CatalogError::invalid(format!(
                "no Delta table at '{location}': the folder '{}' does not exist",
                folder.display()
            )));
        }
        let log_dir = opened.log_folder();
        let local = LocalLog::of(&opened);
        let listing = match &local {
            Some(local) => local.list(None).await?,
            None => LogListing::read(&opened.store, &log_dir).await?,
        };
        if listing.is_empty() {
            return Err(CatalogError::invalid(format!(
                "no Delta table at '{location}': '_delta_log' does not exist, or has neither a \
                 commit nor a checkpoint"
            )));
        }
        let asked = ChainOptions {
            up_to: options.up_to_version,
            checkpoint_only: options.checkpoint_only,
            base: None,
        };
        let mut chain = listing.chain(asked)?;
        if let Some(record) = interrupted {
            let mut bases = Vec::new();
            for from_json in [true, false] {
                let base = Some((record.base_version, from_json));
                bases.extend(listing.chain(ChainOptions { base, ..asked })?.bases);
            }
            if bases.is_empty() {
                return Err(CatalogError::corrupt(format!(
                    "the interrupted import of '{}' started from version {}, which the log has \
                     lost: begin anew with --restart",
                    options.name, record.base_version
                )));
            }
            chain.bases = bases;
        } else if options.checkpoint_only && chain.bases.first() == Some(&Base::Json) {
            warnings.push("there is no checkpoint: the table is imported from version 0".into());
        }
        let mut others = std::mem::take(&mut chain.bases).into_iter();
        let Some(first) = others.next() else {
            return Err(CatalogError::corrupt(format!("the log at '{location}' has no base")));
        };
        let mut source = Source {
            store: opened.store,
            log_dir,
            local,
            checkpoint_only: options.checkpoint_only,
            head: chain.head,
            log_head: chain.log_head,
            chain,
            base: first.clone(),
            others,
            reader: None,
            protocol: None,
            metadata: None,
        };
        // A checkpoint that cannot be read is replaced by the next one, as for other readers.
        let mut base = first;
        loop {
            match source.take_base(base).await {
                Ok(()) => return Ok(source),
                Err(error @ CatalogError::Corrupt(_)) => {
                    let Some(next) = source.others.next() else { return Err(error) };
                    warnings.push(format!("{error}. Another base was used instead"));
                    base = next;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn take_base(&mut self, base: Base) -> Result<()> {
        self.reader = None;
        self.protocol = None;
        self.metadata = None;
        if let Base::Checkpoint(files) = &base {
            let reader = CheckpointReader::open(&self.store, &self.log_dir, files).await?;
            let (protocol, metadata) = reader.state()?;
            check_schema(metadata, &format!("checkpoint '{}'", files.name()))?;
            self.protocol = Some(protocol.clone());
            self.metadata = Some(metadata.clone());
            self.reader = Some(reader);
        }
        self.base = base;
        Ok(())
    }

    /// Takes the next best base; false if there is none.
    pub(super) async fn next_base(&mut self) -> Result<bool> {
        match self.others.next() {
            None => Ok(false),
            Some(base) => {
                // What came after the listing is found again.
                self.head = self.chain.head;
                self.take_base(base).await.map(|()| true)
            }
        }
    }

    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    /// The opened checkpoint, where the base is one.
    pub(super) fn reader(&self) -> Option<&CheckpointReader> {
        self.reader.as_ref()
    }

    pub(super) fn history(&self) -> Vec<CommitFile> {
        if self.checkpoint_only { Vec::new() } else { self.chain.history(&self.base).to_vec() }
    }

    pub(super) fn applied(&self) -> Vec<CommitFile> {
        self.chain.applied(&self.base).to_vec()
    }

    /// Reads commit files in the given order.
    pub(super) fn commits(&self, files: Vec<CommitFile>) -> BoxStream<'static, Result<ReadCommit>> {
        match &self.local {
            Some(local) => local.commits(files),
            None => read_commits(&self.store, &self.log_dir, files),
        }
    }

    /// Whether the commit after the head is there.
    pub(super) async fn has_newer(&self) -> bool {
        let name = format!("{}.json", self.head.next().padded());
        self.store.head(&self.log_dir.path.clone().join(name)).await.is_ok()
    }

    /// Commits after the head that have come since the log was listed.
    pub(super) async fn newer(&mut self) -> Result<Vec<CommitFile>> {
        let listing = match &self.local {
            Some(local) => local.list(Some(self.head)).await?,
            None => LogListing::read(&self.store, &self.log_dir).await?,
        };
        let mut next = self.head.next();
        let mut found = Vec::new();
        for commit in listing.commits.into_iter().filter(|c| c.version > self.head) {
            if commit.version != next {
                break;
            }
            next = next.next();
            found.push(commit);
        }
        if let Some(last) = found.last() {
            self.head = last.version;
            self.log_head = self.log_head.max(last.version);
        }
        Ok(found)
    }

    /// Modification time and in-commit timestamp (from the checksum file) of a base whose commit
    /// file is gone.
    pub(super) async fn base_times(&self) -> (Option<TimestampMs>, TimestampMs) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Checksum {
            in_commit_timestamp_opt: Option<i64>,
        }
        let modified = match &self.base {
            Base::Json => TimestampMs::default(),
            Base::Checkpoint(files) => files.modified,
        };
        let path = self.log_dir.path.clone().join(format!("{}.crc", self.base.version().padded()));
        // A checksum is optional, and so are its fields.
        let in_commit = match self.store.get(&path).await {
            Err(_) => None,
            Ok(got) => got.bytes().await.ok().and_then(|bytes| {
                serde_json::from_slice::<Checksum>(&bytes).ok()?.in_commit_timestamp_opt
            }),
        };
        (in_commit.map(TimestampMs), modified)
    }
}

/// What a person should know of the protocol in force.
pub(super) fn state_warnings(protocol: &Protocol, metadata: &Metadata) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut features = protocol.writer_features.iter().flatten();
    if let Some(feature) = features.find(|f| CATALOG_FEATURES.contains(&f.as_str())) {
        warnings.push(format!(
            "the table belongs to another catalog (feature '{feature}'): commits that it has not \
             published yet are not in the log and were not imported"
        ));
    }
    if let Err(why) = features::check_commit(protocol, metadata) {
        warnings.push(format!("the table can be read, but not be written: {why}"));
    }
    warnings
}

/// The schema must at least be a JSON object; an engine may register a table before it has one.
pub(super) fn check_schema(metadata: &Metadata, origin: &str) -> Result<()> {
    use serde_json::value::RawValue;
    type Object<'a> = std::collections::BTreeMap<String, &'a RawValue>;
    if metadata.schema_string.is_empty() {
        return Ok(());
    }
    // Raw values are skipped, not parsed: no depth is too deep.
    serde_json::from_str::<Object<'_>>(&metadata.schema_string).map(drop).map_err(|e| {
        CatalogError::corrupt(format!("{origin}: the schema in 'metaData' is not JSON: {e}"))
    })
}
