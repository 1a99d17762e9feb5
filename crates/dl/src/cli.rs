//! The command line's shape.

use clap::{ArgAction, Args, Parser};

use crate::commands::Command;
use crate::output::Format;

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

The catalog is a URL, from --catalog, the environment variable DELTA_DB_CONNECTION or the key
'catalog' of a config file ($DL_CONFIG, ./dl.toml, ~/.config/dl/config.toml):
  sqlite:///absolute/path.db    sqlite://relative.db

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted ('dl diff' has its own).

Examples:
  dl quickstart                          see everything work in a folder of its own
  dl init --catalog sqlite://lake.db     make a catalog
  dl import /lake/orders sales.orders    take over an existing Delta table
  dl files sales.orders --where \"day = '2026-01-31'\""
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The catalog's URL [env: DELTA_DB_CONNECTION]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub(crate) catalog: Option<String>,
    /// How results are printed [default: table, or 'format' of the config file]
    #[arg(long, global = true, value_enum, help_heading = "Global options")]
    pub(crate) format: Option<Format>,
    /// No progress, hints and confirmations
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Log what happens (-vv, -vvv: in more detail)
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
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
