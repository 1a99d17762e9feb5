//! Where tables may be created, and which files a commit may name.
//!
//! A client chooses neither freely: a location could be a folder of somebody else, or a server of the network that only
//! this service reaches; a file that a commit names is read, and later handed out, on behalf of others.

use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use deltalakedb::core::action::{Action, DeletionVector};
use deltalakedb::core::paths::{Place, Resolved, TableRoot};
use deltalakedb::mirror::store::normalize_location;
use deltalakedb::{CatalogError, TableName};
use url::Url;
use uuid::Uuid;

use crate::problem::{Answer, Failed};

/// The roots that tables may be created below.
#[derive(Debug)]
pub(crate) struct Places {
    roots: Vec<(String, TableRoot)>,
}

impl Places {
    /// Roots as they are configured.
    pub(crate) fn new(roots: &[String]) -> Result<Places, CatalogError> {
        let root = |text: &String| {
            let url = normalize_location(text)?;
            let root = TableRoot::new(&url)?;
            Ok::<_, CatalogError>((url, root))
        };
        Ok(Places { roots: roots.iter().map(root).collect::<Result<_, _>>()? })
    }

    /// Where a new table comes to lie: at `given`, if that is below a root; else in a folder of its own below the
    /// first root.
    pub(crate) fn of_new_table(
        &self,
        given: Option<&str>,
        name: &TableName,
        id: Uuid,
    ) -> Answer<String> {
        let Some((first, _)) = self.roots.first() else {
            return Err(Failed::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "this service creates no tables: its operator names no root for them (--root)",
            ));
        };
        let Some(given) = given else { return Ok(own_folder(first, name, id)) };
        // Relative paths would be those of the service's own folder.
        if !given.contains("://") && !given.starts_with('/') {
            return Err(Failed::invalid(
                "location is a URL or an absolute path; without one the service chooses a folder",
            ));
        }
        let url = normalize_location(given)?;
        let wanted = TableRoot::new(&url)?;
        let below = |(_, root): &(String, TableRoot)| {
            root.holds(&wanted).is_some_and(|rest| !rest.is_empty())
        };
        if self.roots.iter().any(|root| below(root) && is_really_below(&root.0, &url)) {
            return Ok(url);
        }
        Err(Failed::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "location is not below a root of this service; without one the service chooses a folder",
        ))
    }
}

/// `ROOT/namespace/name-id`: nobody has it.
fn own_folder(root: &str, name: &TableName, id: Uuid) -> String {
    let plain = |text: &str| {
        let keep = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
        text.chars().take(60).map(keep).collect::<String>()
    };
    let (namespace, name) = (plain(name.namespace()), plain(name.name()));
    format!("{}/{namespace}/{name}-{}", root.trim_end_matches('/'), id.simple())
}

/// Of local folders, whether symbolic links lead out of the root.
fn is_really_below(root: &str, url: &str) -> bool {
    let local = |url: &str| Url::parse(url).ok()?.to_file_path().ok();
    let (Some(root), Some(path)) = (local(root), local(url)) else { return true };
    let Some(real_root) = existing(&root) else { return false };
    existing(&path).is_some_and(|real| real.starts_with(&real_root))
}

/// The part of a path that is there, without symbolic links.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|part| part.canonicalize().ok())
}

/// Refuses actions that name files outside of their table.
pub(crate) fn check_files(location: &str, actions: &[Action]) -> Answer<()> {
    let root = TableRoot::new(location)?;
    for action in actions {
        let (path, vector) = match action {
            Action::Add(add) => (&add.path, add.deletion_vector.as_ref()),
            Action::Remove(remove) => (&remove.path, remove.deletion_vector.as_ref()),
            Action::Cdc(cdc) => (&cdc.path, None),
            _ => continue,
        };
        if !TableRoot::stays_inside(path) {
            inside(path, &root.resolve(path)?)?;
        }
        if let Some((vector, resolved)) = vector.map(|v| (v, root.resolve_vector(v))) {
            let DeletionVector { path_or_inline_dv, .. } = vector;
            if let Some(resolved) = resolved? {
                inside(path_or_inline_dv, &resolved)?;
            }
        }
    }
    Ok(())
}

fn inside(path: &str, resolved: &Resolved) -> Answer<()> {
    if resolved.all().all(|place| matches!(place, Place::Inside(_))) {
        return Ok(());
    }
    Err(Failed::invalid(format!(
        "the file {path:?} may lie outside of the table's folder: over HTTP a commit names files below it"
    )))
}
