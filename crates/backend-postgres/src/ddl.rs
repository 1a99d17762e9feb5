//! What both the making and the upgrade of our tables need: the versions, and how DDL runs.

use deltalakedb_catalog_core::ids::TimestampMs;

use crate::errors::DbResult;
use crate::options::PostgresOptions;
use crate::session::{Args, Call, statements};

/// The version of our tables that this program reads and writes.
pub(crate) const SCHEMA_VERSION: u32 = 5;

/// The version in which rows name their table by an integer.
pub(crate) const KEYED_VERSION: u32 = 3;

/// From version 1 to version 2: the skipping index.
pub(crate) const VERSION_2: &str = "
CREATE TABLE {p}skip_index (
    table_id uuid NOT NULL PRIMARY KEY,
    generation bigint NOT NULL
);

CREATE TABLE {p}skip_segments (
    table_id uuid NOT NULL,
    segment_id bigint NOT NULL,
    after_version bigint,
    after_ordinal bigint,
    through_version bigint NOT NULL,
    through_ordinal bigint NOT NULL,
    built_version bigint NOT NULL,
    num_files bigint NOT NULL,
    root bytea NOT NULL,
    PRIMARY KEY (table_id, segment_id)
);

CREATE TABLE {p}skip_pages (
    table_id uuid NOT NULL,
    segment_id bigint NOT NULL,
    page_no bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (table_id, segment_id, page_no)
);
ALTER TABLE {p}skip_segments ALTER COLUMN root SET STORAGE EXTERNAL;
ALTER TABLE {p}skip_pages ALTER COLUMN body SET STORAGE EXTERNAL;
";

statements! {
    RECORD: "INSERT INTO {p}schema (version, applied_at_ms, program) VALUES ($1, $2, $3)",
}

/// Notes that our tables have this version.
pub(crate) async fn record(call: &mut Call, version: u32, now: TimestampMs) -> DbResult<()> {
    let args = Args::new()
        .bind(i64::from(version))
        .bind(now.0)
        .bind(concat!("deltalakedb ", env!("CARGO_PKG_VERSION")));
    call.execute(RECORD, args).await?;
    Ok(())
}

/// A text of DDL with the names of our tables in it.
pub(crate) fn filled(options: &PostgresOptions, text: &str) -> String {
    text.replace("{p}", &options.qualified_prefix())
        .replace("{i}", &options.table_prefix)
        .replace("{s}", "")
        .replace("{wait}", "")
}

/// Runs what is done without where it cannot be had: engines that only speak the protocol plan in their own way,
/// and may have no functions; a login may lack the right to make one.
pub(crate) async fn for_speed(call: &mut Call, text: &str) -> DbResult<()> {
    let text = filled(&call.session.options, text);
    call.simple("SAVEPOINT dl_speed".to_owned()).await?;
    match call.simple(text).await {
        Err(error) if error.code().is_some() && error.leaves_connection_usable() => {
            call.simple("ROLLBACK TO SAVEPOINT dl_speed".to_owned()).await
        }
        other => other,
    }
}
