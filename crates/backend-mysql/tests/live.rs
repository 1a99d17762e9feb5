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

use deltalakedb_catalog_core::backend::CatalogBackendExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deltalakedb_backend_mysql::{GrantRole, MySqlBackend, MySqlOptions, Secret, TlsMode, grants};
use deltalakedb_catalog_core::backend::ImportedCommit;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::later::read_large;
use deltalakedb_conformance::change::{Change, metadata, new_table, protocol};
use deltalakedb_conformance::env::retrying;
use deltalakedb_conformance::live::{self, Lost};
use deltalakedb_test_servers::{CountingProxy, MariaDb, MariaDbOptions, Software, Tls};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use url::Url;
use uuid::Uuid;

use support::{Guard, options};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);

/// A database of this test's own on the server, which goes with the guard.
struct Place {
    options: MySqlOptions,
    admin: String,
    _guard: Guard,
}

impl Place {
    /// None where there is no server.
    async fn new() -> Option<Place> {
        match deltalakedb_test_servers::shared_mysql() {
            Ok(url) => Some(Place::on(url).await),
            Err(why) => {
                deltalakedb_test_servers::skip(&["mysql"], why);
                None
            }
        }
    }

    async fn on(admin: String) -> Place {
        let database = format!("dl_live_{}", Uuid::new_v4().simple());
        run(
            &mut MySqlConnection::connect(&admin).await.unwrap(),
            format!("CREATE DATABASE {database}"),
        )
        .await;
        let mut url: Url = admin.parse().unwrap();
        url.set_path(&database);
        let options = options(url.as_str()).unwrap();
        open(&options).await.migrate(NOW).await.unwrap();
        Place { options, admin: admin.clone(), _guard: Guard { admin, database } }
    }

    async fn open(&self) -> Arc<MySqlBackend> {
        open(&self.options).await
    }

    /// The same place through a proxy.
    fn through(&self) -> (CountingProxy, MySqlOptions) {
        let server = (self.options.host.as_str(), self.options.port);
        let proxy = CountingProxy::start_to(server).unwrap();
        let mut options = self.options.clone();
        "127.0.0.1".clone_into(&mut options.host);
        options.port = proxy.port();
        (proxy, options)
    }

    async fn admin(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.admin).await.unwrap()
    }
}

async fn run(admin: &mut MySqlConnection, sql: String) {
    admin.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

async fn open(options: &MySqlOptions) -> Arc<MySqlBackend> {
    MySqlBackend::connect(options.clone()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_at_most_four_round_trips_and_opening_a_table_is_one() {
    let Some(place) = Place::new().await else { return };
    let (proxy, options) = place.through();
    let db = open(&options).await;
    let taken = || {
        let count = proxy.round_trips();
        proxy.reset();
        count
    };
    live::make_table(db.as_ref()).await.unwrap();
    let counts = live::round_trips(db.as_ref(), taken).await.unwrap();
    println!("{counts:?}");
    for (call, count) in &counts {
        let expected = match *call {
            call if call.starts_with("a commit") => 3,
            // It is looked at first: how it is best sorted depends on how many there are.
            "a page of files" => 2,
            _ => 1,
        };
        assert_eq!(*count, expected, "{call}");
    }
}

/// The message that decides, with its command byte.
const DECIDES: &[u8] = b"\x03COMMIT";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_in_doubt_and_the_token_tells() {
    let Some(place) = Place::new().await else { return };
    let (proxy, options) = place.through();
    let db = open(&options).await;
    let lose = |lost| match lost {
        Lost::Answer => proxy.cut_after_request(1, DECIDES),
        Lost::Request => proxy.cut_before_request(1, DECIDES),
    };
    live::lost_commits(db.as_ref(), lose).await.unwrap();
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
            let ours = "SELECT id FROM information_schema.processlist WHERE db = ?";
            let ids = sqlx::query(ours).bind(&place.options.database).fetch_all(&mut admin).await;
            let ids = ids.unwrap();
            assert!(!ids.is_empty());
            for row in ids {
                let id = row
                    .try_get::<u64, _>(0)
                    .or_else(|_| row.try_get::<i64, _>(0).map(i64::unsigned_abs));
                // One that was cut may end by itself meanwhile.
                let kill = sqlx::raw_sql(AssertSqlSafe(format!("KILL {}", id.unwrap())));
                if let Err(error) = admin.execute(kill).await {
                    assert!(error.to_string().contains("1094"), "{error}");
                }
            }
        }
        // The first call may meet a connection that looked alive.
        let read = || db.snapshot(&table, At::Head);
        tokio::time::timeout(Duration::from_secs(30), retrying(read)).await.unwrap().unwrap();
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
    let open = "SELECT COUNT(*) FROM information_schema.innodb_trx t
         JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id WHERE p.db = ?";
    for attempt in 0.. {
        let row = sqlx::query(open).bind(&place.options.database).fetch_one(&mut admin).await;
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
        let login = format!("{kind}_{}", &Uuid::new_v4().simple().to_string()[..12]);
        run(&mut admin, format!("CREATE USER '{login}'@'%' IDENTIFIED BY 'Throwaway-1'")).await;
        for sql in grants(&place.options, role, &login).unwrap() {
            run(&mut admin, sql).await;
        }
        let mut theirs = place.options.clone();
        theirs.user.clone_from(&login);
        theirs.password = Some("Throwaway-1".into());
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
        assert!(!error.is_retryable() && error.to_string().contains("CREATE"), "{error}");
    }
    for db in [reader, writer, admin_of_rows] {
        db.close().await.unwrap();
    }
    for (login, _) in logins {
        run(&mut admin, format!("DROP USER '{login}'@'%'")).await;
    }
}

fn started(options: MariaDbOptions) -> Option<MariaDb> {
    if let Err(why) = Software::MariaDb.check() {
        deltalakedb_test_servers::skip(&["mysql"], why);
        return None;
    }
    Some(MariaDb::start(options).unwrap())
}

async fn connect(server: &MariaDb, mode: TlsMode, ca: Option<PathBuf>) -> Result<(), CatalogError> {
    let mut options = options(&server.superuser_url("mysql"))?;
    options.tls.mode = mode;
    options.tls.ca_file = ca;
    let db = MySqlBackend::connect(options).await?;
    db.close().await.unwrap();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_verified() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tls = Tls::made_in(folder.path()).unwrap();
    let ca = tls.ca.clone();
    // Whoever gets in is encrypted.
    let config = vec!["require_secure_transport=ON".to_owned()];
    let Some(server) = started(MariaDbOptions { tls: Some(tls), config }) else { return };
    let unknown = Tls::made_in(other.path()).unwrap().ca;
    for mode in [TlsMode::VerifyIdentity, TlsMode::VerifyCa] {
        connect(&server, mode, ca.clone()).await.unwrap();
        let refused = connect(&server, mode, unknown.clone()).await.unwrap_err();
        assert!(!refused.is_retryable(), "{mode:?}: {refused}");
        let text = refused.to_string();
        assert!(text.contains("127.0.0.1") && text.contains("certificate"), "{text}");
        assert!(!text.contains(server.password()), "{text}");
    }
    // Nobody knows the CA: the public ones did not sign it.
    connect(&server, TlsMode::VerifyIdentity, None).await.unwrap_err();
    connect(&server, TlsMode::Preferred, None).await.unwrap();
    connect(&server, TlsMode::Required, None).await.unwrap();
    let refused = connect(&server, TlsMode::Disabled, None).await.unwrap_err();
    assert!(!refused.is_retryable(), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_that_a_server_does_not_have_is_missed() {
    let Some(server) = started(MariaDbOptions::default()) else { return };
    for mode in [TlsMode::Required, TlsMode::VerifyCa, TlsMode::VerifyIdentity] {
        let refused = connect(&server, mode, None).await.unwrap_err();
        assert!(!refused.is_retryable(), "{mode:?}: {refused}");
        assert!(refused.to_string().contains("TLS"), "{refused}");
    }
    connect(&server, TlsMode::Preferred, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_without_it() {
    let Some(place) = Place::new().await else { return };
    let mut options = place.options.clone();
    options.password = Some(Secret::from("geheim-1"));
    let error = MySqlBackend::connect(options).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    let text = format!("{error} {error:?}");
    assert!(text.contains(&place.options.user) && !text.contains("geheim"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_a_hundred_thousand_files() {
    let Some(place) = Place::new().await else { return };
    let bulk = live::bulk(place.open().await.as_ref(), 100_000).await.unwrap();
    println!("100,000 files: {bulk:?}");
}

/// Odd settings of servers: small packets, other quotes, no backslashes.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_have_other_settings() {
    let config = [
        "max_allowed_packet=1M",
        "sql_mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,STRICT_ALL_TABLES",
        "character_set_server=latin1",
        "transaction_isolation=SERIALIZABLE",
    ];
    let config = config.map(str::to_owned).to_vec();
    let Some(server) = started(MariaDbOptions { tls: None, config }) else { return };
    let place = Place::on(server.superuser_url("mysql")).await;
    let db = place.open().await;
    let table = live::make_table(db.as_ref()).await.unwrap();
    for (call, answer) in live::every_read(db.as_ref(), table).await.unwrap() {
        answer.unwrap_or_else(|error| panic!("{call}: {error}"));
    }
    for (call, answer) in live::every_write(db.as_ref(), table).await.unwrap() {
        answer.unwrap_or_else(|error| panic!("{call}: {error}"));
    }
    live::bulk(db.as_ref(), 20_000).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_commits_nothing_by_itself_is_refused() {
    let config = vec!["autocommit=0".to_owned()];
    let Some(server) = started(MariaDbOptions { tls: None, config }) else { return };
    let error = connect(&server, TlsMode::Preferred, None).await.unwrap_err();
    assert!(matches!(error, CatalogError::Unsupported(_)), "{error}");
    assert!(error.to_string().contains("autocommit = 1"), "{error}");
}

/// `cargo test --release -p deltalakedb-backend-mysql --test live -- --ignored --nocapture`: beside
/// one statement of the server's own that copies the same rows.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, in release"]
async fn how_fast_are_many_files_beside_a_copy() {
    let Some(place) = Place::new().await else { return };
    let db = place.open().await;
    let mut admin = MySqlConnection::connect(&format!(
        "{}/{}",
        place.admin.rsplit_once('/').unwrap().0,
        place.options.database
    ))
    .await
    .unwrap();
    for round in 0..3 {
        let bulk = live::bulk(db.as_ref(), 100_000).await.unwrap();
        run(&mut admin, format!("CREATE TABLE copy_{round} LIKE dl_files")).await;
        let began = std::time::Instant::now();
        let newest = "(SELECT table_key FROM dl_tables ORDER BY table_key DESC LIMIT 1)";
        run(
            &mut admin,
            format!("INSERT INTO copy_{round} SELECT * FROM dl_files WHERE table_key = {newest}"),
        )
        .await;
        let bare = began.elapsed();
        println!(
            "{bulk:?}; INSERT … SELECT of the same rows: {bare:?}; ratio {:.2}",
            bulk.add.as_secs_f64() / bare.as_secs_f64()
        );
    }
}

/// The most memory that this process had since it was last asked, and what it has now, MiB.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mib = |name| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    let found = (mib("VmHWM:"), mib("VmRSS:"));
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    found
}

/// By itself, as it is about the process: `cargo test -p deltalakedb-backend-mysql --test live --
/// --ignored --nocapture --exact how_much_memory_a_large_commit_takes`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, on Linux"]
async fn how_much_memory_a_large_commit_takes() {
    const FILES: usize = 300_000;
    let Some(place) = Place::new().await else { return };
    let db = place.open().await;
    let id = TableId(Uuid::new_v4());
    let table = new_table(id, TableName::new("default", "large").unwrap());
    db.import_begin(&table, Version::ZERO, true, NOW).await.unwrap();
    let zero = Change::new().protocol(protocol(2)).metadata(metadata("zero"));
    let first = zero.imported(Version::ZERO, 1).unwrap();
    // Into a table without files, then over all of them.
    for version in [0, 1] {
        let version = Version::new(version).unwrap();
        let large = {
            let mut text = first.body.published().unwrap().to_vec();
            for i in 0..FILES {
                let stats = format!(r#"{{"numRecords":100,"minValues":{{"x":{i}}}}}"#);
                let line = serde_json::json!({"add": {
                    "path": format!("part-{i:08}.parquet"), "partitionValues": {}, "size": 1024,
                    "modificationTime": 1, "dataChange": true, "stats": stats,
                }});
                text.extend_from_slice(format!("{line}\n").as_bytes());
            }
            read_large("a log", &text[..]).unwrap()
        };
        let commit = ImportedCommit {
            version,
            timestamp: TimestampMs(version.get() + 1),
            body: large.body,
            index: large.index,
            later: Some(large.later),
            token: None,
        };
        memory();
        let (_, before) = memory();
        let began = std::time::Instant::now();
        db.import_commits(id, vec![commit].into()).await.unwrap();
        let (most, after) = memory();
        println!("{version}: {before} MiB, {most} at most, {after} after {:?}", began.elapsed());
        let at = At::Version(version);
        let snapshot = db.snapshot(&TableRef::Id(id), at).await.unwrap();
        assert_eq!(snapshot.num_files, FILES as u64);
    }
}
