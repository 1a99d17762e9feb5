//! The catalogs of earlier schema versions that `tests/conformance/fixtures` holds. With `DL_MAKE_FIXTURE`, which is
//! the version in the file's name, a file is made instead.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's ways to fail")]

#[allow(dead_code, reason = "shared with the suite's programs")]
mod support;

use std::path::Path;
use std::process::Command;

use deltalakedb_backend_postgres::PostgresBackend;
use deltalakedb_catalog_core::backend::SchemaBackend;
use deltalakedb_conformance::fixture;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use uuid::Uuid;

use support::{Guard, options};

/// The address of a schema that is not there, which goes with the guard; none where there is no server.
fn place() -> Option<(String, Guard)> {
    let admin = match deltalakedb_test_servers::shared_postgres() {
        Ok(url) => url,
        Err(why) => {
            deltalakedb_test_servers::skip(&["postgres"], why);
            return None;
        }
    };
    let schema = format!("dl_fixture_{}", Uuid::new_v4().simple());
    Some((format!("{admin}#{schema}"), Guard { admin, schema }))
}

/// Makes the file, with the schema that the loader knows by its name.
async fn make(version: &str, admin: &str) {
    let guard = Guard { admin: admin.to_owned(), schema: "dl_fixture_schema".to_owned() };
    let db = PostgresBackend::connect(options(&format!("{admin}#{}", guard.schema)).unwrap());
    let db = db.await.unwrap();
    db.migrate(fixture::START).await.unwrap();
    fixture::build(db.as_ref()).await.unwrap();
    let mut dump = Command::new("pg_dump");
    dump.args(["--inserts", "--rows-per-insert=100", "--no-owner", "--no-privileges"]);
    dump.args(["--schema", &guard.schema, "--dbname", admin]);
    let dump = dump.output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    // Not SQL but commands of psql, and settings that older servers do not know.
    let unknown = ["\\restrict ", "\\unrestrict ", "SET transaction_timeout"];
    let known = |line: &&str| !unknown.iter().any(|start| line.starts_with(start));
    let script = String::from_utf8(dump.stdout).unwrap();
    let script: String = script.split_inclusive('\n').filter(known).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/fixtures");
    std::fs::write(folder.join(format!("version-{version}.postgres.sql")), script).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stored_catalog_is_upgraded_gives_the_answers_and_goes_on() {
    if let Ok(version) = std::env::var("DL_MAKE_FIXTURE") {
        let Some((_, guard)) = place() else { return };
        return make(&version, &guard.admin).await;
    }
    for version in fixture::VERSIONS {
        let Some((place, guard)) = place() else { return };
        let script = fixture::postgres_script(version, &guard.schema).unwrap();
        let mut admin = PgConnection::connect(&guard.admin).await.unwrap();
        admin.execute(sqlx::raw_sql(AssertSqlSafe(script))).await.unwrap();
        admin.close().await.unwrap();
        let db = PostgresBackend::connect(options(&place).unwrap()).await.unwrap();
        fixture::upgraded(db.as_ref(), version).await.unwrap();
    }
}
