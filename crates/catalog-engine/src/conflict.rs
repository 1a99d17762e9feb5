//! Logical conflicts between a commit and those that won before it: Delta's own rules
//! (the conflict matrix of `ConflictChecker` in Delta Lake, and delta-rs' `conflict_checker`).
//!
//! One pure function, [`check`], decides for every backend.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use deltalakedb_catalog_core::action::{Add, FileKey, Remove};
use deltalakedb_catalog_core::commit::CommitIndex;
pub use deltalakedb_catalog_core::conflict::{Conflict, ConflictKind};

/// Whether a file could hold rows that a writer read.
pub type FileFilter = Arc<dyn Fn(&Add) -> bool + Send + Sync>;

/// What a writer read to make its commit. The default is "nothing": a blind writer.
#[derive(Clone, Default)]
pub struct Reads {
    /// It read every row of the table.
    pub whole_table: bool,
    /// It read the rows of files that this filter lets through (true when in doubt).
    pub matching: Option<FileFilter>,
    /// It read exactly these files (besides those that it removes).
    pub files: BTreeSet<FileKey>,
    /// It looked at the progress of these applications (besides those it writes).
    pub app_ids: BTreeSet<String>,
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reads")
            .field("whole_table", &self.whole_table)
            .field("matching", &self.matching.is_some())
            .field("files", &self.files.len())
            .field("app_ids", &self.app_ids)
            .finish()
    }
}

impl Reads {
    /// Reads of a writer that looked at the whole table.
    #[must_use]
    pub fn whole_table() -> Self {
        Reads { whole_table: true, ..Reads::default() }
    }

    /// Whether nothing at all was read.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        !self.whole_table
            && self.matching.is_none()
            && self.files.is_empty()
            && self.app_ids.is_empty()
    }

    fn covers(&self, add: &Add) -> bool {
        self.whole_table || self.matching.as_ref().is_some_and(|f| f(add))
    }
}

/// `delta.isolationLevel` of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Readers' and writers' order is that of the log.
    Serializable,
    /// Blind appends of others may slip in before a commit that did not see them. Delta's default.
    #[default]
    WriteSerializable,
    /// Only writes conflict: for commits that change no data (OPTIMIZE).
    Snapshot,
}

impl Isolation {
    /// Level in force for a commit on a table with this property value. `only_rearranges`: it adds or
    /// removes files, but no rows.
    #[must_use]
    pub fn for_commit(property: Option<&str>, only_rearranges: bool) -> Isolation {
        if only_rearranges {
            return Isolation::Snapshot;
        }
        match property {
            Some(v) if v.eq_ignore_ascii_case("serializable") => Isolation::Serializable,
            Some(v) if v.eq_ignore_ascii_case("snapshotisolation") => Isolation::Snapshot,
            _ => Isolation::WriteSerializable,
        }
    }
}

/// Checks a commit against one commit that won before it.
///
/// `None` means that the two go together in the order winner, current.
#[must_use]
pub fn check(
    current: &CommitIndex,
    reads: &Reads,
    isolation: Isolation,
    winner: &CommitIndex,
) -> Option<ConflictKind> {
    check_changes(winner)
        .or_else(|| {
            let matters = appends_matter(current, reads, isolation, winner);
            matters.then(|| check_adds(reads, &winner.adds)).flatten()
        })
        .or_else(|| check_rest(current, reads, isolation, winner))
}

/// The part of [`check`] that is about protocol and metadata.
pub(crate) fn check_changes(winner: &CommitIndex) -> Option<ConflictKind> {
    if winner.protocol.is_some() {
        return Some(ConflictKind::ProtocolChanged);
    }
    winner.metadata.is_some().then_some(ConflictKind::MetadataChanged)
}

/// Whether the files that a winner added are looked at.
pub(crate) fn appends_matter(
    current: &CommitIndex,
    reads: &Reads,
    isolation: Isolation,
    winner: &CommitIndex,
) -> bool {
    if !reads.whole_table && reads.matching.is_none() {
        return false;
    }
    // A winner that only added files, and read nothing, is a blind append.
    let winner_is_blind = winner.removes.is_empty() && winner.info().is_blind_append == Some(true);
    match isolation {
        Isolation::Serializable => true,
        Isolation::WriteSerializable => !winner_is_blind || current.metadata.is_some(),
        Isolation::Snapshot => false,
    }
}

/// The part of [`check`] that is about files that a winner added: some, or all of them.
pub(crate) fn check_adds(reads: &Reads, adds: &[Add]) -> Option<ConflictKind> {
    let added = adds.iter().find(|add| add.data_change && reads.covers(add))?;
    Some(ConflictKind::ConcurrentAppend { path: added.path.clone() })
}

/// The part of [`check`] that is about everything else.
pub(crate) fn check_rest(
    current: &CommitIndex,
    reads: &Reads,
    isolation: Isolation,
    winner: &CommitIndex,
) -> Option<ConflictKind> {
    if !winner.removes.is_empty() {
        let removes: BTreeSet<FileKey> = current.removes.iter().map(Remove::key).collect();
        for removed in &winner.removes {
            let key = removed.key();
            if removes.contains(&key) {
                return Some(ConflictKind::ConcurrentDeleteDelete { path: key.path });
            }
            if reads.files.contains(&key) {
                return Some(ConflictKind::ConcurrentDeleteRead { path: key.path });
            }
            if isolation != Isolation::Snapshot && (reads.whole_table || reads.matching.is_some()) {
                // A remove carries no statistics to decide by, and maybe no partition values.
                let as_add = Add {
                    path: removed.path.clone(),
                    partition_values: removed.partition_values.clone().unwrap_or_default(),
                    size: removed.size.unwrap_or_default(),
                    modification_time: 0,
                    data_change: removed.data_change,
                    stats: removed.stats.clone(),
                    tags: None,
                    deletion_vector: removed.deletion_vector.clone(),
                    base_row_id: None,
                    default_row_commit_version: None,
                    clustering_provider: None,
                };
                let known = removed.partition_values.is_some();
                if removed.data_change && (reads.whole_table || !known || reads.covers(&as_add)) {
                    return Some(ConflictKind::ConcurrentDeleteRead { path: key.path });
                }
            }
        }
    }

    for txn in &winner.txns {
        if reads.app_ids.contains(&txn.app_id)
            || current.txns.iter().any(|t| t.app_id == txn.app_id)
        {
            return Some(ConflictKind::ConcurrentTransaction { app_id: txn.app_id.clone() });
        }
    }
    for domain in &winner.domain_metadata {
        if current.domain_metadata.iter().any(|d| d.domain == domain.domain) {
            return Some(ConflictKind::ConcurrentDomainMetadata { domain: domain.domain.clone() });
        }
    }
    None
}

#[cfg(test)]
#[path = "conflict_tests.rs"]
mod tests;
