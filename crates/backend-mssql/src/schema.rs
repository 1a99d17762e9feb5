//! Our tables: their definition, their versions, and whose they are.
//!
//! The tables and columns are those of the other databases. What differs is physical:
//!
//! * Ids are `BINARY(16)`: they sort like the text of a UUID, which `UNIQUEIDENTIFIER` does not.
//! * Text is compared by the server's collation, which may take `a` for `A`, and ignores trailing
//!   spaces. So nothing is ever found by its text: names, application ids, domains and owners have
//!   a 128-bit digest beside them, and tokens (ASCII) are stored as bytes. Names are kept as UTF-8
//!   bytes too, for the order of lists. There are no zero bytes in any of these, which SQL Server
//!   would ignore at the end.
//! * Digests also keep index keys below 900 and 1,700 bytes
//!   (<https://learn.microsoft.com/sql/sql-server/maximum-capacity-specifications-for-sql-server>).

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;

use crate::errors::{DbResult, Sent};
use crate::rows::text::{Names, statements};
use crate::rows::{Reader, big, text};
use crate::session::{Lease, Session};

/// The version of our tables that this program reads and writes.
pub(crate) const SCHEMA_VERSION: u32 = 2;

/// Tables besides `{p}schema`, without prefix.
pub(crate) const TABLES: [&str; 14] = [
    "tables",
    "commits",
    "commit_chunks",
    "files",
    "protocols",
    "metadata",
    "txns",
    "domain_metadata",
    "batches",
    "mirror",
    "mirror_status",
    "skip_index",
    "skip_segments",
    "skip_pages",
];

/// Each version's steps from the one before it, each a batch of its own.
pub(crate) const MIGRATIONS: [(u32, &[&str]); 2] = [(1, &VERSION_1), (2, &VERSION_2)];

/// 9223372036854775807 is `Version::NEVER`.
const VERSION_1: [&str; 19] = [
    "CREATE TABLE {p}tables (
        id BINARY(16) NOT NULL,
        namespace NVARCHAR(510) NOT NULL,
        name NVARCHAR(510) NOT NULL,
        namespace_utf8 VARBINARY(1020) NOT NULL,
        name_utf8 VARBINARY(1020) NOT NULL,
        name_key BINARY(16) NOT NULL,
        drop_marker NVARCHAR(36) NOT NULL,
        location NVARCHAR(MAX) NOT NULL,
        storage_options NVARCHAR(MAX) NOT NULL,
        state NVARCHAR(16) NOT NULL,
        created_at_ms BIGINT NOT NULL,
        dropped_at_ms BIGINT NULL,
        head_version BIGINT NULL,
        head_timestamp_ms BIGINT NULL,
        base_version BIGINT NOT NULL,
        barrier_version BIGINT NOT NULL,
        import_from_json BIGINT NOT NULL,
        import_base_done BIGINT NOT NULL,
        import_files BIGINT NOT NULL,
        import_tombstones BIGINT NOT NULL,
        import_live_files BIGINT NOT NULL,
        import_live_bytes BIGINT NOT NULL,
        import_history_through BIGINT NULL,
        PRIMARY KEY (id))",
    // The marker is '' while the name is taken, the id once dropped: only live names are unique.
    "CREATE UNIQUE INDEX {i}tables_by_name ON {p}tables (name_key, drop_marker)",
    "CREATE TABLE {p}commits (
        table_id BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        timestamp_ms BIGINT NOT NULL,
        token VARBINARY(128) NULL,
        batch_position BIGINT NULL,
        num_added BIGINT NOT NULL,
        num_removed BIGINT NOT NULL,
        bytes_added BIGINT NOT NULL,
        bytes_removed BIGINT NOT NULL,
        changes_metadata BIGINT NOT NULL,
        changes_protocol BIGINT NOT NULL,
        total_files BIGINT NOT NULL,
        total_bytes BIGINT NOT NULL,
        has_body BIGINT NOT NULL,
        body_len BIGINT NOT NULL,
        first_line NVARCHAR(MAX) NULL,
        commit_info NVARCHAR(MAX) NULL,
        PRIMARY KEY (table_id, version))",
    "CREATE INDEX {i}commits_by_time ON {p}commits (table_id, timestamp_ms)",
    "CREATE INDEX {i}commits_by_token ON {p}commits (token)",
    "CREATE TABLE {p}commit_chunks (
        table_id BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        chunk_no BIGINT NOT NULL,
        body VARBINARY(MAX) NOT NULL,
        PRIMARY KEY (table_id, version, chunk_no))",
    "CREATE TABLE {p}files (
        table_id BINARY(16) NOT NULL,
        added_version BIGINT NOT NULL,
        ordinal BIGINT NOT NULL,
        removed_version BIGINT NOT NULL,
        is_tombstone BIGINT NOT NULL,
        deletion_timestamp BIGINT NULL,
        file_key BINARY(16) NOT NULL,
        size BIGINT NOT NULL,
        modification_time BIGINT NOT NULL,
        data_change BIGINT NOT NULL,
        base_row_id BIGINT NULL,
        default_row_commit_version BIGINT NULL,
        path NVARCHAR(MAX) NOT NULL,
        dv_id NVARCHAR(MAX) NOT NULL,
        partition_values NVARCHAR(MAX) NULL,
        tags NVARCHAR(MAX) NULL,
        deletion_vector NVARCHAR(MAX) NULL,
        clustering_provider NVARCHAR(MAX) NULL,
        stats NVARCHAR(MAX) NULL,
        remove_action NVARCHAR(MAX) NULL,
        PRIMARY KEY (table_id, added_version, ordinal))",
    "CREATE INDEX {i}files_by_state ON {p}files
        (table_id, removed_version, added_version, ordinal)",
    "CREATE INDEX {i}files_by_key ON {p}files (table_id, file_key, added_version)",
    "CREATE INDEX {i}files_tombstones ON {p}files (table_id, deletion_timestamp)",
    "CREATE TABLE {p}protocols (
        table_id BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        protocol NVARCHAR(MAX) NOT NULL,
        PRIMARY KEY (table_id, version))",
    "CREATE TABLE {p}metadata (
        table_id BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        metadata NVARCHAR(MAX) NOT NULL,
        PRIMARY KEY (table_id, version))",
    "CREATE TABLE {p}txns (
        table_id BINARY(16) NOT NULL,
        app_key BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        app_id NVARCHAR(MAX) NOT NULL,
        app_version BIGINT NOT NULL,
        last_updated BIGINT NULL,
        PRIMARY KEY (table_id, app_key, version))",
    "CREATE TABLE {p}domain_metadata (
        table_id BINARY(16) NOT NULL,
        domain_key BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        domain NVARCHAR(MAX) NOT NULL,
        removed BIGINT NOT NULL,
        configuration NVARCHAR(MAX) NOT NULL,
        PRIMARY KEY (table_id, domain_key, version))",
    "CREATE TABLE {p}batches (
        token VARBINARY(128) NOT NULL,
        committed_at_ms BIGINT NOT NULL,
        PRIMARY KEY (token))",
    "CREATE TABLE {p}mirror (
        table_id BINARY(16) NOT NULL,
        mode NVARCHAR(16) NOT NULL,
        published_version BIGINT NULL,
        lease_owner NVARCHAR(MAX) NULL,
        lease_owner_key BINARY(16) NULL,
        lease_epoch BIGINT NOT NULL,
        lease_until_ms BIGINT NOT NULL,
        pending_since_ms BIGINT NULL,
        PRIMARY KEY (table_id))",
    // When the first unpublished version was enqueued; null if there is none.
    "CREATE INDEX {i}mirror_pending ON {p}mirror (pending_since_ms, table_id)",
    "CREATE TABLE {p}mirror_status (
        table_id BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        state NVARCHAR(16) NOT NULL,
        attempts BIGINT NOT NULL,
        enqueued_at_ms BIGINT NOT NULL,
        retry_at_ms BIGINT NULL,
        published_at_ms BIGINT NULL,
        digest NVARCHAR(64) NULL,
        last_error NVARCHAR(MAX) NULL,
        PRIMARY KEY (table_id, version))",
    "CREATE INDEX {i}mirror_status_by_state ON {p}mirror_status (state, table_id, version)",
];

/// The skipping index. It is derived: older catalogs have none until their tables are written to.
const VERSION_2: [&str; 3] = [
    // The generation grows with each change of the segments.
    "CREATE TABLE {p}skip_index (
        table_id BINARY(16) NOT NULL,
        generation BIGINT NOT NULL,
        PRIMARY KEY (table_id))",
    // A segment's id is the generation that wrote it. It covers the files (added_version, ordinal)
    // after one (null: from the first on), up to and with another, as they were in a version.
    "CREATE TABLE {p}skip_segments (
        table_id BINARY(16) NOT NULL,
        segment_id BIGINT NOT NULL,
        after_version BIGINT NULL,
        after_ordinal BIGINT NULL,
        through_version BIGINT NOT NULL,
        through_ordinal BIGINT NOT NULL,
        built_version BIGINT NOT NULL,
        num_files BIGINT NOT NULL,
        root VARBINARY(MAX) NOT NULL,
        PRIMARY KEY (table_id, segment_id))",
    "CREATE TABLE {p}skip_pages (
        table_id BINARY(16) NOT NULL,
        segment_id BIGINT NOT NULL,
        page_no BIGINT NOT NULL,
        body VARBINARY(MAX) NOT NULL,
        PRIMARY KEY (table_id, segment_id, page_no))",
];

/// The columns of `{p}schema`, in every version.
const SCHEMA_COLUMNS: [&str; 3] = ["version", "applied_at_ms", "program"];

statements! {
    CREATE: "CREATE TABLE {p}schema (
        version BIGINT NOT NULL,
        applied_at_ms BIGINT NOT NULL,
        program NVARCHAR(100) NOT NULL,
        PRIMARY KEY (version))",
    VERSION: "SELECT MAX(version) FROM {p}schema",
    CLOCK: "SELECT DATEDIFF_BIG(MILLISECOND, '1970-01-01', SYSUTCDATETIME()) AS now",
    RECORD: "INSERT INTO {p}schema (version, applied_at_ms, program) VALUES (@P1, @P2, @P3)",
    FIND_TABLES: "SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES
        WHERE TABLE_SCHEMA = @P1 ORDER BY TABLE_NAME",
    FIND_COLUMNS: "SELECT COLUMN_NAME FROM INFORMATION_SCHEMA.COLUMNS
        WHERE TABLE_SCHEMA = @P1 AND TABLE_NAME = @P2 ORDER BY ORDINAL_POSITION",
    /// Makes two migrations take turns. Without it one of them fails and is told so.
    LOCK: "DECLARE @got INT; EXEC @got = sp_getapplock @Resource = @P1,
            @LockMode = 'Exclusive', @LockOwner = 'Session', @LockTimeout = 15000;
        SELECT @got AS got",
    UNLOCK: "EXEC sp_releaseapplock @Resource = @P1, @LockOwner = 'Session'",
}

/// Version of our tables; 0 = none.
///
/// # Errors
/// `Schema` if another program's tables stand under our names.
pub(crate) async fn inspect(lease: &mut Lease, place: &str) -> DbResult<u32> {
    let Names { schema, prefix } = &lease.names();
    let ours = format!("{prefix}schema");
    let sets = lease.run(FIND_TABLES, vec![text(schema)]).await?;
    let mut names = Vec::new();
    for row in sets.iter().flatten() {
        names.push(Reader::new(row, "schema", None).text(0)?);
    }
    let other = format!("Choose another table_prefix than '{prefix}', or another schema");
    if !names.iter().any(|name| name.eq_ignore_ascii_case(&ours)) {
        let is_ours = |name: &&String| {
            TABLES.iter().any(|table| name.eq_ignore_ascii_case(&format!("{prefix}{table}")))
        };
        return match names.iter().find(is_ours) {
            None => Ok(0),
            Some(name) => Err(CatalogError::Schema(format!(
                "SQL Server {place} has a table '{schema}.{name}' but no '{ours}': it is not \
                 ours. {other}"
            ))
            .into()),
        };
    }
    let sets = lease.run(FIND_COLUMNS, vec![text(schema), text(&ours)]).await?;
    let mut columns = Vec::new();
    for row in sets.iter().flatten() {
        columns.push(Reader::new(row, "schema", None).text(0)?);
    }
    if columns != SCHEMA_COLUMNS {
        return Err(CatalogError::Schema(format!(
            "SQL Server {place} has a table '{schema}.{ours}' with the columns {}, which is not \
             ours. {other}",
            columns.join(", ")
        ))
        .into());
    }
    let sets = lease.run(VERSION, Vec::new()).await?;
    let version = match sets.first().and_then(|rows| rows.first()) {
        Some(row) => Reader::new(row, "schema", None).opt_i64(0)?,
        None => None,
    };
    version.and_then(|version| u32::try_from(version).ok()).ok_or_else(|| {
        CatalogError::Schema(format!(
            "the table '{schema}.{ours}' of SQL Server {place} is empty, so the version of the \
             catalog is not known: restore the database from a backup"
        ))
        .into()
    })
}

/// What time it is at the server.
pub(crate) async fn clock(lease: &mut Lease) -> DbResult<Option<TimestampMs>> {
    let sets = lease.run(CLOCK, Vec::new()).await?;
    let row = sets.first().and_then(|rows| rows.first());
    let now = row.map(|row| Reader::new(row, "schema", None).i64(0)).transpose()?;
    Ok(now.map(TimestampMs))
}

/// Fails unless this is the version that this program works with.
pub(crate) fn require(version: u32, place: &str, prefix: &str) -> Result<()> {
    match version {
        SCHEMA_VERSION => Ok(()),
        0 => Err(CatalogError::Schema(format!(
            "SQL Server {place} holds no catalog yet (there is no table '{prefix}schema'): run \
             `dl init` first"
        ))),
        newer if newer > SCHEMA_VERSION => Err(too_new(newer, place)),
        older => Err(CatalogError::Schema(format!(
            "the catalog in SQL Server {place} has schema version {older}, this program works \
             with {SCHEMA_VERSION}: make a backup and run `dl init`, which upgrades it"
        ))),
    }
}

fn too_new(version: u32, place: &str) -> CatalogError {
    CatalogError::Schema(format!(
        "the catalog in SQL Server {place} has schema version {version}, this program knows \
         versions up to {SCHEMA_VERSION}: use a newer version of this program. Nothing was changed"
    ))
}

/// Creates or upgrades our tables.
///
/// All steps are one transaction (DDL is transactional here), so there is no schema half way. Two
/// at once take turns at an application lock. Where the server has none, `CREATE TABLE` and the
/// primary key of `{p}schema` let one of them through; the other one's transaction fails, and it
/// looks again.
pub(crate) async fn migrate(session: &Session, now: TimestampMs) -> DbResult<()> {
    let mut lease = session.lease().await?;
    let version = inspect(&mut lease, session.place()).await?;
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    let resource = format!("deltalakedb:{}.{}", session.names().schema, session.names().prefix);
    let locked = lock(&mut lease, &resource).await?;
    let answer = upgrade(&mut lease, session, now).await;
    if locked {
        lease.query(UNLOCK, vec![text(&resource)], Sent::Harmless).await.ok();
    }
    let Err(error) = answer else { return Ok(()) };
    // Another program may have done the same.
    match inspect(&mut lease, session.place()).await {
        Ok(SCHEMA_VERSION) => Ok(()),
        _ => Err(error),
    }
}

/// The application lock; false where the server does not know it.
async fn lock(lease: &mut Lease, resource: &str) -> DbResult<bool> {
    match lease.run(LOCK, vec![text(resource)]).await {
        Ok(sets) => {
            let row = sets.last().and_then(|rows| rows.first());
            let got = row.map(|row| Reader::new(row, "schema", None).i64(0)).transpose()?;
            // A negative number means that the lock was not had. The lock is only for order.
            Ok(got.is_some_and(|got| got >= 0))
        }
        Err(error) if error.number().is_some() => {
            tracing::debug!(?error, "there is no sp_getapplock here: migrating without a lock");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn upgrade(lease: &mut Lease, session: &Session, now: TimestampMs) -> DbResult<()> {
    session.begin_on(lease).await?;
    let answer = steps(lease, session, now).await;
    lease.end(answer).await
}

async fn steps(lease: &mut Lease, session: &Session, now: TimestampMs) -> DbResult<()> {
    let version = inspect(lease, session.place()).await?;
    if version > SCHEMA_VERSION {
        return Err(too_new(version, session.place()).into());
    }
    if version == 0 {
        lease.batch(CREATE, Sent::Harmless).await?;
    }
    for (number, texts) in MIGRATIONS.iter().filter(|(number, _)| *number > version) {
        for step in *texts {
            lease.batch(step, Sent::Harmless).await?;
        }
        let program = concat!("deltalakedb ", env!("CARGO_PKG_VERSION"));
        let values = vec![big(i64::from(*number)), big(now.0), text(program)];
        lease.run(RECORD, values).await?;
    }
    Ok(())
}
