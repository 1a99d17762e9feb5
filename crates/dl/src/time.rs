//! Times as people give and read them.

use chrono::{DateTime, SecondsFormat, TimeDelta};
use deltalakedb::core::ids::TimestampMs;

pub(crate) use deltalakedb::time::parse;

/// `2026-11-20 21:49:44.123`, UTC; takes back what it prints.
pub(crate) fn show(time: TimestampMs) -> String {
    match DateTime::from_timestamp_millis(time.0) {
        Some(utc) => {
            utc.to_rfc3339_opts(SecondsFormat::Millis, true).replace('T', " ").replace('Z', "")
        }
        // Beyond year 262,000: some writers' broken clocks.
        None => time.to_string(),
    }
}

/// A length of time: `1.2 s`, `3 min 20 s`, `2 d 4 h`.
pub(crate) fn show_duration(ms: i64) -> String {
    let delta = TimeDelta::milliseconds(ms.max(0));
    let (days, hours) = (delta.num_days(), delta.num_hours() % 24);
    let (minutes, seconds) = (delta.num_minutes() % 60, delta.num_seconds() % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes} min")
    } else if minutes > 0 {
        format!("{minutes} min {seconds} s")
    } else {
        format!("{seconds}.{} s", (delta.num_milliseconds() % 1000) / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_name_the_same_moment() {
        for text in [
            "2026-01-02T03:04:05Z",
            "2026-01-02T05:04:05+02:00",
            "2026-01-02 03:04:05",
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05.000",
            "1767323045000",
        ] {
            assert_eq!(parse(text).unwrap(), TimestampMs(1_767_323_045_000), "{text}");
        }
        assert_eq!(parse("2026-01-02").unwrap(), parse("2026-01-02T00:00:00Z").unwrap());
        assert_eq!(parse(" -1 ").unwrap(), TimestampMs(-1));
    }

    #[test]
    fn nonsense_is_refused_with_the_forms() {
        for text in ["", "yesterday", "2026-13-01", "2026-02-30", "12:00", "99999999999999999999"] {
            let e = parse(text).unwrap_err().to_string();
            assert!(e.contains("RFC 3339"), "{e}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for ms in [0, 1, 1_767_323_045_123, -1, -62_135_596_800_000] {
            assert_eq!(parse(&show(TimestampMs(ms))).unwrap(), TimestampMs(ms));
        }
        assert_eq!(show(TimestampMs(i64::MAX)), i64::MAX.to_string());
    }

    #[test]
    fn durations_keep_two_units() {
        for (ms, text) in [
            (-5, "0.0 s"),
            (1_250, "1.2 s"),
            (200_000, "3 min 20 s"),
            (3_600_000, "1 h 0 min"),
            (187_200_000, "2 d 4 h"),
        ] {
            assert_eq!(show_duration(ms), text);
        }
    }
}
