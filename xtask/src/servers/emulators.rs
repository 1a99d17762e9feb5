//! Installs the emulators of object stores under the target folder, with the package managers of the
//! languages they are written in.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use deltalakedb_test_servers::{ObjectStoreKind, OtlpReceiver, check_object_store, emulators};

use super::install;
use crate::run;

/// moto, from Python's package index. Its put-if-absent is right under races.
const MOTO: &str = "moto[server]==5.2.5";
/// The official classes of OTLP, from Python's package index.
const OTLP: &str = "opentelemetry-proto==1.45.2";
/// Azurite, from npm's registry.
const AZURITE: &str = "azurite@3.35.0";

/// Installs those of these that are missing. What is still missing says so when it is started.
pub(super) fn missing(wanted: &[ObjectStoreKind]) {
    for kind in wanted.iter().filter(|kind| check_object_store(**kind).is_err()) {
        let installed = match kind {
            ObjectStoreKind::S3 => moto(),
            ObjectStoreKind::Azure => azurite(),
        };
        if let Err(error) = installed {
            println!("{error:#}");
        }
    }
}

fn moto() -> Result<()> {
    let venv = emulators()?.join("venv");
    println!("installing {MOTO} into {}", venv.display());
    run::capture(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
        .context("needs python3 with the module venv")?;
    let mut pip = Command::new(venv.join("bin").join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", MOTO]);
    run::capture(&mut pip).map(drop)
}

/// Installs what the receiver of traces decodes with, if it is missing.
pub(super) fn receiver() {
    if OtlpReceiver::check().is_err()
        && let Err(error) = otlp()
    {
        println!("{error:#}");
    }
}

fn otlp() -> Result<()> {
    let venv = emulators()?.join("otlp");
    println!("installing {OTLP} into {}", venv.display());
    run::capture(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
        .context("needs python3 with the module venv")?;
    let mut pip = Command::new(venv.join("bin").join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", OTLP]);
    run::capture(&mut pip)?;
    let stamp = venv.join("installed.txt");
    std::fs::write(&stamp, OTLP).with_context(|| format!("cannot write {}", stamp.display()))
}

fn azurite() -> Result<()> {
    if !there("npm") || !there("node") {
        install::packages(&["nodejs", "npm"]);
    }
    if !there("npm") {
        bail!("Azurite needs Node.js and npm: `apt-get install -y nodejs npm`");
    }
    let folder = emulators()?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    // Else npm looks for a project in the folders above.
    let project = folder.join("package.json");
    std::fs::write(&project, "{\"private\":true}\n")
        .with_context(|| format!("cannot write {}", project.display()))?;
    println!("installing {AZURITE} into {}", folder.display());
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-fund", "--no-audit", "--silent", AZURITE]).current_dir(&folder);
    run::capture(&mut npm).map(drop)
}

fn there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .any(|folder: std::path::PathBuf| Path::new(&folder).join(program).is_file())
}
