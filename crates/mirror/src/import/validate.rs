//! Compares the head of an imported table with what the Delta kernel reads from the files.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::action::{Add, Metadata, NullableMap};
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use deltalakedb_catalog_engine::retry::Retry;
use futures::TryStreamExt;
use serde_json::Value;

use super::Validation;
use super::spellings::Spellings;
use crate::kernel::{KernelFile, KernelState, LogLocation, read_state, same_protocol};

/// Differences that an error lists.
const MAX_LISTED: usize = 20;

/// Characters of a value in a difference.
const MAX_VALUE: usize = 500;

/// Differences found, of which the first are kept.
#[derive(Default)]
struct Differences {
    listed: Vec<String>,
    count: usize,
}

impl Differences {
    fn add(&mut self, text: impl FnOnce() -> String) {
        if self.listed.len() < MAX_LISTED {
            self.listed.push(text());
        }
        self.count += 1;
    }

    fn check<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, ours: &T, kernel: &T) {
        if ours != kernel {
            let cut = |value: &T| format!("{value:?}").chars().take(MAX_VALUE).collect::<String>();
            self.add(|| format!("{what}: the catalog has {}, the log {}", cut(ours), cut(kernel)));
        }
    }
}

/// Compares. A table that the kernel cannot read is `NotValidated`, which is no error.
///
/// # Errors
/// `Corrupt` with the differences.
pub(super) async fn validate(
    catalog: &Catalog,
    snapshot: &Snapshot,
    progress: &dyn Progress,
) -> Result<Validation> {
    let table = &snapshot.table;
    let location = LogLocation::Table(table.location.clone());
    let kernel = match read_state(location, &table.storage_options, Some(snapshot.version)).await {
        Ok(kernel) => kernel,
        Err(error) => return Ok(Validation::NotValidated { why: error.to_string() }),
    };
    let differences = compare(catalog, snapshot, kernel, progress).await?;
    if differences.count == 0 {
        return Ok(Validation::Passed);
    }
    let mut text = format!(
        "the import of '{}' at version {} is not what the Delta kernel reads from its log: {} \
         differences:",
        table.name, snapshot.version, differences.count
    );
    for difference in &differences.listed {
        text.push_str("\n  ");
        text.push_str(difference);
    }
    if differences.count > differences.listed.len() {
        text.push_str("\n  …");
    }
    text.push_str("\n--skip-validation imports what the log's commits say");
    Err(CatalogError::corrupt(text))
}

async fn compare(
    catalog: &Catalog,
    snapshot: &Snapshot,
    mut kernel: KernelState,
    progress: &dyn Progress,
) -> Result<Differences> {
    let (id, version) = (snapshot.table.id, snapshot.version);
    let mut found = Differences::default();
    if !same_protocol(&snapshot.protocol, &kernel.protocol) {
        found.check("protocol", &snapshot.protocol, &kernel.protocol);
    }
    compare_metadata(&mut found, &snapshot.metadata, &kernel.metadata);

    let mut spellings = Spellings::new(snapshot)?;
    let mut files = catalog.files(id, version);
    while let Some(file) = files.try_next().await? {
        spellings.note(&file);
        let key = file.add.key();
        match kernel.files.remove(&key) {
            None => found.add(|| format!("file {key}: it is in the catalog, not in the log")),
            Some(other) => compare_file(&mut found, &file.add, &other),
        }
        progress.advance(1);
    }
    for key in kernel.files.keys() {
        found.add(|| format!("file {key}: it is in the log, not in the catalog"));
    }
    for text in spellings.find(catalog, snapshot).await? {
        found.add(|| text);
    }

    let (retry, backend) = (Retry::of(catalog), catalog.backend());
    let txns = retry.repeat(|| backend.app_transactions(id, version)).await?;
    let txns: BTreeMap<_, _> = txns.into_iter().map(|t| (t.app_id.clone(), t)).collect();
    found.check("application transactions", &txns, &kernel.txns);
    let domains = retry.repeat(|| backend.domain_metadata(id, version)).await?;
    let domains: BTreeMap<_, _> = domains.into_iter().map(|d| (d.domain.clone(), d)).collect();
    found.check("domain metadata", &domains, &kernel.domain_metadata);
    Ok(found)
}

fn compare_metadata(found: &mut Differences, ours: &Metadata, kernel: &Metadata) {
    found.check("table id", &ours.id, &kernel.id);
    found.check("name", &ours.name, &kernel.name);
    found.check("description", &ours.description, &kernel.description);
    let [schema, other] = [ours, kernel].map(|m| serde_json::from_str::<Value>(&m.schema_string));
    match (schema, other) {
        // White space is not a difference.
        (Ok(schema), Ok(other)) => found.check("schema", &schema, &other),
        _ => found.check("schema", &ours.schema_string, &kernel.schema_string),
    }
    found.check("partition columns", &ours.partition_columns, &kernel.partition_columns);
    found.check("creation time", &ours.created_time, &kernel.created_time);
    // The kernel does not report properties that are null.
    let set = |m: &Metadata| -> NullableMap {
        m.configuration
            .iter()
            .filter(|(_, v)| v.is_some())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    found.check("properties", &set(ours), &set(kernel));
}

fn compare_file(found: &mut Differences, add: &Add, kernel: &KernelFile) {
    let key = add.key();
    let about = |what: &str| format!("file {key}, {what}");
    found.check(&about("size"), &add.size, &kernel.size);
    found.check(&about("modification time"), &add.modification_time, &kernel.modification_time);
    // An empty value is null, and so is one that is not there.
    let set = |values: &NullableMap| -> NullableMap {
        let set = values.iter().filter(|(_, v)| v.as_deref().is_some_and(|text| !text.is_empty()));
        set.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let (ours, theirs) = (set(&add.partition_values), set(&kernel.partition_values));
    found.check(&about("partition values"), &ours, &theirs);
    let deleted_rows = add.deletion_vector.as_ref().map(|v| v.cardinality);
    found.check(&about("deleted rows"), &deleted_rows, &kernel.deleted_rows);
    found.check(&about("first row id"), &add.base_row_id, &kernel.base_row_id);
    let [ours, theirs] = [&add.stats, &kernel.stats].map(|s| num_records(s.as_deref()));
    // A checkpoint may have been written without the statistics that the commit has.
    if theirs.is_some() {
        found.check(&about("row count"), &ours, &theirs);
    }
}

fn num_records(stats: Option<&str>) -> Option<u64> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stats {
        num_records: Option<u64>,
    }
    serde_json::from_str::<Stats>(stats?).ok()?.num_records
}
