//! Query plans: what reads and writes at every head must not scan or sort.

use deltalakedb_catalog_core::backend::parts::*;

use super::support::{Place, change, committed, create, raw};
use crate::rows::text::fill;
use crate::{audit, commit, files, import, outbox, reads, registry, schema, skip, tables};

/// Every statement with its name.
fn statements() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        schema::STATEMENTS,
        tables::STATEMENTS,
        reads::STATEMENTS,
        files::STATEMENTS,
        commit::STATEMENTS,
        import::STATEMENTS,
        outbox::STATEMENTS,
        skip::STATEMENTS,
        audit::STATEMENTS,
        registry::STATEMENTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// `EXPLAIN QUERY PLAN`, one string.
fn plan(conn: &rusqlite::Connection, sql: &str) -> String {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        lines.push(row.get::<_, String>(3).unwrap());
    }
    lines.join("\n")
}

#[tokio::test]
async fn every_statement_fits_the_schema_with_any_prefix() {
    let place = Place::new();
    for prefix in ["dl_", "_", "Group"] {
        let options = crate::SqliteOptions { table_prefix: prefix.to_owned(), ..place.options() };
        let backend = crate::SqliteBackend::open(options).unwrap();
        deltalakedb_catalog_core::backend::SchemaBackend::migrate(&*backend, super::support::NOW)
            .await
            .unwrap();
        let conn = raw(&place.path());
        for (name, sql) in statements() {
            if name != "CREATE" {
                conn.prepare(&fill(sql, prefix)).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
    }
}

#[tokio::test]
async fn no_statement_scans_a_table() {
    let place = Place::new();
    drop(place.catalog().await);
    nothing_scans(&raw(&place.path()));
}

fn nothing_scans(conn: &rusqlite::Connection) {
    for (name, sql) in statements() {
        if name == "CREATE" {
            continue;
        }
        let plan = plan(conn, &fill(sql, "dl_"));
        for line in plan.lines().filter(|line| line.contains("SCAN")) {
            // Recursive common tables and constant rows are not stored tables; claims and lists of
            // the whole outbox walk an index of what is open, and the list of tables its names.
            let walks_an_index = line.contains("USING INDEX dl_mirror_pending")
                || line.contains("USING INDEX dl_audit_by_time")
                || line.contains("dl_mirror_status_open")
                || line.contains("CONSTANT ROW");
            let temporary =
                ["SCAN apps", "SCAN domains", "SCAN waiting", "SCAN (subquery", "SCAN json_each"]
                    .iter()
                    .any(|start| line.starts_with(start));
            assert!(walks_an_index || temporary, "{name}: {plan}");
        }
    }
}

#[tokio::test]
async fn pages_come_in_the_order_of_an_index() {
    let place = Place::new();
    drop(place.catalog().await);
    let conn = raw(&place.path());
    pages_are_in_order(&conn);
    // Statistics must not change the important ones.
    conn.execute_batch("ANALYZE").unwrap();
    let plan = |sql| plan(&conn, &fill(sql, "dl_"));
    assert!(plan(files::FIND).contains("dl_files_by_key"));
    assert!(plan(reads::FILES_ACTIVE).contains("dl_files_by_state"));
}

/// Statistics of a catalog that has just begun would: with one table, `tables` would be scanned for it, and go on being
/// scanned when there are many.
#[tokio::test]
async fn upkeep_of_a_small_catalog_changes_no_plan() {
    for tables in [1, 60] {
        let place = Place::new();
        let backend = place.catalog().await;
        for n in 0..tables {
            committed(backend.commit(create(n)).await.unwrap());
            for version in 0..3 {
                let paths = ["a", "b", "c"].map(|file| format!("{version}-{file}"));
                let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                change(&backend, n, &format!("{n}-{version}"), &paths, &[]).await;
            }
        }
        crate::tend(&place.options(), std::time::Duration::from_secs(30), false).unwrap();
        let conn = raw(&place.path());
        nothing_scans(&conn);
        pages_are_in_order(&conn);
    }
}

fn pages_are_in_order(conn: &rusqlite::Connection) {
    for (sql, index) in [
        (reads::FILES_ACTIVE, "INDEX dl_files_by_state"),
        (reads::FILES_ACTIVE_END, "COVERING INDEX dl_files_by_state"),
        (reads::FILES_AT_MANY, "INDEX sqlite_autoindex_dl_files_1"),
        (reads::TOMBSTONES_MANY, "INDEX sqlite_autoindex_dl_files_1"),
        (reads::COMMITS, "PRIMARY KEY"),
        (reads::BODIES, "PRIMARY KEY"),
        (files::FIND, "INDEX dl_files_by_key"),
        (tables::LIST, "sqlite_autoindex_dl_tables_2"),
        (tables::LIST_NAMESPACE, "sqlite_autoindex_dl_tables_2"),
        (registry::LIST, "INDEX sqlite_autoindex_dl_registry_1"),
        (outbox::CLAIMABLE, "INDEX dl_mirror_pending"),
        (outbox::ROWS_OPEN, "INDEX dl_mirror_status_open"),
        (outbox::ROWS_COMPLETE, "PRIMARY KEY"),
        (outbox::TABLES_ALL, "sqlite_autoindex_dl_tables_1"),
        (outbox::BACK_TO_PENDING, "INDEX dl_mirror_status_open"),
    ] {
        let plan = plan(conn, &fill(sql, "dl_"));
        assert!(plan.contains(index), "{sql}\n{plan}");
        // Of claims, those that began to wait at one time.
        let sorts = plan.replace("USE TEMP B-TREE FOR LAST TERM OF ORDER BY", "");
        let sorts = if sql == outbox::CLAIMABLE { &sorts } else { &plan };
        assert!(!sorts.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
}
