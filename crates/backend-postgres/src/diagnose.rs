//! Settings of a server that a catalog's safety and speed rest on
//! (<https://www.postgresql.org/docs/current/runtime-config.html>), sizes, rights, replicas.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::diagnosis::{Diagnosis, Level};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::support::{AUDIT, REGISTRY, registry_rights};
use sqlx::Row;

use crate::errors::DbResult;
use crate::options::PostgresOptions;
use crate::schema::{self, TABLES};
use crate::session::{Args, Call, Mode, Session};

/// Settings that are looked at. Everyone may read them.
const SETTINGS: &str =
    "SELECT name::text, setting::text FROM pg_catalog.pg_settings WHERE name IN (
        'fsync', 'full_page_writes', 'synchronous_commit', 'autovacuum', 'max_connections',
        'superuser_reserved_connections', 'shared_buffers', 'wal_level', 'server_encoding',
        'transaction_read_only', 'track_counts')
    UNION ALL SELECT 'recovery', pg_catalog.pg_is_in_recovery()::text";
/// Standbys and how late they are; those of others are hidden from most logins.
const REPLICAS: &str = "SELECT count(*)::int8,
        (max(extract(epoch FROM replay_lag)) * 1000)::int8
    FROM pg_catalog.pg_stat_replication";

/// Shared buffers that are few for any server, in pages of 8 KiB: the default.
const FEW_BUFFERS: u64 = 16_384;
/// Rows that are dead in a table before that is worth a word.
const MANY_DEAD: i64 = 100_000;

/// Looks at the server, on a connection of its own.
///
/// # Errors
/// Those of connecting; `Unavailable` if the server does not answer.
pub async fn diagnose(options: PostgresOptions) -> Result<Vec<Diagnosis>> {
    let pool = options.pool.max_connections;
    let session = Session::connect(options, schema::look_again).await?;
    let mut call = session.begin("looking at the server", Mode::ReadOne).await?;
    let result = look(&mut call, pool).await;
    let found = call.end(result).await;
    session.close().await;
    found
}

async fn look(call: &mut Call, pool: u32) -> DbResult<Vec<Diagnosis>> {
    let mut settings = BTreeMap::new();
    for row in call.fetch_text(SETTINGS.to_owned(), Args::new()).await? {
        settings.insert(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?);
    }
    let mut found = judge(&settings, pool);
    found.extend(tables(call).await?);
    let rows = call.fetch_text(REPLICAS.to_owned(), Args::new()).await?;
    if let Some(row) = rows.first() {
        let (standbys, lag): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        found.extend(replicas(standbys, lag));
    }
    Ok(found)
}

/// Sizes of our tables, dead rows, and what this login may do with them.
async fn tables(call: &mut Call) -> DbResult<Vec<Diagnosis>> {
    let prefix = call.session.options.table_prefix.clone();
    let schema = match &call.session.options.schema {
        // Both were checked to be plain words when the options were.
        Some(schema) => format!("n.nspname::text = '{}'", schema.replace('\'', "''")),
        None => "pg_catalog.pg_table_is_visible(c.oid)".to_owned(),
    };
    let names: Vec<String> = TABLES.iter().map(|table| format!("'{prefix}{table}'")).collect();
    let sql = format!(
        "SELECT c.relname::text, pg_catalog.pg_table_size(c.oid)::int8,
            pg_catalog.pg_indexes_size(c.oid)::int8, coalesce(s.n_dead_tup, 0)::int8,
            coalesce(s.n_live_tup, 0)::int8,
            pg_catalog.has_table_privilege(c.oid, 'SELECT'),
            pg_catalog.has_table_privilege(c.oid, 'INSERT')
                -- Rows of the audit are only added.
                AND (c.relname::text = '{prefix}{AUDIT}'
                    OR (pg_catalog.has_table_privilege(c.oid, 'UPDATE')
                        AND pg_catalog.has_table_privilege(c.oid, 'DELETE')))
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
        WHERE c.relkind IN ('r', 'p') AND {schema} AND c.relname::text IN ({})",
        names.join(", ")
    );
    let (mut data, mut indexes) = (0_i64, 0_i64);
    let (mut unread, mut unwritten) = (Vec::new(), Vec::new());
    let registry = format!("{prefix}{REGISTRY}");
    let mut reads_registry = None;
    let mut found = Vec::new();
    for row in call.fetch_text(sql, Args::new()).await? {
        let name: String = row.try_get(0)?;
        data += row.try_get::<i64, _>(1)?;
        indexes += row.try_get::<i64, _>(2)?;
        let (dead, live): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
        if dead > MANY_DEAD && dead > live {
            found.push(Diagnosis::new(
                Level::Warning,
                format!("table {name}"),
                format!("{dead} dead rows, {live} live ones"),
                "dead rows make every look at the table slower",
                format!("VACUUM ANALYZE {name}, and see why autovacuum does not"),
            ));
        }
        let reads: bool = row.try_get(5)?;
        if name == registry {
            // Readers have no right on it.
            reads_registry = Some(reads);
            continue;
        }
        if !reads {
            unread.push(name.clone());
        }
        // Only who upgrades the catalog writes its version.
        if name != format!("{prefix}schema") && !row.try_get::<bool, _>(6)? {
            unwritten.push(name);
        }
    }
    found.push(Diagnosis::ok(
        "sizes",
        format!("{} MiB in tables, {} MiB in indexes", data >> 20, indexes >> 20),
    ));
    let judged = rights(&unread, &unwritten);
    let commits = judged.level == Level::Ok;
    found.push(judged);
    found.extend(reads_registry.and_then(|reads| registry_rights(&registry, commits, reads)));
    Ok(found)
}

fn rights(unread: &[String], unwritten: &[String]) -> Diagnosis {
    match (unread, unwritten) {
        ([], []) => Diagnosis::ok("rights", "this login may read and commit"),
        ([], _) => Diagnosis::new(
            Level::Note,
            "rights",
            format!("this login may read, and may not write {}", unwritten.join(", ")),
            "a reader's login is right for queries; commits and publishing need a writer's",
            "`dl grants --role writer --login NAME` prints the SQL where it shall commit",
        ),
        _ => Diagnosis::new(
            Level::Error,
            "rights",
            format!("this login may not read {}", unread.join(", ")),
            "every call needs these tables",
            "`dl grants --role reader --login NAME` prints the SQL that an administrator runs",
        ),
    }
}

fn replicas(standbys: i64, lag_ms: Option<i64>) -> Vec<Diagnosis> {
    if standbys <= 0 {
        return Vec::new();
    }
    let shown =
        lag_ms.map_or_else(|| "not shown to this login".to_owned(), |ms| format!("{ms} ms"));
    let text = format!("{standbys} standby server(s), lag {shown}");
    vec![match lag_ms {
        Some(ms) if ms > 10_000 => Diagnosis::new(
            Level::Warning,
            "replication",
            text,
            "readers of a late replica see old versions, and a failover loses what it lacks",
            "look at the standby's load, disk and network",
        ),
        _ => Diagnosis::ok("replication", text),
    }]
}

/// What settings mean for a catalog.
fn judge(settings: &BTreeMap<String, String>, pool: u32) -> Vec<Diagnosis> {
    let get = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| get(name).parse::<u64>().ok();
    let mut found = Vec::new();
    let mut setting = |name: &str, bad: Option<(Level, &str, &str)>| {
        let value = get(name);
        if value.is_empty() {
            return;
        }
        found.push(match bad {
            None => Diagnosis::ok(name, value),
            Some((level, why, advice)) => Diagnosis::new(level, name, value, why, advice),
        });
    };
    let off = |name: &str| get(name) == "off";
    setting(
        "fsync",
        off("fsync").then_some((
            Level::Error,
            "a crash of the machine loses commits that were acknowledged, and may corrupt the database",
            "set fsync = on",
        )),
    );
    setting(
        "full_page_writes",
        off("full_page_writes").then_some((
            Level::Error,
            "a crash in the middle of a page's write may corrupt the database",
            "set full_page_writes = on, unless the file system writes pages as a whole",
        )),
    );
    setting(
        "synchronous_commit",
        off("synchronous_commit").then_some((
            Level::Warning,
            "a crash loses the last commits that were acknowledged; what is published of them stays in \
             the log, and the table diverges",
            "set synchronous_commit = on, at least for the catalog's logins",
        )),
    );
    setting(
        "autovacuum",
        off("autovacuum").then_some((
            Level::Warning,
            "dead rows stay, statistics grow old, and lookups get slow",
            "set autovacuum = on, or run VACUUM ANALYZE by a schedule",
        )),
    );
    let reserved = number("superuser_reserved_connections").unwrap_or(3);
    let free = number("max_connections").map(|max| max.saturating_sub(reserved));
    setting(
        "max_connections",
        free.filter(|free| u64::from(pool) > *free).map(|_| {
            (
                Level::Warning,
                "the pool of this program alone may want more connections than the server has",
                "raise max_connections, lower max_connections in the catalog's URL, or use a pooler",
            )
        }),
    );
    setting(
        "shared_buffers",
        number("shared_buffers").filter(|pages| *pages < FEW_BUFFERS).map(|_| {
            (
                Level::Note,
                "in pages of 8 kB: indexes of large catalogs do not fit",
                "a quarter of the machine's memory is usual",
            )
        }),
    );
    setting(
        "wal_level",
        (get("wal_level") == "minimal").then_some((
            Level::Note,
            "neither replicas nor a restore to a point in time work",
            "set wal_level = replica",
        )),
    );
    setting(
        "server_encoding",
        (get("server_encoding") != "UTF8").then_some((
            Level::Warning,
            "paths and names of tables that the encoding does not have cannot be stored",
            "use a database with the encoding UTF8",
        )),
    );
    let standby = get("recovery") == "true" || get("transaction_read_only") == "on";
    if standby {
        found.push(Diagnosis::new(
            Level::Error,
            "recovery",
            "this server takes no writes: it is a standby, or transactions are read-only",
            "nothing can be committed or published here",
            "name the primary in the catalog's URL",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(settings: &[(&str, &str)], pool: u32) -> Vec<(String, Level)> {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        judge(&settings, pool).into_iter().map(|d| (d.what, d.level)).collect()
    }

    #[test]
    fn settings_that_lose_commits_are_told() {
        for (name, value, level) in [
            ("fsync", "on", Level::Ok),
            ("fsync", "off", Level::Error),
            ("full_page_writes", "off", Level::Error),
            ("synchronous_commit", "off", Level::Warning),
            ("synchronous_commit", "local", Level::Ok),
            ("synchronous_commit", "remote_apply", Level::Ok),
            ("autovacuum", "off", Level::Warning),
            ("shared_buffers", "16384", Level::Ok),
            ("shared_buffers", "1024", Level::Note),
            ("wal_level", "minimal", Level::Note),
            ("wal_level", "logical", Level::Ok),
            ("server_encoding", "SQL_ASCII", Level::Warning),
            ("recovery", "true", Level::Error),
        ] {
            assert_eq!(levels(&[(name, value)], 1), [(name.to_owned(), level)], "{name}={value}");
        }
        let connections = [("max_connections", "20"), ("superuser_reserved_connections", "3")];
        assert_eq!(levels(&connections, 17)[0].1, Level::Ok);
        assert_eq!(levels(&connections, 18)[0].1, Level::Warning);
        // What a server does not have is not told of.
        assert!(levels(&[], 1).is_empty());
    }

    #[test]
    fn rights_and_replicas_are_told() {
        let some = ["dl_files".to_owned()];
        assert_eq!(rights(&[], &[]).level, Level::Ok);
        assert_eq!(rights(&[], &some).level, Level::Note);
        assert_eq!(rights(&some, &some).level, Level::Error);
        assert!(replicas(0, None).is_empty());
        assert_eq!(replicas(1, None)[0].level, Level::Ok);
        assert_eq!(replicas(1, Some(10_001))[0].level, Level::Warning);
    }
}
