//! What a catalog's file likes to have done now and then, while others read and write.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use deltalakedb_catalog_core::diagnosis::Tended;
use deltalakedb_catalog_core::error::{Result, WriteState};
use rusqlite::{Connection, OpenFlags};

use crate::errors::classify;
use crate::options::SqliteOptions;

/// Pause between two interrupts of what took too long.
const AGAIN: Duration = Duration::from_millis(5);
/// Free pages that are worth a word, bytes.
const MUCH_FREE: i64 = 100 << 20;

/// Copies the log of a catalog's file back into it, on a connection of its own, for as long as `limit`. With `dry_run`
/// nothing is written. Blocks.
///
/// The file is not made smaller: that would stop those who commit. No statistics are made: our statements have the
/// right plans without them, and statistics of a catalog with few tables let SQLite scan them, also when there
/// are many by then.
///
/// # Errors
/// `Unavailable` if the file cannot be opened or written, `Busy` while another program holds it.
pub fn tend(options: &SqliteOptions, limit: Duration, dry_run: bool) -> Result<Tended> {
    options.validate()?;
    let path = &options.path;
    let failed =
        |doing: &str, e: &rusqlite::Error| classify(e, path, doing, WriteState::NotApplied);
    let access =
        if dry_run { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    let db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|e| failed("opening the catalog", &e))?;
    db.busy_timeout(Duration::from_millis(options.busy_timeout_ms.into()))
        .map_err(|e| failed("opening the catalog", &e))?;
    let handle = db.get_interrupt_handle();
    let (ended, end) = mpsc::channel::<()>();
    // SQLite forgets an interrupt that comes before a statement begins: so it is told more than once.
    let watch = thread::Builder::new().name("dl-sqlite-tend".to_owned()).spawn(move || {
        let mut wait = limit;
        while matches!(end.recv_timeout(wait), Err(mpsc::RecvTimeoutError::Timeout)) {
            handle.interrupt();
            wait = AGAIN;
        }
    });
    let tended = work(&db, dry_run).map_err(|e| failed("tending the catalog's file", &e));
    drop(ended);
    if let Ok(watch) = watch {
        let _ = watch.join();
    }
    tended
}

fn work(db: &Connection, dry_run: bool) -> rusqlite::Result<Tended> {
    let mut tended = Tended::default();
    if dry_run {
        tended.done.push("PRAGMA wal_checkpoint(PASSIVE)".to_owned());
        return Ok(tended);
    }
    // It waits for nobody, and nobody for it.
    let (log, copied) = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    })?;
    tended.done.push(format!("{copied} of {log} pages of the log are in the file"));
    let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let free = number("freelist_count")?.saturating_mul(number("page_size")?);
    if free > MUCH_FREE {
        tended.left.push(format!(
            "{} MiB of the file are free, and new rows use them; VACUUM makes the file smaller, while nobody \
             commits",
            free >> 20
        ));
    }
    Ok(tended)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, SqliteOptions) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.db");
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "journal_mode", "wal").unwrap();
        db.execute_batch(
            "CREATE TABLE t (x INTEGER); CREATE INDEX i ON t (x);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO t SELECT i FROM n;",
        )
        .unwrap();
        (folder, SqliteOptions::new(path))
    }

    #[test]
    fn the_log_is_copied_while_others_read_and_write() {
        let (_folder, options) = file();
        let limit = Duration::from_secs(30);
        let dry = tend(&options, limit, true).unwrap();
        assert_eq!(dry.done, ["PRAGMA wal_checkpoint(PASSIVE)"]);
        let reader = Connection::open(&options.path).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        let rows: i64 = reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 5_000);
        let writer = Connection::open(&options.path).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
        let real = tend(&options, limit, false).unwrap();
        assert_eq!((real.done.len(), real.left.len()), (1, 0), "{real:?}");
        writer.execute_batch("COMMIT").unwrap();
        let sql = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'sqlite_stat%'";
        let statistics: i64 = writer.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(statistics, 0);
        let none = SqliteOptions::new(options.path.with_extension("none"));
        tend(&none, limit, false).unwrap_err();
        assert!(!none.path.exists(), "no file is made");
    }
}
