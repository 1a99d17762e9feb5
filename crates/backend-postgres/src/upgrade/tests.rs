//! Upgrades from version 2, on a real server: cut between any two steps, beside programs of version 2 that go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use deltalakedb_catalog_core::backend::parts::*;
use deltalakedb_catalog_core::error::{CatalogError, PlainResult};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs};
use deltalakedb_conformance::live;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use url::Url;
use uuid::Uuid;

use crate::layout::CHILDREN;
use crate::{PostgresBackend, PostgresOptions};

const NOW: TimestampMs = TimestampMs(1_700_000_000_000);
const TO_VERSION_2: &str = include_str!("../../tests/support/version_2.sql");

struct World {
    options: PostgresOptions,
    url: String,
    schema: String,
    admin: PgConnection,
    /// A table of `make_table`, to which nothing else was written.
    plain: TableId,
}

impl World {
    /// A catalog of version 2 with tables; none where there is no server.
    async fn new() -> Option<World> {
        World::with_prefix("dl_").await
    }

    async fn with_prefix(prefix: &str) -> Option<World> {
        let mut world = World::empty(prefix).await?;
        let db = world.open().await;
        db.migrate(NOW).await.unwrap();
        for _ in 0..3 {
            let id = live::make_table(db.as_ref()).await.unwrap();
            live::every_write(db.as_ref(), id).await.unwrap();
        }
        world.plain = live::make_table(db.as_ref()).await.unwrap();
        db.close().await.unwrap();
        world.run(TO_VERSION_2).await;
        Some(world)
    }

    async fn empty(prefix: &str) -> Option<World> {
        let url = match deltalakedb_test_servers::shared_postgres() {
            Ok(url) => url,
            Err(why) => {
                deltalakedb_test_servers::skip(&["postgres"], why);
                return None;
            }
        };
        let parsed: Url = url.parse().unwrap();
        let schema = format!("dl_upgrade_{}", Uuid::new_v4().simple());
        let mut options = PostgresOptions::new(
            parsed.host_str().unwrap(),
            parsed.port().unwrap(),
            parsed.path().trim_start_matches('/'),
            parsed.username(),
        );
        options.password = parsed.password().map(Into::into);
        options.schema = Some(schema.clone());
        prefix.clone_into(&mut options.table_prefix);
        options.pool.max_connections = 4;
        let admin = PgConnection::connect(&url).await.unwrap();
        Some(World { options, url, schema, admin, plain: TableId(Uuid::nil()) })
    }

    async fn open(&self) -> Arc<PostgresBackend> {
        PostgresBackend::connect(self.options.clone()).await.unwrap()
    }

    fn fill(&self, sql: &str) -> String {
        let prefix = &self.options.table_prefix;
        sql.replace("{p}", &format!("{}.{prefix}", self.schema)).replace("{i}", prefix)
    }

    async fn run(&mut self, sql: &str) {
        let sql = self.fill(sql);
        self.admin.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }

    async fn texts(&mut self, sql: &str) -> Vec<String> {
        let rows = self.admin.fetch_all(AssertSqlSafe(self.fill(sql))).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn number(&mut self, sql: &str) -> i64 {
        self.admin.fetch_one(AssertSqlSafe(self.fill(sql))).await.unwrap().get(0)
    }

    /// One step by a program that is started for it and ends after it: what a kill between two steps leaves.
    async fn step(&self) -> Result<bool, CatalogError> {
        let db = self.open().await;
        let more = db.migrate_step(NOW).await;
        db.close().await.unwrap();
        more
    }

    /// All rows of version 2, with the tables' ids, under other names.
    async fn remember(&mut self) {
        for child in &CHILDREN {
            self.run(&format!(
                "DROP TABLE IF EXISTS {{p}}{0}_was; CREATE TABLE {{p}}{0}_was AS
                 SELECT table_id, {1} FROM {{p}}{0}",
                child.name,
                child.copied("")
            ))
            .await;
        }
    }

    /// All rows of version 3 are the ones that were remembered, and no other.
    async fn is_as_remembered(&mut self) {
        for child in &CHILDREN {
            let was = format!("SELECT table_id, {} FROM {{p}}{}_was", child.copied(""), child.name);
            let is = format!(
                "SELECT t.id, {} FROM {{p}}{} o JOIN {{p}}tables t ON t.table_key = o.table_key",
                child.copied("o."),
                child.name
            );
            let differ = self
                .number(&format!(
                    "SELECT count(*) FROM (({was} EXCEPT ALL {is}) UNION ALL ({is} EXCEPT ALL {was})) AS d"
                ))
                .await;
            assert_eq!(differ, 0, "rows of {}", child.name);
            let all = self.number(&format!("SELECT count(*) FROM {{p}}{}", child.name)).await;
            let known = self.number(&format!("SELECT count(*) FROM {{p}}{}_was", child.name)).await;
            assert_eq!(all, known, "rows of {}", child.name);
        }
        let left = "SELECT relname::text FROM pg_class WHERE relnamespace = '{s}'::regnamespace
            AND relname LIKE '%\\_3%'";
        let left = self.texts(&left.replace("{s}", &self.schema.clone())).await;
        assert!(left.is_empty(), "{left:?}");
    }

    async fn tables(&mut self, state: &str) -> Vec<TableId> {
        let sql = format!("SELECT id::text FROM {{p}}tables WHERE state = '{state}' ORDER BY id");
        self.texts(&sql).await.iter().map(|id| TableId(id.parse().unwrap())).collect()
    }

    /// What a program of version 2 does in a commit: one file ends, one comes, one ends and comes again.
    async fn old_commit(&mut self, table: TableId, name: &str) {
        let sql = format!(
            "BEGIN;
             UPDATE {{p}}tables SET head_version = head_version + 1, head_timestamp_ms = head_timestamp_ms + 1
             WHERE id = '{table}';
             INSERT INTO {{p}}commits (table_id, version, timestamp_ms, num_added, num_removed, bytes_added,
                 bytes_removed, changes_metadata, changes_protocol, total_files, total_bytes, has_body, body_len)
             SELECT id, head_version, head_timestamp_ms, 2, 1, 2, 1, false, false, 1, 1, true, 3
             FROM {{p}}tables WHERE id = '{table}';
             INSERT INTO {{p}}commit_chunks (table_id, version, chunk_no, body)
             SELECT id, head_version, 0, decode('010203', 'hex') FROM {{p}}tables WHERE id = '{table}';
             INSERT INTO {{p}}txns (table_id, app_key, version, app_id, app_version)
             SELECT id, '\\x07', head_version, '{name}', 7 FROM {{p}}tables WHERE id = '{table}';
             UPDATE {{p}}files f SET removed_version = t.head_version, is_tombstone = true,
                 deletion_timestamp = 5, remove_action = '{{}}'
             FROM {{p}}tables t WHERE t.id = '{table}' AND f.table_id = t.id AND (f.added_version, f.ordinal) = (
                 SELECT added_version, ordinal FROM {{p}}files WHERE table_id = t.id
                   AND removed_version = 9223372036854775807 ORDER BY 1, 2 LIMIT 1);
             INSERT INTO {{p}}files (table_id, added_version, ordinal, removed_version, is_tombstone, file_key,
                 size, modification_time, data_change, path, dv_id)
             SELECT t.id, t.head_version, 0, 9223372036854775807, false, f.file_key, 77, 1, true, f.path, f.dv_id
             FROM {{p}}tables t JOIN {{p}}files f ON f.table_id = t.id AND f.removed_version = t.head_version
             WHERE t.id = '{table}' LIMIT 1;
             INSERT INTO {{p}}files (table_id, added_version, ordinal, removed_version, is_tombstone, file_key,
                 size, modification_time, data_change, path, dv_id)
             SELECT id, head_version, 1, 9223372036854775807, false, decode(md5('{name}'), 'hex'), 78, 1, true,
                 '{name}', '' FROM {{p}}tables WHERE id = '{table}';
             INSERT INTO {{p}}mirror_status (table_id, version, state, attempts, enqueued_at_ms)
             SELECT id, head_version, 'PENDING', 0, 1 FROM {{p}}tables WHERE id = '{table}';
             UPDATE {{p}}mirror SET pending_since_ms = coalesce(pending_since_ms, 1) WHERE table_id = '{table}';
             COMMIT;"
        );
        self.run(&sql).await;
    }

    /// What a program of version 2 does when it creates a table, or begins an import.
    async fn old_create(&mut self, state: &str) -> TableId {
        let id = Uuid::new_v4();
        self.run(&format!(
            "BEGIN;
             INSERT INTO {{p}}tables (id, namespace, name, drop_marker, location, storage_options, state,
                 created_at_ms, head_version, head_timestamp_ms, base_version, barrier_version)
             VALUES ('{id}', 'new', '{id}', '', 'l', '{{}}', '{state}', 1, 0, 1, 0, 0);
             INSERT INTO {{p}}commits (table_id, version, timestamp_ms, num_added, num_removed, bytes_added,
                 bytes_removed, changes_metadata, changes_protocol, total_files, total_bytes, has_body, body_len)
             VALUES ('{id}', 0, 1, 0, 0, 0, 0, true, true, 0, 0, true, 3);
             INSERT INTO {{p}}protocols VALUES ('{id}', 0, '{{\"minReaderVersion\":1,\"minWriterVersion\":2}}');
             INSERT INTO {{p}}mirror (table_id, mode, lease_epoch, lease_until_ms) VALUES ('{id}', 'active', 0, 0);
             COMMIT;"
        ))
        .await;
        TableId(id)
    }

    async fn gone(mut self) {
        let sql = format!("DROP SCHEMA {} CASCADE", self.schema);
        self.admin.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_cut_between_any_two_steps_goes_on() {
    let Some(mut world) = World::new().await else { return };
    world.remember().await;
    let mut steps = 1;
    while world.step().await.unwrap() {
        steps += 1;
        // A catalog of version 2, until the last step.
        assert_eq!(world.number("SELECT max(version) FROM {p}schema").await, 2);
        let refused =
            world.open().await.skip_index(TableId(Uuid::nil())).await.plain().unwrap_err();
        assert!(matches!(refused, CatalogError::Schema(_)), "{refused}");
    }
    assert!(steps > 20, "{steps}");
    world.is_as_remembered().await;
    world.step().await.unwrap();
    let db = world.open().await;
    for (name, answer) in live::every_read(db.as_ref(), world.plain).await.unwrap() {
        answer.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for (name, answer) in live::every_write(db.as_ref(), world.plain).await.unwrap() {
        answer.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    world.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_dropped_anywhere_goes_on() {
    let Some(mut world) = World::new().await else { return };
    world.remember().await;
    let db = world.open().await;
    for micros in (0..).step_by(300) {
        let limit = Duration::from_micros(micros);
        if tokio::time::timeout(limit, db.migrate(NOW)).await.is_ok_and(|done| done.is_ok()) {
            break;
        }
        assert!(micros < 60_000_000);
    }
    db.migrate(NOW).await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM {p}schema WHERE version = 3").await, 1);
    world.is_as_remembered().await;
    world.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_version_2_go_on_meanwhile() {
    let Some(mut world) = World::new().await else { return };
    let old = world.tables("active").await;
    let import = world.old_create("importing").await;
    let given_up = world.old_create("importing").await;
    for step in 0.. {
        for table in &old {
            world.old_commit(*table, &format!("step{step}")).await;
        }
        match step {
            2 => {
                let new = world.old_create("active").await;
                world.old_commit(new, "first").await;
                world.old_commit(new, "second").await;
            }
            3 => {
                // An import stores history and a base, and ends.
                world.old_commit(import, "imported").await;
                let finish =
                    format!("UPDATE {{p}}tables SET state = 'active' WHERE id = '{import}'");
                world.run(&finish).await;
            }
            4 => {
                for table in ["commits", "protocols", "mirror"] {
                    world
                        .run(&format!("DELETE FROM {{p}}{table} WHERE table_id = '{given_up}'"))
                        .await;
                }
                world.run(&format!("DELETE FROM {{p}}tables WHERE id = '{given_up}'")).await;
            }
            5 => {
                // Versions are published; a table is dropped, one is brought back.
                world
                    .run(
                        "UPDATE {p}mirror_status SET state = 'COMPLETE', digest = 'd' WHERE version = 0;
                         UPDATE {p}mirror SET published_version = 0, lease_epoch = lease_epoch + 1;
                         UPDATE {p}skip_index SET generation = generation + 1",
                    )
                    .await;
                let drop = format!(
                    "UPDATE {{p}}tables SET state = 'dropped', drop_marker = id::text WHERE id = '{}'",
                    old[0]
                );
                world.run(&drop).await;
            }
            _ => {}
        }
        world.remember().await;
        if !world.step().await.unwrap() {
            break;
        }
    }
    world.is_as_remembered().await;
    let db = world.open().await;
    let head = db.snapshot(&TableRef::Id(old[1]), At::Head).await.unwrap().version.get();
    assert!(head > 20, "{head}");
    world.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_upgrades_at_once_end_with_one_schema() {
    let Some(mut world) = World::new().await else { return };
    world.remember().await;
    let runs = (0..4).map(|_| {
        let options = world.options.clone();
        tokio::spawn(async move {
            PostgresBackend::connect(options).await.unwrap().migrate(NOW).await.plain()
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap().unwrap();
    }
    assert_eq!(world.number("SELECT count(*) FROM {p}schema WHERE version = 3").await, 1);
    world.is_as_remembered().await;
    world.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_refuses_and_the_next_run_begins_anew() {
    let damages = [
        ("DELETE FROM {p}commits_3 WHERE ctid = (SELECT min(ctid) FROM {p}commits_3)", "its rows"),
        ("UPDATE {p}files_3 SET size = size + 1", "the bytes of its files"),
        ("UPDATE {p}files_3 SET removed_version = 9 WHERE removed_version > 9", "its active files"),
        ("UPDATE {p}files_3 SET is_tombstone = NOT is_tombstone", "its tombstones"),
    ];
    for (damage, what) in damages {
        let Some(mut world) = World::new().await else { return };
        world.remember().await;
        while world.number("SELECT count(to_regclass('{p}files_3_active'))").await == 0 {
            assert!(world.step().await.unwrap());
        }
        world.run(damage).await;
        let db = world.open().await;
        let error = db.migrate(NOW).await.plain().unwrap_err();
        assert!(matches!(error, CatalogError::Corrupt(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains(what) && text.contains("Nothing was switched"), "{text}");
        assert_eq!(world.number("SELECT max(version) FROM {p}schema").await, 2);
        assert_eq!(world.number("SELECT count(*) FROM {p}files WHERE table_id IS NULL").await, 0);
        db.migrate(NOW).await.unwrap();
        world.is_as_remembered().await;
        world.gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_added_refuses_by_name() {
    let added = [
        ("CREATE VIEW {p}seen AS SELECT path FROM {p}files", "view ", "DROP VIEW {p}seen"),
        (
            "CREATE TABLE {p}mine (t uuid, v bigint, FOREIGN KEY (t, v) REFERENCES {p}commits)",
            "foreign key dl_mine_t",
            "DROP TABLE {p}mine",
        ),
        (
            "CREATE FUNCTION {p}f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER mine BEFORE INSERT ON {p}files FOR EACH ROW EXECUTE FUNCTION {p}f()",
            "trigger mine",
            "DROP TRIGGER mine ON {p}files",
        ),
        ("CREATE INDEX mine ON {p}files (path)", "index ", "DROP INDEX {p}x; DROP INDEX mine"),
        (
            "ALTER TABLE {p}files ADD COLUMN mine int",
            "column mine",
            "ALTER TABLE {p}files DROP COLUMN mine",
        ),
        (
            "ALTER TABLE {p}files ENABLE ROW LEVEL SECURITY",
            "row security",
            "ALTER TABLE {p}files DISABLE ROW LEVEL SECURITY",
        ),
        (
            "CREATE RULE mine AS ON INSERT TO {p}txns DO ALSO NOTHING",
            "rule mine",
            "DROP RULE mine ON {p}txns",
        ),
        (
            "CREATE STATISTICS {p}mine ON path, size FROM {p}files",
            "statistics dl_mine",
            "DROP STATISTICS {p}mine",
        ),
        (
            "CREATE PUBLICATION {i}mine_{n} FOR TABLE {p}commits",
            "publication dl_mine",
            "DROP PUBLICATION {i}mine_{n}",
        ),
    ];
    let Some(mut world) = World::new().await else { return };
    world.remember().await;
    let number = Uuid::new_v4().simple().to_string();
    let mut began = false;
    // Before the begin, and before the switch.
    for round in 0..2 {
        for (make, word, drop) in &added {
            let schema = world.schema.clone();
            let make = make.replace("{n}", &number);
            let drop = drop
                .replace("DROP INDEX {p}x; DROP INDEX mine", &format!("DROP INDEX {schema}.mine"))
                .replace("{n}", &number);
            world.run(&make.replace("{p}f()", &format!("{{p}}f{round}()"))).await;
            let error = world.open().await.migrate(NOW).await.plain().unwrap_err();
            assert!(matches!(error, CatalogError::Schema(_)), "{word}: {error}");
            let text = error.to_string();
            assert!(text.contains(word) && text.contains("Drop it"), "{word}: {text}");
            let begun = world.number("SELECT count(to_regclass('{p}upgrade_3'))").await == 1;
            assert_eq!(begun, began, "{word}");
            world.run(&drop).await;
        }
        if round == 0 {
            assert!(world.step().await.unwrap());
            began = true;
        }
    }
    // What depends on a table in a way that we do not look for.
    world.run("CREATE TABLE {p}mine (row_of_ours {p}protocols)").await;
    let error = world.open().await.migrate(NOW).await.plain().unwrap_err();
    assert!(error.to_string().contains("dl_mine"), "{error}");
    world.run("DROP TABLE {p}mine").await;
    world.open().await.migrate(NOW).await.unwrap();
    world.is_as_remembered().await;
    world.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_other_programs_under_the_names_of_copies_stay() {
    let Some(mut world) = World::new().await else { return };
    for name in ["files_3", "upgrade_3", "heads_3"] {
        world.run(&format!("CREATE TABLE {{p}}{name} (theirs int)")).await;
        let error = world.open().await.migrate(NOW).await.plain().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, CatalogError::Schema(_)) && text.contains(name), "{text}");
        assert_eq!(world.number(&format!("SELECT count(theirs) FROM {{p}}{name}")).await, 0);
        world.run(&format!("DROP TABLE {{p}}{name}")).await;
    }
    world.open().await.migrate(NOW).await.unwrap();
    world.gone().await;
}

/// Rights, owners, parameters and comments, a line each.
const GIVEN: &str = "SELECT format('%s %s %s %s', c.relname, a.grantee::regrole, a.privilege_type, a.is_grantable)
    FROM pg_class c CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
    WHERE c.relnamespace = '{s}'::regnamespace AND c.relkind = 'r' AND c.relname NOT LIKE '%\\_was'
    UNION ALL
    SELECT format('%s.%s %s %s', c.relname, replace(t.attname, 'table_id', 'table_key'), a.grantee::regrole,
        a.privilege_type)
    FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid CROSS JOIN LATERAL aclexplode(t.attacl) a
    WHERE c.relnamespace = '{s}'::regnamespace
    UNION ALL
    SELECT format('%s %s %s %s', c.relname, c.relowner::regrole, c.reloptions, obj_description(c.oid, 'pg_class'))
    FROM pg_class c
    WHERE c.relnamespace = '{s}'::regnamespace AND c.relkind = 'r' AND c.relname NOT LIKE '%\\_was'
    ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_audits_name_that_is_not_ours_refuses() {
    let Some(mut world) = World::new().await else { return };
    world.open().await.migrate(NOW).await.unwrap();
    world
        .run(
            "DROP TABLE {p}audit, {p}registry; DROP FUNCTION {p}audit_stays();
             DELETE FROM {p}schema WHERE version > 3;
             CREATE TABLE {p}audit (mine int)",
        )
        .await;
    let refused = world.open().await.migrate(NOW).await.plain().unwrap_err().to_string();
    assert!(refused.contains("dl_audit") && refused.contains("not ours"), "{refused}");
    assert_eq!(world.number("SELECT max(version) FROM {p}schema").await, 3);
    world.run("DROP TABLE {p}audit").await;
    world.open().await.migrate(NOW).await.unwrap();
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = '{p}audit'::regclass";
    assert_eq!(world.number(triggers).await, 2);
    world.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_registrys_name_that_is_not_ours_refuses() {
    let Some(mut world) = World::new().await else { return };
    world.open().await.migrate(NOW).await.unwrap();
    let audit = "SELECT count(*) FROM {p}audit";
    for (version, old) in [
        (4, "DROP TABLE {p}registry; DELETE FROM {p}schema WHERE version > 4"),
        (
            3,
            "DROP TABLE {p}audit, {p}registry; DROP FUNCTION {p}audit_stays();
             DELETE FROM {p}schema WHERE version > 3",
        ),
    ] {
        world.run(&format!("{old}; CREATE TABLE {{p}}registry (mine int)")).await;
        let refused = world.open().await.migrate(NOW).await.plain().unwrap_err().to_string();
        assert!(refused.contains("dl_registry") && refused.contains("not ours"), "{refused}");
        assert_eq!(world.number("SELECT max(version) FROM {p}schema").await, version);
        let there = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('{p}audit')";
        assert_eq!(world.number(there).await, i64::from(version == 4), "all of it or nothing");
        world.run("DROP TABLE {p}registry").await;
        let (one, two) = (world.open().await, world.open().await);
        let (one, two) = tokio::join!(one.migrate(NOW), two.migrate(NOW));
        one.unwrap();
        two.unwrap();
        assert_eq!(world.number("SELECT max(version) FROM {p}schema").await, 5);
        assert_eq!(world.number("SELECT revision FROM {p}registry").await, 0);
        assert_eq!(world.number(audit).await, 0);
    }
    world.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_given_again() {
    let Some(mut world) = World::new().await else { return };
    world.remember().await;
    let n = Uuid::new_v4().simple().to_string();
    let schema = world.schema.clone();
    world
        .run(&format!(
            "CREATE ROLE reader_{n}; CREATE ROLE writer_{n}; CREATE ROLE owner_{n}; CREATE ROLE other_{n};
             GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader_{n};
             GRANT SELECT, INSERT, UPDATE, DELETE ON {{p}}files, {{p}}commits TO writer_{n} WITH GRANT OPTION;
             GRANT SELECT (table_id, path) ON {{p}}files TO other_{n};
             GRANT SELECT, INSERT ON {{p}}tables TO writer_{n};
             GRANT SELECT ON {{p}}txns TO PUBLIC;
             ALTER TABLE {{p}}metadata OWNER TO owner_{n};
             GRANT SELECT ON {{p}}metadata TO writer_{n};
             REVOKE TRUNCATE ON {{p}}protocols FROM CURRENT_USER;
             ALTER TABLE {{p}}files SET (autovacuum_vacuum_scale_factor = 0.01);
             COMMENT ON TABLE {{p}}files IS 'it''s ours';
             ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO other_{n};
             DROP TABLE {}",
            CHILDREN.map(|child| format!("{{p}}{}_was", child.name)).join(", ")
        ))
        .await;
    let given = GIVEN.replace("{s}", &schema);
    let before = world.texts(&given).await;
    assert!(before.iter().any(|line| line.contains("other_") && line.contains("table_key")));
    world.open().await.migrate(NOW).await.unwrap();
    let after = world.texts(&given).await;
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (before.into_iter().collect(), after.into_iter().collect());
    let lost: Vec<_> = before.difference(&after).collect();
    // Whoever may read or add rows to the catalog may read or add rows to its audit, and nobody else.
    let is_audit = |line: &&String| line.starts_with("dl_audit ");
    let audit: Vec<_> = after.difference(&before).filter(is_audit).collect();
    assert!(audit.contains(&&format!("dl_audit reader_{n} SELECT f")), "{audit:#?}");
    assert!(!audit.iter().any(|line| line.contains("other_")), "{audit:#?}");
    // Whoever may add rows to the catalog reads the registry. Its owner changes it.
    let is_registry = |line: &&String| line.starts_with("dl_registry ");
    let registry = after.difference(&before).filter(is_registry);
    let of_others: Vec<_> = registry.filter(|line| line.contains(&n)).collect();
    assert_eq!(of_others, [&format!("dl_registry writer_{n} SELECT f")]);
    let new: Vec<_> =
        after.difference(&before).filter(|line| !is_audit(line) && !is_registry(line)).collect();
    assert!(lost.is_empty() && new.is_empty(), "lost {lost:#?}, new {new:#?}");
    let roles = format!("reader_{n}, writer_{n}, owner_{n}, other_{n}");
    world
        .run(&format!("DROP SCHEMA {schema} CASCADE; DROP OWNED BY {roles}; DROP ROLE {roles}"))
        .await;
}

/// Columns, indexes, constraints and functions, a line each.
const SHAPE: &str = "SELECT format('%s.%s %s %s %s', c.relname, a.attname, a.attidentity, a.atttypid::regtype, a.attstorage)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = '{s}'::regnamespace AND c.relkind = 'r'
    UNION ALL SELECT replace(indexdef, '{s}', 's') FROM pg_indexes WHERE schemaname = '{s}'
    UNION ALL SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = '{s}'::regnamespace
    UNION ALL SELECT relname::text || relkind::text FROM pg_class WHERE relnamespace = '{s}'::regnamespace
    UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = '{s}'::regnamespace
    ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_catalog_has_the_shape_of_a_new_one() {
    for prefix in ["dl_", "a_prefix_of_thirty_one_letters_"] {
        let Some(mut world) = World::with_prefix(prefix).await else { return };
        let Some(mut fresh) = World::empty(prefix).await else { return };
        fresh.open().await.migrate(NOW).await.unwrap();
        world.open().await.migrate(NOW).await.unwrap();
        let mut shapes = Vec::new();
        for world in [&mut world, &mut fresh] {
            let schema = world.schema.clone();
            let shape = world.texts(&SHAPE.replace("{s}", &schema)).await;
            let shape: BTreeSet<_> = shape.iter().map(|line| line.replace(&schema, "s")).collect();
            shapes.push(shape);
        }
        let lost: Vec<_> = shapes[1].difference(&shapes[0]).collect();
        let more: Vec<_> = shapes[0].difference(&shapes[1]).collect();
        assert!(lost.is_empty() && more.is_empty(), "missing {lost:#?}, too many {more:#?}");
        world.gone().await;
        fresh.gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_the_tables_is_named_and_nothing_is_lost() {
    let Some(mut world) = World::new().await else { return };
    world.remember().await;
    while world.number("SELECT count(to_regclass('{p}skip_pages_3_pkey'))").await == 0 {
        assert!(world.step().await.unwrap());
    }
    world.options.statement_timeout = Duration::from_millis(1_500);
    // A writer, a reader.
    for sql in ["SELECT 1 FROM {p}tables FOR UPDATE", "SELECT 1 FROM {p}files"] {
        let mut other = PgConnection::connect(&world.url).await.unwrap();
        let sql = world.fill(&format!("SET application_name = 'dl_holder'; BEGIN; {sql}"));
        other.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        let error = world.step().await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        let text = error.to_string();
        assert!(text.contains("dl_holder") && text.contains("dl init"), "{text}");
        // Others go on, while it is held and after that.
        assert_eq!(world.number("SELECT count(*) FROM {p}files WHERE table_id IS NULL").await, 0);
        other.execute("ROLLBACK").await.unwrap();
        let table = world.tables("active").await[0];
        world.old_commit(table, &Uuid::new_v4().to_string()).await;
    }
    world.remember().await;
    assert!(!world.step().await.unwrap());
    world.is_as_remembered().await;
    world.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_tables_changed_under_it_says_so() {
    let Some(mut world) = World::empty("dl_").await else { return };
    let db = world.open().await;
    db.migrate(NOW).await.unwrap();
    let table = live::make_table(db.as_ref()).await.unwrap();
    world.run(TO_VERSION_2).await;
    let read = db.list_files(table, deltalakedb_conformance::env::v(1), None, 9).await.plain();
    let write = live::commit(db.as_ref(), Vec::new()).await;
    for error in [read.map(|_| ()).unwrap_err(), write.unwrap_err()] {
        assert!(matches!(error, CatalogError::Schema(_)), "{error}");
        assert!(error.to_string().contains("schema version 2"), "{error}");
    }
    db.migrate(NOW).await.unwrap();
    db.list_files(table, deltalakedb_conformance::env::v(1), None, 9).await.unwrap();
    world.gone().await;
}
