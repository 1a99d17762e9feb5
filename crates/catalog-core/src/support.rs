//! What every backend does in the same way, whatever its database: rows to the model, pages, checks,
//! arithmetic of the outbox and of imports. For authors of backends. It knows the names of columns, and no
//! other SQL.

mod audit;
mod batches;
mod importing;
mod imports;
mod opening;
mod outbox;
pub mod prelude;
mod publishing;
mod records;
mod registry;
mod schema;
mod stored;
mod tables;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::backend::{CommitFilter, CommitRequest, CommitTarget};
use crate::commit::{CommitBody, CommitIndex, commit_info_object};
use crate::error::{CatalogError, Result};
use crate::ids::{TableId, TimestampMs, Version};
use crate::model::{CommitRecord, FileCursor, FileRecord, Page};

pub use audit::{AUDIT_COLUMNS, Span, audit_row};
pub use batches::{batches, newest_batch};
pub use importing::{ImportState, step_in_memory};
pub use imports::{
    ImportPosition, StoredTimes, check_base_chunk, check_between, check_import_commits,
    check_import_start, check_published, check_whole, id_exists, is_same_import, range_of,
    removed_bytes,
};
pub use opening::Opened;
pub use outbox::{
    Claimable, OutboxExpiry, check_gapless, claim_in_rounds, most_versions, next_version,
    not_waiting, out_of_order, outbox_start,
};
pub use publishing::{Lease, Outbox, OwnedSettlement, has_expired, is_in_state};
pub use records::{
    ColumnValue, Reader, RowFormat, TABLE_COLUMNS, app_transaction, attempts, commit_body,
    commit_record, corrupt, domain_metadata, file_record, mirror_row, skip_index, snapshot,
    table_id, table_record, to_json, tombstone_record,
};
pub use registry::{
    RECORD_COLUMNS, no_registry, no_revision, registry_after, registry_record, registry_rights,
};
pub use schema::{
    AUDIT, GrantRole, REGISTRY, TABLES, check_schema_version, no_audit, quoted, schema_too_new,
};
pub use stored::{
    FileRow, NewVersion, Refusal, StoredTable, carried_tombstone, check_create, check_removes,
    not_found,
};
pub use tables::{TableListStart, table_list_start};

/// Largest piece of a commit's compressed bytes in one row, bytes.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Compressed bytes after which `read_bodies` ends a call.
pub const BODIES_BYTES: usize = 32 << 20;
/// Candidate rows of a page that are sorted at most. Of more, a page is read in the order of the key, and
/// rows that do not belong to it are passed over.
pub const SORTED_ROWS: i64 = 50_000;
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

/// A page of what is read as it is asked for.
///
/// # Errors
/// Those of the items.
pub fn page_of<T, C, E>(
    items: impl Iterator<Item = Result<T, E>>,
    limit: usize,
    cursor: impl Fn(&T) -> C,
) -> Result<Page<T, C>, E> {
    let fetched = items.take(limit.max(1).saturating_add(1)).collect::<Result<Vec<T>, E>>()?;
    Ok(page(fetched, limit, cursor))
}

/// A page of those that are wanted.
///
/// # Errors
/// Those of the items.
pub fn page_where<T, C, E>(
    items: impl Iterator<Item = Result<T, E>>,
    wanted: impl Fn(&T) -> bool,
    limit: usize,
    cursor: impl Fn(&T) -> C,
) -> Result<Page<T, C>, E> {
    page_of(items.filter(|item| item.as_ref().map_or(true, &wanted)), limit, cursor)
}

/// The key after which a page of files starts: before all files, or that of a cursor.
#[must_use]
pub fn files_start(after: Option<FileCursor>) -> (i64, i64) {
    after.map_or((-1, -1), |cursor| (cursor.added_version.get(), cursor.ordinal))
}

/// First and last version that a page of commits may hold.
#[must_use]
pub fn commit_range(filter: &CommitFilter, before: Option<Version>) -> (i64, i64) {
    let to = filter.to_version.map_or(i64::MAX, Version::get);
    let before = before.map_or(i64::MAX, |before| before.get() - 1);
    (filter.from_version.map_or(0, Version::get), to.min(before))
}

/// Whether a commit belongs to a list.
#[must_use]
pub fn is_listed(commit: &CommitRecord, filter: &CommitFilter, before: Option<Version>) -> bool {
    before.is_none_or(|version| commit.version < version)
        && filter.from_version.is_none_or(|version| commit.version >= version)
        && filter.to_version.is_none_or(|version| commit.version <= version)
        && filter.from_time.is_none_or(|time| commit.timestamp >= time)
        && filter.to_time.is_none_or(|time| commit.timestamp < time)
}

/// How many of the commits with these lengths, bytes, one call of `read_bodies` answers. A commit that is too
/// long for a call is a call of its own.
#[must_use]
pub fn bodies_in_one_call(lengths: &[usize]) -> usize {
    let mut bytes = 0_usize;
    let fits = lengths.iter().take_while(|length| {
        bytes = bytes.saturating_add(**length);
        bytes <= BODIES_BYTES
    });
    fits.count().max(1).min(lengths.len())
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

/// Whether text may be the value of an option that is sent to a server.
///
/// # Errors
/// `InvalidInput` that names the option.
pub fn check_text(option: &str, text: &str, may_be_empty: bool) -> Result<()> {
    if text.contains('\0') || (text.is_empty() && !may_be_empty) {
        return Err(CatalogError::invalid(format!(
            "bad {option} {text:?}: it is not empty and has no NUL character"
        )));
    }
    Ok(())
}

/// Whether a limit of time leaves any.
///
/// # Errors
/// `InvalidInput` that names the option.
pub fn check_time(option: &str, time: Duration) -> Result<()> {
    if time.is_zero() {
        return Err(CatalogError::invalid(format!("bad {option}: nothing can be done in no time")));
    }
    Ok(())
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

    #[test]
    fn a_call_answers_bodies_up_to_its_limit_and_at_least_one() {
        assert_eq!(bodies_in_one_call(&[]), 0);
        assert_eq!(bodies_in_one_call(&[BODIES_BYTES + 1, 1]), 1);
        assert_eq!(bodies_in_one_call(&[BODIES_BYTES - 1, 1, 1]), 2);
    }
}
