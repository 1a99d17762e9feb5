//! Version checksums: `N.crc` (Delta protocol, section "Version Checksum File").
//!
//! Readers open a table faster with it, and Spark checks its own replay against it. All of it is
//! known without replay: the totals are in the row of the commit, protocol, metadata, application
//! transactions and domain metadata change rarely. [`Checksums`] walks along ascending versions and
//! asks the database again only after a commit that changes one of them.
//!
//! There is no histogram of file sizes: it would cost a look at every file, and readers do not ask
//! for it.

use std::sync::Arc;

use bytes::Bytes;
use deltalakedb_catalog_core::action::{DomainMetadata, Metadata, Protocol, Txn};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, Version};
use deltalakedb_catalog_core::model::{CommitRecord, Snapshot};
use deltalakedb_catalog_engine::features;
use deltalakedb_catalog_engine::retry::Retry;
use serde::{Deserialize, Serialize};

/// Lists longer than this are left out: they are optional, and would be written with each version.
const MAX_LISTED: usize = 100;

/// Name of a version's checksum.
#[must_use]
pub(crate) fn checksum_name(version: Version) -> String {
    format!("{}.crc", version.padded())
}

/// Content of a checksum, as far as we write and compare it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionChecksum {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    txn_id: Option<String>,
    table_size_bytes: i64,
    num_files: i64,
    num_metadata: i64,
    num_protocol: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_commit_timestamp_opt: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set_transactions: Option<Vec<Txn>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain_metadata: Option<Vec<DomainMetadata>>,
    metadata: Metadata,
    protocol: Protocol,
}

impl VersionChecksum {
    /// Reads one. None if it is no checksum: readers pass over such a file.
    pub(crate) fn parse(bytes: &[u8]) -> Option<VersionChecksum> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whether another engine's checksum of the same version says nothing else. What is optional
    /// may be missing there.
    pub(crate) fn agrees_with(&self, other: &VersionChecksum) -> bool {
        fn same<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_none_or(|(a, b)| a == b)
        }
        let sorted = |txns: &Vec<Txn>| {
            let mut all: Vec<(String, i64)> =
                txns.iter().map(|t| (t.app_id.clone(), t.version)).collect();
            all.sort_unstable();
            all
        };
        let domains = |list: &Vec<DomainMetadata>| {
            let mut all: Vec<(String, String)> = list
                .iter()
                .filter(|d| !d.removed)
                .map(|d| (d.domain.clone(), d.configuration.clone()))
                .collect();
            all.sort_unstable();
            all
        };
        let features = |list: &Option<Vec<String>>| {
            let mut all = list.clone().unwrap_or_default();
            all.sort_unstable();
            all
        };
        (self.table_size_bytes, self.num_files, self.num_metadata, self.num_protocol)
            == (other.table_size_bytes, other.num_files, other.num_metadata, other.num_protocol)
            && same(self.in_commit_timestamp_opt.as_ref(), other.in_commit_timestamp_opt.as_ref())
            && same(
                self.set_transactions.as_ref().map(sorted).as_ref(),
                other.set_transactions.as_ref().map(sorted).as_ref(),
            )
            && same(
                self.domain_metadata.as_ref().map(domains).as_ref(),
                other.domain_metadata.as_ref().map(domains).as_ref(),
            )
            && self.metadata == other.metadata
            && (self.protocol.min_reader_version, self.protocol.min_writer_version)
                == (other.protocol.min_reader_version, other.protocol.min_writer_version)
            && features(&self.protocol.reader_features) == features(&other.protocol.reader_features)
            && features(&self.protocol.writer_features) == features(&other.protocol.writer_features)
    }
}

/// What checksums hold that only some commits change.
#[derive(Debug)]
struct Facts {
    version: Version,
    snapshot: Snapshot,
    txns: Vec<Txn>,
    domains: Vec<DomainMetadata>,
}

/// Makes the checksums of a table's versions, in ascending order.
#[derive(Debug)]
pub(crate) struct Checksums {
    backend: Arc<dyn CatalogBackend>,
    retry: Retry,
    table_id: TableId,
    facts: Option<Facts>,
}

impl Checksums {
    pub(crate) fn new(backend: Arc<dyn CatalogBackend>, retry: Retry, table_id: TableId) -> Self {
        Checksums { backend, retry, table_id, facts: None }
    }

    /// Moves on to a commit; `bytes` are those of its `N.json`. Returns a snapshot whose protocol
    /// and metadata are those of this version (its totals may be those of an earlier one).
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn advance(
        &mut self,
        record: &CommitRecord,
        bytes: &[u8],
    ) -> Result<&Snapshot> {
        let version = record.version;
        let known = self.facts.take().filter(|facts| facts.version.next() == version);
        let facts = match known {
            Some(mut facts) => {
                facts.version = version;
                if record.changes_metadata || record.changes_protocol {
                    facts.snapshot = self.snapshot(version).await?;
                }
                // Anything that holds the word: a file's name does no harm but a query.
                if contains(bytes, b"\"txn\"") {
                    facts.txns = self.txns(version).await?;
                }
                if contains(bytes, b"\"domainMetadata\"") {
                    facts.domains = self.domains(version).await?;
                }
                facts
            }
            None => Facts {
                version,
                snapshot: self.snapshot(version).await?,
                txns: self.txns(version).await?,
                domains: self.domains(version).await?,
            },
        };
        Ok(&self.facts.insert(facts).snapshot)
    }

    /// The checksum of the version that [`Checksums::advance`] moved to.
    pub(crate) fn checksum(&self, record: &CommitRecord) -> Option<VersionChecksum> {
        let facts = self.facts.as_ref().filter(|facts| facts.version == record.version)?;
        let Snapshot { protocol, metadata, .. } = &facts.snapshot;
        let ict = features::ict_enabled(protocol, metadata);
        let info = Info::of(record);
        let total = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Some(VersionChecksum {
            txn_id: info.txn_id,
            table_size_bytes: total(record.total_bytes),
            num_files: total(record.total_files),
            num_metadata: 1,
            num_protocol: 1,
            // That of the commit's bytes: an imported one may go back in time.
            in_commit_timestamp_opt: info.in_commit_timestamp.filter(|_| ict),
            set_transactions: (facts.txns.len() <= MAX_LISTED).then(|| facts.txns.clone()),
            domain_metadata: (facts.domains.len() <= MAX_LISTED).then(|| facts.domains.clone()),
            metadata: metadata.clone(),
            protocol: protocol.clone(),
        })
    }

    async fn snapshot(&self, version: Version) -> Result<Snapshot> {
        let table = TableRef::Id(self.table_id);
        self.retry.repeat(|| self.backend.snapshot(&table, At::Version(version))).await
    }

    async fn txns(&self, version: Version) -> Result<Vec<Txn>> {
        self.retry.repeat(|| self.backend.app_transactions(self.table_id, version)).await
    }

    async fn domains(&self, version: Version) -> Result<Vec<DomainMetadata>> {
        self.retry.repeat(|| self.backend.domain_metadata(self.table_id, version)).await
    }
}

/// Bytes of a checksum.
///
/// # Errors
/// `InvalidInput` if it cannot be written as JSON.
pub(crate) fn encode(checksum: &VersionChecksum) -> Result<Bytes> {
    serde_json::to_vec(checksum)
        .map(Bytes::from)
        .map_err(|e| CatalogError::invalid(format!("cannot write a version checksum: {e}")))
}

/// What a checksum holds of `commitInfo`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Info {
    txn_id: Option<String>,
    in_commit_timestamp: Option<i64>,
}

impl Info {
    fn of(record: &CommitRecord) -> Info {
        record
            .commit_info
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(bytes, word).is_some()
}

#[cfg(test)]
#[path = "checksum/tests.rs"]
mod tests;
