//! `mirror run --watch --listen`: what a worker tells over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::world::{World, add};

/// A worker that listens, ended with this value.
pub(crate) struct Worker {
    child: Child,
    base: String,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    fn start(world: &World, more: &[&str]) -> Worker {
        let run = ["mirror", "run", "--watch", "--listen", "127.0.0.1:0"];
        Worker::of(world.command(&[&run[..], more].concat()))
    }

    pub(crate) fn of(mut command: Command) -> Worker {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        let base = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it has ended: {told}");
            if let Some((_, address)) = line.split_once("Listening on ") {
                break address.trim().to_owned();
            }
            told.push_str(&line);
        };
        // Nobody reads the rest: it must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(8)).build().unwrap();
        Worker { child, base, runtime, client }
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.runtime.block_on(async {
            let answer = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    }

    pub(crate) fn metrics(&self) -> Scrape {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        Scrape::parse(&text)
    }

    /// Asks again until it holds, bounded.
    #[track_caller]
    pub(crate) fn until(
        &self,
        limit: Duration,
        what: &str,
        mut holds: impl FnMut(&Worker) -> bool,
    ) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < limit, "never: {what}\n{}", self.get("/metrics").1);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A scrape: kinds by name, and values by series.
pub(crate) struct Scrape {
    kinds: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Scrape {
    fn parse(text: &str) -> Scrape {
        let (mut kinds, mut values) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# HELP ")) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
                continue;
            }
            let (series, value) =
                line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let value = value.parse().unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(values.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
        Scrape { kinds, values }
    }

    #[track_caller]
    fn is(&self, name: &str, label: &str, value: f64) {
        let sum = self.sum(name, label);
        assert!((sum - value).abs() < 1e-9, "{name} {label} is {sum}, not {value}");
    }

    /// The sum of all series of a name that have this text in their labels.
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        let of = |series: &str| {
            series == name || series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
        };
        self.values.iter().filter(|(s, _)| of(s) && s.contains(label)).map(|(_, value)| value).sum()
    }
}

/// Names and kinds in the table of the page.
fn documented() -> BTreeMap<String, String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/operate/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    let mut found = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, names, kind, ..] = cells[..]
            && ["counter", "gauge", "histogram"].contains(&kind)
        {
            found.insert(names.trim_matches('`').to_owned(), kind.to_owned());
        }
    }
    assert!(found.len() > 25, "{found:?}");
    found
}

#[test]
fn a_scrape_has_all_documented_names_while_it_publishes() {
    let world = World::with_table();
    let worker = Worker::start(&world, &[]);
    assert_eq!(worker.get("/health").0, 200);
    assert_eq!(worker.get("/ready").0, 200);
    for n in 0..5 {
        world
            .dl_with_input(&["commit", "s.t", "--no-publish"], &add(&format!("day=1/{n}"), "1"))
            .ok();
        worker.metrics();
    }
    worker.until(Duration::from_secs(30), "five versions are published", |worker| {
        let scrape = worker.metrics();
        scrape.sum("dl_mirror_published_seconds_count", "") >= 5.0
            && scrape.sum("dl_mirror_status", "status=\"published\"") >= 1.0
    });
    let scrape = worker.metrics();
    let mut there = scrape.kinds.clone();
    // Only where a cgroup has a limit.
    there.entry("process_memory_limit_bytes".to_owned()).or_insert_with(|| "gauge".to_owned());
    assert_eq!(there, documented());
    for (name, label, least) in [
        ("dl_call_seconds_count", "statement=\"mirror_complete\"", 1.0),
        ("dl_store_call_seconds_count", "call=\"put\"", 5.0),
        ("dl_publish_seconds_count", "outcome=\"ok\"", 5.0),
        ("dl_mirror_attempts_total", "outcome=\"ok\"", 5.0),
        ("dl_pool_limit", "", 1.0),
        ("dl_cache_capacity_bytes", "", 1.0),
        ("dl_build_info", "database=\"", 1.0),
        ("process_resident_memory_bytes", "", 1e6),
    ] {
        assert!(scrape.sum(name, label) >= least, "{name} {label}: {:?}", scrape.values);
    }
    scrape.is("dl_mirror_lag_seconds", "table_id=", 0.0);
    scrape.is("dl_scrape_errors_total", "", 0.0);
}

#[test]
fn lag_and_states_come_from_the_database_and_survive_restarts() {
    let world = World::with_table();
    // Publishing fails: a file stands where the log belongs.
    fs::rename(world.path("t"), world.path("aside")).unwrap();
    fs::write(world.path("t"), "in the way").unwrap();
    world.dl_with_input(&["commit", "s.t", "--no-publish"], &add("day=1/a", "1")).ok();
    world.create("s.off", "off", &[]).ok();
    world.dl(&["mirror", "disable", "s.off"]).ok();
    let mut before = 0.0;
    for _ in 0..2 {
        let worker = Worker::start(&world, &[]);
        worker.until(Duration::from_secs(30), "the attempt is recorded as failed", |worker| {
            worker.metrics().sum("dl_mirror_status", "status=\"failed\"") >= 1.0
        });
        let scrape = worker.metrics();
        scrape.is("dl_mirror_status", "status=\"off\"", 1.0);
        let lag = scrape.sum("dl_mirror_lag_seconds", "table_id=");
        assert!(lag > before, "{lag} after {before}");
        before = lag;
    }
    fs::remove_file(world.path("t")).unwrap();
    fs::rename(world.path("aside"), world.path("t")).unwrap();
}

#[test]
fn a_pass_of_reconciliation_counts_drift_and_goes_on_after_a_restart() {
    let world = World::with_table();
    world.dl_with_input(&["commit", "s.t"], &add("day=1/a", "1")).ok();
    let id = world.json(&["show", "s.t"])["id"].as_str().unwrap().to_owned();
    let label = format!("table_id=\"{id}\"");
    let log = world.path("t/_delta_log/00000000000000000001.json");
    let more = ["--reconcile-every", "1", "--metrics-output", "drift.prom"];
    for total in [1.0, 2.0] {
        fs::remove_file(&log).unwrap();
        let worker = Worker::start(&world, &more);
        worker.until(Duration::from_secs(30), "the drift is counted", |worker| {
            worker.metrics().sum("mirror_parity_drift_total", &label) >= total
        });
        let scrape = worker.metrics();
        scrape.is("mirror_parity_drift_total", "", total);
        assert!(scrape.sum("dl_mirror_reconciliation_attempts_total", "outcome=\"ok\"") >= 1.0);
        worker.until(Duration::from_secs(30), "it is kept", |_| {
            fs::read_to_string(world.path("drift.prom"))
                .is_ok_and(|text| text.contains(&format!("\"}} {total}")))
        });
        assert!(log.exists(), "what was missing is there again");
    }
}

#[test]
fn a_file_of_drift_that_cannot_be_written_does_not_stop_publishing() {
    let world = World::with_table();
    fs::create_dir(world.path("kept")).unwrap();
    let mut command = world.command(&["mirror", "run", "--watch", "--reconcile-every", "1"]);
    command.args(["--metrics-output", "kept/drift.prom"]);
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let begun = Instant::now();
    let until = |holds: &dyn Fn() -> bool| {
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(60), "never");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let file = world.path("kept/drift.prom");
    until(&|| file.exists());
    // As when somebody cleans up, or the disk is full: files of this folder cannot be made.
    fs::remove_dir_all(world.path("kept")).unwrap();
    fs::write(world.path("kept"), "a file").unwrap();
    let mut told = String::new();
    while !told.contains("kept/drift.prom") {
        assert!(stderr.read_line(&mut told).unwrap() > 0, "it has ended: {told}");
    }
    assert!(told.contains("Publishing goes on"), "{told}");
    world.dl_with_input(&["commit", "s.t", "--no-publish"], &add("day=1/a", "1")).ok();
    let log = world.path("t/_delta_log/00000000000000000001.json");
    until(&|| log.exists());
    // Some more passes, then the file can be written again, and is.
    std::thread::sleep(Duration::from_secs(3));
    fs::remove_file(world.path("kept")).unwrap();
    fs::create_dir(world.path("kept")).unwrap();
    until(&|| file.exists());
    assert!(child.try_wait().unwrap().is_none(), "it works on");
    child.kill().unwrap();
    child.wait().unwrap();
    stderr.read_to_string(&mut told).unwrap();
    assert_eq!(told.matches("kept/drift.prom").count(), 1, "once: {told}");
}

#[test]
fn requests_are_bounded_and_others_are_refused() {
    let world = World::new();
    world.dl(&["mirror", "run", "--listen", "127.0.0.1:0"]).code(2);
    world
        .dl(&["mirror", "run", "--watch", "--listen", "nowhere"])
        .fails(&["nowhere", "127.0.0.1:9464"]);
    let worker = Worker::start(&world, &[]);
    assert_eq!(worker.get("/").0, 404);
    assert_eq!(worker.get("/metrics/../etc").0, 404);
    let address = worker.base.strip_prefix("http://").unwrap();
    let raw = |request: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The other end may close before all of it is sent.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert!(raw(b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 405 "));
    // A head that is too large, one that never ends, and no HTTP.
    let large = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let answer = raw(large.as_bytes());
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    let begun = Instant::now();
    let answer = raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n");
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    raw(b"\x16\x03\x01\x00\xff\x00");
    // Connections that say nothing take their places for a while, and not for ever.
    let idle: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(worker.get("/health").0, 200);
    drop(idle);
}

#[cfg(feature = "postgres")]
#[test]
fn a_worker_without_its_database_is_not_ready_and_lives() {
    use deltalakedb_test_servers::{Postgres, PostgresOptions, skip};

    let mut server = match Postgres::start(PostgresOptions::default()) {
        Ok(server) => server,
        Err(why) => return skip(&["postgres"], why.to_string()),
    };
    server.create_database("lake").unwrap();
    let world = World::at(Some(server.url("lake")));
    world.dl(&["init"]).ok();
    let secret = server.password().to_owned();
    let worker = Worker::start(&world, &[]);
    assert_eq!(worker.get("/ready").0, 200);
    server.stop().unwrap();
    let stopped = Instant::now();
    let mut refused = String::new();
    worker.until(Duration::from_secs(6), "it is not ready", |worker| {
        let (status, text) = worker.get("/ready");
        refused = text;
        status == 503
    });
    let took = stopped.elapsed();
    // An answer holds for a second, and a look takes two at most.
    assert!(took < Duration::from_millis(3_500), "{took:?}");
    assert!(refused.contains("\"reason\"") && !refused.contains(&secret), "{refused}");
    let (status, text) = worker.get("/health");
    assert_eq!(status, 200, "{text}");
    worker.until(Duration::from_secs(20), "a scrape says that it knows nothing new", |worker| {
        worker.metrics().sum("dl_scrape_errors_total", "") >= 1.0
    });
    assert!(!worker.get("/metrics").1.contains(&secret));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(worker.get("/health").0, 200, "for longer than five of its intervals");
    server.start_again().unwrap();
    worker.until(Duration::from_secs(30), "it is ready again", |w| w.get("/ready").0 == 200);
}

#[test]
fn one_event_a_commit_is_logged() {
    let world = World::with_table();
    let run = world.dl_with_input(&["commit", "s.t", "-v"], &add("day=1/a", "1")).ok();
    let events: BTreeSet<&str> =
        run.stderr.lines().filter(|line| line.contains("committed")).collect();
    assert_eq!(events.len(), 1, "{}", run.stderr);
    for part in [
        "tables=\"s.t\"",
        "versions=\"1\"",
        "operation=\"WRITE\"",
        "added=1",
        "removed=0",
        "bytes=",
        "user=\"ann o'tester\"",
        "token=\"",
        "ms=",
    ] {
        assert!(events.iter().all(|event| event.contains(part)), "'{part}': {events:?}");
    }
}
