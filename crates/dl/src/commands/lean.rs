//! Commands that this build does not have.

use clap::Args;

use crate::failure::{Failure, Result};

/// Arguments of a command that needs the feature `sql`.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "\
Examples:
  cargo install --path crates/dl --features sql"
)]
pub(crate) struct Lean {
    /// Not looked at
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Lean {
    pub(crate) fn run() -> Result<()> {
        Err(Failure::invalid(
            "this `dl` was built without its query engine (sql, write, delete, update, merge, \
             optimize): build it with --features sql, as in \
             cargo install --path crates/dl --features sql",
        ))
    }
}
