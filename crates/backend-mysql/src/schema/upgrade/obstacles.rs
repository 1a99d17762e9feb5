//! What other people have made of our tables, and an upgrade would lose: it is named before anything is changed.
//!
//! Rights go by the name of a table: those of `{p}files` are the new table's after the switch.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;

use super::{KEYED_VERSION, again, is_switched, layout, replaced, schema_error};
use crate::errors::DbResult;
use crate::session::Call;
use crate::session::literals::list;

/// Most that an error names.
const MOST: usize = 20;

/// Views whose text has one of these names, as the server writes them. Of views of other databases too.
const VIEWS: &str = "SELECT CONCAT('the view ', v.table_schema, '.', v.table_name)
    FROM information_schema.views v WHERE ";
const TRIGGERS: &str = "SELECT CONCAT('the trigger ', trigger_name, ' on ', event_object_table)
    FROM information_schema.triggers
    WHERE event_object_schema = DATABASE() AND event_object_table IN (";
const FOREIGN_KEYS: &str =
    "SELECT CONCAT('the foreign key ', constraint_name, ' of ', constraint_schema, '.', table_name)
    FROM information_schema.referential_constraints
    WHERE (unique_constraint_schema = DATABASE() AND referenced_table_name IN (";
const COLUMNS: &str = "SELECT table_name AS n, column_name AS c FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name IN (";
const INDEXES: &str = "SELECT DISTINCT table_name AS n, index_name AS c
    FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name IN (";
const OPTIONS: &str = "SELECT table_name AS n, create_options AS c FROM information_schema.tables
    WHERE table_schema = DATABASE() AND table_name IN (";

/// Names of columns and indexes of a table of version 2.
#[derive(Default)]
struct Expected {
    columns: BTreeSet<String>,
    indexes: BTreeSet<String>,
}

/// From the text that makes it.
fn expected() -> BTreeMap<&'static str, Expected> {
    let mut tables = BTreeMap::new();
    for text in layout::VERSION_1.iter().chain(&layout::VERSION_2) {
        let Some((_, text)) = text.split_once("{p}") else { continue };
        let Some((name, columns)) = text.split_once(" (") else { continue };
        let mut of = Expected::default();
        for line in columns.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split([' ', '(']).collect();
            match words.as_slice() {
                ["PRIMARY", ..] => {
                    of.indexes.insert("primary".to_owned());
                }
                ["UNIQUE", "KEY", index, ..] | ["KEY", index, ..] => {
                    of.indexes.insert((*index).to_owned());
                }
                [column, ..] => {
                    of.columns.insert((*column).to_owned());
                    if line.contains("PRIMARY KEY") {
                        of.indexes.insert("primary".to_owned());
                    }
                }
                [] => {}
            }
        }
        tables.insert(name, of);
    }
    tables
}

/// Fails if there is anything. The tables are called with `suffix` by now.
pub(super) async fn check(call: &mut Call, suffix: &str) -> DbResult<()> {
    let prefix = call.session.options.table_prefix.clone();
    let names: Vec<String> = replaced().map(|table| format!("{prefix}{table}{suffix}")).collect();
    let tables = list(names.iter().map(Into::into));
    let with_schema = format!("{tables},{}", list([(&format!("{prefix}schema")).into()]));
    // Views name a table as it was called when they were made.
    let in_views: Vec<String> = replaced()
        .chain(["schema"])
        .map(|table| {
            let name = format!("`.`{prefix}{table}`");
            format!(
                "LOCATE(LOWER(CONCAT('`', DATABASE(), {})), LOWER(v.view_definition)) > 0",
                list([(&name).into()])
            )
        })
        .collect();
    let statements = [
        format!("{VIEWS}{}", in_views.join(" OR ")),
        format!("{TRIGGERS}{with_schema})"),
        format!(
            "{FOREIGN_KEYS}{with_schema})) OR (constraint_schema = DATABASE() AND table_name IN \
             ({with_schema}))"
        ),
        format!("{COLUMNS}{tables})"),
        format!("{INDEXES}{tables})"),
        format!("{OPTIONS}{tables})"),
    ];
    let sets = call.run(statements.join("; ")).await?;
    let mut found = BTreeSet::new();
    for row in sets.iter().take(3).flat_map(|set| &set.rows) {
        found.insert(row.try_get::<String, _>(0)?);
    }
    let expected = expected();
    for (kind, set) in ["column", "index", "option"].into_iter().zip(sets.iter().skip(3)) {
        for row in &set.rows {
            let name: String = row.try_get(0)?;
            let what: Option<String> = row.try_get(1)?;
            let what = what.unwrap_or_default().to_ascii_lowercase();
            let table = name.get(prefix.len()..name.len() - suffix.len()).unwrap_or_default();
            let Some(of) = expected.get(table.to_ascii_lowercase().as_str()) else { continue };
            let ours = match kind {
                "column" => of.columns.contains(&what),
                "index" => of.indexes.contains(&what),
                _ => what.split_whitespace().all(|option| option == "row_format=dynamic"),
            };
            if !ours {
                found.insert(format!("the {kind} {what} of {name}"));
            }
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    // Another process may have switched since the tables were looked at: what was found is then of version 3.
    if is_switched(call).await? {
        return Err(again());
    }
    let more = found.len().saturating_sub(MOST);
    let mut named = found.into_iter().take(MOST).collect::<Vec<_>>().join(", ");
    if more > 0 {
        named = format!("{named}, and {more} more");
    }
    Err(schema_error(format!(
        "the upgrade of database '{}' to version {KEYED_VERSION} writes its tables anew, and would lose \
         what others have made of them: {named}. Take it away, run `dl init` again, and make it anew \
         after that (rows go by table_key then). Nothing was changed",
        call.session.at
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_ours_is_known() {
        let all = expected();
        assert_eq!(all.len(), super::super::TABLES.len());
        let files = &all["files"];
        assert_eq!(files.columns.len(), 20, "{:?}", files.columns);
        let indexes = ["by_key", "by_state", "primary", "tombstones"];
        assert!(files.indexes.iter().eq(indexes), "{:?}", files.indexes);
        assert!(all["tables"].indexes.iter().eq(["by_name", "primary"]));
    }
}
