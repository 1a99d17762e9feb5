//! Catalogs of older versions: they are refused, upgraded while others use them, and nothing is lost, whatever
//! ends an upgrade. Without a server each test is skipped, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's ways to speak"
)]

#[allow(dead_code, reason = "what the product makes")]
#[path = "../src/schema/layout.rs"]
mod layout;
#[allow(dead_code, reason = "shared with the suite's programs")]
mod support;

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltalakedb_backend_mysql::{GrantRole, MySqlBackend, MySqlOptions, grants};
use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::backend::{
    AppRows, CatalogBackendExt, ClaimRequest, CommitFilter, CommitOutcome, CommitRequest,
    ImportEnd, TableCommit, TableFilter,
};
use deltalakedb_catalog_core::error::{CatalogError, PlainResult};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{MirrorState, TableState};
use deltalakedb_catalog_core::registry::{Expected, RecordKey, RecordWrite, RegistryOutcome};
use deltalakedb_catalog_core::support::{AUDIT, REGISTRY, TABLES};
use deltalakedb_conformance::change::{Change, file, gone, new_table};
use deltalakedb_conformance::env::{retrying, v};
use deltalakedb_conformance::live;
use deltalakedb_test_servers::{CountingProxy, Galera, MariaDb, MariaDbOptions, Software};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use url::Url;
use uuid::Uuid;

use support::{Guard, options};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);
const TABLE_OPTIONS: &str =
    " ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// A database of this test's own, with an administrator's connection.
struct Place {
    options: MySqlOptions,
    url: String,
    admin: MySqlConnection,
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

    async fn on(server: String) -> Place {
        let database = format!("dl_upgrade_{}", Uuid::new_v4().simple());
        let mut admin = MySqlConnection::connect(&server).await.unwrap();
        run(&mut admin, &format!("CREATE DATABASE {database}; USE {database}")).await;
        let mut url: Url = server.parse().unwrap();
        url.set_path(&database);
        let options = options(url.as_str()).unwrap();
        Place { options, url: url.into(), admin, _guard: Guard { admin: server, database } }
    }

    async fn open(&self) -> Arc<MySqlBackend> {
        open(&self.options).await
    }

    async fn run(&mut self, sql: &str) {
        run(&mut self.admin, sql).await;
    }

    async fn number(&mut self, sql: &str) -> i64 {
        self.admin.fetch_one(AssertSqlSafe(sql.to_owned())).await.unwrap().get(0)
    }

    /// The same place through a proxy.
    fn through(&self) -> (CountingProxy, MySqlOptions) {
        let server = (self.options.host.as_str(), self.options.port);
        let proxy = CountingProxy::start_to(server).unwrap();
        let mut options = self.options.clone();
        "127.0.0.1".clone_into(&mut options.host);
        options.port = proxy.port();
        options.pool.max_connections = 1;
        (proxy, options)
    }

    /// Keeps what the catalog is now as tables of version 2 under another prefix.
    async fn keep(&mut self, prefix: &str) {
        for text in layout::VERSION_1.iter().chain(&layout::VERSION_2) {
            self.run(&(text.replace("{p}", prefix) + TABLE_OPTIONS)).await;
        }
        for table in TABLES {
            let columns = self.columns(&format!("{prefix}{table}")).await;
            let columns: Vec<&str> = columns.split(',').collect();
            let from = match table {
                "tables" | "batches" => format!("{} FROM dl_{table} x", columns.join(", ")),
                _ => format!(
                    "t.id, x.{} FROM dl_{table} x JOIN dl_tables t ON t.table_key = x.table_key",
                    columns[1..].join(", x.")
                ),
            };
            let columns = columns.join(", ");
            self.run(&format!("INSERT INTO {prefix}{table} ({columns}) SELECT {from}")).await;
        }
    }

    async fn columns(&mut self, table: &str) -> String {
        let sql = format!(
            "SELECT GROUP_CONCAT(column_name ORDER BY ordinal_position) FROM \
             information_schema.columns WHERE table_schema = DATABASE() AND table_name = '{table}'"
        );
        self.admin.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0)
    }

    /// Makes the catalog what was kept, of version 2.
    async fn restore(&mut self, prefix: &str) {
        for table in self.ours().await {
            self.run(&format!("DROP TABLE {table}")).await;
        }
        for table in TABLES {
            self.run(&format!("CREATE TABLE dl_{table} LIKE {prefix}{table}")).await;
            self.run(&format!("INSERT INTO dl_{table} SELECT * FROM {prefix}{table}")).await;
        }
        self.run(
            "CREATE TABLE dl_schema (version BIGINT NOT NULL PRIMARY KEY, applied_at_ms BIGINT NOT NULL,
                program VARCHAR(255) NOT NULL);
             INSERT INTO dl_schema VALUES (1, 1, 'old'), (2, 2, 'old')",
        )
        .await;
    }

    /// Waits for what a connection that was cut has still at work.
    async fn until_quiet(&mut self) {
        let sql = "SELECT COUNT(*) FROM information_schema.processlist
            WHERE db = DATABASE() AND command <> 'Sleep' AND id <> CONNECTION_ID()";
        let begun = Instant::now();
        while self.number(sql).await > 0 {
            assert!(begun.elapsed() < LOCK_WAIT, "the server does not come to an end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What programs of version 2 did since: the rows become others.
    async fn become_rows_of(&mut self, prefix: &str) {
        for table in TABLES {
            self.run(&format!(
                "DELETE FROM dl_{table}; INSERT INTO dl_{table} SELECT * FROM {prefix}{table}"
            ))
            .await;
        }
    }

    async fn ours(&mut self) -> Vec<String> {
        let sql = "SELECT table_name FROM information_schema.tables
            WHERE table_schema = DATABASE() AND table_name LIKE 'dl\\_%' ORDER BY table_name";
        let rows = self.admin.fetch_all(sql).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

async fn run(admin: &mut MySqlConnection, sql: &str) {
    let done = admin.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn open(options: &MySqlOptions) -> Arc<MySqlBackend> {
    MySqlBackend::connect(options.clone()).await.unwrap()
}

async fn commit(db: &MySqlBackend, tables: Vec<TableCommit>) {
    let token = CommitToken::new(Uuid::new_v4().to_string()).unwrap();
    let outcome = db.commit(CommitRequest { token, now: NOW, tables }).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
}

/// All that a catalog answers.
async fn answers(db: &MySqlBackend) -> String {
    let mut all = String::new();
    for state in [TableState::Active, TableState::Dropped, TableState::Importing] {
        let filter = TableFilter { namespace: None, state: Some(state) };
        for table in db.list_tables(&filter, None, 1_000).await.unwrap().items {
            writeln!(all, "{table:?}").unwrap();
            let id = table.id;
            let head = table.head.map_or(-1, Version::get);
            for version in 0..=head {
                let at = Version::new(version).unwrap();
                let snapshot = db.snapshot(&TableRef::Id(id), At::Version(at)).await.plain();
                writeln!(all, "{version}: {snapshot:?}").unwrap();
                let files = db.list_files(id, at, None, 1_000).await.unwrap();
                let buried = db.list_tombstones(id, at, TimestampMs(0), None, 1_000).await.unwrap();
                let app = db.app_state(id, at, AppRows::All).await.unwrap();
                writeln!(all, "{files:?}\n{buried:?}\n{app:?}").unwrap();
            }
            let commits = db.list_commits(id, &CommitFilter::default(), None, 1_000).await.unwrap();
            writeln!(all, "{commits:?}").unwrap();
            for commit in &commits.items {
                if let Some(token) = &commit.token {
                    writeln!(all, "{:?}", db.resolve_token(token).await.unwrap()).unwrap();
                }
            }
            let bodies = db.read_bodies(id, v(0), v(1_000), 1_000).await.unwrap();
            writeln!(all, "{bodies:?}").unwrap();
            let skipping = db.skip_index(id).await.unwrap();
            writeln!(all, "{skipping:?}").unwrap();
        }
    }
    for state in
        [MirrorState::Pending, MirrorState::InFlight, MirrorState::Failed, MirrorState::Complete]
    {
        let rows = db.mirror_rows(None, Some(state), None, 1_000).await.unwrap();
        writeln!(all, "{state:?} {rows:?}").unwrap();
    }
    all
}

/// A catalog that was used, at two moments: kept as `s1_` and `s2_`, with what version 3 answers.
struct World {
    place: Place,
    /// One of its tables, active, at a version.
    table: TableId,
    answers: [String; 2],
}

impl World {
    async fn new() -> Option<World> {
        Some(World::of(Place::new().await?).await)
    }

    async fn of(mut place: Place) -> World {
        let db = place.open().await;
        db.migrate(NOW).await.unwrap();
        let mut tables = Vec::new();
        for _ in 0..4 {
            tables.push(live::make_table(db.as_ref()).await.unwrap());
        }
        for (call, answer) in live::every_write(db.as_ref(), tables[0]).await.unwrap() {
            answer.unwrap_or_else(|error| panic!("{call}: {error}"));
        }
        let [finished, aborted] = [TableId(Uuid::new_v4()), TableId(Uuid::new_v4())];
        for id in [finished, aborted] {
            let new = new_table(id, TableName::new("i", id.to_string()).unwrap());
            db.import_begin(&new, Version::ZERO, true, NOW).await.unwrap();
            let zero = Change::files(["z0", "z1"])
                .protocol(deltalakedb_conformance::change::protocol(2))
                .metadata(deltalakedb_conformance::change::metadata("zero"));
            let commits = vec![zero.imported(v(0), 1).unwrap()];
            db.import_commits(id, commits.into()).await.unwrap();
        }
        publish(&db, tables[1], 1).await;
        let first = answers(&db).await;
        place.keep("s1_").await;

        // A file of before is removed, one is added, an import goes on, others end, and so on.
        let change = Change::files(["later"]).remove(gone(&file("c"), Some(NOW.0))).txn("app", 2);
        commit(&db, vec![change.domain("d", None).exactly(tables[1], v(1)).unwrap()]).await;
        let change = Change::new().remove(gone(&file("later"), Some(NOW.0)));
        commit(&db, vec![change.exactly(tables[1], v(2)).unwrap()]).await;
        publish(&db, tables[1], 3).await;
        db.drop_table(tables[2], &Act::at(NOW)).await.unwrap();
        let commits = vec![Change::files(["z2"]).imported(v(1), 2).unwrap()];
        db.import_commits(finished, commits.into()).await.unwrap();
        db.import_finish(finished, ImportEnd::default(), &Act::at(NOW)).await.unwrap();
        db.import_abort(aborted, &Act::default()).await.unwrap();
        live::make_table(db.as_ref()).await.unwrap();
        let importing = TableId(Uuid::new_v4());
        let new = new_table(importing, TableName::new("i", "goes-on").unwrap());
        db.import_begin(&new, Version::ZERO, true, NOW).await.unwrap();
        let second = answers(&db).await;
        place.keep("s2_").await;
        db.close().await.unwrap();
        World { place, table: tables[3], answers: [first, second] }
    }

    /// What was kept, upgraded: version 3 answers as it did.
    async fn is_upgraded(&mut self, moment: usize) {
        let db = self.place.open().await;
        let info = db.info().await.unwrap();
        assert_eq!(info.schema_version, info.supported_schema_version);
        let now = answers(&db).await;
        for (before, after) in self.answers[moment].lines().zip(now.lines()) {
            assert_eq!(before, after);
        }
        assert_eq!(self.answers[moment], now);
        db.close().await.unwrap();
        let mut expected: Vec<String> = TABLES
            .iter()
            .chain([&"schema", &AUDIT, &REGISTRY])
            .map(|table| format!("dl_{table}"))
            .collect();
        expected.sort();
        let mut found = self.place.ours().await;
        found.sort();
        assert_eq!(found, expected, "tables are left, or are missing");
    }

    /// The usual calls go on.
    async fn goes_on(&self) {
        let db = self.place.open().await;
        for (call, answer) in live::every_write(db.as_ref(), self.table).await.unwrap() {
            answer.unwrap_or_else(|error| panic!("{call}: {error}"));
        }
        let table = live::make_table(db.as_ref()).await.unwrap();
        for (call, answer) in live::every_read(db.as_ref(), table).await.unwrap() {
            answer.unwrap_or_else(|error| panic!("{call}: {error}"));
        }
    }
}

/// Publishes versions of a table, up to one.
async fn publish(db: &MySqlBackend, table: TableId, through: i64) {
    let request = ClaimRequest {
        owner: "publisher".to_owned(),
        now: NOW,
        lease_ms: 1_000,
        max_tables: 1,
        max_versions: 100,
        only: Some(table),
    };
    let task = db.mirror_claim(&request).await.unwrap().remove(0);
    let done: Vec<_> = task
        .versions
        .iter()
        .filter(|version| version.get() <= through)
        .map(|version| deltalakedb_catalog_core::backend::Published {
            version: *version,
            digest: "digest".to_owned(),
            at: NOW,
        })
        .collect();
    assert!(db.mirror_complete(&task.lease, &done).await.unwrap());
    assert!(db.mirror_release(&task.lease).await.unwrap());
}

fn says(answer: Result<impl std::fmt::Debug, CatalogError>, words: &[&str]) {
    match answer {
        Err(CatalogError::Schema(message)) if words.iter().all(|word| message.contains(word)) => {}
        other => panic!("{other:?} does not say {words:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_of_version_2_is_upgraded() {
    let Some(mut world) = World::new().await else { return };
    for moment in [0, 1] {
        world.place.restore(["s1_", "s2_"][moment]).await;
        let db = world.place.open().await;
        let by_id = TableRef::Id(world.table);
        says(db.get_table(&by_id).await.plain(), &["version 2", "dl init"]);
        let began = Instant::now();
        db.migrate(NOW).await.unwrap();
        println!("upgraded in {:?}", began.elapsed());
        db.migrate(NOW).await.unwrap();
        world.is_upgraded(moment).await;
    }
    // Names of indexes are those of a new catalog.
    let upgraded = world.place.columns_and_indexes("dl_").await;
    world.goes_on().await;
    let mut fresh = world.place.options.clone();
    "new_".clone_into(&mut fresh.table_prefix);
    open(&fresh).await.migrate(NOW).await.unwrap();
    assert_eq!(upgraded, world.place.columns_and_indexes("new_").await);
}

impl Place {
    async fn columns_and_indexes(&mut self, prefix: &str) -> Vec<String> {
        let length = prefix.len() + 1;
        let sql = format!(
            "SELECT CONCAT_WS(' ', SUBSTRING(table_name, {length}), column_name, ordinal_position,
                column_type, is_nullable, column_default, collation_name, extra)
             FROM information_schema.columns
             WHERE table_schema = DATABASE() AND LEFT(table_name, {0}) = '{prefix}'
             UNION ALL SELECT CONCAT_WS(' ', SUBSTRING(table_name, {length}), index_name, non_unique,
                seq_in_index, column_name)
             FROM information_schema.statistics
             WHERE table_schema = DATABASE() AND LEFT(table_name, {0}) = '{prefix}'
             UNION ALL SELECT CONCAT_WS(' ', SUBSTRING(table_name, {length}), engine, row_format,
                table_collation)
             FROM information_schema.tables
             WHERE table_schema = DATABASE() AND LEFT(table_name, {0}) = '{prefix}' ORDER BY 1",
            prefix.len()
        );
        let rows = self.admin.fetch_all(AssertSqlSafe(sql)).await.unwrap();
        assert!(rows.len() > 150, "{}", rows.len());
        rows.iter().map(|row| row.get(0)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_of_the_first_version_is_upgraded() {
    let Some(mut world) = World::new().await else { return };
    world.place.restore("s1_").await;
    for statement in live::TO_FIRST_SCHEMA {
        world.place.run(&statement.replace("{p}", "dl_")).await;
    }
    live::upgrade(world.place.open().await.as_ref(), world.table).await.unwrap();
    world.goes_on().await;
}

/// Programs of version 2 write between the copy and the fence.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_rows_are_copied_is_not_lost() {
    let Some(mut world) = World::new().await else { return };
    world.place.restore("s1_").await;
    let (proxy, options) = world.place.through();
    proxy.cut_before_request(1, b"RENAME TABLE");
    open(&options).await.migrate(NOW).await.unwrap_err();
    assert!(world.place.number("SELECT COUNT(*) FROM dl_files_3").await > 0);
    world.place.become_rows_of("s2_").await;
    world.place.open().await.migrate(NOW).await.unwrap();
    world.is_upgraded(1).await;
    world.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_fence_everyone_is_told_what_to_do() {
    let Some(mut world) = World::new().await else { return };
    world.place.restore("s2_").await;
    let (proxy, options) = world.place.through();
    proxy.cut_before_request(2, b"RENAME TABLE");
    open(&options).await.migrate(NOW).await.unwrap_err();
    let db = world.place.open().await;
    let words = ["version 5", "interrupted", "dl init"];
    says(db.info().await.plain(), &words);
    says(db.get_table(&TableRef::Id(world.table)).await.plain(), &words);
    // A program of version 2 that is open finds no table.
    let read = world.place.admin.execute("SELECT * FROM dl_tables").await.unwrap_err();
    assert!(read.to_string().contains("1146"), "{read}");
    db.migrate(NOW).await.unwrap();
    world.is_upgraded(1).await;
    let read = world.place.admin.execute("SELECT table_id FROM dl_files").await.unwrap_err();
    assert!(read.to_string().contains("1054"), "{read}");
}

/// An open program whose catalog becomes another one says so plainly.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_program_sees_that_the_schema_is_another_one() {
    let Some(mut world) = World::new().await else { return };
    world.place.restore("s1_").await;
    let db = world.place.open().await;
    db.migrate(NOW).await.unwrap();
    let by_id = TableRef::Id(world.table);
    assert!(db.get_table(&by_id).await.unwrap().is_some());
    world.place.restore("s1_").await;
    let append = || Change::files(["x"]).append(world.table, v(1)).unwrap();
    let token = CommitToken::new("other").unwrap();
    let request = CommitRequest { token, now: NOW, tables: vec![append()] };
    says(db.commit(request).await.plain(), &["version 2", "dl init"]);
    says(db.get_table(&by_id).await.plain(), &["version 2", "dl init"]);
    db.migrate(NOW).await.unwrap();
    assert!(db.get_table(&by_id).await.unwrap().is_some());
}

/// The connection goes at each message of an upgrade, in turn; the next one ends it.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_ends_anywhere_is_continued() {
    const AT_ONCE: u64 = 3;
    let Some(first) = World::new().await else { return };
    drop(first);
    let cuts = (0..AT_ONCE).map(|start| {
        tokio::spawn(async move {
            let mut world = World::new().await.unwrap();
            let mut seen = [0; 3];
            for cut in (1 + start..).step_by(usize::try_from(AT_ONCE).unwrap()) {
                world.place.restore("s2_").await;
                let (proxy, options) = world.place.through();
                let db = open(&options).await;
                proxy.cut_after_request(cut, b"");
                let done = db.migrate(NOW).await.is_ok() && proxy.is_armed();
                drop((db, proxy));
                if done {
                    return seen;
                }
                world.place.until_quiet().await;
                // It works, or says what to do.
                let db = world.place.open().await;
                match db.get_table(&TableRef::Id(world.table)).await.plain() {
                    Ok(found) => {
                        assert!(found.is_some(), "cut {cut}");
                        seen[2] += 1;
                    }
                    Err(CatalogError::Schema(message)) if message.contains("version 2") => {
                        let sql =
                            "SELECT COUNT(*) FROM dl_files f JOIN dl_tables t ON t.id = f.table_id";
                        assert!(world.place.number(sql).await > 0, "cut {cut}");
                        seen[0] += 1;
                    }
                    Err(CatalogError::Schema(message)) if message.contains("interrupted") => {
                        seen[1] += 1;
                    }
                    // All but the audit and the registry.
                    Err(CatalogError::Schema(message))
                        if ["3", "4"].iter().any(|version| {
                            message.contains(&format!("has schema version {version}"))
                        }) =>
                    {
                        seen[2] += 1;
                    }
                    other => panic!("cut {cut}: {other:?}"),
                }
                retrying(|| db.migrate(NOW)).await.unwrap_or_else(|e| panic!("cut {cut}: {e}"));
                world.is_upgraded(1).await;
            }
            seen
        })
    });
    let mut seen = [0; 3];
    for task in cuts.collect::<Vec<_>>() {
        for (all, of) in seen.iter_mut().zip(task.await.unwrap()) {
            *all += of;
        }
    }
    println!("version 2, interrupted, version 3: {seen:?}");
    assert!(seen.iter().all(|count| *count > 3), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_at_once_end_with_one_schema() {
    let Some(mut world) = World::new().await else { return };
    for _ in 0..3 {
        world.place.restore("s2_").await;
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let db = world.place.open().await;
            tasks.push(tokio::spawn(async move {
                retrying(|| db.migrate(NOW)).await.unwrap();
                db.close().await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        // What one has begun when another was at the end goes with the next look.
        world.place.open().await.migrate(NOW).await.unwrap();
        world.is_upgraded(1).await;
    }
    world.goes_on().await;
}

/// Between two requests of an upgrade another process comes to the end of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_was_overtaken_says_so_nowhere() {
    let Some(mut world) = World::new().await else { return };
    // The look at what stands there, at what others have made of it, what an upgrade makes, and the fence. None of
    // them is in a transaction, which the other process would wait for.
    for (number, request) in [
        (2, "information_schema.columns"),
        (1, "information_schema.views"),
        (1, "CREATE TABLE IF NOT EXISTS dl_upgrade_3"),
        (1, "INSERT IGNORE INTO dl_upgrade_3"),
        (1, "CREATE TABLE IF NOT EXISTS dl_files_3"),
        (1, "CREATE TABLE IF NOT EXISTS dl_schema_3"),
        (1, "RENAME TABLE"),
    ] {
        world.place.restore("s2_").await;
        let (proxy, options) = world.place.through();
        let slow = open(&options).await;
        proxy.stall_before_request(number, request.as_bytes());
        let upgrade = tokio::spawn(async move { retrying(|| slow.migrate(NOW)).await });
        let held = async {
            while proxy.is_armed() {
                assert!(!upgrade.is_finished(), "{request}: no such request");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), held).await.unwrap();
        let fast = world.place.open().await;
        retrying(|| fast.migrate(NOW)).await.unwrap_or_else(|e| panic!("{request}: {e}"));
        assert!(!upgrade.is_finished(), "{request}: it was not held");
        proxy.unstall();
        upgrade.await.unwrap().unwrap_or_else(|e| panic!("{request}: {e}"));
        world.is_upgraded(1).await;
    }
    world.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_differ_are_refused_and_made_anew() {
    let Some(mut world) = World::new().await else { return };
    for (damage, table) in [
        ("DELETE FROM dl_files_3 LIMIT 1", "dl_files"),
        ("UPDATE dl_files_3 SET size = size + 1 LIMIT 1", "dl_files"),
        ("DELETE FROM dl_commit_chunks_3 LIMIT 1", "dl_commit_chunks"),
        ("DELETE FROM dl_commits LIMIT 1", "dl_commits"),
    ] {
        world.place.restore("s2_").await;
        let (proxy, options) = world.place.through();
        proxy.cut_before_request(1, b"RENAME TABLE");
        open(&options).await.migrate(NOW).await.unwrap_err();
        world.place.run(damage).await;
        let db = world.place.open().await;
        match db.migrate(NOW).await.plain() {
            Err(CatalogError::Corrupt(message)) => {
                assert!(message.contains(&format!("{table} has ")), "{message}");
            }
            other => panic!("{damage}: {other:?}"),
        }
        // Version 2 is as it was.
        assert!(
            world.place.number("SELECT COUNT(*) FROM dl_files WHERE table_id <> X'00'").await > 0
        );
        says(db.get_table(&TableRef::Id(world.table)).await.plain(), &["version 2"]);
        if damage.contains("_3") {
            db.migrate(NOW).await.unwrap();
            world.is_upgraded(1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_made_of_the_tables_is_named() {
    let Some(mut world) = World::new().await else { return };
    world.place.restore("s2_").await;
    let before = world.place.ours().await;
    let database = world.place.options.database.clone();
    for (make, take_away, named) in [
        ("CREATE VIEW sizes AS SELECT table_id, size FROM dl_files", "DROP VIEW sizes", "the view"),
        (
            "CREATE TRIGGER theirs AFTER INSERT ON dl_commits FOR EACH ROW SET @n = 1",
            "DROP TRIGGER theirs",
            "the trigger theirs",
        ),
        (
            "CREATE TABLE theirs (id BINARY(16) NOT NULL, FOREIGN KEY known (id) REFERENCES dl_tables (id))
                ENGINE = InnoDB",
            "DROP TABLE theirs",
            "the foreign key",
        ),
        ("ALTER TABLE dl_files ADD note INT", "ALTER TABLE dl_files DROP note", "the column note"),
        (
            "CREATE INDEX by_size ON dl_files (size)",
            "DROP INDEX by_size ON dl_files",
            "the index by_size of dl_files",
        ),
        ("CREATE TABLE dl_files_3 (a INT)", "DROP TABLE dl_files_3", "dl_files_3', which is not ours"),
        ("CREATE TABLE dl_upgrade_3 (a INT)", "DROP TABLE dl_upgrade_3", "dl_upgrade_3', which is not"),
    ] {
        world.place.run(make).await;
        let db = world.place.open().await;
        says(db.migrate(NOW).await.plain(), &[named, "dl init", "Nothing was changed"]);
        world.place.run(take_away).await;
        assert_eq!(world.place.ours().await, before, "{make}");
    }
    // Rights go by the name of a table.
    let login = format!("r_{}", &Uuid::new_v4().simple().to_string()[..12]);
    world.place.run(&format!("CREATE USER '{login}'@'%' IDENTIFIED BY 'Throwaway-1'")).await;
    let grants = grants(&world.place.options, GrantRole::Reader, &login).unwrap();
    let (of_audit, others): (Vec<_>, Vec<_>) =
        grants.into_iter().partition(|sql| sql.contains("dl_audit"));
    for sql in others {
        world.place.run(&sql).await;
    }
    world.place.open().await.migrate(NOW).await.unwrap();
    // The table is new.
    for sql in of_audit {
        world.place.run(&sql).await;
    }
    world.is_upgraded(1).await;
    let mut theirs = world.place.options.clone();
    theirs.user.clone_from(&login);
    theirs.password = Some("Throwaway-1".into());
    assert_eq!(answers(open(&theirs).await.as_ref()).await, world.answers[1], "{database}");
    world.place.run(&format!("DROP USER '{login}'@'%'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_does_not_end_is_named_and_the_catalog_goes_on() {
    let Some(mut world) = World::new().await else { return };
    world.place.restore("s2_").await;
    let mut holder = MySqlConnection::connect(&world.place.url).await.unwrap();
    run(&mut holder, "START TRANSACTION; SELECT * FROM dl_tables").await;
    let db = world.place.open().await;
    let answer = tokio::time::timeout(LOCK_WAIT, db.migrate(NOW)).await.unwrap().plain();
    let Err(error) = answer else { panic!("{answer:?}") };
    assert!(error.is_retryable(), "{error}");
    assert!(
        error.to_string().contains("connection ") && error.to_string().contains("dl init"),
        "{error}"
    );
    says(db.get_table(&TableRef::Id(world.table)).await.plain(), &["version 2"]);
    run(&mut holder, "COMMIT").await;
    db.migrate(NOW).await.unwrap();
    world.is_upgraded(1).await;
}

/// A key is given once: also when its table went, and the server ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_never_given_again() {
    if let Err(why) = Software::MariaDb.check() {
        deltalakedb_test_servers::skip(&["mysql"], why);
        return;
    }
    let mut server = MariaDb::start(MariaDbOptions::default()).unwrap();
    let mut world = World::of(Place::on(server.superuser_url("mysql")).await).await;
    world.place.restore("s2_").await;
    world.place.open().await.migrate(NOW).await.unwrap();
    let highest = "SELECT CAST(MAX(table_key) AS SIGNED) FROM dl_tables";
    let before = world.place.number(highest).await;
    let db = world.place.open().await;
    for name in ["aborted", "another"] {
        let id = TableId(Uuid::new_v4());
        let new = new_table(id, TableName::new("keys", name).unwrap());
        db.import_begin(&new, Version::ZERO, true, NOW).await.unwrap();
        db.import_abort(id, &Act::default()).await.unwrap();
    }
    db.close().await.unwrap();
    server.restart().unwrap();
    world.place.admin = MySqlConnection::connect(&world.place.url).await.unwrap();
    live::make_table(world.place.open().await.as_ref()).await.unwrap();
    assert_eq!(world.place.number(highest).await, before + 3);
}

/// All nodes of a cluster upgrade at once, and go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_upgraded() {
    let cluster = match Galera::start_with(2, &["wsrep_sync_wait=15".to_owned()]) {
        Ok(cluster) => cluster,
        Err(why) => {
            deltalakedb_test_servers::skip(&["galera"], format!("{why:#}"));
            return;
        }
    };
    let urls = cluster.superuser_urls("mysql");
    let mut world = World::of(Place::on(urls[0].clone()).await).await;
    world.place.restore("s2_").await;
    let mut tasks = Vec::new();
    for url in &urls {
        let other: Url = url.parse().unwrap();
        let mut options = world.place.options.clone();
        options.port = other.port().unwrap();
        tasks.push(tokio::spawn(async move {
            let db = open(&options).await;
            retrying(|| db.migrate(NOW)).await.unwrap();
            db
        }));
    }
    let mut nodes = Vec::new();
    for task in tasks {
        nodes.push(task.await.unwrap());
    }
    nodes[0].migrate(NOW).await.unwrap();
    world.is_upgraded(1).await;
    for db in [&nodes[1], &nodes[0], &nodes[1]] {
        let table = live::make_table(db.as_ref()).await.unwrap();
        for node in &nodes {
            for (call, answer) in live::every_read(node.as_ref(), table).await.unwrap() {
                answer.unwrap_or_else(|error| panic!("{call}: {error}"));
            }
        }
    }
}

/// From versions 3 and 4, whatever a program has made before it was killed.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_versions_added_are_made_from_wherever_it_stopped() {
    let Some(mut place) = Place::new().await else { return };
    let fresh = place.open().await;
    fresh.migrate(NOW).await.unwrap();
    let table = live::make_table(fresh.as_ref()).await.unwrap();
    let key = RecordKey::new("share", "a").unwrap();
    let put = [RecordWrite { key, expected: Expected::Any, body: Some("{}".to_owned()) }];
    for (from, made, revision) in [
        (4, "DROP TABLE dl_registry", 0),
        (4, "DELETE FROM dl_registry", 0),
        // All but the version. Another process had it, and it was written to.
        (4, "UPDATE dl_registry SET revision = 7 WHERE kind = ''", 7),
        (3, "DROP TABLE dl_registry, dl_audit", 0),
        (3, "DROP TABLE dl_registry", 0),
    ] {
        let old = format!(
            "DELETE FROM dl_schema WHERE version > {from};
             INSERT IGNORE INTO dl_schema VALUES ({from}, 1, 'old'); {made}"
        );
        place.run(&old).await;
        let (one, two) = (place.open().await, place.open().await);
        let version = format!("has schema version {from}");
        says(one.registry_revision().await.plain(), &[&version, "dl init"]);
        let (first, second) = tokio::join!(one.migrate(NOW), two.migrate(NOW));
        first.unwrap();
        second.unwrap();
        assert_eq!(one.registry_revision().await.unwrap(), revision, "{made}");
        let outcome = two.registry_write(&put, NOW, None).await.unwrap();
        assert_eq!(outcome, RegistryOutcome::Written(revision + 1), "{made}");
        assert_eq!(place.number("SELECT MAX(version) FROM dl_schema").await, 5);
        for (call, answer) in live::every_read(one.as_ref(), table).await.unwrap() {
            answer.unwrap_or_else(|error| panic!("{made}: {call}: {error}"));
        }
    }
    // One that is not ours is left alone, and nothing is made beside it.
    for from in [3, 4] {
        let old = "DROP TABLE dl_registry, dl_audit; CREATE TABLE dl_registry (mine INT)";
        let old = if from == 4 { &old.replace(", dl_audit", "") } else { old };
        place.run(&format!("DELETE FROM dl_schema WHERE version > {from}; {old}")).await;
        let before = place.ours().await;
        let refused = place.open().await.migrate(NOW).await.plain();
        says(refused, &["dl_registry', which is not ours", "dl init", "Nothing was changed"]);
        assert_eq!(place.ours().await, before);
        place.run("DROP TABLE dl_registry").await;
        place.open().await.migrate(NOW).await.unwrap();
        assert_eq!(place.open().await.registry_revision().await.unwrap(), 0);
    }
}
