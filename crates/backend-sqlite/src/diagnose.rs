//! The file of a catalog: its state, its folder, its file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use deltalakedb_catalog_core::diagnosis::{Diagnosis, Level};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use rusqlite::{Connection, OpenFlags};

use crate::options::SqliteOptions;

/// Pause between two interrupts of a check that took too long.
const AGAIN: Duration = Duration::from_millis(5);
/// A log of this size is not copied back for some reason, bytes.
const LARGE_WAL: u64 = 256 << 20;
/// Free pages that are worth a word, bytes.
const MUCH_FREE: u64 = 100 << 20;
/// File systems without the shared memory that WAL needs.
const NETWORK: &[&str] =
    &["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs"];

/// Looks at a catalog's file, on a connection of its own that writes nothing. Its pages are checked for as long
/// as `limit`. Blocks.
///
/// # Errors
/// `Unavailable` if the file cannot be opened.
pub fn diagnose(options: &SqliteOptions, limit: Duration) -> Result<Vec<Diagnosis>> {
    options.validate()?;
    let path = &options.path;
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        let text = format!("cannot {what} '{}': {e}", path.display());
        CatalogError::failed(text, WriteState::NotApplied)
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(|e| failed("open", &e))?;
    db.busy_timeout(Duration::from_millis(options.busy_timeout_ms.into()))
        .map_err(|e| failed("open", &e))?;
    let number = |name: &str| -> Result<u64> {
        db.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map(|value| u64::try_from(value).unwrap_or(0))
            .map_err(|e| failed("read", &e))
    };
    let mode: String = db
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .map_err(|e| failed("read", &e))?;
    let mut found = vec![journal(&mode)];
    // A setting of each connection; every one of this program's has it.
    found.push(Diagnosis::ok("synchronous", "FULL: what is acknowledged is on disk"));
    let (pages, free, page) =
        (number("page_count")?, number("freelist_count")?, number("page_size")?);
    found.push(Diagnosis::ok("size", format!("{} MiB", (pages * page) >> 20)));
    found.extend(space(pages * page, free * page));
    let mut wal = path.clone().into_os_string();
    wal.push("-wal");
    found.extend(log(fs::metadata(PathBuf::from(wal)).map_or(0, |file| file.len())));
    found.extend(permissions(path));
    found.push(file_system(path));
    found.push(pages_of(&db, limit));
    Ok(found)
}

fn journal(mode: &str) -> Diagnosis {
    if mode.eq_ignore_ascii_case("wal") {
        return Diagnosis::ok("journal_mode", mode);
    }
    Diagnosis::new(
        Level::Warning,
        "journal_mode",
        mode,
        "readers and writers wait for each other",
        "any command that commits turns WAL on again, if the file system allows it",
    )
}

fn space(all: u64, free: u64) -> Option<Diagnosis> {
    (free > MUCH_FREE && free > all / 2).then(|| {
        Diagnosis::new(
            Level::Note,
            "free pages",
            format!("{} MiB of {} MiB", free >> 20, all >> 20),
            "the file is larger than what is in it; new rows use the space",
            "`VACUUM` makes it small again, while nobody commits",
        )
    })
}

fn log(bytes: u64) -> Option<Diagnosis> {
    (bytes > LARGE_WAL).then(|| {
        Diagnosis::new(
            Level::Warning,
            "log (-wal)",
            format!("{} MiB", bytes >> 20),
            "it grows as long as some reader keeps an old state, and reads get slow",
            "look for a program that keeps a read open; the next commit after it shrinks the log",
        )
    })
}

fn permissions(path: &Path) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for (what, place) in [("file", path), ("folder", folder)] {
        let Ok(data) = fs::metadata(place) else { continue };
        if data.permissions().readonly() {
            found.push(Diagnosis::new(
                Level::Warning,
                format!("permissions of the {what}"),
                "nobody may write",
                "commits, and readers' shared memory, need to write to the file and its folder",
                format!(
                    "give the users of the catalog the right to write to '{}'",
                    place.display()
                ),
            ));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = data.permissions().mode();
            // A sticky folder lets everyone make files, and only their owners delete them.
            if mode & 0o002 != 0 && mode & 0o1000 == 0 {
                found.push(Diagnosis::new(
                    Level::Warning,
                    format!("permissions of the {what}"),
                    format!("{:o}: everyone may write", mode & 0o7777),
                    "every user of this machine can change or delete the catalog",
                    format!("chmod o-w '{}'", place.display()),
                ));
            }
        }
    }
    found
}

fn file_system(path: &Path) -> Diagnosis {
    let Ok(real) = path.canonicalize() else {
        return Diagnosis::ok("file system", "not known");
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let kind = kind_of_mount(&mounts, &real);
    match kind {
        Some(kind) if NETWORK.contains(&kind.as_str()) => Diagnosis::new(
            Level::Error,
            "file system",
            kind,
            "SQLite's log needs shared memory, which a network file system does not have: commits of \
             two machines corrupt the catalog",
            "put the catalog on a local disk, or use a database server",
        ),
        Some(kind) => Diagnosis::ok("file system", kind),
        None => Diagnosis::ok("file system", "not known"),
    }
}

/// The kind of the file system that a path is on: that of the longest mount point above it.
fn kind_of_mount(mounts: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        // `36 35 98:0 /root /mount/point options - type source …`
        let Some((before, behind)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(kind)) = (before.split(' ').nth(4), behind.split(' ').next()) else {
            continue;
        };
        let point = point.replace("\\040", " ");
        let length = point.len();
        if path.starts_with(&point) && best.as_ref().is_none_or(|(most, _)| length >= *most) {
            best = Some((length, kind.to_owned()));
        }
    }
    best.map(|(_, kind)| kind)
}

fn pages_of(db: &Connection, limit: Duration) -> Diagnosis {
    let handle = db.get_interrupt_handle();
    let (done, ended) = mpsc::channel::<()>();
    // SQLite forgets an interrupt that comes before a statement begins: so it is told more than once.
    let watch = thread::Builder::new().name("dl-sqlite-check".to_owned()).spawn(move || {
        let mut wait = limit;
        while matches!(ended.recv_timeout(wait), Err(mpsc::RecvTimeoutError::Timeout)) {
            handle.interrupt();
            wait = AGAIN;
        }
    });
    let Ok(watch) = watch else {
        return Diagnosis::new(
            Level::Note,
            "pages",
            "not checked",
            "no thread could be started",
            "",
        );
    };
    let answer = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    drop(done);
    let _ = watch.join();
    match answer {
        Ok(text) if text == "ok" => Diagnosis::ok("pages", "quick_check finds them sound"),
        Ok(text) => Diagnosis::new(
            Level::Error,
            "pages",
            text,
            "the file is damaged: reads may fail or be wrong",
            "stop all programs, keep a copy, and restore a backup; `dl rebuild` makes a catalog from \
             published logs",
        ),
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) =>
        {
            Diagnosis::new(
                Level::Note,
                "pages",
                format!("not all were checked within {} s", limit.as_secs()),
                "a larger catalog takes longer",
                "--deadline gives it more time",
            )
        }
        Err(error) => Diagnosis::new(
            Level::Error,
            "pages",
            error.to_string(),
            "the file cannot be read as a whole",
            "stop all programs, keep a copy, and restore a backup",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      40 22 0:50 / /lake rw shared:1 - nfs4 host:/x rw\n\
                      41 40 0:51 / /lake/my\\040disk rw - xfs /dev/sdb rw\n";
        for (path, kind) in [
            ("/home/c.db", "ext4"),
            ("/lake/c.db", "nfs4"),
            ("/lake/my disk/c.db", "xfs"),
            ("/lakes/c.db", "ext4"),
        ] {
            assert_eq!(kind_of_mount(mounts, Path::new(path)).as_deref(), Some(kind), "{path}");
        }
        assert_eq!(kind_of_mount("", Path::new("/x")), None);
    }

    #[test]
    fn a_sound_file_and_a_damaged_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.db");
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "journal_mode", "wal").unwrap();
        db.execute_batch(
            "CREATE TABLE t (x TEXT); CREATE INDEX i ON t (x);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO t SELECT hex(randomblob(50)) FROM n;",
        )
        .unwrap();
        db.close().unwrap();
        let options = SqliteOptions::new(&path);
        let worst = |limit: Duration| {
            let found = diagnose(&options, limit).unwrap();
            found.into_iter().max_by_key(|d| d.level).unwrap()
        };
        assert_eq!(worst(Duration::from_secs(60)).level, Level::Ok);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0xff);
        fs::write(&path, bytes).unwrap();
        let damaged = worst(Duration::from_secs(60));
        assert_eq!((damaged.level, damaged.what.as_str()), (Level::Error, "pages"));
        assert!(
            diagnose(&SqliteOptions::new(folder.path().join("none.db")), Duration::ZERO).is_err()
        );
    }
}
