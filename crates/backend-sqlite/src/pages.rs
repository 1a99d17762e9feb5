//! Copies the file of a catalog by SQLite's own backup, while it is in use.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::errors::classify;

/// A file that is deleted unless it got its name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Copies a catalog's file to a new file, and returns its bytes. Writers go on meanwhile: the copy is
/// the database as of one moment (<https://sqlite.org/backup.html>). It is checked, and gets its
/// name only when it is complete. Not async: it blocks for as long as the copy takes.
///
/// # Errors
/// `InvalidInput` if the new file is there already; `Corrupt` if the copy does not pass SQLite's
/// `quick_check`; `Unavailable` for what the system refuses.
pub fn copy_pages(catalog: &Path, file: &Path) -> Result<u64> {
    let io = |what: &str, e: &std::io::Error| {
        let text = format!("cannot {what} '{}': {e}", file.display());
        CatalogError::failed(text, WriteState::NotApplied)
    };
    let there = || {
        CatalogError::invalid(format!(
            "'{}' is there already, and is not overwritten: name another file",
            file.display()
        ))
    };
    if file.symlink_metadata().is_ok() {
        return Err(there());
    }
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let unfinished = Unfinished(PathBuf::from(name));
    let temporary = unfinished.0.as_path();
    let failed =
        |doing: &str, e: &rusqlite::Error| classify(e, catalog, doing, WriteState::NotApplied);
    let source = Connection::open_with_flags(
        catalog,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|e| failed("opening the catalog", &e))?;
    // A leftover of a process that had the same number.
    match fs::remove_file(temporary) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(io("replace", &e)),
        _ => {}
    }
    let mut copy = Connection::open(temporary)
        .map_err(|e| classify(&e, temporary, "making the copy", WriteState::NotApplied))?;
    {
        let backup = Backup::new(&source, &mut copy).map_err(|e| failed("copying", &e))?;
        // In one step: it reads one snapshot, which in WAL mode keeps no writer out. In several steps
        // it would begin anew with each commit of another process.
        match backup.step(-1).map_err(|e| failed("copying", &e))? {
            StepResult::Done => {}
            other => {
                return Err(CatalogError::busy(
                    format!("the catalog's file could not be copied now ({other:?})"),
                    WriteState::NotApplied,
                ));
            }
        }
    }
    let check: String = copy
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|e| failed("checking the copy", &e))?;
    if check != "ok" {
        return Err(CatalogError::corrupt(format!(
            "the copy of '{}' does not pass SQLite's quick_check: {check}",
            catalog.display()
        )));
    }
    // Its log, if there is one, becomes part of the file.
    copy.close().map_err(|(_, e)| failed("closing the copy", &e))?;
    let written = File::open(temporary).map_err(|e| io("open", &e))?;
    written.sync_all().map_err(|e| io("write", &e))?;
    let size = written.metadata().map_err(|e| io("read", &e))?.len();
    // Unlike a rename, a link never replaces a file.
    match fs::hard_link(temporary, file) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(there()),
        Err(e) => return Err(io("name", &e)),
        Ok(()) => {}
    }
    if let Some(folder) = file.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| io("sync", &e))?;
    }
    Ok(size)
}
