//! Who may do what: each role with each route, and keys that are none.

use std::time::{Duration, Instant};

use deltalakedb::TimestampMs;
use deltalakedb::access::{Grant, NewKey, Role};
use deltalakedb_server::Authentication;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answered, World, add, of};

crate::on_each_database!(each_role_with_each_route);

async fn key(w: &World, principal: &str, grants: &[(Role, &str)]) -> String {
    let grants = grants.iter().map(|(role, on)| Grant::new(*role, on.parse().unwrap())).collect();
    w.db.set_grants(principal, grants).await.unwrap();
    w.db.create_key(NewKey::of(principal)).await.unwrap().text
}

async fn ask(w: &World, key: &str, method: Method, path: &str, body: Option<&Value>) -> Answered {
    let bearer = format!("Bearer {key}");
    w.ask(method, path, &[("authorization", &bearer)], body).await
}

/// The status of an answer, of a body of any form.
async fn status(w: &World, key: &str, method: &Method, path: &str, body: Option<&Value>) -> u16 {
    ask(w, key, method.clone(), path, body).await.status
}

async fn each_role_with_each_route(w: World) {
    let w = w.again(|settings| settings.authentication = Authentication::Keys).await;
    let root = key(&w, "root", &[(Role::Admin, "*")]).await;
    let mut ids = Vec::new();
    for name in ["a.t", "a.u", "b.t"] {
        let new =
            json!({ "name": name, "columns": "id long, day string", "partition_by": ["day"] });
        let made = ask(&w, &root, Method::POST, "/v1/tables", Some(&new)).await.ok();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    let callers = [
        ("none", key(&w, "none", &[]).await, None),
        ("reader", key(&w, "reader", &[(Role::Read, "a.*")]).await, Some(Role::Read)),
        (
            "writer",
            key(&w, "writer", &[(Role::Write, "a.t"), (Role::Write, "a.u")]).await,
            Some(Role::Write),
        ),
        ("admin", key(&w, "admin", &[(Role::Admin, "a.*")]).await, Some(Role::Admin)),
        ("root", root.clone(), Some(Role::Admin)),
    ];
    let commit = |table: &str, path: &str| of(table, json!([add(path, "d")]));
    for (name, key, role) in &callers {
        let may = |wanted: Role| role.is_some_and(|role| role >= wanted);
        // Of the table a.t, by its name and by its id.
        for table in ["a.t", &ids[0]] {
            for rest in ["", "/snapshot", "/version", "/files", "/rows", "/history", "/mirror"] {
                let path = format!("/v1/tables/{table}{rest}");
                let found = status(&w, key, &Method::GET, &path, None).await;
                let hidden = if table == "a.t" { 403 } else { 404 };
                let expected = if may(Role::Read) { 200 } else { hidden };
                // Rows of files that are not there.
                let lost = rest == "/rows" && may(Role::Read) && found == 503;
                assert!(found == expected || lost, "{name} GET {path}: {found}");
            }
            let wrote = status(
                &w,
                key,
                &Method::POST,
                "/v1/commits",
                Some(&commit(table, &format!("{name}-{table}"))),
            )
            .await;
            let hidden = if table == "a.t" || may(Role::Read) { 403 } else { 404 };
            assert_eq!(
                wrote,
                if may(Role::Write) { 200 } else { hidden },
                "{name} commits to {table}"
            );
            let path = format!("/v1/tables/{table}/undrop");
            let undropped = status(&w, key, &Method::POST, &path, Some(&json!({}))).await;
            // Nothing is dropped: who may try is told so.
            assert_eq!(
                undropped,
                if may(Role::Admin) { 404 } else { hidden },
                "{name} undrops {table}"
            );
            if !may(Role::Admin) {
                let path = format!("/v1/tables/{table}");
                assert_eq!(
                    status(&w, key, &Method::DELETE, &path, None).await,
                    hidden,
                    "{name} drops {table}"
                );
            }
        }
        let unity = "/api/2.1/unity-catalog";
        let path = format!("{unity}/tables/unity.a.t");
        assert_eq!(
            status(&w, key, &Method::GET, &path, None).await,
            if may(Role::Read) { 200 } else { 403 }
        );
        for (operation, wanted) in [("READ", Role::Read), ("READ_WRITE", Role::Write)] {
            let wish = json!({ "table_id": ids[0], "operation": operation });
            let path = format!("{unity}/temporary-table-credentials");
            let found = status(&w, key, &Method::POST, &path, Some(&wish)).await;
            let expected = if may(wanted) {
                200
            } else if may(Role::Read) {
                403
            } else {
                404
            };
            assert_eq!(found, expected, "{name} {operation}");
        }
        // Of the other namespace.
        let sees_all = *name == "root";
        for path in ["/v1/tables/b.t".to_owned(), format!("{unity}/tables/unity.b.t")] {
            assert_eq!(
                status(&w, key, &Method::GET, &path, None).await,
                if sees_all { 200 } else { 403 },
                "{name} {path}"
            );
        }
        let path = format!("/v1/tables/{}", ids[2]);
        assert_eq!(
            status(&w, key, &Method::GET, &path, None).await,
            if sees_all { 200 } else { 404 }
        );
        // Nobody learns whether there is such a table.
        let nothing = status(&w, key, &Method::GET, "/v1/tables/b.nothing", None).await;
        assert_eq!(nothing, if sees_all { 404 } else { 403 }, "{name}");
        let both = json!({ "tables": [commit("a.t", &format!("both-{name}"))["tables"][0], commit("b.t", &format!("both-{name}"))["tables"][0]] });
        assert_eq!(
            status(&w, key, &Method::POST, "/v1/commits", Some(&both)).await,
            if sees_all { 200 } else { 403 }
        );
        let new = |name: &str| json!({ "name": name, "columns": "id long" });
        let made =
            status(&w, key, &Method::POST, "/v1/tables", Some(&new(&format!("a.{name}")))).await;
        assert_eq!(made, if may(Role::Admin) { 201 } else { 403 }, "{name} creates");
        let made =
            status(&w, key, &Method::POST, "/v1/tables", Some(&new(&format!("c.{name}")))).await;
        assert_eq!(made, if sees_all { 201 } else { 403 }, "{name} creates elsewhere");
        // Lists have what may be seen.
        let list = async |path: &str| ask(&w, key, Method::GET, path, None).await.ok();
        let tables = list("/v1/tables").await;
        let names: Vec<&str> = tables["tables"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["namespace"].as_str().unwrap())
            .collect();
        assert_eq!(names.contains(&"a"), may(Role::Read), "{name}");
        assert_eq!(names.contains(&"b"), sees_all, "{name}");
        let namespaces = list("/v1/namespaces").await["namespaces"].clone();
        let schemas = list(&format!("{unity}/schemas?catalog_name=unity")).await["schemas"].clone();
        let schemas: Vec<Value> =
            schemas.as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
        assert_eq!(namespaces, json!(schemas));
        let expected = if sees_all {
            json!(["a", "b", "c"])
        } else if may(Role::Read) {
            json!(["a"])
        } else {
            json!([])
        };
        assert_eq!(namespaces, expected, "{name}");
        let found = list(&format!("{unity}/tables?catalog_name=unity&schema_name=b")).await;
        assert_eq!(found["tables"].as_array().unwrap().len(), usize::from(sees_all), "{name}");
    }
    // Who did it: in the commit, and in the audit.
    let history = ask(&w, &root, Method::GET, "/v1/tables/a.t/history?limit=1000", None).await.ok();
    let who: Vec<&str> =
        history["commits"].as_array().unwrap().iter().filter_map(|c| c["who"].as_str()).collect();
    assert!(
        who.contains(&"writer") && who.contains(&"root") && !who.contains(&"reader"),
        "{who:?}"
    );
    // A key of another one's commit tells nothing.
    let mine = [
        ("authorization", format!("Bearer {root}")),
        ("idempotency-key", "secret-load".to_owned()),
    ];
    let headers: Vec<(&str, &str)> =
        mine.iter().map(|(name, value)| (*name, value.as_str())).collect();
    w.ask(Method::POST, "/v1/commits", &headers, Some(&commit("b.t", "mine"))).await.ok();
    let theirs = [
        ("authorization", format!("Bearer {}", callers[2].1)),
        ("idempotency-key", "secret-load".to_owned()),
    ];
    let headers: Vec<(&str, &str)> =
        theirs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = w.ask(Method::POST, "/v1/commits", &headers, Some(&commit("a.t", "theirs"))).await;
    assert!(!answer.text.contains(&ids[2]), "{answer:?}");
    answer.problem(400, "invalid_input");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_none_open_nothing() {
    let w = World::with(|settings| settings.authentication = Authentication::Keys).await;
    let good = key(&w, "ann", &[(Role::Admin, "*")]).await;
    let other = key(&w, "bob", &[(Role::Admin, "*")]).await;
    assert_eq!(status(&w, &good, &Method::GET, "/v1/tables", None).await, 200);
    let mixed = format!("{}{}", &good[..37], &other[37..]);
    let altered =
        format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'B' } else { 'A' });
    for wrong in [
        "",
        "x",
        "dlk_",
        &good[..40],
        &mixed,
        &altered,
        &good.to_lowercase(),
        &format!("{good} {good}"),
        &"a".repeat(5_000),
    ] {
        let answer = ask(&w, wrong, Method::GET, "/v1/tables", None).await;
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert!(!answer.text.contains(&good[37..]), "{answer:?}");
        answer.problem(401, "unauthorized");
    }
    for headers in
        [vec![], vec![("authorization", good.as_str())], vec![("authorization", "Basic YTpi")]]
    {
        w.ask(Method::GET, "/v1/tables", &headers, None).await.problem(401, "unauthorized");
        w.ask(Method::GET, "/v1/nothing", &headers, None).await.problem(401, "unauthorized");
        w.ask(Method::GET, "/api/2.1/unity-catalog/catalogs", &headers, None)
            .await
            .problem(401, "unauthorized");
    }
    let twice = format!("Bearer {good}");
    let headers = [("authorization", twice.as_str()), ("authorization", twice.as_str())];
    w.ask(Method::GET, "/v1/tables", &headers, None).await.problem(401, "unauthorized");
    // What anybody may ask.
    for path in ["/health", "/ready", "/openapi.json"] {
        assert_eq!(w.get(path).await.status, 200, "{path}");
    }
    assert_eq!(ask(&w, &good, Method::GET, "/v1/nothing", None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_roles_end_within_seconds() {
    let w = World::with(|settings| settings.authentication = Authentication::Keys).await;
    let text = key(&w, "ann", &[(Role::Read, "*")]).await;
    w.db.create_table("a.t").location("memory://access/t").columns("id long").await.unwrap();
    let until = async |wanted: u16, path: &str| {
        let begun = Instant::now();
        while status(&w, &text, &Method::GET, path, None).await != wanted {
            assert!(begun.elapsed() < Duration::from_secs(20), "never {wanted}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        begun.elapsed()
    };
    until(200, "/v1/tables/a.t").await;
    // Another program changes them.
    w.db.set_grants("ann", Vec::new()).await.unwrap();
    assert!(until(403, "/v1/tables/a.t").await < Duration::from_secs(10));
    w.db.grant("ann", Grant::new(Role::Read, "a.t".parse().unwrap())).await.unwrap();
    until(200, "/v1/tables/a.t").await;
    let id = w.db.keys().await.unwrap()[0].id.clone();
    w.db.revoke_key(&id).await.unwrap();
    assert!(until(401, "/v1/tables/a.t").await < Duration::from_secs(10));
    // One that ends by itself is noticed at once, though it is remembered.
    let end = TimestampMs(w.db.clock().now().0 + 700);
    let brief = NewKey { expires_at: Some(end), ..NewKey::of("ann") };
    let brief = w.db.create_key(brief).await.unwrap().text;
    assert_eq!(status(&w, &brief, &Method::GET, "/v1/tables", None).await, 200);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(status(&w, &brief, &Method::GET, "/v1/tables", None).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_does_not_open_the_door() {
    let w = World::with(|settings| settings.authentication = Authentication::Keys).await;
    let text = key(&w, "ann", &[(Role::Read, "*")]).await;
    w.db.close().await.unwrap();
    let answer = ask(&w, &text, Method::GET, "/v1/tables", None).await;
    assert_eq!(answer.status, 503, "{answer:?}");
}
