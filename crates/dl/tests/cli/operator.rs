//! The whole way of an operator, in one go, on SQLite and on PostgreSQL: configure, make a catalog, take a table
//! over, cut over, watch, lose the database for a while, back up, lose everything, restore, compare, upgrade.
//! All that was said on the way is searched for secrets at the end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deltalakedb_test_servers::{
    ObjectStoreKind, OtlpReceiver, Postgres, PostgresOptions, Prometheus, Software,
    shared_object_store, skip,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::prometheus::until;
use crate::world::{FIRST_COMMIT, Run, World, foreign_log};

/// The password of the database: what URLs, shells, YAML and SQL give a meaning to.
const PASSWORD: &str = "p@ss/w:rd%41#'é$x geheim";
/// The secret of the object store.
const STORE_SECRET: &str = "store+geheim/4711==";
/// The key of the receiver of traces.
const TRACES_SECRET: &str = "traces-geheim-0815";

/// An operator, with a configuration, and all that was said.
struct Operator {
    world: World,
    server: Option<Postgres>,
    endpoint: String,
    /// Takes the traces, where `dl` sends them.
    receiver: Option<OtlpReceiver>,
    /// What programs wrote, by what it was.
    said: BTreeMap<String, Vec<u8>>,
}

/// A worker, killed with this value.
struct Worker {
    child: Child,
    /// `address:port` of `/metrics`.
    address: String,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Operator {
    fn new(server: Option<Postgres>, endpoint: String, receiver: Option<OtlpReceiver>) -> Operator {
        let world = World::empty();
        let database = match &server {
            None => "type = \"sqlite\"\nname = \"lake.db\"\n".to_owned(),
            Some(server) => {
                world.file("password", &format!("{PASSWORD}\n"));
                format!(
                    "type = \"postgresql\"\nhost = \"127.0.0.1\"\nport = {}\nname = \"lake\"\n\
                     user = \"operator\"\npassword_file = \"password\"\n",
                    server.port()
                )
            }
        };
        let traces = receiver.as_ref().map_or_else(String::new, |receiver| {
            let url = receiver.endpoint();
            format!(
                "\n[logging.otlp]\nendpoint = \"{url}\"\nheaders = \"api-key=${{LAKE_TRACES_KEY}}\"\n"
            )
        });
        world.file(
            "lake.toml",
            &format!(
                "[database]\n{database}\n[mirror]\npoll_interval = \"100ms\"\n\n[retry]\ndeadline = \
                 \"5s\"\n\n[logging]\nlevel = \"trace\"\nformat = \"json\"\nfile = \"lake.log\"\n\n\
                 [monitoring]\nlisten = \"127.0.0.1:0\"\nslow_call_threshold = \"1ms\"\n{traces}"
            ),
        );
        Operator { world, server, endpoint, receiver, said: BTreeMap::new() }
    }

    /// `dl` as this operator calls it: what is secret comes from a file and from the environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.command(arguments);
        command
            .env_remove("DELTA_DB_CONNECTION")
            .env("DELTA_CONFIG_PATH", self.world.path("lake.toml"))
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("LAKE_STORE_SECRET", STORE_SECRET)
            .env("LAKE_TRACES_KEY", TRACES_SECRET)
            .env("AWS_SECRET_ACCESS_KEY", STORE_SECRET);
        command
    }

    fn note(&mut self, what: &str, text: &[u8]) {
        let entry = self.said.entry(what.to_owned()).or_default();
        entry.extend_from_slice(text);
        entry.push(b'\n');
    }

    fn dl(&mut self, arguments: &[&str]) -> Run {
        let output = self.command(arguments).output().unwrap();
        self.note("output of dl", &output.stdout);
        self.note("output of dl", &output.stderr);
        output.into()
    }

    fn json(&mut self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--format", "json"]);
        self.dl(&arguments).ok().json()
    }

    /// Options of the object store, as `dl` takes them.
    fn store(&self, option: &str) -> Vec<String> {
        [
            format!("aws_endpoint={}", self.endpoint),
            "aws_region=us-east-1".to_owned(),
            "aws_allow_http=true".to_owned(),
            "aws_access_key_id=test".to_owned(),
            "aws_secret_access_key=env:LAKE_STORE_SECRET".to_owned(),
        ]
        .into_iter()
        .flat_map(|value| [option.to_owned(), value])
        .collect()
    }

    /// The command with the options of the object store.
    fn dl_with_store(&mut self, arguments: &[&str]) -> Run {
        let store = self.store("--storage-option");
        let all: Vec<&str> =
            arguments.iter().copied().chain(store.iter().map(String::as_str)).collect();
        self.dl(&all)
    }

    /// Adds a data file and commits it.
    fn append(&mut self, file: &str, ids: &[i64]) -> Run {
        let path = self.world.parquet(&format!("orders/{file}"), ids);
        let line = self.world.file("line.json", &add_of(&path, file));
        self.dl(&["commit", "sales.orders", &line, "--no-publish"])
    }

    fn worker(&mut self) -> Worker {
        let log = self.world.path("worker.err");
        let file = fs::File::create(&log).unwrap();
        let mut run = self.command(&["mirror", "run", "--watch", "--reconcile-every", "1"]);
        let mut child = run.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        let begun = Instant::now();
        let address = loop {
            let said = fs::read_to_string(&log).unwrap();
            if let Some(address) = said.lines().find_map(|line| {
                line.split_once("Listening on http://").map(|(_, rest)| rest.trim())
            }) {
                break address.to_owned();
            }
            assert!(child.try_wait().unwrap().is_none(), "the worker has ended: {said}");
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not listen: {said}");
            std::thread::sleep(Duration::from_millis(50));
        };
        Worker { child, address }
    }

    /// What a page of the worker says.
    fn page(&mut self, worker: &Worker, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", worker.address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, text) = runtime.block_on(async {
            let client =
                reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
            let answer = client.get(url).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        });
        self.note("pages of the worker", text.as_bytes());
        (status, text)
    }

    #[track_caller]
    fn until_page(
        &mut self,
        worker: &Worker,
        path: &str,
        what: &str,
        holds: impl Fn(u16, &str) -> bool,
    ) {
        let begun = Instant::now();
        loop {
            let (status, text) = self.page(worker, path);
            if holds(status, &text) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}\n{status}: {text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The database is gone, with everything in it; an empty one is in its place.
    fn lose_everything(&mut self) {
        match &self.server {
            None => {
                for name in ["lake.db", "lake.db-wal", "lake.db-shm"] {
                    let gone = fs::remove_file(self.world.path(name));
                    assert!(gone.is_ok() || name != "lake.db", "{gone:?}");
                }
            }
            Some(server) => {
                server.psql("DROP DATABASE lake WITH (FORCE)").unwrap();
                own_database(server);
            }
        }
    }

    /// What the catalog says of the table, in full.
    fn answers(&mut self) -> [Value; 3] {
        ["show", "files", "history"].map(|command| self.json(&[command, "sales.orders"]))
    }

    /// Everything that was written anywhere, unpacked, is searched.
    fn search(&mut self, secrets: &[(&str, String)]) {
        let folders = ["backups", "orders", "objects"];
        for name in folders {
            read_all(&self.world.path(name), &mut self.said, name);
        }
        for name in ["lake.log", "worker.err", "lake.toml"] {
            let text = fs::read(self.world.path(name)).unwrap();
            self.note(name, &text);
        }
        if let Some(server) = &self.server {
            let text = server.log();
            self.note("log of the server", text.as_bytes());
        }
        for needed in
            ["output of dl", "pages of the worker", "backups", "objects", "orders", "lake.log"]
        {
            let size = self.said.get(needed).map_or(0, Vec::len);
            assert!(size > 500, "{needed} has {size} bytes: nothing is searched");
        }
        let holds = |name: &str, word: &str| contains(&self.said[name], word.as_bytes());
        // The search finds what is there, also in packed files.
        assert!(holds("backups", "sales") && holds("objects", "sales"));
        assert!(holds("lake.log", "sales.orders") && holds("output of dl", "sales.orders"));
        assert!(holds("backups", "env:LAKE_STORE_SECRET"), "the reference is backed up");
        for (what, text) in &self.said {
            for (secret, value) in secrets {
                let found = [
                    value.clone(),
                    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
                    serde_json::to_string(value).unwrap().trim_matches('"').to_owned(),
                ]
                .into_iter()
                .find(|form| contains(text, form.as_bytes()));
                assert_eq!(found, None, "{secret} stands in: {what}");
            }
        }
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// All files of a folder, unpacked.
fn read_all(folder: &Path, said: &mut BTreeMap<String, Vec<u8>>, name: &str) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, said, name);
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        if path.extension().is_some_and(|ending| ending == "zst") {
            let mut plain = Vec::new();
            zstd::Decoder::new(&bytes[..]).unwrap().read_to_end(&mut plain).unwrap();
            bytes = plain;
        }
        said.entry(name.to_owned()).or_default().extend(bytes);
    }
}

/// An `add` of a file that is there.
fn add_of(path: &str, name: &str) -> String {
    let size = fs::metadata(path).unwrap().len();
    format!(
        r#"{{"add":{{"path":"{name}","partitionValues":{{}},"size":{size},"modificationTime":1,"dataChange":true}}}}"#
    )
}

/// A database of the operator's own.
fn own_database(server: &Postgres) {
    server.create_database("lake").unwrap();
    server.psql("ALTER DATABASE lake OWNER TO operator").unwrap();
}

/// The catalog of the newest earlier schema, in the place of the operator's.
fn earlier_schema(operator: &Operator) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/fixtures");
    let ending = if operator.server.is_some() { ".postgres.sql.zst" } else { ".sqlite.zst" };
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .collect();
    found.sort();
    let packed = fs::read(found.last().unwrap()).unwrap();
    let bytes = zstd::decode_all(&packed[..]).unwrap();
    match &operator.server {
        None => fs::write(operator.world.path("lake.db"), bytes).unwrap(),
        Some(server) => {
            let script = String::from_utf8(bytes).unwrap();
            server.psql_in("lake", &format!("SET ROLE operator;\n{script}")).unwrap();
            server
                .psql("ALTER ROLE operator IN DATABASE lake SET search_path = dl_fixture_schema")
                .unwrap();
        }
    }
}

#[test]
fn the_whole_way_on_sqlite() {
    whole_way(|| Ok(None));
}

#[test]
fn the_whole_way_on_postgres() {
    whole_way(|| {
        if !cfg!(feature = "postgres") {
            return Err("dl was built without the cargo feature of PostgreSQL".to_owned());
        }
        let server = Postgres::start(PostgresOptions::default()).map_err(|e| format!("{e:#}"))?;
        server.create_role("operator", PASSWORD).unwrap();
        own_database(&server);
        Ok(Some(server))
    });
}

fn whole_way(server: impl FnOnce() -> Result<Option<Postgres>, String>) {
    if let Err(why) = Software::Prometheus.check() {
        return skip(&["prometheus"], why);
    }
    let store = if cfg!(feature = "s3") {
        shared_object_store(ObjectStoreKind::S3)
    } else {
        Err("dl was built without the cargo feature s3".to_owned())
    };
    let store = match store {
        Ok(store) => store,
        Err(why) => return skip(&["s3"], why),
    };
    let server = match server() {
        Ok(server) => server,
        Err(why) => return skip(&["postgres"], why),
    };
    let bucket = format!("operator-{}-{}", std::process::id(), server.is_some());
    store.make_bucket(&bucket).unwrap();
    let cloud = store.url(&bucket);
    let endpoint = store.options().into_iter().find(|(name, _)| name == "aws_endpoint").unwrap().1;
    let receiver = if cfg!(feature = "otlp") {
        match OtlpReceiver::check().and_then(|()| OtlpReceiver::start()) {
            Ok(receiver) => Some(receiver),
            Err(why) => return skip(&["otlp"], format!("{why:#}")),
        }
    } else {
        None
    };
    let mut op = Operator::new(server, endpoint, receiver);

    // Configure, and make the catalog.
    op.dl(&["config", "check", "--offline"]).ok();
    op.dl(&["init"]).ok();
    op.dl(&["config", "check"]).ok();
    op.dl(&["config", "show"]).ok();
    op.dl(&["doctor"]);

    // Take a table of another engine over, and keep other writers out.
    let data = op.world.parquet("orders/first.parquet", &[1, 2, 3]);
    let log = foreign_log(&op.world, "orders", &[FIRST_COMMIT, &add_of(&data, "first.parquet")]);
    op.dl(&["import", &log, "sales.orders"]).ok();
    op.dl(&["cutover", "sales.orders"]).ok();
    op.dl_with_store(&[
        "create",
        "sales.cloud",
        "--location",
        &format!("{cloud}/cloud"),
        "--columns",
        "id long",
    ])
    .ok();

    // A worker, and Prometheus beside it.
    let mut worker = op.worker();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus/rules.yaml");
    let prometheus = Prometheus::start("worker", &[worker.address.clone()], Some(&rules)).unwrap();
    until(&prometheus, "max(up{job=\"worker\"})", |up| up > 0.5);
    op.append("second.parquet", &[4, 5]).ok();
    until(&prometheus, "sum(dl_mirror_published_seconds_count)", |versions| versions >= 1.0);
    until(&prometheus, "max(dl_mirror_lag_seconds)", |seconds| seconds < 1.0);
    op.until_page(&worker, "/ready", "ready", |status, _| status == 200);

    // The database is away for a while; where there is no server, the worker is.
    if let Some(server) = &mut op.server {
        server.kill();
        op.until_page(&worker, "/ready", "not ready", |status, _| status == 503);
        op.append("lost.parquet", &[6]).code(1);
        op.server.as_mut().unwrap().start_again().unwrap();
        op.until_page(&worker, "/ready", "ready again", |status, _| status == 200);
    } else {
        drop(worker);
        worker = op.worker();
    }
    op.append("third.parquet", &[6, 7]).ok();
    op.dl(&["mirror", "wait", "sales.orders"]).ok();
    op.until_page(&worker, "/metrics", "both tables are published", |_, text| {
        text.lines().any(|line| line == "dl_mirror_status{status=\"published\"} 2")
    });
    op.dl(&["diff", "--table", "sales.orders"]).ok();
    op.dl(&["check", "sales.orders", "--data"]).ok();

    // Back up; then a commit that was a mistake, and one more backup.
    op.dl(&["backup", "backups"]).ok();
    let good = op.answers();
    op.append("mistake.parquet", &[99]).ok();
    op.dl(&["mirror", "wait", "sales.orders"]).ok();
    op.dl(&["backup", "backups"]).ok();
    op.dl_with_store(&["backup", &format!("{cloud}/backups")]).ok();
    op.dl(&["backup", "verify", "backups"]).ok();
    drop(worker);
    let history = op.json(&["history", "sales.orders", "--limit", "1"]);
    let minute_before = history[0]["timestamp_ms"].as_i64().unwrap() - 1;
    let all = op.answers();

    // Everything is lost. It is restored to the moment before the mistake, and is what it was then.
    op.lose_everything();
    op.dl(&["list"]).code(1);
    let at = minute_before.to_string();
    op.dl(&["restore", "backups", "--init", "--at", &at, "--validate", "all"]).ok();
    let [_, files, commits] = op.answers();
    assert_eq!(files, good[1]);
    assert_eq!(commits, good[2]);
    // The log still has the mistake: an operator decides about it.
    op.dl(&["diff", "--table", "sales.orders"]).code(2);
    op.dl(&["repair", "sales.orders"]).code(2);

    // Lost again, and all of it restored, from the object store.
    op.lose_everything();
    op.dl_with_store(&["restore", &format!("{cloud}/backups"), "--init"]).ok();
    assert_eq!(op.answers()[1..], all[1..]);
    op.dl(&["diff"]).ok();
    op.append("fourth.parquet", &[8]).ok();
    op.dl(&["mirror", "run"]).ok();
    op.dl(&["diff"]).ok();

    // The objects of the store, for the search.
    download(&op, &bucket);

    // A catalog of an earlier schema is upgraded.
    op.lose_everything();
    earlier_schema(&op);
    op.dl(&["list"]).fails(&["dl init"]);
    op.dl(&["init"]).ok();
    let tables = op.json(&["list"]);
    assert!(tables.as_array().unwrap().len() > 1, "{tables}");
    op.dl(&["doctor"]);

    if let Some(receiver) = op.receiver.take() {
        let requests = receiver.requests().unwrap();
        assert!(requests.len() > 20, "{}", requests.len());
        for request in requests {
            // Of the headers each is one that was to be sent.
            assert_eq!(request["headers"]["api-key"], TRACES_SECRET);
            op.note("traces", request["everything"].as_str().unwrap().as_bytes());
        }
    }

    let mut secrets = vec![
        ("the secret of the store", STORE_SECRET.to_owned()),
        ("the key of the receiver of traces", TRACES_SECRET.to_owned()),
    ];
    if op.server.is_some() {
        secrets.push(("the password of the database", PASSWORD.to_owned()));
    }
    op.search(&secrets);
}

/// Objects of the bucket, as files.
fn download(op: &Operator, bucket: &str) {
    const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
                                 SignedHeaders=host, Signature=0";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let get = |path: &str| {
        let url = format!("{}/{bucket}{path}", op.endpoint);
        runtime.block_on(async {
            let client =
                reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
            let answer =
                client.get(url).header("Authorization", AUTHORIZATION).send().await.unwrap();
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            answer.bytes().await.unwrap().to_vec()
        })
    };
    let list = String::from_utf8(get("?list-type=2")).unwrap();
    assert!(list.contains("<IsTruncated>false</IsTruncated>"), "{list}");
    for key in list.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap()) {
        let path = op.world.path("objects").join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, get(&format!("/{key}"))).unwrap();
    }
}
