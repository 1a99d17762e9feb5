use std::fs;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use deltalakedb_catalog_core::error::WriteState;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::sink::{PutOutcome, Replaced};
use uuid::Uuid;

use super::*;

/// A local and an in-memory sink, both empty.
fn sinks() -> (tempfile::TempDir, Vec<Arc<dyn MirrorSink>>) {
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("a b/50%/t");
    let options = BTreeMap::new();
    let memory = format!("memory://{}/deep/t", Uuid::new_v4());
    let sinks = vec![
        open_sink(local.to_str().unwrap(), &options).unwrap(),
        open_sink(&memory, &options).unwrap(),
    ];
    (dir, sinks)
}

fn names(entries: &[deltalakedb_catalog_core::sink::SinkEntry]) -> Vec<&str> {
    entries.iter().map(|e| e.name.as_str()).collect()
}

#[tokio::test]
async fn objects_are_created_once_read_back_and_listed_in_order() {
    let (_dir, sinks) = sinks();
    for sink in sinks {
        assert_eq!(sink.list(None).await.unwrap(), vec![]);
        assert_eq!(sink.get("00.json").await.unwrap(), None);
        for name in ["01.json", "00.json", "_sidecars/x.parquet"] {
            let put = sink.put_if_absent(name, Bytes::from(name.to_owned())).await.unwrap();
            assert_eq!(put, PutOutcome::Created);
        }
        let again = sink.put_if_absent("00.json", Bytes::from_static(b"other")).await.unwrap();
        assert_eq!(again, PutOutcome::Exists);
        assert_eq!(sink.get("00.json").await.unwrap().unwrap(), "00.json");
        let all = sink.list(None).await.unwrap();
        assert_eq!(names(&all), ["00.json", "01.json", "_sidecars/x.parquet"], "{sink:?}");
        assert_eq!(all[0].size_bytes, 7);
        let rest = sink.list(Some("00.json")).await.unwrap();
        assert_eq!(names(&rest), ["01.json", "_sidecars/x.parquet"]);
        sink.put_replace("_last_checkpoint", Bytes::from_static(b"1")).await.unwrap();
        sink.put_replace("_last_checkpoint", Bytes::from_static(b"22")).await.unwrap();
        assert_eq!(sink.get("_last_checkpoint").await.unwrap().unwrap(), "22");
        sink.set_modified("00.json", TimestampMs(1_000)).await.unwrap();
        assert!(sink.describe().ends_with("_delta_log"), "{}", sink.describe());
    }
}

#[tokio::test]
async fn only_the_bytes_that_were_expected_are_replaced() {
    let (_dir, sinks) = sinks();
    for sink in sinks {
        let whole = Bytes::from_static(b"whole");
        assert_eq!(sink.replace("a", b"", whole.clone()).await.unwrap(), Replaced::Changed);
        assert_eq!(sink.get("a").await.unwrap(), None);
        sink.put_if_absent("a", Bytes::from_static(b"wh")).await.unwrap();
        assert_eq!(sink.replace("a", b"w", whole.clone()).await.unwrap(), Replaced::Changed);
        assert_eq!(sink.get("a").await.unwrap().unwrap(), "wh");
        assert_eq!(sink.replace("a", b"wh", whole.clone()).await.unwrap(), Replaced::Done);
        assert_eq!(sink.get("a").await.unwrap().unwrap(), whole);
        assert_eq!(names(&sink.list(None).await.unwrap()), ["a"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn thirty_two_racing_puts_admit_one() {
    let (_dir, sinks) = sinks();
    for sink in sinks {
        for round in 0..10 {
            let name = format!("{round:020}.json");
            let puts = (0..32_u8).map(|i| {
                let (sink, name) = (Arc::clone(&sink), name.clone());
                tokio::spawn(async move {
                    (i, sink.put_if_absent(&name, Bytes::from(vec![i; 10_000])).await.unwrap())
                })
            });
            let outcomes = futures::future::join_all(puts).await;
            let winners: Vec<u8> = outcomes
                .into_iter()
                .map(Result::unwrap)
                .filter(|(_, outcome)| *outcome == PutOutcome::Created)
                .map(|(i, _)| i)
                .collect();
            assert_eq!(winners.len(), 1, "{sink:?}");
            assert_eq!(sink.get(&name).await.unwrap().unwrap(), vec![winners[0]; 10_000]);
        }
        let left = sink.list(None).await.unwrap();
        assert_eq!(left.len(), 10, "no temporary file is left: {left:?}");
    }
}

#[tokio::test]
async fn names_that_lead_out_are_refused() {
    let (_dir, sinks) = sinks();
    for sink in sinks {
        for name in ["", "../x", "a/../b", "/x", "a//b", "."] {
            assert!(sink.put_if_absent(name, Bytes::new()).await.is_err(), "{name}");
            assert!(sink.get(name).await.is_err(), "{name}");
        }
    }
}

#[tokio::test]
async fn local_times_are_set_and_old_leftovers_swept() {
    let dir = tempfile::tempdir().unwrap();
    let sink = LocalSink::new(dir.path().to_owned());
    sink.put_if_absent("00.json", Bytes::new()).await.unwrap();
    for ms in [-5, 0, 1_700_000_000_123] {
        sink.set_modified("00.json", TimestampMs(ms)).await.unwrap();
        assert_eq!(sink.list(None).await.unwrap()[0].modified, TimestampMs(ms));
    }
    let (old, new) = (dir.path().join(".tmp.old"), dir.path().join(".tmp.new"));
    fs::write(&old, "x").unwrap();
    fs::write(&new, "x").unwrap();
    let past = SystemTime::now() - Duration::from_secs(100_000);
    fs::File::options().write(true).open(&old).unwrap().set_modified(past).unwrap();
    sink.put_replace("_last_checkpoint", Bytes::new()).await.unwrap();
    assert!(!old.exists());
    assert!(new.exists(), "a put may be at it now");
    assert_eq!(names(&sink.list(None).await.unwrap()), ["00.json", "_last_checkpoint"]);
}

#[tokio::test]
async fn a_file_in_the_way_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t"), "x").unwrap();
    let sink = LocalSink::new(dir.path().join("t/_delta_log"));
    let error = sink.put_if_absent("00.json", Bytes::new()).await.unwrap_err();
    assert_eq!(error.write_state(), WriteState::NotApplied);
    assert!(error.to_string().contains("a file where a folder is needed"), "{error}");
}
