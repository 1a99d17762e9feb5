//! Each example runs, on a catalog of its own.
#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::duplicate_mod,
    clippy::print_stdout,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "these are programs: here they are modules, and each has a `main` of its own"
)]

#[path = "../examples/axum_service.rs"]
mod axum_service;
#[path = "../examples/choose_backend.rs"]
mod choose_backend;
#[path = "../examples/hook.rs"]
mod hook;
#[path = "../examples/shared/mod.rs"]
mod shared;
#[path = "../examples/time_travel.rs"]
mod time_travel;
#[path = "../examples/two_tables.rs"]
mod two_tables;

macro_rules! examples {
    ($($name:ident),+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}", folder.path().join("catalog.db").display());
            $name::run(&url, folder.path()).await.unwrap();
        }
    )+

        #[test]
        fn none_is_left_out() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
            let mut found: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_file())
                .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            found.sort();
            assert_eq!(found, ["axum_service", $(stringify!($name)),+]);
        }
    };
}

examples!(choose_backend, hook, time_travel, two_tables);

/// The service as a process of its own: this program again, with a folder to serve in.
#[cfg(unix)]
mod service {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::path::Path;
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::time::{Duration, Instant};

    use deltalakedb::Db;
    use reqwest::{Client, Method};
    use serde_json::{Value, json};

    use super::axum_service;
    use super::shared::write_parquet;

    /// The variable that makes this program the service.
    const FOLDER: &str = "DELTALAKEDB_EXAMPLE_SERVES_IN";
    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(flavor = "multi_thread")]
    async fn serves_publishes_and_ends_what_it_began() {
        if let Ok(folder) = std::env::var(FOLDER) {
            return serve(Path::new(&folder)).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let lake = folder.path().join("lake");
        let mut service = Service::start(folder.path());

        let columns = json!({ "columns": "id long, country string" });
        let put = async || service.ask(Method::PUT, "", Some(&columns)).await;
        assert_eq!(put().await.0, 201);
        let (status, again) = put().await;
        assert_eq!((status, &again["code"]), (409, &json!("table_exists")));
        write_parquet(&lake.join("shop.orders/1.parquet"), &[(1, "de"), (2, "de")]).unwrap();
        write_parquet(&lake.join("shop.orders/2.parquet"), &[(3, "fr")]).unwrap();
        write_parquet(&lake.join("shop.orders/3.parquet"), &[(4, "it")]).unwrap();

        let load = json!({ "files": ["1.parquet", "2.parquet"], "token": "load" });
        for replayed in [false, true] {
            let (status, answer) = service.ask(Method::POST, "/files", Some(&load)).await;
            assert_eq!((status, answer), (200, json!({ "version": 1, "replayed": replayed })));
        }
        assert!(log(&lake, 1).contains("1.parquet"), "it is published");
        for (rest, files) in
            [("", 2), ("?where=country%3D'fr'", 1), ("?limit=1", 1), ("?version=0", 0)]
        {
            let (status, found) = service.ask(Method::GET, &format!("/files{rest}"), None).await;
            assert_eq!((status, found.as_array().unwrap().len()), (200, files), "{rest}");
        }
        let (_, history) = service.ask(Method::GET, "/history", None).await;
        assert_eq!((&history[0]["version"], &history[1]["version"]), (&json!(1), &json!(0)));
        for (method, rest, body, status, code) in [
            (Method::GET, "/files?version=7", None, 404, "version_not_found"),
            (Method::GET, "/files?where=no", None, 400, "invalid_input"),
            (
                Method::POST,
                "/files",
                Some(json!({ "files": ["../x"], "token": "t" })),
                400,
                "invalid_input",
            ),
        ] {
            let answer = service.ask(method, rest, body.as_ref()).await;
            assert_eq!((answer.0, &answer.1["code"]), (status, &json!(code)), "{}", answer.1);
        }
        let large = json!({ "files": ["x".repeat(2 << 20)], "token": "t" });
        assert_eq!(service.ask(Method::POST, "/files", Some(&large)).await.0, 413);

        // A commit is on its way: the service waits for the rest of its body, as it says.
        let body = json!({ "files": ["3.parquet"], "token": "last" }).to_string();
        let mut begun = TcpStream::connect(&service.address).unwrap();
        begun.set_read_timeout(Some(LIMIT)).unwrap();
        let head = "POST /tables/shop.orders/files HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\
                    content-type: application/json\r\nexpect: 100-continue\r\ncontent-length";
        write!(begun, "{head}: {}\r\n\r\n", body.len()).unwrap();
        let mut answers = BufReader::new(begun.try_clone().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), "HTTP/1.1 100 Continue");
        service.terminate();
        begun.write_all(body.as_bytes()).unwrap();
        let mut rest = String::new();
        answers.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("HTTP/1.1 200") && rest.contains(r#""version":2"#), "{rest}");
        service.ended();

        assert!(log(&lake, 2).contains("3.parquet"), "it is published");
        let db = Db::open(&url(folder.path()).parse().unwrap()).await.unwrap();
        assert_eq!(db.table("shop.orders").await.unwrap().num_files(), 3);
    }

    fn url(folder: &Path) -> String {
        format!("sqlite://{}", folder.join("catalog.db").display())
    }

    fn log(lake: &Path, version: u64) -> String {
        std::fs::read_to_string(lake.join(format!("shop.orders/_delta_log/{version:020}.json")))
            .unwrap()
    }

    async fn serve(folder: &Path) {
        axum_service::run(&url(folder), &folder.join("lake"), "127.0.0.1:0").await.unwrap();
    }

    struct Service {
        process: Child,
        /// Kept open, as the service may still have something to say.
        _output: BufReader<ChildStdout>,
        address: String,
        client: Client,
    }

    impl Service {
        fn start(folder: &Path) -> Service {
            let this_test = concat!(module_path!(), "::serves_publishes_and_ends_what_it_began");
            let this_test = this_test.split_once("::").unwrap().1;
            let mut process = Command::new(std::env::current_exe().unwrap())
                .args([this_test, "--exact", "--nocapture"])
                .env(FOLDER, folder)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(process.stdout.take().unwrap());
            let address = (&mut output)
                .lines()
                .map_while(Result::ok)
                .find_map(|line| Some(line.split_once("listening on http://")?.1.to_owned()))
                .unwrap();
            let client = Client::builder().no_proxy().build().unwrap();
            Service { process, _output: output, address, client }
        }

        /// Status and body of an answer.
        async fn ask(&self, method: Method, rest: &str, body: Option<&Value>) -> (u16, Value) {
            let url = format!("http://{}/tables/shop.orders{rest}", self.address);
            let mut request = self.client.request(method, url).timeout(LIMIT);
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_string());
            }
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
        }

        /// Tells the service to stop, and returns when it has heard that: it takes no more connections.
        fn terminate(&self) {
            let pid = self.process.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
            let began = Instant::now();
            while TcpStream::connect(&self.address).is_ok() {
                assert!(began.elapsed() < LIMIT, "it goes on listening");
                std::thread::yield_now();
            }
        }

        fn ended(&mut self) {
            let began = Instant::now();
            let status = loop {
                if let Some(status) = self.process.try_wait().unwrap() {
                    break status;
                }
                assert!(began.elapsed() < LIMIT, "it does not end");
                std::thread::sleep(Duration::from_millis(10));
            };
            assert!(status.success(), "{status}");
        }
    }

    impl Drop for Service {
        fn drop(&mut self) {
            // One that has ended cannot be ended.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
