//! What a comparison found.

use deltalakedb_catalog_core::ids::{TableId, TableName, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorState, Snapshot};
use serde::Serialize;

use super::lag_counts;

/// The outcome in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The log says what the catalog says, or its lag is within the threshold.
    Parity,
    /// The two contradict each other.
    Drift,
    /// The log is right, but older than the threshold allows.
    LagOnly,
}

impl Verdict {
    /// Exit code of a command that reports it: 0, 2, 3. (1 is for errors.)
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Parity => 0,
            Verdict::Drift => 2,
            Verdict::LagOnly => 3,
        }
    }
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiffReport {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// The log that was read, as URL.
    pub log_dir: String,
    /// Whether that is the table's own log.
    pub own_log: bool,
    /// The outcome.
    pub verdict: Verdict,
    /// The outcome in words: each reason is a sentence.
    pub reasons: Vec<String>,
    /// Head of the catalog.
    pub catalog_version: Version,
    /// Latest version recorded as published.
    pub published_version: Option<Version>,
    /// Latest version in the log; none if it is empty.
    pub log_version: Option<Version>,
    /// Catalog's head minus the log's version (an empty log counts as -1). Negative: the log has
    /// commits that the catalog does not know.
    pub version_delta: i64,
    /// Version at which the states were compared; none if they were not.
    pub compared_version: Option<Version>,
    /// Versions that the log lacks at its end.
    pub unpublished_versions: u64,
    /// The first of them.
    pub first_unpublished: Option<Version>,
    /// Age of the first of them, whole seconds; 0 if there is none.
    pub lag_seconds: i64,
    /// The same in milliseconds, which the threshold is compared with.
    pub lag_ms: i64,
    /// Files; none if the states were not compared.
    pub files: Option<FileDrift>,
    /// Fields of the metadata, application transactions and domain metadata that differ.
    pub metadata: Vec<FieldDrift>,
    /// Fields of the protocol that differ.
    pub protocol: Vec<FieldDrift>,
    /// Commit files.
    pub bytes: ByteDrift,
    /// Why the log could not be read.
    pub log_error: Option<String>,
    /// Whether that is because the kernel lacks a feature of the table: then the commit files were
    /// compared, the states were not, and that alone is no drift.
    pub log_unsupported: bool,
    /// The outbox.
    pub mirror_status: MirrorStatus,
}

/// Files that differ.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FileDrift {
    /// Files compared: those of the catalog.
    pub compared: u64,
    /// Files that only the catalog has.
    pub only_in_catalog: u64,
    /// Files that only the log has.
    pub only_in_log: u64,
    /// Files that both have, with another size, other partition values or another deletion vector.
    pub different: u64,
    /// Some of them, each kind's first by path.
    pub examples: Vec<FileDifference>,
}

impl FileDrift {
    /// All files that differ.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.only_in_catalog + self.only_in_log + self.different
    }
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileDifference {
    /// Path, as written in the log.
    pub path: String,
    /// Deletion vector's unique id; empty where there is none.
    pub dv_id: String,
    /// How.
    pub kind: FileDriftKind,
    /// What the catalog says, where both have it.
    pub catalog: Option<String>,
    /// What the log says, where both have it.
    pub log: Option<String>,
}

/// How a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileDriftKind {
    /// Only the catalog has it.
    OnlyInCatalog,
    /// Only the log has it.
    OnlyInLog,
    /// Another size.
    Size,
    /// Other partition values.
    PartitionValues,
    /// Another deletion vector.
    DeletionVector,
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldDrift {
    /// Field, as in the protocol: `schemaString`, `configuration.delta.appendOnly`, `txn.app`, …
    pub field: String,
    /// What the catalog says; none if it has none.
    pub catalog: Option<String>,
    /// What the log says; none if it has none.
    pub log: Option<String>,
}

/// Some versions and how many they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VersionList {
    /// How many.
    pub count: u64,
    /// The first ones, ascending.
    pub first: Vec<Version>,
}

impl VersionList {
    pub(super) fn add(&mut self, version: Version) {
        self.count += 1;
        self.first.push(version);
    }

    pub(super) fn finish(&mut self, max: usize) {
        self.first.sort_unstable();
        self.first.truncate(max);
    }

    fn text(&self) -> String {
        let shown: Vec<String> = self.first.iter().take(5).map(ToString::to_string).collect();
        let more = if self.count > 5 { ", …" } else { "" };
        format!("{} ({}{more})", self.count, shown.join(", "))
    }
}

/// Commit files that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ByteDrift {
    /// Commit files that were compared.
    pub compared: u64,
    /// Versions whose file has other bytes than the catalog's commit.
    pub different: VersionList,
    /// Versions that should be in the log and are not. Those below its first commit do not count:
    /// other engines clean them up.
    pub missing: VersionList,
    /// Versions in the log that the catalog does not know.
    pub foreign: VersionList,
    /// Versions whose version checksum (`N.crc`) is unreadable or says something else than the
    /// catalog.
    pub checksums: VersionList,
}

/// The outbox of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MirrorStatus {
    /// Whether the table is published.
    pub mode: MirrorMode,
    /// Versions that are not complete, and the latest that is; ascending.
    pub versions: Vec<VersionStatus>,
    /// Whether more versions than these are not complete.
    pub truncated: bool,
}

/// A version in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionStatus {
    /// Version.
    pub version: Version,
    /// State.
    pub state: MirrorState,
    /// Attempts so far.
    pub attempts: u32,
    /// Text of the last failure.
    pub last_error: Option<String>,
}

impl DiffReport {
    pub(super) fn new(
        head: &Snapshot,
        log_dir: String,
        own_log: bool,
        log_version: Option<Version>,
    ) -> Self {
        DiffReport {
            table_id: head.table.id,
            name: head.table.name.clone(),
            log_dir,
            own_log,
            verdict: Verdict::Parity,
            reasons: Vec::new(),
            catalog_version: head.version,
            published_version: head.table.published_version,
            log_version,
            version_delta: head.version.get() - log_version.map_or(-1, Version::get),
            compared_version: None,
            unpublished_versions: 0,
            first_unpublished: None,
            lag_seconds: 0,
            lag_ms: 0,
            files: None,
            metadata: Vec::new(),
            protocol: Vec::new(),
            bytes: ByteDrift::default(),
            log_error: None,
            log_unsupported: false,
            mirror_status: MirrorStatus {
                mode: head.table.mirror,
                versions: Vec::new(),
                truncated: false,
            },
        }
    }

    /// Reasons and verdict from what was found.
    pub(super) fn decide(&mut self, lag_threshold_seconds: i64, max_drift_files: u64) {
        let mut drift = Vec::new();
        // What is within the tolerance, as long as there is nothing else.
        let mut tolerated = Vec::new();
        // Both or neither: where more differs than may, all of it is drift.
        let tolerable = self.files.as_ref().is_some_and(|f| f.total() <= max_drift_files)
            && self.bytes.different.count <= max_drift_files;
        if let Some(error) = &self.log_error
            && !self.log_unsupported
        {
            drift.push(format!("The log cannot be read: {error}."));
        }
        if let Some(files) = self.files.as_ref().filter(|f| f.total() > 0) {
            let list = if tolerable { &mut tolerated } else { &mut drift };
            list.push(format!(
                "{} files differ: {} only in the catalog, {} only in the log, {} with other \
                 contents.",
                files.total(),
                files.only_in_catalog,
                files.only_in_log,
                files.different
            ));
        }
        for (what, fields) in [("metadata", &self.metadata), ("protocol", &self.protocol)] {
            if !fields.is_empty() {
                let names: Vec<&str> = fields.iter().take(5).map(|f| f.field.as_str()).collect();
                drift.push(format!("The {what} differs in {}.", names.join(", ")));
            }
        }
        for (what, versions, may_be) in [
            ("Commit files with other bytes than the catalog's", &self.bytes.different, tolerable),
            ("Commit files that are missing", &self.bytes.missing, false),
            ("Commit files that the catalog does not know", &self.bytes.foreign, false),
            ("Version checksums that contradict the catalog", &self.bytes.checksums, false),
        ] {
            if versions.count > 0 {
                let list = if may_be { &mut tolerated } else { &mut drift };
                list.push(format!("{what}: {}.", versions.text()));
            }
        }
        if self.version_delta < 0 && drift.is_empty() {
            drift.push("The log is ahead of the catalog: another program wrote to it.".to_owned());
        }
        if !drift.is_empty() {
            self.verdict = Verdict::Drift;
            drift.append(&mut tolerated);
            self.reasons = drift;
            return;
        }
        if !tolerated.is_empty() {
            tolerated.push(format!("That is within the {max_drift_files} files that may differ."));
        }
        self.reasons = tolerated;
        if self.unpublished_versions > 0 {
            let counts = lag_counts(self.mirror_status.mode, self.own_log);
            let late = self.lag_ms > lag_threshold_seconds.saturating_mul(1_000);
            let versions = self.unpublished_versions;
            let stopped = match self.mirror_status.mode {
                MirrorMode::Diverged if self.own_log => {
                    " (publishing has stopped: a foreign commit was found)"
                }
                _ => "",
            };
            self.reasons.push(if counts {
                format!(
                    "{versions} versions are not in the log yet, the first for {} \
                     seconds{stopped}.",
                    self.lag_seconds
                )
            } else {
                format!("{versions} versions are not published: publishing is off for this table.")
            });
            if counts && late {
                self.verdict = Verdict::LagOnly;
            }
        }
        if self.log_unsupported
            && let Some(error) = &self.log_error
        {
            self.reasons.push(format!("The states were not compared: {error}."));
        }
    }

    /// Lag as a gauge: 0 where none is expected.
    pub(super) fn counted_lag_seconds(&self) -> i64 {
        if lag_counts(self.mirror_status.mode, self.own_log) { self.lag_seconds } else { 0 }
    }
}
