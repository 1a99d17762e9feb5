//! From a client's NDJSON to what a backend commits: validation, the first line, the index.
//!
//! Nothing here talks to a database. A plan depends on the table's protocol and metadata only, and
//! those cannot change under it: a commit that changes them conflicts with every other one.

use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use crate::action::{Action, Add, FileKey, Metadata, NullableMap, Protocol, Remove};
use crate::commit::{CommitIndex, FirstLine, Packed, index_lines, parse_ndjson};
use crate::conflict::Reads;
use crate::error::{CatalogError, Result};
use crate::features;
use crate::fence;
use crate::fields::Fields;
use crate::ids::{CommitToken, TimestampMs, Version};
use crate::schema::StructType;

/// Longest path of a file, in bytes.
pub const MAX_PATH_BYTES: usize = 16 * 1024;
/// What we write into `commitInfo.engineInfo`.
pub const ENGINE_INFO: &str = concat!("deltalakedb/", env!("CARGO_PKG_VERSION"));

/// The table that a commit is planned on.
#[derive(Debug, Clone, Copy)]
pub struct PlanBase<'a> {
    /// Protocol in force.
    pub protocol: &'a Protocol,
    /// Metadata in force.
    pub metadata: &'a Metadata,
    /// Version that the commit gets if nothing comes between.
    pub next_version: Version,
    /// Commit timestamp that it gets then.
    pub next_timestamp: TimestampMs,
    /// Whether the commit may take the fence away.
    pub lowers_fence: bool,
}

/// What a commit is planned for.
#[derive(Debug, Clone, Copy)]
pub enum PlanTarget<'a> {
    /// Version 0 of a new table.
    New {
        /// Whether foreign writers are kept out (see [`crate::fence`]).
        fence: bool,
    },
    /// The next version of a table.
    On(PlanBase<'a>),
}

/// A validated commit to one table.
#[derive(Debug, Clone)]
pub struct Plan {
    /// First line of the file to be.
    pub first_line: FirstLine,
    /// The other lines, byte for byte as given but for `protocol` and `metaData`.
    pub rest: Packed,
    /// Their index.
    pub index: Arc<CommitIndex>,
    /// Whether it only adds files and read nothing: it may go on top of any head.
    pub blind_append: bool,
    /// Whether it holds for [`PlanBase::next_version`] and [`PlanBase::next_timestamp`] only: on
    /// another head it is planned anew.
    pub exact: bool,
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
    operation: Option<&str>,
    token: &CommitToken,
) -> Result<Plan> {
    let base = match target {
        PlanTarget::New { .. } => None,
        PlanTarget::On(base) => Some(base),
    };
    let fence::Dressed { ndjson, enables_ict } = fence::dress(origin, ndjson, &target)?;
    let lines = parse_ndjson(origin, &ndjson)?;
    let mut check = Checker::new(origin);
    let mut rest = Vec::with_capacity(ndjson.len() + 1);
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
                check.metadata(m)?;
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
        rest.extend_from_slice(line.text.as_bytes());
        rest.push(b'\n');
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
    if let Some(base) = base {
        features::check_commit(base.protocol, base.metadata)?;
    }
    features::check_commit(protocol, metadata)?;

    let partitions = partition_keys(metadata)?;
    check.actions(&lines, protocol, metadata, &partitions)?;

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
    let blind = reads.is_blind() && only_adds && !index.adds.is_empty();
    let blind_append = blind && base.is_some();

    let first_line = match info_line {
        Some(line) if !ict => FirstLine::fixed(line),
        Some(line) => with_timestamp(origin, &line)?,
        None => generated(operation.unwrap_or("WRITE"), blind, ict, token),
    };
    // What conflict checks of later commits and history read; the timestamp is filled in at commit.
    if !has_info {
        index.commit_info =
            crate::commit::commit_info_object(&first_line.render(crate::ids::TimestampMs(0)))
                .map(str::to_owned);
    }
    Ok(Plan {
        first_line,
        rest: Packed::pack(&rest)?,
        index: Arc::new(index),
        blind_append,
        exact: enables_ict,
    })
}

/// Keys that `partitionValues` must have: physical column names.
fn partition_keys(metadata: &Metadata) -> Result<Vec<String>> {
    if !features::column_mapping_enabled(metadata) {
        return Ok(metadata.partition_columns.clone());
    }
    let schema = StructType::parse(&metadata.schema_string)?;
    Ok(metadata
        .partition_columns
        .iter()
        .map(|name| schema.field(name).map_or(name.as_str(), |f| f.physical_name()).to_owned())
        .collect())
}

/// A `commitInfo` of our own.
fn generated(operation: &str, blind: bool, ict: bool, token: &CommitToken) -> FirstLine {
    let text = |s: &str| serde_json::Value::from(s).to_string();
    let tail = format!(
        ",\"operation\":{},\"operationParameters\":{{}},\"isBlindAppend\":{blind},\
         \"engineInfo\":{},\"txnId\":{}}}}}",
        text(operation),
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
    let object = crate::commit::commit_info_object(line)
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

/// Checks of single lines, and of lines against each other.
struct Checker<'a> {
    origin: &'a str,
    line: usize,
}

impl<'a> Checker<'a> {
    fn new(origin: &'a str) -> Self {
        Checker { origin, line: 0 }
    }

    fn fail<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        Err(CatalogError::invalid(format!("{}, line {}: {what}", self.origin, self.line)))
    }

    fn metadata(&self, metadata: &Metadata) -> Result<()> {
        if metadata.id.is_empty() {
            return self.fail("metaData.id is empty");
        }
        if !metadata.format.provider.eq_ignore_ascii_case("parquet") {
            return self.fail(format_args!(
                "metaData.format.provider is '{}': only parquet is in the protocol",
                metadata.format.provider
            ));
        }
        let schema = match StructType::parse(&metadata.schema_string) {
            Ok(schema) => schema,
            Err(e) => return self.fail(format_args!("metaData.schemaString: {e}")),
        };
        for column in &metadata.partition_columns {
            if !schema.fields.iter().any(|f| &f.name == column) {
                let known: Vec<_> = schema.fields.iter().map(|f| f.name.as_str()).collect();
                return self.fail(format_args!(
                    "unknown partition column '{column}': the schema has {}",
                    known.join(", ")
                ));
            }
        }
        Ok(())
    }

    fn actions(
        &mut self,
        lines: &[crate::commit::ParsedLine<'_>],
        protocol: &Protocol,
        metadata: &Metadata,
        partitions: &[String],
    ) -> Result<()> {
        let append_only = features::is_append_only(protocol, metadata);
        let vectors = features::supports_writer(protocol, "deletionVectors");
        let mut files: BTreeMap<FileKey, usize> = BTreeMap::new();
        let mut apps: BTreeMap<&str, usize> = BTreeMap::new();
        let mut domains: BTreeMap<&str, usize> = BTreeMap::new();
        for line in lines {
            self.line = line.number;
            let key = match &line.action {
                Action::Add(add) => {
                    self.add(add, partitions)?;
                    if add.deletion_vector.is_some() && !vectors {
                        return self.fail(
                            "a deletion vector, but the protocol lacks the feature deletionVectors",
                        );
                    }
                    Some(add.key())
                }
                Action::Remove(remove) => {
                    self.remove(remove)?;
                    if append_only && remove.data_change {
                        return self.fail(format_args!(
                            "removes '{}', but the table is append-only (delta.appendOnly)",
                            remove.path
                        ));
                    }
                    Some(remove.key())
                }
                Action::Cdc(cdc) => {
                    self.path(&cdc.path)?;
                    self.partition_values(&cdc.path, &cdc.partition_values, partitions)?;
                    None
                }
                Action::Txn(txn) => {
                    if let Some(first) = apps.insert(&txn.app_id, line.number) {
                        return self.fail(format_args!(
                            "a second 'txn' for application '{}' (the first is in line {first})",
                            txn.app_id
                        ));
                    }
                    None
                }
                Action::DomainMetadata(d) => {
                    if !features::supports_writer(protocol, "domainMetadata") {
                        return self.fail(
                            "'domainMetadata', but the protocol lacks the feature domainMetadata",
                        );
                    }
                    if let Some(first) = domains.insert(&d.domain, line.number) {
                        return self.fail(format_args!(
                            "a second 'domainMetadata' for '{}' (the first is in line {first})",
                            d.domain
                        ));
                    }
                    None
                }
                _ => None,
            };
            if let Some(key) = key
                && let Some(first) = files.insert(key.clone(), line.number)
            {
                return self.fail(format_args!(
                    "file {key} has an action in line {first} already: a commit has at most one \
                     'add' or 'remove' for a file and deletion vector"
                ));
            }
        }
        Ok(())
    }

    fn add(&self, add: &Add, partitions: &[String]) -> Result<()> {
        self.path(&add.path)?;
        if add.size < 0 {
            return self.fail(format_args!("size {} of '{}' is negative", add.size, add.path));
        }
        if let Some(stats) = &add.stats
            && let Err(e) = serde_json::from_str::<BTreeMap<String, &RawValue>>(stats)
        {
            return self.fail(format_args!("stats of '{}' are not a JSON object: {e}", add.path));
        }
        self.partition_values(&add.path, &add.partition_values, partitions)
    }

    fn partition_values(
        &self,
        path: &str,
        values: &NullableMap,
        partitions: &[String],
    ) -> Result<()> {
        if let Some(unknown) = values.keys().find(|k| !partitions.contains(k)) {
            return self.fail(format_args!(
                "unknown partition column '{unknown}' of '{path}': the table is {}",
                if partitions.is_empty() {
                    "not partitioned".to_owned()
                } else {
                    format!("partitioned by {}", partitions.join(", "))
                }
            ));
        }
        if let Some(missing) = partitions.iter().find(|p| !values.contains_key(*p)) {
            return self
                .fail(format_args!("'{path}' has no value for partition column '{missing}'"));
        }
        Ok(())
    }

    fn remove(&self, remove: &Remove) -> Result<()> {
        // A table that was imported may hold absolute paths (shallow clones): removing them is fine.
        if remove.path.is_empty() || remove.path.len() > MAX_PATH_BYTES {
            return self.fail(format_args!(
                "a path has 1 to {MAX_PATH_BYTES} bytes, this has {}",
                remove.path.len()
            ));
        }
        Ok(())
    }

    /// A data file's path: relative to the table root and inside of it.
    fn path(&self, path: &str) -> Result<()> {
        if path.is_empty() || path.len() > MAX_PATH_BYTES {
            return self.fail(format_args!(
                "a path has 1 to {MAX_PATH_BYTES} bytes, this has {}",
                path.len()
            ));
        }
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        let has_scheme = path.split_once(":/").is_some_and(|(scheme, _)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        });
        if path.starts_with('/') || decoded.starts_with('/') || has_scheme {
            return self.fail(format_args!(
                "path '{path}' is absolute: paths are relative to the table's root"
            ));
        }
        if decoded.split(['/', '\\']).any(|segment| segment == "..") {
            return self.fail(format_args!("path '{path}' escapes the table's root"));
        }
        if decoded.split('/').find(|s| !s.is_empty() && *s != ".") == Some("_delta_log") {
            return self.fail(format_args!("path '{path}' lies in the table's log"));
        }
        if decoded.contains('\0') {
            return self.fail(format_args!("path '{}' contains NUL", path.escape_debug()));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
