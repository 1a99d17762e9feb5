//! Copying the registry: all of its records as they are, with its revision, or none.

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::registry::{Record, RecordKey};
use deltalakedb_catalog_engine::catalog::Catalog;

/// Records that are read at a time.
const ROWS: usize = 100;
/// How often the records are read anew, as others write meanwhile.
const MOST_READS: usize = 50;

/// The registry of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registry {
    /// Its revision; 0: nothing was ever written.
    pub(crate) revision: i64,
    /// All records, in the order of their keys.
    pub(crate) records: Vec<Record>,
}

/// What a catalog's registry has; none if the database keeps no registry.
///
/// # Errors
/// `Unavailable` if it does not stop changing; those of the database.
pub(crate) async fn read(of: &Catalog) -> Result<Option<Registry>> {
    let mut before = match of.registry_revision().await {
        Err(CatalogError::Unsupported(_)) => return Ok(None),
        revision => revision?,
    };
    for _ in 0..MOST_READS {
        let (mut records, mut after): (Vec<Record>, Option<RecordKey>) = (Vec::new(), None);
        loop {
            let page = of.registry_all(after.as_ref(), ROWS).await?;
            records.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let revision = of.registry_revision().await?;
        if revision == before {
            return Ok(Some(Registry { revision, records }));
        }
        before = revision;
    }
    Err(CatalogError::busy(
        "the registry does not stop changing: nothing of it was read. Stop its writers, then run the same command again",
        deltalakedb_catalog_core::error::WriteState::NotApplied,
    ))
}

/// Fails unless a catalog can get this registry: it has the same already, or nothing was ever written to its own.
/// Whether it has the same.
///
/// # Errors
/// `InvalidInput` if it has another one; `Unsupported` if its database keeps none, and there are records.
pub(crate) async fn check(to: &Catalog, registry: &Registry) -> Result<bool> {
    let Some(there) = read(to).await? else {
        if registry.records.is_empty() {
            return Ok(true);
        }
        return Err(CatalogError::Unsupported(format!(
            "the registry has {} records (keys, principals, shares), and the target's database keeps no registry: \
             choose another database, or delete them first",
            registry.records.len()
        )));
    };
    if there == *registry {
        return Ok(true);
    }
    if there.revision == 0 {
        return Ok(false);
    }
    Err(CatalogError::invalid(format!(
        "the target's registry has {} records at revision {}, and they are not the {} records at revision {} that it \
         would get. None of them is overwritten: choose an empty catalog",
        there.records.len(),
        there.revision,
        registry.records.len(),
        registry.revision
    )))
}

/// Fills a catalog's registry, unless it has the same already, and compares it.
///
/// # Errors
/// Those of [`check`]; `Corrupt` if it is not the same afterwards.
pub(crate) async fn put(to: &Catalog, registry: &Registry) -> Result<()> {
    if check(to, registry).await? {
        return Ok(());
    }
    // It may be filled by an attempt whose answer was lost, or by another process: then it is compared, too.
    to.registry_load(&registry.records, registry.revision).await?;
    match read(to).await? {
        Some(there) if there == *registry => Ok(()),
        _ => Err(CatalogError::corrupt(format!(
            "the target's registry is not the same as the {} records at revision {} that it was filled with: another \
             program writes to it. Stop that program, and begin with an empty catalog",
            registry.records.len(),
            registry.revision
        ))),
    }
}
