//! What a log says in another way than the protocol does, for a person.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::backend::ImportedCommit;
use deltalakedb_catalog_core::lenient::{Oddities, Oddity};

/// What is written in another way than the protocol's: how often, and where first.
#[derive(Default)]
pub(super) struct Noted {
    found: BTreeMap<Oddity, (u64, String)>,
    /// Of the beginning of the log.
    pub(super) first: Vec<String>,
}

impl Noted {
    pub(super) fn take(&mut self, odd: &Oddities, place: impl Fn() -> String) {
        for (oddity, seen) in odd.iter() {
            let place = || match seen.line {
                0 => place(),
                line => format!("{}, line {line}", place()),
            };
            self.found
                .entry(oddity.clone())
                .and_modify(|(count, _)| *count = count.saturating_add(seen.count))
                .or_insert_with(|| (seen.count, place()));
        }
    }

    /// Of commits whose files were all read.
    pub(super) fn take_commits(&mut self, commits: &[ImportedCommit]) {
        for commit in commits {
            let place = || format!("version {}", commit.version);
            self.take(&commit.index.odd, place);
            if let Some(later) = &commit.later {
                self.take(&later.odd(), place);
            }
        }
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        let found = self.found.iter().map(|(oddity, (count, place))| {
            let times =
                if *count == 1 { String::new() } else { format!(", {count} times from there on") };
            format!("the log is not written as the protocol says: {oddity} ({place}{times})")
        });
        self.first.iter().cloned().chain(found).collect()
    }
}
