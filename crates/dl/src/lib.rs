//! `dl`: Delta tables whose log lives in SQL, from a command line. The program and the Python package start it here;
//! it is no library for other programs.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod context;
mod failure;
mod global;
mod listen;
mod logging;
mod output;
mod progress;
mod publishing;
mod report_file;
mod time;
#[cfg(feature = "otlp")]
mod traces;
#[cfg(not(feature = "otlp"))]
#[path = "untraced.rs"]
mod traces;
mod user;

use std::ffi::OsString;

use clap::{CommandFactory, Parser};
use tokio::sync::watch;
use tracing::{Instrument, Span};

use cli::Cli;
use context::Context;
use failure::{Failure, exit};
use output::{Format, Output};
use traces::Traces;

/// Runs the command line `arguments`, whose first is the program's name, and gives the exit code. Prints to standard
/// output and error, and sets up the log of the process: one call in a process.
#[must_use]
pub fn run(arguments: &[OsString]) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            print_usage(&error, arguments);
            return match error.exit_code() {
                0 => exit::OK,
                _ if is_diff(arguments) => exit::ERROR,
                _ => exit::USAGE,
            };
        }
    };
    // What is wrong with the configuration is reported when it is needed.
    let config = deltalakedb::Config::load();
    let format = cli.global.format.or_else(|| {
        let configured = config.as_ref().ok()?.format()?;
        clap::ValueEnum::from_str(configured, true).ok()
    });
    let out = Output::new(format.unwrap_or(Format::Table), cli.global.quiet);
    let wish = logging::Wish { quiet: cli.global.quiet, verbose: cli.global.verbose };
    let settings = config.as_ref().map(deltalakedb::Config::logging).unwrap_or_default();
    let otlp = config.as_ref().ok().and_then(deltalakedb::Config::otlp);
    let traces = Traces::start(otlp, logging::trace_id(), cli.command.watches(), out);
    let begun = check_format(&cli);
    if let Err(failure) = begun.and_then(|()| logging::start(wish, &settings, traces.as_ref())) {
        out.error(&failure);
        return failure.exit_code();
    }
    // `dl config` tells of the configuration that it looks at.
    if let (Ok(config), false) = (&config, matches!(cli.command, commands::Command::Config(_))) {
        for warning in config.warnings() {
            out.warn(warning.to_string());
        }
    }
    let span = traces.as_ref().map_or_else(Span::none, |traces| traces.root(cli.command.name()));
    let result = logged(cli, config, out, &span);
    let exit_code = result.as_ref().map_or_else(Failure::exit_code, |code| *code);
    span.record("exit_code", i64::from(exit_code));
    if exit_code != exit::OK {
        span.record("otel.status_code", "ERROR");
    }
    drop(span);
    if let Err(failure) = &result {
        out.error(failure);
    }
    if let Some(traces) = traces {
        traces.finish();
    }
    exit_code
}

fn logged(
    cli: Cli,
    config: deltalakedb::core::error::Result<deltalakedb::Config>,
    out: Output,
    span: &Span,
) -> failure::Result<u8> {
    let start = std::time::Instant::now();
    let command = cli.command.name();
    let trace_id = logging::trace_id();
    tracing::info!(command, version = env!("CARGO_PKG_VERSION"), trace_id, "begins");
    let result = run_command(cli, config, out, span);
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
    span: &Span,
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
        let command = command.instrument(span.clone());
        tokio::pin!(command);
        tokio::select! {
            result = &mut command => return result,
            () = interrupted() => {}
        }
        if context.stops_by_itself() {
            // The receivers are still there: the context holds one.
            let _ = stopper.send(true);
            tokio::select! {
                result = &mut command => {
                    let code = result?;
                    if context.is_service() {
                        return Ok(code);
                    }
                }
                () = interrupted() => {}
                () = tokio::time::sleep(context.grace()) => {}
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

/// `yaml` and `toml` are formats of an example, no results.
fn check_format(cli: &Cli) -> failure::Result<()> {
    match cli.global.format {
        Some(format @ (Format::Yaml | Format::Toml)) if !cli.command.is_example() => {
            Err(Failure::invalid(format!(
                "--format {} is for `dl config example` alone: results are printed as table or json",
                format.word()
            )))
        }
        Some(Format::Csv) if !cli.command.has_csv() => Err(Failure::invalid(
            "--format csv is for `dl audit` alone: results are printed as table or json",
        )),
        _ => Ok(()),
    }
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
