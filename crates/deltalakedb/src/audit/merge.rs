//! Many lists that are each ordered by time, as one.
//!
//! A heap has one entry a table: the time of its next event, or, as long as it was not read, a time that no event of
//! it comes before. Only the table at the top is read. Newest first, the time of a table's head is known without
//! reading, so a list that is cut off early reads few tables.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use deltalakedb_catalog_core::audit::{AuditCursor, AuditFilter, AuditOrder, AuditRow};
use deltalakedb_catalog_core::backend::{CatalogBackend, CommitFilter};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::model::{CommitRecord, TableRecord};
use deltalakedb_catalog_engine::retry::Retry;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::{AuditEvent, AuditQuery};

/// Most events of commits in memory, about, however many tables there are.
const MOST_EVENTS: usize = 20_000;
/// Most commits of one table that are read at a time.
const MOST_COMMITS: usize = 500;
/// Rows of the audit that are read at a time.
const ROWS: usize = 500;

/// Where lists are read from, and what is wanted of them.
pub(super) struct Source {
    pub(super) backend: Arc<dyn CatalogBackend>,
    pub(super) retry: Retry,
    pub(super) query: AuditQuery,
    pub(super) filter: AuditFilter,
}

/// A table's commits that were not handed out.
struct Table {
    id: TableId,
    name: String,
    /// Where the next read begins: newest first, versions before this one, none = from the head; oldest first, from
    /// this one on, none = the first.
    at: Option<Version>,
    /// How many versions the next read looks at, oldest first.
    window: i64,
    /// The last version, oldest first.
    last: Version,
    /// Nothing is left to read.
    is_read: bool,
    events: VecDeque<AuditEvent>,
}

/// A table's place in the heap.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// The larger, the sooner: a time, or its negative where the oldest comes first.
    key: i64,
    /// Whether the next event is in memory and has exactly this time.
    is_read: bool,
    /// Whether it is known to have exactly this time.
    is_exact: bool,
    table: usize,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key).then(other.table.cmp(&self.table))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The lists, and how far each is.
pub(super) struct Merge {
    source: Source,
    tables: Vec<Table>,
    heap: BinaryHeap<Entry>,
    /// Events in memory, of all tables.
    in_memory: usize,
    /// Commits that are read at a time.
    page: usize,
    rows: VecDeque<AuditRow>,
    /// Where the next page of rows begins, unless all were read.
    rows_after: Option<AuditCursor>,
    rows_end: bool,
}

impl Merge {
    pub(super) fn new(source: Source, tables: &[TableRecord]) -> Merge {
        let newest = source.query.order == AuditOrder::NewestFirst;
        let page = (MOST_EVENTS / tables.len().max(1)).clamp(1, MOST_COMMITS);
        let mut merge = Merge {
            source,
            tables: Vec::with_capacity(tables.len()),
            heap: BinaryHeap::new(),
            in_memory: 0,
            page,
            rows: VecDeque::new(),
            rows_after: None,
            rows_end: false,
        };
        for table in tables {
            let (Some(head), Some(time)) = (table.head, table.head_timestamp) else { continue };
            if newest && merge.source.query.since.is_some_and(|since| time < since) {
                continue;
            }
            let key = if newest { time.0 } else { i64::MAX };
            let place = merge.tables.len();
            merge.tables.push(Table {
                id: table.id,
                name: table.name.to_string(),
                at: None,
                window: i64::try_from(page).unwrap_or(1),
                last: head,
                is_read: false,
                events: VecDeque::new(),
            });
            merge.heap.push(Entry { key, is_read: false, is_exact: false, table: place });
        }
        merge
    }

    pub(super) fn events(self) -> BoxStream<'static, Result<AuditEvent>> {
        let events = stream::try_unfold(self, |mut merge| async move {
            Ok(merge.next().await?.map(|event| (event, merge)))
        });
        events.into_stream().boxed()
    }

    fn key(&self, event_time: i64) -> i64 {
        match self.source.query.order {
            AuditOrder::NewestFirst => event_time,
            AuditOrder::OldestFirst => event_time.saturating_neg(),
        }
    }

    async fn next(&mut self) -> Result<Option<AuditEvent>> {
        loop {
            self.read_rows().await?;
            let row = self.rows.front().map(|row| self.key(row.entry.at.0));
            let Some(top) = self.heap.peek() else {
                return Ok(self.rows.pop_front().map(AuditEvent::of_row));
            };
            if row.is_some_and(|row| row >= top.key) {
                return Ok(self.rows.pop_front().map(AuditEvent::of_row));
            }
            let Some(top) = self.heap.pop() else { continue };
            if top.is_read {
                let event = self.tables[top.table].events.pop_front();
                self.in_memory = self.in_memory.saturating_sub(1);
                if let Some(event) = event {
                    // Times of a table's commits grow strictly.
                    let after = self.key(event.at_ms.0).saturating_sub(1);
                    self.push(top.table, after);
                    return Ok(Some(event));
                }
                continue;
            }
            self.read_table(top).await?;
        }
    }

    /// Puts a table back, unless nothing is left of it. No event of it comes before the time of `bound`.
    fn push(&mut self, place: usize, bound: i64) {
        let table = &self.tables[place];
        let next = table.events.front().map(|event| event.at_ms.0);
        let is_read = table.is_read;
        match next {
            Some(at) => {
                let key = self.key(at);
                self.heap.push(Entry { key, is_read: true, is_exact: true, table: place });
            }
            None if !is_read => {
                self.heap.push(Entry { key: bound, is_read: false, is_exact: false, table: place });
            }
            None => {}
        }
    }

    /// Reads the next commits of the table at the top.
    async fn read_table(&mut self, top: Entry) -> Result<()> {
        let table = &mut self.tables[top.table];
        let before = (table.at, table.window, table.is_read);
        let commits = match self.source.query.order {
            AuditOrder::NewestFirst => self.source.newer(table, self.page).await?,
            AuditOrder::OldestFirst => self.source.older(table, self.page).await?,
        };
        let last = commits.last().map(|commit| commit.timestamp.0);
        let found = commits.iter().map(|commit| AuditEvent::of_commit(commit, &table.name));
        table.events.extend(found.filter(|event| self.source.query.takes(event)));
        let many = self.in_memory.saturating_add(table.events.len()) > MOST_EVENTS;
        if many
            && !top.is_exact
            && let Some(first) = table.events.front()
        {
            // It is read again when it is its turn: then it goes at once.
            let at = first.at_ms.0;
            table.events = VecDeque::new();
            (table.at, table.window, table.is_read) = before;
            let key = self.key(at);
            self.heap.push(Entry { key, is_read: false, is_exact: true, table: top.table });
            return Ok(());
        }
        self.in_memory = self.in_memory.saturating_add(table.events.len());
        let bound = last.map_or(top.key, |last| self.key(last).saturating_sub(1));
        self.push(top.table, bound.min(top.key));
        Ok(())
    }

    async fn read_rows(&mut self) -> Result<()> {
        if !self.rows.is_empty() || self.rows_end {
            return Ok(());
        }
        let after = self.rows_after;
        let Source { backend, retry, query, filter } = &self.source;
        let page = retry.repeat(|| backend.audit_list(filter, query.order, after, ROWS)).await?;
        self.rows = page.items.into();
        self.rows_end = page.next.is_none();
        self.rows_after = page.next;
        Ok(())
    }
}

impl Source {
    async fn commits(
        &self,
        id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<(Vec<CommitRecord>, Option<Version>)> {
        let list = || self.backend.list_commits(id, filter, before, limit);
        let page = self.retry.repeat(list).await?;
        Ok((page.items, page.next))
    }

    /// The next commits, newest first.
    async fn newer(&self, table: &mut Table, limit: usize) -> Result<Vec<CommitRecord>> {
        let filter = CommitFilter {
            from_time: self.query.since,
            to_time: self.query.until,
            ..CommitFilter::default()
        };
        let (commits, next) = self.commits(table.id, &filter, table.at, limit).await?;
        table.is_read = next.is_none();
        table.at = next;
        Ok(commits)
    }

    /// The next commits, oldest first: those of a window of versions, which grows where there are none, as before the
    /// first version of a log that was cleaned up.
    async fn older(&self, table: &mut Table, limit: usize) -> Result<Vec<CommitRecord>> {
        loop {
            let from = match table.at {
                Some(at) => at,
                None => self.first(table).await?,
            };
            let window = table.window.max(1);
            let to = Version::new(from.get().saturating_add(window - 1).min(table.last.get()))?;
            let filter = CommitFilter {
                from_version: Some(from),
                to_version: Some(to),
                from_time: self.query.since,
                to_time: self.query.until,
            };
            let (mut commits, more) = self.commits(table.id, &filter, None, limit).await?;
            if more.is_some() {
                // Those are the newest ones of it.
                table.at = Some(from);
                table.window = window / 2;
                continue;
            }
            commits.reverse();
            table.at = Some(to.next());
            table.is_read = to >= table.last;
            if commits.is_empty() && !table.is_read {
                table.window = window.saturating_mul(2);
                continue;
            }
            table.window = i64::try_from(limit).unwrap_or(1);
            return Ok(commits);
        }
    }

    /// The first version that may be wanted.
    async fn first(&self, table: &Table) -> Result<Version> {
        let Some(since) = self.query.since else { return Ok(Version::ZERO) };
        let filter = CommitFilter { to_time: Some(since), ..CommitFilter::default() };
        let (before, _) = self.commits(table.id, &filter, None, 1).await?;
        Ok(before.first().map_or(Version::ZERO, |commit| commit.version.next()))
    }
}
