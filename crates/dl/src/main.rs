//! `dl`: Delta tables whose log lives in SQL, from a command line.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod context;
mod failure;
mod global;
mod listen;
mod output;
mod progress;
mod publishing;
mod report_file;
mod time;
mod user;
mod view;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use tokio::sync::watch;

use cli::Cli;
use context::Context;
use failure::{Failure, exit};
use output::{Format, Output};

/// How long a command that ends its step by itself may take after Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

/// Crates whose log lines are ours.
const LIBRARIES: &[&str] = &[
    "dl",
    "deltalakedb",
    "deltalakedb_catalog_core",
    "deltalakedb_catalog_engine",
    "deltalakedb_backend_sqlite",
    "deltalakedb_backend_postgres",
    "deltalakedb_backend_mysql",
    "deltalakedb_backend_mssql",
    "deltalakedb_cache",
    "deltalakedb_replicas",
    "deltalakedb_mirror",
    "deltalakedb_log_store",
];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            print_usage(&error, &arguments);
            return ExitCode::from(match error.exit_code() {
                0 => exit::OK,
                _ if is_diff(&arguments) => exit::ERROR,
                _ => exit::USAGE,
            });
        }
    };
    start_logging(cli.global.quiet, cli.global.verbose);
    let config = deltalakedb::Config::load();
    let format = cli.global.format.or_else(|| {
        // A config file with another error, or another word here, is reported when it is needed.
        let configured = config.as_ref().ok()?.format()?;
        clap::ValueEnum::from_str(configured, true).ok()
    });
    let out = Output::new(format.unwrap_or(Format::Table), cli.global.quiet);
    match run(cli, config, out) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            out.error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(
    cli: Cli,
    config: deltalakedb::core::error::Result<deltalakedb::Config>,
    out: Output,
) -> failure::Result<u8> {
    let start = std::time::Instant::now();
    let command = cli.command.name();
    tracing::info!(command, version = env!("CARGO_PKG_VERSION"), "begins");
    let result = run_command(cli, config, out);
    let deltalakedb::traced::Counts { database_calls, retries, store_calls } =
        deltalakedb::traced::counts();
    let ms = start.elapsed().as_secs_f64() * 1_000.0;
    let exit_code = result.as_ref().map_or_else(Failure::exit_code, |code| *code);
    tracing::info!(command, exit_code, ms, database_calls, retries, store_calls, "ends");
    result
}

fn run_command(
    cli: Cli,
    config: deltalakedb::core::error::Result<deltalakedb::Config>,
    out: Output,
) -> failure::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("cannot start worker threads", e))?;
    let (stopper, stop) = watch::channel(false);
    let mut global = cli.global;
    if let commands::Command::Diff(diff) = &cli.command {
        global.catalog = diff.catalog(global.catalog)?;
    }
    let context = Context::new(global, config, out, stop);
    let result = runtime.block_on(async {
        let command = async {
            let result = commands::run(cli.command, &context).await;
            deltalakedb::indexing::finished().await;
            result
        };
        tokio::pin!(command);
        tokio::select! {
            result = &mut command => return result,
            () = interrupted() => {}
        }
        if context.stops_by_itself() {
            // The receivers are still there: the context holds one.
            let _ = stopper.send(true);
            tokio::select! {
                result = &mut command => { result?; }
                () = interrupted() => {}
                () = tokio::time::sleep(GRACE) => {}
            }
        }
        // Elsewhere each step is one transaction or one atomic put: between two of them nothing
        // is lost by not going on.
        Err(context.interrupted())
    });
    drop(context);
    // A blocking read that is still running must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Ctrl-C, or the signal by which services are stopped.
async fn interrupted() {
    tokio::select! {
        told = tokio::signal::ctrl_c() => if told.is_err() {
            // Without signals there is nothing to wait for.
            std::future::pending::<()>().await;
        },
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}

/// Prints help, version or what is wrong with the command line.
fn print_usage(error: &clap::Error, arguments: &[OsString]) {
    // The parser repeats what it does not expect, such as a catalog's URL with a password in it.
    let secret: Vec<_> = arguments
        .iter()
        .filter_map(|argument| argument.to_str())
        .filter(|argument| argument.contains("://") || argument.contains('@'))
        .collect();
    let plain = error.render().to_string();
    if secret.iter().any(|argument| plain.contains(argument)) {
        let plain = secret.iter().fold(plain, |text, argument| {
            let scheme = argument.find("://").map_or("", |at| &argument[..at + 3]);
            text.replace(argument, &format!("{scheme}…"))
        });
        eprint!("{plain}");
        return;
    }
    // Help and version are no errors. Nobody to tell if printing fails.
    let _ = error.print();
}

/// Whether the command line is one of `dl diff`, whose code 2 means drift and nothing else.
fn is_diff(arguments: &[OsString]) -> bool {
    Cli::command()
        .ignore_errors(true)
        .try_get_matches_from(arguments)
        .is_ok_and(|matches| matches.subcommand_name() == Some("diff"))
}

/// Log lines go to standard error. `RUST_LOG` overrides.
fn start_logging(quiet: bool, verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let ours = match (quiet, verbose) {
        (true, _) => "off",
        (false, 0) => "error",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let others = if verbose > 2 { "info" } else { "off" };
    let mut libraries: Vec<_> =
        LIBRARIES.iter().map(|library| format!("{library}={ours}")).collect();
    if ours == "info" {
        // Which tables are opened at which version, and what goes again: the core says it at `debug`, as a
        // service does not want to read it for each of its calls.
        libraries.push("deltalakedb_catalog_engine=debug".to_owned());
    }
    let fallback = format!("{others},{}", libraries.join(","));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
