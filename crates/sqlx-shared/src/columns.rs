//! Columns of the rows that `catalog_core::support` reads, in its order.

/// Columns of [`table_record`](deltalakedb_catalog_core::support::table_record), of
/// [`table_source!`](crate::table_source).
#[macro_export]
macro_rules! table_columns {
    () => {
        "t.id, t.namespace, t.name, t.location, t.storage_options, t.state, t.created_at_ms, \
         t.dropped_at_ms, t.head_version, t.head_timestamp_ms, t.base_version, \
         t.barrier_version, m.mode, m.published_version"
    };
}

/// The tables that [`table_columns!`](crate::table_columns) are read from.
#[macro_export]
macro_rules! table_source {
    () => {
        "{p}tables t JOIN {p}mirror m ON m.table_key = t.table_key"
    };
}

/// Columns of [`file_record`](deltalakedb_catalog_core::support::file_record).
#[macro_export]
macro_rules! file_columns {
    () => {
        "added_version, ordinal, path, size, modification_time, data_change, partition_values, \
         stats, tags, deletion_vector, base_row_id, default_row_commit_version, \
         clustering_provider"
    };
}

/// Columns of [`commit_record`](deltalakedb_catalog_core::support::commit_record) and
/// [`commit_body`](deltalakedb_catalog_core::support::commit_body).
#[macro_export]
macro_rules! commit_columns {
    () => {
        "version, timestamp_ms, token, commit_info, num_added, num_removed, bytes_added, \
         bytes_removed, changes_metadata, changes_protocol, total_files, total_bytes, has_body, \
         first_line, body_len, batch_position"
    };
}
