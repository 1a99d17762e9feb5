//! Table features and protocol versions (protocol section "Table Features").
//!
//! A writer must refuse a table that asks for something it does not know. How much it must know
//! depends on who made the content: [`check_commit`] is for commits whose files and actions a Delta
//! client made, [`check_append`] for files that this product describes itself.

use crate::schema::{DataType, StructType};
use deltalakedb_catalog_core::action::{Metadata, NullableMap, Protocol};
use deltalakedb_catalog_core::error::{CatalogError, Result};

/// Name of the writer feature that keeps foreign writers out (see [`crate::fence`]).
pub(crate) const FENCE: &str = "deltalakedb";
/// Name of the writer feature that keeps all writers out (see [`crate::freeze`]). No commit may use it.
pub(crate) const FROZEN: &str = "deltalakedb.frozen";
/// A feature that a commit from a client may use.
struct Known {
    name: &'static str,
    /// Legacy writer version that implies it, if any.
    legacy_writer: Option<i32>,
    /// Whether readers must know it too.
    reader: bool,
}

const fn writer(name: &'static str, legacy_writer: Option<i32>) -> Known {
    Known { name, legacy_writer, reader: false }
}

const fn both(name: &'static str, legacy_writer: Option<i32>) -> Known {
    Known { name, legacy_writer, reader: true }
}

/// What a client's commit may rely on. Each is either the client's own duty (constraints, generated
/// columns, change data, deletion vectors, …) or upheld by the catalog (in-commit timestamps,
/// append-only, domain metadata).
const KNOWN: &[Known] = &[
    writer("appendOnly", Some(2)),
    writer("invariants", Some(2)),
    writer("checkConstraints", Some(3)),
    writer("changeDataFeed", Some(4)),
    writer("generatedColumns", Some(4)),
    both("columnMapping", Some(5)),
    writer("identityColumns", Some(6)),
    // Defaults are filled in by whoever writes the rows.
    writer("allowColumnDefaults", None),
    both("deletionVectors", None),
    writer("domainMetadata", None),
    both("timestampNtz", None),
    both("v2Checkpoint", None),
    writer("inCommitTimestamp", None),
    both(VACUUM_PROTOCOL_CHECK, None),
    writer("clustering", None),
    both("typeWidening", None),
    both("typeWidening-preview", None),
    both("variantType", None),
    both("variantType-preview", None),
    both("variantShredding-preview", None),
    // Ours: keeps out who does not go through the catalog.
    writer(FENCE, None),
];

/// Highest writer version without a list of features.
const LAST_LEGACY_WRITER: i32 = 6;
/// Writer version from which on features are listed.
pub(crate) const FEATURES_WRITER: i32 = 7;
pub(crate) const FEATURES_READER: i32 = 3;

/// Property that turns on in-commit timestamps.
pub const ENABLE_ICT: &str = "delta.enableInCommitTimestamps";
/// Prefix of the properties that hold CHECK constraints.
const CONSTRAINTS: &str = "delta.constraints.";
/// Prefix of the properties by which clients ask for a feature.
const FEATURE: &str = "delta.feature.";

fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|k| k.name == name)
}

/// Features that a writer version without a list stands for.
pub(crate) fn implied(min_writer_version: i32) -> impl Iterator<Item = &'static str> {
    KNOWN
        .iter()
        .filter(move |k| k.legacy_writer.is_some_and(|version| min_writer_version >= version))
        .map(|k| k.name)
}

/// Whether the protocol supports a writer feature: listed (writer version 7), or implied by a
/// legacy version.
#[must_use]
pub fn supports_writer(protocol: &Protocol, name: &str) -> bool {
    if protocol.min_writer_version >= FEATURES_WRITER {
        return protocol.writer_features.iter().flatten().any(|f| f == name);
    }
    known(name)
        .and_then(|k| k.legacy_writer)
        .is_some_and(|version| protocol.min_writer_version >= version)
}

/// Whether removing rows is forbidden: the feature is supported and `delta.appendOnly` is true.
#[must_use]
pub fn is_append_only(protocol: &Protocol, metadata: &Metadata) -> bool {
    supports_writer(protocol, "appendOnly") && metadata.flag("delta.appendOnly")
}

/// Whether commits carry in-commit timestamps: the feature is supported and
/// `delta.enableInCommitTimestamps` is true.
#[must_use]
pub fn ict_enabled(protocol: &Protocol, metadata: &Metadata) -> bool {
    supports_writer(protocol, "inCommitTimestamp") && metadata.flag(ENABLE_ICT)
}

/// Whether columns have other names in data files, statistics and partition values than in the
/// schema (`delta.columnMapping.mode` is `name` or `id`).
#[must_use]
pub fn column_mapping_enabled(metadata: &Metadata) -> bool {
    metadata
        .property("delta.columnMapping.mode")
        .is_some_and(|mode| !mode.eq_ignore_ascii_case("none"))
}

/// Key of a field's metadata: types that it had before it was widened.
const TYPE_CHANGES: &str = "delta.typeChanges";

/// A feature that readers must know, though nothing follows from it for them.
pub const VACUUM_PROTOCOL_CHECK: &str = "vacuumProtocolCheck";

/// Whether a reader feature asks nothing of who reads the files of a snapshot that the catalog has made
/// (protocol section "Table Features" and those of the features).
///
/// * `vacuumProtocolCheck`: "readers don't need to understand or change anything new".
/// * `v2Checkpoint`: what checkpoints look like; the snapshot was read already.
/// * `catalogManaged` and its previews: where commits are found; the same.
/// * `typeWidening`: files with narrower types than their column's; none, as long as no column says
///   that it was changed.
/// * `timestampNtz`, `variantType`, `variantShredding`: columns of these types; none, as long as the
///   schema has no such column.
fn asks_nothing_of_scans(feature: &str, schema: Option<&StructType>) -> bool {
    let without = |test: &dyn Fn(&DataType) -> bool| schema.is_some_and(|s| !s.any_type(test));
    match feature {
        VACUUM_PROTOCOL_CHECK
        | "v2Checkpoint"
        | "catalogManaged"
        | "catalogOwned"
        | "catalogOwned-preview" => true,
        "typeWidening" | "typeWidening-preview" => schema.is_some_and(|schema| {
            let mut widened = false;
            let looked = schema.visit_fields(&mut |_, field| {
                widened |= field.metadata.contains_key(TYPE_CHANGES);
                Ok(())
            });
            looked.is_ok() && !widened
        }),
        "timestampNtz" => without(&|t| matches!(t, DataType::TimestampNtz | DataType::Other(_))),
        "variantType" | "variantType-preview" | "variantShredding" | "variantShredding-preview" => {
            without(&|t| matches!(t, DataType::Variant | DataType::Other(_)))
        }
        _ => false,
    }
}

/// The protocol as far as it matters to who reads the files of a snapshot: without reader features that
/// ask nothing of that (see there which these are). Engines refuse what they do not know, also where
/// there is nothing to know.
#[must_use]
pub fn for_scans(protocol: &Protocol, metadata: &Metadata) -> Protocol {
    let schema = StructType::parse(&metadata.schema_string).ok();
    without_readers(protocol, |name| asks_nothing_of_scans(name, schema.as_ref()))
}

/// A protocol without some of its reader features, which then are no writer features either.
pub(crate) fn without_readers(protocol: &Protocol, is_unwanted: impl Fn(&str) -> bool) -> Protocol {
    let Some(readers) = &protocol.reader_features else { return protocol.clone() };
    let unwanted: Vec<&String> = readers.iter().filter(|name| is_unwanted(name)).collect();
    if unwanted.is_empty() {
        return protocol.clone();
    }
    let rest = |listed: &Vec<String>| -> Vec<String> {
        listed.iter().filter(|name| !unwanted.contains(name)).cloned().collect()
    };
    Protocol {
        reader_features: Some(rest(readers)),
        writer_features: protocol.writer_features.as_ref().map(rest),
        ..protocol.clone()
    }
}

/// Checks that a client's commit may go on a table of this protocol: every version and feature is
/// one whose duties are the client's, or the catalog's own.
///
/// # Errors
/// `Unsupported` naming every feature or version that is not known; `InvalidInput` if the protocol
/// contradicts itself.
pub fn check_commit(protocol: &Protocol, _metadata: &Metadata) -> Result<()> {
    check_shape(protocol)?;
    let mut refused: Vec<&str> = protocol
        .writer_features
        .iter()
        .chain(protocol.reader_features.iter())
        .flatten()
        .map(String::as_str)
        .filter(|name| known(name).is_none())
        .collect();
    refused.sort_unstable();
    refused.dedup();
    if refused.is_empty() {
        return Ok(());
    }
    let why: Vec<String> = refused
        .iter()
        .map(|name| match reason(name) {
            Some(reason) => format!("{name} ({reason})"),
            None => (*name).to_owned(),
        })
        .collect();
    Err(CatalogError::Unsupported(format!(
        "the table uses {} that this version of deltalakedb cannot write with: {}. It can still \
         be read; write to it with an engine that knows {}, or update deltalakedb",
        if why.len() == 1 { "a feature" } else { "features" },
        why.join(", "),
        if why.len() == 1 { "it" } else { "them" },
    )))
}

/// Why a feature of the protocol is not known here, where that helps.
fn reason(name: &str) -> Option<&'static str> {
    match name {
        FROZEN => Some("the table is frozen: `dl unfreeze` ends that"),
        "rowTracking" => Some("the writer must assign row ids, which rebased commits would repeat"),
        "icebergCompatV1" | "icebergCompatV2" | "icebergCompatV3" => {
            Some("every commit must keep the table readable as Iceberg")
        }
        "catalogManaged" | "catalogOwned" | "catalogOwned-preview" => {
            Some("commits go through the catalog that manages it")
        }
        _ => None,
    }
}

/// Versions we know, and lists exactly where the versions ask for them.
fn check_shape(protocol: &Protocol) -> Result<()> {
    let (reader, writer) = (protocol.min_reader_version, protocol.min_writer_version);
    let bad = |what: String| {
        Err(CatalogError::invalid(format!(
            "protocol (minReaderVersion {reader}, minWriterVersion {writer}): {what}"
        )))
    };
    if !(1..=FEATURES_READER).contains(&reader) || !(1..=FEATURES_WRITER).contains(&writer) {
        return Err(CatalogError::Unsupported(format!(
            "the table has minReaderVersion {reader} and minWriterVersion {writer}: this version \
             of deltalakedb knows reader versions 1 to {FEATURES_READER} and writer versions 1 to \
             {FEATURES_WRITER}"
        )));
    }
    if writer == FEATURES_WRITER && protocol.writer_features.is_none() {
        return bad(format!("writer version {FEATURES_WRITER} needs 'writerFeatures'"));
    }
    if writer <= LAST_LEGACY_WRITER && protocol.writer_features.iter().flatten().next().is_some() {
        return bad(format!("'writerFeatures' need writer version {FEATURES_WRITER}"));
    }
    if reader == FEATURES_READER {
        if writer != FEATURES_WRITER {
            return bad(format!(
                "reader version {FEATURES_READER} needs writer version {FEATURES_WRITER}"
            ));
        }
        if protocol.reader_features.is_none() {
            return bad(format!("reader version {FEATURES_READER} needs 'readerFeatures'"));
        }
    } else if protocol.reader_features.iter().flatten().next().is_some() {
        // An empty list below reader version 3 is harmless, and some writers leave one behind.
        return bad(format!("'readerFeatures' need reader version {FEATURES_READER}"));
    }
    let readers = protocol.reader_features.as_deref().unwrap_or_default();
    let writers = protocol.writer_features.as_deref().unwrap_or_default();
    if let Some(lost) = readers.iter().find(|f| !writers.contains(f)) {
        return bad(format!("'{lost}' is in 'readerFeatures' but not in 'writerFeatures'"));
    }
    // Else readers who must know a feature would not learn of it.
    let hidden = |name: &&String| {
        known(name).is_some_and(|k| k.reader)
            && !readers.contains(name)
            && !(name.as_str() == "columnMapping" && reader == 2)
    };
    if let Some(lost) = writers.iter().find(hidden) {
        return bad(format!("'{lost}' is in 'writerFeatures' but not in 'readerFeatures'"));
    }
    Ok(())
}

/// Checks that files which already exist may be appended by us: all of [`check_commit`], and
/// nothing that only an engine which evaluates expressions or assigns values can uphold.
///
/// # Errors
/// `Unsupported` naming the constraint, column or mode and what to do instead.
pub fn check_append(protocol: &Protocol, metadata: &Metadata, schema: &StructType) -> Result<()> {
    check_commit(protocol, metadata)?;
    let refuse = |what: String| {
        Err(CatalogError::Unsupported(format!(
            "existing files cannot be appended to this table: {what}. Write the rows with a Delta \
             engine (Spark, delta-rs) and commit what it wrote"
        )))
    };
    if column_mapping_enabled(metadata) {
        return refuse(format!(
            "delta.columnMapping.mode is '{}', so that columns have other names or ids in its \
             files",
            metadata.property("delta.columnMapping.mode").unwrap_or_default()
        ));
    }
    let constraints: Vec<&str> = metadata
        .configuration
        .iter()
        .filter(|(_, value)| value.is_some())
        .filter_map(|(key, _)| key.strip_prefix(CONSTRAINTS))
        .collect();
    if !constraints.is_empty() {
        return refuse(format!(
            "it has the CHECK constraint{} {}, which the rows would have to be checked against",
            if constraints.len() == 1 { "" } else { "s" },
            constraints.join(", ")
        ));
    }
    schema.visit_fields(&mut |path, field| {
        for (key, what) in [
            ("delta.invariants", "an invariant"),
            ("delta.generationExpression", "a generation expression"),
        ] {
            if field.metadata.contains_key(key) {
                return refuse(format!("column '{path}' has {what} ({key})"));
            }
        }
        if field.metadata.keys().any(|key| key.starts_with("delta.identity.")) {
            return refuse(format!("column '{path}' is an identity column (delta.identity.*)"));
        }
        Ok(())
    })
}

/// Protocol and properties of a table to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialProtocol {
    /// The least protocol that the schema and the properties need.
    pub protocol: Protocol,
    /// The properties, with in-commit timestamps turned on unless they said otherwise.
    pub configuration: NullableMap,
}

/// The least protocol for a new table of this schema and these properties.
///
/// In-commit timestamps are on unless `delta.enableInCommitTimestamps` is given as false. A
/// property `delta.feature.<name>` = `supported` adds that feature.
///
/// # Errors
/// `Unsupported` for a property whose feature cannot be had here, `InvalidInput` for one with a
/// value that it cannot have.
pub fn default_protocol_for(
    schema: &StructType,
    properties: &NullableMap,
) -> Result<InitialProtocol> {
    let mut configuration = properties.clone();
    configuration.entry(ENABLE_ICT.to_owned()).or_insert_with(|| Some("true".to_owned()));
    // Every writer of the legacy default upholds these two, so that all engines know them.
    let mut features = vec!["appendOnly", "invariants"];
    let mut legacy_is_enough = true;
    let mut add = |name: &'static str| {
        if !features.contains(&name) {
            features.push(name);
        }
        legacy_is_enough = false;
    };
    if schema.any_type(&|t| *t == DataType::TimestampNtz) {
        add("timestampNtz");
    }
    if schema.any_type(&|t| *t == DataType::Variant) {
        add("variantType");
    }
    let mut asked = Vec::new();
    for (key, value) in &configuration {
        let Some(value) = value.as_deref() else { continue };
        if let Some(name) = key.strip_prefix(FEATURE) {
            let feature = known(name)
                .filter(|k| ![FENCE, "columnMapping"].contains(&k.name))
                .ok_or_else(|| {
                    CatalogError::Unsupported(format!(
                        "property {key}: a new table cannot have the feature '{name}' here{}",
                        reason(name).map(|r| format!(" ({r})")).unwrap_or_default()
                    ))
                })?;
            if !matches!(value, "supported" | "enabled") {
                return Err(CatalogError::invalid(format!(
                    "property {key} is '{value}': the only value is 'supported'"
                )));
            }
            add(feature.name);
            asked.push(key.clone());
        } else if let Some(feature) = feature_of(key, value)? {
            add(feature);
        }
    }
    // They ask for a feature; the protocol then lists it, and they are not kept.
    for key in asked {
        configuration.remove(&key);
    }
    let legacy = legacy_is_enough;
    features.sort_unstable();
    let protocol = if legacy {
        Protocol {
            min_reader_version: 1,
            min_writer_version: 2,
            reader_features: None,
            writer_features: None,
        }
    } else {
        let readers: Vec<String> = features
            .iter()
            .filter(|name| known(name).is_some_and(|k| k.reader))
            .map(|name| (*name).to_owned())
            .collect();
        Protocol {
            min_reader_version: if readers.is_empty() { 1 } else { FEATURES_READER },
            min_writer_version: FEATURES_WRITER,
            reader_features: (!readers.is_empty()).then_some(readers),
            writer_features: Some(features.into_iter().map(str::to_owned).collect()),
        }
    };
    Ok(InitialProtocol { protocol, configuration })
}

/// A protocol that has one more feature, upgraded as far as that needs it.
///
/// # Errors
/// `Unsupported` for a feature that cannot be had here.
pub(crate) fn with_feature(protocol: &Protocol, name: &str) -> Result<Protocol> {
    let feature = known(name).filter(|k| k.name != FENCE).ok_or_else(|| {
        CatalogError::Unsupported(format!(
            "the table cannot get the feature '{name}' here{}",
            reason(name).map(|r| format!(" ({r})")).unwrap_or_default()
        ))
    })?;
    let has_reader = |p: &Protocol| {
        !feature.reader
            || p.reader_features.iter().flatten().any(|f| f == name)
            || (name == "columnMapping" && p.min_reader_version == 2)
    };
    if supports_writer(protocol, name) && has_reader(protocol) {
        return Ok(protocol.clone());
    }
    let mut protocol = protocol.clone();
    // Column mapping has versions of its own, which more engines know than lists of features.
    if name == "columnMapping" && protocol.min_writer_version < FEATURES_WRITER {
        protocol.min_reader_version = protocol.min_reader_version.max(2);
        protocol.min_writer_version = protocol.min_writer_version.max(5);
        return Ok(protocol);
    }
    let mut writers: Vec<String> = match &protocol.writer_features {
        Some(listed) if protocol.min_writer_version >= FEATURES_WRITER => listed.clone(),
        // Readers of version 1 map no columns, whatever the writers' version stands for.
        _ => implied(protocol.min_writer_version)
            .filter(|name| protocol.min_reader_version > 1 || *name != "columnMapping")
            .map(str::to_owned)
            .collect(),
    };
    if !writers.iter().any(|f| f == name) {
        writers.push(name.to_owned());
    }
    let mut readers = protocol.reader_features.clone().unwrap_or_default();
    let mapped = protocol.min_reader_version == 2 && writers.iter().any(|f| f == "columnMapping");
    if feature.reader {
        if mapped && !readers.iter().any(|f| f == "columnMapping") {
            readers.push("columnMapping".to_owned());
        }
        if !readers.iter().any(|f| f == name) {
            readers.push(name.to_owned());
        }
        protocol.min_reader_version = FEATURES_READER;
    }
    protocol.min_writer_version = FEATURES_WRITER;
    protocol.writer_features = Some(writers);
    if protocol.min_reader_version >= FEATURES_READER {
        protocol.reader_features = Some(readers);
    }
    Ok(protocol)
}

/// The feature that a property of a new table needs.
pub(crate) fn feature_of(key: &str, value: &str) -> Result<Option<&'static str>> {
    let refuse = |why: &str| {
        Err(CatalogError::Unsupported(format!("property {key}={value}: {why}; leave it out")))
    };
    let on = || match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(CatalogError::invalid(format!("property {key} is '{value}': true or false"))),
    };
    let feature = match key {
        ENABLE_ICT => on()?.then_some("inCommitTimestamp"),
        "delta.appendOnly" => {
            on()?;
            None
        }
        "delta.enableDeletionVectors" => on()?.then_some("deletionVectors"),
        "delta.enableChangeDataFeed" => on()?.then_some("changeDataFeed"),
        "delta.enableTypeWidening" => on()?.then_some("typeWidening"),
        "delta.checkpointPolicy" => match value {
            "v2" => Some("v2Checkpoint"),
            "classic" => None,
            _ => {
                return Err(CatalogError::invalid(format!(
                    "property {key} is '{value}': classic or v2"
                )));
            }
        },
        "delta.columnMapping.mode" if !value.eq_ignore_ascii_case("none") => {
            return refuse("a new table has no column mapping here");
        }
        "delta.enableRowTracking" if on()? => {
            return refuse("row ids cannot be assigned here");
        }
        "delta.minReaderVersion" | "delta.minWriterVersion" => {
            return refuse("the protocol follows from the schema and the other properties");
        }
        _ if key.starts_with("delta.enableIcebergCompat") && on()? => {
            return refuse("commits cannot be kept readable as Iceberg here");
        }
        _ if key.starts_with(CONSTRAINTS) => Some("checkConstraints"),
        _ => None,
    };
    Ok(feature)
}

#[cfg(test)]
#[path = "features_tests.rs"]
mod tests;
