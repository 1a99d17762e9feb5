//! What is said of a table that takes no commits for the time being.

use std::fmt;

use serde::Serialize;

use crate::ids::{TimestampMs, Version};

/// Of a text in a commit, so many characters are shown: others may have written it.
const MOST_CHARS: usize = 600;

/// A frozen table: since when, by whom, and why, as far as its history says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Frozen {
    /// The table, as the catalog names it.
    pub table: String,
    /// The version that froze it.
    pub version: Version,
    /// When that version was committed; none if the catalog does not have that commit.
    pub since: Option<TimestampMs>,
    /// On whose behalf.
    pub user: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

impl Frozen {
    /// `since 2026-11-29 22:10:05 UTC by ann: the store moves`: what is known of it.
    #[must_use]
    pub fn details(&self) -> String {
        let mut text = match self.since {
            Some(at) => format!("since {}", at.utc()),
            None => format!("since version {}", self.version),
        };
        if let Some(user) = &self.user {
            text.push_str(" by ");
            text.push_str(&shown(user));
        }
        if let Some(reason) = &self.reason {
            text.push_str(": ");
            text.push_str(&shown(reason));
        }
        text
    }
}

/// The whole message of a refusal.
impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = &self.table;
        write!(
            f,
            "table '{table}' is frozen {}. It can be read; nothing is written to it until \
             `dl unfreeze {table}`",
            self.details()
        )
    }
}

/// A text of others on one line, to a bound.
fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut out: String =
        chars.by_ref().take(MOST_CHARS).map(|c| if is_one_line(c) { c } else { ' ' }).collect();
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// Whether a character stays on its line, and leaves the direction of what follows alone.
#[must_use]
pub fn is_one_line(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_written_stays_on_a_line() {
        let mut frozen = Frozen {
            table: "a.b".to_owned(),
            version: Version::ZERO,
            since: Some(TimestampMs(0)),
            user: Some("an\u{1b}n\n".to_owned()),
            reason: Some("x".repeat(10_000)),
        };
        let text = frozen.to_string();
        assert!(
            text.starts_with("table 'a.b' is frozen since 1970-01-01 00:00:00 UTC by an n : xx")
        );
        assert!(
            text.len() < 1_000
                && text.ends_with(
                    "…. It can be read; nothing is written to it until `dl unfreeze a.b`"
                )
        );
        frozen = Frozen { since: None, user: None, reason: None, ..frozen };
        assert_eq!(frozen.details(), "since version 0");
    }
}
