//! Comparisons as metrics: Prometheus' text format (version 0.0.4) and JSON, with the same names.

use std::fmt::Write;

use deltalakedb_catalog_core::model::MirrorState;
use serde_json::{Map, Value, json};

use super::report::DiffReport;

/// One value of one metric.
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: i64,
}

/// A metric with all of its values.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: Vec<Sample>,
}

fn status(state: MirrorState) -> i64 {
    match state {
        MirrorState::Pending | MirrorState::InFlight => 0,
        MirrorState::Complete => 1,
        MirrorState::Failed => 2,
    }
}

fn saturating(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Values that are not known (a state that could not be compared) are left out. Rows with a
/// version are those that are not complete, to a bound, and the latest complete one.
fn families(reports: &[DiffReport]) -> Vec<Family> {
    let table = |r: &DiffReport| ("table_id", r.table_id.to_string());
    let per_table = |value: &dyn Fn(&DiffReport) -> Option<i64>| -> Vec<Sample> {
        reports
            .iter()
            .filter_map(|r| Some(Sample { labels: vec![table(r)], value: value(r)? }))
            .collect()
    };
    let per_version = |value: &dyn Fn(&super::VersionStatus) -> i64| -> Vec<Sample> {
        reports
            .iter()
            .flat_map(|r| {
                r.mirror_status.versions.iter().map(|v| Sample {
                    labels: vec![table(r), ("version", v.version.to_string())],
                    value: value(v),
                })
            })
            .collect()
    };
    let compared =
        |r: &DiffReport, fields: usize| r.compared_version.map(|_| i64::from(fields > 0));
    vec![
        Family {
            name: "dl_mirror_lag_seconds",
            kind: "gauge",
            help: "Age of the oldest commit that is not in the log yet.",
            samples: per_table(&|r| Some(r.counted_lag_seconds())),
        },
        Family {
            name: "dl_mirror_status",
            kind: "gauge",
            help: "State of a version in the outbox: 0 in flight, 1 complete, 2 failed, or a foreign commit stands there.",
            samples: per_version(&|v| status(v.state)),
        },
        Family {
            name: "dl_mirror_reconciliation_attempts_total",
            kind: "counter",
            help: "Attempts to publish a version after the first one.",
            samples: per_version(&|v| i64::from(v.attempts.saturating_sub(1))),
        },
        Family {
            name: "dl_file_drift_count",
            kind: "gauge",
            help: "Files in which catalog and log differ.",
            samples: per_table(&|r| r.files.as_ref().map(|f| saturating(f.total()))),
        },
        Family {
            name: "dl_metadata_drift",
            kind: "gauge",
            help: "Whether the metadata of catalog and log differ: 0 or 1.",
            samples: per_table(&|r| compared(r, r.metadata.len())),
        },
        Family {
            name: "dl_protocol_drift",
            kind: "gauge",
            help: "Whether the protocol of catalog and log differ: 0 or 1.",
            samples: per_table(&|r| compared(r, r.protocol.len())),
        },
        Family {
            name: "dl_version_delta",
            kind: "gauge",
            help: "Latest version of the catalog minus that of the log.",
            samples: per_table(&|r| Some(r.version_delta)),
        },
    ]
}

/// Label values escape backslash, quote and newline.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Metrics of some tables in Prometheus' text format.
#[must_use]
pub fn metrics_prometheus(reports: &[DiffReport]) -> String {
    let mut out = String::new();
    for Family { name, kind, help, samples } in families(reports) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for Sample { labels, value } in samples {
            let labels: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
            let _ = writeln!(out, "{name}{{{}}} {value}", labels.join(","));
        }
    }
    out
}

/// The same metrics as JSON: an object with an array of `{labels…, "value": n}` for each name.
#[must_use]
pub fn metrics_json(reports: &[DiffReport]) -> Value {
    let families = families(reports).into_iter().map(|family| {
        let samples: Vec<Value> = family
            .samples
            .into_iter()
            .map(|sample| {
                let mut object: Map<String, Value> = sample
                    .labels
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), Value::from(value)))
                    .collect();
                object.insert("value".to_owned(), json!(sample.value));
                Value::Object(object)
            })
            .collect();
        (family.name.to_owned(), Value::Array(samples))
    });
    Value::Object(families.collect())
}
