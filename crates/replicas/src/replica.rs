//! One replica: its connection, its health and what is known about how far it is.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltalakedb_catalog_core::backend::{CatalogBackend, TableFilter};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, TableRef, Version};
use deltalakedb_catalog_core::model::TableState;

use crate::{MOST_TABLES, ReplicaConfig};

type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn CatalogBackend>>> + Send>>;
type Connector = Box<dyn Fn() -> Opening + Send + Sync>;

/// A read replica. It must be one server: behind an address that leads to several, what one of them
/// has says nothing about the next.
pub struct Replica {
    pub(crate) label: String,
    connector: Connector,
    backend: Mutex<Option<Arc<dyn CatalogBackend>>>,
    /// Held by the one read that connects.
    connecting: tokio::sync::Mutex<()>,
    /// Highest head seen of each table whose import is over: rows up to it never change.
    heads: Mutex<HashMap<TableId, Version>>,
    health: Mutex<Health>,
    closed: AtomicBool,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) served: AtomicU64,
    pub(crate) fell_back: AtomicU64,
    pub(crate) failed: AtomicU64,
}

#[derive(Default)]
struct Health {
    /// Failures in a row.
    failures: u32,
    /// When it may be tried again, milliseconds of the reader's clock.
    retry_at: i64,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Replica {
    /// A replica that is opened when it is first needed. The label stands in messages: no secrets.
    pub fn new<F, Fut>(label: impl Into<String>, connector: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Arc<dyn CatalogBackend>>> + Send + 'static,
    {
        Replica {
            label: label.into(),
            connector: Box::new(move || Box::pin(connector())),
            backend: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            heads: Mutex::default(),
            health: Mutex::default(),
            closed: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            fell_back: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Closes its connections, and opens none any more.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let backend = lock(&self.backend).take();
        if let Some(backend) = backend
            && let Err(error) = backend.close().await
        {
            tracing::debug!(replica = %self.label, %error, "a read replica did not close cleanly");
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(CatalogError::closed(&self.label));
        }
        Ok(())
    }

    pub(crate) fn healthy(&self) -> bool {
        lock(&self.health).failures == 0
    }

    pub(crate) fn may_try(&self, now: i64) -> bool {
        let health = lock(&self.health);
        health.failures == 0 || health.retry_at <= now
    }

    /// Takes the one probe of a replica that failed: the next is due only after `wait`, also if
    /// this one is never heard of again. A healthy replica needs no probe.
    pub(crate) fn admit(&self, now: i64, wait: Duration) -> bool {
        let mut health = lock(&self.health);
        if health.failures == 0 {
            return true;
        }
        let due = health.retry_at <= now;
        if due {
            health.retry_at = now.saturating_add(ms(wait));
        }
        due
    }

    pub(crate) fn works(&self) {
        let mut health = lock(&self.health);
        if health.failures > 0 {
            *health = Health::default();
            tracing::warn!(replica = %self.label, "the read replica is back");
        }
    }

    /// Leaves it out for a while, and forgets what was known: it may come back as another server.
    pub(crate) fn fails(&self, now: i64, config: &ReplicaConfig, error: &CatalogError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let first = {
            let mut health = lock(&self.health);
            let factor = 1_i64.checked_shl(health.failures.min(32)).unwrap_or(i64::MAX);
            let pause = ms(config.first_backoff).saturating_mul(factor);
            health.retry_at = now.saturating_add(pause.min(ms(config.max_backoff)));
            health.failures = health.failures.saturating_add(1);
            health.failures == 1
        };
        lock(&self.heads).clear();
        *lock(&self.backend) = None;
        if first {
            tracing::warn!(replica = %self.label, %error, "a read replica fails: it is left out");
        }
    }

    /// The connection; opened, and checked to be of the primary's catalog, if there is none. None
    /// while another read opens it, or the primary cannot be asked: the replica is not at fault.
    pub(crate) async fn open(
        &self,
        primary: &Arc<dyn CatalogBackend>,
    ) -> Result<Option<Arc<dyn CatalogBackend>>> {
        self.check_open()?;
        if let Some(backend) = lock(&self.backend).as_ref() {
            return Ok(Some(Arc::clone(backend)));
        }
        let Ok(_connecting) = self.connecting.try_lock() else { return Ok(None) };
        let backend = (self.connector)().await?;
        let theirs = backend.info().await?;
        let Ok(ours) = primary.info().await else { return Ok(None) };
        if ours.kind != theirs.kind || ours.schema_version != theirs.schema_version {
            return Err(CatalogError::Schema(format!(
                "replica '{}' is {} with schema {}, the primary is {} with schema {}: check the \
                 replica's URL",
                self.label, theirs.kind, theirs.schema_version, ours.kind, ours.schema_version
            )));
        }
        // Table ids are random and never leave the primary once an import is over, so a table that
        // the primary does not know shows that this is no replica of it.
        let page = backend.list_tables(&TableFilter::default(), None, 1).await?;
        if let Some(table) = page.items.first() {
            let Ok(known) = primary.get_table(&TableRef::Id(table.id)).await else {
                return Ok(None);
            };
            if known.is_none_or(|k| k.created_at != table.created_at) {
                return Err(CatalogError::Schema(format!(
                    "replica '{}' has a table {} that the primary does not have: it is a replica \
                     of another catalog; check its URL",
                    self.label, table.id
                )));
            }
        }
        *lock(&self.backend) = Some(Arc::clone(&backend));
        if let Err(error) = self.check_open() {
            // It was closed while this one was opened.
            *lock(&self.backend) = None;
            return Err(error);
        }
        Ok(Some(backend))
    }

    /// Whether all of a table up to this version is here.
    pub(crate) async fn has(
        &self,
        backend: &Arc<dyn CatalogBackend>,
        table: TableId,
        version: Version,
    ) -> Result<bool> {
        if lock(&self.heads).get(&table).is_some_and(|head| *head >= version) {
            return Ok(true);
        }
        let Some(row) = backend.get_table(&TableRef::Id(table)).await? else { return Ok(false) };
        // While an import runs, its history arrives below the head.
        let Some(head) = row.head.filter(|_| row.state != TableState::Importing) else {
            return Ok(false);
        };
        let mut heads = lock(&self.heads);
        if heads.len() >= MOST_TABLES {
            heads.clear();
        }
        let known = heads.entry(table).or_insert(head);
        *known = head.max(*known);
        Ok(*known >= version)
    }
}

pub(crate) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
