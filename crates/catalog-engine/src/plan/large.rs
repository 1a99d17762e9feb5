//! Commits of ours that are too large to have all of their rows in memory. What is kept of an add is 16 bytes;
//! its line is compressed, and read again, and checked, when its page is asked for.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use super::check::{Checker, OfAdds};
use deltalakedb_catalog_core::action::{Action, Add, FileKey};
use deltalakedb_catalog_core::commit::{CommitIndex, Packed, ParsedLine, parse_line};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::later::{
    AddKey, AddRules, BLOCK_BYTES, BLOCKS, LaterAdds, PAGE, broken_off, digest_within, pack,
};
use deltalakedb_catalog_core::lenient::text_of;

/// The adds of a commit, before it is known what table they go to, and the text that is stored.
#[derive(Debug)]
pub(super) struct Large {
    origin: Arc<str>,
    text: Packed,
    /// What tells the added files apart, in the order of their lines.
    files: Vec<[u8; 16]>,
    bytes: i64,
    changes_data: bool,
    left_out: LeftOut,
}

/// Lines that are not in the text that is stored: how many, before the line of that text with this
/// (1-based) number and those after it. Ascending.
#[derive(Debug, Default)]
struct LeftOut(Vec<(usize, usize)>);

impl LeftOut {
    fn note(&mut self, next: usize) {
        match self.0.last_mut() {
            Some((line, lines)) if *line == next => *lines += 1,
            last => {
                let before = last.map_or(0, |(_, lines)| *lines);
                self.0.push((next, before + 1));
            }
        }
    }

    /// Number of a stored line in what was handed over.
    fn original(&self, line: usize) -> usize {
        let after = self.0.partition_point(|(next, _)| *next <= line);
        let lines =
            after.checked_sub(1).and_then(|at| self.0.get(at)).map_or(0, |(_, lines)| *lines);
        line.saturating_add(lines)
    }
}

/// What adds must be, of a commit whose lines are numbered like this.
#[derive(Debug)]
struct Rules {
    origin: Arc<str>,
    of_adds: OfAdds,
    left_out: LeftOut,
}

impl AddRules for Rules {
    fn number(&self, line: usize) -> usize {
        self.left_out.original(line)
    }

    fn check(&self, number: usize, add: &Add) -> Result<()> {
        let mut check = Checker::new(&self.origin);
        check.line = number;
        check.add(add, &self.of_adds)
    }
}

/// Reads a commit: the lines that are no adds, and what is kept of the others.
///
/// # Errors
/// As [`parse_ndjson`](deltalakedb_catalog_core::commit::parse_ndjson), but what is wrong with an add is found when its page is
/// read.
pub(super) fn read<'t>(origin: &str, bytes: &'t [u8]) -> Result<(Vec<ParsedLine<'t>>, Large)> {
    let text = text_of(origin, bytes)?;
    let mut large = Large {
        origin: origin.into(),
        text: Packed::pack(&[])?,
        files: Vec::new(),
        bytes: 0,
        changes_data: false,
        left_out: LeftOut::default(),
    };
    let (lines, packed) = thread::scope(|scope| {
        let (blocks, waiting) = sync_channel(BLOCKS);
        let packing = scope.spawn(move || pack(waiting));
        let lines = large.scan(text, blocks);
        (lines, packing.join().unwrap_or_else(|_| broken_off()))
    });
    // Why it ended is what is wrong.
    let lines = lines?;
    large.text = packed?;
    Ok((lines, large))
}

impl Large {
    fn scan<'t>(
        &mut self,
        text: &'t str,
        blocks: SyncSender<Vec<u8>>,
    ) -> Result<Vec<ParsedLine<'t>>> {
        let origin = Arc::clone(&self.origin);
        let mut others = Vec::new();
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let mut stored = 0;
        for (number, line) in (1..).zip(text.split('\n')) {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.trim().is_empty() {
                self.left_out.note(stored + 1);
                continue;
            }
            if let Some(add) = AddKey::of(line) {
                self.add(add.digest(), add.size, add.data_change);
            } else {
                match parse_line(&origin, number, line)? {
                    Action::Add(add) => {
                        self.add(within(&add.key()), add.size, add.data_change);
                    }
                    action => {
                        let is_info = matches!(action, Action::CommitInfo(_));
                        others.push(ParsedLine { number, text: line, action });
                        if is_info {
                            self.left_out.note(stored + 1);
                            continue;
                        }
                    }
                }
            }
            stored += 1;
            block.extend_from_slice(line.as_bytes());
            block.push(b'\n');
            if block.len() >= BLOCK_BYTES {
                let full = std::mem::replace(&mut block, Vec::with_capacity(BLOCK_BYTES));
                if blocks.send(full).is_err() {
                    // Why, it says itself.
                    return Ok(others);
                }
            }
        }
        let _ = blocks.send(block);
        Ok(others)
    }

    fn add(&mut self, file: [u8; 16], size: i64, changes_data: bool) {
        self.files.push(file);
        self.bytes = self.bytes.saturating_add(size);
        self.changes_data |= changes_data;
    }

    pub(super) fn adds_files(&self) -> bool {
        !self.files.is_empty()
    }

    pub(super) fn changes_data(&self) -> bool {
        self.changes_data
    }

    /// The text that is stored, and its adds in pages.
    ///
    /// # Errors
    /// `InvalidInput` if two lines are about one file.
    pub(super) fn into_adds(
        mut self,
        bytes: &[u8],
        index: &CommitIndex,
        of_adds: OfAdds,
    ) -> Result<(Packed, LaterAdds)> {
        let number = self.files.len();
        self.files.extend(index.removes.iter().map(|remove| within(&remove.key())));
        let all = self.files.len();
        self.files.sort_unstable();
        self.files.dedup();
        if self.files.len() < all {
            self.find_again(bytes)?;
        }
        let later = LaterAdds::new(&self.origin, self.text.clone(), number, self.bytes, PAGE);
        let rules = Rules { origin: self.origin, of_adds, left_out: self.left_out };
        Ok((self.text, later.with_rules(Arc::new(rules))))
    }

    /// Says which file has an action twice. `self.files` is sorted, without repetitions.
    fn find_again(&self, bytes: &[u8]) -> Result<()> {
        let mut seen: Vec<u32> = vec![0; self.files.len()];
        let text = text_of(&self.origin, bytes)?;
        let mut check = Checker::new(&self.origin);
        for (number, line) in (1_u32..).zip(text.split('\n')) {
            let line = line.strip_suffix('\r').unwrap_or(line);
            let key: FileKey = match Action::parse(line) {
                Ok(Action::Add(add)) => add.key(),
                Ok(Action::Remove(remove)) => remove.key(),
                _ => continue,
            };
            let Ok(place) = self.files.binary_search(&within(&key)) else { continue };
            let Some(first) = seen.get_mut(place) else { continue };
            if *first > 0 {
                check.line = usize::try_from(number).unwrap_or(usize::MAX);
                return check.file_again(&key, usize::try_from(*first).unwrap_or(usize::MAX));
            }
            *first = number;
        }
        Ok(())
    }
}

/// What tells a file apart within its commit.
fn within(key: &FileKey) -> [u8; 16] {
    digest_within(&key.path, &key.dv_id)
}

#[cfg(test)]
#[path = "large_tests.rs"]
mod tests;
