//! Calls that callers want, made of the contract's: no backend implements them.

use std::future::Future;
use std::sync::Arc;

use crate::action::{DomainMetadata, Txn};
use crate::error::{ReadResult, WriteResult};
use crate::ids::{TableId, Version};
use crate::model::{BaseChunk, BaseTail};

use super::{
    AppRows, CatalogBackend, ImportProgress, ImportStep, ImportedCommit, MirrorLease,
    PublishFailure, Published, Settlement,
};

/// Calls by the name of what they do, for every [`CatalogBackend`].
pub trait CatalogBackendExt: CatalogBackend {
    /// Application transactions at a version, by `appId`.
    fn app_transactions(
        &self,
        table_id: TableId,
        version: Version,
    ) -> impl Future<Output = ReadResult<Vec<Txn>>> + Send {
        async move { Ok(self.app_state(table_id, version, AppRows::Transactions).await?.transactions) }
    }

    /// Domain metadata in force at a version, by domain.
    fn domain_metadata(
        &self,
        table_id: TableId,
        version: Version,
    ) -> impl Future<Output = ReadResult<Vec<DomainMetadata>>> + Send {
        async move { Ok(self.app_state(table_id, version, AppRows::Domains).await?.domains) }
    }

    /// Stores a chunk of an import's base, see [`ImportStep::Base`].
    fn import_base(
        &self,
        table_id: TableId,
        skip_files: u64,
        skip_tombstones: u64,
        chunk: BaseChunk,
        tail: Option<BaseTail>,
    ) -> impl Future<Output = WriteResult<ImportProgress>> + Send {
        self.import_step(table_id, ImportStep::Base { skip_files, skip_tombstones, chunk, tail })
    }

    /// Stores commits of an import, see [`ImportStep::Commits`].
    fn import_commits(
        &self,
        table_id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> impl Future<Output = WriteResult<ImportProgress>> + Send {
        self.import_step(table_id, ImportStep::Commits(commits))
    }

    /// Records published versions, see [`Settlement::Published`].
    fn mirror_complete(
        &self,
        lease: &MirrorLease,
        done: &[Published],
    ) -> impl Future<Output = WriteResult<bool>> + Send {
        async move { self.mirror_settle(lease, Settlement::Published(done)).await }
    }

    /// Records a failure, see [`Settlement::Failed`].
    fn mirror_fail(
        &self,
        lease: &MirrorLease,
        failure: &PublishFailure,
    ) -> impl Future<Output = WriteResult<bool>> + Send {
        async move { self.mirror_settle(lease, Settlement::Failed(failure)).await }
    }

    /// Gives a lease up, see [`Settlement::Released`].
    fn mirror_release(
        &self,
        lease: &MirrorLease,
    ) -> impl Future<Output = WriteResult<bool>> + Send {
        async move { self.mirror_settle(lease, Settlement::Released).await }
    }
}

impl<B: CatalogBackend + ?Sized> CatalogBackendExt for B {}
