//! Opens the PostgreSQL backend for a catalog's URL.

use std::sync::Arc;
use std::time::Duration;

use deltalakedb_backend_postgres::{GrantRole, PostgresBackend, PostgresOptions, Secret, TlsMode};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::diagnosis::{Diagnosis, Tended};
use deltalakedb_catalog_core::error::Result;

use crate::role::Role;
use crate::uri::{self, ServerUri};

pub(crate) async fn connect(uri: &ServerUri) -> Result<Arc<dyn CatalogBackend>> {
    Ok(PostgresBackend::connect(login(uri, &uri::variable)?).await?)
}

pub(crate) fn grants(uri: &ServerUri, role: Role, login: &str) -> Result<Vec<String>> {
    let role = match role {
        Role::Admin => GrantRole::Admin,
        Role::Writer => GrantRole::Writer,
        Role::Reader => GrantRole::Reader,
    };
    deltalakedb_backend_postgres::grants(&options(uri, &uri::variable)?, role, login)
}

/// Statements that make the views, or drop them.
pub(crate) fn views(uri: &ServerUri, make: bool) -> Result<Vec<String>> {
    let options = options(uri, &uri::variable)?;
    if make {
        deltalakedb_backend_postgres::views(&options)
    } else {
        deltalakedb_backend_postgres::drop_views(&options)
    }
}

/// Makes the views, or drops them.
pub(crate) async fn set_views(uri: &ServerUri, make: bool) -> Result<()> {
    let backend = PostgresBackend::connect(login(uri, &uri::variable)?).await?;
    let result = if make { backend.make_views().await } else { backend.drop_views().await };
    backend.close().await;
    result
}

/// A look at the server.
pub(crate) async fn diagnose(uri: &ServerUri) -> Result<Vec<Diagnosis>> {
    deltalakedb_backend_postgres::diagnose(login(uri, &uri::variable)?).await
}

/// What the tables like to have done, within a time.
pub(crate) async fn tend(uri: &ServerUri, limit: Duration, dry_run: bool) -> Result<Tended> {
    deltalakedb_backend_postgres::tend(login(uri, &uri::variable)?, limit, dry_run).await
}

/// The options with the password to log in with.
fn login(uri: &ServerUri, variable: &dyn Fn(&str) -> Option<String>) -> Result<PostgresOptions> {
    let mut options = options(uri, variable)?;
    options.password = uri.find_password(variable)?.map(|p| Secret::new(p.expose()));
    Ok(options)
}

/// What the URL says, and for the rest what is usual; without the password.
pub(crate) fn options(
    uri: &ServerUri,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<PostgresOptions> {
    // A path in place of a host is a socket's folder, as libpq has it.
    let host = uri.socket().map(|socket| socket.to_string_lossy().into_owned());
    let host = host.unwrap_or_else(|| uri.host().to_owned());
    let user = uri.find_user(variable)?;
    let mut options = PostgresOptions::new(host, uri.port(), uri.database(), user);
    options.more_hosts = uri.more_hosts();
    options.read_write = uri.wants_writes();
    if let Some(prefix) = uri.table_prefix() {
        prefix.clone_into(&mut options.table_prefix);
    }
    options.schema = uri.schema().map(str::to_owned);
    if let Some(mode) = uri.tls_mode() {
        options.tls.mode = match mode {
            uri::TlsMode::Disable => TlsMode::Disable,
            uri::TlsMode::Prefer => TlsMode::Prefer,
            uri::TlsMode::Require => TlsMode::Require,
            uri::TlsMode::VerifyCa => TlsMode::VerifyCa,
            uri::TlsMode::VerifyFull => TlsMode::VerifyFull,
        };
    }
    options.tls.ca_file = uri.ca_file().map(Into::into);
    options.tls.cert_file = uri.cert_file().map(Into::into);
    options.tls.key_file = uri.key_file().map(Into::into);
    let pool = &mut options.pool;
    pool.max_connections = uri.max_connections().unwrap_or(pool.max_connections);
    pool.min_connections = uri.min_connections().unwrap_or(pool.min_connections);
    pool.acquire_timeout = uri.acquire_timeout().unwrap_or(pool.acquire_timeout);
    pool.idle_timeout = uri.idle_timeout().unwrap_or(pool.idle_timeout);
    pool.max_lifetime = uri.max_lifetime().unwrap_or(pool.max_lifetime);
    pool.test_before_acquire = uri.test_before_acquire().unwrap_or(pool.test_before_acquire);
    options.statement_timeout = uri.statement_timeout().unwrap_or(options.statement_timeout);
    if let Some(name) = uri.application_name() {
        name.clone_into(&mut options.application_name);
    }
    if let Some(statements) = uri.statement_cache() {
        options.statement_cache = usize::try_from(statements).unwrap_or(usize::MAX);
    }
    options.validate()?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::uri::CatalogUri;

    fn read(url: &str) -> Result<PostgresOptions> {
        let uri: CatalogUri = url.parse().unwrap();
        login(uri.server().unwrap(), &|name| (name == "USER").then(|| "system".to_owned()))
    }

    #[test]
    fn every_option_arrives() {
        let options = read(
            "postgresql://ann:p%40ss@h:77/lake?sslmode=verify-full&sslrootcert=ca&sslcert=cert\
             &sslkey=key&table_prefix=a_&schema=s&max_connections=21&min_connections=2\
             &acquire_timeout=3s&idle_timeout=4s&max_lifetime=5s&test_before_acquire=false\
             &statement_timeout=6s&statement_cache=0&application_name=app",
        )
        .unwrap();
        let mut expected = PostgresOptions::new("h", 77, "lake", "ann");
        expected.password = Some(Secret::new("p@ss"));
        expected.tls.mode = TlsMode::VerifyFull;
        expected.tls.ca_file = Some("ca".into());
        expected.tls.cert_file = Some("cert".into());
        expected.tls.key_file = Some("key".into());
        expected.table_prefix = "a_".into();
        expected.schema = Some("s".into());
        expected.pool.max_connections = 21;
        expected.pool.min_connections = 2;
        expected.pool.acquire_timeout = Duration::from_secs(3);
        expected.pool.idle_timeout = Duration::from_secs(4);
        expected.pool.max_lifetime = Duration::from_secs(5);
        expected.pool.test_before_acquire = false;
        expected.statement_timeout = Duration::from_secs(6);
        expected.statement_cache = 0;
        expected.application_name = "app".into();
        assert_eq!(options, expected);
    }

    #[test]
    fn what_is_left_out_is_the_default() {
        let options = read("postgresql:///lake?host=/run/pg").unwrap();
        assert_eq!(options, PostgresOptions::new("/run/pg", 5432, "lake", "system"));
        assert!(Path::new(&options.host).is_absolute());
        let e = read("postgresql://h/lake?schema=a%22b").unwrap_err().to_string();
        assert!(e.contains("schema"), "{e}");
    }
}
