//! From a URL to a database.

use std::sync::Arc;

use anyhow::{Context, bail};
use deltalakedb_backend_mssql::{MssqlBackend, MssqlOptions};
use deltalakedb_backend_mysql::{MySqlBackend, MySqlOptions};
use deltalakedb_backend_postgres::{PostgresBackend, PostgresOptions};
use deltalakedb_backend_sqlite::{SqliteBackend, SqliteOptions};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_engine::catalog::Catalog;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::system::{RandomIds, SystemClock};

/// Opens a database. Its tables need not exist.
///
/// # Errors
/// If the URL is none of a database we know (its text is not repeated: it may hold a password), or
/// the database is not there.
pub async fn open(url: &str) -> anyhow::Result<Arc<dyn CatalogBackend>> {
    let parsed = Url::parse(url).context("the catalog is not given as a URL")?;
    match parsed.scheme() {
        "sqlite" => {
            let path = parsed.path();
            Ok(SqliteBackend::open(SqliteOptions::new(path)).context("opening SQLite")?)
        }
        "mssql" | "sqlserver" => Ok(MssqlBackend::connect(MssqlOptions::from_url(url)?)
            .await
            .context("opening SQL Server")?),
        "mysql" | "mariadb" => {
            Ok(MySqlBackend::connect(mysql(&parsed)?).await.context("opening MySQL")?)
        }
        "postgres" | "postgresql" => {
            Ok(PostgresBackend::connect(postgres(&parsed)?).await.context("opening PostgreSQL")?)
        }
        other => bail!("catalogs of the scheme '{other}' are not known here"),
    }
}

/// Opens a catalog with the real clock.
///
/// # Errors
/// See [`open`].
pub async fn catalog(url: &str) -> anyhow::Result<Catalog> {
    let backend = open(url).await?;
    Ok(Catalog::new(backend, Arc::new(SystemClock), Arc::new(RandomIds)))
}

/// What every URL of a server has.
struct Login {
    host: String,
    port: u16,
    database: String,
    user: String,
    password: Option<String>,
}

impl Login {
    fn of(url: &Url, port: u16) -> anyhow::Result<Login> {
        let decoded = |text: &str| -> anyhow::Result<String> {
            Ok(percent_decode_str(text).decode_utf8()?.into_owned())
        };
        let host = url.host_str().context("the URL has no host")?;
        Ok(Login {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(port),
            database: decoded(url.path().trim_start_matches('/'))?,
            user: decoded(url.username())?,
            password: url.password().map(decoded).transpose()?,
        })
    }
}

/// Only what these tests use of the options of MySQL's clients.
fn mysql(url: &Url) -> anyhow::Result<MySqlOptions> {
    let login = Login::of(url, 3306)?;
    let mut options = MySqlOptions::new(login.host, login.port, login.database, login.user);
    options.password = login.password.map(Into::into);
    for (key, value) in url.query_pairs() {
        let value = value.into_owned();
        match &*key {
            "table_prefix" => options.table_prefix = value,
            "max_connections" => options.pool.max_connections = value.parse()?,
            "ssl-mode" => options.tls.mode = deltalakedb_backend_mysql::TlsMode::parse(&value)?,
            "ssl-ca" => options.tls.ca_file = Some(value.into()),
            other => bail!("the option '{other}' of MySQL is not known here"),
        }
    }
    Ok(options)
}

/// Only what these tests use of the options of PostgreSQL's clients.
fn postgres(url: &Url) -> anyhow::Result<PostgresOptions> {
    let login = Login::of(url, 5432)?;
    let mut options = PostgresOptions::new(login.host, login.port, login.database, login.user);
    options.password = login.password.map(Into::into);
    for (key, value) in url.query_pairs() {
        let value = value.into_owned();
        match &*key {
            "schema" => options.schema = Some(value),
            "table_prefix" => options.table_prefix = value,
            "statement_cache" => options.statement_cache = value.parse()?,
            "max_connections" => options.pool.max_connections = value.parse()?,
            "sslmode" => options.tls.mode = deltalakedb_backend_postgres::TlsMode::parse(&value)?,
            "sslrootcert" => options.tls.ca_file = Some(value.into()),
            other => bail!("the option '{other}' of PostgreSQL is not known here"),
        }
    }
    Ok(options)
}
