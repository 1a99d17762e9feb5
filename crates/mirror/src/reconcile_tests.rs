use std::fs;

use deltalakedb_catalog_engine::env::NoProgress;

use super::*;
use crate::diff::{DiffOptions, Verdict, diff};
use crate::testing::{Lake, add, names, zero};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

async fn published(lake: &Lake, head: i64) -> TableId {
    let id = lake.create("t", &zero("", "\"delta.checkpointInterval\":\"4\"")).await;
    for i in 1..=head {
        lake.commit(id, &add(&format!("{i}"))).await;
    }
    lake.publisher().run_once(None).await.unwrap();
    id
}

async fn run(lake: &Lake, id: TableId, repair: bool) -> (u64, u64, Vec<(String, FindingKind)>) {
    let report = reconcile(&lake.catalog, &TableRef::Id(id), repair).await.unwrap();
    let findings = report.findings.iter().map(|f| {
        let name = f.name.trim_start_matches('0');
        (name.to_owned(), f.kind)
    });
    (report.drift, report.republished, findings.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_put_back() {
    use FindingKind::Missing;
    let lake = Lake::new();
    let id = published(&lake, 10).await;
    assert_eq!(run(&lake, id, true).await, (0, 0, vec![]));
    let gone =
        [commit_name(v(5)), commit_name(v(10)), checkpoint_name(v(8)), LAST_CHECKPOINT.to_owned()];
    for name in &gone {
        fs::remove_file(lake.log("t").join(name)).unwrap();
    }
    let findings = vec![
        ("5.json".to_owned(), Missing),
        ("10.json".to_owned(), Missing),
        ("8.checkpoint.parquet".to_owned(), Missing),
    ];
    assert_eq!(run(&lake, id, false).await, (3, 0, findings.clone()));
    assert_eq!(run(&lake, id, true).await, (3, 3, findings));
    assert_eq!(run(&lake, id, true).await, (0, 0, vec![]));
    for name in &gone {
        assert!(lake.log("t").join(name).exists(), "{name}");
    }
    let report =
        diff(&lake.catalog, &TableRef::Id(id), DiffOptions::default(), &NoProgress).await.unwrap();
    assert_eq!(report.verdict, Verdict::Parity);
    // All of it.
    fs::remove_dir_all(lake.log("t")).unwrap();
    assert_eq!(run(&lake, id, true).await.0, 12);
    assert_eq!(run(&lake, id, true).await, (0, 0, vec![]));
}

#[tokio::test]
async fn nothing_is_overwritten_and_old_commits_are_not_missed() {
    use FindingKind::{Different, Foreign};
    let lake = Lake::new();
    let id = published(&lake, 10).await;
    for version in 0..4 {
        fs::remove_file(lake.log("t").join(commit_name(v(version)))).unwrap();
    }
    assert_eq!(run(&lake, id, true).await, (0, 0, vec![]));
    let theirs = b"{\"commitInfo\":{}}\n";
    for version in [7, 11] {
        fs::write(lake.log("t").join(commit_name(v(version))), theirs).unwrap();
    }
    let findings = vec![("7.json".to_owned(), Different), ("11.json".to_owned(), Foreign)];
    assert_eq!(run(&lake, id, true).await, (2, 0, findings));
    assert_eq!(fs::read(lake.log("t").join(commit_name(v(7)))).unwrap(), theirs);
    // What waits to be published is not missed either.
    fs::remove_file(lake.log("t").join(commit_name(v(11)))).unwrap();
    lake.commit(id, &add("waits")).await;
    assert_eq!(run(&lake, id, true).await.0, 1);
}

#[tokio::test]
async fn a_hint_that_leads_nowhere_is_mended() {
    let lake = Lake::new();
    let id = published(&lake, 9).await;
    let hint = lake.log("t").join(LAST_CHECKPOINT);
    let right = fs::read(&hint).unwrap();
    for wrong in ["{\"version\":44,\"size\":1}", "{torn", ""] {
        fs::write(&hint, wrong).unwrap();
        let findings = vec![(LAST_CHECKPOINT.to_owned(), FindingKind::Different)];
        assert_eq!(run(&lake, id, true).await, (1, 1, findings), "{wrong}");
        assert_eq!(fs::read(&hint).unwrap(), right);
    }
    // An older one is as good.
    fs::write(&hint, "{\"version\":4,\"size\":1}").unwrap();
    assert_eq!(run(&lake, id, true).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_that_are_missing_are_put_back() {
    use FindingKind::Missing;
    let lake = Lake::new();
    let properties = "\"delta.checkpointInterval\":\"4\",\"delta.checkpointPolicy\":\"v2\"";
    let id = lake.create("t", &zero("\"v2Checkpoint\"", properties)).await;
    for i in 1..=9 {
        lake.commit(id, &add(&format!("{i}"))).await;
    }
    lake.publisher().run_once(None).await.unwrap();
    assert_eq!(run(&lake, id, true).await, (0, 0, vec![]));
    let sidecars = lake.log("t").join("_sidecars");
    let newest = |name: &String| name.starts_with(&v(8).padded());
    let all: Vec<String> = names(&sidecars).into_iter().filter(newest).collect();
    assert_eq!(all.len(), 4);
    for name in &all[1..3] {
        fs::remove_file(sidecars.join(name)).unwrap();
    }
    let (drift, repaired, findings) = run(&lake, id, false).await;
    assert_eq!((drift, repaired), (2, 0));
    assert!(findings.iter().all(|(name, kind)| name.contains("sidecars") && *kind == Missing));
    assert_eq!(run(&lake, id, true).await, (2, 2, findings));
    assert_eq!(run(&lake, id, true).await, (0, 0, vec![]));
    // Without its manifest a checkpoint is none.
    let manifest = names(&lake.log("t"))
        .into_iter()
        .find(|name| matches!(LogName::parse(name), LogName::UuidCheckpoint { version, .. } if version == v(8)))
        .unwrap();
    fs::remove_file(lake.log("t").join(&manifest)).unwrap();
    let (drift, repaired, _) = run(&lake, id, true).await;
    assert_eq!((drift, repaired), (1, 1));
    assert!(lake.log("t").join(&manifest).exists());
}
