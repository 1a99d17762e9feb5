//! Rows of tables: written, deleted, updated, in transactions.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use arrow::array::{RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_pyarrow::PyArrowType;
use deltalakedb::core::catalog::CommitReport;
use deltalakedb::deltalake::deltalake::datafusion::catalog::streaming::StreamingTable;
use deltalakedb::deltalake::deltalake::datafusion::error::DataFusionError;
use deltalakedb::deltalake::deltalake::datafusion::execution::{
    SendableRecordBatchStream, TaskContext,
};
use deltalakedb::deltalake::deltalake::datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use deltalakedb::deltalake::deltalake::datafusion::physical_plan::streaming::PartitionStream;
use deltalakedb::deltalake::{LOCATION, Transaction, explain, fit};
use deltalakedb::mirror::publish::PublisherConfig;
use deltalakedb::mirror::store::normalize_location;
use deltalakedb::rows::{self, Mode, NewColumns, Words, Write, has_void, quoted};
use deltalakedb::{
    CatalogError, CommitToken, Db, MirrorMode, TableId, TableName, TableRef, TableState,
};
use futures::stream;
use pyo3::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::catalog::Shared;
use crate::failure::{Failure, Result, SCHEMA_MISMATCH};
use crate::kept::Kept;
use crate::runtime::{Effect, wait};
use crate::table::json_text;

/// How options are called in Python.
const WORDS: Words = Words { merge: "schema_mode=\"merge\"", replace_where: "predicate" };
/// Batches that wait to be written.
const WAITING: usize = 2;

/// Rows of a producer of Python's, which is asked once.
type Source = Box<dyn RecordBatchReader + Send>;

struct Once {
    schema: SchemaRef,
    source: StdMutex<Option<Source>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).take();
        let schema = Arc::clone(&self.schema);
        let (sender, receiver) = tokio::sync::mpsc::channel(WAITING);
        tokio::task::spawn_blocking(move || {
            let Some(source) = source else {
                let text = "the rows can be read once only: give a table in place of a stream";
                let _ = sender.blocking_send(Err(DataFusionError::Execution(text.to_owned())));
                return;
            };
            for batch in source {
                let batch = batch.and_then(|batch| with_schema(&batch, &schema));
                let batch = batch.map_err(|error| {
                    DataFusionError::Execution(format!(
                        "reading the rows to write failed: {}",
                        plain(&error)
                    ))
                });
                let last = batch.is_err();
                if sender.blocking_send(batch).is_err() || last {
                    return;
                }
            }
        });
        let batches = stream::unfold(receiver, |mut receiver| async move {
            receiver
                .recv()
                .await
                .map(|batch: Result<RecordBatch, DataFusionError>| (batch, receiver))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// Columns without what pandas and others write beside them: a table's schema has no place for it.
fn without_metadata(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter();
    let plain = fields.map(|field| field.as_ref().clone().with_metadata(HashMap::new()));
    Arc::new(Schema::new(plain.collect::<Vec<_>>()))
}

fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
}

/// What the producer said, without the names of layers.
fn plain(error: &ArrowError) -> String {
    match error {
        ArrowError::CDataInterface(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How rows are written.
#[derive(Debug)]
struct Options {
    mode: String,
    schema_mode: Option<String>,
    predicate: Option<String>,
    partition_by: Vec<String>,
    properties: BTreeMap<String, String>,
    location: Option<String>,
    storage_options: BTreeMap<String, String>,
    target_file_size: Option<u64>,
}

/// What a call did.
#[derive(Debug, Serialize)]
struct Done {
    /// None for what is committed with its transaction.
    commit: Option<Value>,
    metrics: Value,
    warnings: Vec<String>,
}

/// Tables of one commit.
#[pyclass(frozen, module = "deltalakedb._internal")]
pub(crate) struct NativeTransaction {
    shared: Arc<Shared>,
    open: Kept<Arc<Mutex<Option<Transaction>>>>,
    db: Kept<Db>,
    token: Option<String>,
    publish: bool,
}

/// Begins a transaction.
#[pyfunction]
pub(crate) fn begin(
    py: Python<'_>,
    catalog: PyRef<'_, crate::native::NativeCatalog>,
    token: Option<String>,
    publish: bool,
) -> PyResult<NativeTransaction> {
    if let Some(token) = &token {
        CommitToken::new(token).map_err(|e| Failure::invalid(e.to_string()).raise(py))?;
    }
    let shared = Arc::clone(catalog.shared());
    let db = shared.db(py)?;
    let transaction = db.transaction();
    Ok(NativeTransaction {
        shared,
        open: Kept::new(Arc::new(Mutex::new(Some(transaction)))),
        db: Kept::new(db),
        token,
        publish,
    })
}

impl NativeTransaction {
    fn parts(&self, py: Python<'_>) -> PyResult<(Db, Arc<Mutex<Option<Transaction>>>)> {
        let parts = self.db.get().and_then(|db| Ok((db.clone(), Arc::clone(self.open.get()?))));
        parts.map_err(|failure| failure.raise(py))
    }
}

fn ended() -> Failure {
    Failure::invalid("the transaction has ended: begin another one with catalog.transaction()")
}

#[pymethods]
impl NativeTransaction {
    /// What the token was committed for before, as JSON.
    fn replayed(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let Some(token) = self.token.clone() else { return Ok(None) };
        let (db, _) = self.parts(py)?;
        wait(py, Effect::Reads, async move {
            let token = CommitToken::new(&token).map_err(|e| Failure::invalid(e.to_string()))?;
            let Some(tables) = db.resolve(&token).await? else { return Ok(None) };
            let report = CommitReport { token, replayed: true, attempts: 0, tables };
            json_text(&commit_view(&db, &report).await?).map(Some)
        })
    }

    /// Writes rows. JSON of the metrics, or none if nothing was to be done.
    #[allow(clippy::too_many_arguments)]
    fn write(
        &self,
        py: Python<'_>,
        table: &str,
        data: PyArrowType<arrow::ffi_stream::ArrowArrayStreamReader>,
        mode: String,
        schema_mode: Option<String>,
        predicate: Option<String>,
        partition_by: Vec<String>,
        properties: BTreeMap<String, String>,
        location: Option<String>,
        storage_options: BTreeMap<String, String>,
        target_file_size: Option<u64>,
    ) -> PyResult<Option<String>> {
        let options = Options {
            mode,
            schema_mode,
            predicate,
            partition_by,
            properties,
            location,
            storage_options,
            target_file_size,
        };
        let (db, open) = self.parts(py)?;
        let name = table.to_owned();
        wait(py, Effect::Writes, async move {
            let open = open.lock().await;
            let transaction = open.as_ref().ok_or_else(ended)?;
            let name: TableName = name_of(&db, &name).await?;
            let written = write(&db, transaction, &name, Box::new(data.0), options).await;
            let written = written.map_err(|failure| failure.of_table(&name.to_string()))?;
            written.map(|metrics| json_text(&metrics)).transpose()
        })
    }

    /// Deletes rows. JSON of the metrics.
    fn delete(&self, py: Python<'_>, table: &str, predicate: Option<String>) -> PyResult<String> {
        let (db, open) = self.parts(py)?;
        let table = table.to_owned();
        wait(py, Effect::Writes, async move {
            let open = open.lock().await;
            let transaction = open.as_ref().ok_or_else(ended)?;
            let (name, table) = existing(&db, transaction, &table).await?;
            let metrics = rows::delete(&name, table, "predicate", predicate.as_deref()).await;
            let metrics = metrics.map_err(|e| Failure::from(e).of_table(&name.to_string()))?;
            json_text(&metrics)
        })
    }

    /// Updates rows. JSON of the metrics.
    fn update(
        &self,
        py: Python<'_>,
        table: &str,
        updates: Vec<(String, String)>,
        predicate: Option<String>,
    ) -> PyResult<String> {
        let (db, open) = self.parts(py)?;
        let table = table.to_owned();
        wait(py, Effect::Writes, async move {
            let open = open.lock().await;
            let transaction = open.as_ref().ok_or_else(ended)?;
            let (name, table) = existing(&db, transaction, &table).await?;
            let of_table = |e| Failure::from(e).of_table(&name.to_string());
            let schema = rows::schema(&name, &table).map_err(of_table)?;
            let values: Vec<(String, String)> = updates
                .into_iter()
                .map(|(column, value)| (column_path(&schema, &column), value))
                .collect();
            let rows = ("predicate", predicate.as_deref());
            let metrics = rows::update(&name, table, ("updates", &values), rows).await;
            json_text(&metrics.map_err(of_table)?)
        })
    }

    /// Commits. JSON of the commit, and of warnings; of none if nothing was done.
    fn commit(&self, py: Python<'_>) -> PyResult<String> {
        let (db, open) = self.parts(py)?;
        let (token, publish) = (self.token.clone(), self.publish);
        let config = self.shared.publisher();
        wait(py, Effect::Writes, async move {
            let transaction = open.lock().await.take().ok_or_else(ended)?;
            let token = token.as_deref().map(CommitToken::new).transpose();
            let token = token.map_err(|e| Failure::invalid(e.to_string()))?;
            let report = match transaction.commit_as(token).await {
                Ok(report) => report,
                Err(error) => return Err(named(&db, error.into()).await),
            };
            let Some(report) = report else {
                return json_text(&Done { commit: None, metrics: json!({}), warnings: Vec::new() });
            };
            let ids: Vec<TableId> = report.tables.iter().map(|table| table.table_id).collect();
            let warnings = if publish { published(&db, config, &ids).await } else { Vec::new() };
            let commit = Some(commit_view(&db, &report).await?);
            json_text(&Done { commit, metrics: json!({}), warnings })
        })
    }

    /// Ends it without a commit.
    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        let (_, open) = self.parts(py)?;
        wait(py, Effect::Reads, async move {
            drop(open.lock().await.take());
            Ok(())
        })
    }
}

/// A commit as Python gets it.
pub(crate) async fn commit_view(db: &Db, report: &CommitReport) -> Result<Value> {
    let mut tables = Vec::with_capacity(report.tables.len());
    for written in &report.tables {
        let record = db.catalog().table(&TableRef::Id(written.table_id)).await?;
        tables.push(json!({
            "table": record.name.to_string(),
            "id": written.table_id,
            "version": written.version,
            "timestamp_ms": written.timestamp,
        }));
    }
    Ok(json!({
        "token": report.token.as_str(),
        "replayed": report.replayed,
        "attempts": report.attempts,
        "tables": tables,
    }))
}

/// Publishes tables right after a commit. What goes wrong is told: the commit stands.
pub(crate) async fn published(db: &Db, config: PublisherConfig, tables: &[TableId]) -> Vec<String> {
    let publisher = db.publisher(config);
    let mut warnings = Vec::new();
    for id in tables {
        let name = match db.catalog().table(&TableRef::Id(*id)).await {
            Ok(table) if table.mirror == MirrorMode::Off => continue,
            Ok(table) => table.name.to_string(),
            Err(_) => id.to_string(),
        };
        let trouble = match publisher.run_once(Some(*id)).await {
            Err(error) => error.to_string(),
            Ok(report) => match report.failures.first() {
                Some(issue) => issue.error.clone(),
                None => continue,
            },
        };
        warnings.push(format!(
            "the commit to '{name}' stands, and is not published yet: {trouble}. Table.publish() or a \
             worker (`dl mirror run`) catches up"
        ));
    }
    warnings
}

/// A failure that names its table, if it had but an id.
async fn named(db: &Db, failure: Failure) -> Failure {
    let id = failure.table().map(str::to_owned).unwrap_or_default();
    let Ok(TableRef::Id(table)) = id.parse::<TableRef>() else { return failure };
    match db.catalog().table(&TableRef::Id(table)).await {
        Ok(record) => failure.with_name(&id, &record.name.to_string()),
        Err(_) => failure,
    }
}

/// The name of a table. One that is named by its id must be there: its name may be another table's by now.
async fn name_of(db: &Db, text: &str) -> Result<TableName> {
    match text.parse::<TableRef>().map_err(|e| Failure::invalid(e.to_string()))? {
        TableRef::Name(name) => Ok(name),
        TableRef::Id(id) => {
            let record = db.clone().on_primary().catalog().table(&TableRef::Id(id)).await?;
            if record.state == TableState::Dropped {
                return Err(CatalogError::TableNotFound(record.name.to_string()).into());
            }
            Ok(record.name)
        }
    }
}

/// A table that is there, opened in the transaction.
async fn existing(
    db: &Db,
    transaction: &Transaction,
    text: &str,
) -> Result<(TableName, deltalakedb::deltalake::deltalake::DeltaTable)> {
    let name = name_of(db, text).await?;
    let failed = |failure: Failure| failure.of_table(&name.to_string());
    let opened = transaction.table(&name).await;
    let opened = opened.map_err(|e| failed(explain::operation(&name, e).into()))?;
    if opened.version().is_none() {
        return Err(CatalogError::TableNotFound(name.to_string()).into());
    }
    let table = TableRef::Name(name.clone());
    db.refuse_frozen_table(&table).await.map_err(|e| failed(e.into()))?;
    Ok((name, opened))
}

/// A column as SQL takes it: by its whole name, else a path with dots.
fn column_path(schema: &Schema, column: &str) -> String {
    if schema.field_with_name(column).is_ok() || column.starts_with('"') {
        return if column.starts_with('"') { column.to_owned() } else { quoted(column) };
    }
    column.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

async fn write(
    db: &Db,
    transaction: &Transaction,
    name: &TableName,
    source: Source,
    options: Options,
) -> Result<Option<Value>> {
    let schema_mode = match options.schema_mode.as_deref() {
        None => None,
        Some("merge") => Some(NewColumns::Merge),
        Some("overwrite") => Some(NewColumns::Overwrite),
        Some(other) => {
            return Err(Failure::invalid(format!(
                "schema_mode must be \"merge\" or \"overwrite\", and is \"{other}\""
            )));
        }
    };
    let mode = match options.mode.as_str() {
        "append" | "error" | "ignore" => Mode::Append,
        "overwrite" => Mode::Overwrite,
        other => {
            return Err(Failure::invalid(format!(
                "mode must be \"append\", \"overwrite\", \"error\" or \"ignore\", and is \"{other}\""
            )));
        }
    };
    if mode != Mode::Overwrite {
        if options.predicate.is_some() {
            return Err(Failure::invalid("predicate goes with mode=\"overwrite\""));
        }
        if schema_mode == Some(NewColumns::Overwrite) {
            return Err(Failure::invalid("schema_mode=\"overwrite\" goes with mode=\"overwrite\""));
        }
    }
    let mut at = options.storage_options;
    if let Some(location) = &options.location {
        at.insert(LOCATION.to_owned(), normalize_location(location)?);
    }
    let opened = transaction.table_with(name, at).await;
    let table = opened.map_err(|e| explain::operation(name, e))?;
    if table.version().is_some() {
        match options.mode.as_str() {
            "ignore" => return Ok(None),
            "error" => return Err(CatalogError::TableExists(name.clone()).into()),
            _ => db.refuse_frozen_table(&TableRef::Name(name.clone())).await?,
        }
        same_partitions(name, &table, &options.partition_by)?;
    }
    let there = match table.version() {
        Some(_) => Some(rows::schema(name, &table)?),
        None => None,
    };
    let base = if schema_mode == Some(NewColumns::Overwrite) { None } else { there.as_deref() };
    let columns = without_metadata(&source.schema());
    fits(name, &columns, there.as_deref(), base, schema_mode)?;
    let once = Once { schema: Arc::clone(&columns), source: StdMutex::new(Some(source)) };
    let provider =
        StreamingTable::try_new(columns, vec![Arc::new(once)]).map_err(explain::query)?;
    let frame = db.queries().session().read_table(Arc::new(provider)).map_err(explain::query)?;
    let write = Write {
        rows: frame,
        mode,
        replace_where: options.predicate,
        schema_mode,
        base: base.cloned(),
        partition_by: if there.is_some() { Vec::new() } else { options.partition_by },
        properties: options.properties,
        target_file_size: options.target_file_size.and_then(NonZeroU64::new),
        words: WORDS,
    };
    Ok(Some(write.into_table(name, table).await?.metrics))
}

fn same_partitions(
    name: &TableName,
    table: &deltalakedb::deltalake::deltalake::DeltaTable,
    asked: &[String],
) -> Result<()> {
    let state = table.snapshot().map_err(|e| explain::operation(name, e))?;
    let have = state.metadata().partition_columns();
    if asked.is_empty() || asked == have {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "table '{name}' is partitioned by ({}), not by ({})",
        have.join(", "),
        asked.join(", ")
    )))
}

/// Rows fit their table by the names and types of their columns.
fn fits(
    name: &TableName,
    columns: &Schema,
    table: Option<&Schema>,
    base: Option<&Schema>,
    schema_mode: Option<NewColumns>,
) -> Result<()> {
    let bad = |text: String| {
        Err(Failure::invalid(format!("table '{name}', {text}")).with_code(SCHEMA_MISMATCH))
    };
    if columns.fields().is_empty() {
        return bad("the rows have no columns".to_owned());
    }
    for (index, field) in columns.fields().iter().enumerate() {
        let column = field.name();
        if columns.fields()[..index].iter().any(|other| other.name() == column) {
            return bad(format!("two columns of the rows are called '{column}': rename one"));
        }
        let known = base.and_then(|base| base.field_with_name(column).ok());
        if known.is_none_or(|known| has_void(known.data_type())) && has_void(field.data_type()) {
            return bad(format!(
                "column '{column}' has no values, so that nothing says what its type is: give it \
                 one (pyarrow: .cast(…), polars: .cast(pl.String), pandas: .astype(…)), make the table \
                 with a schema first, or leave the column out"
            ));
        }
    }
    if let (Some(table), None) = (table, schema_mode) {
        rows::same_columns(name, table, columns, WORDS)
            .map_err(|error| Failure::from(error).with_code(SCHEMA_MISMATCH))?;
    }
    let merge = schema_mode == Some(NewColumns::Merge);
    match fit::target(columns, base, merge) {
        Ok(_) => Ok(()),
        Err(misfit) => bad(misfit.to_string()),
    }
}
