//! What this login may do with the catalog's tables, by what `SHOW GRANTS` says of it
//! (<https://dev.mysql.com/doc/refman/8.4/en/show-grants.html>,
//! <https://mariadb.com/kb/en/show-grants/>).

use std::collections::BTreeSet;

use deltalakedb_catalog_core::diagnosis::{Diagnosis, Level};

/// All that readers and writers need.
const RIGHTS: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/// Where a grant holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Everywhere,
    /// A pattern of names.
    Database(String),
    /// By their names.
    Table(String, String),
}

/// A line of `SHOW GRANTS`, as far as it is of rights on tables.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    gives: bool,
    rights: Vec<String>,
    place: Place,
}

/// What the lines say of these tables of a database, with the rights that a writer needs on each, as a `GRANT` has
/// them. `schema` is the one that only who upgrades writes to.
pub(super) fn judge(
    lines: &[String],
    database: &str,
    schema: &str,
    tables: &[(String, &str)],
    lowers_names: bool,
) -> Diagnosis {
    let parsed: Vec<Line> = lines.iter().filter_map(|line| parse(line)).collect();
    let has = |table: &str| rights(&parsed, database, table, lowers_names);
    let all = tables.iter().map(|(table, _)| table.as_str()).chain([schema]);
    let unread: Vec<&str> = all.filter(|table| !has(table).contains("SELECT")).collect();
    let unwritten: Vec<&str> = tables
        .iter()
        .filter(|(table, wanted)| wanted.split(", ").any(|right| !has(table).contains(right)))
        .map(|(table, _)| table.as_str())
        .collect();
    if unwritten.is_empty() && unread.is_empty() {
        return Diagnosis::ok("rights", "this login may read and commit");
    }
    // A role's rights are in the lines where it is in force, and not on each server.
    let by_role = lines.iter().any(|line| is_role(line));
    if unread.is_empty() {
        return Diagnosis::new(
            Level::Note,
            "rights",
            format!("this login may read, and may not write {}", unwritten.join(", ")),
            "a reader's login is right for queries; commits and publishing need a writer's",
            "`dl grants --role writer --login NAME` prints the SQL where it shall commit",
        );
    }
    let text = format!("this login has no right of its own to read {}", unread.join(", "));
    if by_role {
        return Diagnosis::new(
            Level::Note,
            "rights",
            text,
            "it may have them by a role, whose rights the server does not show here",
            "SHOW GRANTS FOR the role shows them; it must be a default role",
        );
    }
    Diagnosis::new(
        Level::Error,
        "rights",
        text,
        "every call needs these tables",
        "`dl grants --role reader --login NAME` prints the SQL that an administrator runs",
    )
}

/// Whether the lines let the login read a table; none: it may be by a role, whose rights they do not have.
pub(super) fn reads(
    lines: &[String],
    database: &str,
    table: &str,
    lowers_names: bool,
) -> Option<bool> {
    let parsed: Vec<Line> = lines.iter().filter_map(|line| parse(line)).collect();
    let reads = rights(&parsed, database, table, lowers_names).contains("SELECT");
    (reads || !lines.iter().any(|line| is_role(line))).then_some(reads)
}

/// Rights on one table. What is revoked for a database (MySQL's partial revokes) does not take away what is
/// granted for its tables.
fn rights(
    lines: &[Line],
    database: &str,
    table: &str,
    lowers_names: bool,
) -> BTreeSet<&'static str> {
    let same = |a: &str, b: &str| if lowers_names { a.eq_ignore_ascii_case(b) } else { a == b };
    let of = |gives: bool, right: &str, place: &dyn Fn(&Place) -> bool| {
        lines.iter().any(|line| {
            line.gives == gives
                && place(&line.place)
                && line.rights.iter().any(|r| r == right || r.starts_with("ALL"))
        })
    };
    let everywhere = |place: &Place| *place == Place::Everywhere;
    let here = |place: &Place| matches!(place, Place::Database(name) if matches(name, database, lowers_names));
    let this =
        |place: &Place| matches!(place, Place::Table(d, t) if same(d, database) && same(t, table));
    RIGHTS
        .into_iter()
        .filter(|right| {
            let revoked = of(false, right, &here);
            of(true, right, &this)
                || of(true, right, &here)
                || (of(true, right, &everywhere) && !revoked)
        })
        .collect()
}

/// A line that gives the login a role.
fn is_role(line: &str) -> bool {
    line.starts_with("GRANT ") && !line.contains(" ON ")
}

/// `GRANT SELECT, INSERT ON `lake`.* TO …`
fn parse(line: &str) -> Option<Line> {
    let (gives, rest, end) = match line.strip_prefix("GRANT ") {
        Some(rest) => (true, rest, " TO "),
        None => (false, line.strip_prefix("REVOKE ")?, " FROM "),
    };
    let (rights, rest) = rest.split_once(" ON ")?;
    // Of single columns: no table is read by that.
    let rights = rights.split(", ").filter(|right| !right.contains(['(', ')']));
    let rights: Vec<String> = rights.map(|right| right.trim().to_ascii_uppercase()).collect();
    let rest = rest.strip_prefix("TABLE ").unwrap_or(rest);
    let (database, rest) = name(rest)?;
    let (table, rest) = name(rest.strip_prefix('.')?)?;
    if !rest.starts_with(end) {
        return None;
    }
    let place = match (database, table) {
        (None, None) => Place::Everywhere,
        (Some(database), None) => Place::Database(database),
        (Some(database), Some(table)) => Place::Table(database, table),
        (None, Some(_)) => return None,
    };
    Some(Line { gives, rights, place })
}

/// A name in quotes of either kind, or `*` for none; and what is behind it.
fn name(text: &str) -> Option<(Option<String>, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Some((None, rest));
    }
    let quote = text.chars().next().filter(|c| matches!(c, '`' | '"'))?;
    let mut name = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            name.push(quote);
        } else {
            return Some((Some(name), &text[at + c.len_utf8()..]));
        }
    }
    None
}

/// Whether a database's name fits a pattern: `%` is any text, `_` any character, a backslash before one of them
/// that character.
fn matches(pattern: &str, name: &str, lowers_names: bool) -> bool {
    fn fits(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['%', rest @ ..] => (0..=name.len()).any(|at| fits(rest, &name[at..])),
            ['\\', c @ ('%' | '_' | '\\'), rest @ ..] => {
                name.first() == Some(c) && fits(rest, &name[1..])
            }
            ['_', rest @ ..] => !name.is_empty() && fits(rest, &name[1..]),
            [c, rest @ ..] => name.first() == Some(c) && fits(rest, &name[1..]),
        }
    }
    let chars = |text: &str| -> Vec<char> {
        if lowers_names { text.to_lowercase().chars().collect() } else { text.chars().collect() }
    };
    let pattern = chars(pattern);
    // Each `%` may try every place: names that an administrator writes have few.
    pattern.iter().filter(|c| **c == '%').count() <= 4 && fits(&pattern, &chars(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(lines: &[&str]) -> Level {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let all = RIGHTS.join(", ");
        let tables = ["dl_tables", "dl_files"].map(|table| (table.to_owned(), all.as_str()));
        judge(&lines, "la`ke_1", "dl_schema", &tables, false).level
    }

    #[test]
    fn what_a_login_may_do_is_read_from_its_grants() {
        let usage = "GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*0'";
        let of_tables = |rights: &str| {
            ["tables", "files"].map(|t| format!("GRANT {rights} ON `la``ke_1`.`dl_{t}` TO `u`@`%`"))
        };
        let writer = of_tables("SELECT, INSERT, UPDATE, DELETE");
        let reader = of_tables("SELECT");
        let schema = "GRANT SELECT ON `la``ke_1`.`dl_schema` TO `u`@`%`";
        for (lines, want) in [
            (vec![usage], Level::Error),
            (vec!["GRANT ALL PRIVILEGES ON *.* TO `u`@`%` WITH GRANT OPTION"], Level::Ok),
            // MySQL 8 names them all.
            (
                vec![
                    "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD ON *.* TO `u`@`%`",
                ],
                Level::Ok,
            ),
            (vec![usage, "GRANT ALL PRIVILEGES ON `la``ke\\_1`.* TO `u`@`%`"], Level::Ok),
            (vec![usage, "GRANT ALL PRIVILEGES ON `la``ke_1`.* TO `u`@`%`"], Level::Ok),
            (vec![usage, "GRANT ALL PRIVILEGES ON `la%`.* TO `u`@`%`"], Level::Ok),
            (vec![usage, "GRANT ALL PRIVILEGES ON `other`.* TO `u`@`%`"], Level::Error),
            (vec![usage, "GRANT SELECT ON `la``ke_1`.* TO `u`@`%`"], Level::Note),
            (vec![usage, schema, &writer[0], &writer[1]], Level::Ok),
            (vec![usage, schema, &writer[0], &reader[1]], Level::Note),
            (vec![usage, schema, &reader[0], &reader[1]], Level::Note),
            (vec![usage, &writer[0], &writer[1]], Level::Error),
            (vec![usage, schema, &writer[0]], Level::Error),
            // Of a column only.
            (
                vec![
                    usage,
                    schema,
                    &writer[0],
                    "GRANT SELECT (`id`) ON `la``ke_1`.`dl_files` TO `u`@`%`",
                ],
                Level::Error,
            ),
            // Partial revokes.
            (
                vec![
                    "GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO `u`@`%`",
                    "REVOKE INSERT, UPDATE ON `la``ke_1`.* FROM `u`@`%`",
                ],
                Level::Note,
            ),
            (vec![usage, "GRANT `writers`@`%` TO `u`@`%`"], Level::Note),
            (vec![usage, "GRANT PROXY ON ''@'%' TO 'u'@'%'"], Level::Error),
            // ANSI_QUOTES.
            (vec!["GRANT ALL PRIVILEGES ON \"la`ke_1\".* TO \"u\"@\"%\""], Level::Ok),
            (vec!["no grant at all", "GRANT", "GRANT x ON `a TO b", ""], Level::Error),
        ] {
            assert_eq!(level(&lines), want, "{lines:?}");
        }
    }

    #[test]
    fn the_right_to_read_one_table_may_be_by_a_role() {
        let reads = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            super::reads(&lines, "lake", "dl_registry", false)
        };
        let usage = "GRANT USAGE ON *.* TO `u`@`%`";
        let role = "GRANT `writers`@`%` TO `u`@`%`";
        let granted = "GRANT SELECT ON `lake`.`dl_registry` TO `u`@`%`";
        assert_eq!(reads(&[usage, granted]), Some(true));
        assert_eq!(reads(&[usage, "GRANT SELECT ON `lake`.`dl_files` TO `u`@`%`"]), Some(false));
        assert_eq!(reads(&[usage, role]), None);
        assert_eq!(reads(&[role, granted]), Some(true));
    }

    #[test]
    fn patterns_of_databases_are_those_of_like() {
        for (pattern, name, fits) in [
            ("lake", "lake", true),
            ("lake", "Lake", false),
            ("l_ke", "lake", true),
            ("l\\_ke", "lake", false),
            ("l\\_ke", "l_ke", true),
            ("%", "lake", true),
            ("la%e", "lake", true),
            ("%%%%%%%%%%%%%%%%x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("\\%", "%", true),
        ] {
            assert_eq!(matches(pattern, name, false), fits, "{pattern} {name}");
        }
        assert!(matches("lake", "LAKE", true));
    }
}
