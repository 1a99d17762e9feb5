//! Adds of commits that are too large to be in memory: read from the commit's own bytes, a page at a
//! time, by who stores them.

use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::action::{Action, Add, DeletionVector, FileKey, dv_id};
use crate::commit::{CommitBody, CommitIndex, Packed, ZSTD_LEVEL, parse_line};
use crate::error::{CatalogError, Result, WriteState};
use crate::lenient::{self, Found, Lenient, Oddities};
use crate::paths::relative_key;

/// Files in one page.
pub const PAGE: usize = 5_000;
/// Pages that wait for who asks, besides the one that is being read.
const AHEAD: usize = 1;
/// Bytes that are compressed at a time while a commit is read.
pub const BLOCK_BYTES: usize = 1 << 20;
/// Blocks that wait to be compressed.
pub const BLOCKS: usize = 4;

/// What adds of a commit of our own must be, which is looked at when their page is read.
pub trait AddRules: Debug + Send + Sync {
    /// Number of a line in what was handed over, of which lines were left out: those count too.
    fn number(&self, line: usize) -> usize;

    /// Whether the add in that line may be committed.
    fn check(&self, number: usize, add: &Add) -> Result<()>;
}

/// Gets the pages of a commit's adds when they are read for the first time.
pub trait PageWatcher: Debug + Send {
    /// The next page, in order.
    fn page(&mut self, files: &Arc<[Add]>);

    /// That was all. It is not called where reading broke off.
    fn complete(self: Box<Self>);
}

/// Adds of a commit that are not in memory. They come after those that are in its index, and have the
/// ordinals after theirs. No two are of one file, and none is of a file that the index adds.
#[derive(Debug, Clone)]
pub struct LaterAdds {
    origin: Arc<str>,
    text: Packed,
    files: usize,
    bytes: i64,
    page: usize,
    rules: Option<Arc<dyn AddRules>>,
    damaged: Arc<AtomicBool>,
    also: Arc<Mutex<Option<Box<dyn PageWatcher>>>>,
    odd: Arc<Mutex<Oddities>>,
}

impl PartialEq for LaterAdds {
    /// Equal if they are read from the same bytes.
    fn eq(&self, other: &Self) -> bool {
        (self.files, self.bytes, &self.text) == (other.files, other.bytes, &other.text)
    }
}

/// Pages of [`LaterAdds`], read on a thread of their own, ahead of who asks.
#[derive(Debug)]
pub struct AddPages {
    pages: mpsc::Receiver<Result<Option<Arc<[Add]>>>>,
}

impl LaterAdds {
    /// Adds of `files` files with `bytes` bytes, in a text that may have other lines.
    pub fn new(origin: &str, text: Packed, files: usize, bytes: i64, page: usize) -> Self {
        LaterAdds {
            origin: origin.into(),
            text,
            files,
            bytes,
            page: page.max(1),
            rules: None,
            damaged: Arc::default(),
            also: Arc::default(),
            odd: Arc::default(),
        }
    }

    /// The same, checked when they are read.
    pub fn with_rules(mut self, rules: Arc<dyn AddRules>) -> Self {
        self.rules = Some(rules);
        self
    }

    /// Number of files.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files
    }

    /// Sum of their sizes, bytes.
    #[must_use]
    pub fn bytes(&self) -> i64 {
        self.bytes
    }

    /// Whether a line was found that cannot be read: then an error of who stores them is one of the text.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// What is written in another way than the protocol's, once all pages were read.
    #[must_use]
    pub fn odd(&self) -> Oddities {
        self.odd.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the pages to a watcher, too, when they are read for the first time.
    pub fn watch(&self, watcher: impl PageWatcher + 'static) {
        *self.also.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(watcher));
    }

    /// Reads them, from the first one on.
    ///
    /// # Errors
    /// `Unavailable` if no thread can be started.
    pub fn pages(&self) -> Result<AddPages> {
        let (sender, pages) = mpsc::channel(AHEAD);
        let this = self.clone();
        let also = self.also.lock().unwrap_or_else(PoisonError::into_inner).take();
        let read = move || {
            let end = match this.read(&sender, also) {
                Ok(Some(())) => Ok(None),
                // Nobody asks any more.
                Ok(None) => return,
                Err(error) => {
                    this.damaged.store(true, Ordering::Release);
                    Err(error)
                }
            };
            let _ = sender.blocking_send(end);
        };
        thread::Builder::new().name("deltalakedb-adds".to_owned()).spawn(read).map_err(|e| {
            CatalogError::failed(
                format!("no thread can be started to read {}: {e}", self.origin),
                WriteState::NotApplied,
            )
        })?;
        Ok(AddPages { pages })
    }

    /// All of them.
    ///
    /// # Errors
    /// Those of [`AddPages::next`].
    pub async fn all(&self) -> Result<Vec<Add>> {
        let mut all = Vec::with_capacity(self.files);
        let mut pages = self.pages()?;
        while let Some(page) = pages.next().await? {
            all.extend_from_slice(&page);
        }
        Ok(all)
    }

    /// None inside: who asked has gone.
    fn read(
        &self,
        to: &mpsc::Sender<Result<Option<Arc<[Add]>>>>,
        mut also: Option<Box<dyn PageWatcher>>,
    ) -> Result<Option<()>> {
        let mut lines = Lines::new(&self.origin, unpacked(&self.origin, &self.text)?);
        let (mut files, mut odd) = (0, Oddities::default());
        let mut text = Vec::new();
        let mut page = Vec::with_capacity(self.page);
        loop {
            text.clear();
            let more = match lines.next(&mut text)? {
                Some((number, from)) => {
                    if let Some(rules) = &self.rules {
                        let number = rules.number(number);
                        let line = lines.line(&text, from)?;
                        if let Action::Add(add) = parse_line(&self.origin, number, line)? {
                            rules.check(number, &add)?;
                            page.push(add);
                            files += 1;
                        }
                    } else {
                        let (found, mut noted) = lines.actions(number, from, &mut text)?;
                        let before = files;
                        for found in found {
                            if let Action::Add(add) = found.action {
                                page.push(add);
                                files += 1;
                            }
                        }
                        if files > before {
                            odd.note_all(&mut noted, number);
                        }
                    }
                    true
                }
                None => false,
            };
            if page.len() >= self.page || (!more && !page.is_empty()) {
                let full: Arc<[Add]> =
                    std::mem::replace(&mut page, Vec::with_capacity(self.page)).into();
                if let Some(also) = &mut also {
                    also.page(&full);
                }
                if to.blocking_send(Ok(Some(full))).is_err() {
                    return Ok(None);
                }
            }
            if !more {
                break;
            }
        }
        if files != self.files {
            return Err(CatalogError::corrupt(format!(
                "{} adds {files} files, {} were counted",
                self.origin, self.files
            )));
        }
        if let Some(also) = also {
            also.complete();
        }
        *self.odd.lock().unwrap_or_else(PoisonError::into_inner) = odd;
        Ok(Some(()))
    }
}

impl AddPages {
    /// The next page; none after the last one.
    ///
    /// # Errors
    /// `InvalidInput` with the line that is no action of the protocol, `Corrupt` if the bytes do not
    /// unpack to the files that were counted.
    pub async fn next(&mut self) -> Result<Option<Arc<[Add]>>> {
        self.pages.recv().await.unwrap_or_else(broken_off)
    }

    /// [`next`](Self::next) for threads that may wait; it panics inside of a runtime.
    ///
    /// # Errors
    /// The same.
    pub fn blocking_next(&mut self) -> Result<Option<Arc<[Add]>>> {
        self.pages.blocking_recv().unwrap_or_else(broken_off)
    }
}

/// That must not pass for the end.
pub fn broken_off<T>() -> Result<T> {
    Err(CatalogError::failed("reading a large commit broke off", WriteState::NotApplied))
}

/// A large commit, read.
#[derive(Debug)]
pub struct LargeCommit {
    /// What it says, but for files that it adds.
    pub index: CommitIndex,
    /// Its bytes, verbatim.
    pub body: CommitBody,
    /// The files.
    pub later: LaterAdds,
    /// Whether a file is added twice. Then `later` is not what it must be, and the commit has to be read
    /// as a whole.
    pub twice: bool,
}

/// Reads a commit of any length with little memory: 16 bytes a file, its bytes compressed, and what is not
/// an add. `origin` is put into errors.
///
/// # Errors
/// `InvalidInput` with origin and line number, as [`parse_ndjson`](crate::commit::parse_ndjson); what the
/// rest of an add's line has to be is looked at when its page is read. `Unavailable` if the text cannot be
/// read.
pub fn read_large(origin: &str, text: impl Read) -> Result<LargeCommit> {
    read_large_by(origin, text, PAGE)
}

/// [`read_large`] with pages of so many files.
///
/// # Errors
/// The same.
pub fn read_large_by(origin: &str, text: impl Read, page: usize) -> Result<LargeCommit> {
    let mut index = CommitIndex::default();
    let mut odd = Oddities::default();
    let (mut files, mut bytes) = (Vec::new(), 0_i64);
    let text = thread::scope(|scope| {
        let (blocks, waiting) = sync_channel::<Vec<u8>>(BLOCKS);
        let packing = scope.spawn(move || pack(waiting));
        let read = scan(origin, text, blocks, |lines, number, from, block| {
            if let Some(add) = AddKey::of(lines.line(block, from)?) {
                files.push(add.digest());
                bytes = bytes.saturating_add(add.size);
                return Ok(());
            }
            let (found, mut noted) = lines.actions(number, from, block)?;
            // What is odd of adds is noted when their page is read.
            if !found.iter().any(|found| matches!(found.action, Action::Add(_))) {
                odd.note_all(&mut noted, number);
            }
            let line = lines.line(block, from)?;
            for found in found {
                match found.action {
                    Action::Add(add) => {
                        files.push(add.key().digest());
                        bytes = bytes.saturating_add(add.size);
                    }
                    _ => index.take_found(line, found),
                }
            }
            Ok(())
        });
        let packed = packing.join().unwrap_or_else(|_| broken_off());
        // Why it ended is what is wrong.
        read.and(packed)
    })?;
    index.odd = odd;
    let number = files.len();
    files.sort_unstable();
    files.dedup();
    let later = LaterAdds::new(origin, text.clone(), number, bytes, page);
    let body = CommitBody { first_line: None, rest: text };
    Ok(LargeCommit { index, body, later, twice: files.len() < number })
}

/// [`read_large`] of a commit as a database has stored it.
///
/// # Errors
/// The same; `Corrupt` if its bytes do not unpack.
pub fn read_stored(origin: &str, body: &CommitBody) -> Result<LargeCommit> {
    let first = body.first_line.as_ref().map(|line| format!("{line}\n")).unwrap_or_default();
    read_large(origin, first.as_bytes().chain(unpacked(origin, &body.rest)?))
}

/// Text as it is unpacked.
fn unpacked<'t>(origin: &str, text: &'t Packed) -> Result<Box<dyn Read + 't>> {
    // Without text there is no frame either.
    if text.raw_len == 0 {
        return Ok(Box::new(std::io::empty()));
    }
    let decoder = zstd::stream::read::Decoder::new(&text.zstd[..]);
    let failed = |e| CatalogError::corrupt(format!("{origin} does not unpack: {e}"));
    Ok(Box::new(decoder.map_err(failed)?))
}

/// What tells files apart, of a line that is an add and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddLine<'l> {
    #[serde(borrow)]
    add: AddKey<'l>,
}

/// What is needed of an add to tell what its commit does, before its page is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddKey<'l> {
    #[serde(borrow)]
    path: std::borrow::Cow<'l, str>,
    /// `size`, bytes.
    pub size: i64,
    #[serde(default = "yes")]
    /// `dataChange`.
    pub data_change: bool,
    #[serde(default)]
    deletion_vector: Option<DeletionVector>,
}

fn yes() -> bool {
    true
}

impl<'l> AddKey<'l> {
    /// None if the line is anything else, or not written as adds mostly are.
    pub fn of(line: &'l str) -> Option<AddKey<'l>> {
        serde_json::from_str(line).ok().map(|AddLine { add }| add)
    }

    /// What tells the file apart within its commit, however its path is spelt.
    pub fn digest(&self) -> [u8; 16] {
        digest_within(&self.path, &dv_id(self.deletion_vector.as_ref()))
    }
}

/// [`FileKey::digest_of`] what the path means: two spellings of one file have one.
pub fn digest_within(path: &str, dv_id: &str) -> [u8; 16] {
    FileKey::digest_of(&relative_key(path), dv_id)
}

/// Looks at each line, by its number and where it begins, and hands all bytes on.
fn scan<R: Read>(
    origin: &str,
    text: R,
    blocks: SyncSender<Vec<u8>>,
    mut take: impl FnMut(&mut Lines<'_, R>, usize, usize, &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let mut lines = Lines::new(origin, text);
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    while let Some((number, from)) = lines.next(&mut block)? {
        take(&mut lines, number, from, &mut block)?;
        if block.len() >= BLOCK_BYTES {
            let full = std::mem::replace(&mut block, Vec::with_capacity(BLOCK_BYTES));
            if blocks.send(full).is_err() {
                // Why, it says itself.
                return Ok(());
            }
        }
    }
    let _ = blocks.send(block);
    Ok(())
}

/// Compresses blocks as they come.
pub fn pack(blocks: std::sync::mpsc::Receiver<Vec<u8>>) -> Result<Packed> {
    let failed = |e| CatalogError::invalid(format!("cannot compress a commit: {e}"));
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).map_err(failed)?;
    let mut raw_len = 0_u64;
    for block in blocks {
        raw_len = raw_len.saturating_add(block.len() as u64);
        encoder.write_all(&block).map_err(failed)?;
    }
    let zstd = encoder.finish().map_err(failed)?;
    Ok(Packed { zstd: if raw_len == 0 { Bytes::new() } else { zstd.into() }, raw_len })
}

/// Lines of a text that is read piece by piece.
struct Lines<'o, R> {
    origin: &'o str,
    reader: BufReader<R>,
    number: usize,
}

impl<'o, R: Read> Lines<'o, R> {
    fn new(origin: &'o str, text: R) -> Self {
        Lines { origin, reader: BufReader::with_capacity(BLOCK_BYTES, text), number: 0 }
    }

    /// The next line that is not blank: its number, from 1 on, and where it begins in `buffer`. The bytes
    /// read are put at the end of that, those of blank lines too.
    fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<(usize, usize)>> {
        loop {
            let from = buffer.len();
            if !self.more(buffer)? {
                return Ok(None);
            }
            if !self.line(buffer, from)?.trim().is_empty() {
                return Ok(Some((self.number, from)));
            }
        }
    }

    /// Puts one more line at the end of the buffer; false at the end of the text.
    fn more(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        let read = self.reader.read_until(b'\n', buffer).map_err(|e| {
            let text = format!("cannot read {}: {e}", self.origin);
            CatalogError::failed(text, WriteState::NotApplied)
        })?;
        self.number += usize::from(read > 0);
        Ok(read > 0)
    }

    /// What a line says that others wrote, with those after it that belong to it, and what is odd of it.
    fn actions(
        &mut self,
        number: usize,
        from: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(Vec<Found>, Vec<lenient::Oddity>)> {
        let mut odd = Vec::new();
        let refused = match Action::parse(self.line(buffer, from)?) {
            Ok(mut action) => {
                if let Action::Metadata(metadata) = &mut action {
                    lenient::complete(metadata, &mut odd);
                }
                return Ok((vec![Found { action, info: None }], odd));
            }
            Err(refused) => refused,
        };
        let mut lenient = Lenient::new(self.origin, number, &refused);
        loop {
            if let Some(found) = lenient.read(self.origin, self.line(buffer, from)?, &mut odd)? {
                return Ok((found, odd));
            }
            if !self.more(buffer)? {
                return Err(lenient.broken_off());
            }
        }
    }

    /// What was read from a position on, without its end of line.
    fn line<'b>(&self, buffer: &'b [u8], from: usize) -> Result<&'b str> {
        let line = buffer.get(from..).unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        std::str::from_utf8(line).map_err(|_| {
            let (origin, number) = (self.origin, self.number);
            CatalogError::invalid(format!("{origin}, line {number}: not UTF-8 text"))
        })
    }
}

#[cfg(test)]
#[path = "later_tests.rs"]
mod tests;
