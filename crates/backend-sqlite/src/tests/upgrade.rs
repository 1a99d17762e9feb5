//! Catalogs of version 2 become catalogs of this version, or stay what they are.

use std::sync::Arc;

use bytes::Bytes;
use deltalakedb_catalog_core::action::{DomainMetadata, Txn};
use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{
    ClaimRequest, ImportEnd, ImportStep, PublishFailure, Published, Settlement,
};
use deltalakedb_catalog_core::commit::CommitIndex;
use deltalakedb_catalog_core::error::{CatalogError, PlainResult};
use deltalakedb_catalog_core::ids::{At, TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, FileCursor, NewSkipSegment, SkipPage, TableState,
};
use rusqlite::Connection;

use super::old::{dump, to_version_1, to_version_2};
use super::support::{
    NOW, Place, add, append, change, create, id, index, metadata, new_table, paths, protocol, raw,
    remove,
};
use crate::schema::layout::LAYOUT;
use crate::schema::upgrade::Upgrade;
use crate::{SqliteBackend, SqliteOptions};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

fn claim(owner: &str) -> ClaimRequest {
    ClaimRequest {
        owner: owner.to_owned(),
        now: NOW,
        lease_ms: 1_000,
        max_tables: 9,
        max_versions: 2,
        only: None,
    }
}

fn base(skip_files: u64, files: &[&str], is_last: bool) -> ImportStep {
    ImportStep::Base {
        skip_files,
        skip_tombstones: skip_files,
        chunk: BaseChunk {
            files: files.iter().map(|path| add(path)).collect(),
            tombstones: vec![remove(&format!("old-{skip_files}"), 7)],
        },
        tail: is_last.then(|| BaseTail {
            protocol: protocol(),
            metadata: metadata(),
            txns: Vec::new(),
            domain_metadata: Vec::new(),
            timestamp: TimestampMs(77),
        }),
    }
}

/// Rows in every table: of tables that are active, dropped, and being imported.
async fn fill(backend: &SqliteBackend) {
    // Ids do not grow with age.
    for n in [4, 2, 7, 1] {
        backend.commit(create(n)).await.unwrap();
    }
    change(backend, 1, "1", &["a", "b", "c"], &[]).await;
    change(backend, 2, "2", &["a", "b"], &[]).await;
    change(backend, 1, "3", &["d", "a"], &["b"]).await;
    let more = CommitIndex {
        txns: vec![Txn { app_id: "app".to_owned(), version: 3, last_updated: Some(4) }],
        domain_metadata: vec![DomainMetadata {
            domain: "domain".to_owned(),
            configuration: "{}".to_owned(),
            removed: false,
        }],
        ..index(vec![add("e")], vec![remove("c", 100)])
    };
    backend.commit(append(1, "4", more)).await.unwrap();
    backend.drop_table(id(7), &Act::at(NOW)).await.unwrap();

    let tasks = backend.mirror_claim(&claim("worker")).await.unwrap();
    for task in tasks {
        let first = task.versions[0];
        let done = Published { version: first, digest: "ab".to_owned(), at: NOW };
        backend.mirror_settle(&task.lease, Settlement::Published(&[done])).await.unwrap();
        if task.table.id == id(2) {
            let failure = PublishFailure {
                version: v(1),
                error: "as a test".to_owned(),
                retry_at: TimestampMs(NOW.0 + 50),
                diverged: false,
            };
            backend.mirror_settle(&task.lease, Settlement::Failed(&failure)).await.unwrap();
        }
    }
    backend.import_begin(&new_table(9), v(5), false, NOW).await.unwrap();
    backend.import_step(id(9), base(0, &["x", "y"], false)).await.unwrap();
    let segment = NewSkipSegment {
        after: None,
        through: FileCursor { added_version: v(2), ordinal: 0 },
        version: v(3),
        files: 4,
        root: Bytes::from_static(b"root"),
        pages: vec![Bytes::from_static(b"page")],
    };
    assert!(backend.skip_replace(id(1), 0, &[], &segment).await.unwrap());
}

/// A catalog of version 2 in a file that nobody has open.
async fn version_2(place: &Place) -> Connection {
    fill(&*place.catalog().await).await;
    let conn = raw(&place.path());
    to_version_2(&conn, "dl_");
    conn
}

/// What is defined in a file.
fn definitions(conn: &Connection) -> Vec<(String, Option<String>)> {
    conn.prepare("SELECT name, sql FROM sqlite_master ORDER BY name")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn is_intact(conn: &Connection) {
    let integrity: String =
        conn.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
}

async fn fails(backend: &SqliteBackend) -> CatalogError {
    backend.migrate(NOW).await.plain().unwrap_err()
}

#[tokio::test]
async fn every_row_is_there_after_an_upgrade_and_the_tables_are_as_new() {
    for from in [1, 2] {
        let place = Place::new();
        fill(&*place.catalog().await).await;
        let conn = raw(&place.path());
        let (mut rows, new) = (dump(&conn, "dl_"), definitions(&conn));
        assert!(rows.iter().all(|(_, rows)| !rows.is_empty()), "{rows:?}");
        to_version_2(&conn, "dl_");
        if from == 1 {
            to_version_1(&conn, "dl_");
            rows.retain(|(table, _)| !table.starts_with("skip"));
        } else {
            assert_eq!(dump(&conn, "dl_"), rows, "as a test of the test");
        }
        let must_exist = SqliteOptions { must_exist: true, ..place.options() };
        let refused = SqliteBackend::open(must_exist.clone()).unwrap_err().to_string();
        assert!(refused.contains(&format!("version {from},")), "{refused}");

        place.open().migrate(NOW).await.unwrap();
        let mut after = dump(&conn, "dl_");
        if from == 1 {
            after.retain(|(table, _)| !table.starts_with("skip"));
        }
        assert_eq!(after, rows);
        assert_eq!(definitions(&conn), new);
        is_intact(&conn);
        let versions: String = conn
            .query_row("SELECT group_concat(version) FROM dl_schema", [], |row| row.get(0))
            .unwrap();
        assert_eq!(versions, "1,2,3,4,5");
        // Keys are given by age.
        let keys: String = conn
            .query_row(
                "SELECT group_concat(name, ' ') FROM (SELECT name FROM dl_tables ORDER BY table_key)",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(keys, "t1 t2 t4 t7 t9", "of one age by id");
        SqliteBackend::open(must_exist).unwrap();
    }
}

#[tokio::test]
async fn an_upgraded_catalog_is_worked_with_as_before() {
    let place = Place::new();
    drop(version_2(&place).await);
    let backend = place.catalog().await;
    assert_eq!(paths(&backend, 1, 1).await, ["a", "b", "c"]);
    assert_eq!(paths(&backend, 1, 3).await, ["d", "a", "e"]);
    assert_eq!(change(&backend, 1, "5", &["f"], &["d"]).await, v(4));
    assert_eq!(paths(&backend, 1, 4).await, ["a", "e", "f"]);
    let tombstones = backend.list_tombstones(id(1), v(4), TimestampMs(1), None, 9).await.unwrap();
    let gone: Vec<_> = tombstones.items.iter().map(|t| t.remove.path.as_str()).collect();
    assert_eq!(gone, ["b", "c", "d"]);
    // A token that took effect before takes none now.
    let again = backend.commit(append(1, "3", index(vec![add("z")], vec![]))).await.unwrap();
    assert!(format!("{again:?}").starts_with("Replayed"), "{again:?}");

    let index = backend.skip_index(id(1)).await.unwrap();
    assert_eq!((index.generation, index.segments.len()), (1, 1));
    let pages = backend.skip_pages(id(1), &[SkipPage { segment: 1, page: 0 }]).await.unwrap();
    assert_eq!(pages, [Some(Bytes::from_static(b"page"))]);

    let rows = backend.mirror_rows(None, None, None, 99).await.unwrap().items;
    let open: Vec<_> = rows.iter().map(|row| (row.table_id, row.version.get())).collect();
    assert_eq!(open, [(id(1), 1), (id(1), 2), (id(1), 3), (id(1), 4), (id(2), 1), (id(7), 0)]);
    let tasks = backend.mirror_claim(&claim("worker")).await.unwrap();
    let tables: Vec<_> = tasks.iter().map(|task| task.table.id).collect();
    assert_eq!(tables, [id(1)], "the other one is to be tried later");
    assert_eq!(backend.mirror_retry(id(2), &Act::at(NOW)).await.unwrap(), 1);

    backend.import_step(id(9), base(2, &["w"], false)).await.unwrap_err();
    let step = ImportStep::Base {
        skip_files: 2,
        skip_tombstones: 1,
        chunk: BaseChunk { files: vec![add("w")], tombstones: Vec::new() },
        tail: match base(0, &[], true) {
            ImportStep::Base { tail, .. } => tail,
            ImportStep::Commits(_) => None,
        },
    };
    backend.import_step(id(9), step).await.unwrap();
    backend.import_finish(id(9), ImportEnd::default(), &Act::at(NOW)).await.unwrap();
    assert_eq!(paths(&backend, 9, 5).await, ["x", "y", "w"]);

    let name = TableName::new("test", "again").unwrap();
    let back = backend.undrop_table(id(7), &name, &Act::default()).await.unwrap();
    assert_eq!(back.state, TableState::Active);
    change(&backend, 7, "7", &["q"], &[]).await;
    // A new table gets a key that no table ever had.
    backend.import_begin(&new_table(10), v(0), false, NOW).await.unwrap();
    backend.import_abort(id(10), &Act::default()).await.unwrap();
    backend.commit(create(11)).await.unwrap();
    let key: i64 = raw(&place.path())
        .query_row("SELECT table_key FROM dl_tables WHERE name = 't11'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(key, 7, "after five tables and one that was given up");
}

#[tokio::test]
async fn what_others_added_to_our_tables_is_not_lost() {
    let place = Place::new();
    let conn = version_2(&place).await;
    let backend = place.open();
    for (name, add, drop) in [
        ("view 'v'", "CREATE VIEW v AS SELECT path FROM main.DL_FILES", "DROP VIEW v"),
        (
            "trigger 'on_ours'",
            "CREATE TRIGGER on_ours AFTER INSERT ON dl_commits BEGIN SELECT 1; END",
            "DROP TRIGGER on_ours",
        ),
        (
            "trigger 'on_theirs'",
            "CREATE TABLE theirs (x); CREATE TRIGGER on_theirs AFTER INSERT ON theirs
             BEGIN DELETE FROM dl_files; END",
            "DROP TABLE theirs",
        ),
        ("index 'i'", "CREATE INDEX i ON dl_files (path)", "DROP INDEX i"),
        (
            "foreign key of table 'child'",
            "CREATE TABLE child (t TEXT REFERENCES dl_tables (id))",
            "DROP TABLE child",
        ),
        (
            "column 'more' of table 'dl_commits'",
            "ALTER TABLE dl_commits ADD COLUMN more",
            "ALTER TABLE dl_commits DROP COLUMN more",
        ),
        ("'dl_files_2'", "CREATE TABLE dl_files_2 (x)", "DROP TABLE dl_files_2"),
    ] {
        conn.execute_batch(add).unwrap();
        let (rows, before) = (dump(&conn, "dl_"), definitions(&conn));
        let error = fails(&backend).await;
        let text = error.to_string();
        assert!(matches!(error, CatalogError::Schema(_)), "{text}");
        assert!(text.contains(name) && text.contains("Nothing was changed"), "{text}");
        assert_eq!(dump(&conn, "dl_"), rows, "{name}");
        assert_eq!(definitions(&conn), before, "{name}");
        conn.execute_batch(drop).unwrap();
    }
    // What has nothing to do with our tables stays.
    conn.execute_batch("CREATE TABLE theirs (x); CREATE VIEW w AS SELECT x FROM theirs").unwrap();
    backend.migrate(NOW).await.unwrap();
    conn.query_row("SELECT count(*) FROM w", [], |_| Ok(())).unwrap();
}

#[tokio::test]
async fn rows_of_a_table_that_is_gone_refuse_the_upgrade() {
    let place = Place::new();
    let conn = version_2(&place).await;
    let lost = format!("INSERT INTO dl_skip_index VALUES ('{}', 1)", id(99));
    conn.execute_batch(&lost).unwrap();
    conn.execute_batch(
        "INSERT INTO dl_files SELECT 'gone', added_version, ordinal, removed_version, is_tombstone,
            deletion_timestamp, file_key, size, modification_time, data_change, base_row_id,
            default_row_commit_version, path, dv_id, partition_values, tags, deletion_vector,
            clustering_provider, stats, remove_action FROM dl_files LIMIT 1",
    )
    .unwrap();
    let (rows, before) = (dump(&conn, "dl_"), definitions(&conn));
    let backend = place.open();
    let error = fails(&backend).await;
    let text = error.to_string();
    assert!(matches!(error, CatalogError::Corrupt(_)), "{text}");
    assert!(text.contains("'dl_files' has 12 rows, but 11 of them"), "{text}");
    assert_eq!(dump(&conn, "dl_"), rows);
    assert_eq!(definitions(&conn), before);
    // An index of a table that is gone is nothing that is missed.
    conn.execute_batch("DELETE FROM dl_files WHERE table_id = 'gone'").unwrap();
    backend.migrate(NOW).await.unwrap();
    let indexes: i64 =
        conn.query_row("SELECT count(*) FROM dl_skip_index", [], |row| row.get(0)).unwrap();
    assert_eq!(indexes, 1);
}

#[tokio::test]
async fn readers_go_on_with_what_they_read_and_old_programs_fail() {
    let place = Place::new();
    let conn = version_2(&place).await;
    // A program of version 2 that is in the middle of reading, and one that reads again and again.
    let reading = raw(&place.path());
    reading.execute_batch("BEGIN").unwrap();
    let files = "SELECT count(*) FROM dl_files WHERE table_id = ?1";
    let count = |conn: &Connection| {
        conn.prepare_cached(files)?.query_row([id(1).to_string()], |row| row.get::<_, i64>(0))
    };
    assert_eq!(count(&reading).unwrap(), 6);
    assert_eq!(count(&conn).unwrap(), 6);
    // Programs of this version that were open before the upgrade.
    let (ours, other) = (place.open(), place.open());
    let refused = other.get_table(&TableRef::Id(id(1))).await.unwrap_err();
    assert!(refused.to_string().contains("dl init"), "{refused}");
    ours.migrate(NOW).await.unwrap();
    assert_eq!(count(&reading).unwrap(), 6, "as of its beginning");
    let text = count(&conn).unwrap_err().to_string();
    assert!(text.contains("table_id"), "{text}");
    let insert =
        "INSERT INTO dl_txns (table_id, app_id, version, app_version) VALUES ('x', 'y', 1, 1)";
    assert!(conn.execute(insert, []).unwrap_err().to_string().contains("table_id"));
    for backend in [&ours, &other] {
        assert_eq!(paths(backend, 1, 3).await, ["d", "a", "e"]);
    }
    change(&other, 1, "5", &["f"], &[]).await;
    reading.execute_batch("COMMIT").unwrap();
    assert!(count(&reading).is_err());
}

/// As if the file was restored from an older backup under a program that has it open.
#[tokio::test]
async fn statements_that_no_longer_fit_say_which_version_it_is() {
    let place = Place::new();
    let backend = place.catalog().await;
    fill(&backend).await;
    let files = || paths(&backend, 1, 3);
    assert_eq!(files().await, ["d", "a", "e"]);
    to_version_2(&raw(&place.path()), "dl_");
    let read = backend.list_files(id(1), v(3), None, 9).await.plain().unwrap_err();
    let write = backend.drop_table(id(1), &Act::at(NOW)).await.plain().unwrap_err();
    for error in [read, write] {
        let text = error.to_string();
        assert!(matches!(error, CatalogError::Schema(_)), "{text}");
        assert!(text.contains("version 2,") && text.contains("dl init"), "{text}");
    }
    backend.migrate(NOW).await.unwrap();
    assert_eq!(files().await, ["d", "a", "e"]);
    change(&backend, 1, "5", &["f"], &["e"]).await;
}

/// A table's key is looked up by each call, so another file's rows are never taken for its own.
#[tokio::test]
async fn a_table_that_has_another_key_now_is_found_by_its_id() {
    let place = Place::new();
    let backend = place.catalog().await;
    backend.commit(create(1)).await.unwrap();
    backend.commit(create(2)).await.unwrap();
    change(&backend, 1, "1", &["a"], &[]).await;
    change(&backend, 2, "2", &["b"], &[]).await;
    let conn = raw(&place.path());
    for table in LAYOUT.iter().filter(|table| table.is_keyed) {
        for step in ["-table_key", "3 + table_key"] {
            conn.execute(&format!("UPDATE dl_{} SET table_key = {step}", table.name), []).unwrap();
        }
    }
    assert_eq!(paths(&backend, 1, 1).await, ["a"]);
    change(&backend, 2, "3", &["c"], &["b"]).await;
    assert_eq!(paths(&backend, 2, 2).await, ["c"]);
    assert_eq!(backend.mirror_claim(&claim("worker")).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_at_once_and_commits_behind_them() {
    let place = Place::new();
    drop(version_2(&place).await);
    let backends: Vec<Arc<SqliteBackend>> = (0..4).map(|_| place.open()).collect();
    let upgrades = backends.iter().chain(&backends).map(|backend| backend.migrate(NOW));
    // They are queued behind the upgrade of their own handle.
    let upgrades = futures::future::try_join_all(upgrades);
    let commits = backends.iter().enumerate().map(|(n, backend)| {
        backend.commit(append(
            1,
            &format!("behind-{n}"),
            index(vec![add(&format!("n{n}"))], vec![]),
        ))
    });
    let (upgrades, commits) = tokio::join!(upgrades, futures::future::try_join_all(commits));
    upgrades.unwrap();
    commits.unwrap();
    let versions: i64 = raw(&place.path())
        .query_row("SELECT count(*) FROM dl_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(versions, 5);
    let head = backends[0].snapshot(&TableRef::Id(id(1)), At::Head).await.unwrap();
    assert_eq!((head.version.get(), head.num_files), (7, 7));
}

#[tokio::test]
async fn a_lock_held_elsewhere_stops_an_upgrade_that_can_be_run_again() {
    let place = Place::new();
    let conn = version_2(&place).await;
    let options = SqliteOptions { busy_timeout_ms: 30, ..place.options() };
    let backend = SqliteBackend::open(options).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = fails(&backend).await;
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains("locked by another process"), "{error}");
    conn.execute_batch("ROLLBACK").unwrap();
    backend.migrate(NOW).await.unwrap();
    // It is as before: savepoints of ordinary writes stay in memory.
    let store = backend.write("looking", |db| {
        Ok(db.conn.pragma_query_value(None, "temp_store", |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(store.await.unwrap(), 2);
}

#[tokio::test]
async fn a_full_disk_leaves_version_2() {
    let place = Place::new();
    let backend = place.catalog().await;
    fill(&backend).await;
    // Its pages would be room for the upgrade.
    raw(&place.path())
        .execute_batch("DROP TABLE dl_audit; DROP TABLE dl_registry; VACUUM")
        .unwrap();
    let limit = backend.write("limiting the size", |db| {
        Ok(db.conn.pragma_update(None, "max_page_count", 1)?) // as many as there are
    });
    limit.await.unwrap();
    let conn = raw(&place.path());
    to_version_2(&conn, "dl_");
    conn.execute_batch("VACUUM").unwrap();
    let rows = dump(&conn, "dl_");
    let error = fails(&backend).await;
    assert!(error.to_string().contains("no space left"), "{error}");
    assert_eq!(dump(&conn, "dl_"), rows);
    is_intact(&conn);
    place.open().migrate(NOW).await.unwrap();
    assert_eq!(dump(&conn, "dl_"), rows);
}

#[tokio::test]
async fn rows_are_copied_in_the_order_of_their_keys_without_sorting() {
    let place = Place::new();
    let conn = version_2(&place).await;
    let upgrade = Upgrade { conn: &conn, path: &place.path(), prefix: "dl_" };
    for table in LAYOUT.iter().filter(|table| table.is_keyed) {
        let (name, old) = (format!("dl_{}", table.name), format!("dl_{}_2", table.name));
        for (index, _) in table.indexes {
            conn.execute_batch(&format!("DROP INDEX dl_{index}")).unwrap();
        }
        conn.execute_batch(&format!("ALTER TABLE {name} RENAME TO {old}")).unwrap();
        conn.execute_batch(&crate::rows::text::fill(table.create, "dl_")).unwrap();
        let sql = upgrade.copy(table, &old).unwrap();
        let plan: Vec<String> = conn
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap()
            .query_map([], |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let plan = plan.join("\n");
        // The tables themselves are few.
        assert!(table.name == "tables" || !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        conn.execute_batch(&sql).unwrap();
    }
}

#[tokio::test]
async fn two_catalogs_in_a_file_are_upgraded_one_by_one() {
    let place = Place::new();
    let conn = version_2(&place).await;
    let options = SqliteOptions { table_prefix: "z_".to_owned(), ..place.options() };
    let second = SqliteBackend::open(options).unwrap();
    second.migrate(NOW).await.unwrap();
    fill(&second).await;
    to_version_2(&conn, "z_");
    let rows = dump(&conn, "z_");
    place.open().migrate(NOW).await.unwrap();
    assert_eq!(dump(&conn, "z_"), rows);
    let error = second.get_table(&TableRef::Id(id(1))).await.unwrap_err();
    assert!(error.to_string().contains("version 2,"), "{error}");
    second.migrate(NOW).await.unwrap();
    assert_eq!(dump(&conn, "z_"), rows);
    assert_eq!(dump(&conn, "dl_"), rows);
    is_intact(&conn);
}
