//! Every statement is prepared by a real server, and none of them scans a growing table.

use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::ids::TimestampMs;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use url::Url;

use crate::session::texts::Texts;
use crate::{
    PostgresBackend, PostgresOptions, audit, commit, ddl, files, import, outbox, reads, registry,
    schema, skip, tables,
};

/// Tables that may grow without bound: a plan that reads all of one is a defect.
const GROWING: [&str; 6] = ["commits", "commit_chunks", "files", "batches", "txns", "registry"];

/// Every statement there is, filled in.
fn statements(prefix: &str) -> Vec<(String, String)> {
    let texts = Texts::new(prefix.to_owned(), None);
    let rooms = [
        ("ddl", ddl::STATEMENTS),
        ("schema", schema::STATEMENTS),
        ("tables", tables::STATEMENTS),
        ("reads", reads::STATEMENTS),
        ("files", files::STATEMENTS),
        ("commit", commit::STATEMENTS),
        ("commit", commit::statement_sql::STATEMENTS),
        ("commit", commit::append_sql::STATEMENTS),
        ("commit", commit::locked::STATEMENTS),
        ("commit", commit::columns::STATEMENTS),
        ("commit", commit::expire::STATEMENTS),
        ("import", import::STATEMENTS),
        ("import", import::run::STATEMENTS),
        ("outbox", outbox::STATEMENTS),
        ("skip", skip::STATEMENTS),
        ("audit", audit::STATEMENTS),
        ("registry", registry::STATEMENTS),
    ];
    let all = rooms.into_iter().flat_map(|(room, statements)| {
        statements.iter().map(move |(name, sql)| (format!("{room} {name}"), *sql))
    });
    all.map(|(name, sql)| (name, texts.fill(sql))).collect()
}

/// These statements of them, in this order.
fn named(prefix: &str, names: &[&str]) -> Vec<String> {
    let all = statements(prefix);
    let find = |name: &&str| all.iter().find(|(of, _)| of == name).unwrap().1.clone();
    names.iter().map(find).collect()
}

fn options(url: &Url, schema: &str) -> PostgresOptions {
    let mut options = PostgresOptions::new(
        url.host_str().unwrap_or("localhost"),
        url.port().unwrap_or(5432),
        url.path().trim_start_matches('/'),
        url.username(),
    );
    options.password = url.password().map(Into::into);
    options.schema = Some(schema.to_owned());
    options
}

#[tokio::test]
async fn every_statement_is_prepared_and_uses_an_index() {
    let url: Url = match deltalakedb_test_servers::shared_postgres() {
        Ok(url) => url.parse().unwrap(),
        Err(why) => {
            deltalakedb_test_servers::skip(&["postgres"], why);
            return;
        }
    };
    let schema = format!("dl_plans_{}", uuid::Uuid::new_v4().simple());
    let options = options(&url, &schema);
    let backend = PostgresBackend::connect(options.clone()).await.unwrap();
    backend.migrate(TimestampMs(1)).await.unwrap();
    let mut server = PgConnection::connect(url.as_str()).await.unwrap();
    // A generic plan for tables of unknown size: what a pooled connection ends up with.
    server.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    server.execute("SET enable_seqscan = off").await.unwrap();

    let (mut explained, mut faults) = (0, Vec::new());
    for (name, sql) in statements(&options.qualified_prefix()) {
        if let Err(error) = server.execute(AssertSqlSafe(format!("PREPARE s AS {sql}"))).await {
            faults.push(format!("{name} is not prepared: {error}\n{sql}"));
            continue;
        }
        let parameters: i32 = server
            .fetch_one(
                "SELECT cardinality(parameter_types) FROM pg_prepared_statements
                 WHERE name = 's'",
            )
            .await
            .unwrap()
            .get(0);
        let nulls = vec!["NULL"; usize::try_from(parameters).unwrap()].join(", ");
        let execute = if nulls.is_empty() { "s".to_owned() } else { format!("s({nulls})") };
        let plan: Vec<String> = server
            .fetch_all(AssertSqlSafe(format!("EXPLAIN EXECUTE {execute}")))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .iter()
            .map(|row| row.get(0))
            .collect();
        explained += 1;
        for line in plan.iter().filter(|line| line.contains("Seq Scan on ")) {
            let scanned = GROWING.iter().any(|table| {
                line.contains(&format!("Seq Scan on {}{table} ", options.table_prefix))
            });
            if scanned {
                faults.push(format!("{name}: {line}\n{}", plan.join("\n")));
            }
        }
        // Few rows, which are found by what makes them few, and sorted.
        let few = ["reads FILES_FEW", "reads TOMBSTONES_FEW"].contains(&name.as_str());
        if few && plan.iter().any(|line| line.contains("files_pkey")) {
            faults.push(format!("{name} reads all files:\n{}", plan.join("\n")));
        }
        server.execute("DEALLOCATE s").await.unwrap();
    }
    backend.close().await.unwrap();
    server.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await.unwrap();
    assert!(explained > 50, "{explained} statements were looked at");
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// Planning a commit takes longer than running it. The server keeps a plan once making one for the values
/// at hand promises nothing: so the planner must not see how long the arrays are.
#[tokio::test]
async fn commits_are_not_planned_each_time() {
    let url: Url = match deltalakedb_test_servers::shared_postgres() {
        Ok(url) => url.parse().unwrap(),
        Err(why) => {
            deltalakedb_test_servers::skip(&["postgres"], why);
            return;
        }
    };
    let schema = format!("dl_kept_{}", uuid::Uuid::new_v4().simple());
    let options = options(&url, &schema);
    let backend = PostgresBackend::connect(options.clone()).await.unwrap();
    backend.migrate(TimestampMs(1)).await.unwrap();
    let mut server = PgConnection::connect(url.as_str()).await.unwrap();
    let names = ["commit COMMIT", "commit APPENDS", "commit APPENDS_ACROSS"];
    for sql in named(&options.qualified_prefix(), &names) {
        server.execute(AssertSqlSafe(format!("PREPARE s AS {sql}"))).await.unwrap();
        let kept = "SELECT cardinality(parameter_types), generic_plans, custom_plans
            FROM pg_prepared_statements WHERE name = 's'";
        let parameters: i32 = server.fetch_one(kept).await.unwrap().get(0);
        let nulls = vec!["NULL"; usize::try_from(parameters).unwrap()].join(", ");
        for _ in 0..12 {
            server.execute(AssertSqlSafe(format!("EXECUTE s({nulls})"))).await.unwrap();
        }
        let row = server.fetch_one(kept).await.unwrap();
        let plans: (i64, i64) = (row.get(1), row.get(2));
        assert_eq!(plans, (7, 5), "plans that were kept, and made anew:\n{sql}");
        server.execute("DEALLOCATE s").await.unwrap();
    }
    backend.close().await.unwrap();
    server.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await.unwrap();
}

/// A table that has grown since statistics were taken, as while it is imported: the planner knows the
/// value of the table's id, and that it has seen no rows of it.
#[tokio::test]
async fn files_of_a_growing_table_are_looked_up_by_their_keys() {
    const TABLE: &str = "7f2c1f64-5717-4562-b3fc-2c963f66afa6";
    let url: Url = match deltalakedb_test_servers::shared_postgres() {
        Ok(url) => url.parse().unwrap(),
        Err(why) => {
            deltalakedb_test_servers::skip(&["postgres"], why);
            return;
        }
    };
    let schema = format!("dl_growing_{}", uuid::Uuid::new_v4().simple());
    let options = options(&url, &schema);
    let backend = PostgresBackend::connect(options.clone()).await.unwrap();
    backend.migrate(TimestampMs(1)).await.unwrap();
    let mut server = PgConnection::connect(url.as_str()).await.unwrap();
    let prefix = options.qualified_prefix();
    let grow = format!(
        "INSERT INTO {prefix}tables (id, namespace, name, drop_marker, location, storage_options, state,
            created_at_ms, base_version, barrier_version)
         VALUES ('{TABLE}', 'n', 't', '', 'l', '{{}}', 'active', 0, 0, 0);
         INSERT INTO {prefix}files (table_key, added_version, ordinal, removed_version, is_tombstone,
            file_key, size, modification_time, data_change, path, dv_id)
         SELECT (SELECT table_key FROM {prefix}tables), g / 100, g % 100, 9223372036854775807, false,
            decode(md5(g::text), 'hex'), 1, 1, true, 'part-' || g, ''
         FROM generate_series(1, 20000) AS g"
    );
    // Within one transaction autovacuum does not come between.
    server.execute("BEGIN").await.unwrap();
    server.execute(sqlx::raw_sql(AssertSqlSafe(grow))).await.unwrap();
    server.execute("SET plan_cache_mode = force_custom_plan").await.unwrap();
    let array = |value: fn(u32) -> String, of: &str| {
        let values: Vec<String> = (1..=10).map(value).collect();
        format!("ARRAY[{}]::{of}[]", values.join(", "))
    };
    let numbers = array(|n| n.to_string(), "int8");
    let keys = array(|n| format!("decode(md5('{n}'), 'hex')"), "bytea");
    let paths = array(|n| format!("'part-{n}'"), "text");
    let empty = array(|_| "''".to_owned(), "text");
    let parameters = [
        ("files REMOVE", format!("7, {numbers}, {keys}, {paths}, {empty}, {numbers}, {empty}")),
        ("files REPLACE", format!("7, {keys}, {paths}, {empty}")),
        ("files FIRST_MISSING", format!("{numbers}, {keys}, {paths}, {empty}")),
    ];
    let sqls = named(&prefix, &parameters.each_ref().map(|(name, _)| *name));
    for ((name, parameters), sql) in parameters.iter().zip(sqls) {
        server.execute(AssertSqlSafe(format!("PREPARE s AS {sql}"))).await.unwrap();
        let explain = format!("EXPLAIN EXECUTE s('{TABLE}', {parameters})");
        let plan: Vec<String> = server
            .fetch_all(AssertSqlSafe(explain))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .iter()
            .map(|row| row.get(0))
            .collect();
        let plan = plan.join("\n");
        assert!(plan.contains("files_active"), "{name}: {plan}");
        server.execute("DEALLOCATE s").await.unwrap();
    }
    server.execute("ROLLBACK").await.unwrap();
    backend.close().await.unwrap();
    server.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await.unwrap();
}
