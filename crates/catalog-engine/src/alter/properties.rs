//! Table properties and constraints.

use serde_json::json;

use super::mapping::{self, MAX_ID, MODE};
use super::mentions::CONSTRAINTS;
use super::{Step, Work};
use crate::features;
use deltalakedb_catalog_core::error::{CatalogError, Result};

/// Properties of the protocol and of Spark that mean something and need no feature of their own.
const KNOWN: &[&str] = &[
    "delta.appendOnly",
    "delta.autoOptimize",
    "delta.autoOptimize.autoCompact",
    "delta.autoOptimize.optimizeWrite",
    "delta.checkpoint.writeStatsAsJson",
    "delta.checkpoint.writeStatsAsStruct",
    "delta.checkpointInterval",
    "delta.checkpointPolicy",
    "delta.checkpointRetentionDuration",
    "delta.compatibility.symlinkFormatManifest.enabled",
    "delta.dataSkippingNumIndexedCols",
    "delta.dataSkippingStatsColumns",
    "delta.deletedFileRetentionDuration",
    "delta.enableChangeDataFeed",
    "delta.enableDeletionVectors",
    "delta.enableExpiredLogCleanup",
    "delta.enableInCommitTimestamps",
    "delta.enableRowTracking",
    "delta.enableTypeWidening",
    "delta.isolationLevel",
    "delta.logRetentionDuration",
    "delta.parquet.compression.codec",
    "delta.randomizeFilePrefixes",
    "delta.randomPrefixLength",
    "delta.sampleRetentionDuration",
    "delta.setTransactionRetentionDuration",
    "delta.targetFileSize",
    "delta.tuneFileSizesForRewrites",
];

/// Prefix of the properties by which clients ask for a feature.
const FEATURE: &str = "delta.feature.";
/// Longest key and value, in bytes.
const MAX_BYTES: usize = 64 * 1024;

impl Work<'_> {
    pub(super) fn set_property(&mut self, key: &str, value: &str) -> Result<Step> {
        if key.trim().is_empty() || key.len().max(value.len()) > MAX_BYTES {
            return Err(CatalogError::invalid(format!(
                "a property has a key, and key and value have at most {MAX_BYTES} bytes each"
            )));
        }
        refuse_internal(key)?;
        let step = || {
            let properties = json!({ key: value }).to_string();
            Step::new("SET TBLPROPERTIES", json!({ "properties": properties }))
        };
        if key == MODE {
            self.map_columns(value)?;
            return Ok(step());
        }
        if let Some(feature) = key.strip_prefix(FEATURE) {
            if !matches!(value, "supported" | "enabled") {
                return Err(CatalogError::invalid(format!(
                    "property {key} is '{value}': the only value is 'supported'"
                )));
            }
            // Turned on by its mode, which gives columns their ids.
            if feature == "columnMapping" {
                return Err(CatalogError::invalid(format!("property {key}: set {MODE}=name")));
            }
            if feature == "clustering" {
                return Err(CatalogError::Unsupported(format!(
                    "property {key}: a table is clustered by its writer, not by a property"
                )));
            }
            self.need(feature)?;
            return Ok(step());
        }
        if let Some(feature) = features::feature_of(key, value)? {
            self.need(feature)?;
        } else if key.starts_with("delta.") && !KNOWN.contains(&key) {
            let near = KNOWN.iter().find(|known| known.eq_ignore_ascii_case(key));
            return Err(CatalogError::Unsupported(format!(
                "property {key} is not known here{}",
                near.map(|known| format!(": it is spelt {known}")).unwrap_or_default()
            )));
        }
        if key == "delta.appendOnly" && value.eq_ignore_ascii_case("true") {
            self.need("appendOnly")?;
        }
        check_value(key, value)?;
        self.metadata.configuration.insert(key.to_owned(), Some(value.to_owned()));
        Ok(step())
    }

    pub(super) fn unset_property(&mut self, key: &str) -> Result<Step> {
        refuse_internal(key)?;
        if key == MODE {
            return Err(CatalogError::Unsupported(format!(
                "property {key} cannot be unset: the table's files know columns by the names that \
                 the mapping has for them"
            )));
        }
        if self.metadata.configuration.remove(key).is_none() {
            let known: Vec<&str> = self.metadata.configuration.keys().map(String::as_str).collect();
            return Err(CatalogError::invalid(format!(
                "the table has no property {key}; it has {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        }
        let properties = json!([key]).to_string();
        let parameters = json!({ "properties": properties, "ifExists": false });
        Ok(Step::new("UNSET TBLPROPERTIES", parameters))
    }

    /// Turns column mapping on: each column keeps its name in the files, and gets an id.
    fn map_columns(&mut self, mode: &str) -> Result<()> {
        let now = self.metadata.property(MODE).unwrap_or("none").to_ascii_lowercase();
        let wanted = mode.to_ascii_lowercase();
        match (now.as_str(), wanted.as_str()) {
            (a, b) if a == b => return Ok(()),
            ("none", "name") => {}
            (_, "none" | "name" | "id") => {
                return Err(CatalogError::Unsupported(format!(
                    "property {MODE} cannot go from '{now}' to '{wanted}': from 'none' to 'name' is \
                     the only change that leaves the files as they are"
                )));
            }
            _ => {
                return Err(CatalogError::invalid(format!(
                    "property {MODE} is '{mode}': it is none or name"
                )));
            }
        }
        self.need("columnMapping")?;
        let mut next = mapping::max_id(&self.metadata, &self.schema);
        for field in &mut self.schema.fields {
            mapping::assign(field, &mut next, &mut str::to_owned);
        }
        self.metadata.configuration.insert(MODE.to_owned(), Some(wanted));
        self.metadata.configuration.insert(MAX_ID.to_owned(), Some(next.to_string()));
        Ok(())
    }

    pub(super) fn add_constraint(&mut self, name: &str, expression: &str) -> Result<Step> {
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(word) {
            return Err(CatalogError::invalid(format!(
                "constraint '{}': its name has letters, digits, '_' and '-'",
                name.escape_debug()
            )));
        }
        if expression.trim().is_empty() {
            return Err(CatalogError::invalid(format!("constraint '{name}' has no expression")));
        }
        if let Some((_, old)) = self.constraint(name) {
            return Err(CatalogError::invalid(format!(
                "the table has a constraint '{name}' already: {old}"
            )));
        }
        self.need("checkConstraints")?;
        // As Spark spells the key.
        let key = format!("{CONSTRAINTS}{}", name.to_lowercase());
        self.metadata.configuration.insert(key, Some(expression.to_owned()));
        self.checks_rows = true;
        let parameters = json!({ "name": name, "expr": expression });
        Ok(Step::new("ADD CONSTRAINT", parameters))
    }

    pub(super) fn drop_constraint(&mut self, name: &str) -> Result<Step> {
        let Some((key, old)) = self.constraint(name) else {
            let known: Vec<&str> = self
                .metadata
                .configuration
                .keys()
                .filter_map(|key| key.strip_prefix(CONSTRAINTS))
                .collect();
            return Err(CatalogError::invalid(format!(
                "the table has no constraint '{name}'; it has {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        };
        self.metadata.configuration.remove(&key);
        let parameters = json!({ "name": name, "expr": old, "existed": "true" });
        Ok(Step::new("DROP CONSTRAINT", parameters))
    }

    /// A constraint's key and expression. Names differ by more than case.
    fn constraint(&self, name: &str) -> Option<(String, String)> {
        let wanted = format!("{CONSTRAINTS}{name}").to_lowercase();
        self.metadata
            .configuration
            .iter()
            .find(|(key, value)| value.is_some() && key.to_lowercase() == wanted)
            .and_then(|(key, value)| Some((key.clone(), value.clone()?)))
    }
}

/// What belongs to the protocol, and is not set by hand.
fn refuse_internal(key: &str) -> Result<()> {
    let why = match key {
        MAX_ID => "it follows from the columns",
        "delta.inCommitTimestampEnablementVersion"
        | "delta.inCommitTimestampEnablementTimestamp" => "it follows from the log",
        _ if key.to_lowercase().starts_with(CONSTRAINTS) => {
            "constraints are added and dropped by name"
        }
        _ if key.starts_with("delta.rowTracking.") => "it belongs to row tracking",
        _ if key.starts_with("delta.universalFormat.")
            || key.starts_with("delta.enableIceberg") =>
        {
            return Err(CatalogError::Unsupported(format!(
                "property {key}: commits cannot be kept readable as Iceberg here"
            )));
        }
        _ => return Ok(()),
    };
    Err(CatalogError::invalid(format!("property {key} is not set or unset by hand: {why}")))
}

/// Values that writers and readers of the table would stumble over.
fn check_value(key: &str, value: &str) -> Result<()> {
    let lower = value.to_ascii_lowercase();
    let expected = match key {
        "delta.checkpoint.writeStatsAsJson"
        | "delta.checkpoint.writeStatsAsStruct"
        | "delta.enableExpiredLogCleanup"
        | "delta.randomizeFilePrefixes"
        | "delta.autoOptimize"
        | "delta.autoOptimize.optimizeWrite"
        | "delta.tuneFileSizesForRewrites"
        | "delta.compatibility.symlinkFormatManifest.enabled"
            if !matches!(lower.as_str(), "true" | "false") =>
        {
            "true or false"
        }
        "delta.checkpointInterval" | "delta.randomPrefixLength"
            if !value.parse::<i32>().is_ok_and(|n| n > 0) =>
        {
            "a whole number from 1"
        }
        "delta.dataSkippingNumIndexedCols" if !value.parse::<i32>().is_ok_and(|n| n >= -1) => {
            "a whole number from -1"
        }
        "delta.isolationLevel"
            if !matches!(
                lower.as_str(),
                "serializable" | "writeserializable" | "snapshotisolation"
            ) =>
        {
            "Serializable, WriteSerializable or SnapshotIsolation"
        }
        "delta.logRetentionDuration"
        | "delta.deletedFileRetentionDuration"
        | "delta.checkpointRetentionDuration"
        | "delta.sampleRetentionDuration"
        | "delta.setTransactionRetentionDuration"
            if !is_interval(&lower) =>
        {
            "an interval, as 'interval 30 days'"
        }
        _ => return Ok(()),
    };
    Err(CatalogError::invalid(format!("property {key} is '{value}': {expected}")))
}

/// `interval 1 week 2 days`: whole numbers, and units up to weeks.
fn is_interval(lower: &str) -> bool {
    let text = lower.trim();
    let text = text.strip_prefix("interval ").unwrap_or(text);
    let words: Vec<&str> = text.split_whitespace().collect();
    let unit = |word: &str| {
        let word = word.strip_suffix('s').unwrap_or(word);
        matches!(
            word,
            "week" | "day" | "hour" | "minute" | "second" | "millisecond" | "microsecond"
        )
    };
    !words.is_empty()
        && words.len().is_multiple_of(2)
        && words.chunks(2).all(|pair| match pair {
            [number, name] => number.parse::<u32>().is_ok() && unit(name),
            _ => false,
        })
}
