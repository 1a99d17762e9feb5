//! Keeping the index up: when it is extended, and what is made anew.

use bytes::Bytes;

use super::Limits;
use super::build::{Builder, Built};
use super::feed::Fed;
use super::format::{Root, decode};
use crate::predicate::Column;
use crate::retry::Retry;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, Version};
use deltalakedb_catalog_core::model::{FileCursor, NewSkipSegment, SkipSegment};
use deltalakedb_catalog_core::support::count;

/// So many segments of one size are made into one.
const FAN_OUT: usize = 8;
/// Rows a page while files are read.
const READ_PAGE: usize = 2_500;

/// What [`maintain`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Files in the segments that were written.
    pub files: u64,
    /// Segments that were written.
    pub segments: usize,
}

/// Brings the skipping index of a table up to date, if it is worth it: files that were added since are
/// put into a segment, with those of smaller segments before them, so that a table of N files has some
/// log N segments and each file is written some log N times.
///
/// It may run at any time, in any number of processes: of those that do the same work one wins, and
/// the others stop. Each segment is a transaction of its own. Memory is bounded, whatever the table.
///
/// # Errors
/// Those of the database. What was written by then is complete.
pub async fn maintain(
    backend: &dyn CatalogBackend,
    retry: &Retry,
    table_id: TableId,
) -> Result<Maintained> {
    maintain_within(backend, retry, table_id, Limits::default()).await
}

pub(super) async fn maintain_within(
    backend: &dyn CatalogBackend,
    retry: &Retry,
    table_id: TableId,
    limits: Limits,
) -> Result<Maintained> {
    let table = TableRef::Id(table_id);
    let head = retry.repeat(|| backend.snapshot(&table, At::Head)).await?;
    let index = retry.repeat(|| backend.skip_index(table_id)).await?;
    let mut done = Maintained::default();
    if head.num_files < limits.min_files && index.segments.is_empty() {
        return Ok(done);
    }
    let mut builder = Builder::new(Column::all(&head.metadata)?, limits);
    let covered = index.segments.last().map(|last| last.through);
    let tail = retry
        .repeat(|| backend.list_files(table_id, head.version, covered, limits.tail * FAN_OUT))
        .await?;
    let sizes = Sizes {
        segments: index.segments.iter().map(|s| u64::try_from(s.files).unwrap_or(0)).collect(),
        tail: tail.items.len(),
        more: tail.next.is_some(),
        live: head.num_files,
        capacity: builder.capacity(),
        unit: limits.tail,
    };
    let stale = index.segments.iter().position(|segment| !builder.understands(segment));
    let Some(first) = sizes.first_to_replace(stale) else { return Ok(done) };

    let (kept, replaced) = index.segments.split_at(first);
    let mut write = Write {
        backend,
        table_id,
        version: head.version,
        generation: index.generation,
        replaced: replaced.iter().map(|segment| segment.id).collect(),
        after: kept.last().map(|segment| segment.through),
    };
    let mut position = write.after;
    loop {
        let page = retry
            .repeat(|| backend.list_files(table_id, head.version, position, READ_PAGE))
            .await?;
        for file in &page.items {
            builder.add(file.cursor, &file.add);
            position = Some(file.cursor);
            if builder.is_full() && !write.segment(&mut builder, file.cursor, &mut done).await? {
                return Ok(done);
            }
        }
        if page.next.is_none() {
            break;
        }
    }
    if let Some(through) = position.filter(|_| builder.files() > 0) {
        write.segment(&mut builder, through, &mut done).await?;
    }
    Ok(done)
}

/// Takes over the index that was made while a table was imported, if there is none yet and if it is that
/// of the table as it is now.
///
/// # Errors
/// Those of the database. What was written by then is complete.
pub(crate) async fn adopt(
    backend: &dyn CatalogBackend,
    retry: &Retry,
    table_id: TableId,
    fed: Fed,
) -> Result<Maintained> {
    let limits = Limits::default();
    let table = TableRef::Id(table_id);
    let head = retry.repeat(|| backend.snapshot(&table, At::Head)).await?;
    let index = retry.repeat(|| backend.skip_index(table_id)).await?;
    let mut done = Maintained::default();
    let columns = Builder::new(Column::all(&head.metadata)?, limits);
    let wasted = fed.files > 2 * head.num_files + 8 * count_u64(limits.tail);
    let incomplete = fed.files < head.num_files;
    if head.num_files < limits.min_files
        || !index.segments.is_empty()
        || columns.columns() != fed.columns
        || wasted
        || incomplete
    {
        return Ok(done);
    }
    let mut write = Write {
        backend,
        table_id,
        version: head.version,
        generation: index.generation,
        replaced: Vec::new(),
        after: None,
    };
    for (built, through) in fed.segments {
        if !write.built(built, through, &mut done).await? {
            break;
        }
    }
    Ok(done)
}

/// Segments on their way into the database.
struct Write<'a> {
    backend: &'a dyn CatalogBackend,
    table_id: TableId,
    version: Version,
    generation: i64,
    /// The first one takes the place of all of these: what it does not cover itself is looked at file
    /// by file until the next one is there.
    replaced: Vec<i64>,
    after: Option<FileCursor>,
}

impl Write<'_> {
    /// False if somebody else has changed the index.
    async fn segment(
        &mut self,
        builder: &mut Builder,
        through: FileCursor,
        done: &mut Maintained,
    ) -> Result<bool> {
        let built = builder.finish().await?;
        self.built(built, through, done).await
    }

    async fn built(
        &mut self,
        built: Built,
        through: FileCursor,
        done: &mut Maintained,
    ) -> Result<bool> {
        let segment = NewSkipSegment {
            after: self.after,
            through,
            version: self.version,
            files: count(built.files),
            root: built.root.into(),
            pages: built.pages.into_iter().map(Bytes::from).collect(),
        };
        let generation = self.generation;
        // Not repeated: where the answer is lost, the next run finds out what there is.
        if !self.backend.skip_replace(self.table_id, generation, &self.replaced, &segment).await? {
            return Ok(false);
        }
        self.generation += 1;
        self.replaced.clear();
        self.after = Some(through);
        done.files += u64::try_from(built.files).unwrap_or(0);
        done.segments += 1;
        Ok(true)
    }
}

impl Builder {
    /// Whether a segment can answer for these columns: its format is known, and no column has another
    /// type by now.
    fn understands(&self, segment: &SkipSegment) -> bool {
        let Ok(root) = decode::<Root>(&segment.root) else { return false };
        root.columns.iter().all(|indexed| {
            let same = |column: &&Column| column.physical == indexed.column.physical;
            self.columns().iter().find(same).is_none_or(|column| *column == indexed.column)
        })
    }
}

/// Numbers of files that decide what is done.
#[derive(Debug)]
struct Sizes {
    segments: Vec<u64>,
    /// Files after the last segment, and whether there are more than that.
    tail: usize,
    more: bool,
    /// Files at the head.
    live: u64,
    /// Most in one segment.
    capacity: usize,
    /// Fewest in one segment.
    unit: usize,
}

impl Sizes {
    /// The first segment that is made anew, with all that follow; their number if files are only
    /// added. None if nothing is to be done.
    fn first_to_replace(&self, stale: Option<usize>) -> Option<usize> {
        let covered: u64 = self.segments.iter().sum();
        if covered > 2 * self.live + 8 * count_u64(self.unit) && self.live > 0 {
            // More than half of the files that it knows are gone.
            return Some(0);
        }
        if self.tail < self.unit {
            return stale;
        }
        let tier = |files: u64| (files / count_u64(self.unit)).max(1).ilog(8);
        let mut first = self.segments.len();
        let mut files = count_u64(self.tail);
        if self.more {
            files = files.max(self.live.saturating_sub(covered));
        }
        loop {
            let before = self.segments.get(..first).unwrap_or_default().iter().rev();
            let alike = before.take_while(|size| {
                tier(**size) <= tier(files) && **size < count_u64(self.capacity / 2)
            });
            let (number, sum) = alike.fold((0, 0), |(n, sum), size| (n + 1, sum + size));
            if number + 1 < FAN_OUT {
                break;
            }
            first -= number;
            files += sum;
        }
        Some(stale.map_or(first, |stale| stale.min(first)))
    }
}

fn count_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::INDEX_TAIL;
    use super::*;

    /// Adds `commits` of `files` each, and returns the sizes of the segments and how many files were
    /// written into one altogether.
    fn grown(commits: usize, files: usize, capacity: usize) -> (Vec<u64>, u64) {
        let mut sizes = Sizes {
            segments: Vec::new(),
            tail: 0,
            more: false,
            live: 0,
            capacity,
            unit: INDEX_TAIL,
        };
        let mut written = 0;
        for _ in 0..commits {
            sizes.tail += files;
            sizes.live += count_u64(files);
            if let Some(first) = sizes.first_to_replace(None) {
                let mut total = count_u64(sizes.tail) + sizes.segments.drain(first..).sum::<u64>();
                written += total;
                while total > 0 {
                    let size = total.min(count_u64(capacity));
                    sizes.segments.push(size);
                    total -= size;
                }
                sizes.tail = 0;
            }
        }
        (sizes.segments, written)
    }

    #[test]
    fn segments_stay_few_and_files_are_not_written_often() {
        for (commits, files) in [(100_000, 1), (10_000, 100), (1_000, 1_000), (10, 100_000)] {
            let (segments, written) = grown(commits, files, 1 << 17);
            let total: u64 = segments.iter().sum();
            assert!(segments.len() <= 40, "{commits} x {files}: {segments:?}");
            assert!(written <= 6 * count_u64(commits * files), "{commits} x {files}: {written}");
            assert!(total + count_u64(INDEX_TAIL) > count_u64(commits * files));
        }
    }

    #[test]
    fn full_segments_are_left_alone() {
        // Many columns: segments are small, and eight of them are no larger one.
        let (segments, written) = grown(1_000, 1_000, 16_384);
        assert!(segments.len() < 100, "{segments:?}");
        assert!(written < 6_000_000, "{written}");
    }

    #[test]
    fn an_index_of_files_that_are_gone_is_made_anew() {
        let mut sizes = Sizes {
            segments: vec![100_000, 1_000],
            tail: 0,
            more: false,
            live: 1_000,
            capacity: 1 << 17,
            unit: INDEX_TAIL,
        };
        assert_eq!(sizes.first_to_replace(None), Some(0));
        sizes.live = 90_000;
        assert_eq!(sizes.first_to_replace(None), None);
        assert_eq!(sizes.first_to_replace(Some(1)), Some(1), "its columns changed");
        sizes.tail = INDEX_TAIL;
        assert_eq!(sizes.first_to_replace(None), Some(2));
        assert_eq!(sizes.first_to_replace(Some(0)), Some(0));
    }
}
