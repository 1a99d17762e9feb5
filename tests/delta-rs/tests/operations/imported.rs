//! Tables that other engines wrote, imported: read through the catalog as they are read from their
//! files.

use std::path::{Path, PathBuf};

use deltalakedb::core::env::NoProgress;
use deltalakedb::core::model::MirrorMode;
use deltalakedb::deltalake::deltalake as delta;
use deltalakedb::mirror::import::{ImportOptions, import_table};
use deltalakedb::{CatalogUri, Db};
use futures::TryStreamExt;

use crate::shown::lines;
use delta::datafusion::common::{Column, ScalarValue};
use delta::datafusion::dataframe::DataFrame;
use delta::datafusion::logical_expr::Expr;
use delta::operations::collect_sendable_stream;
use delta::{DeltaTable, ensure_table_uri};

/// Folders with a log below a folder.
fn tables(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.join("_delta_log").is_dir() {
        found.push(folder.to_owned());
        return;
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries.iter().filter(|entry| entry.is_dir()) {
        tables(entry, found);
    }
}

/// A value with its fields in order: what columns say of themselves comes in that of a hash map.
fn sorted(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}:{}", sorted(value))).collect();
            fields.sort();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// What a reader gets of a table, or that it cannot read it.
async fn read(table: Result<DeltaTable, delta::DeltaTableError>) -> Result<String, String> {
    let mut table = table.map_err(|e| e.to_string())?;
    table.load().await.map_err(|e| e.to_string())?;
    let snapshot = table.snapshot().map_err(|e| e.to_string())?;
    let schema = serde_json::to_value(snapshot.schema().as_ref()).map_err(|e| e.to_string())?;
    let schema = sorted(&schema);
    let files = table.get_file_uris().map_err(|e| e.to_string())?.count();
    let (_, stream) = table.scan_table().await.map_err(|e| e.to_string())?;
    // Some of the tables have no data beside their logs.
    let rows = match collect_sendable_stream(stream).await {
        Ok(batches) => {
            let columns = batches.first().map(|batch| {
                let fields = batch.schema_ref().fields().iter();
                fields.map(|field| field.name().as_str()).collect::<Vec<_>>().join("|")
            });
            let rows = lines(&batches).map_err(|e| e.to_string())?;
            format!("{columns:?}\n{}", rows.join("\n"))
        }
        Err(_) => "no data".to_owned(),
    };
    let history: Vec<_> = table.history(None).try_collect().await.map_err(|e| e.to_string())?;
    let history: Vec<_> = history.into_iter().map(|commit| commit.operation).collect();
    let version = table.version();
    Ok(format!("version {version:?}\n{schema}\n{files} files\n{history:?}\n{rows}"))
}

/// Filters tried on a table, about.
const FILTERS: usize = 30;

/// Rows of a table in SQL through the catalog, beside those of its files: all of them, and with filters
/// by which the catalog leaves files out. How many filters.
async fn queried(db: &Db, name: &str, place: &str) -> Result<usize, String> {
    let text = |e: delta::datafusion::error::DataFusionError| e.to_string();
    let plain = delta::open_table(ensure_table_uri(place).unwrap()).await.unwrap();
    let plain = plain.table_provider().await.map_err(|e| e.to_string())?;
    let session = delta::delta_datafusion::create_session().into_inner();
    // Old timestamps (INT96) beyond 2262 are other moments otherwise.
    session.sql("SET datafusion.execution.parquet.coerce_int96 = 'us'").await.map_err(text)?;
    let plain = session.read_table(plain).map_err(text)?;
    let sql = db.queries().query(&format!("SELECT * FROM {name}")).await.map_err(text)?;
    let Ok(batches) = plain.clone().collect().await else { return Ok(0) };
    let got = sql.clone().collect().await.map_err(text)?;
    let [expected, got] = [&batches, &got].map(|batches| lines(batches).map_err(|e| e.to_string()));
    let (expected, got) = (expected?, got?);
    if expected != got {
        return Err(format!("{expected:?}\n{got:?}"));
    }
    let mut filters = Vec::new();
    for (index, field) in plain.schema().fields().iter().enumerate() {
        if field.data_type().is_nested() || filters.len() >= FILTERS {
            continue;
        }
        let column = || Expr::Column(Column::from_name(field.name()));
        filters.extend([column().is_null(), column().is_not_null()]);
        for batch in batches.iter().take(1) {
            for row in [batch.num_rows() / 2].into_iter().filter(|row| *row < batch.num_rows()) {
                let value = ScalarValue::try_from_array(batch.column(index), row).map_err(text)?;
                let value = || Expr::Literal(value.clone(), None);
                let ops = [Expr::eq, Expr::lt, Expr::gt_eq, Expr::not_eq];
                filters.extend(ops.map(|op| op(column(), value())));
            }
        }
    }
    for filter in &filters {
        let count = async |rows: &DataFrame| {
            rows.clone().filter(filter.clone()).map_err(text)?.count().await.map_err(text)
        };
        match (count(&plain).await, count(&sql).await) {
            (Ok(plain), Ok(sql)) if plain == sql => {}
            // Of some types no values are compared.
            (Err(_), Err(_)) => {}
            (plain, sql) => return Err(format!("{filter}: {plain:?} and {sql:?} rows")),
        }
    }
    Ok(filters.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_tables_are_read_as_their_files_are() {
    let Some(folder) = std::env::var_os("DL_DELTA_TABLES") else {
        deltalakedb_test_servers::skip(&["corpus"], "corpus folder absent, set DL_DELTA_TABLES");
        return;
    };
    deltalakedb::deltalake::register();
    let mut found = Vec::new();
    tables(Path::new(&folder), &mut found);
    assert!(found.len() > 30, "{} tables in {folder:?}", found.len());
    let dir = tempfile::tempdir().unwrap();
    let catalog = CatalogUri::sqlite(dir.path().join("catalog.db"));
    let db = Db::create(&catalog).await.unwrap();
    let (mut same, mut unread, mut filtered, mut wrong) = (0, 0, 0, Vec::new());
    for (i, table) in found.iter().enumerate() {
        let place = table.to_str().unwrap();
        let name = format!("corpus.t{i}");
        let mut options = ImportOptions::new(name.parse().unwrap(), place);
        options.mirror = MirrorMode::Off;
        if import_table(&db, options, &NoProgress).await.is_err() {
            continue;
        }
        let plain = read(delta::open_table(ensure_table_uri(place).unwrap()).await).await;
        let url = ensure_table_uri(format!("delta+sql://{catalog}/{name}")).unwrap();
        let sql = read(delta::open_table(url).await).await;
        match (plain, sql) {
            (Ok(plain), Ok(sql)) if plain == sql => {
                same += 1;
                match queried(&db, &name, place).await {
                    Ok(filters) => filtered += filters,
                    Err(error) => wrong.push(format!("{place}, in SQL: {error}")),
                }
            }
            (Err(_), Err(_)) => unread += 1,
            (plain, sql) => wrong.push(format!("{place}:\n{plain:?}\n{sql:?}")),
        }
    }
    println!(
        "{same} tables read the same, and with {filtered} filters; {unread} are not read from their \
         files either"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(same > 30 && filtered > 800, "{same} {filtered}");
}
