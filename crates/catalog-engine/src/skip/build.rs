//! From rows of files to a segment.

use std::cmp::Ordering;
use std::task::Poll;

use super::Limits;
use super::format::{Block, BlockEntry, Directory, Root, RootColumn, encode};
use crate::predicate::Column;
use crate::predicate::facts::{Facts, Stats, partition_facts, stats_facts};
use crate::predicate::value::Value;
use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::model::FileCursor;

/// Longest text that is kept of a bound, bytes.
const MAX_TEXT_BYTES: usize = 64;
/// Columns of statistics that are indexed, in the order of the schema: twice as many as writers give
/// statistics for unless told otherwise (`delta.dataSkippingNumIndexedCols`).
const MAX_STATS_COLUMNS: usize = 64;

/// Gathers files, in the order of their cursors.
#[derive(Debug)]
pub(super) struct Builder {
    limits: Limits,
    columns: Vec<Column>,
    /// One list a column.
    entries: Vec<Vec<(FileCursor, Facts)>>,
    files: usize,
}

/// The bytes of a segment.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) files: usize,
    pub(super) root: Vec<u8>,
    pub(super) pages: Vec<Vec<u8>>,
}

impl Builder {
    /// For a table's columns, as [`Column::all`] gives them.
    pub(super) fn new(mut columns: Vec<Column>, limits: Limits) -> Builder {
        let partitions = columns.iter().filter(|column| column.partition.is_some()).count();
        columns.truncate(partitions + MAX_STATS_COLUMNS);
        Builder { limits, entries: vec![Vec::new(); columns.len()], columns, files: 0 }
    }

    pub(super) fn add(&mut self, cursor: FileCursor, add: &Add) {
        let stats = add.stats.as_deref().and_then(Stats::parse);
        for (column, entries) in self.columns.iter().zip(&mut self.entries) {
            let facts = match (column.partition, &stats) {
                (Some(data_type), _) => partition_facts(add, column, data_type),
                (None, Some(stats)) => stats_facts(stats, &column.physical, column.kind),
                (None, None) => Facts::unknown(),
            };
            entries.push((cursor, shortened(facts)));
        }
        self.files += 1;
    }

    pub(super) fn files(&self) -> usize {
        self.files
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Most files in one segment.
    pub(super) fn capacity(&self) -> usize {
        let Limits { segment_files, segment_entries, .. } = self.limits;
        (segment_entries / self.columns.len().max(1)).min(segment_files)
    }

    /// Whether the segment is as large as one gets.
    pub(super) fn is_full(&self) -> bool {
        self.files >= self.capacity()
    }

    /// The segment; empty again afterwards.
    pub(super) async fn finish(&mut self) -> Result<Built> {
        let mut root = Root { columns: Vec::new() };
        let mut pages = Vec::new();
        for (column, entries) in self.columns.iter().zip(&mut self.entries) {
            let entries = std::mem::take(entries);
            if entries.iter().all(|(_, facts)| *facts == Facts::unknown()) {
                // Nothing is known of it in any file.
                continue;
            }
            let mut blocks: Vec<BlockEntry> = Vec::new();
            for block in cut(entries, self.limits.block_files) {
                let page = page_number(&pages);
                let files = u32::try_from(block.len()).unwrap_or(u32::MAX);
                let Some(facts) = joined(block.iter().map(|(_, facts)| facts)) else { continue };
                pages.push(encode(&Block::of(block))?);
                blocks.push(BlockEntry { page, files, facts });
                others_first().await;
            }
            let Some(facts) = joined(blocks.iter().map(|block| &block.facts)) else { continue };
            let directory = if blocks.len() <= self.limits.inline_blocks {
                Directory::Here(blocks)
            } else {
                let page = page_number(&pages);
                pages.push(encode(&blocks)?);
                Directory::Page(page)
            };
            root.columns.push(RootColumn { column: column.clone(), facts, directory });
        }
        let files = std::mem::take(&mut self.files);
        Ok(Built { files, root: encode(&root)?, pages })
    }
}

/// Lets other tasks of the thread go on: a large segment takes a while.
async fn others_first() {
    let mut waited = false;
    std::future::poll_fn(|context| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn page_number(pages: &[Vec<u8>]) -> u32 {
    u32::try_from(pages.len()).unwrap_or(u32::MAX)
}

fn joined<'f>(mut all: impl Iterator<Item = &'f Facts>) -> Option<Facts> {
    let mut joined = all.next()?.clone();
    all.for_each(|facts| joined.join(facts));
    Some(joined)
}

/// Long text is cut off: a shorter minimum is less, and a shorter maximum stands for all that starts
/// with it.
fn shortened(mut facts: Facts) -> Facts {
    let cut = |value: &mut Option<Value>| match value {
        Some(Value::Text(text)) if text.len() > MAX_TEXT_BYTES => {
            let whole = (0..=MAX_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(whole.unwrap_or(0));
            true
        }
        _ => false,
    };
    cut(&mut facts.lower);
    facts.upper_is_prefix |= cut(&mut facts.upper);
    facts
}

/// Cuts files into blocks of files that are alike: of a similar width, and then by value. A few files
/// that span much, among many that span little, would otherwise be in each block and make its bounds
/// as wide as theirs.
fn cut(mut files: Vec<(FileCursor, Facts)>, size: usize) -> Vec<Vec<(FileCursor, Facts)>> {
    let scale = Scale::of(&files);
    let by_value = |a: &Facts, b: &Facts| {
        let order = |a: &Option<Value>, b: &Option<Value>| match (a, b) {
            (Some(a), Some(b)) => a.order(b).unwrap_or(Ordering::Equal),
            (a, b) => a.is_some().cmp(&b.is_some()),
        };
        order(&a.lower, &b.lower).then_with(|| order(&a.upper, &b.upper))
    };
    if files.len() <= size {
        return vec![files];
    }
    files.sort_by_cached_key(|(_, facts)| scale.class(facts));
    let mut blocks = Vec::new();
    for class in files.chunk_by_mut(|(_, a), (_, b)| scale.class(a) == scale.class(b)) {
        class.sort_by(|(_, a), (_, b)| by_value(a, b));
        blocks.extend(class.chunks(size).map(<[_]>::to_vec));
    }
    blocks
}

/// What lies between the least and the greatest value of a column, to compare widths with.
#[derive(Debug)]
struct Scale {
    /// Of text: what all bounds start with.
    common: usize,
    width: f64,
}

impl Scale {
    /// Each class is eight times as wide as the one before.
    const CLASSES: u8 = 8;

    fn of(files: &[(FileCursor, Facts)]) -> Scale {
        let mut common: Option<&str> = None;
        for value in files.iter().flat_map(|(_, facts)| [&facts.lower, &facts.upper]) {
            if let Some(Value::Text(text)) = value {
                let before = common.unwrap_or(text);
                let same = before.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
                common = Some(before.get(..same).unwrap_or(""));
            }
        }
        let mut scale = Scale { common: common.map_or(0, str::len), width: 0.0 };
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for (_, facts) in files {
            if let (Some(lower), Some(upper)) = (&facts.lower, &facts.upper) {
                least = least.min(scale.position(lower));
                most = most.max(scale.position(upper));
            }
        }
        scale.width = most - least;
        scale
    }

    /// About where a value lies; only how files are sorted depends on it.
    #[allow(clippy::cast_precision_loss)]
    fn position(&self, value: &Value) -> f64 {
        match value {
            Value::Boolean(b) => f64::from(u8::from(*b)),
            Value::Exact(exact) => exact.digits as f64 * 10_f64.powi(-exact.scale),
            Value::Float(float) => *float,
            Value::Text(text) => {
                let rest = text.as_bytes().get(self.common..).unwrap_or_default();
                let digits = rest.iter().chain(std::iter::repeat(&0)).take(6);
                digits.fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte))
            }
            Value::Date(days) => *days as f64,
            Value::Timestamp(micros) => *micros as f64,
        }
    }

    fn class(&self, facts: &Facts) -> u8 {
        let (Some(lower), Some(upper)) = (&facts.lower, &facts.upper) else {
            // Null in all rows, or open to one side.
            return if facts.may_be_set { Self::CLASSES + 1 } else { 0 };
        };
        let share = (self.position(upper) - self.position(lower)) / self.width;
        let mut limit = 1.0 / 8.0;
        let mut class = Self::CLASSES;
        while class > 1 && (share.is_nan() || share < limit) {
            limit /= 8.0;
            class -= 1;
        }
        class
    }
}
