//! Tables of a catalog in DataFusion's SQL.

mod expressions;
mod filters;
mod literals;
mod scan_log;
mod scan_paths;
mod session;
mod tables;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use deltalake::datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableProvider,
};
use deltalake::datafusion::common::TableReference;
use deltalake::datafusion::dataframe::DataFrame;
use deltalake::datafusion::error::{DataFusionError, Result};
use deltalake::datafusion::execution::context::SQLOptions;
use deltalake::datafusion::execution::session_state::SessionStateBuilder;
use deltalake::datafusion::logical_expr::LogicalPlan;
use deltalake::datafusion::optimizer::AnalyzerRule;
use deltalake::datafusion::prelude::SessionContext;
use deltalake::delta_datafusion::DeltaRuntimeEnvBuilder;
use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{At, TableName, TableRef};
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_engine::catalog::Catalog;
use futures::TryStreamExt;

use crate::runtime;
pub use expressions::Expressions;
use literals::Literals;
pub use tables::CatalogTable;
pub(crate) use tables::table_of;

/// Schema that DataFusion describes catalogs in.
const INFORMATION_SCHEMA: &str = "information_schema";

/// An error of the catalog, as DataFusion's.
fn query_error(error: CatalogError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Queries over the tables of one or more catalogs.
///
/// Tables are `namespace.table`, `catalog.namespace.table`, or just `table` in the namespace `default`;
/// a namespace with dots in it is quoted. Behind a table may stand `VERSION AS OF 3` or
/// `TIMESTAMP AS OF '2026-01-31 12:00:00'`. Names are written as they are: upper and lower case differ.
///
/// All tables of one catalog that a query names without a version are read as of one instant.
pub struct Queries {
    catalogs: BTreeMap<String, Catalog>,
    /// Name of the catalog that names are looked up in.
    main: String,
    /// What queries share: memory, and stores of files.
    context: SessionContext,
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queries").field("catalogs", &self.catalogs.keys()).finish_non_exhaustive()
    }
}

impl Queries {
    /// Queries over a catalog, which they know by this name.
    #[must_use]
    pub fn new(name: &str, catalog: Catalog) -> Queries {
        let config = session::config()
            .with_information_schema(true)
            .with_default_catalog_and_schema(name, TableName::DEFAULT_NAMESPACE);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(DeltaRuntimeEnvBuilder::new().build())
            .with_default_features()
            .with_type_planner(Arc::new(session::Microseconds))
            .build();
        // Before the rules that bring both sides of a comparison to one type.
        let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(Literals)];
        rules.extend(state.analyzer().rules.iter().cloned());
        let state = SessionStateBuilder::new_from_existing(state).with_analyzer_rules(rules);
        let context = SessionContext::new_with_state(state.build());
        let catalogs = BTreeMap::from([(name.to_owned(), catalog)]);
        Queries { catalogs, main: name.to_owned(), context }
    }

    /// The same with another catalog, for names that begin with its name.
    #[must_use]
    pub fn with_catalog(mut self, name: &str, catalog: Catalog) -> Queries {
        self.catalogs.insert(name.to_owned(), catalog);
        self
    }

    /// The session that queries run in; tables of the catalogs are not in it.
    #[must_use]
    pub fn session(&self) -> &SessionContext {
        &self.context
    }

    /// Plans a query: `SELECT`, `VALUES`, `EXPLAIN`, `DESCRIBE`, `SHOW TABLES`.
    ///
    /// # Errors
    /// `External` with the catalog's own error: a table that is not there, text that cannot be taken
    /// apart. Else DataFusion's.
    pub async fn query(&self, sql: &str) -> Result<DataFrame> {
        let sql = versions::into_names(sql).map_err(query_error)?;
        let state = self.context.state();
        let dialect = state.config().options().sql_parser.dialect;
        let statement = state.sql_to_statement(&sql, &dialect)?;
        let mut references = state.resolve_table_references(&statement)?;
        // Called functions are among them: `FROM generate_series(1, 10)`.
        references.retain(|reference| {
            reference.schema().is_some() || !state.table_functions().contains_key(reference.table())
        });
        let context = self.context_for(&references).await?;
        let state = context.state();
        let plan = state.statement_to_plan(statement).await?;
        let only_reads = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        if let Err(error) = only_reads.verify_plan(&plan) {
            let what = error.strip_backtrace();
            let what = what.trim_start_matches("Error during planning: ");
            return Err(query_error(CatalogError::invalid(format!(
                "{what}: a query only reads. Rows are changed by operations of `DeltaTable`, or `dl \
                 write`, `dl delete`, `dl update` and `dl merge`"
            ))));
        }
        // Whoever runs the rows in another session (an operation of `deltalake`) has other rules there.
        let plan = match plan {
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => plan,
            plan => state.analyzer().execute_and_check(
                plan,
                &state.config_options().clone(),
                |_, _| {},
            )?,
        };
        context.execute_logical_plan(plan).await
    }

    /// A session in which these tables are there, each catalog's as of one instant.
    async fn context_for(&self, references: &[TableReference]) -> Result<SessionContext> {
        let list = MemoryCatalogProviderList::new();
        for (name, catalog) in &self.catalogs {
            let mut wanted = BTreeSet::new();
            let mut described = false;
            for reference in references {
                let in_catalog = reference.catalog().unwrap_or(&self.main);
                let namespace = reference.schema().unwrap_or(TableName::DEFAULT_NAMESPACE);
                if in_catalog != name {
                    continue;
                }
                if namespace == INFORMATION_SCHEMA {
                    described = true;
                } else {
                    wanted.insert((namespace.to_owned(), reference.table().to_owned()));
                }
            }
            let mut tables = open(catalog, wanted).await?;
            if described {
                tables.list(catalog).await?;
            }
            let provider: Arc<dyn CatalogProvider> = Arc::new(tables);
            list.register_catalog(name.clone(), provider);
        }
        for reference in references {
            if let Some(unknown) = reference.catalog().filter(|c| !self.catalogs.contains_key(*c)) {
                let known: Vec<_> = self.catalogs.keys().map(String::as_str).collect();
                return Err(query_error(CatalogError::invalid(format!(
                    "'{reference}': there is no catalog '{unknown}' here, only {}. A table is \
                     namespace.table; a namespace with dots in it is quoted: \"a.b\".table",
                    known.join(", ")
                ))));
            }
        }
        let state = SessionStateBuilder::new_from_existing(self.context.state())
            .with_catalog_list(Arc::new(list))
            .build();
        Ok(SessionContext::new_with_state(state))
    }
}

/// Opens tables of a catalog, by namespace and name as the planner sees it.
async fn open(catalog: &Catalog, wanted: BTreeSet<(String, String)>) -> Result<Tables> {
    let mut names = Vec::with_capacity(wanted.len());
    for (namespace, seen) in wanted {
        let (table, at) = versions::split(&seen).map_err(query_error)?;
        let table = TableName::new(&namespace, table).map_err(|e| query_error(e.into()))?;
        names.push((namespace, seen, TableRef::Name(table), at));
    }
    let heads: Vec<TableRef> = names
        .iter()
        .filter(|(.., at)| *at == At::Head)
        .map(|(_, _, table, _)| table.clone())
        .collect();
    let (of, plan) = (catalog.clone(), names.clone());
    let snapshots: Vec<Snapshot> = runtime::run(async move {
        let mut now = match heads.as_slice() {
            // No instant to agree on: a replica may answer.
            [only] => vec![of.snapshot(only, At::Head).await?],
            several => of.snapshots_at_once(several).await?,
        }
        .into_iter();
        let mut snapshots = Vec::with_capacity(plan.len());
        for (_, _, table, at) in &plan {
            match at {
                At::Head => snapshots.extend(now.next()),
                at => snapshots.push(of.snapshot(table, *at).await?),
            }
        }
        Ok(snapshots)
    })
    .await
    .map_err(query_error)?;
    let mut tables = Tables::default();
    for ((namespace, seen, ..), snapshot) in names.into_iter().zip(snapshots) {
        let table = CatalogTable::new(catalog.clone(), snapshot).await?;
        tables.0.entry(namespace).or_default().insert(seen, Entry::Open(Arc::new(table)));
    }
    Ok(tables)
}

/// Tables of a catalog, by namespace and name.
#[derive(Debug, Default)]
struct Tables(BTreeMap<String, BTreeMap<String, Entry>>);

#[derive(Debug, Clone)]
enum Entry {
    Open(Arc<CatalogTable>),
    /// Described only, and opened for that.
    Listed(Arc<Catalog>, TableName),
}

impl Tables {
    /// Adds all tables there are.
    async fn list(&mut self, catalog: &Catalog) -> Result<()> {
        let mut all = catalog.tables(TableFilter::default());
        let shared = Arc::new(catalog.clone());
        let names: Vec<TableName> = runtime::run(async move {
            let mut names = Vec::new();
            while let Some(table) = all.try_next().await? {
                names.push(table.name);
            }
            Ok(names)
        })
        .await
        .map_err(query_error)?;
        for name in names {
            self.0
                .entry(name.namespace().to_owned())
                .or_default()
                .entry(name.name().to_owned())
                .or_insert_with(|| Entry::Listed(Arc::clone(&shared), name));
        }
        Ok(())
    }
}

impl CatalogProvider for Tables {
    fn schema_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        Some(Arc::new(Namespace(self.0.get(name)?.clone())))
    }
}

/// Tables of a namespace.
#[derive(Debug)]
struct Namespace(BTreeMap<String, Entry>);

#[async_trait]
impl SchemaProvider for Namespace {
    fn table_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    async fn table(
        &self,
        name: &str,
    ) -> std::result::Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(match self.0.get(name) {
            Some(Entry::Open(table)) => Some(Arc::clone(table) as _),
            Some(Entry::Listed(catalog, name)) => {
                let (of, table) = (Arc::clone(catalog), TableRef::Name(name.clone()));
                let snapshot = runtime::run(async move { of.snapshot(&table, At::Head).await });
                let snapshot = snapshot.await.map_err(query_error)?;
                Some(Arc::new(CatalogTable::new(Catalog::clone(catalog), snapshot).await?))
            }
            None => None,
        })
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}
