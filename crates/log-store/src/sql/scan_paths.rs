//! Paths of the files of a scan: by what they mean, however the table's log spells them.
//!
//! A scan's log has an address of its own, so paths that are absolute, or that climb out of the root and
//! back, would lead nowhere, or past the credentials of the table. All are written anew.

use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TableName;
use deltalakedb_catalog_core::paths::{Place, Resolved, TableRoot, encode};
use deltalakedb_mirror::store::Store;
use url::Url;

use super::scan_log::outside_url;

/// Writes the paths of a table's files for a scan.
#[derive(Debug, Clone)]
pub(super) struct ScanPaths {
    table: TableName,
    root: TableRoot,
    /// Where the scan has the table's root; with a slash at its end.
    scan: Url,
}

impl ScanPaths {
    /// # Errors
    /// Those of the table's location.
    pub(super) fn new(table: &TableName, storage: &Store, scan: &Url) -> Result<ScanPaths> {
        Ok(ScanPaths { table: table.clone(), root: storage.paths()?, scan: scan.clone() })
    }

    /// The add as the scan's log has it.
    ///
    /// # Errors
    /// `InvalidInput` for a file that cannot be placed, or lies in another store than the table.
    pub(super) fn write(&self, mut add: Add) -> Result<Add> {
        if !TableRoot::stays_inside(&add.path) {
            let found = self.root.resolve(&add.path).map_err(|e| self.unreadable(&add.path, &e))?;
            add.path = match &found.place {
                Place::Inside(key) => encode(key),
                Place::Outside(_) => self.url(&found)?,
            };
        }
        if let Some(vector) = add.deletion_vector.as_mut().filter(|v| v.storage_type == "p") {
            let found = self.root.resolve_vector(vector);
            if let Some(found) =
                found.map_err(|e| self.unreadable(&vector.path_or_inline_dv, &e))?
            {
                vector.path_or_inline_dv = self.url(&found)?;
            }
        }
        Ok(add)
    }

    /// The address of a file for the scan's store.
    fn url(&self, found: &Resolved) -> Result<String> {
        match &found.place {
            Place::Inside(key) => Ok(format!("{}{}", self.scan, encode(key))),
            Place::Outside(outside) if outside.same_volume => {
                Ok(outside_url(&self.scan, &encode(&outside.key)))
            }
            Place::Outside(outside) => Err(self.unreadable(
                &outside.url,
                &"it lies in another store than the table, for which there are no credentials here. \
                  Copy the table with its files (a deep clone), or read it by an engine that has both",
            )),
        }
    }

    fn unreadable(&self, file: &str, why: &dyn std::fmt::Display) -> CatalogError {
        CatalogError::invalid(format!(
            "file '{file}' of table '{}' cannot be read: {why}",
            self.table
        ))
    }
}
