//! Where things are, and what `cargo metadata` says about them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;

/// Root folder of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// File name of a program.
pub(crate) fn executable(name: &str) -> String {
    format!("{name}{}", std::env::consts::EXE_SUFFIX)
}

/// A program of the dev profile.
pub(crate) fn dev_binary(name: &str) -> PathBuf {
    target().join("debug").join(executable(name))
}

/// Folder of Delta tables that other engines wrote, for the corpus test.
pub(crate) fn delta_tables() -> Option<PathBuf> {
    match std::env::var_os("DL_DELTA_TABLES") {
        Some(given) if !given.is_empty() => Some(PathBuf::from(given)),
        _ => {
            let beside = root().parent()?.join("shared").join("delta-tables");
            beside.is_dir().then_some(beside)
        }
    }
}

/// The whole workspace with every database and object store: the one set of features that all steps
/// build.
pub(crate) const WITH_EVERYTHING: [&str; 3] = [
    "--workspace",
    "--features",
    "dl/postgres,dl/mysql,dl/mssql,dl/s3,dl/azure,dl/gcs,dl/sql,dl/otlp",
];

/// `cargo doc` of all of it. With examples among its targets the features of dev-dependencies count, as in
/// all other steps; without them tokio would have other features, and all that stands on it, DataFusion
/// among it, would be checked once more.
pub(crate) fn doc() -> Command {
    let mut command = run::cargo();
    command.args(["doc", "--no-deps", "--lib", "--bins", "--examples"]).args(WITH_EVERYTHING);
    command
}

/// One package of this workspace.
#[derive(Debug)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its features, without `default`.
    pub(crate) features: Vec<String>,
    /// Packages of this workspace that it is built on (dev-dependencies left out).
    pub(crate) uses: BTreeSet<String>,
}

/// The packages of this workspace.
pub(crate) fn packages() -> Result<Vec<Package>> {
    let text = run::capture(run::cargo().args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--locked",
    ]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let listed = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let names: BTreeSet<&str> = listed.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut packages = Vec::new();
    for package in listed {
        let Some(name) = package["name"].as_str() else { bail!("a package without a name") };
        let features = package["features"]
            .as_object()
            .map(|f| f.keys().filter(|k| *k != "default").cloned().collect())
            .unwrap_or_default();
        let uses = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|d| d["kind"].as_str() != Some("dev"))
            .filter_map(|d| d["name"].as_str())
            .filter(|d| names.contains(d))
            .map(str::to_owned)
            .collect();
        packages.push(Package { name: name.to_owned(), features, uses });
    }
    Ok(packages)
}
