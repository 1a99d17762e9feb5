//! Read-only SQL views of a catalog, for people who read it with other tools: `v_tables`, `v_files`, `v_commits`
//! and `v_columns`, after the prefix of our tables (`dl_v_tables`).
//!
//! Their names and columns are the same on every database and stay as they are. The tables below may change with
//! the next version of the schema. An upgrade asks for the views to be dropped first, and made again after it.

use deltalakedb_catalog_core::error::{CatalogError, Result};

use crate::uri::{CatalogUri, Place, Scheme};

/// What is done about the views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Make,
    Drop,
}

/// SQL statements that make the views, or make them anew, in order. Nothing is run, and no server is asked.
///
/// # Errors
/// `Unsupported` for a database that has no views of ours, or one that this build has no backend for.
pub fn statements(uri: &CatalogUri) -> Result<Vec<String>> {
    written(uri, Task::Make)
}

/// SQL statements that drop the views.
///
/// # Errors
/// As of [`statements`].
pub fn drop_statements(uri: &CatalogUri) -> Result<Vec<String>> {
    written(uri, Task::Drop)
}

/// Makes the views, or makes them anew. Rights on them stay, where the database has rights.
///
/// # Errors
/// As of [`statements`]; `Schema` if there is no catalog of this version; `Unavailable` if the database cannot be
/// reached, or the login must not create views.
pub async fn create(uri: &CatalogUri) -> Result<()> {
    run(uri, Task::Make).await
}

/// Drops the views. It is no error if there are none.
///
/// # Errors
/// As of [`create`]; PostgreSQL: `invalid_input` naming other views that need ours.
pub async fn drop(uri: &CatalogUri) -> Result<()> {
    run(uri, Task::Drop).await
}

fn written(uri: &CatalogUri, task: Task) -> Result<Vec<String>> {
    let _ = task;
    match uri.place() {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(sqlite) => crate::sqlite::views(sqlite, task == Task::Make),
        #[cfg(not(feature = "sqlite"))]
        Place::Sqlite(_) => Err(crate::db::not_built(Scheme::Sqlite)),
        Place::Memory => Err(in_memory()),
        Place::Server(server) => match server.scheme() {
            #[cfg(feature = "postgres")]
            Scheme::Postgres => crate::postgres::views(server, task == Task::Make),
            #[cfg(feature = "mysql")]
            Scheme::MySql => crate::mysql::views(server, task == Task::Make),
            Scheme::Mssql => Err(of_sql_server()),
            other => Err(crate::db::not_built(other)),
        },
    }
}

async fn run(uri: &CatalogUri, task: Task) -> Result<()> {
    let _ = task;
    match uri.place() {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(sqlite) => crate::sqlite::set_views(sqlite, task == Task::Make).await,
        #[cfg(not(feature = "sqlite"))]
        Place::Sqlite(_) => Err(crate::db::not_built(Scheme::Sqlite)),
        Place::Memory => Err(in_memory()),
        Place::Server(server) => match server.scheme() {
            #[cfg(feature = "postgres")]
            Scheme::Postgres => crate::postgres::set_views(server, task == Task::Make).await,
            #[cfg(feature = "mysql")]
            Scheme::MySql => crate::mysql::set_views(server, task == Task::Make).await,
            Scheme::Mssql => Err(of_sql_server()),
            other => Err(crate::db::not_built(other)),
        },
    }
}

fn in_memory() -> CatalogError {
    CatalogError::Unsupported(
        "a catalog in memory has no views: no other program can read it".to_owned(),
    )
}

fn of_sql_server() -> CatalogError {
    CatalogError::Unsupported(
        "there are no views for SQL Server: they were not tried on one. PostgreSQL, MySQL, MariaDB \
         and SQLite have them"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_are_none_that_is_said() {
        for (url, word) in [("memory://", "in memory"), ("mssql://u@h/d", "SQL Server")] {
            let uri: CatalogUri = url.parse().unwrap();
            for error in [statements(&uri), drop_statements(&uri)] {
                let error = error.unwrap_err();
                assert_eq!(error.code(), "unsupported");
                assert!(error.to_string().contains(word), "{error}");
            }
        }
    }
}
