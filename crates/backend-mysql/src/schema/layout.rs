//! The tables of each version. A table that is there already stays as it is.

/// Version 1. A step that was done already changes nothing. 9223372036854775807 is `Version::NEVER`.
pub(super) const VERSION_1: [&str; 11] = [
    // The marker is '' while the name is taken, the id once dropped: only live names are unique.
    "CREATE TABLE IF NOT EXISTS {p}tables (
        id BINARY(16) NOT NULL PRIMARY KEY,
        namespace VARCHAR(255) NOT NULL,
        name VARCHAR(255) NOT NULL,
        drop_marker VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
        location LONGTEXT NOT NULL,
        storage_options LONGTEXT NOT NULL,
        state VARCHAR(16) NOT NULL,
        created_at_ms BIGINT NOT NULL,
        dropped_at_ms BIGINT,
        head_version BIGINT,
        head_timestamp_ms BIGINT,
        base_version BIGINT NOT NULL,
        barrier_version BIGINT NOT NULL,
        import_from_json BOOLEAN NOT NULL DEFAULT 0,
        import_base_done BOOLEAN NOT NULL DEFAULT 0,
        import_files BIGINT NOT NULL DEFAULT 0,
        import_tombstones BIGINT NOT NULL DEFAULT 0,
        import_live_files BIGINT NOT NULL DEFAULT 0,
        import_live_bytes BIGINT NOT NULL DEFAULT 0,
        import_history_through BIGINT,
        UNIQUE KEY by_name (namespace, name, drop_marker))",
    "CREATE TABLE IF NOT EXISTS {p}commits (
        table_id BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        timestamp_ms BIGINT NOT NULL,
        token VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin,
        batch_position BIGINT,
        num_added BIGINT NOT NULL,
        num_removed BIGINT NOT NULL,
        bytes_added BIGINT NOT NULL,
        bytes_removed BIGINT NOT NULL,
        changes_metadata BOOLEAN NOT NULL,
        changes_protocol BOOLEAN NOT NULL,
        total_files BIGINT NOT NULL,
        total_bytes BIGINT NOT NULL,
        has_body BOOLEAN NOT NULL,
        body_len BIGINT NOT NULL,
        first_line LONGTEXT,
        commit_info LONGTEXT,
        PRIMARY KEY (table_id, version),
        KEY by_time (table_id, timestamp_ms),
        KEY by_token (token))",
    "CREATE TABLE IF NOT EXISTS {p}commit_chunks (
        table_id BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        chunk_no BIGINT NOT NULL,
        body LONGBLOB NOT NULL,
        PRIMARY KEY (table_id, version, chunk_no))",
    "CREATE TABLE IF NOT EXISTS {p}files (
        table_id BINARY(16) NOT NULL,
        added_version BIGINT NOT NULL,
        ordinal BIGINT NOT NULL,
        removed_version BIGINT NOT NULL,
        is_tombstone BOOLEAN NOT NULL,
        deletion_timestamp BIGINT,
        file_key BINARY(16) NOT NULL,
        size BIGINT NOT NULL,
        modification_time BIGINT NOT NULL,
        data_change BOOLEAN NOT NULL,
        base_row_id BIGINT,
        default_row_commit_version BIGINT,
        path LONGTEXT NOT NULL,
        dv_id LONGTEXT NOT NULL,
        partition_values LONGTEXT,
        tags LONGTEXT,
        deletion_vector LONGTEXT,
        clustering_provider LONGTEXT,
        stats LONGTEXT,
        remove_action LONGTEXT,
        PRIMARY KEY (table_id, added_version, ordinal),
        KEY by_state (table_id, removed_version, added_version, ordinal),
        KEY by_key (table_id, file_key, added_version),
        KEY tombstones (table_id, is_tombstone, deletion_timestamp))",
    "CREATE TABLE IF NOT EXISTS {p}protocols (
        table_id BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        protocol LONGTEXT NOT NULL,
        PRIMARY KEY (table_id, version))",
    "CREATE TABLE IF NOT EXISTS {p}metadata (
        table_id BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        metadata LONGTEXT NOT NULL,
        PRIMARY KEY (table_id, version))",
    "CREATE TABLE IF NOT EXISTS {p}txns (
        table_id BINARY(16) NOT NULL,
        app_key BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        app_id LONGTEXT NOT NULL,
        app_version BIGINT NOT NULL,
        last_updated BIGINT,
        PRIMARY KEY (table_id, app_key, version))",
    "CREATE TABLE IF NOT EXISTS {p}domain_metadata (
        table_id BINARY(16) NOT NULL,
        domain_key BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        domain LONGTEXT NOT NULL,
        removed BOOLEAN NOT NULL,
        configuration LONGTEXT NOT NULL,
        PRIMARY KEY (table_id, domain_key, version))",
    "CREATE TABLE IF NOT EXISTS {p}batches (
        token VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
        committed_at_ms BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS {p}mirror (
        table_id BINARY(16) NOT NULL PRIMARY KEY,
        mode VARCHAR(16) NOT NULL,
        published_version BIGINT,
        lease_owner LONGTEXT,
        lease_epoch BIGINT NOT NULL,
        lease_until_ms BIGINT NOT NULL,
        pending_since_ms BIGINT,
        KEY pending (pending_since_ms, table_id))",
    "CREATE TABLE IF NOT EXISTS {p}mirror_status (
        table_id BINARY(16) NOT NULL,
        version BIGINT NOT NULL,
        state VARCHAR(16) NOT NULL,
        attempts BIGINT NOT NULL,
        enqueued_at_ms BIGINT NOT NULL,
        retry_at_ms BIGINT,
        published_at_ms BIGINT,
        digest LONGTEXT,
        last_error LONGTEXT,
        PRIMARY KEY (table_id, version),
        KEY by_state (state, table_id, version))",
];

/// What version 2 adds, the skipping index. It is derived: catalogs from before have none until their
/// tables are written to.
pub(super) const VERSION_2: [&str; 3] = [
    // The generation grows with each change of the segments.
    "CREATE TABLE IF NOT EXISTS {p}skip_index (
        table_id BINARY(16) NOT NULL PRIMARY KEY,
        generation BIGINT NOT NULL)",
    // A segment's id is the generation that wrote it. It covers the files (added_version, ordinal)
    // after one (null: from the first on), up to and with another, as they were in a version.
    "CREATE TABLE IF NOT EXISTS {p}skip_segments (
        table_id BINARY(16) NOT NULL,
        segment_id BIGINT NOT NULL,
        after_version BIGINT,
        after_ordinal BIGINT,
        through_version BIGINT NOT NULL,
        through_ordinal BIGINT NOT NULL,
        built_version BIGINT NOT NULL,
        num_files BIGINT NOT NULL,
        root LONGBLOB NOT NULL,
        PRIMARY KEY (table_id, segment_id))",
    "CREATE TABLE IF NOT EXISTS {p}skip_pages (
        table_id BINARY(16) NOT NULL,
        segment_id BIGINT NOT NULL,
        page_no BIGINT NOT NULL,
        body LONGBLOB NOT NULL,
        PRIMARY KEY (table_id, segment_id, page_no))",
];

/// `{p}registry`, which version 5 added: records by their keys. Names are bytes, as collations take `'a '` for `'a'`.
/// A revision is that of the registry when the record was written last; a body is a JSON object.
pub(super) const REGISTRY_TABLE: &str = "(
    kind VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARBINARY(1020) NOT NULL,
    revision BIGINT NOT NULL,
    body LONGTEXT NOT NULL,
    changed_at_ms BIGINT NOT NULL,
    PRIMARY KEY (kind, name))";

/// The row that has the revision of the registry: no record is without a kind and a name.
pub(super) const REVISION: &str = "INSERT INTO {p}registry (kind, name, revision, body, changed_at_ms) VALUES ('', '', 0, '{}', 0)";

/// `{p}audit`, which version 4 added. It has no key of a table: rows are text of their time, and stay when a table goes.
pub(super) const AUDIT_TABLE: &str = "(
            id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
            at_ms BIGINT NOT NULL,
            action VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            table_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin,
            table_name VARCHAR(520),
            user_name VARCHAR(520),
            origin VARCHAR(520),
            program VARCHAR(520),
            detail LONGTEXT,
            token VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin,
            KEY by_time (at_ms, id),
            KEY by_table (table_id, at_ms, id),
            UNIQUE KEY by_token (token))";

/// The tables of version 3: their name and columns, in the order of [`TABLES`](super::TABLES). In place of the
/// 16 bytes of a table's id, its rows have its key of 4.
pub(super) const VERSION_3: [(&str, &str); 14] = [
    // The marker is '' while the name is taken, the id once dropped: only live names are unique.
    // Rows are locked by their id, in its order. A key is never given again.
    (
        "tables",
        "(
            id BINARY(16) NOT NULL PRIMARY KEY,
            table_key INT NOT NULL AUTO_INCREMENT,
            namespace VARCHAR(255) NOT NULL,
            name VARCHAR(255) NOT NULL,
            drop_marker VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
            location LONGTEXT NOT NULL,
            storage_options LONGTEXT NOT NULL,
            state VARCHAR(16) NOT NULL,
            created_at_ms BIGINT NOT NULL,
            dropped_at_ms BIGINT,
            head_version BIGINT,
            head_timestamp_ms BIGINT,
            base_version BIGINT NOT NULL,
            barrier_version BIGINT NOT NULL,
            import_from_json BOOLEAN NOT NULL DEFAULT 0,
            import_base_done BOOLEAN NOT NULL DEFAULT 0,
            import_files BIGINT NOT NULL DEFAULT 0,
            import_tombstones BIGINT NOT NULL DEFAULT 0,
            import_live_files BIGINT NOT NULL DEFAULT 0,
            import_live_bytes BIGINT NOT NULL DEFAULT 0,
            import_history_through BIGINT,
            UNIQUE KEY by_name (namespace, name, drop_marker),
            UNIQUE KEY by_key (table_key))",
    ),
    (
        "commits",
        "(
            table_key INT NOT NULL,
            version BIGINT NOT NULL,
            timestamp_ms BIGINT NOT NULL,
            token VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin,
            batch_position BIGINT,
            num_added BIGINT NOT NULL,
            num_removed BIGINT NOT NULL,
            bytes_added BIGINT NOT NULL,
            bytes_removed BIGINT NOT NULL,
            changes_metadata BOOLEAN NOT NULL,
            changes_protocol BOOLEAN NOT NULL,
            total_files BIGINT NOT NULL,
            total_bytes BIGINT NOT NULL,
            has_body BOOLEAN NOT NULL,
            body_len BIGINT NOT NULL,
            first_line LONGTEXT,
            commit_info LONGTEXT,
            PRIMARY KEY (table_key, version),
            KEY by_time (table_key, timestamp_ms),
            KEY by_token (token))",
    ),
    (
        "commit_chunks",
        "(
            table_key INT NOT NULL,
            version BIGINT NOT NULL,
            chunk_no BIGINT NOT NULL,
            body LONGBLOB NOT NULL,
            PRIMARY KEY (table_key, version, chunk_no))",
    ),
    (
        "files",
        "(
            table_key INT NOT NULL,
            added_version BIGINT NOT NULL,
            ordinal BIGINT NOT NULL,
            removed_version BIGINT NOT NULL,
            is_tombstone BOOLEAN NOT NULL,
            deletion_timestamp BIGINT,
            file_key BINARY(16) NOT NULL,
            size BIGINT NOT NULL,
            modification_time BIGINT NOT NULL,
            data_change BOOLEAN NOT NULL,
            base_row_id BIGINT,
            default_row_commit_version BIGINT,
            path LONGTEXT NOT NULL,
            dv_id LONGTEXT NOT NULL,
            partition_values LONGTEXT,
            tags LONGTEXT,
            deletion_vector LONGTEXT,
            clustering_provider LONGTEXT,
            stats LONGTEXT,
            remove_action LONGTEXT,
            PRIMARY KEY (table_key, added_version, ordinal),
            KEY by_state (table_key, removed_version, added_version, ordinal),
            KEY by_key (table_key, file_key, added_version),
            KEY tombstones (table_key, is_tombstone, deletion_timestamp))",
    ),
    (
        "protocols",
        "(
            table_key INT NOT NULL,
            version BIGINT NOT NULL,
            protocol LONGTEXT NOT NULL,
            PRIMARY KEY (table_key, version))",
    ),
    (
        "metadata",
        "(
            table_key INT NOT NULL,
            version BIGINT NOT NULL,
            metadata LONGTEXT NOT NULL,
            PRIMARY KEY (table_key, version))",
    ),
    (
        "txns",
        "(
            table_key INT NOT NULL,
            app_key BINARY(16) NOT NULL,
            version BIGINT NOT NULL,
            app_id LONGTEXT NOT NULL,
            app_version BIGINT NOT NULL,
            last_updated BIGINT,
            PRIMARY KEY (table_key, app_key, version))",
    ),
    (
        "domain_metadata",
        "(
            table_key INT NOT NULL,
            domain_key BINARY(16) NOT NULL,
            version BIGINT NOT NULL,
            domain LONGTEXT NOT NULL,
            removed BOOLEAN NOT NULL,
            configuration LONGTEXT NOT NULL,
            PRIMARY KEY (table_key, domain_key, version))",
    ),
    (
        "batches",
        "(
            token VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
            committed_at_ms BIGINT NOT NULL)",
    ),
    (
        "mirror",
        "(
            table_key INT NOT NULL PRIMARY KEY,
            mode VARCHAR(16) NOT NULL,
            published_version BIGINT,
            lease_owner LONGTEXT,
            lease_epoch BIGINT NOT NULL,
            lease_until_ms BIGINT NOT NULL,
            pending_since_ms BIGINT,
            KEY pending (pending_since_ms, table_key))",
    ),
    (
        "mirror_status",
        "(
            table_key INT NOT NULL,
            version BIGINT NOT NULL,
            state VARCHAR(16) NOT NULL,
            attempts BIGINT NOT NULL,
            enqueued_at_ms BIGINT NOT NULL,
            retry_at_ms BIGINT,
            published_at_ms BIGINT,
            digest LONGTEXT,
            last_error LONGTEXT,
            PRIMARY KEY (table_key, version),
            KEY by_state (state, table_key, version))",
    ),
    // The generation grows with each change of the segments.
    (
        "skip_index",
        "(
            table_key INT NOT NULL PRIMARY KEY,
            generation BIGINT NOT NULL)",
    ),
    // A segment's id is the generation that wrote it. It covers the files (added_version, ordinal)
    // after one (null: from the first on), up to and with another, as they were in a version.
    (
        "skip_segments",
        "(
            table_key INT NOT NULL,
            segment_id BIGINT NOT NULL,
            after_version BIGINT,
            after_ordinal BIGINT,
            through_version BIGINT NOT NULL,
            through_ordinal BIGINT NOT NULL,
            built_version BIGINT NOT NULL,
            num_files BIGINT NOT NULL,
            root LONGBLOB NOT NULL,
            PRIMARY KEY (table_key, segment_id))",
    ),
    (
        "skip_pages",
        "(
            table_key INT NOT NULL,
            segment_id BIGINT NOT NULL,
            page_no BIGINT NOT NULL,
            body LONGBLOB NOT NULL,
            PRIMARY KEY (table_key, segment_id, page_no))",
    ),
];
