//! Databases that catalogs of tests are in.

use tempfile::TempDir;

pub(crate) use deltalakedb_test_servers::Database;

/// URL of a place for a catalog that nothing else uses; tables of a server by their prefix.
pub(crate) fn url(database: Database, dir: &TempDir) -> String {
    database.url(dir.path(), "rs").unwrap_or_else(|why| panic!("{why}"))
}

/// Whether a test can run there; says why not.
pub(crate) fn is_there(database: Database) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let Err(why) = database.url(dir.path(), "rs") else { return true };
    deltalakedb_test_servers::skip(&[database.name()], why);
    false
}
