//! From SQLite's result codes to our errors. Codes decide, never messages
//! (<https://sqlite.org/rescode.html>); the table below cites the names of that page.

use std::path::Path;

use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::InvalidId;
use rusqlite::ffi;

/// What a piece of database work may fail with, before it is known where it ran.
#[derive(Debug)]
pub(crate) enum DbError {
    /// From SQLite or its driver.
    Sqlite(rusqlite::Error),
    /// Ours already.
    Catalog(CatalogError),
}

/// Result inside this crate.
pub(crate) type DbResult<T> = std::result::Result<T, DbError>;

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        DbError::Sqlite(error)
    }
}

impl From<InvalidId> for DbError {
    fn from(error: InvalidId) -> Self {
        DbError::Catalog(error.into())
    }
}

impl From<CatalogError> for DbError {
    fn from(error: CatalogError) -> Self {
        DbError::Catalog(error)
    }
}

impl DbError {
    /// The error for callers. `doing` completes "while …".
    pub(crate) fn into_catalog(self, path: &Path, doing: &str, write: WriteState) -> CatalogError {
        match self {
            DbError::Sqlite(error) => classify(&error, path, doing, write),
            DbError::Catalog(error) => error,
        }
    }

    /// Whether this is `SQLITE_ERROR`: SQL that does not fit the schema, among others.
    pub(crate) fn is_sql_error(&self) -> bool {
        matches!(self, DbError::Sqlite(error) if extended_code(error)
            .is_some_and(|code| code & 0xff == ffi::SQLITE_ERROR))
    }
}

/// The extended result code, if the error comes from SQLite itself.
pub(crate) fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.extended_code),
        rusqlite::Error::SqlInputError { error, .. } => Some(error.extended_code),
        _ => None,
    }
}

/// Whether another connection is in the way.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    extended_code(error).is_some_and(|code| {
        matches!(code & 0xff, ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL)
    })
}

/// Whether a transaction may be in the database although its COMMIT failed like this and was
/// rolled back.
///
/// In WAL mode COMMIT appends the changed pages and, last, a frame with a commit mark to the log,
/// syncs it, and only then makes it visible through the shared-memory index
/// (<https://sqlite.org/walformat.html>). So where the *write* was refused (`FULL`, `BUSY`) the
/// mark is not in the file and nothing happened. After an I/O error the mark may be there: this
/// process ignores it from then on and the next commit overwrites it, but if the machine stops
/// before that, recovery finds it and the commit took effect. That is `Unknown`.
pub(crate) fn after_failed_commit(error: &rusqlite::Error) -> WriteState {
    match extended_code(error).map(|code| code & 0xff) {
        Some(
            ffi::SQLITE_BUSY
            | ffi::SQLITE_LOCKED
            | ffi::SQLITE_PROTOCOL
            | ffi::SQLITE_FULL
            | ffi::SQLITE_READONLY
            | ffi::SQLITE_NOMEM
            | ffi::SQLITE_CONSTRAINT,
        ) => WriteState::NotApplied,
        _ => WriteState::Unknown,
    }
}

/// One sentence for each result code: what, where, what to do.
pub(crate) fn classify(
    error: &rusqlite::Error,
    path: &Path,
    doing: &str,
    write: WriteState,
) -> CatalogError {
    let at = path.display();
    let Some(code) = extended_code(error) else {
        return driver_error(error, path, doing);
    };
    match code & 0xff {
        // BUSY: another connection holds the lock. LOCKED: the same within one process.
        // PROTOCOL: lost a race for the WAL index. All pass.
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => CatalogError::busy(
            format!(
                "database '{at}' is locked by another process while {doing} (SQLite code {code}); \
                 if it stays so, look for a program that keeps a transaction open"
            ),
            write,
        ),
        ffi::SQLITE_FULL => CatalogError::failed(
            format!(
                "no space left for database '{at}' while {doing} (SQLite code {code}): free space \
                 on that disk or raise its quota, then try again"
            ),
            write,
        ),
        ffi::SQLITE_READONLY if code == ffi::SQLITE_READONLY_DBMOVED => CatalogError::failed(
            format!(
                "database '{at}' was moved or deleted while it was open (SQLite code {code}): put \
                 it back and open the catalog again"
            ),
            write,
        ),
        ffi::SQLITE_READONLY | ffi::SQLITE_PERM | ffi::SQLITE_AUTH => CatalogError::failed(
            format!(
                "database '{at}' cannot be written while {doing} (SQLite code {code}): this user \
                 needs write permission on the file and on its folder"
            ),
            write,
        ),
        ffi::SQLITE_CANTOPEN => CatalogError::failed(
            format!(
                "database '{at}' cannot be opened while {doing} (SQLite code {code}): check that \
                 its folder exists, that it is a file, and that this user may read and write both"
            ),
            write,
        ),
        ffi::SQLITE_NOTADB => CatalogError::Schema(format!(
            "'{at}' is not a SQLite database, or an encrypted one (SQLite code {code}): choose \
             another path, or restore the file from a backup"
        )),
        ffi::SQLITE_CORRUPT => CatalogError::corrupt(format!(
            "database '{at}' is damaged, found while {doing} (SQLite code {code}): run `PRAGMA \
             integrity_check` on it and restore a backup"
        )),
        ffi::SQLITE_IOERR => CatalogError::failed(
            format!(
                "the operating system reports an I/O error on database '{at}' while {doing} \
                 (SQLite code {code}): check the disk and the system's log; the file must lie on a \
                 local file system"
            ),
            write,
        ),
        ffi::SQLITE_NOMEM => CatalogError::failed(
            format!("out of memory in database '{at}' while {doing} (SQLite code {code})"),
            write,
        ),
        ffi::SQLITE_TOOBIG => CatalogError::invalid(format!(
            "a value is larger than database '{at}' can store in one cell, while {doing} (SQLite \
             code {code})"
        )),
        // Every rule that our constraints express is checked before the row is written.
        ffi::SQLITE_CONSTRAINT => CatalogError::corrupt(format!(
            "rows of database '{at}' contradict each other, found while {doing} (SQLite code \
             {code}): was it changed by another program? Restore a backup"
        )),
        // The message of SQLITE_ERROR and the rest names SQL objects only, never values.
        _ => CatalogError::failed(
            format!("database '{at}' failed while {doing} (SQLite code {code}): {error}"),
            write,
        ),
    }
}

/// Errors of the driver: values of another type than what we write.
fn driver_error(error: &rusqlite::Error, path: &Path, doing: &str) -> CatalogError {
    CatalogError::corrupt(format!(
        "database '{}' holds an unexpected value, found while {doing}: {error}; was it changed by \
         another program?",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn each_code_has_its_kind_and_names_the_file() {
        let path = Path::new("/data/catalog.db");
        let of = |code| classify(&failure(code), path, "testing", WriteState::NotApplied);
        for busy in [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_SNAPSHOT,
            ffi::SQLITE_BUSY_RECOVERY,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_PROTOCOL,
        ] {
            assert!(of(busy).is_retryable());
            assert_eq!(of(busy).write_state(), WriteState::NotApplied);
        }
        for hard in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_READONLY_DBMOVED,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_ERROR,
        ] {
            assert!(matches!(of(hard), CatalogError::Unavailable { retryable: false, .. }));
        }
        assert!(matches!(of(ffi::SQLITE_NOTADB), CatalogError::Schema(_)));
        assert!(matches!(of(ffi::SQLITE_CORRUPT), CatalogError::Corrupt(_)));
        assert!(matches!(of(ffi::SQLITE_CONSTRAINT), CatalogError::Corrupt(_)));
        for code in 1..=28 {
            assert!(of(code).to_string().contains("/data/catalog.db"), "{code}");
        }
    }

    #[test]
    fn only_a_failed_write_to_the_log_is_in_doubt() {
        assert_eq!(after_failed_commit(&failure(ffi::SQLITE_BUSY)), WriteState::NotApplied);
        assert_eq!(after_failed_commit(&failure(ffi::SQLITE_FULL)), WriteState::NotApplied);
        assert_eq!(after_failed_commit(&failure(ffi::SQLITE_IOERR_FSYNC)), WriteState::Unknown);
    }
}
