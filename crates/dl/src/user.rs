//! On whose behalf `dl` commits: `--user`, `DL_USER`, else the login.

use deltalakedb::core::error::{CatalogError, Result};
use deltalakedb::core::signature::UserName;

/// Environment variable that names the user.
const VARIABLE: &str = "DL_USER";

/// The user of this run; none if nobody says, and the system does not either.
///
/// # Errors
/// `InvalidInput` for a name that a person gave and that cannot be one.
pub(crate) fn user(flag: Option<&str>) -> Result<Option<UserName>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let placed = |place: &str, text: &str| {
        text.parse().map(Some).map_err(|e: CatalogError| match e {
            CatalogError::InvalidInput(text) => CatalogError::invalid(format!("{place}: {text}")),
            other => other,
        })
    };
    if let Some(flag) = flag {
        return placed("--user", flag);
    }
    if let Some(text) = variable(VARIABLE) {
        return placed(VARIABLE, &text);
    }
    let login = ["LOGNAME", "USER", "USERNAME"].into_iter().find_map(variable).or_else(of_process);
    // A login that cannot be a name is nobody's fault: then commits carry none.
    Ok(login.and_then(|login| login.parse().ok()))
}

/// The name of the user that this process runs as, where no variable says it, as in containers.
#[cfg(target_os = "linux")]
fn of_process() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let uid = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    // name:password:uid:…
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

#[cfg(not(target_os = "linux"))]
fn of_process() -> Option<String> {
    None
}
