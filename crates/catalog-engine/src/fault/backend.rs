//! A backend whose calls fail on command.

use std::fmt;

use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::delegate;
use deltalakedb_catalog_core::delegation::CallError;
pub use deltalakedb_catalog_core::delegation::Verb;

use super::{Call, Director, Fault};

/// A backend that carries out a script of faults around another one.
///
/// ```
/// use deltalakedb_catalog_engine::fault::{Fault, FaultyBackend, Verb};
/// use deltalakedb_catalog_engine::memory::MemoryBackend;
/// // The first commit happens, but its answer is lost.
/// let backend = FaultyBackend::new(MemoryBackend::new(), |call| match (call.verb, call.nth) {
///     (Verb::Commit, 0) => Fault::LoseAnswer,
///     _ => Fault::None,
/// });
/// assert_eq!(backend.calls(Verb::Commit), 0);
/// ```
pub struct FaultyBackend<B> {
    inner: B,
    director: Director<Verb, Fault>,
}

impl<B> FaultyBackend<B> {
    /// Wraps a backend. The script is asked at every call, before it is carried out.
    pub fn new(inner: B, script: impl Fn(Call<Verb>) -> Fault + Send + Sync + 'static) -> Self {
        FaultyBackend { inner, director: Director::new(script) }
    }

    /// The backend without faults.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// How often a method was called.
    pub fn calls(&self, verb: Verb) -> u64 {
        self.director.count(verb)
    }

    async fn run<T, E: CallError>(
        &self,
        verb: Verb,
        call: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        self.director.next(verb).around(&format!("{verb:?}"), call).await
    }
}

impl<B: fmt::Debug> fmt::Debug for FaultyBackend<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBackend").field("inner", &self.inner).finish_non_exhaustive()
    }
}

delegate!(
    SchemaBackend, TableBackend, ReadBackend, CommitBackend, SkipBackend, ImportBackend, OutboxBackend,
    OperateBackend, AuditBackend, RegistryBackend
    for [B: CatalogBackend] FaultyBackend<B> => inner, around run
);
