//! The tables of the version that this program works with, and how they came from earlier ones.

/// The key of a table, for messages of the upgrade and in every table of rows.
pub(crate) const KEY: &str = "table_key";
/// What stood in its place up to version 2.
pub(crate) const OLD_KEY: &str = "table_id";

/// A table: what a new catalog creates, and what an upgrade fills.
pub(crate) struct Layout {
    /// Without prefix.
    pub(crate) name: &'static str,
    /// Whether version 3 has other columns than version 2.
    pub(crate) is_keyed: bool,
    /// Whether its rows may outlive their table: they follow from others, and nobody reads them.
    pub(crate) is_derived: bool,
    pub(crate) create: &'static str,
    /// Names, without prefix, and definitions. They are made after the rows, which is faster.
    pub(crate) indexes: &'static [(&'static str, &'static str)],
}

/// All tables besides `{p}schema`, [`AUDIT`] and [`REGISTRY`]. 9223372036854775807 is `Version::NEVER`.
pub(crate) const LAYOUT: [Layout; 14] = [
    Layout {
        name: "tables",
        is_keyed: true,
        is_derived: false,
        create: "CREATE TABLE {p}tables (
    -- Stands for the id in all other tables. It is never given to another table.
    table_key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    -- '' while the name is taken, the id once dropped: so only live names are unique.
    drop_marker TEXT NOT NULL,
    location TEXT NOT NULL,
    storage_options TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'importing', 'dropped')),
    created_at_ms INTEGER NOT NULL,
    dropped_at_ms INTEGER,
    head_version INTEGER,
    head_timestamp_ms INTEGER,
    base_version INTEGER NOT NULL,
    barrier_version INTEGER NOT NULL,
    import_from_json INTEGER NOT NULL DEFAULT 0,
    import_base_done INTEGER NOT NULL DEFAULT 0,
    import_files INTEGER NOT NULL DEFAULT 0,
    import_tombstones INTEGER NOT NULL DEFAULT 0,
    import_live_files INTEGER NOT NULL DEFAULT 0,
    import_live_bytes INTEGER NOT NULL DEFAULT 0,
    import_history_through INTEGER,
    UNIQUE (namespace, name, drop_marker)
)",
        indexes: &[],
    },
    Layout {
        name: "commits",
        is_keyed: true,
        is_derived: false,
        create: "CREATE TABLE {p}commits (
    table_key INTEGER NOT NULL,
    version INTEGER NOT NULL,
    timestamp_ms INTEGER NOT NULL,
    token TEXT,
    -- Position of the table in its batch.
    batch_position INTEGER,
    num_added INTEGER NOT NULL,
    num_removed INTEGER NOT NULL,
    bytes_added INTEGER NOT NULL,
    bytes_removed INTEGER NOT NULL,
    changes_metadata INTEGER NOT NULL,
    changes_protocol INTEGER NOT NULL,
    total_files INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,
    has_body INTEGER NOT NULL,
    -- Length of the body without its first line, before compression, bytes.
    body_len INTEGER NOT NULL,
    first_line TEXT,
    -- Only where it is not in first_line.
    commit_info TEXT,
    PRIMARY KEY (table_key, version)
) WITHOUT ROWID",
        indexes: &[
            (
                "commits_by_time",
                "CREATE INDEX {p}commits_by_time ON {p}commits (table_key, timestamp_ms)",
            ),
            (
                "commits_by_token",
                "CREATE INDEX {p}commits_by_token ON {p}commits (token) WHERE token IS NOT NULL",
            ),
        ],
    },
    Layout {
        name: "commit_chunks",
        is_keyed: true,
        is_derived: false,
        create: "CREATE TABLE {p}commit_chunks (
    table_key INTEGER NOT NULL,
    version INTEGER NOT NULL,
    chunk_no INTEGER NOT NULL,
    -- At most 1 MiB of the zstd frame.
    body BLOB NOT NULL,
    PRIMARY KEY (table_key, version, chunk_no)
)",
        indexes: &[],
    },
    Layout {
        name: "files",
        is_keyed: true,
        is_derived: false,
        create: "CREATE TABLE {p}files (
    table_key INTEGER NOT NULL,
    added_version INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    -- The file is in the table at v if added_version <= v < removed_version.
    removed_version INTEGER NOT NULL,
    -- Whether a remove action ended it (or made the row: then removed_version = added_version).
    is_tombstone INTEGER NOT NULL,
    deletion_timestamp INTEGER,
    file_key BLOB NOT NULL,
    size INTEGER NOT NULL,
    modification_time INTEGER NOT NULL,
    data_change INTEGER NOT NULL,
    base_row_id INTEGER,
    default_row_commit_version INTEGER,
    path TEXT NOT NULL,
    dv_id TEXT NOT NULL,
    -- JSON objects; null for none or empty.
    partition_values TEXT,
    tags TEXT,
    deletion_vector TEXT,
    clustering_provider TEXT,
    stats TEXT,
    -- The remove action, JSON, of a tombstone.
    remove_action TEXT,
    PRIMARY KEY (table_key, added_version, ordinal)
)",
        indexes: &[
            (
                "files_by_state",
                "CREATE INDEX {p}files_by_state ON {p}files (table_key, removed_version, added_version, ordinal)",
            ),
            (
                "files_by_key",
                "CREATE INDEX {p}files_by_key ON {p}files (table_key, file_key, added_version)",
            ),
            (
                "files_tombstones",
                "CREATE INDEX {p}files_tombstones ON {p}files (table_key, deletion_timestamp) WHERE is_tombstone = 1",
            ),
        ],
    },
    Layout {
        name: "protocols",
        is_keyed: true,
        is_derived: false,
        create: "CREATE TABLE {p}protocols (
    table_key INTEGER NOT NULL,
    version INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    PRIMARY KEY (table_key, version)
) WITHOUT ROWID",
        indexes: &[],
    },
    Layout {
        name: "metadata",
        is_keyed: true,
        is_derived: false,
        create: "CREATE TABLE {p}metadata (
    table_key INTEGER NOT NULL,
    version INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (table_key, version)
)",
        indexes: &[],
    },
    Layout {
        name: "txns",
        is_keyed: true,
        is_derived: false,
        create: "CREATE TABLE {p}txns (
    table_key INTEGER NOT NULL,
    app_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    app_version INTEGER NOT NULL,
    last_updated INTEGER,
    PRIMARY KEY (table_key, app_id, version)
) WITHOUT ROWID",
        indexes: &[],
    },
    Layout {
        name: "domain_metadata",
        is_keyed: true,
        is_derived: false,
        create: "CREATE TABLE {p}domain_metadata (
    table_key INTEGER NOT NULL,
    domain TEXT NOT NULL,
    version INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    configuration TEXT NOT NULL,
    PRIMARY KEY (table_key, domain, version)
) WITHOUT ROWID",
        indexes: &[],
    },
    Layout {
        name: "batches",
        is_keyed: false,
        is_derived: false,
        create: "CREATE TABLE {p}batches (
    token TEXT NOT NULL PRIMARY KEY,
    committed_at_ms INTEGER NOT NULL
) WITHOUT ROWID",
        indexes: &[],
    },
    Layout {
        name: "mirror",
        is_keyed: true,
        is_derived: false,
        create: "CREATE TABLE {p}mirror (
    table_key INTEGER NOT NULL PRIMARY KEY,
    mode TEXT NOT NULL CHECK (mode IN ('active', 'diverged', 'off')),
    published_version INTEGER,
    lease_owner TEXT,
    lease_epoch INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    -- When the first unpublished version was enqueued; null if there is none. Claims look at these
    -- rows only, however many tables and published versions there are.
    pending_since_ms INTEGER
) WITHOUT ROWID",
        indexes: &[(
            "mirror_pending",
            "CREATE INDEX {p}mirror_pending ON {p}mirror (pending_since_ms, table_key) WHERE pending_since_ms IS NOT NULL",
        )],
    },
    Layout {
        name: "mirror_status",
        is_keyed: true,
        is_derived: false,
        create: "CREATE TABLE {p}mirror_status (
    table_key INTEGER NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('PENDING', 'IN_FLIGHT', 'COMPLETE', 'FAILED')),
    attempts INTEGER NOT NULL,
    enqueued_at_ms INTEGER NOT NULL,
    retry_at_ms INTEGER,
    published_at_ms INTEGER,
    digest TEXT,
    last_error TEXT,
    PRIMARY KEY (table_key, version)
) WITHOUT ROWID",
        indexes: &[(
            "mirror_status_open",
            "CREATE INDEX {p}mirror_status_open ON {p}mirror_status (table_key, version) WHERE state <> 'COMPLETE'",
        )],
    },
    Layout {
        name: "skip_index",
        is_keyed: true,
        is_derived: true,
        create: "CREATE TABLE {p}skip_index (
    table_key INTEGER NOT NULL PRIMARY KEY,
    -- Grows with each change of the segments.
    generation INTEGER NOT NULL
) WITHOUT ROWID",
        indexes: &[],
    },
    Layout {
        name: "skip_segments",
        is_keyed: true,
        is_derived: true,
        create: "CREATE TABLE {p}skip_segments (
    table_key INTEGER NOT NULL,
    -- The generation that wrote it.
    segment_id INTEGER NOT NULL,
    -- It covers the files (added_version, ordinal) after this one, null = from the first on, ...
    after_version INTEGER,
    after_ordinal INTEGER,
    -- ... up to and with this one, as they were in this version.
    through_version INTEGER NOT NULL,
    through_ordinal INTEGER NOT NULL,
    built_version INTEGER NOT NULL,
    num_files INTEGER NOT NULL,
    root BLOB NOT NULL,
    PRIMARY KEY (table_key, segment_id)
)",
        indexes: &[],
    },
    Layout {
        name: "skip_pages",
        is_keyed: true,
        is_derived: true,
        create: "CREATE TABLE {p}skip_pages (
    table_key INTEGER NOT NULL,
    segment_id INTEGER NOT NULL,
    page_no INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (table_key, segment_id, page_no)
)",
        indexes: &[],
    },
];

/// What version 4 added. It has no key of a table: its rows are text of their time, and stay when a table goes.
/// `AUTOINCREMENT`: no id is given twice.
pub(crate) const AUDIT: Layout = Layout {
    name: "audit",
    is_keyed: false,
    is_derived: false,
    create: "CREATE TABLE {p}audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    action TEXT NOT NULL,
    table_id TEXT,
    table_name TEXT,
    user_name TEXT,
    -- Host or address.
    origin TEXT,
    program TEXT,
    -- A JSON object.
    detail TEXT,
    -- Of an entry that may be written again after a lost answer.
    token TEXT UNIQUE
)",
    indexes: &[
        ("audit_by_time", "CREATE INDEX {p}audit_by_time ON {p}audit (at_ms, id)"),
        (
            "audit_by_table",
            "CREATE INDEX {p}audit_by_table ON {p}audit (table_id, at_ms, id) WHERE table_id IS NOT NULL",
        ),
    ],
};

/// Rows of the audit stay as they are.
pub(crate) const STAYS: &str = "
CREATE TRIGGER {p}audit_no_update BEFORE UPDATE ON {p}audit
BEGIN SELECT RAISE(ABORT, 'rows of the audit are never changed'); END;
CREATE TRIGGER {p}audit_no_delete BEFORE DELETE ON {p}audit
BEGIN SELECT RAISE(ABORT, 'rows of the audit are never deleted'); END;
";

/// What version 5 added: records by their keys. Texts are compared by their bytes, as by itself in SQLite.
pub(crate) const REGISTRY: Layout = Layout {
    name: "registry",
    is_keyed: false,
    is_derived: false,
    create: "CREATE TABLE {p}registry (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    -- That of the registry when the record was written last.
    revision INTEGER NOT NULL,
    -- A JSON object.
    body TEXT NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
)",
    indexes: &[],
};

/// The row that has the revision of the registry: no record is without a kind and a name.
pub(crate) const REVISION: &str = "
INSERT INTO {p}registry (kind, name, revision, body, changed_at_ms) VALUES ('', '', 0, '{}', 0);
";

/// What version 2 added: the skipping index. It is derived: older catalogs have none until their tables are written to.
pub(crate) const VERSION_2: &str = "
CREATE TABLE {p}skip_index (
    table_id TEXT NOT NULL PRIMARY KEY,
    -- Grows with each change of the segments.
    generation INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE {p}skip_segments (
    table_id TEXT NOT NULL,
    -- The generation that wrote it.
    segment_id INTEGER NOT NULL,
    -- It covers the files (added_version, ordinal) after this one, null = from the first on, ...
    after_version INTEGER,
    after_ordinal INTEGER,
    -- ... up to and with this one, as they were in this version.
    through_version INTEGER NOT NULL,
    through_ordinal INTEGER NOT NULL,
    built_version INTEGER NOT NULL,
    num_files INTEGER NOT NULL,
    root BLOB NOT NULL,
    PRIMARY KEY (table_id, segment_id)
);

CREATE TABLE {p}skip_pages (
    table_id TEXT NOT NULL,
    segment_id INTEGER NOT NULL,
    page_no INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (table_id, segment_id, page_no)
);
";
