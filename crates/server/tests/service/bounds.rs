//! What is bounded, who may call, and how a service ends.

use std::time::{Duration, Instant};

use deltalakedb_server::{Authentication, Server, Settings};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{World, add, of};

async fn raw(w: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(w.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_has_an_id_and_what_browsers_ask_for() {
    let w = World::with(|_| {}).await;
    let answer = w.ask(Method::GET, "/health", &[("x-request-id", "mine-1")], None).await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert!(
        answer.headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'")
    );
    assert_eq!(answer.ok(), json!({ "status": "ok" }));
    let answer = w.ask(Method::GET, "/ready", &[("x-request-id", "bad id\t")], None).await;
    assert_ne!(answer.headers["x-request-id"], "bad id\t");
    assert_eq!(answer.ok(), json!({ "status": "ready" }));
    w.get("/v2").await.problem(404, "no_such_route");
    w.get("/metrics").await.problem(404, "no_such_route");
    w.ask(Method::PUT, "/v1/tables", &[], None).await.problem(405, "method_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_is_not_ready() {
    let w = World::with(|_| {}).await;
    w.db.close().await.unwrap();
    let problem = w.get("/ready").await.problem(503, "unavailable");
    assert_eq!(problem["may_have_happened"], false);
    assert_eq!(w.get("/health").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_known_hosts() {
    let w = World::with(|settings| settings.allowed_hosts = vec!["Lake.example".to_owned()]).await;
    for (host, known) in [
        ("localhost", true),
        ("localhost:1", true),
        ("127.0.0.1", true),
        ("[::1]:80", true),
        ("lake.EXAMPLE:443", true),
        ("evil.example", false),
        ("localhost.evil.example", false),
        ("", false),
        ("127.0.0.1.evil", false),
        ("a b", false),
    ] {
        let text =
            raw(&w, &format!("GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
                .await;
        let status = if known {
            "200"
        } else if host == "a b" {
            "4"
        } else {
            "421"
        };
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {text}");
    }
    let none = raw(&w, "GET /health HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(none.starts_with("HTTP/1.1 4"), "{none}");
    let two = raw(
        &w,
        "GET /health HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(two.starts_with("HTTP/1.1 4"), "{two}");
    let any = World::with(|settings| settings.allowed_hosts = vec!["*".to_owned()]).await;
    let text =
        raw(&any, "GET /health HTTP/1.1\r\nhost: x.example\r\nconnection: close\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_also_when_they_are_packed() {
    let w = World::with(|settings| settings.max_body_bytes = 10_000).await;
    w.table("a.t").await;
    let large = of("a.t", json!([add(&"x".repeat(20_000), "d")]));
    w.commit(None, &large).await.problem(413, "body_too_large");
    let zeros = zstd(&vec![b' '; 1 << 20]);
    assert!(zeros.len() < 10_000);
    let headers = [("content-encoding", "zstd"), ("content-type", "application/json")];
    let url = format!("http://{}/v1/commits", w.address);
    let mut request = w.client.post(&url).body(zeros);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    assert_eq!(request.send().await.unwrap().status(), 413);
    let small = zstd(of("a.t", json!([add("x", "d")])).to_string().as_bytes());
    let mut request = w.client.post(&url).body(small);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    assert_eq!(request.send().await.unwrap().status(), 200);
    // A form that pages of other origins may send without asking.
    let text =
        w.client.post(&url).header("content-type", "text/plain").body("{}").send().await.unwrap();
    assert_eq!(text.status(), 415);
    let bad = w
        .client
        .post(&url)
        .header("content-type", "application/json")
        .body("{")
        .send()
        .await
        .unwrap();
    assert_eq!(bad.status(), 400);
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_packed_for_clients_that_say_so() {
    let w = World::with(|_| {}).await;
    w.table("a.t").await;
    let actions: Vec<Value> = (0..500).map(|n| add(&format!("day=d/{n:020}"), "d")).collect();
    w.commit(None, &of("a.t", json!(actions))).await.ok();
    let plain = w.get("/v1/tables/a.t/files").await.text;
    let url = format!("http://{}/v1/tables/a.t/files", w.address);
    let packed = w.client.get(url).header("accept-encoding", "zstd").send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "zstd");
    let bytes = packed.bytes().await.unwrap();
    assert!(bytes.len() < plain.len() / 4);
    assert_eq!(zstd::stream::decode_all(&bytes[..]).unwrap(), plain.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_is_not_waited_for() {
    let w = World::with(|settings| settings.deadline = Duration::from_millis(500)).await;
    let begun = Instant::now();
    let head = "POST /v1/commits HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let answer = raw(&w, head).await;
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("\"deadline\""), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_and_a_reader_that_does_not_read_lose_their_connection() {
    let w = World::with(|settings| {
        settings.head_timeout = Duration::from_millis(300);
        settings.write_timeout = Duration::from_millis(300);
        settings.max_connections = 1;
    })
    .await;
    let mut slow = TcpStream::connect(w.address).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: loc").await.unwrap();
    // There is one place: the next one gets it when the slow one has lost it.
    assert_eq!(w.get("/health").await.status, 200);
    w.table("a.t").await;
    let actions: Vec<Value> = (0..50_000).map(|n| add(&format!("day=d/{n:0200}"), "d")).collect();
    w.commit(None, &of("a.t", json!(actions))).await.ok();
    let mut deaf = TcpStream::connect(w.address).await.unwrap();
    deaf.write_all(b"GET /v1/tables/a.t/files HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 1];
    deaf.read_exact(&mut first).await.unwrap();
    let another = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    let answer = another.get(format!("http://{}/health", w.address)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_end() {
    let mut w = World::with(|_| {}).await;
    w.table("a.t").await;
    let body = of("a.t", json!([add("x", "d")])).to_string();
    let mut begun = TcpStream::connect(w.address).await.unwrap();
    let head = "POST /v1/commits HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length";
    begun.write_all(format!("{head}: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    let mut line = [0; 25];
    begun.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    let ended = w.stop();
    // Nobody is let in any more.
    tokio::time::timeout(Duration::from_secs(30), async {
        while TcpStream::connect(w.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    begun.write_all(body.as_bytes()).await.unwrap();
    let mut rest = String::new();
    begun.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("HTTP/1.1 200") && rest.contains("\"version\":1"), "{rest}");
    assert!(ended.await.unwrap(), "all requests ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_ever() {
    let mut w = World::with(|settings| settings.grace = Duration::from_millis(300)).await;
    let mut begun = TcpStream::connect(w.address).await.unwrap();
    let head = "POST /v1/commits HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    begun.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; 25];
    begun.read_exact(&mut line).await.unwrap();
    assert!(!w.stop().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_address_asks_for_keys() {
    let w = World::with(|_| {}).await;
    for (address, authentication, asks) in [
        ("127.0.0.1:0", Authentication::IfOpen, false),
        ("[::1]:0", Authentication::IfOpen, false),
        ("127.0.0.1:0", Authentication::Keys, true),
        ("0.0.0.0:0", Authentication::IfOpen, true),
        ("0.0.0.0:0", Authentication::None, false),
    ] {
        let mut settings = Settings::default();
        settings.authentication = authentication;
        let server = Server::bind(w.db.clone(), address, settings).await.unwrap();
        assert_eq!(server.asks(), asks, "{address} {authentication:?}");
    }
    let error =
        Server::bind(w.db.clone(), &w.address.to_string(), Settings::default()).await.unwrap_err();
    assert_eq!(error.code(), "unavailable", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_names_each_route_and_its_errors() {
    let w = World::with(|_| {}).await;
    let api = w.get("/openapi.json").await.ok();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = api["paths"].as_object().unwrap();
    let mut known: Vec<&str> = paths.keys().map(String::as_str).collect();
    known.sort_unstable();
    let rows = |path: &&str| cfg!(feature = "rows") || !path.ends_with("/rows");
    let expected: Vec<&str> = [
        "/health",
        "/ready",
        "/v1/commits",
        "/v1/namespaces",
        "/v1/tables",
        "/v1/tables/{table}",
        "/v1/tables/{table}/diff",
        "/v1/tables/{table}/files",
        "/v1/tables/{table}/history",
        "/v1/tables/{table}/mirror",
        "/v1/tables/{table}/rows",
        "/v1/tables/{table}/snapshot",
        "/v1/tables/{table}/undrop",
        "/v1/tables/{table}/version",
    ]
    .into_iter()
    .filter(rows)
    .collect();
    assert_eq!(known, expected);
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            for status in ["400", "404", "503", "504"] {
                let content =
                    &answers[status]["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(content, "#/components/schemas/Problem", "{method} {path} {status}");
            }
            assert!(
                operation["tags"].is_array() && operation["summary"].is_string(),
                "{method} {path}"
            );
        }
    }
    // Whatever a schema refers to is there.
    let text = api.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(api["components"]["schemas"].get(name).is_some(), "{name}");
    }
}
