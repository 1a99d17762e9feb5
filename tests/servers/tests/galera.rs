//! Three nodes: written on all of them, one killed and rejoined.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use deltalakedb_test_servers::{Galera, Software};

#[test]
fn a_killed_node_rejoins_and_has_what_it_missed() {
    if let Err(why) = Software::Galera.check() {
        deltalakedb_test_servers::skip(&["galera"], why);
        return;
    }
    let mut cluster = Galera::start(3).unwrap();
    cluster.create_database("shop").unwrap();
    cluster.node(1).sql("CREATE TABLE shop.t (n int PRIMARY KEY)").unwrap();
    for (n, node) in cluster.nodes().iter().enumerate() {
        // A node applies what another has committed a moment later, unless it is asked to wait.
        node.sql(&format!("SET SESSION wsrep_sync_wait = 7; INSERT INTO shop.t VALUES ({n})"))
            .unwrap();
    }
    cluster.kill(2);
    cluster.wait_size(2, Duration::from_secs(60)).unwrap();
    cluster.node(0).sql("INSERT INTO shop.t VALUES (7)").unwrap();
    cluster.rejoin(2).unwrap();
    cluster.wait_size(3, Duration::from_secs(60)).unwrap();
    let seen =
        cluster.node(2).sql("SET SESSION wsrep_sync_wait = 1; SELECT n FROM shop.t ORDER BY n");
    assert_eq!(seen.unwrap(), "0\n1\n2\n7");
}
