//! The rows, from the tables of version 2 to those of version 3.
//!
//! Rows of a commit never change, but for the files that a later one ends: what a table has up to a version
//! can be copied while others go on, and the rest is that of the versions after it. Each batch is one
//! transaction, in which its place is recorded; the row of the progress that it locks keeps a second
//! process out for that long.
//!
//! Stages of the row 0, in their order:
//!
//! 1. `begin`: keys are given, in the order of the ids: so the new rows are written in the order of
//!    their key too.
//! 2. `bulk`: of all tables together, the rows up to the version that was the head when the key was given.
//! 3. `online`: of each table that was written to since, what came; new tables.
//! 4. Behind the fence, `tails`: the same for the last time; tables that are being imported, whole.
//! 5. `whole`: what changes at any time.
//! 6. `compare`.
//!
//! `again` is `online` after a fence that was lifted, `refused` the end of an upgrade whose rows differ.

use deltalakedb_catalog_core::error::CatalogError;
use sqlx::Row;
use sqlx::mysql::MySqlRow;

use super::number;
use crate::errors::{DbError, DbResult};
use crate::session::literals::Value;
use crate::session::{Call, Set, first};

/// Most rows of a batch.
const ROWS: usize = 5_000;
/// Bytes after which a batch ends: far below what a cluster takes in a transaction.
const BYTES: i64 = 16 << 20;
/// Times that what was written since is copied before the fence.
const PASSES: u32 = 3;

/// Rows of a table that are copied.
struct Part {
    table: &'static str,
    /// What they are read in the order of, after the id of the table, and the index for it.
    order: &'static [&'static str],
    index: &'static str,
    /// All columns after the key.
    columns: &'static str,
    /// Columns whose bytes count.
    long: &'static [&'static str],
    /// Which rows; `{from}` and `{to}` are versions.
    only: &'static str,
}

/// After the table's own row, what belongs to its versions.
const LOG: [Part; 7] = [
    Part {
        table: "commits",
        order: &["version"],
        index: "PRIMARY",
        columns: "version, timestamp_ms, token, batch_position, num_added, num_removed, bytes_added,
            bytes_removed, changes_metadata, changes_protocol, total_files, total_bytes, has_body, body_len,
            first_line, commit_info",
        long: &["first_line", "commit_info"],
        only: "o.version > {from} AND o.version <= {to}",
    },
    Part {
        table: "commit_chunks",
        order: &["version", "chunk_no"],
        index: "PRIMARY",
        columns: "version, chunk_no, body",
        long: &["body"],
        only: "o.version > {from} AND o.version <= {to}",
    },
    Part {
        table: "files",
        order: &["added_version", "ordinal"],
        index: "PRIMARY",
        columns: FILES,
        long: &["path", "stats", "remove_action", "partition_values", "tags", "deletion_vector"],
        only: "o.added_version > {from} AND o.added_version <= {to}",
    },
    Part {
        table: "protocols",
        order: &["version"],
        index: "PRIMARY",
        columns: "version, protocol",
        long: &["protocol"],
        only: "o.version > {from} AND o.version <= {to}",
    },
    Part {
        table: "metadata",
        order: &["version"],
        index: "PRIMARY",
        columns: "version, metadata",
        long: &["metadata"],
        only: "o.version > {from} AND o.version <= {to}",
    },
    Part {
        table: "txns",
        order: &["app_key", "version"],
        index: "PRIMARY",
        columns: "app_key, version, app_id, app_version, last_updated",
        long: &["app_id"],
        only: "o.version > {from} AND o.version <= {to}",
    },
    Part {
        table: "domain_metadata",
        order: &["domain_key", "version"],
        index: "PRIMARY",
        columns: "domain_key, version, domain, removed, configuration",
        long: &["domain", "configuration"],
        only: "o.version > {from} AND o.version <= {to}",
    },
];
const FILES: &str =
    "added_version, ordinal, removed_version, is_tombstone, deletion_timestamp, file_key, size,
    modification_time, data_change, base_row_id, default_row_commit_version, path, dv_id,
    partition_values, tags, deletion_vector, clustering_provider, stats, remove_action";
/// Files that were copied when they were in the table, and are not any more.
const ENDED: Part = Part {
    table: "files",
    order: &["removed_version", "added_version", "ordinal"],
    index: "by_state",
    columns: FILES,
    long: &["path", "stats", "remove_action", "partition_values", "tags", "deletion_vector"],
    only: "o.removed_version > {from} AND o.removed_version < 9223372036854775807
        AND o.added_version <= {from}",
};
const ENDED_NOW: &str = " ON DUPLICATE KEY UPDATE removed_version = VALUES(removed_version),
    is_tombstone = VALUES(is_tombstone), deletion_timestamp = VALUES(deletion_timestamp),
    remove_action = VALUES(remove_action)";
const OUTBOX: &str =
    "version, state, attempts, enqueued_at_ms, retry_at_ms, published_at_ms, digest,
    last_error";
const OUTBOX_REST: &str =
    "INSERT INTO {p}mirror_status_3 (table_key, version, state, attempts, enqueued_at_ms,
        retry_at_ms, published_at_ms, digest, last_error)
    SELECT u.table_key, o.version, o.state, o.attempts, o.enqueued_at_ms, o.retry_at_ms,
        o.published_at_ms, o.digest, o.last_error
    FROM {m} u STRAIGHT_JOIN {p}tables_2 t ON t.id = u.id AND t.head_version > u.published
    STRAIGHT_JOIN {p}mirror_status_2 o ON o.table_id = u.id AND o.version > u.published";
/// Published versions are a prefix, and their rows of the outbox do not change any more.
const PUBLISHED: Part = Part {
    table: "mirror_status",
    order: &["version"],
    index: "PRIMARY",
    columns: OUTBOX,
    long: &["digest", "last_error"],
    only: "o.version <= u.published",
};
/// What changes at any time, but for the rows of the tables themselves and the rest of the outbox.
const WHOLE: [Part; 4] = [
    Part {
        table: "mirror",
        order: &[],
        index: "PRIMARY",
        columns: "mode, published_version, lease_owner, lease_epoch, lease_until_ms, pending_since_ms",
        long: &["lease_owner"],
        only: "1 = 1",
    },
    Part {
        table: "skip_index",
        order: &[],
        index: "PRIMARY",
        columns: "generation",
        long: &[],
        only: "1 = 1",
    },
    Part {
        table: "skip_segments",
        order: &["segment_id"],
        index: "PRIMARY",
        columns: "segment_id, after_version, after_ordinal, through_version, through_ordinal,
            built_version, num_files, root",
        long: &["root"],
        only: "1 = 1",
    },
    Part {
        table: "skip_pages",
        order: &["segment_id", "page_no"],
        index: "PRIMARY",
        columns: "segment_id, page_no, body",
        long: &["body"],
        only: "1 = 1",
    },
];
const TABLES_ROWS: &str =
    "INSERT INTO {p}tables_3 (id, table_key, namespace, name, drop_marker, location,
        storage_options, state, created_at_ms, dropped_at_ms, head_version, head_timestamp_ms,
        base_version, barrier_version, import_from_json, import_base_done, import_files,
        import_tombstones, import_live_files, import_live_bytes, import_history_through)
    SELECT o.id, u.table_key, o.namespace, o.name, o.drop_marker, o.location,
        o.storage_options, o.state, o.created_at_ms, o.dropped_at_ms, o.head_version,
        o.head_timestamp_ms, o.base_version, o.barrier_version, o.import_from_json,
        o.import_base_done, o.import_files, o.import_tombstones, o.import_live_files,
        o.import_live_bytes, o.import_history_through
    FROM {p}tables_2 o STRAIGHT_JOIN {m} u ON u.id = o.id";

/// Gives keys to tables that have none, after the last one. Values: the last key, and whether all of them
/// are copied together.
const REGISTER: &str =
    "INSERT INTO {m} (table_key, id, whole, copied, target, published, stage, part, place)
    SELECT ? + ROW_NUMBER() OVER (ORDER BY t.id), t.id, t.whole, -1, t.target,
        COALESCE(t.published, -1), '', 0, ''
    FROM (SELECT o.id, o.state = 'importing' OR o.head_version IS NULL AS whole,
            CASE WHEN ? = 1 THEN o.head_version END AS target,
            CASE WHEN ? = 1 THEN p.published_version END AS published
        FROM {p}tables{s} o LEFT JOIN {p}mirror{s} p ON p.table_id = o.id
        LEFT JOIN {m} known ON known.id = o.id WHERE known.id IS NULL) t
    WHERE ";
/// Tables whose copy has not what they have. Values: the last key that was looked at.
const BEHIND: &str = "SELECT u.table_key, u.id, CASE WHEN u.whole = 1 THEN 9223372036854775806
        ELSE t.head_version END
    FROM {m} u JOIN {p}tables{s} t ON t.id = u.id
    WHERE u.table_key > ? AND (u.target IS NOT NULL OR u.copied < CASE WHEN u.whole = 1 THEN 9223372036854775806
        ELSE t.head_version END)
    ORDER BY u.table_key LIMIT 1000";

/// A value of an order, as it stands in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Literal {
    Int(i64),
    Bytes(Vec<u8>),
}

impl Literal {
    fn sql(&self) -> String {
        let mut sql = String::new();
        match self {
            Literal::Int(number) => Value::Int(*number).write(&mut sql),
            Literal::Bytes(bytes) => Value::Bytes(bytes).write(&mut sql),
        }
        sql
    }

    fn read(text: &str) -> Option<Literal> {
        let Some(digits) = text.strip_prefix("X'").and_then(|text| text.strip_suffix('\'')) else {
            return text.parse().ok().map(Literal::Int);
        };
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        pairs.map(byte).collect::<Option<Vec<u8>>>().map(Literal::Bytes)
    }
}

/// How far a part is: the order of the last row that was copied; none: from the first on.
type Place = Vec<Literal>;

fn place_text(place: &Place) -> String {
    place.iter().map(Literal::sql).collect::<Vec<_>>().join(",")
}

fn read_place(text: &str) -> DbResult<Place> {
    let literals = text.split(',').filter(|text| !text.is_empty());
    literals
        .map(|text| {
            Literal::read(text).ok_or_else(|| {
                DbError::Catalog(CatalogError::corrupt(format!(
                    "a place of the upgrade is {text:?}"
                )))
            })
        })
        .collect()
}

/// `(a, b) > (1, 2)`, or `<=`, as ranges that the server finds in an index.
fn beyond(columns: &[String], place: &Place, after: bool) -> String {
    let mut ranges = Vec::new();
    for last in 0..columns.len().min(place.len()) {
        let mut range: Vec<String> = columns[..last]
            .iter()
            .zip(place)
            .map(|(column, value)| format!("{column} = {}", value.sql()))
            .collect();
        let sign = match (after, last + 1 == columns.len()) {
            (true, _) => ">",
            (false, true) => "<=",
            (false, false) => "<",
        };
        range.push(format!("{} {sign} {}", columns[last], place[last].sql()));
        ranges.push(format!("({})", range.join(" AND ")));
    }
    format!("({})", ranges.join(" OR "))
}

/// Where rows come from and go to.
struct Scope<'s> {
    /// The upgrade's table, by now.
    marker: &'static str,
    /// What the tables of version 2 are called with, by now.
    suffix: &'static str,
    /// One table, and versions of it; or all that have a key.
    table: Option<Versions<'s>>,
}

struct Versions<'s> {
    id: &'s [u8],
    key: i64,
    from: i64,
    to: i64,
}

const ONLINE: Scope<'_> = Scope { marker: super::COPYING, suffix: "", table: None };
const BEHIND_THE_FENCE: Scope<'_> = Scope { marker: super::FENCED, suffix: "_2", table: None };

impl Scope<'_> {
    /// A text with the names of this scope.
    fn text(&self, text: &str) -> String {
        text.replace("{m}", &format!("{{p}}{}", self.marker)).replace("{s}", self.suffix)
    }

    fn order(&self, part: &Part) -> Vec<String> {
        let table = self.table.is_none().then_some("table_id");
        table.iter().chain(part.order).map(|column| format!("o.{column}")).collect()
    }

    /// The next rows of a part: their order, and their bytes.
    fn next(&self, part: &Part, place: &Place, rows: usize) -> String {
        let order = self.order(part);
        let mut bytes: Vec<String> =
            part.long.iter().map(|c| format!("COALESCE(OCTET_LENGTH(o.{c}), 0)")).collect();
        bytes.push("200".to_owned());
        let mut only = Vec::new();
        if let Some(table) = &self.table {
            only.push(Self::of_table(part, table));
        }
        if !place.is_empty() {
            only.push(beyond(&order, place, true));
        }
        let only =
            if only.is_empty() { String::new() } else { format!("WHERE {}", only.join(" AND ")) };
        let by = order.join(", ");
        let (first, by) = if order.is_empty() {
            (String::new(), String::new())
        } else {
            (format!("{by}, "), format!(" ORDER BY {by}"))
        };
        format!(
            "SELECT {first}CAST({} AS SIGNED) FROM {{p}}{}{} o FORCE INDEX ({}) {only}{by} LIMIT {rows}",
            bytes.join(" + "),
            part.table,
            self.suffix,
            part.index,
        )
    }

    fn of_table(part: &Part, table: &Versions<'_>) -> String {
        let only = part
            .only
            .replace("{from}", &table.from.to_string())
            .replace("{to}", &table.to.to_string());
        format!("o.table_id = {} AND {only}", Literal::Bytes(table.id.to_vec()).sql())
    }

    /// Copies the rows after one place, up to another.
    fn copy(&self, part: &Part, after: &Place, through: Option<&Place>) -> String {
        let order = self.order(part);
        let columns: Vec<String> =
            part.columns.split(',').map(|column| format!("o.{}", column.trim())).collect();
        let (key, join, mut only) = match &self.table {
            Some(table) => {
                (table.key.to_string(), String::new(), vec![Self::of_table(part, table)])
            }
            None => (
                "u.table_key".to_owned(),
                self.text(" STRAIGHT_JOIN {m} u ON u.id = o.table_id"),
                vec![
                    part.only
                        .replace("o.version > {from} AND", "u.target IS NOT NULL AND")
                        .replace("o.added_version > {from} AND", "u.target IS NOT NULL AND")
                        .replace("{to}", "u.target"),
                ],
            ),
        };
        if !after.is_empty() {
            only.push(beyond(&order, after, true));
        }
        if let Some(through) = through {
            only.push(beyond(&order, through, false));
        }
        format!(
            "INSERT INTO {{p}}{}_3 (table_key, {}) SELECT {key}, {} FROM {{p}}{}{} o FORCE INDEX \
             ({}){join} WHERE {}",
            part.table,
            part.columns,
            columns.join(", "),
            part.table,
            self.suffix,
            part.index,
            only.join(" AND "),
        )
    }
}

/// How far some rows go, of what [`Scope::next`] found: none if these are all.
fn through(part: &Part, scope: &Scope<'_>, found: &Set, rows: usize) -> DbResult<Option<Place>> {
    let order = scope.order(part);
    let mut bytes = 0_i64;
    for (number, row) in found.rows.iter().enumerate() {
        let length: i64 = row.try_get(order.len())?;
        bytes = bytes.saturating_add(length);
        let last = number + 1 == found.rows.len();
        if (bytes >= BYTES && !last) || (last && found.rows.len() == rows) {
            return order
                .iter()
                .enumerate()
                .map(|(at, name)| literal(row, at, name))
                .collect::<DbResult<_>>()
                .map(Some);
        }
    }
    Ok(None)
}

fn literal(row: &MySqlRow, at: usize, name: &str) -> DbResult<Literal> {
    Ok(match name {
        "o.table_id" | "o.app_key" | "o.domain_key" => Literal::Bytes(row.try_get(at)?),
        _ => Literal::Int(row.try_get(at)?),
    })
}

/// The row of the progress with a key, locked.
struct Progress {
    stage: String,
    copied: i64,
    target: Option<i64>,
    part: usize,
    place: Place,
}

/// Opens a transaction that has a row of the progress for itself. An older process may have brought it further
/// than the caller knows.
async fn open(call: &mut Call, scope: &Scope<'_>, key: i64) -> DbResult<Progress> {
    let text = scope
        .text("SELECT stage, copied, target, part, place FROM {m} WHERE table_key = ? FOR UPDATE");
    let sql = call.session.sql(&text, &[key.into()]);
    let sets = call.open(&sql).await?;
    let Some(row) = first(&sets) else { return Err(DbError::Again) };
    let place: String = row.try_get(4)?;
    Ok(Progress {
        stage: row.try_get(0)?,
        copied: row.try_get(1)?,
        target: row.try_get(2)?,
        part: usize::try_from(row.try_get::<i64, _>(3)?).unwrap_or_default(),
        place: read_place(&place)?,
    })
}

/// Moves the upgrade to a stage, in the transaction that did the one before it.
async fn enter(call: &mut Call, scope: &Scope<'_>, stage: &str) -> DbResult<()> {
    let text = scope.text("UPDATE {m} SET stage = ?, part = 0, place = '' WHERE table_key = 0");
    call.execute(&text, &[stage.into()]).await?;
    call.commit().await
}

/// The next batch of parts that follow each other: as many as are small, and a piece of one that is not. The
/// transaction is open; it records how far it came, and ends it. Whether there are more.
async fn batch(
    call: &mut Call,
    scope: &Scope<'_>,
    key: i64,
    parts: &[&Part],
    progress: &Progress,
) -> DbResult<bool> {
    let session = call.session.clone();
    let rest = parts.get(progress.part..).unwrap_or_default();
    let nothing = Place::new();
    let places = || std::iter::once(&progress.place).chain(std::iter::repeat(&nothing));
    // What comes after the first one is looked at in case that it is small too.
    let rows = || std::iter::once(ROWS).chain(std::iter::repeat(ROWS / 10));
    let looks: Vec<String> = rest
        .iter()
        .zip(places())
        .zip(rows())
        .map(|((part, place), rows)| session.sql(&scope.next(part, place, rows), &[]))
        .collect();
    let mut statements = Vec::new();
    let (mut part_number, mut place) = (progress.part, Place::new());
    if !looks.is_empty() {
        let sets = call.run(looks.join("; ")).await?;
        for (((part, after), rows), found) in rest.iter().zip(places()).zip(rows()).zip(&sets) {
            let through = through(part, scope, found, rows)?;
            if !found.rows.is_empty() {
                let mut sql = scope.copy(part, after, through.as_ref());
                if part.index == ENDED.index {
                    sql.push_str(ENDED_NOW);
                }
                statements.push(session.sql(&sql, &[]));
            }
            if let Some(through) = through {
                place = through;
                break;
            }
            part_number += 1;
        }
    }
    let more = part_number < parts.len();
    let record = scope.text("UPDATE {m} SET part = ?, place = ? WHERE table_key = ?");
    let number = i64::try_from(part_number).unwrap_or_default();
    let text = place_text(&place);
    statements.push(session.sql(&record, &[number.into(), (&text).into(), key.into()]));
    call.run(statements.join("; ")).await?;
    Ok(more)
}

/// Whether the rows that were copied were found to be others than those of version 2.
pub(super) async fn is_refused(call: &mut Call) -> DbResult<bool> {
    let text = "SELECT COUNT(*) FROM {p}upgrade_3 WHERE table_key = 0 AND stage = 'refused'";
    Ok(number(call, text).await? == Some(1))
}

/// Copies what can be copied while others read and commit.
pub(super) async fn before_the_fence(call: &mut Call) -> DbResult<()> {
    let scope = &ONLINE;
    let bulk: Vec<&Part> = LOG.iter().chain([&PUBLISHED]).collect();
    loop {
        let progress = open(call, scope, 0).await?;
        match progress.stage.as_str() {
            "begin" => {
                register(call, scope, true, "t.whole = 0").await?;
                enter(call, scope, "bulk").await?;
            }
            "bulk" => {
                if batch(call, scope, 0, &bulk, &progress).await? {
                    call.commit().await?;
                    continue;
                }
                let copied = scope
                    .text("UPDATE {m} SET copied = target, target = NULL WHERE target IS NOT NULL");
                call.execute(&copied, &[]).await?;
                enter(call, scope, "online").await?;
            }
            _ => {
                call.commit().await?;
                break;
            }
        }
    }
    for _ in 0..PASSES {
        open(call, scope, 0).await?;
        register(call, scope, false, "t.whole = 0").await?;
        call.commit().await?;
        if !catch_up(call, scope).await? {
            break;
        }
    }
    Ok(())
}

/// Gives keys to tables that have none. Outside of the bulk a target is set by whoever copies.
async fn register(call: &mut Call, scope: &Scope<'_>, together: bool, which: &str) -> DbResult<()> {
    let last = number(call, &scope.text("SELECT MAX(table_key) FROM {m}")).await?.unwrap_or(0);
    let text = scope.text(REGISTER) + which;
    call.execute(&text, &[last.into(), together.into(), together.into()]).await?;
    Ok(())
}

/// Copies what tables have got since; whether there was anything.
async fn catch_up(call: &mut Call, scope: &Scope<'_>) -> DbResult<bool> {
    let (mut any, mut last) = (false, 0_i64);
    loop {
        let sets = call.query(&scope.text(BEHIND), &[last.into()]).await?;
        let rows = sets.first().map(|set| set.rows.as_slice()).unwrap_or_default();
        for row in rows {
            let (key, id, head): (i64, Vec<u8>, i64) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            advance(call, scope, key, &id, head).await?;
            (any, last) = (true, key);
        }
        if rows.len() < 1_000 {
            return Ok(any);
        }
    }
}

/// Copies a table's versions after those that were, up to one.
async fn advance(
    call: &mut Call,
    scope: &Scope<'_>,
    key: i64,
    id: &[u8],
    head: i64,
) -> DbResult<()> {
    loop {
        let mut progress = open(call, scope, key).await?;
        let to = match progress.target {
            Some(target) => target,
            None if progress.copied >= head => return call.commit().await,
            None => {
                (progress.part, progress.place) = (0, Place::new());
                head
            }
        };
        let versions = Versions { id, key, from: progress.copied, to };
        let of = Scope { table: Some(versions), ..*scope };
        let ended = (progress.copied >= 0).then_some(&ENDED);
        let parts: Vec<&Part> = LOG.iter().chain(ended).collect();
        let more = batch(call, &of, key, &parts, &progress).await?;
        let (text, value) = if more {
            ("UPDATE {m} SET target = ? WHERE table_key = ?", to)
        } else {
            (
                "UPDATE {m} SET copied = ?, target = NULL, part = 0, place = '' WHERE table_key = ?",
                to,
            )
        };
        call.execute(&scope.text(text), &[value.into(), key.into()]).await?;
        call.commit().await?;
        if !more {
            return Ok(());
        }
    }
}

/// Copies the rest, when nobody writes any more.
pub(super) async fn behind_the_fence(call: &mut Call) -> DbResult<()> {
    let scope = &BEHIND_THE_FENCE;
    let whole: Vec<&Part> = WHOLE.iter().collect();
    loop {
        let progress = open(call, scope, 0).await?;
        match progress.stage.as_str() {
            "online" | "again" => {
                if progress.stage == "again" {
                    empty(call, scope).await?;
                }
                forget(call, scope).await?;
                register(call, scope, false, "1 = 1").await?;
                enter(call, scope, "tails").await?;
            }
            "tails" => {
                call.commit().await?;
                catch_up(call, scope).await?;
                if open(call, scope, 0).await?.stage == "tails" {
                    enter(call, scope, "whole").await?;
                } else {
                    call.commit().await?;
                }
            }
            "whole" => {
                if batch(call, scope, 0, &whole, &progress).await? {
                    call.commit().await?;
                    continue;
                }
                call.execute(&scope.text(OUTBOX_REST), &[]).await?;
                call.execute(&scope.text(TABLES_ROWS), &[]).await?;
                enter(call, scope, "compare").await?;
            }
            _ => return call.commit().await,
        }
    }
}

/// Deletes what a fence that was lifted has copied of what changes at any time.
async fn empty(call: &mut Call, scope: &Scope<'_>) -> DbResult<()> {
    for table in ["tables", "mirror", "skip_index", "skip_segments", "skip_pages"] {
        call.execute(&format!("DELETE FROM {{p}}{table}_3"), &[]).await?;
    }
    let text = "DELETE n FROM {p}mirror_status_3 n JOIN {m} u ON u.table_key = n.table_key
        WHERE n.version > u.published";
    call.execute(&scope.text(text), &[]).await?;
    Ok(())
}

/// Deletes what was copied of tables that are gone, or were being imported at a fence that was lifted: the
/// latter are copied whole each time.
async fn forget(call: &mut Call, scope: &Scope<'_>) -> DbResult<()> {
    let text = "SELECT u.table_key FROM {m} u LEFT JOIN {p}tables{s} t ON t.id = u.id
        WHERE u.table_key > 0 AND (u.whole = 1 OR t.id IS NULL)";
    let sets = call.query(&scope.text(text), &[]).await?;
    for row in sets.iter().flat_map(|set| &set.rows) {
        let key: i64 = row.try_get(0)?;
        for part in LOG.iter().chain([&PUBLISHED]) {
            let text = format!("DELETE FROM {{p}}{}_3 WHERE table_key = ?", part.table);
            call.execute(&text, &[key.into()]).await?;
        }
        call.execute(&scope.text("DELETE FROM {m} WHERE table_key = ?"), &[key.into()]).await?;
    }
    Ok(())
}

/// A fence is about to be lifted: what changes at any time is copied anew behind the next one.
pub(super) async fn start_again(call: &mut Call) -> DbResult<()> {
    let text = "UPDATE {p}upgrade_3_fenced SET stage = 'again', part = 0, place = ''
        WHERE table_key = 0 AND stage <> 'refused'";
    call.execute(text, &[]).await?;
    Ok(())
}

/// The rows differ: what was copied is not used.
pub(super) async fn refuse(call: &mut Call) -> DbResult<()> {
    let text = "UPDATE {p}upgrade_3_fenced SET stage = 'refused' WHERE table_key = 0";
    call.execute(text, &[]).await?;
    Ok(())
}

/// What both sides are compared by.
const OF_FILES: [(&str, &str); 4] = [
    ("rows", "COUNT(*)"),
    ("bytes of files", "COALESCE(SUM(o.size), 0)"),
    ("active files", "COALESCE(SUM(o.removed_version = 9223372036854775807), 0)"),
    ("tombstones", "COALESCE(SUM(o.is_tombstone), 0)"),
];

/// The first difference between the tables of both versions.
pub(super) async fn compare(call: &mut Call) -> DbResult<Option<String>> {
    for table in super::replaced() {
        let what = if table == "files" { &OF_FILES[..] } else { &OF_FILES[..1] };
        let sums: Vec<String> =
            what.iter().map(|(_, sum)| format!("CAST({sum} AS CHAR)")).collect();
        let sums = sums.join(", ");
        // Rows of these may be left of tables that are no more.
        let known = if table == "mirror_status" || table.starts_with("skip_") {
            " JOIN {p}upgrade_3_fenced u ON u.id = o.table_id"
        } else {
            ""
        };
        let session = call.session.clone();
        let statements = [
            session.sql(&format!("SELECT {sums} FROM {{p}}{table}_2 o{known}"), &[]),
            session.sql(&format!("SELECT {sums} FROM {{p}}{table}_3 o"), &[]),
        ];
        let sets = call.run(statements.join("; ")).await?;
        let [before, after] = sets.as_slice() else { return Err(DbError::Again) };
        for (at, (name, _)) in what.iter().enumerate() {
            let value = |set: &Set| -> DbResult<String> {
                match set.rows.first() {
                    Some(row) => Ok(row.try_get(at)?),
                    None => Ok(String::new()),
                }
            };
            let (before, after) = (value(before)?, value(after)?);
            if before != after {
                let prefix = &call.session.options.table_prefix;
                return Ok(Some(format!(
                    "{prefix}{table} has {before} {name}, and its copy has {after}"
                )));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_back_and_are_ranges() {
        let place = vec![Literal::Bytes(vec![0, 171]), Literal::Int(-7), Literal::Int(3)];
        let text = place_text(&place);
        assert_eq!(text, "X'00AB',-7,3");
        assert_eq!(read_place(&text).unwrap(), place);
        assert_eq!(read_place("").unwrap(), Place::new());
        assert!(read_place("1,x").is_err() && read_place("X'0G'").is_err());
        let columns = ["o.a", "o.b"].map(str::to_owned);
        let place = vec![Literal::Int(1), Literal::Int(2)];
        assert_eq!(beyond(&columns, &place, true), "((o.a > 1) OR (o.a = 1 AND o.b > 2))");
        assert_eq!(beyond(&columns, &place, false), "((o.a < 1) OR (o.a = 1 AND o.b <= 2))");
    }
}
