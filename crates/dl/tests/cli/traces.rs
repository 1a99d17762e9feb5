//! Traces, sent to a receiver that decodes with the official classes of the protocol.

/// What names the receiver.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

#[cfg(not(feature = "otlp"))]
#[test]
fn a_program_that_sends_no_traces_says_what_to_do() {
    let world = crate::world::World::new();
    let list = |variables: &[(&str, &str)]| -> crate::world::Run {
        let mut command = world.command(&["list"]);
        command.envs(variables.iter().copied());
        command.output().unwrap().into()
    };
    let run = list(&[(ENDPOINT, "http://127.0.0.1:4318")]).ok();
    assert_eq!(run.stderr.matches("--features otlp").count(), 1, "{}", run.stderr);
    let run = list(&[(ENDPOINT, "http://127.0.0.1:4318"), ("OTEL_SDK_DISABLED", "true")]).ok();
    assert!(!run.stderr.contains("otlp"), "{}", run.stderr);
}

#[cfg(feature = "otlp")]
mod sent {
    use std::collections::{BTreeMap, BTreeSet};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use deltalakedb_test_servers::{OtlpReceiver, skip, wait_until};
    use serde_json::Value;

    use super::ENDPOINT;
    use crate::world::{Run, World, add};

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const CALLER: &str = "00f067aa0ba902b7";
    const SECRET: &str = "geheim+4711";
    /// The deadline of the last spans, and time for a loaded machine to start and end a process.
    const SOON: Duration = Duration::from_secs(15);

    fn receiver() -> Option<OtlpReceiver> {
        if let Err(why) = OtlpReceiver::check() {
            skip(&["otlp"], format!("{why:#}"));
            return None;
        }
        Some(OtlpReceiver::start().unwrap())
    }

    fn command(world: &World, receiver: &OtlpReceiver, arguments: &[&str]) -> Command {
        let mut command = world.command(arguments);
        command.env(ENDPOINT, receiver.endpoint());
        command
    }

    fn text<'a>(value: &'a Value, key: &str) -> &'a str {
        value[key].as_str().unwrap_or_else(|| panic!("{key}: {value}"))
    }

    fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
        spans.iter().filter(|span| span["name"] == name).collect()
    }

    #[track_caller]
    fn one<'a>(spans: &'a [Value], name: &str) -> &'a Value {
        let names: Vec<_> = spans.iter().map(|span| text(span, "name")).collect();
        let found = named(spans, name);
        assert_eq!(found.len(), 1, "{name}: {names:?}");
        found[0]
    }

    /// The names from a span up to the first one of its process.
    fn path(spans: &[Value], span: &Value) -> Vec<String> {
        let mut path = vec![text(span, "name").to_owned()];
        let mut parent = text(span, "parent").to_owned();
        while let Some(next) = spans.iter().find(|span| span["span_id"] == parent.as_str()) {
            path.push(text(next, "name").to_owned());
            text(next, "parent").clone_into(&mut parent);
        }
        path
    }

    fn objects(text: &str) -> Vec<Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    #[test]
    fn a_commit_is_a_trace_with_its_parents_and_the_id_of_the_log_lines() {
        let Some(receiver) = receiver() else { return };
        let world = World::with_table();
        let lines = world.file("actions.json", &add("day=1/a", "1"));
        let mut commit = command(&world, &receiver, &["commit", "s.t", &lines]);
        commit
            .env("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20geheim%2B4711,x-scope=lake")
            .env("OTEL_SERVICE_NAME", "lake")
            .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other")
            .env("TRACEPARENT", format!("00-{TRACE}-{CALLER}-01"))
            .env("LOG_FORMAT", "json")
            .env("LOG_LEVEL", "debug");
        let run = Run::from(commit.output().unwrap()).ok();

        let requests = receiver.requests().unwrap();
        assert!(!requests.is_empty(), "{}", run.stderr);
        for request in &requests {
            assert_eq!(request["path"], "/v1/traces");
            let headers = &request["headers"];
            assert_eq!(headers["authorization"], format!("Bearer {SECRET}"));
            assert_eq!(headers["x-scope"], "lake");
            assert_eq!(headers["content-type"], "application/x-protobuf");
            assert!(!text(request, "everything").contains("geheim"), "{request}");
        }
        let spans = receiver.spans().unwrap();
        let ids: BTreeSet<&str> = spans.iter().map(|span| text(span, "span_id")).collect();
        assert_eq!(ids.len(), spans.len(), "a span is sent once");
        for span in &spans {
            assert_eq!(span["trace_id"], TRACE, "{span}");
            assert_eq!(span["resource"]["service.name"], "lake");
            assert_eq!(span["resource"]["deployment.environment.name"], "test");
            assert_eq!(span["resource"]["service.instance.id"], TRACE);
            assert_eq!(span["events"], 0);
            assert!(span["end"].as_u64() >= span["start"].as_u64(), "{span}");
            let parent = text(span, "parent");
            assert!(ids.contains(parent) || parent == CALLER, "no parent: {span}");
        }
        let root = one(&spans, "dl commit");
        assert_eq!(root["parent"], CALLER);
        assert_eq!(root["attributes"]["exit_code"], 0);
        let commit = one(&spans, "commit");
        assert_eq!(path(&spans, commit), ["commit", "dl commit"]);
        assert_eq!(commit["attributes"]["table"], "s.t");
        assert_eq!(commit["attributes"]["version"], 1);
        assert_eq!(commit["attributes"]["attempts"], 1);
        let call = one(&spans, "call commit");
        assert_eq!(path(&spans, call), ["call commit", "commit", "dl commit"]);
        assert_eq!(call["kind"], 3, "a call is the client's side: {call}");
        let publish = one(&spans, "publish");
        assert_eq!(path(&spans, publish), ["publish", "dl commit"]);
        assert_eq!(publish["attributes"]["published"], 1);
        let put = named(&spans, "store put_if_absent");
        let way = ["store put_if_absent", "publish_version", "publish", "dl commit"];
        assert!(put.iter().any(|span| path(&spans, span) == way), "{put:?}");

        // Each line that is of a span names one that was sent.
        let lines = objects(&run.stderr);
        let within: Vec<_> = lines.iter().filter(|line| line["span_id"].is_string()).collect();
        assert!(within.len() > 5, "{}", run.stderr);
        for line in &lines {
            assert_eq!(line["trace_id"], TRACE, "{line}");
        }
        for line in within {
            assert!(ids.contains(text(line, "span_id")), "{line}");
        }
    }

    #[test]
    fn opening_planning_and_failing_are_spans_without_paths_and_texts_of_errors() {
        let Some(receiver) = receiver() else { return };
        let world = World::with_table();
        let lines = world.file("actions.json", &add("day=1/secret-file", "1"));
        world.dl(&["commit", "s.t", &lines]).ok();
        let files = ["files", "s.t", "--where", "day = 'geheim-day'"];
        Run::from(command(&world, &receiver, &files).output().unwrap()).ok();
        let spans = receiver.spans().unwrap();
        let root = one(&spans, "dl files");
        assert_eq!(root["parent"], "");
        for name in ["open", "plan"] {
            let span = one(&spans, name);
            assert_eq!(path(&spans, span), [name, "dl files"]);
            assert_eq!(span["attributes"]["table"], "s.t");
        }
        let failing = command(&world, &receiver, &["show", "s.missing"]).output().unwrap();
        assert_eq!(failing.status.code(), Some(1));
        let spans = receiver.spans().unwrap();
        let root = one(&spans, "dl show");
        assert_eq!((&root["status"], &root["attributes"]["exit_code"]), (&2.into(), &1.into()));
        let failed: Vec<_> =
            spans.iter().filter(|s| s["attributes"]["error.type"].is_string()).collect();
        assert!(
            failed.iter().any(|s| s["attributes"]["error.type"] == "table_not_found"),
            "{failed:?}"
        );
        for request in receiver.requests().unwrap() {
            let all = text(&request, "everything");
            let folder = world.path("").display().to_string();
            for word in ["secret-file", "geheim-day", folder.trim_end_matches('/')] {
                assert!(!all.contains(word), "{word}: {all}");
            }
        }
    }

    #[test]
    fn a_receiver_that_does_not_take_traces_costs_a_warning() {
        let Some(receiver) = receiver() else { return };
        let world = World::with_table();
        let right = world.dl(&["list"]).ok().stdout;
        for (how, word) in [
            ("hang", "did not answer"),
            ("500", "answered 500"),
            ("503", "answered 503"),
            ("retry-after", "answered 429"),
            ("401", "logging.otlp.headers"),
            ("404", "without /v1/traces"),
            ("redirect", "redirects"),
            ("partial", "took all but 1 spans of a request: one span is too old. 1 spans are lost"),
        ] {
            receiver.answers(how).unwrap();
            let begun = Instant::now();
            let run = Run::from(command(&world, &receiver, &["list"]).output().unwrap()).ok();
            assert!(begun.elapsed() < SOON, "{how}: {:?}", begun.elapsed());
            assert_eq!(run.stdout, right, "{how}");
            assert_eq!(run.stderr.matches("warning: ").count(), 1, "{how}: {}", run.stderr);
            assert!(run.stderr.contains(word), "{how}: {}", run.stderr);
        }
        // Nobody is there, nobody has this name.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        for url in [address.as_str(), "https://receiver.invalid:4318"] {
            let mut list = world.command(&["list"]);
            let begun = Instant::now();
            let run = Run::from(list.env(ENDPOINT, url).output().unwrap()).ok();
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            assert_eq!(run.stdout, right);
            assert_eq!(run.stderr.matches("warning: ").count(), 1, "{}", run.stderr);
        }
    }

    #[test]
    fn what_is_sent_can_be_chosen() {
        let Some(receiver) = receiver() else { return };
        let world = World::with_table();
        let list = |variables: &[(&str, &str)]| {
            let mut list = command(&world, &receiver, &["list"]);
            Run::from(list.envs(variables.iter().copied()).output().unwrap()).ok()
        };
        let unsampled = format!("00-{TRACE}-{CALLER}-00");
        for nothing in [
            vec![("OTEL_SDK_DISABLED", "true")],
            vec![("OTEL_TRACES_SAMPLER", "always_off")],
            vec![("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")],
            vec![("DELTA_LOGGING_OTLP_SAMPLE_RATIO", "0")],
            vec![("TRACEPARENT", unsampled.as_str())],
        ] {
            let run = list(&nothing);
            assert!(!run.stderr.contains("warning"), "{}", run.stderr);
            assert_eq!(receiver.requests().unwrap().len(), 0, "{nothing:?}");
        }
        // What others' programs understand is no reason to fail.
        let run = list(&[("OTEL_TRACES_SAMPLER", "xray"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert_eq!(run.stderr.matches("it is ignored").count(), 2, "{}", run.stderr);
        assert_eq!(receiver.requests().unwrap().len(), 1);
        list(&[("OTEL_TRACES_SAMPLER", "always_on"), ("TRACEPARENT", unsampled.as_str())]);
        assert_eq!(receiver.requests().unwrap().len(), 2);
        // Without a receiver of this kind nothing is sent to it.
        let whole = format!("{}/otel/all", receiver.endpoint());
        list(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", whole.as_str())]);
        assert_eq!(receiver.requests().unwrap()[2]["path"], "/otel/all");
        let mut show = command(&world, &receiver, &["config", "show", "--format", "json"]);
        let shown =
            Run::from(show.env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=geheim").output().unwrap())
                .ok();
        assert!(
            !shown.stdout.contains("geheim") && shown.stdout.contains("***"),
            "{}",
            shown.stdout
        );
    }

    /// A worker that watches.
    struct Worker {
        child: std::process::Child,
        log: std::path::PathBuf,
    }

    impl Worker {
        fn start(world: &World, receiver: &OtlpReceiver) -> Worker {
            let log = world.path("worker.log");
            let mut run = command(world, receiver, &["mirror", "run", "--watch"]);
            run.env("DELTA_MIRROR_POLL_INTERVAL", "50ms")
                .env("LOG_FORMAT", "json")
                .env("LOG_LEVEL", "debug")
                .env("DELTA_LOG_FILE", &log)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Worker { child: run.spawn().unwrap(), log }
        }

        /// Ends it as a service manager does; how long that took.
        #[cfg(unix)]
        fn stop(mut self) -> (Duration, Vec<Value>) {
            let begun = Instant::now();
            let id = self.child.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
            self.child.wait().unwrap();
            (begun.elapsed(), objects(&std::fs::read_to_string(&self.log).unwrap()))
        }
    }

    impl Drop for Worker {
        fn drop(&mut self) {
            // It may have ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn commit(world: &World, n: usize) {
        let lines = world.file("actions.json", &add(&format!("day=1/{n}"), "1"));
        world.dl(&["commit", "s.t", &lines, "--no-publish"]).ok();
    }

    fn until(what: &str, holds: impl Fn() -> bool) {
        wait_until(what, Duration::from_secs(60), || Ok(holds())).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn of_a_worker_each_publishing_is_a_trace_and_the_last_ones_are_sent_at_its_end() {
        let Some(receiver) = receiver() else { return };
        let world = World::with_table();
        // What is refused for now is sent again.
        receiver.answers("503").unwrap();
        let worker = Worker::start(&world, &receiver);
        commit(&world, 1);
        let sent = |request: &Value| named(request["spans"].as_array().unwrap(), "publish").len();
        until("a request is refused", || receiver.requests().unwrap().iter().any(|r| sent(r) > 0));
        receiver.answers("200").unwrap();
        until("it is sent again", || {
            receiver.requests().unwrap().iter().any(|r| r["answer"] == "200" && sent(r) > 0)
        });
        commit(&world, 2);
        until("the second is published", || world.log_versions("t").contains(&2));
        let (time, lines) = worker.stop();
        assert!(time < SOON, "{time:?}");

        let requests = receiver.requests().unwrap();
        let taken: Vec<Value> = requests
            .iter()
            .filter(|request| request["answer"] == "200")
            .flat_map(|request| request["spans"].as_array().unwrap().clone())
            .collect();
        let published = named(&taken, "publish");
        let traces: BTreeSet<&str> = published.iter().map(|span| text(span, "trace_id")).collect();
        assert!(published.len() >= 2, "{published:?}");
        assert_eq!(traces.len(), published.len(), "each is a trace of its own");
        let instance = published[0]["resource"]["service.instance.id"].as_str().unwrap();
        assert!(!traces.contains(instance));
        let ids: BTreeSet<&str> = taken.iter().map(|span| text(span, "span_id")).collect();
        for span in &taken {
            let (name, parent) = (text(span, "name"), text(span, "parent"));
            if parent.is_empty() {
                assert!(!name.starts_with("call") && !name.starts_with("store"), "{span}");
            } else {
                assert!(ids.contains(parent), "{span}");
            }
        }
        // Lines of a trace are found by its id, all lines of the process by the id of the invocation.
        let mut by_trace: BTreeMap<&str, usize> = BTreeMap::new();
        for line in &lines {
            let trace = text(line, "trace_id");
            let invocation = line["invocation_id"].as_str().unwrap_or(trace);
            assert_eq!(invocation, instance, "{line}");
            *by_trace.entry(trace).or_default() += 1;
        }
        for trace in traces {
            assert!(by_trace.contains_key(trace), "{trace}: {by_trace:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_worker_ends_in_time_though_its_receiver_hangs() {
        let Some(receiver) = receiver() else { return };
        receiver.answers("hang").unwrap();
        let world = World::with_table();
        let worker = Worker::start(&world, &receiver);
        for n in 1..4 {
            commit(&world, n);
        }
        until("publishing goes on", || world.log_versions("t").contains(&3));
        until("a request hangs", || !receiver.requests().unwrap().is_empty());
        let (time, _) = worker.stop();
        assert!(time < SOON, "{time:?}");
    }
}
