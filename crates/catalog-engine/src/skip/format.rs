//! What the bytes of a segment hold: [postcard](https://postcard.jamesmunns.com/wire-format) in a
//! frame of zstd.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::predicate::Column;
use crate::predicate::facts::Facts;
use crate::predicate::value::Value;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::Version;
use deltalakedb_catalog_core::model::FileCursor;

/// Format of all that is here. Segments of another one are not understood, and made anew.
const FORMAT: u32 = 2;
/// Level of compression: pages are small, and read more often than written.
const LEVEL: i32 = 1;
/// Largest page before compression, bytes.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// The root of a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Root {
    pub(super) columns: Vec<RootColumn>,
}

/// A column of a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RootColumn {
    pub(super) column: Column,
    /// What is known of all files of the segment.
    pub(super) facts: Facts,
    pub(super) directory: Directory,
}

/// Where the blocks of a column are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Directory {
    /// Few: here.
    Here(Vec<BlockEntry>),
    /// Many: this page has the `Vec<BlockEntry>`.
    Page(u32),
}

/// A block of a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct BlockEntry {
    /// Its page.
    pub(super) page: u32,
    /// Number of files in it.
    pub(super) files: u32,
    /// What is known of all of them.
    pub(super) facts: Facts,
}

/// Files with what is known of one column, as lists of equal length: they compress better.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Block {
    versions: Vec<i64>,
    ordinals: Vec<i64>,
    lowers: Vec<Option<Value>>,
    uppers: Vec<Option<Value>>,
    flags: Vec<u8>,
}

const PREFIX: u8 = 1;
const NAN: u8 = 2;
const NULL: u8 = 4;
const SET: u8 = 8;

impl Block {
    /// Of these files.
    pub(super) fn of(files: Vec<(FileCursor, Facts)>) -> Block {
        let flags = |facts: &Facts| {
            [
                (facts.upper_is_prefix, PREFIX),
                (facts.nan, NAN),
                (facts.may_be_null, NULL),
                (facts.may_be_set, SET),
            ]
            .into_iter()
            .filter(|(set, _)| *set)
            .fold(0, |flags, (_, flag)| flags | flag)
        };
        let mut block = Block::default();
        for (cursor, facts) in files {
            block.versions.push(cursor.added_version.get());
            block.ordinals.push(cursor.ordinal);
            block.flags.push(flags(&facts));
            block.lowers.push(facts.lower);
            block.uppers.push(facts.upper);
        }
        block
    }

    /// The files again. Lists of unequal length, or versions that are none, are damage.
    pub(super) fn files(self) -> Result<Vec<(FileCursor, Facts)>> {
        let len = self.flags.len();
        let lengths =
            [self.versions.len(), self.ordinals.len(), self.lowers.len(), self.uppers.len()];
        if lengths.iter().any(|l| *l != len) {
            return Err(CatalogError::corrupt("a block of a skipping index has uneven lists"));
        }
        let cursors = self.versions.into_iter().zip(self.ordinals);
        let bounds = self.lowers.into_iter().zip(self.uppers);
        cursors
            .zip(bounds.zip(self.flags))
            .map(|((version, ordinal), ((lower, upper), flags))| {
                let cursor = FileCursor { added_version: Version::new(version)?, ordinal };
                let facts = Facts {
                    lower,
                    upper,
                    upper_is_prefix: flags & PREFIX != 0,
                    nan: flags & NAN != 0,
                    may_be_null: flags & NULL != 0,
                    may_be_set: flags & SET != 0,
                };
                Ok((cursor, facts))
            })
            .collect()
    }
}

/// To bytes.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| {
        CatalogError::invalid(format!("a page of a skipping index cannot be written: {e}"))
    };
    let raw = postcard::to_allocvec(&(FORMAT, value)).map_err(|e| failed(&e))?;
    zstd::bulk::compress(&raw, LEVEL).map_err(|e| failed(&e))
}

/// From bytes.
///
/// # Errors
/// `Corrupt` for anything but what [`encode`] writes, and for another format.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let failed = |e: &dyn std::fmt::Display| {
        CatalogError::corrupt(format!("a page of a skipping index cannot be read: {e}"))
    };
    let len = zstd::zstd_safe::get_frame_content_size(bytes)
        .ok()
        .flatten()
        .and_then(|len| usize::try_from(len).ok())
        .filter(|len| *len <= MAX_PAGE_BYTES)
        .ok_or_else(|| failed(&"its length is not known, or too large"))?;
    let raw = zstd::bulk::decompress(bytes, len).map_err(|e| failed(&e))?;
    let (format, rest) = postcard::take_from_bytes::<u32>(&raw).map_err(|e| failed(&e))?;
    if format != FORMAT {
        return Err(failed(&format_args!("it has format {format}, this program reads {FORMAT}")));
    }
    postcard::from_bytes(rest).map_err(|e| failed(&e))
}
