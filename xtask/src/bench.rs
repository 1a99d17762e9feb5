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
    /// Measure peers beside, in the same run: deltalake, DuckDB's Delta reader, DuckLake.
    #[arg(long)]
    peers: bool,
    /// Tables of a hundredth of the size, and fewer runs.
    #[arg(long, conflicts_with = "mirror")]
    quick: bool,
    /// Only cases whose name contains this.
    #[arg(long = "case", value_name = "NAME", conflicts_with = "mirror")]
    cases: Vec<String>,
    /// More options of the bench program, after `--` (see `cargo xtask bench -- --help`).
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
    command.arg(if args.mirror { "mirror" } else { "cases" });
    if args.peers {
        let requirements = workspace::root().join("tests").join("bench").join("requirements.txt");
        match interop::python_with(&requirements, &workspace::target().join("bench"))? {
            Ok(python) => {
                command.arg("--python").arg(python);
            }
            Err(why) => println!("skipped: the peers: {why}"),
        }
    }
    if args.quick {
        command.arg("--quick");
    }
    for case in &args.cases {
        command.args(["--case", case]);
    }
    run::on_terminal(command.args(&args.rest))
}
