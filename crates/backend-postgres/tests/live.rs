//! What needs a server and more than the suite: logins, encryption, lost answers, round trips, many
//! files. Without a server each is skipped, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's ways to speak"
)]

#[allow(dead_code, reason = "shared with the suite's programs")]
mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deltalakedb_backend_postgres::{
    GrantRole, PostgresBackend, PostgresOptions, Secret, TlsMode, grants,
};
use deltalakedb_catalog_core::audit::{Act, AuditFilter, AuditOrder};
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{At, TableRef, TimestampMs};
use deltalakedb_conformance::env::retrying;
use deltalakedb_conformance::live::{self, Lost};
use deltalakedb_test_servers::{CountingProxy, PgBouncer, PoolMode, Postgres, Tls};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use uuid::Uuid;

use support::{Guard, options};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

/// A schema of this test's own on the server, which goes with the guard.
struct Place {
    options: PostgresOptions,
    admin: String,
    _guard: Guard,
}

impl Place {
    /// None where there is no server.
    async fn new() -> Option<Place> {
        let admin = match deltalakedb_test_servers::shared_postgres() {
            Ok(url) => url,
            Err(why) => {
                deltalakedb_test_servers::skip(&["postgres"], why);
                return None;
            }
        };
        let schema = format!("dl_live_{}", Uuid::new_v4().simple());
        let options = options(&format!("{admin}#{schema}")).unwrap();
        open(&options).await.migrate(NOW).await.unwrap();
        Some(Place { options, admin: admin.clone(), _guard: Guard { admin, schema } })
    }

    async fn open(&self) -> Arc<PostgresBackend> {
        open(&self.options).await
    }

    /// The same place through a proxy, without tests of rested connections.
    fn through(&self) -> (CountingProxy, PostgresOptions) {
        let server = (self.options.host.as_str(), self.options.port);
        let proxy = CountingProxy::start_to(server).unwrap();
        let mut options = self.options.clone();
        "127.0.0.1".clone_into(&mut options.host);
        options.port = proxy.port();
        (proxy, options)
    }

    async fn admin(&self) -> PgConnection {
        PgConnection::connect(&self.admin).await.unwrap()
    }
}

async fn open(options: &PostgresOptions) -> Arc<PostgresBackend> {
    PostgresBackend::connect(options.clone()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_one_round_trip_and_so_is_opening_a_table() {
    let Some(place) = Place::new().await else { return };
    let (proxy, mut options) = place.through();
    // One connection: each statement is prepared once on it, with a round trip of its own.
    options.pool.max_connections = 1;
    let db = open(&options).await;
    let taken = || {
        let count = proxy.round_trips();
        proxy.reset();
        count
    };
    let cold = live::round_trips(db.as_ref(), taken).await.unwrap();
    let warm = live::round_trips(db.as_ref(), taken).await.unwrap();
    println!("prepared before: {warm:?}; at first: {cold:?}");
    for ((call, warm), (_, cold)) in warm.iter().zip(&cold) {
        // A page of files is looked at first: how it is best sorted depends on how many there are.
        let expected = if *call == "a page of files" { 2 } else { 1 };
        assert_eq!(*warm, expected, "{call}");
        assert!(*cold <= 2 * expected, "{call}: {cold}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_audit_are_neither_changed_nor_deleted_by_anyones_sql() {
    let Some(place) = Place::new().await else { return };
    let db = place.open().await;
    let table = live::make_table(db.as_ref()).await.unwrap();
    db.drop_table(table, &Act::at(TimestampMs(1))).await.unwrap();
    let mut admin = place.admin().await;
    let audit =
        format!("{}.{}audit", place.options.schema.as_deref().unwrap(), place.options.table_prefix);
    for sql in [
        format!("UPDATE {audit} SET user_name = 'someone else'"),
        format!("DELETE FROM {audit}"),
        format!("TRUNCATE {audit}"),
        format!(
            "INSERT INTO {audit} (id, at_ms, action) SELECT id, 0, 'x' FROM {audit}
             ON CONFLICT (id) DO UPDATE SET action = excluded.action"
        ),
    ] {
        let error = admin.execute(AssertSqlSafe(sql.clone())).await.unwrap_err().to_string();
        assert!(error.contains("rows of the audit are never changed"), "{sql}: {error}");
    }
    let filter = AuditFilter { table_ids: vec![table], ..AuditFilter::default() };
    let rows = db.audit_list(&filter, AuditOrder::OldestFirst, None, 10).await.unwrap().items;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].entry.action, "table.drop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_of_the_first_version_is_upgraded() {
    let Some(place) = Place::new().await else { return };
    let table = live::make_table(place.open().await.as_ref()).await.unwrap();
    let mut admin = place.admin().await;
    let (schema, prefix) = (place.options.schema.as_deref().unwrap(), &place.options.table_prefix);
    let fill =
        |text: &str| text.replace("{p}", &format!("{schema}.{prefix}")).replace("{i}", prefix);
    let to_second = fill(include_str!("support/version_2.sql"));
    admin.execute(sqlx::raw_sql(AssertSqlSafe(to_second))).await.unwrap();
    for statement in live::TO_FIRST_SCHEMA {
        admin.execute(AssertSqlSafe(fill(statement))).await.unwrap();
    }
    live::upgrade(place.open().await.as_ref(), table).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_is_upgraded_through_a_pooler_that_gives_each_transaction_a_connection() {
    let Some(server) = started(None) else { return };
    let pooler = match PgBouncer::start(&server, PoolMode::Transaction) {
        Ok(pooler) => pooler,
        Err(why) => return deltalakedb_test_servers::skip(&["pgbouncer"], format!("{why:#}")),
    };
    let mut options = options(&server.superuser_url("postgres")).unwrap();
    let table = live::make_table(migrated(&options).await.as_ref()).await.unwrap();
    let to_second = include_str!("support/version_2.sql").replace("{p}", "dl_");
    server.psql(&to_second.replace("{i}", "dl_")).unwrap();
    options.port = pooler.port();
    options.statement_cache = 0;
    let db = migrated(&options).await;
    for (name, answer) in live::every_read(db.as_ref(), table).await.unwrap() {
        answer.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// A catalog that is made or upgraded.
async fn migrated(options: &PostgresOptions) -> Arc<PostgresBackend> {
    let db = open(options).await;
    db.migrate(NOW).await.unwrap();
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_in_doubt_and_the_token_tells() {
    let Some(place) = Place::new().await else { return };
    let (proxy, options) = place.through();
    let db = open(&options).await;
    let lose = |lost| match lost {
        Lost::Answer => proxy.cut_after_next_request(),
        Lost::Request => proxy.cut_before_request(1, b""),
    };
    let lost = live::lost_commits(db.as_ref(), lose).await;
    lost.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_recovers_from_connections_that_were_cut() {
    let Some(place) = Place::new().await else { return };
    let (proxy, options) = place.through();
    let db = open(&options).await;
    let table = TableRef::Id(live::make_table(db.as_ref()).await.unwrap());
    let mut admin = place.admin().await;
    for round in 0..4 {
        if round % 2 == 0 {
            proxy.cut();
        } else {
            let ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'deltalakedb' AND query LIKE $1";
            let schema = place.options.schema.clone().unwrap();
            let killed = sqlx::query(ours).bind(format!("%{schema}%")).fetch_all(&mut admin).await;
            assert!(!killed.unwrap().is_empty());
        }
        // The first call may meet a connection that looked alive.
        let read = || db.snapshot(&table, At::Head);
        tokio::time::timeout(Duration::from_secs(30), retrying(read)).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_rest_are_closed_but_for_some() {
    let Some(place) = Place::new().await else { return };
    let mut options = place.options.clone();
    options.application_name = format!("rest-{}", Uuid::new_v4().simple());
    options.pool.min_connections = 2;
    options.pool.max_connections = 8;
    options.pool.idle_timeout = Duration::from_secs(1);
    let db = open(&options).await;
    let mut admin = place.admin().await;
    let mut count = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        let row = sqlx::query(sql).bind(&options.application_name).fetch_one(&mut admin).await;
        row.unwrap().get::<i64, _>(0)
    };
    assert_eq!(count().await, 2, "at the start");
    let table = live::make_table(db.as_ref()).await.unwrap();
    let slow = (0..8).map(|_| {
        let db = Arc::clone(&db);
        tokio::spawn(async move {
            for _ in 0..20 {
                db.snapshot(&TableRef::Id(table), At::Head).await.unwrap();
            }
        })
    });
    for reader in slow.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    assert!((3..=8).contains(&count().await), "{}", count().await);
    for attempt in 0.. {
        if count().await == 2 {
            break;
        }
        assert!(attempt < 100, "{} connections are left", count().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(db);
    for attempt in 0.. {
        if count().await == 0 {
            break;
        }
        assert!(attempt < 100, "{} connections outlive the pool", count().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_calls_leave_no_transaction_open() {
    let Some(place) = Place::new().await else { return };
    let db = place.open().await;
    let table = live::make_table(db.as_ref()).await.unwrap();
    for micros in 0..200 {
        let call = live::every_write(db.as_ref(), table);
        let limit = Duration::from_micros(micros * 50);
        // Whether it was done in time does not matter.
        tokio::time::timeout(limit, call).await.ok();
    }
    db.snapshot(&TableRef::Id(table), At::Head).await.unwrap();
    let mut admin = place.admin().await;
    let schema = place.options.schema.clone().unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity
         WHERE state LIKE 'idle in transaction%' AND query LIKE $1";
    for attempt in 0.. {
        let row = sqlx::query(open).bind(format!("%{schema}%")).fetch_one(&mut admin).await;
        let left: i64 = row.unwrap().get(0);
        if left == 0 {
            break;
        }
        // The server may not have noticed yet that the connection is closed.
        assert!(attempt < 100, "{left} transactions are open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_get_through_a_network_that_breaks() {
    let Some(place) = Place::new().await else { return };
    let (proxy, options) = place.through();
    let db = open(&options).await;
    let mut times = 0;
    let disturb = || {
        times += 1;
        match times {
            40.. => {}
            _ if times % 3 == 0 => proxy.cut_after_next_request(),
            _ => proxy.cut(),
        }
    };
    let seen = live::disturbed(db, disturb).await.unwrap();
    println!("{seen:?}");
    assert!(seen.committed + seen.found > 100, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_it_is_for() {
    let Some(place) = Place::new().await else { return };
    let mut admin = place.admin().await;
    let mut logins = Vec::new();
    for (role, kind) in
        [(GrantRole::Reader, "reader"), (GrantRole::Writer, "writer"), (GrantRole::Admin, "admin")]
    {
        let login = format!("{kind}_{}", Uuid::new_v4().simple());
        let make = format!("CREATE ROLE {login} LOGIN PASSWORD 'throwaway'");
        admin.execute(AssertSqlSafe(make)).await.unwrap();
        for sql in grants(&place.options, role, &login).unwrap() {
            admin.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        let mut theirs = place.options.clone();
        theirs.user.clone_from(&login);
        theirs.password = Some("throwaway".into());
        logins.push((login, theirs));
    }
    let (reader, writer) = (open(&logins[0].1).await, open(&logins[1].1).await);
    let admin_of_rows = open(&logins[2].1).await;
    let owner = place.open().await;
    live::roles(owner.as_ref(), reader.as_ref(), writer.as_ref()).await.unwrap();
    live::registry_roles(admin_of_rows.as_ref(), writer.as_ref(), reader.as_ref()).await.unwrap();
    // None of them makes tables.
    for (_, theirs) in &logins {
        let mut elsewhere = theirs.clone();
        "other_".clone_into(&mut elsewhere.table_prefix);
        let error = open(&elsewhere).await.migrate(NOW).await.unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains("42501"), "{error}");
    }
    for db in [reader, writer, admin_of_rows] {
        db.close().await.unwrap();
    }
    for (login, _) in logins {
        let gone = format!("DROP OWNED BY {login}; DROP ROLE {login}");
        admin.execute(AssertSqlSafe(gone)).await.unwrap();
    }
}

/// A server of this test's own, with a certificate, and the CA that signed it.
fn encrypted(folder: &tempfile::TempDir) -> Option<(Postgres, PathBuf)> {
    let tls = Tls::made_in(folder.path()).unwrap();
    let ca = tls.ca.clone();
    started(Some(tls)).zip(ca)
}

fn started(tls: Option<Tls>) -> Option<Postgres> {
    if let Err(why) = deltalakedb_test_servers::Software::Postgres.check() {
        deltalakedb_test_servers::skip(&["postgres"], why);
        return None;
    }
    let options = deltalakedb_test_servers::PostgresOptions { tls, ..Default::default() };
    Some(Postgres::start(options).unwrap())
}

/// What becomes of a connection, and whether it is encrypted.
async fn connect(
    server: &Postgres,
    mode: TlsMode,
    ca: Option<PathBuf>,
) -> Result<bool, CatalogError> {
    let mut options = options(&server.superuser_url("postgres"))?;
    options.tls.mode = mode;
    options.tls.ca_file = ca;
    "tls_test".clone_into(&mut options.application_name);
    let db = PostgresBackend::connect(options).await?;
    let sql = "SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
         WHERE a.application_name = 'tls_test'";
    let encrypted = server.psql(sql).map_err(|error| CatalogError::invalid(error.to_string()))?;
    db.close().await.unwrap();
    Ok(encrypted.trim() == "t")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_verified() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some((server, ca)) = encrypted(&folder) else { return };
    let unknown = Tls::made_in(other.path()).unwrap().ca;
    for mode in [TlsMode::VerifyFull, TlsMode::VerifyCa, TlsMode::Require] {
        assert!(connect(&server, mode, Some(ca.clone())).await.unwrap(), "{mode:?}");
        let refused = connect(&server, mode, unknown.clone()).await.unwrap_err();
        assert!(!refused.is_retryable(), "{mode:?}: {refused}");
        let text = refused.to_string();
        assert!(text.contains("127.0.0.1") && text.contains("certificate"), "{text}");
        assert!(!text.contains(server.password()), "{text}");
    }
    // Nobody knows the CA: the public ones did not sign it.
    connect(&server, TlsMode::VerifyFull, None).await.unwrap_err();
    assert!(connect(&server, TlsMode::Prefer, None).await.unwrap());
    assert!(!connect(&server, TlsMode::Disable, None).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_that_a_server_does_not_have_is_missed() {
    let Some(server) = started(None) else { return };
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let refused = connect(&server, mode, None).await.unwrap_err();
        assert!(!refused.is_retryable(), "{mode:?}: {refused}");
        assert!(refused.to_string().contains("TLS"), "{refused}");
    }
    assert!(!connect(&server, TlsMode::Prefer, None).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_without_it() {
    let Some(place) = Place::new().await else { return };
    let mut options = place.options.clone();
    "nobody_of_this_name".clone_into(&mut options.user);
    options.password = Some(Secret::from("geheim-1"));
    let error = PostgresBackend::connect(options).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("nobody_of_this_name") && !text.contains("geheim"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_a_hundred_thousand_files() {
    let Some(place) = Place::new().await else { return };
    let bulk = live::bulk(place.open().await.as_ref(), 100_000).await.unwrap();
    println!("100,000 files: {bulk:?}");
}

/// The same beside a bare COPY of the same rows into a table of the same shape:
/// `cargo test --release -p deltalakedb-backend-postgres --test live -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, in release"]
async fn how_fast_are_many_files_beside_copy() {
    let Some(place) = Place::new().await else { return };
    let db = place.open().await;
    let schema = place.options.schema.clone().unwrap();
    let mut admin = place.admin().await;
    for round in 0..3 {
        let bulk = live::bulk(db.as_ref(), 100_000).await.unwrap();
        // The rows as they were stored, as text.
        let run = async |admin: &mut PgConnection, sql: String| {
            admin.execute(AssertSqlSafe(sql)).await.unwrap();
        };
        let copy = format!("{schema}.copy_{round}");
        run(&mut admin, format!("CREATE TABLE {copy} (LIKE {schema}.dl_files INCLUDING ALL)"))
            .await;
        let mut rows = Vec::new();
        let newest = format!(
            "COPY (SELECT * FROM {schema}.dl_files WHERE table_key = (SELECT table_key FROM
             {schema}.dl_tables ORDER BY created_at_ms DESC, id LIMIT 1)) TO STDOUT"
        );
        let mut out = admin.copy_out_raw(&newest).await.unwrap();
        while let Some(bytes) = futures::TryStreamExt::try_next(&mut out).await.unwrap() {
            rows.push(bytes);
        }
        drop(out);
        let began = std::time::Instant::now();
        let mut into = admin.copy_in_raw(&format!("COPY {copy} FROM STDIN")).await.unwrap();
        for bytes in rows {
            into.send(bytes).await.unwrap();
        }
        let copied = into.finish().await.unwrap();
        let bare = began.elapsed();
        println!(
            "{bulk:?}; a bare COPY of {copied} rows: {bare:?}; ratio {:.2}",
            bulk.add.as_secs_f64() / bare.as_secs_f64()
        );
    }
}
