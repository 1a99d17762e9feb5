//! The conformance suite through PgBouncer in transaction mode: no session state survives.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_conformance::{Fixture, Harness};
use deltalakedb_contention::database;
use deltalakedb_test_servers::{PgBouncer, PoolMode, Postgres, PostgresOptions};

struct Pooled;

/// The pooler and the server behind it.
fn servers() -> std::result::Result<&'static (PgBouncer, Postgres), String> {
    static SERVERS: OnceLock<std::result::Result<(PgBouncer, Postgres), String>> = OnceLock::new();
    let start = || {
        let server = Postgres::start(PostgresOptions::default())?;
        server.create_database("conformance")?;
        Ok((PgBouncer::start(&server, PoolMode::Transaction)?, server))
    };
    let servers =
        SERVERS.get_or_init(|| start().map_err(|error: anyhow::Error| format!("{error:#}")));
    servers.as_ref().map_err(Clone::clone)
}

async fn open(url: &str) -> Result<Arc<dyn CatalogBackend>> {
    database::open(url)
        .await
        .map_err(|error| CatalogError::failed(format!("{error:#}"), WriteState::NotApplied))
}

#[async_trait]
impl Harness for Pooled {
    fn name(&self) -> &'static str {
        "pgbouncer"
    }

    async fn unavailable(&self) -> Option<String> {
        servers().err()
    }

    async fn fresh(&self) -> Result<Fixture> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pooler, _) =
            servers().map_err(|why| CatalogError::failed(why, WriteState::NotApplied))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A schema each, in one database: the pooler has a pool for each database.
        let url = format!("{}?schema=c{number}&statement_cache=0", pooler.url("conformance"));
        Ok(Fixture::new(open(&url).await?, url))
    }

    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        Ok(Some(open(&fixture.place).await?))
    }
}

fn main() -> ExitCode {
    deltalakedb_conformance::run(vec![Arc::new(Pooled)])
}
