//! Differences between source and target, for people.

use std::fmt::Debug;

use deltalakedb_catalog_core::ids::Version;

/// Differences of a table that are listed.
const MAX_LISTED: usize = 20;
/// Characters of a value in a difference.
const MAX_VALUE: usize = 200;

/// Differences found, of which the first are kept.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    listed: Vec<String>,
    count: usize,
}

impl Differences {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one.
    pub(crate) fn add(&mut self, text: impl FnOnce() -> String) {
        if self.listed.len() < MAX_LISTED {
            self.listed.push(text());
        }
        self.count += 1;
    }

    /// Adds one unless both are equal.
    pub(crate) fn check<T: PartialEq + Debug>(&mut self, what: &str, source: &T, target: &T) {
        if source != target {
            self.add(|| {
                format!("{what}: {} at the source, {} at the target", cut(source), cut(target))
            });
        }
    }

    /// Their number and the first of them.
    pub(crate) fn into_parts(self) -> (usize, Vec<String>) {
        (self.count, self.listed)
    }
}

fn cut<T: Debug>(value: &T) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A head, for people.
pub(crate) fn version(version: Option<Version>) -> String {
    version.map_or_else(|| "none".to_owned(), |version| version.to_string())
}
