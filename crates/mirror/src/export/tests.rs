use std::fs;

use deltalakedb_catalog_core::model::MirrorMode;
use deltalakedb_catalog_engine::env::NoProgress;

use super::*;
use crate::checkpoint::checkpoint_name;
use crate::checksum::checksum_name;
use crate::kernel::{LogLocation, read_state};
use crate::testing::{Lake, add, is_commit, names, zero};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

async fn export(lake: &Lake, id: TableId, to: &str) -> Result<ExportReport> {
    let to = lake.location(to);
    publish_to(&lake.catalog, &TableRef::Id(id), &to, &BTreeMap::new(), &NoProgress).await
}

async fn files_at(lake: &Lake, to: &str, version: Option<Version>) -> Result<(Version, usize)> {
    let location = LogLocation::Table(lake.location(to));
    let state = read_state(location, &BTreeMap::new(), version).await?;
    Ok((state.version, state.files.len()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_log_is_written_and_reads_at_every_version() {
    let lake = Lake::new();
    let id = lake.table("t", 25).await;
    let report = export(&lake, id, "copy").await.unwrap();
    assert_eq!((report.commits, report.commits_found), (26, 0));
    assert_eq!((report.first_version, report.version), (Some(v(0)), v(25)));
    assert_eq!(report.checkpoints, [v(10), v(20)]);
    assert!(report.log_dir.ends_with("/copy/_delta_log"), "{}", report.log_dir);
    assert_eq!(names(&lake.log("copy")).len(), 26 + 26 + 2 + 1);
    for version in [0, 9, 10, 15, 20, 25] {
        let got = files_at(&lake, "copy", Some(v(version))).await.unwrap();
        assert_eq!(got, (v(version), usize::try_from(version).unwrap()));
    }
    for (record, body) in lake.catalog.backend().read_bodies(id, v(0), v(25), 99).await.unwrap() {
        let path = lake.log("copy").join(commit_name(record.version));
        assert_eq!(fs::read(&path).unwrap(), body.published().unwrap());
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let ms = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        assert_eq!(i64::try_from(ms).unwrap(), record.timestamp.0);
    }
    let table = lake.catalog.table(&TableRef::Id(id)).await.unwrap();
    assert_eq!(table.published_version, None, "an export is not the table's own mirror");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_base_is_readable_at_every_moment() {
    let lake = Lake::new();
    let id = lake.imported("t", 3, 6, 13).await;
    let report = export(&lake, id, "copy").await.unwrap();
    assert_eq!((report.commits, report.base_version), (11, v(6)));
    assert_eq!(report.checkpoints, [v(6), v(8), v(12)]);
    // Rebuild the log file by file, in the order in which it is written, and read it each time.
    let all = names(&lake.log("copy"));
    let order = {
        let mut order = vec![checkpoint_name(v(6))];
        for version in 3..=13 {
            order.push(commit_name(v(version)));
            if version >= 6 {
                order.push(checksum_name(v(version)));
            }
            if version > 6 && version % 4 == 0 {
                order.push(checkpoint_name(v(version)));
            }
        }
        order
    };
    assert_eq!(all.len(), order.len() + 1, "{all:?}");
    fs::create_dir_all(lake.log("slow")).unwrap();
    let mut last = v(6);
    for name in order {
        fs::copy(lake.log("copy").join(&name), lake.log("slow").join(&name)).unwrap();
        let (version, files) = files_at(&lake, "slow", None).await.unwrap();
        assert_eq!(i64::try_from(files).unwrap(), version.get(), "after {name}");
        assert!(version >= last);
        last = version;
    }
    assert_eq!(last, v(13));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_without_its_json_is_exported() {
    let lake = Lake::new();
    let id = lake.imported("t", 7, 6, 9).await;
    let report = export(&lake, id, "copy").await.unwrap();
    assert_eq!((report.first_version, report.commits), (Some(v(7)), 3));
    assert_eq!(files_at(&lake, "copy", None).await.unwrap(), (v(9), 9));
    let only_base = lake.imported("u", 7, 6, 6).await;
    let report = export(&lake, only_base, "base").await.unwrap();
    assert_eq!((report.first_version, report.commits, report.checkpoints), (None, 0, vec![v(6)]));
    assert_eq!(files_at(&lake, "base", None).await.unwrap(), (v(6), 6));
}

#[tokio::test]
async fn a_place_with_anything_else_is_refused() {
    let lake = Lake::new();
    let id = lake.table("t", 3).await;
    for (name, content, want) in [
        ("00000000000000000007.json", "{}", "00000000000000000007.json"),
        ("00000000000000000002.json", "{}\n", "is not the one of this table"),
        ("00000000000000000002.crc", "{}", "00000000000000000002.crc"),
        ("00000000000000000003.checkpoint.parquet", "x", "is not the one of this table"),
        ("readme.txt", "x", "readme.txt"),
    ] {
        let log = lake.log("copy");
        fs::create_dir_all(&log).unwrap();
        fs::write(log.join(name), content).unwrap();
        let error = export(&lake, id, "copy").await.unwrap_err();
        assert!(matches!(error, CatalogError::InvalidInput(_)));
        assert!(error.to_string().contains(want), "{error}");
        assert!(error.to_string().contains("Nothing was written"), "{error}");
        assert_eq!(names(&log), [name]);
        fs::remove_dir_all(&log).unwrap();
    }
}

#[tokio::test]
async fn an_export_that_broke_off_is_continued_with_new_commits() {
    let lake = Lake::new();
    for (name, id) in [("t", lake.table("t", 11).await), ("i", lake.imported("i", 2, 5, 11).await)]
    {
        export(&lake, id, "whole").await.unwrap();
        let whole = names(&lake.log("whole"));
        let checkpoints_first: Vec<&String> = {
            let mut order: Vec<&String> =
                whole.iter().filter(|n| !n.starts_with("_last")).collect();
            if name == "i" {
                order.sort_by_key(|n| **n != checkpoint_name(v(5)));
            }
            order
        };
        for kept in [0, 1, 3, 7, checkpoints_first.len()] {
            let log = lake.log("part");
            fs::create_dir_all(&log).unwrap();
            for file in &checkpoints_first[..kept] {
                fs::copy(lake.log("whole").join(file), log.join(file)).unwrap();
            }
            lake.commit(id, &add(&format!("more-{kept}"))).await;
            let report = export(&lake, id, "part").await.unwrap();
            let there = checkpoints_first[..kept].iter().filter(|n| is_commit(n)).count();
            assert_eq!(report.commits_found, u64::try_from(there).unwrap());
            let head = report.version;
            let again = export(&lake, id, "part").await.unwrap();
            assert_eq!((again.commits, again.version), (0, head), "twice is harmless");
            for file in whole.iter().filter(|n| is_commit(n)) {
                assert_eq!(
                    fs::read(log.join(file)).unwrap(),
                    fs::read(lake.log("whole").join(file)).unwrap()
                );
            }
            fs::remove_dir_all(&log).unwrap();
        }
        fs::remove_dir_all(lake.log("whole")).unwrap();
    }
}

#[tokio::test]
async fn a_table_that_is_not_mirrored_can_be_exported() {
    let lake = Lake::new();
    let id = lake.create_with("t", &zero("", ""), MirrorMode::Off).await;
    lake.commit(id, &add("a")).await;
    let memory = format!("memory://{}/x", uuid::Uuid::new_v4());
    let report =
        publish_to(&lake.catalog, &TableRef::Id(id), &memory, &BTreeMap::new(), &NoProgress)
            .await
            .unwrap();
    assert_eq!((report.commits, report.version), (2, v(1)));
    let missing = TableRef::Name("no.such".parse().unwrap());
    let error = publish_to(&lake.catalog, &missing, &memory, &BTreeMap::new(), &NoProgress).await;
    assert!(matches!(error, Err(CatalogError::TableNotFound(_))));
}

/// With sidecars; whatever an export that broke off has left behind of them is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_with_sidecars_are_written_and_continued() {
    let lake = Lake::new();
    let properties = "\"delta.checkpointInterval\":\"4\",\"delta.checkpointPolicy\":\"v2\"";
    let id = lake.create("t", &zero("\"v2Checkpoint\"", properties)).await;
    for i in 1..=9 {
        lake.commit(id, &add(&format!("{i}"))).await;
    }
    let report = export(&lake, id, "copy").await.unwrap();
    assert_eq!(report.checkpoints, [v(4), v(8)]);
    for version in [4, 8, 9] {
        let want = (v(version), usize::try_from(version).unwrap());
        assert_eq!(files_at(&lake, "copy", Some(v(version))).await.unwrap(), want);
    }
    let sidecars = lake.log("copy").join("_sidecars");
    let all = names(&sidecars);
    assert_eq!(all.len(), 2 + 4);
    let whole = fs::read(sidecars.join(&all[5])).unwrap();
    fs::remove_file(sidecars.join(&all[5])).unwrap();
    assert_eq!(export(&lake, id, "copy").await.unwrap().commits, 0);
    assert_eq!(fs::read(sidecars.join(&all[5])).unwrap(), whole);
    // Another program's sidecar, and one of ours that was changed.
    let strange = all[5].replace("checkpoint.0000000004", "checkpoint.0000000009");
    fs::write(sidecars.join(&strange), "x").unwrap();
    let error = export(&lake, id, "copy").await.unwrap_err().to_string();
    assert!(error.contains(&strange), "{error}");
    fs::rename(sidecars.join(&strange), sidecars.join(&all[5])).unwrap();
    let error = export(&lake, id, "copy").await.unwrap_err().to_string();
    assert!(error.contains(&all[5]), "{error}");
}
