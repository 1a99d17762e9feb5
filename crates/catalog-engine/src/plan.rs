//! From a client's NDJSON to what a backend commits: validation, the first line, the index.
//!
//! Nothing here talks to a database. A plan depends on the table's protocol and metadata only, and
//! those cannot change under it: a commit that changes them conflicts with every other one.

mod check;
mod large;
pub(crate) mod target;

use std::sync::Arc;

use crate::conflict::Reads;
use crate::features;
use crate::fence;
use check::{Checker, OfAdds};
use deltalakedb_catalog_core::action::{Action, Metadata, Protocol};
use deltalakedb_catalog_core::commit::{CommitIndex, FirstLine, Packed, index_lines, parse_ndjson};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::fields::Fields;
use deltalakedb_catalog_core::ids::CommitToken;
use deltalakedb_catalog_core::later::LaterAdds;
use large::Large;

pub use target::{PlanBase, PlanTarget};

/// Longest path of a file, in bytes.
pub const MAX_PATH_BYTES: usize = 16 * 1024;
/// What we write into `commitInfo.engineInfo`.
pub const ENGINE_INFO: &str = concat!("deltalakedb/", env!("CARGO_PKG_VERSION"));

/// A validated commit to one table.
#[derive(Debug, Clone)]
pub struct Plan {
    /// First line of the file to be.
    pub first_line: FirstLine,
    /// The other lines, byte for byte as given but for `protocol` and `metaData`.
    pub rest: Packed,
    /// Their index.
    pub index: Arc<CommitIndex>,
    /// The adds, of a commit that is too large to have all of its rows in memory: none are in the index
    /// then.
    pub later: Option<LaterAdds>,
    /// Whether it adds or removes files, but no rows.
    pub only_rearranges: bool,
    /// Whether it only adds files and read nothing: it may go on top of any head.
    pub blind_append: bool,
    /// Whether it holds for [`PlanBase::next_version`] and [`PlanBase::next_timestamp`] only: on
    /// another head it is planned anew.
    pub exact: bool,
}

impl Plan {
    /// Number of files that it adds.
    #[must_use]
    pub fn num_added(&self) -> usize {
        self.index.adds.len() + self.later.as_ref().map_or(0, LaterAdds::files)
    }
}

/// From so many bytes on, a commit's adds are not held in memory but read from its compressed text, a page at
/// a time. What is wrong with one of them is then found while its page is read, inside of the database's
/// transaction, which writes nothing.
pub const LARGE_BYTES: usize = 32 << 20;

/// What the `commitInfo` says of a commit whose client gives none.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// `operation`.
    pub name: &'a str,
    /// `operationParameters`; none = an empty object.
    pub parameters: Option<&'a serde_json::Value>,
}

/// Validates a client's commit and makes its plan.
///
/// `protocol` and `metaData` lines get what the catalog keeps up for all writers: the fence, and
/// in-commit timestamps (see [`crate::fence`]). All other lines keep their bytes. `origin` names the source of the bytes in errors. `operation` is
/// used where the client gives no `commitInfo`.
///
/// # Errors
/// `InvalidInput` with origin and line; `Unsupported` for features we do not know.
pub fn plan(
    origin: &str,
    ndjson: &[u8],
    target: PlanTarget<'_>,
    reads: &Reads,
    operation: Option<Operation<'_>>,
    token: &CommitToken,
) -> Result<Plan> {
    plan_by(LARGE_BYTES, origin, ndjson, target, reads, operation, token)
}

fn plan_by(
    large_bytes: usize,
    origin: &str,
    ndjson: &[u8],
    target: PlanTarget<'_>,
    reads: &Reads,
    operation: Option<Operation<'_>>,
    token: &CommitToken,
) -> Result<Plan> {
    let base = match target {
        PlanTarget::New { .. } => None,
        PlanTarget::On(base) => Some(base),
    };
    let fence::Dressed { ndjson, enables_ict } = fence::dress(origin, ndjson, &target)?;
    let (lines, large) = if ndjson.len() < large_bytes {
        (parse_ndjson(origin, &ndjson)?, None)
    } else {
        let (lines, large) = large::read(origin, &ndjson)?;
        (lines, Some(large))
    };
    let mut check = Checker::new(origin);
    let mut rest = Vec::with_capacity(if large.is_some() { 0 } else { ndjson.len() + 1 });
    let mut info_line: Option<&str> = None;
    let mut metadata: Option<&Metadata> = None;
    let mut protocol: Option<&Protocol> = None;
    for line in &lines {
        check.line = line.number;
        match &line.action {
            Action::CommitInfo(_) => {
                if info_line.replace(line.text).is_some() {
                    return check.fail("a second 'commitInfo': a commit has at most one");
                }
                continue;
            }
            Action::Metadata(m) => {
                if metadata.replace(m).is_some() {
                    return check.fail("a second 'metaData': a commit has at most one");
                }
                check.metadata(m, base.map(|b| b.metadata))?;
            }
            Action::Protocol(p) if protocol.replace(p).is_some() => {
                return check.fail("a second 'protocol': a commit has at most one");
            }
            Action::CheckpointMetadata(_) | Action::Sidecar(_) => {
                return check.fail("'checkpointMetadata' and 'sidecar' belong in checkpoints only");
            }
            Action::Empty => return check.fail("a line without an action"),
            _ => {}
        }
        if large.is_none() {
            rest.extend_from_slice(line.text.as_bytes());
            rest.push(b'\n');
        }
    }

    if base.is_none() && (protocol.is_none() || metadata.is_none()) {
        let missing = if protocol.is_none() { "protocol" } else { "metaData" };
        return Err(CatalogError::invalid(format!(
            "{origin}: version 0 of a table needs a 'protocol' and a 'metaData' action; \
             '{missing}' is missing"
        )));
    }
    // Both exist from here on: given in this commit, or in force.
    let (Some(protocol), Some(metadata)) =
        (protocol.or(base.map(|b| b.protocol)), metadata.or(base.map(|b| b.metadata)))
    else {
        return Err(CatalogError::invalid(format!("{origin}: no protocol or metadata")));
    };
    // Who freezes or unfreezes needs every other feature.
    let switches_freeze = base.is_some_and(|base| base.switches_freeze);
    let checked = |protocol, metadata| {
        let thawed = if switches_freeze { Some(fence::thawed(protocol)) } else { None };
        features::check_commit(thawed.as_ref().unwrap_or(protocol), metadata)
    };
    if let Some(base) = base {
        checked(base.protocol, base.metadata)?;
    }
    checked(protocol, metadata)?;

    let of_adds = OfAdds::new(protocol, metadata)?;
    check.actions(&lines, protocol, metadata, &of_adds)?;

    let ict = features::ict_enabled(protocol, metadata);
    let has_info = info_line.is_some();
    let info_line = info_line.map(str::to_owned);
    let mut index = index_lines(lines);

    let only_adds = index.removes.is_empty()
        && index.metadata.is_none()
        && index.protocol.is_none()
        && index.txns.is_empty()
        && index.domain_metadata.is_empty()
        && index.unknown_actions.is_empty();
    let adds_files = large.as_ref().map_or(!index.adds.is_empty(), Large::adds_files);
    let blind = reads.is_blind() && only_adds && adds_files;
    let blind_append = blind && base.is_some();
    let changes_data = index.changes_data() || large.as_ref().is_some_and(Large::changes_data);
    let only_rearranges = (adds_files || !index.removes.is_empty()) && !changes_data;

    let first_line = match info_line {
        Some(line) if !ict => FirstLine::fixed(line),
        Some(line) => with_timestamp(origin, &line)?,
        None => generated(operation, blind, ict, token),
    };
    // What conflict checks of later commits and history read; the timestamp is filled in at commit.
    if !has_info {
        index.commit_info = deltalakedb_catalog_core::commit::commit_info_object(
            &first_line.render(deltalakedb_catalog_core::ids::TimestampMs(0)),
        )
        .map(str::to_owned);
    }
    let (rest, later) = match large {
        None => (Packed::pack(&rest)?, None),
        Some(large) => {
            let (rest, later) = large.into_adds(&ndjson, &index, of_adds)?;
            (rest, Some(later))
        }
    };
    Ok(Plan {
        first_line,
        rest,
        index: Arc::new(index),
        later,
        only_rearranges,
        blind_append,
        exact: enables_ict,
    })
}

/// A `commitInfo` of our own.
fn generated(
    operation: Option<Operation<'_>>,
    blind: bool,
    ict: bool,
    token: &CommitToken,
) -> FirstLine {
    let text = |s: &str| serde_json::Value::from(s).to_string();
    let Operation { name, parameters } =
        operation.unwrap_or(Operation { name: "WRITE", parameters: None });
    let parameters = parameters.map_or_else(|| "{}".to_owned(), serde_json::Value::to_string);
    let tail = format!(
        ",\"operation\":{},\"operationParameters\":{parameters},\"isBlindAppend\":{blind},\
         \"engineInfo\":{},\"txnId\":{}}}}}",
        text(name),
        text(ENGINE_INFO),
        text(token.as_str()),
    );
    if ict {
        FirstLine::with_parts(vec![
            "{\"commitInfo\":{\"inCommitTimestamp\":".to_owned(),
            ",\"timestamp\":".to_owned(),
            tail,
        ])
    } else {
        FirstLine::with_parts(vec!["{\"commitInfo\":{\"timestamp\":".to_owned(), tail])
    }
}

/// The client's `commitInfo` with our in-commit timestamp as its first field; every other field
/// stays as its bytes were.
fn with_timestamp(origin: &str, line: &str) -> Result<FirstLine> {
    let bad = |e: serde_json::Error| {
        CatalogError::invalid(format!("{origin}: 'commitInfo' is not a JSON object: {e}"))
    };
    let object = deltalakedb_catalog_core::commit::commit_info_object(line)
        .ok_or_else(|| CatalogError::invalid(format!("{origin}: bad 'commitInfo'")))?;
    let Fields(fields) = serde_json::from_str(object).map_err(bad)?;
    let mut tail = String::new();
    for (name, value) in fields.iter().filter(|(name, _)| name != "inCommitTimestamp") {
        tail.push(',');
        tail.push_str(&serde_json::Value::from(name.as_str()).to_string());
        tail.push(':');
        tail.push_str(value.get());
    }
    tail.push_str("}}");
    Ok(FirstLine::with_parts(vec!["{\"commitInfo\":{\"inCommitTimestamp\":".to_owned(), tail]))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
