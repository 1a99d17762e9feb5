//! A frozen table: everyone reads it, nobody writes to it, until it is unfrozen.
//!
//! A table is frozen by one more writer feature in its protocol. So freezing is a commit: what was planned
//! before conflicts with it, it is published, every program that writes to the files refuses the table by the
//! feature's name, and the state is part of the bytes, which backups, copies and rebuilt catalogs keep. Readers
//! look at reader features only.
//!
//! Unlike the fence ([`crate::fence`]) it is hidden from no writer. Why and by whom a table was frozen stands
//! in the `commitInfo` of that commit, which is the one that set the protocol: none can come after it.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::features;
use deltalakedb_catalog_core::action::Protocol;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::frozen::{Frozen, is_one_line};
use deltalakedb_catalog_core::model::{CommitRecord, Snapshot};

/// Name of the writer feature.
pub const FEATURE: &str = features::FROZEN;
/// `operation` of the commit that freezes.
pub const FREEZE: &str = "FREEZE";
/// `operation` of the commit that unfreezes.
pub const UNFREEZE: &str = "UNFREEZE";
/// Parameter of both.
const REASON: &str = "reason";

/// Whether nothing is written to a table of this protocol.
#[must_use]
pub fn is_frozen(protocol: &Protocol) -> bool {
    // Wherever the name stands: in doubt the table is frozen.
    protocol.writer_features.iter().flatten().any(|name| name == FEATURE)
}

/// Why a table is frozen or unfrozen: some text on one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Reason(String);

impl Reason {
    /// Longest text, in characters.
    pub const MAX_CHARS: usize = 500;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Reason {
    type Err = CatalogError;

    /// # Errors
    /// `InvalidInput` for one that is empty, too long, or has control characters in it.
    fn from_str(text: &str) -> Result<Self> {
        let refused = |what: &str| Err(CatalogError::invalid(format!("a reason {what}")));
        let reason = text.trim();
        if reason.is_empty() {
            return refused("is not empty: leave it out where there is none");
        }
        if reason.chars().count() > Self::MAX_CHARS {
            return refused(&format!("has at most {} characters", Self::MAX_CHARS));
        }
        if !reason.chars().all(is_one_line) {
            return refused("is one line, without control characters");
        }
        Ok(Reason(reason.to_owned()))
    }
}

/// `operationParameters` of the commit.
pub(crate) fn parameters(reason: Option<&Reason>) -> Value {
    match reason {
        Some(reason) => json!({ REASON: reason.as_str() }),
        None => json!({}),
    }
}

/// What is said of a frozen table, from the commit that set its protocol.
pub(crate) fn told(head: &Snapshot, commit: Option<&CommitRecord>) -> Frozen {
    let info = commit.and_then(|commit| commit.commit_info.as_deref());
    let info: Value = info.and_then(|info| serde_json::from_str(info).ok()).unwrap_or_default();
    // A table may come from a log in which the commit itself is gone.
    let ours = info["operation"] == FREEZE;
    let word = |value: &Value| value.as_str().filter(|_| ours).map(str::to_owned);
    Frozen {
        table: head.table.name.to_string(),
        version: head.protocol_version,
        since: commit.filter(|_| ours).map(|commit| commit.timestamp),
        user: word(&info["userName"]),
        reason: word(&info["operationParameters"][REASON]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_one_line_of_text() {
        assert_eq!(" the store moves ".parse::<Reason>().unwrap().as_str(), "the store moves");
        let longest = "ü".repeat(Reason::MAX_CHARS);
        assert!(longest.parse::<Reason>().is_ok());
        for bad in ["", " ", "a\nb", "a\u{0}", "\u{1b}[31m", "a\u{202e}b", "a\u{2028}b"] {
            assert!(bad.parse::<Reason>().is_err(), "{bad:?}");
        }
        assert!((longest + "u").parse::<Reason>().is_err());
    }
}
