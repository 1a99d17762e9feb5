//! The Helm chart: linted and rendered by Helm's own library, its manifests held against the API of Kubernetes.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::{place, tools};
use crate::steps::{Outcome, passed};
use crate::workspace;

/// Lints and renders.
const SCRIPT: &str = "xtask/src/deploy/helm.py";

/// The oldest version of Kubernetes that Chart.yaml allows, and a recent one.
const KUBERNETES: [&str; 2] = ["1.25", "1.35"];

/// Kinds that are not of Kubernetes itself: no schema is at hand.
const OTHERS: [&str; 1] = ["ServiceMonitor-"];

pub(super) fn check() -> Result<Outcome> {
    let output = workspace::target().join("xtask").join("helm");
    if output.exists() {
        std::fs::remove_dir_all(&output).context("cannot remove the manifests of before")?;
    }
    let mut python = tools::python("python")?;
    python.arg(workspace::root().join(SCRIPT)).arg(place("helm/deltalakedb"));
    python.arg(place("helm/cases")).arg(&output);
    if let Outcome::Failed = passed(&mut python)? {
        return Ok(Outcome::Failed);
    }
    let manifests = manifests(&output)?;
    ensure!(!manifests.is_empty(), "no manifest was rendered");
    for version in KUBERNETES {
        let mut validate = tools::python("kubernetes-validate")?;
        validate.args(["--strict", "--quiet", "--kubernetes-version", version]).args(&manifests);
        validate.current_dir(&output);
        if let Outcome::Failed = passed(&mut validate)? {
            return Ok(Outcome::Failed);
        }
    }
    Ok(Outcome::Passed)
}

/// Those that Kubernetes knows, relative to the folder.
fn manifests(output: &std::path::Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for case in std::fs::read_dir(output).context("nothing was rendered")? {
        let case = case?;
        for manifest in std::fs::read_dir(case.path())? {
            let name = manifest?.file_name();
            let known = !OTHERS.iter().any(|kind| name.to_string_lossy().starts_with(kind));
            let path = PathBuf::from(case.file_name()).join(&name);
            if known {
                found.push(path);
            } else {
                println!("{}: read as YAML only, there is no schema at hand", path.display());
            }
        }
    }
    found.sort();
    Ok(found)
}
