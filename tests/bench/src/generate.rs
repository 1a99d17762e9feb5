//! The table that is measured: one partition column and statistics of five columns.

use std::fmt::Write as _;
use std::path::Path;

use crate::AnyError;

/// Files of one partition. They are spread over the whole table.
pub(crate) const FILES_PER_DAY: u64 = 10;
/// Rows of a file; its ids follow on those of the file before.
const ROWS: u64 = 1_000;

/// What is looked for in a table of so many files: ten of them each.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// One partition.
    pub(crate) day: String,
    /// Ids of ten files that were written one after the other.
    pub(crate) ids: (u64, u64),
}

impl Probe {
    pub(crate) fn of(files: u64) -> Probe {
        let first = files / 2;
        let ids = (first * ROWS, (first + FILES_PER_DAY) * ROWS - 1);
        Probe { day: day(files, files / 3), ids }
    }
}

/// Partition of the n-th of so many files.
fn day(files: u64, n: u64) -> String {
    let index = i64::try_from(n % (files / FILES_PER_DAY).max(1)).unwrap_or(0);
    let first = chrono::NaiveDate::from_ymd_opt(2000, 1, 1).unwrap_or_default();
    (first + chrono::Duration::days(index)).to_string()
}

/// Writes `<dir>/_delta_log/` with one commit a file and no checkpoint. There are no data files:
/// only the log is measured.
pub(crate) fn table(dir: &Path, commits: u64, files_per_commit: u64) -> Result<(), AnyError> {
    let log = dir.join("_delta_log");
    std::fs::create_dir_all(&log)?;
    let field = |name: &str, kind: &str| serde_json::json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
    let schema = serde_json::json!({"type": "struct", "fields": [
        field("id", "long"), field("amount", "double"), field("name", "string"),
        field("at", "timestamp"), field("flag", "integer"), field("day", "date")]});
    for commit in 0..commits {
        let mut text = String::new();
        let time = 1_700_000_000_000 + commit * 1_000;
        writeln!(
            text,
            "{}",
            serde_json::json!({"commitInfo": {
            "timestamp": time, "operation": "WRITE", "operationParameters": {"mode": "Append"},
            "isBlindAppend": true, "engineInfo": "bench"}})
        )?;
        if commit == 0 {
            writeln!(
                text,
                "{}",
                serde_json::json!({"protocol": {
                "minReaderVersion": 1, "minWriterVersion": 2}})
            )?;
            writeln!(
                text,
                "{}",
                serde_json::json!({"metaData": {
                "id": "bench", "format": {"provider": "parquet", "options": {}},
                "schemaString": schema.to_string(), "partitionColumns": ["day"],
                "configuration": {}, "createdTime": time}})
            )?;
        }
        for file in 0..files_per_commit {
            let n = commit * files_per_commit + file;
            let day = day(commits * files_per_commit, n);
            let stats = serde_json::json!({
                "numRecords": ROWS,
                "minValues": {"id": n * ROWS, "amount": 0.5, "name": format!("a{n}"),
                    "at": "2024-01-01T00:00:00.000Z", "flag": 0},
                "maxValues": {"id": n * ROWS + ROWS - 1, "amount": 99.5, "name": format!("z{n}"),
                    "at": "2024-12-31T23:59:59.999Z", "flag": 9},
                "nullCount": {"id": 0, "amount": 1, "name": 2, "at": 3, "flag": 4}});
            writeln!(
                text,
                "{}",
                serde_json::json!({"add": {
                "path": format!("day={day}/part-{n:08}-5d2b4bd2-0a5e-4f1c-9c52-1d5d3f6a7b8c.c000.snappy.parquet"),
                "partitionValues": {"day": day}, "size": 100_000 + n, "modificationTime": time,
                "dataChange": true, "stats": stats.to_string()}})
            )?;
        }
        std::fs::write(log.join(format!("{commit:020}.json")), text)?;
    }
    Ok(())
}

/// Size of the JSON log.
pub(crate) fn log_bytes(dir: &Path) -> Result<u64, AnyError> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir.join("_delta_log"))? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}
