//! A sink whose calls fail on command.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Call, Director, Fault};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::sink::{MirrorSink, PutOutcome, Replaced, SinkEntry};

/// A method of [`MirrorSink`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SinkVerb {
    /// [`MirrorSink::put_if_absent`].
    PutIfAbsent,
    /// [`MirrorSink::replace`].
    Replace,
    /// [`MirrorSink::put_replace`].
    PutReplace,
    /// [`MirrorSink::delete`].
    Delete,
    /// [`MirrorSink::get`].
    Get,
    /// [`MirrorSink::list`].
    List,
    /// [`MirrorSink::set_modified`].
    SetModified,
}

/// What happens to one call of a sink.
#[derive(Debug, Default)]
pub enum SinkFault {
    /// Nothing: the call goes through.
    #[default]
    None,
    /// A fault that any call can have.
    Common(Fault),
    /// Puts: only the first so many bytes arrive under the name, and the caller gets
    /// `WriteState::Unknown` (a store that tears writes). Gets: only so many bytes come back.
    /// Other calls: no fault.
    Truncate(usize),
    /// `put_if_absent` says `Exists` and writes nothing; `replace` says `Changed`; `get` says there is
    /// no such object; `delete` does nothing; `list` is empty. Other calls: no fault.
    Lie,
}

/// Decides per call: the method with its number, and the object's name.
type SinkScript = dyn Fn(Call<SinkVerb>, &str) -> SinkFault + Send + Sync;

/// A sink that carries out a script of faults around another one. The script sees the method, how
/// often it was called, and the object's name (empty for `list`).
pub struct FaultySink<S> {
    inner: S,
    script: Box<SinkScript>,
    counter: Director<SinkVerb, Call<SinkVerb>>,
}

impl<S> FaultySink<S> {
    /// Wraps a sink. The script is asked at every call, before it is carried out.
    pub fn new(
        inner: S,
        script: impl Fn(Call<SinkVerb>, &str) -> SinkFault + Send + Sync + 'static,
    ) -> Self {
        FaultySink { inner, script: Box::new(script), counter: Director::new(|call| call) }
    }

    /// The sink without faults.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How often a method was called.
    pub fn calls(&self, verb: SinkVerb) -> u64 {
        self.counter.count(verb)
    }

    fn fault(&self, verb: SinkVerb, name: &str) -> SinkFault {
        (self.script)(self.counter.next(verb), name)
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultySink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultySink").field("inner", &self.inner).finish_non_exhaustive()
    }
}

fn torn(name: &str) -> CatalogError {
    CatalogError::failed(format!("injected: torn write of '{name}'"), WriteState::Unknown)
}

fn first(bytes: &Bytes, len: usize) -> Bytes {
    bytes.slice(..len.min(bytes.len()))
}

#[async_trait]
impl<S: MirrorSink> MirrorSink for FaultySink<S> {
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<PutOutcome> {
        match self.fault(SinkVerb::PutIfAbsent, name) {
            SinkFault::None => self.inner.put_if_absent(name, bytes).await,
            SinkFault::Common(fault) => {
                fault.around(name, self.inner.put_if_absent(name, bytes)).await
            }
            SinkFault::Truncate(len) => {
                self.inner.put_if_absent(name, first(&bytes, len)).await?;
                Err(torn(name))
            }
            SinkFault::Lie => Ok(PutOutcome::Exists),
        }
    }

    async fn replace(&self, name: &str, expected: &[u8], bytes: Bytes) -> Result<Replaced> {
        match self.fault(SinkVerb::Replace, name) {
            SinkFault::None => self.inner.replace(name, expected, bytes).await,
            SinkFault::Common(fault) => {
                fault.around(name, self.inner.replace(name, expected, bytes)).await
            }
            SinkFault::Truncate(len) => {
                self.inner.replace(name, expected, first(&bytes, len)).await?;
                Err(torn(name))
            }
            SinkFault::Lie => Ok(Replaced::Changed),
        }
    }

    async fn put_replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        match self.fault(SinkVerb::PutReplace, name) {
            SinkFault::None | SinkFault::Lie => self.inner.put_replace(name, bytes).await,
            SinkFault::Common(fault) => {
                fault.around(name, self.inner.put_replace(name, bytes)).await
            }
            SinkFault::Truncate(len) => {
                self.inner.put_replace(name, first(&bytes, len)).await?;
                Err(torn(name))
            }
        }
    }

    async fn delete(&self, name: &str) -> Result<()> {
        match self.fault(SinkVerb::Delete, name) {
            SinkFault::Common(fault) => fault.around(name, self.inner.delete(name)).await,
            SinkFault::None | SinkFault::Truncate(_) => self.inner.delete(name).await,
            SinkFault::Lie => Ok(()),
        }
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        match self.fault(SinkVerb::Get, name) {
            SinkFault::None => self.inner.get(name).await,
            SinkFault::Common(fault) => fault.around(name, self.inner.get(name)).await,
            SinkFault::Truncate(len) => Ok(self.inner.get(name).await?.map(|b| first(&b, len))),
            SinkFault::Lie => Ok(None),
        }
    }

    async fn list(&self, after: Option<&str>) -> Result<Vec<SinkEntry>> {
        match self.fault(SinkVerb::List, "") {
            SinkFault::None | SinkFault::Truncate(_) => self.inner.list(after).await,
            SinkFault::Common(fault) => fault.around("list", self.inner.list(after)).await,
            SinkFault::Lie => Ok(Vec::new()),
        }
    }

    async fn set_modified(&self, name: &str, modified: TimestampMs) -> Result<()> {
        match self.fault(SinkVerb::SetModified, name) {
            SinkFault::Common(fault) => {
                fault.around(name, self.inner.set_modified(name, modified)).await
            }
            SinkFault::None | SinkFault::Truncate(_) | SinkFault::Lie => {
                self.inner.set_modified(name, modified).await
            }
        }
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
