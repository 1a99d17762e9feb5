//! The systemd units: read by `systemd-analyze`, and as closed as they say.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{place, tools};
use crate::run;
use crate::steps::Outcome;
use crate::workspace;

/// The program of the units: where it is not installed, another stands for it.
const PROGRAM: &str = "/usr/local/bin/dl";
const STANDS_FOR_IT: &str = "/bin/true";

/// Highest exposure of a service, in tenths: `systemd-analyze security` gives 0 to 100.
const EXPOSURE: &str = "20";

/// What is unknown in a unit is a warning, and the exit code says nothing of it: any output is a failure.
pub(super) fn check() -> Result<Outcome> {
    tools::system("systemd-analyze")?;
    let folder = workspace::target().join("xtask").join("units");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("cannot remove the units of before")?;
    }
    std::fs::create_dir_all(&folder).context("cannot make a folder for units")?;
    let mut units: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(place("systemd")).context("there is no deploy/systemd")? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let copy = folder.join(path.file_name().context("a unit without a name")?);
        std::fs::write(&copy, text.replace(PROGRAM, STANDS_FOR_IT))?;
        units.push(copy);
    }
    units.sort();
    ensure!(!units.is_empty(), "deploy/systemd has no unit");
    let mut verify = tools::system("systemd-analyze")?;
    verify.args(["--man=no", "verify"]).args(&units);
    // Those of the folder, then those of the machine.
    verify.env("SYSTEMD_UNIT_PATH", format!("{}:", folder.display()));
    let mut outcome = quiet(&mut verify)?;
    for unit in units.iter().filter(|unit| unit.extension().is_some_and(|e| e == "service")) {
        let mut security = tools::system("systemd-analyze")?;
        security
            .args(["--no-pager", "--offline=yes", "--threshold", EXPOSURE, "security"])
            .arg(unit);
        let (succeeded, text) = run::watched(&mut security, false)?;
        println!("{}", text.lines().last().unwrap_or_default());
        if !succeeded {
            println!("error: {} is more exposed than {EXPOSURE} of 100\n{text}", unit.display());
            outcome = Outcome::Failed;
        }
    }
    Ok(outcome)
}

/// Passed if it succeeds and says nothing.
fn quiet(command: &mut Command) -> Result<Outcome> {
    println!("$ {}", run::shown(command));
    let (succeeded, text) = run::watched(command, true)?;
    Ok(if succeeded && text.trim().is_empty() { Outcome::Passed } else { Outcome::Failed })
}
