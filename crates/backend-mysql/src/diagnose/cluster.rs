//! Galera (<https://galeracluster.com/library/documentation/galera-status-variables.html>), replication and
//! connections, by what the server says of its state.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::diagnosis::{Diagnosis, Level};

/// Variables of the server's state that are looked at; servers leave out those that they do not have.
pub(super) const STATUS: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN (
    'wsrep_cluster_status', 'wsrep_ready', 'wsrep_connected', 'wsrep_local_state_comment',
    'wsrep_cluster_size', 'wsrep_flow_control_paused', 'wsrep_local_recv_queue_avg',
    'Max_used_connections', 'Threads_connected', 'Connection_errors_max_connections')";

/// Part of the time for which a node may make the others wait.
const MUCH_FLOW_CONTROL: f64 = 0.1;
/// A replica that is later is late, seconds.
const LATE_S: i64 = 10;

/// What a Galera node says of its cluster; nothing on a server that is none.
pub(super) fn galera(
    settings: &BTreeMap<String, String>,
    status: &BTreeMap<String, String>,
) -> Vec<Diagnosis> {
    let on = settings.get("wsrep_on").is_some_and(|value| value.eq_ignore_ascii_case("on"));
    let get = |name: &str| status.get(name).map(String::as_str).unwrap_or_default();
    if !on || get("wsrep_cluster_status").is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut state = |name: &str, bad: Option<(Level, &str, &str)>| {
        found.push(match bad {
            None => Diagnosis::ok(name, get(name)),
            Some((level, why, advice)) => Diagnosis::new(level, name, get(name), why, advice),
        });
    };
    state(
        "wsrep_cluster_status",
        (!get("wsrep_cluster_status").eq_ignore_ascii_case("primary")).then_some((
            Level::Error,
            "this node is not in the part of the cluster that has the majority: it takes no statements",
            "bring the other nodes back, or name nodes of the primary component in the catalog's URL",
        )),
    );
    state(
        "wsrep_ready",
        (!get("wsrep_ready").eq_ignore_ascii_case("on")).then_some((
            Level::Error,
            "the node refuses queries",
            "wait until it has joined, and look at its error log",
        )),
    );
    state(
        "wsrep_local_state_comment",
        (!get("wsrep_local_state_comment").eq_ignore_ascii_case("synced")).then_some((
            Level::Warning,
            "the node lags behind the others, or is busy as a donor: commits and reads here wait",
            "name a node that is Synced in the catalog's URL",
        )),
    );
    let size: u64 = get("wsrep_cluster_size").parse().unwrap_or(0);
    state(
        "wsrep_cluster_size",
        match size {
            0 => None,
            1 => Some((
                Level::Warning,
                "the node is alone: what it has is nowhere else",
                "bring the other nodes back",
            )),
            even if even % 2 == 0 => Some((
                Level::Note,
                "of an even number of nodes, half is no majority: a split stops the cluster",
                "an odd number of nodes, or an arbitrator (garbd)",
            )),
            _ => None,
        },
    );
    let paused: f64 = get("wsrep_flow_control_paused").parse().unwrap_or(0.0);
    if !get("wsrep_flow_control_paused").is_empty() {
        state(
            "wsrep_flow_control_paused",
            (paused > MUCH_FLOW_CONTROL).then_some((
                Level::Warning,
                "so much of the time all nodes wait for the slowest one, and commits with them",
                "look at the slowest node's disk, or raise wsrep_slave_threads there",
            )),
        );
    }
    // The bits 1 (reads), 2 and 4 (changes): each call sees what another node has committed.
    let wait = settings.get("wsrep_sync_wait").map(String::as_str).unwrap_or_default();
    found.push(match wait.parse::<u64>() {
        Ok(bits) if bits & 7 == 7 => Diagnosis::ok("wsrep_sync_wait", wait),
        _ => Diagnosis::new(
            Level::Warning,
            "wsrep_sync_wait",
            wait,
            "a read on one node may miss what another one has committed",
            "set wsrep_sync_wait = 7 on each node",
        ),
    });
    found
}

/// A server that copies from another one. `rows` are the columns of its `SHOW REPLICA STATUS`, a channel each.
pub(super) fn replication(
    settings: &BTreeMap<String, String>,
    rows: &[BTreeMap<String, String>],
) -> Vec<Diagnosis> {
    let writable = ["read_only", "super_read_only"].iter().all(|name| {
        settings
            .get(*name)
            .is_none_or(|value| matches!(value.to_ascii_lowercase().as_str(), "off" | "0"))
    });
    let mut found = Vec::new();
    for row in rows {
        let get = |names: [&str; 2]| names.iter().find_map(|name| row.get(*name)).cloned();
        let source = get(["source_host", "master_host"]).unwrap_or_default();
        let runs = |names| get(names).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        let running = runs(["replica_io_running", "slave_io_running"])
            && runs(["replica_sql_running", "slave_sql_running"]);
        let late: Option<i64> = get(["seconds_behind_source", "seconds_behind_master"])
            .and_then(|value| value.parse().ok());
        let text = format!(
            "a replica of {source}, {}",
            match (running, late) {
                (false, _) => "stopped".to_owned(),
                (true, Some(late)) => format!("{late} s late"),
                (true, None) => "its lag is not known".to_owned(),
            }
        );
        found.push(if !running || late.is_some_and(|late| late > LATE_S) {
            Diagnosis::new(
                Level::Warning,
                "replication",
                text,
                "readers of a late replica see old versions, and a failover to it loses what it lacks",
                "SHOW REPLICA STATUS tells the last error; look at the replica's disk and network",
            )
        } else if writable {
            Diagnosis::new(
                Level::Warning,
                "replication",
                text,
                "it takes writes as well: what is committed here is not at the source, and may stop the \
                 replication",
                "name the source in the catalog's URL, and set read_only = ON on the replica",
            )
        } else {
            Diagnosis::ok("replication", text)
        });
    }
    found
}

/// Connections that there were, against those that there may be.
pub(super) fn connections(
    settings: &BTreeMap<String, String>,
    status: &BTreeMap<String, String>,
    pool: u32,
) -> Vec<Diagnosis> {
    let setting = |name: &str| settings.get(name)?.parse::<u64>().ok();
    let state = |name: &str| status.get(name)?.parse::<u64>().ok();
    let mut found = Vec::new();
    if let Some(most) = setting("max_user_connections").filter(|most| *most > 0) {
        let text = most.to_string();
        found.push(if u64::from(pool) > most {
            Diagnosis::new(
                Level::Warning,
                "max_user_connections",
                text,
                format!("the pool of this program may want {pool} connections of one login"),
                "raise max_user_connections, or lower max_connections in the catalog's URL",
            )
        } else {
            Diagnosis::ok("max_user_connections", text)
        });
    }
    let (Some(most), Some(used)) = (setting("max_connections"), state("max_used_connections"))
    else {
        return found;
    };
    let refused = state("connection_errors_max_connections").unwrap_or(0);
    let text = format!(
        "at most {used} of {most} were in use since the server started, {refused} were refused"
    );
    found.push(if refused > 0 || used.saturating_mul(10) >= most.saturating_mul(9) {
        Diagnosis::new(
            Level::Warning,
            "connections",
            text,
            "programs that get no connection wait, and fail as busy",
            "raise max_connections; the pools of all programs together should need less",
        )
    } else {
        Diagnosis::ok("connections", text)
    });
    found
}

/// The zone in which the server takes and shows times. The catalog's own are numbers, in no zone.
pub(super) fn time_zone(settings: &BTreeMap<String, String>) -> Option<Diagnosis> {
    let zone = settings.get("time_zone")?;
    let system = settings.get("system_time_zone").map(String::as_str).unwrap_or_default();
    let (in_force, shown) = if zone.eq_ignore_ascii_case("system") {
        (system, format!("SYSTEM, which is {system}"))
    } else {
        (zone.as_str(), zone.clone())
    };
    let is_utc = ["utc", "etc/utc", "gmt", "+00:00", "zulu"]
        .contains(&in_force.to_ascii_lowercase().as_str());
    Some(if is_utc {
        Diagnosis::ok("time_zone", shown)
    } else {
        Diagnosis::new(
            Level::Note,
            "time_zone",
            shown,
            "times of the catalog and of its views are UTC: NOW() in a query beside them is not",
            "set time_zone = '+00:00', or write UTC_TIMESTAMP() in such queries",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_node_says_how_its_cluster_is() {
        let settings = map(&[("wsrep_on", "ON"), ("wsrep_sync_wait", "7")]);
        let sound = [
            ("wsrep_cluster_status", "Primary"),
            ("wsrep_ready", "ON"),
            ("wsrep_local_state_comment", "Synced"),
            ("wsrep_cluster_size", "3"),
            ("wsrep_flow_control_paused", "0.01"),
        ];
        let worst = |change: (&str, &str)| {
            let mut status = map(&sound);
            status.insert(change.0.to_owned(), change.1.to_owned());
            galera(&settings, &status).into_iter().map(|d| d.level).max().unwrap()
        };
        for (name, value, level) in [
            ("wsrep_ready", "ON", Level::Ok),
            ("wsrep_cluster_status", "non-Primary", Level::Error),
            ("wsrep_cluster_status", "Disconnected", Level::Error),
            ("wsrep_ready", "OFF", Level::Error),
            ("wsrep_local_state_comment", "Donor/Desynced", Level::Warning),
            ("wsrep_local_state_comment", "Joined", Level::Warning),
            ("wsrep_cluster_size", "1", Level::Warning),
            ("wsrep_cluster_size", "2", Level::Note),
            ("wsrep_cluster_size", "4", Level::Note),
            ("wsrep_cluster_size", "5", Level::Ok),
            ("wsrep_flow_control_paused", "0.5", Level::Warning),
            ("wsrep_flow_control_paused", "NaN", Level::Ok),
        ] {
            assert_eq!(worst((name, value)), level, "{name}={value}");
        }
        for wait in ["0", "1", "6", "", "x"] {
            let settings = map(&[("wsrep_on", "ON"), ("wsrep_sync_wait", wait)]);
            let found = galera(&settings, &map(&sound));
            assert_eq!(found.last().unwrap().level, Level::Warning, "{wait}");
        }
        // A server with the library, and without a cluster.
        assert!(galera(&map(&[("wsrep_on", "OFF")]), &map(&sound)).is_empty());
        assert!(galera(&map(&[]), &map(&[])).is_empty());
    }

    #[test]
    fn replicas_are_told() {
        let level = |rows: &[(&str, &str)], read_only: &str| {
            replication(&map(&[("read_only", read_only)]), &[map(rows)])[0].level
        };
        let old = [
            ("master_host", "db1"),
            ("slave_io_running", "Yes"),
            ("slave_sql_running", "Yes"),
            ("seconds_behind_master", "0"),
        ];
        let new = [
            ("source_host", "db1"),
            ("replica_io_running", "Yes"),
            ("replica_sql_running", "Yes"),
            ("seconds_behind_source", "11"),
        ];
        assert_eq!(level(&old, "ON"), Level::Ok);
        assert_eq!(level(&old, "OFF"), Level::Warning);
        assert_eq!(level(&new, "ON"), Level::Warning);
        assert_eq!(level(&old[..2], "ON"), Level::Warning);
        assert!(replication(&map(&[]), &[]).is_empty());
    }

    #[test]
    fn connections_and_zones_are_told() {
        let of = |most: &str, used: &str, refused: &str| {
            let status =
                [("max_used_connections", used), ("connection_errors_max_connections", refused)];
            connections(&map(&[("max_connections", most)]), &map(&status), 10)[0].level
        };
        assert_eq!(of("100", "89", "0"), Level::Ok);
        assert_eq!(of("100", "90", "0"), Level::Warning);
        assert_eq!(of("100", "10", "1"), Level::Warning);
        let user = |most: &str| connections(&map(&[("max_user_connections", most)]), &map(&[]), 10);
        assert!(user("0").is_empty());
        assert_eq!(user("10")[0].level, Level::Ok);
        assert_eq!(user("9")[0].level, Level::Warning);
        for (zone, system, level) in [
            ("SYSTEM", "UTC", Level::Ok),
            ("SYSTEM", "CEST", Level::Note),
            ("+00:00", "CEST", Level::Ok),
            ("Europe/Berlin", "UTC", Level::Note),
        ] {
            let settings = map(&[("time_zone", zone), ("system_time_zone", system)]);
            assert_eq!(time_zone(&settings).unwrap().level, level, "{zone} {system}");
        }
        assert!(time_zone(&map(&[])).is_none());
    }
}
