//! `cargo xtask crash`: kills a writer at random moments.

use std::process::Command;

use anyhow::Result;

use crate::tally::Tally;
use crate::{run, workspace};

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
    if !run::on_terminal(run::cargo().args(["build", "-p", "deltalakedb-crash"]))? {
        return Ok(false);
    }
    Ok(run(args, true)?.0.report())
}

/// The same as a part of all tests; the program is built already. What it printed, which is `shown` as it
/// comes, or not.
pub(crate) fn run(args: &Args, shown: bool) -> Result<(Tally, String)> {
    let mut command = Command::new(workspace::dev_binary("crash"));
    command.arg("run").arg("--rounds").arg(args.rounds.to_string());
    if let Some(seed) = args.seed {
        command.arg("--seed").arg(seed.to_string());
    }
    let mut tally = Tally::default();
    let name = format!("crash: {} rounds of kill -9", args.rounds);
    let (passed, text) = run::watched(&mut command, shown)?;
    if passed {
        tally.pass("", name);
    } else {
        tally.failed.push(name);
    }
    Ok((tally, text))
}
