//! [`MirrorSink`] on real storage: local folders, and any object store with a conditional put.

mod local;
mod object;
mod traced;

use std::collections::BTreeMap;
use std::sync::Arc;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::sink::MirrorSink;

use crate::store::{log_location, normalize_location, open_store};

pub use local::LocalSink;
pub use object::ObjectSink;
pub use traced::traced_calls;

/// The sink of a table's log: `<location>/_delta_log`.
///
/// Nothing is written until the first put; folders are created then.
///
/// # Errors
/// Those of [`open_store`].
pub fn open_sink(
    location: &str,
    options: &BTreeMap<String, String>,
) -> Result<Arc<dyn MirrorSink>> {
    open_log_sink(&log_location(&normalize_location(location)?), options)
}

/// The sink of a log folder that is named itself, wherever it lies.
///
/// # Errors
/// Those of [`open_store`].
pub fn open_log_sink(
    log_dir: &str,
    options: &BTreeMap<String, String>,
) -> Result<Arc<dyn MirrorSink>> {
    let store = open_store(log_dir, options)?;
    Ok(traced::traced(match store.local {
        Some(folder) => Arc::new(LocalSink::new(folder)),
        None => Arc::new(ObjectSink::new(store.store, store.root, store.url.as_str())),
    }))
}

/// Names are relative paths of plain segments: nothing leads out of the log folder.
fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.split('/').all(|s| !s.is_empty() && s != "." && s != "..")
        && !name.contains(['\\', '\0']);
    if fine {
        Ok(())
    } else {
        Err(CatalogError::invalid(format!(
            "'{}' is no name of an object in a log folder",
            name.escape_debug()
        )))
    }
}

#[cfg(test)]
#[path = "sink/tests.rs"]
mod tests;
