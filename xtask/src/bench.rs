//! `cargo xtask bench`: the figures of a release build.

use std::process::Command;

use anyhow::Result;

use crate::{run, workspace};

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Options of the bench program, after `--` (see `cargo xtask bench -- --help`).
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds and runs the bench program.
pub(crate) fn main(args: &Args) -> Result<bool> {
    if !run::on_terminal(run::cargo().args(["build", "--release", "-p", "deltalakedb-bench"]))? {
        return Ok(false);
    }
    let program = workspace::target()
        .join("release")
        .join(format!("deltalakedb-bench{}", std::env::consts::EXE_SUFFIX));
    run::on_terminal(Command::new(program).args(&args.rest))
}
