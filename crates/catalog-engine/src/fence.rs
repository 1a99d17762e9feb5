//! The fence: a writer feature in the published protocol that keeps foreign writers out.
//!
//! A program that commits to the files of a table whose log this catalog publishes would fork the
//! log. So the protocol that is published lists one writer feature which only writers through the
//! catalog have: every other writer must refuse the table and name that feature (protocol section
//! "Table Features"), while readers look at reader features only and read on. In-commit timestamps
//! come with it, as the time at which a file is published is not the time of its commit.
//!
//! The fence is part of the stored bytes, so what is published stays a pure function of them, and a
//! catalog that is rebuilt from its logs knows which tables it had fenced. Writers through the
//! catalog do not see it ([`writer_view`]): the catalog puts it, and the in-commit timestamps that
//! it upholds for everyone, into whatever protocol and metadata they commit (`dress`).

use std::borrow::Cow;
use std::ops::Range;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::features::{self, ENABLE_ICT, VACUUM_PROTOCOL_CHECK};
use crate::freeze::{self, Reason, is_frozen};
use crate::plan::target::{PlanBase, PlanTarget};
use deltalakedb_catalog_core::action::{Action, Metadata, Protocol};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::fields::Fields;
use deltalakedb_catalog_core::model::Snapshot;

/// Name of the writer feature.
pub const FEATURE: &str = features::FENCE;
/// In-commit timestamps as a feature.
const ICT: &str = "inCommitTimestamp";
/// Version from which on there are in-commit timestamps, if not from the first.
const ICT_VERSION: &str = "delta.inCommitTimestampEnablementVersion";
/// In-commit timestamp of that version, milliseconds.
const ICT_TIMESTAMP: &str = "delta.inCommitTimestampEnablementTimestamp";
/// All properties of in-commit timestamps.
const ICT_PROPERTIES: [&str; 3] = [ENABLE_ICT, ICT_VERSION, ICT_TIMESTAMP];

/// Whether writers that do not go through the catalog refuse a table of this protocol.
#[must_use]
pub fn is_up(protocol: &Protocol) -> bool {
    features::supports_writer(protocol, FEATURE)
}

/// Writer features that versions without a list stand for. Readers of version 1 map no columns, whatever the
/// writers' version says.
fn implied(reader: i32, writer: i32) -> impl Iterator<Item = &'static str> {
    features::implied(writer).filter(move |name| reader > 1 || *name != "columnMapping")
}

/// A protocol with these writer features besides its own. The reader's part stays as it is.
fn with_features(protocol: &Protocol, wanted: &[&str]) -> Protocol {
    let mut writer_features = match &protocol.writer_features {
        Some(listed) if protocol.min_writer_version >= features::FEATURES_WRITER => listed.clone(),
        _ => implied(protocol.min_reader_version, protocol.min_writer_version)
            .map(str::to_owned)
            .collect(),
    };
    for name in wanted {
        if !writer_features.iter().any(|f| f == name) {
            writer_features.push((*name).to_owned());
        }
    }
    Protocol {
        min_writer_version: features::FEATURES_WRITER,
        writer_features: Some(writer_features),
        ..protocol.clone()
    }
}

fn has_vacuum_check(protocol: &Protocol) -> bool {
    protocol.reader_features.iter().flatten().any(|name| name == VACUUM_PROTOCOL_CHECK)
}

/// A protocol with the feature that [`writer_view`] leaves out.
fn with_vacuum_check(protocol: &Protocol) -> Protocol {
    let mut new = with_features(protocol, &[VACUUM_PROTOCOL_CHECK]);
    let mut readers = match protocol.reader_features.clone() {
        Some(listed) if protocol.min_reader_version >= features::FEATURES_READER => listed,
        // Reader version 2 stands for column mapping.
        _ if protocol.min_reader_version == 2 => vec!["columnMapping".to_owned()],
        _ => Vec::new(),
    };
    readers.push(VACUUM_PROTOCOL_CHECK.to_owned());
    new.reader_features = Some(readers);
    new.min_reader_version = features::FEATURES_READER;
    new
}

/// A protocol without these writer features. Where what is left is what a version without a list
/// of features means, it becomes that version: more writers know it.
fn without_features(protocol: &Protocol, unwanted: &[&str]) -> Protocol {
    let Some(listed) = &protocol.writer_features else { return protocol.clone() };
    let left: Vec<String> =
        listed.iter().filter(|f| !unwanted.contains(&f.as_str())).cloned().collect();
    if left.len() == listed.len() {
        return protocol.clone();
    }
    // Column mapping, which reader version 2 stands for, comes with writer version 5.
    let versions: &[i32] = match protocol.min_reader_version {
        1 => &[1, 2, 3, 4, 6],
        2 => &[5, 6],
        _ => &[],
    };
    for version in versions.iter().copied() {
        let mut implied: Vec<&str> = implied(protocol.min_reader_version, version).collect();
        let mut found: Vec<&str> = left.iter().map(String::as_str).collect();
        implied.sort_unstable();
        found.sort_unstable();
        if implied == found {
            return Protocol {
                min_reader_version: protocol.min_reader_version,
                min_writer_version: version,
                reader_features: None,
                writer_features: None,
            };
        }
    }
    Protocol { writer_features: Some(left), ..protocol.clone() }
}

/// Takes the feature of frozen tables out of a protocol that a writer commits: one that brings back the state
/// of a time at which the table was frozen does not freeze it again.
fn melt(protocol: &mut Protocol) {
    if let Some(listed) = &mut protocol.writer_features {
        listed.retain(|name| name != freeze::FEATURE);
    }
}

/// Protocol and metadata as a writer through the catalog sees them: without the fence, without
/// in-commit timestamps, which the catalog writes for everyone, and without `vacuumProtocolCheck`, which
/// asks of readers nothing, and of writers to look at the other features before they vacuum. That a table is
/// frozen ([`crate::freeze`]) every writer sees.
#[must_use]
pub fn writer_view(protocol: &Protocol, metadata: &Metadata) -> (Protocol, Metadata) {
    let mut metadata = metadata.clone();
    without_timestamps(&mut metadata);
    (seen_by_writers(protocol), metadata)
}

/// A protocol as it is when its table is not frozen.
pub(crate) fn thawed(protocol: &Protocol) -> Protocol {
    without_features(protocol, &[freeze::FEATURE])
}

/// A protocol without what the catalog puts back (see [`writer_view`]).
fn seen_by_writers(protocol: &Protocol) -> Protocol {
    let protocol = features::without_readers(protocol, |name| name == VACUUM_PROTOCOL_CHECK);
    without_features(&protocol, &[FEATURE, ICT])
}

/// Protocol and metadata as who reads the files of a snapshot sees them: those of [`writer_view`], without
/// features that ask nothing of that ([`features::for_scans`]; that a table is frozen), and without properties
/// that are null.
#[must_use]
pub fn scan_view(protocol: &Protocol, metadata: &Metadata) -> (Protocol, Metadata) {
    let (protocol, mut metadata) = writer_view(&thawed(protocol), metadata);
    metadata.configuration.retain(|_, value| value.is_some());
    (features::for_scans(&protocol, &metadata), metadata)
}

/// Takes in-commit timestamps out of a metadata; who has refused them keeps that.
fn without_timestamps(metadata: &mut Metadata) {
    if metadata.flag(ENABLE_ICT) {
        metadata.configuration.retain(|key, _| !ICT_PROPERTIES.contains(&key.as_str()));
    }
}

/// The lines of a stored commit as a writer through the catalog sees them (see [`writer_view`]):
/// without what the catalog has put into them. Lines that say nothing of it keep their bytes.
///
/// # Errors
/// `InvalidInput` if an action cannot be written as JSON.
pub fn writer_lines(ndjson: &[u8]) -> Result<Cow<'_, [u8]>> {
    let Ok(text) = std::str::from_utf8(ndjson) else { return Ok(Cow::Borrowed(ndjson)) };
    let (protocol, metadata) = find(text);
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    if let Some(Found { at, action }) = protocol {
        let seen = seen_by_writers(&action);
        if seen != action {
            edits.push((at, Action::Protocol(seen).to_line()?));
        }
    }
    if let Some(Found { at, mut action }) = metadata {
        let properties = action.configuration.len();
        without_timestamps(&mut action);
        if action.configuration.len() != properties {
            let line = metadata_line(&text[at.clone()], &action)?;
            edits.push((at, line));
        }
    }
    if edits.is_empty() {
        return Ok(Cow::Borrowed(ndjson));
    }
    Ok(Cow::Owned(edited(text, edits).into_bytes()))
}

/// A text with some of its lines replaced.
fn edited(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(at, _)| at.start);
    let mut out = String::with_capacity(text.len() + 512);
    let mut rest = 0;
    for (at, line) in edits {
        out.push_str(&text[rest..at.start]);
        out.push_str(&line);
        rest = at.end;
    }
    out.push_str(&text[rest..]);
    out
}

/// A change of who may write to a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FenceChange {
    /// Puts the fence up, with in-commit timestamps unless the table's properties refuse them.
    Raise,
    /// Takes it away.
    Lower {
        /// In-commit timestamps stay, which some writers cannot write.
        keep_timestamps: bool,
    },
    /// Keeps all writers out (see [`crate::freeze`]). The fence stays as it is.
    Freeze {
        /// Why.
        reason: Option<Reason>,
    },
    /// Lets writers in again: those that the fence lets in.
    Unfreeze {
        /// Why.
        reason: Option<Reason>,
    },
}

impl FenceChange {
    /// `operation` of the commit.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            FenceChange::Raise => "RAISE FENCE",
            FenceChange::Lower { .. } => "LOWER FENCE",
            FenceChange::Freeze { .. } => freeze::FREEZE,
            FenceChange::Unfreeze { .. } => freeze::UNFREEZE,
        }
    }

    /// Whether it freezes or unfreezes, and leaves the fence as it is.
    pub(crate) fn switches_freeze(&self) -> bool {
        matches!(self, FenceChange::Freeze { .. } | FenceChange::Unfreeze { .. })
    }

    /// `operationParameters` of the commit.
    pub(crate) fn parameters(&self) -> serde_json::Value {
        match self {
            FenceChange::Freeze { reason } | FenceChange::Unfreeze { reason } => {
                freeze::parameters(reason.as_ref())
            }
            FenceChange::Raise | FenceChange::Lower { .. } => freeze::parameters(None),
        }
    }

    /// The commit's lines on this head; none if the table is as wanted already.
    ///
    /// # Errors
    /// `InvalidInput` if protocol or metadata cannot be written as JSON.
    pub fn lines(&self, head: &Snapshot) -> Result<Option<Vec<u8>>> {
        let Snapshot { protocol, metadata, .. } = head;
        let mut changed = metadata.clone();
        let protocol = match self {
            FenceChange::Raise if is_up(protocol) => return Ok(None),
            FenceChange::Raise => {
                if metadata.property(ENABLE_ICT).is_none() {
                    changed.configuration.insert(ENABLE_ICT.to_owned(), Some("true".to_owned()));
                }
                let wanted: &[&str] =
                    if changed.flag(ENABLE_ICT) { &[FEATURE, ICT] } else { &[FEATURE] };
                with_features(protocol, wanted)
            }
            FenceChange::Lower { .. } if !is_up(protocol) => return Ok(None),
            FenceChange::Lower { keep_timestamps: true } => without_features(protocol, &[FEATURE]),
            FenceChange::Lower { keep_timestamps: false } => {
                // Said in so many words: what is missing is kept.
                changed.configuration.retain(|key, _| !ICT_PROPERTIES.contains(&key.as_str()));
                without_features(protocol, &[FEATURE, ICT])
            }
            FenceChange::Freeze { .. } if is_frozen(protocol) => return Ok(None),
            FenceChange::Freeze { .. } => with_features(protocol, &[freeze::FEATURE]),
            FenceChange::Unfreeze { .. } if !is_frozen(protocol) => return Ok(None),
            FenceChange::Unfreeze { .. } => thawed(protocol),
        };
        let mut lines = Action::Protocol(protocol).to_line()?;
        lines.push('\n');
        if changed != *metadata {
            lines.push_str(&Action::Metadata(changed).to_line()?);
            lines.push('\n');
        }
        Ok(Some(lines.into_bytes()))
    }
}

/// A commit's lines with what the catalog adds to them.
#[derive(Debug)]
pub(crate) struct Dressed<'a> {
    pub(crate) ndjson: Cow<'a, [u8]>,
    /// Whether they turn in-commit timestamps on: then they fit on one head and time only.
    pub(crate) enables_ict: bool,
}

/// A line, where it stands, and what it says.
struct Found<T> {
    at: Range<usize>,
    action: T,
}

/// Puts the fence and in-commit timestamps into the `protocol` and `metaData` lines of a commit, as
/// the table has them; only [`FenceChange::Freeze`] makes a table a frozen one. Every other line keeps its bytes, and so do all fields that need no change.
///
/// # Errors
/// `Unsupported` for a commit that turns in-commit timestamps on without a `metaData` action.
pub(crate) fn dress<'a>(
    origin: &str,
    ndjson: &'a [u8],
    target: &PlanTarget<'_>,
) -> Result<Dressed<'a>> {
    let unchanged = Dressed { ndjson: Cow::Borrowed(ndjson), enables_ict: false };
    // What is wrong with the lines is found by who reads all of them.
    let Ok(text) = std::str::from_utf8(ndjson) else { return Ok(unchanged) };
    let (protocol, metadata) = find(text);
    let (new_protocol, new_metadata, enables_ict) = match target {
        PlanTarget::New { fence: false } => {
            let Some(Found { action, .. }) = &protocol else { return Ok(unchanged) };
            let mut new = action.clone();
            melt(&mut new);
            (Some(new), None, false)
        }
        PlanTarget::New { fence: true } => {
            let (Some(protocol), Some(metadata)) = (&protocol, &metadata) else {
                return Ok(unchanged);
            };
            let mut new = protocol.action.clone();
            melt(&mut new);
            let mut properties = metadata.action.clone();
            if properties.property(ENABLE_ICT).is_none() {
                properties.configuration.insert(ENABLE_ICT.to_owned(), Some("true".to_owned()));
            }
            let wanted: &[&str] =
                if properties.flag(ENABLE_ICT) { &[FEATURE, ICT] } else { &[FEATURE] };
            (Some(with_features(&new, wanted)), Some(properties), false)
        }
        PlanTarget::On(base) => on_base(origin, base, protocol.as_ref(), metadata.as_ref())?,
    };
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    if let (Some(found), Some(new)) = (&protocol, &new_protocol)
        && found.action != *new
    {
        edits.push((found.at.clone(), protocol_line(&text[found.at.clone()], new)?));
    }
    if let (Some(found), Some(new)) = (&metadata, &new_metadata)
        && found.action != *new
    {
        edits.push((found.at.clone(), metadata_line(&text[found.at.clone()], new)?));
    }
    if edits.is_empty() {
        return Ok(Dressed { enables_ict, ..unchanged });
    }
    Ok(Dressed { ndjson: Cow::Owned(edited(text, edits).into_bytes()), enables_ict })
}

/// The lines on an existing table: the protocol and metadata that they become, and whether they
/// turn in-commit timestamps on.
fn on_base(
    origin: &str,
    base: &PlanBase<'_>,
    protocol: Option<&Found<Protocol>>,
    metadata: Option<&Found<Metadata>>,
) -> Result<(Option<Protocol>, Option<Metadata>, bool)> {
    let had_ict = features::ict_enabled(base.protocol, base.metadata);
    let mut new_metadata = metadata.map(|found| found.action.clone());
    if let Some(new) = &mut new_metadata
        && had_ict
        && !base.lowers_fence
        && new.configuration.get(ENABLE_ICT).is_none_or(|value| value.as_deref() == Some("true"))
    {
        for key in ICT_PROPERTIES {
            if let Some(value) = base.metadata.configuration.get(key) {
                new.configuration.entry(key.to_owned()).or_insert_with(|| value.clone());
            }
        }
    }
    let stays = new_metadata.as_ref().unwrap_or(base.metadata).flag(ENABLE_ICT);
    let mut new_protocol = protocol.map(|found| found.action.clone());
    if let Some(new) = &mut new_protocol {
        if !base.switches_freeze {
            melt(new);
        }
        let mut wanted = Vec::new();
        if is_up(base.protocol) && !base.lowers_fence {
            wanted.push(FEATURE);
        }
        if had_ict && stays {
            wanted.push(ICT);
        }
        if wanted.iter().any(|name| !features::supports_writer(new, name)) {
            *new = with_features(new, &wanted);
        }
        if has_vacuum_check(base.protocol) && !has_vacuum_check(new) {
            *new = with_vacuum_check(new);
        }
    }
    let has_ict =
        stays && features::supports_writer(new_protocol.as_ref().unwrap_or(base.protocol), ICT);
    if had_ict || !has_ict {
        return Ok((new_protocol, new_metadata, false));
    }
    let Some(new) = &mut new_metadata else {
        return Err(CatalogError::Unsupported(format!(
            "{origin}: in-commit timestamps are turned on by a 'metaData' action with \
             {ENABLE_ICT}=true: it also says from which version on there are any"
        )));
    };
    let (version, timestamp) = (base.next_version.get(), base.next_timestamp.0);
    for (key, value) in [(ICT_VERSION, version), (ICT_TIMESTAMP, timestamp)] {
        new.configuration.insert(key.to_owned(), Some(value.to_string()));
    }
    Ok((new_protocol, new_metadata, true))
}

/// The `protocol` and the `metaData` line, if there are any. Only lines that hold these words are
/// looked at closer. Of two, the first: a commit with two is refused later.
fn find(text: &str) -> (Option<Found<Protocol>>, Option<Found<Metadata>>) {
    let (mut protocol, mut metadata) = (None, None);
    let mut start = 0;
    for line in text.split('\n') {
        let end = start + line.len();
        if line.contains("\"protocol\"") || line.contains("\"metaData\"") {
            let at = start..end;
            match Action::parse(line.trim_end_matches('\r')) {
                Ok(Action::Protocol(action)) if protocol.is_none() => {
                    protocol = Some(Found { at, action });
                }
                Ok(Action::Metadata(action)) if metadata.is_none() => {
                    metadata = Some(Found { at, action });
                }
                _ => {}
            }
        }
        start = end + 1;
    }
    (protocol, metadata)
}

fn protocol_line(line: &str, new: &Protocol) -> Result<String> {
    edit(line, "protocol", |fields| {
        if let Some(readers) = &new.reader_features {
            fields.set("minReaderVersion", raw(&new.min_reader_version)?);
            fields.set("readerFeatures", raw(readers)?);
        }
        fields.set("minWriterVersion", raw(&new.min_writer_version)?);
        fields.set("writerFeatures", raw(&new.writer_features)?);
        Ok(())
    })
}

fn metadata_line(line: &str, new: &Metadata) -> Result<String> {
    edit(line, "metaData", |fields| {
        fields.set("configuration", raw(&new.configuration)?);
        Ok(())
    })
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>> {
    serde_json::value::to_raw_value(value).map_err(bad)
}

fn bad(error: serde_json::Error) -> CatalogError {
    CatalogError::invalid(format!("cannot write an action: {error}"))
}

/// A line `{"<action>":{…}}` with some fields of its object changed; the others keep their bytes.
fn edit(line: &str, action: &str, change: impl Fn(&mut Fields) -> Result<()>) -> Result<String> {
    let mut outer: Fields = serde_json::from_str(line).map_err(bad)?;
    let inner = outer.get(action).map_or("{}", RawValue::get);
    let mut inner: Fields = serde_json::from_str(inner).map_err(bad)?;
    change(&mut inner)?;
    outer.set(action, RawValue::from_string(inner.render()).map_err(bad)?);
    Ok(outer.render())
}

#[cfg(test)]
#[path = "fence_tests.rs"]
mod tests;
