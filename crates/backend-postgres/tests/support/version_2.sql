DROP TABLE {p}registry;
DROP TABLE {p}audit;
DROP FUNCTION {p}audit_stays();
ALTER TABLE {p}mirror DROP CONSTRAINT {i}mirror_mode_check;
ALTER TABLE {p}mirror_status DROP CONSTRAINT {i}mirror_status_state_check;
ALTER TABLE {p}commits RENAME TO {i}commits_new;
ALTER TABLE {p}commit_chunks RENAME TO {i}commit_chunks_new;
ALTER TABLE {p}files RENAME TO {i}files_new;
ALTER TABLE {p}protocols RENAME TO {i}protocols_new;
ALTER TABLE {p}metadata RENAME TO {i}metadata_new;
ALTER TABLE {p}txns RENAME TO {i}txns_new;
ALTER TABLE {p}domain_metadata RENAME TO {i}domain_metadata_new;
ALTER TABLE {p}mirror RENAME TO {i}mirror_new;
ALTER TABLE {p}mirror_status RENAME TO {i}mirror_status_new;
ALTER TABLE {p}skip_index RENAME TO {i}skip_index_new;
ALTER TABLE {p}skip_segments RENAME TO {i}skip_segments_new;
ALTER TABLE {p}skip_pages RENAME TO {i}skip_pages_new;
ALTER INDEX {p}commits_by_time RENAME TO {i}commits_by_time_new;
ALTER INDEX {p}commits_by_token RENAME TO {i}commits_by_token_new;
ALTER INDEX {p}files_by_state RENAME TO {i}files_by_state_new;
ALTER INDEX {p}files_active RENAME TO {i}files_active_new;
ALTER INDEX {p}files_ended RENAME TO {i}files_ended_new;
ALTER INDEX {p}files_tombstones RENAME TO {i}files_tombstones_new;
ALTER INDEX {p}mirror_pending RENAME TO {i}mirror_pending_new;
ALTER INDEX {p}mirror_status_open RENAME TO {i}mirror_status_open_new;
ALTER INDEX {p}commits_pkey RENAME TO {i}commits_new_pkey;
ALTER INDEX {p}commit_chunks_pkey RENAME TO {i}commit_chunks_new_pkey;
ALTER INDEX {p}files_pkey RENAME TO {i}files_new_pkey;
ALTER INDEX {p}protocols_pkey RENAME TO {i}protocols_new_pkey;
ALTER INDEX {p}metadata_pkey RENAME TO {i}metadata_new_pkey;
ALTER INDEX {p}txns_pkey RENAME TO {i}txns_new_pkey;
ALTER INDEX {p}domain_metadata_pkey RENAME TO {i}domain_metadata_new_pkey;
ALTER INDEX {p}mirror_pkey RENAME TO {i}mirror_new_pkey;
ALTER INDEX {p}mirror_status_pkey RENAME TO {i}mirror_status_new_pkey;
ALTER INDEX {p}skip_index_pkey RENAME TO {i}skip_index_new_pkey;
ALTER INDEX {p}skip_segments_pkey RENAME TO {i}skip_segments_new_pkey;
ALTER INDEX {p}skip_pages_pkey RENAME TO {i}skip_pages_new_pkey;

CREATE TABLE {p}commits (
    table_id uuid NOT NULL,
    version bigint NOT NULL,
    timestamp_ms bigint NOT NULL,
    token text COLLATE "C",
    batch_position bigint,
    num_added bigint NOT NULL,
    num_removed bigint NOT NULL,
    bytes_added bigint NOT NULL,
    bytes_removed bigint NOT NULL,
    changes_metadata boolean NOT NULL,
    changes_protocol boolean NOT NULL,
    total_files bigint NOT NULL,
    total_bytes bigint NOT NULL,
    has_body boolean NOT NULL,
    body_len bigint NOT NULL,
    first_line text,
    commit_info text,
    PRIMARY KEY (table_id, version)
);
CREATE INDEX {i}commits_by_time ON {p}commits (table_id, timestamp_ms);
CREATE INDEX {i}commits_by_token ON {p}commits (token) WHERE token IS NOT NULL;

CREATE TABLE {p}commit_chunks (
    table_id uuid NOT NULL,
    version bigint NOT NULL,
    chunk_no bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (table_id, version, chunk_no)
);
ALTER TABLE {p}commit_chunks ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE {p}files (
    table_id uuid NOT NULL,
    added_version bigint NOT NULL,
    ordinal bigint NOT NULL,
    removed_version bigint NOT NULL,
    is_tombstone boolean NOT NULL,
    deletion_timestamp bigint,
    file_key bytea NOT NULL,
    size bigint NOT NULL,
    modification_time bigint NOT NULL,
    data_change boolean NOT NULL,
    base_row_id bigint,
    default_row_commit_version bigint,
    path text NOT NULL,
    dv_id text NOT NULL,
    partition_values text,
    tags text,
    deletion_vector text,
    clustering_provider text,
    stats text,
    remove_action text,
    PRIMARY KEY (table_id, added_version, ordinal)
);
CREATE INDEX {i}files_by_state ON {p}files (table_id, removed_version, added_version, ordinal);
CREATE UNIQUE INDEX {i}files_active ON {p}files (table_id, file_key)
    WHERE removed_version = 9223372036854775807;
CREATE INDEX {i}files_ended ON {p}files (table_id, file_key)
    WHERE removed_version < 9223372036854775807;
CREATE INDEX {i}files_tombstones ON {p}files (table_id, deletion_timestamp) WHERE is_tombstone;

CREATE TABLE {p}protocols (
    table_id uuid NOT NULL,
    version bigint NOT NULL,
    protocol text NOT NULL,
    PRIMARY KEY (table_id, version)
);

CREATE TABLE {p}metadata (
    table_id uuid NOT NULL,
    version bigint NOT NULL,
    metadata text NOT NULL,
    PRIMARY KEY (table_id, version)
);

CREATE TABLE {p}txns (
    table_id uuid NOT NULL,
    app_key bytea NOT NULL,
    version bigint NOT NULL,
    app_id text COLLATE "C" NOT NULL,
    app_version bigint NOT NULL,
    last_updated bigint,
    PRIMARY KEY (table_id, app_key, version)
);

CREATE TABLE {p}domain_metadata (
    table_id uuid NOT NULL,
    domain_key bytea NOT NULL,
    version bigint NOT NULL,
    domain text COLLATE "C" NOT NULL,
    removed boolean NOT NULL,
    configuration text NOT NULL,
    PRIMARY KEY (table_id, domain_key, version)
);
CREATE TABLE {p}mirror (
    table_id uuid NOT NULL PRIMARY KEY,
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('active', 'diverged', 'off')),
    published_version bigint,
    lease_owner text,
    lease_epoch bigint NOT NULL,
    lease_until_ms bigint NOT NULL,
    pending_since_ms bigint
) WITH (fillfactor = 50);
CREATE INDEX {i}mirror_pending ON {p}mirror (pending_since_ms, table_id)
    WHERE pending_since_ms IS NOT NULL;

CREATE TABLE {p}mirror_status (
    table_id uuid NOT NULL,
    version bigint NOT NULL,
    state text COLLATE "C" NOT NULL
        CHECK (state IN ('PENDING', 'IN_FLIGHT', 'COMPLETE', 'FAILED')),
    attempts bigint NOT NULL,
    enqueued_at_ms bigint NOT NULL,
    retry_at_ms bigint,
    published_at_ms bigint,
    digest text,
    last_error text,
    PRIMARY KEY (table_id, version)
);
CREATE INDEX {i}mirror_status_open ON {p}mirror_status (table_id, version)
    WHERE state <> 'COMPLETE';

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
INSERT INTO {p}commits (table_id, version, timestamp_ms, token, batch_position, num_added, num_removed, bytes_added, bytes_removed, changes_metadata, changes_protocol, total_files, total_bytes, has_body, body_len, first_line, commit_info)
SELECT t.id, o.version, o.timestamp_ms, o.token, o.batch_position, o.num_added, o.num_removed, o.bytes_added, o.bytes_removed, o.changes_metadata, o.changes_protocol, o.total_files, o.total_bytes, o.has_body, o.body_len, o.first_line, o.commit_info
FROM {p}commits_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}commit_chunks (table_id, version, chunk_no, body)
SELECT t.id, o.version, o.chunk_no, o.body
FROM {p}commit_chunks_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}files (table_id, added_version, ordinal, removed_version, is_tombstone, deletion_timestamp, file_key, size, modification_time, data_change, base_row_id, default_row_commit_version, path, dv_id, partition_values, tags, deletion_vector, clustering_provider, stats, remove_action)
SELECT t.id, o.added_version, o.ordinal, o.removed_version, o.is_tombstone, o.deletion_timestamp, o.file_key, o.size, o.modification_time, o.data_change, o.base_row_id, o.default_row_commit_version, o.path, o.dv_id, o.partition_values, o.tags, o.deletion_vector, o.clustering_provider, o.stats, o.remove_action
FROM {p}files_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}protocols (table_id, version, protocol)
SELECT t.id, o.version, o.protocol
FROM {p}protocols_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}metadata (table_id, version, metadata)
SELECT t.id, o.version, o.metadata
FROM {p}metadata_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}txns (table_id, app_key, version, app_id, app_version, last_updated)
SELECT t.id, o.app_key, o.version, o.app_id, o.app_version, o.last_updated
FROM {p}txns_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}domain_metadata (table_id, domain_key, version, domain, removed, configuration)
SELECT t.id, o.domain_key, o.version, o.domain, o.removed, o.configuration
FROM {p}domain_metadata_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}mirror (table_id, mode, published_version, lease_owner, lease_epoch, lease_until_ms, pending_since_ms)
SELECT t.id, o.mode, o.published_version, o.lease_owner, o.lease_epoch, o.lease_until_ms, o.pending_since_ms
FROM {p}mirror_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}mirror_status (table_id, version, state, attempts, enqueued_at_ms, retry_at_ms, published_at_ms, digest, last_error)
SELECT t.id, o.version, o.state, o.attempts, o.enqueued_at_ms, o.retry_at_ms, o.published_at_ms, o.digest, o.last_error
FROM {p}mirror_status_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}skip_index (table_id, generation)
SELECT t.id, o.generation
FROM {p}skip_index_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}skip_segments (table_id, segment_id, after_version, after_ordinal, through_version, through_ordinal, built_version, num_files, root)
SELECT t.id, o.segment_id, o.after_version, o.after_ordinal, o.through_version, o.through_ordinal, o.built_version, o.num_files, o.root
FROM {p}skip_segments_new o JOIN {p}tables t ON t.table_key = o.table_key;
INSERT INTO {p}skip_pages (table_id, segment_id, page_no, body)
SELECT t.id, o.segment_id, o.page_no, o.body
FROM {p}skip_pages_new o JOIN {p}tables t ON t.table_key = o.table_key;
DROP TABLE {p}commits_new, {p}commit_chunks_new, {p}files_new, {p}protocols_new, {p}metadata_new, {p}txns_new, {p}domain_metadata_new, {p}mirror_new, {p}mirror_status_new, {p}skip_index_new, {p}skip_segments_new, {p}skip_pages_new;
ALTER TABLE {p}tables DROP COLUMN table_key;
DROP FUNCTION {p}append_3;
DELETE FROM {p}schema;
INSERT INTO {p}schema (version, applied_at_ms, program) VALUES (1, 1, 'deltalakedb 0.1.0'), (2, 1, 'deltalakedb 0.1.0');
