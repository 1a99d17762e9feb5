//! Options of every command.

use clap::{ArgAction, Args};

use crate::output::Format;

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The catalog's URL [env: DELTA_DB_CONNECTION, DELTA_DB_CONNECTION_FILE, DATABASE_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub(crate) catalog: Option<String>,
    /// How results are printed [default: table, or 'format' of the configuration]
    #[arg(long, global = true, value_enum, help_heading = "Global options")]
    pub(crate) format: Option<Format>,
    /// On whose behalf commits are made, as the history shows it [env: DL_USER] [default: the login]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub(crate) user: Option<String>,
    /// No progress, hints and confirmations
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Log catalog, tables, versions, commits, retries and times to standard error (-vv: each call to
    /// the database and to logs, too; -vvv: in more detail)
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
}
