//! What the read-only views of a catalog must show: what the contract's reads show.
//!
//! A test of a backend asks each view of [`VIEWS`] for its columns, each as text, and hands the rows to
//! [`compare`].

use std::collections::BTreeMap;

use deltalakedb_catalog_core::backend::{CatalogBackend, CommitFilter, TableFilter};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{Snapshot, TableRecord, TableState};
use serde_json::Value;

/// Names of the views without prefix, and their columns.
pub const VIEWS: [(&str, &[&str]); 4] = [
    (
        "v_tables",
        &[
            "table_id",
            "namespace",
            "table_name",
            "state",
            "location",
            "version",
            "committed_at",
            "committed_at_ms",
            "num_files",
            "total_bytes",
            "description",
            "partition_columns",
            "properties",
            "min_reader_version",
            "min_writer_version",
            "mirror_mode",
            "published_version",
            "created_at",
            "created_at_ms",
            "dropped_at",
            "dropped_at_ms",
        ],
    ),
    (
        "v_files",
        &[
            "table_id",
            "namespace",
            "table_name",
            "path",
            "size_bytes",
            "num_records",
            "added_version",
            "modified_at",
            "modified_at_ms",
            "partition_values",
            "has_deletion_vector",
            "stats",
        ],
    ),
    (
        "v_commits",
        &[
            "table_id",
            "namespace",
            "table_name",
            "version",
            "committed_at",
            "committed_at_ms",
            "operation",
            "user_name",
            "engine_info",
            "token",
            "num_added_files",
            "num_removed_files",
            "added_bytes",
            "removed_bytes",
            "total_files",
            "total_bytes",
        ],
    ),
    (
        "v_columns",
        &[
            "table_id",
            "namespace",
            "table_name",
            "position",
            "column_name",
            "data_type",
            "is_nullable",
            "is_partition_column",
            "comment",
        ],
    ),
];

/// Statements that each change one row into what another program may have written.
pub const ODD_ROWS: [&str; 9] = [
    "UPDATE dl_files SET stats = 'no JSON' WHERE path = 'complete-0'",
    r#"UPDATE dl_files SET stats = '{"numRecords":"7"}' WHERE path = 'complete-1'"#,
    r#"UPDATE dl_files SET stats = '{"numRecords":7.5}' WHERE path = 'complete-2'"#,
    r#"UPDATE dl_files SET stats = '{"minValues":{"numRecords":3},"numRecords":12}' WHERE path = 'complete-3'"#,
    r#"UPDATE dl_files SET stats = '{"numRecords":-1}' WHERE path = 'diverged-1'"#,
    "UPDATE dl_files SET modification_time = 9223372036854775807 WHERE path = 'due-0'",
    "UPDATE dl_files SET modification_time = -1 WHERE path = 'due-1'",
    "UPDATE dl_files SET modification_time = -62135596800000 WHERE path = 'due-2'",
    "UPDATE dl_files SET modification_time = 253402300799999 WHERE path = 'diverged-0'",
];

/// Rows are read this many at a time.
const PAGE: usize = 500;

/// A row of a view, each column as text.
pub type Row = Vec<Option<String>>;

/// Compares what a database's views show with what its reads show; `shown` has the rows of each view.
///
/// # Errors
/// Those of the backend; `Corrupt` with the first rows that differ.
pub async fn compare(db: &dyn CatalogBackend, shown: &BTreeMap<String, Vec<Row>>) -> Result<()> {
    let expected = expected(db).await?;
    for (view, columns) in VIEWS {
        let (want, got) = (expected.get(view), shown.get(view));
        let plain = |rows: Option<&Vec<Row>>| {
            let rows = rows.map(Vec::as_slice).unwrap_or_default();
            let mut rows: Vec<Vec<String>> = rows
                .iter()
                .map(|row| {
                    columns
                        .iter()
                        .zip(row)
                        .map(|(name, value)| normal(name, value.as_deref()))
                        .collect()
                })
                .collect();
            rows.sort();
            rows
        };
        let (want, got) = (plain(want), plain(got));
        if want.is_empty() {
            return Err(CatalogError::corrupt(format!("{view}: nothing to compare")));
        }
        if let Some((want, got)) = want.iter().zip(&got).find(|(want, got)| want != got) {
            return Err(CatalogError::corrupt(format!(
                "{view} shows {got:#?}, the reads {want:#?}"
            )));
        }
        if want.len() != got.len() {
            let (shown, read) = (got.len(), want.len());
            return Err(CatalogError::corrupt(format!(
                "{view} shows {shown} rows, the reads {read}"
            )));
        }
    }
    Ok(())
}

/// The same for all databases: they write JSON, times and truth values in their own ways.
fn normal(column: &str, value: Option<&str>) -> String {
    let Some(text) = value else { return "null".to_owned() };
    if column.ends_with("_at") {
        // To the millisecond, whatever stands after.
        let text = text.replace(' ', "T");
        let (seconds, rest) = text.split_once('.').unwrap_or((text.trim_end_matches('Z'), ""));
        let digits: String =
            rest.chars().take_while(char::is_ascii_digit).chain("000".chars()).collect();
        return format!("{seconds}.{}", digits.get(..3).unwrap_or_default());
    }
    if column.starts_with("is_") || column.starts_with("has_") {
        return matches!(text, "1" | "t" | "true").to_string();
    }
    if ["partition_columns", "properties", "data_type"].contains(&column)
        && let Ok(json) = serde_json::from_str::<Value>(text)
    {
        return json.to_string();
    }
    text.to_owned()
}

async fn tables(db: &dyn CatalogBackend, state: TableState) -> Result<Vec<TableRecord>> {
    let filter = TableFilter { namespace: None, state: Some(state) };
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = db.list_tables(&filter, after.as_ref(), PAGE).await?;
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

async fn expected(db: &dyn CatalogBackend) -> Result<BTreeMap<&'static str, Vec<Row>>> {
    let mut rows: BTreeMap<&'static str, Vec<Row>> = BTreeMap::new();
    for state in [TableState::Active, TableState::Dropped] {
        for table in tables(db, state).await? {
            let snapshot = db.snapshot(&TableRef::Id(table.id), At::Head).await?;
            let named = |more: Row| [names(&table), more].concat();
            rows.entry("v_tables").or_default().push(named(of_table(&table, &snapshot)));
            for commit in commits(db, &table).await? {
                rows.entry("v_commits").or_default().push(named(commit));
            }
            if state == TableState::Active {
                for file in files(db, &table, snapshot.version).await? {
                    rows.entry("v_files").or_default().push(named(file));
                }
                for column in columns(&snapshot)? {
                    rows.entry("v_columns").or_default().push(named(column));
                }
            }
        }
    }
    Ok(rows)
}

#[allow(clippy::unnecessary_wraps, reason = "it is a column of a row")]
fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

fn names(table: &TableRecord) -> Row {
    vec![text(table.id), text(table.name.namespace()), text(table.name.name())]
}

/// A time as RFC 3339 has it; by the rule of <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
fn time(time: TimestampMs) -> Option<String> {
    if !(-62_135_596_800_000..=253_402_300_799_999).contains(&time.0) {
        return None;
    }
    let (days, ms) = (time.0.div_euclid(86_400_000), time.0.rem_euclid(86_400_000));
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    text(format!(
        "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z",
        ms % 1_000
    ))
}

fn of_table(table: &TableRecord, snapshot: &Snapshot) -> Row {
    let state = match table.state {
        TableState::Active => "active",
        TableState::Importing => "importing",
        TableState::Dropped => "dropped",
    };
    let metadata = &snapshot.metadata;
    let json = |value: std::result::Result<String, serde_json::Error>| value.ok();
    vec![
        text(state),
        text(&table.location),
        table.head.map(|v| v.to_string()),
        table.head_timestamp.and_then(time),
        table.head_timestamp.map(|t| t.0.to_string()),
        text(snapshot.num_files),
        text(snapshot.size_bytes),
        metadata.description.clone(),
        json(serde_json::to_string(&metadata.partition_columns)),
        json(serde_json::to_string(&metadata.configuration)),
        text(snapshot.protocol.min_reader_version),
        text(snapshot.protocol.min_writer_version),
        text(table.mirror.as_str()),
        table.published_version.map(|v| v.to_string()),
        time(table.created_at),
        text(table.created_at.0),
        table.dropped_at.and_then(time),
        table.dropped_at.map(|t| t.0.to_string()),
    ]
}

async fn files(db: &dyn CatalogBackend, table: &TableRecord, version: Version) -> Result<Vec<Row>> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = db.list_files(table.id, version, after, PAGE).await?;
        for file in page.items {
            let add = &file.add;
            let stats = add.stats.as_deref().and_then(|s| serde_json::from_str::<Value>(s).ok());
            let records = stats.as_ref().and_then(|s| s.get("numRecords")?.as_i64());
            let values = (!add.partition_values.is_empty())
                .then(|| serde_json::to_string(&add.partition_values).unwrap_or_default());
            rows.push(vec![
                text(&add.path),
                text(add.size),
                records.map(|n| n.to_string()),
                text(file.cursor.added_version),
                time(TimestampMs(add.modification_time)),
                text(add.modification_time),
                values,
                text(add.deletion_vector.is_some()),
                add.stats.clone(),
            ]);
        }
        after = page.next;
        if after.is_none() {
            return Ok(rows);
        }
    }
}

async fn commits(db: &dyn CatalogBackend, table: &TableRecord) -> Result<Vec<Row>> {
    let (mut rows, mut before) = (Vec::new(), None);
    loop {
        let page = db.list_commits(table.id, &CommitFilter::default(), before, PAGE).await?;
        for commit in page.items {
            let info = commit.commit_info.as_deref();
            let info = info.and_then(|info| serde_json::from_str::<Value>(info).ok());
            let said = |key: &str| Some(info.as_ref()?.get(key)?.as_str()?.to_owned());
            rows.push(vec![
                text(commit.version),
                time(commit.timestamp),
                text(commit.timestamp.0),
                said("operation"),
                said("userName"),
                said("engineInfo"),
                commit.token.as_ref().map(ToString::to_string),
                text(commit.num_added),
                text(commit.num_removed),
                text(commit.bytes_added),
                text(commit.bytes_removed),
                text(commit.total_files),
                text(commit.total_bytes),
            ]);
        }
        before = page.next;
        if before.is_none() {
            return Ok(rows);
        }
    }
}

fn columns(snapshot: &Snapshot) -> Result<Vec<Row>> {
    let metadata = &snapshot.metadata;
    if metadata.schema_string.is_empty() {
        return Ok(Vec::new());
    }
    let schema: Value = serde_json::from_str(&metadata.schema_string)
        .map_err(|e| CatalogError::corrupt(format!("schema: {e}")))?;
    let fields = schema.get("fields").and_then(Value::as_array).map(Vec::as_slice);
    let row = |(n, field): (usize, &Value)| {
        let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
        let of_type = match field.get("type") {
            Some(Value::String(simple)) => Some(simple.clone()),
            other => other.map(ToString::to_string),
        };
        let comment = field.get("metadata").and_then(|m| m.get("comment")).and_then(Value::as_str);
        vec![
            text(n + 1),
            text(name),
            of_type,
            field.get("nullable").map(ToString::to_string),
            text(metadata.partition_columns.iter().any(|c| c == name)),
            comment.map(str::to_owned),
        ]
    };
    Ok(fields.unwrap_or_default().iter().enumerate().map(row).collect())
}
