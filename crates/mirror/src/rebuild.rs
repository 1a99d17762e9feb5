//! A catalog from published logs alone: the mirror is a backup of the catalog.
//!
//! Every table below a place is imported with all the history that its log still has. What had been
//! committed and not published when the catalog was lost is lost with it.
//!
//! Each commit of a catalog carries the name that its table had there (`commitInfo.catalogTable`, see
//! [`signature`]), so the newest commit of ours in a log says what the table was called. A log in which
//! no catalog has committed (one that was imported, and not changed since) says nothing, as an import
//! writes nothing: such a table is named after its folder.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::commit::commit_info_object;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TableName;
use deltalakedb_catalog_core::model::TableState;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use deltalakedb_catalog_engine::signature;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Serialize;

use crate::import::{ImportOptions, ImportReport, import_table};
use crate::log::listing::LogName;
use crate::sink::open_sink;
use crate::store::{LOG_FOLDER, open_store, place_key, store_error};

/// Names of tables whose logs say none.
pub const FOLDERS: &str = "{parent}.{name}";

/// Commits that are looked at for a table's name, from the newest on: in between there may be those of
/// other programs.
const NAMING_COMMITS: usize = 64;
/// So much of a commit is read for that: `commitInfo` is the first line of ours.
const NAMING_BYTES: u64 = 64 * 1024;

/// Folders below the place that are looked into, one in the other.
const MAX_DEPTH: usize = 12;
/// Stands for the name of a table's folder in a name pattern.
const NAME: &str = "{name}";
/// Stands for the name of the folder above it.
const PARENT: &str = "{parent}";

/// Where tables are looked for, and what they are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildOptions {
    /// Folder or URL whose tables are imported, at any depth.
    pub from: String,
    /// Options of the object store; secrets only by reference (`env:NAME`, `file:/path`).
    pub storage_options: BTreeMap<String, String>,
    /// Name of each table, with `{name}` for its folder's name and `{parent}` for that of the folder
    /// above (`default` where that is the place itself). Dots in them become underscores. None: the
    /// name that the log says, and [`FOLDERS`] where it says none.
    pub names: Option<String>,
    /// Do not compare the results with what the Delta kernel reads.
    pub skip_validation: bool,
}

/// One table of a rebuild.
#[derive(Debug, Serialize)]
pub struct RebuiltTable {
    /// Where it is.
    pub location: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: RebuildOutcome,
}

/// What became of a table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum RebuildOutcome {
    /// Imported now.
    Imported(Box<ImportReport>),
    /// It was in the catalog already, under this name.
    There {
        /// Its name.
        name: TableName,
    },
    /// Not imported.
    Failed {
        /// Why.
        error: String,
    },
}

/// Locations of the Delta tables in a place, at any depth, sorted. Tables inside of tables are not
/// looked for.
///
/// # Errors
/// Those of the store.
pub async fn find_tables(
    from: &str,
    storage_options: &BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let place = open_store(from, storage_options)?;
    let mut found = Vec::new();
    let mut next = vec![place.root.clone()];
    for _ in 0..=MAX_DEPTH {
        let mut below = Vec::new();
        for folder in next {
            let prefix = (!folder.is_root()).then_some(&folder);
            let listed = match place.store.list_with_delimiter(prefix).await {
                Ok(listed) => listed,
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(e) => {
                    return Err(store_error(&format!("cannot list '{}'", place.url), &e));
                }
            };
            let is_log = |path: &Path| path.filename() == Some(LOG_FOLDER);
            if listed.common_prefixes.iter().any(is_log) {
                let inside: Vec<String> =
                    folder.parts().skip(place.root.parts().count()).map(segment).collect();
                let base = place.url.as_str().trim_end_matches('/');
                found.push([&[base.to_owned()], inside.as_slice()].concat().join("/"));
                continue;
            }
            let hidden = |path: &Path| path.filename().is_none_or(|n| n.starts_with(['_', '.']));
            below.extend(listed.common_prefixes.into_iter().filter(|path| !hidden(path)));
        }
        next = below;
    }
    found.sort();
    Ok(found)
}

/// A segment of a store's path as one of a URL. The store's own encoding of odd characters stays.
fn segment(part: object_store::path::PathPart<'_>) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const ODD: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'=')
        .remove(b'+')
        .remove(b'@');
    utf8_percent_encode(part.as_ref(), ODD).to_string()
}

/// The name of a table at a location below a place.
fn name_of(pattern: &str, from: &str, location: &str) -> Result<TableName> {
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(text).decode_utf8_lossy().replace('.', "_")
    };
    let inside = location.strip_prefix(from.trim_end_matches('/')).unwrap_or(location);
    let mut folders: Vec<&str> = inside.split('/').filter(|s| !s.is_empty()).collect();
    let name = match folders.pop() {
        Some(name) => decode(name),
        // The place itself is a table.
        None => decode(location.rsplit('/').next().unwrap_or_default()),
    };
    let parent = folders.pop().map_or_else(|| "default".to_owned(), decode);
    Ok(pattern.replace(NAME, &name).replace(PARENT, &parent).parse()?)
}

/// Imports every table below a place and takes it over: from now on this catalog publishes it.
///
/// A table that is in the catalog already is left alone, and one whose import was interrupted is
/// continued: a rebuild that died is repeated.
///
/// # Errors
/// Those of listing the place, and of the database. What is wrong with one table is in its outcome.
pub async fn rebuild(
    catalog: &Catalog,
    options: &RebuildOptions,
    progress: &dyn Progress,
) -> Result<Vec<RebuiltTable>> {
    let catalog = &catalog.clone().on_primary();
    if let Some(names) = options.names.as_ref().filter(|names| !names.contains(NAME)) {
        return Err(CatalogError::invalid(format!(
            "'{names}' gives all tables one name: it needs {NAME} for the name of a table's folder"
        )));
    }
    let from = crate::store::normalize_location(&options.from)?;
    let mut there = BTreeMap::new();
    // Where each name is taken: by what is in the catalog, and by what will be.
    let mut taken: BTreeMap<TableName, Vec<String>> = BTreeMap::new();
    let mut tables =
        catalog.tables(TableFilter { namespace: None, state: Some(TableState::Active) });
    while let Some(table) = tables.try_next().await? {
        taken.entry(table.name.clone()).or_default().push(table.location.clone());
        there.insert(place_key(&table.location), table.name);
    }
    let mut found = Vec::new();
    for location in find_tables(&from, &options.storage_options).await? {
        let name = match there.get(&place_key(&location)) {
            Some(_) => None,
            None => Some(name_for(options, &from, &location).await),
        };
        if let Some(Ok(name)) = &name {
            taken.entry(name.clone()).or_default().push(location.clone());
        }
        found.push((location, name));
    }
    let mut rebuilt = Vec::new();
    for (location, name) in found {
        let imported = match name {
            None => None,
            Some(Err(e)) => Some(Err(e)),
            Some(Ok(name)) => Some(match taken.get(&name).filter(|at| at.len() > 1) {
                Some(at) => Err(one_name(&name, at)),
                None => one(catalog, options, name, &location, progress).await,
            }),
        };
        let outcome = match (imported, there.get(&place_key(&location))) {
            (Some(Ok(report)), _) => RebuildOutcome::Imported(Box::new(report)),
            (Some(Err(e)), _) => RebuildOutcome::Failed { error: e.to_string() },
            (None, Some(name)) => RebuildOutcome::There { name: name.clone() },
            (None, None) => continue,
        };
        rebuilt.push(RebuiltTable { location, outcome });
    }
    Ok(rebuilt)
}

/// The error of tables that would have one name: which of them it belongs to is not for us to say.
fn one_name(name: &TableName, at: &[String]) -> CatalogError {
    CatalogError::invalid(format!(
        "'{name}' would be the name of {} tables: {}. None of them was imported under it: move those \
         that are copies elsewhere, or name all tables after their folders (--names '{FOLDERS}')",
        at.len(),
        at.join(", ")
    ))
}

/// What a table is called: by the pattern, by its log, or by its folder.
async fn name_for(options: &RebuildOptions, from: &str, location: &str) -> Result<TableName> {
    if let Some(names) = &options.names {
        return name_of(names, from, location);
    }
    match recorded_name(location, &options.storage_options).await? {
        Some(name) => Ok(name),
        None => name_of(FOLDERS, from, location),
    }
}

/// The name that a table had in the catalog that published its log: what the newest commit says that
/// says one.
///
/// # Errors
/// Those of the store.
pub async fn recorded_name(
    location: &str,
    storage_options: &BTreeMap<String, String>,
) -> Result<Option<TableName>> {
    let place = open_store(location, storage_options)?;
    let log = place.log_dir();
    let mut commits: Vec<String> = open_sink(location, storage_options)?
        .list(None)
        .await?
        .into_iter()
        .filter(|entry| entry.size_bytes > 0)
        .map(|entry| entry.name)
        .filter(|name| matches!(LogName::parse(name), LogName::Commit(_)))
        .collect();
    commits.sort();
    for name in commits.iter().rev().take(NAMING_COMMITS) {
        let path = log.clone().join(name.as_str());
        let start = match place.store.get_range(&path, 0..NAMING_BYTES).await {
            Ok(start) => start,
            // It was cleaned up since the listing.
            Err(object_store::Error::NotFound { .. }) => continue,
            Err(e) => return Err(store_error(&format!("cannot read '{location}': {name}"), &e)),
        };
        let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let info = std::str::from_utf8(line).ok().and_then(commit_info_object);
        if let Some(name) = info.and_then(signature::table_of) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

async fn one(
    catalog: &Catalog,
    options: &RebuildOptions,
    name: TableName,
    location: &str,
    progress: &dyn Progress,
) -> Result<ImportReport> {
    let import = ImportOptions {
        storage_options: options.storage_options.clone(),
        skip_validation: options.skip_validation,
        resume: true,
        take_over: true,
        ..ImportOptions::new(name, location)
    };
    import_table(catalog, import, progress).await
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
