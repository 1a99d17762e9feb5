//! The names of metrics. They stay the same from version to version.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says its name")]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    /// As Prometheus calls it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// A series of it, that an exporter shows while nothing has happened: its labels, in Prometheus' text.
    pub series: &'static str,
    /// What it means.
    pub help: &'static str,
}

const fn metric(
    kind: MetricKind,
    name: &'static str,
    series: &'static str,
    help: &'static str,
) -> Metric {
    Metric { name, kind, series, help }
}

use MetricKind::{Counter, Gauge, Histogram};

/// All metrics of this library. `dl mirror run --listen` shows these, and those of the mirror and the process
/// that `docs/src/operate/metrics.md` lists.
pub const METRICS: &[Metric] = &[
    metric(
        Histogram,
        "dl_call_seconds",
        "statement=\"commit\",outcome=\"ok\"",
        "Calls of the database.",
    ),
    metric(
        Histogram,
        "dl_store_call_seconds",
        "call=\"put\",outcome=\"ok\"",
        "Calls of object stores (or folders) of published logs.",
    ),
    metric(Histogram, "dl_open_seconds", "outcome=\"ok\"", "Opening a table."),
    metric(Histogram, "dl_plan_seconds", "outcome=\"ok\"", "Finding the files for a filter."),
    metric(
        Histogram,
        "dl_commit_seconds",
        "outcome=\"committed\"",
        "Commits as their callers see them, with their repetitions.",
    ),
    metric(Histogram, "dl_publish_seconds", "outcome=\"ok\"", "Publishing one version."),
    metric(Counter, "dl_commits_total", "outcome=\"committed\"", "Commits."),
    metric(
        Counter,
        "dl_conflicts_total",
        "kind=\"concurrent_append\"",
        "Commits that were refused because of a conflict.",
    ),
    metric(
        Counter,
        "dl_retries_total",
        "statement=\"commit\"",
        "Calls of the database that were made again.",
    ),
    metric(
        Counter,
        "dl_errors_total",
        "code=\"unavailable\"",
        "Opening, planning and committing that ended in an error for the user.",
    ),
    metric(Gauge, "dl_pool_connections", "state=\"active\"", "Connections of the pool."),
    metric(Gauge, "dl_pool_limit", "", "Most connections of the pool."),
    metric(Counter, "dl_pool_waits_total", "", "Calls that waited for a connection."),
    metric(Histogram, "dl_pool_wait_seconds", "", "How long calls waited for a connection."),
    metric(Counter, "dl_cache_hits_total", "kind=\"heads\"", "Questions that the cache answered."),
    metric(
        Counter,
        "dl_cache_misses_total",
        "kind=\"heads\"",
        "Questions that the database was asked, although the cache might have had the answer.",
    ),
    metric(Gauge, "dl_cache_weight_bytes", "", "Weight of what is in the cache."),
    metric(Gauge, "dl_cache_capacity_bytes", "", "Most that the cache may weigh."),
    metric(
        Gauge,
        "dl_cache_hit_ratio",
        "",
        "Part of the questions that the cache answered; 1 before the first one.",
    ),
    metric(
        Histogram,
        "dl_mirror_published_seconds",
        "",
        "From the commit to the record that it is published.",
    ),
    metric(Counter, "dl_mirror_attempts_total", "outcome=\"ok\"", "Attempts to publish a version."),
    metric(
        Counter,
        "dl_mirror_reconciliation_attempts_total",
        "outcome=\"ok\"",
        "Passes of reconciliation over a table.",
    ),
    metric(
        Counter,
        "mirror_parity_drift_total",
        "table_id=\"other\"",
        "Differences between catalog and published log that passes of reconciliation have found.",
    ),
    metric(
        Histogram,
        "dl_maintain_step_seconds",
        "step=\"reconcile\",outcome=\"ok\"",
        "Steps of passes of upkeep.",
    ),
    metric(
        Gauge,
        "dl_maintain_last_success_timestamp_seconds",
        "step=\"reconcile\"",
        "When a step of upkeep succeeded last, seconds since 1970; 0 before the first time.",
    ),
];

/// Tells the recorder of the [`metrics`] crate what each metric means. To be called once, after the recorder was
/// installed and before a catalog is opened.
pub fn describe() {
    for metric in METRICS {
        match metric.kind {
            Counter => metrics::describe_counter!(metric.name, metric.help),
            Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}
