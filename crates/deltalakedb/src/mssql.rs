//! Opens the SQL Server backend for a catalog's URL.

use std::sync::Arc;

use deltalakedb_backend_mssql::{Encrypt, GrantRole, MssqlBackend, MssqlOptions};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::Result;

use crate::role::Role;
use crate::uri::{self, ServerUri};

pub(crate) async fn connect(uri: &ServerUri) -> Result<Arc<dyn CatalogBackend>> {
    Ok(MssqlBackend::connect(login(uri, &uri::variable)?).await?)
}

pub(crate) fn grants(uri: &ServerUri, role: Role, login: &str) -> Result<Vec<String>> {
    let role = match role {
        // There is no registry.
        Role::Admin | Role::Writer => GrantRole::Writer,
        Role::Reader => GrantRole::Reader,
    };
    deltalakedb_backend_mssql::grants(&options(uri, &uri::variable)?, role, login)
}

/// The options with the password to log in with.
fn login(uri: &ServerUri, variable: &dyn Fn(&str) -> Option<String>) -> Result<MssqlOptions> {
    let mut options = options(uri, variable)?;
    options.password = uri.find_password(variable)?.map(|p| p.expose().to_owned());
    Ok(options)
}

/// What the URL says, and for the rest what is usual; without the password.
pub(crate) fn options(
    uri: &ServerUri,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<MssqlOptions> {
    let mut options = MssqlOptions::new(uri.host(), uri.database(), uri.find_user(variable)?);
    options.port = uri.port();
    options.instance = uri.instance().map(str::to_owned);
    if let Some(prefix) = uri.table_prefix() {
        prefix.clone_into(&mut options.table_prefix);
    }
    if let Some(schema) = uri.schema() {
        schema.clone_into(&mut options.schema);
    }
    if let Some(encrypt) = uri.encrypt() {
        options.tls.mode = match encrypt {
            uri::Encrypt::Off => Encrypt::Off,
            uri::Encrypt::On => Encrypt::On,
            uri::Encrypt::Strict => Encrypt::Strict,
        };
    }
    options.tls.trust_server_certificate = uri.trust_server_certificate().unwrap_or(false);
    options.tls.ca_file = uri.ca_file().map(Into::into);
    options.tls.cert_file = uri.cert_file().map(Into::into);
    options.tls.key_file = uri.key_file().map(Into::into);
    let pool = &mut options.pool;
    let count = |number: Option<u32>, default: usize| {
        number.map_or(default, |number| usize::try_from(number).unwrap_or(usize::MAX))
    };
    pool.max_connections = count(uri.max_connections(), pool.max_connections);
    pool.min_connections = count(uri.min_connections(), pool.min_connections);
    pool.acquire_timeout = uri.acquire_timeout().unwrap_or(pool.acquire_timeout);
    pool.idle_timeout = uri.idle_timeout().unwrap_or(pool.idle_timeout);
    pool.max_lifetime = uri.max_lifetime().unwrap_or(pool.max_lifetime);
    pool.test_before_acquire = uri.test_before_acquire().unwrap_or(pool.test_before_acquire);
    options.statement_timeout = uri.statement_timeout().unwrap_or(options.statement_timeout);
    if let Some(name) = uri.application_name() {
        name.clone_into(&mut options.application_name);
    }
    options.validate()?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::uri::CatalogUri;

    fn read(url: &str) -> Result<MssqlOptions> {
        let uri: CatalogUri = url.parse().unwrap();
        login(uri.server().unwrap(), &|_| None)
    }

    #[test]
    fn every_option_arrives() {
        let options = read(
            "sqlserver://sa:p%40ss@h:77/lake?encrypt=strict&trust_server_certificate_ca=ca\
             &client_certificate=cert&client_key=key&instance=I&table_prefix=a_&schema=s\
             &max_connections=21&min_connections=2&acquire_timeout=3s&idle_timeout=4s\
             &max_lifetime=5s&test_before_acquire=false&statement_timeout=6s&application_name=app",
        )
        .unwrap();
        let mut expected = MssqlOptions::new("h", "lake", "sa");
        expected.port = 77;
        expected.instance = Some("I".into());
        expected.password = Some("p@ss".into());
        expected.tls.mode = Encrypt::Strict;
        expected.tls.ca_file = Some("ca".into());
        expected.tls.cert_file = Some("cert".into());
        expected.tls.key_file = Some("key".into());
        expected.table_prefix = "a_".into();
        expected.schema = "s".into();
        expected.pool.max_connections = 21;
        expected.pool.min_connections = 2;
        expected.pool.acquire_timeout = Duration::from_secs(3);
        expected.pool.idle_timeout = Duration::from_secs(4);
        expected.pool.max_lifetime = Duration::from_secs(5);
        expected.pool.test_before_acquire = false;
        expected.statement_timeout = Duration::from_secs(6);
        expected.application_name = "app".into();
        assert_eq!(options, expected);
        let options = read("mssql://sa@h/lake?TrustServerCertificate=yes").unwrap();
        assert!(options.tls.trust_server_certificate);
    }

    #[test]
    fn what_is_left_out_is_the_default() {
        assert_eq!(read("mssql://sa@h/lake").unwrap(), MssqlOptions::new("h", "lake", "sa"));
        assert!(read("mssql://h/lake").unwrap_err().to_string().contains("names no user"));
    }
}
