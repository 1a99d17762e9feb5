//! `cargo xtask ci`: everything that a change must pass.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::api;
use crate::deploy;
use crate::loops;
use crate::msrv;
use crate::run;
use crate::steps::{Outcome, Step, passed, report, step};
use crate::tools;
use crate::workspace::{self, Package};

/// What the tests must not skip: all that a machine with a Rust toolchain, Python, Node.js and the
/// packages of the database servers can run. SQL Server has no package: it is tested where it is given by URL.
const REQUIRED: &str = "sqlite,postgres,replica,pgbouncer,mysql,galera,s3,azure,prometheus,otlp,deploy,interop,python,crash";

/// Packages that must be absent from the facade unless one of these features asks for them.
const HEAVY: [(&[&str], &[&str]); 8] = [
    (&["sqlite"], &["rusqlite", "libsqlite3-sys"]),
    (&["postgres"], &["sqlx-postgres", "tokio-postgres"]),
    (&["mysql"], &["sqlx-mysql"]),
    (&["mssql"], &["tiberius"]),
    (&["deltalake"], &["deltalake-core", "datafusion"]),
    (&["kernel", "deltalake"], &["buoyant_kernel", "buoyant_kernel_engine"]),
    // HTTP clients.
    (
        &["s3", "azure", "gcs", "kernel", "deltalake"],
        &["reqwest", "hyper", "hyper-util", "hyper-rustls", "h2", "ring"],
    ),
    (&["config"], &["figment", "toml_edit", "saphyr-parser", "schemars"]),
];

/// What the facade is checked beside where it needs DataFusion. None of it knows the facade, so the facade's
/// features stay its own; together they ask of all that DataFusion stands on what the workspace asks, so that
/// DataFusion is not checked a second time. What the facade itself needs is looked up without them.
const BESIDE: [&str; 7] = [
    "deltalakedb-shared-graph",
    "deltalakedb-backend-mssql",
    "deltalakedb-backend-mysql",
    "deltalakedb-backend-postgres",
    "deltalakedb-conformance",
    "deltalakedb-test-servers",
    "xtask",
];

/// Packages that the facade never needs.
const NEVER: [&str; 2] = ["openssl-sys", "native-tls"];

/// Options of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out the tests.
    #[arg(long)]
    no_test: bool,
}

/// Runs all steps, also after one failed, and prints a table of them. Whether none failed.
pub(crate) fn main(args: &Args) -> Result<bool> {
    let mut steps = Vec::new();
    let began = Instant::now();
    step(&mut steps, "format", format);
    step(&mut steps, "no files import each other in a loop", || {
        Ok(if loops::check()? { Outcome::Passed } else { Outcome::Failed })
    });
    step(&mut steps, "crates know only what they may", arrows);
    step(&mut steps, "lints", || {
        let mut command = cargo(&["clippy"]);
        command.args(workspace::WITH_EVERYTHING);
        passed(command.args(["--all-targets", "--", "-D", "warnings"]))
    });
    step(&mut steps, "docs", || {
        let mut command = workspace::doc();
        passed(command.env("RUSTDOCFLAGS", "-D warnings").env("CARGO_INCREMENTAL", "0"))
    });
    step(&mut steps, "public API", || {
        Ok(match api::compare()? {
            api::Compared::Same => Outcome::Passed,
            api::Compared::Differs(lines) => {
                api::tell(&lines);
                Outcome::Failed
            }
            api::Compared::OtherFormat(why) => Outcome::Skipped(why),
        })
    });
    step(&mut steps, "Rust versions", || {
        Ok(if msrv::check()? { Outcome::Passed } else { Outcome::Failed })
    });
    // cargo-deny may have to be built, which takes nothing of the workspace: the small builds of the facade, and tests
    // that wait, leave it time.
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut beside = Vec::new();
            step(&mut beside, "dependencies", || deny(&["bans", "licenses", "sources"]));
            step(&mut beside, "advisories", advisories);
            deploy::steps(&mut beside, &required());
            beside
        });
        features(&mut steps)?;
        if args.no_test {
            step(&mut steps, "tests", || Ok(Outcome::Skipped("--no-test".to_owned())));
        } else {
            step(&mut steps, "tests", tests);
        }
        let beside =
            beside.join().map_err(|_| anyhow::anyhow!("a thread of the checks panicked"))?;
        steps.extend(beside);
        anyhow::Ok(())
    })?;
    report(&steps, began.elapsed());
    Ok(!steps.iter().any(|s| matches!(s.outcome, Outcome::Failed)))
}

/// Cargo, as CI wants it: incremental builds only cost time and disk in a run from nothing.
fn cargo(args: &[&str]) -> Command {
    let mut command = run::cargo();
    command.args(args).env("CARGO_INCREMENTAL", "0");
    command
}

/// Of the workspace, and of the tool outside of it.
fn format() -> Result<Outcome> {
    let mut outcome = passed(&mut cargo(&["fmt", "--all", "--check"]))?;
    let tool = passed(&mut cargo(&["fmt", "--check", "--manifest-path", api::TOOL]))?;
    if matches!(outcome, Outcome::Passed) {
        outcome = tool;
    }
    Ok(outcome)
}

/// What must not be skipped.
fn required() -> String {
    std::env::var("DL_REQUIRE").unwrap_or_else(|_| REQUIRED.to_owned())
}

/// The tests run in a process of their own, so that they get the environment of CI.
fn tests() -> Result<Outcome> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    let mut required = required();
    if workspace::delta_tables().is_some() && !required.contains("corpus") {
        required.push_str(",corpus");
    }
    command.arg("test").current_dir(workspace::root());
    command.env("DL_REQUIRE", required).env("CARGO_INCREMENTAL", "0");
    passed(&mut command)
}

// ---- dependencies ----

fn deny(checks: &[&str]) -> Result<Outcome> {
    let mut command = Command::new(tools::deny()?);
    command.args(["--locked", "check", "--hide-inclusion-graph"]).args(checks);
    command.current_dir(workspace::root());
    passed(&mut command)
}

/// The advisory database is a git repository: where it cannot be fetched, nothing is checked.
fn advisories() -> Result<Outcome> {
    let mut command = Command::new(tools::deny()?);
    command.args(["--locked", "fetch", "db"]).current_dir(workspace::root());
    if run::capture(&mut command).is_err() {
        return Ok(Outcome::Skipped("the advisory database cannot be fetched here".to_owned()));
    }
    deny(&["advisories"])
}

// ---- features ----

/// Each feature of the facade compiles alone, and brings nothing that it does not need.
fn features(steps: &mut Vec<Step>) -> Result<()> {
    let packages = workspace::packages()?;
    let facade = packages
        .iter()
        .find(|p| p.name == "deltalakedb")
        .context("the workspace has no package deltalakedb")?;
    for feature in std::iter::once("").chain(facade.features.iter().map(String::as_str)) {
        let name = if feature.is_empty() { "no feature" } else { feature };
        step(steps, &format!("facade with {name} alone"), || {
            let mut check = cargo(&["check", "-p", "deltalakedb"]);
            if feature == "deltalake" {
                check.args(BESIDE.iter().flat_map(|package| ["-p", package]));
                check.args(["--no-default-features", "--features", "deltalakedb/deltalake"]);
            } else {
                check.args(["--no-default-features", "--features", feature]);
            }
            if !run::on_terminal(&mut check)? {
                return Ok(Outcome::Failed);
            }
            let unwanted = HEAVY.iter().filter(|(owners, _)| !owners.contains(&feature));
            lean("deltalakedb", &["--no-default-features", "--features", feature], unwanted)
        });
    }
    step(steps, "dl without its query engine", || {
        let unwanted = HEAVY.iter().filter(|(owners, _)| owners.first() == Some(&"deltalake"));
        lean("dl", &[], unwanted)
    });
    Ok(())
}

/// A package with these features needs none of what is unwanted.
fn lean<'h>(
    package: &str,
    selection: &[&str],
    unwanted: impl Iterator<Item = &'h (&'h [&'h str], &'h [&'h str])>,
) -> Result<Outcome> {
    let mut tree = cargo(&["tree", "-p", package, "-e", "normal", "--prefix", "none"]);
    let text = run::capture(tree.args(selection))?;
    let present = |name: &str| text.lines().any(|l| l.split(' ').next() == Some(name));
    let mut outcome = Outcome::Passed;
    let unwanted = unwanted.flat_map(|(_, names)| names.iter()).chain(&NEVER);
    for name in unwanted.filter(|n| present(n)) {
        println!("error: {package} {} needs {name}", selection.join(" "));
        outcome = Outcome::Failed;
    }
    Ok(outcome)
}

// ---- who may know whom ----

/// Arrows point one way: fronts, facade, {backends, cache, mirror}, core.
fn arrows() -> Result<Outcome> {
    let mut outcome = Outcome::Passed;
    for package in workspace::packages()? {
        for used in &package.uses {
            if !may_use(&package, used) {
                println!("error: {} must not depend on {used}", package.name);
                outcome = Outcome::Failed;
            }
        }
    }
    for layer in ["deltalakedb-catalog-core", "deltalakedb-catalog-engine"] {
        let tree = ["tree", "-p", layer, "-e", "normal", "--prefix", "none"];
        let used = run::capture(&mut cargo(&tree))?;
        // Of tokio they have tasks and channels: with its network comes mio.
        for banned in ["mio", "rusqlite", "sqlx", "object_store", "arrow", "parquet", "reqwest"] {
            if used.lines().any(|l| l.split(' ').next() == Some(banned)) {
                println!("error: {layer} knows no SQL, no network, no files: it needs {banned}");
                outcome = Outcome::Failed;
            }
        }
    }
    Ok(outcome)
}

fn may_use(package: &Package, used: &str) -> bool {
    const CORE: &str = "deltalakedb-catalog-core";
    const ENGINE: &str = "deltalakedb-catalog-engine";
    const SERVERS: &str = "deltalakedb-test-servers";
    const SQLX_SHARED: &str = "deltalakedb-sqlx-shared";
    const MIRROR: &str = "deltalakedb-mirror";
    const BELOW_FACADE: [&str; 6] = [
        CORE,
        ENGINE,
        MIRROR,
        "deltalakedb-cache",
        "deltalakedb-log-store",
        "deltalakedb-replicas",
    ];
    let backend = |name: &str| name.starts_with("deltalakedb-backend-");
    match package.name.as_str() {
        CORE | SERVERS => false,
        "xtask" => used == SERVERS,
        "deltalakedb-backend-postgres" | "deltalakedb-backend-mysql" => {
            [CORE, SQLX_SHARED].contains(&used)
        }
        "deltalakedb" => BELOW_FACADE.contains(&used) || backend(used),
        // Virtual checkpoints are encoded as published ones are.
        "deltalakedb-log-store" => [CORE, ENGINE, MIRROR].contains(&used),
        ENGINE | SQLX_SHARED | "deltalakedb-cache" => used == CORE,
        "deltalakedb-mirror" | "deltalakedb-replicas" | "deltalakedb-conformance" => {
            [CORE, ENGINE].contains(&used)
        }
        "dl" => ["deltalakedb", "deltalakedb-server"].contains(&used),
        // Its wheel brings the command line.
        "deltalakedb-python" => ["deltalakedb", "dl"].contains(&used),
        // Its writers use the backends directly: what the facade adds would hide their faults.
        "deltalakedb-contention" => {
            backend(used) || [CORE, ENGINE, SERVERS, "deltalakedb"].contains(&used)
        }
        // It measures against the servers and emulators that the tests start.
        "deltalakedb-bench" => [SERVERS, "deltalakedb"].contains(&used),
        name if backend(name) => used == CORE,
        _ => used == "deltalakedb",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_one_way() {
        let may = |name: &str, used: &str| {
            let package = Package {
                name: name.to_owned(),
                features: Vec::new(),
                uses: std::iter::once(used.to_owned()).collect(),
            };
            may_use(&package, used)
        };
        for backend in ["sqlite", "postgres", "mysql", "mssql"] {
            let backend = format!("deltalakedb-backend-{backend}");
            assert!(may(&backend, "deltalakedb-catalog-core") && may("deltalakedb", &backend));
            for other in ["deltalakedb-backend-sqlite", "deltalakedb-cache", "deltalakedb"] {
                assert!(!may(&backend, other), "{backend} uses {other}");
            }
            assert!(!may("dl", &backend) && !may("deltalakedb-replicas", &backend));
        }
        assert!(may("deltalakedb-replicas", "deltalakedb-catalog-core"));
        assert!(
            may("deltalakedb", "deltalakedb-replicas")
                && may("deltalakedb", "deltalakedb-log-store")
        );
        assert!(may("deltalakedb-log-store", "deltalakedb-mirror"));
        assert!(
            !may("deltalakedb-log-store", "deltalakedb")
                && !may("deltalakedb-mirror", "deltalakedb-log-store")
        );
        assert!(may("deltalakedb-bench", "deltalakedb-test-servers"));
        assert!(may("dl", "deltalakedb") && !may("dl", "deltalakedb-test-servers"));
        assert!(may("dl", "deltalakedb-server") && !may("deltalakedb-server", "dl"));
        assert!(!may("deltalakedb-catalog-core", "deltalakedb-replicas"));
    }
}
