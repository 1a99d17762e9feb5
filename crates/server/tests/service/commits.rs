//! Commits: all tables or none, once for a key, and what they may name.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{World, add, of};

crate::on_each_database!(
    all_or_none,
    once_for_a_key,
    conflicts_are_problems,
    many_clients_lose_nothing
);

async fn all_or_none(w: World) {
    w.table("a.one").await;
    w.table("a.two").await;
    let both = |two: &str| {
        json!({ "tables": [
            { "table": "a.one", "reads": "nothing", "actions": [add("1", "d")] },
            { "table": two, "reads": "nothing", "actions": [add("1", "d")] },
        ] })
    };
    w.commit(None, &both("a.three")).await.problem(404, "table_not_found");
    assert!(w.paths("a.one", "").await.is_empty());
    let done = w.commit(None, &both("a.two")).await;
    let key = done.headers["idempotency-key"].to_str().unwrap().to_owned();
    let done = done.ok();
    assert_eq!(done["idempotency_key"], key);
    assert_eq!(done["tables"].as_array().unwrap().len(), 2);
    assert_eq!(w.paths("a.one", "").await, w.paths("a.two", "").await);
    let (one, two) = (
        w.get("/v1/tables/a.one/history").await.ok(),
        w.get("/v1/tables/a.two/history").await.ok(),
    );
    assert_eq!(
        (&one["commits"][0]["token"], &two["commits"][0]["token"]),
        (&json!(key), &json!(key))
    );

    w.commit(None, &json!({ "tables": [] })).await.problem(400, "invalid_input");
    let twice = json!({ "tables": [of("a.one", json!([add("2", "d")]))["tables"][0], of("a.one", json!([add("3", "d")]))["tables"][0]] });
    w.commit(None, &twice).await.problem(400, "invalid_input");
    assert_eq!(w.paths("a.one", "").await, ["1"]);
}

async fn once_for_a_key(w: World) {
    w.table("a.t").await;
    let commit = of("a.t", json!([add("1", "d")]));
    let first = w.commit(Some("load-1"), &commit).await.ok();
    let again = w.commit(Some("load-1"), &commit).await.ok();
    assert_eq!((&first["replayed"], &again["replayed"]), (&json!(false), &json!(true)));
    assert_eq!(first["tables"], again["tables"]);
    assert_eq!(w.paths("a.t", "").await, ["1"]);
    // The table is gone since: what the key did is answered all the same.
    w.ask(reqwest::Method::DELETE, "/v1/tables/a.t", &[], None).await.ok();
    let again = w.commit(Some("load-1"), &commit).await.ok();
    assert_eq!(first["tables"], again["tables"]);
    w.commit(Some("load-2"), &commit).await.problem(404, "table_not_found");
    w.commit(Some("ä"), &commit).await.problem(400, "invalid_input");
    w.commit(Some(&"x".repeat(129)), &commit).await.problem(400, "invalid_input");

    let new = json!({ "name": "a.u", "columns": "id long" });
    let create = async || {
        w.ask(reqwest::Method::POST, "/v1/tables", &[("idempotency-key", "make-u")], Some(&new))
            .await
    };
    let (first, again) = (create().await, create().await);
    assert_eq!((first.status, again.status), (201, 201), "{again:?}");
    assert_eq!(
        (first.json()["id"].clone(), first.json()["location"].clone()),
        (again.json()["id"].clone(), again.json()["location"].clone())
    );
    w.post("/v1/tables", &new).await.problem(409, "table_exists");
}

async fn conflicts_are_problems(w: World) {
    w.table("a.t").await;
    w.commit(None, &of("a.t", json!([add("1", "d1"), add("2", "d2")]))).await.ok();
    let remove = |path: &str, day: &str, reads: Value| {
        let gone = json!({ "remove": { "path": path, "deletionTimestamp": 5, "dataChange": true, "extendedFileMetadata": true,
            "partitionValues": { "day": day }, "size": 7 } });
        json!({ "tables": [{ "table": "a.t", "read_version": 1, "reads": reads, "operation": "DELETE", "actions": [gone] }] })
    };
    let other = |day: &str| json!({ "where": format!("day = '{day}'") });
    w.commit(None, &remove("1", "d1", other("d1"))).await.ok();
    // Another partition was read: it goes on version 2. The same one was read: it does not.
    let late = w.commit(None, &remove("1", "d1", other("d1"))).await.problem(409, "conflict");
    assert!(late["detail"].as_str().unwrap().contains("a.t"), "{late}");
    assert_eq!((&late["retryable"], &late["may_have_happened"]), (&json!(false), &json!(false)));
    w.commit(None, &remove("2", "d2", json!("whole_table"))).await.problem(409, "conflict");
    w.commit(None, &remove("2", "d2", other("d2"))).await.ok();
    assert!(w.paths("a.t", "").await.is_empty());
    let history = w.get("/v1/tables/a.t/history").await.ok();
    assert_eq!(history["commits"][0]["operation"], "DELETE");
    let nobody = remove("2", "d2", json!({ "where": "nobody = 1" }));
    w.commit(None, &nobody).await.problem(400, "invalid_input");
}

async fn many_clients_lose_nothing(w: World) {
    w.table("a.t").await;
    w.table("a.u").await;
    let w = &w;
    let writers = (0..8).map(|writer| async move {
        let mut paths = BTreeSet::new();
        for n in 0..10 {
            let path = format!("{writer}-{n}");
            let actions = json!([add(&path, "d")]);
            let both = json!({ "tables": [of("a.t", actions.clone())["tables"][0], of("a.u", actions)["tables"][0]] });
            w.commit(Some(&path), &both).await.ok();
            paths.insert(path);
        }
        paths
    });
    let written: BTreeSet<String> =
        futures::future::join_all(writers).await.into_iter().flatten().collect();
    assert_eq!(written.len(), 80);
    for table in ["a.t", "a.u"] {
        let found = w.paths(table, "").await;
        assert_eq!(
            (found.len(), found.into_iter().collect::<BTreeSet<_>>()),
            (80, written.clone())
        );
        let shown = w.get(&format!("/v1/tables/{table}")).await.ok();
        assert!(shown["version"].as_i64().unwrap() >= 1 && shown["num_files"] == 80);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_stored_as_they_are_sent() {
    let w = World::with(|_| {}).await;
    w.table("a.t").await;
    // A number that no double holds, a field that nobody knows, spaces, line ends.
    let text = r#"{"tables": [{"table": "a.t", "reads": "nothing", "actions": [
        {"add": {"path": "1",
            "partitionValues": {"day": "a\nb"}, "size": 7, "modificationTime": 1, "dataChange": true,
            "later": 12345678901234567890.123456789}}]}]}"#;
    let url = format!("http://{}/v1/commits", w.address);
    let sent = w
        .client
        .post(url)
        .header("content-type", "application/json")
        .body(text)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200, "{}", sent.text().await.unwrap());
    let id = w.db.table("a.t").await.unwrap().id();
    let version = deltalakedb::Version::new(1).unwrap();
    let bodies = w.db.reader().read_bodies(id, version, version, 1).await.unwrap();
    let lines = String::from_utf8(bodies[0].1.published().unwrap().to_vec()).unwrap();
    let line = lines.lines().find(|line| line.contains("\"add\"")).unwrap();
    assert!(line.contains(r#""later": 12345678901234567890.123456789"#), "{line}");
    assert!(line.contains(r#""a\nb""#), "{line}");
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_stay_below_their_table() {
    let w = World::with(|_| {}).await;
    w.table("a.t").await;
    for path in [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "%2e%2e/x",
        "a/%2E%2E/%2e%2e/x",
        "file:///etc/passwd",
        "s3://other/x",
        "http://169.254.169.254/latest",
        "..%2fx",
        "%252e%252e/x",
    ] {
        let refused =
            w.commit(None, &of("a.t", json!([add(path, "d")]))).await.problem(400, "invalid_input");
        assert!(!refused["detail"].as_str().unwrap().is_empty(), "{path}");
        let gone = json!([{ "cdc": { "path": path, "partitionValues": {}, "size": 1, "dataChange": false } }]);
        w.commit(None, &of("a.t", gone)).await.problem(400, "invalid_input");
    }
    let mut vector = add("x", "d");
    vector["add"]["deletionVector"] = json!({ "storageType": "p", "pathOrInlineDv": "file:///etc/passwd", "offset": 1, "sizeInBytes": 5, "cardinality": 1 });
    w.commit(None, &of("a.t", json!([vector]))).await.problem(400, "invalid_input");
    for path in ["x", "day=2026-01-31/x.parquet", "day=a%20b/x", "day=2026-01-01 00%3A00%3A00/x"] {
        w.commit(None, &of("a.t", json!([add(path, "d")]))).await.ok();
    }
    assert_eq!(w.paths("a.t", "").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_lie_below_a_root() {
    let w = World::with(|_| {}).await;
    let at = |place: &str| json!({ "name": "a.t", "columns": "id long", "location": place });
    let lake = w.lake().display().to_string();
    std::os::unix::fs::symlink(w.folder(), w.lake().join("out")).unwrap();
    for place in [
        lake.clone(),
        format!("{lake}/../x"),
        w.folder().display().to_string(),
        "/etc".to_owned(),
        "memory://x".to_owned(),
        format!("{lake}x/t"),
        format!("{lake}/out/t"),
        "s3://bucket/t".to_owned(),
        format!("file://{lake}/%2e%2e/x"),
        "http://169.254.169.254/x".to_owned(),
        "relative".to_owned(),
    ] {
        let answer = w.post("/v1/tables", &at(&place)).await;
        assert!([400, 403, 422].contains(&answer.status), "{place}: {answer:?}");
    }
    assert!(w.get("/v1/tables").await.ok()["tables"].as_array().unwrap().is_empty());
    let made = w.post("/v1/tables", &at(&format!("{lake}/mine"))).await.ok();
    assert!(made["location"].as_str().unwrap().ends_with("/lake/mine"));

    let w = World::with(|settings| settings.roots.clear()).await;
    let refused = w.post("/v1/tables", &json!({ "name": "a.t", "columns": "id long" })).await;
    refused.problem(403, "forbidden");
}
