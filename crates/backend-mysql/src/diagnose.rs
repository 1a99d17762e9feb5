//! Settings of a server that a catalog's safety and speed rest on
//! (<https://dev.mysql.com/doc/refman/8.4/en/innodb-parameters.html>,
//! <https://mariadb.com/kb/en/innodb-system-variables/>), rights, sizes, clusters and replicas.

mod cluster;
mod rights;

use std::collections::BTreeMap;

use deltalakedb_catalog_core::diagnosis::{Diagnosis, Level};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::support::{GrantRole, REGISTRY, registry_rights};
use sqlx::{Column, Row};

use crate::errors::DbResult;
use crate::options::MySqlOptions;
use crate::schema::tables;
use crate::session::{Call, Session};

/// Variables that are looked at; servers leave out those that they do not have.
const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN (
    'innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin', 'innodb_doublewrite',
    'innodb_buffer_pool_size', 'max_allowed_packet', 'max_connections', 'read_only',
    'super_read_only', 'innodb_rollback_on_timeout', 'max_user_connections', 'binlog_format',
    'time_zone', 'system_time_zone', 'lower_case_table_names', 'wsrep_on', 'wsrep_sync_wait')";
/// Each version knows one of them; both need a right that few logins have.
const REPLICATION: [&str; 2] = ["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"];

/// The default buffer pool, bytes: little for a server of its own.
const SMALL_POOL: u64 = 128 << 20;
/// Messages that are small for large commits, bytes.
const SMALL_PACKET: u64 = 16 << 20;

/// Looks at the server, on a connection of its own.
///
/// # Errors
/// Those of connecting; `Unavailable` if the server does not answer.
pub async fn diagnose(options: MySqlOptions) -> Result<Vec<Diagnosis>> {
    let pool = options.pool.max_connections;
    let session = Session::connect(options).await?;
    let mut call = session.unchecked("looking at the server").await?;
    let result = look(&mut call, pool).await;
    let found = call.end(result).await;
    session.close().await;
    found
}

/// Names and values of a `SHOW` statement.
async fn pairs(call: &mut Call, sql: &str) -> DbResult<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for row in call.query(sql, &[]).await?.iter().flat_map(|set| &set.rows) {
        let (name, value): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        pairs.insert(name.to_lowercase(), value);
    }
    Ok(pairs)
}

async fn look(call: &mut Call, pool: u32) -> DbResult<Vec<Diagnosis>> {
    let settings = pairs(call, VARIABLES).await?;
    let status = pairs(call, cluster::STATUS).await?;
    let mut found = judge(&settings, pool);
    found.extend(cluster::connections(&settings, &status, pool));
    found.extend(cluster::time_zone(&settings));
    found.extend(cluster::galera(&settings, &status));
    let prefix = call.session.options.table_prefix.clone();
    let database = call.session.options.database.clone();
    let mut grants: Vec<String> = Vec::new();
    for row in call.query("SHOW GRANTS", &[]).await?.iter().flat_map(|set| &set.rows) {
        grants.push(row.try_get(0)?);
    }
    // Readers have no right on the registry.
    let wanted = |table| Some((format!("{prefix}{table}"), GrantRole::Writer.rights_on(table)?));
    let named: Vec<(String, &str)> =
        tables().filter(|table| *table != REGISTRY).filter_map(wanted).collect();
    let schema = format!("{prefix}schema");
    let lowers = settings.get("lower_case_table_names").is_some_and(|value| value != "0");
    let judged = rights::judge(&grants, &database, &schema, &named, lowers);
    let commits = judged.level == Level::Ok;
    found.push(judged);
    let registry = format!("{prefix}{REGISTRY}");
    if let Some(reads) = rights::reads(&grants, &database, &registry, lowers) {
        found.extend(registry_rights(&registry, commits, reads));
    }
    let names: Vec<String> = tables().map(|table| format!("'{prefix}{table}'")).collect();
    let sql = format!(
        "SELECT CAST(COALESCE(SUM(data_length), 0) AS SIGNED),
            CAST(COALESCE(SUM(index_length), 0) AS SIGNED)
        FROM information_schema.tables
        WHERE table_schema = DATABASE() AND table_name IN ({})",
        names.join(", ")
    );
    if let Some(row) = call.row(&sql, &[]).await? {
        let (data, indexes): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let text = format!("{} MiB in tables, {} MiB in indexes", data >> 20, indexes >> 20);
        found.push(Diagnosis::ok("sizes", text));
    }
    // Last: who may not ask is told nothing.
    found.extend(cluster::replication(&settings, &replicas(call).await));
    Ok(found)
}

/// Where this server copies from, a channel each; none if it does not, or this login may not ask.
async fn replicas(call: &mut Call) -> Vec<BTreeMap<String, String>> {
    for sql in REPLICATION {
        let sets = match call.query(sql, &[]).await {
            Ok(sets) => sets,
            Err(_) if call.is_usable() => continue,
            Err(_) => break,
        };
        let rows = sets.iter().flat_map(|set| &set.rows);
        return rows
            .map(|row| {
                let columns = row.columns().iter();
                columns
                    .filter_map(|column| {
                        let value = row.try_get_raw(column.ordinal()).ok()?;
                        let text = <&str as sqlx::Decode<sqlx::MySql>>::decode(value).ok()?;
                        Some((column.name().to_lowercase(), text.to_owned()))
                    })
                    .collect()
            })
            .collect();
    }
    Vec::new()
}

/// What settings mean for a catalog.
fn judge(settings: &BTreeMap<String, String>, pool: u32) -> Vec<Diagnosis> {
    let get = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| get(name).parse::<u64>().ok();
    let is_on = |name: &str| matches!(get(name).to_ascii_lowercase().as_str(), "on" | "1");
    let is_off = |name: &str| matches!(get(name).to_ascii_lowercase().as_str(), "off" | "0");
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
    let flush = "innodb_flush_log_at_trx_commit";
    setting(
        flush,
        (number(flush) != Some(1)).then_some((
            Level::Warning,
            "a crash loses up to a second of commits that were acknowledged; what is published of them \
             stays in the log, and the table diverges",
            "set innodb_flush_log_at_trx_commit = 1",
        )),
    );
    setting(
        "sync_binlog",
        (is_on("log_bin") && number("sync_binlog") != Some(1)).then_some((
            Level::Warning,
            "a crash loses the end of the binary log: replicas and restores to a point in time lack \
             commits that were acknowledged",
            "set sync_binlog = 1",
        )),
    );
    setting(
        "innodb_doublewrite",
        is_off("innodb_doublewrite").then_some((
            Level::Warning,
            "a crash in the middle of a page's write may corrupt the database",
            "set innodb_doublewrite = ON, unless the file system writes pages as a whole",
        )),
    );
    let pool_size = "innodb_buffer_pool_size";
    setting(
        pool_size,
        number(pool_size).filter(|bytes| *bytes < SMALL_POOL).map(|_| {
            (
                Level::Note,
                "in bytes: indexes of large catalogs do not fit",
                "half of the machine's memory and more is usual",
            )
        }),
    );
    setting(
        "max_allowed_packet",
        number("max_allowed_packet").filter(|bytes| *bytes < SMALL_PACKET).map(|_| {
            (
                Level::Note,
                "in bytes: large commits take more messages",
                "set max_allowed_packet = 64M",
            )
        }),
    );
    setting(
        "max_connections",
        number("max_connections").filter(|max| u64::from(pool) >= *max).map(|_| {
            (
                Level::Warning,
                "the pool of this program alone may want more connections than the server has",
                "raise max_connections, or lower max_connections in the catalog's URL",
            )
        }),
    );
    setting(
        "binlog_format",
        (is_on("log_bin") && get("binlog_format").eq_ignore_ascii_case("statement")).then_some((
            Level::Error,
            "commits run at READ COMMITTED, which this format cannot log: the server refuses them",
            "set binlog_format = ROW",
        )),
    );
    for name in ["read_only", "super_read_only"] {
        if is_on(name) {
            found.push(Diagnosis::new(
                Level::Error,
                name,
                get(name),
                "nothing can be committed or published here",
                "name the primary in the catalog's URL",
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_lose_commits_are_told() {
        for (name, value, level) in [
            ("innodb_flush_log_at_trx_commit", "1", Level::Ok),
            ("innodb_flush_log_at_trx_commit", "2", Level::Warning),
            ("innodb_flush_log_at_trx_commit", "0", Level::Warning),
            ("innodb_doublewrite", "ON", Level::Ok),
            ("innodb_doublewrite", "DETECT_AND_RECOVER", Level::Ok),
            ("innodb_doublewrite", "OFF", Level::Warning),
            ("innodb_buffer_pool_size", "8388608", Level::Note),
            ("max_allowed_packet", "1048576", Level::Note),
            ("max_connections", "10", Level::Warning),
            ("max_connections", "11", Level::Ok),
            // Without a binary log it means nothing.
            ("sync_binlog", "0", Level::Ok),
            ("read_only", "ON", Level::Error),
            ("binlog_format", "STATEMENT", Level::Ok),
        ] {
            let settings = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let found = judge(&settings, 10);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].what.as_str(), found[0].level), (name, level), "{name}={value}");
        }
        let with_log = [("log_bin", "ON"), ("sync_binlog", "0")];
        let settings = with_log.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(judge(&settings, 10)[0].level, Level::Warning);
    }
}
