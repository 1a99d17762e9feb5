//! The conformance suite on a Galera cluster: the two handles of a case are on different nodes.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_conformance::{Fixture, Harness};
use deltalakedb_contention::database;
use deltalakedb_test_servers::Galera;

const NODES: usize = 3;

struct Cluster;

fn cluster() -> std::result::Result<&'static Galera, String> {
    static CLUSTER: OnceLock<std::result::Result<Galera, String>> = OnceLock::new();
    // Reads see what another node has acknowledged before they began, as the contract asks for.
    let cluster = CLUSTER.get_or_init(|| {
        Galera::start_with(NODES, &["wsrep_sync_wait=15".to_owned()])
            .map_err(|error| format!("{error:#}"))
    });
    cluster.as_ref().map_err(Clone::clone)
}

/// Makes a database, and waits until each node knows it: no read waits for that at a login.
fn make(database: &str) -> anyhow::Result<()> {
    let cluster = cluster().map_err(anyhow::Error::msg)?;
    cluster.create_database(database)?;
    for node in cluster.nodes() {
        node.sql("SELECT COUNT(*) FROM mysql.db")?;
    }
    Ok(())
}

fn failed(why: String) -> CatalogError {
    CatalogError::failed(why, WriteState::NotApplied)
}

async fn open(node: usize, database: &str) -> Result<Arc<dyn CatalogBackend>> {
    let url = cluster().map_err(failed)?.node(node % NODES).url(database);
    database::open(&url).await.map_err(|error| failed(format!("{error:#}")))
}

#[async_trait]
impl Harness for Cluster {
    fn name(&self) -> &'static str {
        "galera"
    }

    fn one_at_a_time(&self) -> bool {
        true
    }

    async fn unavailable(&self) -> Option<String> {
        cluster().err()
    }

    async fn fresh(&self) -> Result<Fixture> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let database = format!("c{number}");
        make(&database).map_err(|error| failed(format!("{error:#}")))?;
        let backend = open(number, &database).await?;
        Ok(Fixture::new(backend, database).guarded_by(number))
    }

    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        let node = fixture.guard().and_then(|guard| guard.downcast_ref::<usize>());
        Ok(Some(open(node.copied().unwrap_or_default() + 1, &fixture.place).await?))
    }
}

fn main() -> ExitCode {
    deltalakedb_conformance::run(vec![Arc::new(Cluster)])
}
