//! Tables of catalogs for the `deltalake` crate: its whole API on `delta+sql://` URLs.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use deltalakedb::deltalake::deltalake::{open_table, ensure_table_uri};
//! deltalakedb::deltalake::register();
//! let url = ensure_table_uri("delta+sql://sqlite:///lake/catalog.db/sales.orders")?;
//! let table = open_table(url).await?;
//! # Ok(()) }
//! ```
//!
//! URLs of tables are those of [`crate::TableUri`]. A catalog is opened once a process; a worker in the
//! background publishes what is committed (see [`crate::background`]), [`shutdown`] waits for it.
//!
//! `deltalake` casts the rows that it writes as Arrow does, which can lose digits, and values where a table of
//! another engine has a column of type `void`. Rows that go through [`fit`] first are written exactly or not at all.
//!
//! New tables are made where the storage option [`LOCATION`] says, or below [`WAREHOUSE`]; for a
//! catalog in a SQLite file, below that file's folder if neither is given.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_trait::async_trait;
use deltalakedb_catalog_core::action::Metadata;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::conflict::FileFilter;
use deltalakedb_catalog_engine::predicate::Pruner;
use deltalakedb_log_store::{CatalogOpener, TableAddress};
use deltalakedb_mirror::publish::PublisherConfig;
use tokio::sync::OnceCell;

use crate::background::BackgroundMirror;
use crate::uri::Place;
use crate::{CatalogUri, Db, Scheme, TableUri};

pub use deltalakedb_log_store::sql::{CatalogTable, Expressions, Queries};
pub use deltalakedb_log_store::{
    FENCE, LOCATION, SCHEME, Transaction, WAREHOUSE, deltalake, end_runtime,
};
pub use deltalakedb_log_store::{explain, fit};

/// Name by which queries know their own catalog: `catalog.namespace.table`.
pub const CATALOG: &str = "catalog";

/// Makes `delta+sql://` URLs known to the `deltalake` crate of this process.
pub fn register() {
    deltalakedb_log_store::register(Arc::new(Catalogs));
}

/// Publishes what is committed so far, and ends the workers in the background; tables that are still
/// open go on to work, and what they commit is published by other workers.
///
/// # Errors
/// Those of the databases. Unpublished commits stay in their catalogs, and are published by any worker.
pub async fn shutdown() -> Result<()> {
    let open: Vec<_> = {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.drain().map(|(_, opened)| opened).collect()
    };
    for opened in open {
        let Some(opened) = Arc::into_inner(opened).and_then(OnceCell::into_inner) else { continue };
        deltalakedb_log_store::on_runtime(async move {
            opened.mirror.stop().await?;
            opened.db.publisher(PublisherConfig::default()).run_once(None).await?;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

impl Db {
    /// Begins a transaction over tables of this catalog, for the `deltalake` crate's operations.
    ///
    /// ```no_run
    /// # async fn example(db: deltalakedb::Db) -> Result<(), Box<dyn std::error::Error>> {
    /// use deltalakedb::deltalake::deltalake::datafusion::prelude::{col, lit};
    /// let tx = db.transaction();
    /// let orders = tx.table(&"sales.orders".parse()?).await?;
    /// orders.delete().with_predicate(col("day").eq(lit("2024-01-01"))).await?;
    /// let totals = tx.table(&"sales.totals".parse()?).await?;
    /// totals.update().with_update("amount", lit(0)).await?;
    /// tx.commit().await?; // both, or neither
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn transaction(&self) -> Transaction {
        Transaction::begin((**self).clone(), Arc::new(Catalogs), &self.uri().to_string())
    }

    /// SQL over the tables of this catalog, which it knows as [`CATALOG`].
    ///
    /// ```no_run
    /// # async fn example(db: deltalakedb::Db) -> Result<(), Box<dyn std::error::Error>> {
    /// let text = "SELECT count(*) FROM sales.orders VERSION AS OF 3 WHERE day = '2026-01-31'";
    /// db.queries().query(text).await?.show().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn queries(&self) -> Queries {
        Queries::new(CATALOG, (**self).clone())
    }
}

/// A catalog that is open, and its worker.
#[derive(Debug)]
struct Opened {
    db: Db,
    mirror: BackgroundMirror,
}

/// Catalogs of this process, by their URLs.
static OPEN: LazyLock<Mutex<HashMap<String, Arc<OnceCell<Opened>>>>> =
    LazyLock::new(Mutex::default);

/// Opens catalogs by their URLs, each once.
#[derive(Debug)]
struct Catalogs;

#[async_trait]
impl CatalogOpener for Catalogs {
    fn address(&self, url: &str) -> Result<TableAddress> {
        let text = with_inner_scheme(url);
        let uri: TableUri = text.parse()?;
        let (shown, table) = (uri.catalog().to_string(), uri.table().clone());
        Ok(TableAddress { url: text, catalog: shown, table })
    }

    async fn open(&self, address: &TableAddress) -> Result<Catalog> {
        let uri: TableUri = address.url.parse()?;
        let cell = {
            let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(open.entry(address.catalog.clone()).or_default())
        };
        let opened = cell
            .get_or_try_init(|| async {
                let db = Db::open(uri.catalog()).await?;
                let (db, mirror) = db.publish_in_background(PublisherConfig::default());
                Ok::<_, deltalakedb_catalog_core::error::CatalogError>(Opened { db, mirror })
            })
            .await?;
        Ok((*opened.db).clone())
    }

    fn filter(&self, predicate: &str, metadata: &Metadata) -> Option<FileFilter> {
        let predicate = crate::filter::parse_filter(predicate).ok()?;
        let pruner = Pruner::new(metadata, &predicate).ok()?;
        Some(Arc::new(move |add| pruner.may_match(add)))
    }

    fn default_warehouse(&self, address: &TableAddress) -> Option<String> {
        let uri: CatalogUri = address.catalog.parse().ok()?;
        let Place::Sqlite(sqlite) = uri.place() else { return None };
        let folder = sqlite.path().parent()?.to_str()?.to_owned();
        Some(if folder.is_empty() { ".".to_owned() } else { folder })
    }
}

/// A table's URL as [`TableUri`] reads it. The `url` crate drops the colon of `sqlite:`, and `deltalake`
/// adds a slash and drops empty segments of the path.
fn with_inner_scheme(url: &str) -> String {
    let (url, query) = match url.split_once('?') {
        Some((url, query)) => (url, Some(query)),
        None => (url, None),
    };
    let mut text = url.trim_end_matches('/').to_owned();
    let start = SCHEME.len() + "://".len();
    if let Some(rest) = text.get(start..)
        && let Some((name, path)) = rest.split_once('/')
        && let Some(scheme) = Scheme::from_name(name.trim_end_matches(':'))
    {
        let path = path.trim_start_matches('/');
        let root = if scheme == Scheme::Sqlite { "/" } else { "" };
        text = format!("{}{}://{root}{path}", &text[..start], scheme.as_str());
    }
    match query {
        Some(query) => format!("{text}?{query}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_survive_the_url_crate() {
        for (given, want) in [
            (
                "delta+sql://sqlite:///lake/catalog.db/sales.orders",
                "delta+sql://sqlite:///lake/catalog.db/sales.orders",
            ),
            ("delta+sql://sqlite/lake/catalog.db/t/", "delta+sql://sqlite:///lake/catalog.db/t"),
            (
                "delta+sql://postgresql/u@host:5432/db/t/?sslmode=require",
                "delta+sql://postgresql://u@host:5432/db/t?sslmode=require",
            ),
        ] {
            assert_eq!(with_inner_scheme(given), want);
            let parsed = url::Url::parse(given).unwrap();
            assert_eq!(with_inner_scheme(parsed.as_str()), want, "{parsed}");
        }
    }
}
