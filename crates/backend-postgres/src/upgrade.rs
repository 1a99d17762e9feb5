//! From version 2 of our tables to version 3, in which rows name their table by an integer.
//!
//! Programs of version 2 read and write meanwhile. Each step is one transaction, and notes in the database that it
//! was done: a run that was ended, however, is continued by the next one.
//!
//! 1. *Begin*: the column `table_key` of `{p}tables`, the copies `{p}files_3` and so on, empty, and the head of each
//!    table. Programs of version 2 do not notice the new column.
//! 2. *Copy*: the rows up to those heads, in bounded batches. They never change, but for files that are removed.
//! 3. *Index* the copies.
//! 4. *Switch*: writers are locked out, readers are not. What came since is copied, everything is counted on both
//!    sides, and the copies take the place of the tables, which are dropped. All of that or nothing.
//!
//! Where a wait for a lock ends another transaction, or makes others wait behind it, it is short and tried again.

mod copy;
mod others;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::TimestampMs;
use sqlx::Row;

use crate::ddl::{self, filled, for_speed, record};
use crate::errors::{DbError, DbResult};
use crate::layout::{CHILDREN, Child, Names, SEED_STATISTICS};
use crate::session::{Args, Call};

use copy::{COPIED, Copied, Difference};

/// What the names of copies end with.
const SUFFIX: &str = "_3";
/// First and longest wait for a lock, behind which others wait. The first is below the time after which the server
/// looks for circles of transactions that wait for each other, and ends one of them.
const WAITS_MS: [u64; 2] = [500, 4_000];
/// Between two of them others get their turn.
const BETWEEN: Duration = Duration::from_millis(100);

/// What a step has left to do.
#[derive(Debug)]
pub(crate) enum Next {
    /// Other steps.
    More,
    /// Nothing.
    Done,
    /// The copy is not what it is a copy of. Nothing of the step may stay.
    Differs(CatalogError),
}

/// Where an upgrade is at work.
pub(crate) struct Place {
    /// What the names of our tables start with: the schema, quoted, and the prefix.
    pub(crate) start: String,
    pub(crate) prefix: String,
    /// For messages.
    pub(crate) at: String,
}

impl Place {
    pub(crate) async fn of(call: &mut Call) -> DbResult<Place> {
        let options = &call.session.options;
        let (prefix, at) = (options.table_prefix.clone(), call.session.at.clone());
        let sql = format!(
            "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = '{}tables'::regclass",
            options.qualified_prefix()
        );
        let schema: String = call.fetch_text(sql, Args::new()).await?.try_first()?.try_get(0)?;
        Ok(Place { start: format!("{schema}.{prefix}"), prefix, at })
    }

    fn copies(&self) -> Names<'_> {
        Names { place: &self.start, prefix: &self.prefix, suffix: SUFFIX }
    }

    /// A text with the names of our tables in it; `{s}` is what those of copies end with.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("{p}", &self.start).replace("{i}", &self.prefix).replace("{s}", SUFFIX)
    }

    /// Names of the tables that are replaced, in the order in which others take them: whoever writes to one of these
    /// has a row of the first, or of the mirror, or of the skipping index before.
    fn replaced(&self, suffix: &str) -> Vec<String> {
        let first = ["mirror", "mirror_status", "skip_index"];
        let others = CHILDREN.iter().map(|child| child.name).filter(|name| !first.contains(name));
        first
            .into_iter()
            .chain(others)
            .map(|name| format!("{}{name}{suffix}", self.start))
            .collect()
    }
}

/// The first of some rows.
trait First {
    fn try_first(&self) -> DbResult<&sqlx::postgres::PgRow>;
}

impl First for Vec<sqlx::postgres::PgRow> {
    fn try_first(&self) -> DbResult<&sqlx::postgres::PgRow> {
        self.first().ok_or_else(|| sqlx::Error::RowNotFound.into())
    }
}

/// The tables that say how far an upgrade is. `at_table`, `at_1` and `at_2` are the key of the last row that was
/// copied.
const PROGRESS: &str = r#"
CREATE TABLE {p}upgrade{s} (
    step text COLLATE "C" NOT NULL PRIMARY KEY,
    is_done boolean NOT NULL,
    at_table uuid NOT NULL,
    at_1 text NOT NULL,
    at_2 text NOT NULL,
    rows_copied bigint NOT NULL
);
CREATE TABLE {p}heads{s} (
    table_key integer NOT NULL PRIMARY KEY,
    table_id uuid NOT NULL UNIQUE,
    head bigint NOT NULL,
    published bigint NOT NULL
);
INSERT INTO {p}heads{s} (table_key, table_id, head, published)
SELECT t.table_key, t.id, t.head_version, coalesce(m.published_version, -1)
FROM {p}tables t JOIN {p}mirror m ON m.table_id = t.id
WHERE t.state <> 'importing' AND t.head_version IS NOT NULL;
ANALYZE {p}heads{s};
"#;

/// Columns of `{p}upgrade_3`.
const PROGRESS_COLUMNS: &str = "step,is_done,at_table,at_1,at_2,rows_copied";

/// The steps between the begin and the switch, in their order.
fn steps() -> impl Iterator<Item = (String, Step)> {
    let copies = COPIED.iter().map(|copied| (format!("copy {}", copied.name), Step::Copy(copied)));
    let indexes =
        CHILDREN.iter().map(|child| (format!("index {}", child.name), Step::Index(child)));
    copies.chain(indexes)
}

enum Step {
    Copy(&'static Copied),
    Index(&'static Child),
}

/// The step that is noted for an upgrade whose copy was wrong.
const ANEW: &str = "begin anew";

/// One step. `found` is the version of our tables, 1 or 2.
pub(crate) async fn step(call: &mut Call, found: u32, now: TimestampMs) -> DbResult<Next> {
    call.take_time().await?;
    let place = Place::of(call).await?;
    let Some(done) = progress(call, &place).await? else {
        begin(call, &place, found, now).await?;
        return Ok(Next::More);
    };
    if done.iter().any(|step| step == ANEW) {
        drop_copies(call, &place).await?;
        begin(call, &place, found, now).await?;
        return Ok(Next::More);
    }
    for (name, step) in steps() {
        if done.contains(&name) {
            continue;
        }
        tracing::debug!(step = name, "upgrade to schema version 3");
        let is_done = match step {
            Step::Copy(copied) => copied.copy_batch(call, &place, &name).await?,
            Step::Index(child) => {
                let table = format!("{}{}{SUFFIX}", place.start, child.name);
                let (key, others) =
                    (child.create_key(place.copies()), child.create_indexes(place.copies()));
                call.simple(format!("{key}\n{others}\nANALYZE {table};")).await?;
                true
            }
        };
        if is_done {
            let sql = place.fill("UPDATE {p}upgrade{s} SET is_done = true WHERE step = $1");
            call.fetch_text(sql, Args::new().bind(name.as_str())).await?;
        }
        return Ok(Next::More);
    }
    switch(call, &place, now).await
}

/// Notes that the copies are wrong, so that the next run begins anew.
pub(crate) async fn begin_anew(call: &mut Call) -> DbResult<()> {
    let place = Place::of(call).await?;
    let sql = place.fill(
        "INSERT INTO {p}upgrade{s} (step, is_done, at_table, at_1, at_2, rows_copied)
         VALUES ($1, true, '00000000-0000-0000-0000-000000000000', '', '', 0)
         ON CONFLICT (step) DO NOTHING",
    );
    call.fetch_text(sql, Args::new().bind(ANEW)).await?;
    Ok(())
}

/// The steps that are done; none if no upgrade has begun.
///
/// # Errors
/// `Schema` if tables of the names of our copies stand there without what says that they are ours.
async fn progress(call: &mut Call, place: &Place) -> DbResult<Option<Vec<String>>> {
    let sql = "SELECT c.oid::regclass::text, array_to_string(ARRAY(
            SELECT a.attname::text FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY a.attnum), ',')
        FROM unnest($1::text[]) AS n JOIN pg_catalog.pg_class c ON c.oid = to_regclass(n)";
    let upgrade = place.fill("{p}upgrade{s}");
    let ours = call.fetch_text(sql.to_owned(), Args::new().bind(vec![upgrade])).await?;
    if let Some(row) = ours.first() {
        let (name, columns): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if columns != PROGRESS_COLUMNS {
            return Err(in_the_way(place, &name));
        }
        let sql = place.fill("SELECT step FROM {p}upgrade{s} WHERE is_done");
        let mut done = Vec::new();
        for row in &call.fetch_text(sql, Args::new()).await? {
            done.push(row.try_get(0)?);
        }
        return Ok(Some(done));
    }
    let mut copies = place.replaced(SUFFIX);
    copies.push(place.fill("{p}heads{s}"));
    match call.fetch_text(sql.to_owned(), Args::new().bind(&copies)).await?.first() {
        Some(row) => Err(in_the_way(place, &row.try_get::<String, _>(0)?)),
        None => Ok(None),
    }
}

fn in_the_way(place: &Place, name: &str) -> DbError {
    CatalogError::Schema(format!(
        "the upgrade of the catalog in database '{}' makes a table of the name {name}, and there is one that is not \
         ours: rename or drop it, then run `dl init` again. Nothing was changed",
        place.at
    ))
    .into()
}

/// Makes what the other steps fill.
async fn begin(call: &mut Call, place: &Place, found: u32, now: TimestampMs) -> DbResult<()> {
    if found < 2 {
        let text = filled(&call.session.options, ddl::VERSION_2);
        call.simple(text).await?;
        record(call, 2, now).await?;
    }
    others::refuse(call, place).await?;
    let tables = place.fill("{p}tables");
    lock(call, place, &[tables.as_str()], "ACCESS EXCLUSIVE").await?;
    let sql = "SELECT 1 FROM pg_catalog.pg_attribute
        WHERE attrelid = $1::text::regclass AND attname = 'table_key' AND NOT attisdropped";
    if call.fetch_text(sql.to_owned(), Args::new().bind(tables.as_str())).await?.is_empty() {
        call.simple(format!(
            "ALTER TABLE {tables} ADD COLUMN table_key integer GENERATED BY DEFAULT AS IDENTITY UNIQUE"
        ))
        .await?;
    }
    let copies: String = CHILDREN.iter().map(|child| child.create_bare(place.copies())).collect();
    call.simple(copies).await?;
    others::give_storage(call, place).await?;
    for_speed(call, &SEED_STATISTICS.replace("{s}", SUFFIX)).await?;
    call.simple(place.fill(PROGRESS)).await?;
    let mut rows = Vec::new();
    for (name, step) in steps() {
        let at = match step {
            Step::Copy(copied) => copied.before_all(),
            Step::Index(_) => ["", ""],
        };
        rows.push(format!(
            "('{name}', false, '00000000-0000-0000-0000-000000000000', '{}', '{}', 0)",
            at[0], at[1]
        ));
    }
    call.simple(place.fill(&format!(
        "INSERT INTO {{p}}upgrade{{s}} (step, is_done, at_table, at_1, at_2, rows_copied) VALUES {}",
        rows.join(", ")
    )))
    .await
}

async fn drop_copies(call: &mut Call, place: &Place) -> DbResult<()> {
    let mut names = place.replaced(SUFFIX);
    names.extend([place.fill("{p}heads{s}"), place.fill("{p}upgrade{s}")]);
    call.simple(format!("DROP TABLE IF EXISTS {}", names.join(", "))).await
}

/// The last step: the copies become the tables.
async fn switch(call: &mut Call, place: &Place, now: TimestampMs) -> DbResult<Next> {
    others::refuse(call, place).await?;
    let mut writers = vec![place.fill("{p}tables")];
    writers.extend(place.replaced(""));
    let writers: Vec<&str> = writers.iter().map(String::as_str).collect();
    lock(call, place, &writers, "EXCLUSIVE").await?;
    let began = Instant::now();
    copy::catch_up(call, place).await?;
    let caught_up = began.elapsed();
    if let Some(Difference { table, what, old, new }) = copy::first_difference(call, place).await? {
        return Ok(Next::Differs(CatalogError::corrupt(format!(
            "the upgrade of the catalog in database '{}' copied the table {table}, and {what} differ: {old} in the \
             table, {new} in the copy. Nothing was switched or dropped. Run `dl init` again, which copies all tables \
             anew; if it says the same again, the catalog is damaged: restore a backup",
            place.at
        ))));
    }
    let compared = began.elapsed();
    let gifts = others::rights(call, place).await?;
    let (old, new) = (place.replaced(""), place.replaced(SUFFIX));
    let readers: Vec<&str> = old.iter().map(String::as_str).collect();
    lock(call, place, &readers, "ACCESS EXCLUSIVE").await?;
    let mut sql = format!(
        "DROP TABLE {}, {}, {};\n",
        old.join(", "),
        place.fill("{p}heads{s}"),
        place.fill("{p}upgrade{s}")
    );
    for (old, new) in old.iter().zip(&new) {
        let name = old.strip_prefix(&place.start).unwrap_or(old);
        let _ = writeln!(sql, "ALTER TABLE {new} RENAME TO {}{name};", place.prefix);
    }
    call.simple(sql).await.map_err(|error| others::stands_on_it(error, place))?;
    let renames = others::renames(call, place).await?;
    call.simple(renames.join(";\n")).await?;
    call.simple(gifts.join(";\n")).await?;
    record(call, ddl::KEYED_VERSION, now).await?;
    let switched = began.elapsed();
    tracing::info!(
        ?caught_up,
        ?compared,
        ?switched,
        "writers wait since the switch to schema version 3 began"
    );
    Ok(Next::Done)
}

/// Locks tables in a mode. A try is short, as others wait behind it; after the last one the error says what holds
/// the tables.
async fn lock(call: &mut Call, place: &Place, tables: &[&str], mode: &str) -> DbResult<()> {
    let patience = call.session.options.statement_timeout;
    let began = Instant::now();
    let [mut wait, longest] = WAITS_MS;
    loop {
        call.simple(format!("SAVEPOINT dl_wait; SET LOCAL lock_timeout = {wait}")).await?;
        match call.simple(format!("LOCK TABLE {} IN {mode} MODE", tables.join(", "))).await {
            Ok(()) => {
                call.simple("RELEASE SAVEPOINT dl_wait".to_owned()).await?;
                return call.take_time().await;
            }
            // lock_not_available, deadlock_detected.
            Err(error) if matches!(error.code(), Some("55P03" | "40P01")) => {}
            Err(error) => return Err(error),
        }
        call.simple("ROLLBACK TO SAVEPOINT dl_wait".to_owned()).await?;
        if began.elapsed() >= patience {
            let holders = others::holders(call, tables).await?;
            return Err(CatalogError::busy(
                format!(
                    "the upgrade of the catalog in database '{}' waited {} s for tables that others hold: {holders}. \
                     Run `dl init` again, which goes on where it stopped",
                    place.at,
                    patience.as_secs()
                ),
                WriteState::NotApplied,
            )
            .into());
        }
        tokio::time::sleep(BETWEEN).await;
        wait = (wait * 2).min(longest);
    }
}
