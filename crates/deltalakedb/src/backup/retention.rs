//! Deletes old sets, and what backups that were broken off have left.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;
use serde::Serialize;

use super::place::{Listing, Place};
use super::set::SetId;

/// A set that is not written to for so long was broken off: a segment takes seconds.
pub const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3_600);

/// Which sets to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So many of the newest ones; at least one.
    Newest(usize),
    /// Those that are not older. The newest one is always kept.
    For(Duration),
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keep::Newest(count) => write!(f, "the newest {count}"),
            Keep::For(age) => write!(f, "{} hours", age.as_secs() / 3_600),
        }
    }
}

impl FromStr for Keep {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Keep> {
        let bad = || {
            CatalogError::invalid(format!(
                "'{}' is neither a number of sets (7) nor an age (30d, 12h): at least 1",
                text.escape_debug()
            ))
        };
        let (digits, hours) = match text.strip_suffix('d') {
            Some(digits) => (digits, 24),
            None => (text.strip_suffix('h').unwrap_or(text), 1),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let number: u32 = digits.parse().ok().filter(|number| *number > 0).ok_or_else(bad)?;
        Ok(if digits.len() == text.len() {
            Keep::Newest(usize::try_from(number).unwrap_or(usize::MAX))
        } else {
            Keep::For(Duration::from_secs(u64::from(number) * hours * 3_600))
        })
    }
}

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Sets.
    pub sets: Vec<SetId>,
    /// Sets that were never finished.
    pub leftovers: Vec<SetId>,
}

/// Deletes sets that are not to be kept, and that no set which is kept goes on from. Nothing else in the
/// place is touched. Of each set the manifest goes first: what is left then is no set any more.
///
/// A set that a backup at work goes on from is kept.
///
/// # Errors
/// Those of the store.
pub async fn prune(place: &Place, keep: Keep, now: TimestampMs) -> Result<Pruned> {
    let listing = place.list().await?;
    let mut kept = kept(&listing, keep, now);
    for set in listing.unfinished.keys() {
        kept.extend(place.begun(set).await?.parent);
    }
    // What a kept set goes on from, is kept, whatever the clocks said when it was taken.
    let mut parents = BTreeSet::new();
    loop {
        let before = kept.len();
        for set in listing.sets.iter().filter(|set| kept.contains(set.id())) {
            let parent = set.manifest.parent.as_ref().map(|parent| parent.set.clone());
            parents.extend(parent);
        }
        kept.append(&mut parents);
        if kept.len() == before {
            break;
        }
    }
    let mut pruned = Pruned::default();
    // The newest ones first: no set is left without what it goes on from.
    for set in listing.sets.iter().rev().filter(|set| !kept.contains(set.id())) {
        place.delete(&set.id().manifest()).await?;
        for segment in set.manifest.objects() {
            // A manifest names the objects of its set, whoever has written it.
            if segment.name.starts_with(&format!("backup-{}.", set.id())) {
                place.delete(&segment.name).await?;
            }
        }
        place.delete(&set.id().begun()).await?;
        pruned.sets.push(set.id().clone());
    }
    Ok(pruned)
}

fn kept(listing: &Listing, keep: Keep, now: TimestampMs) -> BTreeSet<SetId> {
    let whole = listing.sets.iter().rev().filter(|set| set.broken.is_none());
    whole
        .enumerate()
        .filter(|(number, set)| match keep {
            Keep::Newest(count) => *number < count.max(1),
            Keep::For(age) => {
                let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                *number == 0 || set.manifest.taken_at >= now.plus_ms(-age)
            }
        })
        .map(|(_, set)| set.id().clone())
        .collect()
}

/// Deletes what backups that were broken off have left: objects of sets without a manifest, of which none
/// was written for some time.
///
/// # Errors
/// Those of the store.
pub async fn clean(place: &Place, now: TimestampMs, age: Duration) -> Result<Vec<SetId>> {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let mut cleaned = Vec::new();
    for (set, unfinished) in place.list().await?.unfinished {
        // It may have been finished since.
        if unfinished.modified > now.plus_ms(-age) || place.is_set(&set).await? {
            continue;
        }
        for name in &unfinished.objects {
            place.delete(name).await?;
        }
        cleaned.push(set);
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ages_are_told_apart() {
        assert_eq!("7".parse::<Keep>().unwrap(), Keep::Newest(7));
        assert_eq!("30d".parse::<Keep>().unwrap(), Keep::For(Duration::from_secs(720 * 3_600)));
        assert_eq!("12h".parse::<Keep>().unwrap(), Keep::For(Duration::from_secs(12 * 3_600)));
        for bad in ["", "0", "0d", "d", "-1", "1.5d", "30 d", "7w", "99999999999", "1dd"] {
            let error = bad.parse::<Keep>().unwrap_err().to_string();
            assert!(error.contains("30d"), "{error}");
        }
    }
}
