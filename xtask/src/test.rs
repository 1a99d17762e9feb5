//! `cargo xtask test`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tally::{Show, Skip, Tally};
use crate::{crash, interop, run, workspace};

/// Parts of `DL_REQUIRE` that this program answers for; the others are databases, which the
/// conformance suite answers for.
const OUR_REQUIREMENTS: [&str; 3] = ["corpus", "interop", "crash"];

/// Rounds of the crash test in a run of all tests: enough to find what breaks at once.
const CRASH_ROUNDS: u32 = 30;

/// Options of `cargo xtask test`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only what `cargo test` runs: no other engines, no crash test.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Show every line, not only what matters (all of them are in target/xtask/test.log).
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// Runs all tests, prints the counts. Whether none failed.
pub(crate) fn main(args: &Args) -> Result<bool> {
    let required = requirements(&std::env::var("DL_REQUIRE").unwrap_or_default());
    let tables = workspace::delta_tables();
    let mut tally = Tally::default();

    // Everything in one go, with one set of features: nothing below is built twice.
    if build_all()? {
        tally.add(cargo_test(args, &required, tables.as_deref())?);
        if args.quick {
            tally.skip("interop", "left out by --quick");
            tally.skip("crash", "left out by --quick");
        } else {
            tally.add(interop::run()?);
            tally.add(crash::run(&crash::Args::short(CRASH_ROUNDS))?);
        }
    } else {
        tally.failed.push("the build".to_owned());
    }

    for skip in tally.skipped.iter_mut().filter(|s| is_corpus(s)) {
        // Two kinds of folder: given and wrong, or not given.
        if tables.is_none() {
            "corpus folder absent, set DL_DELTA_TABLES".clone_into(&mut skip.why);
        }
    }
    enforce(&mut tally, &required);
    Ok(tally.report())
}

/// Builds every target of the workspace.
pub(crate) fn build_all() -> Result<bool> {
    run::on_terminal(run::cargo().args(["build", "--workspace", "--all-targets"]))
}

fn cargo_test(args: &Args, required: &[String], tables: Option<&Path>) -> Result<Tally> {
    let mut command = run::cargo();
    command.args(["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    command.env("CARGO_TERM_COLOR", "never");
    let databases: Vec<&str> =
        required.iter().map(String::as_str).filter(|r| !OUR_REQUIREMENTS.contains(r)).collect();
    command.env("DL_REQUIRE", databases.join(","));
    if let Some(tables) = tables {
        command.env("DL_DELTA_TABLES", tables);
    }
    tallied(&mut command, "test", args.verbose)
}

/// Runs a command that prints test outcomes, shows what matters of it, and counts.
pub(crate) fn tallied(command: &mut Command, log_name: &str, verbose: bool) -> Result<Tally> {
    let shown = run::shown(command);
    println!("$ {shown}");
    let folder = workspace::target().join("xtask");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(format!("{log_name}.log"));
    let mut log =
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut tally = Tally::default();
    let status = run::by_line(command, |line| {
        if tally.line(line) == Show::Yes || verbose {
            println!("{line}");
        }
        // The log is a convenience: a full disk shows up in the tests themselves.
        let _ = writeln!(log, "{line}");
    })?;
    tally.end(&shown, status.success());
    Ok(tally)
}

/// Tests of real tables name the variable when they skip themselves.
fn is_corpus(skip: &Skip) -> bool {
    skip.why.contains("DL_DELTA_TABLES")
}

fn requirements(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|r| !r.is_empty()).map(str::to_owned).collect()
}

/// What must run and did not has failed.
fn enforce(tally: &mut Tally, required: &[String]) {
    for name in required {
        let (missing, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut tally.skipped)
            .into_iter()
            .partition(|s| s.what == *name || (name == "corpus" && is_corpus(s)));
        tally.skipped = rest;
        tally.failed.extend(
            missing.into_iter().map(|s| format!("{name} (required by DL_REQUIRE): {}", s.why)),
        );
        let database = !OUR_REQUIREMENTS.contains(&name.as_str());
        if database && !tally.ran(&format!("{name}::")) && !tally.ran(&format!("{name}-")) {
            tally.failed.push(format!("{name} (required by DL_REQUIRE): no test ran on it"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_skip_is_a_failure() {
        let mut tally = Tally::default();
        tally.line("test sqlite::commit::x ... ok");
        tally.skip("interop", "no python3");
        tally.skip("mirror: round_trip", "set DL_DELTA_TABLES");
        enforce(&mut tally, &requirements("sqlite, interop"));
        assert_eq!(tally.skipped.len(), 1);
        assert_eq!(tally.failed, ["interop (required by DL_REQUIRE): no python3"]);
        enforce(&mut tally, &requirements("postgres,corpus"));
        assert_eq!((tally.failed.len(), tally.skipped.len()), (3, 0));
    }
}
