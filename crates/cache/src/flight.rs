//! Single flight: identical questions that are asked at the same time become one.
//!
//! A *flight* is a question on its way, with all who wait for its answer. Whoever waits drives it, so
//! it needs no task of its own, goes on whoever of them gives up, and ends when the last one does, as a
//! dropped call of the backend ends.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use deltalakedb_catalog_core::error::{CatalogError, Determinate, ReadResult};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::watch;

use crate::stats::Counter;

/// Whose answer will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Join {
    /// Of a question that has not been sent yet: what changes must be read after the call began, as all
    /// that was acknowledged before has to be in the answer. So at most one question is on its way and
    /// one waits until that is answered, and all who come meanwhile share the one that waits.
    NotSent,
    /// Of any: what is asked for never changes.
    Any,
}

type Answer<T> = Arc<ReadResult<T>>;

struct Flight<T> {
    answer: Shared<BoxFuture<'static, Answer<T>>>,
    sent: Arc<AtomicBool>,
    /// Ends with the flight: with the last of those who wait for it.
    gone: watch::Sender<()>,
}

type Map<K, T> = HashMap<K, Weak<Flight<T>>>;

/// The flights of questions of one kind. There are never more than callers.
pub(crate) struct Flights<K, T>(Mutex<Map<K, T>>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Flights(Mutex::default())
    }
}

impl<K, T> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

impl<K, T> Flights<K, T> {
    fn lock(&self) -> MutexGuard<'_, Map<K, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash,
    T: Clone + Send + Sync + 'static,
{
    /// The answer to a question: of `ask`, or of another caller's flight; those are counted in `joined`.
    pub(crate) async fn ask<F>(
        &self,
        key: K,
        join: Join,
        joined: &Counter,
        ask: impl FnOnce() -> F + Send + 'static,
    ) -> ReadResult<T>
    where
        F: Future<Output = ReadResult<T>> + Send + 'static,
    {
        let waiting = self.board(key, join, joined, ask);
        let answer = match &waiting.flight {
            Some(flight) => flight.answer.clone().await,
            None => return Err(CatalogError::corrupt("a question without a flight").into()),
        };
        // With the flight goes its own copy of the answer: who waits alone gets it without another one.
        drop(waiting);
        match Arc::try_unwrap(answer) {
            Ok(answer) => answer,
            Err(shared) => (*shared).as_ref().map(T::clone).map_err(same_error),
        }
    }

    fn board<F>(
        &self,
        key: K,
        join: Join,
        joined: &Counter,
        ask: impl FnOnce() -> F + Send + 'static,
    ) -> Waiting<'_, K, T>
    where
        F: Future<Output = ReadResult<T>> + Send + 'static,
    {
        // Declared first, so that it is dropped after the lock is free: it may be the last one.
        let latest;
        let mut map = self.lock();
        latest = map.get(&key).and_then(Weak::upgrade);
        let flight = match &latest {
            Some(flight) if join == Join::Any || !flight.sent.load(Ordering::Acquire) => {
                joined.count();
                Arc::clone(flight)
            }
            before => {
                let flight = Arc::new(Flight::new(before.as_deref(), ask));
                map.insert(key.clone(), Arc::downgrade(&flight));
                flight
            }
        };
        drop(map);
        Waiting { flights: self, key, flight: Some(flight) }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl<T: Send + Sync + 'static> Flight<T> {
    fn new<F>(before: Option<&Flight<T>>, ask: impl FnOnce() -> F + Send + 'static) -> Flight<T>
    where
        F: Future<Output = ReadResult<T>> + Send + 'static,
    {
        let before = before.map(|flight| (flight.answer.clone(), flight.gone.subscribe()));
        let sent = Arc::new(AtomicBool::new(false));
        let sending = Arc::clone(&sent);
        let answer = async move {
            if let Some((answer, mut gone)) = before {
                // It is driven from here too: those who wait for it may be busy with something else, even
                // with waiting for this one. Once they all gave up nobody needs it any more.
                tokio::select! {
                    _ = answer => {}
                    _ = gone.changed() => {}
                }
            }
            // Who does not see this yet began before the question is sent.
            sending.store(true, Ordering::Release);
            Arc::new(ask().await)
        };
        Flight { answer: answer.boxed().shared(), sent, gone: watch::Sender::new(()) }
    }
}

/// One who waits for a flight. The last one takes it off the map.
struct Waiting<'f, K: Eq + Hash, T> {
    flights: &'f Flights<K, T>,
    key: K,
    flight: Option<Arc<Flight<T>>>,
}

impl<K: Eq + Hash, T> Drop for Waiting<'_, K, T> {
    fn drop(&mut self) {
        self.flight = None;
        let mut map = self.flights.lock();
        if map.get(&self.key).is_some_and(|flight| flight.strong_count() == 0) {
            map.remove(&self.key);
        }
    }
}

/// An error for one more of those who wait for it.
fn same_error(error: &Determinate) -> Determinate {
    let same = match error.get() {
        CatalogError::InvalidInput(text) => CatalogError::InvalidInput(text.clone()),
        CatalogError::TableNotFound(name) => CatalogError::TableNotFound(name.clone()),
        CatalogError::TableExists(name) => CatalogError::TableExists(name.clone()),
        CatalogError::VersionNotFound { table, version, earliest, latest } => {
            CatalogError::VersionNotFound {
                table: table.clone(),
                version: version.clone(),
                earliest: *earliest,
                latest: *latest,
            }
        }
        CatalogError::Unsupported(text) => CatalogError::Unsupported(text.clone()),
        CatalogError::Schema(text) => CatalogError::Schema(text.clone()),
        CatalogError::Corrupt(text) => CatalogError::Corrupt(text.clone()),
        CatalogError::Unavailable { message, retryable, write } => CatalogError::Unavailable {
            message: message.clone(),
            retryable: *retryable,
            write: *write,
        },
        // Reads have no others.
        other => CatalogError::failed(other.to_string(), other.write_state()),
    };
    same.into()
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
