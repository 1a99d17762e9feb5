//! Where backups are: a folder, or a prefix of an object store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::sink::{MirrorSink, PutOutcome};
use deltalakedb_mirror::sink::open_log_sink;
use deltalakedb_mirror::store::normalize_location;
use serde::{Deserialize, Serialize};

use super::format::{self, Manifest, Segment};
use super::set::{Object, SetId};

/// A folder or a prefix of an object store with backups in it. Other objects there are left alone.
#[derive(Debug, Clone)]
pub struct Place {
    sink: Arc<dyn MirrorSink>,
}

/// A set that is there.
#[derive(Debug, Clone)]
pub struct Set {
    /// What it is made of.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's object, hex.
    pub sha256: String,
    /// Why nothing can be restored from it: a set that it goes on from is missing or another one.
    pub broken: Option<String>,
}

impl Set {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &SetId {
        &self.manifest.set
    }

    /// Bytes of its objects.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.manifest.objects().fold(0, |sum, segment| sum.saturating_add(segment.size_bytes))
    }
}

/// What stands in the marker of a set that is being written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The set that it goes on from.
    pub(super) parent: Option<SetId>,
}

/// A set without a manifest: it is being written, or was broken off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Names of its objects.
    pub objects: BTreeSet<String>,
    /// Bytes of its objects.
    pub size_bytes: u64,
    /// When the last one was written.
    pub modified: TimestampMs,
}

/// Everything of backups that is in a place.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Sets, in the order in which they were taken.
    pub sets: Vec<Set>,
    /// Sets whose manifest cannot be read, and why.
    pub unreadable: BTreeMap<SetId, String>,
    /// Sets without a manifest.
    pub unfinished: BTreeMap<SetId, Unfinished>,
}

impl Listing {
    /// A set that can be restored.
    ///
    /// # Errors
    /// `InvalidInput` if there is none of this name, `Corrupt` if nothing can be restored from it.
    pub fn get(&self, set: &SetId) -> Result<&Set> {
        if let Some(why) = self.unreadable.get(set) {
            return Err(CatalogError::corrupt(why.clone()));
        }
        let Some(found) = self.sets.iter().find(|found| found.id() == set) else {
            return Err(CatalogError::invalid(if self.unfinished.contains_key(set) {
                format!("set {set} is not finished: a backup is writing it, or was broken off")
            } else {
                format!("there is no set {set}: `dl backup list` lists those that are there")
            }));
        };
        match &found.broken {
            Some(why) => Err(CatalogError::corrupt(format!("set {set}: {why}"))),
            None => Ok(found),
        }
    }

    /// The newest set that can be restored.
    #[must_use]
    pub fn newest(&self) -> Option<&Set> {
        self.sets.iter().rev().find(|set| set.broken.is_none())
    }

    /// A set and those that it goes on from, the oldest one first.
    ///
    /// # Errors
    /// Those of [`Listing::get`].
    pub(super) fn chain(&self, set: &SetId) -> Result<Vec<Set>> {
        let mut chain = vec![self.get(set)?.clone()];
        while let Some(parent) = chain.last().and_then(|set| set.manifest.parent.as_ref()) {
            let next = self.get(&parent.set)?.clone();
            chain.push(next);
        }
        chain.reverse();
        Ok(chain)
    }
}

impl Place {
    /// Opens a place: a path, or a URL with its storage options. Nothing is read or written yet.
    ///
    /// # Errors
    /// `InvalidInput` for what is no location, or for options that the store does not accept;
    /// `Unsupported` if this build cannot open it.
    pub fn open(target: &str, options: &BTreeMap<String, String>) -> Result<Place> {
        Ok(Place { sink: open_log_sink(&normalize_location(target)?, options)? })
    }

    /// A place in any sink.
    #[must_use]
    pub fn of(sink: Arc<dyn MirrorSink>) -> Place {
        Place { sink }
    }

    /// For messages.
    #[must_use]
    pub fn describe(&self) -> String {
        self.sink.describe()
    }

    /// Lists what is there.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut manifests = BTreeSet::new();
        for entry in self.sink.list(None).await? {
            let Some(object) = Object::parse(&entry.name) else { continue };
            let (Object::Begun(set) | Object::Segment(set)) = object else {
                if let Object::Manifest(set) = object {
                    manifests.insert(set);
                }
                continue;
            };
            let unfinished = listing.unfinished.entry(set).or_default();
            unfinished.objects.insert(entry.name);
            unfinished.size_bytes = unfinished.size_bytes.saturating_add(entry.size_bytes);
            unfinished.modified = unfinished.modified.max(entry.modified);
        }
        for set in manifests {
            listing.unfinished.remove(&set);
            match self.set(&set).await {
                Ok(Some(found)) => listing.sets.push(found),
                // Deleted meanwhile.
                Ok(None) => {}
                Err(error @ (CatalogError::Corrupt(_) | CatalogError::Unsupported(_))) => {
                    listing.unreadable.insert(set, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        listing
            .sets
            .sort_by(|a, b| (a.manifest.taken_at, a.id()).cmp(&(b.manifest.taken_at, b.id())));
        note_broken(&mut listing.sets);
        Ok(listing)
    }

    /// A set, if it is there.
    async fn set(&self, set: &SetId) -> Result<Option<Set>> {
        let name = set.manifest();
        let Some(object) = self.sink.get(&name).await? else { return Ok(None) };
        let manifest = format::unseal(&name, &object)?;
        if manifest.set != *set {
            return Err(CatalogError::corrupt(format!(
                "'{name}' is the manifest of another set, {}: it was renamed",
                manifest.set
            )));
        }
        Ok(Some(Set { manifest, sha256: format::sha256(&object), broken: None }))
    }

    /// Says that a set is being written.
    pub(super) async fn begin(&self, set: &SetId, begun: &Begun) -> Result<()> {
        let text = serde_json::to_vec(begun)
            .map_err(|e| CatalogError::corrupt(format!("a marker cannot be written: {e}")))?;
        self.sink.put_replace(&set.begun(), text.into()).await
    }

    /// What the marker of an unfinished set says.
    pub(super) async fn begun(&self, set: &SetId) -> Result<Begun> {
        let found = self.sink.get(&set.begun()).await?;
        Ok(found.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
    }

    /// Writes an object that must not be there yet.
    pub(super) async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        if self.sink.put_if_absent(name, bytes.clone()).await? == PutOutcome::Created {
            return Ok(());
        }
        // A store's client repeats a put whose answer was lost.
        if self.sink.get(name).await?.as_ref() == Some(&bytes) {
            return Ok(());
        }
        Err(CatalogError::corrupt(format!(
            "'{}/{name}' is there already, with other bytes: another program has written it. Back up \
             again, or to another place",
            self.describe()
        )))
    }

    /// Whether the objects of an unfinished set are all there, with their sizes.
    pub(super) async fn has_all(&self, of: &Manifest) -> Result<bool> {
        let found: BTreeMap<String, u64> = self
            .sink
            .list(None)
            .await?
            .into_iter()
            .map(|entry| (entry.name, entry.size_bytes))
            .collect();
        Ok(of.objects().all(|segment| found.get(&segment.name) == Some(&segment.size_bytes)))
    }

    /// Reads and checks a segment.
    ///
    /// # Errors
    /// `Corrupt` if it is missing, torn or changed; those of the store.
    pub(super) async fn segment(&self, segment: &Segment) -> Result<Bytes> {
        let Some(object) = self.sink.get(&segment.name).await? else {
            return Err(CatalogError::corrupt(format!(
                "'{}/{}' is missing: its set cannot be restored",
                self.describe(),
                segment.name
            )));
        };
        let segment = segment.clone();
        let unpacked = tokio::task::spawn_blocking(move || format::unpack(&segment, &object)).await;
        unpacked.map_err(|e| {
            let write = deltalakedb_catalog_core::error::WriteState::NotApplied;
            CatalogError::failed(format!("unpacking a segment broke off: {e}"), write)
        })?
    }

    /// Whether a set has a manifest.
    pub(super) async fn is_set(&self, set: &SetId) -> Result<bool> {
        Ok(self.sink.get(&set.manifest()).await?.is_some())
    }

    /// Deletes an object of a backup.
    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        if Object::parse(name).is_none() {
            return Err(CatalogError::invalid(format!("'{name}' is no object of a backup")));
        }
        self.sink.delete(name).await
    }
}

/// Finds sets whose parents are gone, or other ones.
fn note_broken(sets: &mut [Set]) {
    let seals: BTreeMap<SetId, (String, Option<format::Parent>)> = sets
        .iter()
        .map(|set| (set.id().clone(), (set.sha256.clone(), set.manifest.parent.clone())))
        .collect();
    for set in sets {
        let mut parent = set.manifest.parent.as_ref();
        let mut steps = 0;
        while let Some(wanted) = parent {
            steps += 1;
            let found = seals.get(&wanted.set);
            match found {
                Some((sha256, _)) if *sha256 != wanted.sha256 => {
                    let what = "it goes on from set {}, whose manifest is another one by now";
                    set.broken = Some(what.replace("{}", wanted.set.as_str()));
                }
                None => {
                    set.broken =
                        Some(format!("it goes on from set {}, which is not there", wanted.set));
                }
                // Only somebody who means harm makes a ring.
                Some(_) if steps > seals.len() => {
                    set.broken = Some("the sets that it goes on from form a ring".to_owned());
                }
                Some(_) => {}
            }
            if set.broken.is_some() {
                break;
            }
            parent = found.and_then(|(_, parent)| parent.as_ref());
        }
    }
}
