//! A service, and a client of it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deltalakedb::Db;
use deltalakedb_server::{Server, Settings};
use deltalakedb_test_servers::{Database, skip};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No test waits longer for an answer.
const LIMIT: Duration = Duration::from_secs(60);

/// A service over a catalog of its own.
pub(crate) struct World {
    pub(crate) db: Db,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<bool>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Of an answer that is fine.
    pub(crate) fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json()
    }

    /// Of a problem: it is one, with this status and code.
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        let kind = self.headers["content-type"].to_str().unwrap();
        assert_eq!((self.status, kind), (status, "application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("urn:deltalakedb:error:{code}"));
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{problem}");
        problem
    }
}

/// Runs a test on a database, or says why it cannot run.
pub(crate) async fn on<F: Future<Output = ()>>(database: Database, test: fn(World) -> F) {
    let folder = tempfile::tempdir().unwrap();
    match database.url(folder.path(), "sv") {
        Ok(url) => test(World::start(folder, url, |_| {}).await).await,
        Err(why) => skip(&[database.name()], why),
    }
}

impl World {
    /// Over SQLite, with settings.
    pub(crate) async fn with(settings: impl FnOnce(&mut Settings)) -> World {
        let folder = tempfile::tempdir().unwrap();
        let url = Database::Sqlite.url(folder.path(), "sv").unwrap();
        World::start(folder, url, settings).await
    }

    /// Another service over the same catalog, with settings.
    pub(crate) async fn again(self, settings: impl FnOnce(&mut Settings)) -> World {
        let World { db, folder, .. } = self;
        World::serve(folder, db, settings).await
    }

    async fn start(folder: TempDir, url: String, change: impl FnOnce(&mut Settings)) -> World {
        let db = Db::create(&url.parse().unwrap()).await.unwrap();
        std::fs::create_dir(folder.path().join("lake")).unwrap();
        World::serve(folder, db, change).await
    }

    async fn serve(folder: TempDir, db: Db, change: impl FnOnce(&mut Settings)) -> World {
        let mut settings = Settings::default();
        settings.roots = vec![folder.path().join("lake").display().to_string()];
        change(&mut settings);
        let server = Server::bind(db.clone(), "127.0.0.1:0", settings).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        let client = Client::builder().timeout(LIMIT).build().unwrap();
        World { db, address, client, folder, stop: Some(stop), serving: Some(serving) }
    }

    pub(crate) fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Tells the service to stop. What comes back ends with it, and says whether all requests did.
    pub(crate) fn stop(&mut self) -> JoinHandle<bool> {
        self.stop.take().unwrap().send(()).unwrap();
        self.serving.take().unwrap()
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answered {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.client.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answered { status, headers, text: answer.text().await.unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.ask(Method::GET, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answered {
        self.ask(Method::POST, path, &[], Some(body)).await
    }

    /// Creates a table with the columns `id long, day string`, partitioned by day.
    pub(crate) async fn table(&self, name: &str) -> Value {
        let new =
            json!({ "name": name, "columns": "id long, day string", "partition_by": ["day"] });
        let answer = self.post("/v1/tables", &new).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    /// Commits with a key, or without one.
    pub(crate) async fn commit(&self, key: Option<&str>, commit: &Value) -> Answered {
        let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
        self.ask(Method::POST, "/v1/commits", &headers, Some(commit)).await
    }

    /// The paths of a table's files.
    pub(crate) async fn paths(&self, table: &str, query: &str) -> Vec<String> {
        let answer = self.get(&format!("/v1/tables/{table}/files{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let lines = answer.text.lines();
        lines
            .map(|l| serde_json::from_str::<Value>(l).unwrap()["path"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// An `add` action.
pub(crate) fn add(path: &str, day: &str) -> Value {
    json!({ "add": { "path": path, "partitionValues": { "day": day }, "size": 7, "modificationTime": 1, "dataChange": true } })
}

/// A commit of one table.
pub(crate) fn of(table: &str, actions: Value) -> Value {
    json!({ "tables": [{ "table": table, "reads": "nothing", "actions": actions }] })
}
