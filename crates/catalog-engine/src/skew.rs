//! How far the clock of a writer is from that of its database.
//!
//! The times of a table's versions only grow, and a version's time is that of its writer's clock unless
//! the head is later. So one commit of a writer whose clock is a year ahead would pin the table's time for a
//! year. Databases on machines of their own say what time it is there ([`BackendInfo::clock`]), and a commit
//! from a clock that is too far ahead is refused before anything is sent. A database within the process has
//! the writer's own clock: there only a head of the future tells, and that is a warning.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deltalakedb_catalog_core::backend::BackendInfo;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{TableId, TimestampMs};
use deltalakedb_catalog_core::model::Snapshot;

/// How far a writer's clock may be ahead of its database's, unless told otherwise.
pub const DEFAULT_MAX_CLOCK_SKEW: Duration = Duration::from_secs(3_600);
/// After so long the clocks are compared again, milliseconds of the writer's clock: whatever that does in
/// between, it cannot get further away than this without being noticed.
const COMPARE_EVERY_MS: i64 = 600_000;
/// A difference of more than this is worth a warning, milliseconds.
const NOTABLE_MS: i64 = 60_000;
/// Tables that are remembered to have been warned of.
const MOST_WARNED: usize = 256;

/// The two clocks at one moment.
#[derive(Debug, Clone, Copy)]
struct Compared {
    writer: TimestampMs,
    /// None if the database has no clock of its own.
    database: Option<TimestampMs>,
}

impl Compared {
    /// How far the writer is ahead, milliseconds.
    fn ahead_ms(&self) -> Option<i64> {
        self.database.map(|database| self.writer.0.saturating_sub(database.0))
    }
}

/// What a catalog knows of its clock.
#[derive(Debug)]
pub(crate) struct Skew {
    max: Duration,
    compared: Mutex<Option<Compared>>,
    warned: Mutex<BTreeSet<TableId>>,
}

impl Skew {
    pub(crate) fn new(max: Duration) -> Self {
        Skew { max, compared: Mutex::default(), warned: Mutex::default() }
    }

    fn max_ms(&self) -> i64 {
        i64::try_from(self.max.as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether the clocks are to be compared before a commit at this time.
    pub(crate) fn is_due(&self, now: TimestampMs) -> bool {
        let compared = *self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        compared.is_none_or(|last| {
            let since = now.0.saturating_sub(last.writer.0);
            last.database.is_some() && !(0..COMPARE_EVERY_MS).contains(&since)
        })
    }

    /// Takes what the database said; `asked` is the writer's time before it was asked, so that a slow answer
    /// makes no difference that is not there.
    pub(crate) fn compare(&self, asked: TimestampMs, info: &BackendInfo) {
        let now = Compared { writer: asked, database: info.clock };
        if let (Some(ahead), Some(database)) = (now.ahead_ms(), now.database)
            && ahead.abs() > NOTABLE_MS
        {
            tracing::warn!(
                "the clock of this machine ({}) is {} that of the database ({}): versions get the \
                 times of whoever writes them, so all writers need the right time (NTP)",
                asked.utc(),
                apart(ahead),
                database.utc()
            );
        }
        *self.compared.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Refuses a commit from a clock that is too far ahead.
    pub(crate) fn check(&self) -> Result<()> {
        let compared = *self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((Compared { writer, database: Some(database) }, ahead)) =
            compared.and_then(|both| both.ahead_ms().map(|ahead| (both, ahead)))
        else {
            return Ok(());
        };
        if ahead <= self.max_ms() {
            return Ok(());
        }
        Err(CatalogError::failed(
            format!(
                "nothing was committed: the clock of this machine says {}, that of the database {}, \
                 which is {} apart. The times of a table's versions only grow, so this commit would \
                 give all later ones times of the future, too. Set the clock right (NTP); up to {} \
                 are allowed (max_clock_skew in the catalog's URL)",
                writer.utc(),
                database.utc(),
                length(ahead),
                length(self.max_ms())
            ),
            WriteState::NotApplied,
        ))
    }

    /// What is to be said, once a table, of a head that is later than now by more than is allowed: it is of
    /// an import, or of a writer that nobody stopped. Commits go on, a millisecond after one another.
    pub(crate) fn warning(&self, head: &Snapshot, now: TimestampMs) -> Option<String> {
        let ahead = head.timestamp.0.saturating_sub(now.0);
        if ahead <= self.max_ms() {
            return None;
        }
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() >= MOST_WARNED {
            warned.clear();
        }
        warned.insert(head.table.id).then(|| {
            format!(
                "version {} of table '{}' is of {}, {} after now ({}): until then its new versions \
                 are a millisecond apart, and none of them is found by the time of its commit",
                head.version,
                head.table.name,
                head.timestamp.utc(),
                length(ahead),
                now.utc()
            )
        })
    }
}

/// "3.0 h ahead of", "2.0 min behind".
fn apart(ahead_ms: i64) -> String {
    let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
    format!("{} {side}", length(ahead_ms.saturating_abs()))
}

/// A length of time for people.
fn length(ms: i64) -> String {
    let units = [(86_400_000_i64, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    match units.iter().find(|(unit, _)| ms >= *unit) {
        Some((unit, name)) => {
            let tenths = ms / (unit / 10);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(clock: Option<i64>) -> BackendInfo {
        BackendInfo {
            kind: "test",
            server_version: "1".to_owned(),
            schema_version: 1,
            supported_schema_version: 1,
            clock: clock.map(TimestampMs),
            keeps_audit: true,
        }
    }

    #[test]
    fn times_are_for_people() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_827_696_789, "2000-02-29 12:34:56 UTC"),
            (1_700_000_000_000, "2023-11-14 22:13:20 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
            (253_402_300_799_999, "9999-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(TimestampMs(ms).utc(), text);
        }
        // No time is too odd to be printed.
        for ms in [i64::MIN, i64::MAX] {
            assert!(TimestampMs(ms).utc().ends_with("UTC"));
        }
        assert_eq!(apart(-90_000), "1.5 min behind");
        assert_eq!(apart(31_536_000_000), "365.0 days ahead of");
        assert_eq!(length(12), "12 ms");
    }

    #[test]
    fn what_is_allowed_is_allowed_and_no_more() {
        let skew = Skew::new(DEFAULT_MAX_CLOCK_SKEW);
        assert!(skew.is_due(TimestampMs(0)));
        let hour = 3_600_000;
        for (ahead, allowed) in
            [(0, true), (hour, true), (hour + 1, false), (-10 * hour, true), (i64::MAX, false)]
        {
            skew.compare(TimestampMs(ahead), &info(Some(0)));
            assert_eq!(skew.check().is_ok(), allowed, "{ahead}");
        }
        // A database without a clock of its own is asked once.
        skew.compare(TimestampMs(5), &info(None));
        skew.check().unwrap();
        assert!(!skew.is_due(TimestampMs(i64::MAX)));
    }

    #[test]
    fn a_clock_that_jumps_is_compared_again() {
        let skew = Skew::new(DEFAULT_MAX_CLOCK_SKEW);
        skew.compare(TimestampMs(1_000_000), &info(Some(1_000_000)));
        for (now, due) in [
            (1_000_000, false),
            (1_000_000 + COMPARE_EVERY_MS - 1, false),
            (1_000_000 + COMPARE_EVERY_MS, true),
            (999_999, true),
            (i64::MAX, true),
        ] {
            assert_eq!(skew.is_due(TimestampMs(now)), due, "{now}");
        }
    }
}
