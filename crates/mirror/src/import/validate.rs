//! Compares the head of an imported table with what the Delta kernel reads from the files.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::action::{Add, Metadata};
use deltalakedb_catalog_core::catalog::Catalog;
use deltalakedb_catalog_core::env::Progress;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::model::Snapshot;
use futures::TryStreamExt;

use super::Validation;
use crate::kernel::{KernelFile, KernelState, LogLocation, read_state, same_protocol};

/// Differences that an error lists.
const MAX_LISTED: usize = 20;

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
            self.add(|| format!("{what}: the catalog has {ours:?}, the log {kernel:?}"));
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
        "the import of '{}' at version {} is not what the Delta kernel reads from its log, and \
         was undone. {} differences:",
        table.name, snapshot.version, differences.count
    );
    for difference in &differences.listed {
        text.push_str("\n  ");
        text.push_str(difference);
    }
    if differences.count > differences.listed.len() {
        text.push_str("\n  …");
    }
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
    found.check("metadata", &comparable(&snapshot.metadata), &comparable(&kernel.metadata));

    let mut files = catalog.files(id, version);
    while let Some(file) = files.try_next().await? {
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

    let txns = catalog.backend().app_transactions(id, version).await?;
    let txns: BTreeMap<_, _> = txns.into_iter().map(|t| (t.app_id.clone(), t)).collect();
    found.check("application transactions", &txns, &kernel.txns);
    let domains = catalog.backend().domain_metadata(id, version).await?;
    let domains: BTreeMap<_, _> = domains.into_iter().map(|d| (d.domain.clone(), d)).collect();
    found.check("domain metadata", &domains, &kernel.domain_metadata);
    Ok(found)
}

/// Metadata without what the kernel does not report: null properties, format options.
fn comparable(metadata: &Metadata) -> Metadata {
    let mut metadata = metadata.clone();
    metadata.configuration.retain(|_, value| value.is_some());
    metadata.format.options.clear();
    metadata
}

fn compare_file(found: &mut Differences, add: &Add, kernel: &KernelFile) {
    let key = add.key();
    let mut check = |what: &str, same: bool| {
        if !same {
            found.add(|| {
                format!("file {key}: another {what}; the catalog has {add:?}, the log {kernel:?}")
            });
        }
    };
    check("size", add.size == kernel.size);
    check("modification time", add.modification_time == kernel.modification_time);
    check("set of partition values", add.partition_values == kernel.partition_values);
    check(
        "number of deleted rows",
        add.deletion_vector.as_ref().map(|v| v.cardinality) == kernel.deleted_rows,
    );
    check("first row id", add.base_row_id == kernel.base_row_id);
    check("row count", num_records(add.stats.as_deref()) == num_records(kernel.stats.as_deref()));
}

fn num_records(stats: Option<&str>) -> Option<u64> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stats {
        num_records: Option<u64>,
    }
    serde_json::from_str::<Stats>(stats?).ok()?.num_records
}
