//! The Python package: its wheel, and its tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::servers::Servers;
use crate::tally::Tally;
use crate::{interop, run, test, workspace};

/// What builds wheels.
const MATURIN: &str = "maturin==1.16.0\n";

/// Builds the wheel for this machine, in release, into target/wheels.
pub(crate) fn wheel() -> Result<bool> {
    let home = workspace::target().join("maturin");
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let requirements = home.join("requirements.txt");
    std::fs::write(&requirements, MATURIN)
        .with_context(|| format!("cannot write {}", requirements.display()))?;
    let python = interop::python_with(&requirements, &home)?.map_err(|why| anyhow::anyhow!(why))?;
    let mut command = Command::new(&python);
    // What cargo told this program about itself would make dependencies be built anew.
    run::like_cargo(&mut command);
    command.args(["-m", "maturin", "build", "--release", "--locked", "--manifest-path"]);
    command.arg(folder().join("Cargo.toml"));
    command.arg("--out").arg(workspace::target().join("wheels"));
    run::on_terminal(&mut command)
}

/// A Python with what the tests need, installed once under the target folder; or why there is none.
pub(crate) fn python() -> Result<Result<PathBuf, String>> {
    interop::python_with(&folder().join("tests").join("requirements.txt"), &home())
}

/// Runs the tests on a wheel with the library that is built already, and what they printed.
pub(crate) fn tests(
    python: &Result<PathBuf, String>,
    servers: &Servers,
) -> Result<(Tally, String)> {
    let python = match python {
        Ok(python) => python,
        Err(why) => {
            let mut tally = Tally::default();
            tally.skip("python", why);
            return Ok((tally, String::new()));
        }
    };
    install(python)?;
    let (events, skips) = (test::record("python.json")?, test::record("python.skips")?);
    let mut command = Command::new(python);
    // Not in the folder of the sources: what is installed is tested.
    command.current_dir(home()).args(["-m", "pytest", "-q", "-c"]);
    command.arg(folder().join("pyproject.toml")).arg("--rootdir").arg(folder());
    command.arg(folder().join("tests")).arg("--events").arg(&events);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONFAULTHANDLER", "1");
    command.env("DL_TEST_DL", workspace::dev_binary("dl"));
    if let Some(tables) = workspace::delta_tables() {
        command.env("DL_DELTA_TABLES", tables);
    }
    command.envs(servers.variables());
    let (succeeded, text) = run::watched(&mut command, false)?;
    let tally = Tally::of_run(&run::shown(&command), "python", &events, &skips, succeeded)?;
    // Counts alone, if all is well.
    let text = if tally.failed.is_empty() { String::new() } else { text };
    Ok((tally, text))
}

/// Makes a wheel of the library of the dev profile, and installs it.
fn install(python: &Path) -> Result<()> {
    let library = workspace::target().join("debug").join(format!(
        "{}deltalakedb_python{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    ));
    ensure!(library.is_file(), "{} is not built", library.display());
    let mut assemble = Command::new(python);
    assemble.arg(folder().join("assemble.py")).arg("--library").arg(&library);
    assemble.args(["--version", env!("CARGO_PKG_VERSION"), "--out"]).arg(home().join("wheels"));
    let wheel = run::capture(&mut assemble).context("cannot make the wheel")?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]);
    pip.args(["--force-reinstall", "--no-deps"]).arg(wheel.trim());
    run::capture(&mut pip).context("cannot install the wheel")?;
    Ok(())
}

fn folder() -> PathBuf {
    workspace::root().join("crates").join("python")
}

fn home() -> PathBuf {
    workspace::target().join("python")
}
