//! PostgreSQL: the server that the environment names, else one of our own; and PgBouncer before it.

use deltalakedb_contention::scenario::Scenario;
use deltalakedb_test_servers::{PgBouncer, PoolMode, Postgres, PostgresOptions, postgres_urls};

use super::answers::lost_answers;
use super::server::{Server, Slot, lock, shared, through_outages, undisturbed};
use super::{Database, Outcome, figures, plan};

static SERVER: Slot<Postgres> = Slot::new();

impl Server for Postgres {
    fn boot() -> anyhow::Result<Self> {
        let server = Postgres::start(PostgresOptions::default())?;
        server.create_database("contention")?;
        Ok(server)
    }

    fn url(&self) -> String {
        Postgres::url(self, "contention")
    }

    fn port(&self) -> u16 {
        Postgres::port(self)
    }

    fn kill(&mut self) {
        Postgres::kill(self);
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        Postgres::start_again(self)
    }

    fn pause(&self) {
        Postgres::pause(self);
    }

    fn resume(&self) {
        Postgres::resume(self);
    }
}

/// In a database that is not ours, our tables lie in a schema of their own.
fn given() -> Option<String> {
    let url = postgres_urls().into_iter().next()?;
    let separator = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{separator}schema=contention"))
}

/// On a server alone.
pub(super) fn postgres() -> Database {
    Database {
        name: "postgres",
        tests: vec![
            ("appends", || undisturbed(&SERVER, given(), Scenario::Appends)),
            ("batches", || undisturbed(&SERVER, given(), Scenario::Batches)),
            ("mixed", || undisturbed(&SERVER, given(), Scenario::Mixed)),
            ("appends_through_outages", || through_outages(&SERVER, Scenario::Appends)),
            ("batches_through_outages", || through_outages(&SERVER, Scenario::Batches)),
            ("lost_answers", || lost_answers(&SERVER)),
        ],
    }
}

fn pooled(scenario: Scenario, commits: u64) -> Outcome {
    let server = shared(&SERVER)?;
    let pooler = PgBouncer::start(&lock(&server), PoolMode::Transaction);
    let pooler = pooler.map_err(|error| super::Halt::Unavailable(format!("{error:#}")))?;
    // This version of PgBouncer may not know prepared statements in this mode.
    let url = format!("{}?statement_cache=0", pooler.url("contention"));
    figures(plan(&[url], scenario).commits(commits))
}

/// Through a pooler that gives each transaction another connection.
pub(super) fn pgbouncer() -> Database {
    Database {
        name: "pgbouncer",
        tests: vec![
            ("appends", || pooled(Scenario::Appends, 50)),
            ("batches", || pooled(Scenario::Batches, 25)),
            ("mixed", || pooled(Scenario::Mixed, 25)),
        ],
    }
}
