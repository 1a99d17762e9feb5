//! The account that servers run as.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::system;

/// Who a server runs as: PostgreSQL and MariaDB refuse to run as root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    /// User and group to change to; none: run as we are.
    ids: Option<(u32, u32)>,
}

impl Account {
    /// Ourselves, or, if we are root, the first of `preferred` that exists, then `nobody`.
    pub(crate) fn choose(preferred: &[&str]) -> Result<Account> {
        if !cfg!(target_os = "linux") {
            bail!(
                "servers for tests are started on Linux only: give the URL of one in \
                 DL_TEST_POSTGRES_URL or DL_TEST_MYSQL_URL"
            );
        }
        if system::user().context("cannot read /proc/self")? != 0 {
            return Ok(Account { ids: None });
        }
        for name in preferred.iter().chain(&["nobody"]) {
            if let (Some(user), Some(group)) = (id("-u", name), id("-g", name)) {
                return Ok(Account { ids: Some((user, group)) });
            }
        }
        bail!(
            "database servers do not run as root, and there is no account {} or nobody: \
             run the tests as another user",
            preferred.join(", ")
        )
    }

    /// The account that runs the tests, for servers that do not mind.
    pub(crate) fn ourselves() -> Result<Account> {
        if cfg!(target_os = "linux") {
            Ok(Account { ids: None })
        } else {
            bail!(
                "servers for tests are started on Linux only: give the address of one in \
                 DL_TEST_S3_ENDPOINT or DL_TEST_AZURE_ENDPOINT"
            )
        }
    }

    /// Makes the command run as this account.
    pub(crate) fn apply(self, command: &mut Command) {
        if let Some((user, group)) = self.ids {
            system::run_as(command, user, group);
        }
    }

    /// Gives a file or folder to this account.
    pub(crate) fn give(self, path: &Path) -> Result<()> {
        if let Some((user, group)) = self.ids {
            system::give(path, user, group)
                .with_context(|| format!("cannot change the owner of {}", path.display()))?;
        }
        Ok(())
    }

    /// Whether this account can work in the folder, which it was given: the folders above may be
    /// closed to it.
    pub(crate) fn can_use(self, folder: &Path) -> bool {
        let mut probe = Command::new("/bin/sh");
        probe.args(["-c", "cd \"$1\" && : >.probe && rm .probe", "sh"]).arg(folder);
        probe.current_dir("/").stderr(std::process::Stdio::null());
        self.apply(&mut probe);
        probe.status().is_ok_and(|s| s.success())
    }
}

fn id(option: &str, user: &str) -> Option<u32> {
    let output = Command::new("id").args([option, user]).output().ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
