//! A real Prometheus reads a worker: it answers every query of the dashboard, and every rule can be evaluated.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deltalakedb_test_servers::{Prometheus, Software, skip};
use serde_json::Value;

use crate::world::{World, add};

/// A worker, ended with this value.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file of `deploy/`.
fn deployed(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The queries of a dashboard, with values in the place of Grafana's variables.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(query)) = map.get("expr") {
                let values = [
                    ("$__rate_interval", "1m"),
                    ("$__range", "1h"),
                    ("$job", "worker"),
                    ("$instance", ".*"),
                ];
                let filled = values.iter().fold(query.clone(), |q, (name, v)| q.replace(name, v));
                assert!(!filled.contains('$'), "{filled}");
                found.push(filled);
            }
            map.values().for_each(|value| queries(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

/// Asks until there is an answer with a value, bounded.
#[track_caller]
pub(crate) fn until(prometheus: &Prometheus, query: &str, holds: impl Fn(f64) -> bool) {
    let begun = Instant::now();
    loop {
        let data = prometheus.query(query).unwrap();
        let value = data["result"][0]["value"][1].as_str().and_then(|text| text.parse().ok());
        if value.is_some_and(&holds) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{query}: {data}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_worker_is_watched_by_a_real_prometheus() {
    if let Err(why) = Software::Prometheus.check() {
        return skip(&["prometheus"], why);
    }
    let world = World::with_table();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    // The address of the configuration counts as that of the command line does.
    let mut run = world.command(&["mirror", "run", "--watch", "--reconcile-every", "1"]);
    run.env("DELTA_MONITORING_LISTEN", &address).stdout(Stdio::null()).stderr(Stdio::null());
    let _worker = Worker(run.spawn().unwrap());
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus/rules.yaml");
    let prometheus = Prometheus::start("worker", &[address], Some(&rules)).unwrap();

    until(&prometheus, "max(up{job=\"worker\"})", |up| up > 0.5);
    for n in 0..3 {
        let line = add(&format!("day=1/{n}"), "1");
        world.dl_with_input(&["commit", "s.t", "--no-publish"], &line).ok();
    }
    until(&prometheus, "sum(dl_mirror_published_seconds_count)", |versions| versions >= 3.0);
    until(&prometheus, "max(dl_mirror_lag_seconds)", |seconds| seconds < 1.0);

    let mut asked = Vec::new();
    queries(&serde_json::from_str(&deployed("grafana/dashboard.json")).unwrap(), &mut asked);
    assert!(asked.len() > 30, "{asked:?}");
    let mut answered = 0;
    for query in &asked {
        let data = prometheus.query(query).unwrap_or_else(|e| panic!("{query}: {e}"));
        answered += usize::from(data["result"].as_array().is_some_and(|rows| !rows.is_empty()));
    }
    // Some ask for what has not happened here: conflicts, divergence, failed calls.
    assert!(answered * 2 > asked.len(), "{answered} of {} queries found something", asked.len());
    // An alert that is pending or fires is a series of this name.
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}").unwrap();
    assert_eq!(firing["result"], serde_json::json!([]), "nothing is wrong");
}

#[test]
fn every_command_of_the_deployment_files_is_understood() {
    let mut asked = 0;
    let mut lines: Vec<String> = Vec::new();
    for name in [
        "systemd/deltalakedb-worker.service",
        "systemd/deltalakedb-backup.service",
        "systemd/deltalakedb-reconcile.service",
    ] {
        let text = deployed(name).replace("\\\n", " ");
        lines.extend(text.lines().filter_map(|l| l.strip_prefix("ExecStart=")).map(str::to_owned));
    }
    // A list of YAML is one of words here.
    let compose = deployed("compose.yaml");
    let of_compose = compose.lines().filter_map(|l| l.trim().strip_prefix("command: ["));
    lines.extend(of_compose.map(|l| format!("dl {}", l.replace([',', '"', ']'], " "))));
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        assert!(!words.is_empty(), "{line}");
        // Its arguments are read, then its help is printed.
        let dl =
            Command::new(env!("CARGO_BIN_EXE_dl")).args(&words).arg("--help").output().unwrap();
        assert!(dl.status.success(), "{line}: {}", String::from_utf8_lossy(&dl.stderr));
        asked += 1;
    }
    assert!(asked >= 6, "{asked} commands");
}
