//! Keeping skipping indexes up, in the background of whoever commits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltalakedb_catalog_core::ids::TableId;
use deltalakedb_catalog_engine::catalog::{Catalog, CommitEvent, CommitHook};
use deltalakedb_catalog_engine::skip::INDEX_TAIL;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

/// Small commits are looked after each time their table has got so many versions more, whoever wrote
/// them.
const EVERY: i64 = 64;
/// Tables that are worked on at a time, of one handle: each takes connections from those who commit.
const AT_WORK: usize = 4;
/// Tables that are worked on or wait for that. Those beyond are left to their next commit.
const MOST_TABLES: usize = 1_024;

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
    tables: Arc<Tables>,
    turns: Arc<Semaphore>,
}

/// Tables at work or waiting for that, and whether there is more to do by now.
#[derive(Debug, Default)]
struct Tables(Mutex<BTreeMap<TableId, bool>>);

impl Tables {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TableId, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Indexer {
    pub(crate) fn new(catalog: Catalog) -> Self {
        let turns = Arc::new(Semaphore::new(AT_WORK));
        Indexer { catalog, tables: Arc::default(), turns }
    }

    /// One task a table.
    fn start(&self, runtime: &Handle, table: TableId) {
        let Some(mark) = Mark::new(&self.tables, table) else { return };
        let work = Work {
            catalog: self.catalog.clone(),
            turns: Arc::clone(&self.turns),
            mark,
            counted: Counted::new(),
        };
        // A runtime that is ending drops the work at once, and with it the mark.
        runtime.spawn(work.run());
    }
}

impl CommitHook for Indexer {
    fn committed(&self, commit: &CommitEvent<'_>) {
        let (tables, files) = (commit.tables(), commit.files_added());
        // Outside of a runtime there is nobody to do it.
        let Ok(runtime) = Handle::try_current() else { return };
        for table in tables {
            if files >= INDEX_TAIL || table.version.get() % EVERY == 0 {
                self.start(&runtime, table.table_id);
            }
        }
    }
}

/// That a table is at work. It goes with the work, however that ends: done, dropped with its runtime, or by
/// a panic. A table whose mark stayed would never be worked on again.
struct Mark {
    tables: Arc<Tables>,
    /// None once it is taken away.
    table: Option<TableId>,
}

impl Mark {
    /// None if the table is at work already, which is told that there is more to do, or if there are too
    /// many.
    fn new(all: &Arc<Tables>, table: TableId) -> Option<Mark> {
        let mut tables = all.lock();
        if let Some(again) = tables.get_mut(&table) {
            *again = true;
            return None;
        }
        if tables.len() >= MOST_TABLES {
            tracing::debug!(%table, "{MOST_TABLES} skipping indexes are behind: this one waits for another commit");
            return None;
        }
        tables.insert(table, false);
        Some(Mark { tables: Arc::clone(all), table: Some(table) })
    }

    /// Whether there is more to do; if not, or if it is of no use, the mark is taken away.
    fn again(&mut self, useful: bool) -> bool {
        let Some(table) = self.table else { return false };
        let mut tables = self.tables.lock();
        match tables.get_mut(&table) {
            Some(again) if *again && useful => {
                *again = false;
                true
            }
            _ => {
                // In one step with the look at it: who comes next makes a mark of its own.
                tables.remove(&table);
                self.table = None;
                false
            }
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some(table) = self.table {
            self.tables.lock().remove(&table);
        }
    }
}

struct Work {
    catalog: Catalog,
    turns: Arc<Semaphore>,
    mark: Mark,
    counted: Counted,
}

impl Work {
    async fn run(self) {
        let Work { catalog, turns, mut mark, counted } = self;
        // It is never closed.
        let _turn = turns.acquire().await.ok();
        while let Some(table) = mark.table {
            let done = catalog.maintain_index(table).await;
            if let Err(error) = &done {
                // Nobody misses it but in speed: a login that may not write, a busy database.
                tracing::debug!(%table, %error, "the skipping index was left as it is");
            }
            if !mark.again(done.is_ok()) {
                break;
            }
        }
        // Whoever waits for the end may close the catalog then: it is nobody else's any more.
        drop(mark);
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

    use deltalakedb_catalog_core::ids::TableRef;
    use deltalakedb_catalog_core::model::MirrorMode;
    use deltalakedb_catalog_engine::catalog::{ChangeTarget, CommitBatch, TableChange};
    use deltalakedb_catalog_engine::conflict::Reads;

    use super::*;
    use crate::Db;

    async fn create(db: &Db) {
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
        commit(db, target, zero.to_owned()).await;
    }

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
        create(&db).await;
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

    #[test]
    fn a_runtime_that_ends_in_the_middle_leaves_the_table_to_the_next_one() {
        // One thread: what a commit starts is not even begun when `block_on` returns.
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let uri = format!("sqlite://{}", folder.path().join("c.db").display());
        let first = runtime();
        let (db, id) = first.block_on(async {
            let db = Db::create(&uri.parse().unwrap()).await.unwrap();
            create(&db).await;
            let id = db.catalog().table(&TableRef::Name("t".parse().unwrap())).await.unwrap().id;
            (db, id)
        });
        let table = TableRef::Id(id);
        let append = || ChangeTarget::Existing { table: table.clone(), read_version: None };
        first.block_on(commit(&db, append(), adds(0..600)));
        drop(first);
        runtime().block_on(async {
            super::finished().await;
            assert_eq!(db.backend().skip_index(id).await.unwrap().segments.len(), 0, "not begun");
            commit(&db, append(), adds(600..1_200)).await;
            super::finished().await;
            let index = db.backend().skip_index(id).await.unwrap();
            assert_eq!(index.segments.iter().map(|segment| segment.files).sum::<i64>(), 1_200);
        });
        // One that is ending drops the work before it is begun, within the call that starts it.
        let ended = runtime();
        let handle = ended.handle().clone();
        drop(ended);
        let indexer = Indexer::new(db.catalog().clone());
        for _ in 0..2 {
            indexer.start(&handle, id);
            assert!(indexer.tables.lock().is_empty());
        }
    }

    #[test]
    fn a_mark_goes_with_the_work_and_there_are_only_so_many() {
        let tables = Arc::new(Tables::default());
        let id = |n: usize| TableId(uuid::Uuid::from_u128(n as u128));
        let mut mark = Mark::new(&tables, id(0)).unwrap();
        assert!(Mark::new(&tables, id(0)).is_none(), "one task a table");
        assert!(mark.again(true), "somebody came meanwhile");
        assert!(!mark.again(true));
        let panicking = Mark::new(&tables, id(0)).unwrap();
        drop(mark);
        assert!(Mark::new(&tables, id(0)).is_none(), "an old mark takes no new one away");
        let broken = std::thread::spawn(move || {
            let _mark = panicking;
            panic!("as a test");
        });
        broken.join().unwrap_err();
        let marks: Vec<_> = (0..MOST_TABLES).map(|n| Mark::new(&tables, id(n)).unwrap()).collect();
        assert!(Mark::new(&tables, id(MOST_TABLES)).is_none());
        drop(marks);
        assert!(Mark::new(&tables, id(MOST_TABLES)).is_some());
    }
}
