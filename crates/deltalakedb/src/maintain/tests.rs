//! Passes over tables of a catalog in a file.
#![cfg(feature = "sqlite")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use deltalakedb_catalog_core::action::Add;
use deltalakedb_catalog_engine::env::NoProgress;

use super::*;
use crate::backup::Place;

/// A catalog in a file, and a folder for tables.
struct Lake {
    folder: tempfile::TempDir,
    db: Db,
}

impl Lake {
    async fn new() -> Lake {
        let folder = tempfile::tempdir().unwrap();
        let uri = format!("sqlite://{}", folder.path().join("c.db").display());
        let db = Db::create(&uri.parse().unwrap()).await.unwrap();
        Lake { folder, db }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn create(&self, name: &str, properties: &[(&str, &str)]) {
        let location = self.path(name);
        fs::create_dir_all(&location).unwrap();
        let mut table =
            self.db.create_table(name).location(location.to_str().unwrap()).columns("id long");
        for (key, value) in properties {
            table = table.property(*key, *value);
        }
        table.await.unwrap();
    }

    /// A commit with a file that is there.
    async fn append(&self, name: &str, file: &str) {
        fs::write(self.path(name).join(file), "x").unwrap();
        let add: Add = serde_json::from_value(serde_json::json!({
            "path": file, "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": true
        }))
        .unwrap();
        self.db.table(name).await.unwrap().append(vec![add]).await.unwrap();
    }

    async fn publish(&self) {
        let report = self.db.publisher(crate::PublisherConfig::default()).run_once(None).await;
        let report = report.unwrap();
        assert!(report.failures.is_empty(), "{report:?}");
    }

    async fn pass(&self, steps: &[Step], change: impl FnOnce(&mut MaintainPlan)) -> MaintainReport {
        let mut plan = MaintainPlan::default().only(steps);
        change(&mut plan);
        self.db.maintain(&plan, &NoProgress).await
    }

    /// A file below a table's root, so many days old.
    fn old(&self, table: &str, file: &str, days: u64) -> PathBuf {
        let path = self.path(table).join(file);
        fs::write(&path, "x").unwrap();
        age(&path, days);
        path
    }
}

fn age(path: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 86_400);
    fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

fn outcomes(report: &MaintainReport) -> BTreeMap<Step, Outcome> {
    report.steps.iter().map(|step| (step.step, step.outcome)).collect()
}

fn reason(report: &MaintainReport) -> &str {
    report.steps[0].reason.as_deref().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_pass_does_what_can_be_done_and_a_dry_one_writes_nothing() {
    let lake = Lake::new().await;
    lake.create("t", &[(VACUUM_PROPERTY, "true")]).await;
    lake.append("t", "1.parquet").await;
    lake.publish().await;
    let stale = lake.old("t", "stale.parquet", 30);
    let log = lake.path("t/_delta_log/00000000000000000001.json");
    fs::remove_file(&log).unwrap();
    let to = lake.path("backups");
    let plan = MaintainPlan {
        backup: Some(BackupPlan {
            to: to.to_str().unwrap().to_owned(),
            keep: None,
            full_every: None,
        }),
        ..MaintainPlan::default()
    };
    let before = lake.db.table("t").await.unwrap().version();
    let dry = MaintainPlan { dry_run: true, ..plan.clone() };
    let report = lake.db.maintain(&dry, &NoProgress).await;
    // A log that lacks a file is wrong, and stays so.
    let all = outcomes(&report);
    assert_eq!(all[&Step::Reconcile], Outcome::Failed, "{report:?}");
    assert!(stale.exists() && !log.exists() && !to.exists());
    // It may be spawned.
    let (db, real) = (lake.db.clone(), plan.clone());
    let report = tokio::spawn(async move { db.maintain(&real, &NoProgress).await }).await.unwrap();
    assert!(report.is_ok(), "{report:?}");
    let order: Vec<Step> = report.steps.iter().map(|step| step.step).collect();
    assert_eq!(order, Step::ALL);
    assert!(!stale.exists() && log.exists() && lake.path("t/1.parquet").exists());
    assert_eq!(lake.db.table("t").await.unwrap().version(), before, "no commit");
    let place = Place::open(to.to_str().unwrap(), &BTreeMap::new()).unwrap();
    assert_eq!(place.list().await.unwrap().sets.len(), 1);
    // Again: nothing is left to do, and it is all right.
    let report = lake.db.maintain(&plan, &NoProgress).await;
    assert!(report.is_ok(), "{report:?}");
    let metrics = lake.db.metrics();
    assert!(metrics.count("dl_maintain_step_seconds", Some(("step", "vacuum"))) >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tables_that_say_so_are_vacuumed_and_a_slip_is_told() {
    let lake = Lake::new().await;
    lake.create("asked", &[(VACUUM_PROPERTY, "TRUE")]).await;
    lake.create("silent", &[]).await;
    lake.create("refused", &[(VACUUM_PROPERTY, "false")]).await;
    lake.publish().await;
    let [asked, silent, refused] =
        ["asked", "silent", "refused"].map(|table| lake.old(table, "x.parquet", 40));
    let report = lake.pass(&[Step::Vacuum], |_| ()).await;
    assert!(report.is_ok(), "{report:?}");
    assert!(!asked.exists() && silent.exists() && refused.exists());
    assert_eq!(report.steps[0].counts["not_asked_for"], 2);
    lake.create("slip", &[(VACUUM_PROPERTY, "yes")]).await;
    let slip = lake.old("slip", "x.parquet", 40);
    let asked = lake.old("asked", "x.parquet", 40);
    let report = lake.pass(&[Step::Vacuum], |_| ()).await;
    assert_eq!(report.steps[0].outcome, Outcome::Failed);
    assert!(reason(&report).contains("slip") && reason(&report).contains("true or false"));
    assert!(slip.exists() && !asked.exists(), "the others are done");
    // One table alone.
    let asked = lake.old("asked", "x.parquet", 40);
    let only = |name: &str| vec![name.parse().unwrap()];
    let report = lake.pass(&[Step::Vacuum], |plan| plan.tables = only("silent")).await;
    assert_eq!(report.steps[0].outcome, Outcome::Skipped, "{report:?}");
    assert!(asked.exists());
    let report = lake.pass(&[Step::Vacuum], |plan| plan.tables = only("absent")).await;
    assert_eq!(report.steps[0].outcome, Outcome::Failed);
    assert!(reason(&report).contains("absent"), "{report:?}");
}

/// A retention that is short or cannot be read deletes what is needed, as reports to other vacuums tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_retention_that_is_short_or_unreadable_deletes_nothing_in_doubt() {
    let lake = Lake::new().await;
    let retention = "delta.deletedFileRetentionDuration";
    lake.create("zero", &[(VACUUM_PROPERTY, "true"), (retention, "interval 0 seconds")]).await;
    lake.create("month", &[(VACUUM_PROPERTY, "true"), (retention, "interval 2 months")]).await;
    lake.create("long", &[(VACUUM_PROPERTY, "true"), (retention, "interval 90 days")]).await;
    lake.publish().await;
    let fresh = lake.path("zero/fresh.parquet");
    fs::write(&fresh, "of a writer at work").unwrap();
    let [zero, month, long] = ["zero", "month", "long"].map(|t| lake.old(t, "x.parquet", 40));
    let report = lake.pass(&[Step::Vacuum], |_| ()).await;
    assert_eq!(report.steps[0].outcome, Outcome::Failed, "{report:?}");
    for word in ["month'", "30 days"] {
        assert!(reason(&report).contains(word), "{report:?}");
    }
    assert!(fresh.exists(), "younger than the least retention");
    assert!(!zero.exists() && month.exists() && long.exists());
    let min =
        |plan: &mut MaintainPlan| plan.min_vacuum_retention = Duration::from_secs(60 * 86_400);
    let zero = lake.old("zero", "x.parquet", 40);
    lake.pass(&[Step::Vacuum], min).await;
    assert!(zero.exists(), "the configuration keeps more");
}

/// delta-io/delta #140: a retention longer than the table's own took files that were removed in between.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_removed_stay_for_the_longer_retention() {
    let lake = Lake::new().await;
    lake.create("t", &[(VACUUM_PROPERTY, "true")]).await;
    lake.append("t", "removed.parquet").await;
    let ten_days_ago = lake.db.clock().now().0 - 10 * 86_400_000;
    let remove = format!(
        "{{\"remove\":{{\"path\":\"removed.parquet\",\"deletionTimestamp\":{ten_days_ago},\"dataChange\":true}}}}\n"
    );
    let change = deltalakedb_catalog_engine::catalog::TableChange {
        target: crate::ChangeTarget::Existing { table: "t".parse().unwrap(), read_version: None },
        ndjson: remove.into(),
        origin: "test".into(),
        reads: crate::Reads::default(),
        operation: None,
    };
    lake.db.commit(crate::CommitBatch { token: None, tables: vec![change] }).await.unwrap();
    lake.publish().await;
    let path = lake.path("t/removed.parquet");
    age(&path, 40);
    let min = |days: u64| {
        move |plan: &mut MaintainPlan| {
            plan.min_vacuum_retention = Duration::from_secs(days * 86_400);
        }
    };
    assert!(lake.pass(&[Step::Vacuum], min(30)).await.is_ok());
    assert!(path.exists(), "readers of the version before may be at it for 30 days");
    assert!(lake.pass(&[Step::Vacuum], min(1)).await.is_ok());
    assert!(!path.exists(), "the table's own week is over");
}

/// Files that a live version names stay, however old and however they are spelt; hidden files and the log too.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_stays() {
    let lake = Lake::new().await;
    lake.create("t", &[(VACUUM_PROPERTY, "true")]).await;
    lake.append("t", "live.parquet").await;
    lake.publish().await;
    age(&lake.path("t/live.parquet"), 400);
    let hidden = lake.old("t", ".hidden", 400);
    let meta = lake.old("t", "_SUCCESS", 400);
    age(&lake.path("t/_delta_log/00000000000000000000.json"), 400);
    let other = lake.path("t/other");
    fs::create_dir_all(other.join("_delta_log")).unwrap();
    fs::write(other.join("_delta_log/00000000000000000000.json"), "{}").unwrap();
    let foreign = lake.old("t", "other/x.parquet", 400);
    let report = lake.pass(&[Step::Vacuum, Step::LogRetention], |_| ()).await;
    assert!(report.is_ok(), "{report:?}");
    for path in [&lake.path("t/live.parquet"), &hidden, &meta, &foreign] {
        assert!(path.exists(), "{path:?}");
    }
    assert!(lake.path("t/_delta_log/00000000000000000000.json").exists());
    // A foreign commit: the catalog does not know what it needs.
    let stale = lake.old("t", "stale.parquet", 400);
    fs::write(lake.path("t/_delta_log/00000000000000000002.json"), "{\"commitInfo\":{}}\n")
        .unwrap();
    let report = lake.pass(&[Step::Vacuum, Step::LogRetention], |_| ()).await;
    assert!(!report.is_ok(), "{report:?}");
    assert!(stale.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_table_is_cleaned_and_reads_on() {
    let lake = Lake::new().await;
    let keep = ("delta.logRetentionDuration", "interval 1 seconds");
    lake.create("t", &[keep, ("delta.checkpointInterval", "5")]).await;
    lake.create("never", &[keep, ("delta.enableExpiredLogCleanup", "false")]).await;
    for n in 1..=7 {
        lake.append("t", &format!("{n}.parquet")).await;
    }
    lake.publish().await;
    let zero = lake.path("t/_delta_log/00000000000000000000.json");
    assert!(zero.exists(), "it was too young when the checkpoint was written");
    let due = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let report = lake.pass(&[Step::LogRetention], |plan| plan.dry_run = true).await;
        assert!(report.is_ok(), "{report:?}");
        if report.steps[0].counts["expired"] > 0 {
            break;
        }
        assert!(std::time::Instant::now() < due, "{report:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(zero.exists(), "a dry run deletes nothing");
    // Two at the same time.
    let plan = MaintainPlan::default().only(&[Step::LogRetention]);
    let (one, other) =
        tokio::join!(lake.db.maintain(&plan, &NoProgress), lake.db.maintain(&plan, &NoProgress));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    assert!(!zero.exists());
    assert!(lake.path("t/_delta_log/00000000000000000005.checkpoint.parquet").exists());
    assert!(lake.path("t/_delta_log/00000000000000000007.json").exists());
    assert!(lake.path("never/_delta_log/00000000000000000000.json").exists());
    // Nothing of it is missed, and readers of the log read the head.
    let report = lake.pass(&[Step::Reconcile], |_| ()).await;
    assert!(report.is_ok(), "{report:?}");
    lake.append("t", "8.parquet").await;
    lake.publish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_or_takes_too_long_leaves_the_others() {
    let lake = Lake::new().await;
    lake.create("t", &[]).await;
    // Too many for the time that the step gets: each is listed, and asked for more than once.
    for n in 0..100 {
        lake.create(&format!("t{n}"), &[]).await;
    }
    lake.publish().await;
    let file = lake.path("a file");
    fs::write(&file, "x").unwrap();
    let mut plan = MaintainPlan::default();
    let to = file.join("backups").to_str().unwrap().to_owned();
    plan.backup = Some(BackupPlan { to, keep: None, full_every: None });
    plan.choices.insert(Step::Reconcile, Choice::Do(Duration::from_millis(1)));
    plan.choices.insert(Step::Optimize, Choice::Leave("as told".to_owned()));
    let report = lake.db.maintain(&plan, &NoProgress).await;
    let all = outcomes(&report);
    assert_eq!(all[&Step::Reconcile], Outcome::TimedOut, "{report:?}");
    assert_eq!(all[&Step::Backup], Outcome::Failed, "{report:?}");
    assert_eq!(all[&Step::Optimize], Outcome::Skipped);
    assert_eq!(all[&Step::Database], Outcome::Ok, "{report:?}");
    assert!(!report.is_ok());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["steps"][1]["outcome"], "timed_out");
    assert_eq!(json["steps"][1]["step"], "reconcile");
    // Tables are named: what concerns the whole catalog is left.
    plan.tables = vec!["t".parse().unwrap()];
    let report = lake.db.maintain(&plan, &NoProgress).await;
    assert_eq!(outcomes(&report)[&Step::Backup], Outcome::Skipped, "{report:?}");
}

/// Keep and full sets: without a full one now and then, nothing old could ever be deleted.
#[tokio::test(flavor = "multi_thread")]
async fn backups_are_full_now_and_then_and_old_sets_go() {
    let lake = Lake::new().await;
    lake.create("t", &[]).await;
    let to = lake.path("b").to_str().unwrap().to_owned();
    let with = |keep, full_every| {
        let to = to.clone();
        move |plan: &mut MaintainPlan| plan.backup = Some(BackupPlan { to, keep, full_every })
    };
    let place = Place::open(&to, &BTreeMap::new()).unwrap();
    let kinds = async || -> Vec<bool> {
        place.list().await.unwrap().sets.iter().map(|set| set.manifest.parent.is_none()).collect()
    };
    let week = Some(Duration::from_secs(7 * 86_400));
    for n in 0..3 {
        lake.append("t", &format!("{n}.parquet")).await;
        let report = lake.pass(&[Step::Backup], with(None, week)).await;
        assert!(report.is_ok(), "{report:?}");
    }
    assert_eq!(kinds().await, [true, false, false]);
    let keep = Some(Keep::Newest(1));
    // An incremental one goes on from all of them: none goes.
    lake.pass(&[Step::Backup], with(keep, week)).await;
    assert_eq!(kinds().await, [true, false, false, false]);
    let report = lake.pass(&[Step::Backup], with(keep, Some(Duration::from_millis(1)))).await;
    assert_eq!(report.steps[0].counts["sets_deleted"], 4, "{report:?}");
    assert_eq!(kinds().await, [true]);
    let report = lake.pass(&[Step::Backup], |_| ()).await;
    assert_eq!(report.steps[0].outcome, Outcome::Skipped);
}
