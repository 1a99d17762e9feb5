//! The part of a commit's batch that decides: the compare-and-set on each table's head, and the
//! reason of each refusal.

use deltalakedb_catalog_core::backend::HeadRule;
use deltalakedb_catalog_core::model::NewTable;

use crate::errors::DbResult;
use crate::rows::{big, bytes, name_key, owned, text, to_json};
use crate::session::batch::Batch;

/// Why one table's part is refused (`@s…`); 0 = it can be written.
pub(crate) const HEAD_MOVED: i64 = 1;
pub(crate) const NOT_FOUND: i64 = 2;
pub(crate) const ID_TAKEN: i64 = 3;
pub(crate) const NAME_TAKEN: i64 = 4;
pub(crate) const FILE_NOT_ACTIVE: i64 = 5;
pub(crate) const END_OF_TIME: i64 = 6;

/// Registers a table and gives it version 0.
pub(crate) fn create<'r>(
    batch: &mut Batch<'r>,
    new: &'r NewTable,
    index: usize,
    table: &str,
    twice: bool,
) -> DbResult<()> {
    let name_key = batch.bind(name_key(&new.name));
    let taken = if twice {
        format!("SET @s{index} = {NAME_TAKEN}")
    } else {
        format!(
            "IF EXISTS (SELECT 1 FROM {{p}}tables WHERE name_key = {name_key} AND drop_marker = \
             N'') SET @s{index} = {NAME_TAKEN}"
        )
    };
    batch.write(format_args!(
        "IF EXISTS (SELECT 1 FROM {{p}}tables WHERE id = {table}) SET @s{index} = {ID_TAKEN} ELSE \
         {taken};\n"
    ));
    let (namespace, name) =
        (batch.bind(text(new.name.namespace())), batch.bind(text(new.name.name())));
    let namespace_utf8 = batch.bind(bytes(new.name.namespace().as_bytes()));
    let name_utf8 = batch.bind(bytes(new.name.name().as_bytes()));
    let location = batch.bind(text(&new.location));
    let options = batch.bind(owned(to_json(&new.storage_options)?));
    let mode = batch.bind(text(new.mirror.as_str()));
    batch.write(format_args!(
        "IF @s{index} = 0\nBEGIN\nSET @v{index} = 0;\nSET @t{index} = @P2;\nINSERT INTO \
         {{p}}tables (id, namespace, name, namespace_utf8, name_utf8, name_key, drop_marker, \
         location, storage_options, state, created_at_ms, head_version, head_timestamp_ms, \
         base_version, barrier_version, import_from_json, import_base_done, import_files, \
         import_tombstones, import_live_files, import_live_bytes) VALUES ({table}, {namespace}, \
         {name}, {namespace_utf8}, {name_utf8}, {name_key}, N'', {location}, {options}, \
         N'active', @P2, 0, @P2, 0, 0, 0, 0, 0, 0, 0, 0);\nINSERT INTO {{p}}mirror (table_id, \
         mode, lease_epoch, lease_until_ms, pending_since_ms) VALUES ({table}, {mode}, 0, 0, CASE \
         WHEN {mode} = N'off' THEN NULL ELSE @P2 END)\nEND;\n"
    ));
    Ok(())
}

/// The compare-and-set on the head of a table.
pub(crate) fn move_head(
    batch: &mut Batch<'_>,
    rule: HeadRule,
    barrier: bool,
    index: usize,
    table: &str,
) {
    let (expected, condition) = match rule {
        HeadRule::Exactly(head) => (head, "head_version ="),
        HeadRule::Append { since } => (since, "barrier_version <="),
    };
    let expected = batch.bind(big(expected.get()));
    let barrier = if barrier { ", barrier_version = head_version + 1" } else { "" };
    batch.write(format_args!(
        "UPDATE {{p}}tables SET head_version = head_version + 1, head_timestamp_ms = CASE WHEN \
         head_timestamp_ms < @P2 THEN @P2 ELSE head_timestamp_ms + 1 END{barrier} WHERE id = \
         {table} AND state = N'active' AND head_version IS NOT NULL AND {condition} {expected} AND \
         head_timestamp_ms < 9223372036854775807;\nSET @n = @@ROWCOUNT;\nIF @n = 1\nBEGIN\nSELECT \
         @v{index} = head_version, @t{index} = head_timestamp_ms FROM {{p}}tables WHERE id = \
         {table};\nUPDATE {{p}}mirror SET pending_since_ms = CASE WHEN mode = N'off' THEN \
         pending_since_ms ELSE COALESCE(pending_since_ms, @P2) END WHERE table_id = \
         {table}\nEND\nELSE\nBEGIN\nSET @s{index} = {NOT_FOUND};\nSELECT @s{index} = CASE WHEN \
         state <> N'active' OR head_version IS NULL THEN {NOT_FOUND} WHEN {condition} {expected} \
         AND head_timestamp_ms = 9223372036854775807 THEN {END_OF_TIME} ELSE {HEAD_MOVED} END, \
         @h{index} = head_version FROM {{p}}tables WHERE id = {table}\nEND;\n"
    ));
}
