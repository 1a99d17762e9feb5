//! The definition of our tables, in the version that this program works with.
//!
//! The shape is portable: the other databases have the same tables and columns. What differs is
//! physical:
//!
//! * Text that is compared or ordered has the collation "C": the order of its bytes.
//! * `head_files` and `head_bytes` stand on the row of the table, beside the head: a commit that
//!   waited for that row reads it in its newest version, but every other table as it was before
//!   the wait (see `commit`). Bytes are `numeric`, so that sums of hostile sizes stay exact.
//! * `files_active` is unique: of one key at most one row is active, whoever writes at a time.
//! * Names without a length limit (`app_id`, `domain`) are indexed by a digest: an index entry
//!   has less than 2,704 bytes.
//! * Rows that each commit changes (`tables`, `mirror`) leave room in their page and change no
//!   indexed column, so that these are heap-only updates
//!   (<https://www.postgresql.org/docs/current/storage-hot.html>).
//! * Rows name their table by `table_key`, four bytes, in place of its id of sixteen. Columns of eight bytes come
//!   first, then shorter ones, then text: so no row has gaps, in which the server would align them.

use std::fmt::Write as _;

/// A table whose rows belong to one of the tables of the catalog.
#[derive(Debug)]
pub(crate) struct Child {
    /// Without prefix.
    pub(crate) name: &'static str,
    /// Names and types, in the order of the row.
    columns: &'static [(&'static str, &'static str)],
    /// Columns of the primary key.
    key: &'static str,
    /// Their names begin with that of the table; what they are on.
    indexes: &'static [(&'static str, &'static str)],
    /// Storage parameters.
    with: &'static str,
    /// A column of bytes that are compressed already.
    compressed: Option<&'static str>,
}

/// How the tables of a catalog are called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'n> {
    /// Schema and prefix.
    pub(crate) place: &'n str,
    /// The prefix alone: an index lives in the schema of its table.
    pub(crate) prefix: &'n str,
    /// What the names of the tables end with: nothing, but for copies.
    pub(crate) suffix: &'n str,
}

impl Child {
    /// Makes the table, without any index.
    pub(crate) fn create_bare(&self, names: Names<'_>) -> String {
        self.create(names, "")
    }

    /// Makes the table with its indexes.
    pub(crate) fn create_whole(&self, names: Names<'_>) -> String {
        let key = format!(",\n    PRIMARY KEY ({})", self.key);
        format!("{}{}", self.create(names, &key), self.create_indexes(names))
    }

    fn create(&self, names: Names<'_>, key: &str) -> String {
        let Names { place, prefix, suffix } = names;
        let (name, with) = (self.name, self.with);
        let columns: Vec<String> =
            self.columns.iter().map(|(column, of)| format!("    {column} {of}")).collect();
        let columns = columns.join(",\n").replace("{i}", prefix);
        let mut sql = format!("CREATE TABLE {place}{name}{suffix} (\n{columns}{key}) {with};\n");
        if let Some(column) = self.compressed {
            let _ = writeln!(
                sql,
                "ALTER TABLE {place}{name}{suffix} ALTER COLUMN {column} SET STORAGE EXTERNAL;"
            );
        }
        sql
    }

    /// Makes the primary key of a table that was made without.
    pub(crate) fn create_key(&self, names: Names<'_>) -> String {
        let Names { place, suffix, .. } = names;
        format!("ALTER TABLE {place}{}{suffix} ADD PRIMARY KEY ({});", self.name, self.key)
    }

    /// Makes the other indexes.
    pub(crate) fn create_indexes(&self, names: Names<'_>) -> String {
        let Names { place, prefix, suffix } = names;
        let mut sql = String::new();
        for (index, on) in self.indexes {
            let (kind, on) = match on.strip_prefix("UNIQUE ") {
                Some(on) => ("UNIQUE INDEX", on),
                None => ("INDEX", *on),
            };
            let table = format!("{}{suffix}", self.name);
            let _ = writeln!(sql, "CREATE {kind} {prefix}{table}_{index} ON {place}{table} {on};");
        }
        sql
    }

    /// Names of the columns but for `table_key`, with a comma between.
    pub(crate) fn copied(&self, of: &str) -> String {
        let columns = self.columns.iter().map(|(column, _)| *column);
        let columns = columns.filter(|column| *column != "table_key");
        columns.map(|column| format!("{of}{column}")).collect::<Vec<_>>().join(", ")
    }

    /// Names of its indexes, without prefix.
    pub(crate) fn index_names(&self) -> Vec<String> {
        let others = self.indexes.iter().map(|(index, _)| *index);
        others.chain(["pkey"]).map(|index| format!("{}_{index}", self.name)).collect()
    }
}

/// `{p}schema`, in every version.
pub(crate) const SCHEMA_TABLE: &str = "CREATE TABLE {p}schema (
    version bigint NOT NULL PRIMARY KEY,
    applied_at_ms bigint NOT NULL,
    program text NOT NULL);";

/// Columns of `{p}schema`.
pub(crate) const SCHEMA_COLUMNS: [&str; 3] = ["version", "applied_at_ms", "program"];

/// The tables that are the same in version 2, but for `table_key`. 9223372036854775807 is `Version::NEVER`.
pub(crate) const TABLES_AND_BATCHES: &str = r#"
CREATE TABLE {p}tables (
    id uuid NOT NULL PRIMARY KEY,
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    -- '' while the name is taken, the id once dropped: so only live names are unique.
    drop_marker text COLLATE "C" NOT NULL,
    location text NOT NULL,
    storage_options text NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('active', 'importing', 'dropped')),
    created_at_ms bigint NOT NULL,
    dropped_at_ms bigint,
    head_version bigint,
    head_timestamp_ms bigint,
    -- Files and bytes at the head.
    head_files bigint NOT NULL DEFAULT 0,
    head_bytes numeric(38, 0) NOT NULL DEFAULT 0,
    base_version bigint NOT NULL,
    barrier_version bigint NOT NULL,
    import_from_json boolean NOT NULL DEFAULT false,
    import_base_done boolean NOT NULL DEFAULT false,
    import_files bigint NOT NULL DEFAULT 0,
    import_tombstones bigint NOT NULL DEFAULT 0,
    import_history_through bigint,
    -- By which the other tables name it. Never used again for another table.
    table_key integer GENERATED BY DEFAULT AS IDENTITY UNIQUE,
    UNIQUE (namespace, name, drop_marker)
) WITH (fillfactor = 50);

CREATE TABLE {p}batches (
    token text COLLATE "C" NOT NULL PRIMARY KEY,
    committed_at_ms bigint NOT NULL
);
"#;

const TEXT_C: &str = "text COLLATE \"C\"";
const TEXT_C_NOT_NULL: &str = "text COLLATE \"C\" NOT NULL";
const NUMBER: &str = "bigint NOT NULL";
const NUMBER_OR_NONE: &str = "bigint";
const FLAG: &str = "boolean NOT NULL";
const KEY: (&str, &str) = ("table_key", "integer NOT NULL");
const VERSION: (&str, &str) = ("version", NUMBER);
const DIGEST: &str = "bytea NOT NULL";

/// The tables whose rows belong to tables.
pub(crate) const CHILDREN: [Child; 12] = [
    Child {
        name: "commits",
        columns: &[
            VERSION,
            ("timestamp_ms", NUMBER),
            // Position of the table in its batch.
            ("batch_position", NUMBER_OR_NONE),
            ("num_added", NUMBER),
            ("num_removed", NUMBER),
            ("bytes_added", NUMBER),
            ("bytes_removed", NUMBER),
            ("total_files", NUMBER),
            ("total_bytes", NUMBER),
            // Length of the body without its first line, before compression, bytes.
            ("body_len", NUMBER),
            KEY,
            ("changes_metadata", FLAG),
            ("changes_protocol", FLAG),
            ("has_body", FLAG),
            ("token", TEXT_C),
            ("first_line", "text"),
            // Only where it is not in first_line.
            ("commit_info", "text"),
        ],
        key: "table_key, version",
        indexes: &[
            ("by_time", "(table_key, timestamp_ms)"),
            ("by_token", "(token) WHERE token IS NOT NULL"),
        ],
        with: "",
        compressed: None,
    },
    Child {
        name: "commit_chunks",
        columns: &[
            VERSION,
            ("chunk_no", NUMBER),
            KEY,
            // At most 1 MiB of the zstd frame.
            ("body", DIGEST),
        ],
        key: "table_key, version, chunk_no",
        indexes: &[],
        with: "",
        compressed: Some("body"),
    },
    Child {
        name: "files",
        columns: &[
            ("added_version", NUMBER),
            ("ordinal", NUMBER),
            // The file is in the table at v if added_version <= v < removed_version.
            ("removed_version", NUMBER),
            ("size", NUMBER),
            ("modification_time", NUMBER),
            ("deletion_timestamp", NUMBER_OR_NONE),
            ("base_row_id", NUMBER_OR_NONE),
            ("default_row_commit_version", NUMBER_OR_NONE),
            KEY,
            // Whether a remove action ended it (or made the row: then removed_version = added_version).
            ("is_tombstone", FLAG),
            ("data_change", FLAG),
            ("file_key", DIGEST),
            ("path", "text NOT NULL"),
            ("dv_id", "text NOT NULL"),
            // JSON objects; null for none or empty.
            ("partition_values", "text"),
            ("tags", "text"),
            ("deletion_vector", "text"),
            ("clustering_provider", "text"),
            ("stats", "text"),
            // The remove action, JSON, of a tombstone.
            ("remove_action", "text"),
        ],
        key: "table_key, added_version, ordinal",
        indexes: &[
            ("by_state", "(table_key, removed_version, added_version, ordinal)"),
            ("active", "UNIQUE (table_key, file_key) WHERE removed_version = 9223372036854775807"),
            ("ended", "(table_key, file_key) WHERE removed_version < 9223372036854775807"),
            ("tombstones", "(table_key, deletion_timestamp) WHERE is_tombstone"),
        ],
        with: "",
        compressed: None,
    },
    Child {
        name: "protocols",
        columns: &[VERSION, KEY, ("protocol", "text NOT NULL")],
        key: "table_key, version",
        indexes: &[],
        with: "",
        compressed: None,
    },
    Child {
        name: "metadata",
        columns: &[VERSION, KEY, ("metadata", "text NOT NULL")],
        key: "table_key, version",
        indexes: &[],
        with: "",
        compressed: None,
    },
    Child {
        name: "txns",
        columns: &[
            VERSION,
            ("app_version", NUMBER),
            ("last_updated", NUMBER_OR_NONE),
            KEY,
            ("app_key", DIGEST),
            ("app_id", TEXT_C_NOT_NULL),
        ],
        key: "table_key, app_key, version",
        indexes: &[],
        with: "",
        compressed: None,
    },
    Child {
        name: "domain_metadata",
        columns: &[
            VERSION,
            KEY,
            ("removed", FLAG),
            ("domain_key", DIGEST),
            ("domain", TEXT_C_NOT_NULL),
            ("configuration", "text NOT NULL"),
        ],
        key: "table_key, domain_key, version",
        indexes: &[],
        with: "",
        compressed: None,
    },
    Child {
        name: "mirror",
        columns: &[
            ("published_version", NUMBER_OR_NONE),
            ("lease_epoch", NUMBER),
            ("lease_until_ms", NUMBER),
            // When the first unpublished version was enqueued; null if there is none. Claims look at these
            // rows only, however many tables and published versions there are.
            ("pending_since_ms", NUMBER_OR_NONE),
            KEY,
            (
                "mode",
                "text COLLATE \"C\" NOT NULL CONSTRAINT {i}mirror_mode_check
        CHECK (mode IN ('active', 'diverged', 'off'))",
            ),
            ("lease_owner", "text"),
        ],
        key: "table_key",
        indexes: &[("pending", "(pending_since_ms, table_key) WHERE pending_since_ms IS NOT NULL")],
        with: "WITH (fillfactor = 50)",
        compressed: None,
    },
    Child {
        name: "mirror_status",
        columns: &[
            VERSION,
            ("attempts", NUMBER),
            ("enqueued_at_ms", NUMBER),
            ("retry_at_ms", NUMBER_OR_NONE),
            ("published_at_ms", NUMBER_OR_NONE),
            KEY,
            (
                "state",
                "text COLLATE \"C\" NOT NULL CONSTRAINT {i}mirror_status_state_check
        CHECK (state IN ('PENDING', 'IN_FLIGHT', 'COMPLETE', 'FAILED'))",
            ),
            ("digest", "text"),
            ("last_error", "text"),
        ],
        key: "table_key, version",
        indexes: &[("open", "(table_key, version) WHERE state <> 'COMPLETE'")],
        with: "",
        compressed: None,
    },
    // The skipping index. It is derived: catalogs from before have none until their tables are written to.
    Child {
        name: "skip_index",
        columns: &[
            // Grows with each change of the segments.
            ("generation", NUMBER),
            KEY,
        ],
        key: "table_key",
        indexes: &[],
        with: "",
        compressed: None,
    },
    Child {
        name: "skip_segments",
        columns: &[
            // The generation that wrote it.
            ("segment_id", NUMBER),
            // It covers the files (added_version, ordinal) after this one, null = from the first on, ...
            ("after_version", NUMBER_OR_NONE),
            ("after_ordinal", NUMBER_OR_NONE),
            // ... up to and with this one, as they were in this version.
            ("through_version", NUMBER),
            ("through_ordinal", NUMBER),
            ("built_version", NUMBER),
            ("num_files", NUMBER),
            KEY,
            ("root", DIGEST),
        ],
        key: "table_key, segment_id",
        indexes: &[],
        with: "",
        compressed: Some("root"),
    },
    Child {
        name: "skip_pages",
        columns: &[("segment_id", NUMBER), ("page_no", NUMBER), KEY, ("body", DIGEST)],
        key: "table_key, segment_id, page_no",
        indexes: &[],
        with: "",
        compressed: Some("body"),
    },
];

/// Gives the planner statistics before there are files: without any it takes a table's active files
/// for one row or none, however large `{p}files` is, reads all of them for each statement, and the
/// server keeps that plan. Statistics outlive the rows that they are of, until there are others
/// (<https://www.postgresql.org/docs/current/sql-analyze.html>).
pub(crate) const SEED_STATISTICS: &str = "
INSERT INTO {p}files{s} (table_key, added_version, ordinal, removed_version, is_tombstone, file_key,
    size, modification_time, data_change, path, dv_id)
SELECT 0, g / 10, g % 10,
    CASE WHEN g % 5 = 0 THEN g / 10 + 1 ELSE 9223372036854775807 END, g % 5 = 0,
    decode(lpad(to_hex(g::bigint * 2654435761), 32, '0'), 'hex'), g, g, true,
    'part-' || g || '.parquet', ''
FROM generate_series(0, 4999) AS g;
ANALYZE {p}files{s};
TRUNCATE {p}files{s}";
