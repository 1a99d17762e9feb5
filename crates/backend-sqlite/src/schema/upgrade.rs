//! From version 2 to version 3: rows name their table by a small integer in place of its id.
//!
//! All of it is one write transaction. Readers go on with version 2, and writers wait. Whatever
//! ends it before COMMIT leaves version 2 as it was, so there is nothing to continue or to clean up.
//!
//! A table is renamed, made anew, filled in the order of its key, compared and dropped, one after
//! the other: the rows of the next one go where those of the last one were.

use std::path::Path;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use rusqlite::{Connection, OptionalExtension};

use super::layout::{AUDIT, KEY, LAYOUT, Layout, OLD_KEY, REGISTRY};
use crate::errors::DbResult;
use crate::rows::text::fill;

/// What the name of a table of version 2 ends with while its rows are copied. No other transaction
/// ever sees it.
const OLD: &str = "_2";

/// A catalog's tables in a file.
pub(crate) struct Upgrade<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) path: &'a Path,
    pub(crate) prefix: &'a str,
}

/// Upgrades tables of version 2, inside of the caller's write transaction. It does not record the
/// version.
pub(crate) fn to_version_3(conn: &Connection, path: &Path, prefix: &str) -> DbResult<()> {
    let upgrade = Upgrade { conn, path, prefix };
    upgrade.refuse_what_others_added()?;
    for table in LAYOUT.iter().filter(|table| table.is_keyed) {
        upgrade.replace(table)?;
    }
    Ok(())
}

/// Refuses if the name of a table is taken that a version after this one adds.
///
/// # Errors
/// `Schema`.
pub(crate) fn refuse_taken(
    conn: &Connection,
    path: &Path,
    prefix: &str,
    from: u32,
) -> DbResult<()> {
    for (version, table) in [(4, AUDIT), (5, REGISTRY)] {
        if from >= version {
            continue;
        }
        let name = format!("{prefix}{}", table.name);
        let mut named =
            conn.prepare("SELECT type FROM sqlite_master WHERE name = ?1 COLLATE NOCASE")?;
        let found = named.query_row([&name], |row| row.get::<_, String>(0)).optional()?;
        if let Some(kind) = found {
            return Err(CatalogError::Schema(format!(
                "the catalog in '{}' is not upgraded to schema version {version}: it makes a table '{name}', and \
                 there is a {kind} of that name which is not ours. Rename it, then run `dl init`. Nothing was changed",
                path.display()
            ))
            .into());
        }
    }
    Ok(())
}

/// The columns of a table in their order, with those that are computed.
fn columns(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    conn.prepare("SELECT name FROM pragma_table_xinfo(?1) ORDER BY cid")?
        .query_map([table], |row| row.get(0))?
        .collect()
}

/// The columns of its primary key in their order.
fn primary_key(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    conn.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?
        .query_map([table], |row| row.get(0))?
        .collect()
}

/// Whether one of these names stands in a text as a word.
fn mentions(text: &str, names: &[String]) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    text.split(|c| !is_part(c)).any(|word| names.iter().any(|name| word.eq_ignore_ascii_case(name)))
}

impl Upgrade<'_> {
    fn name(&self, table: &Layout) -> String {
        format!("{}{}", self.prefix, table.name)
    }

    fn refuse(&self, found: &[String], what: &str) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        Err(CatalogError::Schema(format!(
            "the catalog in '{}' is not upgraded to schema version 3, as its tables are made anew for \
             it and this would be lost or broken: {}. {what}. Nothing was changed",
            self.path.display(),
            found.join(", ")
        )))
    }

    /// Refuses if other programs rely on tables that are replaced.
    fn refuse_what_others_added(&self) -> DbResult<()> {
        let replaced: Vec<&Layout> = LAYOUT.iter().filter(|table| table.is_keyed).collect();
        let names: Vec<String> = replaced.iter().map(|table| self.name(table)).collect();
        let is_ours = |name: &str| names.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        let our_indexes: Vec<String> = replaced
            .iter()
            .flat_map(|table| table.indexes)
            .map(|(index, _)| format!("{}{index}", self.prefix))
            .collect();

        let mut found = Vec::new();
        let mut statement = self.conn.prepare(
            "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY name",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (kind, name): (String, String) = (row.get(0)?, row.get(1)?);
            let (on, sql): (String, String) = (row.get(2)?, row.get(3)?);
            let added = match kind.as_str() {
                "view" => mentions(&sql, &names),
                "trigger" => is_ours(&on) || mentions(&sql, &names),
                "index" => {
                    // Those of primary keys have no text.
                    let ours = our_indexes.iter().any(|index| index.eq_ignore_ascii_case(&name));
                    is_ours(&on) && !sql.is_empty() && !ours
                }
                _ => false,
            };
            if added {
                found.push(format!("{kind} '{name}'"));
            }
        }
        let mut statement = self.conn.prepare(
            "SELECT DISTINCT m.name, f.\"table\"
             FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f
             WHERE m.type = 'table' ORDER BY m.name",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, parent): (String, String) = (row.get(0)?, row.get(1)?);
            if is_ours(&parent) {
                found.push(format!("foreign key of table '{name}'"));
            }
        }
        self.refuse(
            &found,
            &format!(
                "Drop it, run `dl init`, and make it again: rows have `{KEY}` in place of `{OLD_KEY}` \
                 then, and {}tables has both `{KEY}` and `id`",
                self.prefix
            ),
        )?;

        let mut taken = Vec::new();
        for name in &names {
            let old = format!("{name}{OLD}");
            let mut named =
                self.conn.prepare("SELECT 1 FROM sqlite_master WHERE name = ?1 COLLATE NOCASE")?;
            if named.exists([&old])? {
                taken.push(format!("'{old}'"));
            }
        }
        Ok(self.refuse(&taken, "The upgrade needs these names: rename what has them")?)
    }

    /// Makes one table anew.
    fn replace(&self, table: &Layout) -> DbResult<()> {
        let (conn, name) = (self.conn, self.name(table));
        let old = format!("{name}{OLD}");
        for (index, _) in table.indexes {
            conn.execute_batch(&format!("DROP INDEX IF EXISTS {}{index}", self.prefix))?;
        }
        conn.execute_batch(&format!("ALTER TABLE {name} RENAME TO {old}"))?;
        conn.execute_batch(&fill(table.create, self.prefix))?;
        let copied = conn.execute(&self.copy(table, &old)?, [])?;
        self.compare(table, &old)?;
        conn.execute_batch(&format!("DROP TABLE {old}"))?;
        for (_, index) in table.indexes {
            conn.execute_batch(&fill(index, self.prefix))?;
        }
        tracing::info!(table = name, rows = copied, "copied to schema version 3");
        Ok(())
    }

    /// The statement that copies a table's rows: in the order of the new table's key.
    ///
    /// `OR ROLLBACK`: so SQLite keeps no journal to take the statement alone back.
    pub(crate) fn copy(&self, table: &Layout, old: &str) -> DbResult<String> {
        let name = self.name(table);
        let own = table.name == "tables";
        let new_columns = columns(self.conn, &name)?;
        let expected: Vec<&str> = new_columns
            .iter()
            .filter(|column| !own || *column != KEY)
            .map(|column| if column == KEY { OLD_KEY } else { column })
            .collect();
        let found = columns(self.conn, old)?;
        let unknown: Vec<String> = found
            .iter()
            .filter(|column| !expected.contains(&column.as_str()))
            .map(|column| format!("column '{column}' of table '{name}'"))
            .collect();
        self.refuse(&unknown, "Drop it, then run `dl init`")?;

        if own {
            let columns = expected.join(", ");
            // Keys grow with the age of tables.
            return Ok(format!(
                "INSERT OR ROLLBACK INTO {name} ({columns}) SELECT {columns} FROM {old} ORDER BY created_at_ms, id"
            ));
        }
        let from = |column: &String| {
            if column == KEY { format!("t.{KEY}") } else { format!("o.{column}") }
        };
        let values: Vec<String> = new_columns.iter().map(from).collect();
        let order: Vec<String> = primary_key(self.conn, &name)?.iter().map(from).collect();
        Ok(format!(
            "INSERT OR ROLLBACK INTO {name} ({}) SELECT {} FROM {}tables t NOT INDEXED
             CROSS JOIN {old} o ON o.{OLD_KEY} = t.id ORDER BY {}",
            new_columns.join(", "),
            values.join(", "),
            self.prefix,
            order.join(", ")
        ))
    }

    /// Fails unless both tables have the same rows, as far as counting can tell.
    fn compare(&self, table: &Layout, old: &str) -> DbResult<()> {
        let name = self.name(table);
        let gone = if table.is_derived {
            format!("WHERE {OLD_KEY} IN (SELECT id FROM {}tables)", self.prefix)
        } else {
            String::new()
        };
        let count = |from: &str| -> rusqlite::Result<i64> {
            self.conn.query_row(&format!("SELECT count(*) FROM {from}"), [], |row| row.get(0))
        };
        self.same(&name, "rows", count(&format!("{old} {gone}"))?.into(), count(&name)?.into())?;
        if table.name == "files" {
            let [before, after] = [self.files(old)?, self.files(&name)?];
            self.same(&name, "files in tables", before.active, after.active)?;
            self.same(&name, "tombstones", before.tombstones, after.tombstones)?;
            self.same(&name, "bytes of files", before.bytes, after.bytes)?;
        }
        Ok(())
    }

    fn files(&self, table: &str) -> rusqlite::Result<Files> {
        // A sum in two parts: SQLite's own ends with an error where it overflows.
        let sql = format!(
            "SELECT count(*) FILTER (WHERE removed_version = 9223372036854775807),
                count(*) FILTER (WHERE is_tombstone = 1),
                coalesce(sum(size >> 32), 0), coalesce(sum(size & 4294967295), 0)
             FROM {table}"
        );
        self.conn.query_row(&sql, [], |row| {
            let column = |n| row.get::<_, i64>(n).map(i128::from);
            Ok(Files {
                active: column(0)?,
                tombstones: column(1)?,
                bytes: (column(2)? << 32) + column(3)?,
            })
        })
    }

    fn same(&self, table: &str, what: &str, before: i128, after: i128) -> Result<()> {
        if before == after {
            return Ok(());
        }
        Err(CatalogError::corrupt(format!(
            "the catalog in '{}' is not upgraded to schema version 3: the table '{table}' has {before} \
             {what}, but {after} of them belong to a table of the catalog. Nothing was changed: restore \
             a backup, or delete rows whose table is gone",
            self.path.display()
        )))
    }
}

/// What is compared of files besides their number.
struct Files {
    active: i128,
    tombstones: i128,
    bytes: i128,
}
