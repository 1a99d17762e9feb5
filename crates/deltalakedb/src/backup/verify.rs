//! Reads every object of a set.

use std::sync::Arc;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::registry::RecordWrite;
use deltalakedb_catalog_engine::env::Progress;
use serde::Serialize;

use super::format::{Counts, Entry, commit_of, entry_at};
use super::place::{Place, Set};
use super::read::{Chain, Item};
use super::set::SetId;
use crate::copy::Limits;

/// Problems that a report lists of a set.
const MAX_LISTED: usize = 20;

/// What was found of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The set.
    pub set: SetId,
    /// Objects that were read.
    pub objects: usize,
    /// Their bytes.
    pub size_bytes: u64,
    /// What they hold.
    pub counts: Counts,
    /// What is wrong; the first of it.
    pub problems: Vec<String>,
}

/// Reads and checks all objects of a set and of those that it goes on from, or of all sets: checksums,
/// sizes, counts, texts of commits, and that no version is missing.
///
/// # Errors
/// `InvalidInput` if there is no such set; those of the store. What is damaged is in the report.
pub async fn verify(
    place: &Place,
    set: Option<&SetId>,
    progress: &dyn Progress,
) -> Result<Vec<Verified>> {
    let listing = place.list().await?;
    let sets: Vec<Set> = match set {
        Some(set) if !listing.unreadable.contains_key(set) => {
            let named = listing.sets.iter().find(|found| found.id() == set);
            match named {
                Some(named) if named.broken.is_some() => vec![named.clone()],
                _ => listing.chain(set)?,
            }
        }
        Some(_) => Vec::new(),
        None => listing.sets.clone(),
    };
    let total = sets.iter().map(|set| set.manifest.objects().count()).sum::<usize>();
    progress.begin("Verifying", "objects", u64::try_from(total).ok());
    let mut found = Vec::new();
    for set in &sets {
        let mut one = Verified {
            set: set.id().clone(),
            objects: 0,
            size_bytes: 0,
            counts: Counts::default(),
            problems: Vec::new(),
        };
        one.problems.extend(set.broken.clone());
        objects(place, set, &mut one, progress).await?;
        let goes_on = |other: &Set| {
            other.manifest.parent.as_ref().is_some_and(|parent| parent.set == *set.id())
        };
        // What a later set goes on from is read with that one.
        if one.problems.is_empty() && !sets.iter().any(goes_on) {
            // Every table of it can be read from its first version to its last.
            let chain = Chain::open(place, listing.chain(set.id())?).await;
            match chain {
                Ok(chain) => {
                    tables(&chain, &mut one).await?;
                    if let Err(error) = chain.registry().await {
                        note(&mut one, error)?;
                    }
                }
                Err(error) => note(&mut one, error)?,
            }
        }
        found.push(one);
    }
    progress.end();
    for (id, why) in &listing.unreadable {
        if set.is_none_or(|set| set == id) {
            found.push(Verified {
                set: id.clone(),
                objects: 0,
                size_bytes: 0,
                counts: Counts::default(),
                problems: vec![why.clone()],
            });
        }
    }
    Ok(found)
}

/// Notes what is damaged; what cannot be read at all ends the work.
fn note(one: &mut Verified, error: CatalogError) -> Result<()> {
    match error {
        CatalogError::Corrupt(text) | CatalogError::Unsupported(text) => {
            if one.problems.len() < MAX_LISTED {
                one.problems.push(text);
            }
            Ok(())
        }
        other => Err(other),
    }
}

async fn objects(
    place: &Place,
    set: &Set,
    one: &mut Verified,
    progress: &dyn Progress,
) -> Result<()> {
    for segment in set.manifest.objects() {
        progress.advance(1);
        let raw = match place.segment(segment).await {
            Ok(raw) => raw,
            Err(error) => {
                note(one, error)?;
                continue;
            }
        };
        one.objects += 1;
        one.size_bytes = one.size_bytes.saturating_add(segment.size_bytes);
        let (mut at, mut entries) = (0, 0_u64);
        loop {
            let entry = match entry_at(&raw, at) {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => {
                    note(one, CatalogError::corrupt(format!("'{}': {error}", segment.name)))?;
                    break;
                }
            };
            at = entry.2;
            entries += 1;
            match entry.0 {
                Entry::Commit(line) => {
                    one.counts.commits += 1;
                    let (record, text) = commit_of(line, entry.1);
                    let unpacked = text.into_body().and_then(|body| body.published().map(|_| ()));
                    if let Err(error) = unpacked {
                        let what = format!(
                            "'{}': version {} of table {}: {error}",
                            segment.name, record.version, record.table_id
                        );
                        note(one, CatalogError::corrupt(what))?;
                    }
                }
                Entry::File(_) => one.counts.files += 1,
                Entry::Tombstone(_) => one.counts.tombstones += 1,
                Entry::Row(_) => one.counts.tables += 1,
                Entry::Audit(row) => {
                    one.counts.audit += 1;
                    if let Err(error) = row.entry.check() {
                        let what = format!("'{}': row {}: {error}", segment.name, row.id);
                        note(one, CatalogError::corrupt(what))?;
                    }
                }
                Entry::Record(record) => {
                    one.counts.registry += 1;
                    if let Err(error) = RecordWrite::check_body(&record.key, &record.body) {
                        note(one, CatalogError::corrupt(format!("'{}': {error}", segment.name)))?;
                    }
                }
                _ => {}
            }
        }
        if entries != segment.entries {
            let what = format!(
                "'{}' has {entries} entries, its manifest says {}",
                segment.name, segment.entries
            );
            note(one, CatalogError::corrupt(what))?;
        }
    }
    if one.problems.is_empty() && one.counts != set.manifest.counts {
        let what =
            format!("it holds {:?}, its manifest says {:?}", one.counts, set.manifest.counts);
        note(one, CatalogError::corrupt(what))?;
    }
    Ok(())
}

async fn tables(chain: &Arc<Chain>, one: &mut Verified) -> Result<()> {
    for table in &chain.tables {
        let walked = async {
            let stored = chain.table(&table.record, table.from_json, Limits::default())?;
            let mut walk = stored.walk(None);
            let mut timestamp = None;
            while let Some(item) = walk.next().await? {
                if let Item::Commit(record, _) = item {
                    timestamp = Some(record.timestamp);
                }
            }
            Ok::<_, CatalogError>(timestamp)
        };
        match walked.await {
            Ok(timestamp) => {
                if timestamp.is_some() && timestamp != table.record.head_timestamp {
                    let what = format!("table '{}' does not end with its head", table.record.name);
                    note(one, CatalogError::corrupt(what))?;
                }
            }
            Err(error) => note(one, error)?,
        }
    }
    Ok(())
}
