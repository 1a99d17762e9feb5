//! Rows of tables: written, deleted, updated, in transactions.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use arrow::array::{RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ffi_stream::ArrowArrayStreamReader;
use arrow_pyarrow::PyArrowType;
use deltalakedb::core::catalog::CommitReport;
use deltalakedb::deltalake::deltalake::datafusion::catalog::streaming::StreamingTable;
use deltalakedb::deltalake::deltalake::datafusion::dataframe::DataFrame;
use deltalakedb::deltalake::deltalake::datafusion::datasource::MemTable;
use deltalakedb::deltalake::deltalake::datafusion::error::DataFusionError;
use deltalakedb::deltalake::deltalake::datafusion::execution::{
    SendableRecordBatchStream, TaskContext,
};
use deltalakedb::deltalake::deltalake::datafusion::logical_expr::Expr;
use deltalakedb::deltalake::deltalake::datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use deltalakedb::deltalake::deltalake::datafusion::physical_plan::streaming::PartitionStream;
use deltalakedb::deltalake::deltalake::operations::merge::{
    DeleteBuilder, InsertBuilder, MergeBuilder, MergeMetrics, UpdateBuilder,
};
use deltalakedb::deltalake::deltalake::operations::optimize::OptimizeType;
use deltalakedb::deltalake::deltalake::{DeltaTable, DeltaTableError};
use deltalakedb::deltalake::{Expressions, LOCATION, Transaction, explain, fit};
use deltalakedb::mirror::store::normalize_location;
use deltalakedb::rows::{self, Mode, NewColumns, Words, Write, has_void, quoted};
use deltalakedb::{CatalogError, CommitToken, Db, TableId, TableName, TableRef, TableState};
use futures::stream;
use pyo3::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::catalog::Shared;
use crate::commits::{commit_view, published};
use crate::failure::{Failure, INTERNAL, QUERY, Result, SCHEMA_MISMATCH};
use crate::kept::Kept;
use crate::partitions::{Source, spooled};
use crate::rows::NativeRows;
use crate::runtime::{Effect, wait, wait_for_fork};
use crate::table::{json_text, stream_of};

/// How options are called in Python.
const WORDS: Words = Words { merge: "schema_mode=\"merge\"", replace_where: "predicate" };
/// Batches that wait to be written.
const WAITING: usize = 2;
/// The mode that replaces the partitions of the rows.
const PARTITIONS: &str = "overwrite_partitions";

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
struct Writing {
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
        wait_for_fork(py)?;
        let parts = self.db.get().and_then(|db| Ok((db.clone(), Arc::clone(self.open.get()?))));
        parts.map_err(|failure| failure.raise(py))
    }

    /// Works on a table that is there, opened in the transaction. Errors name it.
    fn on<T, F>(
        &self,
        py: Python<'_>,
        effect: Effect,
        table: &str,
        work: impl FnOnce(Db, TableName, DeltaTable) -> F + Send + 'static,
    ) -> PyResult<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (db, open) = self.parts(py)?;
        let table = table.to_owned();
        wait(py, effect, async move {
            let open = open.lock().await;
            let transaction = open.as_ref().ok_or_else(ended)?;
            let (name, table) = existing(&db, transaction, &table).await?;
            let told = name.to_string();
            work(db, name, table).await.map_err(|failure| failure.of_table(&told))
        })
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
        data: PyArrowType<ArrowArrayStreamReader>,
        mode: String,
        schema_mode: Option<String>,
        predicate: Option<String>,
        partition_by: Vec<String>,
        properties: BTreeMap<String, String>,
        location: Option<String>,
        storage_options: BTreeMap<String, String>,
        target_file_size: Option<u64>,
    ) -> PyResult<Option<String>> {
        let options = Writing {
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
        self.on(py, Effect::Writes, table, move |_, name, table| async move {
            json_text(&rows::delete(&name, table, "predicate", predicate.as_deref()).await?)
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
        self.on(py, Effect::Writes, table, move |_, name, table| async move {
            let schema = rows::schema(&name, &table)?;
            let values: Vec<(String, String)> = updates
                .into_iter()
                .map(|(column, value)| (column_path(&schema, &column), value))
                .collect();
            let rows = ("predicate", predicate.as_deref());
            json_text(&rows::update(&name, table, ("updates", &values), rows).await?)
        })
    }

    /// Merges rows. Clauses are: when, what, a condition, columns and values. JSON of the metrics.
    #[allow(clippy::too_many_arguments)]
    fn merge(
        &self,
        py: Python<'_>,
        table: &str,
        source: PyArrowType<ArrowArrayStreamReader>,
        predicate: String,
        source_alias: String,
        target_alias: String,
        merge_schema: bool,
        clauses: Vec<Clause>,
    ) -> PyResult<String> {
        self.on(py, Effect::Writes, table, move |db, name, table| async move {
            let merge = Merge {
                predicate,
                source_alias,
                target_alias,
                adds_columns: merge_schema,
                clauses,
            };
            let frame = held(&db, source.0).await?;
            json_text(&merge.run(&name, table, frame).await?)
        })
    }

    /// Makes large files of small ones. JSON of the metrics.
    fn optimize(
        &self,
        py: Python<'_>,
        table: &str,
        zorder: Vec<String>,
        target_size: Option<u64>,
    ) -> PyResult<String> {
        self.on(py, Effect::Writes, table, move |_, name, table| async move {
            let schema = rows::schema(&name, &table)?;
            for column in &zorder {
                rows::is_column(&name, &schema, &column_path(&schema, column))?;
            }
            let mut optimize = table.optimize();
            if !zorder.is_empty() {
                optimize = optimize.with_type(OptimizeType::ZOrder(zorder));
            }
            if let Some(size) = target_size.and_then(NonZeroU64::new) {
                optimize = optimize.with_target_size(size);
            }
            let (_, metrics) = optimize.await.map_err(|e| explain::operation(&name, e))?;
            json_text(&metrics)
        })
    }

    /// Makes the rows of an older version those of the table. JSON of the metrics.
    fn restore(
        &self,
        py: Python<'_>,
        table: &str,
        version: u64,
        ignore_missing_files: bool,
    ) -> PyResult<String> {
        self.on(py, Effect::Writes, table, move |_, name, table| async move {
            let restore = table
                .restore()
                .with_version_to_restore(version)
                .with_ignore_missing_files(ignore_missing_files);
            let (_, metrics) = restore.await.map_err(|e| explain::operation(&name, e))?;
            json_text(&metrics)
        })
    }

    /// Rows of a table as the transaction sees it, its own changes among them.
    fn rows(
        &self,
        py: Python<'_>,
        table: &str,
        columns: Option<Vec<String>>,
        filter: Option<String>,
    ) -> PyResult<NativeRows> {
        let (schema, batches) =
            self.on(py, Effect::Reads, table, move |db, name, table| async move {
                let schema = rows::schema(&name, &table)?;
                let provider = table.table_provider().await.map_err(explain::query)?;
                let mut frame =
                    db.queries().session().read_table(provider).map_err(explain::query)?;
                if let Some(text) = &filter {
                    let condition = rows::condition(&name, &schema, "filter", text)?;
                    frame = frame.filter(condition).map_err(explain::query)?;
                }
                if let Some(columns) = &columns {
                    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                    frame = frame.select_columns(&columns).map_err(explain::query)?;
                }
                stream_of(frame).await
            })?;
        Ok(NativeRows::new(schema, batches))
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

/// A merge, as it was asked for.
struct Merge {
    predicate: String,
    source_alias: String,
    target_alias: String,
    adds_columns: bool,
    clauses: Vec<Clause>,
}

/// When (`matched`), what is done (`update`), the condition, and values by column.
type Clause = (String, String, Option<String>, Vec<(String, String)>);

/// The rows of a source that is read more than once: they are held.
async fn held(db: &Db, source: ArrowArrayStreamReader) -> Result<DataFrame> {
    let schema = without_metadata(&source.schema());
    let kind = Arc::clone(&schema);
    let read = tokio::task::spawn_blocking(move || {
        let mut batches = Vec::new();
        for batch in source {
            batches.push(batch.and_then(|batch| with_schema(&batch, &kind))?);
        }
        Ok::<_, ArrowError>(batches)
    });
    let read =
        read.await.map_err(|e| Failure::new(INTERNAL, format!("work was broken off: {e}")))?;
    let batches = read.map_err(|error| {
        Failure::new(QUERY, format!("reading the rows of the source failed: {}", plain(&error)))
    })?;
    let provider = MemTable::try_new(schema, vec![batches]).map_err(explain::query)?;
    Ok(db.queries().session().read_table(Arc::new(provider)).map_err(explain::query)?)
}

impl Merge {
    async fn run(
        self,
        name: &TableName,
        table: DeltaTable,
        source: DataFrame,
    ) -> Result<MergeMetrics> {
        let target = rows::schema(name, &table)?;
        let expressions = Expressions::of_merge(
            (&self.target_alias, &target),
            (&self.source_alias, source.schema().as_arrow()),
        );
        let expressions = expressions.map_err(|e| rows::asked(name, "columns", e))?;
        let on = expressions.condition(&self.predicate);
        let on = on.map_err(|e| rows::asked(name, "predicate", e))?;
        let mut merge = table
            .merge(source, on)
            .with_source_alias(&self.source_alias)
            .with_target_alias(&self.target_alias)
            .with_merge_schema(self.adds_columns);
        for (when, action, condition, pairs) in self.clauses {
            let bad = |e| rows::asked(name, &format!("when_{when}_{action}"), e);
            let condition = condition.map(|text| expressions.condition(&text)).transpose();
            let condition = condition.map_err(bad)?;
            let mut values = Vec::with_capacity(pairs.len());
            for (column, value) in pairs {
                let column = quoted(&column);
                if !self.adds_columns {
                    rows::is_column(name, &target, &column)?;
                }
                let kind = rows::column_type(&target, &column);
                values
                    .push((column.clone(), expressions.value(&value, &column, kind).map_err(bad)?));
            }
            merge = with_clause(merge, (&when, &action), condition, values)
                .map_err(|e| explain::operation(name, e))?;
        }
        let (_, metrics) = merge.await.map_err(|e| explain::operation(name, e))?;
        Ok(metrics)
    }
}

fn with_clause(
    merge: MergeBuilder,
    clause: (&str, &str),
    condition: Option<Expr>,
    values: Vec<(String, Expr)>,
) -> Result<MergeBuilder, DeltaTableError> {
    let delete = |delete: DeleteBuilder| match condition.clone() {
        Some(condition) => delete.predicate(condition),
        None => delete,
    };
    let update = |mut update: UpdateBuilder| {
        for (column, value) in values.clone() {
            update = update.update(column, value);
        }
        match condition.clone() {
            Some(condition) => update.predicate(condition),
            None => update,
        }
    };
    let insert = |mut insert: InsertBuilder| {
        for (column, value) in values.clone() {
            insert = insert.set(column, value);
        }
        match condition.clone() {
            Some(condition) => insert.predicate(condition),
            None => insert,
        }
    };
    match clause {
        ("matched", "update") => merge.when_matched_update(update),
        ("matched", "delete") => merge.when_matched_delete(delete),
        ("not_matched", "insert") => merge.when_not_matched_insert(insert),
        ("not_matched_by_source", "update") => merge.when_not_matched_by_source_update(update),
        ("not_matched_by_source", "delete") => merge.when_not_matched_by_source_delete(delete),
        (when, action) => {
            Err(DeltaTableError::Generic(format!("there is no clause when_{when}_{action}")))
        }
    }
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
) -> Result<(TableName, DeltaTable)> {
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
    options: Writing,
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
    let mut mode = match options.mode.as_str() {
        "append" | "error" | "ignore" | PARTITIONS => Mode::Append,
        "overwrite" => Mode::Overwrite,
        other => {
            return Err(Failure::invalid(format!(
                "mode must be \"append\", \"overwrite\", \"{PARTITIONS}\", \"error\" or \"ignore\", \
                 and is \"{other}\""
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
    let (mut source, mut replace_where) = (source, options.predicate);
    if let (PARTITIONS, Some(schema)) = (options.mode.as_str(), &there) {
        let partitions = partition_columns(name, &table)?;
        let whose = name.to_string();
        let spooled = spooled(source, &whose, &partitions, Arc::clone(schema)).await?;
        source = spooled.rows;
        // Without rows there is no partition to overwrite.
        if spooled.partitions.is_some() {
            (mode, replace_where) = (Mode::Overwrite, spooled.partitions);
        }
    }
    let once = Once { schema: Arc::clone(&columns), source: StdMutex::new(Some(source)) };
    let provider =
        StreamingTable::try_new(columns, vec![Arc::new(once)]).map_err(explain::query)?;
    let frame = db.queries().session().read_table(Arc::new(provider)).map_err(explain::query)?;
    let write = Write {
        rows: frame,
        mode,
        replace_where,
        schema_mode,
        base: base.cloned(),
        partition_by: if there.is_some() { Vec::new() } else { options.partition_by },
        properties: options.properties,
        target_file_size: options.target_file_size.and_then(NonZeroU64::new),
        words: WORDS,
    };
    Ok(Some(write.into_table(name, table).await?.metrics))
}

fn partition_columns(name: &TableName, table: &DeltaTable) -> Result<Vec<String>> {
    let state = table.snapshot().map_err(|e| explain::operation(name, e))?;
    Ok(state.metadata().partition_columns().to_vec())
}

fn same_partitions(name: &TableName, table: &DeltaTable, asked: &[String]) -> Result<()> {
    let have = partition_columns(name, table)?;
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
