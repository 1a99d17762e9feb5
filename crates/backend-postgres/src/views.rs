//! Views for people who read the catalog with other tools. Their names and columns are the same on every
//! database, and stay as they are; our tables may change with the next version.
//!
//! A view is replaced, not dropped, when it is made anew: rights on it and other views of it stay. Who may read
//! a view need not have rights on our tables.
//!
//! What other programs wrote into statistics and commits may be no JSON: then these columns are null.

use deltalakedb_catalog_core::error::{CatalogError, Result};
use sqlx::Row;

use crate::errors::DbResult;
use crate::options::PostgresOptions;
use crate::session::{Args, Call};

/// Text as JSON; null for what is none (PostgreSQL 16 has `pg_input_is_valid`, older servers have nothing).
const JSON: &str = "CREATE OR REPLACE FUNCTION {p}v_json(document text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS
'BEGIN RETURN document::jsonb; EXCEPTION WHEN data_exception THEN RETURN NULL; END'";

/// Names, without prefix, and queries. `{utc:X}` is the time of X milliseconds.
const VIEWS: [(&str, &str); 4] = [
    (
        "v_tables",
        "SELECT t.id::text AS table_id, t.namespace, t.name AS table_name, t.state, t.location,
    t.head_version AS version,
    {utc:t.head_timestamp_ms} AS committed_at, t.head_timestamp_ms AS committed_at_ms,
    t.head_files AS num_files, LEAST(t.head_bytes, 9223372036854775807)::bigint AS total_bytes,
    m.metadata ->> 'description' AS description,
    (m.metadata -> 'partitionColumns')::text AS partition_columns,
    (m.metadata -> 'configuration')::text AS properties,
    (p.protocol ->> 'minReaderVersion')::int AS min_reader_version,
    (p.protocol ->> 'minWriterVersion')::int AS min_writer_version,
    r.mode AS mirror_mode, r.published_version,
    {utc:t.created_at_ms} AS created_at, t.created_at_ms,
    {utc:t.dropped_at_ms} AS dropped_at, t.dropped_at_ms
FROM {p}tables t
LEFT JOIN LATERAL (SELECT {p}v_json(n.metadata) AS metadata FROM {p}metadata n
    WHERE n.table_key = t.table_key AND n.version <= t.head_version ORDER BY n.version DESC LIMIT 1) m ON true
LEFT JOIN LATERAL (SELECT {p}v_json(n.protocol) AS protocol FROM {p}protocols n
    WHERE n.table_key = t.table_key AND n.version <= t.head_version ORDER BY n.version DESC LIMIT 1) p ON true
LEFT JOIN {p}mirror r ON r.table_key = t.table_key
WHERE t.state <> 'importing'",
    ),
    (
        "v_files",
        "SELECT t.id::text AS table_id, t.namespace, t.name AS table_name, f.path, f.size AS size_bytes,
    CASE WHEN s.stats ->> 'numRecords' ~ '^-?[0-9]{1,18}$' AND jsonb_typeof(s.stats -> 'numRecords') = 'number'
        THEN (s.stats ->> 'numRecords')::bigint END AS num_records,
    f.added_version,
    {utc:f.modification_time} AS modified_at, f.modification_time AS modified_at_ms,
    f.partition_values, f.deletion_vector IS NOT NULL AS has_deletion_vector, f.stats
FROM {p}tables t
JOIN {p}files f ON f.table_key = t.table_key AND f.removed_version = 9223372036854775807
CROSS JOIN LATERAL (SELECT {p}v_json(f.stats) AS stats) s
WHERE t.state = 'active'",
    ),
    (
        "v_commits",
        "SELECT t.id::text AS table_id, t.namespace, t.name AS table_name, c.version,
    {utc:c.timestamp_ms} AS committed_at, c.timestamp_ms AS committed_at_ms,
    i.info ->> 'operation' AS operation,
    i.info ->> 'userName' AS user_name,
    i.info ->> 'engineInfo' AS engine_info,
    c.token, c.num_added AS num_added_files, c.num_removed AS num_removed_files,
    c.bytes_added AS added_bytes, c.bytes_removed AS removed_bytes, c.total_files, c.total_bytes
FROM {p}tables t
JOIN {p}commits c ON c.table_key = t.table_key
CROSS JOIN LATERAL (SELECT COALESCE({p}v_json(c.commit_info), {p}v_json(c.first_line) -> 'commitInfo') AS info) i
WHERE t.state <> 'importing'",
    ),
    (
        "v_columns",
        "SELECT t.id::text AS table_id, t.namespace, t.name AS table_name, f.position,
    f.field ->> 'name' AS column_name,
    f.field ->> 'type' AS data_type,
    (f.field ->> 'nullable')::boolean AS is_nullable,
    COALESCE(m.metadata -> 'partitionColumns' ? (f.field ->> 'name'), false) AS is_partition_column,
    f.field -> 'metadata' ->> 'comment' AS comment
FROM {p}tables t
CROSS JOIN LATERAL (SELECT {p}v_json(n.metadata) AS metadata FROM {p}metadata n
    WHERE n.table_key = t.table_key AND n.version <= t.head_version ORDER BY n.version DESC LIMIT 1) m
CROSS JOIN LATERAL (SELECT {p}v_json(m.metadata ->> 'schemaString') -> 'fields' AS fields) s
CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN jsonb_typeof(s.fields) = 'array' THEN s.fields END)
    WITH ORDINALITY AS f (field, position)
WHERE t.state = 'active'",
    ),
];

/// Statements that make the views, or make them anew.
///
/// # Errors
/// `InvalidInput` for options that are not well formed.
pub fn views(options: &PostgresOptions) -> Result<Vec<String>> {
    options.validate()?;
    let place = options.qualified_prefix();
    let make = VIEWS.map(|(name, query)| {
        let sql = format!("CREATE OR REPLACE VIEW {{p}}{name} AS\n{};", with_times(query));
        sql.replace("{p}", &place)
    });
    let json = format!("{};", JSON.replace("{p}", &place));
    Ok(std::iter::once(json).chain(make).collect())
}

/// Statements that drop the views. Other views of them are in the way.
///
/// # Errors
/// As of [`views`].
pub fn drop_views(options: &PostgresOptions) -> Result<Vec<String>> {
    options.validate()?;
    let place = options.qualified_prefix();
    let views = VIEWS.iter().map(|(name, _)| format!("DROP VIEW IF EXISTS {place}{name};"));
    let json = format!("DROP FUNCTION IF EXISTS {place}v_json(text);");
    Ok(views.chain(std::iter::once(json)).collect())
}

/// Drops the views, unless other views need them.
pub(crate) async fn drop_all(call: &mut Call) -> DbResult<()> {
    let options = &call.session.clone().options;
    let place = options.qualified_prefix();
    let ours: Vec<String> = VIEWS
        .iter()
        .map(|(name, _)| format!("to_regclass('{}')", format!("{place}{name}").replace('\'', "''")))
        .collect();
    let rows = call.fetch_text(NEEDED_BY.replace("{ours}", &ours.join(", ")), Args::new()).await?;
    let others = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    if !others.is_empty() {
        return Err(CatalogError::invalid(format!(
            "other views need those of the catalog: {}. Drop them first",
            others.join(", ")
        ))
        .into());
    }
    call.simple(drop_views(options)?.join("\n")).await
}

/// Other views whose rules name one of ours.
const NEEDED_BY: &str = "SELECT DISTINCT r.ev_class::regclass::text
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
    AND d.refobjid = ANY (array_remove(ARRAY[{ours}]::oid[], NULL))
    AND r.ev_class <> ALL (array_remove(ARRAY[{ours}]::oid[], NULL))
ORDER BY 1";

/// Times are exact to the millisecond. What lies outside of the years 1 to 9999 has none.
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

const UTC: &str = "CASE WHEN {ms} BETWEEN -62135596800000 AND 253402300799999
        THEN timestamptz '1970-01-01 00:00:00+00' + {ms} * interval '1 millisecond' END";
