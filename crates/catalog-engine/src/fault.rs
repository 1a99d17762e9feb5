//! Wrappers that make faults happen: for tests of everything above a backend or a sink, without
//! a change to product code.
//!
//! A script decides, call by call, what goes wrong. The wrappers themselves hold no state but the
//! number of calls, so that a test may ask what was called how often.

mod backend;
mod sink;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;

use deltalakedb_catalog_core::error::{CatalogError, WriteState};

pub use backend::{FaultyBackend, Verb};
pub use sink::{FaultySink, SinkFault, SinkVerb};

/// What happens to one call.
#[derive(Default)]
pub enum Fault {
    /// Nothing: the call goes through.
    #[default]
    None,
    /// The call fails before anything is done, with `retryable` set: a busy database.
    Busy,
    /// The call fails before anything is done, for good.
    Fail,
    /// The call is carried out, but its answer is lost: the caller gets `WriteState::Unknown`.
    /// Where the inner call itself fails, its own error is returned.
    LoseAnswer,
    /// As `LoseAnswer`, but with `retryable` set.
    LoseAnswerBusy,
    /// The call never arrives, and the caller cannot know: `WriteState::Unknown`, nothing done.
    LoseRequest,
    /// The call is carried out once this future is done (a gate that the test opens).
    Before(BoxFuture<'static, ()>),
    /// The call is carried out, and answers once this future is done.
    After(BoxFuture<'static, ()>),
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::None => "None",
            Fault::Busy => "Busy",
            Fault::Fail => "Fail",
            Fault::LoseAnswer => "LoseAnswer",
            Fault::LoseAnswerBusy => "LoseAnswerBusy",
            Fault::LoseRequest => "LoseRequest",
            Fault::Before(_) => "Before",
            Fault::After(_) => "After",
        })
    }
}

impl Fault {
    /// Carries out a call under this fault.
    async fn around<T, E: From<CatalogError>>(
        self,
        what: &str,
        call: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        let lost = |retryable| {
            E::from(CatalogError::Unavailable {
                message: format!("injected: the answer to {what} was lost"),
                retryable,
                write: WriteState::Unknown,
            })
        };
        match self {
            Fault::None => call.await,
            Fault::Busy => {
                let message = format!("injected: busy at {what}");
                Err(CatalogError::busy(message, WriteState::NotApplied).into())
            }
            Fault::Fail => Err(CatalogError::failed(
                format!("injected: failure at {what}"),
                WriteState::NotApplied,
            )
            .into()),
            Fault::LoseAnswer => call.await.and_then(|_| Err(lost(false))),
            Fault::LoseAnswerBusy => call.await.and_then(|_| Err(lost(true))),
            Fault::LoseRequest => Err(lost(false)),
            Fault::Before(gate) => {
                gate.await;
                call.await
            }
            Fault::After(gate) => {
                let answer = call.await;
                gate.await;
                answer
            }
        }
    }
}

/// One call, as a script sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<V> {
    /// Which method.
    pub verb: V,
    /// How many calls of this method came before.
    pub nth: u64,
}

/// Decides per call.
type Script<V, F> = Arc<dyn Fn(Call<V>) -> F + Send + Sync>;

/// Counts calls and asks the script.
struct Director<V, F> {
    script: Script<V, F>,
    counts: Mutex<BTreeMap<V, u64>>,
}

impl<V: Ord + Copy, F> Director<V, F> {
    fn new(script: impl Fn(Call<V>) -> F + Send + Sync + 'static) -> Self {
        Director { script: Arc::new(script), counts: Mutex::default() }
    }

    fn next(&self, verb: V) -> F {
        let nth = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(verb).or_default();
            *count += 1;
            *count - 1
        };
        (self.script)(Call { verb, nth })
    }

    fn count(&self, verb: V) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&verb).copied().unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "fault/tests.rs"]
mod tests;
