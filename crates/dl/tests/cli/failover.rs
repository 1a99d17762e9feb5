//! Several hosts in a URL: the one that takes writes is used.

use std::time::Duration;

use deltalakedb_test_servers::{
    MariaDb, MariaDbOptions, Postgres, PostgresOptions, skip, wait_until,
};

use crate::world::World;

#[test]
fn a_promoted_replica_takes_over() {
    if !cfg!(feature = "postgres") {
        return skip(&["postgres"], "dl was built without the cargo feature of PostgreSQL");
    }
    let mut primary = match Postgres::start(PostgresOptions::default()) {
        Ok(server) => server,
        Err(why) => return skip(&["postgres", "replica"], why),
    };
    primary.create_database("lake").unwrap();
    let replica = primary.replica().unwrap();
    let (user, password) = (primary.user(), primary.password());
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", replica.port(), primary.port());
    let url = format!(
        "postgresql://{user}:{password}@{hosts}/lake?target_session_attrs=read-write&acquire_timeout=20s"
    );
    let world = World::at(Some(url.clone()));
    // The replica stands first, and is passed over.
    world.dl(&["init"]).ok();
    world.create("s.t", "t", &[]).ok();
    replica.wait_caught_up(&primary, Duration::from_secs(60)).unwrap();
    primary.kill();
    let short = World::at(Some(format!("{url}&retry_timeout=0").replace("=20s", "=2s")));
    short.dl(&["list"]).fails(&["takes no writes"]);
    replica.psql("SELECT pg_promote();").unwrap();
    wait_until("the replica is promoted", Duration::from_secs(60), || {
        Ok(replica.psql("SELECT pg_is_in_recovery();")? == "f")
    })
    .unwrap();
    world.create("s.after", "after", &[]).ok();
    world.dl(&["list"]).ok().says("s.t").says("s.after");
}

#[test]
fn a_read_only_mariadb_is_passed_over() {
    if !cfg!(feature = "mysql") {
        return skip(&["mysql"], "dl was built without the cargo feature of MySQL");
    }
    let start = || MariaDb::start(MariaDbOptions::default());
    let (one, two) = match (start(), start()) {
        (Ok(one), Ok(two)) => (one, two),
        (Err(why), _) | (_, Err(why)) => return skip(&["mysql"], why),
    };
    for server in [&one, &two] {
        server.create_database("lake").unwrap();
    }
    // The same login on both.
    for server in [&one, &two] {
        server.create_user("dl_failover", "pass_word").unwrap();
        server.sql("GRANT ALL ON lake.* TO dl_failover").unwrap();
    }
    let ports = (one.port(), two.port());
    let url =
        format!("mysql://dl_failover:pass_word@127.0.0.1:{},127.0.0.1:{}/lake", ports.0, ports.1);
    let world = World::at(Some(url));
    one.sql("SET GLOBAL read_only = 1").unwrap();
    world.dl(&["init"]).ok();
    let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'lake'";
    assert!(one.sql(tables).unwrap().contains('0'), "nothing is written to a read-only server");
    world.create("s.t", "t", &[]).ok();
    // These two do not replicate: the other one has no catalog, which shows that it is the one that is asked.
    one.sql("SET GLOBAL read_only = 0").unwrap();
    two.sql("SET GLOBAL read_only = 1").unwrap();
    world.dl(&["list"]).fails(&["no catalog"]);
}
