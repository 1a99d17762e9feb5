//! `cargo xtask test`.

mod lanes;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::servers::Servers;
use crate::tally::Tally;
use crate::{run, tools, workspace};

/// What `--quick` leaves out of the tests of the workspace.
const SLOW: [&str; 2] = ["deltalakedb-contention", "deltalakedb-test-servers"];

/// Parts of `DL_REQUIRE` that are satisfied if they were not skipped; of the others, which are
/// databases, some test must have run, too.
const SERVICES: [&str; 12] = [
    "corpus",
    "interop",
    "python",
    "crash",
    "galera",
    "replica",
    "pgbouncer",
    "s3",
    "azure",
    "prometheus",
    "otlp",
    "deploy",
];

/// Options of `cargo xtask test`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only what takes no minutes: no other engines, no crash test, no Galera cluster, no crowds of
    /// writers, and not the tests of the test servers themselves.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Name tests that pass, too.
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// Runs all tests, prints the counts. Whether none failed.
pub(crate) fn main(args: &Args) -> Result<bool> {
    let required = requirements(&std::env::var("DL_REQUIRE").unwrap_or_default());
    let mut tally = Tally::default();
    // What the tests need is fetched and started while they are built.
    let (built, needs) = std::thread::scope(|scope| {
        let needs = scope.spawn(|| Needs::get(args.quick));
        // Everything in one go, with one set of features: nothing below is built twice.
        let built = build_all();
        let needs = needs.join().map_err(|_| anyhow::anyhow!("the start of the servers panicked"));
        anyhow::Ok((built?, needs??))
    })?;
    if built {
        lanes::run(args, &needs, &mut tally)?;
    } else {
        tally.failed.push("the build".to_owned());
    }
    tally.add(needs.absent);
    enforce(&mut tally, &required);
    Ok(tally.report())
}

/// Builds every target of the workspace.
pub(crate) fn build_all() -> Result<bool> {
    run::on_terminal(
        run::cargo().arg("build").args(workspace::WITH_EVERYTHING).arg("--all-targets"),
    )
}

/// What tests run on, beside what is built.
struct Needs {
    nextest: PathBuf,
    servers: Servers,
    /// With other engines, or why there is none; nothing for a quick run.
    python: Option<Result<PathBuf, String>>,
    /// With what the tests of the Python package need, or why there is none; nothing for a quick run.
    package: Option<Result<PathBuf, String>>,
    /// What could not be had.
    absent: Tally,
}

impl Needs {
    fn get(quick: bool) -> Result<Needs> {
        let mut absent = Tally::default();
        let servers = Servers::for_tests(quick, &mut absent);
        let python = if quick { None } else { Some(crate::interop::python()?) };
        let package = if quick { None } else { Some(crate::python::python()?) };
        Ok(Needs { nextest: tools::nextest()?, servers, python, package, absent })
    }

    /// What leads a test to all of it.
    fn lead(&self, command: &mut Command) {
        command.envs(self.servers.variables());
        if let Some(Ok(python)) = &self.python {
            command.env("DL_TEST_PYTHON", python);
        }
        if let Some(tables) = workspace::delta_tables() {
            command.env("DL_DELTA_TABLES", tables);
        }
    }
}

/// A file of the last run, in a folder of their own.
pub(crate) fn record(name: &str) -> Result<PathBuf> {
    let folder = workspace::target().join("xtask");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(path),
    }
}

fn requirements(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|r| !r.is_empty()).map(str::to_owned).collect()
}

/// What must run and did not has failed. A test that cannot run and must has failed by itself; here is
/// looked at what was to be started for all of them, and whether there was a test at all.
fn enforce(tally: &mut Tally, required: &[String]) {
    for name in required {
        let (missing, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut tally.skipped).into_iter().partition(|skip| skip.what == *name);
        tally.skipped = rest;
        tally.failed.extend(
            missing
                .into_iter()
                .map(|skip| format!("{name} (required by DL_REQUIRE): {}", skip.why)),
        );
        let ran = || {
            // A MariaDB server is a `mysql`, and a harness may say which it has.
            let names: &[&str] = if ["mysql", "mariadb"].contains(&name.as_str()) {
                &["mysql", "mariadb"]
            } else {
                &[name]
            };
            names.iter().any(|n| tally.ran(&format!("{n}::")) || tally.ran(&format!("{n}-")))
        };
        if !SERVICES.contains(&name.as_str()) && !ran() {
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
        tally.pass("suite", "sqlite::commit::x");
        tally.skip("interop", "no python3");
        tally.skip("dl::cli copying::to_mssql", "no server");
        enforce(&mut tally, &requirements("sqlite, interop"));
        assert_eq!(tally.skipped.len(), 1);
        assert_eq!(tally.failed, ["interop (required by DL_REQUIRE): no python3"]);
    }

    #[test]
    fn a_required_database_on_which_no_test_ran_is_a_failure() {
        let mut tally = Tally::default();
        tally.pass("suite", "postgres-15::commit::x");
        tally.pass("unit", "postgresql::url");
        enforce(&mut tally, &requirements("postgres,corpus"));
        assert!(tally.failed.is_empty(), "{:?}", tally.failed);
        enforce(&mut tally, &requirements("sqlite"));
        assert_eq!(tally.failed, ["sqlite (required by DL_REQUIRE): no test ran on it"]);
    }

    #[test]
    fn a_mariadb_server_is_a_mysql() {
        for name in ["mariadb-10.11::commit::x", "mysql-mariadb-10.11::commit::x", "mysql-8.0::x"] {
            let mut tally = Tally::default();
            tally.pass("suite", name);
            enforce(&mut tally, &requirements("mysql,mariadb"));
            assert!(tally.failed.is_empty(), "{:?}", tally.failed);
            enforce(&mut tally, &requirements("postgres"));
            assert_eq!(tally.failed, ["postgres (required by DL_REQUIRE): no test ran on it"]);
        }
    }
}
