//! The classic API of Unity Catalog: the shapes that clients rely on.

use serde_json::{Value, json};

use crate::support::World;

const API: &str = "/api/2.1/unity-catalog";

crate::on_each_database!(names_lead_to_tables);

async fn names_lead_to_tables(w: World) {
    let columns = "id long not null comment 'number', price decimal(10,2), tags array<string>, \
                   at struct<x: integer, b: map<string, short>>, day date";
    let new = json!({ "name": "shop.eu.orders", "columns": columns, "partition_by": ["day"], "description": "orders" });
    let made = w.post("/v1/tables", &new).await.ok();
    w.table("shop.eu.other").await;
    w.table("b.t").await;
    let get = async |path: &str| w.get(&format!("{API}{path}")).await;

    assert_eq!(get("/catalogs").await.ok()["catalogs"][0]["name"], "unity");
    assert_eq!(get("/catalogs/unity").await.ok()["name"], "unity");
    let schemas = get("/schemas?catalog_name=unity").await.ok();
    let names: Vec<&Value> =
        schemas["schemas"].as_array().unwrap().iter().map(|s| &s["name"]).collect();
    assert_eq!(names, ["b", "shop.eu"]);
    assert_eq!(get("/schemas/unity.shop.eu").await.ok()["full_name"], "unity.shop.eu");

    let page = get("/tables?catalog_name=unity&schema_name=shop.eu&max_results=1").await.ok();
    assert_eq!(page["tables"].as_array().unwrap().len(), 1);
    let token = page["next_page_token"].as_str().unwrap();
    let rest = get(&format!(
        "/tables?catalog_name=unity&schema_name=shop.eu&max_results=1&page_token={token}"
    ))
    .await
    .ok();
    assert_eq!(
        (&rest["tables"][0]["name"], &rest["next_page_token"]),
        (&json!("other"), &Value::Null)
    );
    let all =
        get("/tables?catalog_name=unity&schema_name=shop.eu&max_results=0&page_token=").await.ok();
    assert_eq!(all["tables"].as_array().unwrap().len(), 2);

    let table = get("/tables/unity.shop.eu.orders").await.ok();
    assert_eq!(table, all["tables"][0]);
    for (field, value) in [
        ("name", json!("orders")),
        ("schema_name", json!("shop.eu")),
        ("catalog_name", json!("unity")),
        ("full_name", json!("unity.shop.eu.orders")),
        ("table_type", json!("EXTERNAL")),
        ("data_source_format", json!("DELTA")),
        ("comment", json!("orders")),
        ("table_id", made["id"].clone()),
        ("storage_location", made["location"].clone()),
        ("updated_at", made["timestamp_ms"].clone()),
    ] {
        assert_eq!(table[field], value, "{field}");
    }
    let columns = table["columns"].as_array().unwrap();
    let of = |field: &str| columns.iter().map(|c| c[field].clone()).collect::<Vec<Value>>();
    assert_eq!(
        of("type_text"),
        [
            json!("bigint"),
            json!("decimal(10,2)"),
            json!("array<string>"),
            json!("struct<x:int,b:map<string,smallint>>"),
            json!("date"),
        ]
    );
    assert_eq!(of("type_name"), ["LONG", "DECIMAL", "ARRAY", "STRUCT", "DATE"]);
    assert_eq!(of("position"), [0, 1, 2, 3, 4]);
    assert_eq!(of("nullable"), [false, true, true, true, true]);
    assert_eq!(
        of("partition_index"),
        [Value::Null, Value::Null, Value::Null, Value::Null, json!(0)]
    );
    assert_eq!((&columns[1]["type_precision"], &columns[1]["type_scale"]), (&json!(10), &json!(2)));
    assert_eq!(columns[0]["comment"], "number");
    let field: Value = serde_json::from_str(columns[0]["type_json"].as_str().unwrap()).unwrap();
    assert_eq!((&field["name"], &field["type"]), (&json!("id"), &json!("long")));

    let wish = json!({ "table_id": made["id"], "operation": "READ" });
    let credentials = w.post(&format!("{API}/temporary-table-credentials"), &wish).await.ok();
    assert!(credentials.get("aws_temp_credentials").is_none());

    for (path, status, code) in [
        ("/catalogs/other", 404, "CATALOG_DOES_NOT_EXIST"),
        ("/schemas?catalog_name=other", 404, "CATALOG_DOES_NOT_EXIST"),
        ("/schemas/unity.none", 404, "SCHEMA_DOES_NOT_EXIST"),
        ("/tables/unity.shop.none", 404, "TABLE_DOES_NOT_EXIST"),
        ("/tables/other.shop.eu.orders", 404, "CATALOG_DOES_NOT_EXIST"),
        ("/tables?catalog_name=unity", 400, "INVALID_PARAMETER_VALUE"),
        ("/tables?catalog_name=unity&schema_name=b&page_token=x", 400, "INVALID_PARAMETER_VALUE"),
    ] {
        let answer = get(path).await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (status, &json!(code)), "{path}");
    }
    let id = uuid::Uuid::new_v4().to_string();
    let wish = json!({ "table_id": id, "operation": "READ" });
    let none = w.post(&format!("{API}/temporary-table-credentials"), &wish).await;
    assert_eq!((none.status, &none.json()["error_code"]), (404, &json!("TABLE_DOES_NOT_EXIST")));
}
