//! A MariaDB Galera cluster.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::mariadb::{MariaDb, MariaDbOptions};
use crate::ports;
use crate::programs::galera_provider;

/// The state of a node that takes part: <https://mariadb.com/kb/en/galera-cluster-status-variables/>.
const STATE: &str = "SELECT GROUP_CONCAT(VARIABLE_VALUE ORDER BY VARIABLE_NAME) FROM \
     information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME IN \
     ('WSREP_LOCAL_STATE_COMMENT', 'WSREP_READY')";

/// In the order of their names.
const TAKES_PART: &str = "Synced,ON";

/// A cluster of MariaDB servers that all accept writes. A commit is certified by all of them: one
/// that loses fails at COMMIT with error 1213.
///
/// Dropping it ends all of them and removes their folders.
#[derive(Debug)]
pub struct Galera {
    nodes: Vec<MariaDb>,
    running: Vec<bool>,
}

impl Galera {
    /// Makes and starts a cluster, and waits until each node takes part in it.
    ///
    /// # Errors
    /// If a program is missing, with the command that installs it; or if a node does not start,
    /// with the end of its log.
    pub fn start(nodes: usize) -> Result<Galera> {
        Galera::start_with(nodes, &[])
    }

    /// The same with more lines in the section `[mysqld]` of each node.
    ///
    /// # Errors
    /// As [`Galera::start`].
    pub fn start_with(nodes: usize, config: &[String]) -> Result<Galera> {
        ensure!(nodes > 0, "a cluster has at least one node");
        let provider = galera_provider()?;
        let groups = (0..nodes).map(|_| ports::free()).collect::<Result<Vec<u16>>>()?;
        let addresses: Vec<String> = groups.iter().map(|p| format!("127.0.0.1:{p}")).collect();
        let password = ports::password()?;
        let mut cluster = Galera { nodes: Vec::new(), running: Vec::new() };
        for (number, address) in addresses.iter().enumerate() {
            let increment = ports::free()?;
            let mut lines = vec![
                "binlog_format=ROW".to_owned(),
                "innodb_autoinc_lock_mode=2".to_owned(),
                "default_storage_engine=InnoDB".to_owned(),
                "wsrep_on=ON".to_owned(),
                format!("wsrep_provider={}", provider.display()),
                format!("wsrep_cluster_address=gcomm://{}", addresses.join(",")),
                format!("wsrep_cluster_name=test-{}", groups[0]),
                format!("wsrep_node_name=node{number}"),
                format!("wsrep_node_address={address}"),
                format!("wsrep_sst_receive_address=127.0.0.1:{}", ports::free()?),
                "wsrep_sst_method=rsync".to_owned(),
                "wsrep_slave_threads=2".to_owned(),
                format!(
                    "wsrep_provider_options=\"gmcast.listen_addr=tcp://{address};\
                     ist.recv_addr=127.0.0.1:{increment};gcache.size=128M\""
                ),
            ];
            lines.extend(config.iter().cloned());
            let options = MariaDbOptions { tls: None, config: lines };
            let mut node = MariaDb::prepare(options, password.clone())?;
            let mut arguments = Vec::new();
            if number == 0 {
                node.install()?;
                arguments = node.first_arguments()?;
                arguments.push("--wsrep-new-cluster".to_owned());
            }
            node.start_with(&arguments, STATE, TAKES_PART)
                .with_context(|| format!("node {number} of a Galera cluster"))?;
            cluster.nodes.push(node);
            cluster.running.push(true);
        }
        cluster.wait_size(nodes, Duration::from_secs(60))?;
        Ok(cluster)
    }

    /// The number of nodes, those that do not run included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: a cluster has at least one node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One of the nodes, from 0.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn node(&self, number: usize) -> &MariaDb {
        &self.nodes[number]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[MariaDb] {
        &self.nodes
    }

    /// The URL of a database on each node, as the user of [`MariaDb::url`].
    pub fn urls(&self, database: &str) -> Vec<String> {
        self.nodes.iter().map(|n| n.url(database)).collect()
    }

    /// The URL of a database on each node, as the user that may do everything.
    pub fn superuser_urls(&self, database: &str) -> Vec<String> {
        self.nodes.iter().map(|n| n.superuser_url(database)).collect()
    }

    /// Makes a database, on all nodes: DDL is replicated.
    ///
    /// # Errors
    /// If no node runs; what the client says.
    pub fn create_database(&self, name: &str) -> Result<()> {
        let running = self.running.iter().position(|r| *r).context("no node runs")?;
        self.nodes[running].create_database(name)
    }

    /// A crash of one node. The others go on, once they have noticed (some seconds), if they are
    /// more than half.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn kill(&mut self, number: usize) {
        self.nodes[number].kill();
        self.running[number] = false;
    }

    /// Ends one node in order. The others go on at once.
    ///
    /// # Errors
    /// If it does not end.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn stop(&mut self, number: usize) -> Result<()> {
        self.nodes[number].stop()?;
        self.running[number] = false;
        Ok(())
    }

    /// Starts a node that was killed or stopped, and waits until it has what it missed and takes
    /// part again. As in a system service, the node first asks its own tables how far it had come, so
    /// that it receives the rest only, if another node still has that.
    ///
    /// # Errors
    /// If no other node runs; if it does not start, with the end of its log.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn rejoin(&mut self, number: usize) -> Result<()> {
        if self.running[number] {
            return Ok(());
        }
        ensure!(self.running.iter().any(|r| *r), "no node runs that node {number} could join");
        let node = &mut self.nodes[number];
        let position = node.recovered_position()?;
        let arguments: Vec<String> =
            position.into_iter().map(|p| format!("--wsrep-start-position={p}")).collect();
        node.start_with(&arguments, STATE, TAKES_PART)
            .with_context(|| format!("node {number} of a Galera cluster"))?;
        self.running[number] = true;
        Ok(())
    }

    /// Waits until each node that runs sees a cluster of so many.
    ///
    /// # Errors
    /// If that takes longer than `limit`.
    pub fn wait_size(&self, size: usize, limit: Duration) -> Result<()> {
        let began = Instant::now();
        let wanted = size.to_string();
        for (node, _) in self.nodes.iter().zip(&self.running).filter(|(_, running)| **running) {
            let left = limit.saturating_sub(began.elapsed());
            crate::wait_until(&format!("a cluster of {size}"), left, || {
                let seen = node.sql(
                    "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
                     WHERE VARIABLE_NAME = 'WSREP_CLUSTER_SIZE'",
                );
                Ok(seen.is_ok_and(|s| s == wanted))
            })?;
        }
        Ok(())
    }
}
