//! Every statement is prepared by a real server, and none of them scans a growing table.

use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::ids::TimestampMs;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use url::Url;

use crate::statements::Statements;
use crate::{PostgresBackend, PostgresOptions};

/// Tables that may grow without bound: a plan that reads all of one is a defect.
const GROWING: [&str; 5] = ["commits", "commit_chunks", "files", "batches", "txns"];

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
            println!("skipped: {why}");
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
    for (name, sql) in Statements::new(&options.qualified_prefix()).all() {
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
        server.execute("DEALLOCATE s").await.unwrap();
    }
    backend.close().await;
    server.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await.unwrap();
    assert!(explained > 50, "{explained} statements were looked at");
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
