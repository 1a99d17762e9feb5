//! Parquet files that exist already, described as `add` actions.
//!
//! Only footers are read. A file is taken only if every Delta reader sees in it what the table's
//! schema promises: names, types and nullability are compared column by column, and partition
//! values come from the `column=value` folders of its path.

mod columns;
mod location;
mod stats;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_engine::features::check_append;
use deltalakedb_catalog_engine::schema::StructType;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::async_reader::MetadataFetch;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

pub use location::locate;

/// Footers that are read at once.
const CONCURRENCY: usize = 16;
/// Bytes read from the end of a file at once: most footers fit, so that one request is enough.
const FOOTER_GUESS: usize = 64 * 1024;

/// Describes files that lie below a table's root, for appending them to it, in the order given.
///
/// `files` are paths in `store` ([`locate`] makes them from what people write), `root` is the
/// table's. Statistics come from the files' row groups (protocol section "Per-file Statistics"):
/// bounds are never tighter than the data, and what a footer cannot tell is left out. So floating
/// point columns have no maximum, as footers do not tell whether there is a NaN, which readers
/// sort above all numbers.
///
/// # Errors
/// `Unsupported` if the table's features keep us from appending; `InvalidInput` naming the file,
/// the column, what was expected and what was found; `Unavailable` if a file cannot be read.
pub async fn describe_files(
    snapshot: &Snapshot,
    store: &Arc<dyn ObjectStore>,
    root: &Path,
    files: &[Path],
) -> Result<Vec<Add>> {
    let metadata = &snapshot.metadata;
    let schema = StructType::parse(&metadata.schema_string)?;
    check_append(&snapshot.protocol, metadata, &schema)?;
    let table = location::Layout::new(root, &schema, &metadata.partition_columns)?;
    let data = columns::data_columns(&schema, &metadata.partition_columns);
    let indexed = stats::Indexed::new(metadata, &data)?;
    let mut seen = BTreeSet::new();
    for file in files {
        if !seen.insert(file) {
            return Err(CatalogError::invalid(format!(
                "file '{}' is named twice",
                shown(root, file)
            )));
        }
    }
    let (table, data, indexed) = (&table, &data, &indexed);
    // Files of their own: with borrowed ones the compiler cannot see that this may be sent to another
    // thread, as servers need it.
    futures::stream::iter(files.to_vec())
        .map(|file| async move {
            let place = table.place(&file)?;
            let name = shown(root, &file);
            let (object, footer) = read_footer(store, &file, &name).await?;
            let columns = columns::check(&name, &footer, data, &metadata.partition_columns)?;
            Ok(Add {
                path: place.encoded,
                partition_values: place.partition_values,
                size: i64::try_from(object.size).map_err(|_| {
                    CatalogError::invalid(format!("file '{name}' has {} bytes", object.size))
                })?,
                modification_time: object.last_modified.timestamp_millis(),
                data_change: true,
                stats: Some(stats::to_json(&footer, &columns, indexed)),
                tags: None,
                deletion_vector: None,
                base_row_id: None,
                default_row_commit_version: None,
                clustering_provider: None,
            })
        })
        .buffered(CONCURRENCY)
        .try_collect()
        .await
}

/// The Delta schema of a Parquet file's columns, for creating a table that holds it.
///
/// # Errors
/// `InvalidInput` naming a column whose type Delta does not have; `Unavailable` if the file cannot
/// be read.
pub async fn infer_schema(store: &Arc<dyn ObjectStore>, file: &Path) -> Result<StructType> {
    let name = file.filename().unwrap_or_default();
    let (_, footer) = read_footer(store, file, name).await?;
    columns::infer(name, &footer)
}

/// A file as people know it: relative to its table.
fn shown(root: &Path, file: &Path) -> String {
    let below = file.prefix_match(root).map(Iterator::collect::<Path>);
    below.as_ref().unwrap_or(file).to_string()
}

/// Ranges of one object. A failed request is kept aside, as the Parquet reader would turn it into
/// text.
struct Fetch<'a> {
    store: &'a Arc<dyn ObjectStore>,
    path: &'a Path,
    failure: &'a mut Option<object_store::Error>,
}

impl MetadataFetch for Fetch<'_> {
    fn fetch(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            match self.store.get_range(self.path, range).await {
                Ok(bytes) => Ok(bytes),
                Err(error) => {
                    *self.failure = Some(error);
                    Err(ParquetError::General("the store failed".to_owned()))
                }
            }
        }
        .boxed()
    }
}

async fn read_footer(
    store: &Arc<dyn ObjectStore>,
    file: &Path,
    name: &str,
) -> Result<(ObjectMeta, ParquetMetaData)> {
    let object = store.head(file).await.map_err(|e| unreadable(name, &e))?;
    let mut failure = None;
    let fetch = Fetch { store, path: file, failure: &mut failure };
    let read = ParquetMetaDataReader::new()
        .with_prefetch_hint(Some(FOOTER_GUESS))
        .load_and_finish(fetch, object.size)
        .await;
    match (read, failure) {
        (Ok(footer), _) => Ok((object, footer)),
        (Err(_), Some(failure)) => Err(unreadable(name, &failure)),
        (Err(error), None) => Err(CatalogError::invalid(format!(
            "file '{name}' is not a readable Parquet file: {}",
            match error {
                ParquetError::General(text) | ParquetError::EOF(text) => text,
                other => other.to_string(),
            }
        ))),
    }
}

fn unreadable(name: &str, error: &object_store::Error) -> CatalogError {
    use object_store::Error as E;
    let why = match error {
        E::NotFound { .. } => {
            return CatalogError::invalid(format!("file '{name}' does not exist"));
        }
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            "the store refuses these credentials, or they lack the right".to_owned()
        }
        // A URL in it may carry a signature behind a question mark.
        other => other
            .to_string()
            .split(' ')
            .map(|word| word.split_once('?').map_or(word, |(before, _)| before))
            .collect::<Vec<_>>()
            .join(" "),
    };
    CatalogError::failed(format!("cannot read file '{name}': {why}"), WriteState::NotApplied)
}

#[cfg(test)]
mod tests;
