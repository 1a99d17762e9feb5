use std::fs;

use deltalakedb_catalog_engine::env::NoProgress;

use super::*;
use crate::checkpoint::checkpoint_name;
use crate::export::publish_to;
use crate::testing::{Lake, START_MS, add, names, remove, remove_checksums, zero};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

async fn run(lake: &Lake, id: TableId, options: DiffOptions) -> DiffReport {
    diff(&lake.catalog, &TableRef::Id(id), options, &NoProgress).await.unwrap()
}

async fn published(lake: &Lake, head: i64) -> TableId {
    let id = lake.table("t", head).await;
    assert_eq!(lake.publisher().run_once(None).await.unwrap().failures, []);
    id
}

/// Rewrites a commit file with a part of it replaced.
fn tamper(lake: &Lake, version: i64, from: &str, to: &str) {
    let path = lake.log("t").join(commit_name(v(version)));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_table_is_at_parity() {
    let lake = Lake::new();
    let id = published(&lake, 12).await;
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.verdict.exit_code()), (Verdict::Parity, 0));
    assert_eq!((report.version_delta, report.compared_version), (0, Some(v(12))));
    assert_eq!((report.bytes.compared, report.lag_seconds), (13, 0));
    let files = report.files.unwrap();
    assert_eq!((files.compared, files.total(), files.examples), (12, 0, vec![]));
    assert_eq!(report.reasons, Vec::<String>::new());
    // Another engine that cleans old commits up is no drift.
    for version in 0..10 {
        fs::remove_file(lake.log("t").join(commit_name(v(version)))).unwrap();
    }
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.bytes.compared), (Verdict::Parity, 3), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_behind_lags_by_its_oldest_missing_commit() {
    let lake = Lake::new();
    let id = published(&lake, 3).await;
    lake.commit(id, &(add("x") + &remove("part-1.parquet", START_MS))).await;
    lake.commit(id, &add("y")).await;
    lake.clock.advance(89_000);
    let mut options = DiffOptions { lag_threshold_seconds: 89, ..Default::default() };
    let report = run(&lake, id, options.clone()).await;
    assert_eq!((report.verdict, report.verdict.exit_code()), (Verdict::LagOnly, 3));
    assert_eq!((report.lag_seconds, report.version_delta), (90, 2));
    assert_eq!((report.unpublished_versions, report.first_unpublished), (2, Some(v(4))));
    assert_eq!(report.compared_version, Some(v(3)), "the catalog is looked at as of then");
    options.lag_threshold_seconds = 90;
    assert_eq!(run(&lake, id, options).await.verdict, Verdict::Parity);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_never_published_or_must_not_be() {
    let lake = Lake::new();
    let id = lake.table("t", 1).await;
    lake.clock.advance(10_000);
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.version_delta), (Verdict::LagOnly, 2));
    assert_eq!((report.log_version, report.compared_version), (None, None));
    assert_eq!((report.lag_seconds, report.unpublished_versions), (11, 2));
    assert!(metrics_prometheus(&[report]).contains("dl_file_drift_count gauge\n# HELP"));

    let off = lake.create_with("off", &zero("", ""), MirrorMode::Off).await;
    lake.clock.advance(10_000);
    let report = run(&lake, off, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.version_delta), (Verdict::Parity, 1));
    assert!(report.reasons[0].contains("publishing is off"), "{:?}", report.reasons);
    assert!(
        metrics_prometheus(&[report])
            .contains(&format!("dl_mirror_lag_seconds{{table_id=\"{off}\"}} 0\n"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_folder_can_be_compared() {
    let lake = Lake::new();
    let id = lake.create_with("t", &zero("", ""), MirrorMode::Off).await;
    lake.commit(id, &add("a")).await;
    let to = lake.location("copy");
    publish_to(&lake.catalog, &TableRef::Id(id), &to, &BTreeMap::new(), &NoProgress).await.unwrap();
    let log_dir = Some(log_location(&to));
    let options = DiffOptions { log_dir, ..Default::default() };
    let report = run(&lake, id, options.clone()).await;
    assert_eq!((report.verdict, report.compared_version), (Verdict::Parity, Some(v(1))));
    lake.commit(id, &add("b")).await;
    lake.clock.advance(5_000);
    let report = run(&lake, id, options).await;
    assert_eq!((report.verdict, report.lag_seconds), (Verdict::LagOnly, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_differ_are_counted_and_some_are_shown() {
    let lake = Lake::new();
    let id = published(&lake, 8).await;
    tamper(&lake, 1, "\"size\":100", "\"size\":101");
    tamper(&lake, 2, "2024-01-01", "2025-01-01");
    tamper(&lake, 3, "part-3.parquet", "other.parquet");
    tamper(&lake, 4, "\"add\"", "\"unknownAction\"");
    let vector = "\"size\":100,\"deletionVector\":{\"storageType\":\"i\",\
                  \"pathOrInlineDv\":\"wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L\",\
                  \"sizeInBytes\":40,\"cardinality\":6}";
    tamper(&lake, 5, "\"size\":100", vector);
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.verdict.exit_code()), (Verdict::Drift, 2));
    let files = report.files.clone().unwrap();
    assert_eq!((files.only_in_catalog, files.only_in_log, files.different), (2, 1, 3));
    let got: Vec<_> = files.examples.iter().map(|e| (e.kind, e.path.as_str())).collect();
    assert_eq!(
        got,
        [
            (FileDriftKind::OnlyInCatalog, "part-3.parquet"),
            (FileDriftKind::OnlyInCatalog, "part-4.parquet"),
            (FileDriftKind::OnlyInLog, "other.parquet"),
            (FileDriftKind::Size, "part-1.parquet"),
            (FileDriftKind::PartitionValues, "part-2.parquet"),
            (FileDriftKind::DeletionVector, "part-5.parquet"),
        ]
    );
    assert_eq!(files.examples[3].log.as_deref(), Some("101"));
    assert_eq!(report.bytes.different.first, [v(1), v(2), v(3), v(4), v(5)]);
    assert!(report.reasons.iter().any(|r| r.starts_with("6 files differ")), "{report:?}");

    let options = DiffOptions { shown_files: 2, compare_bytes: false, ..Default::default() };
    let few = run(&lake, id, options).await;
    let few_files = few.files.unwrap();
    assert_eq!((few_files.total(), few_files.examples.len()), (6, 2));
    assert_eq!((few.verdict, few.bytes.compared), (Verdict::Drift, 0));
    let text = metrics_prometheus(&[report]);
    assert!(text.contains(&format!("dl_file_drift_count{{table_id=\"{id}\"}} 6\n")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_and_protocol_drift_is_shown_field_by_field() {
    let lake = Lake::new();
    let id = published(&lake, 1).await;
    // Readers would believe the version checksums.
    remove_checksums(&lake.log("t"));
    tamper(&lake, 0, "\"configuration\":{}", "\"configuration\":{\"delta.appendOnly\":\"true\"}");
    tamper(&lake, 0, "\"name\":\"n\"", "\"name\":\"m\"");
    tamper(&lake, 0, "\"minWriterVersion\":7,\"writerFeatures\":[]", "\"minWriterVersion\":2");
    tamper(&lake, 1, "{\"add\"", "{\"txn\":{\"appId\":\"a\",\"version\":3}}\n{\"add\"");
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!(report.verdict, Verdict::Drift);
    let fields: Vec<_> = report
        .metadata
        .iter()
        .map(|f| (f.field.as_str(), f.catalog.as_deref(), f.log.as_deref()))
        .collect();
    assert_eq!(
        fields,
        [
            ("name", Some("n"), Some("m")),
            ("configuration.delta.appendOnly", None, Some("true")),
            ("txn.a", None, Some("3")),
        ]
    );
    let fields: Vec<_> = report.protocol.iter().map(|f| f.field.as_str()).collect();
    assert_eq!(fields, ["minWriterVersion", "writerFeatures"]);
    let text = metrics_prometheus(&[report]);
    assert!(text.contains(&format!("dl_metadata_drift{{table_id=\"{id}\"}} 1\n")), "{text}");
    assert!(text.contains(&format!("dl_protocol_drift{{table_id=\"{id}\"}} 1\n")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_differ_are_drift_even_if_the_state_is_the_same() {
    let lake = Lake::new();
    let id = published(&lake, 3).await;
    tamper(&lake, 2, "\"WRITE\"", "\"MERGE\"");
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.bytes.different.count), (Verdict::Drift, 1));
    assert_eq!(report.files.unwrap().total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_foreign_and_broken_logs_are_drift() {
    let lake = Lake::new();
    let id = published(&lake, 12).await;
    let log = lake.log("t");
    // Foreign commits beyond the head.
    fs::write(log.join(commit_name(v(13))), add("foreign")).unwrap();
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.version_delta), (Verdict::Drift, -1));
    assert_eq!(report.bytes.foreign.first, [v(13)]);
    assert_eq!(report.compared_version, Some(v(12)), "what both have is still compared");
    fs::remove_file(log.join(commit_name(v(13)))).unwrap();
    // A published version at the end is gone.
    fs::rename(log.join(commit_name(v(12))), log.join("kept")).unwrap();
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.bytes.missing.first), (Verdict::Drift, vec![v(12)]));
    fs::rename(log.join("kept"), log.join(commit_name(v(12)))).unwrap();
    // A hole below the last checkpoint.
    fs::remove_file(log.join(commit_name(v(5)))).unwrap();
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.bytes.missing.count), (Verdict::Drift, 1));
    // A checkpoint that is no Parquet.
    fs::write(log.join(checkpoint_name(v(10))), "nonsense").unwrap();
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!(report.verdict, Verdict::Drift);
    assert!(report.log_error.is_some(), "{report:?}");
    assert!(report.files.is_none());
    // All of it gone.
    fs::remove_dir_all(&log).unwrap();
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.bytes.missing.count), (Verdict::Drift, 13));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_their_names_labels_and_types() {
    let lake = Lake::new();
    let id = published(&lake, 1).await;
    lake.commit(id, &add("a")).await;
    lake.commit(id, &add("b")).await;
    fs::write(lake.log("t").join(commit_name(v(2))), "{}\n").unwrap();
    lake.publisher().run_once(None).await.unwrap();
    let report = run(&lake, id, DiffOptions::default()).await;
    assert_eq!((report.verdict, report.mirror_status.mode), (Verdict::Drift, MirrorMode::Diverged));
    let reports = [report];
    let text = metrics_prometheus(&reports);
    for line in [
        format!("dl_mirror_status{{table_id=\"{id}\",version=\"1\"}} 1"),
        format!("dl_mirror_status{{table_id=\"{id}\",version=\"2\"}} 2"),
        format!("dl_mirror_status{{table_id=\"{id}\",version=\"3\"}} 0"),
        format!("dl_mirror_reconciliation_attempts_total{{table_id=\"{id}\",version=\"2\"}} 0"),
        format!("dl_version_delta{{table_id=\"{id}\"}} 1"),
        "# TYPE dl_mirror_reconciliation_attempts_total counter".to_owned(),
        "# TYPE dl_mirror_lag_seconds gauge".to_owned(),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert_eq!(text.lines().filter(|l| l.starts_with("# HELP dl_")).count(), 7);
    let json = metrics_json(&reports);
    assert_eq!(json["dl_mirror_status"][1]["version"], "2");
    assert_eq!(json["dl_mirror_status"][1]["value"], 2);
    assert_eq!(json.as_object().unwrap().len(), 7);
    assert!(names(&lake.log("t")).contains(&commit_name(v(2))));
}
