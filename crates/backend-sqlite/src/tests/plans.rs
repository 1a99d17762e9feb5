//! Query plans: what reads and writes at every head must not scan or sort.

use super::support::{Place, raw};
use crate::statements::Statements;

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
        let statements = Statements::new(prefix);
        for (name, sql) in statements.all() {
            if name != "create" {
                conn.prepare(sql).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
    }
}

#[tokio::test]
async fn no_statement_scans_a_table() {
    let place = Place::new();
    drop(place.catalog().await);
    let conn = raw(&place.path());
    let statements = Statements::new("dl_");
    for (name, sql) in statements.all() {
        if name == "create" {
            continue;
        }
        let plan = plan(&conn, sql);
        for line in plan.lines().filter(|line| line.contains("SCAN")) {
            // Recursive common tables and constant rows are not stored tables; claims and lists of
            // the whole outbox walk an index of what is open, and the list of tables its names.
            let walks_an_index = line.contains("USING INDEX dl_mirror_pending")
                || line.contains("dl_mirror_status_open")
                || line.contains("CONSTANT ROW");
            let temporary = ["SCAN apps", "SCAN domains", "SCAN (subquery"]
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
    let sql = Statements::new("dl_");
    for (sql, index) in [
        (&sql.reads.files_active, "INDEX dl_files_by_state"),
        (&sql.reads.files_active_end, "COVERING INDEX dl_files_by_state"),
        (&sql.reads.files_at_many, "INDEX sqlite_autoindex_dl_files_1"),
        (&sql.reads.tombstones_many, "INDEX sqlite_autoindex_dl_files_1"),
        (&sql.reads.commits, "PRIMARY KEY"),
        (&sql.reads.bodies, "PRIMARY KEY"),
        (&sql.files.find, "INDEX dl_files_by_key"),
        (&sql.tables.list, "sqlite_autoindex_dl_tables_2"),
        (&sql.tables.list_namespace, "sqlite_autoindex_dl_tables_2"),
        (&sql.outbox.claimable, "INDEX dl_mirror_pending"),
        (&sql.outbox.rows_open, "INDEX dl_mirror_status_open"),
        (&sql.outbox.back_to_pending, "INDEX dl_mirror_status_open"),
    ] {
        let plan = plan(&conn, sql);
        assert!(plan.contains(index), "{sql}\n{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }
    // Statistics must not change the important ones.
    conn.execute_batch("ANALYZE").unwrap();
    assert!(plan(&conn, &sql.files.find).contains("dl_files_by_key"));
    assert!(plan(&conn, &sql.reads.files_active).contains("dl_files_by_state"));
}
