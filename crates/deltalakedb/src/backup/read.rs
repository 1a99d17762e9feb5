//! Reads tables of a set and of those that it goes on from.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use deltalakedb_catalog_core::action::{Add, Metadata, Protocol, Remove};
use deltalakedb_catalog_core::audit::AuditRow;
use deltalakedb_catalog_core::backend::{ImportProgress, ImportedCommit};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::model::{BaseChunk, BaseTail, CommitRecord, TableRecord};
use deltalakedb_catalog_core::registry::Record;
use tokio::sync::mpsc;

use super::format::{Entry, Segment, SegmentKind, Start, TableEntry, Text, commit_of, entry_at};
use super::place::{Place, Set};
use super::write::{Known, broken_off};
use crate::copy::Limits;
use crate::copy::registry::Registry;
use crate::copy::source::{Step, Steps, imported, send_base, text_of};

/// Unpacked segments that are kept: neighbours in the list of tables share one.
const KEPT: usize = 4;

/// A set with those that it goes on from.
pub(super) struct Chain {
    place: Place,
    sets: Vec<Set>,
    /// Where each set has its part of a table.
    parts: Vec<HashMap<TableId, Part>>,
    /// Tables of the newest set, in its order.
    pub(super) tables: Vec<Arc<TableEntry>>,
    kept: Mutex<VecDeque<(usize, usize, Bytes)>>,
}

/// A table's part of a set.
#[derive(Debug, Clone, Copy)]
struct Part {
    set: usize,
    after: Option<Version>,
    head: Option<Version>,
    data: Option<Start>,
}

impl Chain {
    /// Reads the tables of all sets.
    ///
    /// # Errors
    /// `Corrupt`; those of the store.
    pub(super) async fn open(place: &Place, sets: Vec<Set>) -> Result<Arc<Chain>> {
        let mut chain = Chain {
            place: place.clone(),
            sets,
            parts: Vec::new(),
            tables: Vec::new(),
            kept: Mutex::default(),
        };
        for set in 0..chain.sets.len() {
            chain.tables.clear();
            let mut parts = HashMap::new();
            let count = chain.sets[set].manifest.segments.len();
            for number in 0..count {
                if chain.sets[set].manifest.segments[number].kind != SegmentKind::Tables {
                    continue;
                }
                let segment = chain.segment(set, number).await?;
                let mut at = 0;
                while let Some((entry, _, next)) = chain.entry(set, number, &segment, at)? {
                    let Entry::Row(row) = entry else {
                        return Err(chain.wrong(set, number, "an entry is no table's row"));
                    };
                    let part =
                        Part { set, after: row.after, head: row.record.head, data: row.data };
                    if parts.insert(row.record.id, part).is_some() {
                        return Err(chain.wrong(set, number, "a table stands in it twice"));
                    }
                    chain.tables.push(Arc::new(row));
                    at = next;
                }
            }
            let tables = chain.sets[set].manifest.counts.tables;
            if u64::try_from(parts.len()) != Ok(tables) {
                return Err(CatalogError::corrupt(format!(
                    "set {} has {} tables, its manifest says {tables}",
                    chain.sets[set].id(),
                    parts.len()
                )));
            }
            chain.parts.push(parts);
        }
        Ok(Arc::new(chain))
    }

    /// The objects with rows of the audit, of all sets from the last one on that has all rows. A row may be in
    /// several of them.
    pub(super) fn audit(&self) -> Vec<&Segment> {
        let has_all = |set: &Set| set.manifest.audit.as_ref().is_some_and(|a| a.since.is_none());
        let first = self.sets.iter().rposition(has_all).unwrap_or(0);
        let parts = self.sets.iter().skip(first).filter_map(|set| set.manifest.audit.as_ref());
        parts.flat_map(|audit| &audit.segments).collect()
    }

    /// The rows of one of them.
    ///
    /// # Errors
    /// `Corrupt`; those of the store.
    pub(super) async fn audit_rows(&self, segment: &Segment) -> Result<Vec<AuditRow>> {
        let wrong = |what: &str| {
            let place = self.place.describe();
            CatalogError::corrupt(format!("'{place}/{}': {what}", segment.name))
        };
        let bytes = self.place.segment(segment).await?;
        let (mut rows, mut at) = (Vec::new(), 0);
        while let Some((entry, _, next)) =
            entry_at(&bytes, at).map_err(|e| wrong(&e.to_string()))?
        {
            let Entry::Audit(row) = entry else {
                return Err(wrong("an entry is no row of the audit"));
            };
            row.entry.check().map_err(|e| wrong(&format!("row {}: {e}", row.id)))?;
            rows.push(row);
            at = next;
        }
        Ok(rows)
    }

    /// The registry as the newest set has it; none if it has none.
    ///
    /// # Errors
    /// `Corrupt`; those of the store.
    pub(super) async fn registry(&self) -> Result<Option<Registry>> {
        let Some(set) = self.sets.last() else { return Ok(None) };
        let Some(part) = &set.manifest.registry else { return Ok(None) };
        let mut records = Vec::new();
        for segment in &part.segments {
            let wrong = |what: &str| {
                let place = self.place.describe();
                CatalogError::corrupt(format!("'{place}/{}': {what}", segment.name))
            };
            let bytes = self.place.segment(segment).await?;
            let mut at = 0;
            while let Some((entry, _, next)) =
                entry_at(&bytes, at).map_err(|e| wrong(&e.to_string()))?
            {
                let Entry::Record(record) = entry else {
                    return Err(wrong("an entry is no record of the registry"));
                };
                records.push(record);
                at = next;
            }
        }
        let wrong = |what: String| {
            let place = self.place.describe();
            CatalogError::corrupt(format!("the registry of set {} in '{place}': {what}", set.id()))
        };
        let counted = set.manifest.counts.registry;
        if u64::try_from(records.len()) != Ok(counted) {
            let found = records.len();
            return Err(wrong(format!("it has {found} records, its manifest says {counted}")));
        }
        Record::check(&records, part.revision).map_err(|error| wrong(error.to_string()))?;
        Ok(Some(Registry { revision: part.revision, records }))
    }

    /// Tables of the newest set, by id.
    pub(super) fn known(&self) -> Known {
        self.tables.iter().map(|table| (table.record.id, Arc::clone(table))).collect()
    }

    async fn segment(&self, set: usize, number: usize) -> Result<Bytes> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept().iter().find(|(s, n, _)| (*s, *n) == (set, number)).cloned();
        if let Some((_, _, bytes)) = found {
            return Ok(bytes);
        }
        let segment = self.sets.get(set).and_then(|set| set.manifest.segments.get(number));
        let Some(segment) = segment else {
            return Err(self.wrong(set, number, "the manifest does not have it"));
        };
        let bytes = self.place.segment(segment).await?;
        let mut kept = kept();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((set, number, bytes.clone()));
        Ok(bytes)
    }

    fn entry(
        &self,
        set: usize,
        number: usize,
        segment: &Bytes,
        at: usize,
    ) -> Result<Option<(Entry, Bytes, usize)>> {
        entry_at(segment, at).map_err(|e| self.wrong(set, number, &e.to_string()))
    }

    fn wrong(&self, set: usize, number: usize, what: &str) -> CatalogError {
        let name = self.sets.get(set).map(|set| set.id().segment(number)).unwrap_or_default();
        CatalogError::corrupt(format!("'{}/{name}': {what}", self.place.describe()))
    }

    /// The parts of a table, the oldest one first.
    fn parts(&self, record: &TableRecord) -> Result<Vec<Part>> {
        let corrupt = |what: String| {
            CatalogError::corrupt(format!(
                "backup of table '{}' ({}): {what}",
                record.name, record.id
            ))
        };
        let mut parts: Vec<Part> = Vec::new();
        for set in self.parts.iter().rev() {
            let Some(part) = set.get(&record.id) else { break };
            if let Some(later) = parts.last()
                && later.after != part.head
            {
                return Err(corrupt("a set does not end where the next one goes on".to_owned()));
            }
            parts.push(*part);
            if part.after.is_none() {
                parts.reverse();
                return Ok(parts);
            }
        }
        Err(corrupt("the set with its beginning does not have it".to_owned()))
    }

    /// A table, up to a version.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(super) fn table(
        self: &Arc<Self>,
        record: &TableRecord,
        from_json: bool,
        limits: Limits,
    ) -> Result<Stored> {
        let head = record.head.ok_or_else(|| {
            CatalogError::corrupt(format!("table '{}' of the backup has no version", record.name))
        })?;
        Ok(Stored {
            chain: Arc::clone(self),
            id: record.id,
            label: format!("table '{}' ({}) of the backup", record.name, record.id),
            parts: self.parts(record)?.into(),
            base: record.base_version,
            head,
            from_json,
            limits,
        })
    }
}

/// A table of a backup.
#[derive(Clone)]
pub(super) struct Stored {
    chain: Arc<Chain>,
    id: TableId,
    label: String,
    parts: Arc<[Part]>,
    base: Version,
    head: Version,
    from_json: bool,
    limits: Limits,
}

/// What comes next of a table.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(super) enum Item {
    Commit(CommitRecord, Text),
    BaseRecord(CommitRecord),
    File(Add),
    Tombstone(Remove),
    BaseEnd(BaseTail),
}

/// Reads a table's parts in their order.
pub(super) struct Walk<'s> {
    of: &'s Stored,
    parts: VecDeque<Part>,
    /// Set, segment, its bytes, position, entries of the part so far.
    at: Option<(usize, usize, Bytes, usize, u64)>,
    last: Option<Version>,
    state: Option<Box<(Protocol, Metadata)>>,
}

impl Stored {
    /// From the first part that has anything after a version.
    pub(super) fn walk(&self, stored: Option<Version>) -> Walk<'_> {
        let skip = |part: &Part| stored.is_some_and(|stored| part.head <= Some(stored));
        let parts: VecDeque<Part> = self.parts.iter().copied().skip_while(skip).collect();
        let last = parts.front().map_or(stored, |part| part.after);
        Walk { of: self, parts, at: None, last, state: None }
    }

    /// Whether a commit is history only: the state begins after it.
    pub(super) fn is_history(&self, version: Version) -> bool {
        !self.from_json && version <= self.base
    }

    fn corrupt(&self, what: &str) -> CatalogError {
        CatalogError::corrupt(format!("{}: {what}", self.label))
    }

    /// A commit as an import wants it, with what version 0 may lack.
    fn imported(
        label: &str,
        (record, text): (CommitRecord, Text),
        state: Option<&(Protocol, Metadata)>,
    ) -> Result<ImportedCommit> {
        let (protocol, metadata) = (record.changes_protocol, record.changes_metadata);
        let mut commit = imported(label, record, text.into_body()?)?;
        if let Some(state) = state.filter(|_| commit.version == Version::ZERO) {
            if protocol {
                commit.index.protocol.get_or_insert_with(|| state.0.clone());
            }
            if metadata {
                commit.index.metadata.get_or_insert_with(|| state.1.clone());
            }
        }
        Ok(commit)
    }

    /// Commits as an import wants them.
    pub(super) async fn parsed(
        &self,
        batch: Vec<(CommitRecord, Text)>,
        walk: &Walk<'_>,
    ) -> Result<Vec<ImportedCommit>> {
        let (label, state) = (self.label.clone(), walk.state.clone());
        tokio::task::spawn_blocking(move || {
            let parse = |commit| Stored::imported(&label, commit, state.as_deref());
            batch.into_iter().map(parse).collect()
        })
        .await
        .map_err(|e| broken_off(&e))?
    }
}

impl Walk<'_> {
    /// The next item up to the table's head; none at the end.
    ///
    /// # Errors
    /// `Corrupt`; those of the store.
    pub(super) async fn next(&mut self) -> Result<Option<Item>> {
        let of = self.of;
        loop {
            let Some((set, number, segment, at, entries)) = &mut self.at else {
                let Some(part) = self.parts.pop_front() else {
                    let complete = self.last.is_some_and(|last| last >= of.head);
                    if complete {
                        return Ok(None);
                    }
                    return Err(of.corrupt("commits are missing"));
                };
                let Some(start) = part.data else {
                    if part.head == part.after {
                        continue;
                    }
                    return Err(of.corrupt("a set lacks its commits"));
                };
                let segment = of.chain.segment(part.set, start.segment).await?;
                let found = of.chain.entry(part.set, start.segment, &segment, start.offset)?;
                let Some((Entry::Table(id), _, next)) = found else {
                    return Err(of.corrupt("it does not begin where its row says"));
                };
                if id != of.id {
                    return Err(of.corrupt("another table is where its row says"));
                }
                self.at = Some((part.set, start.segment, segment, next, 0));
                continue;
            };
            let Some((entry, bytes, next)) = of.chain.entry(*set, *number, segment, *at)? else {
                *number += 1;
                *segment = of.chain.segment(*set, *number).await?;
                *at = 0;
                continue;
            };
            *at = next;
            match entry {
                Entry::Commit(line) => {
                    *entries += 1;
                    let (record, text) = commit_of(line, bytes);
                    if record.version > of.head {
                        self.parts.clear();
                        self.at = None;
                        continue;
                    }
                    let applied = !of.is_history(record.version);
                    let expected = self.last.map_or(Version::ZERO, Version::next);
                    if record.table_id != of.id || applied && record.version != expected {
                        let what = format!("version {expected} is missing");
                        return Err(of.corrupt(&what));
                    }
                    if applied {
                        self.last = Some(record.version);
                    }
                    return Ok(Some(Item::Commit(record, text)));
                }
                Entry::BaseRecord(line) => {
                    return Ok(Some(Item::BaseRecord(commit_of(line, bytes).0)));
                }
                Entry::State { protocol, metadata } => {
                    self.state = Some(Box::new((protocol, metadata)));
                }
                Entry::File(add) => {
                    *entries += 1;
                    return Ok(Some(Item::File(add)));
                }
                Entry::Tombstone(remove) => {
                    *entries += 1;
                    return Ok(Some(Item::Tombstone(remove)));
                }
                Entry::BaseEnd(tail) => {
                    self.last = Some(of.base);
                    return Ok(Some(Item::BaseEnd(tail.into())));
                }
                Entry::End { entries: expected } => {
                    if *entries != expected {
                        return Err(of.corrupt("a part of it is shorter than it was written"));
                    }
                    self.at = None;
                }
                Entry::Table(_) | Entry::Row(_) | Entry::Audit(_) | Entry::Record(_) => {
                    return Err(of.corrupt("another table begins before its end"));
                }
            }
        }
    }
}

impl Stored {
    /// `Err(None)`: nobody listens.
    async fn steps(
        &self,
        at: &ImportProgress,
        to: &mpsc::Sender<Result<Step>>,
    ) -> Result<(), Option<CatalogError>> {
        let mut walk = self.walk(at.table.head);
        let mut batch: Vec<(CommitRecord, Text)> = Vec::new();
        let mut bytes = 0_u64;
        let mut sent = (at.base_files, at.base_tombstones);
        let mut chunk = BaseChunk::default();
        let (mut files, mut tombstones) = (0_u64, 0_u64);
        let most = self.limits.files.max(1);
        while let Some(item) = walk.next().await? {
            match item {
                Item::Commit(record, text) => {
                    let applied = !self.is_history(record.version);
                    let stored = if applied { at.table.head } else { at.history_through };
                    if stored.is_some_and(|stored| record.version <= stored) {
                        continue;
                    }
                    let size = text.len();
                    if batch.len() >= self.limits.commits.max(1)
                        || (!batch.is_empty() && bytes.saturating_add(size) > self.limits.bytes)
                    {
                        self.send_commits(&mut batch, &walk, to).await?;
                        bytes = 0;
                    }
                    bytes = bytes.saturating_add(size);
                    batch.push((record, text));
                    continue;
                }
                Item::BaseRecord(_) => continue,
                _ if at.base_done => continue,
                Item::File(add) => {
                    files += 1;
                    if files <= at.base_files {
                        continue;
                    }
                    bytes = bytes.saturating_add(text_of(&add));
                    chunk.files.push(add);
                }
                Item::Tombstone(remove) => {
                    tombstones += 1;
                    if tombstones <= at.base_tombstones {
                        continue;
                    }
                    chunk.tombstones.push(remove);
                }
                Item::BaseEnd(tail) => {
                    self.send_commits(&mut batch, &walk, to).await?;
                    let chunk = std::mem::take(&mut chunk);
                    send_base(&mut sent, chunk, Some(Box::new(tail)), to).await?;
                    bytes = 0;
                    continue;
                }
            }
            if !batch.is_empty() {
                self.send_commits(&mut batch, &walk, to).await?;
                bytes = 0;
            }
            if chunk.files.len() + chunk.tombstones.len() >= most || bytes >= self.limits.bytes {
                send_base(&mut sent, std::mem::take(&mut chunk), None, to).await?;
                bytes = 0;
            }
        }
        self.send_commits(&mut batch, &walk, to).await
    }

    async fn send_commits(
        &self,
        batch: &mut Vec<(CommitRecord, Text)>,
        walk: &Walk<'_>,
        to: &mpsc::Sender<Result<Step>>,
    ) -> Result<(), Option<CatalogError>> {
        if batch.is_empty() {
            return Ok(());
        }
        let commits = self.parsed(std::mem::take(batch), walk).await?;
        to.send(Ok(Step::Commits(commits))).await.map_err(|_| None)
    }
}

impl Steps for Stored {
    fn head(&self) -> Version {
        self.head
    }

    fn is_replayed(&self) -> bool {
        self.from_json
    }

    async fn send(self, at: ImportProgress, to: mpsc::Sender<Result<Step>>) {
        if let Err(Some(error)) = self.steps(&at, &to).await {
            // Nobody listens any more: then nobody wants to know.
            let _ = to.send(Err(error)).await;
        }
    }
}
