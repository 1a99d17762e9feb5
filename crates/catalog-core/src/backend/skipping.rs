//! The part that keeps skipping indexes. What their bytes mean only the engine knows.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{ReadResult, WriteResult};
use crate::ids::TableId;
use crate::model::{NewSkipSegment, SkipIndex, SkipPage};

/// Most pages that one [`SkipBackend::skip_pages`] asks for.
pub const MAX_SKIP_PAGES: usize = 500;

/// Keeps the segments and pages of tables' skipping indexes.
#[async_trait]
pub trait SkipBackend: Send + Sync {
    /// The segments of a table's skipping index, in the order of what they cover: all of one moment. A
    /// table that does not exist has none.
    ///
    /// 1. [`complete_to`](SkipIndex::complete_to) may be none. Else it was the head at that same moment, when
    ///    no row of a file came after the last segment.
    async fn skip_index(&self, table_id: TableId) -> ReadResult<SkipIndex>;

    /// Pages of a skipping index, in the order asked for, at most [`MAX_SKIP_PAGES`]; none for a page
    /// that is not there, as its segment was replaced.
    ///
    /// 1. A page never changes: two answers for one page are the same bytes, or none. Views that
    ///    remember pages may answer for a segment that was replaced.
    /// 2. As many pages as [`MAX_SKIP_PAGES`], of any size, come in one answer.
    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> ReadResult<Vec<Option<Bytes>>>;

    /// Takes segments away, with their pages, and puts one in their place; its id is the new
    /// generation. False, with nothing changed, unless `generation` is the table's.
    ///
    /// 1. Of calls with one generation, also at the same time, one is true.
    /// 2. All or nothing. It does not make a commit fail, or start again.
    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> WriteResult<bool>;
}
