//! From version 2 to version 3: the rows of a table go by its key of 4 bytes, not by its id of 16.
//!
//! All tables but `{p}batches` are written anew, as `{p}files_3` and so on, while others read and commit.
//! Each step commits by itself, and what was done stands in the database: whoever runs `migrate` next goes
//! on from there, after a kill as beside another process.
//!
//! How far an upgrade is, is said by the name of its own table, which moves in the same `RENAME TABLE` as the
//! tables that it is about. That is one step, also when a server is killed in it (MySQL 8.0, MariaDB 10.6):
//!
//! 1. `{p}upgrade_3`: *copying*. Version 2 works. Rows that never change are copied.
//! 2. `{p}upgrade_3_fenced`: the tables of version 2 are called `{p}files_2` and so on. Nobody reads or
//!    writes: statements of programs of version 2 fail for want of their tables. What was written since is
//!    copied, with what may change at any time, and both sides are compared. If that fails, the tables get
//!    their names back.
//! 3. `{p}upgrade_3_done`: the tables of version 3 have the names, and `{p}schema` is one that says 3. What is
//!    left of version 2 is dropped, this table last.
//!
//! A fence by name, as `LOCK TABLES` does not reach the other nodes of a cluster.

mod copying;
mod obstacles;

use std::collections::BTreeMap;

use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::TimestampMs;
use sqlx::Row;

use super::{KEYED_VERSION, SCHEMA_TABLE, TABLES, create, layout, record_in, schema_error};
use crate::errors::{DbError, DbResult};
use crate::session::literals::list;
use crate::session::{Call, first};

/// The upgrade's own table while it copies.
const COPYING: &str = "upgrade_3";
/// The same while nobody else reads or writes.
pub(super) const FENCED: &str = "upgrade_3_fenced";
/// The same after the switch.
const DONE: &str = "upgrade_3_done";

/// One row for each table of the catalog, and the row 0 of the upgrade itself.
const PROGRESS: &str = "CREATE TABLE IF NOT EXISTS {p}upgrade_3 (
    table_key INT NOT NULL PRIMARY KEY,
    id BINARY(16),
    whole BOOLEAN NOT NULL,
    copied BIGINT NOT NULL,
    target BIGINT,
    published BIGINT NOT NULL,
    stage VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    part INT NOT NULL,
    place VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    UNIQUE KEY by_id (id))";
/// Its columns, as those of another program's table are others.
const PROGRESS_COLUMNS: &str = "table_key,id,whole,copied,target,published,stage,part,place";
const BEGIN: &str = "INSERT IGNORE INTO {p}upgrade_3
        (table_key, whole, copied, published, stage, part, place)
    VALUES (0, 0, -1, -1, 'begin', 0, '')";

/// How often a rename is tried, and how long each time: calls that begin meanwhile wait behind it.
const RENAMES: u32 = 5;
const RENAME_SECONDS: u32 = 3;
/// Longest transactions, which are what a rename waits for. Only with the right PROCESS.
const HOLDERS: &str =
    "SELECT CONCAT('connection ', t.trx_mysql_thread_id, ' of ', p.user, ' from ', p.host,
        ', for ', TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), ' s')
    FROM information_schema.innodb_trx t
    JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
    WHERE p.id <> CONNECTION_ID() ORDER BY t.trx_started LIMIT 3";

/// The tables that are written anew.
fn replaced() -> impl Iterator<Item = &'static str> {
    TABLES.into_iter().filter(|table| *table != "batches")
}

/// Whose rows a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Old,
    New,
}

/// What stands under our names, those of the upgrade included.
struct Stand {
    tables: BTreeMap<String, Layout>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No upgrade was begun.
    None,
    Copying,
    Fenced,
    /// The tables of version 3 have the names.
    Done,
}

impl Stand {
    async fn look(call: &mut Call) -> DbResult<Stand> {
        let prefix = call.session.options.table_prefix.clone();
        let mut names: Vec<String> = Vec::new();
        for table in replaced().chain(["schema"]) {
            for suffix in ["", "_2", "_3"] {
                names.push(format!("{prefix}{table}{suffix}"));
            }
        }
        let markers = [COPYING, FENCED, DONE];
        names.extend(markers.iter().map(|marker| format!("{prefix}{marker}")));
        let sql = format!(
            "SELECT c.table_name AS n,
                COALESCE(CAST(SUM(c.column_name = 'table_key') AS SIGNED), 0) AS has_key,
                GROUP_CONCAT(c.column_name ORDER BY c.ordinal_position SEPARATOR ',') AS columns_of
            FROM information_schema.columns c
            WHERE c.table_schema = DATABASE() AND c.table_name IN ({}) GROUP BY c.table_name",
            list(names.iter().map(Into::into))
        );
        let mut tables = BTreeMap::new();
        for row in call.run(sql).await?.iter().flat_map(|set| &set.rows) {
            let name: String = row.try_get(0)?;
            let name = name.get(prefix.len()..).unwrap_or_default().to_ascii_lowercase();
            let columns: String = row.try_get(2)?;
            if markers.contains(&name.as_str()) && columns != PROGRESS_COLUMNS {
                return Err(not_ours(call, &name));
            }
            let layout = if row.try_get::<i64, _>(1)? > 0 { Layout::New } else { Layout::Old };
            tables.insert(name, layout);
        }
        Ok(Stand { tables })
    }

    fn has(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }

    fn is(&self, name: &str, layout: Layout) -> bool {
        self.tables.get(name) == Some(&layout)
    }

    /// A table with a name of the upgrade, where none was begun: another program's.
    fn in_the_way(&self) -> Option<String> {
        if self.phase() != Phase::None {
            return None;
        }
        let names =
            replaced().chain(["schema"]).map(|table| [format!("{table}_2"), format!("{table}_3")]);
        names.flatten().find(|name| self.has(name))
    }

    /// Those of the upgrade's tables that are there.
    fn phase(&self) -> Phase {
        match () {
            () if self.has(FENCED) => Phase::Fenced,
            () if self.has(DONE) => Phase::Done,
            () if self.has(COPYING) => Phase::Copying,
            () => Phase::None,
        }
    }

    /// Whether all tables have their names, with the rows of a version.
    fn all(&self, layout: Layout) -> bool {
        replaced().all(|table| self.is(table, layout))
    }
}

fn not_ours(call: &Call, name: &str) -> DbError {
    let (at, prefix) = (&call.session.at, &call.session.options.table_prefix);
    schema_error(format!(
        "database '{at}' has a table '{prefix}{name}', which is not ours, and the upgrade to version \
         {KEYED_VERSION} needs its name: rename it, then run `dl init` again. Nothing was changed"
    ))
}

/// Whether all tables are there under our names, those of version 3.
///
/// # Errors
/// `Schema` if some are, and others are of an older one.
pub(super) async fn is_new(call: &mut Call) -> DbResult<bool> {
    let stand = Stand::look(call).await?;
    if stand.all(Layout::New) {
        return Ok(true);
    }
    let any = |layout| replaced().any(|table| stand.is(table, layout));
    if any(Layout::New) && any(Layout::Old) {
        let at = &call.session.at;
        return Err(schema_error(format!(
            "database '{at}' has tables of version {KEYED_VERSION} and of an older one: two programs \
             made the catalog at once, and it has no rows yet. Drop its tables, then run `dl init` again"
        )));
    }
    Ok(false)
}

/// Whether any table of an older version stands under our names.
pub(super) async fn is_begun(call: &mut Call) -> DbResult<bool> {
    let stand = Stand::look(call).await?;
    Ok(replaced().any(|table| stand.is(table, Layout::Old)))
}

/// Whether another process that upgrades was faster, or the cluster gave its change precedence: what stands
/// there is looked at again.
pub(super) fn is_overtaken(error: &DbError) -> bool {
    // ER_NO_SUCH_TABLE, ER_TABLE_EXISTS_ERROR, ER_BAD_FIELD_ERROR, ER_BAD_TABLE_ERROR, ER_LOCK_DEADLOCK,
    // ER_TABLE_DEF_CHANGED, ER_DUP_ENTRY of a row of progress, ER_FILE_NOT_FOUND of a rename.
    matches!(error.number(), Some(1146 | 1050 | 1054 | 1051 | 1213 | 1412 | 1062 | 1017))
}

/// Goes on with the upgrade, from wherever it is, to its end.
pub(super) async fn run(call: &mut Call, now: TimestampMs) -> DbResult<()> {
    let stand = Stand::look(call).await?;
    match stand.phase() {
        Phase::None => {
            // Another process may just have begun, or come to the end.
            if stand.in_the_way().is_some()
                && let Some(name) = Stand::look(call).await?.in_the_way()
            {
                return Err(not_ours(call, &name));
            }
            obstacles::check(call, "").await?;
            begin(call).await?;
            copying::before_the_fence(call).await?;
        }
        Phase::Copying => {
            if copying::is_refused(call).await? {
                drop_new(call).await?;
                return Err(again());
            }
            obstacles::check(call, "").await?;
            begin(call).await?;
            copying::before_the_fence(call).await?;
        }
        // Somebody began one when another one was so far already.
        Phase::Fenced if stand.has(COPYING) => drop_table(call, COPYING).await?,
        Phase::Fenced => {}
        // The version would be 3: it has just been switched.
        Phase::Done => return Err(again()),
    }
    if stand.phase() != Phase::Fenced {
        rename(call, &fence()).await?;
    }
    match behind_the_fence(call, now).await {
        Err(error) if !is_overtaken(&error) => {
            call.roll_back().await;
            if call.is_usable() {
                lift(call).await;
            }
            Err(error)
        }
        other => other,
    }
}

/// What makes [`super::migrate`] look again.
fn again() -> DbError {
    DbError::Again
}

/// Makes the tables of the upgrade. `Again` if another process came to the end of its own meanwhile: then the
/// tables that this made are left to [`clean_up`].
async fn begin(call: &mut Call) -> DbResult<()> {
    create(call, PROGRESS).await?;
    call.execute(BEGIN, &[]).await?;
    for (name, columns) in layout::VERSION_3.iter().filter(|(name, _)| *name != "batches") {
        create(call, &format!("CREATE TABLE IF NOT EXISTS {{p}}{name}_3 {columns}")).await?;
    }
    create(call, &SCHEMA_TABLE.replace("{p}schema", "{p}schema_3")).await?;
    if is_switched(call).await? {
        // Another process came to its end, and may have dropped the table that says whose these tables are:
        // with it, they are dropped, too.
        create(call, PROGRESS).await?;
        return Err(again());
    }
    Ok(())
}

/// Whether another process has come to the end of its upgrade. The version moves with the names of the tables,
/// in one step.
async fn is_switched(call: &mut Call) -> DbResult<bool> {
    Ok(super::inspect(call).await?.version() >= KEYED_VERSION)
}

/// Names before and after, in one step.
type Renames = Vec<(String, String)>;

fn fence() -> Renames {
    let tables = replaced().map(|table| (table.to_owned(), format!("{table}_2")));
    [(COPYING.to_owned(), FENCED.to_owned())].into_iter().chain(tables).collect()
}

fn switch() -> Renames {
    let tables = replaced().map(|table| (format!("{table}_3"), table.to_owned()));
    let schema = [("schema", "schema_2"), ("schema_3", "schema")];
    [(FENCED.to_owned(), DONE.to_owned())]
        .into_iter()
        .chain(tables)
        .chain(schema.map(|(from, to)| (from.to_owned(), to.to_owned())))
        .collect()
}

async fn behind_the_fence(call: &mut Call, now: TimestampMs) -> DbResult<()> {
    // Someone may have made one while rows were copied.
    obstacles::check(call, "_2").await?;
    copying::behind_the_fence(call).await?;
    if let Some(difference) = copying::compare(call).await? {
        copying::refuse(call).await?;
        let at = &call.session.at;
        return Err(DbError::Catalog(CatalogError::corrupt(format!(
            "the upgrade of database '{at}' to version {KEYED_VERSION} was not done: {difference}. \
             Version 2 has its names again, and nothing of it was changed. If a second `dl init`, which \
             copies all anew, says the same, restore a backup"
        ))));
    }
    let history = "INSERT INTO {p}schema_3 SELECT * FROM {p}schema
        ON DUPLICATE KEY UPDATE {p}schema_3.version = {p}schema_3.version";
    call.execute(history, &[]).await?;
    record_in(call, "schema_3", KEYED_VERSION, now).await?;
    // Keys that were given here are not given again, by any node of a cluster.
    let last = number(call, "SELECT MAX(table_key) FROM {p}upgrade_3_fenced").await?;
    let next = last.unwrap_or(0).saturating_add(1);
    let prefix = call.session.options.table_prefix.clone();
    ddl(call, &format!("ALTER TABLE {prefix}tables_3 AUTO_INCREMENT = {next}")).await?;
    rename(call, &switch()).await
}

/// Gives the tables of version 2 their names back: the programs that work with them go on. At its best: a
/// fence that stays is named to whoever opens the catalog.
async fn lift(call: &mut Call) {
    let lifted = async {
        copying::start_again(call).await?;
        drop_table(call, COPYING).await?;
        let back: Renames = fence().into_iter().map(|(before, after)| (after, before)).collect();
        rename(call, &back).await
    };
    if let Err(error) = lifted.await {
        tracing::warn!(database = call.session.at, ?error, "the fence of the upgrade stays");
    }
}

/// All or nothing, with a bound on how long it waits for those that read and write, and they for it.
async fn rename(call: &mut Call, renames: &Renames) -> DbResult<()> {
    let prefix = call.session.options.table_prefix.clone();
    let pairs: Vec<String> =
        renames.iter().map(|(from, to)| format!("{prefix}{from} TO {prefix}{to}")).collect();
    let sql = format!("RENAME TABLE {}", pairs.join(", "));
    for attempt in 1.. {
        match ddl(call, &sql).await {
            // ER_LOCK_WAIT_TIMEOUT, of metadata here.
            Err(error) if error.number() == Some(1205) => {
                if attempt == RENAMES {
                    return Err(held(call).await);
                }
            }
            other => return other,
        }
    }
    Ok(())
}

/// A change of tables. What it waits for is others' transactions, of any length.
async fn ddl(call: &mut Call, sql: &str) -> DbResult<()> {
    call.keep_to_itself();
    call.run(format!("SET SESSION lock_wait_timeout = {RENAME_SECONDS}; {sql}")).await.map(|_| ())
}

/// The error of a rename that waited too long: whom for.
async fn held(call: &mut Call) -> DbError {
    let mut holders = Vec::new();
    if let Ok(sets) = call.run(HOLDERS.to_owned()).await {
        for row in sets.iter().flat_map(|set| &set.rows) {
            holders.extend(row.try_get::<String, _>(0).ok());
        }
    }
    let who = if holders.is_empty() {
        "SHOW PROCESSLIST names them".to_owned()
    } else {
        format!("the oldest: {}", holders.join("; "))
    };
    DbError::Catalog(CatalogError::busy(
        format!(
            "the upgrade of database '{}' to version {KEYED_VERSION} has to rename tables, and \
             transactions that use them did not end within {RENAMES} times {RENAME_SECONDS} s ({who}). Version \
             2 goes on; run `dl init` again, it goes on from here",
            call.session.at
        ),
        deltalakedb_catalog_core::error::WriteState::NotApplied,
    ))
}

/// Drops what an upgrade that was refused has copied.
async fn drop_new(call: &mut Call) -> DbResult<()> {
    for table in replaced().chain(["schema"]) {
        drop_table(call, &format!("{table}_3")).await?;
    }
    drop_table(call, COPYING).await
}

async fn drop_table(call: &mut Call, name: &str) -> DbResult<()> {
    let sql = format!("DROP TABLE IF EXISTS {}{name}", call.session.options.table_prefix);
    ddl(call, &sql).await
}

/// Ends an upgrade after its switch: drops what is left of version 2. Nothing happens if nothing is left.
pub(super) async fn clean_up(call: &mut Call) -> DbResult<()> {
    let stand = Stand::look(call).await?;
    if stand.phase() == Phase::None {
        return Ok(());
    }
    // A process that was about to set the fence when another one had just ended the upgrade.
    let astray: Renames = replaced()
        .map(|table| (format!("{table}_2"), table.to_owned()))
        .filter(|(from, to)| stand.is(from, Layout::New) && !stand.has(to))
        .collect();
    if !astray.is_empty() {
        rename(call, &astray).await?;
        return Err(again());
    }
    if !stand.all(Layout::New) {
        let at = &call.session.at;
        return Err(DbError::Catalog(CatalogError::corrupt(format!(
            "database '{at}' has version {KEYED_VERSION}, but not all of its tables: restore a backup"
        ))));
    }
    for table in replaced() {
        for suffix in ["_2", "_3"] {
            let name = format!("{table}{suffix}");
            if stand.has(&name) {
                drop_table(call, &name).await?;
            }
        }
    }
    for name in ["schema_2", "schema_3", COPYING, FENCED, DONE] {
        if stand.has(name) {
            drop_table(call, name).await?;
        }
    }
    Ok(())
}

/// A number that a statement answers.
async fn number(call: &mut Call, text: &str) -> DbResult<Option<i64>> {
    let sets = call.query(text, &[]).await?;
    Ok(first(&sets).map(|row| row.try_get(0)).transpose()?)
}
