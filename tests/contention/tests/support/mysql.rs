//! MariaDB or MySQL: the server that the environment names, else one of our own; and a cluster.

use std::sync::Arc;

use deltalakedb_contention::run::Disturbance;
use deltalakedb_contention::scenario::Scenario;
use deltalakedb_test_servers::{Galera, MariaDb, MariaDbOptions, mysql_urls};

use super::answers::lost_answers;
use super::server::{PATIENCE, Server, Shared, Slot, lock, through_outages, undisturbed};
use super::{Database, Halt, Outcome, figures, plan};

static SERVER: Slot<MariaDb> = Slot::new();

impl Server for MariaDb {
    fn boot() -> anyhow::Result<Self> {
        let server = MariaDb::start(MariaDbOptions::default())?;
        server.create_database("contention")?;
        Ok(server)
    }

    fn url(&self) -> String {
        MariaDb::url(self, "contention")
    }

    fn port(&self) -> u16 {
        MariaDb::port(self)
    }

    fn kill(&mut self) {
        MariaDb::kill(self);
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        MariaDb::start_again(self)
    }

    fn pause(&self) {
        MariaDb::pause(self);
    }

    fn resume(&self) {
        MariaDb::resume(self);
    }
}

/// In a database that is not ours, our tables have names of their own.
fn given() -> Option<String> {
    let url = mysql_urls().into_iter().next()?;
    let separator = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{separator}table_prefix=contention_"))
}

/// On a server alone.
pub(super) fn mysql() -> Database {
    Database {
        name: "mysql",
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

/// Number of nodes.
const NODES: usize = 3;
/// The one that is killed.
const VICTIM: usize = 2;

/// The cluster of this process, with a database for these tests.
fn cluster() -> Result<Shared<Galera>, Halt> {
    static CLUSTER: Slot<Galera> = Slot::new();
    let start = || {
        // A read waits for what other nodes have acknowledged before it began, and so does a write.
        let cluster = Galera::start_with(NODES, &["wsrep_sync_wait=15".to_owned()])?;
        cluster.create_database("contention")?;
        // No read waits for that at a login.
        for node in cluster.nodes() {
            node.sql("SELECT COUNT(*) FROM mysql.db")?;
        }
        anyhow::Ok(Arc::new(std::sync::Mutex::new(cluster)))
    };
    let cluster = CLUSTER.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    cluster.clone().map_err(Halt::Unavailable)
}

/// Writers on all nodes.
fn everywhere(scenario: Scenario) -> Outcome {
    let urls = lock(&cluster()?).urls("contention");
    figures(plan(&urls, scenario))
}

/// Writers on all nodes, of which one is killed, and comes back.
fn one_dies(scenario: Scenario) -> Outcome {
    let cluster = cluster()?;
    let urls = lock(&cluster).urls("contention");
    let dies = Disturbance::new(20, "killing a node, and letting it join again", move || {
        let mut cluster = lock(&cluster);
        cluster.kill(VICTIM);
        cluster.rejoin(VICTIM)
    });
    figures(plan(&urls, scenario).disturbed(PATIENCE, vec![dies]))
}

/// On a cluster of which every node accepts writes.
pub(super) fn galera() -> Database {
    Database {
        name: "galera",
        tests: vec![
            ("appends", || everywhere(Scenario::Appends)),
            ("batches", || everywhere(Scenario::Batches)),
            ("mixed", || everywhere(Scenario::Mixed)),
            ("appends_while_a_node_dies", || one_dies(Scenario::Appends)),
            ("batches_while_a_node_dies", || one_dies(Scenario::Batches)),
        ],
    }
}
