//! What our tables like to have done now and then
//! (<https://dev.mysql.com/doc/refman/8.4/en/analyze-table.html>).

use deltalakedb_catalog_core::diagnosis::Tended;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::support::REGISTRY;
use sqlx::Row;

use crate::errors::DbResult;
use crate::options::MySqlOptions;
use crate::schema::tables;
use crate::session::{Call, Session};

/// Up to the version before this one, `ANALYZE TABLE` makes others wait that come while a long query reads the
/// table (<https://dev.mysql.com/doc/relnotes/mysql/8.0/en/news-8-0-24.html>).
const SINCE: [u32; 3] = [8, 0, 24];

/// `ANALYZE TABLE` of our tables, on a connection of its own, where nobody waits for that; replicas do it
/// themselves. Space of deleted rows is used again by InnoDB. With `dry_run` nothing is done.
///
/// # Errors
/// Those of connecting; `Unavailable` if the server does not answer.
pub async fn tend(options: MySqlOptions, dry_run: bool) -> Result<Tended> {
    let session = Session::connect(options).await?;
    let version = session.server.get().map(|server| server.version.clone()).unwrap_or_default();
    if !may_analyze(&version) {
        session.close().await;
        return Ok(Tended::nothing(format!(
            "{version} keeps statistics up to date by itself (innodb_stats_auto_recalc), and ANALYZE TABLE may make \
             others wait there"
        )));
    }
    let mut call = session.unchecked("analyzing the tables").await?;
    let result = analyze(&mut call, dry_run).await;
    let tended = call.end(result).await;
    session.close().await;
    tended
}

async fn analyze(call: &mut Call, dry_run: bool) -> DbResult<Tended> {
    let prefix = call.session.options.table_prefix.clone();
    let mut tended = Tended::default();
    // The registry has few rows, and a writer may not analyze it.
    for table in tables().filter(|table| *table != REGISTRY) {
        let sql = format!("ANALYZE NO_WRITE_TO_BINLOG TABLE `{prefix}{table}`");
        if dry_run {
            tended.done.push(sql);
            continue;
        }
        // It answers what went wrong in a row, too.
        for row in call.query(&sql, &[]).await?.iter().flat_map(|set| &set.rows) {
            let (kind, text): (String, String) = (row.try_get(2)?, row.try_get(3)?);
            if kind.eq_ignore_ascii_case("error") {
                tended.left.push(format!("{prefix}{table}: {text}"));
            } else if kind.eq_ignore_ascii_case("status") && text == "OK" {
                tended.done.push(sql.clone());
            }
        }
    }
    Ok(tended)
}

/// Whether this server analyzes without making others wait.
fn may_analyze(version: &str) -> bool {
    if ["mariadb", "tidb"].iter().any(|other| version.to_ascii_lowercase().contains(other)) {
        return false;
    }
    let plain =
        version.split(|c: char| !(c.is_ascii_digit() || c == '.')).next().unwrap_or_default();
    let mut parts = plain.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version: [u32; 3] = std::array::from_fn(|_| parts.next().unwrap_or(0));
    version >= SINCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_let_others_go_on_are_analyzed() {
        for (version, may) in [
            ("8.0.23", false),
            ("8.0.24", true),
            ("8.0.40-0ubuntu0.24.04.1", true),
            ("8.4.3", true),
            ("9.1.0", true),
            ("5.7.44-log", false),
            ("10.11.14-MariaDB-0+deb12u2", false),
            ("8.0.11-TiDB-v8.5.0", false),
            ("", false),
        ] {
            assert_eq!(may_analyze(version), may, "{version}");
        }
    }
}
