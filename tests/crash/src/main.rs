//! `kill -9` at random moments during a loop of commits and publishing.
//!
//! `crash run` starts itself as `crash worker` again and again on one catalog, kills it with SIGKILL
//! after a random time, and checks after each round: every acknowledged commit is there, none is
//! half there, versions are gapless, and `_delta_log/` is a gapless prefix of them, byte by byte.
//! At the end publishing catches up by itself and the Delta kernel reads what the catalog says.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command-line program")]

mod check;
mod rng;
mod worker;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;

use crate::check::Checker;
use crate::rng::Rng;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
enum Args {
    /// Kills a worker so many times and checks what is left after each.
    Run {
        /// Rounds, each ending in a SIGKILL.
        #[arg(long, default_value_t = 200)]
        rounds: u64,
        /// Seed of all that is random; printed, so that a failure can be repeated.
        #[arg(long)]
        seed: Option<u64>,
        /// Longest life of a worker, milliseconds.
        #[arg(long, default_value_t = 250)]
        max_life_ms: u64,
    },
    /// Commits and publishes until it is killed.
    Worker {
        /// Folder with the catalog and the tables.
        dir: PathBuf,
        /// Number of the round: part of every token.
        round: u64,
        /// Seed of this round.
        seed: u64,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse() {
        Args::Run { rounds, seed, max_life_ms } => run(rounds, seed, max_life_ms),
        Args::Worker { dir, round, seed } => worker::main(&dir, round, seed),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("crash: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(rounds: u64, seed: Option<u64>, max_life_ms: u64) -> Result<(), AnyError> {
    let seed = seed.unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |d| d.subsec_nanos().into())
    });
    println!("crash: {rounds} rounds, seed {seed}");
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut rng = Rng::new(seed);
    let mut checker = Checker::new(dir.path().to_owned());
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .arg(dir.path())
            .args([round.to_string(), rng.next().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the worker has no stdout")?;
        let reader = std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).collect::<Vec<String>>()
        });
        // Some die while they start, most in the middle of work.
        std::thread::sleep(Duration::from_millis(rng.below(max_life_ms) + 1));
        let died_by_itself = child.try_wait()?;
        child.kill()?;
        child.wait()?;
        let lines = reader.join().map_err(|_| "the worker's output could not be read")?;
        if let Some(status) = died_by_itself {
            return Err(format!(
                "round {round}: the worker stopped by itself ({status}): {}",
                lines.join(" | ")
            )
            .into());
        }
        runtime
            .block_on(checker.after_round(&lines))
            .map_err(|e| format!("round {round} (seed {seed}): {e}"))?;
    }
    runtime.block_on(checker.at_the_end()).map_err(|e| format!("at the end (seed {seed}): {e}"))?;
    println!("crash: {}", checker.summary());
    checker.enough(rounds)
}
