//! The folder that a server lives in.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::account::Account;
use crate::{process, system};

/// Where servers live: `servers` in cargo's target folder.
///
/// # Errors
/// If neither `CARGO_TARGET_DIR` nor the place of this crate says where that is.
pub fn home() -> Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(given) if !given.is_empty() => PathBuf::from(given),
        _ => Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("this crate is not in a workspace")?
            .join("target"),
    };
    std::path::absolute(target.join("servers")).context("cannot find the target folder")
}

/// Where those live that cannot live in [`home`].
fn temporary() -> PathBuf {
    // Each user has one: nobody can write into that of another.
    let user = system::user().unwrap_or_default();
    std::env::temp_dir().join(format!("deltalakedb-servers-{user}"))
}

/// The folders of the servers that a process has started, as long as they exist.
///
/// # Errors
/// As [`home`].
pub fn folders_of(pid: u32) -> Result<Vec<PathBuf>> {
    let mark = format!("-{pid}-");
    let entries = [home()?, temporary()].into_iter().flat_map(std::fs::read_dir).flatten();
    let named = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().contains(&mark);
    Ok(entries.flatten().filter(named).map(|e| e.path()).collect())
}

/// A folder that goes when it is dropped. Its name says who made it, so that the next run removes
/// what a killed one left.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    account: Account,
}

impl Folder {
    /// Makes a new, empty folder that belongs to the account: under [`home`], or, where that is
    /// closed to the account (a workspace in somebody's private home), under the temporary folder.
    pub(crate) fn make(kind: &str, account: Account) -> Result<Folder> {
        Folder::under(&home()?, kind, account)
            .or_else(|_| Folder::under(&temporary(), kind, account))
    }

    /// The same under the temporary folder, for a path that must be short.
    pub(crate) fn make_short(kind: &str, account: Account) -> Result<Folder> {
        Folder::under(&temporary(), kind, account)
    }

    fn under(base: &Path, kind: &str, account: Account) -> Result<Folder> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        open_base(base)?;
        sweep(&home()?);
        sweep(&temporary());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("{kind}.{}.{number}", Owner::us()?));
        std::fs::create_dir(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        // Links resolved: processes are found by the folder they work in.
        let path = path.canonicalize().with_context(|| format!("no folder {}", path.display()))?;
        let folder = Folder { path, account };
        folder.private(&folder.path, 0o700)?;
        if !account.can_use(&folder.path) {
            bail!("the account of the server cannot reach {}", folder.path.display());
        }
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn account(&self) -> Account {
        self.account
    }

    /// Writes a file that only the server may read.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.join(name);
        std::fs::write(&path, contents)
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.private(&path, 0o600)?;
        Ok(path)
    }

    /// Makes a folder in this one.
    pub(crate) fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        self.private(&path, 0o700)?;
        Ok(path)
    }

    fn private(&self, path: &Path, mode: u32) -> Result<()> {
        system::set_mode(path, mode)
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        self.account.give(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        process::remove(&self.path);
    }
}

/// Makes the folder of all servers, which any account may pass through, whatever the umask is.
fn open_base(base: &Path) -> Result<()> {
    if !base.is_dir() {
        std::fs::create_dir_all(base)
            .and_then(|()| system::set_mode(base, 0o755))
            .with_context(|| format!("cannot make the folder {}", base.display()))?;
    }
    Ok(())
}

/// Removes what dead processes have left under `base`.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(|n| n.split('.').nth(1)) else { continue };
        if Owner::parse(owner).is_some_and(|o| o.is_dead())
            && let Ok(path) = entry.path().canonicalize()
        {
            process::remove(&path);
        }
    }
}

/// A process, so named that no other has the same name, also after its number is given again.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    /// Inode of the namespace that the number is of: a folder may be seen from several containers.
    namespace: String,
    pid: u32,
    /// Clock ticks between the start of the system and that of the process.
    started: u64,
}

impl Owner {
    fn us() -> Result<Owner> {
        let pid = std::process::id();
        let started = process::started(pid).context("cannot read /proc/self/stat")?;
        Ok(Owner { namespace: namespace(), pid, started })
    }

    fn parse(text: &str) -> Option<Owner> {
        let mut parts = text.split('-');
        let owner = Owner {
            namespace: parts.next()?.to_owned(),
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(owner)
    }

    fn is_dead(&self) -> bool {
        self.namespace == namespace() && process::started(self.pid) != Some(self.started)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.namespace, self.pid, self.started)
    }
}

/// `pid:[4026531836]` without what is always the same.
fn namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_dead_process_is_swept_and_that_of_a_living_one_is_not() {
        let base = tempfile::tempdir().unwrap();
        let us = Owner::us().unwrap();
        assert_eq!(Owner::parse(&us.to_string()).unwrap(), us);
        let dead = Owner { started: us.started + 1, ..Owner::us().unwrap() };
        let elsewhere = Owner { namespace: "1".to_owned(), ..Owner::us().unwrap() };
        let names = [format!("pg.{us}.0"), format!("pg.{elsewhere}.0"), "dev".to_owned()];
        let stale = base.path().join(format!("pg.{dead}.0"));
        for folder in names.iter().map(|n| base.path().join(n)).chain([stale.clone()]) {
            std::fs::create_dir(folder).unwrap();
        }
        sweep(base.path());
        assert!(!stale.exists());
        assert!(names.iter().all(|n| base.path().join(n).exists()));
    }
}
