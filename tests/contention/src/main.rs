//! Writers of many processes against one catalog, from the command line.
//!
//! `contention run --catalog URL` starts itself as `contention worker` as often as asked for, lets
//! all of them commit at the same time, and checks that nothing was lost.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::process::ExitCode;

use clap::Parser;
use deltalakedb_contention::run::{Plan, run};
use deltalakedb_contention::scenario::Scenario;
use deltalakedb_contention::worker::{self, WorkerArgs};

#[derive(Debug, Parser)]
enum Args {
    /// Runs writers against a database and checks what is left.
    Run {
        /// URL of the database. Several are the nodes of one cluster: the workers spread over them.
        #[arg(long, required = true, env = "CONTENTION_CATALOGS", hide_env_values = true)]
        catalog: Vec<String>,
        /// What the workers do; all of them if none is given.
        #[arg(long)]
        scenario: Vec<Scenario>,
        /// Number of workers.
        #[arg(long, default_value_t = 8)]
        processes: usize,
        /// Commits of each; if none is given, 200 appends, 100 batches, 60 mixed ones.
        #[arg(long)]
        commits: Option<u64>,
        /// Seed of all that is random.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// One of the writers. Started by `run`.
    #[command(hide = true)]
    Worker(WorkerArgs),
}

fn main() -> ExitCode {
    let outcome = match Args::parse() {
        Args::Run { catalog, scenario, processes, commits, seed } => {
            let all = [Scenario::Appends, Scenario::Batches, Scenario::Mixed];
            let scenarios = if scenario.is_empty() { &all[..] } else { &scenario[..] };
            scenarios.iter().try_for_each(|scenario| {
                let mut plan = Plan::new(std::env::current_exe()?, catalog.clone(), *scenario);
                plan.processes = processes;
                plan.commits = commits.unwrap_or(plan.commits);
                plan.seed = seed;
                println!("contention: {}", run(plan)?);
                Ok(())
            })
        }
        Args::Worker(args) => worker::main(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("contention: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}
