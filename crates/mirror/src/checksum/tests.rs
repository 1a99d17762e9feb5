use std::fs;

use deltalakedb_catalog_core::ids::TableRef;
use deltalakedb_catalog_engine::env::NoProgress;
use serde_json::{Value, json};

use super::*;
use crate::diff::{DiffOptions, Verdict, diff};
use crate::kernel::{LogLocation, read_state};
use crate::testing::{Lake, add, remove_checksums, zero};

fn v(version: i64) -> Version {
    Version::new(version).unwrap()
}

fn read(lake: &Lake, version: i64) -> Value {
    let path = lake.log("t").join(checksum_name(v(version)));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A table whose commits change everything that a checksum holds.
async fn table(lake: &Lake) -> TableId {
    let zero = zero(
        "\"domainMetadata\",\"inCommitTimestamp\"",
        "\"delta.enableInCommitTimestamps\":\"true\",\"delta.checkpointInterval\":\"4\"",
    );
    let id = lake.create("t", &zero).await;
    lake.commit(id, &format!("{}{}", add("1"), r#"{"txn":{"appId":"a","version":7}}"#)).await;
    let domain = |removed| {
        format!(r#"{{"domainMetadata":{{"domain":"d","configuration":"c","removed":{removed}}}}}"#)
    };
    lake.commit(id, &domain(false)).await;
    lake.commit(id, &add("3")).await;
    lake.commit(id, &format!("{}\n{}", domain(true), r#"{"txn":{"appId":"a","version":8}}"#)).await;
    let info = r#"{"commitInfo":{"operation":"SET","txnId":"own"}}"#;
    let metadata = zero.lines().nth(1).unwrap().replace("\"n\"", "\"renamed\"");
    lake.commit(id, &format!("{info}\n{metadata}")).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_holds_the_state_of_its_version() {
    let lake = Lake::new();
    let id = table(&lake).await;
    let report = lake.publisher().run_once(None).await.unwrap();
    assert_eq!((report.published, report.failures), (6, vec![]));
    let files: Vec<_> = (0..6).map(|n| read(&lake, n)["numFiles"].clone()).collect();
    assert_eq!(files, [0, 1, 1, 2, 2, 2]);
    let sizes: Vec<_> = (0..6).map(|n| read(&lake, n)["tableSizeBytes"].clone()).collect();
    assert_eq!(sizes, [0, 100, 100, 200, 200, 200]);
    let txns: Vec<_> = (0..6).map(|n| read(&lake, n)["setTransactions"].clone()).collect();
    let (seven, eight) = (json!([{"appId":"a","version":7}]), json!([{"appId":"a","version":8}]));
    assert_eq!(txns, [json!([]), seven.clone(), seven.clone(), seven, eight.clone(), eight]);
    let domains: Vec<_> = (0..6).map(|n| read(&lake, n)["domainMetadata"].clone()).collect();
    let there = json!([{"domain":"d","configuration":"c","removed":false}]);
    assert_eq!(domains, [json!([]), json!([]), there.clone(), there, json!([]), json!([])]);
    let names: Vec<_> = (0..6).map(|n| read(&lake, n)["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["n", "n", "n", "n", "n", "renamed"]);
    assert_eq!(read(&lake, 5)["txnId"], "own");
    for n in 0..6 {
        let checksum = read(&lake, n);
        let commit = lake.catalog.snapshot(&TableRef::Id(id), At::Version(v(n))).await.unwrap();
        assert_eq!(checksum["inCommitTimestampOpt"], commit.timestamp.0);
        assert_eq!((&checksum["numMetadata"], &checksum["numProtocol"]), (&json!(1), &json!(1)));
        assert_eq!(checksum["protocol"]["minWriterVersion"], 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_reads_the_same_with_checksums_and_without() {
    let lake = Lake::new();
    table(&lake).await;
    lake.publisher().run_once(None).await.unwrap();
    let location = LogLocation::Table(lake.location("t"));
    let options = std::collections::BTreeMap::new();
    let state = |version| read_state(location.clone(), &options, version);
    let mut with = Vec::new();
    for n in 0..6 {
        with.push(state(Some(v(n))).await.unwrap());
    }
    // It does read them: a name that only the checksum has.
    let path = lake.log("t").join(checksum_name(v(5)));
    let bytes = fs::read_to_string(&path).unwrap();
    fs::write(&path, bytes.replace("renamed", "believed")).unwrap();
    assert_eq!(state(None).await.unwrap().metadata.name.as_deref(), Some("believed"));
    remove_checksums(&lake.log("t"));
    for n in 0..6_i64 {
        let without = state(Some(v(n))).await.unwrap();
        assert_eq!(without, with[usize::try_from(n).unwrap()], "version {n}");
    }
}

/// Every damage is either passed over by readers or shown by a comparison.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checksum_never_changes_a_result_silently() {
    let lake = Lake::new();
    let id = table(&lake).await;
    lake.publisher().run_once(None).await.unwrap();
    let location = LogLocation::Table(lake.location("t"));
    let options = std::collections::BTreeMap::new();
    let right = read_state(location.clone(), &options, None).await.unwrap();
    let path = lake.log("t").join(checksum_name(v(5)));
    let whole = fs::read(&path).unwrap();
    let table = TableRef::Id(id);
    let report = || diff(&lake.catalog, &table, DiffOptions::default(), &NoProgress);
    assert_eq!(report().await.unwrap().verdict, Verdict::Parity);
    let (mut believed, mut ignored) = (0, 0);
    for at in (0..whole.len()).step_by(11) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        for damaged in [flipped, whole[..at].to_vec()] {
            fs::write(&path, &damaged).unwrap();
            let read = read_state(location.clone(), &options, None).await;
            let silent = read.as_ref().is_ok_and(|read| *read == right);
            if silent {
                ignored += 1;
            } else {
                believed += 1;
            }
            let report = report().await.unwrap();
            assert!(
                report.verdict == Verdict::Drift || (silent && equal(&damaged, &whole)),
                "byte {at}: {report:?}"
            );
        }
    }
    assert!(believed > 0 && ignored > 0, "{believed} {ignored}");
}

/// Whether the same is said: a transaction's id is no part of a table's state.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let value = |bytes| VersionChecksum::parse(bytes);
    value(a).zip(value(b)).is_some_and(|(a, b)| a.agrees_with(&b))
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_of_others_stay() {
    let lake = Lake::new();
    let id = lake.table("t", 2).await;
    lake.publisher().run_once(None).await.unwrap();
    lake.commit(id, &add("3")).await;
    lake.commit(id, &add("4")).await;
    // One that says the same in other words, and one that contradicts.
    let mut same = read(&lake, 2);
    same["numFiles"] = json!(3);
    same["tableSizeBytes"] = json!(300);
    same["allFiles"] = json!([]);
    same.as_object_mut().unwrap().remove("setTransactions");
    let (path, same) = (lake.log("t").join(checksum_name(v(3))), same.to_string());
    fs::write(&path, &same).unwrap();
    let other = lake.log("t").join(checksum_name(v(4)));
    fs::write(&other, &same).unwrap();
    let report = lake.publisher().run_once(None).await.unwrap();
    let [issue] = report.failures.as_slice() else { panic!("{report:?}") };
    assert_eq!((report.published, issue.version, issue.published), (2, v(4), true));
    assert!(issue.error.contains("is not the checksum of version 4"), "{}", issue.error);
    assert_eq!(fs::read_to_string(&path).unwrap(), same);
    assert_eq!(fs::read_to_string(&other).unwrap(), same);
    let report =
        diff(&lake.catalog, &TableRef::Id(id), DiffOptions::default(), &NoProgress).await.unwrap();
    assert_eq!((report.verdict, report.bytes.checksums.first), (Verdict::Drift, vec![v(4)]));
}

#[test]
fn long_lists_are_left_out() {
    let bytes = br#"{"tableSizeBytes":1,"numFiles":1,"numMetadata":1,"numProtocol":1,
        "metadata":{"id":"x","schemaString":"{}"},
        "protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#;
    let checksum = VersionChecksum::parse(bytes).unwrap();
    assert_eq!(checksum.set_transactions, None);
    assert!(!String::from_utf8(encode(&checksum).unwrap().to_vec()).unwrap().contains("null"));
}
