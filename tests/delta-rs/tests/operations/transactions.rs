//! Transactions over several tables.

use std::collections::{BTreeMap, HashMap};

use deltalakedb::core::error::CatalogError;
use deltalakedb::core::ids::TableName;
use deltalakedb::deltalake::{WAREHOUSE, deltalake as delta};
use deltalakedb::{CatalogUri, Db};
use tempfile::TempDir;

use crate::both::{rows, table_url};
use crate::databases::{self, Database};
use crate::shown::lines;
use crate::{append, batch, create};
use delta::DeltaTable;
use delta::datafusion::prelude::{col, lit};
use delta::protocol::SaveMode;

struct Lake {
    dir: TempDir,
    db: Db,
    url: String,
}

fn name(name: &str) -> TableName {
    name.parse().unwrap()
}

impl Lake {
    /// A catalog with the tables `a` and `b`: 10 rows of Monday, 10 of Tuesday.
    async fn new(db: Database) -> Lake {
        deltalakedb::deltalake::register();
        let dir = tempfile::tempdir().unwrap();
        let catalog = databases::url(db, &dir);
        let uri: CatalogUri = catalog.parse().unwrap();
        let lake = Lake { db: Db::create(&uri).await.unwrap(), dir, url: table_url(&catalog) };
        for table in ["a", "b"] {
            let made = create(lake.open(table).await, &[]).await.unwrap();
            let made = append(made, 0, 10, "mon").await.unwrap();
            append(made, 10, 10, "tue").await.unwrap();
        }
        lake
    }

    fn warehouse(&self) -> String {
        self.dir.path().join("lake").to_str().unwrap().to_owned()
    }

    /// Data files in a table's folder, also those that no version needs.
    fn data_files(&self, table: &str) -> Vec<std::path::PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.dir.path().join("lake/shop").join(table)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "parquet") {
                    files.push(path);
                }
            }
        }
        files
    }

    /// As everybody sees it.
    async fn open(&self, table: &str) -> DeltaTable {
        let url = self.url.replace("shop.t", &format!("shop.{table}"));
        let options = HashMap::from([(WAREHOUSE.to_owned(), self.warehouse())]);
        let url = delta::ensure_table_uri(url).unwrap();
        DeltaTable::try_from_url_with_storage_options(url, options).await.unwrap()
    }

    async fn state(&self, table: &str) -> (Option<u64>, usize) {
        let table = self.open(table).await;
        (table.version(), rows(&table).await.len())
    }
}

pub(crate) async fn two_tables_change_together_or_not_at_all(db: Database) {
    let lake = Lake::new(db).await;
    let tx = lake.db.transaction();
    let (a, b) = (name("shop.a"), name("shop.b"));
    append(tx.table(&a).await.unwrap(), 100, 5, "wed").await.unwrap();
    let deleted = tx.table(&b).await.unwrap().delete().with_predicate(col("day").eq(lit("mon")));
    deleted.await.unwrap();
    // It sees what it wrote, and nobody else does.
    assert_eq!(rows(&tx.table(&a).await.unwrap()).await.len(), 25);
    assert_eq!(rows(&tx.table(&b).await.unwrap()).await.len(), 10);
    assert_eq!((lake.state("a").await, lake.state("b").await), ((Some(2), 20), (Some(2), 20)));
    let report = tx.commit().await.unwrap().unwrap();
    assert_eq!(report.tables.len(), 2);
    assert_eq!((lake.state("a").await, lake.state("b").await), ((Some(3), 25), (Some(3), 10)));

    // As of one instant, whatever comes after it.
    let tx = lake.db.transaction();
    let both = tx.tables(&[b.clone(), a.clone()]).await.unwrap();
    append(lake.open("a").await, 600, 1, "wed").await.unwrap();
    assert_eq!((rows(&both[0]).await.len(), rows(&both[1]).await.len()), (10, 25));
    assert_eq!(rows(&tx.table(&a).await.unwrap()).await.len(), 25);
    let (rest, _) =
        lake.open("a").await.delete().with_predicate(col("id").eq(lit(600_i64))).await.unwrap();
    assert_eq!(rest.version(), Some(5));

    // One that is dropped, and one that did nothing.
    let tx = lake.db.transaction();
    append(tx.table(&a).await.unwrap(), 200, 5, "wed").await.unwrap();
    drop(tx);
    let tx = lake.db.transaction();
    assert_eq!(rows(&tx.table(&a).await.unwrap()).await.len(), 25);
    assert!(tx.commit().await.unwrap().is_none());
    assert_eq!(lake.state("a").await, (Some(5), 25));
}

pub(crate) async fn queries_see_all_tables_as_of_one_instant(db: Database) {
    let lake = Lake::new(db).await;
    let writers = lake.db.clone();
    let writer = tokio::spawn(async move {
        for moved in 0..8_i64 {
            // A row goes from one table to the other.
            let tx = writers.transaction();
            let from = tx.table(&name("shop.a")).await.unwrap();
            from.delete().with_predicate(col("id").eq(lit(moved))).await.unwrap();
            append(tx.table(&name("shop.b")).await.unwrap(), 100 + moved, 1, "mon").await.unwrap();
            tx.commit().await.unwrap();
        }
    });
    let queries = lake.db.queries();
    let text = "SELECT (SELECT count(*) FROM shop.a) AS a, (SELECT count(*) FROM shop.b) AS b";
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let last = writer.is_finished();
        let batches = queries.query(text).await.unwrap().collect().await.unwrap();
        let number = |index: usize| {
            let column = batches[0].column(index).as_any();
            column.downcast_ref::<arrow::array::Int64Array>().unwrap().value(0)
        };
        assert_eq!(number(0) + number(1), 40);
        seen.insert(number(0));
        if last {
            break;
        }
    }
    writer.await.unwrap();
    assert_eq!(seen.first(), Some(&12), "{seen:?}");
    let then = "SELECT count(*) FROM shop.a VERSION AS OF 2 x JOIN shop.b y ON x.id = y.id - 100";
    let batches = queries.query(then).await.unwrap().collect().await.unwrap();
    assert_eq!(lines(&batches).unwrap(), ["8"]);
}

pub(crate) async fn several_operations_become_one_version(db: Database) {
    let lake = Lake::new(db).await;
    let tx = lake.db.transaction();
    let a = name("shop.a");
    let table = append(tx.table(&a).await.unwrap(), 100, 5, "wed").await.unwrap();
    let updated = table.update().with_predicate(col("id").gt_eq(lit(100_i64)));
    let (table, _) = updated.with_update("name", lit("new")).await.unwrap();
    let (table, _) = table.delete().with_predicate(col("id").lt(lit(3_i64))).await.unwrap();
    let (table, _) = table.optimize().await.unwrap();
    assert!(table.version() >= Some(5));
    let seen = rows(&table).await;
    assert_eq!(seen.len(), 22);
    tx.commit().await.unwrap().unwrap();
    let after = lake.open("a").await;
    assert_eq!((after.version(), rows(&after).await), (Some(3), seen));
    let history: Vec<_> =
        futures::TryStreamExt::try_collect::<Vec<_>>(after.history(None)).await.unwrap();
    assert_eq!(history[0].operation.as_deref(), Some("TRANSACTION"));

    // With a change data feed one version cannot say what several changes did.
    let fed = create(lake.open("fed").await, &[("delta.enableChangeDataFeed", "true")]).await;
    append(fed.unwrap(), 0, 10, "mon").await.unwrap();
    let tx = lake.db.transaction();
    let table = tx.table(&name("shop.fed")).await.unwrap();
    let (table, _) = table.delete().with_predicate(col("id").lt(lit(3_i64))).await.unwrap();
    append(table, 30, 1, "mon").await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(error.to_string().contains("change data feed"), "{error}");
    assert_eq!(lake.state("fed").await, (Some(1), 10));
}

pub(crate) async fn conflicts_end_a_transaction_whole(db: Database) {
    let lake = Lake::new(db).await;
    let (a, b) = (name("shop.a"), name("shop.b"));
    // What others do to `b` meanwhile, and whether the transaction can still be committed.
    for (others_day, passes) in [("tue", true), ("mon", false)] {
        let before = (lake.state("a").await, lake.state("b").await);
        let tx = lake.db.transaction();
        append(tx.table(&a).await.unwrap(), 300, 1, "mon").await.unwrap();
        let table = tx.table(&b).await.unwrap();
        let monday = col("day").eq(lit("mon"));
        table.update().with_predicate(monday).with_update("name", lit("x")).await.unwrap();
        // A read version is not a blind append: what is added to what was read counts.
        let others = lake.open("b").await;
        let others_work = others.update().with_predicate(col("day").eq(lit(others_day)));
        others_work.with_update("name", lit("theirs")).await.unwrap();
        let ended = tx.commit().await;
        if passes {
            ended.unwrap();
            assert_eq!(lake.state("a").await.0, before.0.0.map(|v| v + 1));
            assert_eq!(lake.state("b").await.0, before.1.0.map(|v| v + 2));
        } else {
            let error = ended.unwrap_err();
            assert!(matches!(error, CatalogError::Conflict(_)), "{error}");
            assert_eq!(lake.state("a").await, before.0, "not even the other table");
            assert_eq!(lake.state("b").await.0, before.1.0.map(|v| v + 1));
        }
    }
    // Two overwrites of a table that had no files: only one can be what is there.
    create(lake.open("empty").await, &[]).await.unwrap();
    let tx = lake.db.transaction();
    let overwrite = async |table: DeltaTable, id: i64| {
        table.write([batch([id], "mon")]).with_save_mode(SaveMode::Overwrite).await.unwrap()
    };
    overwrite(tx.table(&name("shop.empty")).await.unwrap(), 1).await;
    overwrite(lake.open("empty").await, 2).await;
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, CatalogError::Conflict(_)), "{error}");
    assert_eq!(lake.state("empty").await, (Some(1), 1));
    // A table that is gone.
    let tx = lake.db.transaction();
    append(tx.table(&a).await.unwrap(), 400, 1, "mon").await.unwrap();
    append(tx.table(&b).await.unwrap(), 400, 1, "mon").await.unwrap();
    lake.db.drop_table(&deltalakedb::core::ids::TableRef::Name(b)).await.unwrap();
    let before = lake.state("a").await;
    let error = tx.commit().await.unwrap_err().to_string();
    assert!(error.contains("drop") || error.contains("not in the catalog"), "{error}");
    assert_eq!(lake.state("a").await, before);
}

pub(crate) async fn tables_are_made_in_transactions(db: Database) {
    let lake = Lake::new(db).await;
    let tx = lake.db.transaction();
    let options = BTreeMap::from([(WAREHOUSE.to_owned(), lake.warehouse())]);
    let fresh = tx.table_with(&name("shop.fresh"), options).await.unwrap();
    assert_eq!(fresh.version(), None);
    let fresh = create(fresh, &[]).await.unwrap();
    append(fresh, 0, 7, "mon").await.unwrap();
    append(tx.table(&name("shop.a")).await.unwrap(), 500, 1, "mon").await.unwrap();
    assert_eq!(lake.state("a").await, (Some(2), 20));
    assert_eq!(lake.open("fresh").await.version(), None);
    tx.commit().await.unwrap().unwrap();
    assert_eq!(lake.state("a").await, (Some(3), 21));
    assert_eq!(lake.state("fresh").await, (Some(0), 7));
    // Two that make the same table: the second is told so.
    let (one, two) = (lake.db.transaction(), lake.db.transaction());
    for tx in [&one, &two] {
        let options = BTreeMap::from([(WAREHOUSE.to_owned(), lake.warehouse())]);
        let table = tx.table_with(&name("shop.twice"), options).await.unwrap();
        create(table, &[]).await.unwrap();
    }
    one.commit().await.unwrap();
    let error = two.commit().await.unwrap_err();
    assert!(matches!(error, CatalogError::TableExists { .. }), "{error}");
}

pub(crate) async fn frozen_tables_are_read_and_not_written(db: Database) {
    let lake = Lake::new(db).await;
    let (a, b) = (name("shop.a"), name("shop.b"));
    let monday = || col("day").eq(lit("mon"));
    // Files that a vacuum would delete, and some that could be put together.
    let first = col("id").lt(lit(3_i64));
    lake.open("a").await.delete().with_predicate(first).await.unwrap();
    append(lake.open("a").await, 20, 1, "mon").await.unwrap();
    let before = lake.state("a").await;
    let files = lake.data_files("a");
    // Both have begun before the freeze.
    let stale = lake.open("a").await;
    let tx = lake.db.transaction();
    append(tx.table(&a).await.unwrap(), 700, 1, "wed").await.unwrap();
    append(tx.table(&b).await.unwrap(), 700, 1, "wed").await.unwrap();
    lake.db.freeze(["shop.a"]).reason("the store moves").await.unwrap();

    let error = tx.commit().await.unwrap_err();
    assert_eq!(error.code(), "table_frozen", "{error}");
    assert!(error.to_string().contains("table 'shop.a' is frozen since"), "{error}");
    assert_eq!(lake.state("b").await, (Some(2), 20), "not even the other table");
    // `deltalake` looks at what has won before it tries again, and refuses by that.
    let error = append(stale, 800, 1, "wed").await.err().unwrap().to_string();
    assert!(error.contains("Protocol changed since last commit"), "{error}");

    // What is opened now names the feature, whatever it wants to do.
    let open = async || lake.open("a").await;
    let update = open().await.update().with_predicate(monday()).with_update("name", lit("x"));
    let properties = HashMap::from([("delta.appendOnly".to_owned(), "false".to_owned())]);
    let vacuum = open().await.vacuum().with_retention_period(chrono::Duration::zero());
    for error in [
        append(open().await, 900, 1, "mon").await.err(),
        open().await.delete().with_predicate(monday()).await.err(),
        update.await.err(),
        open().await.optimize().await.err(),
        open().await.set_tbl_properties().with_properties(properties).await.err(),
        open().await.restore().with_version_to_restore(1).await.err(),
        vacuum.with_enforce_retention_duration(false).await.err(),
    ] {
        let error = error.expect("it is refused").to_string();
        assert!(error.contains("frozen"), "{error}");
    }
    assert_eq!(lake.state("a").await, (before.0.map(|v| v + 1), before.1), "all rows are read");
    let there = lake.data_files("a");
    assert!(files.iter().all(|file| there.contains(file)), "nothing was deleted");
    let queries = lake.db.queries();
    let rows = queries.query("SELECT id FROM shop.a").await.unwrap().collect().await.unwrap();
    assert_eq!(
        rows.iter().map(delta::arrow::array::RecordBatch::num_rows).sum::<usize>(),
        before.1
    );

    lake.db.unfreeze(["shop.a"]).await.unwrap();
    append(open().await, 900, 1, "mon").await.unwrap();
    // Past a freeze and its end.
    let then = before.0.unwrap();
    open().await.restore().with_version_to_restore(then).await.unwrap();
    assert_eq!(lake.state("a").await.1, before.1);
}
