//! What every backend does in the same way, whatever its database: pure checks and small
//! conversions. For authors of backends; nothing here knows SQL.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::backend::{CommitRequest, CommitTarget, ImportedCommit};
use crate::commit::{CommitBody, CommitIndex, commit_info_object};
use crate::error::{CatalogError, Result};
use crate::ids::{TableId, TimestampMs, Version};
use crate::model::{FileRecord, Page, TableRecord};

/// How often one claim of mirror work looks for more, where other workers took what it had found.
pub const CLAIM_ROUNDS: usize = 8;

/// Largest piece of a commit's compressed bytes in one row, bytes.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Compressed bytes after which `read_bodies` ends a call.
pub const BODIES_BYTES: usize = 32 << 20;
/// Ordinals from here on belong to tombstones without a file: removes, in imports, of files that
/// nothing is known about. Adds never get there.
pub const TOMBSTONE_ONLY: i64 = 1 << 62;

/// The position of an action in its commit, as stored.
///
/// # Errors
/// `InvalidInput` beyond what can be numbered.
pub fn as_ordinal(position: usize) -> Result<i64> {
    i64::try_from(position)
        .ok()
        .filter(|ordinal| *ordinal < TOMBSTONE_ONLY)
        .ok_or_else(|| CatalogError::invalid("a commit has more actions than can be numbered"))
}

/// Lengths of lists and bytes, as a signed column holds them.
#[must_use]
pub fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// Length of a body without its first line, before compression, bytes.
#[must_use]
pub fn body_len(body: &CommitBody) -> i64 {
    i64::try_from(body.rest.raw_len).unwrap_or(i64::MAX)
}

/// The `commitInfo` object where the first line does not hold it already: it is stored once.
#[must_use]
pub fn stored_commit_info<'i>(body: &CommitBody, index: &'i CommitIndex) -> Option<&'i str> {
    let in_first_line = body.first_line.as_deref().is_some_and(|l| commit_info_object(l).is_some());
    index.commit_info.as_deref().filter(|_| !in_first_line)
}

/// Mistakes in a request that say nothing about the database.
///
/// # Errors
/// `InvalidInput` for no table, a table that occurs twice, or a new one without protocol or
/// metadata.
pub fn check_shape(request: &CommitRequest) -> Result<()> {
    if request.tables.is_empty() {
        return Err(CatalogError::invalid("a commit names at least one table"));
    }
    let mut seen: BTreeSet<TableId> = BTreeSet::new();
    for part in &request.tables {
        let id = match &part.target {
            CommitTarget::Create(new) => {
                if part.index.protocol.is_none() || part.index.metadata.is_none() {
                    return Err(CatalogError::invalid(format!(
                        "version 0 of table '{}' needs a protocol and metadata",
                        new.name
                    )));
                }
                new.id
            }
            CommitTarget::Existing { table_id, .. } => *table_id,
        };
        if !seen.insert(id) {
            return Err(CatalogError::invalid(format!(
                "table {id} occurs twice in one commit: give it all of its actions at once"
            )));
        }
    }
    Ok(())
}

/// The timestamp of the commit after one at `head`: they grow strictly.
///
/// # Errors
/// `InvalidInput` if `head` is the last timestamp there is.
pub fn next_timestamp(
    table: TableId,
    head: Option<TimestampMs>,
    now: TimestampMs,
) -> Result<TimestampMs> {
    match head {
        None => Ok(now),
        Some(TimestampMs(i64::MAX)) => Err(end_of_time(table)),
        Some(last) => Ok(now.max(last.plus_ms(1))),
    }
}

/// The error of [`next_timestamp`], for backends that compute it in SQL.
#[must_use]
pub fn end_of_time(table: TableId) -> CatalogError {
    CatalogError::invalid(format!(
        "table {table} was committed to at the end of time (timestamp {}): no later timestamp \
         exists",
        i64::MAX
    ))
}

/// What a query fetches to know whether another page follows: one row more than asked for.
#[must_use]
pub fn fetch_limit(limit: usize) -> i64 {
    i64::try_from(limit.max(1)).unwrap_or(i64::MAX).saturating_add(1)
}

/// Cuts what was fetched with [`fetch_limit`] to a page.
#[must_use]
pub fn page<T, C>(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> C) -> Page<T, C> {
    let limit = limit.max(1);
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(cursor) } else { None };
    Page { items, next }
}

/// Merges two lists of files that are in the order of their cursors.
#[must_use]
pub fn merge(left: Vec<FileRecord>, right: Vec<FileRecord>) -> Vec<FileRecord> {
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) => l.cursor.cmp(&r.cursor),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match if order == Ordering::Less { left.next() } else { right.next() } {
            Some(file) => out.push(file),
            None => return out,
        }
    }
}

/// Whether text may stand in SQL as part of a table's name: 1 to `max` ASCII letters, digits and
/// underscores, not starting with a digit.
///
/// # Errors
/// `InvalidInput` that names the option.
pub fn check_identifier(option: &str, text: &str, max: usize) -> Result<()> {
    let mut chars = text.chars();
    let well_formed = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && text.len() <= max;
    if well_formed {
        return Ok(());
    }
    Err(CatalogError::invalid(format!(
        "bad {option} {text:?}: it is 1 to {max} letters, digits and underscores, and does not \
         start with a digit"
    )))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_plain() {
        for good in ["dl_", "_", "A9", &"x".repeat(31)] {
            check_identifier("table_prefix", good, 31).unwrap();
        }
        for bad in ["", "9a", "a-b", "a b", "a\"b", "é", &"x".repeat(32)] {
            let error = check_identifier("table_prefix", bad, 31).unwrap_err().to_string();
            assert!(error.contains("table_prefix"), "{error}");
        }
    }

    #[test]
    fn timestamps_grow_up_to_the_end_of_time() {
        let id = TableId(uuid::Uuid::nil());
        let next = |head: Option<i64>, now| {
            next_timestamp(id, head.map(TimestampMs), TimestampMs(now)).map(|t| t.0)
        };
        assert_eq!(next(None, 5).unwrap(), 5);
        assert_eq!(next(Some(9), 5).unwrap(), 10);
        assert_eq!(next(Some(3), 5).unwrap(), 5);
        assert!(next(Some(i64::MAX), 5).is_err());
    }

    #[test]
    fn a_page_knows_whether_another_follows() {
        assert_eq!(fetch_limit(2), 3);
        let full = page(vec![1, 2, 3], 2, |n| *n);
        assert_eq!((full.items, full.next), (vec![1, 2], Some(2)));
        assert_eq!(page(vec![1, 2], 2, |n| *n).next, None);
    }
}
