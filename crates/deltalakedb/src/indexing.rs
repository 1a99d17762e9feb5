//! Keeping skipping indexes up, in the background of whoever commits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deltalakedb_catalog_core::backend::CommittedTable;
use deltalakedb_catalog_core::catalog::{Catalog, CommitHook};
use deltalakedb_catalog_core::ids::TableId;
use deltalakedb_catalog_core::skip::INDEX_TAIL;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Small commits are looked after each time their table has got so many versions more, whoever wrote
/// them.
const EVERY: i64 = 64;

/// Tasks of this process.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static ENDED: Notify = Notify::const_new();

/// Waits until this process indexes nothing: what it has committed is indexed by then, as far as that
/// is worth it. To be called before a program ends; if it is not, the next commits make up for it.
pub async fn finished() {
    loop {
        let ended = ENDED.notified();
        if RUNNING.load(Ordering::Acquire) == 0 {
            return;
        }
        ended.await;
    }
}

/// Told of commits, it brings the indexes of their tables up to date.
#[derive(Debug)]
pub(crate) struct Indexer {
    catalog: Catalog,
    /// Tables at work, and whether there is more to do by now.
    tables: Arc<Mutex<BTreeMap<TableId, bool>>>,
}

impl Indexer {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Indexer { catalog, tables: Arc::default() }
    }

    /// One task a table.
    fn start(&self, runtime: &Handle, table: TableId) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(again) = tables.get_mut(&table) {
            *again = true;
            return;
        }
        tables.insert(table, false);
        let work = Work {
            catalog: self.catalog.clone(),
            tables: Arc::clone(&self.tables),
            table,
            counted: Counted::new(),
        };
        runtime.spawn(work.run());
    }
}

impl CommitHook for Indexer {
    fn committed(&self, tables: &[CommittedTable], files: usize) {
        // Outside of a runtime there is nobody to do it.
        let Ok(runtime) = Handle::try_current() else { return };
        for table in tables {
            if files >= INDEX_TAIL || table.version.get() % EVERY == 0 {
                self.start(&runtime, table.table_id);
            }
        }
    }
}

struct Work {
    catalog: Catalog,
    tables: Arc<Mutex<BTreeMap<TableId, bool>>>,
    table: TableId,
    counted: Counted,
}

impl Work {
    async fn run(self) {
        let Work { catalog, tables: all, table, counted } = self;
        loop {
            let done = catalog.maintain_index(table).await;
            if let Err(error) = &done {
                // Nobody misses it but in speed: a login that may not write, a busy database.
                tracing::debug!(%table, %error, "the skipping index was left as it is");
            }
            let mut tables = all.lock().unwrap_or_else(PoisonError::into_inner);
            match tables.get_mut(&table) {
                Some(again) if *again && done.is_ok() => *again = false,
                _ => {
                    tables.remove(&table);
                    break;
                }
            }
        }
        // Whoever waits for the end may close the catalog then: it is nobody else's any more.
        drop(catalog);
        drop(counted);
    }
}

/// Counts a task, however it ends.
struct Counted;

impl Counted {
    fn new() -> Self {
        RUNNING.fetch_add(1, Ordering::AcqRel);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::AcqRel);
        ENDED.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use deltalakedb_catalog_core::catalog::{ChangeTarget, CommitBatch, TableChange};
    use deltalakedb_catalog_core::conflict::Reads;
    use deltalakedb_catalog_core::ids::TableRef;
    use deltalakedb_catalog_core::model::MirrorMode;

    use crate::Db;

    async fn commit(db: &Db, target: ChangeTarget, ndjson: String) {
        let change = TableChange {
            target,
            ndjson: ndjson.into(),
            origin: "test".into(),
            reads: Reads::default(),
            operation: None,
        };
        db.commit(CommitBatch { token: None, tables: vec![change] }).await.unwrap();
    }

    fn adds(names: std::ops::Range<usize>) -> String {
        let line = |n| {
            format!(
                "{{\"add\":{{\"path\":\"f{n}\",\"partitionValues\":{{}},\"size\":1,\
                 \"modificationTime\":1,\"dataChange\":true}}}}\n"
            )
        };
        names.map(line).collect::<Vec<String>>().concat()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_commits_keeps_the_index_up() {
        let folder = tempfile::tempdir().unwrap();
        let uri = format!("sqlite://{}", folder.path().join("c.db").display());
        let db = Db::create(&uri.parse().unwrap()).await.unwrap();
        let zero = "{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":2}}\n\
            {\"metaData\":{\"id\":\"m\",\"format\":{\"provider\":\"parquet\",\"options\":{}},\
            \"schemaString\":\"{\\\"type\\\":\\\"struct\\\",\\\"fields\\\":[]}\",\
            \"partitionColumns\":[],\"configuration\":{}}}\n";
        let target = ChangeTarget::Create {
            name: "t".parse().unwrap(),
            location: "memory://t".to_owned(),
            storage_options: BTreeMap::new(),
            mirror: MirrorMode::Off,
            fence: false,
        };
        commit(&db, target, zero.to_owned()).await;
        let table = TableRef::Name("t".parse().unwrap());
        let id = db.catalog().table(&table).await.unwrap().id;
        let append = || ChangeTarget::Existing { table: table.clone(), read_version: None };
        let indexed = async || {
            super::finished().await;
            let index = db.backend().skip_index(id).await.unwrap();
            index.segments.iter().map(|segment| segment.files).sum::<i64>()
        };
        // Many at once: right away. Few: when there are enough of them.
        commit(&db, append(), adds(0..600)).await;
        assert_eq!(indexed().await, 600);
        // What is indexed is the table as it is when the task looks: nobody commits meanwhile here.
        for n in 600..727 {
            commit(&db, append(), adds(n..n + 1)).await;
        }
        assert_eq!(indexed().await, 600, "at version 128, a tail of 127 is looked at file by file");
        for n in 727..790 {
            commit(&db, append(), adds(n..n + 1)).await;
        }
        assert_eq!(indexed().await, 600, "a version that is none of the 64th");
        commit(&db, append(), adds(790..791)).await;
        assert_eq!(indexed().await, 600 + 191, "at version 192");
        commit(&db, append(), adds(791..792)).await;
        assert_eq!(indexed().await, 600 + 191);
    }
}
