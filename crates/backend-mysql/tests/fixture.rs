//! The catalogs of earlier schema versions that `tests/conformance/fixtures` holds. With `DL_MAKE_FIXTURE`, which is
//! the version in the file's name, a file is made instead.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's ways to fail")]

#[allow(dead_code, reason = "shared with the suite's programs")]
mod support;

use std::path::Path;
use std::process::Command;

use deltalakedb_backend_mysql::MySqlBackend;
use deltalakedb_catalog_core::backend::SchemaBackend;
use deltalakedb_conformance::fixture;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use url::Url;
use uuid::Uuid;

use support::{Guard, options};

/// The address of an empty database, which goes with the guard; none where there is no server.
async fn place() -> Option<(Url, Guard)> {
    let admin = match deltalakedb_test_servers::shared_mysql() {
        Ok(url) => url,
        Err(why) => {
            deltalakedb_test_servers::skip(&["mysql"], why);
            return None;
        }
    };
    let database = format!("dl_fixture_{}", Uuid::new_v4().simple());
    let mut connection = MySqlConnection::connect(&admin).await.unwrap();
    let sql = format!("CREATE DATABASE {database} CHARACTER SET latin1");
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    let mut place: Url = admin.parse().unwrap();
    place.set_path(&database);
    Some((place, Guard { admin, database }))
}

/// Makes the file from the empty database.
async fn make(version: &str, place: &Url) {
    let db = MySqlBackend::connect(options(place.as_str()).unwrap()).await.unwrap();
    db.migrate(fixture::START).await.unwrap();
    fixture::build(db.as_ref()).await.unwrap();
    let mut dump = Command::new("mysqldump");
    dump.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--hex-blob"]);
    dump.args([
        "--skip-comments",
        "--skip-add-drop-table",
        "--skip-add-locks",
        "--skip-set-charset",
    ]);
    dump.args(["--skip-disable-keys", "--skip-tz-utc", "--single-transaction", "--no-tablespaces"]);
    dump.args(["--default-character-set=utf8mb4", "--net-buffer-length=64K", "--order-by-primary"]);
    dump.arg(format!("--port={}", place.port().unwrap()));
    dump.arg(format!("--user={}", place.username()));
    dump.env("MYSQL_PWD", place.password().unwrap_or_default());
    let dump = dump.arg(place.path().trim_start_matches('/')).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    // What one of the two servers alone understands, and what only a client does.
    let known = |line: &&str| !line.starts_with("/*") && !line.trim().is_empty();
    let script = String::from_utf8(dump.stdout).unwrap();
    let script: String = script.split_inclusive('\n').filter(known).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/fixtures");
    std::fs::write(folder.join(format!("version-{version}.mysql.sql")), script).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stored_catalog_is_upgraded_and_gives_the_same_answers() {
    if let Ok(version) = std::env::var("DL_MAKE_FIXTURE") {
        let Some((place, _guard)) = place().await else { return };
        return make(&version, &place).await;
    }
    for version in fixture::VERSIONS {
        let Some((place, _guard)) = place().await else { return };
        let mut connection = MySqlConnection::connect(place.as_str()).await.unwrap();
        for statement in fixture::mysql_statements(version).unwrap() {
            connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.unwrap();
        }
        connection.close().await.unwrap();
        let db = MySqlBackend::connect(options(place.as_str()).unwrap()).await.unwrap();
        fixture::upgraded(db.as_ref(), version).await.unwrap();
    }
}
