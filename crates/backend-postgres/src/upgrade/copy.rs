//! Rows from the tables of version 2 into their copies.

use sqlx::Row;

use crate::errors::DbResult;
use crate::layout::{CHILDREN, Child};
use crate::session::{Args, Call};

use super::{First as _, Place};

/// A table that is copied while others write to it: of its rows up to a version, none is ever made or changed, but
/// for files that are removed later.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) name: &'static str,
    /// The rest of its primary key in version 2, after the table's id.
    key: [(&'static str, &'static str); 2],
    /// The column with the version of a row.
    version: &'static str,
    /// Up to which version rows are copied: a column of `{p}heads_3`.
    through: &'static str,
    /// Rows in one batch.
    rows: u32,
}

/// A part of a key that the table does not have: the same in each row.
const NO_KEY: (&str, &str) = ("", "");
const VERSION: (&str, &str) = ("version", "int8");

pub(super) const COPIED: [Copied; 8] = [
    Copied {
        name: "commits",
        key: [VERSION, NO_KEY],
        version: "version",
        through: "head",
        rows: 20_000,
    },
    Copied {
        name: "commit_chunks",
        key: [VERSION, ("chunk_no", "int8")],
        version: "version",
        through: "head",
        rows: 2_000,
    },
    Copied {
        name: "files",
        key: [("added_version", "int8"), ("ordinal", "int8")],
        version: "added_version",
        through: "head",
        rows: 20_000,
    },
    Copied {
        name: "protocols",
        key: [VERSION, NO_KEY],
        version: "version",
        through: "head",
        rows: 20_000,
    },
    Copied {
        name: "metadata",
        key: [VERSION, NO_KEY],
        version: "version",
        through: "head",
        rows: 2_000,
    },
    Copied {
        name: "txns",
        key: [("app_key", "bytea"), VERSION],
        version: "version",
        through: "head",
        rows: 20_000,
    },
    Copied {
        name: "domain_metadata",
        key: [("domain_key", "bytea"), VERSION],
        version: "version",
        through: "head",
        rows: 20_000,
    },
    // What is published is not looked at again.
    Copied {
        name: "mirror_status",
        key: [VERSION, NO_KEY],
        version: "version",
        through: "published",
        rows: 20_000,
    },
];

fn child(name: &str) -> Option<&'static Child> {
    CHILDREN.iter().find(|child| child.name == name)
}

/// The columns of a table, but for the key.
fn columns(name: &str, of: &str) -> String {
    child(name).map(|child| child.copied(of)).unwrap_or_default()
}

impl Copied {
    fn keys(&self) -> impl Iterator<Item = (usize, &'static str, &'static str)> {
        let keys = self.key.into_iter().zip(1..).filter(|((name, _), _)| !name.is_empty());
        keys.map(|((name, of), number)| (number, name, of))
    }

    /// A key before those of all rows, as text.
    pub(super) fn before_all(&self) -> [&'static str; 2] {
        self.key.map(|(_, of)| if of == "int8" { "-1" } else { "" })
    }

    /// Copies the rows after those that were copied last. Whether they were the last ones.
    pub(super) async fn copy_batch(
        &self,
        call: &mut Call,
        place: &Place,
        step: &str,
    ) -> DbResult<bool> {
        let list = |each: &dyn Fn((usize, &str, &str)) -> String| {
            self.keys().map(each).collect::<String>()
        };
        let sql = format!(
            "WITH place AS (
                SELECT at_table, at_1, at_2 FROM {{p}}upgrade{{s}} WHERE step = $1
            ), batch AS (
                SELECT o.table_id, {columns} FROM {{p}}{name} o
                WHERE (o.table_id{after}) > ((SELECT at_table FROM place){at})
                ORDER BY o.table_id{after} LIMIT {rows}
            ), copied AS (
                INSERT INTO {{p}}{name}{{s}} (table_key, {columns})
                SELECT h.table_key, {of_batch} FROM batch b
                JOIN {{p}}heads{{s}} h ON h.table_id = b.table_id AND b.{version} <= h.{through}
                RETURNING 1
            ), last AS (
                SELECT table_id{names} FROM batch ORDER BY table_id DESC{down} LIMIT 1
            ), moved AS (
                UPDATE {{p}}upgrade{{s}} u SET at_table = l.table_id{set},
                    rows_copied = u.rows_copied + (SELECT count(*) FROM copied)
                FROM last l WHERE u.step = $1
            )
            SELECT count(*) FROM batch",
            name = self.name,
            columns = columns(self.name, ""),
            of_batch = columns(self.name, "b."),
            after = list(&|(_, key, _)| format!(", o.{key}")),
            at = list(&|(n, _, of)| format!(", (SELECT at_{n}::{of} FROM place)")),
            names = list(&|(_, key, _)| format!(", {key}")),
            down = list(&|(_, key, _)| format!(", {key} DESC")),
            set = list(&|(n, key, _)| format!(", at_{n} = l.{key}::text")),
            version = self.version,
            through = self.through,
            rows = self.rows,
        );
        call.simple("SET LOCAL enable_seqscan = off".to_owned()).await?;
        let rows = call.fetch_text(place.fill(&sql), Args::new().bind(step)).await?;
        call.simple(AS_EVER.to_owned()).await?;
        Ok(rows.try_first()?.try_get::<i64, _>(0)? < i64::from(self.rows))
    }

    /// Copies what came after the version that was copied.
    fn newer(&self) -> String {
        // Heads move with each row of most of these tables.
        let moved = if self.through == "head" {
            "WHERE h.table_key IS NULL OR t.head_version IS DISTINCT FROM h.head"
        } else {
            ""
        };
        format!(
            "INSERT INTO {{p}}{name}{{s}} (table_key, {columns})
            SELECT t.table_key, {of_row}
            FROM (SELECT t.id, t.table_key, coalesce(h.{through}, -1) AS through
                FROM {{p}}tables t LEFT JOIN {{p}}heads{{s}} h ON h.table_key = t.table_key {moved}) t
            CROSS JOIN LATERAL (SELECT {columns} FROM {{p}}{name} o
                WHERE o.table_id = t.id AND o.{version} > t.through OFFSET 0) o",
            name = self.name,
            columns = columns(self.name, ""),
            of_row = columns(self.name, "o."),
            through = self.through,
            version = self.version,
        )
    }
}

/// Rows that are few of many, which the planner cannot know, are found by their keys.
const BY_INDEX: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off";
const AS_EVER: &str = "SET LOCAL enable_seqscan TO DEFAULT; SET LOCAL enable_hashjoin TO DEFAULT;
    SET LOCAL enable_mergejoin TO DEFAULT";

/// Files that were copied and have gone since. Before new ones come: of one key one file is active.
const ENDED: &str = "UPDATE {p}files{s} n
    SET removed_version = o.removed_version, is_tombstone = o.is_tombstone,
        deletion_timestamp = o.deletion_timestamp, remove_action = o.remove_action
    FROM (SELECT t.id, t.table_key, h.head
        FROM {p}tables t JOIN {p}heads{s} h ON h.table_key = t.table_key
        WHERE t.head_version IS DISTINCT FROM h.head) t
    CROSS JOIN LATERAL (SELECT * FROM {p}files o
        WHERE o.table_id = t.id AND o.removed_version > t.head
          AND o.removed_version < 9223372036854775807 AND o.added_version <= t.head OFFSET 0) o
    WHERE n.table_key = t.table_key AND n.added_version = o.added_version AND n.ordinal = o.ordinal";

/// Copies what came since the begin, while nobody writes.
pub(super) async fn catch_up(call: &mut Call, place: &Place) -> DbResult<()> {
    let gone = "SELECT h.table_key FROM {p}heads{s} h
        WHERE NOT EXISTS (SELECT 1 FROM {p}tables t WHERE t.table_key = h.table_key)";
    if !call.fetch_text(place.fill(gone), Args::new()).await?.is_empty() {
        for copied in &COPIED {
            let sql = format!("DELETE FROM {{p}}{}{{s}} WHERE table_key IN ({gone})", copied.name);
            call.simple(place.fill(&sql)).await?;
        }
    }
    call.simple(BY_INDEX.to_owned()).await?;
    call.simple(place.fill(ENDED)).await?;
    for copied in &COPIED {
        call.simple(place.fill(&copied.newer())).await?;
    }
    call.simple(AS_EVER.to_owned()).await?;
    for child in &CHILDREN {
        if COPIED.iter().any(|copied| copied.name == child.name) {
            continue;
        }
        let sql = format!(
            "INSERT INTO {{p}}{name}{{s}} (table_key, {columns})
             SELECT t.table_key, {of_row} FROM {{p}}{name} o JOIN {{p}}tables t ON t.id = o.table_id;
             ANALYZE {{p}}{name}{{s}}",
            name = child.name,
            columns = child.copied(""),
            of_row = child.copied("o."),
        );
        call.simple(place.fill(&sql)).await?;
    }
    Ok(())
}

/// What is not the same in a table and its copy.
pub(super) struct Difference {
    pub(super) table: String,
    pub(super) what: &'static str,
    pub(super) old: String,
    pub(super) new: String,
}

/// Counts both sides of each table; the first difference, if there is one.
pub(super) async fn first_difference(
    call: &mut Call,
    place: &Place,
) -> DbResult<Option<Difference>> {
    for child in &CHILDREN {
        let name = child.name;
        let mut counts = vec![("its rows", "count(*)")];
        if name == "files" {
            counts.extend([
                ("the bytes of its files", "coalesce(sum(size), 0)"),
                (
                    "its active files",
                    "count(*) FILTER (WHERE removed_version = 9223372036854775807)",
                ),
                ("its tombstones", "count(*) FILTER (WHERE is_tombstone)"),
            ]);
        }
        let all: Vec<String> = counts.iter().map(|(_, sum)| format!("({sum})::text")).collect();
        let all = all.join(", ");
        // The skipping index is derived, and an import that was given up may have left some of it.
        let known = if name.starts_with("skip_") {
            " WHERE table_id IN (SELECT id FROM {p}tables)"
        } else {
            ""
        };
        let sql = format!(
            "SELECT {all} FROM {{p}}{name}{known} UNION ALL SELECT {all} FROM {{p}}{name}{{s}}"
        );
        let rows = call.fetch_text(place.fill(&sql), Args::new()).await?;
        let [old, new] = rows.as_slice() else { return Err(sqlx::Error::RowNotFound.into()) };
        for (column, (what, _)) in counts.into_iter().enumerate() {
            let (old, new): (String, String) = (old.try_get(column)?, new.try_get(column)?);
            if old != new {
                let table = format!("{}{name}", place.start);
                return Ok(Some(Difference { table, what, old, new }));
            }
        }
    }
    Ok(None)
}
