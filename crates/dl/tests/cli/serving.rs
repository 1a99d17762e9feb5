//! `dl serve`: the catalog over HTTP, from its first line to its end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::world::World;

/// No test waits longer.
const LIMIT: Duration = Duration::from_secs(60);

/// A service, ended with this value.
struct Service {
    child: Child,
    base: String,
    runtime: tokio::runtime::Runtime,
    client: Client,
    told: Option<std::thread::JoinHandle<String>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(mut command: Command) -> Service {
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
        // It must not fill the pipe.
        let told = std::thread::spawn(move || {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).unwrap();
            rest
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = Client::builder().timeout(LIMIT).build().unwrap();
        Service { child, base, runtime, client, told: Some(told) }
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, String) {
        self.runtime.block_on(async {
            let mut request = self.client.request(method, format!("{}{path}", self.base));
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_string());
            }
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    }

    fn ok(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, text) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Sends SIGTERM, and gives the exit code and what was told since it listens.
    fn terminate(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        (status.code(), self.told.take().unwrap().join().unwrap())
    }
}

#[test]
fn a_service_creates_commits_publishes_and_ends() {
    let w = World::new();
    let lake = w.path("lake");
    std::fs::create_dir_all(&lake).unwrap();
    let lake = lake.display().to_string();
    let command = ["-v", "serve", "--listen", "127.0.0.1:0", "--root", &lake, "--publish"];
    let service = Service::start(w.command(&command));

    let new = json!({ "name": "sales.orders", "columns": "id long", "description": "orders" });
    let made = service.ok(Method::POST, "/v1/tables", Some(&new));
    let add = json!({ "add": { "path": "1.parquet", "partitionValues": {}, "size": 7, "modificationTime": 1, "dataChange": true } });
    let commit =
        json!({ "tables": [{ "table": "sales.orders", "reads": "nothing", "actions": [add] }] });
    let done = service.ok(Method::POST, "/v1/commits", Some(&commit));
    assert_eq!(done["tables"][0]["version"], 1);

    // The same as the command line says, field by field.
    for path in ["", "/mirror"] {
        let begun = Instant::now();
        loop {
            let served = service.ok(Method::GET, &format!("/v1/tables/sales.orders{path}"), None);
            if served["published_version"] == 1 {
                let printed: Value = match path {
                    "" => w.json(&["show", "sales.orders"]),
                    _ => w.json(&["mirror", "status", "sales.orders"])[0].clone(),
                };
                assert_eq!(served, printed);
                break;
            }
            assert!(begun.elapsed() < LIMIT, "it is not published: {served}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let history = service.ok(Method::GET, "/v1/tables/sales.orders/history", None);
    assert_eq!(history["commits"], w.json(&["history", "sales.orders"]));
    let (_, files) = service.ask(Method::GET, "/v1/tables/sales.orders/files", None);
    assert_eq!(
        serde_json::from_str::<Value>(&files).unwrap(),
        w.json(&["files", "sales.orders"])[0]
    );
    let diff = service.ok(Method::GET, "/v1/tables/sales.orders/diff", None);
    assert_eq!((&diff["verdict"], &diff["table"]), (&json!("parity"), &json!("sales.orders")));
    let list = service.ok(Method::GET, "/v1/tables", None);
    assert_eq!(list["tables"], w.json(&["list"]));
    assert_eq!(list["tables"][0]["id"], made["id"]);

    let (status, metrics) = service.ask(Method::GET, "/metrics", None);
    assert_eq!(status, 200);
    assert!(metrics.contains("dl_commits_total") && metrics.contains("dl_build_info"), "{metrics}");
    let (code, told) = service.terminate();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("route=\"/v1/commits\"") || told.contains("route=/v1/commits"), "{told}");
}

/// A public tool asks what the description allows, and what it does not. What a condition or a name may be, the
/// description cannot say: that valid input is accepted is not asked for.
fn the_description_is_true(w: &World) {
    let Ok(python) = std::env::var("DL_TEST_PYTHON") else {
        let why = "set DL_TEST_PYTHON (`cargo xtask test` does) to ask the service by schemathesis";
        return deltalakedb_test_servers::skip(&["interop"], why);
    };
    w.dl(&["init"]).ok();
    let lake = w.path("lake");
    std::fs::create_dir_all(&lake).unwrap();
    let lake = lake.display().to_string();
    let service = Service::start(w.command(&["serve", "--listen", "127.0.0.1:0", "--root", &lake]));
    for name in ["s.a", "s.b"] {
        let new =
            json!({ "name": name, "columns": "id long, day string", "partition_by": ["day"] });
        service.ok(Method::POST, "/v1/tables", Some(&new));
    }
    let st = std::path::Path::new(&python).with_file_name("st");
    let run = Command::new(st)
        .args(["run", &format!("{}/openapi.json", service.base), "--checks", "all"])
        .args([
            "--exclude-checks",
            "positive_data_acceptance",
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .args(["--max-examples", "8", "--generation-deterministic", "--workers", "1"])
        .args(["--request-timeout", "20"])
        .current_dir(w.path(""))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{text}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(text.contains("generated") && text.contains("16/16"), "{text}");
    assert_eq!(service.terminate().0, Some(0));
}

#[test]
fn the_description_is_true_on_sqlite() {
    the_description_is_true(&World::empty());
}

#[test]
#[cfg(feature = "postgres")]
fn the_description_is_true_on_postgres() {
    use deltalakedb_test_servers::Database;

    let folder = tempfile::tempdir().unwrap();
    match Database::Postgres.url(folder.path(), "st") {
        Ok(url) => the_description_is_true(&World::at(Some(url))),
        Err(why) => deltalakedb_test_servers::skip(&["postgres"], why),
    }
}

#[test]
fn an_open_address_asks_for_keys_unless_told_not_to() {
    let w = World::new();
    let made = w.json(&["keys", "create", "loader", "--note", "nightly", "--expires-in", "90d"]);
    let key = made["key"].as_str().unwrap();
    assert_eq!((&made["principal"], &made["note"]), (&json!("loader"), &json!("nightly")));
    w.dl(&["access", "grant", "loader", "read", "*"]).ok().says("has now the role read on *");
    w.dl(&["access", "grant", "loader", "read", "*"]).ok().says("had already");
    w.dl(&["access", "grant", "loader", "owner", "*"]).code(2);
    w.dl(&["keys", "create", "loader", "--expires-in", "soon"]).fails(&["'soon'"]);
    let listed = w.json(&["keys", "list"]);
    assert_eq!((&listed[0]["id"], listed.as_array().unwrap().len()), (&made["id"], 1));
    assert!(!listed.to_string().contains(key));
    assert_eq!(w.json(&["access", "list"])[0]["grants"], json!([{ "on": "*", "role": "read" }]));
    w.dl(&["access", "list"]).ok().says("loader");

    let ask = |service: &Service, key: Option<&str>| {
        service.runtime.block_on(async {
            let mut request = service.client.get(format!("{}/v1/tables", service.base));
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            request.header("host", "localhost").send().await.unwrap().status().as_u16()
        })
    };
    let service = Service::start(w.command(&["serve", "--listen", "0.0.0.0:0"]));
    assert_eq!((ask(&service, None), ask(&service, Some(key))), (401, 200));
    w.dl(&["keys", "revoke", made["id"].as_str().unwrap()]).ok().says("is revoked");
    let begun = Instant::now();
    while ask(&service, Some(key)) != 401 {
        assert!(begun.elapsed() < LIMIT, "the key still opens");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(service.terminate().0, Some(0));
    let service =
        Service::start(w.command(&["serve", "--listen", "0.0.0.0:0", "--without-authentication"]));
    assert_eq!(ask(&service, None), 200);
    assert_eq!(service.terminate().0, Some(0));
    let events = w.json(&["audit"]);
    let actions: Vec<&str> =
        events.as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert!(
        actions.contains(&"key.create")
            && actions.contains(&"access.grant")
            && actions.contains(&"key.revoke"),
        "{actions:?}"
    );
    assert!(!events.to_string().contains(key));
}
