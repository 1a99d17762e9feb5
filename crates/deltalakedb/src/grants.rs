//! The rights that logins need on a catalog.

use deltalakedb_catalog_core::error::{CatalogError, Result};

use crate::uri::{CatalogUri, Place};

pub use crate::role::Role;

/// SQL statements that give `login` the rights of `role` on the catalog's tables, in order, for an
/// administrator to run in the catalog's database. The server is not asked, and the login is not
/// made.
///
/// # Errors
/// `Unsupported` for a database without logins, or one that this build has no backend for;
/// `InvalidInput` for a login that is empty or cannot be one.
pub fn grants(uri: &CatalogUri, role: Role, login: &str) -> Result<Vec<String>> {
    if login.trim().is_empty() || login.chars().any(char::is_control) {
        return Err(CatalogError::invalid(
            "the login has no name: give it as the server knows it, without control characters",
        ));
    }
    let _ = role;
    match uri.place() {
        Place::Sqlite(sqlite) => Err(CatalogError::Unsupported(format!(
            "SQLite has no logins: the permissions of its file '{}' and of the folder it is in \
             decide who may read and write the catalog (readers need to write to the folder too, \
             for the file's -shm)",
            sqlite.path().display()
        ))),
        Place::Memory => Err(CatalogError::Unsupported(
            "a catalog in memory has no logins: it belongs to its process".to_owned(),
        )),
        Place::Server(server) => match server.scheme() {
            #[cfg(feature = "postgres")]
            crate::uri::Scheme::Postgres => crate::postgres::grants(server, role, login),
            #[cfg(feature = "mysql")]
            crate::uri::Scheme::MySql => crate::mysql::grants(server, role, login),
            #[cfg(feature = "mssql")]
            crate::uri::Scheme::Mssql => crate::mssql::grants(server, role, login),
            other => Err(crate::db::not_built(other)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_no_logins_that_is_said() {
        for (url, word) in [("sqlite:///lake/c.db", "/lake/c.db"), ("memory://", "process")] {
            let uri: CatalogUri = url.parse().unwrap();
            let e = grants(&uri, Role::Reader, "bob").unwrap_err().to_string();
            assert!(e.contains("no logins") && e.contains(word), "{e}");
            for login in ["", " ", "a\nb"] {
                let e = grants(&uri, Role::Writer, login).unwrap_err().to_string();
                assert!(e.contains("login has no name"), "{e}");
            }
        }
    }
}
