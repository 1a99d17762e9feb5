//! Rows and lists of the registry.

use super::records::{Reader, RowFormat};
use crate::diagnosis::{Diagnosis, Level};
use crate::error::{CatalogError, Result};
use crate::registry::{Record, RecordKey};

/// The columns that [`registry_record`] reads, in this order.
pub const RECORD_COLUMNS: &str = "kind, name, revision, body, changed_at_ms";

/// A record, from the [`RECORD_COLUMNS`]; kind and name are text.
///
/// # Errors
/// `Corrupt` for a column that cannot be read.
pub fn registry_record<F: RowFormat>(row: &F::Row) -> Result<Record> {
    let reader = Reader::<F>::new(row, "the registry", None);
    let (kind, name): (String, String) = (reader.get(0)?, reader.get(1)?);
    Ok(Record {
        key: RecordKey::new(kind, name).map_err(|error| reader.bad_column(1, error))?,
        revision: reader.get(2)?,
        body: reader.get(3)?,
        changed_at: reader.time(4)?,
    })
}

/// The name that the records of a page come after, see
/// [`registry_list`](crate::backend::RegistryBackend::registry_list): no name is empty.
///
/// # Errors
/// `InvalidInput` for a kind or a name that no record has.
pub fn registry_after<'n>(kind: &str, after: Option<&'n str>) -> Result<&'n str> {
    RecordKey::check_kind(kind)?;
    after.map_or(Ok(()), RecordKey::check_name)?;
    Ok(after.unwrap_or_default())
}

/// What is to be said of a login's right to read the table of the registry; none: it is as it should be. `commits`:
/// the login may write to the catalog's other tables.
#[must_use]
pub fn registry_rights(table: &str, commits: bool, reads: bool) -> Option<Diagnosis> {
    match (commits, reads) {
        (true, false) => Some(Diagnosis::new(
            Level::Note,
            "registry",
            format!("this login may commit, and may not read {table}"),
            "a service that keeps keys and shares there needs it",
            "`dl grants --role writer --login NAME` prints the SQL that an administrator runs",
        )),
        (false, true) => Some(Diagnosis::new(
            Level::Note,
            "registry",
            format!("this login may not commit, and may read {table}"),
            "the table has hashes of keys, which a reader has no use for",
            format!("revoke its right on {table}, unless it makes backups"),
        )),
        _ => None,
    }
}

/// The error of a database that keeps no registry.
#[must_use]
pub fn no_registry(database: &str, schema_version: u32) -> CatalogError {
    CatalogError::Unsupported(format!(
        "catalogs in {database} keep no registry: they have schema version {schema_version}, and the registry came \
         with version 5"
    ))
}

/// The error of a registry without the row of its revision.
#[must_use]
pub fn no_revision(at: &str) -> CatalogError {
    CatalogError::corrupt(format!(
        "the registry of the catalog in '{at}' has lost the row with its revision: was it changed by another \
         program? Restore a backup"
    ))
}
