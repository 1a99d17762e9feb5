//! Writes a set.

use std::sync::Arc;

use bytes::Bytes;
use deltalakedb_catalog_core::audit::AuditFilter;
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{At, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::TableRecord;
use deltalakedb_catalog_core::registry::Record;
use deltalakedb_catalog_core::secrets::check_options;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use futures::TryStreamExt;
use tokio::task::JoinHandle;

use super::format::{
    Counts, Entry, Segment, SegmentKind, Start, TableEntry, append, append_commit, base_record,
    compress, sha256,
};
use super::place::Place;
use super::set::SetId;
use crate::copy::source::{EVER, Source};
use crate::copy::{Limits, audit};

/// Bytes before compression after which a segment ends.
const SEGMENT_BYTES: usize = 16 << 20;
/// Commits read in one call.
const PAGE: usize = 500;

/// The objects of a set, as its manifest has them.
#[derive(Debug, Default)]
pub(super) struct Segments {
    pub(super) rest: Vec<Segment>,
    pub(super) audit: Vec<Segment>,
    pub(super) registry: Vec<Segment>,
}

/// A set at work.
pub(super) struct Writer {
    place: Place,
    set: SetId,
    raw: Vec<u8>,
    entries: u64,
    kind: SegmentKind,
    done: Vec<Segment>,
    /// The segment before, which is on its way.
    going: Option<JoinHandle<Result<Segment>>>,
    pub(super) counts: Counts,
    limit: usize,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(going) = &self.going {
            going.abort();
        }
    }
}

impl Writer {
    pub(super) fn new(place: &Place, set: &SetId, limit: Option<usize>) -> Writer {
        Writer {
            place: place.clone(),
            set: set.clone(),
            raw: Vec::new(),
            entries: 0,
            kind: SegmentKind::Data,
            done: Vec::new(),
            going: None,
            counts: Counts::default(),
            limit: limit.unwrap_or(SEGMENT_BYTES),
        }
    }

    fn number(&self) -> usize {
        self.done.len() + usize::from(self.going.is_some())
    }

    /// Where the next entry will stand.
    fn position(&self) -> Start {
        Start { segment: self.number(), offset: self.raw.len() }
    }

    async fn entry(&mut self, entry: &Entry) -> Result<()> {
        append(&mut self.raw, entry)?;
        self.grown().await
    }

    /// Sends the segment off once it is large.
    async fn grown(&mut self) -> Result<()> {
        self.entries += 1;
        if self.raw.len() >= self.limit { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        self.arrived().await?;
        if self.raw.is_empty() {
            return Ok(());
        }
        let raw = std::mem::take(&mut self.raw);
        let entries = std::mem::take(&mut self.entries);
        let (place, name, kind) = (self.place.clone(), self.set.segment(self.number()), self.kind);
        self.going = Some(tokio::spawn(async move {
            let raw_bytes = u64::try_from(raw.len()).unwrap_or(u64::MAX);
            let packed = tokio::task::spawn_blocking(move || {
                let object = compress(&raw)?;
                Ok::<_, CatalogError>((sha256(&object), Bytes::from(object)))
            });
            let (sha256, object) = packed.await.map_err(|e| broken_off(&e))??;
            let size_bytes = u64::try_from(object.len()).unwrap_or(u64::MAX);
            place.put(&name, object).await?;
            Ok(Segment { name, kind, entries, size_bytes, raw_bytes, sha256 })
        }));
        Ok(())
    }

    /// Waits for the segment that is on its way.
    async fn arrived(&mut self) -> Result<()> {
        if let Some(going) = &mut self.going {
            let segment = going.await.map_err(|e| broken_off(&e));
            self.going = None;
            self.done.push(segment??);
        }
        Ok(())
    }

    /// Writes what is new of a table.
    pub(super) async fn table(
        &mut self,
        catalog: &Catalog,
        record: &TableRecord,
        known: Option<&TableEntry>,
        progress: &dyn Progress,
    ) -> Result<TableEntry> {
        check_options(&record.storage_options).map_err(|e| {
            CatalogError::invalid(format!("table '{}' cannot be backed up: {e}", record.name))
        })?;
        self.counts.tables += 1;
        let known = match known {
            Some(known) if goes_on(catalog, record, known).await? => Some(known),
            _ => None,
        };
        let head = record.head.unwrap_or(Version::ZERO);
        if let Some(known) = known {
            let after = known.record.head;
            let mut entry = TableEntry {
                record: record.clone(),
                from_json: known.from_json,
                after,
                data: None,
            };
            let Some(next) = after.map(Version::next).filter(|next| *next <= head) else {
                return Ok(entry);
            };
            entry.data = Some(self.position());
            let begin = self.entries_of_table();
            self.entry(&Entry::Table(record.id)).await?;
            let source = Source::known(catalog, record, known.from_json)?;
            self.commits(&source, next, head, true, progress).await?;
            self.end(begin).await?;
            return Ok(entry);
        }
        let data = Some(self.position());
        let begin = self.entries_of_table();
        self.entry(&Entry::Table(record.id)).await?;
        let source = Source::open(catalog, record, Limits::default()).await?;
        if source.from_json {
            let table = TableRef::Id(record.id);
            let first = catalog.snapshot(&table, At::Version(Version::ZERO)).await?;
            let (protocol, metadata) = (first.protocol, first.metadata);
            self.entry(&Entry::State { protocol, metadata }).await?;
            self.commits(&source, Version::ZERO, head, true, progress).await?;
        } else {
            let base = record.base_version;
            self.commits(&source, Version::ZERO, base, false, progress).await?;
            self.base(catalog, record, &source).await?;
            if base < head {
                self.commits(&source, base.next(), head, true, progress).await?;
            }
        }
        self.end(begin).await?;
        Ok(TableEntry { record: record.clone(), from_json: source.from_json, after: None, data })
    }

    /// Entries of all segments so far.
    fn entries_of_table(&self) -> u64 {
        self.counts.commits + self.counts.files + self.counts.tombstones
    }

    async fn end(&mut self, begin: u64) -> Result<()> {
        let entries = self.entries_of_table() - begin;
        self.entry(&Entry::End { entries }).await
    }

    async fn commits(
        &mut self,
        source: &Source,
        from: Version,
        through: Version,
        without_gap: bool,
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut next = from;
        while next <= through {
            let page = source.bodies(next, through, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            let after = last.version.next();
            for (record, body) in page {
                if without_gap && record.version != next {
                    return Err(source.no_bytes(next));
                }
                next = record.version.next();
                append_commit(&mut self.raw, record, &body)?;
                self.counts.commits += 1;
                progress.advance(1);
                self.grown().await?;
            }
            next = after;
        }
        if without_gap && next <= through {
            return Err(source.no_bytes(next));
        }
        Ok(())
    }

    /// Writes the state below the first commit.
    async fn base(&mut self, catalog: &Catalog, of: &TableRecord, source: &Source) -> Result<()> {
        let (id, base) = (of.id, of.base_version);
        let filter = CommitFilter {
            from_version: Some(base),
            to_version: Some(base),
            ..CommitFilter::default()
        };
        let record = catalog.history(id, filter).try_next().await?;
        if let Some(record) = record.filter(|record| !record.has_body) {
            self.entry(&base_record(record)).await?;
        }
        let mut files = catalog.files(id, base);
        while let Some(file) = files.try_next().await? {
            self.counts.files += 1;
            self.entry(&Entry::File(file.add)).await?;
        }
        let mut tombstones = catalog.tombstones(id, base, EVER);
        while let Some(tombstone) = tombstones.try_next().await? {
            self.counts.tombstones += 1;
            self.entry(&Entry::Tombstone(tombstone.remove)).await?;
        }
        let tail = source.tail().await?;
        self.entry(&Entry::BaseEnd(tail.into())).await
    }

    /// Writes the rows of the tables.
    pub(super) async fn rows(&mut self, rows: Vec<TableEntry>) -> Result<()> {
        self.flush().await?;
        self.kind = SegmentKind::Tables;
        for row in rows {
            self.entry(&Entry::Row(row)).await?;
        }
        self.flush().await
    }

    /// Writes the rows of the audit from a time on.
    pub(super) async fn audit(
        &mut self,
        catalog: &Catalog,
        since: Option<TimestampMs>,
    ) -> Result<()> {
        self.flush().await?;
        self.kind = SegmentKind::Audit;
        let filter = AuditFilter { since, ..AuditFilter::default() };
        let mut rows = audit::Rows::new(catalog, filter);
        while let Some(page) = rows.next().await? {
            for row in page {
                self.counts.audit += 1;
                self.entry(&Entry::Audit(row)).await?;
            }
        }
        self.flush().await
    }

    /// Writes the records of the registry.
    pub(super) async fn registry(&mut self, records: Vec<Record>) -> Result<()> {
        self.flush().await?;
        self.kind = SegmentKind::Registry;
        for record in records {
            self.counts.registry += 1;
            self.entry(&Entry::Record(record)).await?;
        }
        self.flush().await
    }

    /// Waits for all segments.
    pub(super) async fn finish(&mut self) -> Result<Segments> {
        self.flush().await?;
        self.arrived().await?;
        let mut segments = Segments::default();
        for segment in std::mem::take(&mut self.done) {
            match segment.kind {
                SegmentKind::Data | SegmentKind::Tables => segments.rest.push(segment),
                SegmentKind::Audit => segments.audit.push(segment),
                SegmentKind::Registry => segments.registry.push(segment),
            }
        }
        Ok(segments)
    }
}

/// Whether a table is what the parent has, and maybe more.
async fn goes_on(catalog: &Catalog, record: &TableRecord, known: &TableEntry) -> Result<bool> {
    let before = &known.record;
    if record.base_version != before.base_version || record.head < before.head {
        return Ok(false);
    }
    if record.head == before.head {
        return Ok(record.head_timestamp == before.head_timestamp);
    }
    // The catalog may have been restored, and have gone another way since.
    let filter = CommitFilter {
        from_version: before.head,
        to_version: before.head,
        ..CommitFilter::default()
    };
    let commit = catalog.history(record.id, filter).try_next().await?;
    Ok(commit.map(|commit| commit.timestamp) == before.head_timestamp)
}

pub(super) fn broken_off(error: &tokio::task::JoinError) -> CatalogError {
    CatalogError::failed(
        format!("the work on a segment broke off: {error}"),
        WriteState::NotApplied,
    )
}

/// Rows by id, to go on from.
pub(super) type Known =
    std::collections::HashMap<deltalakedb_catalog_core::ids::TableId, Arc<TableEntry>>;
