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
            Some(at) => format!("since {}", utc(at)),
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

/// `2026-11-29 22:10:05 UTC`.
fn utc(at: TimestampMs) -> String {
    const DAY: i64 = 86_400;
    let seconds = at.0.div_euclid(1_000);
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Of the proleptic Gregorian calendar, in eras of 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199_999, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200_000, "2024-03-01 00:00:00 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
            (-62_135_596_800_000, "0001-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(TimestampMs(ms)), text);
        }
        // Broken clocks end no program.
        for ms in [i64::MIN, i64::MAX] {
            assert!(utc(TimestampMs(ms)).ends_with("UTC"));
        }
    }

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
