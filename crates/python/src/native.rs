//! What Python asks of a catalog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::Schema;
use arrow_pyarrow::PyArrowType;
use deltalakedb::core::fence;
use deltalakedb::core::model::TableState;
use deltalakedb::core::schema::StructType;
use deltalakedb::deltalake::fit;
use deltalakedb::mirror::diff::{DiffOptions, Verdict, diff};
use deltalakedb::mirror::import::{ImportOptions, import_table};
use deltalakedb::mirror::ownership::{cutover, refuse_foreign};
use deltalakedb::mirror::publish::wait_published;
use deltalakedb::mirror::vacuum::{VacuumOptions, vacuum};
use deltalakedb::watching::METRICS;
use deltalakedb::{
    At, CacheKind, CatalogError, CommitFilter, CommitRecord, Db, IntoTableRef, MirrorMode,
    NoProgress, TableFilter, TableRecord, TableRef, TimestampMs, Version,
};
use futures::TryStreamExt;
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::catalog::Shared;
use crate::commits::{commit_view, published};
use crate::failure::{Failure, Result, SCHEMA_MISMATCH, TIMEOUT};
use crate::rows::NativeRows;
use crate::runtime::{Effect, on_own_thread, wait};
use crate::table::{NativeTable, json_text, query, snapshot};

/// Unpublished versions that are shown.
const SHOWN: usize = 100;

/// A catalog.
#[pyclass(frozen, module = "deltalakedb._internal")]
pub(crate) struct NativeCatalog {
    shared: Arc<Shared>,
}

impl NativeCatalog {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// The catalog of a table's URL, and the table's name in it.
#[pyfunction]
pub(crate) fn catalog_of_table(
    py: Python<'_>,
    url: &str,
    user: Option<&str>,
    settings: BTreeMap<String, String>,
) -> PyResult<(NativeCatalog, String)> {
    let (shared, table) =
        Shared::of_table(url, user, &settings).map_err(|failure| failure.raise(py))?;
    Ok((NativeCatalog { shared }, table))
}

fn table_ref(text: &str) -> Result<TableRef> {
    Ok(text.into_table_ref()?)
}

fn record_view(record: &TableRecord) -> Value {
    json!({
        "table": record.name.to_string(),
        "namespace": record.name.namespace(),
        "name": record.name.name(),
        "id": record.id,
        "location": record.location,
        "state": record.state,
        "version": record.head,
        "timestamp_ms": record.head_timestamp,
        "created_at_ms": record.created_at,
        "dropped_at_ms": record.dropped_at,
        "first_version": record.base_version,
        "mirror": record.mirror,
        "published_version": record.published_version,
    })
}

/// As `deltalake` tells it: what the commit says, and its version.
fn commit_line(record: &CommitRecord) -> Value {
    let said = record.commit_info.as_deref().map(serde_json::from_str::<Value>);
    let mut line = match said {
        Some(Ok(Value::Object(map))) => map,
        _ => serde_json::Map::new(),
    };
    line.insert("version".to_owned(), json!(record.version));
    line.insert("timestamp".to_owned(), json!(record.timestamp));
    line.insert(
        "token".to_owned(),
        json!(record.token.as_ref().map(deltalakedb::CommitToken::as_str)),
    );
    for (key, value) in [
        ("files_added", record.num_added),
        ("files_removed", record.num_removed),
        ("bytes_added", record.bytes_added),
        ("bytes_removed", record.bytes_removed),
    ] {
        line.insert(key.to_owned(), json!(value));
    }
    Value::Object(line)
}

#[pymethods]
impl NativeCatalog {
    #[new]
    fn new(
        py: Python<'_>,
        url: Option<&str>,
        create: bool,
        user: Option<&str>,
        settings: BTreeMap<String, String>,
    ) -> PyResult<NativeCatalog> {
        let shared =
            Shared::new(url, create, user, &settings).map_err(|failure| failure.raise(py))?;
        Ok(NativeCatalog { shared })
    }

    /// Where it is, without a password.
    #[getter]
    fn url(&self) -> String {
        self.shared.uri().to_string()
    }

    /// Opens it.
    fn open(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.db(py).map(drop)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.close(py)
    }

    /// Milliseconds that the database took to answer.
    fn ping(&self, py: Python<'_>, limit_s: f64) -> PyResult<f64> {
        let limit = seconds("timeout", limit_s).map_err(|failure| failure.raise(py))?;
        let db = self.shared.db(py)?;
        wait(py, Effect::Reads, async move {
            let took = db.ping(limit).await.map_err(late)?;
            Ok(took.as_secs_f64() * 1_000.0)
        })
    }

    fn tables(&self, py: Python<'_>, namespace: Option<String>, dropped: bool) -> PyResult<String> {
        let db = self.shared.db(py)?;
        wait(py, Effect::Reads, async move {
            let state = dropped.then_some(TableState::Dropped);
            let tables = db.tables(TableFilter { namespace, state });
            let views: Vec<Value> =
                tables.map_ok(|record| record_view(&record)).try_collect().await?;
            json_text(&views)
        })
    }

    fn record(&self, py: Python<'_>, table: &str) -> PyResult<String> {
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        wait(py, Effect::Reads, async move {
            let record = db.catalog().table(&table_ref(&table)?).await;
            json_text(&record_view(&record.map_err(|e| Failure::from(e).of_table(&table))?))
        })
    }

    fn table(
        &self,
        py: Python<'_>,
        table: &str,
        version: Option<i64>,
        timestamp_ms: Option<i64>,
    ) -> PyResult<NativeTable> {
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        let found = wait(py, Effect::Reads, async move {
            snapshot(db.catalog(), &table, version, timestamp_ms).await
        })?;
        Ok(NativeTable { shared: Arc::clone(&self.shared), snapshot: found })
    }

    #[allow(clippy::too_many_arguments)]
    fn create_table(
        &self,
        py: Python<'_>,
        name: &str,
        location: &str,
        columns: Option<String>,
        schema: Option<PyArrowType<Schema>>,
        partition_by: Vec<String>,
        description: Option<String>,
        properties: BTreeMap<String, String>,
        storage_options: BTreeMap<String, String>,
        mirror: bool,
        fence: bool,
        token: Option<String>,
        publish: bool,
    ) -> PyResult<String> {
        let schema = match (schema, columns) {
            (Some(schema), _) => delta_schema(&schema.0),
            (None, Some(text)) => StructType::from_text(&text).map_err(Failure::from),
            (None, None) => Err(Failure::invalid("a table needs a schema")),
        };
        let schema = schema.map_err(|failure| failure.of_table(name).raise(py))?;
        let db = self.shared.db(py)?;
        let config = self.shared.publisher();
        let mut table = db
            .create_table(name)
            .location(location)
            .schema(schema)
            .partition_by(partition_by)
            .mirror(mirror)
            .fence(fence);
        if let Some(text) = description {
            table = table.description(text);
        }
        for (key, value) in properties {
            table = table.property(key, value);
        }
        for (key, value) in storage_options {
            table = table.storage_option(key, value);
        }
        if let Some(token) = token {
            table = table.token(token);
        }
        let name = name.to_owned();
        wait(py, Effect::Writes, async move {
            let made = table.commit().await.map_err(|e| Failure::from(e).of_table(&name));
            let (table, report) = made?;
            let warnings =
                if publish { published(&db, config, &[table.id()]).await } else { Vec::new() };
            json_text(&json!({ "commit": commit_view(&db, &report).await?, "warnings": warnings }))
        })
    }

    fn drop_table(&self, py: Python<'_>, table: &str) -> PyResult<String> {
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        wait(py, Effect::Writes, async move {
            let dropped = db.drop_table(&table_ref(&table)?).await;
            json_text(&record_view(&dropped.map_err(|e| Failure::from(e).of_table(&table))?))
        })
    }

    fn undrop(&self, py: Python<'_>, table: &str, name: Option<&str>) -> PyResult<String> {
        let name = name.map(str::parse).transpose();
        let name = name.map_err(|e: deltalakedb::core::ids::InvalidId| {
            Failure::invalid(e.to_string()).raise(py)
        })?;
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        wait(py, Effect::Writes, async move {
            let record = db.undrop_table(&table_ref(&table)?, name).await;
            json_text(&record_view(&record.map_err(|e| Failure::from(e).of_table(&table))?))
        })
    }

    #[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)]
    fn import_table(
        &self,
        py: Python<'_>,
        location: &str,
        name: &str,
        storage_options: BTreeMap<String, String>,
        up_to_version: Option<i64>,
        mirror: bool,
        dry_run: bool,
        resume: bool,
        restart: bool,
        checkpoint_only: bool,
        skip_validation: bool,
    ) -> PyResult<String> {
        let db = self.shared.db(py)?;
        let (location, name) = (location.to_owned(), name.to_owned());
        wait(py, Effect::Writes, async move {
            let table = name.parse().map_err(CatalogError::from)?;
            let published = mirror && up_to_version.is_none();
            let options = ImportOptions {
                storage_options,
                dry_run,
                up_to_version: up_to_version
                    .map(Version::new)
                    .transpose()
                    .map_err(CatalogError::from)?,
                checkpoint_only,
                skip_validation,
                mirror: if published { MirrorMode::Active } else { MirrorMode::Off },
                resume,
                restart,
                ..ImportOptions::new(table, location)
            };
            let report =
                on_own_thread(
                    move || async move { Ok(import_table(&db, options, &NoProgress).await?) },
                );
            json_text(&report.await.map_err(|failure| failure.of_table(&name))?)
        })
    }

    /// Changes a table's metadata: pairs of a change and its arguments. JSON of the commit, if there was one.
    fn alter(
        &self,
        py: Python<'_>,
        table: &str,
        changes: Vec<(String, Vec<String>)>,
        publish: bool,
    ) -> PyResult<String> {
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        let config = self.shared.publisher();
        wait(py, Effect::Writes, async move {
            let of_table = |e: CatalogError| Failure::from(e).of_table(&table);
            let opened = db.table(&table).await.map_err(of_table)?;
            let id = opened.id();
            let mut alter = opened.alter();
            for (change, arguments) in &changes {
                alter = match (change.as_str(), arguments.as_slice()) {
                    ("description", [text]) => alter.description(text),
                    ("set_property", [key, value]) => alter.set_property(key, value),
                    ("unset_property", [key]) => alter.unset_property(key),
                    ("comment", [column, text]) => alter.comment(column, text),
                    ("add_column", [text]) => alter.add_column(text),
                    ("rename_column", [column, name]) => alter.rename_column(column, name),
                    ("drop_column", [column]) => alter.drop_column(column),
                    ("set_nullable", [column]) => alter.set_nullable(column),
                    ("add_constraint", [name, text]) => alter.add_constraint(name, text),
                    ("drop_constraint", [name]) => alter.drop_constraint(name),
                    _ => return Err(Failure::invalid(format!("there is no change '{change}'"))),
                };
            }
            let Some(report) = alter.commit().await.map_err(of_table)? else {
                return json_text(&json!({ "commit": null, "warnings": [] }));
            };
            let warnings = if publish { published(&db, config, &[id]).await } else { Vec::new() };
            json_text(&json!({ "commit": commit_view(&db, &report).await?, "warnings": warnings }))
        })
    }

    /// Commits, newest first.
    fn history(&self, py: Python<'_>, table_id: &str, limit: Option<usize>) -> PyResult<String> {
        let (db, id) = (self.shared.db(py)?, table_id.to_owned());
        wait(py, Effect::Reads, async move {
            let id = id.parse().map_err(CatalogError::from)?;
            let mut commits = db.history(id, CommitFilter::default());
            let mut lines = Vec::new();
            while limit.is_none_or(|limit| lines.len() < limit) {
                let Some(commit) = commits.try_next().await? else { break };
                lines.push(commit_line(&commit));
            }
            json_text(&lines)
        })
    }

    fn mirror_status(&self, py: Python<'_>, table: &str) -> PyResult<String> {
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        wait(py, Effect::Reads, async move {
            let db = db.on_primary();
            let record = db.catalog().table(&table_ref(&table)?).await?;
            let rows = db.backend().mirror_rows(Some(record.id), None, None, SHOWN).await;
            let rows = rows.map_err(CatalogError::from)?;
            let waiting: Vec<Value> = rows
                .items
                .iter()
                .map(|row| {
                    json!({
                        "version": row.version,
                        "attempts": row.attempts,
                        "last_error": row.last_error,
                        "retry_at_ms": row.retry_at,
                        "committed_at_ms": row.enqueued_at,
                    })
                })
                .collect();
            json_text(&json!({
                "table": record.name.to_string(),
                "mirror": record.mirror,
                "version": record.head,
                "published_version": record.published_version,
                "waiting": waiting,
            }))
        })
    }

    /// Publishes what waits. JSON of the report.
    fn publish(&self, py: Python<'_>, table: &str) -> PyResult<String> {
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        let config = self.shared.publisher();
        wait(py, Effect::Writes, async move {
            let record = db.catalog().table(&table_ref(&table)?).await?;
            let report = db.publisher(config).run_once(Some(record.id)).await?;
            let issues: Vec<Value> = report
                .failures
                .iter()
                .map(|issue| json!({ "version": issue.version, "error": issue.error }))
                .collect();
            json_text(&json!({
                "published": report.published,
                "checkpoints": report.checkpoints,
                "unpublished": report.unpublished,
                "failures": issues,
            }))
        })
    }

    fn wait_published(
        &self,
        py: Python<'_>,
        table: &str,
        version: i64,
        timeout_s: f64,
    ) -> PyResult<String> {
        let limit = seconds("timeout", timeout_s).map_err(|failure| failure.raise(py))?;
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        wait(py, Effect::Reads, async move {
            let version = Version::new(version).map_err(CatalogError::from)?;
            let waited = wait_published(&db, &table_ref(&table)?, Some(version), Some(limit)).await;
            json_text(&waited.map_err(|e| late(e).of_table(&table))?)
        })
    }

    /// Looks for files that nothing needs, and deletes them if told to. JSON of the report.
    fn vacuum(
        &self,
        py: Python<'_>,
        table: &str,
        retention_ms: Option<i64>,
        accept_short: bool,
        keep_versions: Vec<i64>,
        delete: bool,
    ) -> PyResult<String> {
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        wait(py, Effect::Writes, async move {
            let keep = keep_versions.into_iter().map(Version::new).collect::<Result<Vec<_>, _>>();
            let options = VacuumOptions {
                retention_ms,
                accept_short,
                keep_versions: keep.map_err(CatalogError::from)?,
                ignore_other_tables: false,
                delete,
            };
            let id = table_ref(&table)?;
            let report =
                on_own_thread(
                    move || async move { Ok(vacuum(&db, &id, options, &NoProgress).await?) },
                );
            json_text(&report.await.map_err(|failure| failure.of_table(&table))?)
        })
    }

    fn diff(&self, py: Python<'_>, table: &str) -> PyResult<String> {
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        wait(py, Effect::Reads, async move {
            let report = diff(&db, &table_ref(&table)?, DiffOptions::default(), &NoProgress).await;
            json_text(&report.map_err(|e| Failure::from(e).of_table(&table))?)
        })
    }

    fn sql(&self, py: Python<'_>, text: &str) -> PyResult<NativeRows> {
        let db = self.shared.db(py)?;
        query(py, db, text.to_owned())
    }

    /// Keeps writers out that do not go through the catalog. JSON of the report.
    fn cutover(
        &self,
        py: Python<'_>,
        table: &str,
        skip_diff: bool,
        publish: bool,
    ) -> PyResult<String> {
        let (db, table) = (self.shared.db(py)?, table.to_owned());
        let config = self.shared.publisher();
        wait(py, Effect::Writes, async move {
            let named = table_ref(&table)?;
            let record = db.clone().on_primary().catalog().table(&named).await?;
            let name = record.name.to_string();
            let told = |failure: Failure| failure.with_name(&table, &name);
            if !skip_diff {
                agrees(&db, &record).await.map_err(told)?;
            }
            let report = cutover(&db, &named).await.map_err(|e| told(e.into()))?;
            let warnings =
                if publish { published(&db, config, &[report.table_id]).await } else { Vec::new() };
            json_text(&json!({
                "table": report.name.to_string(),
                "version": report.version,
                "warnings": warnings,
            }))
        })
    }

    /// All numbers of operation as JSON.
    fn metrics(&self, py: Python<'_>) -> PyResult<String> {
        let db = self.shared.db(py)?;
        let numbers = db.metrics();
        let kinds: BTreeMap<&str, &deltalakedb::KindStats> =
            CacheKind::ALL.iter().map(|kind| kind.label()).zip(&numbers.cache.kinds).collect();
        let cache = json!({
            "kinds": kinds,
            "weight_bytes": numbers.cache.weight_bytes,
            "capacity_bytes": numbers.cache.capacity_bytes,
        });
        json_text(&json!({
            "measured": numbers.measured,
            "pool": numbers.pool,
            "cache": cache,
            "cache_hit_ratio": numbers.cache_hit_ratio,
        }))
        .map_err(|failure| failure.raise(py))
    }

    fn pool_stats(&self, py: Python<'_>) -> PyResult<Option<BTreeMap<&'static str, u64>>> {
        let db = self.shared.db(py)?;
        Ok(db.pool_stats().map(|pool| {
            BTreeMap::from([
                ("limit", pool.limit),
                ("active", pool.active),
                ("idle", pool.idle),
                ("waits_total", pool.waits_total),
                ("wait_us_total", pool.wait_us_total),
            ])
        }))
    }

    fn cache_stats(&self, py: Python<'_>) -> PyResult<String> {
        let stats = self.shared.db(py)?.cache_stats();
        let kinds: BTreeMap<String, Value> = CacheKind::ALL
            .iter()
            .zip(&stats.kinds)
            .map(|(kind, of)| {
                let name = format!("{kind:?}").to_ascii_lowercase();
                (name, json!({ "hits": of.hits, "misses": of.misses }))
            })
            .collect();
        let all = json!({
            "hits": stats.hits,
            "misses": stats.misses,
            "stale_hits": stats.stale_hits,
            "joined": stats.joined,
            "refreshed": stats.refreshed,
            "evictions": stats.evictions,
            "entries": stats.entries,
            "weight_bytes": stats.weight_bytes,
            "capacity_bytes": stats.capacity_bytes,
            "kinds": kinds,
        });
        json_text(&all).map_err(|failure| failure.raise(py))
    }

    /// Milliseconds since the epoch, by the clock that commits go by.
    fn now_ms(&self, py: Python<'_>) -> PyResult<i64> {
        let TimestampMs(ms) = self.shared.db(py)?.clock().now();
        Ok(ms)
    }
}

/// Whether a table's published log says what the catalog says.
async fn agrees(db: &Db, record: &TableRecord) -> Result<()> {
    let db = db.clone().on_primary();
    // The cut-over itself says what keeps it from such a table.
    if record.state != TableState::Active || record.mirror != MirrorMode::Active {
        return Ok(());
    }
    let by_id = TableRef::Id(record.id);
    let head = db.snapshot(&by_id, At::Head).await?;
    refuse_foreign(&db, record).await?;
    if fence::is_up(&head.protocol) {
        return Ok(());
    }
    let report = diff(&db, &by_id, DiffOptions::default(), &NoProgress).await?;
    if report.verdict != Verdict::Drift {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "the published log of '{}' is not what the catalog says, so that it is not cut over: \
         Table.diff() shows the differences, `dl repair` and `dl mirror reconcile` settle them, \
         skip_diff=True cuts over all the same",
        record.name
    )))
}

/// The metrics that there are, as JSON: name, kind, help.
#[pyfunction]
pub(crate) fn metric_names(py: Python<'_>) -> PyResult<String> {
    let all: Vec<Value> = METRICS
        .iter()
        .map(|m| json!({ "name": m.name, "kind": m.kind.label(), "help": m.help }))
        .collect();
    json_text(&all).map_err(|failure| failure.raise(py))
}

/// A limit of time.
fn seconds(option: &str, seconds: f64) -> Result<Duration> {
    let bad = || {
        Failure::invalid(format!("{option} must be seconds, from 0 to a year, and is {seconds}"))
    };
    let limit = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
    // A deadline must be a moment that clocks have.
    let year = Duration::from_secs(366 * 24 * 60 * 60);
    if limit > year || Instant::now().checked_add(limit).is_none() {
        return Err(bad());
    }
    Ok(limit)
}

/// What was not done within its limit is a timeout.
fn late(error: CatalogError) -> Failure {
    let failure = Failure::from(error);
    if failure.code() == "busy" { failure.with_code(TIMEOUT) } else { failure }
}

/// Columns of Arrow as a table has them.
fn delta_schema(schema: &Schema) -> Result<StructType> {
    let bad = |text: String| Failure::invalid(text).with_code(SCHEMA_MISMATCH);
    let mut fields = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let name = field.name();
        if deltalakedb::rows::has_void(field.data_type()) {
            return Err(bad(format!(
                "column '{name}' is of type null: give it the type of its values"
            )));
        }
        let kind = fit::delta_type(field.data_type())
            .map_err(|misfit| bad(format!("column '{name}': {}", misfit.what)))?;
        let kind = fit::to_delta(&kind)
            .ok_or_else(|| bad(format!("column '{name}': Delta has no type for {kind}")))?;
        fields.push(deltalakedb::StructField::new(name, kind, field.is_nullable()));
    }
    Ok(StructType { fields })
}
