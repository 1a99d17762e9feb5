//! Prometheus runs, reads a target, and has the alerts of `deploy/`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use deltalakedb_test_servers::{Prometheus, Software, skip, wait_until};

/// A worker's answer, as small as can be.
const SCRAPE: &str =
    "dl_mirror_lag_seconds{table_id=\"t\"} 7\ndl_mirror_status{status=\"diverged\"} 1\n";

/// Answers every request with [`SCRAPE`], until the test's process ends.
fn target() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let length = SCRAPE.len();
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{SCRAPE}");
        }
    });
    address
}

#[test]
fn a_scrape_is_read_and_the_alerts_look_at_it() {
    if let Err(why) = Software::Prometheus.check() {
        return skip(&["prometheus"], why);
    }
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus/rules.yaml");
    let server = Prometheus::start("deltalakedb", &[target()], Some(&rules)).unwrap();
    let there = |query: &str| {
        Ok(server.query(query)?["result"].as_array().is_some_and(|found| !found.is_empty()))
    };
    let limit = Duration::from_secs(60);
    wait_until("the target is read", limit, || there("dl_mirror_lag_seconds == 7")).unwrap();
    // They wait for their time before they fire.
    for alert in ["DlMirrorLagging", "DlTableDiverged"] {
        let query = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"pending\"}}");
        wait_until(alert, limit, || there(&query)).unwrap();
    }
    assert!(!there("ALERTS{alertname=\"DlMirrorLate\"}").unwrap());
    let wrong = server.query("sum by (").unwrap_err();
    assert!(format!("{wrong:#}").contains("parse error"), "{wrong:#}");
}
