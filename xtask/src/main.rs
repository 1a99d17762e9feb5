//! Automation of this workspace. Run it as `cargo xtask <command>`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a terminal program")]

mod api;
mod bench;
mod ci;
mod crash;
mod deploy;
mod interop;
mod loops;
mod msrv;
mod python;
mod run;
mod servers;
mod steps;
mod tally;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, checks and measures this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every test that this machine can run; the last line counts them.
    ///
    /// Real tables of other engines are looked for in $DL_DELTA_TABLES, then in
    /// ../shared/delta-tables. What cannot run is listed as skipped, with the reason.
    /// Database servers are started for the run, unless DL_TEST_POSTGRES_URL, DL_TEST_MYSQL_URL or
    /// DL_TEST_GALERA_URL names some; SQL Server is tested where DL_TEST_MSSQL_URL names one. So are
    /// emulators of S3 and Azure Blob Storage (DL_TEST_S3_ENDPOINT, DL_TEST_AZURE_ENDPOINT).
    /// DL_REQUIRE=sqlite,postgres,replica,pgbouncer,mysql,galera,mssql,s3,azure,otlp,corpus,interop,python,crash turns
    /// a skip of these into a failure.
    Test(test::Args),
    /// Everything that a change must pass: format, lints, docs, dependencies, features, tests.
    Ci(ci::Args),
    /// Make tables with `dl` and read them with deltalake, Polars, DuckDB, Sail and ClickHouse.
    Interop(interop::Args),
    /// Find files of a crate that import each other in a loop.
    Loops,
    /// Compare the public API of the crate `deltalakedb` with crates/deltalakedb/public-api.txt.
    Api(api::Args),
    /// Compare the Rust versions that Cargo.toml and the docs state with those that dependencies need.
    Msrv,
    /// Kill a committing and publishing process at random moments and check what is left.
    Crash(crash::Args),
    /// Start throwaway database servers and keep them: up, down, env.
    Servers(servers::Args),
    /// Check what is in deploy/: alerts, dashboard, Dockerfile, compose file, Helm chart, systemd units.
    ///
    /// Each by its own tool, installed where that needs no password. What cannot be installed is shown as
    /// skipped, with the reason; DL_REQUIRE=deploy turns such a skip into a failure.
    Deploy,
    /// Build the wheel of the Python package for this machine, in release, into target/wheels.
    Wheel,
    /// Measure a release build and print the figures as a Markdown table.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    if let Some(code) = api::as_rustdoc() {
        return code;
    }
    let outcome = match Cli::parse().command {
        Task::Test(args) => test::main(&args),
        Task::Ci(args) => ci::main(&args),
        Task::Interop(args) => interop::main(&args),
        Task::Loops => loops::check(),
        Task::Api(args) => api::main(&args),
        Task::Msrv => msrv::check(),
        Task::Crash(args) => crash::main(&args),
        Task::Servers(args) => servers::main(&args),
        Task::Deploy => Ok(deploy::main()),
        Task::Wheel => python::wheel(),
        Task::Bench(args) => bench::main(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
