//! The part that keeps skipping indexes. The newest segment's number is the generation. It is never said up to
//! which version an index is complete: that is an answer that the contract leaves free.

use deltalakedb_catalog_core::support::prelude::*;
use redb::ReadableTable;

use crate::RedbBackend;
use crate::store::{Key, ReadRows, Rows, Space, WriteRows};

/// The place of a segment's root among its pages.
const ROOT: i64 = -1;

/// What is stored of a segment: number, after, through, version, files.
type Stored = (i64, Option<FileCursor>, FileCursor, Version, i64);

fn page_key(id: TableId, segment: i64, page: i64) -> Key {
    Key::of(Space::SkipPage, id).number(segment).number(page)
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Rows<T> {
    fn segments(&self, id: TableId) -> Result<Vec<Stored>> {
        self.all(&Key::of(Space::SkipSegment, id))?.collect()
    }

    fn skip_index(&self, table_id: TableId) -> Result<SkipIndex> {
        let stored = self.segments(table_id)?;
        let mut index = SkipIndex { generation: generation(&stored), ..SkipIndex::default() };
        for (id, after, through, version, files) in stored {
            let root = self.bytes(&page_key(table_id, id, ROOT))?.unwrap_or_default().into();
            index.segments.push(SkipSegment { id, after, through, version, files, root });
        }
        index.segments.sort_by_key(|segment| segment.through);
        Ok(index)
    }
}

fn generation(segments: &[Stored]) -> i64 {
    segments.last().map_or(0, |(number, ..)| *number)
}

#[async_trait]
impl SkipBackend for RedbBackend {
    async fn skip_index(&self, table_id: TableId) -> ReadResult<SkipIndex> {
        Ok(self.read(move |rows| rows.skip_index(table_id)).await?)
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> ReadResult<Vec<Option<Bytes>>> {
        let pages = pages.to_vec();
        let read = move |rows: &ReadRows| {
            let keys = pages.iter().map(|p| page_key(table_id, p.segment, p.page.into()));
            keys.map(|key| Ok(rows.bytes(&key)?.map(Bytes::from))).collect()
        };
        Ok(self.read(read).await?)
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> WriteResult<bool> {
        let (remove, segment) = (remove.to_vec(), segment.clone());
        let replace = move |rows: &mut WriteRows<'_>| {
            if self::generation(&rows.segments(table_id)?) != generation {
                return Ok(false);
            }
            for old in remove {
                rows.delete_all(&Key::of(Space::SkipSegment, table_id).number(old))?;
                rows.delete_all(&Key::of(Space::SkipPage, table_id).number(old))?;
            }
            let id = generation.saturating_add(1);
            let NewSkipSegment { after, through, version, files, root, pages } = segment;
            let stored: Stored = (id, after, through, version, files);
            rows.put(&Key::of(Space::SkipSegment, table_id).number(id), &stored)?;
            for (page, bytes) in (ROOT..).zip([root].iter().chain(&pages)) {
                rows.put_bytes(&page_key(table_id, id, page), bytes)?;
            }
            Ok(true)
        };
        Ok(self.write(replace).await?)
    }
}
