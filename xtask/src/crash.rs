//! `cargo xtask crash`: kills a writer at random moments.

use std::process::Command;

use anyhow::Result;

use crate::tally::Tally;
use crate::{run, test, workspace};

/// Options of `cargo xtask crash`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often the writer is killed.
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// Repeats the moments of an earlier run (a run prints its seed).
    #[arg(long)]
    seed: Option<u64>,
}

impl Args {
    /// Some rounds, with a fresh seed.
    pub(crate) fn short(rounds: u32) -> Args {
        Args { rounds, seed: None }
    }
}

/// Runs the rounds. Whether nothing was lost.
pub(crate) fn main(args: &Args) -> Result<bool> {
    let built = run::on_terminal(run::cargo().args(["build", "-p", "deltalakedb-crash"]))?;
    if !built {
        return Ok(false);
    }
    Ok(run(args)?.report())
}

/// The same as a part of all tests; the program is built already.
pub(crate) fn run(args: &Args) -> Result<Tally> {
    let mut command = Command::new(workspace::dev_binary("deltalakedb-crash"));
    command.arg("--rounds").arg(args.rounds.to_string());
    if let Some(seed) = args.seed {
        command.arg("--seed").arg(seed.to_string());
    }
    test::tallied(&mut command, "crash", true)
}
