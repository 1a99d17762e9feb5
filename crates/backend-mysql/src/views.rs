//! Views for people who read the catalog with other tools. Their names and columns are the same on every
//! database, and stay as they are; our tables may change with the next version.
//!
//! A view is replaced when it is made anew, so rights on it stay. A view reads our tables with the rights of the
//! login that made it: its readers need rights on the view alone.
//!
//! What other programs wrote into statistics and commits may be no JSON, or nested deeper than the server reads
//! (MariaDB: 32 levels): then these columns are null.

use deltalakedb_catalog_core::error::Result;

use crate::options::MySqlOptions;

/// Names, without prefix, and queries. `{utc:X}` is the time of X milliseconds, `{id:X}` an id as text,
/// `{text:DOCUMENT|PATH}` a value of a JSON document, as text, null for none.
const VIEWS: [(&str, &str); 4] = [
    (
        "v_tables",
        "SELECT {id:t.id} AS table_id, t.namespace, t.name AS table_name, t.state, t.location,
    t.head_version AS version,
    {utc:t.head_timestamp_ms} AS committed_at, t.head_timestamp_ms AS committed_at_ms,
    c.total_files AS num_files, c.total_bytes,
    {text:m.metadata|'$.description'} AS description,
    {text:m.metadata|'$.partitionColumns'} AS partition_columns,
    {text:m.metadata|'$.configuration'} AS properties,
    CAST(JSON_EXTRACT(p.protocol, '$.minReaderVersion') AS SIGNED) AS min_reader_version,
    CAST(JSON_EXTRACT(p.protocol, '$.minWriterVersion') AS SIGNED) AS min_writer_version,
    r.mode AS mirror_mode, r.published_version,
    {utc:t.created_at_ms} AS created_at, t.created_at_ms,
    {utc:t.dropped_at_ms} AS dropped_at, t.dropped_at_ms
FROM {p}tables t
LEFT JOIN {p}commits c ON c.table_key = t.table_key AND c.version = t.head_version
LEFT JOIN {p}metadata m ON m.table_key = t.table_key AND m.version =
    (SELECT MAX(n.version) FROM {p}metadata n WHERE n.table_key = t.table_key AND n.version <= t.head_version)
LEFT JOIN {p}protocols p ON p.table_key = t.table_key AND p.version =
    (SELECT MAX(n.version) FROM {p}protocols n WHERE n.table_key = t.table_key AND n.version <= t.head_version)
LEFT JOIN {p}mirror r ON r.table_key = t.table_key
WHERE t.state <> 'importing'",
    ),
    (
        "v_files",
        "SELECT {id:t.id} AS table_id, t.namespace, t.name AS table_name, f.path, f.size AS size_bytes,
    CASE WHEN JSON_VALID(f.stats) AND JSON_TYPE(JSON_EXTRACT(f.stats, '$.numRecords')) LIKE '%INTEGER'
        THEN CAST(JSON_EXTRACT(f.stats, '$.numRecords') AS SIGNED) END AS num_records,
    f.added_version,
    {utc:f.modification_time} AS modified_at, f.modification_time AS modified_at_ms,
    f.partition_values, f.deletion_vector IS NOT NULL AS has_deletion_vector, f.stats
FROM {p}tables t
JOIN {p}files f ON f.table_key = t.table_key AND f.removed_version = 9223372036854775807
WHERE t.state = 'active'",
    ),
    (
        "v_commits",
        "SELECT {id:t.id} AS table_id, t.namespace, t.name AS table_name, c.version,
    {utc:c.timestamp_ms} AS committed_at, c.timestamp_ms AS committed_at_ms,
    COALESCE({text:c.commit_info|'$.operation'}, {text:c.first_line|'$.commitInfo.operation'}) AS operation,
    COALESCE({text:c.commit_info|'$.userName'}, {text:c.first_line|'$.commitInfo.userName'}) AS user_name,
    COALESCE({text:c.commit_info|'$.engineInfo'}, {text:c.first_line|'$.commitInfo.engineInfo'}) AS engine_info,
    c.token, c.num_added AS num_added_files, c.num_removed AS num_removed_files,
    c.bytes_added AS added_bytes, c.bytes_removed AS removed_bytes, c.total_files, c.total_bytes
FROM {p}tables t
JOIN {p}commits c ON c.table_key = t.table_key
WHERE t.state <> 'importing'",
    ),
    (
        "v_columns",
        "SELECT {id:t.id} AS table_id, t.namespace, t.name AS table_name, f.position,
    {text:JSON_UNQUOTE(JSON_EXTRACT(m.metadata, '$.schemaString'))|CONCAT('$.fields[', f.position - 1, '].name')}
        AS column_name,
    {text:JSON_UNQUOTE(JSON_EXTRACT(m.metadata, '$.schemaString'))|CONCAT('$.fields[', f.position - 1, '].type')}
        AS data_type,
    JSON_UNQUOTE(JSON_EXTRACT(JSON_UNQUOTE(JSON_EXTRACT(m.metadata, '$.schemaString')),
        CONCAT('$.fields[', f.position - 1, '].nullable'))) = 'true' AS is_nullable,
    COALESCE(JSON_CONTAINS(JSON_EXTRACT(m.metadata, '$.partitionColumns'),
        JSON_EXTRACT(JSON_UNQUOTE(JSON_EXTRACT(m.metadata, '$.schemaString')),
            CONCAT('$.fields[', f.position - 1, '].name'))), 0) AS is_partition_column,
    {text:JSON_UNQUOTE(JSON_EXTRACT(m.metadata, '$.schemaString'))|CONCAT('$.fields[', f.position - 1, '].metadata.comment')}
        AS comment
FROM {p}tables t
JOIN {p}metadata m ON m.table_key = t.table_key AND m.version =
    (SELECT MAX(n.version) FROM {p}metadata n WHERE n.table_key = t.table_key AND n.version <= t.head_version)
JOIN JSON_TABLE(CASE WHEN JSON_VALID(JSON_UNQUOTE(JSON_EXTRACT(m.metadata, '$.schemaString')))
    THEN JSON_UNQUOTE(JSON_EXTRACT(m.metadata, '$.schemaString')) ELSE '[]' END, '$.fields[*]'
    COLUMNS (position FOR ORDINALITY)) f
WHERE t.state = 'active'",
    ),
];

/// Statements that make the views, or make them anew.
///
/// # Errors
/// `InvalidInput` for options that are not well formed.
pub fn views(options: &MySqlOptions) -> Result<Vec<String>> {
    options.validate()?;
    let make = VIEWS.map(|(name, query)| {
        let sql = format!(
            "CREATE OR REPLACE SQL SECURITY DEFINER VIEW {{p}}{name} AS\n{};",
            written_out(query)
        );
        sql.replace("{p}", &options.table_prefix)
    });
    Ok(make.to_vec())
}

/// Statements that drop the views.
///
/// # Errors
/// As of [`views`].
pub fn drop_views(options: &MySqlOptions) -> Result<Vec<String>> {
    options.validate()?;
    let prefix = &options.table_prefix;
    Ok(VIEWS.iter().map(|(name, _)| format!("DROP VIEW IF EXISTS {prefix}{name};")).collect())
}

/// With expressions in the place of their short forms.
fn written_out(query: &str) -> String {
    let mut sql = String::new();
    let mut rest = query;
    while let Some((before, after)) = rest.split_once('{') {
        sql.push_str(before);
        let (inside, after) = after.split_once('}').unwrap_or((after, ""));
        match inside.split_once(':') {
            Some(("utc", ms)) => sql.push_str(&UTC.replace("$ms", ms)),
            Some(("id", id)) => sql.push_str(&ID.replace("$id", id)),
            Some((_, text)) => {
                let (document, path) = text.split_once('|').unwrap_or((text, "'$'"));
                sql.push_str(&TEXT.replace("$document", document).replace("$path", path));
            }
            None => {
                sql.push('{');
                sql.push_str(inside);
                sql.push('}');
            }
        }
        rest = after;
    }
    sql + rest
}

/// Times are in UTC, exact to the millisecond. What lies outside of the years 1 to 9999 has none.
const UTC: &str = "CASE WHEN $ms BETWEEN -62135596800000 AND 253402300799999
        THEN DATE_ADD(CAST('1970-01-01 00:00:00.000' AS DATETIME(3)), INTERVAL $ms * 1000 MICROSECOND) END";

const ID: &str =
    "LOWER(CONCAT_WS('-', HEX(SUBSTR($id, 1, 4)), HEX(SUBSTR($id, 5, 2)), HEX(SUBSTR($id, 7, 2)),
        HEX(SUBSTR($id, 9, 2)), HEX(SUBSTR($id, 11, 6))))";

const TEXT: &str =
    "CASE WHEN JSON_VALID($document) AND JSON_TYPE(JSON_EXTRACT($document, $path)) <> 'NULL'
        THEN JSON_UNQUOTE(JSON_EXTRACT($document, $path)) END";
