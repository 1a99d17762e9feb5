//! A commit as bytes and as an index of those bytes.
//!
//! The bytes are the authority (they are what is stored and published); [`CommitIndex`] is the
//! projection that backends write into rows in the same transaction.

use std::cell::RefCell;

use bytes::Bytes;
use serde_json::value::RawValue;
use zstd::bulk::Compressor;

use crate::action::{Action, Add, CommitInfo, DomainMetadata, Metadata, Protocol, Remove, Txn};
use crate::error::{CatalogError, Result};
use crate::ids::TimestampMs;
use crate::lenient::{self, Found, Oddities, text_of};

/// Compression level of stored commit bytes: 3 is zstd's own default.
pub(crate) const ZSTD_LEVEL: i32 = 3;
/// A thread reads no less than this, bytes.
const PART_BYTES: usize = 4 << 20;
/// Refuses to unpack more than this from one stored body (a corrupt length must not exhaust memory).
const MAX_BODY_BYTES: usize = 8 << 30;

/// What the rows of one commit are made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommitIndex {
    /// Added files, in the order of the commit: the position is the row's `ordinal`.
    pub adds: Vec<Add>,
    /// Removed files.
    pub removes: Vec<Remove>,
    /// New metadata, if it changes.
    pub metadata: Option<Metadata>,
    /// New protocol, if it changes.
    pub protocol: Option<Protocol>,
    /// Application transactions, at most one per application.
    pub txns: Vec<Txn>,
    /// Domain metadata, at most one per domain.
    pub domain_metadata: Vec<DomainMetadata>,
    /// The object inside the `commitInfo` action, byte for byte.
    pub commit_info: Option<String>,
    /// Number of `cdc` files.
    pub num_cdc_files: u64,
    /// Names of actions that no one here knows.
    pub unknown_actions: Vec<String>,
    /// What is written in another way than the protocol's, in a log that others wrote.
    pub odd: Oddities,
}

impl CommitIndex {
    /// The known part of `commitInfo`; empty if there is none.
    #[must_use]
    pub fn info(&self) -> CommitInfo {
        self.commit_info.as_deref().map(lenient::commit_info).unwrap_or_default()
    }

    /// What the lines after these say.
    fn append(&mut self, later: CommitIndex) {
        let CommitIndex { adds, removes, metadata, protocol, txns, domain_metadata, .. } = later;
        self.adds.extend(adds);
        self.removes.extend(removes);
        self.metadata = metadata.or(self.metadata.take());
        self.protocol = protocol.or(self.protocol.take());
        self.txns.retain(|x| txns.iter().all(|t| x.app_id != t.app_id));
        self.txns.extend(txns);
        self.domain_metadata.retain(|x| domain_metadata.iter().all(|d| x.domain != d.domain));
        self.domain_metadata.extend(domain_metadata);
        self.commit_info = later.commit_info.or(self.commit_info.take());
        self.num_cdc_files += later.num_cdc_files;
        self.unknown_actions.extend(later.unknown_actions);
    }

    pub(crate) fn take(&mut self, line: ParsedLine<'_>) {
        self.take_found(line.text, Found { action: line.action, info: None });
    }

    /// Takes an action that stands in this text.
    pub(crate) fn take_found(&mut self, text: &str, found: Found) {
        match found.action {
            Action::Add(a) => self.adds.push(a),
            Action::Remove(r) => self.removes.push(r),
            Action::Cdc(_) => self.num_cdc_files += 1,
            Action::Metadata(m) => self.metadata = Some(m),
            Action::Protocol(p) => self.protocol = Some(p),
            Action::Txn(t) => {
                self.txns.retain(|x| x.app_id != t.app_id);
                self.txns.push(t);
            }
            Action::DomainMetadata(d) => {
                self.domain_metadata.retain(|x| x.domain != d.domain);
                self.domain_metadata.push(d);
            }
            Action::CommitInfo(_) => {
                self.commit_info =
                    found.info.or_else(|| commit_info_object(text).map(str::to_owned));
            }
            Action::Unknown(name) => self.unknown_actions.push(name),
            Action::Empty | Action::CheckpointMetadata(_) | Action::Sidecar(_) => {}
        }
    }

    /// Sum of `size` over the added files, bytes.
    #[must_use]
    pub fn added_bytes(&self) -> i64 {
        self.adds.iter().fold(0_i64, |sum, add| sum.saturating_add(add.size))
    }

    /// Whether any added or removed file changes rows.
    #[must_use]
    pub fn changes_data(&self) -> bool {
        self.adds.iter().any(|a| a.data_change) || self.removes.iter().any(|r| r.data_change)
    }

    /// Whether it adds or removes files, but no rows.
    #[must_use]
    pub fn only_rearranges(&self) -> bool {
        (!self.adds.is_empty() || !self.removes.is_empty()) && !self.changes_data()
    }
}

/// A line of NDJSON that was read, with where it stood.
#[derive(Debug)]
pub struct ParsedLine<'a> {
    /// 1-based line number.
    pub number: usize,
    /// The line without its newline, byte for byte.
    pub text: &'a str,
    /// What it says.
    pub action: Action,
}

/// Reads NDJSON of our own, which has to be the protocol's. Blank lines are skipped. `origin` is put into errors (a file name, "stdin", …).
///
/// # Errors
/// `InvalidInput` with origin and line number for bytes that are not UTF-8, lines that are not
/// JSON, or known actions of the wrong shape.
pub fn parse_ndjson<'a>(origin: &str, bytes: &'a [u8]) -> Result<Vec<ParsedLine<'a>>> {
    let mut out = Vec::new();
    each_line(origin, bytes, |line| out.push(line))?;
    Ok(out)
}

/// What a line says.
pub fn parse_line(origin: &str, number: usize, line: &str) -> Result<Action> {
    Action::parse(line).map_err(|e| CatalogError::invalid(format!("{origin}, line {number}: {e}")))
}

fn each_line<'a>(
    origin: &str,
    bytes: &'a [u8],
    mut take: impl FnMut(ParsedLine<'a>),
) -> Result<()> {
    let text = text_of(origin, bytes)?;
    for (i, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() {
            continue;
        }
        let action = parse_line(origin, i + 1, line)?;
        take(ParsedLine { number: i + 1, text: line, action });
    }
    Ok(())
}

/// All actions of a text that is in a log, whoever wrote it; what is odd of it is noted (see [`lenient`]).
///
/// # Errors
/// Those of [`parse_ndjson`].
pub fn read_ndjson(origin: &str, bytes: &[u8], odd: &mut Oddities) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    let text = text_of(origin, bytes)?;
    lenient::each_action(origin, text, odd, |line| actions.push(line.found.action))?;
    Ok(actions)
}

/// What the bytes of a commit say that is in a log, whoever wrote it: lines that established readers read
/// are read, and what the protocol does not say is noted (see [`lenient`]). No line is kept, and long texts
/// are read by several threads.
///
/// # Errors
/// Those of [`parse_ndjson`].
pub fn index_ndjson(origin: &str, bytes: &[u8]) -> Result<CommitIndex> {
    let most = bytes.len() / PART_BYTES;
    // The system opens files to answer that: not for each of many small commits.
    let threads = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    index_parts(origin, bytes, if most < 2 { 1 } else { most.min(threads()) })
}

fn index_parts(origin: &str, bytes: &[u8], parts: usize) -> Result<CommitIndex> {
    let whole = |bytes: &[u8]| {
        let text = text_of(origin, bytes)?;
        let (mut index, mut odd) = (CommitIndex::default(), Oddities::default());
        lenient::each_action(origin, text, &mut odd, |line| {
            index.take_found(line.text, line.found);
        })?;
        Ok(CommitIndex { odd, ..index })
    };
    if parts < 2 {
        return whole(bytes);
    }
    let mut rest = bytes;
    let mut pieces = Vec::with_capacity(parts);
    for left in (1..=parts).rev() {
        let about = rest.len() / left;
        let newline = rest[about..].iter().position(|byte| *byte == b'\n');
        let end = newline.filter(|_| left > 1).map_or(rest.len(), |at| about + at + 1);
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    let found: Vec<Option<CommitIndex>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            pieces.into_iter().map(|piece| scope.spawn(move || whole(piece).ok())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let mut index = CommitIndex::default();
    for part in found {
        match part {
            Some(part) if part.odd.is_empty() => index.append(part),
            // What is wrong or odd, and in which line, is found from the start.
            _ => return whole(bytes),
        }
    }
    Ok(index)
}

/// The text of the object inside a `{"commitInfo":{…}}` line.
#[must_use]
pub fn commit_info_object(line: &str) -> Option<&str> {
    let map: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(line).ok()?;
    map.get("commitInfo").map(|raw| raw.get())
}

/// Projects parsed lines. A file that is added twice in one commit stays twice in the index (the
/// last one wins in the rows); planning a commit of our own refuses such input.
#[must_use]
pub fn index_lines(lines: Vec<ParsedLine<'_>>) -> CommitIndex {
    let mut index = CommitIndex::default();
    for line in lines {
        index.take(line);
    }
    index
}

/// The first line of a commit of ours. Its text depends on the commit timestamp, which only the
/// database transaction knows: it is stored as parts that are joined by the decimal timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstLine {
    parts: Vec<String>,
}

impl FirstLine {
    /// A line that does not depend on the timestamp.
    #[must_use]
    pub fn fixed(line: impl Into<String>) -> Self {
        FirstLine { parts: vec![line.into()] }
    }

    /// A line made of parts with the timestamp between each two of them.
    #[must_use]
    pub fn with_parts(parts: Vec<String>) -> Self {
        FirstLine { parts }
    }

    /// The parts, for backends that join them in SQL.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.parts
    }

    /// The line for a commit at this time, without newline.
    #[must_use]
    pub fn render(&self, timestamp: TimestampMs) -> String {
        self.parts.join(&timestamp.to_string())
    }
}

/// zstd-compressed bytes and their length before compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// zstd frame; empty for no bytes.
    pub zstd: Bytes,
    /// Length before compression, bytes.
    pub raw_len: u64,
}

thread_local! {
    /// Small commits take longer to make one of these than to compress.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

fn compress(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(ZSTD_LEVEL)?),
        };
        compressor.compress(raw)
    })
}

impl Packed {
    /// Compresses.
    ///
    /// # Errors
    /// `InvalidInput` if zstd cannot allocate.
    pub fn pack(raw: &[u8]) -> Result<Packed> {
        if raw.is_empty() {
            return Ok(Packed { zstd: Bytes::new(), raw_len: 0 });
        }
        let zstd = compress(raw)
            .map_err(|e| CatalogError::invalid(format!("cannot compress a commit: {e}")))?;
        Ok(Packed { zstd: zstd.into(), raw_len: raw.len() as u64 })
    }

    /// Decompresses.
    ///
    /// # Errors
    /// `Corrupt` if the frame is damaged or has another length than recorded.
    pub fn unpack(&self) -> Result<Vec<u8>> {
        if self.raw_len == 0 && self.zstd.is_empty() {
            return Ok(Vec::new());
        }
        let len = usize::try_from(self.raw_len)
            .ok()
            .filter(|len| *len <= MAX_BODY_BYTES)
            .ok_or_else(|| CatalogError::corrupt("stored commit claims an impossible length"))?;
        let raw = zstd::bulk::decompress(&self.zstd, len)
            .map_err(|e| CatalogError::corrupt(format!("stored commit does not unpack: {e}")))?;
        if raw.len() == len {
            Ok(raw)
        } else {
            Err(CatalogError::corrupt(format!(
                "stored commit has {} bytes, {len} were recorded",
                raw.len()
            )))
        }
    }
}

/// The bytes of one ratified commit as a backend stores them.
///
/// Published bytes are `first_line` + `\n` + unpacked `rest`, or just `rest` where there is no
/// first line (imported commits, kept verbatim). They are a pure function of this value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitBody {
    /// Rendered first line, without newline.
    pub first_line: Option<String>,
    /// Everything after it.
    pub rest: Packed,
}

impl CommitBody {
    /// Bytes kept exactly as given.
    ///
    /// # Errors
    /// See [`Packed::pack`].
    pub fn verbatim(bytes: &[u8]) -> Result<CommitBody> {
        Ok(CommitBody { first_line: None, rest: Packed::pack(bytes)? })
    }

    /// What `_delta_log/N.json` contains.
    ///
    /// # Errors
    /// `Corrupt`, see [`Packed::unpack`].
    pub fn published(&self) -> Result<Bytes> {
        let rest = self.rest.unpack()?;
        match &self.first_line {
            None => Ok(rest.into()),
            Some(line) => {
                let mut out = Vec::with_capacity(line.len() + 1 + rest.len());
                out.extend_from_slice(line.as_bytes());
                out.push(b'\n');
                out.extend_from_slice(&rest);
                Ok(out.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbatim_bytes_come_back_exactly() {
        for raw in [&b""[..], b"{}", b"{\"a\":1}\r\n\n\n{\"b\":2}", "{\"é\":\"🚀\"}\n".as_bytes()]
        {
            let body = CommitBody::verbatim(raw).unwrap();
            assert_eq!(body.published().unwrap(), raw);
        }
    }

    #[test]
    fn several_threads_read_what_one_reads() {
        let line = |n: usize| match n % 9 {
            0 => "\r\n".to_owned(),
            1 => format!(r#"{{"txn":{{"appId":"a{}","version":{n}}}}}"#, n % 5),
            2 => format!(
                r#"{{"domainMetadata":{{"domain":"d{}","configuration":"{n}","removed":false}}}}"#,
                n % 7
            ),
            3 => format!(r#"{{"commitInfo":{{"n":{n}}}}}"#),
            4 => format!(r#"{{"new{n}":{{}}}}"#),
            5 => format!(
                r#"{{"metaData":{{"id":"{n}","schemaString":"{{}}","format":{{"provider":"p"}}}}}}"#
            ),
            6 => format!(r#"{{"protocol":{{"minReaderVersion":1,"minWriterVersion":{n}}}}}"#),
            7 => format!(r#"{{"remove":{{"path":"é{n}"}}}}"#),
            _ => format!(r#"{{"add":{{"path":"é{n}","size":1,"modificationTime":2}}}}"#),
        };
        let text: String = (0..400).map(|n| line(n) + "\n").collect();
        let want = index_lines(parse_ndjson("x", text.as_bytes()).unwrap());
        assert_eq!((want.adds.len(), want.txns.len(), want.domain_metadata.len()), (44, 5, 7));
        for parts in [0, 1, 2, 3, 7, 50, 1_000] {
            assert_eq!(index_parts("x", text.as_bytes(), parts).unwrap(), want, "{parts}");
            assert_eq!(index_parts("x", b"", parts).unwrap(), CommitIndex::default());
            assert_eq!(index_parts("x", b"{}", parts).unwrap(), CommitIndex::default());
        }
        for (line, want) in [("broken", "x, line 601: not a JSON"), ("\u{1}", "x, line 601: ")] {
            let lines: String = format!("{}{line}\n{}", "{}\n".repeat(600), "{}\n".repeat(99));
            for parts in [1, 4] {
                let error = index_parts("x", lines.as_bytes(), parts).unwrap_err().to_string();
                assert!(error.contains(want), "{error}");
            }
        }
    }

    #[test]
    fn a_first_line_is_rendered_with_its_timestamp() {
        let line = FirstLine::with_parts(vec!["{\"t\":".into(), ",\"u\":".into(), "}".into()]);
        assert_eq!(line.render(TimestampMs(7)), "{\"t\":7,\"u\":7}");
        assert_eq!(FirstLine::fixed("x").render(TimestampMs(7)), "x");
    }

    #[test]
    fn damaged_bodies_are_corrupt_not_garbage() {
        let mut packed = Packed::pack(&[b'x'; 1000]).unwrap();
        packed.raw_len = 999;
        assert!(matches!(packed.unpack(), Err(CatalogError::Corrupt(_))));
        packed.raw_len = u64::MAX;
        assert!(matches!(packed.unpack(), Err(CatalogError::Corrupt(_))));
    }

    #[test]
    fn errors_name_origin_and_line() {
        let e = parse_ndjson("c.json", b"{\"txn\":{\"appId\":\"a\",\"version\":1}}\n\nboom\n")
            .unwrap_err()
            .to_string();
        assert!(e.starts_with("c.json, line 3: "), "{e}");
        let e = parse_ndjson("c.json", b"{}\n\xff\xfe").unwrap_err().to_string();
        assert!(e.starts_with("c.json, line 2: not UTF-8"), "{e}");
    }
}
