//! A commit as bytes and as an index of those bytes.
//!
//! The bytes are the authority (they are what is stored and published); [`CommitIndex`] is the
//! projection that backends write into rows in the same transaction.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::action::{Action, Add, CommitInfo, DomainMetadata, Metadata, Protocol, Remove, Txn};
use crate::error::{CatalogError, Result};
use crate::ids::TimestampMs;

/// Compression level of stored commit bytes: 3 is zstd's own default.
const ZSTD_LEVEL: i32 = 3;
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
}

impl CommitIndex {
    /// The known part of `commitInfo`; empty if there is none.
    #[must_use]
    pub fn info(&self) -> CommitInfo {
        self.commit_info
            .as_deref()
            .and_then(|raw| serde_json::from_str(raw).ok())
            .unwrap_or_default()
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

/// Reads NDJSON. Blank lines are skipped. `origin` is put into errors (a file name, "stdin", …).
///
/// # Errors
/// `InvalidInput` with origin and line number for bytes that are not UTF-8, lines that are not
/// JSON, or known actions of the wrong shape.
pub fn parse_ndjson<'a>(origin: &str, bytes: &'a [u8]) -> Result<Vec<ParsedLine<'a>>> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let before = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
        let line = before.matches('\n').count() + 1;
        CatalogError::invalid(format!("{origin}, line {line}: not UTF-8 text"))
    })?;
    let mut out = Vec::new();
    for (i, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() {
            continue;
        }
        let action = Action::parse(line)
            .map_err(|e| CatalogError::invalid(format!("{origin}, line {}: {e}", i + 1)))?;
        out.push(ParsedLine { number: i + 1, text: line, action });
    }
    Ok(out)
}

/// The text of the object inside a `{"commitInfo":{…}}` line.
#[must_use]
pub fn commit_info_object(line: &str) -> Option<&str> {
    let map: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(line).ok()?;
    map.get("commitInfo").map(|raw| raw.get())
}

/// Projects parsed lines. A file that is added twice in one commit stays twice in the index (the
/// last one wins in the rows); [`crate::plan`], for commits of our own, refuses such input.
#[must_use]
pub fn index_lines(lines: Vec<ParsedLine<'_>>) -> CommitIndex {
    let mut index = CommitIndex::default();
    for line in lines {
        match line.action {
            Action::Add(a) => index.adds.push(a),
            Action::Remove(r) => index.removes.push(r),
            Action::Cdc(_) => index.num_cdc_files += 1,
            Action::Metadata(m) => index.metadata = Some(m),
            Action::Protocol(p) => index.protocol = Some(p),
            Action::Txn(t) => {
                index.txns.retain(|x| x.app_id != t.app_id);
                index.txns.push(t);
            }
            Action::DomainMetadata(d) => {
                index.domain_metadata.retain(|x| x.domain != d.domain);
                index.domain_metadata.push(d);
            }
            Action::CommitInfo(_) => {
                index.commit_info = commit_info_object(line.text).map(str::to_owned);
            }
            Action::Unknown(name) => index.unknown_actions.push(name),
            Action::Empty | Action::CheckpointMetadata(_) | Action::Sidecar(_) => {}
        }
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

impl Packed {
    /// Compresses.
    ///
    /// # Errors
    /// `InvalidInput` if zstd cannot allocate.
    pub fn pack(raw: &[u8]) -> Result<Packed> {
        if raw.is_empty() {
            return Ok(Packed { zstd: Bytes::new(), raw_len: 0 });
        }
        let zstd = zstd::bulk::compress(raw, ZSTD_LEVEL)
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
