//! `cargo xtask bench`: the figures of a release build.

use std::process::Command;

use anyhow::Result;

use crate::{interop, run, workspace};

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Publishing instead: rates, lag, checkpoints.
    #[arg(long)]
    mirror: bool,
    /// Do not measure Python's `deltalake` beside.
    #[arg(long)]
    no_peer: bool,
    /// Options of the bench program, after `--` (see `cargo xtask bench -- --help`).
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds and runs the bench program.
pub(crate) fn main(args: &Args) -> Result<bool> {
    if !run::on_terminal(run::cargo().args(["build", "--release", "-p", "deltalakedb-bench"]))? {
        return Ok(false);
    }
    let mut command =
        Command::new(workspace::target().join("release").join(workspace::executable("bench")));
    command.arg(if args.mirror { "mirror" } else { "all" });
    if !args.no_peer {
        match interop::python()? {
            Ok(python) => {
                command.arg("--python").arg(python);
            }
            Err(why) => println!("skipped: the peer: {why}"),
        }
    }
    run::on_terminal(command.args(&args.rest))
}
