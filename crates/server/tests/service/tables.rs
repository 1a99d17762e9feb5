//! Tables, their states, files and history.

use deltalakedb::audit::AuditQuery;
use futures::TryStreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{World, add, of};

crate::on_each_database!(life_of_a_table, lists_in_pages, names_of_all_kinds);

async fn life_of_a_table(w: World) {
    let made = w.table("shop.orders").await;
    assert_eq!((&made["table"], &made["version"]), (&json!("shop.orders"), &json!(0)));
    let location = made["location"].as_str().unwrap();
    let lake = w.lake().canonicalize().unwrap().display().to_string();
    assert!(location.starts_with(&format!("file://{lake}/shop/orders-")), "{location} {lake}");

    let day = |n: u32| format!("day=d{n}/{n}.parquet");
    for n in 1..=3 {
        let commit = of("shop.orders", json!([add(&day(n), &format!("d{n}"))]));
        let done = w.commit(None, &commit).await.ok();
        assert_eq!(done["tables"][0]["version"], n, "{done}");
    }
    // The same shape as the command line's: what the catalog itself says.
    let shown = w.get("/v1/tables/shop.orders").await.ok();
    assert_eq!(shown, w.get("/v1/tables/shop.orders/snapshot").await.ok());
    assert_eq!(shown, w.get(&format!("/v1/tables/{}", made["id"].as_str().unwrap())).await.ok());
    assert_eq!((&shown["num_files"], &shown["size_bytes"]), (&json!(3), &json!(21)));
    assert_eq!(shown["schema"]["fields"][0]["name"], "id");
    assert_eq!(shown["features"]["fence"], true);
    let old = w.get("/v1/tables/shop.orders?version=1").await.ok();
    assert_eq!(
        (&old["version"], &old["num_files"], &old["head_version"]),
        (&json!(1), &json!(1), &json!(3))
    );
    let then = old["timestamp_ms"].as_i64().unwrap();
    let at = w.get(&format!("/v1/tables/shop.orders/version?timestamp={then}")).await.ok();
    assert_eq!((&at["version"], &at["timestamp_ms"]), (&json!(1), &json!(then)));

    assert_eq!(w.paths("shop.orders", "").await, [day(1), day(2), day(3)]);
    assert_eq!(w.paths("shop.orders", "?version=2").await, [day(1), day(2)]);
    assert_eq!(w.paths("shop.orders", "?where=day%3D'd2'").await, [day(2)]);
    assert_eq!(w.paths("shop.orders", "?limit=1").await, [day(1)]);
    let files = w.get("/v1/tables/shop.orders/files?version=2").await;
    assert_eq!(files.headers["delta-table-version"], "2");
    assert_eq!(files.headers["content-type"], "application/x-ndjson");

    let page = w.get("/v1/tables/shop.orders/history?limit=3").await.ok();
    let versions = |page: &Value| -> Vec<i64> {
        page["commits"].as_array().unwrap().iter().map(|c| c["version"].as_i64().unwrap()).collect()
    };
    assert_eq!(versions(&page), [3, 2, 1]);
    let next = page["next_cursor"].as_str().unwrap();
    let page = w.get(&format!("/v1/tables/shop.orders/history?limit=3&cursor={next}")).await.ok();
    assert_eq!((versions(&page), &page["next_cursor"]), (vec![0], &Value::Null));

    let mirror = w.get("/v1/tables/shop.orders/mirror").await.ok();
    assert_eq!((&mirror["unpublished"], &mirror["mirror"]), (&json!(4), &json!("active")));

    let dropped = w.ask(Method::DELETE, "/v1/tables/shop.orders", &[], None).await.ok();
    assert_eq!(dropped["state"], "dropped");
    w.get("/v1/tables/shop.orders").await.problem(404, "table_not_found");
    w.get("/v1/tables/shop.orders/files").await.problem(404, "table_not_found");
    let id = made["id"].as_str().unwrap();
    assert_eq!(w.get(&format!("/v1/tables/{id}")).await.ok()["state"], "dropped");
    let listed = w.get("/v1/tables?state=dropped").await.ok();
    assert_eq!(listed["tables"][0]["id"], id);
    let back = w.post("/v1/tables/shop.orders/undrop", &json!({ "name": "shop.old" })).await.ok();
    assert_eq!((&back["table"], &back["version"]), (&json!("shop.old"), &json!(3)));
    assert_eq!(w.paths("shop.old", "").await.len(), 3);

    // Where each of it came from is in the audit.
    let acts = w.db.audit(AuditQuery::default()).await.unwrap();
    let acts: Vec<_> = acts.try_collect().await.unwrap();
    let drop = acts.iter().find(|act| act.action == "table.drop").unwrap();
    assert_eq!(drop.origin.as_deref(), Some("127.0.0.1"));
    assert!(drop.program.as_deref().unwrap().starts_with("deltalakedb-server "));
}

async fn lists_in_pages(w: World) {
    let mut made = Vec::new();
    for namespace in ["a", "a.b", "z"] {
        for n in 0..3 {
            let name = format!("{namespace}.t{n}");
            w.table(&name).await;
            made.push(name);
        }
    }
    let mut listed = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = w.get(&format!("/v1/tables{query}")).await.ok();
        let tables = page["tables"].as_array().unwrap();
        assert!(tables.len() <= 2 && !tables.is_empty());
        listed.extend(tables.iter().map(|t| t["table"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=2&cursor={next}");
    }
    assert_eq!(listed, made);
    let only = w.get("/v1/tables?namespace=a.b").await.ok();
    assert_eq!(only["tables"].as_array().unwrap().len(), 3);

    let first = w.get("/v1/namespaces?limit=2").await.ok();
    assert_eq!(first["namespaces"], json!(["a", "a.b"]));
    let next = first["next_cursor"].as_str().unwrap();
    let rest = w.get(&format!("/v1/namespaces?limit=2&cursor={next}")).await.ok();
    assert_eq!(rest, json!({ "namespaces": ["z"], "next_cursor": null }));
    let whole = w.get("/v1/namespaces").await.ok();
    assert_eq!(whole, json!({ "namespaces": ["a", "a.b", "z"], "next_cursor": null }));

    for query in [
        "?limit=0",
        "?limit=1001",
        "?limit=-1",
        "?cursor=!",
        "?cursor=bm8",
        "?colour=red",
        "?state=lost",
    ] {
        w.get(&format!("/v1/tables{query}")).await.problem(400, "invalid_input");
    }
}

async fn names_of_all_kinds(w: World) {
    for (name, path) in [
        ("a b.c d", "a%20b.c%20d"),
        ("x'; DROP TABLE t; --.y", "x';%20DROP%20TABLE%20t;%20--.y"),
        ("ä.ö/ü", "%C3%A4.%C3%B6%2F%C3%BC"),
        ("..%2f.x", "..%252f.x"),
        ("q?.h#", "q%3F.h%23"),
    ] {
        let new = json!({ "name": name, "columns": "id long" });
        let made = w.post("/v1/tables", &new).await;
        if name.starts_with("..") {
            made.problem(400, "invalid_input");
            continue;
        }
        let made = made.ok();
        assert_eq!(made["table"], name);
        let location = made["location"].as_str().unwrap();
        assert!(location.contains("/lake/") && !location.contains(".."), "{location}");
        let shown = w.get(&format!("/v1/tables/{path}")).await.ok();
        assert_eq!(shown["id"], made["id"]);
    }
}
