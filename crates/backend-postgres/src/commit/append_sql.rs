//! The text of a commit of appends. Why it is right is said in `statement` and `group`.

use sqlx::Row;

use crate::ddl::for_speed;
use crate::errors::DbResult;
use crate::session::{Args, Call, statements};

/// Parameters: `$1` the table of each commit, `$2` now, `$3` what stands for the timestamp in first lines,
/// `$4`–`$11` the commits, one array a column; `$12`–`$14` pieces of bodies, `$15`–`$29` adds, each with the
/// commit's number, from 1 on, first. Answers a row a commit, in order, for each table all or none; and
/// whether its head moved while the statement waited.
///
/// What is given says which commits `go`, as what; `last` are the last ones of each table, and `mirrors` the
/// tables whose mirrors are told.
macro_rules! appends {
    (part: $part:literal, locked: $locked:literal, go: $go:literal, last: $last:literal,
        mirrors: $mirrors:literal) => {
        concat!(
            "
WITH part AS (
    SELECT p.number, p.id, p.token, p.first_line, p.commit_info, p.body_len, p.num_added,
        p.bytes_added, p.live_bytes, ",
            $part,
            "
    FROM unnest((SELECT $1::uuid[]), (SELECT $4::text[]), (SELECT $5::int8[]), (SELECT $6::text[]),
            (SELECT $7::text[]), (SELECT $8::int8[]), (SELECT $9::int8[]), (SELECT $10::int8[]),
            (SELECT $11::text[]))
        WITH ORDINALITY AS p (id, token, since, first_line, commit_info, body_len, num_added,
            bytes_added, live_bytes, number)
), locked AS (
    -- The newest versions.
    SELECT t.id, t.table_key, t.head_version, t.head_timestamp_ms, t.barrier_version, t.head_files, t.head_bytes,
        t.head_version IS DISTINCT FROM (
            SELECT s.head_version FROM {p}tables s WHERE s.id = t.id) AS waited
    FROM {p}tables t
    WHERE t.state = 'active' AND NOT EXISTS (
        SELECT 1 FROM {p}batches b WHERE b.token = ANY ($4::text[])){wait}
      AND ",
            $locked,
            "
), go AS (
    ",
            $go,
            "
), written AS (
    SELECT g.*, replace(g.first_line, $3, g.timestamp_ms::text) AS line FROM go g
), batch AS (
    INSERT INTO {p}batches (token, committed_at_ms) SELECT g.token, $2::int8 FROM go g
), moved AS (
    UPDATE {p}tables t
    SET head_version = w.version, head_timestamp_ms = w.timestamp_ms, head_files = w.files_after,
        head_bytes = w.bytes_after
    FROM (",
            $last,
            ") w WHERE t.id = w.id
), commits AS (
    INSERT INTO {p}commits (table_key, version, timestamp_ms, token, batch_position, num_added,
        num_removed, bytes_added, bytes_removed, changes_metadata, changes_protocol, total_files,
        total_bytes, has_body, body_len, first_line, commit_info)
    SELECT w.table_key, w.version, w.timestamp_ms, w.token, 0, w.num_added, 0, w.bytes_added, 0, false, false,
        w.files_after, least(greatest(w.bytes_after, 0), 9223372036854775807)::int8, true, w.body_len,
        w.line, w.commit_info
    FROM written w
), chunks AS (
    INSERT INTO {p}commit_chunks (table_key, version, chunk_no, body)
    SELECT g.table_key, g.version, k.chunk_no, k.body
    FROM unnest((SELECT $12::int4[]), (SELECT $13::int8[]),
            (SELECT $14::bytea[])) AS k (number, chunk_no, body)
    JOIN go g ON g.number = k.number
), files AS (
    INSERT INTO {p}files (table_key, added_version, ordinal, removed_version, is_tombstone,
        file_key, size, modification_time, data_change, base_row_id, default_row_commit_version,
        path, dv_id, partition_values, tags, deletion_vector, clustering_provider, stats)
    SELECT g.table_key, g.version, a.ordinal, 9223372036854775807, false, a.key, a.size,
        a.modification_time, a.data_change, a.base_row_id, a.default_row_commit_version, a.path,
        a.dv_id, a.partition_values, a.tags, a.deletion_vector, a.clustering_provider, a.stats
    FROM unnest((SELECT $15::int4[]), (SELECT $16::int8[]), (SELECT $17::bytea[]),
            (SELECT $18::int8[]), (SELECT $19::int8[]), (SELECT $20::bool[]),
            (SELECT $21::int8[]), (SELECT $22::int8[]), (SELECT $23::text[]), (SELECT $24::text[]),
            (SELECT $25::text[]), (SELECT $26::text[]), (SELECT $27::text[]),
            (SELECT $28::text[]), (SELECT $29::text[]))
        AS a (number, ordinal, key, size, modification_time, data_change, base_row_id,
            default_row_commit_version, path, dv_id, partition_values, tags, deletion_vector,
            clustering_provider, stats)
    JOIN go g ON g.number = a.number
), mirrored AS (
    UPDATE {p}mirror m
    SET pending_since_ms = CASE WHEN m.mode = 'off' THEN m.pending_since_ms
        ELSE coalesce(m.pending_since_ms, $2::int8) END
    FROM (",
            $mirrors,
            ") g WHERE m.table_key = g.table_key
    RETURNING m.table_key, m.mode
), outbox AS (
    INSERT INTO {p}mirror_status (table_key, version, state, attempts, enqueued_at_ms)
    SELECT g.table_key, g.version, 'PENDING', 0, $2::int8
    FROM go g JOIN mirrored m ON m.table_key = g.table_key
    WHERE m.mode <> 'off'
)
SELECT g.number, g.version, g.timestamp_ms, g.files_after, g.waited FROM go g ORDER BY g.number"
        )
    };
}

/// Of commits to one table, after waiting for whoever holds it.
macro_rules! appends_to_one {
    () => {
        appends!(
            part: "p.since",
            locked: "t.id = ($1::uuid[])[1] FOR UPDATE",
            go: "SELECT p.*, n.table_key, n.waited, n.head_version + p.number AS version,
        greatest($2::int8, n.head_timestamp_ms + 1) + p.number - 1 AS timestamp_ms,
        n.head_files + (sum(p.num_added) OVER (ORDER BY p.number))::int8 AS files_after,
        n.head_bytes + sum(p.live_bytes::numeric) OVER (ORDER BY p.number) AS bytes_after
    FROM part p CROSS JOIN locked n
    WHERE n.head_version IS NOT NULL AND n.barrier_version <= (SELECT min(since) FROM part)",
            last: "SELECT * FROM go ORDER BY number DESC LIMIT 1",
            mirrors: "SELECT g.table_key FROM go g LIMIT 1"
        )
    };
}

statements! {
    /// Whether the function is there that appends go through where they wait for others.
    HAS_FUNCTION: "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_proc
        WHERE oid = pg_catalog.to_regproc('{p}append_3'))",
    /// The statement for one table.
    pub(super) APPENDS: appends_to_one!(),
    /// The same, through the function of `APPEND_FUNCTION`.
    pub(super) APPENDS_IN_FUNCTION: "SELECT f.* FROM {p}append_3($1::uuid[],
        CASE WHEN true{wait} THEN $2::int8 END, $3::text, $4::text[], $5::int8[],
        $6::text[], $7::text[], $8::int8[], $9::int8[], $10::int8[], $11::text[], $12::int4[],
        $13::int8[], $14::bytea[], $15::int4[], $16::int8[], $17::bytea[], $18::int8[],
        $19::int8[], $20::bool[], $21::int8[], $22::int8[], $23::text[], $24::text[],
        $25::text[], $26::text[], $27::text[], $28::text[], $29::text[]) f",
    /// The statement for several tables. It waits for none of them: one that others hold has no rows in the
    /// answer. Rows of mirrors are waited for, in the order in which those who publish take them.
    pub(super) APPENDS_ACROSS: appends!(
    part: "min(p.since) OVER (PARTITION BY p.id) AS since",
    locked: "t.id = ANY ($1::uuid[]) ORDER BY t.id FOR UPDATE SKIP LOCKED",
    go: "SELECT p.*, n.table_key, n.waited, n.head_version + row_number() OVER of_table AS version,
        greatest($2::int8, n.head_timestamp_ms + 1) + row_number() OVER of_table - 1 AS timestamp_ms,
        n.head_files + (sum(p.num_added) OVER of_table)::int8 AS files_after,
        n.head_bytes + sum(p.live_bytes::numeric) OVER of_table AS bytes_after
    FROM part p JOIN locked n ON n.id = p.id
    WHERE n.head_version IS NOT NULL AND n.barrier_version <= p.since
    WINDOW of_table AS (PARTITION BY p.id ORDER BY p.number)",
    last: "SELECT DISTINCT ON (g.id) g.* FROM go g ORDER BY g.id, g.number DESC",
    mirrors: "SELECT l.table_key FROM {p}mirror l
        WHERE l.table_key IN (SELECT g.table_key FROM go g) ORDER BY l.table_key FOR UPDATE"
),
}

/// A function that runs the statement with the table's row locked before: each statement in it has a
/// snapshot of its own, which is younger than the lock. Otherwise a statement that has waited is evaluated
/// anew, each part of it, while others wait for it in turn. For speed alone: where the function is not there,
/// it is done without. Its name has a number, which changes with its text.
///
/// The planner keeps a plan for each session, which must not be one that reads small tables as a whole, as
/// these grow: so no sequential scans.
const APPEND_FUNCTION: &str = concat!(
    "
CREATE OR REPLACE FUNCTION {p}append_3(uuid[], int8, text, text[], int8[], text[], text[], int8[], int8[],
    int8[], text[], int4[], int8[], bytea[], int4[], int8[], bytea[], int8[], int8[], bool[], int8[], int8[],
    text[], text[], text[], text[], text[], text[], text[])
RETURNS TABLE (commit_number int8, commit_version int8, commit_time int8, files_then int8, has_waited bool)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $dl$
BEGIN
    PERFORM FROM {p}tables t WHERE t.id = $1[1] FOR UPDATE;
    RETURN QUERY",
    appends_to_one!(),
    ";
END
$dl$"
);

/// Drops those of earlier programs, which do without from then on.
const EARLIER_FUNCTIONS: &str =
    "DROP FUNCTION IF EXISTS {p}append_1; DROP FUNCTION IF EXISTS {p}append_2";

/// Makes the function where it is missing, inside of the transaction that upgrades the tables.
pub(crate) async fn make_function(call: &mut Call) -> DbResult<()> {
    call.simple("SAVEPOINT dl_look".to_owned()).await?;
    match call.fetch_one(HAS_FUNCTION, Args::new()).await {
        Ok(row) if row.try_get::<bool, _>(0)? => Ok(()),
        Ok(_) => {
            for_speed(call, APPEND_FUNCTION).await?;
            for_speed(call, EARLIER_FUNCTIONS).await
        }
        Err(error) if error.code().is_some() && error.leaves_connection_usable() => {
            call.simple("ROLLBACK TO SAVEPOINT dl_look".to_owned()).await
        }
        Err(error) => Err(error),
    }
}
