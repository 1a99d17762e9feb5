//! The command line's shape.

use clap::Parser;

use crate::commands::Command;
use crate::global::Global;

/// Delta Lake tables whose transaction log lives in a SQL database and is published to a plain
/// _delta_log/ for every Delta reader.
#[derive(Debug, Parser)]
#[command(
    name = "dl",
    version,
    max_term_width = 100,
    after_help = "\
A table is named namespace.table (or just table, in the namespace 'default'). Wherever a TABLE is
taken, so is its catalog id, or a URL that brings its own catalog:
  delta+sql://sqlite:///lake/catalog.db/sales.orders

The catalog is a URL:
  sqlite:///absolute/path.db    sqlite://relative.db    sqlite:///./relative.db
  postgresql://user@host:5432/database?sslmode=verify-full
  mysql://user@host:3306/database?ssl-mode=verify_identity        (MariaDB too)
  mssql://user@host:1433/database?encrypt=true                    (Azure SQL too)
It is taken from --catalog, else from the environment variable DELTA_DB_CONNECTION, the file that
DELTA_DB_CONNECTION_FILE names, the variable DATABASE_URL, or the key 'catalog' of a config file
($DL_CONFIG, ./dl.toml, ~/.config/dl/config.toml; YAML too). A wrong option lists the right ones.
'dl config example' prints a config file with all that can be set, 'dl config show' what is set.

The password is taken from the URL, its option password_file, the environment variable
DELTA_DB_PASSWORD, the file that DELTA_DB_PASSWORD_FILE names, else from PGPASSWORD, PGPASSFILE or
~/.pgpass, or MYSQL_PWD. On the command line everyone on this machine can read it.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted ('dl diff' has its own).

Examples:
  dl quickstart                          see everything work in a folder of its own
  dl init --catalog sqlite://lake.db     make a catalog in a file
  dl init --catalog postgresql://dl@db.example/lake
  dl import /lake/orders sales.orders    take over an existing Delta table
  dl files sales.orders --where \"day = '2026-01-31'\""
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_changelog_names_every_command() {
        fn check(command: &Command, path: &str, text: &str) {
            for subcommand in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                let path = format!("{path} {}", subcommand.get_name());
                let named = text
                    .match_indices(&path)
                    .any(|(at, _)| text[at + path.len()..].starts_with(['`', ' ']));
                assert!(named, "CHANGELOG.md does not name `{path}`");
                check(subcommand, &path, text);
            }
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../CHANGELOG.md");
        check(&Cli::command(), "`dl", &std::fs::read_to_string(file).unwrap());
    }

    #[test]
    fn every_help_has_examples_in_lines_that_fit() {
        fn check(command: &Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let mut subcommands = command.get_subcommands().peekable();
            if subcommands.peek().is_none() || path == " dl" {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:"), "{path} has no examples");
                for line in help.lines() {
                    assert!(line.chars().count() <= 100, "{path}: {line}");
                }
            }
            for subcommand in subcommands {
                check(subcommand, &path);
            }
        }
        check(&Cli::command(), "");
    }
}
