//! How the suite gets catalogs in the SQL Server of `DL_TEST_MSSQL_URL`: each case has a table
//! prefix of its own, and its tables are dropped after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use deltalakedb_backend_mssql::{Encrypt, MssqlBackend, MssqlOptions};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_conformance::{Fixture, Harness};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

const VARIABLE: &str = "DL_TEST_MSSQL_URL";
const TABLES: [&str; 12] = [
    "schema",
    "tables",
    "commits",
    "commit_chunks",
    "files",
    "protocols",
    "metadata",
    "txns",
    "domain_metadata",
    "batches",
    "mirror",
    "mirror_status",
];

/// The server of `DL_TEST_MSSQL_URL`.
pub(crate) struct Mssql;

/// Options of the server, for tables with a prefix.
pub(crate) fn options(prefix: &str) -> Result<MssqlOptions> {
    let url = std::env::var(VARIABLE).unwrap_or_default();
    let mut options = MssqlOptions::from_url(&url)?;
    prefix.clone_into(&mut options.table_prefix);
    Ok(options)
}

/// A prefix that no one else has.
pub(crate) fn fresh_prefix() -> String {
    static CASES: AtomicU64 = AtomicU64::new(0);
    let case = CASES.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("t{}_{since}_{case}_", std::process::id())
}

#[async_trait]
impl Harness for Mssql {
    fn name(&self) -> &'static str {
        "mssql"
    }

    async fn unavailable(&self) -> Option<String> {
        match std::env::var(VARIABLE) {
            Ok(url) if !url.is_empty() => None,
            _ => Some(format!("{VARIABLE} is not set: SQL Server does not run here by itself")),
        }
    }

    async fn fresh(&self) -> Result<Fixture> {
        let prefix = fresh_prefix();
        let backend = MssqlBackend::connect(options(&prefix)?).await?;
        Ok(Fixture::new(backend, prefix.clone()).guarded_by(Tables { prefix }))
    }

    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        Ok(Some(MssqlBackend::connect(options(&fixture.place)?).await?))
    }
}

/// Drops a case's tables.
pub(crate) struct Tables {
    pub(crate) prefix: String,
}

impl Drop for Tables {
    fn drop(&mut self) {
        let prefix = self.prefix.clone();
        // The case's own runtime must not be blocked.
        let done = std::thread::spawn(move || -> std::result::Result<(), String> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|e| e.to_string())?.block_on(drop_tables(&prefix))
        })
        .join();
        if !matches!(done, Ok(Ok(()))) {
            eprintln!("tables {}* were not dropped: {done:?}", self.prefix);
        }
    }
}

/// A connection of the driver's own.
pub(crate) async fn client(
    options: &MssqlOptions,
) -> std::result::Result<Client<Compat<TcpStream>>, String> {
    let mut config = Config::new();
    config.host(&options.host);
    config.port(options.port);
    config.database(&options.database);
    config.authentication(AuthMethod::sql_server(
        &options.user,
        options.password.as_deref().unwrap_or(""),
    ));
    if options.tls.trust_server_certificate {
        config.trust_cert();
    } else if let Some(file) = &options.tls.ca_file {
        config.trust_cert_ca(file.display());
    }
    // With `encrypt=false`, first with no encryption: a server that wants the login encrypted says so
    // at once, while the driver waits long for one that cannot.
    let levels: &[EncryptionLevel] = match options.tls.mode {
        Encrypt::Off => &[EncryptionLevel::NotSupported, EncryptionLevel::Off],
        Encrypt::On => &[EncryptionLevel::Required],
        Encrypt::Strict => &[EncryptionLevel::Strict],
    };
    let mut client = Err("no attempt".to_owned());
    for level in levels {
        config.encryption(*level);
        let stream = TcpStream::connect((options.host.as_str(), options.port));
        let stream = stream.await.map_err(|e| e.to_string())?;
        let attempt = Box::pin(Client::connect(config.clone(), stream.compat_write()));
        client = attempt.await.map_err(|e| e.to_string());
        if client.is_ok() {
            break;
        }
    }
    client
}

async fn drop_tables(prefix: &str) -> std::result::Result<(), String> {
    let options = options(prefix).map_err(|e| e.to_string())?;
    let mut client = client(&options).await?;
    for table in TABLES {
        let text = format!("DROP TABLE [{}].{prefix}{table}", options.schema);
        let answer = match client.simple_query(text).await {
            Ok(stream) => stream.into_results().await,
            Err(error) => Err(error),
        };
        match answer {
            // 3701: there is none, as the case did not migrate.
            Err(error) if error.code() != Some(3701) => return Err(error.to_string()),
            _ => {}
        }
    }
    Ok(())
}
