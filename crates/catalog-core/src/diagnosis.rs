//! What a look at a catalog's surroundings has found: settings of the database, rights, sizes, stores.

use std::fmt;

use serde::Serialize;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth to know.
    Note,
    /// It works, and something can be lost or slow.
    Warning,
    /// It does not work, or something will be lost.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        })
    }
}

/// What was done for a database by the way, see `tend` of each backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tended {
    /// What was done, or would be.
    pub done: Vec<String>,
    /// What was left, and why.
    pub left: Vec<String>,
}

impl Tended {
    /// Nothing is to be done, for this reason.
    #[must_use]
    pub fn nothing(why: impl Into<String>) -> Self {
        Tended { done: Vec::new(), left: vec![why.into()] }
    }
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// How much it matters.
    pub level: Level,
    /// What was looked at: `fsync`, `clock`, `store s3://bucket`.
    pub what: String,
    /// What is there.
    pub found: String,
    /// Why that matters; empty if all is well.
    pub why: String,
    /// What to do about it; empty if there is nothing to do.
    pub advice: String,
}

impl Diagnosis {
    /// Something that is as it should be.
    #[must_use]
    pub fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Diagnosis::new(Level::Ok, what, found, "", "")
    }

    /// A finding of any level.
    #[must_use]
    pub fn new(
        level: Level,
        what: impl Into<String>,
        found: impl Into<String>,
        why: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Diagnosis {
            level,
            what: what.into(),
            found: found.into(),
            why: why.into(),
            advice: advice.into(),
        }
    }
}
