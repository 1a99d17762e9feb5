//! Two states of a table against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use deltalakedb_catalog_core::action::{
    Add, DomainMetadata, FileKey, Metadata, NullableMap, Protocol, Txn,
};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::model::FileRecord;
use deltalakedb_catalog_engine::env::Progress;
use futures::stream::{BoxStream, TryStreamExt};

use super::report::{FieldDrift, FileDifference, FileDrift, FileDriftKind};
use crate::kernel::{KernelFile, same_protocol};

/// Files between two reports of progress.
const PROGRESS_STEP: u64 = 1_000;

/// Collects fields that differ.
#[derive(Default)]
struct Fields(Vec<FieldDrift>);

impl Fields {
    fn compare<T: PartialEq>(
        &mut self,
        field: impl Into<String>,
        catalog: Option<T>,
        log: Option<T>,
        show: impl Fn(T) -> String,
    ) {
        if catalog != log {
            let (catalog, log) = (catalog.map(&show), log.map(&show));
            self.0.push(FieldDrift { field: field.into(), catalog, log });
        }
    }

    fn text<T: PartialEq + Display>(
        &mut self,
        field: impl Into<String>,
        catalog: Option<T>,
        log: Option<T>,
    ) {
        self.compare(field, catalog, log, |v| v.to_string());
    }
}

/// Fields of the protocol. The order of features says nothing; some have had other names.
pub(super) fn protocol_drift(catalog: &Protocol, log: &Protocol) -> Vec<FieldDrift> {
    if same_protocol(catalog, log) {
        return Vec::new();
    }
    let mut fields = Fields::default();
    let (c, l) = (catalog, log);
    fields.text("minReaderVersion", Some(c.min_reader_version), Some(l.min_reader_version));
    fields.text("minWriterVersion", Some(c.min_writer_version), Some(l.min_writer_version));
    let set = |names: &Option<Vec<String>>| {
        names.as_ref().map(|n| n.iter().cloned().collect::<BTreeSet<_>>())
    };
    let show = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    fields.compare("readerFeatures", set(&c.reader_features), set(&l.reader_features), show);
    fields.compare("writerFeatures", set(&c.writer_features), set(&l.writer_features), show);
    fields.0
}

/// Fields of the metadata, the configuration key by key.
pub(super) fn metadata_drift(catalog: &Metadata, log: &Metadata) -> Vec<FieldDrift> {
    let mut fields = Fields::default();
    let (c, l) = (catalog, log);
    fields.text("id", Some(&c.id), Some(&l.id));
    fields.text("name", c.name.as_ref(), l.name.as_ref());
    fields.text("description", c.description.as_ref(), l.description.as_ref());
    fields.text("format.provider", Some(&c.format.provider), Some(&l.format.provider));
    // The same schema may be written in more than one way.
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    let same = c.schema_string == l.schema_string
        || json(&c.schema_string).is_some_and(|c| json(&l.schema_string) == Some(c));
    if !same {
        fields.text("schemaString", Some(&c.schema_string), Some(&l.schema_string));
    }
    let list = |columns: &Vec<String>| columns.join(", ");
    fields.compare(
        "partitionColumns",
        Some(&c.partition_columns),
        Some(&l.partition_columns),
        list,
    );
    fields.text("createdTime", c.created_time, l.created_time);
    let keys: BTreeSet<&String> = c.configuration.keys().chain(l.configuration.keys()).collect();
    for key in keys {
        // The kernel drops properties whose value is null.
        fields.text(format!("configuration.{key}"), c.property(key), l.property(key));
    }
    fields.0
}

/// Application transactions.
pub(super) fn transaction_drift(catalog: Vec<Txn>, log: &BTreeMap<String, Txn>) -> Vec<FieldDrift> {
    let catalog: BTreeMap<String, Txn> =
        catalog.into_iter().map(|t| (t.app_id.clone(), t)).collect();
    let mut fields = Fields::default();
    let apps: BTreeSet<&String> = catalog.keys().chain(log.keys()).collect();
    for app in apps {
        let version = |txns: &BTreeMap<String, Txn>| txns.get(app).map(|t| t.version);
        fields.text(format!("txn.{app}"), version(&catalog), version(log));
    }
    fields.0
}

/// Domain metadata in force.
pub(super) fn domain_drift(
    catalog: Vec<DomainMetadata>,
    log: &BTreeMap<String, DomainMetadata>,
) -> Vec<FieldDrift> {
    let catalog: BTreeMap<String, DomainMetadata> =
        catalog.into_iter().map(|d| (d.domain.clone(), d)).collect();
    let mut fields = Fields::default();
    let domains: BTreeSet<&String> = catalog.keys().chain(log.keys()).collect();
    for domain in domains {
        fields.text(
            format!("domainMetadata.{domain}"),
            catalog.get(domain).map(|d| &d.configuration),
            log.get(domain).map(|d| &d.configuration),
        );
    }
    fields.0
}

/// Files. Takes the log's map apart as the catalog's files stream by: what is left is only there.
pub(super) async fn file_drift(
    mut catalog: BoxStream<'static, Result<FileRecord>>,
    mut log: BTreeMap<FileKey, KernelFile>,
    max_examples: usize,
    progress: &dyn Progress,
) -> Result<FileDrift> {
    let mut drift = FileDrift::default();
    let mut examples = Examples { max: max_examples, kinds: BTreeMap::new() };
    let mut unmatched: BTreeSet<FileKey> = BTreeSet::new();
    let mut step = 0;
    while let Some(file) = catalog.try_next().await? {
        drift.compared += 1;
        step += 1;
        if step == PROGRESS_STEP {
            progress.advance(step);
            step = 0;
        }
        let key = file.add.key();
        match log.remove(&key) {
            None => {
                unmatched.insert(key);
            }
            Some(found) => {
                if let Some(difference) = difference(&key, &file.add, &found) {
                    drift.different += 1;
                    examples.add(difference);
                }
            }
        }
    }
    progress.advance(step);
    let path_only = |path: &str| FileKey { path: path.to_owned(), dv_id: String::new() };
    for key in unmatched {
        // The same path with another deletion vector is one difference, not two.
        let twin = log
            .range(path_only(&key.path)..)
            .next()
            .map(|(twin, _)| twin.clone())
            .filter(|twin| twin.path == key.path);
        let (path, dv_id) = (key.path, key.dv_id);
        if let Some(twin) = twin {
            log.remove(&twin);
            drift.different += 1;
            let (catalog, log) = (Some(dv_id.clone()), Some(twin.dv_id));
            let kind = FileDriftKind::DeletionVector;
            examples.add(FileDifference { path, dv_id, kind, catalog, log });
        } else {
            drift.only_in_catalog += 1;
            let kind = FileDriftKind::OnlyInCatalog;
            examples.add(FileDifference { path, dv_id, kind, catalog: None, log: None });
        }
    }
    for FileKey { path, dv_id } in log.into_keys() {
        drift.only_in_log += 1;
        let kind = FileDriftKind::OnlyInLog;
        examples.add(FileDifference { path, dv_id, kind, catalog: None, log: None });
    }
    drift.examples = examples.finish();
    Ok(drift)
}

/// The protocol takes an empty partition value for null, and a missing one is null too.
fn partition_value<'a>(values: &'a NullableMap, key: &str) -> Option<&'a str> {
    values.get(key).and_then(Option::as_deref).filter(|v| !v.is_empty())
}

fn difference(key: &FileKey, ours: &Add, found: &KernelFile) -> Option<FileDifference> {
    let differs = |kind, catalog: String, log: String| {
        let (path, dv_id) = (key.path.clone(), key.dv_id.clone());
        Some(FileDifference { path, dv_id, kind, catalog: Some(catalog), log: Some(log) })
    };
    if ours.size != found.size {
        return differs(FileDriftKind::Size, ours.size.to_string(), found.size.to_string());
    }
    let (c, l) = (&ours.partition_values, &found.partition_values);
    let different =
        c.keys().chain(l.keys()).any(|k| partition_value(c, k) != partition_value(l, k));
    if different {
        let show = |values: &NullableMap| serde_json::to_string(values).unwrap_or_default();
        return differs(FileDriftKind::PartitionValues, show(c), show(l));
    }
    let rows = ours.deletion_vector.as_ref().map(|d| d.cardinality);
    if rows != found.deleted_rows {
        let show = |rows: Option<i64>| format!("{} deleted rows", rows.unwrap_or(0));
        return differs(FileDriftKind::DeletionVector, show(rows), show(found.deleted_rows));
    }
    None
}

/// A few differences of each kind, shared out so that no kind hides the others.
struct Examples {
    max: usize,
    kinds: BTreeMap<FileDriftKind, Vec<FileDifference>>,
}

impl Examples {
    fn add(&mut self, difference: FileDifference) {
        let kind = self.kinds.entry(difference.kind).or_default();
        if kind.len() < self.max {
            kind.push(difference);
        }
    }

    fn finish(self) -> Vec<FileDifference> {
        let mut kinds: Vec<_> = self.kinds.into_values().map(Vec::into_iter).collect();
        let mut chosen = Vec::new();
        while chosen.len() < self.max {
            let before = chosen.len();
            for kind in &mut kinds {
                if chosen.len() < self.max {
                    chosen.extend(kind.next());
                }
            }
            if chosen.len() == before {
                break;
            }
        }
        chosen.sort_by(|a, b| (a.kind, &a.path, &a.dv_id).cmp(&(b.kind, &b.path, &b.dv_id)));
        chosen
    }
}
