//! Reads of a catalog from read replicas.
//!
//! [`ReplicaReader`] goes around a primary and its replicas. Writes and everything that decides
//! about a write go to the primary. A replica never decides what is true:
//!
//! - What never changes (the snapshot of a named version of a table by its id; files, tombstones,
//!   transactions, domains, bodies and bounded history of a named version) comes from a replica that
//!   is known to have that version of that table. In such a snapshot, the *table's row* (name,
//!   head, state, what is published) may be as old as the replica is.
//! - What depends on the table's row (`get_table`, `snapshot` by name, at the head or at a time)
//!   comes from a replica only if [`ReplicaConfig::max_staleness`] is set, and only if the replica's
//!   row equals the row that the primary had at a moment within that time, or is of a later head.
//!   Replicas that replay the primary's commits in their order are assumed.
//! - Within one process, the head of a table never goes back: what a replica has shown is what the
//!   next one must have, and after a commit of this process
//!   ([`note_change`](deltalakedb_catalog_core::backend::TableBackend::note_change)) the primary is asked.
//! - Lists of tables, unbounded history and outbox rows come from the primary always.
//!
//! Whatever a replica cannot answer, the primary does; no error of a replica reaches the caller.
#![forbid(unsafe_code)]

mod reader;
mod replica;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::{CatalogError, ReadResult, WriteState};
use deltalakedb_catalog_core::ids::{TableId, TableName, TableRef, Version};
use deltalakedb_catalog_core::model::{TableRecord, TableState};
use deltalakedb_catalog_engine::env::Clock;

pub use replica::Replica;
use replica::{lock, ms};

/// Tables that are remembered at most, here and of each replica.
pub(crate) const MOST_TABLES: usize = 10_000;

/// How replicas are used.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    /// How old an answer about the head may be; none = the primary answers.
    pub max_staleness: Option<Duration>,
    /// How long one read may take on a replica before another, or the primary, is asked.
    pub read_timeout: Duration,
    /// How long a replica is left out after its first failure; it doubles.
    pub first_backoff: Duration,
    /// Longest time that a replica is left out.
    pub max_backoff: Duration,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        ReplicaConfig {
            max_staleness: None,
            read_timeout: Duration::from_secs(2),
            first_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(30),
        }
    }
}

/// What became of the reads that were tried on a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStats {
    /// Its label.
    pub label: String,
    /// Whether its last call worked.
    pub healthy: bool,
    /// Reads under way.
    pub in_flight: usize,
    /// Reads that it answered.
    pub served: u64,
    /// Reads that it was not far enough for.
    pub fell_back: u64,
    /// Reads, or attempts to connect, that failed.
    pub failed: u64,
}

/// A primary with read replicas.
#[derive(Debug)]
pub struct ReplicaReader {
    primary: Arc<dyn CatalogBackend>,
    replicas: Vec<Replica>,
    config: ReplicaConfig,
    clock: Option<Arc<dyn Clock>>,
    started: Instant,
    turn: AtomicUsize,
    known: Mutex<Known>,
}

/// What the primary said, and when.
#[derive(Debug, Default)]
struct Known {
    rows: HashMap<TableId, (TableRecord, i64)>,
    names: HashMap<TableName, TableId>,
    /// Generations of skipping indexes that were seen: what comes next must not be older.
    indexes: HashMap<TableId, i64>,
}

struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ReplicaReader {
    /// Reads on the replicas where that is allowed. Nothing is opened yet.
    #[must_use]
    pub fn new(
        primary: Arc<dyn CatalogBackend>,
        replicas: Vec<Replica>,
        config: ReplicaConfig,
    ) -> Self {
        ReplicaReader {
            primary,
            replicas,
            config,
            clock: None,
            started: Instant::now(),
            turn: AtomicUsize::new(0),
            known: Mutex::default(),
        }
    }

    /// Measures staleness and back-off on this clock rather than on the monotonic one.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// How the replicas do, in the order they were given.
    pub fn stats(&self) -> Vec<ReplicaStats> {
        let stats = |r: &Replica| ReplicaStats {
            label: r.label.clone(),
            healthy: r.healthy(),
            in_flight: r.in_flight.load(Ordering::Relaxed),
            served: r.served.load(Ordering::Relaxed),
            fell_back: r.fell_back.load(Ordering::Relaxed),
            failed: r.failed.load(Ordering::Relaxed),
        };
        self.replicas.iter().map(stats).collect()
    }

    /// Forgets what is known of a table's row, as it was written elsewhere: the next read of its
    /// head asks the primary.
    pub fn note_commit(&self, table: TableId) {
        lock(&self.known).rows.remove(&table);
    }

    fn now(&self) -> i64 {
        self.clock.as_ref().map_or_else(|| ms(self.started.elapsed()), |clock| clock.now().0)
    }

    /// Remembers that a replica showed a later row than the primary's that was known: what comes
    /// next must not be older. How old it may get is still counted from when the primary was asked.
    fn advance(&self, row: &TableRecord) {
        if let Some((known, _)) = lock(&self.known).rows.get_mut(&row.id)
            && row.head > known.head
        {
            known.clone_from(row);
        }
    }

    /// Remembers a row that the primary gave; `asked` is from before the call.
    fn learn(&self, row: &TableRecord, asked: i64) {
        if self.config.max_staleness.is_none() || row.state == TableState::Importing {
            return;
        }
        let mut known = lock(&self.known);
        if known.rows.len() >= MOST_TABLES || known.names.len() >= MOST_TABLES {
            // Without them the primary is asked.
            *known = Known::default();
        }
        known.names.insert(row.name.clone(), row.id);
        if known.rows.get(&row.id).is_none_or(|(_, at)| *at <= asked) {
            known.rows.insert(row.id, (row.clone(), asked));
        }
    }

    /// Remembers a generation of a table's skipping index; false if a later one is known.
    fn saw_index(&self, table: TableId, generation: i64) -> bool {
        let mut known = lock(&self.known);
        if known.indexes.len() >= MOST_TABLES {
            known.indexes.clear();
        }
        let latest = known.indexes.entry(table).or_default();
        *latest = generation.max(*latest);
        *latest == generation
    }

    /// The row that the primary had within the staleness allowed.
    fn recent(&self, table: &TableRef) -> Option<TableRecord> {
        let oldest = self.now().saturating_sub(ms(self.config.max_staleness?));
        let known = lock(&self.known);
        let id = match table {
            TableRef::Id(id) => *id,
            TableRef::Name(name) => *known.names.get(name)?,
        };
        known.rows.get(&id).filter(|(_, at)| *at >= oldest).map(|(row, _)| row.clone())
    }

    /// Asks replicas, the least busy first, until one has an answer (`None` = it is not far enough).
    async fn on_replica<T, F, Fut>(&self, read: F) -> Option<T>
    where
        F: Fn(Arc<dyn CatalogBackend>, usize) -> Fut,
        Fut: Future<Output = ReadResult<Option<T>>>,
    {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.replicas.len();
        let mut order: Vec<usize> = (0..count).map(|i| (turn.wrapping_add(i)) % count).collect();
        let now = self.now();
        order.retain(|i| self.replicas.get(*i).is_some_and(|r| r.may_try(now)));
        order.sort_by_key(|i| {
            self.replicas.get(*i).map_or(0, |r| r.in_flight.load(Ordering::Relaxed))
        });
        for index in order {
            let Some(replica) = self.replicas.get(index) else { continue };
            if !replica.admit(self.now(), self.config.read_timeout.saturating_mul(2)) {
                continue;
            }
            replica.in_flight.fetch_add(1, Ordering::Relaxed);
            let busy = Busy(&replica.in_flight);
            let call = async {
                match replica.open(&self.primary).await? {
                    Some(backend) => read(backend, index).await,
                    None => Ok(None),
                }
            };
            let answer = match tokio::time::timeout(self.config.read_timeout, call).await {
                Ok(answer) => answer,
                Err(_) => {
                    Err(CatalogError::busy("no answer in time", WriteState::NotApplied).into())
                }
            };
            drop(busy);
            match answer.map_err(CatalogError::from) {
                Ok(Some(answer)) => {
                    replica.works();
                    replica.served.fetch_add(1, Ordering::Relaxed);
                    return Some(answer);
                }
                Ok(None) => {
                    replica.fell_back.fetch_add(1, Ordering::Relaxed);
                }
                // Answers, and mistakes of the caller, of which the primary will tell.
                Err(
                    CatalogError::TableNotFound(_)
                    | CatalogError::VersionNotFound { .. }
                    | CatalogError::InvalidInput(_),
                ) => {
                    replica.works();
                    replica.fell_back.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => replica.fails(self.now(), &self.config, &error),
            }
        }
        None
    }

    /// Reads what never changes, on a replica that has this version of the table.
    async fn fixed<T, F, Fut>(&self, table: TableId, version: Version, read: F) -> Option<T>
    where
        F: Fn(Arc<dyn CatalogBackend>) -> Fut,
        Fut: Future<Output = ReadResult<T>>,
    {
        self.on_replica(|backend, index| {
            let read = &read;
            async move {
                let Some(replica) = self.replicas.get(index) else { return Ok(None) };
                if !replica.has(&backend, table, version).await? {
                    return Ok(None);
                }
                read(backend).await.map(Some)
            }
        })
        .await
    }
}

/// Whether a replica's row is what the primary's was, or later.
fn as_new(row: &TableRecord, known: &TableRecord) -> bool {
    row.id == known.id && (row == known || row.head > known.head)
}
