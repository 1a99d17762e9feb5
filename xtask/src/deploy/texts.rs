//! YAML and shell, by their linters.

use anyhow::Result;

use super::{place, tools};
use crate::steps::{Outcome, passed};
use crate::workspace;

/// YAML files that are no templates.
const YAML: [&str; 5] = [
    "compose.yaml",
    "helm/cases",
    "helm/deltalakedb/Chart.yaml",
    "helm/deltalakedb/values.yaml",
    "prometheus",
];

/// Scripts, from the root.
const SHELL: [&str; 2] = [".ci/run", "deploy/release.sh"];

pub(super) fn check() -> Result<Outcome> {
    let mut yamllint = tools::system("yamllint")?;
    yamllint.args(["--strict", "--config-file", ".yamllint.yaml"]).args(YAML.map(place));
    let mut shellcheck = tools::system("shellcheck")?;
    shellcheck.args(SHELL);
    for command in [&mut yamllint, &mut shellcheck] {
        if let Outcome::Failed = passed(command.current_dir(workspace::root()))? {
            return Ok(Outcome::Failed);
        }
    }
    Ok(Outcome::Passed)
}
