//! Rows of a table, in each form.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use deltalakedb::deltalake::deltalake::datafusion::prelude::SessionContext;
use deltalakedb::rows::{Mode, Words, Write};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::World;

crate::on_each_database!(rows_in_each_form);

/// Writes rows with the columns `id` and `note`: of the ids, each third has no note.
async fn write(w: &World, ids: std::ops::Range<i64>) {
    let notes: StringArray =
        ids.clone().map(|id| (id % 3 > 0).then(|| format!("n, \"{id}\""))).collect();
    let ids = Int64Array::from_iter_values(ids);
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(ids) as Arc<dyn Array>, true),
        ("note", Arc::new(notes), true),
    ])
    .unwrap();
    let rows = SessionContext::new().read_batch(batch).unwrap();
    let transaction = w.db.transaction();
    let name = "a.t".parse().unwrap();
    let table = transaction.table(&name).await.unwrap();
    let words = Words { merge: "merge", replace_where: "where" };
    let write = Write {
        rows,
        mode: Mode::Append,
        replace_where: None,
        schema_mode: None,
        base: None,
        partition_by: Vec::new(),
        properties: std::collections::BTreeMap::new(),
        target_file_size: None,
        words,
    };
    write.into_table(&name, table).await.unwrap();
    transaction.commit().await.unwrap();
}

async fn rows_in_each_form(w: World) {
    let new = json!({ "name": "a.t", "schema": { "type": "struct", "fields": [
        { "name": "id", "type": "long", "nullable": true, "metadata": {} },
        { "name": "note", "type": "string", "nullable": true, "metadata": {} },
    ] } });
    w.post("/v1/tables", &new).await.ok();
    for n in 0..3 {
        write(&w, n * 1_000..(n + 1) * 1_000).await;
    }
    let get = async |query: &str, accept: &str| {
        let answer = w
            .ask(Method::GET, &format!("/v1/tables/a.t/rows{query}"), &[("accept", accept)], None)
            .await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        assert_eq!(answer.headers["content-type"], accept);
        answer
    };
    let ndjson = get("?where=id%20%3C%204", "application/x-ndjson").await;
    assert_eq!(ndjson.headers["delta-table-version"], "3");
    let mut lines: Vec<Value> =
        ndjson.text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    lines.sort_by_key(|line| line["id"].as_i64());
    assert_eq!(lines[0], json!({ "id": 0, "note": null }));
    assert_eq!(lines[1], json!({ "id": 1, "note": "n, \"1\"" }));
    assert_eq!(lines.len(), 4);
    let csv = get("?where=id%20%3D%201&columns=%22note%22,id", "text/csv").await;
    assert_eq!(csv.text, "note,id\n\"n, \"\"1\"\"\",1\n");
    assert_eq!(get("?where=id%20%3C%200&columns=id", "text/csv").await.text, "id\n");
    assert_eq!(get("?where=id%20%3C%200", "application/x-ndjson").await.text, "");

    let url = format!("http://{}/v1/tables/a.t/rows", w.address);
    let arrow = async |query: &str| {
        let bytes =
            w.client.get(format!("{url}{query}")).send().await.unwrap().bytes().await.unwrap();
        let reader = StreamReader::try_new(&bytes[..], None).unwrap();
        let schema = reader.schema();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        concat_batches(&schema, &batches).unwrap()
    };
    let all = arrow("").await;
    assert_eq!((all.num_rows(), all.num_columns()), (3_000, 2));
    let sum: i64 = all.column(0).as_primitive::<Int64Type>().iter().flatten().sum();
    assert_eq!(sum, (0..3_000).sum::<i64>());
    assert_eq!(arrow("?version=1").await.num_rows(), 1_000);
    assert_eq!(arrow("?version=0").await.num_rows(), 0);
    assert_eq!(arrow("?limit=7&columns=id").await.num_rows(), 7);

    for (query, status, code) in [
        ("?columns=nobody", 400, "invalid_input"),
        ("?columns=", 400, "invalid_input"),
        ("?columns=id,id", 400, "invalid_input"),
        ("?where=nobody%20%3D%201", 400, "invalid_input"),
        ("?where=id%20%3D%201)%20OR%20(1%3D1", 400, "invalid_input"),
        ("?where=id%20IN%20(SELECT%201)", 400, "invalid_input"),
        ("?version=9", 404, "version_not_found"),
    ] {
        let answer = w.get(&format!("/v1/tables/a.t/rows{query}")).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (status, &json!(code)),
            "{query}: {answer:?}"
        );
    }
    let image = w.ask(Method::GET, "/v1/tables/a.t/rows", &[("accept", "image/png")], None).await;
    image.problem(406, "not_acceptable");
}
