//! A plain table and one in a catalog, side by side.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use deltalakedb::core::fence;
use deltalakedb::core::ids::{At, TableRef};
use deltalakedb::deltalake::{WAREHOUSE, deltalake as delta};
use deltalakedb::mirror::publish::PublisherConfig;
use deltalakedb::{CatalogUri, Db};
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::databases::{self, Database};
use crate::readers::read_the_same;
use crate::shown::lines;
use delta::operations::collect_sendable_stream;
use delta::{DeltaTable, DeltaTableBuilder, ensure_table_uri};

type Result<T> = std::result::Result<T, delta::DeltaTableError>;

pub(crate) struct Both {
    dir: TempDir,
    plain: DeltaTable,
    sql: DeltaTable,
    url: String,
    catalog: CatalogUri,
}

/// How the second of two operations ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Passed,
    Refused,
    /// Passed on the plain table, which has so many rows now, and refused by the catalog.
    OnlyPlain {
        rows: usize,
    },
}

/// URL of the table in a catalog.
pub(crate) fn table_url(catalog: &str) -> String {
    match catalog.split_once('?') {
        Some((place, options)) => format!("delta+sql://{place}/shop.t?{options}"),
        None => format!("delta+sql://{catalog}/shop.t"),
    }
}

/// All that must be the same about two tables.
#[derive(Debug, PartialEq)]
struct Seen {
    version: Option<u64>,
    schema: String,
    properties: BTreeMap<String, String>,
    partitions: Vec<String>,
    history: Vec<(Option<String>, Option<bool>)>,
    rows: Vec<String>,
    files: usize,
}

async fn open(url: &str, options: HashMap<String, String>) -> DeltaTable {
    DeltaTable::try_from_url_with_storage_options(ensure_table_uri(url).unwrap(), options)
        .await
        .unwrap()
}

pub(crate) async fn rows(table: &DeltaTable) -> Vec<String> {
    let (_, stream) = table.scan_table().await.unwrap();
    let batches = collect_sendable_stream(stream).await.unwrap();
    lines(&batches).unwrap()
}

async fn seen(table: &DeltaTable) -> Seen {
    let snapshot = table.snapshot().unwrap();
    let history: Vec<_> = table.history(None).try_collect().await.unwrap();
    Seen {
        version: table.version(),
        schema: serde_json::to_string(snapshot.schema().as_ref()).unwrap(),
        properties: snapshot.metadata().configuration().clone().into_iter().collect(),
        partitions: snapshot.metadata().partition_columns().to_vec(),
        history: history.into_iter().map(|c| (c.operation, c.is_blind_append)).collect(),
        rows: rows(table).await,
        files: table.get_file_uris().unwrap().count(),
    }
}

impl Both {
    pub(crate) async fn new(db: Database) -> Both {
        deltalakedb::deltalake::register();
        let dir = tempfile::tempdir().unwrap();
        let catalog = databases::url(db, &dir);
        let url = table_url(&catalog);
        let catalog: CatalogUri = catalog.parse().unwrap();
        Db::create(&catalog).await.unwrap();
        let plain = open(dir.path().join("plain").to_str().unwrap(), HashMap::new()).await;
        let warehouse = dir.path().join("lake").to_str().unwrap().to_owned();
        let options = HashMap::from([(WAREHOUSE.to_owned(), warehouse)]);
        let sql = open(&url, options).await;
        Both { dir, plain, sql, url, catalog }
    }

    /// One writer does the first to each table, then another one, which has read it before, the second.
    /// Returns how that ended. Where a plain table takes a remove of a file that is not there any more,
    /// the catalog does not.
    pub(crate) async fn race(
        &mut self,
        what: &str,
        first: impl AsyncFn(DeltaTable) -> Result<DeltaTable>,
        second: impl AsyncFn(DeltaTable) -> Result<DeltaTable>,
    ) -> Ended {
        let (plain, sql) = (self.plain.clone(), self.sql.clone());
        self.each_quietly(first).await;
        let (plain, sql) = (second(plain).await, second(sql).await);
        let text = |ended: &Result<DeltaTable>| match ended {
            Ok(table) => format!("version {:?}", table.version()),
            Err(error) => error.to_string(),
        };
        if let (Ok(plain), Err(error)) = (&plain, &sql) {
            let error = error.to_string();
            assert!(error.contains("deleted the same data"), "{what}: {error}");
            return Ended::OnlyPlain { rows: rows(plain).await.len() };
        }
        assert_eq!(text(&plain), text(&sql), "{what}");
        let ended = if plain.is_ok() { Ended::Passed } else { Ended::Refused };
        self.plain.load().await.unwrap();
        self.sql.load().await.unwrap();
        self.compare(what).await;
        ended
    }

    /// Does the same to both, and compares all of them.
    pub(crate) async fn each(
        &mut self,
        what: &str,
        work: impl AsyncFn(DeltaTable) -> Result<DeltaTable>,
    ) {
        self.each_quietly(work).await;
        self.compare(what).await;
        let (plain, published) = (self.dir.path().join("plain"), self.published().await);
        let what = what.to_owned();
        let read = move || read_the_same(&what, &plain, &published);
        if let Some(engines) = tokio::task::spawn_blocking(read).await.unwrap() {
            assert!(engines > 0, "no engine can read the plain table");
        }
    }

    /// Publishes all there is. The table's folder.
    async fn published(&self) -> PathBuf {
        let db = Db::open(&self.catalog).await.unwrap();
        let table = TableRef::Name("shop.t".parse().unwrap());
        for _ in 0..200 {
            let report = db.publisher(PublisherConfig::default()).run_once(None).await.unwrap();
            assert_eq!(report.failures, []);
            let record = db.catalog().table(&table).await.unwrap();
            if record.published_version == record.head {
                return self.dir.path().join("lake/shop/t");
            }
            // The worker of the log store is at it.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("the table is not published");
    }

    /// Does the same to both.
    pub(crate) async fn each_quietly(
        &mut self,
        work: impl AsyncFn(DeltaTable) -> Result<DeltaTable>,
    ) {
        self.plain = work(self.plain.clone()).await.unwrap();
        self.sql = work(self.sql.clone()).await.unwrap();
    }

    /// Both refuse it, with the same error, and nothing changes.
    pub(crate) async fn refused(
        &self,
        what: &str,
        work: impl AsyncFn(DeltaTable) -> Result<DeltaTable>,
    ) {
        let plain = work(self.plain.clone()).await.unwrap_err().to_string();
        let sql = work(self.sql.clone()).await.unwrap_err().to_string();
        assert_eq!(plain, sql, "{what}");
        self.compare(what).await;
    }

    /// As they are in memory, and as they are opened anew.
    pub(crate) async fn compare(&self, what: &str) {
        let plain = seen(&self.plain).await;
        assert_eq!(plain, seen(&self.sql).await, "{what}");
        let again = open(&self.url, HashMap::new()).await;
        assert_eq!(plain, seen(&again).await, "{what}, opened again");
    }

    /// Looks at both.
    pub(crate) async fn each_sees(&self, look: impl AsyncFn(DeltaTable)) {
        look(self.plain.clone()).await;
        look(self.sql.clone()).await;
    }

    pub(crate) async fn compare_version(&self, version: u64) {
        let at = async |table: &DeltaTable| {
            let mut table =
                DeltaTableBuilder::from_url(table.table_url().clone()).unwrap().build().unwrap();
            table.load_version(version).await.unwrap();
            seen(&table).await
        };
        assert_eq!(at(&self.plain).await, at(&self.sql).await, "version {version}");
    }

    pub(crate) async fn compare_changes(&self) {
        let changes = async |table: &DeltaTable| {
            let session = delta::datafusion::prelude::SessionContext::new();
            let scan = table.clone().scan_cdf().with_starting_version(0);
            let plan = scan.build(&session.state(), None).await.unwrap();
            let stream = delta::datafusion::physical_plan::execute_stream(plan, session.task_ctx());
            let batches = collect_sendable_stream(stream.unwrap()).await.unwrap();
            // All but the times of the commits.
            let mut lines: Vec<String> = lines(&batches)
                .unwrap()
                .into_iter()
                .map(|line| {
                    let cells: Vec<&str> = line.split('|').collect();
                    cells
                        .into_iter()
                        .filter(|cell| !cell.contains('T') || !cell.contains(':'))
                        .collect::<Vec<_>>()
                        .join("|")
                })
                .collect();
            lines.sort();
            lines
        };
        let (plain, sql) = (changes(&self.plain).await, changes(&self.sql).await);
        assert!(plain.len() > 30);
        assert_eq!(plain, sql);
    }

    pub(crate) async fn catalog(&self) -> (Db, TableRef) {
        (Db::open(&self.catalog).await.unwrap(), TableRef::Name("shop.t".parse().unwrap()))
    }

    pub(crate) fn sql(&self) -> DeltaTable {
        self.sql.clone()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn rows(&self) -> Vec<String> {
        rows(&self.sql).await
    }

    /// What is published reads the same, with no catalog.
    pub(crate) async fn finish(self) {
        let db = Db::open(&self.catalog).await.unwrap();
        let table = TableRef::Name("shop.t".parse().unwrap());
        let head = db.snapshot(&table, At::Head).await.unwrap();
        assert_eq!(u64::try_from(head.version.get()).ok(), self.sql.version());
        // What the catalog put into it, `deltalake` did not see.
        assert!(
            fence::is_up(&head.protocol) && head.metadata.flag("delta.enableInCommitTimestamps")
        );
        assert_eq!(self.sql.table_url().scheme(), deltalakedb::deltalake::SCHEME);
        let folder = self.published().await;
        let mut published =
            DeltaTableBuilder::from_url(ensure_table_uri(folder.to_str().unwrap()).unwrap())
                .unwrap()
                .build()
                .unwrap();
        published.load().await.unwrap();
        assert_eq!(published.version(), self.sql.version());
        assert_eq!(rows(&published).await, rows(&self.plain).await);
        for uri in self.sql.get_file_uris().unwrap() {
            let path = uri.strip_prefix("file://").unwrap_or(&uri);
            assert!(path.starts_with(folder.to_str().unwrap()), "{uri}");
        }
    }
}
