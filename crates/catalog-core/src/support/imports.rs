//! Checks of imports: which commits continue one, between which times, and how it ends.

use crate::backend::{ImportProgress, ImportedCommit};
use crate::commit::CommitIndex;
use crate::error::{CatalogError, Result};
use crate::ids::{TimestampMs, Version};
use crate::model::{NewTable, TableRecord, TableState};

/// Checks how an import begins.
///
/// # Errors
/// `InvalidInput` if a log that is replayed from JSON does not start at version 0.
pub fn check_import_start(new: &NewTable, base: Version, from_json: bool) -> Result<()> {
    if !from_json || base == Version::ZERO {
        return Ok(());
    }
    Err(CatalogError::invalid(format!(
        "import of '{}': a log that is replayed from JSON starts at version 0, not {base}",
        new.name
    )))
}

/// Whether a table under a name is an import that `new` goes on with.
#[must_use]
pub fn is_same_import(found: &TableRecord, new: &NewTable, base: Version) -> bool {
    found.state == TableState::Importing
        && found.location == new.location
        && found.base_version == base
}

/// The error of a table's id that another table has.
#[must_use]
pub fn id_exists(new: &NewTable) -> CatalogError {
    CatalogError::invalid(format!("table id {} exists already", new.id))
}

/// Checks that a chunk of the base comes next; `skip` are the files and tombstones before it.
///
/// # Errors
/// `InvalidInput`.
pub fn check_base_chunk(progress: &ImportProgress, skip: (u64, u64)) -> Result<()> {
    let name = &progress.table.name;
    if progress.base_done {
        return Err(CatalogError::invalid(format!("import of '{name}': its base is complete")));
    }
    if skip == (progress.base_files, progress.base_tombstones) {
        return Ok(());
    }
    Err(CatalogError::invalid(format!(
        "import of '{name}': this chunk continues after {} files and {} tombstones, but {} and {} are \
         stored: another import is at work",
        skip.0, skip.1, progress.base_files, progress.base_tombstones
    )))
}

/// Timestamps of the stored versions in and around a range, in the order of the versions.
#[derive(Debug, Clone, Default)]
pub struct StoredTimes(pub Vec<(Version, TimestampMs)>);

impl StoredTimes {
    /// Those of the versions next below and next above.
    #[must_use]
    pub fn around(&self, version: Version) -> (Option<TimestampMs>, Option<TimestampMs>) {
        let below = self.0.iter().rev().find(|(stored, _)| *stored < version);
        let above = self.0.iter().find(|(stored, _)| *stored > version);
        (below.map(|(_, time)| *time), above.map(|(_, time)| *time))
    }

    /// Whether a version is stored.
    #[must_use]
    pub fn has(&self, version: Version) -> bool {
        self.0.iter().any(|(stored, _)| *stored == version)
    }
}

/// Lowest and highest version of some commits.
#[must_use]
pub fn range_of(commits: &[ImportedCommit]) -> Option<(Version, Version)> {
    let versions = || commits.iter().map(|commit| commit.version);
    versions().min().zip(versions().max())
}

/// Bytes that a commit's removes name.
#[must_use]
pub fn removed_bytes(index: &CommitIndex) -> i64 {
    index.removes.iter().fold(0_i64, |sum, r| sum.saturating_add(r.size.unwrap_or(0)))
}

/// Where an import is, for [`check_import_commits`].
#[derive(Debug, Clone, Copy)]
pub struct ImportPosition<'t> {
    /// The table, in state `Importing`.
    pub table: &'t TableRecord,
    /// Whether it is replayed from version 0.
    pub from_json: bool,
    /// Whether its base is complete.
    pub base_done: bool,
    /// Highest version of the history that is stored.
    pub history_through: Option<Version>,
}

impl ImportPosition<'_> {
    /// Whether a commit is applied to the state; else it is history only.
    #[must_use]
    pub fn is_applied(&self, version: Version) -> bool {
        self.from_json || version > self.table.base_version
    }
}

/// Checks that commits continue an import. `neighbours` gives the timestamps of the stored
/// versions next below and next above a version.
///
/// # Errors
/// `InvalidInput`, and what `neighbours` fails with.
pub fn check_import_commits<E: From<CatalogError>>(
    import: ImportPosition<'_>,
    commits: &[ImportedCommit],
    mut neighbours: impl FnMut(Version) -> Result<(Option<TimestampMs>, Option<TimestampMs>), E>,
) -> Result<(), E> {
    let name = &import.table.name;
    let invalid = |what: String| CatalogError::invalid(format!("import of '{name}': {what}"));
    let mut head = import.table.head;
    let mut history = import.history_through;
    let mut last: Option<TimestampMs> = None;
    for commit in commits {
        let version = commit.version;
        if import.is_applied(version) {
            if !import.base_done {
                return Err(invalid(format!(
                    "version {version} lies above the base, which is not complete"
                ))
                .into());
            }
            let expected = head.map_or(Version::ZERO, Version::next);
            if version != expected {
                return Err(invalid(format!("version {expected} comes next, not {version}")).into());
            }
            head = Some(version);
        } else {
            if history.is_some_and(|history| version <= history) {
                return Err(
                    invalid(format!("version {version} of the history is stored already")).into()
                );
            }
            history = Some(version);
        }
        let (below, above) = neighbours(version)?;
        check_between(import.table, version, commit.timestamp, last.max(below), above)?;
        last = Some(commit.timestamp);
    }
    Ok(())
}

/// Checks that the timestamp of an imported version lies between those of its neighbours.
///
/// # Errors
/// `InvalidInput`.
pub fn check_between(
    table: &TableRecord,
    version: Version,
    timestamp: TimestampMs,
    below: Option<TimestampMs>,
    above: Option<TimestampMs>,
) -> Result<()> {
    if below.is_none_or(|below| below < timestamp) && above.is_none_or(|above| timestamp < above) {
        return Ok(());
    }
    Err(CatalogError::invalid(format!(
        "import of '{}': timestamp {timestamp} of version {version} does not lie between those of \
         its neighbours",
        table.name
    )))
}

/// Checks how an import ends.
///
/// # Errors
/// `InvalidInput` if more is said to be published than there is.
pub fn check_published(table: &TableRecord, published: Option<Version>) -> Result<()> {
    if published <= table.head {
        return Ok(());
    }
    Err(CatalogError::invalid(format!(
        "import of '{}': version {} cannot be published, the head is {}",
        table.name,
        published.unwrap_or(Version::ZERO),
        table.head.map_or_else(|| "before version 0".to_owned(), |head| head.to_string())
    )))
}

/// Checks that a table is whole at the end of its import.
///
/// # Errors
/// `Corrupt` without a version, protocol or metadata.
pub fn check_whole(table: &TableRecord, has_protocol_and_metadata: bool) -> Result<()> {
    if table.head.is_some() && has_protocol_and_metadata {
        return Ok(());
    }
    Err(CatalogError::corrupt(format!(
        "import of '{}' has no version, protocol or metadata: the log it was read from is \
         incomplete",
        table.name
    )))
}
