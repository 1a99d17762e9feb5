//! `cargo xtask deploy`: what is in `deploy/` is right, as far as a machine without a cluster can tell; and the
//! packages are complete.
//!
//! Each file is checked by the tool of those who made its format. What has no tool here is shown as skipped.

mod alerts;
mod containers;
mod dashboard;
mod helm;
mod metrics;
mod packages;
mod promql;
mod systemd;
mod texts;
mod tools;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::steps::{Outcome, Step, report, step};
use crate::workspace;

/// Runs all checks and prints a table of them. Whether none failed.
pub(crate) fn main() -> bool {
    let began = Instant::now();
    let mut done = Vec::new();
    steps(&mut done, &std::env::var("DL_REQUIRE").unwrap_or_default());
    report(&done, began.elapsed());
    !done.iter().any(|step| matches!(step.outcome, Outcome::Failed))
}

/// The checks. `required`: the list of `DL_REQUIRE`; with `deploy` in it a tool that is missing is a failure.
pub(crate) fn steps(done: &mut Vec<Step>, required: &str) {
    let required = required.split(',').any(|name| name.trim() == "deploy");
    tools::debian();
    let mut check = |name: &str, run: fn() -> Result<Outcome>| {
        step(done, name, || {
            Ok(match run() {
                Err(error) if !required => match error.downcast::<tools::Missing>() {
                    Ok(missing) => Outcome::Skipped(missing.to_string()),
                    Err(error) => return Err(error),
                },
                outcome => outcome?,
            })
        });
    };
    check("alert rules", alerts::check);
    check("dashboard", dashboard::check);
    check("names of metrics", metrics::check);
    check("Dockerfile and compose file", containers::check);
    check("Helm chart", helm::check);
    check("systemd units", systemd::check);
    check("YAML and shell", texts::check);
    check("packages", packages::check);
}

/// A file of `deploy/`, or below.
fn place(name: &str) -> PathBuf {
    workspace::root().join("deploy").join(name)
}

/// Its text.
fn text(name: &str) -> Result<String> {
    let path = place(name);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// A page of the book.
fn page(name: &str) -> PathBuf {
    workspace::root().join("docs/src").join(name)
}

/// A failure that is told line by line; passed if there is none.
fn outcome(wrong: &[String]) -> Outcome {
    for line in wrong {
        println!("error: {line}");
    }
    if wrong.is_empty() { Outcome::Passed } else { Outcome::Failed }
}
