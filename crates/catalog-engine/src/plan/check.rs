//! Checks of what a commit says, line by line.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use super::MAX_PATH_BYTES;
use crate::canonical::Canonical;
use crate::features;
use crate::schema::StructType;
use deltalakedb_catalog_core::action::{
    Action, Add, FileKey, Metadata, NullableMap, Protocol, Remove,
};
use deltalakedb_catalog_core::commit::ParsedLine;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::paths::relative_key;

/// What adds of a table must be.
#[derive(Debug)]
pub(super) struct OfAdds {
    /// Keys that `partitionValues` has: physical column names.
    partitions: Vec<String>,
    /// What their values must be.
    canonical: Canonical,
    /// Whether files may have deletion vectors.
    vectors: bool,
}

impl OfAdds {
    pub(super) fn new(protocol: &Protocol, metadata: &Metadata) -> Result<OfAdds> {
        let vectors = features::supports_writer(protocol, "deletionVectors");
        let canonical = Canonical::of(metadata);
        Ok(OfAdds { partitions: partition_keys(metadata)?, canonical, vectors })
    }
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

/// Checks of single lines, and of lines against each other.
pub(super) struct Checker<'a> {
    origin: &'a str,
    pub(super) line: usize,
}

impl<'a> Checker<'a> {
    pub(super) fn new(origin: &'a str) -> Self {
        Checker { origin, line: 0 }
    }

    pub(super) fn fail<T>(&self, what: impl std::fmt::Display) -> Result<T> {
        Err(CatalogError::invalid(format!("{}, line {}: {what}", self.origin, self.line)))
    }

    /// `before` is the metadata that is in force.
    pub(super) fn metadata(&self, metadata: &Metadata, before: Option<&Metadata>) -> Result<()> {
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
            let is_new = before.is_none_or(|before| !before.partition_columns.contains(column));
            if is_new && let Err(what) = schema.check_partition_column(column) {
                return self.fail(what);
            }
        }
        self.no_new_void(&schema, before)
    }

    /// Writers cast what they are given to the column's type, and to `void` everything casts, as
    /// null. A table that came with such a column keeps it.
    fn no_new_void(&self, schema: &StructType, before: Option<&Metadata>) -> Result<()> {
        let mut void = schema.void_columns();
        if void.is_empty() {
            return Ok(());
        }
        if let Some(before) = before.and_then(|m| StructType::parse(&m.schema_string).ok()) {
            let before = before.void_columns();
            void.retain(|column| !before.contains(column));
        }
        match void.first() {
            Some(column) => self.fail(format_args!(
                "metaData.schemaString: column '{column}' is of type void, which holds nothing but \
                 null: give it a type, or leave it out until it has values"
            )),
            None => Ok(()),
        }
    }

    pub(super) fn actions(
        &mut self,
        lines: &[ParsedLine<'_>],
        protocol: &Protocol,
        metadata: &Metadata,
        of_adds: &OfAdds,
    ) -> Result<()> {
        let append_only = features::is_append_only(protocol, metadata);
        let mut files: BTreeMap<FileKey, usize> = BTreeMap::new();
        let mut apps: BTreeMap<&str, usize> = BTreeMap::new();
        let mut domains: BTreeMap<&str, usize> = BTreeMap::new();
        for line in lines {
            self.line = line.number;
            let key = match &line.action {
                Action::Add(add) => {
                    self.add(add, of_adds)?;
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
                    self.partition_values(&cdc.path, &cdc.partition_values, of_adds)?;
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
            if let Some(key) = key {
                // By what it means: one file has one action, however its path is spelt.
                let path = relative_key(&key.path).into_owned();
                let same = FileKey { path, dv_id: key.dv_id.clone() };
                if let Some(first) = files.insert(same, line.number) {
                    return self.file_again(&key, first);
                }
            }
        }
        Ok(())
    }

    /// A file has an action in this line, and had one in an earlier line.
    pub(super) fn file_again<T>(&self, key: &FileKey, first: usize) -> Result<T> {
        self.fail(format_args!(
            "file {key} has an action in line {first} already: a commit has at most one 'add' or \
             'remove' for a file and deletion vector"
        ))
    }

    pub(super) fn add(&self, add: &Add, of_adds: &OfAdds) -> Result<()> {
        self.path(&add.path)?;
        if add.size < 0 {
            return self.fail(format_args!("size {} of '{}' is negative", add.size, add.path));
        }
        if let Some(stats) = &add.stats
            && let Err(e) = serde_json::from_str::<BTreeMap<String, &RawValue>>(stats)
        {
            return self.fail(format_args!("stats of '{}' are not a JSON object: {e}", add.path));
        }
        self.partition_values(&add.path, &add.partition_values, of_adds)?;
        if add.deletion_vector.is_some() && !of_adds.vectors {
            return self
                .fail("a deletion vector, but the protocol lacks the feature deletionVectors");
        }
        Ok(())
    }

    fn partition_values(&self, path: &str, values: &NullableMap, of_adds: &OfAdds) -> Result<()> {
        let partitions = &of_adds.partitions;
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
        if let Err(what) = of_adds.canonical.check_new_values(values) {
            return self.fail(format_args!("'{path}': {what}"));
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
