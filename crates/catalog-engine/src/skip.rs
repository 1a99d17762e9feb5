//! The skipping index: which files of a table may match a predicate, without looking at each of them.
//!
//! A table's files, in the order of their cursors, are cut into *segments*. A segment holds for each
//! column what is known of it in each of its files ([`Facts`](crate::predicate)), sorted by value and
//! cut into *blocks*, with what is known of a whole block, of a column, and so on up. A predicate is
//! asked of these summaries first, with the rules that are asked of single files: what is ruled out for
//! a block is ruled out for each of its files. So a plan reads the index of segments, a directory and a
//! few blocks of each, and then the rows of the files that are left, which are asked once more.
//!
//! It is derived data, and never has to be complete. Files that no segment covers, above all the last
//! ones added, are looked at one by one, and so are those of a segment that cannot answer: one that is
//! newer than the snapshot asked for, whose columns have another type by now, or that was replaced
//! meanwhile. Segments never change; a new one replaces those that it is made of
//! ([`maintain`]), as the runs of a log-structured merge tree do.
//!
//! Databases only keep it: it is three tables of keys and bytes, the same everywhere.

mod build;
mod feed;
mod format;
mod maintain;
mod plan;

pub use feed::{Fed, Feed};
pub(crate) use maintain::adopt;
pub use maintain::{Maintained, maintain};
pub(crate) use plan::files_matching;

/// Files that no segment covers, before a segment is made of them: planning looks at each of them.
pub const INDEX_TAIL: usize = 128;
/// Tables with fewer files have no index: looking at all of them is as fast.
const MIN_FILES: u64 = 512;

/// Sizes of the index's parts: tests have small ones.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// See [`INDEX_TAIL`].
    tail: usize,
    /// See [`MIN_FILES`].
    min_files: u64,
    /// Files of one block.
    block_files: usize,
    /// So many blocks are listed in the root; more have a page of their own.
    inline_blocks: usize,
    /// Files in one segment.
    segment_files: usize,
    /// Files times columns in one segment: what bounds the memory of building it, some 100 bytes each.
    segment_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            tail: INDEX_TAIL,
            min_files: MIN_FILES,
            block_files: 512,
            inline_blocks: 4,
            segment_files: 1 << 17,
            segment_entries: 1 << 20,
        }
    }
}

#[cfg(test)]
mod tests;
