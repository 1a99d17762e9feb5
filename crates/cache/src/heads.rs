//! The rows of tables, for readers who may be told an older one.
//!
//! An answer is as old as its question: time counts from before that was sent. Two things end it: its
//! time, and a change that this process made (`forget`). A question that was sent before such a change
//! ended may have seen the state before it, so its answer is not kept, whenever it arrives.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltalakedb_catalog_core::ids::{TableId, TableName, TableRef};
use deltalakedb_catalog_core::model::{TableRecord, TableState};
use moka::sync::Cache;
use tokio::time::Instant;

use crate::entries::{Entry, Key};
use crate::head::{Asked, Head};

/// Changes that are remembered; beyond, no answer to a question from before is kept.
const MOST_CHANGES: usize = 4_096;

/// From before a question is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    asked: Instant,
    changes: u64,
}

/// What this process has changed, in the order of a counter.
#[derive(Debug, Default)]
struct Changes {
    counter: u64,
    /// Answers to questions from before this one are not kept, of no table.
    floor: u64,
    last: HashMap<TableRef, u64>,
}

impl Changes {
    fn note(&mut self, table: TableRef) {
        if self.last.len() >= MOST_CHANGES {
            self.last.clear();
            self.floor = self.counter;
        }
        self.last.insert(table, self.counter);
    }

    /// Whether nothing of this table was changed after a question about it was sent.
    fn none_since(&self, ticket: Ticket, record: &TableRecord) -> bool {
        let since = |table: &TableRef| self.last.get(table).is_some_and(|at| *at > ticket.changes);
        ticket.changes >= self.floor
            && !since(&TableRef::Id(record.id))
            && !since(&TableRef::Name(record.name.clone()))
    }
}

/// How much of its time each entry gets: from four fifths to all of it.
#[derive(Debug, Default)]
pub(crate) struct Jitter {
    /// Another one in each process.
    hasher: RandomState,
    counter: AtomicU64,
}

impl Jitter {
    /// Thousandths.
    fn lasts(&self) -> u32 {
        let hash = self.hasher.hash_one(self.counter.fetch_add(1, Ordering::Relaxed));
        u32::try_from(800 + hash % 201).unwrap_or(800)
    }

    pub(crate) fn of(&self, time: Duration) -> Duration {
        part(time, self.lasts())
    }
}

fn part(time: Duration, thousandths: u32) -> Duration {
    let whole = time / 1_000;
    whole.saturating_mul(thousandths)
}

/// The rows, in the cache that all entries are in.
#[derive(Debug)]
pub(crate) struct Heads {
    cache: Cache<Key, Entry>,
    /// Held while rows are put in and taken out: what was forgotten must not come back.
    changes: Mutex<Changes>,
    jitter: Jitter,
    /// Whether anybody reads them.
    wanted: bool,
}

impl Heads {
    pub(crate) fn new(cache: Cache<Key, Entry>, wanted: bool) -> Self {
        Heads { cache, changes: Mutex::default(), jitter: Jitter::default(), wanted }
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken before a question is sent.
    pub(crate) fn ticket(&self) -> Ticket {
        let changes = self.lock().counter;
        Ticket { asked: Instant::now(), changes }
    }

    /// Whether rows are kept at all.
    pub(crate) fn wanted(&self) -> bool {
        self.wanted
    }

    /// The row of a table, if the answer is not older than that.
    pub(crate) fn fresh(&self, table: &TableRef, age: Duration) -> Option<Arc<TableRecord>> {
        let head = self.find(table)?;
        let Asked { at, lasts } = head.asked();
        (at.elapsed() < part(age, lasts)).then_some(head.record)
    }

    fn find(&self, table: &TableRef) -> Option<Head> {
        let id = match table {
            TableRef::Id(id) => *id,
            TableRef::Name(name) => match self.cache.get(&Key::Name(name.clone()))? {
                Entry::Name(id) => id,
                _ => return None,
            },
        };
        let Some(Entry::Head(head)) = self.cache.get(&Key::Head(id)) else { return None };
        match table {
            // Only one active table has a name, and rows of others are not here.
            TableRef::Name(name) if head.record.name != *name => None,
            _ => Some(head),
        }
    }

    /// Keeps what the database said.
    pub(crate) fn learn(&self, ticket: Ticket, record: &TableRecord) {
        if !self.wanted {
            return;
        }
        let changes = self.lock();
        let (id, found) = (record.id, self.find(&TableRef::Id(record.id)));
        if found.as_ref().is_some_and(|head| head.asked().at > ticket.asked) {
            return;
        }
        if record.state != TableState::Active || !changes.none_since(ticket, record) {
            self.cache.invalidate(&Key::Head(id));
            return;
        }
        let asked = Asked { at: ticket.asked, lasts: self.jitter.lasts() };
        match found {
            Some(head) if *head.record == *record => {
                *head.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
            }
            _ => {
                let head =
                    Head { record: Arc::new(record.clone()), asked: Arc::new(Mutex::new(asked)) };
                self.cache.insert(Key::Head(id), Entry::Head(head));
            }
        }
        let name = Key::Name(record.name.clone());
        if !matches!(self.cache.get(&name), Some(Entry::Name(named)) if named == id) {
            self.cache.insert(name, Entry::Name(id));
        }
    }

    /// The same where what readers are told comes from elsewhere (replicas, which may be behind): a row
    /// that is known to be out of date goes, and nothing comes in its place.
    pub(crate) fn compare(&self, ticket: Ticket, record: &TableRecord) {
        if !self.wanted {
            return;
        }
        let _changes = self.lock();
        let found = self.find(&TableRef::Id(record.id));
        if found.is_some_and(|head| head.asked().at <= ticket.asked && *head.record != *record) {
            self.cache.invalidate(&Key::Head(record.id));
        }
    }

    /// There is no such table, or none that is active.
    pub(crate) fn missed(&self, ticket: Ticket, table: &TableRef) {
        if !self.wanted {
            return;
        }
        let _changes = self.lock();
        if let Some(head) = self.find(table)
            && head.asked().at <= ticket.asked
        {
            self.cache.invalidate(&Key::Head(head.record.id));
        }
    }

    /// This process has changed these tables, or may have, and what has these names.
    pub(crate) fn forget(&self, ids: &[TableId], names: &[TableName]) {
        if !self.wanted {
            return;
        }
        let mut changes = self.lock();
        changes.counter += 1;
        for id in ids {
            changes.note(TableRef::Id(*id));
            self.cache.invalidate(&Key::Head(*id));
        }
        for name in names {
            let table = TableRef::Name(name.clone());
            // Whoever had the name may have it no more.
            if let Some(head) = self.find(&table) {
                self.cache.invalidate(&Key::Head(head.record.id));
            }
            changes.note(table);
        }
    }
}

#[cfg(test)]
#[path = "heads_tests.rs"]
mod tests;
