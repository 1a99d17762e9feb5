//! The text of `/metrics`: what the recorder has, and what is looked up for the scrape.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deltalakedb::core::ids::TimestampMs;
use deltalakedb::mirror::measure::MOST_TABLES;
use deltalakedb::mirror::survey::{MirrorStatus, Survey};
use deltalakedb::watching::{METRICS, MetricKind, describe};
use deltalakedb::{CatalogError, Db};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::Mutex;

use super::process::Process;
use crate::failure::{Failure, Result};

/// Bounds of the buckets of every histogram, seconds.
const BUCKETS: [f64; 17] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0,
];
/// What a look at the database may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// How long a look holds.
const LOOK_HOLDS: Duration = Duration::from_secs(5);
/// After a look that failed the next one is due.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often samples are put into their buckets, whether or not somebody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// The last looks at the database.
#[derive(Default)]
struct Looked {
    /// When the next one is due.
    due: Option<Instant>,
    /// The last one that did not fail. Its lags grow with the time.
    survey: Option<Survey>,
}

/// What answers a scrape.
pub(crate) struct Scraper {
    handle: PrometheusHandle,
    looked: Mutex<Looked>,
    errors: AtomicU64,
}

impl Scraper {
    /// Installs the recorder of this process.
    pub(crate) fn install() -> Result<Scraper> {
        let failed = |e: &dyn std::fmt::Display| {
            Failure::from(CatalogError::failed(
                format!("metrics cannot be recorded: {e}"),
                deltalakedb::WriteState::NotApplied,
            ))
        };
        let mut builder = PrometheusBuilder::new();
        for metric in METRICS.iter().filter(|metric| metric.kind == MetricKind::Histogram) {
            let matcher = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(matcher, &BUCKETS).map_err(|e| failed(&e))?;
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|e| failed(&e))?;
        describe();
        Ok(Scraper { handle, looked: Mutex::default(), errors: AtomicU64::new(0) })
    }

    /// Keeps the recorder small, for ever.
    pub(crate) fn upkeep(&self) -> impl Future<Output = ()> + use<> {
        let handle = self.handle.clone();
        async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                handle.run_upkeep();
            }
        }
    }

    pub(crate) async fn scrape(&self, db: &Db) -> String {
        db.export_gauges();
        let mut text = self.handle.render();
        nothing_yet(&mut text);
        let mut page = Page { text };
        let now = db.clock().now();
        let mut looked = self.looked.lock().await;
        self.look(db, &mut looked).await;
        mirror(&mut page, looked.survey.as_ref(), now);
        drop(looked);
        page.metric(
            "dl_scrape_errors_total",
            "counter",
            "Scrapes whose look at the database failed.",
            [(String::new(), number(self.errors.load(Ordering::Relaxed)))],
        );
        process(&mut page);
        let database = db.uri().scheme().database();
        let labels = format!("version=\"{}\",database=\"{database}\"", env!("CARGO_PKG_VERSION"));
        let help = "The program, and the database of its catalog.";
        page.metric("dl_build_info", "gauge", help, [(labels, 1.0)]);
        page.text
    }

    async fn look(&self, db: &Db, looked: &mut Looked) {
        if looked.due.is_some_and(|due| Instant::now() < due) {
            return;
        }
        let survey = tokio::time::timeout(LOOK_LIMIT, Survey::take(db.backend().as_ref())).await;
        let error = match survey {
            Ok(Ok(survey)) => {
                looked.survey = Some(survey);
                looked.due = Some(Instant::now() + LOOK_HOLDS);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", LOOK_LIMIT.as_millis()),
        };
        tracing::warn!(error, "a scrape did not learn how far publishing is");
        self.errors.fetch_add(1, Ordering::Relaxed);
        looked.due = Some(Instant::now() + LOOK_AGAIN);
    }
}

/// Series of metrics of which nothing has happened yet: a query must not find nothing.
fn nothing_yet(text: &mut String) {
    for metric in METRICS {
        if text.contains(&format!("# TYPE {} ", metric.name)) {
            continue;
        }
        let (name, kind, series) = (metric.name, metric.kind.label(), metric.series);
        let of = |more: &str| match (series, more) {
            ("", "") => String::new(),
            ("", one) | (one, "") => format!("{{{one}}}"),
            (one, two) => format!("{{{one},{two}}}"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
        let _ = if metric.kind == MetricKind::Histogram {
            let (bucket, one) = (of("le=\"+Inf\""), of(""));
            writeln!(text, "{name}_bucket{bucket} 0\n{name}_sum{one} 0\n{name}_count{one} 0")
        } else {
            writeln!(text, "{name}{} 0", of(""))
        };
    }
}

fn mirror(page: &mut Page, survey: Option<&Survey>, now: TimestampMs) {
    let (lags, other) = survey.map(|survey| survey.lags(now, MOST_TABLES)).unwrap_or_default();
    let lags = lags.into_iter().map(|(table, lag)| (format!("table_id=\"{table}\""), lag));
    let other = other.map(|lag| ("table_id=\"other\"".to_owned(), lag));
    page.metric(
        "dl_mirror_lag_seconds",
        "gauge",
        "Age of the oldest commit that is not published; 0 if all are. The latest tables; the others as one.",
        lags.chain(other),
    );
    let statuses = survey.map_or_else(
        || MirrorStatus::ALL.map(|status| (status, 0)).into_iter().collect::<BTreeMap<_, _>>(),
        Survey::statuses,
    );
    page.metric(
        "dl_mirror_status",
        "gauge",
        "Tables in this state.",
        statuses
            .into_iter()
            .map(|(status, n)| (format!("status=\"{}\"", status.label()), number(n))),
    );
}

fn process(page: &mut Page) {
    let process = Process::look();
    let one = |value: Option<f64>| value.map(|value| (String::new(), value));
    page.metric(
        "process_resident_memory_bytes",
        "gauge",
        "Memory of this process.",
        one(process.resident_bytes.map(number)),
    );
    page.metric(
        "process_start_time_seconds",
        "gauge",
        "When this process began, seconds since 1970.",
        one(process.start_seconds),
    );
    page.metric(
        "process_cpu_seconds_total",
        "counter",
        "Time of processors that this process has used.",
        one(process.cpu_seconds),
    );
    page.metric(
        "process_memory_limit_bytes",
        "gauge",
        "Memory that the cgroup allows; absent without a limit.",
        one(process.limit_bytes.map(number)),
    );
}

/// Up to 2^53 a double is exact.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has doubles")]
fn number(value: u64) -> f64 {
    value as f64
}

struct Page {
    text: String,
}

impl Page {
    fn metric(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, f64)>,
    ) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = match labels.as_str() {
                "" => writeln!(self.text, "{name} {value}"),
                labels => writeln!(self.text, "{name}{{{labels}}} {value}"),
            };
        }
    }
}
