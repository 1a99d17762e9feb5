//! `cargo xtask test`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::servers::Servers;
use crate::tally::{Show, Skip, Tally};
use crate::{crash, interop, run, workspace};

/// Databases that tests have in their names.
const DATABASES: [&str; 4] = ["sqlite", "postgres", "mysql", "mssql"];

/// What `--quick` leaves out of the tests of the workspace.
const SLOW: [&str; 2] = ["deltalakedb-contention", "deltalakedb-test-servers"];

/// Parts of `DL_REQUIRE` that are satisfied if they were not skipped; of the others, which are
/// databases, some test must have run, too.
const SERVICES: [&str; 8] =
    ["corpus", "interop", "crash", "galera", "replica", "pgbouncer", "s3", "azure"];

/// Rounds of the crash test in a run of all tests: enough to find what breaks at once.
const CRASH_ROUNDS: u32 = 30;

/// Options of `cargo xtask test`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only what takes no minutes: no other engines, no crash test, no Galera cluster, no crowds of
    /// writers, and not the tests of the test servers themselves.
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
        let servers = Servers::for_tests(args.quick, &mut tally);
        tally.add(cargo_test(args, &servers, tables.as_deref())?);
        if args.quick {
            tally.skip("interop", "left out by --quick");
            tally.skip("crash", "left out by --quick");
            for package in SLOW {
                tally.skip(package, "left out by --quick");
            }
        } else {
            tally.add(interop::run(&servers)?);
            drop(servers);
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
    run::on_terminal(
        run::cargo().arg("build").args(workspace::WITH_EVERYTHING).arg("--all-targets"),
    )
}

fn cargo_test(args: &Args, servers: &Servers, tables: Option<&Path>) -> Result<Tally> {
    let mut command = run::cargo();
    command.arg("test").args(workspace::WITH_EVERYTHING).arg("--no-fail-fast");
    if args.quick {
        command.args(SLOW.iter().flat_map(|package| ["--exclude", package]));
    }
    command.args(["--", "--show-output"]);
    command.env("CARGO_TERM_COLOR", "never");
    // Each program would miss the databases that another one tests: `enforce` looks at all of them.
    command.env_remove("DL_REQUIRE");
    command.envs(servers.variables());
    if !args.quick
        && let Ok(python) = interop::python()?
    {
        // Where it cannot be had, interop says why.
        command.env("DL_TEST_PYTHON", python);
    }
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
            .partition(|s| is_about(s, name, required));
        tally.skipped = rest;
        tally.failed.extend(missing.into_iter().map(|s| {
            let test = if s.what == *name { String::new() } else { format!("{}: ", s.what) };
            format!("{name} (required by DL_REQUIRE): {test}{}", s.why)
        }));
        let ran = || {
            // A MariaDB server is a `mysql`, and a harness may say which it has.
            let names: &[&str] = if name == "mysql" { &["mysql", "mariadb"] } else { &[name] };
            names.iter().any(|n| tally.ran(&format!("{n}::")) || tally.ran(&format!("{n}-")))
        };
        if !SERVICES.contains(&name.as_str()) && !ran() {
            tally.failed.push(format!("{name} (required by DL_REQUIRE): no test ran on it"));
        }
    }
}

/// Whether what was skipped is, or was to run on, what `DL_REQUIRE` calls `name`.
fn is_about(skip: &Skip, name: &str, required: &[String]) -> bool {
    match name {
        "corpus" => skip.what == name || is_corpus(skip),
        "interop" | "crash" => skip.what == name,
        // What an engine cannot do on a store that is there.
        "s3" | "azure" if skip.what.starts_with("interop::") => false,
        _ => {
            // The conformance suite leaves out cases for reasons of its own; of a database that
            // cannot be had it says `postgres-15::available`. Others name it somewhere.
            let (program, test) = skip.what.split_once(": ").unwrap_or(("", &skip.what));
            let suite = ["conformance", "oracle"].contains(&program);
            // A copy from one to another needs both.
            let optional =
                DATABASES.iter().any(|d| test.contains(d) && !required.iter().any(|r| r == d));
            test.contains(name) && !optional && (!suite || test.ends_with("::available"))
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

    #[test]
    fn a_required_database_that_one_program_could_not_reach_is_a_failure() {
        let mut tally = Tally::default();
        tally.line("test postgres-15::commit::x ... ok");
        tally.skip("oracle: postgres-15::available", "no server");
        tally.skip("conformance: postgres-15::reads::y", "it has no such thing");
        tally.skip("cli: databases::postgres::grants", "not built");
        tally.skip("cli: copying::postgres_to_mssql", "set DL_TEST_MSSQL_URL");
        tally.skip("oracle: mssql::available", "set DL_TEST_MSSQL_URL");
        tally.skip("galera", "no galera-4");
        enforce(&mut tally, &requirements("postgres"));
        assert_eq!(
            tally.failed,
            [
                "postgres (required by DL_REQUIRE): oracle: postgres-15::available: no server",
                "postgres (required by DL_REQUIRE): cli: databases::postgres::grants: not built",
            ]
        );
        assert_eq!(tally.skipped.len(), 4);
        enforce(&mut tally, &requirements("galera"));
        assert_eq!(tally.failed.last().unwrap(), "galera (required by DL_REQUIRE): no galera-4");
    }

    #[test]
    fn a_store_that_an_engine_does_not_reach_is_there() {
        let mut tally = Tally::default();
        tally.skip("interop::duckdb::tables_on_azure", "at its usual port only");
        enforce(&mut tally, &requirements("s3,azure"));
        assert!(tally.failed.is_empty(), "{:?}", tally.failed);
        tally.skip("deltalakedb_mirror: stores_tests::azure::racing", "no npm");
        enforce(&mut tally, &requirements("s3,azure"));
        assert_eq!(tally.failed.len(), 1);
    }

    #[test]
    fn a_mariadb_server_is_a_mysql() {
        let mut tally = Tally::default();
        tally.line("test mariadb-10.11::commit::x ... ok");
        enforce(&mut tally, &requirements("mysql"));
        assert!(tally.failed.is_empty(), "{:?}", tally.failed);
        enforce(&mut tally, &requirements("postgres"));
        assert_eq!(tally.failed, ["postgres (required by DL_REQUIRE): no test ran on it"]);
    }
}
