//! Files that reports and metrics go to.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::failure::{Failure, Result};

/// Makes the folder of a file that is written at the end of the work: what keeps it from being
/// written is said before.
pub(crate) fn prepare(path: &Path) -> Result<()> {
    if path.file_name().is_none() || path.is_dir() {
        return Err(Failure::invalid(format!("'{}' names no file", path.display())));
    }
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    fs::create_dir_all(folder)
        .map_err(|e| Failure::io(format!("cannot make the folder of '{}'", path.display()), e))
}

/// Replaces a file as a whole: whoever reads it meanwhile sees the old or the new one.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let what = || format!("cannot write '{}'", path.display());
    let mut name = path
        .file_name()
        .map(ToOwned::to_owned)
        .ok_or_else(|| Failure::invalid(format!("'{}' names no file", path.display())))?;
    name.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = path.with_file_name(name);
    let written = fs::File::create(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&unfinished, path));
    written.map_err(|e| {
        // What is left of it helps nobody.
        let _ = fs::remove_file(&unfinished);
        Failure::io(what(), e)
    })
}
