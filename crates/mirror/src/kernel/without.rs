//! What a build without the Delta kernel answers.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::Version;

use super::{KernelState, LogLocation};

/// Would read the state of a table with the Delta kernel, which this build does not have.
///
/// # Errors
/// Always `Unsupported`: it names the cargo feature that is missing.
pub async fn read_state(
    _: LogLocation,
    _: &BTreeMap<String, String>,
    _: Option<Version>,
) -> Result<KernelState> {
    Err(CatalogError::Unsupported(
        "this program was built without the Delta kernel, which reads a log from its files alone: \
         build it with the cargo feature `kernel`"
            .to_owned(),
    ))
}

/// The name itself: names of previews count as other features.
pub(super) fn feature_name(name: &str) -> String {
    name.to_owned()
}
