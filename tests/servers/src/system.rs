//! What only Unix can do. Elsewhere no server is started (see [`crate::account`]); the proxy and
//! servers given by URL work everywhere.

#[cfg(unix)]
mod calls {
    use std::io::Result;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;

    /// Number of the user that we are.
    pub(crate) fn user() -> Result<u32> {
        Ok(std::fs::metadata("/proc/self")?.uid())
    }

    /// Changes user and group of a file or folder.
    pub(crate) fn give(path: &Path, user: u32, group: u32) -> Result<()> {
        chown(path, Some(user), Some(group))
    }

    /// Sets the permissions of a file or folder.
    pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }

    /// Lets a command run as another user. The standard library drops supplementary groups then.
    pub(crate) fn run_as(command: &mut Command, user: u32, group: u32) {
        command.uid(user).gid(group);
    }

    /// Lets a command lead a process group: Ctrl-C in the terminal is not for it.
    pub(crate) fn own_group(command: &mut Command) {
        command.process_group(0);
    }

    /// Whether somebody listens on this socket.
    pub(crate) fn listens(socket: &Path) -> bool {
        UnixStream::connect(socket).is_ok()
    }
}

#[cfg(not(unix))]
mod calls {
    use std::io::{Error, ErrorKind, Result};
    use std::path::Path;
    use std::process::Command;

    pub(crate) fn user() -> Result<u32> {
        Err(Error::from(ErrorKind::Unsupported))
    }

    pub(crate) fn give(_path: &Path, _user: u32, _group: u32) -> Result<()> {
        Err(Error::from(ErrorKind::Unsupported))
    }

    pub(crate) fn set_mode(_path: &Path, _mode: u32) -> Result<()> {
        Ok(())
    }

    pub(crate) fn run_as(_command: &mut Command, _user: u32, _group: u32) {}

    pub(crate) fn own_group(_command: &mut Command) {}

    pub(crate) fn listens(_socket: &Path) -> bool {
        false
    }
}

pub(crate) use calls::{give, listens, own_group, run_as, set_mode, user};
