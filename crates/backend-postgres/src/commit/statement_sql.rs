//! The text of the commit. Why it is right is said in `statement`.

use crate::session::statements;

statements! {
/// Parameters:
///
/// * `$1` token, `$2` now, `$3` what stands for the timestamp in first lines;
/// * `$4`–`$24` the tables, one array a column, in the order of the request;
/// * `$25`–`$27` pieces of bodies, `$28`–`$32` application transactions, `$33`–`$37` domain
///   metadata, `$38`–`$44` removes, `$45`–`$61` adds: each with the table's number first.
///
/// Answers a row a table: its number, what is wrong with it (null = nothing), its id, the head
/// before, version and timestamp after, the position of the first remove that is refused,
/// whether its head moved while the statement waited, and its files before. For a token that is
/// known: `replayed` rows.
///
/// Parts that are used once stand in sub-selects, so that the planner has fewer of them to
/// materialize; `unnest` of a parameter inside of a scalar sub-select keeps its estimates the same
/// for every batch, so one cached plan serves all.
pub(super) COMMIT: "
WITH part AS (
    SELECT p.number - 1 AS number, p.id, p.creates, p.expected, p.since, p.namespace, p.name,
        p.name_again, p.location, p.storage_options, p.mode, p.first_line, p.commit_info,
        p.body_len, p.num_added, p.num_removed, p.bytes_added, p.live_files, p.live_bytes, p.again,
        p.protocol, p.metadata
    FROM unnest((SELECT $4::uuid[]), (SELECT $5::bool[]), (SELECT $6::int8[]), (SELECT $7::int8[]),
            (SELECT $8::text[]), (SELECT $9::text[]),
            (SELECT $10::bool[]), (SELECT $11::text[]), (SELECT $12::text[]), (SELECT $13::text[]),
            (SELECT $14::text[]), (SELECT $15::text[]),
            (SELECT $16::int8[]), (SELECT $17::int8[]), (SELECT $18::int8[]), (SELECT $19::int8[]),
            (SELECT $20::int8[]), (SELECT $21::text[]),
            (SELECT $22::int8[]), (SELECT $23::text[]), (SELECT $24::text[]))
        WITH ORDINALITY AS p (id, creates, expected, since, namespace, name, name_again, location,
            storage_options, mode, first_line, commit_info, body_len, num_added, num_removed,
            bytes_added, live_files, live_bytes, again, protocol, metadata, number)
), known AS (
    SELECT b.token FROM {p}batches b WHERE b.token = $1
), locked AS (
    -- The newest versions, after waiting for whoever holds them; in one order for everyone.
    SELECT t.id, t.table_key, t.state, t.head_version, t.head_timestamp_ms, t.barrier_version, t.head_files,
        t.head_bytes
    FROM {p}tables t
    WHERE t.id = ANY ($4::uuid[]) AND NOT EXISTS (SELECT 1 FROM known){wait}
    ORDER BY t.id
    FOR UPDATE
), removes AS (
    SELECT r.number, r.position, r.key, r.path, r.dv_id, r.deleted, r.action
    FROM unnest((SELECT $38::int4[]), (SELECT $39::int8[]), (SELECT $40::bytea[]),
            (SELECT $41::text[]), (SELECT $42::text[]), (SELECT $43::int8[]),
            (SELECT $44::text[])) AS r (number, position, key, path, dv_id, deleted, action)
), missing AS (
    -- Removes whose file is not active, by the snapshot: believed only where that is not stale.
    SELECT r.number, min(r.position) AS position
    FROM removes r JOIN part p ON p.number = r.number LEFT JOIN locked l ON l.id = p.id
    -- Not `NOT EXISTS`, of which the planner may make a join with all files.
    WHERE (
        SELECT 1 FROM {p}files f
        WHERE f.table_key = l.table_key AND f.file_key = r.key
          AND f.removed_version = 9223372036854775807 AND f.path = r.path AND f.dv_id = r.dv_id
        LIMIT 1) IS NULL
    GROUP BY r.number
), looked AS (
    SELECT p.*, l.id IS NOT NULL AS is_there, l.table_key AS known_key, l.state, l.head_version, l.head_timestamp_ms,
        l.barrier_version, l.head_files, l.head_bytes,
        l.id IS NOT NULL AND l.head_version IS DISTINCT FROM (
            SELECT s.head_version FROM {p}tables s WHERE s.id = p.id) AS stale,
        CASE WHEN p.again < m.position THEN p.again ELSE coalesce(m.position, p.again) END
            AS missing
    FROM part p
    LEFT JOIN locked l ON l.id = p.id
    LEFT JOIN missing m ON m.number = p.number
), checked AS (
    SELECT k.*, coalesce(k.head_version + 1, 0) AS version,
        -- Commit timestamps grow strictly; after the last one there is there is no other.
        CASE WHEN k.head_timestamp_ms IS NULL OR k.head_timestamp_ms < $2::int8 THEN $2::int8
            WHEN k.head_timestamp_ms = 9223372036854775807 THEN k.head_timestamp_ms
            ELSE k.head_timestamp_ms + 1 END AS timestamp_ms,
        CASE
            WHEN k.creates AND k.is_there THEN 'id'
            WHEN k.creates AND (k.name_again OR EXISTS (
                SELECT 1 FROM {p}tables n
                WHERE n.namespace = k.namespace AND n.name = k.name AND n.drop_marker = ''))
                THEN 'name'
            WHEN NOT k.creates AND (NOT k.is_there OR k.state <> 'active'
                OR k.head_version IS NULL) THEN 'none'
            WHEN k.expected <> k.head_version OR k.barrier_version > k.since THEN 'moved'
            WHEN k.stale AND k.num_removed > 0 THEN 'stale'
            WHEN k.missing IS NOT NULL THEN 'file'
            WHEN k.head_timestamp_ms = 9223372036854775807 THEN 'time'
        END AS problem
    FROM looked k
), go AS (
    -- What is written: everything, or nothing at all.
    SELECT c.* FROM checked c
    WHERE NOT EXISTS (SELECT 1 FROM checked x WHERE x.problem IS NOT NULL)
      AND NOT EXISTS (SELECT 1 FROM known)
), batch AS (
    INSERT INTO {p}batches (token, committed_at_ms)
    SELECT $1, $2::int8 WHERE EXISTS (SELECT 1 FROM go)
), adds AS (
    SELECT a.*
    FROM unnest((SELECT $45::int4[]), (SELECT $46::int8[]), (SELECT $47::bool[]),
            (SELECT $48::bool[]), (SELECT $49::bytea[]), (SELECT $50::int8[]),
            (SELECT $51::int8[]), (SELECT $52::bool[]), (SELECT $53::int8[]), (SELECT $54::int8[]),
            (SELECT $55::text[]), (SELECT $56::text[]),
            (SELECT $57::text[]), (SELECT $58::text[]), (SELECT $59::text[]), (SELECT $60::text[]),
            (SELECT $61::text[]))
        AS a (number, ordinal, ended, replaces, key, size, modification_time, data_change,
            base_row_id, default_row_commit_version, path, dv_id, partition_values, tags,
            deletion_vector, clustering_provider, stats)
), ended AS (
    -- One update for both: a statement may change a row only once.
    UPDATE {p}files f
    SET removed_version = e.version, is_tombstone = e.removes, deletion_timestamp = e.deleted,
        remove_action = e.action
    FROM (
        SELECT g.number, g.known_key, g.version, true AS removes, r.key, r.path, r.dv_id, r.deleted,
            r.action
        FROM removes r JOIN go g ON g.number = r.number
        UNION ALL
        SELECT g.number, g.known_key, g.version, false, a.key, a.path, a.dv_id, NULL, NULL
        FROM adds a JOIN go g ON g.number = a.number
        WHERE a.replaces
    ) e
    WHERE f.table_key = e.known_key AND f.file_key = e.key AND f.removed_version = 9223372036854775807
      AND f.path = e.path AND f.dv_id = e.dv_id
    RETURNING e.number, e.removes, f.size
), written AS (
    -- Waits for all of `ended`, so that a replaced row has left `files_active` before the row
    -- that replaces it comes.
    SELECT g.*, replace(g.first_line, $3, g.timestamp_ms::text) AS line,
        g.protocol IS NOT NULL OR g.metadata IS NOT NULL AS bars,
        coalesce(g.head_files, 0) + g.live_files - coalesce(e.files, 0) AS files_after,
        coalesce(g.head_bytes, 0) + g.live_bytes::numeric - coalesce(e.bytes, 0) AS bytes_after,
        coalesce(e.bytes_removed, 0) AS bytes_removed
    FROM go g
    LEFT JOIN (
        SELECT number, count(*) AS files, sum(size) AS bytes,
            sum(size) FILTER (WHERE removes) AS bytes_removed
        FROM ended GROUP BY number
    ) e ON e.number = g.number
), moved AS (
    UPDATE {p}tables t
    SET head_version = w.version, head_timestamp_ms = w.timestamp_ms, head_files = w.files_after,
        head_bytes = w.bytes_after,
        barrier_version = CASE WHEN w.bars THEN w.version ELSE t.barrier_version END
    FROM written w WHERE t.id = w.id AND NOT w.creates
), created AS (
    INSERT INTO {p}tables (id, namespace, name, drop_marker, location, storage_options, state,
        created_at_ms, head_version, head_timestamp_ms, head_files, head_bytes, base_version,
        barrier_version, import_base_done)
    SELECT w.id, w.namespace, w.name, '', w.location, w.storage_options, 'active', $2::int8,
        w.version, w.timestamp_ms, w.files_after, w.bytes_after, 0, 0, true
    FROM written w WHERE w.creates ORDER BY w.namespace, w.name
    RETURNING id, table_key
), keyed AS (
    SELECT w.*, coalesce(w.known_key, (SELECT c.table_key FROM created c WHERE c.id = w.id))
            AS table_key
    FROM written w
), commits AS (
    INSERT INTO {p}commits (table_key, version, timestamp_ms, token, batch_position, num_added,
        num_removed, bytes_added, bytes_removed, changes_metadata, changes_protocol, total_files,
        total_bytes, has_body, body_len, first_line, commit_info)
    SELECT w.table_key, w.version, w.timestamp_ms, $1, w.number, w.num_added, w.num_removed,
        w.bytes_added, least(greatest(w.bytes_removed, 0), 9223372036854775807)::int8,
        w.metadata IS NOT NULL, w.protocol IS NOT NULL, w.files_after,
        least(greatest(w.bytes_after, 0), 9223372036854775807)::int8, true, w.body_len, w.line,
        w.commit_info
    FROM keyed w
), chunks AS (
    INSERT INTO {p}commit_chunks (table_key, version, chunk_no, body)
    SELECT g.table_key, g.version, k.chunk_no, k.body
    FROM unnest((SELECT $25::int4[]), (SELECT $26::int8[]),
            (SELECT $27::bytea[])) AS k (number, chunk_no, body)
    JOIN keyed g ON g.number = k.number
), protocols AS (
    INSERT INTO {p}protocols (table_key, version, protocol)
    SELECT g.table_key, g.version, g.protocol FROM keyed g WHERE g.protocol IS NOT NULL
), metadata AS (
    INSERT INTO {p}metadata (table_key, version, metadata)
    SELECT g.table_key, g.version, g.metadata FROM keyed g WHERE g.metadata IS NOT NULL
), txns AS (
    INSERT INTO {p}txns (table_key, app_key, version, app_id, app_version, last_updated)
    SELECT g.table_key, x.key, g.version, x.app_id, x.app_version, x.last_updated
    FROM unnest((SELECT $28::int4[]), (SELECT $29::bytea[]), (SELECT $30::text[]),
            (SELECT $31::int8[]), (SELECT $32::int8[]))
        AS x (number, key, app_id, app_version, last_updated)
    JOIN keyed g ON g.number = x.number
), domains AS (
    INSERT INTO {p}domain_metadata (table_key, domain_key, version, domain, removed, configuration)
    SELECT g.table_key, x.key, g.version, x.domain, x.removed, x.configuration
    FROM unnest((SELECT $33::int4[]), (SELECT $34::bytea[]), (SELECT $35::text[]),
            (SELECT $36::bool[]), (SELECT $37::text[]))
        AS x (number, key, domain, removed, configuration)
    JOIN keyed g ON g.number = x.number
), files AS (
    INSERT INTO {p}files (table_key, added_version, ordinal, removed_version, is_tombstone,
        file_key, size, modification_time, data_change, base_row_id, default_row_commit_version,
        path, dv_id, partition_values, tags, deletion_vector, clustering_provider, stats)
    SELECT w.table_key, w.version, a.ordinal,
        CASE WHEN a.ended THEN w.version ELSE 9223372036854775807 END, false, a.key, a.size,
        a.modification_time, a.data_change, a.base_row_id, a.default_row_commit_version, a.path,
        a.dv_id, a.partition_values, a.tags, a.deletion_vector, a.clustering_provider, a.stats
    FROM adds a JOIN keyed w ON w.number = a.number
), mirrored AS (
    -- Always, and from the newest version of the row: see `statement`.
    UPDATE {p}mirror m
    SET pending_since_ms = CASE WHEN m.mode = 'off' THEN m.pending_since_ms
        ELSE coalesce(m.pending_since_ms, $2::int8) END
    -- In the order in which those who publish take them, so that nobody waits in a circle.
    FROM (SELECT l.table_key FROM {p}mirror l
        WHERE l.table_key IN (SELECT g.known_key FROM go g WHERE NOT g.creates)
        ORDER BY l.table_key FOR UPDATE) g
    WHERE m.table_key = g.table_key
    RETURNING m.table_key, m.mode
), mirrors AS (
    INSERT INTO {p}mirror (table_key, mode, lease_epoch, lease_until_ms, pending_since_ms)
    SELECT g.table_key, g.mode, 0, 0, CASE WHEN g.mode = 'off' THEN NULL ELSE $2::int8 END
    FROM keyed g WHERE g.creates
), outbox AS (
    INSERT INTO {p}mirror_status (table_key, version, state, attempts, enqueued_at_ms)
    SELECT g.table_key, g.version, 'PENDING', 0, $2::int8
    FROM keyed g LEFT JOIN mirrored m ON m.table_key = g.table_key
    WHERE coalesce(m.mode, g.mode) <> 'off'
)
SELECT c.number, c.problem, c.id, c.head_version, c.version, c.timestamp_ms, c.missing, c.stale,
    c.head_files
FROM checked c WHERE NOT EXISTS (SELECT 1 FROM known)
UNION ALL
SELECT coalesce(h.batch_position, 0), 'replayed',
    (SELECT t.id FROM {p}tables t WHERE t.table_key = h.table_key), NULL, h.version, h.timestamp_ms,
    NULL, false, NULL
FROM known k LEFT JOIN {p}commits h ON h.token = k.token
ORDER BY 1",
}
