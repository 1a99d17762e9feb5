//! Installing the packages of database servers, where that needs no password.

use std::path::Path;
use std::process::{Command, Stdio};

use deltalakedb_test_servers::Software;

use crate::run;

/// Installs packages (the arguments) on Debian or Ubuntu and starts none of their services: `dpkg`
/// asks the policy script, which is ours unless the machine has one.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -y --no-install-recommends "$@" ||
    { apt-get update && apt-get install -y --no-install-recommends "$@"; }
"#;

/// Installs what is missing of this, if it may. What is still missing says so when it is started.
pub(super) fn missing(wanted: &[Software]) {
    let mut packages: Vec<&str> = Vec::new();
    for software in wanted.iter().filter(|s| s.check().is_err()) {
        for package in software.packages() {
            if !packages.contains(package) {
                packages.push(package);
            }
        }
    }
    self::packages(&packages);
}

/// Installs those of these packages that are not there, if it may.
pub(crate) fn packages(wanted: &[&str]) {
    let packages: Vec<&str> = wanted.iter().copied().filter(|p| !is_installed(p)).collect();
    if packages.is_empty() {
        return;
    }
    let Some(mut command) = as_root() else { return };
    command.args(["sh", "-c", INSTALL, "install"]).args(&packages);
    println!("installing {}", packages.join(", "));
    // The output is long and tells nothing, unless it fails.
    if let Err(error) = run::capture(&mut command) {
        println!("{error:#}");
        return;
    }
    disable(&packages);
}

/// A command that runs its arguments as root, if that needs no password and there is an `apt-get`.
fn as_root() -> Option<Command> {
    if !Path::new("/usr/bin/apt-get").exists() {
        return None;
    }
    if quietly(Command::new("sh").args(["-c", "[ \"$(id -u)\" = 0 ]"])) {
        return Some(Command::new("env"));
    }
    quietly(Command::new("sudo").args(["-n", "true"])).then(|| {
        let mut command = Command::new("sudo");
        command.arg("-n");
        command
    })
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    run::capture(&mut query).is_ok_and(|status| status == "installed")
}

/// The services of packages that we have just installed do not start with the machine either. A
/// service that was there before is not ours to touch.
fn disable(packages: &[&str]) {
    let units = [
        ("postgresql", "postgresql"),
        ("mariadb-server", "mariadb"),
        ("pgbouncer", "pgbouncer"),
        ("rsync", "rsync"),
        ("prometheus", "prometheus"),
    ];
    for (_, unit) in units.iter().filter(|(package, _)| packages.contains(package)) {
        if let Some(mut command) = as_root() {
            // There is no systemd in a container.
            quietly(command.args(["systemctl", "disable", "--quiet", unit]));
        }
    }
}

fn quietly(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}
