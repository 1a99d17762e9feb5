//! `cargo xtask interop`: other engines read what `dl` publishes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::servers::Servers;
use crate::tally::Tally;
use crate::{run, test, workspace};

/// Options of `cargo xtask interop`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only cases whose name contains this.
    filter: Option<String>,
    /// Keep the tables that were made (they are in target/interop/tables).
    #[arg(long)]
    keep: bool,
}

/// Runs the cases on all engines. Whether all passed.
pub(crate) fn main(args: &Args) -> Result<bool> {
    if !test::build_all()? {
        return Ok(false);
    }
    let mut tally = Tally::default();
    let servers = Servers::for_interop(&mut tally);
    let python = python()?;
    tally.add(cases(args, &python, &servers, true)?.0);
    drop(servers);
    let ran = tally.skipped.is_empty();
    Ok(tally.report() && ran)
}

/// Runs the cases; `dl` is built already. What they printed, which is `shown` as it comes, or not.
pub(crate) fn cases(
    args: &Args,
    python: &Result<PathBuf, String>,
    servers: &Servers,
    shown: bool,
) -> Result<(Tally, String)> {
    let python = match python {
        Ok(python) => python,
        Err(why) => {
            let mut tally = Tally::default();
            tally.skip("interop", why);
            return Ok((tally, String::new()));
        }
    };
    let events = test::record("interop.json")?;
    let mut command = Command::new(python);
    command.arg("-u").arg(scripts().join("run.py"));
    command.arg("--dl").arg(workspace::dev_binary("dl"));
    command.arg("--work").arg(home().join("tables"));
    command.arg("--tpch").arg(workspace::dev_binary("tpch"));
    command.arg("--events").arg(&events);
    if let Some(tables) = workspace::delta_tables() {
        command.arg("--tables").arg(tables);
    }
    if args.keep {
        command.arg("--keep");
    }
    if let Some(filter) = &args.filter {
        command.arg(filter);
    }
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.envs(servers.variables());
    let (succeeded, text) = run::watched(&mut command, shown)?;
    // The script has no file of skips: its events have the reasons.
    let skips = test::record("interop.skips")?;
    Ok((Tally::of_run(&run::shown(&command), "", &events, &skips, succeeded)?, text))
}

fn scripts() -> PathBuf {
    workspace::root().join("tests").join("interop")
}

fn home() -> PathBuf {
    workspace::target().join("interop")
}

/// A Python with the pinned engines, installed once under the target folder; or why there is none.
pub(crate) fn python() -> Result<Result<PathBuf, String>> {
    python_with(&scripts().join("requirements.txt"), &home())
}

/// As [`python`], with these packages, in this folder.
pub(crate) fn python_with(requirements: &Path, home: &Path) -> Result<Result<PathBuf, String>> {
    let wanted = std::fs::read_to_string(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let venv = home.join("venv");
    let python = if cfg!(windows) {
        venv.join("Scripts").join("python.exe")
    } else {
        venv.join("bin").join("python")
    };
    let stamp = venv.join("installed-requirements.txt");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(Ok(python));
    }
    println!("installing Python packages into {} (once)", venv.display());
    let system = if cfg!(windows) { "python" } else { "python3" };
    if let Err(e) = run::capture(Command::new(system).args(["-m", "venv", "--clear"]).arg(&venv)) {
        return Ok(Err(format!("needs {system} with the module venv: {}", last_line(&e))));
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    pip.arg(requirements);
    if let Err(e) = run::capture(&mut pip) {
        return Ok(Err(format!("cannot install the packages with pip: {}", last_line(&e))));
    }
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(Ok(python))
}

fn last_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or(&text).to_owned()
}
