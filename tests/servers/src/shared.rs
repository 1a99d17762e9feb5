//! One server for all tests of a process, or the one that the environment names.

use std::sync::OnceLock;

use crate::galera::Galera;
use crate::mariadb::{MariaDb, MariaDbOptions};
use crate::objects::{EmulatedStore, ObjectStore, ObjectStoreKind};
use crate::postgres::{Postgres, PostgresOptions};

/// A server of this process with its URL (or URLs), or why there is none. It is never dropped: its
/// watcher ends it.
type Shared<U, S> = OnceLock<Result<(U, S), String>>;

/// The URLs in `DL_TEST_POSTGRES_URL`: several are separated by white space or commas.
pub fn postgres_urls() -> Vec<String> {
    urls("DL_TEST_POSTGRES_URL")
}

/// The URLs in `DL_TEST_MYSQL_URL`: several are separated by white space or commas.
pub fn mysql_urls() -> Vec<String> {
    urls("DL_TEST_MYSQL_URL")
}

/// The URLs in `DL_TEST_MSSQL_URL`: several are separated by white space or commas.
pub fn mssql_urls() -> Vec<String> {
    urls("DL_TEST_MSSQL_URL")
}

/// The URLs in `DL_TEST_GALERA_URL`, one for each node, separated by white space or commas.
pub fn galera_urls() -> Vec<String> {
    urls("DL_TEST_GALERA_URL")
}

fn urls(variable: &str) -> Vec<String> {
    split(&std::env::var(variable).unwrap_or_default())
}

fn split(text: &str) -> Vec<String> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|u| !u.is_empty())
        .map(str::to_owned)
        .collect()
}

/// URL of a login that may make databases and roles, on the first server in
/// `DL_TEST_POSTGRES_URL`, else on one that this process starts at the first call. That one ends
/// with the process.
///
/// # Errors
/// Why there is none: a reason to skip the tests that need it.
pub fn shared_postgres() -> Result<String, String> {
    static SERVER: Shared<String, Postgres> = OnceLock::new();
    if let Some(given) = postgres_urls().into_iter().next() {
        return Ok(given);
    }
    let server = SERVER.get_or_init(|| {
        let server =
            Postgres::start(PostgresOptions::default()).map_err(|error| format!("{error:#}"))?;
        Ok((server.superuser_url("postgres"), server))
    });
    server.as_ref().map(|(url, _)| url.clone()).map_err(Clone::clone)
}

/// The same for MySQL and MariaDB: `DL_TEST_MYSQL_URL`, else a server of this process.
///
/// # Errors
/// Why there is none: a reason to skip the tests that need it.
pub fn shared_mysql() -> Result<String, String> {
    static SERVER: Shared<String, MariaDb> = OnceLock::new();
    if let Some(given) = mysql_urls().into_iter().next() {
        return Ok(given);
    }
    let server = SERVER.get_or_init(|| {
        let server =
            MariaDb::start(MariaDbOptions::default()).map_err(|error| format!("{error:#}"))?;
        Ok((server.superuser_url("mysql"), server))
    });
    server.as_ref().map(|(url, _)| url.clone()).map_err(Clone::clone)
}

/// URLs of a login that may make databases and users, one for each node of the Galera cluster in
/// `DL_TEST_GALERA_URL`, else of a cluster of three that this process starts at the first call
/// (which takes some ten seconds). That one ends with the process.
///
/// # Errors
/// Why there is none: a reason to skip the tests that need it.
pub fn shared_galera() -> Result<Vec<String>, String> {
    static CLUSTER: Shared<Vec<String>, Galera> = OnceLock::new();
    let given = galera_urls();
    if !given.is_empty() {
        return Ok(given);
    }
    let cluster = CLUSTER.get_or_init(|| {
        let cluster = Galera::start(3).map_err(|error| format!("{error:#}"))?;
        Ok((cluster.superuser_urls("mysql"), cluster))
    });
    cluster.as_ref().map(|(urls, _)| urls.clone()).map_err(Clone::clone)
}

/// The emulator of an object store: the one at the address in `DL_TEST_S3_ENDPOINT` or
/// `DL_TEST_AZURE_ENDPOINT`, else one that this process starts at the first call. That one ends with
/// the process.
///
/// # Errors
/// Why there is none: a reason to skip the tests that need it.
pub fn shared_object_store(kind: ObjectStoreKind) -> Result<EmulatedStore, String> {
    static S3: Shared<EmulatedStore, ObjectStore> = OnceLock::new();
    static AZURE: Shared<EmulatedStore, ObjectStore> = OnceLock::new();
    let (variable, cell) = match kind {
        ObjectStoreKind::S3 => ("DL_TEST_S3_ENDPOINT", &S3),
        ObjectStoreKind::Azure => ("DL_TEST_AZURE_ENDPOINT", &AZURE),
    };
    if let Some(endpoint) = urls(variable).into_iter().next() {
        return Ok(EmulatedStore { kind, endpoint });
    }
    let store = cell.get_or_init(|| {
        let store = ObjectStore::start(kind).map_err(|error| format!("{error:#}"))?;
        Ok((EmulatedStore { kind, endpoint: store.endpoint() }, store))
    });
    store.as_ref().map(|(address, _)| address.clone()).map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn several_urls() {
        assert_eq!(split(" a://1, b://2\n\tc://3,"), ["a://1", "b://2", "c://3"]);
        assert!(split(" \n").is_empty());
    }
}
