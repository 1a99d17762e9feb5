//! Views for people who read the catalog with other tools. Their names and columns are the same on every
//! database, and stay as they are; our tables may change with the next version.
//!
//! What other programs wrote into statistics and commits may be no JSON: then these columns are null.

use deltalakedb_catalog_core::error::Result;

use crate::options::SqliteOptions;
use crate::rows::text::fill;

/// Names, without prefix, and queries. `{utc:X}` is a time of X milliseconds as text.
const VIEWS: [(&str, &str); 4] = [
    (
        "v_tables",
        "SELECT t.id AS table_id, t.namespace, t.name AS table_name, t.state, t.location,
    t.head_version AS version,
    {utc:t.head_timestamp_ms} AS committed_at, t.head_timestamp_ms AS committed_at_ms,
    c.total_files AS num_files, c.total_bytes,
    json_extract(m.metadata, '$.description') AS description,
    json_extract(m.metadata, '$.partitionColumns') AS partition_columns,
    json_extract(m.metadata, '$.configuration') AS properties,
    json_extract(p.protocol, '$.minReaderVersion') AS min_reader_version,
    json_extract(p.protocol, '$.minWriterVersion') AS min_writer_version,
    r.mode AS mirror_mode, r.published_version,
    {utc:t.created_at_ms} AS created_at, t.created_at_ms,
    {utc:t.dropped_at_ms} AS dropped_at, t.dropped_at_ms
FROM {p}tables t
LEFT JOIN {p}commits c ON c.table_key = t.table_key AND c.version = t.head_version
LEFT JOIN {p}metadata m ON m.table_key = t.table_key AND m.version =
    (SELECT max(n.version) FROM {p}metadata n WHERE n.table_key = t.table_key AND n.version <= t.head_version)
LEFT JOIN {p}protocols p ON p.table_key = t.table_key AND p.version =
    (SELECT max(n.version) FROM {p}protocols n WHERE n.table_key = t.table_key AND n.version <= t.head_version)
LEFT JOIN {p}mirror r ON r.table_key = t.table_key
WHERE t.state <> 'importing'",
    ),
    (
        "v_files",
        "SELECT t.id AS table_id, t.namespace, t.name AS table_name, f.path, f.size AS size_bytes,
    CASE WHEN json_valid(f.stats) THEN CASE WHEN json_type(f.stats, '$.numRecords') = 'integer'
        THEN json_extract(f.stats, '$.numRecords') END END AS num_records,
    f.added_version,
    {utc:f.modification_time} AS modified_at, f.modification_time AS modified_at_ms,
    f.partition_values, f.deletion_vector IS NOT NULL AS has_deletion_vector, f.stats
FROM {p}tables t
JOIN {p}files f ON f.table_key = t.table_key AND f.removed_version = 9223372036854775807
WHERE t.state = 'active'",
    ),
    (
        "v_commits",
        "SELECT s.table_id, s.namespace, s.table_name, s.version,
    {utc:s.committed_at_ms} AS committed_at, s.committed_at_ms,
    json_extract(s.info, '$.operation') AS operation,
    json_extract(s.info, '$.userName') AS user_name,
    json_extract(s.info, '$.engineInfo') AS engine_info,
    s.token, s.num_added_files, s.num_removed_files, s.added_bytes, s.removed_bytes, s.total_files, s.total_bytes
FROM (SELECT t.id AS table_id, t.namespace, t.name AS table_name, c.version, c.timestamp_ms AS committed_at_ms,
        CASE WHEN json_valid(c.commit_info) THEN c.commit_info
            WHEN json_valid(c.first_line) THEN json_extract(c.first_line, '$.commitInfo') END AS info,
        c.token, c.num_added AS num_added_files, c.num_removed AS num_removed_files,
        c.bytes_added AS added_bytes, c.bytes_removed AS removed_bytes, c.total_files, c.total_bytes
    FROM {p}tables t JOIN {p}commits c ON c.table_key = t.table_key
    WHERE t.state <> 'importing') s",
    ),
    (
        "v_columns",
        "SELECT t.id AS table_id, t.namespace, t.name AS table_name, f.key + 1 AS position,
    json_extract(f.value, '$.name') AS column_name,
    json_extract(f.value, '$.type') AS data_type,
    json_extract(f.value, '$.nullable') AS is_nullable,
    EXISTS (SELECT 1 FROM json_each(m.metadata, '$.partitionColumns') c
        WHERE c.value = json_extract(f.value, '$.name')) AS is_partition_column,
    json_extract(f.value, '$.metadata.comment') AS comment
FROM {p}tables t
JOIN {p}metadata m ON m.table_key = t.table_key AND m.version =
    (SELECT max(n.version) FROM {p}metadata n WHERE n.table_key = t.table_key AND n.version <= t.head_version)
JOIN json_each(CASE WHEN json_valid(json_extract(m.metadata, '$.schemaString'))
    THEN json_extract(m.metadata, '$.schemaString') END, '$.fields') f
WHERE t.state = 'active'",
    ),
];

/// Statements that make the views, or make them anew.
///
/// # Errors
/// `InvalidInput` for options that are not well formed.
pub fn views(options: &SqliteOptions) -> Result<Vec<String>> {
    let mut statements = drop_views(options)?;
    for (name, query) in VIEWS {
        let query = with_times(query);
        statements
            .push(fill(&format!("CREATE VIEW {{p}}{name} AS\n{query};"), &options.table_prefix));
    }
    Ok(statements)
}

/// Statements that drop the views.
///
/// # Errors
/// As of [`views`].
pub fn drop_views(options: &SqliteOptions) -> Result<Vec<String>> {
    options.validate()?;
    let drop = |(name, _): &(&str, &str)| {
        fill(&format!("DROP VIEW IF EXISTS {{p}}{name};"), &options.table_prefix)
    };
    Ok(VIEWS.iter().map(drop).collect())
}

/// Times are in UTC, exact to the millisecond. What lies outside of the years 1 to 9999 has none.
fn with_times(query: &str) -> String {
    let mut sql = String::new();
    let mut rest = query;
    while let Some((before, after)) = rest.split_once("{utc:") {
        let (ms, after) = after.split_once('}').unwrap_or((after, ""));
        sql.push_str(before);
        sql.push_str(&UTC.replace("{ms}", ms));
        rest = after;
    }
    sql + rest
}

const UTC: &str = "CASE WHEN {ms} BETWEEN -62135596800000 AND 253402300799999 THEN
        strftime('%Y-%m-%dT%H:%M:%S', ({ms} - (({ms} % 1000) + 1000) % 1000) / 1000, 'unixepoch')
        || printf('.%03dZ', (({ms} % 1000) + 1000) % 1000) END";
