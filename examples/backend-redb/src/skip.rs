//! The part that keeps skipping indexes.

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::backend::SkipBackend;
use deltalakedb_catalog_core::error::{ReadResult, Result, WriteResult};
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::model::{
    FileCursor, NewSkipSegment, SkipIndex, SkipPage, SkipSegment,
};

use crate::RedbBackend;
use crate::store::{Entry, Key, ReadRows, Space, WriteRows};

/// The place of a segment's root among its pages.
const ROOT: i64 = -1;

fn page_key(id: TableId, segment: i64, page: i64) -> Key {
    Key::of(Space::SkipPage, id).number(segment).number(page)
}

/// What is stored of a segment: after, through, version, files.
type Stored = (Option<(Version, i64)>, (Version, i64), Version, i64);

fn segment(rows: &ReadRows, id: TableId, entry: &Entry) -> Result<SkipSegment> {
    let (after, through, version, files): Stored = entry.json()?;
    let cursor = |(added_version, ordinal)| FileCursor { added_version, ordinal };
    let number = entry.number()?;
    let root = rows.bytes(&page_key(id, number, ROOT))?.unwrap_or_default().into();
    let (after, through) = (after.map(cursor), cursor(through));
    Ok(SkipSegment { id: number, after, through, version, files, root })
}

#[async_trait]
impl SkipBackend for RedbBackend {
    async fn skip_index(&self, table_id: TableId) -> ReadResult<SkipIndex> {
        let read = move |rows: &ReadRows| {
            let generation = rows.get(&Key::of(Space::SkipIndex, table_id))?.unwrap_or(0);
            let found = rows.all(Key::of(Space::SkipSegment, table_id))?;
            let mut segments =
                found.map(|e| segment(rows, table_id, &e?)).collect::<Result<Vec<_>>>()?;
            segments.sort_by_key(|segment| segment.through);
            let mut complete_to = None;
            if let (Some(last), Some(table)) = (segments.last(), rows.table(table_id)?) {
                let files = Key::of(Space::File, table_id);
                let after = files.clone().cursor(last.through).after();
                let later = rows.scan(&after, &files.end())?.next().transpose()?;
                complete_to = table.record.head.filter(|_| later.is_none());
            }
            Ok(SkipIndex { generation, segments, complete_to })
        };
        Ok(self.read(read).await?)
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> ReadResult<Vec<Option<Bytes>>> {
        let keys: Vec<Key> =
            pages.iter().map(|p| page_key(table_id, p.segment, i64::from(p.page))).collect();
        let read = move |rows: &ReadRows| {
            keys.iter().map(|key| Ok(rows.bytes(key)?.map(Bytes::from))).collect()
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
            let current = Key::of(Space::SkipIndex, table_id);
            if rows.get(&current)?.unwrap_or(0) != generation {
                return Ok(false);
            }
            for old in remove {
                rows.delete(&Key::of(Space::SkipSegment, table_id).number(old))?;
                rows.delete_all(Key::of(Space::SkipPage, table_id).number(old))?;
            }
            let id = generation.saturating_add(1);
            rows.put(&current, &id)?;
            let pair = |cursor: FileCursor| (cursor.added_version, cursor.ordinal);
            let NewSkipSegment { after, through, version, files, root, pages } = segment;
            let stored: Stored = (after.map(pair), pair(through), version, files);
            rows.put(&Key::of(Space::SkipSegment, table_id).number(id), &stored)?;
            rows.put_bytes(&page_key(table_id, id, ROOT), &root)?;
            for (number, page) in (0..).zip(&pages) {
                rows.put_bytes(&page_key(table_id, id, number), page)?;
            }
            Ok(true)
        };
        Ok(self.write_if(|replaced| *replaced, replace).await?)
    }
}
