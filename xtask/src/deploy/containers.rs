//! The Dockerfile and the compose file. No image is built: that needs a daemon and images from a registry.

use anyhow::Result;

use super::{place, tools};
use crate::steps::{Outcome, passed};
use crate::workspace;

/// hadolint reads the Dockerfile, docker-compose the compose file, and compose-lint what is unsafe in it.
pub(super) fn check() -> Result<Outcome> {
    let mut commands = [
        tools::python("hadolint")?,
        tools::system("docker-compose")?,
        tools::python("compose-lint")?,
    ];
    let compose = place("compose.yaml");
    let [hadolint, docker_compose, compose_lint] = &mut commands;
    hadolint.arg(place("docker/Dockerfile"));
    docker_compose.arg("--file").arg(&compose).args(["config", "--quiet"]);
    compose_lint.args(["check", "--quiet", "--fail-on", "high"]).arg(&compose);
    for command in &mut commands {
        if let Outcome::Failed = passed(command.current_dir(workspace::root()))? {
            return Ok(Outcome::Failed);
        }
    }
    Ok(Outcome::Passed)
}
