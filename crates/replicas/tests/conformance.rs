//! Every case of the suite, through replicas that have everything and that have nothing.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_engine::memory::MemoryBackend;
use deltalakedb_conformance::{Fixture, Harness, run};
use deltalakedb_replicas::{Replica, ReplicaConfig, ReplicaReader};

/// What the replica of the primary holds.
#[derive(Clone, Copy)]
enum Holds {
    Everything,
    Nothing,
}

struct Replicas(Holds);

fn reader(holds: Holds, primary: &Arc<MemoryBackend>) -> Arc<dyn CatalogBackend> {
    let replica = match holds {
        Holds::Everything => Arc::clone(primary),
        Holds::Nothing => Arc::new(MemoryBackend::new()),
    };
    let replica = Replica::new("replica", move || {
        let replica = Arc::clone(&replica);
        async move { Ok(replica as Arc<dyn CatalogBackend>) }
    });
    let primary = Arc::clone(primary) as Arc<dyn CatalogBackend>;
    Arc::new(ReplicaReader::new(primary, vec![replica], ReplicaConfig::default()))
}

#[async_trait]
impl Harness for Replicas {
    fn name(&self) -> &'static str {
        match self.0 {
            Holds::Everything => "replicas",
            Holds::Nothing => "replicas-empty",
        }
    }

    async fn fresh(&self) -> Result<Fixture> {
        let primary = Arc::new(MemoryBackend::new());
        Ok(Fixture::new(reader(self.0, &primary), "memory").guarded_by(primary))
    }

    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        let primary = fixture.guard().and_then(|g| g.downcast_ref::<Arc<MemoryBackend>>());
        Ok(primary.map(|primary| reader(self.0, primary)))
    }
}

fn main() -> ExitCode {
    run(vec![Arc::new(Replicas(Holds::Everything)), Arc::new(Replicas(Holds::Nothing))])
}
