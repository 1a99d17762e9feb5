//! Each operation of the `deltalake` crate, on a plain table and on one in a catalog: rows, schema,
//! properties, history and errors are equal after every step, and what is published reads the same.
//!
//! PostgreSQL and MariaDB are started from this machine's packages; SQL Server is the one that
//! `DL_TEST_MSSQL_URL` names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests: clippy only knows the functions that are marked as such"
)]

mod both;
mod conflicts;
mod databases;
mod errors;
mod figures;
mod imported;
mod random;
mod readers;
mod shown;
mod transactions;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use deltalakedb::deltalake::deltalake as delta;

use both::Both;
use conflicts::pairs_end_as_they_do_on_a_plain_table;
use databases::Database;
use delta::DeltaTable;
use delta::datafusion::prelude::{SessionContext, col, lit};
use delta::kernel::{DataType as DeltaType, PrimitiveType, StructField};
use delta::operations::optimize::OptimizeType;
use delta::operations::write::SchemaMode;
use delta::protocol::SaveMode;
use errors::what_is_wrong_is_said;
use random::writers_end_as_a_serial_replay_of_what_they_committed;
use transactions::{
    conflicts_end_a_transaction_whole, frozen_tables_are_read_and_not_written,
    queries_see_all_tables_as_of_one_instant, several_operations_become_one_version,
    tables_are_made_in_transactions, two_tables_change_together_or_not_at_all,
};

type Result<T> = std::result::Result<T, delta::DeltaTableError>;

fn batch(ids: impl IntoIterator<Item = i64>, day: &str) -> RecordBatch {
    let ids: Vec<i64> = ids.into_iter().collect();
    let names: Vec<String> = ids.iter().map(|id| format!("name {id}")).collect();
    let days = vec![day; ids.len()];
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("day", DataType::Utf8, true),
    ]);
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(Int64Array::from(ids)),
        Arc::new(StringArray::from(names)),
        Arc::new(StringArray::from(days)),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn columns() -> Vec<StructField> {
    let text = || DeltaType::Primitive(PrimitiveType::String);
    vec![
        StructField::new("id", DeltaType::Primitive(PrimitiveType::Long), true),
        StructField::new("name", text(), true),
        StructField::new("day", text(), true),
    ]
}

async fn create(table: DeltaTable, properties: &[(&str, &str)]) -> Result<DeltaTable> {
    let properties: HashMap<String, Option<String>> =
        properties.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect();
    table
        .create()
        .with_table_name("t")
        .with_columns(columns())
        .with_partition_columns(["day"])
        .with_configuration(properties)
        .with_raise_if_key_not_exists(false)
        .await
}

async fn append(table: DeltaTable, first: i64, count: i64, day: &str) -> Result<DeltaTable> {
    table.write([batch(first..first + count, day)]).with_save_mode(SaveMode::Append).await
}

/// Declares each test once for each database.
macro_rules! on_every_database {
    ($($test:ident),* $(,)?) => {
        on_every_database!(@ sqlite Sqlite $($test)*);
        on_every_database!(@ postgres Postgres $($test)*);
        on_every_database!(@ mysql MySql $($test)*);
        on_every_database!(@ mssql Mssql $($test)*);
    };
    (@ $module:ident $database:ident $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    let db = super::Database::$database;
                    if super::databases::is_there(db) {
                        super::$test(db).await;
                    }
                }
            )*
        }
    };
}

on_every_database!(
    tables_are_created_and_appended_to,
    overwrites,
    schemas_are_merged_and_overwritten,
    rows_are_deleted_and_updated,
    rows_are_merged,
    files_are_compacted_and_ordered,
    old_versions_are_read_and_restored,
    constraints_and_properties,
    change_data_is_read,
    files_are_vacuumed,
    many_commits,
    pairs_end_as_they_do_on_a_plain_table,
    what_is_wrong_is_said,
    blind_appends,
    applications_and_times,
    writers_end_as_a_serial_replay_of_what_they_committed,
    two_tables_change_together_or_not_at_all,
    several_operations_become_one_version,
    conflicts_end_a_transaction_whole,
    tables_are_made_in_transactions,
    queries_see_all_tables_as_of_one_instant,
    frozen_tables_are_read_and_not_written,
);

/// A table with three appends over two partitions.
async fn filled(db: Database) -> Both {
    filled_with(db, &[]).await
}

async fn filled_with(db: Database, properties: &'static [(&'static str, &'static str)]) -> Both {
    let mut both = Both::new(db).await;
    both.each("create", async |t| create(t, properties).await).await;
    both.each("append", async |t| append(t, 0, 10, "mon").await).await;
    both.each("append", async |t| append(t, 10, 10, "tue").await).await;
    both.each("append", async |t| append(t, 20, 10, "mon").await).await;
    both
}

/// The same table, which is not looked at on the way: many tests begin with it.
async fn filled_quietly(db: Database) -> Both {
    let mut both = Both::new(db).await;
    both.each_quietly(async |t| create(t, &[]).await).await;
    both.each_quietly(async |t| append(t, 0, 10, "mon").await).await;
    both.each_quietly(async |t| append(t, 10, 10, "tue").await).await;
    both.each_quietly(async |t| append(t, 20, 10, "mon").await).await;
    both
}

async fn tables_are_created_and_appended_to(db: Database) {
    let both = filled(db).await;
    assert_eq!(both.rows().await.len(), 30);
    both.finish().await;
}

async fn overwrites(db: Database) {
    let mut both = filled_quietly(db).await;
    both.each("replace a partition", async |t| {
        t.write([batch([100, 101], "mon")])
            .with_save_mode(SaveMode::Overwrite)
            .with_replace_where("day = 'mon'")
            .await
    })
    .await;
    assert_eq!(both.rows().await.len(), 12);
    both.each("overwrite", async |t| {
        t.write([batch([7], "wed")]).with_save_mode(SaveMode::Overwrite).await
    })
    .await;
    assert_eq!(both.rows().await.len(), 1);
    both.finish().await;
}

async fn schemas_are_merged_and_overwritten(db: Database) {
    let mut both = filled_quietly(db).await;
    let wider = |id: i64| {
        let narrow = batch([id], "mon");
        let mut fields: Vec<Field> =
            narrow.schema().fields().iter().map(|f| f.as_ref().clone()).collect();
        fields.push(Field::new("extra", DataType::Int64, true));
        let mut columns = narrow.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(vec![id * 2])));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    both.refused("a column that is not there", async |t| {
        t.write([wider(50)]).with_save_mode(SaveMode::Append).await
    })
    .await;
    both.each("merge the schema", async |t| {
        t.write([wider(50)])
            .with_save_mode(SaveMode::Append)
            .with_schema_mode(SchemaMode::Merge)
            .await
    })
    .await;
    both.each("overwrite the schema", async |t| {
        let schema = Schema::new(vec![
            Field::new("day", DataType::Utf8, true),
            Field::new("only", DataType::Int64, true),
        ]);
        let columns: Vec<Arc<dyn Array>> =
            vec![Arc::new(StringArray::from(vec!["sun"])), Arc::new(Int64Array::from(vec![1]))];
        let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        t.write([batch])
            .with_save_mode(SaveMode::Overwrite)
            .with_schema_mode(SchemaMode::Overwrite)
            .await
    })
    .await;
    both.each("add a column", async |t| {
        let field = StructField::new("later", DeltaType::Primitive(PrimitiveType::Date), true);
        t.add_columns().with_fields([field]).await
    })
    .await;
    both.finish().await;
}

async fn rows_are_deleted_and_updated(db: Database) {
    let mut both = filled_quietly(db).await;
    both.each("delete a partition", async |t| {
        Ok(t.delete().with_predicate(col("day").eq(lit("tue"))).await?.0)
    })
    .await;
    both.each("delete some rows", async |t| {
        Ok(t.delete().with_predicate(col("id").lt(lit(3_i64))).await?.0)
    })
    .await;
    both.each("update", async |t| {
        let rows = t.update().with_predicate(col("id").gt(lit(25_i64)));
        Ok(rows.with_update("name", lit("changed")).await?.0)
    })
    .await;
    both.each("delete nothing", async |t| {
        Ok(t.delete().with_predicate(col("id").eq(lit(-1_i64))).await?.0)
    })
    .await;
    both.refused("a predicate on no column", async |t| {
        Ok(t.delete().with_predicate(col("nosuch").eq(lit(1_i64))).await?.0)
    })
    .await;
    both.each("delete all", async |t| Ok(t.delete().await?.0)).await;
    assert_eq!(both.rows().await.len(), 0);
    both.finish().await;
}

async fn rows_are_merged(db: Database) {
    let mut both = filled_quietly(db).await;
    both.each("merge", async |t| {
        let source = SessionContext::new().read_batch(batch(25..35, "mon"))?;
        let merged = t
            .merge(source, col("target.id").eq(col("source.id")))
            .with_source_alias("source")
            .with_target_alias("target")
            .when_matched_update(|update| update.update("name", lit("met")))?
            .when_not_matched_insert(|insert| {
                insert
                    .set("id", col("source.id"))
                    .set("name", col("source.name"))
                    .set("day", col("source.day"))
            })?
            .when_not_matched_by_source_delete(|delete| {
                delete.predicate(col("target.id").lt(lit(5_i64)))
            })?
            .await?;
        Ok(merged.0)
    })
    .await;
    assert_eq!(both.rows().await.len(), 30);
    both.finish().await;
}

async fn files_are_compacted_and_ordered(db: Database) {
    let mut both = filled_quietly(db).await;
    both.each("compact", async |t| {
        Ok(t.optimize().with_target_size(NonZeroU64::new(1 << 20).unwrap()).await?.0)
    })
    .await;
    both.each("z-order", async |t| {
        let kind = OptimizeType::ZOrder(vec!["id".to_owned()]);
        Ok(t.optimize().with_type(kind).await?.0)
    })
    .await;
    both.finish().await;
}

async fn old_versions_are_read_and_restored(db: Database) {
    let mut both = filled_quietly(db).await;
    both.each("delete", async |t| {
        Ok(t.delete().with_predicate(col("id").lt(lit(15_i64))).await?.0)
    })
    .await;
    for version in 0..=4 {
        both.compare_version(version).await;
    }
    both.each("restore", async |t| Ok(t.restore().with_version_to_restore(2).await?.0)).await;
    assert_eq!(both.rows().await.len(), 20);
    both.refused("restore what never was", async |t| {
        Ok(t.restore().with_version_to_restore(99).await?.0)
    })
    .await;
    both.finish().await;
}

async fn constraints_and_properties(db: Database) {
    let mut both = filled_quietly(db).await;
    both.each("constraint", async |t| {
        t.add_constraint().with_constraint("positive", "id >= 0").await
    })
    .await;
    both.refused("a row that breaks it", async |t| append(t, -5, 1, "mon").await).await;
    both.each("properties", async |t| {
        let properties = HashMap::from([("delta.appendOnly".to_owned(), "true".to_owned())]);
        t.set_tbl_properties().with_properties(properties).await
    })
    .await;
    both.refused("a delete from it", async |t| Ok(t.delete().await?.0)).await;
    both.each("append", async |t| append(t, 40, 2, "tue").await).await;
    both.finish().await;
}

async fn change_data_is_read(db: Database) {
    let mut both = filled_with(db, &[("delta.enableChangeDataFeed", "true")]).await;
    both.each("update", async |t| {
        let rows = t.update().with_predicate(col("id").eq(lit(4_i64)));
        Ok(rows.with_update("name", lit("new")).await?.0)
    })
    .await;
    both.each("delete", async |t| Ok(t.delete().with_predicate(col("id").eq(lit(5_i64))).await?.0))
        .await;
    both.compare_changes().await;
    both.finish().await;
}

async fn files_are_vacuumed(db: Database) {
    let mut both = filled_quietly(db).await;
    both.each("delete", async |t| {
        Ok(t.delete().with_predicate(col("id").lt(lit(15_i64))).await?.0)
    })
    .await;
    both.each("vacuum", async |t| {
        let zero = std::time::Duration::ZERO;
        let kept = t.vacuum().with_retention_period(to_chrono(zero));
        Ok(kept.with_enforce_retention_duration(false).await?.0)
    })
    .await;
    assert_eq!(both.rows().await.len(), 15);
    both.finish().await;
}

fn to_chrono(duration: std::time::Duration) -> chrono::Duration {
    chrono::Duration::from_std(duration).unwrap()
}

async fn applications_and_times(db: Database) {
    use delta::kernel::transaction::CommitProperties;
    let mut both = filled_quietly(db).await;
    for version in [3, 7] {
        both.each("append of an application", async |t| {
            let app = delta::kernel::Transaction::new("app", version);
            let says = CommitProperties::default().with_application_transaction(app);
            let new = t.write([batch([version], "mon")]).with_save_mode(SaveMode::Append);
            new.with_commit_properties(says).await
        })
        .await;
        both.each_sees(async |t| {
            let snapshot = t.snapshot().unwrap();
            let log = t.log_store();
            let of =
                async |app: &str| snapshot.transaction_version(log.as_ref(), app).await.unwrap();
            assert_eq!((of("app").await, of("other").await), (Some(version), None));
        })
        .await;
    }
    // Each version is found by its time.
    use delta::logstore::object_store::ObjectStoreExt;
    both.each_sees(async |t| {
        for version in 0..=5 {
            let file = delta::Path::from(format!("_delta_log/{version:020}.json"));
            let at = t.object_store().head(&file).await.unwrap().last_modified;
            let mut then = t.clone();
            then.load_with_datetime(at).await.unwrap();
            assert_eq!(then.version(), Some(version));
        }
    })
    .await;
    both.finish().await;
}

/// Longer than `deltalake`'s own checkpoint interval, and than the commits that are read one by one.
async fn many_commits(db: Database) {
    let mut both = Both::new(db).await;
    both.each("create", async |t| create(t, &[("delta.checkpointInterval", "20")]).await).await;
    for i in 0..120 {
        both.each_quietly(async |t| append(t, i, 1, "mon").await).await;
    }
    both.compare("120 appends").await;
    for version in [0, 5, 60, 119] {
        both.compare_version(version).await;
    }
    both.finish().await;
}

/// Through the kernel's own transactions, which create `N.json` in the store.
async fn blind_appends(db: Database) {
    use delta::writer::{DeltaWriter, RecordBatchWriter};
    let mut both = filled_quietly(db).await;
    both.each("blind append", async |t| {
        let url = t.table_url().to_string();
        let mut blind = delta::BlindDeltaTable::try_new(&url).await?;
        let mut writer = RecordBatchWriter::for_blind_appends(&blind)?;
        writer.write(batch(40..42, "tue")).await?;
        let adds = writer.flush().await?;
        assert_eq!(blind.commit(adds).await?, 4);
        let mut t = t;
        t.load().await?;
        Ok(t)
    })
    .await;
    assert_eq!(both.rows().await.len(), 32);
    both.finish().await;
}
