//! The figures of a run.

use std::fmt;

use crate::check::Findings;
use crate::claims::Claims;
use crate::journal::{Failure, Retries};
use crate::scenario::Scenario;

/// What a run did and what it cost.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was run.
    pub scenario: Scenario,
    /// By so many processes.
    pub processes: usize,
    /// Acknowledged commits.
    pub commits: usize,
    /// From the word to go until the last worker was done, seconds.
    pub seconds: f64,
    /// Median of how long a commit took, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, milliseconds.
    pub p99_ms: f64,
    /// The longest, milliseconds.
    pub max_ms: f64,
    /// Commits by the number of attempts of the core: entry 0 is one attempt.
    pub attempts: Vec<u64>,
    /// What the core absorbed.
    pub retries: Retries,
    /// Errors that reached a worker, by kind.
    pub failures: Vec<(Failure, u64, String)>,
    /// What the checker found.
    pub findings: Findings,
}

impl Report {
    pub(crate) fn new(
        scenario: Scenario,
        processes: usize,
        claims: &Claims,
        findings: Findings,
    ) -> Self {
        let mut latencies = claims.latencies.clone();
        latencies.sort_unstable();
        let mut attempts = Vec::new();
        for count in &claims.attempts {
            let slot = usize::try_from(count.saturating_sub(1)).unwrap_or(0);
            if attempts.len() <= slot {
                attempts.resize(slot + 1, 0);
            }
            attempts[slot] += 1;
        }
        let failures = claims.failures.iter();
        Report {
            scenario,
            processes,
            commits: claims.latencies.len(),
            seconds: micros(claims.elapsed_us).as_secs_f64(),
            p50_ms: percentile(&latencies, 50),
            p99_ms: percentile(&latencies, 99),
            max_ms: percentile(&latencies, 100),
            attempts,
            retries: claims.retries,
            failures: failures.map(|(kind, (n, text))| (*kind, *n, text.clone())).collect(),
            findings,
        }
    }

    /// Commits a second, all processes together.
    #[must_use]
    pub fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.commits).unwrap_or(u32::MAX)) / self.seconds.max(1e-6)
    }
}

fn micros(us: u64) -> std::time::Duration {
    std::time::Duration::from_micros(us)
}

/// Nearest rank, of sorted microseconds, in milliseconds; 0 of none.
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).map_or(0.0, |us| micros(*us).as_secs_f64() * 1_000.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} commits by {} processes in {:.2} s, {:.0} commits/s; p50 {:.1} ms, \
             p99 {:.1} ms, max {:.1} ms; absorbed: {} lost races, {} busy commits, {} busy reads; \
             commits by attempts {:?}; {} versions checked",
            self.scenario,
            self.commits,
            self.processes,
            self.seconds,
            self.rate(),
            self.p50_ms,
            self.p99_ms,
            self.max_ms,
            self.retries.lost_races,
            self.retries.busy_commits,
            self.retries.busy_reads,
            self.attempts,
            self.findings.versions,
        )?;
        let found = &self.findings;
        if found.doubtful_kept + found.doubtful_lost + found.refused > 0 {
            write!(
                f,
                "; refused {}, in doubt {}, of which {} took effect whole and {} not at all",
                found.refused,
                found.doubtful_kept + found.doubtful_lost,
                found.doubtful_kept,
                found.doubtful_lost
            )?;
        }
        for (kind, count, text) in &self.failures {
            write!(f, "; {count} x {kind:?}, such as \"{text}\"")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Vec<u64> = (1..=200).map(|ms| ms * 1_000).collect();
        assert!((percentile(&sorted, 50) - 100.0).abs() < 1e-9);
        assert!((percentile(&sorted, 99) - 198.0).abs() < 1e-9);
        assert!((percentile(&sorted, 100) - 200.0).abs() < 1e-9);
        assert!(percentile(&[], 50).abs() < 1e-9);
    }
}
