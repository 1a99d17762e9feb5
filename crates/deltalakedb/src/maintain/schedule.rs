//! When passes begin.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use deltalakedb_catalog_core::ids::TimestampMs;

use crate::uri::parse_duration;

/// The shortest pause: what is shorter is a slip.
const SHORTEST: Duration = Duration::from_secs(1);

/// Every so often, or at the moments of a cron expression (five fields, or `@daily` and the like) in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Every(Duration),
    Cron(Box<Cron>),
}

impl Schedule {
    /// Every so often.
    #[must_use]
    pub fn every(pause: Duration) -> Schedule {
        let pause = pause.max(SHORTEST);
        Schedule { text: format!("{}s", pause.as_secs()), kind: Kind::Every(pause) }
    }

    /// Whether a first pass begins at once: moments of a cron expression are waited for.
    #[must_use]
    pub fn begins_at_once(&self) -> bool {
        matches!(self.kind, Kind::Every(_))
    }

    /// The first moment after this one. None: there is none in the years that can be told.
    #[must_use]
    pub fn next(&self, after: TimestampMs) -> Option<TimestampMs> {
        match &self.kind {
            Kind::Every(pause) => {
                let ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
                Some(after.plus_ms(ms))
            }
            Kind::Cron(cron) => {
                let after = DateTime::<Utc>::from_timestamp_millis(after.0)?;
                let next = cron.find_next_occurrence(&after, false).ok()?;
                Some(TimestampMs(next.timestamp_millis()))
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Schedule {
    /// What is right; the text is not repeated.
    type Err = String;

    fn from_str(text: &str) -> Result<Schedule, String> {
        let text = text.trim();
        let bad = |why: &str| {
            Err(format!(
                "{why}: it is a duration such as 30m, 1h, 1d, or a cron expression of five fields in UTC such \
                 as \"30 2 * * *\" (every night at half past two)"
            ))
        };
        if let Some(pause) = parse_duration(text) {
            if pause < SHORTEST {
                return bad("must be a second at least");
            }
            return Ok(Schedule { text: text.to_owned(), kind: Kind::Every(pause) });
        }
        // Fields that other programs read in other ways (seconds, years) are no part of it.
        let fields = text.split_whitespace().count();
        if fields != 5 && !(fields == 1 && text.starts_with('@')) {
            return bad("must be a schedule");
        }
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let Ok(cron) = parser.parse(text) else { return bad("must be a schedule") };
        let schedule = Schedule { text: text.to_owned(), kind: Kind::Cron(Box::new(cron)) };
        // As the 30th of February.
        if schedule.next(TimestampMs(0)).is_none() {
            return bad("has no such day");
        }
        Ok(schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> TimestampMs {
        TimestampMs(DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis())
    }

    #[test]
    fn moments_are_those_that_cron_has() {
        for (text, after, next) in [
            ("30 2 * * *", "2026-11-29T02:29:59Z", "2026-11-29T02:30:00Z"),
            ("30 2 * * *", "2026-11-29T02:30:00Z", "2026-11-30T02:30:00Z"),
            ("*/15 * * * *", "2026-11-29T23:50:00Z", "2026-11-30T00:00:00Z"),
            ("0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Vixie's rule: either of the two days.
            ("0 0 13 * 5", "2026-11-07T00:00:00Z", "2026-11-13T00:00:00Z"),
            ("0 0 14 * 5", "2026-11-07T00:00:00Z", "2026-11-13T00:00:00Z"),
            ("@daily", "2026-12-31T12:00:00Z", "2027-01-01T00:00:00Z"),
            ("0 3 * * SUN", "2026-11-29T04:00:00Z", "2026-12-06T03:00:00Z"),
            ("90m", "2026-11-29T00:00:00Z", "2026-11-29T01:30:00Z"),
            ("60", "2026-11-29T00:00:00Z", "2026-11-29T00:01:00Z"),
        ] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.next(at(after)), Some(at(next)), "{text} after {after}");
            assert_eq!(schedule.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "soon",
            "0",
            "500ms",
            "* * * *",
            "* * * * * *",
            "0 0 30 2 *",
            "60 * * * *",
            "* 24 * * *",
            "-1h",
            "@never",
            "* * * * * * *",
            "\u{0}",
            "*/0 * * * *",
        ] {
            let error = text.parse::<Schedule>().unwrap_err();
            assert!(error.contains("30 2 * * *"), "{text}: {error}");
        }
    }
}
