//! From a predicate to the files that may match it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;

use super::MIN_FILES;
use super::format::{Block, BlockEntry, Directory, Root, RootColumn, decode};
use crate::predicate::Pruner;
use crate::predicate::facts::Facts;
use crate::retry::Retry;
use deltalakedb_catalog_core::backend::{CatalogBackend, MAX_FILES_AT, MAX_SKIP_PAGES};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, Version};
use deltalakedb_catalog_core::model::{
    FileCursor, FileRecord, SkipIndex, SkipPage, SkipSegment, Snapshot,
};

/// Rows per page of file lists.
const FILE_PAGE: usize = 10_000;
/// Segments that are asked together, and the files that these may have: what bounds memory.
const GROUP_SEGMENTS: usize = 64;
const GROUP_FILES: i64 = 1 << 20;
/// Where more than one of so many files may match, all of them are read, in order: reading single rows
/// costs more than reading the next one.
const SCAN_FROM: usize = 4;
/// A second column is asked as well, where it costs at most so many times what the best one costs.
const WORTH_ASKING: usize = 16;

/// Files of a snapshot that may match, in the order of their cursors.
pub(crate) fn files_matching(
    backend: Arc<dyn CatalogBackend>,
    retry: Retry,
    snapshot: &Snapshot,
    pruner: Pruner,
) -> BoxStream<'static, Result<FileRecord>> {
    let first = if snapshot.num_files < MIN_FILES || pruner.columns().is_empty() {
        Step::Scan { after: None, through: None }
    } else {
        Step::Index
    };
    walk(backend, retry, snapshot, pruner, first)
}

/// The files along the way that begins with this step.
pub(super) fn walk(
    backend: Arc<dyn CatalogBackend>,
    retry: Retry,
    snapshot: &Snapshot,
    pruner: Pruner,
    first: Step,
) -> BoxStream<'static, Result<FileRecord>> {
    let walk = Walk {
        backend,
        retry,
        table_id: snapshot.table.id,
        version: snapshot.version,
        pruner,
        steps: VecDeque::from([first]),
    };
    stream::try_unfold(walk, |mut walk| async move {
        let files = walk.next().await?;
        Ok::<_, deltalakedb_catalog_core::error::CatalogError>(
            files.map(|files| (stream::iter(files.into_iter().map(Ok)), walk)),
        )
    })
    .try_flatten()
    .boxed()
}

/// The way through a table's files.
struct Walk {
    backend: Arc<dyn CatalogBackend>,
    retry: Retry,
    table_id: TableId,
    version: Version,
    pruner: Pruner,
    steps: VecDeque<Step>,
}

/// A part of the way.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Look which segments there are.
    Index,
    /// Ask these, which follow each other.
    Segments(Vec<SkipSegment>),
    /// Look at each file after a cursor, up to and with another one.
    Scan { after: Option<FileCursor>, through: Option<FileCursor> },
    /// Look at these files.
    Files(Vec<FileCursor>),
}

/// The steps of a whole table.
fn steps(index: SkipIndex, version: Version) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    let mut position = None;
    let mut complete = index.complete_to.is_some_and(|known| known >= version);
    for segment in index.segments {
        if segment.after < position || Some(segment.through) <= segment.after {
            // They overlap: read while they were replaced, by a database that shows such moments.
            return VecDeque::from([Step::Scan { after: None, through: None }]);
        }
        if segment.after.is_some_and(|after| after.added_version > version) {
            complete = false;
            break;
        }
        if segment.after != position {
            // Nothing covers what lies between, for now.
            push(&mut steps, Step::Scan { after: position, through: segment.after });
        }
        position = Some(segment.through);
        // A segment holds the files of one version: of later ones too, as they were added before, but
        // not those that were gone by then.
        let step = if segment.version <= version {
            Step::Segments(vec![segment])
        } else {
            Step::Scan { after: segment.after, through: Some(segment.through) }
        };
        push(&mut steps, step);
    }
    if !complete || position.is_none() {
        push(&mut steps, Step::Scan { after: position, through: None });
    }
    steps
}

/// Adds a step at the end, or makes the last one longer.
fn push(steps: &mut VecDeque<Step>, step: Step) {
    match (steps.back_mut(), step) {
        (Some(Step::Scan { through, .. }), Step::Scan { through: end, .. }) => *through = end,
        (Some(Step::Segments(group)), Step::Segments(more))
            if group.len() < GROUP_SEGMENTS
                && group.iter().chain(&more).map(|s| s.files).sum::<i64>() <= GROUP_FILES =>
        {
            group.extend(more);
        }
        (Some(Step::Files(files)), Step::Files(more)) => files.extend(more),
        (_, step) => steps.push_back(step),
    }
}

impl Walk {
    /// The next files that may match, maybe none of a part of the way; none at its end.
    async fn next(&mut self) -> Result<Option<Vec<FileRecord>>> {
        let Some(step) = self.steps.pop_front() else { return Ok(None) };
        let (table_id, version) = (self.table_id, self.version);
        let backend = Arc::clone(&self.backend);
        let mut files = match step {
            Step::Index => {
                let index = self.retry.repeat(|| backend.skip_index(table_id)).await;
                let index = match index {
                    // A database that is busy does not get less so by reading the whole table.
                    Err(error) if error.is_retryable() => return Err(error),
                    // A replica of an older catalog, or a login that was granted less: what is there
                    // for speed only is done without.
                    Err(error) => {
                        tracing::warn!(%error, "planning without the skipping index");
                        SkipIndex::default()
                    }
                    Ok(index) => index,
                };
                self.steps = steps(index, version);
                return Ok(Some(Vec::new()));
            }
            Step::Segments(segments) => {
                for step in self.ask(segments).await?.into_iter().rev() {
                    self.steps.push_front(step);
                }
                return Ok(Some(Vec::new()));
            }
            Step::Scan { after, through } => {
                let page = self
                    .retry
                    .repeat(|| backend.list_files(table_id, version, after, FILE_PAGE))
                    .await?;
                let mut files = page.items;
                let beyond = |file: &FileRecord| through.is_some_and(|t| file.cursor > t);
                let past = files.last().is_some_and(beyond);
                files.retain(|file| !beyond(file));
                if let Some(next) = page.next.filter(|_| !past) {
                    self.steps.push_front(Step::Scan { after: Some(next), through });
                }
                files
            }
            Step::Files(mut cursors) => {
                let rest = cursors.split_off(cursors.len().min(MAX_FILES_AT));
                if !rest.is_empty() {
                    self.steps.push_front(Step::Files(rest));
                }
                self.retry.repeat(|| backend.files_at(table_id, version, &cursors)).await?
            }
        };
        files.retain(|file| self.pruner.may_match(&file.add));
        Ok(Some(files))
    }

    /// What these segments leave to be looked at.
    async fn ask(&self, segments: Vec<SkipSegment>) -> Result<VecDeque<Step>> {
        let mut asked: Vec<Asked<'_>> =
            segments.into_iter().map(|segment| Asked::new(&self.pruner, segment)).collect();
        let wanted = asked.iter().flat_map(Asked::directories).collect();
        let mut pages = self.pages(wanted).await?.into_iter();
        for segment in &mut asked {
            segment.read_directories(&mut pages);
        }
        let wanted = asked.iter().flat_map(Asked::blocks).collect();
        let mut pages = self.pages(wanted).await?.into_iter();
        let mut steps = VecDeque::new();
        for segment in asked {
            if let Some(step) = segment.answer(&mut pages) {
                push(&mut steps, step);
            }
        }
        Ok(steps)
    }

    async fn pages(&self, wanted: Vec<SkipPage>) -> Result<Vec<Option<Bytes>>> {
        let mut pages = Vec::with_capacity(wanted.len());
        for part in wanted.chunks(MAX_SKIP_PAGES) {
            let backend = &self.backend;
            let mut found = self.retry.repeat(|| backend.skip_pages(self.table_id, part)).await?;
            found.resize(part.len(), None);
            pages.append(&mut found);
        }
        Ok(pages)
    }
}

/// A segment that is asked: in turns, what it wants to read, and what it makes of it. Whatever is not
/// there or cannot be read makes it one that cannot answer.
struct Asked<'p> {
    pruner: &'p Pruner,
    segment: SkipSegment,
    state: State,
    /// What is known of all files, in the order of the predicate's columns.
    facts: Vec<Facts>,
}

enum State {
    /// No file matches.
    Nothing,
    /// Each file has to be looked at.
    Everything,
    /// Columns that may rule files out, each with its place in the predicate, and what is left of their
    /// blocks once the directories are read.
    Columns(Vec<Asking>),
}

struct Asking {
    place: usize,
    directory: Directory,
    blocks: Vec<BlockEntry>,
}

impl Asking {
    fn files(&self) -> usize {
        self.blocks.iter().map(|block| usize::try_from(block.files).unwrap_or(0)).sum()
    }
}

impl<'p> Asked<'p> {
    fn new(pruner: &'p Pruner, segment: SkipSegment) -> Self {
        let mut facts = vec![Facts::unknown(); pruner.columns().len()];
        let mut asking = Vec::new();
        let state = match decode::<Root>(&segment.root) {
            Ok(root) => {
                for RootColumn { column, facts: known, directory } in root.columns {
                    let place = pruner.columns().iter().position(|c| *c == column);
                    if let Some((place, fact)) = place.and_then(|p| Some((p, facts.get_mut(p)?))) {
                        *fact = known;
                        asking.push(Asking { place, directory, blocks: Vec::new() });
                    }
                }
                if !pruner.may_match_facts(&facts) {
                    State::Nothing
                } else if asking.is_empty() {
                    State::Everything
                } else {
                    State::Columns(asking)
                }
            }
            Err(error) => {
                tracing::warn!(segment = segment.id, %error, "skipping index");
                State::Everything
            }
        };
        Asked { pruner, segment, state, facts }
    }

    fn columns(&self) -> &[Asking] {
        match &self.state {
            State::Columns(columns) => columns,
            State::Nothing | State::Everything => &[],
        }
    }

    fn page(&self, page: u32) -> SkipPage {
        SkipPage { segment: self.segment.id, page }
    }

    fn directories(&self) -> impl Iterator<Item = SkipPage> {
        self.columns().iter().filter_map(|asking| match asking.directory {
            Directory::Page(page) => Some(self.page(page)),
            Directory::Here(_) => None,
        })
    }

    fn blocks(&self) -> impl Iterator<Item = SkipPage> {
        self.columns().iter().flat_map(|asking| asking.blocks.iter().map(|b| self.page(b.page)))
    }

    /// Those that may match, if this is known of one column in each of them, and of the others what is
    /// known of the whole segment.
    fn retain<T>(&self, place: usize, items: &mut Vec<T>, facts: impl Fn(&T) -> &Facts) {
        let mut all = self.facts.clone();
        items.retain(|item| {
            if let Some(one) = all.get_mut(place) {
                one.clone_from(facts(item));
            }
            self.pruner.may_match_facts(&all)
        });
    }

    /// Takes the pages of [`Asked::directories`], and decides which blocks are read.
    fn read_directories(&mut self, pages: &mut impl Iterator<Item = Option<Bytes>>) {
        let State::Columns(columns) = &mut self.state else { return };
        let columns = std::mem::take(columns);
        let mut left = Vec::with_capacity(columns.len());
        for mut asking in columns {
            let entries = match &mut asking.directory {
                Directory::Here(entries) => Some(std::mem::take(entries)),
                Directory::Page(_) => self.read(pages.next().flatten()),
            };
            if let Some(mut entries) = entries {
                self.retain(asking.place, &mut entries, |entry: &BlockEntry| &entry.facts);
                asking.blocks = entries;
                left.push(asking);
            }
        }
        let best = left.iter().map(Asking::files).min();
        left.retain(|asking| {
            best.is_some_and(|best| asking.files() <= best.saturating_mul(WORTH_ASKING))
        });
        self.state = match best {
            Some(0) => State::Nothing,
            Some(_) => State::Columns(left),
            None => State::Everything,
        };
    }

    /// Takes the pages of [`Asked::blocks`], and says what is left to look at.
    fn answer(self, pages: &mut impl Iterator<Item = Option<Bytes>>) -> Option<Step> {
        let everything =
            Step::Scan { after: self.segment.after, through: Some(self.segment.through) };
        let columns = match &self.state {
            State::Nothing => return None,
            State::Everything => return Some(everything),
            State::Columns(columns) => columns,
        };
        // All of its pages are taken in any case: the next segment's follow.
        let mut answers = Vec::with_capacity(columns.len());
        for asking in columns {
            let read: Vec<Option<Bytes>> = pages.take(asking.blocks.len()).collect();
            let mut cursors = Some(Vec::new());
            for page in read {
                let files = self.read(page).and_then(|block: Block| self.files(block));
                cursors = cursors.zip(files).map(|(mut cursors, mut files)| {
                    self.retain(asking.place, &mut files, |(_, facts)| facts);
                    cursors.extend(files.into_iter().map(|(cursor, _)| cursor));
                    cursors
                });
            }
            answers.extend(cursors);
        }
        let mut answers = answers.into_iter();
        let Some(mut files) = answers.next() else { return Some(everything) };
        for other in answers {
            let other: BTreeSet<FileCursor> = other.into_iter().collect();
            files.retain(|cursor| other.contains(cursor));
        }
        files.sort_unstable();
        let all = usize::try_from(self.segment.files).unwrap_or(usize::MAX);
        match files.len() {
            0 => None,
            some if some.saturating_mul(SCAN_FROM) > all => Some(everything),
            _ => Some(Step::Files(files)),
        }
    }

    fn files(&self, block: Block) -> Option<Vec<(FileCursor, Facts)>> {
        self.readable(block.files())
    }

    fn read<T: DeserializeOwned>(&self, page: Option<Bytes>) -> Option<T> {
        // A segment that was replaced meanwhile has no pages any more.
        self.readable(decode(&page?))
    }

    fn readable<T>(&self, read: Result<T>) -> Option<T> {
        read.inspect_err(
            |error| tracing::warn!(segment = self.segment.id, %error, "skipping index"),
        )
        .ok()
    }
}
