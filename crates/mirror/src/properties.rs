//! Table properties that decide what is published. A value that cannot be read counts as absent,
//! as in other engines: a typing error in a property must not stop publishing.

use deltalakedb_catalog_core::action::Metadata;

/// `delta.checkpointInterval` where it is not set.
const DEFAULT_CHECKPOINT_INTERVAL: i64 = 10;
/// `delta.deletedFileRetentionDuration` where it is not set: one week.
const DEFAULT_TOMBSTONE_RETENTION_MS: i64 = 7 * 24 * 3_600_000;

/// `delta.logRetentionDuration` where it is not set: 30 days.
const DEFAULT_LOG_RETENTION_MS: i64 = 30 * 24 * 3_600_000;

/// `delta.enableExpiredLogCleanup`: whether expired log files are deleted. True if not set, but for tables whose
/// checkpoints are protected (`delta.requireCheckpointProtectionBeforeVersion`): their history may go as a whole only,
/// by a writer that has that feature.
pub(crate) fn expired_log_cleanup(metadata: &Metadata) -> bool {
    let protected = metadata
        .property("delta.requireCheckpointProtectionBeforeVersion")
        .is_some_and(|value| value.trim().parse::<i64>() != Ok(0));
    !protected
        && metadata
            .property("delta.enableExpiredLogCleanup")
            .is_none_or(|value| !value.trim().eq_ignore_ascii_case("false"))
}

/// `delta.logRetentionDuration`, milliseconds: how long a version stays readable in the log.
pub(crate) fn log_retention_ms(metadata: &Metadata) -> i64 {
    metadata
        .property("delta.logRetentionDuration")
        .map_or(Some(DEFAULT_LOG_RETENTION_MS), parse_interval_ms)
        // What cannot be read is no reason to delete anything.
        .unwrap_or(i64::MAX)
}

/// `delta.checkpoint.writeStatsAsJson`: whether checkpoints hold statistics as text. True if not set.
pub(crate) fn stats_as_json(metadata: &Metadata) -> bool {
    metadata
        .property("delta.checkpoint.writeStatsAsJson")
        .is_none_or(|value| !value.trim().eq_ignore_ascii_case("false"))
}

/// `delta.checkpoint.writeStatsAsStruct`: whether checkpoints hold statistics and partition values as
/// typed columns. If not set, only where they would be lost else.
pub(crate) fn stats_as_struct(metadata: &Metadata) -> bool {
    metadata
        .property("delta.checkpoint.writeStatsAsStruct")
        .map_or(!stats_as_json(metadata), |value| value.trim().eq_ignore_ascii_case("true"))
}

/// `delta.checkpointPolicy`: whether checkpoints are V2 ones under names of their own, with sidecars.
/// Only tables with the feature `v2Checkpoint` may have them.
pub(crate) fn checkpoint_policy_v2(metadata: &Metadata) -> bool {
    metadata
        .property("delta.checkpointPolicy")
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("v2"))
}

/// `delta.checkpointInterval`: a checkpoint is due at each multiple of it. At least 1.
pub(crate) fn checkpoint_interval(metadata: &Metadata) -> i64 {
    metadata
        .property("delta.checkpointInterval")
        .and_then(|text| text.trim().parse().ok())
        .filter(|interval| *interval > 0)
        .unwrap_or(DEFAULT_CHECKPOINT_INTERVAL)
}

/// `delta.deletedFileRetentionDuration`, milliseconds: how long tombstones stay in checkpoints.
pub(crate) fn tombstone_retention_ms(metadata: &Metadata) -> i64 {
    readable_tombstone_retention_ms(metadata).unwrap_or(DEFAULT_TOMBSTONE_RETENTION_MS)
}

/// The same; none if what stands there cannot be read.
pub(crate) fn readable_tombstone_retention_ms(metadata: &Metadata) -> Option<i64> {
    metadata
        .property("delta.deletedFileRetentionDuration")
        .map_or(Some(DEFAULT_TOMBSTONE_RETENTION_MS), parse_interval_ms)
}

/// Spark's text for a length of time, `interval 1 week 2 days` (the first word may be missing), in
/// milliseconds. Months and years have no fixed length: Delta does not accept them either.
fn parse_interval_ms(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let words = match words.split_first() {
        Some((&"interval", rest)) => rest,
        _ => words.as_slice(),
    };
    if words.is_empty() || words.len() % 2 != 0 {
        return None;
    }
    let mut total_us = 0_i128;
    for pair in words.chunks_exact(2) {
        let count: i64 = pair[0].parse().ok().filter(|count| *count >= 0)?;
        let unit = pair[1].strip_suffix('s').unwrap_or(pair[1]);
        let unit_us: i128 = match unit {
            "microsecond" => 1,
            "millisecond" => 1_000,
            "second" => 1_000_000,
            "minute" => 60_000_000,
            "hour" => 3_600_000_000,
            "day" => 86_400_000_000,
            "week" => 604_800_000_000,
            _ => return None,
        };
        total_us = total_us.checked_add(i128::from(count).checked_mul(unit_us)?)?;
    }
    i64::try_from(total_us / 1_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_spark_writes_them() {
        const DAY: i64 = 86_400_000;
        for (text, want) in [
            ("interval 1 week", Some(7 * DAY)),
            ("INTERVAL 7 DAYS", Some(7 * DAY)),
            ("  168 hours ", Some(7 * DAY)),
            ("interval 1 day 12 hours", Some(DAY * 3 / 2)),
            ("interval 0 seconds", Some(0)),
            ("interval 1500 microseconds", Some(1)),
            ("interval 1 month", None),
            ("interval -1 day", None),
            ("interval", None),
            ("", None),
            ("interval 1", None),
            ("interval 9223372036854775807 weeks", None),
            ("a week", None),
        ] {
            assert_eq!(parse_interval_ms(text), want, "{text}");
        }
    }

    #[test]
    fn unreadable_properties_count_as_absent() {
        let mut metadata: Metadata =
            serde_json::from_str(r#"{"id":"x","schemaString":"{}"}"#).unwrap();
        assert_eq!(checkpoint_interval(&metadata), 10);
        assert_eq!(tombstone_retention_ms(&metadata), 604_800_000);
        for (text, want) in [("3", 3), ("0", 10), ("-5", 10), ("x", 10)] {
            metadata.configuration.insert("delta.checkpointInterval".into(), Some(text.into()));
            assert_eq!(checkpoint_interval(&metadata), want);
        }
    }
}
