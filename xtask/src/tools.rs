//! Programs of cargo's that are not part of the toolchain: on the path, or built once into the target folder.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::{run, workspace};

/// cargo-deny (about two minutes to build).
pub(crate) fn deny() -> Result<PathBuf> {
    installed("cargo-deny")
}

/// cargo-nextest (about five minutes to build).
pub(crate) fn nextest() -> Result<PathBuf> {
    installed("cargo-nextest")
}

fn installed(package: &str) -> Result<PathBuf> {
    let name = workspace::executable(package);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(&name));
    if let Some(found) = on_path.into_iter().find(|program| program.is_file()) {
        return Ok(found);
    }
    let ours = workspace::target().join("tools");
    let program = ours.join("bin").join(&name);
    if !program.is_file() {
        println!("installing {package} into {} (once, some minutes)", ours.display());
        let mut install = run::cargo();
        // It runs for seconds: optimising it would take longer than it saves.
        install.args(["install", "--quiet", "--locked", "--debug", package, "--root"]).arg(&ours);
        install.env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_INCREMENTAL", "0");
        ensure!(run::on_terminal(&mut install)?, "cannot install {package}");
    }
    Ok(program)
}
