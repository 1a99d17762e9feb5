//! The catalogs of earlier schema versions, in memory and in SQLite. With `DL_MAKE_FIXTURE`, the files are made first.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

use std::path::{Path, PathBuf};

use deltalakedb_backend_sqlite::{SqliteBackend, SqliteOptions};
use deltalakedb_catalog_core::backend::SchemaBackend;
use deltalakedb_catalog_engine::memory::MemoryBackend;
use deltalakedb_conformance::fixture;

/// Where the files are, if they are to be made anew, and the version in their names.
fn made(kind: &str) -> Option<PathBuf> {
    let version = std::env::var("DL_MAKE_FIXTURE").ok()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    Some(folder.join(format!("version-{version}.{kind}")))
}

#[tokio::test]
async fn memory_gives_the_answers() {
    let db = MemoryBackend::new();
    fixture::build(&db).await.unwrap();
    let answers = fixture::answers(&db).await.unwrap();
    match made("answers.txt") {
        Some(file) => std::fs::write(file, answers).unwrap(),
        None => fixture::same("memory", fixture::ANSWERS, &answers).unwrap(),
    }
}

#[tokio::test]
async fn sqlite_upgrades_the_file_and_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    if let Some(file) = made("sqlite") {
        let fresh = folder.path().join("fresh.db");
        let db = SqliteBackend::open(SqliteOptions::new(&fresh)).unwrap();
        db.migrate(fixture::START).await.unwrap();
        fixture::build(&*db).await.unwrap();
        let wanted = fixture::answers(&*db).await.unwrap();
        std::fs::write(folder.path().join("answers.txt"), &wanted).unwrap();
        drop(db);
        std::fs::copy(&fresh, file).unwrap();
        return;
    }
    for version in fixture::VERSIONS {
        let path = folder.path().join(format!("version-{version}.db"));
        std::fs::write(&path, fixture::sqlite_file(version).unwrap()).unwrap();
        let db = SqliteBackend::open(SqliteOptions::new(&path)).unwrap();
        fixture::upgraded(&*db, version).await.unwrap();
    }
}
