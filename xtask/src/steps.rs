//! Steps of a long check: all run, also after one failed, and a table says what became of each.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::run;

/// One step and what became of it.
pub(crate) struct Step {
    name: String,
    pub(crate) outcome: Outcome,
    took: Duration,
}

/// What became of a step.
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// Runs a step; an error is a failure.
pub(crate) fn step(steps: &mut Vec<Step>, name: &str, run: impl FnOnce() -> Result<Outcome>) {
    println!("\n== {name}");
    let began = Instant::now();
    let outcome = run().unwrap_or_else(|error| {
        println!("error: {error:#}");
        Outcome::Failed
    });
    if let Outcome::Skipped(why) = &outcome {
        println!("skipped: {why}");
    }
    steps.push(Step { name: name.to_owned(), outcome, took: began.elapsed() });
}

/// Prints the table.
pub(crate) fn report(steps: &[Step], took: Duration) {
    println!("\n{:<44} {:>8}  outcome", "step", "seconds");
    for step in steps {
        let outcome = match &step.outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed => "FAILED".to_owned(),
            Outcome::Skipped(why) => format!("skipped: {why}"),
        };
        println!("{:<44} {:>8.1}  {outcome}", step.name, step.took.as_secs_f64());
    }
    println!("{:<44} {:>8.1}", "all", took.as_secs_f64());
}

/// Whether a command passes, which writes to our terminal.
pub(crate) fn passed(command: &mut Command) -> Result<Outcome> {
    Ok(if run::on_terminal(command)? { Outcome::Passed } else { Outcome::Failed })
}
